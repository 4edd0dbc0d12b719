package pika

import (
	"context"
	"fmt"
	"slices"

	"runbook/schema"
	"runbook/steps"
)

type slotInfoIn struct {
	Slots   schema.Slots      `yaml:"slots,required" doc:"Slots to look at."`
	Master  schema.TargetName `yaml:"master" doc:"Pika target of the master, where it has another password than the follower. The master is found through the slots; this one is asked where its address is the one found."`
	Replica schema.TargetName `yaml:"replica" doc:"Pika target of a follower. The step's target is then the master of the slots."`
	Table   int               `yaml:"table" doc:"Number of the table; 0 is db0." default:"0"`
}

type slotInfoOut struct {
	Present      bool          `yaml:"present" doc:"The instance holds the slots, all of them."`
	Role         string        `yaml:"role" doc:"master, slave, or both for a slot that follows and is followed; empty where it is absent, mixed where the slots differ."`
	Master       string        `yaml:"master" doc:"IP:port that the slots follow; empty: nobody. mixed where they differ."`
	State        string        `yaml:"state" doc:"State of replication at the follower: kNoConnect, kTryConnect, kTryDBSync, kWaitDBSync, kWaitReply, kConnected, kError; empty: it follows nobody. mixed where the slots differ."`
	Connected    bool          `yaml:"connected" doc:"The follower says kConnected, in all slots. It does so too early, and for up to 20 s after its master has died: ask for in_sync, or for replica_state and lag as well."`
	InFullSync   bool          `yaml:"in_full_sync" doc:"The follower is in a full sync (kTryDBSync or kWaitDBSync) in any of the slots."`
	BinlogOffset string        `yaml:"binlog_offset" doc:"End of the target's own binlog: number of the file and offset in it, such as 0 163593. mixed where the slots differ."`
	MasterOffset string        `yaml:"master_offset" doc:"The same at the master; empty where it was not asked."`
	ReplicaState string        `yaml:"replica_state" doc:"The follower in its master's words: SlaveNotSync, SlaveDbSync, SlaveBinlogSync; empty: the master does not list it. mixed where the slots differ."`
	Lag          *int64        `yaml:"lag" doc:"Bytes of the binlog that the follower has not acknowledged, as its master counts; the largest of the slots. null where the master shows none for any of them: it lists the follower not, or not as SlaveBinlogSync, or could not be asked." min:"0"`
	Replicas     []slotReplica `yaml:"replicas" doc:"Those that follow the target in every one of the slots, with their worst state and largest lag."`
	InSync       bool          `yaml:"in_sync" doc:"In all slots: kConnected, listed by the master as SlaveBinlogSync, lag 0, and equal offsets. Under load that is so by luck alone, and it says that all was received, not that all was applied."`
	Problem      string        `yaml:"problem" doc:"What is wrong, for people: a side that could not be asked, a slot that is connected and not listed; empty where nothing is."`
	Items        []slotItem    `yaml:"items" doc:"The same for each slot."`
}

type slotItem struct {
	Slot         int           `yaml:"slot" doc:"Number of the slot."`
	Present      bool          `yaml:"present" doc:"The instance holds it."`
	Role         string        `yaml:"role" doc:"master, slave, both; empty where it is absent."`
	Master       string        `yaml:"master" doc:"IP:port that it follows; empty: nobody."`
	State        string        `yaml:"state" doc:"State of replication at the follower."`
	Connected    bool          `yaml:"connected" doc:"The follower says kConnected."`
	InFullSync   bool          `yaml:"in_full_sync" doc:"The follower is in a full sync."`
	BinlogOffset string        `yaml:"binlog_offset" doc:"End of the target's own binlog."`
	MasterOffset string        `yaml:"master_offset" doc:"End of the master's binlog; empty where it was not asked."`
	ReplicaState string        `yaml:"replica_state" doc:"The follower in its master's words; empty: not listed."`
	Lag          *int64        `yaml:"lag" doc:"Bytes not acknowledged; null where the master shows none." min:"0"`
	Replicas     []slotReplica `yaml:"replicas" doc:"Those that follow the target."`
	InSync       bool          `yaml:"in_sync" doc:"Connected, listed, lag 0, equal offsets."`
	Problem      string        `yaml:"problem" doc:"What is wrong, for people."`
}

type slotReplica struct {
	Addr  string `yaml:"addr" doc:"IP:port."`
	State string `yaml:"state" doc:"SlaveNotSync, SlaveDbSync or SlaveBinlogSync."`
	Lag   *int64 `yaml:"lag" doc:"Bytes not acknowledged; null where none is shown." min:"0"`
}

func slotInfo() *steps.Kind[slotInfoIn, slotInfoOut] {
	return &steps.Kind[slotInfoIn, slotInfoOut]{
		Name: "pika.slot-info",
		Doc: "Tells how slots of an instance in mode sharding replicate, from both sides: the step's target is the follower, and the master is found through its slots; or it is the master, and replica names the follower. " +
			"Sends PKCLUSTER INFO slot once to each side, for all slots together (3.2.9: once a slot, in one round trip). Of several slots the outputs are the worst of all.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: caught_up, uses: pika.slot-info, target: pika5, with: {slots: "1"}, wait-until: connected && replica_state == "SlaveBinlogSync" && lag < 65536, every: 1s, stable: 5s, timeout: 6h}`,
		Pitfalls: []string{
			"A lag that the master does not show is null, never 0: it shows none during a full sync, and none of a follower it has dropped.",
			"A full sync has ended when the follower is kConnected, its master lists it as SlaveBinlogSync, and shows a lag; the follower's own state goes back to kTryConnect in between, and is kConnected before the master agrees.",
			"lag 0 under load is luck, and says that all was acknowledged: hold the writers, and ask for in_sync several times.",
			"A follower may say kConnected for ever without data, after it was attached too early, or without force to a master whose binlog is not complete: its master does not list it, and problem says so.",
			"INFO replication says nothing of single slots: one that is detached makes the whole instance look like a master without replicas.",
			"The master lists a follower by the address that it has itself: the target's addr must be the same text.",
		},
		Valid: func(in slotInfoIn, unknown func(string) bool) []steps.Problem {
			p := validSlots(in.Slots, in.Table, unknown)
			if in.Master != "" && in.Replica != "" {
				p = append(p, steps.Problem{Input: "replica", Message: "with replica the step's target is the master: master means nothing"})
			}
			return p
		},
		Read: readSlotInfo,
	}
}

func readSlotInfo(ctx context.Context, v steps.View, in slotInfoIn) (slotInfoOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return slotInfoOut{}, err
	}
	own, err := c.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return slotInfoOut{}, err
	}
	items := make([]slotItem, len(own))
	for i, s := range own {
		items[i] = slotItem{Slot: s.ID, Present: s.Present, Role: s.Role(), Master: s.Master, Replicas: []slotReplica{}}
		if s.Present {
			items[i].BinlogOffset = s.Offset.String()
		} else {
			items[i].Problem = "absent"
		}
		for _, r := range s.Replicas {
			items[i].Replicas = append(items[i].Replicas, slotReplica{r.Addr, r.Status, r.Lag})
		}
	}
	if in.Replica != "" {
		err = in.withReplica(ctx, v, own, items)
	} else {
		err = in.withMasters(ctx, v, c, own, items)
	}
	if err != nil {
		return slotInfoOut{}, err
	}
	return worst(items), nil
}

// withReplica looks at the slots from their master's side, the target's, and asks the follower named.
func (in slotInfoIn) withReplica(ctx context.Context, v steps.View, own []Slot, items []slotItem) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	r, err := view(ctx, v, in.Replica)
	if err != nil {
		return err
	}
	theirs, err := r.TableSlots(ctx, in.Table, in.Slots)
	if err != nil {
		return err
	}
	for i, s := range own {
		items[i].relate(theirs[i], r.Addr(), s, c.Addr())
	}
	return nil
}

// withMasters looks at the slots from the follower's side, the target's, and asks each master that they follow once. One that
// does not answer leaves what it would have said unknown.
func (in slotInfoIn) withMasters(ctx context.Context, v steps.View, c *Client, own []Slot, items []slotItem) error {
	follow := map[string][]int{}
	for i, s := range own {
		if s.Follows() {
			follow[s.Master] = append(follow[s.Master], i)
		} else if s.Present {
			items[i].Lag, items[i].MasterOffset = largestLag(s.Replicas), s.Offset.String()
		}
	}
	for addr, at := range follow {
		slots := make(schema.Slots, len(at))
		for j, i := range at {
			slots[j] = own[i].ID
		}
		masters, err := in.askMaster(ctx, v, c, addr, slots)
		if ctx.Err() != nil {
			return err
		}
		for j, i := range at {
			if err != nil {
				items[i].relate(own[i], c.Addr(), Slot{ID: own[i].ID}, addr)
				items[i].MasterOffset, items[i].Problem = "", "the master could not be asked: "+err.Error()
				continue
			}
			items[i].relate(own[i], c.Addr(), masters[j], addr)
		}
	}
	return nil
}

func (in slotInfoIn) askMaster(ctx context.Context, v steps.View, c *Client, addr string, slots schema.Slots) ([]Slot, error) {
	if in.Master != "" {
		m, err := view(ctx, v, in.Master)
		if err != nil {
			return nil, err
		}
		if m.Addr() == addr {
			return m.TableSlots(ctx, in.Table, slots)
		}
	}
	m := c.Beside(addr)
	defer func() { _ = m.Close() }()
	return m.TableSlots(ctx, in.Table, slots)
}

// relate fills in what the two sides of a slot say of each other.
func (it *slotItem) relate(follower Slot, followerAddr string, master Slot, masterAddr string) {
	if master.Present {
		it.MasterOffset = master.Offset.String()
	}
	if follower.Master != masterAddr {
		it.Problem = followerAddr + " does not follow " + masterAddr
		return
	}
	it.State, it.Connected, it.InFullSync = follower.State, follower.State == StateConnected, follower.InFullSync()
	listed, ok := master.Replica(followerAddr)
	it.ReplicaState, it.Lag = listed.Status, listed.Lag
	it.InSync = it.Connected && listed.Status == BinlogSync && listed.Lag != nil && *listed.Lag == 0 && follower.Offset == master.Offset
	switch {
	case !master.Present:
		it.Problem = masterAddr + " does not hold the slot"
	case it.Connected && !ok:
		it.Problem = masterAddr + " does not list " + followerAddr + " as a replica, which says " + StateConnected + ": where that stays, the slot gets nothing; detach it and attach it again with force"
	case it.State == StateError:
		it.Problem = "the binlogs do not fit: attach it again with force"
	}
}

// largestLag is that of a master's replicas: known where there are some and each is in sync.
func largestLag(replicas []Replica) *int64 {
	var most *int64
	for _, r := range replicas {
		if r.Lag == nil {
			return nil
		}
		if most == nil || *r.Lag > *most {
			most = r.Lag
		}
	}
	return most
}

const mixed = "mixed"

// worst is what can be said of all slots together.
func worst(items []slotItem) slotInfoOut {
	first := items[0]
	out := slotInfoOut{
		Present: true, Connected: true, InSync: true, Items: items, Lag: first.Lag, Replicas: first.Replicas, Problem: first.problem(),
		Role: first.Role, Master: first.Master, State: first.State, ReplicaState: first.ReplicaState, BinlogOffset: first.BinlogOffset, MasterOffset: first.MasterOffset,
	}
	same := func(all *string, one string) {
		if *all != one {
			*all = mixed
		}
	}
	for _, it := range items {
		out.Present = out.Present && it.Present
		out.Connected = out.Connected && it.Connected
		out.InSync = out.InSync && it.InSync
		out.InFullSync = out.InFullSync || it.InFullSync
		same(&out.Role, it.Role)
		same(&out.Master, it.Master)
		same(&out.State, it.State)
		same(&out.ReplicaState, it.ReplicaState)
		same(&out.BinlogOffset, it.BinlogOffset)
		same(&out.MasterOffset, it.MasterOffset)
		if out.Problem == "" {
			out.Problem = it.problem()
		}
		if it.Lag == nil || out.Lag == nil {
			out.Lag = nil
		} else if *it.Lag > *out.Lag {
			out.Lag = it.Lag
		}
		out.Replicas = common(out.Replicas, it.Replicas)
	}
	return out
}

func (it slotItem) problem() string {
	if it.Problem == "" {
		return ""
	}
	return fmt.Sprintf("slot %d: %s", it.Slot, it.Problem)
}

// common gives the replicas of both lists, each with the worse of its two states.
func common(a, b []slotReplica) []slotReplica {
	both := []slotReplica{}
	for _, r := range a {
		i := slices.IndexFunc(b, func(o slotReplica) bool { return o.Addr == r.Addr })
		if i < 0 {
			continue
		}
		o := b[i]
		if r.State == BinlogSync {
			r.State = o.State
		}
		switch {
		case r.Lag == nil || o.Lag == nil:
			r.Lag = nil
		case *o.Lag > *r.Lag:
			r.Lag = o.Lag
		}
		both = append(both, r)
	}
	return both
}
