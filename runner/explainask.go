package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// How long an explanation asks targets: each of them, and all together.
const (
	askOne = 10 * time.Second
	askAll = 30 * time.Second
)

// errAsking ends the asking for an explanation.
var errAsking = errors.New("the time for asking is over")

// ExplainRequest is a run of which no process is at work, and the plan that a resume would carry out.
type ExplainRequest struct {
	Run     *journal.Run
	Frozen  *Frozen
	Program *Program
	Inputs  *Inputs
	Records []journal.Record
}

// Ask completes an explanation by what is so just now: it asks probes, stop conditions and
// locks, as a dry run would, by reads alone and within half a minute. It writes nothing and
// keeps no lock. What could not be asked is said in the explanation.
func (e *Explanation) Ask(ctx context.Context, cfg Config, req ExplainRequest) error {
	cfg = cfg.withDefaults()
	cfg.Observe, cfg.Progress = nil, nil
	var err error
	if e.Alive, err = journal.ChildrenAlive(req.Run); err != nil {
		return err
	}
	ctx, cancel := cfg.Clock.WithTimeout(ctx, askAll, errAsking)
	defer cancel()
	if err := e.ask(ctx, cfg, req); err != nil {
		e.Unasked = err.Error()
	}
	return nil
}

// ask walks through what earlier processes did, as a resume does before it looks first.
func (e *Explanation) ask(ctx context.Context, cfg Config, req ExplainRequest) error {
	x, err := newRun(ctx, cfg, req.Program, req.Frozen.Selection, req.Frozen.Dir)
	if err != nil {
		return err
	}
	defer x.pool.closeAll()
	x.id, x.dry = req.Run.ID, &dryRun{changed: map[string]string{}}
	if x.past, err = readPast(req.Records); err != nil {
		return err
	}
	fr, err := x.root(req.Inputs, req.Program, x.id, req.Records[0].Time)
	if err != nil {
		return x.mask.Error(err)
	}
	for _, n := range req.Program.Root.Finally {
		x.past.restart(n.ID, "", n)
	}
	s := newScope(fr, nil, "", nil)
	x.explainer = &explainer{x: x, e: e, run: req.Run}
	if err := x.explainer.lock(ctx, s); err != nil {
		return err
	}
	x.explainer.guards(ctx, s, req.Program.Root.Guards, "")
	h := x.retraceAll(ctx, s, req.Program.Root.Steps)
	switch {
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case h != nil:
		return fmt.Errorf("%s: %w", h.path, x.mask.Error(h.err))
	}
	return nil
}

// explainer completes an explanation, step by step.
type explainer struct {
	x   *run
	e   *Explanation
	run *journal.Run
}

// lock tells who holds the lock that the runbook names, or keeps it for another run.
func (k *explainer) lock(ctx context.Context, s *scope) error {
	x, decl := k.x, k.x.prog.Root.Book.Lock
	if x.prog.Root.Lock == nil {
		return nil
	}
	l := ExplainedLock{Name: x.words(s, x.prog.Root.Lock), Target: decl.Target.Value}
	state := steps.LockState{Name: l.Name}
	var holder journal.Holder
	if l.Target == "" {
		var err error
		if holder, state.Live, err = journal.Inspect(x.cfg.Store.LockPath(l.Name)); err != nil {
			return err
		}
		state.Claim = holder.Claim
	} else {
		locker, err := x.locker(ctx, s.frame, l.Target)
		if err != nil {
			return fmt.Errorf("lock %s: %w", l.Name, err)
		}
		all, err := locker.Locks(ctx)
		if err != nil {
			return fmt.Errorf("lock %s: %w", l.Name, err)
		}
		for _, other := range all {
			if other.Name == l.Name {
				state = other
				_ = json.Unmarshal(other.Holder, &holder) // what is no holder is shown as one without a name
			}
		}
	}
	switch {
	case state.Live:
		l.Held = holder.String()
	case state.Claim && holder.Run != k.run.ID:
		l.Held = "run " + holder.Run + ", which keeps it until it is over (" + holder.String() + ")"
	case state.Claim:
		l.Own = true
	}
	k.e.Locks = append(k.e.Locks, l)
	return nil
}

// look completes what is said of a step, one item of a loop, or a loop as a whole.
func (k *explainer) look(ctx context.Context, s *scope, n *Node, path string) {
	if k == nil || ctx.Err() != nil {
		return
	}
	k.gates(ctx, s, n, path)
	if k.x.past.open(path) && path == s.prefix+n.ID {
		k.guards(ctx, s, n.Guards, path)
	}
	if n.Shape != Leaf {
		return
	}
	for i := range k.e.InDoubt {
		if d := &k.e.InDoubt[i]; d.Step == path {
			k.doubt(ctx, s, n, d)
		}
	}
	for i := range k.e.Rechecks {
		if r := &k.e.Rechecks[i]; r.Step == path {
			k.recheck(s, n, r)
		}
	}
}

// doubt asks whether the effect of a step is there, and says what follows.
func (k *explainer) doubt(ctx context.Context, s *scope, n *Node, d *ExplainedDoubt) {
	x := k.x
	was := x.past.live(d.Step)
	if n.Kind.Guard != nil {
		d.Guardian = &ExplainedGuardian{Log: k.run.Path(guardianLog)}
		d.Guardian.Said = x.mask.String(lastAbout(d.Guardian.Log, d.Step))
	}
	decided := strings.HasPrefix(d.Then, "decided: ")
	if made := x.past.decided[d.Step]; made != nil && !decided {
		d.Then, d.Decide, decided = fmt.Sprintf("decided: %s, by %s%s", made.Choice, made.By, because(made.Reason)), false, true
	}
	if n.Background || was == nil {
		return
	}
	a, err := x.prepare(s, n, d.Step)
	if err != nil {
		d.Then, d.Decide = "cannot be asked, and stops in doubt (exit 3): "+x.mask.Error(err).Error(), true
		return
	}
	if a.moved(was.addr) && !decided {
		d.Then, d.Decide = fmt.Sprintf("stops in doubt (exit 3): it acted on %s before, and would act on %s now", was.addr, x.mask.String(a.target.addr)), true
		return
	}
	if !a.probes() {
		return
	}
	if a.before = was.before; was.withheld {
		a.before = nil
	}
	a.acted = true
	kind := a.kind
	if n.Probe != nil {
		kind = n.Probe.Kind
	}
	limited, cancel := x.clock.WithTimeout(ctx, askOne, errAsking)
	defer cancel()
	state, _, err := x.probe(limited, a)
	d.Probe = &ExplainedProbe{Kind: kind.Name, State: state.String()}
	if err != nil {
		d.Probe.Error = x.mask.Error(err).Error()
	}
	if decided {
		return
	}
	switch d.Decide = false; a.judge(state, err) {
	case settledDone:
		d.Then = "it is finished, marked recovered, and does not run again"
	case settledAgain:
		d.Then = "it runs again"
		if err != nil || state != steps.Untouched {
			d.Then += ": twice is the same as once"
		}
	case settledDoubt:
		d.Then, d.Decide = "the resume asks again, and stops in doubt (exit 3) if that is the answer; decide with --decide "+quoted(d.Step+"=done|redo|fail")+" --reason TEXT", true
	}
}

// lastAbout is the last line of a guardian's log about a step; empty: there is none.
func lastAbout(log, step string) string {
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	var last string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := lines.Text() + " "; strings.Contains(line, " step="+step+" ") || strings.Contains(line, fmt.Sprintf(" step=%q ", step)) {
			last = lines.Text()
		}
	}
	return last
}

// recheck tells what a finished read is given when it runs again.
func (k *explainer) recheck(s *scope, n *Node, r *ExplainedRecheck) {
	a, err := k.x.prepare(s, n, r.Step)
	if err != nil {
		return // what it depends on is looked at again, too
	}
	if a.target != nil {
		r.Target, r.Addr = a.target.Name, k.x.mask.String(a.target.addr)
	}
	if v, err := k.x.eval(s, n.With); err == nil && !onlyConditions(n.Kind.In) {
		with, _ := jsonable(v).(map[string]any)
		r.With, _ = k.x.mask.Value(with).(map[string]any)
	}
}

// gates tells which approvals would not count any more where a step, or one of its batches, has
// been asked about: it is another step, it shows or sends something else.
func (k *explainer) gates(ctx context.Context, s *scope, n *Node, path string) {
	if n.Confirm == nil {
		return
	}
	for i := range k.e.Approvals {
		a := &k.e.Approvals[i]
		part, ok := strings.CutPrefix(a.Step, path)
		if !ok || len(a.Given) == 0 || part != "" && !strings.HasPrefix(part, "[batch ") {
			continue
		}
		if why := k.void(ctx, s, n, path, a.Step); why != "" {
			for _, g := range a.Given {
				a.Void = append(a.Void, fmt.Sprintf("the approval by %s does not count any more: %s", g.By, why))
			}
			a.Given = nil
		}
	}
}

// void says why what was given at a gate does not count any more; empty: it does.
func (k *explainer) void(ctx context.Context, s *scope, n *Node, path, at string) string {
	was, digest := k.x.past.gate(at), k.x.prog.StepDigest(n)
	switch {
	case was == nil:
		return "what it was about begins anew"
	case k.x.past.started(path) && (was.Digest == digest || was.Digest == ""):
		return ""
	}
	return was.differs(n.Confirm.opening(k.x.question(ctx, s, n, path, at), digest))
}

// guards looks at stop conditions that had tripped.
func (k *explainer) guards(ctx context.Context, s *scope, guards []*Guard, path string) {
	for _, g := range guards {
		name := s.prefix + g.ID
		if k.x.past.standing(name, path).trip == nil || ctx.Err() != nil {
			continue
		}
		limited, cancel := k.x.clock.WithTimeout(ctx, askOne, errAsking)
		body := k.x.lookAt(limited, s, g, name).body(g, name)
		cancel()
		seen := ExplainedGuard{Guard: name, Holds: body.Holds, Values: body.Values, words: body.Words()}
		if body.Error != nil {
			seen.Error = body.Error.Message
		}
		k.e.GuardsNow = append(k.e.GuardsNow, seen)
	}
}
