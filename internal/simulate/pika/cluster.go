package pika

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// The pkcluster commands. Each takes the request whole: a[0] is pkcluster, a[1] the sub-command.

func other(format string, a ...any) resp.Value { return resp.Errorf("ERR "+format, a...) }

func cmdClusterInfo(s *Server, _ *client, a []string) resp.Value {
	if s.classic {
		return other("PkClusterInfo only support on sharding mode")
	}
	switch strings.ToLower(a[2]) {
	case "slot":
		return s.infoSlot(a[3:])
	case "table":
		if s.release == "3.2.9" {
			return resp.Text("")
		}
		return s.infoTable(a[3:])
	case "node", "cluster":
		return resp.Text("")
	}
	return other("unknown subcommand or wrong number of arguments for '%s'", a[2])
}

func (s *Server) infoSlot(a []string) resp.Value {
	var b strings.Builder
	switch len(a) {
	case 0:
		for _, t := range s.tables {
			for _, id := range t.ids() {
				s.describe(&b, t.slots[id])
			}
		}
	case 1:
		name, group, ok := strings.Cut(a[0], ":")
		if !ok {
			name, group = "db0", a[0]
		}
		ids, bad := parseSlots(group)
		if _, err := strconv.Atoi(group); bad != "" || err != nil && s.release == "3.2.9" {
			return other("Invalid Argument")
		}
		if t := s.tableNamed(name); t != nil {
			b.Grow(min(len(ids), len(t.slots)) * 160)
			for _, id := range ids {
				if sl := t.slots[id]; sl != nil {
					s.describe(&b, sl)
				}
			}
		}
	default:
		return wrongNumber("pkclusterinfo")
	}
	return resp.Text(b.String())
}

// describe is what `info slot` says of one: both roles where it has both.
func (s *Server) describe(b *strings.Builder, sl *slot) {
	b.WriteString(sl.partition())
	b.WriteString(" binlog_offset=")
	b.WriteString(sl.log.end.String())
	b.WriteString(",safety_purge=")
	b.WriteString(sl.safetyPurge())
	b.WriteString("\r\n")
	if s.release == "3.2.9" && len(sl.nodes) == 0 && !sl.replica() {
		b.WriteString("\r\n")
		return
	}
	if sl.master() {
		b.WriteString("  Role: Master\r\n  connected_slaves: ")
		b.WriteString(strconv.Itoa(len(sl.nodes)))
		b.WriteString("\r\n")
		for i, n := range sl.nodes {
			fmt.Fprintf(b, "  slave[%d]: %s\r\n", i, n.addr)
			if !n.syncing {
				b.WriteString("  replication_status: SlaveNotSync\r\n")
				continue
			}
			fmt.Fprintf(b, "  replication_status: SlaveBinlogSync\r\n  lag: %d\r\n", lag(n.offset, sl.log.end, int64(s.config.int("binlog-file-size"))))
		}
	}
	if sl.replica() {
		if sl.master() {
			b.WriteString("  -----------\r\n")
		}
		fmt.Fprintf(b, "  Role: Slave\r\n  master: %s\r\n  slave status: %s\r\n", sl.follow.master, sl.follow.state)
	}
	b.WriteString("\r\n")
}

// safetyPurge names the newest binlog file that can go: ten are kept, and what replicas still need.
func (sl *slot) safetyPurge() string {
	file := sl.log.end.File - 10
	if file < 0 {
		return "none"
	}
	for _, n := range sl.nodes {
		if !n.syncing || n.offset.File == 0 {
			return "none"
		}
		file = min(file, n.offset.File-1)
	}
	return "write2file" + strconv.FormatInt(file, 10)
}

func (s *Server) infoTable(a []string) resp.Value {
	want := ""
	if len(a) > 1 {
		return wrongNumber("pkclusterinfo")
	}
	if len(a) == 1 {
		if _, err := strconv.ParseUint(a[0], 10, 64); err != nil {
			return other("Invalid Argument")
		}
		want = "db" + a[0]
	}
	var b strings.Builder
	for _, t := range s.tables {
		if want != "" && t.name != want {
			continue
		}
		fmt.Fprintf(&b, "table_id: %s\r\n  partition_num: %d\r\n", t.name[2:], t.num)
		if want == "" {
			fmt.Fprintf(&b, "  total_commands_processed:%d\r\n  total_write_commands_processed:%d\r\n", t.stats.commands, t.stats.writes)
		}
		b.WriteString("  qps: 0\r\n  write_qps: 0\r\n  read_qps: 0\r\n")
	}
	return resp.Text(b.String())
}

var errUnderway = other("Slot in syncing or a change operation is under way, retry later")

// slotsOfTable reads the arguments that addslots and delslots share.
func (s *Server) slotsOfTable(a []string) (t *table, ids []int, bad resp.Value) {
	if len(a) < 3 || len(a) > 4 {
		return nil, nil, keyspace.ErrSyntax
	}
	if s.classic {
		return nil, nil, other("PkClusterAddSlots/PkClusterDelSlots only support on sharding mode")
	}
	ids, text := parseSlots(a[2])
	if text != "" {
		return nil, nil, other("%s", text)
	}
	t = s.tables[0]
	if len(a) == 4 {
		n, err := strconv.ParseUint(a[3], 10, 64)
		if err != nil {
			return nil, nil, keyspace.ErrSyntax
		}
		if t = s.tableNamed("db" + strconv.FormatUint(n, 10)); t == nil {
			return nil, nil, other("Internal error: table not found!")
		}
	}
	if s.adding != nil {
		return nil, nil, errUnderway
	}
	for _, id := range ids {
		if id >= t.num {
			return nil, nil, other("Corruption: partition index out of range")
		}
		if here := t.slots[id] != nil; here == strings.EqualFold(a[1], "addslots") {
			return nil, nil, other("Corruption: partition : %d %s", id, map[bool]string{true: "exist", false: "not exist"}[here])
		}
	}
	return t, ids, resp.Value{}
}

// cmdAddSlots opens five databases a slot, all slots before any is to be seen. It goes on when the client has left.
func cmdAddSlots(s *Server, _ *client, a []string) (resp.Value, *later) {
	t, ids, bad := s.slotsOfTable(a)
	if !bad.IsZero() {
		return bad, nil
	}
	done := make(chan struct{})
	s.adding = done
	return resp.Value{}, &later{d: time.Duration(len(ids)) * s.opts.AddSlot, finish: func() resp.Value {
		for _, id := range ids {
			t.add(id)
		}
		s.adding = nil
		close(done)
		return resp.OK()
	}}
}

func cmdDelSlots(s *Server, _ *client, a []string) (resp.Value, *later) {
	t, ids, bad := s.slotsOfTable(a)
	if !bad.IsZero() {
		return bad, nil
	}
	for _, id := range ids {
		sl := t.slots[id]
		if len(sl.nodes) > 0 {
			return other("Corruption: sync master partition %s in syncing", sl.partition()), nil
		}
		if st := sl.follow.state; st != noConnect && st != failed {
			return other("Corruption: sync slave partition %s in %s state", sl.partition(), st), nil
		}
	}
	for _, id := range ids {
		sl := t.slots[id]
		sl.deleted = true
		if img := sl.image; img != nil && !img.landed && !img.broken {
			s.endTransfer(sl, img.asked)
		}
		delete(t.slots, id)
		delete(s.busy, sl)
		delete(s.shipping, sl)
	}
	return resp.OK(), nil
}

// cmdSlotsSlaveOf changes slot after slot. Where it fails, those before have a new master and the one that failed has none.
func cmdSlotsSlaveOf(s *Server, _ *client, a []string) resp.Value {
	if s.classic {
		return other("PkClusterSlotSync only support on sharding mode")
	}
	master := ""
	if !strings.EqualFold(a[2], "no") || !strings.EqualFold(a[3], "one") {
		port, err := strconv.ParseInt(a[3], 10, 64)
		if err != nil || port <= 0 {
			return keyspace.ErrInt
		}
		if s.itself(a[2], a[3]) {
			return other("You fucked up")
		}
		master = a[2] + ":" + a[3]
	}
	var ids []int
	all := strings.EqualFold(a[4], "all")
	if !all {
		var bad string
		if ids, bad = parseSlots(a[4]); bad != "" {
			return other("%s", bad)
		}
	}
	name, force, rest := "db0", false, a[5:]
	if len(rest) > 0 && strings.EqualFold(rest[0], "force") {
		force, rest = true, rest[1:]
	}
	if len(rest) > 1 {
		return keyspace.ErrSyntax
	}
	if len(rest) == 1 {
		if _, err := strconv.ParseUint(rest[0], 10, 64); err != nil {
			return keyspace.ErrSyntax
		}
		name = "db" + rest[0]
	}
	t := s.tableNamed(name)
	if t == nil {
		return other("invalid Table for ''")
	}
	if all {
		ids = t.ids()
	}
	if len(ids) == 0 {
		return other("Slots set empty")
	}
	for _, id := range ids {
		if t.slots[id] == nil {
			return other("Slot %d not found!", id)
		}
	}
	for _, id := range ids {
		sl := t.slots[id]
		if master != "" && sl.follow.state == connected && sl.follow.master == master {
			continue
		}
		stalled := s.stalls && (sl.follow.state == tryConnect || sl.follow.state == waitReply) ||
			sl.follow.early && s.clock.Now().Sub(sl.follow.heard) <= s.pace(timeout) // the master still has it
		s.leave(sl)
		if master == "" {
			continue
		}
		if _, err := s.network.reach(s, master, true); err != nil {
			return other("Corruption: connect remote node error")
		}
		sl.follow = follow{state: noConnect, master: master, heard: s.clock.Now(), stalled: stalled}
		if force {
			s.set(sl, tryDBSync)
		} else {
			s.set(sl, tryConnect)
		}
	}
	return resp.OK()
}

// itself says whether an address is the server's own.
func (s *Server) itself(host, port string) bool {
	return (host == "127.0.0.1" || host == s.host) && port == s.port
}

func cmdAddTable(s *Server, _ *client, a []string) resp.Value {
	if len(a) != 4 {
		return keyspace.ErrSyntax
	}
	if s.classic {
		return other("PkClusterTable Cmd only support on sharding mode")
	}
	id, err1 := strconv.ParseUint(a[2], 10, 31)
	num, err2 := strconv.ParseUint(a[3], 10, 31)
	if err1 != nil || err2 != nil || num == 0 {
		return keyspace.ErrSyntax
	}
	name := "db" + strconv.FormatUint(id, 10)
	if s.tableNamed(name) != nil {
		return other("Internal error: table already exist!")
	}
	s.tables = append(s.tables, &table{name: name, num: int(num), slots: map[int]*slot{}})
	return resp.OK()
}

func cmdDelTable(s *Server, _ *client, a []string) resp.Value {
	if len(a) != 3 {
		return keyspace.ErrSyntax
	}
	if s.classic {
		return other("PkClusterTable Cmd only support on sharding mode")
	}
	id, err := strconv.ParseUint(a[2], 10, 31)
	if err != nil {
		return keyspace.ErrSyntax
	}
	t := s.tableNamed("db" + strconv.FormatUint(id, 10))
	switch {
	case t == nil:
		return other("Internal error: table not found!")
	case len(t.slots) > 0:
		return other("Corruption: table have slots!")
	}
	s.tables = slices.DeleteFunc(s.tables, func(u *table) bool { return u == t })
	return resp.OK()
}
