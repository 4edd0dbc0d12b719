package runner

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// rollbackSpan undoes what started inside an element that failed and said on-failure:
// rollback. The failure goes on upwards.
func (x *run) rollbackSpan(ctx context.Context, s *scope, n *Node, path string, sp *span, h *halt) *halt {
	if _, open := x.past.rollback(path); !open {
		if err := x.durable(ctx, recRollbackStarted, path, &RollbackStarted{Reason: x.mask.String(h.err.Error())}); err != nil {
			return broken(path, err)
		}
	}
	if end := x.rollback(ctx, path, sp); end != nil {
		if end.end == Failed {
			end.err = &steps.Error{Kind: end.err.Kind, Hint: end.err.Hint, Err: fmt.Errorf("%w (rolling back %s after: %v)", end.err, path, h.err)}
			end.decided = "stop"
		}
		return end
	}
	return h
}

// finishRollback goes on with a rollback in which an earlier process died: the element
// is walked through for what had started in it, nothing runs.
func (x *run) finishRollback(ctx context.Context, s *scope, n *Node, path string, sp *span, why string) *halt {
	h := x.body(context.WithValue(ctx, replayKey{}, true), s, n, path)
	if h != nil && h.end != Failed {
		return h
	}
	return x.rollbackSpan(ctx, s, n, path, sp, failed(path, &steps.Error{Kind: "failed", Err: text(why)}))
}

// rollback undoes, the latest first, what started inside an element, or in the run where
// sp is nil. It ends at the first step that has no way back, and says which.
func (x *run) rollback(ctx context.Context, path string, sp *span) *halt {
	var end *halt
	for _, e := range x.acts.back(sp) {
		if end = x.undo(ctx, e, "rollback"); end != nil {
			break
		}
		if e.n.PointOfNoReturn {
			end = failed(e.path, steps.Errorf("no-return", "%s is the point of no return: what came before it stays as it is", e.path))
			break
		}
	}
	body := &RollbackFinished{Complete: end == nil}
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
	if c := context.Cause(ctx); c != nil {
		return haltFor(c, e.path)
	}
	if e.n.PointOfNoReturn && why == "rollback" {
		return failed(e.path, steps.Errorf("no-return", "%s has started, and it is the point of no return: nothing before it is rolled back", e.path))
	}
	if e.n.UndoMode == "none" || e.n.Shape == Leaf && e.n.Kind.NothingToUndo {
		e.undone = true
		return nil
	}
	if e.n.Shape != Leaf {
		return x.undoGroup(ctx, e, why)
	}
	a, err := x.prepare(e.s, e.n, e.path)
	if err != nil {
		return failed(e.path, steps.Classify(fmt.Errorf("undo %s: %w", e.path, err)))
	}
	a.entry, a.before, a.withheld = e, e.before, e.withheld
	if e.status != statusChanged {
		state, _, err := x.probe(ctx, a)
		if err == nil && state == steps.Untouched {
			return x.undone(ctx, e, "untouched", nil)
		}
	}
	if len(e.n.UndoSteps) == 0 && !a.kind.HasUndo {
		reason := a.kind.NoUndo
		if reason == "" {
			reason = a.kind.Name + " has no inverse"
		}
		return failed(e.path, &steps.Error{Kind: "no-undo", Err: fmt.Errorf("%s cannot be undone: %s", e.path, reason),
			Hint: "put it back by hand; what came before it has not been rolled back"})
	}
	words := a.kind.UndoPlan(a.in)
	if len(e.n.UndoSteps) > 0 {
		words = "undo steps of " + e.n.ID
	}
	if err := x.durable(ctx, recUndoStarted, e.path, &UndoStarted{Kind: a.kind.Name, Undo: x.mask.String(words), Why: why}); err != nil {
		return broken(e.path, err)
	}
	failure := x.putBack(ctx, a, e)
	if failure == nil {
		return x.undone(ctx, e, "undone", nil)
	}
	if c := context.Cause(ctx); c != nil {
		return haltFor(c, e.path) // started and not finished: the resume does it again, undo twice is harmless
	}
	failure = x.described(a, failure)
	status := statusFailed
	if why == "restore" && (failure.Kind == "precondition" || failure.Kind == "conflict") {
		status = "refused" // no longer the value that we set: not ours to put back
	}
	if h := x.undone(ctx, e, status, failure); h != nil || status == "refused" {
		return h
	}
	return failed(e.path, &steps.Error{Kind: failure.Kind, Hint: failure.Hint, Err: fmt.Errorf("undo %s: %w", e.path, failure.Err)})
}

// undoGroup puts back a group that has undo steps of its own, instead of what is in it.
func (x *run) undoGroup(ctx context.Context, e *entry, why string) *halt {
	if err := x.durable(ctx, recUndoStarted, e.path, &UndoStarted{Undo: "undo steps of " + e.n.ID, Why: why}); err != nil {
		return broken(e.path, err)
	}
	if failure := x.undoSteps(ctx, e); failure != nil {
		if c := context.Cause(ctx); c != nil {
			return haltFor(c, e.path)
		}
		if h := x.undone(ctx, e, statusFailed, failure); h != nil {
			return h
		}
		return failed(e.path, &steps.Error{Kind: failure.Kind, Hint: failure.Hint, Err: fmt.Errorf("undo %s: %w", e.path, failure.Err)})
	}
	return x.undone(ctx, e, "undone", nil)
}

// undoSteps runs the author's own way back.
func (x *run) undoSteps(ctx context.Context, e *entry) *steps.Error {
	inner := newScope(e.s.frame, e.s, e.s.prefix, nil)
	x.past.forget(inner.prefix, e.n.UndoSteps)
	if h := x.list(context.WithValue(ctx, softKey{}, nil), inner, e.n.UndoSteps); h != nil {
		return h.err
	}
	return nil
}

func (x *run) undone(ctx context.Context, e *entry, status string, failure *steps.Error) *halt {
	if err := x.durable(ctx, recUndoFinished, e.path, &UndoFinished{Status: status, Error: errorBody(failure)}); err != nil {
		return broken(e.path, err)
	}
	e.undone = status != statusFailed
	return nil
}

// putBack runs the author's undo steps, or the kind's inverse: three attempts while the error may pass.
func (x *run) putBack(ctx context.Context, a *act, e *entry) *steps.Error {
	if len(e.n.UndoSteps) > 0 {
		return x.undoSteps(ctx, e)
	}
	if e.withheld && e.before == nil {
		return steps.Precondition("the old value held a secret and was not written down: put it back by hand")
	}
	limit := defaultTimeout
	ctx, cancel := x.clock.WithTimeout(ctx, limit, errTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := a.kind.Undo(ctx, steps.NewSession(a), a.in, x.output(a))
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
	for _, f := range outputFields(a.kind.Out) {
		if v := seen[f.name]; v != nil {
			values[f.name] = v
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
	for _, e := range x.acts.back(nil) {
		if !e.n.Restore {
			continue
		}
		if h := x.undo(ctx, e, "restore"); h != nil {
			end = worse(end, h)
			if h.end != Failed {
				return end
			}
		}
	}
	return end
}
