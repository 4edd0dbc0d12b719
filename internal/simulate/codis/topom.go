package codis

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// topom is one life of a dashboard; the name is its own for itself, in its paths and errors.
type topom struct {
	*process
	opts  DashboardOptions
	model dashboardModel
	xauth string
	store *store
	http  *http.Client // to proxies
	pool  *pool        // to servers

	// mu is held by every call but /topom/model for as long as it takes, also while a proxy does not answer.
	mu       sync.Mutex
	isOnline bool
	closed   bool
	cache    cache
	servers  map[string]*redisStats
	proxies  map[string]*proxyStatsOf
	watch    sentinelWatch

	interval atomic.Int64 // microseconds after every round of a migration
	disabled atomic.Bool
	progress atomic.Value // string
	executor atomic.Int64 // rounds that run this moment
}

const (
	tick          = time.Second
	afterError    = 5 * time.Second
	dialTimeout   = time.Second
	pushTimeout   = time.Minute // of one call to a proxy
	lockTries     = 17
	lockPause     = 2 * time.Second
	exitAfterStop = time.Second // the real one looks once a second whether it is closed
)

var (
	errNotOnline = errors.New("topom is not online")
	errClosed    = errors.New("use of closed topom")
)

func newTopom(o DashboardOptions, announce string) *topom {
	p := newProcess(o.Clock, o.Dial, o.PID)
	t := &topom{process: p, opts: o, xauth: DashboardXAuth(o.Product), store: &store{Store: o.Store, product: o.Product}}
	t.model = dashboardModel{
		Token: token(o.Product, announce), StartTime: p.started, AdminAddr: announce, ProductName: o.Product,
		PID: p.pid, PWD: workdir, Sys: uname,
	}
	t.http = p.httpClient()
	t.pool = newPool(p, o.ProductAuth)
	t.progress.Store("")
	p.atEnd(t.http.CloseIdleConnections)
	p.atEnd(t.pool.close)
	return t
}

// start takes the lock, trying as often as the real one does, and begins the loops.
func (t *topom) start() {
	if t.acquire() {
		t.loops()
		return
	}
	t.run(func() {
		for range lockTries - 1 {
			if !t.sleep(lockPause) {
				return
			}
			if t.acquire() {
				t.loops()
				return
			}
		}
		t.kill()
	})
}

func (t *topom) acquire() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.store.create(LockPath(t.opts.Product), t.model, 0) != nil {
		return false
	}
	t.isOnline = true
	if t.refill() == nil {
		t.rewatch(t.cache.sentinels.Servers)
	}
	return true
}

func (t *topom) loops() {
	t.every(tick, t.refreshServers)
	t.every(tick, t.refreshProxies)
	t.every(tick, func() {
		if t.processSlotActions() != nil {
			t.sleep(afterError)
		}
	})
	t.every(tick, func() {
		if t.processSyncAction() != nil {
			t.sleep(afterError)
		}
	})
}

func (t *topom) online() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isOnline && !t.closed
}

// close releases the lock; the process exits a little later.
func (t *topom) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	t.clock.AfterFunc(exitAfterStop, func() {
		t.store.cut()
		t.kill()
	})
	if t.isOnline {
		if err := t.store.remove(LockPath(t.opts.Product)); err != nil {
			return tracef("store: release lock of %s failed", t.opts.Product)
		}
	}
	return nil
}

// locked runs f under the mutex with a whole cache.
func (t *topom) locked(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return errClosed
	case !t.isOnline:
		return errNotOnline
	case t.ctx.Err() != nil:
		return errEnded
	}
	if err := t.refill(); err != nil {
		return err
	}
	return f()
}

func (t *topom) verify(c call) error {
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return errClosed
	}
	return verify(c, t.xauth)
}

func verify(c call, xauth string) error {
	switch c.params["xauth"] {
	case xauth:
		return nil
	case "":
		return errors.New("missing xauth, please check product name & auth")
	}
	return errors.New("invalid xauth, please check product name & auth")
}

// routes is the whole API. Each line that changes something names the parameters that are numbers, in the order of f's.
func (t *topom) routes() []route {
	get := func(pattern string, f func(call) answer) route {
		return route{method: http.MethodGet, pattern: pattern, serve: f}
	}
	put := func(pattern string, f func(call) answer) route {
		return route{method: http.MethodPut, pattern: pattern, serve: f}
	}
	auth := func(f func(call) answer) func(call) answer {
		return func(c call) answer {
			if err := t.verify(c); err != nil {
				return failed(err)
			}
			return f(c)
		}
	}
	// act is a call that changes something and answers OK.
	act := func(pattern string, f func(c call, n []int) error, numbers ...string) route {
		return put(pattern, auth(func(c call) answer {
			n := make([]int, len(numbers))
			for i, name := range numbers {
				var err error
				if n[i], err = c.number(name); err != nil {
					return failed(err)
				}
			}
			return done(f(c, n))
		}))
	}
	model := func(call) answer { return shown(t.model) }
	stats := func(call) answer { return t.show(func() (any, error) { return t.stats() }) }
	slots := func(call) answer { return t.show(func() (any, error) { return t.slots() }) }
	ping := func(call) answer { return shown("OK") }

	free := func(r route) route { r.free = true; return r }
	return []route{
		get("/", func(call) answer { return answer{status: http.StatusFound, forward: "/topom"} }),
		get("/topom", func(call) answer { return t.show(t.overview) }),
		free(get("/topom/model", model)),
		get("/topom/stats", stats),
		get("/topom/slots", slots),
		free(get("/api/topom/model", model)),
		get("/api/topom/xping/:xauth", auth(ping)),
		get("/api/topom/stats/:xauth", auth(stats)),
		get("/api/topom/slots/:xauth", auth(slots)),
		act("/api/topom/reload/:xauth", func(call, []int) error { return t.reload() }),
		act("/api/topom/shutdown/:xauth", func(call, []int) error { return t.close() }),
		act("/api/topom/loglevel/:xauth/:value", func(c call, _ []int) error { return logLevel(c) }),

		act("/api/topom/proxy/create/:xauth/:addr", func(c call, _ []int) error { return t.createProxy(c.params["addr"]) }),
		act("/api/topom/proxy/online/:xauth/:addr", func(c call, _ []int) error { return t.onlineProxy(c.params["addr"]) }),
		act("/api/topom/proxy/reinit/:xauth/:token", func(c call, _ []int) error { return t.reinitProxy(c.params["token"]) }),
		act("/api/topom/proxy/remove/:xauth/:token/:force", func(c call, n []int) error { return t.removeProxy(c.params["token"], n[0] != 0) }, "force"),

		act("/api/topom/group/create/:xauth/:gid", func(_ call, n []int) error { return t.createGroup(n[0]) }, "gid"),
		act("/api/topom/group/remove/:xauth/:gid", func(_ call, n []int) error { return t.removeGroup(n[0]) }, "gid"),
		act("/api/topom/group/resync/:xauth/:gid", func(_ call, n []int) error { return t.resyncGroup(n[0]) }, "gid"),
		act("/api/topom/group/resync-all/:xauth", func(call, []int) error { return t.resyncAllGroups() }),
		act("/api/topom/group/add/:xauth/:gid/:addr", func(c call, n []int) error { return t.addServer(n[0], c.params["addr"], "") }, "gid"),
		act("/api/topom/group/add/:xauth/:gid/:addr/:datacenter", func(c call, n []int) error { return t.addServer(n[0], c.params["addr"], c.params["datacenter"]) }, "gid"),
		act("/api/topom/group/del/:xauth/:gid/:addr", func(c call, n []int) error { return t.removeServer(n[0], c.params["addr"]) }, "gid"),
		act("/api/topom/group/promote/:xauth/:gid/:addr", func(c call, n []int) error { return t.promote(n[0], c.params["addr"]) }, "gid"),
		act("/api/topom/group/replica-groups/:xauth/:gid/:addr/:value", func(c call, n []int) error { return t.readReplica(n[0], c.params["addr"], n[1] != 0) }, "gid", "value"),
		act("/api/topom/group/replica-groups-all/:xauth/:value", func(_ call, n []int) error { return t.readAllReplicas(n[0] != 0) }, "value"),
		act("/api/topom/group/action/create/:xauth/:addr", func(c call, _ []int) error { return t.createSyncAction(c.params["addr"]) }),
		act("/api/topom/group/action/remove/:xauth/:addr", func(c call, _ []int) error { return t.removeSyncAction(c.params["addr"]) }),
		get("/api/topom/group/info/:addr", func(c call) answer { return t.serverInfo(c.params["addr"]) }),

		act("/api/topom/slots/action/create/:xauth/:sid/:gid", func(_ call, n []int) error { return t.createSlotAction(n[0], n[1]) }, "sid", "gid"),
		act("/api/topom/slots/action/create-some/:xauth/:src/:dst/:num", func(_ call, n []int) error { return t.createSomeSlotActions(n[0], n[1], n[2]) }, "src", "dst", "num"),
		act("/api/topom/slots/action/create-range/:xauth/:beg/:end/:gid", func(_ call, n []int) error { return t.createSlotActionRange(n[0], n[1], n[2]) }, "beg", "end", "gid"),
		act("/api/topom/slots/action/remove/:xauth/:sid", func(_ call, n []int) error { return t.removeSlotAction(n[0]) }, "sid"),
		act("/api/topom/slots/action/interval/:xauth/:value", func(_ call, n []int) error { t.setInterval(n[0]); return nil }, "value"),
		act("/api/topom/slots/action/disabled/:xauth/:value", func(_ call, n []int) error { t.disabled.Store(n[0] != 0); return nil }, "value"),
		put("/api/topom/slots/assign/:xauth", t.bound(t.assign)),
		put("/api/topom/slots/assign/:xauth/offline", t.bound(t.assignOffline)),
		put("/api/topom/slots/rebalance/:xauth/:confirm", auth(t.rebalanceCall)),

		act("/api/topom/sentinels/add/:xauth/:addr", func(c call, _ []int) error { return t.addSentinel(c.params["addr"]) }),
		act("/api/topom/sentinels/del/:xauth/:addr/:force", func(c call, n []int) error { return t.removeSentinel(c.params["addr"], n[0] != 0) }, "force"),
		act("/api/topom/sentinels/resync-all/:xauth", func(call, []int) error { return t.resyncSentinels() }),
		get("/api/topom/sentinels/info/:addr", func(c call) answer { return t.sentinelInfo(c.params["addr"]) }),
		get("/api/topom/sentinels/info/:addr/monitored", func(c call) answer { return t.monitored(c.params["addr"]) }),
	}
}

// bound is a call with a list of mappings in its body, which is decoded before anything else is looked at.
func (t *topom) bound(f func([]*SlotMapping) error) func(call) answer {
	return func(c call) answer {
		list := bindList[SlotMapping](c.body)
		if err := t.verify(c); err != nil {
			return failed(err)
		}
		return done(f(list))
	}
}

func (t *topom) show(f func() (any, error)) answer {
	v, err := f()
	if err != nil {
		return failed(err)
	}
	return shown(v)
}

func (t *topom) rebalanceCall(c call) answer {
	confirm, err := c.number("confirm")
	if err != nil {
		return failed(err)
	}
	plan, err := t.rebalance(confirm != 0)
	if err != nil {
		return failed(err)
	}
	named := map[string]int{}
	for sid, gid := range plan {
		named[strconv.Itoa(sid)] = gid
	}
	return shown(named)
}

// reload forgets what is known of the coordinator. Nothing is pushed to proxies.
func (t *topom) reload() error {
	return t.locked(func() error {
		t.cache.dirtyAll()
		return nil
	})
}

func (t *topom) setInterval(us int) { t.interval.Store(int64(min(max(us, 0), 1000000))) }

func logLevel(c call) error {
	switch strings.ToUpper(c.params["value"]) {
	case "NONE", "ERROR", "WARN", "WARNING", "INFO", "DEBUG":
		return nil
	}
	return errors.New("invalid loglevel")
}

// slots is the view that is sent to proxies.
func (t *topom) slots() ([]Slot, error) {
	var out []Slot
	err := t.locked(func() error {
		out = t.view(t.cache.slots, nil)
		return nil
	})
	return out, err
}

func (t *topom) serverInfo(addr string) answer {
	ctx, cancel := t.within(t.ctx, dialTimeout)
	defer cancel()
	c, err := t.dialServer(ctx, addr, t.opts.ProductAuth)
	if err != nil {
		return failed(err)
	}
	defer c.close()
	info, err := c.infoFull(ctx)
	if err != nil {
		return failed(err)
	}
	return shown(info)
}
