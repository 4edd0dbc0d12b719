package pika

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
)

// table is what classic mode calls a database: a number of slots, of which those that are here are in the map. In classic
// mode it has one, number 0.
type table struct {
	name  string
	num   int // how many slots the cluster has
	slots map[int]*slot
	stats struct{ commands, writes int64 }
}

// slot is a keyspace with a binlog, which can follow a master and be followed by replicas, each for itself.
type slot struct {
	table    *table
	id       int
	db       *keyspace.Database // nil while nothing was ever here
	log      binlog
	follow   follow
	nodes    []*node // the replicas, the newest first
	sessions int
	image    *image    // what a full sync of this slot is copying or has copied here
	deleted  bool      // a change that is still to be applied finds nobody
	keys     typeCount // of the last scan
	cursors  map[int64]string
}

// follow is the replica's side of a slot.
type follow struct {
	state   state
	master  string // as it was given
	session int
	heard   time.Time
	stalled bool // nothing flows until both sides give up
	early   bool // the master's answer came too early, and was lost: see SetReplyOvertaken
}

// state is what `pkcluster info slot` shows of a replica.
type state string

const (
	noConnect  state = "kNoConnect"
	tryConnect state = "kTryConnect"
	tryDBSync  state = "kTryDBSync"
	waitDBSync state = "kWaitDBSync"
	waitReply  state = "kWaitReply"
	connected  state = "kConnected"
	failed     state = "kError"
)

// node is the master's side of one replica of a slot.
type node struct {
	addr    string
	session int
	syncing bool  // SlaveBinlogSync; SlaveNotSync before
	sent    int64 // number of the next record to send
	acked   int64 // number of the first record not acknowledged
	offset  Offset
	heard   time.Time
	pinged  time.Time
}

// image is a copy of a master's slot at one moment, on its way to a replica.
type image struct {
	master string // the address the master has
	asked  string // the address the replica was told
	db     *keyspace.Database
	offset Offset
	begun  time.Time
	takes  time.Duration // by db-sync-speed
	landed bool          // it is here whole
	broken bool          // nothing of it will ever arrive
}

func (t *table) add(id int) *slot {
	sl := &slot{table: t, id: id, follow: follow{state: noConnect}}
	t.slots[id] = sl
	return sl
}

// partition is the slot's name in errors and in `info slot`.
func (sl *slot) partition() string {
	return "(" + sl.table.name + ":" + strconv.Itoa(sl.id) + ")"
}

func (sl *slot) node(addr string) *node {
	i := slices.IndexFunc(sl.nodes, func(n *node) bool { return n.addr == addr })
	if i < 0 {
		return nil
	}
	return sl.nodes[i]
}

func (sl *slot) removeNode(addr string) {
	sl.nodes = slices.DeleteFunc(sl.nodes, func(n *node) bool { return n.addr == addr })
}

// master says whether the slot shows a master's role: it does unless it is a replica without replicas.
func (sl *slot) master() bool { return len(sl.nodes) > 0 || sl.follow.state == noConnect }

func (sl *slot) replica() bool { return sl.follow.state != noConnect }

// newTables makes what the configuration says, without slots in sharding mode.
func (s *Server) newTables() []*table {
	if !s.classic {
		return []*table{{name: "db0", num: s.opts.SlotNum, slots: map[int]*slot{}}}
	}
	var out []*table
	for i := range max(s.opts.Databases, 1) {
		t := &table{name: "db" + strconv.Itoa(i), num: 1, slots: map[int]*slot{}}
		t.add(0)
		out = append(out, t)
	}
	return out
}

// slots ranges over all that are here.
func (s *Server) slots() iter.Seq[*slot] {
	return func(yield func(*slot) bool) {
		for _, t := range s.tables {
			for _, sl := range t.slots {
				if !yield(sl) {
					return
				}
			}
		}
	}
}

// tableNamed finds a table; nil where there is none.
func (s *Server) tableNamed(name string) *table {
	i := slices.IndexFunc(s.tables, func(t *table) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return s.tables[i]
}

func (s *Server) slot(name string, id int) *slot {
	if t := s.tableNamed(name); t != nil {
		return t.slots[id]
	}
	return nil
}

func (t *table) ids() []int { return slices.Sorted(maps.Keys(t.slots)) }

// parseSlots reads a slot group: numbers and ranges with commas between. bad is Pika's own word about what is wrong.
func parseSlots(group string) (ids []int, bad string) {
	const syntax = "Corruption: syntax error"
	number := func(s string) (int, bool) {
		n, err := strconv.Atoi(s)
		return n, err == nil && n >= 0 && n < 1<<20 && s[0] != '+'
	}
	for _, part := range strings.Split(group, ",") {
		if part == "" {
			continue // as after a trailing comma
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, ok1 := number(from)
		b, ok2 := number(to)
		if !ok1 || !ok2 || a > b {
			return nil, syntax
		}
		for i := a; i <= b; i++ {
			ids = append(ids, i)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), ""
}
