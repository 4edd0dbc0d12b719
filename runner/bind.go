package runner

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// at reports something about a stretch of the file.
func (r *resolver) at(span schema.Span, severity schema.Severity, rule, suggestion, format string, args ...any) {
	r.findings = append(r.findings, schema.Finding{
		Path: r.path, Line: span.Start.Line, Column: span.Start.Column, EndLine: span.End.Line, EndColumn: span.End.Column,
		Severity: severity, Rule: rule, Message: fmt.Sprintf(format, args...), Suggestion: suggestion,
	})
}

func (r *resolver) wrong(span schema.Span, rule, suggestion, format string, args ...any) {
	r.at(span, schema.Error, rule, suggestion, format, args...)
}

func (r *resolver) warn(span schema.Span, rule, suggestion, format string, args ...any) {
	r.at(span, schema.Warning, rule, suggestion, format, args...)
}

// reported stands for a value that has been reported: it fits everywhere and is never evaluated.
func reported(at schema.Span) *Template { return &Template{Type: anyType, At: at} }

// value compiles a value of the file: literals are checked against the Go type that its
// place wants (nil: any), expressions against what the place lets them name.
func (r *resolver) value(v *schema.Value, p place, want reflect.Type) *Template {
	if want == goCondition {
		return r.conditionValue(v, p)
	}
	if want != nil && want.Kind() == reflect.Pointer {
		if v.Kind == schema.ScalarValue && v.Scalar != nil && v.Scalar.Tag == schema.Null {
			return constant(nil, v.Span)
		}
		return r.value(v, p, want.Elem())
	}
	switch v.Kind {
	case schema.ListValue:
		return r.list(v, p, want)
	case schema.MapValue:
		return r.mapping(v, p, want)
	}
	if want != nil && want.Kind() == reflect.Slice && want.Elem() == goCondition {
		one := r.conditionValue(v, p)
		return &Template{List: []*Template{one}, Type: listOf(anyType), At: v.Span}
	}
	if v.Scalar == nil {
		return constant(nil, v.Span)
	}
	if strings.Contains(v.Scalar.Text, "${{") {
		return r.text(v, p, want)
	}
	return r.literal(v, v.Scalar.Plain(), want)
}

func (r *resolver) literal(v *schema.Value, plain any, want reflect.Type) *Template {
	t := constant(plain, v.Span)
	switch want {
	case nil:
		return t
	case goTarget, goEndpoint:
		name, ok := plain.(string)
		if !ok {
			break
		}
		if want == goEndpoint {
			if _, err := netip.ParseAddrPort(name); err == nil {
				return t
			}
		}
		if r.target(name) == nil {
			r.unknownTarget(v.Span, name)
		}
		return t
	}
	if err := schema.CheckLiteral(want, plain); err != nil {
		message, suggestion := mismatch(err)
		r.wrong(v.Span, "wrong-type", suggestion, "%s", message)
		return reported(v.Span)
	}
	return t
}

func (r *resolver) unknownTarget(at schema.Span, name string) {
	near, _ := schema.Nearest(name, slices.Sorted(maps.Keys(r.targets)))
	r.wrong(at, "unknown-target", near, "there is no target %s", name)
}

// target finds a target of the file by name; nil where there is none.
func (r *resolver) target(name string) *Target { return r.targets[name] }

// text compiles a scalar with ${{ … }} in it.
func (r *resolver) text(v *schema.Value, p place, want reflect.Type) *Template {
	text, findings := v.Scalar.AsText()
	r.findings = append(r.findings, findings...)
	if schema.Failed(findings) {
		r.mention(v.Scalar.Text)
		return reported(v.Span)
	}
	if words, ok := text.Literal(); ok { // $${{ alone
		return r.literal(v, words, want)
	}
	if e := text.Whole(); e != nil {
		program := r.compile(e, p, nil, expression.Plain)
		if program == nil {
			return reported(v.Span)
		}
		if wanted, ok := fits(program.Type, want); !ok {
			r.misfit(e, program, wanted)
			return reported(v.Span)
		}
		t := &Template{Expr: program, Type: program.Type, At: v.Span, Name: wantsName(want)}
		if t.Name {
			t.Type = stringType
		}
		return t
	}
	if want != nil && !takesText(want) {
		r.wrong(v.Span, "wrong-type", "", "wanted %s, got text with an expression in it", wantedWords(want))
		return reported(v.Span)
	}
	return r.parts(text, p, v.Span)
}

// misfit is an expression of the wrong type.
func (r *resolver) misfit(e *schema.Expr, program *expression.Program, wanted string) {
	n := utf8.RuneCountInString(e.Source)
	if program.Type.Nullable {
		r.findings = append(r.findings, e.Finding(schema.Error, "type", 0, n, "must be "+wanted+", but may be null; say what counts then, such as "+e.Source+" ?? …", ""))
		return
	}
	r.findings = append(r.findings, e.Finding(schema.Error, "type", 0, n, "must be "+wanted+", but is "+program.Type.String(), ""))
}

// parts compiles text with expressions between literal stretches.
func (r *resolver) parts(text schema.Text, p place, at schema.Span) *Template {
	if !text.Set {
		return nil
	}
	if words, ok := text.Literal(); ok {
		return constant(words, at)
	}
	t := &Template{Type: stringType, At: at}
	failed := false
	for _, part := range text.Parts {
		if part.Expr == nil {
			t.Parts = append(t.Parts, TextPart{Literal: part.Literal})
			continue
		}
		program := r.compile(part.Expr, p, nil, expression.Plain)
		switch {
		case program == nil:
			failed = true
		case p.isText && program.Type.Nullable:
			r.misfit(part.Expr, program, "a value that has a text")
			failed = true
		default:
			t.Parts = append(t.Parts, TextPart{Expr: program})
		}
	}
	if failed {
		return reported(at)
	}
	return t
}

// words compiles a text for people.
func (r *resolver) words(text schema.Text, p place) *Template {
	return r.parts(text, p, text.Span)
}

func wantsName(t reflect.Type) bool {
	for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer) {
		t = t.Elem()
	}
	return t == goTarget || t == goEndpoint
}

// takesText tells whether text that is made while running can be bound to a type.
func takesText(t reflect.Type) bool {
	switch t {
	case goDuration, goSlots, reflect.TypeFor[schema.Size](), goSecret:
		return true
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Interface
}

func (r *resolver) list(v *schema.Value, p place, want reflect.Type) *Template {
	var elem reflect.Type
	switch {
	case want == nil || want.Kind() == reflect.Interface:
	case want == goSlots:
		elem = reflect.TypeFor[int]()
	case want.Kind() == reflect.Slice:
		elem = want.Elem()
	default:
		r.wrong(v.Span, "wrong-type", "", "wanted %s, got a list", wantedWords(want))
		return reported(v.Span)
	}
	t := &Template{List: make([]*Template, len(v.List)), At: v.Span}
	types := make([]*expression.Type, len(v.List))
	for i := range v.List {
		t.List[i] = r.value(&v.List[i], p, elem)
		types[i] = t.List[i].Type
	}
	t.Type = listOf(joinTypes(types))
	return t.seal()
}

func (r *resolver) mapping(v *schema.Value, p place, want reflect.Type) *Template {
	var elem reflect.Type
	switch {
	case want == nil || want.Kind() == reflect.Interface:
	case want.Kind() == reflect.Struct && want != goSecret:
		return r.record(v.Map, fieldsOf(want), recordOf{place: func(string) place { return p }, missing: v.Span, noun: "this", rule: "unknown-key", at: v.Span})
	case want.Kind() == reflect.Map:
		elem = want.Elem()
	default:
		r.wrong(v.Span, "wrong-type", "", "wanted %s, got a map", wantedWords(want))
		return reported(v.Span)
	}
	t := &Template{Map: make([]TemplateEntry, 0, len(v.Map)), At: v.Span}
	fields := make(map[string]*expression.Type, len(v.Map))
	for i := range v.Map {
		inner := r.value(&v.Map[i].Value, p, elem)
		t.Map = append(t.Map, TemplateEntry{v.Map[i].Key.Value, inner})
		fields[v.Map[i].Key.Value] = inner.Type
	}
	t.Type = object(fields)
	return t.seal()
}

// recordOf says how to speak of a map whose keys are declared.
type recordOf struct {
	place   func(key string) place
	missing schema.Span // where a missing key is reported
	noun    string      // "redis.info", "a redis target"
	rule    string      // of an unknown key
	at      schema.Span
	need    string // rule of a missing one; empty: missing-input
}

// record compiles a map whose keys a struct declares.
func (r *resolver) record(entries schema.Map[schema.Value], fields []field, of recordOf) *Template {
	t := &Template{Map: make([]TemplateEntry, 0, len(entries)), Type: anyMapType, At: of.at}
	types := make(map[string]*expression.Type, len(entries))
	var meant []string // by names that are not known: they are not missing as well
	for i := range entries {
		key, v := entries[i].Key, &entries[i].Value
		f := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if f < 0 {
			names := make([]string, len(fields))
			for i := range fields {
				names[i] = fields[i].name
			}
			near, _ := schema.Nearest(key.Value, names)
			meant = append(meant, near)
			r.wrong(key.Span, of.rule, near, "%s has no %s", of.noun, strings.TrimPrefix(of.rule, "unknown-")+" "+key.Value)
			r.value(v, of.place(key.Value), nil)
			continue
		}
		inner := r.value(v, of.place(key.Value), fields[f].typ)
		if inner.Constant && fields[f].strict {
			inner = r.strict(v, inner, fields[f])
		}
		t.Map = append(t.Map, TemplateEntry{key.Value, inner})
		types[key.Value] = inner.Type
	}
	for _, f := range fields {
		if _, given := entries.Get(f.name); f.required && !given && !slices.Contains(meant, f.name) {
			rule := of.need
			if rule == "" {
				rule = "missing-input"
			}
			r.wrong(of.missing, rule, f.name+": …", "%s needs %s%s", of.noun, f.name, about(f))
		}
	}
	t.Type = object(types)
	return t.seal()
}

// about is what the reference says of an input.
func about(f field) string {
	doc := f.tag.Get("doc")
	if doc == "" {
		return ""
	}
	first, _, _ := strings.Cut(doc, ". ")
	return " (" + strings.TrimSuffix(first, ".") + ")"
}

// strict checks a literal against its field's list of words or pattern, which binding does.
func (r *resolver) strict(v *schema.Value, t *Template, f field) *Template {
	into := reflect.New(reflect.StructOf([]reflect.StructField{{Name: f.decl.Name, Type: f.decl.Type, Tag: f.decl.Tag}}))
	if err := schema.Bind(map[string]any{f.name: t.Literal}, into.Interface()); err != nil {
		message, suggestion := mismatch(err)
		message = strings.TrimPrefix(message, f.name+": ")
		r.wrong(v.Span, "wrong-type", suggestion, "%s", message)
		return reported(v.Span)
	}
	return t
}

// conditionValue compiles an expression that a kind is given evaluated: bare, or with a message.
func (r *resolver) conditionValue(v *schema.Value, p place) *Template {
	t := &Template{Type: anyType, At: v.Span}
	switch v.Kind {
	case schema.ScalarValue:
		if v.Scalar == nil {
			break
		}
		e, findings := v.Scalar.ParseExpr()
		r.findings = append(r.findings, findings...)
		if t.Cond = r.condition(&e, p, expression.Plain); t.Cond == nil {
			return reported(v.Span)
		}
		return t
	case schema.MapValue:
		var check, message *schema.Value
		for i := range v.Map {
			switch key := v.Map[i].Key; key.Value {
			case "check":
				check = &v.Map[i].Value
			case "message":
				message = &v.Map[i].Value
			default:
				near, _ := schema.Nearest(key.Value, []string{"check", "message"})
				r.wrong(key.Span, "unknown-key", near, "a condition has no key %s: write an expression, or {check, message}", key.Value)
			}
		}
		if check == nil {
			r.wrong(v.Span, "missing-input", "check: …", "a condition needs check, the expression")
			return reported(v.Span)
		}
		t = r.conditionValue(check, p)
		if message != nil {
			words := r.value(message, p, reflect.TypeFor[string]())
			if t.Cond != nil {
				t.Cond.Message = words
			}
		}
		return t
	}
	r.wrong(v.Span, "wrong-type", "", "wanted an expression, or {check, message}")
	return reported(v.Span)
}

// condition compiles an expression that is true or false.
func (r *resolver) condition(e *schema.Expr, p place, mode expression.Mode) *Condition {
	program := r.compile(e, p, boolType, mode)
	if program == nil {
		return nil
	}
	return &Condition{Expr: program, At: e}
}

func (r *resolver) conditions(list schema.Exprs, p place) []*Condition {
	var all []*Condition
	for i := range list {
		if c := r.condition(&list[i], p, expression.Plain); c != nil {
			all = append(all, c)
		}
	}
	return all
}

// namedOutputs compiles named expressions.
func (r *resolver) namedOutputs(list schema.Map[schema.Expr], p place, fields map[string]*expression.Type) []Output {
	var all []Output
	for i := range list {
		name, e := list[i].Key.Value, &list[i].Value
		program := r.compile(e, p, nil, expression.Plain)
		fields[name] = anyType
		if program != nil {
			fields[name] = program.Type
			all = append(all, Output{Name: name, Expr: program, At: e})
		}
	}
	return all
}

// dynamic compiles a setting: fixed, or one expression of the type wanted.
func dynamic[T any](r *resolver, d schema.Dyn[T], p place, want *expression.Type) Setting[T] {
	if !d.Set {
		return Setting[T]{}
	}
	if d.Expr == nil {
		return Setting[T]{Value: d.Value, Set: true}
	}
	return Setting[T]{Expr: r.compile(d.Expr, p, want, expression.Plain), Set: true}
}

func fixed[T any](l schema.Leaf[T]) Setting[T] { return Setting[T]{Value: l.Value, Set: l.Set} }

// bound binds what is known of the inputs of a kind now; unknown are the others.
func bound(t *Template, in reflect.Type) (value any, unknown map[string]bool) {
	into := reflect.New(in).Interface()
	values := make(map[string]any, len(t.Map))
	for _, e := range t.Map {
		if e.Value.Constant {
			values[e.Key] = e.Value.Literal
			continue
		}
		if unknown == nil {
			unknown = map[string]bool{}
		}
		unknown[e.Key] = true
	}
	_ = schema.Bind(values, into) // what is missing is only known while running, or reported
	return into, unknown
}

// actsOn tells whether a kind acts on targets of another; "" is not known before running.
func actsOn(k *steps.Definition, kind string) bool {
	return kind == "" || slices.Contains(k.On, kind)
}
