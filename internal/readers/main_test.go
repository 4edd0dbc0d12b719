package readers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"runbook/runner"
	"runbook/steps/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// need stops a test that cannot run for want of a program.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program)
	}
	return path
}

// needModule gives the path of a file of a package from npm.
func needModule(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("node_modules", path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, path)
	}
	return path
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("there is no %s: scripts/setup installs it", what)
	}
	t.Skipf("there is no %s here: scripts/setup installs it", what)
}

const runbooks = "../../runbooks"

// shipped are the runbooks that ship, those used as steps included.
func shipped(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.yaml", "lib/*.yaml"} {
		paths, err := filepath.Glob(filepath.Join(runbooks, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if !strings.HasSuffix(path, ".sandbox.yaml") {
				all = append(all, path)
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("there are no runbooks in %s", runbooks)
	}
	return all
}

// planOf plans a runbook with its defaults.
func planOf(t *testing.T, path string) *runner.Plan {
	t.Helper()
	p, findings := runner.Load(path, runner.LoadOptions{Catalog: runner.NewCatalog(catalog.Kinds(), catalog.Targets())})
	if p == nil {
		t.Fatal(findings)
	}
	in, findings, err := p.BindInputs(runner.GivenInputs{})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	plan, findings, err := runner.MakePlan(p, in, runner.Selection{})
	if err != nil || plan == nil {
		t.Fatal(err, findings)
	}
	return plan
}
