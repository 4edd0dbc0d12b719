package runner

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"runbook/steps"
)

// backgrounds are the steps that keep running until the run ends.
type backgrounds struct {
	bmu     sync.Mutex
	running map[string]*background // by path
	stopRun func(error)            // ends all that is not in the background
}

type background struct {
	stop  context.CancelCauseFunc
	done  chan struct{} // it has ended
	end   *halt         // how
	over  chan struct{} // what its failure does has been decided
	final *halt         // what that makes of the run
}

// startBackground starts a step that keeps running, and goes on once it is ready. It
// outlives the group that it stands in.
func (x *run) startBackground(ctx context.Context, s *scope, n *Node, path string) *halt {
	if x.dry != nil {
		return x.once(ctx, s, n, path, true)
	}
	if was := x.past.live(path); was != nil && was.finished != nil && !was.finished.Suspended && was.finished.Status != statusFailed {
		return x.recall(ctx, s, n, path) // it was stopped, or had ended by itself, before
	}
	free, stop := untimed(ctx)
	b := &background{stop: stop, done: make(chan struct{}), over: make(chan struct{})}
	x.bmu.Lock()
	if x.running == nil {
		x.running = map[string]*background{}
	}
	x.running[path] = b
	x.bmu.Unlock()
	go func() {
		defer close(b.done)
		b.end = x.once(free, s, n, path, true)
	}()
	if h := x.awaitReady(ctx, s, n, path, b); h != nil {
		x.bmu.Lock()
		delete(x.running, path)
		x.bmu.Unlock()
		return h
	}
	go x.watch(free, s, n, path, b)
	return nil
}

// awaitReady waits until what the step brings up is there.
func (x *run) awaitReady(ctx context.Context, s *scope, n *Node, path string, b *background) *halt {
	for n.Ready != nil {
		select {
		case <-b.done:
			b.stop(nil)
			if b.end != nil {
				return b.end
			}
			return failed(path, steps.Errorf("background", "%s ended before it was ready", path))
		default:
		}
		ok, err := x.holdsNow(ctx, s, n)
		if ok {
			return nil
		}
		var failure *halt
		if err != nil {
			failure = failed(path, x.masked(steps.Classify(fmt.Errorf("ready: %s: %w", n.Ready.Expr.Source, err))))
		} else if err := x.pause(ctx, defaultEvery); err != nil {
			failure = haltFor(err, path)
		}
		if failure != nil {
			if h := stopped(ctx, path); h != nil {
				failure = h
			}
			b.stop(errSuspended)
			<-b.done
			return failure
		}
	}
	return nil
}

// watch ends the run when a background step fails while the run goes on.
func (x *run) watch(ctx context.Context, s *scope, n *Node, path string, b *background) {
	defer close(b.over)
	<-b.done
	b.stop(nil)
	h := b.end
	if h.own() {
		ctx, done := untimed(context.WithoutCancel(ctx))
		h = x.onFailure(ctx, s, n, path, &span{node: n, path: path}, h)
		done(nil)
	}
	if h != nil && !h.passive {
		b.final = h
		x.stopRun(errSibling)
	}
}

// backgroundEnded is the end of a background step that was told to end: for good, or
// until the run is resumed.
func (x *run) backgroundEnded(ctx context.Context, a *act) (*halt, bool) {
	cause := context.Cause(ctx)
	if !errors.Is(cause, errBackground) && !errors.Is(cause, errSuspended) && !errors.Is(cause, ErrInterrupted) {
		return nil, false
	}
	a.out, a.result, a.found = nil, nil, true
	body := a.finished(statusChanged)
	body.Suspended = !errors.Is(cause, errBackground)
	if _, err := x.record(recStepFinished, a.path, body); err != nil {
		return broken(a.path, err), true
	}
	a.entry.end(statusChanged)
	result := nothing(a.n)
	seal(result, body)
	a.s.set(a.n.ID, result)
	return nil, true
}

// holdsNow evaluates ready over the step's probe, which observes what it brings up.
func (x *run) holdsNow(ctx context.Context, s *scope, n *Node) (bool, error) {
	var own map[string]any
	if p := n.Probe; p != nil {
		look := &act{x: x, n: n, s: s, path: s.prefix + n.ID, kind: p.Kind, effect: steps.Read}
		ctx, done := softly(ctx)
		defer done()
		var err error
		binding := p.Target
		if binding == nil {
			binding = n.Target
		}
		if look.target, err = x.target(s, &Node{}, binding, look.path); err != nil {
			return false, err
		}
		if look.in, err = x.bind(s, p.Kind, p.With, nil); err != nil {
			return false, err
		}
		if look.out, err = look.read(ctx); err != nil {
			if e := steps.Classify(err); e.Temporary {
				return false, nil
			}
			return false, err
		}
		own = x.seen(look)
	}
	return x.holds(s, n.Ready, own)
}

// stopBackground is the kind stop-background.
func (x *run) stopBackground(ctx context.Context, a *act) *halt {
	id := reflect.ValueOf(a.in).Elem().FieldByName("Step").String()
	a.attempt = 1
	x.bmu.Lock()
	var found *background
	for s := a.s; s != nil && found == nil; s = s.parent {
		found = x.running[s.prefix+id]
	}
	x.bmu.Unlock()
	if found == nil {
		return x.finish(a, statusOK)
	}
	found.stop(errBackground)
	<-found.done
	return x.finish(a, statusChanged)
}

// stopAll ends what still runs in the background, for good where the run is over, and
// says what that makes of the run's end.
func (x *run) stopAll(h *halt, cause error) *halt {
	x.bmu.Lock()
	running := x.running
	x.running = nil
	x.bmu.Unlock()
	for _, b := range running {
		b.stop(cause)
	}
	for _, b := range running {
		<-b.over
		h = worse(h, b.final)
	}
	return h
}
