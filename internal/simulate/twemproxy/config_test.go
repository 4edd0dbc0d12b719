package twemproxy_test

import (
	"hash/crc32"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"runbook/internal/simulate/twemproxy"
)

func slotOf(tagged string, slots int) int {
	return int(crc32.ChecksumIEEE([]byte(tagged)) % uint32(slots))
}

const good = `# proxies of the shop
alpha:
  listen: 127.0.0.1:22121
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  redis: true
  servers: # one a slot
   - 127.0.0.1:9221:1 server1   # slot 0

   - "127.0.0.1:9222:1 server2"
`

// TestConfig: what `nutcracker -t` says of a file.
func TestConfig(t *testing.T) {
	change := func(old, replacement string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not there", old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	set := func(line string) string { return change("  redis: true\n", "  redis: true\n  "+line+"\n") }
	table := []struct {
		name, text string
		ok         bool
	}{
		{"as it should be", good, true},
		{"two pools", good + strings.ReplaceAll(strings.ReplaceAll(good, "alpha", "beta"), "22121", "22122"), true},
		{"one address twice", good + strings.ReplaceAll(good, "alpha", "beta"), false},
		{"one name twice", good + strings.ReplaceAll(good, "22121", "22122"), false},
		{"deeper", strings.ReplaceAll(good, "\n  ", "\n      "), true},
		{"list as deep as its key", strings.ReplaceAll(good, "   - ", "  - "), true},
		{"a comment behind a name", change("alpha:", "alpha: # first"), true},
		{"single quotes", change(`"{}"`, `'{}'`), true},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), true},
		{"empty", "", false},
		{"a comment alone", "# nothing\n", false},
		{"a list", "- a\n", false},
		{"a scalar", "abc\n", false},
		{"a document mark", "---\n" + good, false},
		{"a tab", change("  hash:", "\thash:"), false},
		{"brackets", change("servers: # one a slot\n   - 127.0.0.1:9221:1 server1   # slot 0\n", `servers: ["127.0.0.1:9221:1 a"]`+"\n"), false},
		{"an anchor", change("alpha:", "alpha: &a"), false},
		{"a map where a value belongs", change("hash: crc32a", "hash:\n    a: b"), false},
		{"an unknown key", set("foo: 1"), false},
		{"a key twice", set("hash: md5"), false},
		{"no listen", change("  listen: 127.0.0.1:22121\n", ""), false},
		{"port 0", change("22121", "0"), false},
		{"port 70000", change("22121", "70000"), false},
		{"no port", change(":22121", ""), false},
		{"a name to listen on", change("127.0.0.1:22121", "localhost:22121"), true},
		{"a host that nobody knows", change("127.0.0.1:9221", "nosuch.invalid:9221"), true},
		{"a server's port", change("9221", "99999"), false},
		{"no weight", change("9221:1", "9221"), false},
		{"weight 0", change("9221:1", "9221:0"), false},
		{"weight 2", change("9221:1", "9221:2"), true},
		{"no servers", good[:strings.Index(good, "  servers:")], false},
		{"an empty list", good[:strings.Index(good, "   - ")], false},
		{"one name for two servers", change("server2", "server1"), false},
		{"no names", strings.NewReplacer(" server1", "", " server2", "").Replace(good), true},
		{"no names, one address", strings.NewReplacer(" server1", "", " server2", "", "9222", "9221").Replace(good), false},
		{"a name of two words", change("server1", "server 1"), false},
		{"hash md5", change("crc32a", "md5"), true},
		{"hash CRC32A", change("crc32a", "CRC32A"), false},
		{"no hash", change("  hash: crc32a\n", ""), true},
		{"distribution ketama", change("modula", "ketama"), true},
		{"distribution none", change("modula", "none"), false},
		{"a tag of one", change(`"{}"`, `"{"`), false},
		{"redis yes", change("redis: true", "redis: yes"), false},
		{"redis in quotes", change("redis: true", `redis: "true"`), true},
		{"memcached", change("redis: true", "redis: false"), true},
		{"eject", set("auto_eject_hosts: true"), true},
		{"timeout", set("timeout: 400"), true},
		{"a negative timeout", set("timeout: -1"), false},
		{"a timeout of words", set("timeout: soon"), false},
		{"backlog", set("backlog: 10"), true},
		{"preconnect", set("preconnect: true"), true},
		{"server_connections", set("server_connections: 2"), true},
		{"no server_connections", set("server_connections: 0"), false},
		{"client_connections", set("client_connections: 100"), true},
		{"redis_auth", set("redis_auth: sesame"), true},
		{"redis_db", set("redis_db: 1"), true},
		{"tcpkeepalive", set("tcpkeepalive: true"), true},
		{"server_retry_timeout", set("server_retry_timeout: 0"), true},
		{"server_failure_limit", set("server_failure_limit: 0"), true},
		{"reuseport", set("reuseport: true"), false},
	}
	for _, c := range table {
		said, code := twemproxy.Test("n.yml", c.text)
		if (code == 0) != c.ok {
			_, err := twemproxy.Parse(c.text)
			t.Errorf("%s: exit code %d, %q (%v)", c.name, code, said, err)
		}
	}
	t.Run("nutcracker", func(t *testing.T) {
		binary := needNutcracker(t)
		dir := t.TempDir()
		for _, c := range table {
			file := filepath.Join(dir, "n.yml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "-t", "-c", "n.yml")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.ok {
				t.Errorf("%s: %v, %s", c.name, err, out)
			}
			if said, _ := twemproxy.Test("n.yml", c.text); string(out) != said {
				t.Errorf("%s: %q, the simulated one says %q", c.name, out, said)
			}
		}
	})
}

func TestParse(t *testing.T) {
	pools, err := twemproxy.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	p := pools[0]
	if p.Name != "alpha" || p.HashTag != "{}" || len(p.Servers) != 2 || p.Servers[1] != (twemproxy.Backend{Addr: "127.0.0.1:9222", Weight: 1, Name: "server2"}) {
		t.Errorf("%+v", p)
	}
}

func TestArguments(t *testing.T) {
	a, err := twemproxy.ParseArguments(strings.Fields("-d -c /etc/n.yml -p /run/n.pid --stats-port=22223 -a 127.0.0.1 -m 512"))
	if err != nil || a.Config != "/etc/n.yml" || a.Pidfile != "/run/n.pid" || a.StatsAddr != "127.0.0.1:22223" || !a.Daemonize || a.Test {
		t.Errorf("%+v, %v", a, err)
	}
	for _, line := range []string{"-s 0", "-c", "-z"} {
		if _, err := twemproxy.ParseArguments(strings.Fields(line)); err == nil {
			t.Errorf("%s is taken", line)
		}
	}
}

// A port that is taken keeps the proxy from starting, that of the statistics too.
func TestPortsAreTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	config := strings.Replace(good, "127.0.0.1:22121", freeAddr(t), 1)
	for _, o := range []twemproxy.Options{
		{Config: config, StatsAddr: l.Addr().String()},
		{Config: strings.Replace(good, "127.0.0.1:22121", l.Addr().String(), 1)},
	} {
		if s, err := twemproxy.Start(o); err == nil {
			s.Close()
			t.Error("it starts")
		} else if !strings.Contains(err.Error(), "address already in use") {
			t.Error(err)
		}
	}
}
