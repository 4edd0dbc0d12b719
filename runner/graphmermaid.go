package runner

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// WriteMermaid writes the plan's graph, of the usual depth, as a flowchart of Mermaid.
func (p *Plan) WriteMermaid(w io.Writer) error { return p.Graph(GraphDepth).WriteMermaid(w) }

// WriteMermaid writes the graph as a flowchart of Mermaid, which GitHub, GitLab and many
// wikis draw from a fenced block of the language mermaid.
func (g *Graph) WriteMermaid(w io.Writer) error {
	m := &mermaid{w: bufio.NewWriter(w), members: map[string][]string{}}
	fmt.Fprintf(m.w, "flowchart TB\n")
	m.chain(1, g.boxes)
	m.legend(g)
	m.styles()
	return m.w.Flush() // bufio keeps the first error
}

type mermaid struct {
	w       *bufio.Writer
	members map[string][]string // boxes of each class
}

// mermaidShapes are the brackets of each outline.
var mermaidShapes = [...][2]string{outlineRead: {"(", ")"}, outlineWrite: {"[", "]"}, outlineCutover: {"{{", "}}"}, outlineDestroy: {`[/`, `\]`}, outlineGate: {"{", "}"}}

// mermaidClasses are what boxes outline like, beside their shape. Those of frames have no fill, for dark pages.
var mermaidClasses = []struct{ name, style string }{
	{"read", "fill:#f1f5f9,stroke:#64748b,color:#0f172a"},
	{"write", "fill:#dbeafe,stroke:#1d4ed8,color:#0f172a"},
	{"cutover", "fill:#fde68a,stroke:#b45309,color:#0f172a,stroke-width:2px"},
	{"destroy", "fill:#fecaca,stroke:#b91c1c,color:#0f172a,stroke-width:3px"},
	{"gate", "fill:#e9d5ff,stroke:#7e22ce,color:#0f172a"},
	{"frame", "fill:none,stroke:#94a3b8"},
	{"noreturn", "stroke:#b91c1c,stroke-width:3px"},
	{"skipped", "stroke-dasharray:2 4,opacity:0.6"},
	{"dashed", "stroke-dasharray:6 4"},
}

func (m *mermaid) line(depth int, text string) {
	m.w.WriteString(strings.Repeat("  ", depth))
	m.w.WriteString(text)
	m.w.WriteByte('\n')
}

// chain writes boxes, then the arrows between them.
func (m *mermaid) chain(depth int, boxes []*box) {
	for _, b := range boxes {
		m.box(depth, b)
		for _, r := range b.rescue {
			m.box(depth, r)
		}
	}
	for _, a := range arrows(boxes) {
		link := "-->"
		switch {
		case a.dashed:
			link = "-.->"
		case a.noReturn:
			link = "==>"
		}
		if a.label != "" {
			link += "|" + mermaidLabel([]string{a.label}, "") + "|"
		}
		m.line(depth, a.from.id+" "+link+" "+a.to.id)
	}
}

func (m *mermaid) box(depth int, b *box) {
	if len(b.branches) == 0 {
		m.line(depth, b.id+mermaidShapes[b.shape][0]+mermaidLabel(b.lines, "<br/>")+mermaidShapes[b.shape][1])
		m.class(b.shape.String(), b.id)
	} else {
		// A title of several lines would lie over the first box.
		m.line(depth, "subgraph "+b.id+"["+mermaidLabel(b.lines, " · ")+"]")
		m.line(depth+1, "direction TB")
		for _, branch := range b.branches {
			m.chain(depth+1, branch)
		}
		m.line(depth, "end")
		m.class("frame", b.id)
	}
	for name, has := range map[string]bool{"noreturn": b.noReturn, "skipped": b.skipped, "dashed": b.dashed} {
		if has {
			m.class(name, b.id)
		}
	}
}

func (m *mermaid) class(name, id string) { m.members[name] = append(m.members[name], id) }

// legend says what the shapes mean that occur, below all else.
func (m *mermaid) legend(g *Graph) {
	m.line(1, "subgraph legend")
	m.line(2, "direction TB")
	for _, l := range g.outlines() {
		id := "legend_" + l.String()
		m.line(2, id+mermaidShapes[l][0]+mermaidLabel([]string{outlineMeanings[l]}, "")+mermaidShapes[l][1])
		m.class(l.String(), id)
	}
	m.line(1, "end")
	m.class("frame", "legend")
	m.line(1, g.boxes[len(g.boxes)-1].id+" ~~~ legend")
}

func (m *mermaid) styles() {
	for _, c := range mermaidClasses {
		if ids := m.members[c.name]; len(ids) > 0 {
			m.line(1, "classDef "+c.name+" "+c.style)
			m.line(1, "class "+strings.Join(ids, ",")+" "+c.name)
		}
	}
}

// mermaidLabel is a quoted text of lines.
func mermaidLabel(lines []string, between string) string {
	shown := make([]string, len(lines))
	for i, l := range lines {
		shown[i] = mermaidText(l)
	}
	return `"` + strings.Join(shown, between) + `"`
}

// mermaidText is a text within double quotes. What Mermaid, Markdown or HTML could take for
// a sign of theirs is written as the number of its character.
func mermaidText(text string) string {
	var b strings.Builder
	text = shortened(text)
	for i, r := range text {
		next := strings.TrimPrefix(text[i:], string(r))
		plain := unicode.IsLetter(r) || unicode.IsDigit(r) || r == ' ' || r == ',' || r == '…' ||
			i > 0 && strings.ContainsRune("_./-()[]=+|'!", r) || r == ':' && strings.HasPrefix(next, " ")
		if i > 0 && r == '.' && (next == "" || next[0] == ' ') {
			plain = false // 1. begins a list
		}
		if plain {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	// These two words make a line a statement wherever they stand in it.
	return strings.ReplaceAll(b.String(), "direction ", "direction#32;")
}
