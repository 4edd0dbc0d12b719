package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// The words for how a step ended.
const (
	statusOK          = "ok"      // already so
	statusChanged     = "changed" // the step changed something
	statusSkipped     = "skipped"
	statusFailed      = "failed"
	statusWouldChange = "would-change" // dry run
	statusUnknown     = "unknown"      // dry run
)

// Causes for which a context of a run ends.
var (
	// ErrInterrupted is the cause to cancel Execute's context with when a person interrupts the run.
	ErrInterrupted = errors.New("interrupted")

	errSibling    = errors.New("a step beside this one failed")
	errTimeout    = errors.New("the step's timeout is over")
	errAttempt    = errors.New("the attempt's timeout is over")
	errBackground = errors.New("the background step was stopped")
	errSuspended  = errors.New("the run stopped; a resume starts the background step again")
)

// settleTime is how long attempts that are cancelled, and the probe that settles them, may take.
const settleTime = 10 * time.Second

// run is one process of a run: the state that the walk over the tree shares.
type run struct {
	cfg       Config
	prog      *Program
	clock     Clock
	mask      *Masker
	secrets   map[string]any
	pool      *pool
	journal   *journal.Journal // nil in a dry run
	past      *past            // what earlier processes did; empty in a first one
	children  *journal.Children
	id        string
	dir       string
	sandbox   string         // the world file; empty: the real world
	shown     map[string]any // what expressions see as run
	selected  func(*Node) bool
	partial   bool // some steps are left out by the command line
	approvals Approvals
	decisions map[string]*Decision
	dry       *dryRun

	lock *tenure // nil: the runbook names none
	acts *acts   // what has started, for the way back

	desk  desk
	turn  chan struct{} // held while a question is on the terminal: one at a time
	looks looks
	backgrounds
	lookingFirst bool       // what had tripped is looked at before anything starts
	explainer    *explainer // nil, unless a resume is only explained
	endings
	foreigners map[string]*boundTarget // targets that no runbook declares, by name
	seq        int64                   // of a dry run's records
	mu         sync.Mutex
}

// halt ends a list of steps. A plain failure has end Failed and may be caught; any
// other end goes through to the process.
type halt struct {
	path    string
	err     *steps.Error
	end     Status
	decided string // what an on-failure on the way said: stop, rollback-run
	passive bool   // not a failure of its own: cut by another branch, or by the timeout of a group around it
	tripped bool   // a stop condition ended it: nothing rescues it, and nothing that changes anything follows
}

// own says that this is a failure, and the element's own: what rescue and on-failure are about.
func (h *halt) own() bool { return h != nil && h.end == Failed && !h.passive && !h.tripped }

// worse says which of two branches' ends is the run's: what needs a person comes first.
func worse(a, b *halt) *halt {
	rank := func(h *halt) int {
		switch {
		case h == nil:
			return 0
		case h.passive:
			return 1
		case h.tripped: // before a failure, which may be handled
			return 4
		case h.end == Paused:
			return 2
		case h.end == Failed && h.decided != "rollback-run":
			return 3
		case h.end == Failed:
			return 5
		case h.end == InDoubt:
			return 6
		}
		return 7
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

func failed(path string, err *steps.Error) *halt { return &halt{path: path, err: err, end: Failed} }

// broken is the halt for a journal that can no longer be written: nothing goes on.
func broken(path string, err error) *halt {
	return &halt{path: path, end: InDoubt, err: &steps.Error{Kind: "journal", Err: err,
		Hint: "make room, or make the state directory writable again, then resume the run: what had happened is in the journal up to here"}}
}

// record appends to the journal, masked. In a dry run it is only shown.
func (x *run) record(typ, step string, body any) (int64, error) {
	if !x.mask.Empty() {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, fmt.Errorf("record %s of %s: %w", typ, step, err)
		}
		body = json.RawMessage(x.mask.JSON(raw))
	}
	if x.journal != nil {
		return x.journal.Append(typ, step, body)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("record %s of %s: %w", typ, step, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seq++
	if x.cfg.Observe != nil {
		x.cfg.Observe(journal.Record{Seq: x.seq, Time: x.clock.Now(), Type: typ, Step: step, Body: raw})
	}
	return x.seq, nil
}

// durable is record, and the record is on disk when it returns.
func (x *run) durable(ctx context.Context, typ, step string, body any) error {
	seq, err := x.record(typ, step, body)
	if err != nil || x.journal == nil {
		return err
	}
	return x.journal.Sync(context.WithoutCancel(ctx), seq)
}

// settleDisk makes all that was recorded durable: before any wait, gate or exit.
func (x *run) settleDisk(ctx context.Context) error {
	if x.journal == nil {
		return nil
	}
	return x.journal.Sync(context.WithoutCancel(ctx), x.journal.Last())
}

// list runs nodes in order.
func (x *run) list(ctx context.Context, s *scope, nodes []*Node) *halt {
	for _, n := range nodes {
		if h := x.node(ctx, s, n); h != nil {
			return h
		}
	}
	return nil
}

// beside runs nodes at the same time. When one fails, the others finish what they are
// doing, waits and reads end, and nothing new starts.
func (x *run) beside(ctx context.Context, s *scope, nodes []*Node) *halt {
	if x.dry != nil {
		return x.list(ctx, s, nodes)
	}
	ctx, stop := branch(ctx)
	defer stop(nil)
	ends := make([]*halt, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if ends[i] = x.node(ctx, s, n); ends[i] != nil {
				stop(errSibling)
			}
		})
	}
	wg.Wait()
	var end *halt
	for _, h := range ends {
		end = worse(end, h)
	}
	return end
}

// node runs one step as written, whatever its shape, and decides what its failure does.
func (x *run) node(ctx context.Context, s *scope, n *Node) *halt {
	path := s.prefix + n.ID
	if h := stopped(ctx, path); h != nil {
		return h
	}
	if !x.selected(n) {
		s.set(n.ID, nothing(n))
		return nil
	}
	span := x.acts.open(ctx, n, path)
	ctx = span.in(ctx)
	if why, open := x.past.rollback(path); open && !rollsItselfBack(n) {
		return x.finishRollback(ctx, s, n, path, span, why)
	}
	if h := x.past.rolledBack(path); h != nil && !rollsItselfBack(n) {
		if broken := x.retrace(ctx, s, n, path); broken != nil {
			return broken
		}
		return h
	}
	h := x.past.gaveUp(s.prefix, n, path)
	if h == nil {
		h = x.body(ctx, s, n, path)
	} else if broken := x.retrace(ctx, s, n, path); broken != nil {
		return broken
	}
	x.doubts(s, n, span.parent)
	if !h.own() {
		return h
	}
	return x.onFailure(ctx, s, n, path, span, h)
}

// rollsItselfBack says that a rollback of this path is that of the runbook it uses, which
// call goes on with, and not the step's own.
func rollsItselfBack(n *Node) bool {
	return n.Shape == Call && n.Sub.OnFailure == "rollback" && n.OnFailure != "rollback" && n.OnFailure != "rollback-item"
}

// body is what a node does, its failure not yet decided.
func (x *run) body(ctx context.Context, s *scope, n *Node, path string) *halt {
	switch {
	case n.Loop != nil || n.FanOut:
		return x.loop(ctx, s, n, path)
	case n.Background:
		return x.startBackground(ctx, s, n, path)
	}
	return x.once(ctx, s, n, path, true)
}

// once runs a node a single time: as itself, or as one item of its loop. gates tells
// whether its require and confirm are asked here.
func (x *run) once(ctx context.Context, s *scope, n *Node, path string, gates bool) *halt {
	if n.Shape == Leaf {
		return x.leaf(ctx, s, n, path, gates)
	}
	return x.group(ctx, s, n, path, gates)
}

// onFailure is what rescue and on-failure make of a failure.
func (x *run) onFailure(ctx context.Context, s *scope, n *Node, path string, span *span, h *halt) *halt {
	retrace := func(ctx context.Context) *halt { return x.retrace(ctx, s, n, path) }
	if h.decided == decidedRollback { // by a stop condition of this very element
		h.decided = ""
		return x.rollbackSpan(ctx, path, span, h, retrace)
	}
	before := x.past.handledBy(path)
	if before != "" && before != "rescue" {
		return nil
	}
	if len(n.Rescue) > 0 && x.dry == nil {
		rescued := x.rescue(ctx, s, n, h)
		if rescued == nil && before != "" {
			return nil
		}
		if rescued == nil {
			return x.handled(path, "rescue")
		}
		if !rescued.own() {
			return rescued
		}
		rescued.err = &steps.Error{Kind: rescued.err.Kind, Hint: rescued.err.Hint,
			Err: fmt.Errorf("%w (while rescuing %s: %v)", rescued.err, h.path, h.err)}
		h = rescued
	}
	if h.decided != "" {
		return h
	}
	switch n.OnFailure {
	case "continue":
		return x.handled(path, "continue")
	case "stop":
		h.decided = "stop"
	case "rollback-run":
		h.decided = "rollback-run"
	case "rollback":
		return x.rollbackSpan(ctx, path, span, h, retrace)
	}
	return h
}

// handled journals that a failure did not end the run.
func (x *run) handled(path, by string) *halt {
	if _, err := x.record(recFailureHandled, path, &Handled{By: by}); err != nil {
		return broken(path, err)
	}
	return nil
}

// rescue runs the rescue steps of a failed node; they see error.
func (x *run) rescue(ctx context.Context, s *scope, n *Node, h *halt) *halt {
	inner := newScope(s.frame, s, s.prefix, []named{{"error", errorValue(h.err)}})
	end := x.list(ctx, inner, n.Rescue)
	s.adopt(inner)
	return end
}

// adopt takes over results of a scope that only added names.
func (s *scope) adopt(inner *scope) {
	for id, r := range inner.all() {
		s.set(id, r)
	}
}

func errorValue(e *steps.Error) map[string]any {
	return map[string]any{"message": e.Error(), "kind": e.Kind, "temporary": e.Temporary}
}

// seal adds what is seen of every step, as its step-finished says: a resume reads it there.
func seal(result map[string]any, f *StepFinished) {
	took, _ := time.ParseDuration(f.Duration)
	result["status"], result["attempts"], result["duration"], result["error"] = f.Status, f.Attempts, took, nil
	if f.Error != nil {
		result["error"] = map[string]any{"message": f.Error.Message, "kind": f.Error.Kind, "temporary": f.Error.Temporary}
	}
}

// outputs adds the step's own named outputs; its other outputs are plain names there.
func (x *run) outputs(s *scope, n *Node, result map[string]any) error {
	for _, o := range n.Outputs {
		if err := x.known(s, result, o.Expr.Refs); err != nil {
			return err
		}
		v, err := o.Expr.Eval(x.env(s, result, o.Expr.Refs))
		if err != nil {
			return fmt.Errorf("outputs.%s: %w", o.Name, err)
		}
		result[o.Name] = v
	}
	return nil
}

func (x *run) marshal(v any) json.RawMessage {
	raw, err := json.Marshal(jsonable(v))
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return raw
}

// jsonable gives durations their text form, as they are written in runbooks, and leaves
// out what a dry run keeps for itself.
func jsonable(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v.String()
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil // JSON has no word for it
		}
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			if k != unknownKey && k != unknownStatus {
				m[k] = jsonable(e)
			}
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i := range v {
			l[i] = jsonable(v[i])
		}
		return l
	}
	return v
}

// admit is what is asked before anything acts: when, require, confirm, in this order.
func (x *run) admit(ctx context.Context, s *scope, n *Node, path string, gates bool) (skipped bool, h *halt) {
	if reason, ok := x.past.skipped(path); ok {
		x.skip(s, n, reason)
		return true, nil
	}
	began := x.past.started(path) && (n.Shape != Leaf || x.past.open(path)) // a step that has failed is asked anew
	if n.When != nil && !began {
		ok, err := x.holds(s, n.When, nil)
		if err != nil {
			return true, x.refused(s, n, path, steps.Classify(fmt.Errorf("when: %s: %w", n.When.Expr.Source, err)))
		}
		if !ok {
			reason := "when: " + n.When.Expr.Source + " is false"
			if why := x.explain(s, n.When, nil); why != "" {
				reason += " (" + why + ")"
			}
			x.skip(s, n, reason)
			body := &StepFinished{Status: statusSkipped, Reason: reason}
			x.noteDry(x.glance(s, n, path), body, nil)
			if _, err := x.record(recStepFinished, path, body); err != nil {
				return true, broken(path, err)
			}
			return true, nil
		}
	}
	if !began {
		if _, h := x.awaitWindow(ctx, s, n, path); h != nil {
			return true, h
		}
	}
	if !gates {
		return false, nil
	}
	if !began {
		if err := x.must(s, "require", n.Require, nil); err != nil {
			return true, x.refused(s, n, path, err)
		}
	}
	if h := x.asked(ctx, s, n, path); h != nil || began {
		return false, h
	}
	waited, h := x.awaitWindow(ctx, s, n, path) // the answer may have come when it was shut again
	if h != nil || !waited {
		return false, h
	}
	if err := x.must(s, "require", n.Require, nil); err != nil {
		return true, x.refused(s, n, path, err)
	}
	return false, nil
}

// asked is gate, and a refusal fails the step.
func (x *run) asked(ctx context.Context, s *scope, n *Node, path string) *halt {
	begun := x.past.started(path) && (n.Shape != Leaf || x.past.open(path))
	h := x.gate(ctx, s, n, path, "", begun)
	if h.own() {
		return x.refused(s, n, path, h.err)
	}
	return h
}

// skip keeps a result that says skipped.
func (x *run) skip(s *scope, n *Node, reason string) {
	r := nothing(n)
	r["reason"] = reason
	s.set(n.ID, r)
}

// refused is a step that failed before it acted. One that an earlier process left in
// doubt stays so: nothing is known of it yet.
func (x *run) refused(s *scope, n *Node, path string, failure *steps.Error) *halt {
	failure = x.masked(failure)
	if x.dry != nil {
		return x.dryRefused(x.glance(s, n, path), failure)
	}
	if was := x.past.live(path); was != nil && was.open && was.acted {
		return &halt{path: path, end: InDoubt, err: &steps.Error{Kind: failure.Kind, Unknown: true, Hint: x.waysOut(path),
			Err: fmt.Errorf("whether %s took effect is not known, and it cannot be asked: %w", path, failure)}}
	}
	body := &StepFinished{Status: statusFailed, Error: errorBody(failure)}
	result := nothing(n)
	seal(result, body)
	s.set(n.ID, result)
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return failed(path, failure)
}

// masked is an error that people, the journal and expressions may see.
func (x *run) masked(e *steps.Error) *steps.Error {
	if x.mask.Empty() {
		return e
	}
	m := *e
	m.Err, m.Hint = x.mask.Error(e.Err), x.mask.String(e.Hint)
	return &m
}
