package codis

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"runbook/internal/simulate/resp"
)

// serverClient is a dashboard's connection to a Redis, a Pika or a sentinel.
type serverClient struct {
	*resp.Conn
	addr   string
	db     int
	broken bool
}

func (p *process) dialServer(ctx context.Context, addr, auth string) (*serverClient, error) {
	dial, cancel := p.within(ctx, dialTimeout)
	defer cancel()
	conn, err := resp.DialWith(dial, p.dial, addr)
	if err != nil {
		return nil, trace(err)
	}
	c := &serverClient{Conn: conn, addr: addr}
	if auth == "" {
		return c, nil
	}
	if _, err := c.do(ctx, "AUTH", auth); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *serverClient) close() { _ = c.Close() }

// do sends one command. An error reply is an error; after any other error the connection is of no more use.
func (c *serverClient) do(ctx context.Context, args ...string) (resp.Value, error) {
	v, err := c.Conn.Do(ctx, args...)
	return v, c.judge(err)
}

// pipeline sends all commands at once and reads all answers. The first error reply is the error.
func (c *serverClient) pipeline(ctx context.Context, cmds [][]string) ([]resp.Value, error) {
	var all []byte
	for _, cmd := range cmds {
		all = append(all, resp.Command(cmd...)...)
	}
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	if _, err := c.Write(all); err != nil {
		return nil, c.judge(err)
	}
	out := make([]resp.Value, len(cmds))
	var first error
	for i := range out {
		v, err := c.Receive()
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, c.judge(err)
		}
		if out[i] = v; first == nil {
			first = v.Error()
		}
	}
	return out, trace(first)
}

// judge gives an error the words that the real client has for it.
func (c *serverClient) judge(err error) error {
	var reply resp.ReplyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply):
		return trace(reply)
	}
	c.broken = true
	c.close()
	switch {
	case errors.Is(err, errTimeout):
		err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: errTimeout}
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.EOF
	}
	return trace(err)
}

func (c *serverClient) selectDB(ctx context.Context, db int) error {
	if c.db == db {
		return nil
	}
	if _, err := c.do(ctx, "SELECT", strconv.Itoa(db)); err != nil {
		c.broken = true
		return err
	}
	c.db = db
	return nil
}

// nextDB is the lowest database above db that has keys; -1 where there is none. Lines of INFO that are not dbN: are passed over.
func (c *serverClient) nextDB(ctx context.Context, db int) (int, error) {
	v, err := c.do(ctx, "INFO", "keyspace")
	if err != nil {
		return -1, err
	}
	next := -1
	for key := range fieldsOf(v.String()) {
		name, isDB := strings.CutPrefix(key, "db")
		if !isDB {
			continue
		}
		n, err := strconv.Atoi(name)
		if err != nil {
			return -1, trace(err)
		}
		if n > db && (next == -1 || n < next) {
			next = n
		}
	}
	return next, nil
}

// infoFull is INFO, the master's address and maxmemory.
func (c *serverClient) infoFull(ctx context.Context) (map[string]string, error) {
	v, err := c.do(ctx, "INFO")
	if err != nil {
		return nil, err
	}
	info := fieldsOf(v.String())
	if host, port := info["master_host"], info["master_port"]; host != "" || port != "" {
		info["master_addr"] = net.JoinHostPort(host, port)
	}
	v, err = c.do(ctx, "CONFIG", "GET", "maxmemory")
	if err != nil {
		return nil, err
	}
	if len(v.Items) != 2 {
		return nil, tracef("invalid response = %s", v)
	}
	n, err := strconv.Atoi(v.Items[1].String())
	if err != nil {
		return nil, tracef("invalid response = %s", v)
	}
	info["maxmemory"] = strconv.Itoa(n)
	return info, nil
}

func fieldsOf(info string) map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(info, "\n") {
		key, value, ok := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); ok && key != "" {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}

// pool keeps connections to servers between uses.
type pool struct {
	p    *process
	auth string

	mu     sync.Mutex
	idle   map[string][]*serverClient
	closed bool
}

func newPool(p *process, auth string) *pool {
	return &pool{p: p, auth: auth, idle: map[string][]*serverClient{}}
}

func (l *pool) get(ctx context.Context, addr string) (*serverClient, error) {
	l.mu.Lock()
	if free := l.idle[addr]; len(free) > 0 {
		c := free[len(free)-1]
		l.idle[addr] = free[:len(free)-1]
		l.mu.Unlock()
		return c, nil
	}
	l.mu.Unlock()
	return l.p.dialServer(ctx, addr, l.auth)
}

func (l *pool) put(c *serverClient, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || c.broken || l.closed {
		c.close()
		return
	}
	l.idle[c.addr] = append(l.idle[c.addr], c)
}

func (l *pool) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, free := range l.idle {
		for _, c := range free {
			c.close()
		}
	}
	l.idle = nil
}

func splitAddr(addr string) (host, port string, err error) { return net.SplitHostPort(addr) }

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}
