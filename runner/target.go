package runner

import (
	"cmp"
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// bindTarget binds what a step acts on: its own target, or that of the nearest group
// around it that has one of a kind it can act on.
func (r *resolver) bindTarget(n *Node, p place) {
	s := n.Step
	switch {
	case s.Targets != nil:
		n.FanOut = true
		r.fanOut(n)
		return
	case s.Target != nil:
		p.secrets = true
		binding, kind := r.binding(s.Target, p)
		n.Target = binding
		switch {
		case n.Kind != nil:
			r.accepts(n.Kind, kind, s.Target.Span)
		case n.Shape == Call:
			r.wrong(s.Target.Span, "unexpected-target", "", "a runbook used as a step is told its targets by its inputs (with), not by target")
		}
		return
	}
	if n.Kind == nil || len(n.Kind.On) == 0 {
		return
	}
	for g := n.Parent; g != nil; g = g.Parent {
		if g.Step.Target == nil && g.Step.Targets == nil {
			continue
		}
		kinds := g.kindsOfTarget()
		for _, kind := range kinds {
			if actsOn(n.Kind, kind) {
				continue
			}
			if !n.Kind.TargetOptional {
				r.wrong(s.Uses.Span, "missing-target", "target: …", "%s acts on %s, but the target of the group %s is of kind %s: give the step a target of its own",
					n.Kind.Name, strings.Join(n.Kind.On, " or "), g.ID, kind)
			}
			return
		}
		n.Target = g.Target
		if g.FanOut {
			n.Target = &Binding{Each: g}
			if len(kinds) == 1 {
				n.Target.Kind = r.catalog.Targets[kinds[0]]
			}
		}
		return
	}
	r.needsTarget(n.Kind, s.Uses.Span)
}

// kindsOfTarget are the kinds of target that a group hands on; "" is not known before running.
func (n *Node) kindsOfTarget() []string {
	if n.FanOut {
		var kinds []string
		for _, t := range n.Targets {
			if t.Kind != nil && !slices.Contains(kinds, t.Kind.Name) {
				kinds = append(kinds, t.Kind.Name)
			}
		}
		return kinds
	}
	if kind := n.Target.kind(); kind != nil {
		return []string{kind.Name}
	}
	return nil
}

func (b *Binding) kind() *steps.TargetDefinition {
	switch {
	case b == nil:
		return nil
	case b.Target != nil:
		return b.Target.Kind
	}
	return b.Kind
}

// needsTarget reports a step without the target that its kind acts on.
func (r *resolver) needsTarget(k *steps.Definition, at schema.Span) {
	if len(k.On) == 0 || k.TargetOptional {
		return
	}
	suggestion := "target: …"
	var fitting []string
	for _, t := range r.u.Targets {
		if t.Kind != nil && actsOn(k, t.Kind.Name) {
			fitting = append(fitting, t.Name)
		}
	}
	if len(fitting) > 0 {
		suggestion = "target: " + fitting[0]
	}
	r.wrong(at, "missing-target", suggestion, "%s needs a target: it acts on %s", k.Name, strings.Join(k.On, " or "))
}

// accepts reports a target of a kind that the step cannot act on.
func (r *resolver) accepts(k *steps.Definition, kind string, at schema.Span) {
	switch {
	case len(k.On) == 0:
		r.wrong(at, "unexpected-target", "", "%s acts on no target", k.Name)
	case !actsOn(k, kind):
		r.wrong(at, "target-kind", "", "%s acts on %s, not on a target of kind %s", k.Name, strings.Join(k.On, " or "), kind)
	}
}

// binding binds a target: a name, one expression of type target, or an inline map. kind
// is empty where it is not known before running, or was reported.
func (r *resolver) binding(v *schema.Value, p place) (b *Binding, kind string) {
	p.secrets = true
	switch v.Kind {
	case schema.MapValue:
		return r.inline(v, p)
	case schema.ListValue:
		r.wrong(v.Span, "wrong-type", "targets: […]", "target is one target; several stand under targets")
		return nil, ""
	}
	if v.Scalar == nil || v.Scalar.Tag == schema.Null {
		r.wrong(v.Span, "wrong-type", "", "target wants the name of a target")
		return nil, ""
	}
	text, findings := v.Scalar.AsText()
	r.findings = append(r.findings, findings...)
	if schema.Failed(findings) {
		return nil, ""
	}
	if name, ok := text.Literal(); ok {
		t := r.target(name)
		if t == nil {
			r.unknownTarget(v.Span, name)
			return nil, ""
		}
		if t.Kind != nil {
			kind = t.Kind.Name
		}
		return &Binding{Target: t}, kind
	}
	e := text.Whole()
	if e == nil {
		r.wrong(v.Span, "wrong-type", "", "target is a name, one ${{ … }} of type target, or a map with a kind: never text with an expression in it")
		return nil, ""
	}
	p.noSecret = "a secret is no target"
	p.secrets = false
	program := r.compile(e, p, nil, expression.Plain)
	if program == nil {
		return nil, ""
	}
	kind, ok := isTarget(program.Type)
	if !ok && program.Type.Kind != expression.Any || program.Type.Nullable {
		r.misfit(e, program, "a target, such as targets.NAME or an input of type target")
		return nil, ""
	}
	return &Binding{Expr: program, Kind: r.catalog.Targets[kind]}, kind
}

// inline binds a target that stands in the step itself.
func (r *resolver) inline(v *schema.Value, p place) (*Binding, string) {
	declared, ok := v.Map.Get("kind")
	if !ok {
		r.wrong(v.Span, "missing-key", "kind: …", "a target that stands in a step needs its kind")
		return nil, ""
	}
	if declared.Scalar == nil || strings.Contains(declared.Scalar.Text, "${{") {
		if declared.Scalar != nil {
			r.mention(declared.Scalar.Text)
		}
		r.wrong(declared.Span, "wrong-type", "", "the kind of a target is literal, so that it can be checked before anything runs")
		return nil, ""
	}
	def := r.targetKind(schema.Leaf[string]{Value: declared.Scalar.Text, Set: true, Span: declared.Span})
	rest := slices.DeleteFunc(slices.Clone(v.Map), func(e schema.Entry[schema.Value]) bool { return e.Key.Value == "kind" })
	if def == nil {
		for i := range rest {
			r.value(&rest[i].Value, p, nil)
		}
		return nil, ""
	}
	p.isText = true
	return &Binding{Kind: def, Config: r.config(rest, def, p, v.Span)}, def.Name
}

// fanOut finds the targets of a step that runs on several.
func (r *resolver) fanOut(n *Node) {
	v := n.Step.Targets
	if n.Kind != nil && len(n.Kind.On) == 0 {
		r.accepts(n.Kind, "", v.Span)
		return
	}
	switch v.Kind {
	case schema.ListValue:
		for i := range v.List {
			r.member(n, &v.List[i])
		}
		if len(v.List) == 0 {
			r.wrong(v.Span, "no-targets", "", "there is no target in this list: the step would do nothing")
		}
	case schema.MapValue:
		r.selected(n, v)
	default:
		r.wrong(v.Span, "wrong-type", "", "targets is a list of names, {group: NAME} or {labels: {…}}")
		n.broken = true
	}
	slices.SortStableFunc(n.Targets, func(a, b *Target) int { return cmp.Compare(a.Name, b.Name) })
	if n.Shape == Call {
		r.wrong(v.Span, "unexpected-target", "", "a runbook used as a step is told its targets by its inputs: loop over them with for-each")
	}
}

func (r *resolver) member(n *Node, v *schema.Value) {
	name := ""
	if v.Scalar != nil && v.Kind == schema.ScalarValue {
		name = v.Scalar.Text
	}
	if name == "" || strings.Contains(name, "${{") {
		r.wrong(v.Span, "wrong-type", "", "targets are names, known before anything runs; what is only known while running goes through for-each and target")
		return
	}
	t := r.target(name)
	switch {
	case t == nil:
		r.unknownTarget(v.Span, name)
	case slices.Contains(n.Targets, t):
		r.wrong(v.Span, "duplicate-target", "", "%s stands here a second time", name)
	default:
		n.Targets = append(n.Targets, t)
		if n.Kind != nil && t.Kind != nil {
			r.accepts(n.Kind, t.Kind.Name, v.Span)
		}
	}
}

// selected finds targets by group or labels.
func (r *resolver) selected(n *Node, v *schema.Value) {
	var group string
	labels := map[string]string{}
	var names []string // of what is asked for, for the message
	for i := range v.Map {
		key, value := v.Map[i].Key, &v.Map[i].Value
		switch key.Value {
		case "group":
			if value.Scalar == nil {
				r.wrong(value.Span, "wrong-type", "", "group wants the name of a group")
				return
			}
			group = value.Scalar.Text
			names = append(names, "group "+group)
		case "labels":
			if value.Kind != schema.MapValue {
				r.wrong(value.Span, "wrong-type", "", "labels wants a map of labels")
				return
			}
			for j := range value.Map {
				label, want := value.Map[j].Key.Value, &value.Map[j].Value
				if want.Scalar == nil {
					r.wrong(want.Span, "wrong-type", "", "a label is text")
					return
				}
				labels[label] = want.Scalar.Text
				names = append(names, label+": "+want.Scalar.Text)
			}
		default:
			near, _ := schema.Nearest(key.Value, []string{"group", "labels"})
			r.wrong(key.Span, "unknown-key", near, "targets is a list of names, {group: NAME} or {labels: {…}}; it has no key %s", key.Value)
			return
		}
	}
	if len(names) == 0 {
		r.wrong(v.Span, "no-targets", "", "targets asks for nothing: give a group or labels")
		return
	}
	for _, t := range r.u.Targets {
		if group != "" && t.Decl.Group.Value != group {
			continue
		}
		fits := true
		for label, want := range labels {
			got, ok := t.Decl.Labels.Get(label)
			fits = fits && ok && got.Value == want
		}
		if fits {
			n.Targets = append(n.Targets, t)
		}
	}
	if len(n.Targets) == 0 {
		near := ""
		if group != "" && len(labels) == 0 {
			near, _ = schema.Nearest(group, r.groups())
		}
		r.wrong(v.Span, "no-targets", near, "no target has %s: the step would do nothing", strings.Join(names, ", "))
		return
	}
	for _, t := range n.Targets {
		if n.Kind != nil && t.Kind != nil && !actsOn(n.Kind, t.Kind.Name) {
			r.wrong(v.Span, "target-kind", "", "%s acts on %s, but %s, one of these, is of kind %s", n.Kind.Name, strings.Join(n.Kind.On, " or "), t.Name, t.Kind.Name)
			return
		}
	}
}

func (r *resolver) groups() []string {
	var groups []string
	for _, t := range r.u.Targets {
		if g := t.Decl.Group.Value; g != "" && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return groups
}
