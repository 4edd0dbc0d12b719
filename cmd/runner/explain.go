package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"runbook/runner"
	"runbook/runner/diff"
	"runbook/runner/journal"
	"runbook/schema"
)

// explained is the answer of `resume --explain`. Names of fields stay.
type explained struct {
	runner.Explanation
	Files *fileDrift `json:"files,omitempty"` // where they are not what was frozen
}

// fileDrift is how the files of a run differ from its frozen plan.
type fileDrift struct {
	Changed []changedFile `json:"changed"`
	// Changes are what the difference means; absent where Refused says why that cannot be told.
	Changes []diff.Change `json:"changes,omitempty"`
	Refused string        `json:"refused,omitempty"`
	// Amend says that --amend would take the files; Offences why it would not.
	Amend    bool             `json:"amend"`
	Offences []runner.Offence `json:"offences,omitempty"`

	program *runner.Program // of the files as they are now; nil: they cannot be read
	inputs  *runner.Inputs
	err     error // why
}

type changedFile struct {
	Path string `json:"path"`
	Gone bool   `json:"gone,omitempty"`

	was, now string
}

// explain says what a resume would do.
func (a *app) explain(t *thawed, files *fileDrift, decisions []runner.Decision) error {
	history, err := journal.Read(t.run.JournalPath())
	if err != nil {
		return &runner.UsageError{Err: err, Hint: "runner runs verify " + t.run.ID}
	}
	holder, held, err := journal.Inspect(t.run.LockPath())
	if err != nil {
		return err
	}
	report, err := runner.ReadReport(history.Records, held)
	if err != nil {
		return &runner.UsageError{Err: err}
	}
	e := report.Explain(t.program, decisions)
	if held {
		e.Locked = holder.String()
	}
	if history.Torn != nil {
		e.Torn = history.Torn.String()
	}
	if t.frozen.Sandbox != "" {
		e.Sandbox = t.frozen.Sandbox
	}
	if !held && !e.Over && e.Sandbox == "" {
		if err := a.ask(&e, t, history.Records); err != nil {
			return err
		}
	}
	if files != nil && files.program != nil {
		err := runner.Amendable(history.Records, t.program, t.inputs, &runner.Amendment{Program: files.program, Inputs: files.inputs})
		files.amendable(err)
	}
	if a.json() {
		return a.answer(explained{e, files})
	}
	a.lines(a.out, e.Lines())
	if !e.Over && e.Sandbox == "" {
		a.tell(files, t)
		a.amends(files)
	}
	return nil
}

// amendable keeps what was said of an amendment.
func (d *fileDrift) amendable(err error) {
	d.Amend = err == nil
	if refused, ok := errors.AsType[*runner.AmendError](err); ok {
		d.Offences = refused.Offences
	} else if err != nil {
		d.Offences = []runner.Offence{{Why: err.Error()}}
	}
}

// amends says what would become of an amendment.
func (a *app) amends(d *fileDrift) {
	switch {
	case d == nil || d.program == nil:
	case d.Amend:
		fmt.Fprintln(a.err, "--amend would take these changes: what has started is the same")
	default:
		fmt.Fprintln(a.err, "--amend would refuse them:")
		for _, o := range d.Offences {
			fmt.Fprintf(a.err, "  %s\n", clean(o.String()))
		}
	}
}

// amendment makes another plan of the files as they are now; nil: they are what was frozen.
func (a *app) amendment(t *thawed, d *fileDrift, reason string) (*runner.Amendment, error) {
	switch {
	case d == nil:
		fmt.Fprintln(a.err, "nothing to amend: the files are what was frozen")
		return nil, nil
	case d.err != nil:
		return nil, d.err
	}
	fmt.Fprintln(a.err, "the runbook has changed since the run started; what that means:")
	a.meant(d.Changes)
	plan, findings, err := runner.MakePlan(d.program, d.inputs, t.frozen.Selection)
	if err != nil {
		return nil, err
	}
	if schema.Failed(findings) {
		return nil, &runner.UsageError{Findings: findings}
	}
	if err := a.obey(plan); err != nil {
		return nil, err
	}
	amended := &runner.Amendment{Program: d.program, Inputs: d.inputs, Reason: reason}
	for i := range d.Changes {
		amended.Changes = append(amended.Changes, d.Changes[i].Finding().Message)
	}
	return amended, nil
}

// ask asks the targets what they say of the run.
func (a *app) ask(e *runner.Explanation, t *thawed, records []journal.Record) error {
	ctx, stop := a.interruptible()
	defer stop()
	cfg, err := a.config(ctx, "")
	if err != nil {
		return err
	}
	return e.Ask(ctx, cfg, runner.ExplainRequest{Run: t.run, Frozen: t.frozen, Program: t.program, Inputs: t.inputs, Records: records})
}

// filesNow compares the files with the frozen plan; nil: they are what was frozen.
func (a *app) filesNow(t *thawed) *fileDrift {
	d := &fileDrift{}
	for _, s := range t.frozen.Sources {
		now, err := os.ReadFile(within(t.frozen.Dir, s.Path))
		switch {
		case errors.Is(err, os.ErrNotExist):
			d.Changed = append(d.Changed, changedFile{Path: s.Path, Gone: true})
		case err != nil || bytes.Equal(now, []byte(s.Text)):
		default:
			d.Changed = append(d.Changed, changedFile{Path: s.Path, was: s.Text, now: string(now)})
		}
	}
	if len(d.Changed) == 0 {
		return nil
	}
	if d.program, d.inputs, d.err = t.frozen.FilesNow(t.catalog, os.ReadFile); d.err != nil {
		d.Refused = d.err.Error()
		if usage, ok := errors.AsType[*runner.UsageError](d.err); ok && len(usage.Findings) > 0 {
			f := usage.Findings[0]
			d.Refused = fmt.Sprintf("%s:%d:%d: %s", f.Path, f.Line, f.Column, f.Message)
		}
		return d
	}
	d.Changes = diff.Compare(diff.Side{Program: t.program, Inputs: t.inputs.Values}, diff.Side{Program: d.program, Inputs: d.inputs.Values})
	return d
}

// tell says where files have changed since the run started, and what that means: it runs
// as it was frozen.
func (a *app) tell(d *fileDrift, t *thawed) {
	a.drift(t.frozen, runStarted, frozenText)
	switch {
	case d == nil:
	case d.err != nil:
		fmt.Fprintf(a.err, "  what that means cannot be told: %s\n", clean(d.Refused))
	default:
		fmt.Fprintln(a.err, "what that means:")
		a.meant(d.Changes)
	}
}

// meant says what a change of the runbook means, beside the answer.
func (a *app) meant(changes []diff.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(a.err, "  the same")
		return
	}
	_ = diff.WriteText(a.err, changes, func(l diff.Level, text string) string { return a.paint(a.err, levelTones[l], text) })
}
