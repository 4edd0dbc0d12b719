// Package conformance holds a step kind to the contract of package steps.
//
// Start at [Run]: a test gives it a kind and a [Fixture] that makes worlds, systems in
// the state in which the step begins, and it checks what the engine relies on: looking
// changes nothing, a probe tells what is there, doing it twice is doing it once, undo
// puts back, and a request that is lost at any point can be settled afterwards. Each
// property is one function below, named after it. [Env] is what a kind runs in here.
package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/schema"
	"runbook/steps"
)

// Fixture makes worlds for one kind.
type Fixture struct {
	// New makes a fresh world, the same each time, and takes it down at the end of t.
	New func(t *testing.T) World
	// Blind says why the kind's probe cannot tell whether the effect is there; empty: it must tell.
	Blind string
	// UndoKeeps says why undo does not bring the snapshot back; empty: it must.
	UndoKeeps string
	// Settles says how the kind itself finds out what became of a request without an answer, so that its error says
	// what is so; empty: such an error must say that the outcome is unknown.
	Settles string
}

// World is a system in the state in which a step begins.
type World struct {
	// Targets by name. The step's own has the name in Target; empty: it has none.
	Targets map[string]Target
	Target  string
	// With has the step's inputs, evaluated.
	With map[string]any
	// Secrets must not appear in anything a kind gives away.
	Secrets []string
	// Snapshot tells the state as far as the kind may change it, in any form that can be compared.
	Snapshot func() string
	// Writes counts the requests so far that would change something; nil: not recorded.
	Writes func() int
	// Intercept has f asked about every request, write telling whether it would change something;
	// nil takes it away. nil: the world has no faults to offer.
	Intercept func(f func(write bool) Fault)
	// Wall: the world needs real time to pass; otherwise waiting takes none.
	Wall bool
}

// Target declares one target of a world.
type Target struct {
	Kind   *steps.TargetDefinition
	Config map[string]any
}

// Fault is what becomes of a request.
type Fault int

// The faults a world can be asked for.
const (
	None       Fault = iota
	LostBefore       // the connection is cut and the request is not carried out
	LostAfter        // the request is carried out and the answer is lost
	Hang             // no answer, ever
)

func (f Fault) String() string {
	return [...]string{"no fault", "lost before it was carried out", "carried out, the answer lost", "no answer"}[f]
}

// soon is how long a cancelled function may take to return.
const soon = 3 * time.Second

// Run holds a kind to its contract.
func Run(t *testing.T, def *steps.Definition, f Fixture) {
	t.Run("description", func(t *testing.T) { description(t, def) })
	if def.Engine != steps.EngineNone {
		return
	}
	t.Run("looking changes nothing", func(t *testing.T) { lookingChangesNothing(t, def, f) })
	t.Run("cancelled", func(t *testing.T) { cancelled(t, def, f) })
	if isRead(def) {
		return
	}
	t.Run("probe tells", func(t *testing.T) { probeTells(t, def, f) })
	t.Run("twice is once", func(t *testing.T) { twiceIsOnce(t, def, f) })
	t.Run("undo puts back", func(t *testing.T) { undoPutsBack(t, def, f) })
	t.Run("lost requests are settled", func(t *testing.T) { lostRequests(t, def, f) })
}

func isRead(def *steps.Definition) bool {
	return def.Effect == steps.Read && !def.AuthorKnows && !def.HasPlan
}

// description: the kind explains itself, and its example is a step of it.
func description(t *testing.T, def *steps.Definition) {
	if def.Doc == "" || !strings.HasSuffix(def.Doc, ".") {
		t.Errorf("doc is not a sentence: %q", def.Doc)
	}
	if len(def.Pitfalls) == 0 && def.Engine == steps.EngineNone {
		t.Error("no pitfalls: what does it guard against?")
	}
	for _, s := range []struct {
		what string
		of   reflect.Type
	}{{"input", def.In}, {"output", def.Out}} {
		documented(t, s.what, s.of)
	}
	src := "version: 1\nname: example\nsteps:\n  - " + def.Example + "\n"
	book, findings := schema.Parse("example.yaml", []byte(src))
	for _, finding := range findings {
		t.Errorf("example: %s\n%s", finding, def.Example)
	}
	if book == nil || len(book.Steps) != 1 {
		t.Fatalf("the example is not one step: %s", def.Example)
	}
	if got := book.Steps[0].Uses.Value; got != def.Name {
		t.Errorf("the example uses %s", got)
	}
	known := names(def.In)
	for _, e := range book.Steps[0].With {
		if !known[e.Key.Value] {
			t.Errorf("the example gives %s, which is no input", e.Key.Value)
		}
	}
	for input := range known {
		if _, given := book.Steps[0].With.Get(input); !given && required(def.In, input) {
			t.Errorf("the example does not give the required input %s", input)
		}
	}
}

func documented(t *testing.T, what string, s reflect.Type) {
	for f := range fields(s) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "":
			t.Errorf("%s %s has no yaml tag", what, f.Name)
		case name != "-" && f.Tag.Get("doc") == "":
			t.Errorf("%s %s has no doc tag", what, name)
		}
	}
}

func fields(s reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := 0; s.Kind() == reflect.Struct && i < s.NumField(); i++ {
			if s.Field(i).IsExported() && !yield(s.Field(i)) {
				return
			}
		}
	}
}

func names(s reflect.Type) map[string]bool {
	m := map[string]bool{}
	for f := range fields(s) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		m[name] = true
	}
	return m
}

func required(s reflect.Type, input string) bool {
	for f := range fields(s) {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == input {
			return strings.Contains(options, "required")
		}
	}
	return false
}

// step is one kind in one world.
type step struct {
	t     *testing.T
	def   *steps.Definition
	world World
	env   *Env
	in    any
}

func begin(t *testing.T, def *steps.Definition, f Fixture) *step {
	t.Helper()
	w := f.New(t)
	s := &step{t: t, def: def, world: w, env: NewEnv(w), in: reflect.New(def.In).Interface()}
	t.Cleanup(func() { _ = s.env.Close() })
	if err := schema.Bind(w.With, s.in); err != nil {
		t.Fatalf("the world's inputs: %v", err)
	}
	for _, p := range def.Valid(s.in, func(string) bool { return false }) {
		t.Fatalf("the world's inputs: %s: %s", p.Input, p.Message)
	}
	return s
}

func (s *step) view() steps.View       { return steps.NewView(s.env) }
func (s *step) session() steps.Session { return steps.NewSession(s.env) }

// give looks for secrets in what a kind gives away.
func (s *step) give(what string, values ...any) {
	s.t.Helper()
	for _, v := range values {
		text := ""
		switch v := v.(type) {
		case nil:
			continue
		case error:
			text = v.Error()
			if e := steps.Classify(v); e != nil {
				text += e.Hint
			}
		default:
			b, err := json.Marshal(v)
			if err != nil {
				s.t.Errorf("%s cannot be journaled: %v", what, err)
			}
			text = string(b) + fmt.Sprintf("%+v", v)
			bounded(s.t, what, reflect.ValueOf(v))
		}
		for _, secret := range s.world.Secrets {
			if strings.Contains(text, secret) {
				s.t.Errorf("%s shows a secret: %s", what, text)
			}
		}
	}
}

// bounded: what a tag says is never below zero is not, since conditions are compared by that.
func bounded(t *testing.T, what string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			bounded(t, what, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			bounded(t, what, v.Index(i))
		}
	case reflect.Struct:
		for f := range fields(v.Type()) {
			field := v.FieldByIndex(f.Index)
			if f.Tag.Get("min") == "0" && negative(field) {
				t.Errorf("%s has %s below zero", what, f.Name)
			}
			bounded(t, what, field)
		}
	}
}

func negative(v reflect.Value) bool {
	switch {
	case v.Kind() == reflect.Pointer:
		return !v.IsNil() && negative(v.Elem())
	case v.CanInt():
		return v.Int() < 0
	case v.CanFloat():
		return v.Float() < 0
	}
	return false
}

func (s *step) plan(ctx context.Context) (steps.Change, error) {
	s.t.Helper()
	v := s.view()
	change, err := s.def.Plan(ctx, &v, s.in)
	s.give("the plan", change, err, change.Before)
	for _, l := range change.Lines {
		s.give("a line of the plan", l.String())
	}
	if err == nil {
		s.env.SetBefore(change.Before)
	}
	return change, err
}

func (s *step) check(ctx context.Context) error {
	err := s.def.Check(ctx, s.view(), s.in)
	s.give("the check", err)
	return err
}

func (s *step) probe(ctx context.Context) (steps.State, any, error) {
	state, out, err := s.def.Probe(ctx, s.view(), s.in)
	s.give("the probe", out, err)
	return state, out, err
}

func (s *step) apply(ctx context.Context) (any, error) {
	out, err := s.def.Apply(ctx, s.session(), s.in)
	s.give("the act", out, err)
	return out, err
}

func (s *step) undo(ctx context.Context, out any) error {
	var arg any
	if out != nil {
		p := reflect.New(s.def.Out)
		p.Elem().Set(reflect.ValueOf(out))
		arg = p.Interface()
	}
	err := s.def.Undo(ctx, s.session(), s.in, arg)
	s.give("the undo", err)
	return err
}

// started brings a step to where it may act.
func started(t *testing.T, def *steps.Definition, f Fixture) *step {
	t.Helper()
	s := begin(t, def, f)
	if _, err := s.plan(t.Context()); err != nil {
		t.Fatalf("plan: %v", err)
	}
	if err := s.check(t.Context()); err != nil {
		t.Fatalf("check: %v", err)
	}
	return s
}

// applied brings a step to where it has acted.
func applied(t *testing.T, def *steps.Definition, f Fixture) (*step, any) {
	t.Helper()
	s := started(t, def, f)
	out, err := s.apply(t.Context())
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return s, out
}

// lookingChangesNothing: Plan, Check, Probe and Read send nothing that changes anything.
func lookingChangesNothing(t *testing.T, def *steps.Definition, f Fixture) {
	s := begin(t, def, f)
	ctx := t.Context()
	before, writes := s.world.Snapshot(), s.writes()
	if isRead(def) {
		for range 2 {
			out, err := def.Read(ctx, s.view(), s.in)
			s.give("the output", out, err)
			if err != nil {
				t.Errorf("read: %v", err)
			}
		}
	} else {
		offline, err := def.Plan(ctx, nil, s.in)
		s.give("the plan offline", offline, err)
		if err != nil || len(offline.Lines) == 0 {
			t.Errorf("plan offline: %d lines, %v", len(offline.Lines), err)
		}
		online, err := s.plan(ctx)
		if err != nil || len(online.Lines) == 0 {
			t.Errorf("plan online: %d lines, %v", len(online.Lines), err)
		}
		if def.Effect == steps.Cutover && online.Pause == "" {
			t.Error("the plan of a cut-over does not say its longest pause")
		}
		if err := s.check(ctx); err != nil {
			t.Errorf("check: %v", err)
		}
		if def.HasProbe {
			if _, _, err := s.probe(ctx); err != nil {
				t.Errorf("probe: %v", err)
			}
		}
	}
	if got := s.writes(); got != writes { // asked before the snapshot, which may be taken by trying
		t.Errorf("looking has sent %d requests that change something", got-writes)
	}
	if got := s.world.Snapshot(); got != before {
		t.Errorf("looking has changed the system:\nbefore: %s\nafter:  %s", before, got)
	}
}

func (s *step) writes() int {
	if s.world.Writes == nil {
		return 0
	}
	return s.world.Writes()
}

// probeTells: not done before, done after with the same output.
func probeTells(t *testing.T, def *steps.Definition, f Fixture) {
	if !def.HasProbe {
		return
	}
	s := started(t, def, f)
	if state, _, err := s.probe(t.Context()); err != nil || state == steps.Done || (state == steps.Unclear && f.Blind == "") {
		t.Errorf("probe before: %s, %v", state, err)
	}
	out, err := s.apply(t.Context())
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	state, found, err := s.probe(t.Context())
	switch {
	case err != nil:
		t.Errorf("probe after: %v", err)
	case f.Blind != "" && state == steps.Unclear:
		return
	case state != steps.Done:
		t.Errorf("probe after: %s", state)
	case !reflect.DeepEqual(known(found), known(out)):
		t.Errorf("the probe finds another output than the act gave:\nprobe: %+v\nact:   %+v", found, out)
	}
}

// known is an output without what only the act knows.
func known(out any) any {
	p := reflect.New(reflect.TypeOf(out)).Elem()
	p.Set(reflect.ValueOf(out))
	for f := range fields(p.Type()) {
		_, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		for o := range strings.SplitSeq(options, ",") {
			if o == "act" {
				p.FieldByIndex(f.Index).SetZero()
			}
		}
	}
	return p.Interface()
}

// twiceIsOnce: a second act, where one may happen, leaves the state of the first.
func twiceIsOnce(t *testing.T, def *steps.Definition, f Fixture) {
	s, out := applied(t, def, f)
	once := s.world.Snapshot()
	if !def.Idempotent {
		if state, _, err := s.probeIfAny(t.Context()); !def.AuthorKnows && (err != nil || state != steps.Done) {
			t.Errorf("neither idempotent nor found done by its probe (%s, %v): a resume could not go on", state, err)
		}
		return
	}
	again, err := s.apply(t.Context())
	if err != nil {
		t.Fatalf("apply again: %v", err)
	}
	if got := s.world.Snapshot(); got != once {
		t.Errorf("twice is not once:\nonce:  %s\ntwice: %s", once, got)
	}
	if !reflect.DeepEqual(known(again), known(out)) {
		t.Errorf("the second act gives another output:\nfirst:  %+v\nsecond: %+v", out, again)
	}
}

func (s *step) probeIfAny(ctx context.Context) (steps.State, any, error) {
	if !s.def.HasProbe {
		return steps.Unclear, nil, nil
	}
	return s.probe(ctx)
}

// undoPutsBack: undo restores, twice is harmless, also without the act's output and without the act.
func undoPutsBack(t *testing.T, def *steps.Definition, f Fixture) {
	if !def.HasUndo {
		if def.NoUndo == "" && !def.NothingToUndo {
			t.Error("no undo, and no reason why")
		}
		return
	}
	for _, with := range []string{"output", "no output"} {
		s := begin(t, def, f)
		before := s.world.Snapshot()
		if _, err := s.plan(t.Context()); err != nil {
			t.Fatalf("plan: %v", err)
		}
		if err := s.undo(t.Context(), nil); err != nil {
			s.t.Logf("undo of what was never done is refused: %v", err)
		}
		if got := s.world.Snapshot(); got != before {
			t.Errorf("undo of what was never done changes the system:\nbefore: %s\nafter:  %s", before, got)
		}
		out, err := s.apply(t.Context())
		if err != nil {
			t.Fatalf("apply: %v", err)
		}
		if with == "no output" {
			out = nil
		}
		for _, time := range []string{"undo", "undo again"} {
			if err := s.undo(t.Context(), out); err != nil {
				t.Errorf("%s, with %s: %v", time, with, err)
			}
			if got := s.world.Snapshot(); got != before && f.UndoKeeps == "" {
				t.Errorf("%s, with %s, does not put back:\nbefore: %s\nafter:  %s", time, with, before, got)
			}
		}
	}
}

// lostRequests: whichever request is lost, before or after it was carried out, the engine's
// way (probe; act again where that may be) ends in the state of a run without faults.
func lostRequests(t *testing.T, def *steps.Definition, f Fixture) {
	s, _ := applied(t, def, f)
	if s.world.Intercept == nil {
		return
	}
	want := s.world.Snapshot()
	total := countWrites(t, def, f)
	if total == 0 {
		t.Error("the act sends nothing that changes anything, as far as the world can see")
	}
	for n := 1; n <= total; n++ {
		for _, fault := range []Fault{LostBefore, LostAfter} {
			t.Run(fmt.Sprintf("request %d %s", n, fault), func(t *testing.T) { lostRequest(t, def, f, n, fault, want) })
		}
	}
}

func countWrites(t *testing.T, def *steps.Definition, f Fixture) int {
	s := started(t, def, f)
	n := make(chan int, 1)
	n <- 0
	s.world.Intercept(func(write bool) Fault {
		if write {
			n <- <-n + 1
		}
		return None
	})
	if _, err := s.apply(t.Context()); err != nil {
		t.Fatalf("apply: %v", err)
	}
	s.world.Intercept(nil)
	return <-n
}

func lostRequest(t *testing.T, def *steps.Definition, f Fixture, n int, fault Fault, want string) {
	s := started(t, def, f)
	seen := make(chan int, 1)
	seen <- 0
	s.world.Intercept(func(write bool) Fault {
		if !write {
			return None
		}
		i := <-seen + 1
		seen <- i
		if i == n {
			return fault
		}
		return None
	})
	_, err := s.apply(t.Context())
	s.world.Intercept(nil)
	if err != nil && !steps.Classify(err).Unknown && f.Settles == "" {
		t.Errorf("the outcome is not known, but the error says it is: %v", err)
	}
	if def.AuthorKnows {
		return // whether it may be repeated is the author's word
	}
	if err != nil {
		state, _, probeErr := s.probe(t.Context())
		switch {
		case probeErr != nil:
			t.Fatalf("probe: %v", probeErr)
		case state == steps.Done:
		case state == steps.Unclear && !def.Idempotent:
			t.Fatalf("in doubt for ever: the probe cannot tell, and it may not be repeated")
		default:
			if err := s.check(t.Context()); err != nil {
				t.Fatalf("check before the second attempt: %v", err)
			}
			if _, err := s.apply(t.Context()); err != nil {
				t.Fatalf("apply again: %v", err)
			}
		}
	}
	if got := s.world.Snapshot(); got != want {
		t.Errorf("after resume the state differs:\nwanted: %s\ngot:    %s", want, got)
	}
}

// cancelled: a context that has ended, or ends while a system does not answer, returns soon with its
// cause, and leaves nothing running.
func cancelled(t *testing.T, def *steps.Definition, f Fixture) {
	s := begin(t, def, f)
	running := goleak.IgnoreCurrent()
	why := errors.New("the operator stops the run")
	for name, call := range s.calls() {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		s.returnsSoon(name+" under a cancelled context", why, func() error { return call(ctx) })

		if s.world.Intercept == nil {
			continue
		}
		ctx, cancel = context.WithCancelCause(t.Context())
		s.world.Intercept(func(bool) Fault { cancel(why); return Hang })
		s.returnsSoon(name+" cancelled without an answer", why, func() error { return call(ctx) })
		s.world.Intercept(nil)
		cancel(nil)
	}
	if err := s.env.Close(); err != nil {
		t.Errorf("close the clients: %v", err)
	}
	if err := goleak.Find(running); err != nil && s.world.Intercept == nil { // a simulated system has goroutines of its own
		t.Error(err)
	}
}

func (s *step) calls() map[string]func(context.Context) error {
	if isRead(s.def) {
		return map[string]func(context.Context) error{
			"read": func(ctx context.Context) error {
				_, err := s.def.Read(ctx, s.view(), s.in)
				s.give("the read", err)
				return err
			},
		}
	}
	m := map[string]func(context.Context) error{
		"apply": func(ctx context.Context) error { _, err := s.apply(ctx); return err },
	}
	if s.def.HasProbe {
		m["probe"] = func(ctx context.Context) error { _, _, err := s.probe(ctx); return err }
	}
	if s.def.HasCheck {
		m["check"] = s.check
	}
	return m
}

func (s *step) returnsSoon(what string, why error, call func() error) {
	s.t.Helper()
	start := time.Now()
	err := call()
	if took := time.Since(start); took > soon {
		s.t.Errorf("%s returns after %s", what, took)
	}
	switch {
	case err == nil:
		s.t.Errorf("%s succeeds", what)
	case !errors.Is(err, why):
		s.t.Errorf("%s does not name the cause: %v", what, err)
	}
}
