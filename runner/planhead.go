package runner

import (
	"fmt"
	"path/filepath"
	"strings"
)

// head is what stands above the steps: what matters, counted, and what the run is given.
func (t *planText) head(p *Plan) {
	t.denials(p)
	t.line(0, "plan of ", p.Name, " (", filepath.Base(p.Path), ")")
	if p.Description != "" {
		t.prose(0, "description", p.Description)
	}
	for _, name := range sortedNames(p.Labels) {
		t.line(0, "label ", name, ": ", p.Labels[name])
	}
	for _, f := range p.headFacts() {
		t.fact(0, f)
	}
	t.line(0, "lock: ", p.lockText())
	t.line(0, "on failure: ", p.OnFailure)
	if p.Selection != nil {
		t.line(0, "selection:", p.Selection.flags(), ", ", plural(p.LeftOut, "step"), " left out")
	}
	t.guards(0, p.Guards)
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
	t.outputs(0, p.Outputs)
	t.policies(p)
}

// planFact is a line of the head, with lines of its own below it.
type planFact struct {
	name, value string
	parts       []string
}

func (t *planText) fact(depth int, f planFact) {
	t.line(depth, f.name, ": ", f.value)
	for _, part := range f.parts {
		t.line(depth+1, part)
	}
}

// facts are what the head counts, as people read it.
func (s *PlanSummary) facts() []planFact {
	count := func(parts []string) string {
		if len(parts) == 0 {
			return "none"
		}
		return fmt.Sprint(len(parts))
	}
	var touched, back, gates []string
	for _, i := range s.Instances {
		touched = append(touched, strings.Join(i.Names, ", ")+": "+i.Kind+" "+i.Addr)
	}
	for _, v := range s.NoWayBack {
		back = append(back, v.Name+": "+fmt.Sprint(v.Value))
	}
	for _, a := range s.Approvals {
		gates = append(gates, a.Step+": "+a.words())
	}
	slots, pause := "none", "none"
	if s.SlotsTouched > 0 {
		slots = fmt.Sprintf("%d (%s)", s.SlotsTouched, s.Slots)
	}
	if s.Pause != "" {
		pause = s.Pause + " at " + s.PauseAt
	}
	facts := []planFact{{name: "steps", value: fmt.Sprintf("%d (%d read, %d write, %d cutover, %d destroy)", s.Steps, s.Reads, s.Writes, s.Cutovers, s.Destroys)}}
	if f := s.IfFailed; f != (PlanCounts{}) {
		facts = append(facts, planFact{name: "steps only if something fails", value: fmt.Sprintf("%d (%d read, %d write, %d cutover, %d destroy)",
			f.Reads+f.Writes+f.Cutovers+f.Destroys, f.Reads, f.Writes, f.Cutovers, f.Destroys)})
	}
	facts = append(facts,
		planFact{"instances touched", count(touched), touched},
		planFact{"slots touched", slots, nil})
	if len(s.UnknownTouched) > 0 {
		facts = append(facts, planFact{"touch what is known only while running", count(s.UnknownTouched), s.UnknownTouched})
	}
	return append(facts,
		planFact{"keys at stake", s.keysText(), nil},
		planFact{"longest declared pause", pause, nil},
		planFact{"no way back", count(back), back},
		planFact{"gates", count(gates), gates},
		planFact{"loops over a list known only while running", count(s.UnknownLoops), s.UnknownLoops})
}

// words say who must say yes.
func (p PlanPeople) words() string {
	words := people(p.People)
	if p.Retype {
		words += ", typing a text"
	}
	if p.Each != "" {
		words += ", for each " + p.Each
	}
	return words
}

func people(n int) string {
	if n <= 1 {
		return "one person"
	}
	return fmt.Sprintf("%d people, the one who started the run not among them", n)
}

func (p *Plan) lockText() string {
	if p.Lock == "" {
		return "none"
	}
	words := p.Lock
	if p.LockTarget != "" {
		words += " on " + p.LockTarget
	}
	if p.LockHold != "" {
		words += ", held until the run is over"
	}
	return words
}

// flags are the selection as a command line says it.
func (sel *Selection) flags() string {
	words := ""
	for _, f := range []struct{ flag, value string }{{"--from", sel.From}, {"--to", sel.To}, {"--only", strings.Join(sel.Only, ",")}, {"--skip", strings.Join(sel.Skip, ",")}} {
		if f.value != "" {
			words += " " + f.flag + " " + f.value
		}
	}
	return words
}
