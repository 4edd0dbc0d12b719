package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps"
)

// childrenWait is how long a resume waits for what its predecessor started to end.
const childrenWait = time.Minute

// Execute carries a program out. The error is of something that kept it from starting
// (*UsageError, *journal.LockedError): nothing was done. How a run that started ended is
// in the Result.
func Execute(ctx context.Context, cfg Config, req Request) (*Result, error) {
	cfg = cfg.withDefaults()
	if req.Saved != nil {
		if err := req.Saved.Usable(cfg.Store, cfg.Clock.Now()); err != nil {
			return nil, err
		}
	}
	x, err := newRun(ctx, cfg, req.Program, req.Selection, req.Dir)
	if err != nil {
		return nil, err
	}
	defer x.pool.closeAll()
	x.approvals, x.sandbox = req.Approvals, req.Sandbox
	x.past, _ = readPast(nil)
	x.id = journal.NewID(x.clock.Now())
	body := x.startedBody(req.Inputs, req.Sandbox)
	body.Saved = req.Saved.use()
	if req.DryRun {
		x.dry = &dryRun{changed: map[string]string{}}
		body.DryRun = true
	}
	fr, err := x.root(req.Inputs, req.Program, body.Run, x.clock.Now())
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	if req.DryRun {
		if err := x.lookAgain(ctx, req.Saved, req.Inputs); err != nil {
			return nil, err
		}
		if _, err := x.record(recRunStarted, "", body); err != nil {
			return nil, err
		}
		return x.dryWalk(ctx, fr), nil
	}
	if err := x.claim(ctx, fr, body, false); err != nil {
		return nil, req.Saved.orUsed(cfg.Store, err)
	}
	defer x.unlock()
	req.Dir = x.dir
	plan, err := Freeze(ctx, cfg, req)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := x.redeem(ctx, req.Saved, req.Inputs); err != nil {
		return nil, err
	}
	folder, err := cfg.Store.Create(x.id)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	held, err := journal.Lock(folder.LockPath(), x.holder())
	if err != nil {
		return nil, err
	}
	defer held.Release()
	if x.children, err = journal.OpenChildren(folder); err != nil {
		return nil, &UsageError{Err: err}
	}
	defer x.children.Close()
	if err := folder.WritePlan(plan); err != nil {
		return nil, &UsageError{Err: err}
	}
	if x.journal, err = journal.Create(folder.JournalPath(), x.journalOptions()); err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := x.durable(ctx, recRunStarted, "", body); err != nil {
		_ = x.journal.Close()
		return nil, &UsageError{Err: err}
	}
	return x.walk(ctx, fr, folder), nil
}

// Resume goes on with a run that stopped, was interrupted, or died.
func Resume(ctx context.Context, cfg Config, req ResumeRequest) (*Result, error) {
	cfg = cfg.withDefaults()
	id := req.Run.ID
	held, err := journal.Lock(req.Run.LockPath(), journal.Holder{Operator: cfg.Operator.Name, Host: cfg.Operator.Host, PID: os.Getpid(), Run: id, Since: cfg.Clock.Now()})
	if err != nil {
		var locked *journal.LockedError
		if errors.As(err, &locked) {
			return nil, err
		}
		return nil, &UsageError{Err: err}
	}
	defer held.Release()
	children, err := journal.OpenChildren(req.Run)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	defer children.Close()
	limited, cancel := cfg.Clock.WithTimeout(ctx, childrenWait, errors.New("waited "+childrenWait.String()))
	defer cancel()
	err = children.WaitFree(limited, nil, func() {
		cfg.Log.Warn("processes that this run started are still alive: waiting for them to end", "run", id, "at_most", childrenWait)
	})
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "wait for them, then resume again: a guardian among them lets waiting clients go (" + req.Run.Path(guardianLog) + " tells), a command may be ended"}
	}
	frozen, err := ReadFrozen(req.Run)
	if err != nil {
		return nil, err
	}
	program, inputs, err := frozen.Program(req.Catalog)
	if err != nil {
		return nil, err
	}
	amended, err := frozen.amended(cfg, program, inputs, req)
	if err != nil {
		return nil, err
	}
	if amended != nil {
		program, inputs = req.Amend.Program, req.Amend.Inputs
	}
	x, err := newRun(ctx, cfg, program, frozen.Selection, frozen.Dir)
	if err != nil {
		return nil, err
	}
	defer x.pool.closeAll()
	x.id, x.children, x.approvals = id, children, req.Approvals
	j, history, err := journal.Open(req.Run.JournalPath(), x.journalOptions())
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "runner runs verify " + id}
	}
	x.journal = j
	started := false
	defer func() {
		if !started {
			_ = j.Close()
		}
	}()
	if cfg.Recall != nil {
		cfg.Recall(history.Records)
	}
	if x.past, err = readPast(history.Records); err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := x.past.resumable(id); err != nil {
		return nil, err
	}
	if err := x.take(req.Decisions); err != nil {
		return nil, err
	}
	if err := program.overridable(req.Overrides); err != nil {
		return nil, err
	}
	body := x.startedBody(inputs, frozen.Sandbox)
	body.Plan, body.Git = frozen.Digest, frozen.Git // an amendment counts from its own record on
	if history.Torn != nil {
		body.Torn = history.Torn.String()
		cfg.Log.Warn("the journal's last line was cut short by a crash; it was cut off", "run", id, "torn", history.Torn)
	}
	fr, err := x.root(inputs, program, id, history.Records[0].Time)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := x.claim(ctx, fr, body, true); err != nil {
		return nil, err
	}
	defer x.unlock()
	for _, n := range program.Root.Finally {
		x.past.restart(n.ID, "", n)
	}
	started = true
	if err := x.durable(ctx, recRunResumed, "", body); err != nil {
		return x.dead(&Result{Run: id}, err), nil
	}
	if err := x.amend(ctx, req.Run, frozen, amended); err != nil {
		return x.dead(&Result{Run: id}, err), nil
	}
	if err := x.override(ctx, req.Overrides); err != nil {
		return x.dead(&Result{Run: id}, err), nil
	}
	if req.Abort != nil && x.past.aborted == nil {
		x.past.aborted = &RunPaused{Reason: req.Abort.Reason, Person: cfg.Operator.person()}
		if err := x.durable(ctx, recRunAborted, "", x.past.aborted); err != nil {
			return x.dead(&Result{Run: id}, err), nil
		}
	}
	return x.walk(ctx, fr, req.Run), nil
}

// resumable says why a run cannot go on.
func (p *past) resumable(id string) error {
	if p.last == nil {
		return nil
	}
	switch p.last.Status {
	case Succeeded, RolledBack, Aborted:
		return &UsageError{Err: fmt.Errorf("run %s is over: it %s", id, endWords[p.last.Status])}
	}
	return nil
}

var endWords = map[Status]string{Succeeded: "succeeded", RolledBack: "was rolled back", Aborted: "was aborted"}

// take checks the operator's decisions against the steps that are in doubt.
func (x *run) take(decisions []Decision) error {
	x.decisions = map[string]*Decision{}
	for _, d := range decisions {
		switch {
		case d.Choice != "done" && d.Choice != "redo" && d.Choice != "fail":
			return &UsageError{Err: fmt.Errorf("step %s: %q is no decision: done, redo or fail", d.Step, d.Choice)}
		case strings.TrimSpace(d.Reason) == "":
			return &UsageError{Err: fmt.Errorf("step %s: a decision needs its reason: it is journaled", d.Step), Hint: "--reason TEXT"}
		}
		var matches []string
		for path := range x.past.steps {
			if s := x.past.live(path); s != nil && s.open && s.acted && (path == d.Step || lastID(path) == d.Step) {
				matches = append(matches, path)
			}
		}
		slices.Sort(matches)
		switch {
		case len(matches) == 0:
			return &UsageError{Err: fmt.Errorf("step %s is not in doubt: there is nothing to decide about it", d.Step), Hint: "runner runs show " + x.id}
		case len(matches) > 1 && !slices.Contains(matches, d.Step):
			return &UsageError{Err: fmt.Errorf("step %s is in doubt in %d places: %s; name one of them", d.Step, len(matches), strings.Join(matches, ", "))}
		case len(matches) > 1:
			matches[0] = d.Step
		}
		x.decisions[matches[0]] = &Decision{Step: matches[0], Choice: d.Choice, Reason: d.Reason}
	}
	return nil
}

// lastID is the id at the end of a path, without the item it is for.
func lastID(path string) string {
	end, depth := len(path), 0
	for i := len(path) - 1; i >= 0; i-- {
		switch c := path[i]; {
		case c == ']':
			depth++
		case c == '[':
			if depth--; depth == 0 {
				end = i
			}
		case c == '/' && depth == 0:
			return path[i+1 : end]
		}
	}
	return path[:end]
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = realClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.Environ == nil {
		c.Environ = os.LookupEnv
	}
	return c
}

// newRun prepares what a first and a resumed process have in common.
func newRun(ctx context.Context, cfg Config, p *Program, sel Selection, dir string) (*run, error) {
	x := &run{cfg: cfg, prog: p, clock: cfg.Clock, acts: &acts{}, dir: dir, turn: make(chan struct{}, 1)}
	x.pool = &pool{clients: map[poolKey]*pooled{}, connect: cfg.Connect}
	if x.dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, &UsageError{Err: err}
		}
		x.dir = wd
	}
	var err error
	x.partial = sel.From != "" || sel.To != "" || len(sel.Only)+len(sel.Skip) > 0
	if x.selected, err = p.Select(sel); err != nil {
		return nil, err
	}
	secrets, err := p.ReadSecrets(ctx, x.dir, cfg.Environ)
	if err != nil {
		return nil, err
	}
	for _, w := range secrets.Warnings {
		cfg.Log.Warn(w)
	}
	x.mask = secrets.Masker
	x.secrets = map[string]any{}
	for name, v := range secrets.Values {
		x.secrets[name] = v
	}
	return x, nil
}

// root makes the frame of the runbook itself.
func (x *run) root(inputs *Inputs, p *Program, id string, at time.Time) (*frame, error) {
	x.shown = map[string]any{"id": id, "name": p.Root.Book.Name.Value, "operator": x.cfg.Operator.Name, "started_at": at.UTC().Format(time.RFC3339)}
	if x.past.began != nil {
		x.shown["operator"] = x.past.began.Operator
	}
	return x.enter(nil, p.Root, inputs.Values, x.secrets)
}

func (x *run) startedBody(inputs *Inputs, sandbox string) *RunStarted {
	shown, _ := jsonable(inputs.Values).(map[string]any)
	op := x.cfg.Operator
	return &RunStarted{Format: journal.Format, Run: x.id, Name: x.prog.Root.Book.Name.Value, Plan: x.prog.Digest(inputs), Git: x.cfg.Git, Inputs: shown,
		Operator: op.Name, UID: op.UID, Host: op.Host, PID: os.Getpid(), Version: x.cfg.Version, Dir: x.dir, Sandbox: sandbox}
}

func (x *run) holder() journal.Holder {
	op := x.cfg.Operator
	return journal.Holder{Operator: op.Name, Host: op.Host, PID: os.Getpid(), Run: x.id, Since: x.clock.Now()}
}

func (x *run) journalOptions() journal.Options {
	o := x.cfg.Journal
	if o.Now == nil {
		o.Now = x.clock.Now
	}
	if x.cfg.Observe != nil {
		o.Hook = x.cfg.Observe
	}
	return o
}

// walk runs the steps and ends the run.
func (x *run) walk(ctx context.Context, fr *frame, folder *journal.Run) *Result {
	began := x.clock.Now()
	x.desk.begin(x.past)
	if x.lock != nil {
		x.lock.keep = x.lock.hold
	}
	ctx, unwatch := x.leased(ctx)
	person := based(ctx)
	ctx = x.endable(ctx)
	defer x.cut(nil)
	quiet := x.listen(folder)
	s := newScope(fr, nil, "", nil)
	h := x.steps(ctx, s)
	if asked := x.endedBy(); asked != nil && asked.status == Aborted {
		ctx = person // what the run ends with is not cut short with its steps
	}
	r := x.conclude(ctx, s, h)
	if asked := x.closed(); asked != nil && r.Status == Interrupted && person.Err() == nil {
		r.Status = asked.status
	}
	if lost := new(ending); r.Status == Interrupted && errors.As(context.Cause(person), &lost) {
		r.Status = lost.status
	}
	unwatch()
	quiet()
	r.Err, r.Hint = x.mask.Error(r.Err), x.mask.String(r.Hint)
	body := &RunFinished{Status: r.Status, Hint: r.Hint, Duration: seconds(x.clock.Now().Sub(began))}
	if r.Err != nil {
		body.Error = errorBody(steps.Classify(r.Err))
	}
	if r.Outputs != nil {
		body.Outputs, _ = jsonable(r.Outputs).(map[string]any)
	}
	if r.Status == Interrupted {
		if err := x.durable(ctx, recRunInterrupted, r.Step, &RunPaused{Reason: "interrupted"}); err != nil {
			return x.dead(r, err)
		}
	}
	if err := x.durable(ctx, recRunFinished, r.Step, body); err != nil {
		return x.dead(r, err)
	}
	if x.lock != nil && r.Status.over() {
		x.lock.keep = false
	}
	if err := x.journal.Close(); err != nil {
		return x.dead(r, err)
	}
	return r
}

// steps runs those of the runbook, or walks through them for a rollback of the run that
// an earlier process had begun. All that is in the background has ended then.
func (x *run) steps(ctx context.Context, s *scope) *halt {
	if x.aborting() != nil {
		return x.retraceAll(ctx, s, x.prog.Root.Steps)
	}
	if why, open := x.past.rollback(""); open {
		if h := x.retraceAll(ctx, s, x.prog.Root.Steps); h != nil {
			return h
		}
		return &halt{end: Failed, decided: "rollback-run", err: &steps.Error{Kind: "failed", Err: text(why)}}
	}
	if h := x.past.rolledBack(""); h != nil {
		if broken := x.retraceAll(ctx, s, x.prog.Root.Steps); broken != nil {
			return broken
		}
		h.decided = "rollback-run"
		return h
	}
	soft, stop := branch(ctx)
	defer stop(nil)
	x.stopRun = stop
	h := x.lookFirst(soft, s.frame)
	if h == nil {
		h = x.watched(soft, s, nil, "", func(ctx context.Context) *halt { return x.list(ctx, s, x.prog.Root.Steps) })
	}
	if h == nil || x.aborting() != nil {
		return x.stopAll(h, errBackground)
	}
	return x.stopAll(h, errSuspended)
}

// dead is the result of a run whose journal can no longer be written.
func (x *run) dead(r *Result, err error) *Result {
	_ = x.journal.Close() // its error is err
	h := broken(r.Step, err)
	return &Result{Run: x.id, Status: h.end, Step: r.Step, Err: h.err, Hint: h.err.Hint}
}

// conclude decides what the end of the steps means: rollback, finally, what was
// temporary, outputs.
func (x *run) conclude(ctx context.Context, s *scope, h *halt) *Result {
	r := &Result{Run: x.id, Status: Succeeded}
	if e := x.aborting(); e != nil && (h == nil || h.err.Kind != "journal") {
		r.Status, r.Err = Aborted, e
		if h != nil {
			r.Step = h.path
			if h.end != Interrupted {
				r.Err = fmt.Errorf("%w; %w", e, h.err)
			}
		}
	} else if h != nil {
		r.Status, r.Step, r.Err, r.Hint = h.end, h.path, h.err, h.err.Hint
		if h.end != Failed {
			if h.end == Interrupted {
				r.Hint = x.wayOn("", "")
			}
			return r
		}
		if h.decided == "rollback-run" || h.decided == "" && x.prog.Root.OnFailure == "rollback" {
			if end := x.rollbackRun(ctx, s, h); end != nil {
				if end.end != Failed {
					r.Status, r.Step, r.Err, r.Hint = end.end, end.path, end.err, end.err.Hint
					return r
				}
				r.Err = fmt.Errorf("%w; rolling back ended early: %v", h.err, end.err)
				r.Hint = end.err.Hint
			} else {
				r.Status = RolledBack
			}
		} else if r.Hint == "" {
			r.Hint = x.wayOn("mend the cause", "")
		}
	}
	if late := x.list(ctx, s, x.prog.Root.Finally); late != nil {
		x.worsen(r, late, "finally")
		if late.end != Failed {
			return r
		}
	}
	if r.Status == Succeeded || r.Status == RolledBack || r.Status == Aborted {
		if late := x.restoreAll(ctx); late != nil {
			x.worsen(r, late, "restore")
		}
	}
	if r.Status == Succeeded {
		r.Outputs = map[string]any{}
		for _, o := range x.prog.Root.Outputs {
			v, err := o.Expr.Eval(x.env(s, nil, o.Expr.Refs))
			if x.partial && errors.As(err, new(*expression.NullError)) {
				v, err = nil, nil // it is about a step that was left out
			}
			if err != nil {
				x.worsen(r, failed("", steps.Classify(fmt.Errorf("outputs.%s: %w", o.Name, err))), "outputs")
				break
			}
			r.Outputs[o.Name] = v
		}
	}
	return r
}

// worsen makes exit 0 another one: what came last failed.
func (x *run) worsen(r *Result, h *halt, what string) {
	if r.Status == Succeeded || h.end != Failed {
		r.Status, r.Step, r.Err, r.Hint = h.end, h.path, fmt.Errorf("%s: %w", what, h.err), h.err.Hint
		if r.Hint == "" {
			r.Hint = x.wayOn("", "")
		}
		return
	}
	r.Err = fmt.Errorf("%w; %s: %v", r.Err, what, h.err)
}

// rollbackRun undoes the whole run, unless an earlier process has done so.
func (x *run) rollbackRun(ctx context.Context, s *scope, h *halt) *halt {
	if x.past.rolledBack("") != nil {
		if stopped := x.past.rollbacks[""].stopped; stopped != "" {
			return failed("", &steps.Error{Kind: "failed", Err: text(stopped)})
		}
		return nil
	}
	retrace := func(ctx context.Context) *halt { return x.retraceAll(ctx, s, x.prog.Root.Steps) }
	if end := x.catchUp(ctx, retrace); end != nil {
		return end
	}
	if _, open := x.past.rollback(""); !open {
		if err := x.durable(ctx, recRollbackStarted, "", &RollbackStarted{Reason: x.mask.String(h.err.Error())}); err != nil {
			return broken(h.path, err)
		}
	}
	return x.rollback(ctx, "", nil)
}

// dryWalk looks at every step and changes nothing.
func (x *run) dryWalk(ctx context.Context, fr *frame) *Result {
	s := newScope(fr, nil, "", nil)
	h := x.watched(ctx, s, nil, "", func(ctx context.Context) *halt { return x.list(ctx, s, x.prog.Root.Steps) })
	if h == nil {
		h = x.list(ctx, s, x.prog.Root.Finally)
	}
	if h == nil {
		h = x.dry.failed
	}
	r := &Result{Run: x.id, Status: Succeeded}
	body := &RunFinished{Status: Succeeded}
	if h != nil {
		r.Status, r.Step, r.Err, r.Hint = h.end, h.path, h.err, h.err.Hint
		body.Status, body.Error = h.end, errorBody(h.err)
	}
	if _, err := x.record(recRunFinished, r.Step, body); err != nil {
		r.Status, r.Err = Failed, err
	}
	return r
}

// peers are the targets that a kind's inputs name.
func peers(in any) []string {
	v := reflect.ValueOf(in).Elem()
	var names []string
	for i := range v.NumField() {
		switch f := v.Field(i).Interface().(type) {
		case schema.TargetName:
			if f != "" {
				names = append(names, string(f))
			}
		case schema.Endpoint:
			if f != "" {
				names = append(names, string(f))
			}
		}
	}
	return names
}
