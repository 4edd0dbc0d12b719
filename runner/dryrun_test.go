package runner

import (
	"context"
	"strings"
	"testing"

	"runbook/steps"
)

// said gives what a dry run says of each step.
func (l *lab) said() string {
	l.t.Helper()
	var said []string
	for _, r := range l.records {
		var b StepFinished
		if r.Type == recStepFinished && r.Decode(&b) == nil {
			said = append(said, r.Step+" "+b.Status)
		}
	}
	return strings.Join(said, ", ")
}

func TestWhatADryRunSays(t *testing.T) {
	for _, c := range []struct {
		name, steps, said string
		want              Status
	}{
		{"already so", `[{id: a, uses: mem.set, with: {key: x, value: 0}}, {id: b, uses: mem.get, with: {key: x}, expect: value == 0}]`, "a ok, b ok", Succeeded},
		{"a precondition known to be false", `[{id: a, uses: mem.set, require: 1 > 2, with: {key: x, value: 1}}, {id: b, uses: mem.get, with: {key: x}}]`, "a failed, b unknown", Failed},
		{"an expect known to be false", `[{id: b, uses: mem.get, with: {key: x}, expect: value == 1}, {id: c, uses: set, with: {values: {a: 1}}}]`, "b failed, c ok", Failed},
		{"a read that may fail", `[{id: b, uses: mem.get, on-failure: continue, with: {key: x}, expect: value == 1}, {id: c, uses: check, with: {that: ['steps.b.status == "failed"']}}]`, "b failed, c ok", Succeeded},
		{"reads once, without waiting", `[{id: b, uses: mem.get, with: {key: x}, wait-until: value == 1, timeout: 1m}]`, "b unknown", Succeeded},
		{"pure values stay known", `[{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: s, uses: set, with: {values: {n: 2}}}, {id: c, uses: check, with: {that: [steps.s.n == 2]}}, {id: d, uses: check, with: {that: [steps.a.value == 1]}}]`, "a would-change, s ok, c ok, d unknown", Succeeded},
		{"require hangs on it", `[{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: b, uses: mem.set, require: steps.a.value == 1, with: {key: y, value: 1}}]`, "a would-change, b unknown", Succeeded},
		{"a group", `[{id: g, steps: [{id: a, uses: mem.set, with: {key: x, value: 1}}]}, {id: c, uses: check, with: {that: ['steps.g.status == "ok"']}}]`, "a would-change, g ok, c unknown", Succeeded},
		{"a group that hangs on it", `[{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: g, when: steps.a.value == 1, steps: [{id: b, uses: mem.get, with: {key: x}}]}, {id: c, uses: check, with: {that: ["(steps.b?.value ?? 7) == 7"]}}]`, "a would-change, g unknown, c unknown", Succeeded},
		{"a loop", `[{id: l, for-each: "[1, 2]", uses: mem.set, with: {key: "k${{ item }}", value: "${{ item - 1 }}"}}, {id: c, uses: check, with: {that: ['steps.l.items[0].value == 0']}}]`, "l[item=1] ok, l[item=2] would-change, l ok, c unknown", Succeeded},
		{"a loop over what it does not know", `[{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: l, for-each: "[steps.a.value]", uses: mem.set, with: {key: "k${{ item }}", value: 1}}]`, "a would-change, l unknown", Succeeded},
		{"a sub-runbook", `[{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: cut, uses: ./sub.yaml, with: {n: "${{ steps.a.value }}"}}, {id: cut2, uses: ./sub.yaml, with: {n: 1}}, {id: c, uses: check, with: {that: [steps.cut2.got == 1]}}]`, "a would-change, cut unknown, cut2/hold would-change, cut2 ok, c unknown", Succeeded},
		{"gates, sleep and background are passed", `[{id: a, uses: approve, with: {message: Go}}, {id: z, uses: sleep, with: {duration: 9h}}, {id: b, background: true, uses: mem.add, undo: none, with: {key: x, value: 1}}, {id: d, uses: mem.set, confirm: Sure, with: {key: y, value: 1}}]`, "a ok, z ok, b would-change, d would-change", Succeeded},
		{"side by side", `[{id: p, parallel: true, steps: [{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: b, uses: mem.get, with: {key: x}, expect: value == 1}]}]`, "a would-change, b unknown, p ok", Succeeded},
		{"an author's read", `[{id: r, uses: mem.add, effect: read, with: {key: x, value: 0}}]`, "r ok", Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.ask = func(context.Context, Question) (Answer, error) { t.Error("asked"); return Answer{}, nil }
			p := l.program(bookHead+"steps: "+c.steps+"\n", "sub.yaml", crashSub)
			r := l.exec(p, func(q *Request) { q.DryRun = true })
			if r.Status != c.want {
				t.Errorf("status %s (%v), want %s", r.Status, r.Err, c.want)
			}
			if got := l.said(); got != c.said {
				t.Errorf("said %s\nwant %s", got, c.said)
			}
			if l.w.state() != `{}` && c.name != "an author's read" {
				t.Errorf("world %s", l.w.state())
			}
		})
	}
}

func TestADryRunTellsServersApartByAddress(t *testing.T) {
	l := newLab(t)
	spots(l)
	l.w.extra = append(l.w.extra, (&steps.Kind[memGetIn, memGetOut]{Name: "spot.get", Doc: "Gets.", On: []string{"spot"}, Effect: steps.Read,
		Read: func(_ context.Context, _ steps.View, in memGetIn) (memGetOut, error) { return memGetOut{}, nil }}).Define())
	l.exec(l.program(bookHead+`
targets: {a: {kind: spot, addr: "one:1"}, same: {kind: spot, addr: "one:1"}, b: {kind: spot, addr: "two:1"}}
steps:
  - {id: w, uses: spot.add, target: a, undo: none, with: {key: x, value: 1}}
  - {id: ra, uses: spot.get, target: a, with: {key: x}}
  - {id: rs, uses: spot.get, target: same, with: {key: x}}
  - {id: rb, uses: spot.get, target: b, with: {key: x}}
`), func(q *Request) { q.DryRun = true })
	if got := l.said(); got != "w would-change, ra unknown, rs unknown, rb ok" {
		t.Errorf("said %s", got)
	}
}
