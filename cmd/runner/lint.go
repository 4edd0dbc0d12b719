package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func (a *app) lintCommand() *cobra.Command {
	var inventory string
	cmd := &cobra.Command{
		Use:   "lint RUNBOOK…",
		Short: "Find everything that is wrong with runbooks",
		Long: `lint reads runbooks with all the runbooks they use, and reports every finding at once.
No target is contacted. Errors give exit code 2; warnings alone give 0.`,
		Example: `  runner lint runbooks/*.yaml
  runner lint --inventory staging.yaml move-keys.yaml
  runner lint --output json move-keys.yaml | jq '.[].message'`,
		Args:              args(1, -1, "at least one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(_ *cobra.Command, paths []string) error {
			var inv *schema.Inventory
			findings := []schema.Finding{}
			if inventory != "" {
				text, err := os.ReadFile(inventory)
				if err != nil {
					return usage("", "read the inventory: %w", err)
				}
				var found []schema.Finding
				inv, found = schema.ParseInventory(inventory, text)
				findings = append(findings, found...)
			}
			catalog := a.catalog()
			for _, path := range paths {
				_, found := runner.Load(path, runner.LoadOptions{Catalog: catalog, Inventory: inv})
				findings = append(findings, found...)
			}
			findings = schema.Sort(findings)
			if a.json() {
				if err := a.answer(findings); err != nil {
					return err
				}
			} else {
				a.findings(a.out, findings)
				a.tally(findings)
			}
			if schema.Failed(findings) {
				return &ended{exitUsage}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&inventory, "inventory", "", "file of targets and inputs; its targets replace the runbooks'")
	return cmd
}

// tally counts findings, for a person.
func (a *app) tally(findings []schema.Finding) {
	errs, warnings := 0, 0
	for _, f := range findings {
		if f.Severity == schema.Error {
			errs++
		} else {
			warnings++
		}
	}
	if errs+warnings > 0 {
		fmt.Fprintf(a.err, "%s, %s\n", count(errs, "error"), count(warnings, "warning"))
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
