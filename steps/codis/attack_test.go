package codis

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"runbook/internal/simulate/fault"
	"runbook/steps"
)

// guarded gives the rig a guardian: it acts, in its own time, where the kind yields.
func (r *rig) guarded() *guardedEnv { return &guardedEnv{Env: r.env, r: r} }

type guardedEnv struct {
	steps.Env
	r       *rig
	mu      sync.Mutex
	yielded int
	told    []string
}

func (e *guardedEnv) Watch(_ context.Context, w steps.Watch) (steps.Guardian, error) {
	return &rigGuardian{e: e, plan: w.Plan.(switchPlan)}, nil
}

type rigGuardian struct {
	e    *guardedEnv
	plan switchPlan
}

func (g *rigGuardian) Tell(word string) error {
	g.e.mu.Lock()
	defer g.e.mu.Unlock()
	g.e.told = append(g.e.told, word)
	return nil
}
func (g *rigGuardian) Dismiss() {}
func (g *rigGuardian) Yield(ctx context.Context) error {
	g.e.mu.Lock()
	g.e.yielded++
	told := append([]string(nil), g.e.told...)
	g.e.mu.Unlock()
	return guardSwitch(ctx, steps.NewSession(g.e.Env), asJSON(g.plan), told)
}

// once gives a function that calls f the first time it sees a request that holds all of these words.
func once(f func(), words ...string) func(string) {
	var done atomic.Bool
	return func(request string) {
		for _, w := range words {
			if !strings.Contains(strings.ToLower(request), w) {
				return
			}
		}
		if done.CompareAndSwap(false, true) {
			f()
		}
	}
}

func onHTTP(see func(string)) func(string, string, []byte) fault.Action {
	return func(method, path string, body []byte) fault.Action {
		see(method + " " + path + " " + string(body))
		return fault.Pass()
	}
}

func onRESP(see func(string)) fault.Intercept {
	return func(cmd []string) fault.Action {
		see(strings.Join(cmd, " "))
		return fault.Pass()
	}
}

// TestFrozenProxy: a proxy that stands still when it is asked to hold gets hold and release together when it goes on, in
// either order. The clients of the other one are served at once, and in the end everybody is.
func TestFrozenProxy(t *testing.T) {
	for name, thaw := range map[string]func(*rig){
		"in order":   func(r *rig) { r.px[1].Thaw() },
		"last first": func(r *rig) { r.px[1].ThawLastFirst() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "1")
			tr := r.traffic(8, 400)
			env := r.guarded()
			r.px[0].SetIntercept(onHTTP(once(func() {
				r.px[1].Freeze()
				go func() {
					r.until("the first proxy serves again", func() bool { return !r.px[0].Routes()[1].Locked })
					r.until("the runner gives the rest to its guardian", func() bool { env.mu.Lock(); defer env.mu.Unlock(); return env.yielded > 0 })
					thaw(r)
				}()
			}, "put", "fillslots", `"locked":true`)))
			_, err := r.applyIn(t.Context(), env)
			if err == nil || !strings.Contains(err.Error(), "was put back") || !strings.Contains(err.Error(), r.px[1].AdminAddr()) {
				t.Errorf("ended with %v", err)
			}
			if got := r.standing(); got != "replicating" {
				t.Errorf("stands %s", got)
			}
			r.unharmed(tr)
			r.again(t)
		})
	}
}

// again wants that the next attempt succeeds.
func (r *rig) again(t *testing.T) {
	t.Helper()
	for _, p := range r.px {
		p.SetIntercept(nil)
	}
	r.src.SetIntercept(nil)
	r.dst.SetIntercept(nil)
	r.dash.SetIntercept(nil)
	if _, err := r.apply(t.Context()); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
	if got := r.standing(); got != "switched" {
		t.Errorf("after the next attempt it stands %s", got)
	}
}

// TestFrozenSource: requests in flight keep a hold from being answered; it is applied late.
func TestFrozenSource(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	env := r.guarded()
	r.px[0].SetIntercept(onHTTP(once(func() {
		r.src.Freeze()
		r.until("requests are under way", func() bool { return len(tr.Ledger().Stats().Waiting) > 2 })
		go func() {
			r.until("the runner gives the rest to its guardian", func() bool { env.mu.Lock(); defer env.mu.Unlock(); return env.yielded > 0 })
			r.src.Thaw()
		}()
	}, "put", "fillslots", `"locked":true`)))
	_, err := r.applyIn(t.Context(), env)
	if err == nil || !strings.Contains(err.Error(), "was put back") {
		t.Errorf("ended with %v", err)
	}
	r.unharmed(tr)
}

// TestLagNeverEnds: the pause is over at max_pause, and clients waited no longer than that and the release.
func TestLagNeverEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	r.px[0].SetIntercept(onHTTP(once(func() { r.dst.SetLag(fault.Forever) }, "put", "fillslots", `"locked":true`)))
	_, err := r.apply(t.Context(), "max_pause", "500ms", "max_lag", "10mb")
	if err == nil || !strings.Contains(err.Error(), "max_pause of 500ms is used up") {
		t.Errorf("ended with %v", err)
	}
	if e := steps.Classify(err); e.Unknown || e.Kind != "aborted" || !e.Temporary {
		t.Errorf("ended as %+v", e)
	}
	r.unharmed(tr)
	r.dst.SetLag(0)
	r.until("the destination keeps up", func() bool { return r.standing() == "replicating" })
	r.again(t)
}

// TestFrozenDestination: it is not spoken to before the clients are let go.
func TestFrozenDestination(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	r.px[0].SetIntercept(onHTTP(once(r.dst.Freeze, "put", "fillslots", `"locked":true`)))
	env := r.guarded()
	done := make(chan error, 1)
	go func() { _, err := r.applyIn(t.Context(), env, "max_pause", "3s"); done <- err }()
	r.until("everybody is let go", func() bool {
		return r.dashHolds() && !r.px[0].Routes()[1].Locked && !r.px[1].Routes()[1].Locked && len(r.px[1].Writes()) > 2
	})
	r.dst.Thaw()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "was put back") {
		t.Errorf("ended with %v", err)
	}
	r.unharmed(tr)
}

func (r *rig) dashHolds() bool {
	m, err := r.dash.Mapping()
	return err == nil && m[r.slots[0]].GroupID == 1
}

// TestDashboardDies between detaching and assigning: the mapping is read where the dashboard stores it, nothing was
// assigned, so the source serves again.
func TestDashboardDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	r.dst.SetIntercept(onRESP(once(func() { r.dash.Kill() }, "slotsslaveof no one")))
	_, err := r.apply(t.Context(), "max_pause", "3s")
	if err == nil || !strings.Contains(err.Error(), "was put back") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("ended with %v", err)
	}
	r.until("the destination follows again", func() bool { return r.standing() == "replicating" || r.standing() == "not replicating" })
	r.unharmed(tr)
	if err := r.dash.RemoveLock(); err != nil {
		t.Fatal(err)
	}
	if err := r.dash.Restart(); err != nil {
		t.Fatal(err)
	}
	r.again(t)
}

// TestDashboardStaysDead with an assignment that it has stored and told nobody: only a
// living dashboard can go on, so the slots stay held and the message says so.
func TestDashboardStaysDead(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	for _, p := range r.px {
		p.SetIntercept(func(_, path string, body []byte) fault.Action {
			if strings.Contains(path, "fillslots") && strings.Contains(string(body), r.dst.Addr()) {
				go r.dash.Kill()
				return fault.CutBefore()
			}
			return fault.Pass()
		})
	}
	env := r.guarded()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := r.applyIn(ctx, env); done <- err }()
	r.until("the runner gives the rest to its guardian", func() bool { env.mu.Lock(); defer env.mu.Unlock(); return env.yielded > 0 })
	cancel()
	err := <-done
	if e := steps.Classify(err); e == nil || e.Kind != steps.KindDoubt || !strings.Contains(err.Error(), "only a living dashboard can go on") || !strings.Contains(err.Error(), "clients of held slots wait, until now ") {
		t.Errorf("ended with %v", err)
	}
	if got := r.standing(); got != "partly assigned" {
		t.Errorf("stands %s", got)
	}
	for _, p := range r.px {
		p.SetIntercept(nil)
	}
	if err := r.dash.RemoveLock(); err != nil {
		t.Fatal(err)
	}
	if err := r.dash.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.resume(t.Context()); err != nil {
		t.Errorf("the resume: %v", err)
	}
	if got := r.standing(); got != "switched" {
		t.Errorf("after the resume it stands %s", got)
	}
	r.unharmed(tr)
}

// TestPartialAssign: one proxy stands still when the new mapping is pushed. The others serve
// from the destination at once; the frozen one still holds, which is safe.
func TestPartialAssign(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	r.px[1].SetIntercept(func(_, path string, body []byte) fault.Action { return fault.Pass() })
	r.dash.SetIntercept(onHTTP(once(func() {
		r.px[1].Freeze()
		go func() {
			r.until("the other proxy serves from the destination", func() bool { return r.px[0].Routes()[1].BackendAddr == r.dst.Addr() })
			r.px[1].Thaw()
		}()
	}, "put", "slots/assign")))
	out, err := r.applyIn(t.Context(), r.guarded())
	if err != nil {
		t.Errorf("ended with %v", err)
	}
	t.Logf("pause %v", out.Pause)
	if got := r.standing(); got != "switched" {
		t.Errorf("stands %s", got)
	}
	r.unharmed(tr)
}

// TestProxyJoins while clients wait: it comes in open. The fence has what slips through
// answered by an error, the switch is put back, and nothing is lost.
func TestProxyJoins(t *testing.T) {
	t.Parallel()
	r := newRig(t, "1")
	tr := r.traffic(8, 400)
	third := r.joinProxy()
	c := r.client()
	r.src.SetIntercept(onRESP(once(func() {
		if err := c.Put(context.Background(), "proxy", "create", third.AdminAddr()); err != nil {
			t.Error(err)
		}
	}, "slotsslaveof")))
	_, err := r.apply(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a proxy that joins comes in open") {
		t.Errorf("ended with %v", err)
	}
	if got := r.standing(); got != "replicating" {
		t.Errorf("stands %s", got)
	}
	r.unharmed(tr)
	r.again(t)
}

// TestHoldIsOpened by what the dashboard is asked for meanwhile.
func TestHoldIsOpened(t *testing.T) {
	for name, request := range map[string]func(*rig) string{
		"group resync": func(r *rig) string { return "/api/topom/group/resync/" + r.dash.XAuth() + "/1" },
		"resync all":   func(r *rig) string { return "/api/topom/group/resync-all/" + r.dash.XAuth() },
		"proxy reinit": func(r *rig) string { return "/api/topom/proxy/reinit/" + r.dash.XAuth() + "/" + r.px[0].Token() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "1")
			tr := r.traffic(8, 400)
			r.src.SetIntercept(onRESP(once(func() {
				if err := r.dash.Put(request(r), nil); err != nil {
					t.Error(err)
				}
			}, "slotsslaveof")))
			_, err := r.apply(t.Context())
			if err == nil || !strings.Contains(err.Error(), "does not hold slot 1 any more") {
				t.Errorf("ended with %v", err)
			}
			if got := r.standing(); got != "replicating" {
				t.Errorf("stands %s", got)
			}
			r.unharmed(tr)
		})
	}
}
