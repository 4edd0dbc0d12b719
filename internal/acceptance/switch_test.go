package acceptance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbook/internal/simulate"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/traffic"
)

// The switch of a slot, killed. The product is simulated in this process and the runner is a process of its own, so that
// SIGKILL is what it is in production: nobody lets the clients go but the guardian, or a resume.

const switchBook = `
targets:
  source: {kind: pika, addr: "SOURCE"}
  destination: {kind: pika, addr: "DESTINATION"}
  codis: {kind: codis, addr: "CODIS", product: demo}
steps:
  - {id: add, uses: pika.addslots, target: destination, with: {slots: "1-2", served_by: source}}
  - {id: follow, uses: pika.slotsslaveof, target: destination, with: {slots: "1-2", master: source, force: true}}
  - id: followed
    uses: pika.slot-info
    target: destination
    with: {slots: "1-2"}
    wait-until: connected && replica_state == "SlaveBinlogSync" && lag != nil && lag < 65536
    every: 20ms
    timeout: 1m
  - id: switch
    uses: codis.switch-slot
    target: codis
    with: {slots: "1-2", to_group: 3, source: source, destination: destination, max_pause: 20s}
  - id: routes
    uses: codis.slot-info
    target: codis
    with: {slots: "1-2"}
    recheck: true
    expect: agree && groups == [3] && locked == 0
`

// stage is a product under load, and a desk with the runbook.
type stage struct {
	*desk
	w    *simulate.World
	load *traffic.Traffic
	book string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	spec := simulate.Spec{Version: 1, Systems: map[string]simulate.System{
		"source":      {Kind: "pika", Slots: "0-1023", Keys: 200, FullSync: 20 * time.Millisecond},
		"destination": {Kind: "pika", FullSync: 20 * time.Millisecond},
		"zk":          {Kind: "zookeeper"},
		"codis": {Kind: "codis", Product: "demo", Proxies: 2, Slots: map[string]any{"0-1023": 1},
			Groups: map[string][]string{"1": {"source"}, "3": {"destination"}}},
	}, Traffic: &simulate.Traffic{Through: "codis", Clients: 8, WritesPerSecond: 400, Keys: 160, Slots: "1-2", Timeout: time.Minute}}
	s := stageOf(t, spec)
	s.book = s.desk.book("switch.yaml", strings.NewReplacer("SOURCE", s.w.Addr("source"), "DESTINATION", s.w.Addr("destination"), "CODIS", s.w.Addr("codis")).Replace(switchBook))
	return s
}

// stageOf brings a world up and its load to work.
func stageOf(t *testing.T, spec simulate.Spec) *stage {
	t.Helper()
	w, err := simulate.Start(t.Context(), spec, simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	load, err := w.StartTraffic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{desk: newDesk(t), w: w, load: load}
	t.Cleanup(func() {
		if s.load != nil {
			s.load.Stop()
		}
	})
	return s
}

// onRequest asks f about every request that changes something, of the runner or its guardian, from the first hold on.
func (s *stage) onRequest(f func(request string) fault.Action) {
	var mu sync.Mutex
	begun := false
	ask := func(request string) fault.Action {
		mu.Lock()
		begun = begun || strings.Contains(request, `"locked":true`)
		now := begun
		mu.Unlock()
		if !now {
			return fault.Pass()
		}
		return f(request)
	}
	http := func(method, path string, body []byte) fault.Action {
		if method != "PUT" {
			return fault.Pass()
		}
		return ask(path + " " + string(body))
	}
	resp := func(cmd []string) fault.Action {
		line := strings.ToLower(strings.Join(cmd, " "))
		if strings.HasPrefix(line, "set {") || strings.HasPrefix(line, "del {") || strings.HasPrefix(line, "pkcluster slotsslaveof") {
			return ask(line)
		}
		return fault.Pass()
	}
	s.w.Codis("codis").SetIntercept(http)
	for _, p := range s.w.Proxies("codis") {
		p.SetIntercept(http, "dashboard")
	}
	s.w.Pika("source").SetIntercept(resp, "traffic")
	s.w.Pika("destination").SetIntercept(resp, "traffic")
}

// guardians are the processes of this desk that are one.
func (d *desk) guardians() (pids []int) {
	for _, pid := range d.processes() {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "\x00guardian\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// held counts the clients that wait at the proxies.
func (s *stage) held() (n int) {
	for _, p := range s.w.Proxies("codis") {
		n += p.Held()
	}
	return n
}

// locked says that some proxy holds a slot.
func (s *stage) locked() bool {
	for _, p := range s.w.Proxies("codis") {
		for _, slot := range p.Routes() {
			if slot.Locked {
				return true
			}
		}
	}
	return false
}

// unharmed stops the load and wants that nothing was lost, nobody waits, and every slot has one owner.
func (s *stage) unharmed() {
	s.t.Helper()
	s.load.Stop()
	report, err := s.w.CheckTraffic(context.Background(), s.load)
	if err != nil {
		s.t.Fatal(err)
	}
	s.load = nil
	for name, what := range report.Broken() {
		s.t.Errorf("%s: %s", name, what)
	}
	broken, err := s.w.CheckSlots()
	if err != nil {
		s.t.Fatal(err)
	}
	if what := broken["one-owner"]; what != "" {
		s.t.Errorf("one-owner: %s", what)
	}
	s.t.Logf("%d writes acknowledged, %d lost, longest wait %v", report.Acknowledged, len(report.Lost), report.MaxWait)
}

// TestSwitchKilled kills the runner at every request of a switch, before or after it is carried out, with its guardian
// alive or killed as well. With a guardian the clients are served at once; without one by the resume.
func TestSwitchKilled(t *testing.T) {
	requests := countRequests(t)
	if requests < 8 {
		t.Fatalf("a switch sends %d requests that change something", requests)
	}
	all := os.Getenv("KILLS") != ""
	for n := 1; n <= requests; n++ {
		for _, carried := range []bool{false, true} {
			for _, guarded := range []bool{true, false} {
				if !all && (n+btoi(carried)+btoi(guarded))%3 != 0 { // a third of them each time; make kill has all
					continue
				}
				t.Run(fmt.Sprintf("request %d, carried out %v, guardian %v", n, carried, guarded), func(t *testing.T) {
					t.Parallel()
					killedSwitch(t, n, carried, guarded)
				})
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func countRequests(t *testing.T) int {
	s := newStage(t)
	var mu sync.Mutex
	n := 0
	s.onRequest(func(string) fault.Action {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fault.Pass()
	})
	s.run("exec", s.book).want(0)
	s.unharmed()
	return n
}

func killedSwitch(t *testing.T, n int, carried, guarded bool) {
	s := newStage(t)
	var mu sync.Mutex
	seen := 0
	var runner *session
	started := make(chan struct{})
	s.onRequest(func(string) fault.Action {
		<-started
		mu.Lock()
		defer mu.Unlock()
		if seen++; seen != n {
			return fault.Pass()
		}
		if !guarded {
			for _, pid := range s.guardians() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = syscall.Kill(runner.cmd.Process.Pid, syscall.SIGKILL)
		if carried {
			return fault.Pass()
		}
		return fault.CutBefore()
	})
	runner = s.start("exec", s.book)
	close(started)
	runner.wait()
	if guarded {
		until(t, "the guardian has done its work", func() bool { return len(s.guardians()) == 0 })
		if s.locked() {
			t.Error("the guardian has left a slot held")
		}
		if log := s.guardianLog(); !strings.Contains(log, "safe end") {
			t.Errorf("the guardian says:\n%s", log)
		}
	}
	s.onRequest(func(string) fault.Action { return fault.Pass() })
	s.run("resume", "last").want(0)
	if s.locked() || s.held() > 0 {
		t.Errorf("after the resume %d clients wait", s.held())
	}
	s.run("runs", "verify", "last").want(0)
	s.unharmed()
}

func (s *stage) guardianLog() string {
	files, _ := filepath.Glob(filepath.Join(s.state, "runs", "*", "guardian.log"))
	if len(files) != 1 {
		return fmt.Sprintf("%d logs", len(files))
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// TestSwitchHangs: a runner that stands still in the middle of a switch is ended by its guardian when the time is over:
// it might wake up later and go on with what is long undone.
func TestSwitchHangs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.desk.write("switch.yaml", strings.Replace(s.read("switch.yaml"), "max_pause: 20s", "max_pause: 3s", 1)) // the guardian waits for as long, and the resume has to keep to it
	var once sync.Once
	var runner *session
	started := make(chan struct{})
	s.onRequest(func(request string) fault.Action {
		<-started
		if strings.HasPrefix(request, "set {") {
			once.Do(func() { _ = syscall.Kill(runner.cmd.Process.Pid, syscall.SIGSTOP) })
		}
		return fault.Pass()
	})
	runner = s.start("exec", s.book)
	close(started)
	limit := time.Now().Add(time.Minute)
	for runner.running() && time.Now().Before(limit) {
		time.Sleep(20 * time.Millisecond)
	}
	if runner.running() {
		t.Fatal("the guardian has not ended the runner")
	}
	until(t, "the guardian has done its work", func() bool { return len(s.guardians()) == 0 })
	if s.locked() {
		t.Error("a slot is still held")
	}
	s.run("resume", "last").want(0)
	s.unharmed()
}

func (d *desk) read(name string) string {
	d.t.Helper()
	text, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}
