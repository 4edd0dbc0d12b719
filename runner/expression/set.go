package expression

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A set is the values that a condition allows, of one kind that is ordered. It is written as the places
// where one walks into it or out of it on the way from the least value to the largest, so that one set has
// one form: lag < 1 and lag <= 0 are the same set of integers.
type set struct {
	of   Kind // Int (all numbers), String, Duration, Bool (as 0 and 1); Null where it is all or nothing
	in   bool // whether the least values are in it
	cuts []cut
	rest bool // whether values of other kinds are in it, for a subject whose kind is not known
}

// A cut stands before a value, or after it.
type cut struct {
	at    any
	after bool
}

func (c cut) compare(d cut) int {
	order, _ := compare(c.at, d.at)
	switch {
	case order != 0 || c.after == d.after:
		return order
	case d.after:
		return -1
	}
	return 1
}

// A relation is a set of the outcomes of a comparison.
type relation int8

const (
	lessThan relation = 1 << iota
	equalTo
	greaterThan

	anyOrder = lessThan | equalTo | greaterThan
)

// mirrored is the relation of the operands exchanged.
func (r relation) mirrored() relation {
	return r&equalTo | (r&lessThan)<<2 | (r&greaterThan)>>2
}

// boundary is a value as sets hold it; ok is false for what has no order, and for numbers so large that an
// int and a float compare as equal though they are not.
func boundary(v any) (at any, of Kind, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, Bool, true
		}
		return 0, Bool, true
	case int:
		return v, Int, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int(v), Int, true
		}
		return v, Int, math.Abs(v) < 1<<53
	case string:
		return v, String, true
	case time.Duration:
		return v, Duration, true
	}
	return nil, Null, false
}

// related is the set of the values that stand in a relation to v.
func related(r relation, at any, of Kind) set {
	s := set{of: of, in: r&lessThan != 0}
	if (r&equalTo != 0) != s.in {
		s.cuts = append(s.cuts, cut{at, false})
	}
	if (r&greaterThan != 0) != (r&equalTo != 0) {
		s.cuts = append(s.cuts, cut{at, true})
	}
	s.rest = r == lessThan|greaterThan // what is of another kind is not equal
	return s
}

// pointsOf is the set of some values.
func pointsOf(points []any, of Kind) set {
	slices.SortFunc(points, func(a, b any) int { order, _ := compare(a, b); return order })
	s := set{of: of, cuts: make([]cut, 0, 2*len(points))}
	for i, at := range points {
		if i > 0 {
			if order, _ := compare(points[i-1], at); order == 0 {
				continue
			}
		}
		s.cuts = append(s.cuts, cut{at, false}, cut{at, true})
	}
	return s
}

var (
	everything = set{of: Null, in: true, rest: true}
	nothing    = set{of: Null}
)

func (s set) isAll() bool  { return s.in && len(s.cuts) == 0 && s.rest }
func (s set) isNone() bool { return !s.in && len(s.cuts) == 0 && !s.rest }

// within is the form of s as a set of the values that a subject can have.
func (s set) within(n *node) set {
	discrete := n.kind == Int || n.kind == Duration || n.kind == Bool
	if discrete || s.of == Bool {
		s.cuts = whole(s.cuts)
	}
	if least := leastOf(n, s.of); least != nil {
		for len(s.cuts) > 0 && s.cuts[0].compare(cut{least, false}) <= 0 {
			s.in, s.cuts = !s.in, s.cuts[1:]
		}
	}
	if s.of == Bool {
		for len(s.cuts) > 0 && s.cuts[len(s.cuts)-1].compare(cut{2, false}) >= 0 {
			s.cuts = s.cuts[:len(s.cuts)-1]
		}
	}
	if n.kind != Any {
		s.rest = len(s.cuts) == 0 && s.in
	}
	if s.isAll() || s.isNone() {
		s.of = Null
	}
	return s
}

// leastOf is the least value that a subject can have of a kind; nil where there is none.
func leastOf(n *node, of Kind) any {
	switch {
	case of == Bool:
		return 0
	case of == String:
		return ""
	case n.kind == Int && n.nonNegative, n.kind == Float && n.nonNegative:
		return 0
	case n.kind == Int:
		return math.MinInt
	case n.kind == Duration && n.nonNegative:
		return time.Duration(0)
	case n.kind == Duration:
		return time.Duration(math.MinInt64)
	}
	return nil
}

// whole moves cuts between whole numbers before the next one.
func whole(cuts []cut) []cut {
	moved := make([]cut, 0, len(cuts))
	for _, c := range cuts {
		switch at := c.at.(type) {
		case int:
			if c.after && at == math.MaxInt {
				continue
			}
			if c.after {
				c = cut{at + 1, false}
			}
		case float64: // with a fraction, or boundary would have made an int of it
			c = cut{int(math.Floor(at)) + 1, false}
		case time.Duration:
			if c.after && at == math.MaxInt64 {
				continue
			}
			if c.after {
				c = cut{at + 1, false}
			}
		}
		if n := len(moved); n > 0 && moved[n-1] == c { // in and out again between two whole numbers
			moved = moved[:n-1]
			continue
		}
		moved = append(moved, c)
	}
	return moved
}

func (s set) complement() set {
	if s.of == Null {
		if s.in {
			return nothing
		}
		return everything
	}
	s.in, s.rest = !s.in, !s.rest
	return s
}

// mergeable says whether two sets are of kinds that can be in one.
func (s set) mergeable(t set) bool { return s.of == t.of || s.of == Null || t.of == Null }

// merged is the union, or the intersection, of two sets that are mergeable.
func (s set) merged(t set, union bool) set {
	both := func(a, b bool) bool {
		if union {
			return a || b
		}
		return a && b
	}
	m := set{of: s.of, in: both(s.in, t.in), rest: both(s.rest, t.rest)}
	if s.of == Null {
		m.of = t.of
	}
	inS, inT, in := s.in, t.in, m.in
	a, b := s.cuts, t.cuts
	for len(a)+len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = a[0].compare(b[0])
		}
		var at cut
		if order <= 0 {
			at, inS, a = a[0], !inS, a[1:]
		}
		if order >= 0 {
			at, inT, b = b[0], !inT, b[1:]
		}
		if now := both(inS, inT); now != in {
			m.cuts, in = append(m.cuts, at), now
		}
	}
	if m.isAll() || m.isNone() {
		m.of = Null
	}
	return m
}

// contains says whether a value that boundary gave is in s.
func (s set) contains(at any) bool {
	in := s.in
	for _, c := range s.cuts {
		order, _ := compare(c.at, at)
		if order > 0 || order == 0 && c.after {
			break
		}
		in = !in
	}
	return in
}

// includes says whether all values of t are in s.
func (s set) includes(t set) bool {
	return s.isAll() || t.isNone() || s.mergeable(t) && t.merged(s.complement(), false).isNone()
}

// disjoint says whether no value is in both.
func (s set) disjoint(t set) bool {
	return s.isNone() || t.isNone() || s.mergeable(t) && s.merged(t, false).isNone()
}

func compareSets(s, t set) int {
	if c := cmp.Or(cmp.Compare(s.of, t.of), compareBools(s.in, t.in), compareBools(s.rest, t.rest)); c != 0 {
		return c
	}
	return slices.CompareFunc(s.cuts, t.cuts, func(a, b cut) int {
		return cmp.Or(compareConstants(a.at, b.at), compareBools(a.after, b.after))
	})
}

// A span is an interval of a set; a bound that is nil is none.
type span struct {
	low, high                 any
	includesLow, includesHigh bool
}

// point says whether it has one value only.
func (s span) point() bool {
	return s.includesLow && s.includesHigh && s.low != nil && s.low == s.high
}

// spans are the intervals of s. Those of whole numbers include their bounds.
func (s set) spans(discrete bool) []span {
	var all []span
	in := s.in
	current := span{}
	for _, c := range s.cuts {
		if in {
			current.high, current.includesHigh = c.at, c.after
			if discrete {
				current.high, current.includesHigh = before(c.at), true
			}
			all = append(all, current)
		} else {
			current = span{low: c.at, includesLow: !c.after}
		}
		in = !in
	}
	if in {
		current.high = nil
		all = append(all, current)
	}
	return all
}

// before is the whole number before a cut; cuts stand before whole numbers, never after.
func before(at any) any {
	switch at := at.(type) {
	case int:
		return at - 1
	case time.Duration:
		return at - 1
	}
	return at
}
