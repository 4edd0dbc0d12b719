package runner

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteDOT writes the graph in the language of Graphviz: `dot -Tsvg` draws it.
func (g *Graph) WriteDOT(w io.Writer) error {
	d := &dot{w: bufio.NewWriter(w)}
	d.line(0, "digraph runbook {")
	d.line(1, "graph [compound=true, rankdir=TB, label="+dotLabel([]string{g.name}, "")+`, labelloc=t, fontname="Helvetica", fontsize=16, nodesep=0.3, ranksep=0.35];`)
	d.line(1, `node [fontname="Helvetica", fontsize=11, style=filled, fontcolor="#0f172a", margin="0.12,0.06"];`)
	d.line(1, `edge [fontname="Helvetica", fontsize=10, color="#475569", fontcolor="#475569", arrowsize=0.7];`)
	d.chain(1, g.boxes)
	d.legend(g.outlines())
	d.line(0, "}")
	return d.w.Flush() // bufio keeps the first error
}

type dot struct{ w *bufio.Writer }

// dotShapes are what each outline is drawn as.
var dotShapes = [...]string{
	outlineRead:    `shape=box, style="filled,rounded", fillcolor="#f1f5f9", color="#64748b"`,
	outlineWrite:   `shape=box, fillcolor="#dbeafe", color="#1d4ed8"`,
	outlineCutover: `shape=hexagon, fillcolor="#fde68a", color="#b45309", penwidth=2`,
	outlineDestroy: `shape=octagon, fillcolor="#fecaca", color="#b91c1c", penwidth=3`,
	outlineGate:    `shape=diamond, fillcolor="#e9d5ff", color="#7e22ce", margin="0,0"`,
}

func (d *dot) line(depth int, text string) {
	d.w.WriteString(strings.Repeat("  ", depth))
	d.w.WriteString(text)
	d.w.WriteByte('\n')
}

// chain writes boxes, then the arrows between them.
func (d *dot) chain(depth int, boxes []*box) {
	for _, b := range boxes {
		d.box(depth, b)
		for _, r := range b.rescue {
			d.box(depth, r)
		}
	}
	for _, a := range arrows(boxes) {
		d.arrow(depth, a)
	}
}

func (d *dot) box(depth int, b *box) {
	if len(b.branches) == 0 {
		attributes := "label=" + dotLabel(b.lines, `\n`) + ", " + dotShapes[b.shape]
		if b.noReturn {
			attributes += `, color="#b91c1c", penwidth=3`
		}
		switch {
		case b.skipped:
			attributes += `, style="filled,dotted", fontcolor="#64748b"`
		case b.dashed:
			attributes += `, style="filled,dashed"`
		}
		d.line(depth, b.id+" ["+attributes+"];")
		return
	}
	d.line(depth, "subgraph cluster_"+b.id+" {")
	style, colour := "rounded", "#94a3b8"
	if b.dashed || b.skipped {
		style = "rounded,dashed"
	}
	if b.noReturn {
		colour = "#b91c1c"
	}
	d.line(depth+1, "graph [label="+dotLabel(b.lines, " · ")+`, labeljust=l, fontsize=11, style="`+style+`", color="`+colour+`"];`)
	var abreast []string
	for _, branch := range b.branches {
		d.chain(depth+1, branch)
		if len(branch[0].branches) == 0 {
			abreast = append(abreast, branch[0].id)
		}
	}
	if len(abreast) > 1 {
		d.line(depth+1, "{rank=same; "+strings.Join(abreast, "; ")+"}")
	}
	d.line(depth, "}")
}

// arrow goes from frame to frame where there are any. Graphviz knows boxes alone: one arrow is
// seen, cut at the frames, and unseen ones keep all that comes later below all that was before.
func (d *dot) arrow(depth int, a arrow) {
	exits, entries := ends(a.from, false), ends(a.to, true)
	middle := func(list []string) int { return (len(list) - 1) / 2 }
	for i, from := range exits {
		for j, to := range entries {
			if i != middle(exits) || j != middle(entries) {
				d.line(depth, from+" -> "+to+" [style=invis];")
				continue
			}
			var attributes []string
			if len(a.from.branches) > 0 {
				attributes = append(attributes, "ltail=cluster_"+a.from.id)
			}
			if len(a.to.branches) > 0 {
				attributes = append(attributes, "lhead=cluster_"+a.to.id)
			}
			if a.label != "" {
				attributes = append(attributes, "label="+dotLabel([]string{"  " + a.label}, "")) // beside the arrow, not on it
			}
			switch {
			case a.dashed:
				attributes = append(attributes, "style=dashed")
			case a.noReturn:
				attributes = append(attributes, `color="#b91c1c"`, "penwidth=2.5")
			}
			line := from + " -> " + to
			if len(attributes) > 0 {
				line += " [" + strings.Join(attributes, ", ") + "]"
			}
			d.line(depth, line+";")
		}
	}
}

// ends are the boxes with which a box begins or ends: itself, or of a frame those of each branch.
func ends(b *box, first bool) []string {
	if len(b.branches) == 0 {
		return []string{b.id}
	}
	var list []string
	for _, branch := range b.branches {
		at := len(branch) - 1
		if first {
			at = 0
		}
		list = append(list, ends(branch[at], first)...)
	}
	return list
}

// legend says what the shapes mean that occur.
func (d *dot) legend(outlines []outline) {
	d.line(1, "subgraph cluster_legend {")
	d.line(2, `graph [label="legend", labeljust=l, fontsize=11, style=rounded, color="#94a3b8"];`)
	for i, l := range outlines {
		d.line(2, fmt.Sprintf("legend_%s [label=%s, %s];", l, dotLabel([]string{outlineMeanings[l]}, ""), dotShapes[l]))
		if i > 0 {
			d.line(2, fmt.Sprintf("legend_%s -> legend_%s [style=invis];", outlines[i-1], l))
		}
	}
	d.line(1, "}")
}

// dotLabel is a quoted text of lines. Within the quotes a backslash begins an escape, and & an entity.
func dotLabel(lines []string, between string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;")
	shown := make([]string, len(lines))
	for i, l := range lines {
		shown[i] = escape.Replace(shortened(l))
	}
	return `"` + strings.Join(shown, between) + `"`
}
