package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// checkObject accepts one JSON object in UTF-8 without insignificant white space (so without a newline), none of whose
// own keys belongs to the envelope. It is stricter than json.Valid, several times faster, and allocates nothing: it
// runs once for each record written and once for each record read.
func checkObject(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("the body is not UTF-8")
	}
	s := scanner{b: b}
	if len(b) == 0 || b[0] != '{' {
		return errors.New("the body is not a JSON object")
	}
	if !s.object(1) || s.i != len(b) {
		if s.reserved != "" {
			return fmt.Errorf("the field %q belongs to the envelope", s.reserved)
		}
		return fmt.Errorf("the body is not compact JSON (at its byte %d)", s.i)
	}
	return nil
}

// maxDepth is the nesting that encoding/json reads.
const maxDepth = 10000

type scanner struct {
	b        []byte
	i        int
	reserved string // the key that ended the scan, if one did
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) value(depth int) bool {
	switch c := s.peek(); {
	case c == '"':
		return s.text()
	case c == '{':
		return s.object(depth + 1)
	case c == '[':
		return s.array(depth + 1)
	case c == '-' || isDigit(c):
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return false
}

func (s *scanner) object(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.i++
	if s.peek() == '}' {
		s.i++
		return true
	}
	for {
		start := s.i
		if !s.text() || depth == 1 && !s.own(s.b[start:s.i]) || s.peek() != ':' {
			return false
		}
		s.i++
		if !s.value(depth) {
			return false
		}
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			return true
		default:
			return false
		}
	}
}

func (s *scanner) array(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.i++
	if s.peek() == ']' {
		s.i++
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return true
		default:
			return false
		}
	}
}

// own tells whether a key (with its quotes) is not one of the envelope's.
func (s *scanner) own(quoted []byte) bool {
	key := quoted[1 : len(quoted)-1]
	if !plain(key) { // an escape may hide a name
		var text string
		if json.Unmarshal(quoted, &text) != nil {
			return false
		}
		key = []byte(text)
	}
	switch string(key) {
	case "seq", "time", "type", "step", "prev", "crc":
		s.reserved = string(key)
		return false
	}
	return true
}

func (s *scanner) text() bool {
	if s.peek() != '"' {
		return false
	}
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return true
		case c < ' ':
			s.i = i
			return false
		case c == '\\':
			i++
			if i == len(s.b) {
				break
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i == len(s.b) || !isHex(s.b[i]) {
						s.i = i
						return false
					}
				}
			default:
				s.i = i
				return false
			}
		}
	}
	s.i = len(s.b)
	return false
}

func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for isDigit(s.peek()) {
		s.i++
	}
	return s.i > start
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
