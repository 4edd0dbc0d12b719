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

type awaitSlotsIn struct {
	Slots      schema.Slots    `yaml:"slots,required" doc:"Slots of the instance, which follow the master already."`
	Master     schema.Endpoint `yaml:"master,required" doc:"Instance that the slots follow: a pika target's name, or IP:port."`
	Force      bool            `yaml:"force" doc:"The slots were ordered with force: one whose full sync was forgotten before it began is ordered with force again, and not left with the data that was to be replaced." default:"false"`
	MaxLag     schema.Size     `yaml:"max_lag" doc:"Largest lag of a slot that counts as in step." default:"64kb"`
	Every      time.Duration   `yaml:"every" doc:"Time between two looks." default:"500ms"`
	StuckAfter time.Duration   `yaml:"stuck_after" doc:"How long a slot may be in kWaitReply before it is ordered again, where its master does not list it. The master does so for 20 s, whatever became of the slot. Five times as long where it may have to be ordered with force: its answer may only be late." default:"25s"`
	Table      int             `yaml:"table" doc:"Number of the table; 0 is db0." default:"0"`
}

type awaitSlotsOut struct {
	Connected bool         `yaml:"connected" doc:"true: every slot is kConnected, and its master lists it as SlaveBinlogSync. Otherwise the step waits, up to its timeout."`
	Lag       *int64       `yaml:"lag" doc:"Bytes that the follower had not acknowledged, as its master counts; the largest of the slots, at the last look." min:"0"`
	Mended    schema.Slots `yaml:"mended,act" doc:"Slots that were ordered again."`
}

func awaitSlots() *steps.Kind[awaitSlotsIn, awaitSlotsOut] {
	return &steps.Kind[awaitSlotsIn, awaitSlotsOut]{
		Name: "pika.await-slots",
		Doc: "Waits until slots are in step with the master that they were ordered to follow: kConnected, listed as SlaveBinlogSync, with a lag of max_lag at most. Sends PKCLUSTER INFO slot to each side once a look; " +
			"and PKCLUSTER SLOTSSLAVEOF to slots that Pika has forgotten in kWaitReply, which nothing else heals.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: followed, uses: pika.await-slots, target: pika5, with: {slots: "1", master: pika1, force: true}, timeout: 6h}`,
		Pitfalls: []string{
			"Pika 3.4 loses the answer to an order now and then where many slots are attached at once on a busy machine, also after a full sync: the slot stays in kWaitReply, its master drops it after 20 s, and neither does anything about it. Waiting with pika.slot-info alone then waits for ever.",
			"Say force where pika.slotsslaveof had it. Without it a slot whose full sync was forgotten goes on with the data that it had: right for one that is empty where the master's binlog is complete, and for one that has followed this master.",
			"The copy of a full sync that was forgotten is sent nevertheless. Where that of one slot takes longer than five times stuck_after, the new order may break it off, and the slot then waits in kWaitDBSync: none: true, wait until the master's rsync has ended, and order it again.",
			"A slot in a full sync is never ordered again, whatever it lasts: that would delete what has come. One whose full sync cannot end (rsync, the secrets) stays in kWaitDBSync until the step's timeout; so give the step one.",
			"A slot that follows nobody or somebody else, is in kError, or has a binlog that is ahead of its master's, fails the step: an instance that was started again has forgotten whom its slots follow.",
			"In step is what one look has seen. A replica that was attached too early, or without force to a master whose binlog is not complete, shows it for a moment: pika.slot-info with wait-until and stable after this tells it from one that stays.",
		},
		NothingToUndo: true,
		Valid: func(in awaitSlotsIn, unknown func(string) bool) []steps.Problem {
			p := validSlots(in.Slots, in.Table, unknown)
			if in.Every <= 0 && !unknown("every") {
				p = append(p, steps.Problem{Input: "every", Message: "some time must lie between two looks", Suggestion: "every: 500ms"})
			}
			if in.StuckAfter <= 0 && !unknown("stuck_after") {
				p = append(p, steps.Problem{Input: "stuck_after", Message: "a master lists a follower that it does not hear of for 20 s", Suggestion: "stuck_after: 25s"})
			}
			return p
		},
		Check: func(ctx context.Context, v steps.View, in awaitSlotsIn) error {
			_, err := in.look(ctx, v)
			return err
		},
		Plan:  planAwaitSlots,
		Probe: probeAwaitSlots,
		Apply: applyAwaitSlots,
	}
}

func planAwaitSlots(ctx context.Context, v *steps.View, in awaitSlotsIn) (steps.Change, error) {
	line := steps.Line{
		Target:  own(v),
		Command: redis.Line(slotsSlaveOf(in.Table, in.Slots, string(in.Master), in.Force)) + ", for those alone that stay in kWaitReply, not listed by the master",
		To:      "in step with " + string(in.Master),
	}
	if v == nil {
		return steps.Change{Lines: []steps.Line{line}}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Change{}, err
	}
	line.From = relation(slots)
	return steps.Change{Lines: []steps.Line{line}}, nil
}

func probeAwaitSlots(ctx context.Context, v steps.View, in awaitSlotsIn) (steps.State, awaitSlotsOut, error) {
	seen, err := in.look(ctx, v)
	switch {
	case isKind(err, "precondition"):
		return steps.Untouched, awaitSlotsOut{}, nil // the check says why it cannot be done
	case err != nil:
		return steps.Unclear, awaitSlotsOut{}, err
	case !in.inStep(seen):
		return steps.Untouched, awaitSlotsOut{}, nil
	}
	return steps.Done, awaitSlotsOut{Connected: true, Lag: seen.Lag}, nil
}

// look looks once, with clients that only read.
func (in awaitSlotsIn) look(ctx context.Context, v steps.View) (Sight, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return Sight{}, err
	}
	m, err := findMaster(ctx, v, c, in.Master)
	if err != nil {
		return Sight{}, err
	}
	defer m.close()
	return in.attachment(c, m).Look(ctx, v.Now())
}

func (in awaitSlotsIn) attachment(follower *Client, m master) *Attachment {
	return &Attachment{Follower: follower, Master: m.c, Table: in.Table, Slots: in.Slots, Force: in.Force, StuckAfter: in.StuckAfter}
}

func (in awaitSlotsIn) inStep(seen Sight) bool {
	return seen.Connected == len(in.Slots) && seen.Lag != nil && *seen.Lag <= int64(in.MaxLag)
}

func applyAwaitSlots(ctx context.Context, s steps.Session, in awaitSlotsIn) (awaitSlotsOut, error) {
	out := awaitSlotsOut{Mended: schema.Slots{}}
	c, err := session(ctx, s)
	if err != nil {
		return out, err
	}
	m, err := findMaster(ctx, s.View, c, in.Master)
	if err != nil {
		return out, err
	}
	defer m.close()
	a := in.attachment(c, m)
	for last := "nothing seen"; ; {
		seen, err := a.Look(ctx, s.Now())
		if err == nil {
			if in.inStep(seen) {
				out.Connected, out.Lag = true, seen.Lag
				return out, nil
			}
			last = in.missing(seen)
			s.Progress(steps.Progress{Done: float64(seen.Connected), Total: float64(len(in.Slots)), Unit: "slots", Text: last})
			err = out.mend(ctx, s.View, a, seen)
		}
		if err == nil || ctx.Err() == nil && steps.Classify(err).Temporary {
			if err != nil {
				s.Progress(steps.Progress{Text: "looks again: " + err.Error()})
			}
			err = s.Sleep(ctx, in.Every)
		}
		if err != nil {
			return out, fmt.Errorf("wait until slots %s of %s are in step with %s (last: %s): %w", SlotGroup(in.Slots), c.Addr(), m.addr, last, err)
		}
	}
}

// missing says what is still wanted.
func (in awaitSlotsIn) missing(seen Sight) string {
	switch {
	case seen.Missing != "":
		return seen.Missing
	case seen.Lag == nil:
		return "the master shows no lag"
	}
	return fmt.Sprintf("lag %d bytes", *seen.Lag)
}

// mend has forgotten slots ordered again, and says so.
func (out *awaitSlotsOut) mend(ctx context.Context, v steps.View, a *Attachment, seen Sight) error {
	mended, err := a.Mend(ctx, seen)
	if len(mended) > 0 {
		out.Mended = append(out.Mended, mended...)
		slices.Sort(out.Mended)
		out.Mended = slices.Compact(out.Mended)
		v.Progress(steps.Progress{Text: fmt.Sprintf("slots %s were left in %s, not listed by the master: ordered again", SlotGroup(mended), StateWaitReply)})
	}
	return err
}
