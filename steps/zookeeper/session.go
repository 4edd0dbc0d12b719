package zookeeper

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/schema"
	"runbook/steps"
)

// call runs one exchange of the library, which knows no context: at the context's end, or that of the request's own
// time, the session is dropped with it. A request that nobody waits for any more must not go out later, and the
// library cannot take one back.
func (c *Client) call(ctx context.Context, req request, do func(*session) error) error {
	if req.write && c.access == steps.ReadOnly {
		return refuse(req)
	}
	if ctx.Err() != nil {
		return ended(ctx, req, false)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, noAnswer{c.cfg.Timeout})
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, err := c.session(req)
		if err != nil {
			return err
		}
		before := s.ups()
		done := make(chan error, 1)
		go func() {
			defer c.work.Done()
			err := s.login(c.cfg.Auth)
			if err == nil {
				err = do(s)
			}
			done <- err
		}()
		select {
		case err = <-done:
		case <-ctx.Done():
			c.drop(s)
			return ended(ctx, req, s.reached(before))
		}
		if !errors.Is(err, zk.ErrConnectionClosed) || req.write || attempt == readAttempts {
			return judge(req, err, s.reached(before), s.dialError())
		}
	}
}

// readAttempts is how often a read is sent whose connection breaks under it: reading twice is reading once.
const readAttempts = 3

// session gives the session there is, or a new one, and counts the caller as work that Close waits for.
func (c *Client) session(req request) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, steps.Errorf("closed", "%s: the client is closed", req)
	}
	if c.now == nil {
		s, err := begin(c.cfg)
		if err != nil {
			return nil, steps.Errorf("address", "%s: %w", req, err)
		}
		c.now = s
	}
	c.work.Add(1)
	return c.now, nil
}

// drop ends a session in the background: the library takes its time when the server is silent.
func (c *Client) drop(s *session) {
	c.mu.Lock()
	if c.now == s {
		c.now = nil
	}
	c.work.Add(1)
	c.mu.Unlock()
	s.cut()
	go func() {
		defer c.work.Done()
		s.end()
	}()
}

// session is one client of the library, and what it does not tell by itself: whether the server was reached, and why not.
type session struct {
	conn   *zk.Conn
	events <-chan zk.Event
	stop   context.CancelFunc // ends a dial

	logins sync.Mutex // one at a time
	logged bool

	expired chan struct{} // closed when a server has said that the session is over

	mu      sync.Mutex
	wire    net.Conn // the connection under it
	over    bool
	up      bool          // a server has accepted the session
	upped   int           // how often one did
	failed  error         // the last dial's
	granted time.Duration // how long the servers keep the session of a client they do not hear, as they said last
}

func begin(cfg Config) (*session, error) {
	life, stop := context.WithCancel(context.Background())
	s := &session{stop: stop, expired: make(chan struct{})}
	addrs := make([]string, len(cfg.Addrs))
	for i, a := range cfg.Addrs {
		addrs[i] = string(a)
	}
	dial := func(network, addr string, _ time.Duration) (net.Conn, error) {
		d := net.Dialer{Timeout: cfg.Timeout}
		conn, err := d.DialContext(life, network, addr)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failed = err; err != nil {
			return nil, err
		}
		if s.over {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		s.wire = conn
		return &greeted{Conn: conn, told: s.grant}, nil
	}
	var err error
	s.conn, s.events, err = zk.Connect(addrs, cfg.Session,
		zk.WithDialer(dial), zk.WithHostProvider(&servers{}), zk.WithEventCallback(s.event), zk.WithLogger(silence{}), zk.WithLogInfo(false))
	if err != nil {
		stop()
		return nil, err
	}
	return s, nil
}

// silence: what the library says is in the errors of its calls too.
type silence struct{}

func (silence) Printf(string, ...any) {}

// event is called by the library; its event channel drops what does not fit.
func (s *session) event(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.State {
	case zk.StateHasSession:
		s.up = true
		s.upped++
	case zk.StateDisconnected:
		s.up = false
	case zk.StateExpired: // the library goes on with another one
		s.up = false
		select {
		case <-s.expired:
		default:
			close(s.expired)
		}
	}
}

func (s *session) grant(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted = d
}

// term is how long the servers keep the session of a client they do not hear. They hold what a client asks for to
// limits of their own, and the library does not tell.
func (s *session) term() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.granted
}

// greeted reads along in a connection's first message, the server's answer to the login: its length, the version of the
// protocol and the session's timeout in milliseconds, 4 bytes each.
type greeted struct {
	net.Conn
	seen []byte
	told func(time.Duration)
}

func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if missing := 12 - len(g.seen); missing > 0 && n > 0 {
		g.seen = append(g.seen, b[:min(n, missing)]...)
		if len(g.seen) == 12 {
			if ms := int32(binary.BigEndian.Uint32(g.seen[8:])); ms > 0 { // not positive: the session is refused
				g.told(time.Duration(ms) * time.Millisecond)
			}
		}
	}
	return n, err
}

// ups counts how often a server has accepted the session, one that is held now apart.
func (s *session) ups() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return s.upped - 1
	}
	return s.upped
}

// reached tells whether a request made at before may have gone out: without a session none does.
func (s *session) reached(before int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.upped > before
}

func (s *session) dialError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// login sends the digest once; the library sends it again with each connection.
func (s *session) login(auth schema.Secret) error {
	if auth.Reveal() == "" {
		return nil
	}
	s.logins.Lock()
	defer s.logins.Unlock()
	if s.logged {
		return nil
	}
	err := s.conn.AddAuth("digest", []byte(auth.Reveal()))
	s.logged = err == nil
	return err
}

// cut breaks the connection, and keeps the library from making another.
func (s *session) cut() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.wire != nil {
		_ = s.wire.Close()
	}
}

// end closes the session at the server where it answers, and returns when nothing of it runs any more.
func (s *session) end() {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if !up {
		s.cut()
	}
	s.conn.Close() // waits a second at most
	s.cut()
	for range s.events { // closed by the library's last goroutine
	}
}

// servers hands the library its addresses in turn. Unlike the library's own it leaves names to the dialer, which looks
// them up anew each time, and after a loss it tries at once: the library pauses for a second, and gives up on what is
// waiting, only when all have failed in a row.
type servers struct {
	mu     sync.Mutex
	addrs  []string
	next   int
	failed int // tries since the last success
}

func (h *servers) Init(addrs []string) error {
	h.addrs = addrs
	return nil
}

func (h *servers) Len() int { return len(h.addrs) }

func (h *servers) Next() (addr string, allFailed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	addr = h.addrs[h.next]
	h.next = (h.next + 1) % len(h.addrs)
	allFailed = h.failed > 0 && h.failed%len(h.addrs) == 0
	h.failed++
	return addr, allFailed
}

func (h *servers) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = 0
}
