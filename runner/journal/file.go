package journal

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is what a journal needs of a file, so that a test can stand in for a disk that fails or forgets.
type File interface {
	io.Reader
	io.Writer // at the end of the file, wherever reading is
	io.Closer
	Truncate(size int64) error
	Sync() error // what was written survives a power cut when it returns nil (fdatasync)
}

// osFile is an *os.File whose Sync leaves out what a reader does not need, such as the time of the last change.
type osFile struct{ *os.File }

func (f osFile) Sync() error {
	if err := fdatasync(f.File); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func openFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// syncDir makes the names in a directory durable: a synced file whose name is lost is lost.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// mkdirDurable makes a directory for this user alone, and its parents where they are missing, each durable.
func mkdirDurable(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if os.IsNotExist(err) {
		if err := mkdirDurable(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if os.IsExist(err) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", dir)
		}
		return err
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// WriteDurable replaces a file, readable by its user alone, so that a crash leaves the old content or the new one, whole.
func WriteDurable(path string, data []byte) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // best effort: the first error is the one to tell
		return err
	}
	return syncDir(filepath.Dir(path))
}
