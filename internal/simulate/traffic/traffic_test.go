package traffic_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/traffic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a master a and its replica b in one bubble, and clients that follow route.
type pair struct {
	t       *testing.T
	ctx     context.Context
	a, b    *redis.Server
	route   atomic.Pointer[string]
	traffic *traffic.Traffic
}

const addrA, addrB = "127.0.0.1:7001", "127.0.0.1:7002"

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, ctx: t.Context()}
	network := redis.NewNetwork()
	server := func(name, addr string, config map[string]string) *redis.Server {
		s, err := redis.New(redis.Options{Name: name, Addr: addr, NoListen: true, Network: network, Config: config, Lag: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	p.a = server("a", addrA, nil)
	p.b = server("b", addrB, map[string]string{"replicaof": "127.0.0.1 7001"})
	p.point(addrA)
	p.until(p.b, "master_link_status:up")
	return p
}

func (p *pair) point(addr string) { p.route.Store(&addr) }

func (p *pair) dial(_ context.Context, _, addr string) (net.Conn, error) {
	if addr == addrA {
		return p.a.Pipe()
	}
	return p.b.Pipe()
}

func (p *pair) load() {
	p.t.Helper()
	var err error
	p.traffic, err = traffic.Start(p.ctx, traffic.Options{
		Route: func(context.Context) (string, error) { return *p.route.Load(), nil },
		Dial:  p.dial, Clients: 6, Keys: 60, WritesPerSecond: 300,
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) writes(n int64) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := p.traffic.Ledger().WaitAcknowledged(ctx, n); err != nil {
		p.t.Fatalf("%d more writes: %v\n%+v", n, err, p.traffic.Ledger().Stats())
	}
}

func (p *pair) do(s *redis.Server, line string) string {
	p.t.Helper()
	nc, err := s.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	c := resp.NewConn(nc)
	defer func() { _ = c.Close() }()
	v, err := c.Do(p.ctx, strings.Fields(line)...)
	if err != nil {
		p.t.Fatalf("%s on %s: %v", line, s.Name(), err)
	}
	return v.String()
}

func (p *pair) until(s *redis.Server, want string) {
	p.t.Helper()
	for range 10_000 {
		if strings.Contains(p.do(s, "INFO replication"), want+"\r\n") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("%s: never %s", s.Name(), want)
}

func (p *pair) field(s *redis.Server, name string) string {
	p.t.Helper()
	for line := range strings.SplitSeq(p.do(s, "INFO replication"), "\r\n") {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return v
		}
	}
	return ""
}

func (p *pair) check(s *redis.Server) traffic.Report {
	p.t.Helper()
	p.traffic.Stop()
	nc, err := s.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	c := resp.NewConn(nc)
	defer func() { _ = c.Close() }()
	r, err := p.traffic.Check(p.ctx, c.Do)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// TestFailOverDoneRight is the order that the recordings of a real server prove safe: hold writers, wait for equal
// offsets, promote, fence the old master behind the new one, point clients there, and only then let writers go.
func TestFailOverDoneRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.load()
		p.writes(300)
		p.do(p.a, "CLIENT PAUSE 30000 WRITE")
		p.until(p.b, "slave_repl_offset:"+p.field(p.a, "master_repl_offset"))
		held := p.field(p.a, "master_repl_offset")
		time.Sleep(2 * time.Second)
		if now := p.field(p.a, "master_repl_offset"); now != held {
			t.Errorf("offset moved from %s to %s under a pause of writes", held, now)
		}
		p.do(p.b, "REPLICAOF NO ONE")
		p.do(p.a, "REPLICAOF 127.0.0.1 7002")
		p.point(addrB)
		p.do(p.a, "CLIENT UNPAUSE")
		p.writes(300)
		p.until(p.a, "master_link_status:up")
		r := p.check(p.b)
		if broken := r.Broken(); len(broken) > 0 || len(r.Extra) > 0 {
			t.Errorf("broken: %v, extra: %v", broken, r.Extra)
		}
		if r.Unknown != 0 {
			t.Errorf("%d writes have an unknown outcome; no connection was cut", r.Unknown)
		}
		if r.Errors["READONLY"] == 0 {
			t.Error("no held writer was told READONLY")
		}
		if r.MaxWait < 2*time.Second || r.MaxWait > 3*time.Second {
			t.Errorf("the longest wait was %s; the pause took a little over 2s", r.MaxWait)
		}
		if n := p.field(p.a, "master_link_status"); n != "up" {
			t.Errorf("the old master does not follow: %s", n)
		}
		if s := p.do(p.b, "INFO stats"); !strings.Contains(s, "sync_partial_ok:1\r\n") {
			t.Error("the old master needed a full sync, though it had nothing of its own")
		}
	})
}

// TestFailOverWithoutPause proves that the ledger sees what is lost: the replica is made to lag, so the writes that it
// has not applied are there to be lost.
func TestFailOverWithoutPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.load()
		p.writes(100)
		p.b.SetLag(redis.Forever)
		p.writes(100)
		p.do(p.b, "REPLICAOF NO ONE")
		p.point(addrB)
		p.do(p.a, "REPLICAOF 127.0.0.1 7002")
		p.writes(50)
		r := p.check(p.b)
		if len(r.Lost) == 0 {
			t.Errorf("the ledger found no lost write: %+v", r)
		}
		if r.Broken()["no-lost-write"] == "" {
			t.Errorf("not among the broken invariants: %v", r.Broken())
		}
	})
}

// TestReadsOfAStaleReplica: clients are pointed at a replica that lags, whose writes would be refused and whose reads are old.
func TestReadsOfAStaleReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.load()
		p.writes(100)
		p.b.SetLag(redis.Forever)
		p.writes(200)
		p.do(p.b, "REPLICAOF NO ONE") // writable, and behind
		p.point(addrB)
		p.writes(100)
		if r := p.check(p.b); len(r.Stale) == 0 {
			t.Errorf("no stale read found: %+v", r.Stats)
		}
	})
}

// TestUnknownOutcomes: a lost reply is neither a lost write nor an extra one, whichever way it went.
func TestUnknownOutcomes(t *testing.T) {
	for name, act := range map[string]redis.Action{"carried out": redis.CutAfter(), "not carried out": redis.CutBefore()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.a.SetIntercept(everySeventhWrite(act))
				p.load()
				p.writes(600)
				p.a.SetIntercept(nil)
				r := p.check(p.a)
				if len(r.Broken()) > 0 || len(r.Extra) > 0 || r.Unknown == 0 {
					t.Errorf("broken %v, extra %v, unknown %d", r.Broken(), r.Extra, r.Unknown)
				}
			})
		})
	}
}

// TestBlockedAtTheEnd: writers that nobody releases are found, and Stop does not wait for them for ever.
func TestBlockedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.load()
		p.writes(50)
		p.do(p.a, "CLIENT PAUSE 3600000 WRITE")
		time.Sleep(time.Second)
		r := p.check(p.a)
		if !strings.Contains(r.Broken()["clients-served"], "without an answer") {
			t.Errorf("broken: %v", r.Broken())
		}
		if len(r.Lost) > 0 {
			t.Errorf("a write that was never acknowledged counts as lost: %v", r.Lost)
		}
	})
}

// TestBlockedReader: a client that waits for what it reads is without service too, whatever the others wait for.
func TestBlockedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.a.SetIntercept(func(cmd []string) redis.Action {
			if slices.Contains([]string{"GET", "HGET", "LRANGE", "SMEMBERS"}, cmd[0]) {
				return redis.Hang()
			}
			return redis.Pass()
		})
		p.load()
		time.Sleep(5 * time.Second)
		p.traffic.Stop()
		p.a.SetIntercept(nil)
		if r := p.check(p.a); len(r.Blocked) != 6 {
			t.Errorf("clients without service: %v, all of them wait for a read", r.Blocked)
		}
	})
}

func ExampleFinding() {
	fmt.Println(traffic.Finding{Key: "traffic:7", Kind: "counter", Want: "at least 12", Got: "9"})
	// Output: traffic:7 (counter): want at least 12, got "9"
}

// TestUndecidedAnswers: a proxy that has lost its server says so with an error, and the write may have been carried out.
func TestUndecidedAnswers(t *testing.T) {
	const words = "ERR handle response, backend conn reset"
	for name, act := range map[string]redis.Action{"carried out": redis.Garbage("-" + words + "\r\n"), "not carried out": redis.Fail(words)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.a.SetIntercept(everySeventhWrite(act))
				p.load()
				p.writes(600)
				p.a.SetIntercept(nil)
				r := p.check(p.a)
				if len(r.Broken()) > 0 || len(r.Extra) > 0 || r.Unknown == 0 || r.Errors[words] == 0 {
					t.Errorf("broken %v, extra %v, unknown %d, errors %v", r.Broken(), r.Extra, r.Unknown, r.Errors)
				}
			})
		})
	}
}

// TestRefusedWithWords: any other error means that nothing was done: the write is tried again, and counted by its words.
func TestRefusedWithWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.a.SetIntercept(everySeventhWrite(redis.Fail("ERR Server in read-only")))
		p.load()
		p.writes(600)
		r := p.check(p.a)
		if len(r.Broken()) > 0 || len(r.Extra) > 0 || r.Unknown != 0 || r.Errors["ERR Server in read-only"] == 0 {
			t.Errorf("broken %v, extra %v, unknown %d, errors %v", r.Broken(), r.Extra, r.Unknown, r.Errors)
		}
	})
}

// TestLateWrites: what a client gave up waiting for is carried out after what it wrote next. That is its own doing, and
// nothing was lost.
func TestLateWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.a.SetIntercept(everySeventhWrite(redis.Delay(13 * time.Second)))
		p.load()
		time.Sleep(12 * time.Second)
		p.a.SetIntercept(nil)
		p.writes(600)
		time.Sleep(time.Minute)
		r := p.check(p.a)
		if len(r.Broken()) > 0 || len(r.Extra) > 0 || r.Unknown == 0 {
			t.Errorf("broken %v, extra %v, unknown %d", r.Broken(), r.Extra, r.Unknown)
		}
	})
}

func everySeventhWrite(act redis.Action) redis.Intercept {
	var n atomic.Int64
	return func(cmd []string) redis.Action {
		switch cmd[0] {
		case "SET", "INCR", "HMSET", "RPUSH", "SADD", "DEL":
			if n.Add(1)%7 == 0 {
				return act
			}
		}
		return redis.Pass()
	}
}

// TestSeveralPlaces: clients spread over the places that there are, and leave one that refuses them.
func TestSeveralPlaces(t *testing.T) {
	for name, refuse := range map[string]func(p *pair, down *atomic.Bool){
		"refused connection": func(p *pair, down *atomic.Bool) { down.Store(true); p.b.Stop() },
		"not online": func(p *pair, _ *atomic.Bool) {
			p.b.SetIntercept(func([]string) redis.Action { return redis.Fail("ERR router is not online") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.do(p.b, "REPLICAOF NO ONE") // two places that take writes, as far as this test looks
				var down atomic.Bool
				dials := map[string]*atomic.Int64{addrA: {}, addrB: {}}
				var err error
				p.traffic, err = traffic.Start(p.ctx, traffic.Options{
					Routes: func(context.Context) ([]string, error) { return []string{addrA, addrB}, nil },
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						dials[addr].Add(1)
						if addr == addrB && down.Load() {
							return nil, fmt.Errorf("dial %s: connection refused", addr)
						}
						return p.dial(ctx, network, addr)
					},
					Clients: 6, Keys: 60, WritesPerSecond: 300, Tags: []string{"x", "y"},
				})
				if err != nil {
					t.Fatal(err)
				}
				p.writes(100)
				if a, b := dials[addrA].Load(), dials[addrB].Load(); a != 3 || b != 3 {
					t.Errorf("%d clients begin at one place, %d at the other", a, b)
				}
				refuse(p, &down)
				p.writes(300)
				if s := p.traffic.Ledger().Stats(); s.MaxWait > time.Second {
					t.Errorf("a client waited %s: %v", s.MaxWait, s.Errors)
				}
				if a := dials[addrA].Load(); a != 6 {
					t.Errorf("%d clients came to the place that is left", a)
				}
				p.traffic.Stop()
				tagged := 0
				for _, k := range p.a.Do("KEYS", "*").Strings() {
					if strings.HasPrefix(k, "traffic:{x}") || strings.HasPrefix(k, "traffic:{y}") {
						tagged++
					}
				}
				if tagged < 20 || tagged > 30 {
					t.Errorf("%d of 60 keys have a tag, want half", tagged)
				}
			})
		})
	}
}
