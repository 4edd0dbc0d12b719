package codis

// createSlotAction queues the migration of one slot.
func (t *topom) createSlotAction(sid, gid int) error {
	return t.locked(func() error {
		if _, err := t.filledGroup(gid); err != nil {
			return err
		}
		m, err := t.slot(sid)
		if err != nil {
			return err
		}
		if err := movable(m, gid); err != nil {
			return err
		}
		return t.queue(m, gid)
	})
}

// createSomeSlotActions queues the lowest slots of a group that are idle, as many as there are up to num.
func (t *topom) createSomeSlotActions(src, dst, num int) error {
	return t.locked(func() error {
		if _, err := t.filledGroup(dst); err != nil {
			return err
		}
		for _, m := range t.cache.slots {
			if num <= 0 {
				break
			}
			if m.GroupID != src || movable(m, dst) != nil {
				continue
			}
			num--
			if err := t.queue(m, dst); err != nil {
				return err
			}
		}
		return nil
	})
}

// createSlotActionRange queues all the slots from beg to end, or none.
func (t *topom) createSlotActionRange(beg, end, gid int) error {
	return t.locked(func() error {
		if beg < 0 || beg > end || end >= SlotCount {
			return tracef("invalid slot range [%d,%d]", beg, end)
		}
		if _, err := t.filledGroup(gid); err != nil {
			return err
		}
		for _, m := range t.cache.slots[beg : end+1] {
			if err := movable(m, gid); err != nil {
				return err
			}
		}
		for _, m := range t.cache.slots[beg : end+1] {
			if err := t.queue(m, gid); err != nil {
				return err
			}
		}
		return nil
	})
}

func movable(m *SlotMapping, gid int) error {
	switch {
	case m.Action.State != idle:
		return tracef("slot-[%d] action already exists", m.ID)
	case m.GroupID == gid:
		return tracef("slot-[%d] already in group-[%d]", m.ID, gid)
	}
	return nil
}

func (t *topom) queue(m *SlotMapping, gid int) error {
	t.cache.dirtySlot(m.ID)
	m.Action = SlotAction{Index: t.lastIndex() + 1, State: pending, TargetID: gid}
	return t.saveSlot(m)
}

// removeSlotAction takes back one that has not begun; there is no way to stop one that has.
func (t *topom) removeSlotAction(sid int) error {
	return t.locked(func() error {
		m, err := t.slot(sid)
		if err != nil {
			return err
		}
		switch m.Action.State {
		case idle:
			return tracef("slot-[%d] action doesn't exist", sid)
		case pending:
		default:
			return tracef("slot-[%d] action isn't pending", sid)
		}
		t.cache.dirtySlot(sid)
		return t.saveSlot(&SlotMapping{ID: sid, GroupID: m.GroupID})
	})
}

// assign changes the mapping at once, without moving data, and sends it to the proxies. What a slot was doing is forgotten.
func (t *topom) assign(list []*SlotMapping) error {
	return t.locked(func() error {
		for _, m := range list {
			if _, err := t.slot(m.ID); err != nil {
				return err
			}
			if _, err := t.filledGroup(m.GroupID); err != nil {
				return err
			}
			if m.Action.State != idle {
				return tracef("invalid slot-[%d] action = %s", m.ID, m.Action.State)
			}
		}
		for _, m := range list {
			if g := t.cache.groups[m.GroupID]; !g.OutOfSync {
				t.cache.dirtyGroup(g.ID)
				g.OutOfSync = true
				if err := t.saveGroup(g); err != nil {
					return err
				}
			}
		}
		return t.remap(list)
	})
}

func (t *topom) assignOffline(list []*SlotMapping) error {
	return t.locked(func() error {
		for _, m := range list {
			if _, err := t.slot(m.ID); err != nil {
				return err
			}
			if m.GroupID != 0 {
				return tracef("group of slot-[%d] should be 0", m.ID)
			}
		}
		return t.remap(list)
	})
}

// remap stores the mappings one after the other and then sends all of them: where a proxy does not answer they are stored all the same.
func (t *topom) remap(list []*SlotMapping) error {
	plain := make([]*SlotMapping, len(list))
	for i, m := range list {
		plain[i] = &SlotMapping{ID: m.ID, GroupID: m.GroupID}
		t.cache.dirtySlot(m.ID)
		if err := t.saveSlot(plain[i]); err != nil {
			return err
		}
	}
	return t.push(plain...)
}
