package redis

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// recorded is INFO of redis-server 7.0.15 in one state.
func recorded(t *testing.T, name string) Info {
	t.Helper()
	b, err := os.ReadFile("../../testdata/recordings/redis/info/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return ParseInfo(string(b))
}

func ptr(n int64) *int64 { return &n }

// TestParseInfo reads what a real server said: a master, with replicas, during a full sync; a replica, syncing, cut off.
func TestParseInfo(t *testing.T) {
	const master = "127.0.0.1:7301"
	for _, tc := range []struct {
		name, role, master, link string
		syncing                  bool
		keys                     int64
		offset, lag              *int64
		replicas                 []Replica
	}{
		{name: "standalone", role: "master", offset: ptr(0)},
		{name: "master", role: "master", keys: 4, offset: ptr(0), lag: ptr(0), replicas: []Replica{
			{"127.0.0.1:7302", "online", 0, ptr(0)}, {"127.0.0.1:7303", "online", 0, ptr(0)},
		}},
		{name: "master-full-sync", role: "master", keys: 200004, offset: ptr(0), replicas: []Replica{
			{"127.0.0.1:7302", "online", 0, ptr(0)}, {"127.0.0.1:7303", "wait_bgsave", 0, nil},
		}},
		{name: "replica", role: "slave", master: master, link: "up", keys: 4, offset: ptr(0)},
		{name: "replica-full-sync", role: "slave", master: master, link: "down", syncing: true, keys: 4, offset: ptr(0)},
		{name: "replica-link-down", role: "slave", master: master, link: "down", keys: 4, offset: ptr(0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := recorded(t, tc.name)
			if i.Role != tc.role || i.Master != tc.master || i.Link != tc.link || i.Syncing != tc.syncing || i.Keys != tc.keys {
				t.Errorf("%+v", i)
			}
			if !reflect.DeepEqual(i.Offset, tc.offset) || !reflect.DeepEqual(i.Lag(), tc.lag) || !reflect.DeepEqual(i.Replicas, tc.replicas) {
				t.Errorf("offset %v, lag %v, replicas %+v", i.Offset, i.Lag(), i.Replicas)
			}
			if i.Version != "7.0.15" || len(i.RunID) != 40 || len(i.ReplID) != 40 || i.PID == 0 || i.Memory == 0 {
				t.Errorf("%+v", i)
			}
		})
	}
}

// TestTyped: a field has one type in every run.
func TestTyped(t *testing.T) {
	for line, want := range map[string]any{
		"connected_clients:3":                      int64(3),
		"master_link_down_since_seconds:-1":        int64(-1),
		"mem_fragmentation_ratio:1.25":             1.25,
		"used_memory_peak_perc:99.72%":             "99.72%",
		"redis_version:7.0":                        "7.0",
		"gcc_version:12.2":                         "12.2",
		"redis_git_sha1:00000000":                  "00000000",
		"redis_build_id:1234567890123456":          "1234567890123456",
		"run_id:1e10":                              "1e10",
		"master_replid:" + strings.Repeat("1", 40): strings.Repeat("1", 40),
		"master_host:10.0":                         "10.0",
		"used_memory_human:871.88K":                "871.88K",
		"process_id:7":                             int64(7),
		"mem_fragmentation_ratio:-nan":             "-nan",
		"config_file:":                             "",
		"db0:keys=3,expires=1,avg_ttl=0":           map[string]any{"keys": int64(3), "expires": int64(1), "avg_ttl": int64(0)},
		"slave0:ip=10.0,port=1,state=online":       map[string]any{"ip": "10.0", "port": int64(1), "state": "online"},
		"executable:/srv/a=b":                      "/srv/a=b",
	} {
		name, _, _ := strings.Cut(line, ":")
		if got := ParseInfo("# S\r\n" + line + "\r\n").Fields[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %T %v", line, got, got)
		}
	}
}

// TestParseRole reads what ROLE answers.
func TestParseRole(t *testing.T) {
	for name, tc := range map[string]struct {
		reply any
		want  Role
		fails bool
	}{
		"master":    {[]any{"master", int64(50), []any{[]any{"127.0.0.1", "7302", "42"}}}, Role{Role: "master", Offset: 50, Replicas: []Replica{{"127.0.0.1:7302", "online", 42, ptr(8)}}}, false},
		"alone":     {[]any{"master", int64(0), []any{}}, Role{Role: "master"}, false},
		"replica":   {[]any{"slave", "127.0.0.1", int64(7301), "connect", int64(-1)}, Role{Role: "slave", Master: "127.0.0.1:7301", Link: "connect", Offset: -1}, false},
		"sentinel":  {[]any{"sentinel", []any{"m"}}, Role{Role: "sentinel"}, false},
		"empty":     {[]any{}, Role{}, true},
		"another":   {[]any{"master"}, Role{}, true},
		"no list":   {"master", Role{}, true},
		"bad entry": {[]any{"master", int64(1), []any{[]any{"a", "b"}}}, Role{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseRole(Reply{v: tc.reply})
			if (err != nil) != tc.fails || (!tc.fails && !reflect.DeepEqual(got, tc.want)) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
