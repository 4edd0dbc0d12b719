package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"runbook/internal/simulate"
	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/traffic"
	"runbook/runner"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/catalog"
	"runbook/steps/codis"
	"runbook/steps/host"
	"runbook/steps/pika"
	"runbook/steps/redis"
	"runbook/steps/twemproxy"
	"runbook/steps/zookeeper"
)

// beside is the world file of a bare --sandbox: the one that lies beside the runbook.
const beside = "NAME.sandbox.yaml"

// sandboxFlags are the flags of exec that put a simulated world in the place of the real one.
type sandboxFlags struct {
	file  string
	speed float64
}

func (f *sandboxFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "sandbox", "", "run in a simulated world, of the file beside the runbook or --sandbox=FILE")
	cmd.Flags().Lookup("sandbox").NoOptDefVal = beside
	cmd.Flags().Float64Var(&f.speed, "speed", 1, "how fast the sandbox's time runs: for waits, see above")
}

// world is the simulated world of one run; nil: the real one. Nothing outside of it is
// touched: a target that it does not have is refused, not contacted.
type world struct {
	file    string
	speed   float64
	spec    simulate.Spec
	world   *simulate.World
	traffic *traffic.Traffic
	dry     bool
	listens map[string]string // where its systems were when a saved plan was made; nil: no plan was

	guardians guardians
}

// sandbox reads the world file and brings its systems up, so that their addresses are
// known when the runbook is bound.
func (a *app) sandbox(cmd *cobra.Command, f *sandboxFlags, book string) (*world, error) {
	if f.file == "" {
		if cmd.Flags().Changed("speed") {
			return nil, usage("--sandbox", "--speed is of a sandbox, and there is none")
		}
		return nil, nil
	}
	if f.speed <= 0 || f.speed > 10000 {
		return nil, usage("--speed 100", "--speed %v is not between 0 and 10000", f.speed)
	}
	w := &world{file: f.file, speed: f.speed}
	if w.file == beside {
		w.file = strings.TrimSuffix(book, filepath.Ext(book)) + ".sandbox.yaml"
	}
	text, err := os.ReadFile(w.file)
	if _, missing := os.Stat(book); err != nil && missing != nil {
		return nil, nil //nolint:nilerr // the runbook is not there either, and is the first to be missed
	}
	if err != nil {
		return nil, usage("--sandbox=FILE names another one", "read the sandbox's world: %s: %w", w.file, reason(err))
	}
	if findings := schema.Decode(w.file, text, &w.spec); schema.Failed(findings) {
		return nil, &runner.UsageError{Findings: findings}
	}
	if findings := w.invariants(text); len(findings) > 0 {
		return nil, &runner.UsageError{Findings: findings}
	}
	return w, nil
}

// invariants finds what the world file asks for and what cannot be checked in this world.
func (w *world) invariants(text []byte) []schema.Finding {
	var f struct {
		Invariants []schema.Leaf[string]    `yaml:"invariants"`
		Rest       schema.Map[schema.Value] `yaml:",rest"`
	}
	var findings []schema.Finding
	wrong := func(at schema.Span, rule, suggestion, format string, args ...any) {
		findings = append(findings, schema.Finding{Path: w.file, Line: at.Start.Line, Column: at.Start.Column, EndLine: at.End.Line, EndColumn: at.End.Column,
			Severity: schema.Error, Rule: rule, Message: fmt.Sprintf(format, args...), Suggestion: suggestion})
	}
	_ = schema.Decode(w.file, text, &f) // its findings are known
	known, here := simulate.Invariants(), w.spec.Checkable()
	for _, name := range f.Invariants {
		switch {
		case !slices.Contains(known, name.Value):
			near, _ := schema.Nearest(name.Value, known)
			wrong(name.Span, "unknown-invariant", near, "there is no invariant %s; there are %s", name.Value, strings.Join(known, ", "))
		case slices.Contains(here, name.Value):
		case simulate.OfTraffic(name.Value):
			wrong(name.Span, "no-traffic", "traffic: {through: NAME}", "%s is about the clients of the world, and it has none", name.Value)
		default:
			wrong(name.Span, "no-slots", "", "%s is about the slots of a codis, and the world has none", name.Value)
		}
	}
	return findings
}

// up starts the systems; declared are the addresses of the runbook's targets.
func (w *world) up(declared map[string]string) error {
	var err error
	w.world, err = simulate.Start(context.Background(), w.spec, simulate.Options{Clock: clock.New(w.speed), Addrs: declared, Listens: w.listens})
	if err != nil {
		return usage("", "%s: %w", w.file, err)
	}
	return nil
}

// overlay puts the world's addresses in the place of the targets'. text is that of the
// runbook; nil: it is read.
func (w *world) overlay(book string, text []byte) *overlay {
	if w == nil {
		return nil
	}
	return &overlay{inputs: w.spec.Inputs, path: w.file, inventory: func(given *schema.Inventory) (*schema.Inventory, error) {
		if text == nil {
			var err error
			if text, err = os.ReadFile(book); err != nil {
				return given, nil //nolint:nilerr // Load says so, with a position
			}
		}
		parsed, _ := schema.Parse(book, text)
		inv := &schema.Inventory{Path: book}
		if given != nil {
			inv.Path, inv.Source, inv.Inputs, inv.Targets = given.Path, given.Source, given.Inputs, append(inv.Targets, given.Targets...)
		}
		for _, e := range parsed.Targets {
			if _, replaced := inv.Targets.Get(e.Key.Value); !replaced {
				inv.Targets = append(inv.Targets, e)
			}
		}
		declared := map[string]string{}
		for _, e := range inv.Targets {
			for _, addr := range addresses(e.Value.Config) {
				if addr.Scalar != nil && !strings.Contains(addr.Scalar.Text, "${{") && declared[e.Key.Value] == "" {
					declared[e.Key.Value] = addr.Scalar.Text
				}
			}
		}
		if err := w.up(declared); err != nil {
			return nil, err
		}
		for i := range inv.Targets {
			t := &inv.Targets[i]
			addr := w.world.Addr(t.Key.Value)
			if addr == "" {
				continue
			}
			config := append(schema.Map[schema.Value]{}, t.Value.Config...)
			for k := range config {
				at := config[k].Value.Span
				scalar := schema.Value{Kind: schema.ScalarValue, Span: at, Scalar: &schema.Scalar{Text: addr, Tag: schema.String, Quoted: true, Span: at}}
				switch config[k].Key.Value {
				case "addr":
					config[k].Value = scalar
				case "addrs":
					config[k].Value = schema.Value{Kind: schema.ListValue, Span: at, List: []schema.Value{scalar}}
				}
			}
			t.Value.Config = config
		}
		return inv, nil
	}}
}

// addresses are those that a target declares: one system of the world stands for all of them.
func addresses(config schema.Map[schema.Value]) []schema.Value {
	if addr, ok := config.Get("addr"); ok {
		return []schema.Value{addr}
	}
	addrs, _ := config.Get("addrs")
	return addrs.List
}

// addrs are where the systems of the world are, by name, for a plan that is kept.
func (w *world) addrs() map[string]string {
	if w == nil {
		return nil
	}
	addrs := map[string]string{}
	for _, name := range w.world.Names() {
		if addr := w.world.Addr(name); addr != "" {
			addrs[name] = addr
		}
	}
	return addrs
}

// path is what is kept of the sandbox in the plan and the journal.
func (w *world) path() string {
	if w == nil {
		return ""
	}
	return w.file
}

// start puts the world's time, machines and guardians into the run, and its clients to work.
func (w *world) start(ctx context.Context, cfg *runner.Config, dry bool) error {
	if w == nil {
		return nil
	}
	w.dry = dry
	cfg.Clock = runner.FastClock{Start: time.Now(), Speed: w.speed}
	cfg.Connect = w.connect
	cfg.Guardian = w.guardians.starter(runner.GuardianConfig{
		Catalog: runner.NewCatalog(catalog.Kinds(), catalog.Targets()), Clock: cfg.Clock, Connect: w.connect,
	})
	var err error
	if w.traffic, err = w.world.StartTraffic(ctx); err != nil {
		return usage("", "%s: start the traffic: %w", w.file, err)
	}
	return nil
}

// connect opens what a step acts on, in this world and nowhere else.
func (w *world) connect(_ context.Context, t steps.Target, access steps.Access) (any, bool, error) {
	switch t.Kind {
	case host.KindName:
		h := w.world.Host(t.Name)
		if local, _ := t.Config["local"].(bool); h == nil && local {
			h = w.world.Host(simulate.LocalHost)
		}
		if h == nil {
			return nil, false, steps.Errorf("sandbox", "host %s is not in the sandbox %s, and nothing outside of it is touched", t.Name, w.file)
		}
		var m host.Machine = &machine{host: h, world: w.world}
		if access == steps.ReadOnly {
			m = host.ReadOnly(m)
		}
		return m, true, nil
	case redis.KindName:
		return inside(w, t, func(c redis.Config) any { return redis.Open(c, access, redis.Dialect{}).Via(w.world.Dial) })
	case pika.KindName:
		return inside(w, t, func(c pika.Config) any { return pika.Open(c, access).Via(w.world.Dial) })
	case codis.KindName:
		return inside(w, t, func(c codis.Config) any { return codis.Open(c, access).Via(w.world.Dial) })
	case zookeeper.KindName:
		return inside(w, t, func(c zookeeper.Config) any { return zookeeper.Open(c, access) })
	case twemproxy.KindName:
		return inside(w, t, func(c twemproxy.Config) any { return twemproxy.Open(c) })
	}
	return nil, false, steps.Errorf("sandbox", "target %s: a sandbox has no targets of kind %s", t.Name, t.Kind)
}

// inside opens a target whose addresses are all in the world, at the ones where it really listens.
func inside[C any](w *world, t steps.Target, open func(C) any) (any, bool, error) {
	real := func(addr any) (string, error) {
		text := fmt.Sprint(addr)
		if actual, ok := w.world.Resolve(text); ok {
			return actual, nil
		}
		return "", steps.Errorf("sandbox", "%s (%s) is not in the sandbox %s, and nothing outside of it is touched", t.Name, text, w.file)
	}
	config := maps.Clone(t.Config)
	found := false
	for _, key := range []string{"addr", "addrs"} {
		switch v := config[key].(type) {
		case nil:
			continue
		case []any:
			all := make([]any, len(v))
			for i := range v {
				addr, err := real(v[i])
				if err != nil {
					return nil, false, err
				}
				all[i] = addr
			}
			config[key] = all
		default:
			addr, err := real(v)
			if err != nil {
				return nil, false, err
			}
			config[key] = addr
		}
		found = true
	}
	if !found {
		return nil, false, steps.Errorf("sandbox", "target %s has no address to look for in the sandbox %s", t.Name, w.file)
	}
	var c C
	if err := schema.Bind(config, &c); err != nil {
		return nil, false, fmt.Errorf("target %s: %w", t.Name, err)
	}
	return open(c), true, nil
}

// verdict is what a world's clients saw, and which of its invariants do not hold.
type verdict struct {
	words  string
	broken []runner.Line
}

// stop ends the world, and tells what its clients saw.
func (w *world) stop() verdict {
	if w == nil || w.world == nil {
		return verdict{}
	}
	defer func() {
		w.world.Close()
		w.world = nil
	}()
	w.guardians.stop()
	v := verdict{}
	broken, unread := map[string]string{}, map[string]error{}
	if w.traffic != nil {
		v.words = w.clients(broken, unread)
	}
	if w.dry {
		return v // nothing was changed: what does not hold is how the world begins
	}
	slots, err := w.world.CheckSlots()
	maps.Copy(broken, slots)
	for _, name := range w.spec.Wanted() {
		switch what, cause := broken[name], unread[name]; {
		case what != "":
			v.broken = append(v.broken, runner.Line{Tone: runner.Bad, Text: "sandbox: invariant " + name + " is broken: " + what})
		case cause != nil:
			v.broken = append(v.broken, runner.Line{Tone: runner.Bad, Text: fmt.Sprintf("sandbox: invariant %s cannot be checked: what clients wrote cannot be read: %v", name, cause)})
		case err != nil && !simulate.OfTraffic(name):
			v.broken = append(v.broken, runner.Line{Tone: runner.Bad, Text: fmt.Sprintf("sandbox: invariant %s cannot be checked: %v", name, err)})
		}
	}
	return v
}

// clients stops the load and compares what was acknowledged with what is stored.
func (w *world) clients(broken map[string]string, unread map[string]error) (words string) {
	w.traffic.Stop()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("the check took longer than 30 s"))
	defer cancel()
	r, err := w.world.CheckTraffic(ctx, w.traffic)
	maps.Copy(broken, r.Broken())
	words = fmt.Sprintf("sandbox: %d writes acknowledged, %d lost, %d stale reads, ", r.Acknowledged, len(r.Lost), len(r.Stale))
	if err != nil {
		words = fmt.Sprintf("sandbox: %d writes acknowledged, %d stale reads, ", r.Acknowledged, len(r.Stale))
		for _, name := range w.spec.Wanted() {
			if simulate.OfTraffic(name) {
				unread[name] = err
			}
		}
		delete(unread, "clients-served") // clients know that by themselves
		delete(unread, "no-stale-read")
	}
	if slots := w.spec.Traffic.Slots; slots != "" {
		return words + fmt.Sprintf("longest pause %v on slots %s, %v elsewhere", r.MaxWaitTagged.Round(time.Millisecond), slots, r.MaxWaitUntagged.Round(time.Millisecond))
	}
	return words + fmt.Sprintf("longest pause %v", r.MaxWait.Round(time.Millisecond))
}
