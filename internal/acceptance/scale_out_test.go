package acceptance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runbook/internal/simulate"
)

// The scale-out from its attaching to its clean-up, by the parts that ship, killed at a random instant and resumed.
const scaleOutBook = `
targets:
  source: {kind: pika, addr: "SOURCE"}
  source_replica: {kind: pika, addr: "SOURCEREPLICA"}
  destination: {kind: pika, addr: "DESTINATION"}
  destination_replica: {kind: pika, addr: "DESTINATIONREPLICA"}
  codis: {kind: codis, addr: "CODIS", product: demo}
steps:
  - id: attach
    uses: ./lib/pika-attach-slots.yaml
    with: {slots: "1-8", source: source, destination: destination, destination_replica: destination_replica}
  - id: move
    uses: ./lib/codis-switch-slots.yaml
    with: {slots: "1-8", to_group: 3, codis: codis, source: source, destination: destination, max_pause: 20s, between: 0s}
  - id: clean_up
    point-of-no-return: true
    confirm: {message: "Delete the old copies?"}
    uses: ./lib/pika-drop-slots.yaml
    with: {slots: "1-8", codis: codis, former: source, former_replica: source_replica, owner: destination}
`

func newScaleOut(t *testing.T) *stage {
	t.Helper()
	pika := func(slots, of string) simulate.System {
		return simulate.System{Kind: "pika", Slots: slots, ReplicaOf: of, FullSync: 5 * time.Millisecond}
	}
	s := stageOf(t, simulate.Spec{Version: 1, Systems: map[string]simulate.System{
		"source": pika("0-1023", ""), "source_replica": pika("0-1023", "source"),
		"destination": {Kind: "pika", FullSync: 5 * time.Millisecond}, "destination_replica": {Kind: "pika", FullSync: 5 * time.Millisecond},
		"zk": {Kind: "zookeeper"},
		"codis": {Kind: "codis", Product: "demo", Proxies: 2, Slots: map[string]any{"0-1023": 1},
			Groups: map[string][]string{"1": {"source", "source_replica"}, "3": {"destination", "destination_replica"}}},
	}, Traffic: &simulate.Traffic{Through: "codis", Clients: 8, WritesPerSecond: 300, Keys: 160, Slots: "1-8", Timeout: time.Minute}})
	if err := os.MkdirAll(s.path("lib"), 0o700); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob("../../runbooks/lib/*.yaml")
	if err != nil || len(parts) == 0 {
		t.Fatalf("the parts that ship: %v, %v", parts, err)
	}
	for _, from := range parts {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		s.desk.write(filepath.Join("lib", filepath.Base(from)), string(text))
	}
	s.book = s.desk.book("scale-out.yaml", strings.NewReplacer("SOURCEREPLICA", s.w.Addr("source_replica"), "SOURCE", s.w.Addr("source"),
		"DESTINATIONREPLICA", s.w.Addr("destination_replica"), "DESTINATION", s.w.Addr("destination"), "CODIS", s.w.Addr("codis")).Replace(scaleOutBook))
	return s
}

// TestScaleOutKilled: KILLS rounds, 2 without.
func TestScaleOutKilled(t *testing.T) {
	rounds := 2
	if text := os.Getenv("KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			s := newScaleOut(t)
			after := 500*time.Millisecond + time.Duration(rand.Int64N(int64(16*time.Second))) // it has begun by then
			t.Logf("killed after %v", after)
			runner := s.start("exec", "--approve", "all", "--yes", s.book)
			kill := time.AfterFunc(after, func() { _ = syscall.Kill(runner.cmd.Process.Pid, syscall.SIGKILL) })
			<-runner.over
			if kill.Stop() {
				t.Log("it was done before")
				runner.want(0)
			} else {
				again := s.start("resume", "--approve", "all", "--yes", "last")
				<-again.over // a deletion that was cut short waits 30 s for what may be queued
				again.want(0)
			}
			s.run("runs", "verify", "last").want(0)
			if s.locked() || s.held() > 0 {
				t.Errorf("%d clients wait", s.held())
			}
			for slot := 1; slot <= 8; slot++ {
				if s.w.Pika("source").HasSlot(slot) || s.w.Pika("source_replica").HasSlot(slot) || !s.w.Pika("destination").OwnsSlot(slot) || !s.w.Pika("destination_replica").HasSlot(slot) {
					t.Errorf("slot %d is not where it belongs", slot)
				}
			}
			s.unharmed()
		})
	}
}
