package pika

import (
	"context"
	"net"
	"slices"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/resp"
)

func (s *Server) accept(ctx context.Context, l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if ctx.Err() == nil {
			s.serve(ctx, nc)
		} else {
			_ = nc.Close()
		}
		s.mu.Unlock()
	}
}

// client is one connection. Its fields are behind the server's lock, but those that never change.
type client struct {
	*resp.Peer
	id    int64
	name  string
	since time.Time
	last  time.Time
	table int
	admin bool // may do everything
	user  bool // may do everything that is not on the blacklist
	quit  bool
}

// serve begins a client's life. The caller holds the lock.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	s.nextID++
	s.stats.connections++
	c := &client{Peer: resp.NewPeer(nc), id: s.nextID, since: s.clock.Now()}
	c.admin = s.config.get("requirepass") == "" && s.config.get("userpass") == ""
	c.user = s.config.get("userpass") == ""
	s.clients[c.id] = c
	s.wg.Go(func() {
		c.Serve(func(args []string) ([]byte, bool) { return s.request(ctx, c, args) })
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, c.id)
	})
}

// request is one request of a client, faults included: the bytes to answer, and whether the connection goes on.
func (s *Server) request(ctx context.Context, c *client, args []string) (reply []byte, keep bool) {
	s.mu.Lock()
	f := s.intercept
	if c.name != "" && slices.Contains(s.exempt, c.name) {
		f = nil
	}
	s.mu.Unlock()
	var act fault.Action
	if f != nil {
		act = f(slices.Clone(args))
	}
	return act.Around(ctx, s.clock, c.Gone, func() { s.logWrite(c, args) }, func() ([]byte, bool) {
		v, ok := s.carryOut(ctx, c, args)
		if !ok {
			return nil, false
		}
		return v.Append(nil, 2), !c.quit
	})
}

// carryOut runs a command, waiting as long as the server is frozen or its slots are being changed. ok is false where the
// server went away first.
func (s *Server) carryOut(ctx context.Context, c *client, args []string) (v resp.Value, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil {
		wait := s.frozen
		if wait == nil && s.adding != nil && s.touchesData(args) {
			wait = s.adding
		}
		if wait == nil {
			v, later := s.process(c, args)
			if later == nil {
				return v, true
			}
			return s.await(ctx, later)
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
	return resp.Value{}, false
}

// later is the rest of a command that takes time. It comes to its end also where the client does not wait for it.
type later struct {
	d      time.Duration
	finish func() resp.Value // with the lock
}

func (s *Server) await(ctx context.Context, l *later) (v resp.Value, ok bool) {
	done := make(chan struct{})
	s.after(l.d, func() {
		v, ok = l.finish(), true
		close(done)
	})
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-done:
	case <-ctx.Done():
		return resp.Value{}, false
	}
	return v, ok
}
