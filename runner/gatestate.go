package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
)

// gateState is a gate as the journal tells of it: what was asked, since when, and who has
// answered. A gate that is asked again with the same words goes on: its approvals count,
// and so does the time that it has been open.
type gateState struct {
	GateOpened
	path  string
	since time.Time
	given []GateDecided // approvals, of different people where several are asked for
	ended *GateDecided  // the refusal, or the timeout, that ended it
	seq   int64         // of its last record
}

// needed is how many people must approve.
func (g *gateState) needed() int { return max(1, g.Approvals) }

func (g *gateState) approved() bool { return g.ended == nil && len(g.given) >= g.needed() }

func (g *gateState) decided() bool { return g.ended != nil || g.approved() }

// by are the names of who has approved.
func (g *gateState) by() []string {
	var names []string
	for _, d := range g.given {
		names = append(names, d.who())
	}
	return names
}

// missing says what the gate waits for.
func (g *gateState) missing() string {
	if g.needed() == 1 {
		return "waits for an approval"
	}
	words := fmt.Sprintf("waits for %d approvals", g.needed())
	if len(g.given) > 0 {
		words += fmt.Sprintf(", %d given (by %s)", len(g.given), strings.Join(g.by(), ", "))
	}
	return words
}

// expires is when the gate's own timeout is over; zero: it has none.
func (g *gateState) expires() time.Time {
	if d, err := schema.ParseDuration(g.Timeout); err == nil && d > 0 {
		return g.since.Add(d)
	}
	return time.Time{}
}

// admit says why a decision about the gate is not taken; nil: it counts.
func (g *gateState) admit(d GateDecided, retyped string, starter *Person, now time.Time) error {
	switch {
	case g.ended != nil && g.ended.Person == nil:
		return unfit("", "%s: the gate's timeout (%s) is over: it is not open any more", g.path, g.Timeout)
	case g.ended != nil:
		return unfit("", "%s was refused by %s already%s", g.path, g.ended.who(), because(g.ended.Reason))
	case g.approved():
		return unfit("", "%s was approved by %s already", g.path, strings.Join(g.by(), ", "))
	case expired(g.expires(), now):
		return unfit("", "%s: the gate's timeout (%s) is over since %s: no decision counts", g.path, g.Timeout, g.expires().UTC().Format(time.RFC3339))
	case !d.Approved:
		return nil
	case g.Retype != "" && retyped == "":
		return unfit("--retype and the text that the question asks for", "%s asks for text to be typed", g.path)
	case g.Retype != "" && strings.TrimSpace(retyped) != g.Retype:
		return unfit("", "%s asks for another text to be typed than %q", g.path, retyped)
	case g.needed() == 1:
		return nil
	}
	if why := g.discounts(d, starter); why != "" {
		return unfit("somebody else approves; refusing it is open to everybody", "%s: %s", g.path, why)
	}
	return nil
}

// discounts says why a person's approval does not count where several people must approve.
func (g *gateState) discounts(d GateDecided, starter *Person) string {
	if starter != nil && d.samePerson(GateDecided{Person: starter}) {
		return fmt.Sprintf("%d people must approve, and %s started the run: the starter's own approval does not count", g.needed(), starter.name())
	}
	for _, other := range g.given {
		if d.samePerson(other) {
			return fmt.Sprintf("%d different people must approve, and %s has approved already", g.needed(), other.Person.name())
		}
	}
	return ""
}

// samePerson says that two decisions are of one person: of one uid, unless the names are
// trusted, or of one name.
func (d GateDecided) samePerson(o GateDecided) bool {
	return d.who() == o.who() || !d.Trusted && d.Person.UID == o.Person.UID
}

// name is a person's name, and what the system says who it is.
func (p *Person) name() string { return fmt.Sprintf("%s (uid %d)", p.By, p.UID) }

// who decided; empty: nobody, the gate's timeout did.
func (d GateDecided) who() string {
	if d.Person == nil {
		return ""
	}
	return d.Person.By
}

// differs says in which way another question is asked than this one, of which approvals
// cannot count then; empty: it is the same one.
func (g GateOpened) differs(o GateOpened) string {
	switch {
	case g.Digest != o.Digest && g.Digest != "":
		return "the step is another one"
	case g.Message != o.Message || g.Retype != o.Retype || max(1, g.Approvals) != max(1, o.Approvals):
		return "the question is another one"
	case !slices.Equal(g.Show, o.Show):
		for i := range min(len(g.Show), len(o.Show)) {
			if g.Show[i] != o.Show[i] {
				return fmt.Sprintf("it was asked with %s, and now %s", g.Show[i], o.Show[i])
			}
		}
		return "it shows something else"
	case !slices.Equal(g.Sends, o.Sends):
		return "it would send something else"
	}
	return ""
}

// gateStates are the gates of a run, by path.
type gateStates map[string]*gateState

// add takes a record of a gate. fresh says that the gate has begun anew since a record.
func (s gateStates) add(r journal.Record, fresh func(path string, seq int64) bool) error {
	g := s[r.Step]
	switch r.Type {
	case recGateOpened:
		var b GateOpened
		if err := r.Decode(&b); err != nil {
			return err
		}
		if g == nil || g.decided() || g.differs(b) != "" || fresh(r.Step, g.seq) {
			g = &gateState{path: r.Step, since: r.Time}
			s[r.Step] = g
		}
		g.GateOpened, g.seq = b, r.Seq
	case recGateDecided:
		var b GateDecided
		if err := r.Decode(&b); err != nil {
			return err
		}
		if g == nil {
			g = &gateState{path: r.Step, since: r.Time}
			s[r.Step] = g
		}
		g.take(b)
		g.seq = r.Seq
	}
	return nil
}

// take counts a decision that was admitted.
func (g *gateState) take(d GateDecided) {
	if d.Approved {
		g.given = append(g.given, d)
	} else {
		g.ended = &d
	}
}

func expired(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
