package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	simulate "runbook/internal/simulate/redis"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct-horse-battery"

// server is one server of a world, real or simulated.
type server struct {
	addr string
	pass string
	dir  string
	sim  *simulate.Server
	cmd  *exec.Cmd
}

func (s *server) target() conformance.Target {
	cfg := map[string]any{"addr": s.addr}
	if s.pass != "" {
		cfg["password"] = s.pass
	}
	return conformance.Target{Kind: Target().Define(), Config: cfg}
}

func (s *server) client(t *testing.T, a steps.Access) *Client {
	t.Helper()
	c := Open(Config{Addr: schema.Addr(s.addr), Password: schema.NewSecret(s.pass)}, a, Dialect{})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// do fails the test where the server answers an error.
func (s *server) do(t *testing.T, args ...string) Reply {
	t.Helper()
	r, err := s.client(t, steps.ReadWrite).Do(context.Background(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// backend starts servers.
type backend struct {
	name  string
	start func(t *testing.T, pass string, config ...string) *server
	// link lets servers reach each other
	fresh func() backend
}

func backends() []backend {
	return []backend{simulated(), real()}
}

func simulated() backend {
	network := simulate.NewNetwork()
	return backend{name: "simulated", fresh: simulated, start: func(t *testing.T, pass string, config ...string) *server {
		t.Helper()
		opts := simulate.Options{Name: "r", Network: network, Config: map[string]string{}}
		for i := 0; i+1 < len(config); i += 2 {
			opts.Config[config[i]] = config[i+1]
		}
		if pass != "" {
			opts.Config["requirepass"] = pass
		}
		s, err := simulate.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return &server{addr: s.Addr(), pass: pass, sim: s}
	}}
}

func real() backend {
	return backend{name: "redis-server", fresh: real, start: func(t *testing.T, pass string, config ...string) *server {
		t.Helper()
		binary := needServer(t)
		dir := t.TempDir()
		port := freePort(t)
		args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--repl-diskless-sync-delay", "0", "--pidfile", filepath.Join(dir, "redis.pid")}
		for i := 0; i+1 < len(config); i += 2 {
			args = append(args, "--"+config[i], config[i+1])
		}
		if pass != "" {
			args = append(args, "--requirepass", pass)
		}
		s := &server{addr: "127.0.0.1:" + port, pass: pass, dir: dir, cmd: exec.Command(binary, args...)}
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		})
		s.await(t)
		return s
	}}
}

func needServer(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test needs redis-server (7.0) in PATH: %v", err)
	}
	return binary
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

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

func (s *server) await(t *testing.T) {
	t.Helper()
	c := s.client(t, steps.ReadOnly)
	eventually(t, s.addr+" answers", func() bool { _, err := c.Do(context.Background(), "PING"); return err == nil })
}

// caughtUp waits until b follows a and has everything.
func caughtUp(t *testing.T, a, b *server) {
	t.Helper()
	ca, cb := a.client(t, steps.ReadOnly), b.client(t, steps.ReadOnly)
	eventually(t, b.addr+" follows "+a.addr, func() bool {
		m, err := ca.Info(context.Background(), "replication")
		r, err2 := cb.Info(context.Background(), "replication")
		return err == nil && err2 == nil && r.Link == "up" && m.Offset != nil && r.Offset != nil && *m.Offset == *r.Offset && len(m.Replicas) > 0 && m.Replicas[0].State == "online"
	})
}

func follow(t *testing.T, b, a *server) {
	t.Helper()
	h, p, _ := net.SplitHostPort(a.addr)
	b.do(t, "REPLICAOF", h, p)
	caughtUp(t, a, b)
}

// isWrite tells a request that changes something, by the same list that guards a dry run.
func isWrite(cmd []string) bool { return newGuard(nil).check(request{args: cmd}) != nil }

// world makes a conformance world of servers; own is the step's target.
func world(own *server, others map[string]*server, with map[string]any, snapshot func() string) conformance.World {
	w := conformance.World{
		Targets: map[string]conformance.Target{"own": own.target()}, Target: "own",
		With: with, Secrets: []string{password}, Snapshot: snapshot, Wall: true,
	}
	for name, s := range others {
		w.Targets[name] = s.target()
	}
	if own.sim != nil {
		w.Writes = func() int { return len(own.sim.Writes()) }
		w.Intercept = func(f func(bool) conformance.Fault) {
			if f == nil {
				own.sim.SetIntercept(nil)
				return
			}
			own.sim.SetIntercept(func(cmd []string) simulate.Action {
				if len(cmd) > 0 && (strings.EqualFold(cmd[0], "AUTH") || strings.EqualFold(cmd[0], "SELECT")) {
					return simulate.Pass()
				}
				switch f(isWrite(cmd)) {
				case conformance.LostBefore:
					return simulate.CutBefore()
				case conformance.LostAfter:
					return simulate.CutAfter()
				case conformance.Hang:
					return simulate.Hang()
				}
				return simulate.Pass()
			})
		}
	}
	return w
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

// TestConformance holds every kind to the contract, on the simulated server and on a real one.
func TestConformance(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			for _, d := range Kinds() {
				f, ok := fixtures(b)[d.Name]
				if !ok {
					if b.name == "redis-server" {
						t.Errorf("%s has no fixture", d.Name)
					}
					continue
				}
				t.Run(d.Name, func(t *testing.T) { conformance.Run(t, d, f) })
			}
		})
	}
}

func fixtures(b backend) map[string]conformance.Fixture {
	m := map[string]conformance.Fixture{
		"redis.info": {New: func(t *testing.T) conformance.World {
			b := b.fresh()
			a := b.start(t, password)
			r := b.start(t, password, "masterauth", password)
			a.do(t, "SET", "k", "1")
			follow(t, r, a)
			return world(r, nil, nil, data(t, r))
		}},
		"redis.command": {New: func(t *testing.T) conformance.World {
			a := b.fresh().start(t, password)
			return world(a, nil, map[string]any{"args": []any{"SET", "k", 1}}, data(t, a))
		}},
		"redis.config-set": {New: func(t *testing.T) conformance.World {
			a := b.fresh().start(t, password, "maxmemory", "1073741824")
			return world(a, nil, map[string]any{"name": "maxmemory", "value": "64mb"}, settings(t, a, "maxmemory"))
		}},
		"redis.check-config": {New: func(t *testing.T) conformance.World {
			a := b.fresh().start(t, password, "maxmemory", "67108864")
			return world(a, nil, map[string]any{"expect": map[string]any{"maxmemory": "64mb", "appendonly": false, "requirepass": "another"}}, settings(t, a, "maxmemory"))
		}},
		"redis.replicaof": {New: func(t *testing.T) conformance.World {
			b := b.fresh()
			a := b.start(t, password)
			r := b.start(t, password, "masterauth", password)
			a.do(t, "SET", "k", "1")
			return world(r, map[string]*server{"master": a}, map[string]any{"master": "master"}, func() string {
				i, err := r.client(t, steps.ReadOnly).Info(context.Background(), "replication")
				return fmt.Sprint(i.Role, i.Master == a.addr, err)
			})
		}},
		"redis.pause-writes": {
			Blind: "Redis shows nowhere that it is paused",
			New: func(t *testing.T) conformance.World {
				a := b.fresh().start(t, password)
				return world(a, nil, map[string]any{"for": time.Minute}, held(t, a))
			},
		},
		"redis.compare": {New: func(t *testing.T) conformance.World {
			b := b.fresh()
			a, o := b.start(t, password), b.start(t, password)
			for i := range 20 {
				a.do(t, "SET", fmt.Sprint("k", i), password)
				o.do(t, "SET", fmt.Sprint("k", i), "another value")
			}
			return world(a, map[string]*server{"other": o}, map[string]any{"against": "other", "mode": "full", "pause": time.Millisecond}, data(t, a))
		}},
		"redis.stop-instance": {New: func(t *testing.T) conformance.World {
			a := b.fresh().start(t, password)
			return world(a, nil, map[string]any{"save": false}, up(a))
		}},
	}
	if b.name == "simulated" {
		return m // it has no files and no processes
	}
	m["redis.create-instance"] = conformance.Fixture{New: func(t *testing.T) conformance.World {
		needServer(t)
		s := &server{addr: "127.0.0.1:" + freePort(t), pass: password, dir: filepath.Join(t.TempDir(), "new")}
		t.Cleanup(func() { s.kill(t) })
		return hostWorld(world(s, nil, map[string]any{
			"dir": s.dir, "config": map[string]any{"bind": "127.0.0.1", "requirepass": password, "save": "", "maxmemory": "64mb"},
		}, up(s)))
	}}
	m["redis.remove-instance"] = conformance.Fixture{New: func(t *testing.T) conformance.World {
		s := b.fresh().start(t, password)
		return hostWorld(world(s, nil, map[string]any{"dir": s.dir, "within": filepath.Dir(s.dir)}, func() string {
			_, err := os.Stat(s.dir)
			return up(s)() + fmt.Sprint(os.IsNotExist(err))
		}))
	}}
	return m
}

func hostWorld(w conformance.World) conformance.World {
	w.Targets["machine"] = conformance.Target{Kind: host.Target().Define(), Config: map[string]any{"local": true}}
	return w
}

// kill ends a server that a step has started in the background.
func (s *server) kill(t *testing.T) {
	m := host.Local()
	if p, live := livePID(context.Background(), m, filepath.Join(s.dir, pidFile)); live {
		_ = m.Signal(context.Background(), p, "KILL", false)
		eventually(t, "the server is gone", func() bool {
			_, err := m.Process(context.Background(), p.PID)
			return err != nil
		})
	}
}

// up tells whether anybody listens.
func up(s *server) func() string {
	return func() string {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return "down"
		}
		_ = c.Close()
		return "up"
	}
}

func settings(t *testing.T, s *server, names ...string) func() string {
	return func() string {
		text := ""
		for _, n := range names {
			text += fmt.Sprint(s.do(t, "CONFIG", "GET", n).Value())
		}
		return text
	}
}

func data(t *testing.T, s *server) func() string {
	return func() string {
		return fmt.Sprint(s.do(t, "DBSIZE").Value(), s.do(t, "GET", "k").Value(), s.do(t, "GET", "k1").Value())
	}
}

// held tells whether writes are held, by a write that harms nobody.
func held(t *testing.T, s *server) func() string {
	return func() string {
		c := s.client(t, steps.ReadWrite)
		if _, err := c.DoWithin(context.Background(), 100*time.Millisecond, "PUBLISH", "nobody", "x"); err != nil {
			return "held: " + steps.Classify(err).Kind
		}
		return "free"
	}
}
