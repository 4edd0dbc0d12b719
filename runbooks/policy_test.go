package runbooks_test

import (
	"testing"

	"runbook/runbooks"
	"runbook/runner"
)

// What ships keeps to the built-in policies, or says why it does not.
func TestShippedRunbooksKeepToPolicies(t *testing.T) {
	for _, name := range runbooks.Names() {
		p := load(t, name)
		inputs, findings, err := p.BindInputs(runner.GivenInputs{})
		if err != nil || len(findings) > 0 {
			t.Fatal(findings, err)
		}
		plan, _, err := runner.MakePlan(p, inputs, runner.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range plan.PolicyFindings() {
			t.Error(f)
		}
		for _, v := range plan.Policies {
			t.Logf("%s: %s %s: %s", name, v.Verdict, v.Name, v.Reason)
		}
	}
}
