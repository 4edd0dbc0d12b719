package pika

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// cmdInfo gives sections with an empty line between them.
func cmdInfo(s *Server, _ *client, a []string) resp.Value {
	sections := map[string]func() string{
		"server": s.infoServer, "data": s.infoData, "log": s.infoLog, "clients": s.infoClients, "hub": infoHub,
		"stats": s.infoStats, "command_exec_count": s.infoCalls, "cpu": infoCPU, "replication": s.infoReplication,
		"keyspace": s.infoKeyspace, "doublemaster": s.infoDoubleMaster,
	}
	var names []string
	switch {
	case len(a) == 1 && s.release == "2.3.0":
		names = []string{"server", "data", "log", "clients", "hub", "stats", "replication", "keyspace", "doublemaster"}
	case len(a) == 1 && s.old():
		names = []string{"server", "data", "log", "clients", "stats", "cpu", "replication", "keyspace"}
	case len(a) == 1:
		names = []string{"server", "data", "clients", "stats", "cpu", "replication", "keyspace"}
	case len(a) > 4:
		return keyspace.ErrSyntax
	default:
		names = []string{strings.ToLower(a[1])}
	}
	if names[0] == "all" {
		names = []string{"server", "data", "clients", "stats", "command_exec_count", "cpu", "replication", "keyspace"}
		if s.old() {
			names = []string{"server", "data", "log", "clients", "stats", "cpu", "replication", "keyspace", "doublemaster"}
		}
	}
	if names[0] == "keyspace" && len(a) > 2 {
		switch a[2] {
		case "1":
			text := s.infoKeyspace()
			s.startScan()
			return resp.Text(text)
		case "off":
			return resp.Text("OK\r\n")
		case "0":
		default:
			return keyspace.ErrSyntax
		}
	} else if len(a) > 2 {
		return keyspace.ErrSyntax
	}
	if !s.old() {
		delete(sections, "log")
		delete(sections, "doublemaster")
		delete(sections, "hub")
	}
	var out []string
	for _, n := range names {
		if f := sections[n]; f != nil {
			out = append(out, f())
		}
	}
	return resp.Text(strings.Join(out, "\r\n"))
}

func lines(pairs ...any) string {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "%v\r\n", p)
	}
	return b.String()
}

func (s *Server) infoServer() string {
	up := s.clock.Now().Sub(s.started)
	return lines("# Server", "pika_version:"+s.release, "pika_git_sha:", "pika_build_compile_date: Nov 22 2026", "os:Linux 6.1.0 x86_64", "arch_bits:64",
		fmt.Sprint("process_id:", s.opts.PID), "tcp_port:"+s.port, "thread_num:"+s.config.get("thread-num"), "sync_thread_num:"+s.config.get("sync-thread-num"),
		fmt.Sprint("uptime_in_seconds:", int(up.Seconds())), fmt.Sprint("uptime_in_days:", int(up.Hours()/24)+1),
		fmt.Sprintf("config_file:/data/%s/pika.conf", s.opts.Name), "server_id:"+s.config.get("server-id"))
}

// sizes are what the data and the binlogs take, roughly as much as the real one's files.
func (s *Server) sizes() (data, log int64) {
	data, log = 73728, 9346
	for sl := range s.slots() {
		data += 4096
		log += sl.log.end.File*int64(s.config.int("binlog-file-size")) + sl.log.end.Pos
		if sl.db != nil {
			data += sl.db.Size
		}
	}
	return data, log
}

func human(n int64) string { return fmt.Sprintf("%dM", n>>20) }

func (s *Server) infoData() string {
	data, log := s.sizes()
	out := lines("# Data", fmt.Sprint("db_size:", data), "db_size_human:"+human(data))
	if !s.old() {
		out += lines(fmt.Sprint("log_size:", log), "log_size_human:"+human(log))
	}
	out += lines("compression:"+s.config.get("compression"), fmt.Sprint("used_memory:", data/32), "used_memory_human:"+human(data/32),
		fmt.Sprint("db_memtable_usage:", data/32), "db_tablereader_usage:0")
	if !s.old() {
		out += lines("db_fatal:0", "db_fatal_msg:NULL")
	}
	return out
}

func (s *Server) infoLog() string {
	_, log := s.sizes()
	sl := s.tables[0].slots[0]
	return lines("# Log", fmt.Sprint("log_size:", log), "log_size_human:"+human(log), "safety_purge:"+sl.safetyPurge(),
		"expire_logs_days:"+s.config.get("expire-logs-days"), "expire_logs_nums:"+s.config.get("expire-logs-nums"), "binlog_offset:"+sl.log.end.String())
}

func (s *Server) infoClients() string {
	return lines("# Clients", fmt.Sprint("connected_clients:", len(s.clients)))
}

func infoHub() string {
	return lines("# Hub", "Connected hub: :0", "Sending window: 0 - -1", "Hub senders' map: ", "Hub stage: STOPED", "")
}

func (s *Server) infoStats() string {
	out := lines("# Stats", fmt.Sprint("total_connections_received:", s.stats.connections), "instantaneous_ops_per_sec:0",
		fmt.Sprint("total_commands_processed:", s.stats.commands))
	switch s.release {
	case "2.3.6":
		out += lines("is_bgsaving:No, , 0", "is_slots_reloading:No, , 0", "is_slots_cleanuping:No, , 0")
	case "2.3.0":
		out += lines("is_bgsaving:No, , 0", "is_slots_reloading:No, , 0")
	default:
		out += lines("is_bgsaving:" + yes(s.clock.Now().Before(s.saving)))
	}
	return out + lines("is_scaning_keyspace:"+yes(s.scan.running), "is_compact:No", "compact_cron:"+s.config.get("compact-cron"),
		"compact_interval:"+s.config.get("compact-interval"))
}

func yes(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

func (s *Server) infoCalls() string {
	out := lines("# Command_Exec_Count")
	for _, name := range slices.Sorted(maps.Keys(s.stats.calls)) {
		out += lines(fmt.Sprintf("%s:%d", name, s.stats.calls[name]))
	}
	return out
}

func infoCPU() string {
	return lines("# CPU", "used_cpu_sys:0.04", "used_cpu_user:0.06", "used_cpu_sys_children:0.01", "used_cpu_user_children:0.00")
}

// keyScan is the counting of keys, which begins when it is asked for and is over some time later.
type keyScan struct {
	start   time.Time // of the last one, zero before the first
	running bool
}

// typeCount is how many keys of each type there are, and how many of them have a time to live.
type typeCount map[string][2]int64

func (t typeCount) total() int64 {
	n := int64(0)
	for _, c := range t {
		n += c[0]
	}
	return n
}

func (s *Server) startScan() {
	if s.scan.running {
		return
	}
	s.scan = keyScan{start: s.clock.Now(), running: true}
	s.after(s.pace(100*time.Millisecond), func() {
		s.scan.running = false
		for sl := range s.slots() {
			sl.keys = typeCount{}
			if sl.db == nil {
				continue
			}
			for _, e := range sl.db.Keys {
				c := sl.keys[e.Type]
				c[0]++
				if e.Expire != 0 {
					c[1]++
				}
				sl.keys[e.Type] = c
			}
		}
	})
}

// infoKeyspace gives the counts of the last scan. 2.3 shows none while it scans.
func (s *Server) infoKeyspace() string {
	began := "1970-01-01 08:00:00"
	if !s.scan.start.IsZero() {
		began = s.scan.start.UTC().Format(time.DateTime)
	}
	out := lines("# Keyspace")
	for _, t := range s.tables {
		sum := typeCount{}
		for _, sl := range t.slots {
			for typ, c := range sl.keys {
				n := sum[typ]
				sum[typ] = [2]int64{n[0] + c[0], n[1] + c[1]}
			}
		}
		out += lines("# Time:" + began)
		if s.old() {
			if s.scan.running {
				sum = nil
			}
			for _, typ := range [][2]string{{"kv", "string"}, {"hash", "hash"}, {"list", "list"}, {"zset", "zset"}, {"set", "set"}} {
				out += lines(fmt.Sprintf("%s keys:%d", typ[0], sum[typ[1]][0]))
			}
			continue
		}
		switch {
		case s.scan.running:
			out += lines("# Duration: In Processing")
		case !s.scan.start.IsZero():
			out += lines("# Duration: 0s")
		}
		for _, typ := range [][2]string{{"Strings", "string"}, {"Hashes", "hash"}, {"Lists", "list"}, {"Zsets", "zset"}, {"Sets", "set"}} {
			c := sum[typ[1]]
			out += lines(fmt.Sprintf("%s %s_keys=%d, expires=%d, invalid_keys=0", t.name, typ[0], c[0], c[1]))
		}
		out += "\r\n"
	}
	return out
}

func (s *Server) infoReplication() string {
	switch {
	case s.old():
		return s.infoReplicationOld()
	case s.classic:
		return s.infoReplicationClassic()
	}
	return s.infoReplicationSharded()
}

// infoReplicationSharded knows a replica only where it follows every slot of this instance, and a master only where every
// slot follows it.
func (s *Server) infoReplicationSharded() string {
	count := map[string]int{}
	master, same := "", true
	n := 0
	for sl := range s.slots() {
		for _, r := range sl.nodes {
			if r.syncing {
				count[r.addr]++
			}
		}
		if n++; n == 1 {
			master = sl.follow.master
		}
		same = same && sl.follow.state == connected && sl.follow.master == master
	}
	var replicas []string
	for addr, k := range count {
		if k == n {
			replicas = append(replicas, addr)
		}
	}
	slices.Sort(replicas)
	isReplica := n > 0 && same
	out := ""
	switch {
	case isReplica && len(replicas) > 0:
		out = lines("# Replication(Master && SLAVE)", "role:master&&slave")
	case isReplica:
		out = lines("# Replication(SLAVE)", "role:slave")
	default:
		out = lines("# Replication(MASTER)", "role:master")
	}
	if isReplica {
		host, port := hostPort(master)
		out += lines("master_host:"+host, "master_port:"+port, "master_link_status:up")
		if len(replicas) == 0 {
			return out + lines("slave_priority:"+s.config.get("slave-priority"))
		}
	}
	out += lines(fmt.Sprint("connected_slaves:", len(replicas)))
	for i, addr := range replicas {
		host, port := hostPort(addr)
		out += lines(fmt.Sprintf("slave%d:ip=%s,port=%s", i, host, port))
	}
	return out
}

func hostPort(addr string) (host, port string) {
	i := strings.LastIndexByte(addr, ':')
	return addr[:max(i, 0)], addr[i+1:]
}
