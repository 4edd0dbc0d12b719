package runner

import (
	"slices"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// supposing is what is taken for granted of what only a run can know. A policy is asked under
// each of the three: where they agree, it makes no difference what the run will find.
type supposing int

const (
	least supposing = iota // a loop over a list that nobody knows yet has no items
	once                   // it has one
	most                   // it has a thousand, all slots are touched, a pause is a year
)

const (
	manyItems = 1000
	manySteps = 100_000 // of plan.steps in all
	longPause = 365 * 24 * time.Hour
	allSlots  = 16384
)

// of is how often a step counts that stands in a loop of which nobody knows the items.
func (s supposing) of(open bool) int {
	switch {
	case !open || s == once:
		return 1
	case s == least:
		return 0
	}
	return manyItems
}

// planFacts are what policies read of a plan, worked out when the first of them asks.
type planFacts struct {
	*Plan
	values  map[string]any // of the inputs, but for secrets
	targets map[string]*planTarget
	singles []*single
	// What only a run can know: steps by path.
	openLoops, openPauses, openSlots []string
}

// factsOfPlan collects them; s is the scope of the runbook itself.
func factsOfPlan(plan *Plan, s *planScope) *planFacts {
	f := &planFacts{Plan: plan, values: map[string]any{}, targets: s.targets, openLoops: plan.Summary.UnknownLoops}
	inputs, _ := s.env["inputs"].(map[string]any)
	for _, in := range s.unit.Inputs {
		if in.Kind != "secret" {
			f.values[in.Name] = inputs[in.Name]
		}
	}
	plan.walk(false, func(one *single) {
		f.singles = append(f.singles, one)
		if _, known := one.pauses(); !known {
			f.openPauses = append(f.openPauses, one.Path)
		}
		if one.effect != steps.Read && !one.slotsKnown() {
			f.openSlots = append(f.openSlots, one.Path)
		}
	})
	return f
}

// unknown says in words what of the fields that are read only a run can know; empty: nothing.
func (f *planFacts) unknown(reads func(field string) bool) string {
	var words []string
	add := func(what string, paths []string) {
		if len(paths) > 3 { // enough to see why
			paths = append(slices.Clone(paths[:3]), "…")
		}
		if len(paths) > 0 {
			words = append(words, what+" of "+strings.Join(paths, ", "))
		}
	}
	add("the items", f.openLoops)
	if reads("longest_pause") {
		add("the pause", f.openPauses)
	}
	if reads("slots") {
		add("the slots", f.openSlots)
	}
	return strings.Join(words, "; ")
}

// policyField is a name that policies read, of the plan or of one of its steps.
type policyField[T any] struct {
	name  string
	typ   *expression.Type
	doc   string
	value func(of T, s supposing) any // in the form that expression.Value gives
}

// PolicyField is a name that policies read, for reference pages.
type PolicyField struct{ Name, Type, Doc string }

// PolicyFields are the fields of plan, and those of an element of plan.steps.
func PolicyFields() (plan, step []PolicyField) {
	for _, f := range planFields(anyMapType) {
		plan = append(plan, PolicyField{f.name, typeWords(f.typ), f.doc})
	}
	for _, f := range stepFields() {
		step = append(step, PolicyField{f.name, typeWords(f.typ), f.doc})
	}
	return plan, step
}

// typeWords is a type as reference pages have it: what is in the elements of a list is told elsewhere.
func typeWords(t *expression.Type) string {
	if t.Kind == expression.List && t.Elem.Kind == expression.Object {
		if _, ok := isTarget(t.Elem); ok {
			return "list of targets"
		}
		return "list of steps"
	}
	return t.String()
}

// planType is what a policy sees as plan.
func planType(inputs *expression.Type) *expression.Type { return objectOf(planFields(inputs)) }

func objectOf[T any](list []policyField[T]) *expression.Type {
	fields := make(map[string]*expression.Type, len(list))
	for _, f := range list {
		fields[f.name] = f.typ
	}
	return object(fields)
}

// targetsType is a list of what expressions see of targets everywhere.
func targetsType() *expression.Type { return listOf(targetType("", anyMapType)) }

func planFields(inputs *expression.Type) []policyField[*planFacts] {
	count := func(effect steps.Effect) func(*planFacts, supposing) any {
		return func(f *planFacts, s supposing) any {
			n := 0
			for _, one := range f.singles {
				if one.effect == effect {
					n += s.of(one.open)
				}
			}
			return n
		}
	}
	text := func(get func(*planFacts) string) func(*planFacts, supposing) any {
		return func(f *planFacts, _ supposing) any { return get(f) }
	}
	list := func(get func(*planFacts) []string) func(*planFacts, supposing) any {
		return func(f *planFacts, _ supposing) any { return texts(get(f)) }
	}
	return []policyField[*planFacts]{
		{"name", stringType, "Name of the runbook.", text(func(f *planFacts) string { return f.Name })},
		{"path", stringType, "File of the runbook, as it was given.", text(func(f *planFacts) string { return f.Path })},
		{"labels", textMapType, "Labels of the runbook; one that is not there is null.", func(f *planFacts, _ supposing) any {
			labels := map[string]any{}
			for name, value := range f.Labels {
				labels[name] = value
			}
			return labels
		}},
		{"inputs", inputs, "Inputs with their values, but for secrets. Typed in a runbook; in a policy file any, and null where the runbook has no such input.",
			func(f *planFacts, _ supposing) any { return f.values }},
		{"reads", intType, "Steps that change nothing. Each item of a loop is one; what stands under rescue counts, what stands under undo does not.", count(steps.Read)},
		{"writes", intType, "Steps that change state; service is unaffected.", count(steps.Write)},
		{"cutovers", intType, "Steps that move live traffic.", count(steps.Cutover)},
		{"destroys", intType, "Steps after which data or an instance is gone.", count(steps.Destroy)},
		{"confirmed", boolType, "Every step that destroys something is behind a person's yes: its own confirm, that of a group, loop or caller around it, or the question that its kind asks by itself. " +
			"The yes to a step does not cover its rescue, which runs after a no as well. True where nothing is destroyed.", func(f *planFacts, s supposing) any {
			people, some := f.fewest(s, steps.Destroy)
			return !some || people > 0
		}},
		{"approvals", orNull(intType), "The smallest number of people that a step which destroys something or moves traffic is behind; 0: one of them asks nobody. Null where there is no such step.",
			func(f *planFacts, s supposing) any {
				if people, some := f.fewest(s, steps.Cutover, steps.Destroy); some {
					return people
				}
				return nil
			}},
		{"max_parallel", intType, "The most single steps that run at the same time: parallel groups, loops with max-parallel, background steps.",
			func(f *planFacts, s supposing) any { return f.width(s, func(*PlanStep) bool { return true }) }},
		{"max_parallel_changes", intType, "The same, of steps that are no reads.",
			func(f *planFacts, s supposing) any {
				return f.width(s, func(ps *PlanStep) bool { return ps.Effect != steps.Read.String() })
			}},
		{"longest_pause", orNull(durationType), "The longest time that clients may wait at one step, as declared. Null where none is declared.", func(f *planFacts, s supposing) any {
			if len(f.openPauses) > 0 && s == most {
				return longPause
			}
			var longest time.Duration
			for _, one := range f.singles {
				if d, _ := one.pauses(); s.of(one.open) > 0 {
					longest = max(longest, d)
				}
			}
			if longest == 0 {
				return nil
			}
			return longest
		}},
		{"targets", targetsType(), "Targets of the runbook, of all kinds: name, kind, addr, group, labels, facts.", func(f *planFacts, _ supposing) any {
			all := make([]any, 0, len(f.Targets))
			for _, t := range f.Targets {
				all = append(all, f.target(t))
			}
			return all
		}},
		{"slots", slotsType, "Slots that the inputs of steps name which are no reads.", func(f *planFacts, s supposing) any {
			if len(f.openSlots) > 0 && s == most {
				return numbers(allSlots)
			}
			slots, _ := schema.ParseSlots(f.Summary.Slots) // as the plan wrote it
			all := make([]any, len(slots))
			for i, slot := range slots {
				all[i] = slot
			}
			return all
		}},
		{"irreversible", listOf(stringType), "Steps after which something cannot be put back, by id.", list(func(f *planFacts) []string { return f.Summary.Irreversible })},
		{"gates", listOf(stringType), "Steps that wait for a person, by id.", list(func(f *planFacts) []string { return f.Summary.Gates })},
		{"locked", boolType, "The runbook has a lock.", func(f *planFacts, _ supposing) any { return f.Lock != "" }},
		{"lock", orNull(stringType), "Name of the lock; null: none.", func(f *planFacts, _ supposing) any {
			if f.Lock == "" {
				return nil
			}
			return f.Lock
		}},
		{"on_failure", stringType, "What a failed step does to the run: stop or rollback.", text(func(f *planFacts) string { return f.OnFailure })},
		{"unknown_loops", intType, "Loops whose items only a run can know.", func(f *planFacts, _ supposing) any { return f.Summary.Unknown }},
		{"left_out", intType, "Steps as written that --from, --to, --only and --skip leave out.", func(f *planFacts, _ supposing) any { return f.LeftOut }},
		{"steps", listOf(objectOf(stepFields())), "The single steps, in order, each item of a loop one. len(plan.steps) is how many.", func(f *planFacts, s supposing) any { return f.records(s) }},
	}
}

// policyStep is a single step as policies see it, with the plan that it is of.
type policyStep struct {
	*single
	plan *planFacts
}

func stepFields() []policyField[policyStep] {
	text := func(get func(policyStep) string) func(policyStep, supposing) any {
		return func(p policyStep, _ supposing) any { return get(p) }
	}
	is := func(get func(policyStep) bool) func(policyStep, supposing) any {
		return func(p policyStep, _ supposing) any { return get(p) }
	}
	return []policyField[policyStep]{
		{"path", stringType, "Path of the step, such as move[slot=7]/caught_up.", text(func(p policyStep) string { return p.Path })},
		{"id", stringType, "Its id.", text(func(p policyStep) string { return p.ID })},
		{"name", stringType, "Its name; empty: none.", text(func(p policyStep) string { return p.written().Name })},
		{"why", stringType, "Why it is there; empty: nobody says.", text(func(p policyStep) string { return p.written().Why })},
		{"kind", stringType, "Its kind.", text(func(p policyStep) string { return p.Kind })},
		{"effect", stringType, "read, write, cutover or destroy.", text(func(p policyStep) string { return p.Effect })},
		{"tags", listOf(stringType), "Its tags.", func(p policyStep, _ supposing) any { return texts(p.Tags) }},
		{"targets", targetsType(), "What it acts on, or asks. Where only a run can tell: every target of that kind.", func(p policyStep, _ supposing) any { return p.targets() }},
		{"confirmed", boolType, "A person must say yes to it, as in plan.confirmed.", is(func(p policyStep) bool { return p.people > 0 })},
		{"approvals", intType, "How many people must.", func(p policyStep, _ supposing) any { return p.people }},
		{"undo", boolType, "It can be put back.", is(func(p policyStep) bool { return p.Undo != "" && p.node.UndoMode != "none" })},
		{"no_return", boolType, "Once it has started, nothing before it is rolled back.", is(func(p policyStep) bool { return p.NoReturn })},
		{"expects", boolType, "It has an expect.", is(func(p policyStep) bool { return len(p.node.Expect) > 0 })},
		{"waits", boolType, "It has a wait-until.", is(func(p policyStep) bool { return p.node.Wait != nil })},
		{"stable", orNull(durationType), "How long its wait-until must hold; null: it looks once.", func(p policyStep, _ supposing) any { return p.setting("stable") }},
		{"timeout", orNull(durationType), "How long it may take; null: without limit, or only a run can tell.", func(p policyStep, _ supposing) any { return p.setting("timeout") }},
		{"pause", orNull(durationType), "How long clients may wait at it, as declared; null: not at all, or only a run can tell.", func(p policyStep, _ supposing) any {
			if d, known := p.pauses(); known && d > 0 {
				return d
			}
			return nil
		}},
		{"parallel", boolType, "Something else may run at the same time.", is(func(p policyStep) bool { return p.beside })},
	}
}

// fewest is the smallest number of people that a step with one of the effects is behind; some
// is false where there is no such step.
func (f *planFacts) fewest(s supposing, effects ...steps.Effect) (people int, some bool) {
	for _, one := range f.singles {
		if s.of(one.open) == 0 || !slices.Contains(effects, one.effect) {
			continue
		}
		if !some || one.people < people {
			people, some = one.people, true
		}
	}
	return people, some
}

func (f *planFacts) width(s supposing, counts func(*PlanStep) bool) int {
	items := s.of(true)
	return max(width(f.Steps, false, items, counts), width(f.Finally, false, items, counts))
}

// records are the single steps as expressions see them.
func (f *planFacts) records(s supposing) []any {
	fields := stepFields()
	again := 1
	if s == most {
		again = min(manyItems, max(2, manySteps/max(1, len(f.singles))))
	}
	all := make([]any, 0, len(f.singles))
	for _, one := range f.singles {
		if s.of(one.open) == 0 {
			continue
		}
		record := make(map[string]any, len(fields))
		for _, field := range fields {
			record[field.name] = field.value(policyStep{one, f}, s)
		}
		all = append(all, record)
		for i := 1; one.open && i < again; i++ {
			all = append(all, record)
		}
	}
	return all
}

// target is what expressions see of a target.
func (f *planFacts) target(t PlanTarget) any {
	if known := f.targets[t.Name]; known != nil && known.Addr == t.Addr {
		return known.shown
	}
	return map[string]any{"name": t.Name, "kind": t.Kind, "addr": t.Addr, "group": nil, "labels": map[string]any{}, "facts": map[string]any{}}
}

// targets are what a step acts on. One that only a run can tell may be any of its kind.
func (p policyStep) targets() []any {
	all := []any{}
	for _, t := range p.Targets {
		if t.Unknown == "" {
			all = append(all, p.plan.target(t))
			continue
		}
		for _, declared := range p.plan.Targets {
			if p.node.Kind != nil && actsOn(p.node.Kind, declared.Kind) {
				all = append(all, p.plan.target(declared))
			}
		}
	}
	return all
}

func texts(list []string) []any {
	all := make([]any, len(list))
	for i, text := range list {
		all[i] = text
	}
	return all
}

func numbers(n int) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = i
	}
	return all
}
