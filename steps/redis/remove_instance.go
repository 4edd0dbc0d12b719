package redis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

type removeIn struct {
	Host   schema.TargetName `yaml:"host" doc:"Host target it runs on; the runner's own machine where none is given."`
	Dir    string            `yaml:"dir,required" doc:"The instance's directory, absolute: all of it is removed."`
	Within string            `yaml:"within,required" doc:"Directory that dir must lie below, absolute: a bound against a mistyped dir."`
	Force  bool              `yaml:"force" doc:"Remove it although replicas follow it or clients use it." default:"false"`
}

type removeOut struct {
	Addr    string `yaml:"addr" doc:"Address at which it answered, host:port."`
	Dir     string `yaml:"dir" doc:"Directory that is gone."`
	Removed bool   `yaml:"removed" doc:"It is gone: true."`
}

func removeInstance() *steps.Kind[removeIn, removeOut] {
	return &steps.Kind[removeIn, removeOut]{
		Name:       "redis.remove-instance",
		Doc:        "Stops a server and removes its directory with all data. Sends SHUTDOWN NOSAVE, waits until nobody answers, then removes the directory on its machine.",
		Effect:     steps.Destroy,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: remove_old, uses: redis.remove-instance, target: redis1, with: {dir: /var/lib/redis/6379, within: /var/lib/redis}}`,
		Pitfalls: []string{
			"It is refused while replicas follow the instance, or a client's last command read or wrote data (CLIENT LIST), unless force is given.",
			"The directory must be the one the instance says it runs in, lie below within, and not be a link that leads elsewhere.",
			"A directory whose instance does not answer is only removed where no process of its pid file lives.",
		},
		Valid: func(in removeIn, unknown func(string) bool) []steps.Problem {
			if unknown("dir") || unknown("within") || below(in.Dir, in.Within) {
				return nil
			}
			return []steps.Problem{{Input: "dir", Message: fmt.Sprintf("%s is not an absolute path below %s", in.Dir, in.Within)}}
		},
		Check: checkRemove,
		Plan: func(ctx context.Context, v *steps.View, in removeIn) (steps.Change, error) {
			stop := steps.Line{Target: own(v), Command: "SHUTDOWN NOSAVE"}
			if v != nil {
				c, err := view(ctx, *v, "")
				if err != nil {
					return steps.Change{}, err
				}
				i, err := c.Info(ctx)
				switch {
				case err == nil:
					stop.From, stop.To, stop.Keys = describe(i), "gone", i.atStake()
				case nobodyThere(err):
					stop.From, stop.To = "stopped", "gone"
				default:
					return steps.Change{}, err
				}
			}
			return steps.Change{Lines: []steps.Line{stop, {Target: string(in.Host), Command: "rm -r " + quote(path.Clean(in.Dir))}}}, nil
		},
		Probe:  probeRemove,
		Apply:  applyRemove,
		NoUndo: "the data is gone",
	}
}

// below tells whether dir is an absolute path strictly below within.
func below(dir, within string) bool {
	if !path.IsAbs(dir) || !path.IsAbs(within) {
		return false
	}
	dir, within = path.Clean(dir), path.Clean(within)
	return dir != within && strings.HasPrefix(dir, strings.TrimSuffix(within, "/")+"/")
}

func checkRemove(ctx context.Context, v steps.View, in removeIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	m, err := machineView(ctx, v, in.Host)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("remove the instance at %s with %s", c.Addr(), in.Dir)
	if !below(in.Dir, in.Within) {
		return steps.Precondition("%s: the directory does not lie below %s", what, in.Within)
	}
	if err := realBelow(ctx, m, in, what); err != nil {
		return err
	}
	switch who, err := c.knock(ctx); who {
	case nobody:
		if p, live := livePID(ctx, m, path.Join(in.Dir, pidFile)); live {
			return steps.Precondition("%s: it does not answer, but process %d (%s) lives", what, p.PID, strings.Join(p.Argv, " "))
		}
		return nil
	case cannotSay:
		return err
	case noLogin:
		_, err := c.Do(ctx, "PING")
		return err
	}
	ours, err := c.runsIn(ctx, m, in.Dir)
	if err != nil {
		return err
	}
	if !ours {
		return steps.Precondition("%s: the instance does not run in that directory", what)
	}
	if in.Force {
		return nil
	}
	return unused(ctx, c, what)
}

func realBelow(ctx context.Context, m host.Machine, in removeIn, what string) error {
	real, err := m.RealPath(ctx, in.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	bound, err := m.RealPath(ctx, in.Within)
	if err != nil {
		return err
	}
	if !below(real, bound) {
		return steps.Precondition("%s: the directory is a link to %s, which does not lie below %s", what, real, bound)
	}
	return nil
}

// unused refuses an instance that somebody still works with.
func unused(ctx context.Context, c *Client, what string) error {
	i, err := c.Info(ctx, "replication")
	if err != nil {
		return err
	}
	const hint = "move them away first; force: true removes it all the same"
	if i.Connected > 0 {
		return steps.Precondition("%s: %d replicas follow it", what, i.Connected).WithHint(hint)
	}
	r, err := c.Do(ctx, "CLIENT", "LIST")
	if err != nil {
		return err
	}
	text, err := r.Text()
	if err != nil {
		return err
	}
	var users []string
	for line := range strings.Lines(text) {
		if f := clientFields(line); usesData(f) {
			users = append(users, f["addr"]+" ("+f["cmd"]+")")
		}
	}
	if len(users) == 0 {
		return nil
	}
	shown := users
	if len(shown) > 5 {
		shown = append(shown[:5:5], fmt.Sprintf("%d more", len(users)-5))
	}
	return steps.Precondition("%s: clients use it: %s", what, strings.Join(shown, ", ")).WithHint(hint)
}

func clientFields(line string) map[string]string {
	f := map[string]string{}
	for _, word := range strings.Fields(line) {
		k, v, _ := strings.Cut(word, "=")
		f[k] = v
	}
	return f
}

// usesData: a client whose last command was about data, not about the server or the
// connection, as those of monitoring, Sentinel and this runner are.
func usesData(f map[string]string) bool {
	if strings.ContainsAny(f["flags"], "SM") && f["flags"] != "" { // replica, master
		return false
	}
	name, _, _ := strings.Cut(strings.ToLower(f["cmd"]), "|")
	switch name {
	case "", "null", "info", "ping", "client", "config", "role", "auth", "hello", "select", "command", "dbsize", "monitor",
		"publish", "subscribe", "psubscribe", "slowlog", "latency", "memory", "cluster", "time", "lastsave", "echo", "readonly",
		"slaveof", "replicaof", "debug", "acl", "module", "quit", "reset":
		return false
	}
	return true
}

func probeRemove(ctx context.Context, v steps.View, in removeIn) (steps.State, removeOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, removeOut{}, err
	}
	m, err := machineView(ctx, v, in.Host)
	if err != nil {
		return steps.Unclear, removeOut{}, err
	}
	switch who, err := c.knock(ctx); {
	case who == cannotSay:
		return steps.Unclear, removeOut{}, err
	case who != nobody:
		return steps.Untouched, removeOut{}, nil
	}
	switch _, err := m.Stat(ctx, in.Dir); {
	case errors.Is(err, fs.ErrNotExist):
		return steps.Done, removeOut{Addr: c.Addr(), Dir: path.Clean(in.Dir), Removed: true}, nil
	case err != nil:
		return steps.Unclear, removeOut{}, err
	}
	return steps.Partial, removeOut{}, nil
}

func applyRemove(ctx context.Context, s steps.Session, in removeIn) (removeOut, error) {
	if err := checkRemove(ctx, s.View, in); err != nil { // the last look before what cannot be undone
		return removeOut{}, err
	}
	c, err := session(ctx, s)
	if err != nil {
		return removeOut{}, err
	}
	m, err := machineSession(ctx, s, in.Host)
	if err != nil {
		return removeOut{}, err
	}
	who, err := c.knock(ctx)
	if who == cannotSay {
		return removeOut{}, err
	}
	if who != nobody {
		i, err := c.Info(ctx, "server")
		if err != nil {
			return removeOut{}, err
		}
		if err := c.down(ctx, s.View, false, i.RunID); err != nil {
			return removeOut{}, err
		}
	}
	if err := m.Remove(ctx, path.Clean(in.Dir)); err != nil {
		return removeOut{}, err
	}
	return removeOut{Addr: c.Addr(), Dir: path.Clean(in.Dir), Removed: true}, nil
}
