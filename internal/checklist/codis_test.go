package checklist

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"runbook/internal/simulate/fault"
)

// says is a row about what a dashboard says of itself.
func says(id, fires string, pairs ...string) row {
	return row{
		id, fires, theProduct, func(w *world) { w.relay.says(pairs...) },
		func(w *world) []string { return w.health() },
		func(w *world) { w.relay.says() },
	}
}

// failover are the systems that stand for the targets of pika-failover-group.
var failover = map[string]string{"master": "source", "replica_1": "source_replica", "replica_2": "second", "codis": "codis"}

const withSecond = `
  source: {kind: pika, slots: 0-7, keys: 50}
  source_replica: {kind: pika, slots: 0-7, replica_of: source}
  second: {kind: pika, slots: 0-7, replica_of: source}
  codis: {kind: codis, groups: {1: [source, source_replica, second]}, slots: {0-7: 1}}
`

func codisRows() []row {
	health := func(w *world) []string { return w.health() }
	toThird := []any{"slots", "1", "to_group", 3}
	switching := slices.Concat(toThird, []any{"source", "source", "destination", "destination", "max_lag", "1kb"})
	refuses := func(kind string, pairs ...any) func(w *world) []string {
		return func(w *world) []string { return w.refused(kind, "codis", pairs...) }
	}
	return []row{
		says("S0-31", "method-mismatch", "pika_version\": \"3.4.0", "pika_version\": \"2.3.6"),
		says("S0-40", "admin-address-unspecified", `"admin_addr": "127.0.0.1:`, `"admin_addr": "0.0.0.0:`),

		says("S1-01", "release-unsupported", "3.2.2", "3.1.5"),
		says("S1-02", "method-mismatch", `"migration_method": "semi-async"`, `"migration_method": "sync"`),
		{
			"S1-03", "sentinel-configured", theProduct, func(w *world) {
				if err := w.ZooKeeper("zk").Tree().Put("/codis3/demo/sentinel", []byte(`{"servers": ["127.0.0.1:26379"]}`)); err != nil {
					w.Fatal(err)
				}
				w.put("reload/:xauth", "")
				w.relay.says(`pika_version": "3.4.0`, `pika_version": "3.3.6`)
			}, health, func(w *world) { w.relay.says() },
		},
		posing("S1-03", "sentinel", "3.3.6", "3.5.5"),
		{
			"S1-05", "Partition not found", theProduct, func(w *world) {
				w.route(1, "other")
			},
			func(w *world) []string {
				return w.fails("pika.check-write", "source", patience, "slots", "1", "through", "proxy1")
			},
			func(w *world) { w.put("group/resync/:xauth/1", "") },
		},
		{
			"S1-08", "replica_2 is ahead", in(withSecond), func(w *world) { w.behind("source_replica") },
			func(w *world) []string {
				out := w.exec("pika-failover-group", failover, "--dry-run", "-i", "slots=0-7")
				promotes := "group/promote/<xauth>/1/"
				if !strings.Contains(out, promotes) {
					w.Fatal(out)
				}
				if strings.Contains(out, promotes+w.Addr("second")) {
					return []string{"replica_2 is ahead"}
				}
				return nil
			},
			func(w *world) { w.Pika("source_replica").SetLag(0) },
		},
		{
			"S1-09", "groups", theProduct, func(w *world) { w.put("group/del/:xauth/1/"+w.Addr("source_replica"), "") },
			func(w *world) []string {
				all := map[string]string{"source": "source", "source_replica": "source_replica", "destination": "destination", "codis": "codis"}
				return w.failed("pika-codis-scale-out", all, "--to", "preflight", "-i", "dir=/tmp", "-i", "replica_dir=/tmp", "-i", "min_free=1kb")
			},
			func(w *world) { w.put("group/add/:xauth/1/"+w.Addr("source_replica"), "") },
		},
		{
			"S1-09", "connected", attached, func(w *world) { w.detach("destination", "1") }, slotFinds,
			func(w *world) { w.follow("destination", "source", "1", "force") },
		},
		{
			"S1-10", "though master_down is given", theProduct, nil,
			func(w *world) []string {
				return w.refused("codis.promote", "codis", "group", 1, "addr", w.Addr("source_replica"), "master_down", true)
			},
			func(w *world) { w.Pika("source").Stop() },
		},
		{
			"S1-10", "is_gone", in(withSecond), nil,
			func(w *world) []string {
				return w.failed("pika-failover-group", failover, "--dry-run", "-i", "slots=0-7")
			},
			func(w *world) { w.Pika("source").Stop() },
		},
		{
			"S1-11", "slots-uncovered", theProduct, func(w *world) { w.put("slots/assign/:xauth/offline", `[{"id": 9}]`) }, health,
			func(w *world) {
				w.put("slots/assign/:xauth", `[{"id": 9, "group_id": 1}]`)
				w.put("group/resync/:xauth/1", "")
			},
		},
		{
			"S1-11", "coverage", theProduct, func(w *world) { w.on = "512-1022" },
			func(w *world) []string {
				return w.failed("pika-codis-init-topology", nil, "--to", "coverage", "-i", "slots_2="+w.on)
			},
			func(w *world) { w.on = "512-1023" },
		},
		{
			"S1-14", "has keys in slots 1", theProduct, func(w *world) { w.do("source", "SET", keyIn(1), "v") },
			refuses("codis.assign-slots", toThird...),
			func(w *world) { w.clear("source", 1) },
		},
		{
			"S1-15", "has no server", attached, func(w *world) { w.put("group/del/:xauth/3/"+w.Addr("destination"), "") },
			refuses("codis.switch-slot", switching...),
			func(w *world) { w.put("group/add/:xauth/3/"+w.Addr("destination"), "") },
		},
		{
			"S1-20", "more than 1024", attached, func(w *world) {
				w.Pika("destination").SetLag(fault.Forever)
				for range 40 {
					w.do("source", "SET", keyIn(1), strings.Repeat("v", 100))
				}
			},
			func(w *world) []string {
				return w.fails("codis.switch-slot", "codis", patience, slices.Concat(switching, []any{"catch_up", "10ms", "max_pause", "20s"})...)
			},
			func(w *world) { w.Pika("destination").SetLag(0) },
		},
		{
			"S1-22", "does not follow", attached, func(w *world) {
				if err := w.Pika("destination").Restart(); err != nil {
					w.Fatal(err)
				}
			},
			refuses("codis.switch-slot", switching...),
			func(w *world) { w.follow("destination", "source", "1", "force") },
		},
		{
			"S1-22", "which answers that all has moved and moves nothing", theProduct, nil,
			refuses("codis.migrate-slots", toThird...),
			func(w *world) { w.as("source", "3.5.5"); w.as("destination", "3.5.5") },
		},
		{
			"X-14", "codis-ha", theProduct, func(w *world) { w.daemon("codis-ha") },
			func(w *world) []string { return w.health("hosts", []any{"machine"}) },
			func(w *world) { w.kill() },
		},
		{
			"X-14", "foreign-action", theProduct, func(w *world) {
				w.put("slots/action/disabled/:xauth/1", "")
				w.put("slots/action/create/:xauth/7/3", "")
			}, health, func(w *world) { w.put("slots/action/remove/:xauth/7", "") },
		},
		{
			"X-14", "proxy-unreachable", theProduct, func(w *world) { w.Proxy("codis", 1).Kill() }, health,
			func(w *world) {
				if err := w.Proxy("codis", 1).Restart(); err != nil {
					w.Fatal(err)
				}
			},
		},
	}
}

// route has the second proxy send the clients of a slot to another server than the dashboard would have it.
func (w *world) route(slot int, to string) {
	w.Helper()
	body := fmt.Sprintf(`[{"id": %d, "backend_addr": %q, "forward_method": 1}]`, slot, w.Addr(to))
	if status, said := w.Proxy("codis", 1).Do("PUT", "/api/proxy/fillslots/:xauth", []byte(body)); status != 200 {
		w.Fatalf("%d %s", status, said)
	}
}

// clear deletes the keys of a slot.
func (w *world) clear(name string, slot int) {
	w.Helper()
	for _, key := range w.Pika(name).Keys(slot) {
		w.do(name, "DEL", key)
	}
}

// daemon starts a process of this name on this machine.
func (w *world) daemon(name string) {
	w.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		w.Fatalf("this test needs sleep in PATH: %v", err)
	}
	binary := filepath.Join(w.TempDir(), name)
	if err := os.Symlink(sleep, binary); err != nil {
		w.Fatal(err)
	}
	w.process = exec.Command(binary, "600")
	if err := w.process.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(w.kill)
}

func (w *world) kill() {
	if w.process.ProcessState == nil {
		_ = w.process.Process.Kill()
		_ = w.process.Wait()
	}
}

// behind has a replica not get what its master, and the other replica, have.
func (w *world) behind(replica string) {
	w.Helper()
	w.Pika(replica).SetLag(fault.Forever)
	for i := range 40 {
		w.do("source", "SET", keyIn(1)+fmt.Sprint(i), "v")
	}
	w.until("the second has it all", func() (bool, []string) {
		return w.Pika("second").SlotKeys(1) == w.Pika("source").SlotKeys(1), nil
	})
}
