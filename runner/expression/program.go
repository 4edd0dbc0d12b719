package expression

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Program is a compiled expression. It is immutable: any number of goroutines may evaluate it.
type Program struct {
	Source string
	Type   *Type // of the result; Any if it is known only while running
	Refs   []Ref // what it reads of its scope, in source order

	src       *text
	root      code
	want      *Type
	slots     int // for elements of lists and variables
	parts     []code
	distances []distance

	scope *Scope
	mode  Mode
}

// A Ref is a name of the scope that a program reads, with the fields after it, as far as they are literal:
// steps.sample.items[0].lag has the path steps, sample, items.
type Ref struct {
	Path        []string
	Offset, End int   // in runes of the source, from the first element to the end of the last
	Offsets     []int // where each element of Path stands; of steps["a"] the quote before a
	// Guarded: a null is reckoned with. The element after the second is reached with ?. (steps.a?.lag), or
	// the whole is the left side of a ??.
	Guarded bool
}

// A Part is what decides a check, with its value. The value is an error if it cannot be evaluated.
type Part struct {
	Text  string
	Value any
}

// A Distance is how far apart the two sides of a numeric comparison are; durations are in seconds.
type Distance struct {
	Text        string // the side that is not a literal; the whole comparison if neither is one
	Left, Right float64
	Known       bool // both sides are numbers now
	Satisfied   bool // the comparison, or its negation if it stands under a not, holds
}

// A NullError is an operand that is null where a value is needed.
type NullError struct {
	Operand     string // in the author's words
	Offset, End int    // in runes of the source
}

func (e *NullError) Error() string { return e.Operand + " is null" }

// An EvalError is an operation that went wrong while running.
type EvalError struct {
	Offset, End int // in runes of the source: the operation
	Err         error
}

func (e *EvalError) Error() string { return e.Err.Error() }
func (e *EvalError) Unwrap() error { return e.Err }

// ErrLimit is wrapped by the error of an evaluation that asks for more steps or memory than there are.
var ErrLimit = errors.New("the expression is too expensive")

const (
	maxWork   = 50_000_000 // nodes evaluated for elements of lists: about a second
	maxMemory = 64 << 20   // bytes of lists and text made
	maxDepth  = 1000       // lists in lists
)

// A frame is the state of one evaluation.
type frame struct {
	env    map[string]any
	slots  []any
	work   int
	memory int
	depth  int
}

// A failure carries an error out of an evaluation. Closures that return errors would check one at every
// node, hundreds of times for each that occurs.
type failure struct{ err error }

func fail(err error) any { panic(failure{err}) }

// visit accounts for looking at n elements.
func (f *frame) visit(n int) {
	if f.work += n; f.work > maxWork {
		fail(fmt.Errorf("%w: more than %d steps", ErrLimit, maxWork))
	}
}

// reserve accounts for n bytes, before they are made.
func (f *frame) reserve(n int) {
	if n < 0 || n > maxMemory-f.memory {
		fail(fmt.Errorf("%w: more than %d MiB of lists and text", ErrLimit, maxMemory>>20))
	}
	f.memory += n
}

// list makes a list of n elements within the budget.
func (f *frame) list(n int) []any {
	if n > maxMemory/16 { // before the product overflows
		f.reserve(maxMemory + 1)
	}
	f.visit(n)
	f.reserve(n*16 + 48)
	return make([]any, n)
}

// enter and leave go around what looks into a list or a map for others: a stack that is too deep would end
// the process.
func (f *frame) enter() {
	if f.depth++; f.depth > maxDepth {
		fail(fmt.Errorf("%w: more than %d lists in each other", ErrLimit, maxDepth))
	}
}

func (f *frame) leave() { f.depth-- }

// weigh accounts for writing v out. A list that holds another twice, and so on, is small until then.
func (f *frame) weigh(v any) {
	switch v := v.(type) {
	case string:
		f.reserve(len(v))
	case []any:
		f.enter()
		f.visit(len(v))
		for i := range v {
			f.weigh(v[i])
		}
		f.leave()
	case map[string]any:
		f.enter()
		f.visit(len(v))
		for k := range v {
			f.reserve(len(k))
			f.weigh(v[k])
		}
		f.leave()
	}
}

// Eval runs the program over the values of its scope, which must have the form that Value gives. The result
// has that form too, and the type p.Type; it may share memory with env and must not be changed. Errors are
// *NullError and *EvalError.
func (p *Program) Eval(env map[string]any) (any, error) {
	v, err := p.run(p.root, env)
	if err != nil {
		return nil, err
	}
	if v == nil && !p.Type.nullable() { // a key that a map does not have
		return nil, p.src.null(p.root.node)
	}
	if p.want == nil {
		return v, nil
	}
	if is, ok := conforms(v, p.want); !ok {
		return nil, p.src.evalError(p.root.node, fmt.Errorf("%s must be %s, but is %s", p.src.brief(p.root.node), p.want.words(), is))
	}
	if i, ok := v.(int); ok && p.want.Kind == Float {
		return float64(i), nil
	}
	return v, nil
}

func (p *Program) run(t code, env map[string]any) (v any, err error) {
	f := frame{env: env}
	if p.slots > 0 {
		f.slots = make([]any, p.slots)
	}
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, p.src.asError(t.node, r)
		}
	}()
	v = t.run(&f)
	f.weigh(v)
	return v, nil
}

// Parts are what decides a check, with the values: the operands of its comparisons and what
// stands as a condition by itself, literals left out, each once, in source order. What stands inside a
// predicate has a value for each element and is not taken apart.
func (p *Program) Parts(env map[string]any) []Part {
	parts := make([]Part, 0, len(p.parts))
	for _, t := range p.parts {
		text := p.src.of(t.node)
		if slices.ContainsFunc(parts, func(p Part) bool { return p.Text == text }) {
			continue
		}
		v, err := p.run(t, env)
		if err != nil {
			v = err
		}
		parts = append(parts, Part{text, v})
	}
	return parts
}

// A distance is a numeric comparison that decides the result.
type distance struct {
	whole, left, right code
	text               string
	negated            bool
}

// Numeric says whether there are Distances at all: a wait that watches for progress needs one.
func (p *Program) Numeric() bool { return len(p.distances) > 0 }

// Distances are the comparisons of numbers, or of durations, that decide the result, in source order.
func (p *Program) Distances(env map[string]any) []Distance {
	result := make([]Distance, len(p.distances))
	for i, d := range p.distances {
		result[i].Text = d.text
		left, errLeft := p.run(d.left, env)
		right, errRight := p.run(d.right, env)
		if errLeft != nil || errRight != nil {
			continue
		}
		l, okLeft := seconds(left)
		r, okRight := seconds(right)
		if !okLeft || !okRight {
			continue
		}
		v, err := p.run(d.whole, env)
		holds, _ := v.(bool)
		result[i].Left, result[i].Right, result[i].Known = l, r, true
		result[i].Satisfied = err == nil && holds != d.negated
	}
	return result
}

// seconds is a number as it is, a duration in seconds.
func seconds(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	case time.Duration:
		return v.Seconds(), true
	}
	return 0, false
}

// Constant is the value of a program that refers to nothing; ok is false if it refers to something or fails.
func (p *Program) Constant() (value any, ok bool) {
	if len(p.Refs) > 0 {
		return nil, false
	}
	v, err := p.Eval(nil)
	return v, err == nil
}

// sortRefs puts refs in source order, each once: the middle of a < b < c is compiled twice.
func sortRefs(refs []*Ref) []Ref {
	slices.SortStableFunc(refs, func(a, b *Ref) int { return a.Offset - b.Offset })
	sorted := make([]Ref, 0, len(refs))
	for i, r := range refs {
		if i == 0 || r.Offset != refs[i-1].Offset {
			sorted = append(sorted, *r)
		}
	}
	return sorted
}
