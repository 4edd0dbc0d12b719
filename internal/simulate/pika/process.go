package pika

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// lookup finds the command that a request means. `pkcluster X` is a command of its own.
func (s *Server) lookup(args []string) (*command, []string) {
	return s.commands[s.nameOf(args)], args
}

func (s *Server) nameOf(args []string) string {
	name := strings.ToLower(args[0])
	if name == "pkcluster" && len(args) > 1 && !s.old() {
		name += strings.ToLower(args[1])
	}
	return name
}

// process is a command's way through the checks, in the order of the real server. The caller holds the lock.
func (s *Server) process(c *client, args []string) (resp.Value, *later) {
	cmd, args := s.lookup(args)
	if cmd == nil {
		return s.unknown(args), nil
	}
	if !c.admin && cmd.name != "auth" && (!c.user || slices.Contains(strings.Split(s.config.get("userblacklist"), ","), cmd.name)) {
		return resp.Errorf("ERR NOAUTH Authentication required."), nil
	}
	c.last = s.clock.Now()
	if !arityFits(cmd.arity, len(args)) {
		return wrongNumber(cmd.name), nil
	}
	s.stats.commands++
	s.stats.calls[strings.ToUpper(cmd.name)]++
	t := s.tables[min(c.table, len(s.tables)-1)]
	t.stats.commands++
	if cmd.flags&write != 0 {
		t.stats.writes++
	}
	switch {
	case cmd.flags&notSharded != 0 && !s.classic:
		return resp.Errorf("ERR This command is not supported in current configuration"), nil
	case cmd.data != nil:
		return s.onData(t, cmd, args), nil
	}
	return cmd.run(s, c, args)
}

func arityFits(arity, n int) bool {
	if arity < 0 {
		return n >= -arity
	}
	return n == arity
}

func wrongNumber(name string) resp.Value {
	return resp.Errorf("ERR wrong number of arguments for '%s' command", name)
}

// unknown is the text of the release: 3.4 has a quotation mark that does not match.
func (s *Server) unknown(args []string) resp.Value {
	name := s.nameOf(args)
	if s.release == "3.4.0" {
		return resp.Errorf(`ERR unknown or unsupported command '%s"`, name)
	}
	return resp.Errorf("Err unknown or unsupported command '%s'", name)
}

// touchesData says whether a request has to wait while slots are added or removed.
func (s *Server) touchesData(args []string) bool {
	cmd, _ := s.lookup(args)
	return cmd != nil && (cmd.data != nil || cmd.flags&write != 0)
}

var (
	errNoSlot   = resp.Errorf("ERR Partition not found")
	errReadOnly = resp.Errorf("ERR Server in read-only")
)

// onData carries out a command on keys. One whose keys lie in several slots is carried out slot by slot.
func (s *Server) onData(t *table, cmd *command, args []string) resp.Value {
	if cmd.flags&eachPair != 0 && len(args)%2 == 0 {
		return wrongNumber(cmd.name)
	}
	if cmd.flags&write != 0 && s.readOnly(t.slots[s.slotOf(t, args[1])]) {
		return errReadOnly
	}
	if cmd.flags&(eachKey|eachPair) == 0 || s.classic {
		sl := t.slots[s.slotOf(t, args[1])]
		if sl == nil {
			return errNoSlot
		}
		return s.command(sl, cmd, args)
	}
	step := 1
	if cmd.flags&eachPair != 0 {
		step = 2
	}
	for i := 1; i < len(args); i += step {
		if t.slots[s.slotOf(t, args[i])] == nil {
			return errNoSlot
		}
	}
	var sum resp.Value
	for i := 1; i < len(args); i += step {
		part := append([]string{args[0]}, args[i:i+step]...)
		v := s.command(t.slots[s.slotOf(t, args[i])], cmd, part)
		switch {
		case v.Kind == resp.Err:
			return v
		case v.Kind == resp.Int:
			sum = resp.Number(sum.Int + v.Int)
		case v.Kind == resp.Array:
			sum = resp.List(append(sum.Items, v.Items...)...)
		default:
			sum = v
		}
	}
	return sum
}

func (s *Server) slotOf(t *table, key string) int {
	if s.classic {
		return 0
	}
	return slotOf(key, t.num)
}

func (s *Server) readOnly(sl *slot) bool {
	if s.classic {
		return (s.replica() || s.double() && s.single.force) && s.config.get("slave-read-only") != "0"
	}
	return sl != nil && sl.replica()
}

// command carries a client's command out on one slot, and writes it into the binlog. Unlike Redis it does so also where
// nothing changed.
func (s *Server) command(sl *slot, cmd *command, args []string) resp.Value {
	v, ops := s.execute(sl, cmd, args)
	if cmd.flags&write != 0 && v.Kind != resp.Err {
		for _, op := range ops {
			s.record(sl, op, s.clock.Now(), s.config.int("server-id"))
		}
	}
	return v
}

// execute carries a command out on one slot, and gives what a replica has to do to come to the same.
func (s *Server) execute(sl *slot, cmd *command, args []string) (resp.Value, [][]string) {
	if sl.db == nil {
		sl.db = newDatabase(s.classic)
	}
	x := keyspace.Exec{DB: sl.db, Now: s.clock.Now().UnixMilli(), Proto: 2, Versions: &s.versions}
	v := cmd.data(&x, args)
	if x.Other && len(x.Ops) > 0 {
		return v, x.Ops // a time to live as the moment when it ends
	}
	return v, [][]string{args}
}

// carryOutOn is what an apply thread does with a write.
func (s *Server) carryOutOn(sl *slot, args []string) {
	switch cmd := s.commands[strings.ToLower(args[0])]; {
	case cmd == nil:
	case cmd.data != nil:
		s.execute(sl, cmd, args)
	case strings.HasPrefix(cmd.name, "flush"):
		sl.db = nil
	}
}

func cmdQuit(_ *Server, c *client, _ []string) resp.Value {
	c.quit = true
	return resp.OK()
}

func cmdAuth(s *Server, c *client, a []string) resp.Value {
	root, user := s.config.get("requirepass"), s.config.get("userpass")
	switch {
	case root == "" && user == "":
		return resp.Errorf("ERR Client sent AUTH, but no password is set")
	case a[1] == root:
		c.admin = true
	case a[1] == user:
		c.user = true
	default:
		return resp.Errorf("ERR invalid password")
	}
	return resp.OK()
}

func cmdSelect(s *Server, c *client, a []string) resp.Value {
	n, err := strconv.Atoi(a[1])
	switch {
	case err != nil || strconv.Itoa(n) != a[1]:
		return resp.Errorf("ERR invalid DB index for 'select'")
	case s.classic && (n < 0 || n >= len(s.tables)):
		return resp.Errorf("ERR invalid DB index for 'select DB index is out of range'")
	}
	i := slices.IndexFunc(s.tables, func(t *table) bool { return t.name == "db"+a[1] })
	if i < 0 {
		return resp.Errorf("ERR invalid Table for 'select'")
	}
	c.table = i
	return resp.OK()
}

// cmdClient notes the name that a client gives itself, for the faults to know it by, and answers as Pika does, which
// knows no names.
func cmdClient(s *Server, c *client, a []string) resp.Value {
	switch sub := strings.ToLower(a[1]); {
	case sub == "list" && len(a) == 2:
		var b strings.Builder
		for _, o := range slices.SortedFunc(maps.Values(s.clients), func(a, b *client) int { return cmp.Compare(a.id, b.id) }) {
			fmt.Fprintf(&b, "addr=%s fd=%d idle=%d\n", o.Conn.RemoteAddr(), 100+o.id, int(s.clock.Now().Sub(o.last).Seconds()))
		}
		return resp.Text(b.String())
	case sub == "kill" && len(a) == 3:
		n := 0
		for _, o := range s.clients {
			if o != c && (a[2] == "all" || o.Conn.RemoteAddr().String() == a[2]) {
				o.Close()
				n++
			}
		}
		if n == 0 && a[2] != "all" {
			return resp.Errorf("ERR No such client")
		}
		return resp.OK()
	case sub == "setname" && len(a) == 3:
		c.name = a[2]
	}
	return resp.Errorf("ERR Syntax error, try CLIENT (LIST [order by [addr|idle]| KILL ip:port)")
}

func cmdTime(s *Server, _ *client, _ []string) resp.Value {
	now := s.clock.Now()
	return resp.Texts(strconv.FormatInt(now.Unix(), 10), strconv.Itoa(now.Nanosecond()/1000))
}

func cmdBgsave(s *Server, _ *client, _ []string) resp.Value {
	s.saving = s.clock.Now().Add(s.pace(100 * time.Millisecond))
	if s.old() {
		return resp.Simple(s.clock.Now().UTC().Format("20060102150405"))
	}
	return resp.Simple("Background saving started")
}

// cmdPurgeLogsTo removes binlogs of a whole table, whatever slot is meant.
func cmdPurgeLogsTo(s *Server, c *client, a []string) resp.Value {
	t := s.tables[c.table]
	if len(a) == 3 {
		if t = s.tableNamed(a[2]); t == nil {
			return resp.Errorf("ERR invalid Table for '%s'", a[2])
		}
	}
	n, ok := strings.CutPrefix(a[1], "write2file")
	file, err := strconv.ParseInt(n, 10, 64)
	if !ok || err != nil || file < 0 {
		return keyspace.ErrSyntax
	}
	for _, sl := range t.slots {
		if slices.ContainsFunc(sl.nodes, func(n *node) bool { return n.offset.File <= file }) {
			continue // a replica still needs it
		}
		sl.log.purge(min(file, sl.log.end.File-10))
	}
	return resp.OK()
}

func cmdDBSize(s *Server, c *client, _ []string) resp.Value {
	n := int64(0)
	for _, sl := range s.tables[c.table].slots {
		n += sl.keys.total() // of the last scan
	}
	return resp.Number(n)
}

func cmdKeys(s *Server, c *client, a []string) resp.Value {
	return s.onWhole(c, a, "keys")
}

func cmdScan(s *Server, c *client, a []string) resp.Value {
	return s.onWhole(c, a, "scan")
}

// onWhole carries a command that names no key out on the one slot of classic mode.
func (s *Server) onWhole(c *client, a []string, name string) resp.Value {
	all := keyspace.Commands()
	k := all[slices.IndexFunc(all, func(k keyspace.Command) bool { return k.Name == name })]
	v, _ := s.execute(s.tables[c.table].slots[0], &command{data: k.Run}, a)
	return v
}

func cmdFlush(all bool) func(*Server, *client, []string) resp.Value {
	return func(s *Server, c *client, a []string) resp.Value {
		for i, t := range s.tables {
			if !all && i != c.table {
				continue
			}
			for _, sl := range t.slots {
				if s.readOnly(sl) {
					return errReadOnly
				}
			}
			for _, sl := range t.slots {
				sl.db = nil
				s.record(sl, a, s.clock.Now(), s.config.int("server-id"))
			}
		}
		return resp.OK()
	}
}
