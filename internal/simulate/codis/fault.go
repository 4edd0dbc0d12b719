package codis

import (
	"slices"
	"time"

	"runbook/internal/simulate/fault"
)

// Intercept is asked about every HTTP request before anything else looks at it; where it says fault.Fail the answer is status 800 with that
// text as its Cause. It may call the simulator; but Kill, Stop, Restart and Close wait for it, so it begins those on a goroutine of their own.
type Intercept func(method, path string, body []byte) fault.Action

// FromDashboard is the name under which a simulated dashboard calls proxies, in Request.From and among the exceptions of SetIntercept.
const FromDashboard = "dashboard"

// Request is one HTTP request that reached the process.
type Request struct {
	At     time.Time // the world's time
	From   string    // FromDashboard, or ""
	Method string
	Path   string
	Body   string
}

// keptRequests bounds the log: enough for every request of a run and minutes of polling.
const keptRequests = 1 << 14

// SetIntercept installs f, or takes it away where f is nil. Requests from those named among except are not asked about.
func (p *port) SetIntercept(f Intercept, except ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept, p.except = f, except
}

// Requests lists the requests in the order in which the process took them up, without those from the ones named. Of a very long run
// the oldest are forgotten.
func (p *port) Requests(except ...string) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Request, 0, len(p.log))
	for _, r := range p.log {
		if !slices.Contains(except, r.From) {
			out = append(out, r)
		}
	}
	return out
}

// Writes is Requests without those that only read: a test of a dry run asserts that it is empty.
func (p *port) Writes(except ...string) []Request {
	return slices.DeleteFunc(p.Requests(except...), func(r Request) bool { return r.Method == "GET" || r.Method == "HEAD" })
}

// judge says what is to become of a request.
func (p *port) judge(r Request) fault.Action {
	p.mu.Lock()
	f := p.intercept
	if r.From != "" && slices.Contains(p.except, r.From) {
		f = nil
	}
	p.mu.Unlock()
	if f == nil {
		return fault.Pass()
	}
	return f(r.Method, r.Path, []byte(r.Body))
}

func (p *port) note(r Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.log) >= keptRequests {
		p.log = slices.Delete(p.log, 0, keptRequests/2)
	}
	p.log = append(p.log, r)
}
