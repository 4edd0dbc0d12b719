package runner

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"runbook/steps"
)

// texts are the lines of a report that tell of these records.
func (l *lab) texts() string {
	l.t.Helper()
	r := NewReport()
	var lines []string
	for _, rec := range l.records {
		if err := r.Add(rec); err != nil {
			l.t.Fatal(err)
		}
		for _, line := range r.Describe(rec) {
			lines = append(lines, line.Text)
		}
	}
	for _, line := range r.Summary(false) {
		lines = append(lines, line.Text)
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestHintsOfASandbox(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, steps, want string }{
		{"a gate", `[{id: go, uses: approve, with: {message: Go}}]`, "help: run it again with --approve 'go' (the world of a sandbox"},
		{"text to be typed", `[{id: go, uses: mem.set, confirm: {message: Go, retype: go}, with: {key: x, value: 1}}]`, "help: it can be answered on a terminal alone, then: run it again (the"},
		{"a failure", `[{id: c, uses: check, with: {that: [1 > 2]}}]`, "help: mend the cause, then: run it again (the"},
		{"a doubt", `[{id: a, uses: mem.lose, undo: none, with: {key: x, value: 1}}]`, "help: run it again (the"},
		{"finally", `[{id: c, uses: check, with: {that: [1 < 2]}}]
finally: [{id: d, uses: check, with: {that: [1 > 2]}}]`, "help: run it again (the"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, sandbox := range []string{"", "world.yaml"} {
				l := newLab(t)
				l.w.odd("mem.lose", false, func(context.Context, steps.Session, memIn) (memOut, error) {
					return memOut{}, &steps.Error{Kind: "closed", Unknown: true, Err: context.DeadlineExceeded}
				})
				l.exec(l.program(bookHead+"steps: "+c.steps+"\n"), func(q *Request) { q.Sandbox = sandbox })
				got := l.texts()
				if resume := strings.Contains(got, "runner resume"); resume == (sandbox != "") {
					t.Errorf("in %q it says\n%s", sandbox, got)
				}
				if sandbox != "" && !strings.Contains(got, c.want) {
					t.Errorf("wants %q in\n%s", c.want, got)
				}
			}
		})
	}
}

func TestAGateThatTimesOutIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.ask = func(ctx context.Context, _ Question) (Answer, error) {
			<-ctx.Done()
			return Answer{}, context.Cause(ctx)
		}
		r := l.exec(l.program(bookHead + "steps: [{id: ask, uses: mem.set, confirm: {message: Go, timeout: 1h}, with: {key: x, value: 1}}]\n"))
		if got := l.texts(); r.Status != Failed || !strings.Contains(got, "\nask: failed: the gate's timeout is over\n") || !strings.HasSuffix(strings.SplitAfter(got, "help:")[0], "\nask: the gate's timeout is over\nhelp:") {
			t.Errorf("%s: %s", r.Status, got)
		}
	})
}

func TestARefusalIsSaidOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.ask = func(context.Context, Question) (Answer, error) { return Answer{Reason: "not today"}, nil }
	l.exec(l.program(bookHead + "steps: [{id: ask, uses: approve, with: {message: Go}}]\n"))
	if got := l.texts(); !strings.Contains(got, "\nask: failed: refused by ana: not today\n") {
		t.Error(got)
	}
}

// A yes to a runbook used as a step is one to what it destroys, as that to a group is; without
// one, the same runbook asks by itself.
func TestAYesCoversASubRunbook(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var asked []Question
	l.ask = func(_ context.Context, q Question) (Answer, error) {
		asked = append(asked, q)
		return Answer{Approved: true}, nil
	}
	l.w.extra = append(l.w.extra, wipe())
	p := l.program(bookHead+`
steps:
  - {id: asked, uses: ./outer.yaml, confirm: Wipe it}
  - {id: around, confirm: And again, steps: [{id: inside, uses: ./inner.yaml}]}
  - {id: alone, uses: ./inner.yaml}
`, "outer.yaml", "version: 1\nname: outer\nsteps: [{id: deep, uses: ./inner.yaml}]\n",
		"inner.yaml", "version: 1\nname: inner\nsteps: [{id: wipe, uses: mem.wipe, with: {key: k}}, {id: each, for-each: '[1, 2]', uses: mem.wipe, with: {key: l}}]\n")
	plan, _ := planOfProgram(t, p, Selection{})
	if want := []string{"alone/each", "alone/wipe", "around", "asked"}; !slices.Equal(plan.Summary.Gates, want) {
		t.Errorf("the plan names the gates %v, want %v", plan.Summary.Gates, want)
	}
	l.end(l.exec(p), Succeeded)
	var at []string
	for _, q := range asked {
		at = append(at, q.Step)
	}
	if want := []string{"asked", "around", "alone/wipe", "alone/each"}; !slices.Equal(at, want) {
		t.Errorf("asked at %v, want %v", at, want)
	}
	var sends []string
	for _, l := range asked[0].Sends {
		sends = append(sends, l.Command)
	}
	if want := []string{"wipe k", "each: mem.wipe, for each of 2 items: 1, 2"}; !slices.Equal(sends, want) {
		t.Errorf("the question shows %q, want %q", sends, want)
	}
}

// Whoever answers sees what is destroyed, where, and what is sent; the journal keeps it, without secrets.
func TestWhatAGateShows(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.environ = map[string]string{"PW": "correct-horse"}
	var asked []Question
	l.ask = func(_ context.Context, q Question) (Answer, error) { asked = append(asked, q); return Answer{}, nil }
	l.w.kinds = append(l.w.kinds, (&steps.TargetKind[spot, struct{}]{Name: "spot", Addr: func(s spot) string { return s.Addr }}).Define())
	l.w.extra = append(l.w.extra, wipe("spot"))
	l.exec(l.program("version: 1\nname: book\nsecrets: {pw: {env: PW}}\ntargets: {here: {kind: spot, addr: \"10.0.0.7:1\"}}\n" +
		"steps: [{id: wipe, uses: mem.wipe, target: here, with: {key: \"all of ${{ secrets.pw }}\"}}]\n"))
	if len(asked) != 1 || asked[0].Message != "mem.wipe destroys something on here (10.0.0.7:1). Go on?" {
		t.Fatalf("asked %+v", asked)
	}
	if got := l.texts(); !strings.Contains(got, "wipe: asks: mem.wipe destroys something on here (10.0.0.7:1). Go on?\n  will send: here: wipe all of [secret pw]\n") {
		t.Error(got)
	}
}

// wipe is a kind that destroys, on targets of these kinds.
func wipe(on ...string) *steps.Definition {
	return (&steps.Kind[memIn, memOut]{
		Name: "mem.wipe", Doc: "Wipes.", Effect: steps.Destroy, NoUndo: "gone", On: on,
		Check: func(context.Context, steps.View, memIn) error { return nil },
		Plan: func(_ context.Context, _ *steps.View, in memIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{{Command: "wipe " + in.Key}}}, nil
		},
		Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) {
			return steps.Untouched, memOut{}, nil
		},
		Apply: func(context.Context, steps.Session, memIn) (memOut, error) { return memOut{}, nil },
	}).Define()
}

// Every record is told in words, and none twice over.
func TestNarrate(t *testing.T) {
	t.Parallel()
	all := records(t,
		recRunStarted, "", RunStarted{Format: 1, Run: "r1", Name: "move", Plan: strings.Repeat("a", 64), Operator: "ana"},
		recStepStarted, "move", StepStarted{Attempt: 1},
		recLoopFrozen, "move", LoopFrozen{Items: []FrozenItem{{Key: "slot=1"}}},
		recStepStarted, "move[slot=1]/look", StepStarted{Attempt: 1, Kind: "redis.info", Effect: "read", Target: "a", Addr: "h:1", Waiting: "lag == 0"},
		recStepObserved, "move[slot=1]/look", StepObserved{Values: map[string]any{"lag": 7}},
		recStepRetrying, "move[slot=1]/look", StepRetrying{Attempt: 1, Error: &ErrorBody{Message: "refused"}, Delay: "1s"},
		recStepStarted, "move[slot=1]/look", StepStarted{Attempt: 2, Kind: "redis.info", Effect: "read"},
		recStepFinished, "move[slot=1]/look", StepFinished{Status: statusOK},
		recStepStarted, "move[slot=1]/act", StepStarted{Attempt: 1, Kind: "exec", Effect: "write", Commands: []string{"do it"}},
		recDecision, "move[slot=1]/act", DecisionMade{Choice: "done", By: "bob", Reason: "seen"},
		recStepFinished, "move[slot=1]/act", StepFinished{Status: statusChanged, Recovered: true},
		recGateOpened, "drop", GateOpened{Message: "Drop?", Show: []string{"n = 1"}, Sends: []string{"DEL x"}},
		recGateDecided, "drop", GateDecided{Approved: true, Person: &Person{By: "ana", UID: 1000, Host: "here", TTY: "/dev/pts/3", SSH: "10.0.0.7", PID: 4711}, How: "prompt"},
		recStepFinished, "later", StepFinished{Status: statusUnknown, Reason: "unknown (because of step follow)"},
		recRollbackStarted, "", RollbackStarted{Reason: "it failed"},
		recUndoStarted, "move[slot=1]/act", UndoStarted{Kind: "exec", Undo: undoStepsOf + "act", Why: whyRollback},
		recStepStarted, "move[slot=1]/back", StepStarted{Attempt: 1, Kind: "exec", Effect: "write"},
		recStepFinished, "move[slot=1]/back", StepFinished{Status: statusChanged},
		recUndoFinished, "move[slot=1]/act", UndoFinished{Status: "undone", Why: whyRollback},
		recRollbackFinished, "", RollbackFinished{Complete: true},
		"from-the-future", "drop", map[string]int{"x": 1},
		recRunFinished, "drop", RunFinished{Status: Failed, Error: &ErrorBody{Message: "no"}, Hint: "runner resume r1"},
	)
	want := `run r1 of move, by ana, plan aaaaaaaaaaaa
move: begins
move: goes over 1 item
move[slot=1]/look: waits until lag == 0 (redis.info on a h:1)
move[slot=1]/look: lag = 7
move[slot=1]/look: attempt 1 failed: refused; again in 1s
move[slot=1]/look: looks (redis.info), attempt 2
move[slot=1]/look: ok after 2 attempts
move[slot=1]/act: acts (exec)
  sends: do it
move[slot=1]/act: decided done by bob: seen
move[slot=1]/act: changed (not seen: bob decided that it was done)
drop: asks: Drop?
  n = 1
  will send: DEL x
drop: approved by ana (prompt)
  ana (uid 1000) on here, /dev/pts/3, ssh 10.0.0.7, pid 4711
later: unknown (because of step follow)
rolls back: it failed
move[slot=1]/act: puts back: undo steps of act
move[slot=1]/back: acts (exec)
move[slot=1]/back: changed
move[slot=1]/act: undone
rolled back
drop: from the future
run r1 failed: 1 undone, 1 ok, 1 unknown
  drop: no
`
	for _, last := range []bool{false, true} {
		r := NewReport()
		var got strings.Builder
		for i, rec := range all {
			if err := r.Add(rec); err != nil {
				t.Fatal(err)
			}
			for _, line := range r.Narrate(rec, last && i == len(all)-1) {
				got.WriteString(line.Text + "\n")
			}
		}
		if last {
			want += "  help: runner resume r1\n"
		}
		if got.String() != want {
			t.Errorf("got\n%s\nwant\n%s", got.String(), want)
		}
	}
}
