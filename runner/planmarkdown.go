package runner

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"html"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"runbook/steps"
)

// commentLimit is the most that a comment on a pull request may have, in characters. It is
// held in bytes, which are never fewer.
const commentLimit = 65536

// graphLimit leaves room for the steps.
const graphLimit = 20000

// WriteMarkdown writes the plan for a comment on a pull request: what matters, the risks, a
// graph, and each step at the top of the plan folded. As in the text nothing differs from one
// day or machine to the next. What does not fit into a comment is left out from the least
// dangerous steps on, and said; risks are never left out.
func (p *Plan) WriteMarkdown(w io.Writer) error {
	m := &planMarkdown{}
	m.head(p)
	m.risks(p)
	if err := m.graph(p); err != nil {
		return err
	}
	m.steps(p)
	_, err := m.b.WriteTo(w)
	return err
}

type planMarkdown struct{ b bytes.Buffer }

func (m *planMarkdown) line(parts ...string) {
	for _, p := range parts {
		m.b.WriteString(p)
	}
	m.b.WriteByte('\n')
}

func (m *planMarkdown) head(p *Plan) {
	m.line("## Plan of ", code(p.Name))
	m.line()
	if p.Description != "" {
		m.line(prose(p.Description))
		m.line()
	}
	m.line("| | |")
	m.line("|---|---|")
	row := func(name, value string) { m.line("| ", name, " | ", value, " |") }
	row("runbook", code(filepath.Base(p.Path)))
	for _, f := range p.headFacts() {
		value := prose(f.value)
		if len(f.parts) > 0 {
			value += "<br>" + codes(f.parts, "<br>")
		}
		row(f.name, value)
	}
	row("lock", code(p.lockText()))
	row("on failure", p.OnFailure)
	if p.Selection != nil {
		row("selection", code(strings.TrimSpace(p.Selection.flags()))+", "+plural(p.LeftOut, "step")+" left out")
	}
	for _, g := range p.Guards {
		row("guard "+code(g.ID), code(g.Kind+on(g.Targets))+" "+code(g.Require)+", every "+g.Every+", then "+g.Then)
	}
	for _, v := range p.Inputs {
		row("input "+code(v.Name), code(jsonText(v.Value))+" ("+v.Origin+")")
	}
	for _, t := range p.Targets {
		row("target "+code(t.Name), code(t.Kind+t.at()))
	}
	m.line()
}

// codes are several identifiers.
func codes(list []string, between string) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = code(s)
	}
	return strings.Join(parts, between)
}

// planRisk is a row of the table of risks.
type planRisk struct{ what, where, words string }

func (m *planMarkdown) risks(p *Plan) {
	m.line("### Risks")
	m.line()
	list := p.risks()
	if len(list) == 0 {
		m.line("None that can be told from the plan.")
		m.line()
		return
	}
	m.line("| risk | where | |")
	m.line("|---|---|---|")
	for _, r := range list {
		where := ""
		if r.where != "" {
			where = code(r.where)
		}
		m.line("| ", r.what, " | ", where, " | ", prose(r.words), " |")
	}
	m.line()
}

// risks are what a reviewer should have seen, the gravest first.
func (p *Plan) risks() []planRisk {
	var list []planRisk
	var unasked, doubtful, warned []planRisk
	seen := map[string]bool{} // by id: a step that repeats is one risk
	p.each(func(s *PlanStep) {
		once := func(what string) bool {
			key := what + " " + lastID(s.Path)
			if seen[key] {
				return false
			}
			seen[key] = true
			return true
		}
		if s.Unconfirmed && once("unasked") {
			unasked = append(unasked, planRisk{"**nobody is asked**", s.Path, "it destroys something, and no person approves"})
		}
		if s.Doubt == DoubtDecide && once("doubt") {
			doubtful = append(doubtful, planRisk{"in doubt after a crash", s.Path, "the run stops until an operator decides whether it was done"})
		}
		for _, w := range s.Warnings {
			if once("warning " + w) {
				warned = append(warned, planRisk{"warning", s.Path, w})
			}
		}
	})
	for _, v := range p.Policies {
		list = append(list, v.risk())
	}
	list = append(list, unasked...)
	for _, v := range p.Summary.NoWayBack {
		list = append(list, planRisk{"**no way back**", v.Name, fmt.Sprint(v.Value)})
	}
	if n := p.Summary.IfFailed.Destroys; n > 0 {
		list = append(list, planRisk{"destroys if something fails", "", plural(n, "step") + " in rescue or undo"})
	}
	if p.Summary.Pause != "" {
		list = append(list, planRisk{"longest pause", p.Summary.PauseAt, "clients may wait for " + p.Summary.Pause})
	}
	for _, a := range p.Summary.Approvals {
		list = append(list, planRisk{"gate", a.Step, a.words()})
	}
	for _, path := range p.Summary.UnknownLoops {
		list = append(list, planRisk{"unknown size", path, "how many items there are is known only while running"})
	}
	for _, name := range p.Summary.UnknownTouched {
		list = append(list, planRisk{"unknown reach", name, "what it touches is known only while running"})
	}
	list = append(list, doubtful...)
	return append(list, warned...)
}

// risk is a verdict of a policy as a row.
func (v *PlanPolicy) risk() planRisk {
	what, words := v.Verdict, v.words()
	if v.Verdict == denied {
		what = "**" + what + "**"
	}
	if v.Reason != "" {
		words += " (waived: " + v.Reason + ")"
	}
	return planRisk{what, v.Step, words}
}

// each visits every step of the plan, in its order.
func (p *Plan) each(visit func(*PlanStep)) {
	var walk func([]*PlanStep)
	walk = func(list []*PlanStep) {
		for _, s := range list {
			visit(s)
			for _, below := range [][]*PlanStep{s.Steps, s.AfterBatch, s.Rescue, s.UndoSteps, s.Finally} {
				walk(below)
			}
		}
	}
	walk(p.Steps)
	walk(p.Finally)
}

// graph draws the plan, where it stays readable.
func (m *planMarkdown) graph(p *Plan) error {
	var b bytes.Buffer
	if err := p.WriteMermaid(&b); err != nil {
		return err
	}
	m.line("### Graph")
	m.line()
	if b.Len() > graphLimit {
		m.line("Too large to be drawn here; `runner graph` prints it.")
	} else {
		m.line("```mermaid")
		m.line(strings.TrimSuffix(b.String(), "\n"))
		m.line("```")
	}
	m.line()
	return nil
}

// steps are the steps at the top of the plan, folded.
func (m *planMarkdown) steps(p *Plan) {
	m.line("### Steps")
	m.line()
	folded := make([]folded, 0, len(p.Steps)+len(p.Finally))
	for _, s := range p.Steps {
		folded = append(folded, fold(s, ""))
	}
	for _, s := range p.Finally {
		folded = append(folded, fold(s, "finally: "))
	}
	const note = 600 // for the words about what is left out
	shown := fitting(folded, commentLimit-note-m.b.Len())
	var out []string
	for i := range folded {
		if shown[i] {
			m.b.WriteString(folded[i].text)
		} else {
			out = append(out, folded[i].name)
		}
	}
	if len(out) > 0 {
		m.line(fmt.Sprintf("**%s of %d left out, since a comment has room for %d characters**: ", plural(len(out), "step"), len(folded), commentLimit),
			codes(out[:min(len(out), 5)], ", "), more(len(out)-5), ". ", code("runner plan "+filepath.Base(p.Path)), " prints all of it.")
	}
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// folded is a step that is shown when somebody clicks on it.
type folded struct {
	name, text string
	effect     steps.Effect
}

func fold(s *PlanStep, role string) folded {
	var text bytes.Buffer
	t := &planText{w: bufio.NewWriter(&text)}
	t.step(0, s)
	_ = t.w.Flush() // a buffer takes everything
	f := folded{name: s.Path}
	f.effect, _ = steps.ParseEffect(s.Effect)
	fence := strings.Repeat("`", max(3, longestRun(text.String())+1))
	f.text = "<details><summary>" + role + "<code>" + html.EscapeString(oneLine(s.Path)) + "</code>: " + html.EscapeString(oneLine(s.title())) + "</summary>\n\n" +
		fence + "text\n" + clean(text.String()) + fence + "\n\n</details>\n"
	return f
}

// fitting chooses what there is room for, the most dangerous first.
func fitting(list []folded, room int) []bool {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(list[b].effect, list[a].effect) })
	shown := make([]bool, len(list))
	for _, i := range order {
		if len(list[i].text) <= room {
			shown[i] = true
			room -= len(list[i].text)
		}
	}
	return shown
}

// code is a text as it is, in a table too: no Markdown, HTML, mention or link in it counts.
func code(text string) string {
	text = clean(oneLine(text))
	if text == "" {
		return ""
	}
	fence := strings.Repeat("`", longestRun(text)+1)
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") || strings.TrimSpace(text) == "" {
		text = " " + text + " "
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}

// prose is a text for people. Nothing in it counts as Markdown or HTML, and it mentions
// nobody and no issue.
func prose(text string) string {
	var b strings.Builder
	for _, r := range clean(strings.TrimSpace(text)) {
		switch {
		case r == '\n':
			b.WriteString("<br>")
		case r == '@' || r == '#': // with a space of no width it is no mention, and no number of an issue
			b.WriteString(`\` + string(r) + "&#8203;")
		case r == '$': // between two of them stands mathematics
			b.WriteString("<span>$</span>")
		case strings.ContainsRune("\\`*_[]<>|~&", r):
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// oneLine puts spaces for the ends of lines.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// clean takes out control characters, which Markdown does not hide.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '\ufffd'
		}
		return r
	}, text)
}

// longestRun is how many backticks follow each other in a text.
func longestRun(text string) int {
	longest, run := 0, 0
	for i := range len(text) {
		run++
		if text[i] != '`' {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}
