package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// Env is what a kind runs in: the targets of a world, clients opened once and shared, and
// a clock on which waiting takes no time (unless the world asks for real time).
type Env struct {
	world World

	mu       sync.Mutex
	now      time.Time
	before   json.RawMessage
	clients  map[clientKey]any
	closers  []func() error
	progress []steps.Progress
}

type clientKey struct {
	name   string
	access steps.Access
}

// NewEnv makes an Env for a world. Close ends its clients.
func NewEnv(w World) *Env {
	return &Env{world: w, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), clients: map[clientKey]any{}}
}

// Target finds a target of the world; the empty name is the step's own.
func (e *Env) Target(name string) (steps.Target, error) {
	if name == "" {
		if e.world.Target == "" {
			return steps.Target{}, steps.ErrNoTarget
		}
		name = e.world.Target
	}
	t, ok := e.world.Targets[name]
	if !ok {
		return steps.Target{}, fmt.Errorf("there is no target %q", name)
	}
	return steps.Target{Name: name, Kind: t.Kind.Name, Config: maps.Clone(t.Config)}, nil
}

// Connect opens a target's client once. A target that the world does not name is opened by
// the kind of that name among the world's targets.
func (e *Env) Connect(ctx context.Context, t steps.Target, a steps.Access) (any, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := clientKey{t.Name, a}
	if c, ok := e.clients[key]; ok {
		return c, nil
	}
	var def *steps.TargetDefinition
	for _, w := range e.world.Targets {
		if w.Kind.Name == t.Kind {
			def = w.Kind
		}
	}
	if def == nil {
		return nil, fmt.Errorf("the world has no target of kind %s", t.Kind)
	}
	cfg := reflect.New(def.Config).Interface()
	if err := schema.Bind(t.Config, cfg); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	c, err := def.Open(ctx, cfg, a)
	if err != nil {
		return nil, err
	}
	e.clients[key] = c
	e.closers = append(e.closers, func() error { return def.Close(c) })
	return c, nil
}

// Close ends all clients.
func (e *Env) Close() error {
	e.mu.Lock()
	closers := e.closers
	e.closers, e.clients = nil, map[clientKey]any{}
	e.mu.Unlock()
	var errs []error
	for _, c := range closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Now is the world's time.
func (e *Env) Now() time.Time {
	if e.world.Wall {
		return time.Now()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

// Sleep lets the world's time pass.
func (e *Env) Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e.world.Wall {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = e.now.Add(d)
	return nil
}

// Progress is kept for Progressed.
func (e *Env) Progress(p steps.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress = append(e.progress, p)
}

// Progressed gives what the kind has shown of its progress.
func (e *Env) Progressed() []steps.Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]steps.Progress(nil), e.progress...)
}

// SetBefore keeps what Plan captured, as the journal does.
func (e *Env) SetBefore(before any) {
	raw, err := json.Marshal(before)
	if err != nil {
		panic(fmt.Sprintf("what the plan captured cannot be journaled: %v", err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.before = raw
}

// Before is what Plan captured.
func (e *Env) Before() json.RawMessage {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.before
}

// Watch gives a guardian that has nothing to do: the kind ends its own acts here.
func (e *Env) Watch(context.Context, steps.Watch) (steps.Guardian, error) { return idle{}, nil }

type idle struct{}

func (idle) Tell(string) error           { return nil }
func (idle) Dismiss()                    {}
func (idle) Yield(context.Context) error { return nil }

// Host has nothing to inherit.
func (e *Env) Host() steps.HostEnv { return steps.HostEnv{} }

// Log says nothing.
func (e *Env) Log() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
