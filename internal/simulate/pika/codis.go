package pika

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// slotCommands are those that a Codis proxy or dashboard sends to a 3.x.
func slotCommands() []command {
	sharded := func(c command) command {
		run, name := c.run, strings.ToUpper(c.name)
		if c.name == "slotsmgrtslot-async" {
			name = "SLOTSMGRTTAGSLOT-ASYNC"
		} else if c.name == "slotsmgrttagslot-async" {
			name += " "
		}
		c.run = func(s *Server, cl *client, a []string) (resp.Value, *later) {
			if s.classic {
				return other("%s only support on sharding mode", name), nil
			}
			return run(s, cl, a)
		}
		return c
	}
	never := func(name string) command {
		return command{name: name, arity: 5, flags: admin, run: says(other("%s NOT supported", name))}
	}
	pair := func(moved, left int64) func(*Server, *client, []string) (resp.Value, *later) {
		return says(resp.List(resp.Number(moved), resp.Number(left)))
	}
	return []command{
		never("slotsmgrtslot"), never("slotsmgrttagslot"), never("slotsmgrtone"), never("slotsmgrttagone"),
		sharded(command{name: "slotsinfo", arity: -1, run: at(cmdSlotsInfo)}),
		sharded(command{name: "slotshashkey", arity: -2, run: at(cmdSlotsHashKey)}),
		sharded(command{name: "slotsscan", arity: -3, run: at(cmdSlotsScan)}),
		sharded(command{name: "slotsdel", arity: -2, flags: admin, run: at(cmdSlotsDel)}),
		sharded(command{name: "slotsmgrtslot-async", arity: 8, flags: admin, run: pair(0, 0)}),
		sharded(command{name: "slotsmgrttagslot-async", arity: 8, flags: admin, run: at(cmdMigrateTagSlot)}),
		sharded(command{name: "slotsmgrt-exec-wrapper", arity: -3, run: pair(1, 1)}),
		sharded(command{name: "slotsmgrt-async-status", arity: 1, run: says(resp.Texts(
			"dest server: none:-1", "slot number: -1", "migrating  : no", "moved keys : -1", "remain keys: -1"))}),
		sharded(command{name: "slotsmgrt-async-cancel", arity: 1, flags: admin, run: says(resp.OK())}),
	}
}

// cmdSlotsInfo gives the counts of the last scan, and begins one.
func cmdSlotsInfo(s *Server, _ *client, _ []string) resp.Value {
	t := s.tables[0]
	v := resp.List()
	for _, id := range t.ids() {
		v.Items = append(v.Items, resp.List(resp.Number(id), resp.Number(t.slots[id].keys.total())))
	}
	s.startScan()
	return v
}

func cmdSlotsHashKey(s *Server, _ *client, a []string) resp.Value {
	v := resp.List()
	for _, k := range a[1:] {
		v.Items = append(v.Items, resp.Number(slotOf(k, s.tables[0].num)))
	}
	return v
}

// cmdSlotsScan goes through the keys in their order. A cursor is how many were passed; where it stands is kept in mind, so
// that no key is missed when others go.
func cmdSlotsScan(s *Server, _ *client, a []string) resp.Value {
	id, err1 := strconv.ParseInt(a[1], 10, 64)
	cursor, err2 := strconv.ParseInt(a[2], 10, 64)
	if err1 != nil || err2 != nil {
		return keyspace.ErrInt
	}
	count, pattern := int64(10), "*"
	for i := 3; i < len(a); i += 2 {
		switch o := strings.ToLower(a[i]); {
		case i+1 == len(a) || o != "match" && o != "count":
			return keyspace.ErrSyntax
		case o == "match":
			pattern = a[i+1]
		default:
			var err error
			if count, err = strconv.ParseInt(a[i+1], 10, 64); err != nil || count <= 0 {
				return keyspace.ErrInt
			}
		}
	}
	if id < 0 || id > math.MaxInt32 || s.tables[0].slots[int(id)] == nil {
		return keyspace.ErrNoKey
	}
	sl := s.tables[0].slots[int(id)]
	var keys []string
	if sl.db != nil {
		keys = slices.Sorted(maps.Keys(sl.db.Keys))
	}
	from, known := sl.cursors[cursor]
	if !known && cursor != 0 {
		return resp.List(resp.Text("0"), resp.List())
	}
	at, _ := slices.BinarySearch(keys, from)
	end := min(int64(at)+count, int64(len(keys)))
	next := int64(0)
	if end < int64(len(keys)) {
		next = cursor + count
		if sl.cursors == nil {
			sl.cursors = map[int64]string{}
		}
		sl.cursors[next] = keys[end]
	}
	out := resp.List()
	for _, k := range keys[at:end] {
		if keyspace.Glob(pattern, k) {
			out.Items = append(out.Items, resp.Text(k))
		}
	}
	return resp.List(resp.Text(strconv.FormatInt(next, 10)), out)
}

// cmdSlotsDel empties slots. Nothing of it is written into the binlog.
func cmdSlotsDel(s *Server, _ *client, a []string) resp.Value {
	var ids []int
	for _, text := range a[1:] {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return keyspace.ErrInt
		}
		ids = append(ids, int(id))
	}
	if s.scan.running {
		return other("The keyscan operation is executing, Try again later")
	}
	v := resp.List()
	for _, id := range ids {
		if sl := s.tables[0].slots[id]; sl != nil {
			sl.db, sl.keys = nil, typeCount{}
			v.Items = append(v.Items, resp.List(resp.Number(id), resp.Number(0)))
		}
	}
	return v
}

// cmdMigrateTagSlot moves nothing. It says that something is left for as long as the destination is a replica of the slot, and
// that all is done otherwise, also where it never was one.
func cmdMigrateTagSlot(s *Server, _ *client, a []string) resp.Value {
	port, err := strconv.ParseInt(a[2], 10, 64)
	if err != nil || port <= 0 {
		return keyspace.ErrInt
	}
	if s.itself(strings.ToLower(a[1]), a[2]) {
		return other("destination address error")
	}
	id, err := strconv.ParseInt(a[6], 10, 32)
	if err != nil || id < 0 || int(id) >= s.tables[0].num {
		return keyspace.ErrInt
	}
	sl := s.tables[0].slots[int(id)]
	if sl == nil {
		return keyspace.ErrNoKey
	}
	left := 0
	if sl.node(strings.ToLower(a[1])+":"+a[2]) != nil {
		left = 1
	}
	return resp.List(resp.Number(0), resp.Number(left))
}
