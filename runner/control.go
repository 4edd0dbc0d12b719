package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"runbook/runner/journal"
)

// ControlRequest is what another terminal asks of the process that works on a run: one
// JSON object a connection.
type ControlRequest struct {
	Command string `json:"command"` // show, approve, reject, pause, abort
	// Operator is who asks; its uid and process are those that the kernel tells of the connection.
	Operator Operator `json:"operator"`
	Step     string   `json:"step,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Retype   string   `json:"retype,omitempty"`
}

// ControlAnswer is the one answer to a request.
type ControlAnswer struct {
	Error   string   `json:"error,omitempty"` // why nothing was done
	Hint    string   `json:"hint,omitempty"`
	Decided *Decided `json:"decided,omitempty"`
	Live    *Live    `json:"live,omitempty"`
}

// Live is what the process that works on a run knows beyond its journal.
type Live struct {
	PID    int        `json:"pid"`
	Since  time.Time  `json:"since"`            // when this process began
	Ending string     `json:"ending,omitempty"` // it is being paused or aborted: by whom, and why
	Steps  []LiveStep `json:"steps"`            // that run now, the oldest first
	Gates  []LiveGate `json:"gates"`            // that are open
}

// LiveStep is a step that runs now.
type LiveStep struct {
	Step     string        `json:"step"`
	Since    time.Time     `json:"since"`
	Observed *StepObserved `json:"observed,omitempty"` // the last look of a wait
	Progress string        `json:"progress,omitempty"` // how far an act has come
	At       *time.Time    `json:"at,omitempty"`       // when that was
}

// LiveGate is a gate that waits for an answer.
type LiveGate struct {
	Step   string     `json:"step"`
	Since  time.Time  `json:"since"` // when it was first asked, pauses counted
	Until  *time.Time `json:"until,omitempty"`
	Needed int        `json:"needed"` // how many people must approve
	Given  []string   `json:"given"`  // who has
}

// ErrNotLive says that no process works on the run.
var ErrNotLive = errors.New("no process works on the run")

// The limits of a request, and of its answer, in bytes; of a name and of a reason.
const (
	mostRequest = 64 << 10
	mostAnswer  = 16 << 20
	mostName    = 200
	mostReason  = 4 << 10
)

// Control asks the process that works on a run. ErrNotLive: there is none. A
// *journal.LockedError: there is one, and it does not listen.
func Control(ctx context.Context, r *journal.Run, req ControlRequest) (*ControlAnswer, error) {
	for try := 0; ; try++ {
		answer, err := ask(ctx, r, req)
		if !errors.Is(err, errNobodyListens) {
			return answer, err
		}
		holder, held, lerr := journal.Inspect(r.LockPath())
		switch {
		case lerr != nil:
			return nil, lerr
		case !held:
			return nil, ErrNotLive
		case try == 50: // it began or ended a while ago
			return nil, &journal.LockedError{Path: r.LockPath(), Holder: holder}
		}
		if err := sleep(ctx, controlTime/50); err != nil {
			return nil, err
		}
	}
}

// ask sends one request. errNobodyListens: it was not taken.
func ask(ctx context.Context, r *journal.Run, req ControlRequest) (*ControlAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*controlTime)
	defer cancel()
	conn, err := dialControl(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(raw, '\n')); err != nil {
		return nil, errNobodyListens
	}
	raw, err = io.ReadAll(io.LimitReader(conn, mostAnswer))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the process that works on run %s does not answer within %s", r.ID, 2*controlTime)
	case len(bytes.TrimSpace(raw)) == 0: // it ended
		return nil, errNobodyListens
	case err != nil && !errors.Is(err, syscall.ECONNRESET):
		return nil, fmt.Errorf("ask the process that works on run %s: %w", r.ID, err)
	}
	var answer ControlAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("ask the process that works on run %s: its answer: %w", r.ID, err)
	}
	if answer.Error != "" {
		return nil, unfit(answer.Hint, "%s", answer.Error)
	}
	return &answer, nil
}

// mostConnections is how many are served at once; the others are turned away.
const mostConnections = 8

// control serves the control socket of a process. Whatever comes in there neither holds
// up nor ends the run.
type control struct {
	x     *run
	since time.Time
	l     *net.UnixListener
	work  sync.WaitGroup

	mu    sync.Mutex
	open  map[*net.UnixConn]bool
	ended bool
}

// listen serves the run's control socket until the function that it gives is called,
// which answers first what has come in. A run without one only cannot be spoken to.
func (x *run) listen(r *journal.Run) (stop func()) {
	if !x.cfg.Listen {
		return func() {}
	}
	l, err := listenControl(r)
	if err != nil {
		x.cfg.Log.Warn("no control socket: approve, pause and abort do not reach this process", "run", x.id, "error", err)
		return func() {}
	}
	c := &control{x: x, since: x.clock.Now(), l: l, open: map[*net.UnixConn]bool{}}
	c.work.Go(c.accept)
	return func() {
		c.close()
		_ = os.Remove(r.Path(controlName)) // a stale one does no harm
	}
}

func (c *control) accept() {
	for {
		conn, err := c.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptor is left, or the like
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !c.admit(conn) {
			_ = conn.Close()
			continue
		}
		c.work.Go(func() {
			defer c.leave(conn)
			c.serve(conn)
		})
	}
}

func (c *control) admit(conn *net.UnixConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || len(c.open) >= mostConnections {
		return false
	}
	c.open[conn] = true
	return true
}

func (c *control) leave(conn *net.UnixConn) {
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// close ends the server: requests that are being read are given up, those that have been
// read are carried out and answered.
func (c *control) close() {
	c.mu.Lock()
	c.ended = true
	_ = c.l.Close()
	for conn := range c.open {
		_ = conn.SetReadDeadline(time.Now()) // its error is the end of the connection
	}
	c.mu.Unlock()
	c.work.Wait()
}

// serve reads one request and answers it.
func (c *control) serve(conn *net.UnixConn) {
	if conn.SetDeadline(time.Now().Add(controlTime)) != nil {
		return
	}
	c.mu.Lock()
	if c.ended {
		_ = conn.SetReadDeadline(time.Now())
	}
	c.mu.Unlock()
	uid, pid, err := peer(conn)
	if err != nil {
		return
	}
	line, err := bufio.NewReader(io.LimitReader(conn, mostRequest)).ReadBytes('\n')
	if err != nil && len(line) < mostRequest {
		return // nobody is there who reads an answer, or it was too slow
	}
	raw, err := json.Marshal(c.answer(uid, pid, line))
	if err != nil {
		return
	}
	_, _ = conn.Write(append(c.x.mask.JSON(raw), '\n')) // who asked is gone
}

// answer carries a request out.
func (c *control) answer(uid, pid int, line []byte) (a *ControlAnswer) {
	defer func() {
		if p := recover(); p != nil {
			c.x.cfg.Log.Error("the control socket panicked", "panic", c.x.mask.String(fmt.Sprint(p)), "stack", string(debug.Stack()))
			a = &ControlAnswer{Error: "the request could not be carried out: see the log of the run's process"}
		}
	}()
	var req ControlRequest
	err := c.parse(uid, pid, line, &req)
	if err == nil {
		a, err = c.do(&req)
	}
	if err == nil {
		return a
	}
	a = &ControlAnswer{Error: err.Error()}
	var usage *UsageError
	if errors.As(err, &usage) {
		a.Hint = usage.Hint
	}
	return a
}

// parse reads a request and checks who sends it.
func (c *control) parse(uid, pid int, line []byte, req *ControlRequest) error {
	if uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("uid %d may not speak to this run: it is of uid %d", uid, os.Geteuid())
	}
	if len(line) >= mostRequest {
		return fmt.Errorf("the request has more than %d bytes", mostRequest)
	}
	if err := json.Unmarshal(line, req); err != nil {
		return fmt.Errorf("the request is not one: %w", err)
	}
	req.Operator.UID, req.Operator.PID = uid, pid
	for _, text := range []string{req.Operator.Name, req.Operator.Host, req.Operator.TTY, req.Operator.SSH} {
		if len(text) > mostName || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("the operator's name, host, terminal and SSH client are one line of text each, and short")
		}
	}
	if len(req.Reason) > mostReason {
		return fmt.Errorf("the reason has %d bytes, more than %d", len(req.Reason), mostReason)
	}
	if req.Operator.Name == "" && req.Command != "show" {
		return errors.New("the request does not say who sends it")
	}
	return nil
}

func (c *control) do(req *ControlRequest) (*ControlAnswer, error) {
	x, ctx := c.x, context.Background() // who asked may leave: what was asked for is carried through
	switch req.Command {
	case "show":
		return &ControlAnswer{Live: c.live()}, nil
	case "approve", "reject":
		v := Verdict{Step: req.Step, Approved: req.Command == "approve", Reason: req.Reason, Retype: req.Retype}
		path, err := x.desk.find(v.Step, x.prog)
		if err != nil {
			return nil, err
		}
		state, err := x.decideGate(ctx, path, v.decision(req.Operator), v.Retype)
		if err != nil {
			return nil, err
		}
		d := state.outcome(x.id, v.Approved, req.Operator)
		d.Live = true
		return &ControlAnswer{Decided: d}, nil
	case "pause":
		return &ControlAnswer{}, x.pauseRun(ctx, req.Reason, req.Operator.person())
	case "abort":
		return &ControlAnswer{}, x.abortRun(ctx, req.Reason, req.Operator.person())
	}
	return nil, fmt.Errorf("there is no request %q", req.Command)
}

// live is what is going on now.
func (c *control) live() *Live {
	l := &Live{PID: os.Getpid(), Since: c.since, Steps: c.x.looks.now(), Gates: c.x.desk.waiting()}
	c.x.emu.Lock()
	defer c.x.emu.Unlock()
	if c.x.word != nil {
		l.Ending = c.x.word.Error()
	}
	return l
}

// Lines tell people what goes on now; of nil, nothing.
func (l *Live) Lines(now time.Time) []Line {
	if l == nil {
		return nil
	}
	ago := func(t time.Time) string { return shortDuration(max(0, now.Sub(t)).Round(time.Second)) }
	var lines []Line
	if l.Ending != "" {
		lines = append(lines, Line{Caution, "ends: " + l.Ending})
	}
	for _, s := range l.Steps {
		line := fmt.Sprintf("now: %s, for %s", s.Step, ago(s.Since))
		if s.Progress != "" {
			line += ": " + s.Progress
		}
		if s.Observed != nil {
			line += ": " + s.Observed.Words()
		}
		if s.At != nil {
			line += fmt.Sprintf(" (%s ago)", ago(*s.At))
		}
		lines = append(lines, Line{Plain, line})
	}
	for _, g := range l.Gates {
		line := fmt.Sprintf("now: %s waits for an answer, for %s", g.Step, ago(g.Since))
		if g.Needed > 1 {
			line += fmt.Sprintf("; %d of %d approvals", len(g.Given), g.Needed)
		}
		if g.Until != nil {
			line += ", until " + g.Until.Local().Format(time.DateTime)
		}
		lines = append(lines, Line{Caution, line})
	}
	return lines
}

// waiting are the open gates, the oldest first.
func (d *desk) waiting() []LiveGate {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []LiveGate{}
	for _, g := range d.gates {
		if g.decided() {
			continue
		}
		open := LiveGate{Step: g.path, Since: g.since, Needed: g.needed(), Given: append([]string{}, g.by()...)}
		if until := g.expires(); !until.IsZero() {
			open.Until = &until
		}
		list = append(list, open)
	}
	slices.SortFunc(list, func(a, b LiveGate) int { return a.Since.Compare(b.Since) })
	return list
}

// find gives the path of the gate that a person means.
func (d *desk) find(step string, p *Program) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.gates.find(step, p)
	if err != nil {
		return "", err
	}
	return g.path, nil
}
