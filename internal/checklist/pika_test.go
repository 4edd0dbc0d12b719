package checklist

import (
	"net"
	"strconv"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/pika"
)

// old is an instance of 2.3.6, whose replica takes seconds to follow it, and one of a release that it cannot replicate with.
const old = `
  old: {kind: pika, release: 2.3.6}
  replica: {kind: pika, release: 2.3.6, replica_of: old}
  older: {kind: pika, release: 2.3.0}
  new: {kind: pika, slots: 0-1023}
  single: {kind: pika, mode: classic}
`

// attached is a product whose third group follows the first in slot 1, and its replica that follows nobody yet.
func attached(t *testing.T) *world {
	t.Helper()
	w := theProduct(t)
	for _, name := range []string{"destination", "other"} {
		w.do(name, "PKCLUSTER", "ADDSLOTS", "1")
	}
	w.follow("destination", "source", "1", "force")
	w.until("the destination follows", func() (bool, []string) {
		found := slotFinds(w)
		return len(found) == 0, found
	})
	return w
}

// slotFinds names the outputs of pika.slot-info on slot 1 of the destination that are not those of a replica in step.
func slotFinds(w *world) []string {
	out := w.read("pika.slot-info", "destination", "slots", "1")
	var found []string
	for name, good := range map[string]bool{
		"present": out["present"] == true, "connected": out["connected"] == true, "in_full_sync": out["in_full_sync"] == false,
		"replica_state": out["replica_state"] == "SlaveBinlogSync", "lag": out["lag"] != nil,
	} {
		if !good {
			found = append(found, name)
		}
	}
	return found
}

// release names the reasons of pika.check-release.
func release(pairs ...any) func(w *world) []string {
	return func(w *world) []string { return w.problems("pika.check-release", w.on, "reasons", pairs...) }
}

// look has a row look at a target.
func look(target string) func(w *world) { return func(w *world) { w.on = target } }

// told is a row about a release: one that has the problem, and one that has not.
func told(id, name, has, hasNot string, pairs ...any) row {
	return row{id, name, inTime(20, old), look(has), release(pairs...), look(hasNot)}
}

// posing is a row about a release that an instance in mode classic only says that it has.
func posing(id, name, has, hasNot string) row {
	return row{
		id, name, inTime(20, old), func(w *world) { w.on = "single"; w.as("single", has) }, release(),
		func(w *world) { w.as("single", hasNot) },
	}
}

// keys is a row about a key that Codis' migration from 2.3.6 damages.
func keys(id, name string, bad []string) row {
	return row{
		id, name, inTime(20, old),
		func(w *world) {
			w.do("old", "SET", "plain", "1")
			w.do("old", bad...)
		},
		func(w *world) []string { return w.problems("pika.check-keys", "old", "problems") },
		func(w *world) { w.do("old", "DEL", bad[1]) },
	}
}

func pikaRows() []row {
	wholeSync := func(d time.Duration) func(w *world) {
		return func(w *world) { w.Pika("destination").SetFullSync(d) }
	}
	anew := func(w *world) { // attached once more, by a full sync that does not end
		w.detach("destination", "1")
		wholeSync(fault.Forever)(w)
		w.follow("destination", "source", "1", "force")
		w.until("a full sync is under way", func() (bool, []string) {
			out := w.read("pika.slot-info", "destination", "slots", "1")
			return out["in_full_sync"] == true, nil
		})
	}
	replica := "source_replica" // in the part of the third group's replica, as soon as it follows nobody
	return []row{
		posing("S0-06", "no-sync-migration", "3.0.16", "3.5.5"),
		told("S0-08", "releases-do-not-replicate", "older", "replica", "peer", "old"),
		{
			"S0-12", "it has a binlog of its own", inTime(20, old),
			func(w *world) {
				w.do("old", "SET", "k", "v")
				w.do("replica", "SLAVEOF", "NO", "ONE")
				w.do("replica", "SET", "k", "w")
			},
			func(w *world) []string { return w.refused("pika.slaveof", "replica", "master", "old") },
			func(w *world) { w.with["force"] = true },
		},
		{
			"S0-14", "double-master-ids", inTime(20, old), func(w *world) { w.double("2", "7") },
			func(w *world) []string { return w.problems("pika.check-release", "old", "reasons", "peer", "replica") },
			func(w *world) { w.double("2", "2") },
		},
		posing("S0-15", "no-slots-no-geo", "3.0.16", "3.5.5"),
		told("S0-16", "rsync-fails-for-good", "old", "new"),
		{
			"S0-22", "rsync_installed", inTime(20, old), func(w *world) { w.Pika("new").SetNoRsync(true) },
			func(w *world) []string {
				if w.read("pika.check-rsync-port", "new")["rsync_installed"] != true {
					return []string{"rsync_installed"}
				}
				return nil
			},
			func(w *world) { w.Pika("new").SetNoRsync(false) },
		},
		busy("S0-24", "rsync", 1000),
		busy("S0-25", "binlog", 2000),
		{
			"S0-34", "slotmigrate-off", inTime(20, old), look("old"), release(),
			func(w *world) { w.do("old", "CONFIG", "SET", "slotmigrate", "yes") },
		},

		{"S1-04", "no-transactions", inTime(20, old), func(w *world) { w.on = "new" }, release(), func(w *world) { w.as("new", "3.5.5") }},
		{
			"S1-05", "slot-number", in("  sixteen: {kind: pika, slots: 0-15, slot_num: 16}\n  all: {kind: pika, slots: 0-1023}\n"),
			look("sixteen"), release(), look("all"),
		},
		{
			"S1-05", "hash-differs", in("  server: {kind: pika, slots: 0-1023}\n"), func(w *world) {
				w.on = "server"
				w.Pika("server").SetIntercept(func(cmd []string) fault.Action {
					if cmd[0] != "SLOTSHASHKEY" {
						return fault.Pass()
					}
					answer := "*" + strconv.Itoa(len(cmd)-1) + "\r\n"
					for range cmd[1:] {
						answer += ":7\r\n"
					}
					return fault.Garbage(answer)
				})
			}, release(), func(w *world) { w.Pika("server").SetIntercept(nil) },
		},
		{
			"S1-06", "there is no table 7", inTime(20, old), func(w *world) { w.with["table"] = 7 },
			func(w *world) []string { return w.refused("pika.addslots", "new", "slots", "1") },
			func(w *world) { w.with["table"] = 0 },
		},
		{
			"S1-12", "partial", attached, func(w *world) { w.with["slots"] = "1-2" },
			func(w *world) []string { return w.standing("pika.addslots", "destination") },
			func(w *world) {
				if said := w.fails("pika.addslots", "destination", patience); said != nil {
					w.Error(said)
				}
			},
		},
		{
			"S1-13", "it has a binlog of its own", attached,
			func(w *world) { w.detach("destination", "1"); w.do("destination", "SET", keyIn(1), "mine") },
			func(w *world) []string {
				return w.refused("pika.slotsslaveof", "destination", "slots", "1", "master", "source")
			},
			func(w *world) { w.with["force"] = true },
		},
		{
			"S1-16", "does not hold the slot", theProduct, nil,
			func(w *world) []string {
				return w.refused("pika.slotsslaveof", "destination", "slots", "1", "master", "source", "force", true)
			},
			func(w *world) { w.do("destination", "PKCLUSTER", "ADDSLOTS", "1") },
		},
		{"S1-17", "in_full_sync", attached, anew, slotFinds, wholeSync(time.Millisecond)},
		{
			"S1-18", "that does not hold the slot", attached,
			func(w *world) { w.detach(replica, "2"); w.with["slots"] = "2" },
			func(w *world) []string {
				return w.refused("pika.slotsslaveof", replica, "master", "destination", "force", true)
			},
			func(w *world) { w.do("destination", "PKCLUSTER", "ADDSLOTS", "2") },
		},
		{
			"S1-19", "has not caught up with its own master", attached, func(w *world) { w.detach(replica, "1"); anew(w) },
			func(w *world) []string {
				return w.refused("pika.slotsslaveof", replica, "slots", "1", "master", "destination", "force", true)
			},
			wholeSync(time.Millisecond),
		},
		{"S1-20", "lag", attached, anew, slotFinds, wholeSync(time.Millisecond)},
		{
			"S1-21", "not within its time", attached, func(w *world) { w.Pika("destination").SetLag(fault.Forever) },
			func(w *world) []string {
				return w.fails("pika.check-applied", "source", time.Second, "slots", "1", "replica", "destination")
			},
			func(w *world) { w.Pika("destination").SetLag(0) },
		},
		{
			"S1-22", "finished-proves-nothing", inTime(20, old), look("new"), release(),
			func(w *world) { w.as("new", "3.5.5") },
		},
		{
			"S1-23", "follows it", attached, nil,
			func(w *world) []string {
				return w.refused("pika.delslots", "source", "slots", "1", "served_by", "destination")
			},
			func(w *world) { w.detach(replica, "1"); w.detach("destination", "1") },
		},
		{
			"S1-23", "it follows", attached, nil,
			func(w *world) []string {
				return w.refused("pika.delslots", "destination", "slots", "1", "discard", true)
			},
			func(w *world) { w.detach("destination", "1") },
		},
		{
			"S1-27", "default-slot-num", in("  sixteen: {kind: pika, slots: 0-15, slot_num: 16}\n  all: {kind: pika, slots: 0-1023}\n"),
			look("sixteen"), settings, look("all"),
		},
		{"S1-27", "instance-mode", inTime(20, old), look("single"), settings, look("new")},
		told("S1-27", "modes-differ", "single", "new", "peer", "new"),
		{
			"S1-28", "table 0 has 4 slots", in("  four: {kind: pika, slots: 0-1, slot_num: 4}\n"), func(w *world) { w.with["slots"] = "2-4" },
			func(w *world) []string { return w.refused("pika.addslots", "four") },
			func(w *world) { w.with["slots"] = "2-3" },
		},

		keys("X-01", "lists-reversed", []string{"RPUSH", "queue", "a", "b"}),
		{
			"X-02", "in read-only", inTime(20, old), nil,
			func(w *world) []string { return w.fails("pika.check-write", "replica", patience) },
			func(w *world) { w.do("replica", "SLAVEOF", "NO", "ONE") },
		},
		told("X-02", "errors-ignored", "old", "new"),
		told("X-03", "keys-dropped-from-index", "old", "new"),
		keys("X-04", "keys-lower-cased", []string{"SET", "User:1", "v"}),
		keys("X-05", "tags-ignored", []string{"SET", "{user}:1", "v"}),
		keys("X-06", "empty-strings-stay", []string{"SET", "nothing", ""}),
		keys("X-07", "scores-rounded", []string{"ZADD", "board", "0.1234567", "ana"}),
		told("X-08", "replicas-keep-keys", "old", "new"),
		{
			"X-08", "extra", inTime(20, old), func(w *world) { w.do("replica", "SLAVEOF", "NO", "ONE"); w.do("replica", "SET", "zombie", "1") },
			func(w *world) []string { return w.differences("old", "replica") },
			func(w *world) { w.do("replica", "DEL", "zombie") },
		},
		{
			"X-09", "missing", inTime(20, old),
			func(w *world) { // the server's own index, and a key of a user's
				w.do("replica", "SLAVEOF", "NO", "ONE")
				w.do("old", "SADD", "_internal:slotkey:4migrate:5", "kkey")
				w.do("old", "SET", "key", "v")
			},
			func(w *world) []string {
				if n := w.read("pika.count-keys", "old", "every", "5ms")["sets"]; n != int64(0) {
					w.Errorf("%d sets are counted, and the users have none", n)
				}
				return w.differences("old", "replica")
			},
			func(w *world) { w.do("replica", "SET", "key", "v") },
		},
		told("X-10", "index-costs", "old", "new"),
		{
			"X-11", "a full sync from", attached, anew,
			func(w *world) []string {
				return w.refused("pika.slotsslaveof", "destination", "slots", "1", "master", "source_replica", "force", true)
			},
			wholeSync(time.Millisecond),
		},
		told("X-11", "repeated-slaveof", "old", "new"),
		posing("X-12", "parallel-migration-hangs", "3.5.3", "3.5.5"),
		posing("X-12", "wrapper-refuses", "4.0.0", "3.5.5"),
		{
			"X-13", "value", inTime(20, old),
			func(w *world) {
				w.do("replica", "SLAVEOF", "NO", "ONE")
				w.do("old", "SET", "k", "mine")
				w.do("replica", "SET", "k", "yours")
			},
			func(w *world) []string { return w.differences("old", "replica") },
			func(w *world) { w.do("replica", "SET", "k", "mine") },
		},
		{
			"X-15", "other-databases", inTime(20, old), func(w *world) { w.several("three", 3); w.on = "three" }, release(), look("single"),
		},
		{
			"X-16", "missing", attached, func(w *world) { w.detach("destination", "1"); w.do("source", "SET", keyIn(1), "v") },
			func(w *world) []string { return w.differences("source", "destination", "slots", "1") },
			func(w *world) { w.do("destination", "SET", keyIn(1), "v") },
		},
	}
}

// several starts an instance in mode classic that has more than one database.
func (w *world) several(name string, databases int) {
	w.Helper()
	s, err := pika.Start(pika.Options{Mode: "classic", Databases: databases})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	w.add(name, "pika", map[string]any{"addr": s.Addr()})
}

// double has old and replica be double masters: the server-id of replica, and what old takes it for.
func (w *world) double(id, believed string) {
	w.Helper()
	for _, s := range []struct{ name, own, peer, theirs string }{{"old", "1", "replica", believed}, {"replica", id, "old", "1"}} {
		ip, port, _ := net.SplitHostPort(w.Addr(s.peer))
		err := w.Pika(s.name).Relaunch(map[string]string{"server-id": s.own, "double-master-ip": ip, "double-master-port": port, "double-master-server-id": s.theirs})
		if err != nil {
			w.Fatal(err)
		}
	}
}

// busy is a row about a port that somebody else holds, of an instance that is to be started.
func busy(id, purpose string, distance int) row {
	var l net.Listener
	return row{
		id, purpose, in("  absent: {kind: pika, absent: true}\n"),
		func(w *world) {
			host, port, _ := net.SplitHostPort(w.Addr("absent"))
			n, _ := strconv.Atoi(port)
			var err error
			if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n+distance))); err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = l.Close() })
			w.add("absent", "pika", map[string]any{"addr": w.Addr("absent"), "release": "3.4.0"})
		},
		func(w *world) []string {
			var found []string
			for _, p := range w.read("pika.check-rsync-port", "absent", "host", "machine")["busy"].([]any) {
				found = append(found, p.(map[string]any)["purpose"].(string))
			}
			return found
		},
		func(w *world) { _ = l.Close() },
	}
}

// settings names the settings of an instance that are not those of a cluster of Codis'.
func settings(w *world) []string {
	var found []string
	for _, m := range w.read("redis.check-config", w.on, "expect", map[string]any{"instance-mode": "sharding", "default-slot-num": "1024"})["mismatches"].([]any) {
		found = append(found, m.(map[string]any)["name"].(string))
	}
	return found
}

// differences names what differs between two servers.
func (w *world) differences(source, other string, pairs ...any) []string {
	w.Helper()
	out := w.read("redis.compare", source, append(pairs, "against", other, "mode", "full", "rounds", 1)...)
	var found []string
	for name, output := range map[string]string{"missing": "missing", "extra": "extra", "value": "value_mismatches", "type": "type_mismatches", "ttl": "ttl_mismatches"} {
		if out[output] != int64(0) {
			found = append(found, name)
		}
	}
	return found
}
