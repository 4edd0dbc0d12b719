package codis

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate/clock"
	simcodis "runbook/internal/simulate/codis"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/zookeeper"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct-horse-battery"

// speed of the worlds' time: the dashboard looks for work once a second.
const speed = 20

// world is a product with two groups, a replica in the first, and two proxies; slots 0-511 belong to group 1, the others to
// group 2.
type world struct {
	*testing.T
	clock     clock.Clock
	tree      *zookeeper.Tree
	dashboard *simcodis.Dashboard
	proxies   []*simcodis.Proxy
	one, two  *server // the masters
	replica   *server // of one
	others    []*server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, clock: clock.New(speed)}
	w.tree = zookeeper.NewTree(w.clock)
	var err error
	w.dashboard, err = simcodis.StartDashboard(simcodis.DashboardOptions{Store: w.tree, Clock: w.clock, ProductAuth: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dashboard.Close)
	w.one, w.two, w.replica = startServer(t, password), startServer(t, password), startServer(t, password)
	w.replica.follow(w.one, 0)
	for i, s := range []*server{w.one, w.two} {
		w.put("group/create/:xauth/"+number(i+1), nil)
		w.put(fmt.Sprintf("group/add/:xauth/%d/%s", i+1, s.addr), nil)
	}
	w.put("group/add/:xauth/1/"+w.replica.addr, nil)
	for range 2 {
		w.put("proxy/create/:xauth/"+w.proxy().AdminAddr(), nil)
	}
	var all []SlotGroup
	for i := range SlotCount {
		all = append(all, SlotGroup{ID: i, GroupID: 1 + i/512})
	}
	w.put("slots/assign/:xauth", all)
	w.put("group/resync-all/:xauth", nil)
	return w
}

// proxy starts one that nobody knows yet.
func (w *world) proxy() *simcodis.Proxy {
	w.Helper()
	p, err := simcodis.StartProxy(simcodis.ProxyOptions{Clock: w.clock, Store: w.tree, ProductAuth: password})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(p.Close)
	w.proxies = append(w.proxies, p)
	return p
}

// server starts one that is in no group yet.
func (w *world) server() *server {
	s := startServer(w.T, password)
	w.others = append(w.others, s)
	return s
}

// put changes something as an administrator, past every fault.
func (w *world) put(path string, body any) {
	w.Helper()
	if err := w.dashboard.Put("/api/topom/"+path, encode(body)); err != nil {
		w.Fatal(err)
	}
}

func encode(body any) []byte {
	if body == nil {
		return nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return b
}

// fill has a proxy do something with slots, past the dashboard.
func (w *world) fillSlots(p *simcodis.Proxy, slots ...Slot) {
	w.Helper()
	if status, answer := p.Do("PUT", "/api/proxy/fillslots/:xauth", encode(slots)); status != 200 {
		w.Fatalf("fillslots: %d %s", status, answer)
	}
}

func (w *world) config() map[string]any {
	return map[string]any{"addr": w.dashboard.Addr(), "product_auth": password, "timeout": 2 * time.Second}
}

func (w *world) client(a steps.Access) *Client {
	return Open(Config{Addr: schema.Addr(w.dashboard.Addr()), ProductAuth: schema.NewSecret(password), Timeout: 5 * time.Second}, a)
}

func (w *world) stats() Stats {
	w.Helper()
	status, body := w.dashboard.Do("GET", "/topom/stats", nil)
	var s Stats
	if err := json.Unmarshal(body, &s); status != 200 || err != nil {
		w.Fatalf("stats: %d %v %s", status, err, body)
	}
	return s
}

// routes tells what both the mapping and every proxy say of some slots.
func (w *world) routes(slots ...int) func() string {
	return func() string {
		s := w.stats()
		text := ""
		for _, id := range slots {
			m := s.Mapping(id)
			text += fmt.Sprintf("%d: %d %q", id, m.GroupID, m.Action.State)
			for _, p := range w.proxies {
				at := p.Routes()[id]
				text += fmt.Sprintf(" %s %t %s,", at.BackendAddr, at.Locked, at.MigrateFrom)
			}
		}
		return text
	}
}

// members tells the groups with their servers.
func (w *world) members() string {
	text := ""
	groups := w.stats().Group.Models
	slices.SortFunc(groups, func(a, b Group) int { return a.ID - b.ID })
	for _, g := range groups {
		text += fmt.Sprintf("%d: %v %s %t; ", g.ID, g.addrs(), g.Promoting.State, g.OutOfSync)
	}
	return text
}

// named tells a state with names instead of addresses, which are others in every world.
func (w *world) named(text string) string {
	names := []string{w.one.addr, "one", w.two.addr, "two", w.replica.addr, "replica"}
	for i, s := range w.others {
		names = append(names, s.addr, "other"+number(i))
	}
	for i, p := range w.proxies {
		names = append(names, p.AdminAddr(), "proxy"+number(i))
	}
	return strings.NewReplacer(names...).Replace(text)
}

// conform makes a conformance world of it.
func (w *world) conform(with map[string]any, snapshot func() string) conformance.World {
	secrets := []string{password, w.dashboard.XAuth()}
	for _, p := range w.proxies {
		secrets = append(secrets, p.XAuth())
	}
	return conformance.World{
		Targets: map[string]conformance.Target{"own": {Kind: Target().Define(), Config: w.config()}}, Target: "own",
		With: with, Secrets: secrets, Snapshot: func() string { return w.named(snapshot()) }, Wall: true,
		Writes: func() int {
			n := len(w.dashboard.Writes())
			for _, p := range w.proxies {
				n += len(p.Writes(simcodis.FromDashboard))
			}
			return n
		},
		Intercept: func(f func(bool) conformance.Fault) {
			var judge simcodis.Intercept
			if f != nil {
				judge = func(method, _ string, _ []byte) fault.Action {
					switch f(method != "GET") {
					case conformance.LostBefore:
						return fault.CutBefore()
					case conformance.LostAfter:
						return fault.CutAfter()
					case conformance.Hang:
						return fault.Hang()
					}
					return fault.Pass()
				}
			}
			w.dashboard.SetIntercept(judge)
			for _, p := range w.proxies {
				p.SetIntercept(judge, simcodis.FromDashboard)
			}
		},
	}
}

// eventually asks until it is so; a simulated product has a life of its own and nothing to wait on.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestConformance holds every kind to the contract.
func TestConformance(t *testing.T) {
	all := fixtures()
	for _, d := range Kinds() {
		f, ok := all[d.Name]
		if !ok {
			if d.Name != "codis.switch-slot" { // its own tests stand on Pika
				t.Errorf("%s has no fixture", d.Name)
			}
			continue
		}
		t.Run(d.Name, func(t *testing.T) { conformance.Run(t, d, f) })
	}
}

func fixtures() map[string]conformance.Fixture {
	in := func(begin func(w *world) (with map[string]any, snapshot func() string)) func(t *testing.T) conformance.World {
		return func(t *testing.T) conformance.World {
			w := newWorld(t)
			with, snapshot := begin(w)
			return w.conform(with, snapshot)
		}
	}
	return map[string]conformance.Fixture{
		"codis.info": {New: in(func(w *world) (map[string]any, func() string) {
			return nil, func() string { return w.members() + w.routes(0, 512)() }
		})},
		"codis.check-health": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"method": "semi-async", "release": "3.2.2"}, w.routes(0, 512)
		})},
		"codis.slot-info": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"slots": "0-3,512"}, w.routes(0, 512)
		})},
		"codis.proxy-stats": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"window": 10 * time.Millisecond}, w.routes(0, 512)
		})},
		"codis.create-group": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"group": 3}, w.members
		})},
		"codis.remove-group": {New: in(func(w *world) (map[string]any, func() string) {
			w.put("group/create/:xauth/3", nil)
			return map[string]any{"group": 3}, w.members
		})},
		"codis.resync-group": {New: in(func(w *world) (map[string]any, func() string) {
			w.put("slots/assign/:xauth", []SlotGroup{{ID: 1, GroupID: 2}})
			return map[string]any{"group": 2}, w.members
		})},
		"codis.add-server": {New: in(func(w *world) (map[string]any, func() string) {
			w.put("group/create/:xauth/3", nil)
			return map[string]any{"group": 3, "addr": w.server().addr}, w.members
		})},
		"codis.remove-server": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"group": 1, "addr": w.replica.addr}, w.members
		})},
		"codis.promote": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"group": 1, "addr": w.replica.addr}, func() string { return w.members() + w.routes(0, 512)() }
		})},
		"codis.assign-slots": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"slots": "1-3,8", "to_group": 2}, w.routes(0, 1, 2, 3, 8)
		})},
		"codis.migrate-slots": {New: in(func(w *world) (map[string]any, func() string) {
			w.one.fill(1, 3)
			return map[string]any{"slots": "1-2,8", "to_group": 2, "every": 200 * time.Millisecond, "interval": time.Millisecond}, func() string {
				return w.routes(0, 1, 2, 8)() + fmt.Sprint(w.one.has(1), w.two.has(1), w.stats().SlotAction.Interval)
			}
		})},
		"codis.set-interval": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"interval": 200 * time.Millisecond}, w.memory
		})},
		"codis.pause-actions": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"paused": true}, w.memory
		})},
		"codis.add-proxy": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"admin_addr": w.proxy().AdminAddr()}, w.registered
		})},
		"codis.remove-proxy": {New: in(func(w *world) (map[string]any, func() string) {
			return map[string]any{"admin_addr": w.proxies[1].AdminAddr()}, func() string {
				return w.registered() + fmt.Sprint(w.proxies[1].Alive())
			}
		})},
	}
}

func (w *world) memory() string {
	a := w.stats().SlotAction
	return fmt.Sprint(a.Interval, a.Disabled)
}

func (w *world) registered() string {
	var text []string
	proxies := w.stats().Proxy.Models
	slices.SortFunc(proxies, func(a, b ProxyModel) int { return a.ID - b.ID })
	for _, p := range proxies {
		text = append(text, p.AdminAddr)
	}
	return strings.Join(text, " ")
}
