//go:build linux

// Command bench measures what the runner costs, as a program that is started from outside:
// wall time, CPU time of user and system with all children, and the most memory that was
// resident. Beside it, in the same run, it measures the floors that no runner can get below:
// a sync of the disk, a round trip to Redis, an empty Go process, a fork and exec. Numbers
// of one machine say little on another, and their ratios to the floors say much.
//
//	bench -runner bin/runner -out docs/performance.md    all of it, as a page
//	bench -runner bin/runner -only 1000                  the rows whose name has this in it
//	bench -runner bin/runner -peers                      the same steps with go-task and ansible-core
//
// It starts a redis-server of its own. Every number is the median of -rounds runs; the runs
// over 100,000 steps take minutes and are made -long times.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	var o options
	flag.StringVar(&o.runner, "runner", "bin/runner", "the runner to measure")
	flag.StringVar(&o.out, "out", "", "write the page to this file")
	flag.StringVar(&o.only, "only", "", "measure only rows whose name has this text in it")
	flag.IntVar(&o.rounds, "rounds", 5, "runs of which the median is taken")
	flag.IntVar(&o.long, "long", 1, "the same for runs over 100,000 steps")
	flag.BoolVar(&o.peers, "peers", false, "compare with go-task and ansible-core")
	flag.IntVar(&o.each, "steps", steps, "steps of a comparison with peers; ansible-core takes minutes for 1000")
	loop := flag.String("loop", "", "used by itself: be the bare loop that is compared with")
	flag.Parse()
	if *loop != "" {
		if err := bare(*loop, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	runner, out, only string
	rounds, long      int
	each              int
	peers             bool
}

// bench is one run of this program.
type bench struct {
	options
	self  string  // this program, which is also the bare loops
	dir   string  // for all that is written, removed at the end
	redis string  // address
	count int     // directories handed out
	load  float64 // when it began
	rows  []row
}

func run(o options) error {
	b := &bench{options: o, load: load()}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.runner, err = filepath.Abs(o.runner); err != nil {
		return err
	}
	if _, err := os.Stat(b.runner); err != nil {
		return fmt.Errorf("%w; make build makes it", err)
	}
	// Not under /tmp where that is memory: the floors are about the disk that runs lie on.
	if b.dir, err = os.MkdirTemp(".", ".bench-"); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if o.peers {
		return b.comparePeers()
	}
	stop, err := b.startRedis()
	if err != nil {
		return err
	}
	defer stop()
	floors, err := b.floors()
	if err != nil {
		return err
	}
	if err := b.measureAll(floors); err != nil {
		return err
	}
	page := b.page(floors)
	fmt.Print(page)
	if o.out == "" {
		return nil
	}
	if o.only != "" {
		return errors.New("-only measures a part, and a page is of all: it was not written")
	}
	return os.WriteFile(o.out, []byte(page), 0o644)
}

// exec makes the command line of a run, with a state directory of its own.
func (b *bench) exec(book string) []string {
	return []string{b.runner, "exec", book, "--state", b.state()}
}

func (b *bench) state() string {
	b.count++
	return filepath.Join(b.dir, fmt.Sprintf("state-%d", b.count))
}

// fresh gives a directory that is new. What was there before is left until the end: a file
// system that is giving back a thousand files is slower for what is measured next.
func (b *bench) fresh(name string) (string, error) {
	b.count++
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, b.count))
	return dir, os.MkdirAll(dir, 0o755)
}

// wanted tells whether -only asks for a row.
func (b *bench) wanted(name string) bool { return strings.Contains(name, b.only) }

// have tells whether a program is installed.
func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
