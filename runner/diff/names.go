package diff

import (
	"slices"
	"strings"

	"runbook/runner"
	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// mode is how far names are followed.
type mode int

const (
	kept     mode = iota // every name stands for itself
	inlined              // vars, what a caller gives, and what a used runbook gives back are in their places
	resolved             // and inputs and vars whose values are known are those values
	modes
)

// definition is a name that stands for a value: an input, a var, what a caller gives for an
// input, or what a used runbook gives back.
type definition struct {
	book   *book
	what   string // input, var, with, output
	name   string
	input  *runner.Input
	fact   *runner.Fact // nil: an input of the runbook itself
	reader *site        // whose names the fact is read with
	inner  *scope       // where the name is used (output: where it is read from)
	path   string
	at     schema.Span
	order  int

	other *definition
	canon string

	asked bool
	why   []*definition // what makes it another value

	epoch int
	terms [modes]*expression.Term
	value *any
	known bool
}

// term is the definition's value.
func (d *definition) term(m mode) expression.Term {
	d.fresh()
	if d.terms[m] == nil {
		var t expression.Term
		if v, ok := d.constant(); ok && m == resolved && !d.ofTarget() {
			t = expression.Constant(v)
		} else if name, ok := d.book.values[d.name].(string); ok && m == resolved && d.fact == nil && d.input != nil && d.input.Kind == "target" {
			t = expression.Reference((&site{scope: d.inner}).canonical([]string{"targets", name}, runner.Around))
		} else if d.fact != nil {
			t = d.fact.Term(d.lifted(m))
		} else {
			t = expression.Reference([]string{"inputs", d.canon})
		}
		d.terms[m] = &t
	}
	return *d.terms[m]
}

// lifted are the names of the definition as another step sees them: an output of the step
// itself is read through steps.
func (d *definition) lifted(m mode) runner.Names {
	names := d.reader.names(d.fact, m)
	if d.fact.Scope != runner.Own {
		return names
	}
	return func(path []string) (expression.Term, bool) {
		if d.reader.node.HasOutput(path[0]) {
			return expression.Reference(append([]string{"steps", d.reader.canon}, path...)), true
		}
		return names(path)
	}
}

func (d *definition) ofTarget() bool {
	return d.input != nil && (d.input.Kind == "target" || d.input.Kind == "secret")
}

// fresh forgets what was worked out before names changed.
func (d *definition) fresh() {
	if d.epoch != d.book.epoch {
		d.epoch, d.terms, d.value = d.book.epoch, [modes]*expression.Term{}, nil
	}
}

// constant is the value, where it is known before a run.
func (d *definition) constant() (any, bool) {
	d.fresh()
	if d.value == nil {
		var v any
		switch {
		case d.ofTarget():
		case d.fact == nil:
			v, d.known = d.book.values[d.name]
		default:
			v, d.known = d.reader.evaluate(d.fact)
			if d.known && d.what == "with" {
				if n, err := d.input.Normalise(v); err == nil {
					v = n
				}
			}
		}
		d.value = &v
	}
	return *d.value, d.known
}

// evaluate is the value of a fact whose names are all inputs and vars that are known.
func (s *site) evaluate(f *runner.Fact) (any, bool) {
	if f.Value == nil || f.Targets {
		return nil, false
	}
	if f.Value.Constant {
		return f.Value.Literal, true
	}
	env := map[string]any{"inputs": map[string]any{}, "vars": map[string]any{}}
	for _, ref := range f.Value.Refs() {
		d := s.definition(ref.Path)
		if d == nil || ref.Path[0] == "steps" {
			return nil, false
		}
		v, ok := d.constant()
		if !ok {
			return nil, false
		}
		env[ref.Path[0]].(map[string]any)[d.name] = v
	}
	v, err := f.Value.Eval(env)
	return v, err == nil
}

// definition is what a reference refers to, where that is one.
func (s *site) definition(path []string) *definition {
	if len(path) < 2 {
		return nil
	}
	switch path[0] {
	case "inputs":
		return s.scope.inputs[path[1]]
	case "vars":
		return s.scope.vars[path[1]]
	case "steps":
		if to := s.scope.byID[path[1]]; to != nil && len(path) > 2 {
			return to.output(path[2])
		}
	}
	return nil
}

// output is what a step gives under a name that its author or its runbook chose.
func (s *site) output(name string) *definition {
	if s.repeats() {
		return nil
	}
	if s.body != nil && s.body.outputs[name] != nil {
		return s.body.outputs[name]
	}
	for _, d := range s.outs {
		if d.name == name {
			return d
		}
	}
	return nil
}

// nameValues finds the values that the step gives under names of its author's.
func (s *site) nameValues() {
	n := s.node
	if s.repeats() {
		return
	}
	add := func(what, name string, t *runner.Template, scope runner.FactScope) {
		s.outs = append(s.outs, &definition{book: s.scope.book, what: what, name: name, fact: &runner.Fact{Field: "outputs." + name, Value: t, Scope: scope, At: t.At},
			reader: s, inner: s.scope, path: s.path(), at: t.At, order: s.order})
	}
	if n.Kind != nil && n.Kind.Engine == steps.EngineSet && n.With != nil {
		for _, e := range n.With.Map {
			if e.Key == "values" {
				for _, v := range e.Value.Map {
					add("set", v.Key, v.Value, runner.Each)
				}
			}
		}
	}
	for _, o := range n.Outputs {
		add("step output", o.Name, &runner.Template{Expr: o.Expr, Type: o.Expr.Type, At: o.At.Span}, runner.Own)
	}
}

func (s *site) repeats() bool { return s.node.Loop != nil || s.node.FanOut }

// names says what the references of a fact of the step mean.
func (s *site) names(f *runner.Fact, m mode) runner.Names {
	return func(path []string) (expression.Term, bool) {
		if f.Scope == runner.Own && s.node != nil && s.node.HasOutput(path[0]) {
			return expression.Term{}, false
		}
		d := s.definition(path)
		if d == nil || m == kept {
			canon := s.canonical(path, f.Scope)
			return expression.Reference(canon), canon != nil
		}
		rest := path[2:]
		if path[0] == "steps" {
			rest = path[3:]
		}
		return expression.Select(d.term(m), rest...), true
	}
}

// canonical is a reference under names that both sides have; nil where it stays.
func (s *site) canonical(path []string, at runner.FactScope) []string {
	if name, level, ok := s.looped(path[0], at); ok {
		return append([]string{name + strings.Repeat("'", level)}, path[1:]...)
	}
	if len(path) < 2 {
		return nil
	}
	with := func(canon string) []string {
		p := slices.Clone(path)
		p[1] = canon
		return p
	}
	switch path[0] {
	case "steps":
		if to := s.scope.byID[path[1]]; to != nil {
			return with(to.canon)
		}
	case "inputs", "vars":
		if d := s.definition(path); d != nil {
			return with(d.canon)
		}
	case "targets":
		if t := s.scope.targets[path[1]]; t != nil {
			return with(t.canon)
		}
	case "secrets":
		if t := s.scope.secrets[path[1]]; t != nil {
			return with(t.canon)
		}
	}
	return nil
}

// looped finds the loop that a name is the item of, counted outward: what the author calls
// an item does not matter.
func (s *site) looped(name string, at runner.FactScope) (canon string, level int, ok bool) {
	if s.node == nil {
		return "", 0, false
	}
	within := at != runner.Around
	for n := s.node; n != nil; n = n.Parent {
		if within && (n.Loop != nil || n.FanOut) {
			switch {
			case name == "index":
				return "index", level, true
			case n.FanOut && name == "item", !n.FanOut && n.Loop.As == name:
				return "item", level, true
			}
			level++
		}
		within = n.Role != runner.InRescue && n.Role != runner.InAfterBatch
	}
	return "", 0, false
}
