package runner

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// planScope is what expressions may read at one place of the tree.
type planScope struct {
	unit   *Unit
	parent *planScope // of the caller; nil in the runbook itself
	prefix string     // of journal paths
	within string     // names of the runbooks around it, for the plan's head
	env    map[string]any
	// unknown says why a name (item, inputs.x, vars.y, targets.z) has no value yet.
	unknown map[string]string
	targets map[string]*planTarget
	fan     string // name of the fan-out's target
	guards  []string
	// askedBy is the step at which a person is asked about the one that this unit is; empty: nobody is.
	askedBy string
	count   countsAs
}

type planTarget struct {
	PlanTarget
	shown map[string]any
}

// root makes the scope of the runbook itself, and the plan's head lines about it.
func (pl *planner) root(in *Inputs, plan *Plan) *planScope {
	u := pl.program.Root
	secrets := map[string]any{}
	for _, s := range u.Secrets {
		secrets[s.Name] = SecretText(s.Name)
		plan.Secrets = append(plan.Secrets, PlanSecret{Name: s.Name, From: s.source()})
	}
	inputs := map[string]any{}
	for _, i := range u.Inputs {
		if i.Kind == "secret" {
			inputs[i.Name] = SecretText(i.Name)
			continue
		}
		inputs[i.Name] = in.Values[i.Name]
		plan.Inputs = append(plan.Inputs, PlanValue{Name: i.Name, Type: i.Kind, Value: jsonable(in.Values[i.Name]), Origin: in.Origins[i.Name]})
	}
	s := pl.enter(nil, u, "", "", inputs, map[string]string{}, secrets)
	for _, g := range u.Guards {
		s.guards = append(s.guards, g.ID)
	}
	plan.Guards, plan.Outputs = pl.guards(s, u.Guards), outputsOf(u.Outputs)
	for _, v := range u.Vars {
		pv := PlanValue{Name: v.Name, Unknown: s.unknown["vars."+v.Name]}
		if pv.Unknown == "" {
			pv.Value = jsonable(s.env["vars"].(map[string]any)[v.Name])
		}
		plan.Vars = append(plan.Vars, pv)
	}
	for _, t := range u.Targets {
		plan.Targets = append(plan.Targets, s.targets[t.Name].PlanTarget)
	}
	if u.Lock != nil {
		plan.Lock = pl.text(s, u.Lock)
		plan.LockTarget, plan.LockHold = u.Book.Lock.Target.Value, u.Book.Lock.Hold.Value
	}
	byName := func(a, b PlanValue) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(plan.Inputs, byName)
	slices.SortFunc(plan.Vars, byName)
	slices.SortFunc(plan.Secrets, func(a, b PlanSecret) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(plan.Targets, func(a, b PlanTarget) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func (s *Secret) source() string {
	switch d := s.Decl; {
	case d.Env.Set:
		return "environment variable " + d.Env.Value
	case d.File.Set:
		return "file " + d.File.Value
	case len(d.Command) > 0:
		words := make([]string, len(d.Command))
		for i := range d.Command {
			words[i] = d.Command[i].Value
		}
		return "command " + strings.Join(words, " ")
	}
	return ""
}

// enter makes the scope of a unit whose inputs are bound as far as they are known.
func (pl *planner) enter(parent *planScope, u *Unit, prefix, within string, inputs map[string]any, unknown map[string]string, secrets map[string]any) *planScope {
	vars, shown := map[string]any{}, map[string]any{}
	s := &planScope{unit: u, parent: parent, prefix: prefix, within: within, unknown: unknown, targets: map[string]*planTarget{},
		env: map[string]any{"inputs": inputs, "vars": vars, "targets": shown, "run": map[string]any{"name": pl.program.Root.Book.Name.Value}}}
	if parent != nil {
		s.count, s.guards = parent.count, parent.guards
	}
	if secrets != nil {
		s.env["secrets"] = secrets
	}
	for _, in := range u.Inputs {
		if name, ok := targetName(inputs[in.Name]); ok && in.Kind == "target" && parent != nil {
			if t := parent.targets[name]; t != nil {
				s.targets[name], inputs[in.Name] = t, t.shown
			}
		}
	}
	for _, v := range u.Vars {
		value, why, err := pl.eval(s, v.Value)
		if err != nil {
			pl.problem(u, v.Value.At, "vars", fmt.Sprintf("vars.%s: %v", v.Name, err))
			why = "it fails"
		}
		if why != "" {
			s.unknown["vars."+v.Name] = why
			continue
		}
		vars[v.Name] = value
	}
	for _, t := range u.Targets {
		pt := pl.target(s, t.Name, t.Kind, t.Config, t.Decl.Span)
		labels := map[string]any{}
		for _, l := range t.Decl.Labels {
			labels[l.Key.Value] = l.Value.Value
		}
		pt.shown["labels"] = labels
		if t.Decl.Group.Set {
			pt.shown["group"] = t.Decl.Group.Value
		}
		if t.Facts != nil {
			facts, why, err := pl.eval(s, t.Facts)
			if err == nil && why == "" && facts != nil {
				pt.shown["facts"] = facts
			}
		}
		s.targets[t.Name] = pt
		shown[t.Name] = pt.shown
		if pt.Unknown != "" {
			s.unknown["targets."+t.Name] = pt.Unknown
		}
	}
	for _, in := range u.Inputs {
		if name, ok := inputs[in.Name].(string); ok && in.Kind == "target" {
			if t := s.targets[name]; t != nil {
				inputs[in.Name] = t.shown
			}
		}
	}
	return s
}

// target evaluates a declaration of a target.
func (pl *planner) target(s *planScope, name string, def *steps.TargetDefinition, config *Template, at schema.Span) *planTarget {
	pt := &planTarget{PlanTarget: PlanTarget{Name: name}}
	if def != nil {
		pt.Kind = def.Name
	}
	pt.shown = map[string]any{"name": name, "kind": pt.Kind, "addr": "", "group": nil, "labels": map[string]any{}, "facts": map[string]any{}}
	v, why, err := pl.eval(s, config)
	switch {
	case err != nil:
		pl.problem(s.unit, at, "target", fmt.Sprintf("target %s: %v", name, err))
		return pt
	case why != "":
		pt.Unknown = why
		if a := config.entry("addr"); a != nil {
			pt.Addr = pl.text(s, a)
		}
		return pt
	case def == nil:
		return pt
	}
	values, _ := v.(map[string]any)
	cfg := reflect.New(def.Config).Interface()
	if err := schema.Bind(values, cfg); err != nil {
		pl.problem(s.unit, at, "target", fmt.Sprintf("target %s: %v", name, err))
		return pt
	}
	pt.Addr = def.Addr(cfg)
	pt.shown["addr"] = pt.Addr
	return pt
}

// with is a scope further in: names added, and paths that begin with prefix.
func (s *planScope) with(prefix string, names map[string]any, unknown map[string]string) *planScope {
	inner := *s
	inner.prefix = prefix
	if len(names) > 0 {
		inner.env = make(map[string]any, len(s.env)+len(names))
		for k, v := range s.env {
			inner.env[k] = v
		}
		for k, v := range names {
			inner.env[k] = v
		}
	}
	if len(unknown) > 0 || len(names) > 0 && len(s.unknown) > 0 {
		inner.unknown = make(map[string]string, len(s.unknown)+len(unknown))
		for k, v := range s.unknown {
			if _, known := names[k]; !known {
				inner.unknown[k] = v
			}
		}
		for k, v := range unknown {
			inner.unknown[k] = v
		}
	}
	return &inner
}

// why tells the first reason for which names cannot be read yet; empty: all can.
func (s *planScope) why(refs []expression.Ref) string {
	for i := range refs {
		if w := s.whyRef(&refs[i]); w != "" {
			return w
		}
	}
	return ""
}

func (s *planScope) whyRef(r *expression.Ref) string {
	switch first := r.Path[0]; first {
	case "steps":
		if len(r.Path) > 1 {
			return "after " + r.Path[1]
		}
		return whileRunning
	case "run":
		if len(r.Path) > 1 && r.Path[1] == "name" {
			return ""
		}
		return whileRunning
	case "inputs", "vars", "targets":
		if len(s.unknown) == 0 {
			return ""
		}
		if len(r.Path) > 1 {
			return s.unknown[first+"."+r.Path[1]]
		}
		for name, w := range s.unknown {
			if strings.HasPrefix(name, first+".") {
				return w
			}
		}
		return ""
	default:
		if w := s.unknown[first]; w != "" {
			return w
		}
		if _, known := s.env[first]; known {
			return ""
		}
		return whileRunning
	}
}

// eval evaluates a template; why says what it waits for where it cannot be.
func (pl *planner) eval(s *planScope, t *Template) (v any, why string, err error) {
	if t == nil {
		return nil, "", nil
	}
	if t.Constant {
		return t.Literal, "", nil
	}
	t.each(func(p *expression.Program) {
		if why == "" {
			why = s.why(p.Refs)
		}
	})
	if why != "" {
		return nil, why, nil
	}
	v, err = t.Eval(s.env)
	return v, "", err
}

// partial is a template's value as far as it is known, with (after STEP) in the places of the rest.
func (pl *planner) partial(s *planScope, t *Template) any {
	v, why, err := pl.eval(s, t)
	switch {
	case err != nil:
		return "(" + err.Error() + ")"
	case why == "":
		return jsonable(plain(v))
	case t.Cond != nil:
		return t.Cond.Expr.Source
	case t.Expr != nil:
		return "(" + why + ")"
	case t.Parts != nil:
		return pl.text(s, t)
	case t.Map != nil:
		m := make(map[string]any, len(t.Map))
		for _, e := range t.Map {
			m[e.Key] = pl.partial(s, e.Value)
		}
		return m
	}
	list := make([]any, len(t.List))
	for i, e := range t.List {
		list[i] = pl.partial(s, e)
	}
	return list
}

// plain gives the conditions in a value as their text: their parts are of a run.
func plain(v any) any {
	switch v := v.(type) {
	case schema.Condition:
		return v.Text
	case []any:
		for i := range v {
			if _, ok := v[i].(schema.Condition); ok {
				list := make([]any, len(v))
				for i := range v {
					list[i] = plain(v[i])
				}
				return list
			}
		}
	case map[string]any:
		for _, e := range v {
			switch e.(type) {
			case schema.Condition, []any:
				m := make(map[string]any, len(v))
				for k, e := range v {
					m[k] = plain(e)
				}
				return m
			}
		}
	}
	return v
}

// text is a template as people read it, with (after STEP) for what is not known.
func (pl *planner) text(s *planScope, t *Template) string {
	if t == nil {
		return ""
	}
	if t.Constant || t.Parts == nil {
		v, why, err := pl.eval(s, t)
		switch {
		case err != nil:
			return "(" + err.Error() + ")"
		case why != "":
			return "(" + why + ")"
		case v == nil:
			return ""
		}
		return ShowValue(v)
	}
	var b strings.Builder
	for _, p := range t.Parts {
		switch {
		case p.Expr == nil:
			b.WriteString(p.Literal)
		case s.why(p.Expr.Refs) != "":
			b.WriteString("(" + s.why(p.Expr.Refs) + ")")
		default:
			v, err := p.Expr.Eval(s.env)
			if err != nil {
				b.WriteString("(" + err.Error() + ")")
			} else {
				b.WriteString(ShowValue(v))
			}
		}
	}
	return b.String()
}
