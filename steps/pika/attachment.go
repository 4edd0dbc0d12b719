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
// after 20 s. It happens at any order to follow, also after a full sync, the likelier the more slots and the busier the
// machine. The same order, without force, heals it; but not in a full sync, which it would break off, and not while the
// master still lists the follower, which costs 20 s more.
type Attachment struct {
	Follower   *Client // one that may write, where Mend is to be asked for
	Master     *Client
	Table      int
	Slots      schema.Slots
	StuckAfter time.Duration // how long a slot is left in kWaitReply; 0: DefaultStuckAfter

	waits map[int]time.Time // since when each slot was in kWaitReply whenever it was looked at
}

// DefaultStuckAfter is longer than a master lists a follower that it does not hear of (20 s).
const DefaultStuckAfter = 25 * time.Second

// Sight is what both sides of an attachment show.
type Sight struct {
	Connected int          // slots that are kConnected, and that the master lists as SlaveBinlogSync
	Lag       *int64       // bytes, the largest of the slots; nil where one of them is not connected, or has none shown
	Stuck     schema.Slots // those that nothing but a new order heals
	Missing   string       // what the first slot that is not connected lacks, for people; empty: all are
}

// Look asks each side once. It is an error of kind precondition where a slot does not follow the master at all, or can not
// any more: no waiting changes that.
func (a *Attachment) Look(ctx context.Context, now time.Time) (Sight, error) {
	theirs, err := a.Master.TableSlots(ctx, a.Table, a.Slots)
	if err != nil {
		return Sight{}, err
	}
	ours, err := a.Follower.TableSlots(ctx, a.Table, a.Slots) // last, since what it says decides about an order
	if err != nil {
		return Sight{}, err
	}
	waits, seen := map[int]time.Time{}, Sight{Lag: new(int64)}
	for i, s := range ours {
		if err := a.broken(s, theirs[i]); err != nil {
			return Sight{}, err
		}
		r, listed := theirs[i].Replica(a.Follower.Addr())
		if s.State == StateWaitReply {
			since, waited := a.waits[s.ID]
			if !waited {
				since = now
			}
			waits[s.ID] = since
			if !listed && now.Sub(since) >= a.stuckAfter() {
				seen.Stuck = append(seen.Stuck, s.ID)
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

// Mend orders the slots that a sight shows as stuck again, those alone, and gives those that were ordered. An order that got
// no answer is an error and harmless: what it did is for the next look to tell.
func (a *Attachment) Mend(ctx context.Context, seen Sight) (schema.Slots, error) {
	if len(seen.Stuck) == 0 {
		return nil, nil
	}
	for _, id := range seen.Stuck {
		delete(a.waits, id) // whatever comes of it, it is not sent again at once
	}
	err := a.Follower.order(ctx, slotsSlaveOf(a.Table, seen.Stuck, a.Master.Addr(), false))
	if err == nil {
		return seen.Stuck, nil
	}
	e := *steps.Classify(err)
	e.Err = fmt.Errorf("order slots %s of %s to follow %s again: %w", SlotGroup(seen.Stuck), a.Follower.Addr(), a.Master.Addr(), err)
	if isAnswered(err) {
		e.Temporary = false
		e.Hint = "a slot whose master the server cannot connect to is left following nobody: look at it with pika.slot-info, and order it with pika.slotsslaveof"
	}
	return nil, &e
}
