package diff

import (
	"slices"
	"strings"

	"runbook/runner"
	"runbook/steps"
)

// Side is one of the two runbooks.
type Side struct {
	Program *runner.Program
	// Inputs are the values of the inputs as far as they are known: given, or a default.
	Inputs map[string]any
}

// Compare tells what a run of the new runbook would mean otherwise than one of the old,
// the most dangerous first. It is empty where they mean the same.
func Compare(old, new Side) []Change {
	c := &comparison{old: unfold(old.Program, old.Inputs, "old"), new: unfold(new.Program, new.Inputs, "new"), effects: map[*definition][]effect{}}
	match(c.old, c.new)
	c.evidence(c.old)
	c.evidence(c.new)
	for _, n := range c.new.sites {
		if n.other != nil {
			c.pair(n.other, n)
		} else {
			c.added(n)
		}
	}
	for _, o := range c.old.sites {
		if o.other == nil {
			c.removed(o)
		}
	}
	c.order()
	c.run()
	c.declarations()
	return sorted(c.changes)
}

type comparison struct {
	old, new *book
	changes  []Change
	// effects are what a changed definition does to those that read it.
	effects map[*definition][]effect
	pause   map[string]bool // inputs of kinds that are a pause, by kind and input
}

// effect is a difference that a changed definition makes somewhere.
type effect struct {
	verdict
	where string
	text  string // what reads the definition there
	level Level
	acts  bool
	cuts  bool
}

// report adds a change of a step. o or n may be nil; at is where it stands on the new side,
// or on the old one for what is gone.
func (c *comparison) report(o, n *site, v verdict, at *runner.Fact) {
	s, side := n, "new"
	if n == nil || at != nil && at.At.Start.Line > 0 && at == v.gone {
		s, side = o, "old"
	}
	span := s.node.Step.ID.Span
	if at != nil && at.At.Start.Line > 0 {
		span = at.At
	}
	name := s.key
	if n != nil {
		name = n.key
	}
	ch := Change{Level: c.level(v.rule, o, n), Rule: v.rule, What: "step", Name: name, Field: v.field, Before: v.before, After: v.after, Reason: v.why(), order: s.order}
	ch.at(side, s.path(), span)
	c.changes = append(c.changes, ch)
}

func (s *site) path() string { return s.scope.unit.Book.Path }

// level is what a verdict is worth for what the step is, on either side.
func (c *comparison) level(rule string, sites ...*site) Level {
	r, ok := ruleOf[rule]
	if !ok {
		panic("diff: there is no rule " + rule)
	}
	worst, known := Harmless, false
	for _, s := range sites {
		if s == nil {
			continue
		}
		for kind, has := range s.within {
			if has {
				worst, known = max(worst, r.Levels[int(cuts)-kind]), true
			}
		}
	}
	if !known { // a group without steps, or what stands in none
		return r.Levels[int(cuts)-int(looks)]
	}
	return worst
}

// evidence makes checks of the steps that conditions and acts read: what they see decides.
func (c *comparison) evidence(b *book) {
	for _, s := range b.sites {
		for i := range s.facts {
			f := &s.facts[i]
			if f.All == nil && s.nature < writes && s.node.Kind != nil && f.Field != "for-each" {
				continue
			}
			for _, ref := range refs(f) {
				s.evident(ref.Path, f.Scope)
			}
		}
	}
	for i := len(b.sites) - 1; i >= 0; i-- { // what stands in a step comes behind it
		s := b.sites[i]
		if s.node.Shape == runner.Leaf {
			s.within[s.nature] = true
		}
		if p := s.parent; p != nil && p.node.Shape != runner.Leaf && s.role != runner.InUndo && s.role != runner.InRescue {
			for kind, has := range s.within {
				p.within[kind] = p.within[kind] || has
			}
		}
	}
}

func (s *site) evident(path []string, at runner.FactScope) {
	if len(path) < 2 || path[0] != "steps" {
		return
	}
	to := s.scope.byID[path[1]]
	if to == nil || to == s {
		return
	}
	if d := s.definition(path); d != nil && d.fact != nil {
		for _, ref := range refs(d.fact) {
			d.reader.evident(ref.Path, d.fact.Scope)
		}
	}
	if to.node.Kind != nil && to.nature == looks && to.node.Kind.Engine == steps.EngineNone {
		to.nature = checks
	}
}

// pair compares a step with what it was.
func (c *comparison) pair(o, n *site) {
	if o.node.ID != n.node.ID {
		c.report(o, n, verdict{rule: "renamed", before: o.key, after: n.key}, nil)
	}
	olds, news := byField(o.facts), byField(n.facts)
	for _, field := range fields(o.facts, n.facts) {
		of, nf := olds[field], news[field]
		if headless(field, olds, news) || o.stands(field) && n.stands(field) || follows(field, o, n, of, nf) {
			continue
		}
		yes, causes := c.differs(o, n, of, nf)
		if !yes {
			continue
		}
		for _, v := range c.judge(o, n, field, of, nf) {
			v.field = field
			c.tell(o, n, v, of, nf, causes)
		}
	}
	if o.body != nil && n.body != nil {
		c.inputFacts(o.body, n.body, n.key+"/")
		c.onFailure("step", n.key, o.body.unit, n.body.unit)
	}
}

// tell reports a difference of a step, or keeps it for the definition that makes it.
func (c *comparison) tell(o, n *site, v verdict, of, nf *runner.Fact, causes []*definition) {
	if len(causes) > 0 {
		for _, d := range causes {
			e := effect{verdict: v, where: v.field + " of " + n.key, level: c.level(v.rule, o, n), acts: n.within[writes] || n.within[cuts], cuts: n.within[cuts]}
			if nf != nil {
				e.text = n.written(nf)
			}
			c.effects[d] = append(c.effects[d], e)
		}
		return
	}
	at := nf
	if nf == nil || nf.At.Start.Line == 0 && of != nil && of.At.Start.Line > 0 {
		at, v.gone = of, of
	}
	c.report(o, n, v, at)
}

func byField(facts []runner.Fact) map[string]*runner.Fact {
	m := make(map[string]*runner.Fact, len(facts))
	for i := range facts {
		m[facts[i].Field] = &facts[i]
	}
	return m
}

// fields are those of both sides, in the order of the new one.
func fields(olds, news []runner.Fact) []string {
	all := make([]string, 0, len(news)+2)
	for i := range news {
		all = append(all, news[i].Field)
	}
	for i := range olds {
		if !slices.ContainsFunc(news, func(f runner.Fact) bool { return f.Field == olds[i].Field }) {
			all = append(all, olds[i].Field)
		}
	}
	return all
}

// heads are fields without which others have no meaning.
var heads = map[string]string{
	"every": "wait-until", "stable": "wait-until", "stall": "wait-until", "wait-all": "wait-until",
	"key": "for-each", "on-change": "for-each",
	"repeat.max": "repeat.until", "repeat.every": "repeat.until",
	"window.to": "window.days", "window.from": "window.days", "window.zone": "window.days", "max-age.then": "max-age.of",
}

// headless tells whether a field is there on one side because another is.
func headless(field string, olds, news map[string]*runner.Fact) bool {
	head := heads[field]
	switch {
	case strings.HasPrefix(field, "confirm."):
		asked := func(facts map[string]*runner.Fact) bool {
			f := facts["confirm"]
			return f != nil && f.Value.Literal == "asked"
		}
		return !asked(olds) || !asked(news)
	case strings.HasPrefix(field, "probe.") && field != "probe.uses":
		head = "probe.uses"
	case strings.HasPrefix(field, "guards.") && strings.Count(field, ".") > 1:
		id, rest, _ := strings.Cut(strings.TrimPrefix(field, "guards."), ".")
		if rest == "require" {
			return false
		}
		head = "guards." + id + ".require"
	case strings.HasPrefix(field, "target.") && (olds["target"] == nil || news["target"] == nil || olds["target"].Value.Literal != news["target"].Value.Literal):
		return true // another kind of target has other fields
	case strings.HasPrefix(field, "with.") && (olds["uses"] == nil || news["uses"] == nil || olds["uses"].Value.Literal != news["uses"].Value.Literal):
		return true // another kind takes other inputs
	}
	return head != "" && (olds[head] == nil) != (news[head] == nil)
}

// stands tells whether a field only names values that steps read, which is told by these.
func (s *site) stands(field string) bool {
	return len(s.outs) > 0 && (field == "with.values" && s.node.Kind != nil && s.node.Kind.Engine == steps.EngineSet || strings.HasPrefix(field, "outputs."))
}

// follows tells whether a difference only follows from another kind or effect, which is told.
func follows(field string, o, n *site, of, nf *runner.Fact) bool {
	switch {
	case strings.HasPrefix(field, "retry."):
		return (of == nil || of.At.Start.Line == 0) && (nf == nil || nf.At.Start.Line == 0) && !o.node.Retry.Written && !n.node.Retry.Written
	case field == "idempotent":
		return o.node.Effect == steps.Read || n.node.Effect == steps.Read
	}
	return false
}

// added tells of a step that was not there.
func (c *comparison) added(n *site) {
	if n.wayBack() {
		return
	}
	if n.node.Shape != runner.Leaf {
		c.regrouped(nil, n)
		return
	}
	v := verdict{rule: "step-added", after: words(n)}
	switch {
	case n.in(runner.InRescue):
		v.rule = "rescue-added"
	case n.in(runner.InUndo):
		v.rule = "undo-added"
	case n.in(runner.InFinally):
		v.rule = "finally-added"
	}
	if v.rule == "step-added" {
		v.note = "it " + map[nature]string{looks: "only looks", checks: "checks", writes: "writes", cuts: n.node.Effect.String() + "s"}[n.nature]
		if n.node.Effect == steps.Cutover {
			v.note = "it cuts over"
		}
	}
	c.report(nil, n, v, nil)
}

// wayBack tells whether the step is the way back of one that is itself there or gone.
func (s *site) wayBack() bool {
	for _, role := range []runner.Role{runner.InUndo, runner.InRescue} {
		if of := s.above(role); of != nil && of.other == nil && !of.survives() {
			return true
		}
	}
	return false
}

// removed tells of a step that is gone.
func (c *comparison) removed(o *site) {
	if o.wayBack() {
		return
	}
	if o.node.Shape != runner.Leaf {
		c.regrouped(o, nil)
		return
	}
	v := verdict{rule: "step-removed", before: words(o)}
	switch {
	case o.in(runner.InRescue):
		v.rule = "rescue-removed"
	case o.in(runner.InUndo):
		v.rule = "undo-changed"
		if u := o.above(runner.InUndo); u != nil && u.other != nil && u.other.node.UndoMode == "none" {
			return // told by undo
		}
	case o.in(runner.InFinally):
		v.rule = "finally-removed"
	case o.nature == checks:
		v.rule = "check-removed"
	}
	c.report(o, nil, v, nil)
}

// in tells whether a step stands in a list of this role, itself or one around it.
func (s *site) in(role runner.Role) bool {
	for ; s != nil; s = s.parent {
		if s.role == role {
			return true
		}
	}
	return false
}

// above is the step whose undo, rescue, … this stands in.
func (s *site) above(role runner.Role) *site {
	for ; s != nil; s = s.parent {
		if s.role == role {
			return s.parent
		}
	}
	return nil
}

// words name a step that is there or gone.
func words(s *site) string {
	text := s.node.Kind.Name
	for i := range s.facts {
		if f := &s.facts[i]; f.Field == "target" {
			text += " on " + s.written(f)
		}
	}
	return text
}

// regrouped compares a group, or a use of a runbook, with no group at all: for its steps
// that are on both sides it is what it says that matters.
func (c *comparison) regrouped(o, n *site) {
	s := n
	if s == nil {
		s = o
	}
	survives := s.survives()
	told := false
	olds, news := map[string]*runner.Fact{}, map[string]*runner.Fact{}
	if o != nil {
		olds = byField(o.facts)
	} else {
		news = byField(n.facts)
	}
	for i := range s.facts {
		field := s.facts[i].Field
		if headless(field, olds, news) || strings.HasPrefix(field, "outputs.") || field == "effect" {
			continue
		}
		if survives {
			for _, v := range c.judge(o, n, field, olds[field], news[field]) {
				v.field = field
				v.note = join(v.note, map[bool]string{true: "with the group around its steps", false: "by the group around its steps"}[o != nil])
				c.report(o, n, v, &s.facts[i])
				told = true
			}
		}
	}
	if told || !survives && o != nil {
		return
	}
	v := verdict{rule: "regrouped"}
	kind := "group"
	if s.node.Shape == runner.Call {
		kind = s.node.Step.Uses.Value
	}
	if o != nil {
		v.before = kind
	} else {
		v.after = kind
	}
	c.report(o, n, v, nil)
}

// survives tells whether some of what stands in it is on the other side too.
func (s *site) survives() bool {
	for _, in := range s.inner {
		if in.other != nil || in.survives() {
			return true
		}
	}
	return false
}
