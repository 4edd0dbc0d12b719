package runner

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"runbook/steps"
)

// backgrounds are the steps that keep running until the run ends.
type backgrounds struct {
	running map[string]*background // by path
	bmu     sync.Mutex
}

type background struct {
	id   string
	stop context.CancelCauseFunc
	done chan struct{}
	end  *halt
}

// startBackground starts a step that keeps running, and goes on once it is ready.
func (x *run) startBackground(ctx context.Context, s *scope, n *Node, path string) *halt {
	if x.dry != nil {
		return x.body(ctx, s, n, path)
	}
	if h, restored := x.restore(ctx, s, n, path); restored {
		return h // it was stopped, or had ended by itself, before
	}
	if replaying(ctx) {
		return x.replayEnd(ctx, s, n, path)
	}
	own, stop := context.WithCancelCause(ctx)
	b := &background{id: n.ID, stop: stop, done: make(chan struct{})}
	x.bmu.Lock()
	if x.running == nil {
		x.running = map[string]*background{}
	}
	x.running[path] = b
	x.bmu.Unlock()
	go func() {
		defer close(b.done)
		b.end = x.body(own, s, n, path)
	}()
	if n.Ready == nil {
		return nil
	}
	for {
		select {
		case <-b.done:
			if b.end != nil {
				return b.end
			}
			return failed(path, steps.Errorf("background", "%s ended before it was ready", path))
		default:
		}
		ok, err := x.holdsNow(ctx, s, n)
		if err != nil {
			stop(errBackground)
			<-b.done
			return failed(path, steps.Classify(fmt.Errorf("ready: %s: %w", n.Ready.Expr.Source, err)))
		}
		if ok {
			return nil
		}
		if err := x.pause(ctx, defaultEvery); err != nil {
			stop(errBackground)
			<-b.done
			return haltFor(err, path)
		}
	}
}

// holdsNow evaluates ready over the step's probe, which observes what it brings up.
func (x *run) holdsNow(ctx context.Context, s *scope, n *Node) (bool, error) {
	var own map[string]any
	if p := n.Probe; p != nil {
		look := &act{x: x, n: n, s: s, path: s.prefix + n.ID, kind: p.Kind, effect: steps.Read}
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
	x.bmu.Lock()
	var found *background
	for _, b := range x.running {
		if b.id == id {
			found = b
		}
	}
	x.bmu.Unlock()
	a.attempt = 1
	if found == nil {
		return x.finish(a, statusOK)
	}
	found.stop(errBackground)
	<-found.done
	return x.finish(a, statusChanged)
}

// stopAll ends what still runs in the background.
func (x *run) stopAll() {
	x.bmu.Lock()
	running := x.running
	x.running = nil
	x.bmu.Unlock()
	for _, b := range running {
		b.stop(errBackground)
	}
	for _, b := range running {
		<-b.done
	}
}
