package main

import (
	"github.com/spf13/cobra"

	"runbook/steps/catalog"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a runbook, for editors",
		Example: `  runner schema > runbook.schema.json
  # and as the first line of a runbook:
  # yaml-language-server: $schema=runbook.schema.json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(catalog.Schema())
			return err
		},
	}
}
