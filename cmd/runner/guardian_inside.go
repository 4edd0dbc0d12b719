package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"runbook/runner"
)

// guardians are those of a run in a sandbox. They cannot be processes, because the world
// is in this one; else they are as any other: a pipe is all that connects them to the run.
type guardians struct {
	mu      sync.Mutex
	started []*guardianInside
	ctx     context.Context //nolint:containedctx // the life of the world
	end     context.CancelCauseFunc
}

// starter gives what a run starts its guardians with.
func (g *guardians) starter(cfg runner.GuardianConfig) func(runner.GuardianSpec) (runner.GuardianPipe, error) {
	g.ctx, g.end = context.WithCancelCause(context.Background())
	return func(spec runner.GuardianSpec) (runner.GuardianPipe, error) {
		cfg, log := cfg, io.Discard
		var file *os.File
		if spec.Log != "" {
			var err error
			if file, err = os.OpenFile(spec.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
				return nil, err
			}
			log = file
		}
		cfg.Log = slog.New(slog.NewTextHandler(log, nil))
		orders, in := io.Pipe()
		out, answers := io.Pipe()
		p := &guardianInside{in: in, out: out, ended: make(chan struct{})}
		go func() {
			defer close(p.ended)
			p.err = runner.ServeGuardian(g.ctx, cfg, orders, answers)
			_ = orders.Close() // who still writes learns that nobody reads
			_ = answers.Close()
			if file != nil {
				_ = file.Close()
			}
		}()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.started = append(g.started, p)
		return p, nil
	}
}

// guardianGrace is how long guardians may act on after the run, in real time.
const guardianGrace = 10 * time.Second

// stop ends every pipe, as the runner's death does, lets guardians do what they are there for, and waits for all of them.
func (g *guardians) stop() {
	if g.end == nil {
		return
	}
	late := time.AfterFunc(guardianGrace, func() { g.end(errors.New("the sandbox has ended")) })
	defer late.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.started {
		_ = p.Close()
	}
	for _, p := range g.started {
		<-p.ended
	}
	g.end(nil)
}

// guardianInside is the run's end of one.
type guardianInside struct {
	in    *io.PipeWriter
	out   *io.PipeReader
	ended chan struct{}
	err   error
}

func (p *guardianInside) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *guardianInside) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *guardianInside) Close() error                { return p.in.Close() }

func (p *guardianInside) Wait() error {
	<-p.ended
	return p.err
}
