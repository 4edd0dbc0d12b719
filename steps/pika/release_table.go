package pika

import "fmt"

// What is known of releases, from their sources and by measuring. Codis sends a migration to the source, so the source's
// release counts.

// note is a problem of the releases from the first number up to, and not with, the second; mode: in that mode alone.
type note struct {
	from, to [3]int
	mode     string
	Problem
}

// known gives the problems of a server by itself.
func (n nature) known() []Problem {
	var p []Problem
	for _, k := range notes {
		if n.release.between(k.from, k.to) && (k.mode == "" || k.mode == n.mode) {
			p = append(p, k.Problem)
		}
	}
	if n.databases > 1 {
		p = append(p, codisAll(Problem{Name: "other-databases", Blocks: true,
			Message: fmt.Sprintf("there are %d databases: Codis learns from INFO keyspace which there are, cannot read Pika's, and moves what is in db0 alone", n.databases),
			Fix:     "have all keys in db0; what lies in others is to be moved by a tool"})...)
	}
	if n.unindexed {
		p = append(p, codisAll(Problem{Name: "slotmigrate-off", Blocks: true,
			Message: "slotmigrate is no: the server has no index of its slots, and tells Codis that there is nothing to migrate",
			Fix:     "pika.config-set slotmigrate yes, then SLOTSRELOAD for the keys that are there already"})...)
	}
	return p
}

var (
	first = [3]int{0, 0, 0}
	last  = [3]int{1000, 0, 0}
)

var notes = []note{
	// which migration methods a release has
	{first, [3]int{2, 2, 0}, "", Problem{"no-sync-migration", "codis-sync", true, "the release has no slot migration", "take a release of 2.2.0 to 2.3.8, or move slots by replication with one of 3.2 to 3.4"}},
	{first, [3]int{2, 3, 2}, "", Problem{"no-semi-async-migration", "codis-semi-async", true, "the release does not know semi-async migration, and Codis gets an error", `set migration_method = "sync" in dashboard.toml`}},
	{[3]int{3, 0, 0}, [3]int{3, 2, 0}, "", Problem{"no-sync-migration", "codis-sync", true, "releases 3.0 and 3.1 have no slot commands", "take a release of 2.2.0 to 2.3.8, or one of 3.2 to 3.4 in mode sharding"}},
	{[3]int{3, 0, 0}, [3]int{3, 2, 0}, "", Problem{"no-semi-async-migration", "codis-semi-async", true, "releases 3.0 and 3.1 have no slot commands", "take a release of 3.2 to 3.4 in mode sharding"}},
	{[3]int{3, 2, 0}, [3]int{3, 5, 0}, "", Problem{"no-sync-migration", "codis-sync", true, "SLOTSMGRTTAGSLOT is answered with NOT supported", `set migration_method = "semi-async" in dashboard.toml`}},
	{[3]int{3, 2, 0}, [3]int{3, 5, 0}, Classic, Problem{"no-semi-async-migration", "codis-semi-async", true, "an instance in mode classic has no slots", "run it with instance-mode sharding"}},
	{[3]int{5, 0, 0}, last, "", Problem{"release-not-known", "codis-sync", true, "nothing is known here of this release's slot migration", "try it on a world of its own first"}},
	{[3]int{5, 0, 0}, last, "", Problem{"release-not-known", "codis-semi-async", true, "nothing is known here of this release's slot migration", "try it on a world of its own first"}},

	// what a method that is there does besides
	{[3]int{3, 2, 0}, [3]int{3, 5, 0}, Sharding, Problem{"finished-proves-nothing", "codis-semi-async", false, "the server moves no keys: it answers that some remain while the destination is a replica of the slot, and that all are moved as soon as it is not, also when the link was lost", "do not have Codis migrate: replicate the slot, and switch it with codis.switch-slot"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"lists-reversed", "codis-sync", false, "lists arrive in reverse order", "have no lists (pika.check-keys), or compare and repair them afterwards"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"errors-ignored", "codis-sync", false, "a key is deleted at the source before the destination has answered, and errors are not read: a read-only destination, or another password, loses it", "pika.check-write on the destination, and the same requirepass on both"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"keys-dropped-from-index", "codis-sync", false, "a key whose transfer fails to connect leaves the slot's index and is never migrated", "SLOTSRELOAD after each slot, until none is left at the source"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"empty-strings-stay", "codis-sync", false, "a string of length 0 is not migrated, and leaves the index", "look for them with pika.check-keys"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"tags-ignored", "codis-sync", false, "the slot is of the whole key, while Codis hashes what stands between { and }", "use it for keys without { alone (pika.check-keys)"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"replicas-keep-keys", "codis-sync", false, "deletions by migration are not in the binlog: the old group's replicas keep the keys, and bring them back when they are promoted", "rebuild the replicas before they may be promoted"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"index-costs", "codis-sync", false, "slotmigrate costs 10 to 20 % of the writes and 30 % of the space", "set it to no again afterwards"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"keys-lower-cased", "codis-sync", false, "a key with capitals that a client asks for while its slot migrates is looked for in lower case, and missed", "migrate without clients, or have keys in lower case alone (pika.check-keys)"}},
	{[3]int{3, 5, 0}, [3]int{5, 0, 0}, "", Problem{"keys-lower-cased", "codis-semi-async", false, "a key with capitals that a client asks for while its slot migrates is looked for in lower case, and missed", "migrate without clients, or have keys in lower case alone (pika.check-keys)"}},
	{[3]int{2, 2, 0}, [3]int{3, 0, 0}, "", Problem{"scores-rounded", "codis-sync", false, "scores of sorted sets keep six decimals", "look for them with pika.check-keys, and compare scores before and after"}},
	{[3]int{3, 5, 0}, [3]int{5, 0, 0}, "", Problem{"scores-rounded", "codis-sync", false, "scores of sorted sets keep six decimals", "look for them with pika.check-keys, and compare scores before and after"}},
	{[3]int{3, 5, 3}, [3]int{3, 5, 4}, "", Problem{"parallel-migration-hangs", "codis-semi-async", false, "slotmigrate-thread-num above 1 hangs", "set slotmigrate-thread-num to 1"}},
	{[3]int{4, 0, 0}, [3]int{5, 0, 0}, "", Problem{"wrapper-refuses", "codis-semi-async", false, "SLOTSMGRT-EXEC-WRAPPER answers -1 for slots that do not migrate, which clients get as an error", "migrate one slot at a time, and watch the proxies' errors"}},

	// use
	{[3]int{2, 3, 0}, [3]int{2, 3, 3}, "", Problem{"cannot-be-upgraded-by-replication", "use", false, "releases from 2.3.3 on do not replicate with it", "move the keys by Codis' slot migration"}},
	{first, [3]int{3, 0, 0}, "", Problem{"rsync-fails-for-good", "use", false, "after a failed full sync rsync may not work again until the server was started again", "start the master again when a second full sync fails as well"}},
	{[3]int{3, 0, 0}, [3]int{3, 2, 0}, "", Problem{"no-slots-no-geo", "use", false, "3.0 came without slot migration, hub and geo commands", "stay on 2.3 where these are needed, or go to 3.2 or later"}},
	{first, [3]int{3, 5, 2}, "", Problem{"no-transactions", "use", false, "the release has no MULTI, in which Codis sends SLAVEOF: a promotion goes through, and the new master is not told", "detach it before (pika.slotsslaveof or pika.slaveof with none: true), and give codis.promote unchecked: true"}},
	{[3]int{3, 3, 0}, [3]int{3, 4, 0}, "", Problem{"sentinel", "use", false, "3.3 with its tables is not fully compatible with Redis Sentinel", "run Codis without sentinels"}},
	{first, [3]int{3, 4, 0}, "", Problem{"repeated-slaveof", "use", false, "a slaveof that is repeated during a full sync may end with lag 0 and incomplete data", "send it once; compare counts and samples before clients are moved"}},
}
