package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
	"runbook/runner/page"
)

func (a *app) runsReport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "report RUN",
		Short: "Write one HTML page of a run, to read, print and keep",
		Long: `report writes a page of a run: what was asked and by whom, a picture of what happened when,
what waits saw, every command that was sent, approvals, decisions and errors, and whether
the journal is whole. It is one file that needs no script and no network. A run under way,
one that crashed and one that is over have a page each; a damaged journal gives the page of
what stands before the damage, which says so, and exit code 1.`,
		Example: `  runner runs report last > run.html
  runner runs report last --out run.html
  chromium --headless --print-to-pdf=run.pdf run.html`,
		Args:              args(1, 1, "one run"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, refs []string) error {
			r, err := a.find(refs[0])
			if err != nil {
				return err
			}
			in, err := a.page(r)
			if err != nil {
				return err
			}
			var text bytes.Buffer
			if err := page.Write(&text, in); err != nil {
				return err
			}
			if err := a.deliver(out, text.Bytes()); err != nil {
				return err
			}
			if !in.Sound {
				fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Bad, "error:"), clean(in.Verdict))
				return &ended{exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, replaced whole; without it the page goes to standard output")
	return cmd
}

// page gathers what a page is made of.
func (a *app) page(r *journal.Run) (page.Input, error) {
	_, live, err := journal.Inspect(r.LockPath())
	if err != nil {
		return page.Input{}, err
	}
	h, err := journal.Read(r.JournalPath())
	damage, damaged := errors.AsType[*journal.DamageError](err)
	if err != nil && (!damaged || len(h.Records) == 0) {
		return page.Input{}, &runner.UsageError{Err: err, Hint: "runner runs verify " + r.ID}
	}
	in := page.Input{Records: h.Records, Sound: true}
	if in.Report, err = runner.ReadReport(h.Records, live); err != nil {
		return page.Input{}, err
	}
	in.Plan, err = runner.ReadFrozen(r)
	switch {
	case damaged:
		in.Sound, in.Verdict = false, fmt.Sprintf("damaged: what stands from line %d on cannot be trusted and is not shown (%s)", damage.Line, damage.Reason)
	case err != nil:
		in.Sound, in.Verdict = false, "whole, but "+err.Error()
	case in.Plan.Digest != in.Report.Plan:
		in.Sound, in.Verdict = false, fmt.Sprintf("whole, but plan.json holds another plan (%.12s) than was started", in.Plan.Digest)
	default:
		in.Verdict = fmt.Sprintf("whole: the chain of all %d records is unbroken. Head %s", len(h.Records), h.Head)
		if h.Torn != nil {
			in.Verdict += "; " + h.Torn.String() + ", the trace of a crash or a line being written"
		}
	}
	return in, nil
}

// deliver writes an answer to a file, whole or not at all, or to standard output.
func (a *app) deliver(path string, text []byte) error {
	if path == "" {
		_, err := a.out.Write(text)
		return err
	}
	return replace(path, text)
}
