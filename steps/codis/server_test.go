package codis

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	simcodis "runbook/internal/simulate/codis"
	"runbook/internal/simulate/resp"
)

// server is a small codis-server: strings with their slots, the migration of a key to another one, a master
// to follow. It stands for whatever is behind Codis in these tests: plain Redis and Pika where fields say so.
type server struct {
	addr, password string
	listener       net.Listener
	running        sync.WaitGroup

	mu     sync.Mutex
	peers  map[*resp.Peer]bool
	keys   map[string]string
	master string
	offset int64
	info   string // further lines of INFO
	script func(args []string) (resp.Value, bool)
}

func startServer(t *testing.T, password string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), password: password, listener: l, keys: map[string]string{}, peers: map[*resp.Peer]bool{}}
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p := resp.NewPeer(c)
			s.mu.Lock()
			s.peers[p] = true
			s.mu.Unlock()
			s.running.Go(func() { s.serve(p) })
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	peers := maps.Clone(s.peers)
	s.mu.Unlock()
	for p := range peers {
		p.Close()
	}
	s.running.Wait()
}

func (s *server) serve(p *resp.Peer) {
	in := s.password == ""
	p.Serve(func(args []string) ([]byte, bool) {
		var v resp.Value
		switch {
		case strings.EqualFold(args[0], "AUTH"):
			if in = args[1] == s.password; in {
				v = resp.OK()
			} else {
				v = resp.Errorf("ERR invalid password")
			}
		case !in:
			v = resp.Errorf("NOAUTH Authentication required.")
		default:
			v = s.do(args)
		}
		return v.Append(nil, 2), true
	})
}

// as makes the server answer as another kind of server does; nothing: as itself.
func (s *server) as(info string, script func(args []string) (resp.Value, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info, s.script = info, script
}

func (s *server) follow(master *server, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master, s.offset = master.addr, offset
}

func (s *server) fill(slot, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; keys > 0; i++ {
		if k := fmt.Sprint("k", i); simcodis.SlotOf(k) == slot {
			s.keys[k] = "v"
			keys--
		}
	}
}

// has counts the keys of a slot.
func (s *server) has(slot int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts()[slot]
}

func (s *server) counts() map[int]int {
	n := map[int]int{}
	for k := range s.keys {
		n[simcodis.SlotOf(k)]++
	}
	return n
}

func (s *server) do(args []string) resp.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.script != nil {
		if v, ok := s.script(args); ok {
			return v
		}
	}
	switch op := strings.ToUpper(args[0]); op {
	case "PING":
		return resp.Simple("PONG")
	case "SELECT", "CLIENT", "MULTI":
		return resp.OK()
	case "CONFIG":
		return resp.Texts("maxmemory", "0")
	case "INFO":
		return resp.Text(s.infoText())
	case "SLAVEOF":
		s.master = net.JoinHostPort(args[1], args[2])
		if strings.EqualFold(args[1], "NO") {
			s.master = ""
		}
		return resp.OK()
	case "EXEC":
		s.master = "" // Codis sends nothing in a transaction but SLAVEOF NO ONE here
		return resp.List()
	case "SET":
		s.keys[args[1]] = args[2]
		return resp.OK()
	case "GET":
		if v, ok := s.keys[args[1]]; ok {
			return resp.Text(v)
		}
		return resp.Nil()
	case "SLOTSINFO":
		var all []resp.Value
		for slot, n := range s.counts() {
			all = append(all, resp.List(resp.Number(slot), resp.Number(n)))
		}
		return resp.List(all...)
	case "SLOTSSCAN":
		slot, _ := strconv.Atoi(args[1])
		for k := range s.keys {
			if simcodis.SlotOf(k) == slot {
				return resp.List(resp.Text("0"), resp.Texts(k))
			}
		}
		return resp.List(resp.Text("0"), resp.List())
	case "SLOTSMGRTTAGSLOT-ASYNC":
		slot, _ := strconv.Atoi(args[6])
		return s.migrate(net.JoinHostPort(args[1], args[2]), slot)
	}
	return resp.Errorf("ERR unknown command '%s'", args[0])
}

// migrate moves one key of a slot and tells how many are left.
func (s *server) migrate(to string, slot int) resp.Value {
	moved, left := 0, 0
	for k, v := range s.keys {
		switch {
		case simcodis.SlotOf(k) != slot:
		case moved == 0 && s.send(to, k, v):
			delete(s.keys, k)
			moved++
		default:
			left++
		}
	}
	return resp.List(resp.Number(moved), resp.Number(left))
}

func (s *server) send(to, key, value string) bool {
	c, err := resp.Dial(context.Background(), to)
	if err != nil {
		return false
	}
	defer c.Close()
	if s.password != "" {
		if v, err := c.Do(context.Background(), "AUTH", s.password); err != nil || v.Error() != nil {
			return false
		}
	}
	v, err := c.Do(context.Background(), "SET", key, value)
	return err == nil && v.Error() == nil
}

func (s *server) infoText() string {
	out := "# Server\r\nredis_version:3.2.11\r\nredis_mode:standalone\r\n" + s.info
	if s.master == "" {
		out += fmt.Sprintf("role:master\r\nmaster_repl_offset:%d\r\n", s.offset)
	} else {
		host, port, _ := net.SplitHostPort(s.master)
		out += fmt.Sprintf("role:slave\r\nmaster_host:%s\r\nmaster_port:%s\r\nmaster_link_status:up\r\nslave_repl_offset:%d\r\n", host, port, s.offset)
	}
	return out + "loading:0\r\n# Keyspace\r\n"
}
