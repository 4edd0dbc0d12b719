package expression

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// String is the term as an expression that means the same in a check (the mode Plain), as far as there is
// one: what null comes to is written out, so that lag < 5 of a wait is lag != nil && lag <= 4. Where a null
// is an error although no operator says so it has known(x).
func (t Term) String() string {
	w := writer{inner: -1}
	return w.condition(t.node(), loosest)
}

// A strength is how strongly the operator of a text binds: inside a stronger one it is put in parentheses.
type strength int8

const (
	loosest strength = iota // ?:, let
	either                  // ||
	both                    // &&
	compared
	added // all arithmetic, and ??
	tightest
)

// A writer writes terms. It knows what is the innermost loop, since only that one's element is called it.
type writer struct {
	inner int // level
}

// text is a term where a value is wanted: there, a condition that may be null is not the same as its value.
func (w writer) text(n *node, around strength) string {
	if n.form == formIn && n.null == refuse && n.args[0].kind == Bool && n.args[0].nullable && n.set.of == Bool {
		return "(" + w.condition(n, compared) + " && true)"
	}
	return w.condition(n, around)
}

// condition is a term where true or false is wanted.
func (w writer) condition(n *node, around strength) string {
	text, own := w.plain(n)
	if own < around {
		return "(" + text + ")"
	}
	return text
}

func (w writer) plain(n *node) (text string, own strength) {
	switch n.form {
	case formConstant:
		return constantText(n.value), tightest
	case formReference:
		return pathText(n), tightest
	case formLocal:
		return w.local(n), tightest
	case formIn:
		return w.member(n)
	case formRelation:
		return w.relation(n)
	case formTest:
		if n.name == "version_gte" {
			return w.call(n), tightest
		}
		if n.name == "in" && n.null == refuse && n.args[0].nullable {
			return "known(" + w.text(n.args[0], loosest) + ") && " + w.text(n.args[0], added) + " in " + w.text(n.args[1], added), both
		}
		return w.guarded(n, w.text(n.args[0], added)+" "+n.name+" "+w.text(n.args[1], added), compared)
	case formNot:
		return "!" + w.condition(n.args[0], tightest), tightest
	case formAnd:
		return w.conditions(n.args, " && "), both
	case formOr:
		return w.conditions(n.args, " || "), either
	case formAll:
		return w.loop("all", n), tightest
	case formAny:
		return w.loop("any", n), tightest
	case formIf:
		return w.condition(n.args[0], either) + " ? " + w.text(n.args[1], either) + " : " + w.text(n.args[2], either), loosest
	case formCoalesce:
		return w.text(n.args[0], tightest) + " ?? " + w.text(n.args[1], tightest), either
	case formConcat:
		return w.concat(n)
	case formList:
		return "[" + w.joined(n.args, ", ", loosest) + "]", tightest
	case formMap:
		return w.mapping(n), tightest
	case formLoop:
		return w.loop(n.name, n), tightest
	case formLet:
		return fmt.Sprintf("let v%d = %s; %s", n.level, w.text(n.args[0], either), w.text(n.args[1], either)), loosest
	}
	return w.operation(n)
}

func (w writer) joined(args []*node, between string, around strength) string {
	texts := make([]string, len(args))
	for i := range args {
		texts[i] = w.text(args[i], around)
	}
	return strings.Join(texts, between)
}

func (w writer) conditions(args []*node, between string) string {
	texts := make([]string, len(args))
	for i := range args {
		texts[i] = w.condition(args[i], compared)
	}
	return strings.Join(texts, between)
}

func pathText(n *node) string {
	var b strings.Builder
	for i, p := range n.path {
		soft := n.soft&(1<<i) != 0
		switch {
		case i == 0:
			b.WriteString(p)
		case isName(p) && soft:
			b.WriteString("?." + p)
		case isName(p):
			b.WriteString("." + p)
		case soft:
			b.WriteString("?.[" + strconv.Quote(p) + "]")
		default:
			b.WriteString("[" + strconv.Quote(p) + "]")
		}
	}
	return b.String()
}

func isName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && !slices.Contains([]string{"in", "not", "and", "or", "let", "if", "else", "contains", "startsWith", "endsWith", "matches"}, s)
}

func (w writer) local(n *node) string {
	if n.name == "let" {
		return fmt.Sprintf("v%d", n.level)
	}
	if n.level == w.inner {
		return n.name
	}
	return outerName(n)
}

// outerName is what an element is called inside the loop of another one.
func outerName(n *node) string { return fmt.Sprintf("%s%d", strings.TrimPrefix(n.name, "#"), n.level) }

// loop is a function with something that is evaluated for each element.
func (w writer) loop(name string, n *node) string {
	body := writer{inner: n.level}.condition(n.args[1], loosest)
	if name == "map" {
		body = writer{inner: n.level}.text(n.args[1], loosest)
	}
	var outer []string
	for _, name := range []string{"it", "#index", "#acc"} {
		local := &node{form: formLocal, name: name, level: n.level}
		if below(n.args[1], local, false) {
			outer = append(outer, "let "+outerName(local)+" = "+name+"; ")
		}
	}
	if len(outer) > 0 || n.args[1].form == formLet {
		body = "{" + strings.Join(outer, "") + body + "}"
	}
	args := []string{w.text(n.args[0], loosest), body}
	for _, a := range n.args[2:] {
		args = append(args, w.text(a, loosest))
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

// below says whether a local is read inside a loop within its own.
func below(n, local *node, inside bool) bool {
	if n.form == formLocal {
		return inside && n.level == local.level && n.name == local.name
	}
	for i, a := range n.args {
		loop := n.form == formAll || n.form == formAny || n.form == formLoop
		if below(a, local, inside || loop && i == 1) {
			return true
		}
	}
	return false
}

func (w writer) call(n *node) string {
	return n.name + "(" + w.joined(n.args, ", ", loosest) + ")"
}

func (w writer) concat(n *node) (string, strength) {
	texts := make([]string, len(n.args))
	for i, a := range n.args {
		texts[i] = w.text(a, tightest)
		if a.kind != String || a.nullable {
			texts[i] = "string(" + w.text(a, loosest) + ")"
		}
	}
	if len(texts) == 1 {
		return texts[0], tightest
	}
	return strings.Join(texts, " + "), added
}

func (w writer) mapping(n *node) string {
	pairs := make([]string, 0, len(n.args)/2)
	for i := 0; i < len(n.args); i += 2 {
		key := "(" + w.text(n.args[i], loosest) + ")"
		if s, ok := n.args[i].value.(string); ok {
			key = strconv.Quote(s)
		}
		pairs = append(pairs, key+": "+w.text(n.args[i+1], loosest))
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

// operation is an operator or a function that is given values.
func (w writer) operation(n *node) (string, strength) {
	arg := func(i int) string { return w.text(n.args[i], tightest) }
	switch n.name {
	case "+", "-", "*", "/", "%", "**", "..":
		if len(n.args) == 1 {
			return n.name + arg(0), added
		}
		return arg(0) + " " + n.name + " " + arg(1), added
	case ".", "?.":
		name := n.args[1].value.(string)
		if isName(name) {
			return arg(0) + n.name + name, tightest
		}
		return arg(0) + strings.TrimSuffix(n.name, ".") + "[" + strconv.Quote(name) + "]", tightest
	case "[]", "?.[]":
		return arg(0) + strings.TrimSuffix(n.name, "[]") + "[" + w.text(n.args[1], loosest) + "]", tightest
	case "[:]":
		to := ""
		if n.args[2].form != formConstant || n.args[2].value != nil {
			to = w.text(n.args[2], either)
		}
		return arg(0) + "[" + w.text(n.args[1], either) + ":" + to + "]", tightest
	case "bool":
		return w.plain(n.args[0])
	}
	if strings.HasPrefix(n.name, "must be ") {
		return w.plain(n.args[0])
	}
	return w.call(n), tightest
}

// relation is a comparison of two values that are not constant.
func (w writer) relation(n *node) (string, strength) {
	l, r := w.text(n.args[0], added), w.text(n.args[1], added)
	stands := n.relation
	if n.args[0].form == formConstant {
		l, r, stands = r, l, stands.mirrored()
	}
	op := map[relation]string{lessThan: "<", equalTo: "==", greaterThan: ">", lessThan | equalTo: "<=", greaterThan | equalTo: ">=", lessThan | greaterThan: "!="}[stands]
	null := n.args[0].nullable || n.args[1].nullable
	switch {
	case n.null == refuse && null && (stands == equalTo || stands == lessThan|greaterThan) && !ordered(n.args[0], n.args[1]):
		return "known(" + l + ") && known(" + r + ") && " + l + " " + op + " " + r, both
	case n.null == refuse && null && stands == equalTo:
		return l + " <= " + r + " && " + l + " >= " + r, both
	case n.null == refuse && null && stands == lessThan|greaterThan:
		return l + " < " + r + " || " + l + " > " + r, either
	case n.relation == 0:
		return w.guarded(n, "false", compared)
	case n.relation == anyOrder:
		return w.guarded(n, "true", compared)
	}
	if stands == equalTo || stands == lessThan|greaterThan {
		return w.equated(n, l+" "+op+" "+r)
	}
	return w.guarded(n, l+" "+op+" "+r, compared)
}

// guarded says in front of a condition what null comes to. What could fail is evaluated before that.
func (w writer) guarded(n *node, text string, own strength) (string, strength) {
	if n.null == refuse || n.null == byValue {
		return text, own
	}
	check, evaluated, between, result := " != nil", " == ", " && ", both
	if n.null == asTrue {
		check, evaluated, between, result = " == nil", " != ", " || ", either
	}
	partial, guards := "", ""
	for _, a := range n.args {
		operand := w.text(a, added)
		if !a.total && len(n.args) > 1 {
			partial += operand + evaluated + operand + between
		}
		if a.nullable {
			guards += operand + check + between
		}
	}
	if guards == "" {
		return text, own
	}
	if own < compared {
		text = "(" + text + ")"
	}
	return partial + guards + text, result
}

// equated is an equality of two values with what null comes to, where == alone does not say it.
func (w writer) equated(n *node, text string) (string, strength) {
	usual := asFalse
	if n.relation != equalTo {
		usual = asTrue
	}
	l, m := n.args[0].nullable, n.args[1].nullable
	if n.null == refuse || n.null == byValue || n.null == usual && !(l && m) {
		return text, compared
	}
	check, between, own := " != nil", " && ", both
	if n.null == asTrue {
		check, between, own = " == nil", " || ", either
	}
	for _, a := range n.args {
		if a.nullable {
			text += between + w.text(a, added) + check
			if n.null == usual {
				break
			}
		}
	}
	return text, own
}

// member is a condition about one value.
func (w writer) member(n *node) (string, strength) {
	x, s := n.args[0], n.set
	subject := w.text(x, added)
	inside, outside := s.intervals(x), s.complement().intervals(x)
	onlyPoints := func(spans []span) bool { return !slices.ContainsFunc(spans, func(s span) bool { return !s.point() }) }
	refused := x.nullable && n.null == refuse
	switch {
	case s.of == Null:
		return w.whole(n, subject)
	case x.kind == Bool:
		return w.flag(n, subject)
	case refused && ordered(x, x): // == would not fail
	case (x.kind != Any || !s.rest) && onlyPoints(inside):
		return w.points(n, subject, inside, false)
	case (x.kind != Any || s.rest) && onlyPoints(outside):
		return w.points(n, subject, outside, true)
	}
	texts, own := make([]string, len(inside)), compared
	for i, span := range inside {
		texts[i] = spanText(subject, span, s.of, x)
		if strings.Contains(texts[i], "&&") {
			own = both
		}
	}
	if len(texts) > 1 {
		own = either
	}
	return w.guarded(n, strings.Join(texts, " || "), own)
}

// flag is something that is true or false.
func (w writer) flag(n *node, subject string) (string, strength) {
	x, holds := n.args[0], !n.set.in
	switch {
	case holds && (!x.nullable || n.null == refuse):
		return w.plain(x)
	case !x.nullable || n.null == refuse:
		return "!" + w.text(x, tightest), tightest
	case x.form == formCall && x.name == "bool": // whatever else it is must not pass
		text := subject + " ?? " + strconv.FormatBool(holds == (n.null == asTrue))
		if holds {
			return text, either
		}
		return "!(" + text + ")", tightest
	case n.null == asFalse:
		return subject + " == " + strconv.FormatBool(holds), compared
	}
	return subject + " != " + strconv.FormatBool(!holds), compared
}

// points is a condition that allows some values, or none of them.
func (w writer) points(n *node, subject string, points []span, none bool) (string, strength) {
	x, usual := n.args[0], asFalse
	texts := make([]string, len(points))
	for i, p := range points {
		texts[i] = boundText(p.low, n.set.of)
	}
	text := subject + " == " + texts[0]
	switch {
	case len(points) == 1 && none:
		text = subject + " != " + texts[0]
	case none:
		text = subject + " not in [" + strings.Join(texts, ", ") + "]"
	case len(points) > 1:
		text = subject + " in [" + strings.Join(texts, ", ") + "]"
	}
	if none {
		usual = asTrue
	}
	switch {
	case !x.nullable:
		return text, compared
	case n.null == refuse:
		return "known(" + w.text(x, loosest) + ") && " + text, both
	case n.null == usual && (!x.missing || len(points) == 1): // it is what == and in say of null themselves
		return text, compared
	}
	return w.guarded(n, text, compared)
}

// whole is a condition that asks for null alone, or fails for it.
func (w writer) whole(n *node, subject string) (string, strength) {
	x, all := n.args[0], n.set.in
	switch {
	case !x.nullable && all: // it may fail, or there would be no such condition
		return subject + " == " + subject, compared
	case !x.nullable:
		return subject + " != " + subject, compared
	case all && n.null == asFalse:
		return subject + " != nil", compared
	case !all && n.null == asTrue:
		return subject + " == nil", compared
	case x.kind == Bool && all:
		return subject + " || true", either
	case x.kind == Bool:
		return subject + " && false", both
	case !ordered(x, x) && all:
		return "known(" + w.text(x, loosest) + ")", tightest
	case !ordered(x, x):
		return "!known(" + w.text(x, loosest) + ")", tightest
	case all:
		return subject + " <= " + subject, compared
	}
	return subject + " < " + subject, compared
}

// intervals are the spans of a set of the values of x, from its least value.
func (s set) intervals(x *node) []span {
	spans := s.spans(x.kind == Int || x.kind == Duration || s.of == Bool)
	if last := len(spans) - 1; last >= 0 && s.of == Bool && spans[last].high == nil {
		spans[last].high, spans[last].includesHigh = 1, true
	}
	if least := leastOf(x, s.of); len(spans) > 0 && s.in && least != nil && (x.nonNegative || s.of != Int && s.of != Duration) {
		spans[0].low, spans[0].includesLow = least, true
	}
	return spans
}

func spanText(subject string, s span, of Kind, x *node) string {
	if s.point() {
		return subject + " >= " + boundText(s.low, of) + " && " + subject + " <= " + boundText(s.low, of)
	}
	var bounds []string
	if s.low != nil && (s.low != leastOf(x, of) || !s.includesLow || s.high == nil) {
		op := " > "
		if s.includesLow {
			op = " >= "
		}
		bounds = append(bounds, subject+op+boundText(s.low, of))
	}
	if s.high != nil {
		op := " < "
		if s.includesHigh {
			op = " <= "
		}
		if d, ok := s.high.(time.Duration); ok && s.includesHigh && (d+1)%time.Millisecond == 0 {
			s.high, op = d+1, " < "
		}
		bounds = append(bounds, subject+op+boundText(s.high, of))
	}
	return strings.Join(bounds, " && ")
}

func boundText(v any, of Kind) string {
	if of == Bool {
		return strconv.FormatBool(v == 1)
	}
	return constantText(v)
}

func constantText(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case string:
		return strconv.Quote(v)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case time.Duration:
		return `duration("` + v.String() + `")`
	case []any:
		if slots, ok := asSlots(v); ok && len(slots) > 4 {
			return `slots("` + formatRanges(slots) + `")`
		}
		texts := make([]string, len(v))
		for i := range v {
			texts[i] = constantText(v[i])
		}
		return "[" + strings.Join(texts, ", ") + "]"
	case map[string]any:
		texts := make([]string, 0, len(v))
		for _, k := range sortedKeys(v) {
			texts = append(texts, strconv.Quote(k)+": "+constantText(v[k]))
		}
		return "{" + strings.Join(texts, ", ") + "}"
	}
	return fmt.Sprint(v)
}
