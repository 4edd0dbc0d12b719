package pika

import (
	"context"
	"strings"

	"runbook/steps"
)

type infoIn struct {
	Section string `yaml:"section" doc:"Section of INFO that fields holds, such as stats or all; the server's default sections where none is given. The other outputs do not depend on it."`
}

type infoOut struct {
	Release       string         `yaml:"release" doc:"Release of the server, such as 3.4.0."`
	Mode          string         `yaml:"mode" doc:"sharding or classic; releases up to 3.1 know classic alone."`
	Role          string         `yaml:"role" doc:"master, slave, both (a slave with replicas of its own) or double_master. In mode sharding this is slave only while all slots are connected to one master, and says nothing of single slots: ask pika.slot-info."`
	ReplState     *int64         `yaml:"repl_state" doc:"State of replication from the master as releases up to 3.0 number it; null where the server shows no number, as later ones do. The same number means another state in another release: compare repl_state_name."`
	ReplStateName string         `yaml:"repl_state_name" doc:"The state in one set of names for all releases: kNoConnect, kTryConnect, kTryDBSync, kWaitDBSync, kWaitReply, kConnected, kError; empty where the server follows nobody."`
	MasterAddr    string         `yaml:"master_addr" doc:"IP:port of the master followed; empty: nobody."`
	MasterLink    string         `yaml:"master_link" doc:"up or down; empty where it follows nobody."`
	DoubleMaster  *DoubleMaster  `yaml:"double_master" doc:"The peer of a 2.3 server that is configured as a double master; null where there is none."`
	Connected     int64          `yaml:"connected_replicas" doc:"Number of replicas. In mode sharding only those count that follow all slots." min:"0"`
	Replicas      []InfoReplica  `yaml:"replicas" doc:"The replicas as their master shows them."`
	ReadOnly      *bool          `yaml:"read_only" doc:"The server refuses writes (slave_read_only); null where it does not show it."`
	BinlogOffset  string         `yaml:"binlog_offset" doc:"End of the binlog: number of the file and offset in it; empty in mode sharding, where every slot has its own."`
	IsScanning    bool           `yaml:"is_scanning" doc:"The server counts its keys (pika.count-keys)."`
	IsSaving      bool           `yaml:"is_saving" doc:"A bgsave is under way, for a full sync or a backup."`
	DBSize        int64          `yaml:"db_size" doc:"Data on disk, bytes; compressed, so not to be compared with another instance's." min:"0"`
	LogSize       int64          `yaml:"log_size" doc:"Binlog on disk, bytes." min:"0"`
	PID           int64          `yaml:"pid" doc:"Number of its process, on its machine."`
	ServerID      int64          `yaml:"server_id" doc:"Its server-id, which double masters know each other by."`
	Fields        map[string]any `yaml:"fields" doc:"Every field of INFO by its name: a number or a text, or a map of these where the server writes name=value,name=value."`
}

func info() *steps.Kind[infoIn, infoOut] {
	return &steps.Kind[infoIn, infoOut]{
		Name:    "pika.info",
		Doc:     "Tells a server's release, mode, role and replication as a whole. Sends INFO and CONFIG GET instance-mode, and to releases before 3.0 INFO doublemaster.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: connected, uses: pika.info, target: pika2, wait-until: repl_state_name == "kConnected" && master_link == "up", every: 1s, timeout: 30m}`,
		Pitfalls: []string{
			"repl_state 3 is connected in 2.x, and would be waiting for a full sync in 3.1 and later: compare the name.",
			"After a full sync a 2.3 server goes from 4 back to 1 and 2 before it is connected: not 4 any more is not done.",
			"Connected and lag 0 say nothing of content: two double masters whose logs were removed are connected, and the data of one is missing on the other. Count keys, and compare samples.",
			"A double master that has given up shows role master and no peer in INFO replication: double_master.active is false then, and both sides take writes.",
			"In mode sharding one slot that is detached makes role master and connected_replicas 0: pika.slot-info tells of slots.",
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
	mode, err := c.Mode(ctx)
	if err != nil {
		return infoOut{}, err
	}
	if i.Release.Known() && !i.Release.atLeast(3, 0, 0) {
		double, err := c.Info(ctx, "doublemaster")
		if err != nil {
			return infoOut{}, err
		}
		i.DoubleMaster = double.DoubleMaster
	}
	out := infoOut{
		Release: i.Release.String(), Mode: mode, Role: i.Role, ReplState: i.StateCode, ReplStateName: i.State, MasterAddr: i.Master, MasterLink: i.Link,
		DoubleMaster: i.DoubleMaster, Connected: i.Connected, Replicas: i.Replicas, ReadOnly: i.ReadOnly, IsScanning: i.Scanning, IsSaving: i.Saving,
		DBSize: i.DBSize, LogSize: i.LogSize, PID: i.PID, ServerID: i.ServerID, Fields: i.Fields,
	}
	if out.Replicas == nil {
		out.Replicas = []InfoReplica{}
	}
	if i.Offset != nil {
		out.BinlogOffset = i.Offset.String()
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

// The modes of an instance.
const (
	Classic  = "classic"
	Sharding = "sharding"
)

// Mode tells how an instance runs. Releases without instance-mode are classic.
func (c *Client) Mode(ctx context.Context) (string, error) {
	mode, known, err := c.setting(ctx, "instance-mode")
	if err != nil || !known || mode == "" {
		return Classic, err
	}
	return strings.ToLower(mode), nil
}
