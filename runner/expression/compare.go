package expression

import (
	"slices"
	"strings"
)

// A Verdict is what became of a condition.
type Verdict int

const (
	Different  Verdict = iota // nothing of the below is known
	Same                      // they have the same value in every environment, and fail in the same ones
	Equivalent                // each holds where the other does; where they do not, one may fail and the other be false
	Weaker                    // the new one holds wherever the old one does; that the reverse is so is not known
	Stronger                  // the old one holds wherever the new one does; that the reverse is so is not known
)

func (v Verdict) String() string {
	return [...]string{"different", "same", "equivalent", "weaker", "stronger"}[v]
}

// Compare says what became of a condition. A condition that fails does not hold. Every answer but Different
// is proven; what cannot be proven with little work is Different. What null comes to is part of a term, so
// conditions of either mode can be compared.
func Compare(old, new Term) Verdict {
	o, n := old.node(), new.node()
	switch {
	case sameNode(o, n):
		return Same
	case !o.condition || !n.condition:
		return Different
	}
	weaker, stronger := implies(o, n), implies(n, o)
	if stronger && admitsNull(o, n) {
		stronger = false // the old one was never made for what now can be
	}
	switch {
	case weaker && stronger && o.total && n.total:
		return Same
	case weaker && stronger:
		return Equivalent
	case weaker:
		return Weaker
	case stronger:
		return Stronger
	}
	return Different
}

const (
	maxProof  = 2000 // goals looked at
	maxSplits = 3    // or's taken apart at once
)

// admitsNull says whether something that the old condition reads and that never was null may be null now.
func admitsNull(old, new *node) bool {
	sure, admits := map[string]bool{}, false
	old.walk(func(n *node) {
		if n.form == formReference && !n.nullable {
			sure[strings.Join(n.path, ".")] = true
		}
	})
	new.walk(func(n *node) {
		admits = admits || n.form == formReference && n.nullable && sure[strings.Join(n.path, ".")]
	})
	return admits
}

// implies says whether b is known to hold wherever a does.
func implies(a, b *node) bool {
	p := &proof{budget: maxProof}
	return p.proves(knowledge(nil).and(a), b)
}

// A proof looks for a reason why a condition holds.
type proof struct{ budget int }

// knowledge is what is known to hold; with the condition false in it, the case does not occur.
type knowledge []*node

// and adds a condition to what is known.
func (known knowledge) and(c *node) knowledge {
	c = (&joint{form: formAnd}).given(c, known)
	switch {
	case c.isTrue():
		return known
	case c.isFalse():
		return knowledge{falseNode}
	case c.form == formAnd:
		for _, a := range c.args {
			known = known.and(a)
		}
		return known
	}
	return append(slices.Clip(known), c)
}

// proves says whether a condition holds, and does not fail, where others hold.
func (p *proof) proves(known knowledge, goal *node) bool {
	if goal.form == formAnd {
		for _, g := range goal.args {
			if !p.proves(known, g) {
				return false
			}
			known = known.and(g)
		}
		return true
	}
	for splits := range maxSplits + 1 {
		if p.split(known, goal, splits) {
			return true
		}
	}
	return false
}

// split proves a goal for each case of an or among what is known.
func (p *proof) split(known knowledge, goal *node, splits int) bool {
	if p.direct(known, goal) {
		return true
	}
	for i, k := range known {
		if splits == 0 || p.budget < 0 {
			return false
		}
		if k.form != formOr {
			continue
		}
		rest := slices.Concat(known[:i], known[i+1:])
		if p.cases(rest, k.args, goal, splits-1) {
			return true
		}
	}
	return false
}

func (p *proof) cases(known knowledge, cases []*node, goal *node, splits int) bool {
	for _, c := range cases {
		if !p.split(known.and(c), goal, splits) {
			return false
		}
		known = known.and(not(c)) // the next case occurs only where this one does not
	}
	return true
}

// direct proves a goal without taking an or apart.
func (p *proof) direct(known knowledge, goal *node) bool {
	if p.budget--; p.budget < 0 {
		return false
	}
	if goal.isTrue() || slices.ContainsFunc(known, func(k *node) bool { return sameNode(k, goal) || k.isFalse() }) {
		return true
	}
	switch goal.form {
	case formAnd:
		return !slices.ContainsFunc(goal.args, func(g *node) bool { return !p.direct(known, g) })
	case formOr:
		for _, g := range goal.args {
			if p.direct(known, g) {
				return true
			}
			if !known.evaluates(g) {
				return false
			}
			known = known.and(not(g)) // where it holds, so does the goal
		}
		return slices.ContainsFunc(known, (*node).isFalse)
	case formIn:
		return known.confines(goal) || p.counts(known, goal)
	case formRelation:
		return slices.ContainsFunc(known, func(k *node) bool {
			if k.form != formRelation || !sameArgs(k, goal) {
				return false
			}
			holds, ok := decides(k, goal)
			return ok && holds
		})
	case formTest:
		return slices.ContainsFunc(known, func(k *node) bool { return tells(k, goal) })
	case formNot: // not a, and b is a or less: not b
		g := goal.args[0]
		return slices.ContainsFunc(known, func(k *node) bool {
			return k.form == formNot && g.form == formTest && k.args[0].form == formTest && broader(g, k.args[0]) &&
				(k.args[0].null != asFalse || g.null == asFalse || !g.args[0].nullable && !g.args[1].nullable)
		})
	case formAll:
		return slices.ContainsFunc(known, func(k *node) bool {
			return k.form == formAll && about(k, goal) && p.proves(known.and(k.args[1]), goal.args[1])
		}) || !goal.args[1].isFalse() && p.direct(known, every(goal.args[0], falseNode, goal.level)) // no element at all
	case formAny:
		return slices.ContainsFunc(known, func(k *node) bool {
			switch {
			case !about(k, goal):
			case k.form == formAny: // other elements are looked at before
				return known.evaluates(goal.args[1]) && p.proves(known.and(k.args[1]), goal.args[1])
			case k.form == formAll:
				return p.proves(known.and(k.args[1]), goal.args[1]) && p.direct(known, some(goal.args[0], trueNode, goal.level))
			}
			return false
		}) || p.counts(known, goal)
	}
	return false
}

// about says whether two quantifiers are about the elements of one list.
func about(k, goal *node) bool {
	return (k.form == formAll || k.form == formAny) && k.level == goal.level && sameNode(k.args[0], goal.args[0])
}

// confines says whether what is known of a value leaves only those that a condition allows.
func (known knowledge) confines(goal *node) bool {
	x := goal.args[0]
	allowed, null, found := everything, x.nullable, false
	for _, k := range known {
		if k.form == formIn && sameNode(k.args[0], x) {
			found = true
			null = null && k.null == asTrue
			if allowed.mergeable(k.set) {
				allowed = allowed.merged(k.set, false)
			}
		} else if k.reads(x) {
			found, null = true, null && k.null != asFalse && k.null != refuse
		}
	}
	return found && goal.set.includes(allowed) && (!null || goal.null == asTrue)
}

// reads says whether a comparison is one of x.
func (k *node) reads(x *node) bool {
	return (k.form == formRelation || k.form == formTest) && (sameNode(k.args[0], x) || sameNode(k.args[1], x))
}

// counts proves a condition about how many elements there are of a kind from others about the same list.
func (p *proof) counts(known knowledge, goal *node) bool {
	if x := goal.args[0]; goal.form == formIn && x.form == formCall && x.name == "len" { // some element does this or that
		return x.args[0].kind == List && goal.set.includes(related(greaterThan, 0, Int).within(x)) && slices.ContainsFunc(known, func(k *node) bool {
			n, ok := tallyOf(k)
			return ok && sameNode(n.list, x.args[0]) && n.least > 0
		})
	}
	wanted, ok := tallyOf(goal)
	if !ok || !known.evaluates(wanted.condition) {
		return false
	}
	return slices.ContainsFunc(known, func(k *node) bool {
		n, ok := tallyOf(k)
		if !ok || n.level != wanted.level || !sameNode(n.list, wanted.list) {
			return false
		}
		return wanted.allowed.includes(related(greaterThan|equalTo, n.least, Int).within(counted)) && p.proves(known.and(n.condition), wanted.condition) ||
			n.most != nil && wanted.allowed.includes(related(lessThan|equalTo, n.most, Int).within(counted)) && p.proves(known.and(wanted.condition), n.condition)
	})
}

// A tally is how many elements of a list meet a condition.
type tally struct {
	list, condition *node
	level           int
	allowed         set
	least           int
	most            any // nil: no limit
}

// counted is what a number of elements is as a subject.
var counted = &node{kind: Int, nonNegative: true}

// tallyOf reads a condition as one about a number of elements.
func tallyOf(c *node) (n tally, ok bool) {
	switch {
	case c.form == formAll:
		n = tally{list: c.args[0], condition: not(c.args[1]), level: c.level, allowed: related(equalTo, 0, Int).within(counted)}
	case c.form == formAny:
		n = tally{list: c.args[0], condition: c.args[1], level: c.level, allowed: related(greaterThan, 0, Int).within(counted)}
	case c.form == formIn && c.args[0].form == formLoop && c.args[0].name == "count" && !c.set.isNone():
		x := c.args[0]
		n = tally{list: x.args[0], condition: x.args[1], level: x.level, allowed: c.set}
	default:
		return n, false
	}
	spans := n.allowed.spans(true)
	n.least, _ = spans[0].low.(int)
	n.most = spans[len(spans)-1].high
	return n, true
}

// tells says whether a condition that holds makes a test hold.
func tells(k, goal *node) bool {
	switch {
	case k.form == formTest:
		return broader(k, goal) && (k.null != asTrue || goal.null == asTrue || !k.args[0].nullable && !k.args[1].nullable)
	case k.form != formIn || k.set.rest || k.set.of == Null || !sameNode(k.args[0], goal.args[0]) || k.null == asTrue && k.args[0].nullable:
		return false
	}
	meets := func(any) bool { return false } // what is known to be one of some values
	if elems := elements(goal.args[1]); goal.name == "in" && goal.args[1].total && len(elems) > 0 {
		meets = func(v any) bool {
			return slices.ContainsFunc(elems, func(e *node) bool {
				at, of, ok := boundary(e.value)
				return ok && of == k.set.of && at == v
			})
		}
	} else if part, ok := goal.args[1].value.(string); ok && k.set.of == String && textTests[goal.name] != nil {
		meets = func(v any) bool { return textTests[goal.name](v.(string), part) }
	}
	return !slices.ContainsFunc(k.set.intervals(k.args[0]), func(s span) bool { return !s.point() || !meets(s.low) })
}

// broader says whether of two tests that are not about null the second holds wherever the first does, and
// can be evaluated wherever the first can.
func broader(k, goal *node) bool {
	if sameArgs(k, goal) && k.name == goal.name {
		return true
	}
	if !sameNode(k.args[0], goal.args[0]) {
		return false
	}
	if k.name == "in" && goal.name == "in" && k.args[1].total && goal.args[1].total {
		fewer, more := elements(k.args[1]), elements(goal.args[1])
		return len(fewer) > 0 && !slices.ContainsFunc(fewer, func(e *node) bool {
			return !slices.ContainsFunc(more, func(m *node) bool { return sameNode(e, m) })
		})
	}
	was, ok := k.args[1].value.(string)
	is, ok2 := goal.args[1].value.(string)
	if !ok || !ok2 {
		return false
	}
	switch {
	case goal.name == "version_gte" && k.name == "version_gte":
		v, err := versionGTE(nil, []any{was, is})
		return err == nil && v == true
	case goal.name == "contains":
		return textTests[k.name] != nil && strings.Contains(was, is)
	case goal.name == "startsWith" || goal.name == "endsWith":
		return k.name == goal.name && textTests[goal.name](was, is)
	}
	return false
}

// evaluates says whether a condition does not fail where others hold.
func (known knowledge) evaluates(c *node) bool {
	switch {
	case c.total:
		return true
	case c.form == formAnd || c.form == formOr:
		return !slices.ContainsFunc(c.args, func(a *node) bool { return !known.evaluates(a) })
	case slices.ContainsFunc(known, func(k *node) bool { return sameNode(k, c) || k.form == formNot && sameNode(k.args[0], c) }):
		return true
	case c.form == formIn:
		x := c.args[0]
		return slices.ContainsFunc(known, func(k *node) bool {
			evaluated := k.form == formIn && sameNode(k.args[0], x) || k.reads(x)
			return evaluated && (c.null != refuse || !x.nullable || k.null == asFalse || k.null == refuse)
		})
	}
	return false
}
