package codis

import (
	"bytes"
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// counters is what a proxy counts.
type counters struct {
	total, fails, errors, qps atomic.Int64
	sessions, alive           atomic.Int64

	mu       sync.Mutex
	commands map[string]*commandNumbers
	before   int64 // total at the last tick
	measured time.Time
}

type commandNumbers struct{ calls, errors, nanos int64 }

func (n *counters) count(op string, took time.Duration, failed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.commands[op]
	if c == nil {
		c = &commandNumbers{}
		n.commands[op] = c
	}
	c.calls++
	c.nanos += took.Nanoseconds()
	if failed {
		c.errors++
		n.errors.Add(1)
	}
}

// tick is called once a second.
func (n *counters) tick(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	total := n.total.Load()
	n.qps.Store(max(0, total-n.before))
	n.before, n.measured = total, now
}

func (n *counters) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.commands = map[string]*commandNumbers{}
	n.total.Store(0)
	n.fails.Store(0)
	n.errors.Store(0)
	n.sessions.Store(n.alive.Load())
	n.before = 0
}

// proxyStats is what GET /proxy/stats answers.
type proxyStats struct {
	Online    bool `json:"online"`
	Closed    bool `json:"closed"`
	Sentinels struct {
		Servers  []string          `json:"servers,omitempty"`
		Masters  map[string]string `json:"masters,omitempty"`
		Switched bool              `json:"switched,omitempty"`
	} `json:"sentinels"`
	Ops struct {
		Total int64 `json:"total"`
		Fails int64 `json:"fails"`
		Redis struct {
			Errors int64 `json:"errors"`
		} `json:"redis"`
		QPS int64          `json:"qps"`
		Cmd []commandStats `json:"cmd,omitempty"`
	} `json:"ops"`
	Sessions struct {
		Total int64 `json:"total"`
		Alive int64 `json:"alive"`
	} `json:"sessions"`
	Rusage struct {
		Now string  `json:"now"`
		CPU float64 `json:"cpu"`
		Mem int64   `json:"mem"`
		Raw *usage  `json:"raw,omitempty"`
	} `json:"rusage"`
	Backend struct {
		PrimaryOnly bool `json:"primary_only"`
	} `json:"backend"`
	Runtime *runtimeStats `json:"runtime,omitempty"`
}

type commandStats struct {
	Op           string `json:"opstr"`
	Calls        int64  `json:"calls"`
	Usecs        int64  `json:"usecs"`
	UsecsPerCall int64  `json:"usecs_percall"`
	Fails        int64  `json:"fails"`
	RedisErrors  int64  `json:"redis_errtype"`
}

type usage struct {
	Utime      int64 `json:"utime"`
	Stime      int64 `json:"stime"`
	Cutime     int64 `json:"cutime"`
	Cstime     int64 `json:"cstime"`
	NumThreads int   `json:"num_threads"`
	VMSize     int64 `json:"vm_size"`
	VMRSS      int64 `json:"vm_rss"`
}

type runtimeStats struct {
	General struct {
		Alloc   uint64 `json:"alloc"`
		Sys     uint64 `json:"sys"`
		Lookups uint64 `json:"lookups"`
		Mallocs uint64 `json:"mallocs"`
		Frees   uint64 `json:"frees"`
	} `json:"general"`
	Heap struct {
		Alloc   uint64 `json:"alloc"`
		Sys     uint64 `json:"sys"`
		Idle    uint64 `json:"idle"`
		Inuse   uint64 `json:"inuse"`
		Objects uint64 `json:"objects"`
	} `json:"heap"`
	GC struct {
		Num          uint32  `json:"num"`
		CPUFraction  float64 `json:"cpu_fraction"`
		TotalPauseMs uint64  `json:"total_pausems"`
	} `json:"gc"`
	NumProcs      int   `json:"num_procs"`
	NumGoroutines int   `json:"num_goroutines"`
	NumCgoCall    int64 `json:"num_cgo_call"`
	MemOffheap    int64 `json:"mem_offheap"`
}

// The bits by which a caller asks for more of the stats.
const (
	withCommands = 1 << iota
	_            // slots, which only the overview has
	withRuntime

	everything = withCommands | withRuntime
)

func (p *proxyLife) stats(flags int) *proxyStats {
	s := &proxyStats{}
	p.mu.Lock()
	s.Online, s.Closed = p.isOnline && !p.closed, p.closed
	s.Sentinels.Servers = p.servers
	if p.watch.masters != nil {
		s.Sentinels.Masters = named(p.watch.masters)
	}
	p.mu.Unlock()
	n := &p.numbers
	s.Ops.Total, s.Ops.Fails, s.Ops.Redis.Errors, s.Ops.QPS = n.total.Load(), n.fails.Load(), n.errors.Load(), n.qps.Load()
	s.Sessions.Total, s.Sessions.Alive = n.sessions.Load(), n.alive.Load()
	n.mu.Lock()
	defer n.mu.Unlock()
	if flags&withCommands != 0 {
		for _, op := range slices.Sorted(maps.Keys(n.commands)) {
			c := n.commands[op]
			s.Ops.Cmd = append(s.Ops.Cmd, commandStats{
				Op: op, Calls: c.calls, Usecs: c.nanos / 1e3, UsecsPerCall: c.nanos / 1e3 / c.calls, RedisErrors: c.errors,
			})
		}
	}
	if !n.measured.IsZero() {
		const rss = 44 << 20
		s.Rusage.Now = n.measured.UTC().Format("2006-01-02 15:04:05.999999999 -0700 MST")
		s.Rusage.Mem = rss
		s.Rusage.Raw = &usage{NumThreads: 9, VMSize: 1900 << 20, VMRSS: rss}
	}
	if flags&withRuntime != 0 {
		s.Runtime = measureRuntime()
	}
	return s
}

// measureRuntime tells of the process that the simulation runs in.
func measureRuntime() *runtimeStats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r := &runtimeStats{NumProcs: runtime.GOMAXPROCS(0), NumGoroutines: runtime.NumGoroutine(), NumCgoCall: runtime.NumCgoCall()}
	r.General.Alloc, r.General.Sys, r.General.Lookups, r.General.Mallocs, r.General.Frees = m.Alloc, m.Sys, m.Lookups, m.Mallocs, m.Frees
	r.Heap.Alloc, r.Heap.Sys, r.Heap.Idle, r.Heap.Inuse, r.Heap.Objects = m.HeapAlloc, m.HeapSys, m.HeapIdle, m.HeapInuse, m.HeapObjects
	r.GC.Num, r.GC.CPUFraction, r.GC.TotalPauseMs = m.NumGC, m.GCCPUFraction, m.PauseTotalNs/1e6
	return r
}

// proxyConfig is the configuration as the overview shows it, without passwords.
type proxyConfig struct {
	ProtoType       string `json:"proto_type"`
	ProxyAddr       string `json:"proxy_addr"`
	AdminAddr       string `json:"admin_addr"`
	JodisName       string `json:"jodis_name"`
	JodisAddr       string `json:"jodis_addr"`
	JodisAuth       string `json:"jodis_auth"`
	JodisTimeout    string `json:"jodis_timeout"`
	JodisCompatible bool   `json:"jodis_compatible"`

	ProductName          string `json:"product_name"`
	ProxyDatacenter      string `json:"proxy_datacenter"`
	ProxyMaxClients      int    `json:"proxy_max_clients"`
	ProxyMaxOffheapSize  string `json:"proxy_max_offheap_size"`
	ProxyHeapPlaceholder string `json:"proxy_heap_placeholder"`

	BackendPingPeriod      string `json:"backend_ping_period"`
	BackendRecvBufsize     string `json:"backend_recv_bufsize"`
	BackendRecvTimeout     string `json:"backend_recv_timeout"`
	BackendSendBufsize     string `json:"backend_send_bufsize"`
	BackendSendTimeout     string `json:"backend_send_timeout"`
	BackendMaxPipeline     int    `json:"backend_max_pipeline"`
	BackendPrimaryOnly     bool   `json:"backend_primary_only"`
	BackendPrimaryParallel int    `json:"backend_primary_parallel"`
	BackendReplicaParallel int    `json:"backend_replica_parallel"`
	BackendKeepalivePeriod string `json:"backend_keepalive_period"`
	BackendNumberDatabases int    `json:"backend_number_databases"`

	SessionRecvBufsize     string `json:"session_recv_bufsize"`
	SessionRecvTimeout     string `json:"session_recv_timeout"`
	SessionSendBufsize     string `json:"session_send_bufsize"`
	SessionSendTimeout     string `json:"session_send_timeout"`
	SessionMaxPipeline     int    `json:"session_max_pipeline"`
	SessionKeepalivePeriod string `json:"session_keepalive_period"`
	SessionBreakOnFailure  bool   `json:"session_break_on_failure"`

	MetricsReportServer           string `json:"metrics_report_server"`
	MetricsReportPeriod           string `json:"metrics_report_period"`
	MetricsReportInfluxdbServer   string `json:"metrics_report_influxdb_server"`
	MetricsReportInfluxdbPeriod   string `json:"metrics_report_influxdb_period"`
	MetricsReportInfluxdbUsername string `json:"metrics_report_influxdb_username"`
	MetricsReportInfluxdbDatabase string `json:"metrics_report_influxdb_database"`
	MetricsReportStatsdServer     string `json:"metrics_report_statsd_server"`
	MetricsReportStatsdPeriod     string `json:"metrics_report_statsd_period"`
	MetricsReportStatsdPrefix     string `json:"metrics_report_statsd_prefix"`
}

func (p *proxyLife) overview() overview {
	c := proxyConfig{
		ProtoType: "tcp4", ProxyAddr: p.model.ProxyAddr, AdminAddr: p.model.AdminAddr, JodisTimeout: short(jodisTimeout),
		ProductName: p.opts.Product, ProxyDatacenter: p.opts.Datacenter,
		ProxyMaxClients: maxClients, ProxyMaxOffheapSize: "1gb", ProxyHeapPlaceholder: "256mb",
		BackendPingPeriod: short(backendPingPeriod), BackendRecvBufsize: "128kb", BackendRecvTimeout: short(backendRecvTimeout),
		BackendSendBufsize: "128kb", BackendSendTimeout: "30s", BackendMaxPipeline: 20480,
		BackendPrimaryParallel: max(1, p.opts.PrimaryParallel), BackendReplicaParallel: 1, BackendKeepalivePeriod: "75s",
		BackendNumberDatabases: databases,
		SessionRecvBufsize:     "128kb", SessionRecvTimeout: "30m", SessionSendBufsize: "64kb", SessionSendTimeout: "30s",
		SessionMaxPipeline: 10000, SessionKeepalivePeriod: "75s",
		MetricsReportPeriod: "1s", MetricsReportInfluxdbPeriod: "1s", MetricsReportStatsdPeriod: "1s",
	}
	if p.opts.Store != nil {
		c.JodisName, c.JodisAddr = "zookeeper", "127.0.0.1:2181"
	}
	return overview{Version: release, Compile: compiled, Config: c, Model: p.model, Stats: p.stats(everything), Slots: p.slots()}
}

// bindSentinels decodes as bindList does: errors are ignored.
func bindSentinels(body []byte) []string {
	var s sentinels
	_ = json.NewDecoder(bytes.NewReader(body)).Decode(&s)
	return s.Servers
}
