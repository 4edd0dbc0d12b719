package readers

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"runbook/runner"
	"runbook/schema"
	"runbook/steps/catalog"
)

// sarifSchema is the published schema of SARIF 2.1.0.
func sarifSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(needModule(t, "@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("sarif.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("sarif.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validSARIF(t *testing.T, s *jsonschema.Schema, text []byte) {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(document); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}

// What lint says of every mistake that the project knows is a valid log, and so is nothing.
func TestSARIFIsValid(t *testing.T) {
	s := sarifSchema(t)
	tool := schema.Tool{Name: "runner", Version: "1.2.3", Rules: runner.Rules()}
	mistakes, err := filepath.Glob("../../testdata/lint/*/err/*.yaml")
	if err != nil || len(mistakes) == 0 {
		t.Fatal("no files", err)
	}
	known := runner.NewCatalog(catalog.Kinds(), catalog.Targets())
	all := []schema.Finding{
		{Path: "-i n=x", Severity: schema.Error, Rule: "input", Message: "not an int"},
		{Path: "/outside of/the repository.yaml", Line: 1, Column: 1, EndLine: 1, EndColumn: 1, Severity: schema.Note, Rule: "no rule \"of\" ours", Message: "a\nb\x00\xff"},
		{Path: `ünï/100% [a] #1? c:d.yaml`, Line: 2, Column: 3, EndLine: 4, EndColumn: 1, Severity: schema.Warning, Rule: "unknown-key", Message: "x", Suggestion: "y"},
	}
	for _, path := range mistakes {
		_, findings := runner.Load(path, runner.LoadOptions{Catalog: known})
		all = append(all, findings...)
	}
	for _, findings := range [][]schema.Finding{nil, all[:1], all} {
		var b bytes.Buffer
		if err := schema.WriteSARIF(&b, tool, findings); err != nil {
			t.Fatal(err)
		}
		validSARIF(t, s, b.Bytes())
	}
}
