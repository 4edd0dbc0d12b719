package runner

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
)

// acts is the log of what has started and may have changed something, in the order of
// its starting: what a rollback walks back.
type acts struct {
	mu      sync.Mutex
	entries []*entry
	changed int
}

// entry is one step that has started to act.
type entry struct {
	acts     *acts
	n        *Node
	s        *scope
	path     string
	span     *span
	seq      int64 // of its step-started
	before   json.RawMessage
	withheld bool   // before held a secret and was not written down
	status   string // empty: it has not finished
	undone   bool
}

// span is the execution of one element, so that a rollback knows what started inside it.
type span struct {
	parent *span
	node   *Node
	path   string
}

type spanKey struct{}

// open begins the execution of an element.
func (a *acts) open(ctx context.Context, n *Node, path string) *span {
	parent, _ := ctx.Value(spanKey{}).(*span)
	return &span{parent: parent, node: n, path: path}
}

func (s *span) in(ctx context.Context) context.Context { return context.WithValue(ctx, spanKey{}, s) }

// within says whether s is inside of outer; nil is the run.
func (s *span) within(outer *span) bool {
	for at := s; ; at = at.parent {
		if at == outer {
			return true
		}
		if at == nil {
			return false
		}
	}
}

func (a *acts) add(ctx context.Context, e *entry) *entry {
	e.acts = a
	e.span, _ = ctx.Value(spanKey{}).(*span)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries = append(a.entries, e)
	return e
}

// begin notes an attempt that acts. The old state is that before the first one.
func (e *entry) begin(seq int64, before json.RawMessage, withheld bool) {
	e.acts.mu.Lock()
	defer e.acts.mu.Unlock()
	e.seq, e.before, e.withheld, e.status = seq, before, withheld, ""
}

// end notes how the step ended; a nil entry is a step that did not act.
func (e *entry) end(status string) {
	if e == nil {
		return
	}
	e.acts.mu.Lock()
	defer e.acts.mu.Unlock()
	e.status = status
	if status == statusChanged {
		e.acts.changed++
	}
}

// next is a place in the order for a group, which is before what starts in it.
func (a *acts) next() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.entries) < 2 {
		return 0
	}
	return a.entries[len(a.entries)-2].seq
}

// count is a mark for changedSince.
func (a *acts) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (a *acts) changedSince(mark int) bool { return a.count() > mark }

// back gives what is to be undone inside of an element, the latest first. What is in a
// group that says itself how it is undone is not there: the group is.
func (a *acts) back(inside *span) []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	covered := map[*span]bool{}
	for _, e := range a.entries {
		if e.n.Shape != Leaf {
			covered[e.span] = true
		}
	}
	var list []*entry
	for _, e := range a.entries {
		if e.undone || e.status == statusOK || e.n.on(InUndo) || e.n.on(InFinally) || inside != nil && !e.span.within(inside) {
			continue
		}
		if e.coveredBy(covered) {
			continue
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(x, y *entry) int { return int(y.seq - x.seq) })
	return list
}

func (e *entry) coveredBy(covered map[*span]bool) bool {
	if len(covered) == 0 {
		return false
	}
	at := e.span
	if e.n.Shape != Leaf && at != nil {
		at = at.parent
	}
	for ; at != nil; at = at.parent {
		if covered[at] {
			return true
		}
	}
	return false
}

// on says whether a node stands in a list of this role, or in a group that does.
func (n *Node) on(r Role) bool {
	for at := n; at != nil; at = at.Parent {
		if at.Role == r {
			return true
		}
	}
	return false
}
