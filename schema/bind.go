package schema

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A MismatchError says that a value has not the type that its place wants.
type MismatchError struct {
	Input      string // the input and the place in it, such as slots[2]; empty: the value itself
	Wanted     string
	Given      string
	Suggestion string
}

func (e *MismatchError) Error() string {
	message := "wanted " + e.Wanted + ", got " + e.Given
	if e.Input != "" {
		message = fmt.Sprintf("input %q: %s", e.Input, message)
	}
	return message
}

// in puts a place in front of a mismatch's own.
func in(place string, err error) error {
	e, ok := err.(*MismatchError)
	if !ok {
		return fmt.Errorf("input %q: %w", place, err)
	}
	if e.Input != "" && e.Input[0] != '[' {
		place += "."
	}
	e.Input = place + e.Input
	return e
}

// Bind sets the fields of a struct, by their yaml tags, from evaluated inputs: nil,
// bool, int, float64, string, time.Duration, []any and map[string]any, or values of
// the field's own type. A field that is not given has its default tag's value; one
// whose yaml tag says required must be given. Nothing is coerced but what the
// language documents: slots from an int, a list of ints or a text of ranges,
// durations and sizes from text, addresses and names from text, an int where a
// number is wanted. Errors are about all inputs and name them.
func Bind(values map[string]any, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("bind inputs: want a pointer to a struct, got %T", into)
	}
	return bindStruct(values, v.Elem())
}

// CheckLiteral tells whether a literal value could be bound to a field of this type.
func CheckLiteral(t reflect.Type, v any) error {
	return assign(reflect.New(t).Elem(), v)
}

func bindStruct(values map[string]any, v reflect.Value) error {
	p := planOf(v.Type())
	var problems bindErrors
	for _, name := range slices.Sorted(maps.Keys(values)) {
		f := p.field(name)
		if f == nil {
			near, _ := Nearest(name, p.names)
			problems = append(problems, &MismatchError{Input: name, Wanted: oneOf("one of ", p.names), Given: "a name that is not known", Suggestion: near})
			continue
		}
		if err := assign(v.Field(f.index), values[name]); err != nil {
			problems = append(problems, in(name, err))
		} else if err := f.accepts(v.Field(f.index)); err != nil {
			problems = append(problems, in(name, err))
		}
	}
	for i := range p.fields {
		f := &p.fields[i]
		if _, given := values[f.name]; given {
			continue
		}
		if f.required {
			problems = append(problems, &MismatchError{Input: f.name, Wanted: f.wants(f.typ), Given: "nothing"})
			continue
		}
		if text, ok := f.tag.Lookup("default"); ok {
			if err := assignText(v.Field(f.index), text); err != nil {
				problems = append(problems, in(f.name, err))
			}
		}
	}
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return problems[0]
	}
	return problems
}

// bindErrors is one error about several inputs.
type bindErrors []error

func (e bindErrors) Unwrap() []error { return e }

func (e bindErrors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// assignText sets a field from its default tag: a YAML scalar for plain types, else the text itself.
func assignText(v reflect.Value, text string) error {
	s := Scalar{Text: text, Tag: resolve(text)}
	if err := assign(v, s.Plain()); err == nil {
		return nil
	}
	return assign(v, text)
}

// The types with rules of their own.
var (
	durationType = reflect.TypeFor[time.Duration]()
	slotsType    = reflect.TypeFor[Slots]()
	sizeType     = reflect.TypeFor[Size]()
	addrType     = reflect.TypeFor[Addr]()
	targetType   = reflect.TypeFor[TargetName]()
	secretType   = reflect.TypeFor[Secret]()
)

// assign sets v to a value, by the rules of Bind.
func assign(v reflect.Value, x any) error {
	t := v.Type()
	mismatch := func() error { return &MismatchError{Wanted: wanted(t), Given: given(x)} }
	if x == nil {
		switch t.Kind() {
		case reflect.Pointer, reflect.Interface:
			v.SetZero()
			return nil
		}
		return mismatch()
	}
	given := reflect.ValueOf(x)
	if given.Type() == t && t.Kind() != reflect.Slice && t.Kind() != reflect.Map && t != addrType {
		v.Set(given)
		return nil
	}
	switch t {
	case durationType:
		return assignUnit(v, x, ParseDuration)
	case sizeType:
		if n, ok := integer(x); ok && n >= 0 {
			v.SetInt(n)
			return nil
		}
		return assignUnit(v, x, ParseSize)
	case slotsType:
		return assignSlots(v, x)
	case addrType:
		if given.Kind() != reflect.String {
			return mismatch()
		}
		if !isAddr(given.String()) {
			return &MismatchError{Wanted: wanted(t), Given: quoted(given.String())}
		}
		v.SetString(given.String())
		return nil
	case secretType:
		if text, ok := x.(string); ok {
			v.Set(reflect.ValueOf(NewSecret(text)))
			return nil
		}
		return mismatch()
	}
	switch t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		if err := assign(p.Elem(), x); err != nil {
			return err
		}
		v.Set(p)
		return nil
	case reflect.Interface:
		if given.Type().AssignableTo(t) {
			v.Set(given)
			return nil
		}
	case reflect.String:
		if given.Kind() == reflect.String && given.Type() != addrType {
			v.SetString(given.String())
			return nil
		}
	case reflect.Bool:
		if given.Kind() == reflect.Bool {
			v.SetBool(given.Bool())
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := integer(x); ok && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, ok := integer(x); ok && n >= 0 && !v.OverflowUint(uint64(n)) {
			v.SetUint(uint64(n))
			return nil
		}
	case reflect.Float32, reflect.Float64:
		if n, ok := integer(x); ok {
			v.SetFloat(float64(n))
			return nil
		}
		if f, ok := x.(float64); ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
			v.SetFloat(f)
			return nil
		}
	case reflect.Slice:
		if given.Kind() == reflect.Slice {
			return assignList(v, given)
		}
	case reflect.Map:
		if given.Kind() == reflect.Map && given.Type().Key().Kind() == reflect.String {
			return assignMap(v, given)
		}
	case reflect.Struct:
		if m, ok := x.(map[string]any); ok {
			v.SetZero()
			return bindStruct(m, v)
		}
	}
	return mismatch()
}

func assignUnit[T any](v reflect.Value, x any, parse func(string) (T, error)) error {
	text, ok := x.(string)
	if !ok {
		e := &MismatchError{Wanted: wanted(v.Type()), Given: given(x)}
		if n, isInt := integer(x); isInt && v.Type() == durationType {
			e.Suggestion = strconv.FormatInt(n, 10) + "s"
		}
		return e
	}
	n, err := parse(text)
	if err != nil {
		unit := err.(*UnitError)
		return &MismatchError{Wanted: wanted(v.Type()), Given: quoted(text), Suggestion: unit.Suggestion}
	}
	v.Set(reflect.ValueOf(n))
	return nil
}

func assignSlots(v reflect.Value, x any) error {
	var slots Slots
	var err error
	if n, ok := integer(x); ok {
		slots, err = slotsOf([]int{int(n)})
	} else if text, ok := x.(string); ok {
		slots, err = ParseSlots(text)
	} else if list := reflect.ValueOf(x); list.Kind() == reflect.Slice {
		numbers := make([]int, list.Len())
		for i := range numbers {
			n, ok := integer(list.Index(i).Interface())
			if !ok {
				return &MismatchError{Input: fmt.Sprintf("[%d]", i), Wanted: "a slot", Given: given(list.Index(i).Interface())}
			}
			numbers[i] = int(n)
		}
		slots, err = slotsOf(numbers)
	} else {
		return &MismatchError{Wanted: wanted(slotsType), Given: given(x)}
	}
	if err != nil {
		unit := err.(*UnitError)
		return &MismatchError{Wanted: wanted(slotsType), Given: quoted(unit.Text) + " (" + unit.Problem + ")"}
	}
	v.Set(reflect.ValueOf(slots))
	return nil
}

func assignList(v, given reflect.Value) error {
	list := reflect.MakeSlice(v.Type(), given.Len(), given.Len())
	for i := range given.Len() {
		if err := assign(list.Index(i), given.Index(i).Interface()); err != nil {
			return in(fmt.Sprintf("[%d]", i), err)
		}
	}
	v.Set(list)
	return nil
}

func assignMap(v, given reflect.Value) error {
	m := reflect.MakeMapWithSize(v.Type(), given.Len())
	for _, key := range slices.SortedFunc(maps.Keys(keySet(given)), strings.Compare) {
		value := reflect.New(v.Type().Elem()).Elem()
		if err := assign(value, given.MapIndex(reflect.ValueOf(key).Convert(given.Type().Key())).Interface()); err != nil {
			return in(key, err)
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
	}
	v.Set(m)
	return nil
}

func keySet(m reflect.Value) map[string]bool {
	keys := make(map[string]bool, m.Len())
	for _, key := range m.MapKeys() {
		keys[key.String()] = true
	}
	return keys
}

// integer gives a value of one of Go's integer types; durations and sizes are none.
func integer(x any) (int64, bool) {
	switch n := x.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	v := reflect.ValueOf(x)
	if v.IsValid() && v.CanInt() && v.Type() != durationType && v.Type() != sizeType {
		return v.Int(), true
	}
	return 0, false
}

// isAddr tells host:port, with an IPv6 host in brackets.
func isAddr(text string) bool {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return false
	}
	host, port := text[:i], text[i+1:]
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || port[0] == '+' || port[0] == '0' {
		return false
	}
	if strings.HasPrefix(host, "[") {
		return strings.HasSuffix(host, "]") && strings.Contains(host, ":")
	}
	return !strings.ContainsAny(host, ":/@[] \t")
}
