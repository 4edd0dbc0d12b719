package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"runbook/steps"
)

type pauseIn struct {
	For time.Duration `yaml:"for,required" doc:"Longest time that writes are held; the server lets them go by itself after it, whatever becomes of the runner. Whole milliseconds."`
}

type pauseOut struct {
	Paused bool   `yaml:"paused" doc:"Writes are held: true."`
	Until  string `yaml:"until,act" doc:"When the server lets them go at the latest, by the runner's clock (RFC 3339). Known only to the act itself."`
}

func pauseWrites() *steps.Kind[pauseIn, pauseOut] {
	return &steps.Kind[pauseIn, pauseOut]{
		Name:       "redis.pause-writes",
		Doc:        "Holds the clients that write, so that a replica can catch up and take over. Sends CLIENT PAUSE with the mode WRITE; reads go on. Held clients wait, they get no error, and their writes are carried out when the pause ends, or answered -READONLY if the server is a replica by then.",
		Effect:     steps.Cutover,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: hold, uses: redis.pause-writes, target: redis1, with: {for: 5s}}`,
		Pitfalls: []string{
			"The pause ends by itself after for, also in the middle of a cut-over: what follows must be done by then, or check again.",
			"The server keeps the longer of two pauses: a second one extends, it never shortens. CLIENT UNPAUSE ends all.",
			"Redis shows nowhere that it is paused, so the probe cannot tell; repeating the pause is harmless, which is how an unknown outcome is settled. Valkey since 8.1 shows it, and then the probe tells.",
			"The mode WRITE came with Redis 6.2; before, CLIENT PAUSE holds reads as well and there is no UNPAUSE, so older servers are refused.",
			"A client that is held may give up and write again elsewhere; and on a replica a pause holds its own replication stream too.",
		},
		Valid: func(in pauseIn, unknown func(string) bool) []steps.Problem {
			if in.For < time.Millisecond && !unknown("for") {
				return []steps.Problem{{Input: "for", Message: "a pause lasts a millisecond at least"}}
			}
			return nil
		},
		Check: checkPause,
		Plan: func(_ context.Context, v *steps.View, in pauseIn) (steps.Change, error) {
			return steps.Change{
				Lines: []steps.Line{{Target: own(v), Command: Line(in.command())}},
				Pause: in.For.String(),
			}, nil
		},
		Probe: probePause,
		Apply: func(ctx context.Context, s steps.Session, in pauseIn) (pauseOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return pauseOut{}, err
			}
			if _, err := c.Do(ctx, in.command()...); err != nil {
				return pauseOut{}, err
			}
			return pauseOut{Paused: true, Until: s.Now().Add(in.For).Format(time.RFC3339Nano)}, nil
		},
		Undo: func(ctx context.Context, s steps.Session, _ pauseIn, _ *pauseOut) error {
			c, err := session(ctx, s)
			if err != nil {
				return err
			}
			_, err = c.Do(ctx, "CLIENT", "UNPAUSE")
			return err
		},
		UndoPlan: func(pauseIn) string { return "CLIENT UNPAUSE" },
	}
}

func (in pauseIn) command() []string {
	return []string{"CLIENT", "PAUSE", strconv.FormatInt(in.For.Milliseconds(), 10), "WRITE"}
}

func checkPause(ctx context.Context, v steps.View, _ pauseIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	i, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if older(i.Version, 6, 2) {
		return steps.Precondition("pause writes on %s: version %s cannot hold writes alone, which came with 6.2", c.Addr(), i.Version)
	}
	if i.Role == "slave" {
		return steps.Precondition("pause writes on %s: it is a replica of %s, where clients do not write", c.Addr(), i.Master).
			WithHint("pause its master")
	}
	return nil
}

func probePause(ctx context.Context, v steps.View, _ pauseIn) (steps.State, pauseOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, pauseOut{}, err
	}
	i, err := c.Info(ctx, "clients")
	if err != nil {
		return steps.Unclear, pauseOut{}, err
	}
	switch i.Paused {
	case "":
		return steps.Unclear, pauseOut{}, nil
	case "write", "all":
		return steps.Done, pauseOut{Paused: true}, nil
	}
	return steps.Untouched, pauseOut{}, nil
}

// older compares a version's first two numbers; one that cannot be read is not older.
func older(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX != nil || errY != nil {
		return false
	}
	return x < major || x == major && y < minor
}
