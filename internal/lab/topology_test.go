package lab

import (
	"os"
	"syscall"
	"testing"
	"time"

	"runbook/schema"
)

// TestInitTopology makes two groups of four empty instances with the shipped runbook. Codis wants all of its 1024 slots
// served, and each is there twice, so this is asked for by LAB_TOPOLOGY=1 alone.
func TestInitTopology(t *testing.T) {
	need(t)
	if os.Getenv("LAB_TOPOLOGY") == "" {
		t.Skip("LAB_TOPOLOGY=1 runs this: 2048 slots take 40 GB of disk, 6 GB of memory and ten minutes and more")
	}
	s := newSite(t)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &disk); err != nil || disk.Bavail*uint64(disk.Bsize) < 45<<30 {
		t.Fatalf("%s has less than 45 GB free", s.dir)
	}
	w := &world{site: s, moving: schema.Slots{1}}
	servers, targets := map[string]*pika{}, ""
	for _, name := range []string{"pika1", "pika2", "pika3", "pika4"} {
		servers[name] = s.pika(name)
		targets += pikaTarget(name, servers[name])
	}
	w.codis = s.codis(false)
	began := time.Now()
	w.runner("exec", w.shipped("pika-codis-init-topology.yaml"), "--inventory", w.inventory("topology.inventory.yaml", targets, "  slot_num: 1024\n"), "--approve", "all", "--yes").want(0)
	took := time.Since(began).Round(time.Second)
	for slot, want := range map[int]*pika{0: servers["pika1"], 511: servers["pika1"], 512: servers["pika3"], 1023: servers["pika3"]} {
		if at, ok := w.codis.served([]int{slot}, want.addr); !ok {
			t.Errorf("clients of slot %d are served from %q, want %s", slot, at, want.addr)
		}
	}
	w.begin()
	w.verdict("topology of 1024 slots, twice", "made in "+took.String(), nil)
}
