package host

import (
	"context"
	"io"
	"io/fs"

	"runbook/steps"
)

// ReadOnly gives a machine that looks but does not touch: Run, Start, Signal, WriteFile,
// Mkdir and Remove are refused before anything is sent. Run is refused whole, because
// nobody can tell from a command whether it only reads; what the looking methods need they run themselves.
func ReadOnly(m Machine) Machine {
	if r, ok := m.(*readOnly); ok {
		return r
	}
	return &readOnly{m}
}

type readOnly struct{ Machine }

func (r *readOnly) Run(context.Context, Command) (Result, error) {
	return Result{}, r.refuse("run a command")
}

func (r *readOnly) Start(context.Context, Spawn) (Process, error) {
	return Process{}, r.refuse("start a process")
}

func (r *readOnly) Signal(context.Context, Process, Signal, bool) error {
	return r.refuse("send a signal")
}

func (r *readOnly) WriteFile(_ context.Context, path string, _ []byte, _ fs.FileMode) error {
	return r.refuse("write " + path)
}

func (r *readOnly) Remove(_ context.Context, path string) error { return r.refuse("remove " + path) }

func (r *readOnly) Mkdir(_ context.Context, path string, _ fs.FileMode) error {
	return r.refuse("make directory " + path)
}

// Close ends the machine underneath.
func (r *readOnly) Close() error {
	if c, ok := r.Machine.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (r *readOnly) refuse(what string) error {
	return steps.Errorf("readonly", "%s on %s: refused, only looking is allowed here", what, r.String())
}
