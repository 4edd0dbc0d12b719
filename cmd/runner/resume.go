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
	var approve, decide, override []string
	var reasonText string
	var yes, explain, amend bool
	var others observers
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run after a crash, a pause, an interruption or a failure",
		Long: `resume carries on with the plan that was started, from the journal's own copy: finished
steps do not run again, and a step that may have had its effect is asked for it first.
RUN is a run-id, the beginning of one, or last. Secrets are read again from their source.

Where the files of the runbook have changed since, the resume says what the difference means,
and goes on without it. --amend goes on by the files as they are now, where they differ in
steps that have not started alone; otherwise nothing is done (exit 2). An approval of a step
that is another one now does not count any more.

A step about which nobody can tell whether it was done stops the run in doubt (exit 3).
Look at the target, then decide: done (it was), redo (it was not: do it), fail (treat it
as failed). The reason is journaled.

A stop condition that had tripped must hold again before anything is changed; otherwise the
run stays paused (exit 4). --override goes on without it, and its reason is journaled: the
guard is passed over until it has held again, a max-age for the rest of the run.`,
		Example: `  runner resume last
  runner resume last --explain                 say what would happen, do nothing
  runner resume last --amend --reason "the other replica, CHG-1"
  runner resume 20261122-1114 --approve clean_up
  runner resume last --decide switch[slot=7]=done --reason "seen on the dashboard, CHG-1"
  runner resume last --override proxy_errors --reason "another tenant's, CHG-1"`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			if reasonText != "" && len(decide)+len(override) == 0 && !amend {
				return usage("--decide STEP=done --reason "+reasonText, "--reason says why of a decision, and there is none")
			}
			decisions, err := parseDecisions(decide, reasonText)
			if err != nil {
				return err
			}
			overrides, err := parseOverrides(override, reasonText)
			if err != nil {
				return err
			}
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			t, err := a.thaw(r)
			if err != nil {
				return err
			}
			files := a.filesNow(t)
			if explain {
				return a.explain(t, files, decisions)
			}
			req := runner.ResumeRequest{Decisions: decisions, Overrides: overrides}
			program := t.program
			if amend {
				if req.Amend, err = a.amendment(t, files, reasonText); err != nil {
					return err
				}
				if req.Amend != nil {
					program = req.Amend.Program
				}
			}
			if req.Approvals, err = a.approvals(program, approve, yes); err != nil {
				return err
			}
			return a.carryOn(t, files, req, &others)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&decide, "decide", nil, "decide about a step in doubt: STEP=done, STEP=redo or STEP=fail")
	f.StringArrayVar(&override, "override", nil, "go on although this guard does not hold, or the max-age of this group is over: GUARD or GROUP")
	f.StringVar(&reasonText, "reason", "", "why; journaled with each decision")
	f.BoolVar(&amend, "amend", false, "go on by the files as they are now, if only steps that have not started differ")
	f.BoolVar(&explain, "explain", false, "say what a resume would do, and do nothing")
	gateFlags(cmd, &approve, &yes)
	others.flags(cmd)
	return cmd
}

// thawed is a run with its frozen plan.
type thawed struct {
	run     *journal.Run
	frozen  *runner.Frozen
	catalog *runner.Catalog
	program *runner.Program
	inputs  *runner.Inputs
}

func (a *app) thaw(r *journal.Run) (*thawed, error) {
	t := &thawed{run: r, catalog: a.catalog()}
	var err error
	if t.frozen, err = runner.ReadFrozen(r); err != nil {
		return nil, err
	}
	t.program, t.inputs, err = t.frozen.Program(t.catalog)
	return t, err
}

// carryOn goes on with a run, to its end or the next stop.
func (a *app) carryOn(t *thawed, files *fileDrift, req runner.ResumeRequest, others *observers) error {
	if sandbox := t.frozen.Sandbox; sandbox != "" {
		return usage("start another: runner exec --sandbox="+shellWord(sandbox)+" "+shellWord(t.program.Root.Book.Path), "run %s was in a sandbox: its world ended with its process, and it is not resumed for real", t.run.ID)
	}
	ctx, stop := a.interruptible()
	defer stop()
	program, inputs, folder := t.program, t.inputs, ""
	if req.Amend != nil {
		program, inputs, folder = req.Amend.Program, req.Amend.Inputs, folderOf(within(t.frozen.Dir, t.frozen.Sources[0].Path))
	} else {
		a.tell(files, t)
	}
	cfg, err := a.config(ctx, folder)
	if err != nil {
		return err
	}
	if req.Amend == nil {
		cfg.Git = t.frozen.Git
	}
	var plan *runner.Plan // what comes next, on a screen that shows it
	if a.live(false) {
		if plan, _, err = runner.MakePlan(program, inputs, t.frozen.Selection); err != nil {
			return err
		}
	}
	view := a.view(plan, false)
	view.attach(&cfg)
	defer view.close()
	feed, err := a.observe(others, &cfg, program, inputs, t.frozen.Selection, false)
	if err != nil {
		return err
	}
	defer feed.Close()
	req.Run, req.Catalog = t.run, t.catalog
	result, err := runner.Resume(ctx, cfg, req)
	return a.conclude(view, nil, result, err)
}

// parseDecisions reads STEP=CHOICE; a path of a step may hold = as well.
func parseDecisions(texts []string, why string) ([]runner.Decision, error) {
	if len(texts) == 0 {
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

// What drift says of a run that is resumed.
const (
	runStarted = "the run started"
	frozenText = "the run goes on with its frozen text"
)

// parseOverrides reads what is to be passed over, each for the same reason.
func parseOverrides(guards []string, why string) ([]runner.Override, error) {
	if len(guards) > 0 && strings.TrimSpace(why) == "" {
		return nil, usage("--reason TEXT", "--override needs a reason, which is journaled with it")
	}
	var overrides []runner.Override
	for _, name := range guards {
		overrides = append(overrides, runner.Override{Guard: name, Reason: why})
	}
	return overrides, nil
}

// drift tells where files have changed since a plan was frozen, and what runs instead.
func (a *app) drift(f *runner.Frozen, since, instead string) {
	for _, s := range f.Sources {
		path := s.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(f.Dir, path)
		}
		now, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			fmt.Fprintf(a.err, "%s %s is gone; %s\n", a.paint(a.err, runner.Caution, "warning:"), s.Path, instead)
		case err != nil || bytes.Equal(now, []byte(s.Text)):
		default:
			fmt.Fprintf(a.err, "%s %s has changed since %s; %s, without these changes:\n", a.paint(a.err, runner.Caution, "warning:"), s.Path, since, instead)
			for _, line := range textDiff(s.Text, string(now)) {
				fmt.Fprintln(a.err, "  "+clean(line))
			}
		}
	}
}
