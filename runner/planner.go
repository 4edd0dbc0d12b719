package runner

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// planner walks a program as the engine does, with what is known before it runs.
type planner struct {
	program  *Program
	chosen   func(*Node) bool
	findings []schema.Finding
	reported map[string]bool // findings and warnings that are told
	leftOut  int

	counts  [4]int
	unknown int
	heads   []*headEntry
	byHead  map[string]*headEntry
	pause   string
	facts   map[*Node]*nodeFacts
}

// headEntry is a step as the plan's head names it: once, however often it repeats.
type headEntry struct {
	name         string
	count        int
	irreversible string
	gate         bool
}

// planScope is what expressions may read at one place of the tree.
type planScope struct {
	unit   *Unit
	parent *planScope // of the caller; nil in the runbook itself
	prefix string     // of journal paths
	within string     // names of the runbooks around it, for the plan's head
	env    map[string]any
	// unknown says why a name (item, inputs.x, vars.y, targets.z) has no value yet.
	unknown map[string]string
	targets map[string]*planTarget
	fan     string // name of the fan-out's target
	// quiet: the same was told of another item; nothing is counted here.
	template bool
}

type planTarget struct {
	PlanTarget
	shown map[string]any
}

// nodeFacts are what is the same for every item of a node, worked out once.
type nodeFacts struct {
	settings  []PlanSetting
	fixedSet  bool
	constant  *steps.Change
	constUndo string
	constErr  error
	haveConst bool
}

const whileRunning = "while running"

// root makes the scope of the runbook itself, and the plan's head lines about it.
func (pl *planner) root(in *Inputs, plan *Plan) *planScope {
	u := pl.program.Root
	secrets := map[string]any{}
	for _, s := range u.Secrets {
		secrets[s.Name] = SecretText(s.Name)
		plan.Secrets = append(plan.Secrets, PlanSecret{Name: s.Name, From: s.source()})
	}
	inputs := map[string]any{}
	for _, i := range u.Inputs {
		if i.Kind == "secret" {
			inputs[i.Name] = SecretText(i.Name)
			continue
		}
		inputs[i.Name] = in.Values[i.Name]
		plan.Inputs = append(plan.Inputs, PlanValue{Name: i.Name, Type: i.Kind, Value: jsonable(in.Values[i.Name]), Origin: in.Origins[i.Name]})
	}
	s := pl.enter(nil, u, "", "", inputs, map[string]string{}, secrets)
	for _, v := range u.Vars {
		pv := PlanValue{Name: v.Name, Unknown: s.unknown["vars."+v.Name]}
		if pv.Unknown == "" {
			pv.Value = jsonable(s.env["vars"].(map[string]any)[v.Name])
		}
		plan.Vars = append(plan.Vars, pv)
	}
	for _, t := range u.Targets {
		plan.Targets = append(plan.Targets, s.targets[t.Name].PlanTarget)
	}
	if u.Lock != nil {
		plan.Lock = pl.text(s, u.Lock)
	}
	return s
}

func (s *Secret) source() string {
	switch d := s.Decl; {
	case d.Env.Set:
		return "environment variable " + d.Env.Value
	case d.File.Set:
		return "file " + d.File.Value
	case len(d.Command) > 0:
		return "command " + d.Command[0].Value
	}
	return ""
}

// enter makes the scope of a unit whose inputs are bound as far as they are known.
func (pl *planner) enter(parent *planScope, u *Unit, prefix, within string, inputs map[string]any, unknown map[string]string, secrets map[string]any) *planScope {
	vars, shown := map[string]any{}, map[string]any{}
	s := &planScope{unit: u, parent: parent, prefix: prefix, within: within, unknown: unknown, targets: map[string]*planTarget{},
		env: map[string]any{"inputs": inputs, "vars": vars, "targets": shown, "run": map[string]any{"name": pl.program.Root.Book.Name.Value}}}
	if parent != nil {
		s.template = parent.template
	}
	if secrets != nil {
		s.env["secrets"] = secrets
	}
	for _, in := range u.Inputs {
		if name, ok := targetName(inputs[in.Name]); ok && in.Kind == "target" && parent != nil {
			if t := parent.targets[name]; t != nil {
				s.targets[name], inputs[in.Name] = t, t.shown
			}
		}
	}
	for _, v := range u.Vars {
		value, why, err := pl.eval(s, v.Value)
		if err != nil {
			pl.problem(u, v.Value.At, "vars", fmt.Sprintf("vars.%s: %v", v.Name, err))
			why = "it fails"
		}
		if why != "" {
			s.unknown["vars."+v.Name] = why
			continue
		}
		vars[v.Name] = value
	}
	for _, t := range u.Targets {
		pt := pl.target(s, t.Name, t.Kind, t.Config, t.Decl.Span)
		labels := map[string]any{}
		for _, l := range t.Decl.Labels {
			labels[l.Key.Value] = l.Value.Value
		}
		pt.shown["labels"] = labels
		if t.Decl.Group.Set {
			pt.shown["group"] = t.Decl.Group.Value
		}
		if t.Facts != nil {
			facts, why, err := pl.eval(s, t.Facts)
			if err == nil && why == "" && facts != nil {
				pt.shown["facts"] = facts
			}
		}
		s.targets[t.Name] = pt
		shown[t.Name] = pt.shown
		if pt.Unknown != "" {
			s.unknown["targets."+t.Name] = pt.Unknown
		}
	}
	for _, in := range u.Inputs {
		if name, ok := inputs[in.Name].(string); ok && in.Kind == "target" {
			if t := s.targets[name]; t != nil {
				inputs[in.Name] = t.shown
			}
		}
	}
	return s
}

// target evaluates a declaration of a target.
func (pl *planner) target(s *planScope, name string, def *steps.TargetDefinition, config *Template, at schema.Span) *planTarget {
	pt := &planTarget{PlanTarget: PlanTarget{Name: name}}
	if def != nil {
		pt.Kind = def.Name
	}
	pt.shown = map[string]any{"name": name, "kind": pt.Kind, "addr": "", "group": nil, "labels": map[string]any{}, "facts": map[string]any{}}
	v, why, err := pl.eval(s, config)
	switch {
	case err != nil:
		pl.problem(s.unit, at, "target", fmt.Sprintf("target %s: %v", name, err))
		return pt
	case why != "":
		pt.Unknown = why
		if a := config.entry("addr"); a != nil {
			pt.Addr = pl.text(s, a)
		}
		return pt
	case def == nil:
		return pt
	}
	values, _ := v.(map[string]any)
	cfg := reflect.New(def.Config).Interface()
	if err := schema.Bind(values, cfg); err != nil {
		pl.problem(s.unit, at, "target", fmt.Sprintf("target %s: %v", name, err))
		return pt
	}
	pt.Addr = def.Addr(cfg)
	pt.shown["addr"] = pt.Addr
	return pt
}

// why tells the first reason for which names cannot be read yet; empty: all can.
func (s *planScope) why(refs []expression.Ref) string {
	for i := range refs {
		if w := s.whyRef(&refs[i]); w != "" {
			return w
		}
	}
	return ""
}

func (s *planScope) whyRef(r *expression.Ref) string {
	switch first := r.Path[0]; first {
	case "steps":
		if len(r.Path) > 1 {
			return "after " + r.Path[1]
		}
		return whileRunning
	case "run":
		if len(r.Path) > 1 && r.Path[1] == "name" {
			return ""
		}
		return whileRunning
	case "inputs", "vars", "targets":
		if len(s.unknown) == 0 {
			return ""
		}
		if len(r.Path) > 1 {
			return s.unknown[first+"."+r.Path[1]]
		}
		for name, w := range s.unknown {
			if strings.HasPrefix(name, first+".") {
				return w
			}
		}
		return ""
	default:
		if w := s.unknown[first]; w != "" {
			return w
		}
		if _, known := s.env[first]; known {
			return ""
		}
		return whileRunning
	}
}

// eval evaluates a template; why says what it waits for where it cannot be.
func (pl *planner) eval(s *planScope, t *Template) (v any, why string, err error) {
	if t == nil {
		return nil, "", nil
	}
	if t.Constant {
		return t.Literal, "", nil
	}
	t.each(func(p *expression.Program) {
		if why == "" {
			why = s.why(p.Refs)
		}
	})
	if why != "" {
		return nil, why, nil
	}
	v, err = t.Eval(s.env)
	return v, "", err
}

// partial is a template's value as far as it is known, with (after STEP) in the places of the rest.
func (pl *planner) partial(s *planScope, t *Template) any {
	v, why, err := pl.eval(s, t)
	switch {
	case err != nil:
		return "(" + err.Error() + ")"
	case why == "":
		return jsonable(plain(v))
	case t.Cond != nil:
		return t.Cond.Expr.Source
	case t.Expr != nil:
		return "(" + why + ")"
	case t.Parts != nil:
		return pl.text(s, t)
	case t.Map != nil:
		m := make(map[string]any, len(t.Map))
		for _, e := range t.Map {
			m[e.Key] = pl.partial(s, e.Value)
		}
		return m
	}
	list := make([]any, len(t.List))
	for i, e := range t.List {
		list[i] = pl.partial(s, e)
	}
	return list
}

// plain gives the conditions in a value as their text: their parts are of a run.
func plain(v any) any {
	switch v := v.(type) {
	case schema.Condition:
		return v.Text
	case []any:
		for i := range v {
			if _, ok := v[i].(schema.Condition); ok {
				list := make([]any, len(v))
				for i := range v {
					list[i] = plain(v[i])
				}
				return list
			}
		}
	case map[string]any:
		for _, e := range v {
			switch e.(type) {
			case schema.Condition, []any:
				m := make(map[string]any, len(v))
				for k, e := range v {
					m[k] = plain(e)
				}
				return m
			}
		}
	}
	return v
}

// text is a template as people read it, with (after STEP) for what is not known.
func (pl *planner) text(s *planScope, t *Template) string {
	if t == nil {
		return ""
	}
	if t.Constant || t.Parts == nil {
		v, why, err := pl.eval(s, t)
		switch {
		case err != nil:
			return "(" + err.Error() + ")"
		case why != "":
			return "(" + why + ")"
		case v == nil:
			return ""
		}
		return ShowValue(v)
	}
	var b strings.Builder
	for _, p := range t.Parts {
		switch {
		case p.Expr == nil:
			b.WriteString(p.Literal)
		case s.why(p.Expr.Refs) != "":
			b.WriteString("(" + s.why(p.Expr.Refs) + ")")
		default:
			v, err := p.Expr.Eval(s.env)
			if err != nil {
				b.WriteString("(" + err.Error() + ")")
			} else {
				b.WriteString(ShowValue(v))
			}
		}
	}
	return b.String()
}

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
		pl.gate(s, n, ps)
	}
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
		inner := s.with(s.prefix, nil, map[string]string{"error": "when it fails"})
		inner.template = true
		ps.Rescue = pl.list(inner, n.Rescue)
	}
	pl.head(s, n, ps)
	return ps
}

// describe is what a step says of itself.
func (pl *planner) describe(s *planScope, n *Node, ps *PlanStep) {
	ps.Name, ps.Why = pl.text(s, n.Name), strings.TrimSpace(pl.text(s, n.Why))
}

// with is a scope further in: names added, and paths that begin with prefix.
func (s *planScope) with(prefix string, names map[string]any, unknown map[string]string) *planScope {
	inner := *s
	inner.prefix = prefix
	if len(names) > 0 {
		inner.env = make(map[string]any, len(s.env)+len(names))
		for k, v := range s.env {
			inner.env[k] = v
		}
		for k, v := range names {
			inner.env[k] = v
		}
	}
	if len(unknown) > 0 || len(names) > 0 && len(s.unknown) > 0 {
		inner.unknown = make(map[string]string, len(s.unknown)+len(unknown))
		for k, v := range s.unknown {
			if _, known := names[k]; !known {
				inner.unknown[k] = v
			}
		}
		for k, v := range unknown {
			inner.unknown[k] = v
		}
	}
	return &inner
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

// conditions are shown in the order in which they are asked.
func (pl *planner) conditions(s *planScope, n *Node, ps *PlanStep, whole bool) {
	add := func(key string, c *Condition, own bool) {
		if c == nil {
			return
		}
		pc := PlanCondition{Key: key, Text: c.Expr.Source}
		if own {
			pc.After = ""
		} else if why := s.why(c.Expr.Refs); why != "" {
			pc.After = why
		} else if v, err := c.Expr.Eval(s.env); err != nil {
			pl.problem(n.Unit, c.At.Span, key, fmt.Sprintf("step %s: %s: %s: %v", ps.Path, key, c.Expr.Source, err))
		} else if b, ok := v.(bool); ok {
			pc.Value = &b
			if !b && key == "when" {
				ps.Skipped = "when: " + c.Expr.Source + " is false"
			}
		}
		ps.Conditions = append(ps.Conditions, pc)
	}
	looped := n.Loop != nil || n.FanOut
	if !looped || !whole { // of each item
		add("when", n.When, false)
	}
	if whole {
		for _, c := range n.Require {
			add("require", c, false)
		}
	}
	if looped && whole {
		return
	}
	if n.Wait != nil {
		add("wait-until", n.Wait.Until, true)
	}
	for _, c := range n.Expect {
		add("expect", c, true)
	}
	add("retry-if", n.Retry.If, true)
	add("ready", n.Ready, true)
	if n.Repeat != nil {
		add("repeat-until", n.Repeat.Until, true)
	}
	if n.Probe != nil {
		add("probe", n.Probe.Done, true)
	}
}

// settings are the times and counts of a step, those written and those in force.
func (pl *planner) settings(s *planScope, n *Node, f *nodeFacts) []PlanSetting {
	if f.fixedSet {
		return f.settings
	}
	var list []PlanSetting
	fixed := true
	add := func(key, value string, isFixed bool) {
		fixed = fixed && isFixed
		list = append(list, PlanSetting{key, value})
	}
	if w := n.Wait; w != nil {
		every, known := settingText(pl, s, w.Every)
		if every == "" || every == "0s" {
			every = "1s"
		}
		add("every", every, known)
		for _, o := range []struct {
			key string
			set Setting[time.Duration]
		}{{"stable", w.Stable}, {"stall", w.Stall}} {
			if text, known := settingText(pl, s, o.set); o.set.Set {
				add(o.key, text, known)
			}
		}
		if w.All {
			add("wait-all", "true", true)
		}
	}
	if r := n.Repeat; r != nil {
		text, known := settingText(pl, s, r.Max)
		add("max", text, known)
		if text, known := settingText(pl, s, r.Every); r.Every.Set {
			add("every", text, known)
		}
	}
	if r := n.Retry; r.Written {
		text, known := settingText(pl, s, r.Attempts)
		words := text + " attempts"
		if delay, k := settingText(pl, s, r.Delay); r.Delay.Set {
			words += ", delay " + delay
			known = known && k
		}
		if r.Factor != 0 && r.Factor != 1 {
			words += ", factor " + strconv.FormatFloat(r.Factor, 'g', -1, 64)
		}
		if most, k := settingText(pl, s, r.MaxDelay); r.MaxDelay.Set {
			words += ", at most " + most
			known = known && k
		}
		add("retry", words, known)
	}
	switch text, known := settingText(pl, s, n.Timeout); {
	case n.Timeout.Set:
		add("timeout", text, known)
	case n.Shape == Leaf && !n.Background && n.Kind != nil && n.Kind.Engine != steps.EngineGate:
		add("timeout", "10m", true)
	}
	if text, known := settingText(pl, s, n.AttemptTimeout); n.AttemptTimeout.Set {
		add("attempt-timeout", text, known)
	}
	for _, flag := range []struct {
		key string
		on  bool
	}{{"recheck", n.Recheck}, {"background", n.Background}} {
		if flag.on {
			add(flag.key, "true", true)
		}
	}
	if n.Restore {
		add("restore", "when the run is over", true)
	}
	if fixed {
		f.settings, f.fixedSet = list, true
	}
	return list
}

// settingText is a setting as people read it; known is false where another item may have another.
func settingText[T any](pl *planner, s *planScope, set Setting[T]) (text string, known bool) {
	if set.Expr == nil {
		if d, ok := any(set.Value).(time.Duration); ok {
			return shortDuration(d), true
		}
		return fmt.Sprint(set.Value), true
	}
	if why := s.why(set.Expr.Refs); why != "" {
		return "(" + why + ")", false
	}
	v, err := set.Expr.Eval(s.env)
	if err != nil {
		return "(" + err.Error() + ")", false
	}
	if d, ok := v.(time.Duration); ok {
		return shortDuration(d), false
	}
	return ShowValue(v), false
}

// gate is the question that a step asks before it acts.
func (pl *planner) gate(s *planScope, n *Node, ps *PlanStep) {
	g := n.Confirm
	if g == nil {
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
	}
}

// leaf plans a step that uses a kind.
func (pl *planner) leaf(s *planScope, n *Node, ps *PlanStep, f *nodeFacts) {
	ps.Kind = n.Kind.Name
	if !s.template && ps.Skipped == "" {
		defer func() { pl.count(n, ps) }()
	}
	if t, ok := pl.stepTarget(s, n, ps.Path); ok {
		ps.Targets = []PlanTarget{t}
	}
	in, why := pl.inputs(s, n, ps)
	if why != "" {
		ps.Undo, ps.NoUndo = pl.undoOf(n, nil)
		return
	}
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
	if n.UndoMode == "steps" && len(n.UndoSteps) > 0 {
		inner := s.with(s.prefix, nil, nil)
		inner.template = true
		ps.UndoSteps = pl.list(inner, n.UndoSteps)
	}
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
	case n.Effect == steps.Read || k.NothingToUndo:
		return "", ""
	case k.HasUndo && words != nil && *words != "":
		return *words, ""
	case k.HasUndo:
		return "the inverse of " + k.Name, ""
	case k.NoUndo != "":
		return "", k.NoUndo
	}
	return "", k.Name + " has no inverse"
}

// inputs binds what a step is given. why says what it waits for; then the step shows
// its inputs as far as they are known, and the kind is not asked.
func (pl *planner) inputs(s *planScope, n *Node, ps *PlanStep) (in any, why string) {
	if n.BoundIn != nil {
		if n.Effect == steps.Read {
			ps.With = pl.with(s, n.With)
		}
		return n.BoundIn, ""
	}
	v, why, err := pl.eval(s, n.With)
	if why != "" {
		ps.With = pl.with(s, n.With)
		return nil, why
	}
	if err != nil {
		pl.problem(n.Unit, spanOf(n), "with", fmt.Sprintf("step %s: with: %v", ps.Path, err))
		return nil, "it fails"
	}
	if n.Effect == steps.Read {
		ps.With = pl.with(s, n.With)
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

// with shows inputs in the order of the file.
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
	return list
}

// stepTarget is what one step acts on.
func (pl *planner) stepTarget(s *planScope, n *Node, path string) (PlanTarget, bool) {
	b := n.Target
	switch {
	case n.FanOut:
		if t := s.targets[s.fan]; t != nil {
			return t.PlanTarget, true
		}
		return PlanTarget{Name: s.fan}, true
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
		inner.template = true
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
	inner.template = s.template || ps.Skipped != ""
	ps.Steps = pl.list(inner, n.Sub.Steps)
	ps.Finally = pl.list(inner, n.Sub.Finally)
}

// fanOut plans a step for each of its targets.
func (pl *planner) fanOut(s *planScope, n *Node, path string) *PlanStep {
	ps := pl.container(s, n, path, ShapeFanOut)
	ps.Loop = &PlanLoop{Items: len(n.Targets)}
	pl.loopSettings(s, n, ps)
	for _, t := range n.Targets {
		at := itemPath(n, path, t.Name)
		inner := s.with(at+"/", map[string]any{"item": s.targets[t.Name].shown}, nil)
		inner.fan = t.Name
		ps.Steps = append(ps.Steps, pl.one(inner, n, at, false))
		ps.Targets = append(ps.Targets, s.targets[t.Name].PlanTarget)
	}
	return ps
}

// container is the head of a loop or fan-out: what is asked once.
func (pl *planner) container(s *planScope, n *Node, path, shape string) *PlanStep {
	ps := &PlanStep{Path: path, ID: n.ID, Shape: shape, Effect: n.Effect.String(), Tags: n.Tags, OnFailure: n.OnFailure, node: n}
	if n.Shape == Leaf {
		ps.Kind = n.Kind.Name
	} else if n.Shape == Call {
		ps.Kind = n.Step.Uses.Value
	}
	quiet := s.with(s.prefix, nil, nil)
	quiet.unknown = map[string]string{}
	for k, v := range s.unknown {
		quiet.unknown[k] = v
	}
	if n.Loop != nil {
		quiet.unknown[n.Loop.As], quiet.unknown["index"] = "of each item", "of each item"
	}
	pl.describe(quiet, n, ps)
	pl.conditions(s, n, ps, true)
	pl.gate(quiet, n, ps)
	if len(n.Rescue) > 0 {
		inner := s.with(s.prefix, nil, map[string]string{"error": "when it fails"})
		inner.template = true
		ps.Rescue = pl.list(inner, n.Rescue)
	}
	return ps
}

// loop plans a node for each item of its list, where that is known, and once for all otherwise.
func (pl *planner) loop(s *planScope, n *Node, path string) *PlanStep {
	l := n.Loop
	ps := pl.container(s, n, path, ShapeLoop)
	ps.Loop = &PlanLoop{As: l.As, Over: templateSource(l.Over), Items: -1}
	pl.loopSettings(s, n, ps)
	v, why, err := pl.eval(s, l.Over)
	var items []item
	if err == nil && why == "" {
		items, err = pl.items(s, n, path, v)
	}
	if err != nil {
		pl.problem(n.Unit, l.Over.At, "for-each", fmt.Sprintf("step %s: %v", path, err))
		why = "it fails"
	}
	if why != "" {
		ps.Loop.Unknown = why
		pl.unknown++
		inner := s.with(itemPath(n, path, "*")+"/", nil, map[string]string{l.As: "of each item", "index": "of each item"})
		inner.template = true
		one := pl.one(inner, n, strings.TrimSuffix(inner.prefix, "/"), false)
		ps.Steps = []*PlanStep{one}
		pl.head(s, n, one)
		return ps
	}
	ps.Loop.Items = len(items)
	ps.Steps = make([]*PlanStep, 0, len(items))
	for i, it := range items {
		inner := s.with(it.path+"/", map[string]any{l.As: it.value, "index": i}, nil)
		ps.Steps = append(ps.Steps, pl.one(inner, n, it.path, false))
	}
	pl.batches(s, n, ps, len(items))
	return ps
}

// loopSettings are those of a loop, or of a fan-out that says how many at a time.
func (pl *planner) loopSettings(s *planScope, n *Node, ps *PlanStep) {
	l := n.Loop
	if l == nil {
		return
	}
	for _, o := range []struct {
		key string
		set Setting[int]
	}{{"max-parallel", l.MaxParallel}, {"max-failures", l.MaxFailures}} {
		if o.set.Set {
			text, _ := settingText(pl, s, o.set)
			ps.Settings = append(ps.Settings, PlanSetting{o.key, text})
		}
	}
	if l.PauseBetween.Set {
		ps.Loop.Pause, _ = settingText(pl, s, l.PauseBetween)
	}
	if l.OnChange != "" {
		ps.Settings = append(ps.Settings, PlanSetting{"on-change", l.OnChange})
	}
}

func (pl *planner) batches(s *planScope, n *Node, ps *PlanStep, items int) {
	if n.Loop.Batch != nil {
		v, why, err := pl.eval(s, n.Loop.Batch)
		if err == nil && why == "" {
			ps.Loop.Batches, err = waveSizes(v, items)
		}
		if err != nil {
			pl.problem(n.Unit, n.Loop.Batch.At, "batch", fmt.Sprintf("step %s: %v", ps.Path, err))
		}
	}
	if len(n.AfterBatch) > 0 {
		inner := s.with(ps.Path+"[batch *]/", nil, map[string]string{"batch": "of each wave"})
		inner.template = true
		ps.AfterBatch = pl.list(inner, n.AfterBatch)
	}
}

// items gives the items of a loop over a value, named as the engine names them.
func (pl *planner) items(s *planScope, n *Node, path string, over any) ([]item, error) {
	inner := s.with(s.prefix, map[string]any{n.Loop.As: nil, "index": 0}, nil)
	return loopItems(n, path, over, func(it item) (any, error) {
		inner.env[n.Loop.As], inner.env["index"] = it.value, it.index
		v, why, err := pl.eval(inner, n.Loop.Key)
		if why != "" {
			err = fmt.Errorf("it is only known %s", why)
		}
		return v, err
	})
}

// waveSizes gives the sizes of the waves of n items.
func waveSizes(spec any, n int) ([]int, error) {
	list, ok := spec.([]any)
	if !ok {
		list = []any{spec}
	}
	if len(list) == 0 {
		return nil, errors.New("batch: it is empty")
	}
	var waves []int
	for i, left := 0, n; left > 0; i++ {
		size, err := waveSize(list[min(i, len(list)-1)], n)
		if err != nil {
			return nil, err
		}
		waves = append(waves, min(size, left))
		left -= waves[i]
	}
	return waves, nil
}

// templateSource is what the author wrote, as far as one line tells it.
func templateSource(t *Template) string {
	switch {
	case t == nil:
		return ""
	case t.Expr != nil:
		return t.Expr.Source
	case t.Constant:
		text := ShowValue(t.Literal)
		if len(text) > 60 {
			text = text[:57] + "…"
		}
		return text
	}
	return "a list"
}

// count adds a single step to the plan's head.
func (pl *planner) count(n *Node, ps *PlanStep) {
	effect, _ := steps.ParseEffect(ps.Effect)
	pl.counts[effect]++
	if p := ps.Pause; p != "" && (pl.pause == "" || pauseOf(p) > pauseOf(pl.pause)) {
		pl.pause = p
	}
}

// head notes a step that the plan's head names.
func (pl *planner) head(s *planScope, n *Node, ps *PlanStep) {
	if n.Role == InUndo || n.Role == InRescue {
		return
	}
	name := s.within + n.ID
	h := pl.byHead[name]
	if h == nil {
		h = &headEntry{name: name}
		if pl.byHead == nil {
			pl.byHead = map[string]*headEntry{}
		}
		pl.byHead[name] = h
		pl.heads = append(pl.heads, h)
		h.gate = n.Confirm != nil || n.Kind != nil && n.Kind.Engine == steps.EngineGate
	}
	h.count++
	switch {
	case n.Shape != Leaf:
		if n.PointOfNoReturn {
			h.irreversible = "point of no return"
		}
	case n.PointOfNoReturn:
		h.irreversible = "point of no return"
	case n.Effect == steps.Destroy && n.UndoMode == "auto" && !n.Kind.HasUndo, n.Effect != steps.Read && ps.NoUndo != "" && n.UndoMode != "none":
		h.irreversible = ps.NoUndo
	}
}

func (pl *planner) summary() PlanSummary {
	c := pl.counts
	sum := PlanSummary{Steps: c[0] + c[1] + c[2] + c[3], Reads: c[0], Writes: c[1], Cutovers: c[2], Destroys: c[3], Unknown: pl.unknown, Pause: pl.pause}
	for _, h := range pl.heads {
		if h.irreversible != "" {
			sum.Irreversible = append(sum.Irreversible, h.name)
		}
		if h.gate {
			sum.Gates = append(sum.Gates, h.name)
		}
	}
	slices.Sort(sum.Irreversible)
	slices.Sort(sum.Gates)
	return sum
}

// shortDuration writes a duration without the zeros that Go puts behind it: 10m, not 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
