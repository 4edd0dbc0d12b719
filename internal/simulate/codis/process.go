package codis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// process is one life of a dashboard or a proxy, from its start to its end. What a restart forgets hangs on it.
type process struct {
	clock   clock.Clock
	dial    resp.Dialer
	pid     int
	started string
	ctx     context.Context //nolint:containedctx // the life of this process
	end     context.CancelCauseFunc
	gate    gate

	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
	last  []func() // what closes ports and connections when it ends
}

var errEnded = errors.New("process ended")

func newProcess(c clock.Clock, dial resp.Dialer, pid int) *process {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	if pid == 0 {
		pid = 1000 + rand.IntN(30000)
	}
	p := &process{clock: c, dial: dial, pid: pid}
	p.started = c.Now().UTC().Format("2006-01-02 15:04:05.999999999 -0700 MST") + fmt.Sprintf(" m=+0.0%08d", 4000000+rand.IntN(9000000))
	p.ctx, p.end = context.WithCancelCause(context.Background())
	return p
}

// run starts a goroutine of the process. It says false, and starts none, where the process has ended.
func (p *process) run(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.wg.Go(f)
	return true
}

// atEnd has f called when the process ends, at once where it has.
func (p *process) atEnd(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		f()
		return
	}
	p.last = append(p.last, f)
}

// kill ends the process at once, whatever it was doing, without waiting for its goroutines.
func (p *process) kill() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.ended = true
	last := p.last
	p.mu.Unlock()
	p.end(errEnded)
	for _, f := range last {
		f()
	}
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.ended
}

// sleep waits d of the world's time, longer where the process is frozen meanwhile. It is false where the process has ended.
func (p *process) sleep(d time.Duration) bool {
	return p.clock.Sleep(p.ctx, d) == nil && p.gate.pass(p.ctx)
}

// every calls f, waits d, and so on until the process ends.
func (p *process) every(d time.Duration, f func()) {
	p.run(func() {
		for p.gate.pass(p.ctx) {
			f()
			if !p.sleep(d) {
				return
			}
		}
	})
}

// patience is the least real time that a time limit on real work may last: in a world that runs a hundred times as fast a limit
// of a second would be over before a healthy peer could have answered.
const patience = 300 * time.Millisecond

var errTimeout = errors.New("i/o timeout")

// within bounds ctx by d of the world's time, and no less than patience; its cause is errTimeout then.
func (p *process) within(ctx context.Context, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	began := time.Now()
	stop := p.clock.AfterFunc(d, func() {
		time.AfterFunc(patience-time.Since(began), func() { cancel(errTimeout) })
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// gate is what a freeze (SIGSTOP) closes. The kernel still accepts connections and takes bytes; the process does nothing.
type gate struct {
	frozen atomic.Bool

	mu    sync.Mutex
	open  chan struct{} // closed by the thaw
	turns []*turn       // requests that wait in line, in the order of their arrival
	line  bool          // whether there is a line: while frozen, and until it has been worked through
}

// turn is one request's place in the line.
type turn struct{ begin, done chan struct{} }

// pass waits while the process is frozen. It is false where ctx ended.
func (g *gate) pass(ctx context.Context) bool {
	for g.frozen.Load() {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// enter is pass for a request: what arrived while the process was frozen is carried out one after the other, in the order of the
// thaw. The caller calls leave when it has been carried out.
func (g *gate) enter(ctx context.Context) (leave func(), ok bool) {
	g.mu.Lock()
	if !g.line {
		g.mu.Unlock()
		return func() {}, ctx.Err() == nil
	}
	t := &turn{make(chan struct{}), make(chan struct{})}
	g.turns = append(g.turns, t)
	g.mu.Unlock()
	select {
	case <-t.begin:
		return func() { close(t.done) }, true
	case <-ctx.Done():
		return nil, false
	}
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.frozen.Load() {
		g.open, g.line = make(chan struct{}), true
		g.frozen.Store(true)
	}
}

// thaw lets everything go on; lastFirst turns the line round first.
func (g *gate) thaw(p *process, lastFirst bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.frozen.Load() {
		return
	}
	if lastFirst {
		for i, j := 0, len(g.turns)-1; i < j; i, j = i+1, j-1 {
			g.turns[i], g.turns[j] = g.turns[j], g.turns[i]
		}
	}
	g.frozen.Store(false)
	close(g.open)
	p.run(func() { g.work(p.ctx) })
}

func (g *gate) work(ctx context.Context) {
	for {
		g.mu.Lock()
		if len(g.turns) == 0 || g.frozen.Load() {
			g.line = g.frozen.Load()
			g.mu.Unlock()
			return
		}
		t := g.turns[0]
		g.turns = g.turns[1:]
		g.mu.Unlock()
		close(t.begin)
		select {
		case <-t.done:
		case <-ctx.Done():
			return
		}
	}
}
