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

// site is where an instance is to be: its address, its machine, and a client that looks.
type site struct {
	addr string
	port int
	m    host.Machine
	c    *Client
}

func (in createIn) site(ctx context.Context, v steps.View) (site, error) {
	var st site
	var err error
	if st.addr, err = in.addr(v); err != nil {
		return st, err
	}
	_, port, _ := net.SplitHostPort(st.addr)
	st.port, _ = strconv.Atoi(port)
	if st.m, err = machineView(ctx, v, in.Host); err != nil {
		return st, err
	}
	cfg, dial := Config{}, (&net.Dialer{}).DialContext
	if t, err := v.Target(""); err == nil && t.Kind == KindName {
		c, err := view(ctx, v, "")
		if err != nil {
			return st, err
		}
		cfg, dial = c.cfg, c.dial
	} else if pass, ok := in.Config["requirepass"].(string); ok {
		cfg.Password = schema.NewSecret(pass)
	}
	cfg.Addr = schema.Addr(st.addr)
	st.c = Open(cfg, steps.ReadOnly).Via(dial)
	return st, nil
}

// addr is where the instance answers: its target's address, or the host's with the port.
func (in createIn) addr(v steps.View) (string, error) {
	t, err := v.Target("")
	switch {
	case err == nil && t.Kind == KindName:
		_, p, err := net.SplitHostPort(t.Addr())
		if err != nil {
			return "", steps.Errorf("address", "target %s: %w", t.Name, err)
		}
		if in.Port != 0 && p != strconv.Itoa(in.Port) {
			return "", steps.Precondition("port %d is not the port of target %s (%s)", in.Port, t.Name, t.Addr())
		}
		return t.Addr(), nil
	case err != nil && !errors.Is(err, steps.ErrNoTarget):
		return "", err
	}
	if in.Port == 0 {
		return "", steps.Precondition("without a pika target, port must be given")
	}
	ip := "127.0.0.1"
	if in.Host != "" {
		h, err := v.Target(string(in.Host))
		if err != nil {
			return "", err
		}
		if a, ok := h.Config["addr"].(string); ok && a != "" {
			ip = a
			if name, _, err := net.SplitHostPort(a); err == nil {
				ip = name
			}
		}
	}
	return net.JoinHostPort(strings.Trim(ip, "[]"), strconv.Itoa(in.Port)), nil
}

// machineView finds the machine of an input host; the empty name is the runner's own.
func machineView(ctx context.Context, v steps.View, name schema.TargetName) (host.Machine, error) {
	if name == "" {
		return host.Target().ViewOf(ctx, v, host.LocalTarget())
	}
	return host.Of(ctx, v, string(name))
}

func machineSession(ctx context.Context, s steps.Session, name schema.TargetName) (host.Machine, error) {
	if name == "" {
		return host.Target().SessionOf(ctx, s, host.LocalTarget())
	}
	return host.ForSession(ctx, s, string(name))
}

func (st site) refused(in createIn, format string, a ...any) *steps.Error {
	return steps.Precondition("create an instance at %s in %s: %s", st.addr, in.Dir, fmt.Sprintf(format, a...))
}

// answerer is who answers at an address.
type answerer int

const (
	nobody    answerer = iota // the connection is refused
	ours                      // the instance of the directory
	another                   // an instance of another directory, or one that asks for another password
	cannotSay                 // no answer
)

// knock tells who answers; the error says why that is not the instance of this directory.
func (st site) knock(ctx context.Context, in createIn) (Info, answerer, error) {
	i, err := st.c.Info(ctx, "server")
	if err != nil {
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return i, nobody, err
		case ctx.Err() == nil && isKind(err, "auth"):
			return i, another, st.refused(in, "something answers there and asks for another password")
		}
		return i, cannotSay, err
	}
	data, _, err := st.c.setting(ctx, "db-path")
	if err != nil {
		return i, cannotSay, err
	}
	if !st.isDir(ctx, path.Clean(data), in.file("db")) {
		return i, another, st.refused(in, "another instance answers there, with its data in %s", data)
	}
	return i, ours, nil
}

// isDir tells whether two paths are one folder of the machine.
func (st site) isDir(ctx context.Context, a, b string) bool {
	if a == b {
		return true
	}
	real, err := st.m.RealPath(ctx, b)
	return err == nil && a == real
}

// running tells whether the instance wanted is up. Another one at its address is an error.
func (st site) running(ctx context.Context, in createIn) (bool, error) {
	_, who, err := st.knock(ctx, in)
	switch who {
	case nobody:
		return false, nil
	case ours:
		return true, nil
	}
	return false, err
}

// process finds the server that runs in the directory, up or on its way.
func (in createIn) process(ctx context.Context, m host.Machine) (host.Process, bool) {
	return livePID(ctx, m, in.file(pidFile), in.file(confFile))
}

// rsyncDaemon finds the rsync daemon of the directory, which outlives the server.
func (in createIn) rsyncDaemon(ctx context.Context, m host.Machine) (host.Process, bool) {
	return livePID(ctx, m, in.file("dbsync/rsync/slash_rsync.pid"), path.Clean(in.Dir)+"/")
}

// livePID finds the process that a pidfile names, if its command line still has the word that makes it the one meant.
func livePID(ctx context.Context, m host.Machine, file, word string) (host.Process, bool) {
	b, err := m.ReadFile(ctx, file, 64)
	if err != nil {
		return host.Process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return host.Process{}, false
	}
	p, err := m.Process(ctx, pid)
	return p, err == nil && strings.Contains(strings.Join(p.Argv, " "), word)
}

// stopLimit is how long a server may take to write what it holds in memory.
const stopLimit = time.Minute

// stopProcess sends SIGTERM and waits until the process has ended.
func stopProcess(ctx context.Context, v steps.View, m host.Machine, p host.Process) error {
	if err := m.Signal(ctx, p, "TERM", false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for start := v.Now(); ; {
		now, err := m.Process(ctx, p.PID)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && now.ID != p.ID:
			return nil
		case err != nil:
			return err
		case v.Now().Sub(start) > stopLimit:
			return &steps.Error{Kind: "timeout", Unknown: true, Err: fmt.Errorf("stop process %d on %s: it has not ended %s after SIGTERM", p.PID, m, stopLimit)}
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("stop process %d on %s: %w", p.PID, m, err)
		}
	}
}
