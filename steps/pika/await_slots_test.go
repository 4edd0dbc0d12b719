package pika

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/schema"
	"runbook/steps"
)

// once says yes to each of these slots one time.
func once(slots ...int) func(int) bool {
	return func(slot int) bool {
		i := slices.Index(slots, slot)
		if i >= 0 {
			slots = slices.Delete(slots, i, i+1)
		}
		return i >= 0
	}
}

// In most of these worlds time passes so fast that a master drops a silent replica after 400 ms; in some as it really does, so
// that nothing changes during a test.
const (
	fast   = 0.02
	really = 1
)

// attached is a pair of servers, the second ordered to follow the first in some slots.
func attached(t *testing.T, pace float64, group string, before func(master, follower *server), more ...string) (master, follower *server) {
	t.Helper()
	b := simulated()
	a, r := b.start(t, options{slots: "0-7", pace: pace}), b.start(t, options{slots: "0-7", pace: pace})
	a.do(t, "SET", key(1, "k"), "v")
	if before != nil {
		before(a, r)
	}
	h, p, _ := net.SplitHostPort(a.addr)
	r.do(t, append([]string{"PKCLUSTER", "SLOTSSLAVEOF", h, p, group}, more...)...)
	return a, r
}

// awaits waits for slots as the step does, in a fast world.
func awaits(t *testing.T, r, a *server, slots ...int) (awaitSlotsOut, error) {
	t.Helper()
	in := awaitSlotsIn{Slots: slots, Master: "a", MaxLag: 65536, Every: 10 * time.Millisecond, StuckAfter: 600 * time.Millisecond}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return applyAwaitSlots(ctx, steps.NewSession(env(t, r, map[string]*server{"a": a})), in)
}

// Slots that were forgotten are ordered again, those alone and once, whether or not they came by a full sync.
func TestAwaitSlotsMendsWhatWasForgotten(t *testing.T) {
	for name, more := range map[string][]string{"from the binlog": nil, "by a full sync": {"force"}} {
		t.Run(name, func(t *testing.T) {
			a, r := attached(t, fast, "0-5", func(_, r *server) { r.sim.SetReplyOvertaken(once(1, 3, 4)) }, more...)
			out, err := awaits(t, r, a, 0, 1, 2, 3, 4, 5)
			if err != nil || !out.Connected || out.Lag == nil || !slices.Equal(out.Mended, schema.Slots{1, 3, 4}) {
				t.Fatalf("%+v, %v", out, err)
			}
			h, p, _ := net.SplitHostPort(a.addr)
			again := orders(r)[1:]
			for _, o := range again {
				if !strings.HasPrefix(o, fmt.Sprintf("SLOTSSLAVEOF %s %s ", h, p)) || strings.Contains(o, "FORCE") || strings.ContainsAny(o[strings.LastIndex(o, " "):], "025") {
					t.Errorf("sent %q", o)
				}
			}
			if n := strings.Count(strings.Join(again, ","), "SLOTSSLAVEOF"); n == 0 || n > 3 {
				t.Errorf("sent %q", again)
			}
			inSync(t, r, a)
			if r.sim.SlotKeys(1) != 1 {
				t.Error("the mended slot has no data")
			}
		})
	}
}

// A full sync that was forgotten before it began is ordered again as what it was, where the step is told so: the slot would
// go on with its own data otherwise. One that came to its end is not ordered a second time.
func TestAwaitSlotsOrdersAForgottenFullSync(t *testing.T) {
	a, r := attached(t, fast, "0-4", func(_, r *server) {
		for _, slot := range []int{1, 3} {
			r.do(t, "SET", key(slot, "own"), "v")
		}
		r.sim.SetFullSyncOvertaken(once(1, 3))
		r.sim.SetReplyOvertaken(once(4))
	}, "force")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in := awaitSlotsIn{Slots: schema.Slots{0, 1, 2, 3, 4}, Master: "a", Force: true, MaxLag: 65536, Every: 10 * time.Millisecond, StuckAfter: 600 * time.Millisecond}
	out, err := applyAwaitSlots(ctx, steps.NewSession(env(t, r, map[string]*server{"a": a})), in)
	if err != nil || !out.Connected || !slices.Equal(out.Mended, schema.Slots{1, 3, 4}) {
		t.Fatalf("%+v, %v", out, err)
	}
	again := strings.Join(orders(r), "\n")
	for _, slot := range []string{"0", "1", "2", "3", "4"} {
		full := strings.Contains(again, " "+slot+" FORCE") || strings.Contains(again, " 1,3 FORCE") && (slot == "1" || slot == "3")
		if want := slot == "1" || slot == "3"; full != want {
			t.Errorf("slot %s by a full sync again: %t; sent\n%s", slot, full, again)
		}
	}
	inSync(t, r, a)
	if got := append(r.sim.Keys(1), r.sim.Keys(3)...); !slices.Equal(got, []string{key(1, "k")}) {
		t.Errorf("the slots have %q", got)
	}
}

// What moves by itself is left alone: nothing is sent for a full sync, however long it lasts.
func TestAwaitSlotsLeavesAFullSyncAlone(t *testing.T) {
	a, r := attached(t, fast, "1-2", func(_, r *server) { r.sim.SetFullSync(3 * time.Second) }, "force")
	out, err := awaits(t, r, a, 1, 2)
	if err != nil || !out.Connected || len(out.Mended) != 0 || len(orders(r)) != 1 {
		t.Errorf("%+v, %v; sent %q", out, err, orders(r))
	}
}

// forgotten is a pair whose slot 1 the follower left in kWaitReply, and the master has dropped.
func forgotten(t *testing.T) (master, follower *server) {
	t.Helper()
	a, r := attached(t, fast, "1", func(_, r *server) { r.sim.SetReplyOvertaken(once(1)) })
	listed(t, a, r)
	eventually(t, "the master has dropped it", func() bool { _, is := a.slot(t, 1).Replica(r.addr); return !is })
	return a, r
}

// listed waits until the master of slot 1 believes that it has a replica in step.
func listed(t *testing.T, a, r *server) {
	t.Helper()
	eventually(t, "the master lists it", func() bool { at, _ := a.slot(t, 1).Replica(r.addr); return at.Status == BinlogSync })
}

// watched looks at slot 1 at times of the test's own.
func watched(t *testing.T, a, r *server) (at *Attachment, look func(after time.Duration) Sight) {
	t.Helper()
	at = &Attachment{Follower: r.client(t), Master: a.client(t), Slots: schema.Slots{1}}
	start := time.Now()
	return at, func(after time.Duration) Sight {
		t.Helper()
		seen, err := at.Look(t.Context(), start.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
}

// A slot is stuck after so long in one state, and an order that got no answer is not repeated at once: it may have been
// carried out.
func TestAttachmentCountsFromTheFirstSight(t *testing.T) {
	a, r := forgotten(t)
	at, look := watched(t, a, r)
	stuckAt := func(after time.Duration, want ...int) {
		t.Helper()
		if seen := look(after); !slices.Equal(seen.Stuck, want) {
			t.Errorf("after %s: %+v", after, seen)
		}
	}
	stuckAt(0)
	stuckAt(24 * time.Second)
	stuckAt(25*time.Second, 1)
	seen := look(25 * time.Second)
	if seen.Connected != 0 || seen.Lag != nil || !strings.Contains(seen.Missing, "slot 1: kWaitReply at the follower, not listed at the master") {
		t.Errorf("%+v", seen)
	}
	r.sim.SetIntercept(func(cmd []string) fault.Action {
		if isWrite(cmd) {
			return fault.CutBefore()
		}
		return fault.Pass()
	})
	if mended, err := at.Mend(t.Context(), seen); err == nil || !steps.Classify(err).Unknown || len(mended) != 0 {
		t.Errorf("a lost order: %v, %v", mended, err)
	}
	stuckAt(26 * time.Second)
	stuckAt(51*time.Second, 1)
	r.sim.SetIntercept(nil)
	if mended, err := at.Mend(t.Context(), look(51*time.Second)); err != nil || !slices.Equal(mended, schema.Slots{1}) {
		t.Errorf("%v, %v", mended, err)
	}
	inSync(t, r, a)
	if mended, err := at.Mend(t.Context(), look(time.Hour)); err != nil || len(mended) != 0 {
		t.Errorf("nothing was stuck, and %v was ordered, %v", mended, err)
	}
}

// A slot whose full sync may have been forgotten has more time: its answer may be late, and must not meet a second order.
func TestAttachmentIsPatientBeforeAFullSync(t *testing.T) {
	a, r := attached(t, fast, "1", func(_, r *server) { r.sim.SetFullSyncOvertaken(once(1)) }, "force")
	isListed := func() bool { _, is := a.slot(t, 1).Replica(r.addr); return is }
	eventually(t, "the master lists it", isListed)
	eventually(t, "the master has dropped it", func() bool { return !isListed() })
	at, look := watched(t, a, r)
	at.Force = true
	for _, c := range []struct {
		after    time.Duration
		unfilled schema.Slots
	}{{0, nil}, {25 * time.Second, nil}, {124 * time.Second, nil}, {125 * time.Second, schema.Slots{1}}} {
		if seen := look(c.after); !slices.Equal(seen.Unfilled, c.unfilled) || len(seen.Stuck) != 0 {
			t.Errorf("after %s: %+v", c.after, seen)
		}
	}
}

// A slot that its master lists still, however long it says kWaitReply, is not ordered: that would cost another 20 s.
func TestAttachmentWaitsForTheMasterToForget(t *testing.T) {
	a, r := attached(t, really, "1", func(_, r *server) { r.sim.SetReplyOvertaken(once(1)) })
	listed(t, a, r)
	_, look := watched(t, a, r)
	look(0)
	if seen := look(time.Hour); len(seen.Stuck) != 0 || !strings.Contains(seen.Missing, "kWaitReply at the follower, SlaveBinlogSync at the master") {
		t.Errorf("%+v", seen)
	}
}

// A full sync is never ordered again, also where the master knows nothing of it any more.
func TestAttachmentLeavesAFullSyncAlone(t *testing.T) {
	a, r := attached(t, really, "1", func(_, r *server) { r.sim.SetFullSync(fault.Forever) }, "force")
	state(t, r, 1, StateWaitDBSync)
	if err := a.sim.Restart(); err != nil {
		t.Fatal(err)
	}
	_, look := watched(t, a, r)
	look(0)
	if seen := look(time.Hour); len(seen.Stuck) != 0 || !strings.Contains(seen.Missing, "kWaitDBSync at the follower, not listed") {
		t.Errorf("%+v", seen)
	}
}

// The follower's own word that it is connected is not enough.
func TestAttachmentBelievesTheMaster(t *testing.T) {
	a, r := attached(t, really, "1", nil)
	inSync(t, r, a)
	if err := a.sim.Restart(); err != nil { // which the follower notices after 20 s
		t.Fatal(err)
	}
	_, look := watched(t, a, r)
	if seen := look(0); seen.Connected != 0 || seen.Lag != nil || !strings.Contains(seen.Missing, "kConnected at the follower, not listed") {
		t.Errorf("%+v", seen)
	}
}

// A follower that has more than its master had after it was asked is no replica of it.
func TestAttachmentTellsAFollowerThatIsAhead(t *testing.T) {
	at := &Attachment{Follower: Open(Config{Addr: "10.0.0.5:9221"}, steps.ReadOnly), Master: Open(Config{Addr: "10.0.0.1:9221"}, steps.ReadOnly)}
	m := Slot{ID: 1, Present: true, Offset: Offset{0, 172988}}
	s := Slot{ID: 1, Present: true, Master: "10.0.0.1:9221", State: StateConnected, Offset: Offset{0, 183778}}
	refused(t, at.broken(s, m), "slot 1 of 10.0.0.5:9221", "at 0 183778", "ahead of the master's (at 0 172988)", "force: true")
	s.State = StateWaitDBSync // what it has is about to be replaced
	if err := at.broken(s, m); err != nil {
		t.Error(err)
	}
	s.State, s.Offset = StateConnected, m.Offset
	if err := at.broken(s, m); err != nil {
		t.Error(err)
	}
}

// What no waiting changes ends the step at once, and nothing is sent.
func TestAwaitSlotsRefuses(t *testing.T) {
	a, r := attached(t, fast, "1-2", nil)
	inSync(t, r, a)
	o := simulated().start(t, options{slots: "1"})
	for _, c := range []struct {
		name   string
		master *server
		slot   int
		want   []string
	}{
		{"detached", a, 3, []string{"slot 3", "follows nobody", "started again"}},
		{"absent", a, 9, []string{"does not hold the slot", "pika.addslots"}},
		{"another master", o, 1, []string{"it follows " + a.addr}},
		{"absent there", o, 2, []string{"the master does not hold the slot"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent := len(orders(r))
			_, err := awaits(t, r, c.master, c.slot)
			refused(t, err, c.want...)
			in := awaitSlotsIn{Slots: schema.Slots{c.slot}, Master: "a"}
			v := looking(t, r, map[string]*server{"a": c.master})
			refused(t, awaitSlots().Check(t.Context(), v, in), c.want...)
			if state, _, err := probeAwaitSlots(t.Context(), v, in); state != steps.Untouched || err != nil {
				t.Errorf("probe: %s, %v", state, err)
			}
			if len(orders(r)) != sent {
				t.Errorf("sent %q", orders(r)[sent:])
			}
		})
	}
	b := simulated()
	m, f := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	f.do(t, "SET", key(1, "own"), "written here")
	h, p, _ := net.SplitHostPort(m.addr)
	f.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1")
	_, err := awaits(t, f, m, 1)
	refused(t, err, "kError", "force: true")
}

// A side that does not answer for a while is asked again.
func TestAwaitSlotsOutlivesAMasterThatIsAway(t *testing.T) {
	a, r := attached(t, fast, "1", func(_, r *server) { r.sim.SetFullSync(200 * time.Millisecond) }, "force")
	cuts := make(chan struct{}, 20)
	a.sim.SetIntercept(func([]string) fault.Action {
		select {
		case cuts <- struct{}{}:
			return fault.CutBefore()
		default:
			return fault.Pass()
		}
	})
	if out, err := awaits(t, r, a, 1); err != nil || !out.Connected {
		t.Errorf("%+v, %v", out, err)
	}
}

// With its time over the step says what it still waited for.
func TestAwaitSlotsSaysWhatIsMissing(t *testing.T) {
	a, r := attached(t, fast, "1-2", func(_, r *server) { r.sim.SetFullSync(fault.Forever) }, "force")
	state(t, r, 1, StateWaitDBSync)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, fmt.Errorf("the step's time is over"))
	defer cancel()
	e := env(t, r, map[string]*server{"a": a})
	_, err := applyAwaitSlots(ctx, steps.NewSession(e), awaitSlotsIn{Slots: schema.Slots{1, 2}, Master: "a", MaxLag: 65536, Every: 10 * time.Millisecond, StuckAfter: 20 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "slot 1: kWaitDBSync") || !strings.Contains(err.Error(), "the step's time is over") {
		t.Errorf("ended with %v", err)
	}
	if got := orders(r); len(got) != 1 {
		t.Errorf("sent %q", got)
	}
}

// A lag above max_lag is waited out, and each look costs each side one request.
func TestAwaitSlotsAsksOnceALook(t *testing.T) {
	a, r := attached(t, fast, "0-7", nil)
	inSync(t, r, a)
	atA, atR := asked(a), asked(r)
	if out, err := awaits(t, r, a, 0, 1, 2, 3, 4, 5, 6, 7); err != nil || out.Lag == nil || *out.Lag != 0 || out.Mended == nil || len(out.Mended) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	for _, got := range [][]string{atA(), atR()} {
		if !slices.Equal(got, []string{"PKCLUSTER INFO SLOT 0-7"}) {
			t.Errorf("asked %q", got)
		}
	}
	a.sim.SetIntercept(nil)
	r.sim.SetLag(fault.Forever)
	a.do(t, "SET", key(1, "more"), strings.Repeat("x", 1000))
	in := awaitSlotsIn{Slots: schema.Slots{1}, Master: "a", MaxLag: 100}
	v := looking(t, r, map[string]*server{"a": a})
	eventually(t, "it lags", func() bool {
		state, _, err := probeAwaitSlots(t.Context(), v, in)
		return err == nil && state == steps.Untouched
	})
	in.MaxLag = 65536
	if state, out, err := probeAwaitSlots(t.Context(), v, in); state != steps.Done || err != nil || out.Lag == nil || *out.Lag < 1000 {
		t.Errorf("%s, %+v, %v", state, out, err)
	}
}
