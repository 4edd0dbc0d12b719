// Package simulate is the sandbox: a small world of simulated systems inside the process, in which a runbook can be seen
// to work before it meets production. A World is made from a Spec (the decoded world file beside a runbook), holds servers
// (package redis), hosts (package host) and a load with a ledger (package traffic), and is gone at Close.
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
// Under both, REPLICAOF finds a system by its declared and by its real address and shows what it was given, as the real
// one does; a host's ports and configuration files may say either number; Translate maps one to the other.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/host"
	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/traffic"
)

// Spec is a world file.
type Spec struct {
	Version    int               `yaml:"version"`
	Systems    map[string]System `yaml:"systems"`
	Traffic    *Traffic          `yaml:"traffic"`
	Inputs     map[string]any    `yaml:"inputs"`
	Invariants []string          `yaml:"invariants"` // what must hold at the end; absent: all of Invariants()
	Commands   []host.Command    `yaml:"commands"`
	HTTP       []HTTP            `yaml:"http"`
}

// System is one simulated system; its name is that of the runbook's target, or of none.
type System struct {
	Kind string `yaml:"kind"` // redis, host

	// of a redis
	Release   string            `yaml:"release"`
	Addr      string            `yaml:"addr"` // the declared address; Options.Addrs fills it from the runbook's targets
	Host      string            `yaml:"host"` // the host it runs on; every host without
	Keys      int               `yaml:"keys"` // how many it begins with, of all types, some with a time to live
	ReplicaOf string            `yaml:"replica_of"`
	Absent    bool              `yaml:"absent"` // the runbook creates it
	Password  string            `yaml:"password"`
	Config    map[string]string `yaml:"config"`
	FullSync  time.Duration     `yaml:"full_sync"`
	Lag       time.Duration     `yaml:"lag"`
	Maxmemory string            `yaml:"maxmemory"`

	// of a host
	Files    map[string]string      `yaml:"files"`
	Ports    map[int]string         `yaml:"ports"` // held by something else: the process's name
	Binaries map[string]host.Binary `yaml:"binaries"`
	Disks    map[string]host.Disk   `yaml:"disks"`
}

// Traffic is the load during the run.
type Traffic struct {
	Through         string        `yaml:"through"` // where clients are pointed at first, and always if there is no follow
	Clients         int           `yaml:"clients"`
	WritesPerSecond float64       `yaml:"writes_per_second"`
	Keys            int           `yaml:"keys"`
	Timeout         time.Duration `yaml:"timeout"`
	Follow          *Follow       `yaml:"follow"`
}

// Follow is where clients learn their address: what the migration rewrites to move them. Until it says something, clients
// go to Through.
type Follow struct {
	Host    string        `yaml:"host"`    // a file on this host; the first one if empty
	File    string        `yaml:"file"`    //
	System  string        `yaml:"system"`  // or a node of this system, read through Options.ReadNode
	Node    string        `yaml:"node"`    //
	Pattern string        `yaml:"pattern"` // finds the address in the text, by its first group or whole; the first name:port otherwise
	Every   time.Duration `yaml:"every"`   // how often clients look; 1 s
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
	ReadNode  func(ctx context.Context, system, node string) (string, error)
	Seed      uint64
}

// World is a running sandbox.
type World struct {
	spec    Spec
	opts    Options
	clock   clock.Clock
	network *redis.Network
	hosts   map[string]*host.Host

	mu      sync.Mutex
	systems map[string]*system
}

type system struct {
	name     string
	spec     System
	declared string
	actual   string
	server   *redis.Server // nil while absent
	dir      string
}

// Kinds lists the kinds of systems that can be simulated.
func Kinds() []string { return []string{"host", "redis"} }

// Invariants lists what can be checked at the end of a run: the load's ledger tells.
func Invariants() []string { return []string{"no-lost-write", "no-stale-read", "clients-served"} }

// LaterInvariants lists those of world files that wait for simulators of slots and their owners.
func LaterInvariants() []string { return []string{"one-owner", "no-orphan-key"} }

// Wanted are the invariants that hold at the end of a run in this world: those that its
// file names, or all that can be checked where it says nothing of them. None without a load.
func (s *Spec) Wanted() []string {
	switch {
	case s.Traffic == nil:
		return nil
	case s.Invariants == nil:
		return Invariants()
	}
	return s.Invariants
}

// LocalHost is the host that a world always has: what a target `host {local: true}` acts on.
const LocalHost = "local"

// Start brings the world up: servers filled, replicas in step with their masters, no load yet (StartTraffic).
func Start(ctx context.Context, spec Spec, opts Options) (*World, error) {
	w := &World{spec: spec, opts: opts, clock: opts.Clock, network: redis.NewNetwork(), hosts: map[string]*host.Host{}, systems: map[string]*system{}}
	if w.clock == nil {
		w.clock = clock.New(1)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	for _, name := range append([]string{LocalHost}, w.names("host")...) {
		s := spec.Systems[name]
		w.hosts[name] = host.New(host.Options{
			Name: name, Clock: w.clock, Files: s.Files, Ports: s.Ports, Binaries: s.Binaries, Disks: s.Disks, Commands: spec.Commands, Launch: w.launch,
		})
	}
	for _, name := range w.names("redis") {
		if err := w.prepare(name); err != nil {
			w.Close()
			return nil, err
		}
	}
	for _, name := range w.names("redis") {
		s := w.systems[name]
		if s.spec.Absent {
			continue
		}
		pid := w.hosts[w.hostOf(s)].NextPID()
		if err := w.startRedis(s, w.config(s), "", pid); err != nil {
			w.Close()
			return nil, err
		}
		w.adopt(s, pid)
	}
	if err := w.settle(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *World) names(kind string) []string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(w.spec.Systems)) {
		if w.spec.Systems[n].Kind == kind {
			out = append(out, n)
		}
	}
	return out
}

// check finds what cannot be, before anything is started.
func (w *World) check() error {
	spec := &w.spec
	if spec.Version != 1 {
		return fmt.Errorf("world: version %d is not known; this program knows 1", spec.Version)
	}
	known := Kinds()
	for _, name := range slices.Sorted(maps.Keys(spec.Systems)) {
		s := spec.Systems[name]
		if !slices.Contains(known, s.Kind) {
			return fmt.Errorf("world: system %s: no simulator for kind %q; there are %s", name, s.Kind, strings.Join(known, ", "))
		}
		if s.ReplicaOf != "" {
			m, ok := spec.Systems[s.ReplicaOf]
			if !ok || m.Kind != "redis" {
				return fmt.Errorf("world: system %s: replica_of names %q, which is no redis of this world", name, s.ReplicaOf)
			}
			if s.Keys > 0 {
				return fmt.Errorf("world: system %s: a replica has its master's keys; take keys away, or replica_of", name)
			}
		}
		if s.Host != "" && spec.Systems[s.Host].Kind != "host" && s.Host != LocalHost {
			return fmt.Errorf("world: system %s: host names %q, which is no host of this world", name, s.Host)
		}
	}
	if t := spec.Traffic; t != nil {
		if spec.Systems[t.Through].Kind != "redis" {
			return fmt.Errorf("world: traffic goes through %q, which is no redis of this world", t.Through)
		}
		if f := t.Follow; f != nil {
			if (f.File == "") == (f.Node == "") {
				return errors.New("world: traffic.follow needs a file or a node, not both")
			}
			if _, err := regexp.Compile(f.Pattern); err != nil {
				return fmt.Errorf("world: traffic.follow.pattern: %w", err)
			}
			if f.Node != "" && w.opts.ReadNode == nil {
				return fmt.Errorf("world: traffic.follow: nothing simulated here has nodes such as %s", f.Node)
			}
		}
	}
	return nil
}

// prepare picks the port of a system, also of an absent one: its address must be known before it is there.
func (w *World) prepare(name string) error {
	s := &system{name: name, spec: w.spec.Systems[name]}
	s.declared = s.spec.Addr
	if s.declared == "" {
		s.declared = w.opts.Addrs[name]
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("world: system %s: %w", name, err)
	}
	s.actual = l.Addr().String()
	_ = l.Close()
	if s.declared == "" {
		s.declared = s.actual
	}
	if _, _, err := net.SplitHostPort(s.declared); err != nil {
		return fmt.Errorf("world: system %s: address %q: %w", name, s.declared, err)
	}
	for _, other := range w.systems {
		if other.declared == s.declared {
			return fmt.Errorf("world: systems %s and %s have one address, %s", other.name, name, s.declared)
		}
	}
	w.systems[name] = s
	return nil
}

// config is what a system's own process begins with.
func (w *World) config(s *system) map[string]string {
	c := maps.Clone(s.spec.Config)
	if c == nil {
		c = map[string]string{}
	}
	if s.spec.Password != "" {
		c["requirepass"] = s.spec.Password
	}
	if s.spec.Maxmemory != "" {
		c["maxmemory"] = s.spec.Maxmemory
	}
	if m := w.systems[s.spec.ReplicaOf]; m != nil {
		host, port, _ := net.SplitHostPort(w.shown(m))
		c["replicaof"] = host + " " + port
		if _, ok := c["masterauth"]; !ok && m.spec.Password != "" {
			c["masterauth"] = m.spec.Password
		}
	}
	return c
}

// shown is the address that clients see.
func (w *World) shown(s *system) string {
	if w.opts.KeepAddrs {
		return s.declared
	}
	return s.actual
}

func (w *World) startRedis(s *system, config map[string]string, file string, pid int) error {
	h, port, _ := net.SplitHostPort(s.declared)
	aliases := []string{s.declared}
	if h == "127.0.0.1" {
		aliases = append(aliases, "localhost:"+port)
	}
	server, err := redis.New(redis.Options{
		Name: s.name, Release: s.spec.Release, Addr: s.actual, Announce: w.shown(s), Aliases: aliases, Config: config, ConfigFile: file,
		Lag: s.spec.Lag, Clock: w.clock, Network: w.network, PID: pid,
	})
	if err != nil {
		return fmt.Errorf("world: %w", err)
	}
	fill(server, s.spec.Keys, w.opts.Seed)
	if file != "" {
		server.OnRewrite(func(file string, config map[string]string) { w.rewrite(s, file, config) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.server = server
	return nil
}

// fill gives a server keys of all types; one in ten expires within hours.
func fill(s *redis.Server, n int, seed uint64) {
	for i := range n {
		k, v := fmt.Sprintf("key:%06d", i), fmt.Sprintf("value %d of %d", i, seed)
		switch i % 5 {
		case 0, 1:
			s.Do("SET", k, v)
		case 2:
			s.Do("HSET", k, "name", v, "n", strconv.Itoa(i))
		case 3:
			s.Do("RPUSH", k, v, "b", "c")
		case 4:
			if i%2 == 0 {
				s.Do("SADD", k, v, "b", "c")
			} else {
				s.Do("ZADD", k, strconv.Itoa(i), v, "1.5", "b")
			}
		}
		if i%10 == 0 {
			s.Do("EXPIRE", k, strconv.Itoa(7200+i%3600))
		}
	}
}

// settle waits until every replica of the beginning follows its master, and only then gives syncs the time they take.
func (w *World) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("replicas did not follow their masters within 30 s"))
	defer cancel()
	for _, name := range w.names("redis") {
		s := w.systems[name]
		if s.server == nil {
			continue
		}
		if m := w.systems[s.spec.ReplicaOf]; m != nil && m.server != nil {
			for !strings.Contains(s.server.Do("INFO", "replication").Str, "master_link_status:up") {
				if err := w.clock.Sleep(ctx, 10*time.Millisecond); err != nil {
					return fmt.Errorf("world: system %s: %w", name, err)
				}
			}
		}
	}
	for _, s := range w.systems {
		if s.server != nil {
			s.server.SetFullSync(s.spec.FullSync)
		}
	}
	return nil
}

// Addr is the address that replaces a target's: where the system really listens, "" for a name that the world has not.
func (w *World) Addr(name string) string {
	if s := w.systems[name]; s != nil {
		return s.actual
	}
	return ""
}

// Server gives a redis by name; nil while it is absent or where there is none.
func (w *World) Server(name string) *redis.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.systems[name]; s != nil {
		return s.server
	}
	return nil
}

// Host gives a host by name; LocalHost is always there.
func (w *World) Host(name string) *host.Host { return w.hosts[name] }

// Names lists the systems, in order.
func (w *World) Names() []string { return slices.Sorted(maps.Keys(w.spec.Systems)) }

// Network is where links between servers are cut.
func (w *World) Network() *redis.Network { return w.network }

// Clock is the world's time.
func (w *World) Clock() clock.Clock { return w.clock }

// Translate maps a declared address to the real one and a real one to the declared; any other stays.
func (w *World) Translate(addr string) string {
	for _, s := range w.systems {
		switch addr {
		case s.declared:
			return s.actual
		case s.actual:
			return s.declared
		}
	}
	return addr
}

// real finds the system that an address means.
func (w *World) real(addr string) *system {
	for _, s := range w.systems {
		if addr == s.actual || addr == s.declared {
			return s
		}
	}
	if rest, ok := strings.CutPrefix(addr, "localhost:"); ok {
		return w.real("127.0.0.1:" + rest)
	}
	return nil
}

// Dial connects to a system of this world, by its declared or its real address, and to nothing else.
func (w *World) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s := w.real(addr)
	if s == nil {
		return nil, fmt.Errorf("dial %s %s: no system of this sandbox has this address", network, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, s.actual)
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

// Close ends every server. Loads must have been stopped.
func (w *World) Close() {
	w.mu.Lock()
	var servers []*redis.Server
	for _, s := range w.systems {
		if s.server != nil {
			servers = append(servers, s.server)
		}
	}
	w.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
}

var nameAndPort = regexp.MustCompile(`[\w.-]+:\d+`)

// Route gives the address that clients are pointed at now: what Follow says, else where Through is.
func (w *World) Route(ctx context.Context) (string, error) {
	t := w.spec.Traffic
	if t == nil {
		return "", errors.New("world: no traffic is declared")
	}
	f := t.Follow
	if f == nil {
		return w.systems[t.Through].actual, nil
	}
	var said string
	if f.Node != "" {
		text, err := w.opts.ReadNode(ctx, f.System, f.Node)
		if err != nil {
			return "", err
		}
		said = text
	} else {
		h := w.hosts[f.Host]
		if f.Host == "" {
			h = w.firstHost()
		}
		b, _, err := h.ReadFile(f.File)
		if err != nil {
			return w.systems[t.Through].actual, nil //nolint:nilerr // nobody has moved the clients yet
		}
		said = string(b)
	}
	addr := strings.TrimSpace(said)
	if f.Pattern != "" {
		m := regexp.MustCompile(f.Pattern).FindStringSubmatch(said)
		if m == nil {
			return "", fmt.Errorf("route: nothing in %q matches %s", said, f.Pattern)
		}
		addr = m[len(m)-1]
	}
	if s := w.systems[addr]; s != nil {
		return s.actual, nil
	}
	if m := nameAndPort.FindString(addr); m != "" {
		addr = m
	}
	s := w.real(addr)
	if s == nil {
		return "", fmt.Errorf("route: clients are pointed at %q, which is no system of this world", addr)
	}
	return s.actual, nil
}

func (w *World) firstHost() *host.Host {
	if hosts := w.names("host"); len(hosts) > 0 {
		return w.hosts[hosts[0]]
	}
	return w.hosts[LocalHost]
}

// TrafficName is the CLIENT SETNAME of the load's connections: what a fault or a log of writes leaves out.
const TrafficName = "traffic"

// StartTraffic begins the declared load; nil without an error where none is declared. The caller stops it before Close.
func (w *World) StartTraffic(ctx context.Context) (*traffic.Traffic, error) {
	t := w.spec.Traffic
	if t == nil {
		return nil, nil //nolint:nilnil // no load is a fact, not a failure
	}
	o := traffic.Options{
		Route: w.Route, Clients: t.Clients, WritesPerSecond: t.WritesPerSecond, Keys: t.Keys, Timeout: t.Timeout, Name: TrafficName,
		Password: w.spec.Systems[t.Through].Password, Clock: w.clock, Seed: w.opts.Seed,
	}
	if t.Follow != nil {
		o.RouteEvery = t.Follow.Every
	}
	return traffic.Start(ctx, o)
}

// CheckTraffic compares the ledger with what is stored where clients are pointed now.
func (w *World) CheckTraffic(ctx context.Context, t *traffic.Traffic) (traffic.Report, error) {
	addr, err := w.Route(ctx)
	if err != nil {
		return traffic.Report{}, err
	}
	read, done, err := traffic.ReadAt(ctx, nil, addr, "", w.spec.Systems[w.spec.Traffic.Through].Password)
	if err != nil {
		return traffic.Report{}, err
	}
	defer done()
	return t.Check(ctx, read)
}
