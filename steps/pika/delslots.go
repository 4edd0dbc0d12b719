package pika

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type delSlotsIn struct {
	Slots    schema.Slots      `yaml:"slots,required" doc:"Slots the instance is to hold no more. Those that it does not hold are no error."`
	Table    int               `yaml:"table" doc:"Number of the table; 0 is db0." default:"0"`
	ServedBy schema.TargetName `yaml:"served_by" doc:"Pika target that serves these slots now. It must hold each of them, follow nobody, and have keys in each that has keys here."`
	RoutedBy schema.TargetName `yaml:"routed_by" doc:"Target that knows where clients are sent (codis). A slot for which it names this instance is refused, and so is everything while a proxy does not answer."`
	Discard  bool              `yaml:"discard" doc:"Delete keys although no served_by is given: nobody may have them any more." default:"false"`
	Detach   bool              `yaml:"detach" doc:"Detach slots that follow a master, right after markers that were written to it have come, and delete when those are applied. Otherwise such slots are refused." default:"false"`
	Settle   time.Duration     `yaml:"settle" doc:"How long the slots must have been seen to follow nobody and to be written to by nobody before the first is deleted. It is for writes that replication has queued; slots that were never written to do not wait. At most 5 s of it after detach has seen its markers applied, and 1 s where another slot proves that nothing is queued." default:"30s"`
	Wait     time.Duration     `yaml:"wait" doc:"Longest time of each other wait: for markers to come, and to be applied; until nobody writes any more; for the server to forget replicas that have gone, which it does at once where they were detached, and after 20 s where they died or were detached in a full sync." default:"2m"`
}

type delSlotsOut struct {
	Slots schema.Slots `yaml:"slots" doc:"The slots asked for: the instance holds none of them."`
}

func delSlots() *steps.Kind[delSlotsIn, delSlotsOut] {
	return &steps.Kind[delSlotsIn, delSlotsOut]{
		Name:       "pika.delslots",
		Doc:        "Has an instance in mode sharding hold slots no more, and deletes their data at once. Sends PKCLUSTER DELSLOTS, one slot a call, when no replicated write is queued for them any more.",
		Effect:     steps.Destroy,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: clean_up, uses: pika.delslots, target: pika1, with: {slots: "1", served_by: pika5, routed_by: codis}}`,
		Pitfalls: []string{
			"The data is gone with the answer. A slot that holds keys is refused unless served_by names who serves them now, or discard is given; one without keys needs neither.",
			"A slot that follows a master is refused by the server, and one that is followed by a replica too: detach: true, and delete on the replica before its master.",
			"The server forgets a replica that was detached in a full sync, or that died, after 20 s, and says \"in syncing\" until then: it is waited for.",
			"Writes that came by replication are queued to be applied, also after the slot was detached, and lag 0 does not say that they are. A server that applies one to a slot that is gone crashes (3.4.0: SIGSEGV, with all of its other slots). Nothing shows the queue; on a busy machine it was 14 s long. So slots that nobody can tell anything of must have been still for settle. A single command that takes longer, such as LREM on a long list, may hold the queue up for longer still.",
			"Better than time is proof. Where the instance still follows a living master in any other slot, one marker key for each of its apply threads is written to such a slot at that master (SET {tag}__runner_marker:N, later DEL), and must be readable here within wait.",
			"The next best is detach: true, which writes the markers to the slots' own master right before it detaches them: what can be queued behind them is what came within milliseconds. So leave slots that are to be deleted attached, and let this step detach them.",
			"Markers go to the master at the top of the chain, with the password of the step's target, or by served_by where that is it. A master that cannot be reached so is done without.",
			"Markers that were left in a slot do not count as keys.",
			"Clients who are sent to a slot that is deleted get \"Partition not found\": name who routes them in routed_by, and the check asks every proxy.",
			"After an error the state is read: a call that was carried out is not repeated.",
		},
		Valid: func(in delSlotsIn, unknown func(string) bool) []steps.Problem {
			p := validSlots(in.Slots, in.Table, unknown)
			if in.ServedBy != "" && in.Discard && !unknown("served_by") {
				p = append(p, steps.Problem{Input: "discard", Message: "served_by says who has the keys, discard that nobody needs to: one of the two"})
			}
			if in.Table != 0 && (in.ServedBy != "" || in.RoutedBy != "") {
				p = append(p, steps.Problem{Input: "table", Message: "served_by and routed_by are about table 0 alone"})
			}
			if in.Settle < 0 {
				p = append(p, steps.Problem{Input: "settle", Message: "a time to wait is not negative"})
			}
			if in.Wait < 0 {
				p = append(p, steps.Problem{Input: "wait", Message: "a time to wait is not negative"})
			}
			return p
		},
		Check:  checkDelSlots,
		Plan:   planDelSlots,
		Probe:  probeDelSlots,
		Apply:  applyDelSlots,
		NoUndo: "the slots' data is deleted with the answer",
	}
}

func checkDelSlots(ctx context.Context, v steps.View, in delSlotsIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return err
	}
	slots = slices.DeleteFunc(slots, absent)
	if len(slots) == 0 {
		return nil
	}
	for _, s := range slots {
		if !in.Detach && s.Follows() && s.State != StateError {
			return in.refused(c, s.ID, "it follows "+s.Master+" ("+s.State+")").WithHint("detach: true has this step detach it")
		}
	}
	if err := in.unfollowed(ctx, c, slots); err != nil {
		return err
	}
	if routed, err := routedHere(ctx, v, in.RoutedBy, c, in.Slots); err != nil {
		return err
	} else if len(routed) > 0 {
		return in.refused(c, routed[0], fmt.Sprintf("%s sends clients of slots %s to this instance", in.RoutedBy, SlotGroup(routed))).
			WithHint("move the slots first")
	}
	return in.servedElsewhere(ctx, v, c, slots)
}

func (in delSlotsIn) refused(c *Client, slot int, why string) *steps.Error {
	return steps.Precondition("delete slot %d of %s: %s", slot, c.Addr(), why)
}

// unfollowed refuses slots that a living replica follows. One that is listed and follows no more, or answers no more, is
// waited for in the act, as the server forgets it by itself.
func (in delSlotsIn) unfollowed(ctx context.Context, c *Client, slots []Slot) error {
	followers := map[string]schema.Slots{}
	for _, s := range slots {
		for _, r := range s.Replicas {
			followers[r.Addr] = append(followers[r.Addr], s.ID)
		}
	}
	for addr, of := range followers {
		r := c.Beside(addr)
		theirs, err := r.TableSlots(ctx, in.Table, of)
		_ = r.Close()
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			continue
		}
		for _, s := range theirs {
			if s.Master == c.Addr() {
				return in.refused(c, s.ID, addr+" follows it ("+s.State+")").
					WithHint("delete it there first (detach: true), or have it follow nobody: pika.slotsslaveof with none: true on %s", addr)
			}
		}
	}
	return nil
}

// servedElsewhere refuses slots whose keys nobody is known to have.
func (in delSlotsIn) servedElsewhere(ctx context.Context, v steps.View, c *Client, slots []Slot) error {
	if in.Discard {
		return nil
	}
	written := ids(slots, func(s Slot) bool { return !s.Offset.IsZero() })
	if len(written) == 0 {
		return nil
	}
	full := written
	if in.Table == 0 {
		var err error
		if full, err = c.WithKeys(ctx, written); err != nil || len(full) == 0 {
			return err
		}
	}
	if in.ServedBy == "" {
		return in.refused(c, full[0], fmt.Sprintf("slots %s hold keys, and nothing says who serves them now", SlotGroup(full))).
			WithHint("served_by: the pika target that does; or discard: true, where they may be lost")
	}
	other, err := view(ctx, v, in.ServedBy)
	if err != nil {
		return err
	}
	if other.Addr() == c.Addr() {
		return steps.Precondition("delete slots of %s: served_by is the instance itself", c.Addr())
	}
	theirs, err := other.Slots(ctx, full)
	if err != nil {
		return err
	}
	for _, s := range theirs {
		switch {
		case !s.Present:
			return in.refused(c, s.ID, fmt.Sprintf("it holds keys, and %s (%s) does not hold the slot", in.ServedBy, other.Addr()))
		case s.Follows():
			return in.refused(c, s.ID, fmt.Sprintf("it holds keys, and %s (%s) does not serve the slot: it follows %s", in.ServedBy, other.Addr(), s.Master))
		}
	}
	have, err := other.WithKeys(ctx, full)
	if err != nil {
		return err
	}
	for _, id := range full {
		if !slices.Contains(have, id) {
			return in.refused(c, id, fmt.Sprintf("it holds keys, and %s (%s) has none in it", in.ServedBy, other.Addr())).
				WithHint("compare the two with redis.compare")
		}
	}
	return nil
}

func planDelSlots(ctx context.Context, v *steps.View, in delSlotsIn) (steps.Change, error) {
	if v == nil {
		lines := []steps.Line{{Command: redis.Line(delSlotsCommand(in.Table, in.Slots)), To: "deleted"}}
		if in.Detach {
			lines = slices.Insert(lines, 0, steps.Line{Command: redis.Line(slotsSlaveOf(in.Table, in.Slots, "", false)), To: "follow nobody"})
		}
		return steps.Change{Lines: lines}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Change{}, err
	}
	held := ids(slots, func(s Slot) bool { return s.Present })
	if len(held) == 0 {
		return steps.Change{Lines: []steps.Line{{Target: own(v), Command: redis.Line(delSlotsCommand(in.Table, in.Slots)), From: "absent", To: "absent"}}}, nil
	}
	from := fmt.Sprintf("%d slots held, %d of them written", len(held), len(ids(slots, func(s Slot) bool { return s.Present && !s.Offset.IsZero() })))
	var lines []steps.Line
	masters, err := c.markedMasters(ctx, in)
	if err != nil {
		return steps.Change{}, err
	}
	if len(masters) > 0 {
		lines = append(lines, steps.Line{Command: fmt.Sprintf("SET {tag}%sN, one for each apply thread, in one slot of %s; DEL", markerName, strings.Join(masters, " or "))})
	}
	if following := ids(slots, Slot.Follows); in.Detach && len(following) > 0 {
		lines = append(lines, steps.Line{Target: own(v), Command: redis.Line(slotsSlaveOf(in.Table, following, "", false)), From: relation(slots), To: "follow nobody"})
	}
	lines = append(lines, steps.Line{Target: own(v), Command: redis.Line(delSlotsCommand(in.Table, held)), From: from, To: "deleted, one a call"})
	return steps.Change{Lines: lines}, nil
}

// markedMasters gives those that the instance follows in slots that stay, or that this step detaches: markers go to one of
// them, or to the one that it follows itself.
func (c *Client) markedMasters(ctx context.Context, in delSlotsIn) ([]string, error) {
	held, err := c.HeldSlots(ctx, 0)
	if err != nil {
		return nil, err
	}
	masters := map[string]bool{}
	for _, s := range held {
		if s.State == StateConnected && (in.Detach || in.Table != 0 || !slices.Contains(in.Slots, s.ID)) {
			masters[s.Master] = true
		}
	}
	return slices.Sorted(maps.Keys(masters)), nil
}

func probeDelSlots(ctx context.Context, v steps.View, in delSlotsIn) (steps.State, delSlotsOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, delSlotsOut{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Unclear, delSlotsOut{}, err
	}
	return some(len(ids(slots, absent)), len(slots)), delSlotsOut{Slots: in.Slots}, nil
}

func applyDelSlots(ctx context.Context, s steps.Session, in delSlotsIn) (delSlotsOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return delSlotsOut{}, err
	}
	if err := (drain{c: c, table: in.Table, slots: in.Slots, detach: in.Detach, settle: in.Settle, wait: in.Wait, known: in.ServedBy}).run(ctx, s); err != nil {
		return delSlotsOut{}, err
	}
	ch := change{c: c, table: in.Table, wanted: in.Slots, left: func(s Slot) bool { return s.Present }, command: delSlotsCommand, together: 1, patience: in.Wait, doing: "delete"}
	return delSlotsOut{Slots: in.Slots}, ch.run(ctx, s.View)
}
