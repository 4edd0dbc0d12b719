package runner

import (
	"fmt"
	"strings"

	"runbook/runner/journal"
)

// Narrate tells a record in words, whichever it is: the event in the first line, what
// belongs to it in the others, indented. r is the report up to and with it, last that
// no record follows it: only then is there a way on to tell.
func (r *Report) Narrate(rec journal.Record, last bool) []Line {
	one := func(t Tone, format string, a ...any) []Line { return []Line{{t, fmt.Sprintf(format, a...)}} }
	s := r.byPath[rec.Step]
	switch rec.Type {
	case recStepStarted:
		if s == nil {
			break
		}
		return r.narrateStart(s)
	case recStepFinished:
		return r.finished(s)
	case recGateOpened, recGateDecided:
		return r.narrateGate(rec)
	case recGuardObserved, recGuardTripped, recGuardOverridden:
		return r.describeGuard(rec, true)
	case recLoopFrozen:
		var b LoopFrozen
		if rec.Decode(&b) == nil {
			return one(Faint, "%s: goes over %s", rec.Step, plural(len(b.Items), "item"))
		}
	case recUndoStarted:
		var b UndoStarted
		if rec.Decode(&b) != nil {
			break
		}
		words := "puts back"
		if b.Undo != "" {
			words += ": " + b.Undo
		}
		if b.Why == whyRestore {
			words += " (it was a temporary setting)"
		}
		return one(Plain, "%s: %s", rec.Step, words)
	case recRunFinished:
		lines := r.Summary(false)
		if !last {
			for i, l := range lines {
				if strings.HasPrefix(l.Text, "help: ") || strings.HasPrefix(l.Text, "to go on: ") {
					lines = lines[:i]
					break
				}
			}
		}
		for i := range lines[1:] {
			lines[i+1].Text = "  " + lines[i+1].Text
		}
		return lines
	case recStepObserved, recStepRetrying, recFailureHandled, recRunPaused, recRunInterrupted, recRunAborted, recDecision, recStepWaiting, recLockReleased,
		recRollbackStarted, recRollbackFinished, recUndoFinished, recRunStarted, recRunResumed, recPlanAmended:
		if lines := r.Describe(rec); len(lines) > 0 {
			return lines
		}
	}
	// of a newer version, in the same format
	words := strings.ReplaceAll(rec.Type, "-", " ")
	if rec.Step != "" {
		words = rec.Step + ": " + words
	}
	return one(Faint, "%s", words)
}

// narrateStart tells what a step begins, and what it is about to send.
func (r *Report) narrateStart(s *ReportStep) []Line {
	words := s.Path + ": "
	switch {
	case s.Group:
		words += "begins"
	case s.Waiting != "":
		words += "waits until " + s.Waiting
	case s.Effect == "read":
		words += "looks"
	default:
		words += "acts"
	}
	if s.Kind != "" {
		words += " (" + s.Kind
		if s.Target != "" {
			words += " on " + s.Target
			if s.Addr != "" && s.Addr != s.Target {
				words += " " + s.Addr
			}
		}
		words += ")"
	}
	if s.Attempts > 1 {
		words += fmt.Sprintf(", attempt %d", s.Attempts)
	}
	lines := []Line{{Faint, words}}
	for _, c := range s.Commands {
		lines = append(lines, Line{Plain, "  sends: " + c})
	}
	return lines
}
