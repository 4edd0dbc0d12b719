package acceptance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbook/steps/zookeeper/zktest"
)

// keeper is the ZooKeeper that tests share; TestMain ends it.
var keeper zktest.Server

// locked is a runbook whose lock ZooKeeper keeps. Each act writes the process id of its runner into a file, when it
// begins and when it ends.
func (d *desk) locked(addr, name, hold, session, log string, steps string) string {
	return d.book("book.yaml", strings.NewReplacer("ADDR", addr, "NAME", name, "HOLD", hold, "SESSION", session, "LOG", log).Replace(`targets:
  zk: {kind: zookeeper, addrs: ["ADDR"], session_timeout: SESSION, timeout: 5s}
lock: {name: NAME, target: zkHOLD}
steps:
`+steps))
}

const (
	act    = `exec, effect: write, idempotent: true, undo: none, with: {shell: "echo begin $PPID >> LOG; sleep 0.05; echo end $PPID >> LOG"}`
	waits  = `exec, effect: read, with: {shell: "cat DIR/go 2>/dev/null || true"}, wait-until: stdout startsWith "go", every: 10ms, timeout: 5m`
	threes = "  - {id: first, uses: " + act + "}\n  - {id: ready, uses: " + waits + "}\n  - {id: last, uses: " + act + "}\n"
)

// lockName is one that no other test has.
func lockName(t *testing.T) string { return fmt.Sprintf("%s/%d", t.Name(), time.Now().UnixNano()) }

// at waits until a step of the desk's newest run is in its journal.
func (d *desk) at(step string) {
	d.t.Helper()
	until(d.t, "step "+step+" starts", func() bool {
		for _, r := range d.records() {
			if r.Type == "step-started" && r.Step == step {
				return true
			}
		}
		return false
	})
}

type lockRecord struct {
	Type, Step string
	PID        int
	Fence      int64
}

// records are those of all runs of the desk, as far as they are on disk.
func (d *desk) records() []lockRecord {
	files, err := filepath.Glob(filepath.Join(d.state, "runs", "*", "journal.jsonl"))
	if err != nil {
		d.t.Fatal(err)
	}
	var list []lockRecord
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			var r lockRecord
			if json.Unmarshal([]byte(line), &r) == nil {
				list = append(list, r)
			}
		}
	}
	return list
}

// run of the newest run's id.
func (d *desk) newest() string {
	found, err := os.ReadDir(filepath.Join(d.state, "runs"))
	if err != nil || len(found) == 0 {
		d.t.Fatalf("no run: %v", err)
	}
	return found[len(found)-1].Name()
}

// fences are the fence numbers of the acts in a log, in its order. Whoever acted has journaled its fence before.
func fences(t *testing.T, log string, desks ...*desk) []int64 {
	t.Helper()
	of := map[int]int64{}
	for _, d := range desks {
		for _, r := range d.records() {
			if r.Fence != 0 {
				of[r.PID] = r.Fence
			}
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var list []int64
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		_, word, _ := strings.Cut(line, " ")
		pid, err := strconv.Atoi(word)
		if err != nil || of[pid] == 0 {
			t.Fatalf("%q: by a process that has journaled no fence", line)
		}
		list = append(list, of[pid])
	}
	return list
}

// inTurn fails the test where acts of two holders of the lock are mixed.
func inTurn(t *testing.T, fences []int64) {
	t.Helper()
	for i := 1; i < len(fences); i++ {
		if fences[i] < fences[i-1] {
			t.Fatalf("act %d has the fence %d, after one with %d: two runs acted at once", i, fences[i], fences[i-1])
		}
	}
}

// One acts, the other is told who; a holder that is killed is in the way until its session ends; then the other has the lock.
func TestLockOfTwoStateDirectories(t *testing.T) {
	t.Parallel()
	addr, name := keeper.Start(t), lockName(t)
	a, b := newDesk(t), newDesk(t)
	log := a.path("acts")
	book, other := a.locked(addr, name, "", "2s", log, threes), b.locked(addr, name, "", "2s", log, threes)
	b.write("go", "go")
	first := a.start("exec", book)
	a.at("ready")
	b.run("exec", other).want(5).says("lock "+name+" on zk is held by host ", fmt.Sprintf("pid %d, operator tess", first.cmd.Process.Pid), "step first, since ", "runner runs show "+a.newest())
	b.run("lock", "list", other).want(0).says(name+" on zk", a.newest())
	b.run("lock", "release", name, other, "--reason", "impatience").want(5).says("is held by")
	first.signal(syscall.SIGKILL)
	first.wait()
	b.run("exec", other).want(5)
	until(t, "the lock of a dead holder is free", func() bool { return b.run("exec", other).wait() == 0 })
	a.write("go", "go")
	a.run("resume", "last").want(0)
	b.run("lock", "list", other).want(0)
	inTurn(t, fences(t, log, a, b))
}

// hold: run keeps the claim while no process of the run lives, for the run and its resume alone.
func TestLockHeldForTheRun(t *testing.T) {
	t.Parallel()
	addr, name := keeper.Start(t), lockName(t)
	a, b := newDesk(t), newDesk(t)
	log := a.path("acts")
	book, other := a.locked(addr, name, ", hold: run", "1s", log, threes), b.locked(addr, name, "", "1s", log, threes)
	b.write("go", "go")
	for _, end := range []struct {
		how  syscall.Signal
		code int
	}{{syscall.SIGINT, 130}, {syscall.SIGKILL, -1}} {
		s := a.start("exec", book)
		a.at("ready")
		s.signal(end.how)
		s.want(end.code)
		until(t, "the lock is claimed, and nobody has it", func() bool {
			return strings.Contains(b.run("exec", other).want(5).said(), "is kept for a run that is not over: ")
		})
		a.run("runs", "remove", a.newest()).want(2).says("has claimed the lock " + name + " on zk")
		a.write("go", "go")
		a.run("resume", "last").want(0)
		b.run("exec", other).want(0)
		if err := os.Remove(a.path("go")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(a.state, "runs")); err != nil { // at() looks at all runs
			t.Fatal(err)
		}
	}
	s := a.start("exec", book)
	a.at("ready")
	s.signal(syscall.SIGTERM)
	s.want(130)
	a.run("lock", "release", name, book, "--reason", "cancelled", "--as", "ben").want(0).says("released " + name)
	a.run("runs", "log", "last").says("the claim on lock " + name + " on zk was released by ben: cancelled")
	b.run("exec", other).want(0)
}

// A run whose network is cut while a step acts has stopped acting before the lock is another's, and can be resumed.
func TestLockLostWhileAStepRuns(t *testing.T) {
	t.Parallel()
	addr, name := keeper.Start(t), lockName(t)
	relay := zktest.NewRelay(t, addr)
	a, b := newDesk(t), newDesk(t)
	log := a.path("acts")
	book := a.locked(relay.Addr(), name, "", "2s", log, `  - {id: long, uses: exec, effect: write, idempotent: true, undo: none, with: {shell: "test -e DIR/go && exit; while :; do echo on $PPID >> LOG; sleep 0.01; done"}}
  - {id: next, uses: `+act+`}
`)
	other := b.locked(addr, name, "", "2s", log, threes)
	b.write("go", "go")
	s := a.start("exec", book)
	until(t, "the step acts", func() bool { return a.exists("acts") })
	heal := relay.Partition()
	defer heal()
	until(t, "the other gets the lock", func() bool { return b.run("exec", other).wait() == 0 })
	s.want(4).says("paused: lock "+name+" is lost: ", "runner resume ")
	heal()
	a.write("go", "go")
	a.run("resume", "last").want(0)
	inTurn(t, fences(t, log, a, b))
}

// A holder that stood still for longer than its session does not act when it wakes.
func TestLockOfAHolderThatStoodStill(t *testing.T) {
	t.Parallel()
	addr, name := keeper.Start(t), lockName(t)
	a, b := newDesk(t), newDesk(t)
	log := a.path("acts")
	book, other := a.locked(addr, name, "", "2s", log, threes), b.locked(addr, name, "", "2s", log, threes)
	b.write("go", "go")
	s := a.start("exec", book)
	a.at("ready")
	s.signal(syscall.SIGSTOP)
	until(t, "the other gets the lock", func() bool { return b.run("exec", other).wait() == 0 })
	a.write("go", "go") // at once the next step may start
	s.signal(syscall.SIGCONT)
	s.want(4).says("is lost: ")
	got := fences(t, log, a, b)
	if last := got[len(got)-1]; last == got[0] {
		t.Errorf("it acted when it woke: %v", got)
	}
	a.run("resume", "last").want(0)
	inTurn(t, fences(t, log, a, b))
}

// A run goes on when ZooKeeper was restarted within the session's time: nothing changes while it is away.
func TestLockOverARestart(t *testing.T) {
	t.Parallel()
	var own zktest.Server
	t.Cleanup(own.Close)
	addr, name := own.Start(t), lockName(t)
	a := newDesk(t)
	log := a.path("acts")
	book := a.locked(addr, name, "", "15s", log, threes)
	s := a.start("exec", book)
	a.at("ready")
	own.Kill()
	a.write("go", "go")
	until(t, "only the last step is left", func() bool {
		for _, r := range a.records() {
			if r.Type == "step-finished" && r.Step == "ready" {
				return true
			}
		}
		return false
	})
	own.Start(t) // takes seconds
	if got := fences(t, log, a); len(got) != 2 {
		t.Errorf("%d lines of acts, want those of the first step: the last one must wait", len(got))
	}
	s.want(0)
	if got := fences(t, log, a); len(got) != 4 || got[0] != got[3] {
		t.Errorf("the fences of its acts are %v, want four of one", got)
	}
}

// Whatever dies and is cut off, the acts of two runs never mix, and the fence never goes back.
func TestLockNeverHasTwoHolders(t *testing.T) {
	t.Parallel()
	addr, name := keeper.Start(t), lockName(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "  - {id: act%d, uses: %s}\n", i, act)
	}
	log := filepath.Join(t.TempDir(), "acts")
	desks := []*desk{newDesk(t), newDesk(t)}
	limit := time.Now().Add(12 * time.Second)
	var work sync.WaitGroup
	for i, d := range desks {
		relay := zktest.NewRelay(t, addr)
		book := d.locked(relay.Addr(), name, "", "1s", log, text.String())
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		work.Go(func() {
			next := []string{"exec", book}
			for time.Now().Before(limit) {
				s := d.start(next...)
				trouble := time.NewTimer(time.Duration(200+random.IntN(700)) * time.Millisecond)
				heal := func() {}
				select {
				case <-s.over:
				case <-trouble.C:
					switch random.IntN(3) {
					case 0:
						s.signal(syscall.SIGKILL)
					case 1:
						heal = relay.Partition()
					case 2: // shorter than the session
						short := relay.Partition()
						time.AfterFunc(time.Duration(random.IntN(500))*time.Millisecond, short)
					}
				}
				code := s.wait()
				trouble.Stop()
				heal()
				switch code {
				case 0, 2, 5: // over, or it never began
					if code == 0 || next[0] == "exec" {
						next = []string{"exec", book}
					}
				case 4, 3, -1, 130:
					if found, err := os.ReadDir(filepath.Join(d.state, "runs")); err == nil && len(found) > 0 {
						next = []string{"resume", "last"}
					}
				default:
					t.Errorf("exit code %d: %s", code, s.said())
					return
				}
			}
		})
	}
	work.Wait()
	got := fences(t, log, desks...)
	inTurn(t, got)
	holders := map[int64]bool{}
	for _, f := range got {
		holders[f] = true
	}
	t.Logf("%d lines of acts, %d fences", len(got), len(holders))
	if len(holders) < 3 {
		t.Errorf("the lock had %d holders: too few to tell", len(holders))
	}
}
