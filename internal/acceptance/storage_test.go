package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount puts a small file system of its own in the place of the state directory; options as of tmpfs.
func (d *desk) mount(options string) {
	d.t.Helper()
	if os.Geteuid() != 0 {
		d.t.Skip("only root may mount a tmpfs, and a full or read-only disk is tested on one: run this test as root")
	}
	if err := os.MkdirAll(d.state, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", d.state, "tmpfs", 0, options); err != nil {
		d.t.Fatalf("mount a tmpfs on %s: %v", d.state, err)
	}
	d.t.Cleanup(func() {
		if err := syscall.Unmount(d.state, syscall.MNT_DETACH); err != nil {
			d.t.Errorf("unmount %s: %v", d.state, err)
		}
	})
}

func (d *desk) remount(flags uintptr, options string) {
	d.t.Helper()
	if err := syscall.Mount("tmpfs", d.state, "tmpfs", syscall.MS_REMOUNT|flags, options); err != nil {
		d.t.Fatalf("remount %s: %v", d.state, err)
	}
}

func (d *desk) journalPath() string {
	d.t.Helper()
	runs := d.runs()
	if len(runs) == 0 {
		d.t.Fatal("there is no run")
	}
	return filepath.Join(runs[len(runs)-1], "journal.jsonl")
}

// The disk fills up while a run writes its journal: it stops before it acts, and with room made it goes on to its end.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.mount("size=256k")
	book := d.book("full.yaml", `
steps:
  - id: many
    for-each: "0..59"
    steps:
      - id: append
        uses: exec
        effect: write
        undo: none
        with: {shell: "echo line_${{ item }} >> DIR/log; head -c 6000 /dev/zero | tr '\\0' x"}
        probe: {uses: exec, with: {command: [grep, -qx, "line_${{ item }}", DIR/log], ok_codes: [1, 2]}, done: exit_code == 0}
`)
	d.run("exec", book).want(3).says("no space left on device", "make room", "resume")
	done := len(d.lines("log"))
	if done == 0 || done == 60 {
		t.Fatalf("the disk was to be full in the middle, and %d lines are there", done)
	}
	finished := 0
	for _, r := range d.journal() {
		if r.Type == "step-finished" && strings.HasSuffix(r.Step, "/append") {
			finished++
		}
	}
	if done-finished > 1 {
		t.Errorf("%d were done, and the journal knows of %d: it acted without a record", done, finished)
	}
	d.run("runs", "list").want(0)
	d.run("runs", "show", "last").want(0)
	d.run("resume", "last") // still no room: it must not do any harm
	if now := len(d.lines("log")); now-done > 1 {
		t.Errorf("a resume on a full disk did %d steps", now-done)
	}
	d.remount(0, "size=8m")
	d.run("resume", "last").want(0)
	for i, l := range d.lines("log") {
		if l != fmt.Sprintf("line_%d", i) {
			t.Fatalf("line %d is %s", i, l)
		}
	}
	if got := len(d.lines("log")); got != 60 {
		t.Errorf("%d lines", got)
	}
	d.sound()
}

// No room at all: nothing is begun.
func TestFullDiskAtTheStart(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.mount("size=64k")
	if err := os.WriteFile(filepath.Join(d.state, "ballast"), make([]byte, 64<<10), 0o600); err != nil && !strings.Contains(err.Error(), "no space") {
		t.Fatal(err)
	}
	book := d.book("full.yaml", `
steps:
  - {id: append, uses: exec, effect: write, undo: none, with: {shell: "echo line >> DIR/log"}}
`)
	s := d.run("exec", book).says("no space left on device")
	if code := s.wait(); code != 2 && code != 3 {
		t.Errorf("exit code %d\n%s", code, s.said())
	}
	if d.exists("log") {
		t.Error("it acted without a journal")
	}
}

func TestReadOnlyStateDirectory(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.mount("size=8m")
	book := d.book("readonly.yaml", `
steps:
  - {id: first, uses: exec, effect: write, undo: none, with: {shell: "echo first >> DIR/log"}}
  - {id: there, uses: exec, effect: read, with: {command: [test, -e, DIR/go]}}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`)
	d.run("exec", book).want(1)
	d.write("go", "")
	d.remount(syscall.MS_RDONLY, "")
	d.run("exec", book).want(2).says("read-only file system")
	d.run("resume", "last").want(2).says("read-only file system")
	d.run("runs", "list").want(0).says("failed")
	d.run("runs", "show", "last").want(0)
	d.run("runs", "log", "last").want(0)
	d.run("runs", "verify", "last").want(0)
	d.run("resume", "last", "--explain").want(0)
	d.run("lint", book).want(0)
	d.run("exec", "--dry-run", book).want(0)
	if got := strings.Join(d.lines("log"), " "); got != "first" {
		t.Errorf("log %q", got)
	}
	d.remount(0, "")
	d.run("resume", "last").want(0)
	if got := strings.Join(d.lines("log"), " "); got != "first last" {
		t.Errorf("log %q", got)
	}
	d.sound()
}

// stopped is a desk with a run that stopped at its second step, and goes on once the file go is there.
func stopped(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.run("exec", d.book("stopped.yaml", `
steps:
  - {id: first, uses: exec, effect: write, undo: none, with: {shell: "echo first >> DIR/log"}}
  - {id: there, uses: exec, effect: read, with: {command: [test, -e, DIR/go]}}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`)).want(1)
	d.write("go", "")
	return d
}

func (d *desk) change(path string, f func([]byte) []byte) {
	d.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, f(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		f    func([]byte) []byte
		says string
	}{
		{"a flipped byte", func(b []byte) []byte { b[bytes.Index(b, []byte(`"first"`))+2] ^= 4; return b }, "line 2"},
		{"a line taken out", func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join(append(lines[:2:2], lines[3:]...), nil)
		}, "line 3"},
		{"two lines in the other order", func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			lines[1], lines[2] = lines[2], lines[1]
			return bytes.Join(lines, nil)
		}, "line 2"},
		{"a hole of zeros", func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+64]); return b }, "line"},
		{"empty", func([]byte) []byte { return nil }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := stopped(t)
			path := d.journalPath()
			d.change(path, c.f)
			damaged, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			d.run("runs", "verify", "last").want(1).says(c.says)
			d.run("resume", "last").want(2).says(c.says)
			d.run("resume", "last", "--explain").want(2).says(c.says)
			d.run("runs", "list").want(0)
			for _, command := range []string{"show", "log"} {
				if s := d.run("runs", command, "last").says(c.says); s.wait() != 1 && s.wait() != 2 {
					t.Errorf("runs %s: exit code %d\n%s", command, s.wait(), s.said())
				}
			}
			if got := strings.Join(d.lines("log"), " "); got != "first" {
				t.Errorf("log %q: something ran on a damaged journal", got)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
				t.Errorf("the damaged journal was written to (%v)", err)
			}
			d.alone()
		})
	}
}

func TestTornJournal(t *testing.T) {
	t.Parallel()
	for _, cut := range []int{1, 20} {
		d := stopped(t)
		d.change(d.journalPath(), func(b []byte) []byte { return b[:len(b)-cut] })
		d.run("runs", "verify", "last").want(0).says("trace of a crash")
		d.run("runs", "show", "last").want(0)
		// The record that was lost told how the run ended: that is told anew, and then the run goes on.
		d.run("resume", "last").want(1).says("cut")
		d.run("resume", "last").want(0)
		if got := strings.Join(d.lines("log"), " "); got != "first last" {
			t.Errorf("log %q", got)
		}
		d.sound()
	}
}

func TestDamagedPlan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(t *testing.T, path string)
	}{
		{"deleted", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"edited", func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			edited := bytes.Replace(text, []byte("echo last"), []byte("echo LAST"), -1)
			if bytes.Equal(edited, text) {
				t.Fatal("the plan does not hold the runbook's text")
			}
			if err := os.WriteFile(path, edited, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"cut short", func(t *testing.T, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		}},
		{"empty", func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := stopped(t)
			c.do(t, filepath.Join(filepath.Dir(d.journalPath()), "plan.json"))
			d.run("resume", "last").want(2).says("plan")
			d.run("runs", "verify", "last").want(1).says("plan")
			d.run("runs", "list").want(0).says("failed")
			d.run("runs", "show", "last").want(0)
			d.run("runs", "log", "last").want(0)
			if got := strings.Join(d.lines("log"), " "); got != "first" {
				t.Errorf("log %q", got)
			}
		})
	}
}

// holding is a runbook that runs until the file go is there.
const holding = `
lock: {name: shop/cart}
steps:
  - {id: there, uses: exec, effect: read, with: {command: [test, -e, DIR/go], ok_codes: [1]}, wait-until: exit_code == 0, every: 10ms, timeout: 10m}
  - {id: last, uses: exec, effect: write, undo: none, with: {shell: "echo last >> DIR/log"}}
`

func TestTwoRunnersOfOneRun(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.start("exec", d.book("held.yaml", strings.Replace(holding, "lock: {name: shop/cart}", "", 1)))
	d.reaches(s, "step-started", "there")
	d.run("resume", "last").want(5).says(fmt.Sprint(s.cmd.Process.Pid), "tess")
	if r := d.run("runs", "remove", filepath.Base(d.runs()[0])); r.wait() != 5 {
		t.Errorf("runs remove of a run under way: exit code %d\n%s", r.wait(), r.said())
	}
	d.run("runs", "show", "last").want(0).says("there")
	d.run("runs", "list").want(0).says("running")
	d.run("runs", "verify", "last").want(0)
	d.write("go", "")
	s.want(0)
	if got := strings.Join(d.lines("log"), " "); got != "last" {
		t.Errorf("log %q", got)
	}
	d.sound()
}

func TestTwoRunsOfOneLock(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	first := d.book("one.yaml", holding)
	second := d.book("two.yaml", holding)
	s := d.start("exec", first)
	d.reaches(s, "step-started", "there")
	d.run("exec", second).want(5).says("shop/cart", fmt.Sprint(s.cmd.Process.Pid), "tess")
	if n := len(d.runs()); n != 1 {
		t.Errorf("%d runs are there: one was refused", n)
	}
	s.signal(syscall.SIGKILL) // a lock dies with its holder
	s.wait()
	d.write("go", "")
	d.run("exec", second).want(0)
	d.run("resume", filepath.Base(d.runs()[0])).want(0)
	if got := strings.Join(d.lines("log"), " "); got != "last last" {
		t.Errorf("log %q", got)
	}
	d.sound()
}

func TestDamagedRunInTheList(t *testing.T) {
	t.Parallel()
	d := stopped(t)
	d.change(d.journalPath(), func(b []byte) []byte { b[len(b)/3] ^= 1; return b })
	bad := filepath.Base(d.runs()[0])
	d.run("exec", filepath.Join(d.dir, "stopped.yaml")).want(0)
	if err := os.MkdirAll(filepath.Join(d.state, "runs", "20200101-000000-aaaaaaaa"), 0o700); err != nil { // killed before it began
		t.Fatal(err)
	}
	d.write("state/runs/notes.txt", "not a run\n")
	d.run("runs", "list").want(0).says(bad, "succeeded", "line ")
	s := d.run("runs", "list", "--output", "json").want(0)
	var list []struct{ Run, Status, Problem string }
	if err := json.Unmarshal([]byte(s.out.String()), &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, l := range list {
		found[l.Run] = l.Status
		if l.Status == "damaged" && l.Problem == "" {
			t.Errorf("%s is damaged, and nobody says how", l.Run)
		}
	}
	if found[bad] != "damaged" {
		t.Errorf("the damaged run is %q; the list: %v", found[bad], found)
	}
	d.run("runs", "show", "last").want(0)
}
