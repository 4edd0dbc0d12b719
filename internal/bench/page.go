//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// page is docs/performance.md.
func (b *bench) page(f floors) string {
	var w strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&w, format+"\n", a...) }
	p("# Performance\n")
	p("Written by `make bench`; do not edit. Each number is the median of its runs, measured from outside")
	p("as a process: CPU is user and system time with all children, memory the most that was resident.")
	p("Numbers of one machine say little on another: compare the ratios with the floors of the same run.\n")
	p("%s, %d cores; %s; %s.\n", cpuModel(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly), runtime.Version())
	if busy := max(b.load, load()); busy > float64(runtime.NumCPU()) {
		p("Other programs kept the machine busy meanwhile (load average %.1f on %d cores): wall times, and to a lesser part CPU,", busy, runtime.NumCPU())
		p("are higher than on a quiet one.\n")
	}
	p("## Floors\n")
	p("What nothing can get below, measured in the same run.\n")
	p("| | wall | CPU |\n|---|---:|---:|")
	p("| append 1 KiB and fdatasync | %s | |", short3(f.sync))
	p("| PING of Redis | %s | |", short3(f.ping))
	p("| an empty Go program | %s | %s |", short3(f.empty.wall), short3(f.empty.cpu))
	p("| 1000 times fork and exec of /bin/true (os/exec) | %s | %s |", short3(f.forks.wall), short3(f.forks.cpu))
	p("| 1000 times append, fdatasync, then /bin/true | %s | %s |", short3(f.both.wall), short3(f.both.cpu))
	p("| 1000 small files: write, fsync, rename, fsync of the directory | %s | %s |", short3(f.files.wall), short3(f.files.cpu))
	p("\n## The runner\n")
	p("Every step that changes something is on disk before it acts.\n")
	p("| | wall | CPU | memory | at most | | |\n|---|---:|---:|---:|---|---|---|")
	for _, r := range b.rows {
		verdict := ""
		if r.limits != (limits{}) || r.checked {
			verdict = "met"
		}
		if len(r.missed) > 0 {
			verdict = "**missed: " + strings.Join(r.missed, ", ") + "**"
		}
		p("| %s | %s | %s | %s | %s | %s | %s |", r.name, short3(r.cost.wall), short3(r.cost.cpu), size(r.cost.rss), r.limits, verdict,
			strings.Join(append(r.facts, r.note), "; "))
	}
	p("\n## What is measured\n")
	p("* `redis.command` sends one INCR or SET to a redis-server on this machine: one round trip a step.")
	p("* `host.file` writes a file of one byte through a temporary file, with fsync of file and directory.")
	p("* \"exec that reads\" writes its records and waits for no sync; \"that changes\" has one durable record")
	p("  before each command, so its floor is a bare loop that syncs a line before each command.")
	p("* Resume: a run of 50,000 steps (two records each) whose last step failed, and fails again.")
	p("* Parallel: 256 branches of three redis.command steps each.")
	p("* 100,000 steps written out are 8 MB of YAML, the most that is read. They take about 10 KB of memory a step, as the")
	p("  tree of the document and as what was read from it; as a for-each over a list they take 2 KB.")
	p("* The file system's share of a durable file changes most from run to run: compare host.file with its floor.")
	p("\n`make bench-peers` runs the same work with go-task and ansible-core.")
	return w.String()
}

// load is the average number of programs that wanted a processor in the last minute.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var last float64
	_, _ = fmt.Sscan(string(text), &last)
	return last
}

// cpuModel is the processor's name.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, " \t:"))
		}
	}
	return runtime.GOARCH
}
