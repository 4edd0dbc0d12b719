package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps"
)

// world is the system that the tests' kinds act on. It outlives a crash of the runner.
type world struct {
	mu    sync.Mutex
	value map[string]int
	log   []string         // every effect, in order
	fail  map[string]error // of a key, for the next act on it
	lost  map[string]bool  // the act on this key happens, its answer does not come
	reads int
	onGet func(key string, n int) // before each read
	onAct func(key string)        // before each act
	extra []*steps.Definition
	kinds []*steps.TargetDefinition
}

func newWorld() *world {
	return &world{value: map[string]int{}, fail: map[string]error{}, lost: map[string]bool{}}
}

func (w *world) act(key string, f func()) error {
	if w.onAct != nil {
		w.onAct(key)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fail[key]; err != nil {
		delete(w.fail, key)
		return err
	}
	f()
	if w.lost[key] {
		delete(w.lost, key)
		return &steps.Error{Kind: "closed", Unknown: true, Temporary: true, Err: fmt.Errorf("set %s: connection cut", key)}
	}
	return nil
}

func (w *world) get(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if w.onGet != nil {
		w.onGet(key, w.reads)
	}
	return w.value[key]
}

func (w *world) state() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, _ := json.Marshal(w.value)
	return string(raw)
}

type memIn struct {
	Key   string `yaml:"key,required" doc:"Key."`
	Value int    `yaml:"value" doc:"Value."`
}
type memOut struct {
	Value int    `yaml:"value" doc:"Value now."`
	Note  string `yaml:"note,act" doc:"Known to the act alone."`
}
type memGetIn struct {
	Key string `yaml:"key,required" doc:"Key."`
}
type memGetOut struct {
	Value int  `yaml:"value" doc:"Value."`
	Maybe *int `yaml:"maybe" doc:"Null when zero."`
}

// catalog has a kind that probes and undoes (mem.set), one that is blind (mem.add), and a read.
func (w *world) catalog() *Catalog {
	type before struct{ Value int }
	set := (&steps.Kind[memIn, memOut]{
		Name: "mem.set", Doc: "Sets.", Effect: steps.Write,
		Plan: func(_ context.Context, v *steps.View, in memIn) (steps.Change, error) {
			c := steps.Change{Lines: []steps.Line{{Command: fmt.Sprintf("set %s %d", in.Key, in.Value)}}}
			if v != nil {
				c.Before = before{w.get(in.Key)}
			}
			return c, nil
		},
		Probe: func(_ context.Context, _ steps.View, in memIn) (steps.State, memOut, error) {
			if v := w.get(in.Key); v == in.Value {
				return steps.Done, memOut{Value: v}, nil
			}
			return steps.Untouched, memOut{}, nil
		},
		Apply: func(_ context.Context, _ steps.Session, in memIn) (memOut, error) {
			err := w.act(in.Key, func() {
				w.value[in.Key] = in.Value
				w.log = append(w.log, fmt.Sprintf("set %s %d", in.Key, in.Value))
			})
			return memOut{Value: in.Value, Note: "done"}, err
		},
		Undo: func(_ context.Context, s steps.Session, in memIn, _ *memOut) error {
			var b before
			if ok, err := s.Before(&b); err != nil || !ok {
				return errors.Join(err, errors.New("nothing captured"))
			}
			return w.act(in.Key, func() {
				if b.Value == 0 {
					delete(w.value, in.Key)
				} else {
					w.value[in.Key] = b.Value
				}
				w.log = append(w.log, fmt.Sprintf("unset %s %d", in.Key, b.Value))
			})
		},
	}).Define()
	add := (&steps.Kind[memIn, memOut]{
		Name: "mem.add", Doc: "Adds.", Effect: steps.Write, AuthorKnows: true, NoUndo: "it does not know what was there",
		Plan: func(_ context.Context, _ *steps.View, in memIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{{Command: fmt.Sprintf("add %s %d", in.Key, in.Value)}}}, nil
		},
		Apply: func(_ context.Context, _ steps.Session, in memIn) (memOut, error) {
			var v int
			err := w.act(in.Key, func() {
				w.value[in.Key] += in.Value
				v = w.value[in.Key]
				w.log = append(w.log, fmt.Sprintf("add %s %d", in.Key, in.Value))
			})
			return memOut{Value: v, Note: "done"}, err
		},
	}).Define()
	get := (&steps.Kind[memGetIn, memGetOut]{
		Name: "mem.get", Doc: "Gets.", Effect: steps.Read,
		Read: func(ctx context.Context, _ steps.View, in memGetIn) (memGetOut, error) {
			v := w.get(in.Key)
			w.mu.Lock()
			err := w.fail["get "+in.Key]
			delete(w.fail, "get "+in.Key)
			w.mu.Unlock()
			out := memGetOut{Value: v}
			if v != 0 {
				out.Maybe = &v
			}
			return out, err
		},
	}).Define()
	check := (&steps.Kind[memCheckIn, memCheckOut]{
		Name: "check", Doc: "Checks.", Effect: steps.Read,
		Read: func(_ context.Context, _ steps.View, in memCheckIn) (memCheckOut, error) {
			for _, c := range in.That {
				if !c.Holds {
					return memCheckOut{}, fmt.Errorf("%s does not hold", c.Text)
				}
			}
			return memCheckOut{true}, nil
		},
	}).Define()
	all := append([]*steps.Definition{set, add, get, check}, engineKinds...)
	return NewCatalog(append(all, w.extra...), w.kinds)
}

// engineKinds are those that the engine carries out itself.
var engineKinds = []*steps.Definition{
	(&steps.Kind[sleepIn, struct{}]{Name: "sleep", Engine: steps.EngineSleep, NothingToUndo: true}).Define(),
	(&steps.Kind[stopIn, struct{}]{Name: "stop-background", Effect: steps.Write, Engine: steps.EngineStopBackground, NothingToUndo: true}).Define(),
	(&steps.Kind[approveIn, struct{}]{Name: "approve", Engine: steps.EngineGate, NothingToUndo: true}).Define(),
	(&steps.Kind[setIn, struct{}]{Name: "set", Engine: steps.EngineSet, NothingToUndo: true}).Define(),
}

// odd adds a kind without a probe, with an act of the test's own.
func (w *world) odd(name string, idempotent bool, apply func(ctx context.Context, s steps.Session, in memIn) (memOut, error)) {
	w.extra = append(w.extra, (&steps.Kind[memIn, memOut]{
		Name: name, Doc: "Odd.", Effect: steps.Write, AuthorKnows: true, Idempotent: idempotent, NoUndo: "odd",
		Plan: func(context.Context, *steps.View, memIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{{Command: name}}}, nil
		},
		Apply: apply,
	}).Define())
}

type memCheckIn struct {
	That []schema.Condition `yaml:"that,required" doc:"Conditions."`
}
type memCheckOut struct {
	Passed bool `yaml:"passed" doc:"All hold."`
}

// lab runs runbooks against a world.
type lab struct {
	t       testing.TB
	w       *world
	store   journal.Store
	records []journal.Record
	ask     func(context.Context, Question) (Answer, error)
	clock   Clock
	options journal.Options
	observe func(journal.Record)
	ctx     context.Context
	environ map[string]string
	quiet   bool // keep no records
	listen  bool // serve the control socket
	// opened, in a goroutine of its own, is told of each gate that opens
	opened func(path string)
	others sync.WaitGroup
	// guardian starts them; nil: none can be started
	guardian func(GuardianSpec) (GuardianPipe, error)
}

func newLab(t testing.TB) *lab {
	return &lab{t: t, w: newWorld(), store: journal.Store{Dir: t.TempDir()}}
}

func (l *lab) config() Config {
	l.records = nil
	var mu sync.Mutex
	return Config{Environ: func(name string) (string, bool) { v, ok := l.environ[name]; return v, ok }, Store: l.store, Operator: Operator{Name: "ana", UID: 1000, Host: "here"}, Version: "test",
		Observe: func(r journal.Record) {
			if l.quiet {
				return
			}
			mu.Lock()
			l.records = append(l.records, r)
			mu.Unlock()
			if l.observe != nil {
				l.observe(r)
			}
			if l.opened != nil && r.Type == recGateOpened {
				l.others.Go(func() { l.opened(r.Step) })
			}
		}, Ask: l.ask, Clock: l.clock, Journal: l.options, Guardian: l.guardian, Listen: l.listen}
}

func (l *lab) program(text string, files ...string) *Program {
	l.t.Helper()
	all := map[string][]byte{"book.yaml": []byte(text)}
	for i := 0; i+1 < len(files); i += 2 {
		all[files[i]] = []byte(files[i+1])
	}
	p, findings := Load("book.yaml", LoadOptions{Catalog: l.w.catalog(), ReadFile: func(path string) ([]byte, error) {
		if b, ok := all[path]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("no file %s", path)
	}})
	if p == nil {
		for _, f := range findings {
			l.t.Errorf("%s:%d:%d: %s [%s]", f.Path, f.Line, f.Column, f.Message, f.Rule)
		}
		l.t.FailNow()
	}
	return p
}

func (l *lab) exec(p *Program, change ...func(*Request)) *Result {
	l.t.Helper()
	inputs, findings, err := p.BindInputs(GivenInputs{})
	if err != nil || len(findings) > 0 {
		l.t.Fatalf("inputs: %v %v", findings, err)
	}
	req := Request{Program: p, Inputs: inputs}
	for _, c := range change {
		c(&req)
	}
	r, err := Execute(l.context(), l.config(), req)
	if err != nil {
		l.t.Fatalf("execute: %v", err)
	}
	return r
}

func (l *lab) context() context.Context {
	if l.ctx != nil {
		return l.ctx
	}
	return l.t.Context()
}

func (l *lab) resume(change ...func(*ResumeRequest)) *Result {
	l.t.Helper()
	r, err := l.tryResume(change...)
	if err != nil {
		l.t.Fatalf("resume: %v", err)
	}
	return r
}

func (l *lab) tryResume(change ...func(*ResumeRequest)) (*Result, error) {
	l.t.Helper()
	folder, err := l.store.Find("last")
	if err != nil {
		l.t.Fatalf("find: %v", err)
	}
	req := ResumeRequest{Run: folder, Catalog: l.w.catalog()}
	for _, c := range change {
		c(&req)
	}
	return Resume(l.context(), l.config(), req)
}

// end wants a status and gives the types of the records.
func (l *lab) end(r *Result, want Status) {
	l.t.Helper()
	if r.Status != want {
		for _, rec := range l.records[max(0, len(l.records)-12):] {
			l.t.Log(string(rec.Event()))
		}
		l.t.Fatalf("status %s (%v), want %s", r.Status, r.Err, want)
	}
}

const bookHead = "version: 1\nname: book\n"

// interrupt runs a program and interrupts it after a while, as a person would.
func (l *lab) interrupt(p *Program, after time.Duration) {
	l.t.Helper()
	ctx, cancel := context.WithCancelCause(l.t.Context())
	l.ctx = ctx
	time.AfterFunc(after, func() { cancel(ErrInterrupted) })
	l.end(l.exec(p), Interrupted)
	l.ctx = nil
}
