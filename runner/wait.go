package runner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"runbook/runner/expression"
	"runbook/steps"
)

// waiting is the state of one wait: when its condition began to hold, how close its
// numbers have come, and when it was last shown.
type waiting struct {
	x                    *run
	w                    *Wait
	s                    *scope
	path                 string
	every, stable, stall time.Duration

	held      time.Time // since when the condition has held; zero: it does not
	closer    time.Time // when a number last came closer
	best      map[string]float64
	first     map[string]float64
	began     time.Time
	observed  time.Time // when it was last journaled
	lastHolds bool
	last      string // what was seen last, in words
}

func (x *run) newWait(s *scope, n *Node, path string) (*waiting, error) {
	w := &waiting{x: x, w: n.Wait, s: s, path: path, every: n.Wait.Every.Value, best: map[string]float64{}, first: map[string]float64{}}
	for _, set := range []struct {
		to   *time.Duration
		from Setting[time.Duration]
		what string
	}{{&w.every, n.Wait.Every, "every"}, {&w.stable, n.Wait.Stable, "stable"}, {&w.stall, n.Wait.Stall, "stall"}} {
		if !set.from.Set {
			continue
		}
		d, err := setting(x, s, set.from, set.what)
		if err != nil {
			return nil, err
		}
		*set.to = d
	}
	if w.every <= 0 {
		w.every = defaultEvery
	}
	w.began = x.clock.Now()
	w.closer, w.last = w.began, "nothing observed"
	return w, nil
}

// wait polls a read until its condition holds and has held for long enough.
func (x *run) wait(ctx context.Context, a *act, limit time.Duration) error {
	w, err := x.newWait(a.s, a.n, a.path)
	if err != nil {
		return err
	}
	return w.poll(ctx, func(ctx context.Context) (sighting, error) { return w.observe(ctx, a, limit) })
}

// sighting is what one look at the target has shown.
type sighting struct {
	holds     bool
	passing   *steps.Error // a temporary error, which counts as not true; nil: there was an answer
	distances []expression.Distance
	values    map[string]any
}

// poll looks at its cadence, whatever a look takes, until the condition has held for long enough.
func (w *waiting) poll(ctx context.Context, see func(context.Context) (sighting, error)) error {
	if err := w.x.settleDisk(ctx); err != nil {
		return &deadJournal{err}
	}
	next := w.x.clock.Now()
	defer w.x.looks.enter(w.path, next)()
	for {
		l, err := see(ctx)
		if c := context.Cause(ctx); c != nil {
			return w.ended(c)
		}
		if err != nil {
			return err
		}
		done, err := w.judge(l)
		if done || err != nil {
			return err
		}
		next = next.Add(w.every)
		now := w.x.clock.Now()
		if late := now.Sub(next); late > 0 {
			next = next.Add(late.Truncate(w.every) + w.every) // looks that were missed are not made up for
		}
		if err := w.x.clock.Sleep(ctx, next.Sub(now)); err != nil {
			return w.ended(err)
		}
	}
}

// ended says what was still wanted when the time was over.
func (w *waiting) ended(cause error) error {
	return fmt.Errorf("%w: %s did not hold for long enough (last: %s)", cause, w.w.Until.Expr.Source, w.last)
}

// observe looks once. The error is one that waiting does not heal.
func (w *waiting) observe(ctx context.Context, a *act, limit time.Duration) (sighting, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = w.x.clock.WithTimeout(ctx, limit, errAttempt)
		defer cancel()
	}
	a.out, a.result = nil, nil
	out, err := a.read(ctx)
	if err != nil {
		e := steps.Classify(err)
		if errors.Is(context.Cause(ctx), errAttempt) {
			e = &steps.Error{Kind: "timeout", Temporary: true, Err: fmt.Errorf("%w (%s)", errAttempt, limit)}
		}
		if e = w.x.masked(e); !e.Temporary {
			return sighting{}, e
		}
		return sighting{passing: e}, nil
	}
	a.out = out
	a.result = w.x.seen(a)
	env := w.x.env(a.s, a.result, w.w.Until.Expr.Refs)
	l := sighting{distances: w.w.Until.Expr.Distances(env), values: valuesOf(w.w.Until, env)}
	l.holds, err = w.x.holds(a.s, w.w.Until, a.result)
	var null *expression.NullError
	if err != nil && !errors.As(err, &null) {
		return sighting{}, steps.Classify(fmt.Errorf("wait-until %s: %w", w.w.Until.Expr.Source, err))
	}
	return l, nil
}

// valuesOf are the operands of a condition, by their text.
func valuesOf(c *Condition, env map[string]any) map[string]any {
	values := map[string]any{}
	for _, p := range c.Expr.Parts(env) {
		values[p.Text] = p.Value
		if err, ok := p.Value.(error); ok {
			values[p.Text] = err.Error()
		}
	}
	return values
}

// judge decides after a look: done, go on, or stalled.
func (w *waiting) judge(l sighting) (bool, error) {
	now := w.x.clock.Now()
	left := w.progress(now, l.distances)
	if l.passing != nil {
		w.last = l.passing.Error()
	} else {
		w.last = w.show(l.values)
	}
	if !l.holds {
		w.held = time.Time{}
		if w.stall > 0 && now.Sub(w.closer) >= w.stall {
			return false, &steps.Error{Kind: "stall", Err: fmt.Errorf("stalled: %s has not come closer for %s (%s)", w.w.Until.Expr.Source, w.stall, w.last)}
		}
		return false, w.journal(l, left)
	}
	w.closer = now
	if w.held.IsZero() {
		w.held = now
	}
	if held := now.Sub(w.held); held < w.stable {
		return false, w.journal(l, w.stable-held)
	}
	return true, w.journalNow(now, w.observation(now, l, 0))
}

func (w *waiting) show(values map[string]any) string {
	text := ""
	for _, k := range sortedNames(values) {
		if text != "" {
			text += ", "
		}
		text += k + " = " + show(values[k])
	}
	if text == "" {
		return "nothing observed"
	}
	return w.x.mask.String(text)
}

// progress notes which numbers have come closer, and estimates what is left from the
// slowest of them.
func (w *waiting) progress(now time.Time, distances []expression.Distance) time.Duration {
	var longest time.Duration
	for _, d := range distances {
		if !d.Known || d.Satisfied {
			continue
		}
		away := math.Abs(d.Left - d.Right)
		best, seen := w.best[d.Text]
		if !seen || away < best {
			w.best[d.Text] = away
			w.closer = now
		}
		if !seen {
			w.first[d.Text] = away
			continue
		}
		if gained, took := w.first[d.Text]-away, now.Sub(w.began); gained > 0 && took > 0 {
			longest = max(longest, time.Duration(float64(took)*away/gained))
		}
	}
	return longest
}

// observedEvery is how often a wait is journaled at most.
const observedEvery = time.Second

// journal writes an observation down, at most one a second, and at once when the answer changes.
func (w *waiting) journal(l sighting, left time.Duration) error {
	now := w.x.clock.Now()
	body := w.observation(now, l, left)
	w.x.looks.see(w.path, now, body)
	if l.holds == w.lastHolds && !w.observed.IsZero() && now.Sub(w.observed) < observedEvery {
		return nil
	}
	return w.journalNow(now, body)
}

// observation is what a look has shown, as it is journaled.
func (w *waiting) observation(now time.Time, l sighting, left time.Duration) *StepObserved {
	body := &StepObserved{Holds: l.holds, Error: errorBody(l.passing)}
	body.Values, _ = jsonable(l.values).(map[string]any)
	if !w.held.IsZero() && w.stable > 0 {
		body.Held = seconds(now.Sub(w.held)) + " of " + w.stable.String()
	}
	if left > 0 {
		body.Left = left.Round(time.Second).String()
	}
	return body
}

func (w *waiting) journalNow(now time.Time, body *StepObserved) error {
	w.observed, w.lastHolds = now, body.Holds
	if _, err := w.x.record(recStepObserved, w.path, body); err != nil {
		return &deadJournal{err}
	}
	return nil
}

// defaultEvery is the cadence of a poll that says nothing.
const defaultEvery = time.Second
