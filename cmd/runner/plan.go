package main

import (
	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func (a *app) planCommand() *cobra.Command {
	var g given
	cmd := &cobra.Command{
		Use:   "plan RUNBOOK",
		Short: "Say what would run: each step with its commands, effect, guards and undo",
		Long: `plan says what exec would do, in order, without contacting a target or reading a secret.
What only a run can know is shown as (after STEP). The text is the same on every machine
and every day, so it can be reviewed, committed and compared.`,
		Example: `  runner plan move-keys.yaml
  runner plan move-keys.yaml -i slots=512-600 --inventory production.yaml
  runner plan move-keys.yaml --from follow --to compare
  runner plan --output json move-keys.yaml | jq '.summary'`,
		Args:              args(1, 1, "one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(_ *cobra.Command, paths []string) error {
			l, err := a.load(paths[0], &g, nil)
			if err != nil {
				return err
			}
			plan, findings, err := runner.MakePlan(l.program, l.inputs, g.selection)
			if err != nil {
				return err
			}
			if schema.Failed(findings) {
				return &runner.UsageError{Findings: findings}
			}
			a.findings(a.err, l.findings)
			if a.json() {
				return a.answer(plan)
			}
			return plan.WriteText(a.out)
		},
	}
	g.flags(cmd, true)
	return cmd
}
