package codis

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type checkHealthIn struct {
	Method      string              `yaml:"method" doc:"migration_method wanted; where none is given, the one that the servers need, if they tell that they are Pika." enum:"sync,semi-async"`
	Release     string              `yaml:"release" doc:"Codis release wanted, such as 3.2.2 or 3.2; any 3.2 where none is given."`
	Coordinator schema.TargetName   `yaml:"coordinator" doc:"Target of kind zookeeper with the product's coordinator, for comparing its lock with the dashboard; the ZooKeeper that the dashboard names, where none is given."`
	Hosts       []schema.TargetName `yaml:"hosts" doc:"Host targets on which codis-ha is looked for among the processes."`
	Ignore      []string            `yaml:"ignore" doc:"Names of problems that are known and accepted."`
}

type checkHealthOut struct {
	Healthy  bool      `yaml:"healthy" doc:"No problem was found but ignored ones. What is in unseen was not looked at."`
	Problems []problem `yaml:"problems" doc:"What was found, in a fixed order of names."`
	Ignored  []string  `yaml:"ignored" doc:"Names of the problems that were found and ignored."`
	Unseen   []string  `yaml:"unseen" doc:"Names of the problems that could not be looked for: lock-mismatch and two-dashboards where the coordinator cannot be read, codis-ha without hosts, and others where the dashboard does not tell enough."`
}

type problem struct {
	Name    string `yaml:"name" doc:"Name of the problem, one of those listed below."`
	Message string `yaml:"message" doc:"What was seen, on what."`
	Fix     string `yaml:"fix" doc:"What a person can do."`
}

func checkHealth() *steps.Kind[checkHealthIn, checkHealthOut] {
	return &steps.Kind[checkHealthIn, checkHealthOut]{
		Name: "codis.check-health",
		Doc: "Looks for what makes a change of a Codis product fail half-way or lose data. Sends GET requests to the dashboard and to every registered proxy; " +
			"reads the lock in the coordinator, and the processes where hosts are given.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: healthy, uses: codis.check-health, target: codis1, with: {method: semi-async, release: "3.2"}, expect: "healthy"}`,
		Pitfalls: append([]string{
			"No request shows codis-ha, which removes servers and proxies by itself: without hosts it is in unseen, and that is no all-clear.",
			"A product is never quite still: take it for healthy when it is so on several looks (wait-until with stable).",
		}, problemDocs()...),
		Valid: func(in checkHealthIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			for _, name := range in.Ignore {
				if _, known := kindOfProblem(name); !known && !unknown("ignore") {
					p = append(p, steps.Problem{Input: "ignore", Message: fmt.Sprintf("%q is no problem that is looked for: %s", name, strings.Join(problemNames(), ", "))})
				}
			}
			return p
		},
		Read: readCheckHealth,
	}
}

// problemKind is a problem that is looked for. This list is the only one: reference, order, fixes and ignore are made from it.
type problemKind struct{ name, means, fix string }

var problemKinds = [...]problemKind{
	{"dashboard-unreachable", "the dashboard does not answer the one request that nothing holds up",
		"start it, or correct the target's addr"},
	{"dashboard-hung", "the dashboard lives, and does not answer what needs its mutex: something it asks hangs (a proxy, the coordinator), for a minute and more",
		"find what hangs: a proxy whose process is stopped, a coordinator that takes connections and no more"},
	{"dashboard-offline", "the dashboard does not hold its lock, so that it changes nothing",
		"wait 32 s where it was just started; then see who holds the lock (coordinator), and remove it with codis-dashboard --remove-lock only when that process is dead for certain"},
	{"release-unsupported", "the release is not the one wanted, or not 3.2",
		"run dashboards and proxies of Codis 3.2"},
	{"method-mismatch", "migration_method is not the one wanted, or not the one that the servers can do: Pika before 3.0 needs sync, Pika 3.2 to 3.4 semi-async",
		"change migration_method in dashboard.toml and restart the dashboard"},
	{"admin-address-unspecified", "the dashboard or a proxy has registered an address that others cannot use: 0.0.0.0, a host name, a loopback address beside others that are none",
		"start it with --host-admin (and --host-proxy) and an IP address"},
	{"lock-mismatch", "the coordinator's lock is not that of this dashboard",
		"find the dashboard that the lock names; where it is dead, restart this one"},
	{"two-dashboards", "another dashboard of the product, which the lock names, answers too: each has its own idea of the mapping, and the lock keeps neither from writing",
		"stop one of them, and restart the other so that it reads the store anew"},
	{"codis-ha", "codis-ha runs: it takes servers out that do not follow their master yet, and shuts them and slow proxies down",
		"stop it for the time of the change"},
	{"sentinel-configured", "sentinels are configured beside Pika 3.3, which does not go with them",
		"take the sentinels out, or use a Pika or Codis that goes with them"},
	{"no-proxies", "no proxy is registered, so nobody serves clients",
		"codis.add-proxy adds one"},
	{"proxy-unreachable", "a registered proxy does not answer: every change of the mapping fails half-way",
		"restart it with the same ports, or take it out with codis.remove-proxy (force: true once its process is gone)"},
	{"proxy-replaced", "another proxy answers at a registered address",
		"take the old one out of the list with force, and add the new one"},
	{"proxy-offline", "a registered proxy does not serve clients",
		"the dashboard puts it online within a second or two; otherwise read the dashboard's log"},
	{"proxy-stats-error", "the dashboard cannot ask a proxy that this machine can, or has not yet",
		"see whether the dashboard's machine reaches the proxy's admin address, and whether product_auth is the same"},
	{"slots-held", "clients of a slot wait at a proxy, and the dashboard knows of no reason",
		"a switch of the slot is under way or was cut off: let it end, or resume or undo it"},
	{"routes-differ", "a proxy serves a slot otherwise than the dashboard would have it",
		"where no change is under way, codis.resync-group pushes a group's slots again"},
	{"foreign-action", "a slot has an action: a migration is queued or under way",
		"let it end; seen again in state preparing or finished, a proxy does not take the change"},
	{"slots-actions-disabled", "migrations are paused: nothing would move",
		"codis.pause-actions with paused: false"},
	{"slots-uncovered", "a slot belongs to no group, or to one without servers: its clients get errors",
		"assign it (codis.assign-slots)"},
	{"group-promoting", "a promotion has not ended, and its group refuses everything",
		"repeat the promotion of the same server once all proxies answer"},
	{"group-out-of-sync", "a group's slots were changed without a resync of the group since",
		"codis.resync-group"},
	{"server-unreachable", "the dashboard cannot ask a server",
		"see whether the server is up, and whether its password is the product's product_auth"},
	{"master-not-master", "the first server of a group, where clients are sent to write, is a replica",
		"promote it (redis.replicaof or pika.slaveof with none: true), or put the real master first"},
	{"server-address", "a server is in a group by a host name: Codis compares addresses as text, Pika with IP addresses",
		"take it out and add it by IP:port"},
}

func kindOfProblem(name string) (problemKind, bool) {
	i := slices.IndexFunc(problemKinds[:], func(k problemKind) bool { return k.name == name })
	if i < 0 {
		return problemKind{}, false
	}
	return problemKinds[i], true
}

func problemNames() []string {
	var names []string
	for _, k := range problemKinds {
		names = append(names, k.name)
	}
	return names
}

// problemDocs is the list as the reference has it.
func problemDocs() []string {
	var docs []string
	for _, k := range problemKinds {
		docs = append(docs, fmt.Sprintf("Problem %s: %s. To fix it: %s.", k.name, k.means, k.fix))
	}
	return docs
}

func readCheckHealth(ctx context.Context, v steps.View, in checkHealthIn) (checkHealthOut, error) {
	c, err := view(ctx, v)
	if err != nil {
		return checkHealthOut{}, err
	}
	h := &health{c: c, v: v, in: in, found: map[string][]string{}, unseen: map[string]bool{}}
	if err := h.look(ctx); err != nil {
		return checkHealthOut{}, err
	}
	return h.out(), nil
}

// health collects what is found.
type health struct {
	c      *Client
	v      steps.View
	in     checkHealthIn
	found  map[string][]string // messages by name
	unseen map[string]bool
}

func (h *health) report(name, format string, a ...any) {
	h.found[name] = append(h.found[name], fmt.Sprintf(format, a...))
}

func (h *health) out() checkHealthOut {
	out := checkHealthOut{Problems: []problem{}, Ignored: []string{}, Unseen: []string{}, Healthy: true}
	for _, k := range problemKinds {
		messages := h.found[k.name]
		switch {
		case len(messages) > 0 && slices.Contains(h.in.Ignore, k.name):
			out.Ignored = append(out.Ignored, k.name)
		case len(messages) > 0:
			out.Healthy = false
			for _, m := range messages {
				out.Problems = append(out.Problems, problem{Name: k.name, Message: m, Fix: k.fix})
			}
		case h.unseen[k.name]:
			out.Unseen = append(out.Unseen, k.name)
		}
	}
	return out
}

// blind marks what nobody can look for while the dashboard does not tell.
func (h *health) blind() {
	for _, k := range problemKinds {
		if !strings.HasPrefix(k.name, "dashboard-") {
			h.unseen[k.name] = true
		}
	}
}

// look asks in the order in which an answer tells what the next question means. Only the end of the context is an error.
func (h *health) look(ctx context.Context) error {
	model, err := h.c.Model(ctx)
	if err != nil {
		h.blind()
		h.report("dashboard-unreachable", "%s", err)
		return ended(ctx)
	}
	if err := h.givenCoordinator(ctx, model); err != nil {
		return err
	}
	if err := h.codisHA(ctx); err != nil {
		return err
	}
	overview, err := h.c.Overview(ctx)
	if err != nil {
		seen := maps.Clone(h.unseen) // what needs no dashboard was looked for
		h.blind()
		for _, name := range []string{"lock-mismatch", "two-dashboards", "codis-ha"} {
			h.unseen[name] = seen[name]
		}
		h.silentDashboard(err)
		return ended(ctx)
	}
	if err := h.namedCoordinator(ctx, model, overview.Config); err != nil {
		return err
	}
	h.dashboard(overview)
	h.groups(overview.Stats)
	h.mapping(overview.Stats)
	return h.proxies(ctx, overview)
}

// ended tells why the looking was stopped from outside; nil: it was not.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (h *health) silentDashboard(err error) {
	switch e := steps.Classify(err); {
	case strings.Contains(err.Error(), "is not online"):
		h.report("dashboard-offline", "%s", err)
	case e.Kind == "timeout":
		h.report("dashboard-hung", "%s", err)
	default:
		h.report("dashboard-unreachable", "%s", err)
	}
}

func (h *health) dashboard(o Overview) {
	release, wanted := o.Release(), h.in.Release
	if wanted == "" {
		wanted = "3.2"
	}
	if release != wanted && !strings.HasPrefix(release, wanted+".") {
		h.report("release-unsupported", "dashboard %s is of release %q, wanted is %s", h.c.Addr(), release, wanted)
	}
	if why := badAdminAddr(o.Model.AdminAddr, o.Model.AdminAddr); why != "" {
		h.report("admin-address-unspecified", "the dashboard has registered %s: %s", o.Model.AdminAddr, why)
	}
	if o.Stats.Closed {
		h.report("dashboard-offline", "dashboard %s is closing", h.c.Addr())
	}
	if a := o.Stats.SlotAction; a.Disabled {
		h.report("slots-actions-disabled", "dashboard %s has paused migrations (interval %d µs)", h.c.Addr(), a.Interval)
	}
	h.method(o)
}

// method compares migration_method with what is wanted, and with what each Pika can do.
func (h *health) method(o Overview) {
	method := o.Config.MigrationMethod
	if h.in.Method != "" && method != h.in.Method {
		h.report("method-mismatch", "dashboard %s has migration_method %q, wanted is %s", h.c.Addr(), method, h.in.Method)
	}
	for _, s := range o.Stats.pikas() {
		wanted := ""
		switch {
		case pikaBetween(s.release, [2]int{2, 0}, [2]int{2, 99}):
			wanted = "sync"
		case movesByReplication(s.release):
			wanted = "semi-async"
		}
		if wanted != "" && method != wanted && h.in.Method == "" {
			h.report("method-mismatch", "dashboard %s has migration_method %q, and %s is a Pika %s, which needs %s", h.c.Addr(), method, s.addr, s.release, wanted)
		}
		if servers := o.Stats.Sentinels.Model.Servers; len(servers) > 0 && pikaBetween(s.release, [2]int{3, 3}, [2]int{3, 3}) {
			h.report("sentinel-configured", "sentinels %s are configured, and %s is a Pika %s", strings.Join(servers, ", "), s.addr, s.release)
		}
	}
}

type pikaServer struct{ addr, release string }

// pikas are the servers that tell that they are Pika, in the order of the groups.
func (s Stats) pikas() []pikaServer {
	var all []pikaServer
	for _, g := range s.Group.Models {
		for _, addr := range g.addrs() {
			if release := s.Group.Stats[addr].Stats["pika_version"]; release != "" {
				all = append(all, pikaServer{addr, release})
			}
		}
	}
	return all
}

func (h *health) groups(s Stats) {
	for _, g := range s.Group.Models {
		if g.Promoting.State != "" {
			h.report("group-promoting", "group %d is being promoted: %s", g.ID, g.Promoting.State)
		}
		if g.OutOfSync {
			h.report("group-out-of-sync", "group %d is out of sync", g.ID)
		}
		for i, addr := range g.addrs() {
			heard := s.Group.Stats[addr]
			if why := heard.why(); why != "" {
				h.report("server-unreachable", "group %d, %s: %s", g.ID, addr, why)
			}
			if i == 0 && heard.Stats["role"] == "slave" {
				h.report("master-not-master", "group %d: %s is its first server, and a replica of %s", g.ID, addr, heard.Stats["master_addr"])
			}
			if why := badServerAddr(addr); why != "" {
				h.report("server-address", "group %d: %s", g.ID, why)
			}
		}
	}
}

func (h *health) mapping(s Stats) {
	var uncovered schema.Slots
	for id := range SlotCount {
		if g, there := s.GroupByID(s.Mapping(id).GroupID); !there || g.Master() == "" {
			uncovered = append(uncovered, id)
		}
	}
	if len(uncovered) > 0 {
		h.report("slots-uncovered", "slots %s belong to no group with a server", uncovered)
	}
	for _, m := range s.Actions() {
		h.report("foreign-action", "%s", m.words())
	}
}

func (h *health) proxies(ctx context.Context, o Overview) error {
	models := o.Stats.Proxy.Models
	if len(models) == 0 {
		h.report("no-proxies", "dashboard %s has no proxy", h.c.Addr())
	}
	for _, m := range models {
		for _, addr := range []string{m.AdminAddr, m.ProxyAddr} {
			if why := badAdminAddr(addr, o.Model.AdminAddr); why != "" {
				h.report("admin-address-unspecified", "proxy %s has registered %s: %s", m.AdminAddr, addr, why)
			}
		}
	}
	wanted, err := h.c.Slots(ctx)
	if err != nil {
		h.unseen["routes-differ"], h.unseen["slots-held"] = true, true
		h.silentDashboard(err)
	}
	for _, r := range h.c.Routings(ctx, models) {
		if r.Err != nil {
			h.report("proxy-unreachable", "%s", r.Err)
			continue
		}
		if wanted != nil {
			h.routes(r, wanted)
		}
		h.proxy(ctx, r.Proxy, o.Stats)
	}
	return ended(ctx)
}

func (h *health) proxy(ctx context.Context, m ProxyModel, s Stats) {
	p := h.c.Proxy(m)
	now, err := p.Model(ctx)
	if err != nil {
		h.report("proxy-unreachable", "%s", err)
		return
	}
	if now.Token != m.Token {
		h.report("proxy-replaced", "proxy %s has token %s, registered is %s", m.AdminAddr, now.Token, m.Token)
		return
	}
	says, err := p.Stats(ctx)
	switch {
	case err != nil:
		h.report("proxy-unreachable", "%s", err)
	case !says.Online || says.Closed:
		h.report("proxy-offline", "proxy %s is not online", m.AdminAddr)
	}
	if why := s.Proxy.Stats[m.Token].why(); why != "" {
		h.report("proxy-stats-error", "the dashboard on proxy %s: %s", m.AdminAddr, why)
	}
}

// routes compares a proxy with the dashboard's view. Held slots that the dashboard does not hold have a name of their own.
func (h *health) routes(r Routing, wanted []Slot) {
	var held, other schema.Slots
	for _, id := range r.differs(wanted, allSlots()) {
		if at := r.Slot(id); at.Locked && !slotIn(wanted, id).Locked {
			held = append(held, id)
		} else {
			other = append(other, id)
		}
	}
	if len(held) > 0 {
		h.report("slots-held", "proxy %s holds slots %s", r.Proxy.AdminAddr, held)
	}
	if len(other) > 0 {
		h.report("routes-differ", "proxy %s serves slots %s otherwise than the dashboard would have it; slot %d from %s, wanted is %s",
			r.Proxy.AdminAddr, other, other[0], r.Slot(other[0]).words(), slotIn(wanted, other[0]).words())
	}
}

// givenCoordinator looks at the lock where the step says in which coordinator it is.
func (h *health) givenCoordinator(ctx context.Context, model Model) error {
	if h.in.Coordinator == "" {
		h.unseen["lock-mismatch"], h.unseen["two-dashboards"] = true, true
		return nil
	}
	store, err := coordinator(ctx, h.v, string(h.in.Coordinator))
	if err != nil {
		return err
	}
	return h.lock(ctx, store, model)
}

// namedCoordinator looks at the lock in the ZooKeeper that the dashboard names. What is not to be read from here, as it
// may need another address or a login, stays unseen.
func (h *health) namedCoordinator(ctx context.Context, model Model, config TopomConfig) error {
	if h.in.Coordinator != "" {
		return nil
	}
	store, err := namedCoordinator(ctx, h.v, model.Product, config.CoordinatorName, config.CoordinatorAddr)
	if err != nil {
		return ended(ctx)
	}
	if err := h.lock(ctx, store, model); err != nil {
		return ended(ctx)
	}
	delete(h.unseen, "lock-mismatch")
	delete(h.unseen, "two-dashboards")
	return nil
}

// lock compares the coordinator's lock with the dashboard that answers.
func (h *health) lock(ctx context.Context, store Coordinator, model Model) error {
	path := LockPath(model.Product)
	data, exists, err := store.Read(ctx, path)
	if err != nil {
		return fmt.Errorf("read the lock %s: %w", path, err)
	}
	if !exists {
		h.report("lock-mismatch", "there is no lock %s, and dashboard %s answers", path, h.c.Addr())
		return nil
	}
	var holder Model
	if err := json.Unmarshal(data, &holder); err != nil {
		h.report("lock-mismatch", "the lock %s cannot be read: %s", path, err)
		return nil
	}
	if holder.SameProcess(model) {
		return nil
	}
	other := Open(Config{Addr: schema.Addr(holder.AdminAddr), Product: model.Product, Timeout: h.c.cfg.Timeout}, steps.ReadOnly).Via(h.c.x.dial)
	if now, err := other.Model(ctx); err == nil && now.SameProcess(holder) {
		h.report("two-dashboards", "the lock is that of %s (pid %d), which answers; so does %s (pid %d)", holder.AdminAddr, holder.PID, h.c.Addr(), model.PID)
		return nil
	}
	h.report("lock-mismatch", "the lock is that of %s (pid %d, started %s), and %s (pid %d, started %s) answers",
		holder.AdminAddr, holder.PID, holder.StartTime, h.c.Addr(), model.PID, model.StartTime)
	return ended(ctx)
}
