package runner

import (
	"slices"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// Guard is a stop condition: a read that is repeated beside the steps, and what must hold of
// what it sees. It is of the run (Unit.Guards) or of a group (Node.Guards); of a group that
// repeats it is of the whole loop, pauses between waves included.
type Guard struct {
	ID      string
	Decl    *schema.Guard
	Group   *Node // nil: the run
	Kind    *steps.Definition
	Target  *Binding  // nil: none
	With    *Template // a map; constant where nothing is interpolated
	Require *Condition
	Every   time.Duration
	For     time.Duration // how long it must not have held before it trips; 0: at once
	Then    string        // ThenPause, ThenStop, ThenRollback
}

// MaxAge is the deadline of a group, counted from when it first started.
type MaxAge struct {
	Of   time.Duration
	Then string
}

// What a stop condition does when it trips.
const (
	ThenPause    = "pause"    // nothing that changes anything starts; exit 4
	ThenStop     = "stop"     // as a failure under on-failure: stop
	ThenRollback = "rollback" // of the run, or of the group that the condition is of
)

// defaultGuardEvery is the cadence of a guard where neither it nor the file says one.
const defaultGuardEvery = 5 * time.Second

// stopConditions binds the guards and the deadline of a group, and the window of any step.
func (r *resolver) stopConditions(n *Node) {
	s := n.Step
	for i := range s.Guards {
		g := r.guard(&s.Guards[i], n)
		n.Guards = append(n.Guards, g)
		r.insistent(n, s.Guards[i].Span, "a guard")
	}
	if s.MaxAge != nil {
		n.MaxAge = &MaxAge{Of: s.MaxAge.Of.Value, Then: s.MaxAge.Then.Or(ThenPause)}
		r.insistent(n, s.MaxAge.Span, "max-age")
	}
	if s.Window != nil {
		n.Window = r.window(s.Window)
		r.insistent(n, s.Window.Span, "a window")
	}
}

// insistent reports what would keep from running what runs whatever happens.
func (r *resolver) insistent(n *Node, at schema.Span, what string) {
	switch {
	case n.within(InFinally):
		r.wrong(at, "must-run", "", "finally runs whatever stop conditions say: %s has no meaning in it", what)
	case n.within(InUndo):
		r.wrong(at, "must-run", "", "a rollback runs whatever stop conditions say: %s has no meaning in undo", what)
	}
}

// guard binds one stop condition; group is nil for one of the run.
func (r *resolver) guard(decl *schema.Guard, group *Node) *Guard {
	g := &Guard{ID: decl.ID.Value, Decl: decl, Group: group, Kind: r.kind(decl.Uses), Every: r.guardEvery(decl), For: decl.For.Value, Then: decl.Then.Or(ThenPause)}
	if step := r.u.nodes[g.ID]; step != nil && g.ID != "" {
		r.wrong(decl.ID.Span, "duplicate-id", "", "the id %s is taken by the step in line %d: --override must know which is meant", g.ID, step.Step.ID.Span.Start.Line)
	}
	p := place{node: group, when: before, isText: true}
	if group == nil {
		p.noSteps = "a guard of the run is watched from before the first step, so it reads no steps; a group's guard reads those that ran before the group"
	}
	kind := ""
	if decl.Target != nil {
		g.Target, kind = r.binding(decl.Target, p)
	}
	if g.Kind == nil {
		r.mention(decl.Require.Source)
		for i := range decl.With {
			p.secrets = true
			r.value(&decl.With[i].Value, p, nil)
		}
		return g
	}
	switch {
	case g.Kind.Engine != steps.EngineNone:
		r.wrong(decl.Uses.Span, "not-a-read", "", "a guard looks at a target, and %s looks at none", g.Kind.Name)
	case g.Kind.Effect != steps.Read && !g.Kind.AuthorKnows:
		r.wrong(decl.Uses.Span, "not-a-read", "", "a guard reads, but %s is of effect %s", g.Kind.Name, g.Kind.Effect)
	}
	if decl.Target != nil {
		r.accepts(g.Kind, kind, decl.Target.Span)
	} else {
		r.guardTarget(g)
	}
	g.With = r.guardInputs(g, p)
	seen := p
	seen.own, seen.isText = r.outFields(g.Kind.Out), false
	g.Require = r.condition(&decl.Require, seen, expression.Wait)
	if g.Require != nil && g.Kind.Engine == steps.EngineNone && !g.looks(seen.own) {
		r.warn(decl.Require.Span, "constant-guard", "", "this require names nothing that %s sees, so it is always the same", g.Kind.Name)
	}
	return g
}

func (r *resolver) guardEvery(decl *schema.Guard) time.Duration {
	switch d := r.book.Defaults; {
	case decl.Every.Set:
		return decl.Every.Value
	case d != nil && d.Every.Set:
		return d.Every.Value
	}
	return defaultGuardEvery
}

// guardTarget finds the target of a guard that names none: that of the nearest group that
// has one, the guard's own group first.
func (r *resolver) guardTarget(g *Guard) {
	if len(g.Kind.On) == 0 {
		return
	}
	for n := g.Group; n != nil; n = n.Parent {
		if n.Step.Target == nil && n.Step.Targets == nil {
			continue
		}
		kinds := n.kindsOfTarget()
		fits := n != g.Group || !n.FanOut
		for _, kind := range kinds {
			fits = fits && actsOn(g.Kind, kind)
		}
		switch {
		case fits && n.FanOut:
			g.Target = &Binding{Each: n}
		case fits:
			g.Target = n.Target
		case g.Kind.TargetOptional:
		case n == g.Group && n.FanOut:
			r.wrong(g.Decl.Uses.Span, "missing-target", "target: …", "the guard is of the whole fan-out, which has several targets: name the one to look at")
		default:
			r.needsTarget(g.Kind, g.Decl.Uses.Span)
		}
		return
	}
	r.needsTarget(g.Kind, g.Decl.Uses.Span)
}

// guardInputs binds what the kind is given, and asks it what it thinks of that.
func (r *resolver) guardInputs(g *Guard, p place) *Template {
	before := len(r.findings)
	with := r.record(g.Decl.With, r.fields(g.Kind.In), recordOf{
		place: func(input string) place { return p.input(g.Kind, input) }, missing: g.Decl.Uses.Span, at: g.Decl.Span, noun: g.Kind.Name, rule: "unknown-input",
	})
	if schema.Failed(r.findings[before:]) {
		return with
	}
	in, unknown := bound(with, g.Kind.In)
	r.problems(g.Kind.Valid(in, func(input string) bool { return unknown[input] }), g.Decl.With, unknown, g.Decl.Uses.Span)
	return with
}

// looks tells whether the condition reads anything of what the guard's kind sees.
func (g *Guard) looks(outputs map[string]*expression.Type) bool {
	return slices.ContainsFunc(g.Require.Expr.Refs, func(ref expression.Ref) bool { return outputs[ref.Path[0]] != nil })
}
