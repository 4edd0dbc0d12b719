package host_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"runbook/steps"
	"runbook/steps/host"
	"runbook/steps/host/hosttest"
)

func TestHostKey(t *testing.T) {
	s := hosttest.Start(t)
	other := hosttest.Start(t)
	print := ssh.FingerprintSHA256(s.HostKey)
	line := knownhosts.Line([]string{s.Config.Addr}, s.HostKey)
	tests := []struct {
		name, known   string
		message, hint string // empty: it is let in
	}{
		{"known", line, "", ""},
		{"no file", "", "host key of " + s.Config.Addr + " is unknown: it shows ssh-ed25519 " + print, line},
		{"unknown", knownhosts.Line([]string{"127.0.0.9:22"}, s.HostKey), "is unknown: it shows ssh-ed25519 " + print, line},
		{"changed", "# first\n" + knownhosts.Line([]string{s.Config.Addr}, other.HostKey), "HAS CHANGED: it shows ssh-ed25519 " + print, "line 2 of"},
		{"revoked", "@revoked " + line, "IS REVOKED", "do not connect"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.Config
			c.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
			if tt.known != "" {
				must(t, os.WriteFile(c.KnownHosts, []byte(tt.known+"\n"), 0o600))
			}
			m, err := host.DialSSH(t.Context(), c)
			if tt.message == "" {
				must(t, err)
				closeMachine(t, m)
				return
			}
			e := steps.Classify(err)
			if e == nil || e.Kind != "host-key" || e.Temporary || e.Unknown || !strings.Contains(err.Error(), tt.message) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("got %+v\nwant %q, hint %q", e, tt.message, tt.hint)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	s, other := hosttest.Start(t), hosttest.Start(t)
	bad := s.Config
	bad.Identity = other.Config.Identity
	_, err := host.DialSSH(t.Context(), bad)
	if e := steps.Classify(err); e == nil || e.Kind != "auth" || e.Unknown || e.Hint == "" {
		t.Errorf("another's key: %#v", e)
	}
	none := s.Config
	none.Identity = filepath.Join(t.TempDir(), "absent")
	_, err = host.DialSSH(t.Context(), none)
	if e := steps.Classify(err); e == nil || e.Kind != "auth" {
		t.Errorf("no key: %#v", e)
	}
}

// A connection that breaks under a command leaves its outcome unknown, and ends the command over there;
// the next command gets a new connection.
func TestConnectionCut(t *testing.T) {
	s := hosttest.Start(t)
	m, err := host.DialSSH(t.Context(), s.Config)
	must(t, err)
	defer closeMachine(t, m)
	fifo := filepath.Join(t.TempDir(), "held")
	must(t, syscall.Mkfifo(fifo, 0o600))
	ended := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo)
		if err != nil {
			ended <- err
			return
		}
		defer func() { _ = f.Close() }()
		b := make([]byte, 1)
		if _, err = f.Read(b); err == nil {
			s.Cut()
			_, err = f.Read(b) // ends when nobody over there holds the pipe any more
		}
		ended <- err
	}()
	_, err = m.Run(t.Context(), host.Command{Shell: `exec 4>"$HELD"; printf x >&4; sleep 1000 & wait`, Env: map[string]string{"HELD": fifo}})
	if e := steps.Classify(err); e == nil || e.Kind != "closed" || !e.Unknown {
		t.Errorf("got %#v", e)
	}
	if err := <-ended; err == nil || err.Error() != "EOF" {
		t.Errorf("the command goes on: %v", err)
	}
	if r, err := m.Run(t.Context(), host.Command{Argv: []string{"echo", "again"}}); err != nil || r.Stdout.Text != "again\n" {
		t.Errorf("after that: %+v, %v", r, err)
	}
}

// More commands at a time than one connection has sessions for.
func TestManyAtATime(t *testing.T) {
	m, err := host.DialSSH(t.Context(), hosttest.Start(t).Config)
	must(t, err)
	defer closeMachine(t, m)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if r, err := m.Run(t.Context(), host.Command{Shell: "sleep 0.2; echo x"}); err != nil || r.Stdout.Text != "x\n" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
}
