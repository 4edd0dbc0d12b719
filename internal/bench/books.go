//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
)

const head = "version: 1\nname: bench\n"

// book writes a runbook of a head, n times a line, and an end. It is written as it is made, so
// that a large one leaves this process small.
func (b *bench) book(name, begin, line string, n int, end string) (string, error) {
	path := filepath.Join(b.dir, name+".yaml")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	fmt.Fprint(w, head+begin)
	for i := range n {
		fmt.Fprintf(w, line, i)
	}
	fmt.Fprint(w, end)
	if err := w.Flush(); err != nil {
		return "", err
	}
	return path, f.Close()
}

func (b *bench) target() string {
	return fmt.Sprintf("targets: {r: {kind: redis, addr: %q}}\n", b.redis)
}

// all is a list of n numbers, for a loop.
func all(n int) string { return fmt.Sprintf("vars: {all: \"${{ 0..%d }}\"}\n", n-1) }

// redisBook is n INCRs in a row, each a step of its own. The target stands on the group, so
// that 100,000 of them stay below the 8 MiB that a document may have.
func (b *bench) redisBook(n int) (string, error) {
	return b.book(fmt.Sprintf("redis-%d", n), b.target()+"steps:\n- id: g\n  target: r\n  steps:\n",
		"  - {id: s%d, uses: redis.command, with: {args: [INCR, k]}, undo: none, why: w}\n", n, "")
}

// redisLoop is the same as one step over a list.
func (b *bench) redisLoop(n int) (string, error) {
	return b.book(fmt.Sprintf("redis-loop-%d", n), b.target()+all(n)+"steps:\n",
		"", 0, "- {id: s, for-each: vars.all, uses: redis.command, target: r, with: {args: [SET, \"k${{ item }}\", \"${{ item }}\"]}, undo: none, why: w}\n")
}

// reviewBook is n steps in a row as a migration has them: each third a wait, a change with its
// way back and a check of what both have found.
func (b *bench) reviewBook(n int) (string, error) {
	return b.book(fmt.Sprintf("review-%d", n), b.target()+"inputs: {lag: {type: int, default: 0}}\nsteps:\n",
		"- {id: wait%[1]d, uses: redis.info, target: r, wait-until: lag != nil && lag <= inputs.lag, stable: 5s, timeout: 30m}\n"+
			"- {id: set%[1]d, name: \"Change ${{ inputs.lag }}\", uses: redis.config-set, target: r, with: {name: maxclients, value: \"${{ 1000 + inputs.lag }}\"}}\n"+
			"- {id: check%[1]d, uses: check, with: {that: steps.wait%[1]d.role == \"master\"}}\n", (n+2)/3, "")
}

// altered is where the other side of a comparison stands.
func altered(book string) string { return book + ".altered.yaml" }

// diffBooks are two versions of n steps as a migration has them, the second in other words.
func (b *bench) diffBooks(n int) (string, error) {
	path, err := b.reviewBook(n)
	if err != nil {
		return "", err
	}
	_, err = b.book(filepath.Base(path)+".altered", b.target()+"inputs: {lag: {type: int, default: 0}}\nsteps:\n",
		"- {uses: redis.info, id: wait%[1]d, timeout: 1800s, stable: 5000ms, target: r, wait-until: inputs.lag >= lag && nil != lag}\n"+
			"- {with: {value: \"${{ inputs.lag + 1000 }}\", name: maxclients}, target: r, id: set%[1]d, uses: redis.config-set}\n"+
			"- {uses: check, id: check%[1]d, with: {that: '\"master\" == steps.wait%[1]d.role'}}\n", (n+2)/3, "")
	return path, err
}

// fileBook writes n small files.
func (b *bench) fileBook(n int, dir string) (string, error) {
	return b.book(fmt.Sprintf("file-%d", n), "steps:\n", "- {id: s%[1]d, uses: host.file, with: {path: "+dir+"/%[1]d, content: v}}\n", n, "")
}

func (b *bench) fileLoop(n int, dir string) (string, error) {
	return b.book(fmt.Sprintf("file-loop-%d", n), all(n)+"steps:\n",
		"", 0, "- {id: s, for-each: vars.all, uses: host.file, with: {path: \""+dir+"/${{ item }}\", content: v}}\n")
}

// execBook runs n times a command.
func (b *bench) execBook(n int, effect string) (string, error) {
	undo := ""
	if effect != "read" {
		undo = ", undo: none, why: w"
	}
	return b.book(fmt.Sprintf("exec-%s-%d", effect, n), "steps:\n",
		"- {id: s%d, uses: exec, effect: "+effect+", with: {command: [/bin/true]}"+undo+"}\n", n, "")
}

// parallelBook has n branches of three steps each.
func (b *bench) parallelBook(n int) (string, error) {
	return b.book(fmt.Sprintf("parallel-%d", n), b.target()+"steps:\n- id: all\n  parallel: true\n  steps:\n",
		"  - {id: g%[1]d, steps: [{id: a%[1]d, uses: redis.command, target: r, with: {args: [INCR, k]}, undo: none, why: w}, "+
			"{id: b%[1]d, uses: redis.command, target: r, with: {args: [INCR, k]}, undo: none, why: w}, "+
			"{id: c%[1]d, uses: redis.command, target: r, with: {args: [INCR, k]}, undo: none, why: w}]}\n", n, "")
}

// resumeBook leaves two records for each of n items, and then fails.
func (b *bench) resumeBook(n int) (string, error) {
	return b.book(fmt.Sprintf("resume-%d", n), b.target()+all(n)+"steps:\n", "", 0,
		"- {id: s, for-each: vars.all, uses: redis.command, target: r, with: {args: [INCR, k]}, undo: none, why: w}\n"+
			"- {id: check, uses: redis.command, target: r, effect: read, with: {args: [GET, not_there]}, expect: reply != nil}\n")
}
