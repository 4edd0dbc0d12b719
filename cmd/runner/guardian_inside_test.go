package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbook/runner"
	"runbook/steps"
)

type none struct{}

// TestGuardianInside: a guardian of a sandbox acts when the pipe ends without a dismissal, at the latest with the world,
// which waits for it; and what it did is in its log.
func TestGuardianInside(t *testing.T) {
	for name, c := range map[string]struct {
		end  string // the last word; empty: the runner dies
		want string
	}{"dismissed": {"dismiss\n", ""}, "died": {"", "held,fenced"}} {
		t.Run(name, func(t *testing.T) {
			acted := ""
			kind := &steps.Kind[none, none]{
				Name: "gate.hold", Doc: ".", Effect: steps.Write, TargetOptional: true, NothingToUndo: true, Idempotent: true, Example: `{id: a, uses: gate.hold}`,
				Plan: func(context.Context, *steps.View, none) (steps.Change, error) { return steps.Change{}, nil },
				Probe: func(context.Context, steps.View, none) (steps.State, none, error) {
					return steps.Untouched, none{}, nil
				},
				Apply: func(context.Context, steps.Session, none) (none, error) { return none{}, nil },
				Guard: func(_ context.Context, _ steps.Session, _ json.RawMessage, told []string) error {
					acted = strings.Join(told, ",")
					return nil
				},
			}
			var g guardians
			start := g.starter(runner.GuardianConfig{Catalog: runner.NewCatalog([]*steps.Definition{kind.Define()}, nil)})
			log := filepath.Join(t.TempDir(), "guardian.log")
			p, err := start(runner.GuardianSpec{Log: log})
			if err != nil {
				t.Fatal(err)
			}
			say := func(line string) {
				t.Helper()
				if _, err := fmt.Fprint(p, line); err != nil {
					t.Fatal(err)
				}
			}
			say(`{"kind":"gate.hold","step":"a","plan":null,"targets":[],"limit":60000000000,"runner":1}` + "\n")
			if line, err := bufio.NewReader(p).ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatalf("%q, %v", line, err)
			}
			say("tell held\n")
			say("tell fenced\n")
			say(c.end)
			g.stop()
			if acted != c.want {
				t.Errorf("it was told %q when it acted, want %q", acted, c.want)
			}
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
			text, err := os.ReadFile(log)
			if err != nil || strings.Contains(string(text), "safe end") != (c.want != "") {
				t.Errorf("%v, its log:\n%s", err, text)
			}
			if _, err := fmt.Fprint(p, "tell more\n"); err == nil {
				t.Error("one that is gone is still told")
			}
		})
	}
}
