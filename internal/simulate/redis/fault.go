package redis

import (
	"time"

	"runbook/internal/simulate/fault"
)

// The faults of a request are those of every simulated server.
type (
	Action    = fault.Action
	Intercept = fault.Intercept
	Write     = fault.Write
)

// Forever is a delay that does not end.
const Forever = fault.Forever

// Pass carries the request out as if nobody watched.
func Pass() Action { return fault.Pass() }

// Fail answers an error and does not carry the request out.
func Fail(text string) Action { return fault.Fail(text) }

// Hang never answers and does not carry the request out.
func Hang() Action { return fault.Hang() }

// CutBefore closes the connection without carrying the request out.
func CutBefore() Action { return fault.CutBefore() }

// CutAfter carries the request out and closes the connection instead of answering.
func CutAfter() Action { return fault.CutAfter() }

// Garbage carries the request out, answers these bytes and closes.
func Garbage(bytes string) Action { return fault.Garbage(bytes) }

// Delay carries the request out after d of the world's time.
func Delay(d time.Duration) Action { return fault.Delay(d) }

// SetIntercept installs f, or takes it away where f is nil. Clients whose name (CLIENT SETNAME) is among except are not
// asked about: a rehearsal breaks the runner's requests and not those of the traffic.
func (s *Server) SetIntercept(f Intercept, except ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept, s.exempt = f, except
}

// SetLag changes how long after the master this server applies a write.
func (s *Server) SetLag(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
}

// SetFullSync changes how long a full sync of this server from its master takes, from the next one on.
func (s *Server) SetFullSync(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fullSync = d
}

// SetLoading makes the server answer -LOADING for a while, as after a restart with much data.
func (s *Server) SetLoading(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadingUntil = s.clock.Now().Add(d)
}

// keptWrites bounds the log: enough for every request of a run, and for minutes of traffic.
const keptWrites = 1 << 17

// WriteLog lists the requests of clients that would change data or the server, in the order of their arrival, whether
// they were carried out, refused, or held by a pause. What came over a replication link is not among them. Of a very long
// run the oldest are forgotten.
func (s *Server) WriteLog() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Write(nil), s.writes...)
}

// Writes is WriteLog's requests alone, without those of the clients named: a test of a dry run asserts that it is empty.
func (s *Server) Writes(except ...string) [][]string {
	var out [][]string
	for _, w := range s.WriteLog() {
		if !contains(except, w.Client) {
			out = append(out, w.Args)
		}
	}
	return out
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n != "" && n == name {
			return true
		}
	}
	return false
}
