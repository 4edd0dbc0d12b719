package codis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/pika"
)

// Routing is what one proxy does with the slots, or why that is not known.
type Routing struct {
	Proxy ProxyModel
	Slots []Slot // by id
	Err   error
}

// Slot gives what the proxy does with one slot.
func (r Routing) Slot(id int) Slot { return slotIn(r.Slots, id) }

func slotIn(slots []Slot, id int) Slot {
	if id < len(slots) && slots[id].ID == id {
		return slots[id]
	}
	i := slices.IndexFunc(slots, func(s Slot) bool { return s.ID == id })
	if i < 0 {
		return Slot{ID: id}
	}
	return slots[i]
}

// Routings asks every one of these proxies, all at once, what it does with its slots.
func (c *Client) Routings(ctx context.Context, proxies []ProxyModel) []Routing {
	all := make([]Routing, len(proxies))
	var asked sync.WaitGroup
	for i, m := range proxies {
		asked.Go(func() {
			slots, err := c.Proxy(m).Slots(ctx)
			if err == nil && len(slots) == 0 {
				err = steps.Errorf("reply", "get /proxy/slots on %s: no slots in the answer", m.AdminAddr)
			}
			all[i] = Routing{Proxy: m, Slots: slots, Err: err}
		})
	}
	asked.Wait()
	return all
}

// allRoutings is Routings where each proxy must answer: what one of them routes would else not be known.
func (c *Client) allRoutings(ctx context.Context, proxies []ProxyModel) ([]Routing, error) {
	all := c.Routings(ctx, proxies)
	for _, r := range all {
		if r.Err != nil {
			return nil, proxySilent(r)
		}
	}
	return all, nil
}

func proxySilent(r Routing) error {
	e := *steps.Classify(r.Err)
	e.Err = fmt.Errorf("proxy %s does not tell what it routes: %w", r.Proxy.AdminAddr, r.Err)
	e.Hint = "every change of the mapping fails while a registered proxy does not answer: restart it with the same ports, or take it out with codis.remove-proxy (force: true once its process is gone)"
	return &e
}

// held are the slots among these that clients of a proxy wait for.
func (r Routing) held(slots schema.Slots) schema.Slots {
	var held schema.Slots
	for _, id := range slots {
		if r.Slot(id).Locked {
			held = append(held, id)
		}
	}
	return held
}

// differs are the slots that the proxy serves otherwise than wanted, as the dashboard would have it.
func (r Routing) differs(wanted []Slot, slots schema.Slots) schema.Slots {
	var different schema.Slots
	for _, id := range slots {
		if !r.Slot(id).SameRoute(slotIn(wanted, id)) {
			different = append(different, id)
		}
	}
	return different
}

// misrouted are the slots that the proxy does not serve, open, from addr alone; an empty addr is offline.
func (r Routing) misrouted(slots schema.Slots, addr string) schema.Slots {
	var wrong schema.Slots
	for _, id := range slots {
		if !r.Slot(id).SameRoute(Slot{BackendAddr: addr}) {
			wrong = append(wrong, id)
		}
	}
	return wrong
}

// served tells whether every registered proxy serves these slots, open, from addr alone, and in words where not. A
// proxy that does not answer is not known to.
func (c *Client) served(ctx context.Context, stats Stats, slots schema.Slots, addr string) (bool, string, error) {
	for _, r := range c.Routings(ctx, stats.Proxy.Models) {
		if r.Err != nil {
			if ctx.Err() != nil {
				return false, "", r.Err
			}
			return false, proxySilent(r).Error(), nil
		}
		if wrong := r.misrouted(slots, addr); len(wrong) > 0 {
			return false, fmt.Sprintf("proxy %s serves slots %s otherwise: %s", r.Proxy.AdminAddr, wrong, r.Slot(wrong[0]).words()), nil
		}
	}
	return true, "", nil
}

// words tell what a proxy does with a slot.
func (s Slot) words() string {
	to := cmp.Or(s.BackendAddr, "nobody")
	if s.MigrateFrom != "" {
		to += " while it migrates from " + s.MigrateFrom
	}
	if s.Locked {
		to = "held, " + to
	}
	return to
}

// allSlots are the slots of a product.
func allSlots() schema.Slots {
	all := make(schema.Slots, SlotCount)
	for i := range all {
		all[i] = i
	}
	return all
}

// slotsOf are the slots that belong to a group, or are on their way there.
func (s Stats) slotsOf(group int) schema.Slots {
	var slots schema.Slots
	for _, m := range s.Slots {
		if m.GroupID == group || m.Action.TargetID == group && group != 0 {
			slots = append(slots, m.ID)
		}
	}
	return slots
}

// notHeld refuses while clients of one of these slots wait at a proxy: somebody is
// switching it, and a push of its group would open it too early.
func notHeld(routings []Routing, slots schema.Slots, what string) error {
	for _, r := range routings {
		if held := r.held(slots); len(held) > 0 {
			return steps.Precondition("%s: slots %s are held at proxy %s", what, held, r.Proxy.AdminAddr).
				WithHint("a switch of these slots is under way, or one was cut off: let it end, or resume or undo it")
		}
	}
	return nil
}

// idle refuses while one of these slots has an action.
func (s Stats) idle(slots schema.Slots, what string) error {
	var busy []string
	for _, id := range slots {
		if m := s.Mapping(id); !m.Idle() {
			busy = append(busy, m.words())
		}
	}
	if len(busy) == 0 {
		return nil
	}
	more := ""
	if n := len(busy); n > 3 {
		busy, more = busy[:3], fmt.Sprintf(" and %d more", n-3)
	}
	return steps.Precondition("%s: %s%s", what, strings.Join(busy, ", "), more).
		WithHint("a migration is queued or under way: let it end first")
}

// words tell a mapping's action: slot 12 is migrating from group 1 to group 2.
func (m SlotMapping) words() string {
	return fmt.Sprintf("slot %d is %s from group %d to group %d", m.ID, m.Action.State, m.GroupID, m.Action.TargetID)
}

var _ pika.Router = (*Client)(nil)

// SlotBackends gives, for each slot, every address that the dashboard or any proxy sends clients of it to:
// the one it migrates from and read replicas too. A slot that nobody routes has none.
func (c *Client) SlotBackends(ctx context.Context, slots schema.Slots) (map[int][]string, error) {
	stats, err := c.Stats(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := c.Slots(ctx)
	if err != nil {
		return nil, err
	}
	all, err := c.allRoutings(ctx, stats.Proxy.Models)
	if err != nil {
		return nil, err
	}
	all = append(all, Routing{Slots: wanted})
	backends := map[int][]string{}
	for _, id := range slots {
		for _, r := range all {
			backends[id] = append(backends[id], r.Slot(id).addrs()...)
		}
		slices.Sort(backends[id])
		backends[id] = slices.Compact(backends[id])
	}
	return backends, nil
}

// addrs are the addresses that a slot's requests may go to.
func (s Slot) addrs() []string {
	var addrs []string
	for _, a := range append([]string{s.BackendAddr, s.MigrateFrom}, slices.Concat(s.ReplicaGroups...)...) {
		if a != "" {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
