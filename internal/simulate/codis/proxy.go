package codis

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// ProxyOptions say what a simulated proxy is.
type ProxyOptions struct {
	Name        string // for errors
	Product     string // "demo" if empty
	ProductAuth string // the password of servers, and part of what the proxy is called with
	SessionAuth string // the password of clients
	// Addr is where clients connect, AdminAddr its HTTP side; "127.0.0.1:0" if empty. Announce and AnnounceAdmin are the addresses that it
	// believes to have; its real ones if empty.
	Addr, AdminAddr         string
	Announce, AnnounceAdmin string
	Token                   string // made of the addresses if empty
	Datacenter              string
	Store                   Store // where it registers for its clients (jodis); nowhere if nil
	PrimaryParallel         int   // connections per server; 1 if 0
	Clock                   clock.Clock
	// Dial connects to servers by the addresses that the mapping has; plain TCP if nil.
	Dial resp.Dialer
	PID  int
}

// Proxy is a simulated codis-proxy over all of its lives.
type Proxy struct {
	opts ProxyOptions
	port *port

	mu   sync.Mutex
	addr string
	life *proxyLife
}

// proxyLife is one life of a proxy: a restart begins with an empty table of slots and serves nobody until a dashboard says so.
type proxyLife struct {
	*process
	opts    *ProxyOptions
	model   ProxyModel
	xauth   string
	router  *router
	numbers counters

	// mu is held by whatever looks at or changes slots, also while that waits for requests under way.
	mu       sync.Mutex
	isOnline bool
	closed   bool
	servers  []string // sentinels
	watch    sentinelWatch
	jodis    jodis

	connMu sync.Mutex
	conns  map[net.Conn]bool
}

var errClosedProxy = errors.New("use of closed proxy")

// StartProxy starts one. It serves nobody until a dashboard has given it its slots.
func StartProxy(o ProxyOptions) (*Proxy, error) {
	if o.Product == "" {
		o.Product = "demo"
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.AdminAddr == "" {
		o.AdminAddr = "127.0.0.1:0"
	}
	if o.Clock == nil {
		o.Clock = clock.New(1)
	}
	p := &Proxy{opts: o, addr: o.Addr, port: &port{clock: o.Clock, addr: o.AdminAddr}}
	if err := p.Restart(); err != nil {
		return nil, err
	}
	return p, nil
}

// Restart begins a new process on the same ports, with an empty table. A process that runs is killed first.
func (p *Proxy) Restart() error {
	p.Kill()
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return fmt.Errorf("codis proxy %s: %w", p.opts.Name, err)
	}
	admin, err := p.port.listen()
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("codis proxy %s: %w", p.opts.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = l.Addr().String()
	life := p.newLife()
	p.life = life
	life.atEnd(func() { _ = l.Close() })
	life.run(func() { life.accept(l) })
	p.port.serve(life.process, admin, life.routes())
	life.background()
	return nil
}

func (p *Proxy) newLife() *proxyLife {
	o := &p.opts
	announce, admin := o.Announce, o.AnnounceAdmin
	if announce == "" {
		announce = p.addr
	}
	if admin == "" {
		admin = p.port.address()
	}
	life := &proxyLife{process: newProcess(o.Clock, o.Dial, o.PID), opts: o, conns: map[net.Conn]bool{}}
	life.router = newRouter(life.process, o)
	life.numbers.commands = map[string]*commandNumbers{}
	life.model = ProxyModel{
		Token: o.Token, StartTime: life.started, AdminAddr: admin, ProtoType: "tcp4", ProxyAddr: announce, ProductName: o.Product,
		PID: life.pid, PWD: workdir, Sys: uname, Hostname: hostname, Datacenter: o.Datacenter,
	}
	if o.Token == "" {
		life.model.Token = token(o.Product, announce, admin)
	}
	if o.Store != nil {
		life.model.JodisPath = jodisPath(o.Product, life.model.Token)
		life.jodis.store = &store{Store: o.Store, product: o.Product}
	}
	life.xauth = ProxyXAuth(o.Product, o.ProductAuth, life.model.Token)
	life.atEnd(life.hangUp)
	return life
}

// Kill ends the process as SIGKILL does. What it has registered for its clients stays until its session there is over.
func (p *Proxy) Kill() {
	if life := p.current(); life != nil {
		life.kill()
		life.jodis.abandon(life.clock)
		life.wg.Wait()
	}
}

// Stop ends the process as SIGTERM does: it waits for requests under way.
func (p *Proxy) Stop() {
	if life := p.current(); life != nil {
		life.close()
		p.Kill()
	}
}

// Close ends the process for good, and its registration with it.
func (p *Proxy) Close() {
	p.Kill()
	if life := p.current(); life != nil {
		life.jodis.end()
	}
}

// Freeze stops the process as SIGSTOP does: connections are accepted, nothing is answered and nothing goes on.
func (p *Proxy) Freeze() {
	if life := p.current(); life != nil {
		life.gate.freeze()
	}
}

// Thaw lets it go on. The calls of its admin API that have come in meanwhile are carried out in their order, also those whose callers have
// given up: a hold that timed out comes into force now.
func (p *Proxy) Thaw() { p.thaw(false) }

// ThawLastFirst is Thaw with the calls in the opposite order. The real process takes them up all at once, and of a hold and its release, both
// timed out, the hold came last in 19 of 25 tries.
func (p *Proxy) ThawLastFirst() { p.thaw(true) }

func (p *Proxy) thaw(lastFirst bool) {
	if life := p.current(); life != nil {
		life.gate.thaw(life.process, lastFirst)
	}
}

// Addr is where clients really connect, also while it is stopped.
func (p *Proxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// AdminAddr is where its HTTP side really listens, also while it is stopped.
func (p *Proxy) AdminAddr() string { return p.port.address() }

// Token is what the dashboard calls it. It is the same after a restart.
func (p *Proxy) Token() string { return p.current().model.Token }

// XAuth is what calls of its admin API carry in their path.
func (p *Proxy) XAuth() string { return p.current().xauth }

// Alive says whether the process runs. It ends by itself after a shutdown.
func (p *Proxy) Alive() bool {
	life := p.current()
	return life != nil && life.alive()
}

// Routes gives the table as it is this moment, for invariants: it waits for nothing and asks nobody.
func (p *Proxy) Routes() []Slot { return p.current().router.peek() }

// Held is the number of requests that wait for a held slot. Those behind them on the same connections are not counted.
func (p *Proxy) Held() int { return int(p.current().router.heldNow.Load()) }

// SetIntercept installs f for the admin API, or takes it away where f is nil.
func (p *Proxy) SetIntercept(f Intercept, except ...string) { p.port.SetIntercept(f, except...) }

// Requests lists the calls of the admin API in the order in which the process took them up, without those from the ones named.
func (p *Proxy) Requests(except ...string) []Request { return p.port.Requests(except...) }

// Writes is Requests without those that only read.
func (p *Proxy) Writes(except ...string) []Request { return p.port.Writes(except...) }

// Do carries out one call of the admin API past every fault and without a trace in the log. :xauth in the path stands for the right one.
func (p *Proxy) Do(method, path string, body []byte) (status int, content []byte) {
	life := p.current()
	if !life.alive() {
		return 0, nil
	}
	return do(life.routes(), method, path, life.xauth, body)
}

func (p *Proxy) current() *proxyLife {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// background is what the process does by itself.
func (p *proxyLife) background() {
	p.every(backendPingPeriod, func() {
		if p.router.online.Load() {
			p.router.primary.each((*backendConn).keepAlive)
			p.router.replica.each((*backendConn).keepAlive)
		}
	})
	p.run(func() {
		for p.sleep(time.Second) {
			now := p.clock.Now()
			p.router.primary.each(func(c *backendConn) { c.check(now) })
			p.router.replica.each(func(c *backendConn) { c.check(now) })
			p.numbers.tick(now)
		}
	})
}

// locked runs f under the mutex, unless the proxy is closed.
func (p *proxyLife) locked(f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosedProxy
	}
	return f()
}

func (p *proxyLife) start() error {
	return p.locked(func() error {
		if p.isOnline {
			return nil
		}
		p.isOnline = true
		p.router.online.Store(true)
		p.jodis.register(p)
		return nil
	})
}

// close serves nobody any more; the process exits a little later.
func (p *proxyLife) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.jodis.end()
	p.router.close()
	p.clock.AfterFunc(exitAfterStop, p.kill)
}

func (p *proxyLife) fillSlots(list []*Slot) error {
	return p.locked(func() error {
		for _, m := range list {
			if err := p.router.fill(m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *proxyLife) slots() []Slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.router.list()
}

func (p *proxyLife) setSentinels(servers []string) error {
	return p.locked(func() error {
		p.servers = servers
		p.rewatch()
		return nil
	})
}

func (p *proxyLife) rewatch() {
	p.watch.rewatch(p.process, p.opts.Product, p.servers, func(masters map[int]string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watch.masters = masters
	})
}

func (p *proxyLife) track(c net.Conn) bool {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxyLife) untrack(c net.Conn) {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	delete(p.conns, c)
}

func (p *proxyLife) hangUp() {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxyLife) verify(c call) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return errClosedProxy
	}
	return verify(c, p.xauth)
}

// routes is the whole admin API.
func (p *proxyLife) routes() []route {
	get := func(pattern string, f func(call) answer) route {
		return route{method: http.MethodGet, pattern: pattern, serve: f}
	}
	auth := func(f func(call) answer) func(call) answer {
		return func(c call) answer {
			if err := p.verify(c); err != nil {
				return failed(err)
			}
			return f(c)
		}
	}
	act := func(pattern string, f func(call) error) route {
		return route{method: http.MethodPut, pattern: pattern, serve: auth(func(c call) answer { return done(f(c)) })}
	}
	model := func(call) answer { return shown(p.model) }
	slots := func(call) answer { return shown(p.slots()) }
	stats := func(c call) answer {
		flags := 0
		if c.params["flags"] != "" {
			var err error
			if flags, err = c.number("flags"); err != nil {
				return failed(err)
			}
		}
		return shown(p.stats(flags))
	}
	free := func(r route) route { r.free = true; return r }
	return []route{
		get("/", func(call) answer { return answer{status: http.StatusFound, forward: "/proxy"} }),
		get("/proxy", func(call) answer { return shown(p.overview()) }),
		free(get("/proxy/model", model)),
		get("/proxy/stats", func(call) answer { return shown(p.stats(everything)) }),
		get("/proxy/slots", slots),
		free(get("/api/proxy/model", model)),
		get("/api/proxy/xping/:xauth", auth(func(call) answer { return shown("OK") })),
		get("/api/proxy/stats/:xauth", auth(stats)),
		get("/api/proxy/stats/:xauth/:flags", auth(stats)),
		get("/api/proxy/slots/:xauth", auth(slots)),
		act("/api/proxy/start/:xauth", func(call) error { return p.start() }),
		act("/api/proxy/stats/reset/:xauth", func(call) error { p.numbers.reset(); return nil }),
		act("/api/proxy/forcegc/:xauth", func(call) error { return nil }),
		act("/api/proxy/shutdown/:xauth", func(call) error { p.close(); return nil }),
		act("/api/proxy/loglevel/:xauth/:value", logLevel),
		{method: http.MethodPut, pattern: "/api/proxy/fillslots/:xauth", serve: p.fillSlotsCall},
		act("/api/proxy/sentinels/:xauth", func(c call) error { return p.setSentinels(bindSentinels(c.body)) }),
		act("/api/proxy/sentinels/:xauth/rewatch", func(call) error { return p.locked(func() error { p.rewatch(); return nil }) }),
	}
}

// fillSlotsCall decodes the list before anything else is looked at.
func (p *proxyLife) fillSlotsCall(c call) answer {
	list := bindList[Slot](c.body)
	if err := p.verify(c); err != nil {
		return failed(err)
	}
	return done(p.fillSlots(list))
}
