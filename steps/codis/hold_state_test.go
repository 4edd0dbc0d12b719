package codis

import (
	"errors"
	"testing"

	"runbook/schema"
	"runbook/steps/pika"
)

const (
	srcAddr = "10.0.0.1:9221"
	dstAddr = "10.0.0.5:9221"
)

// seen builds what can be seen of slot 1, one fact at a time.
type seen struct {
	sight
	n int
}

func see() *seen {
	s := &seen{}
	s.mapping = map[int]SlotMapping{}
	s.source.slots, s.dest.slots = map[int]pika.Slot{}, map[int]pika.Slot{}
	return s
}

func (s *seen) mapped(group int) *seen {
	s.mapping[1] = SlotMapping{ID: 1, GroupID: group}
	return s
}

func (s *seen) action(state string) *seen {
	m := s.mapping[1]
	m.Action.State = state
	s.mapping[1] = m
	return s
}

func (s *seen) unmapped() *seen { s.mapping = nil; return s }

func (s *seen) proxy(addr string, locked bool) *seen {
	s.n++
	s.proxies = append(s.proxies, proxySight{addr: "px", slots: map[int]Slot{1: {ID: 1, BackendAddr: addr, Locked: locked}}})
	return s
}

func (s *seen) hangs() *seen {
	s.proxies = append(s.proxies, proxySight{addr: "px", err: errors.New("no answer")})
	return s
}

func (s *seen) gone() *seen {
	s.proxies = append(s.proxies, proxySight{addr: "px", err: errors.New("refused"), gone: true})
	return s
}

func (s *seen) src(master string, replicas ...string) *seen {
	s.source.slots[1] = pikaSlot(master, 100, replicas)
	return s
}

func (s *seen) dst(master string, replicas ...string) *seen {
	s.dest.slots[1] = pikaSlot(master, 100, replicas)
	return s
}

func (s *seen) dstAt(pos int64, master string) *seen {
	s.dest.slots[1] = pikaSlot(master, pos, nil)
	return s
}

func pikaSlot(master string, pos int64, replicas []string) pika.Slot {
	slot := pika.Slot{ID: 1, Present: true, Master: master, Offset: pika.Offset{Pos: pos}}
	if master != "" {
		slot.State = pika.StateConnected
	}
	for _, r := range replicas {
		var none int64
		slot.Replicas = append(slot.Replicas, pika.Replica{Addr: r, Status: pika.BinlogSync, Lag: &none})
	}
	return slot
}

func (s *seen) srcSilent() *seen { s.source = serverSight{err: errors.New("no answer")}; return s }
func (s *seen) dstSilent() *seen { s.dest = serverSight{err: errors.New("no answer")}; return s }
func (s *seen) mayAssign() *seen { s.assigned = maybeAssigned; return s }
func (s *seen) mayFence() *seen  { s.sight.fenced = true; return s }
func (s *seen) dstAbsent() *seen { s.dest.slots[1] = pika.Slot{ID: 1}; return s }
func (s *seen) open() *seen      { return s.proxy(srcAddr, false).proxy(srcAddr, false) }
func (s *seen) held() *seen      { return s.proxy(srcAddr, true).proxy(srcAddr, true) }
func (s *seen) moved() *seen     { return s.proxy(dstAddr, false).proxy(dstAddr, false) }
func (s *seen) following() *seen { return s.src("", dstAddr).dst(srcAddr) }
func (s *seen) crossed() *seen   { return s.src(dstAddr, dstAddr).dst(srcAddr, srcAddr) }
func (s *seen) detachedD() *seen { return s.src(dstAddr).dst("", srcAddr) }

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name string
		seen *seen
		row  row
		way  way
	}{
		// The rows of the table.
		{"replicating", see().mapped(1).open().following(), rowReplicating, wayNone},
		{"never attached", see().mapped(1).open().src("").dstAbsent(), rowApart, wayNone},
		{"destination restarted", see().mapped(1).open().src("").dst(""), rowApart, wayNone},
		{"listed and not connected", see().mapped(1).open().src("", dstAddr).dst(""), rowApart, wayNone},
		{"some held", see().mapped(1).proxy(srcAddr, true).proxy(srcAddr, false).following(), rowHalfHeld, wayBack},
		{"all held", see().mapped(1).held().following(), rowHeld, wayBack},
		{"fenced", see().mapped(1).held().crossed(), rowFenced, wayBack},
		{"detached", see().mapped(1).held().detachedD(), rowDetached, wayBack},
		{"hold broken with the fence", see().mapped(1).open().crossed(), rowBroken, wayBack},
		{"hold broken after detaching", see().mapped(1).open().detachedD(), rowBroken, wayBack},
		{"partly assigned", see().mapped(3).proxy(dstAddr, false).proxy(srcAddr, true).detachedD(), rowHalfAssigned, wayForward},
		{"assigned, no proxy told", see().mapped(3).held().detachedD(), rowHalfAssigned, wayForward},
		{"switched", see().mapped(3).moved().detachedD(), rowDone, wayNone},
		{"switched, old side deleted", see().mapped(3).moved().src("").dst(""), rowDone, wayNone},
		{"assigned to a replica", see().mapped(3).moved().following(), rowTurned, wayDoubt},

		// What does not answer.
		{"a proxy hangs", see().mapped(1).proxy(srcAddr, false).hangs().following(), rowHalfHeld, wayBack},
		{"a proxy is gone", see().mapped(1).proxy(srcAddr, false).gone().following(), rowReplicating, wayNone},
		{"a proxy has no slots yet", see().mapped(1).proxy(srcAddr, false).proxy("", false).following(), rowReplicating, wayNone},
		{"switched, one proxy hangs", see().mapped(3).proxy(dstAddr, false).hangs().detachedD(), rowHalfAssigned, wayForward},
		{"held, source hangs", see().mapped(1).held().srcSilent().dst(srcAddr), rowHeld, wayBack},
		{"open, source hangs, perhaps fenced", see().mapped(1).open().srcSilent().dst(srcAddr).mayFence(), rowSilent, wayWait},
		{"fenced, destination gone", see().mapped(1).held().src(dstAddr).dstSilent(), rowFenced, wayBack},
		{"held, destination gone", see().mapped(1).held().src("").dstSilent(), rowHeld, wayBack},
		{"no mapping, never assigned", see().unmapped().held().detachedD(), rowDetached, wayBack},
		{"no mapping, perhaps assigned", see().unmapped().held().detachedD().mayAssign(), rowUnread, wayWait},
		{"no mapping, a proxy has it", see().unmapped().proxy(dstAddr, false).proxy(srcAddr, true).detachedD().mayAssign(), rowHalfAssigned, wayForward},

		// What no switch leaves behind.
		{"somebody's action", see().mapped(1).action("migrating").open().following(), rowNone, wayDoubt},
		{"another group", see().mapped(2).open().following(), rowNone, wayDoubt},
		{"another backend", see().mapped(1).proxy("10.9.9.9:1", false).following(), rowNone, wayDoubt},
		{"served by both", see().mapped(1).proxy(srcAddr, false).proxy(dstAddr, false).following(), rowNone, wayDoubt},
		{"detached and written to", see().mapped(1).held().src(dstAddr).dstAt(140, ""), rowNone, wayDoubt},
		{"source follows a third", see().mapped(1).held().src("10.9.9.9:1").dst(srcAddr), rowNone, wayDoubt},
		{"source lost the slot", see().mapped(1).open().dst(srcAddr), rowApart, wayNone},
		{"assigned and absent", see().mapped(3).moved().src("").dstAbsent(), rowNone, wayDoubt},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &switchPlan{Slots: schema.Slots{1}, From: 1, To: 3, Source: serverOf{Addr: srcAddr}, Destination: serverOf{Addr: dstAddr}}
			j := p.judge(&c.seen.sight)
			if j.rows[1] != c.row || j.way() != c.way {
				t.Errorf("%s: way %d, want %s: way %d", j, j.way(), c.row, c.way)
			}
		})
	}
}

// TestWave: one slot in no row stops the wave; slots on either side of the assignment go each its own way.
func TestWave(t *testing.T) {
	j := judgement{rows: map[int]row{1: rowDone, 2: rowDetached, 3: rowHalfAssigned}, seen: map[int]string{}}
	if got := j.going(wayBack).String() + " " + j.going(wayForward).String(); got != "2 3" {
		t.Errorf("back and forward go %s, want 2 3", got)
	}
	j.rows[4], j.seen[4] = rowNone, "mapped to group 9"
	if j.way() != wayDoubt {
		t.Error("a slot in no row does not stop the wave")
	}
	if got, want := j.String(), "slot 4 unknown (mapped to group 9), slot 2 held and detached, slot 3 partly assigned, slot 1 switched"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}
