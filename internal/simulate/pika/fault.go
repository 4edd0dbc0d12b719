package pika

import (
	"slices"
	"strings"
	"time"

	"runbook/internal/simulate/fault"
)

// SetIntercept installs f, or takes it away where f is nil. Clients whose name (CLIENT SETNAME) is among except are not
// asked about: a rehearsal breaks the runner's requests and not those of the traffic.
func (s *Server) SetIntercept(f fault.Intercept, except ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept, s.exempt = f, except
}

// SetLag changes how much longer a write takes on its way from the master to this server. With fault.Forever the lag that the
// master shows never becomes zero.
func (s *Server) SetLag(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
	s.poke()
}

// SetFullSync changes how long a full sync of this server from its master takes, also one that is under way. With
// fault.Forever the slot stays in kWaitDBSync.
func (s *Server) SetFullSync(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fullSync = d
}

// SetApplyDelay has each write take d in apply thread i, or in all of them where i is negative: what an LREM of a long list
// does. The writes behind it wait, acknowledged.
func (s *Server) SetApplyDelay(i int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for j, a := range s.appliers {
		if i < 0 || i == j {
			s.applyDelay[j] = d
			select {
			case a.wake <- struct{}{}:
			default:
			}
		}
	}
}

// SetRepeatStalls has a slot for which slotsslaveof is sent again in kTryConnect or kWaitReply say kConnected with nothing
// flowing, until both sides give up after 20 s. The real one does so once in forty times.
func (s *Server) SetRepeatStalls(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalls = on
}

// SetReplyOvertaken asks f, each time that the master of a slot has agreed to go on with the binlog, whether its answer was
// handled before the replica had noted that it waits for one. Such a slot says kWaitReply from then on, and heeds nothing
// that its master sends; the master lists it as SlaveBinlogSync until it gives it up after 20 s. slotsslaveof heals it then,
// and before that costs the stall of SetRepeatStalls. The real 3.4.0 does so now and then where many slots are attached at
// once. nil: never. f must not call the server.
func (s *Server) SetReplyOvertaken(f func(slot int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overtaken = f
}

// SetFullSyncOvertaken is the same for the answer to the request for a full sync. The copy comes, and nobody looks at it; the
// slot keeps what it had. The master lists it as SlaveNotSync until it gives it up.
func (s *Server) SetFullSyncOvertaken(f func(slot int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfilled = f
}

// SetAddSlot changes how long a slot takes to add, while commands on data wait.
func (s *Server) SetAddSlot(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.AddSlot = d
}

// SetNoRsync takes rsync away, or brings it back: without it no full sync from or to this server ends, nor one that began
// meanwhile.
func (s *Server) SetNoRsync(missing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.NoRsync = missing
	switch {
	case missing:
		s.rsync.close()
		s.rsync = nil
	case s.rsync == nil && s.rsyncAddr != "":
		s.rsync, _ = listenRsync(s.rsyncAddr) // where somebody else has the port meanwhile, it stays away
	}
}

// keptWrites bounds the log: enough for every request of a run, and for minutes of traffic.
const keptWrites = 1 << 17

// WriteLog lists the requests of clients that would change data or the server, in the order of their arrival, whether
// they were carried out or refused. What came over replication is not among them. Of a very long run the oldest are forgotten.
func (s *Server) WriteLog() []fault.Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Writes is WriteLog's requests alone, without those of the clients named: a test of a dry run asserts that it is empty.
func (s *Server) Writes(except ...string) [][]string {
	var out [][]string
	for _, w := range s.WriteLog() {
		if w.Client == "" || !slices.Contains(except, w.Client) {
			out = append(out, w.Args)
		}
	}
	return out
}

func (s *Server) logWrite(c *client, args []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changes(args) {
		return
	}
	if len(s.writes) >= keptWrites {
		s.writes = slices.Delete(s.writes, 0, keptWrites/2)
	}
	s.writes = append(s.writes, fault.Write{At: s.clock.Now(), Client: c.name, Args: slices.Clone(args)})
}

// changes says whether a request is meant to change data or server.
func (s *Server) changes(args []string) bool {
	cmd, rest := s.lookup(args)
	if cmd == nil {
		return false
	}
	if cmd.name == "config" && len(rest) > 1 {
		return !strings.EqualFold(rest[1], "get")
	}
	if cmd.name == "client" && len(rest) > 1 {
		return strings.EqualFold(rest[1], "kill")
	}
	return cmd.flags&(write|admin) != 0
}
