package codis

import (
	"context"
	"fmt"
	"slices"

	"runbook/schema"
	"runbook/steps"
)

type removeServerIn struct {
	Group int         `yaml:"group,required" doc:"Id of the group." min:"1" max:"9999"`
	Addr  schema.Addr `yaml:"addr,required" doc:"Address of the server, as the group has it."`
}

type removeServerOut struct {
	Group   int      `yaml:"group" doc:"Id of the group."`
	Servers []string `yaml:"servers" doc:"Addresses of the servers that are left, the master first."`
}

func removeServer() *steps.Kind[removeServerIn, removeServerOut] {
	return &steps.Kind[removeServerIn, removeServerOut]{
		Name:       "codis.remove-server",
		Doc:        "Takes a server out of a group: a replica, or the last server of a group without slots. The server itself is not touched. Sends PUT group/del.",
		Effect:     steps.Destroy,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: retire, uses: codis.remove-server, target: codis1, with: {group: 1, addr: "10.0.0.2:9221"}}`,
		Pitfalls: []string{
			"A master is refused while the group has another server or a slot: promote the other one, or move the slots.",
			"A server that a proxy still sends clients to (as backend, as source of a migration, for reads of replicas) is refused, whatever the dashboard thinks.",
			"The undo adds it as the last server; that it served reads of replicas is not brought back.",
		},
		Check: func(ctx context.Context, v steps.View, in removeServerIn) error {
			c, err := view(ctx, v)
			if err != nil {
				return err
			}
			_, err = c.removable(ctx, in.Group, string(in.Addr))
			return err
		},
		Plan: func(ctx context.Context, v *steps.View, in removeServerIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{line(v, "group/del", groupWord(in.Group), string(in.Addr))}}
			if v == nil {
				return change, nil
			}
			_, stats, err := look(ctx, *v)
			if err != nil {
				return steps.Change{}, err
			}
			g, _ := stats.GroupByID(in.Group)
			before := serverBefore{}
			if at := g.Index(string(in.Addr)); at >= 0 {
				before = serverBefore{Member: true, Datacenter: g.Servers[at].Datacenter}
			}
			change.Before = before
			return change, nil
		},
		Probe: func(ctx context.Context, v steps.View, in removeServerIn) (steps.State, removeServerOut, error) {
			_, stats, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, removeServerOut{}, err
			}
			g, _ := stats.GroupByID(in.Group)
			if g.Index(string(in.Addr)) >= 0 {
				return steps.Untouched, removeServerOut{}, nil
			}
			return steps.Done, removeServerOut{Group: in.Group, Servers: g.addrs()}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, in removeServerIn) (removeServerOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return removeServerOut{}, err
			}
			if err := c.removeServer(ctx, in.Group, string(in.Addr)); err != nil {
				return removeServerOut{}, err
			}
			stats, err := c.Stats(ctx)
			if err != nil {
				return removeServerOut{}, afterwards(err)
			}
			g, _ := stats.GroupByID(in.Group)
			if g.Index(string(in.Addr)) >= 0 {
				return removeServerOut{}, afterwards(steps.Errorf("conflict", "take %s out of group %d: it is there again", in.Addr, in.Group))
			}
			return removeServerOut{Group: in.Group, Servers: g.addrs()}, nil
		},
		Undo: func(ctx context.Context, s steps.Session, in removeServerIn, _ *removeServerOut) error {
			var before serverBefore
			if has, err := s.Before(&before); err != nil || !has || !before.Member {
				return err
			}
			_, err := applyAddServer(ctx, s, addServerIn{Group: in.Group, Addr: in.Addr, Datacenter: before.Datacenter})
			return err
		},
		UndoPlan: func(in removeServerIn) string {
			return line(nil, "group/add", groupWord(in.Group), string(in.Addr)).Command
		},
	}
}

// addrs are the addresses of the group's servers, the master first.
func (g Group) addrs() []string {
	addrs := make([]string, 0, len(g.Servers))
	for _, s := range g.Servers {
		addrs = append(addrs, s.Server)
	}
	return addrs
}

// removeServer takes a server out, or finds that it is gone.
func (c *Client) removeServer(ctx context.Context, group int, addr string) error {
	there, err := c.removable(ctx, group, addr)
	if err != nil || !there {
		return err
	}
	return c.Put(ctx, "group/del", number(group), addr)
}

// removable refuses a server that the group or a proxy needs; there is false where it is no member.
func (c *Client) removable(ctx context.Context, group int, addr string) (there bool, err error) {
	stats, err := c.Stats(ctx)
	if err != nil {
		return false, err
	}
	g, _ := stats.GroupByID(group)
	at := g.Index(addr)
	if at < 0 {
		return false, nil
	}
	what := fmt.Sprintf("take %s out of group %d", addr, group)
	if g.Promoting.State != "" {
		return true, steps.Precondition("%s: the group is being promoted (%s)", what, g.Promoting.State)
	}
	if slots := stats.slotsOf(group); at == 0 && len(slots) > 0 {
		return true, steps.Precondition("%s: it is the master, and slots %s belong to the group or go there", what, slots).
			WithHint("move the slots first")
	}
	if at == 0 && len(g.Servers) > 1 {
		return true, steps.Precondition("%s: it is the master, and the group has other servers", what).
			WithHint("take the replicas out first, or promote one (codis.promote)")
	}
	backends, err := c.SlotBackends(ctx, allSlots())
	if err != nil {
		return true, err
	}
	var slots schema.Slots
	for _, id := range allSlots() {
		if slices.Contains(backends[id], addr) {
			slots = append(slots, id)
		}
	}
	if len(slots) > 0 {
		return true, steps.Precondition("%s: clients of slots %s are sent to it", what, slots).
			WithHint("move the slots first; where it serves reads of replicas, turn that off and resync the group")
	}
	return true, nil
}
