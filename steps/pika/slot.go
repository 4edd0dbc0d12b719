package pika

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// Offset is a place in a slot's binlog: the file's number and the byte in it. Files differ
// in length, so offsets can be compared and not subtracted.
type Offset struct {
	File int64 `json:"file"`
	Pos  int64 `json:"pos"`
}

// String gives it as the server prints it: "0 163593".
func (o Offset) String() string { return fmt.Sprintf("%d %d", o.File, o.Pos) }

// Compare orders offsets of one binlog.
func (o Offset) Compare(p Offset) int {
	return cmp.Or(cmp.Compare(o.File, p.File), cmp.Compare(o.Pos, p.Pos))
}

// Less tells whether o comes before p.
func (o Offset) Less(p Offset) bool { return o.Compare(p) < 0 }

// IsZero tells a binlog to which nothing was ever written.
func (o Offset) IsZero() bool { return o == Offset{} }

// Slot is one slot as one instance sees it (pkcluster info slot).
type Slot struct {
	ID       int
	Present  bool   // the instance holds the slot
	Offset   Offset // of its own binlog
	Replicas []Replica
	Master   string // ip:port it follows; empty: nobody
	State    string // of its replication as a follower, such as StateConnected; empty when it follows nobody
}

// Replica is a follower of a slot, as the slot's master sees it.
type Replica struct {
	Addr   string // ip:port
	Status string // NotSync, DBSync, BinlogSync
	Lag    *int64 // bytes of the binlog it has not acknowledged; nil while the server shows none
}

// The states of a slot that follows (slave status).
const (
	StateNoConnect  = "kNoConnect"
	StateTryConnect = "kTryConnect"
	StateTryDBSync  = "kTryDBSync"
	StateWaitDBSync = "kWaitDBSync"
	StateWaitReply  = "kWaitReply"
	StateConnected  = "kConnected"
	StateError      = "kError"
)

// The states of a follower at its master (replication_status).
const (
	NotSync    = "SlaveNotSync"
	DBSync     = "SlaveDbSync"
	BinlogSync = "SlaveBinlogSync"
)

// Follows tells whether the slot follows a master, in whatever state.
func (s Slot) Follows() bool { return s.Master != "" }

// InFullSync tells whether a full sync of the slot is under way, as far as the slot itself knows: it goes
// through kTryConnect and kWaitReply before and after, where nobody can see from it what it waits for.
func (s Slot) InFullSync() bool { return s.State == StateTryDBSync || s.State == StateWaitDBSync }

// Role is master, slave, or both for a slot in the middle of a chain; empty for one that is absent.
func (s Slot) Role() string {
	switch {
	case !s.Present:
		return ""
	case s.Follows() && len(s.Replicas) > 0:
		return "both"
	case s.Follows():
		return "slave"
	}
	return "master"
}

// Replica finds a follower by its address.
func (s Slot) Replica(addr string) (Replica, bool) {
	i := slices.IndexFunc(s.Replicas, func(r Replica) bool { return r.Addr == addr })
	if i < 0 {
		return Replica{}, false
	}
	return s.Replicas[i], true
}

// tableSlot is a slot with the table it belongs to, as the answer names it.
type tableSlot struct {
	table int
	Slot
}

// parseSlots reads the answer to pkcluster info slot. An empty answer has no slots: an instance says
// nothing of a slot that it does not hold, and 3.2.9 says only the first line of one that has no replication.
func parseSlots(text string) ([]tableSlot, error) {
	var slots []tableSlot
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.Trim(line, "-") == "":
			continue
		case strings.HasPrefix(line, "("):
			s, err := slotHead(line)
			if err != nil {
				return nil, err
			}
			slots = append(slots, s)
			continue
		case len(slots) == 0:
			return nil, fmt.Errorf("%q stands before the first slot", line)
		}
		if err := slots[len(slots)-1].read(line); err != nil {
			return nil, err
		}
	}
	return slots, nil
}

// slotHead reads "(db0:1) binlog_offset=0 163593,safety_purge=none".
func slotHead(line string) (tableSlot, error) {
	wrong := func(what string) (tableSlot, error) {
		return tableSlot{}, fmt.Errorf("%q: %s", line, what)
	}
	name, rest, ok := strings.Cut(strings.TrimPrefix(line, "("), ")")
	if !ok {
		return wrong("no name of a slot")
	}
	tableName, slot, ok := strings.Cut(name, ":")
	table, errTable := strconv.Atoi(strings.TrimPrefix(tableName, "db"))
	id, errSlot := strconv.Atoi(slot)
	if !ok || !strings.HasPrefix(tableName, "db") || errTable != nil || errSlot != nil || table < 0 || id < 0 {
		return wrong("no name of a slot")
	}
	_, offset, ok := strings.Cut(rest, "binlog_offset=")
	if !ok {
		return wrong("no binlog offset")
	}
	offset, _, _ = strings.Cut(offset, ",")
	o, err := parseOffset(offset)
	if err != nil {
		return wrong(err.Error())
	}
	return tableSlot{table, Slot{ID: id, Present: true, Offset: o}}, nil
}

func parseOffset(text string) (Offset, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return Offset{}, fmt.Errorf("%q is no binlog offset", text)
	}
	file, errFile := strconv.ParseInt(words[0], 10, 64)
	pos, errPos := strconv.ParseInt(words[1], 10, 64)
	if errFile != nil || errPos != nil || file < 0 || pos < 0 {
		return Offset{}, fmt.Errorf("%q is no binlog offset", text)
	}
	return Offset{file, pos}, nil
}

// read takes one line of a slot's description.
func (s *tableSlot) read(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		if strings.HasPrefix(line, "consensus_last_log=") {
			return nil
		}
		return fmt.Errorf("%q is no line of a slot", line)
	}
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	last := len(s.Replicas) - 1
	switch {
	case name == "Role", name == "connected_slaves": // what follows says it better
	case strings.HasPrefix(name, "slave["):
		s.Replicas = append(s.Replicas, Replica{Addr: value})
	case name == "replication_status" && last >= 0:
		s.Replicas[last].Status = value
	case name == "lag" && last >= 0:
		lag, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is no lag", line)
		}
		s.Replicas[last].Lag = &lag
	case name == "master":
		s.Master = value
	case name == "slave status":
		s.State = value
	}
	return nil
}

// Slots asks for slots of table 0, all in one request, and gives them in the order asked; one that the
// instance does not hold has Present false.
func (c *Client) Slots(ctx context.Context, slots schema.Slots) ([]Slot, error) {
	return c.TableSlots(ctx, 0, slots)
}

// TableSlots is Slots for any table.
func (c *Client) TableSlots(ctx context.Context, table int, slots schema.Slots) ([]Slot, error) {
	if len(slots) == 0 {
		return nil, nil
	}
	var seen []tableSlot
	var err error
	if len(slots) > 1 && c.singly.Load() {
		seen, err = c.slotsSingly(ctx, table, slots)
	} else if seen, err = c.infoSlot(ctx, slotWord(table, slots)); len(slots) > 1 && isInvalidArgument(err) {
		c.singly.Store(true)
		seen, err = c.slotsSingly(ctx, table, slots)
	}
	if err != nil {
		return nil, err
	}
	by := make(map[int]Slot, len(seen))
	for _, s := range seen {
		if s.table == table {
			by[s.ID] = s.Slot
		}
	}
	all := make([]Slot, len(slots))
	for i, id := range slots {
		all[i] = by[id]
		all[i].ID = id
	}
	return all, nil
}

// HeldSlots gives all slots of a table that the instance holds, in ascending order.
func (c *Client) HeldSlots(ctx context.Context, table int) ([]Slot, error) {
	seen, err := c.infoSlot(ctx)
	if err != nil {
		return nil, err
	}
	var held []Slot
	for _, s := range seen {
		if s.table == table {
			held = append(held, s.Slot)
		}
	}
	slices.SortFunc(held, func(a, b Slot) int { return cmp.Compare(a.ID, b.ID) })
	return held, nil
}

func (c *Client) infoSlot(ctx context.Context, which ...string) ([]tableSlot, error) {
	args := append([]string{"PKCLUSTER", "INFO", "slot"}, which...)
	text, err := c.text(ctx, args...)
	if err != nil {
		return nil, err
	}
	return c.readSlots(args, text)
}

func (c *Client) readSlots(args []string, text string) ([]tableSlot, error) {
	slots, err := parseSlots(text)
	if err != nil {
		return nil, steps.Errorf("reply", "%s on %s: %w", redis.Line(args), c.Addr(), err)
	}
	return slots, nil
}

// slotsSingly asks for each slot by itself, in one round trip: 3.2.9 knows no groups of slots here.
func (c *Client) slotsSingly(ctx context.Context, table int, slots schema.Slots) ([]tableSlot, error) {
	cmds := make([][]string, len(slots))
	for i, id := range slots {
		cmds[i] = []string{"PKCLUSTER", "INFO", "slot", slotWord(table, schema.Slots{id})}
	}
	replies, err := c.resp.Read(ctx, cmds...)
	if err != nil {
		return nil, judge(err)
	}
	var all []tableSlot
	for i, r := range replies {
		text, err := r.Text()
		if err != nil {
			return nil, judge(err)
		}
		slots, err := c.readSlots(cmds[i], text)
		if err != nil {
			return nil, err
		}
		all = append(all, slots...)
	}
	return all, nil
}

// slotWord names slots as pkcluster info wants them: "0-3,8", "db1:0-3,8".
func slotWord(table int, slots schema.Slots) string {
	if table == 0 {
		return SlotGroup(slots)
	}
	return fmt.Sprintf("db%d:%s", table, SlotGroup(slots))
}

// SlotGroup writes slots as Pika does: "0-3,8,10".
func SlotGroup(slots schema.Slots) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(slots)))
	var b strings.Builder
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(sorted[i]))
		if j > i {
			fmt.Fprintf(&b, "-%d", sorted[j])
		}
		i = j + 1
	}
	return b.String()
}
