package codis_test

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRoutesByKey(t *testing.T) {
	w := newWorld(t, 2)
	for _, slot := range []int{0, 511, 512, 1023} {
		k := key(slot)
		if got := w.ask(w.proxies[0], "SET "+k+" v"); got != "OK" {
			t.Fatalf("slot %d: %s", slot, got)
		}
		if got := w.servers[slot/512].value(k); got != "v" {
			t.Errorf("slot %d: %q is stored at its group's master", slot, got)
		}
		if got := w.ask(w.proxies[1], "GET "+k); got != "v" {
			t.Errorf("slot %d through the other proxy: %s", slot, got)
		}
	}
}

func TestHold(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	w.hold(p, true, 5)
	c := w.client(p)
	if err := c.Send("SET", key(5), "late"); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("SET", key(6), "behind"); err != nil {
		t.Fatal(err)
	}
	w.until("the request waits", func() bool { return p.Held() == 1 })
	if got := w.ask(p, "SET "+key(7)+" v"); got != "OK" {
		t.Errorf("another slot on another connection: %s", got)
	}
	if w.servers[0].value(key(6)) != "" {
		t.Error("a request behind a held one was carried out")
	}
	w.hold(p, false, 5)
	for range 2 {
		if v, err := c.Receive(); err != nil || v.Str != "OK" {
			t.Fatalf("%v %v", v, err)
		}
	}
	if w.servers[0].value(key(5)) != "late" {
		t.Error("the held request was not carried out")
	}
}

func TestZombie(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	w.hold(p, true, 5)
	c := w.client(p)
	if err := c.Send("SET", key(5), "zombie"); err != nil {
		t.Fatal(err)
	}
	w.until("the request waits", func() bool { return p.Held() == 1 })
	c.Close()
	w.hold(p, false, 5)
	w.until("the request of a client that has gone is carried out after the release", func() bool { return w.servers[0].value(key(5)) == "zombie" })
}

// TestCommands: what a proxy answers itself, refuses, or splits.
func TestCommands(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	a, b := key(1), key(600) // of both groups
	other := w.servers[1].addr
	for _, tt := range []struct{ line, want string }{
		{"MSET " + a + " 1 " + b + " 2", "OK"},
		{"MGET " + a + " none " + b, "1  2"},
		{"EXISTS " + a + " " + b + " none", "2"},
		{"DEL " + a + " " + b + " none", "2"},
		{"MSET " + a, "ERR wrong number of arguments for 'MSET' command"},
		{"PING", "PONG"},
		{"ping " + other, "PONG"},
		{"PING 127.0.0.1:1", "ERR backend server '127.0.0.1:1' not found"},
		{"SLOTSINFO " + other, ""},
		{"KEYS *", "ERR handle request, command 'KEYS' is not allowed"},
		{"MULTI", "ERR handle request, command 'MULTI' is not allowed"},
		{"CONFIG GET x", "ERR handle request, command 'CONFIG' is not allowed"},
		{"AUTH x", "ERR Client sent AUTH, but no password is set"},
		{"SELECT 16", "ERR invalid DB index, only accept DB [0,16)"},
		{"SLOTSMAPPING 600", "600 " + other + "  "},
		{"SLOTSMAPPING 1024", "ERR parse slotnum '1024' failed, out of range"},
		{"QUIT", "OK"},
	} {
		if got := w.ask(p, tt.line); got != tt.want {
			t.Errorf("%s: %q", tt.line, got)
		}
	}
	if got := strings.Count(w.ask(p, "SLOTSMAPPING"), other); got != 512 {
		t.Errorf("SLOTSMAPPING: %d slots at %s", got, other)
	}
	w.put("slots/assign/:xauth/offline", []byte(`[{"id":1}]`))
	if got := w.ask(p, "GET "+a); got != "ERR handle request, slot is not ready, may be offline" {
		t.Errorf("an offline slot: %s", got)
	}
}

// TestSlotOf: crc32 of the hash tag, or of the whole key.
func TestSlotOf(t *testing.T) {
	for k, want := range map[string]int{"": 0, "123456789": 0xcbf43926 % 1024, "a{123456789}b": 0xcbf43926 % 1024, "{}x": 0, "}{123456789}{z}": 0xcbf43926 % 1024} {
		if got := codis.SlotOf(k); got != want {
			t.Errorf("%q: %d", k, got)
		}
	}
}

// TestPasswords of clients and of servers are two.
func TestPasswords(t *testing.T) {
	s := startServer(t)
	p, err := codis.StartProxy(codis.ProxyOptions{ProductAuth: "product", SessionAuth: "session"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w := &world{TB: t}
	if status, b := p.Do("PUT", "/api/proxy/fillslots/:xauth", encode([]codis.Slot{{ID: codis.SlotOf("k"), BackendAddr: s.addr}})); status != 200 {
		t.Fatalf("%s", b)
	}
	if status, b := p.Do("PUT", "/api/proxy/start/:xauth", nil); status != 200 {
		t.Fatalf("%s", b)
	}
	c := w.client(p)
	for _, tt := range []struct{ line, want string }{
		{"GET k", "NOAUTH Authentication required"}, {"AUTH product", "ERR invalid password"}, {"AUTH session", "OK"}, {"SET k v", "OK"},
	} {
		v, err := c.Do(t.Context(), strings.Fields(tt.line)...)
		if got := v.String(); got != tt.want {
			t.Errorf("%s: %s %v", tt.line, got, err)
		}
	}
	if got := s.commands("AUTH"); len(got) == 0 || got[0][1] != "product" {
		t.Errorf("the server was sent %q", got)
	}
}

// TestServerRestarts: requests under way fail, later ones are served as soon as it is back.
func TestServerRestarts(t *testing.T) {
	w := newWorld(t, 1)
	p, s := w.proxies[0], w.servers[0]
	w.ask(p, "SET "+key(5)+" v")
	s.stop()
	w.until("requests fail", func() bool { return contains(w.ask(p, "GET "+key(5)), "ERR handle response, backend conn") })
	if got := w.ask(p, "PING "+w.servers[1].addr); got != "PONG" {
		t.Errorf("the other server: %s", got)
	}
	s.start()
	w.until("requests are served", func() bool { return w.ask(p, "GET "+key(5)) == "v" })
}

// TestPartialFill: a list is applied up to the element that is refused.
func TestPartialFill(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	list := append(holding(p, true, 118), codis.Slot{ID: 5000}, holding(p, true, 119)[0])
	if err := w.fill(t.Context(), p, list...); err == nil || !contains(err.Error(), "use of invalid slot id") {
		t.Errorf("%v", err)
	}
	if !p.Routes()[118].Locked || p.Routes()[119].Locked {
		t.Error("118 is to be held and 119 not")
	}
	bare := codis.Slot{ID: 118, BackendAddr: w.servers[0].addr}
	if err := w.fill(t.Context(), p, bare); err != nil || p.Routes()[118].ForwardMethod != 0 {
		t.Errorf("a slot without a forward method is taken as sync: %v %+v", err, p.Routes()[118])
	}
}

// TestOrder: the answers of a pipeline come in its order, whatever servers they come from.
func TestOrder(t *testing.T) {
	w := newWorld(t, 1)
	c := w.client(w.proxies[0])
	var out []byte
	for i := range 500 {
		out = append(out, resp.Command("SET", fmt.Sprint("o", i), fmt.Sprint(i))...)
		out = append(out, resp.Command("GET", fmt.Sprint("o", i))...)
	}
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if v, err := c.Receive(); err != nil || v.Str != "OK" {
			t.Fatal(v, err)
		}
		if v, err := c.Receive(); err != nil || v.Str != fmt.Sprint(i) {
			t.Fatalf("%d: %v %v", i, v, err)
		}
	}
}

// TestKilledProxy: what was held when it was killed is never carried out.
func TestKilledProxy(t *testing.T) {
	w := newWorld(t, 1)
	p := w.proxies[0]
	w.hold(p, true, 5)
	c := w.client(p)
	if err := c.Send("SET", key(5), "v"); err != nil {
		t.Fatal(err)
	}
	w.until("the request waits", func() bool { return p.Held() == 1 })
	p.Kill()
	if _, err := c.Receive(); err == nil {
		t.Error("a killed proxy answered")
	}
	if w.servers[0].value(key(5)) != "" {
		t.Error("the held request was carried out")
	}
}
