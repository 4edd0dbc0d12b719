package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// Holder is who holds a lock, for people to read.
type Holder struct {
	Operator string    `json:"operator,omitempty"`
	Host     string    `json:"host,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Run      string    `json:"run,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Step     string    `json:"step,omitempty"`
}

// String is such as "host db7, pid 4711, operator ana, run 20261122-111450-f4c0x7qp, since 2026-11-22T11:14:50Z".
func (h Holder) String() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("host", h.Host)
	if h.PID != 0 {
		add("pid", fmt.Sprint(h.PID))
	}
	add("operator", h.Operator)
	add("run", h.Run)
	add("step", h.Step)
	if !h.Since.IsZero() {
		add("since", h.Since.UTC().Format(time.RFC3339))
	}
	if len(parts) == 0 {
		return "a process that has not written its name"
	}
	return strings.Join(parts, ", ")
}

// LockedError says that someone else holds the lock. The holder is zero where the file does not tell.
type LockedError struct {
	Path   string
	Name   string // of a named lock
	Holder Holder
}

func (e *LockedError) Error() string {
	what := e.Name
	if what == "" {
		what = e.Path
	}
	return fmt.Sprintf("lock %s is held by %v", what, e.Holder)
}

// Held is a lock that this process holds until Release, or until it dies.
type Held struct {
	path string
	file *os.File
}

// Path is the file of the lock.
func (l *Held) Path() string { return l.path }

// A lock that is busy is tried for a few milliseconds more before it counts as held: Inspect takes it for an instant,
// a holder needs one to write its name, and so does a process between fork and exec to let go of what it inherited.
const (
	lockTries = 5
	lockPause = time.Millisecond
)

// Lock takes the lock of a file, which it makes where it is missing, and writes the holder into it. Where someone else
// has it, in this process or another one on this host, the error is a *LockedError.
//
// The lock is flock(2)'s, not the content: it ends with the process, however that dies, so what a dead holder left in
// the file is no lock. The file is opened close-on-exec: a child does not keep the lock of its dead parent (for that
// there are Children).
//
// Nobody unlinks the file. Otherwise A could hold the lock of the unlinked file while B makes a new one of that name
// and locks it as well. Removing a whole run does unlink its lock, so Lock looks, after it has the lock, whether the
// name still leads to the file it has locked, and begins again if not.
func Lock(path string, h Holder) (*Held, error) {
	for try := 1; ; try++ {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		free, err := flock(f, syscall.LOCK_EX)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !free {
			holder := readHolder(f)
			f.Close()
			if try < lockTries {
				time.Sleep(lockPause)
				continue
			}
			return nil, &LockedError{Path: path, Holder: holder}
		}
		if !isNamed(f, path) {
			f.Close()
			continue
		}
		l := &Held{path: path, file: f}
		if err := l.write(h); err != nil {
			_ = l.Release()
			return nil, fmt.Errorf("lock %s: write its holder: %w", path, err)
		}
		return l, nil
	}
}

// Release clears the file and lets go of the lock. A second Release does nothing.
func (l *Held) Release() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Truncate(0)
	// Explicitly, since a process between fork and exec may have this open file too for an instant.
	if _, uerr := flock(l.file, syscall.LOCK_UN); err == nil {
		err = uerr
	}
	if cerr := l.file.Close(); err == nil {
		err = cerr
	}
	l.file = nil
	if err != nil {
		return fmt.Errorf("release lock %s: %w", l.path, err)
	}
	return nil
}

// Inspect tells whether a lock is held, and what is written in it: the holder, or else what a dead one left. It takes
// nothing away from the holder. A file that does not exist is a lock that is free.
func Inspect(path string) (h Holder, held bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("inspect lock: %w", err)
	}
	defer f.Close()
	free, err := flock(f, syscall.LOCK_SH)
	if err != nil {
		return Holder{}, false, fmt.Errorf("inspect lock %s: %w", path, err)
	}
	return readHolder(f), !free, nil
}

func (l *Held) write(h Holder) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err = l.file.WriteAt(append(data, '\n'), 0)
	return err
}

// readHolder is as good as it gets: a holder may be writing at this moment.
func readHolder(f *os.File) (h Holder) {
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}

func isNamed(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}

// flock takes, changes or drops the lock of an open file without waiting. ok is false where another one is in the way.
func flock(f *os.File, how int) (ok bool, err error) {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch err {
		case nil:
			return true, nil
		case syscall.EWOULDBLOCK:
			return false, nil
		case syscall.EINTR:
		default:
			return false, fmt.Errorf("flock: %w", err)
		}
	}
}
