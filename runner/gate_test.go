package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
)

var (
	ben   = Operator{Name: "ben", UID: 1001, Host: "here"}
	carla = Operator{Name: "carla", UID: 1002, Host: "here"}
)

// byName is somebody whose name counts: over a socket the uid is that of the test.
func byName(name string) Operator { return Operator{Name: name, UID: -1, Host: "here", Trusted: true} }

// decide is what runner approve and reject do.
func (l *lab) decide(op Operator, v Verdict) (*Decided, error) {
	l.t.Helper()
	folder, err := l.store.Find("last")
	if err != nil {
		l.t.Fatalf("find: %v", err)
	}
	return Decide(l.t.Context(), Config{Store: l.store, Operator: op, Clock: l.clock, Journal: l.options}, folder, l.w.catalog(), v)
}

// report is what the journal of the newest run tells.
func (l *lab) report() *Report {
	l.t.Helper()
	folder, err := l.store.Find("last")
	if err != nil {
		l.t.Fatalf("find: %v", err)
	}
	h, err := journal.Read(folder.JournalPath())
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := ReadReport(h.Records, false)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *lab) approve(op Operator, step string) *Decided {
	l.t.Helper()
	d, err := l.decide(op, Verdict{Step: step, Approved: true})
	if err != nil {
		l.t.Fatalf("approve %s by %s: %v", step, op.Name, err)
	}
	return d
}

// refuses wants that a decision does not count, and why.
func (l *lab) refuses(op Operator, v Verdict, why string) {
	l.t.Helper()
	var usage *UsageError
	if d, err := l.decide(op, v); !errors.As(err, &usage) || !strings.Contains(err.Error(), why) {
		l.t.Errorf("a decision by %s about %q: %+v, %v; want a refusal with %q", op.Name, v.Step, d, err, why)
	}
}

// gates is how the gates of the newest run stand.
func (l *lab) gates() []*ReportGate {
	l.t.Helper()
	return l.report().Gates
}

const oneGate = bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: Go}]` + "\n"

func TestAnApprovalLetsAResumeGoOn(t *testing.T) {
	l := newLab(t)
	l.end(l.exec(l.program(oneGate)), Paused)
	if d := l.approve(ben, "a"); !d.Done || d.Live || d.By != "ben" {
		t.Errorf("decided: %+v", d)
	}
	l.refuses(carla, Verdict{Step: "a", Approved: true}, "approved by ben already")
	l.refuses(carla, Verdict{Step: "a"}, "approved by ben already")
	if way := l.report().WayOn(false); !strings.HasPrefix(way, "runner resume") {
		t.Errorf("the way on is %q", way)
	}
	l.end(l.resume(), Succeeded)
	l.refuses(carla, Verdict{Step: "a"}, "is over: it succeeded")
	g := l.gates()
	if len(g) != 1 || !g[0].Approved || len(g[0].Decisions) != 1 || g[0].Decisions[0].UID != 1001 || g[0].Decisions[0].Digest != g[0].Digest || g[0].Digest == "" {
		t.Errorf("gates %+v", g)
	}
}

func TestARefusalFailsTheStepOnce(t *testing.T) {
	l := newLab(t)
	l.end(l.exec(l.program(oneGate)), Paused)
	if _, err := l.decide(ben, Verdict{Step: "a", Reason: "lag"}); err != nil {
		t.Fatal(err)
	}
	r := l.resume()
	l.end(r, Failed)
	if got := r.Err.Error(); !strings.Contains(got, "refused by ben: lag") {
		t.Error(got)
	}
	l.refuses(ben, Verdict{Step: "a", Approved: true}, "has not come to it")
	l.end(l.resume(), Paused) // it asks again
	l.approve(ben, "a")
	l.end(l.resume(), Succeeded)
}

func TestWhatCannotBeDecided(t *testing.T) {
	l := newLab(t)
	l.end(l.exec(l.program(bookHead+`
steps:
  - {id: seen, uses: mem.get, with: {key: x}}
  - {id: first, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, retype: pika1}}
  - {id: second, uses: mem.set, with: {key: y, value: 1}, confirm: Go}
`)), Paused)
	l.refuses(ben, Verdict{Step: "firts"}, "no step firts")
	l.refuses(ben, Verdict{Step: "second", Approved: true}, "has not come to it yet")
	l.refuses(ben, Verdict{Step: "seen", Approved: true}, "has no gate")
	l.refuses(ben, Verdict{Step: "first", Approved: true}, "asks for text to be typed")
	l.refuses(ben, Verdict{Step: "first", Approved: true, Retype: "pika2"}, "another text")
	if g := l.gates(); len(g) != 1 || g[0].Decided || len(g[0].Decisions) > 0 {
		t.Errorf("gates %+v", g)
	}
	if _, err := l.decide(ben, Verdict{Step: "first", Approved: true, Retype: "pika1"}); err != nil {
		t.Error(err)
	}
}

// Several people are told apart by uid, or by name where names are trusted; whoever started
// the run is none of them.
func TestSeveralPeopleApprove(t *testing.T) {
	book := bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, approvals: 2}}]` + "\n"
	for _, c := range []struct {
		name   string
		people []Operator
		why    []string // it does not count; empty: it does
	}{
		{"two people", []Operator{ben, carla}, []string{"", ""}},
		{"the starter", []Operator{{Name: "ana", UID: 1000}, ben, carla}, []string{"ana (uid 1000) started the run", "", ""}},
		{"the starter under another name", []Operator{{Name: "zoe", UID: 1000}, ben, carla}, []string{"started the run", "", ""}},
		{"the starter as root", []Operator{{Name: "ana", UID: 0}, ben, carla}, []string{"started the run", "", ""}},
		{"one twice", []Operator{ben, ben, carla}, []string{"", "ben (uid 1001) has approved already", ""}},
		{"one under two names", []Operator{ben, {Name: "zoe", UID: 1001}, carla}, []string{"", "ben (uid 1001) has approved already", ""}},
		{"trusted names", []Operator{{Name: "ben", UID: 1000, Trusted: true}, {Name: "carla", UID: 1000, Trusted: true}}, []string{"", ""}},
		{"the starter by a trusted name", []Operator{{Name: "ana", UID: 1000, Trusted: true}, ben, carla}, []string{"started the run", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.end(l.exec(l.program(book), func(q *Request) { q.Approvals.Steps = []string{"all"} }), Paused)
			for i, op := range c.people {
				if c.why[i] != "" {
					l.refuses(op, Verdict{Step: "a", Approved: true}, c.why[i])
					continue
				}
				if i == len(c.people)-1 {
					r := l.resume()
					if l.end(r, Paused); !strings.Contains(r.Err.Error(), "1 given (by ben)") {
						t.Errorf("%v", r.Err)
					}
				}
				l.approve(op, "a")
			}
			l.end(l.resume(), Succeeded)
			if g := l.gates(); len(g) != 1 || len(g[0].Decisions) != 2 {
				t.Errorf("gates %+v", g)
			}
		})
	}
	t.Run("one no is enough, also the starter's", func(t *testing.T) {
		l := newLab(t)
		l.end(l.exec(l.program(book)), Paused)
		l.approve(ben, "a")
		if _, err := l.decide(Operator{Name: "ana", UID: 1000}, Verdict{Step: "a"}); err != nil {
			t.Fatal(err)
		}
		l.end(l.resume(), Failed)
		l.end(l.resume(), Paused)
		if d := l.approve(carla, "a"); d.Done {
			t.Error("an approval from before the refusal still counts")
		}
	})
}

// The time at a gate counts from its opening, pauses included.
func TestTheTimeoutOfAGateRunsAcrossPauses(t *testing.T) {
	book := bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, timeout: 1h}}]` + "\n"
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.end(l.exec(l.program(book)), Paused)
		time.Sleep(40 * time.Minute)
		l.ask = func(ctx context.Context, _ Question) (Answer, error) {
			<-ctx.Done()
			return Answer{}, context.Cause(ctx)
		}
		began := time.Now()
		l.end(l.resume(), Failed)
		if took := time.Since(began); took != 20*time.Minute {
			t.Errorf("the gate was open for %v more, want 20m", took)
		}
		began = time.Now()
		l.end(l.resume(), Failed) // it has failed, and is asked anew
		if took := time.Since(began); took != time.Hour {
			t.Errorf("the gate that was asked anew was open for %v, want 1h", took)
		}
		l.ask = nil
		l.end(l.resume(), Paused)
		time.Sleep(2 * time.Hour)
		l.refuses(ben, Verdict{Step: "a", Approved: true}, "timeout (1h0m0s) is over since")
		l.end(l.resume(func(q *ResumeRequest) { q.Approvals.Steps = []string{"a"} }), Failed)
		if l.w.state() != "{}" {
			t.Error(l.w.state())
		}
	})
}

// An approval is of one step, of what was shown and of what will be sent.
func TestAnApprovalOfSomethingElseIsVoid(t *testing.T) {
	book := func(value string) string {
		return bookHead + `
steps:
  - {id: look, uses: mem.get, recheck: true, with: {key: n}}
  - {id: a, uses: mem.set, with: {key: x, value: ` + value + `}, confirm: {message: Go, show: [steps.look.value]}}
`
	}
	for _, c := range []struct {
		name, why string
		change    func(l *lab)
	}{
		{"nothing has changed", "", func(*lab) {}},
		{"a shown value", "steps.look.value = 0, and now steps.look.value = 7", func(l *lab) { l.w.value["n"] = 7 }},
		{"the step", "the step is another one", func(l *lab) {
			p := l.program(book("2"))
			inputs, _, err := p.BindInputs(GivenInputs{})
			if err != nil {
				l.t.Fatal(err)
			}
			plan, err := Freeze(l.t.Context(), l.config(), Request{Program: p, Inputs: inputs})
			if err != nil {
				l.t.Fatal(err)
			}
			folder, err := l.store.Find("last")
			if err == nil {
				err = folder.WritePlan(plan)
			}
			if err != nil {
				l.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.end(l.exec(l.program(book("1"))), Paused)
			l.approve(ben, "a")
			c.change(l)
			if c.why == "" {
				l.end(l.resume(), Succeeded)
				return
			}
			l.end(l.resume(), Paused)
			g := l.gates()[len(l.gates())-1]
			if g.Decided || len(g.Void) != 1 || !strings.Contains(g.Void[0], "the approval by ben does not count any more: ") || !strings.Contains(g.Void[0], c.why) {
				t.Fatalf("gate %+v", g)
			}
			l.approve(carla, "a")
			l.end(l.resume(), Succeeded)
		})
	}
}

// What a group's own steps have changed meanwhile does not void the yes to it.
func TestAnApprovalOfWhatHasBegunStands(t *testing.T) {
	l := newLab(t)
	l.w.fail["y"] = errors.New("no")
	l.end(l.exec(l.program(bookHead+`
steps:
  - {id: look, uses: mem.get, recheck: true, with: {key: x}}
  - id: g
    confirm: {message: Go, show: [steps.look.value]}
    steps:
      - {id: a, uses: mem.set, with: {key: x, value: 1}}
      - {id: b, uses: mem.set, with: {key: y, value: 1}}
`), func(q *Request) { q.Approvals.Steps = []string{"g"} }), Failed)
	l.end(l.resume(), Succeeded)
}

// A written wait says whether the process stays, whatever terminal it has.
func TestWaitOfAGate(t *testing.T) {
	gate := func(wait string) string {
		return bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: ` + wait + `}}, {id: b, uses: mem.set, with: {key: y, value: 1}, confirm: {message: Go, wait: ` + wait + `}}]` + "\n"
	}
	t.Run("detached leaves a terminal", func(t *testing.T) {
		l := newLab(t)
		l.ask = func(context.Context, Question) (Answer, error) { t.Error("it asks"); return Answer{}, io.EOF }
		l.end(l.exec(l.program(gate("detached"))), Paused)
		l.approve(ben, "a")
		l.end(l.resume(), Paused)
		l.approve(ben, "b")
		l.end(l.resume(), Succeeded)
	})
	t.Run("attached stays without one", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		l.opened = func(path string) { l.approve(ben, path) }
		l.end(l.exec(l.program(gate("attached"))), Succeeded)
	})
	t.Run("attached stays when its terminal has gone", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		l.ask = func(context.Context, Question) (Answer, error) { return Answer{}, io.EOF }
		l.opened = func(path string) { l.approve(ben, path) }
		l.end(l.exec(l.program(gate("attached"))), Succeeded)
	})
}

// The prompt and other terminals decide about one gate: the first who counts, does.
func TestAPromptAndAnotherTerminal(t *testing.T) {
	book := func(confirm string) string {
		return bookHead + `steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: ` + confirm + `}]` + "\n"
	}
	t.Run("another terminal is first", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		var cause error
		l.ask = func(ctx context.Context, q Question) (Answer, error) {
			l.approve(ben, q.Step)
			<-ctx.Done()
			cause = context.Cause(ctx)
			return Answer{}, cause
		}
		l.end(l.exec(l.program(book("Go"))), Succeeded)
		if !errors.Is(cause, errDecided) || l.gates()[0].By != "ben" {
			t.Errorf("the prompt ended with %v, the gate %+v", cause, l.gates()[0])
		}
	})
	t.Run("a late answer at the prompt", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		l.ask = func(_ context.Context, q Question) (Answer, error) {
			l.approve(ben, q.Step)
			return Answer{Reason: "no"}, nil
		}
		l.end(l.exec(l.program(book("Go"))), Succeeded)
	})
	t.Run("two people and the starter at the prompt", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		var asked []Question
		l.ask = func(ctx context.Context, q Question) (Answer, error) {
			asked = append(asked, q)
			switch len(asked) {
			case 1:
				return Answer{Approved: true}, nil
			case 2:
				l.approve(byName("ben"), q.Step)
			case 3:
				l.approve(byName("carla"), q.Step)
			}
			<-ctx.Done()
			return Answer{}, context.Cause(ctx)
		}
		l.end(l.exec(l.program(book("{message: Go, approvals: 2}"))), Succeeded)
		if len(asked) != 3 || asked[0].Own == "" || asked[0].Again || !strings.Contains(asked[1].Notice, "starter's own") || !slices.Equal(asked[2].Given, []string{"ben"}) || asked[2].Notice != "" {
			t.Errorf("asked %+v", asked)
		}
	})
}

// Of many who decide at once one is first, and all others learn that.
func TestManyDecideAtOnce(t *testing.T) {
	for _, people := range []int{1, 3} {
		t.Run(fmt.Sprint(people), func(t *testing.T) {
			l := newLab(t)
			l.listen = true
			counted, refused := 0, 0
			l.opened = func(path string) {
				var mu sync.Mutex
				var wg sync.WaitGroup
				for i := range 6 { // fewer than are served at once
					wg.Go(func() {
						_, err := l.decide(Operator{Name: fmt.Sprint("p", i), UID: 2000 + i, Trusted: true}, Verdict{Step: path, Approved: true})
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil:
							counted++
						case strings.Contains(err.Error(), "already") || strings.Contains(err.Error(), "is over"):
							refused++
						default:
							t.Error(err)
						}
					})
				}
				wg.Wait()
			}
			l.end(l.exec(l.program(bookHead+fmt.Sprintf("steps: [{id: a, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: attached, approvals: %d}}]\n", people))), Succeeded)
			l.others.Wait()
			if counted != people || refused != 6-people {
				t.Errorf("%d decisions counted, %d did not; want %d and %d", counted, refused, people, 6-people)
			}
			if g := l.gates(); len(g[0].Decisions) != people {
				t.Errorf("gate %+v", g[0])
			}
		})
	}
}

// What one process was told of a gate that it had not come to again is not asked twice.
func TestAGateIsDecidedBeforeAResumeComesToIt(t *testing.T) {
	l := newLab(t)
	l.end(l.exec(l.program(bookHead+`
steps:
  - {id: look, uses: mem.get, recheck: true, with: {key: n}}
  - {id: a, uses: mem.set, with: {key: x, value: 1}, confirm: Go}
`)), Paused)
	l.listen = true
	l.w.onGet = func(key string, _ int) {
		if key == "n" {
			l.approve(ben, "a")
		}
	}
	l.end(l.resume(), Succeeded)
	if g := l.gates(); len(g) != 1 || g[0].By != "ben" || len(g[0].Decisions) != 1 {
		t.Errorf("gates %+v", g)
	}
}
