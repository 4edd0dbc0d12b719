package expression

import "slices"

const (
	maxMerge      = 64  // how many conditions of one and, or of one or, are compared with each other
	maxSimplified = 256 // and how large one is that they make simpler
)

// allOf holds if all conditions do. They are evaluated in order until one does not hold, so that only those
// that never fail change places with each other.
func allOf(args ...*node) *node { return junction(formAnd, args) }

// anyOf holds if one of the conditions does; they are evaluated in order until then.
func anyOf(args ...*node) *node { return junction(formOr, args) }

func junction(f form, args []*node) *node {
	j := &joint{form: f, unit: truth(f == formAnd), zero: truth(f == formOr)}
	args = j.flat(args)
	for range 4 { // a condition that got simpler may make others so
		before := args
		args = j.simplify(args)
		j.sort(args)
		if slices.EqualFunc(before, args, sameNode) {
			break
		}
	}
	switch len(args) {
	case 0:
		return j.unit
	case 1:
		return args[0]
	}
	n := made(&node{form: f, args: args, kind: Bool, condition: true, total: true})
	for _, a := range args {
		n.total = n.total && a.total
	}
	return n
}

// A joint is what is joined by and, or what is by or: the same with true and false exchanged.
type joint struct {
	form       form
	unit, zero *node // what changes nothing, and what decides
}

// flat takes conditions out of those of the same kind.
func (j *joint) flat(args []*node) []*node {
	all := make([]*node, 0, len(args))
	for _, a := range args {
		if !a.condition {
			a = member(boolean(a), related(equalTo, 1, Bool), refuse)
		}
		if a.form == j.form {
			all = append(all, a.args...)
			continue
		}
		all = append(all, a)
	}
	return all
}

// sort puts conditions that never fail in order, where nothing that could fail stands between them.
func (j *joint) sort(args []*node) {
	for len(args) > 0 {
		run := slices.IndexFunc(args, func(a *node) bool { return !a.total })
		if run < 0 {
			run = len(args)
		}
		slices.SortFunc(args[:run], compareNodes)
		args = args[min(run+1, len(args)):]
	}
}

// simplify leaves out what those before have decided, and merges what is about the same.
func (j *joint) simplify(args []*node) []*node {
	out, known := make([]*node, 0, len(args)), make([]*node, 0, len(args))
	few := len(args) <= maxMerge
	for _, a := range args {
		if few {
			a = j.given(a, known)
		}
		if a.form == j.form { // it has become one
			inner := j.simplify(append(out, a.args...))
			out, known = inner, j.known(inner)
			continue
		}
		if sameNode(a, j.unit) {
			continue
		}
		if sameNode(a, j.zero) {
			return j.decided(out)
		}
		if few && j.merge(&out, a) {
			known = j.known(out)
			if n := len(out); n > 0 && sameNode(out[n-1], j.zero) {
				return j.decided(out[:n-1])
			}
			continue
		}
		out = append(out, a)
		known = append(known, j.fact(a))
	}
	return out
}

// decided are conditions before one that decides: only those that could fail matter.
func (j *joint) decided(out []*node) []*node {
	for len(out) > 0 && out[len(out)-1].total {
		out = out[:len(out)-1]
	}
	if len(out) == 0 {
		return []*node{j.zero}
	}
	if last := out[len(out)-1]; last.form == formIn && last.null == refuse && last.args[0].total {
		s := nothing
		if j.form == formOr {
			s = everything
		}
		return append(out[:len(out)-1:len(out)-1], member(last.args[0], s, refuse))
	}
	return append(out, j.zero)
}

// fact is what is known of a condition where the next one is evaluated.
func (j *joint) fact(a *node) *node {
	if j.form == formAnd {
		return a
	}
	return denied(a)
}

// denied is the opposite of a condition as a fact: unlike not it does not go down into what is joined.
func denied(a *node) *node {
	switch a.form {
	case formIn:
		c := *a
		c.set = a.set.complement().within(a.args[0])
		if a.args[0].nullable {
			c.null = opposite(a.null)
		}
		return &c
	case formRelation:
		c := *a
		c.relation, c.null = anyOrder^a.relation, opposite(a.null)
		return &c
	case formNot:
		return a.args[0]
	}
	return &node{form: formNot, args: []*node{a}}
}

func (j *joint) known(out []*node) []*node {
	facts := make([]*node, len(out))
	for i := range out {
		facts[i] = j.fact(out[i])
	}
	return facts
}

// given is what is left of a condition where others are known to hold.
func (j *joint) given(c *node, known []*node) *node {
	switch c.form {
	case formConstant:
		return c
	case formAnd, formOr:
		if c.size > maxSimplified {
			return c
		}
		args, changed := make([]*node, len(c.args)), false
		for i, a := range c.args {
			args[i] = j.given(a, known)
			changed = changed || args[i] != a
		}
		if changed {
			return junction(c.form, args)
		}
		return c
	}
	for _, k := range known {
		switch {
		case k.form == formIn && c.form == formIn && sameNode(k.args[0], c.args[0]):
			if c = j.narrow(c, k); c.form != formIn {
				return c
			}
		case k.form == formRelation && c.form == formRelation && sameArgs(k, c):
			if holds, ok := decides(k, c); ok {
				return truth(holds)
			}
		case sameNode(k, c):
			return trueNode
		case k.form == formNot && sameNode(k.args[0], c) || c.form == formNot && sameNode(c.args[0], k):
			return falseNode
		}
	}
	return c
}

// narrow is a condition about a value where another one about it is known to hold.
func (j *joint) narrow(c, k *node) *node {
	null := k.null == asTrue && k.args[0].nullable
	switch {
	case c.set.includes(k.set) && (!null || c.null == asTrue):
		return trueNode
	case c.set.disjoint(k.set) && (!null || c.null == asFalse):
		return falseNode
	case c.null == refuse && !null && c.args[0].nullable:
		n := asFalse // either is right, since the value is not null; this one can be merged
		if j.form == formOr {
			n = asTrue
		}
		return member(c.args[0], c.set, n)
	}
	return c
}

// decides says whether a comparison that holds makes another one of the same two values hold or not.
func decides(k, c *node) (holds, ok bool) {
	if c.relation != equalTo && c.relation != lessThan|greaterThan && !ordered(c.args[0], c.args[1]) {
		return false, false // it could fail
	}
	null := k.null == asTrue
	switch {
	case k.relation&^c.relation == 0 && (!null || c.null == asTrue) && (k.null == byValue) == (c.null == byValue):
		return true, true
	case k.relation&c.relation == 0 && !null && (k.null == byValue) == (c.null == byValue):
		return false, true
	}
	return false, false
}

// merge makes one condition out of c and one before it that is about the same, if there is one.
func (j *joint) merge(out *[]*node, c *node) bool {
	list := *out
	for i := len(list) - 1; i >= 0; i-- {
		e := list[i]
		m := j.merged(e, c)
		switch {
		case m == nil:
		case m.total || !e.total && (i == len(list)-1 || m.null == e.null):
			list[i] = m
			if sameNode(m, j.zero) {
				*out = append(list[:i:i], append(slices.Clone(list[i+1:]), m)...)
			} else if sameNode(m, j.unit) {
				*out = slices.Delete(list, i, i+1)
			}
			return true
		case e.total: // c could fail, so what is evaluated before c stays before
			*out = append(slices.Delete(list, i, i+1), m)
			return true
		}
		if !e.total {
			return false
		}
	}
	return false
}

// merged is e joined with c that stands behind it; nil where that is not one condition.
func (j *joint) merged(e, c *node) *node {
	union := j.form == formOr
	switch {
	case e.form != c.form || !sameNode(e.args[0], c.args[0]):
	case e.form == formIn && e.set.mergeable(c.set):
		n := e.null
		if e.null == j.unit.answer() {
			n = c.null
		}
		return member(e.args[0], e.set.merged(c.set, union), n)
	case e.form == formRelation && e.null == c.null && e.total && c.total && e.null != byValue && sameNode(e.args[1], c.args[1]):
		m := *e
		if m.relation &= c.relation; union {
			m.relation = e.relation | c.relation
		}
		return settled(&m)
	case e.form == formAll && !union && e.total && c.total:
		return every(e.args[0], allOf(e.args[1], c.args[1]), e.level)
	case e.form == formAny && union && e.total && c.total:
		return some(e.args[0], anyOf(e.args[1], c.args[1]), e.level)
	}
	return nil
}

// settled is a comparison that may have come to always or never.
func settled(c *node) *node {
	null := c.args[0].nullable || c.args[1].nullable
	switch {
	case c.relation == 0 && (!null || c.null == asFalse):
		return falseNode
	case c.relation == anyOrder && (!null || c.null == asTrue):
		return trueNode
	}
	return c
}

func (n *node) answer() answer {
	if n.isTrue() {
		return asTrue
	}
	return asFalse
}
