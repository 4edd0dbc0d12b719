package runner

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// Fact is one thing that a step, or another part of a runbook, says: a field and its value.
// What the author leaves to a default is there with the default's value, and what is for
// people alone (names, reasons, comments, layout) is not there: two parts with equal facts
// do the same.
type Fact struct {
	// Field is the key, in the words of the language: when, with.slots, confirm.approvals.
	Field string
	// Value, where the field holds one.
	Value *Template
	// All are conditions of which every one must hold, where the field holds conditions.
	All []*Condition
	// Targets: texts in Value are names of targets.
	Targets bool
	// Hidden: the value is a secret that stands in the file, and must not be shown.
	Hidden bool
	// Scope says which names the expressions see.
	Scope FactScope
	// At is where it is written; zero where it is a default.
	At schema.Span
}

// FactScope says which names the expressions of a fact see beside those of the file.
type FactScope int

// The scopes of a fact.
const (
	Around FactScope = iota // what stands around the step
	Each                    // and the item of the step's own loop
	Own                     // and the step's own outputs, as plain names
)

// Names gives what a reference means in another text: the caller's expression for an input
// of a runbook used as a step, the new name of a step. ok is false for one that stays.
type Names func(path []string) (t expression.Term, ok bool)

// Term is what the fact says, in canonical form.
func (f *Fact) Term(names Names) expression.Term {
	if f.Value == nil {
		all := make([]expression.Term, len(f.All))
		for i, c := range f.All {
			all[i] = c.Expr.Term(names)
		}
		return expression.And(all...)
	}
	if f.Targets && f.Value.Constant {
		return targetNames(f.Value.Literal, names)
	}
	return f.Value.Term(names)
}

// targetNames makes references of names, so that it does not matter how a target is named.
func targetNames(v any, names Names) expression.Term {
	switch v := v.(type) {
	case string:
		path := []string{"targets", v}
		if names != nil {
			if t, ok := names(path); ok {
				return t
			}
		}
		return expression.Reference(path)
	case []any:
		list := make([]expression.Term, len(v))
		for i := range v {
			list[i] = targetNames(v[i], names)
		}
		slices.SortFunc(list, func(a, b expression.Term) int { return strings.Compare(a.Key(), b.Key()) }) // a fan-out is a set
		return expression.ListOf(list...)
	}
	return expression.Constant(v)
}

// Term is the value of a template in canonical form.
func (t *Template) Term(names Names) expression.Term {
	switch {
	case t == nil:
		return expression.Constant(nil)
	case t.Constant:
		return expression.Constant(t.Literal)
	case t.Expr != nil:
		return t.Expr.Term(names)
	case t.Parts != nil:
		parts := make([]expression.Term, len(t.Parts))
		for i, p := range t.Parts {
			if p.Expr == nil {
				parts[i] = expression.Constant(p.Literal)
			} else {
				parts[i] = p.Expr.Term(names)
			}
		}
		return expression.Concat(parts...)
	case t.Cond != nil:
		return t.Cond.Expr.Term(names)
	case t.Map != nil:
		m := make(map[string]expression.Term, len(t.Map))
		for _, e := range t.Map {
			m[e.Key] = e.Value.Term(names)
		}
		return expression.MapOf(m)
	case t.List != nil:
		list := make([]expression.Term, len(t.List))
		for i, e := range t.List {
			list[i] = e.Term(names)
		}
		return expression.ListOf(list...)
	}
	return expression.Constant(nil)
}

// Meaning is what a step says of itself, in the order in which a reader wants them. What
// stands in it (steps, rescue, undo, after-batch) has a meaning of its own.
func (n *Node) Meaning() []Fact {
	m := &meaning{n: n, facts: make([]Fact, 0, 16)}
	m.act()
	m.loop()
	m.conditions()
	m.gate()
	m.attempts()
	m.wayBack()
	m.limits()
	return m.facts
}

// meaning collects the facts of a step.
type meaning struct {
	n     *Node
	facts []Fact
}

func (m *meaning) add(f Fact) { m.facts = append(m.facts, f) }

// constant adds a value that is known now.
func (m *meaning) constant(field string, v any, at schema.Span) {
	m.add(Fact{Field: field, Value: constant(v, at), At: at})
}

// flag adds what is true; false is the same as not written.
func (m *meaning) flag(field string, on bool, at schema.Span) {
	if on {
		m.constant(field, true, at)
	}
}

func (m *meaning) one(field string, c *Condition, scope FactScope) {
	if c != nil {
		m.all(field, []*Condition{c}, scope)
	}
}

func (m *meaning) all(field string, list []*Condition, scope FactScope) {
	if len(list) > 0 {
		m.add(Fact{Field: field, All: list, Scope: scope, At: list[0].at()})
	}
}

func (c *Condition) at() schema.Span {
	if c.At == nil {
		return schema.Span{}
	}
	return c.At.Span
}

// settingFact adds a setting, or what holds where it is not written.
func settingFact[T any](m *meaning, field string, s Setting[T], unset any, at schema.Span) {
	f := Fact{Field: field, Scope: Each, At: at}
	switch {
	case s.Expr != nil:
		f.Value = &Template{Expr: s.Expr, Type: s.Expr.Type, At: at}
	case s.Set:
		f.Value = constant(expression.Value(s.Value), at)
	default:
		f.Value = constant(unset, schema.Span{})
	}
	m.add(f)
}

// act is what is done, on what, with which inputs.
func (m *meaning) act() {
	n, s := m.n, m.n.Step
	if n.Shape == Leaf {
		m.constant("uses", n.Kind.Name, s.Uses.Span)
		m.constant("effect", n.Effect.String(), s.Effect.Span)
		if n.Kind.AuthorKnows {
			m.flag("idempotent", n.Idempotent && n.Effect != steps.Read, s.Idempotent.Span)
		}
	}
	if n.FanOut {
		names := make([]any, len(n.Targets))
		for i, t := range n.Targets {
			names[i] = t.Name
		}
		m.add(Fact{Field: "targets", Value: constant(names, s.Targets.Span), Targets: true, At: s.Targets.Span})
	} else if n.Shape == Leaf && n.Target != nil {
		m.target("target", n.Target, s.Target)
	}
	if n.Kind != nil {
		m.with("with.", n.With, n.Kind.In, n.partIn)
	}
	m.flag("background", n.Background, s.Background.Span)
	m.one("ready", n.Ready, Own)
}

// target is what the step acts on, inherited or its own.
func (m *meaning) target(field string, b *Binding, written *schema.Value) {
	f := Fact{Field: field, Scope: Each}
	if written != nil {
		f.At = written.Span
	}
	switch {
	case b.Target != nil:
		f.Value, f.Targets = constant(b.Target.Name, f.At), true
	case b.Expr != nil:
		f.Value = &Template{Expr: b.Expr, Type: b.Expr.Type, At: f.At}
	case b.Each != nil:
		f.Value = constant("each of targets", f.At)
	case b.Kind != nil:
		m.constant(field, "of kind "+b.Kind.Name, f.At)
		into, _ := bound(b.Config, b.Kind.Config)
		m.with(field+".", b.Config, b.Kind.Config, into)
		return
	}
	m.add(f)
}

// entries are the keys of a map with their values, also where all of it is constant.
func (t *Template) entries() []TemplateEntry {
	if t == nil {
		return nil
	}
	if t.Map != nil || !t.Constant {
		return t.Map
	}
	values, _ := t.Literal.(map[string]any)
	list := make([]TemplateEntry, 0, len(values))
	for _, name := range sortedNames(values) {
		list = append(list, TemplateEntry{name, constant(values[name], t.At)})
	}
	return list
}

// with adds the inputs of a kind of steps or targets, each as its type reads it: 5000ms is 5s. bound holds what
// is known of them, and the defaults of the rest.
func (m *meaning) with(prefix string, with *Template, in reflect.Type, bound any) {
	var known reflect.Value
	if bound != nil {
		known = reflect.ValueOf(bound).Elem()
	}
	for _, f := range fieldsOf(in) {
		fact := Fact{Field: prefix + f.name, Scope: Each}
		given := with.entry(f.name)
		if given != nil {
			fact.At = given.At
		}
		elem := f.typ
		for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
			elem = elem.Elem()
		}
		fact.Targets = elem == goTarget || elem == goEndpoint
		fact.Hidden = elem == goSecret
		switch {
		case given != nil && elem == goCondition:
			fact.All = conditionsIn(given)
		case given != nil && !given.Constant:
			fact.Value = given
		case given != nil && (fact.Hidden || !known.IsValid()):
			fact.Value = given
		case !known.IsValid() || known.FieldByIndex(f.decl.Index).IsZero() || fact.Hidden:
			continue // nothing, whether that is written or not
		default:
			fact.Value = constant(expression.Value(known.FieldByIndex(f.decl.Index).Interface()), fact.At)
		}
		m.add(fact)
	}
}

// conditionsIn are the conditions that a kind is given.
func conditionsIn(t *Template) []*Condition {
	if t.Cond != nil {
		return []*Condition{t.Cond}
	}
	var all []*Condition
	for _, e := range t.List {
		if e.Cond != nil {
			all = append(all, e.Cond)
		}
	}
	return all
}

// loop is how often it is done.
func (m *meaning) loop() {
	n, s, l := m.n, m.n.Step, m.n.Loop
	m.flag("parallel", n.Parallel, s.Parallel.Span)
	if r := n.Repeat; r != nil {
		m.one("repeat.until", r.Until, Own)
		settingFact(m, "repeat.max", r.Max, nil, s.Repeat.Max.Span)
		settingFact(m, "repeat.every", r.Every, time.Duration(0), s.Repeat.Every.Span)
	}
	if l == nil {
		return
	}
	if l.Over != nil {
		m.add(Fact{Field: "for-each", Value: l.Over, At: l.Over.At})
		if l.Key != nil {
			m.add(Fact{Field: "key", Value: l.Key, Scope: Each, At: l.Key.At})
		}
		if l.OnChange != "" {
			m.constant("on-change", l.OnChange, s.OnChange.Span)
		}
	}
	settingFact(m, "max-parallel", l.MaxParallel, 1, s.MaxParallel.Span)
	if l.Batch != nil {
		m.add(Fact{Field: "batch", Value: l.Batch, At: l.Batch.At})
	}
	settingFact(m, "pause-between", l.PauseBetween, time.Duration(0), s.PauseBetween.Span)
	settingFact(m, "max-failures", l.MaxFailures, 0, s.MaxFailures.Span)
}

// conditions are what must hold before it, and after.
func (m *meaning) conditions() {
	n, s := m.n, m.n.Step
	m.one("when", n.When, Each)
	m.all("require", n.Require, Around)
	if w := n.Wait; w != nil {
		m.one("wait-until", w.Until, Own)
		every := w.Every
		if !every.Set {
			every = Setting[time.Duration]{Value: w.Every.Value, Set: true} // of defaults, or the language's
		}
		settingFact(m, "every", every, nil, s.Every.Span)
		settingFact(m, "stable", w.Stable, time.Duration(0), s.Stable.Span)
		settingFact(m, "stall", w.Stall, nil, s.Stall.Span)
		m.flag("wait-all", w.All, s.WaitAll.Span)
	}
	m.all("expect", n.Expect, Own)
}

// gate is who is asked before it acts.
func (m *meaning) gate() {
	n, c, g := m.n, m.n.Step.Confirm, m.n.Confirm
	if g == nil {
		if c != nil && c.Waived {
			m.constant("confirm", "waived", c.Span)
		}
		return
	}
	if g.Builtin {
		m.constant("confirm", "asked by the kind", schema.Span{})
		return
	}
	var at schema.Span
	if c != nil {
		at = c.Span
	}
	m.constant("confirm", "asked", at)
	add := func(field string, t *Template) {
		if t != nil {
			m.add(Fact{Field: field, Value: t, At: t.At})
		}
	}
	add("confirm.message", g.Message)
	if len(g.Show) > 0 {
		show := &Template{Type: anyType, At: at}
		for _, o := range g.Show {
			show.List = append(show.List, &Template{Expr: o.Expr, Type: o.Expr.Type, At: at})
		}
		m.add(Fact{Field: "confirm.show", Value: show, At: at})
	}
	m.constant("confirm.approvals", g.Approvals, at)
	add("confirm.retype", g.Retype)
	if g.Timeout > 0 {
		m.constant("confirm.timeout", g.Timeout, at)
	}
	if n.Loop != nil || n.FanOut {
		m.constant("confirm.each", g.Each, at)
	}
	if g.Detached {
		m.constant("confirm.wait", "detached", at)
	}
}

// attempts is how often it is tried, and how long.
func (m *meaning) attempts() {
	n, s := m.n, m.n.Step
	attempts, first, most := 1, time.Second, 30*time.Second
	if n.Kind != nil {
		attempts = attemptsOf(n.Kind, n.Effect, n.Idempotent)
	}
	if r := n.Retry; r.Written {
		attempts = 3
		var at schema.Retry
		if s.Retry != nil {
			at = *s.Retry
		}
		settingFact(m, "retry.attempts", r.Attempts, attempts, at.Attempts.Span)
		if r.Attempts.Expr != nil || !r.Attempts.Set || r.Attempts.Value > 1 {
			settingFact(m, "retry.delay", r.Delay, first, at.Delay.Span)
			if r.Delay.Expr == nil && r.Delay.Set {
				most = max(most, r.Delay.Value)
			}
			settingFact(m, "retry.max-delay", r.MaxDelay, most, at.MaxDelay.Span)
			m.constant("retry.factor", r.Factor, at.Factor.Span)
			m.constant("retry.jitter", r.Jitter, at.Jitter.Span)
			m.one("retry.if", r.If, Own)
		}
	} else if n.Shape == Leaf {
		m.constant("retry.attempts", attempts, schema.Span{})
		if attempts > 1 {
			m.constant("retry.delay", first, schema.Span{})
			m.constant("retry.max-delay", most, schema.Span{})
			m.constant("retry.factor", 2.0, schema.Span{})
			m.constant("retry.jitter", 0.2, schema.Span{})
		}
	}
	if n.Timeout.Set || n.Timeout.Value > 0 {
		timeout := n.Timeout
		timeout.Set = true
		settingFact(m, "timeout", timeout, nil, s.Timeout.Span)
	}
	if n.AttemptTimeout.Set {
		settingFact(m, "attempt-timeout", n.AttemptTimeout, nil, s.AttemptTimeout.Span)
	}
}

// wayBack is what becomes of it when something fails.
func (m *meaning) wayBack() {
	n, s := m.n, m.n.Step
	if n.OnFailure != "" {
		m.constant("on-failure", n.OnFailure, s.OnFailure.Span)
	}
	if n.UndoMode != "auto" && (n.Effect != steps.Read || n.Shape != Leaf) {
		m.constant("undo", n.UndoMode, s.Undo.Span)
	}
	m.flag("restore", n.Restore, s.Restore.Span)
	m.flag("point-of-no-return", n.PointOfNoReturn, s.PointOfNoReturn.Span)
	m.flag("recheck", n.Recheck, s.Recheck.Span)
	if p := n.Probe; p != nil {
		m.constant("probe.uses", p.Kind.Name, s.Probe.Uses.Span)
		if p.Target != nil {
			m.target("probe.target", p.Target, s.Probe.Target)
		}
		into, _ := bound(p.With, p.Kind.In)
		m.with("probe.with.", p.With, p.Kind.In, into)
		m.one("probe.done", p.Done, Around)
	}
}

// limits is when it may run, and what it says to others.
func (m *meaning) limits() {
	n, s := m.n, m.n.Step
	for _, g := range n.Guards {
		for _, f := range g.Meaning() {
			f.Field = "guards." + g.ID + "." + f.Field
			m.add(f)
		}
	}
	if a := n.MaxAge; a != nil {
		m.constant("max-age.of", a.Of, s.MaxAge.Of.Span)
		m.constant("max-age.then", a.Then, s.MaxAge.Then.Span)
	}
	if w := n.Window; w != nil {
		m.window(w)
	}
	if len(n.Tags) > 0 {
		tags := make([]any, len(n.Tags))
		for i, t := range n.Tags {
			tags[i] = t
		}
		m.constant("tags", tags, s.Tags[0].Span)
	}
	for _, o := range n.Outputs {
		m.add(Fact{Field: "outputs." + o.Name, Value: &Template{Expr: o.Expr, Type: o.Expr.Type, At: o.At.Span}, Scope: Own, At: o.At.Span})
	}
}

func (m *meaning) window(w *Window) {
	days := make([]any, 0, len(w.Days))
	for d := time.Sunday; d <= time.Saturday; d++ {
		if len(w.Days) == 0 || slices.Contains(w.Days, d) {
			days = append(days, weekdays[d])
		}
	}
	m.constant("window.days", days, w.Decl.Span)
	m.constant("window.from", clockText(w.From), w.Decl.From.Span)
	m.constant("window.to", clockText(w.To), w.Decl.To.Span)
	zone := "UTC"
	if w.Zone != nil {
		zone = w.Zone.String()
	}
	m.constant("window.zone", zone, w.Decl.Zone.Span)
}

// clockText is a time of day that is given in minutes.
func clockText(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }

// Meaning is what a stop condition says.
func (g *Guard) Meaning() []Fact {
	m := &meaning{facts: make([]Fact, 0, 8)}
	m.one("require", g.Require, Own)
	m.constant("uses", g.Kind.Name, g.Decl.Uses.Span)
	if g.Target != nil {
		m.target("target", g.Target, g.Decl.Target)
	}
	into, _ := bound(g.With, g.Kind.In)
	m.with("with.", g.With, g.Kind.In, into)
	m.constant("every", g.Every, g.Decl.Every.Span)
	m.constant("for", g.For, g.Decl.For.Span)
	m.constant("then", g.Then, g.Decl.Then.Span)
	return m.facts
}

// HasOutput tells whether the step gives something of this name, which its own conditions
// read as a plain name.
func (n *Node) HasOutput(name string) bool {
	switch {
	case n.Sub != nil:
		return slices.ContainsFunc(n.Sub.Outputs, func(o Output) bool { return o.Name == name })
	case n.Kind != nil && n.Kind.Engine == steps.EngineSet:
		return n.With.entry("values").entry(name) != nil
	case n.Kind != nil:
		return slices.ContainsFunc(n.Kind.Outputs, func(o steps.Output) bool { return o.Name == name })
	}
	return false
}
