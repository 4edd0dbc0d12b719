package runner

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

// planner walks a program as the engine does, with what is known before it runs.
type planner struct {
	program  *Program
	chosen   func(*Node) bool
	seen     *Observation // what the targets said; nil: they were not asked
	findings []schema.Finding
	reported map[string]bool // findings and warnings that are told
	leftOut  int

	head  planHead
	facts map[*Node]*nodeFacts
}

// nodeFacts are what is the same for every item of a node, worked out once.
type nodeFacts struct {
	settings  []PlanSetting
	fixedSet  bool
	with      []PlanValue
	constant  *steps.Change
	constUndo string
	constErr  error
	haveConst bool
}

const whileRunning = "while running"

// problem is a finding; the same one is told once, however many items have it.
func (pl *planner) problem(u *Unit, at schema.Span, rule, message string) {
	key := fmt.Sprint(u.Book.Path, at, message)
	if pl.reported[key] || len(pl.findings) >= 100 {
		return
	}
	pl.reported[key] = true
	pl.findings = append(pl.findings, schema.Finding{
		Path: u.Book.Path, Line: max(at.Start.Line, 1), Column: max(at.Start.Column, 1), EndLine: max(at.End.Line, 1), EndColumn: max(at.End.Column, 1),
		Severity: schema.Error, Rule: rule, Message: message,
	})
}

// list plans nodes in order.
func (pl *planner) list(s *planScope, nodes []*Node) []*PlanStep {
	var planned []*PlanStep
	for _, n := range nodes {
		if !pl.chosen(n) {
			pl.leftOut++
			eachNode(n.Children, func(*Node) { pl.leftOut++ })
			continue
		}
		planned = append(planned, pl.node(s, n))
	}
	return planned
}

func (pl *planner) node(s *planScope, n *Node) *PlanStep {
	path := s.prefix + n.ID
	switch {
	case n.FanOut: // it has a Loop too, where it says how many at a time
		return pl.fanOut(s, n, path)
	case n.Loop != nil:
		return pl.loop(s, n, path)
	}
	return pl.one(s, n, path, true)
}

// one plans a node a single time: as itself, or as one item of its loop. whole tells
// that its require, confirm and name are shown here and not on its loop.
func (pl *planner) one(s *planScope, n *Node, path string, whole bool) *PlanStep {
	ps := &PlanStep{Path: path, ID: n.ID, Shape: ShapeStep, Effect: n.Effect.String(), Tags: n.Tags, node: n}
	if whole {
		pl.describe(s, n, ps)
	}
	f := pl.factsOf(n)
	pl.conditions(s, n, ps, whole)
	ps.Settings = pl.settings(s, n, f)
	if whole {
		pl.limits(s, n, ps)
		pl.gate(s, n, ps)
	}
	ps.Outputs = outputsOf(n.Outputs)
	ps.NoReturn = n.PointOfNoReturn
	ps.OnFailure = n.OnFailure
	switch n.Shape {
	case Leaf:
		pl.leaf(s, n, ps, f)
	case Call:
		pl.call(s, n, ps)
	default:
		pl.group(s, n, ps)
	}
	if len(n.Rescue) > 0 && whole {
		ps.Rescue = pl.rescue(s, n)
	}
	pl.head.note(s, n, ps)
	return ps
}

// rescue plans the steps that run when a step has failed.
func (pl *planner) rescue(s *planScope, n *Node) []*PlanStep {
	inner := s.with(s.prefix, nil, map[string]string{"error": "when it fails"})
	inner.count = max(inner.count, ifFailed)
	return pl.list(inner, n.Rescue)
}

// describe is what a step says of itself.
func (pl *planner) describe(s *planScope, n *Node, ps *PlanStep) {
	ps.Name, ps.Why = pl.text(s, n.Name), strings.TrimSpace(pl.text(s, n.Why))
}

// outputsOf are named expressions by name: their order in the file means nothing.
func outputsOf(list []Output) []PlanOutput {
	var outputs []PlanOutput
	for _, o := range list {
		outputs = append(outputs, PlanOutput{o.Name, o.Expr.Source})
	}
	slices.SortFunc(outputs, func(a, b PlanOutput) int { return strings.Compare(a.Name, b.Name) })
	return outputs
}

// factsOf works out what is the same for every item.
func (pl *planner) factsOf(n *Node) *nodeFacts {
	if f := pl.facts[n]; f != nil {
		return f
	}
	f := &nodeFacts{}
	pl.facts[n] = f
	return f
}

// leaf plans a step that uses a kind.
func (pl *planner) leaf(s *planScope, n *Node, ps *PlanStep, f *nodeFacts) {
	ps.Kind = n.Kind.Name
	if t, ok := pl.stepTarget(s, n, ps.Path); ok {
		ps.Targets = []PlanTarget{t}
	}
	if ps.With = f.with; ps.With == nil {
		ps.With = pl.with(s, n.With)
		if n.With != nil && n.With.Constant {
			f.with = ps.With
		}
	}
	pl.checks(s, n, ps)
	in, why := pl.inputs(s, n, ps)
	if why == "" {
		pl.told(n, ps, f, in)
	} else {
		ps.unsure = true
		ps.Undo, ps.NoUndo = pl.undoOf(n, nil)
		ps.Commands = pl.sketch(s, n)
	}
	if n.UndoMode == "steps" && len(n.UndoSteps) > 0 {
		inner := s.with(s.prefix, nil, nil)
		inner.count = max(inner.count, ifFailed)
		ps.UndoSteps = pl.list(inner, n.UndoSteps)
	}
	if ps.Effect != steps.Read.String() && !n.Kind.HasProbe && n.Probe == nil && n.Kind.Engine == steps.EngineNone {
		ps.Doubt = DoubtDecide
		if n.Idempotent {
			ps.Doubt = DoubtAgain
		}
	}
	s.confirmed(n, ps)
	if ps.Skipped == "" {
		pl.head.count(pl, s, n, ps, in)
	}
}

// told is what the kind says of a step whose inputs are all known.
func (pl *planner) told(n *Node, ps *PlanStep, f *nodeFacts, in any) {
	if n.BoundIn != nil && !f.haveConst {
		f.haveConst = true
		f.constant, f.constUndo, f.constErr = pl.ask(n, in)
	}
	change, undo, err := f.constant, f.constUndo, f.constErr
	if n.BoundIn == nil {
		change, undo, err = pl.ask(n, in)
	}
	if err != nil {
		ps.Warnings = append(ps.Warnings, "what it sends cannot be told: "+err.Error())
	}
	if change != nil {
		ps.Commands, ps.Pause = change.Lines, change.Pause
	}
	if n.Kind.EffectOf != nil && n.BoundIn == nil && !n.Kind.AuthorKnows {
		ps.Effect = n.Kind.EffectOf(in).String()
	}
	ps.Undo, ps.NoUndo = pl.undoOf(n, &undo)
}

// sketch is what a step would send of which not all is known, with (after STEP) in the
// places of the rest: of the kinds that send their inputs as they are, where those are text.
func (pl *planner) sketch(s *planScope, n *Node) []steps.Line {
	if !n.Kind.AuthorKnows || n.With == nil {
		return nil
	}
	values := make(map[string]any, len(n.With.Map))
	for i := range n.With.Map {
		values[n.With.Map[i].Key] = pl.partial(s, n.With.Map[i].Value)
	}
	in := reflect.New(n.Kind.In).Interface()
	if schema.Bind(values, in) != nil {
		return nil
	}
	change, _, err := pl.ask(n, in)
	if err != nil || change == nil {
		return nil
	}
	return change.Lines
}

// ask lets the kind say what it would send and how it would put it back. A kind that
// panics on what it is given must not take the plan of all others with it.
func (pl *planner) ask(n *Node, in any) (change *steps.Change, undo string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kind %s: %v", n.Kind.Name, r)
		}
	}()
	if n.Kind.HasPlan {
		c, planErr := n.Kind.Plan(context.Background(), nil, in)
		change, err = &c, planErr
	}
	if n.Kind.HasUndo {
		undo = n.Kind.UndoPlan(in)
	}
	return change, undo, err
}

// undoOf tells how a step is put back, or why it is not.
func (pl *planner) undoOf(n *Node, words *string) (undo, none string) {
	k := n.Kind
	switch {
	case n.within(InUndo), n.within(InFinally):
		return "", "" // it is a way back itself, or runs at the end: nothing undoes it
	case n.UndoMode == "none":
		return "none, its author says: there is nothing to put back", ""
	case n.UndoMode == "steps":
		return "the steps under undo", ""
	case n.Effect == steps.Read:
		return "", ""
	case k.NothingToUndo:
		return "none, there is nothing to put back", ""
	case k.HasUndo && words != nil && *words != "":
		return *words, ""
	case k.HasUndo:
		return "the inverse of " + k.Name, ""
	case k.NoUndo != "":
		return "", k.NoUndo
	}
	return "", k.Name + " has no inverse"
}

// inputs binds what a step is given. why says what it waits for; then the kind is not asked.
func (pl *planner) inputs(s *planScope, n *Node, ps *PlanStep) (in any, why string) {
	if n.BoundIn != nil {
		return n.BoundIn, ""
	}
	v, why, err := pl.eval(s, n.With)
	if why != "" {
		return nil, why
	}
	if err != nil {
		pl.problem(n.Unit, spanOf(n), "with", fmt.Sprintf("step %s: with: %v", ps.Path, err))
		return nil, "it fails"
	}
	values, _ := v.(map[string]any)
	in = reflect.New(n.Kind.In).Interface()
	if err := schema.Bind(values, in); err != nil {
		pl.problem(n.Unit, spanOf(n), "with", fmt.Sprintf("step %s: with: %v", ps.Path, err))
		return nil, "it fails"
	}
	for _, p := range n.Kind.Valid(in, func(string) bool { return false }) {
		message := p.Message
		if p.Input != "" {
			message = p.Input + ": " + message
		}
		pl.problem(n.Unit, spanOf(n), "with", fmt.Sprintf("step %s: %s", ps.Path, message))
	}
	return in, ""
}

// with shows inputs by name: the order of keys in the file means nothing.
func (pl *planner) with(s *planScope, t *Template) []PlanValue {
	if t == nil {
		return nil
	}
	var list []PlanValue
	if len(t.Map) == 0 {
		values, _ := t.Literal.(map[string]any)
		for _, name := range sortedNames(values) {
			list = append(list, PlanValue{Name: name, Value: jsonable(plain(values[name]))})
		}
		return list
	}
	for i := range t.Map {
		e := &t.Map[i]
		list = append(list, PlanValue{Name: e.Key, Value: pl.partial(s, e.Value)})
	}
	slices.SortFunc(list, func(a, b PlanValue) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// stepTarget is what one step acts on.
func (pl *planner) stepTarget(s *planScope, n *Node, path string) (PlanTarget, bool) {
	if n.FanOut {
		if t := s.targets[s.fan]; t != nil {
			return t.PlanTarget, true
		}
		return PlanTarget{Name: s.fan}, true
	}
	return pl.boundTarget(s, n, n.Target, path)
}

// boundTarget is what a step, its probe or a guard acts on.
func (pl *planner) boundTarget(s *planScope, n *Node, b *Binding, path string) (PlanTarget, bool) {
	switch {
	case b == nil:
		return PlanTarget{}, false
	case b.Target != nil:
		if t := s.targets[b.Target.Name]; t != nil {
			return t.PlanTarget, true
		}
		return PlanTarget{Name: b.Target.Name}, true
	case b.Expr != nil:
		if why := s.why(b.Expr.Refs); why != "" {
			return PlanTarget{Name: "(" + why + ")", Unknown: why}, true
		}
		v, err := b.Expr.Eval(s.env)
		name, ok := targetName(v)
		if err != nil || !ok || s.targets[name] == nil {
			if err == nil {
				err = fmt.Errorf("%s gives %s, which is no target here", b.Expr.Source, ShowValue(v))
			}
			pl.problem(n.Unit, spanOf(n), "target", fmt.Sprintf("step %s: target: %v", path, err))
			return PlanTarget{Name: name}, true
		}
		return s.targets[name].PlanTarget, true
	}
	return pl.target(s, path, b.Kind, b.Config, spanOf(n)).PlanTarget, true
}

func spanOf(n *Node) schema.Span {
	if n.With != nil && n.With.At.Start.Line > 0 {
		return n.With.At
	}
	return n.Step.Span
}

func (pl *planner) group(s *planScope, n *Node, ps *PlanStep) {
	ps.Shape, ps.Parallel = ShapeGroup, n.Parallel
	inner := s
	if n.Repeat != nil {
		inner = s.with(ps.Path+"[1]/", nil, nil)
	}
	if ps.Skipped != "" {
		inner = inner.with(inner.prefix, nil, nil)
		inner.count = uncounted
	}
	ps.Steps = pl.list(inner, n.Children)
}

// call plans a runbook used as a step.
func (pl *planner) call(s *planScope, n *Node, ps *PlanStep) {
	ps.Shape, ps.Kind = ShapeCall, n.Step.Uses.Value
	ps.With = pl.with(s, n.With)
	inputs, unknown := map[string]any{}, map[string]string{}
	given := map[string]any{}
	if n.With != nil && n.With.Constant {
		given, _ = n.With.Literal.(map[string]any)
	} else if n.With != nil {
		for i := range n.With.Map {
			e := &n.With.Map[i]
			v, why, err := pl.eval(s, e.Value)
			switch {
			case err != nil:
				pl.problem(n.Unit, e.Value.At, "with", fmt.Sprintf("step %s: with: %s: %v", ps.Path, e.Key, err))
				unknown["inputs."+e.Key] = "it fails"
			case why != "":
				unknown["inputs."+e.Key] = why
			default:
				given[e.Key] = v
			}
		}
	}
	for _, in := range n.Sub.Inputs {
		v, ok := given[in.Name]
		switch {
		case unknown["inputs."+in.Name] != "":
		case !ok:
			inputs[in.Name] = in.Default
		case in.Kind == "target" || in.Kind == "secret":
			inputs[in.Name] = v
		default:
			value, err := in.Normalise(v)
			if err == nil {
				err = in.Accept(value)
			}
			if err != nil {
				pl.problem(n.Unit, spanOf(n), "with", fmt.Sprintf("step %s: input %s: %v", ps.Path, in.Name, err))
			}
			inputs[in.Name] = value
		}
	}
	inner := pl.enter(s, n.Sub, ps.Path+"/", s.within+n.ID+"/", inputs, unknown, nil)
	if ps.Skipped != "" {
		inner.count = uncounted
	}
	inner.askedBy, inner.guards = s.asker(n), s.watched(n)
	ps.Outputs = append(ps.Outputs, outputsOf(n.Sub.Outputs)...)
	ps.Steps = pl.list(inner, n.Sub.Steps)
	ps.Finally = pl.list(inner, n.Sub.Finally)
}
