package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// Options say what a simulated server is. The zero value is a 7.0.15 master on a port it picks.
type Options struct {
	Name    string // for errors
	Release string // redis_version; some answers follow it
	// Addr is where it listens; "127.0.0.1:0" if empty. NoListen leaves the port closed: clients come through Pipe, and
	// Addr is a name only. So a server fits into a testing/synctest bubble, where sockets do not.
	Addr     string
	NoListen bool
	// Announce is the address that it believes to have: its tcp_port, its CONFIG GET port, and what its master shows in
	// slaveN. Its real one if empty. REPLICAOF finds it under both.
	Announce   string
	Aliases    []string          // further addresses that REPLICAOF may use for it
	Config     map[string]string // over the defaults of 7.0; also "replicaof"
	ConfigFile string            // shown by INFO; CONFIG REWRITE works only with one
	FullSync   time.Duration     // how long a full sync from its master takes
	Lag        time.Duration     // how long after the master it applies a write
	Clock      clock.Clock       // the real time if nil
	Network    *Network          // where its masters are found; one of its own if nil
	PID        int
}

// Server is one simulated redis. All of its state is behind one lock, as the real one has one thread.
type Server struct {
	name, release string
	addr          string // where it really listens
	noListen      bool
	clock         clock.Clock
	network       *Network
	configFile    string
	pid           int
	commands      map[string]*command

	mu        sync.Mutex
	alive     bool
	listener  net.Listener
	stop      context.CancelCauseFunc
	ctx       context.Context //nolint:containedctx // the life of this process, from start to Stop
	wg        sync.WaitGroup
	started   time.Time
	runID     string
	dbs       []*keyspace.Database
	clients   map[int64]*client
	nextID    int64
	config    map[string]string
	persisted map[string]string // what a restart begins with
	host      string            // announced
	port      string
	version   uint64
	saved     bool // the data set was written down by the last SHUTDOWN

	intercept    Intercept
	exempt       []string
	writes       []Write
	lag          time.Duration
	fullSync     time.Duration
	loadingUntil time.Time
	rewritten    func(file string, config map[string]string)

	pause   pause
	repl    replication
	links   []*link // the replicas attached to this server
	stats   stats
	backlog backlog
}

// pause is CLIENT PAUSE: what it holds, until when, and the channel that ends it.
type pause struct {
	kind    pauseKind
	until   time.Time
	over    chan struct{}
	cancel  func() bool
	blocked int
}

type pauseKind int

const (
	pauseNone pauseKind = iota
	pauseWrite
	pauseAll
)

type stats struct {
	connections, commands, errors           int64
	syncFull, syncPartialOK, syncPartialErr int64
	expired, hits, misses, dirty            int64
	errorKinds, calls                       map[string]int64
	lastSave                                time.Time
}

// New makes a server and starts it.
func New(opts Options) (*Server, error) {
	s := &Server{
		name: opts.Name, release: opts.Release, addr: opts.Addr, noListen: opts.NoListen,
		clock: opts.Clock, network: opts.Network, configFile: opts.ConfigFile, pid: opts.PID,
		lag: opts.Lag, fullSync: opts.FullSync, commands: table(),
	}
	if s.release == "" {
		s.release = "7.0.15"
	}
	if s.addr == "" {
		s.addr = "127.0.0.1:0"
	}
	if s.clock == nil {
		s.clock = clock.New(1)
	}
	if s.network == nil {
		s.network = NewNetwork()
	}
	if s.pid == 0 {
		s.pid = 1000 + mathrand.IntN(30000)
	}
	s.persisted = map[string]string{}
	for k, v := range opts.Config {
		p, ok := parameters[canonical(k)]
		if !ok {
			return nil, fmt.Errorf("redis %s: unknown configuration parameter %q", s.name, k)
		}
		v, reason := p.parse(v)
		if reason != "" {
			return nil, fmt.Errorf("redis %s: configuration parameter %q: %s", s.name, k, reason)
		}
		s.persisted[canonical(k)] = v
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	announce := opts.Announce
	if announce == "" {
		announce = s.addr
	}
	var err error
	if s.host, s.port, err = net.SplitHostPort(announce); err != nil {
		_ = s.listener.Close()
		return nil, fmt.Errorf("redis %s: announced address %q: %w", s.name, announce, err)
	}
	if err := s.network.add(s, append([]string{s.addr, announce}, opts.Aliases...)...); err != nil {
		if s.listener != nil {
			_ = s.listener.Close()
		}
		return nil, fmt.Errorf("redis %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot(nil)
	return s, nil
}

func (s *Server) listen() error {
	if s.noListen {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("redis %s: %w", s.name, err)
	}
	s.listener, s.addr = l, l.Addr().String()
	return nil
}

// boot begins a process: everything that a restart forgets is made here. The caller holds the lock.
func (s *Server) boot(data []*keyspace.Database) {
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.alive, s.started, s.runID = true, s.clock.Now(), newID()
	s.config = defaults()
	s.config["port"], s.config["bind"] = s.port, s.host
	maps.Copy(s.config, s.persisted)
	n, _ := strconv.Atoi(s.config["databases"])
	s.dbs = data
	for len(s.dbs) < n {
		s.dbs = append(s.dbs, newDatabase())
	}
	s.clients = map[int64]*client{}
	s.stats = stats{errorKinds: map[string]int64{}, calls: map[string]int64{}, lastSave: s.started}
	s.pause, s.backlog, s.links = pause{}, backlog{}, nil
	s.repl = replication{id: newID(), second: -1, streamDB: -1}
	if master := strings.Fields(s.config["replicaof"]); len(master) == 2 {
		s.follow(master[0], master[1])
	}
	ctx := s.ctx
	s.wg.Go(func() { s.cron(ctx) })
	if l := s.listener; l != nil {
		s.wg.Go(func() { s.accept(ctx, l) })
	}
}

// Addr is where the server really listens, also while it is stopped.
func (s *Server) Addr() string { return s.addr }

// Name is what the world calls it.
func (s *Server) Name() string { return s.name }

// PID is the process id that INFO shows.
func (s *Server) PID() int { return s.pid }

// Alive says whether it runs.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}

// Stop ends the process as a kill does: the port closes, connections break, replicas lose their master. Addr stays its own.
func (s *Server) Stop() {
	s.mu.Lock()
	if s.alive {
		s.down()
	}
	s.mu.Unlock()
	s.wg.Wait() // also after a SHUTDOWN, which does not wait for itself
}

// down is Stop without waiting; the caller holds the lock.
func (s *Server) down() {
	s.alive = false
	s.stop(errors.New("server stopped"))
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	for _, c := range s.clients {
		c.Close()
	}
	for _, l := range s.links {
		l.close()
	}
	if s.repl.link != nil {
		s.repl.link.close()
	}
	if s.repl.cancel != nil {
		s.repl.cancel()
	}
	if s.pause.cancel != nil {
		s.pause.cancel()
	}
}

// Terminate is a signal to the process: TERM and INT write the data set down where the configuration saves at all, as the
// real one does; anything else is a kill, after which only an append-only file is left.
func (s *Server) Terminate(signal string) {
	s.mu.Lock()
	if s.alive {
		s.saved = s.config["appendonly"] == "yes" || signal != "KILL" && s.config["save"] != ""
	}
	s.mu.Unlock()
	s.Stop()
}

// Relaunch is Restart with another configuration, file and process id: a start by hand of an instance that was stopped.
func (s *Server) Relaunch(config map[string]string, file string, pid int, keepData bool) error {
	s.Stop()
	s.mu.Lock()
	s.persisted, s.configFile, s.pid = maps.Clone(config), file, pid
	s.mu.Unlock()
	return s.Restart(keepData)
}

// Restart begins a new process on the same port: a new run id and replication id, and the configuration that was last
// written to its file, so an unsaved CONFIG SET or REPLICAOF is forgotten. keepData tells whether the data set was saved.
func (s *Server) Restart(keepData bool) error {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.listen(); err != nil {
		return err
	}
	var data []*keyspace.Database
	if keepData {
		data = s.dbs
	}
	s.boot(data)
	return nil
}

// Close stops the server and takes it out of its network.
func (s *Server) Close() {
	s.Stop()
	s.network.remove(s)
}

// OnRewrite has CONFIG REWRITE tell f the file and what it now holds.
func (s *Server) OnRewrite(f func(file string, config map[string]string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewritten = f
}

// Pipe connects a client in memory. It fails where the server is stopped.
func (s *Server) Pipe() (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alive {
		return nil, fmt.Errorf("dial %s: connection refused", s.addr)
	}
	s.serve(s.ctx, ours)
	return theirs, nil
}

// Dial connects a client, over TCP or in memory.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if s.noListen {
		return s.Pipe()
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
}

// Do carries out one command as a client that is past every check (password, pause, faults) and leaves no trace in the
// log of writes: how a world is filled and how a test looks. Writes are replicated.
func (s *Server) Do(args ...string) resp.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &client{authed: true, proto: 2, internal: true}
	v, _ := s.process(c, args)
	return v
}

func (s *Server) accept(ctx context.Context, l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if ctx.Err() == nil {
			s.serve(ctx, nc)
		} else {
			_ = nc.Close()
		}
		s.mu.Unlock()
	}
}

// client is one connection. Its fields are behind the server's lock, but those that never change.
type client struct {
	*resp.Peer // nil where nobody is connected
	id         int64
	name       string
	since      time.Time
	last       string
	db         int
	proto      int
	authed     bool
	internal   bool
	master     bool // the stream of our master
	multi      bool
	dirtyTx    bool
	queue      [][]string
	watch      map[watched]uint64
	quit       bool
	offset     int64 // of the stream after its last command: what its WAIT waits for
	inExec     bool
	ops        [][]string // what the running transaction propagates
}

type watched struct {
	db  int
	key string
}

// serve begins a client's life. The caller holds the lock.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	s.nextID++
	s.stats.connections++
	c := &client{id: s.nextID, Peer: resp.NewPeer(nc), since: s.clock.Now(), proto: 2}
	c.authed = s.config["requirepass"] == ""
	s.clients[c.id] = c
	s.wg.Go(func() {
		c.Serve(func(args []string) ([]byte, bool) { return s.request(ctx, c, args) })
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, c.id)
	})
}

// request is one request of a client, faults included: the bytes to answer, and whether the connection goes on.
func (s *Server) request(ctx context.Context, c *client, args []string) (reply []byte, keep bool) {
	s.mu.Lock()
	f := s.intercept
	if contains(s.exempt, c.name) {
		f = nil
	}
	s.mu.Unlock()
	var act Action
	if f != nil {
		act = f(slices.Clone(args))
	}
	return act.Around(ctx, s.clock, c.Gone, func() { s.logWrite(c, args) }, func() ([]byte, bool) {
		v, ok := s.carryOut(ctx, c, args)
		if !ok {
			return nil, false
		}
		s.mu.Lock()
		proto, quit := c.proto, c.quit
		s.mu.Unlock()
		return v.Append(nil, proto), !quit
	})
}

// carryOut runs a command, waiting as long as a pause holds it. ok is false where the connection or the server went away
// first: then nothing was carried out.
func (s *Server) carryOut(ctx context.Context, c *client, args []string) (v resp.Value, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return resp.Value{}, false
		}
		v, held := s.process(c, args)
		if !held {
			if v.IsZero() { // WAIT and SHUTDOWN go on without the lock
				s.mu.Unlock()
				v, ok = s.slow(ctx, c, args)
				s.mu.Lock()
				return v, ok
			}
			return v, true
		}
		over := s.pause.over
		s.pause.blocked++
		s.mu.Unlock()
		gone := false
		select {
		case <-over:
		case <-c.Gone:
			gone = true
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.pause.blocked--
		if gone {
			return resp.Value{}, false
		}
	}
}

func (s *Server) logWrite(c *client, args []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cmd, ok := s.commands[strings.ToUpper(args[0])]; ok && cmd.changes(args) {
		if len(s.writes) >= keptWrites {
			s.writes = slices.Delete(s.writes, 0, keptWrites/2)
		}
		s.writes = append(s.writes, Write{At: s.clock.Now(), Client: c.name, Args: slices.Clone(args)})
	}
}

// setPause is CLIENT PAUSE: the later end and the stronger kind win, as in 7.0.
func (s *Server) setPause(kind pauseKind, d time.Duration) {
	until := s.clock.Now().Add(d)
	if s.pause.kind == pauseNone {
		s.pause.over = make(chan struct{})
	}
	s.pause.kind = max(s.pause.kind, kind)
	if !until.After(s.pause.until) {
		return
	}
	s.pause.until = until
	if s.pause.cancel != nil {
		s.pause.cancel()
	}
	over := s.pause.over
	s.pause.cancel = s.clock.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pause.over == over && s.pause.until.Equal(until) {
			s.unpause()
		}
	})
}

func (s *Server) unpause() {
	if s.pause.kind == pauseNone {
		return
	}
	close(s.pause.over)
	s.pause.cancel()
	s.pause = pause{blocked: s.pause.blocked}
}

// cron does what the real one does now and then: expire keys, ping replicas, acknowledge to the master.
func (s *Server) cron(ctx context.Context) {
	const tick = 250 * time.Millisecond
	var lastPing = s.clock.Now()
	for n := 1; s.clock.Sleep(ctx, tick) == nil; n++ {
		s.mu.Lock()
		if ctx.Err() != nil {
			s.mu.Unlock()
			return
		}
		s.expireCycle()
		if n%4 == 0 {
			s.ackMaster()
		}
		period, _ := strconv.Atoi(s.config["repl-ping-replica-period"])
		if now := s.clock.Now(); s.repl.masterHost == "" && now.Sub(lastPing) >= time.Duration(period)*time.Second {
			lastPing = now
			if len(s.liveLinks()) > 0 {
				s.feed(-1, []string{"PING"})
			}
		}
		s.mu.Unlock()
	}
}

// expireCycle deletes what is over, on a master only, and not while writes are paused.
func (s *Server) expireCycle() {
	if s.repl.masterHost != "" || s.pause.kind != pauseNone {
		return
	}
	now := s.nowMS()
	for i, d := range s.dbs {
		for k := range d.Expires {
			if e := d.Keys[k]; e.Expire <= now {
				s.expireKey(i, k)
			}
		}
	}
}

func (s *Server) expireKey(db int, k string) {
	s.dbs[db].Del(k)
	s.stats.expired++
	s.feed(db, []string{"DEL", k})
}

func (s *Server) nowMS() int64 { return s.clock.Now().UnixMilli() }

func (s *Server) loading() bool { return s.clock.Now().Before(s.loadingUntil) }

func newID() string {
	b := make([]byte, 20)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func newDatabase() *keyspace.Database { return keyspace.NewDatabase(1024) }
