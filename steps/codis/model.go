package codis

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SlotCount is the number of slots of a Codis product; it cannot be configured.
const SlotCount = 1024

// Model is a dashboard's identity, GET /topom/model. Another PID or StartTime means that
// the dashboard was restarted, which resets what only its memory held (interval, disabled).
type Model struct {
	Token     string `json:"token"`
	StartTime string `json:"start_time"`
	AdminAddr string `json:"admin_addr"`
	Product   string `json:"product_name"`
	PID       int    `json:"pid"`
	Dir       string `json:"pwd"`
	System    string `json:"sys"`
}

// SameProcess tells whether both are one run of one dashboard.
func (m Model) SameProcess(o Model) bool {
	return m.Token == o.Token && m.PID == o.PID && m.StartTime == o.StartTime
}

// Overview is what a dashboard tells of itself and of all others at once, GET /topom.
type Overview struct {
	Version string      `json:"version"`
	Compile string      `json:"compile"`
	Config  TopomConfig `json:"config"`
	Model   Model       `json:"model"`
	Stats   Stats       `json:"stats"`
}

// Release is the Codis release, such as 3.2.2: the word behind the last @ of the version. Empty
// where the binary was built without one.
func (o Overview) Release() string {
	i := strings.LastIndexByte(o.Version, '@')
	if i < 0 {
		return ""
	}
	return strings.TrimSpace(o.Version[i+1:])
}

// TopomConfig is what dashboard.toml says, as far as a step asks about it.
type TopomConfig struct {
	CoordinatorName string `json:"coordinator_name"`
	CoordinatorAddr string `json:"coordinator_addr"`
	AdminAddr       string `json:"admin_addr"`
	Product         string `json:"product_name"`
	// MigrationMethod is sync or semi-async. It is read at the dashboard's start; no request changes it.
	MigrationMethod string `json:"migration_method"`
}

// Stats is what the dashboard stores and what it last heard from servers and proxies, GET /topom/stats.
type Stats struct {
	Closed bool          `json:"closed"`
	Slots  []SlotMapping `json:"slots"`
	Group  struct {
		Models []Group               `json:"models"`
		Stats  map[string]RedisStats `json:"stats"` // by address, one to two seconds old
	} `json:"group"`
	Proxy struct {
		Models []ProxyModel           `json:"models"`
		Stats  map[string]ProxyReport `json:"stats"` // by token, about a second old
	} `json:"proxy"`
	SlotAction SlotAction `json:"slot_action"`
	Sentinels  struct {
		Model   Sentinel              `json:"model"`
		Stats   map[string]RedisStats `json:"stats"`
		Masters map[string]string     `json:"masters"` // by group id
	} `json:"sentinels"`
}

// GroupByID finds a group.
func (s Stats) GroupByID(id int) (Group, bool) {
	i := slices.IndexFunc(s.Group.Models, func(g Group) bool { return g.ID == id })
	if i < 0 {
		return Group{}, false
	}
	return s.Group.Models[i], true
}

// Mapping gives a slot's mapping as the dashboard stores it; one that was never assigned is offline.
func (s Stats) Mapping(slot int) SlotMapping {
	if slot >= 0 && slot < len(s.Slots) && s.Slots[slot].ID == slot {
		return s.Slots[slot]
	}
	for _, m := range s.Slots {
		if m.ID == slot {
			return m
		}
	}
	return SlotMapping{ID: slot}
}

// Actions gives the slots under an action: pending, or on their way to another group.
func (s Stats) Actions() []SlotMapping {
	var under []SlotMapping
	for _, m := range s.Slots {
		if !m.Idle() {
			under = append(under, m)
		}
	}
	return under
}

// SlotMapping is where a slot belongs: the stored truth, whatever the proxies do.
type SlotMapping struct {
	ID      int `json:"id"`
	GroupID int `json:"group_id"` // 0: offline
	Action  struct {
		Index    int    `json:"index,omitempty"`
		State    string `json:"state,omitempty"` // empty, pending, preparing, prepared, migrating, finished
		TargetID int    `json:"target_id,omitempty"`
	} `json:"action"`
}

// Idle tells that no action is queued or under way. It is the only sign: the dashboard's
// executor counter is zero between two rounds of a migration too.
func (m SlotMapping) Idle() bool { return m.Action.State == "" }

// In tells that the slot belongs to the group and nothing is moving it.
func (m SlotMapping) In(group int) bool { return m.GroupID == group && m.Idle() }

// SlotGroup is one line of an assignment: this slot to this group.
type SlotGroup struct {
	ID      int `json:"id"`
	GroupID int `json:"group_id"`
}

// SlotAction is the state of the dashboard's migrations.
type SlotAction struct {
	Interval int  `json:"interval"` // µs of pause after each round; memory only
	Disabled bool `json:"disabled"` // no migration goes on; memory only
	Progress struct {
		// Status is the last text that any slot's executor wrote, never cleared: it may be stale.
		Status string `json:"status"`
	} `json:"progress"`
	Executor int `json:"executor"`
}

// Group is a group as the dashboard stores it. Its first server is the master by definition.
type Group struct {
	ID        int      `json:"id"`
	Servers   []Server `json:"servers"`
	Promoting struct {
		Index int    `json:"index,omitempty"`
		State string `json:"state,omitempty"`
	} `json:"promoting"`
	OutOfSync bool `json:"out_of_sync"` // slots were pushed without a resync of the group; nothing resyncs by itself
}

// Master is the address of the group's first server; empty in a group without servers.
func (g Group) Master() string {
	if len(g.Servers) == 0 {
		return ""
	}
	return g.Servers[0].Server
}

// Index is the place of a server in the group; -1: it is not there.
func (g Group) Index(addr string) int {
	return slices.IndexFunc(g.Servers, func(s Server) bool { return s.Server == addr })
}

// Server is one server of a group.
type Server struct {
	Server     string `json:"server"` // address, as it was given when added
	Datacenter string `json:"datacenter"`
	Action     struct {
		Index int    `json:"index,omitempty"`
		State string `json:"state,omitempty"` // empty, pending, syncing, synced (SLAVEOF was accepted, no more), synced_failed
	} `json:"action"`
	ReplicaGroup bool `json:"replica_group"`
}

// RemoteError is a failure that the dashboard met when it asked somebody.
type RemoteError struct {
	Cause string `json:"Cause"`
}

func (e *RemoteError) Error() string { return hideXAuth(e.Cause) }

// RedisStats is what the dashboard heard from one server.
type RedisStats struct {
	Stats    map[string]string `json:"stats,omitempty"` // INFO, and maxmemory
	Error    *RemoteError      `json:"error,omitempty"`
	UnixTime int64             `json:"unixtime"` // 0: not asked yet
	Timeout  bool              `json:"timeout,omitempty"`
}

// ProxyReport is what the dashboard heard from one proxy.
type ProxyReport struct {
	Stats    *ProxyStats  `json:"stats,omitempty"`
	Error    *RemoteError `json:"error,omitempty"`
	UnixTime int64        `json:"unixtime"`
	Timeout  bool         `json:"timeout,omitempty"`
}

// Sentinel lists the sentinels that the dashboard uses.
type Sentinel struct {
	Servers   []string `json:"servers,omitempty"`
	OutOfSync bool     `json:"out_of_sync"`
}

// ProxyModel is a proxy's identity. The token stays the same over restarts; the start time does not.
type ProxyModel struct {
	ID         int    `json:"id,omitempty"` // the dashboard's; 0 where the proxy speaks of itself
	Token      string `json:"token"`
	StartTime  string `json:"start_time"`
	AdminAddr  string `json:"admin_addr"`
	ProtoType  string `json:"proto_type"`
	ProxyAddr  string `json:"proxy_addr"`
	JodisPath  string `json:"jodis_path,omitempty"`
	Product    string `json:"product_name"`
	PID        int    `json:"pid"`
	Dir        string `json:"pwd"`
	System     string `json:"sys"`
	Hostname   string `json:"hostname"`
	Datacenter string `json:"datacenter"`
}

// ProxyStats is what a proxy counts since its start or its last reset.
type ProxyStats struct {
	Online    bool     `json:"online"` // it has its slots and serves clients
	Closed    bool     `json:"closed"`
	Sentinels Sentinel `json:"sentinels"`
	Ops       struct {
		Total int64 `json:"total"`
		Fails int64 `json:"fails"` // answered with an error of the proxy's own
		Redis struct {
			Errors int64 `json:"errors"` // errors that servers answered
		} `json:"redis"`
		QPS int64 `json:"qps"`
	} `json:"ops"`
	Sessions struct {
		Total int64 `json:"total"`
		Alive int64 `json:"alive"`
	} `json:"sessions"`
}

// Slot is what a proxy does with a slot: the shape of GET /proxy/slots, of GET /topom/slots
// (what the dashboard would send) and of the body of fillslots. It keeps what this package
// does not know, so that a slot read from a proxy can be sent back with one field changed.
type Slot struct {
	ID     int  `json:"id"`
	Locked bool `json:"locked,omitempty"` // requests of the slot wait, without a limit
	// BackendAddr is the target's while the slot migrates: alone it does not say who has the data.
	BackendAddr        string     `json:"backend_addr,omitempty"`
	BackendAddrGroupID int        `json:"backend_addr_group_id,omitempty"`
	MigrateFrom        string     `json:"migrate_from,omitempty"`
	MigrateFromGroupID int        `json:"migrate_from_group_id,omitempty"`
	ForwardMethod      int        `json:"forward_method,omitempty"` // 0 sync, 1 semi-async
	ReplicaGroups      [][]string `json:"replica_groups,omitempty"`

	unknown map[string]json.RawMessage
}

// SameRoute tells whether clients of the slot are served alike: same lock, same backend,
// same source. The forward method may lag behind a change of the dashboard's method, and
// the order of replicas is each proxy's own.
func (s Slot) SameRoute(o Slot) bool {
	return s.Locked == o.Locked && s.BackendAddr == o.BackendAddr && s.MigrateFrom == o.MigrateFrom
}

// slotFields is Slot without its methods.
type slotFields Slot

var slotKeys = [...]string{"id", "locked", "backend_addr", "backend_addr_group_id", "migrate_from", "migrate_from_group_id", "forward_method", "replica_groups"}

// UnmarshalJSON reads a slot and keeps the fields it does not know.
func (s *Slot) UnmarshalJSON(data []byte) error {
	var known slotFields
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &known.unknown); err != nil {
		return err
	}
	for _, k := range slotKeys {
		delete(known.unknown, k)
	}
	if len(known.unknown) == 0 {
		known.unknown = nil
	}
	*s = Slot(known)
	return nil
}

// MarshalJSON gives the slot as it was read: known fields in Codis' order, then the others by name.
func (s Slot) MarshalJSON() ([]byte, error) {
	out, err := json.Marshal(slotFields(s))
	if err != nil || len(s.unknown) == 0 {
		return out, err
	}
	b := bytes.NewBuffer(out[:len(out)-1])
	for _, k := range slices.Sorted(maps.Keys(s.unknown)) {
		fmt.Fprintf(b, ",%q:%s", k, s.unknown[k])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// decodeSlots reads a list of slots. All fields being known is the rule, and the list is read
// while clients wait, so that is tried first; only a slot with more is looked at twice.
func decodeSlots(data []byte) ([]Slot, error) {
	var plain []slotFields
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&plain); err == nil {
		slots := make([]Slot, len(plain))
		for i := range plain {
			slots[i] = Slot(plain[i])
		}
		return slots, nil
	}
	var slots []Slot
	err := json.Unmarshal(data, &slots)
	return slots, err
}
