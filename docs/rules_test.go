package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"runbook/runner"
)

// The page of the rules is the list that lint and SARIF have.
func TestRulesAreCurrent(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Rules of lint\n\n<!-- Generated: UPDATE=1 go test ./docs -->\n\n" +
		"What `runner lint` looks for. The name of a rule stands behind each finding, in `--output json` as `rule`, and in\n" +
		"[SARIF and annotations](ci.md). How findings look is said in [the language](language.md).\n\n| rule | |\n|---|---|\n")
	for _, r := range runner.Rules() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", r.Name, strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(r.Doc))
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile("rules.md", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "rules.md") != b.String() {
		t.Error("rules.md is stale: run UPDATE=1 go test ./docs")
	}
}
