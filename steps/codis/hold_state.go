package codis

import (
	"fmt"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps/pika"
)

// row is where a slot stands in a switch: a row of the table of what can be seen from outside. The order is that of
// gravity: a wave stands where its worst slot stands.
type row int

const (
	rowReplicating  row = iota // mapping and proxies at the source; the destination follows it
	rowApart                   // the same, and the destination does not follow it (any more)
	rowDone                    // mapping and every proxy at the destination, which is a master
	rowHalfAssigned            // mapping at the destination, some proxy not yet
	rowHalfHeld                // some proxies hold the slot, or have not answered whether they do
	rowHeld                    // every proxy holds it, the source is a master
	rowFenced                  // held, and the source follows the destination, which follows the source
	rowDetached                // held, the source follows the destination, which is a master
	rowBroken                  // open at the source, which follows the destination: clients get errors
	rowTurned                  // mapping at the destination, which follows the source
	rowSilent                  // open at the source, which does not say whether it is fenced
	rowUnread                  // nobody can say where the mapping is, and it may have been changed
	rowNone                    // in no row
)

var rowNames = [...]string{
	"replicating", "not replicating", "switched", "partly assigned", "partly held", "held", "held and fenced",
	"held and detached", "fenced and open", "assigned to a replica", "open at a source that does not answer", "mapping unreadable", "unknown",
}

func (r row) String() string { return rowNames[r] }

// way is what is done about it. There is one for each row.
type way int

const (
	wayNone    way = iota // nothing: it is at one safe end or the other
	wayBack               // make the source a writable master again, and let its clients go
	wayForward            // assign again, until every proxy shows it
	wayWait               // only a living dashboard can go on
	wayDoubt              // change nothing, say what was seen
)

func (r row) way() way {
	switch r {
	case rowReplicating, rowApart, rowDone:
		return wayNone
	case rowHalfHeld, rowHeld, rowFenced, rowDetached, rowBroken:
		return wayBack
	case rowHalfAssigned:
		return wayForward
	case rowSilent, rowUnread:
		return wayWait
	}
	return wayDoubt
}

// judgement is what was seen of a wave, slot by slot.
type judgement struct {
	rows map[int]row
	seen map[int]string // of the slots in no row: what is so unlike any of them
}

// way is the wave's: a slot in no row stops all of them; otherwise each goes its own, since
// slots that are mapped to either side cannot be brought to one.
func (j judgement) way() way {
	w := wayNone
	for _, r := range j.rows {
		w = max(w, r.way())
	}
	return w
}

// switched says that every slot is at the destination.
func (j judgement) switched() bool { return len(j.in(rowDone)) == len(j.rows) }

// in lists the slots in one of these rows.
func (j judgement) in(rows ...row) schema.Slots {
	var slots schema.Slots
	for id, r := range j.rows {
		if slices.Contains(rows, r) {
			slots = append(slots, id)
		}
	}
	slices.Sort(slots)
	return slots
}

// going lists the slots that go one way.
func (j judgement) going(w way) schema.Slots {
	var slots schema.Slots
	for id, r := range j.rows {
		if r.way() == w {
			slots = append(slots, id)
		}
	}
	slices.Sort(slots)
	return slots
}

// String says which slots stand where: "slots 1-3 held and fenced, slot 4 unknown (…)".
func (j judgement) String() string {
	var parts []string
	for r := rowNone; r >= 0; r-- {
		slots := j.in(r)
		if len(slots) == 0 {
			continue
		}
		text := "slot"
		if len(slots) > 1 {
			text = "slots"
		}
		text += " " + slots.String() + " " + r.String()
		if why := j.seen[slots[0]]; why != "" {
			text += " (" + why + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// judge says where each slot of the plan stands by what was seen.
func (p *switchPlan) judge(s *sight) judgement {
	j := judgement{rows: map[int]row{}, seen: map[int]string{}}
	for _, id := range p.Slots {
		r, why := p.row(id, s)
		j.rows[id] = r
		if why != "" {
			j.seen[id] = why
		}
	}
	return j
}

// row is the table. why says what was seen where the row does not say it all.
func (p *switchPlan) row(id int, s *sight) (r row, why string) {
	m, known := s.mapping[id]
	routes := p.routes(id, s)
	switch {
	case routes.elsewhere != "":
		return rowNone, routes.elsewhere
	case !known && routes.dest > 0:
		// A dashboard stores a mapping before it tells any proxy.
		m, known = SlotMapping{ID: id, GroupID: p.To}, true
	case !known && s.assigned == neverAssigned:
		m, known = SlotMapping{ID: id, GroupID: p.From}, true
	}
	switch {
	case !known:
		return rowUnread, s.unread
	case !m.Idle():
		return rowNone, fmt.Sprintf("somebody's action %s to group %d is on it", m.Action.State, m.Action.TargetID)
	case m.GroupID == p.From && routes.dest > 0:
		return rowNone, "mapped to the source, and a proxy serves it from the destination"
	case m.GroupID == p.From:
		return p.rowAtSource(id, s, routes)
	case m.GroupID == p.To:
		return p.rowAtDestination(id, s, routes)
	}
	return rowNone, fmt.Sprintf("mapped to group %d", m.GroupID)
}

func (p *switchPlan) rowAtSource(id int, s *sight, routes routes) (row, string) {
	src, srcOK := s.source.slots[id]
	dst := s.dest.slots[id]
	waits := routes.locked > 0 || routes.silent > 0
	switch {
	case srcOK && !src.Present:
		return rowNone, "the source does not have it"
	case srcOK && src.Follows() && src.Master != p.Destination.Addr:
		return rowNone, "the source follows " + src.Master
	case srcOK && src.Follows():
		return p.rowFenced(src, dst, s, waits)
	case waits && routes.open == 0 && routes.silent == 0:
		return rowHeld, ""
	case waits:
		return rowHalfHeld, ""
	case !srcOK && s.fenced:
		return rowSilent, s.source.why()
	case dst.Master == p.Source.Addr && dst.State == pika.StateConnected && follows(src, p.Destination.Addr):
		return rowReplicating, ""
	}
	return rowApart, ""
}

// rowFenced is of a slot that is mapped to the source, which follows the destination.
func (p *switchPlan) rowFenced(src, dst pika.Slot, s *sight, waits bool) (row, string) {
	switch {
	case dst.Present && !dst.Follows() && dst.Offset != src.Offset:
		// Somebody has written to one of them past the proxies: going back would take one of the two histories.
		return rowNone, fmt.Sprintf("the destination is a master at %s, the source is fenced at %s", dst.Offset, src.Offset)
	case dst.Follows() && dst.Master != p.Source.Addr:
		return rowNone, "the destination follows " + dst.Master
	case !waits:
		return rowBroken, ""
	case dst.Present && !dst.Follows():
		return rowDetached, ""
	}
	// A destination that is gone has taken no write: no proxy serves it from there.
	return rowFenced, ""
}

func (p *switchPlan) rowAtDestination(id int, s *sight, routes routes) (row, string) {
	dst, answered := s.dest.slots[id]
	switch {
	case answered && !dst.Present:
		return rowNone, "mapped to the destination, which does not have it"
	case dst.Follows():
		return rowTurned, "the destination follows " + dst.Master
	case routes.source > 0 || routes.locked > 0 || routes.silent > 0:
		return rowHalfAssigned, ""
	}
	return rowDone, ""
}

func follows(master pika.Slot, replica string) bool {
	r, listed := master.Replica(replica)
	return listed && r.Status == pika.BinlogSync
}

// routes is what the proxies do with a slot, counted. A proxy that is gone, or has no slots yet, serves nobody and is not counted.
type routes struct {
	source, dest int // where they send it
	open, locked int
	silent       int    // no answer: it may hold the slot
	elsewhere    string // what a proxy does that no switch does
}

func (p *switchPlan) routes(id int, s *sight) routes {
	var n routes
	for _, px := range s.proxies {
		slot, ok := px.slots[id]
		switch {
		case px.gone:
			continue
		case px.err != nil:
			n.silent++
			continue
		case !ok || slot.BackendAddr == "" && !slot.Locked:
			continue
		case slot.MigrateFrom != "":
			n.elsewhere = fmt.Sprintf("proxy %s migrates it from %s", px.addr, slot.MigrateFrom)
		case slot.BackendAddr == p.Source.Addr:
			n.source++
		case slot.BackendAddr == p.Destination.Addr:
			n.dest++
		default:
			n.elsewhere = fmt.Sprintf("proxy %s serves it from %q", px.addr, slot.BackendAddr)
		}
		if slot.Locked {
			n.locked++
		} else {
			n.open++
		}
	}
	return n
}
