package codis

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
)

// topomStats is what GET /topom/stats answers.
type topomStats struct {
	Closed bool          `json:"closed"`
	Slots  []SlotMapping `json:"slots"`
	Group  struct {
		Models []*Group               `json:"models"`
		Stats  map[string]*redisStats `json:"stats"`
	} `json:"group"`
	Proxy struct {
		Models []*ProxyModel            `json:"models"`
		Stats  map[string]*proxyStatsOf `json:"stats"`
	} `json:"proxy"`
	SlotAction struct {
		Interval int64 `json:"interval"`
		Disabled bool  `json:"disabled"`
		Progress struct {
			Status string `json:"status"`
		} `json:"progress"`
		Executor int64 `json:"executor"`
	} `json:"slot_action"`
	HA struct {
		Model   sentinels              `json:"model"`
		Stats   map[string]*redisStats `json:"stats"`
		Masters map[string]string      `json:"masters"`
	} `json:"sentinels"`
}

// redisStats is how a server was when it was last asked.
type redisStats struct {
	Stats    map[string]string         `json:"stats,omitempty"`
	Error    *remoteError              `json:"error,omitempty"`
	Sentinel map[string]*sentinelGroup `json:"sentinel,omitempty"`
	UnixTime int64                     `json:"unixtime"`
	Timeout  bool                      `json:"timeout,omitempty"`
}

// proxyStatsOf is how a proxy was when it was last asked.
type proxyStatsOf struct {
	Stats    *proxyStats  `json:"stats,omitempty"`
	Error    *remoteError `json:"error,omitempty"`
	UnixTime int64        `json:"unixtime"`
	Timeout  bool         `json:"timeout,omitempty"`
}

func (t *topom) stats() (*topomStats, error) {
	s := &topomStats{}
	err := t.locked(func() error {
		s.Slots = make([]SlotMapping, SlotCount)
		for i, m := range t.cache.slots {
			s.Slots[i] = *m
		}
		s.Group.Models = []*Group{}
		s.Group.Stats, s.HA.Stats = map[string]*redisStats{}, map[string]*redisStats{}
		for _, g := range t.sortedGroups() {
			s.Group.Models = append(s.Group.Models, g.clone())
			for _, server := range g.Servers {
				if v := t.servers[server.Addr]; v != nil {
					s.Group.Stats[server.Addr] = v
				}
			}
		}
		s.Proxy.Models = append([]*ProxyModel{}, t.sortedProxies()...)
		s.Proxy.Stats = t.proxies
		if s.Proxy.Stats == nil {
			s.Proxy.Stats = map[string]*proxyStatsOf{}
		}
		s.SlotAction.Interval, s.SlotAction.Disabled = t.interval.Load(), t.disabled.Load()
		s.SlotAction.Progress.Status, _ = t.progress.Load().(string)
		s.SlotAction.Executor = t.executor.Load()
		s.HA.Model = *t.cache.sentinels
		s.HA.Model.Servers = slices.Clone(s.HA.Model.Servers)
		for _, addr := range s.HA.Model.Servers {
			if v := t.servers[addr]; v != nil {
				s.HA.Stats[addr] = v
			}
		}
		s.HA.Masters = named(t.watch.masters)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func named(masters map[int]string) map[string]string {
	out := map[string]string{}
	for gid, addr := range masters {
		out[strconv.Itoa(gid)] = addr
	}
	return out
}

// dashboardConfig is the configuration as the overview shows it, without the password.
type dashboardConfig struct {
	CoordinatorName        string `json:"coordinator_name"`
	CoordinatorAddr        string `json:"coordinator_addr"`
	CoordinatorAuth        string `json:"coordinator_auth"`
	AdminAddr              string `json:"admin_addr"`
	ProductName            string `json:"product_name"`
	MigrationMethod        string `json:"migration_method"`
	MigrationParallelSlots int    `json:"migration_parallel_slots"`
	MigrationAsyncMaxBulks int    `json:"migration_async_maxbulks"`
	MigrationAsyncMaxBytes string `json:"migration_async_maxbytes"`
	MigrationAsyncNumKeys  int    `json:"migration_async_numkeys"`
	MigrationTimeout       string `json:"migration_timeout"`

	SentinelClientTimeout        string `json:"sentinel_client_timeout"`
	SentinelQuorum               int    `json:"sentinel_quorum"`
	SentinelParallelSyncs        int    `json:"sentinel_parallel_syncs"`
	SentinelDownAfter            string `json:"sentinel_down_after"`
	SentinelFailoverTimeout      string `json:"sentinel_failover_timeout"`
	SentinelNotificationScript   string `json:"sentinel_notification_script"`
	SentinelClientReconfigScript string `json:"sentinel_client_reconfig_script"`
}

func (t *topom) overview() (any, error) {
	stats, err := t.stats()
	if err != nil {
		return nil, err
	}
	return overview{Version: release, Compile: compiled, Model: t.model, Stats: stats, Config: dashboardConfig{
		CoordinatorName: t.opts.CoordinatorName, CoordinatorAddr: t.opts.CoordinatorAddr,
		AdminAddr: t.model.AdminAddr, ProductName: t.opts.Product, MigrationMethod: t.opts.MigrationMethod,
		MigrationParallelSlots: t.opts.ParallelSlots, MigrationAsyncMaxBulks: asyncBulks, MigrationAsyncMaxBytes: "32mb",
		MigrationAsyncNumKeys: asyncKeys, MigrationTimeout: short(t.opts.MigrationTimeout),
		SentinelClientTimeout: short(sentinelTimeout), SentinelQuorum: sentinelQuorum, SentinelParallelSyncs: sentinelParallel,
		SentinelDownAfter: short(sentinelDownAfter), SentinelFailoverTimeout: short(sentinelFailover),
	}}, nil
}

// refreshServers asks every server and sentinel, each for a second at most.
func (t *topom) refreshServers() {
	ask := map[string]func(context.Context, string) (*redisStats, error){}
	if t.locked(func() error {
		for _, g := range t.cache.groups {
			for _, s := range g.Servers {
				ask[s.Addr] = t.askServer
			}
		}
		for _, addr := range t.cache.sentinels.Servers {
			ask[addr] = t.askSentinel
		}
		return nil
	}) != nil {
		return
	}
	found := gather(ask, func(addr string, f func(context.Context, string) (*redisStats, error)) *redisStats {
		ctx, cancel := t.within(t.ctx, tick)
		defer cancel()
		s, err := f(ctx, addr)
		switch {
		case context.Cause(ctx) == errTimeout:
			s = &redisStats{Timeout: true}
		case err != nil:
			s = &redisStats{Error: asRemote(err)}
		}
		s.UnixTime = t.clock.Now().Unix()
		return s
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.servers = found
}

func (t *topom) askServer(ctx context.Context, addr string) (*redisStats, error) {
	c, err := t.pool.get(ctx, addr)
	if err != nil {
		return nil, err
	}
	info, err := c.infoFull(ctx)
	t.pool.put(c, err)
	return &redisStats{Stats: info}, err
}

// refreshProxies asks every proxy, each for a second at most. One that runs but does not serve, as after a restart, is set to work.
func (t *topom) refreshProxies() {
	ask := map[string]*ProxyModel{}
	if t.locked(func() error {
		maps.Copy(ask, t.cache.proxies)
		return nil
	}) != nil {
		return
	}
	found := gather(ask, func(_ string, p *ProxyModel) *proxyStatsOf {
		ctx, cancel := t.within(t.ctx, tick)
		defer cancel()
		s := &proxyStatsOf{Stats: &proxyStats{}}
		err := t.client(p).call(ctx, "GET", "stats", nil, s.Stats)
		switch {
		case context.Cause(ctx) == errTimeout:
			s = &proxyStatsOf{Timeout: true}
		case err != nil:
			s = &proxyStatsOf{Error: asRemote(err)}
		case !s.Stats.Online && !s.Stats.Closed:
			t.run(func() { _ = t.onlineProxy(p.AdminAddr) })
		}
		s.UnixTime = t.clock.Now().Unix()
		return s
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.proxies = found
}

// gather calls f for all at once and waits for all.
func gather[A, V any](ask map[string]A, f func(string, A) V) map[string]V {
	out := make(map[string]V, len(ask))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, a := range ask {
		wg.Go(func() {
			v := f(name, a)
			mu.Lock()
			defer mu.Unlock()
			out[name] = v
		})
	}
	wg.Wait()
	return out
}
