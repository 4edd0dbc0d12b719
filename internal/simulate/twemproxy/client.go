package twemproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"runbook/internal/simulate/resp"
)

// maxKey is the length at which a key no longer fits into nutcracker's buffer (mbuf-size 16384).
const maxKey = 16336

// client is one client's connection, with connections of its own to the servers.
type client struct {
	s       *Server
	p       *pool
	r       *bufio.Reader
	conns   map[*server]*resp.Conn
	allowed bool // it has given the password, or needs none
}

func (s *Server) serve(p *pool, conn net.Conn) {
	c := &client{s: s, p: p, r: bufio.NewReaderSize(conn, 64<<10), conns: map[*server]*resp.Conn{}, allowed: p.RedisAuth == ""}
	p.count(&p.clients, 1)
	defer p.count(&p.clients, -1)
	defer func() {
		for b := range c.conns {
			c.drop(b)
		}
	}()
	for {
		requests, good := c.read()
		var out []byte
		for _, args := range requests {
			v, last := c.answer(args)
			if !v.IsZero() {
				out = v.Append(out, 2)
			}
			if last {
				_, _ = conn.Write(out)
				return
			}
		}
		if !good { // what was carried out before it is not answered
			return
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func (p *pool) count(what *int, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*what += n
}

// read gives the requests that have arrived; good is false where the connection ends, or one is not taken.
func (c *client) read() (requests [][]string, good bool) {
	for {
		head, err := c.r.Peek(2)
		if err != nil {
			c.p.count(&c.p.eof, 1)
			return requests, false
		}
		if head[0] != '*' || head[1] < '1' || head[1] > '9' { // it takes no inline commands
			c.p.count(&c.p.bad, 1)
			return requests, false
		}
		args, err := resp.ReadCommand(c.r)
		if err != nil || !c.takes(args) {
			c.p.count(&c.p.bad, 1)
			return requests, false
		}
		if requests = append(requests, args); c.r.Buffered() == 0 {
			return requests, true
		}
	}
}

func (c *client) takes(args []string) bool {
	name := strings.ToLower(args[0])
	if name == "auth" {
		return len(args) == 2
	}
	shape, ok := c.s.known[name]
	if !ok || !shape.takes(args) {
		return false
	}
	for i := 1 + shape.key; shape.key >= 0 && i < len(args); i += max(shape.step, 1) {
		if len(args[i]) >= maxKey {
			return false
		}
		if shape.step == 0 {
			break
		}
	}
	return true
}

// answer carries one request out; last: the connection ends with its answer.
func (c *client) answer(args []string) (v resp.Value, last bool) {
	name := strings.ToLower(args[0])
	shape := c.s.known[name]
	switch {
	case name == "quit":
		return v, true
	case name == "auth":
		return c.login(args[1]), false
	case !c.allowed:
		return resp.Errorf("NOAUTH Authentication required"), false
	case name == "ping":
		return resp.Simple("PONG"), false
	case shape.step > 0:
		return c.split(name, args[1:], shape.step)
	}
	key := ""
	if shape.key >= 0 {
		key = args[1+shape.key]
	}
	v, err := c.forward(key, args)
	if err != nil {
		return resp.Errorf("ERR %v", err), false
	}
	return v, false
}

func (c *client) login(password string) resp.Value {
	if c.p.RedisAuth == "" {
		return resp.Errorf("ERR Client sent AUTH, but no password is set")
	}
	if c.allowed = password == c.p.RedisAuth; !c.allowed {
		return resp.Errorf("ERR invalid password")
	}
	return resp.OK()
}

// split sends a request's keys to the servers that have them and joins the answers.
func (c *client) split(name string, args []string, step int) (v resp.Value, last bool) {
	parts, order := map[*server][]string{}, []*server(nil)
	where := make([]*server, 0, len(args)/step)
	for i := 0; i < len(args); i += step {
		b := c.p.route(args[i], c.s.o.Clock.Now())
		if b == nil {
			return resp.Errorf("ERR %v", errRefused), name == "mget"
		}
		if parts[b] == nil {
			order = append(order, b)
		}
		parts[b] = append(parts[b], args[i:i+step]...)
		where = append(where, b)
	}
	answers := map[*server][]resp.Value{}
	var sum int64
	var failed error
	for _, b := range order {
		got, err := c.send(b, append([]string{name}, parts[b]...))
		switch {
		case err != nil:
			failed = err
		case got.Kind == resp.Err, name == "mget" && got.Kind != resp.Array:
			if failed == nil {
				failed = errInvalid
			}
		}
		answers[b] = got.Items
		sum += got.Int
	}
	switch {
	case failed != nil:
		return resp.Errorf("ERR %v", failed), name == "mget" && !errors.Is(failed, errInvalid)
	case name == "mset":
		return resp.OK(), false
	case name != "mget":
		return resp.Number(sum), false
	}
	v = resp.List()
	for _, b := range where {
		v.Items = append(v.Items, answers[b][0])
		answers[b] = answers[b][1:]
	}
	return v, false
}

func (c *client) forward(key string, args []string) (resp.Value, error) {
	b := c.p.route(key, c.s.o.Clock.Now())
	if b == nil {
		return resp.Value{}, errRefused
	}
	return c.send(b, args)
}

// What a client is told of a server that does not answer: the words of the operating system.
var (
	errRefused  = errors.New("Connection refused")
	errTimedOut = errors.New("Connection timed out")
	errReset    = errors.New("Connection reset by peer")
	errEOF      = errors.New("unknown") // the server has closed the connection in good order
	errInvalid  = errors.New("Invalid argument")
)

func (c *client) send(b *server, args []string) (v resp.Value, err error) {
	ctx := c.s.ctx
	if c.p.Timeout > 0 {
		limited, cancel := context.WithCancelCause(ctx)
		stop := c.s.o.Clock.AfterFunc(c.p.Timeout, func() { cancel(errTimedOut) })
		defer stop()
		defer cancel(nil)
		ctx = limited
	}
	defer func() {
		if err != nil {
			err = reason(ctx, err)
			c.drop(b)
		}
		c.p.ended(b, err, c.s.o.Clock.Now())
	}()
	conn, err := c.connect(ctx, b)
	if err != nil {
		return v, err
	}
	v, err = conn.Do(ctx, args...)
	var refused resp.ReplyError
	if errors.As(err, &refused) {
		v, err = resp.Errorf("%s", string(refused)), nil
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	b.requests++
	b.reqBytes += len(resp.Command(args...))
	if err == nil {
		b.responses++
		b.respBytes += len(v.Append(nil, 2))
	}
	return v, err
}

// reason puts what went wrong with a server into the words that a client is told.
func reason(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errTimedOut):
		return errTimedOut
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, new(*dialError)):
		return errRefused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errEOF
	}
	return errReset
}

type dialError struct{ error }

func (c *client) connect(ctx context.Context, b *server) (*resp.Conn, error) {
	if conn := c.conns[b]; conn != nil {
		return conn, nil
	}
	raw, err := c.s.o.Dial(ctx, "tcp", b.Addr)
	if err != nil {
		return nil, &dialError{fmt.Errorf("connect to %s: %w", b.Addr, err)}
	}
	conn := resp.NewConn(raw)
	if c.p.RedisAuth != "" {
		if _, err := conn.Do(ctx, "AUTH", c.p.RedisAuth); err != nil && !errors.As(err, new(resp.ReplyError)) {
			_ = conn.Close()
			return nil, err
		}
	}
	c.conns[b] = conn
	c.p.count(&b.conns, 1)
	return conn, nil
}

func (c *client) drop(b *server) {
	if conn := c.conns[b]; conn != nil {
		_ = conn.Close()
		delete(c.conns, b)
		c.p.count(&b.conns, -1)
	}
}
