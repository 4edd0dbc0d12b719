package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Children is how a resumed run knows that nothing of its predecessor is still acting. Each child process and guardian
// of a run inherits one open file, which carries a shared flock(2).
//
// Such a lock belongs to the open file description, that is to one open(2), and not to a process. A child that inherits
// the descriptor shares the description, and the kernel drops the lock when the last descriptor to it is closed. So a
// runner that is killed with SIGKILL, with no chance to do anything, leaves the lock in place for exactly as long as one
// of its children (or of theirs, unless they close what they do not know) lives. The next runner opens the file anew,
// gets a description of its own, and asks for the exclusive lock: it gets it when all of them are gone.
type Children struct {
	run  *Run
	file *os.File
}

// ChildrenError says that children of an earlier process of the run are still alive.
type ChildrenError struct {
	Path string // the file that they hold
	Err  error  // why the waiting ended; nil if nobody waited
}

func (e *ChildrenError) Error() string {
	text := fmt.Sprintf("processes that the run started are still alive (they hold %s)", e.Path)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *ChildrenError) Unwrap() error { return e.Err }

func (r *Run) childrenPath() string { return r.Path("children") }

// OpenChildren opens the run's file for children with the shared lock. The caller holds the run's lock.
func OpenChildren(run *Run) (*Children, error) {
	f, err := os.OpenFile(run.childrenPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file for children of run %s: %w", run.ID, err)
	}
	ok, err := flock(f, syscall.LOCK_SH)
	if err == nil && !ok {
		err = errors.New("another runner waits for them right now")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the file for children of run %s: %w", run.ID, err)
	}
	return &Children{run: run, file: f}, nil
}

// File goes into exec.Cmd.ExtraFiles of every child. Nobody may unlock it: an unlock through one descriptor is one for
// all of them.
func (c *Children) File() *os.File { return c.file }

// childrenPoll is how often WaitFree looks: flock(2) has no wait that a context can end.
const childrenPoll = 50 * time.Millisecond

// WaitFree returns when no child of an earlier process of the run is alive. It is for the beginning of a resume, before
// the first probe and before File is given to anyone: children of this process share its lock and are not noticed.
//
// after is the engine's clock; nil means time.After. waiting, if not nil, is called once if there is something to wait
// for. Where ctx ends first the error is a *ChildrenError with its cause, and the run must not go on.
func (c *Children) WaitFree(ctx context.Context, after func(time.Duration) <-chan time.Time, waiting func()) error {
	if after == nil {
		after = time.After
	}
	for first := true; ; first = false {
		free, err := c.tryFree()
		if err != nil {
			return fmt.Errorf("wait for the children of run %s: %w", c.run.ID, err)
		}
		if free {
			return nil
		}
		if first && waiting != nil {
			waiting()
		}
		select {
		case <-after(childrenPoll):
		case <-ctx.Done():
			return &ChildrenError{Path: c.file.Name(), Err: context.Cause(ctx)}
		}
	}
}

// tryFree takes the exclusive lock for an instant. On the way the shared one is dropped, also where the exclusive one is
// not to be had, so it is taken again in either case; the run's lock keeps everyone out who could come in between.
func (c *Children) tryFree() (bool, error) {
	free, err := flock(c.file, syscall.LOCK_EX)
	if err != nil {
		return false, err
	}
	shared, err := flock(c.file, syscall.LOCK_SH)
	if err == nil && !shared {
		err = errors.New("lost the shared lock to another runner")
	}
	return free && err == nil, err
}

// Close gives up this process's hold on the file, and leaves that of the children.
func (c *Children) Close() error {
	// No unlock: it would end the children's lock too.
	return c.file.Close()
}

// ChildrenAlive tells whether a child of a process of the run is alive, where no process works on the run. It asks for
// the exclusive lock for an instant, and keeps nothing.
func ChildrenAlive(run *Run) (bool, error) {
	f, err := os.Open(run.childrenPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for children of run %s: %w", run.ID, err)
	}
	defer f.Close()
	free, err := flock(f, syscall.LOCK_EX)
	if err != nil {
		return false, fmt.Errorf("look for children of run %s: %w", run.ID, err)
	}
	return !free, nil
}
