package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is two or more servers of one network inside a bubble.
type world struct {
	*testing.T
	network *redis.Network
}

func bubble(t *testing.T, f func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(world{t, redis.NewNetwork()}) })
}

func (w world) server(port string, opts redis.Options) *redis.Server {
	w.Helper()
	opts.Name, opts.Addr, opts.NoListen, opts.Network = port, "127.0.0.1:"+port, true, w.network
	s, err := redis.New(opts)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	return s
}

func (w world) client(s *redis.Server) *resp.Conn {
	w.Helper()
	nc, err := s.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = nc.Close() })
	return resp.NewConn(nc)
}

// ask sends one command on a connection of its own and gives the answer, or the error, as text.
func (w world) ask(s *redis.Server, line string) string {
	w.Helper()
	c := w.client(s)
	defer func() { _ = c.Close() }()
	v, err := c.Do(w.Context(), strings.Fields(line)...)
	if err != nil {
		return err.Error()
	}
	if v.Kind == resp.Null {
		return "nil"
	}
	return v.String()
}

func (w world) want(s *redis.Server, line, want string) {
	w.Helper()
	if got := w.ask(s, line); got != want {
		w.Errorf("%s at %s: %q, want %q", line, s.Name(), got, want)
	}
}

func (w world) shows(s *redis.Server, want string) {
	w.Helper()
	if got := w.ask(s, "INFO replication"); !strings.Contains(got, want) {
		w.Errorf("%s does not show %q but\n%s", s.Name(), want, got)
	}
}

func TestStatesOfAFullSync(t *testing.T) {
	bubble(t, func(w world) {
		a := w.server("1", redis.Options{})
		b := w.server("2", redis.Options{FullSync: 10 * time.Second, Lag: time.Second})
		w.ask(a, "SET k 1")
		w.ask(b, "SET mine 1")
		w.ask(b, "REPLICAOF 127.0.0.1 1")
		time.Sleep(9 * time.Second)
		w.shows(b, "master_link_status:down\r\n")
		w.shows(b, "master_sync_in_progress:1\r\n")
		w.shows(a, "slave0:ip=127.0.0.1,port=2,state=wait_bgsave,")
		w.want(b, "GET mine", "1")
		w.ask(a, "SET k 2")
		time.Sleep(1500 * time.Millisecond)
		w.shows(b, "master_link_status:up\r\n")
		w.shows(a, ",state=online,")
		w.want(b, "GET mine", "nil")
		w.want(b, "GET k", "2") // written during the sync: applied after it
		w.ask(a, "SET k 3")
		time.Sleep(900 * time.Millisecond)
		w.want(b, "GET k", "2") // Lag
		time.Sleep(200 * time.Millisecond)
		w.want(b, "GET k", "3")
	})
}

func TestLinkFaults(t *testing.T) {
	bubble(t, func(w world) {
		a, b := w.server("1", redis.Options{}), w.server("2", redis.Options{Config: map[string]string{"replicaof": "127.0.0.1 1"}})
		time.Sleep(time.Second)
		w.network.Cut(a, b)
		w.ask(a, "SET k 1")
		time.Sleep(5 * time.Second)
		w.shows(b, "master_link_status:down\r\n")
		w.shows(b, "master_link_down_since_seconds:5\r\n")
		w.shows(a, "connected_slaves:0\r\n")
		w.network.Mend(a, b)
		time.Sleep(2 * time.Second)
		w.want(b, "GET k", "1")
		if got := w.ask(a, "INFO stats"); !strings.Contains(got, "sync_full:1\r\nsync_partial_ok:1\r\n") {
			t.Errorf("the link came back by a full sync:\n%s", got)
		}
		b.SetLag(redis.Forever)
		w.ask(a, "SET k 2")
		time.Sleep(time.Hour)
		w.want(b, "GET k", "1")
		w.shows(b, "master_link_status:up\r\n")
		b.SetLag(0)
		time.Sleep(time.Second)
		w.want(b, "GET k", "2")
		w.network.Drop(a, b)
		time.Sleep(time.Second)
		w.shows(b, "master_link_status:up\r\n")
	})
}

func TestRestart(t *testing.T) {
	bubble(t, func(w world) {
		a, b := w.server("1", redis.Options{}), w.server("2", redis.Options{})
		w.ask(b, "REPLICAOF 127.0.0.1 1")
		w.ask(b, "CONFIG SET maxmemory 1gb")
		w.ask(a, "SET k 1")
		time.Sleep(time.Second)
		run := b.Do("INFO", "server").Str
		if err := b.Restart(true); err != nil {
			t.Fatal(err)
		}
		w.shows(b, "role:master\r\n") // an unsaved REPLICAOF is forgotten
		w.want(b, "CONFIG GET maxmemory", "maxmemory 0")
		w.want(b, "GET k", "1")
		if now := b.Do("INFO", "server").Str; now == run {
			t.Error("the run id is the old one")
		}
		if err := b.Restart(false); err != nil {
			t.Fatal(err)
		}
		w.want(b, "GET k", "nil")
		b.Stop()
		if _, err := b.Pipe(); err == nil {
			t.Error("a stopped server takes connections")
		}
	})
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		act     redis.Action
		reply   string // or the error's text
		done    string // the value afterwards
		unclear bool   // no answer came
	}{
		"pass":       {redis.Pass(), "OK", "1", false},
		"fail":       {redis.Fail("ERR out of order"), "ERR out of order", "nil", false},
		"cut before": {redis.CutBefore(), io.EOF.Error(), "nil", true},
		"cut after":  {redis.CutAfter(), io.EOF.Error(), "1", true},
		"garbage":    {redis.Garbage("?what\r\n"), "not the redis protocol", "1", true},
		"delay":      {redis.Delay(time.Minute), "OK", "1", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w world) {
				s := w.server("1", redis.Options{})
				s.SetIntercept(func(cmd []string) redis.Action {
					if cmd[0] == "SET" {
						return c.act
					}
					return redis.Pass()
				}, "exempt")
				begun := time.Now()
				v, err := w.client(s).Do(w.Context(), "SET", "k", "1")
				got := v.String()
				if err != nil {
					got = err.Error()
				}
				if !strings.Contains(got, c.reply) {
					t.Errorf("answer %q, want %q", got, c.reply)
				}
				var reply resp.ReplyError
				if unclear := err != nil && !errors.As(err, &reply); unclear != c.unclear {
					t.Errorf("outcome unknown: %v, want %v (%v)", unclear, c.unclear, err)
				}
				if name == "delay" && time.Since(begun) != time.Minute {
					t.Errorf("it took %s", time.Since(begun))
				}
				w.want(s, "GET k", c.done)
				exempt := w.client(s)
				if _, err := exempt.Do(w.Context(), "CLIENT", "SETNAME", "exempt"); err != nil {
					t.Fatal(err)
				}
				if _, err := exempt.Do(w.Context(), "SET", "k", "2"); err != nil {
					t.Errorf("a client that is exempt was hit: %v", err)
				}
				w.want(s, "GET k", "2")
			})
		})
	}
}

func TestHang(t *testing.T) {
	bubble(t, func(w world) {
		s := w.server("1", redis.Options{})
		s.SetIntercept(func([]string) redis.Action { return redis.Hang() })
		ctx, cancel := context.WithTimeout(w.Context(), time.Hour)
		defer cancel()
		if _, err := w.client(s).Do(ctx, "PING"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestHeldClientThatLeaves: its command must not be carried out when the pause ends; nobody would know of it.
func TestHeldClientThatLeaves(t *testing.T) {
	bubble(t, func(w world) {
		s := w.server("1", redis.Options{})
		w.ask(s, "CLIENT PAUSE 60000 WRITE")
		c := w.client(s)
		if err := c.Send("SET", "k", "ghost"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := w.ask(s, "INFO clients"); !strings.Contains(got, "blocked_clients:1\r\n") {
			t.Errorf("nobody is held:\n%s", got)
		}
		_ = c.Close()
		synctest.Wait()
		w.ask(s, "CLIENT UNPAUSE")
		synctest.Wait()
		w.want(s, "GET k", "nil")
	})
}

func TestLogOfWrites(t *testing.T) {
	bubble(t, func(w world) {
		s := w.server("1", redis.Options{})
		for _, line := range []string{
			"PING", "GET k", "INFO", "ROLE", "CONFIG GET *", "SCAN 0", "CLIENT LIST", "TTL k", "DUMP k", "HGETALL h", "WAIT 0 0", "COMMAND", "OBJECT HELP",
			"CLIENT SETNAME x", "SELECT 1", "MULTI", "EXISTS k", "DBSIZE", "LASTSAVE", "TIME", "HELLO 2", "CLUSTER INFO",
		} {
			w.ask(s, line)
		}
		s.Do("SET", "not", "a client's")
		if got := s.Writes(); len(got) != 0 {
			t.Errorf("reads are logged as writes: %q", got)
		}
		changing := []string{
			"SET k 1", "DEL k", "EXPIRE k 1", "CONFIG SET maxmemory 1gb", "CONFIG REWRITE", "CLIENT PAUSE 1 WRITE", "CLIENT UNPAUSE", "CLIENT KILL ID 9",
			"REPLICAOF NO ONE", "BGSAVE", "FLUSHALL", "RESTORE k 0 x", "PUBLISH a b",
		}
		for _, line := range changing {
			w.ask(s, line)
		}
		var got []string
		for _, cmd := range s.Writes() {
			got = append(got, strings.Join(cmd, " "))
		}
		if !slices.Equal(got, changing) {
			t.Errorf("got %q\nwant %q", got, changing)
		}
	})
}

// TestScanMissesNothing: what is there from beginning to end is returned, whatever else comes and goes.
func TestScanMissesNothing(t *testing.T) {
	bubble(t, func(w world) {
		s := w.server("1", redis.Options{})
		for i := range 3000 {
			s.Do("SET", fmt.Sprint("stays:", i), "1")
			s.Do("SET", fmt.Sprint("goes:", i), "1")
		}
		seen := map[string]bool{}
		cursor, rounds := "0", 0
		for {
			v := s.Do("SCAN", cursor, "COUNT", "50", "MATCH", "stays:*")
			for _, k := range v.Items[1].Strings() {
				seen[k] = true
			}
			s.Do("DEL", fmt.Sprint("goes:", rounds), fmt.Sprint("goes:", 2999-rounds))
			s.Do("SET", fmt.Sprint("comes:", rounds), "1")
			rounds++
			if cursor = v.Items[0].Str; cursor == "0" {
				break
			}
		}
		if len(seen) != 3000 || rounds < 20 {
			t.Errorf("%d of 3000 keys in %d rounds", len(seen), rounds)
		}
	})
}

func TestDumpAndRestore(t *testing.T) {
	bubble(t, func(w world) {
		a, b := w.server("1", redis.Options{}), w.server("2", redis.Options{})
		for _, line := range []string{"SET s \x00bytes\xff", "RPUSH l a b", "HSET h f v g w", "SADD u x y z", "ZADD z 1.5 a inf b"} {
			a.Do(strings.Fields(line)...)
		}
		for k, read := range map[string][]string{"s": {"GET", "s"}, "l": {"LRANGE", "l", "0", "-1"}, "h": {"HGETALL", "h"}, "u": {"SCARD", "u"}, "z": {"ZRANGE", "z", "0", "-1", "WITHSCORES"}} {
			dump := a.Do("DUMP", k).Str
			if v := b.Do("RESTORE", k, "5000", dump); v.Str != "OK" {
				t.Fatalf("%s: %v", k, v)
			}
			if x, y := a.Do(read...).String(), b.Do(read...).String(); x != y {
				t.Errorf("%s: %q became %q", k, x, y)
			}
			if b.Do("DUMP", k).Str != dump {
				t.Errorf("%s: equal values, other payloads", k)
			}
			if b.Do("PTTL", k).Int != 5000 {
				t.Errorf("%s: time to live %d", k, b.Do("PTTL", k).Int)
			}
			if v := b.Do("RESTORE", k, "0", dump); !strings.HasPrefix(v.Str, "BUSYKEY") {
				t.Errorf("%s again: %v", k, v)
			}
		}
	})
}

func TestExpiryIsReplicated(t *testing.T) {
	bubble(t, func(w world) {
		a, b := w.server("1", redis.Options{}), w.server("2", redis.Options{Config: map[string]string{"replicaof": "127.0.0.1 1"}})
		time.Sleep(time.Second)
		w.ask(a, "SET k 1 PX 10000")
		time.Sleep(time.Second)
		w.want(b, "PTTL k", "9000")
		b.SetLag(redis.Forever) // the master's DEL does not come
		time.Sleep(10 * time.Second)
		w.want(b, "GET k", "nil")
		w.want(b, "DBSIZE", "1") // a replica hides, and does not delete
		b.SetLag(0)
		time.Sleep(time.Second)
		w.want(b, "DBSIZE", "0")
		w.want(a, "DBSIZE", "0")
	})
}

func TestWaitAsksReplicas(t *testing.T) {
	bubble(t, func(w world) {
		a := w.server("1", redis.Options{})
		w.server("2", redis.Options{Config: map[string]string{"replicaof": "127.0.0.1 1"}, Lag: 300 * time.Millisecond})
		time.Sleep(time.Second)
		c := w.client(a)
		for _, step := range []struct{ line, want string }{{"SET k 1", "OK"}, {"WAIT 1 100", "0"}, {"WAIT 1 5000", "1"}, {"WAIT 2 50", "1"}} {
			v, err := c.Do(w.Context(), strings.Fields(step.line)...)
			if err != nil || v.String() != step.want {
				t.Errorf("%s: %v, %v, want %s", step.line, v, err, step.want)
			}
		}
	})
}

func TestOlderReleases(t *testing.T) {
	bubble(t, func(w world) {
		s := w.server("1", redis.Options{Release: "3.2.12"})
		w.want(s, "HELLO 2", "ERR unknown command `HELLO`, with args beginning with: `2`, ")
	})
}

func TestParseFile(t *testing.T) {
	for text, want := range map[string]string{
		"port 6390\n# x\n\nsave 900 1\nsave 300 10": "map[port:6390 save:900 1 300 10]",
		`requirepass "a b#c"`:                       "map[requirepass:a b#c]",
		"slaveof 127.0.0.1 1":                       "map[replicaof:127.0.0.1 1]",
		"maxmemory 1gb":                             "map[maxmemory:1073741824]",
		"port":                                      "wrong number of arguments",
		"nosuch 1":                                  ">>> 'nosuch 1'",
		"appendonly maybe":                          "argument must be 'yes' or 'no'",
	} {
		m, err := redis.ParseFile(text)
		got := fmt.Sprint(m)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
