package codis_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/zookeeper"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// history collects the states of a slot as the coordinator gets them.
type history struct {
	*zookeeper.Tree
	path string

	mu     sync.Mutex
	states []string
}

func (h *history) Set(path string, data []byte, version int32) (zookeeper.Stat, error) {
	if path == h.path {
		_, state, _ := strings.Cut(string(data), `"state": "`)
		state, _, _ = strings.Cut(state, `"`)
		h.mu.Lock()
		h.states = append(h.states, state)
		h.mu.Unlock()
	}
	return h.Tree.Set(path, data, version)
}

// TestMigration follows one slot with keys from group 1 to group 2.
func TestMigration(t *testing.T) {
	for _, method := range []string{"semi-async", "sync"} {
		t.Run(method, func(t *testing.T) {
			w := &world{TB: t, clock: clock.New(20)}
			w.tree = zookeeper.NewTree(w.clock)
			h := &history{Tree: w.tree, path: codis.SlotPath("demo", 5)}
			var err error
			if w.dashboard, err = codis.StartDashboard(codis.DashboardOptions{Store: h, Clock: w.clock, MigrationMethod: method}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.dashboard.Close)
			w.fillIn(2)
			p := w.proxies[0]
			var keys []string
			for i := 0; len(keys) < 3; i++ {
				if k := fmt.Sprint("m", i); codis.SlotOf(k) == 5 {
					keys = append(keys, k)
					w.ask(p, "SET "+k+" "+k)
				}
			}
			h.mu.Lock()
			h.states = nil
			h.mu.Unlock()
			w.put("slots/action/create/:xauth/5/2", nil)
			w.until("the slot has moved", func() bool {
				m, err := w.dashboard.Mapping()
				return err == nil && m[5].GroupID == 2 && m[5].Action == codis.SlotAction{}
			})
			h.mu.Lock()
			defer h.mu.Unlock()
			if want := []string{"pending", "preparing", "prepared", "migrating", "finished", ""}; !slices.Equal(h.states, want) {
				t.Errorf("stored states %q", h.states)
			}
			for _, k := range keys {
				if got := w.servers[1].value(k); got != k {
					t.Errorf("%s on the target: %q", k, got)
				}
			}
			for _, p := range w.proxies {
				if s := p.Routes()[5]; s.BackendAddr != w.servers[1].addr || s.MigrateFrom != "" || s.Locked {
					t.Errorf("routes: %+v", s)
				}
			}
			command := map[string][]string{
				"semi-async": {"SLOTSMGRTTAGSLOT-ASYNC", "host", "port", "5000", "200", "33554432", "5", "500"},
				"sync":       {"SLOTSMGRTTAGSLOT", "host", "port", "30000", "5"},
			}[method]
			sent := w.servers[0].commands(command[0])
			if len(sent) == 0 || !slices.Equal(sent[0][3:], command[3:]) || sent[0][1]+":"+sent[0][2] != w.servers[1].addr {
				t.Errorf("the source was sent %q", sent)
			}
		})
	}
}

// fillIn gives a world its groups and proxies.
func (w *world) fillIn(proxies int) {
	w.Helper()
	w.servers = []*server{startServer(w.TB), startServer(w.TB)}
	for i, s := range w.servers {
		w.put(fmt.Sprintf("group/create/:xauth/%d", i+1), nil)
		w.put(fmt.Sprintf("group/add/:xauth/%d/%s", i+1, s.addr), nil)
	}
	for range proxies {
		w.proxy()
	}
	var slots []codis.SlotMapping
	for i := range codis.SlotCount {
		slots = append(slots, codis.SlotMapping{ID: i, GroupID: 1 + i/512})
	}
	w.assign(slots...)
	w.put("group/resync-all/:xauth", nil)
}

// TestFalseFinished: Codis believes a source that says that nothing remains.
func TestFalseFinished(t *testing.T) {
	w := newWorld(t, 1)
	k := key(5)
	w.ask(w.proxies[0], "SET "+k+" v")
	w.servers[0].script(func(args []string) (resp.Value, bool) {
		return resp.List(resp.Number(7), resp.Number(0)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
	})
	w.put("slots/action/create/:xauth/5/2", nil)
	w.until("the slot is said to have moved", func() bool {
		s := w.proxies[0].Routes()[5]
		return s.BackendAddr == w.servers[1].addr && s.MigrateFrom == ""
	})
	if got := w.ask(w.proxies[0], "GET "+k); got != "" {
		t.Errorf("clients still see %q", got)
	}
	if w.servers[0].value(k) != "v" {
		t.Error("the key is not on the source any more")
	}
}

// TestWhileASlotMigrates: what clients get is decided by what the source answers.
func TestWhileASlotMigrates(t *testing.T) {
	w := newWorld(t, 1)
	p, k := w.proxies[0], key(5)
	answer := make(chan resp.Value, 1)
	source := resp.List(resp.Number(1), resp.Number(1))
	w.servers[0].script(func(args []string) (resp.Value, bool) {
		switch args[0] {
		case "SLOTSMGRTTAGSLOT-ASYNC":
			return resp.List(resp.Number(0), resp.Number(1)), true
		case "SLOTSMGRT-EXEC-WRAPPER":
			select {
			case source = <-answer:
			default:
			}
			return source, true
		}
		return resp.Value{}, false
	})
	w.put("slots/action/interval/:xauth/100000", nil)
	w.put("slots/action/create/:xauth/5/2", nil)
	w.until("the slot migrates", func() bool { s := p.Routes()[5]; return s.MigrateFrom != "" && !s.Locked })

	c := w.client(p)
	if err := c.Send("SET", k, "v"); err != nil {
		t.Fatal(err)
	}
	w.until("the proxy asks again and again while the key is under way", func() bool { return len(w.servers[0].commands("SLOTSMGRT-EXEC-WRAPPER")) > 10 })
	answer <- resp.List(resp.Number(0), resp.Nil())
	if v, err := c.Receive(); err != nil || v.Str != "OK" || w.servers[1].value(k) != "v" {
		t.Errorf("[0,*] sends to the target: %v %v", v, err)
	}
	sent := w.servers[0].commands("SLOTSMGRT-EXEC-WRAPPER")[0]
	if want := []string{"SLOTSMGRT-EXEC-WRAPPER", k, "SET", k, "v"}; !slices.Equal(sent, want) {
		t.Errorf("the source was asked %q", sent)
	}
	for _, tt := range []struct {
		source resp.Value
		want   string
	}{
		{resp.List(resp.Number(2), resp.Text("from the source")), "from the source"},
		{resp.List(resp.Number(-1), resp.Number(-1)), "ERR handle request, bad slotsmgrt-exec-wrapper resp: type(array[0]) = <int>, len(array[0].value) = 2"},
		{resp.Errorf("ERR unknown command"), "ERR handle request, bad slotsmgrt-exec-wrapper resp: ERR unknown command"},
		{resp.List(resp.Number(1)), "ERR handle request, bad slotsmgrt-exec-wrapper resp: array.len = 1"},
	} {
		answer <- tt.source
		if got := w.ask(p, "GET "+k); got != tt.want {
			t.Errorf("%v: %s", tt.source, got)
		}
	}
	if got := w.stats(); !contains(got, `"[OK] Slot[0005]@DB[0]=1"`) {
		t.Error("no progress shown")
	}
}

func (w *world) stats() string {
	w.Helper()
	status, b, err := w.call(w.Context(), http.MethodGet, "http://"+w.dashboard.Addr()+"/topom/stats", nil)
	if status != 200 || err != nil {
		w.Fatal(status, err)
	}
	return string(b)
}

// TestSyncMovesKeysOnAccess: also while migrations are disabled.
func TestSyncMovesKeysOnAccess(t *testing.T) {
	w := newWorld(t, 1)
	p, k := w.proxies[0], key(5)
	w.ask(p, "SET "+k+" v")
	s := holding(p, false, 5)[0]
	s.BackendAddr, s.MigrateFrom, s.ForwardMethod = w.servers[1].addr, w.servers[0].addr, 0
	if err := w.fill(t.Context(), p, s); err != nil {
		t.Fatal(err)
	}
	if got := w.ask(p, "GET "+k); got != "v" || w.servers[0].value(k) != "" {
		t.Errorf("%q, left on the source: %q", got, w.servers[0].value(k))
	}
}

// TestOneSlotAGroupAtATime: however many may be parallel, no two share a source or a target.
func TestOneSlotAGroupAtATime(t *testing.T) {
	w := newWorld(t, 1)
	w.put("group/create/:xauth/3", nil)
	w.put("group/add/:xauth/3/"+startServer(t).addr, nil)
	w.put("slots/action/disabled/:xauth/1", nil)
	var mu sync.Mutex
	asked, most := map[string]bool{}, 0
	w.servers[0].script(func(args []string) (resp.Value, bool) {
		if args[0] != "SLOTSMGRTTAGSLOT-ASYNC" {
			return resp.Value{}, false
		}
		n := 0
		for _, s := range w.proxies[0].Routes() {
			if s.MigrateFrom != "" {
				n++
			}
		}
		mu.Lock()
		defer mu.Unlock()
		asked[args[6]], most = true, max(most, n)
		return resp.List(resp.Number(0), resp.Number(0)), true
	})
	for sid := 3; sid <= 6; sid++ {
		w.put(fmt.Sprintf("slots/action/create/:xauth/%d/%d", sid, 2+sid%2), nil)
	}
	w.put("slots/action/create/:xauth/600/3", nil)
	w.put("slots/action/disabled/:xauth/0", nil)
	w.until("all have moved", func() bool {
		a, b := w.proxies[0].Routes()[6], w.proxies[0].Routes()[600]
		return a.BackendAddrGroupID == 2 && a.MigrateFrom == "" && b.BackendAddrGroupID == 3 && b.MigrateFrom == ""
	})
	mu.Lock()
	defer mu.Unlock()
	if most != 1 || len(asked) != 4 {
		t.Errorf("%d at once, of %v", most, asked)
	}
}

// TestAssignOverAMigration: the action is dropped, and the error that the round then meets stays.
func TestAssignOverAMigration(t *testing.T) {
	w := newWorldAt(t, 1, 20)
	w.servers[0].script(func(args []string) (resp.Value, bool) {
		return resp.List(resp.Number(0), resp.Number(1)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
	})
	w.put("slots/action/interval/:xauth/1000", nil)
	w.put("slots/action/create/:xauth/20/2", nil)
	w.until("the slot migrates", func() bool { return w.proxies[0].Routes()[20].MigrateFrom != "" })
	if cause, err := w.putDashboard(t.Context(), "slots/action/remove/:xauth/20", nil); cause != "slot-[20] action isn't pending" || err != nil {
		t.Errorf("%s %v", cause, err)
	}
	w.assign(codis.SlotMapping{ID: 20, GroupID: 1})
	if s := w.proxies[0].Routes()[20]; s.MigrateFrom != "" || s.BackendAddr != w.servers[0].addr {
		t.Errorf("%+v", s)
	}
	w.until("the stale error is shown", func() bool {
		return contains(w.stats(), `"[ERROR] Slot[0020]: slot-[20] action state is invalid"`)
	})
}

// TestDashboardDiesBetweenLockedAndMigrating: the slot stays locked until a dashboard is back, which goes on by itself.
func TestDashboardDiesBetweenLockedAndMigrating(t *testing.T) {
	w := newWorldAt(t, 1, 20)
	killed := make(chan struct{})
	w.proxies[0].SetIntercept(func(method, _ string, body []byte) fault.Action {
		if method == "PUT" && contains(string(body), "migrate_from") && !contains(string(body), "locked") {
			go func() { w.dashboard.Kill(); close(killed) }()
			return fault.Hang()
		}
		return fault.Pass()
	})
	w.put("slots/action/create/:xauth/5/2", nil)
	<-killed
	w.proxies[0].SetIntercept(nil)
	if s := w.proxies[0].Routes()[5]; !s.Locked {
		t.Errorf("%+v", s)
	}
	if m, _ := w.dashboard.Mapping(); m[5].Action.State != "prepared" {
		t.Errorf("stored: %+v", m[5])
	}
	if err := w.dashboard.RemoveLock(); err != nil {
		t.Fatal(err)
	}
	if err := w.dashboard.Restart(); err != nil {
		t.Fatal(err)
	}
	w.until("the slot has moved", func() bool {
		s := w.proxies[0].Routes()[5]
		return s.BackendAddrGroupID == 2 && !s.Locked && s.MigrateFrom == ""
	})
}

// TestDeadProxyStopsEverything: it is pushed to the others and stored, and fails all the same.
func TestDeadProxyStopsEverything(t *testing.T) {
	w := newWorldAt(t, 2, 20)
	dead := w.proxies[1]
	dead.Kill()
	failure := "proxy-[" + dead.Token() + "] resync slots failed"
	if cause, err := w.putDashboard(t.Context(), "slots/assign/:xauth", []codis.SlotMapping{{ID: 7, GroupID: 2}}); cause != failure || err != nil {
		t.Errorf("assign: %s %v", cause, err)
	}
	if m, _ := w.dashboard.Mapping(); m[7].GroupID != 2 || w.proxies[0].Routes()[7].BackendAddrGroupID != 2 {
		t.Errorf("stored %+v, pushed %+v", m[7], w.proxies[0].Routes()[7])
	}
	w.put("slots/action/create/:xauth/5/2", nil)
	w.until("the action is stuck", func() bool { m, _ := w.dashboard.Mapping(); return m[5].Action.State == "preparing" })
	if cause, _ := w.putDashboard(t.Context(), "proxy/remove/:xauth/"+dead.Token()+"/0", nil); cause != "proxy-["+dead.Token()+"] shutdown failed" {
		t.Errorf("remove: %s", cause)
	}
	w.put("proxy/remove/:xauth/"+dead.Token()+"/1", nil)
	w.until("it goes on by itself", func() bool { m, _ := w.dashboard.Mapping(); return m[5].GroupID == 2 })
}
