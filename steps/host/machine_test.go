package host_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/steps"
	"runbook/steps/host"
	"runbook/steps/host/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eachMachine runs a test on this machine directly, and on the same one through SSH.
func eachMachine(t *testing.T, test func(t *testing.T, m host.Machine)) {
	t.Run("local", func(t *testing.T) {
		m := host.Local()
		t.Cleanup(func() { closeMachine(t, m) })
		test(t, m)
	})
	t.Run("ssh", func(t *testing.T) {
		m, err := host.DialSSH(t.Context(), hosttest.Start(t).Config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeMachine(t, m) })
		test(t, m)
	})
}

func closeMachine(t *testing.T, m host.Machine) {
	t.Helper()
	if err := m.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name    string
		command host.Command
		want    host.Result
	}{
		{"argv", host.Command{Argv: []string{"printf", "%s|", "a b", "$HOME", "'", `"\`, "", "ü\n"}}, host.Result{Stdout: out("a b|$HOME|'|\"\\||ü\n|")}},
		{"shell", host.Command{Shell: "echo out; echo err >&2; exit 3"}, host.Result{Code: 3, Stdout: out("out\n"), Stderr: out("err\n")}},
		{"partial line on stderr", host.Command{Shell: "printf err >&2"}, host.Result{Stderr: out("err")}},
		{"dir", host.Command{Shell: "pwd", Dir: dir}, host.Result{Stdout: out(dir + "\n")}},
		{"env", host.Command{Shell: `printf %s "$A_1"`, Env: map[string]string{"A_1": "it's\n$x `y` \\"}}, host.Result{Stdout: out("it's\n$x `y` \\")}},
		{"stdin", host.Command{Argv: []string{"cat"}, Stdin: []byte("one\ntwo\x00")}, host.Result{Stdout: out("one\ntwo\x00")}},
		{"no stdin", host.Command{Argv: []string{"cat"}}, host.Result{}},
		{"large stdin", host.Command{Argv: []string{"wc", "-c"}, Stdin: make([]byte, 300<<10)}, host.Result{Stdout: out("307200\n")}},
		{"unread stdin", host.Command{Argv: []string{"true"}, Stdin: make([]byte, 300<<10)}, host.Result{}},
		{"secret file", host.Command{Shell: `cat "$KEY"; stat -c %a "$KEY"`, Files: map[string]string{"KEY": "s3cret\n"}}, host.Result{Stdout: out("s3cret\n600\n")}},
		{"output is cut in the middle", host.Command{Shell: "printf 0123456789abcdefghij", Limit: 8}, host.Result{Stdout: host.Output{Text: "0123\n… 12 bytes cut …\nghij", Cut: 12}}},
		{"output of just the limit", host.Command{Shell: "printf 01234567", Limit: 8}, host.Result{Stdout: out("01234567")}},
		{"signal", host.Command{Shell: "kill -KILL $$"}, host.Result{Code: -1, Signal: "KILL"}},
	}
	eachMachine(t, func(t *testing.T, m host.Machine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				got, err := m.Run(t.Context(), tt.command)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got  %+v\nwant %+v", got, tt.want)
				}
			})
		}
	})
}

func out(s string) host.Output { return host.Output{Text: s} }

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		name    string
		command host.Command
		kind    string
	}{
		{"absent command", host.Command{Argv: []string{"no-such-command-x", "topsecret"}}, "not-found"},
		{"absent directory", host.Command{Argv: []string{"true"}, Dir: "/no/such/dir"}, "not-found"},
		{"empty", host.Command{}, "start"},
		{"both", host.Command{Argv: []string{"true"}, Shell: "true"}, "start"},
		{"bad variable", host.Command{Argv: []string{"true"}, Env: map[string]string{"A;touch /tmp/x": "topsecret"}}, "start"},
	}
	eachMachine(t, func(t *testing.T, m host.Machine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := m.Run(t.Context(), tt.command)
				e := steps.Classify(err)
				if e == nil || e.Kind != tt.kind || e.Unknown {
					t.Fatalf("got %#v, want kind %s with a known outcome", e, tt.kind)
				}
				if strings.Contains(err.Error(), "topsecret") {
					t.Errorf("an argument is in the error: %v", err)
				}
			})
		}
	})
}

// A cancelled command takes its whole group with it: the shell, its child that ignores SIGTERM, and theirs.
func TestCancelKillsTheGroup(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		fifo := filepath.Join(t.TempDir(), "pids")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("the operator said stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		pids := make(chan []int, 1)
		go func() {
			f, err := os.Open(fifo)
			if err != nil {
				pids <- nil
				return
			}
			defer func() { _ = f.Close() }()
			var got []int
			for s := bufio.NewScanner(f); len(got) < 3 && s.Scan(); {
				n, _ := strconv.Atoi(s.Text())
				got = append(got, n)
			}
			pids <- got
			cancel(cause)
		}()
		// All three are up and hold the pipe's other end before anything is cancelled.
		script := `exec 4>"$PIDS"; echo $$ >&4
sh -c 'trap "" TERM; echo $$ >&4; sleep 1000 & echo $! >&4; wait; wait' & wait`
		_, err := m.Run(ctx, host.Command{Shell: script, Env: map[string]string{"PIDS": fifo}, Grace: 300 * time.Millisecond})
		if e := steps.Classify(err); e == nil || !e.Unknown || e.Kind != "canceled" || !errors.Is(err, cause) {
			t.Fatalf("got %#v, want an unknown outcome with the cause", e)
		}
		got := <-pids
		if len(got) != 3 {
			t.Fatalf("pids %v", got)
		}
		for _, pid := range got {
			if p, err := m.Process(t.Context(), pid); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("process %d is still there: %v, %v", pid, p.Argv, err)
			}
		}
	})
}

type hurry struct{ error }

func (hurry) Grace() time.Duration { return time.Millisecond }

func TestGraceOfTheCause(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		ctx, cancel := context.WithCancelCause(t.Context())
		dir := t.TempDir()
		ready := filepath.Join(dir, "ready")
		if err := syscall.Mkfifo(ready, 0o600); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = os.ReadFile(ready)
			cancel(hurry{errors.New("second signal")})
		}()
		start := time.Now()
		_, err := m.Run(ctx, host.Command{Shell: `trap "" TERM; echo >"$READY"; while :; do sleep 1000; done`, Env: map[string]string{"READY": ready}, Grace: time.Hour})
		if err == nil || time.Since(start) > 30*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestDeadline(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := m.Run(ctx, host.Command{Argv: []string{"sleep", "1000"}})
		if e := steps.Classify(err); e == nil || e.Kind != "timeout" || (!e.Unknown && !strings.Contains(err.Error(), "session") && !strings.Contains(err.Error(), "shell")) {
			t.Errorf("got %#v", e)
		}
		_, err = m.Run(ctx, host.Command{Argv: []string{"true"}})
		if e := steps.Classify(err); e == nil || e.Kind != "timeout" || e.Unknown {
			t.Errorf("nothing was begun, got %#v", e)
		}
	})
}

// A grand-child that keeps the output open does not keep the step waiting.
func TestOutputHeldOpen(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		r, err := m.Run(t.Context(), host.Command{Shell: "sleep 1000 & echo $!"})
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(r.Stdout.Text))
		p, err := m.Process(t.Context(), pid)
		if err != nil {
			t.Fatalf("it is to live on: %v", err)
		}
		if err := m.Signal(t.Context(), p, "KILL", false); err != nil {
			t.Error(err)
		}
	})
}

func TestSecretsAreNotInArguments(t *testing.T) {
	const secret = "s3cr3t-value-of-the-test"
	eachMachine(t, func(t *testing.T, m host.Machine) {
		c := host.Command{
			// Every command line of the machine, while the command runs, by one who sees them all.
			Shell: `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done 2>/dev/null; [ -n "$TOKEN" ] && [ -s "$KEY" ] && echo both:$(cat | wc -c); echo "$KEY"`,
			Env:   map[string]string{"TOKEN": secret}, Files: map[string]string{"KEY": secret}, Stdin: []byte(secret),
		}
		r, err := m.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(r.Stdout.Text, "both:") {
			t.Fatalf("the command did not get its secrets: %+v", r)
		}
		if strings.Contains(r.Stdout.Text, secret) {
			t.Error("a secret is in an argument list")
		}
		lines := strings.Split(strings.TrimSpace(r.Stdout.Text), "\n")
		if _, err := os.Stat(lines[len(lines)-1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the secret's file stays: %v", err)
		}
	})
}

func TestInherit(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	m := host.Local()
	res, err := m.Run(t.Context(), host.Command{Shell: "sleep 1000 >/dev/null 2>&1 & echo $!", Inherit: w})
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(res.Stdout.Text))
	detached, err := m.Start(t.Context(), host.Spawn{Argv: []string{"sleep", "1000"}, Detach: host.DetachSetsid, Inherit: w})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Signal(context.Background(), detached, "KILL", true) }()
	_ = w.Close()
	if n := holders(t, r, pid); n != 1 {
		t.Errorf("the child holds %d ends of the pipe, want 1", n)
	}
	if n := holders(t, r, detached.PID); n != 0 {
		t.Errorf("the detached one holds %d ends of the pipe, want 0", n)
	}
	child, err := m.Process(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Signal(t.Context(), child, "KILL", false); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 { // returns once nobody holds the other end
		t.Errorf("%q %v", b, err)
	}
}

func holders(t *testing.T, pipe *os.File, pid int) int {
	t.Helper()
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if l, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); l == want {
			n++
		}
	}
	return n
}

func TestFiles(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		ctx := t.Context()
		dir := filepath.Join(t.TempDir(), "a b'c", "-d")
		must(t, m.Mkdir(ctx, dir, 0o750))
		must(t, m.Mkdir(ctx, dir, 0o750))
		file := filepath.Join(dir, "f $x")
		if _, err := m.Stat(ctx, file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat of an absent file: %v", err)
		}
		if _, err := m.ReadFile(ctx, file, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("read of an absent file: %v", err)
		}
		content := "line\n\x00binary\xff\n\n"
		must(t, m.WriteFile(ctx, file, []byte(content), 0))
		got, err := m.ReadFile(ctx, file, int64(len(content)))
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := m.ReadFile(ctx, file, int64(len(content)-1)); steps.Classify(err) == nil || steps.Classify(err).Kind != "too-large" {
			t.Errorf("read over the limit: %v", err)
		}
		f, err := m.Stat(ctx, file)
		if err != nil || f.Mode != 0o644 || f.Size != int64(len(content)) || f.Name != "f $x" || f.UID != os.Geteuid() || time.Since(f.Modified).Abs() > time.Hour {
			t.Errorf("stat %+v, %v", f, err)
		}
		must(t, m.WriteFile(ctx, file, []byte("new"), 0o600))
		must(t, m.WriteFile(ctx, file, nil, 0))
		if f, err := m.Stat(ctx, file); err != nil || f.Mode != 0o600 || f.Size != 0 {
			t.Errorf("the mode is kept: %+v, %v", f, err)
		}
		link := filepath.Join(dir, "link")
		must(t, os.Symlink("f $x", link))
		must(t, m.WriteFile(ctx, link, []byte("through"), 0))
		if l, err := m.Stat(ctx, link); err != nil || l.Mode&fs.ModeSymlink == 0 {
			t.Errorf("the link was replaced: %+v %v", l, err)
		}
		if p, err := m.RealPath(ctx, link); err != nil || p != file {
			t.Errorf("real path %q, %v", p, err)
		}
		if _, err := m.RealPath(ctx, file+"x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("real path of an absent file: %v", err)
		}
		if err := m.WriteFile(ctx, dir, []byte("x"), 0); err == nil {
			t.Error("a directory was overwritten")
		}
		list, err := m.List(ctx, dir)
		if err != nil || len(list) != 2 || list[0].Name != "f $x" || list[1].Name != "link" {
			t.Errorf("list %+v, %v", list, err) // no temporary file was left
		}
		if _, err := m.List(ctx, file+"x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("list of an absent directory: %v", err)
		}
		must(t, m.Remove(ctx, dir))
		must(t, m.Remove(ctx, dir))
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	eachMachine(t, func(t *testing.T, m host.Machine) {
		got, err := m.Listening(t.Context(), port)
		if err != nil || !got.Open || got.PID != os.Getpid() || !strings.Contains(got.Process, ".test") || !slices.Equal(got.Addrs, []string{l.Addr().String()}) {
			t.Errorf("open: %+v, %v", got, err)
		}
		c, err := m.Dial(t.Context(), l.Addr().String())
		must(t, err)
		_ = c.Close()
		free, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addr := free.Addr().(*net.TCPAddr)
		_ = free.Close()
		if got, err := m.Listening(t.Context(), addr.Port); err != nil || got.Open || got.PID != 0 {
			t.Errorf("free: %+v, %v", got, err)
		}
		_, err = m.Dial(t.Context(), addr.String())
		if e := steps.Classify(err); e == nil || e.Kind != "refused" || !e.Temporary || e.Unknown {
			t.Errorf("dial of a free port: %#v", e)
		}
	})
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "tool")
	must(t, os.WriteFile(tool, []byte("#!/bin/sh\necho \"tool v7.0.15 (build 3)\" >&2\n"), 0o700))
	eachMachine(t, func(t *testing.T, m host.Machine) {
		for _, m := range []host.Machine{m, host.ReadOnly(m)} {
			got, err := m.Look(t.Context(), tool, "--version")
			if err != nil || got.Path != tool || got.Version != "7.0.15" {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if got, err := m.Look(t.Context(), "sh"); err != nil || !filepath.IsAbs(got.Path) || got.Version != "" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := m.Look(t.Context(), "no-such-command-x"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if _, err := m.Look(t.Context(), filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestDiskAndFacts(t *testing.T) {
	dir := t.TempDir()
	local, err := host.Local().Disk(t.Context(), dir)
	must(t, err)
	eachMachine(t, func(t *testing.T, m host.Machine) {
		d, err := m.Disk(t.Context(), dir+"/not/there/yet")
		if err != nil || d.Path != dir || d.Total != local.Total || d.Free <= 0 || d.Free > d.Total || !reflect.DeepEqual(d.Rotational, local.Rotational) {
			t.Errorf("%+v, %v; local %+v", d, err, local)
		}
		f, err := m.Facts(t.Context())
		if err != nil || f.Hostname == "" || f.User == "" || f.Home == "" || !slices.Contains(f.Mounts, "/") {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

func TestProcesses(t *testing.T) {
	eachMachine(t, func(t *testing.T, m host.Machine) {
		ctx := t.Context()
		dir := t.TempDir()
		for _, detach := range []host.Detach{host.DetachNone, host.DetachSetsid} {
			t.Run(string(detach), func(t *testing.T) {
				log := filepath.Join(dir, string(detach))
				p, err := m.Start(ctx, host.Spawn{
					Argv: []string{"sh", "-c", `echo "$A $0"; pwd; exec sleep "$1"`, "it's", "1000"}, Dir: dir,
					Env: map[string]string{"A": "a'b\nc"}, Output: log, Detach: detach,
				})
				must(t, err)
				self, err := m.Process(ctx, p.PID)
				must(t, err)
				if self.ID != p.ID || self.ID == "" || time.Since(self.Started).Abs() > time.Minute {
					t.Errorf("%+v", self)
				}
				if sid, pgid := session(t, p.PID); detach == host.DetachSetsid && (sid != p.PID || pgid != p.PID) {
					t.Errorf("session %d, group %d, want %d", sid, pgid, p.PID)
				}
				eventually(t, func() bool { b, _ := os.ReadFile(log); return strings.HasSuffix(string(b), "a'b\nc it's\n"+dir+"\n") })
				other := p
				other.ID += "0"
				if err := m.Signal(ctx, other, "KILL", true); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a signal to another process of that number: %v", err)
				}
				must(t, m.Signal(ctx, p, "KILL", true))
				eventually(t, func() bool { _, err := m.Process(ctx, p.PID); return errors.Is(err, fs.ErrNotExist) })
				if err := m.Signal(ctx, p, "KILL", true); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a signal to one that has ended: %v", err)
				}
			})
		}
		for _, detach := range []host.Detach{host.DetachNone, host.DetachSetsid} {
			if _, err := m.Start(ctx, host.Spawn{Argv: []string{"no-such-command-x"}, Detach: detach}); steps.Classify(err) == nil || steps.Classify(err).Kind != "not-found" {
				t.Errorf("%s: start of an absent command: %v", detach, err)
			}
		}
	})
}

func session(t *testing.T, pid int) (sid, pgid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	pgid, _ = strconv.Atoi(f[2])
	sid, _ = strconv.Atoi(f[3])
	return sid, pgid
}

// eventually waits for the kernel to do what it was told, without a fixed time.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); {
		if time.Since(start) > 10*time.Second {
			t.Fatal("it did not happen within 10 s")
		}
	}
}

// What was started for the run alone ends when the run lets go of the machine.
func TestCloseEndsChildren(t *testing.T) {
	s := hosttest.Start(t)
	ssh, err := host.DialSSH(t.Context(), s.Config)
	must(t, err)
	for name, m := range map[string]host.Machine{"local": host.Local(), "ssh": ssh} {
		p, err := m.Start(t.Context(), host.Spawn{Argv: []string{"sleep", "1000"}, Detach: host.DetachNone})
		must(t, err)
		d, err := m.Start(t.Context(), host.Spawn{Argv: []string{"sleep", "1000"}, Detach: host.DetachSetsid})
		must(t, err)
		closeMachine(t, m)
		look := host.Local()
		if _, err := look.Process(t.Context(), p.PID); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it outlived the run: %v", name, err)
		}
		if _, err := look.Process(t.Context(), d.PID); err != nil {
			t.Errorf("%s: the detached one is to outlive the run: %v", name, err)
		}
		must(t, look.Signal(t.Context(), d, "KILL", true))
	}
}

func TestSystemd(t *testing.T) {
	// A stand-in that shows what systemd-run is given: there is no systemd in a container.
	bin := t.TempDir()
	script := `#!/bin/sh
printf '%s\n' "$@" >` + bin + `/args
printf '%s' "$TOKEN" >` + bin + `/token
sleep 1000 >/dev/null 2>&1 &
echo $! >` + bin + `/pid
`
	must(t, os.WriteFile(bin+"/systemd-run", []byte(script), 0o700))
	must(t, os.WriteFile(bin+"/systemctl", []byte("#!/bin/sh\ncat "+bin+"/pid\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := host.Local()
	p, err := m.Start(t.Context(), host.Spawn{Argv: []string{"pika", "-c", "a b"}, Dir: "/srv", Output: "/log", Unit: "pika-9221",
		Env: map[string]string{"TOKEN": "s3cret"}, Detach: host.DetachSystemd})
	must(t, err)
	must(t, m.Signal(t.Context(), p, "KILL", false))
	args, err := os.ReadFile(bin + "/args")
	must(t, err)
	for _, want := range []string{"--unit=pika-9221", "--working-directory=/srv", "--setenv=TOKEN\n", "--property=StandardOutput=append:/log", "--\npika\n-c\na b\n"} {
		if !strings.Contains(string(args), want) {
			t.Errorf("no %q in %q", want, args)
		}
	}
	if token, _ := os.ReadFile(bin + "/token"); string(token) != "s3cret" || strings.Contains(string(args), "s3cret") {
		t.Errorf("token %q, args %q", token, args)
	}
}

// Every method of Machine is either known to look or refused on a machine that is only looked at.
func TestReadOnly(t *testing.T) {
	looks := []string{"String", "Process", "ReadFile", "Stat", "List", "RealPath", "Listening", "Dial", "Look", "Disk", "Facts"}
	file := filepath.Join(t.TempDir(), "f")
	m := host.ReadOnly(host.Local())
	self, err := m.Process(t.Context(), os.Getpid())
	must(t, err)
	refused := map[string]error{
		"WriteFile": m.WriteFile(t.Context(), file, nil, 0),
		"Mkdir":     m.Mkdir(t.Context(), file, 0o700),
		"Remove":    m.Remove(t.Context(), file),
		"Signal":    m.Signal(t.Context(), self, "CONT", false),
	}
	_, refused["Run"] = m.Run(t.Context(), host.Command{Argv: []string{"touch", file}})
	_, refused["Start"] = m.Start(t.Context(), host.Spawn{Argv: []string{"touch", file}})
	for name, err := range refused {
		if e := steps.Classify(err); e == nil || e.Kind != "readonly" {
			t.Errorf("%s: %v", name, err)
		}
	}
	all := reflect.TypeFor[host.Machine]()
	for i := range all.NumMethod() {
		name := all.Method(i).Name
		if _, ok := refused[name]; !ok && !slices.Contains(looks, name) {
			t.Errorf("%s neither looks nor is refused", name)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is there")
	}
}

func BenchmarkExecTrue(b *testing.B) {
	m := host.Local()
	b.Run("machine", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Run(b.Context(), host.Command{Argv: []string{"/bin/true"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("os-exec-output", func(b *testing.B) {
		for b.Loop() {
			var stdout, stderr strings.Builder
			c := exec.CommandContext(b.Context(), "/bin/true")
			c.Stdout, c.Stderr = &stdout, &stderr
			if err := c.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
