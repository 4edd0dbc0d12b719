package host_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

// world is one kind on the runner's machine.
type world struct {
	t   *testing.T
	def *steps.Definition
	env *conformance.Env
	in  any
}

func begin(t *testing.T, name string, with map[string]any) *world {
	t.Helper()
	w := &world{t: t, def: kind(t, name), env: conformance.NewEnv(conformance.World{Wall: true, Targets: map[string]conformance.Target{
		"h": {Kind: host.Target().Define(), Config: map[string]any{"local": true}}}})}
	w.in = reflect.New(w.def.In).Interface()
	t.Cleanup(func() { _ = w.env.Close() })
	if err := schema.Bind(with, w.in); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) problems() []steps.Problem {
	return w.def.Valid(w.in, func(string) bool { return false })
}

func (w *world) read() (any, error) {
	return w.def.Read(w.t.Context(), steps.NewView(w.env), w.in)
}

func (w *world) check() error { return w.def.Check(w.t.Context(), steps.NewView(w.env), w.in) }

// started plans, as the engine does before the act.
func (w *world) started() *world {
	w.t.Helper()
	v := steps.NewView(w.env)
	c, err := w.def.Plan(w.t.Context(), &v, w.in)
	must(w.t, err)
	w.env.SetBefore(c.Before)
	return w
}

func (w *world) apply() error {
	_, err := w.def.Apply(w.t.Context(), steps.NewSession(w.env), w.in)
	return err
}

func (w *world) undo() error {
	return w.def.Undo(w.t.Context(), steps.NewSession(w.env), w.in, nil)
}

func wants(t *testing.T, err error, kind, message string) {
	t.Helper()
	if e := steps.Classify(err); e == nil || e.Kind != kind || !strings.Contains(err.Error(), message) {
		t.Errorf("got %#v (%v), want kind %s with %q", e, err, kind, message)
	}
}

func TestCheckPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	port, free := l.Addr().(*net.TCPAddr).Port, freePort(t)
	_, err = begin(t, "host.check-port", map[string]any{"port": port, "expect": "free"}).read()
	wants(t, err, "conflict", fmt.Sprintf("process %d (", os.Getpid()))
	_, err = begin(t, "host.check-port", map[string]any{"port": free, "expect": "open"}).read()
	wants(t, err, "refused", "nothing listens")
	_, err = begin(t, "host.check-port", map[string]any{"port": free, "expect": "open", "from": "h"}).read()
	wants(t, err, "refused", "from localhost")
	_, err = begin(t, "host.check-port", map[string]any{"port": port, "expect": "free", "from": "h"}).read()
	wants(t, err, "conflict", "accepts a connection")
	for _, from := range []map[string]any{{}, {"from": "h"}} {
		for p, open := range map[int]bool{port: true, free: false} {
			with := map[string]any{"port": p}
			for k, v := range from {
				with[k] = v
			}
			out, err := begin(t, "host.check-port", with).read()
			if v := reflect.ValueOf(out); err != nil || v.FieldByName("Open").Bool() != open || v.FieldByName("Free").Bool() == open {
				t.Errorf("%v: %+v, %v", with, out, err)
			}
		}
	}
}

func TestCheckCommandAndDisk(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "tool")
	must(t, os.WriteFile(tool, []byte("#!/bin/sh\necho \"$1 v3.9.10\"\n"), 0o700))
	for _, tt := range []struct {
		with          map[string]any
		kind, message string
	}{
		{map[string]any{"name": tool, "min_version": "3.9.9"}, "", ""},
		{map[string]any{"name": tool, "min_version": "3.10"}, "version", "3.9.10, and 3.10 or later"},
		{map[string]any{"name": tool, "min_version": "3.10", "optional": true}, "", ""},
		{map[string]any{"name": "sh"}, "", ""},
		{map[string]any{"name": "no-such-command-x"}, "not-found", "not found"},
		{map[string]any{"name": "no-such-command-x", "optional": true}, "", ""},
		{map[string]any{"name": "true", "min_version": "1", "version_args": []any{"x"}}, "version", "told no version"},
	} {
		_, err := begin(t, "host.check-command", tt.with).read()
		if tt.kind == "" {
			if err != nil {
				t.Errorf("%v: %v", tt.with, err)
			}
			continue
		}
		wants(t, err, tt.kind, tt.message)
	}
	_, err := begin(t, "host.check-disk", map[string]any{"path": "/tmp", "min_free": 1 << 60}).read()
	wants(t, err, "disk", "1.0 EiB are needed")
}

func TestFileRefuses(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	for message, with := range map[string]map[string]any{
		"absolute path":        {"path": "f", "content": "x"},
		"content or template":  {"path": name},
		"not both":             {"path": name, "content": "x", "template": "y"},
		"no value for b":       {"path": name, "template": "{{a}} {{b}}", "values": map[string]any{"a": 1}},
		"is no {{name}}":       {"path": name, "template": "{{a.b}}"},
		"does not use {{c}}":   {"path": name, "template": "{{a}}", "values": map[string]any{"a": 1, "c": 1}},
		"would be the file it": {"path": name, "content": "x", "backup": name},
	} {
		if p := begin(t, "host.file", with).problems(); len(p) != 1 || !strings.Contains(p[0].Message, message) {
			t.Errorf("%v: %v, want %q", with, p, message)
		}
	}
	wants(t, begin(t, "host.file", map[string]any{"path": dir + "/no/f", "content": "x"}).check(), "precondition", "is not there")
	must(t, os.WriteFile(name, make([]byte, 1<<20+1), 0o600))
	wants(t, begin(t, "host.file", map[string]any{"path": name, "content": "x"}).check(), "precondition", "too large")
	must(t, os.WriteFile(dir+"/backup", []byte("other"), 0o600))
	wants(t, begin(t, "host.file", map[string]any{"path": name, "content": "x", "backup": dir + "/backup"}).check(), "precondition", "holds something else")
}

func TestFileUndoLeavesOthersAlone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(name, []byte("old"), 0o600))
	w := begin(t, "host.file", map[string]any{"path": name, "content": "new"}).started()
	must(t, w.apply())
	must(t, os.WriteFile(name, []byte("theirs"), 0o600))
	wants(t, w.undo(), "conflict", "somebody changed it since")
	if b, _ := os.ReadFile(name); string(b) != "theirs" {
		t.Errorf("%q", b)
	}
}

func TestRemovePathRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir+"/home/me")
	for _, d := range []string{"/home/me/x", "/data/db", "/elsewhere/db"} {
		must(t, os.MkdirAll(dir+d, 0o700))
	}
	must(t, os.Symlink(dir+"/elsewhere", dir+"/data/link"))
	must(t, os.WriteFile(dir+"/pid", fmt.Append(nil, os.Getpid(), "\n"), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	for _, tt := range []struct {
		with    map[string]any
		message string
	}{
		{map[string]any{"path": "/", "within": "/"}, "everything lies within /"},
		{map[string]any{"path": "/tmp", "within": "/"}, "everything lies within /"},
		{map[string]any{"path": dir + "/data/../elsewhere", "within": dir + "/data"}, "must not contain .."},
		{map[string]any{"path": dir + "/data", "within": dir + "/data"}, "does not lie below"},
		{map[string]any{"path": dir + "/database", "within": dir + "/data"}, "does not lie below"},
		{map[string]any{"path": "data/db", "within": "data"}, "absolute path"},
		{map[string]any{"path": dir + "/data/link", "within": dir + "/data"}, "symbolic link"},
		{map[string]any{"path": dir + "/data/link/db", "within": dir + "/data"}, "it is really"},
		{map[string]any{"path": dir + "/home", "within": dir}, "home directory"},
		{map[string]any{"path": dir + "/home/me", "within": dir}, "home directory"},
		{map[string]any{"path": "/proc", "within": "/proc/.."}, "must not contain .."},
		{map[string]any{"path": dir + "/data/db", "within": dir + "/data", "expect_stopped": map[string]any{"pidfile": dir + "/pid"}}, "is alive"},
		{map[string]any{"path": dir + "/data/db", "within": dir + "/data", "expect_stopped": map[string]any{"port": l.Addr().(*net.TCPAddr).Port}}, "still open"},
	} {
		w := begin(t, "host.remove-path", tt.with)
		wants(t, w.check(), "precondition", tt.message)
		wants(t, w.apply(), "precondition", tt.message) // the act looks again by itself
	}
	for _, d := range []string{"/home/me/x", "/data/db", "/elsewhere/db"} {
		if _, err := os.Stat(dir + d); err != nil {
			t.Error(err)
		}
	}
	must(t, begin(t, "host.remove-path", map[string]any{"path": dir + "/data/gone", "within": dir + "/data"}).apply())
}

// mounted is a machine that has a mount point where a test wants one.
type mounted struct {
	host.Machine
	at string
}

func (m mounted) Facts(ctx context.Context) (host.Facts, error) {
	f, err := m.Machine.Facts(ctx)
	f.Mounts = append(f.Mounts, m.at)
	return f, err
}

func TestRemovePathRefusesMounts(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/data/disk", 0o700))
	target := host.Target()
	target.Open = func(context.Context, host.Config, steps.Access) (host.Machine, error) {
		return mounted{host.Local(), dir + "/data/disk"}, nil
	}
	for _, path := range []string{"/data", "/data/disk"} {
		w := begin(t, "host.remove-path", map[string]any{"path": dir + path, "within": dir})
		w.env = conformance.NewEnv(conformance.World{Targets: map[string]conformance.Target{"h": {Kind: target.Define()}}})
		wants(t, w.check(), "precondition", "is a mount point")
	}
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	with := func(more map[string]any) map[string]any {
		w := map[string]any{"command": []any{"sleep", "1002"}, "pidfile": dir + "/pid"}
		for k, v := range more {
			w[k] = v
		}
		return w
	}
	t.Cleanup(func() { killPidfile(dir + "/pid") })

	// A number that was given to another process is not the command's.
	must(t, os.WriteFile(dir+"/pid", fmt.Append(nil, os.Getpid(), "\n"), 0o600))
	w := begin(t, "host.process", with(nil)).started()
	if state, _, err := w.def.Probe(t.Context(), steps.NewView(w.env), w.in); err != nil || state != steps.Untouched {
		t.Errorf("%s, %v", state, err)
	}

	// A resume after the stop and before the start does not stop the new one.
	w = begin(t, "host.process", with(nil)).started()
	must(t, w.apply())
	w = begin(t, "host.process", with(map[string]any{"state": "restarted"})).started()
	must(t, w.apply())
	first, _ := os.ReadFile(dir + "/pid")
	must(t, w.apply())
	if again, _ := os.ReadFile(dir + "/pid"); string(again) != string(first) {
		t.Errorf("restarted twice: %s, then %s", first, again)
	}

	// What is not ready although the process ended is told at once.
	other := begin(t, "host.process", map[string]any{"command": []any{"sh", "-c", "exit 3"}, "pidfile": dir + "/pid2", "ready": map[string]any{"addr": fmt.Sprintf("127.0.0.1:%d", freePort(t))}})
	if err := other.started().apply(); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Error(err)
	}

	// Nobody starts beside one who has the address.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	beside := begin(t, "host.process", map[string]any{"command": []any{"sleep", "1003"}, "pidfile": dir + "/pid3", "ready": map[string]any{"addr": l.Addr().String()}})
	wants(t, beside.check(), "precondition", "somebody else answers")

	// One that goes into the background by itself, and writes its pidfile in its own time.
	daemon, pipe := filepath.Join(dir, "daemon"), filepath.Join(dir, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(daemon, []byte("#!/bin/sh\n[ \"$1\" != stay ] || read -r x <"+pipe+"\n\"$0\" stay >/dev/null 2>&1 &\necho $! >"+dir+"/pid4\n"), 0o700))
	t.Cleanup(func() { killPidfile(dir + "/pid4") })
	d := begin(t, "host.process", map[string]any{"command": []any{daemon}, "pidfile": dir + "/pid4", "daemonizes": true}).started()
	must(t, d.check())
	must(t, d.apply())
	state, out, err := d.def.Probe(t.Context(), steps.NewView(d.env), d.in)
	if err != nil || state != steps.Done || !reflect.ValueOf(out).FieldByName("Running").Bool() {
		t.Errorf("%s, %+v, %v", state, out, err)
	}
	must(t, d.undo())
	if state, _, _ := d.def.Probe(t.Context(), steps.NewView(d.env), d.in); state != steps.Untouched {
		t.Errorf("after the undo: %s", state)
	}
}
