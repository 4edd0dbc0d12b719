package codis

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	simcodis "runbook/internal/simulate/codis"
	"runbook/internal/simulate/fault"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

// store is a coordinator's client over a simulated tree.
type store struct{ w *world }

func (s store) Read(_ context.Context, path string) ([]byte, bool, error) {
	data, _, err := s.w.tree.Get(path)
	if err != nil {
		return nil, false, nil
	}
	return data, true, nil
}

// checkup is codis.check-health on a world, with its coordinator and this machine.
func (w *world) checkup(with map[string]any) checkHealthOut {
	w.Helper()
	all := map[string]any{"coordinator": "store", "hosts": []any{"machine"}}
	for k, v := range with {
		all[k] = v
	}
	world := w.conform(all, func() string { return "" })
	zk := &steps.TargetKind[struct{}, Coordinator]{
		Name: "zookeeper",
		Open: func(context.Context, struct{}, steps.Access) (Coordinator, error) { return store{w}, nil },
	}
	world.Targets["store"] = conformance.Target{Kind: zk.Define(), Config: map[string]any{}}
	world.Targets["machine"] = conformance.Target{Kind: host.Target().Define(), Config: map[string]any{"local": true}}
	return w.stepOn(world, "codis.check-health").read().(checkHealthOut)
}

func names(out checkHealthOut) []string {
	var all []string
	for _, p := range out.Problems {
		all = append(all, p.Name)
	}
	return slices.Compact(all)
}

// well is a world that has nothing wrong with it: the dashboard has asked everybody once.
func well(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.healthy(nil)
	return w
}

func (w *world) healthy(with map[string]any) {
	w.Helper()
	var out checkHealthOut
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if out = w.checkup(with); out.Healthy {
			tick.Stop()
			break
		}
		if time.Now().After(deadline) {
			w.Fatalf("never healthy: %+v", out.Problems)
		}
	}
	if len(out.Problems)+len(out.Unseen) > 0 {
		w.Errorf("healthy with %+v, unseen %v", out.Problems, out.Unseen)
	}
}

// TestHealth: every problem is broken into the world, seen with its name and words, repaired, and gone.
func TestHealth(t *testing.T) {
	type trial struct {
		name   string
		with   map[string]any
		breaks func(w *world)
		words  string
		also   []string // problems that come with it
		repair func(w *world)
	}
	trials := []trial{
		{"dashboard-unreachable", nil, func(w *world) { w.dashboard.Stop() }, "connection refused", nil, func(w *world) { must(w, w.dashboard.Restart()) }},
		{"dashboard-hung", nil, func(w *world) {
			w.dashboard.SetIntercept(func(_, path string, _ []byte) fault.Action {
				if path == "/topom/model" {
					return fault.Pass()
				}
				return fault.Hang()
			})
		}, "no answer within", nil, func(w *world) { w.dashboard.SetIntercept(nil) }},
		{"dashboard-offline", nil, func(w *world) {
			w.dashboard.SetIntercept(func(_, path string, _ []byte) fault.Action {
				if path == "/topom/model" {
					return fault.Pass()
				}
				return fault.Fail("topom is not online")
			})
		}, "topom is not online", nil, func(w *world) { w.dashboard.SetIntercept(nil) }},
		{"release-unsupported", map[string]any{"release": "3.1"}, func(*world) {}, `release "3.2.2", wanted is 3.1`, nil, nil},
		{"method-mismatch", map[string]any{"method": "sync"}, func(*world) {}, "wanted is sync", nil, nil},
		{"method-mismatch", nil, func(w *world) { w.one.as("pika_version:2.3.6\r\n", nil) }, "is a Pika 2.3.6, which needs sync", nil, func(w *world) { w.one.as("", nil) }},
		{"sentinel-configured", nil, func(w *world) {
			w.one.as("pika_version:3.3.6\r\n", nil)
			w.sentinels("127.0.0.1:26379")
		}, "is a Pika 3.3.6", nil, func(w *world) { w.one.as("", nil) }},
		{"lock-mismatch", nil, func(w *world) { must(w, w.dashboard.RemoveLock()) }, "there is no lock", nil, func(w *world) { must(w, w.dashboard.Restart()) }},
		{"proxy-unreachable", nil, func(w *world) { w.proxies[1].Kill() }, "connection refused", []string{"proxy-stats-error"}, func(w *world) { must(w, w.proxies[1].Restart()) }},
		{"proxy-offline", nil, func(w *world) {
			w.proxies[1].SetIntercept(func(method, _ string, _ []byte) fault.Action {
				if method == "PUT" {
					return fault.Fail("out of order") // the dashboard cannot put it online again
				}
				return fault.Pass()
			})
			must(w, w.proxies[1].Restart())
		}, "is not online", []string{"routes-differ"}, func(w *world) { w.proxies[1].SetIntercept(nil) }},
		{"slots-held", nil, func(w *world) {
			w.fillSlots(w.proxies[1], Slot{ID: 7, Locked: true, BackendAddr: w.one.addr, ForwardMethod: 1})
		}, "holds slots 7", nil, func(w *world) {
			w.fillSlots(w.proxies[1], Slot{ID: 7, BackendAddr: w.one.addr, ForwardMethod: 1})
		}},
		{"routes-differ", nil, func(w *world) {
			w.fillSlots(w.proxies[1], Slot{ID: 7, BackendAddr: w.two.addr, ForwardMethod: 1})
		}, "serves slots 7 otherwise", nil, func(w *world) { w.put("group/resync/:xauth/1", nil) }},
		{"foreign-action", nil, func(w *world) {
			w.put("slots/action/disabled/:xauth/1", nil)
			w.put("slots/action/create/:xauth/7/2", nil)
		}, "slot 7 is pending from group 1 to group 2", []string{"slots-actions-disabled"}, func(w *world) {
			w.put("slots/action/remove/:xauth/7", nil)
			w.put("slots/action/disabled/:xauth/0", nil)
		}},
		{"slots-actions-disabled", nil, func(w *world) { w.put("slots/action/disabled/:xauth/1", nil) }, "has paused", nil, func(w *world) { w.put("slots/action/disabled/:xauth/0", nil) }},
		{"slots-uncovered", nil, func(w *world) { w.put("slots/assign/:xauth/offline", []SlotGroup{{ID: 9}}) }, "slots 9 belong to no group", nil, func(w *world) {
			w.put("slots/assign/:xauth", mappedTo(1, 9, 9))
			w.put("group/resync/:xauth/1", nil)
		}},
		{"group-out-of-sync", nil, func(w *world) { w.put("slots/assign/:xauth", mappedTo(1, 9, 9)) }, "group 1 is out of sync", nil, func(w *world) { w.put("group/resync/:xauth/1", nil) }},
		{"group-promoting", nil, func(w *world) {
			w.proxies[1].SetIntercept(func(method, _ string, _ []byte) fault.Action {
				if method == "PUT" {
					return fault.Fail("out of order")
				}
				return fault.Pass()
			})
			if err := w.dashboard.Put("/api/topom/group/promote/:xauth/1/"+w.replica.addr, nil); err == nil {
				w.Fatal("promoted")
			}
		}, "group 1 is being promoted: preparing", nil, func(w *world) {
			w.proxies[1].SetIntercept(nil)
			w.put("group/promote/:xauth/1/"+w.replica.addr, nil)
			w.put("group/resync/:xauth/1", nil)
		}},
		{"server-unreachable", nil, func(w *world) {
			w.put("group/add/:xauth/2/"+w.server().addr, nil)
			w.others[0].stop()
		}, "group 2, ", nil, func(w *world) { w.put("group/del/:xauth/2/"+w.others[0].addr, nil) }},
		{"master-not-master", nil, func(w *world) { w.two.follow(w.one, 0) }, "is its first server, and a replica of", nil, func(w *world) {
			w.two.mu.Lock()
			defer w.two.mu.Unlock()
			w.two.master = ""
		}},
		{"server-address", nil, func(w *world) {
			w.put("group/add/:xauth/2/localhost:"+strings.Split(w.server().addr, ":")[1], nil)
		}, "host name", []string{"server-unreachable"}, func(w *world) {
			w.put("group/del/:xauth/2/localhost:"+strings.Split(w.others[0].addr, ":")[1], nil)
		}},
	}
	for _, test := range trials {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := well(t)
			test.breaks(w)
			var out checkHealthOut
			eventually(t, test.name+" is seen", func() bool {
				out = w.checkup(test.with)
				return slices.Contains(names(out), test.name)
			})
			if out.Healthy {
				t.Error("healthy all the same")
			}
			if !strings.Contains(fmt.Sprint(out.Problems), test.words) {
				t.Errorf("%q is missing: %+v", test.words, out.Problems)
			}
			for _, p := range out.Problems {
				if p.Name != test.name && !slices.Contains(test.also, p.Name) {
					t.Errorf("seen as well: %+v", p)
				}
				if p.Fix == "" || strings.Contains(p.Message, password) {
					t.Errorf("%+v", p)
				}
			}
			ignoring := map[string]any{"ignore": append([]any{test.name}, anyOf(test.also)...)}
			for k, v := range test.with {
				ignoring[k] = v
			}
			eventually(t, test.name+" is ignored", func() bool {
				out = w.checkup(ignoring)
				return out.Healthy && slices.Contains(out.Ignored, test.name)
			})
			if test.repair != nil {
				test.repair(w)
				w.healthy(nil)
			}
		})
	}
}

func anyOf(names []string) []any {
	var all []any
	for _, n := range names {
		all = append(all, n)
	}
	return all
}

func must(w *world, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// Each problem has a test that sees it.
func TestEveryProblemIsTried(t *testing.T) {
	src, err := os.ReadFile("health_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range problemNames() {
		if !strings.Contains(string(src), name) {
			t.Errorf("%s is never broken and seen", name)
		}
	}
}

// A second dashboard that was started with --remove-lock has the lock, and both answer.
func TestHealthTwoDashboards(t *testing.T) {
	w := well(t)
	must(w, w.dashboard.RemoveLock())
	second, err := simcodis.StartDashboard(simcodis.DashboardOptions{Store: w.tree, Clock: w.clock, ProductAuth: password})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	out := w.checkup(nil)
	if got := names(out); fmt.Sprint(got) != "[two-dashboards]" || !strings.Contains(out.Problems[0].Message, second.Addr()) {
		t.Errorf("%+v", out.Problems)
	}
	second.Kill() // its lock stays
	if got := names(w.checkup(nil)); fmt.Sprint(got) != "[lock-mismatch]" {
		t.Errorf("%v", got)
	}
}

// Addresses that nobody else can use.
func TestHealthAdminAddress(t *testing.T) {
	w := well(t)
	_, port, _ := strings.Cut(w.dashboard.Addr(), ":")
	w.dashboard.Stop()
	named, err := simcodis.StartDashboard(simcodis.DashboardOptions{Store: w.tree, Clock: w.clock, ProductAuth: password, Announce: "somehost:" + port})
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	w.dashboard = named
	out := w.checkup(map[string]any{"ignore": []any{"server-unreachable", "proxy-stats-error"}})
	for _, p := range out.Problems {
		if p.Name != "admin-address-unspecified" {
			t.Errorf("%+v", p)
		}
	}
	if len(out.Problems) != 1+2*len(w.proxies) || !strings.Contains(out.Problems[0].Message, "host name") || !strings.Contains(out.Problems[1].Message, "loopback") {
		t.Errorf("%+v", out.Problems)
	}
	for addr, why := range map[string]string{"0.0.0.0:1": "not the address of a machine", "[::]:1": "not the address of a machine", "x": "not host:port", "10.0.0.1:1": ""} {
		if got := badAdminAddr(addr, "10.0.0.2:1"); (got == "") != (why == "") || !strings.Contains(got, why) {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

// A proxy of other settings has taken the place of one that is registered.
func TestHealthReplacedProxy(t *testing.T) {
	w := well(t)
	addr := w.proxies[1].AdminAddr()
	w.proxies[1].Kill()
	other, err := simcodis.StartProxy(simcodis.ProxyOptions{Clock: w.clock, ProductAuth: password, AdminAddr: addr, Token: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := names(w.checkup(nil)); !slices.Contains(got, "proxy-replaced") {
		t.Errorf("%v", got)
	}
}

func TestHealthWithoutProxies(t *testing.T) {
	w := well(t)
	for _, p := range w.stats().Proxy.Models {
		w.put("proxy/remove/:xauth/"+p.Token+"/0", nil)
	}
	if got := names(w.checkup(nil)); fmt.Sprint(got) != "[no-proxies]" {
		t.Errorf("%v", got)
	}
}

// codis-ha is seen by its process alone; where nobody can look, that is said.
func TestHealthCodisHA(t *testing.T) {
	w := well(t)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatalf("this test needs sleep in PATH: %v", err)
	}
	binary := filepath.Join(t.TempDir(), "codis-ha")
	if err := os.Symlink(sleep, binary); err != nil {
		t.Fatal(err)
	}
	ha := exec.Command(binary, "60")
	if err := ha.Start(); err != nil {
		t.Fatal(err)
	}
	out := w.checkup(nil)
	_ = ha.Process.Kill()
	_ = ha.Wait()
	if fmt.Sprint(names(out)) != "[codis-ha]" || !strings.Contains(out.Problems[0].Message, fmt.Sprint(ha.Process.Pid)) {
		t.Errorf("%+v", out.Problems)
	}
	w.healthy(nil)
	blind := w.step("codis.check-health", map[string]any{}).read().(checkHealthOut)
	if !blind.Healthy || fmt.Sprint(blind.Unseen) != "[lock-mismatch two-dashboards codis-ha]" {
		t.Errorf("%+v", blind)
	}
}

// sentinels has the dashboard know of sentinels that are not there.
func (w *world) sentinels(addrs ...string) {
	w.Helper()
	must(w, w.tree.Put("/codis3/demo/sentinel", encode(Sentinel{Servers: addrs})))
	w.put("reload/:xauth", nil)
}
