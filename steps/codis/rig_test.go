package codis

import (
	"context"
	"encoding/json"
	"errors"
	"hash/crc32"
	"maps"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"runbook/internal/simulate/clock"
	simcodis "runbook/internal/simulate/codis"
	simpika "runbook/internal/simulate/pika"
	"runbook/internal/simulate/traffic"
	"runbook/internal/simulate/zookeeper"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/pika"
)

// rig is a small product: the source serves every slot as group 1, the destination is the
// empty master of group 3 and follows the source in the slots to be switched.
type rig struct {
	t         testing.TB
	clock     clock.Clock
	tree      *zookeeper.Tree
	net       *simpika.Network
	src, dst  *simpika.Server
	dash      *simcodis.Dashboard
	px        []*simcodis.Proxy
	slots     schema.Slots
	world     conformance.World
	env       *conformance.Env
	def       *steps.Definition
	lastRoute atomic.Int64
}

func newRig(t testing.TB, slots string, change ...func(*simpika.Options)) *rig {
	t.Helper()
	r := &rig{t: t, clock: clock.New(1), net: simpika.NewNetwork()}
	r.tree = zookeeper.NewTree(r.clock)
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.slots, err = schema.ParseSlots(slots)
	must(err)
	start := func(name, slots string) *simpika.Server {
		o := simpika.Options{Name: name, Network: r.net, Clock: r.clock, Slots: slots, FullSync: time.Millisecond}
		for _, c := range change {
			c(&o)
		}
		s, err := simpika.Start(o)
		must(err)
		t.Cleanup(s.Close)
		return s
	}
	r.src, r.dst = start("src", "0-1023"), start("dst", slots)
	r.dash, err = simcodis.StartDashboard(simcodis.DashboardOptions{Name: "codis", Store: r.tree, Clock: r.clock})
	must(err)
	t.Cleanup(r.dash.Close)
	for range 2 {
		r.joinProxy()
	}
	r.world = conformance.World{
		Targets: map[string]conformance.Target{
			"codis":       {Kind: Target().Define(), Config: map[string]any{"addr": r.dash.Addr()}},
			"source":      {Kind: pika.Target().Define(), Config: map[string]any{"addr": r.src.Addr()}},
			"destination": {Kind: pika.Target().Define(), Config: map[string]any{"addr": r.dst.Addr()}},
			"coordinator": {Kind: r.coordinator().Define()},
		},
		Target: "codis", Wall: true,
		With: map[string]any{"slots": slots, "to_group": int64(3), "source": "source", "destination": "destination",
			"max_pause": "20s"}, // on a busy machine, with the race detector, all parts take long
	}
	r.env = conformance.NewEnv(r.world)
	t.Cleanup(func() { _ = r.env.Close() })
	c := r.client()
	for _, p := range r.px {
		must(c.Put(t.Context(), "proxy", "create", p.AdminAddr()))
	}
	for group, s := range map[string]*simpika.Server{"1": r.src, "3": r.dst} {
		must(c.Put(t.Context(), "group", "create", group))
		must(c.Put(t.Context(), "group", "add", group, s.Addr()))
	}
	var all []SlotGroup
	for id := range SlotCount {
		all = append(all, SlotGroup{ID: id, GroupID: 1})
	}
	must(c.Assign(t.Context(), all))
	r.attach()
	r.def = switchSlot().Define()
	return r
}

// coordinator opens the tree in which the dashboard stores, whatever address is asked for.
func (r *rig) coordinator() *steps.TargetKind[coordinatorConfig, treeReader] {
	return &steps.TargetKind[coordinatorConfig, treeReader]{
		Name: "zookeeper",
		Open: func(context.Context, coordinatorConfig, steps.Access) (treeReader, error) {
			return treeReader{r.tree}, nil
		},
		Close: func(treeReader) error { return nil },
	}
}

type coordinatorConfig struct {
	Addrs []string `yaml:"addrs"`
}

type treeReader struct{ tree *zookeeper.Tree }

func (t treeReader) Read(_ context.Context, path string) ([]byte, bool, error) {
	data, _, err := t.tree.Get(path)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// joinProxy starts a proxy, which is not registered yet.
func (r *rig) joinProxy() *simcodis.Proxy {
	r.t.Helper()
	p, err := simcodis.StartProxy(simcodis.ProxyOptions{Name: "proxy " + strconv.Itoa(len(r.px)), Store: r.tree, Clock: r.clock})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(p.Close)
	r.px = append(r.px, p)
	return p
}

func (r *rig) client() *Client {
	c, err := Target().Session(r.t.Context(), steps.NewSession(r.env), "codis")
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) pika(name string) *pika.Client {
	c, err := pika.Target().Session(r.t.Context(), steps.NewSession(r.env), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// attach has the destination follow the source, and waits until it does.
func (r *rig) attach() {
	r.t.Helper()
	if err := r.pika("destination").SlotsSlaveOf(r.t.Context(), r.slots, r.src.Addr(), true); err != nil {
		r.t.Fatal(err)
	}
	r.until("the destination follows", func() bool { return r.standing() == "replicating" })
}

// standing is the row that all slots are in, by the table.
func (r *rig) standing() string {
	r.t.Helper()
	p := r.plan()
	h, err := joinView(r.t.Context(), steps.NewView(r.env), p)
	if err != nil {
		r.t.Fatal(err)
	}
	h.assigned, h.fenced = maybeAssigned, true
	j := p.judge(h.look(r.t.Context()))
	first := j.rows[p.Slots[0]]
	if len(j.in(first)) != len(j.rows) || first == rowNone {
		return j.String()
	}
	return first.String()
}

func (r *rig) plan() switchPlan {
	p := switchPlan{Slots: r.slots, From: 1, To: 3, Source: serverOf{"source", r.src.Addr()}, Destination: serverOf{"destination", r.dst.Addr()}, MaxPause: 2 * time.Second, Product: "demo"}
	p.Coordinator.Name, p.Coordinator.Addr = "zookeeper", "127.0.0.1:2181"
	for _, px := range r.px {
		p.Proxies = append(p.Proxies, ProxyModel{Token: px.Token(), AdminAddr: px.AdminAddr()})
	}
	return p
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("it did not come to that: %s; the slots are %s", what, r.standing())
		}
		if r.clock.Sleep(r.t.Context(), 5*time.Millisecond) != nil {
			return
		}
	}
}

// apply is one attempt of the step, as the engine makes it.
func (r *rig) apply(ctx context.Context, with ...any) (switchOut, error) {
	return r.applyIn(ctx, r.env, with...)
}

func (r *rig) applyIn(ctx context.Context, env steps.Env, with ...any) (switchOut, error) {
	in := r.input(with...)
	v := steps.NewView(env)
	r.env.SetBefore(nil)
	if err := r.def.Check(ctx, v, in); err != nil {
		return switchOut{}, err
	}
	change, err := r.def.Plan(ctx, &v, in)
	if err != nil {
		return switchOut{}, err
	}
	r.env.SetBefore(change.Before)
	out, err := r.def.Apply(ctx, steps.NewSession(env), in)
	o, _ := out.(switchOut)
	return o, err
}

// resume is the attempt of a later process, which has what the first one journaled.
func (r *rig) resume(ctx context.Context, with ...any) (switchOut, error) {
	in := r.input(with...)
	v := steps.NewView(r.env)
	if err := r.def.Check(ctx, v, in); err != nil {
		return switchOut{}, err
	}
	change, err := r.def.Plan(ctx, &v, in)
	if err != nil {
		return switchOut{}, err
	}
	r.env.SetBefore(change.Before)
	out, err := r.def.Apply(ctx, steps.NewSession(r.env), in)
	o, _ := out.(switchOut)
	return o, err
}

func (r *rig) input(with ...any) *switchIn {
	r.t.Helper()
	values := maps.Clone(r.world.With)
	for i := 0; i+1 < len(with); i += 2 {
		values[with[i].(string)] = with[i+1]
	}
	in := &switchIn{}
	if err := schema.Bind(values, in); err != nil {
		r.t.Fatal(err)
	}
	return in
}

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// traffic writes through both proxies, all of it to the first of the slots; the load is stopped and judged at the end.
func (r *rig) traffic(clients int, rate float64) *traffic.Traffic {
	r.t.Helper()
	tr, err := traffic.Start(r.t.Context(), traffic.Options{
		Route: func(context.Context) (string, error) {
			return r.px[int(r.lastRoute.Add(1))%len(r.px)].Addr(), nil
		},
		Clients: clients, WritesPerSecond: rate, Keys: 10 * clients, Prefix: "{" + tagIn(r.slots[0]) + "}", RouteEvery: time.Hour, Clock: r.clock,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.until("clients write", func() bool { return tr.Ledger().Stats().Acknowledged > int64(2*clients) })
	return tr
}

func tagIn(slot int) string {
	for i := 0; ; i++ {
		if tag := strconv.Itoa(i); int(crc32.ChecksumIEEE([]byte(tag))%SlotCount) == slot {
			return tag
		}
	}
}

// judged stops the load and compares what was acknowledged with what can be read through a proxy.
func (r *rig) judged(tr *traffic.Traffic) traffic.Report {
	r.t.Helper()
	tr.Stop()
	read, done, err := traffic.ReadAt(r.t.Context(), nil, r.px[0].Addr(), "", "")
	if err != nil {
		r.t.Fatal(err)
	}
	defer done()
	report, err := tr.Check(r.t.Context(), read)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("%d writes acknowledged, %d lost, %d stale reads, longest wait %v", report.Acknowledged, len(report.Lost), len(report.Stale), report.MaxWait)
	return report
}

// unharmed wants that nothing was lost and everybody is served.
func (r *rig) unharmed(tr *traffic.Traffic) traffic.Report {
	r.t.Helper()
	report := r.judged(tr)
	for name, what := range report.Broken() {
		r.t.Errorf("%s: %s", name, what)
	}
	return report
}
