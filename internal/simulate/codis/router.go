package codis

import (
	"context"
	"errors"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"runbook/internal/simulate/resp"
)

// router is where a proxy sends what: 1024 slots, and the connections to servers that they share.
type router struct {
	p        *process
	opts     *ProxyOptions
	commands map[string]commandKind
	primary  *backends
	replica  *backends
	slots    [SlotCount]slotState
	online   atomic.Bool
	heldNow  atomic.Int64 // requests that wait for a held slot
	mu       sync.RWMutex // held by a fill for as long as requests of the slot are under way
	isClosed bool
}

// slotState is one slot of a proxy. A held one lets nothing pass; to hold it waits for what has passed.
type slotState struct {
	id int

	mu        sync.Mutex
	held      bool
	opened    chan struct{} // while held: closed when it is open again
	inFlight  int
	drained   chan struct{} // while somebody waits: closed when nothing is in flight
	to, from  *backend
	toGroup   int
	fromGroup int
	replicas  [][]*backend
	method    int
}

const (
	forwardSync = iota
	forwardSemiAsync
)

var (
	errClosedRouter  = errors.New("use of closed router")
	errInvalidSlot   = errors.New("use of invalid slot id")
	errInvalidMethod = errors.New("use of invalid forwarder method")
	errSlotNotReady  = errors.New("slot is not ready, may be offline")
	errRespRequired  = errors.New("resp is required")
	errBrokenRequest = errors.New("request is broken")
)

func newRouter(p *process, o *ProxyOptions) *router {
	r := &router{p: p, opts: o, commands: commandTable(), primary: newBackends(p, o, o.PrimaryParallel), replica: newBackends(p, o, 1)}
	for i := range r.slots {
		r.slots[i].id = i
	}
	return r
}

// fill sets one slot. It returns when no request of that slot is under way any more, or when the process has ended.
func (r *router) fill(m *Slot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.isClosed:
		return errClosedRouter
	case m.ID < 0 || m.ID >= SlotCount:
		return errInvalidSlot
	case m.ForwardMethod != forwardSync && m.ForwardMethod != forwardSemiAsync:
		return errInvalidMethod
	}
	return r.set(m)
}

func (r *router) set(m *Slot) error {
	s := &r.slots[m.ID]
	if !s.hold(r.p.ctx) {
		return errEnded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := append([]*backend{s.to, s.from}, flat(s.replicas)...)
	s.to, s.toGroup = r.primary.retain(m.BackendAddr), 0
	if s.to != nil {
		s.toGroup = m.BackendAddrGroupID
	}
	s.from, s.fromGroup = r.primary.retain(m.MigrateFrom), 0
	if s.from != nil {
		s.fromGroup = m.MigrateFromGroupID
	}
	s.replicas = nil
	for _, group := range m.ReplicaGroups {
		var bs []*backend
		for _, addr := range group {
			bs = append(bs, r.replica.retain(addr))
		}
		if len(bs) > 0 {
			s.replicas = append(s.replicas, bs)
		}
	}
	for _, b := range old {
		b.release()
	}
	s.method = m.ForwardMethod
	if !m.Locked {
		s.held = false
		close(s.opened)
	}
	return nil
}

func flat(groups [][]*backend) []*backend {
	var out []*backend
	for _, g := range groups {
		out = append(out, g...)
	}
	return out
}

// close takes every slot away and waits for what is under way.
func (r *router) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed {
		return
	}
	r.isClosed = true
	r.online.Store(false)
	for i := range r.slots {
		if r.set(&Slot{ID: i}) != nil {
			return
		}
	}
}

// list gives every slot. It waits while a fill does.
func (r *router) list() []Slot {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.peek()
}

// peek is list without waiting.
func (r *router) peek() []Slot {
	out := make([]Slot, SlotCount)
	for i := range r.slots {
		out[i] = r.slots[i].snapshot()
	}
	return out
}

func (s *slotState) snapshot() Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Slot{
		ID: s.id, Locked: s.held, BackendAddr: s.to.address(), BackendAddrGroupID: s.toGroup,
		MigrateFrom: s.from.address(), MigrateFromGroupID: s.fromGroup, ForwardMethod: s.method,
	}
	for _, group := range s.replicas {
		var addrs []string
		for _, b := range group {
			addrs = append(addrs, b.address())
		}
		out.ReplicaGroups = append(out.ReplicaGroups, addrs)
	}
	return out
}

// hold lets nothing pass from now on, and returns when nothing is in flight. It is false where ctx ended.
func (s *slotState) hold(ctx context.Context) bool {
	s.mu.Lock()
	if !s.held {
		s.held, s.opened = true, make(chan struct{})
	}
	if s.inFlight == 0 {
		s.mu.Unlock()
		return ctx.Err() == nil
	}
	s.drained = make(chan struct{})
	drained := s.drained
	s.mu.Unlock()
	select {
	case <-drained:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// pass waits until the slot is open and counts the request as in flight; leave takes it off again.
func (r *router) pass(s *slotState) bool {
	for {
		s.mu.Lock()
		if !s.held {
			s.inFlight++
			s.mu.Unlock()
			return true
		}
		opened := s.opened
		s.mu.Unlock()
		r.heldNow.Add(1)
		select {
		case <-opened:
			r.heldNow.Add(-1)
		case <-r.p.ctx.Done():
			r.heldNow.Add(-1)
			return false
		}
	}
}

func (s *slotState) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if s.inFlight == 0 && s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}

// dispatch sends a request where its key belongs.
func (r *router) dispatch(q *request) error {
	key := hashKey(q)
	return r.forward(q, &r.slots[SlotOf(key)], key)
}

// dispatchSlot sends a request without a key to the server of a slot.
func (r *router) dispatchSlot(q *request, id int) error { return r.forward(q, &r.slots[id], "") }

// dispatchAddr sends a request to a server that some slot uses. It waits while a fill does.
func (r *router) dispatchAddr(q *request, addr string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, set := range []*backends{r.primary, r.replica} {
		if c := set.get(addr).conn(q, false); c != nil {
			c.push(q)
			return true
		}
	}
	return false
}

// forward waits for the slot, then for its key while the slot migrates, and then hands the request over. A key whose transfer is under
// way is asked for again and again, without an end but the client's.
func (r *router) forward(q *request, s *slotState, key string) error {
	for try := 0; ; try++ {
		if !r.pass(s) {
			return errEnded
		}
		again, err := r.try(q, s, key)
		if err != nil || !again {
			return err
		}
		var pause time.Duration
		switch {
		case try < 5:
		case try < 20:
			pause = time.Duration(try) * time.Millisecond
		default:
			pause = 20 * time.Millisecond
		}
		if !r.p.sleep(pause) {
			return errEnded
		}
		if q.broken() {
			return errBrokenRequest
		}
	}
}

// try is one pass through an open slot; the slot is left when the request is answered, or at once where it is not handed over.
func (r *router) try(q *request, s *slotState, key string) (again bool, err error) {
	s.mu.Lock()
	to, from, replicas, method := s.to, s.from, s.replicas, s.method
	s.mu.Unlock()
	keep := false
	defer func() {
		if !keep {
			s.leave()
		}
	}()
	if to == nil {
		return false, errSlotNotReady
	}
	if from != nil && key != "" {
		if method == forwardSync {
			if err := moveKey(q, to, from, key); err != nil {
				return false, err
			}
		} else {
			v, where, err := execWrapped(q, from, key)
			switch {
			case err != nil:
				return false, err
			case where == onSource:
				q.reply = v
				return false, nil
			case where == underWay:
				return true, nil
			}
		}
	}
	keep = true
	q.slot = s
	if from == nil && !q.masterOnly() {
		for _, group := range replicas {
			for _, b := range group {
				if c := b.conn(q, false); c != nil {
					c.push(q)
					return false, nil
				}
			}
		}
	}
	to.conn(q, true).push(q)
	return false, nil
}

// moveKey has the source send one key, with those of its hash tag, before the request goes to the target.
func moveKey(q *request, to, from *backend, key string) error {
	host, port, err := splitAddr(to.addr)
	if err != nil {
		return err
	}
	v, err := from.ask(q, "SLOTSMGRTTAGONE", host, port, "3000", key)
	switch {
	case err != nil:
		return err
	case v.Kind == resp.Err:
		return errors.New("bad slotsmgrt resp: " + v.Str)
	case v.Kind != resp.Int:
		return errors.New("bad slotsmgrt resp: should be integer, but got " + typeName(v))
	}
	return nil
}

type whereabouts int

const (
	onTarget whereabouts = iota
	underWay
	onSource
)

// execWrapped has the source carry the request out where it still has the key.
func execWrapped(q *request, from *backend, key string) (resp.Value, whereabouts, error) {
	const bad = "bad slotsmgrt-exec-wrapper resp: "
	v, err := from.ask(q, append([]string{"SLOTSMGRT-EXEC-WRAPPER", key}, q.args...)...)
	switch {
	case err != nil:
		return v, 0, err
	case v.Kind == resp.Err:
		return v, 0, errors.New(bad + v.Str)
	case v.Kind != resp.Array:
		return v, 0, errors.New(bad + "should be integer, but got " + typeName(v))
	case len(v.Items) != 2:
		return v, 0, errors.New(bad + "array.len = " + strconv.Itoa(len(v.Items)))
	}
	code := v.Items[0]
	switch text := code.String(); {
	case code.Kind != resp.Int || len(text) != 1:
		return v, 0, errors.New(bad + "type(array[0]) = " + typeName(code) + ", len(array[0].value) = " + strconv.Itoa(len(text)))
	case text == "0":
		return v, onTarget, nil
	case text == "1":
		return v, underWay, nil
	case text == "2":
		return v.Items[1], onSource, nil
	default:
		return v, 0, errors.New(bad + "[" + text + "] " + v.Items[1].String())
	}
}

// SlotOf is the slot of a key: by its hash tag, the part between the first brace and the next closing one, where it has one.
func SlotOf(key string) int {
	if _, tag, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok = strings.Cut(tag, "}"); ok {
			key = tag
		}
	}
	return int(crc32.ChecksumIEEE([]byte(key)) % SlotCount)
}

func hashKey(q *request) string {
	i := 1
	switch q.op {
	case "ZINTERSTORE", "ZUNIONSTORE", "EVAL", "EVALSHA":
		i = 3
	}
	if i < len(q.args) {
		return q.args[i]
	}
	return ""
}

func typeName(v resp.Value) string {
	switch v.Kind {
	case resp.Status:
		return "<string>"
	case resp.Err:
		return "<error>"
	case resp.Int:
		return "<int>"
	case resp.Array:
		return "<array>"
	}
	return "<bulkbytes>"
}
