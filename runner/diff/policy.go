package diff

import (
	"runbook/runner"
	"runbook/runner/expression"
)

// policy compares what is asked of the plan. An expression that is true refuses it or warns
// of it, so here the weaker condition is the stricter one.
func (c *comparison) policy(o, n *scope) {
	olds, news := o.unit.PolicyMeaning(), n.unit.PolicyMeaning()
	from, to := &site{scope: o}, &site{scope: n}
	paired, taken := map[int]int{}, map[int]bool{}
	pair := func(fits func(of, nf *runner.Fact) bool) {
		for i := range olds {
			if _, done := paired[i]; done {
				continue
			}
			for j := range news {
				if !taken[j] && fits(&olds[i], &news[j]) {
					paired[i], taken[j] = j, true
					break
				}
			}
		}
	}
	equalTerms := func(of, nf *runner.Fact) bool { return from.term(of, inlined).Equal(to.term(nf, inlined)) }
	asks := func(f *runner.Fact) bool { return f.Field == "deny" || f.Field == "warn" }
	pair(func(of, nf *runner.Fact) bool { return of.Field == nf.Field && equalTerms(of, nf) })
	pair(func(of, nf *runner.Fact) bool { return asks(of) && asks(nf) && equalTerms(of, nf) })
	pair(func(of, nf *runner.Fact) bool {
		return of.Field == nf.Field && asks(of) && expression.Compare(from.term(of, inlined), to.term(nf, inlined)) != expression.Different
	})
	pair(func(of, nf *runner.Fact) bool { return of.Field == nf.Field && asks(of) })
	for i := range olds {
		of := &olds[i]
		j, both := paired[i]
		if !both {
			v := verdict{rule: "policy-removed", field: of.Field, before: from.written(of)}
			switch of.Field {
			case "warn":
				v.rule = "policy-changed"
			case "waive":
				v.rule = "policy-added"
			}
			c.declared("policy", "", v, "old", o.unit.Book.Path, of.At)
			continue
		}
		nf := &news[j]
		v := verdict{field: nf.Field, before: from.written(of), after: to.written(nf)}
		switch {
		case of.Field == nf.Field && equalTerms(of, nf):
			continue
		case of.Field == "deny" && nf.Field == "warn":
			v.rule, v.note = "policy-weakened", "it only warns"
		case of.Field == "warn" && nf.Field == "deny":
			v.rule = "policy-added"
		case of.Field == "warn":
			v.rule = "policy-changed"
		default:
			switch expression.Compare(from.term(of, inlined), to.term(nf, inlined)) {
			case expression.Weaker:
				v.rule = "policy-added"
			case expression.Same, expression.Equivalent:
				v.rule = "reworded-condition"
			case expression.Stronger:
				v.rule = "policy-weakened"
			default:
				v.rule, v.note = "policy-weakened", "it cannot be shown to refuse as many"
			}
		}
		c.declared("policy", "", v, "new", n.unit.Book.Path, nf.At)
	}
	for j := range news {
		if nf := &news[j]; !taken[j] {
			v := verdict{rule: "policy-added", field: nf.Field, after: to.written(nf)}
			if nf.Field == "waive" {
				v.rule = "policy-waived"
			}
			c.declared("policy", "", v, "new", n.unit.Book.Path, nf.At)
		}
	}
}
