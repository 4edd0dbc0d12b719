package expression

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"
)

// maxNodes bounds the syntax tree, below what maxSource would allow.
const maxNodes = 4000

// A text is a source with its tokens: what positions and quotations are taken from, since a node of expr's
// tree knows only one token of its own.
type text struct {
	runes  []rune
	tokens []lexer.Token // ends with EOF if the source has tokens throughout
}

func newText(source string) *text {
	t := &text{runes: []rune(source)}
	l := lexer.New()
	l.Reset(file.NewSource(source))
	for {
		token, err := l.Next()
		if err != nil {
			return t
		}
		t.tokens = append(t.tokens, token)
	}
}

// parse is expr's parser with messages for people.
func (t *text) parse() (root ast.Node, failed *Error) {
	if strings.TrimSpace(string(t.runes)) == "" {
		return nil, &Error{End: len(t.runes), Rule: RuleSyntax, Message: "the expression is empty"}
	}
	defer func() {
		if recover() != nil { // expr's parser trips over some errors of its own
			root, failed = nil, &Error{End: len(t.runes), Rule: RuleSyntax, Message: "this is not an expression"}
		}
	}()
	tree, err := parser.ParseWithConfig(string(t.runes), &conf.Config{MaxNodes: maxNodes})
	if err == nil {
		if _, ok := size(tree.Node); !ok {
			return nil, t.tooLarge()
		}
		return tree.Node, nil
	}
	var at *file.Error
	if !errors.As(err, &at) {
		return nil, &Error{End: len(t.runes), Rule: RuleSyntax, Message: err.Error()}
	}
	return nil, t.syntaxError(at)
}

func (t *text) tooLarge() *Error {
	return &Error{End: len(t.runes), Rule: RuleLimit, Message: fmt.Sprintf("an expression has at most %d names, values and operators", maxNodes)}
}

// size counts the nodes below and including n, up to maxNodes. The tree of expr is none: the middle of
// a < b < c hangs below both comparisons, and again below those around it, so that a short source can have
// more branches than there are atoms.
func size(n ast.Node) (nodes int, ok bool) {
	defer func() { _ = recover() }()
	ast.Walk(&n, visitor(func() {
		if nodes++; nodes > maxNodes {
			panic("too large")
		}
	}))
	return nodes, true
}

type visitor func()

func (v visitor) Visit(*ast.Node) { v() }

// misspelt are the operators of other languages, and how they are written here.
var misspelt = map[string]string{
	"=": "==", "===": "==", "!==": "!=", "<>": "!=", "&": "&&", "|": "||",
	"AND": "and", "OR": "or", "NOT": "not", "IN": "in",
}

func (t *text) syntaxError(err *file.Error) *Error {
	e := &Error{Offset: err.From, End: err.To, Rule: RuleSyntax, Message: t.humanise(err.Message)}
	e.Offset = min(max(e.Offset, 0), len(t.runes))
	e.End = min(max(e.End, e.Offset), len(t.runes))
	switch {
	case strings.Contains(err.Message, "maximum allowed nodes"):
		return t.tooLarge()
	case strings.HasPrefix(err.Message, "bad number syntax"):
		t.unitError(e)
		return e
	}
	if err.Message == "literal not terminated" { // expr stands at the end; the quote that opens it says more
		e.Offset = t.afterTokens()
		e.End = max(e.Offset, e.End)
		return e
	}
	i := t.tokenAt(err.From)
	if i < 0 {
		return e
	}
	first, last := i, i
	switch { // a | b, where a pipe wants a call: the parser stands one or two tokens further
	case i >= 1 && t.is(i-1, "|"):
		first, last = i-1, i-1
	case i >= 2 && t.is(i-2, "|") && t.tokens[i-1].Kind == lexer.Identifier:
		first, last = i-2, i-2
	}
	if first > 0 && t.adjacent(first-1) && misspelt[t.between(first-1, last)] != "" {
		first--
	}
	written := t.between(first, last)
	if right := misspelt[written]; right != "" {
		e.Offset, e.End, e.Suggestion = t.tokens[first].From, t.tokens[last].To, right
		e.Message = fmt.Sprintf("there is no operator `%s`", written)
		if written == "=" {
			e.Message = "`=` does not compare"
		}
	}
	return e
}

// unitError is about 5s or 64MB, which are written as text.
func (t *text) unitError(e *Error) {
	start, end := e.Offset, e.Offset
	for start > 0 && isWord(t.runes[start-1]) {
		start--
	}
	for end < len(t.runes) && isWord(t.runes[end]) {
		end++
	}
	e.Offset, e.End = start, end
	word := string(t.runes[start:end])
	e.Message = fmt.Sprintf("`%s` is not a number", word)
	if _, err := parseDuration(word); err == nil {
		e.Suggestion = fmt.Sprintf("duration(%q)", word)
	} else if _, err := parseSize(word); err == nil {
		e.Suggestion = fmt.Sprintf("size(%q)", word)
	}
}

func isWord(r rune) bool { return r == '.' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// humanise says what expr's parser says, in one line and without its token kinds.
func (t *text) humanise(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	if _, token, ok := strings.Cut(message, "unexpected token "); ok && !strings.HasPrefix(message, "a map key") {
		kind, value, quoted := strings.Cut(strings.TrimSuffix(token, ")"), "(")
		if kind == string(lexer.EOF) {
			return "the expression ends too early"
		}
		if !quoted {
			return "something is missing here"
		}
		return fmt.Sprintf("unexpected %s", backquote(strings.Trim(value, "\"`")))
	}
	switch {
	case strings.HasPrefix(message, "unexpected end of expression"):
		return "the expression ends too early"
	case message == "literal not terminated":
		return "the text has no closing quote"
	case strings.Contains(message, "cannot be mixed"):
		return "put parentheses around the part with `??`"
	case strings.HasPrefix(message, "a map key"):
		return "a key of a map is a name, a text, a number, or an expression in parentheses"
	case message == "expected name":
		return "a field's name is missing after the dot"
	case message == "wrap predicate with brackets { and }":
		return "put { and } around a predicate with a variable"
	}
	return message
}

func backquote(s string) string { return "`" + s + "`" }

// afterTokens is where the lexer stopped.
func (t *text) afterTokens() int {
	at := 0
	if n := len(t.tokens); n > 0 {
		at = t.tokens[n-1].To
	}
	for at < len(t.runes) && unicode.IsSpace(t.runes[at]) {
		at++
	}
	return at
}

// tokenAt is the index of the token that starts at a rune, -1 if none does.
func (t *text) tokenAt(offset int) int {
	i, found := slices.BinarySearchFunc(t.tokens, offset, func(token lexer.Token, offset int) int { return token.From - offset })
	if !found {
		return -1
	}
	return i
}

func (t *text) is(i int, value string) bool {
	return i >= 0 && i < len(t.tokens) && t.tokens[i].Kind != lexer.String && t.tokens[i].Value == value
}

// adjacent says whether token i touches the next one.
func (t *text) adjacent(i int) bool { return t.tokens[i].To == t.tokens[i+1].From }

func (t *text) between(first, last int) string {
	return string(t.runes[t.tokens[first].From:t.tokens[last].To])
}

// span is where a node stands in the source, its parentheses left aside unless they are inside.
func (t *text) span(n ast.Node) (from, to int) {
	first, last := len(t.tokens), -1
	t.reach(n, &first, &last)
	if last < 0 {
		return 0, len(t.runes)
	}
	open, missing := 0, 0 // brackets that close after last, and that open before first
	for i := first; i <= last; i++ {
		switch {
		case t.opens(i):
			open++
		case t.closes(i) && open > 0:
			open--
		case t.closes(i):
			missing++
		}
	}
	for depth := 0; missing > 0 && first > 0; {
		first--
		switch {
		case t.closes(first):
			depth++
		case t.opens(first) && depth > 0:
			depth--
		case t.opens(first):
			missing--
		}
	}
	for ; open > 0 && last+1 < len(t.tokens); last++ {
		switch {
		case t.opens(last + 1):
			open++
		case t.closes(last + 1):
			open--
		}
	}
	return t.tokens[first].From, t.tokens[last].To
}

func (t *text) opens(i int) bool {
	return t.tokens[i].Kind == lexer.Bracket && strings.Contains("([{", t.tokens[i].Value)
}

func (t *text) closes(i int) bool {
	return t.tokens[i].Kind == lexer.Bracket && strings.Contains(")]}", t.tokens[i].Value)
}

// reach widens first and last to the tokens that a node and what is below it know of.
func (t *text) reach(n ast.Node, first, last *int) {
	take := func(i, more int) {
		if i >= 0 && i+more < len(t.tokens) && i+min(more, 0) >= 0 {
			*first, *last = min(*first, i+min(more, 0)), max(*last, i+max(more, 0))
		}
	}
	own := t.tokenAt(n.Location().From)
	switch n := n.(type) {
	case *ast.ConditionalNode: // its location is that of what follows, or none
		t.reach(n.Cond, first, last)
		t.reach(n.Exp1, first, last)
		t.reach(n.Exp2, first, last)
		for i := *first; !n.Ternary && i >= 0; i-- {
			if t.is(i, "if") {
				take(i, 0)
				break
			}
		}
		return
	case *ast.VariableDeclaratorNode:
		take(own, -1) // let
		t.reach(n.Value, first, last)
		t.reach(n.Expr, first, last)
	case *ast.PointerNode:
		if n.Name != "" {
			take(own, 1)
		}
	case *ast.CallNode:
		t.reach(n.Callee, first, last)
		take(own, 1)
		for _, a := range n.Arguments {
			t.reach(a, first, last)
		}
	case *ast.BuiltinNode:
		take(own, 1)
		for _, a := range n.Arguments {
			t.reach(a, first, last)
		}
	case *ast.UnaryNode:
		t.reach(n.Node, first, last)
	case *ast.BinaryNode:
		t.reach(n.Left, first, last)
		t.reach(n.Right, first, last)
	case *ast.ChainNode:
		t.reach(n.Node, first, last)
	case *ast.MemberNode:
		t.reach(n.Node, first, last)
		t.reach(n.Property, first, last)
	case *ast.SliceNode:
		t.reach(n.Node, first, last)
	case *ast.PredicateNode:
		t.reach(n.Node, first, last)
	case *ast.SequenceNode:
		for _, inner := range n.Nodes {
			t.reach(inner, first, last)
		}
	}
	take(own, 0)
}

// of is the source of a node.
func (t *text) of(n ast.Node) string {
	from, to := t.span(n)
	return string(t.runes[from:to])
}

// brief is the source of a node in a message: one line, and not too long.
func (t *text) brief(n ast.Node) string {
	const most = 60
	words := []rune(strings.Join(strings.Fields(t.of(n)), " "))
	if len(words) > most {
		words = append(words[:most-1:most-1], '…')
	}
	return string(words)
}

func (t *text) null(n ast.Node) *NullError {
	from, to := t.span(n)
	return &NullError{Operand: t.brief(n), Offset: from, End: to}
}

func (t *text) evalError(n ast.Node, err error) *EvalError {
	from, to := t.span(n)
	return &EvalError{Offset: from, End: to, Err: err}
}

// asError is what an evaluation of n stopped with.
func (t *text) asError(n ast.Node, r any) error {
	f, ok := r.(failure)
	if !ok {
		return t.evalError(n, fmt.Errorf("%s cannot be evaluated: %v", t.brief(n), r))
	}
	switch err := f.err.(type) {
	case *NullError, *EvalError:
		return err
	default:
		return t.evalError(n, err)
	}
}
