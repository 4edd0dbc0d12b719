package runner

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"runbook/runner/journal"
)

// TestInterruptAtEveryRecord interrupts a run when it writes its n-th record, resumes it,
// and wants the end that an undisturbed run has.
func TestInterruptAtEveryRecord(t *testing.T) {
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"forward", crashBook, Succeeded}, {"rollback", rollbackBook, RolledBack}} {
		t.Run(book.name, func(t *testing.T) {
			reference := newLab(t)
			reference.end(reference.exec(reference.program(book.text, "sub.yaml", crashSub)), book.end)
			want, total := reference.w.state(), len(reference.records)
			for at := 1; at <= total; at++ {
				l := newLab(t)
				ctx, interrupt := context.WithCancelCause(t.Context())
				l.ctx = ctx
				seen := 0
				l.observe = func(journal.Record) {
					if seen++; seen == at {
						interrupt(ErrInterrupted)
					}
				}
				r := l.exec(l.program(book.text, "sub.yaml", crashSub))
				l.ctx, l.observe = nil, nil
				if last := l.records[len(l.records)-1]; last.Type != recRunFinished {
					t.Fatalf("record %d: the last record is %s, not run-finished", at, last.Type)
				}
				if r.Status != book.end {
					if r.Status != Interrupted {
						t.Fatalf("record %d: %s (%v), want interrupted", at, r.Status, r.Err)
					}
					if r = l.resume(); r.Status != book.end {
						t.Fatalf("record %d: after the resume %s (%v)", at, r.Status, r.Err)
					}
				}
				if got := l.w.state(); got != want {
					t.Errorf("record %d: world %s, want %s\n%s", at, got, want, strings.Join(l.w.log, "\n"))
				}
				if n := strings.Count(strings.Join(l.w.log, "\n"), "add "); strings.Contains(book.text, "mem.add") && n != 2 {
					t.Errorf("record %d: %d blind effects, want 2: %s", at, n, fmt.Sprint(l.w.log))
				}
			}
		})
	}
}
