package expression

import (
	"slices"
)

// attempt folds constants, as far as that is cheap: what is expensive stays as it is written.
func attempt(fold func(f *frame) (any, error)) (v any, ok bool) {
	f := &frame{work: maxWork - 200_000, memory: maxMemory - 4<<20}
	defer func() {
		if recover() != nil {
			v, ok = nil, false
		}
	}()
	v, err := fold(f)
	if err == nil {
		f.weigh(v)
	}
	return v, err == nil
}

// typed gives a node what its type says of its value.
func typed(n *node, t *Type) *node {
	n.typ, n.missing = t, n.nullable && !t.nullable()
	n.kind, n.nullable, n.nonNegative = t.Kind, n.nullable || t.nullable(), t.NonNegative
	n.sureElements = t.Kind == List && t.Elem != nil && !t.Elem.nullable()
	return n
}

// inside is the type of what is found in base: t, or what is known of base where t says nothing, since base
// stands for a name whose type is less definite.
func inside(base *node, name string, t *Type) *Type {
	of := base.typ
	switch {
	case t.Kind != Any || of == nil:
		return t
	case of.Kind == Object && of.Fields[name] != nil:
		return of.Fields[name]
	case of.is(Map, List):
		return of.elem()
	}
	return t
}

// field is a field of base that is written out; soft: it is null where base is.
func field(base *node, name string, soft bool, t *Type) *node {
	t = inside(base, name, t)
	switch {
	case base.form == formConstant:
		if m, ok := base.value.(map[string]any); ok {
			return constant(m[name])
		}
		if base.value == nil && soft {
			return nullNode
		}
	case base.form == formMap:
		if v := entry(base, name); v != nil {
			return v
		}
	case base.form == formReference && len(base.path) < 64:
		n := &node{form: formReference, path: append(slices.Clip(base.path), name), soft: base.soft, size: 1}
		if base.untyped {
			n.untyped, n.kind, n.nullable, n.holes = true, Any, true, true
			return n
		}
		if soft && base.nullable {
			n.soft |= 1 << len(base.path)
		}
		return within(n, base, soft, t)
	}
	n := made(&node{form: formCall, name: ".", args: []*node{base, constant(name)}})
	if soft && base.nullable {
		n.name = "?."
	}
	return within(n, base, soft, t)
}

// within completes a field: what is known of it by its type and by what it is a field of.
func within(n, base *node, soft bool, t *Type) *node {
	missing := base.kind != Object
	n.nullable = missing || base.holes || soft && base.nullable
	n.holes = missing && base.kind != Map || base.holes
	n.total = base.total && (soft || !base.nullable) && (base.kind == Object || base.kind == Map)
	return typed(n, t)
}

// entry is what a map has under a key, if nothing else of it matters.
func entry(m *node, name string) *node {
	var found *node
	for i := 0; i < len(m.args); i += 2 {
		key, value := m.args[i], m.args[i+1]
		switch {
		case key.form != formConstant:
			return nil
		case key.value == name:
			found = value
		case !value.total:
			return nil
		}
	}
	if found == nil && m.total {
		return nullNode
	}
	return found
}

// elementOf is an element of a list, or what stands in a map under a key that is computed.
func elementOf(base, key *node, soft bool, t *Type) *node {
	t = inside(base, "", t)
	n := made(&node{form: formCall, name: "[]", args: []*node{base, key}})
	if soft && base.nullable {
		n.name = "?.[]"
	}
	list := base.kind == List
	n.nullable = !list || base.holes || soft && base.nullable
	n.holes = base.holes || base.kind == Any
	n.total = base.total && key.sure() && (soft || !base.nullable) && (base.kind == Map || base.kind == Object) && key.kind == String
	return typed(n, t)
}

// choice is cond ? a : b, with the kind that both have.
func choice(cond, a, b *node, kind Kind) *node {
	if opposite := not(cond); compareNodes(opposite, cond) < 0 {
		cond, a, b = opposite, b, a
	}
	switch {
	case cond.isTrue():
		return a
	case cond.isFalse():
		return b
	case cond.total && sameNode(a, b):
		return a
	case b.isFalse() && a.condition:
		return allOf(cond, a)
	case a.isTrue() && b.condition:
		return anyOf(cond, b)
	case a.isFalse() && b.condition:
		return allOf(not(cond), b)
	case b.isTrue() && a.condition:
		return anyOf(not(cond), a)
	case a.condition && b.condition && cond.size <= maxSpread:
		return anyOf(allOf(cond, a), allOf(not(cond), b))
	}
	return made(&node{form: formIf, args: []*node{cond, a, b}, kind: kindOfBoth(a, b, kind), nullable: a.nullable || b.nullable, holes: a.holes || b.holes,
		total: cond.total && a.total && b.total, sureElements: a.sureElements && b.sureElements,
		nonNegative: a.nonNegative && b.nonNegative, condition: a.condition && b.condition})
}

// kindOfBoth is the kind that two values are said to have, if what was put in for a name has it too.
func kindOfBoth(a, b *node, kind Kind) Kind {
	if a.kind == Any || b.kind == Any {
		return Any
	}
	return kind
}

// coalesce is a ?? b.
func coalesce(a, b *node, kind Kind) *node {
	switch {
	case !a.nullable || b.form == formConstant && b.value == nil:
		return a
	case a.form == formConstant:
		return b
	case a.form == formCoalesce:
		return coalesce(a.args[0], coalesce(a.args[1], b, kind), kind)
	}
	return made(&node{form: formCoalesce, args: []*node{a, b}, kind: kindOfBoth(a, b, kind), nullable: b.nullable, holes: a.holes || b.holes,
		total: a.total && b.total, sureElements: a.sureElements && b.sureElements, nonNegative: a.nonNegative && b.nonNegative})
}

// concat is the text of all parts, one after the other.
func concat(parts []*node) *node {
	n := &node{form: formConcat, kind: String, total: true}
	for _, p := range parts {
		inner := []*node{p}
		if p.form == formConcat {
			inner = p.args
		}
		for _, p := range inner {
			last := len(n.args) - 1
			text, ok := wordsOf(p)
			before, ok2 := "", last >= 0
			if ok2 {
				before, ok2 = wordsOf(n.args[last])
			}
			switch {
			case ok && text == "":
			case ok && ok2:
				n.args[last] = constant(before + text)
			case ok:
				n.args = append(n.args, constant(text))
			default:
				n.args = append(n.args, p)
				n.total = n.total && p.sure()
			}
		}
	}
	switch {
	case len(n.args) == 0:
		return constant("")
	case len(n.args) == 1 && n.args[0].kind == String && !n.args[0].nullable:
		return n.args[0]
	}
	return made(n)
}

// wordsOf is the text of a constant.
func wordsOf(n *node) (string, bool) {
	if n.form != formConstant {
		return "", false
	}
	text, err := Text(n.value)
	return text, err == nil
}

// list is a list of its elements.
func list(elems []*node) *node {
	n := &node{form: formList, args: elems, kind: List, total: true, sureElements: true}
	known := true
	for _, e := range elems {
		known = known && e.form == formConstant
		n.total, n.holes = n.total && e.total, n.holes || e.holes || e.nullable
		n.sureElements = n.sureElements && !e.nullable
	}
	if known {
		values := make([]any, len(elems))
		for i := range elems {
			values[i] = elems[i].value
		}
		return constant(values)
	}
	return made(n)
}

// mapOf is a map of keys and values in turn.
func mapOf(args []*node) *node {
	n := &node{form: formMap, args: args, kind: Map, total: true}
	known, literal := true, true
	for i := 0; i < len(args); i += 2 {
		key, value := args[i], args[i+1]
		_, text := key.value.(string)
		literal = literal && text
		known = known && text && value.form == formConstant
		n.total = n.total && key.sure() && key.kind == String && value.total
		n.holes = n.holes || value.nullable || value.holes
	}
	if known {
		m := make(map[string]any, len(args)/2)
		for i := 0; i < len(args); i += 2 {
			m[args[i].value.(string)] = args[i+1].value
		}
		return constant(m)
	}
	if literal {
		n.args = sortedPairs(args)
	}
	return made(n)
}

func sortedPairs(args []*node) []*node {
	pairs := slices.Collect(slices.Chunk(args, 2))
	slices.SortStableFunc(pairs, func(a, b []*node) int { return compareNodes(a[0], b[0]) })
	return slices.Concat(pairs...)
}

// arithmeticOf is an operator of numbers, durations or texts.
func arithmeticOf(op string, l, r *node, t *Type) *node {
	if l.kind == String && r.kind == String && op == "+" {
		return concat([]*node{l, r})
	}
	if l.form == formConstant && r.form == formConstant && l.value != nil && r.value != nil {
		if v, ok := attempt(func(f *frame) (any, error) { return arithmetic(f, op, l.value, r.value) }); ok {
			return constant(v)
		}
	}
	number := func(n *node) bool { return n.kind == Int || n.kind == Float || n.kind == Duration }
	if (op == "*" || op == "+" && (number(l) || number(r))) && compareNodes(l, r) > 0 {
		l, r = r, l
	}
	if op == "^" {
		op = "**"
	}
	n := made(&node{form: formCall, name: op, args: []*node{l, r}})
	n = typed(n, t)
	n.nullable, n.holes = false, false
	n.sureElements = op == ".."
	n.nonNegative = op != "-" && op != "**" && op != ".." && l.nonNegative && r.nonNegative
	if divisor, ok := r.value.(int); ok && divisor != 0 {
		n.total = op == "%" && l.sure() && l.kind == Int
	}
	return n
}

// negative is -x.
func negative(x *node, t *Type) *node {
	if x.form == formConstant && x.value != nil {
		if v, err := negate(x.value); err == nil {
			return constant(v)
		}
	}
	n := typed(made(&node{form: formCall, name: "-", args: []*node{x}}), t)
	n.nullable, n.nonNegative = false, false
	n.total = x.sure() && (n.kind == Float || x.nonNegative && (n.kind == Int || n.kind == Duration))
	return n
}

// safe are the functions that never fail where their arguments have their types and are not null.
var safe = map[string]bool{
	"len": true, "json": true, "ceil": true, "floor": true, "round": true, "bitand": true, "bitor": true, "bitxor": true,
	"bitnand": true, "bitnot": true, "type": true, "upper": true, "lower": true, "trim": true, "trimPrefix": true, "trimSuffix": true,
	"split": true, "splitAfter": true, "replace": true, "indexOf": true, "lastIndexOf": true, "toBase64": true, "first": true,
	"last": true, "get": true, "reverse": true, "uniq": true, "concat": true, "flatten": true,
}

// passing are the functions whose result has elements of their arguments in it.
var passing = map[string]bool{
	"first": true, "last": true, "get": true, "take": true, "reverse": true, "uniq": true, "concat": true, "flatten": true, "sort": true,
	"chunks": true, "waves": true, "fromPairs": true, "fromJSON": true,
}

// call is a function that is given values.
func call(name string, args []*node, t *Type) *node {
	switch {
	case name == "string":
		return concat(args)
	case name == "hasPrefix":
		return test("startsWith", args[0], args[1], refuse)
	case name == "hasSuffix":
		return test("endsWith", args[0], args[1], refuse)
	case name == "version_gte":
		return test(name, args[0], args[1], refuse)
	case name == "abs" && args[0].nonNegative && !args[0].nullable, name == "int" && args[0].kind == Int && !args[0].nullable:
		return args[0]
	case name == "len" && args[0].form == formLoop && args[0].name == "filter":
		return loopOf("count", args[0].args, args[0].level, intType)
	case (name == "max" || name == "min") && !slices.ContainsFunc(args, func(a *node) bool { return a.kind != args[0].kind || a.kind != Int && a.kind != Duration }):
		args = slices.Clone(args)
		slices.SortFunc(args, compareNodes)
	}
	fn := functions[name]
	known, total := true, safe[name]
	values := make([]any, len(args))
	n := &node{form: formCall, name: name, args: args}
	for i, a := range args {
		p := fn.parameter(i)
		known = known && a.form == formConstant && p.takes(a.kind) && (a.value != nil || p.null)
		values[i] = a.value
		total = total && a.total && (p.null || !a.nullable) && p.takes(a.kind)
		n.holes = n.holes || a.holes && passing[name]
	}
	if known {
		if v, ok := attempt(func(f *frame) (any, error) { return fn.run(f, values) }); ok {
			return constant(v)
		}
	}
	if name == "get" { // only the types of both together say that there can be such a key
		total = total && (args[0].kind == List) == (args[1].kind == Int)
	}
	all := !slices.ContainsFunc(args, func(a *node) bool { return !a.nonNegative })
	typed(n, t)
	n.total = total
	n.nullable = passing[name] && (t.nullable() || n.holes) && t.Kind != List
	n.nonNegative = name == "len" || name == "abs" || (name == "max" || name == "min") && all || passing[name] && t.NonNegative
	return made(n)
}

// loopOf is a function that evaluates something for each element of a list: args are the list, that, and
// what else it is given.
func loopOf(name string, args []*node, level int, t *Type) *node {
	list, body := args[0], args[1]
	if name == "sum" && list.form == formLoop && list.name == "map" && body.form == formLocal && body.level == level && body.name == "it" {
		return loopOf("sum", list.args, list.level, t)
	}
	n := typed(made(&node{form: formLoop, name: name, args: args, level: level}), t)
	proper := list.sure() && list.kind == List && body.total
	n.nullable, n.nonNegative = false, false
	switch name {
	case "count":
		n.total, n.nonNegative = proper, true
	case "filter":
		n.total, n.holes, n.sureElements = proper, list.holes, list.sureElements
	case "map":
		n.total, n.holes, n.sureElements = proper, body.nullable || body.holes, !body.nullable
	case "find", "findLast":
		n.total, n.nullable, n.holes = proper, true, list.holes
	case "findIndex", "findLastIndex":
		n.total, n.nullable, n.nonNegative = proper, true, true
	case "sum":
		n.nonNegative = body.nonNegative
	default:
		n.holes = true
		n.nullable = name == "reduce"
		n.sureElements = false
	}
	return n
}
