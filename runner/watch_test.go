package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbook/steps"
)

type gaugeIn struct {
	Name string `yaml:"name" doc:"Which."`
}
type gaugeOut struct {
	Value *int `yaml:"value" doc:"What it shows; null: nothing."`
}

// gauge adds a read whose answer depends on the time since the test began.
func (l *lab) gauge(read func(ctx context.Context, at time.Duration, name string) (int, error)) {
	began := time.Now()
	l.w.extra = append(l.w.extra, (&steps.Kind[gaugeIn, gaugeOut]{Name: "mem.gauge", Doc: "Shows.", Effect: steps.Read,
		Read: func(ctx context.Context, v steps.View, in gaugeIn) (gaugeOut, error) {
			value, err := read(ctx, v.Now().Sub(began), in.Name)
			if value < 0 {
				return gaugeOut{}, err
			}
			return gaugeOut{&value}, err
		}}).Define())
}

// violated gives a gauge that shows 50 within the times, and 0 otherwise.
func violated(spans ...time.Duration) func(context.Context, time.Duration, string) (int, error) {
	return func(_ context.Context, at time.Duration, _ string) (int, error) {
		for i := 0; i+1 < len(spans); i += 2 {
			if at >= spans[i] && at < spans[i+1] {
				return 50, nil
			}
		}
		return 0, nil
	}
}

// bodies are the bodies of the records of a type in this process, in order.
func bodies[T any](t *testing.T, l *lab, typ string) []T {
	t.Helper()
	var all []T
	for _, r := range l.records {
		if r.Type != typ {
			continue
		}
		var b T
		if err := r.Decode(&b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

const guardedBook = bookHead + `
guards:
  - {id: errors, uses: mem.gauge, every: 2s, require: value < 10, for: 5s, then: THEN}
steps:
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
  - {id: hold, uses: sleep, with: {duration: 1m}}
  - {id: b, uses: mem.set, with: {key: b, value: 1}}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

const forever = 1000 * time.Hour

func TestGuardTrips(t *testing.T) {
	unobservable := errors.New("connection refused")
	for _, c := range []struct {
		name, then string
		gauge      func(context.Context, time.Duration, string) (int, error)
		end        Status
		world      string
		after      time.Duration // of the trip, since the start; 0: none
		seen       string        // in the words of the trip
	}{
		{"pause", "pause", violated(10*time.Second, forever), Paused, `{"a":1}`, 15 * time.Second, "value < 10 has not held for 5s (value = 50)"},
		{"stop", "stop", violated(10*time.Second, forever), Failed, `{"a":1,"tidy":1}`, 15 * time.Second, "(value = 50)"},
		{"rollback", "rollback", violated(10*time.Second, forever), RolledBack, `{"tidy":1}`, 15 * time.Second, "(value = 50)"},
		{"recovers in time", "pause", violated(10*time.Second, 14*time.Second), Succeeded, `{"a":1,"b":1,"tidy":1}`, 0, ""},
		{"breaks begin anew", "pause", violated(10*time.Second, 14*time.Second, 16*time.Second, forever), Paused, `{"a":1}`, 21 * time.Second, ""},
		{"null", "pause", func(_ context.Context, at time.Duration, _ string) (int, error) {
			if at < 10*time.Second {
				return 0, nil
			}
			return -1, nil
		}, Paused, `{"a":1}`, 15 * time.Second, "value = null"},
		{"cannot be observed", "stop", func(_ context.Context, at time.Duration, _ string) (int, error) {
			if at < 10*time.Second {
				return 0, nil
			}
			return -1, unobservable
		}, Failed, `{"a":1,"tidy":1}`, 15 * time.Second, "cannot be observed: connection refused"},
		{"hangs", "pause", func(ctx context.Context, at time.Duration, _ string) (int, error) {
			if at < 10*time.Second {
				return 0, nil
			}
			<-ctx.Done()
			return -1, ctx.Err()
		}, Paused, `{"a":1}`, 40 * time.Second, "the look took too long (30s)"},
		{"never observed", "pause", func(context.Context, time.Duration, string) (int, error) { return -1, unobservable }, Paused, `{}`, 5 * time.Second, ""},
		{"violated at the start", "pause", violated(0, 3*time.Second), Succeeded, `{"a":1,"b":1,"tidy":1}`, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.gauge(c.gauge)
				began := time.Now()
				r := l.exec(l.program(strings.Replace(guardedBook, "THEN", c.then, 1)))
				l.end(r, c.end)
				if got := l.w.state(); got != c.world {
					t.Errorf("world %s, want %s", got, c.world)
				}
				trips := bodies[GuardTripped](t, l, recGuardTripped)
				if c.after == 0 {
					if len(trips) > 0 {
						t.Fatalf("it tripped: %s", trips[0].Words())
					}
					return
				}
				if len(trips) != 1 {
					t.Fatalf("%d trips, want one", len(trips))
				}
				for _, rec := range l.records {
					if rec.Type == recGuardTripped && rec.Time.Sub(began) != c.after {
						t.Errorf("it tripped after %s, want %s", rec.Time.Sub(began), c.after)
					}
				}
				if words := trips[0].Words(); !strings.Contains(words, c.seen) || !strings.Contains(words, "guard errors: value < 10") {
					t.Errorf("words %q, want %q in them", words, c.seen)
				}
				if r.Err == nil || !strings.Contains(r.Err.Error(), "guard errors") {
					t.Errorf("the result says %v", r.Err)
				}
			})
		})
	}
}

// What is being changed when a guard pauses ends by itself; a rollback cancels it.
func TestGuardAndWhatRuns(t *testing.T) {
	for _, c := range []struct {
		then, log string
		end       Status
	}{
		{"pause", "began, done", Paused},
		{"stop", "began, done", Failed},
		{"rollback", "began, cancelled", RolledBack},
	} {
		t.Run(c.then, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.gauge(violated(10*time.Second, forever))
				var log []string
				l.w.odd("mem.slow", true, func(ctx context.Context, s steps.Session, _ memIn) (memOut, error) {
					log = append(log, "began")
					if err := s.Sleep(ctx, 30*time.Second); err != nil {
						log = append(log, "cancelled")
						return memOut{}, steps.Errorf("refused", "gave up: %w", err)
					}
					log = append(log, "done")
					return memOut{}, nil
				})
				r := l.exec(l.program(bookHead + `
guards: [{id: errors, uses: mem.gauge, every: 2s, require: value < 10, then: ` + c.then + `}]
steps:
  - {id: cut, uses: mem.slow, undo: none, why: a test, with: {key: a}}
  - {id: b, uses: mem.set, with: {key: b, value: 1}}
`))
				l.end(r, c.end)
				if got := strings.Join(log, ", "); got != c.log {
					t.Errorf("it %s, want %s", got, c.log)
				}
				if got := l.w.state(); got != "{}" {
					t.Errorf("world %s: something started after the trip", got)
				}
			})
		})
	}
}

// A group's guard is looked at while the group goes on, between its waves too, and not before or after.
func TestGuardOfGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		var mu sync.Mutex
		var looks []time.Duration
		l.gauge(func(_ context.Context, at time.Duration, _ string) (int, error) {
			mu.Lock()
			looks = append(looks, at)
			mu.Unlock()
			return 0, nil
		})
		l.end(l.exec(l.program(bookHead+`
steps:
  - {id: before, uses: sleep, with: {duration: 1m}}
  - id: move
    for-each: [1, 2]
    batch: [1]
    pause-between: 1m
    guards: [{id: errors, uses: mem.gauge, every: 10s, require: value < 10}]
    steps:
      - {id: a, uses: mem.set, with: {key: "a${{ item }}", value: 1}}
  - {id: after, uses: sleep, with: {duration: 1m}}
`)), Succeeded)
		if first, last := looks[0], looks[len(looks)-1]; first != time.Minute || last < 110*time.Second || last > 2*time.Minute || len(looks) < 6 {
			t.Errorf("looked at %v", looks)
		}
	})
}

const guardedGroup = bookHead + `
steps:
  - {id: before, uses: mem.set, with: {key: before, value: 1}}
  - id: move
    OUTER
    guards: [{id: errors, uses: mem.gauge, every: 2s, require: value < 10, then: THEN}]
    steps:
      - {id: a, uses: mem.set, with: {key: a, value: 1}}
      - {id: hold, uses: sleep, with: {duration: 1m}}
      - {id: b, uses: mem.set, with: {key: b, value: 1}}
    rescue:
      - {id: help, uses: mem.set, with: {key: help, value: 1}}
  - {id: after, uses: mem.set, with: {key: after, value: 1}}
`

// What a group's guard does: no rescue is tried, and a rollback is of the group.
func TestGuardOfGroupTrips(t *testing.T) {
	for _, c := range []struct {
		then, outer string
		end         Status
		world       string
		resumed     string
	}{
		{"pause", "", Paused, `{"a":1,"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
		{"stop", "", Failed, `{"a":1,"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
		{"stop", "on-failure: continue", Failed, `{"a":1,"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
		{"rollback", "", Failed, `{"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
		{"rollback", "for-each: [1]", Failed, `{"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
		{"rollback", "retry: {attempts: 3}", Failed, `{"before":1}`, `{"a":1,"after":1,"b":1,"before":1}`},
	} {
		t.Run(c.then+" "+c.outer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.gauge(violated(10*time.Second, time.Minute))
				r := l.exec(l.program(strings.Replace(strings.Replace(guardedGroup, "OUTER", c.outer, 1), "THEN", c.then, 1)))
				l.end(r, c.end)
				if got := l.w.state(); got != c.world {
					t.Errorf("world %s, want %s", got, c.world)
				}
				l.end(l.resume(), Paused)
				if got := l.w.state(); got != c.world {
					t.Errorf("world %s, want %s: the guard does not hold yet", got, c.world)
				}
				time.Sleep(time.Minute)
				l.end(l.resume(), Succeeded)
				if got := l.w.state(); got != c.resumed {
					t.Errorf("world %s, want %s", got, c.resumed)
				}
			})
		})
	}
}

// finally, undo and rollback run although a guard does not hold, also in a runbook used there.
func TestGuardDoesNotHinderTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.gauge(violated(time.Second, forever))
		l.end(l.exec(l.program(bookHead+`
on-failure: rollback
steps:
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
  - {id: b, uses: mem.set, with: {key: b, value: 1}, undo: [{id: back, uses: ./sub.yaml}]}
  - {id: hold, uses: sleep, with: {duration: 10s}}
  - {id: bad, uses: mem.set, with: {key: bad, value: 1}, expect: value == 2}
finally:
  - {id: last, uses: ./sub.yaml}
`, "sub.yaml", `
version: 1
name: sub
steps:
  - id: s
    guards: [{id: errors, uses: mem.gauge, every: 2s, require: value < 10}]
    max-age: {of: 1ms}
    window: {days: [mon], zone: UTC}
    steps: [{id: undo, uses: mem.set, with: {key: b, value: 0}}]
`)), RolledBack)
	})
}

// A guard in a runbook used as a step, and in a loop, goes by its path.
func TestGuardPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.gauge(func(_ context.Context, at time.Duration, name string) (int, error) {
			if name == "n2" && at < time.Hour {
				return 50, nil
			}
			return 0, nil
		})
		r := l.exec(l.program(bookHead+`
steps:
  - {id: each, for-each: [1, 2], uses: ./sub.yaml, with: {n: "${{ item }}"}}
`, "sub.yaml", `
version: 1
name: sub
inputs: {n: {type: int}}
steps:
  - id: s
    guards: [{id: errors, uses: mem.gauge, with: {name: "n${{ inputs.n }}"}, require: value < 10}]
    steps: [{id: set, uses: mem.set, with: {key: "k${{ inputs.n }}", value: 1}}]
`))
		l.end(r, Paused)
		if trip := bodies[GuardTripped](t, l, recGuardTripped)[0]; trip.Guard != "each[item=2]/errors" || r.Step != "each[item=2]/s" {
			t.Errorf("guard %s at %s", trip.Guard, r.Step)
		}
		l.end(l.resume(func(q *ResumeRequest) { q.Overrides = []Override{{"each[item=2]/errors", "known"}} }), Succeeded)
	})
}

// A dry run looks once, says what it saw, and goes on.
func TestGuardInDryRun(t *testing.T) {
	l := newLab(t)
	looks := 0
	l.gauge(func(context.Context, time.Duration, string) (int, error) { looks++; return 50, nil })
	r := l.exec(l.program(strings.Replace(guardedBook, "THEN", "pause", 1)), func(q *Request) { q.DryRun = true })
	l.end(r, Succeeded)
	seen := bodies[GuardObserved](t, l, recGuardObserved)
	if looks != 1 || len(seen) != 1 || seen[0].Holds || fmt.Sprint(seen[0].Values["value"]) != "50" {
		t.Errorf("%d looks, %+v", looks, seen)
	}
}

// Nothing is left behind, whatever a guard hangs in.
func TestHungGuardIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		free := make(chan struct{})
		l.gauge(func(_ context.Context, at time.Duration, _ string) (int, error) {
			if at > 3*time.Second {
				<-free // deaf to its context
			}
			return 0, nil
		})
		l.end(l.exec(l.program(strings.Replace(guardedBook, "THEN", "pause", 1))), Paused)
		close(free)
	})
}
