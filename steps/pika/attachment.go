package pika

import (
	"context"
	"fmt"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// Attachment is the replication of slots from a master to a follower, looked at from both sides again and again. It
// remembers since when a slot waits in vain, so it is one for as long as the wait lasts, and of one goroutine.
//
// Pika 3.4 notes that a slot waits for its master's answer after it has sent the question. Where the answer is quicker, the
// note overwrites what it said: the slot is in kWaitReply for ever, heeds nothing that comes, and the master gives it up
// after 20 s. It happens at any order to follow, the likelier the more slots and the busier the machine; and at either of
// two questions. Where the master had agreed to go on with the binlog, which shows in its listing the slot as
// SlaveBinlogSync meanwhile, the same order without force heals it. Where it was asked for a full sync, the copy comes and
// nobody looks at it: without force the slot would go on with the data that the full sync was to replace.
//
// An order while the master still lists the follower costs 20 s more; one in a full sync breaks it off. And where the answer
// was not lost but is late, by 40 s on a machine with far too much to do, the follower takes it for that to the second order
// and gets writes twice. A slot that was listed as SlaveBinlogSync has handled its answer, and is safe from that.
type Attachment struct {
	Follower   *Client // one that may write, where Mend is to be asked for
	Master     *Client
	Table      int
	Slots      schema.Slots
	Force      bool          // they were ordered to follow by a full sync
	StuckAfter time.Duration // how long a slot is left in kWaitReply, patience times as long before a full sync; 0: DefaultStuckAfter

	waits map[int]waiting // for each slot that was in kWaitReply whenever it was looked at
}

// waiting is what is known of a slot in kWaitReply.
type waiting struct {
	since  time.Time
	agreed bool // its master was seen to go on with the binlog
}

// DefaultStuckAfter is longer than a master lists a follower that it does not hear of (20 s).
const DefaultStuckAfter = 25 * time.Second

// patience is how many times as long a slot is left waiting that may have to be ordered with force: its answer may be late
// behind the full syncs of many others.
const patience = 5

// Sight is what both sides of an attachment show.
type Sight struct {
	Connected int          // slots that are kConnected, and that the master lists as SlaveBinlogSync
	Lag       *int64       // bytes, the largest of the slots; nil where one of them is not connected, or has none shown
	Stuck     schema.Slots // those that nothing but a new order heals
	Unfilled  schema.Slots // such that need a full sync, which was ordered and, for all that is known, forgotten
	Missing   string       // what the first slot that is not connected lacks, for people; empty: all are
}

// Look asks each side once. It is an error of kind precondition where a slot does not follow the master at all, or can not
// any more: no waiting changes that.
func (a *Attachment) Look(ctx context.Context, now time.Time) (Sight, error) {
	ours, err := a.Follower.TableSlots(ctx, a.Table, a.Slots)
	if err != nil {
		return Sight{}, err
	}
	theirs, err := a.Master.TableSlots(ctx, a.Table, a.Slots) // last: by then it has all that the follower had
	if err != nil {
		return Sight{}, err
	}
	waits, seen := map[int]waiting{}, Sight{Lag: new(int64)}
	for i, s := range ours {
		if err := a.broken(s, theirs[i]); err != nil {
			return Sight{}, err
		}
		r, listed := theirs[i].Replica(a.Follower.Addr())
		if s.State == StateWaitReply {
			w, known := a.waits[s.ID]
			if !known {
				w.since = now
			}
			w.agreed = w.agreed || r.Status == BinlogSync
			waits[s.ID] = w
			switch {
			case listed || now.Sub(w.since) < a.stuckAfter():
			case !a.Force || w.agreed:
				seen.Stuck = append(seen.Stuck, s.ID)
			case now.Sub(w.since) >= patience*a.stuckAfter():
				seen.Unfilled = append(seen.Unfilled, s.ID)
			}
		}
		seen.add(s, r)
	}
	a.waits = waits
	return seen, nil
}

func (a *Attachment) stuckAfter() time.Duration {
	if a.StuckAfter > 0 {
		return a.StuckAfter
	}
	return DefaultStuckAfter
}

// broken says why a slot will not come into step by itself, nor by the order that Mend sends.
func (a *Attachment) broken(s, m Slot) error {
	wrong := func(format string, words ...any) *steps.Error {
		return steps.Precondition("slot %d of %s as a replica of %s: %s", s.ID, a.Follower.Addr(), a.Master.Addr(), fmt.Sprintf(format, words...))
	}
	switch {
	case !s.Present:
		return wrong("the instance does not hold the slot").WithHint("pika.addslots first")
	case !m.Present:
		return wrong("the master does not hold the slot")
	case !s.Follows():
		return wrong("it follows nobody").WithHint("somebody has detached it, or the instance was started again, which forgets whom its slots follow: pika.slotsslaveof, with resume or force")
	case s.Master != a.Master.Addr():
		return wrong("it follows %s", s.Master).WithHint("somebody has changed it; decide by hand")
	case s.State == StateError:
		return wrong("it is in kError, which ends by a full sync alone").WithHint("pika.slotsslaveof with force: true replaces the slot's data")
	case s.State == StateConnected && m.Offset.Less(s.Offset):
		return wrong("its binlog (at %s) is ahead of the master's (at %s)", s.Offset, m.Offset).
			WithHint("it has got writes twice, after a connection broke, or has some of its own: pika.slotsslaveof with none: true, wait 25 s, and order it again with force: true")
	}
	return nil
}

func (l *Sight) add(s Slot, r Replica) {
	if s.State == StateConnected && r.Status == BinlogSync {
		l.Connected++
	} else {
		if l.Missing == "" {
			status := r.Status
			if status == "" {
				status = "not listed"
			}
			l.Missing = fmt.Sprintf("slot %d: %s at the follower, %s at the master", s.ID, s.State, status)
		}
		l.Lag = nil
	}
	switch {
	case r.Lag == nil || l.Lag == nil:
		l.Lag = nil
	case *r.Lag > *l.Lag:
		l.Lag = r.Lag
	}
}

// Mend orders the slots that a sight shows as stuck or unfilled again, those alone, and gives those that were ordered. An order
// that got no answer is an error and harmless: what it did is for the next look to tell.
func (a *Attachment) Mend(ctx context.Context, seen Sight) (schema.Slots, error) {
	var mended schema.Slots
	for _, o := range []struct {
		slots schema.Slots
		force bool
	}{{seen.Stuck, false}, {seen.Unfilled, true}} {
		if len(o.slots) == 0 {
			continue
		}
		for _, id := range o.slots {
			delete(a.waits, id) // whatever comes of it, it is not sent again at once
		}
		if err := a.again(ctx, o.slots, o.force); err != nil {
			return mended, err
		}
		mended = append(mended, o.slots...)
	}
	return mended, nil
}

func (a *Attachment) again(ctx context.Context, slots schema.Slots, force bool) error {
	err := a.Follower.order(ctx, slotsSlaveOf(a.Table, slots, a.Master.Addr(), force))
	if err == nil {
		return nil
	}
	e := *steps.Classify(err)
	e.Err = fmt.Errorf("order slots %s of %s to follow %s again: %w", SlotGroup(slots), a.Follower.Addr(), a.Master.Addr(), err)
	if isAnswered(err) {
		e.Temporary = false
		e.Hint = "a slot whose master the server cannot connect to is left following nobody: look at it with pika.slot-info, and order it with pika.slotsslaveof"
	}
	return &e
}
