package schema

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The files in ok are silent; beside each file in err stands what is said of it,
// as people read it. UPDATE=1 rewrites that.
func TestGolden(t *testing.T) {
	for _, folder := range []string{"ok", "err"} {
		files, err := filepath.Glob(filepath.Join("../testdata/lint/schema", folder, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", folder, err)
		}
		for _, file := range files {
			t.Run(folder+"/"+filepath.Base(file), func(t *testing.T) {
				src, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				findings := parseAny(filepath.Base(file), src)
				inside(t, src, findings)
				var got bytes.Buffer
				if err := Render(&got, findings, func(string) []byte { return src }, false); err != nil {
					t.Fatal(err)
				}
				if folder == "ok" {
					if got.Len() > 0 {
						t.Errorf("not silent:\n%s", got.String())
					}
					return
				}
				if len(findings) == 0 {
					t.Error("nothing is said")
				}
				name := strings.TrimSuffix(file, ".yaml") + ".want"
				if os.Getenv("UPDATE") != "" {
					if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got.String()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				// One cause, one finding: the parser's own traps must not echo.
				if strings.HasPrefix(filepath.Base(file), "one-") && len(findings) != 1 {
					t.Errorf("%d findings, want one", len(findings))
				}
			})
		}
	}
}

// parseAny reads a file as what its name says it is.
func parseAny(name string, src []byte) (findings []Finding) {
	switch {
	case strings.HasPrefix(name, "inventory"):
		_, findings = ParseInventory(name, src)
	case strings.HasPrefix(name, "policies"):
		_, findings = ParsePolicies(name, src)
	case strings.HasPrefix(name, "inputs"):
		_, findings = ParseInputs(name, src)
	default:
		_, findings = Parse(name, src)
	}
	return findings
}

// inside fails for a finding whose place is not in the file, or ends before it starts.
func inside(t interface {
	Helper()
	Errorf(string, ...any)
}, src []byte, findings []Finding) {
	t.Helper()
	s := newSource("", src)
	for _, f := range findings {
		for _, p := range []Position{{f.Line, f.Column}, {f.EndLine, f.EndColumn}} {
			if s.position(s.offset(p)) != p {
				t.Errorf("%v: %v is not in the file", f, p)
			}
		}
		if f.EndLine < f.Line || f.EndLine == f.Line && f.EndColumn < f.Column {
			t.Errorf("%v: ends at %d:%d", f, f.EndLine, f.EndColumn)
		}
		if f.Message == "" || f.Rule == "" || f.Severity == "" {
			t.Errorf("%+v: incomplete", f)
		}
	}
}
