package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"runbook/runner"
	"runbook/runner/journal"
)

// Event is what a hook gets on standard input, as one JSON object. Names and words stay.
type Event struct {
	Event    string    `json:"event"`            // approval-wanted, pause, guard-tripped, failure, end
	Status   string    `json:"status,omitempty"` // of the end: succeeded, failed, rolled-back, aborted, in-doubt, interrupted
	Time     time.Time `json:"time"`
	Run      string    `json:"run"`
	Name     string    `json:"name"` // of the runbook
	Step     string    `json:"step,omitempty"`
	Kind     string    `json:"kind,omitempty"`   // of the step
	Target   string    `json:"target,omitempty"` // of the step
	Message  string    `json:"message"`          // one line for people
	Error    string    `json:"error,omitempty"`
	Operator string    `json:"operator"`
	Host     string    `json:"host"`
	Sandbox  bool      `json:"sandbox"` // nothing of it is real
	// Commands are what an operator can type on that host.
	Commands []string `json:"commands,omitempty"`
}

// What a hook is told of.
const (
	ApprovalWanted = "approval-wanted"
	RunPause       = "pause"
	GuardTripped   = "guard-tripped"
	StepFailure    = "failure"
	RunEnd         = "end"
)

const (
	// hookLimit is how long one call may take, and how long the end of the run waits for those that are left.
	hookLimit = 10 * time.Second
	// hookQueue is how many calls may wait; later ones are dropped, and that is said.
	hookQueue = 64
	// hookSays is how much of what a failed hook printed is shown.
	hookSays = 2 << 10
	// atOnce is how soon a gate must be answered (by --approve, that is) for nobody to be called.
	atOnce = 300 * time.Millisecond
)

// Hook runs a command for each event. One that fails, hangs or is missing is a warning in the log.
type Hook struct {
	command string
	act     func(words ...string) string
	environ []string
	log     *slog.Logger

	mu      sync.Mutex
	asked   []gate // that were just opened
	dropped int
	queue   chan Event
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

type gate struct {
	event Event
	timer *time.Timer
}

// NewHook makes a hook of a command line for sh. environ is what it gets of the environment; act makes a line to type of
// the words of a runner command.
func NewHook(command string, act func(words ...string) string, environ []string, log *slog.Logger) *Hook {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hook{command: command, act: act, environ: environ, log: log, queue: make(chan Event, hookQueue), cancel: cancel}
	h.done.Go(func() {
		for e := range h.queue {
			h.call(ctx, e)
		}
	})
	return h
}

// Read makes events of records.
func (h *Hook) Read(run *runner.Report, rec journal.Record, past bool) {
	if past {
		return
	}
	e := Event{Time: rec.Time, Run: run.Run, Name: run.Name, Step: rec.Step, Operator: run.Operator, Host: run.Host, Sandbox: run.Sandbox != ""}
	if s := run.Find(rec.Step); s != nil {
		e.Kind, e.Target = s.Kind, s.Target
	}
	switch rec.Type {
	case "gate-opened":
		var b runner.GateOpened
		if rec.Decode(&b) == nil {
			e.Event, e.Message = ApprovalWanted, b.Message
			e.Commands = []string{h.act("approve", e.Run, e.Step), h.act("reject", e.Run, e.Step)}
			h.ask(e)
		}
	case "gate-decided":
		h.answered(func(g gate) bool { return g.event.Step == rec.Step })
	case "run-paused":
		h.announce()
		e.Event, e.Message, e.Commands = RunPause, run.Reason, []string{h.act("resume", e.Run)}
		h.put(e)
	case "guard-tripped":
		var b runner.GuardTripped
		if rec.Decode(&b) == nil {
			e.Event, e.Message = GuardTripped, b.Words()
			h.put(e)
		}
	case "step-finished":
		if s := run.Find(rec.Step); s != nil && s.Status == "failed" && !s.Group && s.Error != nil {
			e.Event, e.Message, e.Error = StepFailure, rec.Step+" failed", s.Error.Message
			h.put(e)
		}
	case "run-finished":
		h.announce()
		if run.Status == runner.Paused { // run-paused has said it
			return
		}
		e.Event, e.Status, e.Message = RunEnd, string(run.Status), "run "+run.Run+" of "+run.Name+": "+string(run.Status)
		if run.Error != nil {
			e.Error = run.Error.Message
		}
		if !run.Over() {
			e.Commands = []string{h.act("resume", e.Run)}
		}
		h.put(e)
	}
}

// ask announces a gate that is not answered at once: the answer of --approve is the next record.
func (h *Hook) ask(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(atOnce, func() {
		if g, open := h.answered(func(g gate) bool { return g.timer == timer }); open {
			h.put(g.event)
		}
	})
	h.asked = append(h.asked, gate{e, timer})
}

// answered takes a gate from those that were just opened.
func (h *Hook) answered(which func(gate) bool) (gate, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := slices.IndexFunc(h.asked, which)
	if at < 0 {
		return gate{}, false
	}
	g := h.asked[at]
	g.timer.Stop()
	h.asked = slices.Delete(h.asked, at, at+1)
	return g, true
}

// announce waits no longer for answers: the process ends.
func (h *Hook) announce() {
	for {
		g, open := h.answered(func(gate) bool { return true })
		if !open {
			return
		}
		h.put(g.event)
	}
}

func (h *Hook) put(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case h.queue <- e:
	default:
		h.dropped++
	}
}

// Close waits for the calls that are left, not longer than one may take, and ends them then.
func (h *Hook) Close() {
	h.announce()
	close(h.queue)
	late := time.AfterFunc(hookLimit, h.cancel)
	h.done.Wait()
	late.Stop()
	h.cancel()
	if h.dropped > 0 {
		h.log.Warn("the event hook was not told of everything", "events", h.dropped)
	}
}

// call runs the command once.
func (h *Hook) call(ctx context.Context, e Event) {
	ctx, cancel := context.WithTimeoutCause(ctx, hookLimit, errSlow)
	defer cancel()
	var text bytes.Buffer
	in := json.NewEncoder(&text)
	in.SetEscapeHTML(false) // people read it: n < 10
	if err := in.Encode(e); err != nil {
		h.log.Warn("an event has no JSON", "event", e.Event, "error", err)
		return
	}
	said := &tail{}
	cmd := exec.CommandContext(ctx, "sh", "-c", h.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = &text, said, said, h.environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the run; and what it starts ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond // somebody it left behind may hold its output open
	err := cmd.Run()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		h.log.Warn("the event hook failed", "event", e.Event, "error", err, "said", said.String())
	}
}

var errSlow = errors.New("it took longer than " + hookLimit.String())

// tail keeps the end of what a hook prints.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b[max(0, len(b)-hookSays):]...)
	t.text = t.text[max(0, len(t.text)-hookSays):]
	return len(b), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.text)) }
