package codis_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/resp"
)

// TestWhatOpensAHold does to a held slot what an operator or a monitor may do meanwhile.
func TestWhatOpensAHold(t *testing.T) {
	const slot = 34
	tests := []struct {
		name  string
		opens bool
		do    func(w *world)
	}{
		{"polls and keepalive", false, func(w *world) { w.ticks(6) }},
		{"reload", false, func(w *world) { w.put("reload/:xauth", nil) }},
		{"resync of sentinels", false, func(w *world) { w.put("sentinels/resync-all/:xauth", nil) }},
		{"interval and disabled", false, func(w *world) {
			w.put("slots/action/interval/:xauth/1000", nil)
			w.put("slots/action/disabled/:xauth/1", nil)
		}},
		{"resync of another group", false, func(w *world) { w.put("group/resync/:xauth/2", nil) }},
		{"assign of another slot", false, func(w *world) { w.assign(codis.SlotMapping{ID: slot + 1, GroupID: 1}) }},
		{"an action queued and removed", false, func(w *world) {
			w.put("slots/action/disabled/:xauth/1", nil)
			w.put(fmt.Sprintf("slots/action/create/:xauth/%d/2", slot), nil)
			w.put(fmt.Sprintf("slots/action/remove/:xauth/%d", slot), nil)
		}},
		{"a replica added and removed", false, func(w *world) {
			s := startServer(w.TB)
			w.put("group/add/:xauth/1/"+s.addr, nil)
			w.put("group/del/:xauth/1/"+s.addr, nil)
		}},
		{"restart of the dashboard", false, func(w *world) {
			w.dashboard.Kill()
			if err := w.dashboard.RemoveLock(); err != nil {
				w.Fatal(err)
			}
			if err := w.dashboard.Restart(); err != nil {
				w.Fatal(err)
			}
			w.ticks(3)
		}},
		{"reinit of the proxy", true, func(w *world) { w.put("proxy/reinit/:xauth/"+w.proxies[0].Token(), nil) }},
		{"online of the proxy", true, func(w *world) { w.put("proxy/online/:xauth/"+w.proxies[0].AdminAddr(), nil) }},
		{"resync of its group", true, func(w *world) { w.put("group/resync/:xauth/1", nil) }},
		{"resync of all groups", true, func(w *world) { w.put("group/resync-all/:xauth", nil) }},
		{"an action on the slot", true, func(w *world) {
			w.servers[0].script(func(args []string) (resp.Value, bool) {
				return resp.List(resp.Number(0), resp.Number(1)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
			})
			w.put("slots/action/interval/:xauth/1000000", nil)
			w.put(fmt.Sprintf("slots/action/create/:xauth/%d/2", slot), nil)
			w.until("the slot migrates", func() bool { s := w.proxies[0].Routes()[slot]; return s.MigrateFrom != "" && !s.Locked })
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorldAt(t, 1, 50)
			w.hold(w.proxies[0], true, slot)
			tt.do(w)
			if held := w.proxies[0].Routes()[slot].Locked; held == tt.opens {
				t.Errorf("held = %v", held)
			}
		})
	}
}

// ticks waits until the dashboard has asked the first proxy so many times.
func (w *world) ticks(n int) {
	w.Helper()
	asked := func() (k int) {
		for _, r := range w.proxies[0].Requests() {
			if r.From == codis.FromDashboard && r.Method == http.MethodGet {
				k++
			}
		}
		return k
	}
	before := asked()
	w.until("the dashboard asks its proxies", func() bool { return asked() >= before+n })
}

func TestNewProxyComesInOpen(t *testing.T) {
	w := newWorld(t, 1)
	w.hold(w.proxies[0], true, 5)
	if got := w.ask(w.proxy(), "SET "+key(5)+" past-the-hold"); got != "OK" {
		t.Errorf("through the proxy that came in: %s", got)
	}
}

// TestRestartedProxy has an empty table until the dashboard's loop finds it, and then the mapping, not the hold.
func TestRestartedProxy(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	w.hold(p, true, 5)
	tok := p.Token()
	w.dashboard.Freeze()
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if p.Token() != tok {
		t.Error("another token after a restart on the same ports")
	}
	if got := p.Routes()[5]; got.BackendAddr != "" || got.Locked {
		t.Errorf("after a restart: %+v", got)
	}
	c := w.client(p)
	if v, err := c.Receive(); err != nil || v.Str != "ERR router is not online" {
		t.Errorf("%+v %v", v, err)
	}
	w.dashboard.Thaw()
	w.until("the dashboard sets it to work", func() bool { return p.Routes()[5].BackendAddr != "" })
	if p.Routes()[5].Locked {
		t.Error("held after a restart")
	}
}

// TestHoldWaitsForRequestsUnderWay: a slow server delays the hold, and everything that looks at slots meanwhile.
func TestHoldWaitsForRequestsUnderWay(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	c := w.client(p)
	if _, err := c.Do(t.Context(), "SET", key(5), "0"); err != nil {
		t.Fatal(err)
	}
	w.servers[0].hang(true)
	if err := c.Send("SET", key(5), "1"); err != nil {
		t.Fatal(err)
	}
	w.until("the request is under way", func() bool { return len(w.servers[0].commands("SET")) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := w.fill(ctx, p, holding(p, true, 5)...); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a hold while a request of the slot is under way: %v", err)
	}
	for _, path := range []string{"/proxy/slots", "/proxy/stats", "/api/proxy/xping/" + p.XAuth()} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, _, err := w.call(ctx, "GET", "http://"+p.AdminAddr()+path, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("GET %s meanwhile: %v", path, err)
		}
		cancel()
	}
	if status, _, err := w.call(t.Context(), "GET", "http://"+p.AdminAddr()+"/proxy/model", nil); status != 200 || err != nil {
		t.Errorf("GET /proxy/model meanwhile: %d %v", status, err)
	}
	w.servers[0].hang(false)
	if v, err := c.Receive(); err != nil || v.Str != "OK" {
		t.Fatal(v, err)
	}
	w.until("the hold that timed out comes into force", func() bool {
		s := p.Routes()[5]
		return s.Locked
	})
}

// TestFrozenProxy is the hold that a frozen proxy did not answer: it comes into force when nobody expects it any more.
func TestFrozenProxy(t *testing.T) {
	for _, lastFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("last first %v", lastFirst), func(t *testing.T) {
			w := newWorld(t, 2)
			p := w.proxies[1]
			p.Freeze()
			for _, locked := range []bool{true, false} {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				if err := w.fill(ctx, p, holding(p, locked, 41)...); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("a call of a frozen proxy: %v", err)
				}
				cancel()
			}
			before := len(p.Writes(codis.FromDashboard))
			if lastFirst {
				p.ThawLastFirst()
			} else {
				p.Thaw()
			}
			w.until("both calls are carried out", func() bool { return len(p.Writes(codis.FromDashboard)) == before+2 })
			// The next call is behind both.
			if status, _, err := w.call(t.Context(), "GET", "http://"+p.AdminAddr()+"/proxy/slots", nil); status != 200 || err != nil {
				t.Fatal(status, err)
			}
			if got := p.Routes()[41].Locked; got != lastFirst {
				t.Errorf("held = %v", got)
			}
		})
	}
}

// TestFrozenProxyHoldsTheDashboard: the push waits for a minute, and every call of the dashboard but one with it.
func TestFrozenProxyHoldsTheDashboard(t *testing.T) {
	w := newWorldAt(t, 2, 50)
	w.proxies[1].Freeze()
	began := w.clock.Now()
	answered := make(chan string)
	go func() {
		cause, err := w.putDashboard(context.Background(), "slots/assign/:xauth", []codis.SlotMapping{{ID: 7, GroupID: 2}})
		answered <- fmt.Sprint(cause, err)
	}()
	w.until("the other proxy has the new mapping", func() bool { return w.proxies[0].Routes()[7].BackendAddrGroupID == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := w.call(ctx, "GET", "http://"+w.dashboard.Addr()+"/topom/stats", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GET /topom/stats meanwhile: %v", err)
	}
	if status, _, err := w.call(t.Context(), "GET", "http://"+w.dashboard.Addr()+"/topom/model", nil); status != 200 || err != nil {
		t.Errorf("GET /topom/model meanwhile: %d %v", status, err)
	}
	if got, want := <-answered, "proxy-["+w.proxies[1].Token()+"] resync slots failed<nil>"; got != want {
		t.Errorf("assign: %s", got)
	}
	if took := w.clock.Now().Sub(began); took < time.Minute {
		t.Errorf("the push gave up after %v", took)
	}
	if m, err := w.dashboard.Mapping(); err != nil || m[7].GroupID != 2 {
		t.Errorf("stored: %+v %v", m[7], err)
	}
	w.proxies[1].Thaw()
	w.until("the push that timed out is carried out", func() bool { return w.proxies[1].Routes()[7].BackendAddrGroupID == 2 })
}

// TestFrozenServer: after 30 s without an answer the connection is given up, and the requests behind it with it.
func TestFrozenServer(t *testing.T) {
	w := newWorldAt(t, 1, 50)
	c := w.client(w.proxies[0])
	if _, err := c.Do(t.Context(), "SET", key(5), "0"); err != nil {
		t.Fatal(err)
	}
	w.servers[0].hang(true)
	began := w.clock.Now()
	_, err := c.Do(t.Context(), "SET", key(5), "1")
	var reply resp.ReplyError
	if !errors.As(err, &reply) {
		t.Fatalf("%v", err)
	}
	if took := w.clock.Now().Sub(began); took < 30*time.Second {
		t.Errorf("given up after %v: %v", took, err)
	}
	w.servers[0].hang(false)
	w.until("requests are answered again", func() bool { return w.ask(w.proxies[0], "SET "+key(5)+" 2") == "OK" })
}

func TestFaultsOfTheAdminAPI(t *testing.T) {
	slot := codis.Slot{ID: 9, Locked: true, BackendAddr: "127.0.0.1:1", BackendAddrGroupID: 1, ForwardMethod: 1}
	tests := []struct {
		name    string
		act     fault.Action
		applied bool
		err     string
	}{
		{"pass", fault.Pass(), true, ""},
		{"fail", fault.Fail("no such luck"), false, `800 {
    "Cause": "no such luck",
    "Stack": null
}`},
		{"hang", fault.Hang(), false, "deadline"},
		{"cut before", fault.CutBefore(), false, "EOF"},
		{"cut after", fault.CutAfter(), true, "EOF"},
		{"garbage", fault.Garbage("what?\r\n"), true, "malformed"},
		{"delay", fault.Delay(time.Millisecond), true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 1)
			p := w.proxies[0]
			p.SetIntercept(func(method, path string, body []byte) fault.Action {
				if method == "PUT" && path == "/api/proxy/fillslots/"+p.XAuth() && len(body) > 0 {
					return tt.act
				}
				return fault.Pass()
			}, codis.FromDashboard)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if tt.name == "hang" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			err := w.fill(ctx, p, slot)
			if (err == nil) != (tt.err == "") || err != nil && !contains(err.Error(), tt.err) {
				t.Errorf("answered %v", err)
			}
			if got := p.Routes()[9].Locked; got != tt.applied {
				t.Errorf("held = %v", got)
			}
		})
	}
}
