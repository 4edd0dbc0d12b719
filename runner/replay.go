package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/runner/journal"
	"runbook/steps"
)

// past is what earlier processes of a run did, as their journal says.
type past struct {
	steps     map[string]*pastStep
	handled   map[string]string       // failure-handled, by path
	loops     map[string][]FrozenItem // loop-frozen
	gates     map[string]bool         // approved
	rollbacks map[string]string       // started and not finished, with their reason
	decided   map[string]*DecisionMade
	last      *RunFinished // of the last process; nil: it died
	began     *RunStarted
}

type pastStep struct {
	seq      int64
	attempt  int
	addr     string
	digest   string
	before   json.RawMessage
	withheld bool
	acted    bool // step-started of something that is no read
	open     bool // started, not finished
	finished *StepFinished
	undone   bool
	undoing  bool
}

// readPast replays the records of a run.
func readPast(records []journal.Record) (*past, error) {
	p := &past{steps: map[string]*pastStep{}, handled: map[string]string{}, loops: map[string][]FrozenItem{}, gates: map[string]bool{}, rollbacks: map[string]string{}, decided: map[string]*DecisionMade{}}
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
		return r.Decode(p.last)
	case recStepStarted:
		var b StepStarted
		if err := r.Decode(&b); err != nil {
			return err
		}
		s := p.at(r.Step)
		if s.undone {
			*s = pastStep{}
		}
		if !s.acted {
			s.before, s.withheld = b.Before, b.Withheld
		}
		s.seq, s.attempt, s.addr, s.digest, s.open, s.finished = r.Seq, b.Attempt, b.Addr, b.Digest, true, nil
		s.acted = s.acted || b.Kind != "" && b.Effect != steps.Read.String()
		delete(p.handled, r.Step)
		delete(p.decided, r.Step)
	case recStepFinished:
		var b StepFinished
		if err := r.Decode(&b); err != nil {
			return err
		}
		s := p.at(r.Step)
		s.open, s.finished = false, &b
		delete(p.decided, r.Step)
	case recStepRetrying:
		p.at(r.Step).attempt++
	case recFailureHandled:
		var b Handled
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.handled[r.Step] = b.By
	case recLoopFrozen:
		var b LoopFrozen
		dec := json.NewDecoder(strings.NewReader(string(r.Body)))
		dec.UseNumber()
		if err := dec.Decode(&b); err != nil {
			return err
		}
		p.loops[r.Step] = b.Items
	case recGateDecided:
		var b GateDecided
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.gates[r.Step] = b.Approved
	case recDecision:
		var b DecisionMade
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.decided[r.Step] = &b
	case recRollbackStarted:
		var b RollbackStarted
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.rollbacks[r.Step] = b.Reason
	case recRollbackFinished:
		delete(p.rollbacks, r.Step)
	case recUndoStarted:
		p.at(r.Step).undoing = true
	case recUndoFinished:
		var b UndoFinished
		if err := r.Decode(&b); err != nil {
			return err
		}
		s := p.at(r.Step)
		s.undoing, s.undone = false, b.Status != statusFailed
	}
	return nil
}

func (p *past) at(path string) *pastStep {
	s := p.steps[path]
	if s == nil {
		s = &pastStep{}
		p.steps[path] = s
	}
	return s
}

// live is a step that has started and was not put back since.
func (p *past) live(path string) *pastStep {
	if s := p.steps[path]; s != nil && !s.undone {
		return s
	}
	return nil
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

// touched says that an item of a loop, or anything in it, has started.
func (p *past) touched(path string) bool {
	return p.live(path) != nil && (p.started(path) || p.finished(path))
}

func (p *past) skipped(path string) (reason string, ok bool) {
	if s := p.live(path); s != nil && s.finished != nil && s.finished.Status == statusSkipped {
		return s.finished.Reason, true
	}
	return "", false
}

func (p *past) approved(path string) bool { return p.gates[path] }

// rollback says that an earlier process died while it rolled this element back.
func (p *past) rollback(path string) (reason string, open bool) {
	reason, open = p.rollbacks[path]
	return reason, open
}

// rescuing says that the rescue of a node had begun.
func (p *past) rescuing(prefix string, n *Node) bool {
	for _, r := range n.Rescue {
		if p.steps[prefix+r.ID] != nil {
			return true
		}
	}
	return false
}

// forget makes steps run again from the start: finally, and the steps of an undo.
func (p *past) forget(prefix string, nodes []*Node) {
	for _, n := range nodes {
		path := prefix + n.ID
		for at := range p.steps {
			if rest, ok := strings.CutPrefix(at, path); ok && (rest == "" || rest[0] == '[' || rest[0] == '/') {
				delete(p.steps, at)
				delete(p.handled, at)
			}
		}
		p.forget(prefix, n.Children)
		p.forget(prefix, n.Rescue)
	}
}

// replayKey marks a walk that only looks for what had started; nothing runs.
type replayKey struct{}

func replaying(ctx context.Context) bool { return ctx.Value(replayKey{}) != nil }

// restore takes a step's end from the journal; false: it is to be run.
func (x *run) restore(ctx context.Context, s *scope, n *Node, path string) (*halt, bool) {
	was := x.past.live(path)
	if was == nil || was.finished == nil || was.finished.Status == statusSkipped {
		return nil, false
	}
	only := replaying(ctx)
	settled := ctx.Value(settledKey{}) != nil
	f := was.finished
	if f.Status == statusFailed && !only && !settled && x.past.handled[path] == "" {
		return nil, false
	}
	if n.Recheck && !only {
		return nil, false
	}
	if was.acted {
		e := x.acts.add(ctx, &entry{n: n, s: s, path: path})
		e.begin(was.seq, was.before, was.withheld)
		if was.withheld {
			e.before = nil
		}
		e.end(f.Status)
	}
	result, err := x.remember(n, f)
	if err != nil {
		return failed(path, steps.Classify(fmt.Errorf("read the outputs of %s from the journal: %w", path, err))), true
	}
	s.set(n.ID, result)
	if f.Status == statusFailed {
		return failed(path, f.Error.err()), true
	}
	return nil, true
}

// remember decodes what later steps see of a step that finished in an earlier process.
func (x *run) remember(n *Node, f *StepFinished) (map[string]any, error) {
	typ := n.OutType
	if n.Loop != nil || n.FanOut {
		typ = n.ItemType
	}
	result := map[string]any{}
	if len(f.Outputs) > 0 {
		dec := json.NewDecoder(strings.NewReader(string(f.Outputs)))
		dec.UseNumber()
		var raw map[string]any
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		for name, v := range raw {
			var t *expression.Type
			if typ != nil {
				t = typ.Fields[name]
			}
			result[name] = expression.Decode(t, v)
		}
	}
	if typ != nil {
		for name := range typ.Fields {
			if _, ok := result[name]; !ok {
				result[name] = nil
			}
		}
	}
	took, _ := time.ParseDuration(f.Duration)
	seal(result, f.Status, f.Attempts, took, f.Error.orNil())
	return result, nil
}

func (b *ErrorBody) orNil() *steps.Error {
	if b == nil {
		return nil
	}
	return b.err()
}

// replayEnd is a step that a rollback's walk meets and that has not finished: if it had
// started it may have changed something.
func (x *run) replayEnd(ctx context.Context, s *scope, n *Node, path string) *halt {
	was := x.past.live(path)
	if was != nil && was.open && was.acted {
		e := x.acts.add(ctx, &entry{n: n, s: s, path: path})
		e.begin(was.seq, was.before, was.withheld)
	}
	return nil
}

// inherit is what a resume finds of a step that had started: in doubt, it is settled
// before anything else happens to it. over: there is nothing left to do.
func (x *run) inherit(ctx context.Context, a *act) (h *halt, over bool) {
	was := x.past.live(a.path)
	if was == nil || !was.acted {
		return nil, false
	}
	a.attempt = was.attempt + 1
	a.before = was.before
	if was.withheld {
		a.before, a.withheld = nil, true
	}
	a.entry = x.acts.add(ctx, &entry{n: a.n, s: a.s, path: a.path})
	a.entry.begin(was.seq, a.before, a.withheld)
	if a.target != nil && was.addr != "" && was.addr != a.target.addr {
		return x.doubt(ctx, a, steps.Errorf("changed", "%s acted on %s before, and would act on %s now", a.path, was.addr, a.target.addr)), true
	}
	if a.n.Background {
		return nil, false // it ended with its runner, or is found by its own probe
	}
	if !was.open {
		a.entry.end(statusFailed)
		return nil, false // it has failed, for certain: this is its next attempt
	}
	if d := x.decision(a); d != nil {
		return x.decide(ctx, a, d)
	}
	v, why := x.settle(ctx, a, steps.Errorf("crash", "the runner stopped while %s was acting", a.path))
	switch v {
	case settledDone:
		a.attempt = was.attempt
		return x.finish(a, statusChanged), true
	case settledDoubt:
		return x.doubt(ctx, a, why), true
	}
	return nil, false
}

// decision is the operator's, of this resume or of one that died before it was carried out.
func (x *run) decision(a *act) *Decision {
	if d := x.decisions[a.path]; d != nil {
		return d
	}
	if d := x.decisions[a.n.ID]; d != nil {
		return d
	}
	if d := x.past.decided[a.path]; d != nil {
		return &Decision{Step: a.path, Choice: d.Choice, Reason: d.Reason}
	}
	return nil
}

// decide carries out what an operator decided about a step in doubt.
func (x *run) decide(ctx context.Context, a *act, d *Decision) (*halt, bool) {
	body := &DecisionMade{Choice: d.Choice, Reason: d.Reason, By: x.cfg.Operator.Name, UID: x.cfg.Operator.UID}
	if err := x.durable(ctx, recDecision, a.path, body); err != nil {
		return broken(a.path, err), true
	}
	switch d.Choice {
	case "done":
		a.recovered = true
		a.warnings = append(a.warnings, "taken as done by "+x.cfg.Operator.Name+": "+d.Reason)
		return x.finish(a, statusChanged), true
	case "fail":
		return x.fail(a, steps.Errorf("decided", "%s counts as failed, by %s: %s", a.path, x.cfg.Operator.Name, d.Reason)), true
	}
	return nil, false
}
