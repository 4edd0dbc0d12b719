// Package traffic is the load that a migration is judged by: real RESP clients that write through the place where
// clients are pointed, and a ledger of every write that was acknowledged to them. At the end Check compares the ledger with
// what is really stored, so "no write was lost" is a finding and not a hope. It knows servers by address only and runs
// against simulated and real ones alike.
//
// A client owns its keys alone and has one request under way, so the order of a key's writes is known. It asks Route where
// to go, at its start, at a cadence, and whenever an answer tells it that it is wrong there (READONLY, a refused connection).
// A write that was refused was not carried out and is tried again, as an application would; one whose answer never came may
// have been carried out or not: it is noted as unknown, either outcome is right, and it is never sent twice.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// Options say what the clients do. Route is required; everything else has a default.
type Options struct {
	// Route gives the address that clients should use now. It is called often and must return soon.
	Route           func(ctx context.Context) (string, error)
	Dial            resp.Dialer
	Username        string
	Password        string
	Clients         int           // 4
	WritesPerSecond float64       // of all clients together, in the world's time; 200
	Keys            int           // of all clients together; 400
	Prefix          string        // of every key; "traffic:"
	Name            string        // CLIENT SETNAME of every connection; "traffic"
	Timeout         time.Duration // how long a client waits for one answer; 10 s
	RouteEvery      time.Duration // how often a client asks for its route unprompted; 1 s
	Retry           time.Duration // how long a client waits after a refusal; 20 ms
	Clock           clock.Clock
	Seed            uint64
}

// Traffic is a running load.
type Traffic struct {
	opts   Options
	ledger *Ledger
	stop   context.CancelFunc // no new request
	kill   context.CancelCauseFunc
	done   sync.WaitGroup
}

// Start begins the load. It ends at Stop, or when ctx is done.
func Start(ctx context.Context, opts Options) (*Traffic, error) {
	if opts.Route == nil {
		return nil, errors.New("traffic: no route: nobody says where clients are pointed")
	}
	def(&opts.Clients, 4)
	def(&opts.Keys, 400)
	def(&opts.WritesPerSecond, 200)
	def(&opts.Prefix, "traffic:")
	def(&opts.Name, "traffic")
	def(&opts.Timeout, 10*time.Second)
	def(&opts.RouteEvery, time.Second)
	def(&opts.Retry, 20*time.Millisecond)
	if opts.Clock == nil {
		opts.Clock = clock.New(1)
	}
	opts.Clients = min(opts.Clients, opts.Keys)
	t := &Traffic{opts: opts, ledger: newLedger(opts.Clock)}
	running, stop := context.WithCancel(ctx)
	t.stop = stop
	life, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	t.kill = kill
	for i := range opts.Clients {
		c := &client{t: t, id: i, rand: rand.New(rand.NewPCG(opts.Seed, uint64(i)))}
		for k := i; k < opts.Keys; k += opts.Clients {
			c.keys = append(c.keys, t.ledger.key(opts.Prefix+strconv.Itoa(k), kinds[(k/opts.Clients)%len(kinds)]))
		}
		t.done.Go(func() { c.run(running, life) })
	}
	return t, nil
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Ledger is what was acknowledged so far.
func (t *Traffic) Ledger() *Ledger { return t.ledger }

// errStopped ends requests that are still under way when the load's patience is over.
var errStopped = errors.New("traffic stopped")

// Stop lets the requests under way end, for Timeout at most, and waits for every client. A request without an answer by
// then is unknown, and its client counts as blocked.
func (t *Traffic) Stop() {
	t.stop()
	cancel := t.opts.Clock.AfterFunc(t.opts.Timeout, func() { t.kill(errStopped) })
	t.done.Wait()
	cancel()
	t.kill(errStopped)
}

// client is one connection's worth of load.
type client struct {
	t      *Traffic
	id     int
	rand   *rand.Rand
	keys   []*record
	conn   *resp.Conn
	addr   string
	routed time.Time
}

// run does one operation after the other at the client's share of the rate. One that comes late is not made up for: a
// pause must not be followed by a flood.
func (c *client) run(running, life context.Context) {
	defer c.hangUp()
	o := &c.t.opts
	every := time.Duration(float64(time.Second) * float64(o.Clients) / o.WritesPerSecond)
	next := o.Clock.Now().Add(every * time.Duration(c.id) / time.Duration(o.Clients))
	for {
		if o.Clock.Sleep(running, next.Sub(o.Clock.Now())) != nil || running.Err() != nil {
			return
		}
		c.write(life)
		if c.rand.IntN(4) == 0 {
			c.readBack(life)
		}
		if next = next.Add(every); next.Before(o.Clock.Now()) {
			next = o.Clock.Now()
		}
	}
}

// write does one operation to its end: acknowledged, unknown, or given up because the load was stopped.
func (c *client) write(life context.Context) {
	l, o := c.t.ledger, &c.t.opts
	r := c.keys[c.rand.IntN(len(c.keys))]
	op := r.next(c.rand)
	begun := l.begin(c.id)
	for {
		v, err := c.do(life, op.args...)
		var refused resp.ReplyError
		switch {
		case err == nil:
			l.acknowledge(c.id, r, op, v, begun)
			return
		case errors.As(err, &refused):
			l.failed(refused.Code())
			c.routed = time.Time{}
		case isRefused(err):
			l.failed("refused")
			c.routed = time.Time{}
		default:
			l.failed("no answer")
			l.unknown(c.id, r, op, begun, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStopped))
			return
		}
		// Also after Stop, until its patience is over: a client whose write is refused is not served.
		if o.Clock.Sleep(life, o.Retry) != nil {
			l.abandon(c.id, begun)
			return
		}
	}
}

// readBack reads a key that it owns and compares with what was acknowledged.
func (c *client) readBack(life context.Context) {
	r := c.keys[c.rand.IntN(len(c.keys))]
	v, err := c.do(life, r.read()...)
	if err != nil {
		c.t.ledger.failed("read: " + code(err))
		c.routed = time.Time{}
		return
	}
	c.t.ledger.seen(r, v, c.addr)
}

func code(err error) string {
	var refused resp.ReplyError
	switch {
	case errors.As(err, &refused):
		return refused.Code()
	case isRefused(err):
		return "refused"
	}
	return "no answer"
}

// refusedError is a request that certainly was not sent.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

func isRefused(err error) bool {
	var r refusedError
	return errors.As(err, &r)
}

// do sends one command to where clients are pointed now.
func (c *client) do(ctx context.Context, args ...string) (resp.Value, error) {
	if err := c.connect(ctx); err != nil {
		return resp.Value{}, refusedError{err}
	}
	v, err := c.ask(ctx, args...)
	if err != nil {
		var reply resp.ReplyError
		if !errors.As(err, &reply) {
			c.hangUp()
			if errors.Is(err, syscall.EPIPE) { // the peer had closed before a byte of the request was taken
				return v, refusedError{err}
			}
		}
	}
	return v, err
}

// ask is one request within Timeout.
func (c *client) ask(ctx context.Context, args ...string) (resp.Value, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := c.t.opts.Clock.AfterFunc(c.t.opts.Timeout, func() { cancel(context.DeadlineExceeded) })
	defer stop()
	return c.conn.Do(ctx, args...)
}

func (c *client) connect(ctx context.Context) error {
	o := &c.t.opts
	if now := o.Clock.Now(); c.conn == nil || now.Sub(c.routed) >= o.RouteEvery {
		addr, err := o.Route(ctx)
		if err != nil {
			return fmt.Errorf("route: %w", err)
		}
		c.routed = now
		if addr != c.addr {
			c.hangUp()
			c.addr = addr
		}
	}
	if c.conn != nil {
		return nil
	}
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := resp.DialWith(dial, o.Dial, c.addr)
	if err != nil {
		c.routed = time.Time{}
		return err
	}
	c.conn = conn
	for _, args := range [][]string{c.auth(), {"CLIENT", "SETNAME", o.Name}} {
		if len(args) == 0 {
			continue
		}
		if _, err := c.ask(ctx, args...); err != nil {
			var reply resp.ReplyError
			if args[0] != "AUTH" && errors.As(err, &reply) {
				continue // a proxy need not know CLIENT
			}
			c.hangUp()
			return err
		}
	}
	return nil
}

func (c *client) auth() []string {
	switch o := &c.t.opts; {
	case o.Password == "":
		return nil
	case o.Username == "":
		return []string{"AUTH", o.Password}
	default:
		return []string{"AUTH", o.Username, o.Password}
	}
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// Reader reads at the place that is checked.
type Reader func(ctx context.Context, args ...string) (resp.Value, error)

// ReadAt gives a Reader over one connection to addr, and what closes it.
func ReadAt(ctx context.Context, dial resp.Dialer, addr, username, password string) (Reader, func(), error) {
	c, err := resp.DialWith(ctx, dial, addr)
	if err != nil {
		return nil, nil, err
	}
	if password != "" {
		args := []string{"AUTH", password}
		if username != "" {
			args = []string{"AUTH", username, password}
		}
		if _, err := c.Do(ctx, args...); err != nil {
			_ = c.Close()
			return nil, nil, err
		}
	}
	return c.Do, func() { _ = c.Close() }, nil
}
