package main

import (
	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/steps/catalog"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [plan]",
		Short: "Print the JSON Schema of a runbook, for editors, or of a plan",
		Long: `schema prints the JSON Schema of a runbook, which editors complete and check from.
With plan it is that of what ` + "`runner plan --output json`" + ` answers: fields may be added to
it, and none is renamed or taken away.`,
		Example: `  runner schema > runbook.schema.json
  # and as the first line of a runbook:
  # yaml-language-server: $schema=runbook.schema.json
  runner schema plan > plan.schema.json`,
		ValidArgs: []string{"plan"},
		Args:      args(0, 1, "at most one word: plan"),
		RunE: func(_ *cobra.Command, of []string) error {
			text := catalog.Schema
			if len(of) == 1 {
				if of[0] != "plan" {
					return usage("runner schema, or runner schema plan", "there is no schema of %q", of[0])
				}
				text = runner.PlanSchema
			}
			_, err := a.out.Write(text())
			return err
		},
	}
}
