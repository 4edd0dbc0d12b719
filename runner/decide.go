package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runbook/runner/journal"
)

// Verdict is what a person decides about a gate.
type Verdict struct {
	Step     string // id, or path in the journal
	Approved bool
	Reason   string
	Retype   string // the text that the gate asks for
}

func (v Verdict) decision(op Operator) GateDecided {
	how := "runner approve"
	if !v.Approved {
		how = "runner reject"
	}
	return GateDecided{Approved: v.Approved, Person: op.person(), How: how, Reason: v.Reason, Trusted: op.Trusted}
}

// Decided is what a verdict has made of a gate.
type Decided struct {
	Run      string   `json:"run"`
	Step     string   `json:"step"` // path
	Approved bool     `json:"approved"`
	By       string   `json:"by"`
	Given    []string `json:"given"`  // who has approved, by name
	Needed   int      `json:"needed"` // how many must
	Done     bool     `json:"done"`   // the gate is decided
	Live     bool     `json:"live"`   // the run's process goes on with it; false: a resume does
}

func (g *gateState) outcome(run string, approved bool, by Operator) *Decided {
	return &Decided{Run: run, Step: g.path, Approved: approved, By: by.Name, Given: append([]string{}, g.by()...), Needed: g.needed(), Done: g.decided()}
}

// Decide carries a verdict to a run: to the process that works on it, or, where there is
// none, into its journal, from which a resume goes on. The error is a *UsageError where
// the verdict does not count.
func Decide(ctx context.Context, cfg Config, r *journal.Run, catalog *Catalog, v Verdict) (*Decided, error) {
	cfg = cfg.withDefaults()
	command := "approve"
	if !v.Approved {
		command = "reject"
	}
	answer, err := Control(ctx, r, ControlRequest{Command: command, Operator: cfg.Operator, Step: v.Step, Reason: v.Reason, Retype: v.Retype})
	switch {
	case err == nil && answer.Decided != nil:
		return answer.Decided, nil
	case err == nil:
		return nil, fmt.Errorf("the process that works on run %s has not said what became of the decision", r.ID)
	case !errors.Is(err, ErrNotLive):
		return nil, err
	}
	return decideAway(cfg, r, catalog, v)
}

// decideAway writes a verdict into the journal of a run that no process works on.
func decideAway(cfg Config, r *journal.Run, catalog *Catalog, v Verdict) (*Decided, error) {
	held, err := journal.Lock(r.LockPath(), journal.Holder{Operator: cfg.Operator.Name, Host: cfg.Operator.Host, PID: cfg.Operator.PID, Run: r.ID, Since: cfg.Clock.Now()})
	if err != nil {
		return nil, err
	}
	defer held.Release()
	frozen, program, err := thawed(r, catalog)
	if err != nil {
		return nil, err
	}
	if frozen.Sandbox != "" {
		return nil, unfit("run it again with --approve, or approve it while it waits", "run %s was in a sandbox: its world ended with its process, and nothing goes on with a decision", r.ID)
	}
	// What is decided about is read before the journal is opened to be written: a verdict that does not count changes nothing.
	history, err := journal.Read(r.JournalPath())
	if err != nil {
		return nil, &UsageError{Err: err, Hint: "runner runs verify " + r.ID}
	}
	p, err := readPast(history.Records)
	if err != nil {
		return nil, &UsageError{Err: err}
	}
	if err := p.resumable(r.ID); err != nil {
		return nil, err
	}
	if p.aborted != nil {
		return nil, unfit("runner resume "+r.ID, "run %s is being aborted: no gate of it is open", r.ID)
	}
	var d desk
	d.begin(p)
	g, err := d.gates.find(v.Step, program)
	if err != nil {
		return nil, err
	}
	by := v.decision(cfg.Operator)
	if err := g.admit(by, v.Retype, p.starter(), cfg.Clock.Now()); err != nil {
		return nil, err
	}
	options := cfg.Journal
	if options.Now == nil {
		options.Now = cfg.Clock.Now
	}
	j, _, err := journal.Open(r.JournalPath(), options)
	if err != nil {
		return nil, err
	}
	by.Digest = g.Digest
	_, err = j.Commit(recGateDecided, g.path, &by)
	if err = errors.Join(err, j.Close()); err != nil {
		return nil, err
	}
	g.take(by)
	return g.outcome(r.ID, v.Approved, cfg.Operator), nil
}

// thawed gives the frozen plan of a run.
func thawed(r *journal.Run, catalog *Catalog) (*Frozen, *Program, error) {
	frozen, err := ReadFrozen(r)
	if err != nil {
		return nil, nil, err
	}
	program, _, err := frozen.Program(catalog)
	return frozen, program, err
}

// starter is who started the run.
func (p *past) starter() *Person {
	if p.began == nil {
		return nil
	}
	return &Person{By: p.began.Operator, UID: p.began.UID, Host: p.began.Host, PID: p.began.PID}
}

// AwaitEnd waits until no process works on a run any more, at most so long; false: one still does.
func AwaitEnd(ctx context.Context, r *journal.Run, most time.Duration) (bool, error) {
	for passed := time.Duration(0); ; passed += endLook {
		_, held, err := journal.Inspect(r.LockPath())
		if err != nil || !held {
			return err == nil, err
		}
		if passed >= most {
			return false, nil
		}
		if err := sleep(ctx, endLook); err != nil {
			return false, err
		}
	}
}

// endLook is how often a lock is looked at.
const endLook = 50 * time.Millisecond
