package codis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"runbook/internal/simulate/resp"
)

const (
	backendDialTimeout = 5 * time.Second
	backendRecvTimeout = 30 * time.Second
	backendPingPeriod  = 5 * time.Second
	quickRetries       = 10
	shortestBackoff    = 50 * time.Millisecond
	longestBackoff     = 5 * time.Second
	databases          = 16
)

var errConnReset = errors.New("backend conn reset")

// backends are the servers that slots use, by address. A server's connections last while some slot uses it.
type backends struct {
	p        *process
	opts     *ProxyOptions
	parallel int

	mu  sync.Mutex
	all map[string]*backend
}

func newBackends(p *process, o *ProxyOptions, parallel int) *backends {
	return &backends{p: p, opts: o, parallel: max(1, parallel), all: map[string]*backend{}}
}

// backend is one server. A nil one is none.
type backend struct {
	set  *backends
	addr string
	uses int
	next atomic.Uint32

	mu    sync.Mutex
	conns [databases][]*backendConn // opened for a database when it is first used
}

// retain gives the server with one use more, nil for no address.
func (s *backends) retain(addr string) *backend {
	if addr == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[addr]
	if b == nil {
		b = &backend{set: s, addr: addr}
		s.all[addr] = b
		b.open(0)
	}
	b.uses++
	return b
}

func (s *backends) get(addr string) *backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[addr]
}

// each calls f for every connection.
func (s *backends) each(f func(*backendConn)) {
	s.mu.Lock()
	var conns []*backendConn
	for _, b := range s.all {
		b.mu.Lock()
		for _, cs := range b.conns {
			conns = append(conns, cs...)
		}
		b.mu.Unlock()
	}
	s.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

func (b *backend) release() {
	if b == nil {
		return
	}
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	if b.uses--; b.uses > 0 {
		return
	}
	delete(b.set.all, b.addr)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, cs := range b.conns {
		for _, c := range cs {
			c.close()
		}
	}
}

func (b *backend) address() string {
	if b == nil {
		return ""
	}
	return b.addr
}

func (b *backend) open(db int) []*backendConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns[db] == nil {
		for range b.set.parallel {
			c := &backendConn{b: b, p: b.set.p, db: db, wake: make(chan struct{}, 1)}
			if !c.p.run(c.run) {
				c.closed = true
			}
			b.conns[db] = append(b.conns[db], c)
		}
	}
	return b.conns[db]
}

// conn gives a connection for a request, one that is up where there is one. Without must, nil where there is none.
func (b *backend) conn(q *request, must bool) *backendConn {
	if b == nil {
		return nil
	}
	conns := b.open(q.db)
	first := int(b.next.Add(1)) % len(conns)
	for i := range conns {
		if c := conns[(first+i)%len(conns)]; c.up.Load() {
			return c
		}
	}
	if must {
		return conns[0]
	}
	return nil
}

// ask sends a command of the proxy's own in the course of a client's request, and waits for the answer.
func (b *backend) ask(q *request, args ...string) (resp.Value, error) {
	own := &request{args: args, db: q.db, batch: &sync.WaitGroup{}, kind: mayWrite}
	b.conn(own, true).push(own)
	own.batch.Wait()
	return own.reply, own.err
}

// backendConn is one connection, with the requests of many clients one behind the other. It is made anew when it breaks, and only when
// the next request finds it broken.
type backendConn struct {
	b  *backend
	p  *process
	db int
	up atomic.Bool

	mu     sync.Mutex
	queue  []*request
	sent   []*request // whose answers are awaited, the oldest first
	since  time.Time  // since when the oldest is awaited, by the world's clock
	wake   chan struct{}
	closed bool
	live   net.Conn
	stale  bool // the server said that it is loading or without its master
}

// push queues a request. It is answered in any case.
func (c *backendConn) push(q *request) {
	q.batch.Add(1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		q.settle(resp.Value{}, errConnReset)
		return
	}
	c.queue = append(c.queue, q)
	c.mu.Unlock()
	c.signal()
}

func (c *backendConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *backendConn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
}

func (c *backendConn) run() {
	fails, pause := 0, time.Duration(0)
	for c.more() {
		err := c.round(func() { fails, pause = 0, 0 })
		c.reset()
		if err == nil {
			continue
		}
		if fails++; fails > quickRetries {
			pause = min(max(2*pause, shortestBackoff), longestBackoff)
			c.rest(pause)
		}
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.reset()
}

func (c *backendConn) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.p.ctx.Err() == nil && (!c.closed || len(c.queue) > 0)
}

// round is the life of one connection: until a request cannot be sent, or the server is not used any more.
func (c *backendConn) round(connected func()) error {
	conn, r, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	connected()
	c.up.Store(true)
	defer c.up.Store(false)
	c.mu.Lock()
	c.live = conn
	c.mu.Unlock()
	read := make(chan struct{})
	if !c.p.run(func() { defer close(read); c.readAnswers(conn, r) }) {
		return errEnded
	}
	stop := context.AfterFunc(c.p.ctx, func() { _ = conn.Close() })
	defer stop()
	err = c.writeRequests(conn)
	_ = conn.Close()
	<-read
	return err
}

func (c *backendConn) dial() (net.Conn, *bufio.Reader, error) {
	ctx, cancel := c.p.within(c.p.ctx, backendDialTimeout)
	defer cancel()
	conn, err := c.p.dial(ctx, "tcp", c.b.addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r := bufio.NewReaderSize(conn, 32<<10)
	var hello [][]string
	if auth := c.b.set.opts.ProductAuth; auth != "" {
		hello = append(hello, []string{"AUTH", auth})
	}
	if c.db != 0 {
		hello = append(hello, []string{"SELECT", strconv.Itoa(c.db)})
	}
	for _, cmd := range hello {
		_, err := conn.Write(resp.Command(cmd...))
		var v resp.Value
		if err == nil {
			v, err = resp.Read(r)
		}
		if err == nil {
			err = v.Error()
		}
		if err != nil {
			_ = conn.Close()
			return nil, nil, err
		}
	}
	return conn, r, nil
}

func (c *backendConn) writeRequests(conn net.Conn) error {
	var out []byte
	for {
		c.mu.Lock()
		batch, closed := c.queue, c.closed
		c.queue = nil
		c.mu.Unlock()
		if len(batch) == 0 {
			if closed {
				return nil
			}
			select {
			case <-c.wake:
			case <-c.p.ctx.Done():
				return errEnded
			}
			continue
		}
		if !c.p.gate.pass(c.p.ctx) {
			fail(batch, errConnReset)
			return errEnded
		}
		out = out[:0]
		send := batch[:0]
		for _, q := range batch {
			if q.kind != mayWrite && q.broken() {
				q.settle(resp.Value{}, errBrokenRequest)
				continue
			}
			send = append(send, q)
			out = append(out, resp.Command(q.args...)...)
		}
		if len(send) == 0 {
			continue
		}
		c.await(send)
		if _, err := conn.Write(out); err != nil {
			return err // what was sent is answered by the reader's end
		}
	}
}

func (c *backendConn) await(qs []*request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) == 0 {
		c.since = c.p.clock.Now()
	}
	c.sent = append(c.sent, qs...)
}

func (c *backendConn) readAnswers(conn net.Conn, r *bufio.Reader) {
	defer conn.Close()
	for {
		v, err := resp.Read(r)
		if err == nil && !c.p.gate.pass(c.p.ctx) {
			err = errEnded
		}
		c.mu.Lock()
		if len(c.sent) == 0 {
			c.mu.Unlock()
			if err != nil {
				return
			}
			continue
		}
		q := c.sent[0]
		c.sent = c.sent[1:]
		c.since = c.p.clock.Now()
		if v.Kind == resp.Err && (strings.HasPrefix(v.Str, "MASTERDOWN") || strings.HasPrefix(v.Str, "LOADING")) {
			c.stale = true
			c.up.Store(false)
		}
		c.mu.Unlock()
		if err != nil {
			q.settle(resp.Value{}, fmt.Errorf("backend conn failure, %w", err))
			return
		}
		q.settle(v, nil)
	}
}

// reset answers everything that is under way or queued.
func (c *backendConn) reset() {
	c.mu.Lock()
	lost := append(c.sent, c.queue...) //nolint:gocritic // both are given up
	c.sent, c.queue, c.live, c.stale = nil, nil, nil, false
	c.mu.Unlock()
	fail(lost, errConnReset)
}

func fail(qs []*request, err error) {
	for _, q := range qs {
		q.settle(resp.Value{}, err)
	}
}

// rest waits before the next try and answers what comes meanwhile.
func (c *backendConn) rest(d time.Duration) {
	ctx, cancel := context.WithCancel(c.p.ctx)
	defer cancel()
	stop := c.p.clock.AfterFunc(d, cancel)
	defer stop()
	for c.more() {
		select {
		case <-c.wake:
			c.reset()
		case <-ctx.Done():
			return
		}
	}
}

// check breaks the connection where the oldest answer has been awaited for too long.
func (c *backendConn) check(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live != nil && len(c.sent) > 0 && now.Sub(c.since) >= backendRecvTimeout {
		_ = c.live.SetReadDeadline(time.Unix(1, 0))
	}
}

// keepAlive asks whether the server is there, where nobody else does. One that was stale is up again when it says so.
func (c *backendConn) keepAlive() {
	c.mu.Lock()
	busy, stale := len(c.queue) > 0, c.stale
	c.mu.Unlock()
	if busy {
		return
	}
	if !stale {
		c.push(&request{args: []string{"PING"}, batch: &sync.WaitGroup{}, kind: mayWrite})
		return
	}
	c.p.run(func() {
		q := &request{args: []string{"INFO"}, batch: &sync.WaitGroup{}, kind: mayWrite}
		c.push(q)
		q.batch.Wait()
		info := fieldsOf(q.reply.Str)
		if q.err != nil || q.reply.Kind != resp.Bulk || info["master_link_status"] == "down" || info["loading"] == "1" {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stale && c.live != nil {
			c.stale = false
			c.up.Store(true)
		}
	})
}
