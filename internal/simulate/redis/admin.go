package redis

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// The commands on the connection and on the server.

func cmdPing(_ *exec, a []string) resp.Value {
	switch len(a) {
	case 1:
		return resp.Simple("PONG")
	case 2:
		return resp.Text(a[1])
	}
	return resp.Errorf("ERR wrong number of arguments for 'ping' command")
}

func cmdSelect(x *exec, a []string) resp.Value {
	n, ok := keyspace.ParseInt(a[1])
	if !ok {
		return errInt
	}
	if n < 0 || n >= int64(len(x.s.dbs)) {
		return resp.Errorf("ERR DB index is out of range")
	}
	x.c.db = int(n)
	return resp.OK()
}

func cmdQuit(x *exec, _ []string) resp.Value {
	x.c.quit = true
	return resp.OK()
}

func (s *Server) login(c *client, user, password string) bool {
	want := s.config["requirepass"]
	if user != "default" || want != "" && password != want {
		return false
	}
	c.authed = true
	return true
}

var errWrongPass = resp.Errorf("WRONGPASS invalid username-password pair or user is disabled.")

func cmdAuth(x *exec, a []string) resp.Value {
	switch {
	case len(a) > 3:
		return errSyntax
	case len(a) == 2 && x.s.config["requirepass"] == "":
		return resp.Errorf("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	}
	user, password := "default", a[len(a)-1]
	if len(a) == 3 {
		user = a[1]
	}
	if !x.s.login(x.c, user, password) {
		return errWrongPass
	}
	return resp.OK()
}

func cmdHello(x *exec, a []string) resp.Value {
	proto := x.c.proto
	if len(a) > 1 {
		n, ok := keyspace.ParseInt(a[1])
		switch {
		case !ok:
			return resp.Errorf("ERR Protocol version is not an integer or out of range")
		case n < 2 || n > 3:
			return resp.Errorf("NOPROTO unsupported protocol version")
		}
		proto = int(n)
	}
	name, named := "", false
	for i := 2; i < len(a); i++ {
		switch {
		case strings.EqualFold(a[i], "AUTH") && i+2 < len(a):
			if !x.s.login(x.c, a[i+1], a[i+2]) {
				return errWrongPass
			}
			i += 2
		case strings.EqualFold(a[i], "SETNAME") && i+1 < len(a):
			name, named = a[i+1], true
			i++
		default:
			return resp.Errorf("ERR Syntax error in HELLO option '%s'", a[i])
		}
	}
	if !x.c.authed {
		return resp.Errorf("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	if named {
		x.c.name = name
	}
	x.c.proto = proto
	role := "master"
	if x.s.repl.masterHost != "" {
		role = "replica"
	}
	return resp.Value{Kind: resp.Map, Items: []resp.Value{
		resp.Text("server"), resp.Text("redis"), resp.Text("version"), resp.Text(x.s.release), resp.Text("proto"), resp.Number(proto),
		resp.Text("id"), resp.Number(x.c.id), resp.Text("mode"), resp.Text("standalone"), resp.Text("role"), resp.Text(role),
		resp.Text("modules"), resp.List(),
	}}
}

func cmdMulti(x *exec, _ []string) resp.Value {
	if x.c.multi {
		return resp.Errorf("ERR MULTI calls can not be nested")
	}
	x.c.multi = true
	return resp.OK()
}

func (c *client) endMulti() {
	c.multi, c.dirtyTx, c.queue, c.watch = false, false, nil, nil
}

func cmdDiscard(x *exec, _ []string) resp.Value {
	if !x.c.multi {
		return resp.Errorf("ERR DISCARD without MULTI")
	}
	x.c.endMulti()
	return resp.OK()
}

func cmdExec(x *exec, _ []string) resp.Value {
	c := x.c
	if !c.multi {
		return resp.Errorf("ERR EXEC without MULTI")
	}
	queue, dirty, watch := c.queue, c.dirtyTx, c.watch
	c.endMulti()
	if dirty {
		return resp.Errorf("EXECABORT Transaction discarded because of previous errors.")
	}
	for w, ver := range watch {
		if x.s.keyVersion(w) != ver {
			return resp.NilArray()
		}
	}
	for _, args := range queue { // the server may have become a replica since they were queued
		if cmd := x.s.commands[strings.ToUpper(args[0])]; cmd.flags&fWrite != 0 && x.s.repl.masterHost != "" && x.s.config["replica-read-only"] == "yes" {
			return resp.Errorf("READONLY You can't write against a read only replica.")
		}
	}
	out := resp.List()
	c.inExec, c.ops = true, nil
	for _, args := range queue {
		v := x.s.call(c, x.s.commands[strings.ToUpper(args[0])], args)
		if v.IsZero() {
			v = resp.Number(0) // WAIT does not wait inside a transaction
		}
		out.Items = append(out.Items, v)
	}
	c.inExec = false
	if len(c.ops) > 1 {
		x.s.feed(-1, []string{"MULTI"})
	}
	for _, op := range c.ops {
		db, _ := strconv.Atoi(op[0])
		x.s.feed(db, op[1:])
	}
	if len(c.ops) > 1 {
		x.s.feed(-1, []string{"EXEC"})
	}
	return out
}

func (s *Server) keyVersion(w watched) uint64 {
	if e := s.dbs[w.db].Keys[w.key]; e != nil && (e.Expire == 0 || e.Expire > s.nowMS()) {
		return e.Version + 1
	}
	return 0
}

func cmdWatch(x *exec, a []string) resp.Value {
	if x.c.multi {
		return resp.Errorf("ERR WATCH inside MULTI is not allowed")
	}
	if x.c.watch == nil {
		x.c.watch = map[watched]uint64{}
	}
	for _, k := range a[1:] {
		w := watched{x.db, k}
		if _, ok := x.c.watch[w]; !ok {
			x.c.watch[w] = x.s.keyVersion(w)
		}
	}
	return resp.OK()
}

func cmdUnwatch(x *exec, _ []string) resp.Value {
	x.c.watch = nil
	return resp.OK()
}

func cmdClient(x *exec, a []string) resp.Value {
	s, c := x.s, x.c
	switch strings.ToLower(a[1]) {
	case "id":
		return resp.Number(c.id)
	case "getname":
		if c.name == "" {
			return resp.Nil()
		}
		return resp.Text(c.name)
	case "setname":
		if strings.ContainsFunc(a[2], func(r rune) bool { return r < '!' || r > '~' }) {
			return resp.Errorf("ERR Client names cannot contain spaces, newlines or special characters.")
		}
		c.name = a[2]
		return resp.OK()
	case "info":
		return resp.Value{Kind: resp.Verb, Str: s.clientLine(c)}
	case "list":
		var b strings.Builder
		for _, id := range slices.Sorted(maps.Keys(s.clients)) {
			b.WriteString(s.clientLine(s.clients[id]))
		}
		return resp.Value{Kind: resp.Verb, Str: b.String()}
	case "pause":
		ms, ok := keyspace.ParseInt(a[2])
		kind := pauseAll
		switch {
		case len(a) > 4, len(a) == 4 && s.before(6, 2):
			return resp.Errorf("ERR wrong number of arguments for 'client|pause' command")
		case len(a) == 4 && strings.EqualFold(a[3], "WRITE"):
			kind = pauseWrite
		case len(a) == 4 && !strings.EqualFold(a[3], "ALL"):
			return resp.Errorf("ERR CLIENT PAUSE mode must be WRITE or ALL")
		}
		switch {
		case !ok:
			return resp.Errorf("ERR timeout is not an integer or out of range")
		case ms < 0:
			return resp.Errorf("ERR timeout is negative")
		}
		s.setPause(kind, time.Duration(min(ms, int64(Forever/time.Millisecond)))*time.Millisecond)
		return resp.OK()
	case "unpause":
		s.unpause()
		return resp.OK()
	case "no-evict":
		if !strings.EqualFold(a[2], "on") && !strings.EqualFold(a[2], "off") {
			return errSyntax
		}
		return resp.OK()
	case "kill":
		return x.kill(a[2:])
	case "reply", "tracking", "caching", "trackinginfo", "getredir", "unblock":
		return errSyntax
	}
	return resp.Texts("CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
}

func (c *client) addr() string {
	if c.Peer == nil || c.Conn.RemoteAddr().Network() == "pipe" {
		return fmt.Sprintf("127.0.0.1:%d", 50000+c.id)
	}
	return c.Conn.RemoteAddr().String()
}

func (s *Server) clientLine(c *client) string {
	flags := "N"
	multi := -1
	if c.multi {
		flags, multi = "x", len(c.queue)
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s:%s fd=%d name=%s age=%d idle=0 flags=%s db=%d sub=0 psub=0 ssub=0 multi=%d qbuf=26 qbuf-free=20448 argv-mem=10 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=22426 events=r cmd=%s user=default redir=-1 resp=%d\n",
		c.id, c.addr(), s.host, s.port, 7+c.id, c.name, int(s.clock.Now().Sub(c.since)/time.Second), flags, c.db, multi, c.last, c.proto)
}

func (x *exec) kill(a []string) resp.Value {
	if len(a) == 1 {
		for _, c := range x.s.clients {
			if c.addr() == a[0] {
				x.killOne(c)
				return resp.OK()
			}
		}
		return resp.Errorf("ERR No such client")
	}
	if len(a)%2 != 0 {
		return errSyntax
	}
	match := func(*client) bool { return true }
	and := func(f func(*client) bool) {
		g := match
		match = func(c *client) bool { return g(c) && f(c) }
	}
	skipMe := true
	for i := 0; i < len(a); i += 2 {
		v := a[i+1]
		switch strings.ToUpper(a[i]) {
		case "ID":
			id, ok := keyspace.ParseInt(v)
			if !ok || id < 1 {
				return resp.Errorf("ERR client-id should be greater than 0")
			}
			and(func(c *client) bool { return c.id == id })
		case "TYPE":
			switch t := strings.ToLower(v); t {
			case "normal":
			case "master", "slave", "replica", "pubsub":
				and(func(*client) bool { return false })
			default:
				return resp.Errorf("ERR Unknown client type '%s'", v)
			}
		case "ADDR":
			and(func(c *client) bool { return c.addr() == v })
		case "LADDR":
			and(func(*client) bool { return v == x.s.host+":"+x.s.port })
		case "USER":
			if v != "default" {
				return resp.Errorf("ERR No such user '%s'", v)
			}
		case "SKIPME":
			switch strings.ToLower(v) {
			case "yes":
				skipMe = true
			case "no":
				skipMe = false
			default:
				return errSyntax
			}
		default:
			return errSyntax
		}
	}
	n := 0
	for _, c := range x.s.clients {
		if match(c) && !(skipMe && c == x.c) {
			x.killOne(c)
			n++
		}
	}
	return resp.Number(n)
}

func (x *exec) killOne(c *client) {
	if c == x.c {
		c.quit = true // after the answer
		return
	}
	c.Close()
}

func cmdReplicaOf(x *exec, a []string) resp.Value {
	s := x.s
	if strings.EqualFold(a[1], "NO") && strings.EqualFold(a[2], "ONE") {
		if s.repl.masterHost != "" {
			s.promote()
		}
		return resp.OK()
	}
	n, ok := keyspace.ParseInt(a[2])
	if !ok || n < 0 || n > 65535 {
		return resp.Errorf("ERR Invalid master port")
	}
	if s.repl.masterHost == a[1] && s.repl.masterPort == a[2] {
		return resp.Simple("OK Already connected to specified master")
	}
	s.follow(a[1], a[2])
	return resp.OK()
}

func cmdReplConf(_ *exec, a []string) resp.Value {
	if len(a)%2 == 0 {
		return errSyntax
	}
	for i := 1; i < len(a); i += 2 {
		switch strings.ToLower(a[i]) {
		case "listening-port":
			if _, ok := keyspace.ParseInt(a[i+1]); !ok {
				return errInt
			}
		case "ip-address", "capa", "getack", "rdb-only", "rdb-filter-only":
		case "ack":
			return errNothing
		default:
			return resp.Errorf("ERR Unrecognized REPLCONF option: %s", a[i])
		}
	}
	return resp.OK()
}

func cmdRole(x *exec, _ []string) resp.Value {
	s := x.s
	if r := &s.repl; r.masterHost != "" {
		port, _ := strconv.Atoi(r.masterPort)
		offset := int64(-1)
		if r.state == "connected" {
			offset = r.offset
		}
		return resp.List(resp.Text("slave"), resp.Text(r.masterHost), resp.Number(port), resp.Text(r.state), resp.Number(offset))
	}
	replicas := resp.List()
	for _, l := range s.liveLinks() {
		if state, ack, _ := l.shown(s.clock.Now()); state == "online" {
			replicas.Items = append(replicas.Items, resp.Texts(l.host, l.port, strconv.FormatInt(ack, 10)))
		}
	}
	return resp.List(resp.Text("master"), resp.Number(s.repl.offset), replicas)
}

func cmdWait(x *exec, a []string) resp.Value {
	if x.s.repl.masterHost != "" {
		return resp.Errorf("ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.")
	}
	if _, ok := keyspace.ParseInt(a[1]); !ok {
		return errInt
	}
	ms, ok := keyspace.ParseInt(a[2])
	switch {
	case !ok:
		return resp.Errorf("ERR timeout is not an integer or out of range")
	case ms < 0:
		return resp.Errorf("ERR timeout is negative")
	}
	return errNothing // slow does the rest
}

// SavedAtExit says whether the last SHUTDOWN wrote the data set down, so that a start from the same directory finds it.
func (s *Server) SavedAtExit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

func cmdShutdown(x *exec, a []string) resp.Value {
	save, nosave := false, false
	for _, o := range a[1:] {
		switch strings.ToUpper(o) {
		case "SAVE":
			save = true
		case "NOSAVE":
			nosave = true
		case "NOW", "FORCE":
		case "ABORT":
			return resp.Errorf("ERR No shutdown in progress.")
		default:
			return errSyntax
		}
	}
	if save && nosave {
		return errSyntax
	}
	x.s.saved = save || !nosave && (x.s.config["save"] != "" || x.s.config["appendonly"] == "yes")
	x.s.down()
	return errNothing
}

func cmdSave(text string) func(*exec, []string) resp.Value {
	return func(x *exec, _ []string) resp.Value {
		x.s.stats.lastSave = x.s.clock.Now()
		x.s.stats.dirty = 0
		if text == "" {
			return resp.OK()
		}
		return resp.Simple(text)
	}
}

func cmdTime(x *exec, _ []string) resp.Value {
	t := x.s.clock.Now()
	return resp.Texts(strconv.FormatInt(t.Unix(), 10), strconv.Itoa(t.Nanosecond()/1000))
}

func cmdACL(x *exec, a []string) resp.Value {
	switch strings.ToLower(a[1]) {
	case "whoami":
		return resp.Text("default")
	case "users":
		return resp.Texts("default")
	case "list":
		return resp.Texts("user default on nopass ~* &* +@all")
	}
	return resp.Texts("ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
}

func cmdCommand(x *exec, a []string) resp.Value {
	if len(a) > 1 && strings.EqualFold(a[1], "COUNT") {
		return resp.Number(240) // what the real one counts, not what is simulated
	}
	names := slices.Sorted(maps.Keys(x.s.commands))
	out := resp.List()
	for _, n := range names {
		if len(a) > 2 && !slices.ContainsFunc(a[2:], func(w string) bool { return strings.EqualFold(w, n) }) {
			continue
		}
		c := x.s.commands[n]
		kind := "readonly"
		if c.flags&fWrite != 0 {
			kind = "write"
		}
		out.Items = append(out.Items, resp.List(resp.Text(c.name), resp.Number(c.arity), resp.List(resp.Simple(kind)), resp.Number(1), resp.Number(1), resp.Number(1)))
	}
	return out
}
