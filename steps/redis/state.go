package redis

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"runbook/steps"
)

// Info is what INFO tells, typed. A field that the server does not show has its zero
// value, a pointer is nil.
type Info struct {
	Version   string // redis_version
	Mode      string // redis_mode: standalone, cluster, sentinel
	RunID     string // another one after every restart
	PID       int64  // process_id
	Config    string // config_file; empty: started without one
	Role      string // the server's word: master, slave; sentinel
	ReplID    string // master_replid: names the history that offsets belong to
	Offset    *int64 // bytes of the replication stream: written by a master, processed by a replica
	Master    string // host:port a replica follows, as configured; empty on a master
	Link      string // up, down; empty on a master
	Syncing   bool   // a full sync from the master is under way
	Replicas  []Replica
	Connected int64 // connected_slaves
	Memory    int64 // used_memory, bytes
	Loading   bool
	Keys      int64  // in all databases
	Paused    string // paused_actions: none, write, all; empty where the server does not show it (Redis does not; Valkey does since 8.1)
	// Fields has every field: int64, float64, string, or a map of these where the server
	// writes name=value,name=value.
	Fields map[string]any
}

// Replica is a replica as its master sees it.
type Replica struct {
	Addr   string `yaml:"addr" doc:"Address the replica announces, host:port."`
	State  string `yaml:"state" doc:"wait_bgsave, send_bulk (a full sync is under way) or online."`
	Offset int64  `yaml:"offset" doc:"Bytes of the stream that the replica has acknowledged; it does so once a second."`
	Lag    *int64 `yaml:"lag" doc:"Bytes of the stream it has not acknowledged; null while it is not online." min:"0"`
}

// ParseInfo reads the answer to INFO, of any release.
func ParseInfo(text string) Info {
	in := Info{Fields: map[string]any{}}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if n, ok := pikaKeys(line); ok {
			in.Keys += n
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		in.Fields[name] = typed(name, value)
	}
	in.Version, in.Mode, in.RunID = cmp.Or(in.text("redis_version"), in.text("pika_version")), in.text("redis_mode"), in.text("run_id")
	in.Config, in.Role, in.ReplID = in.text("config_file"), in.text("role"), in.text("master_replid")
	in.Paused = in.text("paused_actions")
	in.PID, _ = in.number("process_id")
	in.Connected, _ = in.number("connected_slaves")
	in.Memory, _ = in.number("used_memory")
	in.Loading = in.flag("loading")
	offset := "master_repl_offset"
	if in.Role == "slave" {
		in.Link = in.text("master_link_status")
		in.Syncing = in.flag("master_sync_in_progress")
		if port, ok := in.number("master_port"); ok {
			in.Master = net.JoinHostPort(in.text("master_host"), strconv.FormatInt(port, 10))
		}
		offset = "slave_repl_offset"
	}
	if n, ok := in.number(offset); ok {
		in.Offset = &n
	}
	for i := int64(0); i < in.Connected; i++ {
		if r, ok := in.replica(fmt.Sprintf("slave%d", i)); ok {
			in.Replicas = append(in.Replicas, r)
		}
	}
	for name, v := range in.Fields {
		if db, ok := v.(map[string]any); ok && isNumbered(name, "db") {
			n, _ := db["keys"].(int64)
			in.Keys += n
		}
	}
	return in
}

// pikaKeys reads a line of Pika's section Keyspace, "db0 Strings_keys=12, expires=0" or "kv keys:12": what its last count has found.
func pikaKeys(line string) (int64, bool) {
	_, rest, ok := strings.Cut(line, " keys:")
	if !ok {
		if _, rest, ok = strings.Cut(line, "_keys="); !ok || !strings.HasPrefix(line, "db") {
			return 0, false
		}
		rest, _, _ = strings.Cut(rest, ",")
	}
	n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
	return n, err == nil
}

func (in Info) replica(field string) (Replica, bool) {
	f, ok := in.Fields[field].(map[string]any)
	if !ok {
		return Replica{}, false
	}
	var r Replica
	r.State, _ = f["state"].(string)
	r.Offset, _ = f["offset"].(int64)
	ip, _ := f["ip"].(string)
	port, _ := f["port"].(int64)
	r.Addr = net.JoinHostPort(ip, strconv.FormatInt(port, 10))
	if r.State == "online" && in.Role == "master" && in.Offset != nil {
		if _, known := f["offset"]; known {
			lag := max(*in.Offset-r.Offset, 0)
			r.Lag = &lag
		}
	}
	return r, true
}

// Lag is how many bytes the slowest replica of a master has not acknowledged: known only
// where there are replicas and every one of them is online.
func (in Info) Lag() *int64 {
	if in.Role != "master" || len(in.Replicas) == 0 || int64(len(in.Replicas)) != in.Connected {
		return nil
	}
	var most int64
	for _, r := range in.Replicas {
		if r.Lag == nil {
			return nil
		}
		most = max(most, *r.Lag)
	}
	return &most
}

func (in Info) text(name string) string {
	switch v := in.Fields[name].(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

func (in Info) number(name string) (int64, bool) {
	n, ok := in.Fields[name].(int64)
	return n, ok
}

func (in Info) flag(name string) bool {
	n, _ := in.number(name)
	return n == 1
}

// typed gives a value the type that it always has: what only looks like a number in one
// run (an id, a version, a host) is a text in every run.
func typed(name, value string) any {
	if strings.Contains(value, "=") && !strings.HasPrefix(value, "/") {
		if m, ok := nested(value); ok {
			return m
		}
	}
	for _, suffix := range [...]string{"_version", "_sha1", "_id", "_host", "_human", "_file", "_name", "replid", "replid2", "ip", "executable", "os"} {
		if strings.HasSuffix(name, suffix) && name != "process_id" {
			return value
		}
	}
	return number(value)
}

// number reads decimal digits; a leading zero, an exponent or a sign of infinity makes a text.
func number(value string) any {
	digits := strings.TrimPrefix(value, "-")
	if digits == "" || strings.Trim(digits, "0123456789.") != "" || (len(digits) > 1 && digits[0] == '0' && digits[1] != '.') {
		return value
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	if !strings.Contains(value, ".") {
		return value
	}
	if f, err := strconv.ParseFloat(value, 64); err == nil {
		return f
	}
	return value
}

func nested(value string) (map[string]any, bool) {
	m := map[string]any{}
	for part := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(part, "=")
		if !ok || k == "" {
			return nil, false
		}
		if k == "ip" {
			m[k] = v
			continue
		}
		m[k] = number(v)
	}
	return m, true
}

func isNumbered(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || rest == "" {
		return false
	}
	return strings.Trim(rest, "0123456789") == ""
}

// Info asks for INFO: its default sections, or those named.
func (c *Client) Info(ctx context.Context, sections ...string) (Info, error) {
	r, err := c.Do(ctx, append([]string{"INFO"}, sections...)...)
	if err != nil {
		return Info{}, err
	}
	text, err := r.Text()
	if err != nil {
		return Info{}, err
	}
	in := ParseInfo(text)
	if len(in.Fields) == 0 {
		return in, &steps.Error{Kind: "reply", Err: fmt.Errorf("%s: the answer has no fields", r.from)}
	}
	return in, nil
}

// Role is what ROLE tells.
type Role struct {
	Role     string // master, slave, sentinel
	Offset   int64  // of the replication stream; -1 while a replica is not connected
	Master   string // host:port a replica follows
	Link     string // of a replica: none, connect, connecting, sync, connected
	Replicas []Replica
}

// Role asks for ROLE, which costs the server less than INFO.
func (c *Client) Role(ctx context.Context) (Role, error) {
	r, err := c.Do(ctx, "ROLE")
	if err != nil {
		return Role{}, err
	}
	return parseRole(r)
}

func parseRole(r Reply) (Role, error) {
	items, err := r.Items()
	if err != nil {
		return Role{}, err
	}
	if len(items) == 0 {
		return Role{}, r.unexpected("a role")
	}
	var role Role
	if role.Role, err = items[0].Text(); err != nil {
		return Role{}, err
	}
	switch {
	case role.Role == "master" && len(items) == 3:
		if role.Offset, err = items[1].Int(); err != nil {
			return Role{}, err
		}
		list, err := items[2].Items()
		if err != nil {
			return Role{}, err
		}
		for _, it := range list {
			f, err := it.Texts()
			if err != nil || len(f) != 3 {
				return Role{}, r.unexpected("replicas of three parts")
			}
			offset, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				return Role{}, r.unexpected("an offset")
			}
			lag := max(role.Offset-offset, 0) // ROLE lists replicas that are online alone
			role.Replicas = append(role.Replicas, Replica{Addr: net.JoinHostPort(f[0], f[1]), State: "online", Offset: offset, Lag: &lag})
		}
	case role.Role == "slave" && len(items) == 5:
		f, err := r.Texts()
		if err != nil {
			return Role{}, err
		}
		role.Master, role.Link = net.JoinHostPort(f[1], f[2]), f[3]
		if role.Offset, err = items[4].Int(); err != nil {
			return Role{}, err
		}
	case role.Role != "sentinel":
		return Role{}, r.unexpected("a role of known form")
	}
	return role, nil
}
