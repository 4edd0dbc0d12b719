package simulate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"runbook/internal/simulate/codis"
)

// What can be checked at the end of a run: the load's ledger tells the first three, the systems themselves the others.
var (
	ofTraffic = []string{"no-lost-write", "no-stale-read", "clients-served"}
	ofSlots   = []string{"one-owner", "no-orphan-key"}
)

// Invariants lists what can be checked at the end of a run, in a world with clients and slots.
func Invariants() []string { return slices.Concat(ofTraffic, ofSlots) }

// OfTraffic says whether an invariant is about the clients of a world, and not about its slots.
func OfTraffic(name string) bool { return slices.Contains(ofTraffic, name) }

// Checkable are the invariants that can be checked in this world: some are about its clients, some about the slots of a
// codis.
func (s *Spec) Checkable() []string {
	var names []string
	if s.Traffic != nil {
		names = append(names, ofTraffic...)
	}
	for _, system := range s.Systems {
		if system.Kind == "codis" {
			return append(names, ofSlots...)
		}
	}
	return names
}

// Wanted are the invariants that hold at the end of a run in this world: those that its
// file names, or all that can be checked where it says nothing of them.
func (s *Spec) Wanted() []string {
	if s.Invariants == nil {
		return s.Checkable()
	}
	return s.Invariants
}

// CheckSlots names the invariants of slots that do not hold, with an example each:
//
//   - one-owner: every slot has exactly one server that takes writes for it, the one that its mapping names and that every
//     proxy sends clients to. An empty copy that follows nobody is a place made ready, and no owner.
//   - no-orphan-key: a server that has keys of a slot is its owner, or follows it over however many others.
//
// It asks nobody over the wire, so faults do not hide anything from it. The load must have been stopped.
func (w *World) CheckSlots() (map[string]string, error) {
	names := w.names("codis") // one at most
	if len(names) == 0 {
		return nil, nil
	}
	p := as[*product](w, names[0])
	mapping, err := p.Mapping()
	if err != nil {
		return nil, fmt.Errorf("the mapping of %s: %w", names[0], err)
	}
	groups, err := p.groups()
	if err != nil {
		return nil, fmt.Errorf("the groups of %s: %w", names[0], err)
	}
	c := &slotCheck{w: w, broken: breaches{}, copies: map[string]map[int]slotCopy{}, byAddr: map[string]string{}}
	for _, name := range w.names("pika") {
		c.byAddr[w.systems[name].declared], c.byAddr[w.systems[name].actual] = name, name
		if s := w.Pika(name); s != nil && s.Alive() && sharding(w.spec.Systems[name]) {
			c.copies[name] = copies(s)
		}
	}
	for _, proxy := range p.all() {
		routes := proxy.Routes()
		// One that was started again, and is not online yet, has an empty table and turns every client away.
		if !proxy.Alive() || !slices.ContainsFunc(routes, func(s codis.Slot) bool { return s.BackendAddr != "" }) {
			routes = nil
		}
		c.routes = append(c.routes, routes)
	}
	for _, m := range mapping {
		c.slot(m, groups[m.GroupID])
	}
	return c.broken.examples(), nil
}

// breaches are the invariants found broken, each with what was seen.
type breaches map[string][]string

func (b breaches) add(name, format string, args ...any) {
	b[name] = append(b[name], fmt.Sprintf(format, args...))
}

func (b breaches) examples() map[string]string {
	out := map[string]string{}
	for name, seen := range b {
		out[name] = seen[0]
		if len(seen) > 1 {
			out[name] = fmt.Sprintf("%d, such as %s", len(seen), seen[0])
		}
	}
	return out
}

// slotCheck looks at the slots of one product.
type slotCheck struct {
	w      *World
	broken breaches
	copies map[string]map[int]slotCopy // by name of a pika that is up, then by slot
	byAddr map[string]string           // names of all pikas
	routes [][]codis.Slot              // of each proxy; nil where it serves nobody
}

func (c *slotCheck) slot(m codis.SlotMapping, group *codis.Group) {
	master := ""
	if group != nil && len(group.Servers) > 0 {
		master = group.Servers[0].Addr
	}
	if m.Action.State != "" {
		c.broken.add("one-owner", "slot %d is on its way from group %d to group %d (%s)", m.ID, m.GroupID, m.Action.TargetID, m.Action.State)
	}
	c.routed(m.ID, master)
	owner := c.byAddr[master]
	switch _, has := c.copies[owner][m.ID]; {
	case master == "":
	case c.copies[owner] == nil:
		c.broken.add("one-owner", "slot %d is routed to %s, which is not there", m.ID, c.named(master))
	case !has:
		c.broken.add("one-owner", "slot %d is routed to %s, which does not have it", m.ID, owner)
	case !c.w.Pika(owner).OwnsSlot(m.ID):
		c.broken.add("one-owner", "slot %d is routed to %s, which follows %s and takes no writes", m.ID, owner, c.named(c.copies[owner][m.ID].master))
	}
	for _, name := range slices.Sorted(maps.Keys(c.copies)) {
		slot, has := c.copies[name][m.ID]
		if !has || name == owner || c.follows(name, owner, m.ID) {
			continue
		}
		keys := c.w.Pika(name).SlotKeys(m.ID)
		if keys == 0 {
			continue
		}
		whose := "nobody"
		if slot.master != "" {
			whose = c.named(slot.master)
		} else if owner != "" {
			c.broken.add("one-owner", "slot %d has two that take writes: %s, to which it is routed, and %s", m.ID, owner, name)
		}
		c.broken.add("no-orphan-key", "slot %d has %d keys at %s, which follows %s; clients are routed to %s", m.ID, keys, name, whose, orNowhere(owner))
	}
}

// routed compares what proxies do with a slot with where it belongs.
func (c *slotCheck) routed(id int, master string) {
	for i, routes := range c.routes {
		if routes == nil {
			continue
		}
		switch r := routes[id]; {
		case r.BackendAddr != master:
			c.broken.add("one-owner", "slot %d is mapped to %s, and proxy %d sends clients to %s", id, c.named(master), i+1, c.named(r.BackendAddr))
		case r.MigrateFrom != "":
			c.broken.add("one-owner", "slot %d is mapped to %s, and proxy %d still asks %s first", id, c.named(master), i+1, c.named(r.MigrateFrom))
		case r.Locked && master != "":
			c.broken.add("one-owner", "slot %d is held by proxy %d: its clients reach nobody", id, i+1)
		}
	}
}

// follows says whether a pika's copy of a slot is filled by the owner's, over however many others.
func (c *slotCheck) follows(name, owner string, id int) bool {
	for range len(c.copies) {
		if name = c.byAddr[c.copies[name][id].master]; name == "" || name == owner {
			break
		}
	}
	return name != "" && name == owner
}

func (c *slotCheck) named(addr string) string {
	if name := c.byAddr[addr]; name != "" {
		return name
	}
	return orNowhere(addr)
}

func orNowhere(place string) string {
	if strings.TrimSpace(place) == "" {
		return "nowhere"
	}
	return place
}
