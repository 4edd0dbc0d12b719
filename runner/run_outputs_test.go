package runner

import "testing"

// TestOutputsOfPart: a run of a part of the steps succeeds; what an output needs of the others is null.
func TestOutputsOfPart(t *testing.T) {
	l := newLab(t)
	p := l.program(bookHead + `
steps:
  - {id: a, uses: mem.set, with: {key: a, value: 1}}
  - {id: b, uses: mem.get, with: {key: a}}
outputs: {first: steps.a.value, twice: steps.b.value + 1}
`)
	r := l.exec(p, func(req *Request) { req.Selection.To = "a" })
	l.end(r, Succeeded)
	if r.Outputs["first"] == nil || r.Outputs["twice"] != nil {
		t.Errorf("outputs %v", r.Outputs)
	}
}
