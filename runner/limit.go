package runner

import (
	"context"
	"sync"
	"time"
)

// limit is the timeout of a group. The time that its steps spend at a gate does not count.
type limit struct {
	outer *limit

	mu     sync.Mutex
	at     time.Time     // when it was last looked at
	left   time.Duration // then
	paused int           // gates that are open inside
}

type limitKey struct{}

// limit ends a context, and with it what starts in it, after so much time.
func (x *run) limit(ctx context.Context, most time.Duration) (context.Context, func()) {
	outer, _ := ctx.Value(limitKey{}).(*limit)
	l := &limit{outer: outer, at: x.clock.Now(), left: most}
	hard, cut := context.WithCancelCause(ctx)
	soft, stop := branch(hard)
	go func() {
		for left := most; left > 0; left = l.remaining(x.clock.Now()) {
			if x.clock.Sleep(hard, left) != nil {
				return
			}
		}
		cut(errTimeout)
		stop(errTimeout)
	}()
	return context.WithValue(soft, limitKey{}, l), func() { cut(nil); stop(nil) }
}

// remaining is what is left; while a gate is open, a while at least.
func (l *limit) remaining(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass(now)
	if l.paused > 0 {
		return max(l.left, time.Second)
	}
	return l.left
}

// pass counts the time since the last look, unless a gate was open.
func (l *limit) pass(now time.Time) {
	if l.paused == 0 {
		l.left -= now.Sub(l.at)
	}
	l.at = now
}

// atGate stops the limits around a gate until the function that it gives is called.
func (x *run) atGate(ctx context.Context) func() {
	inner, _ := ctx.Value(limitKey{}).(*limit)
	count := func(by int) {
		now := x.clock.Now()
		for l := inner; l != nil; l = l.outer {
			l.mu.Lock()
			l.pass(now)
			l.paused += by
			l.mu.Unlock()
		}
	}
	count(1)
	return func() { count(-1) }
}
