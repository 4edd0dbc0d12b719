package lab

import (
	"fmt"
	"testing"
	"time"
)

// TestFailover kills the master of a group under load and has the shipped runbook make its best replica the master. What
// no replica had received is lost, and counted; clients must be served again, and lose nothing from then on.
func TestFailover(t *testing.T) {
	need(t)
	w := newWorld(t, 1, false)
	second := w.pika("source-replica-2")
	second.make(w.all)
	second.follow(w.source, w.all)
	w.codis.must(nil, "group/add", "1", second.addr)
	w.begin()
	w.source.process.kill()
	died := time.Now()
	targets := pikaTarget("master", w.source) + pikaTarget("replica_1", w.replica) + pikaTarget("replica_2", second)
	inventory := w.inventory("failover.inventory.yaml", targets, fmt.Sprintf("  slots: %q\n  group: 1\n", w.all))
	r := w.runner("exec", w.shipped("pika-failover-group.yaml"), "--inventory", inventory, "--approve", "all", "--yes")
	at := w.codis.awaitServed(t, w.all, w.replica.addr, second.addr)
	w.more(writes)
	took := time.Since(died).Round(time.Millisecond)
	r.want(0)
	t.Logf("clients are served from %s, %s after the master died", at, took)
	w.count("failover of a group", fmt.Sprintf("service after %s; lost is what no replica had received", took), nil)
}
