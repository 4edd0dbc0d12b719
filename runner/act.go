package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// act is one step being carried out: what the kind sees of the run, and what the
// engine knows of the step. It implements steps.Env.
type act struct {
	x      *run
	n      *Node
	s      *scope
	path   string
	kind   *steps.Definition
	effect steps.Effect
	target *boundTarget
	in     any   // pointer to the kind's inputs
	item   *item // of a wait over all items; nil otherwise
	digest string

	attempt   int // counted over all processes
	try       int // counted in this one
	began     time.Time
	before    json.RawMessage
	withheld  bool
	acted     bool   // an earlier attempt has acted, here or in an earlier process
	sent      bool   // this one has
	entry     *entry // in the log for the way back; nil: nothing to put back
	out       any    // the kind's output; nil: not known
	found     bool   // out is what a probe found, so that what only the act knows is null
	result    map[string]any
	recovered bool
	warnings  []string
	lines     []steps.Line // dry run: what it would send
	because   string       // dry run: the step that would have changed what this one has looked at
}

// What a kind sees of the run.

// Target finds a target by name; the empty name is the step's own.
func (a *act) Target(name string) (steps.Target, error) {
	t, err := a.bound(name)
	if err != nil {
		return steps.Target{}, err
	}
	return t.Target, nil
}

func (a *act) bound(name string) (*boundTarget, error) {
	if name == "" || a.target != nil && name == a.target.Name {
		if a.target == nil {
			return nil, steps.ErrNoTarget
		}
		return a.target, nil
	}
	if t := a.s.frame.find(name); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("there is no target %q", name)
}

// Connect gives the client of a target.
func (a *act) Connect(ctx context.Context, t steps.Target, access steps.Access) (any, error) {
	if a.x.dry != nil && access == steps.ReadWrite && a.effect != steps.Read { // what is a read by its author's word needs a session
		return nil, steps.Errorf(dryRefusal, "a dry run opens nothing that could write")
	}
	b, err := a.bound(t.Name)
	if err != nil {
		if b, err = a.x.foreign(t); err != nil {
			return nil, err
		}
	}
	return a.x.pool.get(ctx, b, access)
}

// foreign is a target that no runbook declares: the runner's own machine.
func (x *run) foreign(t steps.Target) (*boundTarget, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b := x.foreigners[t.Name]; b != nil {
		return b, nil
	}
	def := x.prog.Catalog.Targets[t.Kind]
	if def == nil {
		return nil, fmt.Errorf("target %s: there is no target kind %s", t.Name, t.Kind)
	}
	cfg := reflect.New(def.Config)
	if err := schema.Bind(t.Config, cfg.Interface()); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	b := &boundTarget{Target: t, def: def, cfg: cfg.Interface(), addr: def.Addr(cfg.Elem().Addr().Interface())}
	if x.foreigners == nil {
		x.foreigners = map[string]*boundTarget{}
	}
	x.foreigners[t.Name] = b
	return b, nil
}

// Now is the run's time.
func (a *act) Now() time.Time { return a.x.clock.Now() }

// Sleep waits on the run's clock.
func (a *act) Sleep(ctx context.Context, d time.Duration) error { return a.x.clock.Sleep(ctx, d) }

// Progress shows how far a long act has come.
func (a *act) Progress(p steps.Progress) {
	p.Text = a.x.mask.String(p.Text)
	t := Tick{Step: a.path, Progress: p}
	a.x.looks.progress(t, a.x.clock.Now())
	if a.x.cfg.Progress != nil {
		a.x.cfg.Progress(t)
	}
}

// Before is what Plan captured when the step started.
func (a *act) Before() json.RawMessage { return a.before }

// Host is what processes started for this run inherit.
func (a *act) Host() steps.HostEnv {
	h := steps.HostEnv{Dir: a.x.dir}
	if a.x.children != nil {
		h.Inherit = a.x.children.File()
	}
	return h
}

// Log for what helps to find a fault.
func (a *act) Log() *slog.Logger { return a.x.cfg.Log.With("step", a.path) }
