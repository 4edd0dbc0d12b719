package runner

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"runbook/schema"
)

// A runbook that keeps to all built-in policies, and what breaks each of them: what is
// replaced, by what, and what must be said then. Where nothing is to be said, the change is another way to keep to it.
func TestBuiltins(t *testing.T) {
	t.Parallel()
	const (
		ready = `  - {id: ready, uses: redis.compare, target: old, with: {against: new}, expect: value_mismatches == 0}`
		same  = `  - {id: same, uses: redis.compare, target: new, with: {against: old}, expect: value_mismatches == 0}`
		look  = `  - {id: look, uses: redis.info, target: old, wait-until: lag == 0, stable: 5s, timeout: 1h, tags: [sync]}`
		drop  = `  - {id: drop, uses: pika.delslots, target: old, with: {slots: "${{ inputs.slots }}"}, confirm: Drop it}`
		moved = `      - {id: switch, uses: codis.switch-slot, target: codis, with: {slots: "${{ inputs.slots }}", to_group: 2, source: old, destination: new}}`
		limit = "    timeout: 30s\n"
		lock  = "lock: {name: codis/demo}\n"
	)
	broken := func(book string) string {
		var names []string
		for _, v := range violations(policyPlan(t, book)) {
			names = append(names, v.policy.Name)
		}
		return strings.Join(names, ", ")
	}
	if got := broken(policyBook + policySteps); got != "" {
		t.Fatalf("the runbook that keeps to all of them breaks %s", got)
	}
	for _, test := range []struct{ name, from, to, want string }{
		{"nobody is asked", "confirm: Drop it}", "confirm: false, why: w}", "destroy-confirmed"},
		{"its kind asks", ", confirm: Drop it}", "}", ""},
		{"a group asks", drop, "  - {id: g, confirm: All of it, steps: [{id: drop, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}]}", ""},
		{"a step before it asks", drop, "  - {id: ask, uses: approve, with: {message: Go on}}\n  - {id: drop, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}", "destroy-confirmed"},
		{"it is known not to run", drop, "  - {id: drop, uses: pika.delslots, target: old, with: {slots: 1}, when: inputs.sure, confirm: false, why: w}", ""},
		{"an item far behind", drop, "  - {id: l, for-each: inputs.slots, steps: [{id: see, uses: redis.info, target: old}, {id: drop, when: item == 7, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}]}", "destroy-confirmed"},
		{"a target far behind", ready, ready + "\n  - {id: l, for-each: '[\"codis\", \"codis\", \"codis2\"]', key: \"${{ index }}\", target: \"${{ item == \\\"codis\\\" ? targets.codis : targets.codis2 }}\", timeout: 9s, uses: codis.switch-slot, with: {slots: \"${{ item == \\\"codis\\\" ? 1 : 99 }}\", to_group: 1, source: \"${{ item == \\\"codis\\\" ? targets.old : targets.other }}\"}}", "cutover-verified"},
		{"finally asks nobody", drop, "finally:\n  - {id: drop, uses: pika.delslots, target: old, with: {slots: 1}, confirm: false, why: w}", "destroy-confirmed"},

		{"nothing is verified", same, "", "destroy-verified"},
		{"what is read is not compared", ", with: {against: old}, expect: value_mismatches == 0}", ", with: {against: old}}", "destroy-verified"},
		{"the verification may be skipped", same, strings.Replace(same, "target: new,", "target: new, when: steps.look.offset > 0,", 1), "destroy-verified"},
		{"the verification is known to run", same, strings.Replace(same, "target: new,", "target: new, when: not inputs.sure,", 1), ""},
		{"its failure does not count", same, strings.Replace(same, "target: new,", "target: new, on-failure: continue,", 1), "destroy-verified"},
		{"it stands beside, not before", same + "\n" + drop, "  - {id: both, parallel: true, steps: [{id: same, uses: redis.info, target: new, expect: connected}, {id: drop, uses: pika.delslots, target: old, with: {slots: 1}}]}", "destroy-verified"},
		{"a loop that may have no items", same, "  - {id: same, for-each: steps.look.problems, uses: redis.info, target: new, expect: connected}", "destroy-verified"},
		{"a check of what was read since", same, "  - {id: seen, uses: redis.info, target: new}\n  - {id: same, uses: check, with: {that: steps.seen.connected}}", ""},
		{"a check of inputs", same, "  - {id: same, uses: check, with: {that: not inputs.sure}}", "destroy-verified"},
		{"a require of what was read since", same + "\n" + drop, "  - {id: seen, uses: redis.info, target: new}\n" + strings.Replace(drop, "confirm:", "require: steps.seen.connected, confirm:", 1), ""},
		{"a require of what was read before", same + "\n" + drop, strings.Replace(drop, "confirm:", "require: steps.look.connected, confirm:", 1), "destroy-verified"},
		{"a second deletion behind another cut-over", drop, drop + "\n" + strings.Replace(strings.Replace(moved, "      -", "  -", 1), "id: switch,", "id: back, timeout: 1m,", 1) + "\n" + strings.Replace(drop, "id: drop", "id: again", 1), "destroy-verified"},

		{"nobody looks", look + "\n  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}\n" + ready, "", "cutover-verified"},
		{"somebody looks at something else", look + "\n  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}\n" + ready, "  - {id: ready, uses: redis.info, target: other, expect: connected}", "cutover-verified"},
		{"somebody looks at the slots", look + "\n  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}\n" + ready, "  - {id: ready, uses: redis.info, target: other, with: {slots: 8-9}, expect: connected}", ""},
		{"somebody looks, and does not judge", look + "\n  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}\n" + ready, "  - {id: ready, uses: redis.info, target: old}", "cutover-verified"},
		{"the group requires it", look + "\n  - {id: prepare, uses: pika.addslots, target: new, with: {slots: 9}}\n" + ready + "\n  - id: move", "  - {id: seen, uses: redis.info, target: other}\n  - id: move\n    require: steps.seen.connected", ""},

		{"no limit", limit, "", "cutover-bounded"},
		{"a limit of its own", limit + "    steps:\n" + moved, "    steps:\n" + strings.Replace(moved, "id: switch,", "id: switch, timeout: 10s,", 1), ""},

		{"it looks once", "stable: 5s, ", "", "wait-stable"},
		{"it looks once, at something else", "wait-until: lag == 0, stable: 5s", "wait-until: connected", ""},
		{"clients are held already", moved, "      - {id: hold, uses: exec, effect: cutover, idempotent: true, with: {command: [hold]}, undo: none, why: w}\n      - {id: level, uses: redis.info, target: old, wait-until: lag == 0, timeout: 10s}\n" + moved, ""},
		{"a flag is no lag", "wait-until: lag == 0, stable: 5s", "wait-until: version == 'flag'", ""},

		{"no lock", lock, "", "lock-held"},
		{"no way back", "uses: pika.addslots, target: new, with: {slots: 9}}", "uses: redis.flip, target: other}", "way-back"},
		{"the author says so", "uses: pika.addslots, target: new, with: {slots: 9}}", "uses: redis.flip, target: other, point-of-no-return: true}", ""},
		{"steps put it back", "uses: pika.addslots, target: new, with: {slots: 9}}", "uses: redis.flip, target: other, undo: [{id: flop, uses: redis.flip, target: other}]}", ""},
	} {
		book := strings.Replace(policyBook, "targets:\n", "targets:\n  other: {kind: redis, addr: \"10.0.0.3:6379\"}\n  codis2: {kind: codis, addr: \"10.0.0.8:18080\", product: two}\n", 1) + policySteps
		if !strings.Contains(book, test.from) {
			t.Fatalf("%s: there is no %q", test.name, test.from)
		}
		book = strings.Replace(book, test.from, test.to, 1)
		if got := broken(book); got != test.want {
			t.Errorf("%s: got %q, wanted %q", test.name, got, test.want)
		}
	}
}

// Each violation stands at its step, once for all items of a loop, and says how to keep to it.
func TestBuiltinsAsFindings(t *testing.T) {
	t.Parallel()
	plan := policyPlan(t, policyBook+`
steps:
  - id: each
    for-each: inputs.slots
    uses: pika.delslots
    target: old
    with: {slots: "${{ item }}"}
    confirm: false
    why: a test
`)
	got := rendered(t, plan.PolicyFindings())
	want := `test.yaml:15:9: warning: destroy-confirmed: each[item=1] destroys something, and nobody is asked [policy-warned]
  help: confirm: … on the step, or on a group around it
test.yaml:15:9: warning: destroy-verified: each[item=1] destroys something, and nothing is verified before it [policy-warned]
  help: a read with expect behind the last cut-over, such as redis.compare
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Who enforces, who waives, and which of them is stronger.
func TestBuiltinsEnforcedAndWaived(t *testing.T) {
	t.Parallel()
	const waive = "policy: [{waive: lock-held, reason: one operator}]"
	file := func(entries string) []string { return []string{"policy: [" + entries + "]"} }
	for _, test := range []struct {
		own   string
		files []string
		want  string
	}{
		{"", nil, "warned lock-held"},
		{waive, nil, "waived lock-held"},
		{"policy: [{enforce: lock-held}]", nil, "denied lock-held"},
		{"policy: [{enforce: all}]", nil, "denied lock-held"},
		{"policy: [{enforce: wait-stable}]", nil, "warned lock-held"},
		{"policy: [{enforce: all}, {waive: lock-held, reason: one operator}]", nil, "waived lock-held"},
		{"", file("{enforce: all}"), "denied lock-held"},
		{waive, file("{enforce: all}"), "denied lock-held"},
		{waive, file("{enforce: lock-held}"), "denied lock-held"},
		{waive, file("{enforce: all, waivable: true}"), "waived lock-held"},
		{waive, file("{enforce: all, waivable: true}, {enforce: lock-held}"), "denied lock-held"},
		{waive, file("{enforce: all}, {enforce: lock-held, waivable: true}"), "waived lock-held"},
		{"", file("{enforce: all, waivable: true}"), "denied lock-held"},
		{"", file("{enforce: all}, {waive: lock-held, reason: ours is elsewhere}"), "waived lock-held"},
		{"policy: [{enforce: lock-held}]", file("{waive: lock-held, reason: ours is elsewhere}"), "waived lock-held"},
		{"", append(file("{enforce: all}"), file("{waive: lock-held, reason: not ours}")...), "denied lock-held"},
	} {
		plan := policyPlan(t, strings.Replace(policyBook, "lock: {name: codis/demo}\n", "", 1)+test.own+policySteps, test.files...)
		if got := strings.Join(said(plan), ", "); got != test.want {
			t.Errorf("%s beside %q: got %q, wanted %q", test.own, test.files, got, test.want)
		}
		v := plan.Policies[0]
		if strings.Contains(test.own+strings.Join(test.files, ""), "waive:") != (v.Reason != "") {
			t.Errorf("%s beside %q: the reason is %q", test.own, test.files, v.Reason)
		}
		if (v.Verdict == denied) != schema.Failed(plan.PolicyFindings()) {
			t.Errorf("%s is %v", v.Verdict, plan.PolicyFindings())
		}
	}
}

// Lint says what has no way back; a plan says it again only where that refuses it.
func TestWayBackIsToldOnce(t *testing.T) {
	t.Parallel()
	steps := strings.Replace(policySteps, "uses: pika.addslots, target: new, with: {slots: 9}}", "uses: exec, effect: write, with: {command: [x]}}", 1)
	if got := said(policyPlan(t, policyBook+steps)); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if got := said(policyPlan(t, policyBook+"policy: [{enforce: way-back}]"+steps)); !slices.Equal(got, []string{"denied way-back"}) {
		t.Errorf("got %q", got)
	}
}

// The plan's text has denials above all else, and waivers with their reason.
func TestPolicyText(t *testing.T) {
	t.Parallel()
	plan := policyPlan(t, strings.Replace(policyBook, "lock: {name: codis/demo}\n", "", 1)+`
policy:
  - {deny: plan.destroys > 0, message: nothing is destroyed on a Friday}
  - {waive: lock-held, reason: the only operator is on leave}
`+strings.Replace(policySteps, "stable: 5s, ", "", 1))
	var b strings.Builder
	if err := plan.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		`^denied: nothing is destroyed on a Friday\nplan of policies`,
		`(?m)^warned by wait-stable: look waits for a lag and looks once, and the cut-over switch relies on it$`,
		`(?m)^waived lock-held: the only operator is on leave\n  switch works on a system that others can reach`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// The language and the program know the same built-in policies.
func TestBuiltinsAreWordsOfTheLanguage(t *testing.T) {
	t.Parallel()
	var names []string
	for _, b := range Builtins() {
		names = append(names, b.Name)
		if b.Rule == "" || b.Why == "" || b.Remedy == "" {
			t.Errorf("%s does not say what it is, why, and how to keep to it", b.Name)
		}
	}
	typ := reflect.TypeFor[schema.Policy]()
	for field, want := range map[string][]string{"Waive": names, "Enforce": append([]string{"all"}, names...)} {
		f, _ := typ.FieldByName(field)
		if got := strings.Split(f.Tag.Get("enum"), ","); !slices.Equal(got, want) {
			t.Errorf("%s takes %v, not %v", field, got, want)
		}
	}
}

// A policy file is checked like a runbook, without one.
func TestPolicyFilesAreChecked(t *testing.T) {
	t.Parallel()
	const path = "../testdata/lint/policy/team.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, findings := schema.ParsePolicies(path, text)
	findings = schema.Sort(append(findings, CheckPolicies([]*schema.PolicyFile{file})...))
	golden := strings.TrimSuffix(path, ".yaml") + ".want"
	got := rendered(t, findings)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || got != string(want) {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, got, want)
	}
}
