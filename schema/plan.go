package schema

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// field is one declaration: a key of a struct with what its tags say.
type field struct {
	name     string
	index    int
	typ      reflect.Type
	tag      reflect.StructTag
	required bool
	enum     []string
	pattern  *regexp.Regexp
	keys     *regexp.Regexp // of the keys of a map
	bounded  bool           // has a min or max tag
}

// plan is a struct type read as declarations.
type plan struct {
	typ    reflect.Type
	fields []field
	names  []string
	byName map[string]int
	rest   int // index of the field that takes unknown keys, or -1
	span   int // index of the field Span, or -1
}

// planOf is newPlan, once for each type: every step that runs binds its inputs by one.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p, _ := plans.LoadOrStore(t, newPlan(t))
	return p.(*plan)
}

// plans are what planOf has read; the types are those of the program, so it does not grow.
var plans sync.Map // of *plan, by reflect.Type

// newPlan reads a struct's tags. A field without a yaml tag has its name in lower
// case; one of an embedded struct without a tag counts as the struct's own is not supported.
func newPlan(t reflect.Type) *plan {
	p := &plan{typ: t, byName: make(map[string]int, t.NumField()), rest: -1, span: -1}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "rest":
			p.rest = i
			continue
		case f.Name == "Span" && f.Type == reflect.TypeFor[Span]():
			p.span = i
			continue
		case name == "-":
			continue
		case name == "":
			name = strings.ToLower(f.Name)
		}
		decl := field{name: name, index: i, typ: f.Type, tag: f.Tag, required: slices.Contains(strings.Split(options, ","), "required")}
		if words := f.Tag.Get("enum"); words != "" {
			decl.enum = strings.Split(words, ",")
		}
		if pattern := f.Tag.Get("pattern"); pattern != "" {
			decl.pattern = regexp.MustCompile(pattern)
		}
		if pattern := f.Tag.Get("keys"); pattern != "" {
			decl.keys = regexp.MustCompile(pattern)
		}
		decl.bounded = f.Tag.Get("min") != "" || f.Tag.Get("max") != ""
		p.byName[name] = len(p.fields)
		p.fields = append(p.fields, decl)
		p.names = append(p.names, name)
	}
	return p
}

func (p *plan) field(name string) *field {
	if i, ok := p.byName[name]; ok {
		return &p.fields[i]
	}
	return nil
}

// wants says in words what the field takes for a value of this type.
func (f *field) wants(t reflect.Type) string {
	if len(f.enum) > 0 && t.Kind() == reflect.String {
		return oneOf("one of ", f.enum)
	}
	return wanted(t)
}

// accepts checks a bound value against the field's enum and pattern.
func (f *field) accepts(v reflect.Value) error {
	if v.Kind() == reflect.Slice && len(f.enum) > 0 {
		for i := range v.Len() {
			if err := f.accepts(v.Index(i)); err != nil {
				return in(fmt.Sprintf("[%d]", i), err)
			}
		}
		return nil
	}
	if v.Kind() != reflect.String {
		return nil
	}
	text := v.String()
	switch {
	case len(f.enum) > 0 && !slices.Contains(f.enum, text):
		near, _ := Nearest(text, f.enum)
		return &MismatchError{Wanted: oneOf("one of ", f.enum), Given: quoted(text), Suggestion: near}
	case f.pattern != nil && !f.pattern.MatchString(text):
		return &MismatchError{Wanted: "text that matches " + f.pattern.String(), Given: quoted(text)}
	}
	return nil
}

// wanted says in words what a type takes.
func wanted(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration such as 500ms, 30s, 10m or 7d"
	case sizeType:
		return "a size such as 64mb, or a number of bytes"
	case slotsType:
		return "slots: an integer, a list of integers, or text such as 0-3,8"
	case addrType:
		return "an address host:port"
	case targetType:
		return "the name of a target"
	case secretType:
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a map"
	case reflect.Interface:
		return "a value"
	}
	return "an integer"
}

// given says in words what a value is.
func given(x any) string {
	switch x := x.(type) {
	case nil:
		return "nothing"
	case string:
		return "the text " + quoted(x)
	case bool:
		return strconv.FormatBool(x)
	case float64:
		return "the number " + strconv.FormatFloat(x, 'g', -1, 64)
	case Secret:
		return "a secret"
	}
	if n, ok := integer(x); ok {
		return "the integer " + strconv.FormatInt(n, 10)
	}
	switch v := reflect.ValueOf(x); v.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "a map"
	case reflect.String:
		return "the text " + quoted(v.String())
	}
	return fmt.Sprintf("%v", x)
}

// quoted shows a text in a message, shortened where it is long.
func quoted(text string) string {
	if runes := []rune(text); len(runes) > 60 {
		text = string(runes[:57]) + "…"
	}
	return strconv.Quote(text)
}

// oneOf lists words.
func oneOf(lead string, words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return lead + strings.Join(words, ", ")
}

// noun names a struct type in messages: a step, a max-age.
func noun(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[SecretSource]():
		return "a secret"
	case reflect.TypeFor[HTTPDefaults]():
		return "http defaults"
	case reflect.TypeFor[Defaults]():
		return "defaults"
	case reflect.TypeFor[PolicyFile]():
		return "a policy file"
	}
	var b strings.Builder
	for i, r := range t.Name() {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	switch name := b.String(); {
	case name == "":
		return "this map"
	case strings.ContainsRune("aeiou", rune(name[0])):
		return "an " + name
	default:
		return "a " + name
	}
}
