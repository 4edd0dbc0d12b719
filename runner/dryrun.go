package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"runbook/runner/expression"
	"runbook/steps"
)

// dryRun is what a run without effects knows of the effects it did not have.
type dryRun struct {
	mu      sync.Mutex
	changed map[string]string // target, to the step that would change it
	failed  *halt             // the first precondition known to be false
}

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
	return ""
}

func (d *dryRun) fail(h *halt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = h
	}
}

// touches are the targets that a step acts on or asks.
func (a *act) touches() []string {
	var names []string
	if a.target != nil {
		names = append(names, a.target.Name)
	}
	names = append(names, peers(a.in)...)
	if len(names) == 0 {
		names = append(names, here)
	}
	return names
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
		return x.dryUnknown(a.s, a.n, a.path, &unknownError{because})
	}
	if err != nil {
		return x.dryFail(a, steps.Classify(err))
	}
	a.out = out
	a.result = x.seen(a)
	if a.n.Wait != nil {
		ok, err := x.holds(a.s, a.n.Wait.Until, a.result)
		var unknown *unknownError
		var null *expression.NullError
		switch {
		case errors.As(err, &unknown):
			return x.dryUnknown(a.s, a.n, a.path, err)
		case err != nil && !errors.As(err, &null):
			return x.dryFail(a, steps.Classify(err))
		case !ok:
			return x.dryUnknown(a.s, a.n, a.path, fmt.Errorf("would wait until %s (%s)", a.n.Wait.Until.Expr.Source, x.explain(a.s, a.n.Wait.Until, a.result)))
		}
	}
	if failure := x.must(a.s, "expect", a.n.Expect, a.result); failure != nil {
		var unknown *unknownError
		if errors.As(failure, &unknown) {
			return x.dryUnknown(a.s, a.n, a.path, unknown)
		}
		return x.dryFail(a, failure)
	}
	return x.dryDone(a, statusOK, nil)
}

// dryChange asks the probe, the preconditions and the plan of a step that would act.
func (x *run) dryChange(ctx context.Context, a *act, because string) *halt {
	limited, cancel := x.clock.WithTimeout(ctx, defaultTimeout, errTimeout)
	defer cancel()
	view := steps.NewView(a)
	state, out, err := x.probe(limited, a)
	if err == nil && state == steps.Done && because == "" {
		a.out = out
		a.result = x.seen(a)
		return x.dryDone(a, statusOK, nil)
	}
	if err == nil {
		err = a.kind.Check(limited, view, a.in)
	}
	var change steps.Change
	if err == nil {
		change, err = a.kind.Plan(limited, &view, a.in)
	}
	if c := context.Cause(ctx); c != nil {
		return haltFor(c, a.path)
	}
	if err != nil && because == "" {
		return x.dryFail(a, steps.Classify(err))
	}
	if err != nil { // the target is not as it will be: only what is known offline can be told
		if change, err = a.kind.Plan(limited, nil, a.in); err != nil {
			return x.dryUnknown(a.s, a.n, a.path, &unknownError{because})
		}
	}
	touched := a.touches()
	for _, l := range change.Lines {
		touched = append(touched, l.Target)
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
	seal(a.result, status, 1, 0, nil)
	a.s.set(a.n.ID, a.result)
	for i := range lines {
		lines[i] = x.mask.String(lines[i])
	}
	if _, err := x.record(recStepFinished, a.path, &StepFinished{Status: status, Commands: lines}); err != nil {
		return broken(a.path, err)
	}
	return nil
}

// dryFail is a step that is known to fail. The others are still looked at.
func (x *run) dryFail(a *act, failure *steps.Error) *halt {
	h := failed(a.path, x.described(a, failure))
	x.dry.fail(h)
	result := nothing(a.n)
	result[unknownKey] = a.path
	a.s.set(a.n.ID, result)
	if _, err := x.record(recStepFinished, a.path, &StepFinished{Status: statusFailed, Error: errorBody(h.err)}); err != nil {
		return broken(a.path, err)
	}
	return nil
}

// dryUnknown is a step of which a dry run cannot tell how it would end.
func (x *run) dryUnknown(s *scope, n *Node, path string, why error) *halt {
	result := nothing(n)
	because := path
	var unknown *unknownError
	if errors.As(why, &unknown) {
		because = unknown.because
	}
	result[unknownKey] = because
	s.set(n.ID, result)
	if n.Effect != steps.Read {
		if n.Target != nil && n.Target.Target != nil {
			x.dry.would(path, n.Target.Target.Name)
		} else if n.Target == nil && !n.FanOut {
			x.dry.would(path, here)
		}
	}
	if _, err := x.record(recStepFinished, path, &StepFinished{Status: statusUnknown, Reason: x.mask.String(why.Error())}); err != nil {
		return broken(path, err)
	}
	return nil
}
