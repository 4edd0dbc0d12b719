package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// JSONSchema describes runbooks of these kinds of steps and targets to editors:
// JSON Schema draft-07, which yaml-language-server knows best. It comes from the
// same declarations as Parse, and the same ones always give the same bytes. Inputs
// under with are checked by the kind that uses names.
func JSONSchema(kinds, targets []Kind) []byte {
	g := generator{definitions: object{}, kinds: kinds, targets: targets}
	root := g.structure(reflect.TypeFor[Runbook]())
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "runbook"
	root["definitions"] = g.definitions
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("schema: %v", err)) // maps of texts and numbers always encode
	}
	return append(b, '\n')
}

type object = map[string]any

// interpolated is a text that is one ${{ … }}.
const interpolated = `^\$\{\{[\s\S]*\}\}$`

type generator struct {
	definitions    object
	kinds, targets []Kind
}

// expression is a place where every scalar is read as an expression.
func expression() object { return object{"type": []string{"string", "boolean", "number"}} }

// typ describes a type of the language or of Go.
func (g *generator) typ(t reflect.Type, f *field) object {
	if t.Kind() == reflect.Pointer {
		return g.typ(t.Elem(), f)
	}
	switch t {
	case reflect.TypeFor[Expr]():
		return expression()
	case reflect.TypeFor[Exprs]():
		return object{"anyOf": []any{expression(), object{"type": "array", "items": expression()}}}
	case reflect.TypeFor[Text]():
		return object{"type": "string"}
	case reflect.TypeFor[Value]():
		return object{}
	case reflect.TypeFor[Undo]():
		return object{"anyOf": []any{object{"enum": []string{"auto", "none"}}, object{"type": "array", "items": g.reference(reflect.TypeFor[Step]())}}}
	case reflect.TypeFor[Confirm]():
		return object{"anyOf": []any{object{"type": "string"}, object{"const": false}, g.reference(t)}}
	}
	name := t.Name()
	switch {
	case strings.HasPrefix(name, "Leaf["):
		return g.scalar(t.Field(0).Type, f)
	case strings.HasPrefix(name, "Dyn["):
		return orInterpolated(g.scalar(t.Field(0).Type, f))
	case strings.HasPrefix(name, "Map["):
		values, _ := t.Elem().FieldByName("Value")
		m := object{"type": "object", "additionalProperties": g.typ(values.Type, &field{})}
		if f.keys != nil {
			m["propertyNames"] = object{"pattern": f.keys.String()}
		}
		return m
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": g.typ(t.Elem(), f)}
	case t.Kind() == reflect.Struct:
		return g.reference(t)
	}
	return g.scalar(t, f)
}

// reference puts a struct's description among the definitions, once.
func (g *generator) reference(t reflect.Type) object {
	if _, there := g.definitions[t.Name()]; !there {
		g.definitions[t.Name()] = nil
		g.definitions[t.Name()] = g.structure(t)
	}
	return object{"$ref": "#/definitions/" + t.Name()}
}

// structure describes a struct of the language as a closed object.
func (g *generator) structure(t reflect.Type) object {
	p := planOf(t)
	properties, required := object{}, []string{}
	for i := range p.fields {
		f := &p.fields[i]
		properties[f.name] = described(g.typ(f.typ, f), f)
		if f.required {
			required = append(required, f.name)
		}
	}
	o := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	switch t {
	case reflect.TypeFor[Step]():
		o["oneOf"] = []any{object{"required": []string{"uses"}}, object{"required": []string{"steps"}}}
		g.uses(o, properties)
	case reflect.TypeFor[Guard](), reflect.TypeFor[Probe]():
		g.uses(o, properties)
	case reflect.TypeFor[SecretSource](), reflect.TypeFor[Policy]():
		var one []any
		for _, name := range p.names {
			if name != "message" {
				one = append(one, object{"required": []string{name}})
			}
		}
		o["oneOf"] = one
	case reflect.TypeFor[Target]():
		g.target(o, properties)
	}
	return o
}

// uses lists the kinds and binds with to the one named.
func (g *generator) uses(o, properties object) {
	if len(g.kinds) == 0 {
		return
	}
	choices := []any{object{"type": "string", "pattern": `\.ya?ml$`, "description": "A runbook used as a step."}}
	var branches []any
	for _, kind := range g.sorted(g.kinds) {
		choices = append(choices, object{"const": kind.Name, "description": kind.Doc})
		with := g.inputs(kind.In)
		then := object{"properties": object{"with": with}}
		if _, must := with["required"]; must {
			then["required"] = []string{"with"}
		}
		branches = append(branches, object{
			"if":   object{"properties": object{"uses": object{"const": kind.Name}}, "required": []string{"uses"}},
			"then": then,
		})
	}
	properties["uses"] = object{"description": properties["uses"].(object)["description"], "anyOf": choices}
	o["allOf"] = branches
}

// target closes a target over the keys of its kind.
func (g *generator) target(o, properties object) {
	delete(o, "additionalProperties")
	var names, branches []any
	for _, kind := range g.sorted(g.targets) {
		names = append(names, kind.Name)
		config := g.inputs(kind.In)
		all := object{}
		for name, property := range properties {
			all[name] = property
		}
		for name, property := range config["properties"].(object) {
			all[name] = property
		}
		then := object{"properties": all, "additionalProperties": false}
		if required, ok := config["required"]; ok {
			then["required"] = required
		}
		branches = append(branches, object{
			"if":   object{"properties": object{"kind": object{"const": kind.Name}}, "required": []string{"kind"}},
			"then": then,
		})
	}
	if len(names) > 0 {
		properties["kind"] = object{"enum": names, "description": properties["kind"].(object)["description"]}
		o["allOf"] = branches
	}
}

func (g *generator) sorted(kinds []Kind) []Kind {
	return slices.SortedFunc(slices.Values(kinds), func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
}

// inputs describes the In struct of a kind: every leaf may be a ${{ … }} as well.
func (g *generator) inputs(t reflect.Type) object {
	if t == nil {
		return object{"type": "object", "properties": object{}, "additionalProperties": false}
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return g.plainStruct(t, 0)
}

// deepest bounds types that hold themselves.
const deepest = 6

func (g *generator) plainStruct(t reflect.Type, depth int) object {
	p := planOf(t)
	properties, required := object{}, []string{}
	for i := range p.fields {
		f := &p.fields[i]
		property := described(g.input(f.typ, f, depth), f)
		if text, ok := f.tag.Lookup("default"); ok {
			s := Scalar{Text: text, Tag: resolve(text)}
			property["default"] = s.Plain()
		}
		properties[f.name] = property
		if f.required {
			required = append(required, f.name)
		}
	}
	o := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func (g *generator) input(t reflect.Type, f *field, depth int) object {
	switch {
	case t.Kind() == reflect.Pointer:
		return g.input(t.Elem(), f, depth)
	case t.Kind() == reflect.Interface || depth > deepest:
		return object{}
	case t == reflect.TypeFor[Condition]():
		return object{"anyOf": []any{expression(), object{
			"type": "object", "additionalProperties": false, "required": []string{"check"},
			"properties": object{"check": expression(), "message": object{"type": "string"}},
		}}}
	case t == secretType:
		return object{"type": "string"}
	case t.Kind() == reflect.Struct:
		return orInterpolated(g.plainStruct(t, depth+1))
	case t.Kind() == reflect.Slice && t != slotsType:
		return orInterpolated(object{"type": "array", "items": g.input(t.Elem(), f, depth+1)})
	case t.Kind() == reflect.Map:
		return orInterpolated(object{"type": "object", "additionalProperties": g.input(t.Elem(), &field{}, depth+1)})
	}
	o := g.scalar(t, f)
	if t == slotsType {
		one := o["anyOf"].([]any)[0].(object)
		o["anyOf"].([]any)[1] = object{"type": "array", "items": orInterpolated(one)}
	}
	if o["type"] == "string" && len(o) == 1 {
		return o
	}
	return orInterpolated(o)
}

// scalar describes a fixed value.
func (g *generator) scalar(t reflect.Type, f *field) object {
	switch t {
	case durationType:
		return object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$`}
	case sizeType:
		return object{"anyOf": []any{object{"type": "integer", "minimum": 0}, object{"type": "string", "pattern": `^[0-9]+ *[kKmMgGtT]?[bB]?$`}}}
	case slotsType:
		slot := object{"type": "integer", "minimum": 0, "maximum": maxSlot}
		return object{"anyOf": []any{slot, object{"type": "array", "items": slot}, object{"type": "string", "pattern": `^ *[0-9]+( *- *[0-9]+)? *(, *[0-9]+( *- *[0-9]+)? *)*$`}}}
	case addrType:
		return object{"type": "string", "pattern": `^.+:[0-9]+$`}
	}
	var o object
	switch t.Kind() {
	case reflect.String:
		o = object{"type": "string"}
		if len(f.enum) > 0 {
			o = object{"enum": f.enum}
		}
		if f.pattern != nil {
			o["pattern"] = f.pattern.String()
		}
		return o
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		o = object{"type": "number"}
	default:
		o = object{"type": "integer"}
	}
	for tag, word := range map[string]string{"min": "minimum", "max": "maximum"} {
		if text := f.tag.Get(tag); text != "" {
			o[word] = json.Number(text)
		}
	}
	return o
}

func orInterpolated(o object) object {
	return object{"anyOf": []any{o, object{"type": "string", "pattern": interpolated}}}
}

// described adds the doc tag; beside a $ref a description would be ignored.
func described(o object, f *field) object {
	doc := f.tag.Get("doc")
	if doc == "" {
		return o
	}
	if _, ref := o["$ref"]; ref {
		return object{"description": doc, "allOf": []any{o}}
	}
	o["description"] = doc
	return o
}
