package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/runner/journal"
)

// ReportGate is a question, and its answer where there is one.
type ReportGate struct {
	Step      string         `json:"step"`
	Message   string         `json:"message"`
	Show      []string       `json:"show,omitempty"`  // expression = value
	Sends     []string       `json:"sends,omitempty"` // what will be sent, as far as it could be told
	Digest    string         `json:"digest,omitempty"`
	Retype    string         `json:"retype,omitempty"`  // what must be typed
	Timeout   string         `json:"timeout,omitempty"` // counted from Opened
	Detached  bool           `json:"detached,omitempty"`
	Opened    time.Time      `json:"opened"` // when it was first asked
	Needed    int            `json:"needed"` // how many people must approve
	Decided   bool           `json:"decided"`
	Approved  bool           `json:"approved"`
	By        string         `json:"by,omitempty"` // the last who decided
	How       string         `json:"how,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	Decisions []GateDecision `json:"decisions,omitempty"` // that count, in order
	Void      []string       `json:"void,omitempty"`      // approvals that do not count any more

	state gateState
}

// GateDecision is what one person decided about a gate, when and from where.
type GateDecision struct {
	GateDecided
	Time time.Time `json:"time"`
}

// gate takes a record of a gate.
func (r *Report) gate(rec journal.Record) error {
	states := gateStates{}
	g := r.gates[rec.Step]
	if g != nil {
		states[rec.Step] = &g.state
	}
	if err := states.add(rec, func(string, int64) bool { return false }); err != nil {
		return err
	}
	if state := states[rec.Step]; g == nil || state != &g.state {
		if before := g; before != nil && !before.Decided { // another question has taken its place
			r.Gates = slices.DeleteFunc(r.Gates, func(g *ReportGate) bool { return g == before })
		}
		g = &ReportGate{Step: rec.Step, Opened: rec.Time, state: *state}
		if r.gates == nil {
			r.gates = map[string]*ReportGate{}
		}
		r.gates[rec.Step], r.Gates = g, append(r.Gates, g)
	}
	st := &g.state
	g.Message, g.Show, g.Sends, g.Digest, g.Retype, g.Timeout, g.Detached, g.Needed, g.Void = st.Message, st.Show, st.Sends, st.Digest, st.Retype, st.Timeout, st.Detached, st.needed(), st.Void
	g.Decided, g.Approved = st.decided(), st.approved()
	if rec.Type == recGateOpened {
		return nil
	}
	last := st.ended
	if last == nil {
		last = &st.given[len(st.given)-1]
	}
	g.By, g.How, g.Reason = last.who(), last.How, last.Reason
	g.Decisions = append(g.Decisions, GateDecision{*last, rec.Time})
	if r.Status == Paused && r.Step == g.Step && g.Decided { // decided after its process had left
		r.Error, r.Hint, r.Reason = nil, "", g.Step+" was "+g.word()
	}
	return nil
}

// word is how the gate stands.
func (g *ReportGate) word() string {
	switch {
	case !g.Decided:
		return g.state.missing()
	case g.Approved:
		return "approved by " + strings.Join(g.state.by(), ", ") + " (" + g.How + ")"
	case g.By == "":
		return "not answered within " + g.Timeout
	}
	return "refused by " + g.By + " (" + g.How + ")"
}

// Lines tell how the gate stands; of an open one, what whoever answers must know beside
// the question: the values shown, and what will be sent.
func (g *ReportGate) Lines() []Line {
	word := g.word()
	if !g.Decided && g.Needed == 1 {
		word = "waits for an answer"
	}
	lines := []Line{{Plain, "gate " + g.Step + ": " + word}}
	for _, d := range g.Decisions {
		lines = append(lines, Line{Faint, "  " + d.words()})
	}
	for _, v := range g.Void {
		lines = append(lines, Line{Caution, "  " + v})
	}
	if !g.Decided {
		for line := range strings.Lines(strings.TrimSpace(g.Message)) {
			lines = append(lines, Line{Plain, "  " + strings.TrimSpace(line)})
		}
		lines = append(lines, g.asked()...)
	}
	return lines
}

// words say who decided what, when, from where, and why.
func (d GateDecision) words() string {
	if d.Person == nil {
		return d.Time.Local().Format(time.DateTime) + " its timeout was over"
	}
	word := "approved"
	if !d.Approved {
		word = "refused"
	}
	return fmt.Sprintf("%s %s by %s%s", d.Time.Local().Format(time.DateTime), word, d.Person.From(), because(d.Reason))
}

// From says who a person is, and where they were: ana (uid 1000) on db7, /dev/pts/3, ssh 10.0.0.7, pid 4711.
func (p *Person) From() string {
	words := p.name()
	if p.Host != "" {
		words += " on " + p.Host
	}
	if p.TTY != "" {
		words += ", " + p.TTY
	}
	if p.SSH != "" {
		words += ", ssh " + p.SSH
	}
	if p.PID != 0 {
		words += fmt.Sprintf(", pid %d", p.PID)
	}
	return words
}

// mostSends is how many lines of what a gate is about to let through are shown.
const mostSends = 20

// asked is what whoever answers must know beside the question.
func (g *ReportGate) asked() []Line {
	var lines []Line
	for _, show := range g.Show {
		lines = append(lines, Line{Plain, "  " + show})
	}
	for i, c := range g.Sends {
		if i == mostSends {
			lines = append(lines, Line{Plain, fmt.Sprintf("  and %d more", len(g.Sends)-i)})
			break
		}
		lines = append(lines, Line{Plain, "  will send: " + c})
	}
	if g.Retype != "" {
		lines = append(lines, Line{Plain, "  type to approve: " + g.Retype})
	}
	return lines
}

// Detached says that the gate of a path waits without a process.
func (r *Report) Detached(path string) bool { return r.gates[path] != nil && r.gates[path].Detached }

// describeGate says what a record of a gate tells whoever follows the run.
func (r *Report) describeGate(rec journal.Record) []Line {
	g := r.gates[rec.Step]
	if g == nil {
		return nil
	}
	if rec.Type == recGateOpened {
		asks := "asks"
		if g.Needed > 1 {
			asks = fmt.Sprintf("asks %d people", g.Needed)
		}
		lines := []Line{{Caution, g.Step + ": " + asks + ": " + strings.TrimSpace(g.Message)}}
		for _, v := range g.Void {
			lines = append(lines, Line{Caution, "  " + v})
		}
		return append(lines, g.asked()...)
	}
	var d GateDecided
	if rec.Decode(&d) != nil {
		return nil
	}
	switch {
	case d.Person == nil:
		return nil // the step's failure says it
	case !d.Approved:
		return []Line{{Bad, fmt.Sprintf("%s: refused by %s (%s)%s", g.Step, d.who(), d.How, because(d.Reason))}}
	case g.Needed > 1:
		return []Line{{Good, fmt.Sprintf("%s: approved by %s (%s), %d of %d%s", g.Step, d.who(), d.How, len(g.state.given), g.Needed, because(d.Reason))}}
	}
	return []Line{{Good, fmt.Sprintf("%s: approved by %s (%s)%s", g.Step, d.who(), d.How, because(d.Reason))}}
}

// narrateGate is describeGate, and where whoever decided was.
func (r *Report) narrateGate(rec journal.Record) []Line {
	lines := r.describeGate(rec)
	var d GateDecided
	if rec.Type != recGateDecided || rec.Decode(&d) != nil {
		return lines
	}
	if d.Person == nil {
		return []Line{{Bad, rec.Step + ": nobody has answered in time"}}
	}
	return append(lines, Line{Faint, "  " + d.Person.From()})
}

// words say what was done to a run, by whom and why.
func (b RunPaused) words(done string) string {
	if b.Person != nil {
		done += " by " + b.By
	}
	return done + because(b.Reason)
}
