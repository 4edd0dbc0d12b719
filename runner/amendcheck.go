package runner

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Offence is why a run cannot go on with another plan: something that has started is not the same in it.
type Offence struct {
	Step string `json:"step,omitempty"` // behind the ids of the runbooks that it is used by: cut/hold; empty: the run
	Why  string `json:"why"`
}

func (o Offence) String() string { return strings.TrimPrefix(o.Step+": "+o.Why, ": ") }

// amending compares two plans of one run where something has started.
type amending struct {
	sides    [2]*digester // the old plan and the new one, with the values of this run
	past     *past
	started  map[*Node][]string // of the old plan, with the paths at which they have
	offences []Offence
}

// offences are all reasons for which the run cannot go on with the new plan; none: it can. What
// has started must mean the same and stand in the same order, and nothing new may stand before
// it; a group under way may differ in steps of it that have not started.
func offences(old, amended *Program, was, is *Inputs, p *past) []Offence {
	m := &amending{past: p, started: map[*Node][]string{}}
	m.sides[0] = &digester{units: map[*Unit]string{}, run: old.Root, values: was.Values}
	m.sides[1] = &digester{units: map[*Unit]string{}, run: amended.Root, values: is.Values}
	m.find(old)
	m.run(old.Root, amended.Root)
	m.list("", old.Root.Steps, amended.Root.Steps, true)
	m.list("", old.Root.Finally, amended.Root.Finally, false)
	return m.offences
}

func (m *amending) refuse(step, format string, args ...any) {
	m.offences = append(m.offences, Offence{step, fmt.Sprintf(format, args...)})
}

// find marks what has started, by the journal.
func (m *amending) find(p *Program) {
	paths := map[string]bool{}
	for path := range m.past.steps {
		paths[path] = true
	}
	for path := range m.past.loops {
		paths[path] = true
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		n := p.at(path)
		if n == nil {
			m.refuse(path, "it has started, and the plan does not tell what it is")
			continue
		}
		m.started[n] = append(m.started[n], path)
	}
}

// at is the step that a journal path is of; nil: there is none.
func (p *Program) at(path string) *Node {
	var n *Node
	u := p.Root
	for rest, item := path, ""; rest != ""; {
		part := firstPart(rest)
		rest = strings.TrimPrefix(rest[len(part):], "/")
		if n != nil && n.Shape == Call && !(strings.HasPrefix(item, "[batch ") && slices.ContainsFunc(n.AfterBatch, func(in *Node) bool { return in.ID == lastID(part) })) {
			u = n.Sub
		}
		id := lastID(part)
		if n, item = u.nodes[id], part[len(id):]; n == nil {
			return nil
		}
	}
	return n
}

// firstPart is the first element of a path, with the item it is for.
func firstPart(path string) string {
	depth := 0
	for i := range len(path) {
		switch c := path[i]; {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '/' && depth == 0:
			return path[:i]
		}
	}
	return path
}

// run compares what is of the run itself, and has been in force since it started.
func (m *amending) run(old, amended *Unit) {
	if m.lock(0, old) != m.lock(1, amended) {
		m.refuse("", "lock differs: it is held for this run")
	}
	if old.OnFailure != amended.OnFailure {
		m.refuse("", "on-failure differs: it is %s for what has started", old.OnFailure)
	}
	was, is := map[string]string{}, map[string]string{}
	for i, u := range []*Unit{old, amended} {
		for _, g := range u.Guards {
			[]map[string]string{was, is}[i][g.ID] = m.facts(i, u, g.Meaning())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(was)) {
		if was[id] != is[id] {
			m.refuse("", "guard %s differs: the run has been watched by it", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(is)) {
		if was[id] == "" {
			m.refuse("", "guard %s is new: what has started was not watched by it", id)
		}
	}
}

func (m *amending) lock(side int, u *Unit) string {
	if u.Lock == nil {
		return ""
	}
	d := m.sides[side]
	return d.sum(func() {
		d.facts([]Fact{{Field: "name", Value: u.Lock}}, d.names(u, map[string]*Target{}))
		d.word("%s %s", u.Book.Lock.Target.Value, u.Book.Lock.Hold.Value)
		for _, t := range u.Targets {
			if t.Name == u.Book.Lock.Target.Value {
				d.facts(t.Meaning(), d.names(u, map[string]*Target{}))
			}
		}
	})
}

// facts are their sum, with the targets that they read.
func (m *amending) facts(side int, u *Unit, facts []Fact) string {
	d := m.sides[side]
	return d.sum(func() {
		read := map[string]*Target{}
		d.facts(facts, d.names(u, read))
		for _, name := range slices.Sorted(maps.Keys(read)) {
			d.word("target %s", name)
			d.facts(read[name].Meaning(), d.names(u, map[string]*Target{}))
		}
	})
}

// whole is the sum of a step and all that stands in it.
func (m *amending) whole(side int, n *Node) string {
	d := m.sides[side]
	return d.sum(func() { d.node(n) })
}

// list compares the steps of one list. In an ordered one nothing may come to stand before what
// has started: it would run too late.
func (m *amending) list(prefix string, olds, amended []*Node, ordered bool) {
	place := map[string]int{}
	for i, n := range amended {
		place[n.ID] = i
	}
	last := -1 // in the new list, of what has started
	for _, o := range olds {
		if m.started[o] == nil {
			continue
		}
		at, there := place[o.ID]
		if !there {
			m.refuse(prefix+o.ID, "it has started, and is not in its place any more")
			continue
		}
		if at < last && ordered {
			m.refuse(prefix+o.ID, "it has started, and stands before %s now, which has started before it", amended[last].ID)
		}
		last = max(last, at)
		m.pair(prefix, o, amended[at])
	}
	if !ordered {
		return
	}
	for _, n := range amended[:last+1] {
		i := slices.IndexFunc(olds, func(o *Node) bool { return o.ID == n.ID })
		if i >= 0 && m.started[olds[i]] != nil {
			continue
		}
		if i < 0 || !slices.ContainsFunc(olds[i:], func(o *Node) bool { return o.ID == amended[last].ID }) || m.whole(0, olds[i]) != m.whole(1, n) {
			m.refuse(prefix+n.ID, "it stands before %s, which has started: it would run too late", amended[last].ID)
		}
	}
}

// pair compares a step that has started with what it is in the new plan.
func (m *amending) pair(prefix string, o, n *Node) {
	key := prefix + o.ID
	if m.whole(0, o) == m.whole(1, n) {
		return
	}
	if o.Shape != n.Shape || o.Shape == Leaf || o.Repeat != nil || n.Repeat != nil || m.closed(o) {
		m.refuse(key, "it has %s, and %s", map[bool]string{true: "finished", false: "started"}[m.closed(o)], m.differs(o, n))
		return
	}
	if why := m.differs(o, n); why != differsInside {
		m.refuse(key, "it has started, and %s", why)
		return
	}
	if o.Shape == Call {
		m.unit(key, o.Sub, n.Sub)
		m.list(key+"/", o.Sub.Steps, n.Sub.Steps, true)
		m.list(key+"/", o.Sub.Finally, n.Sub.Finally, false)
	} else {
		m.list(prefix, o.Children, n.Children, !o.Parallel)
	}
	m.list(prefix, o.Rescue, n.Rescue, true)
	for _, l := range []struct {
		key          string
		old, amended []*Node
	}{{"after-batch", o.AfterBatch, n.AfterBatch}, {"undo", o.UndoSteps, n.UndoSteps}} {
		if m.all(0, l.old) != m.all(1, l.amended) {
			m.refuse(key, "it has started, and its steps of %s differ", l.key)
		}
	}
}

// all is what tells a list of steps from others.
func (m *amending) all(side int, nodes []*Node) string {
	var words []string
	for _, n := range nodes {
		words = append(words, n.ID, m.whole(side, n))
	}
	return strings.Join(words, " ")
}

// unit compares what a runbook says of itself, as one that a started step uses.
func (m *amending) unit(key string, old, amended *Unit) {
	said := func(side int, u *Unit) string {
		var words []string
		for _, in := range u.Inputs {
			words = append(words, in.Name, m.facts(side, u, in.Meaning()))
		}
		return strings.Join(append(words, u.OnFailure), " ")
	}
	if said(0, old) != said(1, amended) {
		m.refuse(key, "it has started, and the inputs or the on-failure of its runbook differ")
	}
}

// closed says that a step has ended somewhere, so that nothing in it can run any more.
func (m *amending) closed(n *Node) bool {
	return slices.ContainsFunc(m.started[n], func(path string) bool {
		s := m.past.steps[path]
		return s != nil && s.finished != nil && (s.finished.Status != statusFailed || m.past.handledBy(path) != "" || m.past.inForce(path))
	})
}

// differsInside is said of a group that is the same but for what stands in it.
const differsInside = "what stands in it differs"

// differs says what a step itself says otherwise.
func (m *amending) differs(o, n *Node) string {
	var fields []string
	said := [2]map[string]string{{}, {}}
	for side, node := range []*Node{o, n} {
		facts := node.Meaning()
		if node.Sub != nil {
			for _, e := range node.With.entries() {
				in := node.Sub.input(e.Key)
				facts = append(facts, Fact{Field: "with." + e.Key, Value: e.Value, Targets: in != nil && in.Kind == "target"})
			}
		}
		for _, f := range facts {
			said[side][f.Field] = m.facts(side, node.Unit, []Fact{f})
			if said[0][f.Field] == "" {
				fields = append(fields, f.Field)
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(said[0])) {
		if said[0][field] != said[1][field] {
			fields = append(fields, field)
		}
	}
	if len(fields) == 0 {
		return differsInside
	}
	verb := "differ"
	if len(fields) == 1 {
		verb = "differs"
	}
	return some(fields) + " " + verb
}
