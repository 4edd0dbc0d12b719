package zktest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// Loss is what becomes of a request on its way.
type Loss int

// The ways to lose a request.
const (
	None   Loss = iota
	Before      // the connection is cut before the request reaches the server
	After       // the connection is cut after the server has answered, before the answer reaches the client
	Hang        // the request and all that follow on its connection never reach the server
)

// Relay stands between clients and a server, knows where a request begins and ends, and loses those it is told to.
type Relay struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu     sync.Mutex
	ask    func(write bool) Loss
	writes int
	open   map[net.Conn]bool
	shut   bool // no connection goes through
	closed bool
}

// NewRelay starts a relay to a server; it ends with the test.
func NewRelay(t testing.TB, to string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{listener: l, to: to, open: map[net.Conn]bool{}}
	r.wg.Add(1)
	go r.accept()
	t.Cleanup(r.close)
	return r
}

// Addr is where clients connect.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Intercept has f asked about every request of a client, what keeps its session alive apart; nil: nothing is lost.
func (r *Relay) Intercept(f func(write bool) Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask = f
}

// Writes counts the requests so far that may change something.
func (r *Relay) Writes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

// Partition cuts all connections and lets none through until heal.
func (r *Relay) Partition() (heal func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	for c := range r.open {
		_ = c.Close()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.shut = false
	}
}

func (r *Relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Relay) accept() {
	defer r.wg.Done()
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			r.serve(c)
		}()
	}
}

// keep holds a connection, so that it can be cut; false where it must go at once.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut || r.closed {
		_ = c.Close()
		return false
	}
	r.open[c] = true
	return true
}

func (r *Relay) release(c net.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *Relay) serve(client net.Conn) {
	if !r.keep(client) {
		return
	}
	defer r.release(client)
	server, err := net.Dial("tcp", r.to)
	if err != nil || !r.keep(server) {
		return
	}
	defer r.release(server)
	p := &passage{r: r, client: client, server: server}
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		p.answers()
	}()
	p.requests()
}

// passage is one client's connection, both ways.
type passage struct {
	r              *Relay
	client, server net.Conn

	mu     sync.Mutex
	lost   uint32 // number of the request whose answer is lost
	losing bool
}

// Operations of ZooKeeper's protocol that change something, and those of which nobody is asked.
const (
	opCreate    = 1
	opDelete    = 2
	opSetData   = 5
	opSetACL    = 7
	opPing      = 11
	opMulti     = 14
	opAuth      = 100
	opCloseConn = 0xfffffff5 // -11
)

// requests passes what the client sends. Its first message is its login, without a number and an operation.
func (p *passage) requests() {
	defer func() { _ = p.server.Close() }()
	for login := true; ; login = false {
		message, err := read(p.client)
		if err != nil {
			return
		}
		loss := None
		if !login && len(message) >= 12 {
			loss = p.r.judge(binary.BigEndian.Uint32(message[8:]))
		}
		switch loss {
		case Before:
			_ = p.client.Close()
			return
		case After:
			p.mu.Lock()
			p.lost, p.losing = binary.BigEndian.Uint32(message[4:]), true
			p.mu.Unlock()
		case Hang:
			_, _ = io.Copy(io.Discard, p.client)
			return
		}
		if _, err := p.server.Write(message); err != nil {
			return
		}
	}
}

func (r *Relay) judge(op uint32) Loss {
	switch op {
	case opPing, opAuth, opCloseConn:
		return None
	}
	write := op == opCreate || op == opDelete || op == opSetData || op == opSetACL || op == opMulti
	r.mu.Lock()
	if write {
		r.writes++
	}
	ask := r.ask
	r.mu.Unlock()
	if ask == nil {
		return None
	}
	return ask(write)
}

// answers passes what the server sends.
func (p *passage) answers() {
	defer func() { _ = p.client.Close() }()
	for login := true; ; login = false {
		message, err := read(p.server)
		if err != nil {
			return
		}
		p.mu.Lock()
		lost := !login && p.losing && len(message) >= 8 && binary.BigEndian.Uint32(message[4:]) == p.lost
		p.mu.Unlock()
		if lost {
			return
		}
		if _, err := p.client.Write(message); err != nil {
			return
		}
	}
}

// read gives one message with the length before it.
func read(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 64<<20 {
		return nil, io.ErrUnexpectedEOF
	}
	message := make([]byte, 4+n)
	copy(message, size[:])
	_, err := io.ReadFull(c, message[4:])
	return message, err
}
