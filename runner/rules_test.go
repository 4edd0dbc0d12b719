package runner

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"runbook/schema"
)

// mistaken are the files of both lint corpora that have findings.
func mistaken(t *testing.T) map[string][]schema.Finding {
	t.Helper()
	all := map[string][]schema.Finding{}
	for _, folder := range []string{"schema", "runner"} {
		paths, err := filepath.Glob("../testdata/lint/" + folder + "/err/*.yaml")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files in %s: %v", folder, err)
		}
		for _, path := range paths {
			all[path] = lintFile(t, path, nil)
		}
	}
	return all
}

// lintFile lints a file, with another text in its place where one is given.
func lintFile(t *testing.T, path string, text []byte) []schema.Finding {
	t.Helper()
	_, findings := Load(path, LoadOptions{Catalog: fakeCatalog(), ReadFile: func(name string) ([]byte, error) {
		if name == path && text != nil {
			return text, nil
		}
		return os.ReadFile(name)
	}})
	return findings
}

// Every rule that lint can name is explained.
func TestRulesAreListed(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Rules() {
		if names[r.Name] {
			t.Errorf("%s is listed twice", r.Name)
		}
		names[r.Name] = true
		if !strings.HasSuffix(r.Doc, ".") {
			t.Errorf("%s: %q is no sentence", r.Name, r.Doc)
		}
	}
	if !slices.IsSortedFunc(Rules(), func(a, b schema.Rule) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the rules are not in the order of their names")
	}
	for path, findings := range mistaken(t) {
		for _, f := range findings {
			if !names[f.Rule] {
				t.Errorf("%s: the rule %s is not in Rules", path, f.Rule)
			}
		}
	}
}

// A fix in SARIF mends what its finding is about.
func TestFixesAreExact(t *testing.T) {
	fixed := map[string]int{}
	for path, findings := range mistaken(t) {
		var log struct {
			Runs []struct {
				Results []struct {
					Fixes []struct {
						ArtifactChanges []struct {
							Replacements []struct{ InsertedContent struct{ Text string } }
						}
					}
				}
			}
		}
		var b bytes.Buffer
		if err := schema.WriteSARIF(&b, schema.Tool{Name: "runner", Rules: Rules()}, findings); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b.Bytes(), &log); err != nil {
			t.Fatal(err)
		}
		for i, result := range log.Runs[0].Results {
			f := findings[i]
			if len(result.Fixes) == 0 || f.Path != path {
				continue
			}
			fixed[f.Rule]++
			text := replaced(t, path, f, result.Fixes[0].ArtifactChanges[0].Replacements[0].InsertedContent.Text)
			for _, left := range lintFile(t, path, text) {
				if left.Line == f.Line && left.Column == f.Column && left.Severity == schema.Error {
					t.Errorf("%s\nwith %s: %s", f, f.Suggestion, left)
				}
			}
		}
	}
	for _, r := range Rules() {
		if r.Exact && fixed[r.Name] == 0 {
			t.Errorf("no file has a fix of rule %s", r.Name)
		}
	}
}

// replaced gives a file with a text in the place of a finding, which is within one line.
func replaced(t *testing.T, path string, f schema.Finding, by string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n") // a byte order mark has no column
	line := []rune(lines[f.Line-1])
	lines[f.Line-1] = string(line[:f.Column-1]) + by + string(line[f.EndColumn-1:])
	return []byte(strings.Join(lines, "\n"))
}
