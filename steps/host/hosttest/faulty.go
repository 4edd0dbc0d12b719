package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"

	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

// Faults asks a test what is to become of each request to the machines it opens.
type Faults struct {
	mu     sync.Mutex
	ask    func(write bool) conformance.Fault
	writes int
}

// Intercept has f asked; nil: no faults.
func (f *Faults) Intercept(ask func(write bool) conformance.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ask = ask
}

// Writes counts the requests so far that may change something.
func (f *Faults) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// Target is the target kind host whose machines have these faults.
func (f *Faults) Target() *steps.TargetDefinition {
	t := host.Target()
	open := t.Open
	t.Open = func(ctx context.Context, c host.Config, a steps.Access) (host.Machine, error) {
		m, err := open(ctx, c, steps.ReadWrite)
		if err != nil {
			return nil, err
		}
		if m = (&faulty{m, f}); a == steps.ReadOnly {
			m = host.ReadOnly(m)
		}
		return m, nil
	}
	return t.Define()
}

// faulty is a machine whose requests may be lost or never answered.
type faulty struct {
	host.Machine
	f *Faults
}

// Close ends the machine underneath.
func (m *faulty) Close() error {
	if c, ok := m.Machine.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (m *faulty) write(ctx context.Context, what string, do func() error) error {
	return m.request(ctx, true, what, do)
}

func (m *faulty) look(ctx context.Context, what string, do func() error) error {
	return m.request(ctx, false, what, do)
}

func (m *faulty) request(ctx context.Context, write bool, what string, do func() error) error {
	m.f.mu.Lock()
	if write {
		m.f.writes++
	}
	ask := m.f.ask
	m.f.mu.Unlock()
	fault := conformance.None
	if ask != nil {
		fault = ask(write)
	}
	lost := &steps.Error{Kind: "closed", Unknown: true, Err: fmt.Errorf("%s: %w", what, errors.New("the connection was cut"))}
	switch fault {
	case conformance.LostBefore:
		return lost
	case conformance.LostAfter:
		if err := do(); err != nil {
			return err
		}
		return lost
	case conformance.Hang:
		<-ctx.Done()
		return &steps.Error{Kind: "canceled", Unknown: true, Err: fmt.Errorf("%s: %w", what, context.Cause(ctx))}
	}
	return do()
}

func (m *faulty) Run(ctx context.Context, c host.Command) (r host.Result, err error) {
	err = m.write(ctx, "run", func() error { r, err = m.Machine.Run(ctx, c); return err })
	return r, err
}

func (m *faulty) Start(ctx context.Context, s host.Spawn) (p host.Process, err error) {
	err = m.write(ctx, "start", func() error { p, err = m.Machine.Start(ctx, s); return err })
	return p, err
}

func (m *faulty) Signal(ctx context.Context, p host.Process, sig host.Signal, group bool) error {
	return m.write(ctx, "signal", func() error { return m.Machine.Signal(ctx, p, sig, group) })
}

func (m *faulty) WriteFile(ctx context.Context, path string, content []byte, mode fs.FileMode) error {
	return m.write(ctx, "write "+path, func() error { return m.Machine.WriteFile(ctx, path, content, mode) })
}

func (m *faulty) Mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	return m.write(ctx, "make directory "+path, func() error { return m.Machine.Mkdir(ctx, path, mode) })
}

func (m *faulty) Remove(ctx context.Context, path string) error {
	return m.write(ctx, "remove "+path, func() error { return m.Machine.Remove(ctx, path) })
}

func (m *faulty) Process(ctx context.Context, pid int) (r host.Process, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Process(ctx, pid); return err })
	return r, err
}

func (m *faulty) ReadFile(ctx context.Context, path string, limit int64) (r []byte, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.ReadFile(ctx, path, limit); return err })
	return r, err
}

func (m *faulty) Stat(ctx context.Context, path string) (r host.File, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Stat(ctx, path); return err })
	return r, err
}

func (m *faulty) List(ctx context.Context, path string) (r []host.File, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.List(ctx, path); return err })
	return r, err
}

func (m *faulty) RealPath(ctx context.Context, path string) (r string, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.RealPath(ctx, path); return err })
	return r, err
}

func (m *faulty) Listening(ctx context.Context, port int) (r host.Listener, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Listening(ctx, port); return err })
	return r, err
}

func (m *faulty) Dial(ctx context.Context, addr string) (r net.Conn, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Dial(ctx, addr); return err })
	return r, err
}

func (m *faulty) Disk(ctx context.Context, path string) (r host.Disk, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Disk(ctx, path); return err })
	return r, err
}

func (m *faulty) Look(ctx context.Context, name string, args ...string) (r host.Tool, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Look(ctx, name, args...); return err })
	return r, err
}

func (m *faulty) Facts(ctx context.Context) (r host.Facts, err error) {
	err = m.look(ctx, "look", func() error { r, err = m.Machine.Facts(ctx); return err })
	return r, err
}
