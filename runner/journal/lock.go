package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	Step     string    `json:"step,omitempty"`  // the last one that was about to change something
	Claim    bool      `json:"claim,omitempty"` // it keeps other runs out after its process has ended
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
	Target string // that keeps the lock; empty: it is a file
	Holder Holder
	// Claimed: no process holds it, it is kept for a run that is not over.
	Claimed bool
}

func (e *LockedError) Error() string {
	what := e.Name
	if what == "" {
		what = e.Path
	}
	if e.Target != "" {
		what += " on " + e.Target
	}
	if e.Claimed {
		return fmt.Sprintf("lock %s is kept for a run that is not over: %v", what, e.Holder)
	}
	return fmt.Sprintf("lock %s is held by %v", what, e.Holder)
}

// Held is a lock that this process holds until Release or Keep, or until it dies.
type Held struct {
	path string

	mu     sync.Mutex
	file   *os.File // nil: let go
	holder Holder
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
// the file is no lock, unless it is a claim: that of another run is an obstacle too, and that of the same run is taken
// over. The file is opened close-on-exec: a child does not keep the lock of its dead parent (for that
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
		if left := readHolder(f); left.Claim && left.Run != h.Run {
			f.Close()
			return nil, &LockedError{Path: path, Holder: left, Claimed: true}
		}
		l := &Held{path: path, file: f, holder: h}
		if err := l.write(); err != nil {
			_ = l.Keep()
			return nil, fmt.Errorf("lock %s: write its holder: %w", path, err)
		}
		return l, nil
	}
}

// At notes the step that the holder has come to.
func (l *Held) At(step string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.holder.Step == step {
		return nil
	}
	l.holder.Step = step
	if err := l.put(); err != nil {
		return fmt.Errorf("lock %s: write its holder: %w", l.path, err)
	}
	return nil
}

// Release clears the file, a claim in it too, and lets go of the lock. A second Release does nothing.
func (l *Held) Release() error { return l.letGo(true) }

// Keep lets go of the lock and leaves what is in the file: a claim stays one.
func (l *Held) Keep() error { return l.letGo(false) }

func (l *Held) letGo(clear bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	var err error
	if clear {
		err = l.file.Truncate(0)
	}
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

// write puts the holder into the file; a claim is durable when it returns.
func (l *Held) write() error {
	if err := l.put(); err != nil || !l.holder.Claim {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(l.path))
}

// put writes the holder over what is there and cuts the rest off after that: at no time is a claim gone in between.
func (l *Held) put() error {
	data, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if _, err := l.file.WriteAt(data, 0); err != nil {
		return err
	}
	return l.file.Truncate(int64(len(data)))
}

// readHolder is as good as it gets: a holder may be writing at this moment. What counts is the first line.
func readHolder(f *os.File) (h Holder) {
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	data, _, _ = bytes.Cut(data, []byte("\n"))
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
