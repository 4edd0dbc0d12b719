package zookeeper

import (
	"encoding/binary"
	"io"
)

// opcode is the number of a request.
type opcode int32

const (
	opCreate       opcode = 1
	opDelete       opcode = 2
	opExists       opcode = 3
	opGetData      opcode = 4
	opSetData      opcode = 5
	opGetACL       opcode = 6
	opSetACL       opcode = 7
	opGetChildren  opcode = 8
	opSync         opcode = 9
	opPing         opcode = 11
	opGetChildren2 opcode = 12
	opCheck        opcode = 13
	opMulti        opcode = 14
	opCreate2      opcode = 15
	opAuth         opcode = 100
	opSetWatches   opcode = 101
	opClose        opcode = -11
	opError        opcode = -1
)

// String is the name under which a request is shown to an Intercept and in the log.
func (o opcode) String() string {
	switch o {
	case opCreate, opCreate2:
		return "create"
	case opDelete:
		return "delete"
	case opExists:
		return "exists"
	case opGetData:
		return "getData"
	case opSetData:
		return "setData"
	case opGetACL:
		return "getACL"
	case opSetACL:
		return "setACL"
	case opGetChildren, opGetChildren2:
		return "getChildren"
	case opSync:
		return "sync"
	case opPing:
		return "ping"
	case opCheck:
		return "check"
	case opMulti:
		return "multi"
	case opAuth:
		return "auth"
	case opSetWatches:
		return "setWatches"
	case opClose:
		return "close"
	}
	return "unknown"
}

// xidEvent is the number of what answers no request.
const xidEvent = -1

// maxFrame is jute.maxbuffer.
const maxFrame = 0xfffff

// readFrame reads one length and so many bytes. The first frame of a connection may be a word of four letters instead.
func readFrame(r io.Reader) (frame []byte, word string, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, "", err
	}
	n := int32(binary.BigEndian.Uint32(size[:]))
	if n < 0 || n > maxFrame {
		return nil, string(size[:]), nil
	}
	frame = make([]byte, n)
	_, err = io.ReadFull(r, frame)
	return frame, "", err
}

// decoder reads the parts of a frame. After something that is not there, bad is set and everything reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return make([]byte, max(0, min(n, 8)))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) int32() int32 { return int32(binary.BigEndian.Uint32(d.take(4))) }
func (d *decoder) int64() int64 { return int64(binary.BigEndian.Uint64(d.take(8))) }
func (d *decoder) bool() bool   { return d.take(1)[0] != 0 }

// buffer is nil where the client sent none.
func (d *decoder) buffer() []byte {
	n := d.int32()
	if n < 0 || d.bad {
		return nil
	}
	return append([]byte{}, d.take(int(n))...)
}

func (d *decoder) string() string { return string(d.buffer()) }

func (d *decoder) strings() []string {
	var out []string
	for range d.int32() {
		if d.bad {
			break
		}
		out = append(out, d.string())
	}
	return out
}

func (d *decoder) acl() []ACL {
	var out []ACL
	for range d.int32() {
		if d.bad {
			break
		}
		out = append(out, ACL{d.int32(), ID{d.string(), d.string()}})
	}
	return out
}

// encoder writes the parts of a frame.
type encoder []byte

func (e *encoder) int32(n int32) { *e = binary.BigEndian.AppendUint32(*e, uint32(n)) }
func (e *encoder) int64(n int64) { *e = binary.BigEndian.AppendUint64(*e, uint64(n)) }

func (e *encoder) bool(v bool) {
	if v {
		*e = append(*e, 1)
	} else {
		*e = append(*e, 0)
	}
}

func (e *encoder) buffer(b []byte) {
	if b == nil {
		e.int32(-1)
		return
	}
	e.int32(int32(len(b)))
	*e = append(*e, b...)
}

func (e *encoder) string(s string) { e.buffer([]byte(s)) }

func (e *encoder) strings(list []string) {
	e.int32(int32(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

func (e *encoder) acl(list []ACL) {
	e.int32(int32(len(list)))
	for _, a := range list {
		e.int32(a.Perms)
		e.string(a.ID.Scheme)
		e.string(a.ID.Name)
	}
}

func (e *encoder) stat(s Stat) {
	e.int64(s.Czxid)
	e.int64(s.Mzxid)
	e.int64(s.Ctime)
	e.int64(s.Mtime)
	e.int32(s.Version)
	e.int32(s.Cversion)
	e.int32(s.Aversion)
	e.int64(s.EphemeralOwner)
	e.int32(s.DataLength)
	e.int32(s.NumChildren)
	e.int64(s.Pzxid)
}

// header begins an answer.
func (e *encoder) header(xid int32, zxid int64, err Error) {
	e.int32(xid)
	e.int64(zxid)
	e.int32(int32(err))
}

// framed puts the length before it.
func (e encoder) framed() []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(e))), e...)
}
