package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"runbook/runner/journal"
)

// controlName is the control socket in the folder of a run. It is there while a process
// works on the run; one that died leaves it, and then nobody answers at it.
const controlName = "control.sock"

// errNobodyListens says that no process of a run answers at its control socket.
var errNobodyListens = errors.New("no process of the run listens")

// listenControl makes the control socket of a run, for its user alone. It appears under
// its name when it has its mode, in the place of what a dead process left.
func listenControl(r *journal.Run) (*net.UnixListener, error) {
	fresh := controlName + ".new"
	if err := os.Remove(r.Path(fresh)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	short, done, err := socketPath(r.Dir, fresh)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its name is another one by then
	err = os.Chmod(r.Path(fresh), 0o600)
	if err == nil {
		err = os.Rename(r.Path(fresh), r.Path(controlName))
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// dialControl connects to the process that works on a run; errNobodyListens where there is none.
func dialControl(ctx context.Context, r *journal.Run) (*net.UnixConn, error) {
	short, done, err := socketPath(r.Dir, controlName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNobodyListens
	}
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", short)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNobodyListens
	case err != nil:
		return nil, fmt.Errorf("reach run %s at %s: %w", r.ID, r.Path(controlName), err)
	}
	return conn.(*net.UnixConn), nil
}

// longestSocket is how long the path of a Unix socket may be on every system.
const longestSocket = 100

// socketPath gives a path of a file in a folder that is short enough for a socket, which
// is good until done is called.
func socketPath(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= longestSocket {
		return path, func() {}, nil
	}
	link, done, err := shortDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("%s is too long for a socket: %w", path, err)
	}
	return filepath.Join(link, name), done, nil
}

// terminalOf is the terminal that a process has for input or errors; empty: none.
func terminalOf() string {
	for _, fd := range []int{0, 2} {
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && (strings.HasPrefix(name, "/dev/pts/") || strings.HasPrefix(name, "/dev/tty")) {
			return name
		}
	}
	return ""
}

// Here adds to an operator where this process is: its number, terminal and SSH client.
func (o Operator) Here() Operator {
	o.PID, o.TTY = os.Getpid(), terminalOf()
	o.SSH, _, _ = strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	return o
}

// controlTime is how long one request to a live run may take, on either side.
const controlTime = 5 * time.Second
