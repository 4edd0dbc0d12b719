package runner

import (
	"fmt"
	"strings"
)

// moment is when, within its step, an expression is evaluated.
type moment int

const (
	before moment = iota // before the step acts: when, require, confirm, for-each, with, target
	during               // in an attempt that may have failed: retry.if
	after                // once it has acted: wait-until, expect, repeat.until, outputs
)

// sight is how a step looks from a place: not at all, or with outputs that may be null.
type sight struct {
	rule, message, suggestion string // of the finding, where it cannot be read
	nullable                  bool   // it may not have run
	because                   string // why it may not
	via                       []*Node
}

func blind(rule, suggestion, format string, args ...any) sight {
	return sight{rule: rule, message: fmt.Sprintf(format, args...), suggestion: suggestion}
}

// maybe adds a reason why a step may not have run.
func (s *sight) maybe(n *Node, because string) {
	if !s.nullable {
		s.nullable, s.because = true, because
	}
	if n != nil {
		s.via = append(s.via, n)
	}
}

// look tells how the step to appears to an expression of the step from (nil: the outputs
// of the file). A step can be read once it has run on every path that leads there.
//
// Both stand in a tree of lists. What decides is the pair of nodes, side by side in one
// list or in two lists of one parent, through which the paths from the common ancestor go.
func look(to, from *Node, when moment) sight {
	a, b := to, from
	if from == nil {
		for a.Parent != nil {
			a = a.Parent
		}
		if a.Role == InFinally {
			return blind("read-before-run", "", "%s stands in finally, which runs after the outputs are taken", to.ID)
		}
		return descend(to, a, false, sight{})
	}
	var under, over *Node // the children of the common ancestor on the way to a and to b
	for a.depth > b.depth {
		under, a = a, a.Parent
	}
	for b.depth > a.depth {
		over, b = b, b.Parent
	}
	for a != b {
		under, over, a, b = a, b, a.Parent, b.Parent
	}
	common := a
	switch {
	case under == nil && over == nil:
		return blind("reads-itself", "", "%s cannot read itself: its own outputs are plain names, where it has run already", to.ID)
	case over == nil:
		return lookDown(to, under, common, when)
	case under == nil:
		return lookUp(to, over)
	}
	return lookAcross(to, under, over, common)
}

// lookDown is a group that reads what stands in it.
func lookDown(to, under, group *Node, when moment) sight {
	switch {
	case under.Role == InUndo || under.Role == InAfterBatch:
		return unreachable(to, under)
	case when == before:
		return blind("read-before-run", "", "%s stands in %s and has not run yet where this is evaluated", to.ID, group.ID)
	}
	s := sight{}
	if when == during {
		s.maybe(nil, "an attempt of "+group.ID+" may fail before it")
	}
	if under.Role == InSteps && len(group.Rescue) > 0 {
		s.maybe(group, group.ID+" may have failed and been rescued")
	}
	return descend(to, under, false, s)
}

// lookUp is a step that reads a step around it.
func lookUp(to, over *Node) sight {
	s := sight{}
	switch over.Role {
	case InRescue:
		s.maybe(to, to.ID+" has failed where its rescue runs")
	case InUndo:
		s.maybe(to, to.ID+" may have failed where it is undone")
	case InAfterBatch:
		return blind("read-before-run", "batch.items", "%s is still running after a batch; what this batch did is batch.items", to.ID)
	default:
		return blind("read-before-run", "", "%s is still running: the steps in it cannot read it", to.ID)
	}
	return s
}

// lookAcross is a step that reads one beside it, or beside something around it.
func lookAcross(to, under, over, parent *Node) sight {
	s := sight{}
	switch {
	case under.Role != over.Role && (under.Role == InUndo || under.Role == InAfterBatch):
		return unreachable(to, under)
	case under.Role == InSteps && over.Role == InRescue:
		s.maybe(parent, parent.ID+" may have failed before it")
	case under.Role == InSteps && over.Role == InFinally:
		s.maybe(nil, "finally runs whatever happened before")
	case under.Role == InSteps && over.Role == InUndo:
		s.maybe(parent, "an undo runs whatever happened before")
	case under.Role == InSteps && over.Role == InAfterBatch:
		return insideLoop(to, parent)
	case under.Role == InRescue && over.Role == InUndo:
		s.maybe(nil, "it runs only as a rescue")
	case under.Role != over.Role:
		return blind("read-before-run", "", "%s runs after this step", to.ID)
	case parent != nil && parent.Parallel && under.Role == InSteps:
		return blind("sibling-branch", "", "%s runs at the same time as this step (in parallel, under %s)", to.ID, parent.ID)
	case under.index > over.index:
		return blind("read-before-run", "", "%s runs after this step", to.ID)
	case under.Role == InFinally:
		s.maybe(nil, "a step of finally may have failed")
	}
	return descend(to, under, under.Role == over.Role, s)
}

// descend adds what lies between a node that the reader is past and the step it reads.
// beside: the reader stands in the very list of that node, so that both run or neither does.
func descend(to, from *Node, beside bool, s sight) sight {
	var loop *Node
	hasCause := len(s.via) > 0
	for n := to; ; n = n.Parent {
		if n != to && n.repeats() {
			loop = n
		}
		switch {
		case n.Step.When != nil && !n.repeats(): // the when of a loop is of each item
			s.maybe(n, n.ID+" has a when")
		case n.Step.OnFailure.Value == "continue":
			s.maybe(n, n.ID+" has on-failure: continue")
		case len(n.Step.Rescue) > 0:
			s.maybe(n, n.ID+" may have failed and been rescued")
		case n.Role == InRescue && !(n == from && beside):
			s.maybe(n, n.ID+" runs only as a rescue")
		case n.Step.Background.Value && n == to:
			s.maybe(n, n.ID+" runs in the background")
		}
		if n == from {
			break
		}
		if n.Role == InUndo || n.Role == InAfterBatch {
			return unreachable(to, n)
		}
	}
	if loop != nil {
		return insideLoop(to, loop)
	}
	if s.nullable { // who has looked at the step itself need not look at what is around it
		s.via = append(s.via, to)
		for n := to; n != from && !hasCause; {
			n = n.Parent
			s.via = append(s.via, n)
		}
	}
	return s
}

func insideLoop(to, loop *Node) sight {
	return blind("inside-loop", "steps."+loop.ID+".items",
		"%s runs once for each item of %s: from outside it is reached through steps.%s.items or steps.%s.by", to.ID, loop.ID, loop.ID, loop.ID)
}

func unreachable(to, in *Node) sight {
	where := "the undo of " + in.Parent.ID
	if in.Role == InAfterBatch {
		where = "after-batch of " + in.Parent.ID
	}
	return blind("unreachable-step", "", "%s stands in %s, and cannot be read from outside", to.ID, where)
}

// repeats tells whether the node runs once for each item or target.
func (n *Node) repeats() bool { return n.Step.ForEach != nil || n.Step.Targets != nil }

// guards tells whether the reader runs only where somebody has looked at the status of
// what may not have run: its own when, or that of a group around it that the step read
// is not in.
func (n *Node) guards(s sight) bool {
	for reader := n; reader != nil; reader = reader.Parent {
		if reader.Step.When == nil {
			continue
		}
		for _, via := range s.via {
			if reader != via && mentions(reader.Step.When.Source, via.ID) {
				return true
			}
		}
	}
	return false
}

// mentions tells whether an expression reads a step's status.
func mentions(source, id string) bool {
	for rest := source; ; {
		i := strings.Index(rest, "steps."+id)
		if i < 0 {
			return false
		}
		rest = rest[i+len("steps.")+len(id):]
		if field, ok := strings.CutPrefix(strings.TrimPrefix(rest, "?"), ".status"); ok && !isNameByte(field) {
			return true
		}
	}
}

func isNameByte(rest string) bool {
	if rest == "" {
		return false
	}
	c := rest[0]
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
