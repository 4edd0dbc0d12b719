package pika

import (
	"hash/crc32"
	"strings"
	"testing"

	simpika "runbook/internal/simulate/pika"
	"runbook/schema"
	"runbook/steps"
)

// TestMarkers: one key for each thread, all in the slot, with the hash of libstdc++.
func TestMarkers(t *testing.T) {
	for text, want := range map[string]uint64{ // std::hash<std::string> of g++ 12 on x86-64
		"": 0x553e93901e462a6e, "a": 0x454ddee488c1ed6b, "12345678": 0x8c5b90a33a04dca5,
		"{12}__runner_marker:0": 0x6d7fba4eee93679a, "0123456789abcdef!": 0x3342474da4e141fa,
	} {
		if got := stdHash(text); got != want {
			t.Errorf("hash of %q is %#x, want %#x", text, got, want)
		}
	}
	for _, c := range []struct{ slot, slots, threads int }{{0, 1024, 1}, {1, 1024, 6}, {1023, 1024, 24}, {3, 4, 6}} {
		hit := map[uint64]bool{}
		for _, key := range MarkerKeys(c.slot, c.slots, c.threads) {
			hit[stdHash(key)%uint64(c.threads)] = true
			tag, _, _ := strings.Cut(key[1:], "}")
			if got := int(crc32.ChecksumIEEE([]byte(tag)) % uint32(c.slots)); got != c.slot {
				t.Errorf("%s lies in slot %d, not %d", key, got, c.slot)
			}
			if !isMarker(key) {
				t.Errorf("%s is not known for a marker", key)
			}
		}
		if len(hit) != c.threads {
			t.Errorf("slot %d: the markers reach %d of %d threads", c.slot, len(hit), c.threads)
		}
	}
	for _, key := range []string{"__runner_marker:0", "{user}__runner_marker:0", "{1}__runner_marker:", "{1}__runner_marker:x", "a{1}__runner_marker:0", "{}__runner_marker:0"} {
		if isMarker(key) {
			t.Errorf("%s is taken for a marker", key)
		}
	}
}

// TestRemoveMarkers: one request each. A follower applies a DEL of several keys in the thread of the first, where it would
// overtake the markers that still wait in the other threads.
func TestRemoveMarkers(t *testing.T) {
	s, err := simpika.Start(simpika.Options{Slots: "1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := Open(Config{Addr: schema.Addr(s.Addr())}, steps.ReadWrite)
	t.Cleanup(func() { _ = c.Close() })
	keys := MarkerKeys(1, 1024, 6)
	if err := c.WriteMarkers(t.Context(), keys, "v"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveMarkers(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	if left := s.Keys(1); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, w := range s.Writes() {
		if w[0] == "DEL" && len(w) > 2 {
			t.Errorf("several in one request: %v", w)
		}
	}
}
