package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runbook/steps"
)

// group runs a group or a sub-runbook: attempts of what is in it and its expect, under retry.
func (x *run) group(ctx context.Context, s *scope, n *Node, path string, gates bool) *halt {
	began := x.clock.Now()
	if skipped, h := x.admit(ctx, s, n, path, gates); h != nil || skipped {
		return h
	}
	most, err := setting(x, s, n.Timeout, "timeout")
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	policy, err := x.retryPolicy(s, n, 1)
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	outer := ctx
	if most > 0 {
		left := x.remainder(s, n, path, most)
		var done func()
		ctx, done = x.limit(ctx, left)
		defer done()
		if left == 0 { // over before this process came: nothing runs, and what was done is called to mind for a rollback
			<-ctx.Done()
			if h := x.retraceInside(outer, s, n, path); h != nil {
				return h
			}
			h := failed(path, &steps.Error{Kind: "timeout", Err: fmt.Errorf("%w (%s since its cut-over)", errTimeout, most)})
			return x.groupFinished(ctx, s, n, path, x.past.attempt(path), map[string]any{}, began, h)
		}
	}
	attempt := x.past.attempt(path)
	result := map[string]any{}
	timedOut := func() bool { return ctx.Err() != nil && over(outer) == nil }
	h := x.watched(ctx, s, n, path, func(ctx context.Context) *halt {
		for try := 1; ; try++ {
			seq, err := x.beginGroup(s, n, path, attempt, try)
			if err != nil {
				return broken(path, err)
			}
			if try == 1 && n.marked() {
				x.acts.add(ctx, &entry{n: n, s: s, path: path, seq: seq})
			}
			clear(result)
			h := x.inside(ctx, s, n, path, result)
			if h == nil {
				if failure := x.must(s, "expect", n.Expect, result); failure != nil {
					h = failed(path, failure)
				}
			}
			if !h.own() || x.dry != nil || h.decided != "" || timedOut() || !x.again(s, policy, try, h.err, result) {
				return h
			}
			if err := x.retrying(ctx, path, policy, attempt, try, h.err); err != nil {
				return x.interruptedRetry(err, path)
			}
			x.past.restart(path, s.prefix, n)
			attempt++
		}
	})
	if h != nil && h.end == Failed && h.passive && timedOut() {
		h = failed(path, &steps.Error{Kind: "timeout", Err: fmt.Errorf("%w (%s); it was at %s", errTimeout, most, h.path)})
	}
	switch {
	case h != nil && !h.own():
		return h
	case h != nil && x.dry != nil:
		a := x.glance(s, n, path)
		a.result = result
		return x.dryRefused(a, h.err)
	}
	return x.groupFinished(ctx, s, n, path, attempt, result, began, h)
}

// beginGroup journals that an attempt of a group begins, and gives its place in the order
// of starting. One that an earlier process had begun goes on.
func (x *run) beginGroup(s *scope, n *Node, path string, attempt, try int) (int64, error) {
	if was := x.past.live(path); try == 1 && was != nil && x.past.started(path) {
		return was.seq, nil
	}
	body := &StepStarted{Attempt: attempt}
	if try > 1 {
		body.Anew = n.inside(s.prefix)
	}
	return x.record(recStepStarted, path, body)
}

// retrying journals that another attempt follows, and waits for its time.
func (x *run) retrying(ctx context.Context, path string, p retryPolicy, attempt, try int, failure *steps.Error) error {
	delay := p.delay(try)
	if _, err := x.record(recStepRetrying, path, &StepRetrying{Attempt: attempt, Error: errorBody(failure), Delay: seconds(delay)}); err != nil {
		return &deadJournal{err}
	}
	if err := x.settleDisk(ctx); err != nil {
		return &deadJournal{err}
	}
	return x.pause(ctx, delay)
}

// interruptedRetry is the halt of what retrying gave.
func (x *run) interruptedRetry(err error, path string) *halt {
	var dead *deadJournal
	if errors.As(err, &dead) {
		return broken(path, dead.err)
	}
	return haltFor(err, path)
}

// inside runs what a group or a sub-runbook holds; result gets a sub-runbook's outputs.
func (x *run) inside(ctx context.Context, s *scope, n *Node, path string, result map[string]any) *halt {
	if n.Shape == Call {
		return x.call(ctx, s, n, path, result)
	}
	if n.Repeat == nil {
		return x.members(ctx, s, n)
	}
	if x.dry != nil { // one pass is enough to look
		inner := newScope(s.frame, s, passPrefix(path, 1), nil)
		defer s.adopt(inner)
		return x.members(ctx, inner, n)
	}
	most, err := setting(x, s, n.Repeat.Max, "repeat.max")
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	every, err := setting(x, s, n.Repeat.Every, "repeat.every")
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	for pass := 1; ; pass++ {
		start := x.clock.Now()
		inner := newScope(s.frame, s, passPrefix(path, pass), nil)
		h := x.members(ctx, inner, n)
		s.adopt(inner)
		if h != nil {
			return h
		}
		later := x.past.begun(passPrefix(path, pass+1), n.Children)
		if x.past.finished(path) && !later {
			return nil // a recheck in it may have changed what until says, but the group is over
		}
		ok, err := x.holds(s, n.Repeat.Until, nil)
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("repeat until %s: %w", n.Repeat.Until.Expr.Source, err)))
		}
		switch {
		case later:
			continue
		case ok:
			return nil
		case most > 0 && pass >= most:
			return failed(path, steps.Errorf("repeat", "after %d passes %s still does not hold (%s)", pass, n.Repeat.Until.Expr.Source, x.explain(s, n.Repeat.Until, nil)))
		}
		if err := x.settleDisk(ctx); err != nil {
			return broken(path, err)
		}
		if err := x.pause(ctx, every-x.clock.Now().Sub(start)); err != nil {
			return haltFor(err, path)
		}
	}
}

// passPrefix is the path of what stands in one pass of a group: verify[2]/.
func passPrefix(path string, pass int) string { return fmt.Sprintf("%s[%d]/", path, pass) }

func (x *run) members(ctx context.Context, s *scope, n *Node) *halt {
	if n.Parallel {
		return x.beside(ctx, s, n.Children)
	}
	return x.list(ctx, s, n.Children)
}

// call runs a sub-runbook: its steps, its rollback where it says so, its finally.
func (x *run) call(ctx context.Context, s *scope, n *Node, path string, result map[string]any) *halt {
	inner, h := x.callScope(s, n, path)
	if h != nil {
		return h
	}
	rolledBack := false
	if why, open := x.past.rollback(path); open {
		if h = x.retraceAll(ctx, inner, n.Sub.Steps); h == nil {
			h = failed(path, &steps.Error{Kind: "failed", Err: text(why)})
		}
	} else if h = x.past.rolledBack(path); h != nil {
		rolledBack = true
		if broken := x.retraceAll(ctx, inner, n.Sub.Steps); broken != nil {
			return broken
		}
	} else {
		h = x.list(ctx, inner, n.Sub.Steps)
	}
	if h.own() && !rolledBack && h.decided == "" && n.Sub.OnFailure == "rollback" {
		sp, _ := ctx.Value(spanKey{}).(*span)
		h = x.rollbackSpan(ctx, path, sp, h, func(ctx context.Context) *halt { return x.retraceAll(ctx, inner, n.Sub.Steps) })
	}
	if h == nil || h.own() {
		if !x.past.finished(path) {
			for _, f := range n.Sub.Finally {
				x.past.restart(inner.prefix+f.ID, inner.prefix, f)
			}
		}
		free, done := untimed(ctx)
		late := x.list(free, inner, n.Sub.Finally)
		done(nil)
		if late != nil && (h == nil || late.end != Failed) {
			h = late
		}
	}
	if h != nil {
		return h
	}
	for _, o := range n.Sub.Outputs {
		if err := x.known(inner, nil, o.Expr.Refs); err != nil {
			result[unknownKey] = path
			break
		}
		v, err := o.Expr.Eval(x.env(inner, nil, o.Expr.Refs))
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("outputs.%s: %w", o.Name, err)))
		}
		result[o.Name] = v
	}
	return nil
}

// callScope binds what a sub-runbook is given.
func (x *run) callScope(s *scope, n *Node, path string) (*scope, *halt) {
	given, err := x.eval(s, n.With)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(fmt.Errorf("with: %w", err))))
	}
	values, _ := given.(map[string]any)
	inputs, err := n.Sub.bindCall(values)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(err)))
	}
	fr, err := x.enter(s.frame, n.Sub, inputs, nil)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(err)))
	}
	fr.asked, fr.mustRun = s.frame.asked || n.asks(), s.mustRun(n)
	return newScope(fr, nil, path+"/", nil), nil
}

// groupFinished keeps and journals how a group ended.
func (x *run) groupFinished(ctx context.Context, s *scope, n *Node, path string, attempt int, result map[string]any, began time.Time, h *halt) *halt {
	if h == nil {
		if err := x.outputs(s, n, result); err != nil {
			h = failed(path, x.masked(steps.Classify(err)))
		}
	}
	body := &StepFinished{Status: x.acts.status(ctx, h), Duration: seconds(x.clock.Now().Sub(began)), Attempts: attempt}
	if h != nil {
		body.Error, body.Decided = errorBody(h.err), h.decided
	}
	if len(result) > 0 {
		body.Outputs = x.marshal(result)
	}
	if was := x.past.live(path); h == nil && x.past.finished(path) {
		seal(result, was.finished) // a resume walked through what had ended before
		s.set(n.ID, result)
		return nil
	}
	seal(result, body)
	x.dryStatus(ctx, result, unknownStatus)
	s.set(n.ID, result)
	a := x.glance(s, n, path)
	a.result = result
	x.noteDry(a, body, nil)
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return h
}
