package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// History is what a journal holds.
type History struct {
	Path    string
	Records []Record // at least one
	Torn    *Torn    // the last line, where a crash cut it short; nil if there is none
	Size    int64    // bytes of the whole lines, so without the torn one
	Head    string   // hex SHA-256 of the last whole line: it fixes the content of the whole journal
}

// Torn is a last line without its newline: the trace of a crash in the middle of a write. No Sync has returned for it,
// so nothing was done because of it.
type Torn struct {
	Offset int64 // where it begins
	Bytes  int64 // how long it is
}

func (t *Torn) String() string {
	return fmt.Sprintf("torn last line at byte %d (%d bytes)", t.Offset, t.Bytes)
}

// ErrEmpty says that a journal holds no whole record: its run died before it started, and nothing was done.
var ErrEmpty = errors.New("the journal holds no record: the run never started")

// DamageError says that a journal is not what was written: a bad disk, or an edit.
type DamageError struct {
	Path   string
	Line   int   // from 1
	Offset int64 // where the line begins
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("journal %s is damaged: line %d (at byte %d): %s", e.Path, e.Line, e.Offset, e.Reason)
}

// FormatError says that a journal is whole, and written in a format that this binary does not know.
type FormatError struct {
	Path       string // empty where a record of that format was refused before it was written
	Got, Known int
}

func (e *FormatError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("format %d is not the one that is written, %d", e.Got, e.Known)
	}
	return fmt.Sprintf("journal %s has format %d, this binary knows format %d", e.Path, e.Got, e.Known)
}

// Read gives the history of a journal, verified as Open does, and never writes. The journal may be in use: a line that
// is just being written shows as torn. With a *DamageError comes what stands before the damage, for people to look at.
func Read(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	data, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", path, err)
	}
	return parse(path, data)
}

// Summary is the answer of Verify.
type Summary struct {
	Path    string
	Format  int
	Records int64
	Head    string // as in History
	Torn    *Torn
}

// Verify checks every line, the chain through all of them and the format, and never writes. The chain shows every edit
// but one: of the last lines, by someone who computes all their sums anew. Head, kept elsewhere, shows that one too.
func Verify(path string) (Summary, error) {
	h, err := Read(path)
	if err != nil {
		return Summary{}, err
	}
	return Summary{Path: path, Format: Format, Records: int64(len(h.Records)), Head: h.Head, Torn: h.Torn}, nil
}

// parse verifies a whole journal. It takes over data: the bodies are pieces of it. With a *DamageError it gives the
// records before the damage as well.
func parse(path string, data []byte) (*History, error) {
	lines := bytes.Count(data, []byte("\n"))
	h := &History{Path: path, Records: make([]Record, 0, lines)}
	p := parser{prev: genesis(), names: map[string]string{}}
	for offset := 0; offset < len(data); {
		damage := func(reason string) error {
			return &DamageError{Path: path, Line: len(h.Records) + 1, Offset: int64(offset), Reason: reason}
		}
		n := bytes.IndexByte(data[offset:], '\n')
		if n > maxLine || n < 0 && len(data)-offset > maxLine {
			return h, damage("longer than 64 MiB")
		}
		if n < 0 {
			h.Torn = &Torn{Offset: int64(offset), Bytes: int64(len(data) - offset)}
			break
		}
		r, err := p.line(data[offset : offset+n])
		if err == nil && r.Seq == 1 {
			err = checkFirst(r.Type, r.Body)
		}
		if format, ok := errors.AsType[*FormatError](err); ok {
			format.Path = path
			return nil, format
		}
		if err != nil {
			return h, damage(err.Error())
		}
		h.Records = append(h.Records, r)
		offset += n + 1
		h.Size = int64(offset)
	}
	if len(h.Records) == 0 {
		if h.Torn != nil {
			return nil, fmt.Errorf("journal %s: %w (its first line is torn)", path, ErrEmpty)
		}
		return nil, fmt.Errorf("journal %s: %w", path, ErrEmpty)
	}
	h.Head = string(p.prev[:])
	return h, nil
}

// parser reads line after line of one journal.
type parser struct {
	seq   int64
	prev  [prevLen]byte
	names map[string]string // types and steps come again and again: one string each
	head  []byte
}

// line verifies a line (without its newline) as the next one. It writes into the line: the commas around the own
// fields become braces, so that the body is a piece of it and needs no memory of its own.
func (p *parser) line(line []byte) (Record, error) {
	tail := len(line) - tailLen
	if tail < 0 || !isTail(line[tail:]) {
		return Record{}, p.shape(line, errors.New("does not end in prev and crc"))
	}
	crcAt := len(line) - len(lineEnd) - crcLen
	var sum [crcLen]byte
	appendCRC(sum[:0], crc32.Checksum(line[:crcAt-len(`,"crc":"`)], castagnoli))
	if string(sum[:]) != string(line[crcAt:crcAt+crcLen]) {
		return Record{}, p.shape(line, fmt.Errorf("its crc is %s, its bytes have %s", line[crcAt:crcAt+crcLen], sum))
	}
	r, end, err := p.scanHead(line[:tail])
	if err != nil {
		return Record{}, p.shape(line, err)
	}
	if r.Seq != p.seq+1 {
		return Record{}, fmt.Errorf("the seq is %d, expected %d", r.Seq, p.seq+1)
	}
	prevAt := tail + len(prevKey)
	if string(line[prevAt:prevAt+prevLen]) != string(p.prev[:]) {
		if p.seq == 0 {
			return Record{}, errors.New("prev is not the beginning of a chain")
		}
		return Record{}, fmt.Errorf("the chain is broken: prev is not the hash of line %d", p.seq)
	}
	p.seq, p.prev = r.Seq, hash(line)

	if end == tail {
		r.Body = json.RawMessage("{}")
		return r, nil
	}
	line[end], line[tail] = '{', '}'
	r.Body = line[end : tail+1 : tail+1]
	return r, checkObject(r.Body)
}

// scanHead reads the envelope's beginning and says where it ends. What it accepts is exactly what appendHead writes.
func (p *parser) scanHead(b []byte) (r Record, end int, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"seq":`))
	n := 0
	for n < len(rest) && isDigit(rest[n]) {
		n++
	}
	seq, err := strconv.ParseInt(string(rest[:n]), 10, 64)
	if !ok || err != nil {
		return r, 0, errors.New("does not begin with a seq")
	}
	r.Seq = seq
	rest, ok = bytes.CutPrefix(rest[n:], []byte(`,"time":"`))
	n = bytes.IndexByte(rest, '"')
	if !ok || n < 0 || r.Time.UnmarshalText(rest[:n]) != nil {
		return r, 0, errors.New("has no time after its seq")
	}
	rest, ok = bytes.CutPrefix(rest[n:], []byte(`","type":"`))
	n = bytes.IndexByte(rest, '"')
	if !ok || n < 0 {
		return r, 0, errors.New("has no type after its time")
	}
	r.Type = p.name(rest[:n])
	rest = rest[n+1:]
	if step, ok := bytes.CutPrefix(rest, []byte(`,"step":`)); ok {
		s := scanner{b: step}
		if !s.text() {
			return r, 0, errors.New("has a step that is not a string")
		}
		if text := step[1 : s.i-1]; plain(text) {
			r.Step = p.name(text)
		} else if err := json.Unmarshal(step[:s.i], &r.Step); err != nil {
			return r, 0, fmt.Errorf("has a step that is not a string: %w", err)
		}
		rest = step[s.i:]
	}
	if err := checkHead(r.Time, r.Type, r.Step); err != nil {
		return r, 0, err
	}
	end = len(b) - len(rest)
	p.head = appendHead(p.head[:0], r.Seq, r.Time, r.Type, r.Step)
	if !bytes.Equal(p.head, b[:end]) {
		return r, 0, errors.New("its seq, time, type or step is not as a journal writes it")
	}
	if len(rest) > 0 && (rest[0] != ',' || len(rest) == 1) {
		return r, 0, errors.New("has no comma after its type and step")
	}
	return r, end, nil
}

func (p *parser) name(b []byte) string {
	if s, ok := p.names[string(b)]; ok {
		return s
	}
	s := string(b)
	p.names[s] = s
	return s
}

// shape prefers a plain word for what is wrong over the detail that was noticed first.
func (p *parser) shape(line []byte, detail error) error {
	switch {
	case len(line) == 0:
		return errors.New("an empty line")
	case bytes.IndexByte(line, 0) >= 0:
		return errors.New("holds NUL bytes, as a hole that a file system left")
	case !json.Valid(line):
		return fmt.Errorf("not JSON; %w", detail)
	}
	return detail
}

func isTail(b []byte) bool {
	crcAt := len(prevKey) + prevLen
	return string(b[:len(prevKey)]) == prevKey &&
		string(b[crcAt:crcAt+len(crcKey)]) == crcKey &&
		string(b[len(b)-len(lineEnd):]) == lineEnd
}

// genesis is the prev of a first line.
func genesis() (h [prevLen]byte) {
	for i := range h {
		h[i] = '0'
	}
	return h
}

func hash(line []byte) (h [prevLen]byte) {
	sum := sha256.Sum256(line)
	hex.Encode(h[:], sum[:])
	return h
}

// readAll is io.ReadAll that asks for the size first, where it can: a journal of many megabytes is then read in one go.
func readAll(r io.Reader) ([]byte, error) {
	s, ok := r.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return io.ReadAll(r)
	}
	info, err := s.Stat()
	if err != nil {
		return nil, err
	}
	buf := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, err = buf.ReadFrom(r)
	return buf.Bytes(), err
}
