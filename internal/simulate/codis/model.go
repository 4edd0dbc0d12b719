package codis

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
)

// SlotCount is the number of slots of every product.
const SlotCount = 1024

// SlotMapping is a slot as the coordinator stores it: where it belongs and what is being done to it.
type SlotMapping struct {
	ID      int        `json:"id"`
	GroupID int        `json:"group_id"` // 0 is offline
	Action  SlotAction `json:"action"`
}

// SlotAction is a migration of one slot; the zero value is none.
type SlotAction struct {
	Index    int    `json:"index,omitempty"`
	State    string `json:"state,omitempty"`
	TargetID int    `json:"target_id,omitempty"`
}

// The states of a slot's action, in their order; a server's action and a group's promotion use some of them.
const (
	idle      = ""
	pending   = "pending"
	preparing = "preparing"
	prepared  = "prepared"
	migrating = "migrating"
	finished  = "finished"
	syncing   = "syncing"
)

// Slot is a slot as a proxy routes it: what a fillslots carries and /proxy/slots shows.
type Slot struct {
	ID                 int        `json:"id"`
	Locked             bool       `json:"locked,omitempty"`
	BackendAddr        string     `json:"backend_addr,omitempty"`
	BackendAddrGroupID int        `json:"backend_addr_group_id,omitempty"`
	MigrateFrom        string     `json:"migrate_from,omitempty"`
	MigrateFromGroupID int        `json:"migrate_from_group_id,omitempty"`
	ForwardMethod      int        `json:"forward_method,omitempty"` // 0 sync, 1 semi-async
	ReplicaGroups      [][]string `json:"replica_groups,omitempty"`
}

// Group is a master, the first of its servers, and the others.
type Group struct {
	ID        int       `json:"id"`
	Servers   []*Server `json:"servers"`
	Promoting Promotion `json:"promoting"`
	OutOfSync bool      `json:"out_of_sync"`
}

// Promotion is the exchange of a group's master; the zero value is none.
type Promotion struct {
	Index int    `json:"index,omitempty"`
	State string `json:"state,omitempty"`
}

// Server is one member of a group.
type Server struct {
	Addr         string    `json:"server"`
	Datacenter   string    `json:"datacenter"`
	Action       Promotion `json:"action"`
	ReplicaGroup bool      `json:"replica_group"`
}

func (g *Group) clone() *Group {
	c := *g
	c.Servers = make([]*Server, len(g.Servers))
	for i, s := range g.Servers {
		s := *s
		c.Servers[i] = &s
	}
	return &c
}

// ProxyModel is a proxy as it describes itself, and as the coordinator knows it.
type ProxyModel struct {
	ID          int    `json:"id,omitempty"`
	Token       string `json:"token"`
	StartTime   string `json:"start_time"`
	AdminAddr   string `json:"admin_addr"`
	ProtoType   string `json:"proto_type"`
	ProxyAddr   string `json:"proxy_addr"`
	JodisPath   string `json:"jodis_path,omitempty"`
	ProductName string `json:"product_name"`
	PID         int    `json:"pid"`
	PWD         string `json:"pwd"`
	Sys         string `json:"sys"`
	Hostname    string `json:"hostname"`
	Datacenter  string `json:"datacenter"`
}

type dashboardModel struct {
	Token       string `json:"token"`
	StartTime   string `json:"start_time"`
	AdminAddr   string `json:"admin_addr"`
	ProductName string `json:"product_name"`
	PID         int    `json:"pid"`
	PWD         string `json:"pwd"`
	Sys         string `json:"sys"`
}

type sentinels struct {
	Servers   []string `json:"servers,omitempty"`
	OutOfSync bool     `json:"out_of_sync"`
}

// overview is what GET /topom and GET /proxy answer.
type overview struct {
	Version string `json:"version"`
	Compile string `json:"compile"`
	Config  any    `json:"config,omitempty"`
	Model   any    `json:"model,omitempty"`
	Stats   any    `json:"stats,omitempty"`
	Slots   []Slot `json:"slots,omitempty"`
}

const (
	release  = "2017-12-28 13:21:33 +0000 @9fde2809cca131e3da1a7e0920ea151029301fb4 @3.2.2"
	compiled = "2017-12-28 13:30:00 +0000 by go version go1.9.2 linux/amd64"
	workdir  = "/data/codis"
	uname    = "Linux host 6.1.0 #1 SMP PREEMPT_DYNAMIC @0 x86_64 GNU/Linux"
	hostname = "host"
)

// encode gives JSON as Codis writes it, in the coordinator as on the wire: four blanks of indentation, < > & escaped.
func encode(v any) []byte {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		panic(err) // only a value of this package that is no JSON
	}
	return b
}

// byID gives the values of a map ordered by a number that they carry.
func byID[K comparable, V any](m map[K]V, id func(V) int) []V {
	return slices.SortedFunc(maps.Values(m), func(a, b V) int { return cmp.Compare(id(a), id(b)) })
}
