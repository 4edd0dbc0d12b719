package runner

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbook/runner/journal"
)

// BenchmarkSequential1000 is a chain of steps that each change something, durable before they act.
func BenchmarkSequential1000(b *testing.B) {
	l := newLab(b)
	p := l.program(bookHead + "steps:\n" + lines(1000, `  - {id: s%[1]d, uses: mem.set, with: {key: "k%[1]d", value: 1}}`))
	b.ReportAllocs()
	for b.Loop() {
		l.w.value = map[string]int{}
		if r := l.exec(p); r.Status != Succeeded {
			b.Fatal(r.Err)
		}
	}
}

// BenchmarkLoop100k is a loop of one step over 100,000 items.
func BenchmarkLoop100k(b *testing.B) {
	l := newLab(b)
	l.quiet, l.options = true, unsynced()
	p := l.program(bookHead + `
vars: {all: "${{ 0..99999 }}"}
steps:
  - {id: a, for-each: vars.all, uses: mem.set, with: {key: "k${{ item }}", value: 1}}
`)
	b.ReportAllocs()
	for b.Loop() {
		l.w.value = map[string]int{}
		if r := l.exec(p); r.Status != Succeeded {
			b.Fatal(r.Err)
		}
		b.ReportMetric(peak(), "peak-MB")
	}
}

// BenchmarkPlan2000 makes the plan of a long migration and writes its text.
func BenchmarkPlan2000(b *testing.B) {
	l := newLab(b)
	p := l.program(bookHead + "inputs: {most: {type: int, default: 3}}\nsteps:\n" +
		lines(1000, `  - {id: s%[1]d, uses: mem.set, with: {key: "k${{ inputs.most }}", value: 1}}`+"\n"+
			`  - {id: g%[1]d, uses: mem.get, with: {key: k}, expect: value <= inputs.most, when: steps.s%[1]d.status == "changed"}`))
	in, _, err := p.BindInputs(GivenInputs{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		plan, _, err := MakePlan(p, in, Selection{})
		if err != nil {
			b.Fatal(err)
		}
		if err := plan.WriteText(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResume100k replays a journal of 100,000 records.
func BenchmarkResume100k(b *testing.B) {
	l := newLab(b)
	l.options = unsynced()
	p := l.program(bookHead + `
vars: {all: "${{ 0..49999 }}"}
steps:
  - {id: a, for-each: vars.all, uses: mem.set, with: {key: "k${{ item }}", value: 1}}
  - {id: b, uses: mem.get, with: {key: x}, expect: value == 1}
`)
	if r := l.exec(p); r.Status != Failed {
		b.Fatal(r.Status)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r := l.resume(); r.Status != Failed {
			b.Fatal(r.Status)
		}
	}
}

// BenchmarkParallel256 tells how many branches share a sync of the disk.
func BenchmarkParallel256(b *testing.B) {
	l := newLab(b)
	var syncs atomic.Int64
	l.options = counting(&syncs)
	p := l.program(bookHead + "steps:\n  - id: g\n    parallel: true\n    steps:\n" +
		lines(256, `      - {id: g%[1]d, steps: [{id: a%[1]d, uses: mem.set, with: {key: "a%[1]d", value: 1}}, {id: b%[1]d, uses: mem.set, with: {key: "b%[1]d", value: 1}}, {id: c%[1]d, uses: mem.set, with: {key: "c%[1]d", value: 1}}]}`))
	for b.Loop() {
		syncs.Store(0)
		l.w.value = map[string]int{}
		if r := l.exec(p); r.Status != Succeeded {
			b.Fatal(r.Err)
		}
		b.ReportMetric(3*256/float64(syncs.Load()), "steps/sync")
	}
}

func lines(n int, format string) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, format+"\n", i)
	}
	return s.String()
}

func peak() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapSys) / (1 << 20)
}

// unsynced is a journal on a disk that takes no time.
func unsynced() journal.Options {
	var none atomic.Int64
	return journal.Options{MaxDelay: time.Hour, Open: opener(func(f *os.File) journal.File { return countedFile{f, &none, true} })}
}

func counting(n *atomic.Int64) journal.Options {
	return journal.Options{Open: opener(func(f *os.File) journal.File { return countedFile{f, n, false} })}
}

// countedFile counts the syncs of a journal.
type countedFile struct {
	*os.File
	syncs *atomic.Int64
	skip  bool
}

func (f countedFile) Sync() error {
	f.syncs.Add(1)
	if f.skip {
		return nil
	}
	return f.File.Sync()
}

func opener(wrap func(*os.File) journal.File) func(string, int, fs.FileMode) (journal.File, error) {
	return func(path string, flag int, perm fs.FileMode) (journal.File, error) {
		f, err := os.OpenFile(path, flag, perm)
		if err != nil {
			return nil, err
		}
		return wrap(f), nil
	}
}
