package runner

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// dryRun is what a run without effects knows of the effects it did not have.
type dryRun struct {
	mu      sync.Mutex
	changed map[string]string // target, to the step that would change it
	all     string            // a step of which nobody can tell what it would change; empty: none
	failed  *halt             // the first precondition known to be false
}

// dryRefusal is the kind of the error that a dry run gives to whoever wants to write.
const dryRefusal = "dry-run"

// here names the machine of the runner itself, for steps without a target.
const here = "\x00here"

func (d *dryRun) would(path string, targets ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range targets {
		if d.changed[t] == "" {
			d.changed[t] = path
		}
	}
}

// because names the step that would have changed one of these targets.
func (d *dryRun) because(targets []string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range targets {
		if step := d.changed[t]; step != "" {
			return step
		}
	}
	if len(targets) == 0 {
		return ""
	}
	return d.all
}

// wouldInside is would for all that a node may do, where it is not known whether it does.
func (d *dryRun) wouldInside(n *Node, path string) {
	if n.Effect == steps.Read {
		return
	}
	for _, c := range n.Children {
		d.wouldInside(c, path)
	}
	if n.Shape == Group {
		return
	}
	targets, known := n.staticTargets()
	if known {
		d.would(path, targets...)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == "" {
		d.all = path
	}
}

// staticTargets are the targets that a step acts on or asks, as far as that can be told
// before it runs; false: it cannot.
func (n *Node) staticTargets() ([]string, bool) {
	if n.Shape != Leaf || n.partIn == nil && n.BoundIn == nil || n.BoundIn == nil && dynamicPeers(n) {
		return nil, false
	}
	in := n.BoundIn
	if in == nil {
		in = n.partIn
	}
	names := peers(in)
	switch b := n.Target; {
	case n.FanOut:
		for _, t := range n.Targets {
			names = append(names, t.Name)
		}
	case b == nil:
	case b.Target != nil:
		names = append(names, b.Target.Name)
	case b.Each != nil:
		for _, t := range b.Each.Targets {
			names = append(names, t.Name)
		}
	default:
		return nil, false
	}
	if len(names) == 0 {
		names = append(names, here)
	}
	return names, true
}

// dynamicPeers tells that a target among the inputs is only known while running.
func dynamicPeers(n *Node) bool {
	for i := range n.Kind.In.NumField() {
		f := n.Kind.In.Field(i)
		if f.Type != reflect.TypeFor[schema.TargetName]() && f.Type != reflect.TypeFor[schema.Endpoint]() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if t := n.With.entry(name); t != nil && !t.Constant {
			return true
		}
	}
	return false
}

func (d *dryRun) fail(h *halt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = h
	}
}

// touches are the targets that a step acts on or asks, by name and by address, since two
// names may be one server. None: it looks at nothing but the values that it is given.
func (a *act) touches() []string {
	if a.kind.Engine == steps.EngineSet || onlyConditions(a.kind.In) {
		return nil
	}
	var names []string
	add := func(t *boundTarget) {
		names = append(names, t.Name)
		if t.addr != "" {
			names = append(names, "\x00addr "+t.addr)
		}
	}
	if a.target != nil {
		add(a.target)
	}
	for _, name := range peers(a.in) {
		if t := a.s.frame.find(name); t != nil {
			add(t)
		} else {
			names = append(names, "\x00addr "+name)
		}
	}
	if len(names) == 0 {
		names = append(names, here)
	}
	return names
}

func onlyConditions(in reflect.Type) bool {
	for i := range in.NumField() {
		if in.Field(i).Type != reflect.TypeFor[[]schema.Condition]() {
			return false
		}
	}
	return in.NumField() > 0
}

// dryLeaf does all of a step but its effect.
func (x *run) dryLeaf(ctx context.Context, a *act) *halt {
	switch a.kind.Engine {
	case steps.EngineGate, steps.EngineStopBackground, steps.EngineSleep:
		return x.dryDone(a, statusOK, nil)
	}
	because := x.dry.because(a.touches())
	if a.effect == steps.Read {
		return x.dryRead(ctx, a, because)
	}
	return x.dryChange(ctx, a, because)
}

// dryRead looks once, without waiting.
func (x *run) dryRead(ctx context.Context, a *act, because string) *halt {
	limited, cancel := x.clock.WithTimeout(ctx, defaultTimeout, errTimeout)
	defer cancel()
	out, err := a.read(limited)
	if c := context.Cause(ctx); c != nil {
		return haltFor(c, a.path)
	}
	if because != "" {
		return x.dryUnknown(a, &unknownError{because})
	}
	if err != nil {
		return x.dryFail(a, steps.Classify(err))
	}
	a.out, a.found = out, false
	a.result = x.seen(a)
	if a.n.Wait != nil {
		ok, err := x.holds(a.s, a.n.Wait.Until, a.result)
		var unknown *unknownError
		var null *expression.NullError
		switch {
		case errors.As(err, &unknown):
			return x.dryUnknown(a, err)
		case err != nil && !errors.As(err, &null):
			return x.dryFail(a, steps.Classify(err))
		case !ok:
			return x.dryUnknown(a, fmt.Errorf("would wait until %s (%s)", a.n.Wait.Until.Expr.Source, x.explain(a.s, a.n.Wait.Until, a.result)))
		}
	}
	if failure := x.must(a.s, "expect", a.n.Expect, a.result); failure != nil {
		var unknown *unknownError
		if errors.As(failure, &unknown) {
			return x.dryUnknown(a, unknown)
		}
		return x.dryFail(a, failure)
	}
	return x.dryDone(a, statusOK, nil)
}

// dryChange asks the probe, the preconditions and the plan of a step that would act.
func (x *run) dryChange(ctx context.Context, a *act, because string) *halt {
	limited, cancel := x.clock.WithTimeout(ctx, defaultTimeout, errTimeout)
	defer cancel()
	state, out, err := x.probe(limited, a)
	if err == nil && state == steps.Done && because == "" {
		a.out, a.found = out, true
		a.result = x.seen(a)
		return x.dryDone(a, statusOK, nil)
	}
	var change steps.Change
	if err == nil {
		change, err = x.intend(limited, a)
	}
	if c := context.Cause(ctx); c != nil {
		return haltFor(c, a.path)
	}
	if err != nil && because == "" {
		return x.dryFail(a, steps.Classify(err))
	}
	if err != nil { // the target is not as it will be: only what is known offline can be told
		change, err = bounded(x, limited, a.path, func(ctx context.Context) (steps.Change, error) { return a.kind.Plan(ctx, nil, a.in) })
		if err != nil {
			return x.dryUnknown(a, &unknownError{because})
		}
	}
	a.lines, a.because = change.Lines, because
	touched := a.touches()
	for _, l := range change.Lines {
		if l.Target != "" {
			touched = append(touched, l.Target)
		}
	}
	x.dry.would(a.path, touched...)
	return x.dryDone(a, statusWouldChange, commands(change.Lines))
}

// dryDone shows a step of a dry run.
func (x *run) dryDone(a *act, status string, lines []string) *halt {
	if a.result == nil {
		a.result = nothing(a.n)
	}
	if status == statusWouldChange {
		a.result[unknownKey] = a.path
	}
	if status == statusOK {
		if err := x.outputs(a.s, a.n, a.result); err != nil {
			a.result[unknownKey] = a.path
		}
	}
	body := &StepFinished{Status: status, Attempts: 1, Commands: lines}
	body.Observed = x.observed(a, body, a.because)
	seal(a.result, body)
	a.s.set(a.n.ID, a.result)
	for i := range lines {
		lines[i] = x.mask.String(lines[i])
	}
	if _, err := x.record(recStepFinished, a.path, body); err != nil {
		return broken(a.path, err)
	}
	return nil
}

// dryFail is a step that is known to fail. The others are still looked at.
func (x *run) dryFail(a *act, failure *steps.Error) *halt {
	var refused *steps.Error
	if errors.As(failure, &refused) && refused.Kind == dryRefusal {
		return x.dryUnknown(a, failure)
	}
	return x.dryRefused(a, failure)
}

// noteDry keeps, in a dry run, what was seen of an element that is skipped or made of
// others: where it asks something, or goes over what only a run can know.
func (x *run) noteDry(a *act, body *StepFinished, items []FrozenItem) {
	if x.dry == nil {
		return
	}
	o := x.observed(a, body, "")
	if o.Items = items; items != nil || len(o.Conditions) > 0 || body.Status != statusOK {
		body.Observed = o
	}
}

// glance is an element of which a dry run has seen no more than its conditions.
func (x *run) glance(s *scope, n *Node, path string) *act {
	return &act{x: x, n: n, s: s, path: path, effect: n.Effect}
}

// dryRefused is a step, of whatever shape, that is known to fail, or that hangs on
// something that a dry run does not know.
func (x *run) dryRefused(a *act, failure *steps.Error) *halt {
	s, n, path := a.s, a.n, a.path
	var unknown *unknownError
	if errors.As(failure, &unknown) {
		return x.dryUnknown(a, unknown)
	}
	failure = x.masked(failure)
	body := &StepFinished{Status: statusFailed, Error: errorBody(failure)}
	body.Observed = x.observed(a, body, "")
	if n.Shape == Leaf && n.Effect == steps.Read && n.OnFailure == "continue" && n.Loop == nil && !n.FanOut {
		result := nothing(n) // it fails as it would in a run, which goes on
		seal(result, body)
		s.set(n.ID, result)
	} else {
		x.dry.fail(failed(path, failure))
		x.dry.wouldInside(n, path)
		s.unknown(n, path)
	}
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return nil
}

// dryUnknown is a step of which a dry run cannot tell how it would end.
func (x *run) dryUnknown(a *act, why error) *halt {
	path, because := a.path, a.path
	var unknown *unknownError
	if errors.As(why, &unknown) {
		because = unknown.because
	}
	body := &StepFinished{Status: statusUnknown, Reason: x.mask.String(why.Error())}
	body.Observed = x.observed(a, body, because)
	x.dry.wouldInside(a.n, path)
	a.s.unknown(a.n, because)
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return nil
}

// unknown keeps, of a step and of those in it, that nothing is known of them.
func (s *scope) unknown(n *Node, because string) {
	result := nothing(n)
	result[unknownKey] = because
	s.set(n.ID, result)
	if n.Loop != nil || n.FanOut {
		return // what is in it is not seen from outside
	}
	for _, c := range n.Children {
		s.unknown(c, because)
	}
}

// doubts tells the elements around a step what a dry run does not know of it.
func (x *run) doubts(s *scope, n *Node, around *span) {
	if x.dry == nil {
		return
	}
	seen, _ := s.own(n.ID)
	because, ok := seen[unknownKey].(string)
	if !ok {
		if because, ok = seen[unknownStatus].(string); !ok {
			return
		}
	}
	for ; around != nil && around.unknown == ""; around = around.parent {
		around.unknown = because
	}
}

// dryStatus marks the result of what is made of steps, one of which would change
// something: of a group its status, of a loop all of it.
func (x *run) dryStatus(ctx context.Context, result map[string]any, mark string) {
	if x.dry == nil {
		return
	}
	if sp, _ := ctx.Value(spanKey{}).(*span); sp != nil && sp.unknown != "" {
		result[mark] = sp.unknown
	}
}
