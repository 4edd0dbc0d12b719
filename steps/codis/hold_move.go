package codis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"runbook/steps"
	"runbook/steps/pika"
)

// movePoll lies between two questions while clients wait.
const movePoll = 2 * time.Millisecond

// fine is what is told of a duration.
const fine = 100 * time.Microsecond

// watchEvery lies between two looks at whether the hold still holds.
const watchEvery = 250 * time.Millisecond

// phase is one part of the pause.
type phase struct {
	Name     string        `yaml:"name" json:"name" doc:"hold, lag, markers, lag again, fence, recheck, detach, assign or verify."`
	Duration time.Duration `yaml:"duration" json:"duration" doc:"How long it took." min:"0"`
}

// pauseOver is the cause when the whole pause has used up its time.
type pauseOver struct{ limit time.Duration }

func (e pauseOver) Error() string { return fmt.Sprintf("max_pause of %s is used up", e.limit) }

// move switches the slots: from the first hold to the last route. It gives the pause, from the first hold asked for until
// the assignment was answered, and its parts. On an error clients may be waiting: the caller settles it.
func (h *hold) move(ctx context.Context) (pause time.Duration, phases []phase, err error) {
	if err := h.capture(ctx); err != nil {
		return 0, nil, err
	}
	if err := h.tell(toldHold); err != nil {
		return 0, nil, fmt.Errorf("the guardian is gone: %w", err)
	}
	h.began, h.moving = h.v.Now(), true
	defer func() { h.moving = false }()
	limited, cancel := context.WithTimeoutCause(ctx, h.plan.MaxPause, pauseOver{h.plan.MaxPause})
	defer cancel()
	at := h.began
	step := func(ctx context.Context, name string, do func(context.Context) error) error {
		h.v.Progress(steps.Progress{Text: "clients wait: " + name})
		err := h.inTime(ctx, do)
		now := h.v.Now()
		phases = append(phases, phase{name, now.Sub(at).Round(fine)})
		at = now
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if err := step(limited, "hold", h.holdAll); err != nil {
		return 0, phases, err
	}
	watched, unwatch := h.watched(limited)
	defer unwatch()
	var offsets map[int]pika.Offset
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"lag", func(ctx context.Context) error { _, err := h.level(ctx); return err }},
		{"markers", h.mark},
		{"lag again", func(ctx context.Context) error { offsets, err = h.level(ctx); return err }},
		{"fence", h.fence},
		{"recheck", func(ctx context.Context) error { return h.recheck(ctx, offsets) }},
		{"detach", h.detach},
	} {
		if err := step(watched, s.name, s.do); err != nil {
			return 0, phases, err
		}
	}
	unwatch() // from here the proxies change by our own doing
	if err := step(limited, "assign", h.assign); err != nil {
		return 0, phases, err
	}
	pause = at.Sub(h.began).Round(fine)
	return pause, phases, step(ctx, "verify", h.verify)
}

// inTime does one part of the pause, unless its time is over already by the clock of the run.
func (h *hold) inTime(ctx context.Context, do func(context.Context) error) error {
	if h.assigned == neverAssigned && h.v.Now().Sub(h.began) >= h.plan.MaxPause {
		return pauseOver{h.plan.MaxPause}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := do(ctx)
	if c := context.Cause(ctx); err != nil && c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w (%w)", c, err) // why it was cut says more than how
	}
	return err
}

// holdAll makes every proxy hold the slots, all at the same time: one that does not
// answer in its time ends the switch, and is remembered, since its hold may still come.
func (h *hold) holdAll(ctx context.Context) error {
	limit := min(lookLimit, h.plan.MaxPause/2)
	errs := make([]error, len(h.proxies))
	var wait sync.WaitGroup
	for i, p := range h.proxies {
		locked := slices.Clone(h.held[p.Token()])
		for k := range locked {
			locked[k].Locked = true
		}
		wait.Go(func() {
			limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
			defer cancel()
			errs[i] = p.FillSlots(limited, locked)
		})
	}
	wait.Wait()
	for i, err := range errs {
		if err != nil && steps.Classify(err).Unknown {
			h.late[h.proxies[i].Token()] = true
		}
	}
	return errors.Join(errs...)
}

// level returns when the destination has every byte: lag 0 and equal offsets, for every slot.
func (h *hold) level(ctx context.Context) (map[int]pika.Offset, error) {
	var behind string
	for {
		src, err := h.source.Slots(ctx, h.plan.Slots)
		if err != nil {
			return nil, late(ctx, behind, err)
		}
		if behind = h.behind(src); behind == "" {
			dst, err := h.dest.Slots(ctx, h.plan.Slots)
			if err != nil {
				return nil, late(ctx, behind, err)
			}
			offsets := map[int]pika.Offset{}
			followers := byID(dst)
			for _, s := range src {
				d := followers[s.ID]
				offsets[s.ID] = s.Offset
				switch {
				case d.Master != h.plan.Source.Addr || d.State != pika.StateConnected:
					return nil, fmt.Errorf("slot %d: the destination is in %q and follows %q", s.ID, d.State, d.Master)
				case d.Offset != s.Offset:
					behind = fmt.Sprintf("slot %d is at %s, the source at %s", s.ID, d.Offset, s.Offset)
				}
			}
			if behind == "" {
				return offsets, nil
			}
		}
		if err := h.v.Sleep(ctx, movePoll); err != nil {
			return nil, late(ctx, behind, err)
		}
	}
}

// late adds to the end of a wait what was still missing.
func late(ctx context.Context, behind string, err error) error {
	if behind == "" || ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%s: %w", behind, context.Cause(ctx))
}

// behind says which slot's replica is not level; empty: all are.
func (h *hold) behind(src []pika.Slot) string {
	for _, s := range src {
		r, listed := s.Replica(h.plan.Destination.Addr)
		switch {
		case !listed || r.Status != pika.BinlogSync || r.Lag == nil:
			return fmt.Sprintf("slot %d: the source does not list the destination as a replica in step", s.ID)
		case *r.Lag != 0:
			return fmt.Sprintf("slot %d: lag %d", s.ID, *r.Lag)
		}
	}
	return ""
}

// mark returns when the destination has applied all that it has acknowledged. Its threads are shared by all
// slots, and every slot is level by now: the markers of one slot are behind everything in every thread.
func (h *hold) mark(ctx context.Context) error {
	keys := pika.MarkerKeys(h.plan.Slots[0], SlotCount, h.threads)
	value := strconv.FormatInt(h.v.Now().UnixNano(), 36)
	h.markers = keys
	if err := h.source.WriteMarkers(ctx, keys, value); err != nil {
		return err
	}
	for {
		if ok, err := h.dest.HasMarkers(ctx, keys, value); err != nil || ok {
			return err
		}
		if err := h.v.Sleep(ctx, movePoll); err != nil {
			return err
		}
	}
}

// fence makes the source's slots follow the destination: from now on a write that comes past a hold gets an error
// instead of an OK that would be lost. Afterwards it is the live way back.
func (h *hold) fence(ctx context.Context) error {
	if err := h.tell(toldFence); err != nil {
		return fmt.Errorf("the guardian is gone: %w", err)
	}
	h.fenced = true
	return h.source.SlotsSlaveOf(ctx, h.plan.Slots, h.plan.Destination.Addr, false)
}

// recheck looks once more, with the fence standing, at all that was true before: the same proxies, all of them holding,
// the same mapping, and offsets that have not moved.
func (h *hold) recheck(ctx context.Context, offsets map[int]pika.Offset) error {
	s := h.look(ctx)
	if err := h.stillHolds(s); err != nil {
		return err
	}
	switch {
	case s.source.err != nil:
		return fmt.Errorf("the source: %w", s.source.err)
	case s.dest.err != nil:
		return fmt.Errorf("the destination: %w", s.dest.err)
	}
	for _, id := range h.plan.Slots {
		src, dst := s.source.slots[id], s.dest.slots[id]
		switch {
		case src.Offset != offsets[id] || dst.Offset != offsets[id]:
			return fmt.Errorf("slot %d: somebody has written past the hold: it was at %s, the source is at %s, the destination at %s", id, offsets[id], src.Offset, dst.Offset)
		case src.Master != h.plan.Destination.Addr:
			return fmt.Errorf("slot %d: the fence does not stand: the source follows %q", id, src.Master)
		case dst.Master != h.plan.Source.Addr:
			return fmt.Errorf("slot %d: the destination follows %q", id, dst.Master)
		}
		if r, listed := src.Replica(h.plan.Destination.Addr); listed && r.Lag != nil && *r.Lag != 0 {
			return fmt.Errorf("slot %d: lag %d", id, *r.Lag)
		}
	}
	return nil
}

// stillHolds checks what may open a hold: a proxy that joined, one that was told to start anew, a resync of the group.
func (h *hold) stillHolds(s *sight) error {
	switch {
	case s.listed == nil:
		return fmt.Errorf("the dashboard: %s", s.unread)
	case !h.heldAll(s.listed):
		return errors.New("the list of proxies has changed: a proxy that joins comes in open")
	}
	for _, id := range h.plan.Slots {
		if m := s.mapping[id]; !m.In(h.plan.From) {
			return fmt.Errorf("slot %d: the mapping has changed: group %d, action %q", id, m.GroupID, m.Action.State)
		}
	}
	for _, p := range s.proxies {
		if p.err != nil {
			return fmt.Errorf("proxy %s: %w", p.addr, p.err)
		}
		for _, id := range h.plan.Slots {
			if slot := p.slots[id]; !slot.Locked || slot.BackendAddr != h.plan.Source.Addr {
				return fmt.Errorf("proxy %s does not hold slot %d any more: somebody has opened it", p.addr, id)
			}
		}
	}
	return nil
}

// watched gives a context that ends, with the reason, when the hold does not hold any more. The
// caller ends the watch; it may do so twice.
func (h *hold) watched(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	onlooker := &hold{moving: true, plan: h.plan, v: h.v, codis: h.codis, source: h.source, dest: h.dest, proxies: h.proxies}
	var watching sync.WaitGroup
	watching.Go(func() {
		for h.v.Sleep(ctx, watchEvery) == nil {
			known := onlooker.proxies
			s := onlooker.look(ctx)
			onlooker.proxies = known
			if ctx.Err() != nil {
				return
			}
			if err := h.stillHolds(s); err != nil {
				cancel(fmt.Errorf("while clients waited: %w", err))
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

// detach makes the destination's slots masters, and sees that they are.
func (h *hold) detach(ctx context.Context) error {
	h.detached = true
	if err := h.dest.SlotsDetach(ctx, h.plan.Slots); err != nil {
		return err
	}
	slots, err := h.dest.Slots(ctx, h.plan.Slots)
	if err != nil {
		return err
	}
	for _, s := range slots {
		if !s.Present || s.Follows() {
			return fmt.Errorf("slot %d: the destination still follows %s", s.ID, s.Master)
		}
	}
	return nil
}

// assign maps the slots to the destination, in one request. While there is time it is asked for again.
func (h *hold) assign(ctx context.Context) error {
	for {
		_ = h.tell(toldAssign) // without a guardian forward is the shortest way to an end
		before := h.assigned
		h.assigned = maybeAssigned
		err := h.codis.Assign(ctx, h.assignment(h.plan.Slots))
		if err == nil {
			return nil
		}
		if !steps.Classify(err).Unknown {
			h.assigned = before
		} else if h.plan.judge(h.look(ctx)).switched() {
			return nil
		}
		if h.v.Sleep(ctx, 25*movePoll) != nil {
			return err
		}
	}
}

// verify sees that every proxy serves the slots from the destination.
func (h *hold) verify(ctx context.Context) error {
	j := h.plan.judge(h.look(ctx))
	if !j.switched() {
		return fmt.Errorf("after the assignment: %s", j)
	}
	return nil
}
