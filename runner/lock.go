package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"runbook/runner/journal"
	"runbook/steps"
)

// tenure is the lock of a run, as long as this process has it: a file in the state
// directory, or a lease of a target.
type tenure struct {
	name, target string
	hold         bool // other runs are kept out until this one is over, not only its process
	keep         bool // so the claim stays when this process ends
	holder       journal.Holder
	file         *journal.Held
	lease        steps.Lease

	lost sync.Once
	cut  context.CancelCauseFunc // ends all that the run does
}

// claim takes the lock that the runbook names, where it names one; unlock gives it back.
// A successor goes on with a run whose earlier processes are known to be dead.
func (x *run) claim(ctx context.Context, fr *frame, body *RunStarted, successor bool) error {
	if x.prog.Root.Lock == nil {
		return nil
	}
	decl := x.prog.Root.Book.Lock
	t := &tenure{name: x.words(newScope(fr, nil, "", nil), x.prog.Root.Lock), target: decl.Target.Value, holder: x.holder()}
	t.hold = decl.Hold.Value == "run" && x.sandbox == "" // a run in a sandbox is never resumed
	t.holder.Claim = t.hold
	t.keep = t.hold && successor
	body.Lock, body.LockTarget, body.LockHold = t.name, t.target, decl.Hold.Value
	var err error
	if t.target == "" {
		t.file, err = x.cfg.Store.Lock(t.name, t.holder)
	} else {
		t.lease, err = x.lease(ctx, fr, t, successor)
	}
	if err == nil {
		x.lock = t
		if t.lease != nil {
			body.Fence = t.lease.Fence()
		}
		return nil
	}
	if locked := new(journal.LockedError); errors.As(err, &locked) || over(ctx) != nil {
		return err
	}
	return unreached(x.mask.Error(err))
}

// unreached is the error of a target that does not answer where nothing has been done yet, with the client's hint.
func unreached(err error) error {
	u := &UsageError{Err: err}
	if e := new(steps.Error); errors.As(err, &e) {
		u.Hint = e.Hint
	}
	return u
}

func (x *run) lease(ctx context.Context, fr *frame, t *tenure, successor bool) (steps.Lease, error) {
	locker, err := x.locker(ctx, fr, t.target)
	if err != nil {
		return nil, err
	}
	lease, err := locker.Lock(ctx, steps.LockRequest{Name: t.name, Run: x.id, Holder: t.written(""), Claim: t.hold, Successor: successor})
	return lease, onTarget(err, t.target)
}

// locker is the client of a target that keeps locks.
func (x *run) locker(ctx context.Context, fr *frame, target string) (steps.Locker, error) {
	b := fr.find(target)
	if b == nil {
		return nil, fmt.Errorf("there is no target %q", target)
	}
	client, err := x.pool.get(ctx, b, steps.ReadWrite)
	if err != nil {
		return nil, err
	}
	locker, ok := client.(steps.Locker)
	if !ok {
		return nil, fmt.Errorf("target %s of kind %s keeps no locks", target, b.Kind)
	}
	return locker, nil
}

// onTarget makes a lock that somebody else holds on a target the error that such a file gives.
func onTarget(err error, target string) error {
	var held *steps.HeldError
	if !errors.As(err, &held) {
		return err
	}
	locked := &journal.LockedError{Name: held.Name, Target: target, Claimed: held.Claimed}
	_ = json.Unmarshal(held.Holder, &locked.Holder) // what is no holder is shown as one without a name
	return locked
}

// written is what others read of the holder.
func (t *tenure) written(step string) json.RawMessage {
	h := t.holder
	h.Step = step
	raw, err := json.Marshal(h)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return raw
}

// permitted is asked before a step changes something, and notes in the lock which one it
// is. It waits while nobody knows whether the lock is still the run's. An error says that
// nothing may be sent: the lock is lost and the run ends, or ctx has ended.
func (x *run) permitted(ctx context.Context, path string) error {
	t := x.lock
	if t == nil {
		return nil
	}
	if t.file != nil {
		if err := t.file.At(path); err != nil {
			x.cfg.Log.Warn("the step is not in the lock's file, where others look for it", "step", path, "error", err)
		}
		return nil
	}
	return x.confirm(ctx, t.written(path))
}

// stillPermitted is permitted once more, when what was about to be done has been written
// down: a disk may be slow. It asks the target only if too little of the lease is left.
func (x *run) stillPermitted(ctx context.Context) error {
	if x.lock == nil || x.lock.lease == nil {
		return nil
	}
	return x.confirm(ctx, nil)
}

func (x *run) confirm(ctx context.Context, holder json.RawMessage) error {
	err := x.lock.lease.Confirm(ctx, holder)
	if err == nil {
		return nil
	}
	if x.lock.lease.Err() != nil {
		x.lose()
		<-ctx.Done() // that of a rollback ends a moment after what it goes back to: no step must take this for a failure of its own
	}
	return &steps.Error{Kind: "canceled", Err: fmt.Errorf("%w, before anything was sent", err)}
}

// leased gives the context of all that a run does, which ends when its lock is lost, until
// the function that it gives is called.
func (x *run) leased(ctx context.Context) (context.Context, func()) {
	t := x.lock
	if t == nil || t.lease == nil {
		return ctx, func() {}
	}
	ctx, t.cut = context.WithCancelCause(ctx)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-t.lease.Lost():
			x.lose()
		case <-done:
		}
	})
	return ctx, func() { close(done); watch.Wait() }
}

// lose ends this process of the run, as a pause does: what acts is cut off and nobody knows
// what came of it, a rollback and what the run ends with included, until a resume has the
// lock again.
func (x *run) lose() {
	x.lock.lost.Do(func() {
		e := &ending{status: Paused, reason: x.mask.String(x.lock.lease.Err().Error())}
		if err := x.durable(context.Background(), recRunPaused, "", &RunPaused{Reason: e.reason}); err != nil {
			x.cfg.Log.Error("the loss of the lock cannot be journaled", "error", err) // nor can what follows: the run ends by that
		}
		x.lock.cut(e)
	})
}

// unlock gives the lock back.
func (x *run) unlock() {
	t := x.lock
	if t == nil {
		return
	}
	var err error
	switch {
	case t.lease != nil:
		err = t.lease.Release(context.Background(), t.keep)
	case t.keep:
		err = t.file.Keep()
	default:
		err = t.file.Release()
	}
	if err != nil {
		x.cfg.Log.Warn("the lock was not given back; runner lock list tells", "lock", t.name, "error", x.mask.Error(err))
	}
}

// lockKinds are the kinds of target that keep locks.
func (c *Catalog) lockKinds() []string {
	var kinds []string
	for name, k := range c.Targets {
		if k.Locks {
			kinds = append(kinds, name)
		}
	}
	slices.Sort(kinds)
	return kinds
}
