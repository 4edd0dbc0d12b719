package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	shown     map[string]any // what expressions see as run
	selected  func(*Node) bool
	approvals Approvals
	decisions map[string]*Decision
	dry       *dryRun

	acts *acts // what has started, for the way back

	gates sync.Mutex // one question at a time
	backgrounds
	foreigners map[string]*boundTarget // targets that no runbook declares, by name
	seq        int64                   // of a dry run's records
	mu         sync.Mutex
}

// halt ends a list of steps. A plain failure has end Failed and may be caught; any
// other end goes through to the process.
type halt struct {
	path     string
	err      *steps.Error
	end      Status
	decided  string // what an on-failure on the way said: stop, rollback-run
	passive  bool   // not a failure of its own: stopped because of another branch
	rollback string // why an earlier process was rolling back when it died
}

// worse says which of two branches' ends is the run's: what needs a person comes first.
func worse(a, b *halt) *halt {
	rank := func(h *halt) int {
		switch {
		case h == nil:
			return 0
		case h.passive:
			return 1
		case h.end == Paused:
			return 2
		case h.end == Failed:
			return 3
		case h.end == InDoubt:
			return 4
		case h.end == Interrupted:
			return 5
		}
		return 6
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
		Hint: "make the state directory writable again, then resume: what had happened is in the journal up to here"}}
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

// softKey finds the context that ends when nothing new may start.
type softKey struct{}

// branch gives a context with a stop of its own: after it nothing new starts in the
// branch, and reads and waits end; attempts that change something go on to their end.
func branch(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	soft, stop := context.WithCancelCause(softOf(ctx))
	return context.WithValue(ctx, softKey{}, soft), stop
}

func softOf(ctx context.Context) context.Context {
	if soft, ok := ctx.Value(softKey{}).(context.Context); ok {
		return soft
	}
	return ctx
}

// stopped is the halt of a branch in which nothing new may start; nil: go on.
func stopped(ctx context.Context, path string) *halt {
	for _, c := range []context.Context{ctx, softOf(ctx)} {
		if c.Err() == nil {
			continue
		}
		return haltFor(context.Cause(c), path)
	}
	return nil
}

// haltFor is the halt that a cancelled context means.
func haltFor(cause error, path string) *halt {
	switch {
	case errors.Is(cause, ErrInterrupted):
		return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: ErrInterrupted}}
	case errors.Is(cause, errSibling):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "stopped", Err: errSibling}}
	case errors.Is(cause, errTimeout), errors.Is(cause, errAttempt):
		return failed(path, &steps.Error{Kind: "timeout", Err: cause})
	case errors.Is(cause, errBackground):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "stopped", Err: cause}}
	}
	return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: cause}}
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
	if n.Background {
		return x.startBackground(ctx, s, n, path)
	}
	span := x.acts.open(ctx, n, path)
	ctx = span.in(ctx)
	if why, interrupted := x.past.rollback(path); interrupted {
		return x.finishRollback(ctx, s, n, path, span, why)
	}
	inside := ctx
	if x.past.handled[path] != "" || x.past.rescuing(s.prefix, n) {
		inside = context.WithValue(ctx, settledKey{}, true)
	}
	h := x.body(inside, s, n, path)
	if h == nil || h.end != Failed || h.passive || h.rollback != "" {
		return h
	}
	return x.onFailure(ctx, s, n, path, span, h)
}

// settledKey marks the walk through an element whose failure an earlier process has
// dealt with: a failed step in it stays failed, it is not run again.
type settledKey struct{}

// body is what a node does, its failure not yet decided.
func (x *run) body(ctx context.Context, s *scope, n *Node, path string) *halt {
	switch {
	case n.Loop != nil || n.FanOut:
		return x.loop(ctx, s, n, path)
	default:
		return x.once(ctx, s, n, path, true)
	}
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
	if by, ok := x.past.handled[path]; ok {
		if by == "rescue" {
			return x.rescue(ctx, s, n, h)
		}
		return nil
	}
	if len(n.Rescue) > 0 {
		rescued := x.rescue(ctx, s, n, h)
		if rescued == nil {
			return x.handled(path, "rescue")
		}
		if rescued.end != Failed || rescued.passive {
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
		return x.rollbackSpan(ctx, s, n, path, span, h)
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
	inner := newScope(s.frame, s, s.prefix, map[string]any{"error": errorValue(h.err)})
	end := x.list(ctx, inner, n.Rescue)
	s.adopt(inner)
	return end
}

// adopt takes over results of a scope that only added names.
func (s *scope) adopt(inner *scope) {
	inner.mu.Lock()
	defer inner.mu.Unlock()
	for id, r := range inner.results {
		s.set(id, r)
	}
}

func errorValue(e *steps.Error) map[string]any {
	return map[string]any{"message": e.Error(), "kind": e.Kind, "temporary": e.Temporary}
}

// group runs a group or a sub-runbook.
func (x *run) group(ctx context.Context, s *scope, n *Node, path string, gates bool) *halt {
	began := x.clock.Now()
	if replaying(ctx) && !x.past.started(path) {
		return nil
	}
	if skipped, h := x.guard(ctx, s, n, path, gates); h != nil || skipped {
		return h
	}
	limit, err := setting(x, s, n.Timeout, "timeout")
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = x.clock.WithTimeout(ctx, limit, errTimeout)
		defer cancel()
		var end context.CancelCauseFunc
		ctx, end = branch(ctx)
		defer context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })()
	}
	if !x.past.started(path) {
		if _, err := x.record(recStepStarted, path, &StepStarted{Attempt: 1}); err != nil {
			return broken(path, err)
		}
	}
	if n.UndoMode == "steps" || n.UndoMode == "none" {
		e := x.acts.add(ctx, &entry{n: n, s: s, path: path})
		e.begin(x.acts.next(), nil, false)
	}
	from := x.acts.count()
	result := map[string]any{}
	h := x.inside(ctx, s, n, path, result)
	if h != nil && (h.end != Failed || h.passive) {
		return h
	}
	status := statusOK
	if x.acts.changedSince(from) {
		status = statusChanged
	}
	var failure *steps.Error
	if h != nil {
		status, failure = statusFailed, h.err
	}
	if replaying(ctx) {
		return h
	}
	return x.groupFinished(s, n, path, status, result, failure, began, h)
}

// inside runs what a group or a sub-runbook holds; result gets a sub-runbook's outputs.
func (x *run) inside(ctx context.Context, s *scope, n *Node, path string, result map[string]any) *halt {
	if n.Shape == Call {
		return x.call(ctx, s, n, path, result)
	}
	if n.Repeat == nil || x.dry != nil {
		return x.members(ctx, s, n)
	}
	most, err := setting(x, s, n.Repeat.Max, "repeat.max")
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	every, err := setting(x, s, n.Repeat.Every, "repeat.every")
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	for pass := 1; ; pass++ {
		start := x.clock.Now()
		inner := newScope(s.frame, s, fmt.Sprintf("%s[%d]/", path, pass), nil)
		h := x.members(ctx, inner, n)
		s.adopt(inner)
		if h != nil {
			return h
		}
		ok, err := x.holds(s, n.Repeat.Until, nil)
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("repeat until %s: %w", n.Repeat.Until.Expr.Source, err)))
		}
		if ok {
			return nil
		}
		if most > 0 && pass >= most {
			return failed(path, steps.Errorf("repeat", "after %d passes %s still does not hold (%s)", pass, n.Repeat.Until.Expr.Source, x.explain(s, n.Repeat.Until, nil)))
		}
		if x.past.started(fmt.Sprintf("%s[%d]", path, pass+1)) {
			continue
		}
		if err := x.settleDisk(ctx); err != nil {
			return broken(path, err)
		}
		if err := x.pause(ctx, every-x.clock.Now().Sub(start)); err != nil {
			return haltFor(err, path)
		}
	}
}

func (x *run) members(ctx context.Context, s *scope, n *Node) *halt {
	if n.Parallel {
		return x.beside(ctx, s, n.Children)
	}
	return x.list(ctx, s, n.Children)
}

// call runs a sub-runbook.
func (x *run) call(ctx context.Context, s *scope, n *Node, path string, result map[string]any) *halt {
	given, err := x.eval(s, n.With)
	if err != nil {
		return failed(path, steps.Classify(fmt.Errorf("with: %w", err)))
	}
	values, _ := given.(map[string]any)
	inputs, err := n.Sub.bindCall(values)
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	fr, err := x.enter(s.frame, n.Sub, inputs, nil)
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	inner := newScope(fr, nil, path+"/", nil)
	h := x.list(ctx, inner, n.Sub.Steps)
	if h != nil && h.end == Failed && !h.passive && h.decided == "" && n.Sub.OnFailure == "rollback" && !replaying(ctx) {
		sp, _ := ctx.Value(spanKey{}).(*span)
		h = x.rollbackSpan(ctx, s, n, path, sp, h)
	}
	if replaying(ctx) {
		return h
	}
	if h == nil || h.end == Failed && !h.passive {
		if late := x.list(context.WithoutCancel(ctx), inner, n.Sub.Finally); late != nil && h == nil {
			h = late
		}
	}
	if h != nil {
		return h
	}
	for _, o := range n.Sub.Outputs {
		v, err := o.Expr.Eval(x.env(inner, nil, o.Expr.Refs))
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("outputs.%s: %w", o.Name, err)))
		}
		result[o.Name] = v
	}
	return nil
}

// groupFinished keeps and journals how a group ended.
func (x *run) groupFinished(s *scope, n *Node, path, status string, result map[string]any, failure *steps.Error, began time.Time, h *halt) *halt {
	took := x.clock.Now().Sub(began)
	if h == nil {
		if err := x.outputs(s, n, result); err != nil {
			failure = steps.Classify(err)
			status, h = statusFailed, failed(path, failure)
		}
	}
	body := &StepFinished{Status: status, Duration: seconds(took), Attempts: 1, Error: errorBody(failure)}
	if len(result) > 0 {
		body.Outputs = x.marshal(result)
	}
	seal(result, status, 1, took, failure)
	s.set(n.ID, result)
	if x.past.finished(path) && status != statusFailed {
		return h // a resume walked through what had ended before
	}
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return h
}

// seal adds what is seen of every step.
func seal(result map[string]any, status string, attempts int, took time.Duration, failure *steps.Error) {
	result["status"], result["attempts"], result["duration"] = status, attempts, took
	result["error"] = nil
	if failure != nil {
		result["error"] = errorValue(failure)
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

// jsonable gives durations their text form, as they are written in runbooks.
func jsonable(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v.String()
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			if k != unknownKey {
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

// guard is what is asked before anything acts: when, require, confirm, in this order.
func (x *run) guard(ctx context.Context, s *scope, n *Node, path string, gates bool) (skipped bool, h *halt) {
	if reason, ok := x.past.skipped(path); ok {
		x.skip(s, n, reason)
		return true, nil
	}
	began := x.past.started(path) && (n.Shape != Leaf || x.past.open(path)) // a failed step is asked anew
	if n.When != nil && !began {
		ok, err := x.holds(s, n.When, nil)
		if err != nil {
			if x.dry != nil {
				return true, x.dryUnknown(s, n, path, err)
			}
			return false, x.refused(s, n, path, steps.Classify(fmt.Errorf("when: %s: %w", n.When.Expr.Source, err)))
		}
		if !ok {
			reason := "when: " + n.When.Expr.Source + " is false"
			if why := x.explain(s, n.When, nil); why != "" {
				reason += " (" + why + ")"
			}
			x.skip(s, n, reason)
			if _, err := x.record(recStepFinished, path, &StepFinished{Status: statusSkipped, Reason: reason}); err != nil {
				return true, broken(path, err)
			}
			return true, nil
		}
	}
	if !gates {
		return false, nil
	}
	if !began {
		if err := x.must(s, "require", n.Require, nil); err != nil {
			return false, x.refused(s, n, path, err)
		}
	}
	return false, x.gate(ctx, s, n, path, "")
}

// skip keeps a result that says skipped.
func (x *run) skip(s *scope, n *Node, reason string) {
	r := nothing(n)
	r["reason"] = reason
	s.set(n.ID, r)
}

// refused is a step that failed before it acted.
func (x *run) refused(s *scope, n *Node, path string, err *steps.Error) *halt {
	var unknown *unknownError
	if x.dry != nil && errors.As(err, &unknown) {
		x.dryUnknown(s, n, path, unknown)
		return nil
	}
	result := nothing(n)
	seal(result, statusFailed, 0, 0, err)
	s.set(n.ID, result)
	if _, werr := x.record(recStepFinished, path, &StepFinished{Status: statusFailed, Error: errorBody(err)}); werr != nil {
		return broken(path, werr)
	}
	return failed(path, err)
}

// softly is a context for reads and waits: it ends too when nothing new may start.
// The second value lets go of it.
func softly(ctx context.Context) (context.Context, func()) {
	soft := softOf(ctx)
	if soft == ctx {
		return ctx, func() {}
	}
	both, end := context.WithCancelCause(ctx)
	detach := context.AfterFunc(soft, func() { end(context.Cause(soft)) })
	return both, func() { detach(); end(nil) }
}

// pause sleeps between two things that the engine does, until nothing new may start.
func (x *run) pause(ctx context.Context, d time.Duration) error {
	soft, done := softly(ctx)
	defer done()
	return x.clock.Sleep(soft, d)
}
