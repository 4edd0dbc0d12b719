package runner

import (
	"context"
	"sync"
	"time"

	"runbook/steps"
)

// watch is the stop conditions of one element, the run or a group, while it goes on.
type watch struct {
	x    *run
	n    *Node // nil: the run
	s    *scope
	path string                  // of the group; empty: the run
	stop context.CancelCauseFunc // nothing new starts in the element; reads and waits end
	cut  context.CancelCauseFunc // what acts in it is cancelled

	mu    sync.Mutex
	over  bool          // the element has ended: nothing trips any more
	end   *halt         // what a trip, or a journal that cannot be written, makes of the element
	cause *GuardTripped // the trip; nil: none
	ended chan struct{} // closed with end
}

// watched carries out an element, and beside it looks at its stop conditions. It begins
// once each guard has been seen to hold: what was never observed lets nothing start.
func (x *run) watched(ctx context.Context, s *scope, n *Node, path string, element func(context.Context) *halt) *halt {
	guards, age := x.prog.Root.Guards, (*MaxAge)(nil)
	if n != nil {
		guards, age = n.Guards, n.MaxAge
	}
	switch {
	case len(guards) == 0 && age == nil, n != nil && (s.mustRun(n) || x.past.finished(path)):
		return element(ctx)
	case n != nil && path != s.prefix+n.ID: // an item: its loop is watched as a whole
		return element(ctx)
	case x.dry != nil:
		x.lookOnce(ctx, s, guards)
		return element(ctx)
	}
	hard, cut := context.WithCancelCause(ctx)
	inner, stop := branch(hard)
	defer func() { stop(nil); cut(nil) }()
	w := &watch{x: x, n: n, s: s, path: path, stop: stop, cut: cut, ended: make(chan struct{})}

	soft, let := softly(ctx)
	defer let()
	looking, enough := context.WithCancelCause(soft)
	var looks sync.WaitGroup
	first := make(chan struct{}, len(guards))
	if age != nil {
		w.keepAge(looking, age, &looks)
	}
	for _, g := range guards {
		k := w.sentry(g)
		if k.stands.owesRollback() {
			w.finishRollback(k.stands.trip)
			continue
		}
		looks.Go(func() { k.keep(looking, first) })
	}
	h := w.await(ctx, looking, first)
	if h == nil {
		h = element(inner)
	}
	w.close()
	enough(nil)
	looks.Wait()
	return w.verdict(h)
}

// await waits until every guard has been seen to hold. nil: the element may begin.
func (w *watch) await(ctx, looking context.Context, first <-chan struct{}) *halt {
	for range cap(first) {
		select {
		case <-first:
		case <-w.ended:
		case <-looking.Done():
		}
	}
	select {
	case <-w.ended:
		return w.end
	default:
		return stopped(ctx, w.path)
	}
}

// keepAge begins to watch a deadline; one that is over trips before anything starts.
func (w *watch) keepAge(ctx context.Context, age *MaxAge, looks *sync.WaitGroup) {
	x, stands := w.x, w.x.past.standing(w.path, w.path)
	switch {
	case stands.excused:
		return
	case stands.owesRollback():
		w.finishRollback(stands.trip)
		return
	case stands.trip != nil: // it begins anew, after a rollback
		w.trip(stands.again(age.trip(w.path)))
		return
	}
	began := x.past.firstStarted(w.path)
	if began.IsZero() {
		began = x.clock.Now()
	}
	began = began.Round(0) // by the clock on the wall: a machine that slept has not stopped it
	left := func() time.Duration { return began.Add(age.Of).Sub(x.clock.Now().Round(0)) }
	trip := func() {
		t := age.trip(w.path)
		t.Since, t.Then = began.UTC(), age.Then
		w.trip(t)
	}
	if left() <= 0 {
		trip()
		return
	}
	looks.Go(func() {
		for left() > 0 {
			if x.clock.Sleep(ctx, min(left(), wallLook)) != nil {
				return
			}
		}
		trip()
	})
}

func (a *MaxAge) trip(group string) *GuardTripped {
	return &GuardTripped{Guard: group, MaxAge: shortDuration(a.Of)}
}

// wallLook is how often the clock on the wall is looked at while waiting for a time of it.
const wallLook = time.Minute

// close is the end of the element: from here on nothing trips.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// tripped is the cause for which the steps of an element end that a stop condition has ended.
type tripped struct{ *GuardTripped }

func (t *tripped) Error() string { return t.Words() }

// trip ends the element, once this is on disk.
func (w *watch) trip(t *GuardTripped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.end != nil {
		return
	}
	if err := w.x.durable(context.Background(), recGuardTripped, w.path, t); err != nil {
		w.finish(broken(w.path, err), err)
		return
	}
	w.finishAs(t)
}

// finishRollback ends the element by a trip that an earlier process journaled, and died.
func (w *watch) finishRollback(t *GuardTripped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end == nil {
		w.finishAs(t)
	}
}

// fail ends the element because the journal can no longer be written.
func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && w.end == nil {
		w.finish(broken(w.path, err), err)
	}
}

// finishAs ends the element as a trip says: the lock is held. What acts is cancelled for a
// rollback alone, so that a pause never cuts a cut-over in two.
func (w *watch) finishAs(t *GuardTripped) {
	h := &halt{path: w.path, end: Failed, err: w.x.masked(&steps.Error{Kind: "guard", Err: &tripped{t}})}
	switch {
	case t.Then == ThenPause:
		h.end, h.tripped = Paused, true
	case t.Then == ThenStop:
		h.decided, h.tripped = "stop", true
	case w.n == nil:
		h.decided = "rollback-run"
	default:
		h.decided = decidedRollback
	}
	if t.Then != ThenRollback {
		h.err.Hint = w.x.wayPast(t)
	}
	w.cause = t
	w.finish(h, &tripped{t})
	if t.Then == ThenRollback {
		w.cut(&tripped{t})
	}
}

func (w *watch) finish(end *halt, cause error) {
	w.end = end
	close(w.ended)
	w.stop(cause)
}

// verdict is how the element ends: as its steps say, unless a stop condition has ended it.
func (w *watch) verdict(h *halt) *halt {
	if w.end == nil {
		return h
	}
	end := worse(w.end, h)
	if end == w.end && end.end == Paused {
		if err := w.x.durable(context.Background(), recRunPaused, w.path, &RunPaused{Reason: w.cause.brief()}); err != nil {
			return broken(w.path, err)
		}
	}
	return end
}

// wayPast is what an operator can do about a stop condition that has tripped.
func (x *run) wayPast(t *GuardTripped) string {
	if x.sandbox != "" {
		return x.wayOn("", "")
	}
	override := x.wayOn("", "--override "+quoted(t.Guard)+" --reason TEXT")
	if t.MaxAge != "" {
		return override
	}
	return x.wayOn("see to it that it holds again", "") + "; or, without it: " + override
}

// mustRun says that a node is part of what runs whatever stop conditions say: a rollback,
// or finally.
func (s *scope) mustRun(n *Node) bool {
	return s.frame.mustRun || n.within(InFinally) || n.within(InUndo)
}
