package redis

import (
	"runbook/internal/simulate/keyspace"

	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// handshake is how long a replica takes to connect to a master that is there; retryEvery how long until it tries again.
const (
	handshake  = 20 * time.Millisecond
	retryEvery = time.Second
)

// replication is a server's place in the replication tree. offset is master_repl_offset: on a master the bytes it has
// written, on a replica those it has applied.
type replication struct {
	id, id2        string
	second, offset int64
	selected       int // the database that the stream we write has selected; -1: the next write says it
	streamDB       int // the database that the stream we apply has selected

	masterHost, masterPort string // empty host: this server is a master
	state                  string // as ROLE shows: connect, connecting, sync, connected
	cached                 bool   // id and offset may be offered for a partial resync
	downSince, lastIO      time.Time
	link                   *link
	cancel                 context.CancelFunc
}

// element is one command of the replication stream.
type element struct {
	args []string
	end  int64 // the offset after it
	size int
	at   time.Time
}

// backlog is the end of the stream, kept for replicas that come back.
type backlog struct {
	active bool
	first  int64 // offset of its first byte
	len    int64
	items  []element
}

// link is one replica's connection to its master, seen from both. Its lock is below both servers'.
type link struct {
	master, replica *Server
	host, port      string
	mu              sync.Mutex
	queue           []element
	wake            chan struct{}
	done            chan struct{}
	once            sync.Once
	state           string
	ack             int64
	ackAt           time.Time
}

func (l *link) close() { l.once.Do(func() { close(l.done) }) }

func (l *link) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *link) push(es ...element) {
	l.mu.Lock()
	l.queue = append(l.queue, es...)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) acknowledge(offset int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ack, l.ackAt, l.state = offset, now, "online"
}

func (l *link) shown(now time.Time) (state string, ack, lag int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.ack, int64(now.Sub(l.ackAt) / time.Second)
}

func (s *Server) liveLinks() []*link {
	s.links = slices.DeleteFunc(s.links, (*link).closed)
	return s.links
}

func (s *Server) onlineReplicas() (n int) {
	maxLag, _ := strconv.ParseInt(s.config["min-replicas-max-lag"], 10, 64)
	for _, l := range s.liveLinks() {
		if state, _, lag := l.shown(s.clock.Now()); state == "online" && lag <= maxLag {
			n++
		}
	}
	return n
}

// feed writes a command of database db to the stream, with the SELECT it needs; db -1 needs none. Before a first replica
// has come there is no stream and the offset does not move, as in the real one.
func (s *Server) feed(db int, args []string) {
	if !s.backlog.active {
		return
	}
	if db >= 0 && db != s.repl.selected {
		s.repl.selected = db
		s.emit([]string{"SELECT", strconv.Itoa(db)})
	}
	s.emit(args)
}

func (s *Server) emit(args []string) {
	n := commandSize(args)
	s.repl.offset += int64(n)
	s.pass(element{args: args, end: s.repl.offset, size: n})
}

// pass hands an element to the backlog and to every replica, as it is.
func (s *Server) pass(e element) {
	e.at = s.clock.Now()
	b := &s.backlog
	if !b.active {
		return
	}
	b.items = append(b.items, e)
	b.len += int64(e.size)
	limit, _ := strconv.ParseInt(s.config["repl-backlog-size"], 10, 64)
	cut := 0
	for b.len > limit && cut < len(b.items)-1 {
		b.len -= int64(b.items[cut].size)
		b.first += int64(b.items[cut].size)
		cut++
	}
	b.items = b.items[cut:]
	for _, l := range s.liveLinks() {
		l.push(e)
	}
}

func commandSize(args []string) int {
	n := 3 + digits(len(args))
	for _, a := range args {
		n += 5 + digits(len(a)) + len(a)
	}
	return n
}

func digits(n int) int { return len(strconv.Itoa(n)) }

// follow makes the server a replica: REPLICAOF host port. What it has stays, and is offered for a partial resync.
func (s *Server) follow(host, port string) {
	r := &s.repl
	if r.masterHost == "" {
		r.cached, r.streamDB = true, r.selected
	}
	s.unfollow()
	r.masterHost, r.masterPort, r.state, r.downSince = host, port, "connect", s.clock.Now()
	ctx, cancel := context.WithCancel(s.ctx)
	r.cancel = cancel
	s.wg.Go(func() { s.replicate(ctx, net.JoinHostPort(host, port)) })
}

// promote makes the server a master: REPLICAOF NO ONE. Its data stay; its old history goes on under the second id, so that
// those who shared it need no full sync.
func (s *Server) promote() {
	r := &s.repl
	s.unfollow()
	r.masterHost, r.masterPort, r.state, r.cached = "", "", "", false
	r.id2, r.second, r.id = r.id, r.offset+1, newID()
	r.selected = -1
	for _, l := range s.links {
		l.close()
	}
}

func (s *Server) unfollow() {
	r := &s.repl
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
	if r.link != nil {
		r.link.close()
		r.link = nil
	}
}

// replicate is the life of a replica: connect, sync, follow, and again, until ctx ends.
func (s *Server) replicate(ctx context.Context, addr string) {
	mine := func(f func()) bool { // f under the lock, unless another REPLICAOF came meanwhile
		s.mu.Lock()
		defer s.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		f()
		return true
	}
	for {
		_, err := s.network.reach(s, addr)
		if err == nil && (!mine(func() { s.repl.state = "connecting" }) || s.clock.Sleep(ctx, handshake) != nil) {
			return
		}
		var l *link
		var snapshot *snapshot
		if err == nil {
			l, snapshot, err = s.attach(ctx, addr)
		}
		if err != nil {
			if !mine(func() { s.repl.state = "connect" }) || s.clock.Sleep(ctx, retryEvery) != nil {
				return
			}
			continue
		}
		if snapshot == nil || s.sync(ctx, l, snapshot, mine) {
			s.stream(ctx, l)
		}
		l.close()
		if !mine(func() {
			s.repl.link, s.repl.state, s.repl.downSince = nil, "connect", s.clock.Now()
		}) {
			return
		}
	}
}

// attach asks the master for the rest of the stream, or for everything: PSYNC.
func (s *Server) attach(ctx context.Context, addr string) (*link, *snapshot, error) {
	m, err := s.network.reach(s, addr)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	id, offset, password, user := "?", int64(-1), s.config["masterauth"], s.config["masteruser"]
	if s.repl.cached {
		id, offset = s.repl.id, s.repl.offset+1
	}
	host, port := s.host, s.port
	s.mu.Unlock()
	l := &link{master: m, replica: s, host: host, port: port, wake: make(chan struct{}, 1), done: make(chan struct{})}
	snap, masterID, err := m.psync(l, user, password, id, offset)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		l.close()
		return nil, nil, context.Cause(ctx)
	}
	r := &s.repl
	r.link, r.lastIO = l, s.clock.Now()
	if snap != nil {
		r.state, r.cached = "sync", false
		return l, snap, nil
	}
	r.state = "connected"
	if masterID != r.id { // +CONTINUE with a new id: our old history is its second one
		r.id2, r.second, r.id = r.id, r.offset+1, masterID
		for _, sub := range s.links {
			sub.close()
		}
	}
	s.openBacklog(r.offset)
	return l, nil, nil
}

// snapshot is what a full sync carries.
type snapshot struct {
	dbs    []*keyspace.Database
	id     string
	offset int64
}

// psync is the master's part.
func (s *Server) psync(l *link, user, password, id string, offset int64) (*snapshot, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, b := &s.repl, &s.backlog
	want := s.config["requirepass"]
	switch {
	case !s.alive:
		return nil, "", errors.New("connection refused")
	case want != "" && password == "":
		return nil, "", errors.New("NOAUTH Authentication required.")
	case want != "" && (password != want || user != "" && user != "default"):
		return nil, "", errors.New("WRONGPASS invalid username-password pair or user is disabled.")
	case s.loading():
		return nil, "", errors.New("LOADING Redis is loading the dataset in memory")
	case r.masterHost != "" && r.state != "connected":
		return nil, "", errors.New("NOMASTERLINK Can't SYNC while not connected with my master")
	}
	known := id == r.id || id == r.id2 && offset <= r.second
	if known && b.active && offset >= b.first && offset <= b.first+b.len {
		s.stats.syncPartialOK++
		l.state, l.ackAt = "online", s.clock.Now()
		i, _ := slices.BinarySearchFunc(b.items, offset, func(e element, o int64) int { return int(min(max(e.end-o, -1), 1)) })
		l.push(b.items[i:]...)
		s.links = append(s.liveLinks(), l)
		return nil, r.id, nil
	}
	if id != "?" {
		s.stats.syncPartialErr++
	}
	s.stats.syncFull++
	if !b.active && r.masterHost == "" {
		r.id, r.id2, r.second = newID(), "", -1
	}
	s.openBacklog(r.offset)
	if r.masterHost == "" {
		r.selected = -1 // the stream after the snapshot says its database itself
	}
	l.state, l.ackAt = "wait_bgsave", s.clock.Now()
	snap := &snapshot{id: r.id, offset: r.offset}
	for _, d := range s.dbs {
		snap.dbs = append(snap.dbs, d.Clone())
	}
	s.links = append(s.liveLinks(), l)
	return snap, r.id, nil
}

func (s *Server) openBacklog(offset int64) {
	if !s.backlog.active {
		s.backlog = backlog{active: true, first: offset + 1}
	}
}

// sync waits as long as the transfer takes, and then replaces the data set.
func (s *Server) sync(ctx context.Context, l *link, snap *snapshot, mine func(func()) bool) bool {
	s.mu.Lock()
	d := s.fullSync
	s.mu.Unlock()
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-l.done:
			cancel()
		case <-wait.Done():
		}
	}()
	err := s.clock.Sleep(wait, d)
	cancel()
	<-stopped
	if err != nil {
		return false
	}
	return mine(func() {
		s.dbs = snap.dbs
		s.version++
		r := &s.repl
		r.id, r.id2, r.second, r.offset = snap.id, "", -1, snap.offset
		r.streamDB, r.selected, r.cached, r.state, r.lastIO = -1, -1, true, "connected", s.clock.Now()
		s.backlog = backlog{active: true, first: snap.offset + 1}
		for _, sub := range s.links { // their history is not ours any more
			sub.close()
		}
		l.acknowledge(r.offset, s.clock.Now())
	})
}

// stream applies what the master writes, each command Lag after it was written, until the link breaks. A pause of this
// server holds it, all of it or its writes.
func (s *Server) stream(ctx context.Context, l *link) {
	c := &client{authed: true, master: true, proto: 2}
	for {
		e, some := l.head()
		if !some {
			select {
			case <-l.wake:
				continue
			case <-l.done:
			case <-ctx.Done():
			}
			return
		}
		if !s.arrive(ctx, l, e) {
			return
		}
		held, ok := s.applyOne(ctx, l, c, e)
		if !ok {
			return
		}
		if held != nil {
			select {
			case <-held:
			case <-ctx.Done():
			case <-l.done:
			}
			s.mu.Lock()
			s.pause.blocked--
			s.mu.Unlock()
		}
	}
}

func (l *link) head() (element, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return element{}, false
	}
	return l.queue[0], true
}

func (l *link) pop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = l.queue[1:]
}

// arrive waits out the lag. It is read again now and then: a test may change it meanwhile.
func (s *Server) arrive(ctx context.Context, l *link, e element) bool {
	for {
		s.mu.Lock()
		left := e.at.Add(min(s.lag, Forever/2)).Sub(s.clock.Now())
		s.mu.Unlock()
		if l.closed() || ctx.Err() != nil {
			return false
		}
		if left <= 0 {
			return true
		}
		if s.clock.Sleep(ctx, min(left, 100*time.Millisecond)) != nil {
			return false
		}
	}
}

// applyOne carries out one command of the stream, or gives the channel to wait for where a pause holds it.
func (s *Server) applyOne(ctx context.Context, l *link, c *client, e element) (held <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || l.closed() {
		return nil, false
	}
	r := &s.repl
	r.lastIO = s.clock.Now()
	name := strings.ToUpper(e.args[0])
	cmd := s.commands[name]
	if s.pause.kind == pauseAll || s.pause.kind == pauseWrite && cmd != nil && cmd.mayWrite() {
		s.pause.blocked++
		return s.pause.over, true
	}
	c.db = max(r.streamDB, 0)
	switch name {
	case "SELECT":
		r.streamDB, _ = strconv.Atoi(e.args[1])
	case "PING", "MULTI", "EXEC":
	case "REPLCONF":
		defer func() { l.acknowledge(r.offset, s.clock.Now()) }()
	default:
		s.call(c, cmd, e.args)
	}
	r.offset = e.end
	l.pop()
	s.pass(e)
	return nil, true
}

// received is how far the master's stream has come here, applied or held by a pause: slave_read_repl_offset.
func (s *Server) received() int64 {
	end, l := s.repl.offset, s.repl.link
	if l == nil || s.repl.state != "connected" {
		return end
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := s.clock.Now()
	for _, e := range l.queue {
		if e.at.Add(min(s.lag, Forever/2)).After(now) {
			break
		}
		end = e.end
	}
	return end
}

// ackMaster is REPLCONF ACK, once a second.
func (s *Server) ackMaster() {
	if r := &s.repl; r.link != nil && r.state == "connected" && !r.link.closed() {
		r.link.acknowledge(r.offset, s.clock.Now())
		r.lastIO = s.clock.Now()
	}
}
