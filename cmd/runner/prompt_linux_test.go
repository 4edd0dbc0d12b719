package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pseudoTerminal is a pseudo-terminal, and what a program has written to it.
type pseudoTerminal struct {
	t     *testing.T
	ctrl  *os.File
	mu    sync.Mutex
	said  bytes.Buffer
	grown chan struct{}
}

// onTerminal starts a runner on a terminal of its own.
func onTerminal(t *testing.T, dir string, env []string, args ...string) (*pseudoTerminal, *exec.Cmd) {
	t.Helper()
	ctrl, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo-terminals: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(ctrl.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ctrl.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	p := &pseudoTerminal{t: t, ctrl: ctrl, grown: make(chan struct{}, 1)}
	cmd := exec.Command("runner", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append([]string{"NO_COLOR=1"}, env...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := ctrl.Read(b)
			p.mu.Lock()
			p.said.Write(b[:n])
			p.mu.Unlock()
			select {
			case p.grown <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-read; ctrl.Close() })
	return p, cmd
}

func (p *pseudoTerminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.said.String(), "\r\n", "\n")
}

// wait waits until something is on the screen, so many times.
func (p *pseudoTerminal) wait(times int, pattern string) {
	p.t.Helper()
	wanted, late := regexp.MustCompile("(?m)"+pattern), time.After(time.Minute)
	for len(wanted.FindAllString(p.text(), -1)) < times {
		select {
		case <-p.grown:
		case <-late:
			p.t.Fatalf("%q is not %d times on the terminal:\n%s", pattern, times, p.text())
		}
	}
}

func (p *pseudoTerminal) say(line string) {
	p.t.Helper()
	if _, err := p.ctrl.WriteString(line + "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// other is a runner on another terminal.
func other(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("runner", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("runner %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return string(said)
}

const promptBook = `version: 1
name: prompt
steps:
  - {id: one, uses: approve, with: {message: One}}
  - {id: typed, uses: approve, with: {message: Typed, retype: move}}
  - {id: both, uses: approve, with: {message: Both, approvals: 2}}
  - {id: last, uses: approve, with: {message: Last}}
`

func TestThePromptAndOtherTerminals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prompt.yaml"), []byte(promptBook), 0o600); err != nil {
		t.Fatal(err)
	}
	ana, ben, carla := []string{"RUNNER_OPERATOR=ana", "RUNNER_OPERATOR_TRUSTED=1"}, []string{"RUNNER_OPERATOR=ben", "RUNNER_OPERATOR_TRUSTED=1"}, []string{"RUNNER_OPERATOR=carla", "RUNNER_OPERATOR_TRUSTED=1"}
	p, cmd := onTerminal(t, dir, ana, "exec", "prompt.yaml")

	p.wait(1, `^gate one: One\nApprove\? \[yes/no\]: $`)
	other(t, dir, ben, "approve", "last", "one", "--reason", "seen")
	p.wait(1, `^one: approved by ben \(runner approve\): seen$`)

	p.wait(1, `^gate typed: Typed\nType move to approve, or no to refuse: $`)
	p.say("yes")
	p.wait(1, `^That is not it\.\nType move to approve, or no to refuse: $`)
	p.say("move")
	p.wait(1, `^typed: approved by ana \(prompt\)$`)

	p.wait(1, `^gate both: Both\n  2 people must approve; so far: none yet\n  2 people must approve, and ana \(uid \d+\) started the run: the starter's own approval does not count\n  others approve from their own terminals: runner approve \S+ both\nRefuse\? \[no, or wait\]: $`)
	p.say("yes")
	p.wait(1, `^Refuse\? \[no, or wait\]: yes\nRefuse\? \[no, or wait\]: $`)
	other(t, dir, ben, "approve", "last", "both")
	p.wait(1, `^both: approved by ben \(runner approve\), 1 of 2$`)
	p.wait(1, `^  2 people must approve; so far: 1, by ben$`)
	other(t, dir, carla, "approve", "last", "both")
	p.wait(1, `^both: approved by carla \(runner approve\), 2 of 2$`)

	p.wait(1, `^gate last: Last\nApprove\? \[yes/no\]: $`)
	p.say("no")
	p.wait(1, `Reason \(may be empty\): $`)
	p.say("enough")
	p.wait(1, `^last: failed: refused by ana: enough$`)
	_ = cmd.Wait() // its code tells
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit %d, want %d\n%s", code, exitFailed, p.text())
	}
	if log := other(t, dir, ana, "runs", "log", "last"); !regexp.MustCompile(`typed: approved by ana \(prompt\)\n.*ana \(uid \d+\) on .*, /dev/pts/\d+, pid \d+`).MatchString(log) {
		t.Errorf("the log does not tell the terminal:\n%s", log)
	}
}
