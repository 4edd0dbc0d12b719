package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"

	"runbook/runner/expression"
	"runbook/runner/journal"
	"runbook/steps"
)

// past is what earlier processes of a run did, as their journal says.
type past struct {
	steps     map[string]*pastStep
	handled   map[string]dated[string]       // failure-handled, by path
	loops     map[string]dated[[]FrozenItem] // loop-frozen
	gates     gateStates
	rollbacks map[string]pastRollback
	decided   map[string]*DecisionMade
	guards    pastGuards
	aborted   *RunPaused   // run-aborted: the run only has to end
	concluded int64        // the last run-finished that said failed: what failed before it is tried again
	last      *RunFinished // of the last process; nil: it died
	began     *RunStarted
	bodies    bodyReader

	mu   sync.RWMutex
	anew map[string]renewal // elements that have begun anew since
}

type pastStep struct {
	seq      int64 // of its last step-started
	last     int64 // of its last record
	attempt  int
	addr     string
	before   json.RawMessage
	withheld bool
	acted    bool // step-started of something that is no read
	open     bool // started, not finished
	changed  bool // finished as changed, and not put back since
	finished *StepFinished
	undone   bool // put back by a rollback
	restored bool // a temporary setting, put back at the end of the run
	undoing  bool
	cut      time.Time // when it was last begun, of a step that cuts live traffic over
	first    time.Time // when it began, of a group or loop: pauses and later attempts do not count
}

// pastRollback is what became of a rollback.
type pastRollback struct {
	reason   string
	finished int64  // of its rollback-finished; 0: a process died in it
	stopped  string // why it ended early
}

// dated is what a record said, and which record.
type dated[T any] struct {
	v   T
	seq int64
}

// renewal has the records from which on an element counts as begun anew. What it did
// before is then of no account, each time in another way.
type renewal struct {
	retried    int64 // all of it runs again; what it changed can still be put back
	rolledBack int64 // so does all but what a rollback has left in place
	gone       int64 // nothing of it is left: its own undo has put it back
}

// now is a renewal in this process: no record of the past is later.
const now = math.MaxInt64

func (r renewal) max(o renewal) renewal {
	return renewal{max(r.retried, o.retried), max(r.rolledBack, o.rolledBack), max(r.gone, o.gone)}
}

// readPast replays the records of a run.
func readPast(records []journal.Record) (*past, error) {
	p := &past{steps: make(map[string]*pastStep, len(records)/3), handled: map[string]dated[string]{}, loops: map[string]dated[[]FrozenItem]{}, gates: gateStates{},
		rollbacks: map[string]pastRollback{}, decided: map[string]*DecisionMade{}, guards: newPastGuards(), anew: map[string]renewal{}}
	for _, r := range records {
		if err := p.add(r); err != nil {
			return nil, fmt.Errorf("journal record %d (%s %s): %w", r.Seq, r.Type, r.Step, err)
		}
	}
	return p, nil
}

func (p *past) add(r journal.Record) error {
	switch r.Type {
	case recRunStarted:
		p.began = &RunStarted{}
		return r.Decode(p.began)
	case recRunResumed:
		p.last = nil
	case recRunFinished:
		p.last = &RunFinished{}
		if err := r.Decode(p.last); err != nil {
			return err
		}
		if p.last.Status == Failed {
			p.concluded = r.Seq
		}
	case recStepStarted:
		var b StepStarted
		if err := p.bodies.started(r, &b); err != nil {
			return err
		}
		p.stepStarted(r, &b)
	case recStepFinished:
		var b StepFinished
		if err := p.bodies.finished(r, &b); err != nil {
			return err
		}
		s := p.at(r.Step)
		s.last, s.open, s.finished = r.Seq, false, &b
		s.changed = s.changed || b.Status == statusChanged
		delete(p.decided, r.Step)
	case recFailureHandled:
		var b Handled
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.handled[r.Step] = dated[string]{b.By, r.Seq}
	case recLoopFrozen:
		var b LoopFrozen
		dec := json.NewDecoder(bytes.NewReader(r.Body))
		dec.UseNumber()
		if err := dec.Decode(&b); err != nil {
			return err
		}
		p.loops[r.Step] = dated[[]FrozenItem]{b.Items, r.Seq}
	case recGateOpened, recGateDecided:
		return p.gates.add(r, func(path string, seq int64) bool { return !p.valid(path, seq) })
	case recRunAborted:
		p.aborted = &RunPaused{}
		return r.Decode(p.aborted)
	case recDecision:
		var b DecisionMade
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.decided[r.Step] = &b
	case recGuardObserved, recGuardTripped, recGuardOverridden:
		return p.guards.add(r)
	case recRollbackStarted:
		var b RollbackStarted
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.rollbacks[r.Step] = pastRollback{reason: b.Reason}
	case recRollbackFinished:
		var b RollbackFinished
		if err := r.Decode(&b); err != nil {
			return err
		}
		was := p.rollbacks[r.Step]
		was.finished, was.stopped = r.Seq, b.Stopped
		p.rollbacks[r.Step] = was
		p.renew(r.Step, b.Anew, renewal{rolledBack: r.Seq})
	case recUndoStarted:
		p.at(r.Step).undoing = true
	case recUndoFinished:
		var b UndoFinished
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.undoFinished(r, &b)
	}
	return nil
}

func (p *past) stepStarted(r journal.Record, b *StepStarted) {
	s := p.at(r.Step)
	if s.undone {
		*s = pastStep{}
	}
	if !s.acted {
		s.before, s.withheld = b.Before, b.Withheld
	}
	s.seq, s.last, s.attempt, s.addr, s.open, s.finished = r.Seq, r.Seq, b.Attempt, b.Addr, true, nil
	s.acted = s.acted || b.Kind != "" && b.Effect != steps.Read.String()
	if b.Effect == steps.Cutover.String() {
		s.cut = r.Time
	}
	if b.Kind == "" && b.Attempt <= 1 {
		s.first = r.Time
	}
	delete(p.handled, r.Step)
	delete(p.decided, r.Step)
	if b.Kind == "" && b.Attempt > 1 {
		p.renew(r.Step, b.Anew, renewal{retried: r.Seq - 1})
	}
}

func (p *past) undoFinished(r journal.Record, b *UndoFinished) {
	s := p.at(r.Step)
	s.undoing = false
	switch {
	case b.Status == statusFailed:
	case b.Why == whyRestore:
		s.restored = true
	default:
		s.undone, s.changed = true, false
		if !s.acted { // a group that has a way back of its own
			p.renew(r.Step, b.Anew, renewal{gone: r.Seq})
		}
	}
}

func (p *past) at(path string) *pastStep {
	s := p.steps[path]
	if s == nil {
		s = &pastStep{}
		p.steps[path] = s
	}
	return s
}

// renew notes that an element has begun anew, and with it these steps, whose paths do
// not tell that they stand in it.
func (p *past) renew(path string, inside []string, r renewal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.anew[path] = p.anew[path].max(r)
	for _, in := range inside {
		p.anew[in] = p.anew[in].max(r)
	}
}

// restart makes a node run again from its start: a group that is retried, a step of
// finally or of an undo.
func (p *past) restart(path, prefix string, n *Node) {
	p.renew(path, n.inside(prefix), renewal{retried: now})
}

// inside gives the paths of the steps in a group, and in its rescue, that do not begin
// with its own: ids are flat.
func (n *Node) inside(prefix string) []string {
	var paths []string
	for _, list := range [][]*Node{n.Children, n.Rescue} {
		for _, c := range list {
			paths = append(paths, prefix+c.ID)
			paths = append(paths, c.inside(prefix)...)
		}
	}
	return paths
}

// since gives from which records on a path, or an element around it, has begun anew.
func (p *past) since(path string) renewal {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if len(p.anew) == 0 {
		return renewal{}
	}
	r := p.anew[""].max(p.anew[path])
	for i := range len(path) {
		if path[i] == '/' || path[i] == '[' {
			r = r.max(p.anew[path[:i]])
		}
	}
	return r
}

// valid says that nothing around a path has begun anew since a record.
func (p *past) valid(path string, seq int64) bool {
	r := p.since(path)
	return seq > max(r.retried, r.rolledBack, r.gone)
}

// live is what still counts of a step that has started; nil: nothing.
func (p *past) live(path string) *pastStep {
	s := p.steps[path]
	if s == nil || s.undone || s.last == 0 {
		return nil
	}
	r := p.since(path)
	switch {
	case s.last <= r.gone:
		return nil
	case s.last <= r.retried:
		if !s.acted {
			return nil
		}
		again := *s
		again.open, again.finished = false, nil
		return &again
	case s.last <= r.rolledBack && !s.changed && !(s.acted && s.open):
		return nil
	}
	return s
}

func (p *past) started(path string) bool {
	s := p.live(path)
	return s != nil && (s.open || s.finished != nil && s.finished.Status != statusSkipped)
}

func (p *past) open(path string) bool {
	s := p.live(path)
	return s != nil && s.open
}

func (p *past) finished(path string) bool {
	s := p.live(path)
	return s != nil && s.finished != nil && s.finished.Status != statusFailed
}

func (p *past) skipped(path string) (reason string, ok bool) {
	if s := p.live(path); s != nil && s.finished != nil && s.finished.Status == statusSkipped {
		return s.finished.Reason, true
	}
	return "", false
}

// attempt is the number of a group's attempt that is under way.
func (p *past) attempt(path string) int {
	if s := p.live(path); s != nil {
		return max(1, s.attempt)
	}
	return 1
}

// gate is what became of a gate; nil: it is to be asked from its beginning.
func (p *past) gate(path string) *gateState {
	g := p.gates[path]
	if g == nil || !p.valid(path, g.seq) || g.ended != nil && g.seq <= p.concluded {
		return nil
	}
	return g
}

// handledBy says what made a failure not end the run; empty: nothing.
func (p *past) handledBy(path string) string {
	if h, ok := p.handled[path]; ok && p.valid(path, h.seq) {
		return h.v
	}
	return ""
}

func (p *past) frozen(path string) ([]FrozenItem, bool) {
	l, ok := p.loops[path]
	return l.v, ok && p.valid(path, l.seq)
}

// rollback says that an earlier process died while it rolled this element back.
func (p *past) rollback(path string) (reason string, open bool) {
	r, ok := p.rollbacks[path]
	return r.reason, ok && r.finished == 0
}

// rolledBack is the failure of an element that an earlier process rolled back, and died
// before it could say what follows from that. nil: there was none.
func (p *past) rolledBack(path string) *halt {
	r, ok := p.rollbacks[path]
	if !ok || r.finished <= p.concluded || !p.valid(path, r.finished+1) {
		return nil
	}
	h := failed(path, &steps.Error{Kind: "failed", Err: text(r.reason)})
	if r.stopped != "" {
		h.decided = "stop"
		h.err.Err = text(fmt.Sprintf("%s (rolling back %s after: %s)", r.stopped, path, r.reason))
	}
	return h
}

// undoing says that an earlier process died while it put this step back.
func (p *past) undoing(path string) bool {
	s := p.steps[path]
	return s != nil && s.undoing
}

// begun says that one of these nodes has started.
func (p *past) begun(prefix string, nodes []*Node) bool {
	for _, n := range nodes {
		if p.live(prefix+n.ID) != nil {
			return true
		}
	}
	return false
}

// gaveUp is the failure of an element whose failure an earlier process has dealt with,
// was dealing with, or had no time to deal with: nothing in it runs any more. nil: it
// goes on. What a run ended with, as failed, is tried again.
func (p *past) gaveUp(prefix string, n *Node, path string) *halt {
	if p.handledBy(path) == "" && !p.begun(prefix, n.Rescue) && !p.inForce(path) {
		return nil
	}
	return p.failure(path)
}

// inForce says that a step has failed and the run has not ended since.
func (p *past) inForce(path string) bool {
	s := p.live(path)
	return s != nil && s.finished != nil && s.finished.Status == statusFailed && s.last > p.concluded && s.finished.Decided != decidedResume
}

// failure is how a step that has failed did.
func (p *past) failure(path string) *halt {
	if s := p.live(path); s != nil && s.finished != nil && s.finished.Error != nil {
		h := failed(path, s.finished.Error.err())
		h.decided = s.finished.Decided
		return h
	}
	return failed(path, steps.Errorf("failed", "%s has failed", path))
}

// restore takes a step's end from the journal; false: it is to be run.
func (x *run) restore(ctx context.Context, s *scope, n *Node, path string) (*halt, bool) {
	was := x.past.live(path)
	if was == nil || was.finished == nil || was.finished.Suspended || n.Recheck {
		return nil, false
	}
	switch was.finished.Status {
	case statusFailed, statusSkipped:
		return nil, false
	}
	return x.recall(ctx, s, n, path), true
}

// recall takes from the journal what a step has done and given, whether it has ended or not.
func (x *run) recall(ctx context.Context, s *scope, n *Node, path string) *halt {
	was := x.past.live(path)
	if was == nil {
		return nil
	}
	if !x.acts.knows(path) {
		if was.acted && !was.restored {
			was.entry(x.acts.add(ctx, &entry{n: n, s: s, path: path}))
		} else if !was.acted && n.PointOfNoReturn {
			x.acts.add(ctx, &entry{n: n, s: s, path: path, seq: was.seq})
		}
	}
	if _, newer := s.own(n.ID); newer || was.finished == nil {
		return nil
	}
	if reason, skipped := x.past.skipped(path); skipped {
		x.skip(s, n, reason)
		return nil
	}
	result, err := x.remember(n, was.finished)
	if err != nil {
		return failed(path, steps.Classify(fmt.Errorf("read the outputs of %s from the journal: %w", path, err)))
	}
	s.set(n.ID, result)
	return nil
}

// entry fills in what the log for the way back has of the step.
func (was *pastStep) entry(e *entry) {
	before := was.before
	if was.withheld {
		before = nil
	}
	e.begin(was.seq, was.addr, before, was.withheld)
	switch {
	case was.changed:
		e.end(statusChanged)
	case was.finished == nil:
	case nothingSent(was.finished):
		e.end(statusOK)
	default:
		e.end(was.finished.Status)
	}
}

// retraceAll is retrace for a list.
func (x *run) retraceAll(ctx context.Context, s *scope, nodes []*Node) *halt {
	for _, n := range nodes {
		path := s.prefix + n.ID
		if h := stopped(ctx, path); h != nil {
			return h
		}
		if h := x.retrace(x.acts.open(ctx, n, path).in(ctx), s, n, path); h != nil {
			return h
		}
		inner := newScope(s.frame, s, s.prefix, nil)
		if h := x.retraceAll(ctx, inner, n.Rescue); h != nil {
			return h
		}
		s.adopt(inner)
	}
	return nil
}

// retrace walks through an element for what earlier processes have done in it and what
// that gave: nothing runs. It is for what is to be rolled back, and for what has failed
// and was dealt with.
func (x *run) retrace(ctx context.Context, s *scope, n *Node, path string) *halt {
	x.explainer.look(ctx, s, n, path)
	if n.Loop != nil || n.FanOut {
		return x.retraceLoop(ctx, s, n, path)
	}
	return x.retraceOnce(ctx, s, n, path)
}

func (x *run) retraceOnce(ctx context.Context, s *scope, n *Node, path string) *halt {
	if n.Shape == Leaf {
		return x.recall(ctx, s, n, path)
	}
	was := x.past.live(path)
	if was == nil {
		return nil
	}
	if h := x.checkTrips(ctx, s, n, path); h != nil {
		return h
	}
	if n.marked() && !x.acts.knows(path) {
		x.acts.add(ctx, &entry{n: n, s: s, path: path, seq: was.seq})
	}
	if h := x.retraceInside(ctx, s, n, path); h != nil || was.finished == nil {
		return h
	}
	if _, newer := s.own(n.ID); newer {
		return nil
	}
	result, err := x.remember(n, was.finished)
	if err != nil {
		return failed(path, steps.Classify(fmt.Errorf("read the outputs of %s from the journal: %w", path, err)))
	}
	s.set(n.ID, result)
	return nil
}

func (x *run) retraceInside(ctx context.Context, s *scope, n *Node, path string) *halt {
	switch {
	case n.Shape == Call:
		inner, h := x.callScope(s, n, path)
		if h != nil {
			return h
		}
		return x.retraceAll(ctx, inner, n.Sub.Steps)
	case n.Repeat == nil:
		return x.retraceAll(ctx, s, n.Children)
	}
	for pass := 1; x.past.begun(passPrefix(path, pass), n.Children); pass++ {
		inner := newScope(s.frame, s, passPrefix(path, pass), nil)
		if h := x.retraceAll(ctx, inner, n.Children); h != nil {
			return h
		}
		s.adopt(inner)
	}
	return nil
}

func (x *run) retraceLoop(ctx context.Context, s *scope, n *Node, path string) *halt {
	was := x.past.live(path)
	if was == nil || was.acted {
		return nil
	}
	if h := x.checkTrips(ctx, s, n, path); h != nil {
		return h
	}
	items, err := x.pastItems(s, n, path)
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	l, err := x.newLoop(s, n, path, items)
	if err != nil {
		return failed(path, steps.Classify(err))
	}
	at := 0
	for w, size := range l.waves {
		batch := items[at : at+size]
		at += size
		for i := range batch {
			it := &batch[i]
			inner := newScope(s.frame, s, it.path+"/", l.names(it))
			x.explainer.look(ctx, inner, n, it.path)
			if h := x.retraceOnce(x.acts.open(ctx, n, it.path).in(ctx), inner, n, it.path); h != nil {
				return h
			}
			l.keep(inner, it)
		}
		if h := x.retraceAll(ctx, l.batchScope(w, batch), n.AfterBatch); h != nil {
			return h
		}
	}
	if was.finished != nil {
		result := l.result()
		seal(result, was.finished)
		s.set(n.ID, result)
	}
	return nil
}

// remember decodes what later steps see of a step that finished in an earlier process.
func (x *run) remember(n *Node, f *StepFinished) (map[string]any, error) {
	typ := n.OutType
	if n.Loop != nil || n.FanOut {
		typ = n.ItemType
	}
	result := map[string]any{}
	if f.Status == statusFailed {
		result = nothing(n)
	}
	if len(f.Outputs) > 0 {
		raw, err := values(f.Outputs)
		if err != nil {
			return nil, err
		}
		for name, v := range raw {
			if v == nil {
				result[name] = nil // nobody had learned it; an empty list is not null
				continue
			}
			var t *expression.Type
			if typ != nil {
				t = typ.Fields[name]
			}
			result[name] = expression.Decode(t, v)
		}
	}
	seal(result, f)
	return result, nil
}

// inherit is what a resume finds of a step that had started: in doubt, it is settled
// before anything else happens to it. over: there is nothing left to do.
func (x *run) inherit(ctx context.Context, a *act) (h *halt, over bool) {
	was := x.past.live(a.path)
	if x.past.since(a.path).retried > 0 {
		a.entry = x.acts.again(ctx, a.path)
	}
	if was != nil && was.acted && a.entry == nil {
		a.entry = x.acts.add(ctx, &entry{n: a.n, s: a.s, path: a.path})
		was.entry(a.entry)
	}
	if a.entry == nil {
		return nil, false
	}
	a.before, a.withheld, a.acted = a.entry.before, a.entry.withheld, a.entry.status != statusChanged
	if was == nil || !was.acted {
		return nil, false
	}
	a.attempt = was.attempt + 1
	if a.n.Background {
		return nil, false // it ended with its runner, or is found by its own probe
	}
	if was.open {
		if h, over := x.resolve(ctx, a, was); over {
			return h, true
		}
	}
	if a.moved(was.addr) {
		return x.elsewhere(ctx, a, was.addr), true
	}
	return nil, false
}

// resolve settles a step in doubt, by the operator's word or by asking. over: it is done,
// has failed, or stays in doubt.
func (x *run) resolve(ctx context.Context, a *act, was *pastStep) (h *halt, over bool) {
	a.acted = true
	if h, decided, over := x.decide(a); decided {
		return h, over
	}
	if a.moved(was.addr) {
		return x.elsewhere(ctx, a, was.addr), true
	}
	a.attempt = was.attempt
	verdict, why := x.settle(ctx, a, steps.Errorf("crash", "the runner stopped while %s was acting", a.path))
	switch verdict {
	case settledDone:
		return x.finish(a, statusChanged), true
	case settledDoubt:
		return x.doubt(ctx, a, why), true
	}
	a.attempt++
	return nil, false
}

// moved says that the step would act on another address than before.
func (a *act) moved(before string) bool {
	return a.target != nil && before != "" && before != a.x.mask.String(a.target.addr)
}

// elsewhere refuses to act on another address than before.
func (x *run) elsewhere(ctx context.Context, a *act, addr string) *halt {
	return x.doubt(ctx, a, steps.Errorf("changed", "%s acted on %s before, and would act on %s now", a.path, addr, a.target.addr))
}

// decide carries out what an operator decided about a step in doubt: at this resume, or
// at one that died before it was carried out. over: the step does not run.
func (x *run) decide(a *act) (h *halt, decided, over bool) {
	made := x.past.decided[a.path]
	if d := x.decisions[a.path]; d != nil {
		made = &DecisionMade{Choice: d.Choice, Reason: d.Reason, By: x.cfg.Operator.Name, UID: x.cfg.Operator.UID}
		if err := x.durable(context.Background(), recDecision, a.path, made); err != nil {
			return broken(a.path, err), true, true
		}
	}
	if made == nil {
		return nil, false, false
	}
	switch made.Choice {
	case "done":
		a.attempt--
		a.found, a.recovered = true, true
		a.warnings = append(a.warnings, "taken as done by "+made.By+": "+made.Reason)
		return x.finish(a, statusChanged), true, true
	case "fail":
		a.attempt--
		return x.fail(a, steps.Errorf("decided", "%s counts as failed, by %s: %s", a.path, made.By, made.Reason)), true, true
	}
	return nil, true, false
}
