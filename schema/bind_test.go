package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestBind(t *testing.T) {
	var got moveIn
	err := Bind(map[string]any{
		"slots": []any{8, 0, 1}, "peer": "pika5", "max_pause": "1d12h", "size": "64mb", "force": true,
		"ratio": 1, "mode": "full", "hosts": []any{"a:1", "[::1]:2"}, "env": map[string]any{"a": "b"},
		"password": "hidden", "nested": map[string]any{"addr": "x:9"}, "any": []any{1, "a"},
		"that": []any{Condition{Text: "a"}},
	}, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := moveIn{
		Slots: Slots{0, 1, 8}, Peer: "pika5", Wait: 36 * time.Hour, Size: 64 << 20, Force: true, Count: 3,
		Ratio: 1, Mode: "full", Hosts: []Addr{"a:1", "[::1]:2"}, Env: map[string]string{"a": "b"},
		Password: NewSecret("hidden"), Any: []any{1, "a"}, That: []Condition{{Text: "a"}},
	}
	want.Nested = got.Nested
	if diff := cmp.Diff(want, got); diff != "" || got.Nested.Addr != "x:9" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBindRefuses(t *testing.T) {
	for _, test := range []struct {
		values map[string]any
		want   string
	}{
		{map[string]any{}, `input "slots": wanted slots: an integer, a list of integers, or text such as 0-3,8, got nothing`},
		{map[string]any{"slots": 1, "coutn": 1}, `input "coutn": wanted one of slots, peer, master, max_pause, size, force, none, count, ratio, mode, hosts, env, password, nested, that, any, got a name that is not known`},
		{map[string]any{"slots": true}, `input "slots": wanted slots: an integer, a list of integers, or text such as 0-3,8, got true`},
		{map[string]any{"slots": []any{1, "2"}}, `input "slots[1]": wanted a slot, got the text "2"`},
		{map[string]any{"slots": -1}, `input "slots": wanted slots: an integer, a list of integers, or text such as 0-3,8, got "-1" (slots are 0 to 65535)`},
		{map[string]any{"slots": 1, "count": "1"}, `input "count": wanted an integer, got the text "1"`},
		{map[string]any{"slots": 1, "count": 1.0}, `input "count": wanted an integer, got the number 1`},
		{map[string]any{"slots": 1, "force": "true"}, `input "force": wanted true or false, got the text "true"`},
		{map[string]any{"slots": 1, "force": nil}, `input "force": wanted true or false, got nothing`},
		{map[string]any{"slots": 1, "master": 5}, `input "master": wanted text, got the integer 5`},
		{map[string]any{"slots": 1, "max_pause": 5}, `input "max_pause": wanted a duration such as 500ms, 30s, 10m or 7d, got the integer 5`},
		{map[string]any{"slots": 1, "max_pause": "5"}, `input "max_pause": wanted a duration such as 500ms, 30s, 10m or 7d, got "5"`},
		{map[string]any{"slots": 1, "count": time.Second}, `input "count": wanted an integer, got 1s`},
		{map[string]any{"slots": 1, "mode": "half"}, `input "mode": wanted one of sample, full, got "half"`},
		{map[string]any{"slots": 1, "hosts": []any{"a:1", "b"}}, `input "hosts[1]": wanted an address host:port, got "b"`},
		{map[string]any{"slots": 1, "env": map[string]any{"a": 1}}, `input "env.a": wanted text, got the integer 1`},
		{map[string]any{"slots": 1, "nested": map[string]any{}}, `input "nested.addr": wanted an address host:port, got nothing`},
		{map[string]any{"slots": 1, "password": 5}, `input "password": wanted text, got the integer 5`},
	} {
		err := Bind(test.values, &moveIn{})
		if err == nil || err.Error() != test.want {
			t.Errorf("%v:\n got %v\nwant %s", test.values, err, test.want)
		}
	}
}

func TestCheckLiteral(t *testing.T) {
	for _, test := range []struct {
		t  reflect.Type
		v  any
		ok bool
	}{
		{slotsType, "0-3,8", true}, {slotsType, 5, true}, {slotsType, "3-1", false}, {slotsType, "0-99999", false}, {slotsType, "", false},
		{durationType, "5s", true}, {durationType, 5, false}, {durationType, 5 * time.Second, true},
		{sizeType, 5, true}, {sizeType, "5kb", true}, {sizeType, "5 kb", true}, {sizeType, "5xb", false}, {sizeType, -5, false},
		{addrType, "a:1", true}, {addrType, "a", false}, {addrType, ":1", false}, {addrType, "a:0", false}, {addrType, "a:b:1", false}, {addrType, "[::1]:1", true},
		{reflect.TypeFor[[]string](), []any{"a"}, true}, {reflect.TypeFor[[]string](), []any{1}, false}, {reflect.TypeFor[[]string](), "a", false},
		{reflect.TypeFor[*int](), 5, true}, {reflect.TypeFor[*int](), nil, true}, {reflect.TypeFor[int](), nil, false},
		{reflect.TypeFor[float64](), 5, true}, {reflect.TypeFor[int64](), 1.5, false}, {reflect.TypeFor[any](), map[string]any{}, true},
	} {
		if err := CheckLiteral(test.t, test.v); (err == nil) != test.ok {
			t.Errorf("%v from %#v: want ok=%v, got %v", test.t, test.v, test.ok, err)
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "5s": 5 * time.Second, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour, "-2d": -48 * time.Hour,
		"1h30m": 90 * time.Minute, "100us": 100 * time.Microsecond,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "1.5", "d", "1d-5h", "1d5", "5 s", "s5", "--5s", "999999d", "106751d999h", "1dd", "+-1s", "NaNd", "1e3d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	if _, err := ParseDuration("30"); err.(*UnitError).Suggestion != "30s" {
		t.Error("no suggestion for a number without a unit")
	}
	for text, want := range map[string]Size{"0": 0, "5": 5, "1k": 1000, "1kb": 1024, "64MB": 64 << 20, "2 gb": 2 << 30, "1tb": 1 << 40, "7b": 7} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "mb", "-1", "1.5gb", "1zb", "9999999999tb", "1mbb"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestSlotsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := normal(rapid.SliceOfN(rapid.IntRange(0, 300), 1, 60).Draw(t, "slots"))
		got, err := ParseSlots(Slots(slots).String())
		if err != nil || !cmp.Equal(got, Slots(slots)) {
			t.Fatalf("%v as %s is %v, %v", slots, Slots(slots), got, err)
		}
	})
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := NewSecret("hunter2")
	type inner struct{ Password Secret }
	type hidden struct{ password Secret }
	var logged bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logged, nil))
	logger.Info("x", "secret", s, "struct", inner{s}, "hidden", hidden{s})
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "secret", s, "struct", inner{s})
	text, _ := s.MarshalText()
	asJSON, _ := json.Marshal(map[string]any{"a": s, "b": inner{s}, "c": &s})
	for name, out := range map[string]string{
		"String": s.String(), "GoString": s.GoString(), "MarshalText": string(text), "MarshalJSON": string(asJSON),
		"LogValue": s.LogValue().String(), "log": logged.String(),
	} {
		if strings.Contains(out, "hunter2") || !strings.Contains(out, "***") {
			t.Errorf("%s gives %s", name, out)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10s", "%-5v"} {
		for i, v := range []any{s, &s, inner{s}, &inner{s}, hidden{s}, []Secret{s}, map[string]Secret{"a": s}} {
			out := fmt.Sprintf(verb, v)
			if i == 0 && verb != "%T" && out != "***" {
				t.Errorf("%s gives %s", verb, out)
			}
			if strings.Contains(out, "hunter2") || strings.Contains(out, "68756e746572") {
				t.Errorf("%s of %T gives %s", verb, v, out)
			}
		}
	}
	if s.Reveal() != "hunter2" || (Secret{}).Reveal() != "" || !(Secret{}).IsZero() || s.IsZero() {
		t.Error("Reveal does not give the text")
	}
}

func TestNearest(t *testing.T) {
	keys := newPlan(reflect.TypeFor[Step]()).names
	for name, want := range map[string]string{
		"tiemout": "timeout", "wait_until": "wait-until", "waitUntil": "wait-until", "foreach": "for-each", "use": "uses",
		"target_s": "targets", "retries": "", "xyz": "", "": "", "a": "", "on-faliure": "on-failure", "whne": "when",
	} {
		if got, _ := Nearest(name, keys); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	type system struct {
		Kind    string `yaml:"kind,required"`
		Slots   Slots  `yaml:"slots"`
		Keys    int
		Replica string        `yaml:"replica_of"`
		Delay   time.Duration `yaml:"delay"`
		Memory  Size          `yaml:"memory"`
		Absent  *bool         `yaml:"absent"`
		Groups  map[string][]string
		Ratio   float64
		Rest    any `yaml:"rest"`
	}
	type world struct {
		Version int               `yaml:"version,required"`
		Systems map[string]system `yaml:"systems"`
		Inputs  map[string]any    `yaml:"inputs"`
		Names   []string          `yaml:"names" enum:"a,b"`
	}
	var got world
	src := `
version: 1
systems:
  pika1: {kind: pika, slots: 0-3, keys: 2000, delay: 5s, memory: 1kb, absent: true, ratio: 1}
  codis: {kind: codis, groups: {1: [a, b], 2: []}, slots: [5, 1], rest: {a: [1, 2.5, null, x]}}
inputs: {slots: "1", n: 5}
names: [a, b]
`
	if findings := Decode("world.yaml", []byte(src), &got); len(findings) > 0 {
		t.Fatal(findings)
	}
	yes := true
	want := world{
		Version: 1, Inputs: map[string]any{"slots": "1", "n": 5}, Names: []string{"a", "b"},
		Systems: map[string]system{
			"pika1": {Kind: "pika", Slots: Slots{0, 1, 2, 3}, Keys: 2000, Delay: 5 * time.Second, Memory: 1024, Absent: &yes, Ratio: 1},
			"codis": {Kind: "codis", Slots: Slots{1, 5}, Groups: map[string][]string{"1": {"a", "b"}, "2": {}}, Rest: map[string]any{"a": []any{1, 2.5, nil, "x"}}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var lines []string
	for _, f := range Decode("w.yaml", []byte("systems:\n  a: {knd: pika, slots: x, slots: 1}\n  b: {kind: 5, memory: big, delay: 3}\nnames: [c]\nzzz: 1\n"), &got) {
		lines = append(lines, f.String())
	}
	if len(lines) != 9 {
		t.Errorf("%d findings:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}
