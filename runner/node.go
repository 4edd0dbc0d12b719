package runner

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// build makes the nodes of a list of steps, with all that stands in them, so that every
// id is known before the first expression is compiled.
func (r *resolver) build(list []schema.Step, parent *Node, role Role) []*Node {
	if len(list) == 0 {
		return nil
	}
	nodes := make([]*Node, len(list))
	depth := 0
	if parent != nil {
		depth = parent.depth + 1
	}
	for i := range list {
		s := &list[i]
		n := &Node{ID: s.ID.Value, Step: s, Unit: r.u, Parent: parent, Role: role, index: i, depth: depth}
		nodes[i] = n
		if _, twice := r.u.nodes[n.ID]; !twice && n.ID != "" {
			r.u.nodes[n.ID] = n
		}
		n.Parallel = s.Parallel.Value
		n.OnFailure = s.OnFailure.Value
		for _, t := range s.Tags {
			n.Tags = append(n.Tags, t.Value)
		}
		n.Children = r.build(s.Steps, n, InSteps)
		n.Rescue = r.build(s.Rescue, n, InRescue)
		n.AfterBatch = r.build(s.AfterBatch, n, InAfterBatch)
		if s.Undo != nil {
			n.UndoSteps = r.build(s.Undo.Steps, n, InUndo)
		}
	}
	return nodes
}

// step binds one step and what stands in it, in the order in which they run: the types
// of a step are there when a later one reads them.
func (r *resolver) step(n *Node) {
	s := n.Step
	outer := place{node: n}            // once, before the first item
	each := place{node: n, item: true} // of each item
	n.Name, n.Why = r.words(s.Name, each), r.words(s.Why, each)

	n.MayNotRun = s.When != nil || n.OnFailure == "continue" || len(n.Rescue) > 0 || n.Role == InRescue || n.Parent != nil && n.Parent.MayNotRun
	r.uses(n)
	r.loop(n, outer)
	r.bindTarget(n, each)
	if s.When != nil {
		n.When = r.condition(s.When, each, expression.Plain)
	}
	n.Require = r.conditions(s.Require, outer)
	n.Confirm = r.gate(n)
	own := r.inputsAndOutputs(n, each)
	n.Effect, n.Idempotent = r.effect(n)
	for _, child := range n.Children {
		r.step(child)
		n.Effect = max(n.Effect, child.Effect)
	}
	r.attempts(n, each, own)
	r.outType(n, each, own)
	for _, list := range [][]*Node{n.Rescue, n.AfterBatch, n.UndoSteps} {
		for _, inner := range list {
			r.step(inner)
			if n.Shape != Leaf && inner.Role == InAfterBatch {
				n.Effect = max(n.Effect, inner.Effect)
			}
		}
	}
	r.settle(n)
	r.rules(n)
}

// uses finds what the step is made of.
func (r *resolver) uses(n *Node) {
	uses := n.Step.Uses
	switch {
	case len(n.Step.Steps) > 0 || !uses.Set:
		n.Shape = Group
		n.broken = len(n.Step.Steps) == 0 // the schema asks for one of the two
	case isPath(uses.Value):
		n.Shape = Call
		n.Sub = r.call(uses)
		n.broken = n.Sub == nil
	default:
		n.Kind = r.kind(uses)
		n.broken = n.Kind == nil
	}
}

// kind finds a step kind; nil where it is not known, which is a finding.
func (r *resolver) kind(uses schema.Leaf[string]) *steps.Definition {
	if !uses.Set || uses.Value == "" {
		return nil
	}
	k := r.catalog.Kinds[uses.Value]
	if k == nil {
		near, ok := schema.Nearest(uses.Value, slices.Sorted(maps.Keys(r.catalog.Kinds)))
		if !ok {
			near = ""
		}
		r.wrong(uses.Span, "unknown-kind", near, "there is no step kind %s", uses.Value)
	}
	return k
}

// loop binds what makes a step repeat.
func (r *resolver) loop(n *Node, outer place) {
	s := n.Step
	l := &Loop{As: s.As.Or("item"), OnChange: s.OnChange.Value, ElemType: anyType}
	l.MaxParallel = dynamic(r, s.MaxParallel, outer, intType)
	l.MaxFailures = dynamic(r, s.MaxFailures, outer, intType)
	l.PauseBetween = dynamic(r, s.PauseBetween, outer, durationType)
	if s.Batch != nil {
		l.Batch = r.batch(s.Batch, outer)
	}
	if s.ForEach == nil {
		if s.Targets != nil && (l.MaxParallel.Set || l.MaxFailures.Set || l.PauseBetween.Set || l.Batch != nil) {
			l.Known, n.Loop = true, l
		}
		return
	}
	n.Loop = l
	l.Over = r.over(s.ForEach, outer)
	if elem := elemOf(l.Over.Type); elem != nil {
		l.ElemType = elem
	} else {
		r.wrong(s.ForEach.Span, "for-each", "", "for-each runs over a list, a map or slots, but this is %s", l.Over.Type)
	}
	l.Known = true
	for _, ref := range l.Over.Refs() {
		l.Known = l.Known && (ref.Path[0] == "inputs" || ref.Path[0] == "vars")
	}
	if s.Key != nil {
		l.Key = r.key(s.Key, place{node: n, item: true})
	}
}

// over binds the list of a loop: written out, or as text an expression.
func (r *resolver) over(v *schema.Value, p place) *Template {
	if v.Kind != schema.ScalarValue || v.Scalar == nil {
		return r.value(v, p, nil)
	}
	if v.Scalar.Tag != schema.String {
		return r.literal(v, v.Scalar.Plain(), nil)
	}
	e, findings := v.Scalar.ParseExpr()
	r.findings = append(r.findings, findings...)
	program := r.compile(&e, p, nil, expression.Plain)
	if program == nil {
		return reported(v.Span)
	}
	return &Template{Expr: program, Type: program.Type, At: v.Span}
}

// key binds the name of an item: text with ${{ … }}, or a bare expression, since a
// constant would name all items alike.
func (r *resolver) key(v *schema.Value, p place) *Template {
	p.isText = true
	if v.Kind != schema.ScalarValue || v.Scalar == nil || strings.Contains(v.Scalar.Text, "${{") {
		return r.value(v, p, reflect.TypeFor[any]())
	}
	e, findings := v.Scalar.ParseExpr()
	r.findings = append(r.findings, findings...)
	program := r.compile(&e, p, nil, expression.Plain)
	if program == nil {
		return reported(v.Span)
	}
	switch program.Type.Kind {
	case expression.String, expression.Int, expression.Bool, expression.Float, expression.Duration, expression.Any:
	default:
		r.wrong(v.Span, "key", "", "a key is text or a number, but this is %s", program.Type)
	}
	return &Template{Expr: program, Type: program.Type, At: v.Span}
}

// effect tells what a step does to the world, as far as its kind, its inputs and its author know.
func (r *resolver) effect(n *Node) (steps.Effect, bool) {
	switch {
	case n.Sub != nil:
		worst := steps.Read
		for _, list := range [][]*Node{n.Sub.Steps, n.Sub.Finally} {
			for _, inner := range list {
				worst = max(worst, inner.Effect)
			}
		}
		return worst, worst == steps.Read
	case n.Kind == nil:
		return steps.Read, true
	}
	effect := n.Kind.Effect
	if n.Kind.EffectOf != nil {
		in := n.partIn
		if in == nil {
			in, _ = bound(n.With, n.Kind.In)
		}
		effect = n.Kind.EffectOf(in)
	}
	idempotent := n.Kind.Idempotent
	if n.Kind.AuthorKnows {
		if e, ok := steps.ParseEffect(n.Step.Effect.Value); ok && n.Step.Effect.Set {
			effect = e
		}
		if n.Step.Idempotent.Set {
			idempotent = n.Step.Idempotent.Value
		}
	}
	return effect, idempotent || effect == steps.Read
}

// attempts binds what surrounds the act: waiting, postconditions, retries, limits.
func (r *resolver) attempts(n *Node, each place, own map[string]*expression.Type) {
	s := n.Step
	acted := each.with(own, after)
	n.Expect = r.conditions(s.Expect, acted)
	if s.WaitUntil != nil {
		n.Wait = &Wait{
			Until: r.condition(s.WaitUntil, acted, expression.Wait), All: s.WaitAll.Value,
			Every: dynamic(r, s.Every, each, durationType), Stable: dynamic(r, s.Stable, each, durationType), Stall: dynamic(r, s.Stall, each, durationType),
		}
		if !n.Wait.Every.Set {
			n.Wait.Every.Value = time.Second
			if d := r.book.Defaults; d != nil && d.Every.Set {
				n.Wait.Every.Value = d.Every.Value
			}
		}
	}
	n.Retry = r.retry(s.Retry, each, own)
	n.Timeout = dynamic(r, s.Timeout, each, durationType)
	n.AttemptTimeout = dynamic(r, s.AttemptTimeout, each, durationType)
	if d := r.book.Defaults; d != nil && n.Shape == Leaf && !s.Background.Value {
		if !n.Timeout.Set && d.Timeout.Set {
			n.Timeout = fixed(d.Timeout)
		}
		if !n.AttemptTimeout.Set && d.AttemptTimeout.Set {
			n.AttemptTimeout = fixed(d.AttemptTimeout)
		}
	}
	if n.Shape == Leaf && !n.Timeout.Set && !s.Background.Value {
		n.Timeout.Value = 10 * time.Minute
	}
	if s.Repeat != nil {
		n.Repeat = &Repeat{Until: r.condition(&s.Repeat.Until, acted, expression.Plain), Max: dynamic(r, s.Repeat.Max, each, intType), Every: dynamic(r, s.Repeat.Every, each, durationType)}
	}
	n.Background = s.Background.Value
	if s.Ready != nil {
		n.Ready = r.condition(s.Ready, acted, expression.Wait)
	}
	if s.Probe != nil {
		n.Probe = r.probe(n, s.Probe, each)
	}
}

func (r *resolver) retry(s *schema.Retry, each place, own map[string]*expression.Type) Retry {
	if s == nil && each.node.Shape == Leaf && r.book.Defaults != nil {
		s = r.book.Defaults.Retry
	}
	if s == nil {
		return Retry{}
	}
	p := each.with(own, during)
	p.extra = map[string]*expression.Type{"error": failureType}
	if own["error"] != nil { // an output of that name is hidden: this is about the failure
		p.own = maps.Clone(own)
		delete(p.own, "error")
	}
	retry := Retry{
		Written: true, Factor: s.Factor.Or(2), Jitter: s.Jitter.Or(0.2),
		Attempts: dynamic(r, s.Attempts, each, intType), Delay: dynamic(r, s.Delay, each, durationType), MaxDelay: dynamic(r, s.MaxDelay, each, durationType),
	}
	if s.If != nil {
		retry.If = r.condition(s.If, p, expression.Plain)
	}
	return retry
}

// probe binds the author's read that tells whether the effect is there.
func (r *resolver) probe(n *Node, s *schema.Probe, each place) *Probe {
	p := &Probe{Kind: r.kind(s.Uses)}
	var kind string
	if s.Target != nil {
		p.Target, kind = r.binding(s.Target, each)
	}
	within := each
	within.isText = true
	if p.Kind == nil {
		for i := range s.With {
			within.secrets = true
			r.value(&s.With[i].Value, within, nil)
		}
		r.mention(s.Done.Source)
		return nil
	}
	if p.Kind.Effect != steps.Read && !p.Kind.AuthorKnows {
		r.wrong(s.Uses.Span, "not-a-read", "", "a probe reads, but %s is of effect %s", p.Kind.Name, p.Kind.Effect)
	}
	if p.Target != nil {
		r.accepts(p.Kind, kind, s.Target.Span)
	} else if n.Target == nil && !n.FanOut {
		r.needsTarget(p.Kind, s.Uses.Span)
	}
	p.With = r.record(s.With, r.fields(p.Kind.In), recordOf{
		place: func(input string) place { return within.input(p.Kind, input) }, missing: s.Uses.Span, at: s.Span, noun: p.Kind.Name, rule: "unknown-input",
	})
	p.Done = r.condition(&s.Done, each.with(r.outFields(p.Kind.Out), after), expression.Plain)
	return p
}
