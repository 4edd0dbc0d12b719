package pika

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// The replication of 2.3: of the whole instance, with numbers for states, and with two masters that follow each other.

// replState is repl_state of 2.3.
type replState int

const (
	replNone       replState = iota // follows nobody
	replConnect                     // about to ask, every now and then
	replConnecting                  // the master has listed it
	replConnected
	replWaitDBSync
	replError
)

// How long 2.3 takes from state to state.
const (
	untilAsked     = 2800 * time.Millisecond // and where nobody answered, until the next time
	untilAsked2    = 1800 * time.Millisecond // after a full sync
	untilJoined    = 2200 * time.Millisecond // of the master whose peer comes back
	untilConnected = 2 * time.Second
	untilOnline    = 200 * time.Millisecond // in the master's list
	untilLeft      = 2 * time.Second        // that slaveof takes to leave a master
)

// double says whether the configuration makes this one of two masters.
func (s *Server) double() bool { return s.old() && s.config.get("double-master-ip") != "" }

func (s *Server) peer() string {
	return s.config.get("double-master-ip") + ":" + s.config.get("double-master-port")
}

func (s *Server) enter(st replState, ask time.Duration) {
	p := &s.single
	p.repl, p.since, p.wait = st, s.clock.Now(), s.pace(ask)
	if sl := s.tables[0].slots[0]; st != replConnecting && st != replConnected {
		sl.follow = follow{state: noConnect}
	}
}

func (s *Server) bootOld() {
	switch {
	case s.double():
		s.single.master, s.single.double = s.peer(), true
		s.enter(replConnect, untilAsked)
	case s.config.get("slaveof") != "":
		s.single.master = s.config.get("slaveof")
		s.enter(replConnect, untilAsked)
	}
}

func cmdSlaveOfOld(s *Server, a []string) (resp.Value, *later) {
	p := &s.single
	noOne := strings.EqualFold(a[1], "no") && strings.EqualFold(a[2], "one")
	if noOne && len(a) != 3 || len(a) > 4 {
		return wrongNumber("slaveof"), nil
	}
	force := false
	if !noOne {
		if n, ok := keyspace.ParseInt(a[2]); !ok || n <= 0 {
			return keyspace.ErrInt, nil
		}
		if s.itself(a[1], a[2]) {
			return other("you fucked up"), nil
		}
		if force = len(a) == 4; force && a[3] != "force" {
			return keyspace.ErrSyntax, nil
		}
	}
	master := a[1] + ":" + a[2]
	if s.double() {
		switch {
		case p.repl != replNone:
			return other("Server is not in correct state for slaveof"), nil
		case master != s.peer():
			return other("In double master mode, can not set other server as the peer-master"), nil
		}
		s.tables[0].slots[0].log.reset(Offset{})
		p.master, p.double, p.force = master, true, true
		s.config.values["slave-read-only"] = "1"
		s.enter(replConnect, untilAsked)
		return resp.OK(), nil
	}
	p.force = p.force || force
	if master == p.master {
		return resp.OK(), nil
	}
	takes := time.Duration(0)
	if p.repl == replConnecting || p.repl == replConnected {
		takes = s.pace(untilLeft)
	}
	s.leaveOld()
	s.config.values["slave-read-only"] = "0"
	if noOne {
		p.force = false
	}
	return resp.Value{}, &later{d: takes, finish: func() resp.Value {
		if !noOne && p.repl == replNone {
			p.master, p.force = master, force
			s.config.values["slave-read-only"] = "1"
			s.enter(replConnect, untilAsked)
		}
		return resp.OK()
	}}
}

func (s *Server) leaveOld() {
	if s.single.master != "" {
		me := s.Announced()
		s.send(s.single.master, true, func(m *Server) { m.dismiss(me) })
	}
	s.single.master, s.tables[0].slots[0].image = "", nil
	s.enter(replNone, 0)
}

func (s *Server) stepOld(now time.Time, checking bool) {
	p := &s.single
	if checking {
		s.checkPeers()
	}
	for _, m := range p.slaves {
		m.online = m.online || now.Sub(m.life) >= s.pace(untilOnline)
	}
	if now.Sub(p.since) < p.wait {
		return
	}
	sl := s.tables[0].slots[0]
	switch p.repl {
	case replConnect:
		p.since, p.wait = now, s.pace(untilAsked)
		s.tryOld(sl)
	case replConnecting:
		s.enter(replConnected, 0)
		me := s.Announced()
		s.send(p.master, false, func(m *Server) { m.onReady(me) })
	case replWaitDBSync:
		if img := sl.image; img != nil && !img.broken && now.Sub(img.begun) >= img.takes+min(s.fullSync, faultForever) {
			sl.db, sl.image = img.db, nil
			sl.log.reset(img.offset)
			s.received = img.offset
			if s.double() {
				s.config.values["slave-read-only"] = "0"
			}
			p.force = false
			s.enter(replConnect, untilAsked2)
		}
	}
}

// checkPeers notices a broken connection at once, unlike 3.x.
func (s *Server) checkPeers() {
	p := &s.single
	for _, m := range slices.Clone(p.slaves) {
		if _, err := s.network.reach(s, m.addr, false); err != nil {
			s.dismiss(m.addr)
		}
	}
	if p.repl == replConnecting || p.repl == replConnected {
		if _, err := s.network.reach(s, p.master, false); err != nil {
			s.enter(replConnect, untilAsked)
		}
	}
}

// ask is what a 2.3 tells its master when it connects.
type ask struct {
	addr, release string
	at, end       Offset // where it goes on in the master's count, and where its own log ends
	force         bool
	secret        string
}

func (s *Server) tryOld(sl *slot) {
	a := ask{addr: s.Announced(), release: s.release, at: sl.log.end, end: sl.log.end, force: s.single.force, secret: s.config.get("masterauth")}
	if s.double() {
		a.at = s.received
	}
	if s.opts.NoRsync {
		a.secret = noRsync
	}
	s.send(s.single.master, true, func(m *Server) { m.onTryOld(a) })
}

// onTryOld answers a 2.3. Between two masters an offset that does not fit drops the link on both sides, and each says
// afterwards that it is a master without replicas.
func (s *Server) onTryOld(a ask) {
	p := &s.single
	if !s.old() {
		s.send(a.addr, false, func(r *Server) { r.enter(replError, 0) })
		return
	}
	sl := s.tables[0].slots[0]
	v := sl.log.judge(a.at)
	if a.force {
		v = purged
	}
	switch v {
	case purged:
		img := s.snapshot(sl, a.addr)
		img.broken = s.opts.NoRsync || a.secret != s.config.get("requirepass")
		if s.double() {
			p.double, p.master = true, ""
			s.enter(replNone, 0)
		}
		s.send(a.addr, false, func(r *Server) { r.onWaitOld(img) })
	case refuse:
		double := s.double()
		if double {
			s.unpair()
		}
		s.send(a.addr, false, func(r *Server) {
			if double {
				r.unpair()
			} else {
				r.enter(replError, 0)
			}
		})
	default:
		session := s.enlist(sl, a)
		if s.double() && p.repl == replNone {
			p.master, p.double, s.received = a.addr, true, a.end
			s.enter(replConnect, untilJoined)
		}
		s.send(a.addr, false, func(r *Server) { r.onListed(session) })
	}
}

// unpair ends the life of a pair of masters.
func (s *Server) unpair() {
	s.single.master, s.single.double = "", false
	for _, m := range slices.Clone(s.single.slaves) {
		s.dismiss(m.addr)
	}
	s.enter(replNone, 0)
}

// enlist lists a replica, offline at first. A 2.3.0 sends a 2.3.6 nothing, and neither notices.
func (s *Server) enlist(sl *slot, a ask) (session int) {
	s.dismiss(a.addr)
	p := &s.single
	p.fd++
	m := &member{addr: a.addr, fd: p.fd, sid: p.fd, life: s.clock.Now(), at: a.at, mute: s.release == "2.3.0" && a.release != "2.3.0"}
	if s.double() {
		m.sid = s.config.int("double-master-sid")
	}
	p.slaves = append(p.slaves, m)
	return s.register(sl, a.addr).session
}

// onReady begins to send to a replica that is connected now, and was online in the list before.
func (s *Server) onReady(replica string) {
	i := slices.IndexFunc(s.single.slaves, func(m *member) bool { return m.addr == replica })
	if i < 0 {
		return
	}
	m, sl := s.single.slaves[i], s.tables[0].slots[0]
	n := sl.node(replica)
	number, ok := sl.log.find(m.at)
	if n == nil || !ok || m.mute {
		return
	}
	n.syncing, n.sent, n.acked, n.offset = true, number, number, m.at
	s.shipLater(sl)
}

func (s *Server) onWaitOld(img *image) {
	if s.single.repl != replConnect {
		return
	}
	img.begun = s.clock.Now()
	s.tables[0].slots[0].image = img
	s.enter(replWaitDBSync, 0)
}

func (s *Server) onListed(session int) {
	if s.single.repl != replConnect {
		return
	}
	s.enter(replConnecting, untilConnected)
	s.tables[0].slots[0].follow = follow{state: connected, master: s.single.master, session: session, heard: s.clock.Now()}
}

// Wipe removes the data directory, the directory of the binlog, or both, of a server that is stopped.
func (s *Server) Wipe(data, log bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sl := range s.slots() {
		if data {
			sl.db = nil
		}
		if log {
			sl.log.reset(Offset{})
		}
	}
	if log {
		s.received = Offset{}
	}
}

func (s *Server) infoReplicationOld() string {
	p := &s.single
	host, port := hostPort(p.master)
	link := "down"
	if p.repl == replConnected {
		link = "up"
	}
	state := fmt.Sprintf("repl_state: %d", p.repl)
	readOnly := "slave_read_only:" + s.config.get("slave-read-only")
	master := lines("master_host:"+host, "master_port:"+port, "master_link_status:"+link)
	switch {
	case p.double:
		if p.master == "" {
			master = lines("master_host:", "master_port:-1", "master_link_status:down")
		}
		shown := "slave_read_only:0"
		if p.force {
			shown = readOnly
		}
		return lines("# Replication(DOUBLEMASTER)", "role:double_master") + master + lines(shown, state) + s.listSlaves()
	case p.master != "" && len(p.slaves) > 0:
		return lines("# Replication(Master && SLAVE)", "role:master&&slave") + master + lines(readOnly, state) + s.listSlaves()
	case p.master != "":
		out := lines("# Replication(SLAVE)", "role:slave") + master
		if s.release == "2.3.6" {
			out += lines("slave_priority:" + s.config.get("slave-priority"))
		}
		return out + lines(readOnly, state)
	}
	return lines("# Replication(MASTER)", "role:master") + s.listSlaves()
}

// listSlaves shows as lag what was not sent yet; nobody asks what has arrived.
func (s *Server) listSlaves() string {
	sl := s.tables[0].slots[0]
	out := lines(fmt.Sprint("connected_slaves:", len(s.single.slaves)))
	for i, m := range s.single.slaves {
		host, port := hostPort(m.addr)
		at := m.at
		if n := sl.node(m.addr); n != nil && n.syncing && sl.log.holds(n.sent) {
			at = sl.log.offset(n.sent)
		}
		line := fmt.Sprintf("slave%d:ip=%s,port=%s,state=%s,sid=%d", i, host, port, map[bool]string{true: "online", false: "offline"}[m.online], m.sid)
		if s.release != "2.3.0" {
			line += fmt.Sprintf(",lag=%d", lag(at, sl.log.end, int64(s.config.int("binlog-file-size"))))
		}
		out += lines(line)
	}
	return out
}

func (s *Server) infoDoubleMaster() string {
	p := &s.single
	role, name, mode := "master", "MASTER", "False"
	if p.double {
		role, name = "double_master", "DOUBLEMASTER"
	} else if p.master != "" {
		role, name = "slave", "SLAVE"
	}
	if s.double() {
		mode = "True"
	}
	return lines("# DoubleMaster("+name+")", "role:"+role, "the peer-master host:"+s.config.get("double-master-ip"),
		"the peer-master port:"+s.config.get("double-master-port"), "the peer-master server_id:"+s.config.get("double-master-sid"),
		"double_master_mode: "+mode, "repl_state: "+strconv.Itoa(int(p.repl)),
		fmt.Sprintf("double_master_recv_info: filenum %d offset %d", s.received.File, s.received.Pos))
}

// oldSlotCommands are those of slotmigrate that move nothing. A slot of 2.3 is the checksum of the whole key, tag or not.
func oldSlotCommands() []command {
	slot := func(key string) int { return int(crc32.ChecksumIEEE([]byte(key)) & 1023) }
	return []command{
		{name: "slotsinfo", arity: -1, run: at(func(s *Server, _ *client, _ []string) resp.Value {
			v := resp.List()
			if s.config.get("slotmigrate") == "0" {
				return v
			}
			var count [1024]int
			if db := s.tables[0].slots[0].db; db != nil {
				for k := range db.Keys {
					count[slot(k)]++
				}
			}
			for id, n := range count {
				v.Items = append(v.Items, resp.List(resp.Number(id), resp.Number(n)))
			}
			return v
		})},
		{name: "slotshashkey", arity: -2, run: at(func(_ *Server, _ *client, a []string) resp.Value {
			v := resp.List()
			for _, k := range a[1:] {
				v.Items = append(v.Items, resp.Number(slot(k)))
			}
			return v
		})},
	}
}
