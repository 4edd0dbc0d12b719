package schema

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

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
		takes := f.wants(f.typ)
		if text, ok := f.tag.Lookup("default"); ok {
			s := Scalar{Text: text, Tag: resolve(text)}
			property["default"] = s.Plain()
			takes += "; `" + text + "` by default"
		}
		hovered(property, f.tag.Get("doc")+"\n\n*"+takes+"*")
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
		check, message := expression(), object{"type": "string", "description": "What a person reads where it does not hold."}
		check["description"] = "Expression that must hold."
		return object{"anyOf": []any{expression(), object{
			"type": "object", "additionalProperties": false, "required": []string{"check"}, "properties": object{"check": check, "message": message},
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
		o["items"] = orInterpolated(o["items"].(object))
	}
	return orInterpolated(o)
}

// scalar describes a fixed value.
func (g *generator) scalar(t reflect.Type, f *field) object {
	switch t {
	case durationType:
		return form(object{"type": "string", "examples": []string{"500ms", "30s"}}, `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$`, wanted(t))
	case sizeType:
		return form(object{"type": []string{"integer", "string"}, "minimum": 0, "examples": []string{"64mb", "1gb"}}, `^[0-9]+ *[kKmMgGtT]?[bB]?$`, wanted(t))
	case slotsType:
		slot := object{"type": "integer", "minimum": 0, "maximum": maxSlot}
		slots := object{"type": []string{"integer", "array", "string"}, "minimum": 0, "maximum": maxSlot, "items": slot, "examples": []string{"7", "0-3,8"}}
		return form(slots, `^ *[0-9]+( *- *[0-9]+)? *(, *[0-9]+( *- *[0-9]+)? *)*$`, wanted(t))
	case addrType:
		return form(object{"type": "string"}, `^.+:[0-9]+$`, wanted(t))
	}
	var o object
	switch t.Kind() {
	case reflect.String:
		o = object{"type": "string"}
		if len(f.enum) > 0 {
			o["enum"] = f.enum
		}
		if means := f.tag.Get("means"); means != "" {
			o["enumDescriptions"] = strings.Split(means, "|")
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

// form restricts text, and says in words what it takes.
func form(o object, pattern, takes string) object {
	o["pattern"], o["patternErrorMessage"] = pattern, "This takes "+takes+"."
	return o
}

// interpolated is a text that is one ${{ … }}.
const interpolated = `^\$\{\{[\s\S]*\}\}$`

// orInterpolated lets a ${{ … }} stand in the place of a value. One schema that takes both
// gives an editor one thing to say where neither fits; two alternatives would give it two.
func orInterpolated(o object) object {
	var types []string
	switch t := o["type"].(type) {
	case string:
		types = []string{t}
	case []string:
		types = slices.Clone(t)
	}
	_, enum := o["enum"]
	pattern, patterned := o["pattern"].(string)
	switch {
	case enum || len(types) == 0:
		return object{"anyOf": []any{o, object{"type": "string", "pattern": interpolated}}}
	case patterned:
		o["pattern"] = pattern + "|" + interpolated
	case slices.Contains(types, "string"): // any text
	default:
		o["type"] = append(types, "string")
		form(o, interpolated, "a value of type "+strings.Join(types, " or ")+", or one ${{ … }}")
	}
	return o
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

// hovered adds what editors show that know Markdown.
func hovered(o object, markdown string) object {
	if markdown != "" {
		o["markdownDescription"] = markdown
	}
	return o
}
