package simulate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/zookeeper"
)

func (w *World) checkCodis(s *system) error {
	spec := s.spec
	if all := w.names("codis"); len(all) > 1 {
		return fmt.Errorf("a world has one codis, and this one %s", strings.Join(all, ", "))
	}
	if zks := w.names("zookeeper"); len(zks) > 1 {
		return fmt.Errorf("the world has several zookeepers, %s and %s; a codis keeps its state in the only one", zks[0], zks[1])
	}
	if spec.Proxies < 0 {
		return fmt.Errorf("proxies: %d", spec.Proxies)
	}
	in := map[string]string{}
	for _, text := range slices.Sorted(maps.Keys(spec.Groups)) {
		if n, err := strconv.Atoi(text); err != nil || n < 1 || n > 9999 || strconv.Itoa(n) != text {
			return fmt.Errorf("groups: %q is no number of a group, 1 to 9999", text)
		}
		for _, name := range spec.Groups[text] {
			m, ok := w.spec.Systems[name]
			switch {
			case !ok || m.Kind != "pika":
				return fmt.Errorf("group %s has %q, which is no pika of this world", text, name)
			case m.Absent:
				return fmt.Errorf("group %s has %s, which is absent: true; the runbook that creates it adds it", text, name)
			case !sharding(m):
				return fmt.Errorf("group %s has %s, which is not in mode sharding: a dashboard refuses it", text, name)
			case w.slotNum(name) != slotNum:
				return fmt.Errorf("group %s has %s, which knows %d slots, and Codis %d", text, name, w.slotNum(name), slotNum)
			case m.Password != spec.ProductAuth:
				return fmt.Errorf("group %s has %s, whose password is not the product_auth", text, name)
			case in[name] != "":
				return fmt.Errorf("%s is in groups %s and %s", name, in[name], text)
			}
			in[name] = text
		}
	}
	owners, err := groupsOfSlots(spec)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(owners)) {
		group := strconv.Itoa(owners[id])
		if len(spec.Groups[group]) == 0 {
			return fmt.Errorf("slot %d belongs to group %s, which has no servers", id, group)
		}
		master := spec.Groups[group][0]
		m := w.spec.Systems[master]
		if has, err := parseSlots(cmp.Or[any](m.Slots, ""), slotNum); err != nil || !slices.Contains(has, id) {
			return fmt.Errorf("slot %d belongs to group %s, whose master %s does not have it", id, group, master)
		}
		if m.ReplicaOf != "" {
			return fmt.Errorf("group %s begins with %s, which is a replica; the first is the master", group, master)
		}
	}
	return nil
}

func groupsOfSlots(spec System) (map[int]int, error) {
	return slotOwners(spec.Slots, slotNum, func(said any) (int, error) {
		switch n := said.(type) {
		case int:
			return n, nil
		case int64:
			return int(n), nil
		}
		return 0, fmt.Errorf("%v: the number of a group is wanted", said)
	})
}

// product is a Codis: its dashboard and its proxies.
type product struct {
	*codis.Dashboard
	name  string // of the product
	store codis.Store

	mu      sync.Mutex
	proxies []*codis.Proxy
}

func (p *product) all() []*codis.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.proxies)
}

func (p *product) Close() {
	for _, proxy := range p.all() {
		proxy.Close()
	}
	p.Dashboard.Close()
}

// Codis gives the dashboard of a codis by name; nil where there is none.
func (w *World) Codis(name string) *codis.Dashboard {
	if p := as[*product](w, name); p != nil {
		return p.Dashboard
	}
	return nil
}

// Proxies gives the proxies of a codis in the order in which they were started, also those that are stopped.
func (w *World) Proxies(name string) []*codis.Proxy {
	if p := as[*product](w, name); p != nil {
		return p.all()
	}
	return nil
}

// Proxy gives one proxy of a codis, the first as 0; nil where there is none.
func (w *World) Proxy(name string, i int) *codis.Proxy {
	if all := w.Proxies(name); i < len(all) {
		return all[i]
	}
	return nil
}

// StartProxy starts another proxy of a codis. The dashboard does not know it: it serves nobody until it is registered.
func (w *World) StartProxy(name string) (*codis.Proxy, error) {
	p := as[*product](w, name)
	if p == nil {
		return nil, fmt.Errorf("start a proxy: %s is no codis of this world", name)
	}
	s := w.systems[name]
	o := codis.ProxyOptions{
		Name: fmt.Sprintf("%s proxy %d", name, len(p.all())+1), Product: s.spec.Product, ProductAuth: s.spec.ProductAuth,
		Clock: w.clock, Dial: w.Dial,
	}
	var taken reserved
	var err error
	for _, addr := range []*string{&o.Addr, &o.AdminAddr} {
		if *addr, err = taken.addr(0, w.declares); err != nil {
			break
		}
	}
	taken.free()
	if err != nil {
		return nil, err
	}
	if len(w.names("zookeeper")) > 0 { // the only coordinator in which proxies announce themselves
		o.Store = p.store
	}
	proxy, err := codis.StartProxy(o)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	s.more[proxy.Addr()], s.more[proxy.AdminAddr()] = proxy.Addr(), proxy.AdminAddr()
	w.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proxies = append(p.proxies, proxy)
	return proxy, nil
}

func startCodis(_ context.Context, w *World, s *system) error {
	o := codis.DashboardOptions{
		Name: s.name, Product: s.spec.Product, ProductAuth: s.spec.ProductAuth, MigrationMethod: s.spec.MigrationMethod,
		Addr: s.actual, Announce: w.shown(s), Clock: w.clock, Dial: w.Dial,
	}
	if zk := w.names("zookeeper"); len(zk) > 0 {
		o.Store, o.CoordinatorName, o.CoordinatorAddr = w.ZooKeeper(zk[0]).Tree(), "zookeeper", w.shown(w.systems[zk[0]])
	} else {
		o.Store, o.CoordinatorName, o.CoordinatorAddr = zookeeper.NewTree(w.clock), "filesystem", "/data/codis"
	}
	dashboard, err := codis.StartDashboard(o)
	if err != nil {
		return err
	}
	p := &product{Dashboard: dashboard, name: cmp.Or(s.spec.Product, "demo"), store: o.Store}
	w.began(s, p, 0)
	for range max(s.spec.Proxies, 1) {
		proxy, err := w.StartProxy(s.name)
		if err != nil {
			return err
		}
		if err := p.put("proxy/create/:xauth/" + proxy.AdminAddr()); err != nil {
			return err
		}
	}
	return w.fillCodis(s, p)
}

func (p *product) put(path string) error { return p.Put("/api/topom/"+path, nil) }

// fillCodis creates the groups and gives them their slots.
func (w *World) fillCodis(s *system, p *product) error {
	for _, group := range slices.SortedFunc(maps.Keys(s.spec.Groups), byNumber) {
		if err := p.put("group/create/:xauth/" + group); err != nil {
			return err
		}
		for _, name := range s.spec.Groups[group] {
			if err := p.put("group/add/:xauth/" + group + "/" + w.shown(w.systems[name])); err != nil {
				return err
			}
		}
	}
	owners, err := groupsOfSlots(s.spec)
	if err != nil || len(owners) == 0 {
		return err
	}
	var mapping []codis.SlotMapping
	for _, id := range slices.Sorted(maps.Keys(owners)) {
		mapping = append(mapping, codis.SlotMapping{ID: id, GroupID: owners[id]})
	}
	body, err := json.Marshal(mapping)
	if err != nil {
		return err
	}
	if err := p.Put("/api/topom/slots/assign/:xauth", body); err != nil {
		return err
	}
	return p.put("group/resync-all/:xauth") // takes the marks off that the assignment left
}

func byNumber(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// groups are the groups of a product as the coordinator holds them.
func (p *product) groups() (map[int]*codis.Group, error) {
	all := map[int]*codis.Group{}
	dir := path.Dir(codis.GroupPath(p.name, 0))
	names, _, err := p.store.Children(dir)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, _, err := p.store.Get(dir + "/" + n)
		if err != nil {
			return nil, err
		}
		g := &codis.Group{}
		if err := json.Unmarshal(b, g); err != nil {
			return nil, err
		}
		all[g.ID] = g
	}
	return all, nil
}

// settleCodis waits until the dashboard has heard from every server and proxy once: a product that has just been started
// calls all of them unreachable, and a world begins with one that has run for a while.
func settleCodis(ctx context.Context, w *World, s *system) error {
	p := as[*product](w, s.name)
	heard := func() bool {
		type report struct {
			UnixTime int64 `json:"unixtime"`
		}
		var stats struct {
			Group struct {
				Stats map[string]report `json:"stats"`
			} `json:"group"`
			Proxy struct {
				Stats map[string]report `json:"stats"`
			} `json:"proxy"`
		}
		_, body := p.Do("GET", "/topom/stats", nil)
		if json.Unmarshal(body, &stats) != nil || len(stats.Proxy.Stats) < len(p.all()) {
			return false
		}
		for _, all := range []map[string]report{stats.Group.Stats, stats.Proxy.Stats} {
			for _, r := range all {
				if r.UnixTime == 0 {
					return false
				}
			}
		}
		return true
	}
	if err := w.until(ctx, heard); err != nil {
		return fmt.Errorf("the dashboard did not hear from all of its servers and proxies: %w", err)
	}
	return nil
}
