package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// watched is a kind that asks for a guardian. What its act does is each test's.
type watched struct {
	act   func(ctx context.Context, g steps.Guardian) error
	mu    sync.Mutex
	acted []string // what guardians were told when they acted
	plan  string
	key   string
}

type watchedIn struct{}
type watchedOut struct{}

type vaultConfig struct {
	Addr  schema.Addr   `yaml:"addr,required" doc:"."`
	Key   schema.Secret `yaml:"key" doc:"."`
	Limit time.Duration `yaml:"limit" doc:"."`
	Size  int           `yaml:"size" doc:"."`
}

// kinds gives the target kind and the step kind.
func (w *watched) kinds() ([]*steps.Definition, []*steps.TargetDefinition) {
	vault := &steps.TargetKind[vaultConfig, *vaultConfig]{
		Name: "vault", Example: `{kind: vault, addr: "127.0.0.1:1"}`,
		Valid: func(vaultConfig, func(string) bool) []steps.Problem { return nil },
		Addr:  func(c vaultConfig) string { return string(c.Addr) },
		Open:  func(_ context.Context, c vaultConfig, _ steps.Access) (*vaultConfig, error) { return &c, nil },
		Close: func(*vaultConfig) error { return nil },
	}
	kind := &steps.Kind[watchedIn, watchedOut]{
		Name: "vault.turn", Doc: ".", Effect: steps.Write, On: []string{"vault"}, NothingToUndo: true, Idempotent: true, Example: `{id: a, uses: vault.turn, target: v}`,
		Plan: func(context.Context, *steps.View, watchedIn) (steps.Change, error) { return steps.Change{}, nil },
		Probe: func(context.Context, steps.View, watchedIn) (steps.State, watchedOut, error) {
			return steps.Untouched, watchedOut{}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, _ watchedIn) (watchedOut, error) {
			g, err := s.Watch(ctx, steps.Watch{Plan: map[string]int{"slots": 3}, Limit: time.Minute})
			if err != nil {
				return watchedOut{}, err
			}
			return watchedOut{}, w.act(ctx, g)
		},
		Guard: func(ctx context.Context, s steps.Session, plan json.RawMessage, told []string) error {
			c, err := vault.Session(ctx, s, "")
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.acted, w.plan, w.key = append(w.acted, strings.Join(told, ",")), string(plan), c.Key.Reveal()+" "+c.Limit.String()
			return nil
		},
	}
	return []*steps.Definition{kind.Define()}, []*steps.TargetDefinition{vault.Define()}
}

// pipe is both ends of a guardian that is a goroutine.
type pipe struct {
	io.Reader
	io.WriteCloser
	done chan error
}

func (p *pipe) Wait() error { return <-p.done }

func inProcess(cfg GuardianConfig) func(GuardianSpec) (GuardianPipe, error) {
	return func(GuardianSpec) (GuardianPipe, error) {
		in, toGuardian := io.Pipe()
		fromGuardian, out := io.Pipe()
		p := &pipe{Reader: fromGuardian, WriteCloser: toGuardian, done: make(chan error, 1)}
		go func() { p.done <- ServeGuardian(context.Background(), cfg, in, out) }()
		return p, nil
	}
}

const vaultBook = `version: 1
name: vault
secrets: {key: {env: VAULT_KEY}}
targets: {v: {kind: vault, addr: "127.0.0.1:1", key: "${{ secrets.key }}", limit: 3s, size: 7}}
steps:
  - {id: turn, uses: vault.turn, target: v}
`

// runVault runs the kind's one step; start starts guardians, nil: as goroutines.
func runVault(t *testing.T, w *watched, start func(GuardianSpec) (GuardianPipe, error)) (result *Result, log string) {
	t.Helper()
	var text bytes.Buffer
	l := newLab(t)
	l.environ = map[string]string{"VAULT_KEY": "hush-hush"}
	l.w.extra, l.w.kinds = w.kinds()
	if start == nil {
		start = inProcess(GuardianConfig{Catalog: l.w.catalog(), Log: slog.New(slog.NewTextHandler(&text, nil))})
	}
	l.guardian = start
	return l.exec(l.program(vaultBook)), text.String()
}

func TestGuardian(t *testing.T) {
	t.Run("dismissed", func(t *testing.T) {
		w := &watched{act: func(_ context.Context, g steps.Guardian) error {
			err := g.Tell("hold")
			g.Dismiss()
			return err
		}}
		result, _ := runVault(t, w, nil)
		if result.Status != Succeeded || len(w.acted) != 0 {
			t.Errorf("%s, %v; the guardian acted %d times", result.Status, result.Err, len(w.acted))
		}
	})
	t.Run("yielded", func(t *testing.T) {
		w := &watched{act: func(ctx context.Context, g steps.Guardian) error {
			_ = g.Tell("hold")
			_ = g.Tell("assign")
			if err := g.Yield(ctx); err != nil {
				return err
			}
			return steps.Errorf("aborted", "left to the guardian")
		}}
		result, log := runVault(t, w, nil)
		if result.Status != Failed || len(w.acted) != 1 || w.acted[0] != "hold,assign" || w.plan != `{"slots":3}` {
			t.Errorf("%s, %v; the guardian was told %q, with plan %s", result.Status, result.Err, w.acted, w.plan)
		}
		if w.key != "hush-hush 3s" {
			t.Errorf("the guardian's target has %q", w.key)
		}
		if strings.Contains(log, "hush-hush") {
			t.Errorf("the guardian's log has the secret:\n%s", log)
		}
	})
	t.Run("doubt", func(t *testing.T) {
		w := &watched{act: func(_ context.Context, g steps.Guardian) error {
			g.Dismiss()
			return steps.Doubt("slots are held and nobody answers")
		}}
		// The probe says untouched and the kind is idempotent: a Doubt is stronger than both.
		if result, _ := runVault(t, w, nil); result.Status != InDoubt {
			t.Errorf("%s, %v, want in doubt", result.Status, result.Err)
		}
	})
	t.Run("does not start", func(t *testing.T) {
		result, _ := runVault(t, &watched{}, func(GuardianSpec) (GuardianPipe, error) { return nil, errors.New("out of processes") })
		if result.Status != Failed || !strings.Contains(result.Err.Error(), "start the guardian: out of processes") {
			t.Errorf("%s, %v", result.Status, result.Err)
		}
	})
}

// TestGuardianEndsRunner: a runner that hangs is ended before the guardian acts, since it
// might wake up; the pipe's end is the proof.
func TestGuardianEndsRunner(t *testing.T) {
	w := &watched{}
	in, runnerEnd := io.Pipe()
	fromGuardian, out := io.Pipe()
	ended := make(chan int, 1)
	kinds, targets := w.kinds()
	cfg := GuardianConfig{Catalog: NewCatalog(kinds, targets), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), EndRunner: func(pid int) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.acted) > 0 {
			t.Error("the guardian acted while the runner lived")
		}
		ended <- pid
		return runnerEnd.Close()
	}}
	done := make(chan error, 1)
	go func() { done <- ServeGuardian(t.Context(), cfg, in, out) }()
	order := `{"kind":"vault.turn","step":"turn","plan":{},"target":"v","targets":[{"name":"v","kind":"vault","config":{"addr":"127.0.0.1:1"}}],"limit":1000000,"runner":4711}` + "\n"
	if _, err := io.WriteString(runnerEnd, order); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(fromGuardian, ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("confirmed %q, %v", ready, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if pid := <-ended; pid != 4711 || len(w.acted) != 1 {
		t.Errorf("ended process %d, acted %d times", pid, len(w.acted))
	}
}
