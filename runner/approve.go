package runner

import (
	"time"

	"runbook/schema"
)

// ownGate is the question of the kind approve: what stands under its `with` is what
// `confirm` takes. Where both are written, confirm is the one that is asked.
func (r *resolver) ownGate(n *Node) *Gate {
	g := &Gate{Message: n.With.entry("message"), Retype: n.With.entry("retype"), Approvals: 1, Each: "run"}
	if show := n.With.entry("show"); show != nil {
		for _, t := range show.List {
			if t.Expr != nil {
				g.Show = append(g.Show, Output{Name: t.Expr.Source, Expr: t.Expr})
			}
		}
	}
	for _, name := range []string{"approvals", "timeout", "wait"} {
		if t := n.With.entry(name); t != nil && !t.Constant {
			r.wrong(t.At, "gate-setting", "", "%s of a gate is written out: whoever reads the plan must see it", name)
		}
	}
	if t := n.With.entry("timeout"); t != nil && t.Constant {
		switch v := t.Literal.(type) {
		case string:
			g.Timeout, _ = schema.ParseDuration(v) // checked with the other inputs
		case time.Duration:
			g.Timeout = v
		}
	}
	if t := n.With.entry("approvals"); t != nil && t.Constant {
		if people, ok := t.Literal.(int); ok && people >= 2 {
			g.Approvals = people
		}
	}
	if t := n.With.entry("wait"); t != nil && t.Constant {
		g.Attached, g.Detached = t.Literal == "attached", t.Literal == "detached"
	}
	return g
}
