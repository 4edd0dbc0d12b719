package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
)

func (a *app) pauseCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "pause RUN",
		Short: "Stop a running run so that it can be resumed, from any terminal of the host",
		Long: `pause does to a run what Ctrl-C does, from another terminal: no new step starts, those that
run get 10 s to settle, nothing is undone, finally does not run. Its process ends with exit
4, and ` + "`runner resume`" + ` goes on where it stopped. Who paused it, and why, is in the journal.`,
		Example: `  runner pause last --reason "the network team is at work until 3"
  runner pause 20261122-1114 && runner runs show 20261122-1114`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			err = a.order(r, "pause", why)
			if errors.Is(err, runner.ErrNotLive) {
				return usage("runner runs show "+r.ID, "run %s is not running: there is nothing to pause", r.ID)
			}
			if err != nil {
				return err
			}
			return a.awaited(r, "pause", "run "+r.ID+" is being paused: what runs settles, which may take 10 s and more")
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why; journaled")
	return cmd
}

func (a *app) abortCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "abort RUN",
		Short: "End a run for good: finally runs, and nothing else of it any more",
		Long: `abort ends a run: no new step starts, those that run get 10 s to settle; then finally runs,
temporary settings (restore: end) are put back, and the run is over: it is not resumed any
more. Nothing is rolled back: what the steps changed stays.

A run whose process is gone (paused, interrupted, failed, in doubt, crashed) is ended by
this process: it takes the run's lock, runs finally and says so; exit 1, as of every run
that was aborted.`,
		Example: `  runner abort last --reason "wrong cluster"
  runner abort 20261122-1114 --as ben`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			err = a.order(r, "abort", why)
			if errors.Is(err, runner.ErrNotLive) {
				t, err := a.thaw(r)
				if err != nil {
					return err
				}
				return a.carryOn(t, a.filesNow(t), runner.ResumeRequest{Abort: &runner.Abort{Reason: why}}, &observers{})
			}
			if err != nil {
				return err
			}
			return a.awaited(r, "abort", "run "+r.ID+" is being aborted: what runs settles, then finally runs")
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why; journaled")
	return cmd
}

// order tells the process that works on a run what to do.
func (a *app) order(r *journal.Run, command, why string) error {
	op, err := a.operator()
	if err != nil {
		return err
	}
	_, err = runner.Control(context.Background(), r, runner.ControlRequest{Command: command, Operator: op, Reason: why})
	return err
}

// endsWithin is how long pause and abort stay to see the process go.
const endsWithin = 15 * time.Second

// awaited waits for the process of a run to end, and says how it ended, or that it is not over yet.
func (a *app) awaited(r *journal.Run, order, still string) error {
	gone, err := runner.AwaitEnd(context.Background(), r, endsWithin)
	if err != nil {
		return err
	}
	report, live, err := a.report(r)
	if err != nil {
		return a.damaged(r, err)
	}
	status := statusOf(report, live)
	if a.json() {
		return a.answer(map[string]string{"run": r.ID, "order": order, "status": status})
	}
	if !gone {
		fmt.Fprintf(a.out, "%s\nhelp: %s\n", still, a.placed("runner runs show "+r.ID))
		return nil
	}
	a.lines(a.out, report.Summary(live))
	return nil
}
