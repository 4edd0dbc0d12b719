package redis

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"runbook/schema"
	"runbook/steps"
)

// TestGuard: what may be sent by a client that only looks, down to sub-commands.
func TestGuard(t *testing.T) {
	g := newGuard([]string{"PKCLUSTER INFO", "SLOTSINFO"})
	for _, yes := range []string{
		"PING", "GET k", "get k", "INFO", "ROLE", "CONFIG GET maxmemory", "config get x", "CLUSTER SLOTS", "CLUSTER NODES", "CLIENT LIST", "CLIENT ID",
		"CLIENT GETNAME", "SCAN 0", "HSCAN k 0", "SSCAN k 0", "ZSCAN k 0", "DUMP k", "TYPE k", "PTTL k", "OBJECT ENCODING k", "MEMORY USAGE k", "SORT k",
		"EVAL_RO script 0", "XREAD COUNT 1 STREAMS s 0", "SCRIPT EXISTS sha", "PKCLUSTER INFO SLOT 1", "SLOTSINFO", "SLOWLOG GET", "ACL WHOAMI",
	} {
		if err := g.check(request{args: strings.Fields(yes)}); err != nil {
			t.Errorf("%s: %v", yes, err)
		}
	}
	for _, no := range []string{
		"SET k v", "set k v", "DEL k", "CONFIG SET a b", "CONFIG REWRITE", "CONFIG RESETSTAT", "CONFIG", "CLUSTER SETSLOT 1 NODE x", "CLUSTER FAILOVER", "CLUSTER",
		"CLIENT PAUSE 1", "CLIENT KILL x", "CLIENT SETNAME x", "CLIENT NO-EVICT on", "SCRIPT LOAD x", "SCRIPT FLUSH", "EVAL s 0", "EVALSHA s 0", "FCALL f 0", "MULTI", "EXEC",
		"SORT k STORE d", "SORT k store d", "GETEX k", "GETDEL k", "GETSET k v", "DEBUG SLEEP 1", "SHUTDOWN", "REPLICAOF a 1", "SLAVEOF NO ONE", "FLUSHALL",
		"KEYS *", "MONITOR", "SUBSCRIBE c", "SELECT 1", "XREAD BLOCK 0 STREAMS s $", "XREADGROUP GROUP g c STREAMS s >", "PFCOUNT k", "BITFIELD k SET u8 0 1", "GEORADIUS k 1 1 1 m STORE d",
		"PKCLUSTER ADDSLOTS 1", "ACL SETUSER x", "FUNCTION FLUSH", "SLOWLOG RESET", "LATENCY RESET", "MEMORY PURGE", "MODULE LOAD x", "SENTINEL FAILOVER m", "TOUCH k", "WAIT 1 1", "NOSUCH", "",
	} {
		err := g.check(request{addr: "a:1", args: strings.Fields(no)})
		if err == nil {
			t.Errorf("%s is let through", no)
		} else if e := steps.Classify(err); e.Unknown || e.Temporary || e.Kind != "refused-write" {
			t.Errorf("%s: %+v", no, e)
		}
	}
}

// TestGuardBeforeSending: nothing is sent, not even a connection, and go-redis cannot go around it.
func TestGuardBeforeSending(t *testing.T) {
	s := simulated().start(t, "")
	c := s.client(t, steps.ReadOnly)
	var refused *RefusedError
	if _, err := c.Do(t.Context(), "SET", "k", "v"); !errors.As(err, &refused) {
		t.Errorf("Do: %v", err)
	}
	if _, err := s.client(t, steps.ReadWrite).Read(t.Context(), []string{"GET", "k"}, []string{"SET", "k", "v"}); !errors.As(err, &refused) {
		t.Errorf("Read on a client that may write: %v", err)
	}
	if _, err := c.Do(t.Context(), "GET", "k"); err != nil {
		t.Fatal(err)
	}
	l := c.idle[0]
	for what, call := range map[string]func() error{
		"process": func() error { return l.rdb.Set(t.Context(), "k", "v", 0).Err() },
		"pipeline": func() error {
			_, err := l.rdb.Pipelined(t.Context(), func(p goredis.Pipeliner) error { p.Set(t.Context(), "k", "v", 0); return nil })
			return err
		},
		"transaction": func() error {
			_, err := l.rdb.TxPipelined(t.Context(), func(p goredis.Pipeliner) error { p.Get(t.Context(), "k"); return nil })
			return err
		},
		"connection": func() error { return l.rdb.Conn().Set(t.Context(), "k", "v", 0).Err() },
	} {
		if err := call(); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(s.sim.Writes()); n != 0 {
		t.Errorf("%d writes arrived: %v", n, s.sim.Writes())
	}
}

// scripted is a server that answers each request by a rule: what a real one does only when it is ill.
func scripted(t *testing.T, answer func(cmd string, c net.Conn)) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return scriptedOn(t, l, Config{Timeout: 200 * time.Millisecond}, answer)
}

func scriptedOn(t *testing.T, l net.Listener, cfg Config, answer func(cmd string, c net.Conn)) *Client {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			for {
				cmd, err := readCommand(r)
				if err != nil {
					break
				}
				answer(cmd, conn)
			}
			_ = conn.Close()
		}
	}()
	cfg.Addr, cfg.Password = schema.Addr(l.Addr().String()), schema.NewSecret(password)
	c := Open(cfg, steps.ReadWrite, Dialect{})
	t.Cleanup(func() {
		_ = c.Close()
		_ = l.Close()
		<-done
	})
	return c
}

func readCommand(r *bufio.Reader) (string, error) {
	var n int
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	for _, d := range strings.TrimSpace(line[1:]) {
		n = n*10 + int(d-'0')
	}
	var words []string
	for range n {
		if _, err = r.ReadString('\n'); err != nil {
			return "", err
		}
		w, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		words = append(words, strings.TrimSpace(w))
	}
	return strings.Join(words, " "), nil
}

// TestFailures: each failure has its class, which side of the effect it lies on, the server's words and no secret.
func TestFailures(t *testing.T) {
	reply := func(text string) func(string, net.Conn) {
		return func(cmd string, c net.Conn) {
			if strings.HasPrefix(cmd, "AUTH") {
				text := "+OK\r\n"
				_, _ = c.Write([]byte(text))
				return
			}
			_, _ = c.Write([]byte(text))
		}
	}
	for _, tc := range []struct {
		name               string
		answer             func(string, net.Conn)
		kind               string
		temporary, unknown bool
		says               string
	}{
		{"loading", reply("-LOADING Redis is loading the dataset in memory\r\n"), "loading", true, false, "LOADING Redis is"},
		{"masterdown", reply("-MASTERDOWN Link with MASTER is down\r\n"), "masterdown", true, false, "MASTERDOWN"},
		{"tryagain", reply("-TRYAGAIN Multiple keys\r\n"), "tryagain", true, false, ""},
		{"busy", reply("-BUSY Redis is busy running a script\r\n"), "busy", true, false, ""},
		{"clusterdown", reply("-CLUSTERDOWN The cluster is down\r\n"), "clusterdown", true, false, ""},
		{"noauth", reply("-NOAUTH Authentication required.\r\n"), "auth", false, false, "NOAUTH"},
		{"noperm", reply("-NOPERM this user has no permissions\r\n"), "auth", false, false, ""},
		{"readonly", reply("-READONLY You can't write against a read only replica.\r\n"), "readonly", false, false, "READONLY"},
		{"other", reply("-ERR value is not an integer, says " + password + "\r\n"), "server", false, false, "value is not an integer"},
		{"clients", reply("-ERR max number of clients reached\r\n"), "busy", true, false, ""},
		{"garbage", reply("?what\r\n"), "reply", false, true, "cannot be read"},
		{"silence", reply(""), "timeout", true, true, "no answer within 200ms"},
		{"cut", func(cmd string, c net.Conn) {
			if strings.HasPrefix(cmd, "AUTH") {
				_, _ = c.Write([]byte("+OK\r\n"))
				return
			}
			_ = c.Close()
		}, "closed", true, true, "before an answer came"},
		{"half an answer", func(cmd string, c net.Conn) {
			if strings.HasPrefix(cmd, "AUTH") {
				_, _ = c.Write([]byte("+OK\r\n"))
				return
			}
			_, _ = c.Write([]byte("$10\r\nabc"))
			_ = c.Close()
		}, "closed", true, true, ""},
		{"login refused", func(_ string, c net.Conn) {
			_, _ = c.Write([]byte("-WRONGPASS invalid username-password pair\r\n"))
		}, "auth", false, false, "log in with AUTH ***"},
		{"login cut", func(_ string, c net.Conn) { _ = c.Close() }, "closed", true, false, "log in"},
		{"login garbage", func(_ string, c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400\r\n")) }, "closed", true, false, "not of the protocol"},
		{"login silence", func(string, net.Conn) {}, "timeout", true, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := scripted(t, tc.answer)
			_, err := c.Do(t.Context(), "CONFIG", "SET", "requirepass", "another-secret")
			e := steps.Classify(err)
			if e == nil {
				t.Fatal("no error")
			}
			if e.Kind != tc.kind || e.Temporary != tc.temporary || e.Unknown != tc.unknown {
				t.Errorf("%s, temporary %v, unknown %v: %v", e.Kind, e.Temporary, e.Unknown, err)
			}
			if !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "CONFIG SET requirepass *** on "+c.Addr()) {
				t.Errorf("does not say what: %v", err)
			}
			if strings.Contains(err.Error()+e.Hint, password) || strings.Contains(err.Error(), "another-secret") {
				t.Errorf("shows a secret: %v", err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		c := Open(Config{Addr: schema.Addr("127.0.0.1:" + freePort(t))}, steps.ReadWrite, Dialect{})
		defer func() { _ = c.Close() }()
		for range 20 { // a pool that counts failures would answer from memory by now
			_, err := c.Do(t.Context(), "SET", "k", "v")
			if e := steps.Classify(err); e == nil || e.Kind != "refused" || !e.Temporary || e.Unknown || !nobodyThere(err) {
				t.Fatalf("%+v", e)
			}
		}
	})
	t.Run("deadline", func(t *testing.T) {
		c := scripted(t, reply(""))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := c.Do(ctx, "SET", "k", "v")
		if e := steps.Classify(err); e.Kind != "timeout" || !e.Unknown || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		why := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		c := scripted(t, func(cmd string, conn net.Conn) {
			if strings.HasPrefix(cmd, "AUTH") {
				_, _ = conn.Write([]byte("+OK\r\n"))
				return
			}
			cancel(why)
		})
		_, err := c.Do(ctx, "SET", "k", "v")
		if e := steps.Classify(err); e.Kind != "canceled" || !e.Unknown || !errors.Is(err, why) {
			t.Errorf("%+v", e)
		}
		_, err = c.Do(ctx, "SET", "k", "v")
		if e := steps.Classify(err); e.Kind != "canceled" || e.Unknown || !errors.Is(err, why) {
			t.Errorf("not sent: %+v", e)
		}
	})
}

// TestWire: servers see no HELLO, no CLIENT SETINFO, and nothing twice; a connection closed meanwhile is not used.
func TestWire(t *testing.T) {
	seen := make(chan string, 100)
	first := true
	c := scripted(t, func(cmd string, conn net.Conn) {
		seen <- cmd
		_, _ = conn.Write([]byte("+OK\r\n"))
		if cmd == "SET a 1" && first {
			first = false
			_ = conn.Close()
		}
	})
	if _, err := c.Do(t.Context(), "SET", "a", "1"); err != nil {
		t.Fatal(err)
	}
	l := c.idle[0]
	eventually(t, "the end has come through", func() bool { return !l.w.usable() })
	if _, err := c.Do(t.Context(), "SET", "b", "2"); err != nil {
		t.Errorf("after the server closed the connection: %v", err)
	}
	close(seen)
	var got []string
	for cmd := range seen {
		got = append(got, cmd)
	}
	want := "AUTH " + password + ";SET a 1;AUTH " + password + ";SET b 2"
	if strings.Join(got, ";") != want {
		t.Errorf("sent: %q", got)
	}
}

// TestMask: what a command line shows.
func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"AUTH u p":                             "AUTH *** ***",
		"HELLO 3 AUTH u p SETNAME x":           "HELLO 3 AUTH *** *** SETNAME x",
		"config set requirepass p":             "config set requirepass ***",
		"CONFIG SET maxmemory 1 masterauth p":  "CONFIG SET maxmemory 1 masterauth ***",
		"ACL SETUSER u on >p ~*":               "ACL SETUSER u on >*** ~*",
		"MIGRATE h 1 k 0 10 AUTH p":            "MIGRATE h 1 k 0 10 AUTH ***",
		"MIGRATE h 1 k 0 10 AUTH2 u p KEYS k2": "MIGRATE h 1 k 0 10 AUTH2 *** *** KEYS k2",
		"SENTINEL SET m auth-pass p":           "SENTINEL SET m auth-pass ***",
		"SET k v":                              "SET k v",
	} {
		if got := Line(strings.Fields(in)); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

// TestSame: settings that mean the same.
func TestSame(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		same       bool
	}{
		{"maxmemory", "64mb", "67108864", true},
		{"maxmemory", "64m", "64000000", true},
		{"maxmemory", "64mb", "64m", false},
		{"appendonly", "true", "yes", true},
		{"appendonly", "no", "yes", false},
		{"save", "3600 1  300 100", "3600 1 300 100", true},
		{"maxmemory-policy", "AllKeys-LRU", "allkeys-lru", true},
		{"notify-keyspace-events", "KEA", "AKE", true},
		{"notify-keyspace-events", "$sK", "K$s", true},
		{"notify-keyspace-events", "Ks", "KS", false},
		{"client-output-buffer-limit", "replica 512mb 64mb 60", "normal 0 0 0 slave 536870912 67108864 60 pubsub 1 2 3", true},
		{"client-output-buffer-limit", "replica 512mb 64mb 61", "normal 0 0 0 slave 536870912 67108864 60 pubsub 1 2 3", false},
		{"requirepass", "ABC", "abc", false},
		{"requirepass", "1", "1.0", false},
		{"hz", "10", "10.0", true},
		{"dir", "/a", "/b", false},
	} {
		if got := same(tc.name, tc.a, tc.b); got != tc.same {
			t.Errorf("%s: %q and %q: %v", tc.name, tc.a, tc.b, got)
		}
	}
}

// TestTLS: the server's certificate is checked, and a connection is used again.
func TestTLS(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"redis.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(cfg Config, seen chan string) *Client {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		if err != nil {
			t.Fatal(err)
		}
		return scriptedOn(t, l, cfg, func(cmd string, c net.Conn) {
			seen <- cmd
			_, _ = c.Write([]byte("+OK\r\n"))
		})
	}
	seen := make(chan string, 10)
	c := serve(Config{TLS: true, TLSCA: ca, TLSName: "redis.test"}, seen)
	for range 2 {
		if _, err := c.Do(t.Context(), "SET", "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3 {
		t.Errorf("AUTH and two requests were expected, not %d", len(seen))
	}
	for _, cfg := range []Config{{TLS: true, TLSName: "redis.test"}, {TLS: true, TLSCA: ca, TLSName: "other.test"}, {TLS: true, TLSCA: ca}} {
		_, err := serve(cfg, seen).Do(t.Context(), "SET", "k", "v")
		if e := steps.Classify(err); e == nil || e.Kind != "tls" || e.Unknown {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
