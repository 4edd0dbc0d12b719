package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// site is a directory, and the processes that were started for it: each has the tag in its environment, and so has
// whatever it starts, such as the rsync daemons that a Pika leaves behind. All of it ends with the test.
type site struct {
	t    *testing.T
	dir  string
	tag  string
	runs int // of the runner
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, tag: "LAB_SITE=" + dir}
	t.Cleanup(func() {
		until(t, "every process of the lab has ended", func() bool {
			pids := s.processes("")
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return len(pids) == 0
		})
		if t.Failed() && os.Getenv("LAB_KEEP") != "" {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, content string) string {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.path(name)
}

// process is one of the real programs.
type process struct {
	s    *site
	name string
	argv []string
	cmd  *exec.Cmd
	over chan struct{}
}

// start runs a program; what it says goes to NAME.out.
func (s *site) start(name string, argv ...string) *process {
	s.t.Helper()
	p := &process{s: s, name: name, argv: argv}
	p.restart()
	return p
}

// restart runs it once more, after it has ended, with further arguments.
func (p *process) restart(more ...string) {
	p.s.t.Helper()
	out, err := os.OpenFile(p.s.path(p.name+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer out.Close()
	argv := append(slices.Clone(p.argv), more...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = p.s.dir, append(os.Environ(), p.s.tag)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // should the lab itself be killed
	if err := cmd.Start(); err != nil {
		p.s.t.Fatalf("start %s: %v", p.name, err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = cmd.Wait() // its state tells more
	}()
	p.cmd, p.over = cmd, over
}

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) } // it may have ended

// kill ends it as a crash would.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.over
}

func (p *process) running() bool { return !over(p.over) }

// over tells whether a channel is closed.
func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ready waits until holds, and fails where the process ends before.
func (p *process) ready(holds func() bool) {
	p.s.t.Helper()
	until(p.s.t, p.name+" is ready", func() bool {
		if !p.running() {
			p.s.t.Fatalf("%s has ended:\n%s", p.name, tail(p.s.path(p.name+".out")))
		}
		return holds()
	})
}

// tail gives the last lines of a file.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// processes are those of this site whose command line has the word, zombies apart.
func (s *site) processes(word string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), s.tag) {
			continue // it has ended, or is not ours
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && len(line) > 0 && strings.Contains(string(line), word) { // a zombie has no command line
			pids = append(pids, pid)
		}
	}
	return pids
}

// ports hands out loopback ports, none of them twice. They lie below those that the kernel gives to clients.
type ports struct {
	mu   sync.Mutex
	last int
}

var free ports

// take gives a port that is free together with those at the distances named.
func (p *ports) take(t testing.TB, beside ...int) int {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 5000 {
		if p.last++; p.last < 20000 || p.last > 20900 {
			p.last = 20000 + os.Getpid()%800
		}
		if listens(p.last) && !slices.ContainsFunc(beside, func(d int) bool { return !listens(p.last + d) }) {
			return p.last
		}
	}
	t.Fatal("there is no free port")
	return 0
}

// listens tells whether somebody could listen there.
func listens(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
