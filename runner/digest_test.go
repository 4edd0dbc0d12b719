package runner

import (
	"strings"
	"testing"

	"runbook/schema"
	"runbook/steps/catalog"
)

const digestBook = `
version: 1
name: digests
inputs: {slots: {type: slots, default: "1-3"}}
vars: {limit: 0}
targets:
  a: {kind: pika, addr: "127.0.0.1:9221"}
  b: {kind: pika, addr: "127.0.0.1:9225"}
defaults: {timeout: 20m}
steps:
  - id: g
    when: len(inputs.slots) > 0
    steps:
      - {id: near, uses: pika.slot-info, target: b, with: {slots: 1}, wait-until: lag <= vars.limit && connected, stable: 5s}
      - {id: gone, uses: pika.delslots, target: a, with: {slots: "1-3"}, require: steps.near.in_sync}
  - {id: call, uses: ./lib.yaml, with: {of: b}}
`

const digestLib = `
version: 1
name: lib
inputs: {of: {type: target, kind: pika}}
steps:
  - {id: behind, uses: pika.slot-info, target: "${{ inputs.of }}", with: {slots: 2}, expect: lag == 0}
`

// digests are those of the steps at the top, by id.
func digests(t *testing.T, book, lib string) map[string]string {
	t.Helper()
	c := NewCatalog(catalog.Kinds(), catalog.Targets())
	p, findings := Load("book.yaml", LoadOptions{Catalog: c, ReadFile: func(path string) ([]byte, error) {
		if strings.HasSuffix(path, "lib.yaml") {
			return []byte(lib), nil
		}
		return []byte(book), nil
	}})
	if schema.Failed(findings) {
		t.Fatal(findings)
	}
	all := map[string]string{}
	for _, n := range p.Root.Steps {
		all[n.ID] = p.StepDigest(n)
	}
	return all
}

// A digest is of what a step means, so an approval of it survives a new layout and nothing else.
func TestStepDigest(t *testing.T) {
	whole := digests(t, digestBook, digestLib)
	for _, same := range [][2]string{
		{"lag <= vars.limit && connected", "connected and not (lag > vars.limit)"},
		{"stable: 5s}", "stable: 5000ms, every: 1s}"},
		{"uses: pika.delslots, target: a,", "name: Other, target: a, uses: pika.delslots, timeout: 1200s, undo: auto,"},
		{`slots: "1-3"}, require`, "slots: [1, 2, 3]}, require"},
		{"vars: {limit: 0}", "vars: {most: 0}"},
		{"steps:\n", "steps:\n  # a comment\n"},
	} {
		book := strings.Replace(digestBook, same[0], same[1], 1)
		if same[0] == "vars: {limit: 0}" {
			book = strings.ReplaceAll(book, "vars.limit", "vars.most")
		}
		for id, d := range digests(t, book, digestLib) {
			if d != whole[id] {
				t.Errorf("%q for %q: the digest of %s differs", same[1], same[0], id)
			}
		}
	}
	for _, other := range []struct{ old, new, id string }{
		{"lag <= vars.limit", "lag < 1000", "g"},
		{"vars: {limit: 0}", "vars: {limit: 1}", "g"},
		{"stable: 5s", "stable: 4s", "g"},
		{"len(inputs.slots) > 0", "len(inputs.slots) > 1", "g"},
		{"127.0.0.1:9221", "127.0.0.1:9222", "g"},
		{"127.0.0.1:9225", "127.0.0.1:9226", "call"},
		{"timeout: 20m", "timeout: 21m", "g"},
		{"target: a,", "target: b,", "g"},
		{"require: steps.near.in_sync", "confirm: false", "g"},
		{"with: {of: b}", "with: {of: a}", "call"},
	} {
		if got := digests(t, strings.Replace(digestBook, other.old, other.new, 1), digestLib); got[other.id] == whole[other.id] {
			t.Errorf("%q for %q: the digest of %s is the same", other.new, other.old, other.id)
		}
	}
	if got := digests(t, digestBook, strings.Replace(digestLib, "lag == 0", "lag < 9", 1)); got["call"] == whole["call"] || got["g"] != whole["g"] {
		t.Error("a change of the runbook that a step uses is one of that step alone")
	}
	moved := strings.Replace(digestBook, "  - {id: call, uses: ./lib.yaml, with: {of: b}}\n", "", 1)
	moved = strings.Replace(moved, "  - id: g\n", "  - {id: other_name, uses: ./lib.yaml, with: {of: b}}\n  - id: g\n", 1)
	if got := digests(t, moved, digestLib); got["other_name"] != whole["call"] || got["g"] != whole["g"] {
		t.Error("the digest depends on where a step stands, or on its id")
	}
}
