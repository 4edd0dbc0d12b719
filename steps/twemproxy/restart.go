package twemproxy

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
	"runbook/steps/host"
)

type restartIn struct {
	MaxPause time.Duration `yaml:"max_pause,required" doc:"Longest time from the signal that stops the old process to the first answer of the new one; the step fails when it is over."`
	Pool     string        `yaml:"pool" doc:"Pool that before is about; the file's only one where none is given."`
	Before   []schema.Addr `yaml:"before" doc:"Address that owned each slot before the configuration was changed, such as twemproxy.set-servers gives: what the undo goes back to."`
	Command  []string      `yaml:"command" doc:"Program and arguments to start; those of the running process where none are given, or nutcracker -d with the target's files where none runs."`
}

type restartOut struct {
	Pause *time.Duration `yaml:"pause,act" doc:"How long clients had no proxy: from the signal to the first answer of the new process. Known only to the act itself." min:"0"`
	PID   int            `yaml:"pid" doc:"Number of the new process."`
}

// restartBefore is the process that ran when the step started.
type restartBefore struct {
	Running bool     `json:"running"`
	PID     int      `json:"pid"`
	ID      string   `json:"id"`
	Argv    []string `json:"argv"`
}

// is tells whether a process is that one: two that start within one tick of the clock have one ID.
func (b restartBefore) is(p host.Process) bool { return b.Running && p.PID == b.PID && p.ID == b.ID }

func restart() *steps.Kind[restartIn, restartOut] {
	return &steps.Kind[restartIn, restartOut]{
		Name: "twemproxy.restart",
		Doc: "Stops the running proxy and starts it again with the arguments it had, so that it reads its configuration. Runs nutcracker -t on the file first and stops nothing where that fails; " +
			"sends SIGTERM, starts, and waits until PING is answered on the clients' address.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: reload, uses: twemproxy.restart, target: proxy, with: {max_pause: 2s}}`,
		Pitfalls: []string{
			"nutcracker has no reload: SIGHUP opens its log file anew and nothing else. All connections of clients are cut, and requests under way with them; what was written and not answered may have been carried out.",
			"It buffers nothing while it is down: clients that move slots need writes paused around it, or owners that refuse what is not theirs.",
			"nutcracker -t looks at the file alone. That a port is taken, the one of the statistics too, shows only when the new process starts; and nutcracker -d ends with 0 all the same. So the new one counts only when it answers.",
			"The undo needs before: in a rollback the restart is undone first, while the file still has the new servers. It stops the proxy, writes the old owners, and starts it; without before it only sees to it that a proxy runs, and fails where that has read the new file.",
			"A process that a service manager keeps is started by that one too: let it not, or restart it there by exec.",
			"A process started with another file than the target's config is refused: the change would not be what it reads.",
		},
		Valid: func(in restartIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			if in.MaxPause <= 0 && !unknown("max_pause") {
				p = append(p, steps.Problem{Input: "max_pause", Message: "a restart takes some time"})
			}
			if len(in.Command) > 0 && !isNutcracker(in.Command) && !unknown("command") {
				p = append(p, steps.Problem{Input: "command", Message: fmt.Sprintf("%q is no nutcracker: its process would not be found again", in.Command[0])})
			}
			return p
		},
		Check: checkRestart,
		Plan:  planRestart,
		Probe: probeRestart,
		Apply: applyRestart,
		Undo:  undoRestart,
		UndoPlan: func(in restartIn) string {
			if len(in.Before) == 0 {
				return "nothing but to start it, should it not run: without before there is no way back"
			}
			return "stop it, write the owners before, start it"
		},
	}
}

// command is what is started in the place of a process.
func (in restartIn) command(p proxy, running bool, argv []string) []string {
	switch {
	case len(in.Command) > 0:
		return in.Command
	case running:
		return argv
	}
	host, port := splitAddr(string(p.cfg.StatsAddr))
	return []string{"nutcracker", "-d", "-c", p.cfg.Config, "-p", p.cfg.Pidfile, "-a", host, "-s", port}
}

func splitAddr(addr string) (host, port string) {
	i := strings.LastIndexByte(addr, ':')
	return strings.Trim(addr[:i], "[]"), addr[i+1:]
}

// option gives the value of one of nutcracker's options, as getopt finds it.
func option(argv []string, short, long, fallback string) string {
	value := fallback
	for i := 1; i < len(argv); i++ {
		a := argv[i]
		name, given, has := strings.Cut(a, "=")
		switch {
		case name == long && has:
			value = given
		case (a == short || a == long) && i+1 < len(argv):
			i++
			value = argv[i]
		case strings.HasPrefix(a, short) && !strings.HasPrefix(a, "--"):
			value = a[len(short):]
		}
	}
	return value
}

func daemonizes(argv []string) bool {
	return slices.ContainsFunc(argv[1:], func(a string) bool { return a == "-d" || a == "--daemonize" })
}

func checkRestart(ctx context.Context, v steps.View, in restartIn) error {
	p, err := look(ctx, v)
	if err != nil {
		return err
	}
	f, err := p.file(ctx)
	if err != nil {
		return err
	}
	if len(in.Before) > 0 {
		if _, err := f.pool(in.Pool); err != nil {
			return err
		}
	}
	now, running, err := p.process(ctx)
	if err != nil {
		return err
	}
	argv := in.command(p, running, now.Argv)
	for _, o := range []struct{ short, long, fallback, want, input string }{
		{"-c", "--conf-file", "/etc/nutcracker/nutcracker.yml", p.cfg.Config, "config"},
		{"-p", "--pid-file", "/run/nutcracker/nutcracker.pid", p.cfg.Pidfile, "pidfile"},
	} {
		if got := option(argv, o.short, o.long, o.fallback); path.Clean(got) != path.Clean(o.want) {
			return steps.Precondition("restart nutcracker on %s: its command has %s %s, and the target's %s is %s", p.m, o.short, got, o.input, o.want).
				WithHint("command: %s", strings.Join(argv, " "))
		}
	}
	if _, err := p.m.Look(ctx, argv[0]); errors.Is(err, fs.ErrNotExist) {
		return steps.Precondition("restart nutcracker on %s: there is no %s", p.m, argv[0]).WithHint("install it, or give command")
	} else if err != nil {
		return err
	}
	if running {
		return nil
	}
	if ok, err := p.serves(ctx); ok {
		return steps.Precondition("start nutcracker on %s: something answers on %s already, and %s names no nutcracker", p.m, p.cfg.Addr, p.cfg.Pidfile)
	} else if ctx.Err() != nil {
		return err
	}
	return nil
}

func planRestart(ctx context.Context, v *steps.View, in restartIn) (steps.Change, error) {
	change := steps.Change{Pause: in.MaxPause.String()}
	if v == nil {
		change.Lines = []steps.Line{{Command: "restart nutcracker"}}
		return change, nil
	}
	p, err := look(ctx, *v)
	if err != nil {
		return steps.Change{}, err
	}
	now, running, err := p.process(ctx)
	if err != nil {
		return steps.Change{}, err
	}
	argv := in.command(p, running, now.Argv)
	line := func(command, from, to string) {
		change.Lines = append(change.Lines, steps.Line{Target: own(v), Command: command, From: from, To: to})
	}
	line(strings.Join([]string{argv[0], "-t", "-c", p.cfg.Config}, " "), "", "")
	if running {
		line(fmt.Sprintf("kill -TERM %d", now.PID), "running", "stopped")
	}
	line(strings.Join(argv, " "), "stopped", "serves "+string(p.cfg.Addr))
	change.Before = restartBefore{Running: running, PID: now.PID, ID: now.ID, Argv: now.Argv}
	return change, nil
}

func probeRestart(ctx context.Context, v steps.View, _ restartIn) (steps.State, restartOut, error) {
	p, err := look(ctx, v)
	if err != nil {
		return steps.Unclear, restartOut{}, err
	}
	var old restartBefore
	started, err := v.Before(&old)
	if err != nil {
		return steps.Unclear, restartOut{}, err
	}
	now, running, err := p.process(ctx)
	switch {
	case err != nil:
		return steps.Unclear, restartOut{}, err
	case !running && started && old.Running:
		return steps.Partial, restartOut{}, nil
	case !running, !started, old.is(now):
		return steps.Untouched, restartOut{PID: now.PID}, nil
	}
	ok, err := p.serves(ctx)
	switch {
	case ctx.Err() != nil:
		return steps.Unclear, restartOut{}, err
	case !ok:
		return steps.Partial, restartOut{PID: now.PID}, nil
	}
	return steps.Done, restartOut{PID: now.PID}, nil
}

func applyRestart(ctx context.Context, s steps.Session, in restartIn) (restartOut, error) {
	p, err := act(ctx, s)
	if err != nil {
		return restartOut{}, err
	}
	now, running, err := p.process(ctx)
	if err != nil {
		return restartOut{}, err
	}
	old := restartBefore{Running: running, PID: now.PID, ID: now.ID, Argv: now.Argv}
	if _, err := s.Before(&old); err != nil {
		return restartOut{}, err
	}
	argv := in.command(p, old.Running, old.Argv)
	if err := p.verify(ctx, argv[0]); err != nil {
		return restartOut{}, err
	}
	if !running && old.Running {
		if now, running, err = p.appears(ctx, s.View); err != nil {
			return restartOut{}, err
		}
	}
	return p.restart(ctx, s.View, argv, in.MaxPause, now, running, running && old.is(now), nil)
}

// verify has nutcracker look at the file, which changes nothing.
func (p proxy) verify(ctx context.Context, program string) error {
	r, err := p.m.Run(ctx, host.Command{Argv: []string{program, "-t", "-c", p.cfg.Config}})
	if err != nil {
		return err
	}
	if r.Code != 0 {
		said, _, _ := strings.Cut(strings.TrimSpace(r.Stderr.Text+r.Stdout.Text), "\n")
		return steps.Precondition("restart nutcracker on %s: %s -t: %s", p.m, program, said).
			WithHint("it does not say why: twemproxy.check-config reads the file too; the running proxy was left alone")
	}
	return nil
}

// restart replaces the process by a new one. Where stop is false one is to be started, or runs already and is waited for.
// between is done while none runs.
func (p proxy) restart(ctx context.Context, v steps.View, argv []string, within time.Duration, now host.Process, running, stop bool, between func() error) (restartOut, error) {
	begin := v.Now()
	acts := stop || !running
	if stop {
		if err := p.stop(ctx, v, now); err != nil {
			return restartOut{}, err
		}
		running = false
	}
	if !running {
		if between != nil {
			if err := between(); err != nil {
				return restartOut{}, err
			}
		}
		if err := p.start(ctx, argv); err != nil {
			return restartOut{}, err
		}
	}
	for {
		now, running, err := p.process(ctx)
		if err != nil {
			return restartOut{}, err
		}
		var why error
		if running {
			var ok bool
			if ok, why = p.serves(ctx); ok {
				out := restartOut{PID: now.PID}
				if pause := v.Now().Sub(begin); acts {
					out.Pause = &pause
				}
				return out, nil
			}
		}
		if v.Now().Sub(begin) > within {
			return restartOut{}, p.late(ctx, argv, within, running, why)
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return restartOut{}, &steps.Error{Kind: "canceled", Unknown: true, Err: fmt.Errorf("restart nutcracker on %s: %w", p.m, err)}
		}
	}
}

// appears gives a process that an earlier attempt has started the time to write its number: a second one beside it could
// not bind its ports, and would take the pid file with it when it ends.
func (p proxy) appears(ctx context.Context, v steps.View) (now host.Process, running bool, err error) {
	for deadline := v.Now().Add(appearLimit); ; {
		now, running, err = p.process(ctx)
		if err != nil || running || !v.Now().Before(deadline) {
			return now, running, err
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return now, false, steps.Classify(fmt.Errorf("look for nutcracker on %s: %w", p.m, err))
		}
	}
}

const appearLimit = 500 * time.Millisecond

// pollEvery is short, since each poll's wait is clients' time.
const pollEvery = 5 * time.Millisecond

// stopLimit is more than nutcracker needs: SIGTERM ends it at once.
const stopLimit = 10 * time.Second

func (p proxy) stop(ctx context.Context, v steps.View, old host.Process) error {
	if err := p.m.Signal(ctx, old, "TERM", false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for deadline := v.Now().Add(stopLimit); ; {
		now, err := p.m.Process(ctx, old.PID)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && now.ID != old.ID:
			return nil
		case err != nil:
			return err
		case !v.Now().Before(deadline):
			return &steps.Error{Kind: "timeout", Unknown: true, Err: fmt.Errorf("stop nutcracker on %s: process %d has not ended %s after SIGTERM", p.m, old.PID, stopLimit)}
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return &steps.Error{Kind: "canceled", Unknown: true, Err: fmt.Errorf("stop nutcracker on %s: %w", p.m, err)}
		}
	}
}

func (p proxy) start(ctx context.Context, argv []string) error {
	if !daemonizes(argv) {
		_, err := p.m.Start(ctx, host.Spawn{Argv: argv, Detach: host.DetachSetsid, PIDFile: p.cfg.Pidfile})
		return err
	}
	r, err := p.m.Run(ctx, host.Command{Argv: argv})
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return steps.Errorf("exit", "start %s on %s: exit code %d: %s", strings.Join(argv, " "), p.m, r.Code, strings.TrimSpace(r.Stderr.Text+r.Stdout.Text)).
			WithHint("clients have no proxy now")
	}
	return nil
}

// late is the error when nothing answers in time: clients have no proxy.
func (p proxy) late(ctx context.Context, argv []string, after time.Duration, running bool, why error) error {
	state := "the new process is gone"
	if running {
		state = "the new process does not answer"
	}
	if why != nil {
		state += ": " + why.Error()
	}
	e := &steps.Error{Kind: "timeout", Unknown: true, Err: fmt.Errorf("restart nutcracker on %s: nothing serves %s after %s: %s", p.m, p.cfg.Addr, after, state)}
	log := option(argv, "-o", "--output", "/var/log/nutcracker/nutcracker.log")
	if path.IsAbs(log) {
		if b, err := p.m.ReadFile(ctx, log, logLimit); err == nil {
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			return e.WithHint("clients have no proxy now; its log ends with: %s", strings.Join(lines[max(0, len(lines)-3):], " | "))
		}
	}
	return e.WithHint("clients have no proxy now; its log is %s", log)
}

const logLimit = 8 << 20

// undoRestart goes back to the owners before. It stops the proxy first, then writes the file, then starts: so what is
// found tells how far it came, should it be cut short.
func undoRestart(ctx context.Context, s steps.Session, in restartIn, _ *restartOut) error {
	p, err := act(ctx, s)
	if err != nil {
		return err
	}
	var old restartBefore
	known, err := s.Before(&old)
	if err != nil {
		return err
	}
	if !known {
		return steps.Errorf("precondition", "put nutcracker on %s back: whether it was restarted is not known", p.m)
	}
	now, running, err := p.process(ctx)
	if err == nil && !running && old.Running {
		now, running, err = p.appears(ctx, s.View)
	}
	if err != nil || old.is(now) {
		return err
	}
	if !old.Running {
		if !running {
			return nil
		}
		return p.stop(ctx, s.View, now)
	}
	argv := in.command(p, old.Running, old.Argv)
	if len(in.Before) == 0 {
		if !running {
			_, err := p.restart(ctx, s.View, argv, in.MaxPause, now, false, false, nil)
			return err
		}
		return steps.Errorf("precondition", "put nutcracker on %s back: it runs with the file as it is, and what was there before is not given", p.m).
			WithHint("before: the owners that twemproxy.set-servers gives")
	}
	f, pool, err := p.read(ctx, in.Pool)
	if err != nil {
		return err
	}
	owners := addrs(in.Before)
	written := slices.Equal(pool.owners(), owners)
	if written && running {
		return nil
	}
	_, err = p.restart(ctx, s.View, argv, in.MaxPause, now, running, running, func() error {
		if written {
			return nil
		}
		_, err := p.write(ctx, f, pool, pool.entriesFor(owners))
		return err
	})
	return err
}
