package diff

import (
	"reflect"
	"slices"

	"runbook/runner"
	"runbook/runner/expression"
)

// differs compares two facts. causes are the changed definitions that alone make the
// difference; none: the step itself says something else.
func (c *comparison) differs(o, n *site, of, nf *runner.Fact) (yes bool, causes []*definition) {
	if of == nil || nf == nil {
		return of != nf, nil
	}
	if same(o, n, of, nf) {
		if causes = c.causes(n, nf); len(causes) == 0 {
			return false, nil
		}
		return !equal(o, n, of, nf, inlined) || !equal(o, n, of, nf, resolved), causes
	}
	if !equal(o, n, of, nf, inlined) {
		return true, nil
	}
	if equal(o, n, of, nf, resolved) {
		return false, nil
	}
	return true, c.causes(n, nf)
}

func equal(o, n *site, of, nf *runner.Fact, m mode) bool {
	if of.Hidden && of.Value.Constant && nf.Value.Constant {
		return reflect.DeepEqual(of.Value.Literal, nf.Value.Literal)
	}
	return o.term(of, m).Equal(n.term(nf, m))
}

// term is a fact in canonical form.
func (s *site) term(f *runner.Fact, m mode) expression.Term {
	if m == resolved && f.Value != nil && !f.Targets {
		if v, ok := s.evaluate(f); ok {
			return expression.Constant(v)
		}
	}
	return f.Term(s.names(f, m))
}

// same tells whether two facts say the same words of the same things. It is quick, and may
// say no where the meaning is the same.
func same(o, n *site, of, nf *runner.Fact) bool {
	if of.Targets != nf.Targets || of.Scope != nf.Scope || (of.Value == nil) != (nf.Value == nil) {
		return equal(o, n, of, nf, kept)
	}
	words := false
	if of.Value == nil {
		words = slices.EqualFunc(of.All, nf.All, func(a, b *runner.Condition) bool { return a.Expr.Source == b.Expr.Source })
	} else {
		words = sameTemplate(of.Value, nf.Value)
	}
	if words && of.Targets && of.Value.Constant {
		return o.scope.sameTargets(n.scope, of.Value.Literal)
	}
	if words {
		a, b := refs(of), refs(nf)
		if slices.EqualFunc(a, b, func(x, y expression.Ref) bool { return sameReference(o, n, of, nf, x.Path, y.Path) }) {
			return true
		}
	}
	return equal(o, n, of, nf, kept)
}

// sameTargets tells whether names that are written alike are names of the same targets.
func (sc *scope) sameTargets(other *scope, names any) bool {
	list, isList := names.([]any)
	if !isList {
		list = []any{names}
	}
	for _, v := range list {
		name, _ := v.(string)
		a, b := sc.targets[name], other.targets[name]
		if (a == nil) != (b == nil) || a != nil && a.canon != b.canon {
			return false
		}
	}
	return true
}

func sameReference(o, n *site, of, nf *runner.Fact, a, b []string) bool {
	if !slices.Equal(a, b) {
		return false
	}
	if of.Scope == runner.Own && o.node != nil && n.node != nil && o.node.HasOutput(a[0]) != n.node.HasOutput(a[0]) {
		return false
	}
	x, y := o.canonical(a, of.Scope), n.canonical(b, nf.Scope)
	return (x == nil) == (y == nil) && slices.Equal(x, y)
}

// sameTemplate tells whether two templates are written alike.
func sameTemplate(a, b *runner.Template) bool {
	switch {
	case a.Constant || b.Constant:
		return a.Constant && b.Constant && reflect.DeepEqual(a.Literal, b.Literal)
	case a.Expr != nil || b.Expr != nil:
		return a.Expr != nil && b.Expr != nil && a.Expr.Source == b.Expr.Source
	case a.Cond != nil || b.Cond != nil:
		return a.Cond != nil && b.Cond != nil && a.Cond.Expr.Source == b.Cond.Expr.Source
	case len(a.Parts) != len(b.Parts) || len(a.List) != len(b.List) || len(a.Map) != len(b.Map):
		return false
	}
	for i := range a.Parts {
		x, y := a.Parts[i].Expr, b.Parts[i].Expr
		if (x == nil) != (y == nil) || x != nil && x.Source != y.Source || x == nil && a.Parts[i].Literal != b.Parts[i].Literal {
			return false
		}
	}
	for i := range a.List {
		if !sameTemplate(a.List[i], b.List[i]) {
			return false
		}
	}
	for i := range a.Map {
		if a.Map[i].Key != b.Map[i].Key || !sameTemplate(a.Map[i].Value, b.Map[i].Value) {
			return false
		}
	}
	return true
}

// causes are the definitions whose own change makes what the fact reads another value.
func (c *comparison) causes(n *site, f *runner.Fact) []*definition {
	var all []*definition
	for _, ref := range refs(f) {
		if f.Scope == runner.Own && n.node != nil && n.node.HasOutput(ref.Path[0]) {
			continue
		}
		if d := n.definition(ref.Path); d != nil {
			for _, cause := range d.causes(c) {
				if !slices.Contains(all, cause) {
					all = append(all, cause)
				}
			}
		}
	}
	return all
}

// causes are the definition itself, where it says something else than its counterpart, and
// those that it reads.
func (d *definition) causes(c *comparison) []*definition {
	if d.asked {
		return d.why
	}
	d.asked = true // definitions have no circles; a second look costs nothing
	if d.other == nil {
		return nil // the reader's own words differ then
	}
	if d.changed(c) {
		d.why = append(d.why, d)
	}
	if d.fact != nil {
		for _, cause := range c.causes(d.reader, d.fact) {
			if !slices.Contains(d.why, cause) {
				d.why = append(d.why, cause)
			}
		}
	}
	return d.why
}

// changed tells whether the definition itself says something else.
func (d *definition) changed(c *comparison) bool {
	if d.fact != nil && d.other.fact != nil {
		yes, causes := c.differs(d.other.reader, d.reader, d.other.fact, d.fact)
		return yes && len(causes) == 0
	}
	if d.fact == nil && d.other.fact == nil && d.ofTarget() && d.other.ofTarget() {
		return !d.term(resolved).Equal(d.other.term(resolved))
	}
	a, knownA := d.other.constant()
	b, knownB := d.constant()
	return knownA != knownB || knownA && !reflect.DeepEqual(a, b)
}

// refs are the names that a fact reads.
func refs(f *runner.Fact) []expression.Ref {
	if f.Value != nil {
		return f.Value.Refs()
	}
	if len(f.All) == 1 {
		return f.All[0].Expr.Refs
	}
	var all []expression.Ref
	for _, cond := range f.All {
		all = append(all, cond.Expr.Refs...)
	}
	return all
}
