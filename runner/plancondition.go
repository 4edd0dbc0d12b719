package runner

import (
	"fmt"
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/steps"
)

// conditions are shown in the order in which they are asked.
func (pl *planner) conditions(s *planScope, n *Node, ps *PlanStep, whole bool) {
	add := func(key string, c *Condition, own string) {
		if c == nil {
			return
		}
		pc := pl.condition(s, n, ps.Path, key, c, own)
		if key == "when" && pc.Value != nil && !*pc.Value {
			ps.Skipped = "when: " + c.Expr.Source + " is false"
		}
		ps.Conditions = append(ps.Conditions, pc)
	}
	looped := n.Loop != nil || n.FanOut
	if !looped || !whole { // of each item
		add("when", n.When, "")
	}
	if whole {
		for _, c := range n.Require {
			add("require", c, "")
		}
	}
	if looped && whole {
		return
	}
	after := "after " + n.ID
	if n.Wait != nil {
		add("wait-until", n.Wait.Until, after)
	}
	for _, c := range n.Expect {
		add("expect", c, after)
	}
	add("retry-if", n.Retry.If, "when it fails")
	add("ready", n.Ready, after)
	if n.Repeat != nil {
		add("repeat-until", n.Repeat.Until, after)
	}
	if n.Probe != nil {
		add("probe", n.Probe.Done, "when it is asked")
		ps.Probe = &PlanProbe{Kind: n.Probe.Kind.Name, With: pl.with(s, n.Probe.With)}
		if t, ok := pl.boundTarget(s, n, n.Probe.Target, ps.Path); ok {
			ps.Probe.Targets = []PlanTarget{t}
		}
	}
}

// checks are the conditions that a step's kind is given as inputs; they are shown as conditions instead.
func (pl *planner) checks(s *planScope, n *Node, ps *PlanStep) {
	if n.With == nil {
		return
	}
	for i := range n.With.Map {
		e := &n.With.Map[i]
		list := e.Value.conditions()
		for _, c := range list {
			ps.Conditions = append(ps.Conditions, pl.condition(s, n, ps.Path, e.Key, c, "when it runs"))
		}
		if list != nil {
			ps.With = slices.DeleteFunc(ps.With, func(v PlanValue) bool { return v.Name == e.Key })
		}
	}
}

// conditions are those that a template is, or is a list of.
func (t *Template) conditions() []*Condition {
	if t.Cond != nil {
		return []*Condition{t.Cond}
	}
	var list []*Condition
	for _, e := range t.List {
		if e.Cond == nil {
			return nil
		}
		list = append(list, e.Cond)
	}
	return list
}

// condition is an expression with what is known of it. own is as in known.
func (pl *planner) condition(s *planScope, n *Node, path, key string, c *Condition, own string) PlanCondition {
	pc := PlanCondition{Key: key, Text: c.Expr.Source, Message: pl.text(s, c.Message)}
	if pc.Known, pc.After = pl.known(s, n, c.Expr.Refs, own); pc.After != "" {
		return pc
	}
	v, err := c.Expr.Eval(s.env)
	holds, ok := v.(bool)
	switch {
	case ok:
		pc.Value = &holds
	case err != nil && own != "":
		pc.After = own
	case err != nil:
		pl.problem(n.Unit, c.At.Span, key, fmt.Sprintf("step %s: %s: %s: %v", path, key, c.Expr.Source, err))
	}
	return pc
}

// known splits what an expression reads into names that have a value, and the reason for
// which the others have none. own is the reason for the outputs of the step itself, which
// are plain names; empty: it reads none. n is nil for a guard.
func (pl *planner) known(s *planScope, n *Node, refs []expression.Ref, own string) (known []PlanValue, after string) {
	var reasons []string
	for i := range refs {
		r := &refs[i]
		why := s.whyRef(r)
		if own != "" && s.gives(n, r.Path[0]) {
			why = own
		}
		switch {
		case why == "":
			name := strings.Join(r.Path, ".")
			if r.Path[0] != "run" && !slices.ContainsFunc(known, func(v PlanValue) bool { return v.Name == name }) {
				known = append(known, PlanValue{Name: name, Value: jsonable(plain(nameOf(s.value(r.Path))))})
			}
		case why == own: // whatever it reads of others is known by then
			after = own
		case after == own && own != "":
		case !slices.Contains(reasons, why):
			reasons = append(reasons, why)
		}
	}
	if after == "" {
		after = together(reasons)
	}
	return known, after
}

// gives tells whether a plain name is one of the step itself, and not of what stands around it.
func (s *planScope) gives(n *Node, name string) bool {
	switch name {
	case "inputs", "vars", "targets", "steps", "run", "secrets":
		return false
	}
	if n != nil && n.Kind != nil && slices.ContainsFunc(n.Kind.Outputs, func(o steps.Output) bool { return o.Name == name }) {
		return true
	}
	_, known := s.env[name]
	return !known && s.unknown[name] == ""
}

// value is what a path of names leads to; nil where it ends early.
func (s *planScope) value(path []string) any {
	var v any = s.env
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// together joins reasons: after look, after probe is after look, probe.
func together(reasons []string) string {
	var b strings.Builder
	for i, r := range reasons {
		if i > 0 {
			b.WriteString(", ")
			if rest, ok := strings.CutPrefix(r, "after "); ok && strings.HasPrefix(reasons[i-1], "after ") {
				r = rest
			}
		}
		b.WriteString(r)
	}
	return b.String()
}

// expression is an expression with its value, or the reason why it has none yet.
func (pl *planner) expression(s *planScope, n *Node, e *expression.Program) PlanValue {
	v := PlanValue{Name: e.Source}
	if _, v.Unknown = pl.known(s, n, e.Refs, ""); v.Unknown != "" {
		return v
	}
	value, err := e.Eval(s.env)
	if err != nil {
		v.Unknown = err.Error()
		return v
	}
	v.Value = jsonable(plain(nameOf(value)))
	return v
}
