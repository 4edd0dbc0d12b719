package runner

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
)

// Select tells which nodes a selection chooses. A group, loop or runbook is chosen with
// anything in it; what stands in rescue, undo and after-batch goes with its step, and
// finally always runs. The order of --from and --to is that of the file. Steps of a
// runbook used as a step are chosen with that step.
//
// A *UsageError says what cannot be: a step or tag that is not there, nothing chosen, or
// a chosen step that reads one left out.
func (p *Program) Select(sel Selection) (func(n *Node) bool, error) {
	if sel.From == "" && sel.To == "" && len(sel.Only) == 0 && len(sel.Skip) == 0 {
		return func(*Node) bool { return true }, nil
	}
	s := selecting{program: p, sel: sel, chosen: map[*Node]bool{}}
	if err := s.choose(); err != nil {
		return nil, err
	}
	if err := s.reads(); err != nil {
		return nil, err
	}
	root := p.Root
	return func(n *Node) bool { return n.Unit != root || s.chosen[n] }, nil
}

type selecting struct {
	program *Program
	sel     Selection
	order   []*Node // those that a selection can choose, in the order of the file
	chosen  map[*Node]bool
}

func (s *selecting) choose() error {
	s.collect(s.program.Root.Steps)
	from, to := 0, len(s.order)
	if s.sel.From != "" {
		i, err := s.find("--from", s.sel.From)
		if err != nil {
			return err
		}
		from = i
	}
	if s.sel.To != "" {
		i, err := s.find("--to", s.sel.To)
		if err != nil {
			return err
		}
		to = i + 1
		for to < len(s.order) && within(s.order[to], s.order[i]) {
			to++ // a group with all that is in it
		}
	}
	if from >= to {
		return &UsageError{Err: fmt.Errorf("--from %s stands after --to %s: nothing is left to run", s.sel.From, s.sel.To)}
	}
	if err := s.knownTags(); err != nil {
		return err
	}
	for i, n := range s.order {
		if i < from || i >= to || s.skipped(n) || len(s.sel.Only) > 0 && !s.only(n) {
			continue
		}
		// A group that begins before --from is chosen through what is in it.
		if n.Shape != Group {
			s.take(n)
		}
	}
	if len(s.chosen) == 0 {
		return &UsageError{Err: fmt.Errorf("the selection leaves nothing to run")}
	}
	for n := range s.chosen {
		for _, list := range [][]*Node{n.Rescue, n.AfterBatch, n.UndoSteps} {
			eachNode(list, func(inner *Node) { s.chosen[inner] = true })
		}
	}
	eachNode(s.program.Root.Finally, func(n *Node) { s.chosen[n] = true })
	return nil
}

// collect gives the nodes that a selection can choose: those in steps, at any depth.
func (s *selecting) collect(nodes []*Node) {
	for _, n := range nodes {
		s.order = append(s.order, n)
		s.collect(n.Children)
	}
}

func (s *selecting) take(n *Node) {
	for ; n != nil; n = n.Parent {
		s.chosen[n] = true
	}
}

// within tells that a node stands inside another.
func within(n, outer *Node) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if p == outer {
			return true
		}
	}
	return false
}

func (s *selecting) find(flag, id string) (int, error) {
	ids := make([]string, 0, len(s.order))
	for i, n := range s.order {
		if n.ID == id {
			return i, nil
		}
		ids = append(ids, n.ID)
	}
	if first, rest, ok := strings.Cut(id, "/"); ok {
		for _, n := range s.order {
			if n.ID == first && n.Shape == Call {
				return 0, &UsageError{Err: fmt.Errorf("%s %s: a runbook used as a step is run whole; %s stands in one", flag, id, rest), Hint: flag + " " + first}
			}
		}
	}
	if base, _, ok := strings.Cut(id, "["); ok && slices.Contains(ids, base) {
		return 0, &UsageError{Err: fmt.Errorf("%s %s: a selection takes the id of a step, not one of its items", flag, id), Hint: flag + " " + base}
	}
	if n := s.program.Root.nodes[id]; n != nil {
		return 0, &UsageError{Err: fmt.Errorf("%s %s: that step is not one of the order: it stands in rescue, undo, after-batch or finally", flag, id)}
	}
	near, _ := schema.Nearest(id, ids)
	e := &UsageError{Err: fmt.Errorf("%s %s: the runbook has no step %q", flag, id, id)}
	if near != "" {
		e.Hint = "did you mean " + flag + " " + near + "?"
	} else {
		e.Hint = "the steps are " + some(ids)
	}
	return 0, e
}

// some names the first of many.
func some(names []string) string {
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (s *selecting) knownTags() error {
	known := map[string]bool{}
	for _, n := range s.order {
		for _, tag := range n.Tags {
			known[tag] = true
		}
	}
	for _, asked := range []struct {
		flag string
		tags []string
	}{{"--only", s.sel.Only}, {"--skip", s.sel.Skip}} {
		for _, tag := range asked.tags {
			if known[tag] {
				continue
			}
			e := &UsageError{Err: fmt.Errorf("%s %s: no step has the tag %q", asked.flag, tag, tag)}
			names := sortedNames(known)
			if near, ok := schema.Nearest(tag, names); ok {
				e.Hint = "did you mean " + asked.flag + " " + near + "?"
			} else if len(names) > 0 {
				e.Hint = "the tags are " + strings.Join(names, ", ")
			} else {
				e.Hint = "no step of this runbook has tags"
			}
			return e
		}
	}
	return nil
}

// only tells that the node or what it stands in has one of the tags.
func (s *selecting) only(n *Node) bool { return tagged(n, s.sel.Only) }

func (s *selecting) skipped(n *Node) bool { return tagged(n, s.sel.Skip) }

func tagged(n *Node, tags []string) bool {
	for ; n != nil; n = n.Parent {
		if slices.ContainsFunc(n.Tags, func(t string) bool { return slices.Contains(tags, t) }) {
			return true
		}
	}
	return false
}

// reads refuses a selection in which a chosen step reads one that is left out. Its status
// alone may be read: it is skipped then. So may what is reached with ?. or ??, whose
// author reckons with a step that did not run.
func (s *selecting) reads() error {
	var problems []string
	note := func(reader string, refs []expression.Ref) {
		for _, r := range refs {
			if len(r.Path) < 2 || r.Path[0] != "steps" || r.Guarded || len(r.Path) > 2 && r.Path[2] == "status" {
				continue
			}
			read := s.program.Root.nodes[r.Path[1]]
			if read == nil || s.chosen[read] || read.Role == InFinally {
				continue
			}
			text := fmt.Sprintf("%s reads %s of step %s, which is left out", reader, strings.Join(r.Path, "."), read.ID)
			if !slices.Contains(problems, text) {
				problems = append(problems, text)
			}
		}
	}
	for _, list := range [][]*Node{s.program.Root.Steps} {
		eachNode(list, func(n *Node) {
			if s.chosen[n] {
				note("step "+n.ID, n.refs())
			}
		})
	}
	if len(problems) == 0 {
		return nil
	}
	sort.Strings(problems)
	return &UsageError{Err: fmt.Errorf("the selection does not hold together: %s", strings.Join(problems, "; ")),
		Hint: "choose those steps too, or give what they would have found as inputs"}
}

// refs are all the names that a node's own expressions read; not those of the steps in it.
func (n *Node) refs() []expression.Ref {
	var refs []expression.Ref
	template := func(t *Template) {
		if t != nil {
			refs = append(refs, t.Refs()...)
		}
	}
	program := func(p *expression.Program) {
		if p != nil {
			refs = append(refs, p.Refs...)
		}
	}
	condition := func(c *Condition) {
		if c != nil {
			program(c.Expr)
			template(c.Message)
		}
	}
	binding := func(b *Binding) {
		if b != nil {
			program(b.Expr)
			template(b.Config)
		}
	}
	template(n.Name)
	template(n.Why)
	template(n.With)
	binding(n.Target)
	condition(n.When)
	for _, list := range [][]*Condition{n.Require, n.Expect} {
		for _, c := range list {
			condition(c)
		}
	}
	condition(n.Ready)
	if w := n.Wait; w != nil {
		condition(w.Until)
		program(w.Every.Expr)
		program(w.Stable.Expr)
		program(w.Stall.Expr)
	}
	if g := n.Confirm; g != nil {
		template(g.Message)
		template(g.Retype)
		for _, o := range g.Show {
			program(o.Expr)
		}
	}
	if r := n.Repeat; r != nil {
		condition(r.Until)
		program(r.Max.Expr)
		program(r.Every.Expr)
	}
	if l := n.Loop; l != nil {
		template(l.Over)
		template(l.Key)
		template(l.Batch)
		program(l.MaxParallel.Expr)
		program(l.MaxFailures.Expr)
		program(l.PauseBetween.Expr)
	}
	program(n.Retry.Attempts.Expr)
	program(n.Retry.Delay.Expr)
	program(n.Retry.MaxDelay.Expr)
	condition(n.Retry.If)
	if p := n.Probe; p != nil {
		binding(p.Target)
		template(p.With)
		condition(p.Done)
	}
	program(n.Timeout.Expr)
	program(n.AttemptTimeout.Expr)
	for _, o := range n.Outputs {
		program(o.Expr)
	}
	return refs
}
