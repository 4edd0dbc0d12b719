package expression

import (
	"regexp"
	"slices"
	"strings"
)

// maxSpread bounds what is written twice to bring a condition into its normal form.
const maxSpread = 64

// member says whether the value of x is in a set, where null comes to what n says: the one form of all
// comparisons with something constant, and of a condition that is just a value.
func member(x *node, s set, n answer) *node {
	switch {
	case x.form == formConstant && x.value == nil:
		if n != refuse {
			return truth(n == asTrue)
		}
	case x.form == formConstant:
		if at, of, ok := boundary(x.value); ok && (s.of == of || s.of == Null) {
			return truth(s.contains(at))
		}
		return truth(s.rest)
	case x.condition && s.of == Bool:
		s = s.within(x)
		switch {
		case s.of == Null:
		case s.in:
			return not(x)
		default:
			return x
		}
	case x.form == formIf && x.size <= maxSpread:
		return choice(x.args[0], member(x.args[1], s, n), member(x.args[2], s, n), Bool)
	case x.form == formCoalesce && x.args[1].form == formConstant && x.args[1].value != nil:
		instead := member(x.args[1], s, refuse)
		if instead.isTrue() {
			return member(x.args[0], s, asTrue)
		}
		return member(x.args[0], s, asFalse)
	}
	s = s.within(x)
	if !x.nullable {
		n = asFalse
	}
	if x.total && s.isAll() && (n == asTrue || !x.nullable) {
		return trueNode
	}
	if x.total && s.isNone() && n == asFalse {
		return falseNode
	}
	if q := quantified(x, s, n); q != nil {
		return q
	}
	return made(&node{form: formIn, args: []*node{x}, set: s, null: n, kind: Bool, condition: true,
		total: x.total && (!x.nullable || n != refuse)})
}

// quantified is the condition about elements that a condition about their number is: none of them counts, or
// one that is looked for is not there.
func quantified(x *node, s set, n answer) *node {
	if x.form != formLoop {
		return nil
	}
	list, condition := x.args[0], x.args[1]
	switch {
	case x.name == "count" && condition.total: // what is not looked at any more could fail
		zero := related(equalTo, 0, Int).within(x)
		if compareSets(s, zero) == 0 {
			return every(list, not(condition), x.level)
		}
		if compareSets(s, zero.complement().within(x)) == 0 {
			return some(list, condition, x.level)
		}
	case x.name == "findIndex" && s.isNone() && n == asTrue, x.name == "find" && s.isNone() && n == asTrue && list.sureElements && !list.holes:
		return every(list, not(condition), x.level)
	case x.name == "findIndex" && s.isAll() && n == asFalse, x.name == "find" && s.isAll() && n == asFalse && list.sureElements && !list.holes:
		return some(list, condition, x.level)
	}
	return nil
}

// comparison says whether two values stand in a relation; n says what null comes to.
func comparison(l *node, r relation, m *node, n answer) *node {
	if l.form == formConstant && m.form != formConstant {
		l, m, r = m, l, r.mirrored()
	}
	if n == byValue {
		n = byValueOf(l, m, r)
	}
	if l.form == formConstant && m.form == formConstant && l.value != nil && m.value != nil && (r == equalTo || r == lessThan|greaterThan) {
		if same, ok := attempt(func(f *frame) (any, error) { return equal(f, l.value, m.value), nil }); ok {
			return truth(same == (r == equalTo))
		}
	}
	if m.form == formConstant {
		if c := withConstant(l, r, m, n); c != nil {
			return c
		}
	}
	if !l.nullable && !m.nullable {
		n = refuse
	}
	comparable := r == equalTo || r == lessThan|greaterThan || ordered(l, m)
	switch c := compareNodes(l, m); {
	case c > 0:
		l, m, r = m, l, r.mirrored()
	case c < 0 || !comparable:
	case n == byValue && l.total:
		return truth(r&equalTo != 0)
	case n != byValue && r&equalTo != 0:
		return member(l, everything, n)
	case n != byValue:
		return member(l, nothing, n)
	}
	return made(&node{form: formRelation, args: []*node{l, m}, relation: r, null: n, kind: Bool, condition: true,
		total: comparable && l.total && m.total && (n != refuse || !l.nullable && !m.nullable)})
}

// byValueOf is what null comes to in == and != where a null is compared like a value: where only one of the
// two can be null, they are not equal then.
func byValueOf(l, m *node, r relation) answer {
	if l.nullable && m.nullable {
		return byValue
	}
	if r == equalTo {
		return asFalse
	}
	return asTrue
}

// withConstant is a comparison with a constant as membership; nil where it is none.
func withConstant(l *node, r relation, constant *node, n answer) *node {
	if constant.value == nil {
		switch {
		case n == byValue && r == equalTo:
			return member(l, nothing, asTrue)
		case n == byValue && r == lessThan|greaterThan:
			return member(l, everything, asFalse)
		case n == asFalse:
			return member(l, nothing, asFalse)
		case n == asTrue:
			return member(l, everything, asTrue)
		}
		return nil
	}
	at, of, ok := place(l, constant.value, r)
	if !ok {
		return nil
	}
	return member(l, related(r, at, of), n)
}

// place is where a constant stands among the values of l; ok is false where l may have values that cannot be
// compared with it.
func place(l *node, v any, r relation) (at any, of Kind, ok bool) {
	at, of, ok = boundary(v)
	if i, isInt := v.(int); isInt && l.kind != Int && (i >= 1<<53 || i <= -1<<53) {
		return nil, of, false // as a float it would be equal to others
	}
	switch l.kind {
	case Int, Float:
		ok = ok && of == Int
	case Any:
		ok = ok && (r == equalTo || r == lessThan|greaterThan)
	default:
		ok = ok && of == l.kind
	}
	return at, of, ok
}

// ordered says whether two values can always be put in order.
func ordered(l, m *node) bool {
	number := func(k Kind) bool { return k == Int || k == Float }
	return number(l.kind) && number(m.kind) || l.kind == m.kind && (l.kind == String || l.kind == Duration)
}

// test is a condition about two values that has no order: contains, startsWith, endsWith, matches, in,
// version_gte.
func test(name string, l, r *node, n answer) *node {
	known := l.form == formConstant && r.form == formConstant && l.value != nil && r.value != nil
	switch {
	case known && name == "in":
		if v, ok := attempt(func(f *frame) (any, error) { return contains(f, r.value, l.value) }); ok {
			return constant(v)
		}
	case known && name == "version_gte":
		if v, ok := attempt(func(f *frame) (any, error) { return versionGTE(f, []any{l.value, r.value}) }); ok {
			return constant(v)
		}
	case known && l.kind == String && r.kind == String && name != "matches":
		return truth(textTests[name](l.value.(string), r.value.(string)))
	}
	if least, ok := r.value.(string); ok && name == "version_gte" {
		if v, err := parseVersion(least); err == nil {
			r = constant(v.String())
		}
	}
	if name == "in" {
		r = unordered(r)
	}
	if !l.nullable && !r.nullable {
		n = refuse
	}
	total := l.total && r.total && (n != refuse || !l.nullable && !r.nullable)
	switch name {
	case "in":
		total = total && (r.kind == List || (r.kind == Map || r.kind == Object) && l.kind == String) && (n != byValue || !r.nullable)
	case "version_gte":
		total = false
	case "matches":
		pattern, ok := r.value.(string)
		if ok {
			_, err := regexp.Compile(pattern)
			ok = err == nil
		}
		total = total && l.kind == String && ok
	default:
		total = total && l.kind == String && r.kind == String
	}
	return made(&node{form: formTest, name: name, args: []*node{l, r}, null: n, kind: Bool, condition: true, total: total})
}

var textTests = map[string]func(text, part string) bool{"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix}

// unordered is a list of which only matters what is in it.
func unordered(l *node) *node {
	elems := elements(l)
	if len(elems) < 2 {
		return l
	}
	slices.SortFunc(elems, compareNodes)
	return list(slices.CompactFunc(elems, sameNode))
}

// elements are the elements of a list that is written out; nil if it is not.
func elements(l *node) []*node {
	if l.form == formList {
		return slices.Clone(l.args)
	}
	var elems []*node
	if values, ok := l.value.([]any); ok {
		for _, v := range values {
			elems = append(elems, constant(v))
		}
	}
	return elems
}

// not is the opposite of a condition, which it carries down to the comparisons.
func not(x *node) *node {
	switch x.form {
	case formConstant:
		if b, ok := x.value.(bool); ok {
			return truth(!b)
		}
	case formNot:
		return x.args[0]
	case formAnd, formOr:
		args := make([]*node, len(x.args))
		for i := range args {
			args[i] = not(x.args[i])
		}
		if x.form == formAnd {
			return anyOf(args...)
		}
		return allOf(args...)
	case formIn:
		return member(x.args[0], x.set.complement(), opposite(x.null))
	case formRelation:
		c := *x
		c.relation, c.null = anyOrder^x.relation, opposite(x.null)
		return &c
	case formAll:
		return some(x.args[0], not(x.args[1]), x.level)
	case formAny:
		return every(x.args[0], not(x.args[1]), x.level)
	case formIf:
		if x.condition {
			return choice(x.args[0], not(x.args[1]), not(x.args[2]), Bool)
		}
	}
	if !x.condition {
		return not(member(boolean(x), related(equalTo, 1, Bool), refuse))
	}
	return made(&node{form: formNot, args: []*node{x}, kind: Bool, condition: true, total: x.total})
}

func opposite(n answer) answer {
	if n == byValue {
		return n
	}
	return n.negate()
}

// boolean is x where it must be true, false or null.
func boolean(x *node) *node {
	if x.kind == Bool || x.form == formConstant && x.value == nil {
		return x
	}
	return made(&node{form: formCall, name: "bool", args: []*node{x}, kind: Bool, nullable: x.nullable})
}

// every holds if a condition does for all elements of a list.
func every(list, condition *node, level int) *node {
	return quantifier(formAll, list, condition, level)
}

// some holds if a condition does for one of the elements of a list.
func some(list, condition *node, level int) *node { return quantifier(formAny, list, condition, level) }

func quantifier(form form, list, condition *node, level int) *node {
	proper := list.kind == List && !list.nullable
	if condition.form == formConstant {
		switch holds := condition.isTrue(); {
		case holds == (form == formAll) && list.total && proper:
			return condition
		case holds != (form == formAll) && proper:
			empty := member(call("len", []*node{list}, intType), related(equalTo, 0, Int), refuse)
			if holds {
				return not(empty)
			}
			return empty
		}
	}
	return made(&node{form: form, args: []*node{list, condition}, level: level, kind: Bool, condition: true,
		total: list.total && proper && condition.total})
}
