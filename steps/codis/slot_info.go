package codis

import (
	"context"
	"fmt"
	"slices"

	"runbook/schema"
	"runbook/steps"
)

type slotInfoIn struct {
	Slots schema.Slots `yaml:"slots" doc:"Slots asked about; all where none are given."`
}

type slotInfoOut struct {
	Slots   []slotOut `yaml:"slots" doc:"Each slot."`
	Groups  []int     `yaml:"groups" doc:"Ids of the groups that the slots belong to, ascending; 0 for offline ones."`
	Idle    bool      `yaml:"idle" doc:"None of the slots has an action."`
	Agree   bool      `yaml:"agree" doc:"Every registered proxy has answered and serves every one of the slots as the dashboard would have it: same backend, same source, same lock."`
	Locked  int       `yaml:"locked" doc:"How many of the slots are held on some proxy: their clients wait." min:"0"`
	Differs []string  `yaml:"differs" doc:"What does not agree, one line a proxy; empty where all do."`
}

type slotOut struct {
	ID      int    `yaml:"id" doc:"The slot."`
	Group   int    `yaml:"group" doc:"Group it belongs to; 0: offline."`
	State   string `yaml:"state" doc:"State of its action; empty: it has none."`
	Target  int    `yaml:"target" doc:"Group it goes to; 0 where it has no action."`
	Backend string `yaml:"backend" doc:"Address that the proxies send its clients to, which is already the target's while it migrates; empty: none; mixed: not the same on all."`
	Locked  bool   `yaml:"locked" doc:"It is held on some proxy."`
}

// mixed stands where the proxies have no one answer.
const mixed = "mixed"

func slotInfo() *steps.Kind[slotInfoIn, slotInfoOut] {
	return &steps.Kind[slotInfoIn, slotInfoOut]{
		Name:    "codis.slot-info",
		Doc:     "Tells where slots belong and what every proxy does with them. Sends GET /topom/stats and /topom/slots to the dashboard and GET /proxy/slots to each registered proxy, however many slots are asked about.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: moved, uses: codis.slot-info, target: codis1, with: {slots: "0-15"}, wait-until: "idle && agree && groups == [3]", every: 1s, timeout: 10m}`,
		Pitfalls: []string{
			"A slot that has a target and an action belongs to the old group still, while its backend is the target's already: read group and state together.",
			"A proxy that does not answer may serve anything: agree is false then.",
			"A proxy that is not registered with the dashboard is not seen by anybody: it serves what it was last told.",
		},
		Valid: func(in slotInfoIn, _ func(string) bool) []steps.Problem { return slotsProblem(in.Slots) },
		Read:  readSlotInfo,
	}
}

func readSlotInfo(ctx context.Context, v steps.View, in slotInfoIn) (slotInfoOut, error) {
	out := slotInfoOut{Slots: []slotOut{}, Groups: []int{}, Differs: []string{}, Idle: true, Agree: true}
	c, stats, err := look(ctx, v)
	if err != nil {
		return out, err
	}
	wanted, err := c.Slots(ctx)
	if err != nil {
		return out, err
	}
	if len(in.Slots) == 0 {
		in.Slots = allSlots()
	}
	routings := c.Routings(ctx, stats.Proxy.Models)
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	for _, r := range routings {
		if r.Err != nil {
			out.Differs = append(out.Differs, proxySilent(r).Error())
		} else if d := r.differs(wanted, in.Slots); len(d) > 0 {
			out.Differs = append(out.Differs, fmt.Sprintf("proxy %s serves slots %s otherwise, slot %d from %s", r.Proxy.AdminAddr, d, d[0], r.Slot(d[0]).words()))
		}
	}
	out.Agree = len(out.Differs) == 0
	for _, id := range in.Slots {
		m := stats.Mapping(id)
		s := slotOut{ID: id, Group: m.GroupID, State: m.Action.State, Target: m.Action.TargetID}
		for i, r := range answering(routings) {
			at := r.Slot(id)
			s.Locked = s.Locked || at.Locked
			if i == 0 {
				s.Backend = at.BackendAddr
			} else if s.Backend != at.BackendAddr {
				s.Backend = mixed
			}
		}
		if s.Locked {
			out.Locked++
		}
		out.Idle = out.Idle && m.Idle()
		out.Slots = append(out.Slots, s)
		out.Groups = append(out.Groups, m.GroupID)
	}
	slices.Sort(out.Groups)
	out.Groups = slices.Compact(out.Groups)
	return out, nil
}

// answering leaves out the proxies that did not answer.
func answering(all []Routing) []Routing {
	return slices.DeleteFunc(slices.Clone(all), func(r Routing) bool { return r.Err != nil })
}
