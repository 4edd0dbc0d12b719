package runner

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func planOf(t *testing.T, text string, sel Selection, flags ...string) (*Plan, string) {
	t.Helper()
	return planOfProgram(t, mustLoad(t, text), sel, flags...)
}

func planOfProgram(t *testing.T, p *Program, sel Selection, flags ...string) (*Plan, string) {
	t.Helper()
	in, findings, err := p.BindInputs(GivenInputs{Flags: flags})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	plan, findings, err := MakePlan(p, in, sel)
	if err != nil {
		t.Fatal(err)
	}
	if plan == nil {
		t.Fatal(findings)
	}
	var b strings.Builder
	if err := plan.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return plan, b.String()
}

func paths(list []*PlanStep) []string {
	var all []string
	for _, s := range list {
		all = append(all, s.Path)
		all = append(all, paths(s.Steps)...)
		all = append(all, paths(s.AfterBatch)...)
		all = append(all, paths(s.Rescue)...)
	}
	return all
}

const planBook = `version: 1
name: plan
inputs:
  items: {type: list, default: [b, a]}
steps:
  - id: look
    uses: set
    with: {values: {n: 1}}
  - id: outer
    steps:
      - id: inner
        uses: check
        with: {that: len(inputs.items) > 0}
  - id: again
    repeat: {until: steps.sample.passed, max: 3}
    steps:
      - id: sample
        uses: check
        with: {that: len(inputs.items) > 0}
  - id: each
    for-each: inputs.items
    as: name
    batch: [1]
    steps:
      - id: tell
        uses: check
        with: {that: name != ""}
      - id: sub
        for-each: [1, 2]
        key: ${{ item * 10 }}
        uses: check
        with: {that: item > 0}
    after-batch:
      - id: rest
        uses: check
        with: {that: batch.index >= 0}
  - id: late
    for-each: "steps.look.n == 1 ? [1, 2] : [3]"
    uses: check
    with: {that: item > 0}
    tags: [slow]
`

func TestPlanPaths(t *testing.T) {
	t.Parallel()
	plan, text := planOf(t, planBook, Selection{})
	want := "look outer inner again again[1]/sample each " +
		"each[name=b] each[name=b]/tell each[name=b]/sub each[name=b]/sub[item=10] each[name=b]/sub[item=20] " +
		"each[name=a] each[name=a]/tell each[name=a]/sub each[name=a]/sub[item=10] each[name=a]/sub[item=20] " +
		"each[batch *]/rest late late[item=*]"
	if got := strings.Join(paths(plan.Steps), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !strings.Contains(text, "for each item of steps.look.n == 1 ? [1, 2] : [3] (after look)") {
		t.Errorf("the plan does not say what the loop waits for:\n%s", text)
	}
	if _, again := planOf(t, planBook, Selection{}); again != text {
		t.Error("the same plan has two texts")
	}
	if other, _ := planOf(t, planBook, Selection{}, "items=[a, b]"); other.Digest == plan.Digest {
		t.Error("other inputs give the same digest")
	}
}

// A comment, a name of another place, or the order of keys is no change of the plan.
func TestPlanTextIsOfThePlanAlone(t *testing.T) {
	t.Parallel()
	book := func(steps string) string {
		return "version: 1\nname: same\ninputs: {a: {type: int, default: 1}, b: {type: int, default: 2}}\nsteps:\n" + steps
	}
	plan, text := planOf(t, book("  - {id: s, uses: check, with: {that: inputs.a < inputs.b}}\n"), Selection{})
	for _, other := range []string{
		book("  # why not\n  - {uses: check, with: {that: inputs.a < inputs.b}, id: s}\n"),
		strings.Replace(book("  - id: s\n    uses: check\n    with:\n      that:\n        - inputs.a < inputs.b\n"),
			"a: {type: int, default: 1}, b: {type: int, default: 2}", "b: {type: int, default: 2}, a: {default: 1, type: int}", 1),
	} {
		again, same := planOf(t, other, Selection{})
		if same != text {
			t.Errorf("%s\ngives\n%s\nand not\n%s", other, same, text)
		}
		if again.Digest == plan.Digest {
			t.Error("other sources give the same digest")
		}
	}
}

func TestPlanFindings(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, planBook)
	in, _, err := p.BindInputs(GivenInputs{Flags: []string{"items=[a, a]"}})
	if err != nil {
		t.Fatal(err)
	}
	plan, findings, err := MakePlan(p, in, Selection{})
	if plan != nil || err != nil || len(findings) == 0 || !strings.Contains(findings[0].Message, `have the same key "a"`) {
		t.Errorf("got %v, %v", findings, err)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sel  Selection
		want string // first paths, or an error after !
	}{
		{Selection{From: "inner", To: "again"}, "outer inner again again[1]/sample"},
		{Selection{To: "outer"}, "look outer inner"},
		{Selection{Skip: []string{"slow"}, From: "again", To: "late"}, "again again[1]/sample each"},
		{Selection{From: "late"}, "!step late reads steps.look.n of step look, which is left out"},
		{Selection{Only: []string{"slow"}}, "!step late reads steps.look.n"},
		{Selection{Only: []string{"slo"}}, "!no step has the tag"},
		{Selection{From: "inner", To: "look"}, "!nothing is left to run"},
		{Selection{From: "iner"}, "!the runbook has no step"},
		{Selection{From: "each[name=a]"}, "!takes the id of a step"},
		{Selection{From: "rest"}, "!stands in rescue, undo, after-batch or finally"},
	} {
		p := mustLoad(t, planBook)
		in, _, err := p.BindInputs(GivenInputs{})
		if err != nil {
			t.Fatal(err)
		}
		plan, _, err := MakePlan(p, in, test.sel)
		if want, ok := strings.CutPrefix(test.want, "!"); ok {
			var usage *UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: got %v, wanted %s", test.sel, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", test.sel, err)
			continue
		}
		if got := strings.Join(paths(plan.Steps), " "); !strings.HasPrefix(got, test.want) {
			t.Errorf("%+v: got %s", test.sel, got)
		}
	}
}

// A plan of many items is made in a moment: about 20 µs an item.
func TestLargePlan(t *testing.T) {
	t.Parallel()
	began := time.Now()
	plan, text := planOf(t, fmt.Sprintf(`version: 1
name: large
steps:
  - id: each
    for-each: slots("0-24999")
    steps:
      - {id: a, uses: check, with: {that: item >= 0}}
      - {id: b, uses: check, with: {that: item >= 0}}
      - {id: c, uses: check, when: item %% 2 == 0, with: {that: item >= 0}}
      - {id: d, uses: check, with: {that: %s}}
`, "item >= 0"), Selection{})
	if plan.Summary.Steps != 87500 {
		t.Errorf("%d steps", plan.Summary.Steps)
	}
	if took := time.Since(began); took > 20*time.Second { // a loaded machine; alone it takes about one second
		t.Errorf("took %v for %d bytes", took, len(text))
	}
}
