package pika

import (
	"iter"
	"slices"
	"time"
)

// shipment is what a master sends of one slot at once.
type shipment struct {
	from string
	place
	records []record
	upTo    Offset // in the master's count
}

// ship sends to each replica that has acknowledged everything what was written since. It is the auxiliary thread that does
// it, so a write waits for its next round; while there is more, the next part goes out with the acknowledgement of the last.
func (s *Server) ship(now time.Time, slots iter.Seq[*slot]) {
	window := max(s.config.int("sync-window-size"), 1000)
	out := map[string][]shipment{}
	me := s.Announced()
	for sl := range slots {
		more := false
		for _, n := range append([]*node(nil), sl.nodes...) {
			switch {
			case !n.syncing:
			case !sl.log.holds(n.sent):
				sl.removeNode(n.addr)
			case n.sent == n.acked && n.sent < sl.log.next():
				records := sl.log.from(n.sent)
				records = records[:min(len(records), window)]
				n.sent += int64(len(records))
				n.pinged = now
				upTo := sl.log.offset(n.sent)
				if s.double() { // what came from there does not go back
					peer := s.config.int("double-master-sid")
					records = slices.DeleteFunc(slices.Clone(records), func(r record) bool { return r.server == peer })
				}
				out[n.addr] = append(out[n.addr], shipment{from: me, place: place{sl.table.name, sl.id, n.session, n.sent}, records: records, upTo: upTo})
				more = true
			case n.sent < sl.log.next():
				more = true
			}
		}
		if !more {
			delete(s.shipping, sl)
		}
	}
	for addr, list := range out {
		s.send(addr, false, func(p *Server) {
			p.arrivals = append(p.arrivals, list...)
			p.poke()
		})
	}
}

// receive takes in what has arrived, as long as no lag holds it, and acknowledges it: it is in the binlog then, and in the
// queue of an apply thread. It gives the time when there will be more.
func (s *Server) receive(now time.Time) time.Time {
	acks := map[string][]place{}
	next := now.Add(time.Hour)
	i := 0
	for ; i < len(s.arrivals); i++ {
		a := s.arrivals[i]
		if len(a.records) > 0 && s.lag > 0 {
			if arrive := a.records[len(a.records)-1].at.Add(min(s.lag, faultForever)); arrive.After(now) {
				next = arrive
				break
			}
		}
		if s.take(a, now) {
			acks[a.from] = append(acks[a.from], a.place)
		}
	}
	if s.arrivals = s.arrivals[i:]; len(s.arrivals) == 0 {
		s.arrivals = nil
	}
	me := s.Announced()
	for master, places := range acks {
		s.send(master, false, func(m *Server) { m.onAck(me, places) })
	}
	return next
}

// take appends a shipment to the slot's own binlog and hands its writes to the apply threads.
func (s *Server) take(a shipment, now time.Time) bool {
	sl := s.slot(a.table, a.id)
	if sl == nil || sl.follow.state != connected && sl.follow.state != waitDBSync {
		return false
	}
	if sl.follow.session != a.session {
		s.reconnect(sl)
		return false
	}
	sl.follow.heard = now
	s.received = a.upTo
	for _, r := range a.records {
		s.record(sl, r.args, r.at, r.server)
		s.queue(sl, r.args)
	}
	return true
}

// record appends a write to a slot's binlog.
func (s *Server) record(sl *slot, args []string, at time.Time, server int) {
	sl.log.append(args, at, server, int64(s.config.int("binlog-file-size")))
	if keep := int64(s.config.int("expire-logs-nums")); sl.log.end.File-sl.log.firstFile > max(keep, 10) {
		sl.log.purge(sl.log.firstFile)
	}
	if len(sl.nodes) > 0 {
		s.shipLater(sl)
	}
}

// shipLater leaves a slot's records to the next round of the auxiliary thread.
func (s *Server) shipLater(sl *slot) {
	s.shipping[sl] = true
	s.stir()
}

func (s *Server) onAck(replica string, places []place) {
	slots := make([]*slot, 0, len(places))
	for _, p := range places {
		sl := s.slot(p.table, p.id)
		if sl == nil {
			continue
		}
		n := sl.node(replica)
		if n == nil || n.session != p.session || p.sent < n.acked || !sl.log.holds(p.sent) {
			continue
		}
		n.acked, n.offset, n.heard = p.sent, sl.log.offset(p.sent), s.clock.Now()
		slots = append(slots, sl)
	}
	s.ship(s.clock.Now(), func(yield func(*slot) bool) {
		for _, sl := range slots {
			if !yield(sl) {
				return
			}
		}
	})
}
