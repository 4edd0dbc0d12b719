package pika

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// config is the configuration of a process. order is that of CONFIG GET, where a name may stand twice.
type config struct {
	order  []string
	values map[string]string
}

func (c *config) get(name string) string { return c.values[name] }

func (c *config) int(name string) int {
	n, _ := strconv.Atoi(c.values[name])
	return n
}

func (c *config) clone() *config { return &config{order: c.order, values: maps.Clone(c.values)} }

// What a process has where its file says nothing, in the order of CONFIG GET.
const (
	defaults3 = `port= thread-num=1 thread-pool-size=12 sync-thread-num=6 log-path=./log/ db-path=./db/ maxmemory=10737418240
write-buffer-size=268435456 arena-block-size=33554432 max-write-buffer-number=2 timeout=60 requirepass= masterauth= userpass=
userblacklist= instance-mode= default-slot-num= daemonize=no dump-path=./dump/ dump-expire=0 dump-prefix= pidfile=./pika.pid
maxclients=20000 target-file-size-base=20971520 max-cache-statistic-keys=0 small-compaction-threshold=5000
max-background-flushes=1 max-background-compactions=2 max-cache-files=5000 max-bytes-for-level-multiplier=10 block-size=4096
block-cache=8388608 share-block-cache=no cache-index-and-filter-blocks=no optimize-filters-for-hits=no
level-compaction-dynamic-level-bytes=no expire-logs-days=7 expire-logs-nums=10 root-connection-num=2
slowlog-write-errorlog=no slowlog-log-slower-than=10000 slowlog-max-len=128 write-binlog=yes binlog-file-size=104857600
max-cache-statistic-keys=0 small-compaction-threshold=5000 max-write-buffer-size=10737418240
max-client-response-size=1073741824 compression=snappy db-sync-path=./dbsync/ db-sync-speed=1024 compact-cron=
compact-interval= network-interface= slaveof= slave-priority=100 sync-window-size=9000 max-conn-rbuf-size=268435456
replication-num=0 consensus-level=0`
	defaults2 = `port= double-master-ip= double-master-port=0 double-master-sid=0 thread-num=1 sync-thread-num=6 sync-buffer-size=10
log-path=./log/ loglevel=INFO db-path=./db/ maxmemory=10737418240 write-buffer-size=268435456 timeout=60 requirepass=
masterauth= userpass= userblacklist= daemonize=0 slotmigrate=0 dump-path=./dump/ dump-expire=0 dump-prefix=
pidfile=./pika.pid maxclients=20000 target-file-size-base=20971520 max-background-flushes=1 max-background-compactions=1
max-cache-files=5000 max-bytes-for-level-multiplier=10 expire-logs-days=7 expire-logs-nums=10 root-connection-num=2
slowlog-log-slower-than=10000 slave-read-only=1 binlog-file-size=104857600 compression=snappy db-sync-path=./dbsync/
db-sync-speed=125 compact-cron= compact-interval= network-interface= slaveof= slave-priority=100`
)

// hidden are the parameters of a file that CONFIG GET does not know.
var hidden = []string{"server-id", "databases", "double-master-server-id", "identify-binlog-type"}

// settable are the parameters that CONFIG SET knows.
var settable = []string{
	"timeout", "requirepass", "masterauth", "userpass", "userblacklist", "dump-prefix", "maxclients", "dump-expire", "slave-priority",
	"expire-logs-days", "expire-logs-nums", "root-connection-num", "slowlog-write-errorlog", "slowlog-log-slower-than",
	"slowlog-max-len", "max-cache-statistic-keys", "small-compaction-threshold", "max-client-response-size", "write-binlog",
	"db-sync-speed", "compact-cron", "compact-interval", "sync-window-size", "max-cache-files", "max-background-compactions",
	"write-buffer-size", "max-write-buffer-number", "arena-block-size",
}

var settableOld = []string{
	"loglevel", "timeout", "requirepass", "masterauth", "userpass", "userblacklist", "dump-prefix", "maxclients", "dump-expire",
	"slave-priority", "expire-logs-days", "expire-logs-nums", "root-connection-num", "slowlog-log-slower-than", "slave-read-only",
	"db-sync-speed", "compact-cron", "compact-interval", "slotmigrate",
}

func (s *Server) newConfig(given map[string]string) (*config, error) {
	defaults := defaults3
	if s.old() {
		defaults = defaults2
	}
	c := &config{values: map[string]string{"server-id": "1"}}
	for _, f := range strings.Fields(defaults) {
		name, value, _ := strings.Cut(f, "=")
		c.order = append(c.order, name)
		c.values[name] = value
	}
	mode := "sharding"
	if s.classic {
		mode = "classic"
	}
	c.values["port"] = s.port
	if !s.old() {
		c.values["instance-mode"], c.values["default-slot-num"] = mode, strconv.Itoa(s.opts.SlotNum)
	}
	for name, value := range given {
		if !slices.Contains(c.order, name) && !slices.Contains(hidden, name) {
			return nil, fmt.Errorf("unknown configuration parameter %q", name)
		}
		c.values[name] = s.spelled(name, value)
	}
	if sid := c.values["double-master-server-id"]; sid != "" {
		c.values["double-master-sid"] = sid
	}
	return c, nil
}

// spelled is how a value is shown: 2.3 has numbers for yes and no.
func (s *Server) spelled(name, value string) string {
	if s.old() && slices.Contains([]string{"slave-read-only", "slotmigrate", "daemonize"}, name) {
		switch strings.ToLower(value) {
		case "yes", "1":
			return "1"
		case "no", "0":
			return "0"
		}
	}
	return value
}

func cmdConfig(s *Server, c *client, a []string) resp.Value {
	switch sub := strings.ToLower(a[1]); {
	case sub == "get" && len(a) == 3:
		v := resp.List()
		pattern := strings.ToLower(a[2])
		for i, name := range s.config.order {
			if keyspace.Glob(pattern, name) && (pattern == "*" || !slices.Contains(s.config.order[:i], name)) {
				value := s.config.get(name)
				if (name == "slave-read-only" || name == "slotmigrate") && pattern != "*" {
					value = map[string]string{"1": "yes", "0": "no"}[value]
				}
				v.Items = append(v.Items, resp.Text(name), resp.Text(value))
			}
		}
		return v
	case sub == "set" && len(a) == 4:
		name, known := strings.ToLower(a[2]), settable
		if s.old() {
			known = settableOld
		}
		if !slices.Contains(known, name) {
			return other("Unsupported CONFIG parameter: %s", name)
		}
		if _, err := strconv.Atoi(s.config.get(name)); err == nil {
			if _, err := strconv.Atoi(s.spelled(name, a[3])); err != nil {
				return other("Invalid argument '%s' for CONFIG SET '%s'", a[3], name)
			}
		}
		s.config.values[name] = s.spelled(name, a[3])
		return resp.OK()
	case sub == "rewrite" && len(a) == 2:
		s.saved = s.config.clone()
		return resp.OK()
	case sub == "resetstat" && len(a) == 2:
		s.stats = stats{calls: map[string]int64{}}
		return resp.OK()
	}
	return wrongNumber("config")
}
