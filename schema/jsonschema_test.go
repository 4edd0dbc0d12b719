package schema

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

type moveIn struct {
	Slots    Slots             `yaml:"slots,required" doc:"Slots to move."`
	Peer     TargetName        `yaml:"peer"`
	Master   string            `yaml:"master"`
	Wait     time.Duration     `yaml:"max_pause" default:"2s"`
	Size     Size              `yaml:"size"`
	Force    bool              `yaml:"force"`
	None     bool              `yaml:"none"`
	Count    int               `yaml:"count" default:"3"`
	Ratio    float64           `yaml:"ratio"`
	Mode     string            `yaml:"mode" enum:"sample,full" default:"sample"`
	Hosts    []Addr            `yaml:"hosts"`
	Env      map[string]string `yaml:"env"`
	Password Secret            `yaml:"password"`
	Nested   *struct {
		Addr Addr `yaml:"addr,required"`
	} `yaml:"nested"`
	That []Condition `yaml:"that"`
	Any  any         `yaml:"any"`
}

type pikaIn struct {
	Addr     Addr   `yaml:"addr,required"`
	Password Secret `yaml:"password"`
}

func move(name string) Kind { return Kind{Name: name, Doc: "moves", In: reflect.TypeFor[moveIn]()} }

func compile(t *testing.T, kinds, targets []Kind) *jsonschema.Schema {
	t.Helper()
	text := JSONSchema(kinds, targets)
	if again := JSONSchema(kinds, targets); !bytes.Equal(text, again) {
		t.Fatal("the schema differs from one call to the next")
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("runbook.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("runbook.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, src string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(src), &v); err != nil {
		t.Fatal(err)
	}
	return s.Validate(texts(v))
}

// texts gives what an editor's YAML 1.2 reader sees: dates are text, keys too.
func texts(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = texts(value)
		}
	case map[any]any:
		m := map[string]any{}
		for key, value := range v {
			m[fmt.Sprint(key)] = texts(value)
		}
		return m
	case []any:
		for i := range v {
			v[i] = texts(v[i])
		}
	case time.Time:
		return v.Format(time.DateOnly)
	}
	return v
}

func TestJSONSchemaAgreesWithParse(t *testing.T) {
	s := compile(t, nil, nil)
	files, err := filepath.Glob("../testdata/lint/schema/ok/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		if base := filepath.Base(file); strings.HasPrefix(base, "in") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, string(src)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestJSONSchemaOfKinds(t *testing.T) {
	s := compile(t, []Kind{move("move")}, []Kind{{Name: "pika", In: reflect.TypeFor[pikaIn]()}})
	const head = "version: 1\nname: a\n"
	for src, ok := range map[string]bool{
		"steps: [{id: a, uses: move, with: {slots: 1}}]":                                                 true,
		"steps: [{id: a, uses: move, with: {slots: '0-3,8', max_pause: 5s, size: 64mb}}]":                true,
		"steps: [{id: a, uses: move, with: {slots: '${{ x }}', force: '${{ y }}', nested: '${{ z }}'}}]": true,
		"steps: [{id: a, uses: move, with: {slots: [1, '${{ x }}']}}]":                                   true,
		"steps: [{id: a, uses: move, with: {slots: 1, that: [a == 1, {check: b, message: c}]}}]":         true,
		"steps: [{id: a, uses: move, with: {slots: 1, that: [{chek: b}]}}]":                              false,
		"steps: [{id: a, uses: ./x.yaml, with: {anything: 1}}]":                                          true,
		"steps: [{id: a, uses: move}]":                                                                   false,
		"steps: [{id: a, uses: move, with: {}}]":                                                         false,
		"steps: [{id: a, uses: move, with: {slots: true}}]":                                              false,
		"steps: [{id: a, uses: move, with: {slots: 1, slot: 1}}]":                                        false,
		"steps: [{id: a, uses: move, with: {slots: 1, mode: half}}]":                                     false,
		"steps: [{id: a, uses: move, with: {slots: 1, max_pause: 5}}]":                                   false,
		"steps: [{id: a, uses: move, with: {slots: 1, nested: {}}}]":                                     false,
		"steps: [{id: a, uses: mvoe, with: {slots: 1}}]":                                                 false,
		"steps: [{id: a, uses: move, with: {slots: 1}, tiemout: 1s}]":                                    false,
		"steps: [{id: a, uses: move, with: {slots: 1}, timeout: '${{ x }}'}]":                            true,
		"steps: [{id: a, steps: [{id: b, uses: move}]}]":                                                 false,
		"steps: [{id: a, uses: move, with: {slots: 1}, steps: []}]":                                      false,
		"steps: [{id: a}]":                                   false,
		"steps: [{id: A-b, steps: []}]":                      false,
		"steps: []\nnam: b":                                  false,
		"steps: []\ntargets: {a: {kind: pika, addr: 'a:1'}}": true,
		"steps: []\ntargets: {a: {kind: pika, addr: 'a:1', group: x, labels: {a: b}, facts: {c: [1]}}}": true,
		"steps: []\ntargets: {a: {kind: pika, addr: 'a:1', adr: x}}":                                    false,
		"steps: []\ntargets: {a: {kind: pika}}":                                                         false,
		"steps: []\ntargets: {a: {kind: redis}}":                                                        false,
		"steps: []\ninputs: {a: {type: strin}}":                                                         false,
		"steps: []\ninputs: {a-b: {type: string}}":                                                      false,
	} {
		if err := validate(t, s, head+src); (err == nil) != ok {
			t.Errorf("%s: want ok=%v, got %v", src, ok, err)
		}
	}
}

func TestJSONSchemaOfExample(t *testing.T) {
	src, err := os.ReadFile("testdata/scale-out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kinds, targets []Kind
	for _, name := range []string{"pika.check-release", "pika.check-rsync-port", "codis.check-health", "pika.addslots", "pika.slotsslaveof", "pika.slot-info", "codis.switch-slot", "redis.compare", "pika.delslots", "codis.proxy-stats"} {
		kinds = append(kinds, Kind{Name: name, Effect: "read", Target: "codis", In: reflect.TypeFor[struct {
			Slots                                      Slots      `yaml:"slots"`
			Peer, Source, Destination, Against, Master TargetName // in lower case
			Method, Mode                               string
			Force, None                                bool
			ToGroup                                    int           `yaml:"to_group"`
			MaxPause                                   time.Duration `yaml:"max_pause"`
			TTLTolerance                               time.Duration `yaml:"ttl_tolerance"`
		}]()})
	}
	for _, name := range []string{"pika", "codis", "zookeeper"} {
		targets = append(targets, Kind{Name: name, In: reflect.TypeFor[struct {
			Addr     Addr
			Addrs    []Addr
			Password Secret
			Product  string
		}]()})
	}
	s := compile(t, kinds, targets)
	if err := validate(t, s, string(src)); err != nil {
		t.Error(err)
	}
	broken := strings.Replace(string(src), "max_pause: ${{", "max_puase: ${{", 1)
	if err := validate(t, s, broken); err == nil {
		t.Error("an unknown input is not refused")
	}
}
