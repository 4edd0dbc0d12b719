package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
)

func (a *app) approveCommand() *cobra.Command {
	cmd := a.verdictCommand(true)
	cmd.Use, cmd.Short = "approve RUN STEP", "Approve a gate of a run, from any terminal of the host"
	cmd.Long = `approve answers yes to what a step asks before it acts. A run whose process is there goes on
at once; one that has left (exit 4) or died goes on with it at the next resume.

Look first: ` + "`runner runs show RUN`" + ` tells what is asked, the values shown and what will be
sent. An approval is of that: it is void where the step, or what it shows, is another by
the time it would act.

Where several people must approve, each does so for themselves: they are told apart by
their uid, and whoever started the run does not count. With RUNNER_OPERATOR_TRUSTED=1 the
name (--as) tells them apart. It is a record, not a login.`
	cmd.Example = `  runner approve last switch
  runner approve 20261122-1114 'move[slot=7]/ask' --as ben --reason CHG-20417
  runner approve last clean_up --retype pika1`
	return cmd
}

func (a *app) rejectCommand() *cobra.Command {
	cmd := a.verdictCommand(false)
	cmd.Use, cmd.Short = "reject RUN STEP", "Refuse a gate of a run, from any terminal of the host"
	cmd.Long = `reject answers no: the step fails, and what the runbook says about its failure happens. One
no is enough, also where several people must approve, and whoever started the run may say
it. A run that has failed of it can be resumed: the gate asks again.`
	cmd.Example = `  runner reject last switch --reason "lag is growing"`
	return cmd
}

func (a *app) verdictCommand(approved bool) *cobra.Command {
	var v runner.Verdict
	cmd := &cobra.Command{
		Args:              args(2, 2, "a run and a step"),
		ValidArgsFunction: a.completeGates,
		RunE: func(_ *cobra.Command, args []string) error {
			v.Step, v.Approved = args[1], approved
			r, err := a.find(args[0])
			if err != nil {
				return err
			}
			ctx, stop := a.interruptible()
			defer stop()
			cfg, err := a.config(ctx, "")
			if err != nil {
				return err
			}
			d, err := runner.Decide(ctx, cfg, r, a.catalog(), v)
			if err != nil {
				return err
			}
			if a.json() {
				return a.answer(d)
			}
			a.decided(d)
			return nil
		},
	}
	cmd.Flags().StringVar(&v.Reason, "reason", "", "why; journaled")
	if approved {
		cmd.Flags().StringVar(&v.Retype, "retype", "", "the text that the gate asks to be typed")
	}
	return cmd
}

// decided says what became of a gate.
func (a *app) decided(d *runner.Decided) {
	line := runner.Line{Tone: runner.Good, Text: fmt.Sprintf("%s of run %s: approved by %s", d.Step, d.Run, d.By)}
	then := "the run goes on"
	switch {
	case !d.Approved:
		line = runner.Line{Tone: runner.Bad, Text: fmt.Sprintf("%s of run %s: refused by %s", d.Step, d.Run, d.By)}
		then = "the step fails"
	case !d.Done:
		then = fmt.Sprintf("%d of %d approvals (%s)", len(d.Given), d.Needed, strings.Join(d.Given, ", "))
	}
	if d.Live || !d.Done {
		line.Text += "; " + then
	}
	lines := []runner.Line{line}
	if d.Done && !d.Live {
		lines = append(lines, runner.Line{Text: "to go on: runner resume " + d.Run})
	}
	a.lines(a.out, lines)
}

// completeGates offers the runs, then the open gates of the one that is named.
func (a *app) completeGates(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeRuns(cmd, args, prefix)
	}
	var open []string
	store := a.store()
	if r, err := store.Find(args[0]); err == nil && len(args) == 1 {
		if report, _, err := a.report(r); err == nil {
			for _, g := range report.Gates {
				if !g.Decided {
					open = append(open, g.Step)
				}
			}
		}
	}
	return open, cobra.ShellCompDirectiveNoFileComp
}

// now asks the process that works on a run what it knows beyond its journal; nil: there is none, or it does not say.
func (a *app) now(r *journal.Run) *runner.Live {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	answer, err := runner.Control(ctx, r, runner.ControlRequest{Command: "show"})
	if err != nil {
		return nil //nolint:nilerr // the journal tells the rest
	}
	return answer.Live
}
