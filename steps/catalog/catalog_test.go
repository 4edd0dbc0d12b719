package catalog_test

import (
	"bytes"
	"os"
	"testing"

	"runbook/steps/catalog"
)

const schemaFile = "../../schema/runbook.schema.json"

// The committed schema is what editors read: it must be the one of this catalog.
func TestSchemaIsCurrent(t *testing.T) {
	want := catalog.Schema()
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run UPDATE=1 go test ./steps/catalog", schemaFile)
	}
}

func TestNamesAreUniqueAndDocumented(t *testing.T) {
	seen := map[string]bool{}
	targets := map[string]bool{}
	for _, d := range catalog.Targets() {
		targets[d.Name] = true
		if d.Doc == "" || d.Example == "" {
			t.Errorf("target %s: needs Doc and Example", d.Name)
		}
	}
	for _, k := range catalog.Kinds() {
		if seen[k.Name] {
			t.Errorf("%s is listed twice", k.Name)
		}
		seen[k.Name] = true
		r := catalog.Describe(k)
		if r.Doc == "" || r.Example == "" {
			t.Errorf("%s: needs Doc and Example", k.Name)
		}
		for _, f := range append(r.Inputs, r.Outputs...) {
			if f.Doc == "" {
				t.Errorf("%s: %s has no doc tag", k.Name, f.Name)
			}
		}
		for _, on := range k.On {
			// pika speaks RESP too, and comes with its own package
			if !targets[on] && on != "pika" {
				t.Errorf("%s acts on %s, which is no kind of target", k.Name, on)
			}
		}
	}
}
