package zookeeper

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/zookeeper/zktest"
)

// eventually asks until it is so; servers offer nothing to wait on.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if is() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// fails asserts what an error tells: its kind, and whether the request may have been carried out.
func fails(t *testing.T, err error, kind string, unknown bool) {
	t.Helper()
	if e := steps.Classify(err); e == nil || e.Kind != kind || e.Unknown != unknown {
		t.Errorf("wanted an error of kind %s (unknown %v), got %+v: %v", kind, unknown, e, err)
	}
}

// Codis' coordinator is read through this method alone.
var _ interface {
	Read(ctx context.Context, path string) (data []byte, exists bool, err error)
} = (*Client)(nil)

func TestNode(t *testing.T) {
	h := newHouse(t, "/a", "one", "/a/y", "", "/a/x", "")
	c := h.client(steps.ReadWrite)
	if v, err := c.Set(t.Context(), "/a", []byte("two"), 0); err != nil || v != 1 {
		t.Errorf("set: version %d, %v", v, err)
	}
	n, err := c.Node(t.Context(), "/a")
	if err != nil || !n.Exists || string(n.Data) != "two" || n.Version != 1 || n.Czxid == 0 || strings.Join(n.Children, " ") != "x y" {
		t.Errorf("%+v, %v", n, err)
	}
	if data, exists, err := c.Read(t.Context(), "/nothing"); exists || data != nil || err != nil {
		t.Errorf("a node that is not there: %q, %v, %v", data, exists, err)
	}
	if n, err := c.Node(t.Context(), "/"); err != nil || len(n.Children) != 1 {
		t.Errorf("the chroot itself: %+v, %v", n, err)
	}
}

func TestServersWords(t *testing.T) {
	h := newHouse(t, "/a", "", "/a/b", "")
	c := h.client(steps.ReadWrite)
	_, err := c.Set(t.Context(), "/a", nil, 7)
	fails(t, err, "conflict", false)
	if !strings.Contains(err.Error(), "set /a on "+h.direct+": ") || !strings.Contains(err.Error(), "version conflict") {
		t.Errorf("says not what was attempted, on what, and why: %v", err)
	}
	fails(t, c.Create(t.Context(), "/a", nil, Anyone, false), "conflict", false)
	fails(t, c.Create(t.Context(), "/no/parent", nil, Anyone, false), "not-found", false)
	fails(t, c.Delete(t.Context(), "/a", AnyVersion), "conflict", false)
	fails(t, c.Delete(t.Context(), "/nothing", AnyVersion), "not-found", false)
	fails(t, c.Create(t.Context(), "/a/../b", nil, Anyone, false), "input", false)
}

func TestReadOnlyRefuses(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := h.relayed(steps.ReadOnly)
	_, err := c.Set(t.Context(), "/a", []byte("two"), AnyVersion)
	fails(t, err, "refused-write", false)
	fails(t, c.Create(t.Context(), "/b", nil, Anyone, false), "refused-write", false)
	fails(t, c.Delete(t.Context(), "/a", AnyVersion), "refused-write", false)
	if _, exists, err := c.Read(t.Context(), "/a"); !exists || err != nil {
		t.Errorf("reading: %v, %v", exists, err)
	}
	if h.relay.Writes() != 0 {
		t.Errorf("%d requests went out", h.relay.Writes())
	}
}

// A node of the creator's is for who has the password.
func TestAuth(t *testing.T) {
	h := newHouse(t)
	if err := h.client(steps.ReadWrite).Create(t.Context(), "/mine", []byte("x"), Creator, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.client(steps.ReadOnly).Read(t.Context(), "/mine"); err != nil {
		t.Errorf("with the password: %v", err)
	}
	stranger := Open(Config{Addrs: []schema.Addr{schema.Addr(h.direct)}, Auth: schema.NewSecret("runner:another-one"), Chroot: h.chroot}, steps.ReadWrite)
	defer func() { _ = stranger.Close() }()
	_, _, err := stranger.Read(t.Context(), "/mine")
	fails(t, err, "auth", false)
	if strings.Contains(err.Error(), "another-one") {
		t.Errorf("shows the password: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := Open(Config{Addrs: []schema.Addr{schema.Addr(l.Addr().String())}}, steps.ReadWrite)
	defer func() { _ = c.Close() }()
	for range 2 {
		_, err = c.Set(t.Context(), "/a", nil, AnyVersion)
		fails(t, err, "refused", false)
		if !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("says not why: %v", err)
		}
	}
}

// A server that takes the connection and says nothing has not been given the request.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() })
		}
	})
	defer open.Wait()
	defer func() { _ = l.Close() }()
	c := Open(Config{Addrs: []schema.Addr{schema.Addr(l.Addr().String())}, Timeout: 50 * time.Millisecond}, steps.ReadWrite)
	defer func() { _ = c.Close() }()
	_, err = c.Set(t.Context(), "/a", nil, AnyVersion)
	fails(t, err, "timeout", false)
}

// One server of several is enough.
func TestAnotherServerAnswers(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := Open(Config{Addrs: []schema.Addr{"127.0.0.1:1", schema.Addr(h.direct)}, Chroot: h.chroot}, steps.ReadOnly)
	defer func() { _ = c.Close() }()
	if _, exists, err := c.Read(t.Context(), "/a"); !exists || err != nil {
		t.Errorf("%v, %v", exists, err)
	}
}

// once loses one request, the first that writes (or reads).
func once(write bool, loss zktest.Loss) func(bool) zktest.Loss {
	var first sync.Once
	return func(w bool) (l zktest.Loss) {
		if w == write {
			first.Do(func() { l = loss })
		}
		return l
	}
}

func TestLostRequests(t *testing.T) {
	for loss, want := range map[zktest.Loss]string{zktest.Before: "one", zktest.After: "two"} {
		h := newHouse(t, "/a", "one")
		c := h.relayed(steps.ReadWrite)
		h.relay.Intercept(once(true, loss))
		_, err := c.Set(t.Context(), "/a", []byte("two"), AnyVersion)
		fails(t, err, "closed", true)
		h.relay.Intercept(once(false, loss))
		if data, _, err := c.Read(t.Context(), "/a"); err != nil || string(data) != want {
			t.Errorf("a read whose connection breaks is read again: %q, %v", data, err)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := h.relayed(steps.ReadWrite)
	if _, _, err := c.Read(t.Context(), "/a"); err != nil {
		t.Fatal(err)
	}
	h.relay.Intercept(once(true, zktest.Hang))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Set(ctx, "/a", []byte("two"), AnyVersion)
	fails(t, err, "timeout", true)
	if _, err := c.Set(t.Context(), "/a", []byte("three"), 0); err != nil {
		t.Errorf("the next request has a session of its own: %v", err)
	}
}

// A request that was given up before it went out never goes out later.
func TestGivenUpIsGone(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := h.relayed(steps.ReadWrite)
	if _, _, err := c.Read(t.Context(), "/a"); err != nil {
		t.Fatal(err)
	}
	heal := h.relay.Partition()
	stop := errors.New("the operator stops the run")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	_, err := c.Set(ctx, "/a", []byte("two"), AnyVersion)
	fails(t, err, "canceled", false)
	if !errors.Is(err, stop) {
		t.Errorf("does not name the cause: %v", err)
	}
	_, err = c.Set(t.Context(), "/a", []byte("two"), AnyVersion)
	if e := steps.Classify(err); e == nil || e.Unknown && e.Kind != "closed" {
		t.Errorf("behind a partition: %v", err)
	}
	heal()
	if data, _, err := c.Read(t.Context(), "/a"); err != nil || string(data) != "one" {
		t.Errorf("after the partition: %q, %v", data, err)
	}
}

// A server that is killed and started again keeps what it answered, and the session.
func TestServerRestarts(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := h.open(h.direct, steps.ReadWrite)
	if err := c.Create(t.Context(), "/mine", nil, Anyone, true); err != nil {
		t.Fatal(err)
	}
	shared.Kill()
	_, err := c.Set(t.Context(), "/a", []byte("two"), 0)
	if e := steps.Classify(err); e == nil || !e.Temporary {
		t.Errorf("while it is down: %v", err)
	}
	shared.Start(t)
	eventually(t, "the client is connected again", func() bool {
		n, err := c.Node(t.Context(), "/mine")
		return err == nil && n.Exists
	})
	n, err := c.Node(t.Context(), "/mine")
	if err != nil || !c.owns(n) {
		t.Errorf("the session is another one: %+v, %v", n, err)
	}
	if _, err := c.Set(t.Context(), "/a", []byte("two"), 0); err != nil {
		t.Errorf("set after the restart: %v", err)
	}
}

// A session that ends takes its nodes with it; the client goes on with a new one.
func TestSessionExpires(t *testing.T) {
	h := newHouse(t, "/a", "one")
	c := h.relayed(steps.ReadWrite)
	if err := c.Create(t.Context(), "/mine", nil, Anyone, true); err != nil {
		t.Fatal(err)
	}
	n, err := c.Node(t.Context(), "/mine")
	if err != nil || !c.owns(n) {
		t.Fatalf("%+v, %v", n, err)
	}
	heal := h.relay.Partition()
	eventually(t, "the servers give the session up", func() bool {
		_, exists, err := h.client(steps.ReadOnly).Read(t.Context(), "/mine")
		return err == nil && !exists
	})
	heal()
	eventually(t, "the client goes on", func() bool {
		_, err := c.Set(t.Context(), "/a", []byte("two"), AnyVersion)
		return err == nil
	})
	if c.owns(n) {
		t.Error("the client takes the old node for its own")
	}
}

func TestCloseEndsTheSession(t *testing.T) {
	h := newHouse(t)
	c := h.client(steps.ReadWrite)
	if err := c.Create(t.Context(), "/mine", nil, Anyone, true); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, exists, err := h.client(steps.ReadOnly).Read(t.Context(), "/mine"); exists || err != nil {
		t.Errorf("an ephemeral node after Close: %v, %v", exists, err)
	}
	_, _, err := c.Read(t.Context(), "/mine")
	fails(t, err, "closed", false)
}

func TestConfig(t *testing.T) {
	known := func(string) bool { return false }
	good := Config{Addrs: []schema.Addr{"127.0.0.1:2181"}, Auth: schema.NewSecret("a:b"), Chroot: "/codis"}
	if p := validConfig(good, known); len(p) != 0 {
		t.Errorf("%v", p)
	}
	for input, cfg := range map[string]Config{
		"addrs":   {Addrs: []schema.Addr{"127.0.0.1"}},
		"auth":    {Addrs: good.Addrs, Auth: schema.NewSecret("b")},
		"chroot":  {Addrs: good.Addrs, Chroot: "codis/"},
		"timeout": {Addrs: good.Addrs, Timeout: -1},
	} {
		if p := validConfig(cfg, known); len(p) != 1 || p[0].Input != input {
			t.Errorf("%s: %v", input, p)
		}
	}
}
