package schema

import "reflect"

// Position is a place in a file: 1-based line and column, columns in code points.
type Position struct{ Line, Column int }

// Span is a stretch of a file; End is exclusive.
type Span struct{ Start, End Position }

// Scalar is one YAML scalar: its decoded text, and where each character of it stands.
type Scalar struct {
	Text   string // decoded
	Tag    Tag    // what an untagged scalar means in YAML 1.2; a quoted or block scalar is a String
	Quoted bool   // quoted or block style
	Span   Span
	origin origin // what Position needs
}

// Tag is the type of a scalar under the YAML 1.2 core schema.
type Tag int

// The types a scalar can have.
const (
	String Tag = iota
	Int
	Float
	Bool
	Null
)

// Leaf is a fixed value: never interpolated. The zero Leaf was not written.
type Leaf[T any] struct {
	Value T
	Set   bool
	Span  Span
}

// Or gives the value, or fallback where none was written.
func (l Leaf[T]) Or(fallback T) T {
	if l.Set {
		return l.Value
	}
	return fallback
}

// Dyn is a setting: a fixed value, or one ${{ … }} that yields it while running.
type Dyn[T any] struct {
	Value T
	Expr  *Expr // not nil: the value is only known while running
	Set   bool
	Span  Span
}

// Expr is one bare expression and where each of its characters stands. One with an
// empty Source has been reported, or was not written: there is nothing to compile.
type Expr struct {
	Source  string
	Span    Span
	Comment *Comment // what YAML took for a comment behind it; nil: nothing
	scalar  *Scalar
	offset  int // of Source in scalar.Text, in runes
}

// Position of the rune at offset (0-based, in runes of Source; len(Source) is allowed).
func (e *Expr) Position(offset int) Position {
	if e.scalar == nil {
		return Position{Line: 1, Column: 1}
	}
	return e.scalar.Position(e.offset + offset)
}

// Exprs is one expression or a list of them.
type Exprs []Expr

// Text is literal text with ${{ … }} in it.
type Text struct {
	Parts []Part // empty: an empty text
	Set   bool
	Span  Span
}

// Part is a stretch of literal text or one expression.
type Part struct {
	Literal string
	Expr    *Expr // nil: Literal
}

// Whole is the expression when the text is one ${{ … }} and nothing else: its value keeps its type.
func (t Text) Whole() *Expr {
	if len(t.Parts) == 1 {
		return t.Parts[0].Expr
	}
	return nil
}

// Literal gives the text when nothing in it is interpolated.
func (t Text) Literal() (string, bool) {
	switch {
	case len(t.Parts) == 0:
		return "", true
	case len(t.Parts) == 1 && t.Parts[0].Expr == nil:
		return t.Parts[0].Literal, true
	}
	return "", false
}

// Value is any YAML value, with positions: exactly one of Scalar, List and Map is meant, as Kind says.
type Value struct {
	Kind   ValueKind
	Scalar *Scalar
	List   []Value
	Map    Map[Value]
	Span   Span
}

// ValueKind tells what a Value is.
type ValueKind int

// The kinds of a Value.
const (
	ScalarValue ValueKind = iota
	ListValue
	MapValue
)

// Map keeps the order of the file and the place of each key.
type Map[T any] []Entry[T]

// Entry is one key and its value.
type Entry[T any] struct {
	Key   Leaf[string]
	Value T
}

// Get finds a key.
func (m Map[T]) Get(key string) (T, bool) {
	for i := range m {
		if m[i].Key.Value == key {
			return m[i].Value, true
		}
	}
	var zero T
	return zero, false
}

// Types that inputs of kinds and runbooks may have beside Go's own.
type (
	// Slots is a set of slots in ascending order; written as an int, a list of ints, or a text such as "0-3,8".
	Slots []int
	// Size is a number of bytes; written as an int or a text such as "64mb" (1024-based, as in Redis' configuration).
	Size int64
	// Addr is host:port; an IPv6 host stands in brackets.
	Addr string
	// TargetName names a target of the runbook.
	TargetName string
	// Endpoint is a target's name or IP:port.
	Endpoint string
	// Condition is an expression handed to a kind evaluated, with the values of its parts.
	Condition struct {
		Text    string // as written
		Message string // the author's words, if any
		Holds   bool
		Unknown string          // why it could not be told, if it could not
		Parts   []ConditionPart // operands and their values
	}
	// ConditionPart is one operand of a condition.
	ConditionPart struct {
		Text  string
		Value any
	}
)

// Finding is one thing wrong with a file.
type Finding struct {
	Path       string   `json:"path"`
	Line       int      `json:"line"`
	Column     int      `json:"column"`
	EndLine    int      `json:"end_line"`
	EndColumn  int      `json:"end_column"`
	Severity   Severity `json:"severity"`
	Rule       string   `json:"rule"`
	Message    string   `json:"message"`
	Suggestion string   `json:"suggestion,omitempty"`

	// Cause names the mistake where it is found at several places, in another for each file
	// that one begins with; empty: the place tells.
	Cause string `json:"-"`
}

// Severity of a finding.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Note    Severity = "note" // of a comparison, never of lint
)

// Kind is what the schema needs to know of a step kind to describe and check its inputs.
type Kind struct {
	Name, Doc, Effect string
	Target            string       // kind of target it acts on; empty: none
	In, Out           reflect.Type // struct types; yaml tags are the keys, doc tags the reference
	Example           string       // one step in YAML
	AuthorKnows       bool         // its effect is what the author says
	Hover             string       // reference in Markdown, for editors; empty: Doc
}
