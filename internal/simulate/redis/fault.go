package redis

import "time"

// Action is what becomes of a request instead of, or before, being carried out.
type Action struct {
	kind  actionKind
	text  string
	delay time.Duration
}

type actionKind int

const (
	actPass actionKind = iota
	actFail
	actHang
	actCutBefore
	actCutAfter
	actGarbage
	actDelay
)

// Pass carries the request out as if nobody watched. It is the zero Action.
func Pass() Action { return Action{} }

// Fail answers an error, such as "ERR out of order", and does not carry the request out.
func Fail(text string) Action { return Action{kind: actFail, text: text} }

// Hang never answers and does not carry the request out; the connection stays open.
func Hang() Action { return Action{kind: actHang} }

// CutBefore closes the connection without carrying the request out.
func CutBefore() Action { return Action{kind: actCutBefore} }

// CutAfter carries the request out and closes the connection instead of answering: the reply is lost.
func CutAfter() Action { return Action{kind: actCutAfter} }

// Garbage carries the request out and answers these bytes instead of the reply, then closes.
func Garbage(bytes string) Action { return Action{kind: actGarbage, text: bytes} }

// Delay carries the request out after d of the world's time.
func Delay(d time.Duration) Action { return Action{kind: actDelay, delay: d} }

// Intercept is asked about every request of a client before anything else looks at it. It runs outside the server's
// lock and may call the server; but Stop, Restart and Close wait for it, so it begins those on a goroutine of their own.
type Intercept func(cmd []string) Action

// SetIntercept installs f, or takes it away where f is nil. Clients whose name (CLIENT SETNAME) is among except are not
// asked about: a rehearsal breaks the runner's requests and not those of the traffic.
func (s *Server) SetIntercept(f Intercept, except ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept, s.exempt = f, except
}

// Forever is a delay that does not end: a full sync that is stuck, a lag that never becomes zero.
const Forever = time.Duration(1 << 62)

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

// Write is a request that would change something, as a client sent it.
type Write struct {
	At     time.Time // the world's time
	Client string    // its CLIENT SETNAME, or ""
	Args   []string
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
