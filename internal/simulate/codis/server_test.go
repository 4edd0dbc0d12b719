package codis_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/resp"
)

// server is a small codis-server: strings, slots, their migration key by key, a master to follow.
type server struct {
	t        testing.TB
	addr     string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	keys   map[string]string
	master string
	log    [][]string
	// answer may answer a command instead; ok is false where it does not. It is called without the lock.
	answer func(args []string) (v resp.Value, ok bool)
	stuck  chan struct{} // while not nil: nothing is answered until it is closed
}

func startServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, keys: map[string]string{}, addr: "127.0.0.1:0"}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.conns = map[net.Conn]bool{}
	s.mu.Unlock()
	s.listener, s.addr = l, l.Addr().String()
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.conns == nil { // stopped since it was accepted
				s.mu.Unlock()
				c.Close()
				return
			}
			s.conns[c] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
}

func (s *server) stop() {
	s.listener.Close()
	s.hang(false)
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// hang makes the server answer nothing, or go on.
func (s *server) hang(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case on && s.stuck == nil:
		s.stuck = make(chan struct{})
	case !on && s.stuck != nil:
		close(s.stuck)
		s.stuck = nil
	}
}

func (s *server) script(f func(args []string) (resp.Value, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	var queued []resp.Value
	inMulti := false
	for {
		args, err := resp.ReadCommand(r)
		if err != nil {
			return
		}
		s.mu.Lock()
		stuck, script := s.stuck, s.answer
		if args[0] != "PING" {
			s.log = append(s.log, args)
		}
		s.mu.Unlock()
		if stuck != nil {
			<-stuck
		}
		var v resp.Value
		ok := false
		if script != nil {
			v, ok = script(args)
		}
		switch op := strings.ToUpper(args[0]); {
		case ok:
		case op == "MULTI":
			inMulti, queued, v = true, nil, resp.OK()
		case op == "EXEC":
			inMulti, v = false, resp.List(queued...)
		case inMulti:
			queued = append(queued, s.do(args))
			v = resp.Simple("QUEUED")
		default:
			v = s.do(args)
		}
		if _, err := c.Write(v.Append(nil, 2)); err != nil {
			return
		}
	}
}

func (s *server) do(args []string) resp.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch op := strings.ToUpper(args[0]); op {
	case "PING":
		return resp.Simple("PONG")
	case "AUTH", "SELECT", "CLIENT", "SLOTSINFO":
		if op == "SLOTSINFO" {
			return resp.List()
		}
		return resp.OK()
	case "CONFIG":
		if strings.EqualFold(arg(1), "GET") {
			return resp.Texts("maxmemory", "0")
		}
		return resp.OK()
	case "SLAVEOF":
		s.master = net.JoinHostPort(arg(1), arg(2))
		if arg(1) == "NO" {
			s.master = ""
		}
		return resp.OK()
	case "INFO":
		return resp.Text(s.info())
	case "SET":
		s.keys[arg(1)] = arg(2)
		return resp.OK()
	case "GET", "MGET":
		v, ok := s.keys[arg(1)]
		one := resp.Text(v)
		if !ok {
			one = resp.Nil()
		}
		if op == "MGET" {
			return resp.List(one)
		}
		return one
	case "MSET":
		s.keys[arg(1)] = arg(2)
		return resp.OK()
	case "DEL", "EXISTS":
		_, ok := s.keys[arg(1)]
		if op == "DEL" {
			delete(s.keys, arg(1))
		}
		return resp.Number(map[bool]int{true: 1}[ok])
	case "INCR":
		n, _ := strconv.Atoi(s.keys[arg(1)])
		s.keys[arg(1)] = strconv.Itoa(n + 1)
		return resp.Number(n + 1)
	case "SLOTSMGRTTAGSLOT-ASYNC", "SLOTSMGRTTAGSLOT":
		slot := arg(6)
		if op == "SLOTSMGRTTAGSLOT" {
			slot = arg(4)
		}
		n, _ := strconv.Atoi(slot)
		return s.migrate(net.JoinHostPort(arg(1), arg(2)), n)
	case "SLOTSMGRTTAGONE":
		if v, ok := s.keys[arg(4)]; ok {
			s.send(net.JoinHostPort(arg(1), arg(2)), arg(4), v)
			return resp.Number(1)
		}
		return resp.Number(0)
	case "SLOTSMGRT-EXEC-WRAPPER":
		if _, ok := s.keys[arg(1)]; !ok {
			return resp.List(resp.Number(0), resp.Nil())
		}
		s.mu.Unlock()
		v := s.do(args[2:])
		s.mu.Lock()
		return resp.List(resp.Number(2), v)
	}
	return resp.Errorf("ERR unknown command '%s'", args[0])
}

// migrate moves one key of a slot and tells how many are left.
func (s *server) migrate(to string, slot int) resp.Value {
	moved, left := 0, 0
	for k, v := range s.keys {
		switch {
		case codis.SlotOf(k) != slot:
		case moved == 0:
			s.send(to, k, v)
			moved++
		default:
			left++
		}
	}
	return resp.List(resp.Number(moved), resp.Number(left))
}

func (s *server) send(to, key, value string) {
	c, err := resp.Dial(context.Background(), to)
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := c.Do(context.Background(), "SET", key, value); err == nil {
		delete(s.keys, key)
	}
}

func (s *server) info() string {
	_, port, _ := net.SplitHostPort(s.addr)
	out := "# Server\r\nredis_version:3.2.11\r\nredis_mode:standalone\r\nprocess_id:8158\r\nrun_id:b29b7e1cb2344ee800fefa70cf9a87d87d18faa4\r\ntcp_port:" + port +
		"\r\nuptime_in_seconds:1\r\nused_memory:2571800\r\nconnected_slaves:0\r\ninstantaneous_ops_per_sec:1\r\nrdb_last_save_time:1795322595\r\n"
	if s.master == "" {
		out += "role:master\r\n"
	} else {
		host, port, _ := net.SplitHostPort(s.master)
		out += fmt.Sprintf("role:slave\r\nmaster_host:%s\r\nmaster_port:%s\r\nmaster_link_status:up\r\n", host, port)
	}
	out += "loading:0\r\n# Keyspace\r\n"
	if len(s.keys) > 0 {
		out += fmt.Sprintf("db0:keys=%d,expires=0,avg_ttl=0\r\n", len(s.keys))
	}
	return out
}

// commands lists what arrived, without pings.
func (s *server) commands(name string) [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]string
	for _, c := range s.log {
		if strings.EqualFold(c[0], name) {
			out = append(out, c)
		}
	}
	return out
}

func (s *server) value(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key]
}

// following is the master, "" for none.
func (s *server) following() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.master
}

// plain makes a server without transactions.
func plain(args []string) (resp.Value, bool) {
	if op := strings.ToUpper(args[0]); op == "MULTI" || op == "EXEC" {
		return resp.Errorf("ERR unknown command '%s'", args[0]), true
	}
	return resp.Value{}, false
}
