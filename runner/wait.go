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
	w := &waiting{x: x, w: n.Wait, s: s, path: path, every: defaultEvery, best: map[string]float64{}, first: map[string]float64{}}
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
	w.began = x.clock.Now()
	w.closer = w.began
	return w, nil
}

// wait polls a read until its condition holds and has held for long enough.
func (x *run) wait(ctx context.Context, a *act, limit time.Duration) error {
	w, err := x.newWait(a.s, a.n, a.path)
	if err != nil {
		return err
	}
	return w.poll(ctx, func(ctx context.Context) (bool, error) {
		holds, failure := w.observe(ctx, a, limit)
		if failure != nil {
			return false, failure
		}
		return w.judge(holds, w.distances(a), w.values(a), nil)
	})
}

// poll calls look at its cadence, whatever a look takes, until it says true.
func (w *waiting) poll(ctx context.Context, look func(context.Context) (bool, error)) error {
	if err := w.x.settleDisk(ctx); err != nil {
		return &deadJournal{err}
	}
	next := w.x.clock.Now()
	for {
		done, err := look(ctx)
		if done || err != nil {
			return err
		}
		next = next.Add(w.every)
		now := w.x.clock.Now()
		if late := now.Sub(next); late > 0 && w.every > 0 {
			next = next.Add(late.Truncate(w.every)) // looks that were missed are not made up for
			next = next.Add(w.every)
		}
		if err := w.x.clock.Sleep(ctx, max(next.Sub(now), 0)); err != nil {
			return w.ended(err)
		}
	}
}

// ended says what was still wanted when the time was over.
func (w *waiting) ended(cause error) error {
	return fmt.Errorf("%w: %s did not hold for long enough (last: %s)", cause, w.w.Until.Expr.Source, w.last)
}

// lookAt is observe for one of many items: what it saw is judged with the others.
func (w *waiting) lookAt(ctx context.Context, a *act, limit time.Duration) (bool, error) {
	one := *w
	return one.observe(ctx, a, limit)
}

// observe looks once. A temporary error counts as not true, and is shown.
func (w *waiting) observe(ctx context.Context, a *act, limit time.Duration) (holds bool, failure error) {
	if limit > 0 {
		var cancel context.CancelFunc
		outer := ctx
		ctx, cancel = w.x.clock.WithTimeout(ctx, limit, errAttempt)
		defer cancel()
		defer func() {
			if outer.Err() == nil && errors.Is(failure, errAttempt) {
				holds, failure = false, nil
			}
		}()
	}
	out, err := a.read(ctx)
	if err != nil {
		if c := context.Cause(ctx); c != nil {
			return false, w.ended(c)
		}
		e := steps.Classify(err)
		if !e.Temporary {
			return false, e
		}
		a.result = nil
		w.lastHolds = false
		w.held = time.Time{}
		w.last = w.x.mask.String(e.Error())
		return false, w.journal(false, nil, errorBody(e), 0)
	}
	a.out = out
	a.result = w.x.seen(a)
	ok, err := w.x.holds(a.s, w.w.Until, a.result)
	if err != nil {
		var null *expression.NullError
		if errors.As(err, &null) {
			return false, nil
		}
		return false, steps.Classify(fmt.Errorf("wait-until %s: %w", w.w.Until.Expr.Source, err))
	}
	return ok, nil
}

func (w *waiting) distances(a *act) []expression.Distance {
	if a.result == nil {
		return nil
	}
	return w.w.Until.Expr.Distances(w.x.env(a.s, a.result, w.w.Until.Expr.Refs))
}

func (w *waiting) values(a *act) map[string]any {
	if a.result == nil {
		return nil
	}
	values := map[string]any{}
	for _, p := range w.w.Until.Expr.Parts(w.x.env(a.s, a.result, w.w.Until.Expr.Refs)) {
		values[p.Text] = p.Value
		if err, ok := p.Value.(error); ok {
			values[p.Text] = err.Error()
		}
	}
	return values
}

// judge decides after a look: done, go on, or stalled.
func (w *waiting) judge(holds bool, distances []expression.Distance, values map[string]any, failure *ErrorBody) (bool, error) {
	now := w.x.clock.Now()
	left := w.progress(now, distances)
	if values != nil || w.last == "" {
		w.last = w.show(values)
	}
	if !holds {
		w.held = time.Time{}
		if w.stall > 0 && now.Sub(w.closer) >= w.stall {
			return false, &steps.Error{Kind: "stall", Err: fmt.Errorf("stalled: %s has not come closer for %s (%s)", w.w.Until.Expr.Source, w.stall, w.show(values))}
		}
	} else {
		w.closer = now
		if w.held.IsZero() {
			w.held = now
		}
		if now.Sub(w.held) >= w.stable {
			return true, w.journalNow(true, values, failure, 0)
		}
		left = w.stable - now.Sub(w.held)
	}
	return false, w.journal(holds, values, failure, left)
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
func (w *waiting) journal(holds bool, values map[string]any, failure *ErrorBody, left time.Duration) error {
	now := w.x.clock.Now()
	if holds == w.lastHolds && !w.observed.IsZero() && now.Sub(w.observed) < observedEvery {
		return nil
	}
	return w.journalNow(holds, values, failure, left)
}

func (w *waiting) journalNow(holds bool, values map[string]any, failure *ErrorBody, left time.Duration) error {
	now := w.x.clock.Now()
	w.observed, w.lastHolds = now, holds
	shown, _ := jsonable(values).(map[string]any)
	body := &StepObserved{Holds: holds, Values: shown, Error: failure}
	if !w.held.IsZero() && w.stable > 0 {
		body.Held = seconds(now.Sub(w.held)) + " of " + w.stable.String()
	}
	if left > 0 {
		body.Left = left.Round(time.Second).String()
	}
	if _, err := w.x.record(recStepObserved, w.path, body); err != nil {
		return &deadJournal{err}
	}
	return nil
}

// defaultEvery is the cadence of a poll that says nothing.
const defaultEvery = time.Second
