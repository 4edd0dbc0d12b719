package runner

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// starts counts the step-started records of a path.
func (l *lab) starts(path string) int {
	n := 0
	for _, r := range l.records {
		if r.Type == recStepStarted && r.Step == path {
			n++
		}
	}
	return n
}

// dieAt makes the next process die before it writes its n-th record.
func (l *lab) dieAt(n int) { l.options.Open = (&crashFile{at: n, how: beforeWrite}).open }

// dieBefore runs a program until it is about to write a record of this type and step.
func (l *lab) dieBefore(p *Program, typ, step string) {
	l.t.Helper()
	value := maps.Clone(l.w.value)
	trial := newLab(l.t)
	trial.exec(p)
	l.w.value = value
	at := slices.IndexFunc(trial.records, func(r journal.Record) bool { return r.Type == typ && r.Step == step })
	if at < 0 {
		l.t.Fatalf("there is no %s of %s", typ, step)
	}
	l.dieAt(at + 1)
	l.exec(p)
	l.options = journal.Options{}
}

func TestInDoubtAtAResume(t *testing.T) {
	for _, c := range []struct {
		name, step, world string
		decision          string
		want              Status
	}{
		{"a probe that says done", `{id: a, uses: mem.set, with: {key: x, value: 1}, expect: note == "done"}`, `{"x":1}`, "", Succeeded},
		{"no probe, not idempotent", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}`, `{"x":1}`, "", InDoubt},
		{"no probe, idempotent", `{id: a, uses: mem.add, idempotent: true, undo: none, with: {key: x, value: 1}}`, `{"x":2}`, "", Succeeded},
		{"the author's probe", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, probe: {uses: mem.get, with: {key: x}, done: value == 1}}`, `{"x":1}`, "", Succeeded},
		{"the author's probe says no", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, probe: {uses: mem.get, with: {key: x}, done: value == 2}}`, `{"x":2}`, "", Succeeded},
		{"decided: done", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, expect: value == 1}`, `{"x":1}`, "done", Succeeded},
		{"decided: redo", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}`, `{"x":2}`, "redo", Succeeded},
		{"decided: fail", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}`, `{"x":1}`, "fail", Failed},
		{"decided: fail, and handled", `{id: a, uses: mem.add, undo: none, on-failure: continue, with: {key: x, value: 1}}`, `{"x":1}`, "fail", Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			p := l.program(bookHead + "steps: [" + c.step + "]\n")
			l.dieBefore(p, recStepFinished, "a")
			r := l.resume(func(q *ResumeRequest) {
				if c.decision != "" {
					q.Decisions = []Decision{{Step: "a", Choice: c.decision, Reason: "looked"}}
				}
			})
			l.end(r, c.want)
			if got := l.w.state(); got != c.world {
				t.Errorf("world %s, want %s", got, c.world)
			}
			if c.want == InDoubt && !strings.Contains(r.Hint, "--decide 'a=done|redo|fail'") {
				t.Errorf("hint %q", r.Hint)
			}
		})
	}
}

func TestADecisionOutlivesACrash(t *testing.T) {
	for _, choice := range []string{"done", "redo", "fail"} {
		l := newLab(t)
		p := l.program(bookHead + `steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}]` + "\n")
		l.dieBefore(p, recStepFinished, "a")
		l.dieAt(3) // run-resumed, decision, and no more
		l.end(l.resume(func(q *ResumeRequest) { q.Decisions = []Decision{{Step: "a", Choice: choice, Reason: "looked"}} }), InDoubt)
		l.options = journal.Options{}
		want := map[string]Status{"done": Succeeded, "redo": Succeeded, "fail": Failed}[choice]
		l.end(l.resume(), want)
		if got, want := l.w.state(), map[string]string{"done": `{"x":1}`, "redo": `{"x":2}`, "fail": `{"x":1}`}[choice]; got != want {
			t.Errorf("%s: world %s, want %s", choice, got, want)
		}
	}
}

func TestDecisionsThatAreRefused(t *testing.T) {
	l := newLab(t)
	p := l.program(bookHead + `steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}, {id: b, uses: mem.add, undo: none, with: {key: y, value: 1}}]` + "\n")
	l.dieBefore(p, recStepFinished, "b")
	for _, d := range []Decision{{"a", "done", "looked"}, {"c", "done", "looked"}, {"b", "maybe", "looked"}, {"b", "done", ""}} {
		var usage *UsageError
		if _, err := l.tryResume(func(q *ResumeRequest) { q.Decisions = []Decision{d} }); !errors.As(err, &usage) {
			t.Errorf("%v: %v; want a usage error", d, err)
		}
	}
	l.end(l.resume(func(q *ResumeRequest) { q.Decisions = []Decision{{"b", "done", "looked"}} }), Succeeded)
}

func TestAProbeThatCannotTell(t *testing.T) {
	for _, c := range []struct {
		state      steps.State
		idempotent bool
		want       Status
	}{{steps.Partial, false, InDoubt}, {steps.Unclear, false, InDoubt}, {steps.Partial, true, Succeeded}, {steps.Unclear, true, Succeeded}} {
		l := newLab(t)
		started := false
		l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{
			Name: "mem.half", Doc: "Half.", Effect: steps.Write, Idempotent: c.idempotent, NoUndo: "no",
			Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) { return steps.Change{}, nil },
			Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) {
				if started {
					return c.state, memOut{}, nil
				}
				return steps.Untouched, memOut{}, nil
			},
			Apply: func(context.Context, steps.Session, memIn) (memOut, error) { started = true; return memOut{}, nil },
		}).Define())
		l.dieBefore(l.program(bookHead+`steps: [{id: a, uses: mem.half, undo: none, with: {key: x}}]`+"\n"), recStepFinished, "a")
		l.end(l.resume(), c.want)
	}
}

type spot struct {
	Addr string `yaml:"addr,required" doc:"Address."`
}

// spots are targets whose address comes from the environment of the test.
func spots(l *lab) {
	l.w.kinds = append(l.w.kinds, (&steps.TargetKind[spot, struct{}]{Name: "spot", Addr: func(s spot) string { return s.Addr }}).Define())
	l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{
		Name: "spot.add", Doc: "Adds.", On: []string{"spot"}, Effect: steps.Write, AuthorKnows: true, NoUndo: "no",
		Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) { return steps.Change{}, nil },
		Apply: func(_ context.Context, s steps.Session, in memIn) (memOut, error) {
			at, err := s.Target("")
			if err != nil {
				return memOut{}, err
			}
			return memOut{}, l.w.act(in.Key, func() { l.w.value[in.Key+"@"+at.Addr()] += in.Value })
		},
	}).Define())
}

func TestAnotherAddressIsRefused(t *testing.T) {
	l := newLab(t)
	spots(l)
	l.w.value["port"] = 1
	text := bookHead + `
steps:
  - {id: where, uses: mem.get, recheck: true, with: {key: port}}
  - {id: a, uses: spot.add, target: {kind: spot, addr: "host:${{ steps.where.value }}"}, undo: none, with: {key: x, value: 1}}
`
	p := l.program(text)
	l.w.lost["x"] = true
	l.end(l.exec(p), InDoubt)
	l.w.value["port"] = 2
	redo := func(q *ResumeRequest) { q.Decisions = []Decision{{"a", "redo", "looked"}} }
	r := l.resume(redo)
	l.end(r, InDoubt)
	if got := l.w.state(); got != `{"port":2,"x@host:1":1}` {
		t.Errorf("world %s", got)
	}
	l.w.value["port"] = 1
	l.end(l.resume(redo), Succeeded)
}

func TestWhatWasRolledBackBeginsAnew(t *testing.T) {
	for _, c := range []struct{ name, steps string }{
		{"a group", `[{id: g, on-failure: rollback, steps: [STEPS]}]`},
		{"the run", `[STEPS, {id: n, uses: mem.get, with: {key: z}}]`},
		{"a group with its own undo", `[{id: g, on-failure: rollback, undo: [{id: u, uses: mem.set, with: {key: x, value: 0}}], steps: [STEPS]}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			inner := `{id: follow, uses: mem.set, with: {key: x, value: 1}}, {id: wait, uses: mem.get, with: {key: x}, wait-until: value == 1, timeout: 1m}, {id: note, uses: mem.add, undo: none, with: {key: n, value: 1}}, {id: cut, uses: mem.get, with: {key: ok}, expect: value == 1}`
			text := bookHead + "steps: " + strings.ReplaceAll(c.steps, "STEPS", inner) + "\n"
			if c.name == "the run" {
				// It must stop on its way, or the run would be over.
				text = strings.Replace(bookHead, "\n", "\non-failure: rollback\n", 1) + "steps: [{id: stuck, uses: mem.add, with: {key: s, value: 1}}, " + inner + "]\n"
			}
			r := l.exec(l.program(text))
			l.end(r, Failed)
			if l.w.get("x") != 0 || l.w.get("n") != 1 {
				t.Fatalf("world %s: the rollback puts back what it can", l.w.state())
			}
			l.w.value["ok"] = 1
			r = l.resume()
			l.end(r, Succeeded)
			if l.w.get("x") != 1 || l.starts("wait") != 1 {
				t.Errorf("world %s, %d waits: what was put back is done again, and waited for again", l.w.state(), l.starts("wait"))
			}
			if l.w.get("n") != map[bool]int{true: 2, false: 1}[c.name == "a group with its own undo"] {
				t.Errorf("world %s: what a rollback passes over is not repeated", l.w.state())
			}
		})
	}
}

func TestAHandledFailureStaysHandled(t *testing.T) {
	l := newLab(t)
	r := l.exec(l.program(bookHead + `
steps:
  - id: g
    on-failure: continue
    parallel: true
    steps:
      - id: one
        steps:
          - {id: o1, uses: mem.set, with: {key: o1, value: 1}}
          - {id: bad, uses: mem.get, with: {key: x}, expect: value == 1}
      - id: two
        steps:
          - {id: w, uses: mem.get, with: {key: never}, wait-until: value == 1, timeout: 1h}
          - {id: after, uses: mem.set, with: {key: after, value: 1}}
  - {id: stop, uses: mem.get, with: {key: ok}, expect: value == 1}
  - {id: says, uses: check, with: {that: ["steps.g.status == \"failed\"", "steps.bad.error?.kind == \"expect\"", "steps.o1?.value == 1"]}}
`))
	l.end(r, Failed)
	l.w.value["ok"], l.w.value["never"] = 1, 1
	l.end(l.resume(), Succeeded)
	if got := l.w.state(); got != `{"never":1,"o1":1,"ok":1}` {
		t.Errorf("world %s: nothing runs any more in what has failed and was dealt with", got)
	}
}

func TestRepeatGoesOnInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		text := bookHead + `
steps:
  - id: verify
    repeat: {until: steps.n.value >= 4, max: 9, every: 10m}
    steps:
      - {id: n, uses: mem.add, undo: none, with: {key: n, value: 1}}
      - {id: both, parallel: true, steps: [{id: l, uses: mem.set, with: {key: l, value: "${{ steps.n.value }}"}}, {id: r, uses: mem.get, with: {key: n}}]}
      - {id: gate, uses: mem.get, with: {key: n}, expect: value != 3 || steps.n.value == 3 && steps.l.value == 3}
      - {id: ok, uses: mem.get, with: {key: ok}, expect: value == 1 || steps.n.value < 3}
outputs: {n: steps.n.value}
`
		l.end(l.exec(l.program(text)), Failed)
		l.w.value["ok"] = 1
		began := time.Now()
		r := l.resume()
		l.end(r, Succeeded)
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("took %v, want the one pause before the fourth pass", took)
		}
		if r.Outputs["n"] != 4 || l.starts("verify[3]/n") != 0 || l.starts("verify[4]/n") != 1 {
			t.Errorf("outputs %v, starts %d %d", r.Outputs, l.starts("verify[3]/n"), l.starts("verify[4]/n"))
		}
	})
}

func TestARecheckRunsAgain(t *testing.T) {
	l := newLab(t)
	p := l.program(bookHead + `
steps:
  - {id: r, uses: mem.get, recheck: true, with: {key: x}, expect: value == 0}
  - {id: k, uses: mem.get, with: {key: x}, expect: value == 0}
  - {id: s, uses: mem.set, when: steps.r.value == 1, with: {key: s, value: 1}}
  - {id: ok, uses: mem.get, with: {key: ok}, expect: value == 1}
`)
	l.end(l.exec(p), Failed)
	l.w.value["ok"] = 1
	r := l.resume()
	l.end(r, Succeeded)
	if l.starts("r") != 1 || l.starts("k") != 0 || l.finished()["s"] != "" {
		t.Errorf("starts %d and %d, s %q: a recheck runs again, what is done does not, and skipped stays skipped", l.starts("r"), l.starts("k"), l.finished()["s"])
	}
	l.w.value["ok"] = 0
	l.end(l.exec(p), Failed)
	l.w.value["x"] = 1
	l.end(l.resume(), Failed)
}

type manyOut struct {
	Int   int             `yaml:"int"`
	Big   int             `yaml:"big"`
	Float float64         `yaml:"float"`
	Took  time.Duration   `yaml:"took"`
	Null  *int            `yaml:"null_one"`
	List  []time.Duration `yaml:"list"`
	Empty []string        `yaml:"empty"`
	Any   any             `yaml:"any"`
	Deep  []struct {
		At   time.Duration `yaml:"at"`
		Lags []*int        `yaml:"lags"`
	} `yaml:"deep"`
	Raw string `yaml:"raw"`
}

func TestOutputsAfterAResumeAreTheLiveOnes(t *testing.T) {
	l := newLab(t)
	one := 1
	l.w.extra = append(l.w.extra, (&steps.Kind[memGetIn, manyOut]{Name: "mem.many", Doc: "Many.", Effect: steps.Read,
		Read: func(context.Context, steps.View, memGetIn) (manyOut, error) {
			out := manyOut{Int: 7, Big: 1 << 60, Float: 2, Took: 1500*time.Millisecond + 1, List: []time.Duration{time.Second}, Any: map[string]any{"f": 2.0, "n": nil, "l": []any{1, "a"}}, Raw: "a\xffb"}
			out.Deep = append(out.Deep, struct {
				At   time.Duration `yaml:"at"`
				Lags []*int        `yaml:"lags"`
			}{time.Minute, []*int{nil, &one}})
			return out, nil
		}}).Define())
	var seen []string
	l.w.extra = append(l.w.extra, (&steps.Kind[seeIn, struct{}]{Name: "mem.see", Doc: "Sees.", Effect: steps.Read,
		Read: func(_ context.Context, _ steps.View, in seeIn) (struct{}, error) {
			raw, err := json.Marshal(in.All)
			seen = append(seen, string(raw))
			return struct{}{}, err
		}}).Define())
	r := l.exec(l.program(bookHead + `
steps:
  - {id: m, uses: mem.many, with: {key: x}, outputs: {half: took / 2}}
  - {id: s, uses: set, with: {values: {a: 1, b: "${{ steps.m.took }}", c: [1.5, 2], d: {e: "${{ steps.m.null_one }}"}}}}
  - {id: f, uses: mem.set, with: {key: x, value: 1}, expect: value == 2, on-failure: continue}
  - {id: sk, uses: mem.get, with: {key: x}, when: steps.m.int == 8}
  - {id: g, outputs: {sum: steps.g1.value + 1}, steps: [{id: g1, uses: mem.set, with: {key: g, value: 2}}]}
  - {id: lo, for-each: "[steps.m.int, 8]", max-failures: 1, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, expect: value != 8}
  - {id: lg, for-each: "[1, 2]", steps: [{id: lg1, uses: mem.set, with: {key: "g${{ item }}", value: "${{ item }}"}}, {id: lg2, uses: mem.get, when: item == 1, with: {key: x}}]}
  - {id: see, recheck: true, uses: mem.see, with: {all: ["${{ steps.m }}", "${{ steps.s }}", "${{ steps.f }}", "${{ steps.sk }}", "${{ steps.g }}", "${{ steps.lo }}", "${{ steps.lg }}"]}}
  - {id: also, recheck: true, uses: check, with: {that: ["steps.m.took == duration(\"1.500000001s\")", "steps.m.any.f == 2.0", "steps.m.null_one == nil", "steps.m.list[0] == duration(\"1s\")", "steps.m.half > duration(\"700ms\")", "steps.m.big == 1152921504606846976"]}}
  - {id: ok, uses: mem.get, with: {key: ok}, expect: value == 1}
`))
	l.end(r, Failed)
	if r.Step != "ok" {
		t.Fatalf("%s: %v", r.Step, r.Err)
	}
	l.w.value["ok"] = 1
	l.end(l.resume(), Succeeded)
	if len(seen) != 2 || seen[0] != seen[1] {
		t.Errorf("live    %s\nresumed %s", seen[0], seen[1])
	}
}

type seeIn struct {
	All []any `yaml:"all,required" doc:"Values."`
}

func TestWithheldSecretsAreNotPutBack(t *testing.T) {
	l := newLab(t)
	l.environ = map[string]string{"PW": "hunter2secret"}
	type before struct{ Old string }
	l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{Name: "mem.pw", Doc: "Sets.", Effect: steps.Write,
		Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) {
			return steps.Change{Before: before{"hunter2secret"}}, nil
		},
		Probe: func(_ context.Context, _ steps.View, in memIn) (steps.State, memOut, error) {
			if l.w.get(in.Key) == in.Value {
				return steps.Done, memOut{}, nil
			}
			return steps.Untouched, memOut{}, nil
		},
		Apply: func(_ context.Context, _ steps.Session, in memIn) (memOut, error) {
			return memOut{}, l.w.act(in.Key, func() { l.w.value[in.Key] = in.Value })
		},
		Undo: func(_ context.Context, s steps.Session, in memIn, _ *memOut) error {
			var b before
			if ok, err := s.Before(&b); err != nil || !ok || b.Old != "hunter2secret" {
				t.Errorf("before %v %v %v", b, ok, err)
			}
			return l.w.act(in.Key, func() { delete(l.w.value, in.Key) })
		}}).Define())
	text := bookHead + `
on-failure: rollback
secrets: {pw: {env: PW}}
steps:
  - {id: a, uses: mem.pw, with: {key: x, value: 1}}
  - {id: b, uses: mem.get, with: {key: y}, expect: value == 1}
`
	p := l.program(text)
	l.end(l.exec(p), RolledBack)
	l = &lab{t: t, w: l.w, store: journal.Store{Dir: t.TempDir()}, environ: l.environ}
	l.dieAt(6) // before the rollback begins
	l.exec(p)
	l.options = journal.Options{}
	r := l.resume()
	if r.Status != Failed || !strings.Contains(r.Err.Error(), "held a secret") {
		t.Errorf("%s: %v", r.Status, r.Err)
	}
}
