package runner

import (
	"errors"
	"fmt"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
)

// Eval gives the value of a template over the values of its scope, in the form that
// expression.Value gives. A constant costs nothing and is shared: it must not be changed.
func (t *Template) Eval(env map[string]any) (any, error) {
	switch {
	case t.Constant:
		return t.Literal, nil
	case t.Expr != nil:
		v, err := t.Expr.Eval(env)
		if err != nil {
			return nil, t.failed(t.Expr, err)
		}
		if t.Name {
			return nameOf(v), nil
		}
		return v, nil
	case t.Parts != nil:
		return t.text(env)
	case t.Cond != nil:
		return t.Cond.judge(env), nil
	case t.Map != nil:
		m := make(map[string]any, len(t.Map))
		for _, e := range t.Map {
			v, err := e.Value.Eval(env)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.Key, err)
			}
			m[e.Key] = v
		}
		return m, nil
	case t.List != nil:
		list := make([]any, len(t.List))
		for i, e := range t.List {
			v, err := e.Eval(env)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			list[i] = v
		}
		return list, nil
	}
	return nil, nil
}

func (t *Template) text(env map[string]any) (any, error) {
	var b strings.Builder
	for _, p := range t.Parts {
		if p.Expr == nil {
			b.WriteString(p.Literal)
			continue
		}
		v, err := p.Expr.Eval(env)
		if err != nil {
			return nil, t.failed(p.Expr, err)
		}
		words, err := expression.Text(v)
		if err != nil {
			return nil, t.failed(p.Expr, err)
		}
		b.WriteString(words)
	}
	return b.String(), nil
}

func (t *Template) failed(p *expression.Program, err error) error {
	return fmt.Errorf("line %d: ${{ %s }}: %w", t.At.Start.Line, p.Source, err)
}

// nameOf replaces targets by their names, also within lists.
func nameOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["name"].(string); ok {
			return name
		}
	case []any:
		names := make([]any, len(v))
		for i := range v {
			names[i] = nameOf(v[i])
		}
		return names
	}
	return v
}

// judge evaluates a condition for a kind: with what it says, whether it holds, and the
// values of its parts. An expression that cannot be evaluated is unknown, not an error:
// the kind reports it beside the others.
func (c *Condition) judge(env map[string]any) schema.Condition {
	judged := schema.Condition{Text: c.Expr.Source}
	if c.Message != nil {
		v, err := c.Message.Eval(env)
		if err == nil {
			judged.Message, err = expression.Text(v)
		}
		if err != nil {
			judged.Message = "(" + err.Error() + ")"
		}
	}
	v, err := c.Expr.Eval(env)
	if err != nil {
		judged.Unknown = err.Error()
	} else {
		judged.Holds, _ = v.(bool)
	}
	for _, p := range c.Expr.Parts(env) {
		part := schema.ConditionPart{Text: p.Text, Value: p.Value}
		if null, ok := p.Value.(*expression.NullError); ok {
			part.Value = null.Error()
		} else if err, ok := p.Value.(error); ok {
			part.Value = err.Error()
		}
		judged.Parts = append(judged.Parts, part)
	}
	return judged
}

// Refs are all names that the template reads, in the order of the file.
func (t *Template) Refs() []expression.Ref {
	if t == nil || t.Constant {
		return nil
	}
	var refs []expression.Ref
	t.each(func(p *expression.Program) { refs = append(refs, p.Refs...) })
	return refs
}

// each calls f for every program in the template, in the order of the file.
func (t *Template) each(f func(p *expression.Program)) {
	if t == nil || t.Constant {
		return
	}
	if t.Expr != nil {
		f(t.Expr)
	}
	for i := range t.Parts {
		if t.Parts[i].Expr != nil {
			f(t.Parts[i].Expr)
		}
	}
	if t.Cond != nil {
		f(t.Cond.Expr)
		t.Cond.Message.each(f)
	}
	for _, e := range t.List {
		e.each(f)
	}
	for i := range t.Map {
		t.Map[i].Value.each(f)
	}
}

// constant makes a template of a value that is known now.
func constant(v any, at schema.Span) *Template {
	return &Template{Constant: true, Literal: v, Type: typeOfValue(v), At: at}
}

// seal makes a list or map constant where everything in it is.
func (t *Template) seal() *Template {
	switch {
	case t.Map != nil:
		m := make(map[string]any, len(t.Map))
		for _, e := range t.Map {
			if !e.Value.Constant {
				return t
			}
			m[e.Key] = e.Value.Literal
		}
		t.Constant, t.Literal = true, m
	case t.List != nil:
		list := make([]any, len(t.List))
		for i, e := range t.List {
			if !e.Constant {
				return t
			}
			list[i] = e.Literal
		}
		t.Constant, t.Literal = true, list
	}
	return t
}

// entry finds a key of a map; nil where it is not there.
func (t *Template) entry(key string) *Template {
	if t == nil {
		return nil
	}
	for i := range t.Map {
		if t.Map[i].Key == key {
			return t.Map[i].Value
		}
	}
	return nil
}

// mismatch gives the message and suggestion of an error about a literal.
func mismatch(err error) (message, suggestion string) {
	if m, ok := errors.AsType[*schema.MismatchError](err); ok {
		within := ""
		if m.Input != "" {
			within = m.Input + ": "
		}
		return within + "wanted " + m.Wanted + ", got " + m.Given, m.Suggestion
	}
	return err.Error(), ""
}
