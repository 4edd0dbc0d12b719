package runner

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// The runbook of the language's description binds.
func TestExample(t *testing.T) {
	p, findings := Load("../testdata/scale-out.yaml", LoadOptions{Catalog: fakeCatalog()})
	for _, f := range findings {
		if f.Rule != "unused-input" { // it declares from_group for its reader
			t.Errorf("%s", f)
		}
	}
	if p == nil {
		t.Fatal("there is no program")
	}
	n := p.Root.nodes
	if got := n["switch"].Loop.Known; !got {
		t.Error("waves of an input are not known before running")
	}
	if got := n["switch"].Loop.ElemType.String(); got != "list of int" {
		t.Errorf("a wave is %s", got)
	}
	if n["clean_up"].Effect != steps.Destroy || n["preflight"].Effect != steps.Read {
		t.Error("a group has not the worst effect in it")
	}
	if n["delete_slots"].Confirm != nil {
		t.Error("the group's confirm does not cover the destructive step in it")
	}
	if !n["clean_up"].PointOfNoReturn || !n["delete_slots"].PointOfNoReturn || n["follow"].PointOfNoReturn {
		t.Error("points of no return")
	}
}

func mustLoad(t *testing.T, text string) *Program {
	t.Helper()
	p, findings := load(t, text)
	if p == nil {
		t.Fatalf("it does not load: %v", findings)
	}
	return p
}

func TestSettings(t *testing.T) {
	p := mustLoad(t, head+`defaults: {every: 3s, attempt-timeout: 7s, retry: {attempts: 4}}
steps:
  - {id: w, uses: redis.info, target: a, wait-until: connected, timeout: 1m}
  - {id: d, uses: redis.remove-instance, target: a}
  - {id: waived, uses: redis.remove-instance, target: a, confirm: false, why: it is empty}
  - {id: asked, uses: redis.remove-instance, target: a, confirm: Really}
  - id: g
    steps:
    - {id: c, uses: redis.config-set, target: b, with: {name: maxmemory, value: 1mb}}
  - {id: f, uses: redis.info, targets: [b, a], max-parallel: 2}
`)
	n := p.Root.nodes
	w := n["w"]
	if w.Wait.Every.Value != 3*time.Second || w.Timeout.Value != time.Minute || !w.Timeout.Set || w.AttemptTimeout.Value != 7*time.Second || w.Retry.Attempts.Value != 4 {
		t.Errorf("settings of w: %+v %+v %+v %+v", w.Wait.Every, w.Timeout, w.AttemptTimeout, w.Retry)
	}
	if c := n["c"]; c.Timeout.Set || c.Timeout.Value != 10*time.Minute || n["g"].Timeout.Value != 0 || n["g"].Retry.Written {
		t.Error("defaults of timeouts: 10m for a step, none for a group")
	}
	if g := n["d"].Confirm; g == nil || !g.Builtin || n["waived"].Confirm != nil || n["asked"].Confirm.Builtin {
		t.Error("a destructive step asks by itself, unless it is waived or written")
	}
	in, ok := n["c"].BoundIn.(*configIn)
	if !ok || in.Value != "1mb" {
		t.Errorf("constant inputs are not bound: %#v", n["c"].BoundIn)
	}
	if f := n["f"]; !f.FanOut || len(f.Targets) != 2 || f.Targets[0].Name != "a" || f.Loop.MaxParallel.Value != 2 {
		t.Error("a fan-out is not ordered by name")
	}
}

func TestOutTypes(t *testing.T) {
	p := mustLoad(t, head+`inputs: {go: {type: bool, default: true}}
steps:
  - {id: one, uses: redis.info, target: a, outputs: {twice: offset * 2}}
  - {id: fan, uses: redis.info, targets: [a, b]}
  - id: loop
    for-each: {x: 1, y: 2}
    steps:
    - {id: c1, uses: redis.info, target: a}
    - id: inner
      when: inputs.go
      steps: [{id: c2, uses: redis.info, target: a}]
  - {id: values, uses: set, with: {values: {n: 1, many: [1, 2], of: "${{ steps.one.twice }}", d: "${{ duration('1s') }}"}}}
outputs: {n: steps.values.n, all: "steps.fan.items", keys: "map(steps.loop.items, .key)"}
`)
	n := p.Root.nodes
	field := func(t *expression.Type, path ...string) string {
		for _, name := range path {
			if t = t.Fields[name]; t == nil {
				return "nothing"
			}
			if t.Kind == expression.List || t.Kind == expression.Map {
				t = t.Elem
			}
		}
		return t.String()
	}
	for _, c := range []struct {
		id, path, want string
	}{
		{"one", "twice", "int"}, {"one", "status", "string"}, {"one", "duration", "duration"}, {"one", "error kind", "string"}, {"one", "lag", "int or null"},
		{"fan", "items offset", "int"}, {"fan", "by offset", "int"}, {"fan", "items item name", "string"}, {"fan", "offset", "nothing"},
		{"loop", "items item value", "int"}, {"loop", "items key", "string"}, {"loop", "items c1 offset", "int"}, {"loop", "items c2 offset", "int or null"}, {"loop", "items inner status", "string"},
		{"values", "n", "int"}, {"values", "of", "int"}, {"values", "d", "duration"}, {"values", "many", "int"},
	} {
		if got := field(n[c.id].OutType, strings.Fields(c.path)...); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.id, c.path, got, c.want)
		}
	}
	if !n["fan"].NeedItems || !n["loop"].NeedItems || n["one"].NeedItems {
		t.Error("NeedItems is set where somebody reads the items")
	}
	if got := p.Root.OutType.Fields["keys"].String(); got != "list of string" {
		t.Errorf("keys is %s", got)
	}
}

func TestTemplateEval(t *testing.T) {
	p := mustLoad(t, head+`inputs:
  n: {type: int, default: 3}
  node: {type: target, kind: redis, default: b}
vars:
  text: a ${{ inputs.n }} $${{ b }} ${{ slots("0-3,7") }}
  whole: ${{ inputs.n }}
  list: [1, "${{ inputs.n }}", {x: "${{ inputs.n + 1 }}"}]
  fixed: {a: [1, two]}
steps:
  - {id: c, uses: redis.compare, target: a, with: {against: "${{ inputs.node }}"}}
  - {id: k, uses: check, with: {that: [inputs.n > 5, {check: inputs.n < 5, message: "n is ${{ inputs.n }}"}, "inputs.n / 0 > 1"]}}
`)
	env := map[string]any{"inputs": map[string]any{"n": 3, "node": map[string]any{"name": "b", "addr": "x"}}}
	want := []any{"a 3 ${{ b }} 0-3,7", 3, []any{1, 3, map[string]any{"x": 4}}, map[string]any{"a": []any{1, "two"}}}
	for i, v := range p.Root.Vars {
		got, err := v.Value.Eval(env)
		if err != nil || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%s: got %#v (%v), want %#v", v.Name, got, err, want[i])
		}
	}
	if fixed := p.Root.Vars[3].Value; !fixed.Constant || fixed.Refs() != nil {
		t.Error("a literal is not a constant")
	}
	var names []string
	for _, ref := range p.Root.Vars[2].Value.Refs() {
		names = append(names, strings.Join(ref.Path, "."))
	}
	if !slices.Equal(names, []string{"inputs.n", "inputs.n"}) {
		t.Errorf("refs: %v", names)
	}

	with, err := p.Root.nodes["c"].With.Eval(env)
	if err != nil || !reflect.DeepEqual(with, map[string]any{"against": "b"}) {
		t.Errorf("a target is not given by its name: %v %v", with, err)
	}
	with, err = p.Root.nodes["k"].With.Eval(env)
	if err != nil {
		t.Fatal(err)
	}
	that := with.(map[string]any)["that"].([]any)
	first, second, third := that[0].(schema.Condition), that[1].(schema.Condition), that[2].(schema.Condition)
	if first.Holds || first.Text != "inputs.n > 5" || len(first.Parts) != 1 || first.Parts[0].Value != 3 {
		t.Errorf("%+v", first)
	}
	if !second.Holds || second.Message != "n is 3" {
		t.Errorf("%+v", second)
	}
	if third.Holds || third.Unknown == "" {
		t.Errorf("%+v", third)
	}
	if err := schema.Bind(with.(map[string]any), &checkIn{}); err != nil {
		t.Errorf("conditions do not bind: %v", err)
	}
	if _, err := p.Root.Vars[1].Value.Eval(map[string]any{"inputs": map[string]any{}}); err == nil {
		t.Error("a null that must be an int is no error")
	} else if null := (*expression.NullError)(nil); !errors.As(err, &null) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestInventoryReplacesTargets(t *testing.T) {
	inventory, findings := schema.ParseInventory("staging.yaml", []byte(`targets:
  a: {kind: redis, addr: "10.0.0.1:6379", group: new}
  z: {kind: redis, adr: "10.0.0.2:6379", addr: "10.0.0.2:6379"}
`))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	text := head + "steps:\n  - {id: x, uses: redis.info, targets: {group: new}}\n  - {id: y, uses: redis.info, target: z}\n"
	o := LoadOptions{Catalog: fakeCatalog(), Inventory: inventory, ReadFile: func(string) ([]byte, error) { return []byte(text), nil }}
	_, findings = Load("test.yaml", o)
	if len(findings) != 1 || findings[0].Path != "staging.yaml" || findings[0].Rule != "unknown-key" {
		t.Fatalf("a mistake in the inventory is said of it: %v", findings)
	}
	inventory.Targets = inventory.Targets[:1]
	inventory.Source = []byte("x")
	text = strings.Replace(text, "target: z", "target: a", 1)
	p, findings := Load("test.yaml", o)
	if p == nil {
		t.Fatal(findings)
	}
	if got, _ := p.Root.Targets[0].Config.Eval(nil); !reflect.DeepEqual(got, map[string]any{"addr": "10.0.0.1:6379"}) {
		t.Errorf("a is %v", got)
	}
	if len(p.Sources) != 2 || p.Sources[1].Role != "inventory" || p.Sources[0].Role != "runbook" {
		t.Errorf("sources: %+v", p.Sources)
	}
}

func TestSubRunbookIsReadOnce(t *testing.T) {
	reads := map[string]int{}
	o := LoadOptions{Catalog: fakeCatalog(), ReadFile: func(path string) ([]byte, error) { reads[path]++; return os.ReadFile(path) }}
	p, findings := Load(lintFolder+"/ok/calls.yaml", o)
	if p == nil {
		t.Fatal(findings)
	}
	for path, n := range reads {
		if n != 1 {
			t.Errorf("%s was read %d times", path, n)
		}
	}
	n := p.Root.nodes
	if n["c1"].Sub == nil || n["c1"].Sub != n["c2"].Sub || n["c1"].Shape != Call {
		t.Error("a sub-runbook is compiled once")
	}
	if len(p.Sources) != 3 || p.Sources[0].Role != "runbook" || p.Sources[1].Role != "sub-runbook" {
		t.Errorf("sources: %+v", p.Sources)
	}
	with, err := n["c2"].With.Eval(map[string]any{"targets": map[string]any{"b": map[string]any{"name": "b"}}, "secrets": map[string]any{"pw": "x"}})
	want := map[string]any{"node": "b", "password": "x", "slots": []any{0, 1, 2, 3}}
	if err != nil || !reflect.DeepEqual(with, want) {
		t.Errorf("with is %v (%v), want %v", with, err, want)
	}
}

// The headers of defaults go with every http step that does not say otherwise.
func TestHTTPDefaults(t *testing.T) {
	p := mustLoad(t, head+`defaults: {http: {headers: {X-Change: CHG-1, X-Run: "${{ run.id }}"}}}
steps:
  - {id: plain, uses: http, with: {url: "http://x"}}
  - {id: own, uses: http, with: {url: "http://x", headers: {x-change: mine}}}
`)
	env := map[string]any{"run": map[string]any{"id": "r1"}}
	for id, want := range map[string]map[string]any{
		"plain": {"X-Change": "CHG-1", "X-Run": "r1"},
		"own":   {"x-change": "mine", "X-Run": "r1"},
	} {
		with, err := p.Root.nodes[id].With.Eval(env)
		if err != nil {
			t.Fatal(err)
		}
		if got := with.(map[string]any)["headers"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s sends %v, want %v", id, got, want)
		}
	}
}

// Nothing is asked of a step whose kind is not known: its typo is one finding.
func TestBrokenStepMakesNoNoise(t *testing.T) {
	_, findings := load(t, head+`inputs: {n: {type: int, default: 3}}
steps:
  - id: x
    uses: redis.nothing
    target: a
    with: {a: "${{ inputs.n }}", b: 5}
    wait-until: a > b and c == d
    expect: [x, y]
    stall: 5s
    outputs: {z: q + 1}
  - {id: y, uses: redis.info, target: a, when: steps.x.a == steps.x.z, expect: "steps.x.items[0].a > 3"}
outputs: {z: steps.x.z}
`)
	if len(findings) != 1 || findings[0].Rule != "unknown-kind" {
		t.Errorf("%v", findings)
	}
}

// A scope holds what an expression names, so a file of n steps costs O(n).
func TestLintIsLinear(t *testing.T) {
	allocations := func(n int) float64 {
		text := []byte(long(n))
		c := fakeCatalog()
		return testing.AllocsPerRun(1, func() {
			Load("x.yaml", LoadOptions{Catalog: c, ReadFile: func(string) ([]byte, error) { return text, nil }})
		})
	}
	few, many := allocations(200), allocations(1600)
	if many > few*8*1.3 {
		t.Errorf("8 times the steps cost %.1f times the allocations", many/few)
	}
}
