package schema

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// at gives the rune of a file at a position, by counting as an editor would.
func at(t interface{ Fatalf(string, ...any) }, src string, p Position) rune {
	src = strings.TrimPrefix(src, "\ufeff")
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(src, "\n")
	if p.Line < 1 || p.Line > len(lines) {
		t.Fatalf("line %d is not in the file", p.Line)
	}
	line := append([]rune(lines[p.Line-1]), '\n')
	if p.Column < 1 || p.Column > len(line) {
		t.Fatalf("column %d is not in line %d", p.Column, p.Line)
	}
	return line[p.Column-1]
}

// written is a scalar as YAML, and the text it should decode to if that is known.
type writtenScalar struct{ yaml, name string }

// write draws a way to write a text, in a style that can hold it.
func write(t *rapid.T, text string) writtenScalar {
	props := rapid.SampledFrom([]string{"", "&a ", "!!str ", "!!str &b ", "&c !!str "}).Draw(t, "properties")
	if rapid.Bool().Draw(t, "own line") && props != "" {
		props += "# a comment\n    "
	}
	lines := strings.Split(text, "\n")
	fold := func(escapeTabs bool) string { // line breaks doubled, so that folding gives them back
		return strings.Join(lines, "\n\n    ")
	}
	switch rapid.IntRange(0, 4).Draw(t, "style") {
	case 0:
		var b strings.Builder
		for _, r := range text {
			switch {
			case r == '"' || r == '\\':
				b.WriteString(`\` + string(r))
			case r == '\n':
				b.WriteString(`\n`)
			case rapid.IntRange(0, 9).Draw(t, "escape") == 0:
				if r > 0xffff {
					fmt.Fprintf(&b, `\U%08x`, r)
				} else {
					fmt.Fprintf(&b, `\u%04X`, r)
				}
			default:
				b.WriteRune(r)
			}
			if rapid.IntRange(0, 9).Draw(t, "break") == 0 {
				b.WriteString("\\\n     \t\\\n    ")
				if r == ' ' || r == '\t' {
					continue
				}
			}
		}
		return writtenScalar{props + `"` + b.String() + `"`, "double"}
	case 1:
		return writtenScalar{props + "'" + strings.ReplaceAll(fold(false), "'", "''") + "'", "single"}
	case 2:
		var b strings.Builder
		for i, line := range lines {
			if i > 0 {
				b.WriteString("\n")
			}
			if line != "" || rapid.Bool().Draw(t, "blank indented") {
				b.WriteString("      " + line)
			}
		}
		comment := rapid.SampledFrom([]string{"", " # about it", "   # 日本 |"}).Draw(t, "comment")
		header := rapid.SampledFrom([]string{"|", "|-", "|+", ">", ">-", ">+"}).Draw(t, "header")
		return writtenScalar{props + header[:1] + "4" + header[1:] + comment + "\n" + b.String() + "\n", "block 4"}
	case 3:
		var b strings.Builder
		for _, line := range lines {
			if line != "" {
				b.WriteString("   " + line)
			}
			b.WriteString("\n")
		}
		header := rapid.SampledFrom([]string{"|", ">-", ">+"}).Draw(t, "header")
		return writtenScalar{props + header + "\n" + b.String(), "block"}
	default:
		return writtenScalar{props + fold(true), "plain"}
	}
}

// Every rune of a decoded text that is no white space stands where Position says.
// Where a draw is not YAML, or YAML of another text, that text is checked instead.
func TestPositions(t *testing.T) {
	counts := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("ab.x()'\"\\#:, -\t\n\n  é日𝄞${}%|>"))).Draw(t, "text")
		w := write(t, text)
		src := "k:\n  first: 日本\n  it: " + w.yaml + "\n  last: 1\n"
		if rapid.Bool().Draw(t, "flow") && !strings.HasPrefix(w.name, "block") {
			src = "k: [ü, {it: " + w.yaml + " , b: 1}]\n"
		}
		if rapid.Bool().Draw(t, "crlf") {
			src = strings.ReplaceAll(src, "\n", "\r\n")
		}
		if rapid.Bool().Draw(t, "bom") {
			src = "\ufeff" + src
		}
		s := newSource("x.yaml", []byte(src))
		if characters(s) != nil {
			t.Skip("a character no file may hold")
		}
		var document yaml.Node
		if yaml.Unmarshal(s.text, &document) != nil {
			t.Skip("not YAML")
		}
		d := newDecoder(s)
		var visit func(n *yaml.Node)
		visit = func(n *yaml.Node) {
			for _, child := range n.Content {
				visit(child)
			}
			if n.Kind != yaml.ScalarNode {
				return
			}
			scalar := d.scalar(n)
			counts[w.name]++
			runes := []rune(n.Value)
			plain := rune(0)
			for i, r := range runes {
				p := scalar.Position(i)
				got := at(t, src, p)
				if !unicode.IsSpace(r) && got != r && got != '\\' {
					t.Fatalf("%s: rune %d of %q is %q, at %v there is %q in\n%s", w.name, i, n.Value, r, p, got, src)
				}
				if got == '\\' && r != '\\' && scalar.origin.style != double {
					t.Fatalf("%s: escape outside of double quotes", w.name)
				}
				plain = r
			}
			_ = plain
			if a := scalar.align(); a.places != nil && len(a.places) != len(runes) {
				t.Fatalf("%s: %d places for %d runes of %q in\n%s", w.name, len(a.places), len(runes), n.Value, src)
			}
			at(t, src, scalar.Position(len(runes)))
			at(t, src, scalar.Span.Start)
			at(t, src, scalar.Span.End)
		}
		visit(&document)
	})
	t.Log(counts)
}
