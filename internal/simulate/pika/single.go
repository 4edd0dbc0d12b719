package pika

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// single is the replication of a whole instance: slaveof, in classic mode and in 2.3.
type single struct {
	master string // as it was given; "" for none
	force  bool   // the next connection begins with a full sync
	asked  time.Time
	meta   bool      // 3.x: the master has answered what it is
	slaves []*member // that this master lists
	fd     int

	// 2.3 alone
	repl   replState
	since  time.Time     // of its last change, or of the last question
	wait   time.Duration // until the next
	double bool          // one of two masters
}

// member is a replica of a whole instance, as its master lists it.
type member struct {
	addr string
	fd   int
	life time.Time // 3.x: when its process began; 2.3: when it was listed

	// 2.3 alone
	sid    int
	online bool
	at     Offset // where it began
	mute   bool   // it is sent nothing
}

// replica says whether the instance as a whole follows another.
func (s *Server) replica() bool { return s.single.master != "" && !s.single.double }

func cmdSlaveOf(s *Server, _ *client, a []string) (resp.Value, *later) {
	if s.old() {
		return cmdSlaveOfOld(s, a)
	}
	return slaveOfClassic(s, a), nil
}

func slaveOfClassic(s *Server, a []string) resp.Value {
	if len(a) > 4 {
		return wrongNumber("slaveof")
	}
	one := len(a) == 3 && strings.EqualFold(a[1], "no") && strings.EqualFold(a[2], "one")
	if !one {
		if len(s.single.slaves) > 0 {
			return other("already master of others, invalid usage")
		}
		if n, ok := keyspace.ParseInt(a[2]); !ok || n <= 0 {
			return keyspace.ErrInt
		}
		if s.itself(a[1], a[2]) {
			return other("you fucked up")
		}
		if len(a) == 4 && !strings.EqualFold(a[3], "force") {
			return wrongNumber("slaveof")
		}
	}
	master := a[1] + ":" + a[2]
	if !one && s.single.master == master {
		return resp.OK()
	}
	s.leaveMaster()
	switch {
	case one:
		s.config.values["slaveof"] = ""
	case s.classic:
		s.single.master, s.single.force = master, len(a) == 4
		s.config.values["slaveof"] = master // CONFIG REWRITE keeps it
	default:
		s.pushAll(master)
	}
	return resp.OK()
}

// pushAll is what a 3.2.9 in sharding mode does with slaveof: every slot is to connect, and none ever does.
func (s *Server) pushAll(master string) {
	for sl := range s.slots() {
		sl.follow = follow{state: tryConnect, master: master}
	}
}

func (s *Server) leaveMaster() {
	if master := s.single.master; master != "" {
		me := s.Announced()
		s.send(master, true, func(m *Server) {
			m.after(m.tick(), func() { m.dismiss(me) }) // it lists the replica a little longer
		})
	}
	for sl := range s.slots() {
		sl.follow = follow{state: noConnect}
	}
	s.single.master, s.single.force, s.single.meta, s.single.asked = "", false, false, time.Time{}
}

// dismiss forgets a replica whose connection is closed.
func (s *Server) dismiss(addr string) {
	s.single.slaves = slices.DeleteFunc(s.single.slaves, func(m *member) bool { return m.addr == addr })
	for sl := range s.slots() {
		sl.removeNode(addr)
	}
}

// admit lists a replica, and does not where it is listed still: it has to ask again.
func (s *Server) admit(addr string, life time.Time) bool {
	p := &s.single
	if i := slices.IndexFunc(p.slaves, func(m *member) bool { return m.addr == addr }); i >= 0 {
		if p.slaves[i].life.Equal(life) {
			return false
		}
		s.dismiss(addr)
	}
	p.fd++
	p.slaves = append(p.slaves, &member{addr: addr, fd: 56 + p.fd, life: life})
	return true
}

// bootSingle begins what the configuration says.
func (s *Server) bootSingle() {
	if s.old() {
		s.bootOld()
		return
	}
	if s.classic {
		s.single.master = s.config.get("slaveof")
	}
}

// stepSingle asks the master what it is, every 10 s until it has answered, and then lets the databases connect.
func (s *Server) stepSingle(now time.Time, checking bool) {
	p := &s.single
	if s.old() {
		s.stepOld(now, checking)
		return
	}
	if !s.classic {
		return
	}
	if checking {
		for _, m := range slices.Clone(p.slaves) {
			if _, err := s.network.reach(s, m.addr, false); err != nil {
				s.dismiss(m.addr)
			}
		}
	}
	if p.master == "" || p.meta || !p.asked.IsZero() && now.Sub(p.asked) < s.pace(10*time.Second) {
		return
	}
	p.asked = now
	me, life, classic, tables, master := s.Announced(), s.started, s.classic, len(s.tables), p.master
	s.send(master, true, func(m *Server) {
		if m.old() {
			return
		}
		fits := m.classic == classic && len(m.tables) == tables && m.admit(me, life)
		m.send(me, false, func(p *Server) { p.onMeta(master, fits) })
	})
}

func (s *Server) onMeta(master string, fits bool) {
	p := &s.single
	if p.master != master || p.meta || !fits {
		return
	}
	p.meta = true
	for sl := range s.slots() {
		sl.follow = follow{master: master, heard: s.clock.Now()}
		if p.force {
			s.set(sl, tryDBSync)
		} else {
			s.set(sl, tryConnect)
		}
	}
	p.force = false
}

// classicState is how info replication spells the state of a database.
func classicState(st state) string {
	switch st {
	case noConnect, waitDBSync, failed:
		return strings.TrimPrefix(string(st), "k")
	}
	return string(st)
}

func (s *Server) infoReplicationClassic() string {
	p := &s.single
	out := ""
	switch {
	case p.master != "" && len(p.slaves) > 0:
		out = lines("# Replication(Master && SLAVE)", "role:master&&slave")
	case p.master != "":
		out = lines("# Replication(SLAVE)", "role:slave")
	default:
		out = lines("# Replication(MASTER)", "role:master")
	}
	if p.master != "" {
		behind := ""
		for _, t := range s.tables {
			if st := t.slots[0].follow.state; st != connected {
				behind += fmt.Sprintf("(%s:%s)", t.name, classicState(st))
			}
		}
		host, port := hostPort(p.master)
		link := "down"
		if p.meta && behind == "" {
			link = "up"
		}
		out += lines("master_host:"+host, "master_port:"+port, "master_link_status:"+link)
		if len(p.slaves) == 0 {
			out += lines("slave_priority:" + s.config.get("slave-priority"))
		}
		out += lines("slave_read_only:1")
		if behind != "" {
			out += lines("db_repl_state:" + behind)
		}
	}
	if p.master == "" || len(p.slaves) > 0 {
		out += lines(fmt.Sprint("connected_slaves:", len(p.slaves)))
		for i, m := range p.slaves {
			host, port := hostPort(m.addr)
			lags := ""
			for _, t := range s.tables {
				sl := t.slots[0]
				if n := sl.node(m.addr); n != nil && n.syncing {
					lags += fmt.Sprintf("(%s:%d)", t.name, lag(n.offset, sl.log.end, int64(s.config.int("binlog-file-size"))))
				} else {
					lags += fmt.Sprintf("(%s:not syncing)", t.name)
				}
			}
			out += lines(fmt.Sprintf("slave%d:ip=%s,port=%s,conn_fd=%d,lag=%s", i, host, port, m.fd, lags))
		}
	}
	for _, t := range s.tables {
		sl := t.slots[0]
		out += lines(fmt.Sprintf("%s binlog_offset=%s,safety_purge=%s", t.name, sl.log.end, sl.safetyPurge()))
	}
	return out
}
