// Package redis is what a runbook does to a Redis server, and to whatever else
// answers its protocol: Pika, codis-server, a proxy.
//
// Start at [Target], the target kind that opens a [Client], and at [Client.Do]: every
// request of every kind goes through it. A client opened read-only refuses what is
// not on the list of reading commands (guard.go) before anything is sent. What fails
// comes back as a *steps.Error that says whether the request may have been carried
// out (failure.go). The kinds follow, one a file; [Kinds] lists them.
//
// go-redis encodes and decodes; connecting, logging in, cancelling and judging
// failures are done here, because a migration must know which side of the effect a
// failure lies on: there are no retries, no HELLO and no CLIENT SETINFO, so old
// servers and proxies see nothing but the commands of the step.
package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"runbook/schema"
	"runbook/steps"
)

// KindName is the target kind that this package opens.
const KindName = "redis"

// Config declares a Redis server.
type Config struct {
	Addr     schema.Addr   `yaml:"addr,required" doc:"Address, host:port."`
	Username string        `yaml:"username" doc:"ACL user, for servers of 6.0 and later; the default user where none is given."`
	Password schema.Secret `yaml:"password" doc:"Password sent with AUTH on every connection; none: AUTH is not sent."`
	TLS      bool          `yaml:"tls" doc:"Speak TLS; the server's certificate is always checked." default:"false"`
	TLSCA    string        `yaml:"tls_ca" doc:"File with the PEM certificates trusted to sign the server's; the system's where none is given."`
	TLSName  string        `yaml:"tls_name" doc:"Name expected in the server's certificate; the host of addr where none is given."`
	DB       int           `yaml:"db" doc:"Number of the database, selected on every connection." default:"0"`
	Timeout  time.Duration `yaml:"timeout" doc:"Longest time to wait for a connection, and for the answer to one request." default:"10s"`
}

// Target is the target kind redis.
func Target() *steps.TargetKind[Config, *Client] {
	return &steps.TargetKind[Config, *Client]{
		Name: KindName,
		Doc: "A Redis server, or one that answers its protocol. Nothing is sent on connecting but AUTH (with a password) " +
			"and SELECT (with a db other than 0), so servers back to 2.8 and proxies work.",
		Example: `{kind: redis, addr: "127.0.0.1:6379", password: "${{ secrets.redis }}", db: 0}`,
		Valid:   validConfig,
		Addr:    func(c Config) string { return string(c.Addr) },
		Open: func(_ context.Context, c Config, a steps.Access) (*Client, error) {
			return Open(c, a, Dialect{}), nil
		},
		Close: (*Client).Close,
	}
}

func validConfig(c Config, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	if _, port, err := net.SplitHostPort(string(c.Addr)); err != nil {
		p = append(p, steps.Problem{Input: "addr", Message: fmt.Sprintf("%q is not host:port", string(c.Addr))})
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		p = append(p, steps.Problem{Input: "addr", Message: fmt.Sprintf("%q is not a port (1 to 65535)", port)})
	}
	if c.DB < 0 {
		p = append(p, steps.Problem{Input: "db", Message: "a database number is not negative"})
	}
	if c.Timeout < 0 {
		p = append(p, steps.Problem{Input: "timeout", Message: "a time-out is not negative"})
	}
	if c.Username != "" && c.Password.Reveal() == "" && !unknown("password") {
		p = append(p, steps.Problem{Input: "username", Message: "a username without a password is never sent"})
	}
	if !c.TLS && (c.TLSCA != "" || c.TLSName != "") {
		p = append(p, steps.Problem{Input: "tls", Message: "tls_ca and tls_name mean nothing without tls: true"})
	}
	return p
}

// Dialect is what a system that speaks the protocol adds to it.
type Dialect struct {
	// Reads are further commands that only read, in capitals: "SLOTSINFO", "PKCLUSTER INFO". One that
	// names a sub-command allows that one alone. More is never taken away from the list of Redis.
	Reads []string
	// StaleSize: DBSIZE tells what a count in the past has found, not how many keys there are now.
	StaleSize bool
	// Internal is what the names of keys begin with that the server keeps for itself and shows among its
	// users': they are no one's data. Empty: it has none.
	Internal string
}

// Client speaks to one server, over a few connections of its own. It is safe for
// concurrent use, connects when it is first asked, and connects again after a failure.
type Client struct {
	cfg     Config
	dialect Dialect
	guard   guard // what may be sent
	reads   guard // what only reads
	dial    steps.Dialer
	turns   chan struct{} // one for each request under way; its capacity is the most there may be

	mu     sync.Mutex
	lanes  []*lane // all
	idle   []*lane // those not in use, the last used last: it is used next, so that few are opened
	closed bool
}

// Speaker is a client that speaks the protocol, among other things perhaps: what the
// kinds of this package act on, so that a target of another kind can give one.
type Speaker interface{ RESP() *Client }

// RESP makes a Client a Speaker.
func (c *Client) RESP() *Client { return c }

// maxLanes bounds the connections of one client: enough for a step's own needs and a guard beside it.
const maxLanes = 4

const defaultTimeout = 10 * time.Second

// Open makes a client. It connects at the first request, so that a target may be
// declared before it exists.
func Open(cfg Config, a steps.Access, d Dialect) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{cfg: cfg, dialect: d, reads: newGuard(d.Reads), dial: (&net.Dialer{}).DialContext, turns: make(chan struct{}, maxLanes)}
	if a == steps.ReadOnly {
		c.guard = c.reads
	}
	return c
}

// Via has the client, and those beside it, connect through dial. For who opens it, before its first request.
func (c *Client) Via(dial steps.Dialer) *Client {
	c.dial = dial
	return c
}

// Addr is the server's address as configured.
func (c *Client) Addr() string { return string(c.cfg.Addr) }

// Password is what the client logs in with; for telling whether a server that must log
// in there too (masterauth) knows it. Never print it.
func (c *Client) Password() schema.Secret { return c.cfg.Password }

// Beside gives a client that only reads, with the same credentials, for another server
// of the same installation: a replica's master. The caller closes it.
func (c *Client) Beside(addr string) *Client {
	cfg := c.cfg
	cfg.Addr, cfg.DB, cfg.TLSName = schema.Addr(addr), 0, ""
	return Open(cfg, steps.ReadOnly, c.dialect).Via(c.dial)
}

// Close ends the client's connections; requests under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	lanes := c.lanes
	c.lanes, c.closed = nil, true
	c.mu.Unlock()
	for _, l := range lanes {
		l.close()
	}
	return nil
}

// Do sends one command and gives its reply. A server's error is an error; a null is a
// Reply. See failure.go for what an error tells.
func (c *Client) Do(ctx context.Context, args ...string) (Reply, error) {
	return c.DoWithin(ctx, c.cfg.Timeout, args...)
}

// DoWithin is Do with a limit of its own for the answer; 0: only the context's.
func (c *Client) DoWithin(ctx context.Context, limit time.Duration, args ...string) (Reply, error) {
	req := request{addr: c.Addr(), args: args, secret: c.cfg.Password}
	if err := c.guard.check(req); err != nil {
		return Reply{}, err
	}
	var cmd *goredis.Cmd
	err := c.use(ctx, limit, req, func(ctx context.Context, l *lane) error {
		cmd = goredis.NewCmd(ctx, toAny(args)...)
		return l.rdb.Process(ctx, cmd)
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return Reply{}, err
	}
	return Reply{v: cmd.Val(), from: req}, nil
}

// Read sends several reading commands in one round trip, whatever the client's access;
// a command that is not known to read is refused. Each reply tells its own error
// (Reply.Err); the error returned means that there are no replies.
func (c *Client) Read(ctx context.Context, cmds ...[]string) ([]Reply, error) {
	reqs := make([]request, len(cmds))
	for i, args := range cmds {
		reqs[i] = request{addr: c.Addr(), args: args, secret: c.cfg.Password}
		if err := c.reads.check(reqs[i]); err != nil {
			return nil, err
		}
	}
	if len(cmds) == 0 {
		return nil, nil
	}
	sent := make([]*goredis.Cmd, len(cmds))
	err := c.use(ctx, c.cfg.Timeout, reqs[0], func(ctx context.Context, l *lane) error {
		pipe := l.rdb.Pipeline()
		for i, args := range cmds {
			sent[i] = goredis.NewCmd(ctx, toAny(args)...)
			_ = pipe.Process(ctx, sent[i])
		}
		_, err := pipe.Exec(ctx)
		for _, cmd := range sent { // Exec gives the first error only: one that broke the connection may come after a server's
			if e := cmd.Err(); e != nil && !isReplyError(e) {
				return e
			}
		}
		if isReplyError(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	replies := make([]Reply, len(cmds))
	for i, cmd := range sent {
		replies[i] = Reply{v: cmd.Val(), from: reqs[i]}
		if err := cmd.Err(); err != nil && !errors.Is(err, goredis.Nil) {
			replies[i].v, replies[i].err = nil, serverError(reqs[i], err)
		}
	}
	return replies, nil
}

// lane is one connection: a go-redis client with a pool of one, made for a connection
// that was opened and logged in here, and thrown away with it. A context's end closes
// the connection that its request uses, which go-redis does not do by itself.
type lane struct {
	mu  sync.Mutex
	w   *wire // nil: not connected yet
	rdb *goredis.Client
}

// use runs one exchange on a lane and judges how it ended.
func (c *Client) use(ctx context.Context, limit time.Duration, req request, exchange func(context.Context, *lane) error) error {
	if ctx.Err() != nil {
		return notSent(ctx, req)
	}
	l, err := c.lane(ctx, req)
	if err != nil {
		return err
	}
	defer c.release(l)
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, noAnswer{limit})
		defer cancel()
	}
	for {
		w, reused, err := l.connect(ctx, c, req)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, w.cut)
		err = exchange(ctx, l)
		if !stop() || (err != nil && !isReplyError(err)) {
			w.cut() // nobody may read on where an answer is missing
		}
		err = judge(ctx, req, err, w.outcome())
		if err == nil || !reused || ctx.Err() != nil || steps.Classify(err).Kind != "closed" || c.reads.check(req) != nil {
			return err
		}
		// The connection had served before: its end may be that of a server long gone, so a request that only reads
		// asks whoever is there now. This happens once, as the next connection is new.
	}
}

func (c *Client) lane(ctx context.Context, req request) (*lane, error) {
	select {
	case c.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, notSent(ctx, req)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		<-c.turns
		return nil, steps.Errorf("closed", "%s: the client is closed", req)
	}
	if n := len(c.idle); n > 0 {
		l := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return l, nil
	}
	l := &lane{}
	c.lanes = append(c.lanes, l)
	return l, nil
}

func (c *Client) release(l *lane) {
	c.mu.Lock()
	c.idle = append(c.idle, l)
	c.mu.Unlock()
	<-c.turns
}

// connect gives the lane's connection (reused: it has served before), opened and logged in where there is none that works.
func (l *lane) connect(ctx context.Context, c *Client, req request) (w *wire, reused bool, err error) {
	l.mu.Lock()
	w = l.w
	l.mu.Unlock()
	if w != nil && w.usable() {
		w.begin()
		return w, true, nil
	}
	l.close()
	if w, err = dial(ctx, c.dial, c.cfg, req); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		w.cut()
		return nil, false, steps.Errorf("closed", "%s: the client is closed", req)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w, l.rdb = w, c.speak(w)
	return w, false, nil
}

// speak makes the go-redis client that encodes and decodes on w. Its dialer only hands w
// over and never fails for a reason of the network, so that go-redis' pool has no
// failures to count, to repeat from memory, or to chase in the background.
func (c *Client) speak(w *wire) *goredis.Client {
	rdb := goredis.NewClient(&goredis.Options{
		Addr:                     c.Addr(),
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1, // a repeated request may act twice
		DialerRetries:            1,
		PoolSize:                 1,
		PipelinePoolSize:         -1,
		ConnMaxIdleTime:          -1,
		ReadTimeout:              -2, // time is the context's, see use
		WriteTimeout:             -2,
		ReadBufferSize:           16 << 10,
		WriteBufferSize:          16 << 10,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if w.take() {
				return w, nil
			}
			return brokenConn{w.Conn}, nil
		},
	})
	rdb.AddHook(c.guard)
	return rdb
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w != nil {
		l.w.cut()
		_ = l.rdb.Close()
	}
}

func toAny(args []string) []any {
	a := make([]any, len(args))
	for i, s := range args {
		a[i] = s
	}
	return a
}
