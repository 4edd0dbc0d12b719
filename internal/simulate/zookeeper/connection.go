package zookeeper

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/resp"
)

// connection is one connection of a client. Requests are answered in their order; events come in between.
type connection struct {
	s    *Server
	life *life
	nc   net.Conn
	ids  []ID
	once sync.Once
	gone chan struct{}

	mu   sync.Mutex
	out  []byte
	wake chan struct{}

	writing sync.Mutex // one at a time takes from out and writes
}

func newConnection(s *Server, l *life, nc net.Conn) *connection {
	host, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
	return &connection{s: s, life: l, nc: nc, ids: []ID{{"ip", host}}, gone: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (c *connection) close() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.nc.Close()
	})
}

func (c *connection) serve() {
	defer func() {
		c.s.tree.forget(c)
		c.life.mu.Lock()
		delete(c.life.conns, c)
		c.life.mu.Unlock()
		c.close()
	}()
	r := bufio.NewReader(c.nc)
	frame, word, err := readFrame(r)
	if err != nil || !c.s.pass(c.life.ctx) {
		return
	}
	if word != "" {
		_, _ = c.nc.Write([]byte(c.s.word(word, c)))
		return
	}
	n, answer := c.greet(frame)
	if _, err := c.nc.Write(answer); err != nil || n == nil {
		return
	}
	defer c.s.leave(n, c)
	var writer sync.WaitGroup
	writer.Go(c.write)
	defer writer.Wait()
	defer func() {
		_ = c.flush() // the last answer
		c.close()
	}()
	for {
		// A client that is connected and silent is measured by the real time, for its pings are.
		_ = c.nc.SetReadDeadline(time.Now().Add(n.timeout))
		frame, word, err := readFrame(r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.s.finish(n)
		}
		if err != nil || word != "" || !c.s.pass(c.life.ctx) || !c.request(n, &decoder{b: frame}) {
			return
		}
	}
}

// greet answers the first frame. The session is nil where there is none to go on with.
func (c *connection) greet(frame []byte) (*session, []byte) {
	d := &decoder{b: frame}
	_ = d.int32() // the version of the protocol, always 0
	seen := d.int64()
	timeout := time.Duration(d.int32()) * time.Millisecond
	id, password := d.int64(), d.buffer()
	knowsReadOnly := len(d.b) > 0
	if d.bad || seen > c.s.tree.lastZxid() {
		return nil, nil // a client from another world
	}
	n := c.s.open(id, password, timeout, c)
	var e encoder
	e.int32(0)
	if n == nil {
		e.int32(0)
		e.int64(0)
		e.buffer(make([]byte, 16))
	} else {
		e.int32(int32(n.timeout.Milliseconds()))
		e.int64(n.id)
		e.buffer(n.password[:])
	}
	if knowsReadOnly {
		e.bool(false)
	}
	return n, e.framed()
}

// request carries out one, faults included. It is false where the connection ends.
func (c *connection) request(n *session, d *decoder) bool {
	xid, op := d.int32(), opcode(d.int32())
	if d.bad {
		return false
	}
	do := func() ([]byte, bool) {
		e, keep := c.carryOut(n, xid, op, d)
		return e.framed(), keep
	}
	if op == opPing {
		reply, _ := do()
		c.send(reply)
		return true
	}
	path := pathOf(op, *d)
	c.s.mu.Lock()
	f := c.s.intercept
	c.s.mu.Unlock()
	if f == nil {
		c.s.note(Request{c.s.clock.Now(), op.String(), path})
		reply, keep := do()
		c.send(reply)
		return keep
	}
	done := false
	reply, keep := f(op.String(), path).Around(c.life.ctx, c.s.clock, c.gone,
		func() { c.s.note(Request{c.s.clock.Now(), op.String(), path}) },
		func() ([]byte, bool) {
			done = true
			return do()
		})
	if keep && !done { // refused
		v, _ := resp.Read(bufio.NewReader(bytes.NewReader(reply)))
		code, _ := strconv.Atoi(v.Str)
		var e encoder
		e.header(xid, c.s.tree.lastZxid(), Error(code))
		reply = e.framed()
	}
	c.send(reply)
	return keep
}

// pathOf looks into a request for the node it is about. It gets a copy of the decoder.
func pathOf(op opcode, d decoder) string {
	switch op {
	case opMulti, opAuth, opSetWatches, opClose:
		return ""
	}
	return d.string()
}

// carryOut answers one request. keep is false after the last of a session.
func (c *connection) carryOut(n *session, xid int32, op opcode, d *decoder) (answer encoder, keep bool) {
	var body encoder
	err := c.perform(n, op, d, &body)
	var code Error
	if err != nil && !errors.As(err, &code) {
		code = ErrMarshalling
	}
	if code != 0 {
		body = nil
	}
	answer.header(xid, c.s.tree.lastZxid(), code)
	return append(answer, body...), op != opClose && code != ErrAuthFailed && code != ErrMarshalling
}

func (c *connection) perform(n *session, op opcode, d *decoder, e *encoder) error {
	switch op {
	case opPing:
		return nil
	case opClose:
		c.s.mu.Lock()
		n.conn = nil // this connection answers before it ends
		c.s.mu.Unlock()
		c.s.finish(n)
		return nil
	case opAuth:
		return c.authenticate(d)
	case opSync:
		path := d.string()
		e.string(path)
		return bad(d)
	case opSetWatches:
		c.setWatches(d)
		return bad(d)
	case opExists, opGetData, opGetACL, opGetChildren, opGetChildren2:
		return c.look(op, d, e)
	case opMulti:
		return c.multi(n, d, e)
	case opCreate, opCreate2, opDelete, opSetData, opSetACL:
		return c.s.tree.write(c.ids, func(x *txn) error { return x.apply(op, n, d, e) })
	}
	return ErrUnimplemented
}

func bad(d *decoder) error {
	if d.bad {
		return ErrMarshalling
	}
	return nil
}

func (c *connection) authenticate(d *decoder) error {
	_ = d.int32()
	scheme, auth := d.string(), d.buffer()
	if scheme != "digest" || !strings.Contains(string(auth), ":") {
		return ErrAuthFailed
	}
	if id := digest(string(auth)); !slices.Contains(c.ids, id) {
		c.ids = append(slices.Clone(c.ids), id)
	}
	return bad(d)
}

// look answers what only reads, and sets the watch that it asks for.
func (c *connection) look(op opcode, d *decoder, e *encoder) error {
	path := d.string()
	watch := op != opGetACL && d.bool()
	if d.bad {
		return ErrMarshalling
	}
	t := c.s.tree
	n, err := t.read(path, func(n *node) error {
		switch {
		case n == nil && op != opExists:
			return ErrNoNode
		case op == opGetACL && !allowed(n, c.ids, PermRead|PermAdmin):
			return ErrNoAuth
		case (op == opGetData || op == opGetChildren || op == opGetChildren2) && !allowed(n, c.ids, PermRead):
			return ErrNoAuth
		}
		if watch && (op == opGetChildren || op == opGetChildren2) {
			set(t.watches.child, path, c)
		} else if watch {
			set(t.watches.data, path, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch op {
	case opExists:
		e.stat(n.stat)
	case opGetData:
		e.buffer(n.data)
		e.stat(n.stat)
	case opGetACL:
		e.acl(n.acl)
		e.stat(n.stat)
	case opGetChildren:
		e.strings(n.children)
	case opGetChildren2:
		e.strings(n.children)
		e.stat(n.stat)
	}
	return nil
}

// apply carries out what writes, also as a part of a multi.
func (x *txn) apply(op opcode, n *session, d *decoder, e *encoder) error {
	path := d.string()
	switch op {
	case opCreate, opCreate2:
		data, acl, flags := d.buffer(), d.acl(), d.int32()
		if d.bad {
			return ErrMarshalling
		}
		if flags < 0 || flags > 3 { // containers and nodes with a time to live
			return ErrUnimplemented
		}
		o := CreateOptions{ACL: acl, Sequential: flags&2 != 0}
		if flags&1 != 0 {
			o.Owner = n.id
		}
		made, err := x.create(path, data, o)
		if err != nil {
			return err
		}
		e.string(made)
		if op == opCreate2 {
			e.stat(x.nodes[made].shown())
		}
		return nil
	case opDelete:
		version := d.int32()
		if d.bad {
			return ErrMarshalling
		}
		return x.delete(path, version)
	case opCheck:
		version := d.int32()
		if d.bad {
			return ErrMarshalling
		}
		return x.checkVersion(path, version)
	case opSetData:
		data, version := d.buffer(), d.int32()
		if d.bad {
			return ErrMarshalling
		}
		s, err := x.set(path, data, version)
		if err == nil {
			e.stat(s)
		}
		return err
	case opSetACL:
		acl, version := d.acl(), d.int32()
		if d.bad {
			return ErrMarshalling
		}
		s, err := x.setACL(path, acl, version)
		if err == nil {
			e.stat(s)
		}
		return err
	}
	return ErrUnimplemented
}

// multi is all or nothing. The answer to one that failed tells which part it was.
func (c *connection) multi(n *session, d *decoder, e *encoder) error {
	var ops []opcode
	failedAt, failure := -1, Error(0)
	var results encoder
	err := c.s.tree.write(c.ids, func(x *txn) error {
		for !d.bad {
			op, over := opcode(d.int32()), d.bool()
			_ = d.int32()
			if over {
				break
			}
			ops = append(ops, op)
			if failedAt >= 0 {
				skip(op, d)
				continue
			}
			results.int32(int32(op))
			results.bool(false)
			results.int32(0)
			if err := x.apply(op, n, d, &results); err != nil {
				failedAt = len(ops) - 1
				errors.As(err, &failure)
			}
		}
		if d.bad {
			return ErrMarshalling
		}
		if failedAt >= 0 {
			return failure
		}
		return nil
	})
	if d.bad || failedAt < 0 && err != nil {
		return err
	}
	if failedAt >= 0 {
		results = nil
		for i := range ops {
			const later Error = -2 // never tried
			code := map[bool]Error{true: later}[i > failedAt]
			if i == failedAt {
				code = failure
			}
			results.int32(int32(opError))
			results.bool(false)
			results.int32(int32(code))
			results.int32(int32(code))
		}
	}
	*e = append(*e, results...)
	e.int32(int32(opError))
	e.bool(true)
	e.int32(-1)
	return nil
}

// skip reads over a part of a multi.
func skip(op opcode, d *decoder) {
	_ = d.string()
	switch op {
	case opCreate, opCreate2:
		_, _, _ = d.buffer(), d.acl(), d.int32()
	case opSetData:
		_, _ = d.buffer(), d.int32()
	default:
		_ = d.int32()
	}
}

// setWatches is what a client sends after it has connected again: what it missed it is told, the rest is watched.
func (c *connection) setWatches(d *decoder) {
	since := d.int64()
	data, exist, child := d.strings(), d.strings(), d.strings()
	t := c.s.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range data {
		switch n := t.nodes[p]; {
		case n == nil:
			c.tell(event{nodeDeleted, p})
		case n.stat.Mzxid > since:
			c.tell(event{nodeDataChanged, p})
		default:
			set(t.watches.data, p, c)
		}
	}
	for _, p := range exist {
		if t.nodes[p] != nil {
			c.tell(event{nodeCreated, p})
		} else {
			set(t.watches.data, p, c)
		}
	}
	for _, p := range child {
		switch n := t.nodes[p]; {
		case n == nil:
			c.tell(event{nodeDeleted, p})
		case n.stat.Pzxid > since:
			c.tell(event{nodeChildrenChanged, p})
		default:
			set(t.watches.child, p, c)
		}
	}
}

// tell sends an event, before any answer that comes later.
func (c *connection) tell(ev event) {
	const connected = 3 // the state that every event carries
	var e encoder
	e.header(xidEvent, -1, 0)
	e.int32(int32(ev.kind))
	e.int32(connected)
	e.string(ev.path)
	c.send(e.framed())
}

func (c *connection) send(b []byte) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *connection) write() {
	for {
		select {
		case <-c.wake:
		case <-c.gone:
			return
		}
		if c.flush() != nil {
			c.close()
			return
		}
	}
}

func (c *connection) flush() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	b := c.out
	c.out = nil
	c.mu.Unlock()
	_, err := c.nc.Write(b)
	return err
}

// forget drops the watches of a connection.
func (t *Tree) forget(c *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watches.forget(c)
}
