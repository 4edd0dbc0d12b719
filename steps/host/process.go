package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type processIn struct {
	Command     []string          `yaml:"command,required" doc:"Program and arguments; also what the process is recognised by."`
	Pidfile     string            `yaml:"pidfile,required" doc:"Absolute path of the file that holds its process number. The runner writes it before the command begins, unless daemonizes."`
	State       string            `yaml:"state" enum:"running,stopped,restarted" default:"running" doc:"running, stopped, or restarted: another process than when the step started."`
	Detach      string            `yaml:"detach" enum:"none,setsid,systemd" default:"setsid" doc:"What it outlives: none ends with the run, setsid has a session of its own and outlives runner and SSH, systemd is a transient unit and outlives the login too."`
	Daemonizes  bool              `yaml:"daemonizes" default:"false" doc:"The command goes into the background by itself and writes pidfile."`
	Dir         string            `yaml:"dir" doc:"Working directory, absolute."`
	Env         map[string]string `yaml:"env" doc:"Environment variables; may hold secrets."`
	Output      string            `yaml:"output" doc:"Absolute path of the file that its output is appended to; none: it is thrown away."`
	Unit        string            `yaml:"unit" pattern:"^[A-Za-z0-9:_.@-]+$" doc:"With detach: systemd: name of the unit."`
	Ready       processReady      `yaml:"ready" doc:"When it counts as running: {addr: HOST:PORT, timeout: 30s}, once it accepts a connection from its host."`
	StopTimeout time.Duration     `yaml:"stop_timeout" default:"30s" doc:"How long it may take to end after SIGTERM."`
	Kill        bool              `yaml:"kill" default:"false" doc:"SIGKILL after stop_timeout; otherwise the step fails."`
}

type processReady struct {
	Addr    schema.Addr   `yaml:"addr" doc:"Address it must accept a connection on."`
	Timeout time.Duration `yaml:"timeout" doc:"How long that may take; 30s."`
}

type processOut struct {
	PID       int    `yaml:"pid" doc:"Process number; 0 where it is stopped."`
	Running   bool   `yaml:"running" doc:"It runs."`
	StartedAt string `yaml:"started_at" doc:"When it started, RFC 3339 in UTC; empty where it is stopped."`
}

// processBefore is the process that ran when the step started.
type processBefore struct {
	Running bool   `json:"running"`
	PID     int    `json:"pid,omitempty"`
	ID      string `json:"id,omitempty"`
}

func process() *steps.Kind[processIn, processOut] {
	return &steps.Kind[processIn, processOut]{
		Name: "host.process",
		Doc: "Starts, stops or restarts one process that a pidfile names. It is recognised by number, start time and command, so a number that was given to another process is not mistaken for it. " +
			"Stopping sends SIGTERM and waits.",
		Effect: steps.Write, On: []string{KindName}, TargetOptional: true, Idempotent: true,
		Example: `{id: keeper, uses: host.process, with: {command: [sleep, "1000"], pidfile: /tmp/runner-example.pid}}`,
		Pitfalls: []string{
			"A process started over SSH without a session of its own dies with the connection: detach.",
			"With detach: none over SSH it ends when the runner lets go of the host; started here by a runner that was killed, it keeps a resume waiting until it ends.",
			"A crash between stopping and starting must not restart twice: the old process is journaled before, and only that one is stopped.",
			"systemd ends what a login left behind unless lingering is enabled: detach: systemd.",
			"A store that is killed loses what it had not written: kill is off unless asked for.",
		},
		Valid: validProcess,
		Check: checkProcess,
		Plan:  planProcess,
		Probe: func(ctx context.Context, v steps.View, in processIn) (steps.State, processOut, error) {
			m, err := Of(ctx, v, "")
			if err != nil {
				return steps.Unclear, processOut{}, err
			}
			var old processBefore
			started, err := v.Before(&old)
			if err != nil {
				return steps.Unclear, processOut{}, err
			}
			return probeProcess(ctx, m, in, old, started)
		},
		Apply: applyProcess,
		Undo:  undoProcess,
		UndoPlan: func(in processIn) string {
			switch in.State {
			case "stopped":
				return "start it again, if it ran: " + quoteAll(in.Command)
			case "restarted":
				return "nothing: it runs as before"
			}
			return "stop it, unless it ran before"
		},
	}
}

func validProcess(in processIn, unknown func(string) bool) []steps.Problem {
	p := absolute("pidfile", in.Pidfile, unknown)
	for input, name := range map[string]string{"dir": in.Dir, "output": in.Output} {
		if name != "" {
			p = append(p, absolute(input, name, unknown)...)
		}
	}
	if !unknown("command") && (len(in.Command) == 0 || in.Command[0] == "") {
		p = append(p, steps.Problem{Input: "command", Message: "the command is empty"})
	}
	if in.Unit != "" && in.Detach != "systemd" && !unknown("detach") {
		p = append(p, steps.Problem{Input: "unit", Message: "unit means something with detach: systemd alone"})
	}
	if in.Daemonizes && in.Detach == "systemd" {
		p = append(p, steps.Problem{Input: "daemonizes", Message: "systemd keeps track of a process that stays in the foreground", Suggestion: "daemonizes: false"})
	}
	for name := range in.Env {
		if !IsVariable(name) {
			p = append(p, steps.Problem{Input: "env", Message: fmt.Sprintf("%q is no name of an environment variable", name)})
		}
	}
	return p
}

// checkProcess refuses to start beside somebody who has the address already.
func checkProcess(ctx context.Context, v steps.View, in processIn) error {
	m, err := Of(ctx, v, "")
	if err != nil {
		return err
	}
	if in.State == "stopped" {
		_, _, err := in.find(ctx, m)
		return err
	}
	if _, err := m.Look(ctx, in.Command[0]); errors.Is(err, fs.ErrNotExist) && (in.Dir == "" || !strings.Contains(in.Command[0], "/")) {
		return steps.Precondition("start %s on %s: no such command", in.Command[0], m)
	}
	if _, err := m.Stat(ctx, path.Dir(in.Pidfile)); errors.Is(err, fs.ErrNotExist) {
		return steps.Precondition("directory of the pidfile %s on %s is not there", in.Pidfile, m)
	}
	if _, running, err := in.find(ctx, m); err != nil || running || in.Ready.Addr == "" {
		return err
	}
	c, err := m.Dial(ctx, string(in.Ready.Addr))
	if err == nil {
		_ = c.Close()
		return steps.Precondition("start %s on %s: somebody else answers on %s already", in.Command[0], m, in.Ready.Addr)
	}
	if ctx.Err() != nil {
		return err
	}
	return nil
}

func planProcess(ctx context.Context, v *steps.View, in processIn) (steps.Change, error) {
	line := steps.Line{Target: lineTarget(v), Command: quoteAll(in.Command), To: in.State}
	switch in.State {
	case "stopped":
		line.Command = "stop " + line.Command
	case "restarted":
		line.Command = "restart " + line.Command
	default:
		line.Command = "start " + line.Command
	}
	if v == nil {
		return steps.Change{Lines: []steps.Line{line}}, nil
	}
	m, err := Of(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	p, running, err := in.find(ctx, m)
	if err != nil {
		return steps.Change{}, err
	}
	line.From = "stopped"
	if running {
		line.From = fmt.Sprintf("running as process %d", p.PID)
	}
	return steps.Change{Lines: []steps.Line{line}, Before: processBefore{Running: running, PID: p.PID, ID: p.ID}}, nil
}

// find gives the process of the pidfile, if it is the command's.
func (in processIn) find(ctx context.Context, m Machine) (Process, bool, error) {
	p, alive, err := fromPidfile(ctx, m, in.Pidfile)
	if err != nil || !alive || !in.owns(p) {
		return Process{}, false, err
	}
	return p, true, nil
}

// owns tells whether a process is the command's: the same arguments, or the same program under a
// title of its own (redis-server writes its port there) or behind an interpreter (sh script).
func (in processIn) owns(p Process) bool {
	if own := len(p.Argv) - len(in.Command); own == 0 || own == startArgs && p.Argv[own-1] == in.Pidfile { // about to become it
		if slices.Equal(p.Argv[own:], in.Command) {
			return true
		}
	}
	name := path.Base(in.Command[0])
	for _, a := range p.Argv[:min(2, len(p.Argv))] {
		title, _, _ := strings.Cut(a, " ")
		if strings.TrimSuffix(path.Base(title), ":") == name {
			return true
		}
	}
	return false
}

func describeProcess(p Process, running bool) processOut {
	if !running {
		return processOut{}
	}
	out := processOut{PID: p.PID, Running: true}
	if !p.Started.IsZero() {
		out.StartedAt = p.Started.UTC().Format(time.RFC3339)
	}
	return out
}

func probeProcess(ctx context.Context, m Machine, in processIn, old processBefore, started bool) (steps.State, processOut, error) {
	p, running, err := in.find(ctx, m)
	if err != nil {
		return steps.Unclear, processOut{}, err
	}
	out := describeProcess(p, running)
	if in.State == "stopped" {
		if running {
			return steps.Untouched, out, nil
		}
		return steps.Done, out, nil
	}
	switch {
	case !running && in.State == "restarted" && started && old.Running:
		return steps.Partial, out, nil
	case !running, in.State == "restarted" && (!started || p.ID == old.ID):
		return steps.Untouched, out, nil
	}
	if in.Ready.Addr == "" {
		return steps.Done, out, nil
	}
	c, err := m.Dial(ctx, string(in.Ready.Addr))
	if err != nil {
		if ctx.Err() != nil {
			return steps.Unclear, out, err
		}
		return steps.Partial, out, nil
	}
	_ = c.Close()
	return steps.Done, out, nil
}

func applyProcess(ctx context.Context, s steps.Session, in processIn) (processOut, error) {
	m, err := ForSession(ctx, s, "")
	if err != nil {
		return processOut{}, err
	}
	p, running, err := in.find(ctx, m)
	if err != nil {
		return processOut{}, err
	}
	old := processBefore{Running: running, PID: p.PID, ID: p.ID}
	if _, err := s.Before(&old); err != nil {
		return processOut{}, err
	}
	stop := in.State == "stopped" || in.State == "restarted" && p.ID == old.ID
	if running && stop {
		if err := in.stop(ctx, s.View, m, p); err != nil {
			return processOut{}, err
		}
		running = false
	}
	if in.State == "stopped" {
		return processOut{}, nil
	}
	if !running {
		if p, err = in.start(ctx, s, m); err != nil {
			return processOut{}, err
		}
	}
	if err := in.waitReady(ctx, s.View, m, p); err != nil {
		return processOut{}, err
	}
	return describeProcess(p, true), nil
}

// pollEvery is how often a process is looked at while it starts or stops.
const pollEvery = 50 * time.Millisecond

// stop sends SIGTERM and waits until the process has ended.
func (in processIn) stop(ctx context.Context, v steps.View, m Machine, p Process) error {
	limit := in.StopTimeout
	for _, sig := range []Signal{"TERM", "KILL"} {
		if err := m.Signal(ctx, p, sig, true); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for deadline := v.Now().Add(limit); ; {
			now, err := m.Process(ctx, p.PID)
			if errors.Is(err, fs.ErrNotExist) || err == nil && now.ID != p.ID {
				return nil
			}
			if err != nil {
				return err
			}
			if !v.Now().Before(deadline) {
				break
			}
			if err := v.Sleep(ctx, pollEvery); err != nil {
				return ended(ctx, true, "stop process %d on %s", p.PID, m)
			}
		}
		if !in.Kill {
			break
		}
		limit = max(limit, 5*time.Second)
	}
	return steps.Errorf("timeout", "stop process %d on %s: it has not ended %s after SIGTERM", p.PID, m, in.StopTimeout).
		WithHint("look why it does not end; a longer stop_timeout waits longer, kill: true ends it by force")
}

// start starts the command, and waits until it is the process of the pidfile.
func (in processIn) start(ctx context.Context, s steps.Session, m Machine) (Process, error) {
	deadline := s.Now().Add(in.readyTimeout())
	var p Process
	if in.Daemonizes {
		r, err := m.Run(ctx, Command{Argv: in.Command, Dir: in.Dir, Env: in.Env})
		if err != nil {
			return p, err
		}
		if r.Code != 0 {
			return p, steps.Errorf("exit", "start %s on %s: exit code %d: %s", in.Command[0], m, r.Code, lastLines(r.Stderr.Text+r.Stdout.Text, 5))
		}
	} else {
		spawn := Spawn{Argv: in.Command, Dir: in.Dir, Env: in.Env, Output: in.Output, Detach: Detach(in.Detach), Unit: in.Unit, PIDFile: in.Pidfile}
		if spawn.Detach == "" {
			spawn.Detach = DetachSetsid
		}
		if spawn.Detach == DetachNone {
			spawn.Inherit = s.Host().Inherit
		}
		var err error
		if p, err = m.Start(ctx, spawn); err != nil {
			return p, err
		}
	}
	// What was started is a shell for a moment, and a daemon writes its pidfile in its own time.
	for {
		found, ok, err := in.find(ctx, m)
		if err != nil || ok {
			return found, err
		}
		if p.PID != 0 {
			if _, err := m.Process(ctx, p.PID); errors.Is(err, fs.ErrNotExist) {
				return p, in.died(m)
			}
		}
		if !s.Now().Before(deadline) {
			return p, &steps.Error{Kind: "timeout", Unknown: true, Err: fmt.Errorf("start %s on %s: %s names no process of it after %s", in.Command[0], m, in.Pidfile, in.readyTimeout())}
		}
		if err := s.Sleep(ctx, pollEvery); err != nil {
			return p, ended(ctx, true, "start %s on %s", in.Command[0], m)
		}
	}
}

func (in processIn) died(m Machine) *steps.Error {
	e := steps.Errorf("exit", "start %s on %s: it ended at once", in.Command[0], m)
	if in.Output != "" {
		return e.WithHint("its output is in %s", in.Output)
	}
	return e.WithHint("output: FILE keeps what it says")
}

func (in processIn) readyTimeout() time.Duration {
	if in.Ready.Timeout > 0 {
		return in.Ready.Timeout
	}
	return 30 * time.Second
}

func (in processIn) waitReady(ctx context.Context, v steps.View, m Machine, p Process) error {
	if in.Ready.Addr == "" {
		return nil
	}
	for deadline := v.Now().Add(in.readyTimeout()); ; {
		c, err := m.Dial(ctx, string(in.Ready.Addr))
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return ended(ctx, true, "wait for %s on %s", in.Ready.Addr, m)
		}
		if now, perr := m.Process(ctx, p.PID); errors.Is(perr, fs.ErrNotExist) || perr == nil && now.ID != p.ID {
			return in.died(m)
		}
		if !v.Now().Before(deadline) {
			return &steps.Error{Kind: "timeout", Temporary: true, Err: fmt.Errorf("process %d on %s runs, but is not ready after %s: %w", p.PID, m, in.readyTimeout(), err)}
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return ended(ctx, true, "wait for %s on %s", in.Ready.Addr, m)
		}
	}
}

func undoProcess(ctx context.Context, s steps.Session, in processIn, _ *processOut) error {
	var old processBefore
	known, err := s.Before(&old)
	if err != nil {
		return err
	}
	if !known {
		return steps.Errorf("undo", "put process of %s back: whether it ran before is not known", in.Pidfile)
	}
	m, err := ForSession(ctx, s, "")
	if err != nil {
		return err
	}
	p, running, err := in.find(ctx, m)
	if err != nil || running == old.Running {
		return err
	}
	if running {
		return in.stop(ctx, s.View, m, p)
	}
	if p, err = in.start(ctx, s, m); err != nil {
		return err
	}
	return in.waitReady(ctx, s.View, m, p)
}

// lastLines gives the last lines of a text that are not empty, on one line.
func lastLines(text string, n int) string {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
