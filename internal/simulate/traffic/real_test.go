package traffic_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/traffic"
)

// TestRealFailOver does the fail-over of TestFailOverDoneRight with two real servers, when asked for (REAL=1): what the
// simulator promises is what they do.
func TestRealFailOver(t *testing.T) {
	if os.Getenv("REAL") == "" {
		t.Skip("REAL=1 runs against two redis-server processes")
	}
	ctx := t.Context()
	var addrs []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().(*net.TCPAddr)
		_ = l.Close()
		cmd := exec.Command("redis-server", "--port", fmt.Sprint(addr.Port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--repl-diskless-sync-delay", "0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		addrs = append(addrs, addr.String())
	}
	a, b := addrs[0], addrs[1]
	do := func(addr, line string) string {
		t.Helper()
		var err error
		for range 200 {
			var c *resp.Conn
			if c, err = resp.Dial(ctx, addr); err == nil {
				v, err := c.Do(ctx, strings.Fields(line)...)
				_ = c.Close()
				if err != nil {
					t.Fatal(err)
				}
				return v.String()
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal(err)
		return ""
	}
	field := func(addr, name string) string {
		_, rest, _ := strings.Cut(do(addr, "INFO replication"), name+":")
		v, _, _ := strings.Cut(rest, "\r\n")
		return v
	}
	until := func(addr, name string, want func() string) {
		t.Helper()
		for range 2000 {
			if field(addr, name) == want() {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("%s: never %s:%s", addr, name, want())
	}
	_, port, _ := net.SplitHostPort(a)
	do(b, "REPLICAOF 127.0.0.1 "+port)
	until(b, "master_link_status", func() string { return "up" })
	var route atomic.Pointer[string]
	route.Store(&a)
	load, err := traffic.Start(ctx, traffic.Options{
		Route:   func(context.Context) (string, error) { return *route.Load(), nil },
		Clients: 8, Keys: 200, WritesPerSecond: 1500,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Ledger().WaitAcknowledged(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	do(a, "CLIENT PAUSE 30000 WRITE")
	until(b, "slave_repl_offset", func() string { return field(a, "master_repl_offset") })
	do(b, "REPLICAOF NO ONE")
	_, port, _ = net.SplitHostPort(b)
	do(a, "REPLICAOF 127.0.0.1 "+port)
	route.Store(&b)
	do(a, "CLIENT UNPAUSE")
	if err := load.Ledger().WaitAcknowledged(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	load.Stop()
	read, done, err := traffic.ReadAt(ctx, nil, b, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	r, err := load.Check(ctx, read)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r.Stats)
	if len(r.Broken()) > 0 || len(r.Extra) > 0 || r.Unknown > 0 {
		t.Errorf("broken %v, extra %v, unknown %d", r.Broken(), r.Extra, r.Unknown)
	}
}
