// Package twemproxy is what a runbook does to nutcracker (twemproxy), the proxy that sends each key to one server of a
// list: read and rewrite its configuration, restart it, read its statistics.
//
// Start at [Target], the target kind, and at config.go: what a configuration means, and which server answers for which
// slot. The proxy itself has nothing to be asked for but its statistics: all else goes through the machine that it runs
// on (steps/host). The kinds follow, one a file; [Kinds] lists them. The facts of nutcracker that they rely on are held
// by a test to the real one (internal/simulate/twemproxy).
package twemproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

// KindName is the target kind that this package opens.
const KindName = "twemproxy"

// Config declares a nutcracker.
type Config struct {
	Addr      schema.Addr       `yaml:"addr,required" doc:"Address that clients of the pool connect to, host:port, as its host reaches it."`
	StatsAddr schema.Addr       `yaml:"stats_addr" doc:"Address of its statistics (-a and -s), as its host reaches it." default:"127.0.0.1:22222"`
	Config    string            `yaml:"config" doc:"Absolute path of its configuration file (-c)." default:"/etc/nutcracker/nutcracker.yml"`
	Pidfile   string            `yaml:"pidfile" doc:"Absolute path of its pid file (-p)." default:"/run/nutcracker/nutcracker.pid"`
	Host      schema.TargetName `yaml:"host" doc:"Host target it runs on; the runner's own machine where none is given."`
}

// Target is the target kind twemproxy.
func Target() *steps.TargetKind[Config, *Client] {
	return &steps.TargetKind[Config, *Client]{
		Name: KindName,
		Doc: "A nutcracker (twemproxy) 0.5.0 and its configuration file. Nothing is opened: its file and its process are reached through its host, " +
			"its statistics and its clients' address from there.",
		Example: `{kind: twemproxy, addr: "10.0.0.5:22121", config: /etc/nutcracker/nutcracker.yml, pidfile: /run/nutcracker/nutcracker.pid, host: web1}`,
		Valid:   validConfig,
		Addr:    func(c Config) string { return string(c.Addr) },
		Open: func(_ context.Context, c Config, _ steps.Access) (*Client, error) {
			return Open(c), nil
		},
	}
}

func validConfig(c Config, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	for _, a := range []struct {
		input string
		addr  schema.Addr
	}{{"addr", c.Addr}, {"stats_addr", c.StatsAddr}} {
		if a.addr == "" && a.input != "addr" || unknown(a.input) {
			continue
		}
		if _, port, err := net.SplitHostPort(string(a.addr)); err != nil {
			p = append(p, steps.Problem{Input: a.input, Message: fmt.Sprintf("%q is not host:port", string(a.addr))})
		} else if !isPort(port) {
			p = append(p, steps.Problem{Input: a.input, Message: fmt.Sprintf("%q is not a port (1 to 65535)", port)})
		}
	}
	for _, f := range []struct{ input, path string }{{"config", c.Config}, {"pidfile", c.Pidfile}} {
		if f.path != "" && !path.IsAbs(f.path) && !unknown(f.input) {
			p = append(p, steps.Problem{Input: f.input, Message: fmt.Sprintf("%q is not an absolute path", f.path)})
		}
	}
	return p
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// Client is a nutcracker as it was declared.
type Client struct{ cfg Config }

// Open makes a client. Nothing is connected to.
func Open(cfg Config) *Client {
	for _, d := range []struct {
		field    *string
		fallback string
	}{
		{(*string)(&cfg.StatsAddr), "127.0.0.1:22222"},
		{&cfg.Config, "/etc/nutcracker/nutcracker.yml"},
		{&cfg.Pidfile, "/run/nutcracker/nutcracker.pid"},
	} {
		if *d.field == "" {
			*d.field = d.fallback
		}
	}
	return &Client{cfg}
}

// Addr is the address that clients connect to.
func (c *Client) Addr() string { return string(c.cfg.Addr) }

// proxy is a nutcracker on its machine.
type proxy struct {
	cfg Config
	m   host.Machine
}

// look gives the step's own proxy on a machine that refuses to change anything.
func look(ctx context.Context, v steps.View) (proxy, error) {
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return proxy{}, err
	}
	var m host.Machine
	if c.cfg.Host == "" {
		m, err = host.Target().ViewOf(ctx, v, host.LocalTarget())
	} else {
		m, err = host.Of(ctx, v, string(c.cfg.Host))
	}
	return proxy{c.cfg, m}, err
}

// act gives the step's own proxy on a machine that may be changed.
func act(ctx context.Context, s steps.Session) (proxy, error) {
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return proxy{}, err
	}
	var m host.Machine
	if c.cfg.Host == "" {
		m, err = host.Target().SessionOf(ctx, s, host.LocalTarget())
	} else {
		m, err = host.ForSession(ctx, s, string(c.cfg.Host))
	}
	return proxy{c.cfg, m}, err
}

// configLimit is far above a pool of 1024 servers.
const configLimit = 4 << 20

// file reads the configuration.
func (p proxy) file(ctx context.Context) (file, error) {
	text, err := p.m.ReadFile(ctx, p.cfg.Config, configLimit)
	if err != nil {
		return file{}, err
	}
	return parse(p.cfg.Config, text)
}

// process finds the process that the pid file names, if it is a nutcracker.
func (p proxy) process(ctx context.Context) (host.Process, bool, error) {
	b, err := p.m.ReadFile(ctx, p.cfg.Pidfile, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return host.Process{}, false, nil
	}
	if err != nil {
		return host.Process{}, false, err
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if pid <= 0 { // the file is there before the number is in it
		return host.Process{}, false, nil
	}
	now, err := p.m.Process(ctx, pid)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isNutcracker(now.Argv) {
		return host.Process{}, false, nil
	}
	return now, err == nil, err
}

func isNutcracker(argv []string) bool {
	return len(argv) > 0 && strings.Contains(path.Base(argv[0]), "nutcracker")
}

// serves tells whether the proxy answers its clients: PING is answered by nutcracker itself, or refused for want of a password.
func (p proxy) serves(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := p.m.Dial(ctx, string(p.cfg.Addr))
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
		return false, fmt.Errorf("ping %s: %w", p.cfg.Addr, err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return false, fmt.Errorf("ping %s: %w", p.cfg.Addr, err)
	}
	return line[0] == '+' || line[0] == '-', nil
}

// statistics reads what the proxy tells whoever connects: one JSON object.
func (p proxy) statistics(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statsTimeout, fmt.Errorf("no answer within %s", statsTimeout))
	defer cancel()
	c, err := p.m.Dial(ctx, string(p.cfg.StatsAddr))
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	b, err := io.ReadAll(io.LimitReader(c, configLimit))
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("statistics of %s: %w", p.cfg.StatsAddr, context.Cause(ctx))
	case err != nil:
		return nil, steps.Temporarily("closed", fmt.Errorf("statistics of %s: %w", p.cfg.StatsAddr, err))
	}
	return b, nil
}

const statsTimeout = 10 * time.Second
