package pika

import (
	"context"
	"slices"
	"time"
)

// message is what another server sent, or what this one has set itself for later. It is carried out with the lock.
type message struct {
	at   time.Time
	from *Server // nil where it is one's own
	do   func()
}

// The delays that Pika has built in.
const (
	keepAlive = 2 * time.Second
	timeout   = 20 * time.Second
	hop       = 2 * time.Millisecond // from server to server
)

func (s *Server) pace(d time.Duration) time.Duration {
	if s.opts.Pace <= 0 {
		return d
	}
	return time.Duration(float64(d) * s.opts.Pace)
}

// tick is the sleep of the auxiliary thread.
func (s *Server) tick() time.Duration { return s.pace(s.opts.Ack) }

// send has another server carry out do, and says whether it is on its way. dial opens a connection where there is none;
// without it a broken one loses the message. The caller holds its own lock and do runs with the other's, so it
// touches nothing of this server.
func (s *Server) send(addr string, dial bool, do func(peer *Server)) bool {
	peer, err := s.network.reach(s, addr, dial)
	if err != nil {
		return false
	}
	peer.post(s, s.clock.Now().Add(s.pace(hop)), func() { do(peer) })
	return true
}

// after has this server carry out do when d has gone by, in the life of this process.
func (s *Server) after(d time.Duration, do func()) { s.post(nil, s.clock.Now().Add(d), do) }

// post puts a message behind those of the same time.
func (s *Server) post(from *Server, at time.Time, do func()) {
	s.box.Lock()
	defer s.box.Unlock()
	i := len(s.mail)
	for i > 0 && s.mail[i-1].at.After(at) {
		i--
	}
	s.mail = slices.Insert(s.mail, i, message{at: at, from: from, do: do})
	s.poke()
}

func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// due takes the next message whose time has come, or says when the next one's will.
func (s *Server) due(now time.Time) (do func(), next time.Time) {
	s.box.Lock()
	defer s.box.Unlock()
	if len(s.mail) == 0 {
		return nil, now.Add(time.Hour)
	}
	m := s.mail[0]
	if m.at.After(now) {
		return nil, m.at
	}
	s.mail = s.mail[1:]
	return m.do, now
}

// forgetMessages loses what is on its way from a server.
func (s *Server) forgetMessages(from *Server) {
	s.box.Lock()
	defer s.box.Unlock()
	s.mail = slices.DeleteFunc(slices.Clone(s.mail), func(m message) bool { return m.from == from })
}

// run is the process's own thread: messages in their order, and what the auxiliary thread does at each tick.
func (s *Server) run(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		wait := time.Hour
		if s.frozen == nil && ctx.Err() == nil {
			wait = s.work().Sub(s.clock.Now())
		}
		s.mu.Unlock()
		stop := s.clock.AfterFunc(max(wait, 0), s.poke)
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
		stop()
	}
}

// work does what there is to do, and says when there will be more.
func (s *Server) work() time.Time {
	now := s.clock.Now()
	for {
		do, next := s.due(now)
		if do == nil {
			return earliest(next, s.receive(now), s.auxiliary(now))
		}
		do()
	}
}

func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}
