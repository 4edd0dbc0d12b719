package runner

import (
	"fmt"
	"regexp"
	"slices"

	"runbook/runner/expression"
	"runbook/steps"
)

// Builtin is a policy that is asked of every plan that destroys something or moves traffic,
// without anybody writing it. It warns, unless it is enforced or waived.
type Builtin struct {
	Name string
	// Rule is what must be so; Why is what goes wrong where it is not; Remedy is how to keep to it.
	Rule, Why, Remedy string

	once   bool                              // it is of the plan as a whole: one step tells enough
	linted bool                              // lint warns of it already, so that only a denial or a waiver has anything to add
	broken func(j *judged, s *single) string // what is wrong with a step; empty: nothing
}

// Builtins are the built-in policies, in the order in which they are asked. Their names are
// words of the language: schema.Policy has them too.
func Builtins() []Builtin {
	return []Builtin{
		{Name: "destroy-confirmed", broken: destroyConfirmed,
			Rule:   "Before a step destroys something a person says yes: at its own `confirm`, at that of a group, loop or caller around it, or at the question that its kind asks by itself. The yes to a step does not cover its `rescue`.",
			Why:    "No rollback brings back what was deleted, and a wrong input makes it the wrong thing.",
			Remedy: "confirm: … on the step, or on a group around it"},
		{Name: "destroy-verified", broken: destroyVerified,
			Rule:   "Between the last cut-over and a step that destroys something, something looks whether the world is as it should be: a read with `expect` or `wait-until`, a `check` of what steps have read, or a `require` or `when` of that at the step or around it. The look is certain to happen: not in a branch that may be skipped, not in a loop that may be empty, not with `on-failure: continue` or `rescue`.",
			Why:    "What is deleted after a cut-over is the way back from it, and keys that nobody compared are gone for good.",
			Remedy: "a read with expect behind the last cut-over, such as redis.compare"},
		{Name: "cutover-verified", broken: cutoverVerified,
			Rule:   "Before a cut-over something looks whether what it acts on is ready: a read of one of its targets or slots with `expect` or `wait-until`, a `check` of what steps have read, or a `require` or `when` of that at the step or around it. The look is certain to happen.",
			Why:    "Clients that are sent to a place that is not ready get errors, or their writes are lost.",
			Remedy: "a read of the same target with expect or wait-until before it"},
		{Name: "cutover-bounded", broken: cutoverBounded,
			Rule:   "How long clients may wait at a cut-over is bounded: its kind declares a pause, or the step or something around it has a `timeout` of its own.",
			Why:    "A cut-over that hangs is an outage, and the default of 10m is longer than clients wait.",
			Remedy: "timeout: … on the step, or on the group that is the cut-over"},
		{Name: "wait-stable", broken: waitStable,
			Rule:   "The last `wait-until` on a lag before a cut-over has `stable`, unless a cut-over of the same group stands before it: there clients are held already.",
			Why:    "Under load a lag touches its limit for an instant and rises again. After one look that was lucky, clients wait for as long as the rest takes.",
			Remedy: "stable: 5s on the wait"},
		{Name: "lock-held", broken: lockHeld, once: true,
			Rule:   "A runbook that destroys something or moves traffic on a system that others can reach (any target but a host) has a `lock`.",
			Why:    "Two runs at once pull the ground from under each other.",
			Remedy: "lock: {name: …} with the name of the system"},
		{Name: "way-back", broken: wayBack, linted: true,
			Rule:   "What changes something can be put back, by its kind or by `undo` steps, or its author says that there is nothing to put back (`undo: none`) or no way back (`point-of-no-return`, on the step or around it). Lint warns of it anyway (`no-undo`), so the plan tells it only where somebody enforces or waives it.",
			Why:    "A rollback ends at the first step that has no way back, in the middle of it all.",
			Remedy: "undo: [steps], undo: none with a why, or point-of-no-return: true"},
	}
}

// violation is a step that a built-in policy finds fault with.
type violation struct {
	policy  *Builtin
	step    *single
	message string
}

// violations asks the built-in policies of a plan. Each step as written is told once, however
// often it repeats.
func violations(plan *Plan) []violation {
	if !plan.endangers() {
		return nil
	}
	j := &judged{plan: plan}
	plan.walk(true, func(s *single) { j.singles = append(j.singles, s) })
	var found []violation
	builtins := Builtins()
	for i := range builtins {
		told := map[string]bool{}
		for _, s := range j.singles {
			name := withoutItems(s.Path)
			if told[name] {
				continue
			}
			if message := builtins[i].broken(j, s); message != "" {
				told[name] = true
				found = append(found, violation{&builtins[i], s, message})
				if builtins[i].once {
					break
				}
			}
		}
	}
	return found
}

// endangers tells whether the plan destroys something or moves traffic.
func (p *Plan) endangers() bool {
	return slices.ContainsFunc(slices.Concat(p.Steps, p.Finally), func(ps *PlanStep) bool { return ps.endangers() })
}

func (p *PlanStep) endangers() bool {
	if p.Skipped != "" {
		return false
	}
	if p.Shape == ShapeStep && (p.Effect == steps.Cutover.String() || p.Effect == steps.Destroy.String()) {
		return true
	}
	for _, list := range [][]*PlanStep{p.Steps, p.AfterBatch, p.Rescue, p.Finally} {
		if slices.ContainsFunc(list, func(ps *PlanStep) bool { return ps.endangers() }) {
			return true
		}
	}
	return false
}

// itemPart is what tells the items of a loop apart in a path.
var itemPart = regexp.MustCompile(`\[[^\]]*\]`)

func withoutItems(path string) string { return itemPart.ReplaceAllString(path, "") }

func destroyConfirmed(_ *judged, s *single) string {
	switch {
	case s.effect != steps.Destroy || s.people > 0:
		return ""
	case s.role == InRescue:
		return s.Path + " destroys something when another step has failed, and nobody is asked"
	}
	return s.Path + " destroys something, and nobody is asked"
}

func destroyVerified(j *judged, s *single) string {
	if s.effect != steps.Destroy || s.role != InSteps {
		return ""
	}
	from, after := -1, "before it"
	if last := j.before(s, (*single).movesTraffic); last != nil {
		from, after = last.place, "between the cut-over "+last.Path+" and it"
	}
	if j.requires(s, from) || j.before(s, func(v *single) bool { return v.place > from && v.verifies() && v.surelyBefore(s) }) != nil {
		return ""
	}
	return s.Path + " destroys something, and nothing is verified " + after
}

func cutoverVerified(j *judged, s *single) string {
	if !s.movesTraffic() || j.requires(s, -1) {
		return ""
	}
	reach := reachOf(s.PlanStep)
	ready := j.before(s, func(v *single) bool {
		return v.verifies() && v.surelyBefore(s) && (reach.nowhere() || v.Kind == checkKind || reachOf(v.PlanStep).meets(reach))
	})
	if ready != nil {
		return ""
	}
	return s.Path + " moves traffic, and nothing before it looks whether what it acts on is ready"
}

func cutoverBounded(_ *judged, s *single) string {
	if s.effect != steps.Cutover || s.node.Timeout.Set {
		return ""
	}
	if longest, known := s.pauses(); longest > 0 || !known {
		return ""
	}
	for at := s.in; at != nil; at = at.in {
		if at.node.Timeout.Set {
			return ""
		}
	}
	return s.Path + " moves traffic, and nobody says how long clients may wait for it"
}

func waitStable(j *judged, s *single) string {
	if !s.waitsForLag() || s.node.Wait.Stable.Set {
		return ""
	}
	next := j.after(s, (*single).movesTraffic)
	if next == nil {
		return ""
	}
	goal := reachOf(next.PlanStep)
	about := func(w *single) bool {
		return w.waitsForLag() && (goal.nowhere() || reachOf(w.PlanStep).meets(goal))
	}
	if !about(s) || j.before(next, about) != s {
		return ""
	}
	if held := j.before(s, (*single).movesTraffic); held != nil && held.in == next.in && held.in != nil {
		return ""
	}
	return fmt.Sprintf("%s waits for a lag and looks once, and the cut-over %s relies on it", s.Path, next.Path)
}

func lockHeld(j *judged, s *single) string {
	if j.plan.Lock != "" || s.effect < steps.Cutover || !slices.ContainsFunc(s.Targets, func(t PlanTarget) bool { return t.Kind != hostKind }) {
		return ""
	}
	return s.Path + " works on a system that others can reach, and nothing keeps a second run off it"
}

func wayBack(_ *judged, s *single) string {
	if s.role != InSteps || s.NoUndo == "" || s.effect == steps.Destroy || s.node.Background || s.node.noWayBack() {
		return ""
	}
	for at := s.in; at != nil; at = at.in {
		if at.node.noWayBack() {
			return ""
		}
	}
	return s.Path + " changes something that nobody can put back: " + s.NoUndo
}

// Kinds that policies know by name.
const (
	checkKind = "check"
	hostKind  = "host" // of a target: a machine
)

// judged is the plan that built-in policies look at.
type judged struct {
	plan    *Plan
	singles []*single // in order; of a loop the items that differ
}

// before is the nearest step before another one of which something holds; nil: none.
func (j *judged) before(s *single, holds func(*single) bool) *single {
	for i := s.place - 1; i >= 0; i-- {
		if holds(j.singles[i]) {
			return j.singles[i]
		}
	}
	return nil
}

// after is the nearest step behind another one of which something holds; nil: none.
func (j *judged) after(s *single, holds func(*single) bool) *single {
	for _, later := range j.singles[s.place+1:] {
		if holds(later) {
			return later
		}
	}
	return nil
}

// requires tells whether a step, or something around it, goes on only by what steps have read
// that stand behind a place in the order.
func (j *judged) requires(s *single, from int) bool {
	asks := func(n *Node) bool {
		conditions := slices.Clone(n.Require)
		if n.When != nil {
			conditions = append(conditions, n.When)
		}
		return slices.ContainsFunc(conditions, func(c *Condition) bool { return j.readsBehind(n.Unit, c, from, s.place) })
	}
	if asks(s.node) {
		return true
	}
	for at := s.in; at != nil; at = at.in {
		if asks(at.node) {
			return true
		}
	}
	return false
}

// readsBehind tells whether a condition reads a step that stands between two places.
func (j *judged) readsBehind(u *Unit, c *Condition, from, to int) bool {
	for _, ref := range c.Expr.Refs {
		if ref.Path[0] != "steps" || len(ref.Path) < 2 {
			continue
		}
		read := u.nodes[ref.Path[1]]
		for _, s := range j.singles[from+1 : to] {
			if s.node == read || s.inside(read) {
				return true
			}
		}
	}
	return false
}

// inside tells whether a step stands in a node, also as part of a runbook that it uses.
func (s *single) inside(n *Node) bool {
	for at := s.in; at != nil; at = at.in {
		if at.node == n {
			return true
		}
	}
	return false
}

// movesTraffic: cut-overs of a rescue or of finally are judged by nobody: they are the way out.
func (s *single) movesTraffic() bool { return s.effect == steps.Cutover && s.role == InSteps }

// verifies tells whether a step fails where the world is not as it should be.
func (s *single) verifies() bool {
	if s.effect != steps.Read {
		return false
	}
	if s.Kind == checkKind {
		return slices.ContainsFunc(s.node.With.Refs(), func(ref expression.Ref) bool { return ref.Path[0] == "steps" })
	}
	return len(s.node.Expect) > 0 || s.node.Wait != nil
}

// surelyBefore tells whether a step runs before another one in every run that comes to that.
func (s *single) surelyBefore(later *single) bool {
	if s.role != InSteps || !s.certain() {
		return false
	}
	at := s.in
	for ; at != nil && !later.standsIn(at); at = at.in {
		if !at.certain() || at.Loop != nil && at.Loop.Unknown != "" {
			return false
		}
	}
	return at == nil || !at.together()
}

// standsIn tells whether a step stands in the very surrounding.
func (s *single) standsIn(in *surrounding) bool {
	for at := s.in; at != nil; at = at.in {
		if at == in {
			return true
		}
	}
	return false
}

// certain tells whether a step runs to its end whenever what it stands in does.
func (p *PlanStep) certain() bool {
	if p.OnFailure == "continue" || p.node.Background || len(p.node.Rescue) > 0 {
		return false
	}
	return !slices.ContainsFunc(p.Conditions, func(c PlanCondition) bool { return c.Key == "when" && c.Value == nil })
}

// waitsForLag tells whether a step waits until something is not far behind.
func (s *single) waitsForLag() bool {
	return s.role == InSteps && s.node.Wait != nil && s.node.Wait.Until != nil && lagWord.MatchString(s.node.Wait.Until.Expr.Source)
}

var lagWord = regexp.MustCompile(`\blag\b`)
