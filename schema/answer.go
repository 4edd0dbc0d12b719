package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// AnswerSchema describes the JSON of a struct that a command answers with: JSON Schema
// draft-07, from its json tags (names, omitempty, omitzero), enum tags (words with a closed list,
// separated by commas) and doc tags (reference text). Properties that it does not name are
// allowed, since an answer may gain fields. The same type always gives the same bytes.
func AnswerSchema(title string, t reflect.Type) []byte {
	a := answers{definitions: object{}}
	root := a.structure(t)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = title
	root["definitions"] = a.definitions
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("schema: %v", err)) // maps of texts and numbers always encode
	}
	return append(b, '\n')
}

type answers struct{ definitions object }

// structure describes a struct; those within it are put among the definitions.
func (a *answers) structure(t reflect.Type) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		may := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		property := a.typ(f.Type, f.Tag.Get("enum"))
		if f.Type.Kind() == reflect.Pointer && !may {
			property = object{"anyOf": []any{property, object{"type": "null"}}}
		}
		properties[name] = described(property, &field{tag: f.Tag})
		if !may {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	o := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func (a *answers) typ(t reflect.Type, enum string) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return a.typ(t.Elem(), enum)
	case reflect.Interface:
		return object{}
	case reflect.Struct:
		if _, there := a.definitions[t.Name()]; !there {
			a.definitions[t.Name()] = nil
			a.definitions[t.Name()] = a.structure(t)
		}
		return object{"$ref": "#/definitions/" + t.Name()}
	case reflect.Slice:
		return object{"type": "array", "items": a.typ(t.Elem(), enum)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": a.typ(t.Elem(), enum)}
	case reflect.String:
		if enum != "" {
			return object{"enum": strings.Split(enum, ",")}
		}
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	}
	return object{"type": "integer"}
}
