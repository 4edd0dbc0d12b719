package runner

import (
	"slices"
	"strings"

	"runbook/steps"
)

// gate is the question that a step asks before it acts.
func (pl *planner) gate(s *planScope, n *Node, ps *PlanStep) {
	g := n.Confirm
	if g == nil || g.Builtin && s.askedBy != "" {
		return
	}
	ps.Confirm = &PlanGate{Message: strings.TrimSpace(pl.text(s, g.Message)), Detached: g.Detached, Builtin: g.Builtin}
	if g.Approvals > 1 {
		ps.Confirm.Approvals = g.Approvals
	}
	if g.Each != "run" {
		ps.Confirm.Each = g.Each
	}
	if g.Retype != nil {
		ps.Confirm.Retype = pl.text(s, g.Retype)
	}
	if g.Timeout > 0 {
		ps.Confirm.Timeout = shortDuration(g.Timeout)
	}
	for _, o := range g.Show {
		ps.Confirm.Show = append(ps.Confirm.Show, o.Name)
		ps.Confirm.Shown = append(ps.Confirm.Shown, pl.expression(s, n, o.Expr))
	}
	if g.Detached {
		ps.Confirm.Blind = s.watched(n)
	}
}

// guards are stop conditions as far as they are known.
func (pl *planner) guards(s *planScope, list []*Guard) []PlanGuard {
	var guards []PlanGuard
	for _, g := range list {
		pg := PlanGuard{ID: g.ID, Kind: g.Kind.Name, With: pl.with(s, g.With), Require: g.Require.Expr.Source, Every: shortDuration(g.Every), Then: g.Then}
		if t, ok := pl.boundTarget(s, g.Group, g.Target, g.ID); ok {
			pg.Targets = []PlanTarget{t}
		}
		pg.Known, _ = pl.known(s, nil, g.Require.Expr.Refs, "when it is asked")
		if g.For > 0 {
			pg.For = shortDuration(g.For)
		}
		guards = append(guards, pg)
	}
	return guards
}

// limits are a step's window and, of a group, its deadline and guards.
func (pl *planner) limits(s *planScope, n *Node, ps *PlanStep) {
	if w := n.Window; w != nil {
		ps.Window = &PlanWindow{From: w.Decl.From.Value, To: w.Decl.To.Value, Zone: w.Zone.String()}
		for _, day := range w.Decl.Days {
			ps.Window.Days = append(ps.Window.Days, day.Value)
		}
	}
	if n.MaxAge != nil {
		ps.MaxAge = &PlanMaxAge{Of: shortDuration(n.MaxAge.Of), Then: n.MaxAge.Then}
	}
	ps.Guards = pl.guards(s, n.Guards)
}

// watched are the guards of the run and of what is around the step, by id.
func (s *planScope) watched(n *Node) []string {
	ids := slices.Clone(s.guards)
	for n = n.Parent; n != nil; n = n.Parent {
		for _, g := range n.Guards {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// confirmed tells at which other step a person is asked about one that destroys something.
func (s *planScope) confirmed(n *Node, ps *PlanStep) {
	if ps.Effect != steps.Destroy.String() || n.Confirm != nil && !(n.Confirm.Builtin && s.askedBy != "") {
		return
	}
	ps.ConfirmedBy = s.asker(n)
	ps.Unconfirmed = ps.ConfirmedBy == ""
}

// asker is the step that asks a person about what stands in it: the node, one around it in
// its file, or the one that uses the file. Empty: nobody does.
func (s *planScope) asker(n *Node) string {
	for ; n != nil; n = n.Parent {
		if n.Confirm != nil && !n.Confirm.Builtin {
			return s.within + n.ID
		}
	}
	return s.askedBy
}
