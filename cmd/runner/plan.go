package main

import (
	"github.com/spf13/cobra"
)

func (a *app) planCommand() *cobra.Command {
	var g given
	var f liveFlags
	var check string
	cmd := &cobra.Command{
		Use:   "plan RUNBOOK",
		Short: "Say what would run: each step with its commands, effect, guards and undo",
		Long: `plan says what exec would do, in order, without contacting a target or reading a secret.
What only a run can know is shown as (after STEP). The text has one fact a line and is the
same on every machine and every day: it can be reviewed, committed and compared. It changes
when the plan does and not with a comment, so the digest that runs and approvals name is in
the JSON alone. Markdown is for a pull request, and fits into a comment.

--check FILE is for CI: it compares the plan with one that lies beside the runbook, shows the
difference and gives exit code 2 where that is stale. To write FILE, redirect the output.

Policies are asked of the plan: the runbook's, those of --policy FILE, and built-in ones of
every runbook that destroys something or moves traffic. What they say stands in the plan; one
that denies it gives exit code 2, for exec too. See docs/policy.md.

--live asks the targets, by reads alone, what is already so: each step says what was
observed (already so, would change with before → after, conditions with the values of their
parts), or why that is unknown. A step that is known to fail gives exit code 1.

--out FILE keeps the plan, with what was observed, for one run: ` + "`runner exec --plan FILE`" + `
observes it again, and refuses where a fact has drifted. It holds no secret. It expires
after --expires.`,
		Example: `  runner plan move-keys.yaml
  runner plan move-keys.yaml -i slots=512-600 --inventory production.yaml
  runner plan move-keys.yaml --from follow --to compare
  runner plan move-keys.yaml > move-keys.plan.txt
  runner plan --check move-keys.plan.txt move-keys.yaml
  runner plan --output markdown move-keys.yaml
  runner plan --policy team.yaml move-keys.yaml
  runner plan --live move-keys.yaml
  runner plan --live --out move.json --expires 2h move-keys.yaml
  runner plan --output json move-keys.yaml | jq '.summary'`,
		Args:              args(1, 1, "one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, paths []string) error {
			if check != "" && (f.live || f.out != "") {
				return usage("leave out --check", "--check is of a plan that asks no target: what they say changes from run to run")
			}
			p, err := a.plan(cmd, paths[0], &g, &f)
			if err != nil {
				return err
			}
			a.findings(a.err, p.findings)
			if err := a.writePlan(cmd, p.plan, check); err != nil {
				return err
			}
			if err := a.obey(p.plan); err != nil {
				return err
			}
			return a.keep(p, f.out)
		},
	}
	g.flags(cmd, true)
	f.flags(cmd)
	a.forms(cmd, "text", "markdown", "json")
	cmd.Flags().StringVar(&check, "check", "", "compare with this file, a plan that was written before; exit 2 where it is stale")
	return cmd
}
