package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"runbook/runner/journal"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"runner": main})
}

// The transcripts are what a person does and sees; UPDATE=1 rewrites what `cmp` compares.
func TestScripts(t *testing.T) {
	t.Parallel()
	runbooks, err := filepath.Abs("../../runbooks")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "../../testdata/script",
		UpdateScripts: os.Getenv("UPDATE") == "1",
		Setup: func(env *testscript.Env) error {
			env.Setenv("RUNNER_OPERATOR", "ana")
			env.Setenv("TZ", "UTC")
			env.Setenv("RUNBOOKS", runbooks)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "damage": damage, "edit-plan": editPlan, "remove-newest": removeNewest,
			"edit": edit, "mode": mode, "race": race, "kill-marked": killMarked,
			"until": until, "kill-live": killLive,
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

// until runs the runner again and again until its answer says something: until REGEXP ARGUMENT…
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP ARGUMENT…")
	}
	wanted, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var said []byte
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if said, err = child(ts, args[1:]).Output(); err == nil && wanted.Match(said) {
			return
		}
	}
	ts.Fatalf("%s is not in:\n%s", args[0], said)
}

// killLive kills the process that works on the newest run.
func killLive(ts *testscript.TestScript, _ bool, _ []string) {
	holder, held, err := journal.Inspect(filepath.Join(newest(ts), "lock"))
	ts.Check(err)
	if !held {
		ts.Fatalf("no process works on the newest run")
	}
	ts.Check(syscall.Kill(holder.PID, syscall.SIGKILL))
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

func removeNewest(ts *testscript.TestScript, neg bool, _ []string) {
	err := ts.Exec("runner", "runs", "remove", filepath.Base(newest(ts)))
	if neg && err == nil {
		ts.Fatalf("it was removed")
	}
	if !neg {
		ts.Check(err)
	}
}

func edit(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, ts.MkAbs(args[0]), args[1], args[2])
}

// mode compares the permissions of a file: mode 0600 p.json.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, wanted %s", args[1], got, args[0])
	}
}

// child is a runner that a script starts beside itself.
func child(ts *testscript.TestScript, args []string) *exec.Cmd {
	cmd := exec.Command("runner", args...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZ", "RUNNER_OPERATOR", "TOKEN"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	path, err := exec.LookPath("runner")
	ts.Check(err)
	cmd.Path = path
	return cmd
}

// race runs a command in many processes at the same time: one is done, the others do nothing.
func race(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	racers := make([]*exec.Cmd, n)
	said := make([]bytes.Buffer, n)
	for i := range racers {
		racers[i] = child(ts, args[1:])
		racers[i].Stderr = &said[i]
		ts.Check(racers[i].Start())
	}
	codes := map[int]int{}
	for i := range racers {
		_ = racers[i].Wait() // the code tells
		codes[racers[i].ProcessState.ExitCode()]++
	}
	if codes[exitDone] != 1 || codes[exitUsage] != n-1 {
		for i := range said {
			ts.Logf("%s", said[i].String())
		}
		ts.Fatalf("exit codes %v", codes)
	}
}

// killMarked runs a command and kills it as soon as a saved plan is used up.
func killMarked(ts *testscript.TestScript, _ bool, args []string) {
	marks := func() int {
		found, err := filepath.Glob(ts.MkAbs(".runner/plans/*"))
		ts.Check(err)
		return len(slices.DeleteFunc(found, func(path string) bool { return filepath.Ext(path) != "" })) // one that is not whole
	}
	before := marks()
	cmd := child(ts, args)
	ts.Check(cmd.Start())
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	for marks() == before {
		select {
		case err := <-over:
			ts.Fatalf("it ended before it used the plan: %v", err)
		default:
			runtime.Gosched()
		}
	}
	ts.Check(cmd.Process.Kill())
	<-over
}
