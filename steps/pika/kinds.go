package pika

import (
	"context"
	"fmt"
	"slices"

	"runbook/schema"
	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		info().Define(),
		checkRelease().Define(),
		checkRsyncPort().Define(),
		createInstance().Define(),
		addSlots().Define(),
		delSlots().Define(),
		slotsSlaveOfKind().Define(),
		awaitSlots().Define(),
		slotInfo().Define(),
		slaveOf().Define(),
		countKeys().Define(),
		configSet(),
		checkApplied().Define(),
		checkWrite().Define(),
		checkKeys().Define(),
	}
}

// view gives a client that refuses to write, for the target of this name (empty: the step's own).
func view(ctx context.Context, v steps.View, name schema.TargetName) (*Client, error) {
	return Target().View(ctx, v, string(name))
}

// session gives a client that may write, for the step's own target.
func session(ctx context.Context, s steps.Session) (*Client, error) {
	return Target().Session(ctx, s, "")
}

// own names the step's own target, for the lines of a plan; v is nil offline.
func own(v *steps.View) string {
	if v == nil {
		return ""
	}
	t, err := v.Target("")
	if err != nil {
		return ""
	}
	return t.Name
}

// validSlots holds slots and a table to what any instance could have.
func validSlots(slots schema.Slots, table int, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	if len(slots) == 0 && !unknown("slots") {
		p = append(p, steps.Problem{Input: "slots", Message: "one slot at least"})
	}
	if len(slots) > 0 && slices.Min(slots) < 0 {
		p = append(p, steps.Problem{Input: "slots", Message: fmt.Sprintf("%d is no slot", slices.Min(slots))})
	}
	if table < 0 && !unknown("table") {
		p = append(p, steps.Problem{Input: "table", Message: fmt.Sprintf("%d is no table", table)})
	}
	return p
}

// ids gives the slots for which a fact holds, in their order.
func ids(all []Slot, holds func(Slot) bool) schema.Slots {
	found := schema.Slots{}
	for _, s := range all {
		if holds(s) {
			found = append(found, s.ID)
		}
	}
	return found
}

func absent(s Slot) bool { return !s.Present }

// blank tells a slot to which nothing was ever written, and that replicates nothing.
func blank(s Slot) bool {
	return s.Present && s.Offset.IsZero() && !s.Follows() && len(s.Replicas) == 0
}

// some tells how many of all, for a step's Probe.
func some(done, all int) steps.State {
	switch done {
	case all:
		return steps.Done
	case 0:
		return steps.Untouched
	}
	return steps.Partial
}
