package main

import (
	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func (a *app) graphCommand() *cobra.Command {
	var g given
	var depth int
	cmd := &cobra.Command{
		Use:   "graph RUNBOOK",
		Short: "Draw the plan: steps as boxes, their effect as shape",
		Long: `graph draws what plan says: groups and runbooks as frames, branches of a parallel group
side by side, each effect as a shape of its own, and gates, so that a reviewer sees the
whole at a glance. No target is contacted. A loop or fan-out is one box with its count,
three reads or more in a row are one box, and what is deeper than --depth is one box with
the number of its steps. A legend says what the shapes mean.`,
		Example: `  runner graph move-keys.yaml > move-keys.mmd
  runner graph move-keys.yaml --depth 1
  runner graph --output dot move-keys.yaml | dot -Tsvg > move-keys.svg`,
		Args:              args(1, 1, "one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(_ *cobra.Command, paths []string) error {
			if depth < 0 {
				return usage("--depth 0 draws no group open", "--depth is a number of groups, not %d", depth)
			}
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
			if a.output == "dot" {
				return plan.Graph(depth).WriteDOT(a.out)
			}
			return plan.Graph(depth).WriteMermaid(a.out)
		},
	}
	g.flags(cmd, true)
	cmd.Flags().IntVar(&depth, "depth", runner.GraphDepth, "how many groups within each other are drawn open")
	a.forms(cmd, "mermaid", "dot")
	return cmd
}
