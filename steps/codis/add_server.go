package codis

import (
	"context"
	"fmt"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type addServerIn struct {
	Group      int         `yaml:"group,required" doc:"Id of the group." min:"1" max:"9999"`
	Addr       schema.Addr `yaml:"addr,required" doc:"Address of the server, IP:port, as the dashboard, the proxies and the other servers reach it."`
	Datacenter string      `yaml:"datacenter" doc:"Name of the server's data centre, for proxies that prefer replicas of their own." pattern:"[A-Za-z0-9._-]*"`
}

type addServerOut struct {
	Group  int    `yaml:"group" doc:"Id of the group."`
	Addr   string `yaml:"addr" doc:"Address of the server."`
	Master bool   `yaml:"master" doc:"It is the group's first server, which Codis takes for the master."`
}

// serverBefore is what putting a group's servers back needs.
type serverBefore struct {
	Member     bool   `json:"member"`
	Datacenter string `json:"datacenter,omitempty"`
}

func addServer() *steps.Kind[addServerIn, addServerOut] {
	return &steps.Kind[addServerIn, addServerOut]{
		Name:       "codis.add-server",
		Doc:        "Adds a server to a group, after the servers it has. Asks the server for INFO and SLOTSINFO first, and sends PUT group/add.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: join, uses: codis.add-server, target: codis1, with: {group: 3, addr: "10.0.0.5:9221"}}`,
		Pitfalls: []string{
			"The first server of a group is its master, whatever the server itself thinks; one that follows another server is refused as the first.",
			"Adding makes nobody a replica: replicate first and add afterwards. codis-ha, where it runs, takes a server that does not follow the group's master out within seconds and sends it SHUTDOWN: stop it before (codis.check-health with hosts looks for it).",
			"Codis keeps the address as it is written: localhost:6379 and 127.0.0.1:6379 count as two servers. IP addresses alone are taken, and a loopback address only where the dashboard has one too.",
			"A plain Redis, and a Pika in classic mode, know no SLOTSINFO and are refused; so is a server with another password than the product's product_auth. It is asked once: what stands at that address later is not looked at again.",
			"On Pika, SLOTSINFO starts a scan that counts keys, here and when the dashboard asks.",
		},
		Valid: func(in addServerIn, unknown func(string) bool) []steps.Problem {
			if why := badServerAddr(string(in.Addr)); why != "" && !unknown("addr") {
				return []steps.Problem{{Input: "addr", Message: why}}
			}
			return nil
		},
		Check: checkAddServer,
		Plan: func(ctx context.Context, v *steps.View, in addServerIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{line(v, in.request()...)}}
			if v == nil {
				return change, nil
			}
			_, stats, err := look(ctx, *v)
			if err != nil {
				return steps.Change{}, err
			}
			g, _ := stats.GroupByID(in.Group)
			change.Before = serverBefore{Member: g.Index(string(in.Addr)) >= 0}
			return change, nil
		},
		Probe: func(ctx context.Context, v steps.View, in addServerIn) (steps.State, addServerOut, error) {
			_, stats, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, addServerOut{}, err
			}
			g, _ := stats.GroupByID(in.Group)
			at := g.Index(string(in.Addr))
			if at < 0 {
				return steps.Untouched, addServerOut{}, nil
			}
			return steps.Done, addServerOut{Group: g.ID, Addr: string(in.Addr), Master: at == 0}, nil
		},
		Apply: applyAddServer,
		Undo: func(ctx context.Context, s steps.Session, in addServerIn, _ *addServerOut) error {
			var before serverBefore
			if has, err := s.Before(&before); err != nil || !has || before.Member {
				return err
			}
			c, err := session(ctx, s)
			if err != nil {
				return err
			}
			return c.removeServer(ctx, in.Group, string(in.Addr))
		},
		UndoPlan: func(in addServerIn) string {
			return line(nil, "group/del", groupWord(in.Group), string(in.Addr)).Command + ", unless a slot needs it"
		},
	}
}

func (in addServerIn) request() []string {
	words := []string{"group/add", groupWord(in.Group), string(in.Addr)}
	if in.Datacenter != "" {
		words = append(words, in.Datacenter)
	}
	return words
}

func checkAddServer(ctx context.Context, v steps.View, in addServerIn) error {
	c, stats, err := look(ctx, v)
	if err != nil {
		return err
	}
	addr := string(in.Addr)
	what := fmt.Sprintf("add %s to group %d", addr, in.Group)
	g, err := stats.needGroup(in.Group)
	if err != nil {
		return err
	}
	if g.Index(addr) >= 0 {
		return nil
	}
	for _, other := range stats.Group.Models {
		if other.Index(addr) >= 0 {
			return steps.Precondition("%s: it is a server of group %d", what, other.ID).WithHint("codis.remove-server takes it out there")
		}
	}
	if g.Promoting.State != "" {
		return steps.Precondition("%s: the group is being promoted (%s)", what, g.Promoting.State)
	}
	if m, err := c.Model(ctx); err != nil {
		return err
	} else if loopback(addr) && !loopback(m.AdminAddr) {
		return steps.Precondition("%s: to the dashboard at %s that address is its own machine, not the server's", what, m.AdminAddr)
	}
	i, err := c.serverInfo(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if len(g.Servers) == 0 && i.Role == "slave" {
		return steps.Precondition("%s: it would be the group's master, and follows %s", what, i.Master).
			WithHint("add its master first")
	}
	if _, err := c.keyCounts(ctx, addr); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func applyAddServer(ctx context.Context, s steps.Session, in addServerIn) (addServerOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return addServerOut{}, err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return addServerOut{}, err
	}
	g, err := stats.needGroup(in.Group)
	if err != nil {
		return addServerOut{}, err
	}
	at := g.Index(string(in.Addr))
	if at < 0 {
		if err := c.addServer(ctx, in.request()...); err != nil {
			return addServerOut{}, err
		}
		at = len(g.Servers)
	}
	return addServerOut{Group: in.Group, Addr: string(in.Addr), Master: at == 0}, nil
}

// addServer asks for it, and explains why the dashboard would not.
func (c *Client) addServer(ctx context.Context, request ...string) error {
	err := c.Put(ctx, request...)
	cause, ok := Cause(err)
	if !ok {
		return err
	}
	e := *steps.Classify(slotsRefused(request[2], err))
	if strings.HasPrefix(cause, "dial tcp") {
		e.Hint = "the dashboard does not reach " + request[2] + " from its machine"
	}
	return &e
}
