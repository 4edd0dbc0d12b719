package runner

import (
	"context"
	"testing"
	"time"

	"runbook/runner/journal"
)

// guardCrashBook has guards of the run and of groups, one of which trips once and rolls its group back.
const guardCrashBook = bookHead + `
guards: [{id: calm, uses: mem.gauge, every: 1ms, require: value < 100}]
steps:
  - {id: first, uses: mem.set, with: {key: a, value: 1}}
  - {id: blind, uses: mem.add, undo: none, with: {key: blind, value: 1}}
  - id: back
    on-failure: continue
    steps:
      - id: undone
        guards: [{id: low, uses: mem.get, with: {key: high}, every: 1ms, require: value == 0, then: rollback}]
        steps:
          - {id: u1, uses: mem.set, with: {key: u1, value: 1}}
          - {id: raise, uses: mem.add, undo: none, why: a test, probe: {uses: mem.get, with: {key: high}, done: value == 1}, with: {key: high, value: 1}}
          - {id: never, uses: mem.get, with: {key: never}, wait-until: value == 1, timeout: 1h, every: 1ms}
  - id: beside
    parallel: true
    guards: [{id: quiet, uses: mem.gauge, every: 1ms, require: value < 100, then: stop}]
    max-age: {of: 1h}
    steps:
      - {id: left, uses: mem.set, with: {key: left, value: 1}}
      - {id: right, uses: mem.set, with: {key: right, value: 1}}
  - {id: last, uses: mem.set, with: {key: last, value: 1}}
`

// guardRollbackBook is rolled back by a guard of the run.
const guardRollbackBook = bookHead + `
guards: [{id: low, uses: mem.get, with: {key: high}, every: 1ms, require: value == 0, then: rollback}]
steps:
  - {id: first, uses: mem.set, with: {key: a, value: 1}}
  - id: many
    for-each: [1, 2]
    uses: mem.set
    with: {key: "k${{ item }}", value: 1}
  - {id: raise, uses: mem.set, with: {key: high, value: 1}}
  - {id: never, uses: mem.get, with: {key: never}, wait-until: value == 1, timeout: 1h, every: 1ms}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

// The runner dies at every record of runs in which guards trip; the end is the same.
func TestCrashAtEveryRecordWithGuards(t *testing.T) {
	calm := func(context.Context, time.Duration, string) (int, error) { return 0, nil }
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"group", guardCrashBook, Succeeded}, {"run", guardRollbackBook, RolledBack}} {
		for _, how := range []string{beforeWrite, midLine, afterWrite, lostWrite, afterSync} {
			t.Run(book.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				reference := newLab(t)
				reference.gauge(calm)
				reference.end(reference.exec(reference.program(book.text)), book.end)
				want, total := reference.w.state(), len(reference.records)
				if n := len(bodies[GuardTripped](t, reference, recGuardTripped)); n != 1 {
					t.Fatalf("%d trips, want one", n)
				}
				for at := 2; at <= total+2; at++ {
					l := newLab(t)
					l.gauge(calm)
					crashOn(t, l, book.text, how, at, want, book.end)
				}
			})
		}
	}
}

// The same, where the run is interrupted at every record.
func TestInterruptAtEveryRecordWithGuards(t *testing.T) {
	calm := func(context.Context, time.Duration, string) (int, error) { return 0, nil }
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"group", guardCrashBook, Succeeded}, {"run", guardRollbackBook, RolledBack}} {
		t.Run(book.name, func(t *testing.T) {
			reference := newLab(t)
			reference.gauge(calm)
			reference.end(reference.exec(reference.program(book.text)), book.end)
			want, total := reference.w.state(), len(reference.records)
			for at := 1; at <= total; at++ {
				l := newLab(t)
				l.gauge(calm)
				ctx, interrupt := context.WithCancelCause(t.Context())
				l.ctx = ctx
				seen := 0
				l.observe = func(journal.Record) {
					if seen++; seen == at {
						interrupt(ErrInterrupted)
					}
				}
				r := l.exec(l.program(book.text))
				l.ctx, l.observe = nil, nil
				if r.Status == Interrupted {
					r = l.resume()
				}
				l.end(r, book.end)
				if got := l.w.state(); got != want {
					t.Errorf("record %d: world %s, want %s", at, got, want)
				}
			}
		})
	}
}
