package diff

import (
	"maps"
	"slices"
	"strings"

	"runbook/runner"
	"runbook/runner/expression"
)

// match pairs what is the same thing on both sides: by its name where that can be, else by
// what it means, else by what is most like it.
func match(old, new *book) {
	m := &matcher{old: old, new: new}
	m.scopes(old.root, new.root)
	m.renamedTargets()
	m.renamedInputs()
	m.by(func(s *site) string { return s.key + " " + kindOf(s) }, false)
	m.by(func(s *site) string { return s.node.ID + " " + kindOf(s) }, true)
	for range 3 { // what a step reads is known better once that is paired
		if !m.by(signature, false) {
			break
		}
	}
	m.similar()
	m.around()
	m.by(func(s *site) string { return s.key }, false)
	m.strangers()
}

type matcher struct{ old, new *book }

// renamed makes what was worked out under the old canonical names void.
func (m *matcher) renamed() {
	m.old.epoch++
	m.new.epoch++
}

// scopes pairs two uses of a file, and their names.
func (m *matcher) scopes(o, n *scope) {
	o.other, n.other = n, o
	prefix := ""
	if n.call != nil {
		prefix = n.call.key + "/"
	}
	for _, pair := range [][2]map[string]*definition{{o.inputs, n.inputs}, {o.vars, n.vars}, {o.outputs, n.outputs}} {
		for name, a := range pair[0] {
			if b := pair[1][name]; b != nil {
				a.other, b.other = b, a
				a.canon, b.canon = prefix+name, prefix+name
			}
		}
	}
	for _, pair := range [][2]map[string]*named{{o.targets, n.targets}, {o.secrets, n.secrets}} {
		for name, a := range pair[0] {
			if b := pair[1][name]; b != nil {
				a.pair(b, prefix+name)
			}
		}
	}
	m.renamed()
}

func (a *named) pair(b *named, canon string) {
	a.other, b.other = b, a
	a.canon, b.canon = canon, canon
}

// pair makes two sites one.
func (m *matcher) pair(o, n *site) {
	o.other, n.other = n, o
	o.canon, n.canon = n.key, n.key
	for _, a := range o.outs {
		for _, b := range n.outs {
			if a.name == b.name && a.what == b.what {
				a.other, b.other = b, a
			}
		}
	}
	if o.body != nil && n.body != nil {
		m.scopes(o.body, n.body)
	}
}

func unpaired(list []*site) []*site {
	var rest []*site
	for _, s := range list {
		if s.other == nil {
			rest = append(rest, s)
		}
	}
	return rest
}

// by pairs sites with the same key, in the order of the text; with unique only where it is
// one on each side. It says whether there were any.
func (m *matcher) by(key func(*site) string, unique bool) bool {
	olds, news := unpaired(m.old.sites), unpaired(m.new.sites)
	if len(olds) == 0 || len(news) == 0 {
		return false
	}
	waiting := map[string][]*site{}
	for _, s := range news {
		k := key(s)
		waiting[k] = append(waiting[k], s)
	}
	twice := map[string]bool{}
	if unique {
		seen := map[string]bool{}
		for _, s := range olds {
			k := key(s)
			twice[k] = seen[k]
			seen[k] = true
		}
	}
	var pairs [][2]*site
	for _, s := range olds {
		k := key(s)
		list := waiting[k]
		if len(list) == 0 || unique && (len(list) > 1 || twice[k]) {
			continue
		}
		waiting[k] = list[1:]
		pairs = append(pairs, [2]*site{s, list[0]})
	}
	for _, p := range pairs { // only now: a pair changes what references mean
		m.pair(p[0], p[1])
	}
	if len(pairs) > 0 {
		m.renamed()
	}
	return len(pairs) > 0
}

// kindOf tells steps apart that cannot be the same: groups and uses of runbooks can.
func kindOf(s *site) string {
	if s.node.Kind != nil {
		return s.node.Kind.Name
	}
	return ""
}

// signature is what a step means, as text, whatever its id is.
func signature(s *site) string {
	var b strings.Builder
	b.WriteString(kindOf(s))
	for i := range s.facts {
		b.WriteString("\n" + s.facts[i].Field + " " + s.key0(&s.facts[i]))
	}
	for _, in := range s.inner {
		b.WriteString("\n{" + string(rune('0'+int(in.role))))
		if in.other != nil {
			b.WriteString(in.canon)
		} else {
			b.WriteString(signature(in))
		}
		b.WriteString("}")
	}
	return b.String()
}

// key0 is a fact as text that is equal where it means the same.
func (s *site) key0(f *runner.Fact) string {
	if f.Hidden && f.Value.Constant {
		return show(f.Value.Literal)
	}
	t := f.Term(s.names(f, inlined))
	return t.Key()
}

// similarEnough is the part of the facts that must be equal for two steps of a kind to be
// taken for one that was altered, and not for two.
const similarEnough = 0.5

// mostComparisons bounds the search for similar steps.
const mostComparisons = 100_000

// similar pairs what is left: steps of one kind with most of what their authors wrote in common.
func (m *matcher) similar() {
	written := func(s *site) map[string]string {
		all := map[string]string{}
		for i := range s.facts {
			f := &s.facts[i]
			if f.At.Start.Line > 0 && f.Field != "uses" {
				all[f.Field] = s.key0(f)
			}
		}
		return all
	}
	type candidate struct {
		o, n  *site
		score float64
	}
	news := map[string][]*site{}
	facts := map[*site]map[string]string{}
	for _, s := range unpaired(m.new.sites) {
		if s.node.Kind != nil {
			news[kindOf(s)] = append(news[kindOf(s)], s)
			facts[s] = written(s)
		}
	}
	var all []candidate
	left := mostComparisons
	for _, o := range unpaired(m.old.sites) {
		if o.node.Kind == nil {
			continue
		}
		mine := written(o)
		for _, n := range news[kindOf(o)] {
			if left--; left < 0 {
				break
			}
			equal, union := 0.0, len(facts[n])
			for field, key := range mine {
				theirs, both := facts[n][field]
				switch {
				case !both:
					union++
				case theirs == key:
					equal++
				default: // it says something of the same
					equal += 0.5
				}
			}
			score := equal / float64(max(union, 1))
			if score >= similarEnough {
				all = append(all, candidate{o, n, score})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	for _, c := range all {
		if c.o.other == nil && c.n.other == nil {
			m.pair(c.o, c.n)
		}
	}
	m.renamed()
}

// around pairs groups and uses of runbooks that hold mostly the same steps.
func (m *matcher) around() {
	olds := unpaired(m.old.sites)
	slices.Reverse(olds) // inner ones first
	for _, o := range olds {
		if o.node.Kind != nil {
			continue
		}
		votes, kept := map[*site]int{}, 0
		for _, in := range o.inner {
			if in.other != nil {
				kept++
				if p := in.other.parent; p != nil && p.other == nil && p.node.Kind == nil {
					votes[p]++
				}
			}
		}
		for _, n := range slices.SortedFunc(maps.Keys(votes), func(a, b *site) int { return a.order - b.order }) {
			if 2*votes[n] > kept && 2*votes[n] > pairedIn(n) {
				m.pair(o, n)
				break
			}
		}
	}
	m.renamed()
}

func pairedIn(s *site) int {
	n := 0
	for _, in := range s.inner {
		if in.other != nil {
			n++
		}
	}
	return n
}

// strangers get names that the other side does not have.
func (m *matcher) strangers() {
	for _, b := range []*book{m.old, m.new} {
		scopes := []*scope{b.root}
		for _, s := range b.sites {
			if s.other == nil {
				s.canon = b.side + " " + s.key
			}
			if s.body != nil {
				scopes = append(scopes, s.body)
			}
		}
		for _, sc := range scopes {
			prefix := b.side + " "
			if sc.call != nil {
				prefix += sc.call.key + "/"
			}
			for _, d := range sc.ordered {
				if d.other == nil {
					d.canon = prefix + d.name
				}
			}
			for _, all := range []map[string]*named{sc.targets, sc.secrets} {
				for _, t := range all {
					if t.other == nil {
						t.canon = prefix + t.name
					}
				}
			}
		}
	}
	m.renamed()
}

// renamedTargets pairs targets of the same declaration under two names.
func (m *matcher) renamedTargets() {
	meaning := func(sc *scope, name string) string {
		var b strings.Builder
		reader := &site{scope: sc}
		for _, t := range sc.unit.Targets {
			if t.Name != name {
				continue
			}
			for _, f := range t.Meaning() {
				b.WriteString(f.Field + " " + reader.key0(&f) + "\n")
			}
		}
		return b.String()
	}
	m.renamedNames(m.old.root.targets, m.new.root.targets, meaning)
	m.renamedNames(m.old.root.secrets, m.new.root.secrets, func(sc *scope, name string) string {
		var b strings.Builder
		for _, s := range sc.unit.Secrets {
			if s.Name == name {
				for _, f := range s.Meaning() {
					b.WriteString(f.Field + " " + (&site{scope: sc}).key0(&f) + "\n")
				}
			}
		}
		return b.String()
	})
}

func (m *matcher) renamedNames(olds, news map[string]*named, meaning func(*scope, string) string) {
	found := map[string][]*named{}
	for _, name := range slices.Sorted(maps.Keys(news)) {
		if n := news[name]; n.other == nil {
			key := meaning(m.new.root, name)
			found[key] = append(found[key], n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(olds)) {
		o := olds[name]
		if o.other != nil {
			continue
		}
		key := meaning(m.old.root, name)
		if list := found[key]; len(list) == 1 {
			o.pair(list[0], list[0].name)
			delete(found, key)
		}
	}
	m.renamed()
}

// renamedInputs pairs inputs of the same declaration under two names, where there is one of each.
func (m *matcher) renamedInputs() {
	meaning := func(in *runner.Input) string {
		var b strings.Builder
		for _, f := range in.Meaning() {
			t := f.Term(func([]string) (expression.Term, bool) { return expression.Term{}, false })
			b.WriteString(f.Field + " " + t.Key() + "\n")
		}
		return b.String()
	}
	lone := func(sc *scope) map[string]*definition {
		found := map[string]*definition{}
		twice := map[string]bool{}
		for _, in := range sc.unit.Inputs {
			d := sc.inputs[in.Name]
			if d.other != nil {
				continue
			}
			key := meaning(in)
			if found[key] != nil {
				twice[key] = true
			}
			found[key] = d
		}
		maps.DeleteFunc(found, func(key string, _ *definition) bool { return twice[key] })
		return found
	}
	news := lone(m.new.root)
	for key, o := range lone(m.old.root) {
		if n := news[key]; n != nil {
			o.other, n.other = n, o
			o.canon, n.canon = n.name, n.name
		}
	}
	m.renamed()
}
