package pika

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

func TestPorts(t *testing.T) {
	for text, want := range map[string]string{
		"2.3.6": "10221 binlog, 11221 heartbeat, 10321 hub, 12221 rsync", "2.2.0": "10221 binlog, 11221 heartbeat, 12221 rsync",
		"3.4.0": "11221 binlog, 10221 rsync", "3.5.0": "11221 binlog, 19222 rsync2, 10221 rsync",
	} {
		var got []string
		for _, p := range portsOf(release(t, text), 9221).all() {
			got = append(got, fmt.Sprint(p.port, " ", p.what))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %s, wanted %s", text, strings.Join(got, ", "), want)
		}
	}
}

// listen holds a port, and says what an rsync daemon does where greeting is given.
func listen(t *testing.T, port int, greeting string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(greeting))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// An instance that is not up is judged by its declared release; a port that anybody holds is busy then.
func TestCheckRsyncPortOfOneThatIsDown(t *testing.T) {
	withRsync(t)
	port := freePort(t)
	s := &server{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	w := onHost(world(s, nil, nil, nil))
	w.Targets["own"].Config["release"] = "3.4.0"
	e := conformance.NewEnv(w)
	defer func() { _ = e.Close() }()
	ask := func(in checkRsyncIn) checkRsyncOut {
		t.Helper()
		out, err := readCheckRsync(t.Context(), steps.NewView(e), in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, in := range []checkRsyncIn{{}, {Host: "machine"}} {
		out := ask(in)
		if out.RsyncPort != port+1000 || out.BinlogPort != port+2000 || out.HeartbeatPort != nil || out.RsyncFree == nil || !*out.RsyncFree || out.Free == nil || !*out.Free || len(out.Busy) != 0 {
			t.Errorf("nothing listens: %+v", out)
		}
		if (in.Host == "") != (out.RsyncInstalled == nil) || out.RsyncInstalled != nil && !*out.RsyncInstalled {
			t.Errorf("rsync installed: %v", out.RsyncInstalled)
		}
	}
	listen(t, port+1000, "220 something else\r\n")
	for _, in := range []checkRsyncIn{{}, {Host: "machine"}} {
		out := ask(in)
		if *out.RsyncFree || *out.Free || len(out.Busy) != 1 || out.Busy[0].Port != port+1000 || out.Busy[0].Purpose != "rsync" || (in.Host != "") != (out.Busy[0].Process != "") {
			t.Errorf("another holds the port: %+v", out)
		}
	}
	delete(w.Targets["own"].Config, "release")
	bare := conformance.NewEnv(w)
	defer func() { _ = bare.Close() }()
	if _, err := readCheckRsync(t.Context(), steps.NewView(bare), checkRsyncIn{}); !isKind(err, "refused") {
		t.Errorf("down, and of no known release: %v", err)
	}
}

// The daemon of an instance that is up is its own, and is a proof that rsync is there.
func TestCheckRsyncPortOfOneThatIsUp(t *testing.T) {
	s := started(t)
	out, err := readCheckRsync(t.Context(), looking(t, s, nil), checkRsyncIn{})
	if err != nil || out.RsyncFree == nil || !*out.RsyncFree || out.RsyncInstalled == nil || !*out.RsyncInstalled || !*out.Free || len(out.Busy) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// started starts this program as a server, by create-instance.
func started(t *testing.T) *server {
	t.Helper()
	w := createWorld(t)
	s := &server{addr: w.Targets["own"].Config["addr"].(string), pass: password}
	k := createInstance()
	e := conformance.NewEnv(w)
	t.Cleanup(func() { _ = e.Close() })
	var in createIn
	if err := schema.Bind(w.With, &in); err != nil {
		t.Fatal(err)
	}
	begin(t, k, in, e).apply()
	return s
}

func TestCreateInstanceRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, in *createIn, port int)
		want  []string
	}{
		{"the rsync port is taken", func(t *testing.T, _ *createIn, port int) { listen(t, port+1000, "") }, []string{"(rsync)", "is taken by process"}},
		{"the replication port is taken", func(t *testing.T, _ *createIn, port int) { listen(t, port+2000, "") }, []string{"(binlog)", "is taken"}},
		{"there is no program", func(_ *testing.T, in *createIn, _ int) { in.Binary = "/nowhere/pika" }, []string{"there is no /nowhere/pika"}},
		{"there is no rsync", func(t *testing.T, _ *createIn, _ int) { t.Setenv("PATH", t.TempDir()) }, []string{"there is no rsync"}},
		{"the directory holds data", func(t *testing.T, in *createIn, _ int) {
			if err := os.MkdirAll(filepath.Join(in.Dir, "db", "db0"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{"holds data", "reuse_data"}},
		{"the disk is too small", func(_ *testing.T, in *createIn, _ int) {
			in.Slots, in.Config["write-buffer-size"] = 1<<20, 256<<20
		}, []string{"MB free", "slots"}},
		{"too few files may be open", func(_ *testing.T, in *createIn, _ int) {
			in.Slots, in.Config["write-buffer-size"] = 1<<31, -20<<20
		}, []string{"open", "files at most"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := createWorld(t)
			var in createIn
			if err := schema.Bind(w.With, &in); err != nil {
				t.Fatal(err)
			}
			_, p, _ := net.SplitHostPort(w.Targets["own"].Config["addr"].(string))
			port, _ := strconv.Atoi(p)
			c.spoil(t, &in, port)
			e := conformance.NewEnv(w)
			defer func() { _ = e.Close() }()
			refused(t, checkCreate(t.Context(), steps.NewView(e), in), c.want...)
			if _, err := os.Stat(filepath.Join(in.Dir, confFile)); err == nil {
				t.Error("something was written")
			}
		})
	}
}

// A server that ends at its start is told with its last words, not waited for.
func TestCreateInstanceTellsWhyItEnded(t *testing.T) {
	w := createWorld(t)
	var in createIn
	if err := schema.Bind(w.With, &in); err != nil {
		t.Fatal(err)
	}
	in.Config["default-slot-num"] = "none"
	e := conformance.NewEnv(w)
	defer func() { _ = e.Close() }()
	_, err := applyCreate(t.Context(), steps.NewSession(e), in)
	if !isKind(err, "exit", "start") || steps.Classify(err).Unknown || !strings.Contains(err.Error(), "invalid syntax") {
		t.Errorf("%v", err)
	}
}

// Undo ends the rsync daemon too, which a server leaves behind.
func TestCreateInstanceUndoEndsTheDaemon(t *testing.T) {
	w := createWorld(t)
	var in createIn
	if err := schema.Bind(w.With, &in); err != nil {
		t.Fatal(err)
	}
	e := conformance.NewEnv(w)
	defer func() { _ = e.Close() }()
	s := begin(t, createInstance(), in, e)
	s.apply()
	m := host.Local()
	d, err := m.Start(t.Context(), host.Spawn{Argv: []string{"/bin/sh", "-c", "sleep 600; : rsync --daemon", in.Dir + "/dbsync"}, Detach: host.DetachSetsid})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Signal(context.Background(), d, "KILL", true) })
	pid := in.file("dbsync/rsync/slash_rsync.pid")
	if err := os.MkdirAll(filepath.Dir(pid), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pid, []byte(strconv.Itoa(d.PID)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.undo(); err != nil {
		t.Errorf("undo: %v", err)
	}
	if _, err := m.Process(t.Context(), d.PID); err == nil {
		t.Error("the daemon lives")
	}
	if _, err := os.Stat(in.file(confFile)); err != nil {
		t.Errorf("the directory is kept: %v", err)
	}
}

func TestConfLine(t *testing.T) {
	for value, want := range map[any]string{true: "x : yes", 7: "x : 7", "a b": "x : a b", "": "x :", schema.Size(64 << 20): "x : 67108864"} {
		if got, err := confLine("x", value); err != nil || got != want {
			t.Errorf("%v: %q, %v", value, got, err)
		}
	}
	for name, value := range map[string]any{"a b": 1, "a:b": 1, "x": "two\nlines", "y": []any{1}} {
		if got, err := confLine(name, value); err == nil {
			t.Errorf("%s %v is taken: %q", name, value, got)
		}
	}
}
