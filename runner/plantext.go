package runner

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"runbook/runner/expression"
)

// WriteText writes the plan for people: one fact a line, in a fixed order. Nothing in it
// differs from one day, machine or folder to the next, and it changes only when the plan
// does: not with a comment, so the digest is not in it. A plan can be committed beside its
// runbook, and its reviewers see the difference.
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

// prose is a text of one or more sentences; of a long one each has its line.
func (t *planText) prose(depth int, word, text string) {
	if lines := sentences(text); len(lines) > 1 {
		t.line(depth, word, ":")
		for _, l := range lines {
			t.line(depth+1, l)
		}
	} else {
		t.line(depth, word, ": ", text)
	}
}

// wide is how long a fact may be before it is broken into its parts.
const wide = 100

// sentences breaks a long text after its sentences.
func sentences(text string) []string {
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		for len(text) > wide {
			i := strings.Index(line, ". ")
			if i < 0 {
				break
			}
			list = append(list, line[:i+1])
			line = strings.TrimLeft(line[i+2:], " ")
		}
		list = append(list, line)
	}
	return list
}

func (t *planText) value(depth int, word string, v PlanValue) {
	origin := ""
	if v.Origin != "" {
		origin = " (" + v.Origin + ")"
	}
	if v.Unknown != "" {
		t.line(depth, word, v.Name, ": (", v.Unknown, ")", origin)
		return
	}
	text := jsonText(v.Value)
	parts := valueParts(v.Value, text)
	if parts == nil {
		t.line(depth, word, v.Name, ": ", text, origin)
		return
	}
	t.line(depth, word, v.Name, ":", origin)
	for _, p := range parts {
		t.line(depth+1, p)
	}
}

// valueParts breaks a value that is long, or of several lines, into a line for each part; nil: one line holds it.
func valueParts(v any, text string) []string {
	if s, ok := v.(string); ok && strings.Contains(strings.TrimSuffix(s, "\n"), "\n") {
		return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	}
	if len(text) <= wide {
		return nil
	}
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		for _, name := range sortedNames(v) {
			parts = append(parts, name+": "+jsonText(v[name]))
		}
	case []any:
		if ShowValue(v) == text { // slots, as ranges
			return nil
		}
		for _, e := range v {
			parts = append(parts, "- "+jsonText(e))
		}
	}
	return parts
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
	if s.NoReturn {
		t.line(depth, "--- point of no return: once ", s.Path, " has started, nothing before it is rolled back ---")
	}
	t.line(depth, s.Path, ": ", s.title())
	d := depth + 1
	t.facts(d, s)
	for _, words := range s.observedWords() {
		t.line(d, "observed: ", words)
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

// title says what a step is, in one line.
func (s *PlanStep) title() string {
	switch s.Shape {
	case ShapeGroup:
		if s.Parallel {
			return "at the same time"
		}
		return "in order"
	case ShapeLoop:
		words := "for each " + s.Loop.As + " of " + s.Loop.Over
		if s.Loop.Unknown != "" {
			return words + " (" + s.Loop.Unknown + ")"
		}
		return words + ", " + plural(s.Loop.Items, "item")
	case ShapeFanOut:
		return "on " + plural(s.Loop.Items, "target")
	case ShapeCall:
		return "runbook " + s.Kind + ", " + s.Effect
	}
	return s.Kind + ", " + s.Effect + on(s.Targets)
}

// on names what is acted on.
func on(targets []PlanTarget) string {
	words := ""
	for _, target := range targets {
		words += " on " + target.Name
		if target.Name != target.Addr {
			words += target.at()
		}
	}
	return words
}

// facts are all that is said of a step, without those in it.
func (t *planText) facts(d int, s *PlanStep) {
	if s.Skipped != "" {
		t.line(d, "skipped: ", s.Skipped)
	}
	if s.Name != "" {
		t.line(d, "name: ", s.Name)
	}
	if s.Why != "" {
		t.prose(d, "why", s.Why)
	}
	for _, w := range s.Warnings {
		t.line(d, "warning: ", w)
	}
	if len(s.Tags) > 0 {
		t.line(d, "tags: ", strings.Join(s.Tags, ", "))
	}
	if s.Window != nil {
		t.line(d, "window: ", s.Window.words())
	}
	if s.MaxAge != nil {
		t.line(d, "max-age: ", s.MaxAge.Of, ", then ", s.MaxAge.Then)
	}
	t.guards(d, s.Guards)
	if l := s.Loop; l != nil {
		if len(l.Batches) > 0 {
			t.line(d, "batches: ", batchText(l.Batches))
		}
		if l.Pause != "" {
			t.line(d, "pause-between: ", l.Pause)
		}
	}
	t.conditions(d, s, "when", "require")
	t.gate(d, s)
	for _, v := range s.With {
		t.value(d, "with ", v)
	}
	t.conditions(d, s, "that")
	for i := range s.Commands {
		c := s.Commands[i]
		if c.Body == "" {
			t.line(d, "sends: ", c.String())
			continue
		}
		c.To = "" // the body says it
		t.line(d, "sends: ", c.String())
		for line := range strings.SplitSeq(strings.TrimSuffix(c.Body, "\n"), "\n") {
			t.line(d+1, "| "+line)
		}
	}
	if s.Pause != "" {
		t.line(d, "pause: ", s.Pause)
	}
	t.conditions(d, s, "wait-until", "repeat-until", "expect", "retry-if", "ready")
	for _, o := range s.Settings {
		t.line(d, o.Key, ": ", o.Value)
	}
	if p := s.Probe; p != nil {
		t.line(d, "probe: ", p.Kind, on(p.Targets))
		for _, v := range p.With {
			t.value(d, "probe with ", v)
		}
		t.conditions(d, s, "probe")
	}
	t.outputs(d, s.Outputs)
	switch s.Doubt {
	case DoubtAgain:
		t.line(d, "after a crash: run again, twice is the same as once")
	case DoubtDecide:
		t.line(d, "after a crash: an operator decides whether it was done")
	}
	switch {
	case s.Undo != "":
		t.line(d, "undo: ", s.Undo)
	case s.NoUndo != "":
		t.line(d, "no way back: ", s.NoUndo)
	}
}

func (t *planText) outputs(depth int, outputs []PlanOutput) {
	for _, o := range outputs {
		t.line(depth, "output ", o.Name, ": ", o.Text)
	}
}

func (t *planText) below(depth int, word string, list []*PlanStep) {
	if len(list) > 0 {
		t.line(depth, word)
		t.list(depth+1, list)
	}
}

// guards are stop conditions, a fact a line.
func (t *planText) guards(depth int, guards []PlanGuard) {
	for _, g := range guards {
		t.line(depth, "guard ", g.ID, ": ", g.Kind, on(g.Targets))
		for _, v := range g.With {
			t.value(depth+1, "with ", v)
		}
		t.line(depth+1, "require: ", g.Require, knownText(g.Known))
		t.line(depth+1, "every: ", g.Every)
		if g.For != "" {
			t.line(depth+1, "for: ", g.For)
		}
		t.line(depth+1, "then: ", g.Then)
	}
}

// words say when the window is open.
func (w *PlanWindow) words() string {
	words := "every day"
	if len(w.Days) > 0 {
		words = strings.Join(w.Days, ", ")
	}
	if w.From != "" || w.To != "" {
		words += " " + w.From + "-" + w.To
	}
	return words + " " + w.Zone
}

func (t *planText) conditions(depth int, s *PlanStep, keys ...string) {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; slices.Contains(keys, c.Key) {
			word := c.Key
			if c.Key == "probe" {
				word = "probe done"
			}
			t.line(depth, word, ": ", c.words())
			if c.Message != "" {
				t.line(depth+1, "message: ", c.Message)
			}
		}
	}
}

// words are an expression with what is known of it: whether it holds, or what it waits for.
func (c *PlanCondition) words() string {
	switch {
	case c.After != "" && len(c.Known) > 0:
		return c.Text + " (" + c.After + "; " + valuesText(c.Known) + ")"
	case c.After != "":
		return c.Text + " (" + c.After + ")"
	case c.Value != nil:
		return fmt.Sprint(c.Text, ": ", *c.Value, knownText(c.Known))
	}
	return c.Text + knownText(c.Known)
}

func knownText(known []PlanValue) string {
	if len(known) == 0 {
		return ""
	}
	return " (" + valuesText(known) + ")"
}

func valuesText(known []PlanValue) string {
	parts := make([]string, len(known))
	for i, v := range known {
		text := jsonText(v.Value)
		if runes := []rune(text); len(runes) > wide {
			text = string(runes[:wide-1]) + "…"
		}
		parts[i] = v.Name + " = " + text
	}
	return strings.Join(parts, ", ")
}

func (t *planText) gate(depth int, s *PlanStep) {
	g := s.Confirm
	switch {
	case s.Unconfirmed:
		t.line(depth, "confirm: nobody is asked, although it destroys something")
		return
	case g == nil && s.ConfirmedBy != "":
		t.line(depth, "confirm: asked at ", s.ConfirmedBy)
		return
	case g == nil:
		return
	case g.Builtin && g.Message == "":
		t.line(depth, "confirm: asked by itself, because it destroys something")
	default:
		t.prose(depth, "confirm", g.Message)
	}
	t.line(depth, "confirm by: ", people(g.Approvals))
	for _, v := range g.Shown {
		if v.Unknown != "" {
			t.line(depth, "confirm shows: ", v.Name, " (", v.Unknown, ")")
		} else {
			t.line(depth, "confirm shows: ", valuesText([]PlanValue{v}))
		}
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
		for _, id := range g.Blind {
			t.line(depth, "confirm leaves unwatched: guard ", id)
		}
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
