package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"runbook/steps"
)

// toy is a kind that sets one number, as it should or with one fault.
type toy struct {
	fault string
	value int
	f     func(bool) Fault
}

type toyIn struct {
	Value int `yaml:"value,required" doc:"Number wanted."`
}

type toyOut struct {
	Value int `yaml:"value" doc:"Number now."`
}

var errLost = &steps.Error{Kind: "closed", Unknown: true, Err: errors.New("lost")}

// write is one request.
func (w *toy) write(v int) error {
	fault := None
	if w.f != nil {
		fault = w.f(true)
	}
	if fault == LostBefore {
		return errLost
	}
	w.value = v
	if fault == LostAfter {
		return errLost
	}
	return nil
}

// request is what every part of the kind begins with.
func (w *toy) request(ctx context.Context) error {
	if w.fault == "ignores-cancel" {
		return nil
	}
	if w.f != nil && w.f(false) == Hang {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("toy: %w", context.Cause(ctx))
	}
	return nil
}

func (w *toy) kind() *steps.Definition {
	k := &steps.Kind[toyIn, toyOut]{
		Name: "toy.set", Doc: "Sets a number.", Pitfalls: []string{"None."}, Effect: steps.Write, Idempotent: true,
		Example: `{id: a, uses: toy.set, with: {value: 7}}`,
		Plan: func(ctx context.Context, v *steps.View, in toyIn) (steps.Change, error) {
			if w.fault == "plan-writes" && v != nil {
				w.value++
			}
			line := steps.Line{Command: fmt.Sprint("set ", in.Value)}
			if w.fault == "shows-secret" {
				line.Command += " hunter22"
			}
			return steps.Change{Lines: []steps.Line{line}, Before: w.value}, nil
		},
		Check: func(ctx context.Context, _ steps.View, _ toyIn) error { return w.request(ctx) },
		Probe: func(ctx context.Context, _ steps.View, in toyIn) (steps.State, toyOut, error) {
			if err := w.request(ctx); err != nil {
				return steps.Unclear, toyOut{}, err
			}
			switch {
			case w.fault == "probe-lies":
				return steps.Done, toyOut{w.value}, nil
			case w.fault == "probe-forgets" && w.value == in.Value:
				return steps.Done, toyOut{}, nil
			case w.value == in.Value:
				return steps.Done, toyOut{w.value}, nil
			}
			return steps.Untouched, toyOut{}, nil
		},
		Apply: func(ctx context.Context, _ steps.Session, in toyIn) (toyOut, error) {
			if err := w.request(ctx); err != nil {
				return toyOut{}, err
			}
			to := in.Value
			if w.fault == "adds" {
				to += w.value
			}
			err := w.write(to)
			if err != nil && w.fault == "claims-to-know" {
				err = steps.Errorf("closed", "lost")
			}
			return toyOut{w.value}, err
		},
		Undo: func(_ context.Context, s steps.Session, in toyIn, _ *toyOut) error {
			var before int
			if _, err := s.Before(&before); err != nil {
				return err
			}
			if w.fault == "undo-forgets" {
				return nil
			}
			return w.write(before)
		},
	}
	if w.fault == "bad-example" {
		k.Example = `{id: a, uses: toy.set, with: {vlaue: 7}}`
	}
	return k.Define()
}

func (w *toy) fixture() Fixture {
	return Fixture{New: func(*testing.T) World {
		w.value, w.f = 3, nil
		return World{
			With: map[string]any{"value": 7}, Secrets: []string{"hunter22"},
			Snapshot:  func() string { return fmt.Sprint(w.value) },
			Intercept: func(f func(bool) Fault) { w.f = f },
		}
	}}
}

// TestToy runs the toy without a fault, or with the one that TestCatches asks for.
func TestToy(t *testing.T) {
	w := &toy{fault: os.Getenv("TOY_FAULT")}
	Run(t, w.kind(), w.fixture())
}

// TestCatches: each fault is found, and by the property it offends against.
func TestCatches(t *testing.T) {
	for fault, property := range map[string]string{
		"plan-writes":    "looking_changes_nothing",
		"shows-secret":   "shows a secret",
		"probe-lies":     "probe_tells",
		"probe-forgets":  "finds another output",
		"adds":           "twice is not once",
		"undo-forgets":   "undo_puts_back",
		"claims-to-know": "the outcome is not known",
		"ignores-cancel": "under a cancelled context succeeds",
		"bad-example":    "vlaue",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestToy$")
		cmd.Env = append(os.Environ(), "TOY_FAULT="+fault)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), property) {
			t.Errorf("%s is not found by %q:\n%s", fault, property, out)
		}
	}
}
