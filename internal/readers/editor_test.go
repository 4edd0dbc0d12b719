package readers

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"runbook/steps"
	"runbook/steps/catalog"
)

// head is a runbook without steps.
const head = `version: 1
name: example
targets:
  db: {kind: redis, addr: "127.0.0.1:6379"}
`

// An editor with yaml-language-server and the project's schema: one for all, as it takes seconds to start.
func TestEditor(t *testing.T) {
	s := serve(t)
	t.Run("completions", func(t *testing.T) { completions(t, s) })
	t.Run("hovers", func(t *testing.T) { hovers(t, s) })
	t.Run("diagnostics", func(t *testing.T) { diagnostics(t, s) })
	t.Run("shipped runbooks", func(t *testing.T) { shippedAreClean(t, s) })
	t.Run("kinds", func(t *testing.T) { everyKind(t, s) })
}

// What an editor offers, where.
func completions(t *testing.T, s *server) {
	for name, c := range map[string]struct {
		text      string
		want, not []string
		docs      map[string]string // choice → a part of what is shown beside it
	}{
		"top level": {
			"version: 1\n▮", []string{"name", "inputs", "targets", "steps", "finally", "policy", "on-failure"}, []string{"version", "uses"},
			map[string]string{"finally": "at the end of every run"},
		},
		"keys of a step": {
			head + "steps:\n  - id: a\n    ▮", []string{"uses", "wait-until", "for-each", "confirm", "undo", "point-of-no-return"}, []string{"id", "version"},
			map[string]string{"stable": "held without a break"},
		},
		"keys of a step in a group in a group": {
			head + "steps:\n  - id: a\n    steps:\n      - id: b\n        steps:\n          - id: c\n            ▮", []string{"uses", "wait-until"}, []string{"id"}, nil,
		},
		"kinds": {
			head + "steps:\n  - id: a\n    uses: ▮", []string{"redis.info", "codis.switch-slot", "check", "approve"}, nil,
			map[string]string{"redis.info": "* `role` (string)", "codis.switch-slot": "*Effect: cutover; acts on codis*"},
		},
		"kinds of a guard": {
			head + "guards:\n  - id: a\n    uses: ▮", []string{"redis.info", "codis.proxy-stats"}, []string{"redis.config-set", "codis.switch-slot", "exec", "check"}, nil,
		},
		"kinds of a probe": {
			head + "steps:\n  - id: a\n    uses: exec\n    probe:\n      uses: ▮", []string{"redis.info", "exec", "http"}, []string{"redis.config-set", "codis.switch-slot"}, nil,
		},
		"inputs of a kind": {
			head + "steps:\n  - id: a\n    uses: codis.switch-slot\n    with:\n      ▮", []string{"slots", "to_group", "max_pause"}, []string{"section", "against"},
			map[string]string{"max_pause": "*a duration such as 500ms, 30s, 10m or 7d; `2s` by default*"},
		},
		"inputs of a guard's kind": {
			head + "guards:\n  - id: a\n    uses: redis.info\n    with:\n      ▮", []string{"section"}, []string{"slots"}, nil,
		},
		"words of an input": {
			head + "steps:\n  - id: a\n    uses: redis.compare\n    with:\n      mode: ▮", []string{"sample", "full"}, nil, nil,
		},
		"true or false":    {head + "steps:\n  - id: a\n    background: ▮", []string{"true", "false"}, nil, nil},
		"a duration":       {head + "steps:\n  - id: a\n    timeout: ▮", []string{"30s"}, nil, nil},
		"effects":          {head + "steps:\n  - id: a\n    effect: ▮", []string{"read", "write", "cutover", "destroy"}, nil, map[string]string{"cutover": "Moves live traffic."}},
		"ways to fail":     {head + "steps:\n  - id: a\n    on-failure: ▮", []string{"stop", "continue", "rollback-item"}, nil, map[string]string{"rollback-run": "Undo the whole run."}},
		"ways back":        {head + "steps:\n  - id: a\n    undo: ▮", []string{"auto", "none"}, nil, map[string]string{"auto": "own inverse"}},
		"types of inputs":  {"version: 1\nname: x\ninputs:\n  n:\n    type: ▮", []string{"string", "slots", "duration", "secret"}, nil, map[string]string{"size": "such as 64mb"}},
		"kinds of targets": {"version: 1\nname: x\ntargets:\n  db:\n    kind: ▮", []string{"redis", "pika", "codis", "host", "twemproxy", "zookeeper"}, nil, map[string]string{"codis": "* `product` (string)"}},
		"keys of a target": {"version: 1\nname: x\ntargets:\n  db:\n    kind: codis\n    ▮", []string{"addr", "product", "group", "labels"}, []string{"kind", "pidfile"}, nil},
		"built-in policies": {
			head + "policy:\n  - enforce: ▮", []string{"all", "destroy-confirmed"}, nil, map[string]string{"lock-held": "has a lock"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.choices(c.text)
			for _, label := range c.want {
				if _, there := got[label]; !there {
					t.Errorf("%s is not offered: %v", label, slices.Sorted(maps.Keys(got)))
				}
			}
			for _, label := range c.not {
				if _, there := got[label]; there {
					t.Errorf("%s is offered", label)
				}
			}
			for label, part := range c.docs {
				if doc := got[label].doc(); !strings.Contains(doc, part) {
					t.Errorf("beside %s stands %q, without %q", label, doc, part)
				}
			}
		})
	}
}

// What an editor shows about a word.
func hovers(t *testing.T, s *server) {
	for name, c := range map[string]struct {
		text  string
		parts []string
	}{
		"a key of the file":     {"version: 1\nname: x\nfin▮ally: []\nsteps: []\n", []string{"at the end of every run"}},
		"a key of a step":       {head + "steps:\n  - id: a\n    uses: redis.info\n    sta▮ble: 5s\n", []string{"How long the condition must have held"}},
		"a key of a retry":      {head + "steps:\n  - id: a\n    uses: redis.info\n    retry: {jit▮ter: 0.1}\n", []string{"Random part of each delay"}},
		"a word of a key":       {head + "steps:\n  - id: a\n    uses: exec\n    effect: cut▮over\n", []string{"`cutover`: Moves live traffic."}},
		"a kind":                {head + "steps:\n  - id: a\n    uses: redis.in▮fo\n    target: db\n", []string{"#### redis.info", "Effect: read; acts on", "* `role` (string)", "* `lag` (int or null)", "uses: redis.info"}},
		"a kind of a guard":     {head + "guards:\n  - id: a\n    uses: redis.in▮fo\n    require: connected\n", []string{"* `role` (string)"}},
		"a kind that acts":      {head + "steps:\n  - id: a\n    uses: redis.config-s▮et\n    target: db\n", []string{"Effect: write", "Undo: its own inverse", "`name` (required)"}},
		"an input":              {head + "steps:\n  - id: a\n    uses: redis.compare\n    with:\n      against: db\n      mo▮de: full\n", []string{"#### redis.compare", "all keys of both", "`sample` by default", "* `full`"}},
		"a runbook as a step":   {head + "steps:\n  - id: a\n    uses: ./x▮.yaml\n", []string{"A runbook used as a step."}},
		"a kind of target":      {"version: 1\nname: x\ntargets:\n  db:\n    kind: co▮dis\n    addr: x:1\nsteps: []\n", []string{"#### codis", "* `product` (string)"}},
		"a key of a target":     {"version: 1\nname: x\ntargets:\n  db:\n    kind: codis\n    ad▮dr: x:1\nsteps: []\n", []string{"Admin address of the dashboard"}},
		"a key of every target": {"version: 1\nname: x\ntargets:\n  db:\n    kind: codis\n    addr: x:1\n    gro▮up: a\nsteps: []\n", []string{"Group the target belongs to"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.hover(c.text)
			for _, part := range c.parts {
				if !strings.Contains(got, part) {
					t.Errorf("without %q:\n%s", part, got)
				}
			}
		})
	}
}

// What an editor underlines.
func diagnostics(t *testing.T, s *server) {
	step := func(lines string) string { return head + "steps:\n  - id: a\n    " + lines + "\n" }
	cases := map[string]struct{ text, want string }{
		"an unknown key of the file":     {head + "stepz: []\nsteps: []\n", "5:1 Property stepz is not allowed."},
		"an unknown key of a step":       {step("uses: redis.info\n    tiemout: 3s"), "8:5 Property tiemout is not allowed."},
		"an unknown kind":                {step("uses: redis.inf"), "7:11 There is no such step kind; a runbook used as a step is a path that ends in .yaml."},
		"an unknown input":               {step("uses: redis.info\n    with: {secton: x}"), "8:12 Property secton is not allowed."},
		"a missing input":                {step("uses: redis.config-set\n    with: {name: x}"), `8:5 Missing property "value".`},
		"no inputs":                      {step("uses: redis.config-set"), `6:5 Missing property "with".`},
		"no duration":                    {step("uses: redis.info\n    timeout: 30"), `8:14 Incorrect type. Expected "string".`},
		"no duration either":             {step("uses: redis.info\n    timeout: soon"), "8:14 This takes a duration such as 500ms, 30s, 10m or 7d."},
		"no number":                      {step("uses: codis.switch-slot\n    with: {slots: 1, to_group: three, source: db, destination: db}"), "8:32 This takes a value of type integer, or one ${{ … }}."},
		"no slots":                       {step("uses: codis.switch-slot\n    with: {slots: 1-x, to_group: 3, source: db, destination: db}"), "8:19 This takes slots: an integer, a list of integers, or text such as 0-3,8."},
		"an unknown word":                {step("uses: exec\n    effect: wirte\n    with: {command: [a]}"), `8:13 Value is not accepted. Valid values: "read", "write", "cutover", "destroy".`},
		"a guard that acts":              {head + "guards:\n  - {id: a, uses: redis.config-set, require: x}\nsteps: []\n", "6:19 "},
		"an unknown key of a target":     {"version: 1\nname: x\ntargets:\n  db: {kind: redis, addr: x:1, adr: y}\nsteps: []\n", "4:32 Property adr is not allowed."},
		"kind and group in one":          {step("uses: redis.info\n    steps: []"), "6:5 "},
		"nothing is wrong with ${{ … }}": {step("uses: codis.switch-slot\n    timeout: ${{ inputs.t }}\n    with: {slots: '${{ inputs.s }}', to_group: '${{ inputs.g }}', source: db, destination: db, max_pause: '${{ inputs.p }}'}"), ""},
	}
	uris := map[string]string{}
	for name, c := range cases {
		uris[name] = s.show(c.text)
	}
	for name, c := range cases {
		var got []string
		for _, i := range s.issues(uris[name]) {
			got = append(got, i.String())
		}
		if len(got) > 1 || !strings.HasPrefix(strings.Join(got, ""), c.want) || c.want == "" && len(got) > 0 {
			t.Errorf("%s: want %s, got %q", name, c.want, got)
		}
	}
}

// The schema that a runbook names in its first line finds nothing wrong with those that ship.
func shippedAreClean(t *testing.T, s *server) {
	var uris []string
	for _, path := range shipped(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# yaml-language-server: $schema=") {
			t.Errorf("%s does not name its schema", path)
		}
		s.showAs("file://"+path, string(text))
		uris = append(uris, "file://"+path)
	}
	for _, uri := range uris {
		if issues := s.issues(uri); len(issues) > 0 {
			t.Errorf("%s: %v", uri, issues)
		}
	}
}

// Nor with the example of any kind. Every kind is shown with its outputs, every input with its text.
func everyKind(t *testing.T, s *server) {
	kinds := s.choices(head + "steps:\n  - id: a\n    uses: ▮")
	examples := map[string]string{}
	for _, k := range catalog.Kinds() {
		r := catalog.Describe(k)
		doc := kinds[k.Name].doc()
		for _, out := range r.Outputs {
			if !strings.Contains(doc, fmt.Sprintf("* `%s` (%s", out.Name, out.Type)) {
				t.Errorf("%s does not show its output %s", k.Name, out.Name)
			}
		}
		if k.Effect != steps.Read && !strings.Contains(doc, "Undo: ") {
			t.Errorf("%s does not say how it is undone", k.Name)
		}
		examples[k.Name] = s.show(head + "steps:\n  - " + strings.ReplaceAll(r.Example, "\n", "\n    ") + "\n")
		if len(r.Inputs) == 0 {
			continue
		}
		inputs := s.choices(head + "steps:\n  - id: a\n    uses: " + k.Name + "\n    with:\n      ▮")
		for _, in := range r.Inputs {
			if !strings.Contains(inputs[in.Name].doc(), in.Doc) {
				t.Errorf("%s: %s is shown as %q", k.Name, in.Name, inputs[in.Name].doc())
			}
		}
	}
	for name, uri := range examples {
		if issues := s.issues(uri); len(issues) > 0 {
			t.Errorf("%s: %v", name, issues)
		}
	}
}
