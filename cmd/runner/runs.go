package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
)

func (a *app) runsCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "runs",
		Short: "Look at runs: list, show, log, report, verify, remove",
		Long:  "runs reads journals. RUN is a run-id, the beginning of one, or last.",
		Example: `  runner runs list
  runner runs show last
  runner runs log last --output json | jq 'select(.type == "gate-decided")'
  runner runs verify 20261122-1114`,
	})
	cmd.AddCommand(a.runsList(), a.runsShow(), a.runsLog(), a.runsReport(), a.runsVerify(), a.runsRemove())
	return cmd
}

// listed is one line of `runs list`.
type listed struct {
	Run      string         `json:"run"`
	Name     string         `json:"name,omitempty"`
	Status   string         `json:"status"`
	Live     bool           `json:"live,omitempty"`
	Started  *time.Time     `json:"started,omitempty"`
	Operator string         `json:"operator,omitempty"`
	Steps    map[string]int `json:"steps,omitempty"`
	Step     string         `json:"step,omitempty"`
	Problem  string         `json:"problem,omitempty"`
}

func (a *app) runsList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the runs, newest first",
		Example: "  runner runs list\n  runner runs list --state /var/lib/runner --output json",
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			store := a.store()
			entries, err := store.List()
			if err != nil {
				return err
			}
			list := []listed{}
			for _, e := range entries {
				list = append(list, a.listed(e))
			}
			if a.json() {
				return a.answer(list)
			}
			a.list(list)
			return nil
		},
	}
}

// list writes runs as a table: a header, then a line each, columns two spaces apart or more,
// only the last with spaces in it. - is nothing.
func (a *app) list(runs []listed) {
	if len(runs) == 0 {
		return
	}
	rows := [][]string{{"RUN", "STATUS", "STARTED", "RUNBOOK", "STEP", "OPERATOR"}}
	for _, l := range runs {
		row := []string{l.Run, l.Status, "-", "-", "-", "-"}
		if l.Started != nil {
			row[2], row[3], row[5] = l.Started.Local().Format(time.RFC3339), l.Name, l.Operator
		}
		if l.Step != "" {
			row[4] = l.Step
		}
		if l.Problem != "" && l.Name == "" {
			row[5] = l.Problem
		}
		for i := range row {
			row[i] = clean(row[i])
		}
		rows = append(rows, row)
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			width[i] = max(width[i], utf8.RuneCountInString(text))
		}
	}
	for n, row := range rows {
		for i, text := range row {
			tone, pad := runner.Plain, ""
			switch {
			case n == 0:
				tone = runner.Faint
			case i == 1:
				tone = toneOf(text)
			}
			if i < len(row)-1 {
				pad = strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)+2)
			}
			fmt.Fprint(a.out, a.paint(a.out, tone, text), pad)
		}
		fmt.Fprintln(a.out)
	}
}

func (a *app) listed(e journal.Entry) listed {
	l := listed{Run: e.ID, Status: "unknown"}
	if e.Problem != nil {
		l.Problem = e.Problem.Error()
		return l
	}
	report, live, err := a.report(e.Run)
	if err != nil {
		l.Problem, l.Status = err.Error(), "damaged"
		return l
	}
	l.Name, l.Operator, l.Started, l.Live, l.Steps, l.Step = report.Name, report.StartedBy, &report.Started, live, report.Counts(), report.Step
	l.Status = statusOf(report, live)
	return l
}

// statusOf is a run's status in one word: running, or crashed where it has no end.
func statusOf(r *runner.Report, live bool) string {
	switch {
	case r.Status != "":
		return string(r.Status)
	case live:
		return "running"
	}
	return "crashed"
}

func toneOf(status string) runner.Tone {
	switch status {
	case "succeeded":
		return runner.Good
	case "running", "paused", "interrupted":
		return runner.Caution
	}
	return runner.Bad
}

// report reads a run's journal; live tells that its lock is held.
func (a *app) report(r *journal.Run) (report *runner.Report, live bool, err error) {
	_, live, err = journal.Inspect(r.LockPath())
	if err != nil {
		return nil, false, err
	}
	h, err := journal.Read(r.JournalPath())
	if err != nil {
		return nil, live, err
	}
	report, err = runner.ReadReport(h.Records, live)
	return report, live, err
}

// find is Store.Find and the run's journal, errors with what to do about them.
func (a *app) find(ref string) (*journal.Run, error) {
	store := a.store()
	r, err := store.Find(ref)
	if err != nil {
		return nil, &runner.UsageError{Err: err, Hint: "runner runs list"}
	}
	return r, nil
}

// damaged turns a journal that cannot be read into exit 1, as runs verify does.
func (a *app) damaged(r *journal.Run, err error) error {
	if d, ok := errors.AsType[*journal.DamageError](err); ok {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Bad, "error:"), d)
		return &ended{exitFailed}
	}
	return &runner.UsageError{Err: err, Hint: "runner runs verify " + r.ID}
}

func (a *app) runsShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show RUN",
		Short:             "Show how far a run has come, and the way on",
		Example:           "  runner runs show last\n  runner runs show 20261122-1114 --output json",
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			report, live, err := a.report(r)
			if err != nil {
				return a.damaged(r, err)
			}
			var now *runner.Live
			if live {
				now = a.now(r)
			}
			if a.json() {
				return a.answer(struct {
					*runner.Report
					Live *runner.Live `json:"live,omitempty"`
				}{report, now})
			}
			a.show(report, live, now)
			return nil
		},
	}
}

// show tells how far a run has come; now is what its process knows beyond the journal, nil where there is none.
func (a *app) show(r *runner.Report, live bool, now *runner.Live) {
	fmt.Fprintf(a.out, "%s of %s\n", r.Run, clean(r.Name))
	fmt.Fprintf(a.out, "  plan %s\n", r.Plan)
	if r.Git != "" {
		fmt.Fprintf(a.out, "  git %s\n", r.Git)
	}
	fmt.Fprintf(a.out, "  started %s by %s on %s\n", r.Started.Local().Format(time.DateTime), clean(r.StartedBy), clean(r.StartedOn))
	if p := r.Saved; p != nil {
		fmt.Fprintf(a.out, "  from the saved plan %s, made by %s at %s\n", p.ID, clean(p.Operator), p.Created.Local().Format(time.DateTime))
	}
	if r.Processes > 1 {
		fmt.Fprintf(a.out, "  resumed %s, last by %s on %s\n", times(r.Processes-1), clean(r.Operator), clean(r.Host))
	}
	for i := range r.Amended {
		fmt.Fprintf(a.out, "  %s\n", clean(r.Amended[i].Words()))
	}
	if r.Sandbox != "" {
		fmt.Fprintf(a.out, "  in the sandbox %s\n", clean(r.Sandbox))
	}
	if r.Lock != nil {
		words := r.Lock.Words()
		if r.Claims() {
			words += ", kept for this run until it is over"
		}
		fmt.Fprintf(a.out, "  lock %s\n", clean(words))
	}
	for _, name := range sorted(r.Inputs) {
		fmt.Fprintf(a.out, "  input %s: %s\n", name, clean(runner.ShowValue(r.Inputs[name])))
	}
	for _, s := range r.Steps {
		if s.Group && s.Status != "failed" && s.Status != "skipped" {
			continue
		}
		line := fmt.Sprintf("%-12s %s", s.Status, s.Path)
		var notes []string
		if s.Target != "" {
			notes = append(notes, "on "+s.Target)
		}
		if s.Duration != "" {
			notes = append(notes, s.Duration)
		}
		if s.Attempts > 1 {
			notes = append(notes, count(s.Attempts, "attempt"))
		}
		if s.Recovered {
			notes = append(notes, "recovered")
		}
		if s.Handled != "" {
			notes = append(notes, s.Handled)
		}
		if s.Undo != "" {
			notes = append(notes, s.Undo)
		}
		if len(notes) > 0 {
			line += " (" + strings.Join(notes, ", ") + ")"
		}
		if s.Reason != "" {
			line += ": " + s.Reason
		}
		if cause := s.Cause(); cause != "" {
			line += ": " + cause
		}
		a.lines(a.out, []runner.Line{{Tone: stepTone(s.Status), Text: line}})
		if s.Status == runner.StepInDoubt {
			for _, c := range s.Commands {
				a.lines(a.out, []runner.Line{{Text: "             it was about to send: " + c}})
			}
		}
	}
	for _, g := range r.Gates {
		a.lines(a.out, g.Lines())
	}
	a.lines(a.out, r.GuardLines())
	a.lines(a.out, r.Summary(live))
	a.lines(a.out, now.Lines(time.Now()))
	for _, name := range sorted(r.Outputs) {
		fmt.Fprintf(a.out, "%s = %s\n", name, clean(runner.ShowValue(r.Outputs[name])))
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func stepTone(status string) runner.Tone {
	switch status {
	case "changed", "would-change":
		return runner.Change
	case "ok":
		return runner.Good
	case "skipped":
		return runner.Faint
	case "failed", runner.StepInDoubt:
		return runner.Bad
	}
	return runner.Caution
}

// logTime is when an event was, as `runs log` says it: the local time, and where that is.
const logTime = "2006-01-02 15:04:05.000 -0700"

func (a *app) runsLog() *cobra.Command {
	return &cobra.Command{
		Use:   "log RUN",
		Short: "Print a run's journal, an event a line",
		Long: `log tells all that the journal holds, in order: one event a line, with its time, and below it,
indented, what belongs to it. --output json prints the records themselves.`,
		Example: `  runner runs log last
  runner runs log last --output json | jq -c 'select(.step == "follow")'`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			h, err := journal.Read(r.JournalPath())
			if err != nil {
				return a.damaged(r, err)
			}
			report := runner.NewReport()
			for i, rec := range h.Records {
				if a.json() {
					if _, err := a.out.Write(append(rec.Event(), '\n')); err != nil {
						return err
					}
					continue
				}
				if err := report.Add(rec); err != nil {
					return err
				}
				for n, l := range report.Narrate(rec, i == len(h.Records)-1) {
					at := rec.Time.Local().Format(logTime)
					if n > 0 { // more about it, below it
						at = strings.Repeat(" ", len(at))
					}
					text := strings.ReplaceAll(l.Text, "\n", "\n"+strings.Repeat(" ", len(at)+4))
					a.lines(a.out, []runner.Line{{Tone: l.Tone, Text: at + "  " + text}})
				}
			}
			if h.Torn != nil && !a.json() {
				fmt.Fprintf(a.err, "%v: it was being written, or a crash cut it short\n", h.Torn)
			}
			return nil
		},
	}
}

// verified is the answer of `runs verify`.
type verified struct {
	Run     string `json:"run"`
	Whole   bool   `json:"whole"`
	Format  int    `json:"format,omitempty"`
	Records int64  `json:"records,omitempty"`
	Head    string `json:"head,omitempty"` // SHA-256 of the last line: it fixes the whole journal
	Torn    string `json:"torn,omitempty"`
	Plan    string `json:"plan,omitempty"` // digest
	Damage  string `json:"damage,omitempty"`
}

func (a *app) runsVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify RUN",
		Short: "Check a run's journal and frozen plan for damage and edits",
		Long: `verify checks every line of the journal, the chain through all of them, and the sums of the
frozen plan. The head that it prints fixes the content of the whole journal: kept
elsewhere, it proves later that nothing was changed. Damage gives exit code 1.`,
		Example:           "  runner runs verify last",
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			v := verified{Run: r.ID}
			s, err := journal.Verify(r.JournalPath())
			var frozen *runner.Frozen
			if err == nil {
				v.Format, v.Records, v.Head = s.Format, s.Records, s.Head
				if s.Torn != nil {
					v.Torn = s.Torn.String()
				}
				frozen, err = runner.ReadFrozen(r)
			}
			if err == nil {
				var h *journal.History
				if h, err = journal.Read(r.JournalPath()); err == nil {
					var report *runner.Report
					if report, err = runner.ReadReport(h.Records, true); err == nil && report.Plan != frozen.Digest {
						err = fmt.Errorf("plan.json holds another plan (%.12s) than the journal says was started (%.12s)", frozen.Digest, report.Plan)
					}
				}
			}
			if err != nil {
				v.Damage = err.Error()
			} else {
				v.Whole, v.Plan = true, frozen.Digest
			}
			if a.json() {
				if err := a.answer(v); err != nil {
					return err
				}
			} else if v.Whole {
				fmt.Fprintf(a.out, "%s is whole: %d records\nhead %s\n", v.Run, v.Records, v.Head)
				if v.Torn != "" {
					fmt.Fprintln(a.out, v.Torn+": the trace of a crash, or a line being written; nothing was done because of it")
				}
			} else {
				fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Bad, "error:"), clean(v.Damage))
			}
			if !v.Whole {
				return &ended{exitFailed}
			}
			return nil
		},
	}
}

func (a *app) runsRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove RUN",
		Short: "Delete a run with all its files",
		Long: `remove deletes a run's journal and frozen plan, after which it can be neither resumed nor
looked at. A run under way is refused (exit 5), and so are "last", because what is deleted
is named, and a run that keeps a lock claimed (hold: run) and is not over.`,
		Example:           "  runner runs remove 20261122-111450-f4c0x7qp",
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			if refs[0] == "last" {
				return usage("runner runs remove "+r.ID, "remove needs the id of a run, or its beginning")
			}
			if report, live, err := a.report(r); err == nil && !live && report.Claims() {
				return usage("runner abort "+r.ID+" ends the run and gives it back; or runner lock release "+shellWord(report.Lock.Name)+" --reason TEXT",
					"run %s has claimed the lock %s: without the run nothing would tell why", r.ID, report.Lock.Words())
			}
			store := a.store()
			if err := store.Remove(r.ID); err != nil {
				return err
			}
			if a.json() {
				return a.answer(map[string]string{"removed": r.ID})
			}
			fmt.Fprintf(a.out, "removed %s\n", r.ID)
			return nil
		},
	}
}
