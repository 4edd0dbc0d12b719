package runner

import (
	"fmt"
	"strings"
	"time"

	"runbook/steps"
)

// GateOf is a gate as --approve sees it.
type GateOf struct{ Gate *Gate }

// Gates are the steps of a runbook, and of the runbooks it uses, that ask a person, by id.
func (p *Program) Gates() map[string]GateOf {
	gates := map[string]GateOf{}
	type use struct {
		unit  *Unit
		asked bool
	}
	seen := map[use]bool{}
	var visit func(u use)
	visit = func(u use) {
		if u.unit == nil || seen[u] {
			return
		}
		seen[u] = true
		u.unit.each(func(n *Node) {
			if n.Confirm != nil && !(n.Confirm.Builtin && u.asked) {
				gates[n.ID] = GateOf{n.Confirm}
			}
			visit(use{n.Sub, u.asked || n.asks()})
		})
	}
	visit(use{unit: p.Root})
	return gates
}

// Refuses says why the gate cannot be answered ahead of its time; empty: it can.
func (g GateOf) Refuses() string {
	switch {
	case g.Gate.Approvals >= 2:
		return fmt.Sprintf("asks for %d people", g.Gate.Approvals)
	case g.Gate.Retype != nil:
		return "asks for text to be typed"
	}
	return ""
}

// StepID is the id of the step that a journal path names: caught_up of move[slot=7]/caught_up.
func StepID(path string) string { return lastID(path) }

// Explanation is what a resume would do. Its JSON is the answer of `resume --explain`.
type Explanation struct {
	Run           string              `json:"run"`
	Status        Status              `json:"status"`
	Over          bool                `json:"over,omitempty"`
	Locked        string              `json:"locked,omitempty"` // who holds the run
	Torn          string              `json:"torn,omitempty"`
	Sandbox       string              `json:"sandbox,omitempty"`
	Again         string              `json:"again,omitempty"` // of a run in a sandbox, which cannot be resumed: the command that starts another
	Finished      int                 `json:"finished"`        // steps that do not run again
	FinishedSteps []string            `json:"finished_steps,omitempty"`
	Skipped       int                 `json:"skipped"`
	Failed        []string            `json:"failed,omitempty"`  // run again
	CutOff        []string            `json:"cut_off,omitempty"` // reads that had not ended: run again
	InDoubt       []ExplainedDoubt    `json:"in_doubt,omitempty"`
	Recheck       []string            `json:"recheck,omitempty"` // finished reads that run again
	Rechecks      []ExplainedRecheck  `json:"rechecks,omitempty"`
	Finally       []string            `json:"finally,omitempty"` // steps of finally that have run, and run once more when the run ends
	Waiting       []string            `json:"waiting,omitempty"` // gates without an answer
	Approvals     []ExplainedApproval `json:"approvals,omitempty"`
	Guards        []string            `json:"guards,omitempty"` // stop conditions that had tripped, in words: they must hold before anything changes
	GuardsNow     []ExplainedGuard    `json:"guards_now,omitempty"`
	Locks         []ExplainedLock     `json:"locks,omitempty"`   // that the resume takes, beside the run's own
	Alive         bool                `json:"alive,omitempty"`   // processes that the run started are: a resume waits for them first
	Unasked       string              `json:"unasked,omitempty"` // why some of the targets were not asked
	Decisions     []Decision          `json:"decisions,omitempty"`
}

// ExplainedDoubt is a step that may or may not have had its effect.
type ExplainedDoubt struct {
	Step     string   `json:"step"`
	Kind     string   `json:"kind"`
	Target   string   `json:"target,omitempty"`
	Commands []string `json:"commands,omitempty"`
	// Probe is what was found of its effect just now; nil: nobody was asked.
	Probe *ExplainedProbe `json:"probe,omitempty"`
	// Guardian is set where a guardian may have settled it, or still may.
	Guardian *ExplainedGuardian `json:"guardian,omitempty"`
	// Then is what the resume does about it.
	Then string `json:"then"`
	// Decide: it stops there unless somebody decides.
	Decide bool `json:"decide,omitempty"`
}

// ExplainedProbe is the answer of a step's probe.
type ExplainedProbe struct {
	Kind  string `json:"kind"`            // of the author's probe, or the step's own
	State string `json:"state"`           // done, untouched, partial, unclear
	Error string `json:"error,omitempty"` // why it could not tell
}

// ExplainedGuardian is the process that lives for one step, and ends it where the runner died.
type ExplainedGuardian struct {
	Log  string `json:"log"`            // path of the file that tells what it did
	Said string `json:"said,omitempty"` // the last line in it about this step
}

// ExplainedRecheck is a finished read that runs again.
type ExplainedRecheck struct {
	Step   string         `json:"step"`
	Kind   string         `json:"kind"`
	Target string         `json:"target,omitempty"`
	Addr   string         `json:"addr,omitempty"`
	With   map[string]any `json:"with,omitempty"`
}

// ExplainedApproval is a gate that somebody has answered.
type ExplainedApproval struct {
	Step   string  `json:"step"`
	Given  []Given `json:"given,omitempty"`
	Needed int     `json:"needed"`
	// Void are approvals that do not count any more, and why, in words.
	Void []string `json:"void,omitempty"`
}

// Given is one person's approval.
type Given struct {
	By     string    `json:"by"`
	How    string    `json:"how"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason,omitempty"`
}

// ExplainedGuard is a stop condition that had tripped, as it is just now.
type ExplainedGuard struct {
	Guard  string         `json:"guard"`
	Holds  bool           `json:"holds"`
	Values map[string]any `json:"values,omitempty"`
	Error  string         `json:"error,omitempty"`

	words string
}

// ExplainedLock is a lock that a resume takes.
type ExplainedLock struct {
	Name   string `json:"name"`
	Target string `json:"target,omitempty"` // that keeps it; absent: the state directory
	Held   string `json:"held,omitempty"`   // by whom; empty: by nobody
	Own    bool   `json:"own,omitempty"`    // it has been kept for this run
}

// Explain says what a resume of the run would do with these decisions, as far as the journal
// tells. What the targets say of it is asked by [Explanation.Ask].
func (r *Report) Explain(p *Program, decisions []Decision) Explanation {
	e := Explanation{Run: r.Run, Status: r.Status, Over: r.Over(), Decisions: decisions}
	nodes := p.byID()
	for _, s := range r.Steps {
		n := nodes[lastID(s.Path)]
		if n != nil && n.Unit == p.Root && n.within(InFinally) {
			if !s.Group {
				e.Finally = append(e.Finally, s.Path)
			}
			continue
		}
		switch s.Status {
		case statusOK, statusChanged:
			if s.Group {
				continue
			}
			if n != nil && n.Recheck {
				e.Recheck = append(e.Recheck, s.Path)
				e.Rechecks = append(e.Rechecks, ExplainedRecheck{Step: s.Path, Kind: s.Kind, Target: s.Target, Addr: s.Addr})
				continue
			}
			e.Finished++
			e.FinishedSteps = append(e.FinishedSteps, s.Path)
		case statusSkipped:
			e.Skipped++
		case statusFailed:
			if !s.Group && s.Handled == "" {
				e.Failed = append(e.Failed, s.Path)
			}
		case stepStopped:
			e.CutOff = append(e.CutOff, s.Path)
		case StepInDoubt:
			d := ExplainedDoubt{Step: s.Path, Kind: s.Kind, Target: s.Target, Commands: s.Commands}
			d.Then, d.Decide = settling(n)
			for _, made := range decisions {
				if made.Step == s.Path || made.Step == lastID(s.Path) {
					d.Then, d.Decide = "decided: "+made.Choice, false
				}
			}
			e.InDoubt = append(e.InDoubt, d)
		}
	}
	for _, g := range r.Gates {
		if r.gates[g.Step] != g {
			continue // asked again since
		}
		if !g.Decided {
			e.Waiting = append(e.Waiting, g.Step)
		}
		if a := g.explained(); len(a.Given)+len(a.Void) > 0 {
			e.Approvals = append(e.Approvals, a)
		}
	}
	for _, g := range r.Guards {
		if g.Tripped != nil {
			e.Guards = append(e.Guards, g.words)
		}
	}
	if r.Sandbox != "" {
		e.Sandbox, e.Again = r.Sandbox, "runner exec --sandbox="+r.Sandbox
		gates := p.Gates()
		for _, step := range e.Waiting {
			if gates[lastID(step)].Gate != nil && gates[lastID(step)].Refuses() == "" {
				e.Again += " --approve " + quoted(step)
			}
		}
		e.Again += " " + p.Root.Book.Path
	}
	return e
}

// explained are the approvals of a gate, and those that do not count any more.
func (g *ReportGate) explained() ExplainedApproval {
	a := ExplainedApproval{Step: g.Step, Needed: g.Needed, Void: g.Void}
	for _, d := range g.Decisions {
		if d.Approved && d.Person != nil {
			a.Given = append(a.Given, Given{By: d.who(), How: d.How, Time: d.Time, Reason: d.Reason})
		}
	}
	if g.Decided && !g.Approved {
		a.Given = nil // one no is enough
	}
	return a
}

// byID are the steps of a runbook and of those that it uses; of one id the first.
func (p *Program) byID() map[string]*Node {
	nodes := map[string]*Node{}
	seen := map[*Unit]bool{}
	var visit func(u *Unit)
	visit = func(u *Unit) {
		if u == nil || seen[u] {
			return
		}
		seen[u] = true
		u.each(func(n *Node) {
			if nodes[n.ID] == nil {
				nodes[n.ID] = n
			}
			visit(n.Sub)
		})
	}
	visit(p.Root)
	return nodes
}

// settling says how a resume finds out whether a step had its effect.
func settling(n *Node) (then string, decide bool) {
	switch {
	case n == nil || n.Kind == nil:
		return "the runner decides when it gets there", false
	case n.Kind.HasProbe || n.Probe != nil:
		if n.Idempotent {
			return "asks the target whether it is done; runs it again if it is not", false
		}
		return "asks the target whether it is done; goes on if it is, runs it if nothing of it is there, stops in doubt (exit 3) otherwise", false
	case n.Idempotent || n.Effect == steps.Read:
		return "runs it again: twice is the same as once", false
	}
	return "stops in doubt (exit 3): nobody can tell but you; decide with --decide " + n.ID + "=done|redo|fail --reason TEXT", true
}

// Lines is the explanation for people.
func (e Explanation) Lines() []Line {
	var lines []Line
	add := func(t Tone, format string, a ...any) { lines = append(lines, Line{t, fmt.Sprintf(format, a...)}) }
	if e.Over {
		add(Plain, "run %s is over (%s): there is nothing to resume", e.Run, e.Status)
		return lines
	}
	if e.Locked != "" {
		add(Caution, "run %s is under way: %s; a resume would give exit 5", e.Run, e.Locked)
	} else {
		add(Plain, "1. takes the lock of run %s", e.Run)
	}
	if e.Sandbox != "" {
		return append(lines[:0], Line{Caution, fmt.Sprintf("run %s was in a sandbox (%s), whose world ended with its process: it cannot be resumed", e.Run, e.Sandbox)},
			Line{Plain, "help: run it again: " + e.Again})
	}
	for _, l := range e.Locks {
		switch {
		case l.Held != "":
			add(Bad, "   needs the lock %s, which is held by %s: exit 5", l.Name, l.Held)
		case l.Own:
			add(Plain, "   takes the lock %s, which is kept for this run", l.Name)
		default:
			add(Plain, "   takes the lock %s, which is free", l.Name)
		}
	}
	if e.Alive {
		add(Caution, "   waits for processes that the run started and that are still alive, %s at most: until then all below may change", shortDuration(childrenWait))
	}
	if e.Torn != "" {
		add(Caution, "   cuts off the journal's %s", e.Torn)
	}
	stay := "do"
	if e.Finished == 1 {
		stay = "does"
	}
	skipped := "skipped stay skipped"
	if e.Skipped == 1 {
		skipped = "skipped stays skipped"
	}
	add(Plain, "2. %s %s not run again, %d %s", plural(e.Finished, "finished step"), stay, e.Skipped, skipped)
	if e.Finished > 0 {
		add(Faint, "     %s", some(e.FinishedSteps))
	}
	if len(e.InDoubt) == 0 {
		add(Plain, "3. no step is in doubt")
	}
	for i := range e.InDoubt {
		lines = append(lines, e.InDoubt[i].lines()...)
	}
	for _, path := range e.Failed {
		add(Plain, "   %s failed, and is tried again", path)
	}
	for _, path := range e.CutOff {
		add(Plain, "   %s was cut off while it looked, and looks again", path)
	}
	if e.Unasked != "" {
		add(Caution, "   not all targets were asked: %s", e.Unasked)
	}
	add(Plain, "4. the frozen plan is what runs, whatever has become of the files")
	if len(e.Rechecks) == 0 {
		add(Plain, "5. no finished step asks to be looked at again")
	}
	for i := range e.Rechecks {
		add(Plain, "5. looks again: %s", e.Rechecks[i].words())
	}
	for _, g := range e.Guards {
		add(Caution, "   looks first, and changes nothing before it holds: %s", g)
	}
	for _, g := range e.GuardsNow {
		tone := Good
		if !g.Holds {
			tone = Bad
		}
		add(tone, "     just now: %s", g.words)
	}
	for _, a := range e.Approvals {
		for _, g := range a.Given {
			add(Good, "   %s: approved by %s at %s (%s)%s", a.Step, g.By, g.Time.Local().Format(time.DateTime), g.How, because(g.Reason))
		}
		for _, why := range a.Void {
			add(Caution, "   %s: %s", a.Step, why)
		}
	}
	if len(e.Waiting) > 0 {
		add(Caution, "   waits for an approval: %s", strings.Join(e.Waiting, ", "))
	}
	if len(e.Finally) > 0 {
		add(Plain, "6. runs once more when the run ends: %s", some(e.Finally))
	}
	return lines
}

func (d *ExplainedDoubt) lines() []Line {
	tone := Caution
	if d.Decide {
		tone = Bad
	}
	on := ""
	if d.Target != "" {
		on = " on " + d.Target
	}
	words := fmt.Sprintf("3. %s (%s%s) is in doubt: ", d.Step, d.Kind, on)
	if d.Probe != nil {
		words += d.Probe.words() + "; "
	}
	lines := []Line{{tone, words + d.Then}}
	if d.Guardian != nil {
		lines = append(lines, Line{Caution, "     its guardian may have settled it, or still may: see " + d.Guardian.Log})
		if d.Guardian.Said != "" {
			lines = append(lines, Line{Faint, "       " + d.Guardian.Said})
		}
	}
	for _, c := range d.Commands {
		lines = append(lines, Line{Plain, "     it was about to send: " + c})
	}
	return lines
}

func (p *ExplainedProbe) words() string {
	if p.Error != "" {
		return fmt.Sprintf("its probe (%s) cannot tell just now: %s", p.Kind, p.Error)
	}
	return fmt.Sprintf("its probe (%s) says %s just now", p.Kind, p.State)
}

func (r *ExplainedRecheck) words() string {
	words := r.Step + ", " + r.Kind
	if r.Target != "" {
		words += " on " + (&boundTarget{Target: steps.Target{Name: r.Target}, addr: r.Addr}).place()
	}
	for i, name := range sortedNames(r.With) {
		if i == 0 {
			words += " with "
		} else {
			words += ", "
		}
		words += name + ": " + jsonText(r.With[name])
	}
	return words
}
