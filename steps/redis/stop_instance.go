package redis

import (
	"context"

	"runbook/steps"
)

type stopIn struct {
	Save bool `yaml:"save" doc:"Write the data to disk before it stops (SHUTDOWN SAVE); false loses what was not saved." default:"true"`
}

type stopOut struct {
	Addr  string `yaml:"addr" doc:"Address at which it answered, host:port."`
	RunID string `yaml:"run_id" doc:"Id of the process that was stopped; empty where it did not run when the step was planned."`
}

// ran is what a probe needs to know of the instance that is gone.
type ran struct {
	RunID string `json:"run_id"`
}

func stopInstance() *steps.Kind[stopIn, stopOut] {
	return &steps.Kind[stopIn, stopOut]{
		Name:       "redis.stop-instance",
		Doc:        "Stops a server and waits until nobody answers at its address. Sends SHUTDOWN SAVE or NOSAVE; the answer to it is a closed connection.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: stop_old, uses: redis.stop-instance, target: redis1, with: {save: true}}`,
		Pitfalls: []string{
			"A service manager may start it again at once: then the step fails and says so, by the run id of what answers.",
			"A refused connection means stopped; one that times out may be a network that is cut, and is never taken for stopped.",
			"SHUTDOWN SAVE refuses when the data cannot be written, and the server goes on.",
		},
		Check: func(ctx context.Context, v steps.View, _ stopIn) error {
			c, err := view(ctx, v, "")
			if err != nil {
				return err
			}
			switch who, err := c.knock(ctx); who {
			case cannotSay:
				return err
			case noLogin:
				_, err := c.Do(ctx, "PING")
				return err
			}
			return nil
		},
		Plan: func(ctx context.Context, v *steps.View, in stopIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{{Target: own(v), Command: in.command()}}}
			if v == nil {
				return change, nil
			}
			c, err := view(ctx, *v, "")
			if err != nil {
				return change, err
			}
			i, err := c.Info(ctx)
			switch {
			case nobodyThere(err):
				change.Before, change.Lines[0].From, change.Lines[0].To = ran{}, "stopped", "stopped"
			case err != nil:
				return change, err
			default:
				change.Before, change.Lines[0].From, change.Lines[0].To = ran{RunID: i.RunID}, describe(i), "stopped"
				change.Lines[0].Keys = i.atStake()
			}
			return change, nil
		},
		Probe: func(ctx context.Context, v steps.View, _ stopIn) (steps.State, stopOut, error) {
			c, err := view(ctx, v, "")
			if err != nil {
				return steps.Unclear, stopOut{}, err
			}
			return stopped(ctx, v, c)
		},
		Apply: func(ctx context.Context, s steps.Session, in stopIn) (stopOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return stopOut{}, err
			}
			var before ran
			planned, err := s.Before(&before)
			if err != nil {
				return stopOut{}, err
			}
			i, err := c.Info(ctx, "server")
			switch {
			case nobodyThere(err):
				return stopOut{Addr: c.Addr(), RunID: before.RunID}, nil
			case err != nil && steps.Classify(err).Kind != "loading":
				return stopOut{}, err
			case planned && before.RunID != "" && i.RunID != "" && i.RunID != before.RunID:
				return stopOut{}, steps.Errorf("conflict", "stop %s: another process answers there than the one planned (run id %s, not %s)", c.Addr(), i.RunID, before.RunID).
					WithHint("it was started again since: look why, and plan again")
			}
			if err := c.down(ctx, s.View, in.Save, i.RunID); err != nil {
				return stopOut{}, err
			}
			return stopOut{Addr: c.Addr(), RunID: i.RunID}, nil
		},
		NoUndo: "how a server was started is not known here: write a step under undo that starts it",
	}
}

func (in stopIn) command() string {
	if in.Save {
		return "SHUTDOWN SAVE"
	}
	return "SHUTDOWN NOSAVE"
}

// stopped tells whether nobody answers any more.
func stopped(ctx context.Context, v steps.View, c *Client) (steps.State, stopOut, error) {
	var before ran
	if _, err := v.Before(&before); err != nil {
		return steps.Unclear, stopOut{}, err
	}
	who, err := c.knock(ctx)
	switch who {
	case nobody:
		return steps.Done, stopOut{Addr: c.Addr(), RunID: before.RunID}, nil
	case cannotSay:
		return steps.Unclear, stopOut{}, err
	}
	return steps.Untouched, stopOut{}, nil
}
