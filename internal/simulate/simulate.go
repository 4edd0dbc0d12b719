// Package simulate is the sandbox: a small world of simulated systems inside the process, in which a runbook can be seen
// to work before it meets production. A World is made from a Spec (the decoded world file beside a runbook), holds systems
// (packages redis, pika, codis, zookeeper, twemproxy; each has a file here that puts it into a world), hosts (package
// host) and a load with a ledger (package traffic, load.go), tells at the end whether the invariants hold (invariants.go),
// and is gone at Close.
//
// # Addresses
//
// A runbook says 127.0.0.1:6390; the world listens on a port that happens to be free. There are two consistent ways to
// bring them together, and everything that shows an address follows the one chosen:
//
//   - By default every system announces its real address. The caller replaces each target's address by Addr(name), once,
//     before the runbook is resolved; INFO, ROLE, slaveN, CONFIG GET port then agree with what the runbook says of its targets.
//   - With Options.KeepAddrs every system announces its declared address and nothing is replaced: plan and journal read as
//     in production. Clients must then connect through Dial, which knows both and refuses everything else.
//
// Under both, REPLICAOF and its like find a system by its declared and by its real address and show what they were given,
// as the real ones do; a host's ports and configuration files may say either number; Translate maps one to the other.
//
// What a system has at fixed distances from its port (Pika's rsync at +1000, its replication at +2000) it has there,
// counted from either number. Proxies of a Codis have no declared address: they announce their real ones.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/host"
	"runbook/internal/simulate/pika"
	"runbook/internal/simulate/redis"
)

// Spec is a world file.
type Spec struct {
	Version    int               `yaml:"version"`
	Systems    map[string]System `yaml:"systems"`
	Traffic    *Traffic          `yaml:"traffic"`
	Inputs     map[string]any    `yaml:"inputs"`
	Invariants []string          `yaml:"invariants"` // what must hold at the end; absent: all that can be checked in this world
	Commands   []host.Command    `yaml:"commands"`
	HTTP       []HTTP            `yaml:"http"`
}

// System is one simulated system; its name is that of the runbook's target, or of none. Which of the fields a kind has is
// said in its part of the table kinds.
type System struct {
	Kind   string `yaml:"kind"`
	Addr   string `yaml:"addr"`   // the declared address; Options.Addrs fills it from the runbook's targets
	Host   string `yaml:"host"`   // the host it runs on; every host without
	Absent bool   `yaml:"absent"` // the runbook creates it

	// of a redis and a pika
	Release   string            `yaml:"release"`
	Keys      int               `yaml:"keys"` // how many it begins with, of all types, some with a time to live
	ReplicaOf string            `yaml:"replica_of"`
	Password  string            `yaml:"password"`
	Config    map[string]string `yaml:"config"`
	FullSync  time.Duration     `yaml:"full_sync"`
	Lag       time.Duration     `yaml:"lag"`
	Maxmemory string            `yaml:"maxmemory"` // of a redis alone

	// Slots are those that a pika begins with, such as 0-511; the group that each slot of a codis belongs to, such as
	// {0-511: 1}; the redis or pika that each slot behind a twemproxy belongs to.
	Slots   any    `yaml:"slots"`
	SlotNum int    `yaml:"slot_num"` // how many slots a pika in sharding mode knows, or a twemproxy has servers for; 1024
	Mode    string `yaml:"mode"`     // of a pika: sharding or classic
	Down    bool   `yaml:"down"`     // of a pika that is a master: its process has died
	Behind  int    `yaml:"behind"`   // of a replica of one that is down: how many of its last writes it has not got

	// of a codis
	Product         string              `yaml:"product"`
	ProductAuth     string              `yaml:"product_auth"`
	MigrationMethod string              `yaml:"migration_method"`
	Proxies         int                 `yaml:"proxies"` // 1
	Groups          map[string][]string `yaml:"groups"`  // by number: the systems in it, its master first

	// of a twemproxy
	Pool    string `yaml:"pool"`    // the name of the pool that the world writes for slots
	File    string `yaml:"file"`    // its configuration, on its host
	Pidfile string `yaml:"pidfile"` //

	// of a host
	Files    map[string]string      `yaml:"files"` // ${NAME} in a text is the address of that system
	Ports    map[string]string      `yaml:"ports"` // held by something else: the process's name
	Binaries map[string]host.Binary `yaml:"binaries"`
	Disks    map[string]host.Disk   `yaml:"disks"`
}

// HTTP is a stub of a request.
type HTTP struct {
	Method  string            `yaml:"method"`
	URL     string            `yaml:"url"` // * stands for anything
	Status  int               `yaml:"status"`
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`
}

// Options are what the caller adds to a world file.
type Options struct {
	Clock     clock.Clock
	Addrs     map[string]string // the declared address of each target, by name; a Spec's own Addr wins
	KeepAddrs bool              // see the package comment
	Listens   map[string]string // where systems listen, by name, if that is free; the others where it happens to be
	ReadNode  func(ctx context.Context, system, node string) (string, error)
	Seed      uint64
}

// World is a running sandbox.
type World struct {
	spec    Spec
	opts    Options
	clock   clock.Clock
	network *redis.Network
	pikas   *pika.Network
	hosts   map[string]*host.Host
	systems map[string]*system // does not change after Start; what is in it may
	mu      sync.Mutex
}

// system is one system of the world. What it runs as, and where more of it listens, is behind the world's lock.
type system struct {
	name     string
	spec     System
	declared string
	actual   string

	run  running           // nil while absent
	pid  int               // of its process, where it is one of a host
	dir  string            // where its data lies
	more map[string]string // further addresses, declared and real, to real ones
}

// running is a system that is there; its process may be dead all the same.
type running interface {
	Alive() bool
	Close()
}

// kind says what a kind of system needs and does. The order of the table is the order in which systems start.
type kind struct {
	name   string
	fields []string // of System, besides kind; by their yaml names
	check  func(w *World, s *system) error
	start  func(ctx context.Context, w *World, s *system) error
	// settle waits until what depends on other systems is as the world file says.
	settle func(ctx context.Context, w *World, s *system) error
}

func kinds() []kind {
	return []kind{
		{name: "host", fields: []string{"files", "ports", "binaries", "disks"}, check: (*World).checkHost},
		{name: "zookeeper", fields: []string{"addr"}, start: startZooKeeper},
		{
			name: "redis", check: (*World).checkRedis, start: startRedis, settle: settleRedis,
			fields: []string{"addr", "host", "absent", "release", "keys", "replica_of", "password", "config", "full_sync", "lag", "maxmemory"},
		},
		{
			name: "pika", check: (*World).checkPika, start: startPika, settle: settlePika,
			fields: []string{"addr", "host", "absent", "release", "keys", "replica_of", "password", "config", "full_sync", "lag", "slots", "slot_num", "mode", "down", "behind"},
		},
		{
			name: "codis", check: (*World).checkCodis, start: startCodis, settle: settleCodis,
			fields: []string{"addr", "product", "product_auth", "migration_method", "proxies", "groups", "slots"},
		},
		{
			name: "twemproxy", check: (*World).checkTwemproxy, start: startTwemproxy,
			fields: []string{"addr", "host", "absent", "pool", "slots", "slot_num", "file", "pidfile"},
		},
	}
}

// Kinds lists the kinds of systems that can be simulated.
func Kinds() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return names
}

// LocalHost is the host that a world always has: what a target `host {local: true}` acts on.
const LocalHost = "local"

// Start brings the world up: servers filled, replicas in step with their masters, slots assigned, no load yet (StartTraffic).
func Start(ctx context.Context, spec Spec, opts Options) (*World, error) {
	w := &World{
		spec: spec, opts: opts, clock: opts.Clock, network: redis.NewNetwork(), pikas: pika.NewNetwork(),
		hosts: map[string]*host.Host{}, systems: map[string]*system{},
	}
	if w.clock == nil {
		w.clock = clock.New(1)
	}
	if err := w.start(ctx); err != nil {
		w.Close()
		return nil, fmt.Errorf("world: %w", err)
	}
	return w, nil
}

func (w *World) start(ctx context.Context) error {
	if err := w.check(); err != nil {
		return err
	}
	if err := w.prepareAll(); err != nil {
		return err
	}
	for _, name := range append([]string{LocalHost}, w.names("host")...) {
		w.hosts[name] = w.newHost(name)
	}
	for _, k := range kinds() {
		for _, name := range w.names(k.name) {
			if s := w.systems[name]; k.start != nil && !s.spec.Absent {
				if err := k.start(ctx, w, s); err != nil {
					return fmt.Errorf("system %s: %w", name, err)
				}
			}
		}
		for _, name := range w.mastersFirst(k.name) {
			if s := w.systems[name]; k.settle != nil && s.run != nil {
				if err := w.settle(ctx, k, s); err != nil {
					return fmt.Errorf("system %s: %w", name, err)
				}
			}
		}
	}
	return w.takeDown(ctx)
}

// mastersFirst is names in an order in which no replica comes before its master.
func (w *World) mastersFirst(kind string) []string {
	names := w.names(kind)
	slices.SortStableFunc(names, func(a, b string) int { return len(w.masters(a)) - len(w.masters(b)) })
	return names
}

// masters are those that a system begins as a replica of, its own first; a circle is cut where it closes.
func (w *World) masters(name string) []string {
	var all []string
	for m := w.spec.Systems[name].ReplicaOf; m != "" && !slices.Contains(all, m); m = w.spec.Systems[m].ReplicaOf {
		all = append(all, m)
	}
	return all
}

// settleLimit is how long a system may take to be as the world file says, in real time.
const settleLimit = 30 * time.Second

func (w *World) settle(ctx context.Context, k kind, s *system) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleLimit, fmt.Errorf("it was not as the world file says within %s", settleLimit))
	defer cancel()
	return k.settle(ctx, w, s)
}

// until waits in the world's time for a condition of the beginning.
func (w *World) until(ctx context.Context, holds func() bool) error {
	for !holds() {
		if err := w.clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) names(kind string) []string {
	return slices.DeleteFunc(w.Names(), func(n string) bool { return w.spec.Systems[n].Kind != kind })
}

// check finds what cannot be, before anything is started.
func (w *World) check() error {
	if w.spec.Version != 1 {
		return fmt.Errorf("version %d is not known; this program knows 1", w.spec.Version)
	}
	table := kinds()
	for _, name := range w.Names() {
		s := &system{name: name, spec: w.spec.Systems[name], more: map[string]string{}}
		w.systems[name] = s
		i := slices.IndexFunc(table, func(k kind) bool { return k.name == s.spec.Kind })
		if i < 0 {
			return fmt.Errorf("system %s: no simulator for kind %q; there are %s", name, s.spec.Kind, strings.Join(Kinds(), ", "))
		}
		if extra := foreign(s.spec, table[i].fields); extra != "" {
			return fmt.Errorf("system %s: a %s has no %s", name, s.spec.Kind, extra)
		}
		if h := s.spec.Host; h != "" && w.spec.Systems[h].Kind != "host" && h != LocalHost {
			return fmt.Errorf("system %s: host names %q, which is no host of this world", name, h)
		}
	}
	for _, k := range table {
		for _, name := range w.names(k.name) {
			if k.check == nil {
				continue
			}
			if err := k.check(w, w.systems[name]); err != nil {
				return fmt.Errorf("system %s: %w", name, err)
			}
		}
	}
	return w.checkTraffic()
}

// checkReplica finds what is wrong with a system that begins as the replica of another of its kind.
func (w *World) checkReplica(s *system) error {
	if s.spec.ReplicaOf == "" {
		return nil
	}
	if m := w.spec.Systems[s.spec.ReplicaOf]; m.Kind != s.spec.Kind || s.spec.ReplicaOf == s.name {
		return fmt.Errorf("replica_of names %q, which is no other %s of this world", s.spec.ReplicaOf, s.spec.Kind)
	}
	if slices.Contains(w.masters(s.name), s.name) {
		return fmt.Errorf("replica_of %s goes round in a circle", s.spec.ReplicaOf)
	}
	if s.spec.Keys > 0 {
		return errors.New("a replica has its master's keys; take keys away, or replica_of")
	}
	return nil
}

// began notes what a system runs as, and which process of a host that is.
func (w *World) began(s *system, run running, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.run, s.pid = run, pid
}

// Host gives a host by name; LocalHost is always there.
func (w *World) Host(name string) *host.Host { return w.hosts[name] }

// Names lists the systems, in order.
func (w *World) Names() []string { return slices.Sorted(maps.Keys(w.spec.Systems)) }

// Kind is what a system is; "" for a name that the world has not.
func (w *World) Kind(name string) string { return w.spec.Systems[name].Kind }

// Clock is the world's time.
func (w *World) Clock() clock.Clock { return w.clock }

// as gives what a system runs as; the zero value while it is absent, or where it is of another kind.
func as[T running](w *World, name string) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	var none T
	if s := w.systems[name]; s != nil {
		if t, ok := s.run.(T); ok {
			return t
		}
	}
	return none
}

// HTTP answers a request from the stubs; ok is false where none fits, and the request must be refused.
func (w *World) HTTP(method, url string) (stub HTTP, ok bool) {
	for _, h := range w.spec.HTTP {
		if (h.Method == "" || strings.EqualFold(h.Method, method)) && host.Matches(h.URL, url) {
			if h.Status == 0 {
				h.Status = 200
			}
			return h, true
		}
	}
	return HTTP{}, false
}

// Close ends every system, those that lead clients to others first. Loads must have been stopped.
func (w *World) Close() {
	order := kinds()
	slices.Reverse(order)
	for _, k := range order {
		for _, name := range w.names(k.name) {
			s := w.systems[name]
			if s == nil {
				continue
			}
			w.mu.Lock()
			run := s.run
			w.mu.Unlock()
			if run != nil {
				run.Close()
			}
		}
	}
}
