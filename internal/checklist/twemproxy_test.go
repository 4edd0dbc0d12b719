package checklist

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbook/internal/simulate/twemproxy"
)

// pool is four slots on two instances, and the file of the proxy before them.
func pool(t *testing.T) *world {
	t.Helper()
	w := in(`
  first: {kind: pika, slots: 0-1, slot_num: 4}
  second: {kind: pika, slots: 2-3, slot_num: 4}
`)(t)
	w.file = filepath.Join(t.TempDir(), "nutcracker.yml")
	w.add("nutcracker", "twemproxy", map[string]any{"addr": "127.0.0.1:22121", "config": w.file, "host": "machine"})
	w.routing()
	t.Cleanup(w.halt)
	return w
}

// shared is pool, and the second instance holds a slot of the first as well, with nobody's keys in it.
func shared(t *testing.T) *world {
	t.Helper()
	w := pool(t)
	w.do("second", "PKCLUSTER", "ADDSLOTS", "0")
	return w
}

// routing writes the proxy's file as it must be, but for what pairs replace, and starts the proxy anew.
func (w *world) routing(pairs ...string) {
	w.Helper()
	text := fmt.Sprintf(`pool:
  listen: 127.0.0.1:22121
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  auto_eject_hosts: false
  redis: true
  servers:
   - %[1]s:1 server1
   - %[1]s:1 server2
   - %[2]s:1 server3
   - %[2]s:1 server4
`, w.Addr("first"), w.Addr("second"))
	text = strings.NewReplacer(pairs...).Replace(text)
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	w.halt()
	var err error
	if w.proxy, err = twemproxy.Start(twemproxy.Options{Config: text, Listen: anywhere}); err != nil {
		w.proxy = nil // hash and distribution are not simulated: the file can be read all the same
		return
	}
	w.add("proxy", "redis", map[string]any{"addr": w.proxy.Addr(""), "timeout": "2s"})
}

// anywhere listens at a free port, whatever the file says.
func anywhere(string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func (w *world) halt() {
	if w.proxy != nil {
		w.proxy.Close()
		w.proxy = nil
	}
}

// owners asks the instances which of them serves each slot.
func (w *world) owners() []any {
	w.Helper()
	all := make([]any, 4)
	for _, name := range []string{"first", "second"} {
		for _, it := range w.read("pika.slot-info", name, "slots", "0-3")["items"].([]any) {
			if slot := it.(map[string]any); slot["present"] == true && slot["master"] == "" {
				all[slot["slot"].(int)] = w.Addr(name)
			}
		}
	}
	return all
}

// written is a row about the proxy's file.
func written(id, fires string, pairs ...string) row {
	return row{
		id, fires, pool, func(w *world) { w.routing(pairs...) },
		func(w *world) []string {
			return w.problems("twemproxy.check-config", "nutcracker", "problems", "slot_num", 4, "servers", w.owners())
		},
		func(w *world) { w.routing() },
	}
}

// through is a row about where a write through the proxy arrives.
func through(fires string, in func(*testing.T) *world, pairs ...string) row {
	return row{
		"S1-26", fires, in, func(w *world) { w.routing(pairs...) },
		func(w *world) []string {
			return w.fails("pika.check-write", "first", patience, "slots", "0,1", "through", "proxy")
		},
		func(w *world) { w.routing() },
	}
}

func twemproxyRows() []row {
	return []row{
		written("S1-24", "hash", "crc32a", "fnv1a_64"),
		written("S1-24", "distribution", "modula", "ketama"),
		written("S1-24", "auto-eject", "auto_eject_hosts: false", "auto_eject_hosts: true"),
		written("S1-24", "hash-tag", "  hash_tag: \"{}\"\n", ""),
		written("S1-25", "server-order", "server1", "server9"),
		written("S1-25", "server-count", "server4", "server4\n   - 127.0.0.1:1:1 server5"),
		written("S1-25", "server-owner", "server2", "server3", "server3", "server2"),
		through("was written through", shared, "server1", "server3", "server2", "server4", "server3", "server1", "server4", "server2"),
		through("Partition not found", pool, "  hash_tag: \"{}\"\n", ""),
		{
			"S1-29", "twemproxy.stop needs max_pause", pool, func(w *world) { w.on = "        with: {max_pause: \"${{ inputs.max_pause }}\"}\n" },
			func(w *world) []string { return w.lints("twemproxy-move-slots", w.on) },
			func(w *world) { w.on = "" },
		},
	}
}
