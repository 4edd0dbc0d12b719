package runner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/steps"
)

// finished gives the status of each step that has finished, by path, as the journal has it last.
func (l *lab) finished() map[string]string {
	l.t.Helper()
	all := map[string]string{}
	for _, r := range l.records {
		if r.Type == recStepFinished {
			var b StepFinished
			if err := r.Decode(&b); err != nil {
				l.t.Fatal(err)
			}
			all[r.Step] = b.Status
		}
	}
	return all
}

// slow is an act that takes seconds of the engine's clock, as many as its value says.
func slow(l *lab) {
	l.w.odd("mem.slow", false, func(ctx context.Context, s steps.Session, in memIn) (memOut, error) {
		if err := s.Sleep(ctx, time.Duration(in.Value)*time.Second); err != nil {
			return memOut{}, err
		}
		return memOut{Value: in.Value}, l.w.act(in.Key, func() { l.w.value[in.Key] = in.Value })
	})
}

func TestAFailureBesideStopsWaitsAndLetsWritesFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		slow(l)
		began := time.Now()
		r := l.exec(l.program(bookHead + `
steps:
  - id: g
    parallel: true
    steps:
      - id: waits
        steps:
          - {id: w, uses: mem.get, with: {key: lag}, wait-until: value == 1, timeout: 1h, on-failure: continue}
          - {id: never, uses: mem.set, with: {key: never, value: 1}}
      - id: writes
        steps:
          - {id: s, uses: mem.slow, undo: none, with: {key: slow, value: 30}}
          - {id: nor, uses: mem.set, with: {key: nor, value: 1}}
      - id: naps
        steps:
          - {id: z, uses: sleep, with: {duration: 1h}, timeout: 2h}
      - id: retries
        steps:
          - {id: t, uses: mem.get, with: {key: lag}, expect: value == 1, retry: {attempts: 9, delay: 1h}}
      - id: fails
        steps:
          - {id: nap, uses: sleep, with: {duration: 5s}}
          - {id: bad, uses: mem.get, with: {key: x}, expect: value == 1}
`))
		l.end(r, Failed)
		if r.Step != "g/bad" && r.Step != "bad" || !strings.Contains(r.Err.Error(), "expect: value == 1") {
			t.Errorf("the run ended at %s: %v; want the step that failed", r.Step, r.Err)
		}
		if got := l.w.state(); got != `{"slow":30}` {
			t.Errorf("world %s: the write finishes, nothing new starts", got)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("took %v", took)
		}
		f := l.finished()
		if f["s"] != "changed" || f["w"] != "" || f["z"] != "" || f["t"] != "" {
			t.Errorf("finished %v: what was cut short has not finished", f)
		}
	})
}

func TestTimeoutOfAGroup(t *testing.T) {
	t.Run("cuts what is in it, and is the group's failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			r := l.exec(l.program(bookHead + `
steps:
  - id: g
    timeout: 30s
    rescue: [{id: r, uses: mem.set, with: {key: r, value: 1}, when: error.kind == "timeout"}]
    steps:
      - id: inner
        on-failure: continue
        steps:
          - {id: w, uses: mem.get, with: {key: lag}, wait-until: value == 1, timeout: 1h, on-failure: continue}
          - {id: never, uses: mem.set, with: {key: never, value: 1}}
`))
			l.end(r, Succeeded)
			if got := l.w.state(); got != `{"r":1}` {
				t.Errorf("world %s", got)
			}
		})
	})
	t.Run("settles an act", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			slow(l)
			r := l.exec(l.program(bookHead + `steps: [{id: g, timeout: 3s, steps: [{id: s, uses: mem.slow, undo: none, with: {key: x, value: 30}}]}]` + "\n"))
			l.end(r, InDoubt)
			if r.Step != "s" {
				t.Errorf("in doubt at %s", r.Step)
			}
		})
	})
	t.Run("does not count the time at a gate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.ask = func(ctx context.Context, _ Question) (Answer, error) {
				time.Sleep(time.Hour)
				return Answer{Approved: true}, ctx.Err()
			}
			l.end(l.exec(l.program(bookHead+`
steps:
  - id: g
    timeout: 30s
    steps:
      - {id: z, uses: sleep, with: {duration: 20s}}
      - {id: a, uses: mem.set, confirm: 'Really?', with: {key: x, value: 1}}
      - {id: y, uses: sleep, with: {duration: 5s}}
`)), Succeeded)
			l.end(l.exec(l.program(bookHead+`
steps:
  - id: g
    timeout: 30s
    steps:
      - {id: z, uses: sleep, with: {duration: 20s}}
      - {id: a, uses: mem.set, confirm: 'Really?', with: {key: x, value: 2}}
      - {id: y, uses: sleep, with: {duration: 11s}}
`)), Failed)
		})
	})
}

func TestStubbornKinds(t *testing.T) {
	stubborn := func(l *lab, release chan struct{}) {
		l.w.odd("mem.stubborn", true, func(_ context.Context, _ steps.Session, in memIn) (memOut, error) {
			<-release
			return memOut{}, nil
		})
	}
	t.Run("one that ignores its time-out is left in doubt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			release := make(chan struct{})
			defer close(release)
			stubborn(l, release)
			began := time.Now()
			r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.stubborn, undo: none, timeout: 5s, with: {key: x}}]` + "\n"))
			l.end(r, InDoubt)
			if took := time.Since(began); took != 15*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("an interrupt does not wait for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			release := make(chan struct{})
			defer close(release)
			stubborn(l, release)
			ctx, cancel := context.WithCancelCause(t.Context())
			l.ctx = ctx
			time.AfterFunc(time.Second, func() { cancel(ErrInterrupted) })
			began := time.Now()
			r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.stubborn, undo: none, with: {key: x}}]` + "\n"))
			l.end(r, Interrupted)
			if took := time.Since(began); took != 11*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("one that panics has given no answer", func(t *testing.T) {
		l := newLab(t)
		l.w.odd("mem.panic", false, func(context.Context, steps.Session, memIn) (memOut, error) { panic("oh") })
		r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.panic, undo: none, with: {key: x}}]` + "\n"))
		l.end(r, InDoubt)
		if !strings.Contains(r.Err.Error(), "panicked: oh") {
			t.Error(r.Err)
		}
	})
}

func TestATimeoutOfAnActIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		slow(l)
		l.end(l.exec(l.program(bookHead+`steps: [{id: a, uses: mem.slow, undo: none, timeout: 5s, with: {key: x, value: 60}}]`+"\n")), InDoubt)
		l.end(l.exec(l.program(bookHead+`steps: [{id: a, uses: mem.slow, undo: none, attempt-timeout: 5s, with: {key: x, value: 60}, retry: {attempts: 3, delay: 1s}}]`+"\n")), InDoubt)
		// Idempotent: it may be repeated, as often as retry says.
		l.w.onAct = func(string) { t.Error("acted") }
		r := l.exec(l.program(bookHead + `steps: [{id: a, uses: mem.slow, idempotent: true, undo: none, attempt-timeout: 5s, with: {key: x, value: 60}, retry: {attempts: 3, delay: 1s}}]` + "\n"))
		l.end(r, Failed)
		started := 0
		for _, rec := range l.records {
			if rec.Type == recStepStarted {
				started++
			}
		}
		if started != 3 {
			t.Errorf("%d attempts, want 3", started)
		}
	})
}

func TestPrioritiesOfEnds(t *testing.T) {
	nobody := func(context.Context, Question) (Answer, error) { return Answer{}, errors.New("nobody") }
	for _, c := range []struct {
		name, left, right string
		want              Status
	}{
		{"failed before paused", `{id: l, uses: mem.get, with: {key: x}, expect: value == 1}`, `{id: r, uses: mem.set, confirm: 'Yes?', with: {key: y, value: 1}}`, Failed},
		{"in doubt before failed", `{id: l, steps: [{id: z, uses: sleep, with: {duration: 1s}}, {id: l1, uses: mem.get, with: {key: x}, expect: value == 1}]}`, `{id: r, steps: [{id: y, uses: sleep, with: {duration: 1s}}, {id: r1, uses: mem.add, undo: none, with: {key: lost, value: 1}}]}`, InDoubt},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.ask = func(ctx context.Context, q Question) (Answer, error) {
					time.Sleep(time.Millisecond)
					return nobody(ctx, q)
				}
				l.w.lost["lost"] = true
				l.w.onGet = func(string, int) { time.Sleep(time.Millisecond) }
				l.w.onAct = func(string) { time.Sleep(2 * time.Millisecond) }
				l.end(l.exec(l.program(bookHead+"steps:\n  - id: g\n    parallel: true\n    steps:\n      - "+c.left+"\n      - "+c.right+"\n")), c.want)
			})
		})
	}
}

func TestAJournalThatCannotBeWritten(t *testing.T) {
	for _, text := range []string{crashBook, rollbackBook} {
		reference := newLab(t)
		reference.exec(reference.program(text, "sub.yaml", crashSub))
		for at := 2; at <= len(reference.records); at++ {
			l := newLab(t)
			f := &crashFile{at: at, how: beforeWrite}
			l.options.Open = f.open
			l.w.onAct = func(key string) {
				f.mu.Lock()
				defer f.mu.Unlock()
				if beside := key == "left" || key == "right" || key[0] == 'k' || key[0] == 'l'; f.dead && !beside {
					t.Errorf("record %d: acted on %s after the journal could not be written", at, key)
				}
			}
			r := l.exec(l.program(text, "sub.yaml", crashSub))
			if r.Status != InDoubt || r.Status.ExitCode() != 3 {
				t.Errorf("record %d: %s", at, r.Status)
			}
			var dead *journal.WriteError
			if !errors.As(r.Err, &dead) {
				t.Errorf("record %d: %v", at, r.Err)
			}
		}
	}
}
