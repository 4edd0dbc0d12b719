package runner

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"runbook/runner/expression"
)

// WriteText writes the plan for people: one fact a line, in a fixed order, nothing in it
// that differs from one day or machine to the next, so that two plans can be compared
// with diff and a plan can be committed beside its runbook.
func (p *Plan) WriteText(w io.Writer) error {
	t := &planText{w: bufio.NewWriterSize(w, 1<<16)}
	t.head(p)
	t.line(0, "")
	t.list(0, p.Steps)
	if len(p.Finally) > 0 {
		t.line(0, "")
		t.line(0, "finally, whatever happened:")
		t.list(1, p.Finally)
	}
	return t.w.Flush() // bufio keeps the first error
}

type planText struct{ w *bufio.Writer }

const indents = "                                                                "

func (t *planText) line(depth int, parts ...string) {
	if len(parts) > 0 && parts[0] != "" {
		t.w.WriteString(indents[:min(2*depth, len(indents))])
	}
	for _, p := range parts {
		if strings.IndexByte(p, '\n') >= 0 { // a fact is a line; the rest of a text is indented below it
			p = strings.ReplaceAll(p, "\n", "\n"+indents[:min(2*depth+4, len(indents))])
		}
		t.w.WriteString(p)
	}
	t.w.WriteByte('\n')
}

func (t *planText) head(p *Plan) {
	t.line(0, "plan of ", p.Name, " (", p.Path, ")")
	t.line(0, "digest ", p.Digest)
	if p.Description != "" {
		t.line(0, strings.ReplaceAll(p.Description, "\n", " "))
	}
	for _, name := range sortedNames(p.Labels) {
		t.line(0, "label ", name, ": ", p.Labels[name])
	}
	s := p.Summary
	t.line(0, plural(s.Steps, "step"), fmt.Sprintf(": %d read, %d write, %d cutover, %d destroy", s.Reads, s.Writes, s.Cutovers, s.Destroys))
	if s.Unknown > 0 {
		t.line(0, plural(s.Unknown, "loop"), " over a list known only while running, counted once")
	}
	t.line(0, "no way back: ", orNone(s.Irreversible))
	t.line(0, "gates: ", orNone(s.Gates))
	if s.Pause != "" {
		t.line(0, "longest declared pause: ", s.Pause)
	} else {
		t.line(0, "longest declared pause: none")
	}
	if p.Lock != "" {
		t.line(0, "lock: ", p.Lock)
	}
	t.line(0, "on failure: ", p.OnFailure)
	if sel := p.Selection; sel != nil {
		words := ""
		for _, f := range []struct{ flag, value string }{{"--from", sel.From}, {"--to", sel.To}, {"--only", strings.Join(sel.Only, ",")}, {"--skip", strings.Join(sel.Skip, ",")}} {
			if f.value != "" {
				words += " " + f.flag + " " + f.value
			}
		}
		t.line(0, "selection:", words, ", ", plural(p.LeftOut, "step"), " left out")
	}
	for _, v := range p.Inputs {
		t.value(0, "input ", v)
	}
	for _, v := range p.Vars {
		t.value(0, "var ", v)
	}
	for _, s := range p.Secrets {
		t.line(0, "secret ", s.Name, ": from ", s.From)
	}
	for _, target := range p.Targets {
		t.line(0, "target ", target.Name, ": ", target.Kind, target.at())
	}
	for _, w := range p.Warnings {
		t.line(0, "warning: ", w)
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (t *planText) value(depth int, word string, v PlanValue) {
	text := ""
	switch {
	case v.Unknown != "":
		text = "(" + v.Unknown + ")"
	default:
		text = jsonText(v.Value)
	}
	if v.Origin != "" {
		text += " (" + v.Origin + ")"
	}
	t.line(depth, word, v.Name, ": ", text)
}

// jsonText is a value on one line.
func jsonText(v any) string {
	if s, ok := v.(string); ok && s != "" && strings.IndexByte(s, '\n') < 0 {
		return s
	}
	if list, ok := v.([]any); ok && len(list) > 0 {
		if _, number := list[0].(int); number {
			return ShowValue(v)
		}
	}
	text, err := expression.JSON(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return text
}

func (t PlanTarget) at() string {
	switch {
	case t.Addr != "":
		return " " + t.Addr
	case t.Unknown != "":
		return " (" + t.Unknown + ")"
	}
	return ""
}

func (t *planText) list(depth int, list []*PlanStep) {
	for _, s := range list {
		t.step(depth, s)
	}
}

func (t *planText) step(depth int, s *PlanStep) {
	head := []string{s.Path}
	switch s.Shape {
	case ShapeGroup:
		if s.Parallel {
			head = append(head, ": at the same time")
		} else {
			head = append(head, ": in order")
		}
	case ShapeLoop:
		head = append(head, ": for each ", s.Loop.As, " of ", s.Loop.Over)
		if s.Loop.Unknown != "" {
			head = append(head, " (", s.Loop.Unknown, ")")
		} else {
			head = append(head, ", ", plural(s.Loop.Items, "item"))
		}
	case ShapeFanOut:
		head = append(head, ": on ", plural(s.Loop.Items, "target"))
	case ShapeCall:
		head = append(head, ": runbook ", s.Kind, ", ", s.Effect)
	default:
		head = append(head, ": ", s.Kind, ", ", s.Effect)
		for _, target := range s.Targets {
			head = append(head, " on ", target.Name)
			if target.Name != target.Addr {
				head = append(head, target.at())
			}
		}
	}
	t.line(depth, head...)
	d := depth + 1
	if s.Skipped != "" {
		t.line(d, "skipped: ", s.Skipped)
	}
	if s.Name != "" {
		t.line(d, "name: ", s.Name)
	}
	if s.Why != "" {
		t.line(d, "why: ", s.Why)
	}
	for _, w := range s.Warnings {
		t.line(d, "warning: ", w)
	}
	if len(s.Tags) > 0 {
		t.line(d, "tags: ", strings.Join(s.Tags, ", "))
	}
	if l := s.Loop; l != nil {
		if len(l.Batches) > 0 {
			t.line(d, "batches: ", batchText(l.Batches))
		}
		if l.Pause != "" {
			t.line(d, "pause-between: ", l.Pause)
		}
	}
	t.conditions(d, s, "when", "require")
	t.gate(d, s.Confirm)
	if s.NoReturn {
		t.line(d, "point of no return: nothing before it is rolled back once it has started")
	}
	for _, v := range s.With {
		t.value(d, "with ", v)
	}
	for _, c := range s.Commands {
		t.line(d, "sends: ", c.String())
	}
	if s.Pause != "" {
		t.line(d, "pause: ", s.Pause)
	}
	t.conditions(d, s, "wait-until", "repeat-until", "expect", "retry-if", "ready", "probe")
	for _, o := range s.Settings {
		t.line(d, o.Key, ": ", o.Value)
	}
	switch {
	case s.Undo != "":
		t.line(d, "undo: ", s.Undo)
	case s.NoUndo != "":
		t.line(d, "no way back: ", s.NoUndo)
	}
	t.below(d, "undo steps:", s.UndoSteps)
	if s.OnFailure != "" {
		t.line(d, "on failure: ", s.OnFailure)
	}
	t.list(d, s.Steps)
	t.below(d, "after each batch:", s.AfterBatch)
	t.below(d, "rescue, when it failed:", s.Rescue)
	t.below(d, "finally, whatever happened in it:", s.Finally)
}

func (t *planText) below(depth int, word string, list []*PlanStep) {
	if len(list) > 0 {
		t.line(depth, word)
		t.list(depth+1, list)
	}
}

func (t *planText) conditions(depth int, s *PlanStep, keys ...string) {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if !slices.Contains(keys, c.Key) {
			continue
		}
		switch {
		case c.After != "":
			t.line(depth, c.Key, ": ", c.Text, " (", c.After, ")")
		case c.Value != nil && *c.Value:
			t.line(depth, c.Key, ": ", c.Text, " (true)")
		case c.Value != nil:
			t.line(depth, c.Key, ": ", c.Text, " (false)")
		default:
			t.line(depth, c.Key, ": ", c.Text)
		}
	}
}

func (t *planText) gate(depth int, g *PlanGate) {
	if g == nil {
		return
	}
	words := g.Message
	if g.Builtin && words == "" {
		words = "asked by itself, because it destroys something"
	}
	t.line(depth, "confirm: ", words)
	for _, show := range g.Show {
		t.line(depth, "confirm shows: ", show)
	}
	if g.Approvals > 1 {
		t.line(depth, fmt.Sprintf("confirm approvals: %d", g.Approvals))
	}
	if g.Retype != "" {
		t.line(depth, "confirm retype: ", g.Retype)
	}
	if g.Each != "" {
		t.line(depth, "confirm each: ", g.Each)
	}
	if g.Timeout != "" {
		t.line(depth, "confirm timeout: ", g.Timeout)
	}
	if g.Detached {
		t.line(depth, "confirm wait: detached")
	}
}

// batchText writes wave sizes with repetitions counted: 1, 103, 8 x 120.
func batchText(sizes []int) string {
	var parts []string
	for i := 0; i < len(sizes); {
		j := i
		for j < len(sizes) && sizes[j] == sizes[i] {
			j++
		}
		if j-i > 1 {
			parts = append(parts, fmt.Sprintf("%d × %d", j-i, sizes[i]))
		} else {
			parts = append(parts, fmt.Sprint(sizes[i]))
		}
		i = j
	}
	return strings.Join(parts, ", ")
}
