package twemproxy

import (
	"bytes"
	"encoding/json"
	"net"
	"time"
)

// tell writes the statistics as one JSON object and closes, as nutcracker does for whoever connects. They are of this
// moment, where the real ones are as old as its stats-interval.
func (s *Server) tell(c net.Conn) {
	s.mu.Lock()
	accepted, open := s.accepted, len(s.conns)
	s.mu.Unlock()
	now := s.o.Clock.Now()
	o := object{
		{"service", "nutcracker"}, {"source", "sandbox"}, {"version", "0.5.0"}, {"uptime", int(now.Sub(s.started).Seconds())},
		{"timestamp", now.Unix()}, {"total_connections", accepted}, {"curr_connections", open},
	}
	for _, p := range s.pools {
		o = append(o, field{p.Name, p.stats()})
	}
	b, err := json.Marshal(o)
	if err == nil {
		_, _ = c.Write(append(b, '\n'))
	}
}

func (p *pool) stats() object {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := object{
		{"client_eof", p.eof}, {"client_err", p.bad}, {"client_connections", p.clients}, {"server_ejects", p.ejects},
		{"forward_error", p.failed}, {"fragments", 0}, // the real one counts none either
	}
	for _, b := range p.servers {
		o = append(o, field{b.Name, object{
			{"server_eof", b.eof}, {"server_err", b.err}, {"server_timedout", b.timedOut}, {"server_connections", b.conns},
			{"server_ejected_at", micros(b.ejectedAt)}, {"requests", b.requests}, {"request_bytes", b.reqBytes},
			{"responses", b.responses}, {"response_bytes", b.respBytes},
			{"in_queue", 0}, {"in_queue_bytes", 0}, {"out_queue", 0}, {"out_queue_bytes", 0},
		}})
	}
	return o
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// object is a JSON object that keeps its order.
type object []field

type field struct {
	name  string
	value any
}

// MarshalJSON writes the fields in their order.
func (o object) MarshalJSON() ([]byte, error) {
	b := bytes.NewBufferString("{")
	for i, f := range o {
		if i > 0 {
			b.WriteString(", ")
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
