package diff

import (
	"strings"
	"time"

	"runbook/runner"
	"runbook/runner/expression"
)

// gate judges who is asked before the step acts.
func (d *difference) gate() verdict {
	if d.field == "confirm" {
		return d.question()
	}
	switch strings.TrimPrefix(d.field, "confirm.") {
	case "approvals":
		return d.setting(settingRule{"more-approvals", "fewer-approvals", 1})
	case "retype":
		return d.there("retype-added", "retype-removed", "retype-changed")
	case "timeout":
		return verdict{rule: "gate-timeout"}
	case "wait":
		return d.there("gate-detached", "gate-attached", "gate-detached")
	case "each":
		often := map[string]int{"run": 0, "batch": 1, "item": 2}
		each := func(f *runner.Fact) string {
			if f == nil {
				return "run"
			}
			return f.Value.Literal.(string)
		}
		was, is := each(d.of), each(d.nf)
		switch {
		case often[is] < often[was]:
			return verdict{rule: "asked-less", before: was, after: is}
		case often[is] > often[was]:
			return verdict{rule: "asked-more", before: was, after: is}
		}
		return verdict{}
	}
	return verdict{rule: "gate-text"}
}

// question judges whether anybody is asked at all.
func (d *difference) question() verdict {
	asks := func(f *runner.Fact) string {
		if f == nil {
			return ""
		}
		return f.Value.Literal.(string)
	}
	was, is := asks(d.of), asks(d.nf)
	v := verdict{before: was, after: is}
	if was == "asked" && d.o.node.Confirm.Message != nil {
		v.before = templateText(d.o.node.Confirm.Message)
	}
	if is == "asked" && d.n.node.Confirm.Message != nil {
		v.after = templateText(d.n.node.Confirm.Message)
	}
	switch {
	case is == "asked" || is == "asked by the kind" && was != "asked":
		v.rule = "confirmation-added"
	case d.n != d.o && d.n.covered():
		v.rule, v.note = "gate-text", "the group around it asks"
	case is == "waived":
		v.rule = "confirmation-waived"
	case was == "waived":
		v.rule = "confirmation-added"
		if is == "" { // nothing was asked before, and nothing is now
			return verdict{}
		}
	case is == "asked by the kind":
		v.rule, v.note = "confirmation-removed", "only the kind's own question is left, which --yes answers"
	default:
		v.rule = "confirmation-removed"
	}
	return v
}

// covered tells whether somebody around the step asks.
func (s *site) covered() bool { return s.gateAround() != nil }

func (s *site) gateAround() *site {
	for p := s.parent; p != nil; p = p.parent {
		if g := p.node.Confirm; g != nil && !g.Builtin {
			return p
		}
	}
	return nil
}

// probe judges the author's read that tells whether the effect is there.
func (d *difference) probe() verdict {
	switch {
	case d.field == "probe.uses":
		return d.there("probe-added", "probe-removed", "probe-changed")
	case d.field == "probe.done" && d.of != nil && d.nf != nil:
		return d.condition("probe-weakened", "probe-changed", "probe-weakened", "", "")
	}
	return verdict{rule: "probe-changed"}
}

// guard judges a stop condition of a group, or of the run.
func (d *difference) guard() verdict {
	field := d.field[strings.LastIndex(d.field, ".")+1:]
	if strings.Contains(d.field, ".with.") {
		field = "with"
	}
	switch field {
	case "require":
		v := d.condition("guard-weakened", "guard-stricter", "guard-changed", "guard-added", "guard-removed")
		if v.rule == "guard-changed" && d.compare() == expression.Different {
			v.rule = "guard-weakened"
			v.note = "it cannot be shown to ask for as much"
		}
		return v
	case "every", "for":
		return d.setting(settingRule{"guard-weakened", "guard-stricter", time.Duration(0)})
	}
	return verdict{rule: "guard-changed"}
}

// deadline judges how long a group may take.
func (d *difference) deadline() verdict {
	if d.field == "max-age.then" {
		return verdict{rule: "deadline-changed"}
	}
	switch {
	case d.of == nil:
		return verdict{rule: "deadline-added"}
	case d.nf == nil:
		return verdict{rule: "deadline-removed"}
	}
	return d.setting(settingRule{"deadline-later", "deadline-earlier", nil})
}
