package catalog

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// Reference is the reference page of a step kind: all of it comes from the kind itself.
// Its JSON is the answer of `steps --output json`.
type Reference struct {
	Name       string   `json:"name"`
	Doc        string   `json:"doc"`
	Effect     string   `json:"effect"`
	On         []string `json:"on,omitempty"` // kinds of target
	Optional   bool     `json:"target_optional,omitempty"`
	Idempotent bool     `json:"idempotent"`
	// Knows: the author says the effect, since the kind cannot.
	AuthorKnows bool     `json:"author_knows,omitempty"`
	Inputs      []Field  `json:"inputs"`
	Outputs     []Field  `json:"outputs"`
	Probe       string   `json:"probe"`
	Undo        string   `json:"undo"`
	Pitfalls    []string `json:"pitfalls,omitempty"`
	Example     string   `json:"example"`
}

// Field is one input or output.
type Field struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Required bool     `json:"required,omitempty"`
	Default  string   `json:"default,omitempty"`
	Enum     []string `json:"enum,omitempty"`
	// Act: only the act itself knows it; null on a step whose effect was found by a probe.
	Act bool   `json:"act,omitempty"`
	Doc string `json:"doc,omitempty"`
}

// Describe makes the reference of a kind.
func Describe(k *steps.Definition) Reference {
	r := Reference{Name: k.Name, Doc: k.Doc, Effect: k.Effect.String(), On: k.On, Optional: k.TargetOptional, Idempotent: k.Idempotent || k.Effect == steps.Read,
		AuthorKnows: k.AuthorKnows, Inputs: fields(k.In), Outputs: fields(k.Out), Pitfalls: k.Pitfalls, Example: strings.TrimSpace(k.Example)}
	switch {
	case k.Effect == steps.Read && !k.AuthorKnows:
		r.Probe, r.Undo = "not needed: it changes nothing", "not needed: it changes nothing"
		return r
	case k.HasProbe:
		r.Probe = "asks the target whether the wanted state is there"
	default:
		r.Probe = "none: give the step a probe, or decide after a crash"
	}
	switch {
	case k.HasUndo:
		r.Undo = "its own inverse; the plan tells it"
	case k.NothingToUndo:
		r.Undo = "nothing to put back"
	default:
		r.Undo = "none: " + k.NoUndo
	}
	return r
}

func fields(t reflect.Type) []Field {
	list := []Field{}
	if t == nil || t.Kind() != reflect.Struct {
		return list
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		has := strings.Split(options, ",")
		field := Field{Name: name, Type: typeName(f.Type), Required: slices.Contains(has, "required"), Act: slices.Contains(has, "act"),
			Default: f.Tag.Get("default"), Doc: f.Tag.Get("doc")}
		if enum := f.Tag.Get("enum"); enum != "" {
			field.Enum = strings.Split(enum, ",")
		}
		list = append(list, field)
	}
	return list
}

// typeName is a Go type in an author's words.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[schema.Slots]():
		return "slots"
	case reflect.TypeFor[schema.Size]():
		return "size"
	case reflect.TypeFor[schema.Addr]():
		return "addr"
	case reflect.TypeFor[schema.TargetName]():
		return "target"
	case reflect.TypeFor[schema.Endpoint]():
		return "target or addr"
	case reflect.TypeFor[schema.Condition]():
		return "expression"
	case reflect.TypeFor[schema.Secret]():
		return "secret"
	case reflect.TypeFor[time.Time]():
		return "time"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem()) + " or null"
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "float"
	case reflect.Slice, reflect.Array:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Interface:
		return "any"
	case reflect.Struct:
		var names []string
		for _, f := range fields(t) {
			names = append(names, f.Name)
		}
		return "{" + strings.Join(names, ", ") + "}"
	}
	return "int"
}
