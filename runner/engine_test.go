package runner

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

func TestStepsRunInOrderAndSeeEachOther(t *testing.T) {
	l := newLab(t)
	r := l.exec(l.program(bookHead + `
steps:
  - {id: a, uses: mem.set, with: {key: x, value: 3}}
  - {id: b, uses: mem.get, with: {key: x}, expect: value == 3}
  - {id: c, uses: mem.set, with: {key: y, value: "${{ steps.b.value + 1 }}"}}
  - {id: again, uses: mem.set, with: {key: y, value: 4}}
outputs: {y: steps.c.value, again: steps.again.status}
`))
	l.end(r, Succeeded)
	if got := l.w.state(); got != `{"x":3,"y":4}` {
		t.Errorf("world %s", got)
	}
	if r.Outputs["y"] != 4 || r.Outputs["again"] != "ok" {
		t.Errorf("outputs %v: a step that finds its state there already is ok, not changed", r.Outputs)
	}
}

func TestGuardsOfAStep(t *testing.T) {
	for _, c := range []struct {
		name, steps, world string
		want               Status
	}{
		{"when false skips", `[{id: a, uses: mem.set, with: {key: x, value: 1}, when: "1 > 2"}]`, `{}`, Succeeded},
		{"require false fails before it acts", `[{id: a, uses: mem.set, with: {key: x, value: 1}, require: "1 > 2"}]`, `{}`, Failed},
		{"expect false fails", `[{id: a, uses: mem.set, with: {key: x, value: 1}, expect: value == 2}]`, `{"x":1}`, Failed},
		{"continue goes on", `[{id: a, uses: mem.set, with: {key: x, value: 1}, expect: value == 2, on-failure: continue}, {id: b, uses: mem.set, with: {key: y, value: 1}}]`, `{"x":1,"y":1}`, Succeeded},
		{"rescue", `[{id: a, uses: mem.set, with: {key: x, value: 1}, expect: value == 2, rescue: [{id: r, uses: mem.set, with: {key: y, value: 7}, when: error.kind == "expect"}]}]`, `{"x":1,"y":7}`, Succeeded},
		{"rollback of a group", `[{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: g, on-failure: rollback, steps: [{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2}]}]`, `{"z":1}`, Failed},
		{"rollback of the run", `[{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2, on-failure: rollback-run}]`, `{}`, RolledBack},
		{"rollback ends at a step without a way back", `[{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: m, uses: mem.add, with: {key: m, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2, on-failure: rollback-run}]`, `{"m":1,"z":1}`, Failed},
		{"undo none is passed over", `[{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: m, uses: mem.add, undo: none, with: {key: m, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2, on-failure: rollback-run}]`, `{"m":1}`, RolledBack},
		{"undo steps", `[{id: m, uses: mem.add, undo: [{id: u, uses: mem.set, with: {key: m, value: 0}}], with: {key: m, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2, on-failure: rollback-run}]`, `{"m":0}`, RolledBack},
		{"point of no return", `[{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: p, uses: mem.set, point-of-no-return: true, with: {key: p, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2, on-failure: rollback-run}]`, `{"p":1,"z":1}`, Failed},
		{"restore at the end", `[{id: a, uses: mem.set, restore: end, with: {key: x, value: 1}}, {id: b, uses: mem.get, with: {key: x}, expect: value == 1}]`, `{}`, Succeeded},
		{"for-each", `[{id: a, for-each: [1, 2, 3], uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}}]`, `{"k1":1,"k2":2,"k3":3}`, Succeeded},
		{"items and by", `[{id: a, for-each: [1, 2, 3], uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}}, {id: s, uses: check, with: {that: ["sum(steps.a.items, .value) == 6", "steps.a.by[\"2\"].value == 2"]}}]`, `{"k1":1,"k2":2,"k3":3}`, Succeeded},
		{"max-failures", `[{id: a, for-each: [1, 2, 3], max-failures: 1, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, expect: value != 2}]`, `{"k1":1,"k2":2,"k3":3}`, Succeeded},
		{"rollback-item", `[{id: a, for-each: [1, 2, 3], max-failures: 1, on-failure: rollback-item, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, expect: value != 2}]`, `{"k1":1,"k3":3}`, Succeeded},
		{"waves", `[{id: a, for-each: [1, 2, 3, 4], batch: [1, 100%], uses: mem.set, with: {key: "k${{ item }}", value: 1}, after-batch: [{id: w, uses: mem.add, undo: none, with: {key: "w${{ batch.index }}", value: "${{ len(batch.items) }}"}}]}]`, `{"k1":1,"k2":1,"k3":1,"k4":1,"w0":1,"w1":3}`, Succeeded},
		{"repeat", `[{id: g, repeat: {until: steps.n.value >= 3, max: 5, every: 1ms}, steps: [{id: n, uses: mem.add, undo: none, with: {key: n, value: 1}}]}]`, `{"n":3}`, Succeeded},
		{"repeat gives up", `[{id: g, repeat: {until: steps.n.value >= 9, max: 2, every: 1ms}, steps: [{id: n, uses: mem.add, undo: none, with: {key: n, value: 1}}]}]`, `{"n":2}`, Failed},
		{"finally after failure", `[{id: b, uses: mem.set, with: {key: y, value: 1}, expect: value == 2}]` + "\nfinally: [{id: f, uses: mem.set, with: {key: f, value: 1}}]", `{"f":1,"y":1}`, Failed},
		{"parallel", `[{id: g, parallel: true, steps: [{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}}]}, {id: c, uses: mem.get, with: {key: x}, expect: value == steps.b.value}]`, `{"x":1,"y":1}`, Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			r := l.exec(l.program(bookHead + "steps: " + c.steps + "\n"))
			l.end(r, c.want)
			if got := l.w.state(); got != c.world {
				t.Errorf("world %s, want %s (%v)", got, c.world, r.Err)
			}
		})
	}
}

func TestSubRunbook(t *testing.T) {
	l := newLab(t)
	r := l.exec(l.program(bookHead+`
steps:
  - {id: cut, uses: ./lib/sub.yaml, with: {n: 5}}
outputs: {got: steps.cut.got}
`, "lib/sub.yaml", `
version: 1
name: sub
inputs: {n: {type: int}}
steps:
  - {id: hold, uses: mem.set, with: {key: sub, value: "${{ inputs.n * 2 }}"}}
outputs: {got: steps.hold.value}
`))
	l.end(r, Succeeded)
	if r.Outputs["got"] != 10 {
		t.Errorf("outputs %v", r.Outputs)
	}
	if !slices.ContainsFunc(l.records, func(r journal.Record) bool { return r.Step == "cut/hold" }) {
		t.Error("no record of cut/hold")
	}
}

func TestWaitUntilStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		// True from the third look on, false once more at the sixth.
		l.w.onGet = func(_ string, n int) {
			l.w.value["lag"] = map[bool]int{true: 0, false: 9}[n >= 3 && n != 6]
		}
		began := time.Now()
		r := l.exec(l.program(bookHead + `
steps:
  - {id: w, uses: mem.get, with: {key: lag}, wait-until: value == 0, every: 1s, stable: 5s, timeout: 1h}
`))
		l.end(r, Succeeded)
		// Looks 7 to 12 hold: five seconds from the seventh, which is at second 6.
		if took := time.Since(began); took != 11*time.Second {
			t.Errorf("took %v, want 11s: a break starts the window anew", took)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	for _, c := range []struct{ name, step, kind string }{
		{"timeout", `{id: w, uses: mem.get, with: {key: lag}, wait-until: value == 0, timeout: 30s}`, "timeout"},
		{"stall", `{id: w, uses: mem.get, with: {key: lag}, wait-until: value == 0, stall: 10s, timeout: 1h}`, "stall"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.w.value["lag"] = 5
				r := l.exec(l.program(bookHead + "steps: [" + c.step + "]\n"))
				l.end(r, Failed)
				if e := steps.Classify(r.Err); e.Kind != c.kind || !strings.Contains(e.Error(), "value = 5") {
					t.Errorf("error %s: %v; want kind %s and the last observation", e.Kind, e, c.kind)
				}
			})
		})
	}
}

func TestWaitShrugsOffTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.w.fail["get x"] = &steps.Error{Kind: "refused", Temporary: true, Err: errors.New("refused")}
		r := l.exec(l.program(bookHead + `steps: [{id: w, uses: mem.get, with: {key: x}, wait-until: value == 0, timeout: 1m}]` + "\n"))
		l.end(r, Succeeded)
		l.w.fail["get x"] = steps.Errorf("auth", "NOAUTH")
		r = l.exec(l.program(bookHead + `steps: [{id: w, uses: mem.get, with: {key: x}, wait-until: value == 0, timeout: 1m}]` + "\n"))
		l.end(r, Failed)
	})
}

func TestUnknownOutcomeIsSettled(t *testing.T) {
	t.Run("by the probe", func(t *testing.T) {
		l := newLab(t)
		l.w.lost["x"] = true
		r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, expect: note == "done"}]` + "\n"))
		l.end(r, Succeeded)
		if n := len(l.w.log); n != 1 {
			t.Errorf("%d effects: %v", n, l.w.log)
		}
	})
	t.Run("in doubt without one", func(t *testing.T) {
		l := newLab(t)
		l.w.lost["x"] = true
		r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, retry: {attempts: 5, delay: 1ms}}]` + "\n"))
		l.end(r, InDoubt)
		r = l.resume()
		l.end(r, InDoubt)
		if got := l.w.state(); got != `{"x":1}` {
			t.Errorf("world %s: an unknown outcome must never be repeated", got)
		}
		r = l.resume(func(q *ResumeRequest) { q.Decisions = []Decision{{Step: "a", Choice: "done", Reason: "looked"}} })
		l.end(r, Succeeded)
		if got := l.w.state(); got != `{"x":1}` {
			t.Errorf("world %s after the decision that it was done", got)
		}
	})
	t.Run("by the author's probe", func(t *testing.T) {
		l := newLab(t)
		l.w.lost["x"] = true
		r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, probe: {uses: mem.get, with: {key: x}, done: value == 1}}]` + "\n"))
		l.end(r, Succeeded)
		if got := l.w.state(); got != `{"x":1}` {
			t.Errorf("world %s", got)
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.w.fail["x"] = &steps.Error{Kind: "loading", Temporary: true, Err: errors.New("LOADING")}
		l.end(l.exec(l.program(bookHead+`steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}]`+"\n")), Failed)
		l.w.fail["x"] = &steps.Error{Kind: "loading", Temporary: true, Err: errors.New("LOADING")}
		l.end(l.exec(l.program(bookHead+`steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, retry: {attempts: 2, delay: 5s, if: error.temporary}}]`+"\n")), Succeeded)
	})
}

func TestInterruptInAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.w.value["lag"] = 1
		p := l.program(bookHead + `
steps:
  - {id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}
  - id: g
    parallel: true
    steps:
      - {id: w, uses: mem.get, with: {key: lag}, wait-until: value == 0, timeout: 1h}
      - {id: v, uses: mem.get, with: {key: lag}, wait-until: value == 0, timeout: 1h}
`)
		l.interrupt(p, 10*time.Second)
		l.w.value["lag"] = 0
		l.end(l.resume(), Succeeded)
		if got := l.w.state(); got != `{"lag":0,"x":1}` {
			t.Errorf("world %s: what had finished ran again", got)
		}
	})
}

func TestGates(t *testing.T) {
	book := bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: {message: "Set ${{ 1 + 1 }}?"}}]` + "\n"
	t.Run("nobody is there", func(t *testing.T) {
		l := newLab(t)
		r := l.exec(l.program(book))
		l.end(r, Paused)
		if l.w.state() != `{}` || !strings.Contains(r.Hint, "--approve") {
			t.Errorf("world %s, hint %q", l.w.state(), r.Hint)
		}
		l.end(l.resume(), Paused)
		l.end(l.resume(func(q *ResumeRequest) { q.Approvals.Steps = []string{"a"} }), Succeeded)
		if l.w.state() != `{"x":1}` {
			t.Errorf("world %s", l.w.state())
		}
	})
	t.Run("a person", func(t *testing.T) {
		l := newLab(t)
		var seen Question
		l.ask = func(_ context.Context, q Question) (Answer, error) { seen = q; return Answer{Approved: true}, nil }
		l.end(l.exec(l.program(book)), Succeeded)
		if seen.Message != "Set 2?" || len(seen.Sends) != 1 || seen.Sends[0].Command != "set x 1" {
			t.Errorf("question %+v", seen)
		}
	})
	t.Run("refused", func(t *testing.T) {
		l := newLab(t)
		l.ask = func(context.Context, Question) (Answer, error) { return Answer{Reason: "too late"}, nil }
		l.end(l.exec(l.program(book)), Failed)
		if l.w.state() != `{}` {
			t.Errorf("world %s", l.w.state())
		}
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	l := newLab(t)
	r := l.exec(l.program(bookHead+`
steps:
  - {id: a, uses: mem.set, with: {key: x, value: 1}}
  - {id: b, uses: mem.get, with: {key: x}, wait-until: value == 1, timeout: 1m}
  - {id: c, uses: mem.set, when: steps.a.value == 1, with: {key: y, value: 1}}
  - {id: d, uses: mem.get, with: {key: x}, expect: value == 0}
`), func(q *Request) { q.DryRun = true })
	l.end(r, Succeeded)
	if len(l.w.log) > 0 {
		t.Errorf("a dry run changed something: %v", l.w.log)
	}
	var said []string
	for _, r := range l.records {
		if r.Type == recStepFinished {
			var b StepFinished
			if err := r.Decode(&b); err != nil {
				t.Fatal(err)
			}
			said = append(said, r.Step+" "+b.Status)
		}
	}
	if got := strings.Join(said, ", "); got != "a would-change, b unknown, c unknown, d unknown" {
		t.Errorf("said %s", got)
	}
	if runs, _ := l.store.List(); len(runs) > 0 {
		t.Errorf("a dry run left a run: %v", runs)
	}
}
