// Package hosttest gives tests a real SSH server: OpenSSH's sshd, private to the test, on
// a loopback port, with generated keys and the user that runs the test.
package hosttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"runbook/steps/host"
)

// SSHD is a running server.
type SSHD struct {
	// Config logs in to it, with its host key known.
	Config host.Config
	// HostKey is what it shows; it has no other.
	HostKey ssh.PublicKey
	Dir     string // keys and known_hosts

	mu    sync.Mutex
	conns []net.Conn
	log   bytes.Buffer
	wg    sync.WaitGroup
}

// Start starts a server that ends with the test. It fails the test where sshd is not installed.
//
// The test's own listener accepts, and each connection gets an sshd of its own (sshd -i): no
// port is chosen twice, and a test can cut what it likes.
func Start(t testing.TB) *SSHD {
	t.Helper()
	sshd := find(t)
	s := &SSHD{Dir: t.TempDir()}
	hostKey, hostPub := key(t, filepath.Join(s.Dir, "host_key"))
	identity, userPub := key(t, filepath.Join(s.Dir, "identity"))
	s.HostKey = hostPub
	write(t, filepath.Join(s.Dir, "authorized_keys"), ssh.MarshalAuthorizedKey(userPub))
	config := filepath.Join(s.Dir, "sshd_config")
	write(t, config, fmt.Appendf(nil, `HostKey %s
AuthorizedKeysFile %s
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
LogLevel ERROR
PidFile none
`, hostKey, filepath.Join(s.Dir, "authorized_keys")))
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // its privilege separation directory
			t.Fatalf("prepare sshd: %v", err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(s.Dir, "known_hosts")
	write(t, known, []byte(knownhosts.Line([]string{l.Addr().String()}, hostPub)+"\n"))
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.Config = host.Config{Addr: l.Addr().String(), User: u.Username, Identity: identity, KnownHosts: known}
	t.Setenv("SSH_AUTH_SOCK", "")
	s.wg.Go(func() { s.serve(l, sshd, config) })
	t.Cleanup(func() {
		_ = l.Close()
		s.Cut()
		s.wg.Wait()
		if t.Failed() {
			t.Logf("sshd said: %s", s.log.Bytes())
		}
	})
	return s
}

// Cut breaks every connection, as a network does.
func (s *SSHD) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.(*net.TCPConn).CloseRead()
		_ = c.Close()
	}
	s.conns = nil
}

func (s *SSHD) serve(l net.Listener, sshd, config string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			_ = c.Close()
			continue
		}
		cmd := exec.Command(sshd, "-i", "-e", "-f", config)
		cmd.Stdin, cmd.Stdout = f, f
		cmd.Stderr = &lockedWriter{s}
		cmd.WaitDelay = time.Second
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		err = cmd.Start()
		_ = f.Close()
		if err != nil {
			_ = c.Close()
			continue
		}
		s.wg.Go(func() { _ = cmd.Wait() })
	}
}

type lockedWriter struct{ s *SSHD }

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.log.Write(p)
}

func find(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("sshd")
	if err == nil {
		return path
	}
	if _, err := os.Stat("/usr/sbin/sshd"); errors.Is(err, os.ErrNotExist) {
		t.Fatal("sshd is not installed: these tests need it (Debian: apt-get install openssh-server)")
	}
	return "/usr/sbin/sshd"
}

// key makes a key pair; the private key goes into file.
func key(t testing.TB, file string) (string, ssh.PublicKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, pem.EncodeToMemory(block))
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return file, sshPub
}

func write(t testing.TB, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
