package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ending is the word of a person, or of a guard, that ends this process of a run: to be
// resumed (Paused), or for good (Aborted). As the cause of a context it is an
// interruption, so that what runs settles as it does after a signal.
type ending struct {
	status Status
	reason string
	by     *Person // nil: no person
}

// Error says what was decided, by whom, and why.
func (e *ending) Error() string {
	return RunPaused{Reason: e.reason, Person: e.by}.words(string(e.status))
}

// Unwrap makes it an interruption.
func (e *ending) Unwrap() error { return ErrInterrupted }

// endings is the ending of a process: the first one asked for.
type endings struct {
	emu        sync.Mutex
	word       *ending
	cut        context.CancelCauseFunc // ends what runs; nil: nothing does yet
	concluding bool                    // the steps have ended
	over       bool                    // so has all else
}

// endable gives the context of the steps, which an ending ends.
func (x *run) endable(ctx context.Context) context.Context {
	ctx, cut := context.WithCancelCause(ctx)
	x.emu.Lock()
	x.cut = cut
	x.emu.Unlock()
	return based(ctx)
}

// pauseRun ends this process so that the run can be resumed: it journals why, durable,
// then nothing new starts and what runs settles. It does not wait for that. by is nil
// where no person did it. The error says why it is not to be had, or that the journal
// could not be written.
func (x *run) pauseRun(ctx context.Context, reason string, by *Person) error {
	return x.end(ctx, recRunPaused, &ending{status: Paused, reason: reason, by: by})
}

// abortRun ends the run for good, in the same way; then `finally` runs, and what was
// temporary is put back.
func (x *run) abortRun(ctx context.Context, reason string, by *Person) error {
	return x.end(ctx, recRunAborted, &ending{status: Aborted, reason: reason, by: by})
}

func (x *run) end(ctx context.Context, record string, e *ending) error {
	x.emu.Lock()
	defer x.emu.Unlock()
	switch {
	case x.over:
		return errors.New("the run has just ended")
	case x.word != nil:
		return fmt.Errorf("the run is ending already: %w", x.word)
	case x.concluding && e.status == Aborted:
		return errors.New("the steps of the run have ended, and only its finally still runs: there is nothing left to abort")
	}
	if err := x.durable(ctx, record, "", &RunPaused{Reason: e.reason, Person: e.by}); err != nil {
		return err
	}
	x.word = e
	if x.cut != nil {
		x.cut(e)
	}
	return nil
}

// endedBy is the ending that was asked for; nil: none. The steps have ended: from here on
// none comes that would have them end otherwise.
func (x *run) endedBy() *ending {
	x.emu.Lock()
	defer x.emu.Unlock()
	x.concluding = true
	return x.word
}

// closed is endedBy, and no other ending comes any more.
func (x *run) closed() *ending {
	x.emu.Lock()
	defer x.emu.Unlock()
	x.over = true
	return x.word
}

// aborting says that the run is to end for good, by a word to this process or an earlier one.
func (x *run) aborting() *ending {
	if a := x.past.aborted; a != nil {
		return &ending{status: Aborted, reason: a.Reason, by: a.Person}
	}
	x.emu.Lock()
	defer x.emu.Unlock()
	if x.word != nil && x.word.status == Aborted {
		return x.word
	}
	return nil
}
