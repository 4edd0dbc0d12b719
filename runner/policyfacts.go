package runner

import (
	"reflect"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// single is a single step of a plan, with what stands around it. Steps that are known not to
// run are none, and neither is what stands under undo.
type single struct {
	*PlanStep
	effect steps.Effect
	in     *surrounding // nil at the top of the plan
	role   Role         // InRescue, InFinally: the step, or something around it, stands there
	people int          // how many must say yes to it: 0 nobody
	open   bool         // it stands in a loop of which nobody knows the items
	beside bool         // something else may run at the same time
	place  int          // in the order of the plan
}

// surrounding is what a step stands in: a group, a loop, an item of it, a runbook used as a step.
type surrounding struct {
	*PlanStep
	in *surrounding
}

// walk visits the single steps of a plan in order. With brief it visits two items of those of a
// loop that do the same to the same targets: to whoever asks what stands before what, the third
// is as the second.
func (p *Plan) walk(brief bool, visit func(*single)) {
	w := walking{brief: brief, visit: visit}
	w.list(p.Steps, single{role: InSteps})
	w.list(p.Finally, single{role: InFinally})
}

type walking struct {
	brief bool
	visit func(*single)
	place int
}

func (w *walking) list(list []*PlanStep, at single) {
	for _, ps := range list {
		w.step(ps, at)
	}
}

// step visits what is in a step; at is what is known of where it stands.
func (w *walking) step(ps *PlanStep, at single) {
	if ps.Skipped != "" {
		return
	}
	outside := at
	if g := ps.Confirm; g != nil {
		at.people = max(at.people, g.Approvals, 1)
	}
	if ps.Shape == ShapeStep {
		s := at
		s.PlanStep = ps
		s.effect, _ = steps.ParseEffect(ps.Effect)
		s.beside = s.beside || ps.node.Background
		s.place = w.place
		w.place++
		w.visit(&s)
	}
	at.in = &surrounding{PlanStep: ps, in: at.in}
	inner := at
	inner.beside = at.beside || ps.together()
	items := ps.Steps
	if ps.Shape == ShapeLoop {
		inner.open = at.open || ps.Loop.Unknown != ""
		if w.brief {
			items = differing(items)
		}
	}
	w.list(items, inner)
	w.list(ps.AfterBatch, at)
	w.list(ps.Finally, at)
	// A rescue runs as well where a person has said no, so their yes is not for it.
	outside.in, outside.role = at.in, InRescue
	w.list(ps.Rescue, outside)
}

// differing leaves out the items of a loop of which two stand before them that do the same.
func differing(items []*PlanStep) []*PlanStep {
	if len(items) <= 2 {
		return items
	}
	seen := map[string]int{}
	var kept []*PlanStep
	for _, item := range items {
		var b strings.Builder
		item.does(&b)
		if seen[b.String()]++; seen[b.String()] <= 2 {
			kept = append(kept, item)
		}
	}
	return kept
}

// does writes what a step does, to which targets.
func (p *PlanStep) does(b *strings.Builder) {
	if p.Skipped != "" {
		return
	}
	b.WriteString(p.ID)
	b.WriteByte(' ')
	b.WriteString(p.Effect)
	for _, t := range p.Targets {
		b.WriteByte(' ')
		b.WriteString(t.Name)
	}
	b.WriteByte('\n')
	for _, list := range [][]*PlanStep{p.Steps, p.AfterBatch, p.Rescue, p.Finally} {
		for _, inner := range list {
			inner.does(b)
		}
	}
}

// reach is what a step acts on or asks: names and addresses of targets, and slots.
type reach struct {
	on    map[string]bool
	slots map[int]bool
}

// reachOf reads the reach of a step from its target and its inputs. A target that only a run
// can tell stands there as the expression that gives it: the same expression is the same target.
func reachOf(ps *PlanStep) reach {
	r := reach{on: map[string]bool{}, slots: map[int]bool{}}
	for _, t := range ps.Targets {
		switch {
		case t.Unknown == "":
			r.on[t.Name] = true
			if t.Addr != "" {
				r.on[t.Addr] = true
			}
		case ps.node.Target != nil && ps.node.Target.Expr != nil:
			r.on["${{ "+ps.node.Target.Expr.Source+" }}"] = true
		}
	}
	eachInput(ps, func(t reflect.Type, v any) {
		switch t {
		case goTarget, goEndpoint:
			eachText(v, func(name string) { r.on[name] = true })
		case goSlots:
			for _, slot := range namedSlots(v) {
				r.slots[slot] = true
			}
		}
	})
	return r
}

// nowhere: it acts on no target and no slot that can be told apart, such as a command does.
func (r reach) nowhere() bool { return len(r.on) == 0 && len(r.slots) == 0 }

// meets tells whether two reaches have a target or a slot in common.
func (r reach) meets(other reach) bool {
	for name := range r.on {
		if other.on[name] {
			return true
		}
	}
	for slot := range r.slots {
		if other.slots[slot] {
			return true
		}
	}
	return false
}

// eachInput visits the inputs of a step with the type that its kind declares.
func eachInput(ps *PlanStep, visit func(t reflect.Type, value any)) {
	if ps.node.Kind == nil || len(ps.With) == 0 {
		return
	}
	in := ps.node.Kind.In
	for i := range in.NumField() {
		f := in.Field(i)
		t := f.Type
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t != goSlots {
			t = t.Elem()
		}
		if t != goTarget && t != goEndpoint && t != goSlots {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		for _, v := range ps.With {
			if v.Name == name {
				visit(t, v.Value)
			}
		}
	}
}

func eachText(v any, visit func(string)) {
	switch v := v.(type) {
	case string:
		visit(v)
	case []any:
		for _, e := range v {
			eachText(e, visit)
		}
	}
}

// namedSlots are the slots that an input names; none where it is not known which.
func namedSlots(v any) schema.Slots {
	switch v := v.(type) {
	case int:
		return schema.Slots{v}
	case string:
		slots, _ := schema.ParseSlots(v) // (after STEP) is no slot
		return slots
	case []any:
		var slots schema.Slots
		for _, e := range v {
			if n, ok := e.(int); ok {
				slots = append(slots, n)
			}
		}
		return slots
	}
	return nil
}

// slotsKnown tells whether all slots among a step's inputs are known.
func (p *PlanStep) slotsKnown() bool {
	known := true
	eachInput(p, func(t reflect.Type, v any) {
		if text, ok := v.(string); ok && t == goSlots {
			_, err := schema.ParseSlots(text)
			known = known && err == nil
		}
	})
	return known
}

// written is where what the author says of a step stands in the plan: of an item, at its loop.
func (s *single) written() *PlanStep {
	if s.in != nil && s.in.node == s.node {
		return s.in.PlanStep
	}
	return s.PlanStep
}

// setting is a duration among a step's settings; nil: none, or only known while running.
func (p *PlanStep) setting(key string) any {
	for _, s := range p.Settings {
		if s.Key == key {
			if d, err := schema.ParseDuration(s.Value); err == nil {
				return d
			}
		}
	}
	return nil
}

// width is how many single steps of a list may run at the same time. counts says which ones
// count; most, how many items a loop has of which nobody knows, and its max-parallel.
func width(list []*PlanStep, beside bool, most int, counts func(*PlanStep) bool) int {
	widest, sum, behind := 0, 0, 0 // behind: background steps that were started before
	for _, ps := range list {
		n := ps.width(most, counts)
		sum += n
		widest = max(widest, behind+n)
		if ps.node.Background {
			behind += n
		}
	}
	if beside {
		return sum
	}
	return widest
}

func (p *PlanStep) width(most int, counts func(*PlanStep) bool) int {
	if p.Skipped != "" {
		return 0
	}
	inside := 0
	switch p.Shape {
	case ShapeStep:
		if counts(p) {
			inside = 1
		}
	case ShapeLoop, ShapeFanOut:
		inside = p.loopWidth(most, counts)
	default:
		inside = width(p.Steps, p.Parallel, most, counts)
	}
	for _, list := range [][]*PlanStep{p.AfterBatch, p.Rescue, p.Finally} {
		inside = max(inside, width(list, false, most, counts))
	}
	return inside
}

func (p *PlanStep) loopWidth(most int, counts func(*PlanStep) bool) int {
	widest, items := 0, len(p.Steps)
	for _, item := range p.Steps {
		widest = max(widest, item.width(most, counts))
	}
	if p.Loop.Unknown != "" {
		items = most
	}
	together := 1
	if l := p.node.Loop; l != nil && l.MaxParallel.Set {
		together = l.MaxParallel.Value
		if l.MaxParallel.Expr != nil {
			together = p.number("max-parallel", most)
		}
	}
	return min(together, items) * widest
}

// together tells whether what a step holds may run at the same time.
func (p *PlanStep) together() bool {
	l := p.node.Loop
	return p.Parallel || (p.Shape == ShapeLoop || p.Shape == ShapeFanOut) && l != nil && (l.MaxParallel.Expr != nil || l.MaxParallel.Value > 1)
}

// number is a number among a step's settings; unknown where only a run can tell it.
func (p *PlanStep) number(key string, unknown int) int {
	for _, s := range p.Settings {
		if s.Key == key {
			n := 0
			for _, c := range s.Value {
				if c < '0' || c > '9' || n > 1<<30 {
					return unknown
				}
				n = 10*n + int(c-'0')
			}
			return n
		}
	}
	return unknown
}

// pauses tells the longest time that clients may wait at a step, as it is declared; known is
// false where only a run can tell. No pause is 0.
func (p *PlanStep) pauses() (longest time.Duration, known bool) {
	if p.Pause == "" {
		return 0, !p.unsure || p.Effect != steps.Cutover.String() || p.node.Kind.AuthorKnows
	}
	d, err := schema.ParseDuration(strings.TrimSpace(p.Pause))
	return d, err == nil
}
