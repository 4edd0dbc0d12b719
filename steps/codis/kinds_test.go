package codis

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/resp"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

// step is one kind on a world, as the engine would hold it.
type step struct {
	*testing.T
	def *steps.Definition
	env *conformance.Env
	in  any
}

func (w *world) step(kind string, with map[string]any) *step {
	w.Helper()
	return w.stepOn(w.conform(with, func() string { return "" }), kind)
}

func (w *world) stepOn(world conformance.World, kind string) *step {
	w.Helper()
	i := slices.IndexFunc(Kinds(), func(d *steps.Definition) bool { return d.Name == kind })
	if i < 0 {
		w.Fatalf("no kind %s", kind)
	}
	s := &step{T: w.T, def: Kinds()[i], env: conformance.NewEnv(world)}
	s.in = reflect.New(s.def.In).Interface()
	if err := schema.Bind(world.With, s.in); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = s.env.Close() })
	return s
}

func (s *step) view() steps.View       { return steps.NewView(s.env) }
func (s *step) session() steps.Session { return steps.NewSession(s.env) }
func (s *step) check() error           { return s.def.Check(s.Context(), s.view(), s.in) }

func (s *step) plan() steps.Change {
	s.Helper()
	v := s.view()
	change, err := s.def.Plan(s.Context(), &v, s.in)
	if err != nil {
		s.Fatal(err)
	}
	s.env.SetBefore(change.Before)
	return change
}

func (s *step) probe() steps.State {
	s.Helper()
	state, _, err := s.def.Probe(s.Context(), s.view(), s.in)
	if err != nil {
		s.Fatal(err)
	}
	return state
}

// apply does it as the engine does, after plan and check.
func (s *step) apply() (any, error) {
	s.Helper()
	s.plan()
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.def.Apply(s.Context(), s.session(), s.in)
}

func (s *step) undo() error { return s.def.Undo(s.Context(), s.session(), s.in, nil) }

func (s *step) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// turnedDown: an error of that kind that says these words, for certain without effect.
func turnedDown(t *testing.T, err error, kind string, words ...string) {
	t.Helper()
	e := steps.Classify(err)
	if e == nil || e.Kind != kind || e.Unknown {
		t.Fatalf("refused as %s: %+v", kind, e)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" "+e.Hint, w) {
			t.Errorf("%q is missing: %v; %s", w, err, e.Hint)
		}
	}
}

// TestGuards: each pitfall is refused before anything is sent, in words that tell what and why.
func TestGuards(t *testing.T) {
	for _, test := range []struct {
		name   string
		kind   string
		breaks func(w *world) map[string]any
		class  string
		words  []string
	}{
		{"a group with a server is not removed", "codis.remove-group", func(w *world) map[string]any {
			return map[string]any{"group": 2}
		}, "precondition", []string{"has 1 servers", "codis.remove-server"}},
		{"a held slot stops a resync", "codis.resync-group", func(w *world) map[string]any {
			w.fillSlots(w.proxies[1], Slot{ID: 3, Locked: true, BackendAddr: w.one.addr, ForwardMethod: 1})
			return map[string]any{"group": 1}
		}, "precondition", []string{"slots 3 are held"}},
		{"a dead proxy stops a resync", "codis.resync-group", func(w *world) map[string]any {
			w.proxies[1].Kill()
			return map[string]any{"group": 1}
		}, "refused", []string{"does not tell what it routes", "codis.remove-proxy"}},
		{"a server is in one group", "codis.add-server", func(w *world) map[string]any {
			return map[string]any{"group": 2, "addr": w.replica.addr}
		}, "precondition", []string{"server of group 1"}},
		{"a plain Redis is no server", "codis.add-server", func(w *world) map[string]any {
			s := w.server()
			s.as("", func(args []string) (resp.Value, bool) {
				return resp.Errorf("ERR unknown command 'SLOTSINFO', with args beginning with: "), args[0] == "SLOTSINFO"
			})
			return map[string]any{"group": 2, "addr": s.addr}
		}, "server", []string{"plain Redis", "SLOTSINFO"}},
		{"a classic Pika is no server", "codis.add-server", func(w *world) map[string]any {
			s := w.server()
			s.as("pika_version:3.4.0\r\n", func(args []string) (resp.Value, bool) {
				return resp.Errorf("ERR SLOTSINFO only support on sharding mode"), args[0] == "SLOTSINFO"
			})
			return map[string]any{"group": 2, "addr": s.addr}
		}, "server", []string{"instance-mode sharding"}},
		{"another password is refused", "codis.add-server", func(w *world) map[string]any {
			return map[string]any{"group": 2, "addr": startServer(w.T, "another").addr}
		}, "auth", nil},
		{"a replica is no first server", "codis.add-server", func(w *world) map[string]any {
			w.put("group/create/:xauth/3", nil)
			s := w.server()
			s.follow(w.one, 0)
			return map[string]any{"group": 3, "addr": s.addr}
		}, "precondition", []string{"would be the group's master"}},
		{"a master with a replica stays", "codis.remove-server", func(w *world) map[string]any {
			w.put("slots/assign/:xauth", mappedTo(2, 0, 511))
			return map[string]any{"group": 1, "addr": w.one.addr}
		}, "precondition", []string{"has other servers", "codis.promote"}},
		{"a master with slots stays", "codis.remove-server", func(w *world) map[string]any {
			return map[string]any{"group": 2, "addr": w.two.addr}
		}, "precondition", []string{"slots 512-1023 belong to the group"}},
		{"a server that a proxy uses stays", "codis.remove-server", func(w *world) map[string]any {
			w.fillSlots(w.proxies[0], Slot{ID: 5, BackendAddr: w.one.addr, ForwardMethod: 1, ReplicaGroups: [][]string{{w.replica.addr}}})
			return map[string]any{"group": 1, "addr": w.replica.addr}
		}, "precondition", []string{"clients of slots 5 are sent to it"}},
		{"no promotion during a migration", "codis.promote", func(w *world) map[string]any {
			w.put("slots/action/disabled/:xauth/1", nil)
			w.put("slots/action/create/:xauth/1023/1", nil)
			return map[string]any{"group": 1, "addr": w.replica.addr}
		}, "precondition", []string{"slot 1023 is pending from group 2 to group 1"}},
		{"no promotion beside a dead proxy", "codis.promote", func(w *world) map[string]any {
			w.proxies[0].Kill()
			return map[string]any{"group": 1, "addr": w.replica.addr}
		}, "refused", []string{"does not tell"}},
		{"no push of a group that is held", "codis.promote", func(w *world) map[string]any {
			w.fillSlots(w.proxies[1], Slot{ID: 3, Locked: true, BackendAddr: w.one.addr, ForwardMethod: 1})
			return map[string]any{"group": 1, "addr": w.one.addr}
		}, "precondition", []string{"slots 3 are held"}},
		{"a replica that lacks something", "codis.promote", func(w *world) map[string]any {
			w.one.mu.Lock()
			w.one.offset = 5000
			w.one.mu.Unlock()
			w.replica.follow(w.one, 4000)
			return map[string]any{"group": 1, "addr": w.replica.addr, "max_lag": "999b"}
		}, "precondition", []string{"lacks 1000 bytes"}},
		{"a replica of somebody else", "codis.promote", func(w *world) map[string]any {
			w.replica.follow(w.two, 0)
			return map[string]any{"group": 1, "addr": w.replica.addr}
		}, "precondition", []string{"does not follow the master"}},
		{"the master lives after all", "codis.promote", func(w *world) map[string]any {
			return map[string]any{"group": 1, "addr": w.replica.addr, "master_down": true}
		}, "precondition", []string{"answers, though"}},
		{"a stranger is not promoted", "codis.promote", func(w *world) map[string]any {
			return map[string]any{"group": 1, "addr": w.two.addr}
		}, "precondition", []string{"not a server of the group"}},
		{"no assignment over a migration", "codis.assign-slots", func(w *world) map[string]any {
			w.put("slots/action/disabled/:xauth/1", nil)
			w.put("slots/action/create/:xauth/1/2", nil)
			return map[string]any{"slots": "0-2", "to_group": 2}
		}, "precondition", []string{"slot 1 is pending"}},
		{"no assignment to nobody", "codis.assign-slots", func(w *world) map[string]any {
			w.put("group/create/:xauth/3", nil)
			return map[string]any{"slots": "0-2", "to_group": 3}
		}, "precondition", []string{"no server"}},
		{"no assignment away from keys", "codis.assign-slots", func(w *world) map[string]any {
			w.one.fill(2, 1)
			return map[string]any{"slots": "0-2", "to_group": 2}
		}, "precondition", []string{"has keys in slots 2", "allow_keys"}},
		{"no assignment away from keys of a Pika, whatever its last scan says", "codis.assign-slots", func(w *world) map[string]any {
			w.one.fill(2, 1)
			w.one.as("pika_version:3.4.0\r\n", func(args []string) (resp.Value, bool) { return resp.List(), args[0] == "SLOTSINFO" })
			return map[string]any{"slots": "0-2", "to_group": 2}
		}, "precondition", []string{"has keys in slots 2"}},
		{"no assignment of a held slot", "codis.assign-slots", func(w *world) map[string]any {
			w.fillSlots(w.proxies[1], Slot{ID: 2, Locked: true, BackendAddr: w.one.addr, ForwardMethod: 1})
			return map[string]any{"slots": "0-2", "to_group": 2}
		}, "precondition", []string{"slots 2 are held"}},
		{"no assignment beside a dead proxy", "codis.assign-slots", func(w *world) map[string]any {
			w.proxies[1].Kill()
			return map[string]any{"slots": "0-2", "to_group": 2}
		}, "refused", []string{"does not tell"}},
		{"no migration where it is paused", "codis.migrate-slots", func(w *world) map[string]any {
			w.put("slots/action/disabled/:xauth/1", nil)
			return map[string]any{"slots": "1", "to_group": 2}
		}, "precondition", []string{"paused"}},
		{"no migration from Pika 3.4", "codis.migrate-slots", func(w *world) map[string]any {
			w.one.as("pika_version:3.4.0\r\n", nil)
			return map[string]any{"slots": "1", "to_group": 2}
		}, "precondition", []string{"moves nothing", "codis.switch-slot"}},
		{"no migration to Pika 3.2", "codis.migrate-slots", func(w *world) map[string]any {
			w.two.as("pika_version:3.2.9\r\n", nil)
			return map[string]any{"slots": "1", "to_group": 2}
		}, "precondition", []string{"moves nothing"}},
		{"no migration from a replica", "codis.migrate-slots", func(w *world) map[string]any {
			w.one.follow(w.two, 0)
			return map[string]any{"slots": "1", "to_group": 2}
		}, "precondition", []string{"follows"}},
		{"no migration across another one", "codis.migrate-slots", func(w *world) map[string]any {
			w.put("group/create/:xauth/3", nil)
			w.put("group/add/:xauth/3/"+w.server().addr, nil)
			w.put("slots/action/disabled/:xauth/1", nil)
			w.put("slots/action/create/:xauth/1/3", nil)
			w.put("slots/action/disabled/:xauth/0", nil)
			w.one.fill(1, 1)
			w.one.as("", func(args []string) (resp.Value, bool) {
				return resp.List(resp.Number(0), resp.Number(1)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
			})
			return map[string]any{"slots": "1", "to_group": 2}
		}, "precondition", []string{"slot 1 is", "to group 3"}},
		{"no proxy joins a hold", "codis.add-proxy", func(w *world) map[string]any {
			w.fillSlots(w.proxies[1], Slot{ID: 2, Locked: true, BackendAddr: w.one.addr, ForwardMethod: 1})
			return map[string]any{"admin_addr": w.proxy().AdminAddr()}
		}, "precondition", []string{"slots 2 are held"}},
		{"the last proxy stays", "codis.remove-proxy", func(w *world) map[string]any {
			w.proxies[1].Kill()
			return map[string]any{"admin_addr": w.proxies[0].AdminAddr()}
		}, "precondition", []string{"no other proxy serves"}},
		{"a dead proxy takes force", "codis.remove-proxy", func(w *world) map[string]any {
			w.proxies[1].Kill()
			return map[string]any{"admin_addr": w.proxies[1].AdminAddr()}
		}, "precondition", []string{"force: true"}},
		{"force is for the dead", "codis.remove-proxy", func(w *world) map[string]any {
			w.proxies[1].Freeze()
			w.Cleanup(w.proxies[1].Thaw)
			return map[string]any{"admin_addr": w.proxies[1].AdminAddr(), "force": true}
		}, "precondition", []string{"something listens there"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.step(test.kind, test.breaks(w))
			before := len(w.dashboard.Writes())
			turnedDown(t, s.check(), test.class, test.words...)
			if n := len(w.dashboard.Writes()); n != before {
				t.Errorf("%d requests were sent", n-before)
			}
		})
	}
}

func mappedTo(group, from, to int) []SlotGroup {
	var all []SlotGroup
	for id := from; id <= to; id++ {
		all = append(all, SlotGroup{ID: id, GroupID: group})
	}
	return all
}

func TestValid(t *testing.T) {
	for _, test := range []struct {
		kind  string
		with  map[string]any
		words string
	}{
		{"codis.add-server", map[string]any{"group": 1, "addr": "localhost:6379"}, "host name"},
		{"codis.add-server", map[string]any{"group": 1, "addr": "0.0.0.0:6379"}, "not the address of a machine"},
		{"codis.assign-slots", map[string]any{"slots": "1020-1024", "to_group": 1}, "0 to 1023"},
		{"codis.set-interval", map[string]any{"interval": 2 * time.Second}, "cuts it down"},
		{"codis.set-interval", map[string]any{"interval": 1500 * time.Nanosecond}, "microseconds"},
		{"codis.migrate-slots", map[string]any{"slots": "1", "to_group": 1, "interval": 2 * time.Second}, "cuts it down"},
		{"codis.promote", map[string]any{"group": 1, "addr": "10.0.0.1:1", "unchecked": true, "max_lag": 7}, "means nothing"},
		{"codis.check-health", map[string]any{"ignore": []any{"proxy-offlin"}}, "no problem that is looked for"},
	} {
		i := slices.IndexFunc(Kinds(), func(d *steps.Definition) bool { return d.Name == test.kind })
		in := reflect.New(Kinds()[i].In).Interface()
		if err := schema.Bind(test.with, in); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(Kinds()[i].Valid(in, func(string) bool { return false }))
		if !strings.Contains(text, test.words) {
			t.Errorf("%s %v: %s", test.kind, test.with, text)
		}
		if p := Kinds()[i].Valid(in, func(string) bool { return true }); len(p) > 0 && test.words != "0 to 1023" && test.words != "means nothing" {
			t.Errorf("%s %v: judged though it is not known: %v", test.kind, test.with, p)
		}
	}
}

// A partial push leaves one proxy on the old mapping: the outcome is unknown, the probe says so, and doing it again
// once the proxy is back ends it.
func TestAssignThatReachesSomeProxies(t *testing.T) {
	w := newWorld(t)
	s := w.step("codis.assign-slots", map[string]any{"slots": "1-2", "to_group": 2})
	s.plan()
	w.proxies[1].SetIntercept(func(method, _ string, _ []byte) fault.Action {
		if method == "PUT" {
			return fault.CutBefore()
		}
		return fault.Pass()
	})
	_, err := s.def.Apply(s.Context(), s.session(), s.in)
	if e := steps.Classify(err); e == nil || !e.Unknown || !strings.Contains(err.Error(), "resync slots failed") {
		t.Fatalf("%+v", e)
	}
	if got := s.probe(); got != steps.Partial {
		t.Errorf("probe: %s", got)
	}
	w.proxies[1].SetIntercept(nil)
	s.must(s.check())
	if _, err := s.def.Apply(s.Context(), s.session(), s.in); err != nil {
		t.Fatal(err)
	}
	if got := s.probe(); got != steps.Done {
		t.Errorf("probe: %s", got)
	}
}

// The undo of an assignment would hide what clients have written since.
func TestUndoOfAnAssignmentSparesKeys(t *testing.T) {
	w := newWorld(t)
	s := w.step("codis.assign-slots", map[string]any{"slots": "1-2", "to_group": 2})
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	w.two.fill(2, 1)
	turnedDown(t, s.undo(), "precondition", "has keys in slots 2")
	if !strings.Contains(w.routes(1)(), "1: 2") {
		t.Errorf("it was undone in part: %s", w.routes(1)())
	}
}

// What goes back offline goes through another request.
func TestUndoToOffline(t *testing.T) {
	w := newWorld(t)
	w.put("slots/assign/:xauth/offline", []SlotGroup{{ID: 7}})
	before := w.routes(6, 7, 8)()
	s := w.step("codis.assign-slots", map[string]any{"slots": "6-8", "to_group": 2})
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	s.must(s.undo())
	if got := w.routes(6, 7, 8)(); got != before {
		t.Errorf("before: %s\nafter:  %s", before, got)
	}
}

// Codis logs a failed SLAVEOF NO ONE and says OK.
func TestPromotionOfAServerThatStaysAReplica(t *testing.T) {
	w := newWorld(t)
	w.replica.as("", func(args []string) (resp.Value, bool) {
		deaf := args[0] == "MULTI" || args[0] == "EXEC" || args[0] == "SLAVEOF"
		return resp.Errorf("ERR unknown command '%s'", args[0]), deaf
	})
	s := w.step("codis.promote", map[string]any{"group": 1, "addr": w.replica.addr})
	_, err := s.apply()
	if e := steps.Classify(err); e == nil || e.Kind != "readonly" || !e.Unknown || !strings.Contains(e.Hint, "none: true") {
		t.Fatalf("%+v", e)
	}
}

// A promotion that stopped half-way at a proxy goes on when it is done again.
func TestPromotionThatStopped(t *testing.T) {
	w := newWorld(t)
	s := w.step("codis.promote", map[string]any{"group": 1, "addr": w.replica.addr})
	s.plan()
	w.proxies[1].SetIntercept(func(method, _ string, _ []byte) fault.Action {
		if method == "PUT" {
			return fault.CutBefore()
		}
		return fault.Pass()
	})
	_, err := s.def.Apply(s.Context(), s.session(), s.in)
	if e := steps.Classify(err); e == nil || !e.Unknown || !strings.Contains(e.Hint, "promote the same server again") {
		t.Fatalf("%+v", e)
	}
	if got := s.probe(); got != steps.Partial {
		t.Errorf("probe: %s (%s)", got, w.members())
	}
	w.proxies[1].SetIntercept(nil)
	s.must(s.check())
	if _, err := s.def.Apply(s.Context(), s.session(), s.in); err != nil {
		t.Fatal(err)
	}
	if got := w.named(w.members()); !strings.HasPrefix(got, "1: [replica one]") {
		t.Errorf("%s", got)
	}
}

// A setting that lives in the dashboard's memory: a restart is seen by the probe, and undone all the same.
func TestSettingAfterARestartOfTheDashboard(t *testing.T) {
	w := newWorld(t)
	w.put("slots/action/interval/:xauth/5000", nil)
	s := w.step("codis.set-interval", map[string]any{"interval": 200 * time.Millisecond})
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	w.dashboard.Stop()
	if err := w.dashboard.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := s.probe(); got != steps.Untouched {
		t.Errorf("probe after a restart: %s", got)
	}
	s.must(s.undo())
	if got := w.memory(); got != "5000 false" {
		t.Errorf("undone to %s", got)
	}
	w.put("slots/action/interval/:xauth/7", nil)
	s.plan()
	w.put("slots/action/interval/:xauth/8", nil)
	turnedDown(t, s.undo(), "conflict", "which this step did not set")
}

// A dead proxy is taken out with force, and a change of the mapping works again.
func TestRemoveDeadProxy(t *testing.T) {
	w := newWorld(t)
	w.proxies[1].Kill()
	s := w.step("codis.remove-proxy", map[string]any{"admin_addr": w.proxies[1].AdminAddr(), "force": true})
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	w.put("slots/assign/:xauth", mappedTo(2, 1, 1))
}

func (s *step) read() any {
	s.Helper()
	out, err := s.def.Read(s.Context(), s.view(), s.in)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func TestInfo(t *testing.T) {
	w := newWorld(t)
	w.put("slots/action/disabled/:xauth/1", nil)
	w.put("slots/action/create/:xauth/5/2", nil)
	w.put("slots/assign/:xauth", mappedTo(2, 1, 1))
	out := w.step("codis.info", nil).read().(infoOut)
	if out.Release != "3.2.2" || out.Method != "semi-async" || !out.Online || out.Product != "demo" || out.AdminAddr != w.dashboard.Addr() || !*out.Disabled {
		t.Errorf("%+v", out)
	}
	if got := fmt.Sprint(out.Actions); got != "[{5 pending 1 2}]" {
		t.Errorf("actions %s", got)
	}
	if got := fmt.Sprint(out.Slots); got != "[{1 0,2-511 511} {2 1,512-1023 513}]" {
		t.Errorf("slots %s", got)
	}
	if got := fmt.Sprint(out.OutOfSync); got != "[2]" {
		t.Errorf("out of sync %s", got)
	}
	if len(out.Groups) != 2 || out.Groups[0].Master != w.one.addr || len(out.Groups[0].Servers) != 2 || len(out.Proxies) != 2 {
		t.Errorf("%+v", out)
	}
}

// A dashboard without its lock tells who it is, and that it is not online.
func TestInfoOfADashboardThatIsNotOnline(t *testing.T) {
	w := newWorld(t)
	w.dashboard.Kill()
	if err := w.dashboard.Restart(); err != nil { // the lock of the one that was killed is still there
		t.Fatal(err)
	}
	out := w.step("codis.info", nil).read().(infoOut)
	if out.Online || out.Product != "demo" || out.Disabled != nil || out.Interval != nil {
		t.Errorf("%+v", out)
	}
}

func TestSlotInfo(t *testing.T) {
	w := newWorld(t)
	s := w.step("codis.slot-info", map[string]any{"slots": "510-513"})
	out := s.read().(slotInfoOut)
	if !out.Agree || !out.Idle || out.Locked != 0 || fmt.Sprint(out.Groups) != "[1 2]" || out.Slots[0].Backend != w.one.addr || len(out.Slots) != 4 {
		t.Errorf("%+v", out)
	}
	w.fillSlots(w.proxies[1], Slot{ID: 511, Locked: true, BackendAddr: w.two.addr, ForwardMethod: 1})
	out = s.read().(slotInfoOut)
	if out.Agree || out.Locked != 1 || !out.Slots[1].Locked || out.Slots[1].Backend != mixed || len(out.Differs) != 1 || !strings.Contains(out.Differs[0], "serves slots 511 otherwise") {
		t.Errorf("%+v", out)
	}
	w.fillSlots(w.proxies[1], Slot{ID: 511, BackendAddr: w.one.addr, ForwardMethod: 1})
	if out = s.read().(slotInfoOut); !out.Agree {
		t.Errorf("%+v", out)
	}
	w.proxies[0].Kill()
	if out = s.read().(slotInfoOut); out.Agree || out.Slots[1].Backend != w.one.addr || !strings.Contains(out.Differs[0], "does not tell") {
		t.Errorf("%+v", out)
	}
}

func TestProxyStats(t *testing.T) {
	w := newWorld(t)
	counted := func(p *world, ops, fails int64) {
		c, err := resp.Dial(context.Background(), p.proxies[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range ops {
			_, _ = c.Do(context.Background(), "SET", "k", "v")
		}
		for range fails {
			_, _ = c.Do(context.Background(), "KEYS", "*") // a proxy answers an error of its own
		}
	}
	counted(w, 5, 2)
	s := w.step("codis.proxy-stats", map[string]any{"window": 10 * time.Millisecond})
	var out proxyStatsOut
	eventually(t, "the requests are counted", func() bool { out = s.read().(proxyStatsOut); return out.Ops >= 7 })
	if out.ErrorsPerSecond == nil || len(out.PerProxy) != 2 {
		t.Errorf("%+v", out)
	}
	w.proxies[1].Kill()
	_, err := s.def.Read(t.Context(), s.view(), s.in)
	if err == nil || !strings.Contains(err.Error(), "does not tell its counters") {
		t.Errorf("%v", err)
	}
}
