package codis

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"runbook/schema"
	"runbook/steps"
)

type assignSlotsIn struct {
	Slots     schema.Slots `yaml:"slots,required" doc:"Slots to assign."`
	ToGroup   int          `yaml:"to_group,required" doc:"Group that they shall belong to." min:"1" max:"9999"`
	AllowKeys bool         `yaml:"allow_keys" doc:"Assign slots although their old group has keys in them: clients do not see those any more. The undo, too, goes back although the new group has keys by then." default:"false"`
}

type assignSlotsOut struct {
	Slots   string `yaml:"slots" doc:"The slots, such as 0-511."`
	Group   int    `yaml:"group" doc:"Group that they belong to, by the dashboard and every proxy."`
	Backend string `yaml:"backend" doc:"Address that every proxy sends their clients to."`
}

// mappingBefore is what putting a mapping back needs: the slots of each group that had some; 0: offline.
type mappingBefore struct {
	Groups map[int]schema.Slots `json:"groups"`
}

func assignSlots() *steps.Kind[assignSlotsIn, assignSlotsOut] {
	return &steps.Kind[assignSlotsIn, assignSlotsOut]{
		Name:       "codis.assign-slots",
		Doc:        "Maps slots to a group at once and pushes the mapping to every proxy. No data moves: it is for slots that nobody has written to yet. Sends PUT slots/assign with all slots in one request, and reads back what every proxy does.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: map_slots, uses: codis.assign-slots, target: codis1, with: {slots: "0-511", to_group: 1}}`,
		Pitfalls: []string{
			"Keys stay where they are and clients stop seeing them: a slot whose old group's master has a key in it is refused (SLOTSINFO, on Pika SLOTSSCAN). Move it with codis.migrate-slots, or with codis.switch-slot where it is replicated by Pika.",
			"Codis accepts a slot that is migrating and drops its migration without a word, with half of its keys on either side: a slot with an action is refused, and so is one that is held at a proxy.",
			"The mapping is stored before the proxies are told, so an error may come after it: \"resync slots failed\" leaves some proxies on the new mapping and one on the old. The outcome is unknown then and settled by asking the dashboard and every proxy; assigning again is harmless.",
			"One registered proxy that does not answer makes every assignment fail half-way: it is looked for first.",
			"Afterwards the group counts as out of sync until codis.resync-group.",
			"The undo maps the slots back, and refuses where a key was written to the new group meanwhile.",
		},
		Valid: func(in assignSlotsIn, _ func(string) bool) []steps.Problem { return slotsProblem(in.Slots) },
		Check: func(ctx context.Context, v steps.View, in assignSlotsIn) error {
			c, stats, err := look(ctx, v)
			if err != nil {
				return err
			}
			return c.assignable(ctx, stats, in.Slots, in.ToGroup, in.AllowKeys)
		},
		Plan:  planAssignSlots,
		Probe: probeAssignSlots,
		Apply: applyAssignSlots,
		Undo:  undoAssignSlots,
		UndoPlan: func(assignSlotsIn) string {
			return "PUT /api/topom/slots/assign/" + maskedXAuth + " with the mapping before"
		},
	}
}

// assignable refuses what an assignment would lose or leave half done.
func (c *Client) assignable(ctx context.Context, stats Stats, slots schema.Slots, group int, allowKeys bool) error {
	what := fmt.Sprintf("assign slots %s to group %d", slots, group)
	if group != 0 {
		g, err := stats.needGroup(group)
		switch {
		case err != nil:
			return err
		case len(g.Servers) == 0:
			return steps.Precondition("%s: the group has no server", what).WithHint("codis.add-server adds one")
		case g.Promoting.State != "":
			return steps.Precondition("%s: the group is being promoted (%s)", what, g.Promoting.State)
		}
	}
	if err := stats.idle(slots, what); err != nil {
		return err
	}
	routings, err := c.allRoutings(ctx, stats.Proxy.Models)
	if err != nil {
		return err
	}
	if err := notHeld(routings, slots, what); err != nil {
		return err
	}
	if allowKeys {
		return nil
	}
	for from, moved := range stats.byGroup(slots) {
		g, _ := stats.GroupByID(from)
		if from == group || g.Master() == "" {
			continue
		}
		full, err := c.occupied(ctx, g.Master(), moved)
		if err != nil {
			return fmt.Errorf("%s: whether group %d has keys in them is not known: %w", what, from, err)
		}
		if len(full) > 0 {
			return steps.Precondition("%s: %s, the master of group %d, has keys in slots %s", what, g.Master(), from, full).
				WithHint("codis.migrate-slots moves them (codis.switch-slot where Pika replicates them); allow_keys: true leaves them behind")
		}
	}
	return nil
}

// byGroup sorts slots by the group that they belong to; 0: offline.
func (s Stats) byGroup(slots schema.Slots) map[int]schema.Slots {
	by := map[int]schema.Slots{}
	for _, id := range slots {
		group := s.Mapping(id).GroupID
		by[group] = append(by[group], id)
	}
	return by
}

func planAssignSlots(ctx context.Context, v *steps.View, in assignSlotsIn) (steps.Change, error) {
	l := line(v, "slots/assign")
	l.Command += fmt.Sprintf(` [{"id": %s, "group_id": %d}]`, in.Slots, in.ToGroup)
	change := steps.Change{Lines: []steps.Line{l}, Pause: "1s"}
	if v == nil {
		return change, nil
	}
	_, stats, err := look(ctx, *v)
	if err != nil {
		return steps.Change{}, err
	}
	by := stats.byGroup(in.Slots)
	change.Before = mappingBefore{Groups: by}
	change.Lines[0].From, change.Lines[0].To = groupWords(by), fmt.Sprintf("group %d", in.ToGroup)
	return change, nil
}

// groupWords tells a mapping: group 1: 0-7; offline: 8.
func groupWords(by map[int]schema.Slots) string {
	text := ""
	for _, g := range sorted(by) {
		if text != "" {
			text += "; "
		}
		if g == 0 {
			text += "offline: " + by[g].String()
		} else {
			text += fmt.Sprintf("group %d: %s", g, by[g])
		}
	}
	return text
}

func probeAssignSlots(ctx context.Context, v steps.View, in assignSlotsIn) (steps.State, assignSlotsOut, error) {
	c, stats, err := look(ctx, v)
	if err != nil {
		return steps.Unclear, assignSlotsOut{}, err
	}
	mapped := 0
	for _, id := range in.Slots {
		if stats.Mapping(id).In(in.ToGroup) {
			mapped++
		}
	}
	if mapped == 0 {
		return steps.Untouched, assignSlotsOut{}, nil
	}
	if mapped < len(in.Slots) {
		return steps.Partial, assignSlotsOut{}, nil
	}
	g, _ := stats.GroupByID(in.ToGroup)
	served, _, err := c.served(ctx, stats, in.Slots, g.Master())
	switch {
	case err != nil:
		return steps.Unclear, assignSlotsOut{}, err
	case !served:
		return steps.Partial, assignSlotsOut{}, nil
	}
	return steps.Done, assignSlotsOut{Slots: in.Slots.String(), Group: g.ID, Backend: g.Master()}, nil
}

func applyAssignSlots(ctx context.Context, s steps.Session, in assignSlotsIn) (assignSlotsOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return assignSlotsOut{}, err
	}
	if err := c.assign(ctx, in.Slots, in.ToGroup); err != nil {
		return assignSlotsOut{}, err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return assignSlotsOut{}, afterwards(err)
	}
	g, _ := stats.GroupByID(in.ToGroup)
	return assignSlotsOut{Slots: in.Slots.String(), Group: in.ToGroup, Backend: g.Master()}, nil
}

// assign maps slots to a group (0: offline) and reads back what every proxy does. Right before, it looks for
// an action of a slot once more, which the request would overwrite.
func (c *Client) assign(ctx context.Context, slots schema.Slots, group int) error {
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	if err := stats.idle(slots, fmt.Sprintf("assign slots %s to group %d", slots, group)); err != nil {
		return err
	}
	body := make([]SlotGroup, len(slots))
	for i, id := range slots {
		body[i] = SlotGroup{ID: id, GroupID: group}
	}
	if group == 0 {
		err = c.put(ctx, body, "slots/assign", "offline")
	} else {
		err = c.Assign(ctx, body)
	}
	if err != nil {
		return err
	}
	g, _ := stats.GroupByID(group)
	served, why, err := c.served(ctx, stats, slots, g.Master())
	if err != nil {
		return afterwards(err)
	}
	if !served {
		return afterwards(steps.Errorf("conflict", "assign slots %s to group %d: the dashboard has stored it, and %s", slots, group, why))
	}
	return nil
}

func undoAssignSlots(ctx context.Context, s steps.Session, in assignSlotsIn, _ *assignSlotsOut) error {
	var before mappingBefore
	has, err := s.Before(&before)
	if err != nil || !has {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	back := map[int]schema.Slots{}
	for group, slots := range before.Groups {
		g, _ := stats.GroupByID(group)
		served, _, err := c.served(ctx, stats, slots, g.Master())
		if err != nil {
			return err
		}
		for _, id := range slots {
			switch now := stats.Mapping(id); {
			case group == in.ToGroup, now.GroupID == group && served:
			case now.GroupID == in.ToGroup || now.GroupID == group:
				back[group] = append(back[group], id)
			default:
				return steps.Errorf("conflict", "assign slot %d back to group %d: it is in group %d now, where this step did not put it", id, group, now.GroupID)
			}
		}
	}
	for group, slots := range back { // all are looked at before the first goes back
		if err := c.assignable(ctx, stats, slots, group, in.AllowKeys); err != nil {
			return err
		}
	}
	for _, group := range sorted(back) {
		if err := c.assign(ctx, back[group], group); err != nil {
			return err
		}
	}
	return nil
}

// sorted are the groups of a mapping, ascending, so that requests go out in one order.
func sorted(by map[int]schema.Slots) []int {
	return slices.Sorted(maps.Keys(by))
}
