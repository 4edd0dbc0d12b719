package runner

import (
	"fmt"
	"strings"

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

// Explanation is what a resume would do.
type Explanation struct {
	Run       string           `json:"run"`
	Status    Status           `json:"status"`
	Over      bool             `json:"over,omitempty"`
	Locked    string           `json:"locked,omitempty"` // who holds the run
	Torn      string           `json:"torn,omitempty"`
	Sandbox   string           `json:"sandbox,omitempty"`
	Again     string           `json:"again,omitempty"` // of a run in a sandbox, which cannot be resumed: the command that starts another
	Finished  int              `json:"finished"`        // steps that do not run again
	Skipped   int              `json:"skipped"`
	Failed    []string         `json:"failed,omitempty"` // run again
	InDoubt   []ExplainedDoubt `json:"in_doubt,omitempty"`
	Recheck   []string         `json:"recheck,omitempty"` // finished reads that run again
	Waiting   []string         `json:"waiting,omitempty"` // gates without an answer
	Decisions []Decision       `json:"decisions,omitempty"`
}

// ExplainedDoubt is a step that may or may not have had its effect.
type ExplainedDoubt struct {
	Step     string   `json:"step"`
	Kind     string   `json:"kind"`
	Target   string   `json:"target,omitempty"`
	Commands []string `json:"commands,omitempty"`
	// Then is what the resume does about it.
	Then string `json:"then"`
	// Decide: it stops there unless somebody decides.
	Decide bool `json:"decide,omitempty"`
}

// Explain says what a resume of the run would do with these decisions.
func (r *Report) Explain(p *Program, decisions []Decision) Explanation {
	e := Explanation{Run: r.Run, Status: r.Status, Over: r.Over(), Decisions: decisions}
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
	for _, s := range r.Steps {
		switch s.Status {
		case statusOK, statusChanged:
			if s.Group {
				continue
			}
			e.Finished++
			if n := nodes[lastID(s.Path)]; n != nil && n.Recheck {
				e.Recheck = append(e.Recheck, s.Path)
			}
		case statusSkipped:
			e.Skipped++
		case statusFailed:
			if !s.Group && s.Handled == "" {
				e.Failed = append(e.Failed, s.Path)
			}
		case StepInDoubt:
			d := ExplainedDoubt{Step: s.Path, Kind: s.Kind, Target: s.Target, Commands: s.Commands}
			d.Then, d.Decide = settling(nodes[lastID(s.Path)])
			for _, made := range decisions {
				if made.Step == s.Path || made.Step == lastID(s.Path) {
					d.Then, d.Decide = "decided: "+made.Choice, false
				}
			}
			e.InDoubt = append(e.InDoubt, d)
		}
	}
	for _, g := range r.Gates {
		if !g.Decided {
			e.Waiting = append(e.Waiting, g.Step)
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
	if len(e.InDoubt) == 0 {
		add(Plain, "3. no step is in doubt")
	}
	for _, d := range e.InDoubt {
		tone := Caution
		if d.Decide {
			tone = Bad
		}
		on := ""
		if d.Target != "" {
			on = " on " + d.Target
		}
		add(tone, "3. %s (%s%s) is in doubt: %s", d.Step, d.Kind, on, d.Then)
		for _, c := range d.Commands {
			add(Plain, "     it was about to send: %s", c)
		}
	}
	for _, path := range e.Failed {
		add(Plain, "   %s failed, and is tried again", path)
	}
	add(Plain, "4. the frozen plan is what runs, whatever has become of the files")
	if len(e.Recheck) > 0 {
		add(Plain, "5. looks again: %s", strings.Join(e.Recheck, ", "))
	} else {
		add(Plain, "5. no finished step asks to be looked at again")
	}
	if len(e.Waiting) > 0 {
		add(Caution, "   waits for an approval: %s", strings.Join(e.Waiting, ", "))
	}
	return lines
}
