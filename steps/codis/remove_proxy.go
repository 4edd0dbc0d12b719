package codis

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type removeProxyIn struct {
	AdminAddr schema.Addr `yaml:"admin_addr,required" doc:"Admin address of the proxy, as it is registered."`
	Force     bool        `yaml:"force" doc:"Its process is gone: take it out of the list without asking it. Refused while anything answers there, or hangs." default:"false"`
}

type removeProxyOut struct {
	AdminAddr  string `yaml:"admin_addr" doc:"Admin address of the proxy."`
	Registered bool   `yaml:"registered" doc:"The dashboard has it in its list: false."`
	Running    bool   `yaml:"running" doc:"A process listens at the address: false."`
}

func removeProxy() *steps.Kind[removeProxyIn, removeProxyOut] {
	return &steps.Kind[removeProxyIn, removeProxyOut]{
		Name:       "codis.remove-proxy",
		Doc:        "Takes a proxy out of the dashboard's list, which shuts its process down and cuts its clients' connections. Sends PUT proxy/remove, and waits until nobody listens at its admin address.",
		Effect:     steps.Destroy,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: retire, uses: codis.remove-proxy, target: codis1, with: {admin_addr: "10.0.0.8:11080"}}`,
		Pitfalls: []string{
			"The process ends: clients that find proxies by ZooKeeper go to the others, clients with a fixed address have nobody.",
			"The last proxy that serves is refused.",
			"A dead proxy that stays in the list makes every change of the mapping fail; it takes force, and nobody may listen there any more: a proxy that is taken out while it lives goes on serving the mapping it knows.",
			"A proxy that does not answer is not dead: stop its process, then force.",
		},
		Check: checkRemoveProxy,
		Plan: func(ctx context.Context, v *steps.View, in removeProxyIn) (steps.Change, error) {
			token := "<token of " + string(in.AdminAddr) + ">"
			if v != nil {
				_, stats, err := look(ctx, *v)
				if err != nil {
					return steps.Change{}, err
				}
				if m, there := stats.registered(string(in.AdminAddr)); there {
					token = m.Token
				}
			}
			return steps.Change{Lines: []steps.Line{line(v, "proxy/remove", token, in.force())}}, nil
		},
		Probe: func(ctx context.Context, v steps.View, in removeProxyIn) (steps.State, removeProxyOut, error) {
			c, stats, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, removeProxyOut{}, err
			}
			if _, there := stats.registered(string(in.AdminAddr)); there {
				return steps.Untouched, removeProxyOut{}, nil
			}
			running, err := c.listens(ctx, string(in.AdminAddr))
			switch {
			case err != nil:
				return steps.Unclear, removeProxyOut{}, err
			case running:
				return steps.Partial, removeProxyOut{}, nil
			}
			return steps.Done, removeProxyOut{AdminAddr: string(in.AdminAddr)}, nil
		},
		Apply:  applyRemoveProxy,
		NoUndo: "its process has ended: start it again where it ran, and add it with codis.add-proxy",
	}
}

func (in removeProxyIn) force() string {
	if in.Force {
		return "1"
	}
	return "0"
}

func checkRemoveProxy(ctx context.Context, v steps.View, in removeProxyIn) error {
	c, stats, err := look(ctx, v)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("remove proxy %s", in.AdminAddr)
	if _, there := stats.registered(string(in.AdminAddr)); !there {
		return nil
	}
	others := 0
	for _, p := range stats.Proxy.Models {
		if p.AdminAddr == string(in.AdminAddr) {
			continue
		}
		if says, err := c.Proxy(p).Stats(ctx); err == nil && says.Online && !says.Closed {
			others++
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if others == 0 {
		return steps.Precondition("%s: no other proxy serves, and clients would have nobody", what).
			WithHint("codis.add-proxy adds one")
	}
	running, err := c.listens(ctx, string(in.AdminAddr))
	switch {
	case err != nil:
		return err
	case in.Force && running:
		return steps.Precondition("%s: something listens there, and with force it would be taken out and might go on serving", what).
			WithHint("leave out force; where it hangs, stop its process first")
	case !in.Force && !running:
		return steps.Precondition("%s: nobody listens there, so it cannot be shut down", what).
			WithHint("with force: true it is taken out of the list without being asked")
	}
	return nil
}

// listens tells whether a process takes connections at an address. No answer at all is not known to be none.
func (c *Client) listens(ctx context.Context, addr string) (bool, error) {
	limited, cancel := context.WithTimeoutCause(ctx, dialTime, noAnswer{dialTime})
	defer cancel()
	conn, err := c.x.dial(limited, "tcp", addr)
	switch {
	case err == nil:
		_ = conn.Close()
		return true, nil
	case ctx.Err() != nil:
		return false, fmt.Errorf("connect to %s: %w", addr, context.Cause(ctx))
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, nil
	}
	return false, steps.Temporarily("refused", fmt.Errorf("connect to %s: %w", addr, plain(err))).
		WithHint("whether the proxy lives is not known: its machine may be down, or the way there shut")
}

const (
	dialTime    = 5 * time.Second
	endingTime  = 10 * time.Second // an ending proxy is gone within a second
	endingCheck = 100 * time.Millisecond
)

func applyRemoveProxy(ctx context.Context, s steps.Session, in removeProxyIn) (removeProxyOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return removeProxyOut{}, err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return removeProxyOut{}, err
	}
	addr := string(in.AdminAddr)
	if m, there := stats.registered(addr); there {
		if err := c.Put(ctx, "proxy/remove", m.Token, in.force()); err != nil {
			return removeProxyOut{}, err
		}
	}
	for until := s.Now().Add(endingTime); ; {
		running, err := c.listens(ctx, addr)
		switch {
		case err != nil:
			return removeProxyOut{}, afterwards(err)
		case !running:
			return removeProxyOut{AdminAddr: addr}, nil
		case !s.Now().Before(until):
			return removeProxyOut{}, afterwards(steps.Errorf("conflict", "remove proxy %s: it is out of the list, and its process still listens", addr).
				WithHint("it goes on serving the mapping it knows: stop it by hand"))
		}
		if err := s.Sleep(ctx, endingCheck); err != nil {
			return removeProxyOut{}, afterwards(err)
		}
	}
}
