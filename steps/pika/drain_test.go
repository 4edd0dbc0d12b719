package pika

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

// paced is an Env whose time passes by Sleep alone, with something to do after each.
type paced struct {
	*conformance.Env
	begun time.Time
	slept func(after time.Duration)
}

func (p *paced) Sleep(ctx context.Context, d time.Duration) error {
	err := p.Env.Sleep(ctx, d)
	p.slept(p.after())
	return err
}

func (p *paced) after() time.Duration { return p.Now().Sub(p.begun) }

func pace(t *testing.T, own *server, others map[string]*server, slept func(after time.Duration)) *paced {
	t.Helper()
	w := world(own, others, nil, nil)
	w.Wall = false
	e := conformance.NewEnv(w)
	t.Cleanup(func() { _ = e.Close() })
	return &paced{Env: e, begun: e.Now(), slept: slept}
}

// queued has slots of b follow those of a, and one write to slot 1 wait for b's threads, behind a command that does not end.
func queued(t *testing.T, b, a *server, slots string) {
	t.Helper()
	a.do(t, "SET", key(1, "before"), "v")
	follow(t, b, a, slots)
	eventually(t, "nothing is queued", func() bool { return b.sim.Unapplied() == 0 })
	b.sim.SetApplyDelay(-1, time.Hour)
	a.do(t, "SET", key(1, "k"), "v")
	eventually(t, "the write is queued", func() bool { return b.sim.Unapplied() == 1 })
	b.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "1")
}

// goOn lets the threads go on, and returns when they have done what is queued, or have died of it.
func goOn(t *testing.T, s *server) {
	t.Helper()
	s.sim.SetApplyDelay(-1, 0)
	eventually(t, "nothing is queued", func() bool { return s.sim.Unapplied() == 0 || !s.sim.Alive() })
}

func noMarkers(t *testing.T, s *server) {
	t.Helper()
	for slot := range slotNumber {
		if keys := s.sim.Keys(slot); slices.ContainsFunc(keys, isMarker) {
			t.Errorf("markers were left: %q", keys)
		}
	}
}

// A server dies of a slot that is deleted under a queued write. Nothing shows the queue: the step gives it time.
func TestDelSlotsGivesQueuedWritesTime(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	queued(t, r, a, "1")
	e := pace(t, r, nil, func(after time.Duration) {
		if after >= 25*time.Second {
			goOn(t, r)
		}
	})
	_, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Settle: defaultSettle, Wait: time.Minute})
	goOn(t, r)
	if err != nil || !r.sim.Alive() || r.sim.HasSlot(1) {
		t.Errorf("alive %v, slot still there %v: %v", r.sim.Alive(), r.sim.HasSlot(1), err)
	}
	if p := e.Progressed(); len(p) == 0 || !strings.Contains(p[0].Text, "slots 1 have been still for 30s") {
		t.Errorf("nobody is told what is waited for: %+v", p)
	}
}

// Where another slot still follows a master, markers through that one prove it: however long the queue takes, and not for longer.
func TestDelSlotsProvesThatNothingIsQueued(t *testing.T) {
	for _, held := range []time.Duration{2 * time.Second, 20 * time.Second} {
		t.Run(held.String(), func(t *testing.T) {
			b := simulated()
			a, r := b.start(t, options{slots: "0-3", pass: password, auth: password}), b.start(t, options{slots: "0-3", pass: password, auth: password})
			queued(t, r, a, "0-3")
			e := pace(t, r, nil, func(after time.Duration) {
				if after >= held {
					goOn(t, r)
				}
			})
			_, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Settle: defaultSettle, Wait: time.Minute})
			goOn(t, r)
			if err != nil || !r.sim.Alive() || r.sim.HasSlot(1) {
				t.Fatalf("alive %v, slot still there %v: %v", r.sim.Alive(), r.sim.HasSlot(1), err)
			}
			if e.after() > held+time.Second {
				t.Errorf("the step took %s", e.after())
			}
			noMarkers(t, a)
		})
	}
}

// Slots that are detached by the step are marked right before, and deleted when the markers are applied.
func TestDelSlotsDetaches(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1-2"}), b.start(t, options{slots: "1-2"})
	a.do(t, "SET", key(1, "before"), "v")
	follow(t, r, a, "1-2")
	eventually(t, "nothing is queued", func() bool { return r.sim.Unapplied() == 0 })
	r.sim.SetApplyDelay(-1, time.Hour)
	a.do(t, "SET", key(1, "k"), "v")
	eventually(t, "the write is queued", func() bool { return r.sim.Unapplied() == 1 })
	in := delSlotsIn{Slots: schema.Slots{1, 2}, ServedBy: "a", Settle: time.Hour, Wait: 2 * time.Minute}
	e := pace(t, r, map[string]*server{"a": a}, func(after time.Duration) {
		if after >= time.Minute {
			goOn(t, r)
		}
	})
	refused(t, checkDelSlots(t.Context(), steps.NewView(e), in), "it follows "+a.addr, "detach: true")
	in.Detach = true
	if err := checkDelSlots(t.Context(), steps.NewView(e), in); err != nil {
		t.Fatal(err)
	}
	_, err := applyDelSlots(t.Context(), steps.NewSession(e), in)
	goOn(t, r)
	if err != nil || !r.sim.Alive() || r.sim.HasSlot(1) || r.sim.HasSlot(2) {
		t.Fatalf("alive %v, slot still there %v: %v", r.sim.Alive(), r.sim.HasSlot(1), err)
	}
	if got := orders(r)[1:]; !slices.Equal(got, []string{"SLOTSSLAVEOF NO ONE 1-2", "DELSLOTS 1", "DELSLOTS 2"}) {
		t.Errorf("sent %q", got)
	}
	if e.after() < time.Minute+markedSettle || e.after() > time.Minute+2*markedSettle {
		t.Errorf("the queue was held for a minute, and the step took %s", e.after())
	}
	noMarkers(t, a)
}

// A master that is gone can be sent no marker: the slots are detached, and must be still for the whole of settle.
func TestDelSlotsDetachesFromADeadMaster(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	a.do(t, "SET", key(1, "k"), "v")
	follow(t, r, a, "1")
	a.sim.Stop()
	e := pace(t, r, nil, func(time.Duration) {})
	_, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Detach: true, Discard: true, Settle: time.Hour, Wait: time.Minute})
	if err != nil || r.sim.HasSlot(1) || e.after() < time.Hour {
		t.Errorf("after %s: %v", e.after(), err)
	}
}

// A master that follows another itself cannot be written to: the markers come from the one above.
func TestDelSlotsProvesThroughAChain(t *testing.T) {
	b := simulated()
	top, mid, r := b.start(t, options{slots: "0-1"}), b.start(t, options{slots: "0-1"}), b.start(t, options{slots: "0-1"})
	top.do(t, "SET", key(1, "k"), "v")
	follow(t, mid, top, "0-1", "force")
	follow(t, r, mid, "0-1", "force")
	eventually(t, "nothing is queued", func() bool { return r.sim.Unapplied() == 0 })
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "1")
	e := pace(t, r, nil, func(time.Duration) {})
	if _, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Settle: time.Hour, Wait: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if e.after() >= time.Hour || !slices.ContainsFunc(top.sim.Writes(), func(cmd []string) bool { return isMarker(cmd[1]) }) {
		t.Errorf("after %s; the top was sent %q", e.after(), top.sim.Writes())
	}
	noMarkers(t, top)
}

// A queue that does not get on refuses the step, and leaves no marker.
func TestDelSlotsRefusesWhereTheQueueStands(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "0-3"}), b.start(t, options{slots: "0-3"})
	queued(t, r, a, "0-3")
	e := pace(t, r, nil, func(time.Duration) {})
	_, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Settle: defaultSettle, Wait: 10 * time.Second})
	refused(t, err, "after 10s markers", a.addr, "apply threads")
	if !r.sim.HasSlot(1) {
		t.Error("a slot was deleted")
	}
	noMarkers(t, a)
	goOn(t, r)
}

// A master with another password is written to as the target that served_by names. Where that is none, the slots must be still for
// the whole of settle.
func TestDelSlotsWithAMasterOfAnotherPassword(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    delSlotsIn
		least time.Duration
		wrote bool
	}{
		{"named", delSlotsIn{Slots: schema.Slots{1}, ServedBy: "a"}, provenSettle, true},
		{"not named", delSlotsIn{Slots: schema.Slots{1}, Discard: true}, defaultSettle, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := simulated()
			a, r := b.start(t, options{slots: "0-1", pass: password}), b.start(t, options{slots: "0-1", auth: password})
			a.do(t, "SET", key(1, "k"), "v")
			follow(t, r, a, "0-1")
			r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "1")
			c.in.Settle, c.in.Wait = defaultSettle, time.Hour
			e := pace(t, r, map[string]*server{"a": a}, func(time.Duration) {})
			if _, err := applyDelSlots(t.Context(), steps.NewSession(e), c.in); err != nil {
				t.Fatal(err)
			}
			wrote := slices.ContainsFunc(a.sim.Writes(), func(cmd []string) bool { return isMarker(cmd[1]) })
			if e.after() < c.least || wrote != c.wrote {
				t.Errorf("after %s, with markers %v", e.after(), wrote)
			}
		})
	}
}

func TestDelSlotsOfSlotsThatAreWrittenTo(t *testing.T) {
	a := simulated().start(t, options{slots: "1-2"})
	a.do(t, "SET", key(1, "k"), "v")
	n := 0
	e := pace(t, a, nil, func(time.Duration) { n++; a.do(t, "SET", key(1, fmt.Sprint(n)), "v") })
	_, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Settle: time.Second, Wait: time.Second})
	refused(t, err, "binlogs still grow", "somebody writes")
	if !a.sim.HasSlot(1) {
		t.Error("a slot was deleted")
	}
	if _, err := applyDelSlots(t.Context(), steps.NewSession(e), delSlotsIn{Slots: schema.Slots{2}, Settle: time.Hour}); err != nil || a.sim.HasSlot(2) {
		t.Errorf("a slot that was never written to: %v", err)
	}
	if e.after() >= time.Hour {
		t.Errorf("it was waited for, %s", e.after())
	}
}

// Undo deletes slots that hold a copy, and a copy has come by replication.
func TestAddSlotsUndoGivesQueuedWritesTime(t *testing.T) {
	b := simulated()
	source, r := b.start(t, options{slots: "1"}), b.start(t, options{})
	e := pace(t, r, map[string]*server{"source": source}, func(after time.Duration) {
		if after >= 25*time.Second {
			goOn(t, r)
		}
	})
	s := begin(t, addSlots(), addSlotsIn{Slots: schema.Slots{1}, ServedBy: "source"}, e.Env)
	s.apply()
	queued(t, r, source, "1")
	e.begun = e.Now()
	err := undoAddSlots(t.Context(), steps.NewSession(e), s.in, nil)
	goOn(t, r)
	if err != nil || !r.sim.Alive() || r.sim.HasSlot(1) {
		t.Errorf("alive %v, slot still there %v: %v", r.sim.Alive(), r.sim.HasSlot(1), err)
	}
}
