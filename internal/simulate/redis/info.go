package redis

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/resp"
)

// sections of INFO in their order. "commandstats" is shown only when asked for.
var sections = []string{"server", "clients", "memory", "persistence", "stats", "replication", "cpu", "modules", "errorstats", "cluster", "keyspace"}

func cmdInfo(x *exec, a []string) resp.Value {
	want := map[string]bool{}
	for _, n := range a[1:] {
		switch n = strings.ToLower(n); n {
		case "default", "all", "everything":
			for _, s := range sections {
				want[s] = true
			}
			want["commandstats"] = want["commandstats"] || n != "default"
		default:
			want[n] = true
		}
	}
	if len(a) == 1 {
		for _, s := range sections {
			want[s] = true
		}
	}
	var parts []string
	for _, name := range append(slices.Clone(sections[:7]), "modules", "commandstats", "errorstats", "cluster", "keyspace") {
		if want[name] {
			parts = append(parts, x.s.info(name))
		}
	}
	return resp.Value{Kind: resp.Verb, Str: strings.Join(parts, "\r\n")}
}

// usedMemory is a base like that of an empty server, and what is stored.
func (s *Server) usedMemory() int64 {
	n := int64(900_000)
	for _, d := range s.dbs {
		n += d.Size
	}
	return n + s.backlog.len
}

// info writes one section. Each part of it is "name:value", one a line; fields whose value nobody can decide on are plausible constants.
func (s *Server) info(section string) string {
	var b strings.Builder
	line := func(name string, v any) { fmt.Fprintf(&b, "%s:%v\r\n", name, v) }
	constants := func(text string) {
		for f := range strings.FieldsSeq(text) {
			name, v, _ := strings.Cut(f, "=")
			line(name, v)
		}
	}
	now := s.clock.Now()
	up := int64(now.Sub(s.started) / time.Second)
	title := strings.ToUpper(section[:1]) + section[1:]
	if section == "cpu" {
		title = "CPU"
	}
	fmt.Fprintf(&b, "# %s\r\n", title)
	switch section {
	case "server":
		line("redis_version", s.release)
		constants("redis_git_sha1=00000000 redis_git_dirty=0 redis_build_id=ae4d7c971a948f0 redis_mode=standalone")
		line("os", "Linux 6.1.0 x86_64")
		line("arch_bits", strconv.IntSize)
		line("monotonic_clock", "POSIX clock_gettime")
		constants("multiplexing_api=epoll atomicvar_api=c11-builtin gcc_version=12.2.0")
		line("process_id", s.pid)
		line("process_supervised", "no")
		line("run_id", s.runID)
		line("tcp_port", s.port)
		line("server_time_usec", now.UnixMicro())
		line("uptime_in_seconds", up)
		line("uptime_in_days", up/86400)
		line("hz", s.config["hz"])
		line("configured_hz", s.config["hz"])
		line("lru_clock", now.Unix()&(1<<24-1))
		line("executable", "/usr/bin/redis-server")
		line("config_file", s.configFile)
		line("io_threads_active", 0)
	case "clients":
		line("connected_clients", len(s.clients))
		line("cluster_connections", 0)
		line("maxclients", s.config["maxclients"])
		line("client_recent_max_input_buffer", 20480)
		line("client_recent_max_output_buffer", 0)
		line("blocked_clients", s.pause.blocked)
		line("tracking_clients", 0)
		line("clients_in_timeout_table", 0)
	case "memory":
		used := s.usedMemory()
		limit, _ := strconv.ParseInt(s.config["maxmemory"], 10, 64)
		line("used_memory", used)
		line("used_memory_human", human(used))
		line("used_memory_rss", used+8<<20)
		line("used_memory_rss_human", human(used+8<<20))
		line("used_memory_peak", used)
		line("used_memory_peak_human", human(used))
		line("used_memory_peak_perc", "100.00%")
		constants("used_memory_overhead=862496 used_memory_startup=862096")
		line("used_memory_dataset", used-862496)
		line("used_memory_dataset_perc", "99.00%")
		line("allocator_allocated", used)
		line("allocator_active", used+1<<20)
		line("allocator_resident", used+4<<20)
		constants(`total_system_memory=8589934592 total_system_memory_human=8.00G used_memory_lua=31744 used_memory_vm_eval=31744 used_memory_lua_human=31.00K
			used_memory_scripts_eval=0 number_of_cached_scripts=0 number_of_functions=0 number_of_libraries=0 used_memory_vm_functions=32768
			used_memory_vm_total=64512 used_memory_vm_total_human=63.00K used_memory_functions=184 used_memory_scripts=184 used_memory_scripts_human=184B`)
		line("maxmemory", limit)
		line("maxmemory_human", human(limit))
		line("maxmemory_policy", s.config["maxmemory-policy"])
		constants(`allocator_frag_ratio=1.10 allocator_frag_bytes=1048576 allocator_rss_ratio=1.50 allocator_rss_bytes=3145728 rss_overhead_ratio=1.20
			rss_overhead_bytes=4194304 mem_fragmentation_ratio=1.50 mem_fragmentation_bytes=8388608 mem_not_counted_for_evict=0`)
		line("mem_replication_backlog", s.backlog.len)
		line("mem_total_replication_buffers", s.backlog.len)
		constants("mem_clients_slaves=0 mem_clients_normal=1928 mem_cluster_links=0 mem_aof_buffer=0 mem_allocator=jemalloc-5.3.0 active_defrag_running=0 lazyfree_pending_objects=0 lazyfreed_objects=0")
	case "persistence":
		loading := 0
		if s.loading() {
			loading = 1
		}
		line("loading", loading)
		constants("async_loading=0 current_cow_peak=0 current_cow_size=0 current_cow_size_age=0 current_fork_perc=0.00 current_save_keys_processed=0 current_save_keys_total=0")
		line("rdb_changes_since_last_save", s.stats.dirty)
		line("rdb_bgsave_in_progress", 0)
		line("rdb_last_save_time", s.stats.lastSave.Unix())
		constants("rdb_last_bgsave_status=ok rdb_last_bgsave_time_sec=-1 rdb_current_bgsave_time_sec=-1 rdb_saves=0 rdb_last_cow_size=0 rdb_last_load_keys_expired=0 rdb_last_load_keys_loaded=0")
		line("aof_enabled", map[string]int{"yes": 1}[s.config["appendonly"]])
		constants(`aof_rewrite_in_progress=0 aof_rewrite_scheduled=0 aof_last_rewrite_time_sec=-1 aof_current_rewrite_time_sec=-1 aof_last_bgrewrite_status=ok aof_rewrites=0
			aof_rewrites_consecutive_failures=0 aof_last_write_status=ok aof_last_cow_size=0 module_fork_in_progress=0 module_fork_last_cow_size=0`)
	case "stats":
		line("total_connections_received", s.stats.connections)
		line("total_commands_processed", s.stats.commands)
		constants(`instantaneous_ops_per_sec=0 total_net_input_bytes=0 total_net_output_bytes=0 total_net_repl_input_bytes=0 total_net_repl_output_bytes=0
			instantaneous_input_kbps=0.00 instantaneous_output_kbps=0.00 instantaneous_input_repl_kbps=0.00 instantaneous_output_repl_kbps=0.00 rejected_connections=0`)
		line("sync_full", s.stats.syncFull)
		line("sync_partial_ok", s.stats.syncPartialOK)
		line("sync_partial_err", s.stats.syncPartialErr)
		line("expired_keys", s.stats.expired)
		constants(`expired_stale_perc=0.00 expired_time_cap_reached_count=0 expire_cycle_cpu_milliseconds=0 evicted_keys=0 evicted_clients=0
			total_eviction_exceeded_time=0 current_eviction_exceeded_time=0`)
		line("keyspace_hits", s.stats.hits)
		line("keyspace_misses", s.stats.misses)
		constants(`pubsub_channels=0 pubsub_patterns=0 pubsubshard_channels=0 latest_fork_usec=0 total_forks=0 migrate_cached_sockets=0 slave_expires_tracked_keys=0
			active_defrag_hits=0 active_defrag_misses=0 active_defrag_key_hits=0 active_defrag_key_misses=0 total_active_defrag_time=0 current_active_defrag_time=0
			tracking_total_keys=0 tracking_total_items=0 tracking_total_prefixes=0 unexpected_error_replies=0`)
		line("total_error_replies", s.stats.errors)
		constants(`dump_payload_sanitizations=0 total_reads_processed=0 total_writes_processed=0 io_threaded_reads_processed=0 io_threaded_writes_processed=0
			reply_buffer_shrinks=0 reply_buffer_expands=0`)
	case "replication":
		s.infoReplication(line, now)
	case "cpu":
		constants("used_cpu_sys=0.100000 used_cpu_user=0.100000 used_cpu_sys_children=0.000000 used_cpu_user_children=0.000000 used_cpu_sys_main_thread=0.100000 used_cpu_user_main_thread=0.100000")
	case "commandstats":
		for _, n := range slices.Sorted(maps.Keys(s.stats.calls)) {
			line("cmdstat_"+n, fmt.Sprintf("calls=%d,usec=%d,usec_per_call=1.00,rejected_calls=0,failed_calls=0", s.stats.calls[n], s.stats.calls[n]))
		}
	case "errorstats":
		for _, n := range slices.Sorted(maps.Keys(s.stats.errorKinds)) {
			line("errorstat_"+n, fmt.Sprintf("count=%d", s.stats.errorKinds[n]))
		}
	case "cluster":
		line("cluster_enabled", 0)
	case "keyspace":
		for i, d := range s.dbs {
			if len(d.Keys) > 0 {
				line("db"+strconv.Itoa(i), fmt.Sprintf("keys=%d,expires=%d,avg_ttl=%d", len(d.Keys), len(d.Expires), d.AverageTTL(now.UnixMilli())))
			}
		}
	}
	return b.String()
}

func (s *Server) infoReplication(line func(string, any), now time.Time) {
	r := &s.repl
	if r.masterHost == "" {
		line("role", "master")
	} else {
		status, syncing, lastIO := "down", 0, int64(-1)
		switch r.state {
		case "connected":
			status, lastIO = "up", int64(now.Sub(r.lastIO)/time.Second)
		case "sync":
			syncing = 1
		}
		line("role", "slave")
		line("master_host", r.masterHost)
		line("master_port", r.masterPort)
		line("master_link_status", status)
		line("master_last_io_seconds_ago", lastIO)
		line("master_sync_in_progress", syncing)
		line("slave_read_repl_offset", s.received())
		line("slave_repl_offset", r.offset)
		if syncing == 1 {
			line("master_sync_total_bytes", -1)
			line("master_sync_read_bytes", 0)
			line("master_sync_left_bytes", -1)
			line("master_sync_perc", "-0.00")
			line("master_sync_last_io_seconds_ago", 0)
		}
		if status == "down" {
			line("master_link_down_since_seconds", int64(now.Sub(r.downSince)/time.Second))
		}
		line("slave_priority", s.config["replica-priority"])
		line("slave_read_only", map[string]int{"yes": 1}[s.config["replica-read-only"]])
		line("replica_announced", map[string]int{"yes": 1}[s.config["replica-announced"]])
	}
	links := s.liveLinks()
	line("connected_slaves", len(links))
	if n, _ := strconv.Atoi(s.config["min-replicas-to-write"]); n > 0 {
		line("min_slaves_good_slaves", s.onlineReplicas())
	}
	for i, l := range links {
		state, ack, lag := l.shown(now)
		line("slave"+strconv.Itoa(i), fmt.Sprintf("ip=%s,port=%s,state=%s,offset=%d,lag=%d", l.host, l.port, state, ack, lag))
	}
	id2 := r.id2
	if id2 == "" {
		id2 = strings.Repeat("0", 40)
	}
	line("master_failover_state", "no-failover")
	line("master_replid", r.id)
	line("master_replid2", id2)
	line("master_repl_offset", r.offset)
	line("second_repl_offset", r.second)
	line("repl_backlog_active", map[bool]int{true: 1}[s.backlog.active])
	line("repl_backlog_size", s.config["repl-backlog-size"])
	line("repl_backlog_first_byte_offset", s.backlog.first)
	line("repl_backlog_histlen", s.backlog.len)
}

// human writes bytes as INFO does: 1.05M.
func human(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"K", "M", "G", "T"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" {
		return strconv.FormatInt(n, 10) + "B"
	}
	return fmt.Sprintf("%.2f%s", f, unit)
}

// Describe is one line for a person: who this is and in which state, for time lines and failing tests.
func (s *Server) Describe() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alive {
		return fmt.Sprintf("%s %s stopped", s.name, s.addr)
	}
	role := "master"
	if s.repl.masterHost != "" {
		role = fmt.Sprintf("replica of %s:%s (%s)", s.repl.masterHost, s.repl.masterPort, s.repl.state)
	}
	return fmt.Sprintf("%s %s %s offset %d, %d replicas, %d held", s.name, s.addr, role, s.repl.offset, len(s.liveLinks()), s.pause.blocked)
}
