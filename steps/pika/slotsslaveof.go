package pika

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type slotsSlaveOfIn struct {
	Slots  schema.Slots    `yaml:"slots,required" doc:"Slots of the instance, which must hold them."`
	Master schema.Endpoint `yaml:"master" doc:"Instance that the slots are to follow: a pika target's name, or IP:port. It must hold the slots."`
	None   bool            `yaml:"none" doc:"Follow nobody: the slots become masters that take writes, and keep their data." default:"false"`
	Force  bool            `yaml:"force" doc:"Replace the slots' data by a full sync from the master. Right for slots that are new here, unless the master is new too." default:"false"`
	Resume bool            `yaml:"resume" doc:"The slots have the history of this master, and nobody else has written to them: they followed it before a restart, or both followed the same master. Go on where their binlog ends; it must not be ahead of the master's. The caller answers for the rest." default:"false"`
	Table  int             `yaml:"table" doc:"Number of the table; 0 is db0." default:"0"`
}

type slotsSlaveOfOut struct {
	Slots  schema.Slots `yaml:"slots" doc:"The slots asked for."`
	Master string       `yaml:"master" doc:"IP:port of the master that they all follow, in whatever state; empty: they follow nobody."`
}

// followed is what undoing needs: whom each slot followed, and how far it had come.
type followed struct {
	Slots []slotFollowed `json:"slots"`
}

type slotFollowed struct {
	Slot   int    `json:"slot"`
	Master string `json:"master"`
	State  string `json:"state,omitempty"`
}

func slotsSlaveOfKind() *steps.Kind[slotsSlaveOfIn, slotsSlaveOfOut] {
	return &steps.Kind[slotsSlaveOfIn, slotsSlaveOfOut]{
		Name: "pika.slotsslaveof",
		Doc: "Has slots of an instance follow those of another, or with none: true nobody. Sends PKCLUSTER SLOTSSLAVEOF once, for those slots that do not follow that master yet. " +
			"It does not wait until they have caught up: that is what pika.slot-info with wait-until is for.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: follow, uses: pika.slotsslaveof, target: pika5, with: {slots: "1", master: pika1, force: true}}`,
		Pitfalls: []string{
			"OK means that the order was accepted. Slots that follow the master already, in whatever state, are never ordered again: an order in the middle of a full sync deletes what has come and leaves the slot in kWaitDBSync for ever.",
			"A slot that was written to is refused without force: its binlog may happen to end where a record of the master's ends, and then it is taken for a replica that has all, and is none. resume is the caller's word that it was written by this master alone.",
			"Without force a slot that is empty is filled from the master's binlog. Where that is not complete, because the master was itself filled by a full sync or has purged files, the slot says kConnected at offset 0 0 and stays empty: use force. A master that itself follows another needs it.",
			"A replica that is attached while its master is in a full sync is dropped silently, and flaps between kConnected and kTryConnect without data. So every master up the chain must be connected and listed by its own before this one is ordered.",
			"A slot that has replicas of its own is refused where it may be filled by a full sync: they would be dropped. Attach them afterwards.",
			"kWaitDBSync and kWaitReply never time out. Should one not move on: none: true, wait 25 s, find the cause (rsync, the secrets, the master's log), and order it again with force.",
			"none: true makes the slot writable at once. Where it is the master's only replica in sync, the master then has none; and writes that its master answers after this are missing here: hold the writers first (codis.switch-slot does).",
			"In a range a failure may leave some slots changed and some not: each is looked at again, and a repetition orders only those that do not follow.",
			"Replication is forgotten at a restart: every slot is then a master that takes writes.",
		},
		Valid: validSlotsSlaveOf,
		Check: checkSlotsSlaveOf,
		Plan:  planSlotsSlaveOf,
		Probe: probeSlotsSlaveOf,
		Apply: applySlotsSlaveOf,
		Undo:  undoSlotsSlaveOf,
		UndoPlan: func(in slotsSlaveOfIn) string {
			return "PKCLUSTER SLOTSSLAVEOF the master before, or no one, " + SlotGroup(in.Slots)
		},
	}
}

func validSlotsSlaveOf(in slotsSlaveOfIn, unknown func(string) bool) []steps.Problem {
	p := validSlots(in.Slots, in.Table, unknown)
	switch {
	case unknown("master") || unknown("none"):
	case (in.Master != "") == in.None:
		p = append(p, steps.Problem{Message: "exactly one of master and none: true is wanted"})
	case in.None && (in.Force || in.Resume):
		p = append(p, steps.Problem{Input: "none", Message: "force and resume are about following a master"})
	}
	if in.Force && in.Resume {
		p = append(p, steps.Problem{Input: "resume", Message: "force replaces the data, resume goes on with it: one of the two"})
	}
	return p
}

// toFollow tells a slot that must be ordered to follow addr. One that is in error follows in name alone.
func toFollow(addr string) func(Slot) bool {
	return func(s Slot) bool { return s.Master != addr || s.State == StateError }
}

func checkSlotsSlaveOf(ctx context.Context, v steps.View, in slotsSlaveOfIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return err
	}
	if in.None {
		return nil
	}
	m, err := findMaster(ctx, v, c, in.Master)
	if err != nil {
		return err
	}
	defer m.close()
	order := slices.DeleteFunc(slots, func(s Slot) bool { return !toFollow(m.addr)(s) })
	if len(order) == 0 {
		return nil
	}
	if err := in.fit(c, m.addr, order); err != nil {
		return err
	}
	if err := in.masterReady(ctx, c, m, order); err != nil {
		return err
	}
	return checkSecrets(ctx, c, m.c)
}

func (in slotsSlaveOfIn) refused(c *Client, addr string, slot int, format string, a ...any) *steps.Error {
	return steps.Precondition("make slot %d of %s follow %s: %s", slot, c.Addr(), addr, fmt.Sprintf(format, a...))
}

// fit refuses slots that would end otherwise than as replicas with all of the master's data.
func (in slotsSlaveOfIn) fit(c *Client, addr string, order []Slot) error {
	for _, s := range order {
		switch {
		case !s.Present:
			return in.refused(c, addr, s.ID, "the instance does not hold the slot").WithHint("pika.addslots first")
		case s.Master == addr && !in.Force: // in error
			return in.refused(c, addr, s.ID, "it follows it and is in kError, which ends by a full sync alone").WithHint("force: true replaces the slot's data")
		case s.InFullSync():
			return in.refused(c, addr, s.ID, "a full sync from %s is under way (%s)", s.Master, s.State).
				WithHint("wait for its end; or pika.slotsslaveof with none: true, wait 25 s, and order it anew")
		case len(s.Replicas) > 0 && (in.Force || !s.Follows() && !in.Resume):
			return in.refused(c, addr, s.ID, "%s follows this slot, and would be dropped by a full sync", s.Replicas[0].Addr).
				WithHint("detach it with none: true, and attach it again when this one has caught up")
		case !s.Offset.IsZero() && s.Follows() && s.Master != addr && !in.Force && !in.Resume:
			return in.refused(c, addr, s.ID, "it follows %s, and has its history, which may not be the new master's", s.Master).
				WithHint("resume: true goes on with it, where the new master has followed the same one; force: true replaces its data")
		case !s.Offset.IsZero() && !s.Follows() && !in.Force && !in.Resume:
			return in.refused(c, addr, s.ID, "it has a binlog of its own (at %s)", s.Offset).
				WithHint("force: true replaces its data; resume: true goes on with it, where it has followed this master before and nobody has written to it since")
		}
	}
	return nil
}

// masterReady asks the master, and those it follows itself, whether a replica that is attached now gets all data.
func (in slotsSlaveOfIn) masterReady(ctx context.Context, c *Client, m master, order []Slot) error {
	all := func(Slot) bool { return true }
	theirs, err := m.c.TableSlots(ctx, in.Table, ids(order, all))
	if err != nil {
		return err
	}
	above := map[string]schema.Slots{}
	for i, t := range theirs {
		switch {
		case !t.Present:
			return in.refused(c, m.addr, t.ID, "that does not hold the slot, so the order would wait for ever").WithHint("is it the right master?")
		case t.Master == c.Addr():
			return in.refused(c, m.addr, t.ID, "that follows this slot")
		case in.Resume && t.Offset.Less(order[i].Offset):
			return in.refused(c, m.addr, t.ID, "its binlog is ahead of the master's (%s, not %s)", order[i].Offset, t.Offset).
				WithHint("it was written to since: force: true replaces its data")
		case !t.Follows():
		case t.State != StateConnected:
			return in.refused(c, m.addr, t.ID, "that has not caught up with its own master %s (%s)", t.Master, t.State).
				WithHint("wait for it first, with pika.slot-info")
		case !in.Force && !in.Resume && !t.Offset.IsZero() && order[i].Offset.IsZero():
			return in.refused(c, m.addr, t.ID, "that follows %s itself, and may have been filled by a full sync: its binlog then does not begin at the beginning", t.Master).
				WithHint("force: true")
		default:
			above[t.Master] = append(above[t.Master], t.ID)
		}
	}
	for addr, of := range above {
		if err := in.listed(ctx, c, m, addr, of); err != nil {
			return err
		}
	}
	return nil
}

// listed asks the master's master whether it has the master in sync: the master itself says kConnected too early.
func (in slotsSlaveOfIn) listed(ctx context.Context, c *Client, m master, above string, of schema.Slots) error {
	top := m.c.Beside(above)
	defer func() { _ = top.Close() }()
	slots, err := top.TableSlots(ctx, in.Table, of)
	if err != nil {
		return err
	}
	for _, s := range slots {
		if r, ok := s.Replica(m.addr); !ok || r.Status != BinlogSync {
			return in.refused(c, m.addr, s.ID, "its own master %s does not list it as %s", above, BinlogSync).
				WithHint("wait for it first, with pika.slot-info")
		}
	}
	return nil
}

func planSlotsSlaveOf(ctx context.Context, v *steps.View, in slotsSlaveOfIn) (steps.Change, error) {
	if v == nil {
		cmd := slotsSlaveOf(in.Table, in.Slots, string(in.Master), in.Force)
		return steps.Change{Lines: []steps.Line{{Command: redis.Line(cmd), To: in.words()}}}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Change{}, err
	}
	addr := ""
	if !in.None {
		m, err := findMaster(ctx, *v, c, in.Master)
		if err != nil {
			return steps.Change{}, err
		}
		m.close()
		addr = m.addr
	}
	before := followed{Slots: make([]slotFollowed, len(slots))}
	for i, s := range slots {
		before.Slots[i] = slotFollowed{Slot: s.ID, Master: s.Master, State: s.State}
	}
	order := in.ordered(slots, addr)
	if len(order) == 0 {
		order = in.Slots
	}
	line := steps.Line{Target: own(v), Command: redis.Line(slotsSlaveOf(in.Table, order, addr, in.Force)), From: relation(slots), To: in.words()}
	return steps.Change{Lines: []steps.Line{line}, Before: before}, nil
}

// ordered gives the slots to which the order is sent.
func (in slotsSlaveOfIn) ordered(slots []Slot, addr string) schema.Slots {
	if in.None {
		return ids(slots, Slot.Follows)
	}
	return ids(slots, toFollow(addr))
}

func (in slotsSlaveOfIn) words() string {
	switch {
	case in.None:
		return "follow nobody"
	case in.Force:
		return "follow " + string(in.Master) + ", by a full sync"
	}
	return "follow " + string(in.Master)
}

// relation says whom slots follow.
func relation(slots []Slot) string {
	count := map[string]int{}
	var order []string
	for _, s := range slots {
		word := "follows nobody"
		switch {
		case !s.Present:
			word = "absent"
		case s.Follows():
			word = "follows " + s.Master + " " + s.State
		}
		if count[word] == 0 {
			order = append(order, word)
		}
		count[word]++
	}
	if len(order) == 1 {
		return order[0]
	}
	for i, word := range order {
		order[i] = fmt.Sprintf("%d: %s", count[word], word)
	}
	return strings.Join(order, "; ")
}

func probeSlotsSlaveOf(ctx context.Context, v steps.View, in slotsSlaveOfIn) (steps.State, slotsSlaveOfOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, slotsSlaveOfOut{}, err
	}
	addr := ""
	if !in.None {
		m, err := findMaster(ctx, v, c, in.Master)
		if err != nil {
			return steps.Unclear, slotsSlaveOfOut{}, err
		}
		m.close()
		addr = m.addr
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return steps.Unclear, slotsSlaveOfOut{}, err
	}
	left := len(in.ordered(slots, addr))
	return some(len(slots)-left, len(slots)), slotsSlaveOfOut{Slots: in.Slots, Master: addr}, nil
}

func applySlotsSlaveOf(ctx context.Context, s steps.Session, in slotsSlaveOfIn) (slotsSlaveOfOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return slotsSlaveOfOut{}, err
	}
	addr := ""
	if !in.None {
		m, err := findMaster(ctx, s.View, c, in.Master)
		if err != nil {
			return slotsSlaveOfOut{}, err
		}
		m.close()
		addr = m.addr
	}
	slots, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return slotsSlaveOfOut{}, err
	}
	if order := in.ordered(slots, addr); len(order) > 0 {
		if err := in.send(ctx, c, order, addr); err != nil {
			return slotsSlaveOfOut{}, err
		}
	}
	return slotsSlaveOfOut{Slots: in.Slots, Master: addr}, nil
}

// send gives the order, and looks whether every slot has taken it: a range that fails half-way changes some.
func (in slotsSlaveOfIn) send(ctx context.Context, c *Client, order schema.Slots, addr string) error {
	cmd := slotsSlaveOf(in.Table, order, addr, in.Force)
	sent := c.order(ctx, cmd)
	if sent != nil && !isAnswered(sent) {
		return sent // what it did is for the probe to find
	}
	now, err := c.TableSlots(ctx, in.Table, order)
	switch {
	case err != nil && sent != nil:
		return fmt.Errorf("%w; and what the slots do now is not known: %w", sent, err)
	case err != nil:
		return err
	case sent != nil:
		return fmt.Errorf("%w; the slots now: %s", sent, relation(now))
	}
	left := ids(now, func(s Slot) bool { return s.Master != addr })
	if len(left) > 0 {
		return steps.Errorf("conflict", "%s on %s was answered with OK, and slots %s have not taken it: %s", redis.Line(cmd), c.Addr(), SlotGroup(left), relation(now)).
			WithHint("somebody else changes whom they follow, or the server was started again")
	}
	return nil
}

func undoSlotsSlaveOf(ctx context.Context, s steps.Session, in slotsSlaveOfIn, _ *slotsSlaveOfOut) error {
	var before followed
	has, err := s.Before(&before)
	if err != nil {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	if !has {
		return steps.Errorf("precondition", "put slots %s of %s back: whom they followed before is not known", SlotGroup(in.Slots), c.Addr())
	}
	wanted := ""
	if !in.None {
		m, err := findMaster(ctx, s.View, c, in.Master)
		if err != nil {
			return err
		}
		m.close()
		wanted = m.addr
	}
	now, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return err
	}
	back, err := before.wayBack(c, now, wanted)
	if err != nil {
		return err
	}
	for _, b := range back {
		if b.master == "" {
			err = c.order(ctx, slotsSlaveOf(in.Table, b.slots, "", false))
		} else {
			err = in.reattach(ctx, s, c, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wayBack is one order that puts slots back.
type wayBack struct {
	master string // empty: follow nobody
	force  bool
	slots  schema.Slots
}

// wayBack groups the slots that are not as they were by whom they followed. A slot that is neither as it was nor as this
// step made it is somebody else's: then nothing is put back.
func (f followed) wayBack(c *Client, now []Slot, wanted string) ([]wayBack, error) {
	var back []wayBack
	for _, s := range now {
		i := slices.IndexFunc(f.Slots, func(b slotFollowed) bool { return b.Slot == s.ID })
		if i < 0 || !s.Present || s.Master == f.Slots[i].Master {
			continue
		}
		was := f.Slots[i]
		if s.Master != wanted {
			return nil, steps.Errorf("conflict", "put slot %d of %s back: it %s, which this step did not make it do", s.ID, c.Addr(), relation([]Slot{s})).
				WithHint("somebody else has changed it; decide by hand")
		}
		force := was.State == StateTryDBSync || was.State == StateWaitDBSync || was.State == StateError
		j := slices.IndexFunc(back, func(b wayBack) bool { return b.master == was.Master && b.force == force })
		if j < 0 {
			back = append(back, wayBack{master: was.Master, force: force})
			j = len(back) - 1
		}
		back[j].slots = append(back[j].slots, s.ID)
	}
	return back, nil
}

// reattach has slots follow their former master again, with the checks of a new attachment. Where this step has replaced their
// data, or they were in the middle of a full sync, they get it by a full sync again.
func (in slotsSlaveOfIn) reattach(ctx context.Context, s steps.Session, c *Client, b wayBack) error {
	again := slotsSlaveOfIn{Slots: b.slots, Master: schema.Endpoint(b.master), Table: in.Table, Force: in.Force || b.force}
	again.Resume = !again.Force
	m := master{addr: b.master, c: c.Beside(b.master), beside: true}
	defer m.close()
	now, err := c.TableSlots(ctx, in.Table, b.slots)
	if err != nil {
		return err
	}
	if !again.Force { // otherwise a full sync under way is this step's own, and is given up
		if err := again.fit(c, m.addr, now); err != nil {
			return err
		}
	}
	if err := again.masterReady(ctx, c, m, now); err != nil {
		return err
	}
	return again.send(ctx, c, b.slots, b.master)
}
