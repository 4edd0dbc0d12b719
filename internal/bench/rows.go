//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// row is a line of the table.
type row struct {
	name, note string
	cost       cost
	limits     limits
	facts      []string // what else there is to say, such as a ratio to a floor
	missed     []string
	checked    bool // has a limit of another sort
}

// limits are what a row must not be above; zero is no limit.
type limits struct {
	wall, cpu time.Duration
	rss       int64
}

const mib = 1 << 20

// many is how many steps a long run has.
const many = 100_000

// judge says where a row is above its limits.
func (r *row) judge() {
	if l := r.limits.wall; l > 0 && r.cost.wall > l {
		r.missed = append(r.missed, "wall")
	}
	if l := r.limits.cpu; l > 0 && r.cost.cpu > l {
		r.missed = append(r.missed, "CPU")
	}
	if l := r.limits.rss; l > 0 && r.cost.rss > l {
		r.missed = append(r.missed, "memory")
	}
}

// task is something to measure: book makes the runbook, args the command line of each round.
type task struct {
	name   string
	limits limits
	long   bool
	book   func(dir string) (string, error) // dir is for what the runbook writes, empty at each round
	args   func(book string) []string       // nil: exec
	facts  func(c cost) []string
}

func (b *bench) measureAll(f floors) error {
	short := limits{cpu: time.Second, rss: 40 * mib}
	long := limits{cpu: time.Minute, rss: 300 * mib}
	plain := func(make func(int) (string, error), n int) func(string) (string, error) {
		return func(string) (string, error) { return make(n) }
	}
	files := func(make func(int, string) (string, error), n int) func(string) (string, error) {
		return func(dir string) (string, error) { return make(n, dir) }
	}
	perStep := func(n int) func(cost) []string {
		return func(c cost) []string {
			floor := f.sync + f.ping
			return []string{fmt.Sprintf("%s a step, %.1fx a sync and a PING (%s)", short3(c.wall/time.Duration(n)), ratio(c.wall/time.Duration(n), floor), short3(floor))}
		}
	}
	perFile := func(n int) func(cost) []string {
		return func(c cost) []string {
			floor, floorCPU := f.files.wall/steps+f.sync, f.files.cpu/steps
			return []string{fmt.Sprintf("%s a step, %.1fx a bare durable file and a sync (%s); CPU %.1fx of the bare file", short3(c.wall/time.Duration(n)),
				ratio(c.wall/time.Duration(n), floor), short3(floor), ratio(c.cpu/time.Duration(n), floorCPU))}
		}
	}
	against := func(floor cost, what string) func(cost) []string {
		return func(c cost) []string {
			return []string{fmt.Sprintf("wall %.2fx, CPU %.2fx of %s", ratio(c.wall, floor.wall), ratio(c.cpu, floor.cpu), what)}
		}
	}
	command := func(words ...string) func(string) []string {
		return func(book string) []string { return append(append([]string{b.runner}, words...), book) }
	}
	tasks := []task{
		{name: "version", limits: limits{wall: 30 * time.Millisecond}, facts: func(c cost) []string {
			return []string{fmt.Sprintf("CPU %.1fx of an empty Go program", ratio(c.cpu, f.empty.cpu))}
		}, args: func(string) []string { return []string{b.runner, "version"} }},
		{name: "lint of 1000 steps", limits: limits{wall: 50 * time.Millisecond}, book: plain(b.redisBook, steps), args: command("lint")},
		{name: "plan of 2000 steps", limits: limits{cpu: 200 * time.Millisecond}, book: plain(b.reviewBook, 2000), args: command("plan")},
		{name: "diff of 2000 steps with themselves", limits: limits{cpu: 300 * time.Millisecond}, book: plain(b.reviewBook, 2000),
			args: func(book string) []string { return []string{b.runner, "diff", book, book} }},
		{name: "diff of 2000 steps, all of them in other words", limits: limits{cpu: 300 * time.Millisecond}, book: plain(b.diffBooks, 2000),
			args: func(book string) []string { return []string{b.runner, "diff", book, altered(book)} }},
		{name: "plan of 100,000 steps of a for-each", limits: limits{wall: 2 * time.Second}, book: plain(b.redisLoop, many), args: command("plan")},
		{name: "1000 steps, redis.command", limits: short, book: plain(b.redisBook, steps), facts: perStep(steps)},
		{name: "1000 steps of a for-each, redis.command", limits: short, book: plain(b.redisLoop, steps), facts: perStep(steps)},
		{name: "1000 steps, host.file", limits: short, book: files(b.fileBook, steps), facts: perFile(steps)},
		{name: "1000 steps of a for-each, host.file", limits: short, book: files(b.fileLoop, steps), facts: perFile(steps)},
		{name: "1000 steps, exec of /bin/true that reads", limits: limits{wall: f.forks.wall * 13 / 10, cpu: f.forks.cpu * 13 / 10},
			book: func(string) (string, error) { return b.execBook(steps, "read") }, facts: against(f.forks, "a bare loop")},
		{name: "1000 steps, exec of /bin/true that changes", limits: limits{wall: f.both.wall * 13 / 10, cpu: f.both.cpu * 13 / 10},
			book: func(string) (string, error) { return b.execBook(steps, "write") }, facts: func(c cost) []string {
				return append(against(f.both, "a bare loop that syncs a line before each command")(c), against(f.forks, "one that does not")(c)...)
			}},
		{name: "100,000 steps of a for-each, redis.command", long: true, limits: long, book: plain(b.redisLoop, many), facts: perStep(many)},
		{name: "100,000 steps, redis.command", long: true, limits: long, book: plain(b.redisBook, many), facts: perStep(many)},
		{name: "100,000 steps of a for-each, host.file", long: true, limits: long, book: files(b.fileLoop, many), facts: perFile(many)},
	}
	for _, t := range tasks {
		if !b.wanted(t.name) {
			continue
		}
		if err := b.measureTask(t); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for _, special := range []struct {
		name    string
		measure func(string) error
	}{{"resume of 100,000 records", b.resume}, {"256 parallel branches", b.parallel}} {
		if b.wanted(special.name) {
			if err := special.measure(special.name); err != nil {
				return fmt.Errorf("%s: %w", special.name, err)
			}
		}
	}
	return nil
}

func (b *bench) measureTask(t task) error {
	fmt.Fprintln(os.Stderr, "measuring:", t.name)
	rounds := b.rounds
	if t.long {
		rounds = b.long
	} else if t.args != nil {
		rounds *= 3 // it takes no time
	}
	c, err := medians(rounds, func() ([]string, error) {
		dir, err := b.fresh("work")
		if err != nil {
			return nil, err
		}
		book := ""
		if t.book != nil {
			if book, err = t.book(dir); err != nil {
				return nil, err
			}
		}
		if t.args != nil {
			return t.args(book), nil
		}
		return b.exec(book), nil
	})
	if err != nil {
		return err
	}
	r := row{name: t.name, cost: c, limits: t.limits, note: fmt.Sprintf("%d runs", rounds)}
	if rounds == 1 {
		r.note = "1 run"
	}
	if t.facts != nil {
		r.facts = t.facts(c)
	}
	b.add(r)
	return nil
}

func (b *bench) add(r row) {
	r.judge()
	fmt.Fprintf(os.Stderr, "  wall %s, CPU %s, %s %s %v\n", short3(r.cost.wall), short3(r.cost.cpu), size(r.cost.rss), strings.Join(r.facts, "; "), r.missed)
	b.rows = append(b.rows, r)
}

// resume measures how long a run with a long journal takes to go on: to its first new record, and to its end.
func (b *bench) resume(name string) error {
	fmt.Fprintln(os.Stderr, "measuring:", name)
	book, err := b.resumeBook(many / 2)
	if err != nil {
		return err
	}
	state := b.state()
	if _, err := measure([]string{b.runner, "exec", book, "--state", state}, 1); err != nil {
		return err
	}
	argv := []string{b.runner, "resume", "last", "--state", state}
	var first []time.Duration
	for range b.rounds {
		d, err := firstLine(append(argv, "--output", "json"))
		if err != nil {
			return err
		}
		first = append(first, d)
	}
	whole, err := medians(b.rounds, func() ([]string, error) { return argv, nil }, 1)
	if err != nil {
		return err
	}
	b.add(row{name: name, cost: whole, limits: limits{wall: time.Second}, note: fmt.Sprintf("%d runs", b.rounds),
		facts: []string{short3(middle(first, func(d time.Duration) time.Duration { return d })) + " to the first new record"}})
	return nil
}

// firstLine is how long a command takes to its first line.
func firstLine(argv []string) (time.Duration, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := bufio.NewReader(out)
	_, err = r.ReadString('\n')
	took := time.Since(began)
	_, _ = io.Copy(io.Discard, r)
	_ = cmd.Wait() // the run is one that fails
	return took, err
}

// parallel counts the syncs of branches that run beside each other.
func (b *bench) parallel(name string) error {
	fmt.Fprintln(os.Stderr, "measuring:", name)
	const branches, each = 256, 3
	book, err := b.parallelBook(branches)
	if err != nil {
		return err
	}
	c, err := medians(b.rounds, func() ([]string, error) { return b.exec(book), nil })
	if err != nil {
		return err
	}
	r := row{name: name, cost: c, note: fmt.Sprintf("%d runs", b.rounds), checked: true}
	if !have("strace") {
		r.checked = false
		r.facts = []string{"syncs not counted: strace is not installed; BenchmarkParallel256 in package runner counts them too"}
		b.add(r)
		return nil
	}
	var counts []int64
	for range b.rounds {
		trace := filepath.Join(b.dir, "trace")
		// With --seccomp-bpf no other call is slowed down.
		argv := append([]string{"strace", "-f", "--seccomp-bpf", "-e", "trace=fdatasync", "-o", trace}, b.exec(book)...)
		if _, err := measure(argv); err != nil {
			return err
		}
		text, err := os.ReadFile(trace)
		if err != nil {
			return err
		}
		counts = append(counts, int64(bytes.Count(text, []byte("fdatasync("))))
	}
	n := middle(counts, func(n int64) int64 { return n })
	if n == 0 {
		return errors.New("strace saw no fdatasync")
	}
	share := float64(branches*each) / float64(n)
	r.facts = []string{fmt.Sprintf("%d steps, %d calls of fdatasync counted with strace: %.1f steps a sync (at least 5 wanted)", branches*each, n, share)}
	if share < 5 {
		r.missed = []string{"syncs"}
	}
	b.add(r)
	return nil
}

func ratio[N ~int64](a, b N) float64 { return float64(a) / float64(max(b, 1)) }

// short3 is a time with three digits, as a table has room for.
func short3(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func size(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt((n+mib/2)/mib, 10) + " MB"
}

func (l limits) String() string {
	var parts []string
	if l.wall > 0 {
		parts = append(parts, "wall "+short3(l.wall))
	}
	if l.cpu > 0 {
		parts = append(parts, "CPU "+short3(l.cpu))
	}
	if l.rss > 0 {
		parts = append(parts, size(l.rss))
	}
	return strings.Join(parts, ", ")
}
