// Package pika is what a runbook does to a Pika server, of 2.3 (slaveof, double master)
// and of 3.2 to 3.4 (classic and sharding).
//
// Start at [Target], the target kind that opens a [Client], and at slot.go: what one
// instance says of its slots. The protocol is that of Redis, so the wire is
// steps/redis, and the kinds of that package that make sense here act on a pika target
// too ([Client.RESP]). What a server answers becomes typed values in slot.go, info.go and
// keyspace.go, and an error with a class in failure.go; what differs between releases
// stands in release.go alone. The kinds follow, one a file; [Kinds] lists them.
//
// Pika says OK when it has accepted an order, not when it has carried it out, forgets
// whom a slot follows when it restarts, and never gives up a full sync that cannot end.
// So every kind here reads the state, sends an order once, and reads the state again.
package pika

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// KindName is the target kind that this package opens.
const KindName = "pika"

// Config declares a Pika server.
type Config struct {
	Addr     schema.Addr   `yaml:"addr,required" doc:"Address, IP:port. Masters and replicas know each other by it, so give it as the instances do: a host name is never equal to what they print."`
	Password schema.Secret `yaml:"password" doc:"Password sent with AUTH on every connection (the server's requirepass); none: AUTH is not sent."`
	Release  string        `yaml:"release" doc:"Release of the server, such as 3.4.0, for one that is not up yet; asked of the server where none is given."`
	Timeout  time.Duration `yaml:"timeout" doc:"Longest time to wait for a connection, and for the answer to one request. Adding and deleting slots take longer and have limits of their own." default:"10s"`
}

// Target is the target kind pika.
func Target() *steps.TargetKind[Config, *Client] {
	return &steps.TargetKind[Config, *Client]{
		Name: KindName,
		Doc: "A Pika server of release 2.3, or of 3.2 to 3.4 in mode classic or sharding. Nothing is sent on connecting but AUTH, with a password. " +
			"The redis kinds that name pika act on it too.",
		Example: `{kind: pika, addr: "127.0.0.1:9221", password: "${{ secrets.pika }}"}`,
		Valid:   validConfig,
		Addr:    func(c Config) string { return string(c.Addr) },
		Open: func(_ context.Context, c Config, a steps.Access) (*Client, error) {
			return Open(c, a), nil
		},
		Close: (*Client).Close,
	}
}

func validConfig(c Config, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	if _, port, err := net.SplitHostPort(string(c.Addr)); err != nil {
		if !unknown("addr") {
			p = append(p, steps.Problem{Input: "addr", Message: fmt.Sprintf("%q is not host:port", string(c.Addr))})
		}
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		p = append(p, steps.Problem{Input: "addr", Message: fmt.Sprintf("%q is not a port (1 to 65535)", port)})
	}
	if c.Release != "" {
		if _, err := ParseRelease(c.Release); err != nil {
			p = append(p, steps.Problem{Input: "release", Message: err.Error()})
		}
	}
	if c.Timeout < 0 {
		p = append(p, steps.Problem{Input: "timeout", Message: "a time-out is not negative"})
	}
	return p
}

// dialect is what Pika adds to the reading commands of Redis. SLOTSINFO, as INFO KEYSPACE 1,
// starts a scan that counts keys: it costs the server, and changes nothing that is stored
// or routed, so it reads. What migrates (SLOTSMGRT*, the wrapper too), reloads, cleans or
// deletes slots is missing on purpose.
func dialect() redis.Dialect {
	return redis.Dialect{StaleSize: true, Internal: slotIndex, Reads: []string{
		"PKCLUSTER INFO", "SLOTSINFO", "SLOTSHASHKEY", "SLOTSSCAN", "SLOTSMGRT-ASYNC-STATUS",
		"PKSCANRANGE", "PKRSCANRANGE", "PKHSCANRANGE", "PKHRSCANRANGE",
	}}
}

// Client speaks to one Pika server. It is safe for concurrent use, and connects when it is first asked.
type Client struct {
	cfg    Config
	resp   *redis.Client
	dial   steps.Dialer
	singly atomic.Bool // the server answers pkcluster info slot for one slot at a time alone (3.2.9)
}

const defaultTimeout = 10 * time.Second

// Open makes a client; it connects at the first request.
func Open(cfg Config, a steps.Access) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{cfg: cfg, resp: redis.Open(redis.Config{Addr: cfg.Addr, Password: cfg.Password, Timeout: cfg.Timeout}, a, dialect())}
	return c.Via((&net.Dialer{}).DialContext)
}

// Via has the client, and those beside it, connect through dial. For who opens it, before its first request.
func (c *Client) Via(dial steps.Dialer) *Client {
	c.dial = dial
	c.resp.Via(dial)
	return c
}

// RESP gives the wire, which makes a Client a [redis.Speaker].
func (c *Client) RESP() *redis.Client { return c.resp }

// Addr is the server's address as configured.
func (c *Client) Addr() string { return string(c.cfg.Addr) }

// Close ends the client's connections; requests under way fail.
func (c *Client) Close() error { return c.resp.Close() }

// Beside gives a client that only reads, with the same password, for another server of the
// same installation: the master that a slot follows. The caller closes it.
func (c *Client) Beside(addr string) *Client {
	cfg := c.cfg
	cfg.Addr, cfg.Release = schema.Addr(addr), ""
	return Open(cfg, steps.ReadOnly).Via(c.dial)
}

// Do sends one command and gives its reply. A server's error is an error; failure.go says what it tells.
func (c *Client) Do(ctx context.Context, args ...string) (redis.Reply, error) {
	return c.DoWithin(ctx, c.cfg.Timeout, args...)
}

// DoWithin is Do with a limit of its own for the answer; 0: only the context's.
func (c *Client) DoWithin(ctx context.Context, limit time.Duration, args ...string) (redis.Reply, error) {
	r, err := c.resp.DoWithin(ctx, limit, args...)
	return r, judge(err)
}

func (c *Client) text(ctx context.Context, args ...string) (string, error) {
	r, err := c.Do(ctx, args...)
	if err != nil {
		return "", err
	}
	return r.Text()
}

// ServerRelease gives the server's release: the one declared, or the one it tells.
func (c *Client) ServerRelease(ctx context.Context) (Release, error) {
	if c.cfg.Release != "" {
		return ParseRelease(c.cfg.Release)
	}
	i, err := c.Info(ctx, "server")
	return i.Release, err
}

// setting asks for one setting; false where the server knows none of this name.
func (c *Client) setting(ctx context.Context, name string) (string, bool, error) {
	r, err := c.Do(ctx, "CONFIG", "GET", name)
	if err != nil {
		return "", false, err
	}
	pairs, err := r.Pairs()
	if err != nil {
		return "", false, err
	}
	value, known := pairs[name]
	return value, known, nil
}

// SyncThreads is how many threads of the server apply what it gets by replication
// (sync-thread-num): writes of different threads are applied in no order.
func (c *Client) SyncThreads(ctx context.Context) (int, error) {
	value, known, err := c.setting(ctx, "sync-thread-num")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(value)
	if !known || err != nil || n < 1 {
		return 0, steps.Errorf("reply", "config get sync-thread-num on %s: %q is not a number of threads", c.Addr(), value)
	}
	return n, nil
}
