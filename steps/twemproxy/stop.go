package twemproxy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runbook/steps"
)

type stopIn struct {
	MaxPause time.Duration `yaml:"max_pause,required" doc:"Longest time that clients may be without the proxy. It is for the plan: the group around stop and start must end by then (timeout)."`
}

type stopOut struct {
	Running bool     `yaml:"running" doc:"false: no proxy runs."`
	Command []string `yaml:"command,act" doc:"Program and arguments of the process that was stopped, for starting it again; empty where none ran."`
}

// stop is the one way to hold the clients of a proxy that buffers nothing.
func stop() *steps.Kind[stopIn, stopOut] {
	return &steps.Kind[stopIn, stopOut]{
		Name:       "twemproxy.stop",
		Doc:        "Stops the running proxy, so that nobody writes through it: clients are refused until it is started again (twemproxy.restart, or the undo). Sends SIGTERM and waits for its end.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: hold, uses: twemproxy.stop, target: proxy, with: {max_pause: 10s}}`,
		Pitfalls: []string{
			"nutcracker buffers nothing: clients are refused while it is down, and a write that got no answer may have been carried out.",
			"Every proxy of the pool must be stopped: one that goes on writes to the old owners.",
			"A process that a service manager keeps is started by that one again: stop it there.",
		},
		Check: func(ctx context.Context, v steps.View, _ stopIn) error {
			p, err := look(ctx, v)
			if err != nil {
				return err
			}
			_, _, err = p.process(ctx)
			return err
		},
		Plan: func(ctx context.Context, v *steps.View, in stopIn) (steps.Change, error) {
			change := steps.Change{Pause: in.MaxPause.String(), Lines: []steps.Line{{Command: "kill -TERM nutcracker", From: "running", To: "stopped"}}}
			if v == nil {
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
			change.Lines[0].Target = own(v)
			if running {
				change.Lines[0].Command = fmt.Sprintf("kill -TERM %d", now.PID)
			}
			change.Before = restartBefore{Running: running, PID: now.PID, ID: now.ID, Argv: now.Argv}
			return change, nil
		},
		Probe: func(ctx context.Context, v steps.View, _ stopIn) (steps.State, stopOut, error) {
			p, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, stopOut{}, err
			}
			_, running, err := p.process(ctx)
			switch {
			case err != nil:
				return steps.Unclear, stopOut{}, err
			case running:
				return steps.Untouched, stopOut{Running: true}, nil
			}
			return steps.Done, stopOut{}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, _ stopIn) (stopOut, error) {
			p, err := act(ctx, s)
			if err != nil {
				return stopOut{}, err
			}
			now, running, err := p.process(ctx)
			if err != nil || !running {
				return stopOut{}, err
			}
			return stopOut{Command: now.Argv}, p.stop(ctx, s.View, now)
		},
		Undo: undoStop,
		UndoPlan: func(stopIn) string {
			return "start it with the arguments it had"
		},
	}
}

func undoStop(ctx context.Context, s steps.Session, _ stopIn, _ *stopOut) error {
	p, err := act(ctx, s)
	if err != nil {
		return err
	}
	var old restartBefore
	known, err := s.Before(&old)
	switch {
	case err != nil:
		return err
	case !known:
		return steps.Errorf("precondition", "start nutcracker on %s again: whether it ran is not known", p.m)
	case !old.Running:
		return nil
	}
	now, running, err := p.process(ctx)
	if err != nil || running {
		return err
	}
	if err := p.verify(ctx, old.Argv[0]); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(old.Argv, " "), err)
	}
	_, err = p.restart(ctx, s.View, old.Argv, stopLimit, now, false, false, nil)
	return err
}
