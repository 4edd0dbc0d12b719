package runner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A paused run goes on when the guard holds again, or an operator says so.
func TestGuardAtResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.gauge(violated(10*time.Second, time.Hour, 2*time.Hour, 3*time.Hour))
		l.end(l.exec(l.program(strings.Replace(guardedBook, "THEN", "stop", 1))), Failed)

		began := time.Now()
		r := l.resume()
		l.end(r, Paused) // nothing was done: it is not a failure
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the resume waited %s for a guard that had tripped", waited)
		}
		trip := bodies[GuardTripped](t, l, recGuardTripped)[0]
		if !trip.Again || !strings.Contains(r.Err.Error(), "has not held since") || !strings.Contains(r.Hint, "--override 'errors'") {
			t.Errorf("it says %v, %s; trip %+v", r.Err, r.Hint, trip)
		}
		if got := l.w.state(); got != `{"a":1,"tidy":1}` {
			t.Errorf("world %s: the resume did something", got)
		}

		time.Sleep(time.Hour)
		l.end(l.resume(), Succeeded)
	})
}

func TestGuardOverridden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		// Violated from 10 s on; it holds at 70 s, and then no more.
		l.gauge(violated(10*time.Second, 70*time.Second, 80*time.Second, forever))
		text := strings.Replace(strings.Replace(guardedBook, "THEN", "pause", 1), "duration: 1m", "duration: 10m", 1)
		l.end(l.exec(l.program(text)), Paused)

		override := func(guard, reason string) func(*ResumeRequest) {
			return func(q *ResumeRequest) { q.Overrides = []Override{{guard, reason}} }
		}
		for what, change := range map[string]func(*ResumeRequest){
			"there is no such guard":  override("error", "known"),
			"overriding it needs a r": override("errors", " "),
		} {
			if _, err := l.tryResume(change); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("the error is %v, want %s", err, what)
			}
		}
		began := time.Now()
		l.end(l.resume(override("errors", "CHG-1: known, of another tenant")), Paused)
		made := bodies[GuardOverridden](t, l, recGuardOverridden)
		if len(made) != 1 || made[0].Reason != "CHG-1: known, of another tenant" || made[0].By != "ana" {
			t.Errorf("the journal has %+v", made)
		}
		// It was passed over until it had held again, at 70 s, and watched from then on.
		trip := bodies[GuardTripped](t, l, recGuardTripped)[0]
		if trip.Again || time.Since(began) < time.Minute {
			t.Errorf("it tripped %s after the resume: %+v", time.Since(began), trip)
		}
	})
}

// A guard that was overridden stays so over a crash and a further resume.
func TestOverrideLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.gauge(violated(10*time.Second, forever))
		p := l.program(strings.Replace(strings.Replace(guardedBook, "THEN", "pause", 1), "finally:", `  - {id: odd, uses: mem.add, undo: none, why: a test, with: {key: odd, value: 1}}
finally:`, 1))
		l.w.fail["odd"] = errors.New("broken")
		l.end(l.exec(p), Paused)
		l.end(l.resume(func(q *ResumeRequest) { q.Overrides = []Override{{"errors", "known"}} }), Failed)
		l.end(l.resume(), Succeeded)
	})
}

// While a guard that tripped in one branch has not been looked at, the others do not change
// anything either; and what leads to it is not held up.
func TestResumeLooksFirst(t *testing.T) {
	const guarded = `guards: [{id: errors, uses: mem.gauge, every: 2s, require: value < 10}]`
	for _, c := range []struct{ name, text, paused, end string }{
		{"beside", `
  - id: both
    parallel: true
    steps:
      - id: guarded
        ` + guarded + `
        steps:
          - {id: a, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h}
          - {id: b, uses: mem.set, with: {key: b, value: 1}}
      - id: other
        steps:
          - {id: c, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h}
          - {id: d, uses: mem.set, with: {key: d, value: 1}}
`, `{"go":1}`, `{"b":1,"d":1,"go":1}`},
		{"items", `
  - id: each
    for-each: [1, 2, 3]
    max-parallel: 2
    steps:
      - {id: c, uses: mem.get, with: {key: go}, wait-until: item != 3 || value == 1, timeout: 1h}
      - id: guarded
        ` + guarded + `
        when: item == 2
        steps: [{id: a, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h}]
      - {id: d, uses: mem.set, with: {key: "d${{ item }}", value: 1}}
`, "", `{"d1":1,"d2":1,"d3":1,"go":1}`},
		{"rescued outside", `
  - id: outer
    rescue: [{id: help, uses: mem.set, with: {key: help, value: 1}}]
    steps:
      - id: both
        parallel: true
        steps:
          - id: guarded
            ` + guarded + `
            steps: [{id: a, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h}]
          - {id: bad, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h, expect: value == 2}
`, "", `{"go":1,"help":1}`},
		{"after a background group", `
  - id: service
    background: true
    ready: steps.up?.value == 1
    steps:
      - {id: up, uses: mem.set, with: {key: up, value: 1}}
      - {id: serve, uses: mem.get, with: {key: never}, wait-until: value == 1, timeout: 900h}
  - id: guarded
    ` + guarded + `
    steps: [{id: a, uses: mem.get, with: {key: go}, wait-until: value == 1, timeout: 1h}]
`, "", `{"go":1,"up":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.gauge(func(ctx context.Context, at time.Duration, _ string) (int, error) {
					if at > 8*time.Second && at < time.Hour {
						time.Sleep(3 * time.Second) // the answer takes its time
						return 50, nil
					}
					return 0, nil
				})
				l.end(l.exec(l.program(bookHead+"steps:"+c.text)), Paused)
				l.w.value["go"] = 1
				l.end(l.resume(), Paused)
				if got := l.w.state(); c.paused != "" && got != c.paused {
					t.Errorf("world %s: a branch changed something beside a guard that does not hold", got)
				}
				time.Sleep(time.Hour)
				l.end(l.resume(), Succeeded)
				if got := l.w.state(); got != c.end {
					t.Errorf("world %s, want %s", got, c.end)
				}
			})
		})
	}
}

func TestMaxAge(t *testing.T) {
	for _, c := range []struct {
		then string
		end  Status
		next Status
	}{{"pause", Paused, Paused}, {"stop", Failed, Paused}, {"rollback", Failed, Paused}} {
		t.Run(c.then, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.w.fail["b"] = errors.New("broken")
				text := bookHead + `
steps:
  - id: move
    max-age: {of: 72h, then: ` + c.then + `}
    steps:
      - {id: a, uses: mem.set, with: {key: a, value: 1}}
      - {id: b, uses: mem.set, with: {key: b, value: 1}}
      - {id: hold, uses: sleep, with: {duration: 50h}, timeout: 60h}
      - {id: c, uses: mem.set, with: {key: c, value: 1}}
`
				began := time.Now()
				l.end(l.exec(l.program(text)), Failed) // for another reason, at once
				time.Sleep(30 * time.Hour)             // nobody is there
				l.end(l.resume(), c.end)               // 42 h later
				if age := time.Since(began); age != 72*time.Hour {
					t.Errorf("it tripped after %s", age)
				}
				want := `{"a":1,"b":1}`
				if c.then == "rollback" {
					want = `{}`
				}
				if got := l.w.state(); got != want {
					t.Errorf("world %s, want %s", got, want)
				}
				r := l.resume()
				l.end(r, c.next)
				if !strings.Contains(r.Err.Error(), "max-age 72h of move is over") || !strings.Contains(r.Hint, "--override 'move'") {
					t.Errorf("it says %v, %s", r.Err, r.Hint)
				}
				l.end(l.resume(func(q *ResumeRequest) { q.Overrides = []Override{{"move", "agreed with the team"}} }), Succeeded)
			})
		})
	}
}
