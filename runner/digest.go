package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"

	"runbook/runner/expression"
)

// StepDigest is the SHA-256, in hex, over the meaning of a step and of all that stands in it,
// runbooks that it uses included. It is the same wherever the step stands and whatever its
// id, names, comments and layout are; it differs where the step does, asks or acts on
// something else, also through a var or a target's declaration. Values of inputs do not
// count: they are the run's.
func (p *Program) StepDigest(n *Node) string {
	d := digester{units: map[*Unit]string{}}
	return d.sum(func() { d.node(n) })
}

// digester writes the meaning of nodes into a hash.
type digester struct {
	w     io.Writer
	units map[*Unit]string
	// run, where it is not nil, makes what is particular to a run count, too: the values of the
	// inputs of this unit, and where its secrets come from.
	run    *Unit
	values map[string]any
}

// sum is the hash of what write writes.
func (d *digester) sum(write func()) string {
	outer, h := d.w, sha256.New()
	d.w = h
	write()
	d.w = outer
	return hex.EncodeToString(h.Sum(nil))
}

// word writes a text so that no two lists of texts come to the same.
func (d *digester) word(format string, args ...any) {
	_, _ = fmt.Fprintf(d.w, "%q\n", fmt.Sprintf(format, args...)) // a hash never fails
}

func (d *digester) node(n *Node) {
	d.word("step")
	targets := map[string]*Target{}
	names := d.names(n.Unit, targets)
	d.facts(n.Meaning(), names)
	if n.Sub != nil {
		d.word("runbook %s", d.unit(n.Sub))
		for _, e := range n.With.entries() {
			in := n.Sub.input(e.Key)
			f := Fact{Field: "with." + e.Key, Value: e.Value, Targets: in != nil && in.Kind == "target"}
			d.facts([]Fact{f}, names)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		d.word("target %s", name)
		d.facts(targets[name].Meaning(), d.names(n.Unit, map[string]*Target{}))
	}
	for role, list := range [][]*Node{InSteps: n.Children, InRescue: n.Rescue, InAfterBatch: n.AfterBatch, InUndo: n.UndoSteps} {
		for _, inner := range list {
			d.word("%d %s", role, inner.ID)
			d.node(inner)
		}
	}
	d.word("end")
}

func (d *digester) facts(facts []Fact, names Names) {
	for i := range facts {
		d.word("%s", facts[i].Field)
		d.word("%s", facts[i].Term(names).Key())
		if facts[i].Hidden && facts[i].Value.Constant {
			d.word("%v", facts[i].Value.Literal)
		}
	}
}

// unit is the meaning of a runbook used as a step.
func (d *digester) unit(u *Unit) string {
	if known, ok := d.units[u]; ok {
		return known
	}
	d.units[u] = d.sum(func() {
		for _, in := range u.Inputs {
			d.word("input %s", in.Name)
			d.facts(in.Meaning(), nil)
		}
		d.word("on-failure %s", u.OnFailure)
		for _, list := range [][]*Node{u.Steps, u.Finally} {
			for _, n := range list {
				d.word("%s", n.ID)
				d.node(n)
			}
			d.word("end")
		}
		names := d.names(u, map[string]*Target{})
		for _, o := range u.Outputs {
			d.word("output %s", o.Name)
			d.word("%s", o.Expr.Term(names).Key())
		}
	})
	return d.units[u]
}

// names puts vars in their places, and notes the targets that are read.
func (d *digester) names(u *Unit, read map[string]*Target) Names {
	var names Names
	names = func(path []string) (expression.Term, bool) {
		if len(path) < 2 {
			return expression.Term{}, false
		}
		switch path[0] {
		case "inputs":
			return d.given(u, path, names)
		case "secrets":
			return d.secret(u, path)
		case "vars":
			for _, v := range u.Vars {
				if v.Name == path[1] {
					return expression.Select(v.Value.Term(names), path[2:]...), true
				}
			}
		case "targets":
			for _, t := range u.Targets {
				if t.Name == path[1] {
					read[t.Name] = t
				}
			}
		}
		return expression.Term{}, false
	}
	return names
}

// given puts the value of an input in its place; a target's name is that target.
func (d *digester) given(u *Unit, path []string, names Names) (expression.Term, bool) {
	in := u.input(path[1])
	if u != d.run || in == nil {
		return expression.Term{}, false
	}
	if in.Kind == "secret" {
		return d.secret(u, path)
	}
	v := d.values[path[1]]
	if name, ok := v.(string); ok && in.Kind == "target" {
		at := append([]string{"targets", name}, path[2:]...)
		if t, ok := names(at); ok {
			return t, true
		}
		return expression.Reference(at), true
	}
	return expression.Select(expression.Constant(v), path[2:]...), true
}

// secret is a reference to a secret with its source.
func (d *digester) secret(u *Unit, path []string) (expression.Term, bool) {
	if u != d.run {
		return expression.Term{}, false
	}
	at := slices.Clone(path)
	for _, s := range u.Secrets {
		if s.Name == path[1] {
			at = append(at, d.sum(func() { d.facts(s.Meaning(), nil) }))
		}
	}
	return expression.Reference(at), true
}
