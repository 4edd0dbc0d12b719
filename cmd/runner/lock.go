package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"runbook/runner"
)

func (a *app) lockCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "lock",
		Short: "Look at locks, and release a claim that was left behind",
		Long: `lock tells who works on what: the lock of a runbook keeps a second run off the thing of its
name. Without a runbook it is about the files of the state directory; with one, about those
that its lock's target keeps as well (list), or instead (release). --target names another.`,
		Example: `  runner lock list
  runner lock list scale-out.yaml --inventory prod.yaml
  runner lock release codis/demo --reason "ana's laptop is gone, CHG-20417"`,
	})
	cmd.AddCommand(a.lockList(), a.lockRelease())
	return cmd
}

func (a *app) lockList() *cobra.Command {
	var g given
	var target string
	cmd := &cobra.Command{
		Use:   "list [RUNBOOK]",
		Short: "List the locks that are held or claimed",
		Long: `list shows each lock that is held (a process has it) or claimed (hold: run keeps it for a
run that is paused or has stopped), with the run, the last step that was about to change
something, since when, and who. A lock that nobody has is not shown.`,
		Example:           "  runner lock list\n  runner lock list scale-out.yaml --inventory prod.yaml --output json",
		Args:              args(0, 1, "one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(_ *cobra.Command, paths []string) error {
			ctx, stop := a.interruptible()
			defer stop()
			cfg, at, err := a.lockPlace(ctx, paths, &g, target)
			if err != nil {
				return err
			}
			locks, err := runner.Locks(ctx, cfg, at)
			if err != nil {
				return err
			}
			if a.json() {
				return a.answer(locks)
			}
			a.locks(locks)
			return nil
		},
	}
	lockFlags(cmd, &g, &target)
	return cmd
}

func lockFlags(cmd *cobra.Command, g *given, target *string) {
	g.flags(cmd, false)
	cmd.Flags().StringVar(target, "target", "", "target of the runbook that keeps locks; that of its lock where this is not given")
}

// lockPlace is the target that is meant; nil: the state directory.
func (a *app) lockPlace(ctx context.Context, paths []string, g *given, target string) (runner.Config, *runner.LockPlace, error) {
	cfg, err := a.config(ctx, "")
	if err != nil {
		return cfg, nil, err
	}
	if len(paths) == 0 {
		if target != "" || g.inventory != "" {
			return cfg, nil, usage("name the runbook that declares it", "a target belongs to a runbook, and there is none")
		}
		return cfg, nil, nil
	}
	l, err := a.load(paths[0], g, nil)
	if err != nil {
		return cfg, nil, err
	}
	return cfg, &runner.LockPlace{Program: l.program, Inputs: l.inputs, Target: target}, nil
}

// locks writes a table: a header, then a line each, columns two spaces apart or more.
func (a *app) locks(locks []runner.LockInfo) {
	if len(locks) == 0 {
		return
	}
	rows := [][]string{{"LOCK", "STATE", "SINCE", "RUN", "STEP", "HOLDER"}}
	for _, l := range locks {
		name, state := l.Name, "held"
		if l.Target != "" {
			name += " on " + l.Target
		}
		if !l.Live {
			state = "claimed"
		}
		since := ""
		if !l.Holder.Since.IsZero() {
			since = l.Holder.Since.Local().Format(time.RFC3339)
		}
		who := l.Holder.Operator
		if l.Holder.Host != "" {
			who = strings.TrimSpace(fmt.Sprintf("%s on %s", who, l.Holder.Host))
		}
		if l.Live && l.Holder.PID != 0 {
			who += fmt.Sprintf(", pid %d", l.Holder.PID)
		}
		rows = append(rows, []string{name, state, since, l.Holder.Run, l.Holder.Step, who})
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			row[i] = cmp.Or(clean(row[i]), "-")
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for n, row := range rows {
		for i, text := range row {
			tone, pad := runner.Plain, ""
			switch {
			case n == 0:
				tone = runner.Faint
			case i == 1:
				tone = runner.Caution
			}
			if i < len(row)-1 {
				pad = strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)+2)
			}
			fmt.Fprint(a.out, a.paint(a.out, tone, text), pad)
		}
		fmt.Fprintln(a.out)
	}
}

func (a *app) lockRelease() *cobra.Command {
	var g given
	var target, reason string
	cmd := &cobra.Command{
		Use:   "release NAME [RUNBOOK]",
		Short: "Take away the claim of a run that will not go on",
		Long: `release takes away the claim that a lock with hold: run keeps for a run that is not over. It
is for a run that nobody can resume or abort any more; ` + "`runner abort RUN`" + ` is the better end
of one that is at hand: it puts back what was temporary.

Only a claim is released. A lock that a process has is refused (exit 5), on this host or
another, and so is one whose run is under way. Where the run's journal is here, who released
it and why is written into it. A run that goes on later takes the lock anew, if it is free.`,
		Example: `  runner lock release codis/demo --reason "its state directory is lost, CHG-20417"
  runner lock release codis/demo scale-out.yaml --reason "…"`,
		Args: args(1, 2, "the name of a lock"),
		RunE: func(_ *cobra.Command, given []string) error {
			ctx, stop := a.interruptible()
			defer stop()
			cfg, at, err := a.lockPlace(ctx, given[1:], &g, target)
			if err != nil {
				return err
			}
			done, err := runner.ReleaseLock(ctx, cfg, at, given[0], reason)
			if err != nil {
				return err
			}
			if a.json() {
				return a.answer(done)
			}
			line := fmt.Sprintf("released %s, which run %s had claimed", done.Name, done.Run)
			if !done.Journaled {
				line += "; its journal is not here, so nothing tells that but this line"
			}
			a.lines(a.out, []runner.Line{{Text: line}})
			return nil
		},
	}
	lockFlags(cmd, &g, &target)
	cmd.Flags().StringVar(&reason, "reason", "", "why; journaled in the run that the claim is of")
	return cmd
}
