package runner

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"runbook/runner/journal"
)

// gatesBook asks one person, several, about a loop, each of its batches and each of its
// items, and about a group.
const gatesBook = bookHead + `
steps:
  - {id: one, uses: mem.set, with: {key: one, value: 1}, confirm: Go}
  - {id: two, uses: mem.add, undo: none, with: {key: two, value: 1}, confirm: {message: Go, approvals: 2, timeout: 1h}, probe: {uses: mem.get, with: {key: two}, done: value == 1}}
  - id: items
    for-each: "[1, 2]"
    confirm: {message: "Go on with ${{ item }}?", each: item}
    uses: mem.set
    with: {key: "i${{ item }}", value: 1}
  - id: batches
    for-each: "[1, 2]"
    batch: [1]
    confirm: {message: Go on, each: batch, wait: detached}
    uses: mem.set
    with: {key: "b${{ item }}", value: 1}
  - id: group
    confirm: {message: All of it, approvals: 2}
    steps:
      - {id: u, uses: mem.set, with: {key: u, value: 1}}
      - {id: v, uses: mem.set, with: {key: v, value: 1}}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

// TestCrashAtEveryRecordWithGates dies at each record that processes of a run, and those
// who approve it, write. Nobody's yes is lost once it was taken, none is made up, and
// nothing acts before it.
func TestCrashAtEveryRecordWithGates(t *testing.T) {
	end, total := goThrough(t, newLab(t), nil)
	if total < 30 {
		t.Fatalf("only %d records", total)
	}
	for _, how := range []string{beforeWrite, midLine, afterWrite, lostWrite, afterSync} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			for at := 2; at <= total; at++ {
				l := newLab(t)
				if got, _ := goThrough(t, l, &crashFile{at: at, how: how}); got != end {
					t.Errorf("record %d: world %s, want %s", at, got, end)
				}
				if n := strings.Count(strings.Join(l.w.log, "\n"), "add "); n != 1 {
					t.Errorf("record %d: %d effects of what must not be repeated", at, n)
				}
				if t.Failed() {
					t.Fatalf("record %d: %s", at, strings.Join(l.w.log, "\n"))
				}
			}
		})
	}
}

// goThrough runs, approves and resumes until the run is over. crash is the one file of all
// processes, which dies once. It gives the world at the end, and how many records there are.
func goThrough(t *testing.T, l *lab, crash *crashFile) (world string, records int) {
	t.Helper()
	if crash != nil {
		l.options.Open = crash.open
	}
	r := l.exec(l.program(gatesBook))
	for tries := 0; r.Status != Succeeded; tries++ {
		if tries > 20 {
			t.Fatalf("still %s: %v", r.Status, r.Err)
		}
		if crash != nil && crash.dead {
			l.options = journal.Options{}
		}
		for _, g := range l.gates() {
			for _, op := range []Operator{ben, carla} {
				if g.Decided {
					continue
				}
				d, err := l.decide(op, Verdict{Step: g.Step, Approved: true})
				switch {
				case crash != nil && crash.dead && l.options.Open != nil: // the one who approves died
					l.options = journal.Options{}
					if d, err = l.decide(op, Verdict{Step: g.Step, Approved: true}); err != nil && !strings.Contains(err.Error(), "already") {
						t.Fatal(err)
					}
				case err != nil && !strings.Contains(err.Error(), "has approved already"):
					t.Fatal(err)
				}
				if d != nil && d.Done || err != nil && strings.Contains(err.Error(), "was approved by") {
					break
				}
			}
		}
		var err error
		var usage *UsageError
		if r, err = l.tryResume(); errors.As(err, &usage) && strings.Contains(err.Error(), "is over") {
			break // the last record survived
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return l.w.state(), l.approvedFirst()
}

// approvedFirst wants that whatever acts was approved before by all who must, and gives
// the number of records.
func (l *lab) approvedFirst() int {
	l.t.Helper()
	h, err := journal.Read(l.newest().JournalPath())
	if err != nil {
		l.t.Fatal(err)
	}
	given := map[string]int{}
	needs := func(gate string, people int) {
		if given[gate] < people {
			l.t.Errorf("something acted with %d approvals of %s, and %d are needed", given[gate], gate, people)
		}
	}
	for _, r := range h.Records {
		switch {
		case r.Type == recGateDecided:
			given[r.Step]++
		case r.Type != recStepStarted:
		case r.Step == "one":
			needs("one", 1)
		case r.Step == "two":
			needs("two", 2)
		case r.Step == "u", r.Step == "v":
			needs("group", 2)
		case r.Step == "items[1]", r.Step == "items[2]":
			needs(r.Step, 1)
		case r.Step == "batches[1]", r.Step == "batches[2]":
			var item int
			if _, err := fmt.Sscanf(r.Step, "batches[%d]", &item); err != nil {
				l.t.Fatal(err)
			}
			needs(fmt.Sprintf("batches[batch %d]", item-1), 1)
		}
	}
	for gate, n := range given {
		most := 1
		if gate == "two" || gate == "group" {
			most = 2
		}
		if n > most {
			l.t.Errorf("%d decisions about %s, of %d", n, gate, most)
		}
	}
	return len(h.Records)
}
