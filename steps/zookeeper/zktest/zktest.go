// Package zktest gives tests a real ZooKeeper: the one of Debian's package zookeeper, private to the test binary, on a
// loopback port, with a data directory of its own; and a relay before it that loses requests and answers ([Relay]).
package zktest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Jar is what Debian's package zookeeper installs.
const Jar = "/usr/share/java/zookeeper.jar"

// Server is one ZooKeeper. The zero Server starts at the first Start and ends with Close, so that all tests of a binary
// can share it: starting takes seconds.
type Server struct {
	mu   sync.Mutex
	addr string
	dir  string
	cmd  *exec.Cmd
}

// Start gives the server's address, starting it where it does not run. Where there is no ZooKeeper, the test is skipped.
func (s *Server) Start(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(Jar); err != nil {
		t.Skipf("there is no ZooKeeper here (%v): scripts/setup installs it", err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skipf("ZooKeeper needs java (%v): scripts/setup installs it", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == "" {
		if err := s.prepare(); err != nil {
			t.Fatalf("prepare ZooKeeper: %v", err)
		}
	}
	if s.cmd == nil {
		if err := s.run(java); err != nil {
			t.Fatalf("start ZooKeeper: %v", err)
		}
	}
	return s.addr
}

// Kill ends the server as a crash would. What was answered is on its disk, and there again after Start.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Freeze stops the server from answering, until thaw: connections stay open.
func (s *Server) Freeze() (thaw func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil, errors.New("freeze ZooKeeper: it does not run")
	}
	p := s.cmd.Process
	return func() { _ = p.Signal(syscall.SIGCONT) }, p.Signal(syscall.SIGSTOP)
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

func (s *Server) prepare() error {
	dir, err := os.MkdirTemp("", "zktest-")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.addr, s.dir = l.Addr().String(), dir
	_, port, _ := net.SplitHostPort(s.addr)
	if err := l.Close(); err != nil {
		return err
	}
	// Short ticks, so that a session can be as short as half a second (2 ticks) and as long as clients like.
	config := fmt.Sprintf(`tickTime=250
dataDir=%s
clientPort=%s
clientPortAddress=127.0.0.1
maxSessionTimeout=60000
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
`, filepath.Join(dir, "data"), port)
	return os.WriteFile(filepath.Join(dir, "zoo.cfg"), []byte(config), 0o600)
}

func (s *Server) run(java string) error {
	out, err := os.OpenFile(filepath.Join(s.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", s.dir+":"+Jar,
		"org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test binary be killed
	if err := cmd.Start(); err != nil {
		return err
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); <-poll.C {
		if serves(s.addr) {
			s.cmd = cmd
			return nil
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	said, _ := os.ReadFile(out.Name())
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return fmt.Errorf("it does not answer within a minute: %s", strings.Join(lines[max(0, len(lines)-5):], " | "))
}

// serves asks the server the four letters srvr: it listens, and answers ruok, before it serves.
func serves(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("srvr")); err != nil {
		return false
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(c)
	return err == nil && strings.Contains(b.String(), "Mode: ")
}
