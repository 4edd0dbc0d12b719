package codis

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/pika"
)

// sight is what can be seen of a switch from outside, at one time.
type sight struct {
	mapping  map[int]SlotMapping // of the slots whose mapping could be read
	unread   string              // why the others could not
	dead     bool                // nothing listens at the dashboard's address
	groups   map[int]Group
	listed   []ProxyModel // as registered; nil where the dashboard did not answer
	proxies  []proxySight
	source   serverSight
	dest     serverSight
	assigned assignment
	fenced   bool // whoever acts has, or may have, asked for the fence
}

type proxySight struct {
	proxy *Proxy
	addr  string
	slots map[int]Slot
	err   error
	gone  bool // nothing listens there
}

type serverSight struct {
	slots map[int]pika.Slot // nil: no answer
	err   error
}

func (s serverSight) why() string {
	if s.err == nil {
		return "it says nothing of the slot"
	}
	return s.err.Error()
}

// look asks everybody at once: a party that hangs costs one limit, whoever it is.
func (h *hold) look(ctx context.Context) *sight {
	s := &sight{assigned: h.assigned, fenced: h.fenced}
	var wait sync.WaitGroup
	wait.Go(func() { h.lookDashboard(ctx, s) })
	wait.Go(func() { s.source = h.lookServer(ctx, h.source) })
	wait.Go(func() { s.dest = h.lookServer(ctx, h.dest) })
	s.proxies = make([]proxySight, len(h.proxies))
	for i, p := range h.proxies {
		wait.Go(func() { s.proxies[i] = h.lookProxy(ctx, p) })
	}
	wait.Wait()
	known := len(h.proxies)
	for _, m := range s.listed {
		h.join(m)
	}
	for _, p := range h.proxies[known:] { // one that joined meanwhile
		s.proxies = append(s.proxies, h.lookProxy(ctx, p))
	}
	return s
}

func (h *hold) lookProxy(ctx context.Context, p *Proxy) proxySight {
	ctx, cancel := h.aMoment(ctx)
	defer cancel()
	s := proxySight{proxy: p, addr: p.Addr()}
	all, err := p.Slots(ctx)
	if err != nil {
		s.err, s.gone = err, refused(err)
		return s
	}
	s.slots = pick(h.plan.Slots, all)
	return s
}

// pick gives the slots of a list that are asked about.
func pick(wanted schema.Slots, all []Slot) map[int]Slot {
	byID := make(map[int]Slot, len(wanted))
	for _, id := range wanted {
		if id < len(all) && all[id].ID == id {
			byID[id] = all[id]
		}
	}
	return byID
}

// refused tells that nothing listens at an address: no request was carried out, none will be.
func refused(err error) bool {
	e := steps.Classify(err)
	return e.Kind == "refused"
}

func (h *hold) lookServer(ctx context.Context, c *pika.Client) serverSight {
	ctx, cancel := h.aMoment(ctx)
	defer cancel()
	slots, err := c.Slots(ctx, h.plan.Slots)
	if err != nil {
		return serverSight{err: err}
	}
	return serverSight{slots: byID(slots)}
}

func byID(slots []pika.Slot) map[int]pika.Slot {
	m := make(map[int]pika.Slot, len(slots))
	for _, s := range slots {
		m[s.ID] = s
	}
	return m
}

// lookDashboard reads the mapping from the dashboard, and where nothing listens there from
// the coordinator. A dashboard that hangs is waited for: it may hold an assignment that it
// has not stored yet, and what the coordinator says would be wrong in a moment.
func (h *hold) lookDashboard(ctx context.Context, s *sight) {
	limited, cancel := h.aMoment(ctx)
	defer cancel()
	stats, err := h.codis.Stats(limited)
	if err == nil {
		s.mapping, s.listed, s.groups = map[int]SlotMapping{}, stats.Proxy.Models, map[int]Group{}
		for _, id := range h.plan.Slots {
			s.mapping[id] = stats.Mapping(id)
		}
		for _, g := range stats.Group.Models {
			s.groups[g.ID] = g
		}
		return
	}
	s.unread, s.dead = err.Error(), refused(err)
	if !s.dead {
		return
	}
	mapping, err := h.readCoordinator(ctx)
	if err != nil {
		s.unread += "; " + err.Error()
		return
	}
	s.mapping = mapping
}

// readCoordinator reads the mapping where the dashboard stores it.
func (h *hold) readCoordinator(ctx context.Context) (map[int]SlotMapping, error) {
	c, err := h.coordinator(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := h.aMoment(ctx)
	defer cancel()
	mapping := map[int]SlotMapping{}
	for _, id := range h.plan.Slots {
		path := fmt.Sprintf("/codis3/%s/slots/slot-%04d", h.plan.Product, id)
		data, exists, err := c.Read(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("the coordinator: %w", err)
		}
		m := SlotMapping{ID: id}
		if exists {
			if err := json.Unmarshal(data, &m); err != nil {
				return nil, fmt.Errorf("the coordinator: %s: %w", path, err)
			}
		}
		mapping[id] = m
	}
	return mapping, nil
}

func (h *hold) coordinator(ctx context.Context) (Coordinator, error) {
	c := h.plan.Coordinator
	if c.Target != "" {
		return coordinator(ctx, h.v, c.Target)
	}
	return namedCoordinator(ctx, h.v, h.plan.Product, c.Name, c.Addr)
}
