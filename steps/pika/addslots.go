package pika

import (
	"context"
	"fmt"
	"slices"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type addSlotsIn struct {
	Slots    schema.Slots      `yaml:"slots,required" doc:"Slots the instance is to hold. Those that it holds already stay as they are."`
	Table    int               `yaml:"table" doc:"Number of the table; 0 is db0, the only one Codis and proxies know." default:"0"`
	Pause    time.Duration     `yaml:"pause" doc:"Time between two slots on an instance that serves, in which its clients get on." default:"100ms"`
	ServedBy schema.TargetName `yaml:"served_by" doc:"Pika target that serves these slots until they are moved here. With it undo also deletes slots that hold a copy of its data; without it undo keeps what was written to."`
	RoutedBy schema.TargetName `yaml:"routed_by" doc:"Target that knows where clients are sent (codis). Undo keeps a slot for which it names this instance."`
}

type addSlotsOut struct {
	Slots schema.Slots `yaml:"slots" doc:"The slots asked for: the instance holds them all."`
}

// hadSlots is what undoing needs: which of the slots were there before.
type hadSlots struct {
	Had schema.Slots `json:"had"`
}

// addTogether is how many slots are added in one call on an instance that serves nothing. It bounds what an unknown outcome is about.
const addTogether = 32

func addSlots() *steps.Kind[addSlotsIn, addSlotsOut] {
	return &steps.Kind[addSlotsIn, addSlotsOut]{
		Name:       "pika.addslots",
		Doc:        "Has an instance in mode sharding hold slots: empty ones, which nobody is sent to yet. Sends PKCLUSTER ADDSLOTS for those that are missing, one slot a call; up to 32 a call where the instance holds nothing but empty slots of this step.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: add, uses: pika.addslots, target: pika5, with: {slots: "1"}}`,
		Pitfalls: []string{
			"While slots are added every command for data waits, on all slots of the instance: 16 slots in one call held clients for 1.5 s. So an instance that serves gets one slot a call, with a pause between.",
			"The server adds all slots of a call or none: one that exists fails the call. Only missing ones are asked for, and after any error the state is read again.",
			"The server goes on when the client has gone, and shows nothing of a slot until it is there: a lost answer is settled by waiting and reading.",
			"An empty slot takes some 22 MB of disk and 26 open files, and 1.1 x write-buffer-size (256 MB by default) for each data type at the first write: check disk and ulimit -n before many are added.",
			"Undo deletes those slots alone that this step has added and that are as they were made: nothing written (or a copy of what served_by has), no master, no replica, not routed. Slots that were written to are deleted as pika.delslots does, when no replicated write is queued for them.",
		},
		Valid: func(in addSlotsIn, unknown func(string) bool) []steps.Problem {
			return validSlots(in.Slots, in.Table, unknown)
		},
		Check: checkAddSlots,
		Plan:  planAddSlots,
		Probe: probeAddSlots,
		Apply: applyAddSlots,
		Undo:  undoAddSlots,
		UndoPlan: func(in addSlotsIn) string {
			return "PKCLUSTER DELSLOTS " + SlotGroup(in.Slots) + ", those that were added and are still empty"
		},
	}
}

func checkAddSlots(ctx context.Context, v steps.View, in addSlotsIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	tables, err := c.Tables(ctx)
	if err != nil || len(tables) == 0 { // 3.2.9 tells none
		return err
	}
	what := fmt.Sprintf("add slots %s to %s", SlotGroup(in.Slots), c.Addr())
	i := slices.IndexFunc(tables, func(t Table) bool { return t.ID == in.Table })
	if i < 0 {
		return steps.Precondition("%s: there is no table %d", what, in.Table)
	}
	if most := slices.Max(in.Slots); most >= tables[i].Slots {
		return steps.Precondition("%s: table %d has %d slots, 0 to %d", what, in.Table, tables[i].Slots, tables[i].Slots-1).
			WithHint("default-slot-num of the instance must be that of the whole cluster")
	}
	return nil
}

func planAddSlots(ctx context.Context, v *steps.View, in addSlotsIn) (steps.Change, error) {
	if v == nil {
		return steps.Change{Lines: []steps.Line{{Command: redis.Line(addSlotsCommand(in.Table, in.Slots)), To: "held"}}}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Change{}, err
	}
	missing := ids(slots, absent)
	change := steps.Change{Before: hadSlots{Had: ids(slots, func(s Slot) bool { return s.Present })}}
	if len(missing) == 0 {
		change.Lines = []steps.Line{{Target: own(v), Command: redis.Line(addSlotsCommand(in.Table, in.Slots)), From: "held", To: "held"}}
		return change, nil
	}
	calls := "in one call"
	if len(missing) > 1 {
		calls = "one a call"
	}
	change.Lines = []steps.Line{{Target: own(v), Command: redis.Line(addSlotsCommand(in.Table, missing)), From: "absent", To: "held, " + calls}}
	return change, nil
}

func probeAddSlots(ctx context.Context, v steps.View, in addSlotsIn) (steps.State, addSlotsOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, addSlotsOut{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Unclear, addSlotsOut{}, err
	}
	state := some(len(slots)-len(ids(slots, absent)), len(slots))
	return state, addSlotsOut{Slots: in.Slots}, nil
}

func applyAddSlots(ctx context.Context, s steps.Session, in addSlotsIn) (addSlotsOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return addSlotsOut{}, err
	}
	together, err := c.addTogether(ctx, in)
	if err != nil {
		return addSlotsOut{}, err
	}
	ch := change{c: c, table: in.Table, wanted: in.Slots, left: absent, command: addSlotsCommand, together: together, pause: in.Pause, doing: "add"}
	if together > 1 {
		ch.pause = 0 // nobody waits
	}
	return addSlotsOut{Slots: in.Slots}, ch.run(ctx, s.View)
}

// addTogether decides how many slots one call adds: several only where nobody can be waiting for the instance.
func (c *Client) addTogether(ctx context.Context, in addSlotsIn) (int, error) {
	held, err := c.HeldSlots(ctx, in.Table)
	if err != nil {
		return 0, err
	}
	for _, s := range held {
		if !blank(s) || !slices.Contains(in.Slots, s.ID) {
			return 1, nil
		}
	}
	return addTogether, nil
}

func undoAddSlots(ctx context.Context, s steps.Session, in addSlotsIn, _ *addSlotsOut) error {
	var before hadSlots
	has, err := s.Before(&before)
	if err != nil {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return err
	}
	if !has {
		if len(ids(slots, absent)) == len(slots) {
			return nil
		}
		return steps.Errorf("precondition", "delete slots %s of %s again: which were there before is not known", SlotGroup(in.Slots), c.Addr())
	}
	slots = slices.DeleteFunc(slots, func(s Slot) bool { return !s.Present || slices.Contains(before.Had, s.ID) })
	unused, kept, err := in.unused(ctx, s.View, c, slots)
	if err != nil {
		return err
	}
	if err := (drain{c: c, table: in.Table, slots: unused, settle: defaultSettle, known: in.ServedBy}).run(ctx, s); err != nil {
		return err
	}
	undo := change{c: c, table: in.Table, wanted: unused, left: func(s Slot) bool { return s.Present }, command: delSlotsCommand, together: 1, doing: "delete"}
	if err := undo.run(ctx, s.View); err != nil || kept == nil {
		return err
	}
	return steps.Errorf("conflict", "delete slots again that were added to %s: %w", c.Addr(), kept).
		WithHint("somebody uses them since; delete them with pika.delslots if they are not wanted")
}

// unused gives those of the slots that were added which nobody has used since, and in kept why others are left alone.
func (in addSlotsIn) unused(ctx context.Context, v steps.View, c *Client, added []Slot) (unused schema.Slots, kept, err error) {
	routed, err := routedHere(ctx, v, in.RoutedBy, c, ids(added, func(Slot) bool { return true }))
	if err != nil {
		return nil, nil, err
	}
	var free []Slot
	for _, s := range added {
		switch {
		case s.Follows():
			kept = fmt.Errorf("slot %d follows %s", s.ID, s.Master)
		case slices.Contains(routed, s.ID):
			kept = fmt.Errorf("clients are sent to slot %d", s.ID)
		case !s.Offset.IsZero() && in.ServedBy == "":
			kept = fmt.Errorf("slot %d was written to (binlog at %s)", s.ID, s.Offset)
		default:
			free = append(free, s)
		}
	}
	del := delSlotsIn{Slots: in.Slots, Table: in.Table, ServedBy: in.ServedBy}
	if err := del.unfollowed(ctx, c, free); err != nil {
		return nil, nil, err
	}
	if err := del.servedElsewhere(ctx, v, c, free); err != nil {
		return nil, nil, err
	}
	return ids(free, func(Slot) bool { return true }), kept, nil
}

// routedHere gives those of the slots for which clients are sent to this instance; without a router none are known to be.
func routedHere(ctx context.Context, v steps.View, router schema.TargetName, c *Client, slots schema.Slots) (schema.Slots, error) {
	if router == "" || len(slots) == 0 {
		return nil, nil
	}
	r, err := routerView(ctx, v, router)
	if err != nil {
		return nil, err
	}
	backends, err := r.SlotBackends(ctx, slots)
	if err != nil {
		return nil, err
	}
	var here schema.Slots
	for _, id := range slots {
		if slices.Contains(backends[id], c.Addr()) {
			here = append(here, id)
		}
	}
	return here, nil
}
