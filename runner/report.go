package runner

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"runbook/runner/journal"
)

// Report is what people see of a run: a projection of its records and of nothing else,
// so that a run under way, one that is over and one that crashed are told alike. Add the
// records in order; the terminal, `runs show` and `runs list` read the fields. Its JSON
// is the answer of `runs show --output json`.
type Report struct {
	Run       string         `json:"run"`
	Name      string         `json:"name"`
	Plan      string         `json:"plan"` // digest
	Git       string         `json:"git,omitempty"`
	StartedBy string         `json:"started_by"`
	StartedOn string         `json:"started_on"` // host
	Operator  string         `json:"operator"`   // of the newest process
	Host      string         `json:"host"`
	PID       int            `json:"pid"`
	Version   string         `json:"version"`
	Dir       string         `json:"dir"`
	Sandbox   string         `json:"sandbox,omitempty"`
	DryRun    bool           `json:"dry_run,omitempty"`
	Saved     *PlanUse       `json:"saved_plan,omitempty"` // the saved plan that it carries out
	Inputs    map[string]any `json:"inputs,omitempty"`
	Started   time.Time      `json:"started"`
	Last      time.Time      `json:"last"`               // time of the newest record
	Processes int            `json:"processes"`          // 1, and one more for each resume
	Status    Status         `json:"status"`             // of the last process; empty: it has not ended
	Finished  *time.Time     `json:"finished,omitempty"` // when the last process ended
	Step      string         `json:"step,omitempty"`     // what ended it
	Error     *ErrorBody     `json:"error,omitempty"`
	Hint      string         `json:"hint,omitempty"`
	Outputs   map[string]any `json:"outputs,omitempty"`
	Reason    string         `json:"reason,omitempty"`  // why it was paused, aborted or interrupted
	By        string         `json:"by,omitempty"`      // who paused or aborted it
	Amended   []PlanAmended  `json:"amended,omitempty"` // in order; Plan is the last one's
	Records   int            `json:"records"`
	Steps     []*ReportStep  `json:"steps"` // in the order in which they started
	Gates     []*ReportGate  `json:"gates,omitempty"`
	Guards    []*ReportGuard `json:"guards,omitempty"` // in the order in which they were first looked at
	Lock      *ReportLock    `json:"lock,omitempty"`

	byPath map[string]*ReportStep
	gates  map[string]*ReportGate // the latest of each path
	guards map[string]*ReportGuard
	bodies bodyReader
	failed *ReportStep // the last single step that did
	back   *string     // while the steps of an undo run: what their paths begin with
}

// ReportStep is one step as far as the records tell.
type ReportStep struct {
	Path      string          `json:"path"`
	Group     bool            `json:"group,omitempty"` // a group, loop or runbook: it holds others
	Kind      string          `json:"kind,omitempty"`
	Effect    string          `json:"effect,omitempty"`
	Target    string          `json:"target,omitempty"`
	Addr      string          `json:"addr,omitempty"`
	Status    string          `json:"status"` // running, ok, changed, skipped, failed, in-doubt; would-change, unknown in a dry run
	Attempts  int             `json:"attempts,omitempty"`
	Started   *time.Time      `json:"started,omitempty"`
	Duration  string          `json:"duration,omitempty"`
	Commands  []string        `json:"commands,omitempty"`
	Waiting   string          `json:"waiting,omitempty"` // what a wait waits for
	Observed  *StepObserved   `json:"observed,omitempty"`
	Outputs   json.RawMessage `json:"outputs,omitempty"`
	Error     *ErrorBody      `json:"error,omitempty"`
	At        string          `json:"at,omitempty"` // of a group: the step in it whose failure this is, too
	Reason    string          `json:"reason,omitempty"`
	Recovered bool            `json:"recovered,omitempty"`
	Handled   string          `json:"handled,omitempty"`  // continue, rescue, max-failures: its failure did not end the run
	Undo      string          `json:"undo,omitempty"`     // undoing, undone, untouched, refused, failed
	WayBack   bool            `json:"way_back,omitempty"` // it is a step of another's undo
	Decision  string          `json:"decision,omitempty"` // what an operator decided about it in doubt
	DecidedBy string          `json:"decided_by,omitempty"`
	Warnings  []string        `json:"warnings,omitempty"`
}

// The words of ReportStep.Status that are no status of step-finished.
const (
	StepRunning = "running"
	StepWaits   = "waiting" // for its window
	StepInDoubt = "in-doubt"
	stepStopped = "stopped" // a read that was cut off
)

// NewReport makes an empty report.
func NewReport() *Report { return &Report{Steps: []*ReportStep{}, byPath: map[string]*ReportStep{}} }

// ReadReport makes the report of a journal. live tells that its run's lock is held: then a
// step that has not finished is running; otherwise nobody knows what became of it.
func ReadReport(records []journal.Record, live bool) (*Report, error) {
	r := NewReport()
	for _, rec := range records {
		if err := r.Add(rec); err != nil {
			return nil, err
		}
	}
	if !live {
		r.settle()
	}
	return r, nil
}

// settle marks what a process that is gone left open.
func (r *Report) settle() {
	for _, s := range r.Steps {
		if s.Status == StepRunning && !s.Group {
			if s.Effect == "read" {
				s.Status = stepStopped
				continue
			}
			s.Status = StepInDoubt
		} else if s.Status == StepRunning {
			s.Status = "unfinished"
		}
	}
}

// Over tells that the run has ended for good: nothing can be resumed.
func (r *Report) Over() bool {
	switch r.Status {
	case Succeeded, RolledBack, Aborted:
		return true
	}
	return false
}

// Add takes the next record. A type that it does not know is passed over, because an older
// binary reads what a newer one wrote in the same format.
func (r *Report) Add(rec journal.Record) error {
	r.Records++
	r.Last = rec.Time
	switch rec.Type {
	case recRunStarted, recRunResumed:
		var b RunStarted
		if err := rec.Decode(&b); err != nil {
			return err
		}
		if r.Processes == 0 {
			r.Run, r.Name, r.Plan, r.Git, r.Inputs, r.Started = b.Run, b.Name, b.Plan, b.Git, b.Inputs, rec.Time
			r.Sandbox, r.DryRun, r.Saved = b.Sandbox, b.DryRun, b.Saved
			r.StartedBy, r.StartedOn = b.Operator, b.Host
		} else {
			r.settle()
		}
		r.Operator, r.Host, r.PID, r.Version, r.Dir = b.Operator, b.Host, b.PID, b.Version, b.Dir
		r.Lock = lockOf(&b)
		r.Processes++
		r.Status, r.Finished, r.Step, r.Error, r.Hint, r.Reason, r.By = "", nil, "", nil, "", "", ""
	case recPlanAmended:
		var b PlanAmended
		if err := rec.Decode(&b); err != nil {
			return err
		}
		r.Plan, r.Git, r.Amended = b.New, b.Git, append(r.Amended, b)
	case recStepStarted:
		var b StepStarted
		if err := r.bodies.started(rec, &b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		if s.Started == nil {
			t := rec.Time
			s.Started, s.WayBack = &t, r.back != nil && strings.HasPrefix(rec.Step, *r.back)
		}
		if s.Status == StepWaits {
			s.Reason = ""
		}
		if s.Decision == "done" { // that was of an earlier attempt
			s.Decision, s.DecidedBy = "", ""
		}
		s.Status, s.Attempts, s.Error, s.Observed, s.Undo = StepRunning, max(b.Attempt, s.Attempts), nil, nil, ""
		s.Kind, s.Effect, s.Target, s.Addr, s.Waiting = b.Kind, b.Effect, b.Target, b.Addr, b.Waiting
		s.Group, s.Commands = b.Kind == "", b.Commands
	case recStepObserved:
		var b StepObserved
		if err := rec.Decode(&b); err != nil {
			return err
		}
		r.step(rec.Step).Observed = &b
	case recStepRetrying:
		var b StepRetrying
		if err := rec.Decode(&b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		s.Error, s.Attempts = b.Error, max(b.Attempt, s.Attempts)
	case recStepFinished:
		var b StepFinished
		if err := r.bodies.finished(rec, &b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		s.Status, s.Duration, s.Error, s.Reason, s.Recovered, s.Outputs, s.Warnings = b.Status, b.Duration, b.Error, b.Reason, b.Recovered, b.Outputs, b.Warnings
		s.At = r.causeOf(s)
		if b.Attempts > 0 {
			s.Attempts = b.Attempts
		}
		if len(b.Commands) > 0 {
			s.Commands = b.Commands
		}
	case recFailureHandled:
		var b Handled
		if err := rec.Decode(&b); err != nil {
			return err
		}
		r.step(rec.Step).Handled = b.By
	case recGateOpened, recGateDecided:
		return r.gate(rec)
	case recGuardObserved, recGuardTripped, recGuardOverridden:
		return r.guard(rec)
	case recStepWaiting:
		var b StepWaiting
		if err := rec.Decode(&b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		s.Status, s.Reason, s.Waiting = StepWaits, b.Words(), b.Words()
	case recRunPaused, recRunInterrupted, recRunAborted:
		var b RunPaused
		if err := rec.Decode(&b); err != nil {
			return err
		}
		r.Reason, r.By = b.Reason, ""
		if b.Person != nil {
			r.By = b.Person.By
		}
	case recLockReleased:
		if r.Lock != nil {
			r.Lock.Released = true
		}
	case recDecision:
		var b DecisionMade
		if err := rec.Decode(&b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		s.Decision, s.DecidedBy = b.Choice, b.By
	case recUndoStarted:
		var b UndoStarted
		if err := rec.Decode(&b); err != nil {
			return err
		}
		r.step(rec.Step).Undo = "undoing"
		if strings.HasPrefix(b.Undo, undoStepsOf) {
			prefix := strings.TrimSuffix(rec.Step, lastPart(rec.Step))
			r.back = &prefix
		}
	case recUndoFinished:
		var b UndoFinished
		if err := rec.Decode(&b); err != nil {
			return err
		}
		s := r.step(rec.Step)
		s.Undo, r.back = b.Status, nil
		for _, path := range b.Anew { // of a group: what is in it is back with it
			if inner := r.byPath[path]; inner != nil && inner.Undo == "" && inner.Status == statusChanged {
				inner.Undo = b.Status
			}
		}
		if b.Error != nil {
			s.Error = b.Error
		}
	case recRunFinished:
		var b RunFinished
		if err := rec.Decode(&b); err != nil {
			return err
		}
		t := rec.Time
		r.Status, r.Finished, r.Step, r.Error, r.Hint, r.Outputs = b.Status, &t, rec.Step, b.Error, b.Hint, b.Outputs
		r.settle()
	}
	return nil
}

// causeOf is the step in a group whose failure ended it, too; empty: it has a failure of its own.
func (r *Report) causeOf(group *ReportStep) string {
	if group.Error == nil {
		return ""
	}
	if !group.Group {
		r.failed = group
		return ""
	}
	if r.failed != nil && r.failed.Error != nil && r.failed.Error.Message == group.Error.Message {
		return r.failed.Path
	}
	return ""
}

// Cause is why the step failed, in words: of a group, which step in it did.
func (s *ReportStep) Cause() string {
	switch {
	case s.Error == nil:
		return ""
	case s.At != "":
		return "at " + s.At
	}
	return s.Error.Message
}

// lastPart is the last element of a path, with the item it is for.
func lastPart(path string) string {
	depth := 0
	for i := len(path) - 1; i >= 0; i-- {
		switch c := path[i]; {
		case c == ']':
			depth++
		case c == '[':
			depth--
		case c == '/' && depth == 0:
			return path[i+1:]
		}
	}
	return path
}

func (r *Report) step(path string) *ReportStep {
	s := r.byPath[path]
	if s == nil {
		s = &ReportStep{Path: path, Status: StepRunning}
		r.byPath[path] = s
		r.Steps = append(r.Steps, s)
	}
	return s
}

// Find gives a step by its path; nil where no record names it.
func (r *Report) Find(path string) *ReportStep { return r.byPath[path] }

// Running are the steps under way that do something themselves, in the order in which they started.
func (r *Report) Running() []*ReportStep {
	var list []*ReportStep
	for _, s := range r.Steps {
		if !s.Group && (s.Status == StepRunning || s.Status == StepWaits || s.Undo == "undoing") {
			list = append(list, s)
		}
	}
	return list
}

// Counts are how many single steps have each status; undone are those that changed
// something and were put back. The steps of an undo count where they failed.
func (r *Report) Counts() map[string]int {
	counts := map[string]int{}
	for _, s := range r.Steps {
		switch {
		case s.Group, s.WayBack && (s.Status == statusChanged || s.Status == statusOK || s.Status == statusSkipped):
		case s.Undo == "undone" && s.Status == statusChanged:
			counts[s.Undo]++
		default:
			counts[s.Status]++
		}
	}
	return counts
}

// CountText is Counts in words: 3 changed, 2 ok, 1 failed.
func (r *Report) CountText() string {
	counts := r.Counts()
	var parts []string
	for _, status := range []string{statusChanged, "undone", statusWouldChange, statusOK, statusSkipped, statusUnknown, statusFailed, StepInDoubt, stepStopped, StepWaits, StepRunning} {
		if counts[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
		}
	}
	if len(parts) == 0 {
		return "no steps"
	}
	return strings.Join(parts, ", ")
}

// WayOn is what an operator can do now; empty where nothing is left to do.
func (r *Report) WayOn(live bool) string {
	switch {
	case live, r.DryRun, r.Over():
		return ""
	case r.Sandbox != "":
		return "" // its world is gone with its process
	}
	if r.Hint != "" && strings.Contains(r.Hint, "runner ") {
		return ""
	}
	return "runner resume " + r.Run
}

// Tone is how a line of a report is meant: for colours.
type Tone int

// The tones of a Line.
const (
	Plain Tone = iota
	Good
	Change
	Faint
	Caution
	Bad
)

// Line is one line for people.
type Line struct {
	Tone Tone
	Text string
}

// Describe says in one line, or a few, what a record tells a person who follows the run.
// r is the report up to and with it. A record that tells nobody anything gives no line.
func (r *Report) Describe(rec journal.Record) []Line {
	one := func(t Tone, format string, a ...any) []Line { return []Line{{t, fmt.Sprintf(format, a...)}} }
	s := r.byPath[rec.Step]
	switch rec.Type {
	case recRunStarted:
		words := "run " + r.Run + " of " + r.Name
		if r.DryRun {
			words = "dry run of " + r.Name
		}
		if r.Sandbox != "" {
			words += " in a sandbox"
		}
		return one(Plain, "%s, by %s, plan %.12s", words, r.Operator, r.Plan)
	case recRunResumed:
		var b RunStarted
		lines := one(Plain, "run %s of %s goes on, by %s", r.Run, r.Name, r.Operator)
		if rec.Decode(&b) == nil && b.Torn != "" {
			lines = append(lines, Line{Caution, "the journal's last line was torn by a crash and has been cut off: " + b.Torn})
		}
		return lines
	case recPlanAmended:
		var b PlanAmended
		if rec.Decode(&b) != nil {
			return nil
		}
		return b.lines()
	case recStepStarted:
		if s == nil || s.Waiting == "" {
			return nil
		}
		return one(Faint, "%s: waits until %s", s.Path, s.Waiting)
	case recStepObserved:
		if s == nil || s.Observed == nil {
			return nil
		}
		return one(Faint, "%s: %s", s.Path, s.Observed.Words())
	case recStepRetrying:
		var b StepRetrying
		if rec.Decode(&b) != nil || b.Error == nil {
			return nil
		}
		return one(Caution, "%s: attempt %d failed: %s; again in %s", rec.Step, b.Attempt, b.Error.Message, b.Delay)
	case recStepFinished:
		return r.finished(s)
	case recFailureHandled:
		var b Handled
		if rec.Decode(&b) != nil {
			return nil
		}
		return one(Caution, "%s: the run goes on (%s)", rec.Step, b.By)
	case recGateOpened, recGateDecided:
		return r.describeGate(rec)
	case recGuardObserved, recGuardTripped, recGuardOverridden:
		return r.describeGuard(rec, false)
	case recStepWaiting:
		return one(Faint, "%s: waits until %s", rec.Step, s.Waiting)
	case recRunPaused, recRunAborted:
		var b RunPaused
		if rec.Decode(&b) != nil {
			return nil
		}
		return one(Caution, "%s", b.words(strings.TrimPrefix(rec.Type, "run-")))
	case recLockReleased:
		var b LockReleased
		if rec.Decode(&b) != nil {
			return nil
		}
		return one(Caution, "%s", b.words())
	case recRunInterrupted:
		return one(Caution, "interrupted")
	case recDecision:
		var b DecisionMade
		if rec.Decode(&b) != nil {
			return nil
		}
		return one(Caution, "%s: decided %s by %s: %s", rec.Step, b.Choice, b.By, b.Reason)
	case recRollbackStarted:
		var b RollbackStarted
		if rec.Decode(&b) != nil {
			return nil
		}
		what := "rolls back"
		if rec.Step != "" {
			what = rec.Step + ": rolls back"
		}
		return one(Caution, "%s: %s", what, b.Reason)
	case recRollbackFinished:
		var b RollbackFinished
		if rec.Decode(&b) != nil {
			return nil
		}
		if b.Complete {
			return one(Good, "rolled back")
		}
		return one(Bad, "the rollback ended early: %s", b.Stopped)
	case recUndoFinished:
		var b UndoFinished
		if rec.Decode(&b) != nil {
			return nil
		}
		if b.Error != nil {
			return one(Bad, "%s: undo %s: %s", rec.Step, b.Status, b.Error.Message)
		}
		return one(Change, "%s: %s", rec.Step, b.Status)
	}
	return nil
}

// finished is the line of a step that has ended.
func (r *Report) finished(s *ReportStep) []Line {
	if s == nil {
		return nil
	}
	words, why := s.Path+": "+s.Status, s.Reason
	if rest, ok := strings.CutPrefix(why, s.Status+" ("); ok { // unknown (because of step x)
		words, why = words+" ("+rest, ""
	}
	tone := Good
	switch s.Status {
	case statusChanged, statusWouldChange:
		tone = Change
	case statusSkipped:
		tone = Faint
	case statusUnknown:
		tone = Caution
	case statusFailed:
		tone = Bad
	}
	switch {
	case s.Recovered && s.Decision == "done":
		words += " (not seen: " + s.DecidedBy + " decided that it was done)"
	case s.Recovered:
		words += " (recovered: its effect was found done)"
	}
	if s.Attempts > 1 {
		words += fmt.Sprintf(" after %d attempts", s.Attempts)
	}
	if d, err := time.ParseDuration(s.Duration); err == nil && d >= 100*time.Millisecond && !r.DryRun {
		words += " in " + shortDuration(d.Round(10*time.Millisecond))
	}
	if why != "" {
		words += ": " + why
	}
	if cause := s.Cause(); cause != "" {
		words += ": " + cause
	}
	lines := []Line{{tone, words}}
	if s.Error != nil && s.At == "" && s.Error.Hint != "" {
		lines = append(lines, Line{Plain, "  help: " + s.Error.Hint})
	}
	for _, w := range s.Warnings {
		lines = append(lines, Line{Caution, "  warning: " + w})
	}
	if r.DryRun && s.Status == statusWouldChange {
		for _, c := range s.Commands {
			lines = append(lines, Line{Plain, "  would send: " + c})
		}
	}
	return lines
}

// Words is an observation in one line.
func (o *StepObserved) Words() string {
	var parts []string
	for _, name := range sortedNames(o.Values) {
		parts = append(parts, name+" = "+jsonText(o.Values[name]))
	}
	words := strings.Join(parts, ", ")
	if o.Error != nil {
		words = strings.TrimPrefix(words+"; "+o.Error.Message, "; ")
	}
	if words == "" {
		words = "not yet"
		if o.Holds {
			words = "holds"
		}
	}
	if o.Held != "" {
		words += ", held for " + o.Held
	}
	if o.Left != "" {
		words += ", about " + o.Left + " left"
	}
	return words
}

// Summary says how the run, or this process of it, ended.
func (r *Report) Summary(live bool) []Line {
	took := r.Last.Sub(r.Started).Round(10 * time.Millisecond)
	what := "run " + r.Run
	if r.DryRun {
		what = "dry run"
	}
	var lines []Line
	add := func(t Tone, format string, a ...any) { lines = append(lines, Line{t, fmt.Sprintf(format, a...)}) }
	switch {
	case r.Status == "" && live:
		add(Plain, "%s is running: %s", what, r.CountText())
	case r.Status == "":
		add(Bad, "%s stopped without an end, as after a crash: %s", what, r.CountText())
	case r.Status == Succeeded:
		add(Good, "%s %s in %s: %s", what, r.Status, shortDuration(took), r.CountText())
	case r.Status == Paused || r.Status == Interrupted:
		add(Caution, "%s is %s: %s", what, r.Status, r.CountText())
	case r.Status == InDoubt:
		add(Bad, "%s is in doubt: %s", what, r.CountText())
	default:
		add(Bad, "%s %s: %s", what, r.Status, r.CountText())
	}
	if r.Error != nil {
		at := ""
		if r.Step != "" && !strings.HasPrefix(r.Error.Message, r.Step) {
			at = r.Step + ": "
		}
		add(Bad, "%s%s", at, r.Error.Message)
	} else if r.Reason != "" && r.Status == Paused {
		add(Caution, "%s", r.Reason)
	}
	hint := r.Hint
	if hint == "" && r.Error != nil {
		hint = r.Error.Hint
	}
	if hint != "" {
		add(Plain, "help: %s", hint)
	}
	if way := r.WayOn(live); way != "" && !strings.Contains(hint, "runner resume") {
		add(Plain, "to go on: %s", way)
	}
	return lines
}
