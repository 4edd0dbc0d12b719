package simulate_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate"
)

// TestTwemproxy: slots are moved behind a proxy that is started again on another list. Clients lose nothing over it.
func TestTwemproxy(t *testing.T) {
	w := start(t, simulate.Spec{
		Systems: map[string]simulate.System{
			"pika1": {Kind: "pika", Slots: "0-1", SlotNum: 4, Keys: 20}, "pika2": {Kind: "pika", Slots: "2-3", SlotNum: 4},
			"nut": {Kind: "twemproxy", Addr: "127.0.0.1:22121", Pool: "alpha", SlotNum: 4, Slots: map[string]any{"0-1": "pika1", "2-3": "pika2"}},
		},
		Traffic: &simulate.Traffic{Through: "nut", Clients: 4, WritesPerSecond: 100, Keys: 80, Slots: "1"},
	}, simulate.Options{})
	h := w.Host(simulate.LocalHost)
	const file, pidfile = "/etc/nutcracker/nutcracker.yml", "/run/nutcracker/nutcracker.pid"
	conf, _, err := h.ReadFile(file)
	if err != nil || !strings.Contains(string(conf), "alpha:\n  listen: "+w.Addr("nut")) || !strings.Contains(string(conf), w.Addr("pika2")+":1 server4\n") {
		t.Fatalf("%v\n%s", err, conf)
	}
	if b, _, err := h.ReadFile(pidfile); err != nil || len(b) == 0 {
		t.Errorf("no pid file: %v", err)
	}
	if by, ok := h.Listening(22121); !ok || by != "nutcracker" {
		t.Errorf("22121: %q %v", by, ok)
	}
	c, err := w.Dial(t.Context(), "tcp", "127.0.0.1:22222")
	if err != nil {
		t.Fatal("statistics: ", err)
	}
	_ = c.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	load, err := w.StartTraffic(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Stop()
	if err := load.Ledger().WaitAcknowledged(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if said, code, _ := w.Run(h, []string{"nutcracker", "-t", "-c", file}, "/", nil); code != 0 || !strings.Contains(said, "syntax is ok") {
		t.Errorf("-t: %d %s", code, said)
	}
	pid, argv, _ := h.Holder(22121)
	if err := h.Signal(pid, "TERM"); err != nil {
		t.Fatal(err)
	}
	if got, _ := h.Listening(22121); got != "" {
		t.Errorf("%s outlived TERM", got)
	}
	if said, code, _ := w.Run(h, argv, "/", nil); code != 0 {
		t.Fatalf("the start: %d %s", code, said)
	}
	if now, _, ok := h.Holder(22121); !ok || now == pid {
		t.Errorf("process %d, as before", now)
	}
	if err := load.Ledger().WaitAcknowledged(ctx, 100); err != nil {
		t.Fatal(err)
	}
	load.Stop()
	if r, err := w.CheckTraffic(ctx, load); err != nil || len(r.Broken()) > 0 || len(r.Extra) > 0 {
		t.Errorf("%v, broken %v, extra %v", err, r.Broken(), r.Extra)
	}
	if broken, err := w.CheckSlots(); err != nil || len(broken) > 0 {
		t.Errorf("slots of a world without a codis: %v %v", broken, err)
	}
}

// TestTwemproxyOnHost: what its file says counts, with the addresses of the runbook or the real ones.
func TestTwemproxyOnHost(t *testing.T) {
	const text = "alpha:\n  listen: 127.0.0.1:22121\n  hash: crc32a\n  hash_tag: \"{}\"\n  distribution: modula\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1 server1\n   - ${b}:1 server2\n"
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{
		"h":   {Kind: "host", Files: map[string]string{"/etc/n.yml": text}},
		"a":   {Kind: "redis", Addr: "127.0.0.1:6379"},
		"b":   {Kind: "redis", Addr: "127.0.0.1:6380"},
		"nut": {Kind: "twemproxy", Addr: "127.0.0.1:22121", Absent: true},
	}}, simulate.Options{})
	h := w.Host("h")
	if b, _, _ := h.ReadFile("/etc/n.yml"); !strings.Contains(string(b), w.Addr("b")+":1 server2") {
		t.Errorf("an address was not put in:\n%s", b)
	}
	if w.Twemproxy("nut") != nil {
		t.Error("the absent one is there")
	}
	for line, want := range map[string]string{
		"nutcracker -c /none.yml": "Failed to open '/none.yml'", "nutcracker -x 1": "invalid option", "nutcracker -c": "requires a value",
	} {
		if said, code, known := w.Run(h, strings.Fields(line), "/", nil); code != 1 || !known || !strings.Contains(said, want) {
			t.Errorf("%s: %d %s, want %s", line, code, said, want)
		}
	}
	if _, err := h.Start(strings.Fields("nutcracker -c n.yml -p /run/n.pid"), "/etc", nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k1", "k2", "k3", "k4"} {
		if got := ask(t, w, "127.0.0.1:22121", "SET "+key+" x"); got != "OK" {
			t.Errorf("set %s: %s", key, got)
		}
	}
	if a, b := w.Server("a").Do("DBSIZE").Int, w.Server("b").Do("DBSIZE").Int; a == 0 || b == 0 || a+b != 4 {
		t.Errorf("%d keys went to one server, %d to the other", a, b)
	}
	if _, err := h.Start(strings.Fields("nutcracker -c /etc/n.yml"), "/", nil); err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("a second start: %v", err)
	}
}
