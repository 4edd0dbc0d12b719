package lab

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"runbook/internal/simulate/traffic"
	"runbook/schema"
)

// The load, the same in every lane.
const (
	clients = 16
	keys    = 160 // ten a client, one of each kind of value
	writes  = 1000
	prefix  = "lab:"
)

// world is a product whose clients write: half of their keys lie in the slots that move, the others all over.
type world struct {
	*site
	codis   *codis
	source  *pika
	replica *pika
	moving  schema.Slots
	all     schema.Slots // with those of the keys all over
	load    *traffic.Traffic
}

// newWorld starts a group of a master and its replica, and a product that serves all from it. n slots are to move.
func newWorld(t *testing.T, n int, relayed bool) *world {
	t.Helper()
	s := newSite(t)
	w := &world{site: s}
	seen := map[int]bool{}
	for k := range keys {
		seen[slotOf(prefix+strconv.Itoa(k))] = true
	}
	for slot := range 1024 { // those that move are others than those of the keys all over
		if !seen[slot] && len(w.moving) < n {
			w.moving = append(w.moving, slot)
		}
		if seen[slot] {
			w.all = append(w.all, slot)
		}
	}
	w.all = set(append(w.all, w.moving...))
	w.source, w.replica = s.pika("source"), s.pika("source-replica")
	made := make(chan error, 1)
	go func() { // half a minute, in which the other can do the same
		_, err := w.replica.do("pkcluster", "addslots", w.all.String())
		made <- err
	}()
	w.source.make(w.all)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	w.replica.follow(w.source, w.all)
	w.codis = s.codis(relayed)
	w.codis.group(1, w.source, w.replica)
	w.codis.assign(1)
	return w
}

// begin starts the clients, and returns once all of them are at work.
func (w *world) begin() {
	w.t.Helper()
	var tags []string
	for _, slot := range w.moving {
		tags = append(tags, tagOf(slot))
	}
	var err error
	w.load, err = traffic.Start(w.t.Context(), traffic.Options{
		Routes: func(context.Context) ([]string, error) {
			return []string{w.codis.proxies[0].addr, w.codis.proxies[1].addr}, nil
		},
		Clients: clients, Keys: keys, WritesPerSecond: writes, Prefix: prefix, Tags: tags, Timeout: 30 * time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.load.Stop)
	w.more(2 * writes)
}

// more waits until clients have had n more writes acknowledged.
func (w *world) more(n int64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.load.Ledger().WaitAcknowledged(ctx, n); err != nil {
		w.t.Fatalf("%d more writes: %v: %+v", n, err, w.load.Ledger().Stats())
	}
}

// verdict ends the load and reads every key back through a proxy. A write that was acknowledged and is not
// there fails the test, and so does a stale read, a value that nobody wrote, a client without service.
func (w *world) verdict(lane, note string, switches []pause) traffic.Report {
	w.t.Helper()
	r := w.count(lane, note, switches)
	for name, what := range r.Broken() {
		w.t.Errorf("%s: %s", name, what)
	}
	if len(r.Extra) > 0 {
		w.t.Errorf("never written, or written twice: %v", r.Extra)
	}
	return r
}

// count ends the load, reads every key back through a proxy, and notes what came of it.
func (w *world) count(lane, note string, switches []pause) traffic.Report {
	w.t.Helper()
	w.more(writes)
	w.load.Stop()
	read, done, err := traffic.ReadAt(w.t.Context(), nil, w.codis.proxies[1].addr, "", "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer done()
	r, err := w.load.Check(w.t.Context(), read)
	if err != nil {
		w.t.Fatal(err)
	}
	lab.results.add(row{lane: lane, switches: switches, report: r, note: note})
	w.t.Logf("%s: %d acknowledged, %d lost, %d stale, %d unknown, longest wait %s in slots that moved and %s in others, p99 %s, errors %v; %s",
		lane, r.Acknowledged, len(r.Lost), len(r.Stale), r.Unknown, r.MaxWaitTagged, r.MaxWaitUntagged, r.P99, r.Errors, note)
	return r
}

// inventory names the targets for the shipped runbooks.
func (w *world) inventory(name, targets, inputs string) string {
	w.t.Helper()
	return w.write(name, fmt.Sprintf("targets:\n  codis: {kind: codis, addr: %q, product: %q}\n%sinputs:\n%s", w.codis.addr, w.codis.product, targets, inputs))
}

func pikaTarget(name string, p *pika) string {
	return fmt.Sprintf("  %s: {kind: pika, addr: %q}\n", name, p.addr)
}
