package redis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	simulate "runbook/internal/simulate/redis"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

// bound makes a kind's input and the view it runs in.
func bound(t *testing.T, d *steps.Definition, w conformance.World) (*conformance.Env, any) {
	t.Helper()
	env := conformance.NewEnv(w)
	t.Cleanup(func() { _ = env.Close() })
	in := reflect.New(d.In).Interface()
	if err := schema.Bind(w.With, in); err != nil {
		t.Fatal(err)
	}
	return env, in
}

func read[Out any](t *testing.T, name string, w conformance.World) Out {
	t.Helper()
	d := kind(t, name)
	env, in := bound(t, d, w)
	out, err := d.Read(t.Context(), steps.NewView(env), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.(Out)
}

func check(t *testing.T, name string, w conformance.World) error {
	t.Helper()
	d := kind(t, name)
	env, in := bound(t, d, w)
	return d.Check(t.Context(), steps.NewView(env), in)
}

// refusedFor fails unless err is a failed precondition that says so.
func refusedFor(t *testing.T, err error, says string) {
	t.Helper()
	if e := steps.Classify(err); e == nil || e.Kind != "precondition" || !strings.Contains(err.Error(), says) {
		t.Errorf("not refused for %q: %v", says, err)
	}
}

// TestLag: known and right where it can be known, null where it cannot.
func TestLag(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			b := b.fresh()
			a := b.start(t, password)
			r := b.start(t, password, "masterauth", password)
			if out := read[infoOut](t, "redis.info", world(a, nil, nil, nil)); out.Lag != nil || len(out.Replicas) != 0 || out.Role != "master" {
				t.Errorf("a master without replicas: %+v", out)
			}
			a.do(t, "SET", "k", "1")
			follow(t, r, a)
			out := read[infoOut](t, "redis.info", world(r, nil, map[string]any{"section": "keyspace"}, nil))
			if out.Lag == nil || *out.Lag != 0 || out.MasterAddr != a.addr || out.MasterLink != "up" || out.Keys != 1 || out.Offset == nil {
				t.Errorf("a replica that has caught up: %+v", out)
			}
			if _, ok := out.Fields["db0"]; !ok || len(out.Fields) != 1 {
				t.Errorf("fields of the section: %v", out.Fields)
			}
			if out := read[infoOut](t, "redis.info", world(a, nil, nil, nil)); out.Lag == nil || out.Connected != 1 {
				t.Errorf("a master with a replica online: %+v", out)
			}
			r.do(t, "REPLICAOF", "127.0.0.1", "1")
			if out := read[infoOut](t, "redis.info", world(r, nil, nil, nil)); out.Lag != nil {
				t.Errorf("the link is down: lag %d", *out.Lag)
			}
		})
	}
}

// TestLagOfAnotherPassword: a master that does not let us in leaves the lag unknown, not 0.
func TestLagOfAnotherPassword(t *testing.T) {
	b := simulated()
	a, r := b.start(t, "the-master's-own"), b.start(t, password, "masterauth", "the-master's-own")
	follow(t, r, a)
	if out := read[infoOut](t, "redis.info", world(r, nil, nil, nil)); out.Lag != nil || out.MasterLink != "up" {
		t.Errorf("%+v", out)
	}
}

// TestReplicaOfRefuses what would lose data or never come up.
func TestReplicaOfRefuses(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			b := b.fresh()
			a, r, c := b.start(t, ""), b.start(t, ""), b.start(t, "")
			a.do(t, "SET", "k", "1")
			follow(t, r, a)
			follow(t, c, r)
			to := func(s *server) map[string]any { return map[string]any{"master": s.addr} }
			refusedFor(t, check(t, "redis.replicaof", world(a, nil, to(a), nil)), "that is itself")
			refusedFor(t, check(t, "redis.replicaof", world(a, nil, to(r), nil)), "follows")
			refusedFor(t, check(t, "redis.replicaof", world(a, nil, to(c), nil)), "follows")
			empty := b.start(t, "")
			refusedFor(t, check(t, "redis.replicaof", world(a, nil, to(empty), nil)), "has no keys")
			if err := check(t, "redis.replicaof", world(a, nil, map[string]any{"master": empty.addr, "allow_empty_master": true}, nil)); err != nil {
				t.Error(err)
			}
			locked := b.start(t, password)
			locked.do(t, "SET", "k", "1")
			w := world(c, map[string]*server{"locked": locked}, map[string]any{"master": "locked"}, nil)
			refusedFor(t, check(t, "redis.replicaof", w), "no masterauth")
			c.do(t, "CONFIG", "SET", "masterauth", "wrong")
			refusedFor(t, check(t, "redis.replicaof", w), "not the master's password")
			c.do(t, "CONFIG", "SET", "masterauth", password)
			if err := check(t, "redis.replicaof", w); err != nil {
				t.Error(err)
			}
			gone := b.start(t, "")
			if gone.sim != nil {
				gone.sim.Stop()
				if e := steps.Classify(check(t, "redis.replicaof", world(a, nil, to(gone), nil))); e == nil || !e.Temporary || e.Unknown {
					t.Errorf("a master that is down: %+v", e)
				}
			}
		})
	}
}

// TestReplicaOfUndo goes back to the old master, and not over what somebody else did since.
func TestReplicaOfUndo(t *testing.T) {
	b := simulated()
	a, other, r := b.start(t, ""), b.start(t, ""), b.start(t, "")
	follow(t, r, a)
	d := kind(t, "redis.replicaof")
	env, in := bound(t, d, world(r, nil, map[string]any{"none": true}, nil))
	v, s := steps.NewView(env), steps.NewSession(env)
	change, err := d.Plan(t.Context(), &v, in)
	if err != nil {
		t.Fatal(err)
	}
	env.SetBefore(change.Before)
	out, err := d.Apply(t.Context(), s, in)
	if err != nil || out.(replicaOfOut).Role != "master" {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := d.Undo(t.Context(), s, in, nil); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, a, r)
	follow(t, r, other)
	if e := steps.Classify(d.Undo(t.Context(), s, in, nil)); e == nil || e.Kind != "conflict" {
		t.Errorf("undo over somebody else's change: %+v", e)
	}
}

// TestConfigSetUndo leaves alone what somebody else has set since, and never keeps a secret.
func TestConfigSetUndo(t *testing.T) {
	a := simulated().start(t, "")
	d := kind(t, "redis.config-set")
	env, in := bound(t, d, world(a, nil, map[string]any{"name": "maxmemory", "value": "64mb"}, nil))
	v, s := steps.NewView(env), steps.NewSession(env)
	change, err := d.Plan(t.Context(), &v, in)
	if err != nil {
		t.Fatal(err)
	}
	env.SetBefore(change.Before)
	if _, err := d.Apply(t.Context(), s, in); err != nil {
		t.Fatal(err)
	}
	a.do(t, "CONFIG", "SET", "maxmemory", "1gb")
	if e := steps.Classify(d.Undo(t.Context(), s, in, nil)); e == nil || e.Kind != "conflict" {
		t.Errorf("%+v", e)
	}

	env, in = bound(t, d, world(a, nil, map[string]any{"name": "masterauth", "value": password}, nil))
	a.do(t, "CONFIG", "SET", "masterauth", "the-old-secret")
	v, s = steps.NewView(env), steps.NewSession(env)
	if change, err = d.Plan(t.Context(), &v, in); err != nil {
		t.Fatal(err)
	}
	env.SetBefore(change.Before)
	out, err := d.Apply(t.Context(), s, in)
	if err != nil {
		t.Fatal(err)
	}
	undo := d.Undo(t.Context(), s, in, nil)
	text := fmt.Sprintf("%+v %s %+v %v", change, env.Before(), out, undo)
	if strings.Contains(text, "the-old-secret") || strings.Contains(text, password) || undo == nil {
		t.Errorf("%s", text)
	}
}

func TestConfigSetRefuses(t *testing.T) {
	a := simulated().start(t, "")
	refusedFor(t, check(t, "redis.config-set", world(a, nil, map[string]any{"name": "no-such-setting", "value": "1"}, nil)), "no such setting")
	refusedFor(t, check(t, "redis.config-set", world(real().start(t, ""), nil, map[string]any{"name": "hz", "value": 20, "rewrite": true}, nil)), "without a configuration file")
}

func TestCheckConfig(t *testing.T) {
	for _, b := range backends() {
		a := b.start(t, password, "maxmemory", "67108864")
		out := read[checkConfigOut](t, "redis.check-config", world(a, nil, map[string]any{"expect": map[string]any{
			"maxmemory": "64mb", "appendonly": true, "requirepass": "guess", "no-such": 1, "maxmemory-policy": "noeviction",
		}}, nil))
		no, hidden := "no", masked
		want := []mismatch{{"appendonly", "yes", &no}, {"no-such", "1", nil}, {"requirepass", masked, &hidden}}
		if !reflect.DeepEqual(out.Mismatches, want) || out.Values["maxmemory"] != "67108864" {
			t.Errorf("%s: %+v", b.name, out)
		}
	}
}

// TestPauseHolds: writes are held and let go, on old servers it is refused.
func TestPauseHolds(t *testing.T) {
	a := real().start(t, "")
	d := kind(t, "redis.pause-writes")
	env, in := bound(t, d, world(a, nil, map[string]any{"for": time.Minute}, nil))
	if _, err := d.Apply(t.Context(), steps.NewSession(env), in); err != nil {
		t.Fatal(err)
	}
	if got := held(t, a)(); got != "held: timeout" {
		t.Error(got)
	}
	a.do(t, "GET", "k")
	if err := d.Undo(t.Context(), steps.NewSession(env), in, nil); err != nil {
		t.Fatal(err)
	}
	if got := held(t, a)(); got != "free" {
		t.Error(got)
	}
	if !older("6.0.16", 6, 2) || !older("3.2.11", 6, 2) || older("6.2.0", 6, 2) || older("7.0.15", 6, 2) || older("255.255.255", 6, 2) || older("", 6, 2) {
		t.Error("versions are not told apart")
	}
}

// TestStop tells a supervisor's restart from a stop, and what a cut network hides.
func TestStop(t *testing.T) {
	a := simulated().start(t, "")
	d := kind(t, "redis.stop-instance")
	env, in := bound(t, d, world(a, nil, map[string]any{"save": false}, nil))
	v, s := steps.NewView(env), steps.NewSession(env)
	change, err := d.Plan(t.Context(), &v, in)
	if err != nil {
		t.Fatal(err)
	}
	env.SetBefore(change.Before)
	if err := a.sim.Restart(true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Apply(t.Context(), s, in); steps.Classify(err) == nil || steps.Classify(err).Kind != "conflict" {
		t.Errorf("another process than the one planned: %v", err)
	}
	a.sim.SetIntercept(func([]string) simulate.Action { return simulate.Hang() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if state, _, err := d.Probe(ctx, v, in); state != steps.Unclear || err == nil {
		t.Errorf("no answer is no stop: %s, %v", state, err)
	}
}

// TestRemoveRefuses an instance that is used, and a directory that is not its own.
func TestRemoveRefuses(t *testing.T) {
	b := real()
	a, r := b.start(t, ""), b.start(t, "")
	w := func(s *server, with map[string]any) conformance.World { return hostWorld(world(s, nil, with, nil)) }
	own := map[string]any{"dir": a.dir, "within": filepath.Dir(a.dir)}
	if err := check(t, "redis.remove-instance", w(a, own)); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
	elsewhere := t.TempDir()
	refusedFor(t, check(t, "redis.remove-instance", w(a, map[string]any{"dir": elsewhere, "within": filepath.Dir(elsewhere)})), "does not run in that directory")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	refusedFor(t, check(t, "redis.remove-instance", w(a, map[string]any{"dir": link, "within": filepath.Dir(link)})), "is a link to")
	user := a.client(t, steps.ReadWrite)
	if _, err := user.Do(t.Context(), "SET", "k", "1"); err != nil {
		t.Fatal(err)
	}
	refusedFor(t, check(t, "redis.remove-instance", w(a, own)), "clients use it")
	_ = user.Close()
	follow(t, r, a)
	eventually(t, "the client is gone", func() bool {
		err := check(t, "redis.remove-instance", w(a, own))
		return err != nil && strings.Contains(err.Error(), "replicas follow")
	})
	own["force"] = true
	if err := check(t, "redis.remove-instance", w(a, own)); err != nil {
		t.Error(err)
	}
	d := kind(t, "redis.remove-instance")
	for _, bad := range []map[string]any{{"dir": "/", "within": "/"}, {"dir": "/a", "within": "/a"}, {"dir": "/ab", "within": "/a"}, {"dir": "/a/../b", "within": "/a"}, {"dir": "a", "within": "/"}} {
		_, in := bound(t, d, conformance.World{With: bad})
		if len(d.Valid(in, func(string) bool { return false })) == 0 {
			t.Errorf("%v is valid", bad)
		}
	}
}

// TestCreateRefuses a port and a directory that are taken.
func TestCreateRefuses(t *testing.T) {
	needServer(t)
	taken := real().start(t, "")
	w := func(addr string, with map[string]any) conformance.World {
		return hostWorld(world(&server{addr: addr}, nil, with, nil))
	}
	dir := filepath.Join(t.TempDir(), "new")
	refusedFor(t, check(t, "redis.create-instance", w(taken.addr, map[string]any{"dir": dir})), "another one answers there")
	free := "127.0.0.1:" + freePort(t)
	if err := check(t, "redis.create-instance", w(free, map[string]any{"dir": dir})); err != nil {
		t.Error(err)
	}
	refusedFor(t, check(t, "redis.create-instance", w(free, map[string]any{"dir": dir, "binary": "no-such-server"})), "there is no no-such-server")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refusedFor(t, check(t, "redis.create-instance", w(free, map[string]any{"dir": dir})), "holds data")
	if err := check(t, "redis.create-instance", w(free, map[string]any{"dir": dir, "reuse_data": true})); err != nil {
		t.Error(err)
	}
	eventually(t, "its pid file is written", func() bool { _, err := os.Stat(filepath.Join(taken.dir, pidFile)); return err == nil })
	refusedFor(t, check(t, "redis.create-instance", w(free, map[string]any{"dir": taken.dir})), "runs in that directory")
	refusedFor(t, check(t, "redis.create-instance", w(free, map[string]any{"dir": dir, "port": 1})), "is not the port of target")
}

// TestCreateFails with the server's own words when it cannot start.
func TestCreateFails(t *testing.T) {
	needServer(t)
	s := &server{addr: "127.0.0.1:" + freePort(t), dir: filepath.Join(t.TempDir(), "new")}
	d := kind(t, "redis.create-instance")
	env, in := bound(t, d, hostWorld(world(s, nil, map[string]any{"dir": s.dir, "config": map[string]any{"no-such-setting": password, "requirepass": password}}, nil)))
	_, err := d.Apply(t.Context(), steps.NewSession(env), in)
	if e := steps.Classify(err); e == nil || e.Kind != "exit" || strings.Contains(err.Error(), password) {
		t.Errorf("%v", err)
	}
}

// TestCompare finds each kind of difference, in small values and in large ones, and nothing else.
func TestCompare(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			b := b.fresh()
			a, o := b.start(t, password), b.start(t, password)
			both := func(args ...string) { a.do(t, args...); o.do(t, args...) }
			for i := range 300 {
				both("SET", fmt.Sprint("same", i), strconv.Itoa(i))
			}
			many := func(cmd, key string, width int) []string {
				args := []string{cmd, key}
				for i := range 1200 {
					if width == 2 {
						args = append(args, strconv.Itoa(i))
					}
					args = append(args, strconv.Itoa(i))
				}
				return args
			}
			big := strings.Repeat("x", 600<<10)
			for _, key := range []string{"equal", "differs"} {
				both(many("RPUSH", "list-"+key, 1)...)
				both(many("SADD", "set-"+key, 1)...)
				both(many("ZADD", "zset-"+key, 2)...)
				both(many("HSET", "hash-"+key, 2)...)
				both("SET", "string-"+key, big)
				both("SADD", "small-"+key, "b", "a")
				both("ZADD", "smallz-"+key, "1.5", "a", "inf", "b")
			}
			o.do(t, "LSET", "list-differs", "700", "other")
			o.do(t, "SREM", "set-differs", "700")
			o.do(t, "SADD", "set-differs", "other")
			o.do(t, "ZADD", "zset-differs", "7.5", "700")
			o.do(t, "HSET", "hash-differs", "700", "other")
			o.do(t, "SETRANGE", "string-differs", "400000", "y")
			o.do(t, "SREM", "small-differs", "a")
			o.do(t, "ZADD", "smallz-differs", "2", "a")
			both("SET", "ttl-equal", "1", "EX", "1000")
			a.do(t, "SET", "ttl-differs", "1", "EX", "1000")
			o.do(t, "SET", "ttl-differs", "1", "EX", "500")
			a.do(t, "SET", "ttl-none", "1", "EX", "1000")
			o.do(t, "SET", "ttl-none", "1")
			a.do(t, "SET", "type", "1")
			o.do(t, "RPUSH", "type", "1")
			a.do(t, "SET", "only-here", password)
			o.do(t, "SET", "only-there", "1")
			o.do(t, "SET", "only-there-2", "1")
			w := world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "mode": "full", "pause": time.Millisecond}, nil)
			out := read[compareOut](t, "redis.compare", w)
			got := fmt.Sprint(out.Missing, out.Extra, out.Types, out.Values, out.TTLs)
			if got != "1 2 1 7 2" {
				t.Errorf("missing, extra, types, values, ttls: %s\n%+v", got, out.Examples)
			}
			if n := *out.KeysSource; out.Compared != n || *out.KeysOther != n+1 || out.Ratio == nil || *out.Ratio != float64(n-11)/float64(n) {
				t.Errorf("%+v", out)
			}
			if text := fmt.Sprintf("%+v", out); strings.Contains(text, password) {
				t.Errorf("values are shown: %s", text)
			}
			sample := read[compareOut](t, "redis.compare", world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "sample": 50, "rounds": 1}, nil))
			if most := min(50, *sample.KeysSource); sample.Compared < most-3 || sample.Compared > most {
				t.Errorf("a sample of 50: %+v", sample)
			}
			matched := read[compareOut](t, "redis.compare", world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "mode": "full", "rounds": 1, "match": "list-*"}, nil))
			if matched.Compared != 2 || matched.Values != 1 || *matched.KeysSource != 2 {
				t.Errorf("match: %+v", matched)
			}
			slots := read[compareOut](t, "redis.compare", world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "mode": "full", "rounds": 1, "slots": slotOf("type", 1024)}, nil))
			if slots.Compared == 0 || slots.Compared > 20 || slots.Types != 1 {
				t.Errorf("slots: %+v", slots)
			}
		})
	}
}

// TestCompareAgain: a difference that passes while it looks does not count.
func TestCompareAgain(t *testing.T) {
	b := simulated()
	a, o := b.start(t, ""), b.start(t, "")
	a.do(t, "SET", "late", "1")
	o.do(t, "SET", "early", "1")
	w := world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "mode": "full", "pause": time.Millisecond}, nil)
	d := kind(t, "redis.compare")
	env, in := bound(t, d, w)
	passing := &passes{Env: env, then: func() { o.do(t, "SET", "late", "1"); o.do(t, "DEL", "early") }}
	out, err := d.Read(t.Context(), steps.NewView(passing), in)
	if c := out.(compareOut); err != nil || c.Missing != 0 || c.Extra != 0 || c.Compared != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

// passes lets replication catch up while a kind waits.
type passes struct {
	*conformance.Env
	then func()
}

func (p *passes) Sleep(context.Context, time.Duration) error { p.then(); return nil }

// TestSlotOf: the hash of Codis and Pika; an empty tag is a tag.
func TestSlotOf(t *testing.T) {
	for key, want := range map[string]int{"{}x": 0, "123456789": 0xcbf43926 % 1024, "a{123456789}b": 0xcbf43926 % 1024, "x{": slotOf("x{", 1024)} {
		if got := slotOf(key, 1024); got != want {
			t.Errorf("%s: %d, not %d", key, got, want)
		}
	}
}

// TestStreams are compared entry by entry, by a real server: the simulated one has none.
func TestStreams(t *testing.T) {
	b := real()
	a, o := b.start(t, ""), b.start(t, "")
	for _, s := range []*server{a, o} {
		c := s.client(t, steps.ReadWrite)
		for i := 1; i <= 1100; i++ {
			if _, err := c.Do(t.Context(), "XADD", "s", fmt.Sprintf("%d-%d", 1+i/600, i), "f", strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	with := map[string]any{"against": "other", "mode": "full", "rounds": 1}
	if out := read[compareOut](t, "redis.compare", world(a, map[string]*server{"other": o}, with, nil)); out.Values != 0 || out.Compared != 1 {
		t.Errorf("%+v", out)
	}
	a.do(t, "XADD", "s", "9-1", "f", "1")
	o.do(t, "XADD", "s", "9-1", "f", "2")
	if out := read[compareOut](t, "redis.compare", world(a, map[string]*server{"other": o}, with, nil)); out.Values != 1 {
		t.Errorf("%+v", out)
	}
}
