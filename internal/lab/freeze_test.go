package lab

import (
	"bytes"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestFrozen stops a process (SIGSTOP) at the very request that holds the clients, thaws it once the release is on its
// way, and resumes the switch.
func TestFrozen(t *testing.T) {
	need(t)
	p := newPair(t, 1, true)
	for _, c := range []struct {
		name string
		who  *process
	}{
		{"a proxy", p.codis.proxies[1].process},
		{"the destination", p.other.process},
		{"the source", p.source.process},
	} {
		p.frozen(c.name, c.who)
	}
	p.verdict("frozen at the hold: a proxy, the destination, the source", "the wait includes the freezes", nil)
}

// frozen makes one such switch, and goes back.
func (p *pair) frozen(name string, who *process) {
	p.t.Helper()
	var once, twice sync.Once
	released := make(chan struct{})
	p.codis.proxies[1].relay.on(func(path string, body []byte, _ func()) bool {
		if strings.Contains(path, "/fillslots/") {
			if bytes.Contains(body, []byte(`"locked":true`)) {
				once.Do(func() { who.signal(syscall.SIGSTOP) })
			} else {
				twice.Do(func() { close(released) })
			}
		}
		return true
	})
	r := p.there()
	until(p.t, "with "+name+" frozen the proxies are told to let the clients go", func() bool { return over(released) || over(r.over) })
	who.signal(syscall.SIGCONT)
	code := r.code()
	p.t.Logf("%s frozen: exit code %d: %s", name, code, lastLine(r.said()))
	p.codis.proxies[1].relay.on(nil)
	p.codis.awaitServed(p.t, p.moving)
	p.finish(r)
	if at, ok := p.codis.served(p.moving, p.other.addr); !ok {
		p.t.Fatalf("after the resume clients are served from %q, want %s", at, p.other.addr)
	}
	p.more(writes)
	p.back().want(0)
}

// TestDashboardDies kills the dashboard between the detaching and the assignment: with the request not carried out, and
// with the request carried out and its answer lost. Clients must be served while it is dead.
func TestDashboardDies(t *testing.T) {
	need(t)
	p := newPair(t, 1, true)
	for _, carried := range []bool{false, true} {
		p.dies(carried)
	}
	p.verdict("dashboard killed before and after the assignment", "", nil)
}

func (p *pair) dies(carried bool) {
	p.t.Helper()
	dead := make(chan struct{})
	var once sync.Once
	p.codis.relay.on(func(path string, _ []byte, carryOut func()) bool {
		pass := true
		if strings.Contains(path, "/slots/assign/") {
			once.Do(func() {
				if carried {
					carryOut()
				}
				p.codis.dashboard.kill()
				p.codis.relay.shut()
				close(dead)
				pass = false
			})
		}
		return pass
	})
	r := p.there()
	until(p.t, "the dashboard is killed", func() bool { return over(dead) || over(r.over) })
	at := p.codis.awaitServed(p.t, p.moving)
	code := r.code()
	p.t.Logf("dashboard dead, assigned %t: clients are served from %s, exit code %d: %s", carried, at, code, lastLine(r.said()))
	p.more(writes)
	p.codis.relay.on(nil)
	p.codis.restartDashboard()
	p.finish(r)
	if at, ok := p.codis.served(p.moving, p.other.addr); !ok {
		p.t.Fatalf("after the resume clients are served from %q, want %s", at, p.other.addr)
	}
	p.back().want(0)
}
