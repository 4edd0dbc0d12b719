package runner

import (
	"testing"

	"runbook/schema"
)

// The runbook of the language's description binds; all that is said of it is what this binary does not do yet.
func TestExample(t *testing.T) {
	p, findings := Load("../testdata/scale-out.yaml", LoadOptions{Catalog: fakeCatalog()})
	for _, f := range findings {
		if f.Rule != "not-yet" && f.Rule != "unused-input" { // it declares from_group for its reader
			t.Errorf("%s", f)
		}
	}
	if p == nil {
		t.Fatal("there is no program")
	}
	if len(p.NotYet()) == 0 || schema.Failed(findings) {
		t.Error("lock.target, guards and approvals are not said to be missing")
	}
}
