package diff

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"runbook/runner"
	"runbook/schema"
)

// WriteMeaning writes what one runbook says, without those that it uses, a fact a line under
// the ids of its steps: text in which a line that differs means something else. Expressions
// are in canonical form; what is for people alone is not there.
func WriteMeaning(w io.Writer, p *runner.Program) error {
	b := &strings.Builder{}
	sc := unfold(p, nil, "new").root
	u := p.Root
	fmt.Fprintf(b, "runbook %s\n  on-failure: %s\n", u.Book.Name.Value, u.OnFailure)
	for _, in := range byName(u.Inputs, func(in *runner.Input) string { return in.Name }) {
		fmt.Fprintf(b, "\ninput %s\n", in.Name)
		write(b, in.Meaning())
	}
	for _, s := range byName(u.Secrets, func(s *runner.Secret) string { return s.Name }) {
		fmt.Fprintf(b, "\nsecret %s\n", s.Name)
		write(b, s.Meaning())
	}
	if len(u.Vars) > 0 {
		b.WriteString("\nvars\n")
	}
	for _, v := range byName(u.Vars, func(v *runner.Var) string { return v.Name }) {
		write(b, []runner.Fact{{Field: v.Name, Value: v.Value}})
	}
	for _, t := range byName(u.Targets, func(t *runner.Target) string { return t.Name }) {
		fmt.Fprintf(b, "\ntarget %s\n", t.Name)
		write(b, t.Meaning())
	}
	if facts := lockFacts(sc); facts != nil {
		b.WriteString("\nlock\n")
		write(b, facts)
	}
	for _, g := range byName(u.Guards, func(g *runner.Guard) string { return g.ID }) {
		fmt.Fprintf(b, "\nguard %s\n", g.ID)
		write(b, g.Meaning())
	}
	if facts := u.PolicyMeaning(); len(facts) > 0 {
		b.WriteString("\npolicy\n")
		write(b, facts)
	}
	for _, s := range sc.book.sites {
		s.head(b)
		write(b, s.facts)
		if s.node.Shape == runner.Call {
			for _, e := range byName(s.node.Step.With, func(e schema.Entry[schema.Value]) string { return e.Key.Value }) {
				fmt.Fprintf(b, "  with.%s: %s\n", e.Key.Value, oneLine(show(e.Value.Plain())))
			}
		}
	}
	if facts := outputFacts(sc); len(facts) > 0 {
		b.WriteString("\noutputs\n")
		write(b, byName(facts, func(f runner.Fact) string { return f.Field }))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// byName are the elements of a list by their names: their order means nothing.
func byName[T any](list []T, name func(T) string) []T {
	return slices.SortedStableFunc(slices.Values(list), func(a, b T) int { return strings.Compare(name(a), name(b)) })
}

var roleNames = map[runner.Role]string{runner.InRescue: "rescue of ", runner.InUndo: "undo of ", runner.InAfterBatch: "after a batch of "}

// head is the line above a step's facts.
func (s *site) head(b *strings.Builder) {
	where := ""
	switch {
	case s.parent != nil && roleNames[s.role] != "":
		where = " (" + roleNames[s.role] + s.parent.key + ")"
	case s.parent != nil:
		where = " (in " + s.parent.key + ")"
	case s.role == runner.InFinally:
		where = " (finally)"
	}
	fmt.Fprintf(b, "\nstep %s%s\n", s.key, where)
	if s.node.Shape == runner.Call {
		fmt.Fprintf(b, "  uses: %s\n", s.node.Step.Uses.Value)
	}
}

func write(b *strings.Builder, facts []runner.Fact) {
	for i := range facts {
		f := &facts[i]
		switch {
		case f.Hidden && f.Value.Expr == nil:
			fmt.Fprintf(b, "  %s: ***\n", f.Field)
		case f.Value != nil && f.Value.Constant:
			fmt.Fprintf(b, "  %s: %s\n", f.Field, oneLine(show(f.Value.Literal)))
		case len(f.All) > 0:
			for _, c := range f.All {
				fmt.Fprintf(b, "  %s: %s\n", f.Field, oneLine(c.Expr.Term(nil).String()))
			}
		default:
			fmt.Fprintf(b, "  %s: %s\n", f.Field, oneLine(f.Term(nil).String()))
		}
	}
}
