// Package traffic is the load that a migration is judged by: real RESP clients that write through the place where
// clients are pointed, and a ledger of every write that was acknowledged to them. At the end Check compares the ledger with
// what is really stored, so "no write was lost" is a finding and not a hope. It knows servers by address only and runs
// against simulated and real ones alike.
//
// A client owns its keys alone and has one request under way, so the order of a key's writes is known. It asks Route where
// to go, at its start, at a cadence, and whenever an answer tells it that it is wrong there (READONLY, a refused connection).
// Where there are several places (the proxies of one product) clients begin evenly spread over them, and one whose
// connection was refused or broke goes to the next.
//
// A write that was answered by an error was not carried out and is tried again, as an application would. One whose answer
// never came may have been carried out or not, and so may one whose proxy answers that it has lost the server: it is
// noted as unknown, either outcome is right, and it is never sent twice. One that its client gave up waiting for may
// even be carried out later than what the client wrote next: a proxy that holds a slot keeps it.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// Options say what the clients do. Route or Routes is required; everything else has a default.
type Options struct {
	// Route gives the address that clients should use now. It is called often and must return soon.
	Route func(ctx context.Context) (string, error)
	// Routes is Route where clients have several addresses to choose from.
	Routes          func(ctx context.Context) ([]string, error)
	Dial            resp.Dialer
	Username        string
	Password        string
	Clients         int           // 4
	WritesPerSecond float64       // of all clients together, in the world's time; 200
	Keys            int           // of all clients together; 400
	Prefix          string        // of every key; "traffic:"
	Tags            []string      // hash tags by turns for half of the keys; the others have none
	Name            string        // CLIENT SETNAME of every connection; "traffic"
	Unnamed         bool          // no CLIENT SETNAME: twemproxy hangs up on it
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
	switch {
	case opts.Routes != nil:
	case opts.Route == nil:
		return nil, errors.New("traffic: no route: nobody says where clients are pointed")
	default:
		opts.Routes = func(ctx context.Context) ([]string, error) {
			addr, err := opts.Route(ctx)
			return []string{addr}, err
		}
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
		c := &client{t: t, id: i, place: i, rand: rand.New(rand.NewPCG(opts.Seed, uint64(i)))}
		for k := i; k < opts.Keys; k += opts.Clients {
			name, tagged := keyName(&opts, k)
			c.keys = append(c.keys, t.ledger.key(name, kinds[(k/opts.Clients)%len(kinds)], tagged))
		}
		t.done.Go(func() { c.run(running, life) })
	}
	return t, nil
}

// keyName is the name of the k-th key. Half of each client's keys of each kind have a tag.
func keyName(o *Options, k int) (name string, tagged bool) {
	own := k / o.Clients
	if len(o.Tags) == 0 || (own+own/len(kinds))%2 == 1 {
		return o.Prefix + strconv.Itoa(k), false
	}
	return o.Prefix + "{" + o.Tags[k/2%len(o.Tags)] + "}" + strconv.Itoa(k), true
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
	place  int // which of several addresses it uses
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
		case errors.As(err, &refused) && !undecided(refused), isRefused(err):
			l.failed(words(err))
			c.routed = time.Time{}
		default:
			l.failed(words(err))
			l.unknown(c.id, r, op, begun, isUnanswered(err))
			return
		}
		// Also after Stop, until its patience is over: a client whose write is refused is not served.
		if o.Clock.Sleep(life, o.Retry) != nil {
			l.abandon(c.id, r, begun)
			return
		}
	}
}

// readBack reads a key that it owns and compares with what was acknowledged.
func (c *client) readBack(life context.Context) {
	r := c.keys[c.rand.IntN(len(c.keys))]
	begun := c.t.opts.Clock.Now()
	v, err := c.do(life, r.read()...)
	if err != nil {
		c.t.ledger.failed("read: " + words(err))
		if isUnanswered(err) {
			c.t.ledger.unserved(c.id, begun)
		}
		c.routed = time.Time{}
		return
	}
	c.t.ledger.seen(r, v, c.addr)
}

// words is what a failure is counted under: the code of an error that has one of its own, all of what ERR says.
func words(err error) string {
	var refused resp.ReplyError
	switch {
	case errors.As(err, &refused) && strings.EqualFold(refused.Code(), "ERR"):
		return string(refused)
	case errors.As(err, &refused):
		return refused.Code()
	case isRefused(err):
		return "refused"
	}
	return "no answer"
}

// undecided says whether an error that a proxy answered leaves open if the request was carried out: the connection to
// the server broke after the request may have gone out. The words are those of Codis 3.2 and of twemproxy.
func undecided(e resp.ReplyError) bool {
	return strings.Contains(string(e), "backend conn") || strings.HasPrefix(string(e), "ERR handle response, ") ||
		slices.Contains([]string{"ERR Connection timed out", "ERR Connection reset by peer", "ERR Broken pipe", "ERR unknown"}, string(e))
}

// isUnanswered says whether a client waited for an answer in vain.
func isUnanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStopped)
}

// hangsUp says whether a proxy that answers this closes the connection then, and serves nobody.
func hangsUp(e resp.ReplyError) bool {
	return e == "ERR router is not online" || e == "ERR max number of clients reached"
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
	var reply resp.ReplyError
	switch {
	case err == nil:
	case !errors.As(err, &reply):
		c.hangUp()
		if !errors.Is(err, context.DeadlineExceeded) {
			c.place++
		}
		if errors.Is(err, syscall.EPIPE) { // the peer had closed before a byte of the request was taken
			return v, refusedError{err}
		}
	case hangsUp(reply):
		c.hangUp()
		c.place++
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
		addrs, err := o.Routes(ctx)
		if err != nil {
			return fmt.Errorf("route: %w", err)
		}
		if len(addrs) == 0 {
			return errors.New("route: clients are pointed nowhere")
		}
		c.routed = now
		if addr := addrs[c.place%len(addrs)]; addr != c.addr {
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
		c.place++
		return err
	}
	c.conn = conn
	for _, args := range [][]string{c.auth(), {"CLIENT", "SETNAME", o.Name}} {
		if len(args) == 0 || args[0] == "CLIENT" && o.Unnamed {
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
