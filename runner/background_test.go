package runner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// traffic is a kind that runs until it is stopped, or fails after so many seconds.
func traffic(l *lab) {
	l.w.odd("mem.traffic", false, func(ctx context.Context, s steps.Session, in memIn) (memOut, error) {
		err := l.w.act(in.Key, func() {
			l.w.value[in.Key] = 1
			l.w.log = append(l.w.log, "up "+in.Key)
		})
		defer l.w.act(in.Key, func() {
			delete(l.w.value, in.Key)
			l.w.log = append(l.w.log, "down "+in.Key)
		})
		if err != nil {
			return memOut{}, err
		}
		if in.Value == 0 {
			in.Value = 1 << 30
		}
		if err := s.Sleep(ctx, time.Duration(in.Value)*time.Second); err != nil {
			return memOut{}, err
		}
		return memOut{}, errors.New("it broke")
	})
}

func TestBackground(t *testing.T) {
	ready := `ready: value == 1, probe: {uses: mem.get, with: {key: t}, done: value == 1}`
	for _, c := range []struct {
		name, steps, log string
		want             Status
	}{
		{"until the run ends", `[{id: t, background: true, uses: mem.traffic, undo: none, with: {key: t}, ` + ready + `}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, set a 1, down t, set f 1", Succeeded},
		{"until it is stopped", `[{id: t, background: true, uses: mem.traffic, undo: none, with: {key: t}, ` + ready + `}, {id: s, uses: stop-background, with: {step: t}}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, down t, set a 1, set f 1", Succeeded},
		{"outlives its group", `[{id: g, timeout: 1h, parallel: true, steps: [{id: t, background: true, uses: mem.traffic, undo: none, with: {key: t}, ` + ready + `}]}, {id: z, uses: sleep, with: {duration: 5m}}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, set a 1, down t, set f 1", Succeeded},
		{"fails before it is ready", `[{id: t, background: true, uses: mem.traffic, undo: none, with: {key: t, value: 5}, ready: value == 2, probe: {uses: mem.get, with: {key: t}, done: value == 2}}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, down t, set f 1", Failed},
		{"fails while the run goes on", `[{id: t, background: true, uses: mem.traffic, undo: none, with: {key: t, value: 30}, ` + ready + `}, {id: w, uses: mem.get, with: {key: never}, wait-until: value == 1, timeout: 1h}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, down t, set f 1", Failed},
		{"fails, and that is taken", `[{id: t, background: true, on-failure: continue, uses: mem.traffic, undo: none, with: {key: t, value: 30}, ` + ready + `}, {id: z, uses: sleep, with: {duration: 5m}}, {id: a, uses: mem.set, with: {key: a, value: 1}}]`, "up t, down t, set a 1, set f 1", Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				traffic(l)
				r := l.exec(l.program(bookHead + "steps: " + c.steps + "\nfinally: [{id: f, uses: mem.set, with: {key: f, value: 1}}]\n"))
				l.end(r, c.want)
				if got := strings.Join(l.w.log, ", "); got != c.log {
					t.Errorf("log %s\nwant %s", got, c.log)
				}
				if c.want == Failed && (r.Step != "t" || !strings.Contains(r.Err.Error(), "it broke")) {
					t.Errorf("%s: %v", r.Step, r.Err)
				}
			})
		})
	}
}

func TestBackgroundStartsAgainWithTheRun(t *testing.T) {
	for _, how := range []string{"failure", "interrupt", "crash"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				traffic(l)
				p := l.program(bookHead + `
steps:
  - {id: t, background: true, uses: mem.traffic, undo: none, with: {key: t}, ready: value == 1, probe: {uses: mem.get, with: {key: t}, done: value == 3}}
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
  - {id: w, uses: mem.get, with: {key: ok}, wait-until: value == 1, timeout: 1m}
  - {id: s, uses: stop-background, with: {step: t}}
  - {id: b, uses: mem.get, with: {key: ok2}, expect: value == 1}
`)
				switch how {
				case "failure":
					l.end(l.exec(p), Failed)
				case "interrupt":
					l.interrupt(p, 10*time.Second)
				case "crash":
					l.dieAt(9)
					l.exec(p)
					l.options = journal.Options{}
				}
				l.w.log = nil
				l.w.value["ok"] = 1
				l.end(l.resume(), Failed) // at b, after it was stopped
				if got := strings.Join(l.w.log, ", "); got != "up t, down t" {
					t.Errorf("log %s", got)
				}
				l.w.log = nil
				l.w.value["ok2"] = 1
				l.end(l.resume(), Succeeded)
				if got := strings.Join(l.w.log, ", "); got != "" {
					t.Errorf("log %s: what was stopped stays so", got)
				}
			})
		})
	}
}
