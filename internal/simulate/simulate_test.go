package simulate_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate"
	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/host"
	"runbook/internal/simulate/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, spec simulate.Spec, opts simulate.Options) *simulate.World {
	t.Helper()
	spec.Version = 1
	if opts.Clock == nil {
		opts.Clock = clock.New(20)
	}
	w, err := simulate.Start(t.Context(), spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func ask(t *testing.T, w *simulate.World, addr, line string) string {
	t.Helper()
	c, err := resp.DialWith(t.Context(), w.Dial, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v, err := c.Do(t.Context(), strings.Fields(line)...)
	if err != nil {
		return err.Error()
	}
	return v.String()
}

// until waits in the world's time for an answer that holds want.
func until(t *testing.T, w *simulate.World, addr, line, want string) {
	t.Helper()
	var got string
	for range 2000 {
		if got = ask(t, w, addr, line); strings.Contains(got, want) {
			return
		}
		if w.Clock().Sleep(t.Context(), 20*time.Millisecond) != nil {
			break
		}
	}
	t.Fatalf("%s at %s: never %q, but\n%s", line, addr, want, got)
}

func TestBadWorlds(t *testing.T) {
	redis := simulate.System{Kind: "redis"}
	for name, c := range map[string]struct {
		spec simulate.Spec
		want string
	}{
		"version":      {simulate.Spec{Version: 2}, "world: version 2 is not known"},
		"kind":         {simulate.Spec{Systems: map[string]simulate.System{"x": {Kind: "kafka"}}}, `world: system x: no simulator for kind "kafka"; there are host, redis`},
		"replica":      {simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", ReplicaOf: "b"}}}, `replica_of names "b"`},
		"replica keys": {simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", ReplicaOf: "b", Keys: 3}, "b": redis}}, "a replica has its master's keys"},
		"host":         {simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", Host: "h"}}}, `host names "h"`},
		"traffic":      {simulate.Spec{Traffic: &simulate.Traffic{Through: "a"}}, `traffic goes through "a"`},
		"follow":       {simulate.Spec{Systems: map[string]simulate.System{"a": redis}, Traffic: &simulate.Traffic{Through: "a", Follow: &simulate.Follow{}}}, "needs a file or a node"},
		"one address":  {simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", Addr: "x:1"}, "b": {Kind: "redis", Addr: "x:1"}}}, "have one address"},
		"parameter":    {simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", Config: map[string]string{"maxmemory": "much"}}}}, "argument must be a memory value"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.spec.Version == 0 {
				c.spec.Version = 1
			}
			w, err := simulate.Start(t.Context(), c.spec, simulate.Options{})
			if err == nil {
				w.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestBeginning(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{
		"redis1": {Kind: "redis", Keys: 50, Password: "secret", Maxmemory: "64mb", Release: "6.2.14"},
		"redis2": {Kind: "redis", ReplicaOf: "redis1", FullSync: time.Hour},
	}}, simulate.Options{Addrs: map[string]string{"redis1": "10.0.0.1:6379"}})
	if got := w.Server("redis2").Do("DBSIZE").Int; got != 50 {
		t.Errorf("the replica begins with %d keys, want 50", got)
	}
	if got := ask(t, w, w.Addr("redis1"), "GET key:000000"); !strings.HasPrefix(got, "NOAUTH") {
		t.Errorf("without a password: %s", got)
	}
	if got := w.Server("redis1").Do("CONFIG", "GET", "maxmemory").Strings()[1]; got != "67108864" {
		t.Errorf("maxmemory %s", got)
	}
	if got := w.Server("redis1").Do("INFO", "server").Str; !strings.Contains(got, "redis_version:6.2.14") {
		t.Errorf("release: %s", got)
	}
	if w.Translate("10.0.0.1:6379") != w.Addr("redis1") || w.Translate(w.Addr("redis1")) != "10.0.0.1:6379" {
		t.Error("Translate does not map both ways")
	}
	if len(w.Server("redis1").Writes())+len(w.Server("redis2").Writes()) != 0 {
		t.Error("filling the world counts as writes of clients")
	}
	if _, err := w.Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no system of this sandbox") {
		t.Errorf("an address outside: %v", err)
	}
}

// TestViews: whichever way addresses are brought together, what one server shows of another is what a client calls it.
func TestViews(t *testing.T) {
	for _, keep := range []bool{false, true} {
		w := start(t, simulate.Spec{Systems: map[string]simulate.System{
			"a": {Kind: "redis", Addr: "127.0.0.1:6379"}, "b": {Kind: "redis", Addr: "127.0.0.1:6380", ReplicaOf: "a"},
		}}, simulate.Options{KeepAddrs: keep})
		a, b := w.Addr("a"), w.Addr("b")
		if keep {
			a, b = "127.0.0.1:6379", "127.0.0.1:6380"
		}
		host, port, _ := strings.Cut(a, ":")
		until(t, w, b, "INFO replication", "master_host:"+host+"\r\nmaster_port:"+port+"\r\n")
		_, port, _ = strings.Cut(b, ":")
		until(t, w, a, "INFO replication", "slave0:ip=127.0.0.1,port="+port+",")
		until(t, w, b, "INFO server", "tcp_port:"+port+"\r\n")
		// The declared address is understood anyway, and shown as it was given.
		ask(t, w, b, "REPLICAOF NO ONE")
		ask(t, w, b, "REPLICAOF 127.0.0.1 6379")
		until(t, w, b, "INFO replication", "master_port:6379\r\nmaster_link_status:up")
	}
}

func TestHost(t *testing.T) {
	w := start(t, simulate.Spec{
		Systems: map[string]simulate.System{
			"h":      {Kind: "host", Files: map[string]string{"/etc/app.conf": "x"}, Ports: map[int]string{8080: "nginx"}, Disks: map[string]host.Disk{"/data": {Total: 10, Free: 4}, "/": {Total: 100, Free: 50}}},
			"redis1": {Kind: "redis", Addr: "127.0.0.1:6379", Keys: 5},
			"redis3": {Kind: "redis", Addr: "127.0.0.1:6390", Absent: true},
		},
		Commands: []host.Command{{Match: "systemctl reload *", Stdout: "done\n"}, {Match: "false", Exit: 1}},
		HTTP:     []simulate.HTTP{{Method: "POST", URL: "https://change.example/*", Status: 201}},
	}, simulate.Options{})
	h := w.Host("h")

	if p, ok := h.Listening(6379); !ok || p != "redis-server" {
		t.Errorf("6379: %q %v", p, ok)
	}
	if p, ok := h.Listening(8080); !ok || p != "nginx" {
		t.Errorf("8080: %q %v", p, ok)
	}
	if _, ok := h.Listening(6390); ok {
		t.Error("6390 listens before anyone started it")
	}
	if total, free := h.Disk("/data/x"); total != 10 || free != 4 {
		t.Errorf("disk %d %d", total, free)
	}
	if _, _, err := h.ReadFile("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if w.Server("redis3") != nil {
		t.Fatal("redis3 is there before it was started")
	}
	if len(h.Changes()) != 0 {
		t.Errorf("looking changed the host: %v", h.Changes())
	}

	conf := "# made by a runbook\nport 6390\ndir /srv/redis3\nrequirepass pw\nmaxmemory 32mb\nsave 900 1\nsave 300 10\npidfile /run/r3.pid\ndaemonize yes\nreplicaof 127.0.0.1 6379\n"
	if err := h.WriteFile("/etc/redis3.conf", []byte(conf), 0o640); err != nil {
		t.Fatal(err)
	}
	pid, err := h.Start([]string{"/usr/bin/redis-server", "/etc/redis3.conf"}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Listening(6390); !ok {
		t.Error("6390 does not listen")
	}
	s := w.Server("redis3")
	if s.PID() != pid {
		t.Errorf("INFO says process %d, the host %d", s.PID(), pid)
	}
	if got := s.Do("CONFIG", "GET", "save").Strings()[1]; got != "900 1 300 10" {
		t.Errorf("save %q", got)
	}
	if b, _, _ := h.ReadFile("/run/r3.pid"); strings.TrimSpace(string(b)) == "" {
		t.Error("no pid file")
	}
	if got := ask(t, w, "127.0.0.1:6390", "PING"); !strings.HasPrefix(got, "NOAUTH") {
		t.Errorf("without password: %s", got)
	}
	for s.Do("DBSIZE").Int != 5 {
		if w.Clock().Sleep(t.Context(), 20*time.Millisecond) != nil {
			t.Fatal("redis3 never followed redis1")
		}
	}
	if _, err := h.Start([]string{"redis-server", "--port", "6390"}, "/", nil); err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("a second start: %v", err)
	}
	s.Do("REPLICAOF", "NO", "ONE")
	s.Do("CONFIG", "SET", "maxmemory", "48mb")
	if v := s.Do("CONFIG", "REWRITE"); v.Str != "OK" {
		t.Errorf("rewrite: %v", v)
	}
	if b, _, _ := h.ReadFile("/etc/redis3.conf"); !strings.Contains(string(b), "maxmemory 50331648\n") || strings.Contains(string(b), "replicaof") {
		t.Errorf("the rewritten file:\n%s", b)
	}

	if err := h.Signal(pid, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	if _, _, alive := h.Process(pid); alive {
		t.Error("the process outlived TERM")
	}
	if err := h.Signal(pid, "0"); err == nil {
		t.Error("the dead answer a signal")
	}
	pid2, err := h.Start([]string{"redis-server", "/etc/redis3.conf"}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if pid2 == pid {
		t.Error("a pid came twice")
	}
	if got := w.Server("redis3").Do("DBSIZE").Int; got != 5 {
		t.Errorf("after TERM, with save points, %d keys are left of 5", got)
	}
	if got := w.Server("redis3").Do("CONFIG", "GET", "maxmemory").Strings()[1]; got != "50331648" {
		t.Errorf("the restart has forgotten what was rewritten: %s", got)
	}
	if err := h.Signal(pid2, "KILL"); err != nil {
		t.Fatal(err)
	}

	if out, _, exit, err := h.Run([]string{"systemctl", "reload", "app"}, nil); err != nil || exit != 0 || string(out) != "done\n" {
		t.Errorf("stub: %q %d %v", out, exit, err)
	}
	if _, _, exit, err := h.Run([]string{"false"}, nil); err != nil || exit != 1 {
		t.Errorf("false: %d %v", exit, err)
	}
	if _, _, _, err := h.Run([]string{"rm", "-rf", "/"}, nil); !errors.Is(err, host.ErrNoStub) || !strings.Contains(err.Error(), "rm -rf / on h") {
		t.Errorf("a command without stub: %v", err)
	}
	if r, ok := w.HTTP("POST", "https://change.example/7"); !ok || r.Status != 201 {
		t.Errorf("http stub: %+v %v", r, ok)
	}
	if _, ok := w.HTTP("GET", "https://change.example/7"); ok {
		t.Error("a GET was answered by the stub of a POST")
	}
}

func TestHostRefusesBadStarts(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "redis", Addr: "127.0.0.1:6379", Absent: true}}}, simulate.Options{})
	h := w.Host(simulate.LocalHost)
	if err := h.WriteFile("/bad.conf", []byte("port 6379\nnosuch 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"redis-server /none.conf":  "can't open config file '/none.conf'",
		"redis-server /bad.conf":   "FATAL CONFIG FILE ERROR",
		"redis-server --port 7777": "no system of this sandbox has port 7777",
		"vi /etc/passwd":           "no stub answers this command",
	} {
		if _, err := h.Start(strings.Fields(line), "/", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", line, err, want)
		}
	}
}

// TestMigration is the whole of it over real sockets: a new instance is made on the host, follows, is promoted under a
// pause; clients learn of it by a file. Nothing that was acknowledged is lost.
func TestMigration(t *testing.T) {
	w := start(t, simulate.Spec{
		Systems: map[string]simulate.System{
			"h":   {Kind: "host"},
			"old": {Kind: "redis", Addr: "127.0.0.1:6379", Keys: 100},
			"new": {Kind: "redis", Addr: "127.0.0.1:6390", Absent: true, FullSync: 500 * time.Millisecond, Lag: 5 * time.Millisecond},
		},
		Traffic: &simulate.Traffic{Through: "old", Clients: 4, WritesPerSecond: 50, Keys: 40, Follow: &simulate.Follow{File: "/etc/app/redis.addr", Every: 200 * time.Millisecond}},
	}, simulate.Options{KeepAddrs: true})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	load, err := w.StartTraffic(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Stop()
	served := func() {
		t.Helper()
		if err := load.Ledger().WaitAcknowledged(ctx, 60); err != nil {
			t.Fatal(err, load.Ledger().Stats())
		}
	}
	served()
	const older, newer = "127.0.0.1:6379", "127.0.0.1:6390"
	if _, err := w.Host("h").Start([]string{"redis-server", "--port", "6390", "--replicaof", "127.0.0.1", "6379"}, "/", nil); err != nil {
		t.Fatal(err)
	}
	until(t, w, newer, "INFO replication", "master_sync_in_progress:1")
	until(t, w, newer, "INFO replication", "master_link_status:up")
	served()
	ask(t, w, older, "CLIENT PAUSE 60000 WRITE")
	offset := w.Server("old").Do("ROLE").Items[1].String()
	until(t, w, newer, "INFO replication", "slave_repl_offset:"+offset+"\r\n")
	ask(t, w, newer, "REPLICAOF NO ONE")
	ask(t, w, older, "REPLICAOF 127.0.0.1 6390")
	if err := w.Host("h").WriteFile("/etc/app/redis.addr", []byte(newer+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ask(t, w, older, "CLIENT UNPAUSE")
	served()
	load.Stop()
	r, err := w.CheckTraffic(ctx, load)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Broken()) > 0 || len(r.Extra) > 0 {
		t.Errorf("broken %v, extra %v\n%s\n%s", r.Broken(), r.Extra, w.Server("old").Describe(), w.Server("new").Describe())
	}
	if got := w.Server("new").Do("EXISTS", "key:000001").Int; got != 1 {
		t.Error("the keys of the beginning are not at the new one")
	}
	for _, cmd := range w.Server("new").Writes(simulate.TrafficName) {
		if cmd[0] != "REPLICAOF" {
			t.Errorf("a write by someone else: %q", cmd)
		}
	}
}
