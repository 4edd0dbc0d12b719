package redis

import (
	"context"
	"time"

	"runbook/steps"
)

type infoIn struct {
	Section string `yaml:"section" doc:"Section of INFO that fields holds, such as commandstats or all; the server's default sections where none is given. The other outputs do not depend on it."`
}

type infoOut struct {
	Role       string         `yaml:"role" doc:"master or slave, in the server's word; sentinel."`
	Version    string         `yaml:"version" doc:"Version of the server; compatible servers show the Redis version they stand for, a Pika its own."`
	Connected  int64          `yaml:"connected_replicas" doc:"Number of replicas connected, those in a full sync included." min:"0"`
	MasterAddr string         `yaml:"master_addr" doc:"host:port of the master that a replica follows, as the replica was told; empty on a master."`
	MasterLink string         `yaml:"master_link" doc:"up or down; empty on a master."`
	Syncing    bool           `yaml:"syncing" doc:"A full sync from the master is under way."`
	Lag        *int64         `yaml:"lag" doc:"Bytes of the replication stream that are missing; null where that is not known. On a replica: what its master had written when it was asked and the replica, asked after it and again for up to 25 ms, has not processed; null when the link is down, a full sync is under way, the master does not answer with this target's credentials, or both do not share one history. On a master: the largest lag of its replicas; null when it has none or one is not online." min:"0"`
	Offset     *int64         `yaml:"offset" doc:"Offset in the replication stream, bytes: written by a master, processed by a replica; null where the server shows none." min:"0"`
	UsedMemory int64          `yaml:"used_memory" doc:"Memory in use for data and buffers, bytes." min:"0"`
	Keys       int64          `yaml:"keys,keys" doc:"Keys in all databases; expired ones that were not removed yet count. Of a Pika: what its last count has found (pika.count-keys counts)." min:"0"`
	Fields     map[string]any `yaml:"fields" doc:"Every field of INFO by its name: a number or a text, or a map of these where the server writes name=value,name=value (db0, slave0, cmdstat_get)."`
	Replicas   []Replica      `yaml:"replicas" doc:"The replicas as their master sees them."`
	RunID      string         `yaml:"run_id" doc:"Id of the server's process; another one after every restart."`
	Loading    bool           `yaml:"loading" doc:"The server is still loading its data."`
}

func info() *steps.Kind[infoIn, infoOut] {
	return &steps.Kind[infoIn, infoOut]{
		Name:    "redis.info",
		Doc:     "Tells a server's role, replication and size. Sends INFO; on a replica it asks the replica's master for INFO too, with the same credentials, because a replica cannot know how far its master is.",
		Effect:  steps.Read,
		On:      speaks(),
		Example: `{id: caught_up, uses: redis.info, target: redis1, wait-until: "lag == 0", every: 1s, stable: 5s, timeout: 10m}`,
		Pitfalls: []string{
			"A lag that is not known is null, never 0: a comparison with it does not hold, so a broken link cannot pass for a replica that has caught up.",
			"A replica acknowledges once a second, so the lag that a master shows of its replicas is up to a second old and rarely 0 under load; ask the replica.",
			"An offset counts what was processed, while clients may still be writing: lag 0 means that nothing written before the question is missing; the last write is there only once writes are paused.",
		},
		Read: readInfo,
	}
}

func readInfo(ctx context.Context, v steps.View, in infoIn) (infoOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return infoOut{}, err
	}
	i, err := c.Info(ctx)
	if err != nil {
		return infoOut{}, err
	}
	out := infoOut{
		Role: i.Role, Version: i.Version, Connected: i.Connected, MasterAddr: i.Master, MasterLink: i.Link, Syncing: i.Syncing,
		Offset: i.Offset, UsedMemory: i.Memory, Keys: i.Keys, Fields: i.Fields, Replicas: i.Replicas, RunID: i.RunID, Loading: i.Loading,
		Lag: i.Lag(),
	}
	if out.Replicas == nil {
		out.Replicas = []Replica{}
	}
	if i.Role == "slave" {
		out.Lag = replicaLag(ctx, v, c, i)
	}
	if in.Section != "" {
		section, err := c.Info(ctx, in.Section)
		if err != nil {
			return infoOut{}, err
		}
		out.Fields = section.Fields
	}
	return out, nil
}

// A replica under load is always a little behind, by the time that a write needs to reach
// it. It is asked again for so long before the rest counts as lag.
const (
	lagGrace = 25 * time.Millisecond
	lagPoll  = 5 * time.Millisecond
)

// replicaLag asks the master for its offset, and then the replica for its own: 0 says that
// all the master had written when it was asked has arrived. Asked the other way round, a
// master under load would always be ahead, and no replica would ever have caught up.
func replicaLag(ctx context.Context, v steps.View, c *Client, replica Info) *int64 {
	if replica.Link != "up" || replica.Syncing || replica.Offset == nil || replica.Master == "" {
		return nil
	}
	master := c.Beside(replica.Master)
	defer func() { _ = master.Close() }()
	m, err := master.Info(ctx, "replication")
	if err != nil {
		v.Log().DebugContext(ctx, "the replica's lag is not known", "replica", c.Addr(), "master", replica.Master, "error", err)
		return nil
	}
	if m.Offset == nil {
		return nil
	}
	for until := v.Now().Add(lagGrace); ; {
		now, err := c.Info(ctx, "replication")
		if err != nil || now.Offset == nil || now.Link != "up" || now.Syncing || now.Master != replica.Master || now.ReplID != m.ReplID {
			return nil
		}
		lag := max(*m.Offset-*now.Offset, 0)
		if lag == 0 || !v.Now().Before(until) || v.Sleep(ctx, lagPoll) != nil {
			return &lag
		}
	}
}
