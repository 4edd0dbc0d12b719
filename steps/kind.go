// Package steps is what a runbook may do: the contract between a step kind, the
// system it acts on, and whoever runs it.
//
// A kind is one value in one file: a [Kind] with its inputs and outputs as plain
// structs and its behaviour as function fields. A kind sees evaluated inputs and a
// [View] (which hands out clients that refuse to write) or, to act, a [Session];
// it does not know who runs it. The packages below this one hold the kinds, one
// package a system; catalog lists them all.
package steps

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Effect says what a step does to the world.
type Effect int

// The effects, in order of danger.
const (
	Read    Effect = iota // changes nothing; may be polled, repeated and run by a dry run
	Write                 // changes state, service unaffected
	Cutover               // moves live traffic
	Destroy               // data or an instance is gone afterwards
)

var effectNames = [...]string{"read", "write", "cutover", "destroy"}

// String gives the word used in runbooks.
func (e Effect) String() string { return effectNames[e] }

// ParseEffect reads the word used in runbooks.
func ParseEffect(s string) (Effect, bool) {
	for i, n := range effectNames {
		if n == s {
			return Effect(i), true
		}
	}
	return 0, false
}

// Kind is a step kind. In and Out are structs whose yaml tags are the keys and whose
// doc tags are the reference; a yaml tag with the option required makes an input
// required, a default tag names the value used when none is given. An output whose
// tag has the option act is known only to the act itself: it is null on a step
// whose effect was found by Probe. One with the option keys counts the keys of the target:
// a plan shows it as what is at stake.
//
// A kind of effect Read has Read alone. Others have Plan, Probe, Apply, and Undo or
// NoUndo; those of effect Destroy have Check as well. [Kind.Define] holds them to it.
type Kind[In, Out any] struct {
	Name    string // system.verb-noun; core kinds are one word
	Doc     string // one paragraph: what it does, what it sends
	Effect  Effect
	Example string // one step, as YAML; linted, planned and run by tests
	// Pitfalls it guards against, one sentence each, for the reference page.
	Pitfalls []string

	// On lists the kinds of target it acts on; none: it acts on no target.
	On []string
	// TargetOptional: it may stand without a target.
	TargetOptional bool
	// Idempotent: doing it twice equals doing it once, so an unknown outcome may be repeated.
	Idempotent bool
	// AuthorKnows: the kind cannot know its effect; the step's effect and idempotent keys say.
	AuthorKnows bool
	// EffectOf tells the effect from the inputs, for a kind that cannot say it once for all.
	// It must answer for zero inputs too (not known offline) with the most dangerous effect.
	EffectOf func(in In) Effect
	// Engine marks the few kinds that the engine itself carries out.
	Engine Engine

	// Valid checks inputs against each other; offline, in lint. Inputs only known
	// while running have their zero value and are named in unknown.
	Valid func(in In, unknown func(input string) bool) []Problem
	// Read is the body of a kind of effect Read. A kind with AuthorKnows may lack it: where
	// the author says read, Apply is the body, on a Session by the author's word.
	Read func(ctx context.Context, v View, in In) (Out, error)
	// Check tests preconditions: in a live plan, and again right before Apply.
	Check func(ctx context.Context, v View, in In) error
	// Plan tells what would be sent. v is nil offline: then nothing may be asked of
	// the target, and what is not known is left out. Online it captures in
	// Change.Before what an undo will need.
	Plan func(ctx context.Context, v *View, in In) (Change, error)
	// Probe tells whether the wanted state is there already.
	Probe func(ctx context.Context, v View, in In) (State, Out, error)
	// Apply does it.
	Apply func(ctx context.Context, s Session, in In) (Out, error)
	// Undo puts it back. View.Before has what Plan captured; out is nil where the act's
	// output was never learned.
	Undo func(ctx context.Context, s Session, in In, out *Out) error
	// Guard is what a guardian does for a kind that asks for one (Session.Watch) once the runner is
	// gone: it brings the world to a state that may last, by the same rules as Apply would, and
	// returns when it is there. plan is Watch.Plan, told are the words of Guardian.Tell.
	Guard func(ctx context.Context, s Session, plan json.RawMessage, told []string) error
	// UndoPlan tells, in a few words, what Undo would send; shown in the plan.
	UndoPlan func(in In) string
	// NoUndo says why there is no way back, for a kind without Undo.
	NoUndo string
	// NothingToUndo: there is nothing to put back by nature (notify, sleep, set).
	NothingToUndo bool
	// Retry is the kind's own; nil: the engine's (three attempts for what may be repeated, one for the rest).
	Retry *Retry
}

// Engine names a kind that the engine carries out itself.
type Engine string

// What the engine carries out.
const (
	EngineNone           Engine = ""
	EngineGate           Engine = "gate"            // approve
	EngineSleep          Engine = "sleep"           // sleep
	EngineStopBackground Engine = "stop-background" // stop-background
	EngineSet            Engine = "set"             // set: outputs are its values
)

// Retry says how failed attempts of a kind are repeated.
type Retry struct {
	Attempts int
}

// State is what a probe found.
type State int

// What a probe can find.
const (
	Unclear   State = iota // neither: the probe cannot tell
	Untouched              // nothing of the effect is there
	Partial                // some of it is there
	Done                   // the wanted state is there
)

var stateNames = [...]string{"unclear", "untouched", "partial", "done"}

// String gives the state's word.
func (s State) String() string { return stateNames[s] }

// Problem is something wrong with a step's inputs.
type Problem struct {
	Input      string // which; empty: the step as a whole
	Message    string
	Suggestion string
}

// Change is what a step would do, for a reviewer.
type Change struct {
	Lines []Line
	// Before is what an undo will need of the old state; journaled as JSON before the step acts.
	Before any
	// Pause is the longest time clients may wait, for a cut-over; in the plan's header.
	Pause string
}

// Line is one thing sent, or one thing changed.
type Line struct {
	Target  string `json:"target,omitempty" doc:"Name of the target; absent: the step's own."`
	Command string `json:"command,omitempty" doc:"What is sent, as it is sent."`
	From    string `json:"from,omitempty" doc:"State before, where it is known."`
	To      string `json:"to,omitempty" doc:"State after."`
	// Body is what To says of a text, such as a file's, line by line, for whoever reads a plan.
	// It is given offline alone, and holds nothing secret.
	Body string `json:"body,omitempty" doc:"Text that goes with the command, such as what a file will hold."`
	// Keys that are there before, as the server counts them. It moves by itself under live
	// traffic, so it is shown and never compared; nil: not counted.
	Keys *int64 `json:"keys,omitempty" doc:"Keys that are there before, where a target was asked."`
}

// String gives the line as the plan shows it.
func (l Line) String() string {
	s := l.Command
	if l.Target != "" {
		s = l.Target + ": " + s
	}
	from := or(l.From, "?")
	if l.Keys != nil {
		from += fmt.Sprintf(" with %d keys", *l.Keys)
	}
	if l.From != "" || l.To != "" {
		s += fmt.Sprintf(" (%s → %s)", from, or(l.To, "?"))
	}
	return s
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// Definition is a kind with its types erased: the form in which the engine holds it.
// Inputs are passed as a pointer to the In struct, outputs come back as the Out struct.
type Definition struct {
	Name, Doc, Example, NoUndo                                   string
	Pitfalls                                                     []string
	Effect                                                       Effect
	On                                                           []string
	TargetOptional, Idempotent, AuthorKnows                      bool
	NothingToUndo, HasRead, HasCheck, HasProbe, HasUndo, HasPlan bool
	Engine                                                       Engine
	Retry                                                        *Retry
	In, Out                                                      reflect.Type
	Outputs                                                      []Output // the named fields of Out

	EffectOf func(in any) Effect
	Valid    func(in any, unknown func(string) bool) []Problem
	Read     func(ctx context.Context, v View, in any) (any, error)
	Check    func(ctx context.Context, v View, in any) error
	Plan     func(ctx context.Context, v *View, in any) (Change, error)
	Probe    func(ctx context.Context, v View, in any) (State, any, error)
	Apply    func(ctx context.Context, s Session, in any) (any, error)
	Undo     func(ctx context.Context, s Session, in, out any) error // out: *Out or nil
	UndoPlan func(in any) string
	Guard    func(ctx context.Context, s Session, plan json.RawMessage, told []string) error // nil: the kind asks for no guardian
}

// Output is a field of a kind's output.
type Output struct {
	Name string
	Act  bool // known only to the act itself
	Keys bool // how many keys the target has
}

func outputsOf(out reflect.Type) []Output {
	var all []Output
	for i := range out.NumField() {
		name, options, _ := strings.Cut(out.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			has := strings.Split(options, ",")
			all = append(all, Output{Name: name, Act: slices.Contains(has, "act"), Keys: slices.Contains(has, "keys")})
		}
	}
	return all
}

// Define erases the kind's types. It panics where the kind breaks the contract of its
// effect, which a test over the catalog turns into a failure at build time.
func (k *Kind[In, Out]) Define() *Definition {
	d := &Definition{
		Name: k.Name, Doc: k.Doc, Example: k.Example, Pitfalls: k.Pitfalls, NoUndo: k.NoUndo, Effect: k.Effect,
		On: k.On, TargetOptional: k.TargetOptional, Idempotent: k.Idempotent, AuthorKnows: k.AuthorKnows,
		NothingToUndo: k.NothingToUndo, Engine: k.Engine, Retry: k.Retry,
		HasRead: k.Read != nil, HasCheck: k.Check != nil, HasProbe: k.Probe != nil, HasUndo: k.Undo != nil, HasPlan: k.Plan != nil,
		Guard: k.Guard,
		In:    reflect.TypeFor[In](), Out: reflect.TypeFor[Out](), Outputs: outputsOf(reflect.TypeFor[Out]()),
	}
	if err := k.contract(); err != nil {
		panic(fmt.Sprintf("steps: kind %s: %v", k.Name, err))
	}
	d.EffectOf = func(in any) Effect {
		if k.EffectOf == nil {
			return k.Effect
		}
		return k.EffectOf(*in.(*In))
	}
	d.Valid = func(in any, unknown func(string) bool) []Problem {
		if k.Valid == nil {
			return nil
		}
		return k.Valid(*in.(*In), unknown)
	}
	d.Read = func(ctx context.Context, v View, in any) (any, error) {
		out, err := k.Read(ctx, v, *in.(*In))
		return out, err
	}
	d.Check = func(ctx context.Context, v View, in any) error {
		if k.Check == nil {
			return nil
		}
		return k.Check(ctx, v, *in.(*In))
	}
	d.Plan = func(ctx context.Context, v *View, in any) (Change, error) {
		if k.Plan == nil {
			return Change{}, nil
		}
		return k.Plan(ctx, v, *in.(*In))
	}
	d.Probe = func(ctx context.Context, v View, in any) (State, any, error) {
		if k.Probe == nil {
			return Unclear, nil, nil
		}
		state, out, err := k.Probe(ctx, v, *in.(*In))
		return state, out, err
	}
	d.Apply = func(ctx context.Context, s Session, in any) (any, error) {
		out, err := k.Apply(ctx, s, *in.(*In))
		return out, err
	}
	d.Undo = func(ctx context.Context, s Session, in, out any) error {
		o, _ := out.(*Out)
		return k.Undo(ctx, s, *in.(*In), o)
	}
	d.UndoPlan = func(in any) string {
		if k.UndoPlan == nil {
			return ""
		}
		return k.UndoPlan(*in.(*In))
	}
	return d
}

// contract is what each effect needs.
func (k *Kind[In, Out]) contract() error {
	switch {
	case k.Engine != EngineNone:
		return nil
	case k.Effect == Read && !k.AuthorKnows && k.EffectOf == nil:
		if k.Read == nil {
			return fmt.Errorf("effect read needs Read")
		}
		if k.Apply != nil || k.Undo != nil || k.Plan != nil || k.Probe != nil || k.Check != nil {
			return fmt.Errorf("effect read has Read alone")
		}
		return nil
	case k.Apply == nil || k.Plan == nil:
		return fmt.Errorf("effect %s needs Plan and Apply", k.Effect)
	case k.Probe == nil && !k.AuthorKnows:
		return fmt.Errorf("effect %s needs Probe", k.Effect)
	case k.Undo == nil && k.NoUndo == "" && !k.NothingToUndo:
		return fmt.Errorf("needs Undo, or the reason why there is none")
	case k.Effect == Destroy && k.Check == nil:
		return fmt.Errorf("effect destroy needs Check")
	}
	return nil
}
