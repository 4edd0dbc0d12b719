package codis

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/zookeeper"
)

// DashboardOptions say what a simulated dashboard is.
type DashboardOptions struct {
	Name        string // for errors
	Product     string // "demo" if empty
	ProductAuth string // the password of servers, and part of what proxies are called with
	// Addr is where it listens; "127.0.0.1:0" if empty. Announce is the address that it believes to have; its real one if empty.
	Addr, Announce string
	Store          Store // the coordinator; a tree of its own if nil
	// CoordinatorName and CoordinatorAddr are shown in its configuration; they do not choose the Store.
	CoordinatorName, CoordinatorAddr string
	MigrationMethod                  string        // sync or semi-async, the default
	ParallelSlots                    int           // 100 if 0
	MigrationTimeout                 time.Duration // 30 s if 0
	Clock                            clock.Clock   // the real time if nil
	// Dial connects to servers and proxies by the addresses that they announce; plain TCP if nil.
	Dial resp.Dialer
	PID  int
}

// Dashboard is a simulated codis-dashboard over all of its lives.
type Dashboard struct {
	opts DashboardOptions
	port *port

	mu   sync.Mutex
	life *topom
}

// StartDashboard starts one. It is online on return unless another holds the lock: then it tries for 32 s of the world's time and exits.
func StartDashboard(o DashboardOptions) (*Dashboard, error) {
	if o.Product == "" {
		o.Product = "demo"
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Clock == nil {
		o.Clock = clock.New(1)
	}
	if o.Store == nil {
		o.Store = zookeeper.NewTree(o.Clock)
	}
	if o.CoordinatorName == "" {
		o.CoordinatorName, o.CoordinatorAddr = "zookeeper", "127.0.0.1:2181"
	}
	switch o.MigrationMethod {
	case "":
		o.MigrationMethod = semiAsync
	case semiAsync, synchronous:
	default:
		return nil, fmt.Errorf("codis dashboard %s: migration method %q: sync or semi-async", o.Name, o.MigrationMethod)
	}
	if o.ParallelSlots == 0 {
		o.ParallelSlots = 100
	}
	if o.MigrationTimeout == 0 {
		o.MigrationTimeout = 30 * time.Second
	}
	d := &Dashboard{opts: o, port: &port{clock: o.Clock, addr: o.Addr}}
	if err := d.Restart(); err != nil {
		return nil, err
	}
	return d, nil
}

// Restart begins a new process on the same port, with what the coordinator holds; the pause between migration rounds and the switch that
// stops migrations are back at their defaults. A process that runs is killed first.
func (d *Dashboard) Restart() error {
	d.Kill()
	l, err := d.port.listen()
	if err != nil {
		return fmt.Errorf("codis dashboard %s: %w", d.opts.Name, err)
	}
	announce := d.opts.Announce
	if announce == "" {
		announce = d.port.address()
	}
	t := newTopom(d.opts, announce)
	d.mu.Lock()
	d.life = t
	d.mu.Unlock()
	d.port.serve(t.process, l, t.routes())
	t.start()
	return nil
}

// Kill ends the process as SIGKILL does: its lock stays in the coordinator, and whatever it was doing is done no further.
func (d *Dashboard) Kill() {
	if t := d.current(); t != nil {
		t.store.cut()
		t.kill()
		t.wg.Wait()
	}
}

// Stop ends the process as SIGTERM does: it waits for what holds the mutex, then releases the lock.
func (d *Dashboard) Stop() {
	t := d.current()
	if t == nil {
		return
	}
	_ = t.close()
	d.Kill()
}

// Close ends the process for good.
func (d *Dashboard) Close() { d.Kill() }

// Freeze stops the process as SIGSTOP does: connections are accepted, nothing is answered and nothing goes on.
func (d *Dashboard) Freeze() {
	if t := d.current(); t != nil {
		t.gate.freeze()
	}
}

// Thaw lets it go on, with the requests that have come in meanwhile, in their order, also those whose clients have gone.
func (d *Dashboard) Thaw() {
	if t := d.current(); t != nil {
		t.gate.thaw(t.process, false)
	}
}

// Addr is where it really listens, also while it is stopped.
func (d *Dashboard) Addr() string { return d.port.address() }

// Alive says whether the process runs. It ends by itself when it does not get the lock, and after a shutdown.
func (d *Dashboard) Alive() bool {
	t := d.current()
	return t != nil && t.alive()
}

// Online says whether the process runs and holds the lock.
func (d *Dashboard) Online() bool {
	t := d.current()
	return t != nil && t.alive() && t.online()
}

// XAuth is what its calls carry in their path.
func (d *Dashboard) XAuth() string { return DashboardXAuth(d.opts.Product) }

// RemoveLock takes the lock away whoever holds it, as codis-admin --remove-lock does.
func (d *Dashboard) RemoveLock() error {
	return (&store{Store: d.opts.Store}).remove(LockPath(d.opts.Product))
}

// SetIntercept installs f for the HTTP side, or takes it away where f is nil.
func (d *Dashboard) SetIntercept(f Intercept, except ...string) { d.port.SetIntercept(f, except...) }

// Requests lists the HTTP requests in the order in which the process took them up.
func (d *Dashboard) Requests() []Request { return d.port.Requests() }

// Writes is Requests without those that only read.
func (d *Dashboard) Writes() []Request { return d.port.Writes() }

// Mapping gives every slot as the coordinator holds it, for invariants: it does not ask the dashboard.
func (d *Dashboard) Mapping() ([]SlotMapping, error) {
	s := &store{Store: d.opts.Store}
	out := make([]SlotMapping, SlotCount)
	for i := range out {
		out[i].ID = i
		if _, err := s.load(SlotPath(d.opts.Product, i), &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Do carries out one call as a client that is past every fault and leaves no trace in the log: how a world is filled. The xauth
// stands for itself in the path, as :xauth.
func (d *Dashboard) Do(method, path string, body []byte) (status int, content []byte) {
	t := d.current()
	if t == nil || !t.alive() {
		return 0, nil
	}
	return do(t.routes(), method, path, t.xauth, body)
}

// Put is Do for the calls that change something: an error is the dashboard's own words.
func (d *Dashboard) Put(path string, body []byte) error {
	status, content := d.Do(http.MethodPut, path, body)
	if status != http.StatusOK {
		return fmt.Errorf("codis dashboard %s: %s: %d %s", d.opts.Name, path, status, cause(content))
	}
	return nil
}

func (d *Dashboard) current() *topom {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life
}
