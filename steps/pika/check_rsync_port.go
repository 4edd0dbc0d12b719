package pika

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

type checkRsyncIn struct {
	Host schema.TargetName `yaml:"host" doc:"Host target that the instance runs on, or is to run on: its list of listeners says who holds a port, and rsync is looked for there. Without it the ports are tried from the runner."`
}

type checkRsyncOut struct {
	RsyncPort      int        `yaml:"rsync_port" doc:"Port of the rsync daemon that takes full syncs: port + 3000 up to release 3.0, port + 1000 from 3.1 on."`
	RsyncFree      *bool      `yaml:"rsync_free" doc:"The rsync port is free, or held by this instance's own daemon; null where nothing answered."`
	RsyncInstalled *bool      `yaml:"rsync_installed" doc:"rsync is there: found in the host's PATH, or its daemon answers on the rsync port; null where neither could be seen."`
	BinlogPort     int        `yaml:"binlog_port" doc:"Port that the binlog comes in on: port + 1000 up to release 3.0, port + 2000 (all of replication) from 3.1 on."`
	HeartbeatPort  *int       `yaml:"heartbeat_port" doc:"Port of the heartbeat, port + 2000 up to release 3.0; null later, where there is none."`
	Free           *bool      `yaml:"free" doc:"All of these ports are free, or this instance's own; null where one could not be seen."`
	Busy           []busyPort `yaml:"busy" doc:"The ports that others hold."`
}

type busyPort struct {
	Port    int    `yaml:"port" doc:"Its number."`
	Purpose string `yaml:"purpose" doc:"What the instance needs it for: binlog, heartbeat, hub, rsync or rsync2."`
	Process string `yaml:"process" doc:"Command line of the process that holds it; empty without host, or where it is not visible."`
}

func checkRsyncPort() *steps.Kind[checkRsyncIn, checkRsyncOut] {
	return &steps.Kind[checkRsyncIn, checkRsyncOut]{
		Name: "pika.check-rsync-port",
		Doc: "Tells whether an instance can take a full sync: the ports beside its own by its release, who holds them, and whether rsync is there. " +
			"Sends INFO and CONFIG GET db-sync-path; with host it reads the machine's list of listeners and looks for rsync in PATH, without it connects to the ports and closes them again.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: rsync, uses: pika.check-rsync-port, target: pika5, with: {host: machine5}, expect: rsync_installed && rsync_free}`,
		Pitfalls: []string{
			"rsync is needed on both machines: the replica runs its daemon, the master its client. Check both instances.",
			"Releases from 3.1 on do not start without rsync and a free port + 1000; 2.3 starts, and its replica stays in repl_state 4 for ever.",
			"A server that was stopped leaves its rsync daemon running, and the next start of the same instance adopts it, old password included.",
			"An instance that is not up is judged by release in its target's declaration.",
			"A port that is open on its machine may be shut on the way from another: host.check-port with from tells.",
		},
		Read: readCheckRsync,
	}
}

func readCheckRsync(ctx context.Context, v steps.View, in checkRsyncIn) (checkRsyncOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return checkRsyncOut{}, err
	}
	ip, portText, err := net.SplitHostPort(c.Addr())
	if err != nil {
		return checkRsyncOut{}, steps.Errorf("address", "%s: %w", c.Addr(), err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return checkRsyncOut{}, steps.Errorf("address", "%s: %w", c.Addr(), err)
	}
	me, up, err := c.whoIsUp(ctx)
	if err != nil {
		return checkRsyncOut{}, err
	}
	look := holders{c: c, own: me, up: up, ip: ip}
	if up {
		if look.syncDir, _, err = c.setting(ctx, "db-sync-path"); err != nil {
			return checkRsyncOut{}, err
		}
	}
	if in.Host != "" {
		if look.m, err = host.Of(ctx, v, string(in.Host)); err != nil {
			return checkRsyncOut{}, err
		}
	}
	p := portsOf(me.Release, port)
	out := checkRsyncOut{RsyncPort: p.rsync, BinlogPort: p.binlog, Busy: []busyPort{}}
	if p.heartbeat != 0 {
		out.HeartbeatPort = &p.heartbeat
	}
	all := yes
	for _, it := range p.all() {
		h, err := look.at(ctx, p, it)
		if err != nil {
			return checkRsyncOut{}, err
		}
		if it.what == "rsync" {
			out.RsyncFree = h.free.ptr()
			if h.rsyncd {
				out.RsyncInstalled = yes.ptr()
			}
		}
		if h.free == no {
			out.Busy = append(out.Busy, busyPort{Port: it.port, Purpose: it.what, Process: h.process})
		}
		all = min(all, h.free)
	}
	out.Free = all.ptr()
	if look.m != nil {
		out.RsyncInstalled, err = installed(ctx, look.m)
	}
	return out, err
}

// whoIsUp asks the instance who it is. One that is not up is what its target says.
func (c *Client) whoIsUp(ctx context.Context) (Info, bool, error) {
	i, err := c.Info(ctx)
	if err == nil {
		return i, true, nil
	}
	if ctx.Err() != nil || !isKind(err, "refused") || c.cfg.Release == "" {
		return i, false, err
	}
	i.Release, err = ParseRelease(c.cfg.Release)
	return i, false, err
}

func installed(ctx context.Context, m host.Machine) (*bool, error) {
	_, err := m.Look(ctx, "rsync")
	switch {
	case err == nil:
		return yes.ptr(), nil
	case errors.Is(err, fs.ErrNotExist):
		return no.ptr(), nil
	}
	return nil, err
}

// truth is what can be known of something: the order is that of what it means for a whole.
type truth int

const (
	no truth = iota
	unknown
	yes
)

func (t truth) ptr() *bool {
	if t == unknown {
		return nil
	}
	b := t == yes
	return &b
}

// holders finds out who holds ports of an instance.
type holders struct {
	c       *Client // of the instance
	own     Info
	up      bool
	syncDir string // db-sync-path: an rsync daemon that has it in its command line is the instance's
	ip      string
	m       host.Machine // nil: only the runner's own connections can tell
}

type holder struct {
	free    truth // nobody, or the instance itself
	rsyncd  bool  // an rsync daemon answers
	process string
}

func (h holders) at(ctx context.Context, p ports, it purpose) (holder, error) {
	isRsync := it.what == "rsync"
	if h.m != nil {
		l, err := h.m.Listening(ctx, it.port)
		if err != nil {
			return holder{}, err
		}
		if !l.Open {
			return holder{free: yes}, nil
		}
		mine := l.PID != 0 && int64(l.PID) == h.own.PID ||
			isRsync && (h.ownDaemon(p, isRsyncDaemon(l.Process) || l.Process == "") || path.IsAbs(h.syncDir) && isRsyncDaemon(l.Process) && strings.Contains(l.Process, h.syncDir))
		return holder{free: asTruth(mine), rsyncd: isRsyncDaemon(l.Process), process: l.Process}, nil
	}
	open, greeting, err := h.c.knock(ctx, net.JoinHostPort(h.ip, strconv.Itoa(it.port)), isRsync)
	switch {
	case err != nil:
		return holder{}, err
	case open == no:
		return holder{free: yes}, nil
	case open == unknown:
		return holder{free: unknown}, nil
	}
	rsyncd := strings.HasPrefix(greeting, "@RSYNCD")
	if isRsync {
		return holder{free: asTruth(h.ownDaemon(p, rsyncd)), rsyncd: rsyncd}, nil
	}
	return holder{free: asTruth(h.up)}, nil // it would not be up if another held the port
}

// ownDaemon tells whether a daemon on the rsync port is the instance's: from 3.1 on it does not come up while another holds
// the port, and before that it starts one while it waits for a full sync.
func (h holders) ownDaemon(p ports, daemon bool) bool {
	return daemon && h.up && (p.atStart || h.own.State == StateWaitDBSync)
}

func isRsyncDaemon(process string) bool {
	return strings.Contains(process, "rsync") && strings.Contains(process, "--daemon")
}

func asTruth(b bool) truth {
	if b {
		return yes
	}
	return no
}

// knock connects to a port, and reads the first words of what is there where an rsync daemon might be.
func (c *Client) knock(ctx context.Context, addr string, listen bool) (open truth, greeting string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, knockLimit, errNoAnswer)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", addr)
	switch {
	case errors.Is(context.Cause(ctx), errNoAnswer):
		return unknown, "", nil
	case ctx.Err() != nil:
		return unknown, "", fmt.Errorf("connect to %s: %w", addr, context.Cause(ctx))
	case errors.Is(err, syscall.ECONNREFUSED):
		return no, "", nil
	case err != nil:
		return unknown, "", nil
	}
	defer func() { _ = conn.Close() }()
	if !listen {
		return yes, "", nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	b := make([]byte, 64)
	n, _ := conn.Read(b)
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer) {
		return unknown, "", fmt.Errorf("connect to %s: %w", addr, context.Cause(ctx))
	}
	return yes, string(b[:n]), nil
}

// knockLimit is how long a port may keep silent: an rsync daemon greets first, and at once.
const knockLimit = 2 * time.Second

var errNoAnswer = errors.New("nothing answered")
