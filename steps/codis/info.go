package codis

import (
	"context"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type infoIn struct{}

type infoOut struct {
	Release     string         `yaml:"release" doc:"Codis release of the dashboard, such as 3.2.2."`
	Method      string         `yaml:"method" doc:"migration_method: sync or semi-async. It is read at the dashboard's start; no request changes it."`
	Online      bool           `yaml:"online" doc:"The dashboard holds its lock and serves. While it does not, it tells product, admin_addr and started alone, and what it does not tell is empty or null."`
	Product     string         `yaml:"product" doc:"Name of the product."`
	AdminAddr   string         `yaml:"admin_addr" doc:"Address that the dashboard has registered."`
	Started     string         `yaml:"started" doc:"Start time of the dashboard's process, in its words; another one after every restart, which resets interval and disabled."`
	Coordinator string         `yaml:"coordinator" doc:"Kind of the coordinator: zookeeper, etcd or filesystem."`
	CoordAddr   string         `yaml:"coordinator_addr" doc:"Where the coordinator is, in the dashboard's words."`
	Groups      []groupOut     `yaml:"groups" doc:"The groups, by id."`
	Proxies     []proxyOut     `yaml:"proxies" doc:"The registered proxies, by id."`
	Slots       []slotRangeOut `yaml:"slots" doc:"Which slots belong to which group, by group; group 0 has those that are offline."`
	Actions     []actionOut    `yaml:"actions" doc:"Slots with a migration queued or under way, by slot. The list alone tells whether one is: the dashboard's own counter is 0 between two rounds."`
	Interval    *time.Duration `yaml:"interval" doc:"Pause after each round of a migration; null where it is not known." min:"0"`
	Disabled    *bool          `yaml:"disabled" doc:"Migrations are paused; null where it is not known."`
	OutOfSync   []int          `yaml:"out_of_sync" doc:"Ids of the groups whose slots were changed without a resync of the group since."`
}

type groupOut struct {
	ID        int         `yaml:"id" doc:"Id of the group."`
	Master    string      `yaml:"master" doc:"Address of the first server, which is the master by definition; empty in a group without servers."`
	Servers   []serverOut `yaml:"servers" doc:"The servers, the master first."`
	Slots     int         `yaml:"slots" doc:"Number of slots that belong to the group." min:"0"`
	Promoting string      `yaml:"promoting" doc:"State of a promotion that has not ended; empty where there is none."`
	OutOfSync bool        `yaml:"out_of_sync" doc:"Its slots were changed without a resync of the group since."`
}

type serverOut struct {
	Addr    string `yaml:"addr" doc:"Address, as it was added."`
	Role    string `yaml:"role" doc:"master or slave, as the server told the dashboard a second ago; empty where it did not."`
	Error   string `yaml:"error" doc:"Why the dashboard knows nothing of it; empty where it does."`
	Action  string `yaml:"action" doc:"State of the dashboard's sync action: pending, syncing, synced (SLAVEOF was accepted, no more than that), synced_failed; empty where there was none."`
	Replica bool   `yaml:"replica_reads" doc:"Clients' reads may go to it."`
}

type proxyOut struct {
	ID        int    `yaml:"id" doc:"Id that the dashboard has given."`
	Token     string `yaml:"token" doc:"Token, which stays the same over restarts."`
	AdminAddr string `yaml:"admin_addr" doc:"Address for the dashboard."`
	ProxyAddr string `yaml:"proxy_addr" doc:"Address for clients."`
	Online    bool   `yaml:"online" doc:"It serves clients, as it told the dashboard a second ago."`
	Error     string `yaml:"error" doc:"Why the dashboard knows nothing of it; empty where it does."`
}

type slotRangeOut struct {
	Group int    `yaml:"group" doc:"Id of the group; 0: offline."`
	Slots string `yaml:"slots" doc:"The slots, such as 0-511,513."`
	Count int    `yaml:"count" doc:"How many they are." min:"0"`
}

type actionOut struct {
	Slot   int    `yaml:"slot" doc:"The slot."`
	State  string `yaml:"state" doc:"pending, preparing, prepared, migrating or finished. preparing and finished are over in milliseconds: seen twice, a proxy does not take the change."`
	Group  int    `yaml:"group" doc:"Group that the slot belongs to."`
	Target int    `yaml:"target" doc:"Group that it goes to."`
}

func info() *steps.Kind[infoIn, infoOut] {
	return &steps.Kind[infoIn, infoOut]{
		Name:    "codis.info",
		Doc:     "Tells what a dashboard knows: groups, proxies, which slots belong where, and what is moving. Sends GET /topom, and GET /topom/model where the dashboard is not online.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: before, uses: codis.info, target: codis1}`,
		Pitfalls: []string{
			"The mapping is what the dashboard has stored; what clients are served is told by the proxies alone: ask codis.slot-info.",
			"What it tells of servers and proxies is one to two seconds old.",
			"Every request but the one for its identity waits for whatever the dashboard is doing: one hung proxy makes it silent for a minute and more.",
		},
		Read: readInfo,
	}
}

func readInfo(ctx context.Context, v steps.View, _ infoIn) (infoOut, error) {
	c, err := view(ctx, v)
	if err != nil {
		return infoOut{}, err
	}
	o, err := c.Overview(ctx)
	if cause, ok := Cause(err); ok && strings.Contains(cause, "is not online") {
		m, err := c.Model(ctx)
		return infoOut{
			Product: m.Product, AdminAddr: m.AdminAddr, Started: m.StartTime,
			Groups: []groupOut{}, Proxies: []proxyOut{}, Slots: []slotRangeOut{}, Actions: []actionOut{}, OutOfSync: []int{},
		}, err
	}
	if err != nil {
		return infoOut{}, err
	}
	interval := time.Duration(o.Stats.SlotAction.Interval) * time.Microsecond
	return infoOut{
		Release: o.Release(), Method: o.Config.MigrationMethod, Online: !o.Stats.Closed, Product: o.Model.Product,
		AdminAddr: o.Model.AdminAddr, Started: o.Model.StartTime, Coordinator: o.Config.CoordinatorName, CoordAddr: o.Config.CoordinatorAddr,
		Groups: groupsOf(o.Stats), Proxies: proxiesOf(o.Stats), Slots: rangesOf(o.Stats), Actions: actionsOf(o.Stats),
		Interval: &interval, Disabled: &o.Stats.SlotAction.Disabled, OutOfSync: outOfSync(o.Stats),
	}, nil
}

func groupsOf(s Stats) []groupOut {
	groups := []groupOut{}
	for _, g := range s.Group.Models {
		out := groupOut{ID: g.ID, Master: g.Master(), Servers: []serverOut{}, Promoting: g.Promoting.State, OutOfSync: g.OutOfSync}
		for _, m := range s.Slots {
			if m.GroupID == g.ID {
				out.Slots++
			}
		}
		for _, x := range g.Servers {
			heard := s.Group.Stats[x.Server]
			out.Servers = append(out.Servers, serverOut{Addr: x.Server, Role: heard.Stats["role"], Error: heard.why(), Action: x.Action.State, Replica: x.ReplicaGroup})
		}
		groups = append(groups, out)
	}
	slices.SortFunc(groups, func(a, b groupOut) int { return a.ID - b.ID })
	return groups
}

// why tells why nothing was heard; empty: something was.
func (r RedisStats) why() string { return silence(r.Error, r.Timeout, r.Stats != nil) }

// why tells why nothing was heard; empty: something was.
func (r ProxyReport) why() string { return silence(r.Error, r.Timeout, r.Stats != nil) }

func silence(err *RemoteError, timeout, heard bool) string {
	switch {
	case err != nil:
		return err.Error()
	case timeout:
		return "it did not answer in time"
	case !heard:
		return "it was not asked yet"
	}
	return ""
}

func proxiesOf(s Stats) []proxyOut {
	proxies := []proxyOut{}
	for _, m := range s.Proxy.Models {
		heard := s.Proxy.Stats[m.Token]
		proxies = append(proxies, proxyOut{
			ID: m.ID, Token: m.Token, AdminAddr: m.AdminAddr, ProxyAddr: m.ProxyAddr,
			Online: heard.Stats != nil && heard.Stats.Online && !heard.Stats.Closed, Error: heard.why(),
		})
	}
	slices.SortFunc(proxies, func(a, b proxyOut) int { return a.ID - b.ID })
	return proxies
}

func rangesOf(s Stats) []slotRangeOut {
	by := map[int]schema.Slots{}
	for id := range SlotCount {
		group := s.Mapping(id).GroupID
		by[group] = append(by[group], id)
	}
	ranges := []slotRangeOut{}
	for group, slots := range by {
		ranges = append(ranges, slotRangeOut{Group: group, Slots: slots.String(), Count: len(slots)})
	}
	slices.SortFunc(ranges, func(a, b slotRangeOut) int { return a.Group - b.Group })
	return ranges
}

func actionsOf(s Stats) []actionOut {
	actions := []actionOut{}
	for _, m := range s.Actions() {
		actions = append(actions, actionOut{Slot: m.ID, State: m.Action.State, Group: m.GroupID, Target: m.Action.TargetID})
	}
	return actions
}

func outOfSync(s Stats) []int {
	ids := []int{}
	for _, g := range s.Group.Models {
		if g.OutOfSync {
			ids = append(ids, g.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
