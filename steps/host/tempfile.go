package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// tempBeside opens the file that is to be renamed to path. It has one name for each path, so that what a killed runner
// left is taken over and does not stay. Where somebody else is writing to it, or it is not ours, it gets a random name.
func tempBeside(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	name := filepath.Join(dir, "."+base+".runner")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		if takeOver(f, name) {
			return f, nil
		}
		_ = f.Close()
	} else if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) {
		return nil, err
	}
	return os.CreateTemp(dir, "."+base+".*")
}

// takeOver empties a file, if it is ours alone and still has its name: its last writer may have renamed it meanwhile.
func takeOver(f *os.File, name string) bool {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	here, err := f.Stat()
	if err != nil || !here.Mode().IsRegular() {
		return false
	}
	sys, ok := here.Sys().(*syscall.Stat_t)
	if !ok || int(sys.Uid) != os.Geteuid() || sys.Nlink != 1 {
		return false
	}
	named, err := os.Lstat(name)
	if err != nil || !os.SameFile(here, named) {
		return false
	}
	return f.Chmod(0o600) == nil && f.Truncate(0) == nil
}
