package runner

import (
	"strings"
	"testing"

	"runbook/steps/catalog"
)

// The example of every kind binds: what the reference shows can be copied.
func TestExamplesOfKinds(t *testing.T) {
	c := NewCatalog(catalog.Kinds(), catalog.Targets())
	for name, k := range c.Kinds {
		t.Run(name, func(t *testing.T) {
			text := "version: 1\nname: example\nsecrets: {token: {env: TOKEN}, redis: {env: REDIS}}\ntargets:\n"
			for _, name := range []string{"db1", "db2", "a", "b", "redis1", "redis2", "cache", "cache1", "cache2", "source", "destination", "old", "new", "master", "replica", "shard1", "shard2"} {
				text += "  " + name + ": {kind: redis, addr: \"127.0.0.1:6379\"}\n"
			}
			for _, name := range []string{"host1", "here", "local", "web", "web1", "node1", "bastion"} {
				text += "  " + name + ": {kind: host, local: true}\n"
			}
			text += "steps:\n  - {id: traffic, uses: exec, effect: write, background: true, undo: none, why: x, with: {command: [a]}}\n  - " + k.Example + "\n"
			_, findings := Load("test.yaml", LoadOptions{Catalog: c, ReadFile: func(string) ([]byte, error) { return []byte(text), nil }})
			for _, f := range findings {
				if f.Severity == "error" && !strings.Contains(f.Rule, "unknown-target") {
					t.Errorf("%s\n%s", f, k.Example)
				}
			}
		})
	}
}
