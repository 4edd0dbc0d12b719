package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// explain says what a resume of the newest run would do, and wants that nothing was written.
func (l *lab) explain(decisions ...Decision) Explanation {
	l.t.Helper()
	folder := l.newest()
	before := l.files(folder)
	h, err := journal.Read(folder.JournalPath())
	if err != nil {
		l.t.Fatal(err)
	}
	report, err := ReadReport(h.Records, false)
	if err != nil {
		l.t.Fatal(err)
	}
	raw, err := folder.ReadPlan()
	if err != nil {
		l.t.Fatal(err)
	}
	frozen, err := Thaw(raw)
	if err != nil {
		l.t.Fatal(err)
	}
	program, inputs, err := frozen.Program(l.w.catalog())
	if err != nil {
		l.t.Fatal(err)
	}
	e := report.Explain(program, decisions)
	world := l.w.state()
	if err := e.Ask(l.context(), l.config(), ExplainRequest{Run: folder, Frozen: frozen, Program: program, Inputs: inputs, Records: h.Records}); err != nil {
		l.t.Fatal(err)
	}
	if _, held, err := journal.Inspect(folder.LockPath()); held || err != nil {
		l.t.Errorf("the run's lock is held (%v)", err)
	}
	if after := l.files(folder); !slices.EqualFunc(before, after, bytes.Equal) {
		l.t.Error("an explanation has changed the run's files")
	}
	if l.w.state() != world {
		l.t.Errorf("an explanation has changed the world: %s, it was %s", l.w.state(), world)
	}
	return e
}

// files are the names and contents of all that lies in a run's folder.
func (l *lab) files(folder *journal.Run) [][]byte {
	l.t.Helper()
	entries, err := os.ReadDir(folder.Dir)
	if err != nil {
		l.t.Fatal(err)
	}
	var all [][]byte
	for _, e := range entries {
		text, err := os.ReadFile(folder.Path(e.Name()))
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, []byte(e.Name()), text)
	}
	return all
}

// What is explained is what the resume then does, wherever the runner had died.
func TestAnExplanationIsWhatTheResumeDoes(t *testing.T) {
	reference := newLab(t)
	reference.end(reference.exec(reference.program(crashBook, "sub.yaml", crashSub)), Succeeded)
	t.Parallel()
	asked := map[string]int{}
	for at := 2; at <= len(reference.records); at++ {
		l := newLab(t)
		l.options.Open = (&crashFile{at: at, how: afterWrite}).open
		l.exec(l.program(crashBook, "sub.yaml", crashSub))
		l.options = journal.Options{}
		e := l.explain()
		if e.Over { // the last record survived
			continue
		}
		if e.Unasked != "" {
			t.Fatalf("record %d: %s", at, e.Unasked)
		}
		again := map[string]bool{}
		var decide []string
		for _, d := range e.InDoubt {
			if d.Decide {
				decide = append(decide, d.Step)
				continue
			}
			if d.Probe == nil {
				t.Fatalf("record %d: nobody was asked about %+v", at, d)
			}
			asked[d.Probe.State]++
			again[d.Step] = strings.HasPrefix(d.Then, "it runs again")
		}
		r := l.resume()
		if (r.Status == InDoubt) != (len(decide) > 0) || r.Status == InDoubt && !slices.Contains(decide, r.Step) {
			t.Errorf("record %d: the resume is %s at %s, explained was a decision about %v", at, r.Status, r.Step, decide)
		}
		for path, runs := range again {
			if r.Status == Succeeded && (l.starts(path) > 0) != runs {
				t.Errorf("record %d: %s started %d times, explained: runs again %v", at, path, l.starts(path), runs)
			}
		}
		for _, path := range e.FinishedSteps {
			if l.starts(path) > 0 {
				t.Errorf("record %d: %s runs again, and was explained as finished", at, path)
			}
		}
	}
	if asked["done"] == 0 && asked["untouched"] == 0 {
		t.Errorf("probes said %v: there is nothing to compare", asked)
	}
}

func TestAProbeIsAskedForAnExplanation(t *testing.T) {
	probed := `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}, probe: {uses: mem.get, with: {key: x}, done: value == 1}}`
	for _, c := range []struct {
		name, step string
		prepare    func(l *lab)
		state      string
		failure    string
		decide     bool
		then       string
	}{
		{"done", probed, nil, "done", "", false, "it is finished, marked recovered"},
		{"untouched", probed, func(l *lab) { l.w.value["x"] = 7 }, "untouched", "", false, "it runs again"},
		{"no answer", probed, func(l *lab) { l.w.fail["get x"] = errors.New("connection refused") }, "unclear", "connection refused", true, "stops in doubt (exit 3)"},
		{"nobody to ask", `{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}`, nil, "", "", true, "--decide a=done|redo|fail"},
		{"the kind's own", `{id: a, uses: mem.set, with: {key: x, value: 1}}`, nil, "done", "", false, "it is finished"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.dieBefore(l.program(bookHead+"steps: ["+c.step+"]\n"), recStepFinished, "a")
			if c.prepare != nil {
				c.prepare(l)
			}
			e := l.explain()
			if len(e.InDoubt) != 1 {
				t.Fatalf("in doubt %+v", e.InDoubt)
			}
			d := e.InDoubt[0]
			if (d.Probe == nil) != (c.state == "") || d.Probe != nil && (d.Probe.State != c.state || !strings.Contains(d.Probe.Error, c.failure)) {
				t.Errorf("probe %+v", d.Probe)
			}
			if d.Decide != c.decide || !strings.Contains(d.Then, c.then) {
				t.Errorf("then %q, decide %v", d.Then, d.Decide)
			}
		})
	}
	t.Run("a decision is not asked about", func(t *testing.T) {
		l := newLab(t)
		l.dieBefore(l.program(bookHead+"steps: ["+probed+"]\n"), recStepFinished, "a")
		if d := l.explain(Decision{Step: "a", Choice: "redo", Reason: "looked"}).InDoubt[0]; d.Then != "decided: redo" || d.Decide {
			t.Errorf("then %q", d.Then)
		}
	})
	t.Run("a kind that never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			hangs := make(chan struct{})
			defer close(hangs)
			stuck := false
			l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{
				Name: "mem.hang", Doc: "Hangs.", Effect: steps.Write, NoUndo: "no",
				Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) { return steps.Change{}, nil },
				Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) {
					if stuck {
						<-hangs
					}
					return steps.Untouched, memOut{}, nil
				},
				Apply: func(context.Context, steps.Session, memIn) (memOut, error) { return memOut{}, nil },
			}).Define())
			l.dieBefore(l.program(bookHead+"steps: [{id: a, uses: mem.hang, undo: none, with: {key: x}}]\n"), recStepFinished, "a")
			stuck = true
			began := time.Now()
			if d := l.explain().InDoubt[0]; d.Probe == nil || d.Probe.Error == "" || !d.Decide {
				t.Errorf("%+v", d)
			}
			if took := time.Since(began); took > askOne+settleTime {
				t.Errorf("it took %s", took)
			}
		})
	})
}

// Where a guardian may have settled a step, what it said last is shown.
func TestAGuardianIsNamedInAnExplanation(t *testing.T) {
	l := newLab(t)
	state := steps.Untouched
	l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{
		Name: "mem.hold", Doc: "Holds.", Effect: steps.Cutover, NoUndo: "no",
		Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) { return steps.Change{}, nil },
		Apply: func(context.Context, steps.Session, memIn) (memOut, error) {
			state = steps.Partial
			return memOut{}, nil
		},
		Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) { return state, memOut{}, nil },
		Guard: func(context.Context, steps.Session, json.RawMessage, []string) error { return nil },
	}).Define())
	l.dieBefore(l.program(bookHead+"steps: [{id: g, for-each: [1], steps: [{id: a, uses: mem.hold, undo: none, with: {key: x}}]}]\n"), recStepFinished, "g[item=1]/a")
	log := l.newest().Path(guardianLog)
	lines := "level=INFO msg=settled step=\"g[item=1]/a\" slots=1\nlevel=INFO msg=settled step=other slots=2\n"
	if err := os.WriteFile(log, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	d := l.explain().InDoubt[0]
	if d.Guardian == nil || *d.Guardian != (ExplainedGuardian{Log: log, Said: strings.Split(lines, "\n")[0]}) || d.Probe == nil || d.Probe.State != "partial" || !d.Decide {
		t.Errorf("%+v %+v", d, d.Guardian)
	}
}

// Approvals, and what has become of them.
func TestApprovalsAreExplained(t *testing.T) {
	l := newLab(t)
	l.end(l.exec(l.program(bookHead+`
steps:
  - {id: look, uses: mem.get, recheck: true, with: {key: n}}
  - {id: first, uses: mem.set, with: {key: x, value: 1}}
  - {id: a, uses: mem.set, with: {key: a, value: 1}, confirm: {message: Go, show: [steps.look.value]}}
`)), Paused)
	l.approve(ben, "a")
	e := l.explain()
	if len(e.Approvals) != 1 || len(e.Approvals[0].Given) != 1 || e.Approvals[0].Given[0].By != "ben" || len(e.Approvals[0].Void) > 0 || len(e.Waiting) > 0 {
		t.Fatalf("%+v", e.Approvals)
	}
	if !slices.Equal(e.FinishedSteps, []string{"first"}) || len(e.Rechecks) != 1 || e.Rechecks[0].With["key"] != "n" {
		t.Errorf("finished %v, looks again %+v", e.FinishedSteps, e.Rechecks)
	}
	l.w.value["n"] = 7
	l.end(l.resume(), Paused)
	e = l.explain()
	if len(e.Approvals) != 1 || len(e.Approvals[0].Given) > 0 || !strings.Contains(strings.Join(e.Approvals[0].Void, " "), "by ben does not count any more: it was asked with steps.look.value = 0") || !slices.Equal(e.Waiting, []string{"a"}) {
		t.Errorf("%+v, waiting %v", e.Approvals, e.Waiting)
	}
}

// What had tripped is looked at, and locks are not taken.
func TestGuardsAndLocksAreExplained(t *testing.T) {
	l := newLab(t)
	l.w.value["lag"] = 9
	text := strings.Replace(bookHead, "\n", "\nlock: {name: codis/demo}\n", 1) + `
guards:
  - {id: lag, uses: mem.get, with: {key: lag}, require: value < 5}
steps:
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
`
	l.end(l.exec(l.program(text)), Paused)
	e := l.explain()
	if len(e.GuardsNow) != 1 || e.GuardsNow[0].Holds || len(e.Guards) != 1 || len(e.Locks) != 1 || e.Locks[0] != (ExplainedLock{Name: "codis/demo"}) {
		t.Fatalf("%+v %+v", e.GuardsNow, e.Locks)
	}
	l.w.value["lag"] = 1
	held, err := l.store.Lock("codis/demo", journal.Holder{Operator: "ben", Host: "there"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	if e = l.explain(); !e.GuardsNow[0].Holds || !strings.Contains(e.Locks[0].Held, "ben") {
		t.Errorf("%+v %+v", e.GuardsNow, e.Locks)
	}
}
