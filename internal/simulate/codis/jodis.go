package codis

import (
	"sync"
	"time"

	"runbook/internal/simulate/clock"
)

// jodis is a proxy's registration for its clients: a node that lasts as long as the proxy's session with the coordinator.
type jodis struct {
	store *store // nil where the proxy does not register

	mu      sync.Mutex
	session int64
	ended   bool
}

const (
	jodisTimeout    = 20 * time.Second
	jodisSession    = 19 * time.Second // how long it was seen to outlast its proxy
	jodisRetry      = time.Second
	jodisRetryLimit = 30 * time.Second
)

// register makes the node, again and again while one of an earlier life is still there.
func (j *jodis) register(p *proxyLife) {
	if j.store == nil {
		return
	}
	j.mu.Lock()
	if j.session == 0 {
		j.session = j.store.OpenSession()
	}
	j.mu.Unlock()
	about := map[string]string{
		"addr": p.model.ProxyAddr, "admin": p.model.AdminAddr, "start": p.model.StartTime, "state": "online", "token": p.model.Token,
	}
	p.run(func() {
		for pause := jodisRetry; p.gate.pass(p.ctx); pause = min(2*pause, jodisRetryLimit) {
			if j.create(p.model.JodisPath, about) || !p.sleep(pause) {
				return
			}
		}
	})
}

func (j *jodis) create(path string, about map[string]string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended || j.store.create(path, about, j.session) == nil
}

// abandon is the end of a proxy that could not say goodbye.
func (j *jodis) abandon(c clock.Clock) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if session := j.session; session != 0 && !j.ended {
		j.ended = true
		c.AfterFunc(jodisSession, func() { j.store.CloseSession(session) })
	}
}

// end takes the node away at once.
func (j *jodis) end() {
	if j.store == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	if j.session != 0 {
		j.store.CloseSession(j.session)
	}
}
