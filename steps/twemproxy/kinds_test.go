package twemproxy

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

// step is one kind in one world, begun: planned, and ready to act.
type step struct {
	t   *testing.T
	def *steps.Definition
	env *conformance.Env
	in  any
}

func begun(t *testing.T, name string, w conformance.World) *step {
	t.Helper()
	d := kind(t, name)
	s := &step{t: t, def: d, env: conformance.NewEnv(w), in: reflect.New(d.In).Interface()}
	t.Cleanup(func() { _ = s.env.Close() })
	if err := schema.Bind(w.With, s.in); err != nil {
		t.Fatal(err)
	}
	if d.HasPlan {
		v := steps.NewView(s.env)
		change, err := d.Plan(t.Context(), &v, s.in)
		if err != nil {
			t.Fatal(err)
		}
		s.env.SetBefore(change.Before)
	}
	return s
}

func (s *step) check() error { return s.def.Check(s.t.Context(), steps.NewView(s.env), s.in) }

func (s *step) apply() (any, error) {
	return s.def.Apply(s.t.Context(), steps.NewSession(s.env), s.in)
}

func (s *step) undo() error {
	return s.def.Undo(s.t.Context(), steps.NewSession(s.env), s.in, nil)
}

func (s *step) plan() steps.Change {
	s.t.Helper()
	v := steps.NewView(s.env)
	change, err := s.def.Plan(s.t.Context(), &v, s.in)
	if err != nil {
		s.t.Fatal(err)
	}
	return change
}

// here is a site without a proxy, for what is about its file alone.
func here(t *testing.T, owners ...string) *site {
	t.Helper()
	s := newSite(t)
	s.program, s.machine = "nutcracker", newSimulated(t)
	s.write(owners...)
	return s
}

func checked(t *testing.T, s *site, with map[string]any) checkConfigOut {
	t.Helper()
	k := begun(t, "twemproxy.check-config", s.world(with, s.text))
	out, err := k.def.Read(t.Context(), steps.NewView(k.env), k.in)
	if err != nil {
		t.Fatal(err)
	}
	return out.(checkConfigOut)
}

// TestCheckConfig breaks the file in each way that matters, sees it named with its fix, and sees it pass when that is done.
func TestCheckConfig(t *testing.T) {
	owners := []any{"10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221"}
	with := map[string]any{"pool": "alpha", "slot_num": 4, "servers": owners}
	s := here(t, "10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221")
	good := s.text()
	if out := checked(t, s, with); len(out.Problems) != 0 || len(out.Servers) != 4 {
		t.Fatalf("as it must be: %+v", out)
	}
	for _, c := range []struct{ name, old, broken, fix string }{
		{"hash", "hash: crc32a", "hash: fnv1a_64", "hash: crc32a"},
		{"hash", "  hash: crc32a\n", "", "hash: crc32a"},
		{"distribution", "modula", "ketama", "distribution: modula"},
		{"auto-eject", "auto_eject_hosts: false", "auto_eject_hosts: true", "auto_eject_hosts: false"},
		{"hash-tag", `  hash_tag: "{}"` + "\n", "", `hash_tag: "{}"`},
		{"hash-tag", `"{}"`, `"[]"`, `hash_tag: "{}"`},
		{"redis", "redis: true", "redis: false", "redis: true"},
		{"weight", "10.0.0.2:9221:1 server4", "10.0.0.2:9221:2 server4", "10.0.0.2:9221:1 server4"},
		{"server-order", "server1 ", "server10 ", "server1, server2"},
		{"server-count", "   - 10.0.0.2:9221:1 server4   # slot 3\n", "", "one line for each slot"},
		{"server-owner", "10.0.0.2:9221:1 server3", "10.0.0.1:9221:1 server3", "twemproxy.set-servers"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("%q is not there", c.old)
		}
		s.writeText(strings.Replace(good, c.old, c.broken, 1))
		out := checked(t, s, with)
		i := slices.IndexFunc(out.Problems, func(p problem) bool { return p.Name == c.name })
		if i < 0 || !strings.Contains(out.Problems[i].Fix, c.fix) || !strings.Contains(out.Problems[i].Message, "pool alpha") {
			t.Errorf("%s: %+v", c.name, out.Problems)
		}
		s.writeText(good)
		if out := checked(t, s, with); len(out.Problems) != 0 {
			t.Errorf("%s, repaired: %+v", c.name, out.Problems)
		}
	}
}

func TestSetServersPlan(t *testing.T) {
	s := here(t, "10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221")
	k := begun(t, "twemproxy.set-servers", s.world(map[string]any{"slots": "0-2", "to": "10.0.0.3:9221"}, s.text))
	var lines []string
	for _, l := range k.plan().Lines {
		lines = append(lines, l.String())
	}
	want := "proxy: " + s.config() + ": pool alpha: slots 0-1 (10.0.0.1:9221 → 10.0.0.3:9221)\nproxy: " + s.config() + ": pool alpha: slots 2 (10.0.0.2:9221 → 10.0.0.3:9221)"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
	out, err := k.apply()
	if err != nil {
		t.Fatal(err)
	}
	if o := out.(setServersOut); strings.Join(o.Before, " ") != "10.0.0.1:9221 10.0.0.1:9221 10.0.0.2:9221 10.0.0.2:9221" || o.Servers[2] != "10.0.0.3:9221" {
		t.Errorf("%+v", o)
	}
	if i, err := os.Stat(s.config()); err != nil || i.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode: %v, %v", i.Mode(), err)
	}
	k = begun(t, "twemproxy.set-servers", s.world(map[string]any{"servers": []any{"10.0.0.3:9221"}}, s.text))
	k.in.(*setServersIn).Servers, k.in.(*setServersIn).Slots, k.in.(*setServersIn).To = nil, schema.Slots{4}, "10.0.0.3:9221"
	fails(t, k.check(), "precondition", "slots 0 to 3")
}

func TestSetServersKeepsWhatOthersWrote(t *testing.T) {
	s := here(t, "10.0.0.1:9221", "10.0.0.2:9221")
	with := map[string]any{"slots": "0", "to": "10.0.0.3:9221"}
	k := begun(t, "twemproxy.set-servers", s.world(with, s.text))
	s.write("10.0.0.1:9221", "10.0.0.9:9221")
	_, err := k.apply()
	fails(t, err, "conflict", "somebody has changed them")
	k = begun(t, "twemproxy.set-servers", s.world(with, s.text))
	if _, err := k.apply(); err != nil {
		t.Fatal(err)
	}
	s.write("10.0.0.3:9221", "10.0.0.8:9221")
	fails(t, k.undo(), "conflict", "10.0.0.8:9221:1 server2")
}

// TestMoveSlots moves two slots of a running proxy and moves them back, as a rollback does: the restart first.
func TestMoveSlots(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			s := b.site(t)
			x, y := s.realServer("x"), s.realServer("y")
			s.write(x, x, x, x)
			original := s.text()
			s.start()
			move := begun(t, "twemproxy.set-servers", s.world(map[string]any{"slots": "1-2", "to": y}, s.text))
			out, err := move.apply()
			if err != nil {
				t.Fatal(err)
			}
			if got := s.routes(); got != "x x x x" {
				t.Errorf("before the restart: %s", got)
			}
			before := out.(setServersOut).Before
			again := begun(t, "twemproxy.restart", s.world(map[string]any{"max_pause": 10 * time.Second, "before": []any{before[0], before[1], before[2], before[3]}}, s.routes))
			if err := again.check(); err != nil {
				t.Fatal(err)
			}
			out, err = again.apply()
			if err != nil {
				t.Fatal(err)
			}
			if o := out.(restartOut); o.Pause == nil || *o.Pause <= 0 || o.PID == 0 {
				t.Errorf("%+v", o)
			} else {
				t.Logf("clients had no proxy for %s", *o.Pause)
			}
			if got := s.routes(); got != "x y y x" {
				t.Errorf("after the restart: %s", got)
			}
			for _, undo := range []func() error{again.undo, move.undo, again.undo, move.undo} {
				if err := undo(); err != nil {
					t.Error(err)
				}
			}
			if got := s.routes(); got != "x x x x" {
				t.Errorf("after the rollback: %s", got)
			}
			if s.text() != original {
				t.Errorf("the file after the rollback:\n%s", s.text())
			}
		})
	}
}

// TestRestartLeavesARunningProxyAlone: what nutcracker itself refuses is refused before anything is stopped.
func TestRestartLeavesARunningProxyAlone(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			s := b.site(t)
			x := s.server("x")
			s.write(x, x, x, x)
			s.start()
			s.writeText(strings.Replace(s.text(), "hash: crc32a", "hash: sha1", 1))
			k := begun(t, "twemproxy.restart", s.world(map[string]any{"max_pause": 5 * time.Second}, s.routes))
			_, err := k.apply()
			fails(t, err, "precondition", "nutcracker.yml' syntax is invalid")
			if got := s.routes(); got != "x x x x" {
				t.Errorf("clients: %s", got)
			}
			if err := k.undo(); err != nil {
				t.Errorf("nothing was restarted: %v", err)
			}
		})
	}
}

// TestRestartOntoATakenPort: nutcracker -t and -d both say that all is well; only the new process shows that it is not.
func TestRestartOntoATakenPort(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			s := b.site(t)
			x := s.server("x")
			s.write(x, x, x, x)
			s.start()
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = taken.Close() }()
			argv := s.argv()
			_, port, _ := net.SplitHostPort(taken.Addr().String())
			argv[slices.Index(argv, "-s")+1] = port
			command := make([]any, len(argv))
			for i, a := range argv {
				command[i] = a
			}
			k := begun(t, "twemproxy.restart", s.world(map[string]any{"max_pause": 300 * time.Millisecond, "command": command, "before": []any{x, x, x, x}}, s.routes))
			_, err = k.apply()
			fails(t, err, "timeout", "the new process is gone")
			fails(t, err, "timeout", "ddress already in use")
			if e := steps.Classify(err); !e.Unknown {
				t.Error("a proxy that comes up late would not be noticed")
			}
			if state, _, err := k.def.Probe(t.Context(), steps.NewView(k.env), k.in); state != steps.Partial || err != nil {
				t.Errorf("probe: %s, %v", state, err)
			}
			_ = taken.Close()
			if err := k.undo(); err != nil {
				t.Error(err)
			}
			if got := s.routes(); got != "x x x x" {
				t.Errorf("after the undo: %s", got)
			}
		})
	}
}

func TestRestartRefuses(t *testing.T) {
	s := here(t, "127.0.0.1:1", "127.0.0.1:1")
	s.start()
	with := map[string]any{"max_pause": time.Second}
	w := s.world(with, s.text)
	w.Targets["proxy"].Config["config"] = filepath.Join(s.dir, "another.yml")
	if err := os.WriteFile(filepath.Join(s.dir, "another.yml"), []byte(s.text()), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, begun(t, "twemproxy.restart", w).check(), "precondition", "its command has -c "+s.config())
	w = s.world(with, s.text)
	w.Targets["proxy"].Config["pidfile"] = filepath.Join(s.dir, "no.pid")
	k := begun(t, "twemproxy.restart", w)
	fails(t, k.check(), "precondition", "something answers on "+s.addr+" already")
	k = begun(t, "twemproxy.restart", s.world(with, s.text))
	if _, err := k.apply(); err != nil {
		t.Fatal(err)
	}
	fails(t, k.undo(), "precondition", "before: the owners")
}

// TestRestartOfAStoppedProxy starts it, and stops it again in the undo; one that stays in the foreground too.
func TestRestartOfAStoppedProxy(t *testing.T) {
	s := newSite(t)
	s.program = needNutcracker(t)
	x := s.server("x")
	s.write(x, x, x, x)
	var command []any
	for _, a := range s.argv() {
		if a != "-d" {
			command = append(command, a)
		}
	}
	w := s.world(map[string]any{"max_pause": 10 * time.Second, "command": command}, s.routes)
	w.Targets["machine"] = conformance.Target{Kind: host.Target().Define(), Config: map[string]any{"local": true}}
	k := begun(t, "twemproxy.restart", w)
	if err := k.check(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.apply(); err != nil {
		t.Fatal(err)
	}
	if got := s.routes(); got != "x x x x" {
		t.Errorf("started: %s", got)
	}
	for range 2 {
		if err := k.undo(); err != nil {
			t.Error(err)
		}
		if got := s.routes(); got != "down" {
			t.Errorf("stopped again: %s", got)
		}
	}
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]string{
		"nutcracker -d":                    "/default",
		"nutcracker -c /a -d":              "/a",
		"nutcracker -d -c/a":               "/a",
		"nutcracker --conf-file=/a":        "/a",
		"nutcracker --conf-file /a -c /b":  "/b",
		"/usr/sbin/nutcracker -o /c -c /a": "/a",
	} {
		if got := option(strings.Fields(line), "-c", "--conf-file", "/default"); got != want {
			t.Errorf("%s: %s, wanted %s", line, got, want)
		}
	}
}

func TestStats(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			s := b.site(t)
			x, y := s.server("x"), s.server("y")
			s.write(x, y, x, y)
			s.start()
			if got := s.routes(); got != "x y x y" {
				t.Fatal(got)
			}
			read := func(pool string) (statsOut, error) {
				k := begun(t, "twemproxy.stats", s.world(map[string]any{"pool": pool}, s.text))
				out, err := k.def.Read(t.Context(), steps.NewView(k.env), k.in)
				return out.(statsOut), err
			}
			eventually(t, "four requests are counted", func() bool {
				out, err := read("alpha")
				if err != nil {
					t.Fatal(err)
				}
				return out.Requests == 4
			})
			out, err := read("alpha")
			if err != nil {
				t.Fatal(err)
			}
			if out.Version != "0.5.0" || out.Errors != 0 || len(out.Pools) != 1 || len(out.Pools[0].Servers) != 4 || out.Pools[0].Servers[3].Name != "server4" || out.Pools[0].Servers[3].Responses != 1 {
				t.Errorf("%+v", out)
			}
			_, err = read("gamma")
			fails(t, err, "precondition", "without a pool gamma")
		})
	}
}
