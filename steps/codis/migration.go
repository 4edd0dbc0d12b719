package codis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// migration watches over Codis' own migration of some slots to one group, until all have moved or nothing moves.
type migration struct {
	c     *Client
	s     steps.Session
	slots schema.Slots
	to    int
	every time.Duration // between two looks
	stall time.Duration // without anything moving

	keysBefore map[int]int64 // of each slot, on the master it came from, as first seen
	sources    map[string]schema.Slots
	total      int64
}

// glance is what one look at a migration has found.
type glance struct {
	done   int // slots that have moved
	left   int64
	states string   // of the slots that are neither idle nor pending, in words
	stuck  []string // slots in a state that should be over in milliseconds
	failed string   // the dashboard's last error about a slot of ours that has an action
}

// run queues what is not queued and waits. It fails where nothing has moved for the time allowed: there is no
// failed state of Codis' own.
func (m *migration) run(ctx context.Context) error {
	var last glance
	moving, seen := m.s.Now(), m.s.Now()
	for first := true; ; first = false {
		stats, err := m.c.Stats(ctx)
		if err != nil {
			return err
		}
		if first {
			if err := m.count(ctx, stats); err != nil {
				return err
			}
		}
		if err := m.queue(ctx, stats); err != nil {
			return err
		}
		now, err := m.glance(ctx, stats)
		if err != nil {
			return err
		}
		m.tell(now, last, m.s.Now().Sub(seen))
		seen = m.s.Now()
		if now.done == len(m.slots) {
			return nil
		}
		if first || now.done != last.done || now.left != last.left || now.states != last.states {
			moving = m.s.Now()
		}
		if m.s.Now().Sub(moving) >= m.stall {
			return m.stalled(now)
		}
		last = now
		if err := m.s.Sleep(ctx, m.every); err != nil {
			return err
		}
	}
}

// count remembers where the keys are before anything moves.
func (m *migration) count(ctx context.Context, stats Stats) error {
	m.keysBefore, m.sources = map[int]int64{}, map[string]schema.Slots{}
	for group, slots := range stats.byGroup(m.slots) {
		g, _ := stats.GroupByID(group)
		if group == m.to || g.Master() == "" {
			continue
		}
		m.sources[g.Master()] = slots
		counts, err := m.c.keyCounts(ctx, g.Master())
		if err != nil {
			return err
		}
		for _, id := range slots {
			m.keysBefore[id] = counts[id]
			m.total += counts[id]
		}
	}
	return nil
}

// queue asks for what has no action yet. A slot that goes elsewhere is left to end there first; asking again after a
// lost answer finds that the action is there.
func (m *migration) queue(ctx context.Context, stats Stats) error {
	for _, words := range createRequests(stats.toCreate(m.slots, m.to), m.to) {
		if err := m.c.Put(ctx, words...); err != nil {
			return err
		}
	}
	return nil
}

func (m *migration) glance(ctx context.Context, stats Stats) (glance, error) {
	var now glance
	var states []string
	for _, id := range m.slots {
		at := stats.Mapping(id)
		if at.In(m.to) {
			now.done++
			continue
		}
		switch at.Action.State {
		case "", "pending":
		case "preparing", "finished":
			now.stuck = append(now.stuck, at.words())
			fallthrough
		default:
			states = append(states, at.words())
			if status := stats.SlotAction.Progress.Status; strings.HasPrefix(status, fmt.Sprintf("[ERROR] Slot[%04d]", id)) {
				now.failed = status
			}
		}
	}
	now.states = strings.Join(states, ", ")
	for addr, slots := range m.sources {
		counts, err := m.c.keyCounts(ctx, addr)
		if err != nil && ctx.Err() != nil {
			return now, err
		}
		if err != nil { // what cannot be counted has not moved, as far as anybody knows
			now.failed = err.Error()
			continue
		}
		for _, id := range slots {
			now.left += counts[id]
		}
	}
	return now, nil
}

// tell shows how far it has come, and how fast since the last look.
func (m *migration) tell(now, last glance, since time.Duration) {
	p := steps.Progress{
		Done: float64(max(m.total-now.left, 0)), Total: float64(m.total), Unit: "keys",
		Text: fmt.Sprintf("%d of %d slots", now.done, len(m.slots)),
	}
	if m.total == 0 {
		p.Done, p.Total, p.Unit = float64(now.done), float64(len(m.slots)), "slots"
	}
	if moved := last.left - now.left; moved > 0 && since > 0 {
		p.Text += fmt.Sprintf(", %.0f keys/s", float64(moved)/since.Seconds())
	}
	if now.states != "" {
		p.Text += "; " + now.states
	}
	m.s.Progress(p)
}

// stalled says what is known of why nothing moves, and what stays behind.
func (m *migration) stalled(now glance) error {
	why := "no word from the dashboard why"
	hint := "the dashboard goes on trying by itself; what is migrating cannot be cancelled, and clients are served meanwhile"
	switch {
	case now.failed != "":
		why = now.failed
	case len(now.stuck) > 0:
		why = "a proxy does not take the change (" + strings.Join(now.stuck, ", ") + ")"
		hint = "codis.check-health tells which proxy: bring it back with the same ports, or take it out with codis.remove-proxy (force: true); " + hint
	case now.states == "":
		why = "nothing has begun: a slot of another migration between these groups may be in the way"
	}
	return &steps.Error{Kind: "stalled", Unknown: true, Hint: hint, Err: fmt.Errorf(
		"migrate slots %s to group %d: %d of %d have moved, and nothing has for %s: %s", m.slots, m.to, now.done, len(m.slots), m.stall, why)}
}
