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
	if s.ForEach == nil {
		return
	}
	l := &Loop{As: s.As.Or("item"), OnChange: s.OnChange.Value, ElemType: anyType}
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
	l.MaxParallel = dynamic(r, s.MaxParallel, outer, intType)
	l.MaxFailures = dynamic(r, s.MaxFailures, outer, intType)
	l.PauseBetween = dynamic(r, s.PauseBetween, outer, durationType)
	if s.Batch != nil {
		l.Batch = r.batch(s.Batch, outer)
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

// outType says what later steps read of the step.
func (r *resolver) outType(n *Node, each place, own map[string]*expression.Type) {
	fields := maps.Clone(own)
	if fields == nil {
		fields = map[string]*expression.Type{}
	}
	p := each.with(own, after)
	n.Outputs = r.namedOutputs(n.Step.Outputs, p, fields)
	if n.broken {
		n.OutType, n.ItemType = anyType, anyType
		return
	}
	if !n.repeats() {
		n.OutType = sealType(fields)
		return
	}
	item := sealType(fields)
	r.flatten(n.Children, item.Fields)
	if n.skipsItems() {
		item = mayBeNull(item)
	}
	item.Fields["key"] = stringType
	item.Fields["item"] = n.elem()
	n.ItemType = item
	n.OutType = sealType(map[string]*expression.Type{"items": listOf(item), "by": {Kind: expression.Map, Elem: item}})
}

// elem is the type of what a loop goes over; of a fan-out a target.
func (n *Node) elem() *expression.Type {
	if n.Loop != nil {
		return n.Loop.ElemType
	}
	types := make([]*expression.Type, len(n.Targets))
	for i, t := range n.Targets {
		types[i] = t.Type
	}
	if len(types) == 1 {
		return types[0]
	}
	if kinds := n.kindsOfTarget(); len(kinds) == 1 {
		return targetType(kinds[0], anyMapType)
	}
	return targetType("", anyMapType)
}

// flatten adds what one item of a loop shows of the steps in it: ids are flat.
func (r *resolver) flatten(list []*Node, fields map[string]*expression.Type) {
	for _, n := range list {
		if n.ID == "" || fields[n.ID] != nil && alwaysThere(n.ID) {
			continue
		}
		t := n.OutType
		if s := descend(n, topWithin(n), false, sight{}); s.nullable {
			t = mayBeNull(t)
		}
		fields[n.ID] = t
		if n.Shape == Group && !n.repeats() {
			r.flatten(n.Children, fields)
		}
	}
}

// topWithin is the outermost node around n that stands in the same item of a loop.
func topWithin(n *Node) *Node {
	for n.Parent != nil && !n.Parent.repeats() {
		n = n.Parent
	}
	return n
}

// skipsItems tells whether an item of a loop may have no outputs although the loop went on.
func (n *Node) skipsItems() bool {
	s := n.Step
	return s.When != nil || s.MaxFailures.Set && (s.MaxFailures.Expr != nil || s.MaxFailures.Value > 0) ||
		s.OnFailure.Value == "continue" || s.OnFailure.Value == "rollback-item" || len(s.Rescue) > 0
}
