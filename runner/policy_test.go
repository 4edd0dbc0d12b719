package runner

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
)

// policyBook has one step of each effect, and a person's yes before what it destroys.
const policyBook = `version: 1
name: policies
labels: {team: storage}
inputs:
  slots: {type: slots, default: 1-8}
  sure: {type: bool, default: false}
secrets: {word: {env: WORD}}
targets:
  old: {kind: pika, addr: "10.0.0.1:9221", labels: {env: production}}
  new: {kind: pika, addr: "10.0.0.2:9221"}
  codis: {kind: codis, addr: "10.0.0.9:18080", product: demo}
lock: {name: codis/demo}
`

const policySteps = `
steps:
  - {id: look, uses: redis.info, target: old, wait-until: lag == 0, stable: 5s, timeout: 1h, tags: [sync]}
  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}
  - {id: ready, uses: redis.compare, target: old, with: {against: new}, expect: value_mismatches == 0}
  - id: move
    confirm: {message: Go on, approvals: 2}
    timeout: 30s
    steps:
      - {id: switch, uses: codis.switch-slot, target: codis, with: {slots: "${{ inputs.slots }}", to_group: 2, source: old, destination: new}}
  - {id: same, uses: redis.compare, target: new, with: {against: old}, expect: value_mismatches == 0}
  - {id: drop, uses: pika.delslots, target: old, with: {slots: "${{ inputs.slots }}"}, confirm: Drop it}
`

func policyPlan(t *testing.T, book string, files ...string) *Plan {
	t.Helper()
	p, findings := load(t, book)
	if schema.Failed(findings) {
		t.Fatal(rendered(t, findings))
	}
	var parsed []*schema.PolicyFile
	for _, text := range files {
		file, findings := schema.ParsePolicies("team.yaml", []byte(text))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		parsed = append(parsed, file)
	}
	p, findings = p.WithPolicies(parsed)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	in, findings, err := p.BindInputs(GivenInputs{})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	plan, findings, err := MakePlan(p, in, Selection{})
	if err != nil || plan == nil {
		t.Fatal(err, findings)
	}
	return plan
}

// said are the verdicts of a plan: name (or message) and verdict.
func said(plan *Plan) []string {
	var all []string
	for _, v := range plan.Policies {
		name := v.Name
		if name == "" {
			name = v.Message
		}
		all = append(all, v.Verdict+" "+name)
	}
	return all
}

// What each field of the plan is, by a policy that holds exactly where the field is as it should be.
func TestPolicyFields(t *testing.T) {
	t.Parallel()
	for _, holds := range []string{
		`plan.name == "policies"`,
		`plan.path == "test.yaml"`,
		`plan.labels.team == "storage"`,
		`plan.labels.nobody == nil`,
		`len(plan.inputs.slots) == 8 && !plan.inputs.sure`,
		`len(inputs.slots) == 8 && targets.old.labels.env == "production"`,
		`plan.reads == 3 && plan.writes == 1 && plan.cutovers == 1 && plan.destroys == 1`,
		`plan.confirmed`,
		`plan.approvals == 1`,
		`plan.max_parallel == 1 && plan.max_parallel_changes == 1`,
		`plan.longest_pause == nil`,
		`plan.slots == [1, 2, 3, 4, 5, 6, 7, 8, 9]`,
		`plan.irreversible == ["drop"]`,
		`plan.gates == ["drop", "move"]`,
		`plan.locked && plan.lock == "codis/demo"`,
		`plan.on_failure == "stop"`,
		`plan.unknown_loops == 0 && plan.left_out == 0`,
		`map(plan.targets, it.name) == ["codis", "new", "old"]`,
		`len(plan.steps) == 6`,
		`map(plan.steps, it.path) == ["look", "prepare", "ready", "switch", "same", "drop"]`,
		`map(plan.steps, it.approvals) == [0, 0, 0, 2, 0, 1]`,
		`map(filter(plan.steps, it.confirmed), it.id) == ["switch", "drop"]`,
		`map(filter(plan.steps, it.undo), it.id) == ["prepare", "switch"]`,
		`map(filter(plan.steps, it.expects), it.id) == ["ready", "same"]`,
		`map(filter(plan.steps, it.waits), it.id) == ["look"]`,
		`map(filter(plan.steps, it.no_return), it.id) == ["drop"]`,
		`plan.steps[0].stable == duration("5s") && plan.steps[0].timeout == duration("1h")`,
		`plan.steps[1].stable == nil && plan.steps[1].pause == nil && !plan.steps[1].parallel`,
		`"sync" in plan.steps[0].tags`,
		`any(plan.steps, it.effect == "destroy" && any(it.targets, it.labels.env == "production"))`,
	} {
		if got := said(policyPlan(t, policyBook+"policy: [{warn: '"+holds+"', message: yes}]"+policySteps)); !slices.Contains(got, "warned yes") {
			t.Errorf("%s does not hold", holds)
		}
		if got := said(policyPlan(t, policyBook+"policy: [{deny: 'not ("+holds+")', message: no}]"+policySteps)); len(got) > 0 {
			t.Errorf("not (%s): %v", holds, got)
		}
	}
}

// The examples of the language, and what only a run can know.
func TestPolicyVerdicts(t *testing.T) {
	t.Parallel()
	const deletion = "plan.destroys > 0 && !plan.confirmed"
	remove := func(more string) string {
		return "\nsteps:\n  - {id: seen, uses: redis.info, target: old, expect: connected}\n  - {id: drop, uses: pika.delslots, target: old, with: {slots: 1}" + more + "}\n"
	}
	loop := func(more string) string {
		return "\nsteps:\n  - {id: list, uses: redis.info, target: old}\n  - id: each\n    for-each: steps.list.problems\n" + more
	}
	const unknown = "the items of each"
	for _, test := range []struct {
		policy, steps string
		verdict       string // denied or warned; empty: nothing
		unknown       string // what only a run can know
	}{
		{deletion, remove(""), "", ""}, // its kind asks
		{deletion, remove(", confirm: Drop it"), "", ""},
		{deletion, remove(", confirm: false, why: a test"), "denied", ""},
		{deletion, remove(", confirm: false, why: a test, when: '1 == 2'"), "", ""},
		{deletion, "\nsteps: [{id: g, confirm: All of it, steps: [{id: drop, uses: pika.delslots, target: old, with: {slots: 1}}]}]", "", ""},
		{deletion, "\nsteps: [{id: g, steps: [{id: l, uses: redis.info, target: old}], rescue: [{id: drop, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}]}]", "denied", ""},
		{deletion, "\nsteps: [{id: g, confirm: All of it, steps: [{id: l, uses: redis.info, target: old}], rescue: [{id: drop, uses: pika.delslots, target: old, with: {slots: 1}}]}]", "denied", ""},
		{deletion, loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n"), "", ""},
		{deletion, loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n    confirm: false\n    why: w\n"), "denied", unknown},
		{"plan.destroys > 5", loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n"), "denied", unknown},
		{"plan.destroys == 0", loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n"), "denied", unknown},
		{"plan.reads > 100", loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n"), "", ""},
		{`count(plan.steps, it.effect == "destroy") > 50`, loop("    uses: pika.delslots\n    target: old\n    with: {slots: 1}\n"), "denied", unknown},
		{"plan.max_parallel > 4", "\nsteps: [{id: a, for-each: inputs.slots, max-parallel: 5, uses: redis.info, target: old}]", "denied", ""},
		{"plan.max_parallel > 4", "\nsteps: [{id: a, for-each: inputs.slots, max-parallel: 4, uses: redis.info, target: old}]", "", ""},
		{"plan.max_parallel > 4", "\nsteps: [{id: a, for-each: '[1, 2, 3]', max-parallel: 50, uses: redis.info, target: old}]", "", ""},
		{"plan.max_parallel > 4", loop("    max-parallel: 5\n    uses: redis.info\n    target: old\n"), "denied", unknown},
		{"plan.max_parallel > 4", loop("    max-parallel: 4\n    uses: redis.info\n    target: old\n"), "", ""},
		{"plan.max_parallel == 6", "\nsteps: [{id: a, for-each: '[1, 2, 3]', max-parallel: 3, parallel: true, steps: [{id: b, uses: redis.info, target: old}, {id: c, uses: redis.info, target: old}]}]", "denied", ""},
		{"plan.max_parallel_changes == 1", "\nsteps: [{id: a, parallel: true, steps: [{id: b, uses: redis.flip2, target: old}, {id: c, uses: redis.info, target: old}]}]", "denied", ""},
		{"plan.longest_pause > duration('1s')", remove(""), "", ""},
		{"!(plan.longest_pause <= duration('1s'))", remove(""), "", ""},
		{"(plan.longest_pause ?? duration('0s')) > duration('1s')", remove(""), "", ""},
		{"plan.longest_pause > duration('1s')", "\nsteps: [{id: a, uses: redis.info, target: old}, {id: move, uses: codis.switch-slot, target: codis, with: {slots: '${{ steps.a.offset }}', to_group: 1}}]", "denied", "the pause of move"},
		{"plan.longest_pause > duration('1s')", "\nsteps: [{id: a, uses: redis.info, target: old}, {id: add, uses: pika.addslots, target: new, with: {slots: '${{ steps.a.offset }}'}}]", "", ""},
		{"len(plan.slots) > 100", "\nsteps: [{id: a, uses: redis.info, target: old}, {id: add, uses: pika.addslots, target: new, with: {slots: '${{ steps.a.offset }}'}}]", "denied", "the slots of add"},
		{"any(plan.steps, it.effect == 'destroy' && any(it.targets, it.name == 'old'))", "\nsteps: [{id: a, uses: redis.info, target: old}, {id: drop, uses: pika.delslots, target: '${{ steps.a.connected ? targets.old : targets.new }}', with: {slots: 1}}]", "denied", ""},
		{"plan.approvals < 2", "\nsteps: [{id: a, uses: redis.info, target: old}]", "", ""},
		{"plan.approvals < 2", remove(""), "denied", ""},
		{"plan.steps[7].id == 'x'", remove(""), "denied", "no element"}, // what cannot be evaluated may be so
	} {
		steps := strings.ReplaceAll(test.steps, "redis.flip2", "redis.config-set, with: {name: n, value: v}")
		plan := policyPlan(t, policyBook+"policy:\n  - deny: "+quote(test.policy)+"\n    message: the words\n"+steps)
		own := slices.DeleteFunc(plan.Policies, func(v PlanPolicy) bool { return v.Name != "" })
		switch {
		case test.verdict == "" && len(own) == 0:
		case len(own) != 1 || own[0].Verdict != test.verdict || own[0].Message != "the words" || (own[0].Unknown == "") != (test.unknown == "") || !strings.Contains(own[0].Unknown, test.unknown):
			t.Errorf("%s of%s\ngot %+v, wanted %q, %q", test.policy, steps, own, test.verdict, test.unknown)
		}
	}
}

func quote(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }

// A message is text over the same names.
func TestPolicyMessage(t *testing.T) {
	t.Parallel()
	plan := policyPlan(t, policyBook+"policy: [{warn: plan.destroys > 0, message: \"${{ plan.destroys }} of ${{ len(plan.steps) }} on slots ${{ ranges(plan.slots) }}\"}, {warn: plan.writes == 1}]"+policySteps)
	if got, want := said(plan), []string{"warned 1 of 6 on slots 1-9", "warned plan.writes == 1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	for _, v := range plan.Policies {
		if v.Path != "test.yaml" || v.Line != 13 {
			t.Errorf("%+v stands at %s:%d", v, v.Path, v.Line)
		}
	}
}

// The values of all fields are of the types that they are declared with.
func TestPolicyFieldsHaveTheirTypes(t *testing.T) {
	t.Parallel()
	p, _ := load(t, policyBook+policySteps)
	in, _, _ := p.BindInputs(GivenInputs{})
	plan, _, err := MakePlan(p, in, Selection{})
	if err != nil {
		t.Fatal(err)
	}
	pl := &planner{program: p, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}, chosen: func(*Node) bool { return true }}
	a := asking{plan: plan, scope: pl.root(in, &Plan{}), facts: nil}
	a.facts = factsOfPlan(plan, a.scope)
	for _, s := range []supposing{least, once, most} {
		env := a.env(s, func(string) bool { return true })
		for _, f := range planFields(anyMapType) {
			v := env["plan"].(map[string]any)[f.name]
			if got := typeOfValue(v); v != nil && !expression.Assignable(got, f.typ) && f.name != "targets" && f.name != "steps" {
				t.Errorf("plan.%s is %s, not %s", f.name, got, f.typ)
			}
		}
	}
}

// A policy sees no secret, whoever wrote it.
func TestPolicySeesNoSecret(t *testing.T) {
	t.Parallel()
	book := strings.Replace(policyBook, "inputs:\n", "inputs:\n  token: {type: secret}\n", 1)
	_, findings := load(t, book+"policy: [{warn: 'plan.inputs.token == \"\"'}, {warn: 'inputs.token == \"\"'}, {warn: 'secrets.word == \"\"'}]"+policySteps)
	if got := rendered(t, findings); strings.Count(got, "error:") != 3 {
		t.Errorf("got\n%s", got)
	}
	p, findings := load(t, book+policySteps)
	if p == nil {
		t.Fatal(rendered(t, findings))
	}
	pl := &planner{program: p, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}}
	scope := pl.root(&Inputs{Values: map[string]any{"slots": []any{1}, "sure": false}}, &Plan{})
	if v, there := factsOfPlan(&Plan{}, scope).values["token"]; there {
		t.Errorf("a policy file sees %v", v)
	}
}

// A plan of many steps with policies that read all of them is judged in a moment.
func TestPolicyOfALargePlan(t *testing.T) {
	t.Parallel()
	began := time.Now()
	plan := policyPlan(t, policyBook+"policy: [{warn: 'any(plan.steps, it.effect == \"destroy\" && !it.confirmed)'}]"+`
steps:
  - id: each
    for-each: slots("0-9999")
    steps:
      - {id: look, uses: redis.info, target: old}
      - {id: drop, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}
`)
	if got := said(plan); !slices.Contains(got, "warned destroy-confirmed") || len(got) != 3 {
		t.Errorf("got %q", got)
	}
	if took := time.Since(began); took > 20*time.Second { // a loaded machine; alone it takes a fraction of a second
		t.Errorf("took %v", took)
	}
}

// BenchmarkPolicy is a plan of 2000 steps with policies that read every step, and the built-in ones.
func BenchmarkPolicy(b *testing.B) {
	var steps strings.Builder
	for i := range 500 {
		fmt.Fprintf(&steps, "  - {id: look%d, uses: redis.info, target: old, wait-until: lag == 0, stable: 5s, timeout: 1h}\n", i)
		fmt.Fprintf(&steps, "  - {id: ready%d, uses: redis.compare, target: old, with: {against: new}, expect: value_mismatches == 0}\n", i)
		fmt.Fprintf(&steps, "  - {id: switch%d, uses: codis.switch-slot, timeout: 5s, target: codis, with: {slots: %d, to_group: 2, source: old, destination: new}}\n", i, i)
		fmt.Fprintf(&steps, "  - {id: drop%d, uses: pika.delslots, target: old, with: {slots: %d}, require: \"(steps.look%d.lag ?? 1) == 0\"}\n", i, i, i)
	}
	book := policyBook + "policy: [{deny: 'any(plan.steps, it.effect == \"destroy\" && !it.confirmed)'}, {warn: plan.max_parallel > 4}, {warn: plan.destroys > 1000}]\nsteps:\n" + steps.String()
	p, findings := Load("x.yaml", LoadOptions{Catalog: fakeCatalog(), ReadFile: func(string) ([]byte, error) { return []byte(book), nil }})
	if p == nil {
		b.Fatal(findings)
	}
	in, _, err := p.BindInputs(GivenInputs{})
	if err != nil {
		b.Fatal(err)
	}
	plan, _, err := MakePlan(p, in, Selection{})
	if err != nil {
		b.Fatal(err)
	}
	pl := &planner{program: p, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}}
	scope := pl.root(in, &Plan{})
	for b.Loop() {
		if got := p.judge(plan, scope); len(got) != 500 { // nothing is verified behind a cut-over
			b.Fatal(len(got))
		}
	}
}
