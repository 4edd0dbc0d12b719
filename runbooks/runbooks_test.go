package runbooks_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbook/runbooks"
	"runbook/runner"
	"runbook/schema"
	"runbook/steps/catalog"
)

// binary is the runner as a user has it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "runner")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "runner")
	build := exec.Command("go", "build", "-o", binary, "../cmd/runner")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func load(t *testing.T, name string) *runner.Program {
	t.Helper()
	p, findings := runner.Load(name+".yaml", runner.LoadOptions{Catalog: runner.NewCatalog(catalog.Kinds(), catalog.Targets())})
	for _, f := range findings {
		t.Error(f)
	}
	if p == nil {
		t.FailNow()
	}
	return p
}

func TestShippedRunbooksLintAndAreFormatted(t *testing.T) {
	for _, name := range runbooks.Names() {
		load(t, name)
		book, _, ok := runbooks.Read(name)
		if !ok {
			t.Errorf("%s has no world to be rehearsed in", name)
		}
		formatted, err := schema.Format(book)
		if err != nil || !bytes.Equal(book, formatted) {
			t.Errorf("%s is not as `runner fmt` writes it (%v)", name, err)
		}
	}
}

// The plans are what reviewers of a change to a shipped runbook see.
func TestShippedPlans(t *testing.T) {
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
		var b bytes.Buffer
		if err := plan.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		golden := name + ".plan.txt"
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s is stale (UPDATE=1 rewrites it):\n%s", golden, diff)
		}
	}
}

// Each runs in its world, under load, and no acknowledged write is lost.
func TestShippedRunbooksInTheSandbox(t *testing.T) {
	for _, name := range runbooks.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(binary, "exec", "--sandbox", "--approve", "all", "--state", t.TempDir(), name+".yaml")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			saw := regexp.MustCompile(`sandbox: ([0-9]+) writes acknowledged, 0 lost, 0 stale reads`).FindSubmatch(out)
			if saw == nil || string(saw[1]) == "0" {
				t.Errorf("the clients' ledger does not say that nothing was lost:\n%s", out)
			}
			t.Log(lastLine(out))
		})
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
