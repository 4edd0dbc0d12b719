package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"runbook/runner/journal"
)

// crashBook has what makes a resume hard: blind steps, loops with failures, groups side
// by side, a rescue, a rollback, a repeat, a sub-runbook, a list known only while running.
const crashBook = bookHead + `
steps:
  - {id: first, uses: mem.set, with: {key: a, value: 1}}
  - {id: blind, uses: mem.add, undo: none, with: {key: blind, value: 1}}
  - {id: probed, uses: mem.add, undo: none, with: {key: probed, value: 1}, probe: {uses: mem.get, with: {key: probed}, done: value == 1}}
  - {id: seen, uses: mem.get, with: {key: a}, expect: value == 1}
  - id: many
    for-each: "[1, 2, 3]"
    max-parallel: 2
    max-failures: 1
    steps:
      - {id: one, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}}
      - {id: two, uses: mem.set, with: {key: "l${{ item }}", value: "${{ steps.one.value }}"}, expect: value != 2}
  - id: waves
    for-each: "[steps.seen.value, steps.seen.value + 1]"
    as: n
    batch: [1]
    uses: mem.set
    with: {key: "w${{ n }}", value: 5}
    after-batch:
      - {id: counted, uses: mem.set, with: {key: "c${{ batch.index }}", value: "${{ len(batch.items) }}"}}
  - id: beside
    parallel: true
    steps:
      - {id: left, uses: mem.set, with: {key: left, value: 1}}
      - {id: right, uses: mem.set, with: {key: right, value: 1}}
  - id: rescued
    uses: mem.set
    with: {key: r, value: 1}
    expect: value == 2
    rescue:
      - {id: help, uses: mem.set, with: {key: help, value: 1}}
      - {id: more, uses: mem.set, with: {key: more, value: 1}}
  - id: back
    on-failure: continue
    steps:
      - id: undone
        on-failure: rollback
        steps:
          - {id: u1, uses: mem.set, with: {key: u1, value: 1}}
          - {id: u2, uses: mem.set, with: {key: u2, value: 1}, expect: value == 2}
  - id: passes
    repeat: {until: steps.pass.value >= 2, max: 3, every: 1ms}
    steps:
      - {id: pass, uses: mem.set, with: {key: pass, value: 2}}
  - {id: cut, uses: ./sub.yaml, with: {n: 4}}
  - {id: last, uses: mem.set, with: {key: last, value: "${{ steps.cut.got + len(steps.many.items) }}"}}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

const crashSub = `
version: 1
name: sub
inputs: {n: {type: int}}
steps:
  - {id: hold, uses: mem.set, with: {key: sub, value: "${{ inputs.n }}"}}
outputs: {got: steps.hold.value}
`

// rollbackBook ends in a rollback of the whole run.
const rollbackBook = bookHead + `
on-failure: rollback
steps:
  - {id: first, uses: mem.set, with: {key: a, value: 1}}
  - id: many
    for-each: [1, 2]
    uses: mem.set
    with: {key: "k${{ item }}", value: 1}
  - id: beside
    parallel: true
    steps:
      - {id: left, uses: mem.set, with: {key: left, value: 1}}
      - {id: right, uses: mem.set, with: {key: right, value: 1}}
  - {id: bad, uses: mem.set, with: {key: bad, value: 1}, expect: value == 2}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

// errCrash is what the journal's file answers once the runner is to be dead.
var errCrash = errors.New("crash")

// The instants at which a runner can die around one record.
const (
	beforeWrite = "before the write"
	afterWrite  = "after the write, before the sync; the line survives"
	lostWrite   = "after the write, before the sync; the line is lost"
	afterSync   = "after the sync"
	midLine     = "in the middle of the line"
)

// crashFile is a journal on disk that dies at one record.
type crashFile struct {
	*os.File
	mu     sync.Mutex
	at     int // which line
	how    string
	lines  int
	dead   bool
	size   int64 // written
	synced int64
}

func (f *crashFile) open(path string, flag int, perm fs.FileMode) (journal.File, error) {
	var err error
	if f.File, err = os.OpenFile(path, flag, perm); err != nil {
		return nil, err
	}
	info, err := f.File.Stat()
	if err == nil {
		f.size = info.Size() // what an earlier process wrote is on the disk
		f.synced = f.size
	}
	return f, err
}

func (f *crashFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return 0, errCrash
	}
	f.lines++
	if f.lines == f.at {
		switch f.how {
		case beforeWrite:
			f.dead = true
			return 0, errCrash
		case midLine:
			f.dead = true
			f.File.Write(b[:len(b)/2])
			return 0, errCrash
		case afterWrite:
			f.dead = true
			f.File.Write(b)
			return 0, errCrash
		}
	}
	n, err := f.File.Write(b)
	f.size += int64(n)
	return n, err
}

func (f *crashFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errCrash
	}
	if f.lines >= f.at && f.at > 0 {
		f.dead = true
		if f.how == lostWrite {
			f.File.Truncate(f.synced)
			return errCrash
		}
		return errCrash
	}
	f.synced = f.size
	return nil
}

func TestCrashAtEveryRecord(t *testing.T) {
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"forward", crashBook, Succeeded}, {"rollback", rollbackBook, RolledBack}} {
		reference := newLab(t)
		r := reference.exec(reference.program(book.text, "sub.yaml", crashSub))
		reference.end(r, book.end)
		want := reference.w.state()
		total := len(reference.records)
		if total < 15 {
			t.Fatalf("only %d records", total)
		}
		for _, how := range []string{beforeWrite, midLine, afterWrite, lostWrite, afterSync} {
			t.Run(book.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				for at := 2; at <= total+2; at++ {
					crashOnce(t, book.text, how, at, want, book.end)
				}
			})
		}
	}
}

func crashOnce(t *testing.T, book, how string, at int, want string, end Status) {
	t.Helper()
	crashOn(t, newLab(t), book, how, at, want, end)
}

// crashOn dies at one record, resumes until the run is over, and compares the end.
func crashOn(t *testing.T, l *lab, book, how string, at int, want string, end Status) {
	t.Helper()
	l.options.Open = (&crashFile{at: at, how: how}).open
	r := l.exec(l.program(book, "sub.yaml", crashSub))
	l.options = journal.Options{}
	var path []string
	for tries := 0; r.Status != end; tries++ {
		if tries > 3 {
			t.Fatalf("record %d, %s: still %s (%v) after %v", at, how, r.Status, r.Err, path)
		}
		path = append(path, fmt.Sprintf("%s %s %v", r.Status, r.Step, r.Err))
		var change []func(*ResumeRequest)
		if tries > 0 && r.Status == InDoubt {
			if r.Step != "blind" {
				t.Fatalf("record %d, %s: %s is in doubt: %v; only a blind step can be", at, how, r.Step, r.Err)
			}
			// The operator looks.
			choice := "redo"
			if l.w.get("blind") == 1 {
				choice = "done"
			}
			change = append(change, func(q *ResumeRequest) { q.Decisions = []Decision{{Step: "blind", Choice: choice, Reason: "looked"}} })
		}
		var err error
		var usage *UsageError
		if r, err = l.tryResume(change...); errors.As(err, &usage) && strings.Contains(err.Error(), "is over") {
			break // the last record survived
		} else if err != nil {
			t.Fatalf("record %d, %s: resume: %v (after %v)", at, how, err, path)
		}
	}
	if got := l.w.state(); got != want {
		t.Errorf("record %d, %s: world %s, want %s\nthrough %v\n%s", at, how, got, want, path, strings.Join(l.w.log, "\n"))
	}
	blind := 0
	for _, e := range l.w.log {
		if strings.HasPrefix(e, "add ") {
			blind++
		}
	}
	if strings.Contains(book, "mem.add") && blind != 2 {
		t.Errorf("record %d, %s: %d blind effects, want 2", at, how, blind)
	}
	folder, err := l.store.Find("last")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Verify(folder.JournalPath()); err != nil {
		t.Errorf("record %d, %s: %v", at, how, err)
	}
	if raw, err := os.ReadFile(folder.JournalPath()); err != nil || !bytes.HasSuffix(raw, []byte("\n")) {
		t.Errorf("record %d, %s: the journal does not end in a whole line (%v)", at, how, err)
	}
}
