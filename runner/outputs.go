package runner

import (
	"maps"

	"runbook/runner/expression"
)

// outType says what later steps read of the step.
func (r *resolver) outType(n *Node, each place, own map[string]*expression.Type) {
	fields := own
	if len(n.Step.Outputs) > 0 {
		if fields = maps.Clone(own); fields == nil {
			fields = map[string]*expression.Type{}
		}
		n.Outputs = r.namedOutputs(n.Step.Outputs, each.with(own, after), fields)
	}
	if n.broken {
		n.OutType, n.ItemType = anyType, anyType
		return
	}
	if !n.repeats() && len(n.Step.Outputs) == 0 { // one type for all steps of a kind
		if n.OutType = r.sealed[addressOf(own)]; n.OutType == nil {
			n.OutType = sealType(own)
			r.sealed[addressOf(own)] = n.OutType
		}
		return
	}
	if !n.repeats() {
		n.OutType = sealType(fields)
		return
	}
	item := sealType(fields)
	r.flatten(n.Children, item.Fields)
	if n.skipsItems() {
		item = mayBeNull(item)
	}
	item.Fields["key"] = stringType
	item.Fields["item"] = n.elem()
	n.ItemType = item
	n.OutType = sealType(map[string]*expression.Type{"items": listOf(item), "by": {Kind: expression.Map, Elem: item}})
}

// elem is the type of what a loop goes over; of a fan-out a target.
func (n *Node) elem() *expression.Type {
	if !n.FanOut && n.Loop != nil {
		return n.Loop.ElemType
	}
	types := make([]*expression.Type, len(n.Targets))
	for i, t := range n.Targets {
		types[i] = t.Type
	}
	if len(types) == 1 {
		return types[0]
	}
	if kinds := n.kindsOfTarget(); len(kinds) == 1 {
		return targetType(kinds[0], anyMapType)
	}
	return targetType("", anyMapType)
}

// flatten adds what one item of a loop shows of the steps in it: ids are flat.
func (r *resolver) flatten(list []*Node, fields map[string]*expression.Type) {
	for _, n := range list {
		if n.ID == "" || fields[n.ID] != nil && alwaysThere(n.ID) {
			continue
		}
		t := n.OutType
		if s := descend(n, topWithin(n), false, sight{}); s.nullable {
			t = mayBeNull(t)
		}
		fields[n.ID] = t
		if n.Shape == Group && !n.repeats() {
			r.flatten(n.Children, fields)
		}
	}
}

// topWithin is the outermost node around n that stands in the same item of a loop.
func topWithin(n *Node) *Node {
	for n.Parent != nil && !n.Parent.repeats() {
		n = n.Parent
	}
	return n
}

// skipsItems tells whether an item of a loop may have no outputs although the loop went on.
func (n *Node) skipsItems() bool {
	s := n.Step
	return s.When != nil || s.MaxFailures.Set && (s.MaxFailures.Expr != nil || s.MaxFailures.Value > 0) ||
		s.OnFailure.Value == "continue" || s.OnFailure.Value == "rollback-item" || len(s.Rescue) > 0
}
