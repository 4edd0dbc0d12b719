package runner

import (
	"encoding/json"
	"time"

	"runbook/steps"
)

// The types of the journal's records. Their bodies are the structs below: what the
// command line shows, what a resume reads and what `exec --output json` prints.
const (
	recRunStarted       = "run-started"
	recRunResumed       = "run-resumed"
	recPlanAmended      = "plan-amended" // from here on the run goes by another plan
	recStepStarted      = "step-started"
	recStepObserved     = "step-observed"
	recStepRetrying     = "step-retrying"
	recStepFinished     = "step-finished"
	recFailureHandled   = "failure-handled" // continue, rescue or max-failures: the run went on
	recLoopFrozen       = "loop-frozen"     // the items of a loop, as they were when it started
	recGateOpened       = "gate-opened"     //
	recGateDecided      = "gate-decided"    //
	recRunPaused        = "run-paused"      //
	recRunAborted       = "run-aborted"     //
	recRunInterrupted   = "run-interrupted" //
	recDecision         = "decision"        //
	recGuardObserved    = "guard-observed"  // a guard begins to hold, or does not any more
	recGuardTripped     = "guard-tripped"   // of a guard, or of a max-age
	recGuardOverridden  = "guard-overridden"
	recStepWaiting      = "step-waiting"     // outside its window
	recRollbackStarted  = "rollback-started" // of a step, or of the run where step is empty
	recRollbackFinished = "rollback-finished"
	recUndoStarted      = "undo-started"
	recUndoFinished     = "undo-finished"
	recLockReleased     = "lock-released" // by a person: the claim of a run that no process works on
	recRunFinished      = "run-finished"
)

// RunStarted is the body of run-started and run-resumed.
type RunStarted struct {
	Format   int            `json:"format"`
	Run      string         `json:"run"`
	Name     string         `json:"name"`
	Plan     string         `json:"plan"` // digest
	Git      string         `json:"git,omitempty"`
	Inputs   map[string]any `json:"inputs,omitempty"`
	Operator string         `json:"operator"`
	UID      int            `json:"uid"`
	Host     string         `json:"host"`
	PID      int            `json:"pid"`
	Version  string         `json:"version"`
	Dir      string         `json:"dir"`
	Lock     string         `json:"lock,omitempty"`
	// LockTarget keeps the lock, under this number; where absent it is a file in the state directory.
	LockTarget string   `json:"lock_target,omitempty"`
	LockHold   string   `json:"lock_hold,omitempty"` // run: the claim is kept until the run is over
	Fence      int64    `json:"fence,omitempty"`     // greater than that of every earlier holder of the lock
	Sandbox    string   `json:"sandbox,omitempty"`
	DryRun     bool     `json:"dry_run,omitempty"`
	Saved      *PlanUse `json:"saved_plan,omitempty"` // the plan that was made before, and is used up by this run
	Torn       string   `json:"torn,omitempty"`       // what was cut off the journal when it was opened
}

// PlanAmended is the body of plan-amended: the run goes on by its files as they were then.
type PlanAmended struct {
	Old     string   `json:"old"` // digests
	New     string   `json:"new"`
	Kept    string   `json:"kept"` // file in the run's folder that holds the old plan
	Git     string   `json:"git,omitempty"`
	Changes []string `json:"changes,omitempty"` // what differs, in words
	Void    []string `json:"void,omitempty"`    // approvals that do not count any more, and why
	Reason  string   `json:"reason,omitempty"`
	*Person
}

// PlanUse names a saved plan.
type PlanUse struct {
	ID       string    `json:"id"`
	Operator string    `json:"operator"` // who planned
	Created  time.Time `json:"created"`
}

// StepStarted is the body of step-started: the step is about to act or to look.
type StepStarted struct {
	Attempt  int             `json:"attempt"`
	Kind     string          `json:"kind,omitempty"` // empty: a group or loop
	Effect   string          `json:"effect,omitempty"`
	Target   string          `json:"target,omitempty"`
	Addr     string          `json:"addr,omitempty"`
	Commands []string        `json:"commands,omitempty"`
	Digest   string          `json:"digest,omitempty"`   // of the input
	Before   json.RawMessage `json:"before,omitempty"`   // what an undo will need
	Withheld bool            `json:"withheld,omitempty"` // before held a secret, which is not written down
	Waiting  string          `json:"waiting,omitempty"`
	Anew     []string        `json:"anew,omitempty"` // next attempt of a group: the steps in it, which run again
}

// StepObserved is the body of step-observed: the last look of a wait.
type StepObserved struct {
	Holds  bool           `json:"holds"`
	Values map[string]any `json:"values,omitempty"` // operands of the condition
	Error  *ErrorBody     `json:"error,omitempty"`
	Held   string         `json:"held,omitempty"` // how long it has held, where it must be stable
	Left   string         `json:"left,omitempty"` // estimate
}

// StepRetrying is the body of step-retrying.
type StepRetrying struct {
	Attempt int        `json:"attempt"`
	Error   *ErrorBody `json:"error"`
	Delay   string     `json:"delay"`
}

// StepFinished is the body of step-finished.
type StepFinished struct {
	Status    string          `json:"status"` // ok, changed, skipped, failed; would-change, unknown in a dry run
	Outputs   json.RawMessage `json:"outputs,omitempty"`
	Duration  string          `json:"duration,omitempty"`
	Attempts  int             `json:"attempts,omitempty"`
	Error     *ErrorBody      `json:"error,omitempty"`
	Recovered bool            `json:"recovered,omitempty"` // found done by a probe after a crash or an unknown outcome
	Reason    string          `json:"reason,omitempty"`    // why it was skipped
	Warnings  []string        `json:"warnings,omitempty"`
	Decided   string          `json:"decided,omitempty"`   // of a failure: what was said of it inside already (stop, rollback-run), or that a resume tries again (resume)
	Suspended bool            `json:"suspended,omitempty"` // a background step that ended with its process: a resume starts it again
	Commands  []string        `json:"commands,omitempty"`  // dry run: what would be sent
	Observed  *Observed       `json:"observed,omitempty"`  // dry run: what was seen of the step
}

// ErrorBody is an error as journaled, and as expressions see it.
type ErrorBody struct {
	Message   string `json:"message" doc:"What was attempted, on what, and why it failed."`
	Kind      string `json:"kind" doc:"Kind of the error, a word."`
	Temporary bool   `json:"temporary" doc:"Whether trying again may help."`
	Unknown   bool   `json:"unknown,omitempty" doc:"Whether it may have had its effect all the same."`
	Hint      string `json:"hint,omitempty" doc:"What a person can do about it."`
}

func errorBody(e *steps.Error) *ErrorBody {
	if e == nil {
		return nil
	}
	return &ErrorBody{Message: e.Error(), Kind: e.Kind, Temporary: e.Temporary, Unknown: e.Unknown, Hint: e.Hint}
}

func (b *ErrorBody) err() *steps.Error {
	return &steps.Error{Kind: b.Kind, Temporary: b.Temporary, Unknown: b.Unknown, Hint: b.Hint, Err: text(b.Message)}
}

// text is an error that was read back.
type text string

func (t text) Error() string { return string(t) }

// LoopFrozen is the body of loop-frozen.
type LoopFrozen struct {
	Items []FrozenItem `json:"items"`
}

// FrozenItem is one item of a loop.
type FrozenItem struct {
	Key  string `json:"key" doc:"Name of the item in paths."`
	Item any    `json:"item" doc:"The item."`
}

// GateOpened is the body of gate-opened.
type GateOpened struct {
	Message   string   `json:"message"`
	Show      []string `json:"show,omitempty"`  // expression = value
	Sends     []string `json:"sends,omitempty"` // what will be sent, as far as it can be told
	Builtin   bool     `json:"builtin,omitempty"`
	Digest    string   `json:"digest,omitempty"`    // of the step: an approval is of it
	Approvals int      `json:"approvals,omitempty"` // how many people must approve, where it is not one
	Retype    string   `json:"retype,omitempty"`    // what must be typed
	Timeout   string   `json:"timeout,omitempty"`
	Detached  bool     `json:"detached,omitempty"` // the process leaves, on a terminal too
	Void      []string `json:"void,omitempty"`     // earlier approvals that do not count any more, and why
}

// GateDecided is the body of gate-decided.
type GateDecided struct {
	Approved bool   `json:"approved"`
	*Person         // nil: nobody, the gate's timeout was over
	How      string `json:"how"` // prompt, --approve, --yes, runner approve, runner reject, timeout
	Reason   string `json:"reason,omitempty"`
	Digest   string `json:"digest,omitempty"`  // of the step, as in gate-opened
	Trusted  bool   `json:"trusted,omitempty"` // its name was given with RUNNER_OPERATOR_TRUSTED=1: it counts, not the uid
}

// DecisionMade is the body of decision.
type DecisionMade struct {
	Choice string `json:"choice"`
	Reason string `json:"reason"`
	By     string `json:"by"`
	UID    int    `json:"uid"`
}

// Handled is the body of failure-handled.
type Handled struct {
	By string `json:"by"` // continue, rescue, max-failures
}

// RunPaused is the body of run-paused, run-aborted and run-interrupted.
type RunPaused struct {
	Reason string `json:"reason"`
	*Person
}

// Person is who decided something, and from where: a record, not a login.
type Person struct {
	By   string `json:"by"`
	UID  int    `json:"uid"`
	Host string `json:"host,omitempty"`
	PID  int    `json:"pid,omitempty"`
	TTY  string `json:"tty,omitempty"` // the terminal, such as /dev/pts/3
	SSH  string `json:"ssh,omitempty"` // address of the SSH client
}

// RollbackStarted is the body of rollback-started.
type RollbackStarted struct {
	Reason string `json:"reason"`
}

// RollbackFinished is the body of rollback-finished.
type RollbackFinished struct {
	Complete bool     `json:"complete"`
	Stopped  string   `json:"stopped,omitempty"` // why it ended early
	Anew     []string `json:"anew,omitempty"`    // the steps in it, which a resume begins anew
}

// UndoStarted is the body of undo-started.
type UndoStarted struct {
	Kind string `json:"kind,omitempty"`
	Undo string `json:"undo,omitempty"` // in words
	Why  string `json:"why"`            // rollback, restore
}

// undoStepsOf begins the words of an undo that its author wrote.
const undoStepsOf = "undo steps of "

// UndoFinished is the body of undo-finished.
type UndoFinished struct {
	Status string     `json:"status"`         // undone, untouched, refused, failed
	Why    string     `json:"why"`            // rollback, restore
	Anew   []string   `json:"anew,omitempty"` // of a group with a way back of its own: the steps in it
	Error  *ErrorBody `json:"error,omitempty"`
}

// What StepFinished.Decided says of a failure, beside the words of on-failure.
const (
	decidedResume   = "resume"   // the step was cut short; it is not that it could not
	decidedRollback = "rollback" // a stop condition of the element wants it rolled back
)

// Why a step is put back.
const (
	whyRollback = "rollback"
	whyRestore  = "restore" // a temporary setting, at the end of the run
)

// RunFinished is the body of run-finished, the last record of each process.
type RunFinished struct {
	Status   Status         `json:"status"`
	Error    *ErrorBody     `json:"error,omitempty"` // of the record's step, which ended the run
	Hint     string         `json:"hint,omitempty"`
	Outputs  map[string]any `json:"outputs,omitempty"`
	Duration string         `json:"duration,omitempty"`
}

func seconds(d time.Duration) string { return d.Round(time.Millisecond).String() }
