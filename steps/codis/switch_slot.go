package codis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/pika"
)

type switchIn struct {
	Slots       schema.Slots      `yaml:"slots,required" doc:"Slots to switch, all of one group; they are switched together, so clients of all of them wait for the slowest. 64 at most are advised: waves(inputs.slots, [1, \"10%\", \"100%\"], 64)."`
	ToGroup     int               `yaml:"to_group,required" doc:"Group that shall serve them." min:"1"`
	Source      schema.TargetName `yaml:"source,required" doc:"The first server of the group that serves them now, with the address that Codis has for it."`
	Destination schema.TargetName `yaml:"destination,required" doc:"The first server of to_group; it follows the source in every one of the slots."`
	MaxPause    time.Duration     `yaml:"max_pause" default:"2s" doc:"Longest time that clients of the slots may wait, from the first hold on. What cannot be done by then is put back. It must be shorter than the shortest time-out of a client."`
	MaxLag      schema.Size       `yaml:"max_lag" default:"64kb" doc:"Largest lag with which clients are made to wait at all."`
	CatchUp     time.Duration     `yaml:"catch_up" default:"1m" doc:"Longest time to wait, before the first client has to, until the destination is in step: a slot that Pika has forgotten in kWaitReply is ordered again after 25s."`
	Coordinator schema.TargetName `yaml:"coordinator" doc:"A zookeeper target from which the mapping is read while the dashboard is dead; the ZooKeeper that the dashboard names, where none is given."`
}

type switchOut struct {
	Pause  *time.Duration `yaml:"pause,act" doc:"From the first hold until the last route was changed: no client has waited longer, where no process stood still." min:"0"`
	Phases []phase        `yaml:"phases,act" doc:"The parts of the pause, in order, and the look at the routes after it."`
	Slots  schema.Slots   `yaml:"slots" doc:"The slots that the group serves now."`
	Group  int            `yaml:"group" doc:"The group."`
}

func switchSlot() *steps.Kind[switchIn, switchOut] {
	return &steps.Kind[switchIn, switchOut]{
		Name: "codis.switch-slot",
		Doc: "Moves slots of Pika 3.2 to 3.4 (sharding mode) to another group without losing an acknowledged write: every proxy " +
			"holds the clients of the slots (PUT /api/proxy/fillslots), the destination gets and applies the last write, the source is fenced " +
			"behind it, it becomes master, and the dashboard maps the slots to its group (PUT slots/assign). The slots must follow the source already " +
			"(pika.slotsslaveof). Afterwards the old side follows the new one, which is the way back, until it is cleaned up.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Retry:      &steps.Retry{Attempts: 1},
		Example:    `{id: switch, uses: codis.switch-slot, target: codis, with: {slots: "1", to_group: 3, source: pika1, destination: pika5, max_pause: 2s}}`,
		Pitfalls: []string{
			"Codis' own slot action loses writes with Pika 3.2 to 3.4: it is finished as soon as the destination is not listed as a replica, whatever the reason.",
			"A lag of 0 says that the destination has the binlog, not that it has applied it: a marker through each of its threads does.",
			"A proxy that joins, one that is told to start anew, or a resync of the group opens a hold: the fence turns a write that slips through into an error, and the offsets show it.",
			"A request to hold that got no answer may be carried out later than the one to release: releases are repeated and read back until the proxy has read open twice.",
			"A client that gives up while it waits has its write carried out afterwards: max_pause must be below the shortest client time-out.",
			"An assignment overwrites an action of the slot without a word: slots under an action are refused.",
		},
		Valid: validSwitch,
		Check: checkSwitch,
		Plan:  planSwitch,
		Probe: probeSwitch,
		Apply: applySwitch,
		Undo:  undoSwitch,
		UndoPlan: func(in switchIn) string {
			return fmt.Sprintf("switch slots %s back to %s, which follows the new side, with the same holds and checks", in.Slots, in.Source)
		},
		Guard: guardSwitch,
	}
}

func validSwitch(in switchIn, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	if in.Source == in.Destination && !unknown("source") && !unknown("destination") {
		p = append(p, steps.Problem{Input: "destination", Message: "source and destination are one target"})
	}
	if in.MaxPause < 100*time.Millisecond && !unknown("max_pause") {
		p = append(p, steps.Problem{Input: "max_pause", Message: "less than 100ms is less than the proxies need to answer", Suggestion: "max_pause: 2s"})
	}
	if len(in.Slots) == 0 && !unknown("slots") {
		p = append(p, steps.Problem{Input: "slots", Message: "no slots are named"})
	}
	return p
}

// planned gives the switch as it was journaled, or as it would be begun now. The journaled one
// is good while servers are gone; both go together where they can.
func planned(ctx context.Context, v steps.View, in switchIn) (p switchPlan, recorded bool, err error) {
	recorded, err = v.Before(&p)
	if err != nil || !recorded {
		if err == nil {
			p, err = survey(ctx, v, in)
		}
		return p, false, err
	}
	p.MaxPause = in.MaxPause
	return p, true, nil
}

func checkSwitch(ctx context.Context, v steps.View, in switchIn) error {
	p, recorded, err := planned(ctx, v, in)
	if err != nil {
		return err
	}
	h, err := joinView(ctx, v, p)
	if err != nil {
		return err
	}
	if recorded && p.judge(h.look(ctx)).way() != wayNone {
		return nil // an earlier attempt was cut off: Apply settles that first, and checks then
	}
	// What comes into step by itself is waited for by Apply.
	return h.preflight(ctx, anyLag)
}

func planSwitch(ctx context.Context, v *steps.View, in switchIn) (steps.Change, error) {
	p := switchPlan{Slots: in.Slots, To: in.ToGroup, Source: serverOf{Target: string(in.Source), Addr: string(in.Source)}, Destination: serverOf{Target: string(in.Destination), Addr: string(in.Destination)}}
	change := steps.Change{Pause: in.MaxPause.String()}
	if v != nil {
		var err error
		if p, _, err = planned(ctx, *v, in); err != nil {
			return change, err
		}
		change.Before = p
	}
	group := ""
	if p.From != 0 {
		group = fmt.Sprintf("group %d", p.From)
	}
	slots := p.Slots.String()
	change.Lines = []steps.Line{
		{Command: "each proxy: PUT /api/proxy/fillslots/<xauth> slots " + slots + ", locked", From: "open", To: "held"},
		{Target: p.Source.Target, Command: "SET {tag}__runner_marker:N, one for each apply thread; read on " + p.Destination.Target},
		{Target: p.Source.Target, Command: "pkcluster slotsslaveof " + p.Destination.Addr + " " + slots, From: "master", To: "fenced behind " + p.Destination.Target},
		{Target: p.Destination.Target, Command: "pkcluster slotsslaveof no one " + slots, From: "replica of " + p.Source.Target, To: "master"},
		{Command: fmt.Sprintf("PUT /api/topom/slots/assign/<xauth> slots %s to group %d", slots, p.To), From: group, To: fmt.Sprintf("group %d", p.To)},
	}
	return change, nil
}

func probeSwitch(ctx context.Context, v steps.View, in switchIn) (steps.State, switchOut, error) {
	p, recorded, err := planned(ctx, v, in)
	if err != nil {
		return steps.Unclear, switchOut{}, err
	}
	h, err := joinView(ctx, v, p)
	if err != nil {
		return steps.Unclear, switchOut{}, err
	}
	h.assigned, h.fenced = maybeAssigned, true // whoever began it may have asked
	j := p.judge(h.look(ctx))
	switch {
	case j.switched():
		return steps.Done, switchOut{Slots: p.Slots, Group: p.To}, nil
	case !recorded: // nothing was asked for by this step: what is wrong is for Check to say
		return steps.Untouched, switchOut{}, nil
	case j.way() == wayDoubt:
		return steps.Unclear, switchOut{}, h.doubt(j)
	case len(j.in(rowReplicating, rowApart)) == len(j.rows):
		return steps.Untouched, switchOut{}, nil
	}
	return steps.Partial, switchOut{}, nil
}

func applySwitch(ctx context.Context, s steps.Session, in switchIn) (switchOut, error) {
	p, _, err := planned(ctx, s.View, in)
	if err != nil {
		return switchOut{}, err
	}
	return p.carryOut(ctx, s, in)
}

// undoSwitch is the same switch the other way round: the fence has kept the old side in step.
func undoSwitch(ctx context.Context, s steps.Session, in switchIn, _ *switchOut) error {
	p, _, err := planned(ctx, s.View, in)
	if err != nil {
		return err
	}
	h, err := joinSession(ctx, s, p)
	if err != nil {
		return err
	}
	j, err := h.rest(ctx)
	if err != nil {
		return err
	}
	p.Slots = j.in(rowDone)
	if len(p.Slots) == 0 {
		return nil // they were never away, or are back
	}
	p.From, p.To = p.To, p.From
	p.Source, p.Destination = p.Destination, p.Source
	_, err = p.carryOut(ctx, s, in)
	return err
}

// inStep waits, before the first client has to, until everything is ready for a switch. Soon after a switch the way
// back is: the fence connects when its new master, which stops being a replica at that moment, can take it.
func (h *hold) inStep(ctx context.Context, in switchIn) error {
	follows := pika.Attachment{Follower: h.dest, Master: h.source, Slots: h.plan.Slots}
	for until := h.v.Now().Add(in.CatchUp); ; {
		err := h.preflight(ctx, int64(in.MaxLag))
		if err == nil {
			err = h.swift(ctx)
		}
		if err == nil || h.v.Now().After(until) || h.preflight(ctx, anyLag) != nil {
			return err
		}
		h.v.Progress(steps.Progress{Text: "waits until the destination is in step: " + err.Error()})
		h.mend(ctx, &follows)
		if err := h.v.Sleep(ctx, settlePause); err != nil {
			return err
		}
	}
}

// swift sends markers through the destination while nobody waits: its threads may be half a minute behind what it has
// acknowledged, where it is a busy master itself, and clients would be held for that in vain.
func (h *hold) swift(ctx context.Context) error {
	limit := h.plan.MaxPause / 4
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("more than %s", limit))
	defer cancel()
	err := h.mark(limited)
	if err == nil || ctx.Err() != nil || limited.Err() == nil {
		return err
	}
	e := steps.Precondition("switch of slots %s from group %d to group %d: %s applies what it has acknowledged late: %w", h.plan.Slots, h.plan.From, h.plan.To, h.plan.Destination.Target, context.Cause(limited))
	e.Temporary = true
	return e.WithHint("a thread of it is busy: a huge command, a full sync from it, a machine short of processors; a larger max_pause lets clients wait for it")
}

// mend has slots that Pika has forgotten ordered again. What else is wrong with it the preflight says.
func (h *hold) mend(ctx context.Context, follows *pika.Attachment) {
	seen, err := follows.Look(ctx, h.v.Now())
	if err != nil {
		return
	}
	mended, err := follows.Mend(ctx, seen)
	if err != nil {
		h.v.Log().Warn("order forgotten slots again", "error", err)
	}
	if len(mended) > 0 {
		h.v.Progress(steps.Progress{Text: fmt.Sprintf("slots %s of %s were left in %s: ordered again", mended, h.plan.Destination.Target, pika.StateWaitReply)})
	}
}

// settleTime is how long the runner itself tries to bring an aborted switch to a safe end,
// before it leaves that to the guardian.
const settleTime = 5 * time.Second

// carryOut switches what is not switched yet, after settling what an earlier attempt has left.
func (p switchPlan) carryOut(ctx context.Context, s steps.Session, in switchIn) (switchOut, error) {
	out := switchOut{Slots: p.Slots, Group: p.To}
	h, err := joinSession(ctx, s, p)
	if err != nil {
		return out, err
	}
	j, err := h.rest(ctx)
	if err != nil || j.switched() {
		return out, err
	}
	h.plan.Slots = j.in(rowReplicating, rowApart)
	if err := h.inStep(ctx, in); err != nil {
		h.forgetMarkers(ctx, judgement{})
		return out, err
	}
	guardian, err := s.Watch(ctx, steps.Watch{Plan: h.plan, Targets: h.plan.targets(), Limit: h.plan.MaxPause + 20*time.Second})
	if err != nil {
		return out, err
	}
	h.announce = guardian.Tell
	safe := false
	defer func() {
		if safe {
			guardian.Dismiss()
		} else { // also where this panics: somebody must let the clients go
			_ = guardian.Yield(ctx)
		}
	}()
	pause, phases, failure := h.move(ctx)
	switch {
	case failure == nil:
		safe = true
		h.forgetMarkers(ctx, judgement{rows: map[int]row{h.plan.Slots[0]: rowDone}})
		out.Pause, out.Phases = &pause, phases
		return out, nil
	case h.began.IsZero():
		safe = true
		return out, failure
	}
	j, err = h.abort(ctx)
	var stuck *stuckError
	if errors.As(err, &stuck) {
		// The guardian has all the time there is, and two must not act: this one only waits.
		_ = guardian.Yield(ctx)
		look, cancel := h.patience(ctx)
		defer cancel()
		if j = h.plan.judge(h.look(look)); j.way() != wayNone {
			return out, err
		}
		err = nil
	}
	safe = true
	if err != nil {
		return out, err
	}
	waited := h.v.Now().Sub(h.began).Round(fine)
	if j.switched() {
		out.Pause, out.Phases = &waited, append(phases, phase{"settle", waited - sum(phases)})
		return out, nil
	}
	return out, h.putBack(failure, waited)
}

func (p switchPlan) targets() []string {
	names := []string{p.Source.Target, p.Destination.Target}
	if p.Coordinator.Target != "" {
		names = append(names, p.Coordinator.Target)
	}
	return names
}

func sum(phases []phase) (d time.Duration) {
	for _, p := range phases {
		d += p.Duration
	}
	return d
}

// rest settles what an earlier attempt has left, if any. Whoever began it took with it what it knew of answers that
// did not come: every proxy's hold may still come, and so may an assignment.
func (h *hold) rest(ctx context.Context) (judgement, error) {
	j := h.plan.judge(h.look(ctx))
	if j.way() == wayNone {
		return j, nil
	}
	h.assigned, h.fenced = maybeAssigned, true
	for _, p := range h.proxies {
		h.late[p.Token()] = true
	}
	limited, cancel := context.WithTimeoutCause(ctx, restTime, errors.New("not settled within "+restTime.String()))
	defer cancel()
	return h.settleFor(ctx, limited)
}

// restTime is how long settling what others have left may take: nobody else does it, and clients wait.
const restTime = 2 * time.Minute

// abort lets the clients go and settles the rest. Until the destination was detached it is not
// spoken to first: what made the switch fail may be that it hangs.
func (h *hold) abort(ctx context.Context) (judgement, error) {
	limited, cancel := h.patience(ctx)
	defer cancel()
	if !h.detached {
		if h.fenced {
			_ = h.order(limited, func(ctx context.Context) error { return h.source.SlotsDetach(ctx, h.plan.Slots) })
		}
		h.openNow(limited)
	}
	return h.settleFor(ctx, limited)
}

// patience is a time to settle in that goes on, for a while, when ctx is over.
func (h *hold) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), settleTime, errors.New("not settled within "+settleTime.String()))
}

// settleFor settles within limited, and says what stands in the way where that is too short.
func (h *hold) settleFor(ctx, limited context.Context) (judgement, error) {
	j, err := h.settle(limited)
	if err != nil && steps.Classify(err).Kind != steps.KindDoubt {
		err = h.stuck(ctx, err)
	}
	return j, err
}

// putBack is the error of a switch that was ended and put back: it is known how things stand.
func (h *hold) putBack(why error, waited time.Duration) error {
	e := &steps.Error{Kind: "aborted", Temporary: true, Err: fmt.Errorf("switch of slots %s from group %d to group %d was put back, clients waited %s: %w",
		h.plan.Slots, h.plan.From, h.plan.To, waited.Round(time.Millisecond), why)}
	if c := steps.Classify(why); c.Hint != "" {
		e.Hint = c.Hint
	}
	return e
}

// guardSwitch is what the guardian does once the runner is gone: the same table, from what
// can be seen, for as long as it takes.
func guardSwitch(ctx context.Context, s steps.Session, plan json.RawMessage, told []string) error {
	var p switchPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if !slices.Contains(told, toldHold) {
		return nil // no client was made to wait
	}
	h, err := joinSession(ctx, s, p)
	if err != nil {
		return err
	}
	for _, px := range h.proxies {
		h.late[px.Token()] = true
	}
	h.fenced = slices.Contains(told, toldFence)
	if slices.Contains(told, toldAssign) {
		h.assigned = maybeAssigned
	}
	h.began = h.v.Now()
	j, err := h.settle(ctx)
	if err == nil {
		h.v.Log().Info("settled", "slots", j.String())
	}
	return err
}
