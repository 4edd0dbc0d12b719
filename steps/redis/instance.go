package redis

import (
	"context"
	"errors"
	"fmt"
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

// instanceAddr is where an instance answers: its target's address, or the host's with the port.
func instanceAddr(v steps.View, hostName schema.TargetName, port int) (string, error) {
	t, err := v.Target("")
	switch {
	case err == nil && t.Kind == KindName:
		_, p, err := net.SplitHostPort(t.Addr())
		if err != nil {
			return "", steps.Errorf("address", "target %s: %w", t.Name, err)
		}
		if port != 0 && p != strconv.Itoa(port) {
			return "", steps.Precondition("port %d is not the port of target %s (%s)", port, t.Name, t.Addr())
		}
		return t.Addr(), nil
	case err != nil && !errors.Is(err, steps.ErrNoTarget):
		return "", err
	}
	if port == 0 {
		return "", steps.Precondition("without a redis target, port must be given")
	}
	ip := "127.0.0.1"
	if hostName != "" {
		h, err := v.Target(string(hostName))
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
	return net.JoinHostPort(strings.Trim(ip, "[]"), strconv.Itoa(port)), nil
}

func portOf(addr string) int {
	_, p, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(p)
	return n
}

// answers is what an address answers with.
type answers int

const (
	nobody    answers = iota // the connection is refused
	loading                  // an instance that still loads its data
	ready                    // an instance
	noLogin                  // something that asks for another password
	cannotSay                // no answer
)

// knock tells who answers, without an error for what a caller wants to know.
func (c *Client) knock(ctx context.Context) (answers, error) {
	_, err := c.Do(ctx, "PING")
	if err == nil {
		return ready, nil
	}
	if ctx.Err() != nil {
		return cannotSay, err
	}
	e := steps.Classify(err)
	switch {
	case nobodyThere(err):
		return nobody, nil
	case e.Kind == "loading":
		return loading, nil
	case e.Kind == "auth":
		return noLogin, nil
	}
	if _, ok := Answered(err); ok {
		return ready, nil // MASTERDOWN, BUSY: it lives
	}
	return cannotSay, err
}

// runsIn tells whether the instance that answers has this working directory.
func (c *Client) runsIn(ctx context.Context, m host.Machine, dir string) (bool, error) {
	got, known, err := c.setting(ctx, "dir")
	if err != nil {
		return false, err
	}
	if known && path.Clean(got) == path.Clean(dir) {
		return true, nil
	}
	real, err := m.RealPath(ctx, dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	return known && path.Clean(got) == path.Clean(real), nil
}

// down stops the instance and waits until nobody answers any more. runID is the one meant: another that has
// come up in its place is not touched again.
func (c *Client) down(ctx context.Context, v steps.View, save bool, runID string) error {
	mode := "NOSAVE"
	if save {
		mode = "SAVE"
	}
	req := request{addr: c.Addr(), args: []string{"SHUTDOWN", mode}}
	_, err := c.DoWithin(ctx, 0, req.args...) // saving takes the time it takes
	if err != nil {
		e := steps.Classify(err)
		if _, answered := Answered(err); answered || ctx.Err() != nil || e.Kind != "closed" && !nobodyThere(err) {
			return err
		}
	}
	sent := err
	if sent == nil {
		sent = errors.New("SHUTDOWN was answered")
	}
	for start := v.Now(); ; {
		who, _ := c.knock(ctx)
		switch {
		case who == nobody:
			return nil
		case ctx.Err() != nil:
			return ended(ctx, req, true)
		case who == ready:
			i, err := c.Info(ctx, "server")
			if err == nil && i.RunID != runID && runID != "" {
				return steps.Errorf("conflict", "stop %s: it went down, and another process answers there now (run id %s)", c.Addr(), i.RunID).
					WithHint("a service manager starts it again: stop it there")
			}
			if v.Now().Sub(start) > aliveLimit { // the connection was cut, and not by the server's end
				return &steps.Error{Kind: "closed", Temporary: true, Unknown: true, Err: fmt.Errorf("stop %s: it goes on answering: %w", c.Addr(), sent)}
			}
		}
		if v.Now().Sub(start) > stopLimit {
			return &steps.Error{Kind: "timeout", Unknown: true, Err: fmt.Errorf("stop %s: nobody answers %s after SHUTDOWN, and the connection is not refused: %w", c.Addr(), stopLimit, sent)}
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return ended(ctx, req, true)
		}
	}
}

const (
	pollEvery = 50 * time.Millisecond
	// aliveLimit is how long a server that was told to stop may answer as if it was not.
	aliveLimit = time.Second
	// stopLimit is more than a server's own shutdown-timeout, in which it waits for its replicas.
	stopLimit = 30 * time.Second
)
