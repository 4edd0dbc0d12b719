package simulate_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"runbook/internal/simulate"
	"runbook/internal/simulate/clock"
)

// A master that is down has died after its last writes, of which each replica has all but as many as it is behind.
func TestMasterDown(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{
		"master": {Kind: "pika", Slots: "0-3", SlotNum: 8, Keys: 20, Down: true},
		"far":    {Kind: "pika", Slots: "0-3", SlotNum: 8, ReplicaOf: "master", Behind: 12},
		"near":   {Kind: "pika", Slots: "0-3", SlotNum: 8, ReplicaOf: "master", Behind: 5},
		"whole":  {Kind: "pika", Slots: "0-3", SlotNum: 8, ReplicaOf: "master"},
	}}, simulate.Options{Clock: clock.New(50)})
	if w.Pika("master").Alive() {
		t.Error("the master lives")
	}
	for name, want := range map[string]int{"whole": 32, "near": 27, "far": 20} {
		n := 0
		for id := range 4 {
			n += w.Pika(name).SlotKeys(id)
		}
		if n != want {
			t.Errorf("%s has %d keys, want %d", name, n, want)
		}
		if info := w.Pika(name).Do("PKCLUSTER", "INFO", "SLOT", "0").Str; !strings.Contains(info, "master: "+w.Addr("master")) {
			t.Errorf("%s does not follow the master: %s", name, info)
		}
	}
}

func TestDownIsChecked(t *testing.T) {
	for want, systems := range map[string]map[string]simulate.System{
		"down is of a master that was there":     {"a": {Kind: "pika", Absent: true, Down: true}},
		"behind is of a replica whose master is": {"a": {Kind: "pika", Slots: 0, Keys: 1}, "b": {Kind: "pika", Slots: 0, ReplicaOf: "a", Behind: 1}},
		"down and behind are of mode sharding":   {"a": {Kind: "pika", Mode: "classic", Down: true}},
		"a redis has no down":                    {"a": {Kind: "redis", Down: true}},
	} {
		_, err := simulate.Start(t.Context(), simulate.Spec{Version: 1, Systems: systems}, simulate.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What a system has at a distance from its port is found from either of its addresses.
func TestPortsBeside(t *testing.T) {
	w := start(t, simulate.Spec{Systems: map[string]simulate.System{"a": {Kind: "pika", Addr: "127.0.0.1:9221"}}}, simulate.Options{})
	c, err := w.Dial(t.Context(), "tcp", "127.0.0.1:10221")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := make([]byte, 8)
	if _, err := c.Read(said); err != nil || !slices.Equal(said, []byte("@RSYNCD:")) {
		t.Errorf("%q (%v)", said, err)
	}
	if _, err := w.Dial(t.Context(), "tcp", "127.0.0.1:11221"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("port of replication: %v", err)
	}
	if _, err := w.Dial(t.Context(), "tcp", "127.0.0.1:9999"); err == nil || !strings.Contains(err.Error(), "no system of this sandbox") {
		t.Errorf("an address that is nobody's: %v", err)
	}
}

// A port that happens to be free is not taken where it is somebody's declared one: both would have the same address.
func TestDeclaredPortsAreNobodyElses(t *testing.T) {
	systems := map[string]simulate.System{}
	for i := range 900 { // of some twenty thousand
		systems[strconv.Itoa(i)] = simulate.System{Kind: "redis", Absent: true, Addr: "127.0.0.1:" + strconv.Itoa(10000+i*20)}
	}
	for i := range 40 {
		systems["any"+strconv.Itoa(i)] = simulate.System{Kind: "redis", Absent: true}
	}
	w := start(t, simulate.Spec{Systems: systems}, simulate.Options{})
	for name, s := range systems {
		if got, ok := w.Resolve(s.Addr); s.Addr != "" && (!ok || got != w.Addr(name)) {
			t.Errorf("%s is at %s, and %s leads to %s", name, w.Addr(name), s.Addr, got)
		}
	}
}
