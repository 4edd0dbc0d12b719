package pika

import (
	"reflect"
	"strings"
	"testing"

	"runbook/schema"
	"runbook/steps/redis"
)

// readRedis runs a kind of steps/redis that reads, and gives its output's fields by their keys.
func readRedis(t *testing.T, name string, own *server, others map[string]*server, with map[string]any) (map[string]any, error) {
	t.Helper()
	for _, d := range redis.Kinds() {
		if d.Name != name {
			continue
		}
		in := reflect.New(d.In).Interface()
		if err := schema.Bind(with, in); err != nil {
			t.Fatal(err)
		}
		out, err := d.Read(t.Context(), looking(t, own, others), in)
		fields := map[string]any{}
		for v, i := reflect.ValueOf(out), 0; err == nil && i < v.NumField(); i++ {
			key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			fields[key] = v.Field(i).Interface()
		}
		return fields, err
	}
	t.Fatalf("no kind %s", name)
	return nil, nil
}

// The redis kinds that name pika act on it, and tell what is so there.
func TestRedisKindsOnPika(t *testing.T) {
	b := simulated()
	a, o := b.start(t, options{slots: "0-3"}), b.start(t, options{slots: "0-3"})
	for i, name := range []string{"a", "b", "c"} {
		a.do(t, "SET", key(i, name), "v")
		o.do(t, "SET", key(i, name), "v")
	}
	o.do(t, "SET", key(1, "b"), "another")
	o.do(t, "SET", key(3, "more"), "v")
	names := map[string]*server{"o": o}

	out, err := readRedis(t, "redis.compare", a, names, map[string]any{"against": "o", "mode": "full", "slots": "0-1", "slot_num": slotNumber, "pause": "1ms"})
	if err != nil || out["compared"] != int64(2) || out["value_mismatches"] != int64(1) || out["extra"] != int64(0) {
		t.Errorf("compare two slots: %v, %v", out, err)
	}
	if n, ok := out["keys_source"].(*int64); !ok || n == nil || *n != 2 {
		t.Errorf("keys of the two slots: %v", out["keys_source"])
	}
	if _, err := readRedis(t, "redis.compare", a, names, map[string]any{"against": "o", "mode": "full"}); !isKind(err, "precondition") || !strings.Contains(err.Error(), "by slots alone") {
		t.Errorf("compare without slots: %v", err)
	}
	if _, err := readCountKeys(t.Context(), looking(t, a, nil), countKeysIn{Every: 1e6}); err != nil {
		t.Fatal(err)
	}
	out, err = readRedis(t, "redis.info", a, nil, nil)
	if err != nil || out["version"] != "3.4.0" || out["keys"] != int64(3) || out["role"] != "master" {
		t.Errorf("info: %v, %v", out, err)
	}
	out, err = readRedis(t, "redis.check-config", a, nil, map[string]any{"expect": map[string]any{"instance-mode": "sharding", "default-slot-num": slotNumber}})
	if err != nil || reflect.ValueOf(out["mismatches"]).Len() != 0 {
		t.Errorf("check-config: %v, %v", out, err)
	}
	for _, d := range redis.Kinds() {
		onPika := false
		for _, on := range d.On {
			onPika = onPika || on == KindName
		}
		if onPika == (d.Name == "redis.replicaof" || d.Name == "redis.pause-writes" || strings.HasSuffix(d.Name, "-instance")) {
			t.Errorf("%s acts on a pika: %v", d.Name, onPika)
		}
	}
}
