package lab

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runbook/steps/zookeeper/zktest"
)

// program is one that the lab does not bring along.
type program struct {
	name     string // in PATH
	variable string // names it otherwise
	path     string // where it was found; empty: it was not
}

// bench is what all tests of the lab share.
type bench struct {
	runner                 string
	pika, dashboard, proxy program
	zookeeper              zktest.Server
	results                results
}

var lab bench

func TestMain(m *testing.M) { os.Exit(lab.run(m)) }

func (b *bench) run(m *testing.M) int {
	if !wanted() {
		return m.Run() // each test says what it waits for
	}
	for _, p := range []struct {
		to             *program
		name, variable string
	}{
		{&b.pika, "pika", "PIKA_BIN"}, {&b.dashboard, "codis-dashboard", "CODIS_DASHBOARD_BIN"}, {&b.proxy, "codis-proxy", "CODIS_PROXY_BIN"},
	} {
		var err error
		if *p.to, err = find(p.name, p.variable); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if b.absent() != "" {
		fmt.Println("lab: SKIPPED, nothing was run: " + b.absent())
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	b.runner = filepath.Join(dir, "runner")
	if out, err := exec.Command("go", "build", "-o", b.runner, "runbook/cmd/runner").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the runner: %v\n%s", err, out)
		return 1
	}
	// A slot of Pika takes some 26 open files. A limit that was set here is the children's as well.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		files.Cur = files.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
	}
	defer b.zookeeper.Close()
	code := m.Run()
	fmt.Print(b.results.String())
	return code
}

// wanted tells that the lab was asked for: it takes minutes, and is no part of the ordinary tests.
func wanted() bool { return os.Getenv("LAB") != "" }

// find looks a program up. One that a variable names must be there.
func find(name, variable string) (program, error) {
	p := program{name: name, variable: variable}
	given := os.Getenv(variable)
	path, err := exec.LookPath(cmp.Or(given, name))
	switch {
	case err == nil:
		p.path, err = filepath.Abs(path)
		return p, err
	case given != "":
		return p, fmt.Errorf("%s: %w", variable, err)
	}
	return p, nil
}

// absent says which programs are missing; empty: none.
func (b *bench) absent() string {
	var missing []string
	for _, p := range []program{b.pika, b.dashboard, b.proxy} {
		if p.path == "" {
			missing = append(missing, fmt.Sprintf("there is no %s in PATH, and %s names none", p.name, p.variable))
		}
	}
	return strings.Join(missing, "; ")
}

// need skips the test where the lab was not asked for, or is not complete.
func need(t *testing.T) {
	t.Helper()
	if !wanted() {
		t.Skip("make lab runs this: it needs pika, codis-dashboard and codis-proxy, and takes minutes")
	}
	if lab.absent() != "" {
		t.Skip("not all programs are here, see above")
	}
}

// number is a number from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: a number is expected", name, text)
	}
	return n
}

// patience is how long anything may take before the lab says that it never happens.
const patience = 3 * time.Minute

// until polls a state.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}
