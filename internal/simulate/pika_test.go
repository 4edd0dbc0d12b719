package simulate_test

import (
	"bufio"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate"
	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/host"
)

func TestPikaBeginning(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{
		"sharded": {Kind: "pika", Slots: "0-3", SlotNum: 8, Keys: 40, Password: "sesame"},
		"copy":    {Kind: "pika", Slots: "1-2", SlotNum: 8, ReplicaOf: "sharded", FullSync: time.Hour},
		"another": {Kind: "pika", Slots: 2, SlotNum: 8, ReplicaOf: "copy"},
		"classic": {Kind: "pika", Mode: "classic", Keys: 30},
		"second":  {Kind: "pika", Mode: "classic", ReplicaOf: "classic"},
		"old":     {Kind: "pika", Release: "2.3.6", Keys: 20},
		"older":   {Kind: "pika", Release: "2.3.6", ReplicaOf: "old"},
		"none":    {Kind: "pika", Absent: true, Addr: "127.0.0.1:9225"},
	}}, simulate.Options{Clock: clock.New(50)})
	n := 0
	for id := range 4 {
		n += w.Pika("sharded").SlotKeys(id)
	}
	if n != 40 {
		t.Errorf("%d keys in the slots 0-3, want 40", n)
	}
	for id, want := range []bool{false, true, true, false} {
		if w.Pika("copy").HasSlot(id) != want || w.Pika("copy").OwnsSlot(id) {
			t.Errorf("slot %d of the replica", id)
		}
	}
	if w.Pika("copy").SlotKeys(1) != w.Pika("sharded").SlotKeys(1) || w.Pika("another").SlotKeys(2) != w.Pika("sharded").SlotKeys(2) {
		t.Error("a replica begins without its master's keys")
	}
	for name, want := range map[string]int{"second": 30, "older": 20} {
		if got := len(w.Pika(name).Do("KEYS", "*").Items); got != want {
			t.Errorf("%s begins with %d keys, want %d", name, got, want)
		}
	}
	if w.Pika("none") != nil || w.Addr("none") == "" {
		t.Error("an absent pika is there, or has no address")
	}
	if _, err := w.Dial(t.Context(), "tcp", "127.0.0.1:9225"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the absent one answers: %v", err)
	}
}

// TestPikaOnHost: the program is started from its file, needs its ports and rsync, forgets replication and not data when
// it is started again, and leaves its rsync behind.
func TestPikaOnHost(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{
		"h":     {Kind: "host", Ports: map[string]string{"11230": "nginx", "10231": "nginx"}},
		"bare":  {Kind: "host", Binaries: map[string]host.Binary{"rsync": {}}},
		"pika1": {Kind: "pika", Addr: "127.0.0.1:9221", Host: "h", Slots: "0-3", Keys: 20},
		"pika5": {Kind: "pika", Addr: "127.0.0.1:9225", Host: "h", Absent: true},
		"taken": {Kind: "pika", Addr: "127.0.0.1:9230", Host: "h", Absent: true},
		"close": {Kind: "pika", Addr: "127.0.0.1:9231", Host: "h", Absent: true},
		"alone": {Kind: "pika", Addr: "127.0.0.1:9240", Host: "bare", Absent: true},
	}}, simulate.Options{})
	h := w.Host("h")
	if len(h.Changes()) != 0 {
		t.Errorf("the beginning counts as changes: %v", h.Changes())
	}
	for port, want := range map[int]string{9221: "pika", 10221: "rsync", 11221: "pika", 9225: "", 10225: ""} {
		if got, _ := h.Listening(port); got != want {
			t.Errorf("port %d: %q, want %q", port, got, want)
		}
	}
	begin := func(h *host.Host, port string) (int, error) {
		conf := "# made\nport : " + port + "\ninstance-mode : sharding\ndefault-slot-num : 1024\ndb-path : /srv/" + port + "/db/\ndb-sync-path : /srv/" + port + "/dbsync/\nslaveof : \n"
		if err := h.WriteFile("/srv/"+port+"/pika.conf", []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		return h.Start([]string{"/usr/local/bin/pika", "-c", "pika.conf"}, "/srv/"+port, nil)
	}
	for port, want := range map[string]string{
		"9221": "Start Dispatch Error: 1: bind port 9221 conflict", "9230": "Start Pika Repl Server Thread Error: 1: bind port 11230 conflict",
		"9231": "Start Rsync Error: bind port 10231 failed", "9777": "no system of this sandbox has port 9777",
	} {
		if _, err := begin(h, port); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("port %s: %v, want %s", port, err, want)
		}
	}
	if _, err := begin(w.Host("bare"), "9240"); err == nil || !strings.Contains(err.Error(), "Start Rsync Error: bind port 10240 failed") {
		t.Errorf("without rsync: %v", err)
	}

	pid, err := begin(h, "9225")
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{"CONFIG GET db-path": "db-path /srv/9225/db/", "CONFIG GET default-slot-num": "1024", "PKCLUSTER ADDSLOTS 1": "OK"} {
		if got := strings.Join(strings.Fields(ask(t, w, "127.0.0.1:9225", line)), " "); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	ask(t, w, "127.0.0.1:9225", "PKCLUSTER SLOTSSLAVEOF 127.0.0.1 9221 1")
	until(t, w, "127.0.0.1:9225", "PKCLUSTER INFO SLOT 1", "kConnected")
	if w.Pika("pika5").OwnsSlot(1) {
		t.Error("a replica owns its slot")
	}
	if err := h.Signal(pid, "STOP"); err != nil {
		t.Fatal(err)
	}
	c, err := w.Dial(t.Context(), "tcp", "127.0.0.1:9225")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := h.Signal(pid, "CONT"); err != nil {
		t.Fatal(err)
	}
	if err := h.Signal(pid, "TERM"); err != nil {
		t.Fatal(err)
	}
	if _, _, alive := h.Process(pid); alive {
		t.Error("the process outlived TERM")
	}
	if _, argv, ok := h.Holder(10225); !ok || !strings.Contains(strings.Join(argv, " "), "rsync --daemon --config=/srv/9225/dbsync/rsync/") {
		t.Errorf("rsync ended with its server: %v", argv)
	}
	if _, err := begin(h, "9225"); err != nil {
		t.Fatal("the daemon that was left behind is not adopted: ", err)
	}
	if !w.Pika("pika5").OwnsSlot(1) {
		t.Error("a restart remembers whom a slot follows, or forgets the slot")
	}
	daemon, _, _ := h.Holder(10225)
	if err := h.Signal(daemon, "TERM"); err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Listening(10225); ok || w.Pika("pika5").RsyncAddr() != "" {
		t.Error("rsync outlived TERM")
	}
}

// TestRsyncFromOutside: the port that a check tries from its own machine is open as well.
func TestRsyncFromOutside(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{"pika1": {Kind: "pika"}}}, simulate.Options{})
	n, err := strconv.Atoi(port(w.Pika("pika1")))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := w.Host(simulate.LocalHost).Listening(n + 1000); !ok || got != "rsync" {
		t.Errorf("on the host: %q", got)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n+1000)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if said, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(said, "@RSYNCD") {
		t.Errorf("greeted with %q, %v", said, err)
	}
}
