package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"runbook/steps"
)

func TestDelaysOfARetry(t *testing.T) {
	p := retryPolicy{first: time.Second, most: 10 * time.Second, factor: 2, jitter: 0.2}
	for range 1000 {
		for try, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 5: 10 * time.Second, 5000: 10 * time.Second} {
			got := p.delay(try)
			if low, high := want-want/5, min(want+want/5, p.most); got < low || got > high {
				t.Fatalf("delay %d is %v, want %v to %v", try, got, low, high)
			}
		}
	}
	if got := (retryPolicy{factor: 2, most: time.Second}).delay(5000); got != 0 {
		t.Errorf("no delay is %v", got)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	passing := &steps.Error{Kind: "loading", Temporary: true, Err: errors.New("LOADING")}
	lasting := steps.Errorf("reply", "ERR")
	for _, c := range []struct {
		name  string
		key   string
		err   error
		step  string
		tries int
		want  Status
	}{
		{"a read, while it may pass", "get x", passing, `uses: mem.get, with: {key: x}`, 2, Succeeded},
		{"a read that has failed for good", "get x", lasting, `uses: mem.get, with: {key: x}`, 1, Failed},
		{"a write is not", "x", passing, `uses: mem.set, with: {key: x, value: 1}`, 1, Failed},
		{"an idempotent one is", "x", passing, `uses: mem.add, idempotent: true, undo: none, with: {key: x, value: 1}`, 2, Succeeded},
		{"as written", "x", lasting, `uses: mem.set, with: {key: x, value: 1}, retry: {attempts: 2}`, 2, Succeeded},
		{"if says no", "x", lasting, `uses: mem.set, with: {key: x, value: 1}, retry: {attempts: 2, if: error.temporary}`, 1, Failed},
		{"if says yes", "x", lasting, `uses: mem.set, with: {key: x, value: 1}, retry: {attempts: 2, if: 'error.kind == "reply"'}`, 2, Succeeded},
		{"if looks at an output", "y", nil, `uses: mem.add, undo: none, with: {key: x, value: 1}, expect: value == 3, retry: {attempts: 9, delay: 0s, if: value < 2}`, 2, Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				if c.err != nil {
					l.w.fail[c.key] = c.err
				}
				r := l.exec(l.program(bookHead + "steps: [{id: a, " + c.step + "}]\n"))
				l.end(r, c.want)
				last := l.records[len(l.records)-2]
				var b StepFinished
				if err := last.Decode(&b); err != nil || b.Attempts != c.tries {
					t.Errorf("%d attempts, want %d", b.Attempts, c.tries)
				}
			})
		})
	}
}

// TestFailedBeforeAnythingWasSent: what Probe, Check and Plan say is known, and the step
// has nothing to put back.
func TestFailedBeforeAnythingWasSent(t *testing.T) {
	for _, where := range []string{"probe", "check", "plan"} {
		l := newLab(t)
		fail := func(at string) error {
			if at == where {
				return steps.Precondition("no")
			}
			return nil
		}
		l.w.extra = append(l.w.extra, (&steps.Kind[memIn, memOut]{Name: "mem.no", Doc: "No.", Effect: steps.Write, NoUndo: "none",
			Probe: func(context.Context, steps.View, memIn) (steps.State, memOut, error) {
				return steps.Untouched, memOut{}, fail("probe")
			},
			Check: func(context.Context, steps.View, memIn) error { return fail("check") },
			Plan: func(_ context.Context, v *steps.View, _ memIn) (steps.Change, error) {
				if v == nil {
					return steps.Change{}, nil
				}
				return steps.Change{}, fail("plan")
			},
			Apply: func(context.Context, steps.Session, memIn) (memOut, error) { t.Error("acted"); return memOut{}, nil },
		}).Define())
		r := l.exec(l.program(bookHead + "steps: [{id: z, uses: mem.set, with: {key: z, value: 1}}, {id: a, uses: mem.no, on-failure: rollback-run, with: {key: x}}]\n"))
		l.end(r, RolledBack)
		if l.starts("a") != 0 || l.w.state() != `{}` {
			t.Errorf("%s: %d starts, world %s", where, l.starts("a"), l.w.state())
		}
	}
}

func TestAResumeTriesAsOftenAsTheFirstTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		p := l.program(bookHead + `steps: [{id: a, uses: mem.get, with: {key: x}, expect: value > 0, retry: {attempts: 3, delay: 1s}}]` + "\n")
		l.end(l.exec(p), Failed)
		reads := 0
		l.w.onGet = func(string, int) {
			if reads++; reads == 3 {
				l.w.value["x"] = 1
			}
		}
		l.end(l.resume(), Succeeded)
	})
}

func TestOnlyWhatIsSelectedRuns(t *testing.T) {
	l := newLab(t)
	p := l.program(bookHead + `
steps:
  - {id: a, uses: mem.set, tags: [x], with: {key: a, value: 1}}
  - {id: g, steps: [{id: b, uses: mem.set, with: {key: b, value: 1}}, {id: c, uses: mem.set, tags: [x], with: {key: c, value: 1}}]}
  - {id: l, for-each: "[1, 2]", steps: [{id: d, uses: mem.set, with: {key: "d${{ item }}", value: 1}}, {id: e, uses: mem.get, with: {key: ok}, expect: value == 1}]}
  - {id: s, uses: check, tags: [x], with: {that: ['steps.b.status == "skipped"']}}
`)
	for _, c := range []struct {
		sel   Selection
		world string
		want  Status
	}{
		{Selection{From: "c", To: "c"}, `{"c":1}`, Succeeded},
		{Selection{Only: []string{"x"}}, `{"a":1,"c":1}`, Succeeded},
		{Selection{From: "l", To: "l"}, `{"d1":1}`, Failed},
	} {
		l.w.value = map[string]int{}
		l.end(l.exec(p, func(q *Request) { q.Selection = c.sel }), c.want)
		if got := l.w.state(); got != c.world {
			t.Errorf("%+v: world %s, want %s", c.sel, got, c.world)
		}
	}
	l.w.value["ok"] = 1
	l.end(l.resume(), Succeeded)
	if got := l.w.state(); got != `{"d1":1,"d2":1,"ok":1}` {
		t.Errorf("world %s: a resume keeps the selection", got)
	}
}
