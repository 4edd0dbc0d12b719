package schema

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// decoder walks a YAML tree along the declarations of Go types and collects findings.
type decoder struct {
	src      *source
	findings []Finding
	plans    map[reflect.Type]*plan
	ids      []Leaf[string] // of steps
	guards   []Leaf[string]
	meant    []string // keys that unknown ones of the mapping being checked were probably meant to be
}

func newDecoder(src *source) *decoder {
	return &decoder{src: src, plans: map[reflect.Type]*plan{}}
}

// decodable is a type that reads itself from a node. Its result tells whether the
// node had the shape wanted; if not, a finding has been made.
type decodable interface {
	decode(d *decoder, n *yaml.Node, f *field) bool
}

// checked is a struct that looks at its keys once all are read.
type checked interface {
	check(d *decoder, keys pairs, head Span)
}

func (d *decoder) plan(t reflect.Type) *plan {
	p := d.plans[t]
	if p == nil {
		p = planOf(t)
		d.plans[t] = p
	}
	return p
}

func (d *decoder) report(severity Severity, rule string, span Span, message, suggestion string) {
	d.findings = append(d.findings, d.src.finding(severity, rule, span, message, suggestion))
}

// decode reads one node into v. f is the declaration that v stands under.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, f *field) bool {
	if n.Kind == yaml.AliasNode {
		return d.decode(n.Alias, v, f)
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		if !d.decode(n, p.Elem(), f) {
			return false
		}
		v.Set(p)
		return true
	}
	if into, ok := v.Addr().Interface().(decodable); ok {
		return into.decode(d, n, f)
	}
	switch {
	case v.Type() == slotsType && n.Kind == yaml.SequenceNode:
		return d.assign(n, v, f)
	case v.Kind() == reflect.Interface:
		return d.assign(n, v, f)
	case v.Kind() == reflect.Struct && v.Type() != secretType:
		return d.mapping(n, v, f)
	case v.Kind() == reflect.Slice && v.Type() != slotsType:
		return d.sequence(n, v, f)
	case v.Kind() == reflect.Map:
		return d.goMap(n, v, f)
	}
	return d.leaf(n, v, f) != nil
}

// assign reads a node of any shape as plain data.
func (d *decoder) assign(n *yaml.Node, v reflect.Value, f *field) bool {
	var value Value
	if !value.decode(d, n, f) {
		return false
	}
	if err := assign(v, value.Plain()); err != nil {
		d.mismatch(value.Span, f, err)
		return false
	}
	return true
}

func (d *decoder) mismatch(span Span, f *field, err error) {
	e, ok := err.(*MismatchError)
	if !ok {
		d.report(Error, "wrong-type", span, fmt.Sprintf("%s: %v", f.name, err), "")
		return
	}
	d.report(Error, "wrong-type", span, fmt.Sprintf("%s%s wants %s, not %s", f.name, e.Input, e.Wanted, e.Given), e.Suggestion)
}

// shape reports a node that is not what is wanted.
func (d *decoder) shape(n *yaml.Node, f *field, wanted string) bool {
	if d.tagged(n, f) {
		return false
	}
	given := "a list"
	switch n.Kind {
	case yaml.MappingNode:
		given = "a map"
	case yaml.ScalarNode:
		s := d.scalar(n)
		if s.Tag == Null {
			d.report(Error, "empty", s.Span, fmt.Sprintf("%s has no value: %s is wanted", f.name, wanted), "")
			return false
		}
		given = describe(s)
	}
	d.report(Error, "wrong-type", d.span(n), fmt.Sprintf("%s wants %s, not %s", f.name, wanted, given), "")
	return false
}

// describe says in words what a scalar is.
func describe(s *Scalar) string {
	switch s.Tag {
	case String:
		return "the text " + quoted(s.Text)
	case Null:
		return "nothing"
	case Bool:
		return s.Text
	}
	return "the number " + s.Text
}

// mapping reads a mapping into a struct, key by key in the file's order.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, f *field) bool {
	p := d.plan(v.Type())
	if n.Kind != yaml.MappingNode {
		return d.shape(n, f, "a map")
	}
	if d.tagged(n, f) {
		return false
	}
	if p.span >= 0 {
		v.Field(p.span).Set(reflect.ValueOf(d.span(n)))
	}
	keys := d.pairs(n)
	var rest pairs
	var meant []string
	for _, pair := range keys {
		decl := p.field(pair.key.Value)
		switch {
		case decl != nil:
			d.decode(pair.value, v.Field(decl.index), decl)
		case p.rest >= 0:
			rest = append(rest, pair)
		default:
			near, _ := Nearest(pair.key.Value, p.names)
			meant = append(meant, near)
			d.report(Error, "unknown-key", d.span(pair.key), fmt.Sprintf("%s has no key %s", noun(p.typ), quoted(pair.key.Value)), near)
		}
	}
	if len(rest) > 0 {
		v.Field(p.rest).Addr().Interface().(*Map[Value]).fill(d, rest, f)
	}
	for i := range p.fields {
		if decl := &p.fields[i]; decl.required && keys.get(decl.name) == nil && !slices.Contains(meant, decl.name) {
			d.report(Error, "required", d.head(n, keys), fmt.Sprintf("%s needs %s: %s", noun(p.typ), decl.name, lower(decl.tag.Get("doc"))), "")
		}
	}
	if c, ok := v.Addr().Interface().(checked); ok {
		d.meant = meant
		c.check(d, keys, d.head(n, keys))
	}
	return true
}

// head is where a mapping as a whole is spoken of: its id, else its first key.
func (d *decoder) head(n *yaml.Node, keys pairs) Span {
	if id := keys.find("id"); id != nil {
		return d.span(id.key)
	}
	if len(keys) > 0 {
		return d.span(keys[0].key)
	}
	return d.span(n)
}

func lower(text string) string {
	text = strings.TrimSuffix(text, ".")
	if len(text) > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' && text[1] <= 'z' {
		return strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, f *field) bool {
	if n.Kind != yaml.SequenceNode {
		return d.shape(n, f, "a list")
	}
	if d.tagged(n, f) {
		return false
	}
	items := d.items(n)
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	decl := *f
	decl.name = "an element of " + f.name
	read := 0
	for _, node := range items {
		item := v.Index(read) // in place: a step is large
		if d.decode(node, item, &decl) {
			read++
		} else {
			item.SetZero()
		}
	}
	v.SetLen(read)
	return true
}

func (d *decoder) goMap(n *yaml.Node, v reflect.Value, f *field) bool {
	if n.Kind != yaml.MappingNode {
		return d.shape(n, f, "a map")
	}
	if d.tagged(n, f) {
		return false
	}
	m := reflect.MakeMap(v.Type())
	for _, pair := range d.pairs(n) {
		value := reflect.New(v.Type().Elem()).Elem()
		decl := *f
		decl.name = pair.key.Value
		key := reflect.New(v.Type().Key()).Elem()
		if key.Kind() == reflect.String {
			key.SetString(pair.key.Value)
		} else if !d.decode(pair.key, key, &decl) {
			continue
		}
		if d.decode(pair.value, value, &decl) {
			m.SetMapIndex(key, value)
		}
	}
	v.Set(m)
	return true
}

// leaf reads a scalar into one of Go's types or one of ours; nil where it cannot be.
func (d *decoder) leaf(n *yaml.Node, v reflect.Value, f *field) *Scalar {
	if n.Kind == yaml.AliasNode {
		return d.leaf(n.Alias, v, f)
	}
	if n.Kind != yaml.ScalarNode {
		d.shape(n, f, f.wants(v.Type()))
		return nil
	}
	if d.tagged(n, f) {
		return nil
	}
	s := d.scalar(n)
	if !d.fits(s, v, f) {
		return nil
	}
	return s
}

// fits sets v from a scalar.
func (d *decoder) fits(s *Scalar, v reflect.Value, f *field) bool {
	t := v.Type()
	switch {
	case s.Tag == Null:
		d.report(Error, "empty", s.Span, fmt.Sprintf("%s has no value: %s is wanted", f.name, f.wants(t)), "")
		return false
	case strings.Contains(s.Text, "${{") && f.name != "description" && f.typ != nil:
		at := s.Position(len([]rune(s.Text[:strings.Index(s.Text, "${{")])))
		d.report(Error, "never-interpolated", Span{at, Position{at.Line, at.Column + 3}},
			fmt.Sprintf("%s is fixed: ${{ … }} is not replaced here", f.name), "")
		return false
	case s.Tag == Int && leadingZero(s.Text):
		suggestion := quote(s.Text)
		if t.Kind() != reflect.String {
			suggestion = withoutZeros(s.Text)
		}
		d.report(Error, "leading-zero", s.Span, leadingZeroMessage(s.Text), suggestion)
		return false
	case t.Kind() == reflect.String && t != secretType && s.Tag != String:
		d.report(Error, "wrong-type", s.Span, fmt.Sprintf("%s wants text, not %s", f.name, describe(s)), quote(s.Text))
		return false
	}
	if err := assign(v, s.Plain()); err != nil {
		e := err.(*MismatchError)
		suggestion := e.Suggestion
		if suggestion == "" {
			suggestion = meant(s, t)
		}
		d.report(Error, "wrong-type", s.Span, fmt.Sprintf("%s wants %s, not %s", f.name, e.Wanted, describe(s)), suggestion)
		return false
	}
	if t == durationType && v.Int() < 0 {
		d.report(Error, "wrong-type", s.Span, fmt.Sprintf("%s wants a duration that is not negative", f.name), strings.TrimLeft(s.Text, "-"))
		return false
	}
	if t.Kind() != reflect.String {
		return d.ranged(s, v, f)
	}
	switch {
	case len(f.enum) > 0 && !slices.Contains(f.enum, s.Text):
		near, _ := Nearest(s.Text, f.enum)
		d.report(Error, "unknown-value", s.Span, fmt.Sprintf("%s wants %s, not %s", f.name, oneOf("one of ", f.enum), quoted(s.Text)), near)
		return false
	case f.pattern != nil && !f.pattern.MatchString(s.Text):
		d.report(Error, "pattern", s.Span, fmt.Sprintf("%s wants text that matches %s, not %s", f.name, f.pattern, quoted(s.Text)), respell(s.Text, f))
		return false
	}
	if f.pattern == nil || len(s.Text) > 1 { // a step may be called y
		d.trap(s)
	}
	return true
}

// ranged holds a number or duration to the min and max tags of its field.
func (d *decoder) ranged(s *Scalar, v reflect.Value, f *field) bool {
	if !f.bounded {
		return true
	}
	for i, word := range []string{"least", "most"} {
		text := f.tag.Get([]string{"min", "max"}[i])
		limit := reflect.New(v.Type()).Elem()
		if text == "" || assignText(limit, text) != nil {
			continue
		}
		low, high := limit, v // in the order they must have
		if i == 1 {
			low, high = v, limit
		}
		if v.CanInt() && low.Int() > high.Int() || v.CanFloat() && low.Float() > high.Float() {
			d.report(Error, "range", s.Span, fmt.Sprintf("%s is at %s %s", f.name, word, text), text)
			return false
		}
	}
	return true
}

// meant is the value that a scalar of the wrong type was probably meant to be.
func meant(s *Scalar, t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		switch strings.ToLower(s.Text) {
		case "yes", "y", "on", "true":
			return "true"
		case "no", "n", "off", "false":
			return "false"
		}
	case reflect.Int, reflect.Int64, reflect.Float64:
		text := strings.ReplaceAll(s.Text, "_", "")
		if text == s.Text && !s.Quoted {
			return ""
		}
		if tag := resolve(text); (tag == Int || tag == Float && t.Kind() == reflect.Float64) && !leadingZero(text) {
			return text
		}
	}
	return ""
}

// respell makes a name of a text that is nearly one.
func respell(text string, f *field) string {
	for _, candidate := range []string{
		strings.ToLower(text),
		strings.ToLower(strings.NewReplacer("-", "_", " ", "_", ".", "_").Replace(text)),
		strings.ToLower(strings.NewReplacer("_", "-", " ", "-", ".", "-").Replace(text)),
	} {
		if candidate != text && f.pattern.MatchString(candidate) {
			return candidate
		}
	}
	return ""
}

func leadingZeroMessage(text string) string {
	return fmt.Sprintf("%s starts with a zero: YAML readers disagree whether that is octal, decimal or text", text)
}

// trap warns of text that older YAML readers take for something else.
func (d *decoder) trap(s *Scalar) {
	if what := trap(s); what != "" {
		d.report(Warning, "yaml-1.1", s.Span, fmt.Sprintf("%s is text, but readers of YAML 1.1 take it for %s; quote it", s.Text, what), quote(s.Text))
	}
}
