package pika

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// The replication of slots, each for itself. The replica's side asks (a TrySync to go on with the binlog, a DBSync for a
// copy of everything), the master's side ships records and takes acknowledgements. What both know of each other is
// kept on each side alone, and is often not the same: that is what a runbook has to live with.

// auxiliary is one round of Pika's auxiliary thread, when its time has come: the state machines, the timeouts, the
// records. It gives the time of the next one, which is later where there is nothing to do.
func (s *Server) auxiliary(now time.Time) time.Time {
	const rounds = 5 // between two looks at the timeouts
	if now.Before(s.nextTick) {
		return s.nextTick
	}
	for _, sl := range slices.SortedFunc(maps.Keys(s.busy), bySlot) {
		if s.step(sl, now); !sl.busy() {
			delete(s.busy, sl)
		}
	}
	checking := !now.Before(s.nextCheck)
	if checking {
		s.nextCheck = now.Add(rounds * s.tick())
		s.checkTimeouts(now)
	}
	s.ship(now, maps.Keys(s.shipping))
	s.stepSingle(now, checking)
	s.nextTick = now.Add(s.tick())
	if !s.classic && len(s.busy) == 0 && len(s.shipping) == 0 {
		s.nextTick = s.nextCheck
	}
	return s.nextTick
}

// stir has the next round come after one sleep of the auxiliary thread.
func (s *Server) stir() {
	if t := s.clock.Now().Add(s.tick()); s.nextTick.After(t) {
		s.nextTick = t
		s.poke()
	}
}

func bySlot(a, b *slot) int {
	if a.table != b.table {
		if a.table.name < b.table.name {
			return -1
		}
		return 1
	}
	return a.id - b.id
}

// busy says whether the slot's state machine has anything to do or to wait for.
func (sl *slot) busy() bool {
	switch sl.follow.state {
	case tryConnect, tryDBSync, waitDBSync:
		return !sl.deleted
	}
	return sl.image != nil && !sl.image.landed && !sl.image.broken && !sl.deleted
}

func (s *Server) step(sl *slot, now time.Time) {
	if img := sl.image; img != nil && !img.broken && !img.landed && now.Sub(img.begun) >= img.takes+min(s.fullSync, faultForever) {
		img.landed = true
		s.endTransfer(sl, img.asked)
	}
	switch sl.follow.state {
	case tryConnect:
		s.trySync(sl)
	case tryDBSync:
		s.dbSync(sl)
	case waitDBSync:
		if sl.image != nil && sl.image.landed {
			s.install(sl)
		}
	}
}

// trySync asks the master to go on from where the slot's own binlog ends. Where the question or its answer gets lost, the
// replica waits for ever.
func (s *Server) trySync(sl *slot) {
	sl.follow.state = waitReply
	me, name, id, at := s.Announced(), sl.table.name, sl.id, sl.log.end
	s.send(sl.follow.master, true, func(m *Server) { m.onTrySync(me, name, id, at) })
}

// verdict is the master's answer to a TrySync.
type verdict int

const (
	goOn   verdict = iota
	purged         // the master has no such file any more: a full sync is needed
	refuse         // the offset is beyond the master's, or no record begins there
)

func (s *Server) onTrySync(replica, name string, id int, at Offset) {
	sl := s.slot(name, id)
	if sl == nil || s.old() {
		return // an answer that the replica only writes into its log
	}
	v := sl.log.judge(at)
	session := 0
	if v == goOn {
		session = s.register(sl, replica).session
	}
	s.send(replica, false, func(p *Server) { p.onTrySyncReply(name, id, v, session) })
}

// judge looks only at where the replica's log ends, not at what is in it: a write of the replica's own that is as long as
// the master's record passes. A file that a full sync has filled up with padding begins at 0 as any other.
func (b *binlog) judge(at Offset) verdict {
	switch {
	case at.compare(b.end) > 0:
		return refuse
	case at.File < b.firstFile:
		return purged
	case at.Pos == 0 && at.compare(b.start) < 0:
		return goOn
	}
	if _, ok := b.find(at); !ok {
		return refuse
	}
	return goOn
}

// register lists a replica, not syncing yet.
func (s *Server) register(sl *slot, replica string) *node {
	n := sl.node(replica)
	if n == nil {
		n = &node{addr: replica, session: sl.sessions}
		sl.sessions++
		sl.nodes = append([]*node{n}, sl.nodes...)
	}
	n.heard, n.pinged = s.clock.Now(), s.clock.Now()
	return n
}

func (s *Server) onTrySyncReply(name string, id int, v verdict, session int) {
	sl := s.slot(name, id)
	if sl == nil || sl.follow.state != waitReply {
		return
	}
	switch v {
	case refuse:
		sl.follow.state = failed
	case purged:
		s.set(sl, tryDBSync)
	default:
		sl.follow.state, sl.follow.session, sl.follow.heard = connected, session, s.clock.Now()
		if s.overtaken != nil && s.overtaken(id) {
			sl.follow.state, sl.follow.early = waitReply, true
		}
		joined := sl.follow
		s.after(s.tick()/2, func() { s.firstAck(sl, joined) })
	}
}

// firstAck is what has the master send. Until then the replica says kConnected, and the master SlaveNotSync.
func (s *Server) firstAck(sl *slot, joined follow) {
	f := sl.follow
	if sl.deleted || f.stalled || f.state != joined.state || f.master != joined.master || f.session != joined.session {
		return
	}
	me, name, id, at := s.Announced(), sl.table.name, sl.id, sl.log.end
	s.send(f.master, false, func(m *Server) { m.onFirstAck(me, name, id, f.session, at) })
}

// onFirstAck begins to send. A replica whose place is before everything that a full sync left here is dropped at the next
// round, and does not learn of it.
func (s *Server) onFirstAck(replica, name string, id, session int, at Offset) {
	sl := s.slot(name, id)
	if sl == nil {
		return
	}
	n := sl.node(replica)
	if n == nil || n.session != session {
		return
	}
	number, ok := sl.log.find(at)
	if !ok {
		number = -1
	}
	n.syncing, n.sent, n.acked, n.offset, n.heard = true, number, number, at, s.clock.Now()
	s.shipLater(sl)
}

// dbSync asks the master for a copy of everything. It begins with an empty directory: a copy that was on its way is lost.
func (s *Server) dbSync(sl *slot) {
	if img := sl.image; img != nil && !img.landed {
		over := img.asked
		s.after(s.tick(), func() { s.endTransfer(sl, over) }) // the master's rsync fails a little later
	}
	sl.image = nil
	sl.follow.state = waitReply
	me, name, id, asked := s.Announced(), sl.table.name, sl.id, sl.follow.master
	secret, life := s.config.get("masterauth"), s.started
	if s.opts.NoRsync {
		secret = noRsync
	}
	s.send(asked, true, func(m *Server) { m.onDBSync(me, name, id, asked, secret, life) })
}

// noRsync stands for the secret of a server without rsync: no other has it.
const noRsync = "\x00"

func transferOf(replica, name string, id int) string {
	return replica + " " + name + ":" + strconv.Itoa(id)
}

func (s *Server) onDBSync(replica, name string, id int, asked, secret string, life time.Time) {
	if s.old() {
		return
	}
	var img *image
	session := 0
	if sl := s.slot(name, id); sl != nil {
		session = s.register(sl, replica).session
		t := transferOf(replica, name, id)
		if !s.transfers[t].Equal(life) { // one is under way already, and the request is ignored
			img = s.snapshot(sl, asked)
			img.broken = s.opts.NoRsync || secret != s.config.get("requirepass")
			if !img.broken {
				s.transfers[t] = life
			}
		}
	}
	s.send(replica, false, func(p *Server) { p.onDBSyncReply(name, id, session, img) })
}

func (s *Server) snapshot(sl *slot, asked string) *image {
	img := &image{master: s.Announced(), asked: asked, offset: sl.log.end}
	if sl.db != nil {
		img.db = sl.db.Clone()
		speed, _ := strconv.ParseFloat(s.config.get("db-sync-speed"), 64)
		if speed <= 0 || speed > 1024 {
			speed = 1024
		}
		img.takes = time.Duration(float64(sl.db.Size) / (speed * 1e6) * float64(time.Second))
	}
	return img
}

func (s *Server) onDBSyncReply(name string, id, session int, img *image) {
	sl := s.slot(name, id)
	if sl == nil || sl.follow.state != waitReply {
		return
	}
	sl.follow.session, sl.follow.heard = session, s.clock.Now()
	if img != nil {
		img.begun = s.clock.Now()
		sl.image = img
	}
	s.set(sl, waitDBSync)
	if s.unfilled != nil && s.unfilled(id) {
		sl.follow.state, sl.follow.early = waitReply, true
	}
}

// endTransfer tells the master that its rsync has come to an end, whatever came of it.
func (s *Server) endTransfer(sl *slot, master string) {
	t := transferOf(s.Announced(), sl.table.name, sl.id)
	s.send(master, true, func(m *Server) { delete(m.transfers, t) })
}

// install puts the copy in place of what the slot held, and begins again: only now the binlog can go on.
func (s *Server) install(sl *slot) {
	img := sl.image
	sl.image = nil
	if img.master != sl.follow.master {
		sl.follow.state = failed // the copy says where it comes from in numbers, and a host name does not match them
		return
	}
	sl.db = img.db
	sl.log.reset(img.offset)
	s.shipLater(sl)
	s.set(sl, tryConnect)
}

// set changes a replica's state to one in which there is something to do.
func (s *Server) set(sl *slot, st state) {
	sl.follow.state = st
	s.busy[sl] = true
	s.stir()
}

// reconnect has a replica that lost its master begin again.
func (s *Server) reconnect(sl *slot) {
	if s.old() {
		s.enter(replConnect, untilAsked)
		return
	}
	sl.follow.stalled = false
	s.set(sl, tryConnect)
}

// leave ends a replica's life without telling the master, as long as it does not say kConnected.
func (s *Server) leave(sl *slot) {
	if sl.follow.state == connected {
		me, name, id := s.Announced(), sl.table.name, sl.id
		s.send(sl.follow.master, true, func(m *Server) {
			if sl := m.slot(name, id); sl != nil {
				sl.removeNode(me)
			}
		})
	}
	sl.follow = follow{state: noConnect}
}

// place names a slot and the session of its replica in messages about many.
type place struct {
	table       string
	id, session int
	sent        int64
}

// checkTimeouts forgets replicas that were not heard of for 20 s, asks those that are silent, and has replicas connect
// again that did not hear of their master.
func (s *Server) checkTimeouts(now time.Time) {
	silent := map[string][]place{}
	for sl := range s.slots() {
		sl.nodes = slices.DeleteFunc(sl.nodes, func(n *node) bool { return now.Sub(n.heard) > s.pace(timeout) })
		for _, n := range sl.nodes {
			if now.Sub(n.pinged) > s.pace(keepAlive) && n.sent == n.acked {
				n.pinged = now
				silent[n.addr] = append(silent[n.addr], place{table: sl.table.name, id: sl.id, session: n.session})
			}
		}
		if f := &sl.follow; (f.state == connected || f.state == waitDBSync) && now.Sub(f.heard) > s.pace(timeout) {
			s.reconnect(sl)
		}
	}
	me := s.Announced()
	for addr, places := range silent {
		s.send(addr, false, func(p *Server) { p.onPing(me, places) })
	}
}

func (s *Server) onPing(master string, places []place) {
	var heard []place
	for _, p := range places {
		sl := s.slot(p.table, p.id)
		switch {
		case sl == nil || sl.follow.stalled || sl.follow.state != connected && sl.follow.state != waitDBSync:
		case sl.follow.session != p.session:
			s.reconnect(sl)
		default:
			sl.follow.heard = s.clock.Now()
			heard = append(heard, p)
		}
	}
	if len(heard) == 0 {
		return
	}
	me := s.Announced()
	s.send(master, false, func(m *Server) {
		for _, p := range heard {
			if sl := m.slot(p.table, p.id); sl != nil {
				if n := sl.node(me); n != nil && n.session == p.session {
					n.heard = m.clock.Now()
				}
			}
		}
	})
}
