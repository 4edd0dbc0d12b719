package pika

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

// master is the instance that is to be followed.
type master struct {
	addr   string // IP:port, as the follower is told
	name   schema.TargetName
	c      *Client // of its target, or of the follower's password where it is only an address
	beside bool    // the client is this step's own: it closes it
}

func (m master) close() {
	if m.beside {
		_ = m.c.Close()
	}
}

// findMaster resolves a target's name or IP:port for a follower. A host name is refused: the master writes its own IP into
// a full sync, and a follower that was told another word for it ends in kError. So is a loopback address
// for a follower on another machine, where it means another machine.
func findMaster(ctx context.Context, v steps.View, follower *Client, e schema.Endpoint) (master, error) {
	m := master{addr: string(e)}
	if t, err := v.Target(string(e)); err == nil {
		if t.Kind != KindName {
			return m, steps.Precondition("master %s is of kind %s, not pika", t.Name, t.Kind)
		}
		m.addr, m.name = t.Addr(), schema.TargetName(t.Name)
	} else if !strings.Contains(string(e), ":") {
		return m, err
	}
	addr, err := netip.ParseAddrPort(m.addr)
	if err != nil {
		return m, steps.Precondition("make %s follow %s: an IP address and a port are wanted", follower.Addr(), m.addr).
			WithHint("a full sync fails where the master is not named by the IP that it has itself (network-interface)")
	}
	m.addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
	if m.addr == follower.Addr() {
		return m, steps.Precondition("make %s follow %s: that is itself", follower.Addr(), m.addr)
	}
	if addr.Addr().IsLoopback() && !isLoopback(follower.Addr()) {
		return m, steps.Precondition("make %s follow %s: a loopback address means another machine there", follower.Addr(), m.addr).
			WithHint("give the master's address as the follower reaches it")
	}
	if m.name == "" {
		m.c, m.beside = follower.Beside(m.addr), true
		return m, nil
	}
	m.c, err = view(ctx, v, m.name)
	return m, err
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// checkSecrets tells what would keep a full sync waiting for ever: the master's rsync asks for its requirepass, and the follower
// answers with its masterauth. Nothing but a line in the master's log says that they differ.
func checkSecrets(ctx context.Context, follower, master *Client) error {
	asks, known, err := master.setting(ctx, "requirepass")
	if err != nil || !known {
		return unlessAnswered(err)
	}
	sends, known, err := follower.setting(ctx, "masterauth")
	if err != nil || !known {
		return unlessAnswered(err)
	}
	if asks != sends {
		return steps.Precondition("make %s follow %s: its masterauth is not the master's requirepass, so a full sync would never end", follower.Addr(), master.Addr()).
			WithHint("set masterauth in the follower's pika.conf, and restart it, or requirepass on the master: both empty or both the same")
	}
	return nil
}

// unlessAnswered drops an error that the server answered: CONFIG may be forbidden, and then nothing can be told.
func unlessAnswered(err error) error {
	if isAnswered(err) {
		return nil
	}
	return err
}
