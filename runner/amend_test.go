package runner

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"runbook/runner/journal"
)

// amend makes a text the one that a resume goes by.
func (l *lab) amend(text string, files ...string) func(*ResumeRequest) {
	l.t.Helper()
	p := l.program(text, files...)
	inputs, findings, err := p.BindInputs(GivenInputs{})
	if err != nil || len(findings) > 0 {
		l.t.Fatalf("inputs: %v %v", findings, err)
	}
	return func(q *ResumeRequest) {
		q.Amend = &Amendment{Program: p, Inputs: inputs, Reason: "CHG-1", Changes: []string{"it differs"}}
	}
}

// TestWhatAnAmendmentMayChange stops each runbook at its gate, or where it fails.
func TestWhatAnAmendmentMayChange(t *testing.T) {
	set := func(id string) string {
		return fmt.Sprintf("{id: %s, uses: mem.set, with: {key: %s, value: 1}}", id, id)
	}
	stop := "{id: stop, uses: mem.get, with: {key: ok}, expect: value == 1}"
	for _, c := range []struct {
		name, old, amended string
		refused            []string // empty: it is accepted
	}{
		{"a step at the end", set("a") + ", " + stop, set("a") + ", " + stop + ", " + set("b"), nil},
		{"a step that has not started", set("a") + ", " + stop + ", " + set("b"), set("a") + ", " + stop + ", {id: b, uses: mem.add, undo: none, with: {key: z, value: 5}}", nil},
		{"a step less", set("a") + ", " + stop + ", " + set("b"), set("a") + ", " + stop, nil},
		{"another order of what follows", set("a") + ", " + stop + ", " + set("b") + ", " + set("c"), set("a") + ", " + stop + ", " + set("c") + ", " + set("b"), nil},
		{"names and layout", set("a") + ", " + stop, "{id: a, name: First, why: because, with: {value: 1, key: a}, uses: mem.set}, " + stop, nil},
		{"a step that has finished", set("a") + ", " + stop, strings.Replace(set("a"), "1", "2", 1) + ", " + stop, []string{"a: it has finished, and with.value differs"}},
		{"a step that has failed", set("a") + ", " + stop, set("a") + ", " + strings.Replace(stop, "ok}", "ko}", 1), []string{"stop: it has started, and with.key differs"}},
		{"a finished step less", set("a") + ", " + stop, stop, []string{"a: it has started, and is not in its place any more"}},
		{"a step before what has started", set("a") + ", " + stop, set("a") + ", " + set("b") + ", " + stop, []string{"b: it stands before stop, which has started"}},
		{"another order of what has started", set("a") + ", " + set("b") + ", " + stop, set("b") + ", " + set("a") + ", " + stop, []string{"b: it has started, and stands before"}},
		{"the rest of a group under way", "{id: g, steps: [" + set("a") + ", " + stop + ", " + set("b") + "]}", "{id: g, steps: [" + set("a") + ", " + stop + ", " + set("c") + "]}", nil},
		{"a group that has ended", "{id: g, steps: [" + set("a") + "]}, " + stop, "{id: g, steps: [" + set("a") + ", " + set("b") + "]}, " + stop, []string{"g: it has finished, and what stands in it differs"}},
		{"what a group under way says", "{id: g, steps: [" + set("a") + ", " + stop + "]}", "{id: g, timeout: 5m, steps: [" + set("a") + ", " + stop + "]}", []string{"g: it has started, and timeout differs"}},
		{"a step that has started, out of its group", "{id: g, steps: [" + set("a") + ", " + stop + "]}", set("a") + ", {id: g, steps: [" + stop + "]}", []string{"a: it has started, and is not in its place", "it stands before g"}},
		{"the rest of a loop's item under way", "{id: g, for-each: [1], steps: [" + set("a") + ", " + stop + ", " + set("b") + "]}", "{id: g, for-each: [1], steps: [" + set("a") + ", " + stop + ", " + set("c") + "]}", nil},
		{"what a loop goes over", "{id: g, for-each: [1], steps: [" + set("a") + ", " + stop + "]}", "{id: g, for-each: [1, 2], steps: [" + set("a") + ", " + stop + "]}", []string{"g: it has started, and for-each differs"}},
		{"a loop of which an item has ended", "{id: g, for-each: [1, 2], steps: [" + set("a") + ", {id: s, uses: mem.get, with: {key: ok}, expect: value == 1 || item == 1}, " + set("b") + "]}",
			"{id: g, for-each: [1, 2], steps: [" + set("a") + ", {id: s, uses: mem.get, with: {key: ok}, expect: value == 1 || item == 1}, " + set("b") + ", " + set("c") + "]}", []string{"g: it has finished"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.end(l.exec(l.program(bookHead+"steps: ["+c.old+"]\n")), Failed)
			l.w.value["ok"] = 1
			files := l.files(l.newest())
			r, err := l.tryResume(l.amend(bookHead + "steps: [" + c.amended + "]\n"))
			if len(c.refused) == 0 {
				if err != nil {
					t.Fatalf("%v: %v", err, refusals(err))
				}
				l.end(r, Succeeded)
				fresh := newLab(t)
				fresh.w.value["ok"] = 1
				fresh.end(fresh.exec(fresh.program(bookHead+"steps: ["+c.amended+"]\n")), Succeeded)
				if got, want := l.w.state(), fresh.w.state(); got != want {
					t.Errorf("world %s, want %s", got, want)
				}
				return
			}
			said := refusals(err)
			for _, want := range c.refused {
				if !strings.Contains(said, want) {
					t.Errorf("refused with %q (%v), want %q", said, err, want)
				}
			}
			if after := l.files(l.newest()); len(after) != len(files) {
				t.Error("a refused amendment has left files")
			}
			l.end(l.resume(), Succeeded) // by the plan that it had
		})
	}
}

func refusals(err error) string {
	refused, ok := errors.AsType[*AmendError](err)
	if !ok {
		return ""
	}
	var words []string
	for _, o := range refused.Offences {
		words = append(words, o.String())
	}
	return strings.Join(words, "\n")
}

// What a started step was given from elsewhere in the file counts as its own.
func TestWhatStartedStepsUseMayNotChange(t *testing.T) {
	head := "inputs: {n: {type: int, default: 1}, m: {type: int, default: 1}}\nvars: {v: 1, w: 1}\nlock: {name: demo}\n"
	body := "steps:\n  - {id: a, uses: mem.set, with: {key: a, value: '${{ inputs.n + vars.v }}'}}\n  - {id: cut, uses: ./sub.yaml, with: {n: 1}}\n  - {id: b, uses: mem.set, with: {key: b, value: '${{ inputs.m + vars.w }}'}}\n"
	sub := "version: 1\nname: sub\ninputs: {n: {type: int}}\nsteps:\n  - {id: hold, uses: mem.set, with: {key: hold, value: 1}}\n  - {id: stop, uses: mem.get, with: {key: ok}, expect: value == 1}\n  - {id: free, uses: mem.set, with: {key: free, value: 1}}\n"
	for _, c := range []struct{ name, before, after, refused string }{
		{"an input", "n: {type: int, default: 1}, m", "n: {type: int, default: 2}, m", "a: it has finished, and with.value differs"},
		{"an input of what has not started", "m: {type: int, default: 1}", "m: {type: int, default: 2}", ""},
		{"a var", "v: 1", "v: 2", "a: it has finished"},
		{"a var of what has not started", "w: 1", "w: 2", ""},
		{"the lock", "name: demo", "name: another", "lock differs"},
		{"on-failure", "vars:", "on-failure: rollback\nvars:", "on-failure differs"},
		{"a guard", "vars:", "guards: [{id: lag, uses: mem.get, with: {key: lag}, require: value < 5}]\nvars:", "guard lag is new"},
		{"a started step of a runbook that it uses", "{key: hold", "{key: held", "cut/hold: it has finished, and with.key differs"},
		{"a step of a runbook that it uses, not started", "{key: free", "{key: three", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.end(l.exec(l.program(bookHead+head+body, "sub.yaml", sub)), Failed)
			l.w.value["ok"] = 1
			r, err := l.tryResume(l.amend(strings.Replace(bookHead+head+body, c.before, c.after, 1), "sub.yaml", strings.Replace(sub, c.before, c.after, 1)))
			if said := refusals(err); (err != nil) != (c.refused != "") || !strings.Contains(said, c.refused) {
				t.Fatalf("%v: %q, want %q", err, said, c.refused)
			}
			if err == nil {
				l.end(r, Succeeded)
			}
		})
	}
}

// Approvals of steps that are others now do not count; those of the rest do.
func TestAnAmendmentVoidsApprovalsOfWhatItAlters(t *testing.T) {
	book := func(value string) string {
		return bookHead + `
steps:
  - id: both
    parallel: true
    steps:
      - {id: a, uses: mem.set, with: {key: a, value: 1}, confirm: {message: Go, wait: detached}}
      - {id: b, uses: mem.set, with: {key: b, value: ` + value + `}, confirm: {message: Go, approvals: 2, wait: detached}}
`
	}
	l := newLab(t)
	l.end(l.exec(l.program(book("1"))), Paused)
	for len(l.gates()) < 2 {
		l.end(l.resume(), Paused)
	}
	l.approve(ben, "b")
	l.approve(carla, "b")
	r := l.resume(l.amend(book("2")))
	l.end(r, Paused)
	if l.w.get("b") != 0 {
		t.Error("it acted with approvals of another step")
	}
	h, err := journal.Read(l.newest().JournalPath())
	if err != nil {
		t.Fatal(err)
	}
	report, err := ReadReport(h.Records, false)
	if err != nil || len(report.Amended) != 1 || len(report.Amended[0].Void) != 2 || !strings.HasPrefix(report.Amended[0].Void[0], "b: the approval by ben") {
		t.Fatalf("%v %+v", err, report.Amended)
	}
	if a := report.Amended[0]; a.New != report.Plan || a.Old == a.New || a.By != "ana" || a.Reason != "CHG-1" || a.Kept != "plan-1.json" {
		t.Errorf("%+v", a)
	}
	l.approve(ben, "a")
	l.approve(ben, "b")
	l.approve(carla, "b")
	l.end(l.resume(), Succeeded)
	if got := l.w.state(); got != `{"a":1,"b":2}` {
		t.Error(got)
	}
}

// TestCrashWhileAmending dies at each record of the resume that amends: the run goes by the
// one plan or the other, and what is amended later goes by the new one.
func TestCrashWhileAmending(t *testing.T) {
	book := func(value int) string {
		return bookHead + fmt.Sprintf("steps:\n  - {id: a, uses: mem.set, with: {key: a, value: 1}}\n  - {id: stop, uses: mem.get, with: {key: ok}, expect: value == 1}\n  - {id: b, uses: mem.set, with: {key: b, value: %d}}\n", value)
	}
	for _, how := range []string{beforeWrite, midLine, afterWrite, lostWrite, afterSync} {
		for at := 1; at <= 8; at++ {
			l := newLab(t)
			l.end(l.exec(l.program(book(1))), Failed)
			l.w.value["ok"] = 1
			l.options.Open = (&crashFile{at: at, how: how}).open
			if _, err := l.tryResume(l.amend(book(2))); err != nil {
				t.Fatal(err)
			}
			l.options = journal.Options{}
			h, err := journal.Read(l.newest().JournalPath())
			if err != nil {
				t.Fatal(err)
			}
			amended := false
			for _, r := range h.Records {
				amended = amended || r.Type == recPlanAmended
			}
			frozen, err := ReadFrozen(l.newest())
			if err != nil || frozen.Digest != countingPlan(h.Records) {
				t.Fatalf("record %d, %s: plan %v, the journal says %.12s (%v)", at, how, frozen, countingPlan(h.Records), err)
			}
			want := `{"a":1,"b":1,"ok":1}`
			if amended {
				want = `{"a":1,"b":2,"ok":1}`
			}
			if r, err := l.tryResume(); err == nil {
				l.end(r, Succeeded)
			} else if !strings.Contains(err.Error(), "is over") {
				t.Fatal(err)
			}
			if got := l.w.state(); got != want {
				t.Errorf("record %d, %s: world %s, want %s", at, how, got, want)
			}
			raw, err := l.newest().ReadPlan()
			if err != nil {
				t.Fatal(err)
			}
			if onDisk, err := Thaw(raw); err != nil || onDisk.Digest != frozen.Digest {
				t.Errorf("record %d, %s: plan.json is not the plan that the run ended by (%v)", at, how, err)
			}
		}
	}
	t.Run("between keeping the old plan and writing the new one", func(t *testing.T) {
		l := newLab(t)
		l.end(l.exec(l.program(book(1))), Failed)
		l.w.value["ok"] = 1
		raw, err := l.newest().ReadPlan()
		if err == nil {
			err = os.WriteFile(l.newest().Path(keptPlan(1)), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		l.end(l.resume(l.amend(book(2))), Succeeded)
		if got := l.w.state(); got != `{"a":1,"b":2,"ok":1}` || keptPlans(l.newest()) != 1 {
			t.Errorf("world %s, %d plans kept", got, keptPlans(l.newest()))
		}
	})
}

var aValue = regexp.MustCompile(`\{id: (\w+), uses: mem\.set, with: \{key: (?:"[^"]*"|\w+), value: 1\}`)

// TestAnAmendedRunEndsAsItsFileSays: whatever the runbook, wherever its process dies and
// whichever step is altered then, an amendment is taken only where that step has not
// started, is taken where nothing around it has, and the run ends as the new file says.
func TestAnAmendedRunEndsAsItsFileSays(t *testing.T) {
	taken, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		text := (&author{t: rt}).book()
		steps := aValue.FindAllStringSubmatchIndex(text, -1)
		at := rapid.SampledFrom(steps).Draw(rt, "altered")
		id := text[at[2]:at[3]]
		amended := text[:at[1]-2] + "3" + text[at[1]-1:]
		reference := newLab(t)
		reference.exec(reference.program(text))
		fresh := newLab(t)
		end := fresh.exec(fresh.program(amended)).Status

		l := newLab(t)
		l.options.Open = (&crashFile{at: rapid.IntRange(2, len(reference.records)).Draw(rt, "at"), how: afterWrite}).open
		l.exec(l.program(text))
		l.options = journal.Options{}
		h, err := journal.Read(l.newest().JournalPath())
		if err != nil {
			rt.Fatal(err)
		}
		started := map[string]bool{}
		for _, r := range h.Records {
			if r.Type == recStepStarted || r.Type == recStepFinished {
				started[lastID(r.Step)] = true
			}
		}
		around := false
		for n := l.program(text).Root.nodes[id]; n != nil; n = n.Parent {
			around = around || started[n.ID]
		}
		change := []func(*ResumeRequest){l.amend(amended)}
		var r *Result
		for tries := 0; ; tries++ {
			r, err = l.tryResume(change...)
			var usage *UsageError
			switch _, no := errors.AsType[*AmendError](err); {
			case no && tries == 0:
				if refused++; !around {
					rt.Fatalf("%s\n%s is refused, and nothing around it has started: %s", text, id, refusals(err))
				}
				return
			case errors.As(err, &usage): // it is over, or a rollback is under way
				return
			case err != nil:
				rt.Fatalf("%s\n%v", text, err)
			case started[id]:
				rt.Fatalf("%s\n%s has started, and may be altered", text, id)
			case tries > 6:
				rt.Fatalf("%s\nit never ends: %v", text, r.Err)
			}
			if r.Status != InDoubt {
				break
			}
			choice := "redo"
			if l.did(r.Step) {
				choice = "done"
			}
			change = []func(*ResumeRequest){func(q *ResumeRequest) { q.Decisions = []Decision{{r.Step, choice, "looked"}} }}
		}
		taken++
		if got, want := l.w.state(), fresh.w.state(); got != want || r.Status != end {
			rt.Fatalf("%s\n%s altered: %s with %s, want %s with %s", text, id, r.Status, got, end, want)
		}
	})
	if taken == 0 || refused == 0 {
		t.Errorf("%d amendments taken, %d refused: there is nothing to compare", taken, refused)
	}
}
