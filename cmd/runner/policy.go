package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func policyFlag(cmd *cobra.Command, paths *[]string) {
	cmd.Flags().StringArrayVar(paths, "policy", nil, "file of policies to ask of the plan too; may be given often")
}

// policyFiles reads files of policies.
func policyFiles(paths []string) ([]*schema.PolicyFile, []schema.Finding, error) {
	var files []*schema.PolicyFile
	var findings []schema.Finding
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, usage("", "read the policies %s: %w", path, reason(err))
		}
		file, found := schema.ParsePolicies(path, text)
		files, findings = append(files, file), append(findings, found...)
	}
	return files, findings, nil
}

// withPolicies is the program with the policies of files to be asked of its plan. Warnings are
// returned, errors of the files are a *runner.UsageError.
func (a *app) withPolicies(p *runner.Program, paths []string) (*runner.Program, []schema.Finding, error) {
	files, findings, err := policyFiles(paths)
	if err != nil {
		return nil, nil, err
	}
	asked, more := p.WithPolicies(files)
	if findings = schema.Sort(append(findings, more...)); schema.Failed(findings) {
		return nil, nil, &runner.UsageError{Findings: findings}
	}
	return asked, findings, nil
}

// obey tells what policies say of a plan: a warning is shown, a denial is the error.
func (a *app) obey(plan *runner.Plan) error {
	findings := plan.PolicyFindings()
	if !schema.Failed(findings) {
		a.findings(a.err, findings)
		return nil
	}
	return &runner.UsageError{Findings: findings, Err: errors.New("the plan is denied by policy: nothing was done"),
		Hint: "mend what it names; a built-in policy can be waived with a reason"}
}
