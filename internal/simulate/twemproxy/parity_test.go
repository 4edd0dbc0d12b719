package twemproxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/twemproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a proxy, real or simulated, before simulated servers.
type world struct {
	addr, stats string
	servers     map[string]*redis.Server
}

// starter starts a proxy with a configuration and gives the addresses of its pool and its statistics.
type starter func(t *testing.T, config, stats string)

func proxies() map[string]starter {
	return map[string]starter{"simulated": startSimulated, "nutcracker": startReal}
}

func startSimulated(t *testing.T, config, stats string) {
	t.Helper()
	s, err := twemproxy.Start(twemproxy.Options{Config: config, StatsAddr: stats})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
}

func needNutcracker(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"nutcracker", "/usr/sbin/nutcracker"} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skip("there is no nutcracker here: scripts/setup installs it")
	return ""
}

func startReal(t *testing.T, config, stats string) {
	t.Helper()
	binary := needNutcracker(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "n.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(stats)
	cmd := exec.Command(binary, "-c", file, "-a", host, "-s", port, "-i", "20", "-p", filepath.Join(dir, "pid"), "-o", filepath.Join(dir, "log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// newWorld starts a proxy before the servers of these names, one a slot in their order; more are further lines of the pool.
func newWorld(t *testing.T, start starter, slots []string, more ...string) *world {
	t.Helper()
	w := &world{addr: freeAddr(t), stats: freeAddr(t), servers: map[string]*redis.Server{}}
	config := fmt.Sprintf("alpha:\n  listen: %s\n  hash: crc32a\n  hash_tag: \"{}\"\n  distribution: modula\n  redis: true\n  timeout: 300\n", w.addr)
	for _, l := range more {
		config += "  " + l + "\n"
	}
	config += "  servers:\n"
	for i, name := range slots {
		if w.servers[name] == nil {
			s, err := redis.New(redis.Options{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			w.servers[name] = s
		}
		config += fmt.Sprintf("   - %s:1 s%d\n", w.servers[name].Addr(), i)
	}
	start(t, config, w.stats)
	eventually(t, "the proxy answers", func() bool { return w.ask(t, "*1\r\n$4\r\nPING\r\n") == "+PONG\r\n" })
	return w
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if is() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// mark is a request whose answer shows that everything before it was answered.
const mark = "*1\r\n$4\r\nPING\r\n"

// ask sends bytes on a connection of its own and gives what comes back, until the marker sent after it is answered or the
// proxy closes, which is shown as <EOF>.
func (w *world) ask(t *testing.T, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return err.Error()
	}
	var got []byte
	b := make([]byte, 4096)
	marked := request == mark
	for {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			return strings.TrimSuffix(string(got), "+PONG\r\n") + "<EOF>"
		}
		if strings.HasSuffix(string(got), "+PONG\r\n") && marked {
			if request == mark {
				return string(got)
			}
			return strings.TrimSuffix(string(got), "+PONG\r\n")
		}
		if !marked {
			marked = true
			if _, err := io.WriteString(c, mark); err != nil {
				return string(got) + "<EOF>"
			}
		}
	}
}

func command(line string) string { return string(resp.Command(strings.Fields(line)...)) }

// The slots of some keys among four, by CRC-32: d 0, b 1, e 2, a and c 3.
var two = []string{"x", "x", "y", "y"}

// TestAnswers: request by request, what a client is answered.
func TestAnswers(t *testing.T) {
	table := []struct{ request, want string }{
		{"SET a 1", "+OK\r\n"},
		{"set b 2", "+OK\r\n"},
		{"GET a", "$1\r\n1\r\n"},
		{"MGET a b nothing a", "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$1\r\n1\r\n"},
		{"MSET a 3 b 4 d 5", "+OK\r\n"},
		{"TOUCH a b nothing", ":2\r\n"},
		{"EXISTS a b", ":1\r\n"}, // not split: it goes where its first key belongs
		{"UNLINK a b", ":2\r\n"},
		{"DEL d nothing", ":1\r\n"},
		{"INCR n", ":1\r\n"},
		{"LPUSH l 1 2", ":2\r\n"},
		{"MGET l a", "*2\r\n$-1\r\n$-1\r\n"},
		{"GET l", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"},
		{"HSET h a 1", ":1\r\n"},
		{"EVAL return(1) 0", "<EOF>"},
		{"AUTH secret", "-ERR Client sent AUTH, but no password is set\r\n"},
		{"AUTH user secret", "<EOF>"},
		{"QUIT", "<EOF>"},
		{"GET", "<EOF>"},
		{"GET a b", "<EOF>"},
		{"MSET a 1 b", "<EOF>"},
		{"PING hello", "<EOF>"},
		{"SELECT 0", "<EOF>"},
		{"INFO", "<EOF>"},
		{"KEYS *", "<EOF>"},
		{"HELLO 2", "<EOF>"},
		{"CLIENT SETNAME me", "<EOF>"},
		{"MULTI", "<EOF>"},
		{"SCAN 0", "<EOF>"},
		{"SLOTSHASHKEY a", "<EOF>"},
		{"OBJECT ENCODING a", "<EOF>"},
		{"foo", "<EOF>"},
	}
	raw := []struct{ name, request, want string }{
		{"an inline command", "GET a\r\n", "<EOF>"},
		{"an empty request", "*0\r\n", "<EOF>"},
		{"requests at once", command("SET p 1") + command("GET p") + command("MGET p q"), "+OK\r\n$1\r\n1\r\n*2\r\n$1\r\n1\r\n$-1\r\n"},
		{"one that is not taken behind one that is", command("SET carried out") + command("KEYS *"), "<EOF>"},
		{"which was carried out", command("GET carried"), "$3\r\nout\r\n"},
		{"QUIT behind others", command("GET carried") + command("QUIT") + command("GET carried"), "$3\r\nout\r\n<EOF>"},
		{"a key that is too long", command("SET " + strings.Repeat("k", 16336) + " 1"), "<EOF>"},
		{"a key that just fits", command("SET " + strings.Repeat("k", 16335) + " 1"), "+OK\r\n"},
	}
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start, two)
			for _, c := range table {
				if got := w.ask(t, command(c.request)); got != c.want {
					t.Errorf("%s: %q, wanted %q", c.request, got, c.want)
				}
			}
			for _, c := range raw {
				if got := w.ask(t, c.request); got != c.want {
					t.Errorf("%s: %q, wanted %q", c.name, got, c.want)
				}
			}
		})
	}
}

// TestServerFails: what clients see of a server that is down, silent, or goes away under a request.
func TestServerFails(t *testing.T) {
	requests := []string{"GET a", "GET d", "MGET a d", "MGET d h b", "DEL a d", "MSET a 1 d 2", "EXISTS a b", "SET d 1", "PING"}
	answers := func(words string) []string {
		return []string{
			"-ERR " + words + "\r\n", "$1\r\nd\r\n", "-ERR " + words + "\r\n<EOF>", "-ERR " + words + "\r\n<EOF>", "-ERR " + words + "\r\n",
			"-ERR " + words + "\r\n", "-ERR " + words + "\r\n", "+OK\r\n", "",
		}
	}
	table := []struct {
		name, words string
		fail        func(*redis.Server)
	}{
		{"down", "Connection refused", func(s *redis.Server) { s.Close() }},
		{"silent", "Connection timed out", func(s *redis.Server) { s.SetIntercept(func([]string) redis.Action { return redis.Hang() }) }},
		{"gone", "unknown", func(s *redis.Server) { s.SetIntercept(func([]string) redis.Action { return redis.CutBefore() }) }},
	}
	for name, start := range proxies() {
		for _, c := range table {
			t.Run(name+" "+c.name, func(t *testing.T) {
				w := newWorld(t, start, two)
				w.ask(t, command("MSET a a d d"))
				c.fail(w.servers["y"])
				for i, want := range answers(c.words) {
					got := w.ask(t, command(requests[i]))
					if requests[i] == "DEL a d" { // d was deleted where it is
						w.ask(t, command("SET d d"))
					}
					if requests[i] == "PING" {
						want, got = "+PONG\r\n", w.ask(t, mark)
					}
					if got != want {
						t.Errorf("%s: %q, wanted %q", requests[i], got, want)
					}
				}
			})
		}
	}
}

// Keys and the parts of them that a hash tag of {} leaves, in nutcracker and in Codis and Pika.
var tags = []struct{ key, here, there string }{
	{"a", "a", "a"},
	{"{tag}0", "tag", "tag"},
	{"a{b}c}", "b", "b"},
	{"a{b", "a{b", "a{b"},
	{"}a{b}", "b", "b"},
	{"{a}{b}", "a", "a"},
	{"{{a}}", "{a", "{a"},
	{"schlüssel", "schlüssel", "schlüssel"},
	{"键{标签}", "标签", "标签"},
	{"\x00\xff", "\x00\xff", "\x00\xff"},
	{"{}", "{}", ""},
	{"{}x{y}", "{}x{y}", ""},
	{"abc{}def", "abc{}def", ""},
}

// TestKeysGoWhereTheirSlotIs: crc32a % servers is the slot of Codis and Pika, for all keys but those with an empty tag.
func TestKeysGoWhereTheirSlotIs(t *testing.T) {
	slots := []string{"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12"}
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start, slots)
			for _, c := range tags {
				if got := w.ask(t, string(resp.Command("SET", c.key, "1"))); got != "+OK\r\n" {
					t.Fatalf("SET %q: %q", c.key, got)
				}
				at := slices.IndexFunc(slots, func(s string) bool { return w.servers[s].Do("EXISTS", c.key).Int == 1 })
				if want := slotOf(c.here, len(slots)); at != want {
					t.Errorf("%q went to slot %d, wanted %d", c.key, at, want)
				}
				if same := slotOf(c.here, len(slots)) == slotOf(c.there, len(slots)); same != (c.here == c.there) {
					t.Errorf("%q does not tell the two ways apart: choose another", c.key)
				}
			}
		})
	}
}

// TestServersAreOrderedByName: neither by their place in the file, nor by the alphabet; and a weight counts.
func TestServersAreOrderedByName(t *testing.T) {
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := &world{addr: freeAddr(t), stats: freeAddr(t)}
			var servers []*redis.Server
			config := fmt.Sprintf("alpha:\n  listen: %s\n  hash: crc32a\n  distribution: modula\n  redis: true\n  servers:\n", w.addr)
			for _, s := range []string{"1 s10", "2 b", "1 a", "1 s9"} {
				server, err := redis.New(redis.Options{Name: s})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(server.Close)
				servers = append(servers, server)
				config += fmt.Sprintf("  - %s:%s\n", server.Addr(), s)
			}
			start(t, config, w.stats)
			eventually(t, "the proxy answers", func() bool { return w.ask(t, mark) == "+PONG\r\n" })
			order := []*redis.Server{servers[2], servers[1], servers[1], servers[3], servers[0]} // a, b twice, s9, s10
			for i := range 40 {
				key := fmt.Sprint("key", i)
				w.ask(t, command("SET "+key+" 1"))
				if order[slotOf(key, len(order))].Do("EXISTS", key).Int != 1 {
					t.Errorf("%s is not at slot %d", key, slotOf(key, len(order)))
				}
			}
		})
	}
}

// TestEject: with auto_eject_hosts a server that fails is left out, and its keys are written to others.
func TestEject(t *testing.T) {
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start, []string{"x", "y"}, "auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 60000")
			key := "b"
			if slotOf(key, 2) != 1 {
				t.Fatalf("%s is in the other slot", key)
			}
			w.servers["y"].Close()
			if got := w.ask(t, command("SET "+key+" 1")); got != "-ERR Connection refused\r\n" {
				t.Errorf("the first: %q", got)
			}
			if got := w.ask(t, command("SET "+key+" 1")); got != "+OK\r\n" || w.servers["x"].Do("EXISTS", key).Int != 1 {
				t.Errorf("the second goes to the server that is left: %q", got)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	table := []struct{ request, want string }{
		{command("GET b"), "-NOAUTH Authentication required\r\n"},
		{command("MGET b d"), "-NOAUTH Authentication required\r\n"},
		{command("AUTH no"), "-ERR invalid password\r\n"},
		{command("AUTH sesame") + command("SET b 1") + command("GET b"), "+OK\r\n+OK\r\n$1\r\n1\r\n"},
		{command("AUTH sesame") + command("AUTH no") + command("GET b"), "+OK\r\n-ERR invalid password\r\n-NOAUTH Authentication required\r\n"},
	}
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := &world{addr: freeAddr(t), stats: freeAddr(t)}
			server, err := redis.New(redis.Options{Name: "x", Config: map[string]string{"requirepass": "sesame"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Close)
			start(t, fmt.Sprintf("alpha:\n  listen: %s\n  hash: crc32a\n  distribution: modula\n  redis: true\n  redis_auth: sesame\n  servers:\n  - %s:1 x\n", w.addr, server.Addr()), w.stats)
			eventually(t, "the proxy listens", func() bool {
				c, err := net.Dial("tcp", w.addr)
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			})
			for _, c := range table {
				// the marker is refused as well: without a password nothing is answered but that
				got := strings.TrimSuffix(w.exchange(t, c.request, len(c.want)), "\x00")
				if got != c.want {
					t.Errorf("%q: %q, wanted %q", c.request, got, c.want)
				}
			}
		})
	}
}

// exchange sends bytes and reads n of the answer.
func (w *world) exchange(t *testing.T, request string, n int) string {
	t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	got, err := io.ReadFull(c, b)
	if err != nil {
		return string(b[:got]) + "<EOF>"
	}
	return string(b)
}

// TestStats: the same names, in the same order, and the same counts of what matters.
func TestStats(t *testing.T) {
	shapes := map[string][]string{}
	for name, start := range proxies() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start, two)
			w.ask(t, command("MGET a d"))
			w.ask(t, command("GET a"))
			var order []string
			counts := map[string]any{}
			eventually(t, "the counts are told", func() bool {
				text := w.statistics(t)
				order = keysInOrder(t, text)
				var all map[string]any
				if err := json.Unmarshal(text, &all); err != nil {
					t.Fatal(err)
				}
				counts = all["alpha"].(map[string]any)
				s0, s3 := counts["s0"].(map[string]any), counts["s3"].(map[string]any)
				return s0["requests"] == 1.0 && s3["requests"] == 2.0 && s3["responses"] == 2.0 && s0["request_bytes"] == 21.0 && s3["request_bytes"] == 41.0
			})
			shapes[name] = order
		})
	}
	if real := shapes["nutcracker"]; real != nil && !reflect.DeepEqual(real, shapes["simulated"]) {
		t.Errorf("the shapes differ:\nnutcracker %v\nsimulated  %v", real, shapes["simulated"])
	}
}

func (w *world) statistics(t *testing.T) []byte {
	t.Helper()
	c, err := net.Dial("tcp", w.stats)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keysInOrder gives every key of a JSON text, in its order.
func keysInOrder(t *testing.T, text []byte) []string {
	t.Helper()
	var keys []string
	d := json.NewDecoder(strings.NewReader(string(text)))
	for isKey := false; ; {
		token, err := d.Token()
		if err == io.EOF {
			return keys
		}
		if err != nil {
			t.Fatal(err)
		}
		switch v := token.(type) {
		case json.Delim:
			isKey = true
		case string:
			if isKey {
				keys = append(keys, v)
			}
			isKey = !isKey
		default:
			isKey = true
		}
	}
}
