package runner

import (
	"bytes"
	"encoding/json"
	"strconv"

	"runbook/runner/journal"
)

// The bodies of step-started and step-finished are read by hand: they are nearly all of a
// journal, and encoding/json takes most of the time of a resume. What the reader does not
// expect it leaves to encoding/json, so that it needs to know the usual alone.

// bodyReader reads bodies and keeps the words that come again and again, one string each.
type bodyReader struct{ words map[string]string }

func (r *bodyReader) started(rec journal.Record, b *StepStarted) error {
	s := bodyScan{b: rec.Body, words: r.known()}
	for s.next() {
		switch string(s.key) {
		case "attempt":
			b.Attempt = s.integer()
		case "kind":
			b.Kind = s.word()
		case "effect":
			b.Effect = s.word()
		case "target":
			b.Target = s.word()
		case "addr":
			b.Addr = s.word()
		case "digest":
			b.Digest = s.text()
		case "commands":
			b.Commands = s.texts()
		case "before":
			b.Before = s.copied()
		case "withheld":
			b.Withheld = s.truth()
		case "waiting":
			b.Waiting = s.word()
		default:
			s.bad = true
		}
	}
	if s.whole() {
		return nil
	}
	*b = StepStarted{}
	return rec.Decode(b)
}

func (r *bodyReader) finished(rec journal.Record, b *StepFinished) error {
	s := bodyScan{b: rec.Body, words: r.known()}
	for s.next() {
		switch string(s.key) {
		case "status":
			b.Status = s.word()
		case "outputs":
			b.Outputs = s.copied()
		case "duration":
			b.Duration = s.word()
		case "attempts":
			b.Attempts = s.integer()
		case "recovered":
			b.Recovered = s.truth()
		case "reason":
			b.Reason = s.text()
		default:
			s.bad = true
		}
	}
	if s.whole() {
		return nil
	}
	*b = StepFinished{}
	return rec.Decode(b)
}

// mostWords bounds the words that are kept: durations are few, but not in every journal.
const mostWords = 4096

func (r *bodyReader) known() map[string]string {
	if r.words == nil || len(r.words) > mostWords {
		r.words = map[string]string{}
	}
	return r.words
}

// values reads an object as json.Decoder with UseNumber does.
func values(raw json.RawMessage) (map[string]any, error) {
	s := bodyScan{b: raw}
	v, _ := s.value().(map[string]any)
	if v != nil && !s.bad && s.i == len(raw) {
		return v, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v = nil
	err := d.Decode(&v)
	return v, err
}

// bodyScan goes through compact JSON that is known to be valid: the journal has checked it.
// Anything else makes it bad, never panic.
type bodyScan struct {
	b     []byte
	i     int
	at    int // fields read
	key   []byte
	words map[string]string
	bad   bool
}

func (s *bodyScan) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *bodyScan) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// next goes to the next field of the body; false: there is none, or the scan is bad.
func (s *bodyScan) next() bool {
	first := s.at == 0
	s.at++
	switch {
	case s.bad:
		return false
	case first && !s.take('{'):
		s.bad = true
		return false
	case s.take('}'):
		return false
	case !first && !s.take(','):
		s.bad = true
		return false
	}
	s.key = s.literal()
	if !s.take(':') {
		s.bad = true
	}
	return !s.bad
}

func (s *bodyScan) whole() bool { return !s.bad && s.i == len(s.b) }

// literal is what stands between quotes, where that is the text itself.
func (s *bodyScan) literal() []byte {
	if !s.take('"') {
		s.bad = true
		return nil
	}
	for start := s.i; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '"':
			s.i++
			return s.b[start : s.i-1]
		case '\\':
			s.bad = true
			return nil
		}
	}
	s.bad = true
	return nil
}

func (s *bodyScan) text() string {
	start := s.i
	s.skipText()
	if s.bad {
		return ""
	}
	inner := s.b[start+1 : s.i-1]
	for _, c := range inner {
		if c == '\\' {
			var text string
			if json.Unmarshal(s.b[start:s.i], &text) != nil {
				s.bad = true
			}
			return text
		}
	}
	return string(inner)
}

func (s *bodyScan) word() string {
	l := s.literal()
	if w, ok := s.words[string(l)]; ok {
		return w
	}
	w := string(l)
	s.words[w] = w
	return w
}

func (s *bodyScan) texts() []string {
	if !s.take('[') {
		s.bad = true
		return nil
	}
	list := []string{}
	for !s.bad && !s.take(']') {
		if len(list) > 0 && !s.take(',') {
			s.bad = true
			break
		}
		list = append(list, s.text())
	}
	return list
}

func (s *bodyScan) integer() int {
	start := s.i
	s.skipPlain()
	n, err := strconv.Atoi(string(s.b[start:s.i]))
	s.bad = s.bad || err != nil
	return n
}

func (s *bodyScan) truth() bool {
	start := s.i
	s.skipPlain()
	word := string(s.b[start:s.i])
	s.bad = s.bad || word != "true" && word != "false"
	return word == "true"
}

// copied is a value as it stands. A copy: it lives longer than the journal that was read.
func (s *bodyScan) copied() json.RawMessage {
	start := s.i
	s.skip()
	return append(json.RawMessage(nil), s.b[start:s.i]...)
}

func (s *bodyScan) skip() {
	depth := 0
	for !s.bad {
		switch s.peek() {
		case '"':
			s.skipText()
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			depth--
			s.i++
		case ',', ':':
			s.i++
			continue
		default:
			s.skipPlain()
		}
		if depth <= 0 {
			s.bad = s.bad || depth < 0
			return
		}
	}
}

func (s *bodyScan) skipText() {
	if !s.take('"') {
		s.bad = true
		return
	}
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '"':
			s.i++
			return
		case '\\':
			s.i++
		}
	}
	s.i, s.bad = len(s.b), true
}

// skipPlain passes over a number or a word.
func (s *bodyScan) skipPlain() {
	start := s.i
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ',', '}', ']', ':', '"', '{', '[':
			s.bad = s.bad || s.i == start
			return
		}
		s.i++
	}
	s.bad = s.bad || s.i == start
}

func (s *bodyScan) value() any {
	switch s.peek() {
	case '"':
		return s.text()
	case '{':
		s.i++
		m := map[string]any{}
		for first := true; !s.bad && !s.take('}'); first = false {
			if !first && !s.take(',') {
				s.bad = true
				break
			}
			key := s.text()
			if !s.take(':') {
				s.bad = true
				break
			}
			m[key] = s.value()
		}
		return m
	case '[':
		s.i++
		list := []any{}
		for first := true; !s.bad && !s.take(']'); first = false {
			if !first && !s.take(',') {
				s.bad = true
				break
			}
			list = append(list, s.value())
		}
		return list
	}
	start := s.i
	s.skipPlain()
	switch word := string(s.b[start:s.i]); {
	case s.bad:
	case word == "true" || word == "false":
		return word == "true"
	case word == "null":
	case word[0] == '-' || word[0] >= '0' && word[0] <= '9':
		return json.Number(word)
	default:
		s.bad = true
	}
	return nil
}
