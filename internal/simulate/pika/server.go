package pika

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// Options say what a simulated server is. The zero value is a 3.4.0 in sharding mode, without slots, on a port it picks.
type Options struct {
	Name    string // for errors
	Release string // "3.4.0", "3.2.9", "2.3.6" or "2.3.0"
	Mode    string // "sharding" or "classic"; 2.3 knows only the latter
	// Addr is where it listens; "127.0.0.1:0" if empty. NoListen leaves the port closed: clients come through Pipe, and Addr
	// is a name only. So a server fits into a testing/synctest bubble, where sockets do not.
	Addr     string
	NoListen bool
	// Announce is the address that it believes to have, and by which other servers know it. Its real one if empty.
	Announce string
	Aliases  []string // further addresses that mean it, such as a host name

	SlotNum    int               // default-slot-num: how many slots the cluster has; 1024 if 0
	Slots      string            // the slots that it has from the start, such as "0-511"; "" for none
	Databases  int               // of classic mode; 1 if 0
	Password   string            // requirepass
	MasterAuth string            // masterauth
	Config     map[string]string // over the defaults of the release

	FullSync time.Duration // how long a full sync from its master takes, besides what db-sync-speed adds; 200 ms if 0
	Lag      time.Duration // how much longer a write takes on its way here
	Ack      time.Duration // the sleep of the auxiliary thread, which drives replication; 100 ms if 0
	AddSlot  time.Duration // how long a slot takes to add, while commands on data wait; 1 ms if 0
	Pace     float64       // factor on the delays that Pika has built in; 1 if 0. Their order stays
	NoRsync  bool          // rsync is missing: no full sync from or to this server ever ends

	Clock   clock.Clock // the real time if nil
	Network *Network    // where its masters are found; one of its own if nil
	PID     int
}

// Server is one simulated Pika. All of its state is behind one lock; servers speak to each other in messages only, so that
// none ever holds the locks of two.
type Server struct {
	opts      Options
	release   string
	classic   bool
	addr      string // where it really listens
	host      string // announced
	port      string
	clock     clock.Clock
	network   *Network
	commands  map[string]*command
	up        atomic.Bool // runs, frozen or not
	wake      chan struct{}
	rsyncAddr string // where rsync listens, as long as it is not missing

	box  sync.Mutex
	mail []message // on their way here, in order of their time

	mu       sync.Mutex
	listener net.Listener
	rsync    *rsync
	ctx      context.Context //nolint:containedctx // the life of this process, from start to Stop
	stop     context.CancelCauseFunc
	wg       sync.WaitGroup
	started  time.Time
	frozen   chan struct{} // closed by Thaw; nil while it runs
	clients  map[int64]*client
	nextID   int64
	versions uint64
	config   *config
	saved    *config // what a restart begins with
	tables   []*table
	adding   chan struct{} // closed when a change of the slots is over; nil while there is none
	stats    stats
	scan     keyScan
	saving   time.Time // until then a bgsave is under way

	intercept  fault.Intercept
	exempt     []string
	writes     []fault.Write
	fullSync   time.Duration
	lag        time.Duration
	applyDelay []time.Duration     // by apply thread
	stalls     bool                // where slotsslaveof is sent again too early
	overtaken  func(slot int) bool // answers that go on with the binlog
	unfilled   func(slot int) bool // answers to the request for a full sync

	nextTick  time.Time
	nextCheck time.Time            // of the timeouts
	arrivals  []shipment           // received, and held by lag
	busy      map[*slot]bool       // whose state machine has something to do
	shipping  map[*slot]bool       // with records that a replica has not been sent
	transfers map[string]time.Time // full syncs that this master is sending, with the start of the replica's process
	appliers  []*applier
	single    single // replication of classic mode and of 2.3
	received  Offset // 2.3: what has come from the other of two masters, in its own count. It survives a restart
}

type stats struct {
	connections, commands int64
	calls                 map[string]int64
}

// Start makes a server and starts it.
func Start(o Options) (*Server, error) {
	s := &Server{opts: o, release: o.Release, clock: o.Clock, network: o.Network, wake: make(chan struct{}, 1), fullSync: o.FullSync, lag: o.Lag}
	if s.release == "" {
		s.release = "3.4.0"
	}
	switch {
	case !slices.Contains([]string{"3.4.0", "3.2.9", "2.3.6", "2.3.0"}, s.release):
		return nil, fmt.Errorf("pika %s: release %s is not simulated", o.Name, s.release)
	case s.old() && o.Mode == "sharding":
		return nil, fmt.Errorf("pika %s: release %s knows no sharding mode", o.Name, s.release)
	case o.Mode != "" && o.Mode != "sharding" && o.Mode != "classic":
		return nil, fmt.Errorf("pika %s: instance-mode %q", o.Name, o.Mode)
	}
	s.classic = s.old() || o.Mode == "classic"
	if s.clock == nil {
		s.clock = clock.New(1)
	}
	if s.network == nil {
		s.network = NewNetwork()
	}
	if s.opts.SlotNum <= 0 {
		s.opts.SlotNum = 1024
	}
	if s.opts.PID == 0 {
		s.opts.PID = 1000 + rand.IntN(30000)
	}
	s.fullSync = or(s.fullSync, s.pace(200*time.Millisecond))
	s.opts.Ack = or(o.Ack, 100*time.Millisecond)
	s.opts.AddSlot = or(o.AddSlot, s.pace(time.Millisecond))
	s.commands = s.table()
	s.addr = o.Addr
	if s.addr == "" {
		s.addr = "127.0.0.1:0"
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.settle(); err != nil {
		s.unlisten()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot()
	return s, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// settle gives the server its place in the network, its configuration and its slots.
func (s *Server) settle() error {
	announce := s.opts.Announce
	if announce == "" {
		announce = s.addr
	}
	var err error
	if s.host, s.port, err = net.SplitHostPort(announce); err != nil {
		return fmt.Errorf("pika %s: announced address %q: %w", s.opts.Name, announce, err)
	}
	given := maps.Clone(s.opts.Config)
	if given == nil {
		given = map[string]string{}
	}
	if s.opts.Password != "" {
		given["requirepass"] = s.opts.Password
	}
	if s.opts.MasterAuth != "" {
		given["masterauth"] = s.opts.MasterAuth
	}
	if s.saved, err = s.newConfig(given); err != nil {
		return fmt.Errorf("pika %s: %w", s.opts.Name, err)
	}
	s.config = s.saved.clone()
	s.tables = s.newTables()
	if s.opts.Slots != "" && !s.classic {
		ids, bad := parseSlots(s.opts.Slots)
		if bad != "" {
			return fmt.Errorf("pika %s: slots %q: %s", s.opts.Name, s.opts.Slots, bad)
		}
		for _, id := range ids {
			if id >= s.opts.SlotNum {
				return fmt.Errorf("pika %s: slot %d of %d", s.opts.Name, id, s.opts.SlotNum)
			}
			s.tables[0].add(id)
		}
	}
	if err := s.network.add(s, append([]string{s.addr, announce}, s.opts.Aliases...)...); err != nil {
		return fmt.Errorf("pika %s: %w", s.opts.Name, err)
	}
	return nil
}

func (s *Server) listen() error {
	if s.opts.NoListen {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("pika %s: %w", s.opts.Name, err)
	}
	s.listener, s.addr = l, l.Addr().String()
	if s.opts.NoRsync {
		return nil
	}
	if s.rsync, err = listenRsync("127.0.0.1:0"); err != nil {
		s.unlisten()
		return fmt.Errorf("pika %s: rsync: %w", s.opts.Name, err)
	}
	s.rsyncAddr = s.rsync.addr
	return nil
}

func (s *Server) unlisten() {
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	s.rsync.close()
}

// boot begins a process: everything that a restart forgets is made here. Slots, data and binlogs stay; who replicates whom
// does not. The caller holds the lock.
func (s *Server) boot() {
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.started = s.clock.Now()
	s.clients = map[int64]*client{}
	s.config = s.saved.clone()
	s.stats = stats{calls: map[string]int64{}}
	s.scan, s.saving = keyScan{}, time.Time{}
	s.arrivals, s.adding, s.frozen = nil, nil, nil
	s.box.Lock()
	s.mail = nil
	s.box.Unlock()
	s.busy, s.shipping, s.transfers = map[*slot]bool{}, map[*slot]bool{}, map[string]time.Time{}
	for sl := range s.slots() {
		sl.nodes, sl.sessions, sl.follow, sl.image = nil, 0, follow{state: noConnect}, nil
	}
	s.nextTick = s.started.Add(s.tick())
	s.nextCheck = s.nextTick
	s.single = single{}
	s.appliers = nil
	for range s.syncThreads() {
		s.appliers = append(s.appliers, &applier{wake: make(chan struct{}, 1)})
	}
	if len(s.applyDelay) != len(s.appliers) {
		s.applyDelay = make([]time.Duration, len(s.appliers))
	}
	s.up.Store(true)
	ctx := s.ctx
	if l := s.listener; l != nil {
		s.wg.Go(func() { s.accept(ctx, l) })
	}
	s.wg.Go(func() { s.run(ctx) })
	for i, a := range s.appliers {
		s.wg.Go(func() { s.apply(ctx, i, a) })
	}
	s.bootSingle()
}

// Addr is where the server really listens, also while it is stopped.
func (s *Server) Addr() string { return s.addr }

// Announced is the address that it believes to have.
func (s *Server) Announced() string { return net.JoinHostPort(s.host, s.port) }

// Name is what the world calls it.
func (s *Server) Name() string { return s.opts.Name }

// Release is its pika_version.
func (s *Server) Release() string { return s.release }

// PID is the process id that INFO shows.
func (s *Server) PID() int { return s.opts.PID }

// Alive says whether it runs, frozen or not.
func (s *Server) Alive() bool { return s.up.Load() }

// Stop ends the process as a kill does: the port closes and connections break. Addr stays its own. Like the real one it leaves
// its rsync daemon running.
func (s *Server) Stop() {
	s.mu.Lock()
	s.die(errors.New("server stopped"))
	s.mu.Unlock()
	s.wg.Wait()
}

// die ends the process, if it runs. The caller holds the lock.
func (s *Server) die(why error) {
	if !s.up.Load() {
		return
	}
	s.up.Store(false)
	s.stop(why)
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	for _, c := range s.clients {
		c.Close()
	}
}

// Restart begins a new process on the same port. Slots, data and binlogs stay. Replication is forgotten: every slot is a
// writable master again, and an unsaved CONFIG SET is gone.
func (s *Server) Restart() error {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opts.NoListen {
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			return fmt.Errorf("pika %s: %w", s.opts.Name, err)
		}
		s.listener = l
	}
	s.boot()
	return nil
}

// Relaunch is Restart with another configuration: what an operator changed in the file meanwhile.
func (s *Server) Relaunch(config map[string]string) error {
	next, err := s.newConfig(config)
	if err != nil {
		return fmt.Errorf("pika %s: %w", s.opts.Name, err)
	}
	s.Stop()
	s.mu.Lock()
	s.saved = next
	s.mu.Unlock()
	return s.Restart()
}

// Close stops the server and its rsync daemon and takes it out of its network.
func (s *Server) Close() {
	s.Stop()
	s.mu.Lock()
	s.unlisten()
	s.mu.Unlock()
	s.rsync.wait()
	s.network.remove(s)
}

// Freeze is SIGSTOP: connections are accepted, nothing is answered and no message goes out.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen == nil {
		s.frozen = make(chan struct{})
	}
}

// Thaw is SIGCONT: what has come in meanwhile is carried out, also for clients that left.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen != nil {
		close(s.frozen)
		s.frozen = nil
		s.poke()
	}
}

// Pipe connects a client in memory. It fails where the server is stopped.
func (s *Server) Pipe() (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up.Load() {
		return nil, fmt.Errorf("dial %s: %w", s.addr, errRefused)
	}
	s.serve(s.ctx, ours)
	return theirs, nil
}

// Dial connects a client, over TCP or in memory.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if s.opts.NoListen {
		return s.Pipe()
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
}

// Do carries out one command as an administrator who is past every check of passwords and faults, and leaves no trace in
// the log of writes: how a world is filled and how a test looks. It does not wait for what takes a client time.
func (s *Server) Do(args ...string) resp.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, later := s.process(&client{admin: true}, args)
	if later != nil {
		return later.finish()
	}
	return v
}

// SlotKeys is how many keys a slot of table 0 holds, and 0 for a slot that is absent.
func (s *Server) SlotKeys(id int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl := s.tables[0].slots[id]; sl != nil && sl.db != nil {
		return len(sl.db.Keys)
	}
	return 0
}

// HasSlot says whether a slot of table 0 is present here.
func (s *Server) HasSlot(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables[0].slots[id] != nil
}

// OwnsSlot says whether a slot of table 0 is present here and takes writes.
func (s *Server) OwnsSlot(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.tables[0].slots[id]
	return sl != nil && sl.follow.state == noConnect
}

// Keys gives all keys of a slot of table 0, in order.
func (s *Server) Keys(id int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl := s.tables[0].slots[id]; sl != nil && sl.db != nil {
		return slices.Sorted(maps.Keys(sl.db.Keys))
	}
	return nil
}

// old says whether the release is a 2.3.
func (s *Server) old() bool { return s.release[0] == '2' }

func (s *Server) syncThreads() int {
	n, _ := strconv.Atoi(s.config.get("sync-thread-num"))
	return max(n, 1)
}

func newDatabase(classic bool) *keyspace.Database {
	if classic {
		return keyspace.NewDatabase(1024)
	}
	return keyspace.NewDatabase(16)
}
