package acceptance

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func TestInterruptedInAWait(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	book := d.book("wait.yaml", `
steps:
  - {id: first, uses: exec, effect: write, undo: none, with: {shell: "echo first >> DIR/log"}}
  - {id: there, uses: exec, effect: read, with: {command: [test, -e, DIR/go], ok_codes: [1]}, wait-until: exit_code == 0, every: 20ms, timeout: 10m}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
finally:
  - {id: tidy, uses: host.file, with: {path: DIR/tidy, content: "t\n"}}
`)
	for range 2 { // a resume is interrupted as an exec is
		args := []string{"exec", book}
		if len(d.runs()) > 0 {
			args = []string{"resume", "last"}
		}
		before := len(d.journal())
		s := d.start(args...)
		until(t, "it waits", func() bool {
			for _, r := range d.journal()[min(before, len(d.journal())):] {
				if r.Type == "step-started" && r.Step == "there" {
					return true
				}
			}
			return !s.running()
		})
		s.signal(syscall.SIGINT)
		s.want(130).says("runner resume")
		if r := d.find("run-finished", "there"); r == nil || r.Status != "interrupted" {
			t.Errorf("the journal ends without run-finished interrupted:\n%s", journalText(d))
		}
		if d.exists("tidy") {
			t.Error("finally ran at an interruption")
		}
		d.alone()
	}
	d.write("go", "")
	d.run("resume", "last").want(0)
	if got := strings.Join(d.lines("log"), " "); got != "first last" || !d.exists("tidy") {
		t.Errorf("log %q, tidy %v", got, d.exists("tidy"))
	}
	d.sound()
}

// family is a command with a child and a grand-child, which all write down that they are there.
const family = `test -e DIR/go && echo done >> DIR/log && exit 0; sh -c \"sleep 300 & echo grandchild >> DIR/started; wait\" & echo child >> DIR/started; wait`

func TestInterruptedInACommandWithGrandchildren(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, extra string }{
		{"idempotent", "idempotent: true"},
		{"probe", `probe: {uses: exec, with: {command: [grep, -qx, done, DIR/log], ok_codes: [1, 2]}, done: exit_code == 0}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			book := d.book("family.yaml", `
steps:
  - {id: family, uses: exec, effect: write, undo: none, with: {shell: "`+family+`"}, `+c.extra+`}
`)
			s := d.start("exec", book)
			until(t, "the family is there", func() bool { return len(d.lines("started")) == 2 })
			s.signal(syscall.SIGINT)
			s.want(130)
			d.alone()
			d.write("go", "")
			d.run("resume", "last").want(0)
			if got := d.lines("log"); len(got) != 1 {
				t.Errorf("it was done %d times", len(got))
			}
			d.sound()
		})
	}
}

// A command that nobody can ask, ended by the interruption: nobody knows, and the resume asks the operator.
func TestInterruptedInABlindCommand(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	book := d.book("blind.yaml", `
steps:
  - {id: family, uses: exec, effect: write, undo: none, with: {shell: "`+family+`"}}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`)
	s := d.start("exec", book)
	until(t, "the family is there", func() bool { return len(d.lines("started")) == 2 })
	s.signal(syscall.SIGINT)
	if code := s.wait(); code != 130 && code != 3 {
		t.Fatalf("exit code %d\n%s", code, s.said())
	}
	d.alone()
	d.run("resume", "last").want(3).says("family", "family=done|redo|fail")
	d.write("go", "")
	d.run("resume", "last", "--decide", "family=redo", "--reason", "started has it, log has not").want(0)
	if got := strings.Join(d.lines("log"), " "); got != "done last" {
		t.Errorf("log %q", got)
	}
	d.sound()
}

func TestInterruptedInAParallelGroup(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	book := d.book("beside.yaml", `
steps:
  - id: beside
    parallel: true
    steps:
      - {id: waits, uses: exec, effect: read, with: {command: [test, -e, DIR/go], ok_codes: [1]}, wait-until: exit_code == 0, every: 20ms, timeout: 10m}
      - {id: works, uses: exec, effect: write, idempotent: true, undo: none, with: {shell: "`+family+`"}}
      - {id: quick, uses: exec, effect: write, undo: none, with: {shell: "echo quick >> DIR/log"}}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`)
	s := d.start("exec", book)
	until(t, "all three run", func() bool {
		return len(d.lines("started")) == 2 && d.seen("step-observed", "waits") && d.seen("step-finished", "quick")
	})
	s.signal(syscall.SIGTERM)
	s.want(130)
	d.alone()
	d.write("go", "")
	d.run("resume", "last").want(0)
	if got := strings.Join(d.lines("log"), " "); got != "quick done last" {
		t.Errorf("log %q", got)
	}
	d.sound()
}

// The second signal ends the runner at once, though a child does not listen: what it does is a resume's business.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	book := d.book("deaf.yaml", `
steps:
  - id: deaf
    uses: exec
    effect: write
    undo: none
    with: {shell: "trap '' TERM INT; echo here >> DIR/started; while ! test -e DIR/go; do sleep 0.02; done; echo done >> DIR/log"}
    probe: {uses: exec, with: {command: [grep, -qx, done, DIR/log], ok_codes: [1, 2]}, done: exit_code == 0}
`)
	s := d.start("exec", book)
	until(t, "the command runs", func() bool { return d.exists("started") })
	s.signal(syscall.SIGINT)
	until(t, "it is out", func() bool {
		time.Sleep(20 * time.Millisecond)
		s.signal(syscall.SIGINT)
		return !s.running()
	})
	s.want(130)
	if d.seen("run-finished", "deaf") || d.seen("run-interrupted", "deaf") {
		t.Errorf("it settled, and was to leave at once:\n%s", journalText(d))
	}
	if len(d.processes()) == 0 {
		t.Error("the deaf command is gone: this test proves nothing")
	}
	r := d.start("resume", "last") // it waits for the command that is still at work
	until(t, "the resume says that it waits", func() bool {
		text, err := os.ReadFile(r.cmd.Stderr.(*os.File).Name())
		return err == nil && strings.Contains(string(text), "still alive") || !r.running()
	})
	if d.seen("run-resumed", "") {
		t.Errorf("the resume went on beside the command:\n%s", journalText(d))
	}
	d.write("go", "")
	r.want(0)
	if got := d.lines("log"); len(got) != 1 {
		t.Errorf("it was done %d times", len(got))
	}
	d.sound()
}

func TestInterruptedAtAGate(t *testing.T) {
	t.Parallel()
	const gate = `
steps:
  - {id: first, uses: exec, effect: write, undo: none, with: {shell: "echo first >> DIR/log"}}
  - {id: ask, uses: approve, with: {message: "Go on?"}}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`
	t.Run("terminal", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		book := d.book("gate.yaml", gate)
		keyboard, s := d.startOnTerminal("exec", book)
		until(t, "it asks", func() bool { return strings.Contains(s.out.String(), "Approve?") || !s.running() })
		fmt.Fprint(keyboard, "\x03")
		s.want(130)
		d.run("resume", "last").want(4).says("--approve")
		d.run("resume", "last", "--approve", "ask").want(0)
		if got := strings.Join(d.lines("log"), " "); got != "first last" {
			t.Errorf("log %q", got)
		}
		d.sound()
	})
	t.Run("answered", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		book := d.book("gate.yaml", gate)
		keyboard, s := d.startOnTerminal("exec", book)
		until(t, "it asks", func() bool { return strings.Contains(s.out.String(), "Approve?") || !s.running() })
		fmt.Fprint(keyboard, "yes\n")
		s.want(0)
		d.sound()
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		book := d.book("gate.yaml", gate)
		keyboard, s := d.startOnTerminal("exec", book)
		until(t, "it asks", func() bool { return strings.Contains(s.out.String(), "Approve?") || !s.running() })
		fmt.Fprint(keyboard, "no\n")
		until(t, "it asks why", func() bool { return strings.Contains(s.out.String(), "Reason") || !s.running() })
		fmt.Fprint(keyboard, "not today\n")
		s.want(1)
		d.sound()
	})
	t.Run("no terminal", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.run("exec", d.book("gate.yaml", gate)).want(4).says("--approve 'ask'")
		d.run("resume", "last", "--approve", "ask").want(0)
		d.sound()
	})
}

// startOnTerminal starts a runner that has a terminal of its own; what it shows is in out.
func (d *desk) startOnTerminal(args ...string) (keyboard *os.File, s *session) {
	d.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		d.t.Fatalf("a terminal: %v", err)
	}
	var unlock, n int32
	for _, c := range []struct {
		request uintptr
		value   *int32
	}{{syscall.TIOCSPTLCK, &unlock}, {syscall.TIOCGPTN, &n}} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), c.request, uintptr(unsafe.Pointer(c.value))); e != 0 {
			d.t.Fatalf("a terminal: %v", e)
		}
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		d.t.Fatalf("a terminal: %v", err)
	}
	cmd := d.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s = &session{t: d.t, cmd: cmd, args: args, out: &buffer{}, err: &buffer{}, over: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	tty.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			_, _ = s.out.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_ = cmd.Wait()
		<-read
		close(s.over)
	}()
	d.t.Cleanup(func() { master.Close() })
	return master, s
}
