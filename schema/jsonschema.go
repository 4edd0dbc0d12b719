package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// JSONSchema describes runbooks of these kinds of steps and targets to editors:
// JSON Schema draft-07, which yaml-language-server knows best, with the words that it and
// others take beyond it (markdownDescription, enumDescriptions, patternErrorMessage). It comes
// from the same declarations as Parse, and the same ones always give the same bytes.
// Inputs under with are checked by the kind that uses names. It has no title: editors would
// show it above every text and offer it as a key.
func JSONSchema(kinds, targets []Kind) []byte {
	g := generator{definitions: object{}, kinds: kinds, targets: targets}
	root := g.structure(reflect.TypeFor[Runbook]())
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["definitions"] = g.definitions
	b, err := json.MarshalIndent(root, "", " ")
	if err != nil {
		panic(fmt.Sprintf("schema: %v", err)) // maps of texts and numbers always encode
	}
	return append(b, '\n')
}

type object = map[string]any

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
		words := object{"enum": []string{"auto", "none"}, "enumDescriptions": []string{"The kind's own inverse.", "There is nothing to put back, or no way: say why."}}
		return object{"anyOf": []any{words, object{"type": "array", "items": g.reference(reflect.TypeFor[Step]())}}}
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
		g.uses(o, func(Kind) bool { return true }, true)
	case reflect.TypeFor[Guard]():
		g.uses(o, func(k Kind) bool { return k.Effect == "read" && k.Target != "" }, false)
	case reflect.TypeFor[Probe]():
		g.uses(o, func(k Kind) bool { return k.Effect == "read" || k.AuthorKnows }, false)
	case reflect.TypeFor[SecretSource]():
		o["oneOf"] = eitherKey("env", "file", "command")
	case reflect.TypeFor[Policy]():
		o["oneOf"] = eitherKey("deny", "warn", "enforce", "waive")
	case reflect.TypeFor[Target]():
		g.target(o, properties)
	}
	return o
}

// eitherKey asks for exactly one of some keys.
func eitherKey(names ...string) []any {
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = object{"required": []string{name}}
	}
	return list
}

// uses lists the kinds that fit, and binds with to the one named. Each kind is among the definitions once.
func (g *generator) uses(o object, fits func(Kind) bool, runbooks bool) {
	properties := o["properties"].(object)
	var choices, branches []any
	if runbooks {
		choices = append(choices, object{"type": "string", "pattern": `\.ya?ml$`, "description": "A runbook used as a step.",
			"patternErrorMessage": "There is no such step kind; a runbook used as a step is a path that ends in .yaml."})
	}
	for _, kind := range g.sorted(g.kinds) {
		if !fits(kind) {
			continue
		}
		with := kind.Name + ".with"
		if _, there := g.definitions[kind.Name]; !there {
			g.definitions[kind.Name] = hovered(object{"const": kind.Name, "title": kind.Name, "description": kind.Doc}, kind.Hover)
			inputs := g.inputs(kind.In)
			inputs["title"] = kind.Name
			g.definitions[with] = inputs
		}
		choices = append(choices, object{"$ref": "#/definitions/" + kind.Name})
		then := object{"properties": object{"with": object{"$ref": "#/definitions/" + with}}}
		if _, must := g.definitions[with].(object)["required"]; must {
			then["required"] = []string{"with"}
		}
		branches = append(branches, object{
			"if":   object{"properties": object{"uses": object{"const": kind.Name}}, "required": []string{"uses"}},
			"then": then,
		})
	}
	if len(branches) > 0 {
		properties["uses"] = object{"description": properties["uses"].(object)["description"], "anyOf": choices}
		o["allOf"] = branches
	}
}

// target closes a target over the keys of its kind.
func (g *generator) target(o, properties object) {
	delete(o, "additionalProperties")
	var choices, branches []any
	for _, kind := range g.sorted(g.targets) {
		choices = append(choices, hovered(object{"const": kind.Name, "title": kind.Name, "description": kind.Doc}, kind.Hover))
		config := g.inputs(kind.In)
		all := object{}
		for name, property := range properties {
			all[name] = property
		}
		for name, property := range config["properties"].(object) {
			all[name] = property
		}
		all["kind"] = object{}
		then := object{"properties": all, "additionalProperties": false}
		if required, ok := config["required"]; ok {
			then["required"] = required
		}
		branches = append(branches, object{
			"if":   object{"properties": object{"kind": object{"const": kind.Name}}, "required": []string{"kind"}},
			"then": then,
		})
	}
	if len(choices) > 0 {
		properties["kind"] = object{"anyOf": choices, "description": properties["kind"].(object)["description"]}
		o["allOf"] = branches
	}
}

func (g *generator) sorted(kinds []Kind) []Kind {
	return slices.SortedFunc(slices.Values(kinds), func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
}
