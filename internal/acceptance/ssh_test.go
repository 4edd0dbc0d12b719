package acceptance

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"runbook/steps/host/hosttest"
)

// Over a real sshd, killed in the middle of a command and of what follows, and resumed: nothing is done twice.
func TestSSHKilled(t *testing.T) {
	for _, c := range []struct {
		name, extra string
		decide      bool
	}{
		{"probe", "probe: {uses: exec, target: box, with: {command: [grep, -qx, slow, DIR/log], ok_codes: [1, 2]}, done: exit_code == 0}", false},
		{"blind", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			sshd := hosttest.Start(t).Config
			d := newDesk(t)
			d.env = []string{"SSH_AUTH_SOCK="}
			// slow tells that it is there, and acts when the file go is there; so the kill falls between the two.
			book := d.book("ssh.yaml", fmt.Sprintf(`
targets:
  box: {kind: host, addr: %q, user: %q, identity: %q, known_hosts: %q}
steps:
  - {id: first, uses: exec, target: box, effect: write, undo: none, with: {shell: "echo first >> DIR/log"}}
  - {id: file, uses: host.file, target: box, with: {path: DIR/file, content: "one\n", mode: "0640"}}
  - {id: slow, uses: exec, target: box, effect: write, undo: none, with: {shell: "echo here >> DIR/started; while ! test -e DIR/go; do sleep 0.02; done; echo slow >> DIR/log"}%s}
  - {id: many, for-each: [1, 2], max-parallel: 2, uses: host.file, target: box, with: {path: "DIR/many-${{ item }}", content: "${{ item }}\n"}}
  - {id: last, uses: exec, target: box, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`, sshd.Addr, sshd.User, sshd.Identity, sshd.KnownHosts, strings.TrimSuffix(", "+c.extra, ", ")))
			s := d.start("exec", book)
			until(t, "the command runs", func() bool { return len(d.lines("started")) == 1 || !s.running() })
			s.signal(syscall.SIGKILL)
			if s.wait() != -1 {
				t.Fatalf("it was not killed\n%s", s.said())
			}
			if c.decide {
				d.run("resume", "last").want(3).says("slow")
				d.write("go", "")
				d.run("resume", "last", "--decide", "slow=redo", "--reason", "its line is not there").want(0)
			} else {
				r := d.start("resume", "last")
				until(t, "it runs again", func() bool { return len(d.lines("started")) == 2 || !r.running() })
				d.write("go", "")
				r.want(0)
			}
			// A command that outlived its connection would write now: it has until the probe of a new process finds none.
			until(t, "no command of the killed runner is left", func() bool { return len(waiting(d)) == 0 })
			if got := strings.Join(d.lines("log"), " "); got != "first slow last" {
				t.Errorf("log %q\n%s", got, journalText(d))
			}
			for i := 1; i <= 2; i++ {
				if got := d.lines(fmt.Sprintf("many-%d", i)); len(got) != 1 || got[0] != fmt.Sprint(i) {
					t.Errorf("many-%d holds %q", i, got)
				}
			}
			d.sound()
		})
	}
}

// waiting are the shells that wait for this desk's file go.
func waiting(d *desk) []string {
	var found []string
	for _, line := range commandLines(d.t) {
		if strings.Contains(line, "while ! test -e "+d.path("go")) {
			found = append(found, line)
		}
	}
	return found
}

// The connection is cut under a command: nobody knows, and nobody repeats it.
func TestSSHCut(t *testing.T) {
	server := hosttest.Start(t)
	sshd := server.Config
	d := newDesk(t)
	d.env = []string{"SSH_AUTH_SOCK="}
	book := d.book("cut.yaml", fmt.Sprintf(`
targets:
  box: {kind: host, addr: %q, user: %q, identity: %q, known_hosts: %q}
steps:
  - {id: slow, uses: exec, target: box, effect: write, undo: none, retry: {attempts: 3, delay: 5ms}, with: {shell: "echo here >> DIR/started; while ! test -e DIR/go; do sleep 0.02; done; echo slow >> DIR/log"}}
`, sshd.Addr, sshd.User, sshd.Identity, sshd.KnownHosts))
	s := d.start("exec", book)
	until(t, "the command runs", func() bool { return len(d.lines("started")) == 1 || !s.running() })
	server.Cut()
	s.want(3).says("slow")
	if n := len(d.lines("started")); n != 1 {
		t.Errorf("it was started %d times", n)
	}
	d.run("resume", "last", "--decide", "slow=fail", "--reason", "the line was cut").want(1)
	d.run("runs", "verify", "last").want(0)
	d.write("go", "")
}
