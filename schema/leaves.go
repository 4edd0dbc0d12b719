package schema

import (
	"fmt"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// How the leaf types of the language read themselves.

func (l *Leaf[T]) decode(d *decoder, n *yaml.Node, f *field) bool {
	s := d.leaf(n, reflect.ValueOf(&l.Value).Elem(), f)
	if s != nil {
		l.Set, l.Span = true, s.Span
	}
	return s != nil
}

func (l *Dyn[T]) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind != yaml.ScalarNode {
		return d.shape(n, f, wanted(reflect.TypeFor[T]()))
	}
	if d.tagged(n, f) {
		return false
	}
	s := d.scalar(n)
	if !strings.Contains(s.Text, "${{") {
		if !d.fits(s, reflect.ValueOf(&l.Value).Elem(), f) {
			return false
		}
		l.Set, l.Span = true, s.Span
		return true
	}
	text, findings := s.AsText()
	if len(findings) > 0 {
		d.findings = append(d.findings, findings...)
		return false
	}
	if l.Expr = text.Whole(); l.Expr == nil {
		d.report(Error, "wrong-type", s.Span,
			fmt.Sprintf("%s wants %s or one whole ${{ … }}, not text around it", f.name, wanted(reflect.TypeFor[T]())), "")
		return false
	}
	l.Set, l.Span = true, s.Span
	return true
}

func (e *Expr) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind != yaml.ScalarNode {
		return d.shape(n, f, "an expression")
	}
	if d.tagged(n, f) {
		return false
	}
	s := d.scalar(n)
	if !s.Quoted && s.Text == "" {
		return d.shape(n, f, "an expression")
	}
	expr, findings := s.ParseExpr()
	d.findings = append(d.findings, findings...)
	*e = expr
	return true
}

func (e *Exprs) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind == yaml.SequenceNode {
		return d.sequence(n, reflect.ValueOf((*[]Expr)(e)).Elem(), f)
	}
	var one Expr
	if n.Kind != yaml.ScalarNode {
		return d.shape(n, f, "an expression or a list of them")
	}
	if !one.decode(d, n, f) {
		return false
	}
	*e = Exprs{one}
	return true
}

func (t *Text) decode(d *decoder, n *yaml.Node, f *field) bool {
	var text string
	if n.Kind != yaml.ScalarNode {
		return d.shape(n, f, "text")
	}
	s := d.leaf(n, reflect.ValueOf(&text).Elem(), &field{name: f.name})
	if s == nil {
		return false
	}
	parsed, findings := s.AsText()
	d.findings = append(d.findings, findings...)
	*t = parsed
	return true
}

func (v *Value) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind == yaml.AliasNode {
		return v.decode(d, n.Alias, f)
	}
	if d.tagged(n, f) {
		return false
	}
	switch n.Kind {
	case yaml.ScalarNode:
		v.Scalar = d.scalar(n)
		v.Span = v.Scalar.Span
		if v.Scalar.Tag == Int && leadingZero(v.Scalar.Text) {
			d.report(Error, "leading-zero", v.Span, leadingZeroMessage(v.Scalar.Text),
				fmt.Sprintf("%s, or %s if text is meant", withoutZeros(v.Scalar.Text), quote(v.Scalar.Text)))
		}
		if v.Scalar.Tag == Float {
			if _, ok := v.Scalar.Float(); !ok {
				d.report(Error, "wrong-type", v.Span, fmt.Sprintf("%s is no number that can be used", v.Scalar.Text), quote(v.Scalar.Text))
			}
		} else if v.Scalar.Tag == Int && !leadingZero(v.Scalar.Text) {
			if _, ok := v.Scalar.Int(); !ok {
				d.report(Error, "wrong-type", v.Span, fmt.Sprintf("%s does not fit 64 bits", v.Scalar.Text), quote(v.Scalar.Text))
			}
		}
		if !f.isExpr() {
			d.trap(v.Scalar)
		}
	case yaml.SequenceNode:
		v.Kind, v.Span = ListValue, d.span(n)
		items := d.items(n)
		v.List = make([]Value, 0, len(items))
		for _, item := range items {
			var element Value
			if element.decode(d, item, f) {
				v.List = append(v.List, element)
			}
		}
	case yaml.MappingNode:
		v.Kind, v.Span = MapValue, d.span(n)
		v.Map.fill(d, d.pairs(n), &field{name: f.name})
	}
	return true
}

func (m *Map[T]) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind == yaml.AliasNode {
		return m.decode(d, n.Alias, f)
	}
	if n.Kind != yaml.MappingNode {
		return d.shape(n, f, "a map")
	}
	if d.tagged(n, f) {
		return false
	}
	m.fill(d, d.pairs(n), f)
	return true
}

func (m *Map[T]) fill(d *decoder, all pairs, f *field) {
	*m = make(Map[T], 0, len(all))
	for _, pair := range all {
		entry := Entry[T]{Key: Leaf[string]{Value: pair.key.Value, Set: true, Span: d.span(pair.key)}}
		if f.keys != nil && !f.keys.MatchString(pair.key.Value) {
			d.report(Error, "name", entry.Key.Span,
				fmt.Sprintf("%s is no name for one of the %s: names are snake_case, such as max_pause", quoted(pair.key.Value), f.name),
				respell(pair.key.Value, &field{pattern: f.keys}))
		}
		decl := field{name: pair.key.Value, typ: f.typ, tag: f.tag}
		if d.decode(pair.value, reflect.ValueOf(&entry.Value).Elem(), &decl) {
			*m = append(*m, entry)
		}
	}
}

func (c *Confirm) decode(d *decoder, n *yaml.Node, f *field) bool {
	if n.Kind == yaml.MappingNode {
		return d.mapping(n, reflect.ValueOf(c).Elem(), f)
	}
	if n.Kind != yaml.ScalarNode {
		return d.shape(n, f, "text, a map, or false")
	}
	if d.tagged(n, f) {
		return false
	}
	s := d.scalar(n)
	c.Span = s.Span
	switch {
	case s.Tag == Bool && s.Plain() == false:
		c.Waived = true
		return true
	case s.Tag != String || strings.TrimSpace(s.Text) == "":
		return d.shape(n, f, "text that asks a person, a map, or false")
	}
	return c.Message.decode(d, n, f)
}

func (u *Undo) decode(d *decoder, n *yaml.Node, f *field) bool {
	u.Span = d.span(n)
	if n.Kind == yaml.SequenceNode {
		u.Mode = "steps"
		return d.sequence(n, reflect.ValueOf(&u.Steps).Elem(), f)
	}
	s := d.leaf(n, reflect.ValueOf(&u.Mode).Elem(), &field{name: f.name, enum: []string{"auto", "none"}})
	return s != nil
}

// isExpr tells that the field holds a bare expression.
func (f *field) isExpr() bool {
	t := f.typ
	if t == nil {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t == reflect.TypeFor[Expr]() || t == reflect.TypeFor[Exprs]() || t == reflect.TypeFor[Map[Expr]]() || f.name == "for-each"
}
