package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// A guardian is a second process of the same binary that outlives a runner which dies in
// the middle of an act (see steps.Watch). The two speak over a pipe, line by line:
//
//	runner → guardian   the order, as JSON
//	guardian → runner   ready
//	runner → guardian   tell WORD, as often as there is something to announce
//	runner → guardian   dismiss
//
// The end of the pipe without dismiss is the runner's death, or its leave to act. The pipe
// is the only sign: a process that is gone cannot hold it open, one that lives does.

// GuardianPipe is the runner's end of a guardian.
type GuardianPipe interface {
	io.ReadWriter
	// Close ends the pipe. The guardian may live on.
	Close() error
	// Wait returns when the guardian has ended.
	Wait() error
}

// GuardianSpec is what starting a guardian needs beside the pipe.
type GuardianSpec struct {
	Inherit *os.File // every guardian holds it open, so that a resume waits for it; may be nil
	Log     string   // where it writes what it did; empty: nowhere
}

// order is the first line that a guardian reads. It may hold secrets: it is on the pipe and nowhere else.
type order struct {
	Kind    string          `json:"kind"`
	Step    string          `json:"step"`
	Plan    json.RawMessage `json:"plan"`
	Target  string          `json:"target,omitempty"` // the step's own
	Targets []wireTarget    `json:"targets"`
	Limit   time.Duration   `json:"limit"`
	Runner  int             `json:"runner"` // its process
}

type wireTarget struct {
	Name   string         `json:"name"`
	Kind   string         `json:"kind"`
	Config map[string]any `json:"config"`
}

const guardianReady = "ready"

// guardianLog is the file in the run's folder that tells what its guardians did.
const guardianLog = "guardian.log"

// guardianStart is how long a guardian may take to confirm.
const guardianStart = 10 * time.Second

// Watch starts a guardian for this step.
func (a *act) Watch(ctx context.Context, w steps.Watch) (steps.Guardian, error) {
	switch {
	case a.kind.Guard == nil:
		return nil, fmt.Errorf("%s asks for a guardian and does not say what it would do", a.kind.Name)
	case a.x.cfg.Guardian == nil:
		return nil, steps.Errorf("guardian", "no guardian can be started here, and %s does not act without one", a.kind.Name)
	}
	o := order{Kind: a.kind.Name, Step: a.path, Limit: w.Limit, Runner: os.Getpid()}
	var err error
	if o.Plan, err = json.Marshal(w.Plan); err != nil {
		return nil, fmt.Errorf("guardian: %w", err)
	}
	names := w.Targets
	if a.target != nil {
		o.Target = a.target.Name
		names = append([]string{o.Target}, names...)
	}
	for _, name := range names {
		t, err := a.bound(name)
		if err != nil {
			return nil, fmt.Errorf("guardian: %w", err)
		}
		config, _ := revealed(t.Config).(map[string]any)
		o.Targets = append(o.Targets, wireTarget{Name: t.Name, Kind: t.Kind, Config: config})
	}
	line, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("guardian: %w", err)
	}
	spec := GuardianSpec{}
	if a.x.children != nil {
		spec.Inherit = a.x.children.File()
		spec.Log = filepath.Join(filepath.Dir(spec.Inherit.Name()), guardianLog)
	}
	pipe, err := a.x.cfg.Guardian(spec)
	if err != nil {
		return nil, steps.Errorf("guardian", "start the guardian: %w", err)
	}
	if err := confirm(ctx, a.x.clock, pipe, line); err != nil {
		_ = pipe.Close()
		return nil, steps.Errorf("guardian", "start the guardian: %w", err)
	}
	return &guardian{pipe: pipe}, nil
}

// confirm gives the order and waits for the answer.
func confirm(ctx context.Context, clock Clock, pipe GuardianPipe, line []byte) error {
	answer := make(chan error, 1)
	go func() {
		if _, err := pipe.Write(append(line, '\n')); err != nil {
			answer <- err
			return
		}
		said, err := bufio.NewReader(pipe).ReadString('\n')
		if err == nil && strings.TrimSpace(said) != guardianReady {
			err = fmt.Errorf("it answered %q", strings.TrimSpace(said))
		}
		answer <- err
	}()
	limited, cancel := clock.WithTimeout(ctx, guardianStart, errors.New("it did not confirm within "+guardianStart.String()))
	defer cancel()
	select {
	case err := <-answer:
		return err
	case <-limited.Done():
		return context.Cause(limited)
	}
}

// guardian is the runner's view of it.
type guardian struct {
	mu   sync.Mutex
	pipe GuardianPipe
	over bool
}

func (g *guardian) Tell(word string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := io.WriteString(g.pipe, "tell "+word+"\n")
	return err
}

func (g *guardian) Dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	g.over = true
	_, _ = io.WriteString(g.pipe, "dismiss\n") // one that is gone is dismissed
	_ = g.pipe.Close()
	_ = g.pipe.Wait()
}

func (g *guardian) Yield(ctx context.Context) error {
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		return nil
	}
	g.over = true
	_ = g.pipe.Close()
	g.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- g.pipe.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// GuardianConfig is the guardian's surroundings.
type GuardianConfig struct {
	Catalog *Catalog
	Log     *slog.Logger
	Clock   Clock                                                                                      // nil: real time
	Connect func(ctx context.Context, t steps.Target, a steps.Access) (client any, ok bool, err error) // as Config.Connect
	// EndRunner ends the runner's process for certain, given its pid; nil: a runner that hangs is waited for.
	EndRunner func(pid int) error
}

// ServeGuardian is the life of a guardian: it reads its order from in, confirms on out, waits, and
// acts if the runner is gone. It returns when the act is over or not needed.
func ServeGuardian(ctx context.Context, cfg GuardianConfig, in io.Reader, out io.Writer) error {
	if cfg.Clock == nil {
		cfg.Clock = realClock{}
	}
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	kind := cfg.Catalog.Kinds[o.Kind]
	if kind == nil || kind.Guard == nil {
		return fmt.Errorf("no guardian is known for %s", o.Kind)
	}
	log := cfg.Log.With("step", o.Step)
	env := &guardEnv{cfg: cfg, order: o, log: log, pool: &pool{clients: map[poolKey]*pooled{}, connect: cfg.Connect}, targets: map[string]*boundTarget{}}
	defer env.pool.closeAll()
	for _, t := range o.Targets {
		if err := env.bind(t); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, guardianReady+"\n"); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	told, dismissed := listen(ctx, cfg, o, lines, log)
	if dismissed || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	log.Info("the runner is gone, its guardian acts", "told", told)
	if err := kind.Guard(ctx, steps.NewSession(env), o.Plan, told); err != nil {
		log.Error("the guardian could not bring it to a safe end", "error", err)
		return err
	}
	log.Info("the guardian has brought it to a safe end")
	return nil
}

// listen hears the runner out. It returns when the pipe has ended, or ctx. Where the limit is over
// first it ends the runner: what holds the pipe open can still act, so nothing is done before it closes.
func listen(ctx context.Context, cfg GuardianConfig, o order, lines *bufio.Reader, log *slog.Logger) (told []string, dismissed bool) {
	said := make(chan string)
	go func() {
		defer close(said)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return // a line without its end was never said
			}
			said <- strings.TrimSuffix(line, "\n")
		}
	}()
	limited, cancel := cfg.Clock.WithTimeout(ctx, o.Limit, errTimeout)
	defer cancel()
	for over := limited.Done(); ; {
		select {
		case line, ok := <-said:
			if !ok {
				return told, dismissed
			}
			if word, isTell := strings.CutPrefix(line, "tell "); isTell {
				told = append(told, word)
			}
			dismissed = dismissed || line == "dismiss"
		case <-over:
			over = nil
			if ctx.Err() != nil {
				go func() { // its end comes with the pipe's
					for range said {
					}
				}()
				return told, false
			}
			log.Warn("the runner has not ended in its time", "limit", o.Limit, "pid", o.Runner)
			if cfg.EndRunner != nil {
				if err := cfg.EndRunner(o.Runner); err != nil {
					log.Error("the runner cannot be ended", "pid", o.Runner, "error", err)
				}
			}
		}
	}
}

// guardEnv is what a kind sees in a guardian: the targets of its order, and no run.
type guardEnv struct {
	cfg     GuardianConfig
	order   order
	log     *slog.Logger
	pool    *pool
	targets map[string]*boundTarget
}

func (e *guardEnv) bind(w wireTarget) error {
	config, _ := concealed(w.Config).(map[string]any)
	return e.add(steps.Target{Name: w.Name, Kind: w.Kind, Config: config})
}

func (e *guardEnv) add(t steps.Target) error {
	def := e.cfg.Catalog.Targets[t.Kind]
	if def == nil {
		return fmt.Errorf("target %s: there is no target kind %s", t.Name, t.Kind)
	}
	cfg := reflect.New(def.Config)
	if err := schema.Bind(t.Config, cfg.Interface()); err != nil {
		return fmt.Errorf("target %s: %w", t.Name, err)
	}
	e.targets[t.Name] = &boundTarget{Target: t, def: def, cfg: cfg.Interface(), addr: def.Addr(cfg.Interface())}
	return nil
}

func (e *guardEnv) Target(name string) (steps.Target, error) {
	if name == "" {
		name = e.order.Target
	}
	t := e.targets[name]
	if t == nil {
		return steps.Target{}, fmt.Errorf("the guardian was not told of target %q", name)
	}
	return t.Target, nil
}

func (e *guardEnv) Connect(ctx context.Context, t steps.Target, a steps.Access) (any, error) {
	if e.targets[t.Name] == nil {
		if err := e.add(t); err != nil {
			return nil, err
		}
	}
	return e.pool.get(ctx, e.targets[t.Name], a)
}

func (e *guardEnv) Now() time.Time { return e.cfg.Clock.Now() }
func (e *guardEnv) Sleep(ctx context.Context, d time.Duration) error {
	return e.cfg.Clock.Sleep(ctx, d)
}
func (e *guardEnv) Progress(p steps.Progress) { e.log.Info(p.Text) }
func (e *guardEnv) Before() json.RawMessage   { return nil }
func (e *guardEnv) Host() steps.HostEnv       { return steps.HostEnv{} }
func (e *guardEnv) Log() *slog.Logger         { return e.log }
func (e *guardEnv) Watch(context.Context, steps.Watch) (steps.Guardian, error) {
	return nil, errors.New("a guardian is not guarded")
}

// secretKey marks a secret on the pipe.
const secretKey = "\x00secret"

// revealed makes evaluated values ready for the pipe: what prints as *** elsewhere must arrive.
func revealed(v any) any {
	switch v := v.(type) {
	case schema.Secret:
		return map[string]any{secretKey: v.Reveal()}
	case time.Duration:
		return v.String()
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = revealed(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = revealed(e)
		}
		return l
	}
	return v
}

// concealed is the inverse of revealed, after JSON.
func concealed(v any) any {
	switch v := v.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	case map[string]any:
		if text, ok := v[secretKey].(string); ok {
			return schema.NewSecret(text)
		}
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = concealed(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = concealed(e)
		}
		return l
	}
	return v
}
