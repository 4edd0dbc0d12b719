package catalog_test

import (
	"encoding/json"
	"testing"
	"unicode"

	"runbook/steps/catalog"
)

// Whatever an author can write has a text that an editor shows beside it.
func TestSchemaExplainsEverything(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(catalog.Schema(), &root); err != nil {
		t.Fatal(err)
	}
	properties := 0
	var visit func(path string, node any)
	visit = func(path string, node any) {
		switch node := node.(type) {
		case []any:
			for _, inner := range node {
				visit(path, inner)
			}
		case map[string]any:
			if words, ok := node["enumDescriptions"].([]any); ok && len(words) != len(node["enum"].([]any)) {
				t.Errorf("%s: %d texts for the words %v", path, len(words), node["enum"])
			}
			for key, inner := range node {
				switch key {
				case "if", "default", "enum", "examples", "required":
				case "properties", "definitions":
					for name, property := range inner.(map[string]any) {
						visit(path+"/"+name, property)
						p := property.(map[string]any)
						_, bound := p["$ref"] // with, of a kind
						if key == "definitions" || bound || len(p) == 0 {
							continue
						}
						properties++
						if text, _ := p["description"].(string); text == "" {
							t.Errorf("%s/%s has no description", path, name)
						}
						language := path == "" || unicode.IsUpper(rune(path[1])) // and not the input of a kind
						if p["enum"] != nil && p["enumDescriptions"] == nil && language {
							t.Errorf("%s/%s does not say what its words mean", path, name)
						}
					}
				default:
					visit(path, inner)
				}
			}
		}
	}
	visit("", root)
	if properties < 300 {
		t.Errorf("only %d properties were looked at", properties)
	}
}
