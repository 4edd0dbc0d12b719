package lab

import (
	"fmt"
	"testing"
	"time"
)

// TestScaleOut moves 1, 16 and 100 slots to a new group with the shipped runbook, from the start of its servers to the
// deletion of the old copies.
func TestScaleOut(t *testing.T) {
	need(t)
	for _, n := range []int{1, 16, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, n, false)
			w.begin()
			g := w.newGroup()
			began := time.Now()
			resumed := w.finish(w.runner("exec", w.shipped("pika-codis-scale-out.yaml"), "--inventory", g.inventory, "--approve", "all", "--yes"))
			took := time.Since(began).Round(time.Second)
			g.moved()
			switches, lane := w.switches(), fmt.Sprintf("scale-out, %d slots", n)
			if n == 16 {
				lane += ", and scale-in"
				again, more := g.scaleIn()
				resumed, switches = resumed+again, append(switches, more...)
			}
			r := w.verdict(lane, fmt.Sprintf("the scale-out took %s, resumed %d times", took, resumed), switches)
			if r.Unknown > 0 || len(r.Errors) > 0 {
				t.Errorf("clients saw errors though nothing failed: %v", r.Errors)
			}
		})
	}
}

// group is a new group, whose servers the runbook starts.
type group struct {
	w                    *world
	destination, replica *pika
	inventory            string // for the runbook
}

const newGroupID = 3

func (w *world) newGroup() *group {
	w.t.Helper()
	g := &group{w: w, destination: w.place("new"), replica: w.place("new-replica")}
	targets := pikaTarget("source", w.source) + pikaTarget("source_replica", w.replica) + pikaTarget("destination", g.destination) + pikaTarget("destination_replica", g.replica) +
		"  machine: {kind: host, local: true}\n  replica_machine: {kind: host, local: true}\n"
	config := ""
	for name, value := range settings {
		config += fmt.Sprintf("    %s: %q\n", name, value)
	}
	g.inventory = w.inventory("scale-out.inventory.yaml", targets, fmt.Sprintf("  slots: %q\n  to_group: %d\n  binary: %s\n  dir: %s\n  replica_dir: %s\n  between: 1s\n  config:\n%s",
		w.moving, newGroupID, lab.pika.path, g.destination.dir, g.replica.dir, config))
	return g
}

// scaleIn brings the slots back with the shipped runbook, and has the group taken out of the product. It gives how often it was resumed.
func (g *group) scaleIn() (resumed int, switches []pause) {
	w := g.w
	w.t.Helper()
	targets := pikaTarget("leaving", g.destination) + pikaTarget("leaving_replica", g.replica) + pikaTarget("staying", w.source) + pikaTarget("staying_replica", w.replica)
	inventory := w.inventory("scale-in.inventory.yaml", targets, fmt.Sprintf("  slots: %q\n  from_group: %d\n  to_group: 1\n  between: 1s\n", w.moving, newGroupID))
	resumed = w.finish(w.runner("exec", w.shipped("pika-codis-scale-in.yaml"), "--inventory", inventory, "--approve", "all", "--yes"))
	if at, ok := w.codis.served(w.moving, w.source.addr); !ok {
		w.t.Errorf("after the scale-in clients are served from %q, want %s", at, w.source.addr)
	}
	for p, want := range map[*pika]int{g.destination: 0, g.replica: 0, w.source: len(w.moving), w.replica: len(w.moving)} {
		if got := p.has(w.moving); got != want {
			w.t.Errorf("after the scale-in %s holds %d of the slots, want %d", p.dir, got, want)
		}
	}
	return resumed, w.switches()
}

// moved checks where the slots are at the end: served and held by the new group, by nobody else, its replica in step.
func (g *group) moved() {
	g.w.t.Helper()
	if at, ok := g.w.codis.served(g.w.moving, g.destination.addr); !ok {
		g.w.t.Errorf("clients are served from %q, want %s", at, g.destination.addr)
	}
	for p, want := range map[*pika]int{g.destination: len(g.w.moving), g.replica: len(g.w.moving), g.w.source: 0, g.w.replica: 0} {
		if got := p.has(g.w.moving); got != want {
			g.w.t.Errorf("%s holds %d of the slots, want %d", p.dir, got, want)
		}
	}
}
