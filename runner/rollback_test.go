package runner

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

func TestScopesOfARollback(t *testing.T) {
	set := func(id string) string { return "{id: " + id + ", uses: mem.set, with: {key: " + id + ", value: 1}}" }
	bad := "{id: bad, uses: mem.get, with: {key: never}, expect: value == 1}"
	for _, c := range []struct {
		name, steps, world string
		want               Status
	}{
		{"a step", `[` + set("a") + `, {id: b, uses: mem.set, on-failure: rollback, with: {key: b, value: 1}, expect: value == 2}]`, `{"a":1}`, Failed},
		{"a group", `[` + set("a") + `, {id: g, on-failure: rollback, steps: [` + set("b") + `, ` + bad + `]}]`, `{"a":1}`, Failed},
		{"a loop", `[` + set("a") + `, {id: l, for-each: "[1, 2, 3]", on-failure: rollback, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, expect: value != 3}]`, `{"a":1}`, Failed},
		{"an item", `[{id: l, for-each: "[1, 2, 3]", on-failure: rollback-item, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, expect: value != 2}]`, `{"k1":1}`, Failed},
		{"the run, from inside", `[` + set("a") + `, {id: g, steps: [` + set("b") + `, {id: bad, uses: mem.get, on-failure: rollback-run, with: {key: never}, expect: value == 1}]}]`, `{}`, RolledBack},
		{"a group with its own undo, inside of which another is rolled back", `[{id: g, on-failure: continue, undo: [{id: u, uses: mem.set, with: {key: u, value: 1}}], steps: [` + set("a") + `, {id: h, on-failure: rollback, steps: [` + set("b") + `, ` + bad + `]}]}]`, `{"a":1}`, Succeeded},
		{"a point of no return on a read", `[` + set("a") + `, {id: p, uses: mem.get, point-of-no-return: true, with: {key: x}}, ` + set("b") + `, {id: bad, uses: mem.get, on-failure: rollback-run, with: {key: never}, expect: value == 1}]`, `{"a":1}`, Failed},
		{"a point of no return on a group", `[` + set("a") + `, {id: p, point-of-no-return: true, steps: [` + set("b") + `]}, ` + set("c") + `, {id: bad, uses: mem.get, on-failure: rollback-run, with: {key: never}, expect: value == 1}]`, `{"a":1}`, Failed},
		{"rescue comes first", `[{id: g, on-failure: rollback, rescue: [` + set("r") + `, {id: bad2, uses: mem.get, with: {key: never}, expect: value == 1}], steps: [` + set("b") + `, ` + bad + `]}]`, `{}`, Failed},
		{"an inner stop", `[{id: g, on-failure: continue, steps: [` + set("b") + `, {id: bad, uses: mem.get, on-failure: stop, with: {key: never}, expect: value == 1}]}]`, `{"b":1}`, Failed},
		{"what had failed untouched", `[{id: m, uses: mem.set, on-failure: rollback-run, with: {key: refused, value: 1}}]`, `{}`, RolledBack},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.w.fail["refused"] = steps.Errorf("reply", "ERR")
			r := l.exec(l.program(bookHead + "steps: " + c.steps + "\n"))
			l.end(r, c.want)
			if got := l.w.state(); got != c.world {
				t.Errorf("world %s, want %s (%v)\n%s", got, c.world, r.Err, strings.Join(l.w.log, "\n"))
			}
		})
	}
}

func TestRollbackOfASubRunbook(t *testing.T) {
	sub := `
version: 1
name: sub
on-failure: rollback
steps:
  - {id: s1, uses: mem.set, with: {key: s1, value: 1}}
  - {id: s2, uses: mem.set, with: {key: s2, value: 1}, expect: value == 2}
finally:
  - {id: late, uses: mem.set, with: {key: late, value: 1}}
`
	text := bookHead + `
steps:
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
  - {id: cut, uses: ./sub.yaml, on-failure: continue}
  - {id: b, uses: mem.set, with: {key: b, value: 1}}
`
	reference := newLab(t)
	reference.end(reference.exec(reference.program(text, "sub.yaml", sub)), Succeeded)
	want := `{"a":1,"b":1,"late":1}`
	if got := reference.w.state(); got != want {
		t.Fatalf("world %s", got)
	}
	for at := 2; at <= len(reference.records); at++ {
		l := newLab(t)
		l.dieAt(at)
		l.exec(l.program(text, "sub.yaml", sub))
		l.options = journal.Options{}
		r := l.resume()
		if r.Status != Succeeded || l.w.state() != want {
			t.Errorf("record %d: %s (%v), world %s", at, r.Status, r.Err, l.w.state())
		}
	}
}

func TestUndoStepsAreNotRepeated(t *testing.T) {
	l := newLab(t)
	p := l.program(strings.Replace(bookHead, "\n", "\non-failure: rollback\n", 1) + `
steps:
  - {id: a, uses: mem.set, undo: [{id: u1, uses: mem.add, undo: none, with: {key: u, value: 1}}, {id: u2, uses: mem.add, undo: none, with: {key: u, value: 1}}], with: {key: a, value: 1}}
  - {id: bad, uses: mem.get, with: {key: never}, expect: value == 1}
`)
	l.dieBefore(p, recStepFinished, "u1")
	r := l.resume()
	l.end(r, InDoubt)
	if r.Step != "u1" || !strings.Contains(r.Hint, "--decide 'u1=") {
		t.Errorf("step %s, hint %s", r.Step, r.Hint)
	}
	l.end(l.resume(func(q *ResumeRequest) { q.Decisions = []Decision{{"u1", "done", "looked"}} }), RolledBack)
	if l.w.get("u") != 2 {
		t.Errorf("world %s: a step of an undo is not repeated", l.w.state())
	}
}

func TestTemporarySettings(t *testing.T) {
	text := bookHead + `
steps:
  - {id: one, uses: mem.set, restore: end, with: {key: one, value: 1}}
  - {id: two, uses: mem.set, restore: end, with: {key: two, value: 1}}
  - {id: each, for-each: "[1, 2]", uses: mem.set, restore: end, with: {key: "e${{ item }}", value: 1}}
  - {id: g, undo: [{id: u, uses: mem.set, with: {key: u, value: 1}}], steps: [{id: in, uses: mem.set, restore: end, with: {key: in, value: 1}}]}
  - {id: ok, uses: mem.get, with: {key: ok}, expect: value == 1}
`
	t.Run("stay when the run can be resumed, and go when it is over", func(t *testing.T) {
		l := newLab(t)
		l.end(l.exec(l.program(text)), Failed)
		if got := l.w.state(); got != `{"e1":1,"e2":1,"in":1,"one":1,"two":1}` {
			t.Errorf("world %s", got)
		}
		l.w.value["ok"] = 1
		l.end(l.resume(), Succeeded)
		if got := l.w.state(); got != `{"ok":1}` {
			t.Errorf("world %s", got)
		}
	})
	t.Run("somebody else's value stays", func(t *testing.T) {
		l := newLab(t)
		l.w.onGet = func(key string, _ int) {
			if key == "ok" {
				l.w.value["two"], l.w.value["ok"] = 9, 1
			}
		}
		l.end(l.exec(l.program(text)), Succeeded)
		if got := l.w.state(); got != `{"ok":1,"two":9}` {
			t.Errorf("world %s", got)
		}
		refused := false
		for _, r := range l.records {
			var b UndoFinished
			if r.Type == recUndoFinished && r.Step == "two" && r.Decode(&b) == nil {
				refused = b.Status == "refused" && b.Error != nil
			}
		}
		if !refused {
			t.Error("that is not said")
		}
	})
	t.Run("what was put back is not set again by a resume", func(t *testing.T) {
		l := newLab(t)
		l.w.value["ok"] = 1
		p := l.program(text)
		l.dieBefore(p, recUndoStarted, "one")
		before := len(l.w.log)
		l.end(l.resume(), Succeeded)
		for _, e := range l.w.log[before:] {
			if strings.HasPrefix(e, "set ") {
				t.Errorf("the resume did: %s", e)
			}
		}
		if got := l.w.state(); got != `{"ok":1}` {
			t.Errorf("world %s", got)
		}
	})
}

func TestFinally(t *testing.T) {
	text := bookHead + `
steps:
  - {id: a, uses: mem.set, confirm: 'Go?', with: {key: a, value: 1}}
  - {id: ok, uses: mem.get, with: {key: ok}, expect: value == 1}
finally:
  - {id: f, uses: mem.add, undo: none, idempotent: true, with: {key: f, value: 1}, why: It counts., require: "steps.ok?.value != 2"}
`
	l := newLab(t)
	l.end(l.exec(l.program(text)), Paused)
	if l.w.get("f") != 0 {
		t.Error("finally ran although the run is paused")
	}
	l.end(l.resume(func(q *ResumeRequest) { q.Approvals.Steps = []string{"a"} }), Failed)
	l.w.value["ok"] = 1
	l.end(l.resume(), Succeeded)
	if l.w.get("f") != 2 {
		t.Errorf("finally ran %d times, want once after the failure and once at the end", l.w.get("f"))
	}
	l = newLab(t)
	l.end(l.exec(l.program(bookHead+`
steps: [{id: a, uses: mem.set, with: {key: a, value: 1}}]
finally: [{id: f, uses: mem.get, with: {key: f}, expect: value == 1}]
`)), Failed)
	l.w.value["f"] = 1
	l.end(l.resume(), Succeeded)
}

func TestInterruptedRollbackGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{Name: "mem.back", Doc: "Slow way back.", Effect: steps.Write,
			Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) { return steps.Change{}, nil },
			Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) {
				return steps.Untouched, memOut{}, nil
			},
			Apply: func(_ context.Context, _ steps.Session, in memIn) (memOut, error) {
				return memOut{}, l.w.act(in.Key, func() { l.w.value[in.Key]++ })
			},
			Undo: func(ctx context.Context, s steps.Session, in memIn, _ *memOut) error {
				if err := s.Sleep(ctx, time.Minute); err != nil {
					return err
				}
				return l.w.act(in.Key, func() { delete(l.w.value, in.Key) })
			}}).Define())
		text := strings.Replace(bookHead, "\n", "\non-failure: rollback\n", 1) + `
steps:
  - {id: a, uses: mem.back, with: {key: a}}
  - {id: b, uses: mem.back, with: {key: b}}
  - {id: bad, uses: mem.get, with: {key: never}, expect: value == 1}
finally: [{id: f, uses: mem.set, with: {key: f, value: 1}}]
`
		l.ctx = ctx
		time.AfterFunc(90*time.Second, func() { cancel(ErrInterrupted) })
		l.end(l.exec(l.program(text)), Interrupted)
		if got := l.w.state(); got != `{"a":1}` {
			t.Errorf("world %s", got)
		}
		l.ctx = nil
		l.end(l.resume(), RolledBack)
		if got := l.w.state(); got != `{"f":1}` {
			t.Errorf("world %s", got)
		}
	})
}

func TestARollbackIsNotCutByATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.end(l.exec(l.program(bookHead+`
steps:
  - id: g
    timeout: 10s
    on-failure: rollback
    steps:
      - {id: a, uses: mem.set, with: {key: a, value: 1}}
      - {id: w, uses: mem.get, with: {key: x}, wait-until: value == 1, timeout: 1h}
`)), Failed)
		if got := l.w.state(); got != `{}` {
			t.Errorf("world %s", got)
		}
	})
}

// A branch that a resume had not yet walked through when its sibling failed has finished
// steps all the same: a rollback of the group puts them back.
func TestRollbackFindsWhatAnUnwalkedBranchHadDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.w.value["left"] = 1
		p := l.program(bookHead + `
steps:
  - id: g
    on-failure: rollback
    parallel: true
    steps:
      - id: left
        steps:
          - {id: look, uses: mem.get, with: {key: left}, recheck: true, wait-until: value == 1, timeout: 1h}
          - {id: act, uses: mem.set, with: {key: x, value: 7}}
          - {id: stay, uses: mem.get, with: {key: right}, wait-until: value == 1, timeout: 1h}
      - {id: right, uses: mem.get, with: {key: right}, wait-until: value == 1, timeout: 1m}
`)
		l.interrupt(p, 10*time.Second)
		if l.w.value["x"] != 7 {
			t.Fatalf("world %s: act did not run", l.w.state())
		}
		l.w.value["left"] = 0 // the resume waits at look until right has failed
		l.end(l.resume(), Failed)
		if got := l.w.state(); got != `{"left":0}` {
			t.Errorf("world %s: act was not put back", got)
		}
	})
}
