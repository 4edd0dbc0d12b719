package steps

import (
	"context"
	"errors"
	"fmt"
)

// Error is a failure with what the engine and an author's retry.if ask about it.
type Error struct {
	// Kind is one word: refused, timeout, closed, auth, loading, readonly, reply, precondition,
	// not-found, conflict, exit, canceled, …
	Kind string
	// Temporary: the same request may succeed later.
	Temporary bool
	// Unknown: the request may have been carried out. It is settled by a probe, never simply repeated.
	Unknown bool
	// Hint tells a person what to do; empty where the error says it all.
	Hint string
	Err  error
}

// ErrNoTarget is in the chain of what Env.Target("") gives where the step has no target:
// a kind that may stand without one then takes its default.
var ErrNoTarget = errors.New("the step has no target")

// Error says what was attempted, on what, and why it failed.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind: permanent, with a known outcome.
func Errorf(kind, format string, a ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, a...)}
}

// Temporarily marks an error as one that may pass.
func Temporarily(kind string, err error) *Error {
	return &Error{Kind: kind, Temporary: true, Err: err}
}

// KindDoubt is the kind of an error of Doubt.
const KindDoubt = "doubt"

// Doubt is the error of a kind that has found its target in a state that it cannot judge, or
// that it cannot change: the engine stops with the step in doubt, and neither repeats it nor
// takes it for done, whatever the kind says of itself otherwise.
func Doubt(format string, a ...any) *Error {
	return &Error{Kind: KindDoubt, Unknown: true, Err: fmt.Errorf(format, a...)}
}

// Precondition is the error of a Check that does not hold.
func Precondition(format string, a ...any) *Error {
	return &Error{Kind: "precondition", Err: fmt.Errorf(format, a...)}
}

// WithHint adds what a person can do.
func (e *Error) WithHint(format string, a ...any) *Error {
	e.Hint = fmt.Sprintf(format, a...)
	return e
}

// Classify gives the Error in err's chain, or makes one: a cancelled or timed-out
// context leaves an unknown outcome, anything else is permanent.
func Classify(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		if e.Err == err || error(e) == err {
			return e
		}
		c := *e
		c.Err = err
		return &c
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: "timeout", Temporary: true, Unknown: true, Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Kind: "canceled", Unknown: true, Err: err}
	}
	return &Error{Kind: "failed", Err: err}
}
