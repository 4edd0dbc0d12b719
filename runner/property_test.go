package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"runbook/runner/journal"
)

// author draws runbooks: nested groups, loops, rescues, failures that are handled, rolled
// back or end the run. Every step has a key of its own, so that the end tells what was done.
type author struct {
	t     *rapid.T
	n     int
	reads bool // a step to read from is there
}

func (a *author) id(prefix string) string {
	a.n++
	return fmt.Sprintf("%s%d", prefix, a.n)
}

// steps draws a list. items are the names of the loops around it; fails: a failure may leave it.
func (a *author) steps(depth int, items string, fails bool) string {
	n := rapid.IntRange(1, 3).Draw(a.t, "steps")
	list := make([]string, n)
	for i := range list {
		list[i] = a.step(depth, items, fails && i == n-1)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func (a *author) step(depth int, items string, fails bool) string {
	kinds := []string{"set", "set", "add", "probed", "get", "skipped", "continue", "rescue"}
	if depth > 0 {
		kinds = append(kinds, "group", "parallel", "loop", "loop", "waves", "repeat", "retry", "back", "undo", "late", "items")
	}
	if fails {
		kinds = append(kinds, "fail", "fail")
	}
	kind := rapid.SampledFrom(kinds).Draw(a.t, "kind")
	id := a.id("s")
	key := fmt.Sprintf(`"%s%s"`, id, items)
	set := fmt.Sprintf("uses: mem.set, with: {key: %s, value: 1}", key)
	add := fmt.Sprintf("uses: mem.add, undo: none, with: {key: %s, value: 1}", key)
	bad := set + ", expect: value == 2"
	switch kind {
	case "add":
		return fmt.Sprintf("{id: %s, %s}", id, add)
	case "probed":
		return fmt.Sprintf("{id: %s, %s, probe: {uses: mem.get, with: {key: %s}, done: value == 1}}", id, add, key)
	case "get":
		return fmt.Sprintf("{id: %s, uses: mem.get, with: {key: %s}, expect: value == 0}", id, key)
	case "skipped":
		return fmt.Sprintf("{id: %s, %s, when: 1 > 2}", id, set)
	case "continue":
		return fmt.Sprintf("{id: %s, %s, on-failure: continue}", id, bad)
	case "fail":
		return fmt.Sprintf("{id: %s, %s}", id, bad)
	case "rescue":
		return fmt.Sprintf("{id: %s, %s, rescue: %s}", id, bad, a.steps(depth-1, items, false))
	case "group":
		return fmt.Sprintf("{id: %s, steps: %s}", id, a.steps(depth-1, items, fails))
	case "parallel":
		return fmt.Sprintf("{id: %s, parallel: true, steps: %s}", id, a.steps(depth-1, items, false))
	case "loop":
		parallel := rapid.IntRange(1, 2).Draw(a.t, "parallel")
		return fmt.Sprintf("{id: %s, for-each: %s, as: %s_i, max-parallel: %d, steps: %s}", id, a.list(), id, parallel, a.steps(depth-1, items+"${{ "+id+"_i }}", fails && parallel == 1))
	case "items":
		return fmt.Sprintf(`{id: %s, for-each: "[1, 2, 3]", as: %s_i, max-failures: 1, on-failure: rollback-item, uses: mem.set, with: {key: "%s${{ %s_i }}", value: "${{ %s_i }}"}, expect: value != 2}`, id, id, id+items, id, id)
	case "waves":
		return fmt.Sprintf("{id: %s, for-each: %s, as: %s_i, batch: [1], uses: mem.set, with: {key: \"%s${{ %s_i }}\", value: 1}, after-batch: %s}", id, a.list(), id, id+items, id, a.steps(depth-1, items+"${{ batch.index }}", false))
	case "repeat": // what an operator takes as done has no outputs, so a read tells
		n, g := a.id("n"), a.id("g")
		return fmt.Sprintf(`{id: %s, repeat: {until: steps.%s.value >= 2, max: 5, every: 1ms}, steps: [{id: %s, uses: mem.add, undo: none, with: {key: "%s", value: 1}}, {id: %s, uses: mem.get, with: {key: "%s"}}, {id: %s, uses: mem.set, with: {key: "%s", value: 1}}]}`,
			id, g, n, n+items, g, n+items, a.id("p"), id+items)
	case "retry":
		n := a.id("n")
		return fmt.Sprintf(`{id: %s, retry: {attempts: 3, delay: 1ms}, steps: [{id: %s, uses: mem.set, with: {key: "%s", value: 1}}, {id: %s, uses: mem.add, undo: none, with: {key: "%s", value: 1}}, {id: %s, uses: mem.get, with: {key: "%s"}, expect: value >= 2}]}`,
			id, a.id("r"), id+items, n, n+items, a.id("g"), n+items)
	case "back":
		return fmt.Sprintf("{id: %s, on-failure: continue, steps: [{id: %s, on-failure: rollback, steps: [%s, {id: %s, %s}]}]}", id, a.id("b"), a.step(depth-1, items, false), a.id("f"), bad)
	case "undo":
		return fmt.Sprintf(`{id: %s, on-failure: continue, steps: [{id: %s, on-failure: rollback, steps: [{id: %s, undo: [{id: %s, %s}], steps: [{id: %s, uses: mem.set, with: {key: "%s", value: 1}}]}, {id: %s, %s}]}]}`,
			id, a.id("b"), a.id("u"), a.id("d"), add, a.id("c"), a.id("k")+items, a.id("f"), strings.Replace(bad, id, a.id("z"), 1))
	case "late":
		return fmt.Sprintf("{id: %s, %s, retry: {attempts: 2, delay: 1ms}, on-failure: continue}", id, bad)
	}
	return fmt.Sprintf("{id: %s, %s}", id, set)
}

// list is one known before running, or only while running.
func (a *author) list() string {
	if a.reads && rapid.Bool().Draw(a.t, "dynamic") {
		return `"[steps.zero.value, steps.zero.value + 1]"`
	}
	return `"[1, 2]"`
}

func (a *author) book() string {
	a.reads = true
	head := bookHead
	if rapid.Bool().Draw(a.t, "rollback") {
		head += "on-failure: rollback\n"
	}
	return head + "steps:\n  - {id: zero, uses: mem.get, with: {key: zero}}\n  - {id: all, steps: " + a.steps(3, "", true) + "}\n" +
		"finally: [{id: tidy, uses: mem.set, with: {key: tidy, value: 1}}]\n"
}

// TestDisturbedRunsEndLikeUndisturbedOnes: whatever the runbook and wherever its processes
// die or are interrupted, resuming until the run is over gives the same world.
func TestDisturbedRunsEndLikeUndisturbedOnes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := (&author{t: rt}).book()
		reference := newLab(t)
		r := reference.exec(reference.program(text))
		want, end := reference.w.state(), r.Status
		total := len(reference.records)

		l := newLab(t)
		p := l.program(text)
		var way []string
		disturb := func() {
			at := rapid.IntRange(2, total+1).Draw(rt, "at")
			how := rapid.SampledFrom([]string{beforeWrite, midLine, afterWrite, lostWrite, afterSync, "interrupt"}).Draw(rt, "how")
			way = append(way, fmt.Sprintf("%s %d", how, at))
			l.options, l.ctx, l.observe = journal.Options{}, nil, nil
			if how != "interrupt" {
				l.options.Open = (&crashFile{at: at, how: how}).open
				return
			}
			ctx, interrupt := context.WithCancelCause(t.Context())
			seen := 0
			l.ctx, l.observe = ctx, func(journal.Record) {
				if seen++; seen == at {
					interrupt(ErrInterrupted)
				}
			}
		}
		fatal := func(format string, args ...any) {
			rt.Fatalf("%s\n%s\n%s\n%s", text, strings.Join(way, "\n"), strings.Join(l.w.log, "\n"), fmt.Sprintf(format, args...))
		}
		disturb()
		r = l.exec(p)
		way = append(way, fmt.Sprintf("%s %s %v", r.Status, r.Step, r.Err))
		again := rapid.IntRange(0, 2).Draw(rt, "again")
		for tries := 0; r.Status == InDoubt || r.Status == Interrupted; tries++ {
			if tries > 6 {
				fatal("it never ends")
			}
			l.options, l.ctx, l.observe = journal.Options{}, nil, nil
			if tries < again {
				disturb()
			}
			var change []func(*ResumeRequest)
			if strings.Contains(r.Hint, "--decide") {
				choice := "redo"
				if l.did(r.Step) {
					choice = "done"
				}
				change = append(change, func(q *ResumeRequest) { q.Decisions = []Decision{{r.Step, choice, "looked"}} })
				way = append(way, choice)
			}
			next, err := l.tryResume(change...)
			var usage *UsageError
			if errors.As(err, &usage) && strings.Contains(err.Error(), "is over") {
				r = &Result{Status: end}
				break
			} else if err != nil {
				fatal("resume: %v", err)
			}
			r = next
			way = append(way, fmt.Sprintf("%s %s %v", r.Status, r.Step, r.Err))
		}
		if r.Status != end {
			fatal("ended %s, want %s", r.Status, end)
		}
		if got := l.w.state(); got != want {
			fatal("world %s\nwant  %s", got, want)
		}
	})
}

// did says whether the act of a step in doubt happened: the world has seen more acts on
// its key than the journal has ends of.
func (l *lab) did(path string) bool {
	folder, err := l.store.Find("last")
	if err != nil {
		l.t.Fatal(err)
	}
	h, err := journal.Read(folder.JournalPath())
	if err != nil {
		l.t.Fatal(err)
	}
	command := map[string]string{}
	ends := map[string]int{}
	for _, r := range h.Records {
		switch r.Type {
		case recStepStarted:
			var b StepStarted
			if r.Decode(&b) == nil && len(b.Commands) > 0 {
				command[r.Step] = b.Commands[0]
			}
		case recStepFinished:
			var b StepFinished
			if r.Decode(&b) == nil && b.Decided != decidedResume { // that one had not acted
				ends[command[r.Step]]++
			}
		}
	}
	acts := 0
	for _, e := range l.w.log {
		if e == command[path] {
			acts++
		}
	}
	return acts > ends[command[path]]
}
