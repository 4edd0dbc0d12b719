package simulate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/traffic"
)

// Traffic is the load during the run.
type Traffic struct {
	// Through is where clients are pointed at first, and always if there is no follow: a redis, a pika, a twemproxy, or a
	// codis, over whose proxies they spread.
	Through         string        `yaml:"through"`
	Clients         int           `yaml:"clients"`
	WritesPerSecond float64       `yaml:"writes_per_second"`
	Keys            int           `yaml:"keys"`
	Slots           string        `yaml:"slots"` // half of the keys lie in these, such as 1,5-7: where the migration is to meet load
	Timeout         time.Duration `yaml:"timeout"`
	Follow          *Follow       `yaml:"follow"`
}

// Follow is where clients learn their address: what the migration rewrites to move them. Until it says something, clients
// go to Through.
type Follow struct {
	Host    string        `yaml:"host"`    // a file on this host; the first one if empty
	File    string        `yaml:"file"`    //
	System  string        `yaml:"system"`  // or a node of this system, read through Options.ReadNode, or of a zookeeper
	Node    string        `yaml:"node"`    //
	Pattern string        `yaml:"pattern"` // finds the address in the text, by its first group or whole; the first name:port otherwise
	Every   time.Duration `yaml:"every"`   // how often clients look; 1 s
}

func (w *World) checkTraffic() error {
	t := w.spec.Traffic
	if t == nil {
		return nil
	}
	switch w.Kind(t.Through) {
	case "redis", "pika", "codis", "twemproxy":
	default:
		return fmt.Errorf("traffic goes through %q, which is nothing in this world that clients write to", t.Through)
	}
	if t.Slots != "" {
		if _, err := parseSlots(t.Slots, w.slotNum(t.Through)); err != nil {
			return fmt.Errorf("traffic.slots: %w", err)
		}
	}
	f := t.Follow
	if f == nil {
		return nil
	}
	if (f.File == "") == (f.Node == "") {
		return errors.New("traffic.follow needs a file or a node, not both")
	}
	if _, err := regexp.Compile(f.Pattern); err != nil {
		return fmt.Errorf("traffic.follow.pattern: %w", err)
	}
	if f.File != "" && f.Host != "" && w.Kind(f.Host) != "host" && f.Host != LocalHost {
		return fmt.Errorf("traffic.follow.host names %q, which is no host of this world", f.Host)
	}
	if f.Node != "" && w.opts.ReadNode == nil && w.Kind(f.System) != "zookeeper" {
		return fmt.Errorf("traffic.follow: nothing simulated here has nodes such as %s", f.Node)
	}
	return nil
}

var nameAndPort = regexp.MustCompile(`[\w.-]+:\d+`)

// Routes gives the addresses that clients are pointed at now: what Follow says, else where Through is.
func (w *World) Routes(ctx context.Context) ([]string, error) {
	t := w.spec.Traffic
	if t == nil {
		return nil, errors.New("world: no traffic is declared")
	}
	said, err := w.followed(ctx)
	if err != nil {
		return nil, err
	}
	if said == "" {
		return w.entrances(t.Through), nil
	}
	if s := w.systems[said]; s != nil {
		return w.entrances(said), nil
	}
	addr := said
	if m := nameAndPort.FindString(said); m != "" {
		addr = m
	}
	actual, ok := w.Resolve(addr)
	if !ok {
		return nil, fmt.Errorf("route: clients are pointed at %q, which is no system of this world", addr)
	}
	return []string{actual}, nil
}

// followed is what the place says that clients learn their address from; empty where it says nothing yet.
func (w *World) followed(ctx context.Context) (string, error) {
	f := w.spec.Traffic.Follow
	if f == nil {
		return "", nil
	}
	said := ""
	switch {
	case f.Node != "" && w.opts.ReadNode != nil:
		text, err := w.opts.ReadNode(ctx, f.System, f.Node)
		if err != nil {
			return "", err
		}
		said = text
	case f.Node != "":
		b, _, err := w.ZooKeeper(f.System).Tree().Get(f.Node)
		if err != nil {
			return "", nil //nolint:nilerr // nobody has moved the clients yet
		}
		said = string(b)
	default:
		h := w.hosts[f.Host]
		if f.Host == "" {
			h = w.firstHost()
		}
		b, _, err := h.ReadFile(f.File)
		if err != nil {
			return "", nil //nolint:nilerr // nobody has moved the clients yet
		}
		said = string(b)
	}
	if f.Pattern == "" {
		return strings.TrimSpace(said), nil
	}
	m := regexp.MustCompile(f.Pattern).FindStringSubmatch(said)
	if m == nil {
		return "", fmt.Errorf("route: nothing in %q matches %s", said, f.Pattern)
	}
	return m[len(m)-1], nil
}

// entrances are the addresses at which clients of a system connect.
func (w *World) entrances(name string) []string {
	proxies := w.Proxies(name)
	if len(proxies) == 0 {
		return []string{w.systems[name].actual}
	}
	addrs := make([]string, len(proxies))
	for i, p := range proxies {
		addrs[i] = p.Addr()
	}
	return addrs
}

// TrafficName is the CLIENT SETNAME of the load's connections: what a fault or a log of writes leaves out.
const TrafficName = "traffic"

// StartTraffic begins the declared load; nil without an error where none is declared. The caller stops it before Close.
func (w *World) StartTraffic(ctx context.Context) (*traffic.Traffic, error) {
	t := w.spec.Traffic
	if t == nil {
		return nil, nil //nolint:nilnil // no load is a fact, not a failure
	}
	o := traffic.Options{
		Routes: w.Routes, Clients: t.Clients, WritesPerSecond: t.WritesPerSecond, Keys: t.Keys, Timeout: t.Timeout,
		Name: TrafficName, Unnamed: w.Kind(t.Through) == "twemproxy",
		Password: w.passwordAt(t.Through), Clock: w.clock, Seed: w.opts.Seed,
	}
	if t.Slots != "" {
		num := w.slotNum(t.Through)
		slots, err := parseSlots(t.Slots, num)
		if err != nil {
			return nil, err
		}
		o.Tags = hashTags(slots, num)
	}
	if t.Follow != nil {
		o.RouteEvery = t.Follow.Every
	}
	return traffic.Start(ctx, o)
}

// passwordAt is what clients of a system log in with. Proxies of a Codis have none of their own.
func (w *World) passwordAt(name string) string { return w.spec.Systems[name].Password }

// CheckTraffic compares the ledger with what is stored where clients are pointed now, asking each place in turn where there
// are several. With an error the report holds what is known without.
func (w *World) CheckTraffic(ctx context.Context, t *traffic.Traffic) (traffic.Report, error) {
	read, done, err := w.reader(ctx)
	if err != nil {
		read = func(context.Context, ...string) (resp.Value, error) { return resp.Value{}, err }
	}
	defer done()
	return t.Check(ctx, read)
}

// greetLimit is how long the check waits for a place to answer at all, in real time.
const greetLimit = 2 * time.Second

// reader reads at all the places that clients are pointed at and that serve them, by turns.
func (w *World) reader(ctx context.Context) (traffic.Reader, func(), error) {
	var readers []traffic.Reader
	var ends []func()
	done := func() {
		for _, end := range ends {
			end()
		}
	}
	addrs, err := w.Routes(ctx)
	for _, addr := range addrs {
		read, end, failed := traffic.ReadAt(ctx, nil, addr, "", w.passwordAt(w.spec.Traffic.Through))
		if failed != nil {
			err = failed
			continue
		}
		ends = append(ends, end)
		greet, cancel := context.WithTimeoutCause(ctx, greetLimit, fmt.Errorf("%s does not answer", addr))
		if _, failed = read(greet, "PING"); failed != nil {
			err = failed
		} else {
			readers = append(readers, read)
		}
		cancel()
	}
	if len(readers) == 0 {
		return nil, done, err
	}
	n := 0
	return func(ctx context.Context, args ...string) (resp.Value, error) {
		n++
		return readers[n%len(readers)](ctx, args...)
	}, done, nil
}
