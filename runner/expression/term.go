package expression

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// A Term is what an expression means, in a normal form: expressions with equal terms have the same value in
// every environment that has the types of their scope, and fail in the same ones (limits of work and memory
// aside). What null comes to is part of it: of lag < 5 in a wait and of the same in a check there are two
// terms if lag may be null. A Term is immutable; any number of goroutines may use it.
//
// The zero Term is the constant null.
type Term struct{ n *node }

func (t Term) node() *node {
	if t.n == nil {
		return nullNode
	}
	return t.n
}

// Constant is the term of a value in the form that Value gives.
func Constant(v any) Term { return Term{constant(v)} }

// Reference is a name of the scope with the fields after it. Nothing is known of its type; where it stands
// for another reference, as an answer to Program.Term, it takes over that one's.
func Reference(path []string) Term {
	return Term{&node{form: formReference, path: slices.Clone(path), kind: Any, nullable: true, holes: true, untyped: true, size: 1}}
}

// Select is a field of a field … of t.
func Select(t Term, fields ...string) Term {
	n := t.node()
	for _, f := range fields {
		n = field(n, f, false, anyType)
	}
	return Term{n}
}

// Concat is the text of its parts one after the other, as in a template: each as Text writes it.
func Concat(parts ...Term) Term { return Term{concat(nodesOf(parts))} }

// ListOf is the list of some terms.
func ListOf(elems ...Term) Term { return Term{list(nodesOf(elems))} }

// MapOf is the map of some terms.
func MapOf(entries map[string]Term) Term {
	var args []*node
	for _, k := range sortedKeys(entries) {
		args = append(args, constant(k), entries[k].node())
	}
	return Term{mapOf(args)}
}

// And holds if all conditions do, of which each is evaluated only if those before it hold. Of no conditions
// it is true.
func And(conditions ...Term) Term { return Term{allOf(nodesOf(conditions)...)} }

// Not is the opposite of a condition.
func Not(condition Term) Term { return Term{not(condition.node())} }

func nodesOf(terms []Term) []*node {
	nodes := make([]*node, len(terms))
	for i := range terms {
		nodes[i] = terms[i].node()
	}
	return nodes
}

// Value is the value of a term that is constant; it must not be changed.
func (t Term) Value() (v any, ok bool) {
	n := t.node()
	return n.value, n.form == formConstant
}

// References are the paths of the scope that a term reads, sorted, each once.
func (t Term) References() [][]string {
	var paths [][]string
	t.node().walk(func(n *node) {
		if n.form == formReference {
			paths = append(paths, n.path)
		}
	})
	slices.SortFunc(paths, slices.Compare[[]string])
	return slices.CompactFunc(paths, slices.Equal[[]string])
}

// Equal says whether two terms are the same. Compare knows of more conditions that they mean the same.
func (t Term) Equal(u Term) bool { return sameNode(t.node(), u.node()) }

// A form is what a node of a term is. Nodes are ordered by it, so that what is plain comes first.
type form int8

const (
	formConstant  form = iota
	formReference      // path: a name of the scope and fields
	formLocal          // level, name: what a loop is about, or a variable

	formIn       // args[0] is in set; null: what it comes to
	formRelation // args[0] and args[1] stand in relation; null: what it comes to
	formTest     // name: contains, startsWith, endsWith, matches, in, version_gte of two args; null: what it comes to
	formNot      // of a formTest

	formAll // args[1] holds for all elements of args[0], looked at in order until it does not
	formAny
	formAnd
	formOr

	formIf       // args[0] ? args[1] : args[2]
	formCoalesce // args[0] ?? args[1]
	formConcat   // the text of all args
	formList
	formMap  // keys and values in turn
	formCall // name: an operator, or a function that does not depend on elements
	formLoop // name: a function with a list, something of each element, and more
	formLet  // args[1] with the value of args[0] as the local of a level
)

// A node is a term or a part of one. It is immutable once it is made.
type node struct {
	form     form
	name     string
	path     []string
	value    any
	args     []*node
	set      set
	relation relation
	null     answer
	soft     uint64 // of a path: bit i is set if element i is reached with ?., where that matters
	level    int    // of a local and of what declares it: how many others are declared around it

	typ          *Type // as far as it is known; nil: not at all
	kind         Kind
	nullable     bool // the value may be null
	missing      bool // so it may against its type: a key that a map may not have
	holes        bool // it may have a null inside where its type says nothing of one
	total        bool // evaluating it never fails
	sureElements bool // it is a list whose elements are not null, holes left aside
	nonNegative  bool // a number or duration is not below zero
	condition    bool // true or false, never null
	untyped      bool // a Reference that nobody has given a type
	size         int  // nodes, itself included
}

// byValue is an answer to null of == and != alone: null equals null and nothing else.
const byValue answer = asTrue + 1

var nullNode = &node{form: formConstant, kind: Null, nullable: true, total: true, size: 1}

func constant(v any) *node {
	if v == nil {
		return nullNode
	}
	n := &node{form: formConstant, value: v, kind: kindOf(v), total: true, size: 1}
	switch v := v.(type) {
	case bool:
		n.condition = true
	case int:
		n.nonNegative = v >= 0
	case float64:
		n.nonNegative = v >= 0
	case time.Duration:
		n.nonNegative = v >= 0
	case []any:
		n.sureElements = !slices.ContainsFunc(v, func(v any) bool { return v == nil })
		n.holes = hasNull(v)
	case map[string]any:
		n.holes = true
	}
	return n
}

func hasNull(list []any) bool {
	return slices.ContainsFunc(list, func(v any) bool {
		switch v := v.(type) {
		case nil:
			return true
		case []any:
			return hasNull(v)
		case map[string]any:
			return true // it may have; this is cheaper
		}
		return false
	})
}

func truth(holds bool) *node {
	if holds {
		return trueNode
	}
	return falseNode
}

var trueNode, falseNode = constant(true), constant(false)

// made completes a node by what follows from its operands.
func made(n *node) *node {
	n.size = 1
	for _, a := range n.args {
		n.size += a.size
	}
	return n
}

func (n *node) walk(visit func(*node)) {
	visit(n)
	for _, a := range n.args {
		a.walk(visit)
	}
}

func (n *node) isTrue() bool  { return n.form == formConstant && n.value == true }
func (n *node) isFalse() bool { return n.form == formConstant && n.value == false }

// sure says whether n has a value, not null, in every environment.
func (n *node) sure() bool { return n.total && !n.nullable }

// compareNodes orders nodes: references by name, conditions by what they are about.
func compareNodes(a, b *node) int {
	if a == b {
		return 0
	}
	if c := cmp.Or(cmp.Compare(a.form, b.form), strings.Compare(a.name, b.name), slices.Compare(a.path, b.path),
		slices.CompareFunc(a.args, b.args, compareNodes)); c != 0 {
		return c
	}
	if c := cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.relation, b.relation), cmp.Compare(a.soft, b.soft)); c != 0 {
		return c
	}
	if c := cmp.Compare(a.null, b.null); c != 0 {
		return c
	}
	switch a.form {
	case formConstant:
		return compareConstants(a.value, b.value)
	case formIn:
		return compareSets(a.set, b.set)
	}
	return 0
}

func sameNode(a, b *node) bool { return compareNodes(a, b) == 0 }

func sameArgs(a, b *node) bool { return slices.EqualFunc(a.args, b.args, sameNode) }

// compareConstants orders values; 1 and 1.0 are two.
func compareConstants(a, b any) int {
	if c := cmp.Compare(kindOf(a), kindOf(b)); c != 0 {
		return c
	}
	switch x := a.(type) {
	case bool:
		return compareBools(x, b.(bool))
	case []any:
		return slices.CompareFunc(x, b.([]any), compareConstants)
	case map[string]any:
		y := b.(map[string]any)
		keys := sortedKeys(x)
		if c := slices.Compare(keys, sortedKeys(y)); c != 0 {
			return c
		}
		for _, k := range keys {
			if c := compareConstants(x[k], y[k]); c != 0 {
				return c
			}
		}
		return 0
	case float64: // 0 and -0 print differently
		y := b.(float64)
		return cmp.Or(cmp.Compare(x, y), compareBools(math.Signbit(y), math.Signbit(x)))
	}
	order, _ := compare(a, b)
	return order
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
