package codis

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"runbook/internal/simulate/resp"
)

// request is one command on its way through a proxy.
type request struct {
	args  []string
	op    string
	kind  commandKind
	db    int
	began time.Time
	from  *session

	batch *sync.WaitGroup // what is to be answered before the client is
	slot  *slotState      // in flight there until answered
	reply resp.Value
	err   error
	join  func() error // makes one answer of those of the parts
}

// settle answers a request that was pushed to a server.
func (q *request) settle(v resp.Value, err error) {
	q.reply, q.err = v, err
	if q.slot != nil {
		q.slot.leave()
	}
	q.batch.Done()
}

func (q *request) broken() bool { return q.from != nil && q.from.broken.Load() }

func (q *request) masterOnly() bool { return q.kind != reads }

// session is one client. Requests are taken up one after the other: while one waits for a held slot, those behind it wait as well.
type session struct {
	p      *proxyLife
	conn   net.Conn
	authed bool
	db     int
	quit   bool
	broken atomic.Bool
}

const (
	maxClients  = 1000
	maxPipeline = 1024
)

func (p *proxyLife) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !p.run(func() { p.converse(c) }) {
			_ = c.Close()
		}
	}
}

func (p *proxyLife) converse(c net.Conn) {
	defer c.Close()
	if !p.track(c) {
		return
	}
	defer p.untrack(c)
	if !p.gate.pass(p.ctx) {
		return
	}
	p.numbers.sessions.Add(1)
	alive := p.numbers.alive.Add(1)
	defer p.numbers.alive.Add(-1)
	refusal := ""
	switch {
	case alive > maxClients:
		refusal = "ERR max number of clients reached"
	case !p.router.online.Load():
		refusal = "ERR router is not online"
	}
	if refusal != "" {
		p.numbers.fails.Add(1)
		_, _ = c.Write(resp.Errorf("%s", refusal).Append(nil, 2))
		return
	}
	s := &session{p: p, conn: c}
	tasks := make(chan *request, maxPipeline)
	written := make(chan struct{})
	if !p.run(func() { defer close(written); s.write(tasks) }) {
		return
	}
	s.read(tasks)
	<-written // what was asked before the client left is answered
}

func (s *session) read(tasks chan *request) {
	defer close(tasks)
	r := bufio.NewReaderSize(s.conn, 32<<10)
	for !s.quit {
		args, err := resp.ReadCommand(r)
		if err != nil || !s.p.gate.pass(s.p.ctx) {
			return
		}
		s.p.numbers.total.Add(1)
		q := &request{args: args, db: s.db, began: time.Now(), from: s, batch: &sync.WaitGroup{}}
		if err := s.handle(q); err != nil {
			if errors.Is(err, errEnded) {
				return
			}
			q.reply, q.err, q.join = resp.Errorf("ERR handle request, %s", err), nil, nil
		}
		tasks <- q
	}
}

func (s *session) write(tasks chan *request) {
	defer func() {
		s.broken.Store(true)
		_ = s.conn.Close()
		for range tasks {
			s.p.numbers.fails.Add(1)
		}
	}()
	var out []byte
	for q := range tasks {
		q.batch.Wait()
		v, err := q.answer()
		if err != nil {
			v = resp.Errorf("ERR handle response, %s", err)
		}
		s.p.numbers.count(q.op, time.Since(q.began), v.Kind == resp.Err)
		out = v.Append(out, 2)
		if len(tasks) > 0 && len(out) < 32<<10 {
			continue
		}
		if !s.p.gate.pass(s.p.ctx) {
			return
		}
		if _, err := s.conn.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

func (q *request) answer() (resp.Value, error) {
	if q.join != nil {
		if err := q.join(); err != nil {
			return resp.Value{}, err
		}
	}
	if q.err == nil && q.reply.IsZero() {
		return resp.Value{}, errRespRequired
	}
	return q.reply, q.err
}

// handle answers a request itself or sends it on. An error is answered instead.
func (s *session) handle(q *request) error {
	q.op = strings.ToUpper(q.args[0])
	if len(q.op) > 64 {
		return errors.New("bad command length, too short or too long")
	}
	q.kind = s.p.router.commands[q.op]
	if q.kind == refused {
		return fmt.Errorf("command '%s' is not allowed", q.op)
	}
	switch q.op {
	case "QUIT":
		s.quit = true
		q.reply = resp.OK()
		return nil
	case "AUTH":
		q.reply = s.auth(q.args)
		return nil
	}
	if !s.authed && s.p.opts.SessionAuth != "" {
		q.reply = resp.Errorf("NOAUTH Authentication required")
		return nil
	}
	switch q.op {
	case "SELECT":
		q.reply = s.selectDB(q.args)
	case "PING", "INFO":
		return s.toServer(q)
	case "MGET", "DEL", "EXISTS":
		return s.split(q, 1)
	case "MSET":
		return s.split(q, 2)
	case "SLOTSINFO":
		if len(q.args) != 2 {
			q.reply = wrongNumber(q.op)
			return nil
		}
		return s.toServer(q)
	case "SLOTSSCAN":
		return s.slotsScan(q)
	case "SLOTSMAPPING":
		q.reply = s.slotsMapping(q.args)
	default:
		return s.p.router.dispatch(q)
	}
	return nil
}

func wrongNumber(op string) resp.Value {
	return resp.Errorf("ERR wrong number of arguments for '%s' command", op)
}

func (s *session) auth(args []string) resp.Value {
	switch want := s.p.opts.SessionAuth; {
	case len(args) != 2:
		return wrongNumber("AUTH")
	case want == "":
		return resp.Errorf("ERR Client sent AUTH, but no password is set")
	case args[1] != want:
		s.authed = false
		return resp.Errorf("ERR invalid password")
	}
	s.authed = true
	return resp.OK()
}

func (s *session) selectDB(args []string) resp.Value {
	if len(args) != 2 {
		return wrongNumber("SELECT")
	}
	db, err := strconv.Atoi(args[1])
	switch {
	case err != nil:
		return resp.Errorf("ERR invalid DB index")
	case db < 0 || db >= databases:
		return resp.Errorf("ERR invalid DB index, only accept DB [0,%d)", databases)
	}
	s.db = db
	return resp.OK()
}

// toServer sends a command about a server to the one that its first argument names, to that of any slot without.
func (s *session) toServer(q *request) error {
	if len(q.args) == 1 {
		return s.p.router.dispatchSlot(q, q.began.Nanosecond()%SlotCount)
	}
	addr := q.args[1]
	q.args = append(q.args[:1:1], q.args[2:]...)
	if !s.p.router.dispatchAddr(q, addr) {
		q.reply = resp.Errorf("ERR backend server '%s' not found", addr)
	}
	return nil
}

// split sends the parts of a command, each of so many arguments, where their keys belong, and puts the answers together. The parts are not
// one transaction.
func (s *session) split(q *request, size int) error {
	n := len(q.args) - 1
	switch {
	case n == 0 || n%size != 0:
		q.reply = wrongNumber(q.op)
		return nil
	case n == size:
		return s.p.router.dispatch(q)
	}
	parts := make([]*request, 0, n/size)
	for i := 1; i <= n; i += size {
		part := *q
		part.args = append([]string{q.args[0]}, q.args[i:i+size]...)
		parts = append(parts, &part)
		if err := s.p.router.dispatch(&part); err != nil {
			return err
		}
	}
	q.join = func() error {
		var err error
		q.reply, err = together(q.op, parts)
		return err
	}
	return nil
}

func together(op string, parts []*request) (resp.Value, error) {
	var sum int64
	list := make([]resp.Value, 0, len(parts))
	for _, p := range parts {
		v := p.reply
		switch {
		case p.err != nil:
			return v, p.err
		case op == "MGET" && v.Kind == resp.Array && len(v.Items) == 1:
			list = append(list, v.Items[0])
		case op == "MSET" && v.Kind == resp.Status:
		case (op == "DEL" || op == "EXISTS") && v.Kind == resp.Int && v.Int >= 0 && v.Int <= 9:
			sum += v.Int
		case op == "MGET":
			return v, fmt.Errorf("bad mget resp: %s array.len = %d", typeName(v), len(v.Items))
		default:
			return v, fmt.Errorf("bad %s resp: %s value.len = %d", strings.ToLower(op), typeName(v), len(v.String()))
		}
	}
	switch op {
	case "MGET":
		return resp.List(list...), nil
	case "MSET":
		return resp.OK(), nil
	}
	return resp.Number(sum), nil
}

func (s *session) slotsScan(q *request) error {
	if len(q.args) <= 2 {
		q.reply = wrongNumber(q.op)
		return nil
	}
	id, bad := slotNumber(q.args[1])
	if bad != nil {
		q.reply = *bad
		return nil
	}
	return s.p.router.dispatchSlot(q, id)
}

func (s *session) slotsMapping(args []string) resp.Value {
	switch len(args) {
	case 1:
		var out []resp.Value
		for _, m := range s.p.router.list() {
			out = append(out, mappingReply(m))
		}
		return resp.List(out...)
	case 2:
		id, bad := slotNumber(args[1])
		if bad != nil {
			return *bad
		}
		return mappingReply(s.p.router.list()[id])
	}
	return wrongNumber("SLOTSMAPPING")
}

func slotNumber(text string) (int, *resp.Value) {
	id, err := strconv.ParseInt(text, 10, 64)
	var bad resp.Value
	switch {
	case err != nil:
		bad = resp.Errorf("ERR parse slotnum '%s' failed, %s", text, err)
	case id < 0 || id >= SlotCount:
		bad = resp.Errorf("ERR parse slotnum '%s' failed, out of range", text)
	default:
		return int(id), nil
	}
	return 0, &bad
}

func mappingReply(m Slot) resp.Value {
	var groups []resp.Value
	for _, g := range m.ReplicaGroups {
		var addrs []resp.Value
		for _, a := range g {
			addrs = append(addrs, resp.Simple(a))
		}
		groups = append(groups, resp.List(addrs...))
	}
	return resp.List(resp.Simple(strconv.Itoa(m.ID)), resp.Simple(m.BackendAddr), resp.Simple(m.MigrateFrom), resp.List(groups...))
}
