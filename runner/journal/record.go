package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
	"unicode/utf8"
)

// Format is the version of the journal that this package writes, and the only one that it reads. It stands in the body
// of the first record as "format". The envelope of that first record is the same in every format to come, so that an
// old binary can always tell "a newer format" from "damage".
const Format = 1

const (
	// firstType is the type of every journal's first record.
	firstType = "run-started"
	// maxLine bounds a line, so that a damaged journal cannot make a reader take all memory.
	maxLine = 64 << 20
	// keepBuffer is the largest buffer kept for the next record; one huge record must not pin its size for the whole run.
	keepBuffer = 1 << 20
)

// Record is one line of the journal. Body is a JSON object with the fields of the record's own type: all that is not
// envelope (seq, time, type, step, prev, crc).
type Record struct {
	Seq  int64     // 1 for the first, then without gaps
	Time time.Time // UTC; may go backwards where the host's clock did
	Type string    // such as "step-finished"
	Step string    // the step's path, such as "move[slot=7]/caught_up"; empty for records of the run as a whole
	Body json.RawMessage
}

// Decode puts the body into the struct that v points to.
func (r Record) Decode(v any) error {
	if err := json.Unmarshal(r.object(), v); err != nil {
		return fmt.Errorf("decode journal record %d (%s): %w", r.Seq, r.Type, err)
	}
	return nil
}

// Event is the record as people see it: its line without prev and crc, and without a newline.
func (r Record) Event() []byte {
	body := r.object()
	b := make([]byte, 0, len(`{"seq":,"time":"","type":"","step":""}`)+20+35+len(r.Type)+len(r.Step)+len(body))
	b = appendHead(b, r.Seq, r.Time, r.Type, r.Step)
	b = appendFields(b, body)
	return append(b, '}')
}

func (r Record) object() []byte {
	if len(r.Body) == 0 {
		return []byte("{}")
	}
	return r.Body
}

// Appender is a body that writes its own JSON, which is cheaper than reflection. What it appends must be one JSON
// object without insignificant white space; the journal checks that.
type Appender interface {
	AppendJSON([]byte) ([]byte, error)
}

// RecordError says that a record cannot be written as it is: its type, step or body is not fit for a journal. Nothing
// was written, and the journal goes on.
type RecordError struct {
	Type, Step string
	Err        error
}

func (e *RecordError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("journal record %s: %v", e.Type, e.Err)
	}
	return fmt.Sprintf("journal record %s of %s: %v", e.Type, e.Step, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// encoder turns bodies into JSON objects and keeps its buffers for the next one.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
	raw  []byte
}

func newEncoder() *encoder {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false) // a journal is read in terminals: <, > and & stay what they are
	return e
}

// object is the body as a checked JSON object. It is valid until the next call.
func (e *encoder) object(body any) ([]byte, error) {
	var b []byte
	switch body := body.(type) {
	case nil:
		return []byte("{}"), nil
	case Appender:
		raw, err := body.AppendJSON(e.raw[:0])
		if err != nil {
			return nil, err
		}
		e.raw, b = raw, raw
	default:
		e.buf.Reset()
		if err := e.json.Encode(body); err != nil {
			return nil, err
		}
		b = bytes.TrimSuffix(e.buf.Bytes(), []byte("\n"))
	}
	if len(b) > maxLine {
		return nil, fmt.Errorf("the body has %d bytes, more than 64 MiB", len(b))
	}
	return b, checkObject(b)
}

func (e *encoder) reusable() bool { return e.buf.Cap() <= keepBuffer && cap(e.raw) <= keepBuffer }

// checkHead refuses what a head cannot hold unchanged.
func checkHead(t time.Time, typ, step string) error {
	if typ == "" || len(typ) > 64 {
		return errors.New("the type must have 1 to 64 characters")
	}
	for i := range len(typ) {
		if c := typ[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("the type %q may hold a to z, 0 to 9 and - only", typ)
		}
	}
	if !utf8.ValidString(step) {
		return fmt.Errorf("the step %q is not UTF-8", step)
	}
	if y := t.Year(); y < 0 || y > 9999 {
		return fmt.Errorf("the year %d cannot be written", y)
	}
	return nil
}

// checkFirst tells whether a record may open a journal; its FormatError has no path yet.
func checkFirst(typ string, body []byte) error {
	if typ != firstType {
		return fmt.Errorf("the first record is %s, not %s", typ, firstType)
	}
	var v struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("the first record's format: %w", err)
	}
	if v.Format == nil {
		return errors.New("the first record names no format")
	}
	if *v.Format != Format {
		return &FormatError{Got: *v.Format, Known: Format}
	}
	return nil
}

// A line is head, own fields, tail:
//
//	{"seq":2,"time":"2026-11-22T11:14:50.5Z","type":"step-started","step":"a"
//	,"attempt":1
//	,"prev":"…64 hex…","crc":"…8 hex…"}
//
// The tail has a fixed length, so that a reader finds it from the end without parsing what is before.
const (
	prevKey = `,"prev":"`
	crcKey  = `","crc":"`
	lineEnd = `"}`

	prevLen = 64
	crcLen  = 8
	tailLen = len(prevKey) + prevLen + len(crcKey) + crcLen + len(lineEnd)
)

func appendHead(b []byte, seq int64, t time.Time, typ, step string) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendInt(b, seq, 10)
	b = append(b, `,"time":"`...)
	b = t.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","type":"`...)
	b = append(b, typ...)
	b = append(b, '"')
	if step != "" {
		b = append(b, `,"step":`...)
		b = appendString(b, step)
	}
	return b
}

// appendFields appends the fields of an object, each with a comma before it.
func appendFields(b, object []byte) []byte {
	if len(object) <= len("{}") {
		return b
	}
	b = append(b, ',')
	return append(b, object[1:len(object)-1]...)
}

func appendTail(b []byte, prev *[prevLen]byte) []byte {
	b = append(b, prevKey...)
	b = append(b, prev[:]...)
	b = append(b, '"')
	sum := crc32.Checksum(b, castagnoli)
	b = append(b, crcKey[1:]...)
	b = appendCRC(b, sum)
	return append(b, lineEnd...)
}

// castagnoli is read only; MakeTable returns the one shared table of the polynomial that processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendCRC(b []byte, sum uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[sum>>shift&0xf])
	}
	return b
}

// appendString appends s as encoding/json writes it with HTML escaping off.
func appendString(b []byte, s string) []byte {
	if plain(s) {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string and a bytes.Buffer cannot fail
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// plain tells whether s stands in JSON as it is.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
