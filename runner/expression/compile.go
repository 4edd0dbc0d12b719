package expression

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A compiler turns the nodes of one source into code. It gives up at the first error, by a panic with an
// *Error that Compile recovers.
type compiler struct {
	src    *text
	scope  *Scope
	mode   Mode
	locals []local
	slots  int

	predicates map[string]predicate // predicates: the table refers to the compiler

	refs      []*Ref
	parts     []code
	distances []distance

	types map[ast.Node]*Type // of all nodes; nil: nobody asks
}

// A code is what the compiler makes of a node: its type and the closure that evaluates it.
type code struct {
	node  ast.Node
	typ   *Type
	run   func(*frame) any
	fixed bool // depends on nothing but the source

	ref     *Ref // the name of the scope that it comes from, with the literal fields after it
	exact   bool // it is just that, so that another field makes the path longer
	soft    bool // reached with ?.: null from here on is null, not an error
	missing bool // a key that a map may not have
}

// A local is a variable of let, or what a predicate is about: it, #index, #acc.
type local struct {
	name string
	slot int
	typ  *Type
}

// A context is where a condition stands, and so what a null in it means.
type context struct {
	null    answer
	decides bool // it makes up the result together with others by and, or, not
	negated bool // below an odd number of nots
}

// operand is the context of what is not a condition.
var operand = context{}

func (x context) negate() context { return context{x.null.negate(), x.decides, !x.negated} }

// inner is the context of a condition that is one of several, such as a branch.
func (x context) inner() context { return context{null: x.null} }

// An answer is what a comparison with null comes to.
type answer int8

const (
	refuse  answer = iota // a NullError
	asFalse               // false, which makes the whole less true
	asTrue                // true, which does so below a not
)

func (a answer) negate() answer {
	switch a {
	case asFalse:
		return asTrue
	case asTrue:
		return asFalse
	}
	return refuse
}

func (c *compiler) answer(a answer, t code) any {
	if a == refuse {
		return fail(c.src.null(t.node))
	}
	return a == asTrue
}

func (c *compiler) program(root ast.Node, want *Type) *Program {
	x := context{decides: true}
	if c.mode == Wait {
		x.null = asFalse
	}
	t := c.node(root, x)
	c.wanted(t, want)
	if want != nil && want.Kind == Bool && !want.Nullable {
		t = c.judge(t, x)
	}
	typ := t.typ
	if want != nil && typ.Kind == Any {
		typ = want
	}
	return &Program{
		Source: string(c.src.runes), Type: typ, Refs: sortRefs(c.refs),
		src: c.src, root: t, want: want, slots: c.slots,
		parts: c.parts, distances: c.distances,
		scope: c.scope, mode: c.mode,
	}
}

// wanted compares the type of the whole with the one that is wanted.
func (c *compiler) wanted(t code, want *Type) {
	if Assignable(t.typ, want) {
		return
	}
	if t.typ.Nullable && Assignable(t.typ.notNull(), want) {
		if c.mode == Wait && want.Kind == Bool {
			return
		}
		c.fail(t.node, RuleType, "", "must be %s, but %s may be null; say what counts then, such as %s ?? %s",
			want.words(), c.src.brief(t.node), c.src.brief(t.node), want.example())
	}
	c.fail(t.node, RuleType, "", "must be %s, but %s is %s", want.words(), c.src.brief(t.node), t.typ)
}

// words is a type in "must be …".
func (t *Type) words() string {
	if t.Kind == Bool && !t.Nullable {
		return "true or false"
	}
	return t.String()
}

func (t *Type) example() string {
	switch t.Kind {
	case Bool:
		return "false"
	case Int, Float:
		return "0"
	case String:
		return `""`
	case List:
		return "[]"
	case Duration:
		return `duration("0s")`
	}
	return "…"
}

// fail gives up with an error about a node.
func (c *compiler) fail(n ast.Node, rule, suggestion, format string, args ...any) {
	from, to := c.src.span(n)
	c.failAt(from, to, rule, suggestion, format, args...)
}

// failOn gives up with an error about the one token that a node knows: a name or an operator.
func (c *compiler) failOn(n ast.Node, rule, suggestion, format string, args ...any) {
	c.failAt(n.Location().From, n.Location().To, rule, suggestion, format, args...)
}

func (c *compiler) failAt(from, to int, rule, suggestion, format string, args ...any) {
	panic(&Error{Offset: from, End: to, Rule: rule, Suggestion: suggestion, Message: fmt.Sprintf(format, args...)})
}

// value compiles what is not a condition.
func (c *compiler) value(n ast.Node) code { return c.node(n, operand) }

// condition compiles what must be true or false.
func (c *compiler) condition(n ast.Node, x context, by string) code {
	t := c.node(n, x)
	if !t.typ.is(Bool, Any) {
		c.fail(n, RuleType, "", "%s needs true or false, but %s is %s", by, c.src.brief(n), t.typ)
	}
	return c.judge(t, x)
}

// judge gives a condition its answer to null, unless it is one that has given it already.
func (c *compiler) judge(t code, x context) code {
	if t.typ == boolType && operation(t.node) {
		return t
	}
	c.decide(t, x)
	inner := t.run
	t.run = func(f *frame) any {
		v := inner(f)
		switch v.(type) {
		case bool:
			return v
		case nil:
			return c.answer(x.null, t)
		}
		return fail(c.src.evalError(t.node, fmt.Errorf("%s must be true or false, but is %s", c.src.brief(t.node), kindOf(v))))
	}
	t.typ = boolType
	return t
}

// operation says whether a condition is made by an operator, which is never null.
func operation(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryNode:
		return n.Operator != "??"
	case *ast.UnaryNode:
		return true
	}
	return false
}

// decide records what a failed check shows.
func (c *compiler) decide(t code, x context) {
	if x.decides && !literal(t.node) {
		c.parts = append(c.parts, t)
	}
}

func literal(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode:
		return true
	case *ast.UnaryNode:
		return literal(n.Node)
	case *ast.ArrayNode:
		return !slices.ContainsFunc(n.Nodes, func(n ast.Node) bool { return !literal(n) })
	case *ast.CallNode: // duration("5s") is how a duration is written
		return !slices.ContainsFunc(n.Arguments, func(n ast.Node) bool { return !literal(n) })
	case *ast.BuiltinNode:
		return !slices.ContainsFunc(n.Arguments, func(n ast.Node) bool { return !literal(n) })
	}
	return false
}

func (c *compiler) node(n ast.Node, x context) code {
	t := c.compile(n, x)
	c.record(n, t)
	return t
}

func (c *compiler) record(n ast.Node, t code) {
	if c.types != nil {
		c.types[n] = t.typ
	}
}

func (c *compiler) compile(n ast.Node, x context) code {
	switch n := n.(type) {
	case *ast.NilNode:
		return c.constant(n, nullType, nil)
	case *ast.BoolNode:
		return c.constant(n, boolType, n.Value)
	case *ast.IntegerNode:
		return c.constant(n, intType, n.Value)
	case *ast.FloatNode:
		return c.constant(n, floatType, n.Value)
	case *ast.StringNode:
		return c.constant(n, stringType, n.Value)
	case *ast.IdentifierNode:
		return c.name(n)
	case *ast.PointerNode:
		return c.pointer(n)
	case *ast.ChainNode, *ast.MemberNode:
		return c.member(n, false)
	case *ast.SliceNode:
		return c.slice(n)
	case *ast.UnaryNode:
		return c.unary(n, x)
	case *ast.BinaryNode:
		return c.binary(n, x)
	case *ast.ConditionalNode:
		return c.conditional(n, x)
	case *ast.VariableDeclaratorNode:
		return c.let(n, x)
	case *ast.ArrayNode:
		return c.array(n)
	case *ast.MapNode:
		return c.mapping(n)
	case *ast.BuiltinNode:
		return c.call(n, n.Name, n.Arguments, x)
	case *ast.CallNode:
		name, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			c.failOn(n.Callee, RuleUnknownFunction, "", "values have no functions of their own; write f(x), not x.f()")
		}
		return c.call(n, name.Value, n.Arguments, x)
	case *ast.SequenceNode:
		c.fail(n.Nodes[1], RuleSyntax, "", "an expression has one value; `;` stands only after let")
	case *ast.BytesNode:
		c.fail(n, RuleSyntax, "", "there are no byte strings; write the text without b")
	}
	panic(fmt.Sprintf("no meaning for %T", n))
}

func (c *compiler) constant(n ast.Node, typ *Type, v any) code {
	return code{node: n, typ: typ, fixed: true, run: func(*frame) any { return v }}
}

// name is a variable of the scope, or one of let, or the element that a predicate is about.
func (c *compiler) name(n *ast.IdentifierNode) code {
	if l, ok := c.local(n.Value); ok {
		return c.load(n, l)
	}
	typ, ok := c.scope.Vars[n.Value]
	if !ok {
		c.unknownName(n)
	}
	name, at := n.Value, n.Location()
	ref := &Ref{Path: []string{name}, Offset: at.From, End: at.To, Offsets: []int{at.From}}
	c.refs = append(c.refs, ref)
	return code{node: n, typ: typ, ref: ref, exact: true, run: func(f *frame) any { return f.env[name] }}
}

func (c *compiler) unknownName(n *ast.IdentifierNode) {
	name := n.Value
	switch {
	case name == "it":
		c.failOn(n, RuleUnknownName, "", "`it` is the element inside a predicate, such as all(list, it > 0); there is none here")
	case commonNames[name] != "":
		c.failOn(n, RuleUnknownName, commonNames[name], "unknown name %s", name)
	case c.isFunction(name):
		c.failOn(n, RuleUnknownName, "", "%s is a function: write %s(…)", name, name)
	}
	names := slices.Collect(maps.Keys(c.scope.Vars))
	for _, l := range c.locals {
		if !strings.HasPrefix(l.name, "#") {
			names = append(names, l.name)
		}
	}
	c.failOn(n, RuleUnknownName, nearest(name, names), "unknown name %s", name)
}

// commonNames are what other languages call what has a name here.
var commonNames = map[string]string{
	"null": "nil", "None": "nil", "undefined": "nil", "NULL": "nil",
	"True": "true", "TRUE": "true", "False": "false", "FALSE": "false",
}

func (c *compiler) local(name string) (local, bool) {
	for _, l := range slices.Backward(c.locals) {
		if l.name == name {
			return l, true
		}
	}
	return local{}, false
}

func (c *compiler) load(n ast.Node, l local) code {
	return code{node: n, typ: l.typ, run: func(f *frame) any { return f.slots[l.slot] }}
}

func (c *compiler) pointer(n *ast.PointerNode) code {
	name := "it"
	if n.Name != "" {
		name = "#" + n.Name
	}
	l, ok := c.local(name)
	if !ok {
		c.fail(n, RuleUnknownName, "", "unknown name %s", name)
	}
	return c.load(n, l)
}

// bind declares a local, and gives its slot.
func (c *compiler) bind(name string, typ *Type) int {
	c.locals = append(c.locals, local{name, c.slots, typ})
	c.slots++
	return c.slots - 1
}

// member is a field, a key or an element of what stands before it. A lenient one (on the left of a ??)
// takes null for null all along, like one with ?. everywhere.
func (c *compiler) member(n ast.Node, lenient bool) code {
	if chain, ok := n.(*ast.ChainNode); ok {
		return c.member(chain.Node, lenient)
	}
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return c.value(n)
	}
	base := c.member(m.Node, lenient)
	key := c.value(m.Property)
	name, literal := m.Property.(*ast.StringNode)
	t := code{node: m, typ: anyType, fixed: base.fixed && key.fixed, ref: base.ref, soft: base.soft || m.Optional || lenient}
	switch {
	case base.typ.Kind == Object && literal:
		t.typ = base.typ.Fields[name.Value]
		if t.typ == nil {
			c.failOn(name, RuleUnknownField, nearest(name.Value, slices.Collect(maps.Keys(base.typ.Fields))),
				"%s has no field %s", c.src.brief(base.node), name.Value)
		}
	case base.typ.is(Object, Map) && key.typ.is(String, Any):
		t.typ, t.missing = keyed(base.typ), true
	case base.typ.Kind == List && key.typ.is(Int, Any):
		t.typ = base.typ.elem()
	case base.typ.Kind == Any && key.typ.is(Int, String, Any):
		t.missing = true
	case literal:
		c.failOn(name, RuleUnknownField, "", "%s is %s and has no fields", c.src.brief(base.node), base.typ)
	case base.typ.is(Object, Map, List, Any):
		c.fail(m.Property, RuleType, "", "%s is %s: %s is no key of it, being %s",
			c.src.brief(base.node), base.typ, c.src.brief(key.node), key.typ)
	default:
		c.fail(m.Property, RuleType, "", "%s is %s and has no elements", c.src.brief(base.node), base.typ)
	}
	if t.soft && (base.typ.nullable() || base.missing || t.missing) {
		t.typ = t.typ.orNull()
	}
	if literal && base.exact {
		at := name.Location()
		t.exact = true
		t.ref.Path = append(t.ref.Path, name.Value)
		t.ref.Offsets = append(t.ref.Offsets, at.From)
		t.ref.End = at.To
		if len(t.ref.Path) == 3 && m.Optional {
			t.ref.Guarded = true
		}
	}
	t.run = func(f *frame) any {
		from := base.run(f)
		if from == nil {
			if t.soft {
				return nil
			}
			return fail(c.src.null(base.node))
		}
		k := key.run(f)
		switch from := from.(type) {
		case map[string]any:
			if k, ok := k.(string); ok {
				return from[k]
			}
		case []any:
			if i, ok := k.(int); ok {
				if i < 0 {
					i += len(from) // as in expr: [-1] is the last
				}
				if i < 0 || i >= len(from) {
					return fail(c.src.evalError(m, fmt.Errorf("%s: there is no element %d among %d", c.src.brief(m), k, len(from))))
				}
				return from[i]
			}
		}
		if k == nil {
			return fail(c.src.null(key.node))
		}
		return fail(c.src.evalError(m, fmt.Errorf("%s is %s and has no %v", c.src.brief(base.node), kindOf(from), k)))
	}
	c.record(m, t)
	return t
}

// keyed is the type of a value under a key that is computed.
func keyed(t *Type) *Type {
	if t.Kind == Map {
		return t.elem()
	}
	var all *Type
	for _, name := range sortedKeys(t.Fields) {
		joined, ok := join(all, t.Fields[name])
		if !ok {
			return anyType
		}
		all = joined
	}
	if all == nil {
		return anyType
	}
	return all
}

func (c *compiler) slice(n *ast.SliceNode) code {
	base := c.value(n.Node)
	if !base.typ.is(List, String, Any) {
		c.fail(n.Node, RuleType, "", "%s is %s: only a list or a text can be cut with [a:b]", c.src.brief(n.Node), base.typ)
	}
	t := code{node: n, typ: base.typ.notNull(), fixed: base.fixed}
	bound := func(n ast.Node) func(*frame, int) int {
		if n == nil {
			return nil
		}
		b := c.value(n)
		if !b.typ.is(Int, Any) {
			c.fail(n, RuleType, "", "a position is int, but %s is %s", c.src.brief(n), b.typ)
		}
		t.fixed = t.fixed && b.fixed
		return func(f *frame, length int) int {
			i, ok := c.some(b, f).(int)
			if !ok {
				fail(c.src.evalError(n, fmt.Errorf("%s must be int", c.src.brief(n))))
			}
			if i < 0 {
				i += length
			}
			return min(max(i, 0), length)
		}
	}
	from, to := bound(n.From), bound(n.To)
	cut := func(f *frame, length int) (int, int) {
		a, b := 0, length
		if from != nil {
			a = from(f, length)
		}
		if to != nil {
			b = to(f, length)
		}
		return min(a, b), b
	}
	t.run = func(f *frame) any {
		switch v := c.some(base, f).(type) {
		case []any:
			a, b := cut(f, len(v))
			return v[a:b:b]
		case string:
			f.reserve(5 * len(v))
			runes := []rune(v)
			a, b := cut(f, len(runes))
			return string(runes[a:b])
		default:
			return fail(c.src.evalError(n, fmt.Errorf("%s is %s and cannot be cut", c.src.brief(base.node), kindOf(v))))
		}
	}
	return t
}

// some is a value that must not be null.
func (c *compiler) some(t code, f *frame) any {
	v := t.run(f)
	if v == nil {
		return fail(c.src.null(t.node))
	}
	return v
}

func (c *compiler) unary(n *ast.UnaryNode, x context) code {
	if n.Operator == "!" || n.Operator == "not" {
		t := c.condition(n.Node, x.negate(), backquote(n.Operator))
		return code{node: n, typ: boolType, fixed: t.fixed, run: func(f *frame) any { return !t.run(f).(bool) }}
	}
	t := c.value(n.Node)
	if !t.typ.is(Int, Float, Duration, Any) {
		c.fail(n.Node, RuleType, "", "`%s` needs a number, but %s is %s", n.Operator, c.src.brief(n.Node), t.typ)
	}
	negative := n.Operator == "-"
	return code{node: n, typ: t.typ.notNull().anySign(), fixed: t.fixed, run: func(f *frame) any {
		v := c.some(t, f)
		if !negative {
			return v
		}
		v, err := negate(v)
		if err != nil {
			return fail(c.src.evalError(n, err))
		}
		return v
	}}
}

func (c *compiler) binary(n *ast.BinaryNode, x context) code {
	switch n.Operator {
	case "&&", "and", "||", "or":
		return c.logic(n, x)
	case "==", "!=":
		return c.equality(n, x)
	case "<", "<=", ">", ">=":
		return c.order(n, x)
	case "in":
		return c.membership(n, x)
	case "contains", "startsWith", "endsWith", "matches":
		return c.textTest(n, x)
	case "??":
		return c.coalesce(n, x)
	}
	l, r := c.value(n.Left), c.value(n.Right)
	typ := arithmeticType(n.Operator, l.typ, r.typ)
	if typ == nil {
		c.pair(n, l, r)
	}
	op := n.Operator
	return code{node: n, typ: typ, fixed: l.fixed && r.fixed, run: func(f *frame) any {
		v, err := arithmetic(f, op, c.some(l, f), c.some(r, f))
		if err != nil {
			return fail(c.src.evalError(n, err))
		}
		return v
	}}
}

// pair gives up because an operator does not take its two operands together.
func (c *compiler) pair(n *ast.BinaryNode, l, r code) {
	hint := ""
	if l.typ.Kind == Duration && r.typ.number() || l.typ.number() && r.typ.Kind == Duration {
		hint = `; a length of time is written duration("5s")`
	}
	if n.Operator == "in" && r.typ.Kind == String {
		hint = "; whether a text has another inside is asked with contains"
	}
	c.failOn(n, RuleType, "", "`%s` does not take %s (%s) and %s (%s)%s", n.Operator,
		c.src.brief(l.node), l.typ, c.src.brief(r.node), r.typ, hint)
}

func (c *compiler) logic(n *ast.BinaryNode, x context) code {
	l, r := c.condition(n.Left, x, backquote(n.Operator)), c.condition(n.Right, x, backquote(n.Operator))
	t := code{node: n, typ: boolType, fixed: l.fixed && r.fixed}
	if n.Operator == "&&" || n.Operator == "and" {
		t.run = func(f *frame) any { return l.run(f).(bool) && r.run(f).(bool) }
	} else {
		t.run = func(f *frame) any { return l.run(f).(bool) || r.run(f).(bool) }
	}
	return t
}

// compare is what the comparisons have in common: their operands, how they are shown, and null.
func (c *compiler) compare(n *ast.BinaryNode, x context, l, r code, test func(*frame, any, any) (bool, error)) code {
	t := code{node: n, typ: boolType, fixed: l.fixed && r.fixed, run: func(f *frame) any {
		a, b := l.run(f), r.run(f)
		if a == nil {
			return c.answer(x.null, l)
		}
		if b == nil {
			return c.answer(x.null, r)
		}
		v, err := test(f, a, b)
		if err != nil {
			return fail(c.src.evalError(n, err))
		}
		return v
	}}
	c.decide(l, x)
	c.decide(r, x)
	return t
}

func (c *compiler) equality(n *ast.BinaryNode, x context) code {
	l, r := c.value(n.Left), c.value(n.Right)
	if !alike(l.typ, r.typ) {
		c.pair(n, l, r)
	}
	for _, pair := range [][2]code{{l, r}, {r, l}} {
		if !pair[0].typ.nullable() && !pair[0].missing && pair[1].typ.Kind == Null {
			c.fail(pair[0].node, RuleType, "", "%s is %s and never null", c.src.brief(pair[0].node), pair[0].typ)
		}
	}
	want := n.Operator == "=="
	if l.typ.Kind == Null || r.typ.Kind == Null || x.null == refuse && c.mode == Plain {
		c.decide(l, x)
		c.decide(r, x)
		t := code{node: n, typ: boolType, fixed: l.fixed && r.fixed, run: func(f *frame) any {
			return equal(f, l.run(f), r.run(f)) == want
		}}
		c.measure(t, x, l, r)
		return t
	}
	t := c.compare(n, x, l, r, func(f *frame, a, b any) (bool, error) { return equal(f, a, b) == want, nil })
	c.measure(t, x, l, r)
	return t
}

func (c *compiler) order(n *ast.BinaryNode, x context) code {
	l, r := c.value(n.Left), c.value(n.Right)
	if !orderable(l.typ, r.typ) {
		c.pair(n, l, r)
	}
	op := n.Operator
	t := c.compare(n, x, l, r, func(_ *frame, a, b any) (bool, error) {
		order, err := compare(a, b)
		switch op {
		case "<":
			return order < 0, err
		case "<=":
			return order <= 0, err
		case ">":
			return order > 0, err
		}
		return order >= 0, err
	})
	c.measure(t, x, l, r)
	return t
}

// measure records a comparison of numbers that decides the result.
func (c *compiler) measure(t code, x context, l, r code) {
	measurable := func(t *Type) bool { return t.is(Int, Float, Duration) }
	if !x.decides || !(measurable(l.typ) || measurable(r.typ)) || l.typ.Kind == Null || r.typ.Kind == Null {
		return
	}
	d := distance{whole: t, left: l, right: r, negated: x.negated}
	switch {
	case literal(r.node) && !literal(l.node):
		d.text = c.src.of(l.node)
	case literal(l.node) && !literal(r.node):
		d.text = c.src.of(r.node)
	case literal(l.node):
		return
	default:
		d.text = c.src.of(t.node)
	}
	c.distances = append(c.distances, d)
}

func (c *compiler) membership(n *ast.BinaryNode, x context) code {
	l, r := c.value(n.Left), c.value(n.Right)
	switch {
	case r.typ.Kind == List && alike(l.typ, r.typ.elem()):
	case r.typ.is(Map, Object) && l.typ.is(String, Any):
	case r.typ.Kind == Any:
	default:
		c.pair(n, l, r)
	}
	test := func(f *frame, a, b any) (bool, error) { return contains(f, b, a) }
	if c.mode == Wait || !l.typ.nullable() {
		return c.compare(n, x, l, r, test)
	}
	c.decide(l, x)
	c.decide(r, x)
	return code{node: n, typ: boolType, fixed: l.fixed && r.fixed, run: func(f *frame) any {
		v, err := test(f, l.run(f), c.some(r, f)) // null may be an element
		if err != nil {
			return fail(c.src.evalError(n, err))
		}
		return v
	}}
}

func (c *compiler) textTest(n *ast.BinaryNode, x context) code {
	l, r := c.value(n.Left), c.value(n.Right)
	for _, t := range []code{l, r} {
		if !t.typ.is(String, Any) {
			c.fail(t.node, RuleType, "", "`%s` needs text on both sides, but %s is %s", n.Operator, c.src.brief(t.node), t.typ)
		}
	}
	test := map[string]func(a, b string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}[n.Operator]
	if pattern, ok := n.Right.(*ast.StringNode); ok && n.Operator == "matches" {
		re, err := regexp.Compile(pattern.Value)
		if err != nil {
			c.fail(n.Right, RuleType, "", "%s is not a pattern: %s", c.src.brief(n.Right), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		test = func(a, _ string) bool { return re.MatchString(a) }
	}
	return c.compare(n, x, l, r, func(f *frame, a, b any) (bool, error) {
		left, ok := a.(string)
		right, ok2 := b.(string)
		if !ok || !ok2 {
			return false, fmt.Errorf("`%s` does not take %s and %s", n.Operator, kindOf(a), kindOf(b))
		}
		if n.Operator == "matches" {
			f.visit(4 * len(left)) // a step for 20 ns
		}
		f.visit((len(left) + len(right)) / 16)
		if test != nil {
			return test(left, right), nil
		}
		f.visit(100 * len(right))
		re, err := regexp.Compile(right)
		if err != nil {
			return false, fmt.Errorf("%q is not a pattern: %w", right, err)
		}
		return re.MatchString(left), nil
	})
}

func (c *compiler) coalesce(n *ast.BinaryNode, x context) code {
	l := c.member(n.Left, true)
	r := c.node(n.Right, x.inner())
	typ, ok := join(l.typ.notNull(), r.typ)
	if l.typ.Kind == Null {
		typ, ok = r.typ, true
	}
	if !ok {
		c.pair(n, l, r)
	}
	if _, isNil := n.Right.(*ast.NilNode); !isNil {
		guard(l)
	}
	return code{node: n, typ: typ, fixed: l.fixed && r.fixed, run: func(f *frame) any {
		if v := l.run(f); v != nil {
			return v
		}
		return r.run(f)
	}, ref: r.ref}
}

// guard marks what a null may come from on the left of a ??: the right side reckons with it. Of a ?? b ?? 0
// the refs are a, guarded within, and b.
func guard(t code) {
	if t.ref != nil {
		t.ref.Guarded = true
	}
}

func (c *compiler) conditional(n *ast.ConditionalNode, x context) code {
	cond := c.condition(n.Cond, operand, "the condition")
	yes, no := c.node(n.Exp1, x.inner()), c.node(n.Exp2, x.inner())
	typ, ok := join(yes.typ, no.typ)
	if !ok {
		c.fail(n.Exp2, RuleType, "", "both results of a condition have one type, but %s is %s and %s is %s",
			c.src.brief(yes.node), yes.typ, c.src.brief(no.node), no.typ)
	}
	return code{node: n, typ: typ, fixed: cond.fixed && yes.fixed && no.fixed, run: func(f *frame) any {
		if cond.run(f).(bool) {
			return yes.run(f)
		}
		return no.run(f)
	}}
}

func (c *compiler) let(n *ast.VariableDeclaratorNode, x context) code {
	_, local := c.local(n.Name)
	_, global := c.scope.Vars[n.Name]
	if local || global || n.Name == "it" || c.isFunction(n.Name) {
		c.failOn(n, RuleType, "", "%s has a meaning already; choose another name", n.Name)
	}
	value := c.value(n.Value)
	slot := c.bind(n.Name, value.typ)
	body := c.node(n.Expr, x.inner())
	c.locals = c.locals[:len(c.locals)-1]
	return code{node: n, typ: body.typ, run: func(f *frame) any {
		f.slots[slot] = value.run(f)
		return body.run(f)
	}}
}

func (c *compiler) array(n *ast.ArrayNode) code {
	elems := make([]code, len(n.Nodes))
	t := code{node: n, typ: listType, fixed: true}
	for i := range n.Nodes {
		elems[i] = c.value(n.Nodes[i])
		t.fixed = t.fixed && elems[i].fixed
		elem, _ := join(t.typ.Elem, elems[i].typ)
		t.typ = listOf(elem)
	}
	t.run = func(f *frame) any {
		list := f.list(len(elems))
		for i := range elems {
			list[i] = elems[i].run(f)
		}
		return list
	}
	return t
}

func (c *compiler) mapping(n *ast.MapNode) code {
	type pair struct{ key, value code }
	pairs := make([]pair, len(n.Pairs))
	fields := map[string]*Type{}
	var elem *Type
	t := code{node: n, fixed: true}
	for i := range n.Pairs {
		p := n.Pairs[i].(*ast.PairNode)
		key, value := c.value(p.Key), c.value(p.Value)
		if !key.typ.is(String, Any) {
			c.fail(p.Key, RuleType, "", "a key of a map is text, but %s is %s", c.src.brief(p.Key), key.typ)
		}
		if name, ok := p.Key.(*ast.StringNode); ok {
			if fields[name.Value] != nil {
				c.fail(name, RuleType, "", "the key %s is there twice", name.Value)
			}
			fields[name.Value] = value.typ
		}
		elem, _ = join(elem, value.typ)
		pairs[i] = pair{key, value}
		t.fixed = t.fixed && key.fixed && value.fixed
	}
	t.typ = &Type{Kind: Object, Fields: fields}
	if len(fields) != len(pairs) || len(pairs) == 0 {
		t.typ = &Type{Kind: Map, Elem: elem}
	}
	t.run = func(f *frame) any {
		f.visit(len(pairs))
		f.reserve(len(pairs) * 48)
		m := make(map[string]any, len(pairs))
		for _, p := range pairs {
			k, ok := c.some(p.key, f).(string)
			if !ok {
				return fail(c.src.evalError(n, fmt.Errorf("a key of a map must be text: %s", c.src.brief(p.key.node))))
			}
			m[k] = p.value.run(f)
		}
		return m
	}
	return t
}
