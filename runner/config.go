package runner

import (
	"context"
	"log/slog"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps"
)

// Config is what a run needs beside its plan. The zero values of the optional fields are the real world.
type Config struct {
	Store    journal.Store
	Operator Operator
	Version  string // of this binary; journaled
	Git      string // revision of the runbook's repository, where there is one; journaled

	// Observe gets every record of this process in order, also those of a dry run, whose
	// records are never written. It must not block.
	Observe func(journal.Record)
	// Recall gets what earlier processes of the run recorded, once, before Observe gets the
	// first record of this one. It must not block, and may keep what it gets. May be nil.
	Recall func([]journal.Record)
	// Progress gets what is not worth a record: how far an act or a wait has come. May be nil.
	Progress func(Tick)
	// Ask puts a gate before a person; nil: nobody is there, the run pauses.
	Ask func(ctx context.Context, q Question) (Answer, error)
	// Listen serves the control socket in the run's folder: other terminals approve, pause and abort through it.
	Listen bool
	Log    *slog.Logger

	Clock   Clock                                                                                      // nil: real time
	Connect func(ctx context.Context, t steps.Target, a steps.Access) (client any, ok bool, err error) // replaces the target kind's own way to connect where ok; the sandbox uses it
	Environ func(name string) (string, bool)                                                           // for secrets; nil: the process's
	// Guardian starts a guardian, at whose end of the pipe ServeGuardian runs; nil: steps that need one do not act.
	Guardian func(GuardianSpec) (GuardianPipe, error)
	Journal  journal.Options // how the journal writes; crash tests
}

// Operator is who acts: a record, not a login.
type Operator struct {
	Name    string `json:"name"`
	UID     int    `json:"uid"`
	Host    string `json:"host"`
	PID     int    `json:"pid,omitempty"`
	TTY     string `json:"tty,omitempty"`     // the terminal, such as /dev/pts/3
	SSH     string `json:"ssh,omitempty"`     // address of the SSH client
	Trusted bool   `json:"trusted,omitempty"` // the name tells people apart, the uid does not: RUNNER_OPERATOR_TRUSTED=1
}

func (o Operator) person() *Person {
	return &Person{By: o.Name, UID: o.UID, Host: o.Host, PID: o.PID, TTY: o.TTY, SSH: o.SSH}
}

// Selection limits a run to a part of its plan.
type Selection struct {
	From string   `json:"from,omitempty" doc:"Id of the first step that runs."`
	To   string   `json:"to,omitempty" doc:"Id of the last step that runs."`
	Only []string `json:"only,omitempty" doc:"Only steps with one of these tags run."`
	Skip []string `json:"skip,omitempty" doc:"Steps with one of these tags do not run."`
}

// Approvals answer gates ahead of their time.
type Approvals struct {
	Steps []string // ids or paths, or "all"
	Yes   bool     // answers the built-in question of destructive kinds
}

// Question is a gate as a person sees it.
type Question struct {
	Run, Step, Message string
	Show               []steps.Line // expression and its value, as Command and To
	Sends              []steps.Line // what will be sent
	Retype             string       // text the person must type; empty: yes or no
	Builtin            bool

	Approvals int      // how many people must approve
	Given     []string // who has, by name
	Own       string   // why an approval of whoever is asked would not count; empty: it does
	Again     bool     // it was asked before, and something has come between
	Notice    string   // what that was, where it is about the answer
	Void      []string // earlier approvals that do not count any more, and why
}

// Answer is a person's decision.
type Answer struct {
	Approved bool
	Reason   string
}

// Tick says how far a running step has come.
type Tick struct {
	Step     string
	Progress steps.Progress
	Left     time.Duration // estimate; 0: not known
}

// Decision is what an operator decided about a step in doubt.
type Decision struct {
	Step   string `json:"step"`
	Choice string `json:"choice"` // done, redo, fail
	Reason string `json:"reason"`
}

// Request is a plan about to be executed.
type Request struct {
	Program   *Program
	Inputs    *Inputs
	Selection Selection
	Approvals Approvals
	DryRun    bool
	Dir       string // working directory; "": the process's
	Sandbox   string // path of the world file; "": the real world. Kept, so that a resume is not taken for real
	// SandboxAddrs are where the systems of the sandbox are, by target. Kept in a saved plan, so
	// that its world can be brought up as it was.
	SandboxAddrs map[string]string
	// Saved is the saved plan that is carried out: what it observed is observed again, and
	// it is used up (not by a dry run). Program, Inputs, Selection and Dir are its own. Nil: none.
	Saved *SavedPlan
}

// ResumeRequest goes on with a run.
type ResumeRequest struct {
	Run       *journal.Run
	Catalog   *Catalog
	Approvals Approvals
	Decisions []Decision
	Overrides []Override // of stop conditions that do not hold
	Abort     *Abort     // nil: the run goes on
	Amend     *Amendment // nil: by the plan that it had
}

// Amendment is another plan for a run that goes on: its files as they are now, see [Frozen.FilesNow].
type Amendment struct {
	Program *Program
	Inputs  *Inputs
	Reason  string
	Changes []string // what differs, in words; journaled
}

// Abort ends a run for good: nothing of its steps runs any more, only what it ends with.
type Abort struct{ Reason string }

// Result is how a process of a run ended.
type Result struct {
	Run    string
	Status Status
	// Outputs of the runbook, when it succeeded.
	Outputs map[string]any
	// Step and Err say what ended it, when it did not succeed.
	Step string
	Err  error
	// Hint is what the operator can do now.
	Hint string
}

// Status of a run's process, as in run-finished.
type Status string

// The ways a process can end, with their exit codes.
const (
	Succeeded   Status = "succeeded"   // 0
	Failed      Status = "failed"      // 1
	RolledBack  Status = "rolled-back" // 1
	Aborted     Status = "aborted"     // 1
	InDoubt     Status = "in-doubt"    // 3
	Paused      Status = "paused"      // 4
	Interrupted Status = "interrupted" // 130
)

// ExitCode of the process.
func (s Status) ExitCode() int {
	switch s {
	case Succeeded:
		return 0
	case InDoubt:
		return 3
	case Paused:
		return 4
	case Interrupted:
		return 130
	}
	return 1
}

// over says that nothing can be resumed.
func (s Status) over() bool { return s == Succeeded || s == RolledBack || s == Aborted }

// UsageError is a reason to have done nothing: exit 2.
type UsageError struct {
	Findings []schema.Finding
	Err      error
	Hint     string
}

// Error says why nothing was done.
func (e *UsageError) Error() string {
	if e.Err == nil {
		return "the runbook does not lint"
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Clock is the only time a run knows.
type Clock interface {
	Now() time.Time
	// Sleep waits; it returns the context's cause when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is context.WithTimeoutCause on this clock.
	WithTimeout(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc)
}
