// Package zookeeper is what a runbook does to ZooKeeper: read a node, and set, create and
// delete one so that nobody else's change is overwritten.
//
// Start at [Target], the target kind that opens a [Client], and at [Client.Node]: what
// every probe and check sees. A client opened read-only has the methods that write refuse
// before anything is sent. The library's calls know no context, so session.go gives each
// an end, and tells whether the request may have gone out (failure.go). The kinds follow,
// one a file; [Kinds] lists them.
package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/schema"
	"runbook/steps"
)

// KindName is the target kind that this package opens.
const KindName = "zookeeper"

// Config declares a ZooKeeper ensemble.
type Config struct {
	Addrs   []schema.Addr `yaml:"addrs,required" doc:"Addresses of its servers, host:port each; one that answers is enough."`
	Auth    schema.Secret `yaml:"auth" doc:"user:password of the digest scheme; none: nothing is sent, and nodes must be open to anyone."`
	Chroot  string        `yaml:"chroot" doc:"Path put before every path; the root where none is given."`
	Timeout time.Duration `yaml:"timeout" doc:"Longest time to wait for the answer to one request, connecting included." default:"10s"`
	Session time.Duration `yaml:"session_timeout" doc:"How long the servers keep the session, and its ephemeral nodes, of a client they no longer hear; they hold it to limits of their own (2 to 20 of their ticks)." default:"10s"`
}

// Target is the target kind zookeeper.
func Target() *steps.TargetKind[Config, *Client] {
	return &steps.TargetKind[Config, *Client]{
		Name: KindName,
		Doc: "A ZooKeeper ensemble. It is connected to at the first request; each run has sessions of its own, " +
			"which end with it.",
		Example: `{kind: zookeeper, addrs: ["10.0.0.1:2181", "10.0.0.2:2181"], auth: "${{ secrets.zookeeper }}", chroot: /codis}`,
		Valid:   validConfig,
		Addr:    func(c Config) string { return c.addr() + c.Chroot },
		Open: func(_ context.Context, c Config, a steps.Access) (*Client, error) {
			return Open(c, a), nil
		},
		Close: (*Client).Close,
	}
}

func validConfig(c Config, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	bad := func(input, format string, a ...any) {
		p = append(p, steps.Problem{Input: input, Message: fmt.Sprintf(format, a...)})
	}
	if len(c.Addrs) == 0 && !unknown("addrs") {
		bad("addrs", "at least one server is needed")
	}
	for _, a := range c.Addrs {
		if _, port, err := net.SplitHostPort(string(a)); err != nil {
			bad("addrs", "%q is not host:port", string(a))
		} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			bad("addrs", "%q is not a port (1 to 65535)", port)
		}
	}
	if c.Chroot != "" {
		if why := badPath(c.Chroot); why != "" || c.Chroot == "/" {
			bad("chroot", "%q is not a path such as /codis", c.Chroot)
		}
	}
	if auth := c.Auth.Reveal(); auth != "" && !unknown("auth") && !strings.Contains(auth, ":") {
		bad("auth", "user:password is wanted")
	}
	if c.Timeout < 0 {
		bad("timeout", "a time-out is not negative")
	}
	if c.Session < 0 {
		bad("session_timeout", "a time-out is not negative")
	}
	return p
}

// badPath says what is wrong with the path of a node; empty: nothing. What it lets through the library may still refuse.
func badPath(path string) string {
	switch {
	case !strings.HasPrefix(path, "/"):
		return "a node's path begins with /"
	case path != "/" && strings.HasSuffix(path, "/"):
		return "a node's path does not end with /"
	case strings.Contains(path, "//"):
		return "a node's name is not empty"
	}
	return ""
}

func (c Config) addr() string {
	addrs := make([]string, len(c.Addrs))
	for i, a := range c.Addrs {
		addrs[i] = string(a)
	}
	return strings.Join(addrs, ",")
}

// Client speaks to one ensemble over one session at a time. It is safe for concurrent use,
// connects when it is first asked, and connects again after a failure.
type Client struct {
	cfg    Config
	access steps.Access

	mu     sync.Mutex
	now    *session // nil: not connected
	closed bool
	work   sync.WaitGroup // calls and sessions that are ending
}

const defaultTimeout = 10 * time.Second

// Open makes a client. It connects at the first request, so that a target may be declared
// before it exists.
func Open(cfg Config, a steps.Access) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Session <= 0 {
		cfg.Session = defaultTimeout
	}
	return &Client{cfg: cfg, access: a}
}

// Addr is the servers' addresses as configured, separated by commas.
func (c *Client) Addr() string { return c.cfg.addr() }

// Close ends the session: its ephemeral nodes are gone when Close returns, if a server answers within a second.
func (c *Client) Close() error {
	c.mu.Lock()
	s := c.now
	c.now, c.closed = nil, true
	c.mu.Unlock()
	if s != nil {
		s.end()
	}
	c.work.Wait()
	return nil
}

// Node is what a node holds. Of one that does not exist everything but Path is zero.
type Node struct {
	Path     string
	Exists   bool
	Data     []byte
	Version  int   // of the data: 0 when it was created, one more with each set
	Czxid    int64 // the transaction that created it: another one after it was deleted and created again
	Owner    int64 // the session that an ephemeral node lives with; 0: it is persistent
	Children []string
}

// Node looks at a node. What it tells is at least as new as every write that was answered before it was asked, whichever
// server answers: it sends sync first. Children are by name. A node that does not exist is no error.
func (c *Client) Node(ctx context.Context, path string) (Node, error) {
	n := Node{Path: path}
	err := c.call(ctx, request{addr: c.Addr(), what: "get", path: path}, func(s *session) error {
		full := c.cfg.Chroot + path
		if path == "/" && c.cfg.Chroot != "" {
			full = c.cfg.Chroot
		}
		n = Node{Path: path}
		if _, err := s.conn.Sync(full); err != nil {
			return err
		}
		data, stat, err := s.conn.Get(full)
		if err != nil {
			return err
		}
		n = Node{Path: path, Exists: true, Data: data, Version: int(stat.Version), Czxid: stat.Czxid, Owner: stat.EphemeralOwner}
		if stat.NumChildren > 0 {
			n.Children, _, err = s.conn.Children(full)
			slices.Sort(n.Children)
		}
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return Node{Path: path}, nil
	}
	if err != nil {
		return Node{Path: path}, err
	}
	return n, nil
}

// Read gives what a node holds; exists is false, without an error, where there is none.
func (c *Client) Read(ctx context.Context, path string) (data []byte, exists bool, err error) {
	n, err := c.Node(ctx, path)
	return n.Data, n.Exists, err
}

// AnyVersion matches whatever version a node has.
const AnyVersion = -1

// Set replaces what a node holds, if its version is the one given, and gives the new version.
func (c *Client) Set(ctx context.Context, path string, data []byte, version int) (int, error) {
	var now int
	err := c.call(ctx, request{addr: c.Addr(), what: "set", path: path, write: true}, func(s *session) error {
		stat, err := s.conn.Set(c.cfg.Chroot+path, data, int32(version))
		if err == nil {
			now = int(stat.Version)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return now, nil
}

// Create makes a node; its parent must be there. An ephemeral one lives as long as the client's session.
func (c *Client) Create(ctx context.Context, path string, data []byte, acl ACL, ephemeral bool) error {
	return c.call(ctx, request{addr: c.Addr(), what: "create", path: path, write: true}, func(s *session) error {
		flags := int32(0)
		if ephemeral {
			flags = zk.FlagEphemeral
		}
		list := zk.WorldACL(zk.PermAll)
		if acl == Creator {
			list = zk.AuthACL(zk.PermAll)
		}
		_, err := s.conn.Create(c.cfg.Chroot+path, data, flags, list)
		return err
	})
}

// ACL says who may use a new node.
type ACL string

// Who may use a new node.
const (
	Anyone  ACL = "anyone"  // what ZooKeeper's own tools do
	Creator ACL = "creator" // who logs in as this client did
)

// Delete removes a node without children, if its version is the one given.
func (c *Client) Delete(ctx context.Context, path string, version int) error {
	return c.call(ctx, request{addr: c.Addr(), what: "delete", path: path, write: true}, func(s *session) error {
		return s.conn.Delete(c.cfg.Chroot+path, int32(version))
	})
}

// owns tells whether an ephemeral node lives with this client's session.
func (c *Client) owns(n Node) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.Owner != 0 && c.now != nil && c.now.conn.SessionID() == n.Owner
}
