package expression

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Kind is the shape of a value as an author sees it.
type Kind int

const (
	Any      Kind = iota // known only while running
	Null                 // nothing but null
	Bool                 // true or false
	Int                  // a whole number, 64 bits
	Float                // a number with a fraction
	String               // text
	Duration             // a length of time; never a number of anything
	List                 // values of one type, in order
	Map                  // values of one type by text keys that nobody declared
	Object               // declared fields, each with its own type
)

var kindNames = [...]string{"any", "null", "bool", "int", "float", "string", "duration", "list", "map", "object"}

func (k Kind) String() string { return kindNames[k] }

// A Type says what a value may be. Types are shared and must not be changed once they are in use.
type Type struct {
	Kind     Kind
	Elem     *Type            // of List and Map; nil if nothing is known, as in []
	Fields   map[string]*Type // of Object: all there are
	Nullable bool             // null as well; Any and Null are so anyway
	// NonNegative: a number or duration that is never below zero, by its nature. It is known of outputs,
	// not wanted of anything.
	NonNegative bool
	Doc         string // one line for reference pages
}

var (
	anyType      = &Type{Kind: Any}
	nullType     = &Type{Kind: Null}
	boolType     = &Type{Kind: Bool}
	intType      = &Type{Kind: Int}
	floatType    = &Type{Kind: Float}
	stringType   = &Type{Kind: String}
	durationType = &Type{Kind: Duration}
	listType     = &Type{Kind: List}
	mapType      = &Type{Kind: Map}
)

func listOf(elem *Type) *Type { return &Type{Kind: List, Elem: elem} }

// String is the type in an author's words: "list of string", "object {connected, lag}", "int or null".
func (t *Type) String() string {
	if t == nil {
		return Any.String()
	}
	name := t.Kind.String()
	switch {
	case t.Kind == Object:
		name += " {" + strings.Join(sortedKeys(t.Fields), ", ") + "}"
	case t.Elem != nil && (t.Kind == List || t.Kind == Map):
		name += " of " + t.Elem.String()
	}
	if t.Nullable && t.Kind != Any && t.Kind != Null {
		name += " or null"
	}
	return name
}

// elem is the type of what a list or map holds: Any if nothing is known.
func (t *Type) elem() *Type {
	if t.Elem == nil {
		return anyType
	}
	return t.Elem
}

// is says whether t is one of kinds, null left aside.
func (t *Type) is(kinds ...Kind) bool { return slices.Contains(kinds, t.Kind) }

// number says whether t orders and subtracts like a number: not durations, which never mix with numbers.
func (t *Type) number() bool { return t.is(Int, Float) }

// nullable says whether null may stand where t is declared.
func (t *Type) nullable() bool { return t.Nullable || t.is(Any, Null) }

func (t *Type) orNull() *Type {
	if t.nullable() {
		return t
	}
	n := *t
	n.Nullable = true
	return &n
}

func (t *Type) notNull() *Type {
	if !t.Nullable {
		return t
	}
	n := *t
	n.Nullable = false
	return &n
}

// anySign is t without the promise of NonNegative.
func (t *Type) anySign() *Type {
	if !t.NonNegative {
		return t
	}
	n := *t
	n.NonNegative = false
	return &n
}

// TypeOf is the type of the values that Value makes of r: structs are objects with the fields that their
// yaml tags name, pointers may be null, every kind of integer is an int. A struct that marshals itself as
// text is a string. The tag min:"0" promises that a number or duration is never below zero. What has no form in an expression (channels, functions) is Any.
func TypeOf(r reflect.Type) *Type { return typeOf(r, map[reflect.Type]*Type{}) }

func typeOf(r reflect.Type, seen map[reflect.Type]*Type) *Type {
	if r == nil {
		return anyType
	}
	if r == reflect.TypeFor[time.Duration]() {
		return durationType
	}
	switch r.Kind() {
	case reflect.Pointer:
		return typeOf(r.Elem(), seen).orNull()
	case reflect.Bool:
		return boolType
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return intType
	case reflect.Float32, reflect.Float64:
		return floatType
	case reflect.String:
		return stringType
	case reflect.Slice, reflect.Array:
		return listOf(typeOf(r.Elem(), seen))
	case reflect.Map:
		if r.Key().Kind() != reflect.String {
			return anyType
		}
		return &Type{Kind: Map, Elem: typeOf(r.Elem(), seen)}
	case reflect.Struct:
		if marshalsText(r) {
			return stringType
		}
		if t := seen[r]; t != nil { // a struct that holds itself
			return t
		}
		t := &Type{Kind: Object, Fields: map[string]*Type{}}
		seen[r] = t
		for _, f := range fieldsOf(r) {
			t.Fields[f.name] = typeOf(f.typ, seen).atLeast(f.least)
		}
		return t
	}
	return anyType
}

func marshalsText(r reflect.Type) bool {
	return r.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// atLeast is a number or duration that is not below what a tag says, as far as that matters.
func (t *Type) atLeast(least string) *Type {
	if !t.is(Int, Float, Duration) || least == "" || strings.HasPrefix(least, "-") {
		return t
	}
	n := *t
	n.NonNegative = true
	return &n
}

type structField struct {
	name  string
	index []int
	typ   reflect.Type
	least string // the tag min
}

// fieldsOf are the fields of a struct under the names that YAML gives them.
func fieldsOf(r reflect.Type) []structField {
	if known, ok := structs.Load(r); ok {
		return known.([]structField)
	}
	var fields []structField
	for i := range r.NumField() {
		f := r.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := slices.Contains(strings.Split(options, ","), "inline")
		if name == "-" || !f.IsExported() && !(f.Anonymous && inline) {
			continue
		}
		if inline && f.Type.Kind() == reflect.Struct {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...) // a new one: what is known of the inner type stays
				fields = append(fields, inner)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		fields = append(fields, structField{name, []int{i}, f.Type, f.Tag.Get("min")})
	}
	structs.Store(r, fields)
	return fields
}

var structs sync.Map // what fieldsOf has read: []structField, by reflect.Type

// Assignable says whether a value of type from may stand where to is wanted. Nothing is coerced; an int is
// a float without loss of meaning, a literal object is a map. Any fits in both directions: what is only
// known while running is checked while running.
func Assignable(from, to *Type) bool {
	switch {
	case from == to || from == nil || to == nil || from.Kind == Any || to.Kind == Any:
		return true
	case from.Kind == Null:
		return to.nullable()
	case from.Nullable && !to.Nullable:
		return false
	case from.Kind == Int && to.Kind == Float:
		return true
	case from.Kind == Object && to.Kind == Map:
		for _, f := range from.Fields {
			if !Assignable(f, to.Elem) {
				return false
			}
		}
		return true
	case from.Kind != to.Kind:
		return false
	case from.Kind == List || from.Kind == Map:
		return Assignable(from.Elem, to.Elem)
	case from.Kind == Object:
		for name, want := range to.Fields {
			got := from.Fields[name]
			if got == nil && !want.nullable() || got != nil && !Assignable(got, want) {
				return false
			}
		}
		for name := range from.Fields {
			if to.Fields[name] == nil {
				return false
			}
		}
	}
	return true
}

// join is the one type that holds the values of both, such as those of the two branches of a condition;
// false if only Any would.
func join(a, b *Type) (*Type, bool) {
	t, ok := joined(a, b)
	if t != nil && t.NonNegative && (a != nil && !a.NonNegative || b != nil && !b.NonNegative) {
		t = t.anySign()
	}
	return t, ok
}

func joined(a, b *Type) (*Type, bool) {
	switch {
	case a == nil || a == b:
		return b, true
	case b == nil:
		return a, true
	case a.Kind == Null:
		return b.orNull(), true
	case b.Kind == Null:
		return a.orNull(), true
	case a.Kind == Any || b.Kind == Any:
		return anyType, true
	case Assignable(a.notNull(), b.notNull()) && !b.is(List, Map):
		return joinNull(b, a), true
	case Assignable(b.notNull(), a.notNull()) && !a.is(List, Map):
		return joinNull(a, b), true
	case a.Kind == b.Kind && a.is(List, Map):
		elem, ok := join(a.Elem, b.Elem)
		return joinNull(&Type{Kind: a.Kind, Elem: elem, Nullable: a.Nullable}, b), ok
	case a.is(Map, Object) && b.is(Map, Object):
		return joinNull(&Type{Kind: Map, Elem: anyType, Nullable: a.Nullable}, b), true
	}
	return anyType, false
}

func joinNull(t, other *Type) *Type {
	if other.Nullable {
		return t.orNull()
	}
	return t
}

// Value gives v the form that expressions see: nil, bool, int, float64, string, time.Duration, []any and
// map[string]any, all the way down. Structs become maps under their yaml names, with every field there,
// whatever omitempty says: an expression that reads a field finds it. A nil slice is an empty list.
func Value(v any) any {
	switch v := v.(type) { // what has the form already, without reflection
	case nil, bool, int, float64, string, time.Duration:
		return v
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = Value(v[i])
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for k := range v {
			m[k] = Value(v[k])
		}
		return m
	case json.Number:
		return number(v)
	}
	return valueOf(reflect.ValueOf(v))
}

func valueOf(r reflect.Value) any {
	if r.Type() == reflect.TypeFor[time.Duration]() {
		return time.Duration(r.Int())
	}
	switch r.Kind() {
	case reflect.Pointer, reflect.Interface:
		if r.IsNil() {
			return nil
		}
		return Value(r.Elem().Interface())
	case reflect.Bool:
		return r.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return int(r.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if r.Uint() > math.MaxInt {
			return float64(r.Uint())
		}
		return int(r.Uint())
	case reflect.Float32, reflect.Float64:
		return r.Float()
	case reflect.String:
		return r.String()
	case reflect.Slice, reflect.Array:
		list := make([]any, r.Len())
		for i := range list {
			list[i] = Value(r.Index(i).Interface())
		}
		return list
	case reflect.Map:
		m := make(map[string]any, r.Len())
		for k, v := range r.Seq2() {
			m[fmt.Sprint(k.Interface())] = Value(v.Interface())
		}
		return m
	case reflect.Struct:
		if marshalsText(r.Type()) {
			text, err := r.Interface().(encoding.TextMarshaler).MarshalText()
			if err != nil {
				return nil
			}
			return string(text)
		}
		m := map[string]any{}
		for _, f := range fieldsOf(r.Type()) {
			m[f.name] = Value(r.FieldByIndex(f.index).Interface())
		}
		return m
	}
	return nil
}

// Decode gives a value that was decoded from JSON the form that Value gave it before it was encoded, so that
// an expression cannot tell a journaled output from a live one. Decode JSON with UseNumber: a float64 has
// lost the last digits of a large integer. A field that is absent is null, never zero: an output that an
// older version did not record is not known. What does not fit t is left as it is. Under Any durations stay
// text, since nothing says that they were durations.
func Decode(t *Type, v any) any {
	if t == nil {
		t = anyType
	}
	switch x := v.(type) {
	case nil:
		if t.is(List) && !t.Nullable {
			return []any{}
		}
		if t.is(Map) && !t.Nullable {
			return map[string]any{}
		}
		return nil
	case json.Number:
		if t.Kind == Float {
			if f, err := x.Float64(); err == nil {
				return f
			}
		}
		return number(x)
	case float64:
		if t.Kind == Int && x == math.Trunc(x) && math.Abs(x) < 1<<63 {
			return int(x)
		}
	case string:
		if t.Kind == Duration {
			if d, err := time.ParseDuration(x); err == nil {
				return d
			}
		}
	case []any:
		list := make([]any, len(x))
		for i := range x {
			list[i] = Decode(t.Elem, x[i])
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(x))
		if t.Kind != Object {
			for k := range x {
				m[k] = Decode(t.Elem, x[k])
			}
			return m
		}
		for name, field := range t.Fields {
			m[name] = nil
			if inner, ok := x[name]; ok {
				m[name] = Decode(field, inner)
			}
		}
		return m
	}
	return v
}

// number is an int if it is written like one and fits.
func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return int(i)
	}
	f, err := n.Float64()
	if err != nil {
		return n.String()
	}
	return f
}

// kindOf is the kind of a value that has the form that expressions see.
func kindOf(v any) Kind {
	switch v.(type) {
	case nil:
		return Null
	case bool:
		return Bool
	case int:
		return Int
	case float64:
		return Float
	case string:
		return String
	case time.Duration:
		return Duration
	case []any:
		return List
	case map[string]any:
		return Map
	}
	return Any
}

// conforms says whether v is what t promises, and otherwise in words what it is.
func conforms(v any, t *Type) (is string, ok bool) {
	if t == nil || t.Kind == Any || v == nil && t.nullable() {
		return "", true
	}
	switch x := v.(type) {
	case nil:
		return "null", false
	case []any:
		if t.Kind != List {
			return "a list", false
		}
		for i := range x {
			if is, ok := conforms(x[i], t.Elem); !ok {
				return fmt.Sprintf("a list with %s at [%d]", is, i), false
			}
		}
		return "", true
	case map[string]any:
		if !t.is(Map, Object) {
			return "a map", false
		}
		for _, k := range sortedKeys(x) {
			want := t.Elem
			if t.Kind == Object {
				if want = t.Fields[k]; want == nil {
					return fmt.Sprintf("a map with the key %q", k), false
				}
			}
			if is, ok := conforms(x[k], want); !ok {
				return fmt.Sprintf("a map with %s at %s", is, k), false
			}
		}
		for name, field := range t.Fields {
			if _, there := x[name]; !there && !field.nullable() {
				return "a map without " + name, false
			}
		}
		return "", true
	}
	k := kindOf(v)
	if k == t.Kind || k == Int && t.Kind == Float {
		return "", true
	}
	return k.String(), false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
