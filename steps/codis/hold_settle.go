package codis

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// settlePause lies between two looks at a switch that is being settled. twice is how far two
// readings of a proxy must lie apart: a request to hold that was overtaken comes in between.
const (
	settlePause = 200 * time.Millisecond
	twice       = time.Second
)

// settle brings a switch to a safe end by the table, whoever started it and wherever it stopped, and says where each slot
// stands then: with the source, or switched. It goes on until it is there, until the table says that nothing may be
// changed (a Doubt), or until ctx ends. It never goes forward over a mapping that is still the source's.
func (h *hold) settle(ctx context.Context) (judgement, error) {
	open := map[string]time.Time{} // since when a proxy whose hold may still come reads open
	var unread time.Time           // since when the mapping after an assignment without an answer reads as the source's
	for {
		s := h.look(ctx)
		if err := ctx.Err(); err != nil {
			return judgement{}, context.Cause(ctx)
		}
		j := h.plan.judge(s)
		if h.assigned == maybeAssigned && h.early(s, j, &unread) {
			j = judgement{rows: map[int]row{}, seen: map[int]string{}}
			for _, id := range h.plan.Slots {
				j.rows[id], j.seen[id] = rowUnread, "an assignment that got no answer may still be carried out"
			}
		}
		switch j.way() {
		case wayDoubt:
			return j, h.doubt(j)
		case wayNone:
			if h.calm(s, open) {
				h.forgetMarkers(ctx, j)
				return j, nil
			}
		case wayBack, wayForward, wayWait:
			clear(open)
			h.v.Progress(steps.Progress{Text: "settling: " + j.String()})
			h.back(ctx, s, j)
			h.forward(ctx, s, j)
		}
		if err := h.v.Sleep(ctx, settlePause); err != nil {
			return judgement{}, err
		}
	}
}

// early says that nothing may be concluded yet of a mapping which still reads as the source's, since an assignment was asked
// for and got no answer: a living dashboard must have shown it twice, a while apart. One that is dead assigns nothing any more.
func (h *hold) early(s *sight, j judgement, since *time.Time) bool {
	if len(j.in(rowDone, rowHalfAssigned, rowTurned)) > 0 || s.dead {
		return false
	}
	if s.mapping == nil {
		*since = time.Time{}
		return true
	}
	now := h.v.Now()
	if since.IsZero() {
		*since = now
	}
	return now.Sub(*since) < twice
}

// calm says that no hold can come any more: every proxy whose hold got no answer has answered, and
// has read open twice.
func (h *hold) calm(s *sight, open map[string]time.Time) bool {
	now := h.v.Now()
	for _, p := range s.proxies {
		token := p.proxy.Token()
		switch {
		case !h.late[token]:
		case p.gone:
			delete(h.late, token) // its process has ended, and with it whatever it was asked
		case p.err != nil:
			delete(open, token)
		case open[token].IsZero():
			open[token] = now
		case now.Sub(open[token]) >= twice:
			delete(h.late, token)
		}
	}
	return len(h.late) == 0
}

// back makes the source serve again: the destination follows it where it had been detached, the
// source follows nobody, and the proxies let the clients go. What does not answer is tried again at the next look.
func (h *hold) back(ctx context.Context, s *sight, j judgement) {
	slots := j.going(wayBack)
	if len(slots) == 0 {
		return
	}
	var demote, unfence schema.Slots
	for _, id := range slots {
		src, dst := s.source.slots[id], s.dest.slots[id]
		if !src.Follows() {
			continue
		}
		unfence = append(unfence, id)
		if dst.Present && !dst.Follows() { // at the source's offset: the table has seen to that
			demote = append(demote, id)
		}
	}
	if len(demote) > 0 && h.order(ctx, func(ctx context.Context) error {
		return h.dest.SlotsSlaveOf(ctx, demote, h.plan.Source.Addr, false)
	}) != nil {
		return // a destination that takes writes and does not follow must not be forgotten
	}
	if len(unfence) > 0 && h.order(ctx, func(ctx context.Context) error { return h.source.SlotsDetach(ctx, unfence) }) != nil {
		return
	}
	h.release(ctx, s, slots)
}

func (h *hold) order(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := h.aMoment(ctx)
	defer cancel()
	err := do(limited)
	if err != nil {
		h.v.Log().Warn("settling a switch", "error", err)
	}
	return err
}

// release lets the clients of slots go that a proxy shows as held at the source, changing nothing else of what it shows.
func (h *hold) release(ctx context.Context, s *sight, slots schema.Slots) {
	var wait sync.WaitGroup
	for _, p := range s.proxies {
		var open []Slot
		for _, id := range slots {
			if slot, ok := p.slots[id]; ok && slot.Locked && slot.BackendAddr == h.plan.Source.Addr {
				slot.Locked = false
				open = append(open, slot)
			}
		}
		if len(open) == 0 {
			continue
		}
		wait.Go(func() {
			_ = h.order(ctx, func(ctx context.Context) error { return p.proxy.FillSlots(ctx, open) }) // the next look tells
		})
	}
	wait.Wait()
}

// openNow lets the clients go at once by what is known of the proxies from before the hold, without looking: for the first
// moment of an abort, while the mapping is certainly the source's.
func (h *hold) openNow(ctx context.Context) {
	var wait sync.WaitGroup
	for _, p := range h.proxies {
		if slots := h.held[p.Token()]; len(slots) > 0 {
			wait.Go(func() {
				_ = h.order(ctx, func(ctx context.Context) error { return p.FillSlots(ctx, slots) }) // settle reads it back
			})
		}
	}
	wait.Wait()
}

// forward has the dashboard tell the proxies again, once it and all of them answer: an assignment to a proxy that hangs
// would hold up the dashboard, and everybody who asks it, for a minute each.
func (h *hold) forward(ctx context.Context, s *sight, j judgement) {
	slots := j.going(wayForward)
	hangs := slices.ContainsFunc(s.proxies, func(p proxySight) bool { return p.err != nil && !p.gone })
	if len(slots) == 0 || hangs || s.listed == nil {
		return
	}
	_ = h.tell(toldAssign)
	h.assigned = maybeAssigned
	limited, cancel := context.WithTimeout(ctx, 5*lookLimit) // it may wait behind its own first answer
	defer cancel()
	if err := h.codis.Assign(limited, h.assignment(slots)); err != nil {
		h.v.Log().Warn("assigning again", "error", err)
	}
}

func (h *hold) assignment(slots schema.Slots) []SlotGroup {
	groups := make([]SlotGroup, len(slots))
	for i, id := range slots {
		groups[i] = SlotGroup{ID: id, GroupID: h.plan.To}
	}
	return groups
}

// doubt says what was seen, who is waiting, and that nothing was changed.
func (h *hold) doubt(j judgement) error {
	return steps.Doubt("switch of slots %s from group %d to group %d: %s: this is no state that a switch leaves behind, nothing was changed%s",
		h.plan.Slots, h.plan.From, h.plan.To, j, h.stillHeld(j)).
		WithHint("look at pkcluster info slot on %s and %s, and at GET /proxy/slots of every proxy; writes acknowledged by either side must not be given up", h.plan.Source.Addr, h.plan.Destination.Addr)
}

func (h *hold) stillHeld(j judgement) string {
	if len(j.in(rowHalfHeld, rowHeld, rowFenced, rowDetached, rowHalfAssigned, rowUnread)) == 0 {
		return ""
	}
	return "; clients of held slots wait, until now " + h.waited()
}

// stuck is the error of a switch that could not be settled in the time there was: it says
// what stands in the way, in which state it is left, and how long clients have waited.
func (h *hold) stuck(ctx context.Context, why error) error {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*lookLimit)
	defer cancel()
	s := h.look(look)
	j := h.plan.judge(s)
	var blame []string
	if s.listed == nil && len(j.in(rowHalfAssigned, rowUnread)) > 0 {
		blame = append(blame, "only a living dashboard can go on, and "+h.codis.Addr()+" does not answer")
	}
	for _, p := range s.proxies {
		if p.err != nil && !p.gone {
			blame = append(blame, "proxy "+p.addr+" does not answer")
		}
	}
	for _, token := range slices.Sorted(maps.Keys(h.late)) {
		for _, p := range s.proxies {
			if p.proxy.Token() == token && p.err == nil {
				blame = append(blame, "the hold of proxy "+p.addr+" got no answer and may still come")
			}
		}
	}
	text := strings.Join(blame, "; ")
	if text == "" {
		text = why.Error()
	}
	return steps.Doubt("switch of slots %s from group %d to group %d: %s; %s%s%w", h.plan.Slots, h.plan.From, h.plan.To, j, text, h.stillHeld(j), &stuckError{}).
		WithHint("mend it, then resume the run: it goes on from what it sees by then")
}

// stuckError marks the error of a switch that somebody with more time may still settle.
type stuckError struct{}

func (*stuckError) Error() string { return "" }

// forgetMarkers takes away what markers a switch has left, on whichever side serves now. They are
// harmless where they stay.
func (h *hold) forgetMarkers(ctx context.Context, j judgement) {
	if len(h.markers) == 0 {
		return
	}
	server := h.source
	if j.rows[h.plan.Slots[0]] == rowDone {
		server = h.dest
	}
	limited, cancel := h.aMoment(ctx)
	defer cancel()
	if err := server.RemoveMarkers(limited, h.markers); err != nil {
		h.v.Log().Warn("take the markers away", "keys", h.markers, "error", err)
	}
	h.markers = nil
}
