package codis

import "path"

// cache is what the dashboard believes the coordinator to hold. It reads again only what it has written itself since, or everything
// after a reload: changes by others are not seen, and a coordinator that is down is noticed only where something is to be read again.
type cache struct {
	slots     []*SlotMapping // nil: all to be read; an element nil: that one
	groups    map[int]*Group
	proxies   map[string]*ProxyModel
	sentinels *sentinels

	dirty struct {
		slots     []int
		groups    []int
		proxies   []string
		sentinels bool
		all       bool
	}
}

func (c *cache) dirtySlot(id int)        { c.dirty.slots = append(c.dirty.slots, id) }
func (c *cache) dirtyGroup(id int)       { c.dirty.groups = append(c.dirty.groups, id) }
func (c *cache) dirtyProxy(token string) { c.dirty.proxies = append(c.dirty.proxies, token) }
func (c *cache) dirtySentinels()         { c.dirty.sentinels = true }
func (c *cache) dirtyAll()               { c.dirty.all = true }
func (c *cache) forget() {
	d := c.dirty
	c.dirty.slots, c.dirty.groups, c.dirty.proxies, c.dirty.sentinels, c.dirty.all = nil, nil, nil, false, false
	if d.all {
		c.slots, c.groups, c.proxies, c.sentinels = nil, nil, nil, nil
		return
	}
	for _, id := range d.slots {
		if c.slots != nil {
			c.slots[id] = nil
		}
	}
	for _, id := range d.groups {
		if c.groups != nil {
			c.groups[id] = nil
		}
	}
	for _, t := range d.proxies {
		if c.proxies != nil {
			c.proxies[t] = nil
		}
	}
	if d.sentinels {
		c.sentinels = nil
	}
}

// refill makes the cache whole again.
func (t *topom) refill() error {
	t.cache.forget()
	for _, part := range []struct {
		name string
		read func() error
	}{{"slots", t.refillSlots}, {"group", t.refillGroups}, {"proxy", t.refillProxies}, {"sentinel", t.refillSentinels}} {
		if err := part.read(); err != nil {
			return tracef("store: load %s failed", part.name)
		}
	}
	return nil
}

func (t *topom) refillSlots() error {
	if t.cache.slots == nil {
		t.cache.slots = make([]*SlotMapping, SlotCount)
	}
	for i, m := range t.cache.slots {
		if m != nil {
			continue
		}
		m = &SlotMapping{ID: i}
		if _, err := t.store.load(SlotPath(t.opts.Product, i), m); err != nil {
			return err
		}
		t.cache.slots[i] = m
	}
	return nil
}

func (t *topom) refillGroups() error {
	if t.cache.groups == nil {
		all, err := loadAll[Group](t.store, path.Dir(GroupPath(t.opts.Product, 0)))
		if err != nil {
			return err
		}
		t.cache.groups = map[int]*Group{}
		for _, g := range all {
			t.cache.groups[g.ID] = g
		}
	}
	for id, g := range t.cache.groups {
		if g != nil {
			continue
		}
		g = &Group{}
		found, err := t.store.load(GroupPath(t.opts.Product, id), g)
		switch {
		case err != nil:
			return err
		case found:
			t.cache.groups[id] = g
		default:
			delete(t.cache.groups, id)
		}
	}
	return nil
}

func (t *topom) refillProxies() error {
	if t.cache.proxies == nil {
		all, err := loadAll[ProxyModel](t.store, path.Dir(ProxyPath(t.opts.Product, "")))
		if err != nil {
			return err
		}
		t.cache.proxies = map[string]*ProxyModel{}
		for _, p := range all {
			t.cache.proxies[p.Token] = p
		}
	}
	for token, p := range t.cache.proxies {
		if p != nil {
			continue
		}
		p = &ProxyModel{}
		found, err := t.store.load(ProxyPath(t.opts.Product, token), p)
		switch {
		case err != nil:
			return err
		case found:
			t.cache.proxies[token] = p
		default:
			delete(t.cache.proxies, token)
		}
	}
	return nil
}

func (t *topom) refillSentinels() error {
	if t.cache.sentinels != nil {
		return nil
	}
	s := &sentinels{}
	if _, err := t.store.load(sentinelPath(t.opts.Product), s); err != nil {
		return err
	}
	t.cache.sentinels = s
	return nil
}

func (t *topom) saveSlot(m *SlotMapping) error {
	if err := t.store.update(SlotPath(t.opts.Product, m.ID), m); err != nil {
		return tracef("store: update slot-[%d] failed", m.ID)
	}
	return nil
}

func (t *topom) saveGroup(g *Group) error {
	if err := t.store.update(GroupPath(t.opts.Product, g.ID), g); err != nil {
		return tracef("store: update group-[%d] failed", g.ID)
	}
	return nil
}

func (t *topom) saveProxy(p *ProxyModel) error {
	if err := t.store.update(ProxyPath(t.opts.Product, p.Token), p); err != nil {
		return tracef("store: update proxy-[%s] failed", p.Token)
	}
	return nil
}

func (t *topom) saveSentinels(s *sentinels) error {
	if err := t.store.update(sentinelPath(t.opts.Product), s); err != nil {
		return tracef("store: update sentinel failed")
	}
	return nil
}
