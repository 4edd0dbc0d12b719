package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
A directory stands for the runbooks below it (*.yaml, not *.sandbox.yaml). No target is
contacted. Errors give exit code 2; warnings alone give 0.`,
		Example: `  runner lint runbooks
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
					return usage("", "read the inventory %s: %w", inventory, reason(err))
				}
				var found []schema.Finding
				inv, found = schema.ParseInventory(inventory, text)
				findings = append(findings, found...)
			}
			paths, err := runbooksIn(paths)
			if err != nil {
				return err
			}
			catalog := a.catalog()
			told := map[string]bool{} // causes, of an earlier runbook
			for _, path := range paths {
				_, found := runner.Load(path, runner.LoadOptions{Catalog: catalog, Inventory: inv})
				found = slices.DeleteFunc(found, func(f schema.Finding) bool { return told[f.Cause] })
				for _, f := range found {
					told[f.Cause] = f.Cause != ""
				}
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

// runbooksIn replaces directories by the runbooks below them, in the order of their names.
func runbooksIn(paths []string) ([]string, error) {
	var all []string
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			all = append(all, path) // what cannot be read is a finding with a place
			continue
		}
		before := len(all)
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && file != path && strings.HasPrefix(d.Name(), "."):
				return filepath.SkipDir
			case !d.IsDir() && filepath.Ext(file) == ".yaml" && !strings.HasSuffix(file, ".sandbox.yaml"):
				all = append(all, file)
			}
			return nil
		})
		if err != nil {
			return nil, usage("", "look for runbooks in %s: %w", path, err)
		}
		if len(all) == before {
			return nil, usage("runner new NAME starts one", "there is no runbook (*.yaml) in %s", path)
		}
	}
	return all, nil
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
