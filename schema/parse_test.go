package schema

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
)

func TestExample(t *testing.T) {
	src, err := os.ReadFile("testdata/scale-out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	book, findings := Parse("scale-out.yaml", src)
	for _, f := range findings {
		t.Error(f)
	}
	if len(book.Steps) != 8 {
		t.Errorf("%d steps", len(book.Steps))
	}
}

// Parse never panics, and whatever it says is about a place in the file.
func FuzzParse(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, parse := range []func() []Finding{
			func() []Finding { _, findings := Parse("x.yaml", src); return findings },
			func() []Finding { _, findings := ParseInventory("x.yaml", src); return findings },
			func() []Finding { _, findings := ParseInputs("x.yaml", src); return findings },
			func() []Finding { _, findings := ParsePolicies("x.yaml", src); return findings },
		} {
			findings := parse()
			inside(t, src, findings)
			if err := Render(io.Discard, findings, func(string) []byte { return src }, true); err != nil {
				t.Error(err)
			}
		}
		book, _ := Parse("x.yaml", src)
		eachExpr(book, func(e *Expr) {
			for i := range len([]rune(e.Source)) + 1 {
				p := e.Position(i)
				inside(t, src, []Finding{{Line: p.Line, Column: p.Column, EndLine: p.Line, EndColumn: p.Column, Message: "m", Rule: "r", Severity: Error}})
			}
		})
	})
}

// eachExpr visits the expressions of the steps and outputs of a book.
func eachExpr(book *Runbook, visit func(*Expr)) {
	for _, o := range book.Outputs {
		visit(&o.Value)
	}
	var steps func([]Step)
	steps = func(list []Step) {
		for _, s := range list {
			for _, text := range []Text{s.Name, s.Why} {
				for _, part := range text.Parts {
					if part.Expr != nil {
						visit(part.Expr)
					}
				}
			}
			if s.When != nil {
				visit(s.When)
			}
			for i := range s.Require {
				visit(&s.Require[i])
			}
			steps(s.Steps)
			steps(s.Rescue)
		}
	}
	steps(book.Steps)
}

func manySteps(n int, template string) []byte {
	var b bytes.Buffer
	b.WriteString("version: 1\nname: many\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&b, template, i)
	}
	return b.Bytes()
}

// usual is a step as authors write it.
const usual = `  - id: step_%d
    name: Wait until ${{ inputs.peer }} has everything
    why: Cutting over with lag > 0 loses the writes in flight.
    uses: pika.slot-info
    target: pika1
    with: {slots: 1, replica: "${{ inputs.peer }}"}
    wait-until: connected && lag == 0    # poll
    every: 500ms
    stable: 5s
    timeout: 30m
    retry: {attempts: 5, delay: 1s, if: error.temporary}

`

func BenchmarkParse1000(b *testing.B) {
	benchmarkParse(b, manySteps(1000, usual))
}

func BenchmarkParse100000(b *testing.B) {
	benchmarkParse(b, manySteps(100_000, "  - {id: s%d, uses: pika.slot-info, target: pika1, when: lag == 0}\n"))
}

func BenchmarkFormat1000(b *testing.B) {
	src := manySteps(1000, usual)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, err := Format(src); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkParse(b *testing.B, src []byte) {
	if len(src) > maxBytes {
		b.Fatal(len(src))
	}
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, findings := Parse("x.yaml", src); len(findings) > 0 {
			b.Fatal(findings[0])
		}
	}
}

// TestDecodeKeys: the keys of a map are of its type; one that is not is a finding at its place.
func TestDecodeKeys(t *testing.T) {
	var into struct {
		Ports map[int]string `yaml:"ports"`
	}
	if findings := Decode("w.yaml", []byte("ports: {8080: nginx}\n"), &into); len(findings) > 0 || into.Ports[8080] != "nginx" {
		t.Errorf("%v, %v", into.Ports, findings)
	}
	findings := Decode("w.yaml", []byte("ports:\n  many: nginx\n"), &into)
	if len(findings) != 1 || findings[0].Line != 2 || findings[0].Column != 3 {
		t.Errorf("a key that is no number: %v", findings)
	}
}
