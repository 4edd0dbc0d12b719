package pika

import (
	"context"
	"fmt"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// change adds or deletes slots until none is left. An instance carries out one such call at a time, refuses the
// next while it does, and refuses a whole call because of one slot; so what is left is read again after
// every refusal, and the way on depends on what is there, never on what was answered.
type change struct {
	c        *Client
	table    int
	wanted   schema.Slots
	left     func(Slot) bool // tells a slot that is still to be changed
	command  func(table int, slots schema.Slots) []string
	together int           // slots a call
	pause    time.Duration // between calls
	patience time.Duration // how long a refusal that may pass is waited out; 0: as long as a call may take
	doing    string        // add, delete
}

// busyPoll is how often a refused call is tried again.
const busyPoll = 250 * time.Millisecond

func (ch change) run(ctx context.Context, v steps.View) error {
	patience := ch.patience
	if patience <= 0 {
		patience = changeLimit
	}
	left, err := ch.unchanged(ctx)
	if err != nil {
		return err
	}
	all := len(left)
	for stuck := v.Now(); len(left) > 0; {
		now := left[:min(ch.together, len(left))]
		_, err := ch.c.DoWithin(ctx, changeLimit, ch.command(ch.table, now)...)
		if err == nil {
			left, stuck = left[len(now):], v.Now()
			v.Progress(steps.Progress{Done: float64(all - len(left)), Total: float64(all), Unit: "slots"})
			if len(left) > 0 && ch.pause > 0 {
				if err := v.Sleep(ctx, ch.pause); err != nil {
					return ch.stopped(left, err)
				}
			}
			continue
		}
		if !isKind(err, "busy", "exists", "absent") {
			return err
		}
		if v.Now().Sub(stuck) > patience {
			return fmt.Errorf("%s slots of %s: %s left after %s: %w", ch.doing, ch.c.Addr(), SlotGroup(left), patience, err)
		}
		v.Progress(steps.Progress{Text: "waits: " + err.Error()})
		if err := v.Sleep(ctx, busyPoll); err != nil {
			return ch.stopped(left, err)
		}
		before := len(left)
		if left, err = ch.unchanged(ctx); err != nil {
			return err
		}
		if len(left) < before {
			stuck = v.Now()
		}
	}
	return ch.verify(ctx)
}

// stopped is the error of a change that was told to stop between two calls.
func (ch change) stopped(left schema.Slots, err error) error {
	return fmt.Errorf("%s slots of %s: %s left: %w", ch.doing, ch.c.Addr(), SlotGroup(left), err)
}

func (ch change) unchanged(ctx context.Context) (schema.Slots, error) {
	slots, err := ch.c.TableSlots(ctx, ch.table, ch.wanted)
	if err != nil {
		return nil, err
	}
	return ids(slots, ch.left), nil
}

// verify looks once more: OK has been said of calls that another one has undone since.
func (ch change) verify(ctx context.Context) error {
	left, err := ch.unchanged(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return steps.Errorf("conflict", "%s on %s was answered with OK, and is not so for slots %s", redis.Line(ch.command(ch.table, ch.wanted)), ch.c.Addr(), SlotGroup(left)).
			WithHint("somebody else changes slots there at the same time")
	}
	return nil
}
