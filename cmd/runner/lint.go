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
	var policies []string
	cmd := &cobra.Command{
		Use:   "lint RUNBOOK…",
		Short: "Find everything that is wrong with runbooks",
		Long: `lint reads runbooks with all the runbooks they use, and reports every finding at once.
A directory stands for the runbooks below it (*.yaml, not *.sandbox.yaml). No target is
contacted. Errors give exit code 2; warnings alone give 0.`,
		Example: `  runner lint runbooks
  runner lint --inventory staging.yaml move-keys.yaml
  runner lint --output json move-keys.yaml | jq '.[].message'
  runner lint --output github runbooks
  runner lint --output sarif runbooks > lint.sarif`,
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
			files, found, err := policyFiles(policies)
			if err != nil {
				return err
			}
			findings = append(append(findings, found...), runner.CheckPolicies(files)...)
			if paths, err = runbooksIn(paths); err != nil {
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
			if err := a.found(findings); err != nil {
				return err
			}
			if schema.Failed(findings) {
				return &ended{exitUsage}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&inventory, "inventory", "", "file of targets and inputs; its targets replace the runbooks'")
	policyFlag(cmd, &policies)
	a.forms(cmd, "text", "json", "sarif", "github")
	return cmd
}

// found answers with findings, in the form asked for.
func (a *app) found(findings []schema.Finding) error {
	switch a.output {
	case "json":
		return a.answer(findings)
	case "sarif":
		return schema.WriteSARIF(a.out, schema.Tool{Name: "runner", Version: version().Version, Rules: runner.Rules()}, inRepository(findings))
	case "github":
		return schema.WriteGitHub(a.out, inRepository(findings))
	}
	a.findings(a.out, findings)
	a.tally(findings)
	return nil
}

// inRepository gives findings with their paths from the root of the repository around the
// working directory, as review tools want them; one outside of it has its whole path.
func inRepository(findings []schema.Finding) []schema.Finding {
	here, err := os.Getwd()
	if err != nil {
		return findings
	}
	root := here
	for {
		if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
			break
		}
		parent := filepath.Dir(root)
		if parent == root {
			root = here // no repository: paths are from here
			break
		}
		root = parent
	}
	placed := slices.Clone(findings)
	for i := range placed {
		f := &placed[i]
		if f.Line == 0 {
			continue // of a flag, not of a file
		}
		path := f.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(here, path)
		}
		f.Path = path
		if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
			f.Path = rel
		}
	}
	return placed
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
