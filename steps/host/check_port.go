package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"runbook/schema"
	"runbook/steps"
)

type checkPortIn struct {
	Port    int               `yaml:"port,required" doc:"TCP port, 1 to 65535."`
	Expect  string            `yaml:"expect" enum:"free,open" doc:"What the port must be: free (nothing listens on any address) or open. Without it nothing fails and the outputs tell."`
	Address string            `yaml:"address" doc:"With from: address to connect to; the address of the host target, or 127.0.0.1 for the runner's machine."`
	From    schema.TargetName `yaml:"from" doc:"Another host: connect from there, to see what firewalls and bind addresses let through. Without it the host's own list of listeners is read."`
}

type checkPortOut struct {
	Free    bool   `yaml:"free" doc:"Nothing listens (with from: the connection was refused)."`
	Open    bool   `yaml:"open" doc:"Somebody listens (with from: the connection was accepted). Neither free nor open: nothing answered."`
	Process string `yaml:"process" doc:"Command line of the process that listens; empty where there is none or this user may not see it."`
}

func checkPort() *steps.Kind[checkPortIn, checkPortOut] {
	return &steps.Kind[checkPortIn, checkPortOut]{
		Name: "host.check-port",
		Doc: "Tells whether a TCP port is free or open. It reads the kernel's list of listeners (/proc/net/tcp and tcp6) " +
			"and, with from, connects from another host and closes at once without sending.",
		Effect: steps.Read, On: []string{KindName}, TargetOptional: true,
		Example: `{id: port_free, uses: host.check-port, with: {port: 9221, expect: free}}`,
		Pitfalls: []string{
			"A server that cannot bind starts, logs one line and exits; the port is checked before anything is started.",
			"A port that is open on the host may still be unreachable from another: ask with from.",
			"A silently dropped connection is neither free nor open.",
		},
		Valid: func(in checkPortIn, unknown func(string) bool) []steps.Problem {
			if !unknown("port") && (in.Port < 1 || in.Port > 65535) {
				return []steps.Problem{{Input: "port", Message: fmt.Sprintf("a port is 1 to 65535, got %d", in.Port)}}
			}
			if in.Address != "" && in.From == "" && !unknown("from") {
				return []steps.Problem{{Input: "address", Message: "address only means something with from"}}
			}
			return nil
		},
		Read: readPort,
	}
}

func readPort(ctx context.Context, v steps.View, in checkPortIn) (checkPortOut, error) {
	if in.From != "" {
		return dialPort(ctx, v, in)
	}
	m, err := Of(ctx, v, "")
	if err != nil {
		return checkPortOut{}, err
	}
	l, err := m.Listening(ctx, in.Port)
	if err != nil {
		return checkPortOut{}, err
	}
	out := checkPortOut{Free: !l.Open, Open: l.Open, Process: l.Process}
	switch {
	case in.Expect == "free" && l.Open:
		who := "a process that this user may not see"
		if l.PID != 0 {
			who = fmt.Sprintf("process %d (%s)", l.PID, l.Process)
		}
		return out, steps.Errorf("conflict", "port %d on %s is not free: %s listens on %v", in.Port, m, who, l.Addrs).
			WithHint("stop it, or choose another port")
	case in.Expect == "open" && !l.Open:
		return out, steps.Temporarily("refused", fmt.Errorf("port %d on %s is not open: nothing listens on it", in.Port, m))
	}
	return out, nil
}

func dialPort(ctx context.Context, v steps.View, in checkPortIn) (checkPortOut, error) {
	from, err := Of(ctx, v, string(in.From))
	if err != nil {
		return checkPortOut{}, err
	}
	address := in.Address
	if address == "" {
		if address, err = ownAddress(v); err != nil {
			return checkPortOut{}, err
		}
	}
	addr := net.JoinHostPort(address, strconv.Itoa(in.Port))
	c, err := from.Dial(ctx, addr)
	if err == nil {
		_ = c.Close()
		if in.Expect == "free" {
			return checkPortOut{Open: true}, steps.Errorf("conflict", "port %s is not free: it accepts a connection from %s", addr, from)
		}
		return checkPortOut{Open: true}, nil
	}
	var e *steps.Error
	if ctx.Err() != nil || !errors.As(err, &e) || !e.Temporary {
		return checkPortOut{}, err
	}
	out := checkPortOut{Free: e.Kind == "refused"}
	if in.Expect == "" || in.Expect == "free" && out.Free {
		return out, nil
	}
	return out, err
}

// ownAddress is where the step's host is reached.
func ownAddress(v steps.View) (string, error) {
	t, err := v.Target("")
	if errors.Is(err, steps.ErrNoTarget) {
		return "127.0.0.1", nil
	}
	if err != nil {
		return "", err
	}
	if local, _ := t.Config["local"].(bool); local {
		return "127.0.0.1", nil
	}
	addr := t.Addr()
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h, nil
	}
	return addr, nil
}
