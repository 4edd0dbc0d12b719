package runner

import (
	"runbook/schema"
)

// Meaning is what the declaration of an input says.
func (in *Input) Meaning() []Fact {
	m, d := &meaning{}, in.Decl
	m.constant("type", in.Kind, d.Type.Span)
	if d.Kind.Set {
		m.constant("kind", d.Kind.Value, d.Kind.Span)
	}
	switch {
	case in.Required:
	case in.Kind == "target":
		m.add(Fact{Field: "default", Value: constant(in.Default, d.Default.Span), Targets: true, At: d.Default.Span})
	default:
		m.constant("default", in.Default, d.Default.Span)
	}
	if in.Check != nil {
		m.one("check", &Condition{Expr: in.Check, At: d.Check}, Own)
	}
	literal := func(v *schema.Value) any {
		value, err := in.Normalise(v.Plain())
		if err != nil {
			return v.Plain() // lint says so
		}
		return value
	}
	if len(d.Enum) > 0 {
		allowed := make([]any, len(d.Enum))
		for i := range d.Enum {
			allowed[i] = literal(&d.Enum[i])
		}
		m.constant("enum", allowed, d.Enum[0].Span)
	}
	if d.Pattern.Set {
		m.constant("pattern", d.Pattern.Value, d.Pattern.Span)
	}
	if d.Min != nil {
		m.constant("min", literal(d.Min), d.Min.Span)
	}
	if d.Max != nil {
		m.constant("max", literal(d.Max), d.Max.Span)
	}
	return m.facts
}

// Meaning is what the declaration of a target says.
func (t *Target) Meaning() []Fact {
	m := &meaning{}
	if t.Kind == nil {
		return nil
	}
	m.constant("kind", t.Kind.Name, t.Decl.Kind.Span)
	into, _ := bound(t.Config, t.Kind.Config)
	m.with("", t.Config, t.Kind.Config, into)
	for _, e := range t.Facts.entries() {
		m.add(Fact{Field: "facts." + e.Key, Value: e.Value, At: e.Value.At})
	}
	if g := t.Decl.Group; g.Set {
		m.constant("group", g.Value, g.Span)
	}
	for _, l := range t.Decl.Labels {
		m.constant("labels."+l.Key.Value, l.Value.Value, l.Value.Span)
	}
	return m.facts
}

// Meaning says where a secret is read from.
func (s *Secret) Meaning() []Fact {
	m, d := &meaning{}, s.Decl
	if d.Env.Set {
		m.constant("env", d.Env.Value, d.Env.Span)
	}
	if d.File.Set {
		m.constant("file", d.File.Value, d.File.Span)
	}
	if len(d.Command) > 0 {
		argv := make([]any, len(d.Command))
		for i, word := range d.Command {
			argv[i] = word.Value
		}
		m.constant("command", argv, d.Command[0].Span)
	}
	return m.facts
}

// PolicyMeaning is what a runbook asks of its plan: deny and warn for each expression, which
// tell when the plan is refused or warned of, enforce and waive with the names of built-in
// policies.
func (u *Unit) PolicyMeaning() []Fact {
	if u.policies == nil {
		return nil
	}
	m := &meaning{}
	for i := range u.policies.own {
		rule := &u.policies.own[i]
		field := "warn"
		if rule.deny {
			field = "deny"
		}
		m.one(field, &Condition{Expr: rule.holds, At: rule.at}, Own)
	}
	for _, name := range sortedNames(u.policies.enforced) {
		m.constant("enforce", name, u.policies.enforced[name].Enforce.Span)
	}
	for _, name := range sortedNames(u.policies.waived) {
		m.constant("waive", name, u.policies.waived[name].Waive.Span)
	}
	return m.facts
}
