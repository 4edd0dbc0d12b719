package zookeeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/fault"
)

// Options say what a simulated server is. The zero value is one on a port it picks, with a tree of its own.
type Options struct {
	Name  string      // for errors
	Addr  string      // where it listens; "127.0.0.1:0" if empty
	Tree  *Tree       // what it serves
	Clock clock.Clock // the real time if nil
	// MinTimeout and MaxTimeout bound what a client may ask for as its session's timeout; 4 s and 40 s if 0.
	MinTimeout, MaxTimeout time.Duration
	// Words are the four-letter words that it answers (4lw.commands.whitelist); srvr alone if nil, as by default in 3.8. It knows ruok, srvr
	// and stat.
	Words []string
}

// Server speaks the protocol of 3.8. While it is stopped the tree refuses everything, as a coordinator that is gone does.
type Server struct {
	opts  Options
	tree  *Tree
	clock clock.Clock

	mu        sync.Mutex
	addr      string
	life      *life
	thawed    chan struct{} // not nil while frozen; closed by the thaw
	sessions  map[int64]*session
	intercept Intercept
	log       []Request
}

// life is the time from a start to a stop.
type life struct {
	ctx   context.Context //nolint:containedctx // from Restart to Stop
	end   context.CancelCauseFunc
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*connection]bool
}

// session is a client over all of its connections.
type session struct {
	id       int64
	password [16]byte
	timeout  time.Duration
	conn     *connection // nil while there is none
	cancel   func() bool // stops the countdown that runs while there is none
}

// Request is one request of a client, without pings.
type Request struct {
	At   time.Time // the world's time
	Op   string    // create, delete, exists, getData, setData, getACL, setACL, getChildren, sync, check, multi, auth, setWatches, close
	Path string    // of the node; empty for multi and where there is none
}

// Intercept is asked about every request but pings before anything else looks at it; Refuse makes the client get an error. It may call the server,
// but Stop, Restart and Close wait for it, so it begins those on a goroutine of their own.
type Intercept func(op, path string) fault.Action

// Refuse answers this error, and does not carry the request out.
func Refuse(e Error) fault.Action { return fault.Fail(strconv.Itoa(int(e))) }

const keptRequests = 1 << 14

// Start makes a server and starts it.
func Start(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Clock == nil {
		o.Clock = clock.New(1)
	}
	if o.Tree == nil {
		o.Tree = NewTree(o.Clock)
	}
	if o.MinTimeout == 0 {
		o.MinTimeout = 4 * time.Second
	}
	if o.MaxTimeout == 0 {
		o.MaxTimeout = 40 * time.Second
	}
	if o.Words == nil {
		o.Words = []string{"srvr"}
	}
	s := &Server{opts: o, tree: o.Tree, clock: o.Clock, addr: o.Addr, sessions: map[int64]*session{}}
	if err := s.Restart(); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where the server really listens, also while it is stopped.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Tree is what it serves.
func (s *Server) Tree() *Tree { return s.tree }

// Alive says whether it runs.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life != nil
}

// Restart starts it again on the same port, with the same nodes. Sessions have their whole timeout again.
func (s *Server) Restart() error {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("zookeeper %s: %w", s.opts.Name, err)
	}
	s.addr = l.Addr().String()
	life := &life{l: l, conns: map[*connection]bool{}}
	life.ctx, life.end = context.WithCancelCause(context.Background())
	s.life = life
	s.tree.SetDown(false)
	for _, session := range s.sessions {
		s.countDown(session)
	}
	life.wg.Go(func() { s.accept(life) })
	return nil
}

// Stop ends the process as a kill does: the port closes and connections break. No session ends meanwhile.
func (s *Server) Stop() {
	s.mu.Lock()
	life := s.life
	if life == nil {
		s.mu.Unlock()
		return
	}
	s.life = nil
	s.tree.SetDown(true)
	for _, session := range s.sessions {
		if session.cancel != nil {
			session.cancel()
		}
	}
	s.mu.Unlock()
	life.end(errors.New("server stopped"))
	_ = life.l.Close()
	life.mu.Lock()
	for c := range life.conns {
		c.close()
	}
	life.mu.Unlock()
	life.wg.Wait()
}

// Close stops it for good. The tree stays as it is, and can be used without it.
func (s *Server) Close() {
	s.Stop()
	s.tree.SetDown(false)
}

// Freeze stops the process as SIGSTOP does: connections are accepted, nothing is answered.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed == nil {
		s.thawed = make(chan struct{})
	}
}

// Thaw lets it go on, with what has come in meanwhile.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed != nil {
		close(s.thawed)
		s.thawed = nil
	}
}

// Expire ends every session that a client has, as a server does that has not heard of them for too long.
func (s *Server) Expire() {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for _, session := range s.sessions {
		all = append(all, session)
	}
	s.mu.Unlock()
	for _, session := range all {
		s.finish(session)
	}
}

// Drop breaks every connection once; clients connect again within their sessions.
func (s *Server) Drop() {
	s.mu.Lock()
	life := s.life
	s.mu.Unlock()
	if life == nil {
		return
	}
	life.mu.Lock()
	defer life.mu.Unlock()
	for c := range life.conns {
		c.close()
	}
}

// SetIntercept installs f, or takes it away where f is nil.
func (s *Server) SetIntercept(f Intercept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Requests lists what clients asked for, in order. Of a very long run the oldest are forgotten.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Writes is Requests without those that only read: a test of a dry run asserts that it is empty.
func (s *Server) Writes() []Request {
	return slices.DeleteFunc(s.Requests(), func(r Request) bool {
		return !slices.Contains([]string{"create", "delete", "setData", "setACL", "multi"}, r.Op)
	})
}

func (s *Server) note(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) >= keptRequests {
		s.log = slices.Delete(s.log, 0, keptRequests/2)
	}
	s.log = append(s.log, r)
}

// pass waits while the server is frozen. It is false where it was stopped.
func (s *Server) pass(ctx context.Context) bool {
	for {
		s.mu.Lock()
		thawed := s.thawed
		s.mu.Unlock()
		if thawed == nil {
			return ctx.Err() == nil
		}
		select {
		case <-thawed:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *Server) accept(life *life) {
	for {
		nc, err := life.l.Accept()
		if err != nil {
			return
		}
		c := newConnection(s, life, nc)
		life.mu.Lock()
		if life.ctx.Err() != nil {
			life.mu.Unlock()
			_ = nc.Close()
			return
		}
		life.conns[c] = true
		life.wg.Go(c.serve)
		life.mu.Unlock()
	}
}

// open begins a session, or goes on with one; nil where there is none of that number and password any more.
func (s *Server) open(id int64, password []byte, timeout time.Duration, c *connection) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout = min(max(timeout, s.opts.MinTimeout), s.opts.MaxTimeout)
	if id == 0 {
		n := &session{id: s.tree.OpenSession(), timeout: timeout, conn: c}
		_, _ = rand.Read(n.password[:])
		s.sessions[n.id] = n
		return n
	}
	n := s.sessions[id]
	if n == nil || string(n.password[:]) != string(password) {
		return nil
	}
	if n.conn != nil {
		n.conn.close()
	}
	if n.cancel != nil {
		n.cancel()
	}
	n.timeout, n.conn, n.cancel = timeout, c, nil
	return n
}

// leave is the end of a connection: its session has its timeout to come back.
func (s *Server) leave(n *session, c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.conn != c {
		return
	}
	n.conn = nil
	if s.life != nil {
		s.countDown(n)
	}
}

// countDown ends a session when its timeout is over. The caller holds the lock.
func (s *Server) countDown(n *session) {
	if n.conn == nil {
		n.cancel = s.clock.AfterFunc(n.timeout, func() {
			s.mu.Lock()
			gone := n.conn == nil && s.life != nil
			s.mu.Unlock()
			if gone {
				s.finish(n)
			}
		})
	}
}

// finish ends a session: its ephemeral nodes go, and its connection.
func (s *Server) finish(n *session) {
	s.mu.Lock()
	c := n.conn
	n.conn = nil
	delete(s.sessions, n.id)
	if n.cancel != nil {
		n.cancel()
	}
	s.mu.Unlock()
	s.tree.CloseSession(n.id)
	if c != nil {
		c.close()
	}
}
