package runner

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const planSchemaFile = "../schema/plan.schema.json"

// The committed schema is what readers of plans rely on: it is of this binary, and says of each field what it means.
func TestPlanSchemaIsCurrent(t *testing.T) {
	t.Parallel()
	want := PlanSchema()
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(planSchemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(planSchemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run UPDATE=1 go test ./runner", planSchemaFile)
	}
	var root struct {
		Properties  map[string]map[string]any
		Definitions map[string]struct{ Properties map[string]map[string]any }
	}
	if err := json.Unmarshal(want, &root); err != nil {
		t.Fatal(err)
	}
	described := func(of string, properties map[string]map[string]any) {
		for name, p := range properties {
			if text, _ := p["description"].(string); text == "" {
				t.Errorf("nothing says what %s of %s is", name, of)
			}
		}
	}
	described("a plan", root.Properties)
	for name, d := range root.Definitions {
		described(name, d.Properties)
	}
}

// What a plan says as JSON is what the schema describes, also of the shapes that no shipped runbook has.
func TestPlansAreAsDescribed(t *testing.T) {
	t.Parallel()
	c := jsonschema.NewCompiler()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(PlanSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("plan.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	described, err := c.Compile("plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, sel := range map[string]Selection{"all": {}, "a part": {To: "outer", Skip: []string{"slow"}}} {
		plan, _ := planOf(t, planBook, sel)
		raw, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := described.Validate(answer); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		answer.(map[string]any)["on_failure"] = "shrug"
		if described.Validate(answer) == nil {
			t.Error("a word that is none is not refused")
		}
	}
}
