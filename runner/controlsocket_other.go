//go:build !linux

package runner

import (
	"net"
	"os"
	"path/filepath"
)

// peer is taken to be this process's user: the socket's mode lets nobody else in but root.
func peer(*net.UnixConn) (uid, pid int, err error) { return os.Getuid(), 0, nil }

// shortDir is another, short path of a folder.
func shortDir(dir string) (string, func(), error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	tmp, err := os.MkdirTemp("/tmp", "run")
	if err != nil {
		return "", nil, err
	}
	link := filepath.Join(tmp, "d")
	if err := os.Symlink(full, link); err != nil {
		os.RemoveAll(tmp)
		return "", nil, err
	}
	return link, func() { os.RemoveAll(tmp) }, nil
}
