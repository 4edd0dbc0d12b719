package schema

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func textOf(text string) *Scalar {
	return &Scalar{Text: text, origin: origin{src: newSource("x.yaml", []byte(text))}}
}

func TestAsText(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		"plain":                          "plain",
		"${{ a }}":                       "<a>",
		"${{a}}":                         "<a>",
		"x ${{ a }}${{ b }} y":           "x |<a>|<b>| y",
		`${{ {"a": {"b": 1}}.a }}`:       `<{"a": {"b": 1}}.a>`,
		`${{ {"a": 1}}}`:                 `<{"a": 1}>`,
		`${{ "}}" + '}}' + f("\"}}") }}`: `<"}}" + '}}' + f("\"}}")>`,
		"${{ `}}` }}!":                   "<`}}`>|!",
		"$${{ a }}":                      "${{ a }}",
		"$${{ a }} ${{ b }}":             "${{ a }} |<b>",
		"$${{$${{":                       "${{${{",
		"$ {{ a }}":                      "$ {{ a }}",
		`${{ "open }} x`:                 `<"open>| x`, // the compiler says what is wrong with it
	} {
		parsed, findings := textOf(text).AsText()
		var parts []string
		for _, p := range parsed.Parts {
			if p.Expr != nil {
				parts = append(parts, "<"+p.Expr.Source+">")
			} else {
				parts = append(parts, p.Literal)
			}
		}
		if got := strings.Join(parts, "|"); got != want || len(findings) > 0 {
			t.Errorf("%s: got %s, want %s; %v", text, got, want, findings)
		}
	}
}

// Every character of an expression stands where its Position says, in all styles.
func TestExprPositions(t *testing.T) {
	const src = `version: 1
name: a
steps:
  - id: x
    uses: a.b
    name: é ${{ inputs.a }} and ${{ {"b":1}.b }}
    why: "tab\t\u00e9 ${{ inputs.c + \
      inputs.d }}"
    when:   inputs.日本 == 1   # comment
    require:
      - 'it''s' # not an expression, but one scalar
      - |
        first
          && second
      - >-2
        folded
        on
    expect: "inputs.e"
outputs:
  o: a
    && b
`
	book, findings := Parse("x.yaml", []byte(src))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	seen := 0
	eachExpr(book, func(e *Expr) {
		seen++
		for i, r := range []rune(e.Source) {
			if got := at(t, src, e.Position(i)); got != r && !unicode.IsSpace(r) {
				t.Errorf("rune %d of %q is %q, at %v there is %q", i, e.Source, r, e.Position(i), got)
			}
		}
		if got := e.Position(0); got != e.Span.Start && !e.scalar.Quoted {
			t.Errorf("%q starts at %v and its span at %v", e.Source, got, e.Span.Start)
		}
	})
	if seen != 8 {
		t.Errorf("%d expressions", seen)
	}
	if c := book.Steps[0].When.Comment; c == nil || c.Text != "# comment" || c.Span.Start != (Position{9, 30}) {
		t.Errorf("comment %+v", c)
	}
	f := book.Steps[0].When.Finding(Error, "type", 7, 9, "no such name", "")
	if diff := cmp.Diff(Finding{Path: "x.yaml", Line: 9, Column: 20, EndLine: 9, EndColumn: 22, Severity: Error, Rule: "type", Message: "no such name"}, f); diff != "" {
		t.Error(diff)
	}
	if _, ok := book.Steps[0].When.CommentFinding(); !ok {
		t.Error("no finding about the comment")
	}
}

// The expression within a ${{ }} that should not be there is kept, with its place,
// so that the compiler looks at what was meant.
func TestInterpolatedExpressionIsKept(t *testing.T) {
	src := "version: 1\nname: a\nsteps:\n  - {id: x, uses: a.b, when: \"${{ inputs.a }}\"}\n"
	book, findings := Parse("x.yaml", []byte(src))
	when := book.Steps[0].When
	if len(findings) != 1 || when.Source != "inputs.a" || when.Position(0) != (Position{4, 35}) {
		t.Errorf("%q at %v, %v", when.Source, when.Position(0), findings)
	}
}
