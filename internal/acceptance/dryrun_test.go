package acceptance

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"runbook/internal/simulate/redis"
)

// acts has, for every kind that changes something, a step that would. DIR is the desk's folder, with what the steps
// expect to find; KV and OTHER are servers, NEW is an address where nobody listens, URL is a server that must not be asked.
var acts = map[string]string{
	"exec":                  `{id: it, uses: exec, effect: write, undo: none, with: {shell: "echo x >> DIR/log"}}`,
	"http":                  `{id: it, uses: http, with: {method: POST, url: "URL/change"}}`,
	"notify":                `{id: it, uses: notify, with: {url: "URL/tell", text: The cut-over begins}}`,
	"stop-background":       "",
	"host.file":             `{id: it, uses: host.file, with: {path: DIR/config, content: "new\n", mode: "0600", backup: DIR/config.old}}`,
	"host.process":          `{id: it, uses: host.process, with: {command: [sleep, "1000"], pidfile: DIR/sleep.pid, detach: setsid}}`,
	"host.remove-path":      `{id: it, uses: host.remove-path, confirm: false, why: to see, with: {path: DIR/data/db, within: DIR/data, expect_stopped: {port: 9}}}`,
	"redis.command":         `{id: it, uses: redis.command, target: kv, with: {args: [SET, "migration:marker", "1"]}, effect: write, idempotent: true, undo: none}`,
	"redis.config-set":      `{id: it, uses: redis.config-set, target: kv, with: {name: repl-backlog-size, value: 512mb}}`,
	"redis.create-instance": `{id: it, uses: redis.create-instance, target: new, with: {dir: DIR/new, config: {appendonly: true}}}`,
	"redis.pause-writes":    `{id: it, uses: redis.pause-writes, target: kv, with: {for: 5s}}`,
	"redis.remove-instance": `{id: it, uses: redis.remove-instance, confirm: false, why: to see, target: kv, with: {dir: DIR/data/db, within: DIR/data}}`,
	"redis.replicaof":       `{id: it, uses: redis.replicaof, target: kv, with: {master: other}}`,
	"redis.stop-instance":   `{id: it, uses: redis.stop-instance, target: kv, with: {save: true}}`,
}

// quiet are those of which a dry run says nothing: they act on the run alone.
var quiet = []string{"stop-background"}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	need(t, "redis-server")
	var kinds []struct{ Name, Effect string }
	if err := json.Unmarshal([]byte(newDesk(t).run("steps", "--output", "json").want(0).out.String()), &kinds); err != nil {
		t.Fatal(err)
	}
	// What a dry run of these does is shown in the simulated worlds of the shipped runbooks, which have them all together.
	inWorlds := []string{"codis", "pika", "twemproxy", "zookeeper"}
	for _, k := range kinds {
		step, known := acts[k.Name]
		system, _, _ := strings.Cut(k.Name, ".")
		switch {
		case k.Effect == "read", slices.Contains(inWorlds, system):
			continue
		case !known:
			t.Errorf("%s changes something (%s), and no dry run of it is tested here", k.Name, k.Effect)
			continue
		case slices.Contains(quiet, k.Name):
			continue
		}
		t.Run(k.Name, func(t *testing.T) { t.Parallel(); dryRun(t, step) })
	}
}

func dryRun(t *testing.T, step string) {
	d := newDesk(t)
	var servers []*redis.Server
	for range 2 {
		s, err := redis.New(redis.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		servers = append(servers, s)
	}
	var asked atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(web.Close)
	for _, dir := range []string{"data", "data/db"} {
		if err := os.Mkdir(d.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.write("config", "old\n")
	d.write("data/db/dump.rdb", "REDIS\n")
	book := d.book("dry.yaml", fmt.Sprintf(`
targets:
  kv: {kind: redis, addr: %q}
  other: {kind: redis, addr: %q}
  new: {kind: redis, addr: %q}
lock: {name: dry}
steps:
  - {id: before, uses: redis.info, target: kv}
  - {id: also, uses: redis.info, target: other}
  - {id: also_new, uses: host.check-port, with: {port: %s, expect: free}}
  - %s
finally:
  - {id: last, uses: redis.command, target: kv, with: {args: [SET, last, "1"]}, effect: write, idempotent: true, undo: none}
`, servers[0].Addr(), servers[1].Addr(), freeAddr(t), "9", strings.ReplaceAll(step, "URL", web.URL)))
	before := d.tree()
	for _, look := range [][]string{{"exec", "--dry-run"}, {"plan", "--live"}, {"exec", "--dry-run", "--output", "json"}, {"plan", "--live", "--output", "json"}} {
		s := d.run(append(look, book)...)
		// 1 is a precondition that a look could tell is false: this simulated server has no pidfile or directory.
		if code := s.wait(); code != 0 && (code != 1 || !strings.Contains(step, "remove-instance")) {
			t.Errorf("exit code %d\n%s", code, s.said())
		}
		s.says("it")
	}
	for _, s := range servers {
		if w := s.Writes(); len(w) > 0 {
			t.Errorf("the server was sent %v", w)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d HTTP requests went out", n)
	}
	if after := d.tree(); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
	if entries, err := os.ReadDir(d.state); err == nil && len(entries) > 0 {
		t.Errorf("looking wrote %v into the state directory", entries)
	}
	d.alone()
}

// tree is every file of the desk with its mode, size and time.
func (d *desk) tree() string {
	var b strings.Builder
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d %v\n", strings.TrimPrefix(path, d.dir), i.Mode(), i.Size(), i.ModTime())
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return b.String()
}

// What a look can tell is false gives exit code 1; what it cannot know after a change is unknown, not ok.
func TestDryRunTells(t *testing.T) {
	t.Parallel()
	s, err := redis.New(redis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	d := newDesk(t)
	body := fmt.Sprintf(`
targets:
  kv: {kind: redis, addr: %q}
steps:
  - {id: change, uses: redis.config-set, target: kv, with: {name: maxmemory-samples, value: 7}}
  - {id: after, uses: redis.info, target: kv, wait-until: connected_replicas >= 3, timeout: 10m}
`, s.Addr())
	d.run("exec", "--dry-run", d.book("unknown.yaml", body)).want(0).says("would", "unknown", "change")
	d.run("exec", "--dry-run", d.book("false.yaml", body+`  - {id: role, uses: redis.info, target: kv, require: 'targets.kv.name == "other"'}`+"\n"))
	d.run("exec", "--dry-run", d.book("no.yaml", strings.Replace(body, "  - {id: change", "  - {id: port, uses: redis.info, target: kv, expect: role == \"slave\"}\n  - {id: change", 1))).want(1).says("port")
	if w := s.Writes(); len(w) > 0 {
		t.Errorf("the server was sent %v", w)
	}
}
