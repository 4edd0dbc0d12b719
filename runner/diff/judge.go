package diff

import (
	"reflect"
	"strings"
	"time"

	"runbook/runner"
	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// verdict is what is thought of one difference.
type verdict struct {
	rule          string
	field         string
	before, after string
	note          string // beside the rule's own reason
	gone          *runner.Fact
}

func (v *verdict) why() string { return join(ruleOf[v.rule].Reason, v.note) }

// join puts two pieces of a sentence together.
func join(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + ": " + b
}

// difference is a field of a step on both sides; of or nf is nil where it does not stand there.
type difference struct {
	c      *comparison
	o, n   *site
	field  string
	of, nf *runner.Fact
}

// judge says what a difference in a field means.
func (c *comparison) judge(o, n *site, field string, of, nf *runner.Fact) []verdict {
	d := &difference{c, o, n, field, of, nf}
	if o == nil {
		d.o = n
	}
	if n == nil {
		d.n = o
	}
	v := d.judge()
	if v.rule == "" {
		return nil
	}
	if v.before == "" && v.after == "" {
		v.before, v.after = d.texts()
	}
	return []verdict{v}
}

func (d *difference) judge() verdict {
	field := d.field
	switch {
	case strings.HasPrefix(field, "guards."):
		return d.guard()
	case strings.HasPrefix(field, "confirm"):
		return d.gate()
	case strings.HasPrefix(field, "probe."):
		return d.probe()
	case strings.HasPrefix(field, "with."):
		return d.input()
	case strings.HasPrefix(field, "target."):
		return d.inlineTarget()
	case strings.HasPrefix(field, "window."):
		return d.there("window-added", "window-removed", "window-changed")
	case strings.HasPrefix(field, "max-age."):
		return d.deadline()
	case strings.HasPrefix(field, "outputs."):
		return verdict{rule: "output-changed"}
	}
	switch field {
	case "when":
		return d.condition("runs-more", "runs-less", "other-when", "runs-less", "runs-more")
	case "require", "wait-until", "expect", "ready":
		return d.condition("weakened-condition", "strengthened-condition", "changed-condition", "added-condition", "removed-condition")
	case "repeat.until":
		return d.condition("weakened-condition", "strengthened-condition", "changed-condition", "other-repeat", "other-repeat")
	case "retry.if":
		return d.condition("more-retries", "fewer-retries", "other-retry", "fewer-retries", "more-retries")
	case "uses":
		return verdict{rule: "other-kind"}
	case "effect":
		return d.effect()
	case "target":
		return verdict{rule: "other-target"}
	case "targets":
		return d.set("more-targets", "fewer-targets", "other-target")
	case "for-each":
		return d.items()
	case "batch":
		return d.batch()
	case "undo":
		return d.undo()
	case "on-failure":
		return d.onFailure()
	case "background", "key", "on-change", "tags":
		return verdict{rule: map[string]string{"background": "background", "key": "other-loop", "on-change": "other-loop", "tags": "tags"}[field]}
	}
	if s, ok := settings[field]; ok {
		return d.setting(s)
	}
	if f, ok := flags[field]; ok {
		if d.nf != nil {
			return verdict{rule: f.on}
		}
		return verdict{rule: f.off}
	}
	return verdict{rule: "other-input"}
}

// there is for what is judged by its being there alone.
func (d *difference) there(added, removed, changed string) verdict {
	switch {
	case d.of == nil:
		return verdict{rule: added}
	case d.nf == nil:
		return verdict{rule: removed}
	}
	return verdict{rule: changed}
}

// settings are fields whose value is a number or a time.
type settingRule struct {
	more, less string
	absent     any // what holds where the field is not there
}

// endless is how long something takes that has no limit.
const endless = time.Duration(1<<63 - 1)

var settings = map[string]settingRule{
	"every":           {"other-cadence", "other-cadence", nil},
	"stable":          {"longer-stable", "shorter-stable", time.Duration(0)},
	"stall":           {"larger-stall", "shorter-stall", endless},
	"timeout":         {"larger-timeout", "shorter-timeout", endless},
	"attempt-timeout": {"larger-timeout", "shorter-timeout", endless},
	"retry.attempts":  {"more-retries", "fewer-retries", 1},
	"retry.delay":     {"other-retry", "other-retry", nil},
	"retry.max-delay": {"other-retry", "other-retry", nil},
	"retry.factor":    {"other-retry", "other-retry", nil},
	"retry.jitter":    {"other-retry", "other-retry", nil},
	"repeat.max":      {"other-repeat", "other-repeat", nil},
	"repeat.every":    {"other-repeat", "other-repeat", nil},
	"max-parallel":    {"more-parallel", "less-parallel", 1},
	"pause-between":   {"longer-rest", "shorter-rest", time.Duration(0)},
	"max-failures":    {"more-failures", "fewer-failures", 0},
}

// flags are fields that are true or not there.
var flags = map[string]struct{ on, off string }{
	"parallel":           {"more-parallel", "less-parallel"},
	"wait-all":           {"window-joined", "window-split"},
	"idempotent":         {"idempotent-claimed", "idempotent-dropped"},
	"restore":            {"restore-added", "restore-removed"},
	"point-of-no-return": {"no-return-added", "no-return-removed"},
	"recheck":            {"recheck-added", "recheck-removed"},
}

func (d *difference) setting(s settingRule) verdict {
	switch d.direction(s.absent) {
	case more:
		return verdict{rule: s.more}
	case less:
		return verdict{rule: s.less}
	case alike:
		return verdict{}
	}
	worse := s.more
	if rank[s.less] < rank[s.more] {
		worse = s.less
	}
	return verdict{rule: worse, note: unknownValue(s)}
}

func unknownValue(s settingRule) string {
	if s.more == s.less {
		return ""
	}
	return "which way cannot be told before a run"
}

type direction int

const (
	unclear direction = iota
	less
	more
	alike
)

// direction says how a number or time differs, with the values that are known.
func (d *difference) direction(absent any) direction {
	value := func(s *site, f *runner.Fact) (float64, bool) {
		if f == nil || f.Value != nil && f.Value.Constant && f.Value.Literal == nil {
			return number(absent)
		}
		v, ok := s.evaluate(f)
		if !ok {
			return 0, false
		}
		return number(v)
	}
	a, okA := value(d.o, d.of)
	b, okB := value(d.n, d.nf)
	switch {
	case !okA || !okB, d.open():
		return unclear
	case b > a:
		return more
	case b < a:
		return less
	}
	return alike
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	case time.Duration:
		return float64(v), true
	}
	return 0, false
}

// condition judges a field that holds conditions: by what they mean, not by what they say.
func (d *difference) condition(weaker, stronger, different, added, removed string) verdict {
	switch {
	case d.of == nil:
		return verdict{rule: added}
	case d.nf == nil:
		return verdict{rule: removed}
	}
	v := verdict{rule: different}
	v.before, v.after = d.conjuncts()
	switch d.compare() {
	case expression.Weaker:
		v.rule = weaker
	case expression.Stronger:
		v.rule = stronger
	case expression.Equivalent, expression.Same:
		v.rule = "reworded-condition"
	}
	return v
}

// compare compares conditions, with the names as they stand and with the values that are
// known of them. The worse counts.
func (d *difference) compare() expression.Verdict {
	symbolic := expression.Compare(d.o.term(d.of, inlined), d.n.term(d.nf, inlined))
	if symbolic == expression.Weaker {
		return symbolic
	}
	known := expression.Compare(d.o.term(d.of, resolved), d.n.term(d.nf, resolved))
	order := []expression.Verdict{expression.Weaker, expression.Different, expression.Stronger, expression.Equivalent, expression.Same}
	for _, v := range order {
		if symbolic == v || known == v {
			return v
		}
	}
	return expression.Different
}

// conjuncts are the conditions that only one side has.
func (d *difference) conjuncts() (before, after string) {
	only := func(s, other *site, f, of *runner.Fact) string {
		var words []string
		for _, c := range f.All {
			mine := c.Expr.Term(s.names(f, inlined))
			found := false
			for _, oc := range of.All {
				theirs := oc.Expr.Term(other.names(of, inlined))
				found = found || mine.Equal(theirs)
			}
			if !found {
				words = append(words, oneLine(c.Expr.Source))
			}
		}
		return strings.Join(words, "; ")
	}
	before, after = only(d.o, d.n, d.of, d.nf), only(d.n, d.o, d.nf, d.of)
	if before == "" && after == "" { // they differ in what names stand for
		before, after = d.o.term(d.of, resolved).String(), d.n.term(d.nf, resolved).String()
		if before == after {
			before, after = d.o.written(d.of), d.n.written(d.nf)
		}
	}
	return before, after
}

// effect judges what a step does to the world.
func (d *difference) effect() verdict {
	if d.of == nil || d.nf == nil { // a group has none of its own
		return verdict{}
	}
	was, _ := steps.ParseEffect(d.of.Value.Literal.(string))
	is, _ := steps.ParseEffect(d.nf.Value.Literal.(string))
	if is > was {
		return verdict{rule: "effect-rose"}
	}
	if d.o.node.Kind.AuthorKnows && d.n.node.Kind.AuthorKnows && d.o.node.Kind == d.n.node.Kind {
		return verdict{rule: "effect-fell"}
	}
	return verdict{} // told by what it uses, or is given
}

// inlineTarget judges a field of a target that stands in the step itself.
func (d *difference) inlineTarget() verdict {
	declared := *d
	declared.field = strings.TrimPrefix(d.field, "target.")
	v := declared.target()
	if v.rule == "target-address" {
		v.rule = "other-target"
	}
	return v
}

func (d *difference) undo() verdict {
	mode := func(f *runner.Fact) string {
		if f == nil {
			return "auto"
		}
		return f.Value.Literal.(string)
	}
	was, is := mode(d.of), mode(d.nf)
	v := verdict{rule: "undo-changed", before: was, after: is}
	switch {
	case is == "none":
		v.rule = "undo-removed"
	case was == "none":
		v.rule = "undo-added"
	}
	return v
}

// failures are the ways to go on after a failure, the strictest first.
var failures = map[string]int{"rollback-run": 0, "rollback": 1, "rollback-item": 2, "stop": 3, "continue": 4}

func (d *difference) onFailure() verdict {
	does := func(s *site, f *runner.Fact) string {
		if f != nil {
			return f.Value.Literal.(string)
		}
		return s.inherited()
	}
	was, is := does(d.o, d.of), does(d.n, d.nf)
	v := verdict{before: was, after: is}
	switch {
	case was == is:
		return verdict{}
	case is == "continue":
		v.rule = "failure-ignored"
	case failures[is] < failures["stop"] && failures[was] < failures["stop"]:
		v.rule = "other-rollback"
	case failures[is] > failures[was]:
		v.rule = "rollback-dropped"
	default:
		v.rule = "failure-stricter"
	}
	return v
}

// inherited is what a failure of the step does where it says nothing itself.
func (s *site) inherited() string {
	for p := s.parent; p != nil; p = p.parent {
		if p.node.OnFailure != "" {
			return p.node.OnFailure
		}
	}
	return s.scope.unit.OnFailure
}

// set judges a list of names of which each counts by itself.
func (d *difference) set(wider, narrower, other string) verdict {
	list := func(f *runner.Fact, s *site) map[string]string {
		all := map[string]string{}
		if f == nil {
			return all
		}
		names, _ := f.Value.Literal.([]any)
		for _, v := range names {
			name, _ := v.(string)
			canon := name
			if t := s.scope.targets[name]; t != nil {
				canon = t.canon
			}
			all[canon] = name
		}
		return all
	}
	olds, news := list(d.of, d.o), list(d.nf, d.n)
	added, gone := without(news, olds), without(olds, news)
	v := verdict{rule: other, note: changedNames(added, gone)}
	switch {
	case len(gone) == 0:
		v.rule = wider
	case len(added) == 0:
		v.rule = narrower
	}
	return v
}

// input judges an input of a kind.
func (d *difference) input() verdict {
	name := strings.TrimPrefix(d.field, "with.")
	kind := d.n.node.Kind
	if kind == nil {
		return verdict{rule: "other-input"}
	}
	t := inputType(kind, name)
	switch {
	case kind.Engine == steps.EngineSet:
		return verdict{} // told by those that read it
	case d.of != nil && d.of.All != nil || d.nf != nil && d.nf.All != nil:
		return d.condition("weakened-condition", "strengthened-condition", "changed-condition", "added-condition", "removed-condition")
	case t == reflect.TypeFor[schema.Slots]():
		return d.slots()
	case t == reflect.TypeFor[time.Duration]() && d.c.pauses(kind, name):
		switch d.direction(time.Duration(0)) {
		case less:
			return verdict{rule: "shorter-pause"}
		case alike:
			return verdict{}
		case more:
			return verdict{rule: "longer-pause"}
		}
		return verdict{rule: "longer-pause", note: "which way cannot be told before a run"}
	case t == reflect.TypeFor[bool]() && (name == "force" || name == "resume"):
		if d.nf == nil {
			return verdict{rule: "unforced"}
		}
		return verdict{rule: "forced"}
	}
	return verdict{rule: "other-input"}
}

// inputType is the Go type of an input of a kind.
func inputType(k *steps.Definition, name string) reflect.Type {
	for i := range k.In.NumField() {
		f := k.In.Field(i)
		if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag == name {
			return f.Type
		}
	}
	return nil
}

// open tells whether the two sides say something else of inputs that a run may give another
// value: what they come to with the defaults proves nothing then.
func (d *difference) open() bool {
	if d.of == nil || d.nf == nil || d.of.Value == nil || d.nf.Value == nil || equal(d.o, d.n, d.of, d.nf, inlined) {
		return false
	}
	reads := func(t expression.Term) bool {
		for _, ref := range t.References() {
			if ref[0] == "inputs" {
				return true
			}
		}
		return false
	}
	return reads(d.o.term(d.of, inlined)) && reads(d.n.term(d.nf, inlined))
}
