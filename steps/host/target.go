package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"runbook/steps"
)

// KindName is the target kind that this package opens.
const KindName = "host"

// Config declares a computer.
type Config struct {
	Addr       string `yaml:"addr" doc:"Address of its SSH server, as host or host:port; port 22 where none is given."`
	User       string `yaml:"user" doc:"Login name; the runner's own user where none is given."`
	Identity   string `yaml:"identity" doc:"Private key file, without a pass phrase; keys with one come from the SSH agent (SSH_AUTH_SOCK), which is asked first."`
	KnownHosts string `yaml:"known_hosts" doc:"File with the keys of known hosts; the host key is always checked." default:"~/.ssh/known_hosts"`
	Local      bool   `yaml:"local" doc:"This computer: no SSH."`
}

// Target is the target kind host: a computer, here or over SSH.
func Target() *steps.TargetKind[Config, Machine] {
	return &steps.TargetKind[Config, Machine]{
		Name: KindName,
		Doc: "A computer: commands, files, processes and ports, on the machine of the runner (local: true) or over SSH. " +
			"The host key is always checked against known_hosts.",
		Example: `{kind: host, addr: "10.0.0.7:22", user: deploy, identity: ~/.ssh/id_ed25519}`,
		Valid:   validConfig,
		Addr: func(c Config) string {
			if c.Local {
				return "local"
			}
			return c.user() + "@" + c.sshAddr()
		},
		Open: open,
		Close: func(m Machine) error {
			if c, ok := m.(io.Closer); ok {
				return c.Close()
			}
			return nil
		},
	}
}

func validConfig(c Config, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	switch {
	case c.Local && c.Addr != "":
		p = append(p, steps.Problem{Input: "addr", Message: "a local host has no addr", Suggestion: "leave out addr, or local"})
	case !c.Local && c.Addr == "" && !unknown("local"):
		p = append(p, steps.Problem{Input: "addr", Message: "a host needs addr, or local: true"})
	}
	if c.Local {
		for name, v := range map[string]string{"user": c.User, "identity": c.Identity, "known_hosts": c.KnownHosts} {
			if v != "" && !(name == "known_hosts" && v == defaultKnownHosts) {
				p = append(p, steps.Problem{Input: name, Message: name + " is of SSH and means nothing for a local host"})
			}
		}
	}
	if strings.Contains(c.Addr, "@") {
		p = append(p, steps.Problem{Input: "addr", Message: "the user does not belong into addr", Suggestion: "user: " + strings.SplitN(c.Addr, "@", 2)[0]})
	}
	return p
}

func open(ctx context.Context, c Config, a steps.Access) (Machine, error) {
	var m Machine
	if c.Local {
		m = Local()
	} else {
		s, err := DialSSH(ctx, c)
		if err != nil {
			return nil, err
		}
		m = s
	}
	if a == steps.ReadOnly {
		return ReadOnly(m), nil
	}
	return m, nil
}

// Of gives a machine that refuses to change anything: the host target of this name. The
// empty name is the step's own target where that is a host, and the runner's machine
// where the step has none. A step on another kind of target must name its host.
func Of(ctx context.Context, v steps.View, name string) (Machine, error) {
	t, err := find(v, name)
	if err != nil {
		return nil, err
	}
	return Target().ViewOf(ctx, v, t)
}

// ForSession is Of for a machine that may be changed.
func ForSession(ctx context.Context, s steps.Session, name string) (Machine, error) {
	t, err := find(s.View, name)
	if err != nil {
		return nil, err
	}
	return Target().SessionOf(ctx, s, t)
}

// LocalTarget is the target that stands for the runner's own machine. It goes through
// the engine like any other, so that a simulated world can put its own machine there.
func LocalTarget() steps.Target {
	return steps.Target{Name: "localhost", Kind: KindName, Config: map[string]any{"local": true}}
}

func find(v steps.View, name string) (steps.Target, error) {
	t, err := v.Target(name)
	switch {
	case name == "" && errors.Is(err, steps.ErrNoTarget):
		return LocalTarget(), nil
	case err != nil:
		return t, err
	case t.Kind != KindName:
		return t, fmt.Errorf("target %s is of kind %s, not a host", t.Name, t.Kind)
	}
	return t, nil
}

// IsLocal tells whether Of gives the runner's own machine, where the runner's directories mean something.
func IsLocal(v steps.View, name string) bool {
	t, err := find(v, name)
	local, _ := t.Config["local"].(bool)
	return err == nil && local
}

// lineTarget is how a plan names the machine; empty for the runner's own, and offline.
func lineTarget(v *steps.View) string {
	if v == nil {
		return ""
	}
	if t, err := v.Target(""); err == nil {
		return t.Name
	}
	return ""
}

const defaultKnownHosts = "~/.ssh/known_hosts"

func (c Config) user() string {
	if c.User != "" {
		return c.User
	}
	for _, name := range []string{"USER", "LOGNAME"} {
		if u := os.Getenv(name); u != "" {
			return u
		}
	}
	return "root"
}

func (c Config) sshAddr() string {
	if _, _, err := net.SplitHostPort(c.Addr); err == nil {
		return c.Addr
	}
	return net.JoinHostPort(strings.Trim(c.Addr, "[]"), "22")
}

// expand resolves a leading ~ as the home of the runner's user.
func expand(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("expand %s: %w", path, err)
	}
	return filepath.Join(home, path[1:]), nil
}
