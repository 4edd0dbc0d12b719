package steps

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// View is what a kind sees while it looks: targets, clients that refuse to write, time, progress.
type View struct{ env Env }

// Session is what a kind sees while it acts: a View, and clients that may write.
type Session struct{ View }

// Env is what whoever runs a kind provides. The engine implements it; so does the conformance test.
type Env interface {
	// Target finds a target by name; the empty name is the step's own.
	Target(name string) (Target, error)
	// Connect gives the client of a target, opened once and shared. The engine closes it.
	Connect(ctx context.Context, t Target, a Access) (any, error)
	Now() time.Time
	// Sleep waits on the engine's clock; it returns the context's cause when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
	// Progress shows how far a long act has come. It is never journaled as fact.
	Progress(p Progress)
	// Before is what Plan captured when the step started; nil where it did not start.
	Before() json.RawMessage
	// Watch starts a guardian for the step under way.
	Watch(ctx context.Context, w Watch) (Guardian, error)
	// Host is what processes started for this run inherit.
	Host() HostEnv
	Log() *slog.Logger
}

// Access says what a client may be used for.
type Access int

// The two ways to open a client.
const (
	ReadOnly Access = iota // the client refuses whatever may change something
	ReadWrite
)

// Progress of a long act or wait.
type Progress struct {
	Done, Total float64 // in Unit; Total 0: not known
	Unit        string  // "keys", "bytes"
	Text        string  // free words
}

// HostEnv is what processes started for this run inherit.
type HostEnv struct {
	Dir     string   // working directory of the first exec of this run
	Inherit *os.File // a locked file every child holds open, so that a resume waits for it; may be nil
}

// Target is a resolved target.
type Target struct {
	Name   string
	Kind   string
	Config map[string]any // the keys of its kind, evaluated; may hold secrets: never print it
}

// Addr gives the target's own addr key, or its name where it has none.
func (t Target) Addr() string {
	if a, ok := t.Config["addr"].(string); ok && a != "" {
		return a
	}
	return t.Name
}

// NewView makes a View. For engines and tests.
func NewView(e Env) View { return View{e} }

// NewSession makes a Session. For engines and tests.
func NewSession(e Env) Session { return Session{View{e}} }

// Target finds a target by name; the empty name is the step's own.
func (v View) Target(name string) (Target, error) { return v.env.Target(name) }

// Now is the engine's time.
func (v View) Now() time.Time { return v.env.Now() }

// Sleep waits on the engine's clock.
func (v View) Sleep(ctx context.Context, d time.Duration) error { return v.env.Sleep(ctx, d) }

// Progress shows how far a long act has come.
func (v View) Progress(p Progress) { v.env.Progress(p) }

// Host is what processes started for this run inherit.
func (v View) Host() HostEnv { return v.env.Host() }

// Log for what helps to find a fault; never for what a user must see.
func (v View) Log() *slog.Logger { return v.env.Log() }

// Before decodes what Plan captured when the step started into x; false where nothing was.
func (v View) Before(x any) (bool, error) {
	raw := v.env.Before()
	if len(raw) == 0 || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, x); err != nil {
		return false, fmt.Errorf("read the state journaled before the step: %w", err)
	}
	return true, nil
}
