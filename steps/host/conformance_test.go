package host_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
	"runbook/steps/host/hosttest"
)

// over runs a test of a kind on this machine with faults, and on it through SSH.
func over(t *testing.T, name string, f func(t *testing.T) conformance.World) {
	locally(t, name, "", f)
	remotely(t, name, "", f)
}

func locally(t *testing.T, name, undoKeeps string, f func(t *testing.T) conformance.World) {
	def := kind(t, name)
	t.Run("local", func(t *testing.T) {
		conformance.Run(t, def, conformance.Fixture{UndoKeeps: undoKeeps, New: func(t *testing.T) conformance.World {
			w, faults := f(t), &hosttest.Faults{}
			w.Targets = map[string]conformance.Target{"h": {Kind: faults.Target(), Config: map[string]any{"local": true}}}
			w.Target, w.Wall = "h", true
			if def.Effect != steps.Read {
				w.Intercept, w.Writes = faults.Intercept, faults.Writes
			}
			return w
		}})
	})
}

func remotely(t *testing.T, name, undoKeeps string, f func(t *testing.T) conformance.World) {
	def := kind(t, name)
	t.Run("ssh", func(t *testing.T) {
		s := hosttest.Start(t)
		conformance.Run(t, def, conformance.Fixture{UndoKeeps: undoKeeps, New: func(t *testing.T) conformance.World {
			w := f(t)
			w.Targets = map[string]conformance.Target{"h": {Kind: host.Target().Define(), Config: config(s)}}
			w.Target, w.Wall = "h", true
			return w
		}})
	})
}

func config(s *hosttest.SSHD) map[string]any {
	return map[string]any{"addr": s.Config.Addr, "user": s.Config.User, "identity": s.Config.Identity, "known_hosts": s.Config.KnownHosts}
}

func kind(t *testing.T, name string) *steps.Definition {
	t.Helper()
	for _, d := range host.Kinds() {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

func TestCheckPortConforms(t *testing.T) {
	over(t, "host.check-port", func(t *testing.T) conformance.World {
		return conformance.World{With: map[string]any{"port": freePort(t), "expect": "free"}, Snapshot: nothing}
	})
}

func nothing() string { return "" }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestCheckCommandConforms(t *testing.T) {
	over(t, "host.check-command", func(*testing.T) conformance.World {
		return conformance.World{With: map[string]any{"name": "stat", "min_version": "1.0"}, Snapshot: nothing}
	})
}

func TestCheckDiskConforms(t *testing.T) {
	over(t, "host.check-disk", func(*testing.T) conformance.World {
		return conformance.World{With: map[string]any{"path": "/tmp/not/there", "min_free": 1}, Snapshot: nothing}
	})
}

func TestFileConforms(t *testing.T) {
	for _, backup := range []bool{false, true} {
		for _, old := range []string{"", "old\n"} {
			t.Run(fmt.Sprintf("backup %v, old %q", backup, old), func(t *testing.T) {
				world := func(t *testing.T) conformance.World {
					dir := t.TempDir()
					name := filepath.Join(dir, "f")
					if old != "" {
						must(t, os.WriteFile(name, []byte(old), 0o640))
					}
					with := map[string]any{"path": name, "template": "pass {{ pass }}\nslots {{slots}}\n", "values": map[string]any{"pass": "s3cr3t", "slots": []any{1, 2}}, "mode": "0600"}
					if backup {
						with["backup"] = filepath.Join(dir, "backup")
					}
					return conformance.World{With: with, Secrets: []string{"s3cr3t"}, Snapshot: func() string {
						b, err := os.ReadFile(name)
						if err != nil {
							return "absent"
						}
						i, err := os.Stat(name)
						must(t, err)
						return fmt.Sprintf("%q %s", b, i.Mode())
					}}
				}
				locally(t, "host.file", "", world)
				if !backup && old != "" { // each command over SSH takes its time: one case there
					remotely(t, "host.file", "", world)
				}
			})
		}
	}
}

func TestRemovePathConforms(t *testing.T) {
	locally(t, "host.remove-path", "", func(t *testing.T) conformance.World {
		dir := t.TempDir()
		must(t, os.MkdirAll(dir+"/db/x", 0o700))
		must(t, os.WriteFile(dir+"/db/x/f", nil, 0o600))
		must(t, os.WriteFile(dir+"/pid", []byte("\n"), 0o600))
		return conformance.World{
			With: map[string]any{"path": dir + "/db", "within": dir, "expect_stopped": map[string]any{"port": freePort(t), "pidfile": dir + "/pid"}},
			Snapshot: func() string {
				_, err := os.Stat(dir + "/db/x/f")
				return fmt.Sprint(err == nil)
			},
		}
	})
}

func TestProcessConforms(t *testing.T) {
	for _, state := range []string{"running", "stopped", "restarted"} {
		t.Run(state, func(t *testing.T) {
			keeps := ""
			if state == "restarted" {
				keeps = "the old process is gone; another runs in its place, as before"
			}
			world := func(t *testing.T) conformance.World {
				dir := t.TempDir()
				pidfile := filepath.Join(dir, "pid")
				m := host.Local()
				t.Cleanup(func() { killPidfile(pidfile) })
				first := host.Process{}
				if state != "running" {
					p, err := m.Start(t.Context(), host.Spawn{Argv: []string{"sleep", "1001"}, Detach: host.DetachSetsid, PIDFile: pidfile})
					must(t, err)
					first = p
					eventually(t, func() bool {
						p, err := m.Process(t.Context(), first.PID)
						return err == nil && len(p.Argv) > 0 && p.Argv[0] == "sleep"
					})
				}
				return conformance.World{
					With: map[string]any{"command": []any{"sleep", "1001"}, "pidfile": pidfile, "state": state,
						"env": map[string]any{"TOKEN": "s3cr3t"}, "stop_timeout": "10s"},
					Secrets: []string{"s3cr3t"},
					Snapshot: func() string {
						b, _ := os.ReadFile(pidfile)
						pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
						if p, err := m.Process(context.Background(), pid); err == nil {
							return fmt.Sprintf("running %v", state != "restarted" || p.ID != first.ID)
						}
						return "stopped"
					},
				}
			}
			locally(t, "host.process", keeps, world)
			if state == "running" {
				remotely(t, "host.process", keeps, world)
			}
		})
	}
}

func killPidfile(name string) {
	b, _ := os.ReadFile(name)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// The examples' inputs can be bound and are valid.
func TestExamples(t *testing.T) {
	for _, d := range host.Kinds() {
		book, findings := schema.Parse("example.yaml", []byte("version: 1\nname: example\nsteps:\n  - "+d.Example+"\n"))
		if schema.Failed(findings) || len(book.Steps) != 1 {
			t.Errorf("%s: %v", d.Name, findings)
		}
	}
}
