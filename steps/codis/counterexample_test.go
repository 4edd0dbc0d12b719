package codis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	simpika "runbook/internal/simulate/pika"
	"runbook/internal/simulate/resp"
	"runbook/steps"
)

// What other ways of moving a slot lose, shown: each of these was measured on the real programs too. They are the
// reason for each part of the switch, and none of them ships.

// reckless does the switch without the parts named; between is called before the slots are assigned.
func (r *rig) reckless(t *testing.T, between func(), without ...string) {
	t.Helper()
	h, err := joinSession(t.Context(), steps.NewSession(r.env), r.plan())
	if err != nil {
		t.Fatal(err)
	}
	h.threads = 6
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"capture", h.capture},
		{"hold", h.holdAll},
		{"lag", func(ctx context.Context) error { _, err := h.level(ctx); return err }},
		{"markers", h.mark},
		{"fence", h.fence},
		{"between", func(context.Context) error { between(); return nil }},
		{"detach", h.detach},
		{"assign", h.assign},
	} {
		if slices.Contains(without, part.name) {
			continue
		}
		if err := part.do(t.Context()); err != nil {
			t.Fatalf("%s: %v", part.name, err)
		}
	}
}

func (r *rig) ask(addr string, args ...string) resp.Value {
	r.t.Helper()
	c, err := resp.DialWith(r.t.Context(), nil, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v, err := c.Do(r.t.Context(), args...)
	if err != nil {
		return resp.Errorf("%s", err)
	}
	return v
}

// TestWithoutMarkers: the destination has acknowledged writes that it has not applied yet, and applies them over newer ones.
func TestWithoutMarkers(t *testing.T) {
	for _, without := range []string{"markers", ""} {
		t.Run("without "+without, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "1")
			key := "{" + tagIn(1) + "}k"
			thread := r.dst.ApplyThread(key)
			r.dst.SetApplyDelay(thread, 300*time.Millisecond) // a long LREM is in this thread
			for i := range 3 {
				if got := r.ask(r.px[0].Addr(), "SET", key, "old "+strconv.Itoa(i)); got.String() != "OK" {
					t.Fatalf("SET: %s", got)
				}
			}
			r.reckless(t, func() {}, without)
			if got := r.ask(r.px[0].Addr(), "SET", key, "new"); got.String() != "OK" {
				t.Fatalf("SET after the switch: %s", got)
			}
			r.until("everything is applied", func() bool { return r.dst.Unapplied() == 0 })
			got := r.ask(r.px[1].Addr(), "GET", key).Str
			if lost := got != "new"; lost != (without == "markers") {
				t.Errorf("an acknowledged write was lost: %v (it reads %q)", lost, got)
			}
		})
	}
}

// TestWithoutFence: a proxy that joins during the hold comes in open. What is written through it is answered with OK and
// lost; with the fence it is answered with an error.
func TestWithoutFence(t *testing.T) {
	for _, without := range []string{"fence", ""} {
		t.Run("without "+without, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "1")
			third := r.joinProxy()
			r.px = r.px[:2]
			key := "{" + tagIn(1) + "}k"
			var answer string
			r.reckless(t, func() {
				if err := r.client().Put(t.Context(), "proxy", "create", third.AdminAddr()); err != nil {
					t.Fatal(err)
				}
				answer = r.ask(third.Addr(), "SET", key, "through the third").String()
				r.dst.SetLag(fault.Forever) // it comes after the lag was seen to be 0
			}, without)
			got := r.ask(r.px[0].Addr(), "GET", key)
			lost := answer == "OK" && got.Str != "through the third"
			if want := without == "fence"; lost != want {
				t.Errorf("answered %q, reads %q: lost %v, want %v", answer, got, lost, want)
			}
			if without == "" && !strings.Contains(answer, "read-only") {
				t.Errorf("behind the fence it was answered %q", answer)
			}
		})
	}
}

// TestDetachThenAssign: what is written between the two is acknowledged by the source and lost.
func TestDetachThenAssign(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 2000)
	h, err := joinSession(t.Context(), steps.NewSession(r.env), r.plan())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	acked := tr.Ledger().Stats().Acknowledged
	r.until("clients have written more", func() bool { return tr.Ledger().Stats().Acknowledged > acked+100 })
	if err := h.assign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := r.judged(tr); len(report.Lost) == 0 {
		t.Error("nothing was lost")
	}
}

// TestAssignThenDetach: clients get errors until the lag is 0 and the destination detached; nothing is lost but its service.
func TestAssignThenDetach(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 2000)
	h, err := joinSession(t.Context(), steps.NewSession(r.env), r.plan())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.assign(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.until("clients get errors", func() bool { return refusals(tr.Ledger().Stats().Errors) > 20 })
	if _, err := h.level(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := r.judged(tr); len(report.Lost) > 0 {
		t.Errorf("lost %d, errors %v", len(report.Lost), report.Errors)
	}
}

func refusals(byCode map[string]int64) (n int64) {
	for code, count := range byCode {
		if code != "no answer" {
			n += count
		}
	}
	return n
}

// TestDocumentedWay: Codis' own slot action with a destination that is started again, so that Pika has forgotten whom it
// follows. Codis calls it finished without an error, and everything since the restart is gone.
func TestDocumentedWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1", func(o *simpika.Options) { o.Pace = 0.05 }) // the source forgets a replica that died after 20 s
	tr := r.traffic(8, 2000)
	r.dst.Stop()
	acked := tr.Ledger().Stats().Acknowledged
	r.until("clients have written more", func() bool { return tr.Ledger().Stats().Acknowledged > acked+200 })
	if err := r.dst.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := r.client().Put(t.Context(), "slots/action/create", "1", "3"); err != nil {
		t.Fatal(err)
	}
	r.until("Codis calls it finished", func() bool {
		m, err := r.dash.Mapping()
		return err == nil && m[1].GroupID == 3 && m[1].Action.State == ""
	})
	if report := r.judged(tr); len(report.Lost) == 0 {
		t.Error("nothing was lost")
	}
}
