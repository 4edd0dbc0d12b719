package page

import (
	"encoding/json"
	"strings"
	"time"

	"runbook/runner"
	"runbook/runner/journal"
)

// story is what happened when.
type story struct {
	Processes []*process
	Rows      []*row
	Gates     []*gate
	Notes     []note // decisions, guards, pauses, rollbacks

	rows map[string]*row
}

// process is one exec or resume.
type process struct {
	Began, Ended time.Time
	By, Host     string
	PID          int
	How          string // the status it ended with; empty: it was killed, or goes on
	running      bool   // nothing says that it has ended
}

// row is one step in the picture.
type row struct {
	Path  string
	Bars  []bar
	Marks []mark
	Seen  []sight
	Until string // what it waits for

	open map[string]time.Time // bars that have begun, by class
}

// bar is a stretch of time; its class says what the step did then: runs, asks, waits (for its window), undoes.
type bar struct {
	Class      string
	From, Till time.Time
	Cut        bool // the process died
}

// mark is an instant: a retry, a guard that tripped.
type mark struct {
	At   time.Time
	Word string
}

// sight is one look of a wait.
type sight struct {
	At     time.Time
	Holds  bool
	Values map[string]any
}

// gate is a question to people, and their answers.
type gate struct {
	Step      string
	Opened    time.Time
	Message   string
	Show      []string
	Needs     int
	Decisions []decision
}

type decision struct {
	runner.GateDecided
	At time.Time
}

// From says where somebody decided.
func (d decision) From() string {
	if d.Person == nil {
		return ""
	}
	from := d.Host
	if d.TTY != "" {
		from += " " + d.TTY
	}
	if d.SSH != "" {
		from += ", by SSH from " + d.SSH
	}
	return strings.TrimSpace(from)
}

// note is what a reader of the run should not miss, in one line.
type note struct {
	At    time.Time
	Class string // bad, caution, plain
	Text  string
}

// tell reads the records in order.
func tell(records []journal.Record) *story {
	s := &story{rows: map[string]*row{}}
	for _, rec := range records {
		s.add(rec)
	}
	if p := s.last(); p != nil && p.How == "" {
		p.running = true
		s.closeAll(p.Ended, false)
	}
	return s
}

func (s *story) last() *process {
	if len(s.Processes) == 0 {
		return nil
	}
	return s.Processes[len(s.Processes)-1]
}

func (s *story) add(rec journal.Record) {
	switch rec.Type {
	case "run-started", "run-resumed":
		if p := s.last(); p != nil && p.How == "" {
			s.closeAll(p.Ended, true)
		}
		var b runner.RunStarted
		_ = rec.Decode(&b) // a record that cannot be read shows as little as it says
		s.Processes = append(s.Processes, &process{Began: rec.Time, Ended: rec.Time, By: b.Operator, Host: b.Host, PID: b.PID})
	case "run-finished":
		var b runner.RunFinished
		_ = rec.Decode(&b)
		if p := s.last(); p != nil {
			p.How = string(b.Status)
		}
		s.closeAll(rec.Time, true)
	case "step-started":
		var b runner.StepStarted
		_ = rec.Decode(&b)
		r := s.row(rec.Step)
		r.end("waits", rec.Time, false)
		if b.Waiting != "" {
			r.Until = b.Waiting
		}
		r.begin("runs", rec.Time)
	case "step-waiting":
		s.row(rec.Step).begin("waits", rec.Time)
	case "step-observed":
		var b runner.StepObserved
		if rec.Decode(&b) == nil {
			r := s.row(rec.Step)
			r.Seen = append(r.Seen, sight{rec.Time, b.Holds, b.Values})
		}
	case "step-retrying":
		s.row(rec.Step).Marks = append(s.row(rec.Step).Marks, mark{rec.Time, "retry"})
	case "step-finished":
		s.row(rec.Step).end("waits", rec.Time, false)
		s.row(rec.Step).end("runs", rec.Time, false)
	case "gate-opened":
		s.row(rec.Step).begin("asks", rec.Time)
		var b runner.GateOpened
		if rec.Decode(&b) == nil {
			s.Gates = append(s.Gates, &gate{Step: rec.Step, Opened: rec.Time, Message: b.Message, Show: b.Show, Needs: max(b.Approvals, 1)})
		}
	case "gate-decided":
		s.decided(rec)
	case "undo-started":
		s.row(rec.Step).begin("undoes", rec.Time)
	case "undo-finished":
		s.row(rec.Step).end("undoes", rec.Time, false)
	default:
		s.note(rec)
	}
	if p := s.last(); p != nil && rec.Time.After(p.Ended) {
		p.Ended = rec.Time
	}
}

func (s *story) decided(rec journal.Record) {
	var b runner.GateDecided
	if rec.Decode(&b) != nil {
		return
	}
	for i := len(s.Gates) - 1; i >= 0; i-- {
		g := s.Gates[i]
		if g.Step != rec.Step {
			continue
		}
		g.Decisions = append(g.Decisions, decision{b, rec.Time})
		if !b.Approved || len(g.Decisions) >= g.Needs {
			s.row(rec.Step).end("asks", rec.Time, false)
		}
		return
	}
}

// note keeps what is worth a line of its own.
func (s *story) note(rec journal.Record) {
	n := note{At: rec.Time, Class: "caution"}
	var b struct {
		Reason, Choice, By, Guard, Stopped string
		Complete                           bool
	}
	_ = json.Unmarshal(rec.Body, &b)
	on := ""
	if rec.Step != "" {
		on = rec.Step + ": "
	}
	switch rec.Type {
	case "run-paused":
		n.Text = "paused: " + b.Reason
	case "run-aborted":
		n.Text, n.Class = "aborted: "+b.Reason, "bad"
	case "run-interrupted":
		n.Text = "interrupted"
	case "decision":
		n.Text = on + b.By + " decided that it is " + map[string]string{"done": "done", "redo": "to be done again", "fail": "failed"}[b.Choice] + ": " + b.Reason
	case "guard-tripped":
		var t runner.GuardTripped
		if rec.Decode(&t) == nil {
			n.Text, n.Class = t.Words()+"; "+t.Then, "bad"
		}
		s.row(rec.Step).Marks = append(s.row(rec.Step).Marks, mark{rec.Time, "guard"})
	case "plan-amended":
		var a runner.PlanAmended
		_ = rec.Decode(&a)
		n.Text = "the plan was amended"
		if a.Person != nil {
			n.Text += " by " + a.By
		}
		if a.Reason != "" {
			n.Text += " (" + a.Reason + ")"
		}
		n.Text += ": " + strings.Join(append(a.Changes, a.Void...), "; ")
	case "guard-overridden":
		n.Text = "guard " + b.Guard + " overridden by " + b.By + ": " + b.Reason
	case "rollback-started":
		n.Text, n.Class = on+"rolls back: "+b.Reason, "bad"
	case "rollback-finished":
		n.Text = on + "rolled back"
		if !b.Complete {
			n.Text, n.Class = on+"the rollback has ended early: "+b.Stopped, "bad"
		}
	default:
		return
	}
	s.Notes = append(s.Notes, n)
}

func (s *story) row(path string) *row {
	r := s.rows[path]
	if r == nil {
		r = &row{Path: path, open: map[string]time.Time{}}
		s.rows[path] = r
		if path != "" {
			s.Rows = append(s.Rows, r)
		}
	}
	return r
}

func (s *story) closeAll(at time.Time, cut bool) {
	for _, r := range s.rows {
		for class := range r.open {
			r.end(class, at, cut)
		}
	}
}

func (r *row) begin(class string, at time.Time) {
	if _, already := r.open[class]; !already { // a second attempt goes on with the bar of the first
		r.open[class] = at
	}
}

func (r *row) end(class string, at time.Time, cut bool) {
	if from, begun := r.open[class]; begun {
		r.Bars = append(r.Bars, bar{class, from, at, cut})
		delete(r.open, class)
	}
}
