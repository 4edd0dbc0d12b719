package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/runner/journal"
)

// newest is the folder of the run that began last.
func (l *lab) newest() *journal.Run {
	l.t.Helper()
	r, err := l.store.Find("last")
	if err != nil {
		l.t.Fatalf("find: %v", err)
	}
	return r
}

func (l *lab) order(command, reason string) error {
	l.t.Helper()
	_, err := Control(l.t.Context(), l.newest(), ControlRequest{Command: command, Operator: byName("ben"), Reason: reason})
	return err
}

// waits is a run that waits for lag to be 0, with what it ends with.
const waits = bookHead + `
steps:
  - {id: first, uses: mem.set, restore: end, with: {key: x, value: 1}}
  - {id: wait, uses: mem.get, with: {key: lag}, wait-until: value == 0, every: 1ms, timeout: 1h}
  - {id: last, uses: mem.set, with: {key: y, value: 1}}
finally:
  - {id: tidy, uses: mem.set, with: {key: tidy, value: 1}}
`

// atWait calls f, once, when the run has begun to wait.
func (l *lab) atWait(f func()) {
	done := false
	l.observe = func(r journal.Record) {
		if r.Type == recStepObserved && !done {
			done = true
			l.others.Go(f)
		}
	}
}

func TestPauseFromAnotherTerminal(t *testing.T) {
	l := newLab(t)
	l.listen = true
	l.w.value["lag"] = 1
	l.atWait(func() {
		if err := l.order("pause", "network work"); err != nil {
			t.Error(err)
		}
	})
	r := l.exec(l.program(waits))
	l.end(r, Paused)
	if r.Status.ExitCode() != 4 || l.w.state() != `{"lag":1,"x":1}` {
		t.Errorf("exit %d, world %s: a pause ends nothing", r.Status.ExitCode(), l.w.state())
	}
	report := l.report()
	if report.By != "ben" || report.Reason != "network work" || report.Over() || !strings.HasPrefix(report.Hint, "runner resume ") {
		t.Errorf("by %q: %q", report.By, report.Reason)
	}
	l.others.Wait()
	if err := l.order("pause", ""); !errors.Is(err, ErrNotLive) {
		t.Errorf("a pause of a run that is paused: %v", err)
	}
	l.observe = nil
	l.w.value["lag"] = 0
	l.end(l.resume(), Succeeded)
	if l.w.state() != `{"lag":0,"tidy":1,"y":1}` {
		t.Error(l.w.state())
	}
}

func TestAbort(t *testing.T) {
	ended := func(l *lab, r *Result) {
		t.Helper()
		l.end(r, Aborted)
		if r.Status.ExitCode() != 1 || l.w.state() != `{"lag":1,"tidy":1}` {
			t.Errorf("exit %d, world %s: finally has to run, and what was temporary to be put back", r.Status.ExitCode(), l.w.state())
		}
		if _, err := l.tryResume(); err == nil || !strings.Contains(err.Error(), "is over: it was aborted") {
			t.Errorf("a resume of an aborted run: %v", err)
		}
		if got := r.Err.Error(); !strings.Contains(got, "aborted by ") || !strings.Contains(got, "wrong cluster") {
			t.Error(got)
		}
	}
	t.Run("of a live run", func(t *testing.T) {
		l := newLab(t)
		l.listen = true
		l.w.value["lag"] = 1
		l.atWait(func() {
			if err := l.order("abort", "wrong cluster"); err != nil {
				t.Error(err)
			}
		})
		ended(l, l.exec(l.program(waits)))
		l.others.Wait()
	})
	stop := func(l *lab) {
		ctx, interrupt := context.WithCancelCause(t.Context())
		l.ctx = ctx
		l.atWait(func() { interrupt(ErrInterrupted) })
		l.end(l.exec(l.program(waits)), Interrupted)
		l.others.Wait()
		l.ctx, l.observe = nil, nil
	}
	abort := func(q *ResumeRequest) { q.Abort = &Abort{Reason: "wrong cluster"} }
	t.Run("of one that has stopped", func(t *testing.T) {
		l := newLab(t)
		l.w.value["lag"] = 1
		stop(l)
		ended(l, l.resume(abort))
	})
	t.Run("whose process died in it", func(t *testing.T) {
		l := newLab(t)
		l.w.value["lag"] = 1
		stop(l)
		l.options.Open = (&crashFile{at: 4, how: afterSync}).open // in finally
		if r := l.resume(abort); r.Status == Aborted {
			t.Fatal("it did not die")
		}
		l.options = journal.Options{}
		ended(l, l.resume())
	})
	t.Run("of one with a step in doubt", func(t *testing.T) {
		l := newLab(t)
		l.w.lost["x"] = true
		p := l.program(bookHead + "steps: [{id: a, uses: mem.add, undo: none, with: {key: x, value: 1}}]\nfinally: [{id: tidy, uses: mem.set, with: {key: tidy, value: 1}}]\n")
		l.end(l.exec(p), InDoubt)
		l.end(l.resume(abort), Aborted)
		if l.w.state() != `{"tidy":1,"x":1}` || l.report().Counts()[StepInDoubt] != 1 {
			t.Errorf("world %s, %s: what nobody knows stays in doubt, and is not repeated", l.w.state(), l.report().CountText())
		}
	})
	t.Run("does not roll back", func(t *testing.T) {
		l := newLab(t)
		l.w.value["lag"] = 1
		p := l.program(strings.Replace(waits, "\nsteps:", "\non-failure: rollback\nsteps:", 1))
		ctx, interrupt := context.WithCancelCause(t.Context())
		l.ctx = ctx
		l.atWait(func() { interrupt(ErrInterrupted) })
		l.end(l.exec(p), Interrupted)
		l.others.Wait()
		l.ctx, l.observe = nil, nil
		l.end(l.resume(abort), Aborted)
		if slices.ContainsFunc(l.records, func(r journal.Record) bool { return r.Type == recRollbackStarted }) {
			t.Error("it rolled back")
		}
	})
}

// The first ending counts; there is none any more when the steps have ended.
func TestASecondEnding(t *testing.T) {
	l := newLab(t)
	l.listen = true
	release := make(chan struct{})
	l.w.onAct = func(key string) {
		if key == "x" {
			if err := l.order("pause", ""); err != nil {
				t.Error(err)
			}
			if err := l.order("abort", ""); err == nil || !strings.Contains(err.Error(), "ending already: paused by ben") {
				t.Error(err)
			}
			close(release)
		}
	}
	l.end(l.exec(l.program(bookHead+"steps: [{id: a, uses: mem.set, with: {key: x, value: 1}}, {id: b, uses: mem.set, with: {key: y, value: 1}}]\n")), Paused)
	<-release
	if l.w.state() != `{"x":1}` {
		t.Errorf("world %s: what was under way is finished, and nothing else starts", l.w.state())
	}
	l.w.onAct = func(key string) {
		if key == "tidy" {
			if err := l.order("abort", ""); err == nil || !strings.Contains(err.Error(), "nothing left to abort") {
				t.Error(err)
			}
		}
	}
	l.end(l.exec(l.program(bookHead+"steps: [{id: a, uses: mem.get, with: {key: x}}]\nfinally: [{id: tidy, uses: mem.set, with: {key: tidy, value: 1}}]\n")), Succeeded)
}

// What happens to be under way when the order comes must not matter.
func TestOrdersAtEveryRecord(t *testing.T) {
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"forward", crashBook, Succeeded}, {"rollback", rollbackBook, RolledBack}} {
		reference := newLab(t)
		reference.end(reference.exec(reference.program(book.text, "sub.yaml", crashSub)), book.end)
		want, total := reference.w.state(), len(reference.records)
		for _, command := range []string{"pause", "abort"} {
			t.Run(book.name+"/"+command, func(t *testing.T) {
				t.Parallel()
				for at := 1; at <= total; at += 2 {
					l := newLab(t)
					l.listen = true
					seen, taken := 0, false
					l.observe = func(journal.Record) {
						if seen++; seen == at {
							l.others.Go(func() { taken = l.order(command, "") == nil })
						}
					}
					r := l.exec(l.program(book.text, "sub.yaml", crashSub))
					l.others.Wait()
					l.observe = nil
					if r.Status == book.end {
						if command == "abort" && taken && book.end == Succeeded {
							t.Errorf("record %d: the abort was taken, and the run succeeded", at)
						}
						continue
					}
					if command == "abort" {
						l.end(r, Aborted)
						if l.w.get("tidy") != 1 {
							t.Errorf("record %d: finally did not run: %s", at, l.w.state())
						}
						continue
					}
					l.end(r, Paused)
					l.end(l.resume(), book.end)
					if got := l.w.state(); got != want {
						t.Errorf("record %d: world %s, want %s", at, got, want)
					}
				}
			})
		}
	}
}

func TestShowOfALiveRun(t *testing.T) {
	l := newLab(t)
	l.listen = true
	l.w.value["lag"] = 7
	l.opened = func(path string) {
		defer l.approve(ben, path)
		for { // until the wait beside it has looked
			answer, err := Control(t.Context(), l.newest(), ControlRequest{Command: "show"})
			if err != nil {
				t.Error(err)
				return
			}
			live := answer.Live
			if len(live.Gates) != 1 || live.Gates[0].Step != "g" || live.Gates[0].Needed != 1 || live.Gates[0].Until == nil {
				t.Errorf("gates %+v", live.Gates)
			}
			if len(live.Steps) != 1 || live.Steps[0].Observed == nil {
				continue
			}
			if s := live.Steps[0]; s.Step != "w" || fmt.Sprint(s.Observed.Values["value"]) != "7" || s.At == nil {
				t.Errorf("step %+v", s)
			}
			l.w.mu.Lock()
			l.w.value["lag"] = 0
			l.w.mu.Unlock()
			return
		}
	}
	l.end(l.exec(l.program(bookHead+`
steps:
  - id: both
    parallel: true
    steps:
      - {id: w, uses: mem.get, with: {key: lag}, wait-until: value == 0, every: 1ms, timeout: 1h}
      - {id: g, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: attached, timeout: 1h}}
`)), Succeeded)
	l.others.Wait()
}

func TestTheControlSocketIsForOneUser(t *testing.T) {
	l := newLab(t)
	l.listen = true
	l.opened = func(path string) {
		info, err := os.Lstat(l.newest().Path(controlName))
		if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
			t.Errorf("the socket: %v, %v", info, err)
		}
		l.approve(ben, path)
	}
	l.end(l.exec(l.program(bookHead+"steps: [{id: g, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: attached}}]\n")), Succeeded)
	l.others.Wait()
	if _, err := os.Lstat(l.newest().Path(controlName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket outlives its process: %v", err)
	}
	c := &control{x: &run{}}
	if err := c.parse(os.Geteuid()+1, 1, []byte(`{"command":"show"}`), new(ControlRequest)); err == nil || !strings.Contains(err.Error(), "may not speak to this run") {
		t.Errorf("another user: %v", err)
	}
}

// A state directory may lie deeper than the path of a socket can be long; and what a dead
// process left in the socket's place is no hindrance.
func TestTheControlSocketOfADeepFolder(t *testing.T) {
	l := newLab(t)
	l.store.Dir = filepath.Join(l.store.Dir, strings.Repeat("deep/", 40))
	l.listen = true
	l.opened = func(path string) { l.approve(ben, path) }
	book := bookHead + "steps: [{id: g, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: attached}}]\n"
	l.end(l.exec(l.program(book)), Succeeded)
	l.others.Wait()

	l = newLab(t)
	l.end(l.exec(l.program(oneGate)), Paused)
	stale, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	if err := os.Rename(stale.Addr().String(), l.newest().Path(controlName)); err != nil {
		t.Fatal(err)
	}
	if err := l.order("pause", ""); !errors.Is(err, ErrNotLive) {
		t.Errorf("a stale socket: %v", err)
	}
	l.approve(ben, "a")
	l.listen = true
	l.end(l.resume(), Succeeded)
}

// Whatever comes in at the socket, the run takes no notice, and ends when it ends.
func TestTheControlSocketUnderFire(t *testing.T) {
	l := newLab(t)
	l.listen = true
	var slow []net.Conn
	l.opened = func(path string) {
		dial := func() net.Conn {
			conn, err := dialControl(t.Context(), l.newest())
			if err != nil {
				t.Error(err)
			}
			return conn
		}
		for _, garbage := range [][]byte{
			[]byte("\n"), []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 100), []byte("{\"command\":17}\n"), []byte("null\n"), []byte("[]\n"),
			[]byte(`{"command":"destroy","operator":{"name":"x"}}` + "\n"), []byte(`{"command":"pause"}` + "\n"),
			[]byte(`{"command":"pause","operator":{"name":"a\u001b[2J"}}` + "\n"), []byte(`{"command":"reject","step":"g","operator":{"name":"` + strings.Repeat("x", 300) + `"}}` + "\n"),
			[]byte(`{"command":"reject","step":"` + strings.Repeat("../", 1000) + `","operator":{"name":"x"}}` + "\n"),
			bytes.Repeat([]byte("x"), 2*mostRequest),
		} {
			conn := dial()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = conn.Write(garbage)
			_ = conn.(*net.UnixConn).CloseWrite()
			raw, _ := io.ReadAll(conn)
			conn.Close()
			var answer ControlAnswer
			if len(raw) > 0 && (json.Unmarshal(raw, &answer) != nil || answer.Error == "") {
				t.Errorf("%.40q is answered with %q", garbage, raw)
			}
		}
		for range mostConnections + 2 { // that never say anything, and more than are served
			slow = append(slow, dial())
		}
		for _, conn := range slow[3:] { // three stay to the end
			conn.Close()
		}
		l.approve(ben, path)
	}
	r := l.exec(l.program(bookHead + "steps: [{id: g, uses: mem.set, with: {key: x, value: 1}, confirm: {message: Go, wait: attached}}]\n"))
	l.end(r, Succeeded)
	l.others.Wait()
	for _, conn := range slow {
		conn.Close()
	}
	for _, rec := range l.records {
		if rec.Type == recRunPaused || rec.Type == recGateDecided && !strings.Contains(string(rec.Body), `"by":"ben"`) {
			t.Errorf("record %s", rec.Event())
		}
	}
}

func FuzzControlRequest(f *testing.F) {
	f.Add([]byte(`{"command":"approve","step":"g","operator":{"name":"ben"},"reason":"r","retype":"t"}`))
	f.Add([]byte(`{"command":"show"}`))
	f.Add([]byte(`{"command":"abort","operator":{"name":"\u0000"}}`))
	l := newLab(f)
	p := l.program(oneGate)
	f.Fuzz(func(t *testing.T, line []byte) {
		x := &run{cfg: Config{Operator: Operator{Name: "ana", UID: 1000}}.withDefaults(), prog: p, clock: realClock{}, past: &past{}}
		x.desk.begin(x.past)
		x.desk.gates["a"] = &gateState{path: "a", since: time.Now()}
		a := (&control{x: x}).answer(os.Geteuid(), 1, line)
		if a == nil || strings.Contains(a.Error, "could not be carried out") {
			t.Errorf("answer %+v", a)
		}
		if _, err := json.Marshal(a); err != nil {
			t.Error(err)
		}
	})
}
