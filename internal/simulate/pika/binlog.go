package pika

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// Offset is a place in a binlog: the number of its file, and the bytes in it.
type Offset struct{ File, Pos int64 }

func (o Offset) String() string {
	return strconv.FormatInt(o.File, 10) + " " + strconv.FormatInt(o.Pos, 10)
}

func (o Offset) compare(p Offset) int {
	return cmp.Or(cmp.Compare(o.File, p.File), cmp.Compare(o.Pos, p.Pos))
}

// record is one write in a binlog.
type record struct {
	end    Offset // where the next one begins
	at     time.Time
	args   []string
	server int // server-id of the instance that a client wrote to: what keeps a double master's writes from circling
}

// binlog is the history of one slot. Records have numbers that go on for as long as the slot lives; a record's number
// stays its own when older ones are purged.
type binlog struct {
	firstFile int64  // the oldest file that was not purged
	start     Offset // where the first record begins. In its own file there is nothing before it but padding, after a full sync
	end       Offset
	first     int64 // number of records[0]
	records   []record
}

// next is the number that the next record will have.
func (b *binlog) next() int64 { return b.first + int64(len(b.records)) }

// from gives the records from number n on.
func (b *binlog) from(n int64) []record { return b.records[n-b.first:] }

// offset is where record n begins.
func (b *binlog) offset(n int64) Offset {
	if n == b.first {
		return b.start
	}
	return b.records[n-b.first-1].end
}

// holds says whether record n, or the end where it will be written, is in the log.
func (b *binlog) holds(n int64) bool { return n >= b.first && n <= b.next() }

// find gives the number of the record that begins at o; ok is false where none does.
func (b *binlog) find(o Offset) (n int64, ok bool) {
	if o == b.start {
		return b.first, true
	}
	i, ok := slices.BinarySearchFunc(b.records, o, func(r record, o Offset) int { return r.end.compare(o) })
	return b.first + int64(i) + 1, ok
}

// A record on disk is a header, the request as it came over the wire, and a frame for each block that it touches.
const (
	recordHeader = 34
	blockSize    = 64 << 10
	frameSize    = 8
)

func (b *binlog) append(args []string, at time.Time, server int, fileSize int64) {
	o := b.end
	if o.Pos >= fileSize {
		o = Offset{File: o.File + 1}
	}
	o.Pos = grown(o.Pos, recordHeader+wireSize(args))
	b.records = append(b.records, record{end: o, at: at, args: args, server: server})
	b.end = o
}

func wireSize(args []string) int64 {
	digits := func(n int) int64 { return int64(len(strconv.Itoa(n))) }
	n := 3 + digits(len(args))
	for _, a := range args {
		n += 5 + digits(len(a)) + int64(len(a))
	}
	return n
}

// grown is the length of a file after n bytes of content were added: cut into frames that do not cross a block.
func grown(pos, n int64) int64 {
	for {
		left := blockSize - pos%blockSize
		if left < frameSize {
			pos += left
			continue
		}
		part := min(n, left-frameSize)
		pos += frameSize + part
		if n -= part; n == 0 {
			return pos
		}
	}
}

// reset makes the log one that begins at o, as a full sync leaves it: no record before o is known.
func (b *binlog) reset(o Offset) {
	*b = binlog{firstFile: o.File, start: o, end: o, first: b.next() + 1}
}

// purge removes the files up to and with the one named, but never the one that is written.
func (b *binlog) purge(file int64) {
	file = min(file, b.end.File-1)
	if file < b.firstFile {
		return
	}
	i, _ := slices.BinarySearchFunc(b.records, Offset{File: file + 1}, func(r record, o Offset) int { return r.end.compare(o) })
	b.first += int64(i)
	b.records = slices.Clone(b.records[i:])
	b.firstFile = file + 1
	b.start = Offset{File: file + 1}
}

// lag is the distance in bytes that Pika shows.
func lag(from, to Offset, fileSize int64) int64 {
	return (to.File-from.File)*fileSize + to.Pos - from.Pos
}
