package diff

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"runbook/runner"
	"runbook/schema"
)

// declared reports a change of something beside the steps.
func (c *comparison) declared(what, name string, v verdict, side, path string, at schema.Span) {
	ch := Change{Level: ruleOf[v.rule].Levels[0], Rule: v.rule, What: what, Name: name, Field: v.field, Before: v.before, After: v.after, Reason: v.why(), order: -1}
	ch.at(side, path, at)
	c.changes = append(c.changes, ch)
}

// run compares what is of the run as a whole.
func (c *comparison) run() {
	o, n := c.old.root, c.new.root
	c.onFailure("run", "", o.unit, n.unit)
	c.lock(o, n)
	c.guards(o, n)
	c.policy(o, n)
	c.outputs(o, n)
}

// onFailure compares what a failure does to a run, or to a runbook that is used in it.
func (c *comparison) onFailure(what, name string, o, n *runner.Unit) {
	a, b := cmp.Or(o.OnFailure, "stop"), cmp.Or(n.OnFailure, "stop")
	if a == b {
		return
	}
	v := verdict{rule: "failure-stricter", field: "on-failure", before: a, after: b}
	if b == "stop" {
		v.rule = "rollback-dropped"
	}
	at := n.Book.OnFailure.Span
	if at.Start.Line == 0 {
		at = n.Book.Name.Span
	}
	c.declared(what, name, v, "new", n.Book.Path, at)
}

// facts compares two lists of facts of something that is no step. from and to are the files
// that they stand in; empty: the runbooks.
func (c *comparison) facts(what, name string, o, n *scope, from, to string, olds, news []runner.Fact, judge func(d *difference) verdict) {
	or, nr := &site{scope: o}, &site{scope: n}
	a, b := byField(olds), byField(news)
	for _, field := range fields(olds, news) {
		of, nf := a[field], b[field]
		yes, causes := c.differs(or, nr, of, nf)
		if !yes {
			continue
		}
		d := &difference{c, or, nr, field, of, nf}
		v := judge(d)
		if v.rule == "" {
			continue
		}
		v.field = field
		if v.before == "" && v.after == "" {
			v.before, v.after = d.texts()
		}
		if len(causes) > 0 {
			for _, cause := range causes {
				c.effects[cause] = append(c.effects[cause], effect{verdict: v, where: field + " of " + strings.TrimSpace(what+" "+name), level: ruleOf[v.rule].Levels[0], text: nr.written(nf)})
			}
			continue
		}
		switch {
		case nf != nil && nf.At.Start.Line > 0:
			c.declared(what, name, v, "new", cmp.Or(to, n.unit.Book.Path), nf.At)
		case of != nil && of.At.Start.Line > 0:
			c.declared(what, name, v, "old", cmp.Or(from, o.unit.Book.Path), of.At)
		default:
			c.declared(what, name, v, "new", cmp.Or(to, n.unit.Book.Path), schema.Span{})
		}
	}
}

func (c *comparison) lock(o, n *scope) {
	olds, news := lockFacts(o), lockFacts(n)
	switch {
	case olds == nil && news == nil:
	case olds == nil:
		c.declared("lock", "", verdict{rule: "lock-added", after: (&site{scope: n}).written(&news[0])}, "new", n.unit.Book.Path, news[0].At)
	case news == nil:
		c.declared("lock", "", verdict{rule: "lock-removed", before: (&site{scope: o}).written(&olds[0])}, "old", o.unit.Book.Path, olds[0].At)
	default:
		c.facts("lock", "", o, n, "", "", olds, news, func(d *difference) verdict {
			if d.field == "hold" && d.of == nil {
				return verdict{rule: "lock-added", note: "also across pauses"}
			}
			return verdict{rule: "lock-changed"}
		})
	}
}

// lockFacts are what a runbook says of its lock; nil: it has none.
func lockFacts(sc *scope) []runner.Fact {
	l := sc.unit.Book.Lock
	if l == nil {
		return nil
	}
	list := []runner.Fact{{Field: "name", Value: sc.unit.Lock, At: l.Name.Span}}
	constant := func(field string, leaf schema.Leaf[string], targets bool) {
		if leaf.Set {
			list = append(list, runner.Fact{Field: field, Value: &runner.Template{Constant: true, Literal: leaf.Value}, Targets: targets, At: leaf.Span})
		}
	}
	constant("target", l.Target, true)
	constant("hold", l.Hold, false)
	return list
}

// guards compares the stop conditions of the run.
func (c *comparison) guards(o, n *scope) {
	named := func(list []*runner.Guard, id string) *runner.Guard {
		for _, g := range list {
			if g.ID == id {
				return g
			}
		}
		return nil
	}
	for _, g := range o.unit.Guards {
		if named(n.unit.Guards, g.ID) == nil {
			c.declared("guard", g.ID, verdict{rule: "guard-removed", before: g.Require.Expr.Source}, "old", o.unit.Book.Path, g.Decl.ID.Span)
		}
	}
	for _, g := range n.unit.Guards {
		was := named(o.unit.Guards, g.ID)
		if was == nil {
			c.declared("guard", g.ID, verdict{rule: "guard-added", after: g.Require.Expr.Source}, "new", n.unit.Book.Path, g.Decl.ID.Span)
			continue
		}
		c.facts("guard", g.ID, o, n, "", "", was.Meaning(), g.Meaning(), (*difference).guard)
	}
}

// outputs compares what a caller of the runbook sees.
func (c *comparison) outputs(o, n *scope) {
	c.facts("output", "", o, n, "", "", outputFacts(o), outputFacts(n), func(*difference) verdict { return verdict{rule: "output-changed"} })
}

func outputFacts(sc *scope) []runner.Fact {
	var list []runner.Fact
	for _, out := range sc.unit.Outputs {
		list = append(list, runner.Fact{Field: out.Name, Value: &runner.Template{Expr: out.Expr, Type: out.Expr.Type, At: out.At.Span}, At: out.At.Span})
	}
	return list
}

// declarations compares what is declared: inputs, vars, targets and secrets, with what a
// changed value does to those that read it.
func (c *comparison) declarations() {
	o, n := c.old.root, c.new.root
	for _, in := range o.unit.Inputs {
		if d := o.inputs[in.Name]; d.other == nil {
			c.declared("input", in.Name, verdict{rule: "input-removed"}, "old", d.path, d.at)
		}
	}
	for _, in := range n.unit.Inputs {
		d := n.inputs[in.Name]
		switch {
		case d.other == nil:
			v := verdict{rule: "input-added"}
			if in.Required {
				v.note = "there is no default"
			}
			c.declared("input", in.Name, v, "new", d.path, d.at)
		case d.other.name != d.name:
			c.declared("input", in.Name, verdict{rule: "renamed-input", before: d.other.name, after: d.name}, "new", d.path, d.at)
		}
	}
	c.inputFacts(o, n, "")
	scopes := []*scope{n}
	for _, s := range c.new.sites {
		if s.body != nil && s.body.other != nil {
			scopes = append(scopes, s.body)
		}
	}
	for _, sc := range scopes {
		c.targets(sc.other, sc)
		for _, d := range sc.ordered {
			c.value(d)
		}
	}
	for _, s := range c.new.sites {
		for _, d := range s.outs {
			c.value(d)
		}
	}
	c.secrets(o, n)
}

// value reports a definition that itself says something else, as dangerous as the worst
// that it does to those that read it.
func (c *comparison) value(d *definition) {
	if d.other == nil || !d.changed(c) {
		return
	}
	v := verdict{rule: "value-changed", field: map[string]string{"input": "default", "var": "value", "with": "with." + d.name, "output": "outputs." + d.name, "set": "with.values." + d.name}[d.what]}
	what, name := d.what, d.name
	switch d.what {
	case "with", "output":
		what, name = "step", d.inner.call.key
		if d.what == "with" && d.path == d.inner.unit.Book.Path { // the default of the runbook that is used
			what, name, v.field = "input", name+"/"+d.name, "default"
		}
	case "step output":
		what, name, v.field = "step", d.reader.key, "outputs."+d.name
	case "set":
		what, name = "step", d.reader.key
	}
	v.before, v.after = d.other.text(), d.text()
	level := ruleOf[v.rule].Levels[0]
	effects := proportionate(c.effects[d])
	slices.SortStableFunc(effects, func(a, b effect) int {
		if a.cuts != b.cuts && a.level == b.level && a.rule == b.rule {
			return map[bool]int{true: -1, false: 1}[a.cuts]
		}
		return cmp.Or(int(b.level-a.level), rank[a.rule]-rank[b.rule])
	})
	if len(effects) > 0 {
		worst := effects[0]
		level, v.rule = max(level, worst.level), worst.rule
		v.note = worst.where
		if worst.text != "" && worst.text != d.reference() {
			v.note += " (" + worst.text + ")"
		}
		if worst.note != "" {
			v.note += ", " + worst.note
		}
		if n := len(effects) - 1; n > 0 {
			v.note += fmt.Sprintf("; %d more read it", n)
		}
	} else if a, ok := d.other.constant(); ok {
		if b, ok := d.constant(); ok && reflect.DeepEqual(a, b) {
			v.note = "with the inputs that are known it is the same"
		}
	}
	if added := c.slotsOf(d); added != "" && !strings.Contains(v.note, added) {
		v.note = join(v.note, added)
	}
	ch := Change{Level: level, Rule: v.rule, What: what, Name: name, Field: v.field, Before: v.before, After: v.after, Reason: v.why(), order: d.order}
	ch.at("new", d.path, d.at)
	c.changes = append(c.changes, ch)
}

// proportionate takes it for less that checks look at fewer slots, items or targets where
// what acts has fewer as well.
func proportionate(effects []effect) []effect {
	fewer := func(e effect) bool { return strings.HasPrefix(e.rule, "fewer-") }
	if !slices.ContainsFunc(effects, func(e effect) bool { return e.acts && fewer(e) }) {
		return effects
	}
	for i := range effects {
		if fewer(effects[i]) {
			effects[i].level = min(effects[i].level, Caution)
		}
	}
	return effects
}

// reference is the definition as an expression reads it.
func (d *definition) reference() string {
	if d.what == "var" {
		return "vars." + d.name
	}
	return "inputs." + d.name
}

// text is a definition in the author's words, with its value where that is another text.
func (d *definition) text() string {
	v, known := d.constant()
	if d.fact == nil {
		if name, ok := d.book.values[d.name].(string); ok && d.ofTarget() {
			return name
		}
		if !known {
			return ""
		}
		return show(v)
	}
	words := d.reader.written(d.fact)
	if known && !d.fact.Value.Constant {
		return comesTo(words, show(v))
	}
	return words
}

// slotsOf says which slots an input of type slots has more or less.
func (c *comparison) slotsOf(d *definition) string {
	if d.input == nil || d.input.Kind != "slots" {
		return ""
	}
	a, okA := d.other.constant()
	b, okB := d.constant()
	was, isA := asSlots(a)
	is, isB := asSlots(b)
	if !okA || !okB || !isA || !isB {
		return ""
	}
	return slotWords(minus(is, was), minus(was, is))
}

// inputFacts compares the declarations of inputs, of the runbook or of one that is used.
func (c *comparison) inputFacts(o, n *scope, prefix string) {
	for _, in := range n.unit.Inputs {
		d := n.inputs[in.Name]
		if d == nil || d.other == nil || d.other.input == nil {
			continue
		}
		withoutDefault := func(in *runner.Input) []runner.Fact {
			return slices.DeleteFunc(in.Meaning(), func(f runner.Fact) bool { return f.Field == "default" })
		}
		was := d.other.input
		c.facts("input", prefix+in.Name, o, n, "", "", withoutDefault(was), withoutDefault(in), (*difference).declaration)
		if was.Required != in.Required && n.call == nil {
			rule := "input-optional"
			if in.Required {
				rule = "input-required"
			}
			v := verdict{rule: rule, field: "default"}
			if !in.Required && in.Default != nil {
				v.after = show(in.Default)
			}
			c.declared("input", prefix+in.Name, v, "new", d.path, d.at)
		}
	}
}

// declaration judges a field of an input's declaration.
func (d *difference) declaration() verdict {
	switch d.field {
	case "check":
		return d.condition("input-wider", "input-stricter", "input-wider", "input-stricter", "input-wider")
	case "min":
		return d.limit(less)
	case "max":
		return d.limit(more)
	case "enum":
		if d.of == nil || d.nf == nil {
			return d.there("input-stricter", "input-wider", "")
		}
		a, _ := itemsOf(d.of.Value.Literal)
		b, _ := itemsOf(d.nf.Value.Literal)
		added, gone := without(b, a), without(a, b)
		v := verdict{rule: "input-wider", note: changedNames(added, gone)}
		if len(added) == 0 {
			v.rule = "input-stricter"
			if len(gone) == 0 {
				return verdict{}
			}
		}
		return v
	case "pattern":
		return d.there("input-stricter", "input-wider", "input-wider")
	}
	return verdict{rule: "input-type"}
}

func (d *difference) limit(wider direction) verdict {
	switch {
	case d.of == nil:
		return verdict{rule: "input-stricter"}
	case d.nf == nil, d.direction(nil) == wider:
		return verdict{rule: "input-wider"}
	}
	return verdict{rule: "input-stricter"}
}

// targets compares the systems that two scopes declare.
func (c *comparison) targets(o, n *scope) {
	find := func(sc *scope, name string) *runner.Target {
		for _, t := range sc.unit.Targets {
			if t.Name == name {
				return t
			}
		}
		return nil
	}
	for _, t := range o.unit.Targets {
		if o.targets[t.Name].other == nil {
			c.declared("target", t.Name, verdict{rule: "target-removed"}, "old", o.targetPath(t), t.Decl.Span)
		}
	}
	for _, t := range n.unit.Targets {
		other := n.targets[t.Name].other
		if other == nil {
			c.declared("target", t.Name, verdict{rule: "target-added"}, "new", n.targetPath(t), t.Decl.Span)
			continue
		}
		if other.name != t.Name {
			c.declared("target", t.Name, verdict{rule: "renamed", before: other.name, after: t.Name}, "new", n.targetPath(t), t.Decl.Span)
		}
		was := find(o, other.name)
		c.facts("target", t.Name, o, n, o.targetPath(was), n.targetPath(t), was.Meaning(), t.Meaning(), (*difference).target)
	}
}

// targetPath is the file that declares a target: the runbook, or the inventory over it.
func (sc *scope) targetPath(t *runner.Target) string {
	if sc.call == nil {
		for _, e := range sc.unit.Book.Targets {
			if e.Key.Value == t.Name && e.Value.Span == t.Decl.Span {
				return sc.unit.Book.Path
			}
		}
		for _, s := range sc.program.Sources {
			if s.Role == "inventory" {
				return s.Path
			}
		}
	}
	return sc.unit.Book.Path
}

// credentials are the keys of a target by which one logs in.
var credentials = []string{"username", "user", "auth", "product_auth", "identity", "known_hosts", "tls", "password"}

// target judges a field of a target's declaration.
func (d *difference) target() verdict {
	secret := d.of != nil && d.of.Hidden || d.nf != nil && d.nf.Hidden
	switch {
	case d.field == "kind":
		return verdict{rule: "target-kind"}
	case secret || slices.Contains(credentials, d.field):
		return verdict{rule: "target-credentials"}
	case d.field == "release":
		return verdict{rule: "target-config"}
	case strings.HasPrefix(d.field, "facts."):
		return verdict{rule: "target-facts"}
	case d.field == "group" || strings.HasPrefix(d.field, "labels."):
		return verdict{rule: "target-groups"}
	}
	return verdict{rule: "target-address"}
}

// secrets compares where secrets are read from.
func (c *comparison) secrets(o, n *scope) {
	find := func(sc *scope, name string) *runner.Secret {
		for _, s := range sc.unit.Secrets {
			if s.Name == name {
				return s
			}
		}
		return nil
	}
	place := func(s *runner.Secret) schema.Span { return s.Decl.Span }
	for _, s := range o.unit.Secrets {
		if o.secrets[s.Name].other == nil {
			c.declared("secret", s.Name, verdict{rule: "secret-removed"}, "old", o.unit.Book.Path, place(s))
		}
	}
	for _, s := range n.unit.Secrets {
		other := n.secrets[s.Name].other
		if other == nil {
			c.declared("secret", s.Name, verdict{rule: "secret-added"}, "new", n.unit.Book.Path, place(s))
			continue
		}
		if other.name != s.Name {
			c.declared("secret", s.Name, verdict{rule: "renamed", before: other.name, after: s.Name}, "new", n.unit.Book.Path, place(s))
		}
		if before, after := secretWords(find(o, other.name)), secretWords(s); before != after {
			c.declared("secret", s.Name, verdict{rule: "secret-source", before: before, after: after}, "new", n.unit.Book.Path, place(s))
		}
	}
}

// secretWords say where a secret is read from.
func secretWords(s *runner.Secret) string {
	var words []string
	for _, f := range s.Meaning() {
		words = append(words, f.Field+" "+show(f.Value.Literal))
	}
	return strings.Join(words, ", ")
}
