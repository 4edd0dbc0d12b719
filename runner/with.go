package runner

import (
	"reflect"
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// inputsAndOutputs binds what the step gives to its kind or runbook, and returns its
// outputs as plain names.
func (r *resolver) inputsAndOutputs(n *Node, p place) map[string]*expression.Type {
	s := n.Step
	p.isText = true
	switch {
	case n.Kind != nil:
		before := len(r.findings)
		n.With = r.record(s.With, r.fields(n.Kind.In), recordOf{
			place: func(input string) place { return p.input(n.Kind, input) }, missing: s.Uses.Span, at: s.Span, noun: n.Kind.Name, rule: "unknown-input",
		})
		r.httpDefaults(n, p)
		if schema.Failed(r.findings[before:]) {
			n.withBroken = true
		} else {
			r.bindConstant(n)
		}
		if n.Kind.Engine == steps.EngineSet {
			return r.setOutputs(n)
		}
		return r.outFields(n.Kind.Out)
	case n.Sub != nil:
		return r.callInputs(n, p)
	}
	for i := range s.With { // of a kind that is not known: what is in it is checked all the same
		p.secrets = true
		r.value(&s.With[i].Value, p, nil)
	}
	return nil
}

// input is the place of one input of a kind.
func (p place) input(k *steps.Definition, name string) place {
	p.secrets = true
	switch {
	case k.Engine == steps.EngineSet:
		p.secrets, p.noSecret = false, "what a set holds is an output, which is journaled"
	case k.Name == "exec" && name != "env" && name != "secret_files":
		p.secrets, p.noSecret = false, "in an exec they go under env or secret_files, never into "+name+", which others on that machine can see"
	case (k.Name == "http" || k.Name == "notify") && (name == "url" || name == "command" || name == "method"):
		p.secrets, p.noSecret = false, "a "+name+" is journaled and shown; send them in headers or body"
	}
	return p
}

// bindConstant binds what is known of the inputs now, and asks the kind what it thinks of them.
func (r *resolver) bindConstant(n *Node) {
	if n.With.Constant {
		in := reflect.New(n.Kind.In).Interface()
		values, _ := n.With.Literal.(map[string]any)
		if err := schema.Bind(values, in); err != nil {
			message, suggestion := mismatch(err)
			r.wrong(n.Step.Uses.Span, "wrong-type", suggestion, "%s", message)
			n.withBroken = true
			return
		}
		n.BoundIn = in
	}
	in, unknown := n.BoundIn, map[string]bool(nil)
	if in == nil {
		in, unknown = bound(n.With, n.Kind.In)
	}
	n.partIn = in
	problems := n.Kind.Valid(in, func(input string) bool { return unknown[input] })
	r.problems(problems, n.Step.With, unknown, n.Step.Uses.Span)
}

// setOutputs are the values of a set, as its outputs.
func (r *resolver) setOutputs(n *Node) map[string]*expression.Type {
	values := n.With.entry("values")
	if values == nil || values.Type == nil || values.Type.Kind != expression.Object {
		return nil
	}
	return values.Type.Fields
}

// callInputs binds the inputs of a runbook used as a step; its outputs are the step's.
func (r *resolver) callInputs(n *Node, p place) map[string]*expression.Type {
	s := n.Step
	t := &Template{Map: make([]TemplateEntry, 0, len(s.With)), Type: anyMapType, At: s.Span}
	var meant []string // by names that are not known: they are not missing as well
	for i := range s.With {
		key, v := s.With[i].Key, &s.With[i].Value
		in := n.Sub.input(key.Value)
		if in == nil {
			near, _ := schema.Nearest(key.Value, n.Sub.inputNames())
			meant = append(meant, near)
			r.wrong(key.Span, "unknown-input", near, "%s has no input %s", s.Uses.Value, key.Value)
			r.value(v, p, nil)
			continue
		}
		t.Map = append(t.Map, TemplateEntry{key.Value, r.callInput(in, v, p)})
	}
	for _, in := range n.Sub.Inputs {
		if _, given := s.With.Get(in.Name); in.Required && !given && !slices.Contains(meant, in.Name) {
			r.wrong(s.Uses.Span, "missing-input", in.Name+": …", "%s needs %s%s", s.Uses.Value, in.Name, in.about())
		}
	}
	n.With = t.seal()
	if n.Sub.OutType == nil {
		return nil
	}
	return n.Sub.OutType.Fields
}

func (r *resolver) callInput(in *Input, v *schema.Value, p place) *Template {
	if in.Kind == "secret" {
		p.secrets = true
		if v.Kind != schema.ScalarValue || v.Scalar == nil || !strings.Contains(v.Scalar.Text, "${{") {
			r.wrong(v.Span, "secret-input", "${{ secrets."+in.Name+" }}", "input %s is a secret: it is given from secrets alone", in.Name)
			return reported(v.Span)
		}
	}
	p.noSecret = "an input of a runbook takes a secret only where its type is secret"
	before := len(r.findings)
	t := r.value(v, p, goTypeOfInput(in.Kind))
	if schema.Failed(r.findings[before:]) {
		return t
	}
	if in.Kind == "target" && in.Decl.Kind.Set {
		kind := ""
		if name, ok := t.Literal.(string); ok && t.Constant {
			if target := r.target(name); target != nil && target.Kind != nil {
				kind = target.Kind.Name
			}
		} else if t.Expr != nil {
			kind, _ = isTarget(t.Expr.Type)
		}
		if kind != "" && kind != in.Decl.Kind.Value {
			r.wrong(v.Span, "target-kind", "", "input %s takes a target of kind %s, not %s", in.Name, in.Decl.Kind.Value, kind)
		}
		return t
	}
	if t.Constant && in.Kind != "target" {
		value, err := in.Normalise(t.Literal)
		if err == nil {
			err = in.Accept(value)
		}
		if err != nil {
			message, suggestion := mismatch(err)
			r.wrong(v.Span, "input", suggestion, "input %s: %s", in.Name, message)
			return reported(v.Span)
		}
		t.Literal = value
	}
	return t
}

// httpDefaults adds the headers that every http step of the file sends.
func (r *resolver) httpDefaults(n *Node, p place) {
	d := r.book.Defaults
	if d == nil || d.HTTP == nil || len(d.HTTP.Headers) == 0 || n.Kind.Name != "http" {
		return
	}
	f := slices.IndexFunc(r.fields(n.Kind.In), func(f field) bool { return f.name == "headers" && f.typ.Kind() == reflect.Map })
	if f < 0 {
		return
	}
	headers := n.With.entry("headers")
	if headers == nil {
		headers = &Template{Map: []TemplateEntry{}, Type: anyMapType, At: n.Step.Span}
		n.With.Map = append(n.With.Map, TemplateEntry{"headers", headers})
	} else if headers.Map == nil {
		return // made by one expression: it says all of them
	}
	headers.Constant, n.With.Constant = false, false
	p = p.input(n.Kind, "headers")
	for i := range d.HTTP.Headers {
		name, text := d.HTTP.Headers[i].Key.Value, d.HTTP.Headers[i].Value
		if !slices.ContainsFunc(headers.Map, func(e TemplateEntry) bool { return strings.EqualFold(e.Key, name) }) {
			headers.Map = append(headers.Map, TemplateEntry{name, r.words(text, p)})
		}
	}
	headers.seal()
	n.With.seal()
}
