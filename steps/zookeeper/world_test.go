package zookeeper

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	simulate "runbook/internal/simulate/zookeeper"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/zookeeper/zktest"
)

var shared zktest.Server // started by the first test that needs it, ended by TestMain

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.Close()
		os.Exit(code)
	}))
}

const login = "runner:correct-horse-battery"

// house is one part of a tree that a test has for itself, and a relay before its server.
type house struct {
	t      *testing.T
	relay  *zktest.Relay
	direct string // the server's own address
	chroot string
}

// newHouse makes a part of the tree with nodes (path and value, in turn), on the real server.
func newHouse(t *testing.T, nodes ...string) *house {
	t.Helper()
	return furnish(t, shared.Start(t), nodes...)
}

// simulatedHouse is newHouse on a simulated server.
func simulatedHouse(t *testing.T, nodes ...string) *house {
	t.Helper()
	s, err := simulate.Start(simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return furnish(t, s.Addr(), nodes...)
}

func furnish(t *testing.T, addr string, nodes ...string) *house {
	t.Helper()
	h := &house{t: t, relay: zktest.NewRelay(t, addr), direct: addr}
	name := strings.NewReplacer("/", "-", " ", "-", ".", "-", ",", "").Replace(t.Name())
	h.chroot = fmt.Sprintf("/%s-%d", name, time.Now().UnixNano())
	root := Open(Config{Addrs: []schema.Addr{schema.Addr(addr)}}, steps.ReadWrite)
	defer func() { _ = root.Close() }()
	if err := root.Create(t.Context(), h.chroot, nil, Anyone, false); err != nil {
		t.Fatal(err)
	}
	c := h.client(steps.ReadWrite)
	for i := 0; i < len(nodes); i += 2 {
		if err := c.Create(t.Context(), nodes[i], []byte(nodes[i+1]), Anyone, false); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// client goes to the server directly, and ends with the test.
func (h *house) client(a steps.Access) *Client { return h.open(h.direct, a) }

// relayed goes through the relay.
func (h *house) relayed(a steps.Access) *Client { return h.open(h.relay.Addr(), a) }

func (h *house) open(addr string, a steps.Access) *Client {
	c := Open(Config{Addrs: []schema.Addr{schema.Addr(addr)}, Auth: schema.NewSecret(login), Chroot: h.chroot, Session: 2 * time.Second}, a)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// tree tells every node and what it holds.
func (h *house) tree() string {
	var b strings.Builder
	c := h.client(steps.ReadOnly)
	defer func() { _ = c.Close() }()
	var walk func(path string)
	walk = func(path string) {
		n, err := c.Node(context.Background(), path)
		if err != nil {
			h.t.Error(err)
			return
		}
		fmt.Fprintf(&b, "%s=%q ephemeral %v\n", path, n.Data, n.Owner != 0)
		for _, child := range n.Children {
			walk(strings.TrimSuffix(path, "/") + "/" + child)
		}
	}
	walk("/")
	return b.String()
}

func (h *house) world(with map[string]any) conformance.World {
	return conformance.World{
		Targets: map[string]conformance.Target{"zk": {Kind: Target().Define(), Config: map[string]any{
			"addrs": []any{h.relay.Addr()}, "auth": login, "chroot": h.chroot, "session_timeout": 2 * time.Second,
		}}},
		Target: "zk", With: with, Secrets: []string{login, "correct-horse"}, Snapshot: h.tree, Writes: h.relay.Writes, Wall: true,
		Intercept: func(f func(bool) conformance.Fault) {
			if f == nil {
				h.relay.Intercept(nil)
				return
			}
			h.relay.Intercept(func(write bool) zktest.Loss {
				return map[conformance.Fault]zktest.Loss{
					conformance.LostBefore: zktest.Before, conformance.LostAfter: zktest.After, conformance.Hang: zktest.Hang,
				}[f(write)]
			})
		},
	}
}

func kind(t *testing.T, name string) *steps.Definition {
	t.Helper()
	for _, d := range Kinds() {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

type fixture struct {
	kind, name string
	conformance.Fixture
}

func fixtures(house func(t *testing.T, nodes ...string) *house) []fixture {
	return []fixture{
		{"zookeeper.get", "of a node", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t, "/a", `{"x": 1}`, "/a/b", "").world(map[string]any{"path": "/a"})
		}}},
		{"zookeeper.set", "another value", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t, "/a", "old").world(map[string]any{"path": "/a", "value": map[string]any{"metas": "a,b"}})
		}}},
		{"zookeeper.set", "of a known version", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t, "/a", "old").world(map[string]any{"path": "/a", "value": "new", "expect_version": 0})
		}}},
		{"zookeeper.set", "of a new node", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t).world(map[string]any{"path": "/a", "value": "new", "create": true})
		}}},
		{"zookeeper.create", "that stays", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t, "/a", "").world(map[string]any{"path": "/a/b", "value": "new", "acl": "creator"})
		}}},
		{"zookeeper.create", "ephemeral", conformance.Fixture{
			Blind: "only its session can tell whose node it is",
			New: func(t *testing.T) conformance.World {
				return house(t).world(map[string]any{"path": "/a", "ephemeral": true})
			}}},
		{"zookeeper.delete", "of a node", conformance.Fixture{New: func(t *testing.T) conformance.World {
			return house(t, "/a", "old", "/b", "stays").world(map[string]any{"path": "/a"})
		}}},
	}
}

// TestConformance holds every kind to the contract, on a real server and on the simulated one.
func TestConformance(t *testing.T) {
	for name, house := range map[string]func(t *testing.T, nodes ...string) *house{"zookeeper": newHouse, "simulated": simulatedHouse} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			for _, f := range fixtures(house) {
				seen[f.kind] = true
				t.Run(f.kind+" "+f.name, func(t *testing.T) {
					t.Parallel() // most of it is waiting for connections to end
					conformance.Run(t, kind(t, f.kind), f.Fixture)
				})
			}
			for _, d := range Kinds() {
				if !seen[d.Name] {
					t.Errorf("%s has no fixture", d.Name)
				}
			}
		})
	}
}
