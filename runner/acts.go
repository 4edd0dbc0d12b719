package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
)

// acts is the log of what has started and may have changed something, in the order of
// its starting: what a rollback walks back.
type acts struct {
	mu      sync.Mutex
	entries []*entry
	byPath  map[string]*entry // the latest; nil until somebody asks
}

// entry is one step that has started to act, or a group that a rollback has to know of.
type entry struct {
	acts     *acts
	n        *Node
	s        *scope
	path     string
	span     *span
	seq      int64 // of its step-started
	addr     string
	before   json.RawMessage
	withheld bool   // before held a secret and was not written down
	status   string // empty: it has not finished
	undone   bool
}

// span is the execution of one element, so that a rollback knows what started inside it.
type span struct {
	parent  *span
	node    *Node
	path    string
	from    int    // how many entries there were when it began: what is inside comes later
	changed bool   // something inside has changed something
	unknown string // dry run: the step inside that would
}

type spanKey struct{}

// open begins the execution of an element.
func (a *acts) open(ctx context.Context, n *Node, path string) *span {
	parent, _ := ctx.Value(spanKey{}).(*span)
	a.mu.Lock()
	defer a.mu.Unlock()
	return &span{parent: parent, node: n, path: path, from: len(a.entries)}
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

// anew gives the steps in it whose paths do not tell.
func (s *span) anew() []string {
	prefix, ok := strings.CutSuffix(s.path, s.node.ID)
	if !ok {
		return nil // an item of a loop: what is in it has its path
	}
	return s.node.inside(prefix)
}

func (a *acts) add(ctx context.Context, e *entry) *entry {
	e.acts = a
	e.span, _ = ctx.Value(spanKey{}).(*span)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries = append(a.entries, e)
	if a.byPath != nil {
		a.byPath[e.path] = e
	}
	return e
}

// again takes over what a path left when an earlier attempt of a group around it acted;
// nil: nothing.
func (a *acts) again(ctx context.Context, path string) *entry {
	was := a.at(path)
	if was == nil {
		return nil
	}
	e := *was
	was.back()
	return a.add(ctx, &e)
}

func (a *acts) at(path string) *entry {
	if e := a.latest(path); e != nil && !e.undone {
		return e
	}
	return nil
}

// knows says whether this process has come to what a path did, put back since or not.
func (a *acts) knows(path string) bool { return a.latest(path) != nil }

func (a *acts) latest(path string) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byPath == nil {
		a.byPath = make(map[string]*entry, len(a.entries))
		for _, e := range a.entries {
			a.byPath[e.path] = e
		}
	}
	return a.byPath[path]
}

// begin notes an attempt that acts. The old state is that before the first one.
func (e *entry) begin(seq int64, addr string, before json.RawMessage, withheld bool) {
	e.acts.mu.Lock()
	defer e.acts.mu.Unlock()
	e.seq, e.addr, e.before, e.withheld = seq, addr, before, withheld
	if e.status != statusChanged {
		e.status = ""
	}
}

// end notes how the step ended; a nil entry is a step that did not act. What an earlier
// attempt has changed stays changed.
func (e *entry) end(status string) {
	if e == nil {
		return
	}
	e.acts.mu.Lock()
	defer e.acts.mu.Unlock()
	if e.status != statusChanged {
		e.status = status
	}
	if status == statusChanged {
		for sp := e.span; sp != nil && !sp.changed; sp = sp.parent {
			sp.changed = true
		}
	}
}

// back notes that nothing is left to put back.
func (e *entry) back() {
	e.acts.mu.Lock()
	defer e.acts.mu.Unlock()
	e.undone = true
}

// status is that of an element made of others, which has ended with h.
func (a *acts) status(ctx context.Context, h *halt) string {
	if h != nil {
		return statusFailed
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if sp, _ := ctx.Value(spanKey{}).(*span); sp != nil && sp.changed {
		return statusChanged
	}
	return statusOK
}

// back gives what a rollback of an element has to undo, the latest first; nil is the run.
// What is in a group that says itself how it is undone is not there: the group is.
func (a *acts) back(inside *span) []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	started := a.entries
	if inside != nil {
		started = started[inside.from:]
	}
	covered := map[*span]bool{}
	for _, e := range started {
		if e.n.Shape != Leaf && e.n.UndoMode != "auto" {
			covered[e.span] = true
		}
	}
	var list []*entry
	for _, e := range started {
		if e.undone || e.status == statusOK || !e.span.within(inside) || e.n.within(InUndo) || e.n.within(InFinally) || e.coveredBy(covered, inside) {
			continue
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, latestFirst)
	return list
}

// temporary gives what is to be put back when the run is over, the latest first.
func (a *acts) temporary() []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*entry
	for _, e := range a.entries {
		if e.n.Restore && !e.undone && e.status != statusOK {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, latestFirst)
	return list
}

func latestFirst(x, y *entry) int { return cmp.Compare(y.seq, x.seq) }

// coveredBy says that a group around the entry, itself inside of what is rolled back, has
// a way back of its own.
func (e *entry) coveredBy(covered map[*span]bool, inside *span) bool {
	if len(covered) == 0 {
		return false
	}
	at := e.span
	if covered[at] && e.n.Shape != Leaf {
		if at == inside {
			return false
		}
		at = at.parent
	}
	for ; at != nil; at = at.parent {
		if covered[at] {
			return true
		}
		if at == inside {
			return false
		}
	}
	return false
}

// marked says that a rollback has to know when the node, which acts by what is in it
// alone, has started.
func (n *Node) marked() bool {
	return n.PointOfNoReturn || n.Shape != Leaf && n.UndoMode != "auto"
}
