package runner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"runbook/schema"
)

// desk is where the gates of a process are decided, by its own terminal or another one.
// The first decision that counts wins: it is in the journal before anybody learns of it.
type desk struct {
	mu      sync.Mutex
	gates   gateStates               // those of earlier processes too
	changed map[string]chan struct{} // of a gate that is waited at: closed at the next decision
}

// begin takes over what earlier processes have asked.
func (d *desk) begin(p *past) {
	d.gates, d.changed = gateStates{}, map[string]chan struct{}{}
	for path := range p.gates {
		if g := p.gate(path); g != nil {
			c := g.copy()
			d.gates[path] = &c
		}
	}
}

// before is a gate as earlier processes have left it, and as it was decided about since;
// nil: it is to be asked from its beginning.
func (d *desk) before(p *past, at string) *gateState {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.gate(at) == nil || d.gates[at] == nil {
		return nil
	}
	g := d.gates[at].copy()
	return &g
}

// open journals that a gate asks. One that has asked the same before goes on.
func (d *desk) open(ctx context.Context, x *run, at string, body GateOpened) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := x.durable(ctx, recGateOpened, at, &body); err != nil {
		return err
	}
	g := d.gates[at]
	if g == nil || g.decided() || g.differs(body) != "" || x.past.gate(at) == nil {
		g = &gateState{path: at, since: x.clock.Now()}
		d.gates[at] = g
	}
	g.GateOpened = body
	return nil
}

// look is a gate as it stands, and what is closed when somebody decides about it.
func (d *desk) look(at string) (gateState, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed[at] == nil {
		d.changed[at] = make(chan struct{})
	}
	return d.gates[at].copy(), d.changed[at]
}

func (g *gateState) copy() gateState {
	c := *g
	c.given = slices.Clone(g.given)
	return c
}

// expire is look, and a gate whose timeout is over has ended, and that is in the journal.
func (d *desk) expire(ctx context.Context, x *run, at string) (gateState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.gates[at]
	if !g.decided() && expired(g.expires(), x.clock.Now()) {
		if err := d.journal(ctx, x, g, GateDecided{How: "timeout"}); err != nil {
			return gateState{}, err
		}
	}
	return g.copy(), nil
}

// decideGate takes a decision about an open gate. The error is a *UsageError where it does not count.
func (x *run) decideGate(ctx context.Context, at string, by GateDecided, retyped string) (gateState, error) {
	d := &x.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.gates[at]
	if err := g.admit(by, retyped, x.starter(), x.clock.Now()); err != nil {
		return gateState{}, err
	}
	if err := d.journal(ctx, x, g, by); err != nil {
		return gateState{}, err
	}
	return g.copy(), nil
}

// journal writes a decision down, then lets it count.
func (d *desk) journal(ctx context.Context, x *run, g *gateState, by GateDecided) error {
	by.Digest = g.Digest
	by.Reason = x.mask.String(by.Reason)
	if err := x.durable(ctx, recGateDecided, g.path, &by); err != nil {
		return err
	}
	g.take(by)
	if changed := d.changed[g.path]; changed != nil {
		close(changed)
		delete(d.changed, g.path)
	}
	return nil
}

// starter is who started the run.
func (x *run) starter() *Person {
	if p := x.past.starter(); p != nil {
		return p
	}
	return x.cfg.Operator.person()
}

// find gives the gate that a person means by a step's id or path: an open one.
func (s gateStates) find(step string, p *Program) (*gateState, error) {
	var open, closed []string
	for _, path := range slices.Sorted(maps.Keys(s)) {
		if path != step && lastID(path) != step {
			continue
		}
		if s[path].decided() {
			closed = append(closed, path)
		} else {
			open = append(open, path)
		}
	}
	switch {
	case len(open) == 1 || slices.Contains(open, step):
		if slices.Contains(open, step) {
			open[0] = step
		}
		return s[open[0]], nil
	case len(open) > 1:
		return nil, unfit("name one of them", "the gate of %s is open in %d places: %s", step, len(open), comma(open))
	case slices.Contains(closed, step):
		return s[step], nil
	case len(closed) > 0:
		return s[closed[len(closed)-1]], nil
	}
	gates := p.Gates()
	id := lastID(step)
	var waiting []string
	for _, path := range slices.Sorted(maps.Keys(s)) {
		if !s[path].decided() {
			waiting = append(waiting, path)
		}
	}
	hint := "no gate is open"
	if len(waiting) > 0 {
		hint = "open are: " + comma(waiting)
	}
	if _, ok := gates[id]; ok {
		return nil, unfit(hint, "the gate of %s is not open: the run has not come to it yet", step)
	}
	if p.byID()[id] != nil {
		return nil, unfit(hint, "step %s has no gate: it asks nobody", step)
	}
	if near, ok := schema.Nearest(id, slices.Sorted(maps.Keys(gates))); ok {
		hint = "did you mean " + near + "?"
	}
	return nil, unfit(hint, "the runbook has no step %s", step)
}

func comma(words []string) string { return strings.Join(words, ", ") }

// unfit is the error of what was asked for and cannot be done; nothing was.
func unfit(hint, format string, args ...any) error {
	return &UsageError{Err: fmt.Errorf(format, args...), Hint: hint}
}
