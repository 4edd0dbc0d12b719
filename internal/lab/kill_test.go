package lab

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilled ends the runner with SIGKILL at LAB_KILLS instants of a switch under load, by turns with the guardian left
// alive and with the guardian killed as well, and resumes it. SEED repeats a lane.
func TestKilled(t *testing.T) {
	need(t)
	p := newPair(t, 1, false)
	kills := number(t, "LAB_KILLS", 20)
	seed := number(t, "SEED", int(time.Now().UnixNano()%1e9))
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	p.there().want(0)
	p.back().want(0)
	took := p.lasted("switch")
	t.Logf("%d kills, SEED=%d; the switch takes %s", kills, seed, took.Round(time.Millisecond))
	total := map[string]int{} // by where the switch stood
	for i := range kills {
		alone := i/2%2 == 1 // one way and back with a guardian, one way and back without
		toward, from, to := p.there, p.source, p.other
		if i%2 == 1 {
			toward, from, to = p.back, p.other, p.source
		}
		// The kill comes after the step has begun: one in each part of the time that it takes.
		at := took * time.Duration(i*1000+rnd.IntN(1000)) / time.Duration(kills*1000)
		total[p.kill(toward(), at, alone, from, to)]++
		if at, ok := p.codis.served(p.moving, to.addr); !ok {
			t.Fatalf("kill %d, SEED=%d: after the resume clients are served from %q, want %s", i, seed, at, to.addr)
		}
		p.more(writes / 4)
	}
	var met []string
	for _, where := range slices.Sorted(maps.Keys(total)) {
		met = append(met, fmt.Sprintf("%s %d", where, total[where]))
	}
	p.verdict(fmt.Sprintf("runner killed %d times", kills), strings.Join(met, ", "), nil)
}

// kill ends a runner a while after its switch has begun, sees that clients are served where a guardian is left, and
// resumes it until it has succeeded. It gives where the switch stood.
func (p *pair) kill(r *session, after time.Duration, alone bool, from, to *pika) string {
	p.t.Helper()
	r.reaches("switch")
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.over:
	}
	r.signal(syscall.SIGSTOP) // it does nothing more, and does not see its guardian go
	stood := p.stage(from, to)
	guardians := p.guardians()
	if alone {
		stood += " without guardian"
		for _, pid := range guardians {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	r.signal(syscall.SIGKILL)
	if r.code() == 0 {
		return "over already"
	}
	if !alone && len(guardians) > 0 { // nobody resumes it: the guardian lets the clients go, and ends
		p.codis.awaitServed(p.t, p.moving, from.addr, to.addr)
		until(p.t, "the guardian has ended", func() bool { return len(p.guardians()) == 0 })
	}
	p.finish(r)
	return stood
}

// stage tells where a switch stands.
func (p *pair) stage(from, to *pika) string {
	at, open := p.codis.served(p.moving)
	source, destination := from.slots(p.moving)[p.moving[0]], to.slots(p.moving)[p.moving[0]]
	switch {
	case open && at == to.addr:
		return "switched"
	case open:
		return "not held"
	case !strings.Contains(source, "Role: Slave"):
		return "held"
	case strings.Contains(destination, "Role: Slave"):
		return "fenced"
	}
	return "detached"
}
