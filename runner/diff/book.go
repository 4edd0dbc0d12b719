package diff

import (
	"strings"

	"runbook/runner"
	"runbook/steps"
)

// book is one side of a comparison: a program unfolded, each use of a runbook as the steps
// that it stands for.
type book struct {
	side   string // old or new
	values map[string]any
	root   *scope
	top    []*site
	sites  []*site // all, in the order of the text
	epoch  int     // changes when references change their meaning
}

// mostSites bounds what is unfolded: runbooks that use each other twice, ten times over, are
// a thousand. What lies beyond is compared as a whole.
const mostSites = 20_000

// scope is one use of a file, and so what its names mean.
type scope struct {
	book    *book
	unit    *runner.Unit
	program *runner.Program
	call    *site // the step that uses it; nil: the runbook itself
	other   *scope
	byID    map[string]*site
	inputs  map[string]*definition
	vars    map[string]*definition
	outputs map[string]*definition // as a caller reads them
	targets map[string]*named
	secrets map[string]*named
	ordered []*definition // in the order of the text
}

// named is something that is referred to by its name alone: the name that both sides have
// for it is canonical.
type named struct {
	name, canon string
	other       *named
}

// site is a step in the tree.
type site struct {
	node   *runner.Node
	scope  *scope
	parent *site // the step around it, also the one that uses its runbook
	role   runner.Role
	key    string // ids of the uses around it, and its own: cut/hold
	inner  []*site
	body   *scope        // of a use of a runbook
	outs   []*definition // values that it gives under names of its author's
	order  int
	nature nature
	within natures // of it and all that stands in it

	facts []runner.Fact
	other *site
	canon string // how both sides name it; "?" while it has no counterpart
}

// nature is what a step is to a reviewer.
type nature int

const (
	looks  nature = iota // reads, and nothing depends on what it sees but expressions
	checks               // stops the run where something is not as it must be, or asks a person
	writes
	cuts // moves traffic, or destroys
)

// natures are a set of them.
type natures [4]bool

func unfold(p *runner.Program, values map[string]any, side string) *book {
	b := &book{side: side, values: values}
	b.root = b.enter(p, p.Root, nil)
	b.top = b.list(b.root, nil, "", p.Root.Steps)
	b.top = append(b.top, b.list(b.root, nil, "", p.Root.Finally)...)
	return b
}

func (b *book) list(sc *scope, parent *site, prefix string, nodes []*runner.Node) []*site {
	list := make([]*site, len(nodes))
	for i, n := range nodes {
		s := &site{node: n, scope: sc, parent: parent, role: n.Role, key: prefix + n.ID, order: len(b.sites), facts: n.Meaning(), canon: "?"}
		list[i] = s
		b.sites = append(b.sites, s)
		sc.byID[n.ID] = s
		s.nature = natureOf(n)
		s.nameValues()
		for _, inner := range [][]*runner.Node{n.Children, n.AfterBatch, n.UndoSteps, n.Rescue} {
			s.inner = append(s.inner, b.list(sc, s, prefix, inner)...)
		}
		if n.Sub != nil && len(b.sites) < mostSites {
			s.body = b.enter(sc.program, n.Sub, s)
			s.inner = append(s.inner, b.list(s.body, s, s.key+"/", n.Sub.Steps)...)
			s.inner = append(s.inner, b.list(s.body, s, s.key+"/", n.Sub.Finally)...)
		} else if n.Sub != nil {
			s.facts = append(s.facts, folded(sc.program, n))
		}
	}
	return list
}

// folded is a use of a runbook as one fact.
func folded(p *runner.Program, n *runner.Node) runner.Fact {
	return runner.Fact{Field: "uses", Value: &runner.Template{Constant: true, Literal: n.Step.Uses.Value + " " + p.StepDigest(n)[:12]}, At: n.Step.Uses.Span}
}

// natureOf tells what a step with a kind is to a reviewer.
func natureOf(n *runner.Node) nature {
	k := n.Kind
	switch {
	case k == nil:
		return looks
	case k.Engine == steps.EngineGate:
		return checks
	case k.NothingToUndo && n.Effect == steps.Write:
		return looks // tells somebody
	case n.Effect >= steps.Cutover:
		return cuts
	case n.Effect == steps.Write:
		return writes
	case n.Wait != nil || len(n.Expect) > 0 || len(n.Require) > 0:
		return checks
	case k.AuthorKnows:
		return checks // an exit code or an answer that is not as wanted fails it
	}
	_, verb, _ := strings.Cut(k.Name, ".")
	if k.Name == "check" || strings.HasPrefix(verb, "check-") || verb == "compare" || strings.HasPrefix(verb, "await-") {
		return checks
	}
	return looks
}

// enter makes the scope of a use of a file. The values of the runbook's own inputs are known
// as far as they are given or have a default, those of a use are the caller's expressions.
func (b *book) enter(p *runner.Program, u *runner.Unit, call *site) *scope {
	sc := &scope{book: b, unit: u, program: p, call: call, byID: map[string]*site{}, inputs: map[string]*definition{},
		vars: map[string]*definition{}, outputs: map[string]*definition{}, targets: map[string]*named{}, secrets: map[string]*named{}}
	add := func(into map[string]*definition, d *definition) {
		d.book, d.canon, d.order = b, "?", len(b.sites)
		into[d.name] = d
		sc.ordered = append(sc.ordered, d)
	}
	for _, in := range u.Inputs {
		d := &definition{what: "input", name: in.Name, input: in, path: u.Book.Path, at: in.Decl.Type.Span, inner: sc}
		if call != nil {
			d.what, d.reader = "with", &site{node: call.node, scope: call.scope, parent: call.parent}
			d.fact = &runner.Fact{Field: "with." + in.Name, Value: given(call.node, in), Targets: in.Kind == "target", Scope: runner.Each}
			d.path, d.at = call.scope.unit.Book.Path, d.fact.Value.At
			if d.at.Start.Line == 0 { // the runbook's own default
				d.path, d.at = u.Book.Path, in.Decl.Type.Span
				if in.Decl.Default != nil {
					d.at = in.Decl.Default.Span
				}
			}
		} else if in.Decl.Default != nil {
			d.at = in.Decl.Default.Span
		}
		add(sc.inputs, d)
	}
	for _, v := range u.Vars {
		add(sc.vars, &definition{what: "var", name: v.Name, fact: &runner.Fact{Field: "value", Value: v.Value, At: v.Value.At},
			reader: &site{scope: sc}, path: u.Book.Path, at: v.Value.At, inner: sc})
	}
	if call != nil {
		for i := range u.Outputs {
			o := &u.Outputs[i]
			add(sc.outputs, &definition{what: "output", name: o.Name, fact: &runner.Fact{Field: "outputs." + o.Name, Value: &runner.Template{Expr: o.Expr, Type: o.Expr.Type, At: o.At.Span}},
				reader: &site{scope: sc}, path: u.Book.Path, at: o.At.Span, inner: sc})
		}
	}
	for _, t := range u.Targets {
		sc.targets[t.Name] = &named{name: t.Name, canon: "?"}
	}
	for _, s := range u.Secrets {
		sc.secrets[s.Name] = &named{name: s.Name, canon: "?"}
	}
	return sc
}

// given is what a caller gives for an input, or the input's default.
func given(call *runner.Node, in *runner.Input) *runner.Template {
	if call.With != nil {
		for _, e := range call.With.Map {
			if e.Key == in.Name {
				return e.Value
			}
		}
		if values, ok := call.With.Literal.(map[string]any); ok {
			if v, ok := values[in.Name]; ok {
				return &runner.Template{Constant: true, Literal: v, At: call.With.At}
			}
		}
	}
	return &runner.Template{Constant: true, Literal: in.Default}
}
