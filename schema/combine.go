package schema

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Which keys make sense together: what the language says of a step without
// knowing its kind.

// combination reports a key that does not fit the others.
func (d *decoder) combination(keys pairs, key, format string, args ...any) {
	d.report(Error, "combination", d.span(keys.find(key).key), fmt.Sprintf(format, args...), "")
}

// need is a rule: the keys make sense only beside one of others.
type need struct {
	keys, beside []string
	reason       string
}

var needs = []need{
	{[]string{"stable", "stall", "wait-all"}, []string{"wait-until"}, "belongs to wait-until, which is not here"},
	{[]string{"every"}, []string{"wait-until", "ready"}, "is the cadence of wait-until, which is not here; the cadence of repeat stands in repeat"},
	{[]string{"wait-all"}, []string{"targets", "for-each"}, "is for a fan-out: there is neither targets nor for-each"},
	{[]string{"as", "key", "after-batch", "on-change"}, []string{"for-each"}, "belongs to for-each, which is not here"},
	{[]string{"batch", "pause-between", "max-parallel", "max-failures"}, []string{"for-each", "targets"}, "belongs to for-each or targets, and neither is here"},
	{[]string{"parallel"}, []string{"steps"}, "is for a group: there are no steps"},
	{[]string{"repeat"}, []string{"steps"}, "repeats a group, and there are no steps; wait-until polls a read, retry repeats a failed call"},
	{[]string{"guards", "max-age"}, []string{"steps"}, "is for a group: there are no steps"},
	{[]string{"with"}, []string{"uses"}, "is the input of a kind: there is no uses"},
	{[]string{"ready"}, []string{"background"}, "belongs to background, which is not here"},
}

// ofKinds are keys about what a kind does, which a group is not.
var ofKinds = []need{
	{keys: []string{"wait-until", "stable", "stall", "wait-all", "every"}, reason: "polls a kind, and this is a group: use repeat: {until: …}, or put it on a step of the group"},
	{keys: []string{"restore", "probe", "recheck", "effect", "idempotent"}, reason: "is about a kind, and this is a group: put it on a step of the group"},
}

// scopes are the names that expressions have already.
var scopes = []string{"inputs", "vars", "targets", "steps", "run", "index", "error", "it", "batch"}

func (s *Step) check(d *decoder, keys pairs, head Span) {
	has := func(key string) bool { return keys.get(key) != nil }
	if s.ID.Set {
		d.ids = append(d.ids, s.ID)
	}
	group := has("steps")
	switch {
	case group && has("uses"):
		d.report(Error, "combination", head, "a step has uses (a kind) or steps (a group), not both", "")
		return
	case !group && !has("uses"):
		if !slices.ContainsFunc(d.meant, func(key string) bool { return key == "uses" || key == "steps" }) {
			d.report(Error, "combination", head, "a step needs uses (a kind, or a runbook's path) or steps (a group)", "")
		}
		return
	}
	var wrong []string
	report := func(key, format string, args ...any) {
		if has(key) && !slices.Contains(wrong, key) {
			wrong = append(wrong, key)
			d.combination(keys, key, format, args...)
		}
	}
	if group {
		for _, rule := range ofKinds {
			for _, key := range rule.keys {
				report(key, "%s %s", key, rule.reason)
			}
		}
	}
	for _, pair := range keys {
		for _, rule := range needs {
			if slices.Contains(rule.keys, pair.key.Value) && !slices.ContainsFunc(rule.beside, has) {
				report(pair.key.Value, "%s %s", pair.key.Value, rule.reason)
				break
			}
		}
	}
	if has("for-each") {
		report("targets", "targets and for-each exclude each other: put one of them on a step inside")
	}
	if has("target") {
		report("targets", "a step has target or targets, not both")
	}
	if s.OnFailure.Value == "rollback-item" && !has("for-each") && !has("targets") {
		report("on-failure", "rollback-item is for the items of for-each or targets, and neither is here")
	}
	if c := s.Confirm; c != nil && c.Each.Set && c.Each.Value != "run" && !has("for-each") && !has("targets") {
		d.report(Error, "combination", c.Each.Span, fmt.Sprintf("each: %s is for a loop: there is neither for-each nor targets", c.Each.Value), "")
	}
	if s.Undo != nil && s.Undo.Mode != "auto" {
		report("restore", "restore puts back with the kind's own inverse, and undo: says otherwise")
	}
	if s.Recheck.Value {
		if s.Effect.Set && s.Effect.Value != "read" {
			report("recheck", "recheck is for reads: a step of effect %s must not run again at every resume", s.Effect.Value)
		}
		if s.Background.Value {
			report("recheck", "a background step is not run again: recheck is for reads")
		}
	}
	if s.Background.Value {
		report("wait-until", "a background step goes on once ready holds; wait-until waits for its end")
	}
	if slices.Contains(scopes, s.As.Value) {
		d.report(Error, "name", s.As.Span, fmt.Sprintf("%s is a name that expressions have already", s.As.Value), "")
	}
}

func (g *Guard) check(d *decoder, _ pairs, _ Span) {
	if g.ID.Set {
		d.guards = append(d.guards, g.ID)
	}
}

func (s *SecretSource) check(d *decoder, keys pairs, head Span) {
	d.exactlyOne(keys, head, "a secret", "env", "file", "command")
}

func (p *Policy) check(d *decoder, keys pairs, head Span) {
	forms := []string{"deny", "warn", "enforce", "waive"}
	d.exactlyOne(keys, head, "a policy", forms...)
	has := func(key string) bool { return keys.get(key) != nil }
	if !slices.ContainsFunc(forms, has) {
		return
	}
	only := func(key, reason string, beside ...string) {
		if has(key) && !slices.ContainsFunc(beside, has) {
			d.combination(keys, key, "%s %s", key, reason)
		}
	}
	only("message", "is what a person reads where deny or warn holds, and neither is here", "deny", "warn")
	only("reason", "says why a built-in policy is waived, and there is no waive", "waive")
	only("waivable", "says that what is enforced may be waived, and there is no enforce", "enforce")
	if has("waive") && strings.TrimSpace(p.Reason.Value) == "" && !slices.Contains(d.meant, "reason") {
		d.report(Error, "required", d.span(keys.find("waive").key), "a waiver needs a reason, which the plan shows", "reason: …")
	}
}

func (d *decoder) exactlyOne(keys pairs, head Span, what string, names ...string) {
	var there []string
	for _, pair := range keys {
		if slices.Contains(names, pair.key.Value) {
			there = append(there, pair.key.Value)
		}
	}
	choice := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	switch {
	case len(there) > 1:
		d.combination(keys, there[1], "%s has one of %s, not several", what, choice)
	case len(there) == 0 && !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(d.meant, n) }):
		d.report(Error, "combination", head, fmt.Sprintf("%s needs one of %s", what, choice), "")
	}
}

func (w *Window) check(d *decoder, keys pairs, head Span) {
	from, to := keys.find("from"), keys.find("to")
	switch {
	case from != nil && to == nil:
		d.combination(keys, "from", "a window that has from needs to")
	case to != nil && from == nil:
		d.combination(keys, "to", "a window that has to needs from")
	case from == nil && keys.find("days") == nil:
		d.report(Error, "combination", head, "a window needs days, or from and to", "")
	}
}

func (i *Input) check(d *decoder, keys pairs, _ Span) {
	if !i.Type.Set {
		return
	}
	only := func(key string, types ...string) {
		if keys.get(key) != nil && !slices.Contains(types, i.Type.Value) {
			d.combination(keys, key, "%s is for inputs of type %s, not %s", key, strings.Join(types, ", "), i.Type.Value)
		}
	}
	only("kind", "target")
	only("pattern", "string")
	only("min", "int", "float", "duration", "size")
	only("max", "int", "float", "duration", "size")
	if i.Type.Value == "secret" && i.Default != nil {
		d.combination(keys, "default", "an input of type secret is given from secrets alone: it has no default")
	}
	if i.Pattern.Set {
		if _, err := regexp.Compile(i.Pattern.Value); err != nil {
			d.report(Error, "pattern", i.Pattern.Span, "pattern is no regular expression (RE2): "+strings.TrimPrefix(err.Error(), "error parsing regexp: "), "")
		}
	}
}

// duplicates reports ids that are there already, at the later one in the file.
func (d *decoder) duplicates(what string, ids []Leaf[string]) {
	slices.SortStableFunc(ids, func(a, b Leaf[string]) int {
		return cmp.Or(cmp.Compare(a.Span.Start.Line, b.Span.Start.Line), cmp.Compare(a.Span.Start.Column, b.Span.Start.Column))
	})
	first := make(map[string]Position, len(ids))
	for _, id := range ids {
		if at, there := first[id.Value]; there {
			d.report(Error, "duplicate-id", id.Span, fmt.Sprintf("the id %s is taken by the %s in line %d", quoted(id.Value), what, at.Line), "")
			continue
		}
		first[id.Value] = id.Span.Start
	}
}
