package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"runbook/schema"
)

// live gives the plan of a runbook with what its targets say.
func (l *lab) live(p *Program) *Plan {
	l.t.Helper()
	plan, findings, err := MakeLivePlan(p, l.request(p).Inputs, Selection{}, l.look(p), Operator{Name: "ana"})
	if err != nil || schema.Failed(findings) {
		l.t.Fatalf("plan: %v %v", err, findings)
	}
	return plan
}

func TestWhatALivePlanSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, steps, want string }{
		{"already so", `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 3}}]`, "s: already so"},
		{"would change", `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`, "s: would change\ns: would send: put x 1 (3 with 300 keys → 1)"},
		{"a read, and what it expects", `[{id: r, uses: shelf.get, target: a, with: {key: x}, expect: [value > 2, value < 9]}]`, "r: ok\nr: expect value > 2: true (value = 3)\nr: expect value < 9: true (value = 3)"},
		{"a precondition", `[{id: s, uses: shelf.set, target: b, with: {key: x, value: 1}}]`, "s: would fail: it is locked by 1"},
		{"an expect that fails", `[{id: r, uses: shelf.get, target: a, with: {key: x}, expect: value > 4}]`, "r: would fail: expect: value > 4 does not hold (value = 3)\nr: expect value > 4: false (value = 3)"},
		{"a when", `[{id: r, uses: shelf.get, target: a, with: {key: x}}, {id: s, uses: shelf.set, target: a, when: steps.r.value > 4, with: {key: x, value: 1}}]`, "r: ok\ns: would be skipped\ns: when steps.r.value > 4: false (steps.r.value = 3)"},
		{"a wait", `[{id: w, uses: shelf.get, target: a, with: {key: x}, wait-until: value == 0, timeout: 1m}]`, "w: would wait\nw: wait-until value == 0: false (value = 3)"},
		{"what an earlier step would change", `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}, {id: r, uses: shelf.get, target: a, with: {key: x}, expect: value == 1}]`, "s: would change\ns: would send: put x 1 (3 with 300 keys → 1)\nr: unknown (because of step s)"},
		{"a second change", `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}, {id: z, uses: shelf.set, target: a, with: {key: x, value: 2}}]`, "s: would change\ns: would send: put x 1 (3 with 300 keys → 1)\nz: would change (as it is now, before step s)\nz: would send: put x 2 (3 with 300 keys → 2)"},
		{"items that inputs do not know", `[{id: r, uses: shelf.get, target: a, with: {key: x}}, {id: l, for-each: "filter([1, 2, 4], # < steps.r.value)", uses: shelf.get, target: a, with: {key: "k${{ item }}"}}]`, "r: ok\nl: ok\nl: item: 1\nl: item: 2\nl[item=1]: ok\nl[item=2]: ok"},
		{"a repeat", `[{id: g, repeat: {until: steps.r.value == 3, max: 2, every: 1s}, steps: [{id: r, uses: shelf.get, target: a, with: {key: x}}]}]`, "g[1]/r: ok"},
		{"after each batch", `[{id: l, for-each: [1, 2], batch: [1], uses: shelf.get, target: a, with: {key: x}, after-batch: [{id: r, uses: shelf.get, target: a, with: {key: x}, expect: value == 3}]}]`, "l[item=1]: ok\nl[item=2]: ok\nl[batch *]/r: ok\nl[batch *]/r: expect value == 3: true (value = 3)"},
		{"a sub-runbook", `[{id: cut, uses: ./sub.yaml, with: {n: 1}}]`, "cut/hold: would change\ncut/hold: would send: set sub 1"},
		{"gates ask nobody", `[{id: g, uses: approve, with: {message: Go}}]`, "g: ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			shelves(l)
			l.w.value["x@one:1"], l.w.value["lock@two:2"] = 3, 1
			before := l.w.state()
			plan := l.live(l.program(shelfHead+"steps: "+c.steps+"\n", "sub.yaml", crashSub))
			var said []string
			var tell func([]*PlanStep)
			tell = func(list []*PlanStep) {
				for _, s := range list {
					for _, w := range s.Observed.Words() {
						said = append(said, s.Path+": "+w)
					}
					tell(s.Steps)
					tell(s.AfterBatch)
				}
			}
			tell(plan.Steps)
			if got := strings.Join(said, "\n"); got != c.want {
				t.Errorf("said\n%s\nwant\n%s", got, c.want)
			}
			if l.w.state() != before || len(l.w.log) > 0 {
				t.Errorf("world %s: something was changed", l.w.state())
			}
			if runs, _ := l.store.List(); len(runs) > 0 {
				t.Errorf("it has left %d runs", len(runs))
			}
		})
	}
}

func TestTheHeadOfALivePlan(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	l.w.value["x@one:1"], l.w.value["lock@two:2"] = 3, 1
	plan := l.live(l.program(shelfHead + `
steps:
  - {id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}
  - {id: z, uses: shelf.set, target: b, with: {key: x, value: 1}}
`))
	if plan.Summary.Keys == nil || *plan.Summary.Keys != 300 || strings.Join(plan.Summary.Uncounted, " ") != "two:2" {
		t.Errorf("keys %v, not counted %v", plan.Summary.Keys, plan.Summary.Uncounted)
	}
	var text strings.Builder
	if err := plan.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"keys at stake: 300, and not counted on two:2\n", " by ana\n  known to fail: z: it is locked by 1\n  keys on one:1: 300 (step s)\n", "  observed: would change\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("wants %q in\n%s", want, text.String())
		}
	}
	raw, err := json.Marshal(plan)
	answer, notJSON := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	doc, noSchema := jsonschema.UnmarshalJSON(bytes.NewReader(PlanSchema()))
	c := jsonschema.NewCompiler()
	if err := errors.Join(notJSON, noSchema, c.AddResource("plan.schema.json", doc)); err != nil {
		t.Fatal(err)
	}
	if err := c.MustCompile("plan.schema.json").Validate(answer); err != nil {
		t.Errorf("it is not as its schema says: %v", err)
	}
	if err != nil || !strings.Contains(string(raw), `"observed":{"step":"s","state":"would-change"`) {
		t.Errorf("%v: %s", err, raw)
	}
}

// Keys that another system's kind reports may be old: a Redis INFO of a Pika tells what its last count found.
func TestKeysAreCountedByTheirOwnSystem(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]bool{"shelf.count": true, "other.count": false} {
		l := newLab(t)
		shelves(l)
		o := l.look(l.program(shelfHead + "steps: [{id: c, uses: " + kind + ", target: a, with: {key: x}}]\n"))
		if got := o.Steps[0].Keys; (got != nil) != want || want && *got != 5 {
			t.Errorf("%s: %v", kind, got)
		}
	}
}
