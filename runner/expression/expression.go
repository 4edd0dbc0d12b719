// Package expression compiles and evaluates the expressions of a runbook.
//
// The grammar is that of github.com/expr-lang/expr: its lexer and parser read the text. The meaning is given
// here, because a runbook asks more of it than expr's checker and machine promise:
//
//   - Every name, field and operand has a type before anything runs, null included, and nothing is coerced.
//     expr takes a condition whose branches differ, or an element of a list, for "unknown" and lets it pass.
//   - A null is never an answer. In a check it is an error that names the operand; while waiting it counts as
//     not yet true, also under a negation.
//   - Evaluation is pure and bounded in steps and memory: no clock, no randomness, no environment, no order
//     of a map. expr's machine cannot be stopped, and its budget does not count text.
//   - A failed check shows its parts with their values, and a stalled wait how far its numbers are apart.
//   - What an expression means has a normal form, the Term, whatever way it is written, and what became of a
//     condition is proven: Compare says whether the new one is weaker.
//
// Where expr gives an expression a meaning at all, it is the meaning here; a test compares the two. Stricter
// on purpose: division by zero, an overflow, and the mean or largest of an empty list are errors.
//
// A source is compiled once, into closures, and evaluated any number of times, from any goroutine.
package expression

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Mode says what a null means in a comparison.
type Mode int

const (
	// Plain: an operand that is null is a NullError; == and != compare with null like with anything else.
	Plain Mode = iota
	// Wait: a comparison with null is not known to be true, so the whole comes out less true for it:
	// lag < 5, lag == 0, lag != 0 and each of their negations are false while lag is null. Only a comparison
	// with the word nil asks for null itself. Where neither answer is the cautious one (in the condition of
	// a ?:, in an argument), it is a NullError. Arithmetic with null is one in both modes.
	Wait
)

// A Scope has the names that an expression may use.
type Scope struct {
	Vars map[string]*Type
}

// Rules of an Error.
const (
	RuleSyntax          = "syntax"
	RuleInterpolation   = "interpolation-in-expression"
	RuleUnknownName     = "unknown-name"
	RuleUnknownField    = "unknown-field"
	RuleUnknownFunction = "unknown-function"
	RuleType            = "type"
	RuleLimit           = "limit"
)

// An Error is what is wrong with a source, and where: at the name, the operator or the operand in question.
type Error struct {
	Offset, End int // in runes of the source, Offset <= End <= its length
	Rule        string
	Message     string
	Suggestion  string // what to write from Offset to End instead; empty if nobody knows
}

func (e *Error) Error() string { return e.Message }

// maxSource bounds the work of compiling, and with it the depth of the parser's recursion.
const maxSource = 8192

// Compile checks source against the names in scope and the type that is wanted of it (nil: any) and makes it
// ready to run. In the mode Wait a result that may be null is accepted as a bool: null is not true yet.
func Compile(source string, scope *Scope, want *Type, mode Mode) (program *Program, failed *Error) {
	if n := utf8.RuneCountInString(source); n > maxSource {
		return nil, &Error{Offset: maxSource, End: n, Rule: RuleLimit,
			Message: fmt.Sprintf("an expression has at most %d characters; this one has %d", maxSource, n)}
	}
	if i := strings.Index(source, "${{"); i >= 0 {
		at := utf8.RuneCountInString(source[:i])
		return nil, &Error{Offset: at, End: at + 3, Rule: RuleInterpolation,
			Message: "this field is an expression already: write the names without ${{ }}"}
	}
	if scope == nil {
		scope = &Scope{}
	}
	src := newText(source)
	root, failed := src.parse()
	if failed != nil {
		return nil, failed
	}
	defer func() {
		if r := recover(); r != nil {
			program, failed = nil, asError(r, src)
		}
	}()
	c := &compiler{src: src, scope: scope, mode: mode, predicates: predicates}
	return c.program(root, want), nil
}

// asError is the Error that the compiler gave up with. Anything else is a construct that nobody thought of:
// it is refused like one that is known to be wrong, since lint must report the rest of the file too.
func asError(r any, src *text) *Error {
	if e, ok := r.(*Error); ok {
		return e
	}
	return &Error{End: len(src.runes), Rule: RuleSyntax, Message: fmt.Sprintf("cannot be compiled: %v", r)}
}
