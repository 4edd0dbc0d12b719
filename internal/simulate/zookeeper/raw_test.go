package zookeeper_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/go-zookeeper/zk"
)

// session is one that a test holds by hand, so that it sends no pings and does not come back.
type session struct {
	conn     net.Conn
	id       int64
	password []byte
}

func rawSession(t *testing.T, addr string) session {
	t.Helper()
	return greet(t, addr, 0, make([]byte, 16))
}

// rawReconnect gives the session's number, 0 where the server does not know it any more.
func rawReconnect(t *testing.T, addr string, s session) int64 {
	t.Helper()
	return greet(t, addr, s.id, s.password).id
}

func greet(t *testing.T, addr string, id int64, password []byte) session {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var b []byte
	b = binary.BigEndian.AppendUint32(b, 4+8+4+8+4+16)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint32(b, 4000)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	b = binary.BigEndian.AppendUint32(b, 16)
	b = append(b, password...)
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4+4+4+8+4+16)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	return session{c, int64(binary.BigEndian.Uint64(answer[12:])), answer[24:]}
}

const setWatchesXid = -8

// setWatches asks for the data of one node and the children of another, as a client does after a lost connection that has seen everything up to
// since, and gives the events that it has missed.
func (s session) setWatches(t *testing.T, since int64, data, children string) []string {
	t.Helper()
	var b []byte
	number := func(n int) { b = binary.BigEndian.AppendUint32(b, uint32(n)) }
	number(setWatchesXid)
	number(101)
	b = binary.BigEndian.AppendUint64(b, uint64(since))
	for _, paths := range [][]string{{data}, {}, {children}} {
		number(len(paths))
		for _, p := range paths {
			number(len(p))
			b = append(b, p...)
		}
	}
	if _, err := s.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		t.Fatal(err)
	}
	var missed []string
	for {
		xid, frame := s.frame(t)
		if xid == setWatchesXid {
			return missed
		}
		missed = append(missed, eventText(frame))
	}
}

// event waits for the next one.
func (s session) event(t *testing.T) string {
	t.Helper()
	_, frame := s.frame(t)
	return eventText(frame)
}

func (s session) frame(t *testing.T) (xid int32, body []byte) {
	t.Helper()
	size := make([]byte, 4)
	if _, err := io.ReadFull(s.conn, size); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(s.conn, b); err != nil {
		t.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(b)), b[16:]
}

func eventText(body []byte) string {
	return fmt.Sprintf("%v %s", zk.EventType(binary.BigEndian.Uint32(body)), body[12:])
}
