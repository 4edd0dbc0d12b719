package codis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/zookeeper"
)

// TestXAuth: the values are those of the recorded programs.
func TestXAuth(t *testing.T) {
	if got := codis.DashboardXAuth("demo"); got != "c32db19baf104a834a2d07a99c55a19a" {
		t.Error(got)
	}
	if got := codis.ProxyXAuth("demo", "", "990f169688b7668b7a6ab37e3f891bf3"); got != "10064daa436b6200d0ff02e7a0ed6d01" {
		t.Error(got)
	}
}

// TestLockOutlivesAKill: the next dashboard tries for 32 s and exits, unless somebody removes the lock.
func TestLockOutlivesAKill(t *testing.T) {
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprintf("removed %v", removed), func(t *testing.T) {
			w := &world{TB: t, clock: clock.New(50)}
			w.tree = zookeeper.NewTree(w.clock)
			start := func() *codis.Dashboard {
				d, err := codis.StartDashboard(codis.DashboardOptions{Store: w.tree, Clock: w.clock})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(d.Close)
				return d
			}
			start().Kill()
			if w.tree.Dump()[codis.LockPath("demo")] == "" {
				t.Fatal("no lock after a kill")
			}
			began := w.clock.Now()
			w.dashboard = start()
			for path, want := range map[string]int{"/topom": 800, "/topom/stats": 800, "/topom/model": 200, "/api/topom/xping/" + w.dashboard.XAuth(): 200} {
				if status, b, err := w.call(t.Context(), "GET", "http://"+w.dashboard.Addr()+path, nil); status != want || err != nil {
					t.Errorf("GET %s without the lock: %d %s %v", path, status, b, err)
				}
			}
			if !removed {
				w.until("it gives up", func() bool { return !w.dashboard.Alive() })
				if took := w.clock.Now().Sub(began); took < 32*time.Second {
					t.Errorf("gave up after %v", took)
				}
				return
			}
			if err := w.dashboard.RemoveLock(); err != nil {
				t.Fatal(err)
			}
			w.until("it is online", w.dashboard.Online)
		})
	}
}

// TestStopReleasesTheLock and keeps what only memory holds to itself.
func TestStopReleasesTheLock(t *testing.T) {
	w := newWorld(t, 0)
	w.put("slots/action/interval/:xauth/5000", nil)
	w.put("slots/action/disabled/:xauth/1", nil)
	w.dashboard.Stop()
	if _, there := w.tree.Dump()[codis.LockPath("demo")]; there {
		t.Error("the lock is still there")
	}
	if err := w.dashboard.Restart(); err != nil {
		t.Fatal(err)
	}
	if s := w.stats(); !contains(s, `"interval": 0`) || !contains(s, `"disabled": false`) || !contains(s, w.servers[1].addr) {
		t.Errorf("after a restart: %s", s[len(s)-600:])
	}
}

// TestShutdown: the process exits a moment after it has answered.
func TestShutdown(t *testing.T) {
	w := newWorld(t, 1)
	if cause, err := w.putDashboard(t.Context(), "proxy/remove/:xauth/"+w.proxies[0].Token()+"/0", nil); cause != "" || err != nil {
		t.Fatal(cause, err)
	}
	if cause, err := w.putDashboard(t.Context(), "shutdown/:xauth", nil); cause != "" || err != nil {
		t.Fatal(cause, err)
	}
	w.until("both have exited", func() bool { return !w.dashboard.Alive() && !w.proxies[0].Alive() })
}

// TestDecodingOfMappings: errors in a body are ignored, and what was decoded until then is used.
func TestDecodingOfMappings(t *testing.T) {
	for body, moved := range map[string]int{
		`[{"id":"1000","group_id":2}]`: 0, // slot 0, for the id is no number
		`hello`:                        -1,
		``:                             -1,
		`{"id":3,"group_id":2}`:        -1,
		`[{"id":3,"group_id":2}] x`:    3,
	} {
		w := newWorld(t, 1)
		if err := w.dashboard.Put("/api/topom/slots/assign/:xauth", []byte(body)); err != nil {
			t.Errorf("%q: %v", body, err)
		}
		for i, s := range w.proxies[0].Routes()[:512] {
			if (s.BackendAddrGroupID == 2) != (i == moved) {
				t.Errorf("%q: slot %d is in group %d", body, i, s.BackendAddrGroupID)
			}
		}
	}
}

// TestContentOfTheCoordinator is byte for byte what Codis writes.
func TestContentOfTheCoordinator(t *testing.T) {
	w := newWorld(t, 1)
	w.put("slots/action/disabled/:xauth/1", nil)
	w.put("slots/action/create/:xauth/10/2", nil)
	for path, want := range map[string]string{
		"/codis3/demo/slots/slot-0000": `{
    "id": 0,
    "group_id": 1,
    "action": {}
}`,
		"/codis3/demo/slots/slot-0010": `{
    "id": 10,
    "group_id": 1,
    "action": {
        "index": 1,
        "state": "pending",
        "target_id": 2
    }
}`,
		"/codis3/demo/group/group-0002": `{
    "id": 2,
    "servers": [
        {
            "server": "` + w.servers[1].addr + `",
            "datacenter": "",
            "action": {},
            "replica_group": false
        }
    ],
    "promoting": {},
    "out_of_sync": false
}`,
	} {
		if got := w.tree.Dump()[path]; got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"/codis3/demo/proxy/proxy-" + w.proxies[0].Token(), "/jodis/demo/proxy-" + w.proxies[0].Token()} {
		_, st, err := w.tree.Get(path)
		if err != nil || (st.EphemeralOwner != 0) != strings.HasPrefix(path, "/jodis") {
			t.Errorf("%s: %+v %v", path, st, err)
		}
	}
	w.proxies[0].Stop()
	dump := w.tree.Dump()
	if dump["/codis3/demo/proxy/proxy-"+w.proxies[0].Token()] == "" || dump["/jodis/demo/proxy-"+w.proxies[0].Token()] != "" {
		t.Error("a stopped proxy stays with the dashboard and leaves its clients")
	}
}

// TestJodisOutlivesAKill by 19 s.
func TestJodisOutlivesAKill(t *testing.T) {
	w := newWorldAt(t, 1, 50)
	node := "/jodis/demo/proxy-" + w.proxies[0].Token()
	began := w.clock.Now()
	w.proxies[0].Kill()
	w.until("the node is removed", func() bool { return w.tree.Dump()[node] == "" })
	if took := w.clock.Now().Sub(began); took < 19*time.Second {
		t.Errorf("removed after %v", took)
	}
}

// TestCache: what others write is not seen before a reload, and a reload tells no proxy.
func TestCache(t *testing.T) {
	w := newWorld(t, 1)
	edited := strings.Replace(w.tree.Dump()[codis.SlotPath("demo", 3)], `"group_id": 1`, `"group_id": 2`, 1)
	if err := w.tree.Put(codis.SlotPath("demo", 3), []byte(edited)); err != nil {
		t.Fatal(err)
	}
	group := func() string {
		_, b := w.dashboard.Do("GET", "/topom/slots", nil)
		_, rest, _ := strings.Cut(string(b), `"id": 3,`)
		_, rest, _ = strings.Cut(rest, `"backend_addr_group_id": `)
		return rest[:1]
	}
	if group() != "1" {
		t.Error("seen before a reload")
	}
	w.put("reload/:xauth", nil)
	if group() != "2" {
		t.Error("not seen after a reload")
	}
	if got := w.proxies[0].Routes()[3].BackendAddrGroupID; got != 1 {
		t.Errorf("the proxy was told: group %d", got)
	}
}

// TestCoordinatorDown: reads come from memory until something is to be read again.
func TestCoordinatorDown(t *testing.T) {
	w := newWorld(t, 1)
	w.stats()
	w.tree.SetDown(true)
	if s := w.stats(); !contains(s, w.servers[0].addr) {
		t.Error("no stats from memory")
	}
	for _, want := range []string{"store: update slot-[3] failed", "store: load slots failed"} {
		if cause, err := w.putDashboard(t.Context(), "slots/action/create/:xauth/3/2", nil); cause != want || err != nil {
			t.Errorf("%q %v", cause, err)
		}
	}
	w.tree.SetDown(false)
	w.stats()
}

// TestKillBetweenTwoStores: a killed dashboard has written what it had written, and no more.
func TestKillBetweenTwoStores(t *testing.T) {
	w := newWorld(t, 1)
	killed := make(chan struct{})
	w.proxies[0].SetIntercept(func(method, path string, _ []byte) fault.Action {
		if method == "PUT" && strings.Contains(path, "fillslots") {
			go func() { w.dashboard.Kill(); close(killed) }()
			return fault.Hang()
		}
		return fault.Pass()
	})
	_, err := w.putDashboard(t.Context(), "slots/assign/:xauth", []codis.SlotMapping{{ID: 7, GroupID: 2}})
	if err == nil {
		t.Error("a killed dashboard answered")
	}
	<-killed
	m, _ := w.dashboard.Mapping()
	if m[7].GroupID != 2 || w.proxies[0].Routes()[7].BackendAddrGroupID != 1 {
		t.Errorf("stored %+v, routed %+v", m[7], w.proxies[0].Routes()[7])
	}
}

func TestFrozenDashboard(t *testing.T) {
	w := newWorld(t, 1)
	w.dashboard.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.putDashboard(ctx, "slots/assign/:xauth", []codis.SlotMapping{{ID: 7, GroupID: 2}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.dashboard.Thaw()
	w.until("the call that timed out is carried out", func() bool { return w.proxies[0].Routes()[7].BackendAddrGroupID == 2 })
}

// TestServersThatAreNoCodisServers: a server without transactions carries out every line and the action fails all the same.
func TestServersThatAreNoCodisServers(t *testing.T) {
	w := newWorldAt(t, 0, 20)
	pika := startServer(t)
	w.put("group/add/:xauth/1/"+pika.addr, nil)
	pika.script(plain)
	w.put("group/action/create/:xauth/"+pika.addr, nil)
	w.until("the action has failed", func() bool { return contains(w.stats(), `"synced_failed"`) })
	if got := pika.commands("SLAVEOF"); len(got) != 1 || got[0][1]+":"+got[0][2] != w.servers[0].addr {
		t.Errorf("it was sent %q", got)
	}
	if pika.following() != w.servers[0].addr {
		t.Errorf("it follows %q", pika.following())
	}
	w.put("group/promote/:xauth/1/"+pika.addr, nil)
	m, _, err := w.tree.Get(codis.GroupPath("demo", 1))
	if err != nil || strings.Index(string(m), pika.addr) > strings.Index(string(m), w.servers[0].addr) {
		t.Errorf("the promoted server is not the first: %s %v", m, err)
	}
}

// TestStatsOfProxies: a proxy that is dead, frozen or new shows as such.
func TestStatsOfProxies(t *testing.T) {
	w := newWorldAt(t, 3, 20)
	w.proxies[0].Kill()
	w.proxies[1].Freeze()
	w.until("the dead one shows an error, the frozen one a time limit", func() bool {
		s := w.stats()
		return contains(s, "connection refused") && contains(s, `"timeout": true`) && contains(s, `"online": true`)
	})
	w.proxies[1].Thaw()
	w.until("the one that was frozen is back", func() bool { return !contains(w.stats(), `"timeout": true`) })
}

func TestWrites(t *testing.T) {
	w := newWorld(t, 1)
	w.stats()
	if got := w.dashboard.Writes(); len(got) != 0 {
		t.Errorf("writes before any: %+v", got)
	}
	if _, err := w.putDashboard(t.Context(), "slots/assign/:xauth", []codis.SlotMapping{{ID: 7, GroupID: 2}}); err != nil {
		t.Fatal(err)
	}
	if got := w.dashboard.Writes(); len(got) != 1 || got[0].Body != `[{"id":7,"group_id":2,"action":{}}]` {
		t.Errorf("%+v", got)
	}
	if got := w.proxies[0].Writes(codis.FromDashboard); len(got) != 0 {
		t.Errorf("writes to the proxy by others than the dashboard: %+v", got)
	}
	pushed := slices.ContainsFunc(w.proxies[0].Writes(), func(r codis.Request) bool { return contains(r.Body, `"id": 7,`) })
	if !pushed {
		t.Error("the dashboard's push is not in the log")
	}
}
