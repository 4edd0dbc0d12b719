package redis_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRecord plays the recordings' scripts to real servers and writes down what they answer. It runs only when asked
// for (RECORD=1), with redis-server 7.0 in the path: the recordings are the facts that the simulator is held to.
func TestRecord(t *testing.T) {
	if os.Getenv("RECORD") == "" {
		t.Skip("RECORD=1 rewrites the recordings from a real redis-server")
	}
	names, dir := recordings()
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			st := newRealStage(t, string(b))
			ns, _ := servers(string(b))
			p := &player{stage: st, names: ns}
			got, err := p.play(string(b))
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

type realStage struct {
	t     *testing.T
	ports map[string]string
	args  map[string][]string
	procs map[string]*exec.Cmd
}

func newRealStage(t *testing.T, script string) *realStage {
	s := &realStage{t: t, ports: map[string]string{}, args: map[string][]string{}, procs: map[string]*exec.Cmd{}}
	names, opts := servers(script)
	for _, n := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.ports[n] = fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		_ = l.Close()
		s.args[n] = append([]string{
			"--port", s.ports[n], "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--repl-diskless-sync-delay", "0",
			"--repl-ping-replica-period", "3600", "--enable-debug-command", "yes", "--loglevel", "warning",
		}, opts[n]...)
	}
	for _, n := range names {
		s.up(n)
	}
	t.Cleanup(func() {
		for n := range s.procs {
			s.down(n)
		}
	})
	return s
}

func (s *realStage) port(n string) string { return s.ports[n] }

func (s *realStage) dial(n string) (net.Conn, error) {
	var err error
	for range 200 {
		var c net.Conn
		if c, err = net.Dial("tcp", "127.0.0.1:"+s.ports[n]); err == nil {
			return c, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, err
}

func (s *realStage) up(n string) {
	cmd := exec.Command("redis-server", s.args[n]...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.procs[n] = cmd
	if c, err := s.dial(n); err == nil {
		_ = c.Close()
	}
}

func (s *realStage) down(n string) {
	if cmd := s.procs[n]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		delete(s.procs, n)
	}
}

// loading reloads a data set of keys each of which takes its time.
func (s *realStage) loading(n string, d time.Duration) {
	do := func(wait bool, cmd string) net.Conn { return s.do(n, wait, cmd) }
	do(true, "CONFIG SET rdbcompression no")
	do(true, "DEBUG POPULATE 100 filler 2000")
	do(true, fmt.Sprintf("CONFIG SET key-load-delay %d loading-process-events-interval-bytes 1024", d.Microseconds()/100))
	c := do(false, "DEBUG RELOAD")
	s.t.Cleanup(func() { _ = c.Close() })
	time.Sleep(200 * time.Millisecond)
}

// slowSync gives the server keys each of which takes its time to send.
func (s *realStage) slowSync(n string, d time.Duration) {
	s.do(n, true, "DEBUG POPULATE 100 filler 100")
	s.do(n, true, fmt.Sprintf("CONFIG SET rdb-key-save-delay %d", d.Microseconds()/100))
}

func (s *realStage) do(n string, wait bool, cmd string) net.Conn {
	c, err := s.dial(n)
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = fmt.Fprintf(c, "%s\r\n", cmd)
	if wait {
		b := make([]byte, 512)
		k, _ := c.Read(b)
		if !strings.HasPrefix(string(b[:k]), "+OK") {
			s.t.Fatalf("%s: %s", cmd, b[:k])
		}
		_ = c.Close()
	}
	return c
}
