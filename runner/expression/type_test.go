package expression

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type (
	slotNumbers []int
	amount      int64
	embedded    struct {
		Role string `yaml:"role"`
	}
	output struct {
		Connected bool              `yaml:"connected"`
		Lag       *int              `yaml:"lag,omitempty"`
		Bytes     amount            `yaml:"bytes"`
		Unsigned  uint16            `yaml:"unsigned"`
		Rate      float32           `yaml:"rate"`
		Pause     time.Duration     `yaml:"pause"`
		Left      *time.Duration    `yaml:"left"`
		Slots     slotNumbers       `yaml:"slots"`
		Labels    map[string]string `yaml:"labels"`
		Nodes     []*embedded       `yaml:"nodes"`
		Free      any               `yaml:"free"`
		Addr      netip.Addr        `yaml:"addr"`
		Plain     string
		Hidden    string `yaml:"-"`
		private   int
		embedded  `yaml:",inline"`
	}
	tree struct {
		Children []tree `yaml:"children"`
	}
)

func TestTypeOf(t *testing.T) {
	typ := TypeOf(reflect.TypeFor[output]())
	got := map[string]string{}
	for name, field := range typ.Fields {
		got[name] = field.String()
	}
	want := map[string]string{
		"connected": "bool", "lag": "int or null", "bytes": "int", "unsigned": "int", "rate": "float",
		"pause": "duration", "left": "duration or null", "slots": "list of int", "labels": "map of string",
		"nodes": "list of object {role} or null", "free": "any", "addr": "string", "plain": "string", "role": "string",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s := TypeOf(reflect.TypeFor[*embedded]()).String(); s != "object {role} or null" {
		t.Error(s)
	}
	if s := TypeOf(reflect.TypeFor[tree]()).String(); s != "object {children}" {
		t.Error(s)
	}
	if s := TypeOf(nil).String(); s != "any" {
		t.Error(s)
	}
}

func TestValue(t *testing.T) {
	lag, pause := 7, time.Second
	in := output{Connected: true, Lag: &lag, Bytes: 1 << 40, Unsigned: 9, Rate: 0.5, Pause: pause, Left: &pause, Slots: slotNumbers{1, 2},
		Nodes: []*embedded{{"a"}, nil}, Free: []string{"x"}, Addr: netip.MustParseAddr("::1"), Plain: "p", Hidden: "h", private: 1, embedded: embedded{"r"}}
	want := map[string]any{
		"connected": true, "lag": 7, "bytes": 1 << 40, "unsigned": 9, "rate": 0.5, "pause": pause, "left": pause, "slots": []any{1, 2},
		"labels": map[string]any{}, "nodes": []any{map[string]any{"role": "a"}, nil}, "free": []any{"x"}, "addr": "::1", "plain": "p", "role": "r",
	}
	got := Value(&in)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if is, ok := conforms(got, TypeOf(reflect.TypeFor[output]())); !ok {
		t.Errorf("the value is %s", is)
	}
	for _, v := range []any{nil, (*int)(nil), error(nil)} {
		if Value(v) != nil {
			t.Errorf("%#v is not null", v)
		}
	}
}

// TestDecode writes values as a journal does, and compares what comes back with what was live.
func TestDecode(t *testing.T) {
	type all struct {
		N      int               `yaml:"n"`
		F      float64           `yaml:"f"`
		D      time.Duration     `yaml:"d"`
		P      *int              `yaml:"p"`
		L      []int             `yaml:"l"`
		M      map[string]int    `yaml:"m"`
		S      string            `yaml:"s"`
		Deep   []map[string]tree `yaml:"deep"`
		Nested struct {
			D []time.Duration `yaml:"d"`
		} `yaml:"nested"`
	}
	typ := TypeOf(reflect.TypeFor[all]())
	in := all{N: 9007199254740993, F: 3, D: 1500 * time.Millisecond, L: []int{1}, M: map[string]int{"a": 1}, S: "1.5s", Deep: []map[string]tree{{"x": {}}}}
	in.Nested.D = []time.Duration{time.Hour}
	live := Value(in)
	text, err := JSON(live)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, Decode(typ, v)); diff != "" {
		t.Errorf("-live +journaled\n%s", diff)
	}

	for _, tt := range []struct {
		typ      *Type
		in, want any
	}{
		{intType, 3.0, 3},
		{intType, 3.5, 3.5},
		{floatType, json.Number("3"), 3.0},
		{durationType, "2s", 2 * time.Second},
		{durationType, "soon", "soon"},
		{intsType, nil, []any{}},
		{intsType.orNull(), nil, nil},
		{anyType, json.Number("3"), 3},
		{anyType, json.Number("3.0"), 3.0},
		{anyType, []any{json.Number("1")}, []any{1}},
		{nil, json.Number("1"), 1},
		{object(map[string]*Type{"a": intType, "b": intType}), map[string]any{"a": 1.0, "c": 2.0}, map[string]any{"a": 1, "b": nil}},
	} {
		if diff := cmp.Diff(tt.want, Decode(tt.typ, tt.in)); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.typ, diff)
		}
	}
}

func TestAssignable(t *testing.T) {
	ab := object(map[string]*Type{"a": intType, "b": stringType})
	for _, tt := range []struct {
		from, to *Type
		want     bool
	}{
		{intType, intType, true},
		{intType, floatType, true},
		{floatType, intType, false},
		{intType, stringType, false},
		{intType, durationType, false},
		{durationType, intType, false},
		{intType, intsType, false},
		{anyType, intType, true},
		{intType, anyType, true},
		{intType.orNull(), anyType, true},
		{nullType, intType, false},
		{nullType, intType.orNull(), true},
		{intType.orNull(), intType, false},
		{intType, intType.orNull(), true},
		{listType, intsType, true}, // []
		{intsType, listOf(floatType), true},
		{listOf(intType.orNull()), intsType, false},
		{ab, ab, true},
		{object(map[string]*Type{"a": intType}), ab, false},
		{object(map[string]*Type{"a": intType}), object(map[string]*Type{"a": intType, "b": stringType.orNull()}), true},
		{ab, object(map[string]*Type{"a": intType}), false},
		{ab, mapType, true},
		{ab, &Type{Kind: Map, Elem: intType}, false},
		{&Type{Kind: Map, Elem: intType}, ab, false},
	} {
		if got := Assignable(tt.from, tt.to); got != tt.want {
			t.Errorf("%s to %s: %v", tt.from, tt.to, got)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{
		{"x", "x"}, {3, "3"}, {-3, "-3"}, {1.5, "1.5"}, {3.0, "3"}, {1e21, "1000000000000000000000"}, {true, "true"},
		{1500 * time.Millisecond, "1.5s"}, {time.Minute, "1m0s"},
		{[]any{0, 1, 2, 3, 8}, "0-3,8"}, {[]any{5}, "5"}, {[]any{1, 2}, "1-2"}, {[]any{1, 3}, "1,3"},
		{[]any{2, 1}, "[2,1]"}, {[]any{1, 1}, "[1,1]"}, {[]any{-1, 0}, "[-1,0]"}, {[]any{}, "[]"}, {[]any{1, "a"}, `[1,"a"]`},
		{map[string]any{"b": time.Second, "a": []any{1, 2}}, `{"a":[1,2],"b":"1s"}`},
	} {
		if got, err := Text(tt.in); got != tt.want || err != nil {
			t.Errorf("%v: got %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
	if _, err := Text(nil); err == nil {
		t.Error("null has a text")
	}
}
