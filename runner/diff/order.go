package diff

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"runbook/runner"
)

// order tells what happens at another time, or around what, than before.
func (c *comparison) order() {
	told := c.reordered()
	for _, n := range c.new.sites {
		if o := n.other; o != nil && !o.besideBefore(n) {
			c.context(o, n)
			told[n] = told[n] || o.way() != n.way()
		}
	}
	c.moved(told)
}

// step is a step with a kind on the way that every run takes, on both sides.
type step struct{ o, n *site }

// reordered compares the order of acts and checks, and gives those that it told of.
func (c *comparison) reordered() map[*site]bool {
	var all []step
	for _, o := range c.old.sites {
		if n := o.other; n != nil && o.node.Shape == runner.Leaf && n.node.Shape == runner.Leaf && o.track().way == n.track().way {
			all = append(all, step{o, n})
		}
	}
	out := make([]bool, len(all)) // of the longest part that is in the same order
	for i := range out {
		out[i] = true
	}
	orders := make([]int, len(all))
	for i := range all {
		orders[i] = all[i].n.order
	}
	for _, i := range longestRising(orders) {
		out[i] = false
	}
	for i := range all {
		out[i] = out[i] || all[i].n.newlyParallel()
	}
	r := reorder{seen: make([]bool, len(all)), unverified: map[*site][]*site{}, late: map[*site][]*site{}, swapped: map[*site][]*site{}}
	for i := range all {
		if out[i] {
			r.against(all, i)
		}
	}
	return c.tellOrder(&r)
}

// reorder is what stands in another order: for each step those that it changed places with.
type reorder struct {
	seen       []bool
	unverified map[*site][]*site // act → checks that were before it
	late       map[*site][]*site // check → acts that were before it
	swapped    map[*site][]*site // act → acts
}

// against compares the place of a step that is out of order with all others.
func (r *reorder) against(all []step, i int) {
	x := all[i]
	r.seen[i] = true
	for j := range all {
		y := all[j]
		if r.seen[j] || x.n.track() != y.n.track() || x.o.track() != y.o.track() || !x.acts() && !y.acts() {
			continue
		}
		first, second := x, y // as they were
		if y.o.order < x.o.order {
			first, second = y, x
		}
		if !before(first.o, second.o) || before(first.n, second.n) {
			continue
		}
		switch {
		case first.checks() && second.acts():
			r.unverified[second.n] = append(r.unverified[second.n], first.n)
		case first.acts() && second.checks():
			r.late[second.n] = append(r.late[second.n], first.n)
		case first.acts() && second.acts() && before(second.n, first.n):
			r.swapped[x.n] = append(r.swapped[x.n], y.n)
		}
	}
}

func (s step) acts() bool   { return max(s.o.nature, s.n.nature) >= writes }
func (s step) checks() bool { return s.o.nature == checks || s.n.nature == checks }

// tellOrder reports what stands in another order, and gives the steps that it told of.
func (c *comparison) tellOrder(r *reorder) map[*site]bool {
	told := map[*site]bool{}
	tell := func(rule string, of map[*site][]*site) {
		for _, s := range sortedSites(of) {
			if rule == "acts-reordered" && told[s] {
				continue
			}
			told[s] = true
			names := someNames(of[s])
			v := verdict{rule: rule, field: "order", before: "after " + names, after: "before " + names}
			if slices.ContainsFunc(of[s], func(other *site) bool { return unordered(s, other) }) {
				v.after = "at the same time as " + names
			}
			if rule == "acts-reordered" {
				v.before, v.after, v.note = "", "", "it changes places with "+names
			}
			c.report(s.other, s, v, nil)
		}
	}
	tell("act-before-check", r.unverified)
	tell("check-before-act", r.late)
	tell("acts-reordered", r.swapped)
	return told
}

func sortedSites(m map[*site][]*site) []*site {
	return slices.SortedFunc(maps.Keys(m), func(a, b *site) int { return a.order - b.order })
}

func someNames(list []*site) string {
	slices.SortFunc(list, func(a, b *site) int { return a.order - b.order })
	var names []string
	for _, s := range list[:min(len(list), mostNames)] {
		names = append(names, s.key)
	}
	if n := len(list) - len(names); n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), n)
	}
	return strings.Join(names, ", ")
}

// before tells whether one step is over when another starts.
func before(a, b *site) bool { return a.order < b.order && !unordered(a, b) }

// unordered tells whether two steps are in different branches of a parallel group.
func unordered(a, b *site) bool {
	for p := a; p.parent != nil; p = p.parent {
		if p.parent.node.Parallel && p.role == runner.InSteps {
			for q := b; q.parent != nil; q = q.parent {
				if q.parent == p.parent {
					return q != p && q.role == runner.InSteps
				}
			}
		}
	}
	return false
}

// newlyParallel tells whether a step stands in a parallel group that it did not stand in.
func (s *site) newlyParallel() bool {
	for p := s.parent; p != nil; p = p.parent {
		if p.node.Parallel && (p.other == nil || !p.other.node.Parallel || !s.other.inside(p.other)) {
			return true
		}
	}
	return false
}

func (s *site) inside(of *site) bool {
	for p := s.parent; p != nil; p = p.parent {
		if p == of {
			return true
		}
	}
	return false
}

// way is which list of the run a step is on.
type way int

const (
	mainWay way = iota
	batchWay
	finallyWay
	rescueWay
	undoWay
)

func (s *site) way() way {
	w := mainWay
	for ; s != nil; s = s.parent {
		switch s.role {
		case runner.InAfterBatch:
			w = max(w, batchWay)
		case runner.InFinally:
			w = max(w, finallyWay)
		case runner.InRescue:
			w = max(w, rescueWay)
		case runner.InUndo:
			w = max(w, undoWay)
		}
	}
	return w
}

var wayNames = [...]string{"among the steps", "after each batch", "in finally", "in a rescue", "in an undo"}

// context tells what a step loses by leaving groups, and what it gets into by entering
// others. Groups that are themselves there or gone are told as such.
func (c *comparison) context(o, n *site) {
	if o.way() != n.way() {
		c.report(o, n, verdict{rule: "moved-aside", before: wayNames[o.way()], after: wayNames[n.way()]}, nil)
	}
	gate := n.gateAround()
	for p := o.parent; p != nil; p = p.parent {
		if p.other == nil || n.inside(p.other) {
			continue
		}
		for i := range p.facts {
			f := &p.facts[i]
			if !holds(f.Field) || f.Field == "confirm" && gate != nil {
				continue
			}
			for _, v := range c.judge(p, nil, f.Field, f, nil) {
				v.field, v.note = f.Field, join(v.note, "it stood in "+p.key)
				c.report(o, n, v, nil)
			}
		}
	}
	for p := n.parent; p != nil; p = p.parent {
		if p.other == nil || o.inside(p.other) {
			continue
		}
		for i := range p.facts {
			f := &p.facts[i]
			if !holds(f.Field) {
				continue
			}
			for _, v := range c.judge(nil, p, f.Field, nil, f) {
				v.field, v.note = f.Field, join(v.note, "it stands in "+p.key)
				c.report(o, n, v, nil)
			}
		}
		if len(p.node.Rescue) > 0 && n.role != runner.InRescue {
			c.report(o, n, verdict{rule: "rescue-added", note: "it stands in " + p.key}, nil)
		}
	}
}

// holds tells whether a field of a group is about each step in it.
func holds(field string) bool {
	switch field {
	case "when", "require", "confirm", "for-each", "targets", "on-failure", "max-age.of", "window.days", "repeat.until", "point-of-no-return":
		return true
	}
	return strings.HasPrefix(field, "guards.") && strings.HasSuffix(field, ".require")
}

// moved tells which steps stand elsewhere, several that went the same way as one.
func (c *comparison) moved(told map[*site]bool) {
	out := map[*site]bool{}
	lists := map[*site][]*site{} // by parent on the new side
	for _, n := range c.new.sites {
		lists[n.parent] = append(lists[n.parent], n)
	}
	for _, list := range lists {
		var stayed []*site
		for _, n := range list {
			o := n.other
			switch {
			case o == nil:
			case !o.besideBefore(n):
				out[n] = true
			default:
				stayed = append(stayed, n)
			}
		}
		orders := make([]int, len(stayed))
		for i, n := range stayed {
			orders[i] = n.other.order
		}
		still := map[int]bool{}
		for _, i := range longestRising(orders) {
			still[i] = true
		}
		for i, n := range stayed {
			out[n] = out[n] || !still[i]
		}
	}
	var last *Change
	var from, to *site
	for _, n := range c.new.sites {
		if !out[n] || told[n] {
			continue
		}
		o := n.other
		if last != nil && o.parent == from && n.parent == to && !o.besideBefore(n) {
			last.Also = append(last.Also, n.key)
			continue
		}
		from, to = o.parent, n.parent
		v := verdict{rule: "moved", before: c.place(o), after: c.place(n)}
		if v.before == v.after {
			v.before, v.after = predecessor(c.old, o), predecessor(c.new, n)
		}
		c.report(o, n, v, nil)
		last = &c.changes[len(c.changes)-1]
	}
}

// besideBefore tells whether two versions of a step stand in the same list.
func (s *site) besideBefore(n *site) bool {
	if s.parent == nil || n.parent == nil {
		return s.parent == n.parent && s.role == n.role
	}
	return s.parent.other == n.parent && s.role == n.role
}

func (c *comparison) place(s *site) string {
	switch {
	case s.parent == nil:
		return "top"
	case s.parent.node.Shape == runner.Call:
		return "in " + s.parent.key + " (" + s.parent.node.Step.Uses.Value + ")"
	}
	return "in " + s.parent.key
}

// predecessor is what stands before a step, in its list.
func predecessor(b *book, s *site) string {
	list := b.top
	if s.parent != nil {
		list = s.parent.inner
	}
	i := slices.Index(list, s)
	if i <= 0 {
		return "first"
	}
	return "after " + list[i-1].key
}

// longestRising are the places of a longest part of a list that rises.
func longestRising(list []int) []int {
	var ends []int // ends[k]: place of the smallest end of a rising part of k+1
	prev := make([]int, len(list))
	for i, v := range list {
		k := sort.Search(len(ends), func(k int) bool { return list[ends[k]] >= v })
		prev[i] = -1
		if k > 0 {
			prev[i] = ends[k-1]
		}
		if k == len(ends) {
			ends = append(ends, i)
		} else {
			ends[k] = i
		}
	}
	if len(ends) == 0 {
		return nil
	}
	part := make([]int, len(ends))
	for i, k := ends[len(ends)-1], len(ends)-1; k >= 0; i, k = prev[i], k-1 {
		part[k] = i
	}
	return part
}

// track is what runs in one order: the steps of every run, after-batch with them, finally, or one rescue or undo.
type track struct {
	way way
	of  *site // the step whose rescue or undo it is
}

func (s *site) track() track {
	for p := s; p != nil; p = p.parent {
		if p.role == runner.InRescue || p.role == runner.InUndo {
			return track{p.way(), p.parent}
		}
	}
	if w := s.way(); w != batchWay {
		return track{way: w}
	}
	return track{}
}
