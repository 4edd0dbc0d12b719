package runner

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbook/schema"
)

const lintFolder = "../testdata/lint/runner"

// What stands in ok has no finding at all.
func TestLintOK(t *testing.T) {
	for _, path := range runbooks(t, "ok") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			p, findings := Load(path, LoadOptions{Catalog: fakeCatalog()})
			if len(findings) > 0 {
				t.Errorf("%s", rendered(t, findings))
			}
			if p == nil {
				t.Error("there is no program")
			}
		})
	}
}

// What stands in err has exactly the findings of the .want beside it. UPDATE=1 rewrites them.
func TestLintErr(t *testing.T) {
	for _, path := range runbooks(t, "err") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, findings := Load(path, LoadOptions{Catalog: fakeCatalog()})
			got := rendered(t, findings)
			golden := strings.TrimSuffix(path, ".yaml") + ".want"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			wanted := 1
			if fmt.Sscanf(filepath.Base(path), "mistakes-%d", &wanted); len(findings) != wanted {
				t.Errorf("%d findings for %d mistakes", len(findings), wanted)
			}
		})
	}
}

// runbooks are those of a folder that are run by themselves, not the ones they use.
func runbooks(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(lintFolder, folder, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no runbooks in %s: %v", folder, err)
	}
	return paths
}

func rendered(t *testing.T, findings []schema.Finding) string {
	t.Helper()
	var b bytes.Buffer
	err := schema.Render(&b, findings, func(path string) []byte {
		text, _ := os.ReadFile(path)
		return text
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), filepath.ToSlash(lintFolder)+"/", "")
}

// load binds a runbook given as text, whose steps stand below a fixed head.
func load(t *testing.T, text string) (*Program, []schema.Finding) {
	t.Helper()
	return Load("test.yaml", LoadOptions{Catalog: fakeCatalog(), ReadFile: func(path string) ([]byte, error) {
		if path != "test.yaml" {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	}})
}

const head = `version: 1
name: test
targets:
  a: {kind: redis, addr: "127.0.0.1:1"}
  b: {kind: redis, addr: "127.0.0.1:2"}
`

// long is a runbook of n steps, each with four expressions of its own, in which nothing is wrong.
func long(n int) string {
	var b strings.Builder
	b.WriteString(head + "inputs: {limit: {type: int, default: 5}}\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - id: s%d\n    uses: redis.info\n    target: a\n    with: {section: \"s%d of ${{ run.id }}\"}\n", i, i)
		fmt.Fprintf(&b, "    expect: connected && (lag ?? 0) < inputs.limit\n")
		if i > 0 {
			fmt.Fprintf(&b, "    when: steps.s%d.attempts < inputs.limit\n", i-1)
			fmt.Fprintf(&b, "    require: (steps.s%d?.offset ?? 0) >= 0 && steps.s%d.status != \"failed\"\n", i-1, i/2)
		}
	}
	return b.String()
}

// Lint of a long runbook is linear, and quick enough for an editor that asks at every key.
func BenchmarkLint(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		text := []byte(long(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := fakeCatalog()
			b.ReportAllocs()
			for b.Loop() {
				if p, findings := Load("x.yaml", LoadOptions{Catalog: c, ReadFile: func(string) ([]byte, error) { return text, nil }}); p == nil || len(findings) > 0 {
					b.Fatal(len(findings), findings[0])
				}
			}
		})
	}
}
