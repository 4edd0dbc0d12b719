package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbook/schema"
)

const inputsBook = `version: 1
name: inputs
inputs:
  s: {type: string, default: x, pattern: "[a-z0-9.]+"}
  i: {type: int, default: 1, min: 0, max: 10}
  f: {type: float, default: 1}
  b: {type: bool, default: false}
  d: {type: duration, default: 5s, max: 1h}
  z: {type: size, default: 1kb}
  a: {type: addr, default: "h:1"}
  l: {type: list, default: []}
  m: {type: map, default: {}}
  slots: {type: slots, default: "1", check: len(value) <= 3}
  e: {type: string, enum: [one, two], default: one}
  t: {type: target, kind: redis, default: one}
targets:
  one: {kind: redis, addr: "127.0.0.1:1"}
  two: {kind: redis, addr: "127.0.0.1:2"}
  other: {kind: pika, addr: "127.0.0.1:3"}
steps:
  - id: use
    uses: check
    with: {that: ['[inputs.s, inputs.i, inputs.f, inputs.b, inputs.d, inputs.z, inputs.a, inputs.l, inputs.m, inputs.slots, inputs.e, inputs.t] != []']}
`

func TestInputFlags(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, inputsBook)
	for _, test := range []struct {
		flag string
		want any // an error's text begins with !
	}{
		{"s=5", "5"}, {"s=a=b", `!"a=b" does not match`}, {"i=7", 7}, {"i=-1", "!-1 is less than 0"}, {"i=11", "!11 is more than 10"},
		{"i=1.5", "!wanted an integer"}, {"i=012", "!"}, {"i='7'", "!wanted an integer"}, {"i=", "!"}, {"f=2", 2.0}, {"f=2.5", 2.5}, {"f=x", "!wanted a number"},
		{"b=true", true}, {"b=yes", "!wanted true or false"}, {"d=1m30s", 90 * time.Second}, {"d=90", "!wanted a duration"}, {"d=2h", "!2h0m0s is more than 1h0m0s"},
		{"z=64mb", 64 << 20}, {"z=5", 5}, {"a=10.0.0.1:80", "10.0.0.1:80"}, {"a=nowhere", "!"},
		{"l=[1, two]", []any{1, "two"}}, {"l=5", "!wanted a list"}, {"l=[1", "!"}, {"m={a: 1}", map[string]any{"a": 1}}, {"m=[1]", "!wanted a map"},
		{"slots=0-2", []any{0, 1, 2}}, {"slots=0-3", "!check: len(value) <= 3 does not hold"}, {"slots=3-1", "!"},
		{"e=two", "two"}, {"e=tow", "!tow is not one of one, two"}, {"t=two", "two"}, {"t=tow", `!there is no target "tow"`}, {"t=other", "!target other is of kind pika"},
	} {
		in, findings, err := p.BindInputs(GivenInputs{Flags: []string{test.flag}})
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(test.flag, "=")
		if text, ok := test.want.(string); ok && strings.HasPrefix(text, "!") {
			if len(findings) != 1 || !strings.Contains(findings[0].Message, "input "+name+": "+text[1:]) {
				t.Errorf("%s: got %v, wanted %s", test.flag, findings, text[1:])
			}
			continue
		}
		if len(findings) > 0 {
			t.Errorf("%s: %v", test.flag, findings)
			continue
		}
		if diff := cmp.Diff(test.want, in.Values[name]); diff != "" {
			t.Errorf("%s: %s", test.flag, diff)
		}
	}
	if _, _, err := p.BindInputs(GivenInputs{Flags: []string{"nonsense"}}); err == nil {
		t.Error("-i without = was taken")
	}
}

func TestInputsOrder(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, inputsBook)
	in, findings, err := p.BindInputs(GivenInputs{
		Flags:     []string{"i=1", "i=2"},
		File:      FileText{"in.yaml", []byte("i: 3\ne: two\n")},
		Inventory: FileText{"inv.yaml", []byte("inputs: {i: 4, e: one, s: inv}\n")},
		World:     map[string]any{"i": 5, "s": "world", "d": "7s"}, WorldPath: "w.yaml",
	})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	got := fmt.Sprintln(in.Values["i"], in.Values["e"], in.Values["s"], in.Values["d"], in.Origins["i"], in.Origins["e"], in.Origins["s"], in.Origins["d"], in.Origins["b"])
	if want := "2 two inv 7s flag file inventory sandbox default\n"; got != want {
		t.Errorf("got %s, wanted %s", got, want)
	}
	_, findings, err = p.BindInputs(GivenInputs{File: FileText{"in.yaml", []byte("slot: 3\n\ni: many\n")}})
	if err != nil || len(findings) != 2 {
		t.Fatal(err, findings)
	}
	if f := findings[0]; f.Line != 1 || f.Rule != "unknown-input" || f.Suggestion != "slots" {
		t.Errorf("got %+v", f)
	}
	if f := findings[1]; f.Line != 3 || f.Column != 4 || f.Rule != "input-type" {
		t.Errorf("got %+v", f)
	}
}

func TestMissingAndSecretInputs(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, `version: 1
name: missing
inputs:
  one: {type: int, description: Which}
  two: {type: slots}
steps:
  - id: use
    uses: check
    with: {that: [inputs.one > 0, len(inputs.two) > 0]}
`)
	_, findings, err := p.BindInputs(GivenInputs{})
	if err != nil || len(findings) != 2 || findings[0].Line != 4 || findings[1].Line != 5 {
		t.Fatal(err, findings)
	}
	if want := "input one is required (int: Which)"; findings[0].Message != want {
		t.Errorf("got %s", findings[0].Message)
	}
}

func TestReadSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from file\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	leaf := func(s string) schema.Leaf[string] { return schema.Leaf[string]{Value: s, Set: true} }
	secrets := []*Secret{
		{"env", &schema.SecretSource{Env: leaf("THE_SECRET")}},
		{"file", &schema.SecretSource{File: leaf("file")}},
		{"command", &schema.SecretSource{Command: []schema.Leaf[string]{leaf("printf"), leaf(`%s\n`), leaf("abc")}}},
	}
	environ := func(name string) (string, bool) { return "from env", name == "THE_SECRET" }
	p := &Program{Root: &Unit{Secrets: secrets}}
	s, err := p.ReadSecrets(t.Context(), dir, environ)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"env": "from env", "file": "from file\n", "command": "abc"}
	if diff := cmp.Diff(want, s.Values); diff != "" {
		t.Error(diff)
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "secret command has fewer than 4") {
		t.Errorf("got %v", s.Warnings)
	}
	p.Root.Secrets = []*Secret{
		{"one", &schema.SecretSource{Env: leaf("NOT_THERE")}},
		{"two", &schema.SecretSource{File: leaf("nothing")}},
		{"three", &schema.SecretSource{Command: []schema.Leaf[string]{leaf("sh"), leaf("-c"), leaf("echo locked >&2; exit 3")}}},
	}
	_, err = p.ReadSecrets(t.Context(), dir, environ)
	usage, ok := err.(*UsageError)
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"3 secrets cannot be read", "one: the environment variable NOT_THERE is not set", "two: read its file", "three: run sh: exit status 3: locked"} {
		if !strings.Contains(usage.Error(), part) {
			t.Errorf("%q is not in %q", part, usage)
		}
	}
}
