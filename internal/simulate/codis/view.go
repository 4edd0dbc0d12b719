package codis

import "slices"

// The views below are computed from the cache; the caller holds the mutex.

const (
	synchronous = "sync"
	semiAsync   = "semi-async"
)

// view is what a proxy is told of slots. Replicas are ordered by how near they are to the proxy; p is nil for the view of nobody.
func (t *topom) view(mappings []*SlotMapping, p *ProxyModel) []Slot {
	out := make([]Slot, len(mappings))
	for i, m := range mappings {
		out[i] = t.slotView(m, p)
	}
	return out
}

func (t *topom) slotView(m *SlotMapping, p *ProxyModel) Slot {
	s := Slot{ID: m.ID, Locked: t.slotLocked(m)}
	if t.opts.MigrationMethod == semiAsync {
		s.ForwardMethod = forwardSemiAsync
	}
	switch m.Action.State {
	case idle, pending:
		s.BackendAddr, s.BackendAddrGroupID = t.master(m.GroupID), m.GroupID
		s.ReplicaGroups = t.replicas(m.GroupID, p)
	case preparing:
		s.BackendAddr, s.BackendAddrGroupID = t.master(m.GroupID), m.GroupID
	case prepared, migrating:
		s.BackendAddr, s.BackendAddrGroupID = t.master(m.Action.TargetID), m.Action.TargetID
		s.MigrateFrom, s.MigrateFromGroupID = t.master(m.GroupID), m.GroupID
	case finished:
		s.BackendAddr, s.BackendAddrGroupID = t.master(m.Action.TargetID), m.Action.TargetID
	}
	return s
}

func (t *topom) slotLocked(m *SlotMapping) bool {
	switch m.Action.State {
	case prepared:
		return true
	case migrating:
		return t.groupLocked(m.GroupID) || t.groupLocked(m.Action.TargetID)
	case finished:
		return t.groupLocked(m.Action.TargetID)
	}
	return t.groupLocked(m.GroupID)
}

func (t *topom) groupLocked(gid int) bool {
	g := t.cache.groups[gid]
	return g != nil && g.Promoting.State == prepared
}

func (t *topom) promoting(gid int) bool {
	g := t.cache.groups[gid]
	return g != nil && g.Promoting.State != idle
}

func (t *topom) master(gid int) string {
	if g := t.cache.groups[gid]; g != nil && len(g.Servers) > 0 {
		return g.Servers[0].Addr
	}
	return ""
}

// replicas are the servers of a group that reads may go to: those of the proxy's machine, of its datacenter, the others.
func (t *topom) replicas(gid int, p *ProxyModel) [][]string {
	g := t.cache.groups[gid]
	if g == nil || g.Promoting.State != idle || len(g.Servers) <= 1 {
		return nil
	}
	var near [3][]string
	for _, s := range g.Servers {
		if !s.ReplicaGroup {
			continue
		}
		rank := 2
		if p != nil && p.Datacenter == s.Datacenter {
			rank = 1
			if hostOf(p.AdminAddr) == hostOf(s.Addr) {
				rank = 0
			}
		}
		near[rank] = append(near[rank], s.Addr)
	}
	return slices.DeleteFunc(near[:], func(l []string) bool { return len(l) == 0 })
}

func (t *topom) slot(id int) (*SlotMapping, error) {
	if id < 0 || id >= SlotCount {
		return nil, tracef("slot-[%d] doesn't exist", id)
	}
	return t.cache.slots[id], nil
}

// slotsOf are those that belong to a group or move to it.
func (t *topom) slotsOf(gid int) []*SlotMapping {
	var out []*SlotMapping
	for _, m := range t.cache.slots {
		if m.GroupID == gid || m.Action.TargetID == gid {
			out = append(out, m)
		}
	}
	return out
}

func (t *topom) inUse(gid int) bool { return len(t.slotsOf(gid)) > 0 }

// lastIndex is the highest place in the queue of slot actions. It is 0 where none is left.
func (t *topom) lastIndex() int {
	last := 0
	for _, m := range t.cache.slots {
		if m.Action.State != idle {
			last = max(last, m.Action.Index)
		}
	}
	return last
}

func (t *topom) group(gid int) (*Group, error) {
	if g := t.cache.groups[gid]; g != nil {
		return g, nil
	}
	return nil, tracef("group-[%d] doesn't exist", gid)
}

// filledGroup is a group that slots can be given to.
func (t *topom) filledGroup(gid int) (*Group, error) {
	g, err := t.group(gid)
	if err == nil && len(g.Servers) == 0 {
		err = tracef("group-[%d] is empty", gid)
	}
	return g, err
}

// member finds a group and the place of a server in it.
func (t *topom) member(gid int, addr string) (*Group, int, error) {
	g, err := t.group(gid)
	if err != nil {
		return nil, 0, err
	}
	i := slices.IndexFunc(g.Servers, func(s *Server) bool { return s.Addr == addr })
	if i < 0 {
		return nil, 0, tracef("group-[%d] doesn't have server-[%s]", gid, addr)
	}
	return g, i, nil
}

func (t *topom) groupOf(addr string) (*Group, int, error) {
	for _, g := range t.sortedGroups() {
		for i, s := range g.Servers {
			if s.Addr == addr {
				return g, i, nil
			}
		}
	}
	return nil, 0, tracef("server-[%s] doesn't exist", addr)
}

func (t *topom) sortedGroups() []*Group {
	return byID(t.cache.groups, func(g *Group) int { return g.ID })
}

func (t *topom) sortedProxies() []*ProxyModel {
	return byID(t.cache.proxies, func(p *ProxyModel) int { return p.ID })
}

func (t *topom) proxy(token string) (*ProxyModel, error) {
	if p := t.cache.proxies[token]; p != nil {
		return p, nil
	}
	return nil, tracef("proxy-[%s] doesn't exist", token)
}
