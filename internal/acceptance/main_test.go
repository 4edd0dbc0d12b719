package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbook/internal/simulate/resp"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	defer keeper.Close()
	flag.Parse()
	// Most of the time these tests wait for other processes: more of them at a time than there are processors.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("6") // fails for what is no number alone
	}
	if binary = os.Getenv("ACCEPTANCE_BINARY"); binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "runner")
	args := []string{"build", "-o", binary}
	if raced() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "runbook/cmd/runner")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the runner: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// raced tells whether the tests were built with the race detector.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// patience is how long anything may take before the test says that it never happens.
const patience = 20 * time.Second

// until polls a state.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// desk is where an operator sits: a folder with runbooks, a state directory, an environment.
type desk struct {
	t     testing.TB
	dir   string // runbooks and what they write
	state string
	env   []string
	tag   string // in the environment of every process that starts here
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{t: t, dir: dir, state: filepath.Join(dir, "state"), tag: "ACCEPTANCE_DESK=" + dir}
	t.Cleanup(func() { // a failed test must not leave processes behind
		for _, pid := range d.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return d
}

// write puts a file into the desk's folder and gives its path.
func (d *desk) write(name, content string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// book writes a runbook: a head for it, and DIR replaced by the desk's folder.
func (d *desk) book(name, body string) string {
	d.t.Helper()
	head := "version: 1\nname: " + strings.TrimSuffix(name, ".yaml") + "\n"
	return d.write(name, head+strings.ReplaceAll(body, "DIR", d.dir))
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) exists(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

// lines are the lines of a file of the desk; none where it is not there.
func (d *desk) lines(name string) []string {
	d.t.Helper()
	b, err := os.ReadFile(d.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// session is one process of the runner.
type session struct {
	t        testing.TB
	cmd      *exec.Cmd
	args     []string
	out, err *buffer
	over     chan struct{}
}

// buffer may be read while a process writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// command is a runner on this desk, not started yet.
func (d *desk) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, append(args, "--state", d.state)...)
	cmd.Dir = d.dir
	// A program with the race detector ends at once with code 66 where it finds one, and does not linger at its end.
	cmd.Env = append(append(os.Environ(), d.tag, "RUNNER_OPERATOR=tess", "GORACE=atexit_sleep_ms=0 halt_on_error=1"), d.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (d *desk) start(args ...string) *session {
	d.t.Helper()
	cmd := d.command(args...)
	s := &session{t: d.t, cmd: cmd, args: args, out: &buffer{}, err: &buffer{}, over: make(chan struct{})}
	// Files and not pipes: a child that outlives the runner must not keep Wait waiting.
	out, err := os.CreateTemp(d.t.TempDir(), "out")
	if err != nil {
		d.t.Fatal(err)
	}
	errOut, err := os.CreateTemp(d.t.TempDir(), "err")
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, errOut
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(s.over)
		_ = cmd.Wait() // its state tells more
		for _, f := range []struct {
			from *os.File
			to   *buffer
		}{{out, s.out}, {errOut, s.err}} {
			text, err := os.ReadFile(f.from.Name())
			if err != nil {
				text = []byte(err.Error())
			}
			_, _ = f.to.Write(text)
			f.from.Close()
		}
	}()
	return s
}

// wait gives the exit code; -1 for a process that a signal ended.
func (s *session) wait() int {
	s.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-s.over:
	case <-limit.C:
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		<-s.over
		s.t.Fatalf("runner %v does not end\n%s", s.args, s.said())
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *session) running() bool {
	select {
	case <-s.over:
		return false
	default:
		return true
	}
}

func (s *session) signal(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig) // it may have ended
}

// want fails the test unless the process ended so.
func (s *session) want(code int) *session {
	s.t.Helper()
	if got := s.wait(); got != code {
		s.t.Fatalf("runner %s: exit code %d, want %d\n%s", strings.Join(s.args, " "), got, code, s.said())
	}
	return s
}

// says fails the test unless all of the words were printed.
func (s *session) says(words ...string) *session {
	s.t.Helper()
	s.wait()
	for _, w := range words {
		if !strings.Contains(s.said(), w) {
			s.t.Errorf("runner %s does not say %q:\n%s", strings.Join(s.args, " "), w, s.said())
		}
	}
	if strings.Contains(s.said(), "goroutine ") || strings.Contains(s.said(), "DATA RACE") {
		s.t.Errorf("runner %s crashed:\n%s", strings.Join(s.args, " "), s.said())
	}
	return s
}

func (s *session) said() string { return s.out.String() + s.err.String() }

// run is start and wait.
func (d *desk) run(args ...string) *session {
	d.t.Helper()
	s := d.start(args...)
	s.wait()
	return s
}

// processes are those that were started from this desk, the runner itself included.
func (d *desk) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // it has ended, or is not ours
		}
		if slices.Contains(strings.Split(string(env), "\x00"), d.tag) && !zombie(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// alone fails the test when a process of this desk is left.
func (d *desk) alone() {
	d.t.Helper()
	for _, pid := range d.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		d.t.Errorf("process %d is left: %s", pid, strings.ReplaceAll(string(line), "\x00", " "))
	}
}

// record is one line of a journal.
type record struct {
	Seq     int64  `json:"seq"`
	Type    string `json:"type"`
	Step    string `json:"step"`
	Status  string `json:"status"`
	Attempt int    `json:"attempt"`
	Error   *struct {
		Message   string `json:"message"`
		Kind      string `json:"kind"`
		Temporary bool   `json:"temporary"`
		Unknown   bool   `json:"unknown"`
	} `json:"error"`
	Recovered bool   `json:"recovered"`
	Choice    string `json:"choice"`
}

func (r record) String() string {
	text := r.Type
	if r.Step != "" {
		text = r.Step + ": " + text
	}
	if r.Status != "" {
		text += " " + r.Status
	}
	if r.Error != nil {
		text += " (" + r.Error.Kind + ": " + r.Error.Message + ")"
	}
	return text
}

// runs are the folders of the runs, oldest first.
func (d *desk) runs() []string {
	found, err := filepath.Glob(filepath.Join(d.state, "runs", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// journal gives the whole lines of the last run's journal: also while it is written, and where it is damaged.
func (d *desk) journal() []record {
	runs := d.runs()
	if len(runs) == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(runs[len(runs)-1], "journal.jsonl"))
	if err != nil {
		return nil
	}
	var all []record
	for line := range bytes.Lines(text) {
		var r record
		if json.Unmarshal(line, &r) == nil {
			all = append(all, r)
		}
	}
	return all
}

// seen tells whether a record of the type is in the last run's journal for the step.
func (d *desk) seen(kind, step string) bool { return d.find(kind, step) != nil }

// find gives the last record of the type for the step.
func (d *desk) find(kind, step string) *record {
	var found *record
	for _, r := range d.journal() {
		if r.Type == kind && r.Step == step {
			found = &r
		}
	}
	return found
}

// reaches waits until the record is there, or the process has ended without it.
func (d *desk) reaches(s *session, kind, step string) {
	d.t.Helper()
	until(d.t, kind+" of "+step, func() bool {
		if d.seen(kind, step) {
			return true
		}
		if !s.running() {
			if d.seen(kind, step) {
				return true
			}
			d.t.Fatalf("the runner ended before %s of %s:\n%s", kind, step, s.said())
		}
		return false
	})
}

// sound checks what every run must be at its end: a whole journal that all of `runs` can read, and nobody left.
func (d *desk) sound() {
	d.t.Helper()
	d.run("runs", "verify", "last").want(0)
	d.run("runs", "list").want(0)
	d.run("runs", "show", "last").want(0)
	d.run("runs", "log", "last").want(0)
	d.alone()
}

// freeAddr is a port that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		// Below the ports that connections go out from: a server that is stopped and started again must find its own free.
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			defer func() { _ = l.Close() }()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// need fails where a program is missing.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed, and this test starts it: make setup", name)
	}
	return path
}

// server is a real redis-server that ends with the test.
type server struct {
	t    testing.TB
	addr string
}

func startRedis(t testing.TB, settings ...string) *server {
	t.Helper()
	program := need(t, "redis-server")
	s := &server{t: t, addr: freeAddr(t)}
	args := append([]string{"--port", port(s.addr), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--repl-diskless-sync-delay", "0"}, settings...)
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	until(t, "redis-server answers at "+s.addr, func() bool {
		v, err := ask(t.Context(), s.addr, "PING")
		return err == nil && v.Str == "PONG"
	})
	return s
}

// ask sends one command over a connection of its own.
func ask(ctx context.Context, addr string, args ...string) (resp.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := resp.Dial(ctx, addr)
	if err != nil {
		return resp.Value{}, err
	}
	defer c.Close()
	return c.Do(ctx, args...)
}

// do sends one command and gives its answer.
func (s *server) do(args ...string) resp.Value {
	s.t.Helper()
	v, err := ask(s.t.Context(), s.addr, args...)
	if err != nil {
		s.t.Fatalf("%v on %s: %v", args, s.addr, err)
	}
	return v
}

// field gives one field of INFO; "" where nobody answers.
func field(ctx context.Context, addr, name string) string {
	v, err := ask(ctx, addr, "INFO")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(v.Str, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// commandLines are those of every process that can be seen.
func commandLines(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, path := range found {
		if text, err := os.ReadFile(path); err == nil { // it may have ended
			lines = append(lines, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return lines
}
