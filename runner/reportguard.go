package runner

import (
	"fmt"
	"time"

	"runbook/runner/journal"
)

// ReportGuard is a stop condition as it stands: what it saw last, and whether it has tripped.
type ReportGuard struct {
	Guard   string         `json:"guard"`             // path; of a max-age that of its group
	Group   string         `json:"group,omitempty"`   // path of the group; absent: the run
	Require string         `json:"require,omitempty"` // absent of a max-age
	MaxAge  string         `json:"max_age,omitempty"`
	Holds   bool           `json:"holds"`
	Since   time.Time      `json:"since"` // since when it holds, or does not
	Values  map[string]any `json:"values,omitempty"`
	Error   *ErrorBody     `json:"error,omitempty"`
	// Tripped is when it did; absent: it has not, or has held or been overridden since.
	Tripped *time.Time `json:"tripped,omitempty"`
	Then    string     `json:"then,omitempty"` // what the trip does
	// Overridden: it is passed over until it has held again, a max-age for the rest of the run.
	Overridden *GuardOverridden `json:"overridden,omitempty"`

	words string
	again bool // it holds again
}

// guard takes a record of a stop condition.
func (r *Report) guard(rec journal.Record) error {
	switch rec.Type {
	case recGuardObserved:
		var b GuardObserved
		if err := rec.Decode(&b); err != nil {
			return err
		}
		g := r.guardOf(b.Guard)
		g.again = b.Holds && !g.Holds && !g.Since.IsZero()
		if g.Since.IsZero() || g.Holds != b.Holds {
			g.Since = rec.Time
		}
		g.Group, g.Require, g.Holds, g.Values, g.Error, g.words = rec.Step, b.Require, b.Holds, b.Values, b.Error, b.Words()
		if b.Holds {
			g.Tripped, g.Then, g.Overridden = nil, "", nil
		}
	case recGuardTripped:
		var b GuardTripped
		if err := rec.Decode(&b); err != nil {
			return err
		}
		g, at := r.guardOf(b.Guard), rec.Time
		g.Group, g.Require, g.MaxAge, g.Holds, g.Since, g.Values, g.Error = rec.Step, b.Require, b.MaxAge, false, b.Since, b.Values, b.Error
		g.Tripped, g.Then, g.words = &at, b.Then, b.Words()
	case recGuardOverridden:
		b := &GuardOverridden{}
		if err := rec.Decode(b); err != nil {
			return err
		}
		for _, g := range r.Guards {
			if g.Guard == b.Guard || lastID(g.Guard) == b.Guard {
				g.Tripped, g.Then, g.Overridden = nil, "", b
			}
		}
	}
	return nil
}

func (r *Report) guardOf(name string) *ReportGuard {
	g := r.guards[name]
	if g == nil {
		g = &ReportGuard{Guard: name}
		if r.guards == nil {
			r.guards = map[string]*ReportGuard{}
		}
		r.guards[name], r.Guards = g, append(r.Guards, g)
	}
	return g
}

// GuardLines tell how the stop conditions stand: those that hold only while they matter.
func (r *Report) GuardLines() []Line {
	var lines []Line
	for _, g := range r.Guards {
		if group := r.byPath[g.Group]; g.Holds && group != nil && group.Status != StepRunning {
			continue
		}
		lines = append(lines, g.line())
	}
	return lines
}

func (g *ReportGuard) line() Line {
	line := Line{Good, g.words}
	switch {
	case g.Overridden != nil:
		line = Line{Caution, g.words + "; " + g.Overridden.because()}
	case g.Tripped != nil:
		line = Line{Bad, fmt.Sprintf("%s; it tripped at %s (%s)", g.words, g.Tripped.Local().Format(time.DateTime), g.Then)}
	case !g.Holds:
		line.Tone = Caution
	}
	return line
}

// thenWords say what a trip does, of the run.
var thenWords = map[string]string{ThenPause: "the run pauses", ThenStop: "the run stops", ThenRollback: "it is rolled back"}

// describeGuard tells a record of a stop condition; all: also a look that shows that all is well.
func (r *Report) describeGuard(rec journal.Record, all bool) []Line {
	switch rec.Type {
	case recGuardObserved:
		var b GuardObserved
		if rec.Decode(&b) != nil {
			return nil
		}
		switch words := b.Words(); {
		case !b.Holds && r.DryRun:
			return []Line{{Caution, words + ": nothing would start before it does"}}
		case b.Overridden:
			return []Line{{Caution, words + "; it is passed over"}}
		case !b.Holds:
			when := "at once"
			if b.For != "" {
				when = "after " + b.For
			}
			return []Line{{Caution, fmt.Sprintf("%s; it trips %s (%s)", words, when, b.Then)}}
		case r.guardOf(b.Guard).again:
			return []Line{{Good, b.words("holds again")}}
		case all || r.DryRun:
			return []Line{{Good, words}}
		}
	case recGuardTripped:
		var b GuardTripped
		if rec.Decode(&b) == nil {
			return []Line{{Bad, b.Words() + ": " + thenWords[b.Then]}}
		}
	case recGuardOverridden:
		var b GuardOverridden
		if rec.Decode(&b) == nil {
			return []Line{{Caution, b.Words()}}
		}
	}
	return nil
}
