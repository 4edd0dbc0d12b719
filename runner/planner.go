package runner

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

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
	if g == nil || g.Builtin && s.asked {
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
	inner.asked = s.asked || n.asks()
	ps.Steps = pl.list(inner, n.Sub.Steps)
	ps.Finally = pl.list(inner, n.Sub.Finally)
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
		h.gate = n.Confirm != nil && !(n.Confirm.Builtin && s.asked)
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
