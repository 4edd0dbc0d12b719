package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runbook/steps"
)

// sentry looks at one guard again and again while its element goes on.
type sentry struct {
	w      *watch
	g      *Guard
	name   string // its path, such as move/errors
	stands standing

	since time.Time // since when it has not held; zero: it holds, or was never looked at
	told  bool      // an answer is in the journal
	held  bool      // that answer
}

func (w *watch) sentry(g *Guard) *sentry {
	name := w.s.prefix + g.ID
	return &sentry{w: w, g: g, name: name, stands: w.x.past.standing(name, w.path)}
}

// keep looks at the guard's cadence until the element ends or the guard trips. It says on
// first when the guard has been seen to hold.
func (k *sentry) keep(ctx context.Context, first chan<- struct{}) {
	clock, ready := k.w.x.clock, false
	for next := clock.Now(); k.look(ctx); {
		if !ready && (k.held || k.stands.excused) {
			ready = true
			first <- struct{}{}
		}
		next = k.next(next)
		if clock.Sleep(ctx, next.Sub(clock.Now())) != nil {
			return
		}
	}
}

// look looks once, journals an answer that is new, and trips where it must. false: nothing
// is to be looked at any more.
func (k *sentry) look(ctx context.Context) bool {
	x := k.w.x
	began := x.clock.Now()
	seen := x.lookAt(ctx, k.w.s, k.g, k.name)
	if ctx.Err() != nil {
		return false
	}
	switch {
	case seen.holds:
		k.since, k.stands = time.Time{}, standing{}
	case k.since.IsZero():
		k.since = began // of the look: a target that hangs is not observed from then on
	}
	if err := k.tell(seen); err != nil {
		k.w.fail(err)
		return false
	}
	if !k.trips() {
		return true
	}
	t := &GuardTripped{Guard: k.name, Then: k.g.Then, Require: k.g.Require.Expr.Source, For: durationText(k.g.For), Since: k.since.UTC(), Error: errorBody(seen.err)}
	t.Values, _ = jsonable(seen.values).(map[string]any)
	if k.stands.trip != nil {
		k.stands.again(t)
	}
	k.w.trip(t)
	return false
}

// tell journals an answer that differs from the one before.
func (k *sentry) tell(seen guardSight) error {
	if k.told && k.held == seen.holds {
		return nil
	}
	k.told, k.held = true, seen.holds
	body := seen.body(k.g, k.name)
	switch {
	case seen.holds:
	case k.stands.excused:
		body.Overridden = true
	case k.stands.trip != nil:
		body.Then = ThenPause
	default:
		body.Then, body.For = k.g.Then, durationText(k.g.For)
	}
	_, err := k.w.x.record(recGuardObserved, k.w.path, body)
	return err
}

// trips says that the guard has not held for long enough. One that had tripped when the run
// stopped has to hold at once.
func (k *sentry) trips() bool {
	if k.since.IsZero() || k.stands.excused {
		return false
	}
	return k.stands.trip != nil || k.w.x.clock.Now().Sub(k.since) >= k.g.For
}

// next is when to look again: at the cadence, whatever a look takes, and when the time
// is over that the guard may not hold.
func (k *sentry) next(last time.Time) time.Time {
	next, now := last.Add(k.g.Every), k.w.x.clock.Now()
	if late := now.Sub(next); late > 0 {
		next = next.Add(late.Truncate(k.g.Every) + k.g.Every) // looks that were missed are not made up for
	}
	if end := k.since.Add(k.g.For); !k.since.IsZero() && !k.stands.excused && end.Before(next) {
		return end
	}
	return next
}

// guardSight is what one look at a guard has shown.
type guardSight struct {
	holds  bool
	values map[string]any // operands of the condition
	err    *steps.Error   // why it could not be observed: then it does not hold
}

// guardLook is how long one look may take, unless twice the guard's cadence is longer.
const guardLook = 30 * time.Second

var errLook = errors.New("the look took too long")

// lookAt observes a guard once.
func (x *run) lookAt(ctx context.Context, s *scope, g *Guard, name string) guardSight {
	limit := max(guardLook, 2*g.Every)
	ctx, cancel := x.clock.WithTimeout(ctx, limit, errLook)
	defer cancel()
	own, err := x.readGuard(ctx, s, g, name)
	if errors.Is(context.Cause(ctx), errLook) {
		err = &steps.Error{Kind: "timeout", Err: fmt.Errorf("%w (%s)", errLook, limit)}
	}
	if err != nil {
		return guardSight{err: x.masked(steps.Classify(err))}
	}
	seen := guardSight{values: valuesOf(g.Require, x.env(s, own, g.Require.Expr.Refs))}
	if seen.holds, err = x.holds(s, g.Require, own); err != nil {
		seen.holds, seen.err = false, x.masked(steps.Classify(err))
	}
	return seen
}

func (x *run) readGuard(ctx context.Context, s *scope, g *Guard, name string) (map[string]any, error) {
	a := &act{x: x, n: &Node{}, s: s, path: name, kind: g.Kind, effect: steps.Read, began: x.clock.Now()}
	var err error
	if a.target, err = x.target(s, a.n, g.Target, name); err != nil {
		return nil, err
	}
	if a.in, err = x.bind(s, g.Kind, g.With, nil); err != nil {
		return nil, err
	}
	if x.dry != nil {
		if because := x.dry.because(a.touches()); because != "" {
			return nil, &unknownError{because}
		}
	}
	if a.out, err = a.read(ctx); err != nil {
		return nil, err
	}
	return x.seen(a), nil
}

// lookOnce shows the guards of an element in a dry run.
func (x *run) lookOnce(ctx context.Context, s *scope, guards []*Guard) {
	for _, g := range guards {
		if over(ctx) != nil {
			return
		}
		name := s.prefix + g.ID
		_, _ = x.record(recGuardObserved, "", x.lookAt(ctx, s, g, name).body(g, name)) // a dry run's record is only shown
	}
}

// body is what the journal says of a look.
func (seen guardSight) body(g *Guard, name string) *GuardObserved {
	body := &GuardObserved{Guard: name, Require: g.Require.Expr.Source, Holds: seen.holds, Error: errorBody(seen.err)}
	body.Values, _ = jsonable(seen.values).(map[string]any)
	return body
}

// durationText is a duration in words; empty: none.
func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return shortDuration(d)
}
