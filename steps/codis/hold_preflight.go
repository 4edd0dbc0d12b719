package codis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"runbook/steps"
	"runbook/steps/pika"
)

// survey makes the plan of a switch from what the dashboard says now.
func survey(ctx context.Context, v steps.View, in switchIn) (switchPlan, error) {
	p := switchPlan{Slots: in.Slots, To: in.ToGroup, MaxPause: in.MaxPause}
	p.Source.Target, p.Destination.Target = string(in.Source), string(in.Destination)
	p.Coordinator.Target = string(in.Coordinator)
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return p, err
	}
	o, err := c.Overview(ctx)
	if err != nil {
		return p, err
	}
	p.Product, p.Proxies = o.Config.Product, o.Stats.Proxy.Models
	if p.Product == "" {
		p.Product = o.Model.Product
	}
	p.Coordinator.Name, p.Coordinator.Addr = o.Config.CoordinatorName, o.Config.CoordinatorAddr
	for _, id := range in.Slots {
		m := o.Stats.Mapping(id)
		switch {
		case id < 0 || id >= SlotCount:
			return p, steps.Precondition("slot %d: Codis has slots 0 to %d", id, SlotCount-1)
		case m.GroupID == p.To:
			continue // switched already
		case p.From == 0:
			p.From = m.GroupID
		}
		if m.GroupID == 0 {
			return p, steps.Precondition("slot %d belongs to no group: there is nothing to switch", id)
		}
		if m.GroupID != p.From {
			return p, steps.Precondition("slot %d belongs to group %d, another one of these to group %d: switch those of one group at a time", id, m.GroupID, p.From)
		}
	}
	if p.From == 0 { // all of them are there: the source is whoever is named so
		for _, g := range o.Stats.Group.Models {
			if t, err := v.Target(p.Source.Target); err == nil && g.Index(t.Addr()) == 0 {
				p.From = g.ID
			}
		}
	}
	if p.Source.Addr, err = masterOf(v, o.Stats, p.From, p.Source.Target); err != nil {
		return p, err
	}
	p.Destination.Addr, err = masterOf(v, o.Stats, p.To, p.Destination.Target)
	return p, err
}

// masterOf gives the address of a group's master, which the target must have word for word: Pika and Codis compare addresses as texts.
func masterOf(v steps.View, s Stats, group int, target string) (string, error) {
	t, err := v.Target(target)
	if err != nil {
		return "", err
	}
	g, ok := s.GroupByID(group)
	switch {
	case !ok:
		return "", steps.Precondition("there is no group %d", group)
	case g.Master() == "":
		return "", steps.Precondition("group %d has no server", group)
	case g.Master() != t.Addr():
		return "", steps.Precondition("the master of group %d is %s, target %s is %s", group, g.Master(), target, t.Addr()).
			WithHint("name the group's first server, with the address that Codis has")
	}
	return g.Master(), nil
}

// anyLag has preflight pass over what comes into step by itself: a slot that follows and is not connected, or lags.
const anyLag = -1

// preflight checks, before the first client waits, all that would make it wait in vain. It reports every problem, not the first.
func (h *hold) preflight(ctx context.Context, maxLag int64) error {
	s := h.look(ctx)
	var problems []error
	wrong := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	if s.listed == nil {
		wrong("the dashboard %s: %s", h.codis.Addr(), s.unread)
	}
	h.proxies, s.proxies = h.registered(s, wrong)
	if len(s.proxies) == 0 {
		wrong("no proxy is registered: nobody could be held")
	}
	for id, m := range s.mapping {
		if !m.Idle() {
			wrong("slot %d: action %s to group %d is on it", id, m.Action.State, m.Action.TargetID)
		}
	}
	for _, id := range []int{h.plan.From, h.plan.To} {
		if g := s.groups[id]; g.Promoting.State != "" {
			wrong("group %d is promoting: %s", id, g.Promoting.State)
		}
	}
	for id, addr := range map[int]string{h.plan.From: h.plan.Source.Addr, h.plan.To: h.plan.Destination.Addr} {
		if g, ok := s.groups[id]; s.listed != nil && (!ok || g.Master() != addr) {
			wrong("the master of group %d is %q, not %s", id, g.Master(), addr)
		}
	}
	h.checkProxies(s, wrong)
	h.checkReplication(s, maxLag, wrong)
	if len(problems) == 0 {
		threads, err := h.dest.SyncThreads(ctx)
		if err != nil {
			return err
		}
		h.threads = threads
		return nil
	}
	e := steps.Precondition("switch of slots %s from group %d to group %d: %w", h.plan.Slots, h.plan.From, h.plan.To, errors.Join(problems...))
	e.Temporary = true
	return e
}

// registered gives the proxies that the dashboard has: those of an earlier attempt may be gone. One that lives and is
// not registered goes on serving clients, and nobody tells it of a new mapping.
func (h *hold) registered(s *sight, wrong func(string, ...any)) (proxies []*Proxy, seen []proxySight) {
	for _, p := range s.proxies {
		known := slices.ContainsFunc(s.listed, func(m ProxyModel) bool { return m.Token == p.proxy.Token() })
		if s.listed != nil && !known {
			if !p.gone {
				wrong("proxy %s lives, and is not registered any more", p.addr)
			}
			continue
		}
		proxies, seen = append(proxies, p.proxy), append(seen, p)
	}
	return proxies, seen
}

func (h *hold) checkProxies(s *sight, wrong func(string, ...any)) {
	method := -1
	for _, p := range s.proxies {
		if p.err != nil {
			wrong("proxy %s: %w", p.addr, p.err)
			continue
		}
		for _, id := range h.plan.Slots {
			slot := p.slots[id]
			switch {
			case slot.BackendAddr != h.plan.Source.Addr:
				wrong("proxy %s serves slot %d from %q, not from %s", p.addr, id, slot.BackendAddr, h.plan.Source.Addr)
			case slot.Locked:
				wrong("proxy %s holds slot %d already", p.addr, id)
			case slot.MigrateFrom != "":
				wrong("proxy %s migrates slot %d from %s", p.addr, id, slot.MigrateFrom)
			case method >= 0 && slot.ForwardMethod != method:
				wrong("proxy %s forwards slot %d by another method than the other proxies", p.addr, id)
			}
			method = slot.ForwardMethod
		}
	}
}

func (h *hold) checkReplication(s *sight, maxLag int64, wrong func(string, ...any)) {
	for name, server := range map[string]serverSight{h.plan.Source.Target: s.source, h.plan.Destination.Target: s.dest} {
		if server.err != nil {
			wrong("%s: %w", name, server.err)
		}
	}
	if s.source.err != nil || s.dest.err != nil {
		return
	}
	for _, id := range h.plan.Slots {
		src, dst := s.source.slots[id], s.dest.slots[id]
		r, listed := src.Replica(h.plan.Destination.Addr)
		switch {
		case !src.Present:
			wrong("slot %d: %s does not have it", id, h.plan.Source.Target)
		case src.Follows():
			wrong("slot %d: %s follows %s, it is no master", id, h.plan.Source.Target, src.Master)
		case !dst.Present:
			wrong("slot %d: %s does not have it (pika.addslots, pika.slotsslaveof)", id, h.plan.Destination.Target)
		case dst.Master != h.plan.Source.Addr:
			wrong("slot %d: %s does not follow %s (pika.slotsslaveof)", id, h.plan.Destination.Target, h.plan.Source.Addr)
		case maxLag == anyLag:
		case dst.State != pika.StateConnected:
			wrong("slot %d: %s is in %s, not connected", id, h.plan.Destination.Target, dst.State)
		case !listed || r.Status != pika.BinlogSync || r.Lag == nil:
			wrong("slot %d: %s does not list %s as a replica in step", id, h.plan.Source.Target, h.plan.Destination.Addr)
		case maxLag > 0 && *r.Lag > maxLag:
			wrong("slot %d: %s lags %d bytes, more than %d", id, h.plan.Destination.Target, *r.Lag, maxLag)
		}
	}
}

// capture reads from every proxy what it does with the slots: a hold is this and a lock, nothing else.
func (h *hold) capture(ctx context.Context) error {
	errs := make([]error, len(h.proxies))
	slots := make([][]Slot, len(h.proxies))
	var wait sync.WaitGroup
	for i, p := range h.proxies {
		wait.Go(func() {
			seen := h.lookProxy(ctx, p)
			errs[i] = seen.err
			for _, id := range h.plan.Slots {
				slot, ok := seen.slots[id]
				if seen.err == nil && (!ok || slot.Locked || slot.BackendAddr != h.plan.Source.Addr) {
					errs[i] = fmt.Errorf("proxy %s does not serve slot %d from the source any more", p.Addr(), id)
				}
				slots[i] = append(slots[i], slot)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, p := range h.proxies {
		h.held[p.Token()] = slots[i]
	}
	return nil
}

// heldAll tells that the proxies which are registered are those that were told to hold.
func (h *hold) heldAll(listed []ProxyModel) bool {
	return len(listed) == len(h.held) && !slices.ContainsFunc(listed, func(m ProxyModel) bool { return h.held[m.Token] == nil })
}
