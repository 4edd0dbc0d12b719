package runner

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// rollbackSpan undoes what started inside an element that failed and said on-failure:
// rollback. The failure goes on upwards.
func (x *run) rollbackSpan(ctx context.Context, path string, sp *span, h *halt, missed walk) *halt {
	ctx, done := untimed(ctx)
	defer done(nil)
	if broken := x.catchUp(ctx, missed); broken != nil {
		return broken
	}
	if _, open := x.past.rollback(path); !open {
		if err := x.durable(ctx, recRollbackStarted, path, &RollbackStarted{Reason: x.mask.String(h.err.Error())}); err != nil {
			return broken(path, err)
		}
	}
	end := x.rollback(ctx, path, sp)
	if end == nil {
		return h
	}
	if end.end == Failed {
		end.err = &steps.Error{Kind: end.err.Kind, Hint: end.err.Hint, Err: fmt.Errorf("%w (rolling back %s after: %v)", end.err, path, h.err)}
		end.decided = "stop"
	}
	return end
}

// finishRollback goes on with a rollback in which an earlier process died.
func (x *run) finishRollback(ctx context.Context, s *scope, n *Node, path string, sp *span, why string) *halt {
	if h := x.retrace(ctx, s, n, path); h != nil {
		return h
	}
	return x.rollbackSpan(ctx, path, sp, failed(path, &steps.Error{Kind: "failed", Err: text(why)}), nil)
}

// finishItemRollback is the same for one item of a loop.
func (x *run) finishItemRollback(ctx context.Context, s *scope, n *Node, path string, sp *span, why string) *halt {
	if h := x.retraceOnce(ctx, s, n, path); h != nil {
		return h
	}
	return x.rollbackSpan(ctx, path, sp, failed(path, &steps.Error{Kind: "failed", Err: text(why)}), nil)
}

// walk retraces an element.
type walk func(ctx context.Context) *halt

// catchUp finds what earlier processes did in an element and this one has not come to: a
// branch that was stopped by its sibling before it got there. nil: all was retraced.
func (x *run) catchUp(ctx context.Context, missed walk) *halt {
	if missed == nil || x.past.began == nil {
		return nil
	}
	return missed(ctx)
}

// rollback undoes, the latest first, what started inside an element, or in the run where
// sp is nil. It ends at the first step that has no way back, and says which.
func (x *run) rollback(ctx context.Context, path string, sp *span) *halt {
	var end *halt
	for _, e := range x.acts.back(sp) {
		if end = x.undo(ctx, e, whyRollback); end != nil {
			break
		}
	}
	body := &RollbackFinished{Complete: end == nil}
	if sp != nil {
		body.Anew = sp.anew()
	}
	if end != nil {
		if end.end != Failed {
			return end
		}
		body.Stopped = x.mask.String(end.err.Error())
	}
	if err := x.durable(ctx, recRollbackFinished, path, body); err != nil {
		return broken(path, err)
	}
	return end
}

// undo puts one step back. nil: it is back, or there was nothing to put back.
func (x *run) undo(ctx context.Context, e *entry, why string) *halt {
	if h := stopped(ctx, e.path); h != nil {
		return h
	}
	if e.n.PointOfNoReturn && why == whyRollback {
		return failed(e.path, steps.Errorf("no-return", "%s has started, and it is the point of no return: nothing before it is rolled back", e.path))
	}
	if e.n.UndoMode == "none" || e.n.Shape == Leaf && e.n.Kind.NothingToUndo {
		e.back()
		return nil
	}
	if e.n.Shape != Leaf {
		return x.putBack(ctx, e, why, undoStepsOf+e.n.ID, func(ctx context.Context) *steps.Error { return x.undoSteps(ctx, e) })
	}
	a, err := x.prepare(e.s, e.n, e.path)
	if err != nil {
		return failed(e.path, x.masked(steps.Classify(fmt.Errorf("undo %s: %w", e.path, err))))
	}
	a.entry, a.before, a.withheld = e, e.before, e.withheld
	if a.moved(e.addr) {
		return failed(e.path, steps.Errorf("changed", "undo %s: it acted on %s, and would be put back on %s now", e.path, e.addr, a.target.addr))
	}
	if done, h := x.nothingToUndo(ctx, a, why); done {
		return h
	}
	if len(e.n.UndoSteps) > 0 {
		return x.putBack(ctx, e, why, undoStepsOf+e.n.ID, func(ctx context.Context) *steps.Error { return x.undoSteps(ctx, e) })
	}
	if !a.kind.HasUndo {
		reason := a.kind.NoUndo
		if reason == "" {
			reason = a.kind.Name + " has no inverse"
		}
		return failed(e.path, &steps.Error{Kind: "no-undo", Err: fmt.Errorf("%s cannot be undone: %s", e.path, reason),
			Hint: "put it back by hand; what came before it has not been rolled back"})
	}
	return x.putBack(ctx, e, why, a.kind.UndoPlan(a.in), func(ctx context.Context) *steps.Error { return x.inverse(ctx, a) })
}

// nothingToUndo asks the probe: a step that may have done nothing has nothing to put
// back, and a temporary setting that is no longer there is no longer ours.
func (x *run) nothingToUndo(ctx context.Context, a *act, why string) (bool, *halt) {
	if a.entry.status == statusChanged && why != whyRestore {
		return false, nil
	}
	limited, cancel := x.clock.WithTimeout(ctx, defaultTimeout, errTimeout)
	defer cancel()
	state, _, err := x.probe(limited, a)
	switch {
	case err != nil || state != steps.Untouched:
		return false, nil
	case a.entry.status != statusChanged:
		return true, x.undone(ctx, a.entry, why, "untouched", nil)
	}
	return true, x.undone(ctx, a.entry, why, "refused", steps.Precondition("it is no longer as %s has set it: somebody else's value is not put back", a.path))
}

// putBack carries one way back out, and journals it around that.
func (x *run) putBack(ctx context.Context, e *entry, why, words string, back func(context.Context) *steps.Error) *halt {
	body := &UndoStarted{Undo: x.mask.String(words), Why: why}
	if e.n.Kind != nil {
		body.Kind = e.n.Kind.Name
	}
	if err := x.durable(ctx, recUndoStarted, e.path, body); err != nil {
		return broken(e.path, err)
	}
	failure := back(ctx)
	if failure == nil {
		return x.undone(ctx, e, why, "undone", nil)
	}
	// Started and not finished: a resume does it again, and an undo twice is harmless.
	if h := stopped(ctx, e.path); h != nil {
		return h
	}
	failure = x.masked(failure)
	var cut *undoHalt
	if errors.As(failure, &cut) {
		return cut.h
	}
	if errors.Is(failure, errHung) {
		return &halt{path: e.path, end: InDoubt, err: &steps.Error{Kind: "hung", Err: fmt.Errorf("undo %s: %w", e.path, failure), Hint: x.wayOn("see to it that it has ended", "")}}
	}
	status := statusFailed
	if e.n.Restore && (failure.Kind == "precondition" || failure.Kind == "conflict") {
		status = "refused" // no longer the value that we set: not ours to put back
	}
	if h := x.undone(ctx, e, why, status, failure); h != nil || status == "refused" {
		return h
	}
	return failed(e.path, &steps.Error{Kind: failure.Kind, Hint: failure.Hint, Err: fmt.Errorf("undo %s: %w", e.path, failure.Err)})
}

// undoHalt carries an end of the process out of the steps of an undo.
type undoHalt struct{ h *halt }

func (e *undoHalt) Error() string { return e.h.err.Error() }

// undoSteps runs the author's own way back: from its start, unless an earlier process
// died in the middle of it.
func (x *run) undoSteps(ctx context.Context, e *entry) *steps.Error {
	inner := newScope(e.s.frame, e.s, e.s.prefix, nil)
	if !x.past.undoing(e.path) {
		for _, n := range e.n.UndoSteps {
			x.past.restart(inner.prefix+n.ID, inner.prefix, n)
		}
	}
	h := x.list(ctx, inner, e.n.UndoSteps)
	switch {
	case h == nil:
		return nil
	case h.own():
		return h.err
	}
	return &steps.Error{Kind: h.err.Kind, Err: &undoHalt{h}}
}

func (x *run) undone(ctx context.Context, e *entry, why, status string, failure *steps.Error) *halt {
	body := &UndoFinished{Status: status, Why: why, Error: errorBody(failure)}
	if e.n.Shape != Leaf {
		body.Anew = e.n.inside(e.s.prefix)
	}
	if err := x.durable(ctx, recUndoFinished, e.path, body); err != nil {
		return broken(e.path, err)
	}
	if status == "refused" {
		x.cfg.Log.Warn("not put back", "step", e.path, "why", failure)
	}
	if status != statusFailed {
		e.back()
	}
	return nil
}

// inverse is the kind's own: three attempts while the error may pass.
func (x *run) inverse(ctx context.Context, a *act) *steps.Error {
	if a.withheld && len(a.before) == 0 {
		return steps.Errorf("withheld", "the old value held a secret and was not written down: put it back by hand")
	}
	ctx, cancel := x.clock.WithTimeout(ctx, defaultTimeout, errTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if err := x.permitted(ctx, a.path); err != nil {
			return steps.Classify(err)
		}
		_, err := bounded(x, ctx, a.path, func(ctx context.Context) (any, error) {
			return nil, a.kind.Undo(ctx, steps.NewSession(a), a.in, x.output(a))
		})
		if err == nil {
			return nil
		}
		failure := steps.Classify(err)
		if attempt == 3 || !failure.Temporary || x.clock.Sleep(ctx, time.Second) != nil {
			return failure
		}
	}
}

// output is the step's own output for its inverse; nil where it was never learned.
func (x *run) output(a *act) any {
	seen, ok := a.s.own(a.n.ID)
	if !ok || a.entry.status != statusChanged {
		return nil
	}
	out := reflect.New(a.kind.Out).Interface()
	values := map[string]any{}
	for _, f := range a.kind.Outputs {
		if v := seen[f.Name]; v != nil {
			values[f.Name] = v
		}
	}
	if err := schema.Bind(values, out); err != nil {
		return nil
	}
	return out
}

// restoreAll puts temporary settings back, the latest first, when the run is over. A
// value that is no longer the one we set stays, and that is said. The error is of those
// that could not be put back.
func (x *run) restoreAll(ctx context.Context) *halt {
	var end *halt
	for _, e := range x.acts.temporary() {
		h := x.undo(ctx, e, whyRestore)
		end = worse(end, h)
		if h != nil && h.end != Failed {
			return end
		}
	}
	return end
}
