package expression

import (
	"slices"

	"github.com/expr-lang/expr/ast"
)

// Term is what p means. Substitute, which may be nil, says what stands for a reference: it is asked for
// steps.a.lag, then for steps.a, then for steps. The first answer counts, and the fields that are left are
// selected from it. It must be of the type that the reference has, or be a Reference.
func (p *Program) Term(substitute func(path []string) (Term, bool)) Term {
	c := &compiler{src: p.src, scope: p.scope, mode: p.mode, predicates: predicates, types: make(map[ast.Node]*Type, 16)}
	c.program(p.root.node, p.want)
	m := &meaning{compiler: c, substitute: substitute}
	x := context{}
	if p.mode == Wait {
		x.null = asFalse
	}
	if p.want != nil && p.want.Kind == Bool && !p.want.Nullable {
		return Term{m.condition(p.root.node, x)}
	}
	return Term{m.must(m.node(p.root.node, x), p)}
}

// must is a result that is checked while running, and an int where a float is wanted.
func (m *meaning) must(n *node, p *Program) *node {
	want := p.want
	if want == nil {
		want = anyType
	}
	is := m.typ(p.root.node)
	proper := want.Kind == Any || definite(is, 8) && !n.holes
	switch {
	case n.nullable && !(is.nullable() && want.nullable()):
	case want.Kind == Float && n.kind == Int:
		return call("float", []*node{n}, floatType)
	case proper:
		return n
	case n.form == formConstant:
		if _, ok := conforms(n.value, want); ok {
			return n
		}
	}
	return typed(made(&node{form: formCall, name: "must be " + want.String(), args: []*node{n}, holes: n.holes}), want)
}

// definite says whether a type leaves nothing open, as far down as one looks.
func definite(t *Type, depth int) bool {
	switch {
	case t == nil:
		return true // of an empty list
	case t.Kind == Any || depth == 0:
		return false
	case t.is(List, Map):
		return definite(t.Elem, depth-1)
	}
	for _, f := range t.Fields {
		if !definite(f, depth-1) {
			return false
		}
	}
	return true
}

// A meaning turns the nodes of a program into those of its term, in the same contexts as the compiler that
// it has the types from.
type meaning struct {
	*compiler
	substitute func(path []string) (Term, bool)
	bound      []bound
	level      int // of the next local
}

// A bound name stands for a node: a local, or the value of a variable.
type bound struct {
	name  string
	value *node
}

// maxInlined bounds what is written in place of a name, so that what is small does not mean something huge.
const maxInlined = 500

func (m *meaning) typ(n ast.Node) *Type { return m.types[n] }

func (m *meaning) value(n ast.Node) *node { return m.node(n, operand) }

func (m *meaning) values(list []ast.Node) []*node {
	nodes := make([]*node, len(list))
	for i := range list {
		nodes[i] = m.value(list[i])
	}
	return nodes
}

// condition is what must be true or false; a null comes to what its context says.
func (m *meaning) condition(n ast.Node, x context) *node {
	c := m.node(n, x)
	if c.condition {
		return c
	}
	return member(boolean(c), related(equalTo, 1, Bool), x.null)
}

func (m *meaning) node(n ast.Node, x context) *node {
	switch n := n.(type) {
	case *ast.BoolNode:
		return truth(n.Value)
	case *ast.IntegerNode:
		return constant(n.Value)
	case *ast.FloatNode:
		return constant(n.Value)
	case *ast.StringNode:
		return constant(n.Value)
	case *ast.IdentifierNode:
		return m.name(n)
	case *ast.PointerNode:
		if n.Name == "" {
			return m.load("it", n)
		}
		return m.load("#"+n.Name, n)
	case *ast.ChainNode, *ast.MemberNode:
		value, _ := m.member(n, false)
		return value
	case *ast.SliceNode:
		return m.slice(n)
	case *ast.UnaryNode:
		return m.unary(n, x)
	case *ast.BinaryNode:
		return m.binary(n, x)
	case *ast.ConditionalNode:
		cond := m.condition(n.Cond, operand)
		return choice(cond, m.node(n.Exp1, x.inner()), m.node(n.Exp2, x.inner()), m.typ(n).Kind)
	case *ast.VariableDeclaratorNode:
		return m.let(n, x)
	case *ast.ArrayNode:
		return list(m.values(n.Nodes))
	case *ast.MapNode:
		var args []*node
		for _, p := range n.Pairs {
			pair := p.(*ast.PairNode)
			args = append(args, m.value(pair.Key), m.value(pair.Value))
		}
		return mapOf(args)
	case *ast.BuiltinNode:
		return m.call(n, n.Name, n.Arguments, x)
	case *ast.CallNode:
		return m.call(n, n.Callee.(*ast.IdentifierNode).Value, n.Arguments, x)
	}
	return nullNode
}

func (m *meaning) name(n *ast.IdentifierNode) *node {
	if m.isBound(n.Value) {
		return m.load(n.Value, n)
	}
	if t, ok := m.instead([]string{n.Value}); ok {
		return m.substituted(t, m.typ(n))
	}
	return root(n.Value, m.typ(n))
}

func (m *meaning) isBound(name string) bool {
	return slices.ContainsFunc(m.bound, func(b bound) bool { return b.name == name })
}

// load is a local, with what its type says of it here.
func (m *meaning) load(name string, n ast.Node) *node {
	for _, b := range slices.Backward(m.bound) {
		if b.name != name {
			continue
		}
		if b.value.form != formLocal {
			return b.value
		}
		local, t := *b.value, m.typ(n)
		if t.Kind == Any && local.typ != nil {
			t = local.typ
		}
		return typed(&local, t)
	}
	panic("no local " + name)
}

func root(name string, t *Type) *node {
	return typed(&node{form: formReference, path: []string{name}, total: true, holes: t.Kind == Any, size: 1}, t)
}

func (m *meaning) instead(path []string) (*node, bool) {
	if m.substitute == nil {
		return nil, false
	}
	t, ok := m.substitute(path)
	return t.node(), ok
}

// substituted is what stands for a reference of a type.
func (m *meaning) substituted(n *node, t *Type) *node {
	switch {
	case n.untyped:
		known := *n
		known.untyped, known.nullable, known.holes, known.total = false, false, t.Kind == Any, true
		return typed(&known, t)
	case n.size > maxInlined:
		return typed(&node{form: formCall, name: "digest " + digest(n), size: 1, holes: true, nullable: n.nullable, total: n.total}, t)
	}
	return n
}

// member is a field or an element, and whether what follows is null where it is. It mirrors the compiler's.
func (m *meaning) member(n ast.Node, lenient bool) (value *node, soft bool) {
	chain, ok := n.(*ast.ChainNode)
	if ok {
		return m.member(chain.Node, lenient)
	}
	at, ok := n.(*ast.MemberNode)
	if !ok {
		return m.value(n), false
	}
	if path := m.path(at); path != nil && m.substitute != nil {
		if t, ok := m.instead(path); ok {
			return m.reference(at, t, lenient)
		}
	}
	base, soft := m.member(at.Node, lenient)
	soft = soft || at.Optional || lenient
	if name, ok := at.Property.(*ast.StringNode); ok {
		return field(base, name.Value, soft, m.typ(at)), soft
	}
	return elementOf(base, m.value(at.Property), soft, m.typ(at)), soft
}

// reference is what stands for a path: another path is reached as that one was.
func (m *meaning) reference(at *ast.MemberNode, t *node, lenient bool) (value *node, soft bool) {
	was, soft := m.original(at, lenient)
	if !t.untyped {
		return m.substituted(t, m.typ(at)), soft
	}
	renamed := *was
	renamed.path = t.path
	if len(renamed.path) != len(was.path) {
		renamed.soft = 0
		if was.soft != 0 {
			renamed.soft = 1
		}
	}
	return &renamed, soft
}

// original is a path as it is written.
func (m *meaning) original(n ast.Node, lenient bool) (value *node, soft bool) {
	switch n := n.(type) {
	case *ast.ChainNode:
		return m.original(n.Node, lenient)
	case *ast.MemberNode:
		base, soft := m.original(n.Node, lenient)
		soft = soft || n.Optional || lenient
		return field(base, n.Property.(*ast.StringNode).Value, soft, m.typ(n)), soft
	}
	return root(n.(*ast.IdentifierNode).Value, m.typ(n)), false
}

// path is the name and the fields that a member consists of; nil if it is anything else.
func (m *meaning) path(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.ChainNode:
		return m.path(n.Node)
	case *ast.IdentifierNode:
		if !m.isBound(n.Value) {
			return []string{n.Value}
		}
	case *ast.MemberNode:
		name, ok := n.Property.(*ast.StringNode)
		if !ok {
			return nil
		}
		if path := m.path(n.Node); path != nil && len(path) < 63 {
			return append(path, name.Value)
		}
	}
	return nil
}

func (m *meaning) slice(n *ast.SliceNode) *node {
	args := []*node{m.value(n.Node), constant(0), nullNode}
	if n.From != nil {
		args[1] = m.value(n.From)
	}
	if n.To != nil {
		args[2] = m.value(n.To)
	}
	s := typed(made(&node{form: formCall, name: "[:]", args: args, holes: args[0].holes}), m.typ(n))
	s.nullable = false
	s.total = args[0].sure() && (s.kind == List || s.kind == String) && args[1].sure() && args[1].kind == Int &&
		(n.To == nil || args[2].sure() && args[2].kind == Int)
	return m.evaluated(s)
}

// evaluated is the value of a node that reads no name.
func (m *meaning) evaluated(n *node) *node {
	if m.level > 0 || len(Term{n}.References()) > 0 {
		return n
	}
	v, ok := attempt(func(f *frame) (any, error) {
		p, failed := Compile(Term{n}.String(), nil, nil, Plain)
		if failed != nil {
			return nil, failed
		}
		f.slots = make([]any, p.slots)
		return p.root.run(f), nil
	})
	if !ok {
		return n
	}
	return constant(v)
}

func (m *meaning) unary(n *ast.UnaryNode, x context) *node {
	switch n.Operator {
	case "!", "not":
		return not(m.condition(n.Node, x.negate()))
	case "-":
		return negative(m.value(n.Node), m.typ(n))
	}
	v := m.value(n.Node)
	if !v.nullable && (v.kind == Int || v.kind == Float || v.kind == Duration) {
		return v
	}
	plus := typed(made(&node{form: formCall, name: "+", args: []*node{v}}), m.typ(n))
	plus.nullable = false
	return plus
}

var relations = map[string]relation{
	"==": equalTo, "!=": lessThan | greaterThan, "<": lessThan, "<=": lessThan | equalTo, ">": greaterThan, ">=": greaterThan | equalTo,
}

func (m *meaning) binary(n *ast.BinaryNode, x context) *node {
	switch n.Operator {
	case "&&", "and":
		return allOf(m.condition(n.Left, x), m.condition(n.Right, x))
	case "||", "or":
		return anyOf(m.condition(n.Left, x), m.condition(n.Right, x))
	case "??":
		l, _ := m.member(n.Left, true)
		return coalesce(l, m.node(n.Right, x.inner()), m.typ(n).Kind)
	}
	l, r := m.value(n.Left), m.value(n.Right)
	switch n.Operator {
	case "==", "!=":
		null := x.null
		if m.mode == Plain || m.typ(n.Left).Kind == Null || m.typ(n.Right).Kind == Null {
			null = byValue
		}
		return comparison(l, relations[n.Operator], r, null)
	case "<", "<=", ">", ">=":
		return comparison(l, relations[n.Operator], r, x.null)
	case "in":
		return m.membership(n, l, r, x)
	case "contains", "startsWith", "endsWith", "matches":
		return test(n.Operator, l, r, x.null)
	}
	return arithmeticOf(n.Operator, l, r, m.typ(n))
}

func (m *meaning) membership(n *ast.BinaryNode, l, r *node, x context) *node {
	null := x.null
	if m.mode == Plain && m.typ(n.Left).nullable() {
		null = byValue
	}
	var elems []any
	switch v := r.value.(type) {
	case []any:
		elems = v
	case map[string]any:
		for _, k := range sortedKeys(v) {
			elems = append(elems, k)
		}
		if l.kind != String {
			return test("in", l, r, null)
		}
	default:
		return test("in", l, r, null)
	}
	points := make([]any, 0, len(elems))
	of, answer := Null, null
	if null == byValue {
		answer = asFalse
	}
	for _, e := range elems {
		if e == nil {
			if null == byValue {
				answer = asTrue
			}
			continue
		}
		at, kind, ok := place(l, e, equalTo)
		if !ok || of != Null && of != kind {
			return test("in", l, r, null)
		}
		of, points = kind, append(points, at)
	}
	if len(points) == 0 {
		return member(l, nothing, answer)
	}
	return member(l, pointsOf(points, of), answer)
}

func (m *meaning) let(n *ast.VariableDeclaratorNode, x context) *node {
	value := m.value(n.Value)
	outer := len(m.bound)
	defer func() { m.bound = m.bound[:outer] }()
	if value.total && value.size <= maxInlined {
		m.bound = append(m.bound, bound{n.Name, value})
		return m.node(n.Expr, x.inner())
	}
	level := m.level
	m.bound = append(m.bound, bound{n.Name, &node{form: formLocal, name: "let", level: level, nullable: value.nullable, holes: value.holes, total: true, size: 1}})
	m.level++
	body := m.node(n.Expr, x.inner())
	m.level--
	return made(&node{form: formLet, level: level, args: []*node{value, body}, kind: body.kind, nullable: body.nullable, missing: body.missing,
		holes: body.holes, sureElements: body.sureElements, nonNegative: body.nonNegative, condition: body.condition})
}

func (m *meaning) call(n ast.Node, name string, args []ast.Node, x context) *node {
	if _, ok := predicates[name]; ok {
		return m.predicate(n, name, args, x)
	}
	return call(name, m.values(args), m.typ(n))
}

// predicate is a function with something that is evaluated for each element of a list.
func (m *meaning) predicate(n ast.Node, name string, args []ast.Node, x context) *node {
	over, level := m.value(args[0]), m.level
	body := m.body(over, name, args, x)
	var made *node
	switch name {
	case "all":
		made = every(over, body, level)
	case "any":
		made = some(over, body, level)
	case "none":
		made = every(over, not(body), level)
	case "one":
		made = member(loopOf("count", []*node{over, body}, level, intType), related(equalTo, 1, Int), refuse)
	default:
		made = loopOf(name, append([]*node{over, body}, m.values(args[min(2, len(args)):])...), level, m.typ(n))
	}
	return m.evaluated(made)
}

// searching are the predicates that ask for a condition.
var searching = map[string]bool{"all": true, "any": true, "none": true, "one": true, "count": true, "filter": true, "find": true,
	"findLast": true, "findIndex": true, "findLastIndex": true}

// body is what a predicate evaluates for each element: without a second argument the element itself.
func (m *meaning) body(over *node, name string, args []ast.Node, x context) *node {
	outer := len(m.bound)
	for _, local := range []*node{{name: "it", nullable: over.holes || over.kind != List}, {name: "#index"}, {name: "#acc", nullable: true}} {
		local.form, local.level, local.holes, local.total, local.size = formLocal, m.level, local.nullable, true, 1
		m.bound = append(m.bound, bound{local.name, local})
	}
	m.level++
	defer func() { m.bound, m.level = m.bound[:outer], m.level-1 }()
	element := m.bound[outer].value
	element.typ = inside(over, "", anyType)
	if len(args) == 1 {
		element = typed(element, inside(over, "", m.typ(args[0]).elem()))
		if searching[name] {
			return member(boolean(element), related(equalTo, 1, Bool), refuse)
		}
		return element
	}
	inner := args[1].(*ast.PredicateNode).Node
	switch {
	case name == "all" || name == "any":
		return m.condition(inner, x.inner())
	case name == "none":
		return m.condition(inner, x.inner().negate())
	case searching[name]:
		return m.condition(inner, operand)
	}
	return m.value(inner)
}
