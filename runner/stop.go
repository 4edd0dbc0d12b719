package runner

import (
	"context"
	"errors"
	"time"

	"runbook/steps"
)

// softKey finds the context that ends when nothing new may start.
type softKey struct{}

// branch gives a context with a stop of its own: after it nothing new starts in the
// branch, and reads and waits end; attempts that change something go on to their end.
func branch(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	soft, stop := context.WithCancelCause(softOf(ctx))
	return context.WithValue(ctx, softKey{}, soft), stop
}

func softOf(ctx context.Context) context.Context {
	if soft, ok := ctx.Value(softKey{}).(context.Context); ok {
		return soft
	}
	return ctx
}

// stopped is the halt of a branch in which nothing new may start; nil: go on.
func stopped(ctx context.Context, path string) *halt {
	if cause := over(ctx); cause != nil {
		return haltFor(cause, path)
	}
	return nil
}

// over is the cause for which nothing new may start; nil: go on.
func over(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if soft := softOf(ctx); soft.Err() != nil {
		return context.Cause(soft)
	}
	return nil
}

// haltFor is the halt that a context which ended means. A timeout is the failure of the
// element that has it, which makes it one; all that is cut inside of it has not failed.
func haltFor(cause error, path string) *halt {
	switch {
	case errors.Is(cause, ErrInterrupted):
		return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: cause}}
	case errors.Is(cause, errTimeout), errors.Is(cause, errAttempt):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "timeout", Err: cause}}
	case errors.As(cause, new(*tripped)): // the element that it is a stop condition of knows what that means
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "guard", Err: cause}}
	case errors.Is(cause, errSibling), errors.Is(cause, errBackground), errors.Is(cause, errSuspended):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "stopped", Err: cause}}
	}
	return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: cause}}
}

// baseKey finds the context that only a person ends.
type baseKey struct{}

// based gives the context of a run, which untimed goes back to.
func based(ctx context.Context) context.Context { return context.WithValue(ctx, baseKey{}, ctx) }

// untimed is ctx without the timeouts and the other branches around here: for what has
// to be carried through when they have ended, a rollback or a finally, and for what
// outlives the group it stands in. A person can still interrupt it.
func untimed(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	base, ok := ctx.Value(baseKey{}).(context.Context)
	if !ok {
		base = ctx
	}
	free, end := context.WithCancelCause(context.WithoutCancel(ctx))
	detach := context.AfterFunc(base, func() { end(context.Cause(base)) })
	free = context.WithValue(free, softKey{}, free)
	free = context.WithValue(free, limitKey{}, (*limit)(nil))
	return free, func(cause error) { detach(); end(cause) }
}

// pause sleeps between two things that the engine does, until nothing new may start.
func (x *run) pause(ctx context.Context, d time.Duration) error {
	soft, done := softly(ctx)
	defer done()
	return x.clock.Sleep(soft, d)
}

// softly is a context for reads and waits: it ends too when nothing new may start.
// The second value lets go of it.
func softly(ctx context.Context) (context.Context, func()) {
	soft := softOf(ctx)
	if soft == ctx {
		return ctx, func() {}
	}
	both, end := context.WithCancelCause(ctx)
	detach := context.AfterFunc(soft, func() { end(context.Cause(soft)) })
	return both, func() { detach(); end(nil) }
}
