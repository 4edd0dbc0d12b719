package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"runner": main})
}

// The transcripts are what a person does and sees; UPDATE=1 rewrites what `cmp` compares.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:           "../../testdata/script",
		UpdateScripts: os.Getenv("UPDATE") == "1",
		Setup: func(env *testscript.Env) error {
			env.Setenv("RUNNER_OPERATOR", "ana")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "damage": damage, "edit-plan": editPlan, "remove-newest": removeNewest,
		},
	})
}

// exits runs a command and compares its exit code: exits 2 runner lint x.yaml.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		code = e.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit %d, wanted %s", code, args[0])
	}
}

// newest is the folder of the newest run.
func newest(ts *testscript.TestScript) string {
	runs, err := filepath.Glob(ts.MkAbs(".runner/runs/*"))
	ts.Check(err)
	if len(runs) == 0 {
		ts.Fatalf("there are no runs")
	}
	return runs[len(runs)-1]
}

// rewrite replaces a text in a file once.
func rewrite(ts *testscript.TestScript, path, before, after string) {
	text, err := os.ReadFile(path)
	ts.Check(err)
	edited := bytes.Replace(text, []byte(before), []byte(after), 1)
	if bytes.Equal(text, edited) {
		ts.Fatalf("%s does not hold %q", path, before)
	}
	ts.Check(os.WriteFile(path, edited, 0o600))
}

func damage(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, filepath.Join(newest(ts), "journal.jsonl"), args[0], args[1])
}

func editPlan(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, filepath.Join(newest(ts), "plan.json"), args[0], args[1])
}

func removeNewest(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("runner", "runs", "remove", filepath.Base(newest(ts))))
}
