package schema

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// log is what a reader of SARIF sees of one result.
type log struct {
	Version string
	Runs    []struct {
		Tool struct {
			Driver struct {
				Name  string
				Rules []struct {
					ID   string
					Help *struct{ Text string }
				}
			}
		}
		ColumnKind string
		Results    []struct {
			RuleID              string
			RuleIndex           int
			Level               string
			Message             struct{ Text string }
			PartialFingerprints map[string]string
			Locations           []struct {
				PhysicalLocation struct {
					ArtifactLocation struct{ URI, URIBaseID string }
					Region           struct{ StartLine, StartColumn, EndLine, EndColumn int }
				}
			}
			Fixes []struct {
				ArtifactChanges []struct {
					Replacements []struct {
						DeletedRegion   struct{ StartColumn, EndColumn int }
						InsertedContent struct{ Text string }
					}
				}
			}
		}
	}
}

var lintTool = Tool{Name: "runner", Version: "1", Rules: []Rule{
	{Name: "unknown-key", Doc: "There is no such key. It is refused.", Exact: true},
	{Name: "no-undo", Doc: "There is no way back."},
}}

func sarif(t *testing.T, findings ...Finding) log {
	t.Helper()
	var b bytes.Buffer
	if err := WriteSARIF(&b, lintTool, findings); err != nil {
		t.Fatal(err)
	}
	var l log
	if err := json.Unmarshal(b.Bytes(), &l); err != nil {
		t.Fatal(err)
	}
	if l.Version != "2.1.0" || len(l.Runs) != 1 || l.Runs[0].ColumnKind != "unicodeCodePoints" {
		t.Fatalf("not a log of one run: %s", b.String())
	}
	return l
}

func onLine(path string, line, column, end int, rule, message, suggestion string) Finding {
	return Finding{Path: path, Line: line, Column: column, EndLine: line, EndColumn: end, Severity: Error, Rule: rule, Message: message, Suggestion: suggestion}
}

func TestSARIF(t *testing.T) {
	warning := onLine("b.yaml", 2, 1, 4, "no-undo", "nobody can put this back", "undo: none, with a why …")
	warning.Severity = Warning
	l := sarif(t,
		onLine("dir/ä b#1?.yaml", 7, 5, 12, "unknown-key", `a step has no key "tiemout"`, "timeout"),
		warning,
		onLine("b.yaml", 9, 1, 4, "unheard-of", "what is this", ""),
	)
	run := l.Runs[0]
	if n := len(run.Tool.Driver.Rules); n != 3 {
		t.Fatalf("%d rules", n)
	}
	for i, r := range run.Results {
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("result %d: rule %s is not the one at its index", i, r.RuleID)
		}
	}
	if h := run.Tool.Driver.Rules[0].Help; h == nil || h.Text != lintTool.Rules[0].Doc {
		t.Errorf("the rule has no help: %v", h)
	}
	first := run.Results[0]
	place := first.Locations[0].PhysicalLocation
	if want := "dir/%C3%A4%20b%231%3F.yaml"; place.ArtifactLocation.URI != want || place.ArtifactLocation.URIBaseID != "%SRCROOT%" {
		t.Errorf("%+v, want %s", place.ArtifactLocation, want)
	}
	if r := place.Region; r.StartLine != 7 || r.StartColumn != 5 || r.EndLine != 7 || r.EndColumn != 12 {
		t.Errorf("%+v", r)
	}
	if first.Level != "error" || run.Results[1].Level != "warning" {
		t.Error("a severity is lost")
	}
	if !strings.HasSuffix(first.Message.Text, "\nhelp: timeout") {
		t.Errorf("%q does not say what helps", first.Message.Text)
	}
	if fix := first.Fixes[0].ArtifactChanges[0].Replacements[0]; fix.InsertedContent.Text != "timeout" || fix.DeletedRegion.StartColumn != 5 || fix.DeletedRegion.EndColumn != 12 {
		t.Errorf("%+v", fix)
	}
	if len(run.Results[1].Fixes) > 0 {
		t.Error("a suggestion with … is offered as a fix")
	}
}

func TestSARIFOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSARIF(&b, lintTool, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"results": []`) {
		t.Errorf("a clean run has no list of results:\n%s", b.String())
	}
}

// A path outside of the repository is whole; what is in no file has no place.
func TestSARIFPlaces(t *testing.T) {
	outside, err := filepath.Abs("x y.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l := sarif(t, onLine(outside, 1, 1, 1, "file", "cannot be read", ""), Finding{Path: "-i n=x", Severity: Error, Rule: "input", Message: "not an int"})
	file := l.Runs[0].Results[0].Locations[0].PhysicalLocation.ArtifactLocation
	if !strings.HasPrefix(file.URI, "file:///") || !strings.HasSuffix(file.URI, "/x%20y.yaml") || file.URIBaseID != "" {
		t.Errorf("%+v", file)
	}
	if r := l.Runs[0].Results[1]; len(r.Locations) > 0 || r.Message.Text != "-i n=x: not an int" {
		t.Errorf("%+v", r)
	}
}

// A finding is the same one after lines were added above it, and another than its twin.
func TestSARIFFingerprints(t *testing.T) {
	before := sarif(t,
		onLine("a.yaml", 4, 1, 2, "duplicate-id", "the id x is taken by the step in line 3", ""),
		onLine("a.yaml", 9, 1, 2, "no-undo", "no way back", ""),
		onLine("a.yaml", 12, 1, 2, "no-undo", "no way back", ""),
		onLine("b.yaml", 12, 1, 2, "no-undo", "no way back", ""),
	).Runs[0].Results
	after := sarif(t,
		onLine("a.yaml", 24, 5, 6, "duplicate-id", "the id x is taken by the step in line 23", ""),
		onLine("a.yaml", 29, 1, 2, "no-undo", "no way back", ""),
		onLine("a.yaml", 32, 1, 2, "no-undo", "no way back", ""),
		onLine("b.yaml", 32, 1, 2, "no-undo", "no way back", ""),
	).Runs[0].Results
	seen := map[string]bool{}
	for i := range before {
		mark := before[i].PartialFingerprints["finding/v1"]
		if mark == "" || mark != after[i].PartialFingerprints["finding/v1"] {
			t.Errorf("result %d is another one after a move", i)
		}
		if seen[mark] {
			t.Errorf("result %d is taken for another", i)
		}
		seen[mark] = true
	}
}
