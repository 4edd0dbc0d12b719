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
	path    string
	err     *steps.Error
	end     Status
	decided string // what an on-failure on the way said: stop, rollback-run
	passive bool   // not a failure of its own: cut by another branch, or by the timeout of a group around it
}

// own says that this is a failure, and the element's own: what rescue and on-failure are about.
func (h *halt) own() bool { return h != nil && h.end == Failed && !h.passive }

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
		case h.end == Failed && h.decided != "rollback-run":
			return 3
		case h.end == Failed:
			return 4
		case h.end == InDoubt:
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
	if cause := over(ctx); cause != nil {
		return haltFor(cause, path)
	}
	return nil
}

// over is the cause for which nothing new may start; nil: go on.
func over(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if soft := softOf(ctx); soft.Err() != nil {
		return context.Cause(soft)
	}
	return nil
}

// haltFor is the halt that a context which ended means. A timeout is the failure of the
// element that has it, which makes it one; all that is cut inside of it has not failed.
func haltFor(cause error, path string) *halt {
	switch {
	case errors.Is(cause, ErrInterrupted):
		return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: ErrInterrupted}}
	case errors.Is(cause, errTimeout), errors.Is(cause, errAttempt):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "timeout", Err: cause}}
	case errors.Is(cause, errSibling), errors.Is(cause, errBackground), errors.Is(cause, errSuspended):
		return &halt{path: path, end: Failed, passive: true, err: &steps.Error{Kind: "stopped", Err: cause}}
	}
	return &halt{path: path, end: Interrupted, err: &steps.Error{Kind: "interrupted", Err: cause}}
}

// baseKey finds the context that only a person ends.
type baseKey struct{}

// based gives the context of a run, which untimed goes back to.
func based(ctx context.Context) context.Context { return context.WithValue(ctx, baseKey{}, ctx) }

// untimed is ctx without the timeouts and the other branches around here: for what has
// to be carried through when they have ended, a rollback or a finally, and for what
// outlives the group it stands in. A person can still interrupt it.
func untimed(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	base, ok := ctx.Value(baseKey{}).(context.Context)
	if !ok {
		base = ctx
	}
	free, end := context.WithCancelCause(context.WithoutCancel(ctx))
	detach := context.AfterFunc(base, func() { end(context.Cause(base)) })
	free = context.WithValue(free, softKey{}, free)
	free = context.WithValue(free, limitKey{}, (*limit)(nil))
	return free, func(cause error) { detach(); end(cause) }
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
		return x.rollbackSpan(ctx, path, span, h, func(ctx context.Context) *halt { return x.retrace(ctx, s, n, path) })
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

// group runs a group or a sub-runbook: attempts of what is in it and its expect, under retry.
func (x *run) group(ctx context.Context, s *scope, n *Node, path string, gates bool) *halt {
	began := x.clock.Now()
	if skipped, h := x.guard(ctx, s, n, path, gates); h != nil || skipped {
		return h
	}
	most, err := setting(x, s, n.Timeout, "timeout")
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	policy, err := x.retryPolicy(s, n, 1)
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	outer := ctx
	if most > 0 {
		left := x.remainder(s, n, path, most)
		var done func()
		ctx, done = x.limit(ctx, left)
		defer done()
		if left == 0 { // over before this process came: nothing runs, and what was done is called to mind for a rollback
			<-ctx.Done()
			if h := x.retraceInside(outer, s, n, path); h != nil {
				return h
			}
			h := failed(path, &steps.Error{Kind: "timeout", Err: fmt.Errorf("%w (%s since its cut-over)", errTimeout, most)})
			return x.groupFinished(ctx, s, n, path, x.past.attempt(path), map[string]any{}, began, h)
		}
	}
	attempt := x.past.attempt(path)
	result := map[string]any{}
	for try := 1; ; try++ {
		seq, err := x.beginGroup(s, n, path, attempt, try)
		if err != nil {
			return broken(path, err)
		}
		if try == 1 && n.marked() {
			x.acts.add(ctx, &entry{n: n, s: s, path: path, seq: seq})
		}
		clear(result)
		h := x.inside(ctx, s, n, path, result)
		if h == nil {
			if failure := x.must(s, "expect", n.Expect, result); failure != nil {
				h = failed(path, failure)
			}
		}
		if h != nil && h.end == Failed && over(outer) == nil && ctx.Err() != nil && h.passive {
			h = failed(path, &steps.Error{Kind: "timeout", Err: fmt.Errorf("%w (%s); it was at %s", errTimeout, most, h.path)})
		}
		if h != nil && !h.own() {
			return h
		}
		if x.dry != nil && h != nil {
			return x.dryRefused(s, n, path, h.err)
		}
		if timedOut := ctx.Err() != nil && over(outer) == nil; h == nil || h.decided != "" || timedOut || !x.again(s, policy, try, h.err, result) {
			return x.groupFinished(ctx, s, n, path, attempt, result, began, h)
		}
		if err := x.retrying(ctx, path, policy, attempt, try, h.err); err != nil {
			return x.interruptedRetry(err, path)
		}
		x.past.restart(path, s.prefix, n)
		attempt++
	}
}

// beginGroup journals that an attempt of a group begins, and gives its place in the order
// of starting. One that an earlier process had begun goes on.
func (x *run) beginGroup(s *scope, n *Node, path string, attempt, try int) (int64, error) {
	if was := x.past.live(path); try == 1 && was != nil && x.past.started(path) {
		return was.seq, nil
	}
	body := &StepStarted{Attempt: attempt}
	if try > 1 {
		body.Anew = n.inside(s.prefix)
	}
	return x.record(recStepStarted, path, body)
}

// retrying journals that another attempt follows, and waits for its time.
func (x *run) retrying(ctx context.Context, path string, p retryPolicy, attempt, try int, failure *steps.Error) error {
	delay := p.delay(try)
	if _, err := x.record(recStepRetrying, path, &StepRetrying{Attempt: attempt, Error: errorBody(failure), Delay: seconds(delay)}); err != nil {
		return &deadJournal{err}
	}
	if err := x.settleDisk(ctx); err != nil {
		return &deadJournal{err}
	}
	return x.pause(ctx, delay)
}

// interruptedRetry is the halt of what retrying gave.
func (x *run) interruptedRetry(err error, path string) *halt {
	var dead *deadJournal
	if errors.As(err, &dead) {
		return broken(path, dead.err)
	}
	return haltFor(err, path)
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
		inner := newScope(s.frame, s, passPrefix(path, pass), nil)
		h := x.members(ctx, inner, n)
		s.adopt(inner)
		if h != nil {
			return h
		}
		later := x.past.begun(passPrefix(path, pass+1), n.Children)
		if x.past.finished(path) && !later {
			return nil // a recheck in it may have changed what until says, but the group is over
		}
		ok, err := x.holds(s, n.Repeat.Until, nil)
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("repeat until %s: %w", n.Repeat.Until.Expr.Source, err)))
		}
		switch {
		case later:
			continue
		case ok:
			return nil
		case most > 0 && pass >= most:
			return failed(path, steps.Errorf("repeat", "after %d passes %s still does not hold (%s)", pass, n.Repeat.Until.Expr.Source, x.explain(s, n.Repeat.Until, nil)))
		}
		if err := x.settleDisk(ctx); err != nil {
			return broken(path, err)
		}
		if err := x.pause(ctx, every-x.clock.Now().Sub(start)); err != nil {
			return haltFor(err, path)
		}
	}
}

// passPrefix is the path of what stands in one pass of a group: verify[2]/.
func passPrefix(path string, pass int) string { return fmt.Sprintf("%s[%d]/", path, pass) }

func (x *run) members(ctx context.Context, s *scope, n *Node) *halt {
	if n.Parallel {
		return x.beside(ctx, s, n.Children)
	}
	return x.list(ctx, s, n.Children)
}

// call runs a sub-runbook: its steps, its rollback where it says so, its finally.
func (x *run) call(ctx context.Context, s *scope, n *Node, path string, result map[string]any) *halt {
	inner, h := x.callScope(s, n, path)
	if h != nil {
		return h
	}
	rolledBack := false
	if why, open := x.past.rollback(path); open {
		if h = x.retraceAll(ctx, inner, n.Sub.Steps); h == nil {
			h = failed(path, &steps.Error{Kind: "failed", Err: text(why)})
		}
	} else if h = x.past.rolledBack(path); h != nil {
		rolledBack = true
		if broken := x.retraceAll(ctx, inner, n.Sub.Steps); broken != nil {
			return broken
		}
	} else {
		h = x.list(ctx, inner, n.Sub.Steps)
	}
	if h.own() && !rolledBack && h.decided == "" && n.Sub.OnFailure == "rollback" {
		sp, _ := ctx.Value(spanKey{}).(*span)
		h = x.rollbackSpan(ctx, path, sp, h, func(ctx context.Context) *halt { return x.retraceAll(ctx, inner, n.Sub.Steps) })
	}
	if h == nil || h.own() {
		if !x.past.finished(path) {
			for _, f := range n.Sub.Finally {
				x.past.restart(inner.prefix+f.ID, inner.prefix, f)
			}
		}
		free, done := untimed(ctx)
		late := x.list(free, inner, n.Sub.Finally)
		done(nil)
		if late != nil && (h == nil || late.end != Failed) {
			h = late
		}
	}
	if h != nil {
		return h
	}
	for _, o := range n.Sub.Outputs {
		if err := x.known(inner, nil, o.Expr.Refs); err != nil {
			result[unknownKey] = path
			break
		}
		v, err := o.Expr.Eval(x.env(inner, nil, o.Expr.Refs))
		if err != nil {
			return failed(path, steps.Classify(fmt.Errorf("outputs.%s: %w", o.Name, err)))
		}
		result[o.Name] = v
	}
	return nil
}

// callScope binds what a sub-runbook is given.
func (x *run) callScope(s *scope, n *Node, path string) (*scope, *halt) {
	given, err := x.eval(s, n.With)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(fmt.Errorf("with: %w", err))))
	}
	values, _ := given.(map[string]any)
	inputs, err := n.Sub.bindCall(values)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(err)))
	}
	fr, err := x.enter(s.frame, n.Sub, inputs, nil)
	if err != nil {
		return nil, failed(path, x.masked(steps.Classify(err)))
	}
	return newScope(fr, nil, path+"/", nil), nil
}

// groupFinished keeps and journals how a group ended.
func (x *run) groupFinished(ctx context.Context, s *scope, n *Node, path string, attempt int, result map[string]any, began time.Time, h *halt) *halt {
	if h == nil {
		if err := x.outputs(s, n, result); err != nil {
			h = failed(path, x.masked(steps.Classify(err)))
		}
	}
	body := &StepFinished{Status: x.acts.status(ctx, h), Duration: seconds(x.clock.Now().Sub(began)), Attempts: attempt}
	if h != nil {
		body.Error, body.Decided = errorBody(h.err), h.decided
	}
	if len(result) > 0 {
		body.Outputs = x.marshal(result)
	}
	if was := x.past.live(path); h == nil && x.past.finished(path) {
		seal(result, was.finished) // a resume walked through what had ended before
		s.set(n.ID, result)
		return nil
	}
	seal(result, body)
	x.dryStatus(ctx, result, unknownStatus)
	s.set(n.ID, result)
	if _, err := x.record(recStepFinished, path, body); err != nil {
		return broken(path, err)
	}
	return h
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

// guard is what is asked before anything acts: when, require, confirm, in this order.
func (x *run) guard(ctx context.Context, s *scope, n *Node, path string, gates bool) (skipped bool, h *halt) {
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
			return true, x.refused(s, n, path, err)
		}
	}
	return false, x.asked(ctx, s, n, path, "")
}

// asked is gate, and a refusal fails the step.
func (x *run) asked(ctx context.Context, s *scope, n *Node, path, part string) *halt {
	h := x.gate(ctx, s, n, path, part)
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
		return x.dryRefused(s, n, path, failure)
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
