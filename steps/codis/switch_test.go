package codis

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	simpika "runbook/internal/simulate/pika"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/pika"
)

// TestSwitch: slots under load go over, nobody loses a write, and the old side follows the new one: the way back.
func TestSwitch(t *testing.T) {
	for _, slots := range []string{"1", "16-31", "100-163"} {
		t.Run(slots, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, slots)
			tr := r.traffic(16, 2000)
			out, err := r.apply(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if out.Pause == nil || *out.Pause > 20*time.Second || out.Group != 3 || out.Slots.String() != slots {
				t.Errorf("gave %+v", out)
			}
			t.Logf("pause %v: %v", *out.Pause, out.Phases)
			if got := r.standing(); got != "switched" {
				t.Errorf("stands %s", got)
			}
			for _, p := range r.px {
				if held := p.Held(); held != 0 {
					t.Errorf("%d requests still wait", held)
				}
			}
			report := r.unharmed(tr)
			if report.Unknown > 0 {
				t.Errorf("%d writes got no answer", report.Unknown)
			}
			r.until("the markers are gone on both sides", func() bool {
				return !slices.ContainsFunc(append(r.src.Keys(r.slots[0]), r.dst.Keys(r.slots[0])...), func(key string) bool { return strings.Contains(key, "__runner_marker") })
			})
		})
	}
}

// TestBackAndForth: the undo is the same switch the other way, under load too, as often as one likes.
func TestBackAndForth(t *testing.T) {
	t.Parallel()
	r := newRig(t, "5-8")
	tr := r.traffic(16, 1000)
	for range 3 {
		if _, err := r.apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.def.Undo(t.Context(), steps.NewSession(r.env), r.input(), nil); err != nil {
			t.Fatal(err)
		}
		r.until("the destination follows again", func() bool { return r.standing() == "replicating" })
	}
	r.unharmed(tr)
}

// TestBackOverAFenceThatWasForgotten: a fence that Pika has left in kWaitReply is mended, and then it is the way back.
func TestBackOverAFenceThatWasForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, "5-8", func(o *simpika.Options) { o.Pace = 0.1 })
	tr := r.traffic(4, 200)
	var overtaken atomic.Bool
	r.src.SetReplyOvertaken(func(slot int) bool { return slot == 6 && overtaken.CompareAndSwap(false, true) })
	if _, err := r.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.until("the fence is forgotten on both sides", func() bool {
		_, listed := r.slotAt("destination", 6).Replica(r.src.Addr())
		return overtaken.Load() && !listed
	})
	if state := r.slotAt("source", 6).State; state != pika.StateWaitReply {
		t.Fatalf("the fence is in %s", state)
	}
	if err := r.def.Undo(t.Context(), steps.NewSession(hurried{r.env, time.Now()}), r.input(), nil); err != nil {
		t.Fatal(err)
	}
	r.until("the destination follows again", func() bool { return r.standing() == "replicating" })
	r.unharmed(tr)
}

// hurried is an Env whose time passes five times as fast.
type hurried struct {
	steps.Env
	since time.Time
}

func (h hurried) Now() time.Time { return h.since.Add(5 * time.Since(h.since)) }

func (h hurried) Sleep(ctx context.Context, d time.Duration) error { return h.Env.Sleep(ctx, d/5) }

func (r *rig) slotAt(name string, id int) pika.Slot {
	r.t.Helper()
	slots, err := r.pika(name).Slots(r.t.Context(), schema.Slots{id})
	if err != nil {
		r.t.Fatal(err)
	}
	return slots[0]
}

// TestRefused: what would make clients wait in vain is refused before the first of them does, each with its reason.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rig) []any
		want   string
	}{
		"own action": {func(r *rig) []any {
			r.put("slots/action/disabled", "1")
			r.put("slots/action/create", "1", "3")
			return nil
		}, "slot 1: action pending to group 3 is on it"},
		"not attached":  {func(r *rig) []any { r.detach(); return nil }, "slot 1: destination does not follow"},
		"wrong group":   {func(*rig) []any { return []any{"to_group", int64(9)} }, "there is no group 9"},
		"wrong master":  {func(*rig) []any { return []any{"source", "destination", "destination", "source"} }, "the master of group 1 is"},
		"held":          {func(r *rig) []any { r.holdByHand(); return nil }, "holds slot 1 already"},
		"proxy is dead": {func(r *rig) []any { r.px[1].Kill(); return nil }, "connection refused"},
		"lag": {func(r *rig) []any {
			r.dst.SetLag(fault.Forever)
			r.ask(r.px[0].Addr(), "SET", "{"+tagIn(1)+"}k", strings.Repeat("x", 200))
			r.until("it lags", func() bool { return strings.Contains(r.src.Do("pkcluster", "info", "slot", "1").String(), "lag: 2") })
			return []any{"max_lag", "100", "catch_up", "300ms"}
		}, "lags 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "1")
			with := c.change(r)
			before := len(r.dash.Writes())
			_, err := r.apply(t.Context(), with...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ended with %v, want %s", err, c.want)
			}
			if e := steps.Classify(err); e != nil && e.Kind != "precondition" {
				t.Errorf("ended as %s", e.Kind)
			}
			if n := len(r.dash.Writes()) - before; n != 0 {
				t.Errorf("%d requests that change something were sent", n)
			}
		})
	}
}

// TestSlowThreads: a destination that applies late is found out by a marker before any client has to wait for it.
func TestSlowThreads(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	r.dst.SetApplyDelay(-1, 2*time.Second)
	_, err := r.apply(t.Context(), "max_pause", "400ms", "catch_up", "300ms")
	if err == nil || !strings.Contains(err.Error(), "applies what it has acknowledged late: more than 100ms") {
		t.Errorf("ended with %v", err)
	}
	for _, p := range r.px {
		if n := len(p.Writes("dashboard")); n > 0 {
			t.Errorf("a proxy was asked to hold: %d requests", n)
		}
	}
	r.dst.SetApplyDelay(-1, 0)
	if _, err := r.apply(t.Context()); err != nil {
		t.Error(err)
	}
}

func (r *rig) put(path ...string) {
	r.t.Helper()
	if err := r.client().Put(r.t.Context(), path...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) detach() {
	r.t.Helper()
	if err := r.pika("destination").SlotsDetach(r.t.Context(), r.slots); err != nil {
		r.t.Fatal(err)
	}
}

// holdByHand is what somebody without a runner may have left.
func (r *rig) holdByHand() {
	r.t.Helper()
	h, err := joinSession(r.t.Context(), steps.NewSession(r.env), r.plan())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := h.capture(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := h.holdAll(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func TestSwitchConforms(t *testing.T) {
	conformance.Run(t, switchSlot().Define(), conformance.Fixture{Settles: "an aborted switch is put back by what is seen, not by what was answered", New: func(t *testing.T) conformance.World {
		r := newRig(t, "1")
		w := r.world
		w.Snapshot = func() string {
			// What follows anew is connected a moment later.
			r.until("it has come to rest", func() bool { return r.standing() != "not replicating" })
			return r.standing()
		}
		w.Writes = func() int {
			n := len(r.dash.Writes()) + len(r.src.Writes()) + len(r.dst.Writes())
			for _, p := range r.px {
				n += len(p.Writes("dashboard"))
			}
			return n
		}
		w.Intercept = r.interceptAll
		return w
	}})
}

// interceptAll asks f about every request of the runner, to whomever.
func (r *rig) interceptAll(f func(write bool) conformance.Fault) {
	action := func(write bool) fault.Action {
		return [...]fault.Action{fault.Pass(), fault.CutBefore(), fault.CutAfter(), fault.Hang()}[f(write)]
	}
	http := func(method, _ string, _ []byte) fault.Action { return action(method == "PUT") }
	resp := func(cmd []string) fault.Action {
		words := strings.ToLower(strings.Join(cmd, " "))
		return action(slices.ContainsFunc([]string{"set ", "del ", "pkcluster slotsslaveof"}, func(w string) bool { return strings.HasPrefix(words, w) }))
	}
	if f == nil {
		http, resp = nil, nil
	}
	r.dash.SetIntercept(http)
	for _, p := range r.px {
		p.SetIntercept(http, "dashboard")
	}
	r.src.SetIntercept(resp)
	r.dst.SetIntercept(resp)
}
