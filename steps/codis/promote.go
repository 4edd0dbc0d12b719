package codis

import (
	"context"
	"fmt"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type promoteIn struct {
	Group      int         `yaml:"group,required" doc:"Id of the group." min:"1" max:"9999"`
	Addr       schema.Addr `yaml:"addr,required" doc:"Address of the replica, as the group has it."`
	MaxLag     schema.Size `yaml:"max_lag" doc:"Most bytes of the master's replication stream that the replica may lack when it is looked at. A lag that is not known is more than any." default:"0"`
	MasterDown bool        `yaml:"master_down" doc:"The master is gone for good: its lag is not asked, but it must not answer." default:"false"`
	Unchecked  bool        `yaml:"unchecked" doc:"Do not look at the replica's replication. For servers whose INFO does not tell it, such as Pika in sharding mode, once other steps have made sure of it (pika.slot-info) and have detached it." default:"false"`
}

type promoteOut struct {
	Group   int      `yaml:"group" doc:"Id of the group."`
	Master  string   `yaml:"master" doc:"Address of the master, by the dashboard and every proxy."`
	Servers []string `yaml:"servers" doc:"Addresses of the group's servers, the master first."`
}

func promote() *steps.Kind[promoteIn, promoteOut] {
	return &steps.Kind[promoteIn, promoteOut]{
		Name:       "codis.promote",
		Doc:        "Makes a replica the master of its group. Codis holds the group's slots on every proxy, makes it the first server, sends it SLAVEOF NO ONE, and opens the slots towards it. Sends PUT group/promote, and asks the servers for INFO.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: fail_over, uses: codis.promote, target: codis1, with: {group: 1, addr: "10.0.0.2:6379"}}`,
		Pitfalls: []string{
			"Codis does not wait for the replica: what the master had acknowledged and the replica had not got is gone. Pause writes or hold the slots first where none may be lost; max_lag bounds the loss only at the moment of the look.",
			"The old master goes to the end of the group and stays a writable master of its own that nobody replicates to: make it a replica of the new one, which throws its last writes away, or take it out.",
			"Codis looks at a counter that is 0 between two rounds of a migration, so it promotes in the middle of one: it is refused here while any slot of any group has an action.",
			"A failure of SLAVEOF NO ONE is logged and not answered (Pika lacks the MULTI it is sent in): a new master that still says slave fails the step.",
			"One registered proxy that does not answer leaves the promotion half done (preparing), and the group refuses everything until it is repeated: all proxies are asked first. Doing it again goes on where it stopped.",
		},
		Valid: func(in promoteIn, _ func(string) bool) []steps.Problem {
			if in.Unchecked && in.MaxLag > 0 {
				return []steps.Problem{{Input: "max_lag", Message: "means nothing with unchecked: true"}}
			}
			return nil
		},
		Check: checkPromote,
		Plan: func(ctx context.Context, v *steps.View, in promoteIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{line(v, "group/promote", groupWord(in.Group), string(in.Addr))}, Pause: "5s"}
			if v == nil {
				return change, nil
			}
			_, stats, err := look(ctx, *v)
			if err != nil {
				return steps.Change{}, err
			}
			g, _ := stats.GroupByID(in.Group)
			change.Lines[0].From, change.Lines[0].To = g.Master(), string(in.Addr)
			return change, nil
		},
		Probe:  probePromote,
		Apply:  applyPromote,
		NoUndo: "the old master has missed what was written to the new one: make it a replica first, then promote it with a step of its own",
	}
}

// promotingTo tells that the group's unfinished promotion is that of this server. Once Codis has put it
// first, the state says finished and the index is gone.
func (g Group) promotingTo(addr string) bool {
	at := g.Index(addr)
	return g.Promoting.State != "" && at >= 0 && at == g.Promoting.Index
}

func checkPromote(ctx context.Context, v steps.View, in promoteIn) error {
	c, stats, err := look(ctx, v)
	if err != nil {
		return err
	}
	addr := string(in.Addr)
	what := fmt.Sprintf("promote %s in group %d", addr, in.Group)
	g, err := stats.needGroup(in.Group)
	switch {
	case err != nil:
		return err
	case g.Index(addr) < 0:
		return steps.Precondition("%s: it is not a server of the group (%v)", what, g.addrs())
	case g.Promoting.State != "" && !g.promotingTo(addr):
		return steps.Precondition("%s: the promotion of another server has not ended (%s)", what, g.Promoting.State)
	}
	if err := stats.idle(allSlots(), what); err != nil {
		return err
	}
	routings, err := c.allRoutings(ctx, stats.Proxy.Models)
	if err != nil {
		return err
	}
	if g.Promoting.State != "" {
		return nil // it has begun: it holds the slots itself, and the servers are no longer what they were
	}
	if err := notHeld(routings, stats.slotsOf(g.ID), what); err != nil {
		return err
	}
	if in.Unchecked || g.Index(addr) == 0 {
		return nil
	}
	return c.caughtUp(ctx, what, g.Master(), in)
}

// caughtUp refuses a replica that does not follow the master, or lacks more than allowed. The
// master is asked first: the replica, asked after it, then has at least what is compared.
func (c *Client) caughtUp(ctx context.Context, what, masterAddr string, in promoteIn) error {
	master, err := c.serverInfo(ctx, masterAddr)
	switch {
	case err == nil && in.MasterDown:
		return steps.Precondition("%s: the master %s answers, though master_down is given", what, masterAddr).
			WithHint("stop it, or leave out master_down")
	case err != nil && (!in.MasterDown || ctx.Err() != nil):
		return fmt.Errorf("%s: what the master has written is not known: %w", what, err)
	}
	replica, err := c.serverInfo(ctx, string(in.Addr))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case in.MasterDown && replica.Role == "master":
		return nil // detached by hand, as one does
	case replica.Role != "slave" || replica.Master != masterAddr:
		return steps.Precondition("%s: it does not follow the master %s: its role is %s, its master %q", what, masterAddr, replica.Role, replica.Master).
			WithHint("where INFO does not tell who follows whom (Pika in sharding mode), make sure by other steps and give unchecked: true")
	case in.MasterDown:
		return nil
	case replica.Link != "up" || replica.Syncing:
		return steps.Precondition("%s: its link to the master is %s (full sync under way: %t)", what, replica.Link, replica.Syncing)
	}
	lag, known := behind(master, replica)
	switch {
	case !known:
		return steps.Precondition("%s: how far it is behind %s is not known: one of them shows no offset", what, masterAddr).
			WithHint("make sure by other steps and give unchecked: true")
	case lag > int64(in.MaxLag):
		return steps.Precondition("%s: it lacks %d bytes of what %s has written, more than max_lag (%d)", what, lag, masterAddr, int64(in.MaxLag)).
			WithHint("pause the writes and wait until it has caught up (redis.info)")
	}
	return nil
}

// behind is how many bytes of its master's stream a replica lacks.
func behind(master, replica redis.Info) (int64, bool) {
	if master.Offset == nil {
		return 0, false
	}
	if replica.Offset != nil {
		return max(*master.Offset-*replica.Offset, 0), true
	}
	return 0, false
}

func probePromote(ctx context.Context, v steps.View, in promoteIn) (steps.State, promoteOut, error) {
	c, stats, err := look(ctx, v)
	if err != nil {
		return steps.Unclear, promoteOut{}, err
	}
	g, _ := stats.GroupByID(in.Group)
	switch {
	case g.promotingTo(string(in.Addr)):
		return steps.Partial, promoteOut{}, nil
	case g.Master() != string(in.Addr) || g.Promoting.State != "":
		return steps.Untouched, promoteOut{}, nil
	}
	served, _, err := c.served(ctx, stats, stats.slotsOf(g.ID), g.Master())
	if err != nil {
		return steps.Unclear, promoteOut{}, err
	}
	if !served {
		return steps.Partial, promoteOut{}, nil
	}
	return steps.Done, promoteOut{Group: g.ID, Master: g.Master(), Servers: g.addrs()}, nil
}

func applyPromote(ctx context.Context, s steps.Session, in promoteIn) (promoteOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return promoteOut{}, err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return promoteOut{}, err
	}
	if err := stats.idle(allSlots(), fmt.Sprintf("promote %s in group %d", in.Addr, in.Group)); err != nil {
		return promoteOut{}, err
	}
	g, _ := stats.GroupByID(in.Group)
	if g.Master() == string(in.Addr) && g.Promoting.State == "" { // it is over, and a proxy may have missed the end of it
		err = c.Put(ctx, "group/resync", number(in.Group))
	} else {
		err = c.Put(ctx, "group/promote", number(in.Group), string(in.Addr))
	}
	if err != nil {
		return promoteOut{}, promoteFailed(err)
	}
	out, err := c.promoted(ctx, in)
	return out, afterwards(err)
}

// promoteFailed: whatever proxy did not take the change, the group is under promotion by then.
func promoteFailed(err error) error {
	e := *steps.Classify(err)
	if e.Unknown {
		e.Hint = "the group may be under promotion, its slots held on the proxies that answered: bring the proxy back (same ports) or take it out with force, and promote the same server again"
	}
	return &e
}

// promoted makes sure of what Codis does not: the new master is one, and every proxy sends clients there.
func (c *Client) promoted(ctx context.Context, in promoteIn) (promoteOut, error) {
	addr := string(in.Addr)
	what := fmt.Sprintf("promote %s in group %d", addr, in.Group)
	stats, err := c.Stats(ctx)
	if err != nil {
		return promoteOut{}, err
	}
	g, _ := stats.GroupByID(in.Group)
	if g.Master() != addr || g.Promoting.State != "" {
		return promoteOut{}, steps.Errorf("conflict", "%s: Codis has said OK, and the master is %s (promotion: %q)", what, g.Master(), g.Promoting.State)
	}
	served, why, err := c.served(ctx, stats, stats.slotsOf(g.ID), addr)
	if err != nil {
		return promoteOut{}, err
	}
	if !served {
		return promoteOut{}, steps.Errorf("conflict", "%s: %s", what, why)
	}
	i, err := c.serverInfo(ctx, addr)
	if err != nil {
		return promoteOut{}, fmt.Errorf("%s: whether it takes writes is not known: %w", what, err)
	}
	if i.Role == "slave" && !in.Unchecked {
		return promoteOut{}, steps.Errorf("readonly", "%s: clients are sent to it, and it still follows %s", what, i.Master).
			WithHint("Codis logs a failed SLAVEOF NO ONE and answers OK all the same: send it to %s now (redis.replicaof or pika.slaveof with none: true)", addr)
	}
	return promoteOut{Group: g.ID, Master: addr, Servers: g.addrs()}, nil
}
