package twemproxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	simredis "runbook/internal/simulate/redis"
	simulate "runbook/internal/simulate/twemproxy"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
	"runbook/steps/host/hosttest"
	"runbook/steps/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys has one key of each of four slots, by CRC-32.
var keys = [...]string{"d", "b", "e", "a"}

// site is a directory with a configuration, and servers that tell by name who answers.
type site struct {
	t       *testing.T
	dir     string
	addr    string
	stats   string
	program string
	faults  *hosttest.Faults // of a real machine
	machine *simulated       // where nutcracker is simulated
	names   map[string]string
}

// backend makes sites where nutcracker is real or simulated.
type backend struct {
	name string
	site func(t *testing.T) *site
}

func backends() []backend {
	return []backend{
		{"nutcracker", func(t *testing.T) *site {
			s := newSite(t)
			s.program, s.faults = needNutcracker(t), &hosttest.Faults{}
			return s
		}},
		{"simulated", func(t *testing.T) *site {
			s := newSite(t)
			s.program, s.machine = "nutcracker", newSimulated(t)
			return s
		}},
	}
}

func needNutcracker(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"nutcracker", "/usr/sbin/nutcracker"} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skip("there is no nutcracker here: scripts/setup installs it")
	return ""
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), addr: freeAddr(t), stats: freeAddr(t), names: map[string]string{}}
	t.Cleanup(s.kill)
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Below the ports that connections go out from: a server that is stopped and started again must find its own free.
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			defer func() { _ = l.Close() }()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (s *site) config() string  { return filepath.Join(s.dir, "nutcracker.yml") }
func (s *site) pidfile() string { return filepath.Join(s.dir, "nutcracker.pid") }

// server starts a simulated server that answers GET of each of the keys with its name, and gives its address.
func (s *site) server(name string) string {
	s.t.Helper()
	r, err := simredis.New(simredis.Options{Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(r.Close)
	s.named(name, r.Addr())
	return r.Addr()
}

// realServer is server with a redis-server.
func (s *site) realServer(name string) string {
	s.t.Helper()
	addr := freeAddr(s.t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", s.t.TempDir())
	if err := cmd.Start(); err != nil {
		s.t.Skipf("there is no redis-server here (%v): scripts/setup installs it", err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(s.t, addr+" listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	s.named(name, addr)
	return addr
}

func (s *site) named(name, addr string) {
	s.t.Helper()
	s.names[addr] = name
	c := redis.Open(redis.Config{Addr: schema.Addr(addr)}, steps.ReadWrite, redis.Dialect{})
	defer func() { _ = c.Close() }()
	for _, k := range keys {
		if _, err := c.Do(s.t.Context(), "SET", k, name); err != nil {
			s.t.Fatal(err)
		}
	}
}

// write makes a configuration with one server a slot.
func (s *site) write(owners ...string) {
	s.t.Helper()
	text := fmt.Sprintf(`# the shop's proxy
alpha:
  listen: %s     # clients
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  auto_eject_hosts: false
  redis: true
  timeout: 400

  servers:   # one a slot
`, s.addr)
	for i, o := range owners {
		text += fmt.Sprintf("   - %s:1 server%d   # slot %d\n", o, i+1, i)
	}
	s.writeText(text)
}

func (s *site) writeText(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.config(), []byte(text), 0o640); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) text() string {
	s.t.Helper()
	b, err := os.ReadFile(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// layout is the text without what differs from site to site.
func (s *site) layout() string { return strings.ReplaceAll(s.text(), s.addr, "ADDR") }

// argv is how the proxy is started.
func (s *site) argv() []string {
	h, port, _ := net.SplitHostPort(s.stats)
	return []string{s.program, "-d", "-c", s.config(), "-p", s.pidfile(), "-a", h, "-s", port, "-i", "50", "-o", filepath.Join(s.dir, "log")}
}

// start starts the proxy and waits until it serves.
func (s *site) start() {
	s.t.Helper()
	var m host.Machine = host.Local()
	if s.machine != nil {
		m = s.machine
	}
	p := proxy{Config{Addr: schema.Addr(s.addr)}, m}
	if err := p.start(s.t.Context(), s.argv()); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the proxy serves", func() bool { ok, _ := p.serves(s.t.Context()); return ok })
}

// kill ends every real proxy of this site, also one that no pid file names.
func (s *site) kill() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if argv := strings.Split(string(b), "\x00"); isNutcracker(argv) && strings.Contains(string(b), s.config()) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// routes tells which server answers for each slot, by asking the running proxy.
func (s *site) routes() string {
	c := redis.Open(redis.Config{Addr: schema.Addr(s.addr)}, steps.ReadWrite, redis.Dialect{})
	defer func() { _ = c.Close() }()
	names := make([]string, len(keys))
	for i, k := range keys {
		r, err := c.Do(context.Background(), "GET", k)
		if err != nil {
			return "down"
		}
		names[i], _ = r.Value().(string)
	}
	return strings.Join(names, " ")
}

func (s *site) world(with map[string]any, snapshot func() string) conformance.World {
	w := conformance.World{
		Targets: map[string]conformance.Target{"proxy": {Kind: Target().Define(), Config: map[string]any{
			"addr": s.addr, "stats_addr": s.stats, "config": s.config(), "pidfile": s.pidfile(), "host": "machine",
		}}},
		Target: "proxy", With: with, Snapshot: snapshot, Wall: true,
	}
	machine := conformance.Target{Config: map[string]any{"local": true}}
	if s.machine != nil {
		kind := host.Target()
		kind.Open = func(_ context.Context, _ host.Config, a steps.Access) (host.Machine, error) {
			if a == steps.ReadOnly {
				return host.ReadOnly(s.machine), nil
			}
			return s.machine, nil
		}
		machine.Kind = kind.Define()
	} else {
		machine.Kind, w.Writes, w.Intercept = s.faults.Target(), s.faults.Writes, s.faults.Intercept
	}
	w.Targets["machine"] = machine
	return w
}

// eventually asks until it is so; a proxy offers nothing to wait on.
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

// simulated is this machine, with a nutcracker that runs in the test's own process.
type simulated struct {
	host.Machine

	mu    sync.Mutex
	next  int
	procs map[int]*simulatedProcess
}

type simulatedProcess struct {
	host.Process
	server *simulate.Server
}

func newSimulated(t *testing.T) *simulated {
	s := &simulated{Machine: host.Local(), next: 1 << 22, procs: map[int]*simulatedProcess{}}
	t.Cleanup(func() {
		for _, p := range s.procs {
			p.server.Close()
		}
	})
	return s
}

func (s *simulated) Run(ctx context.Context, c host.Command) (host.Result, error) {
	if ctx.Err() != nil {
		return host.Result{}, fmt.Errorf("run: %w", context.Cause(ctx))
	}
	a, err := simulate.ParseArguments(c.Argv[1:])
	if err != nil {
		return host.Result{Code: 1, Stderr: host.Output{Text: err.Error()}}, nil
	}
	text, err := os.ReadFile(a.Config)
	if err != nil {
		return host.Result{Code: 1, Stderr: host.Output{Text: err.Error()}}, nil
	}
	if said, code := simulate.Test(a.Config, string(text)); a.Test || code != 0 {
		return host.Result{Code: code, Stderr: host.Output{Text: said}}, nil
	}
	server, err := simulate.Start(simulate.Options{Config: string(text), StatsAddr: a.StatsAddr})
	if err != nil { // it has gone to the background by then
		return host.Result{}, os.WriteFile(a.Output, []byte(err.Error()+"\n"), 0o600)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.procs[s.next] = &simulatedProcess{host.Process{PID: s.next, ID: strconv.Itoa(s.next), Argv: c.Argv}, server}
	return host.Result{}, os.WriteFile(a.Pidfile, []byte(strconv.Itoa(s.next)), 0o600)
}

func (s *simulated) Process(ctx context.Context, pid int) (host.Process, error) {
	if ctx.Err() != nil {
		return host.Process{}, fmt.Errorf("process %d: %w", pid, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[pid]; p != nil && p.server.Alive() {
		return p.Process, nil
	}
	return host.Process{}, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
}

func (s *simulated) Signal(_ context.Context, p host.Process, sig host.Signal, _ bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs[p.PID].server.Signal(string(sig))
	return nil
}

func (s *simulated) Look(_ context.Context, name string, _ ...string) (host.Tool, error) {
	if path.Base(name) != "nutcracker" {
		return host.Tool{}, fmt.Errorf("look for %s: %w", name, fs.ErrNotExist)
	}
	return host.Tool{Path: name}, nil
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

func fixtures(b backend) []fixture {
	fixed := func(kind, name string, with map[string]any, snapshot func(s *site) string) fixture {
		return fixture{kind, name, conformance.Fixture{New: func(t *testing.T) conformance.World {
			s := b.site(t)
			s.write("10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221")
			return s.world(with, func() string { return snapshot(s) })
		}}}
	}
	return []fixture{
		fixed("twemproxy.check-config", "of a pool", map[string]any{"pool": "alpha", "slot_num": 4}, (*site).layout),
		fixed("twemproxy.set-servers", "some slots", map[string]any{"slots": []any{1, 2}, "to": "10.0.0.3:9221"}, (*site).layout),
		fixed("twemproxy.set-servers", "all slots", map[string]any{"pool": "alpha",
			"servers": []any{"10.0.0.3:9221", "10.0.0.3:9221", "10.0.0.2:9221", "10.0.0.1:9221"}}, (*site).layout),
		{"twemproxy.restart", "with another file", conformance.Fixture{New: func(t *testing.T) conformance.World {
			s := b.site(t)
			x, y := s.server("x"), s.server("y")
			s.write(x, x, x, x)
			s.start()
			s.write(x, y, y, x)
			return s.world(map[string]any{"max_pause": 10 * time.Second, "before": []any{x, x, x, x}}, s.routes)
		}}},
		{"twemproxy.stop", "that runs", conformance.Fixture{New: func(t *testing.T) conformance.World {
			s := b.site(t)
			x := s.server("x")
			s.write(x, x, x, x)
			s.start()
			return s.world(map[string]any{"max_pause": 10 * time.Second}, s.routes)
		}}},
		{"twemproxy.stats", "of a pool", conformance.Fixture{New: func(t *testing.T) conformance.World {
			s := b.site(t)
			x := s.server("x")
			s.write(x, x)
			s.start()
			return s.world(map[string]any{"pool": "alpha"}, s.layout)
		}}},
	}
}

// TestConformance holds every kind to the contract, with a real nutcracker and with the simulated one.
func TestConformance(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			seen := map[string]bool{}
			for _, f := range fixtures(b) {
				seen[f.kind] = true
				t.Run(f.kind+" "+f.name, func(t *testing.T) { conformance.Run(t, kind(t, f.kind), f.Fixture) })
			}
			for _, d := range Kinds() {
				if !seen[d.Name] {
					t.Errorf("%s has no fixture", d.Name)
				}
			}
		})
	}
}

// fails asserts what an error tells: its kind, and words in it.
func fails(t *testing.T, err error, kind, says string) {
	t.Helper()
	e := steps.Classify(err)
	if e == nil || e.Kind != kind || !strings.Contains(err.Error()+errHint(err), says) {
		t.Errorf("wanted an error of kind %s that says %q, got %+v: %v", kind, says, e, err)
	}
}

func errHint(err error) string {
	var e *steps.Error
	if errors.As(err, &e) {
		return " " + e.Hint
	}
	return ""
}
