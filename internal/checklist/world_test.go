package checklist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbook/internal/simulate"
	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/twemproxy"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/catalog"
	"runbook/steps/conformance"
)

// world is a simulated world, and what else a check may look at.
type world struct {
	*testing.T
	*simulate.World
	targets map[string]conformance.Target // beside the systems
	on      string                        // the target that a row looks at, where it has the choice
	with    map[string]any                // inputs of a row that are changed to repair it
	relay   *relay                        // before the dashboard, as target relay
	process *exec.Cmd
	proxy   *twemproxy.Server
	file    string // of the proxy
}

// in makes the worlds of a row from a world file's systems.
func in(systems string) func(t *testing.T) *world { return inTime(1, systems) }

// inTime is in with a time that runs that fast: for what is known to take seconds.
func inTime(speed float64, systems string) func(t *testing.T) *world {
	return func(t *testing.T) *world {
		t.Helper()
		var spec simulate.Spec
		text := "version: 1\nsystems:\n" + systems
		if findings := schema.Decode("world", []byte(text), &spec); schema.Failed(findings) {
			t.Fatal(findings)
		}
		sim, err := simulate.Start(t.Context(), spec, simulate.Options{Clock: clock.New(speed)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sim.Close)
		w := &world{T: t, World: sim, targets: map[string]conformance.Target{}, with: map[string]any{}}
		for _, name := range sim.Names() {
			switch kind := sim.Kind(name); kind {
			case "zookeeper":
				w.add(name, kind, map[string]any{"addrs": []any{sim.Addr(name)}})
			case "pika", "codis":
				w.add(name, kind, map[string]any{"addr": sim.Addr(name), "timeout": "2s"})
			}
		}
		w.add("machine", "host", map[string]any{"local": true})
		return w
	}
}

func (w *world) add(name, kind string, config map[string]any) {
	w.Helper()
	all := catalog.Targets()
	i := slices.IndexFunc(all, func(k *steps.TargetDefinition) bool { return k.Name == kind })
	if i < 0 {
		w.Fatalf("there is no kind of target %s", kind)
	}
	w.targets[name] = conformance.Target{Kind: all[i], Config: config}
}

// product is two groups of Pika under Codis, two proxies, and the master of a third group that has no slots.
const product = `
  source: {kind: pika, slots: 0-511, keys: 50}
  source_replica: {kind: pika, slots: 0-511, replica_of: source}
  other: {kind: pika, slots: 512-1023, keys: 50}
  destination: {kind: pika}
  zk: {kind: zookeeper}
  codis:
    kind: codis
    proxies: 2
    groups: {1: [source, source_replica], 2: [other], 3: [destination]}
    slots: {0-511: 1, 512-1023: 2}
`

// theProduct is that product with its proxies as targets, and a relay before the dashboard.
func theProduct(t *testing.T) *world {
	t.Helper()
	w := in(product)(t)
	for i, p := range w.Proxies("codis") {
		w.add(fmt.Sprint("proxy", i), "redis", map[string]any{"addr": p.Addr(), "timeout": "2s"})
	}
	w.relay = &relay{}
	to := &url.URL{Scheme: "http", Host: w.Addr("codis")}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Accept-Encoding") // the words are to be read
		},
		ModifyResponse: w.relay.rewrite,
		Transport:      &http.Transport{DisableKeepAlives: true},
	})
	t.Cleanup(server.Close)
	w.add("relay", "codis", map[string]any{"addr": strings.TrimPrefix(server.URL, "http://"), "product": "demo", "timeout": "2s"})
	return w
}

// relay lets a dashboard say what a simulated one cannot be made to say.
type relay struct {
	words atomic.Pointer[strings.Replacer]
}

func (r *relay) says(pairs ...string) { r.words.Store(strings.NewReplacer(pairs...)) }

func (r *relay) rewrite(answer *http.Response) error {
	words := r.words.Load()
	if words == nil {
		return nil
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	body = []byte(words.Replace(string(body)))
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	answer.Header.Del("Content-Length")
	return nil
}

// as has a server tell another release than it has; empty: its own.
func (w *world) as(name, release string) {
	s := w.Pika(name)
	if release == "" {
		s.SetIntercept(nil)
		return
	}
	s.SetIntercept(func(cmd []string) fault.Action {
		if !strings.EqualFold(cmd[0], "INFO") {
			return fault.Pass()
		}
		text := strings.ReplaceAll(s.Do(cmd...).Str, "pika_version:"+s.Release(), "pika_version:"+release)
		return fault.Garbage(fmt.Sprintf("$%d\r\n%s\r\n", len(text), text))
	})
}

// do is a command of an administrator, which must not fail.
func (w *world) do(name string, args ...string) {
	w.Helper()
	if v := w.Pika(name).Do(args...); v.Error() != nil {
		w.Fatalf("%v on %s: %v", args, name, v.Error())
	}
}

// follow orders slots of one server to follow another, whatever a check would say.
func (w *world) follow(name, master, slots string, more ...string) {
	w.Helper()
	ip, port, _ := strings.Cut(w.Addr(master), ":")
	w.do(name, append([]string{"PKCLUSTER", "SLOTSSLAVEOF", ip, port, slots}, more...)...)
}

func (w *world) detach(name, slots string) {
	w.Helper()
	w.do(name, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", slots)
}

// put changes something at the dashboard as an administrator.
func (w *world) put(path, body string) {
	w.Helper()
	if err := w.Codis("codis").Put("/api/topom/"+path, []byte(body)); err != nil {
		w.Fatal(err)
	}
}

// step is one kind with its inputs, in a world.
type step struct {
	*testing.T
	def *steps.Definition
	in  any
	env *conformance.Env
}

// step has f do something with a step of a kind. pairs are inputs; those of the world win.
func (w *world) step(kind, target string, pairs []any, f func(s step)) {
	w.Helper()
	values := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i].(string)] = pairs[i+1]
	}
	maps.Copy(values, w.with)
	all := catalog.Kinds()
	i := slices.IndexFunc(all, func(d *steps.Definition) bool { return d.Name == kind })
	if i < 0 {
		w.Fatalf("there is no kind %s", kind)
	}
	s := step{T: w.T, def: all[i], env: conformance.NewEnv(conformance.World{Targets: w.targets, Target: target, Wall: true})}
	defer func() { _ = s.env.Close() }()
	s.in = reflect.New(s.def.In).Interface()
	if err := schema.Bind(values, s.in); err != nil {
		w.Fatal(err)
	}
	f(s)
}

// read gives the outputs of a kind that looks.
func (w *world) read(kind, target string, pairs ...any) map[string]any {
	w.Helper()
	var out map[string]any
	w.step(kind, target, pairs, func(s step) {
		got, err := s.def.Read(s.Context(), steps.NewView(s.env), s.in)
		if err != nil {
			s.Fatalf("%s on %s: %v", kind, target, err)
		}
		out = plain(reflect.ValueOf(got)).(map[string]any)
	})
	return out
}

// problems are the names of those that a kind lists.
func (w *world) problems(kind, target, list string, pairs ...any) []string {
	w.Helper()
	var names []string
	for _, p := range w.read(kind, target, pairs...)[list].([]any) {
		of := p.(map[string]any)
		if of["message"] == "" || of["fix"] == "" {
			w.Errorf("%v has no words, or no way out", of)
		}
		names = append(names, of["name"].(string))
	}
	return names
}

// health are the problems of the product, as the relay tells it.
func (w *world) health(pairs ...any) []string {
	w.Helper()
	return w.problems("codis.check-health", "relay", "problems", pairs...)
}

// refused is what a step says before it does anything; nothing: it may go on.
func (w *world) refused(kind, target string, pairs ...any) []string {
	w.Helper()
	var said []string
	w.step(kind, target, pairs, func(s step) {
		if err := s.def.Check(s.Context(), steps.NewView(s.env), s.in); err != nil {
			said = []string{err.Error()}
		}
	})
	return said
}

// fails does a step within a limit and gives its error; nothing: it was done.
func (w *world) fails(kind, target string, limit time.Duration, pairs ...any) []string {
	w.Helper()
	var said []string
	w.step(kind, target, pairs, func(s step) {
		ctx, cancel := context.WithTimeoutCause(s.Context(), limit, errors.New("not within its time"))
		defer cancel()
		v := steps.NewView(s.env)
		change, err := s.def.Plan(ctx, &v, s.in)
		if err == nil {
			s.env.SetBefore(change.Before)
			_, err = s.def.Apply(ctx, steps.NewSession(s.env), s.in)
		}
		if err != nil {
			said = []string{err.Error()}
		}
	})
	return said
}

// until waits for a state; found is what is told when it never comes.
func (w *world) until(what string, holds func() (bool, []string)) {
	w.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		ok, found := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("never: %s; found %q", what, found)
		}
	}
}

// plain gives outputs as an expression sees them: by their keys.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return plain(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if key != "" {
				m[key] = plain(v.Field(i))
			}
		}
		return m
	case reflect.Slice:
		l := make([]any, v.Len())
		for i := range l {
			l[i] = plain(v.Index(i))
		}
		return l
	}
	return v.Interface()
}

// program builds the runner, once, into bin.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(bin, "runner")
	if out, err := exec.Command("go", "build", "-o", path, "runbook/cmd/runner").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the runner: %w\n%s", err, out)
	}
	return path, nil
})

// run is the program with arguments. That it fails is for the caller to judge.
func (w *world) run(args ...string) (out string, ok bool) {
	w.Helper()
	path, err := program()
	if err != nil {
		w.Fatal(err)
	}
	said, err := exec.CommandContext(w.Context(), path, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return string(said), err == nil
}

// exec carries out a shipped runbook, or a part of it, on this world's systems. targets says which system each of the
// runbook's targets is.
func (w *world) exec(book string, targets map[string]string, args ...string) string {
	w.Helper()
	inventory := "targets:\n"
	for name, system := range targets {
		inventory += fmt.Sprintf("  %s: {kind: %s, addr: %q}\n", name, w.Kind(system), w.Addr(system))
	}
	if len(targets) == 0 {
		inventory = "inputs: {}\n"
	}
	dir := w.TempDir()
	file := filepath.Join(dir, "inventory.yaml")
	if err := os.WriteFile(file, []byte(inventory), 0o600); err != nil {
		w.Fatal(err)
	}
	all := append([]string{"exec", "../../runbooks/" + book + ".yaml", "--inventory", file, "--state", filepath.Join(dir, "state")}, args...)
	out, _ := w.run(all...)
	return out
}

var failedStep = regexp.MustCompile(`(?m)^([a-z_]+): failed: `)

// failed are the steps of a part of a shipped runbook that fail.
func (w *world) failed(book string, targets map[string]string, args ...string) []string {
	w.Helper()
	out := w.exec(book, targets, append(args, "--approve", "all")...)
	if !strings.Contains(out, "of "+book) {
		w.Fatalf("%s was not begun: %s", book, out)
	}
	var names []string
	for _, m := range failedStep.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return names
}

// lints is what lint says of a shipped runbook without some of its text.
func (w *world) lints(book, without string) []string {
	w.Helper()
	dir := w.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../runbooks")); err != nil {
		w.Fatal(err)
	}
	file := filepath.Join(dir, book+".yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	if without != "" {
		if !strings.Contains(string(text), without) {
			w.Fatalf("%s does not say %q", book, without)
		}
		text = []byte(strings.ReplaceAll(string(text), without, ""))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	if out, ok := w.run("lint", file); !ok {
		return []string{out}
	}
	return nil
}

// standing is what a step's probe says; nothing: it is done.
func (w *world) standing(kind, target string, pairs ...any) []string {
	w.Helper()
	var said []string
	w.step(kind, target, pairs, func(s step) {
		state, _, err := s.def.Probe(s.Context(), steps.NewView(s.env), s.in)
		if err != nil {
			s.Fatal(err)
		}
		if state != steps.Done {
			said = []string{state.String()}
		}
	})
	return said
}

// keyIn is a key of a slot.
func keyIn(slot int) string {
	for i := 0; ; i++ {
		if tag := fmt.Sprint(i); int(crc32.ChecksumIEEE([]byte(tag))%1024) == slot {
			return "{" + tag + "}key"
		}
	}
}
