package runner

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// frame is one execution of a unit: its inputs, variables and targets.
type frame struct {
	unit    *Unit
	secrets map[string]any // only of the runbook itself; a sub-runbook has none
	inputs  map[string]any
	vars    map[string]any
	targets map[string]*boundTarget // by name; those passed in as inputs too
	shown   map[string]any          // what expressions see of the targets
	asked   bool                    // a person has said yes to the step that this unit is
	mustRun bool                    // it is part of a rollback or of finally
}

// boundTarget is a target whose declaration has been evaluated.
type boundTarget struct {
	steps.Target
	def   *steps.TargetDefinition
	cfg   any // pointer to the kind's configuration
	addr  string
	shown map[string]any
}

// scope is where results are kept: one of each frame, and one of each item of a loop,
// which sees what is around it.
type scope struct {
	frame  *frame
	parent *scope // same frame; nil: the frame's own
	prefix string // journal path of what is inside, such as move[slot=7]/
	names  []named

	mu   sync.Mutex
	few  []stepResult // results by id; a loop has a scope for each item, so maps would cost too much
	many map[string]map[string]any
}

// named is a name that expressions see, besides those that are everywhere.
type named struct {
	name  string
	value any
}

type stepResult struct {
	id     string
	result map[string]any
}

// mostFew is how many results are looked through one by one.
const mostFew = 8

func newScope(fr *frame, parent *scope, prefix string, names []named) *scope {
	return &scope{frame: fr, parent: parent, prefix: prefix, names: names}
}

// set keeps what later steps see of a step.
func (s *scope) set(id string, result map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.many != nil {
		s.many[id] = result
		return
	}
	for i := range s.few {
		if s.few[i].id == id {
			s.few[i].result = result
			return
		}
	}
	if len(s.few) < mostFew {
		s.few = append(s.few, stepResult{id, result})
		return
	}
	s.many = make(map[string]map[string]any, 2*mostFew)
	for _, r := range s.few {
		s.many[r.id] = r.result
	}
	s.few, s.many[id] = nil, result
}

// all are the results that are kept here, by id.
func (s *scope) all() map[string]map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]map[string]any, len(s.few)+len(s.many))
	maps.Copy(all, s.many)
	for _, r := range s.few {
		all[r.id] = r.result
	}
	return all
}

func (s *scope) own(id string) (map[string]any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.few {
		if s.few[i].id == id {
			return s.few[i].result, true
		}
	}
	r, ok := s.many[id]
	return r, ok
}

// result of a step as seen from here; a step that did not run has nulls.
func (s *scope) result(id string) map[string]any {
	for at := s; at != nil; at = at.parent {
		if r, ok := at.own(id); ok {
			return r
		}
	}
	return nothing(s.frame.unit.nodes[id])
}

// nothing is what is seen of a step that did not run.
func nothing(n *Node) map[string]any {
	r := map[string]any{}
	if n != nil && n.OutType != nil {
		for name := range n.OutType.Fields {
			r[name] = nil
		}
	}
	r["status"] = statusSkipped
	r["attempts"] = 0
	return r
}

// In a dry run these mark the result of a step that would have changed something, or of
// one that is made of such: then only its status is not known.
const (
	unknownKey    = "\x00unknown"
	unknownStatus = "\x00status"
)

// env is what an expression with these references sees. Only the steps it names are
// there: the store is never copied. own are the step's own outputs, as plain names.
func (x *run) env(s *scope, own map[string]any, refs ...[]expression.Ref) map[string]any {
	env := make(map[string]any, 8+len(own))
	env["inputs"] = s.frame.inputs
	env["vars"] = s.frame.vars
	env["targets"] = s.frame.shown
	env["run"] = x.shown
	if s.frame.secrets != nil {
		env["secrets"] = s.frame.secrets
	}
	for at := s; at != nil; at = at.parent {
		for _, n := range at.names {
			if _, nearer := env[n.name]; !nearer {
				env[n.name] = n.value
			}
		}
	}
	for name, v := range own {
		env[name] = v
	}
	var seen map[string]any
	for _, list := range refs {
		for _, r := range list {
			if len(r.Path) < 2 || r.Path[0] != "steps" {
				continue
			}
			if seen == nil {
				seen = map[string]any{}
				env["steps"] = seen
			}
			seen[r.Path[1]] = s.result(r.Path[1])
		}
	}
	if seen == nil {
		env["steps"] = map[string]any{}
	}
	return env
}

// unknownError says that a dry run cannot know a value.
type unknownError struct{ because string }

func (e *unknownError) Error() string { return "unknown (because of step " + e.because + ")" }

// known fails where an expression reads a step whose effect a dry run did not have.
func (x *run) known(s *scope, own map[string]any, refs ...[]expression.Ref) error {
	if x.dry == nil {
		return nil
	}
	if because, ok := own[unknownKey].(string); ok {
		return &unknownError{because}
	}
	for _, list := range refs {
		for _, r := range list {
			if len(r.Path) < 2 || r.Path[0] != "steps" {
				continue
			}
			seen := s.result(r.Path[1])
			if because, ok := seen[unknownKey].(string); ok {
				return &unknownError{because}
			}
			if because, ok := seen[unknownStatus].(string); ok && (len(r.Path) == 2 || r.Path[2] == "status") {
				return &unknownError{because}
			}
		}
	}
	return nil
}

// eval evaluates a template; nil gives nil.
func (x *run) eval(s *scope, t *Template) (any, error) {
	if t == nil {
		return nil, nil
	}
	if t.Constant {
		return t.Literal, nil
	}
	refs := t.Refs()
	if err := x.known(s, nil, refs); err != nil {
		return nil, err
	}
	return t.Eval(x.env(s, nil, refs))
}

// words evaluates a template that a person reads; what cannot be told is left as its error.
func (x *run) words(s *scope, t *Template) string {
	v, err := x.eval(s, t)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	if v == nil {
		return ""
	}
	w, err := expression.Text(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return x.mask.String(w)
}

// setting evaluates a setting; zero where none was written.
func setting[T any](x *run, s *scope, set Setting[T], what string) (T, error) {
	if set.Expr == nil {
		return set.Value, nil
	}
	var none T
	if err := x.known(s, nil, set.Expr.Refs); err != nil {
		return none, err
	}
	v, err := set.Expr.Eval(x.env(s, nil, set.Expr.Refs))
	if err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	got, ok := v.(T)
	if !ok {
		return none, fmt.Errorf("%s: %s gives %T, not %s", what, set.Expr.Source, v, reflect.TypeFor[T]())
	}
	return got, nil
}

// holds evaluates a condition. own are the step's own outputs.
func (x *run) holds(s *scope, c *Condition, own map[string]any) (bool, error) {
	if err := x.known(s, own, c.Expr.Refs); err != nil {
		return false, err
	}
	v, err := c.Expr.Eval(x.env(s, own, c.Expr.Refs))
	if err != nil {
		return false, err
	}
	b, _ := v.(bool)
	return b, nil
}

// explain gives the operands of a condition with their values: lag = 12, connected = true.
func (x *run) explain(s *scope, c *Condition, own map[string]any) string {
	parts := c.Expr.Parts(x.env(s, own, c.Expr.Refs))
	words := ""
	for i, p := range parts {
		if i > 0 {
			words += ", "
		}
		words += p.Text + " = " + show(p.Value)
	}
	return x.mask.String(words)
}

func show(v any) string {
	if v == nil {
		return "null"
	}
	w, err := expression.Text(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(w) > 200 {
		w = w[:200] + "…"
	}
	return w
}

// must is require and expect: the first condition that does not hold, as an error.
func (x *run) must(s *scope, kind string, conditions []*Condition, own map[string]any) *steps.Error {
	for _, c := range conditions {
		ok, err := x.holds(s, c, own)
		if err != nil {
			return &steps.Error{Kind: kind, Err: fmt.Errorf("%s: %s: %w", kind, c.Expr.Source, err)}
		}
		if !ok {
			why := x.explain(s, c, own)
			if why != "" {
				why = " (" + why + ")"
			}
			return steps.Errorf(kind, "%s: %s does not hold%s", kind, c.Expr.Source, why)
		}
	}
	return nil
}

// enter makes the frame of a unit. A target given as an input is one of the caller's;
// the runbook itself has no caller, its inputs name its own targets.
func (x *run) enter(caller *frame, u *Unit, inputs map[string]any, secrets map[string]any) (*frame, error) {
	fr := &frame{unit: u, secrets: secrets, inputs: maps.Clone(inputs), vars: map[string]any{}, targets: map[string]*boundTarget{}, shown: map[string]any{}}
	if fr.inputs == nil {
		fr.inputs = map[string]any{}
	}
	if caller != nil {
		if err := fr.takeTargets(caller); err != nil {
			return nil, err
		}
	}
	s := newScope(fr, nil, "", nil)
	for _, v := range u.Vars {
		value, err := x.eval(s, v.Value)
		if err != nil {
			return nil, fmt.Errorf("vars.%s: %w", v.Name, err)
		}
		fr.vars[v.Name] = value
	}
	for _, decl := range u.Targets {
		t, err := x.bindTarget(s, decl.Name, decl.Kind, decl.Config)
		if err != nil {
			return nil, err
		}
		facts, err := x.eval(s, decl.Facts)
		if err != nil {
			return nil, fmt.Errorf("target %s: facts: %w", decl.Name, err)
		}
		t.describe(decl.Decl, facts)
		fr.targets[decl.Name] = t
		fr.shown[decl.Name] = t.shown
	}
	if caller == nil {
		if err := fr.takeTargets(fr); err != nil {
			return nil, err
		}
	}
	return fr, nil
}

// takeTargets resolves the inputs of type target among the targets of from.
func (fr *frame) takeTargets(from *frame) error {
	for _, in := range fr.unit.Inputs {
		v := fr.inputs[in.Name]
		if in.Kind != "target" || v == nil {
			continue
		}
		name, _ := targetName(v)
		t := from.find(name)
		if t == nil {
			return fmt.Errorf("input %s: there is no target %q", in.Name, name)
		}
		fr.targets[t.Name] = t
		fr.inputs[in.Name] = t.shown
	}
	return nil
}

// find looks a target up by name.
func (fr *frame) find(name string) *boundTarget {
	return fr.targets[name]
}

// bindTarget evaluates a declaration.
func (x *run) bindTarget(s *scope, name string, def *steps.TargetDefinition, config *Template) (*boundTarget, error) {
	v, err := x.eval(s, config)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	values, _ := v.(map[string]any)
	t := &boundTarget{Target: steps.Target{Name: name, Kind: def.Name, Config: values}, def: def}
	cfg := reflect.New(def.Config)
	if err := schema.Bind(values, cfg.Interface()); err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	t.cfg = cfg.Interface()
	for _, p := range def.Valid(t.cfg, func(string) bool { return false }) {
		return nil, fmt.Errorf("target %s: %s %s", name, p.Input, p.Message)
	}
	t.addr = def.Addr(t.cfg)
	t.shown = map[string]any{"name": name, "kind": def.Name, "addr": t.addr, "group": nil, "labels": map[string]any{}, "facts": map[string]any{}}
	return t, nil
}

func (t *boundTarget) describe(decl *schema.Target, facts any) {
	if decl == nil {
		return
	}
	if decl.Group.Set {
		t.shown["group"] = decl.Group.Value
	}
	labels := map[string]any{}
	for _, l := range decl.Labels {
		labels[l.Key.Value] = l.Value.Value
	}
	t.shown["labels"] = labels
	if m, ok := facts.(map[string]any); ok {
		t.shown["facts"] = m
	}
}

// targetName is the name in a value of type target, or a name itself.
func targetName(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case map[string]any:
		name, ok := v["name"].(string)
		return name, ok
	}
	return "", false
}

// pool holds the clients of a run: one of each target and access, opened when first asked for.
type pool struct {
	mu      sync.Mutex
	clients map[poolKey]*pooled
	connect func(ctx context.Context, t steps.Target, a steps.Access) (any, bool, error)
}

type poolKey struct {
	target *boundTarget
	access steps.Access
}

type pooled struct {
	mu     sync.Mutex
	client any
	close  func(any) error
}

func (p *pool) get(ctx context.Context, t *boundTarget, a steps.Access) (any, error) {
	p.mu.Lock()
	c := p.clients[poolKey{t, a}]
	if c == nil {
		c = &pooled{}
		p.clients[poolKey{t, a}] = c
	}
	p.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	if p.connect != nil {
		client, ok, err := p.connect(ctx, t.Target, a)
		if err != nil {
			return nil, err
		}
		if ok {
			c.client = client
			return client, nil
		}
	}
	client, err := t.def.Open(ctx, t.cfg, a)
	if err != nil {
		return nil, err
	}
	c.client, c.close = client, t.def.Close
	return client, nil
}

func (p *pool) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		if c.client != nil && c.close != nil {
			_ = c.close(c.client) // nothing was lost: every answer was read
		}
	}
	p.clients = nil
}
