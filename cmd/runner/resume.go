package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
)

func (a *app) resumeCommand() *cobra.Command {
	var approve, decide []string
	var reasonText string
	var yes, explain bool
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run after a crash, a pause, an interruption or a failure",
		Long: `resume carries on with the plan that was started, from the journal's own copy: finished
steps do not run again, and a step that may have had its effect is asked for it first.
RUN is a run-id, the beginning of one, or last. Secrets are read again from their source.

A step about which nobody can tell whether it was done stops the run in doubt (exit 3).
Look at the target, then decide: done (it was), redo (it was not: do it), fail (treat it
as failed). The reason is journaled.`,
		Example: `  runner resume last
  runner resume last --explain                 say what would happen, do nothing
  runner resume 20261122-1114 --approve clean_up
  runner resume last --decide switch[slot=7]=done --reason "seen on the dashboard, CHG-1"`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			decisions, err := parseDecisions(decide, reasonText)
			if err != nil {
				return err
			}
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			raw, err := r.ReadPlan()
			if err != nil {
				return &runner.UsageError{Err: err, Hint: "runner runs log " + r.ID}
			}
			frozen, err := runner.Thaw(raw)
			if err != nil {
				return err
			}
			catalog := a.catalog()
			program, inputs, err := frozen.Program(catalog)
			if err != nil {
				return err
			}
			if explain {
				return a.explain(r, frozen, program, decisions)
			}
			if frozen.Sandbox != "" {
				return usage("start another: runner exec --sandbox="+shellWord(frozen.Sandbox)+" "+shellWord(program.Root.Book.Path), "run %s was in a sandbox: its world ended with its process, and it is not resumed for real", r.ID)
			}
			approvals, err := a.approvals(program, approve, yes)
			if err != nil {
				return err
			}
			ctx, stop := a.interruptible()
			defer stop()
			a.drift(frozen)
			cfg, err := a.config(ctx, "")
			if err != nil {
				return err
			}
			cfg.Git = frozen.Git
			var plan *runner.Plan // what comes next, on a screen that shows it
			if a.live(false) {
				if plan, _, err = runner.MakePlan(program, inputs, frozen.Selection); err != nil {
					return err
				}
			}
			view := a.view(plan, false)
			view.attach(&cfg)
			defer view.close()
			result, err := runner.Resume(ctx, cfg, runner.ResumeRequest{Run: r, Catalog: catalog, Approvals: approvals, Decisions: decisions})
			return a.conclude(view, nil, result, err)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&decide, "decide", nil, "decide about a step in doubt: STEP=done, STEP=redo or STEP=fail")
	f.StringVar(&reasonText, "reason", "", "why; journaled with each decision")
	f.BoolVar(&explain, "explain", false, "say what a resume would do, and do nothing")
	gateFlags(cmd, &approve, &yes)
	return cmd
}

// parseDecisions reads STEP=CHOICE; a path of a step may hold = as well.
func parseDecisions(texts []string, why string) ([]runner.Decision, error) {
	if len(texts) == 0 {
		if why != "" {
			return nil, usage("--decide STEP=done --reason "+why, "--reason says why of a decision, and there is none")
		}
		return nil, nil
	}
	if strings.TrimSpace(why) == "" {
		return nil, usage("--reason TEXT", "--decide needs a reason, which is journaled with it")
	}
	var decisions []runner.Decision
	for _, text := range texts {
		at := strings.LastIndexByte(text, '=')
		if at <= 0 {
			return nil, usage("--decide STEP=done, redo or fail", "--decide %s: write it as STEP=CHOICE", text)
		}
		choice := text[at+1:]
		switch choice {
		case "done", "redo", "fail":
		default:
			return nil, usage("done: it was carried out; redo: it was not, do it; fail: treat it as failed", "--decide %s: there is no choice %q", text, choice)
		}
		decisions = append(decisions, runner.Decision{Step: text[:at], Choice: choice, Reason: why})
	}
	return decisions, nil
}

// drift tells where the files of a run have changed since: what runs is the frozen plan.
func (a *app) drift(f *runner.Frozen) {
	for _, s := range f.Sources {
		path := s.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(f.Dir, path)
		}
		now, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			fmt.Fprintf(a.err, "%s %s is gone; the run goes on with its frozen text\n", a.paint(a.err, runner.Caution, "warning:"), s.Path)
		case err != nil || bytes.Equal(now, []byte(s.Text)):
		default:
			fmt.Fprintf(a.err, "%s %s has changed since the run started; the run goes on with its frozen text, without these changes:\n", a.paint(a.err, runner.Caution, "warning:"), s.Path)
			for _, line := range textDiff(s.Text, string(now)) {
				fmt.Fprintln(a.err, "  "+clean(line))
			}
		}
	}
}

// explain says what a resume would do.
func (a *app) explain(r *journal.Run, frozen *runner.Frozen, program *runner.Program, decisions []runner.Decision) error {
	history, err := journal.Read(r.JournalPath())
	if err != nil {
		return &runner.UsageError{Err: err, Hint: "runner runs verify " + r.ID}
	}
	holder, held, err := journal.Inspect(r.LockPath())
	if err != nil {
		return err
	}
	report, err := runner.ReadReport(history.Records, held)
	if err != nil {
		return &runner.UsageError{Err: err}
	}
	e := report.Explain(program, decisions)
	if held {
		e.Locked = holder.String()
	}
	if history.Torn != nil {
		e.Torn = history.Torn.String()
	}
	if frozen.Sandbox != "" {
		e.Sandbox = frozen.Sandbox
	}
	if a.json() {
		return a.answer(e)
	}
	a.lines(a.out, e.Lines())
	a.drift(frozen)
	return nil
}
