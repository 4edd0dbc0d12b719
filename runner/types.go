package runner

import (
	"reflect"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// The types that many scopes share. Types are compared by what they say, never by address.
var (
	anyType      = &expression.Type{Kind: expression.Any}
	boolType     = &expression.Type{Kind: expression.Bool}
	intType      = &expression.Type{Kind: expression.Int}
	countType    = &expression.Type{Kind: expression.Int, NonNegative: true}
	floatType    = &expression.Type{Kind: expression.Float}
	stringType   = &expression.Type{Kind: expression.String}
	durationType = &expression.Type{Kind: expression.Duration}
	elapsedType  = &expression.Type{Kind: expression.Duration, NonNegative: true}
	slotsType    = listOf(intType)
	textMapType  = &expression.Type{Kind: expression.Map, Elem: stringType}
	anyMapType   = &expression.Type{Kind: expression.Map, Elem: anyType}

	failureType = object(map[string]*expression.Type{"message": stringType, "kind": stringType, "temporary": boolType})
	runType     = object(map[string]*expression.Type{"id": stringType, "name": stringType, "operator": stringType, "started_at": stringType})
)

func listOf(elem *expression.Type) *expression.Type {
	return &expression.Type{Kind: expression.List, Elem: elem}
}

func object(fields map[string]*expression.Type) *expression.Type {
	return &expression.Type{Kind: expression.Object, Fields: fields}
}

func orNull(t *expression.Type) *expression.Type {
	if t.Nullable || t.Kind == expression.Any || t.Kind == expression.Null {
		return t
	}
	n := *t
	n.Nullable = true
	return &n
}

// targetDoc marks the type of a target; the rest of the text is its kind. A type has no
// name of its own, and an object that looks like a target is none: it cannot be connected to.
const targetDoc = "a target of kind "

// targetType is what an expression sees of a target. The keys of its kind are not there:
// among them are passwords.
func targetType(kind string, facts *expression.Type) *expression.Type {
	t := object(map[string]*expression.Type{
		"name": stringType, "kind": stringType, "addr": stringType, "group": orNull(stringType), "labels": textMapType, "facts": facts,
	})
	t.Doc = targetDoc + kind
	return t
}

// isTarget tells the kind of target that a type stands for; empty where any kind may come.
func isTarget(t *expression.Type) (kind string, ok bool) {
	if t == nil || t.Kind != expression.Object {
		return "", false
	}
	return strings.CutPrefix(t.Doc, targetDoc)
}

// typeOfInput is the type of a declared input.
func typeOfInput(d *schema.Input) *expression.Type {
	switch d.Type.Value {
	case "string", "addr", "secret":
		return stringType
	case "int", "size":
		return intType
	case "float":
		return floatType
	case "bool":
		return boolType
	case "duration":
		return durationType
	case "slots":
		return slotsType
	case "list":
		return listOf(anyType)
	case "map":
		return anyMapType
	case "target":
		return targetType(d.Kind.Value, anyMapType)
	}
	return anyType
}

// goTypeOfInput is the type that a literal for an input is checked against.
func goTypeOfInput(kind string) reflect.Type {
	switch kind {
	case "string", "secret":
		return reflect.TypeFor[string]()
	case "int":
		return reflect.TypeFor[int]()
	case "float":
		return reflect.TypeFor[float64]()
	case "bool":
		return reflect.TypeFor[bool]()
	case "duration":
		return reflect.TypeFor[time.Duration]()
	case "size":
		return reflect.TypeFor[schema.Size]()
	case "addr":
		return reflect.TypeFor[schema.Addr]()
	case "slots":
		return reflect.TypeFor[schema.Slots]()
	case "list":
		return reflect.TypeFor[[]any]()
	case "map":
		return reflect.TypeFor[map[string]any]()
	case "target":
		return reflect.TypeFor[schema.TargetName]()
	}
	return nil
}

// typeOfValue is the type of a value in the form that expressions see.
func typeOfValue(v any) *expression.Type {
	switch v := v.(type) {
	case nil:
		return &expression.Type{Kind: expression.Null}
	case bool:
		return boolType
	case int:
		return intType
	case float64:
		return floatType
	case string:
		return stringType
	case time.Duration:
		return durationType
	case []any:
		elems := make([]*expression.Type, len(v))
		for i := range v {
			elems[i] = typeOfValue(v[i])
		}
		return listOf(joinTypes(elems))
	case map[string]any:
		fields := make(map[string]*expression.Type, len(v))
		for k, e := range v {
			fields[k] = typeOfValue(e)
		}
		return object(fields)
	}
	return anyType
}

// joinTypes is the type that holds the values of all; nil for none at all.
func joinTypes(types []*expression.Type) *expression.Type {
	if len(types) == 0 {
		return nil
	}
	all, null := types[0], false
	for _, t := range types {
		null = null || t.Nullable || t.Kind == expression.Null
		switch {
		case all.Kind == expression.Null:
			all = t
		case t.Kind == expression.Null || sameType(all, t):
		case t.Kind == expression.Float && all.Kind == expression.Int:
			all = t
		case all.Kind == expression.Float && t.Kind == expression.Int:
		default:
			return anyType
		}
	}
	if null {
		return orNull(all)
	}
	return all
}

func sameType(a, b *expression.Type) bool {
	return a == b || expression.Assignable(a, b) && expression.Assignable(b, a)
}

// elemOf is the type of the items of a loop over t; nil where one cannot loop over it.
func elemOf(t *expression.Type) *expression.Type {
	known := func(e *expression.Type) *expression.Type {
		if e == nil {
			return anyType
		}
		return e
	}
	switch t.Kind {
	case expression.Any:
		return anyType
	case expression.List:
		return known(t.Elem)
	case expression.Map:
		return object(map[string]*expression.Type{"key": stringType, "value": known(t.Elem)})
	case expression.Object:
		values := make([]*expression.Type, 0, len(t.Fields))
		for _, f := range t.Fields {
			values = append(values, f)
		}
		return object(map[string]*expression.Type{"key": stringType, "value": known(joinTypes(values))})
	}
	return nil
}

var (
	goDuration  = reflect.TypeFor[time.Duration]()
	goSlots     = reflect.TypeFor[schema.Slots]()
	goTarget    = reflect.TypeFor[schema.TargetName]()
	goEndpoint  = reflect.TypeFor[schema.Endpoint]()
	goCondition = reflect.TypeFor[schema.Condition]()
	goSecret    = reflect.TypeFor[schema.Secret]()
)

// fits tells whether what an expression yields can be bound to a Go type, and otherwise
// what is wanted. What is only known while running is checked while running.
func fits(from *expression.Type, to reflect.Type) (wanted string, ok bool) {
	if from.Kind == expression.Any || to == nil {
		return "", true
	}
	if to.Kind() == reflect.Pointer {
		if from.Kind == expression.Null {
			return "", true
		}
		return fits(notNull(from), to.Elem())
	}
	if to.Kind() == reflect.Interface {
		return "", true
	}
	wanted = wantedWords(to)
	if from.Nullable || from.Kind == expression.Null {
		return wanted, false
	}
	is := func(kinds ...expression.Kind) (string, bool) {
		for _, k := range kinds {
			if from.Kind == k {
				return "", true
			}
		}
		return wanted, false
	}
	switch to {
	case goDuration:
		return is(expression.Duration)
	case goSlots:
		if from.Kind == expression.List {
			return wanted, from.Elem == nil || from.Elem.Kind == expression.Int || from.Elem.Kind == expression.Any
		}
		return is(expression.Int, expression.String)
	case goTarget, goEndpoint:
		if _, ok := isTarget(from); ok {
			return "", true
		}
		return is(expression.String)
	case goSecret:
		return is(expression.String)
	}
	switch to.Kind() {
	case reflect.Bool:
		return is(expression.Bool)
	case reflect.String:
		return is(expression.String)
	case reflect.Float32, reflect.Float64:
		return is(expression.Int, expression.Float)
	case reflect.Slice, reflect.Array:
		if from.Kind != expression.List {
			return wanted, false
		}
		if from.Elem == nil {
			return "", true
		}
		inner, ok := fits(from.Elem, to.Elem())
		return "a list of " + inner, ok
	case reflect.Map:
		switch from.Kind {
		case expression.Map:
			if from.Elem == nil {
				return "", true
			}
			inner, ok := fits(from.Elem, to.Elem())
			return "a map of " + inner, ok
		case expression.Object:
			for _, f := range from.Fields {
				if inner, ok := fits(f, to.Elem()); !ok {
					return "a map of " + inner, false
				}
			}
			return "", true
		}
		return wanted, false
	case reflect.Struct:
		return is(expression.Map, expression.Object)
	}
	return is(expression.Int)
}

func notNull(t *expression.Type) *expression.Type {
	if !t.Nullable {
		return t
	}
	n := *t
	n.Nullable = false
	return &n
}

func wantedWords(t reflect.Type) string {
	switch t {
	case goDuration:
		return "a duration"
	case goSlots:
		return "slots: an int, a list of ints or text such as 0-3,8"
	case goTarget:
		return "a target or its name"
	case goEndpoint:
		return "a target, its name, or IP:port"
	case reflect.TypeFor[schema.Size]():
		return "an int (bytes)"
	case goSecret:
		return "a secret"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a map"
	}
	return "an int"
}

// alwaysThere are what every step has, whether it ran or not.
func alwaysThere(field string) bool {
	switch field {
	case "status", "attempts", "duration", "error":
		return true
	}
	return false
}

// sealType adds to the outputs of a step what is seen of every step. They win over an output
// of the same name: `status` means the same of every step.
func sealType(fields map[string]*expression.Type) *expression.Type {
	sealed := make(map[string]*expression.Type, len(fields)+4)
	for name, t := range fields {
		sealed[name] = t
	}
	sealed["status"], sealed["attempts"], sealed["duration"] = stringType, countType, elapsedType
	sealed["error"] = orNull(failureType)
	return object(sealed)
}

// mayBeNull is the type of a step that may not have run: its outputs may be null.
func mayBeNull(t *expression.Type) *expression.Type {
	if t == nil || t.Kind != expression.Object {
		return anyType
	}
	fields := make(map[string]*expression.Type, len(t.Fields))
	for name, f := range t.Fields {
		if name != "status" && name != "attempts" {
			f = orNull(f)
		}
		fields[name] = f
	}
	return object(fields)
}

// field is a key that a struct of a kind declares.
type field struct {
	name     string
	typ      reflect.Type
	tag      reflect.StructTag
	required bool
	strict   bool // enum or pattern: checked by binding, not by type alone
	decl     reflect.StructField
}

// fieldsOf reads the keys that a struct declares, in the order of the struct.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		fields = append(fields, field{
			name: name, typ: f.Type, tag: f.Tag, required: strings.Contains(","+options+",", ",required,"),
			strict: f.Tag.Get("enum") != "" || f.Tag.Get("pattern") != "", decl: f,
		})
	}
	return fields
}

// NewCatalog makes a catalog of step kinds and target kinds.
func NewCatalog(kinds []*steps.Definition, targets []*steps.TargetDefinition) *Catalog {
	c := &Catalog{Kinds: make(map[string]*steps.Definition, len(kinds)), Targets: make(map[string]*steps.TargetDefinition, len(targets))}
	for _, k := range kinds {
		c.Kinds[k.Name] = k
	}
	for _, t := range targets {
		c.Targets[t.Name] = t
	}
	return c
}
