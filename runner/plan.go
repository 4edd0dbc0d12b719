package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// Plan is what a run would do, in order, as far as it can be told without asking a
// target: what inputs and vars decide is decided, what only a run can know says so. Its
// JSON is the answer of `plan --output json`; names of fields stay.
type Plan struct {
	Format      int               `json:"format"` // 1
	Name        string            `json:"name"`
	Path        string            `json:"path"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Digest is the SHA-256 over the sources, the inputs and the kinds used. An approval is
	// of a step of the plan with this digest.
	Digest    string       `json:"digest"`
	Selection *Selection   `json:"selection,omitempty"`
	LeftOut   int          `json:"left_out,omitempty"` // steps as written that the selection leaves out
	Inputs    []PlanValue  `json:"inputs,omitempty"`
	Vars      []PlanValue  `json:"vars,omitempty"`
	Secrets   []PlanSecret `json:"secrets,omitempty"`
	Targets   []PlanTarget `json:"targets,omitempty"`
	Lock      string       `json:"lock,omitempty"`
	OnFailure string       `json:"on_failure"`
	Summary   PlanSummary  `json:"summary"`
	// Warnings are what this binary does not do yet although the runbook asks for it, and
	// what a reviewer should not overlook.
	Warnings []string    `json:"warnings,omitempty"`
	Steps    []*PlanStep `json:"steps"`
	Finally  []*PlanStep `json:"finally,omitempty"`
}

// PlanValue is a named value.
type PlanValue struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"`
	Value  any    `json:"value"`
	Origin string `json:"origin,omitempty"`
	// Unknown says why there is no value yet.
	Unknown string `json:"unknown,omitempty"`
}

// PlanSecret is a secret's name and where it will be read from, never its value.
type PlanSecret struct {
	Name string `json:"name"`
	From string `json:"from"`
}

// PlanTarget is a system acted upon.
type PlanTarget struct {
	Name    string `json:"name"`
	Kind    string `json:"kind,omitempty"`
	Addr    string `json:"addr,omitempty"`
	Unknown string `json:"unknown,omitempty"`
}

// PlanSummary is the head of a plan. Counts are of single steps, each item of a loop one.
type PlanSummary struct {
	Steps    int `json:"steps"`
	Reads    int `json:"reads"`
	Writes   int `json:"writes"`
	Cutovers int `json:"cutovers"`
	Destroys int `json:"destroys"`
	// Unknown counts loops whose items only a run can know.
	Unknown int `json:"unknown_loops,omitempty"`
	// Irreversible are the steps after which something cannot be put back, by id.
	Irreversible []string `json:"irreversible,omitempty"`
	// Gates are the steps that wait for a person.
	Gates []string `json:"gates,omitempty"`
	// Pause is the longest time that clients may wait at one step, as declared.
	Pause string `json:"longest_pause,omitempty"`
}

// The shapes of a PlanStep.
const (
	ShapeStep   = "step"
	ShapeGroup  = "group"
	ShapeLoop   = "loop"
	ShapeFanOut = "fan-out"
	ShapeCall   = "runbook"
)

// PlanStep is one step that would run, or one that holds others.
type PlanStep struct {
	Path       string          `json:"path"`
	ID         string          `json:"id"`
	Shape      string          `json:"shape"`
	Name       string          `json:"name,omitempty"`
	Why        string          `json:"why,omitempty"`
	Kind       string          `json:"kind,omitempty"`
	Effect     string          `json:"effect"`
	Tags       []string        `json:"tags,omitempty"`
	Targets    []PlanTarget    `json:"targets,omitempty"`
	Parallel   bool            `json:"parallel,omitempty"`
	Skipped    string          `json:"skipped,omitempty"` // why it will not run
	Conditions []PlanCondition `json:"conditions,omitempty"`
	With       []PlanValue     `json:"with,omitempty"`
	Commands   []steps.Line    `json:"commands,omitempty"`
	Pause      string          `json:"pause,omitempty"`
	Undo       string          `json:"undo,omitempty"`
	NoUndo     string          `json:"no_undo,omitempty"`
	Confirm    *PlanGate       `json:"confirm,omitempty"`
	Settings   []PlanSetting   `json:"settings,omitempty"`
	Loop       *PlanLoop       `json:"loop,omitempty"`
	NoReturn   bool            `json:"point_of_no_return,omitempty"`
	OnFailure  string          `json:"on_failure,omitempty"`
	Warnings   []string        `json:"warnings,omitempty"`
	Steps      []*PlanStep     `json:"steps,omitempty"`
	AfterBatch []*PlanStep     `json:"after_batch,omitempty"`
	Rescue     []*PlanStep     `json:"rescue,omitempty"`
	UndoSteps  []*PlanStep     `json:"undo_steps,omitempty"`
	Finally    []*PlanStep     `json:"finally,omitempty"` // of a sub-runbook
	node       *Node
}

// PlanCondition is something that must hold, or is waited for.
type PlanCondition struct {
	Key  string `json:"key"` // when, require, expect, wait-until, repeat-until, retry-if, ready, probe
	Text string `json:"text"`
	// Value is true or false where it can be told now.
	Value *bool `json:"value,omitempty"`
	// After is why it cannot: (after STEP).
	After string `json:"after,omitempty"`
}

// PlanGate is a question to a person.
type PlanGate struct {
	Message   string   `json:"message"`
	Show      []string `json:"show,omitempty"`
	Approvals int      `json:"approvals,omitempty"`
	Retype    string   `json:"retype,omitempty"`
	Timeout   string   `json:"timeout,omitempty"`
	Each      string   `json:"each,omitempty"`
	Detached  bool     `json:"detached,omitempty"`
	Builtin   bool     `json:"builtin,omitempty"`
}

// PlanSetting is a setting that differs from nothing: every, stable, stall, timeout, retry, ….
type PlanSetting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// PlanLoop says what a loop repeats over.
type PlanLoop struct {
	As      string `json:"as,omitempty"`
	Over    string `json:"over,omitempty"`
	Items   int    `json:"items"`
	Unknown string `json:"unknown,omitempty"` // why the items cannot be told
	Batches []int  `json:"batches,omitempty"`
	Pause   string `json:"pause_between,omitempty"`
}

// MakePlan tells what a run of the program with these inputs would do. The findings are
// what inputs bring to light that lint could not see: a value of the wrong kind, two
// items with one key, an expression that fails. With an error among them the plan is nil.
// An error of another kind is a *UsageError about the selection.
func MakePlan(p *Program, in *Inputs, sel Selection) (*Plan, []schema.Finding, error) {
	chosen, err := p.Select(sel)
	if err != nil {
		return nil, nil, err
	}
	pl := &planner{program: p, chosen: chosen, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}}
	plan := &Plan{
		Format: 1, Name: p.Root.Book.Name.Value, Path: p.Root.Book.Path,
		Description: strings.TrimSpace(p.Root.Book.Description.Value), OnFailure: p.Root.OnFailure,
		Digest: p.Digest(in),
	}
	if plan.OnFailure == "" {
		plan.OnFailure = "stop"
	}
	if !reflect.DeepEqual(sel, Selection{}) {
		plan.Selection = &sel
	}
	for _, l := range p.Root.Book.Labels {
		if plan.Labels == nil {
			plan.Labels = map[string]string{}
		}
		plan.Labels[l.Key.Value] = l.Value.Value
	}
	s := pl.root(in, plan)
	plan.Steps = pl.list(s, p.Root.Steps)
	plan.Finally = pl.list(s, p.Root.Finally)
	plan.LeftOut = pl.leftOut
	plan.Summary = pl.summary()
	for _, f := range p.NotYet() {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Message))
	}
	findings := schema.Sort(pl.findings)
	if schema.Failed(findings) {
		return nil, findings, nil
	}
	return plan, findings, nil
}

// Digest is the SHA-256, in hex, over what decides a plan: the text of every source with
// its path from the runbook's own folder, the values of the inputs, and of each kind used
// its name, effect and the shape of its inputs and outputs. Where the runbook lies, and
// who plans it, does not count.
func (p *Program) Digest(in *Inputs) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	e.SetEscapeHTML(false)
	dir := filepath.Dir(p.Root.Book.Path)
	for _, s := range p.Sources {
		path := s.Path
		if rel, err := filepath.Rel(dir, path); err == nil && s.Role != "inventory" && s.Role != "inputs" {
			path = filepath.ToSlash(rel)
		} else {
			path = filepath.Base(path)
		}
		sum := sha256.Sum256([]byte(s.Text))
		_ = e.Encode([]string{"source", s.Role, path, hex.EncodeToString(sum[:])}) // a hash never fails
	}
	_ = e.Encode([]any{"inputs", jsonable(in.Values)})
	for _, k := range p.kindsUsed() {
		_ = e.Encode(k)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// usedKind is what a plan relies on of a kind.
type usedKind struct {
	Name   string `json:"name"`
	Effect string `json:"effect"`
	Shape  string `json:"shape"`
}

// kindsUsed are the kinds that the program's steps use, by name.
func (p *Program) kindsUsed() []usedKind {
	seen := map[string]usedKind{}
	add := func(d *steps.Definition) {
		if d != nil {
			seen[d.Name] = usedKind{d.Name, d.Effect.String(), typeShape(d.In) + "→" + typeShape(d.Out)}
		}
	}
	units := map[*Unit]bool{}
	var visit func(u *Unit)
	visit = func(u *Unit) {
		if u == nil || units[u] {
			return
		}
		units[u] = true
		u.each(func(n *Node) {
			add(n.Kind)
			if n.Probe != nil {
				add(n.Probe.Kind)
			}
			visit(n.Sub)
		})
	}
	visit(p.Root)
	list := make([]usedKind, 0, len(seen))
	for _, k := range seen {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b usedKind) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// typeShape is the fields of a struct by their keys, with their types: what a change of would change a plan.
func typeShape(t reflect.Type) string {
	if t == nil || t.Kind() != reflect.Struct {
		return ""
	}
	var fields []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields = append(fields, name+" "+f.Type.String()+" "+f.Tag.Get("default"))
	}
	return "{" + strings.Join(fields, "; ") + "}"
}

// each visits every node of a file, in the order of the text.
func (u *Unit) each(visit func(*Node)) {
	eachNode(u.Steps, visit)
	eachNode(u.Finally, visit)
}

func eachNode(nodes []*Node, visit func(*Node)) {
	for _, n := range nodes {
		visit(n)
		eachNode(n.Children, visit)
		eachNode(n.AfterBatch, visit)
		eachNode(n.UndoSteps, visit)
		eachNode(n.Rescue, visit)
	}
}

// pauseOf reads a declared pause for comparison; what is not a duration is 0.
func pauseOf(text string) time.Duration {
	d, err := schema.ParseDuration(strings.TrimSpace(text))
	if err != nil {
		return 0
	}
	return d
}
