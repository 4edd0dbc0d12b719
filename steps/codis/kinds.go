package codis

import (
	"context"
	"strconv"

	"runbook/schema"
	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		info().Define(),
		checkHealth().Define(),
		slotInfo().Define(),
		proxyStats().Define(),
		createGroup().Define(),
		removeGroup().Define(),
		resyncGroup().Define(),
		addServer().Define(),
		removeServer().Define(),
		promote().Define(),
		assignSlots().Define(),
		switchSlot().Define(),
		migrateSlots().Define(),
		setInterval().Define(),
		pauseActions().Define(),
		addProxy().Define(),
		removeProxy().Define(),
	}
}

// view gives a client that refuses to write, for the step's own target.
func view(ctx context.Context, v steps.View) (*Client, error) { return Target().View(ctx, v, "") }

// session gives a client that may write, for the step's own target.
func session(ctx context.Context, s steps.Session) (*Client, error) {
	return Target().Session(ctx, s, "")
}

// look gives the client that refuses to write, and what the dashboard tells: what most kinds begin with.
func look(ctx context.Context, v steps.View) (*Client, Stats, error) {
	c, err := view(ctx, v)
	if err != nil {
		return nil, Stats{}, err
	}
	stats, err := c.Stats(ctx)
	return c, stats, err
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

// notKnown stands in a plan's line for an input that is only known while running.
const notKnown = "…"

// line shows a request as a plan does: PUT /api/topom/group/create/<xauth>/9.
func line(v *steps.View, words ...string) steps.Line {
	for i, w := range words {
		if w == "" {
			words[i] = notKnown
		}
	}
	path, err := commandPath(words...)
	if err != nil { // a command that is not in the list: the kind's own tests see it
		path = err.Error()
	}
	return steps.Line{Target: own(v), Command: "PUT " + path}
}

// needGroup finds a group that must be there.
func (s Stats) needGroup(id int) (Group, error) {
	g, ok := s.GroupByID(id)
	if !ok {
		return Group{}, steps.Precondition("group %d does not exist", id).WithHint("codis.create-group makes it")
	}
	return g, nil
}

func number(n int) string { return strconv.Itoa(n) }

// groupWord is a group's id in a plan's line; one that is only known while running is 0 there.
func groupWord(group int) string {
	if group == 0 {
		return notKnown
	}
	return number(group)
}

// slotsProblem says what is wrong with a set of slots.
func slotsProblem(slots schema.Slots) []steps.Problem {
	if n := len(slots); n > 0 && slots[n-1] >= SlotCount {
		return []steps.Problem{{Input: "slots", Message: "a Codis product has the slots 0 to " + number(SlotCount-1)}}
	}
	return nil
}
