package catalog_test

import (
	"bytes"
	"os"
	"testing"

	"runbook/steps/catalog"
)

const pageFile = "../../docs/kinds.md"

// The committed reference must be the one of this catalog.
func TestPageIsCurrent(t *testing.T) {
	want := catalog.Page()
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(pageFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run UPDATE=1 go test ./steps/catalog", pageFile)
	}
}
