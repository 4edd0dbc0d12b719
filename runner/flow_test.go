package runner

import (
	"strings"
	"testing"
)

// Each case is a list of steps in which the step r reads the step t; want is the rule of
// the one finding, empty for none.
func TestFlow(t *testing.T) {
	const (
		read  = "{id: r, uses: redis.info, target: a, expect: steps.t.offset >= 0}"
		soft  = "{id: r, uses: redis.info, target: a, expect: '(steps.t?.offset ?? 0) >= 0'}"
		state = "{id: r, uses: redis.info, target: a, expect: steps.t.status != \"\"}"
		to    = "{id: t, uses: redis.info, target: a}"
		other = "{id: o, uses: redis.info, target: a}"
	)
	maybe := strings.Replace(to, "}", ", when: inputs.go}", 1)
	guarded := strings.Replace(read, "expect", "when: steps.t.status == \"ok\", expect", 1)
	cases := []struct{ name, steps, want string }{
		{"earlier", to + read, ""},
		{"later", read + to, "read-before-run"},
		{"later, status", state + to, "read-before-run"},
		{"out of a group", "{id: g, steps: [" + to + "]}" + read, ""},
		{"out of a parallel group", "{id: g, parallel: true, steps: [" + to + "," + other + "]}" + read, ""},
		{"into a group", to + "{id: g, steps: [" + read + "]}", ""},
		{"within a group", "{id: g, steps: [" + to + "," + read + "]}", ""},
		{"beside in parallel", "{id: g, parallel: true, steps: [" + to + "," + read + "]}", "sibling-branch"},
		{"below a parallel sibling", "{id: g, parallel: true, steps: [{id: h, steps: [" + to + "]}, {id: i, steps: [" + read + "]}]}", "sibling-branch"},
		{"in one branch", "{id: g, parallel: true, steps: [{id: h, steps: [" + to + "," + read + "]}, " + other + "]}", ""},

		{"when", maybe + read, "may-not-have-run"},
		{"when, ?.", maybe + soft, ""},
		{"when, status", maybe + state, ""},
		{"when, asked for", maybe + guarded, ""},
		{"when, asked for by the group", maybe + "{id: g, when: steps.t.status == \"ok\", steps: [" + read + "]}", ""},
		{"when, another one asked for", maybe + other + strings.Replace(read, "expect", "when: steps.o.status == \"ok\", expect", 1), "may-not-have-run"},
		{"when of the group", "{id: g, when: inputs.go, steps: [" + to + "]}" + read, "may-not-have-run"},
		{"when of the group, whose status was asked for", "{id: g, when: inputs.go, steps: [" + to + "]}" + strings.Replace(read, "expect", "when: steps.g.status == \"ok\", expect", 1), ""},
		{"same when group", "{id: g, when: inputs.go, steps: [" + to + "," + read + "]}", ""},
		{"deep in the same when group", "{id: g, when: inputs.go, steps: [{id: h, steps: [" + to + "]}," + read + "]}", ""},
		{"continue", strings.Replace(to, "}", ", on-failure: continue}", 1) + read, "may-not-have-run"},
		{"stop", strings.Replace(to, "}", ", on-failure: stop}", 1) + read, ""},

		{"rescued", strings.Replace(to, "}", ", rescue: ["+other+"]}", 1) + read, "may-not-have-run"},
		{"rescued, from its rescue", strings.Replace(to, "}", ", rescue: ["+read+"]}", 1), "may-not-have-run"},
		{"rescue, from outside", strings.Replace(other, "}", ", rescue: ["+to+"]}", 1) + read, "may-not-have-run"},
		{"rescue, from beside", strings.Replace(other, "}", ", rescue: ["+to+","+read+"]}", 1), ""},
		{"body, from the group's rescue", "{id: g, steps: [" + to + "], rescue: [" + read + "]}", "may-not-have-run"},
		{"before the group, from its rescue", to + "{id: g, steps: [" + other + "], rescue: [" + read + "]}", ""},

		{"own loop", "{id: l, for-each: [1, 2], steps: [" + to + "," + read + "]}", ""},
		{"out of a loop", "{id: l, for-each: [1, 2], steps: [" + to + "]}" + read, "inside-loop"},
		{"out of a group in a loop", "{id: l, for-each: [1, 2], steps: [{id: g, steps: [" + to + "]}]}" + read, "inside-loop"},
		{"a loop's sibling loop", "{id: l, for-each: [1, 2], steps: [" + to + "]}{id: m, for-each: [1, 2], steps: [" + read + "]}", "inside-loop"},
		{"before a loop", to + "{id: l, for-each: [1, 2], steps: [" + read + "]}", ""},
		{"after a batch", "{id: l, for-each: [1, 2], steps: [" + to + "], after-batch: [" + read + "]}", "inside-loop"},
		{"the loop after a batch", "{id: t, for-each: [1, 2], uses: redis.info, target: a, after-batch: [" + state + "]}", "read-before-run"},
		{"beside after a batch", "{id: l, for-each: [1, 2], steps: [" + other + "], after-batch: [" + to + "," + read + "]}", ""},
		{"undo", strings.Replace(other, "redis.info", "redis.flip", 1) + "{id: x, uses: redis.flip, target: a, undo: [" + to + "]}" + read, "unreachable-step"},
		{"undo, from beside", "{id: x, uses: redis.flip, target: a, undo: [" + to + "," + read + "]}", ""},
		{"from an undo", to + "{id: x, uses: redis.flip, target: a, undo: [" + read + "]}", ""},
		{"own step from an undo", "{id: t, uses: redis.config-set, target: a, with: {name: x, value: x}, undo: [" + strings.Replace(read, "offset >= 0", "after == \"\"", 1) + "]}", "may-not-have-run"},
		{"repeat", "{id: g, repeat: {until: steps.t.connected, max: 3}, steps: [" + to + "]}" + read, ""},
		{"background", "{id: t, uses: exec, effect: write, background: true, with: {shell: x}}" + strings.Replace(read, "offset >= 0", "exit_code == 0", 1), "may-not-have-run"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			list := strings.ReplaceAll(c.steps, "}{", "}\n  - {")
			text := head + "inputs: {go: {type: bool, default: true, check: value}}\nsteps:\n  - " + list + "\n"
			_, findings := load(t, text)
			var rules []string
			for _, f := range findings {
				if f.Rule != "unused-input" && f.Rule != "no-undo" {
					rules = append(rules, f.Rule)
				}
			}
			if got := strings.Join(rules, " "); got != c.want {
				t.Errorf("got %q, want %q\n%s\n%v", got, c.want, text, findings)
			}
		})
	}
}

// Whatever is read from finally may not have run.
func TestFlowFinally(t *testing.T) {
	const steps = "steps:\n  - {id: t, uses: redis.info, target: a}\nfinally:\n"
	for expect, want := range map[string]string{
		"expect: steps.t.offset >= 0":                                "may-not-have-run",
		"expect: '(steps.t?.offset ?? 0) >= 0'":                      "",
		"when: steps.t.status == \"ok\", expect: steps.t.offset > 0": "",
		"expect: steps.t.status == \"ok\"":                           "",
	} {
		_, findings := load(t, head+steps+"  - {id: r, uses: redis.info, target: a, "+expect+"}\n")
		got := ""
		for _, f := range findings {
			got += f.Rule
		}
		if got != want {
			t.Errorf("%s: got %q, want %q: %v", expect, got, want, findings)
		}
	}
	_, findings := load(t, head+strings.Replace(steps, "target: a}", "target: a, when: steps.r.connected}", 1)+"  - {id: r, uses: redis.info, target: a}\n")
	if len(findings) != 1 || findings[0].Rule != "read-before-run" {
		t.Errorf("reading a step of finally from the steps: %v", findings)
	}
}
