package codis

import "slices"

const lastGroup = 9999

func (t *topom) createGroup(gid int) error {
	return t.locked(func() error {
		if gid <= 0 || gid > lastGroup {
			return tracef("invalid group id = %d, out of range", gid)
		}
		if t.cache.groups[gid] != nil {
			return tracef("group-[%d] already exists", gid)
		}
		t.cache.dirtyGroup(gid)
		return t.saveGroup(&Group{ID: gid, Servers: []*Server{}})
	})
}

func (t *topom) removeGroup(gid int) error {
	return t.locked(func() error {
		g, err := t.group(gid)
		if err != nil {
			return err
		}
		if len(g.Servers) != 0 {
			return tracef("group-[%d] isn't empty", gid)
		}
		t.cache.dirtyGroup(gid)
		if err := t.store.remove(GroupPath(t.opts.Product, gid)); err != nil {
			return tracef("store: remove group-[%d] failed", gid)
		}
		return nil
	})
}

// resyncGroup sends the slots of a group to all proxies anew, as the mapping has them: what was held there is open afterwards.
func (t *topom) resyncGroup(gid int) error {
	return t.locked(func() error {
		g, err := t.group(gid)
		if err != nil {
			return err
		}
		return t.resync(g)
	})
}

func (t *topom) resyncAllGroups() error {
	return t.locked(func() error {
		for _, g := range t.sortedGroups() {
			if err := t.resync(g); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *topom) resync(g *Group) error {
	if err := t.push(t.slotsOf(g.ID)...); err != nil {
		return err
	}
	t.cache.dirtyGroup(g.ID)
	g.OutOfSync = false
	return t.saveGroup(g)
}

// addServer asks the server for SLOTSINFO, so one that knows nothing of slots is refused. It does not make it a replica.
func (t *topom) addServer(gid int, addr, datacenter string) error {
	ctx, cancel := t.within(t.ctx, dialTimeout)
	defer cancel()
	c, err := t.dialServer(ctx, addr, t.opts.ProductAuth)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.do(ctx, "SLOTSINFO"); err != nil {
		return err
	}
	return t.locked(func() error {
		for _, g := range t.cache.groups {
			if slices.ContainsFunc(g.Servers, func(s *Server) bool { return s.Addr == addr }) {
				return tracef("server-[%s] already exists", addr)
			}
		}
		g, err := t.group(gid)
		if err != nil {
			return err
		}
		if g.Promoting.State != idle {
			return tracef("group-[%d] is promoting", gid)
		}
		if err := t.sentinelsOutOfSync(); err != nil {
			return err
		}
		t.cache.dirtyGroup(gid)
		g.Servers = append(g.Servers, &Server{Addr: addr, Datacenter: datacenter})
		return t.saveGroup(g)
	})
}

func (t *topom) removeServer(gid int, addr string) error {
	return t.locked(func() error {
		g, i, err := t.member(gid, addr)
		if err != nil {
			return err
		}
		if g.Promoting.State != idle {
			return tracef("group-[%d] is promoting", gid)
		}
		if i == 0 && (len(g.Servers) != 1 || t.inUse(gid)) {
			return tracef("group-[%d] can't remove master, still in use", gid)
		}
		if err := t.sentinelsOutOfSync(); err != nil {
			return err
		}
		t.cache.dirtyGroup(gid)
		if i != 0 && g.Servers[i].ReplicaGroup {
			g.OutOfSync = true
		}
		g.Servers = slices.Delete(slices.Clone(g.Servers), i, i+1)
		if len(g.Servers) == 0 {
			g.OutOfSync = false
		}
		return t.saveGroup(g)
	})
}

// promote exchanges a group's master. It goes on where an earlier one was stuck.
func (t *topom) promote(gid int, addr string) error {
	return t.locked(func() error {
		g, i, err := t.member(gid, addr)
		if err != nil {
			return err
		}
		switch {
		case g.Promoting.State != idle && i != g.Promoting.Index:
			return tracef("group-[%d] is promoting index = %d", gid, g.Promoting.Index)
		case g.Promoting.State == idle && i == 0:
			return tracef("group-[%d] can't promote master", gid)
		}
		if n := t.executor.Load(); n != 0 {
			return tracef("slots-migration is running = %d", n)
		}
		t.cache.dirtyGroup(gid)
		if g.Promoting.State == idle {
			g.Promoting = Promotion{Index: i, State: preparing}
			if err := t.saveGroup(g); err != nil {
				return err
			}
		}
		if g.Promoting.State == preparing {
			if err := t.holdForPromotion(g); err != nil {
				return err
			}
		}
		if g.Promoting.State == prepared {
			if err := t.exchangeMaster(g); err != nil {
				return err
			}
		}
		if err := t.push(t.slotsOf(gid)...); err != nil {
			return err
		}
		return t.saveGroup(&Group{ID: gid, Servers: g.Servers})
	})
}

// holdForPromotion locks the group's slots on all proxies, and opens them again where one does not answer.
func (t *topom) holdForPromotion(g *Group) error {
	slots := t.slotsOf(g.ID)
	g.Promoting.State = prepared
	if err := t.push(slots...); err != nil {
		g.Promoting.State = preparing
		_ = t.push(slots...)
		return err
	}
	return t.saveGroup(g)
}

// exchangeMaster puts the promoted server first and the old master last. That the server could not be told is only logged.
func (t *topom) exchangeMaster(g *Group) error {
	if err := t.sentinelsForget(g.ID); err != nil {
		return err
	}
	order := []*Server{g.Servers[g.Promoting.Index]}
	for i, s := range g.Servers {
		if i != g.Promoting.Index && i != 0 {
			order = append(order, s)
		}
	}
	order = append(order, g.Servers[0])
	for _, s := range order {
		s.Action = Promotion{}
	}
	g.Servers, g.Promoting = order, Promotion{State: finished}
	if err := t.saveGroup(g); err != nil {
		return err
	}
	_ = t.setMaster(order[0].Addr, nobody)
	return nil
}

func (t *topom) readReplica(gid int, addr string, value bool) error {
	return t.locked(func() error {
		g, i, err := t.member(gid, addr)
		if err != nil {
			return err
		}
		if g.Promoting.State != idle {
			return tracef("group-[%d] is promoting", gid)
		}
		t.cache.dirtyGroup(gid)
		if len(g.Servers) != 1 && t.inUse(gid) {
			g.OutOfSync = true
		}
		g.Servers[i].ReplicaGroup = value
		return t.saveGroup(g)
	})
}

func (t *topom) readAllReplicas(value bool) error {
	return t.locked(func() error {
		for _, g := range t.sortedGroups() {
			if g.Promoting.State != idle {
				return tracef("group-[%d] is promoting", g.ID)
			}
			t.cache.dirtyGroup(g.ID)
			changed := false
			for _, s := range g.Servers {
				changed = changed || s.ReplicaGroup != value
				s.ReplicaGroup = value
			}
			if !changed {
				continue
			}
			if len(g.Servers) != 1 && t.inUse(g.ID) {
				g.OutOfSync = true
			}
			if err := t.saveGroup(g); err != nil {
				return err
			}
		}
		return nil
	})
}

// createSyncAction queues a server for following its group's master; the master itself for following nobody.
func (t *topom) createSyncAction(addr string) error {
	return t.locked(func() error {
		g, i, err := t.groupOf(addr)
		if err != nil {
			return err
		}
		if g.Promoting.State != idle {
			return tracef("group-[%d] is promoting", g.ID)
		}
		if g.Servers[i].Action.State == pending {
			return tracef("server-[%s] action already exist", addr)
		}
		last := 0
		for _, other := range t.cache.groups {
			for _, s := range other.Servers {
				if s.Action.State == pending {
					last = max(last, s.Action.Index)
				}
			}
		}
		t.cache.dirtyGroup(g.ID)
		g.Servers[i].Action = Promotion{Index: last + 1, State: pending}
		return t.saveGroup(g)
	})
}

func (t *topom) removeSyncAction(addr string) error {
	return t.locked(func() error {
		g, i, err := t.groupOf(addr)
		if err != nil {
			return err
		}
		if g.Promoting.State != idle {
			return tracef("group-[%d] is promoting", g.ID)
		}
		if g.Servers[i].Action.State == idle {
			return tracef("server-[%s] action doesn't exist", addr)
		}
		t.cache.dirtyGroup(g.ID)
		g.Servers[i].Action = Promotion{}
		return t.saveGroup(g)
	})
}

// processSyncAction carries out the first queued one. "synced" means that the server took the command, not that it has caught up.
func (t *topom) processSyncAction() error {
	var addr, master string
	err := t.locked(func() error {
		var next *Server
		var of *Group
		for _, g := range t.sortedGroups() {
			for _, s := range g.Servers {
				if s.Action.State == pending && (next == nil || s.Action.Index < next.Action.Index) {
					next, of = s, g
				}
			}
		}
		if next == nil || of.Promoting.State != idle {
			return nil
		}
		t.cache.dirtyGroup(of.ID)
		next.Action = Promotion{State: syncing}
		addr, master = next.Addr, nobody
		if of.Servers[0] != next {
			master = of.Servers[0].Addr
		}
		return t.saveGroup(of)
	})
	if err != nil || addr == "" {
		return err
	}
	state := "synced"
	if t.setMaster(addr, master) != nil {
		state = "synced_failed"
	}
	return t.locked(func() error {
		g, i, err := t.groupOf(addr)
		if err != nil || g.Promoting.State != idle || g.Servers[i].Action.State != syncing {
			return nil //nolint:nilerr // the server or its action was taken away meanwhile
		}
		t.cache.dirtyGroup(g.ID)
		g.Servers[i].Action.State = state
		return t.saveGroup(g)
	})
}

// nobody is the master of one that follows none.
const nobody = "NO:ONE"

// setMaster sends a transaction, all of it at once: a server without transactions refuses it and carries out each line all the same.
func (t *topom) setMaster(addr, master string) error {
	host, port, err := splitAddr(master)
	if err != nil {
		return err
	}
	ctx, cancel := t.within(t.ctx, dialTimeout)
	defer cancel()
	c, err := t.dialServer(ctx, addr, t.opts.ProductAuth)
	if err != nil {
		return err
	}
	defer c.close()
	values, err := c.pipeline(ctx, [][]string{
		{"MULTI"},
		{"CONFIG", "SET", "masterauth", t.opts.ProductAuth},
		{"SLAVEOF", host, port},
		{"CONFIG", "REWRITE"},
		{"CLIENT", "KILL", "TYPE", "normal"},
		{"EXEC"},
	})
	if err != nil {
		return err
	}
	for _, v := range values[len(values)-1].Items {
		if v.Error() != nil {
			return v.Error()
		}
	}
	return nil
}
