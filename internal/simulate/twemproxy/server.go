// Package twemproxy is a stand-in for nutcracker 0.5.0 (twemproxy): a proxy that sends each key's requests to one of its
// servers. Start reading at Start (server.go); what a configuration means is in config.go, which commands it takes in
// commands.go, a request's way in client.go, the command line it is started with in arguments.go.
//
// A test table holds it to the real nutcracker, answer by answer. What decides how a slot is moved behind it:
//
//   - It reads its configuration when it starts and never again; SIGHUP opens the log file anew and nothing else.
//   - Servers are ordered by name (shorter names first, then by their bytes), not by their place in the file, and each
//     counts as often as its weight says: `modula` picks from that list by hash % length.
//   - An empty hash tag ("a{}b") hashes the whole key, where Codis and Pika hash the empty text.
//   - A server that does not answer is "-ERR Connection refused", "-ERR Connection timed out", "-ERR Connection reset by peer" or
//     "-ERR unknown" (it hung up) to the client; an MGET with such a part ends the client's connection as well. With auto_eject_hosts the keys of
//     a server that failed go to others for a while, and are written there.
//   - A command that it does not know closes the connection without an answer, also to what came before in the same packet.
//   - `nutcracker -d` ends with 0 before it has bound its ports; -t looks at the file alone, never at ports or names.
//
// What is not simulated: memcached, hashes other than crc32a, distributions other than modula, sockets, redis_db.
package twemproxy

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
)

// Options say what to start.
type Options struct {
	Config string // the text of its file
	// StatsAddr is where it tells its statistics, host:port; empty: nowhere.
	StatsAddr string
	// Listen opens an address that the configuration names; plain TCP where it is nil.
	Listen func(addr string) (net.Listener, error)
	// Dial connects to a server that the configuration names; plain TCP where it is nil.
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	Clock clock.Clock
}

// Server is one running nutcracker.
type Server struct {
	o         Options
	pools     []*pool
	listeners []net.Listener
	known     map[string]shape
	started   time.Time
	ctx       context.Context
	stop      context.CancelFunc
	wg        sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	accepted int
	closed   bool
}

// pool is a Pool at work.
type pool struct {
	Pool
	addr string // where it really listens

	mu      sync.Mutex
	servers []*server // in the order of names
	ejects  int
	clients int // connections now
	eof     int // that clients closed
	bad     int // that were closed for a request it does not take
	failed  int // requests that no server answered
}

// server is a Backend and what happened to it.
type server struct {
	Backend
	failures  int // in a row
	ejectedAt time.Time
	conns     int
	eof, err  int
	timedOut  int
	requests  int
	reqBytes  int
	responses int
	respBytes int
}

// Start starts a proxy. The error of a port that is taken is in nutcracker's words.
func Start(o Options) (*Server, error) {
	if o.Clock == nil {
		o.Clock = clock.New(1)
	}
	if o.Listen == nil {
		o.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	pools, err := Parse(o.Config)
	if err != nil {
		return nil, fmt.Errorf("nutcracker: configuration syntax is invalid: %w", err)
	}
	s := &Server{o: o, known: commands(), started: o.Clock.Now(), conns: map[net.Conn]bool{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, p := range pools {
		if !p.Redis || p.Hash != "crc32a" || p.Distribution != "modula" {
			return nil, fmt.Errorf("nutcracker: pool %s: only redis with hash crc32a and distribution modula is simulated", p.Name)
		}
		work := &pool{Pool: p}
		for _, b := range p.Servers {
			work.servers = append(work.servers, &server{Backend: b})
		}
		s.pools = append(s.pools, work)
	}
	if o.StatsAddr != "" {
		if _, err := s.open(o.StatsAddr, s.tell); err != nil {
			return nil, s.fail("stats server", o.StatsAddr, err)
		}
	}
	for _, p := range s.pools {
		if p.addr, err = s.open(p.Listen, func(c net.Conn) { s.serve(p, c) }); err != nil {
			return nil, s.fail("proxy", p.Listen, err)
		}
	}
	return s, nil
}

func (s *Server) fail(what, addr string, err error) error {
	s.Close()
	return fmt.Errorf("nutcracker: bind to %s addr '%s' failed: %w", what, addr, err)
}

func (s *Server) open(addr string, serve func(net.Conn)) (actual string, err error) {
	l, err := s.o.Listen(addr)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.closed {
				s.mu.Unlock()
				_ = c.Close()
				return
			}
			s.conns[c] = true
			s.accepted++
			s.wg.Go(func() {
				serve(c)
				_ = c.Close()
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.conns, c)
			})
			s.mu.Unlock()
		}
	})
	return l.Addr().String(), nil
}

// Close ends the proxy as a signal does: at once, whatever is under way.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
}

// Signal does what a signal (its name without SIG) does: most end the proxy at once, those that are about its log do nothing here.
func (s *Server) Signal(name string) {
	switch name {
	case "HUP", "USR1", "USR2", "TTIN", "TTOU", "PIPE", "CONT":
	default:
		s.Close()
	}
}

// Alive tells whether it has not been closed.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed
}

// Pools are the pools of its configuration, as they were when it started.
func (s *Server) Pools() []Pool {
	all := make([]Pool, len(s.pools))
	for i, p := range s.pools {
		all[i] = p.Pool
	}
	return all
}

// Addr is where a pool really listens; the empty name is the first pool's. It is empty where there is no such pool.
func (s *Server) Addr(name string) string {
	for _, p := range s.pools {
		if name == "" || p.Name == name {
			return p.addr
		}
	}
	return ""
}

// Route gives the address of the server that a key's requests go to now; for telling what clients would meet.
func (s *Server) Route(name, key string) string {
	for _, p := range s.pools {
		if name == "" || p.Name == name {
			if b := p.route(key, s.o.Clock.Now()); b != nil {
				return b.Addr
			}
		}
	}
	return ""
}

// route picks the server of a key; nil where all are ejected.
func (p *pool) route(key string, now time.Time) *server {
	p.mu.Lock()
	defer p.mu.Unlock()
	var points []*server
	for _, b := range p.servers {
		if !p.AutoEject || b.ejectedAt.IsZero() || now.Sub(b.ejectedAt) >= p.RetryAfter {
			points = append(points, slices.Repeat([]*server{b}, b.Weight)...)
		}
	}
	if len(points) == 0 {
		return nil
	}
	return points[int(crc32.ChecksumIEEE([]byte(p.tagged(key)))%uint32(len(points)))]
}

// ended notes how a request to a server ended, and ejects one that fails too often.
func (p *pool) ended(b *server, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		b.failures, b.ejectedAt = 0, time.Time{}
		return
	}
	p.failed++
	switch {
	case errors.Is(err, errTimedOut):
		b.timedOut++
	case errors.Is(err, errReset), errors.Is(err, errEOF):
		b.eof++
	default:
		b.err++
	}
	if b.failures++; p.AutoEject && b.failures >= p.FailureLimit {
		b.failures, b.ejectedAt = 0, now
		p.ejects++
	}
}
