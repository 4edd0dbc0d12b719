package runner

import (
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// Program is a runbook with everything bound: kinds and targets found, expressions
// compiled and typed, sub-runbooks read, order fixed. It is immutable; plan, dry run,
// run, resume and undo all walk the same tree.
type Program struct {
	Root    *Unit
	Sources []Source // every file it came from, the runbook first, then by path
	Catalog *Catalog

	policies []*policies // of policy files
}

// Source is one file a program came from.
type Source struct {
	Path   string `json:"path"`   // as written on the command line, or relative to it
	Role   string `json:"role"`   // runbook, sub-runbook, inventory, inputs
	SHA256 string `json:"sha256"` // hex
	Text   string `json:"text"`
}

// Unit is one runbook file, compiled once however often it is used as a step.
type Unit struct {
	Book    *schema.Runbook
	Inputs  []*Input
	Secrets []*Secret
	Vars    []*Var
	Targets []*Target
	Lock    *Template // name of the lock; nil: none
	Guards  []*Guard  // stop conditions of the run
	Steps   []*Node
	Finally []*Node
	Outputs []Output
	OutType *expression.Type // object of the outputs, as a caller sees them

	policies  *policies        // asked of the plan; nil: none
	OnFailure string           // stop or rollback
	nodes     map[string]*Node // every step of the file by id, also those in rescue, undo, after-batch, finally
}

// Input is a declared input.
type Input struct {
	Name     string
	Decl     *schema.Input
	Type     *expression.Type
	Kind     string // string, int, …, target, secret, as declared
	Default  any    // normalised; nil and !Required: null is the default
	Required bool
	Check    *expression.Program // over value; may be nil
}

// Secret says where a secret comes from.
type Secret struct {
	Name string
	Decl *schema.SecretSource
}

// Var is a value named once.
type Var struct {
	Name  string
	Value *Template
	Type  *expression.Type
}

// Target is a declared target.
type Target struct {
	Name   string
	Decl   *schema.Target
	Kind   *steps.TargetDefinition
	Config *Template // a map; may read inputs, vars, secrets
	Facts  *Template // a map; may read inputs, vars
	Type   *expression.Type
}

// Output is a named expression.
type Output struct {
	Name string
	Expr *expression.Program
	At   *schema.Expr
}

// Template is a value with expressions in it, compiled: exactly one of its fields
// other than Type, Constant and At is meant, as the first that is set says.
// A zero Template with Constant is the constant null.
type Template struct {
	Type     *expression.Type
	Constant bool // Literal holds the whole value, nothing is to be evaluated
	Literal  any  // normalised as by expression.Value

	Expr  *expression.Program // one ${{ … }}: the value keeps its type
	Parts []TextPart          // text with expressions in it
	List  []*Template
	Map   []TemplateEntry
	Cond  *Condition // an expression that a kind gets evaluated, with its parts
	// Name: the place wants the name of a target, so a value of type target is given as its name.
	Name bool

	At schema.Span
}

// TextPart is literal text or an expression.
type TextPart struct {
	Literal string
	Expr    *expression.Program
}

// TemplateEntry is one key of a map.
type TemplateEntry struct {
	Key   string
	Value *Template
}

// Condition is an expression that must be true, and where it stands.
type Condition struct {
	Expr    *expression.Program
	Message *Template // the author's words; may be nil
	At      *schema.Expr
}

// Shape says what a node is.
type Shape int

// The shapes of a node.
const (
	Leaf  Shape = iota // uses a kind
	Group              // steps
	Call               // uses a runbook
)

// Node is one step as written; where it repeats, one node stands for all its items.
type Node struct {
	ID     string
	Step   *schema.Step
	Unit   *Unit
	Parent *Node // enclosing group, loop or step; nil at the top of a file
	Role   Role  // which list of its parent (or of the file) it stands in
	Shape  Shape

	Kind       *steps.Definition // Leaf
	Sub        *Unit             // Call
	Children   []*Node           // Group
	Parallel   bool
	Rescue     []*Node
	AfterBatch []*Node
	UndoSteps  []*Node
	UndoMode   string // auto, none, steps

	Effect     steps.Effect // of a group or call: the worst inside
	Idempotent bool

	With    *Template // a map; constant where nothing is interpolated
	BoundIn any       // *In, when With is constant: bound once
	Target  *Binding  // nil: none
	Targets []*Target // fan-out; ordered by name
	FanOut  bool

	When    *Condition
	Require []*Condition
	Expect  []*Condition
	Wait    *Wait
	Confirm *Gate
	Repeat  *Repeat
	Loop    *Loop
	Retry   Retry
	Probe   *Probe
	Guards  []*Guard // stop conditions of a group
	MaxAge  *MaxAge  // deadline of a group; nil: none
	Window  *Window  // when it may start; nil: any time

	Timeout        Setting[time.Duration] // 0 and !Set: none
	AttemptTimeout Setting[time.Duration]

	Restore         bool
	PointOfNoReturn bool
	Recheck         bool
	Background      bool
	Ready           *Condition
	OnFailure       string // "" (inherited), stop, continue, rollback, rollback-item, rollback-run
	Tags            []string

	Outputs []Output

	OutType  *expression.Type // object of what later steps read: outputs, status, attempts, duration, error, items, by
	ItemType *expression.Type // of a loop or fan-out: one element of items
	// NeedItems: somebody reads items or by, so that the results of all items are kept.
	NeedItems bool
	// MayNotRun: later steps cannot rely on its outputs.
	MayNotRun bool
	// Name and Why are for people.
	Name, Why *Template

	index, depth int  // place in its list; how many nodes are around it
	broken       bool // what it uses is not known, so nothing is said about its outputs
	withBroken   bool // something is wrong with its inputs
	partIn       any  // *In with what is known of the inputs before running
}

// Role says which list a node stands in.
type Role int

// The lists a node can stand in.
const (
	InSteps Role = iota
	InRescue
	InAfterBatch
	InUndo
	InFinally
)

// Binding is what a step acts on: a named target, one known only while running, or an inline map.
type Binding struct {
	Target *Target                 // a name
	Expr   *expression.Program     // ${{ … }} of type target
	Kind   *steps.TargetDefinition // inline: the literal kind; also the kind of Expr where it is known
	Config *Template               // inline: the rest of the map
	Each   *Node                   // the target that this fan-out group is at, inherited by what stands in it
}

// Wait polls a read until Until holds.
type Wait struct {
	Until                *Condition
	Every, Stable, Stall Setting[time.Duration]
	All                  bool // one window over all items of a fan-out
}

// Gate asks a person.
type Gate struct {
	Message   *Template
	Show      []Output // Name is the expression's text
	Retype    *Template
	Timeout   time.Duration
	Approvals int
	Each      string // run, batch, item
	Attached  bool   // written out: the process stays, terminal or not
	Detached  bool   // the process leaves, terminal or not
	Builtin   bool   // asked by itself, for a destructive kind
}

// Repeat runs a group again.
type Repeat struct {
	Until *Condition
	Max   Setting[int]
	Every Setting[time.Duration]
}

// Loop runs a node for each item. A fan-out has one where it says how many targets at a
// time; then the items are the node's Targets, and Over is nil.
type Loop struct {
	Over         *Template // list, map, or slot set
	As           string
	ElemType     *expression.Type
	Key          *Template // nil: the item itself
	MaxParallel  Setting[int]
	MaxFailures  Setting[int]
	PauseBetween Setting[time.Duration]
	Batch        *Template // list of ints and percentages; nil: one wave
	OnChange     string    // "", stop, add
	// Known: the list can be told from inputs and vars alone.
	Known bool
}

// Retry says how failed attempts are repeated.
type Retry struct {
	Written  bool // by the author; otherwise the kind's or the engine's own
	Attempts Setting[int]
	Delay    Setting[time.Duration]
	MaxDelay Setting[time.Duration]
	Factor   float64
	Jitter   float64
	If       *Condition
}

// Probe is the author's read that tells whether the effect is there.
type Probe struct {
	Kind   *steps.Definition
	Target *Binding // nil: the step's own
	With   *Template
	Done   *Condition
}

// Setting is a fixed value, or one that an expression yields while running.
type Setting[T any] struct {
	Value T
	Expr  *expression.Program
	Set   bool
}

// Catalog is what a runbook may use: the step kinds and target kinds by name.
type Catalog struct {
	Kinds   map[string]*steps.Definition
	Targets map[string]*steps.TargetDefinition
}
