package runner

import (
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// gate binds what a person is asked before the step acts.
func (r *resolver) gate(n *Node) *Gate {
	c := n.Step.Confirm
	if c == nil || c.Waived {
		return nil // what a destructive kind asks by itself is settled once its effect is known
	}
	p := place{node: n, item: c.Each.Value == "item"}
	g := &Gate{
		Message: r.words(c.Message, p), Retype: r.words(c.Retype, p), Timeout: c.Timeout.Value,
		Approvals: max(1, c.Approvals.Value), Each: c.Each.Or("run"), Attached: c.Wait.Value == "attached", Detached: c.Wait.Value == "detached",
	}
	for i := range c.Show {
		if program := r.compile(&c.Show[i], p, nil, expression.Plain); program != nil {
			g.Show = append(g.Show, Output{Name: c.Show[i].Source, Expr: program, At: &c.Show[i]})
		}
	}
	if c.Approvals.Set && c.Approvals.Value < 1 {
		r.wrong(c.Approvals.Span, "approvals", "1", "approvals is at least 1")
	}
	return g
}

// settle fills in what follows from the effect and the keys of a step.
func (r *resolver) settle(n *Node) {
	s := n.Step
	n.UndoMode = "auto"
	if s.Undo != nil {
		n.UndoMode = s.Undo.Mode
	}
	n.Restore = s.Restore.Value == "end"
	n.Recheck = s.Recheck.Value
	if n.Kind != nil && n.Kind.Engine == steps.EngineGate && n.Confirm == nil {
		n.Confirm = r.ownGate(n)
	}
	destroys := n.Shape == Leaf && n.Effect == steps.Destroy
	n.PointOfNoReturn = s.PointOfNoReturn.Or(destroys && n.UndoMode == "auto" && n.Kind != nil && !n.Kind.HasUndo)
	if destroys && n.Confirm == nil && (s.Confirm == nil || !s.Confirm.Waived) && !n.covered() && n.Kind.Engine == steps.EngineNone {
		n.Confirm = &Gate{Builtin: true, Approvals: 1, Each: "run"}
	}
}

// asks tells whether a person is asked about the step as a whole, or about a group around it.
func (n *Node) asks() bool { return n.Confirm != nil || n.covered() }

// covered tells whether a group around the step asks already.
func (n *Node) covered() bool {
	for g := n.Parent; g != nil; g = g.Parent {
		if c := g.Step.Confirm; c != nil && !c.Waived {
			return true
		}
	}
	return false
}

// within tells whether the node or one around it stands in a list of this role.
func (n *Node) within(role Role) bool {
	for ; n != nil; n = n.Parent {
		if n.Role == role {
			return true
		}
	}
	return false
}

// rules are those of the language that need to know what a step is made of.
func (r *resolver) rules(n *Node) {
	s := n.Step
	r.waitRules(n)
	r.loopRules(n)
	r.undoRules(n)
	if n.When != nil && len(n.When.Expr.Refs) == 0 {
		r.warn(s.When.Span, "constant-when", "", "this when is always the same: it names nothing that could differ")
	}
	r.stopConditions(n)
	if n.Kind == nil {
		if n.Shape == Call && (s.Effect.Set || s.Idempotent.Set) {
			at := s.Effect.Span
			if !s.Effect.Set {
				at = s.Idempotent.Span
			}
			r.wrong(at, "known-effect", "", "a runbook's effect is that of its steps")
		}
		return
	}
	switch {
	case n.unsaid():
		if s.WaitUntil == nil {
			r.warn(s.Uses.Span, "no-effect", "effect: read", "nobody can tell what %s does: without effect it is taken for a write that must not be repeated", n.Kind.Name)
		}
	case !n.Kind.AuthorKnows && s.Effect.Set:
		r.wrong(s.Effect.Span, "known-effect", "", "%s knows its effect: it is %s", n.Kind.Name, n.Effect)
	}
	if !n.Kind.AuthorKnows && s.Idempotent.Set {
		r.wrong(s.Idempotent.Span, "known-effect", "", "%s knows whether it may be repeated", n.Kind.Name)
	}
	if c := s.Confirm; c != nil && c.Waived && n.Effect == steps.Destroy && !s.Why.Set {
		r.warn(c.Span, "confirm-waived", "why: …", "this destroys something and asks nobody: say why")
	}
	switch n.Kind.Engine {
	case steps.EngineSleep:
		r.warn(s.Uses.Span, "sleep", "wait-until: …", "a sleep is too short or too long: wait until what you wait for is there")
	case steps.EngineStopBackground:
		r.stopsBackground(n)
	}
	if n.within(InFinally) && n.Effect != steps.Read && !n.Idempotent && !n.Kind.HasProbe && n.Probe == nil && !n.Kind.NothingToUndo {
		suggestion := ""
		if n.Kind.AuthorKnows {
			suggestion = "idempotent: true"
		}
		r.warn(s.Uses.Span, "finally-twice", suggestion, "finally runs once more where a run is resumed and ends again, and %s must not be repeated", n.Kind.Name)
	}
}

// unsaid tells whether nobody, neither kind nor inputs nor author, says what a step does.
func (n *Node) unsaid() bool { return n.Kind.Name == "exec" && !n.Step.Effect.Set }

func (r *resolver) waitRules(n *Node) {
	s := n.Step
	if s.WaitUntil != nil && !n.broken {
		switch {
		case n.Shape == Call:
			r.wrong(s.WaitUntil.Span, "not-a-read", "", "a runbook cannot be polled; put wait-until on a step in it")
			return
		case n.Effect != steps.Read && !n.withBroken:
			suggestion := ""
			if n.Kind.AuthorKnows {
				suggestion = "effect: read"
			}
			r.wrong(s.WaitUntil.Span, "not-a-read", suggestion, "wait-until polls a read, but %s is of effect %s; retry repeats a failed call", n.Kind.Name, n.Effect)
			return
		}
		d := r.book.Defaults
		if !s.Timeout.Set && (d == nil || !d.Timeout.Set) {
			r.warn(s.WaitUntil.Span, "wait-until-timeout", "timeout: …", "how long may this take? Without a timeout of its own it fails after 10m")
		}
	}
	if n.Wait != nil && s.Stall.Set && n.Wait.Until != nil && !n.Wait.Until.Expr.Numeric() {
		r.wrong(s.Stall.Span, "stall", "", "stall watches a number come closer, and there is no comparison of numbers in wait-until")
	}
	if n.Recheck && n.Kind != nil && n.Effect != steps.Read {
		r.wrong(s.Recheck.Span, "not-a-read", "", "recheck runs a read again at every resume, but %s is of effect %s", n.Kind.Name, n.Effect)
	}
	if n.Recheck && n.Shape == Call && !n.broken {
		r.wrong(s.Recheck.Span, "not-a-read", "", "recheck is for a read; put it on a step of the runbook")
	}
}

func (r *resolver) loopRules(n *Node) {
	l := n.Loop
	if l == nil || n.FanOut || l.Over == nil || l.Key != nil || n.Step.Key != nil {
		return
	}
	over := l.Over.Type.Kind
	if over == expression.Map || over == expression.Object {
		return // the map's own keys
	}
	if k := l.ElemType.Kind; k == expression.Map || k == expression.Object {
		r.wrong(n.Step.ForEach.Span, "key-required", "key: "+l.As+".…", "the items are maps: key must say which of their fields names them in the journal")
	}
}

func (r *resolver) undoRules(n *Node) {
	s := n.Step
	if n.Kind == nil {
		if n.UndoMode == "none" && !s.Why.Set {
			r.warn(s.Undo.Span, "undo-none", "why: …", "say why there is nothing to put back")
		}
		if n.Restore && n.Shape == Call {
			r.wrong(s.Restore.Span, "restore", "", "restore is of a step; put it on the one in the runbook")
		}
		return
	}
	if n.Restore && (n.Effect == steps.Read || !n.Kind.HasUndo) {
		r.wrong(s.Restore.Span, "restore", "", "%s cannot be put back at the end: it has no inverse", n.Kind.Name)
	}
	changes := n.Effect != steps.Read && !n.Kind.NothingToUndo && !n.withBroken
	switch {
	case n.UndoMode == "none" && !s.Why.Set && changes:
		r.warn(s.Undo.Span, "undo-none", "why: …", "say why there is nothing to put back")
	case n.UndoMode != "auto" || !changes || n.Kind.HasUndo || n.Effect == steps.Destroy || n.Kind.Engine != steps.EngineNone:
	case n.unsaid(): // effect comes first
	case n.Background || n.within(InFinally) || n.within(InUndo) || n.noWayBack():
	default:
		r.warn(s.Uses.Span, "no-undo", "undo: [steps], or undo: none with a why", "this changes something that nobody can put back: a rollback ends here")
	}
}

// noWayBack tells whether the author has said already that nothing is undone here, or how.
func (n *Node) noWayBack() bool {
	for ; n != nil; n = n.Parent {
		if n.Step.PointOfNoReturn.Value || n.Step.Undo != nil && n.Step.Undo.Mode != "auto" {
			return true
		}
	}
	return false
}

// stopsBackground checks the name of the step to stop.
func (r *resolver) stopsBackground(n *Node) {
	t := n.With.entry("step")
	if t == nil || !t.Constant {
		return
	}
	id, _ := t.Literal.(string)
	if to := r.u.nodes[id]; to == nil || !to.Step.Background.Value {
		var running []string
		for id, to := range r.u.nodes {
			if to.Step.Background.Value {
				running = append(running, id)
			}
		}
		slices.Sort(running)
		near, _ := schema.Nearest(id, running)
		r.wrong(t.At, "unknown-step", near, "there is no background step %s", id)
	}
}

// batch binds the sizes of waves.
func (r *resolver) batch(v *schema.Value, p place) *Template {
	before := len(r.findings)
	t := r.value(v, p, nil)
	if schema.Failed(r.findings[before:]) {
		return t
	}
	sizes := []*Template{t}
	if v.Kind == schema.ListValue {
		sizes = t.List
		if len(sizes) == 0 {
			r.wrong(v.Span, "batch", "", "a batch has at least one size")
		}
	}
	for _, size := range sizes {
		if !size.Constant {
			continue
		}
		if _, err := waveSize(size.Literal, 100); err != nil {
			r.wrong(size.At, "batch", "", "a size of a batch is a number of items or a percentage such as 10%%")
		}
	}
	return t
}

// file binds what the file says of the run as a whole.
func (r *resolver) file() {
	b := r.book
	if r.sub {
		r.notAsStep()
	}
	if b.Lock == nil {
		return
	}
	r.u.Lock = r.words(b.Lock.Name, place{isText: true})
	if r.sub {
		return
	}
	if b.Lock.Target.Set {
		switch t := r.target(b.Lock.Target.Value); {
		case t == nil:
			r.unknownTarget(b.Lock.Target.Span, b.Lock.Target.Value)
		case t.Kind != nil && !t.Kind.Locks:
			r.wrong(b.Lock.Target.Span, "target-kind", "", "a target of kind %s keeps no locks: lock.target wants one of kind %s", t.Kind.Name, strings.Join(r.catalog.lockKinds(), " or "))
		}
	}
}

// notAsStep reports what only a runbook that is run by itself can have.
func (r *resolver) notAsStep() {
	b := r.book
	report := func(span schema.Span, key string) {
		r.wrong(span, "sub-runbook-key", "", "%s has no meaning in a runbook that is used as a step: it stands in the runbook that is run", key)
	}
	if b.Lock != nil {
		report(b.Lock.Span, "lock")
	}
	if len(b.Secrets) > 0 {
		report(b.Secrets[0].Key.Span, "secrets")
	}
	if len(b.Guards) > 0 {
		report(b.Guards[0].Span, "guards")
	}
	if len(b.Policy) > 0 {
		report(b.Policy[0].Span, "policy")
	}
}

// runGuards binds the stop conditions of the run.
func (r *resolver) runGuards() {
	for i := range r.book.Guards {
		r.u.Guards = append(r.u.Guards, r.guard(&r.book.Guards[i], nil))
	}
}

// checkInput checks the parts of a declaration against its type and each other, and
// reads the default.
func (r *resolver) checkInput(in *Input) {
	d := in.Decl
	if goTypeOfInput(in.Kind) == nil {
		return
	}
	if d.Kind.Set {
		r.targetKind(d.Kind)
	}
	whole := true
	literal := func(v *schema.Value, what string) (any, bool) {
		if v.Kind == schema.ScalarValue && v.Scalar != nil && strings.Contains(v.Scalar.Text, "${{") {
			r.wrong(v.Span, "never-interpolated", "", "%s is literal: there is nothing yet that an expression could read", what)
			return nil, false
		}
		value, err := in.Normalise(v.Plain())
		if err != nil {
			message, suggestion := mismatch(err)
			r.wrong(v.Span, "wrong-type", suggestion, "%s: %s", what, message)
			return nil, false
		}
		return value, true
	}
	limit := func(v *schema.Value, what string) any {
		if v == nil || !slices.Contains([]string{"int", "float", "duration", "size"}, in.Kind) {
			return nil // said by the schema
		}
		value, ok := literal(v, what)
		whole = whole && ok
		return value
	}
	least, most := limit(d.Min, "min"), limit(d.Max, "max")
	if a, ok := number(least); ok {
		if b, ok := number(most); ok && a > b {
			r.wrong(d.Max.Span, "input", "", "no value is both at least %s and at most %s", ShowValue(least), ShowValue(most))
			whole = false
		}
	}
	for i := range d.Enum {
		_, ok := literal(&d.Enum[i], "enum")
		whole = whole && ok
	}
	if d.Pattern.Set {
		if _, err := fullMatch(d.Pattern.Value); err != nil {
			whole = false // said by the schema
		}
	}
	if d.Default == nil || in.Kind == "secret" {
		return
	}
	if d.Default.Kind == schema.ScalarValue && (d.Default.Scalar == nil || d.Default.Scalar.Tag == schema.Null) {
		in.Type = orNull(in.Type)
		return
	}
	value, ok := literal(d.Default, "default")
	if !ok || !whole {
		return
	}
	if err := in.Accept(value); err != nil {
		suggestion := ""
		if e, ok := err.(*inputError); ok {
			suggestion = e.suggestion
		}
		r.wrong(d.Default.Span, "input", suggestion, "the default is refused: %s", err)
		return
	}
	in.Default = value
}

// checkUnit looks at the file once all of it is bound.
func (r *resolver) checkUnit() {
	for i := range r.u.Inputs {
		in := r.u.Inputs[i]
		name, isName := in.Default.(string)
		if in.Kind == "target" && isName && !r.sub {
			if t := r.target(name); t == nil {
				r.unknownTarget(in.Decl.Default.Span, name)
			} else if k := in.Decl.Kind; k.Set && t.Kind != nil && t.Kind.Name != k.Value {
				r.wrong(in.Decl.Default.Span, "target-kind", "", "input %s takes a target of kind %s, and %s is of kind %s", in.Name, k.Value, name, t.Kind.Name)
			}
		}
		if !r.used[in.Name] && r.readable {
			r.warn(r.book.Inputs[i].Key.Span, "unused-input", "", "nothing reads the input %s", in.Name)
		}
	}
}
