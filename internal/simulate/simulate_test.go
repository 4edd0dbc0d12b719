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
	type systems = map[string]simulate.System
	redis, group := simulate.System{Kind: "redis"}, map[string][]string{"1": {"p"}}
	for name, c := range map[string]struct {
		systems systems
		traffic *simulate.Traffic
		want    string
	}{
		"kind":         {systems{"x": {Kind: "kafka"}}, nil, `world: system x: no simulator for kind "kafka"; there are codis, host, pika, redis, twemproxy, zookeeper`},
		"field":        {systems{"x": {Kind: "redis", Slots: "0-3"}}, nil, "world: system x: a redis has no slots"},
		"field of two": {systems{"x": {Kind: "host", Password: "x"}}, nil, "a host has no password"},
		"replica":      {systems{"a": {Kind: "redis", ReplicaOf: "b"}}, nil, `replica_of names "b"`},
		"replica kind": {systems{"a": {Kind: "pika", ReplicaOf: "b", Slots: 1}, "b": redis}, nil, `replica_of names "b", which is no other pika of this world`},
		"own replica":  {systems{"a": {Kind: "redis", ReplicaOf: "a"}}, nil, `replica_of names "a"`},
		"circle":       {systems{"a": {Kind: "redis", ReplicaOf: "b"}, "b": {Kind: "redis", ReplicaOf: "a"}}, nil, "replica_of b goes round in a circle"},
		"replica keys": {systems{"a": {Kind: "redis", ReplicaOf: "b", Keys: 3}, "b": redis}, nil, "a replica has its master's keys"},
		"host":         {systems{"a": {Kind: "redis", Host: "h"}}, nil, `host names "h"`},
		"port":         {systems{"h": {Kind: "host", Ports: map[string]string{"70000": "x"}}}, nil, `ports: "70000" is no port`},
		"one address":  {systems{"a": {Kind: "redis", Addr: "x:1"}, "b": {Kind: "redis", Addr: "x:1"}}, nil, "has the same address, x:1"},
		"parameter":    {systems{"a": {Kind: "redis", Config: map[string]string{"maxmemory": "much"}}}, nil, "argument must be a memory value"},

		"release":       {systems{"p": {Kind: "pika", Release: "9.9"}}, nil, "world: system p: pika p: release 9.9 is not simulated"},
		"absent slots":  {systems{"p": {Kind: "pika", Absent: true, Slots: "1"}}, nil, "what is absent has no slots"},
		"classic slots": {systems{"p": {Kind: "pika", Mode: "classic", Slots: "1"}}, nil, "mode classic has no slots"},
		"bad slots":     {systems{"p": {Kind: "pika", Slots: "5-1"}}, nil, `slots: "5-1": slots such as 1,5-7 are wanted`},
		"slots as list": {systems{"p": {Kind: "pika", Slots: []any{1}}}, nil, "slots such as 1,5-7 are wanted"},
		"many slots":    {systems{"p": {Kind: "pika", SlotNum: 4, Slots: "0-4"}}, nil, `there are 4 slots, 0-3`},
		"homeless keys": {systems{"p": {Kind: "pika", Keys: 4}}, nil, "keys lie in slots, and it has none"},
		"replica slots": {systems{"p": {Kind: "pika", Slots: "0-3"}, "q": {Kind: "pika", Slots: "2-5", ReplicaOf: "p"}}, nil, "system q: replica_of p, which does not have slots 4-5"},
		"which slots":   {systems{"p": {Kind: "pika", Slots: "0-3"}, "q": {Kind: "pika", ReplicaOf: "p"}}, nil, "replica_of p is about slots, and it has none"},

		"group number":   {systems{"p": {Kind: "pika"}, "c": {Kind: "codis", Groups: map[string][]string{"one": {"p"}}}}, nil, `groups: "one" is no number of a group`},
		"group of none":  {systems{"c": {Kind: "codis", Groups: group}}, nil, `group 1 has "p", which is no pika of this world`},
		"group absent":   {systems{"p": {Kind: "pika", Absent: true}, "c": {Kind: "codis", Groups: group}}, nil, "group 1 has p, which is absent: true; the runbook that creates it adds it"},
		"group classic":  {systems{"p": {Kind: "pika", Mode: "classic"}, "c": {Kind: "codis", Groups: group}}, nil, "p, which is not in mode sharding"},
		"group slot_num": {systems{"p": {Kind: "pika", SlotNum: 4}, "c": {Kind: "codis", Groups: group}}, nil, "p, which knows 4 slots, and Codis 1024"},
		"group password": {systems{"p": {Kind: "pika", Password: "x"}, "c": {Kind: "codis", Groups: group}}, nil, "whose password is not the product_auth"},
		"two groups":     {systems{"p": {Kind: "pika"}, "c": {Kind: "codis", Groups: map[string][]string{"1": {"p"}, "2": {"p"}}}}, nil, "p is in groups 1 and 2"},
		"slot nowhere":   {systems{"p": {Kind: "pika", Slots: "0-3"}, "c": {Kind: "codis", Groups: group, Slots: map[string]any{"1": 7}}}, nil, "slot 1 belongs to group 7, which has no servers"},
		"slot missing":   {systems{"p": {Kind: "pika", Slots: "0-3"}, "c": {Kind: "codis", Groups: group, Slots: map[string]any{"0-4": 1}}}, nil, "slot 4 belongs to group 1, whose master p does not have it"},
		"slot twice":     {systems{"p": {Kind: "pika", Slots: "0-3"}, "c": {Kind: "codis", Groups: group, Slots: map[string]any{"0-3": 1, "2": 1}}}, nil, "slots: 2 is given twice"},
		"slot's group":   {systems{"p": {Kind: "pika", Slots: "0-3"}, "c": {Kind: "codis", Groups: group, Slots: map[string]any{"0-3": "p"}}}, nil, "slots 0-3: p: the number of a group is wanted"},
		"slots no map":   {systems{"c": {Kind: "codis", Slots: "0-3"}}, nil, "a map such as {0-511: 1} is wanted"},
		"replica first":  {systems{"p": {Kind: "pika", Slots: 1, ReplicaOf: "q"}, "q": {Kind: "pika", Slots: 1}, "c": {Kind: "codis", Groups: group, Slots: map[string]any{"1": 1}}}, nil, "which is a replica; the first is the master"},
		"method":         {systems{"c": {Kind: "codis", MigrationMethod: "fast"}}, nil, `migration method "fast"`},
		"two of them":    {systems{"c": {Kind: "codis"}, "d": {Kind: "codis"}}, nil, "a world has one codis, and this one c, d"},
		"zookeepers":     {systems{"c": {Kind: "codis"}, "y": {Kind: "zookeeper"}, "z": {Kind: "zookeeper"}}, nil, "the world has several zookeepers, y and z"},

		"no list":    {systems{"n": {Kind: "twemproxy"}}, nil, "it needs slots, or the file /etc/nutcracker/nutcracker.yml on its host"},
		"short list": {systems{"r": redis, "n": {Kind: "twemproxy", SlotNum: 4, Slots: map[string]any{"0-2": "r"}}}, nil, "slots: 3 of 4 have a server"},
		"list of":    {systems{"n": {Kind: "twemproxy", SlotNum: 1, Slots: map[string]any{"0": "r"}}}, nil, "slots 0: r is no pika and no redis of this world"},
		"bad list":   {systems{"local": {Kind: "host", Files: map[string]string{"/n": "a: b\n"}}, "n": {Kind: "twemproxy", File: "/n"}}, nil, "nutcracker: configuration syntax is invalid"},

		"traffic":       {nil, &simulate.Traffic{Through: "a"}, `traffic goes through "a"`},
		"to zookeeper":  {systems{"z": {Kind: "zookeeper"}}, &simulate.Traffic{Through: "z"}, `traffic goes through "z", which is nothing in this world that clients write to`},
		"traffic slots": {systems{"c": {Kind: "codis"}}, &simulate.Traffic{Through: "c", Slots: "1024"}, "traffic.slots: \"1024\": there are 1024 slots"},
		"follow":        {systems{"a": redis}, &simulate.Traffic{Through: "a", Follow: &simulate.Follow{}}, "needs a file or a node"},
		"follow host":   {systems{"a": redis}, &simulate.Traffic{Through: "a", Follow: &simulate.Follow{File: "/x", Host: "h"}}, `traffic.follow.host names "h"`},
		"follow node":   {systems{"a": redis}, &simulate.Traffic{Through: "a", Follow: &simulate.Follow{Node: "/x", System: "a"}}, "nothing simulated here has nodes such as /x"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := simulate.Start(t.Context(), simulate.Spec{Version: 1, Systems: c.systems, Traffic: c.traffic}, simulate.Options{})
			if err == nil {
				w.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	if _, err := simulate.Start(t.Context(), simulate.Spec{Version: 2}, simulate.Options{}); err == nil || !strings.Contains(err.Error(), "world: version 2 is not known") {
		t.Errorf("version 2: %v", err)
	}
}

func TestInvariantsOfAWorld(t *testing.T) {
	load := &simulate.Traffic{Through: "a"}
	for want, spec := range map[string]simulate.Spec{
		"": {}, "no-lost-write no-stale-read clients-served": {Traffic: load},
		"one-owner no-orphan-key": {Systems: map[string]simulate.System{"c": {Kind: "codis"}}},
		"no-lost-write no-stale-read clients-served one-owner no-orphan-key": {Traffic: load, Systems: map[string]simulate.System{"c": {Kind: "codis"}}},
		"one-owner": {Traffic: load, Systems: map[string]simulate.System{"c": {Kind: "codis"}}, Invariants: []string{"one-owner"}},
	} {
		if got := strings.Join(spec.Wanted(), " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if none := (&simulate.Spec{Traffic: load, Invariants: []string{}}); len(none.Wanted()) != 0 {
		t.Errorf("none were asked for: %v", none.Wanted())
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
			"h":      {Kind: "host", Files: map[string]string{"/etc/app.conf": "x"}, Ports: map[string]string{"8080": "nginx"}, Disks: map[string]host.Disk{"/data": {Total: 10, Free: 4}, "/": {Total: 100, Free: 50}}},
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
