package acceptance

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"runbook/internal/simulate"
	"runbook/internal/simulate/traffic"
)

// TestMoveSlotsBehindNutcracker moves a slot between two simulated Pikas behind a real nutcracker, under load: what clients
// were told is still there, the proxy runs with the new owner, and the old one has the slot no more.
func TestMoveSlotsBehindNutcracker(t *testing.T) {
	t.Parallel()
	program := needNutcracker(t)
	w, err := simulate.Start(t.Context(), simulate.Spec{Version: 1, Systems: map[string]simulate.System{
		"source":      {Kind: "pika", SlotNum: 4, Slots: "0-1", Keys: 400},
		"destination": {Kind: "pika", SlotNum: 4, Slots: "2-3", Keys: 400},
	}}, simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	d, addr, stats := newDesk(t), freeAddr(t), freeAddr(t)
	source, destination := w.Addr("source"), w.Addr("destination")
	config := d.write("nutcracker.yml", fmt.Sprintf(`# two instances of two slots
pika:
  listen: %s
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  auto_eject_hosts: false
  redis: true
  servers:
   - %[2]s:1 server1
   - %[2]s:1 server2
   - %[3]s:1 server3
   - %[3]s:1 server4
`, addr, source, destination))
	statsHost, statsPort, _ := strings.Cut(stats, ":")
	start := exec.Command(program, "-d", "-c", config, "-p", d.path("nutcracker.pid"), "-o", d.path("nutcracker.log"), "-a", statsHost, "-s", statsPort)
	start.Env = append(os.Environ(), d.tag) // the desk sees to its end
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	load, err := traffic.Start(t.Context(), traffic.Options{
		Route: func(context.Context) (string, error) { return addr, nil }, Unnamed: true,
		Clients: 16, Keys: 800, WritesPerSecond: 1000, Tags: tagsOf(1, 4, 8),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(load.Stop)
	if err := load.Ledger().WaitAcknowledged(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	book, err := filepath.Abs("../../runbooks/twemproxy-move-slots.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inventory := d.write("inventory.yaml", fmt.Sprintf(`targets:
  source: {kind: pika, addr: %q}
  destination: {kind: pika, addr: %q}
  machine: {kind: host, local: true}
  proxy: {kind: twemproxy, addr: %q, stats_addr: %q, config: %s, pidfile: %s, host: machine}
inputs: {max_pause: 20s}
`, source, destination, addr, stats, config, d.path("nutcracker.pid")))
	d.run("exec", book, "--inventory", inventory, "--approve", "all").want(0).says("moved = 1")

	if err := load.Ledger().WaitAcknowledged(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	load.Stop()
	read, done, err := traffic.ReadAt(t.Context(), nil, addr, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	r, err := load.Check(t.Context(), read)
	if err != nil {
		t.Fatal(err)
	}
	for what, example := range r.Broken() {
		t.Errorf("%s: %s", what, example)
	}
	if w.Pika("source").HasSlot(1) || !w.Pika("destination").OwnsSlot(1) || w.Pika("destination").SlotKeys(1) == 0 {
		t.Errorf("slot 1: the source has it: %t; the destination takes its writes: %t, and has %d keys of it",
			w.Pika("source").HasSlot(1), w.Pika("destination").OwnsSlot(1), w.Pika("destination").SlotKeys(1))
	}
	t.Logf("%d writes acknowledged, %d lost, longest pause %v on the slot, %v elsewhere", r.Acknowledged, len(r.Lost), r.MaxWaitTagged, r.MaxWaitUntagged)
}

func needNutcracker(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"nutcracker", "/usr/sbin/nutcracker"} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skip("there is no nutcracker here: scripts/setup installs it")
	return ""
}

// tagsOf gives hash tags of one slot.
func tagsOf(slot, slots, n int) []string {
	var tags []string
	for i := 0; len(tags) < n; i++ {
		if tag := strconv.Itoa(i); int(crc32.ChecksumIEEE([]byte(tag))%uint32(slots)) == slot {
			tags = append(tags, tag)
		}
	}
	return tags
}
