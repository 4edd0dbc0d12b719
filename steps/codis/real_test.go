package codis

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/redis"
)

// real is a product of real programs: a dashboard on the file system, proxies, codis-servers.
type real struct {
	*testing.T
	dir       string
	dashboard string // admin address
	env       *conformance.Env
}

// program finds a real program, or skips the test and says why.
func program(t *testing.T, variable string) string {
	t.Helper()
	binary := os.Getenv(variable)
	if binary == "" {
		t.Skipf("%s names no program: the kinds are tested on simulated ones alone", variable)
	}
	return binary
}

func (r *real) start(name, config string, argv ...string) *exec.Cmd {
	r.Helper()
	file := filepath.Join(r.dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command(argv[0], append(argv[1:], file)...)
	cmd.Dir, cmd.SysProcAttr = r.dir, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (r *real) free() string {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (r *real) up(addr string) string {
	r.Helper()
	eventually(r.T, addr+" listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return addr
}

func (r *real) server(name string) string {
	addr := r.free()
	_, port, _ := net.SplitHostPort(addr)
	r.start(name, fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsave \"\"\nrequirepass %s\nmasterauth %s\n", port, r.dir, password, password), program(r.T, "CODIS_SERVER_BIN"))
	return r.up(addr)
}

func (r *real) proxy(name string) (admin, clients string) {
	admin, clients = r.free(), r.free()
	r.start(name, fmt.Sprintf("product_name = \"demo\"\nproduct_auth = %q\nproto_type = \"tcp4\"\nadmin_addr = %q\nproxy_addr = %q\nproxy_max_offheap_size = \"64mb\"\nproxy_heap_placeholder = \"1mb\"\n",
		password, admin, clients), program(r.T, "CODIS_PROXY_BIN"), "--config")
	return r.up(admin), clients
}

func newReal(t *testing.T) *real {
	r := &real{T: t, dir: t.TempDir()}
	binary := program(t, "CODIS_DASHBOARD_BIN")
	r.dashboard = r.free()
	r.start("dashboard", fmt.Sprintf("coordinator_name = \"filesystem\"\ncoordinator_addr = %q\nproduct_name = \"demo\"\nproduct_auth = %q\nadmin_addr = %q\nmigration_method = \"semi-async\"\n",
		filepath.Join(r.dir, "store"), password, r.dashboard), binary, "--config")
	r.up(r.dashboard)
	r.env = conformance.NewEnv(conformance.World{Wall: true, Target: "own", Targets: map[string]conformance.Target{
		"own": {Kind: Target().Define(), Config: map[string]any{"addr": r.dashboard, "product_auth": password}},
	}})
	t.Cleanup(func() { _ = r.env.Close() })
	return r
}

func (r *real) step(kind string, with map[string]any) *step {
	r.Helper()
	i := slices.IndexFunc(Kinds(), func(d *steps.Definition) bool { return d.Name == kind })
	s := &step{T: r.T, def: Kinds()[i], env: r.env, in: reflect.New(Kinds()[i].In).Interface()}
	if err := schema.Bind(with, s.in); err != nil {
		r.Fatal(err)
	}
	return s
}

// do does it, and sees that the probe tells, with the same output.
func (r *real) do(kind string, with map[string]any) *step {
	r.Helper()
	s := r.step(kind, with)
	s.plan()
	if got := s.probe(); got == steps.Done {
		r.Errorf("%s: done before it is done", kind)
	}
	out, err := s.apply()
	if err != nil {
		r.Fatalf("%s: %v", kind, err)
	}
	state, found, err := s.def.Probe(s.Context(), s.view(), s.in)
	if err != nil || state != steps.Done || !reflect.DeepEqual(found, out) {
		r.Errorf("%s: probe after: %s %+v, %v; the act gave %+v", kind, state, found, err, out)
	}
	return s
}

// TestReal brings a product of real programs from nothing to a migration, a fail-over and back, by the kinds alone.
func TestReal(t *testing.T) {
	r := newReal(t)
	one, replica, two := r.server("one"), r.server("replica"), r.server("two")
	wire := func(addr string) *redis.Client {
		c := redis.Open(redis.Config{Addr: schema.Addr(addr), Password: schema.NewSecret(password)}, steps.ReadWrite, redis.Dialect{})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	tell := func(addr string, args ...string) {
		t.Helper()
		if _, err := wire(addr).Do(context.Background(), args...); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(one)
	tell(replica, "SLAVEOF", host, port)

	for group, addr := range map[int]string{1: one, 2: two} {
		created := r.do("codis.create-group", map[string]any{"group": group})
		if group == 2 {
			created.must(created.undo())
			r.do("codis.create-group", map[string]any{"group": group})
		}
		r.do("codis.add-server", map[string]any{"group": group, "addr": addr})
	}
	r.do("codis.add-server", map[string]any{"group": 1, "addr": replica})
	admin, clients := r.proxy("p1")
	r.do("codis.add-proxy", map[string]any{"admin_addr": admin})
	admin2, _ := r.proxy("p2")
	r.do("codis.add-proxy", map[string]any{"admin_addr": admin2})

	assigned := r.do("codis.assign-slots", map[string]any{"slots": "0-1023", "to_group": 2})
	assigned.must(assigned.undo())
	r.do("codis.assign-slots", map[string]any{"slots": "0-1023", "to_group": 1})
	r.do("codis.resync-group", map[string]any{"group": 1})

	c := redis.Open(redis.Config{Addr: schema.Addr(clients)}, steps.ReadWrite, redis.Dialect{})
	defer c.Close()
	for i := range 2000 {
		if _, err := c.Do(t.Context(), "SET", fmt.Sprint("k", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	refuses := r.step("codis.assign-slots", map[string]any{"slots": "0-1023", "to_group": 2})
	turnedDown(t, refuses.check(), "precondition", "has keys in slots")

	r.do("codis.set-interval", map[string]any{"interval": time.Millisecond})
	moved := r.do("codis.migrate-slots", map[string]any{"slots": "0-63", "to_group": 2, "interval": 2 * time.Millisecond, "every": 200 * time.Millisecond})
	moved.must(moved.undo())
	r.do("codis.migrate-slots", map[string]any{"slots": "0-63", "to_group": 2, "every": 200 * time.Millisecond})
	for i := range 2000 {
		reply, err := c.Do(t.Context(), "GET", fmt.Sprint("k", i))
		if err != nil || reply.Value() != "v" {
			t.Fatalf("k%d: %v %v", i, reply.Value(), err)
		}
	}

	paused := r.do("codis.pause-actions", map[string]any{"paused": true})
	paused.must(paused.undo())
	r.do("codis.promote", map[string]any{"group": 1, "addr": replica, "max_lag": "1mb"})
	r.do("codis.remove-server", map[string]any{"group": 1, "addr": one})

	_ = c.Close() // a session's last requests are counted at its end
	var stats proxyStatsOut
	eventually(t, "the requests are counted", func() bool {
		stats = r.step("codis.proxy-stats", map[string]any{"window": 100 * time.Millisecond}).read().(proxyStatsOut)
		return stats.Ops >= 4000
	})
	slots := r.step("codis.slot-info", nil).read().(slotInfoOut)
	if stats.Errors != 0 || !slots.Agree || !slots.Idle || fmt.Sprint(slots.Groups) != "[1 2]" {
		t.Errorf("%+v; agree %t, groups %v", stats, slots.Agree, slots.Groups)
	}
	health := r.step("codis.check-health", map[string]any{"method": "semi-async", "ignore": []any{"group-out-of-sync"}})
	eventually(t, "it is healthy", func() bool { return health.read().(checkHealthOut).Healthy }) // the dashboard's own look is seconds old
	r.do("codis.remove-proxy", map[string]any{"admin_addr": admin2})
	info := r.step("codis.info", nil).read().(infoOut)
	if info.Release != "3.2.2" || len(info.Proxies) != 1 || info.Groups[0].Master != replica {
		t.Errorf("%+v", info)
	}
}
