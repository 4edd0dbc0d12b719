package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func (a *app) execCommand() *cobra.Command {
	var g given
	var approve []string
	var yes, dry bool
	var box sandboxFlags
	var planFile string
	var others observers
	cmd := &cobra.Command{
		Use:   "exec RUNBOOK | exec --plan FILE",
		Short: "Check, plan and run a runbook",
		Long: `exec runs a runbook. Each thing it does is in the journal, durable, before it happens, so
after a crash, a failure or a pause ` + "`runner resume`" + ` goes on where it stopped.

The first SIGINT or SIGTERM stops: no new step starts, running ones get 10 s to settle. A
second one leaves at once; the journal makes that as safe as a power cut.

Gates ask on the terminal. Without one the run pauses (exit 4), unless the runbook has it
wait. ` + "`runner approve`" + ` and ` + "`runner reject`" + ` answer from other terminals, ` + "`runner pause`" + ` and
` + "`runner abort`" + ` stop the run from there. --approve answers a gate ahead; not one that asks
for two approvals or for text to be typed. --yes answers what a destructive kind asks by
itself, never a written confirm.

The run-id is the first line of standard output, whatever becomes of the run; the outputs
of the runbook follow when it has succeeded.

--plan FILE runs a plan that ` + "`runner plan --out FILE`" + ` has kept: its sources, inputs and
selection, whatever has become of the files. What was observed then is observed again: a
fact that has drifted is shown, old → new, and nothing is done (exit 2); the plan stays
good. A plan is good for one run, until it expires.

--sandbox runs in a simulated world of its own; nothing outside is touched. At its end the
world's invariants are checked against what its clients were told: one that is broken gives
exit code 1, also where the run succeeded. --speed is for waits: an hour at --speed 100 is
36 s. What is computed is not any faster, and counts many-fold against time limits: a
cut-over that has 3 s gets 150 ms of real time at --speed 20, too little on a machine with
much to do. Take a smaller speed where a step runs out of time.`,
		Example: `  runner exec --dry-run move-keys.yaml         look at the targets, change nothing
  runner exec move-keys.yaml -i slots=1-8 --as ana
  runner exec move-keys.yaml --to follow       the first part
  runner exec move-keys.yaml --approve switch --output json > events.jsonl
  runner plan --live --out move.json move-keys.yaml && runner exec --plan move.json
  runner exec --sandbox --speed 10 move-keys.yaml`,
		Args:              args(0, 1, "one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, paths []string) error {
			ctx, stop := a.interruptible()
			defer stop()
			l, err := a.pick(cmd, planFile, paths, &g, &box)
			if err != nil {
				return err
			}
			world := l.world
			approvals, err := a.approvals(l.program, approve, yes)
			if err != nil {
				return err
			}
			plan, findings, err := runner.MakePlan(l.program, l.inputs, l.selection)
			if err != nil {
				return err
			}
			if schema.Failed(findings) {
				return &runner.UsageError{Findings: findings}
			}
			a.findings(a.err, l.findings)
			if err := a.obey(plan); err != nil {
				return err
			}
			cfg, err := a.config(ctx, folderOf(l.book))
			if err != nil {
				return err
			}
			l.git(&cfg)
			if err := world.start(ctx, &cfg, dry); err != nil {
				return err
			}
			view := a.view(plan, dry)
			view.attach(&cfg)
			defer view.close()
			feed, err := a.observe(&others, &cfg, l.program, l.inputs, l.selection, dry)
			if err != nil {
				return err
			}
			defer feed.Close()
			result, err := runner.Execute(ctx, cfg, runner.Request{
				Program: l.program, Inputs: l.inputs, Selection: l.selection, Approvals: approvals, DryRun: dry, Sandbox: world.path(),
				Dir: l.dir, Saved: l.saved,
			})
			return a.conclude(view, world, result, err)
		},
	}
	g.flags(cmd, true)
	f := cmd.Flags()
	f.BoolVar(&dry, "dry-run", false, "look at the targets and say what would change; send nothing that changes anything")
	f.StringVar(&planFile, "plan", "", "run the plan kept in this file by runner plan --out")
	gateFlags(cmd, &approve, &yes)
	others.flags(cmd)
	box.flags(cmd)
	return cmd
}

func gateFlags(cmd *cobra.Command, approve *[]string, yes *bool) {
	cmd.Flags().StringArrayVar(approve, "approve", nil, "approve the gate of this step, or all; may be given often")
	cmd.Flags().BoolVar(yes, "yes", false, "answer yes to what destructive kinds ask by themselves")
	_ = cmd.RegisterFlagCompletionFunc("approve", completeSteps) // fails for an unknown flag alone
}

// approvals checks what --approve names: a step with a gate that may be answered ahead.
func (a *app) approvals(p *runner.Program, names []string, yes bool) (runner.Approvals, error) {
	gates := p.Gates()
	names = separate(names)
	for _, name := range names {
		if name == "all" {
			for _, id := range sorted(gates) {
				if why := gates[id].Refuses(); why != "" {
					return runner.Approvals{}, usage("name the others: "+aheadOf(gates), "--approve all: the gate of %s %s", id, why)
				}
			}
			continue
		}
		id := runner.StepID(name)
		g, ok := gates[id]
		if !ok {
			near, _ := schema.Nearest(id, sorted(gates))
			hint := "the steps with a gate are " + strings.Join(sorted(gates), ", ")
			if len(gates) == 0 {
				hint = "no step of this runbook has a gate"
			} else if near != "" {
				hint = "did you mean --approve " + near + "?"
			}
			return runner.Approvals{}, usage(hint, "--approve %s: no such gate", name)
		}
		if why := g.Refuses(); why != "" {
			hint := "without the flag it asks when it is reached, on the terminal or runner approve --retype TEXT"
			if g.Gate.Approvals > 1 {
				hint = "each of them answers for themselves: runner approve RUN STEP"
			}
			return runner.Approvals{}, usage(hint, "--approve %s: the gate %s", name, why)
		}
	}
	return runner.Approvals{Steps: names, Yes: yes}, nil
}

// separate splits a,b where the comma is not part of a path, such as move[item=a,b].
func separate(names []string) []string {
	var all []string
	for _, text := range names {
		depth, from := 0, 0
		for i, r := range text {
			switch {
			case r == '[':
				depth++
			case r == ']':
				depth--
			case r == ',' && depth == 0:
				all, from = append(all, text[from:i]), i+1
			}
		}
		all = append(all, text[from:])
	}
	return all
}

// aheadOf names the gates that a flag can answer, as flags.
func aheadOf(gates map[string]runner.GateOf) string {
	var words []string
	for _, id := range sorted(gates) {
		if gates[id].Refuses() == "" {
			words = append(words, "--approve "+id)
		}
	}
	if len(words) == 0 {
		return "no gate of this runbook can be answered ahead"
	}
	return strings.Join(words, " ")
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// conclude says how a run ended, and turns that into an exit code.
func (a *app) conclude(view *view, world *world, result *runner.Result, err error) error {
	view.close()
	if err != nil {
		world.stop()
		return err
	}
	view.end(result)
	seen := world.stop()
	if seen.words != "" {
		fmt.Fprintln(a.err, seen.words)
	}
	a.lines(a.err, seen.broken)
	code := result.Status.ExitCode()
	if len(seen.broken) > 0 && (result.Status == runner.Succeeded || result.Status == runner.Paused) {
		code = exitFailed // it went well for the runner, not for the clients
	}
	if code != exitDone {
		return &ended{code}
	}
	return nil
}

// sameSignal is the time within which a second signal is the first one again: timeout(1)
// sends its own to the process and to its group.
const sameSignal = 200 * time.Millisecond

// interruptible gives a context that the first signal cancels; the second ends the process.
// A terminal that goes away is a signal too; a reader of our output that goes away is none:
// a run must not die because somebody closed `| less`.
func (a *app) interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintf(logWriter{a}, "\n%v: no new step starts, running ones get 10 s to settle; once more to leave at once\n", s)
			cancel(runner.ErrInterrupted)
		case <-done:
			return
		}
		first := time.Now()
		for {
			select {
			case <-signals:
				if time.Since(first) > sameSignal {
					os.Exit(exitInterrupted)
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
