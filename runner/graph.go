package runner

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"runbook/steps"
)

// GraphDepth is how many groups stand within each other in a graph where nobody asks for another depth.
const GraphDepth = 3

// Graph is a plan as boxes and arrows, to be seen at a glance: the effect of a step is
// its shape, a group or a runbook is a frame, branches of a parallel group stand side by
// side. What would make it long is folded: a loop or fan-out is one box with its count, so
// are three reads or more in a row, and what stands deeper than asked for. The plan's text
// has what a box leaves out; steps of undo are there alone.
type Graph struct {
	name  string
	boxes []*box
}

// box is a step, or a frame around others.
type box struct {
	id    string   // letters, digits and _; unique
	lines []string // what it says
	shape outline

	branches [][]*box // of a frame: one chain, or several side by side
	rescue   []*box   // what runs when it fails, and then what comes next

	entry    string // what stands on the arrow to it
	dashed   bool   // it runs when something failed, or at the end whatever happened
	skipped  bool
	noReturn bool
	folded   bool // it stands for several reads
}

// outline is a shape. Those of effects are the effects.
type outline int

const (
	outlineRead    = outline(steps.Read)
	outlineWrite   = outline(steps.Write)
	outlineCutover = outline(steps.Cutover)
	outlineDestroy = outline(steps.Destroy)
	outlineGate    = outlineDestroy + 1
)

var outlineNames = [...]string{"read", "write", "cutover", "destroy", "gate"}

func (l outline) String() string { return outlineNames[l] }

// outlineMeanings are the legend.
var outlineMeanings = [...]string{"read: changes nothing", "write: service unaffected", "cutover: moves live traffic", "destroy: something is gone", "gate: people decide"}

// Graph draws the plan with at most so many groups within each other; what is deeper is
// one box that says how many steps it stands for.
func (p *Plan) Graph(depth int) *Graph {
	d := drawing{depth: depth, taken: map[string]bool{}}
	g := &Graph{name: p.Name, boxes: d.chain(p.Steps, 0, false)}
	if len(g.boxes) == 0 {
		g.boxes = []*box{{id: d.id("nothing"), lines: []string{"nothing to do"}}}
	}
	if len(p.Finally) > 0 {
		g.boxes = append(g.boxes, &box{id: d.id("finally"), lines: []string{"finally"}, entry: "whatever happened", dashed: true,
			branches: [][]*box{d.chain(p.Finally, 1, false)}})
	}
	return g
}

// drawing makes boxes.
type drawing struct {
	depth int
	taken map[string]bool // ids
}

// chain draws steps that follow each other.
func (d *drawing) chain(list []*PlanStep, depth int, afterNoReturn bool) []*box {
	var boxes []*box
	for i := 0; i < len(list); {
		n := 0
		for i+n < len(list) && plainRead(list[i+n]) {
			n++
		}
		if n >= fewest {
			boxes = append(boxes, d.reads(list[i:i+n], "in a row"))
			i += n
			continue
		}
		boxes = append(boxes, d.step(list[i], depth, afterNoReturn)...)
		i++
	}
	return boxes
}

// fewest is how many reads are folded.
const fewest = 3

// plainRead tells whether a step looks at something and goes on: nobody waits at it, and there
// is nothing else to say of it.
func plainRead(s *PlanStep) bool {
	return (s.Shape == ShapeStep || s.Shape == ShapeFanOut) && s.Effect == steps.Read.String() && s.Confirm == nil && s.Window == nil &&
		!s.NoReturn && len(s.Rescue) == 0 && len(s.body().notes()) == 0 && s.Kind != "approve" && s.Kind != "sleep"
}

// reads folds reads into one box.
func (d *drawing) reads(list []*PlanStep, how string) *box {
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID
	}
	lines := []string{fmt.Sprintf("%d reads %s", len(list), how)}
	return &box{id: d.id(list[0].Path + "_reads"), lines: append(lines, wrapped(ids, 4)...), shape: outlineRead, folded: true}
}

// step draws one step: its gate, where it has one, and itself.
func (d *drawing) step(s *PlanStep, depth int, afterNoReturn bool) []*box {
	var boxes []*box
	body := s.body()
	skipped := body.Skipped != ""
	itself := outlineOf(s) == outlineGate
	if s.Confirm != nil && !itself {
		boxes = append(boxes, &box{id: d.id(s.Path + "_gate"), lines: gateLines(s.Confirm), shape: outlineGate, skipped: skipped})
	}
	noReturn := s.NoReturn || body.NoReturn
	b := &box{id: d.id(s.Path), lines: []string{s.ID}, shape: outlineOf(s), skipped: skipped, noReturn: noReturn && !afterNoReturn}
	switch {
	case itself && s.Confirm != nil:
		b.lines = append(b.lines, gateLines(s.Confirm)...)
	case body.Shape == ShapeStep && body != s:
		b.lines = append(b.lines, body.Kind)
	case body.Shape == ShapeStep:
		b.lines = append(b.lines, onTargets(body.Kind, s.Targets))
	case body.Shape == ShapeCall:
		b.lines = append(b.lines, body.Kind)
	}
	if s.Loop != nil {
		b.lines = append(b.lines, s.repeats())
	}
	if body.Shape != ShapeStep || len(s.AfterBatch) > 0 {
		d.fill(b, s, depth, afterNoReturn || noReturn)
	}
	b.lines = append(b.lines, body.notes()...)
	if b.noReturn {
		b.lines = append(b.lines, "point of no return")
	}
	b.rescue = d.chain(s.Rescue, depth, afterNoReturn || noReturn)
	for _, r := range b.rescue {
		r.dashed = true
	}
	if len(b.rescue) > 0 {
		b.rescue[0].entry = "if it fails"
	}
	return append(boxes, b)
}

// body is what a loop or fan-out repeats, seen on the first item that runs; of other steps themselves.
func (s *PlanStep) body() *PlanStep {
	if s.Loop == nil || len(s.Steps) == 0 {
		return s
	}
	if runs := slices.IndexFunc(s.Steps, func(item *PlanStep) bool { return item.Skipped == "" }); runs >= 0 {
		return s.Steps[runs]
	}
	return s.Steps[0]
}

// repeats says how often the body of a loop or fan-out runs.
func (s *PlanStep) repeats() string {
	l := s.Loop
	words := plural(l.Items, "item") + " of " + l.Over
	switch {
	case s.Shape == ShapeFanOut:
		words = onTargets("each", s.Targets)
	case l.Unknown != "":
		words = "for each of " + l.Over + " (" + l.Unknown + ")"
	}
	if n := len(l.Batches); n > 1 {
		words += fmt.Sprintf(", %d waves", n)
	}
	return words
}

// fill puts into a frame what a step holds, or into a box how much that is.
func (d *drawing) fill(b *box, s *PlanStep, depth int, inside bool) {
	body := s.body()
	held := body.Steps
	if body.Shape == ShapeStep {
		held = []*PlanStep{body}
	}
	if depth >= d.depth || len(held) == 0 {
		b.lines = append(b.lines, countsOf(s.Steps))
		return
	}
	if body.Parallel {
		b.branches = d.sideBySide(held, depth+1, inside)
	} else {
		b.branches = [][]*box{d.chain(held, depth+1, inside)}
	}
	for _, last := range []struct {
		list   []*PlanStep
		when   string
		dashed bool
	}{{s.AfterBatch, "after each wave", false}, {body.Finally, "whatever happened in it", true}} {
		boxes := d.chain(last.list, depth+1, inside)
		if len(boxes) == 0 {
			continue
		}
		boxes[0].entry = last.when
		for _, inner := range boxes {
			inner.dashed = inner.dashed || last.dashed
		}
		if len(b.branches) > 1 { // they follow all the branches: a frame around these makes them one
			b.branches = [][]*box{{{id: d.id(s.Path + "_branches"), lines: []string{"at the same time"}, branches: b.branches}}}
		}
		b.branches[0] = append(b.branches[0], boxes...)
	}
	if len(b.branches) == 1 && len(b.branches[0]) == 1 && b.branches[0][0].folded { // a frame around one box says nothing
		b.lines, b.branches = append(b.lines, b.branches[0][0].lines...), nil
	}
}

// sideBySide draws branches; the reads among them are one.
func (d *drawing) sideBySide(list []*PlanStep, depth int, inside bool) [][]*box {
	var reads []*PlanStep
	var branches [][]*box
	for _, s := range list {
		if plainRead(s) {
			reads = append(reads, s)
		} else {
			branches = append(branches, d.step(s, depth, inside))
		}
	}
	if len(reads) >= fewest {
		return append([][]*box{{d.reads(reads, "at the same time")}}, branches...)
	}
	for _, s := range reads {
		branches = append(branches, d.step(s, depth, inside))
	}
	return branches
}

// notes are what nobody should overlook of a step.
func (s *PlanStep) notes() []string {
	var notes []string
	if s.Skipped != "" {
		notes = append(notes, "skipped: "+s.Skipped)
	} else if when := s.condition("when"); when != "" {
		notes = append(notes, "when "+when)
	}
	if until := s.condition("wait-until"); until != "" {
		notes = append(notes, "waits until "+until)
	}
	if until := s.condition("repeat-until"); until != "" {
		notes = append(notes, "again until "+until)
	}
	if slices.ContainsFunc(s.Settings, func(o PlanSetting) bool { return o.Key == "background" }) {
		notes = append(notes, "in the background")
	}
	if s.Pause != "" {
		notes = append(notes, "clients wait up to "+s.Pause)
	}
	return notes
}

// condition is the text of a condition that cannot be told yet; empty: there is none.
func (s *PlanStep) condition(key string) string {
	for _, c := range s.Conditions {
		if c.Key == key && (c.Value == nil || !*c.Value) {
			return c.Text
		}
	}
	return ""
}

func gateLines(g *PlanGate) []string {
	lines := []string{"1 person"}
	if g.Approvals > 1 {
		lines[0] = fmt.Sprintf("%d people", g.Approvals)
	}
	if g.Each != "" {
		lines = append(lines, "each "+g.Each)
	}
	if g.Retype != "" {
		lines = append(lines, "retypes")
	}
	return lines
}

func outlineOf(s *PlanStep) outline {
	if s.Kind == "approve" {
		return outlineGate
	}
	effect, _ := steps.ParseEffect(s.Effect)
	return outline(effect)
}

// onTargets names what a step acts on.
func onTargets(word string, targets []PlanTarget) string {
	const most = 3
	var names []string
	for _, t := range targets {
		names = append(names, t.Name)
	}
	switch n := len(names); {
	case n == 0:
		return word
	case n > most:
		names = append(names[:most], fmt.Sprintf("%d more", n-most))
	}
	return word + " on " + strings.Join(names, ", ")
}

// countsOf says how many single steps there are, by effect.
func countsOf(list []*PlanStep) string {
	var counts [len(outlineNames)]int
	var count func(list []*PlanStep)
	count = func(list []*PlanStep) {
		for _, s := range list {
			if s.Shape == ShapeStep {
				effect, _ := steps.ParseEffect(s.Effect)
				counts[effect]++
			}
			count(s.Steps)
			count(s.AfterBatch)
			count(s.Finally)
		}
	}
	count(list)
	var words []string
	sum := 0
	for effect, n := range counts {
		if n > 0 {
			sum += n
			words = append(words, fmt.Sprintf("%d %s", n, outline(effect)))
		}
	}
	if sum == 0 {
		return "no steps"
	}
	return plural(sum, "step") + ": " + strings.Join(words, ", ")
}

// id makes a name that no language of graphs can mistake for a word of its own.
func (d *drawing) id(path string) string {
	words := strings.FieldsFunc("s/"+path, func(r rune) bool {
		return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	name := strings.Join(words, "_")
	id := name
	for n := 2; d.taken[id]; n++ {
		id = fmt.Sprintf("%s_%d", name, n)
	}
	d.taken[id] = true
	return id
}

// widestLine is how much of a line a box shows, in characters.
const widestLine = 42

// shortened is a line that fits into a box, and has nothing in it that is not seen.
func shortened(line string) string {
	text := []rune(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r):
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(line, "\ufffd")))
	if len(text) > widestLine {
		return string(text[:widestLine-1]) + "…"
	}
	return string(text)
}

// wrapped puts words on lines that fit, and says how many are left after the last.
func wrapped(words []string, most int) []string {
	var lines []string
	for i, w := range words {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last])+utf8.RuneCountInString(w)+2 <= widestLine {
			lines[last] += ", " + w
			continue
		}
		if len(lines) == most {
			return append(lines, fmt.Sprintf("and %d more", len(words)-i))
		}
		lines = append(lines, w)
	}
	return lines
}

// eachBox visits every box, frames before what they hold.
func eachBox(list []*box, visit func(*box)) {
	for _, b := range list {
		visit(b)
		for _, branch := range b.branches {
			eachBox(branch, visit)
		}
		eachBox(b.rescue, visit)
	}
}

// outlines are the shapes that occur, in the order of danger.
func (g *Graph) outlines() []outline {
	var seen [len(outlineNames)]bool
	eachBox(g.boxes, func(b *box) { seen[b.shape] = seen[b.shape] || len(b.branches) == 0 })
	var list []outline
	for l, there := range seen {
		if there {
			list = append(list, outline(l))
		}
	}
	return list
}

// arrow is the way from a box to what comes next.
type arrow struct {
	from, to *box
	label    string
	dashed   bool
	noReturn bool // the box it leads to is the point of no return
}

// arrows are those of a chain. What rescues a step goes on where the step would have.
func arrows(chain []*box) []arrow {
	var list []arrow
	add := func(from, to *box, dashed bool) {
		list = append(list, arrow{from, to, to.entry, dashed || to.dashed, to.noReturn})
	}
	for i, b := range chain {
		if i+1 < len(chain) {
			add(b, chain[i+1], false)
		}
		if n := len(b.rescue); n > 0 {
			add(b, b.rescue[0], true)
			list = append(list, arrows(b.rescue)...)
			if i+1 < len(chain) {
				add(b.rescue[n-1], chain[i+1], true)
			}
		}
	}
	return list
}
