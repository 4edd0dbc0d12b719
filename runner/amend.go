package runner

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"runbook/runner/journal"
)

// An amendment replaces the plan of a run by another one. Three things are written, in this
// order: the old plan beside plan.json, the new one over plan.json, and the record
// plan-amended. The record decides: until it is durable, the run goes by the old plan.

// keptPlan is the file in a run's folder with the plan that the n-th amendment has replaced.
func keptPlan(n int) string { return fmt.Sprintf("plan-%d.json", n) }

// ReadFrozen reads the plan that a run goes by: plan.json, or, where a process died while it
// was amended, the one before.
func ReadFrozen(r *journal.Run) (*Frozen, error) {
	raw, err := r.ReadPlan()
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "without its plan a run cannot go on; runner runs log " + r.ID + " shows how far it came"}
	}
	frozen, err := Thaw(raw)
	if err != nil {
		return nil, err
	}
	last, err := lastKept(r)
	if last == nil || err != nil {
		return frozen, err
	}
	history, err := journal.Read(r.JournalPath())
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "runner runs verify " + r.ID}
	}
	if counts := countingPlan(history.Records); counts != frozen.Digest && counts == last.Digest {
		return last, nil
	}
	return frozen, nil
}

// lastKept is the plan that was kept last; nil: none was.
func lastKept(r *journal.Run) (*Frozen, error) {
	n := keptPlans(r)
	if n == 0 {
		return nil, nil
	}
	raw, err := os.ReadFile(r.Path(keptPlan(n)))
	if err != nil {
		return nil, &UsageError{Err: fmt.Errorf("read the plan of run %s before it was amended: %w", r.ID, err)}
	}
	return Thaw(raw)
}

// keptPlans is how many plans are kept.
func keptPlans(r *journal.Run) int {
	n := 0
	for {
		if _, err := os.Lstat(r.Path(keptPlan(n + 1))); err != nil {
			return n
		}
		n++
	}
}

// countingPlan is the digest of the plan that a run goes by, as its journal says.
func countingPlan(records []journal.Record) string {
	for _, r := range slices.Backward(records) {
		var amended PlanAmended
		var started RunStarted
		switch {
		case r.Type == recPlanAmended && r.Decode(&amended) == nil:
			return amended.New
		case r.Type == recRunStarted && r.Decode(&started) == nil:
			return started.Plan
		}
	}
	return ""
}

// amendment is one that may be made.
type amendment struct {
	plan []byte // the new plan.json
	body PlanAmended
}

// amended checks an amendment; nil: none is asked for, or it would change nothing. One that
// is refused is an *AmendError.
func (f *Frozen) amended(cfg Config, program *Program, inputs *Inputs, req ResumeRequest) (*amendment, error) {
	a := req.Amend
	if a == nil || a.Program.Digest(a.Inputs) == f.Digest {
		return nil, nil
	}
	history, err := journal.Read(req.Run.JournalPath())
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "runner runs verify " + req.Run.ID}
	}
	p, err := readPast(history.Records)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := p.resumable(req.Run.ID); err != nil {
		return nil, err
	}
	if err := p.amendable(program, inputs, a); err != nil {
		return nil, err
	}
	next := freeze(cfg, Request{Program: a.Program, Inputs: a.Inputs, Selection: f.Selection, Dir: f.Dir, Sandbox: f.Sandbox})
	plan, err := next.marshal()
	if err != nil {
		return nil, fmt.Errorf("freeze the amended plan: %w", err)
	}
	return &amendment{plan, PlanAmended{Old: f.Digest, New: next.Digest, Git: cfg.Git, Changes: a.Changes, Reason: a.Reason,
		Void: p.voided(program, a.Program), Person: cfg.Operator.person()}}, nil
}

// AmendError refuses an amendment: what has started differs in it.
type AmendError struct{ Offences []Offence }

func (e *AmendError) Error() string {
	return fmt.Sprintf("the plan cannot be amended: %s of what has started; nothing was done", plural(len(e.Offences), "difference"))
}

// Amendable says why a run cannot go on by another plan; nil: it can. The error is an
// *AmendError where the plans differ in what has started, else a *UsageError.
func Amendable(records []journal.Record, program *Program, inputs *Inputs, a *Amendment) error {
	p, err := readPast(records)
	if err != nil {
		return &UsageError{Err: err}
	}
	return p.amendable(program, inputs, a)
}

func (p *past) amendable(program *Program, inputs *Inputs, a *Amendment) error {
	for _, path := range slices.Sorted(maps.Keys(p.rollbacks)) {
		if _, open := p.rollback(path); open {
			return unfit("resume without --amend first", "the plan cannot be amended: a rollback is under way")
		}
	}
	if p.aborted != nil {
		return unfit("resume without --amend", "the plan cannot be amended: the run is being aborted")
	}
	if list := offences(program, a.Program, inputs, a.Inputs, p); len(list) > 0 {
		return &AmendError{list}
	}
	return nil
}

// voided are the approvals of steps that are others in the new plan.
func (p *past) voided(old, amended *Program) []string {
	var void []string
	for _, path := range slices.Sorted(maps.Keys(p.gates)) {
		g := p.gate(path)
		if g == nil || g.ended != nil {
			continue
		}
		at, _, _ := strings.Cut(path, "[batch ")
		o, n := old.at(at), amended.at(at)
		if o != nil && n != nil && old.StepDigest(o) == amended.StepDigest(n) {
			continue
		}
		for _, by := range g.by() {
			void = append(void, fmt.Sprintf("%s: the approval by %s does not count any more: the step is another one", path, by))
		}
	}
	return void
}

// amend makes an amendment, so that a crash leaves the one plan or the other.
func (x *run) amend(ctx context.Context, r *journal.Run, old *Frozen, a *amendment) error {
	last, err := lastKept(r)
	if err != nil {
		return err
	}
	was, err := old.marshal()
	if err != nil {
		return err
	}
	if a == nil {
		if last != nil && last.Digest == old.Digest { // an amendment that did not come to count
			return r.WritePlan(was)
		}
		return nil
	}
	n := keptPlans(r)
	if last == nil || last.Digest != old.Digest {
		n++
		if err := journal.WriteDurable(r.Path(keptPlan(n)), was); err != nil {
			return fmt.Errorf("keep the plan of run %s: %w", r.ID, err)
		}
	}
	if err := r.WritePlan(a.plan); err != nil {
		return err
	}
	a.body.Kept = keptPlan(n)
	return x.durable(ctx, recPlanAmended, "", &a.body)
}

// Words say in one line who amended a plan, why, and into which.
func (b *PlanAmended) Words() string {
	by := ""
	if b.Person != nil {
		by = " by " + b.By
	}
	return fmt.Sprintf("the plan was amended%s%s: %.12s → %.12s", by, because(b.Reason), b.Old, b.New)
}

// lines tell of an amendment.
func (b *PlanAmended) lines() []Line {
	lines := []Line{{Caution, b.Words()}}
	for _, c := range b.Changes {
		lines = append(lines, Line{Plain, "  " + c})
	}
	for _, v := range b.Void {
		lines = append(lines, Line{Caution, "  " + v})
	}
	return lines
}
