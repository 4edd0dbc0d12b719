package pika

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// A write that comes by replication is appended to its slot's binlog, and waits in the queue of one of the
// instance's threads to be applied. A thread that comes to a write for a slot that was deleted
// meanwhile ends the whole process: it looks the slot up by its number, and does not ask whether it is
// there. Detaching a slot stops what comes, and leaves the queues as they are; and nothing that a server tells shows
// them. So before slots are deleted they must have been still for a while. Where the instance follows a master in another
// slot, markers prove that the threads have got through; where it follows one in these slots, markers right
// before the detaching leave little that is not known to be applied.

// How long slots have to be still.
const (
	// defaultSettle is for a queue of which nothing is known: 14 s of plain writes were seen on two busy cores.
	defaultSettle = 30 * time.Second
	// markedSettle is for what came between markers, which were applied, and the detaching after them.
	markedSettle = 5 * time.Second
	// provenSettle is enough where markers follow: it has to outlast one write between its append, after
	// which the slot's state is not asked about any more, and its place in a queue.
	provenSettle = time.Second
)

const (
	settlePoll = 200 * time.Millisecond
	proofPoll  = 20 * time.Millisecond
)

// drain waits until nothing is queued for slots that are to be deleted.
type drain struct {
	c      *Client
	table  int
	slots  schema.Slots
	detach bool              // slots that follow are detached; otherwise they are refused
	settle time.Duration     // how long they must be still where nothing else is known
	wait   time.Duration     // how long more each wait may take; 0: as long as a change of slots
	known  schema.TargetName // may be the target of a master, with a password of its own; may be empty
}

func (d drain) run(ctx context.Context, s steps.Session) error {
	if d.wait <= 0 {
		d.wait = changeLimit
	}
	marked, err := d.leave(ctx, s)
	if err != nil {
		return err
	}
	slots, err := d.c.TableSlots(ctx, d.table, d.slots)
	if err != nil || len(binlogEnds(slots)) == 0 {
		return err
	}
	held, err := d.c.HeldSlots(ctx, 0)
	if err != nil {
		return err
	}
	w, err := d.witness(ctx, s, held)
	if err != nil {
		return err
	}
	still := d.settle
	switch {
	case w != nil:
		still = min(still, provenSettle)
	case marked:
		still = min(still, markedSettle)
	}
	if err := d.beStill(ctx, s.View, still); err != nil || w == nil {
		return err
	}
	defer d.removeMarkers(ctx, s.View, w)
	value, err := d.mark(ctx, s.View, w)
	if err != nil {
		return err
	}
	return d.applied(ctx, s.View, w, value)
}

// leave detaches those of the slots that follow. Where it can it writes markers to their master right before, and returns
// when they are applied: then no more is queued than what came in between.
func (d drain) leave(ctx context.Context, s steps.Session) (marked bool, err error) {
	if !d.detach {
		return false, nil
	}
	slots, err := d.c.TableSlots(ctx, d.table, d.slots)
	if err != nil {
		return false, err
	}
	following := slices.DeleteFunc(slots, func(s Slot) bool { return !s.Follows() || s.State == StateError })
	if len(following) == 0 {
		return false, nil
	}
	all := ids(following, Slot.Follows)
	var w *witness
	if d.table == 0 {
		if w, err = d.witness(ctx, s, following); err != nil {
			return false, err
		}
	}
	if w == nil {
		return false, d.c.order(ctx, slotsSlaveOf(d.table, all, "", false))
	}
	defer d.removeMarkers(ctx, s.View, w)
	value, err := d.mark(ctx, s.View, w)
	if err != nil {
		return false, err
	}
	if err := d.received(ctx, s.View, w); err != nil {
		return false, err
	}
	if err := d.c.order(ctx, slotsSlaveOf(d.table, all, "", false)); err != nil {
		return false, err
	}
	return true, d.applied(ctx, s.View, w, value)
}

// binlogEnds gives the ends of those slots for which a write can be queued: what is queued was appended before.
func binlogEnds(slots []Slot) map[int]Offset {
	ends := map[int]Offset{}
	for _, s := range slots {
		if s.Present && !s.Offset.IsZero() {
			ends[s.ID] = s.Offset
		}
	}
	return ends
}

// beStill returns when the slots have been seen to follow nobody, and to be written to by nobody, for so long.
func (d drain) beStill(ctx context.Context, v steps.View, long time.Duration) error {
	begun := v.Now()
	var ends map[int]Offset
	for since := begun; ; {
		slots, err := d.c.TableSlots(ctx, d.table, d.slots)
		if err != nil {
			return err
		}
		for _, s := range slots {
			if s.Follows() && s.State != StateError {
				return d.refused("slot %d follows %s (%s)", s.ID, s.Master, s.State).WithHint("somebody has attached it again")
			}
		}
		now := v.Now()
		if seen := binlogEnds(slots); ends == nil || !maps.Equal(seen, ends) {
			ends, since = seen, now
		}
		left := long - now.Sub(since)
		if left <= 0 {
			return nil
		}
		if now.Sub(begun) > long+d.wait {
			return d.refused("their binlogs still grow").WithHint("somebody writes to them: find out who (client list), and where clients are sent")
		}
		v.Progress(steps.Progress{Text: fmt.Sprintf("waits until slots %s have been still for %s: what was replicated may be queued, and deleting a slot under it ends the server", SlotGroup(d.slots), long)})
		if err := v.Sleep(ctx, min(left, settlePoll)); err != nil {
			return d.stopped(err)
		}
	}
}

func (d drain) refused(format string, a ...any) *steps.Error {
	return steps.Precondition("delete slots %s of %s: %s", SlotGroup(d.slots), d.c.Addr(), fmt.Sprintf(format, a...))
}

// witness is a slot in which the instance follows a master, that one or one further up, which can be written to.
type witness struct {
	master *Client
	slot   int
	lag    int64    // of the one that follows this master
	keys   []string // the markers: one for each of the instance's threads, which all of its slots share
}

// chainLimit is how many masters one above the other are asked.
const chainLimit = 3

// witness finds a slot with little lag among those that follow; nil where there is none. A master that cannot be asked is
// none: then the slots have to be still for longer.
func (d drain) witness(ctx context.Context, s steps.Session, slots []Slot) (*witness, error) {
	w, err := d.above(ctx, s, d.c.Addr(), slots, chainLimit)
	if w == nil || err != nil {
		return nil, err
	}
	threads, err := d.c.SyncThreads(ctx)
	if err != nil {
		return nil, unlessAnswered(err)
	}
	number, err := d.c.slotNumber(ctx)
	if err != nil {
		return nil, unlessAnswered(err)
	}
	w.keys = MarkerKeys(w.slot, number, threads)
	return w, nil
}

// above asks the masters of an instance's slots for the one that lags least.
func (d drain) above(ctx context.Context, s steps.Session, addr string, slots []Slot, limit int) (*witness, error) {
	followed := map[string]schema.Slots{}
	for _, sl := range slots {
		if sl.State == StateConnected {
			followed[sl.Master] = append(followed[sl.Master], sl.ID)
		}
	}
	var best *witness
	for _, master := range slices.Sorted(maps.Keys(followed)) {
		w, err := d.ask(ctx, s, master, addr, followed[master], limit)
		switch {
		case ctx.Err() != nil:
			return nil, err
		case err != nil:
			s.Log().Info("ask a master for a slot to prove by that nothing is queued", "master", master, "error", err)
		case w != nil && (best == nil || w.lag < best.lag):
			best = w
		}
	}
	return best, nil
}

// ask asks one master, and its own masters for the slots that it cannot write to itself.
func (d drain) ask(ctx context.Context, s steps.Session, master, follower string, of schema.Slots, limit int) (*witness, error) {
	m, err := d.masterAt(ctx, s, master)
	if err != nil {
		return nil, err
	}
	slots, err := m.Slots(ctx, of)
	if err != nil {
		return nil, err
	}
	var best *witness
	var further []Slot
	for _, sl := range slots {
		r, _ := sl.Replica(follower)
		switch {
		case r.Status != BinlogSync || r.Lag == nil:
		case sl.Follows():
			further = append(further, sl)
		case best == nil || *r.Lag < best.lag:
			best = &witness{master: m, slot: sl.ID, lag: *r.Lag}
		}
	}
	if best != nil || limit == 1 {
		return best, nil
	}
	return d.above(ctx, s, master, further, limit-1)
}

// masterAt gives a client that may write for the master at an address: the known target where it is that one, and otherwise one
// with the password of the step's own target.
func (d drain) masterAt(ctx context.Context, s steps.Session, addr string) (*Client, error) {
	if d.known != "" {
		if t, err := s.Target(string(d.known)); err == nil && t.Kind == KindName && t.Addr() == addr {
			return Target().Session(ctx, s, t.Name)
		}
	}
	t, err := s.Target("")
	if err != nil {
		return nil, err
	}
	config := maps.Clone(t.Config)
	delete(config, "release")
	config["addr"] = addr
	return Target().SessionOf(ctx, s, steps.Target{Name: addr, Kind: KindName, Config: config})
}

func (d drain) mark(ctx context.Context, v steps.View, w *witness) (value string, err error) {
	value = strconv.FormatInt(v.Now().UnixNano(), 36)
	return value, w.master.WriteMarkers(ctx, w.keys, value)
}

// received returns when the instance has in its binlog what the witness' master has by now.
func (d drain) received(ctx context.Context, v steps.View, w *witness) error {
	of := schema.Slots{w.slot}
	theirs, err := w.master.Slots(ctx, of)
	if err != nil {
		return err
	}
	return d.await(ctx, v, w, "have not come", func() (bool, error) {
		ours, err := d.c.Slots(ctx, of)
		return err == nil && !ours[0].Offset.Less(theirs[0].Offset), err
	})
}

// applied returns when the markers can be read on the instance: each thread keeps the order of its queue, so it has got through all
// that was queued before.
func (d drain) applied(ctx context.Context, v steps.View, w *witness, value string) error {
	return d.await(ctx, v, w, "are not applied", func() (bool, error) { return d.c.HasMarkers(ctx, w.keys, value) })
}

func (d drain) await(ctx context.Context, v steps.View, w *witness, not string, so func() (bool, error)) error {
	for begun := v.Now(); ; {
		if ok, err := so(); err != nil || ok {
			return err
		}
		if v.Now().Sub(begun) > d.wait {
			return d.refused("after %s markers written to slot %d of %s %s, so writes to the slots may be queued still, and deleting them would end the server", d.wait, w.slot, w.master.Addr(), not).
				WithHint("see what its apply threads do (info commandstats, slowlog), and whether slot %d is in sync; then repeat, or give it a longer wait", w.slot)
		}
		v.Progress(steps.Progress{Text: fmt.Sprintf("waits for markers written to slot %d of %s: when they are applied, nothing is queued before them", w.slot, w.master.Addr())})
		if err := v.Sleep(ctx, proofPoll); err != nil {
			return d.stopped(err)
		}
	}
}

// stopped is the error of a wait that was told to stop.
func (d drain) stopped(err error) error {
	return fmt.Errorf("delete slots %s of %s: none deleted yet: %w", SlotGroup(d.slots), d.c.Addr(), err)
}

// removeMarkers takes them away, also where the step was told to stop. They are harmless where they stay.
func (d drain) removeMarkers(ctx context.Context, v steps.View, w *witness) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.master.cfg.Timeout)
	defer cancel()
	if err := w.master.RemoveMarkers(limited, w.keys); err != nil {
		v.Log().Warn("take the markers away", "on", w.master.Addr(), "keys", w.keys, "error", err)
	}
}
