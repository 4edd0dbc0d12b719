package runner

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// countsAs says as what the steps of a scope count in the plan's head.
type countsAs int

const (
	counted   countsAs = iota
	ifFailed           // they run only if something fails
	uncounted          // they are known not to run
)

// planHead collects what the plan's head says.
type planHead struct {
	counts  [4]int
	failed  [4]int // those that run only if something fails
	unknown []string
	notes   []*headNote
	byName  map[string]*headNote
	pause   string
	pauseAt string

	touched   map[string]*PlanTouched // by kind and address
	slots     map[int]bool
	untouched []string // steps of which it is not known what they touch
}

// headNote is a step as the plan's head names it: once, however often it repeats.
type headNote struct {
	name         string
	irreversible string
	gate         *PlanPeople
}

// note keeps what the head says of a step by name.
func (h *planHead) note(s *planScope, n *Node, ps *PlanStep) {
	if s.count != counted || ps.Skipped != "" {
		return
	}
	name := s.within + n.ID
	note := h.byName[name]
	if note == nil {
		note = &headNote{name: name}
		if h.byName == nil {
			h.byName = map[string]*headNote{}
		}
		h.byName[name] = note
		h.notes = append(h.notes, note)
		if g := n.Confirm; g != nil && !(g.Builtin && s.askedBy != "") {
			note.gate = &PlanPeople{Step: name, People: max(1, g.Approvals), Retype: g.Retype != nil}
			if g.Each != "run" {
				note.gate.Each = g.Each
			}
		}
	}
	switch {
	case n.PointOfNoReturn && ps.NoUndo != "":
		note.irreversible = ps.NoUndo
	case n.PointOfNoReturn:
		note.irreversible = "point of no return"
	case n.Shape != Leaf:
	case n.Effect == steps.Destroy && n.UndoMode == "auto" && !n.Kind.HasUndo, n.Effect != steps.Read && ps.NoUndo != "" && n.UndoMode != "none":
		note.irreversible = ps.NoUndo
	}
}

// unknownLoop counts a loop whose items only a run can know.
func (h *planHead) unknownLoop(s *planScope, ps *PlanStep) {
	if s.count != uncounted {
		h.unknown = append(h.unknown, ps.Path)
	}
}

// count adds a single step. in is nil where not all of its inputs are known.
func (h *planHead) count(pl *planner, s *planScope, n *Node, ps *PlanStep, in any) {
	effect, _ := steps.ParseEffect(ps.Effect)
	switch s.count {
	case counted:
		h.counts[effect]++
		if p := ps.Pause; p != "" && (h.pause == "" || pauseOf(p) > pauseOf(h.pause)) {
			h.pause, h.pauseAt = p, ps.Path
		}
	case ifFailed:
		h.failed[effect]++
	case uncounted:
		return
	}
	if effect == steps.Read {
		return
	}
	known := true
	for _, t := range ps.Targets {
		known = known && t.Unknown == ""
		h.touch(t)
	}
	for i := range ps.Commands {
		if t := s.targets[ps.Commands[i].Target]; t != nil {
			h.touch(t.PlanTarget)
		}
	}
	if name := s.within + n.ID; (!h.touchSlots(pl, s, n, in) || !known) && !slices.Contains(h.untouched, name) {
		h.untouched = append(h.untouched, name)
	}
}

func (h *planHead) touch(t PlanTarget) {
	if t.Addr == "" {
		return
	}
	key := t.Kind + " " + t.Addr
	there := h.touched[key]
	if there == nil {
		if h.touched == nil {
			h.touched = map[string]*PlanTouched{}
		}
		there = &PlanTouched{Addr: t.Addr, Kind: t.Kind}
		h.touched[key] = there
	}
	if !slices.Contains(there.Names, t.Name) {
		there.Names = append(there.Names, t.Name)
	}
}

// touchSlots adds the slots among a step's inputs; false where they are not known.
func (h *planHead) touchSlots(pl *planner, s *planScope, n *Node, in any) bool {
	known := true
	for i := range n.Kind.In.NumField() {
		f := n.Kind.In.Field(i)
		if f.Type != reflect.TypeFor[schema.Slots]() {
			continue
		}
		bound := in
		if bound == nil { // of the others not all are known; these may be
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			v, why, err := pl.eval(s, n.With.entry(name))
			if err != nil || why != "" {
				known = false
				continue
			}
			bound = reflect.New(n.Kind.In).Interface()
			_ = schema.Bind(map[string]any{name: v}, bound) // what it misses of the others does not count
		}
		slots, _ := reflect.ValueOf(bound).Elem().Field(i).Interface().(schema.Slots)
		for _, slot := range slots {
			if h.slots == nil {
				h.slots = map[int]bool{}
			}
			h.slots[slot] = true
		}
	}
	return known
}

func (h *planHead) summary() PlanSummary {
	c, f := h.counts, h.failed
	sum := PlanSummary{Steps: c[0] + c[1] + c[2] + c[3], Reads: c[0], Writes: c[1], Cutovers: c[2], Destroys: c[3],
		IfFailed: PlanCounts{f[0], f[1], f[2], f[3]}, Unknown: len(h.unknown), UnknownLoops: h.unknown,
		InstancesTouched: len(h.touched), SlotsTouched: len(h.slots), UnknownTouched: h.untouched, Pause: h.pause, PauseAt: h.pauseAt}
	slices.SortFunc(h.notes, func(a, b *headNote) int { return strings.Compare(a.name, b.name) })
	for _, note := range h.notes {
		if note.irreversible != "" {
			sum.Irreversible = append(sum.Irreversible, note.name)
			sum.NoWayBack = append(sum.NoWayBack, PlanValue{Name: note.name, Value: note.irreversible})
		}
		if note.gate != nil {
			sum.Gates = append(sum.Gates, note.name)
			sum.Approvals = append(sum.Approvals, *note.gate)
		}
	}
	for _, t := range h.touched {
		slices.Sort(t.Names)
		sum.Instances = append(sum.Instances, *t)
	}
	slices.SortFunc(sum.Instances, func(a, b PlanTouched) int {
		return cmp.Or(strings.Compare(a.Names[0], b.Names[0]), strings.Compare(a.Addr, b.Addr))
	})
	slots := make(schema.Slots, 0, len(h.slots))
	for slot := range h.slots {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	sum.Slots = slots.String()
	slices.Sort(sum.UnknownTouched)
	return sum
}

// pauseOf reads a declared pause for comparison; what is not a duration is 0.
func pauseOf(text string) time.Duration {
	d, err := schema.ParseDuration(strings.TrimSpace(text))
	if err != nil {
		return 0
	}
	return d
}
