package runner

import (
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
)

// ownGate is the question of the kind approve: what stands under its `with` is what
// `confirm` takes. Where both are written, confirm is the one that is asked.
func (r *resolver) ownGate(n *Node) *Gate {
	g := &Gate{Message: n.With.entry("message"), Retype: n.With.entry("retype"), Approvals: 1, Each: "run"}
	for i := range n.Step.With {
		if w := &n.Step.With[i]; w.Key.Value == "show" {
			g.Show = r.shown(n, w.Value.List)
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

// shown binds what the kind approve shows: expressions, bare as under confirm, or within ${{ }}.
func (r *resolver) shown(n *Node, list []schema.Value) []Output {
	var all []Output
	for i := range list {
		v := &list[i]
		if v.Kind != schema.ScalarValue || v.Scalar == nil {
			continue // a finding about the input
		}
		if strings.Contains(v.Scalar.Text, "${{") {
			if t := r.value(v, place{node: n, isText: true}, nil); t != nil && t.Expr != nil {
				all = append(all, Output{Name: t.Expr.Source, Expr: t.Expr})
			}
			continue
		}
		e, findings := v.Scalar.ParseExpr()
		r.findings = append(r.findings, findings...)
		if program := r.compile(&e, place{node: n}, nil, expression.Plain); program != nil {
			all = append(all, Output{Name: program.Source, Expr: program, At: &e})
		}
	}
	return all
}
