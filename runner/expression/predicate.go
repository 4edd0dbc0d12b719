package expression

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/expr-lang/expr/ast"
)

// A predicate is a function whose second argument is evaluated for each element of its first. There, `it` is
// the element, as is #; #index is its position and #acc the result of reduce so far.
type predicate struct {
	signature string
	doc       string
	compile   func(l *loop) func(f *frame, list []any) any
}

var predicates = map[string]predicate{
	"all": {"all(list, condition) bool", "Whether every element meets the condition; true of an empty list.",
		search((*loop).same, typeBool, func(f *frame, list []any, holds func(int) bool) any { return firstThat(list, holds, false) < 0 })},
	"any": {"any(list, condition) bool", "Whether some element meets the condition.",
		search((*loop).same, typeBool, func(f *frame, list []any, holds func(int) bool) any { return firstThat(list, holds, true) >= 0 })},
	"none": {"none(list, condition) bool", "Whether no element meets the condition.",
		search((*loop).opposite, typeBool, func(f *frame, list []any, holds func(int) bool) any { return firstThat(list, holds, true) < 0 })},
	"one": {"one(list, condition) bool", "Whether exactly one element meets the condition.",
		search((*loop).neither, typeBool, func(f *frame, list []any, holds func(int) bool) any { return countThat(list, holds) == 1 })},
	"count": {"count(list, [condition]) int", "How many elements meet the condition, or are true.",
		search((*loop).neither, typeInt, func(f *frame, list []any, holds func(int) bool) any { return countThat(list, holds) })},
	"filter": {"filter(list, condition) list", "The elements that meet the condition.",
		search((*loop).neither, (*Type).notNull, func(f *frame, list []any, holds func(int) bool) any {
			kept := []any{}
			for i := range list {
				if holds(i) {
					f.reserve(16)
					kept = append(kept, list[i])
				}
			}
			return kept
		})},
	"find": {"find(list, condition) element or null", "The first element that meets the condition.",
		search((*loop).neither, elementOrNull, func(f *frame, list []any, holds func(int) bool) any {
			return elementAt(list, firstThat(list, holds, true))
		})},
	"findLast": {"findLast(list, condition) element or null", "The last element that meets the condition.",
		search((*loop).neither, elementOrNull, func(f *frame, list []any, holds func(int) bool) any {
			return elementAt(list, lastThat(list, holds))
		})},
	"findIndex": {"findIndex(list, condition) int or null", "The position of the first element that meets the condition, from 0.",
		search((*loop).neither, positionOrNull, func(f *frame, list []any, holds func(int) bool) any {
			return position(firstThat(list, holds, true))
		})},
	"findLastIndex": {"findLastIndex(list, condition) int or null", "The position of the last element that meets the condition.",
		search((*loop).neither, positionOrNull, func(f *frame, list []any, holds func(int) bool) any {
			return position(lastThat(list, holds))
		})},
	"map":     {"map(list, expression) list", "What the expression makes of each element.", mapping},
	"sum":     {"sum(list, [expression]) number", "The sum of the elements, or of what the expression makes of them.", summing},
	"groupBy": {"groupBy(list, text) map of list", "The elements under the text that the expression makes of each.", grouping},
	"sortBy": {`sortBy(list, expression, ["asc" or "desc"]) list`,
		"The elements in the order of what the expression makes of them; equal ones stay as they stand.", sorting},
	"reduce": {"reduce(list, expression, [start]) value", "The expression applied to one element after the other; #acc is the result so far.", reducing},
}

// A loop is one call of a predicate.
type loop struct {
	*compiler
	made    code // of the call; compile sets its type
	name    string
	args    []ast.Node
	list    code
	context context
}

func (c *compiler) predicate(n ast.Node, name string, args []ast.Node, x context) code {
	l := &loop{compiler: c, made: code{node: n}, name: name, args: args, context: x}
	l.list = c.value(args[0])
	if !l.list.typ.is(List, Any) {
		c.fail(args[0], RuleType, "", "%s goes through a list, but %s is %s", name, c.src.brief(args[0]), l.list.typ)
	}
	do := c.predicates[name].compile(l)
	l.made.run = func(f *frame) any {
		list, ok := c.some(l.list, f).([]any)
		if !ok {
			return fail(c.src.evalError(args[0], fmt.Errorf("%s must be a list", c.src.brief(args[0]))))
		}
		f.visit(len(list))
		return do(f, list)
	}
	return l.made
}

// What a null comes to in the condition of a predicate, given what it comes to in the whole.
func (l *loop) same() context     { return l.context.inner() }
func (l *loop) opposite() context { return l.context.inner().negate() }
func (l *loop) neither() context  { return operand }

func typeBool(*Type) *Type           { return boolType }
func typeInt(*Type) *Type            { return intType }
func positionOrNull(*Type) *Type     { return intType.orNull() }
func elementOrNull(list *Type) *Type { return list.elem().orNull() }
func (l *loop) of() *Type            { return l.list.typ.elem() }
func (l *loop) text(i int) string    { return l.src.brief(l.args[i]) }
func (l *loop) failed(err error) any {
	return fail(l.src.evalError(l.made.node, fmt.Errorf("%s: %w", l.name, err)))
}

// each evaluates the body for element i of a list.
type each func(f *frame, list []any, i int) any

// body compiles the predicate with compile, in which the element and its position have names.
func (l *loop) body(compile func(ast.Node) code) (code, each) {
	outer := len(l.locals)
	item, index := l.bind("it", l.of()), l.bind("#index", intType)
	node := l.args[1].(*ast.PredicateNode).Node
	body := compile(node)
	l.locals = l.locals[:outer]
	nodes, _ := size(node)
	return body, func(f *frame, list []any, i int) any {
		f.visit(nodes)
		f.slots[item], f.slots[index] = list[i], i
		return body.run(f)
	}
}

// search makes a function out of one that asks whether its condition holds for the element at a position.
func search(null func(*loop) context, typ func(list *Type) *Type, run func(f *frame, list []any, holds func(int) bool) any) func(*loop) func(*frame, []any) any {
	return func(l *loop) func(*frame, []any) any {
		l.made.typ = typ(l.list.typ)
		if len(l.args) == 1 && !l.of().is(Bool, Any) {
			l.fail(l.args[0], RuleType, "", "%s without a condition counts what is true, but %s is %s", l.name, l.text(0), l.list.typ)
		}
		condition := func(_ *frame, list []any, i int) any { return list[i] }
		if len(l.args) > 1 {
			_, condition = l.body(func(n ast.Node) code {
				return l.condition(n, null(l), "the condition of "+l.name)
			})
		}
		return func(f *frame, list []any) any {
			return run(f, list, func(i int) bool {
				holds, ok := condition(f, list, i).(bool)
				if !ok {
					l.failed(fmt.Errorf("element %d is not true or false", i))
				}
				return holds
			})
		}
	}
}

func firstThat(list []any, holds func(int) bool, answer bool) int {
	for i := range list {
		if holds(i) == answer {
			return i
		}
	}
	return -1
}

func lastThat(list []any, holds func(int) bool) int {
	for i := range slices.Backward(list) {
		if holds(i) {
			return i
		}
	}
	return -1
}

func countThat(list []any, holds func(int) bool) (n int) {
	for i := range list {
		if holds(i) {
			n++
		}
	}
	return n
}

func elementAt(list []any, i int) any {
	if i < 0 {
		return nil
	}
	return list[i]
}

func mapping(l *loop) func(*frame, []any) any {
	body, made := l.body(l.value)
	l.made.typ = listOf(body.typ)
	return func(f *frame, list []any) any {
		result := f.list(len(list))
		for i := range list {
			result[i] = made(f, list, i)
		}
		return result
	}
}

func summing(l *loop) func(*frame, []any) any {
	of, at, shown, number := l.of(), l.args[0], l.list.typ, func(_ *frame, list []any, i int) any { return list[i] }
	if len(l.args) > 1 {
		var body code
		body, number = l.body(l.value)
		of, at, shown = body.typ, l.args[1], body.typ
	}
	if !of.is(Int, Float, Duration, Any) {
		l.fail(at, RuleType, "", "sum adds numbers or durations, but %s is %s", l.src.brief(at), shown)
	}
	l.made.typ = of.notNull()
	return func(f *frame, list []any) any {
		total := zero(of.Kind)
		for i := range list {
			n := number(f, list, i)
			if n == nil {
				return l.failed(fmt.Errorf("%s is null for element %d", l.src.brief(at), i))
			}
			if i == 0 && of.Kind == Any {
				total = zero(kindOf(n))
			}
			var err error
			if total, err = arithmetic(f, "+", total, n); err != nil {
				return l.failed(err)
			}
		}
		return total
	}
}

func zero(k Kind) any {
	switch k {
	case Float:
		return 0.0
	case Duration:
		return time.Duration(0)
	}
	return 0
}

func grouping(l *loop) func(*frame, []any) any {
	body, key := l.body(l.value)
	if !body.typ.is(String, Any) {
		l.fail(l.args[1], RuleType, "", "groupBy groups under text, but %s is %s", l.text(1), body.typ)
	}
	l.made.typ = &Type{Kind: Map, Elem: l.list.typ.notNull()}
	return func(f *frame, list []any) any {
		groups := map[string]any{}
		for i := range list {
			k, ok := key(f, list, i).(string)
			if !ok {
				return l.failed(fmt.Errorf("%s is not text for element %d", l.text(1), i))
			}
			f.reserve(64)
			group, _ := groups[k].([]any)
			groups[k] = append(group, list[i])
		}
		return groups
	}
}

func sorting(l *loop) func(*frame, []any) any {
	body, key := l.body(l.value)
	if !body.typ.is(Int, Float, String, Duration, Any) {
		l.fail(l.args[1], RuleType, "", "sortBy orders numbers, durations or texts, but %s is %s", l.text(1), body.typ)
	}
	order := l.constant(l.made.node, stringType, "asc")
	if len(l.args) > 2 {
		order = l.value(l.args[2])
		if !order.typ.is(String, Any) {
			l.fail(l.args[2], RuleType, "", "the order is \"asc\" or \"desc\", but %s is %s", l.text(2), order.typ)
		}
	}
	l.made.typ = l.list.typ.notNull()
	return func(f *frame, list []any) any {
		keys := f.list(len(list))
		for i := range list {
			keys[i] = key(f, list, i)
		}
		sorted, err := sortedBy(f, list, keys, order.run(f))
		if err != nil {
			return l.failed(err)
		}
		return sorted
	}
}

// sortedBy is a list in the order of its keys; equal ones stay as they stand.
func sortedBy(f *frame, list, keys []any, order any) ([]any, error) {
	sign := map[any]int{"asc": 1, "desc": -1}[order]
	if sign == 0 {
		return nil, errors.New(`the order must be "asc" or "desc"`)
	}
	f.visit(4 * len(list))
	positions := make([]int, len(list))
	for i := range positions {
		positions[i] = i
	}
	var failed error
	slices.SortStableFunc(positions, func(i, j int) int {
		c, err := compare(keys[i], keys[j])
		if err != nil {
			failed = err
		}
		return sign * c
	})
	sorted := f.list(len(list))
	for i, from := range positions {
		sorted[i] = list[from]
	}
	return sorted, failed
}

func reducing(l *loop) func(*frame, []any) any {
	acc, start := l.of(), code{}
	if len(l.args) > 2 {
		start = l.value(l.args[2])
		acc = start.typ
	}
	acc = acc.anySign()
	var slot int
	compile := func(acc *Type) (code, each) {
		slot = l.bind("#acc", acc)
		defer func() { l.locals = l.locals[:len(l.locals)-1] }()
		return l.body(l.value)
	}
	body, next := compile(acc)
	if !Assignable(body.typ, acc) || body.typ.Kind == Any { // such as floats added to 0
		wider, ok := join(acc, body.typ)
		if !ok {
			l.fail(l.args[1], RuleType, "", "reduce starts with %s, but %s is %s", acc, l.text(1), body.typ)
		}
		acc = wider
		_, next = compile(acc)
	}
	l.made.typ = acc
	return func(f *frame, list []any) any {
		var v any
		i := 0
		switch {
		case start.run != nil:
			v = start.run(f)
		case len(list) == 0:
			return l.failed(errors.New("an empty list needs a start"))
		default:
			v, i = list[0], 1
		}
		for ; i < len(list); i++ {
			f.slots[slot] = v
			v = next(f, list, i)
		}
		return v
	}
}

func position(i int) any {
	if i < 0 {
		return nil
	}
	return i
}
