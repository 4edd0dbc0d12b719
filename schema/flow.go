package schema

import (
	"bytes"
	"fmt"
	"strings"
)

// bracket is a flow collection that is open.
type bracket struct {
	at    int
	open  byte
	value bool // of a map: behind the colon
}

// flow passes a flow collection, noting what in it the parser may have stumbled
// over, and gives the offset behind it, or -1 where it is not closed.
func (s *scanner) flow(at, indent int) int {
	var stack []bracket
	// fresh: a value just ended, and only , : or a bracket may follow. The parser came no further than limit.
	fresh := false
	for i := at; i < min(len(s.text), s.limit+1); {
		c := s.text[i]
		top := &bracket{}
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		switch {
		case c == '\n' && s.outdented(i+1, indent):
			s.suspect("yaml-syntax", stack[0].at, stack[0].at+1, fmt.Sprintf("this %c is never closed", stack[0].open), "")
			return -1
		case isSpace(c):
			i++
		case c == '#' && isSpace(s.text[i-1]):
			i = s.lineEnd(i)
		case c == ',':
			top.value, fresh = false, false
			i++
		case c == ':' && (i+1 == len(s.text) || isSpace(s.text[i+1]) || fresh) && top.open != 0:
			top.value, fresh = true, false
			i++
		case (c == '[' || c == '{') && !fresh:
			stack = append(stack, bracket{at: i, open: c})
			i++
		case c == ']' || c == '}':
			if want := map[byte]byte{'[': ']', '{': '}'}[top.open]; c != want {
				s.suspect("yaml-syntax", i, i+1, fmt.Sprintf("%c does not close the %c that is open", c, top.open), "")
				return -1
			}
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return i + 1
			}
			fresh = true
			i++
		case fresh && isBreak(s.before(i)):
			if !nextKey.Match(s.text[i:s.lineEnd(i)]) {
				i = max(i+1, s.flowPlain(i, top)) // a plain scalar may go on in the next line
				break
			}
			s.suspect("yaml-syntax", i, i+1, "a comma is missing before this", "")
			fresh, top.value = false, false
		case fresh:
			i = max(i+1, s.piece(s.itemStart(i, top), "in { } and [ ] a value ends with its quote or bracket"))
		case c == '"' || c == '\'':
			start, end := i, s.quoted(i, indent)
			if end < 0 {
				return -1
			}
			i, fresh = end, true
			if after := strings.TrimLeft(string(s.text[end:s.lineEnd(end)]), " \t\r"); after != "" && !strings.ContainsRune(",:]}#", rune(after[0])) {
				i = max(i, s.piece(start, "a value that starts with a quote ends with it"))
			}
		case c == '!' && !strings.HasPrefix(string(s.text[i:min(i+2, len(s.text))]), "!!"):
			end := s.itemEnd(i)
			whole := strings.TrimSpace(string(s.text[i:end]))
			s.suspect("yaml-tag", i, i+1, "! at the start of a value is a tag to YAML; write not instead, or quote the text", negated(whole, nil))
			i, fresh = end, true
		case c == '!' || c == '&' || c == '*':
			for i < len(s.text) && !isSpace(s.text[i]) && !strings.ContainsRune(",[]{}", rune(s.text[i])) {
				i++
			}
			fresh = c == '*'
		case c == '%' || c == '@' || c == '`' || c == '|' || c == '>':
			i = s.piece(i, fmt.Sprintf("a value cannot start with %c", c))
			fresh = true
		default:
			i, fresh = max(i+1, s.flowPlain(i, top)), true
		}
	}
	if len(stack) > 0 && s.limit >= len(s.text) {
		s.suspect("yaml-syntax", stack[0].at, stack[0].at+1, fmt.Sprintf("this %c is never closed", stack[0].open), "")
	}
	return -1
}

// before is the last character before an offset that is no blank.
func (s *scanner) before(at int) byte {
	for at > 0 && isBlank(s.text[at-1]) {
		at--
	}
	if at == 0 {
		return '\n'
	}
	return s.text[at-1]
}

// flowPlain passes a plain scalar in a flow collection.
func (s *scanner) flowPlain(at int, top *bracket) int {
	for i := at; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == ',' || c == ']' || c == '}' || c == '\n':
			return i
		case c == '#' && isBlank(s.text[i-1]):
			return i
		case c == '[' || c == '{' || c == '?':
			return s.piece(at, fmt.Sprintf("within { } and [ ] an unquoted value ends at %c", c))
		case c == ':' && (i+1 == len(s.text) || isSpace(s.text[i+1])):
			if top.value {
				return s.piece(at, "“: ” within an unquoted value starts another value")
			}
			return i
		}
	}
	return len(s.text)
}

// piece reports the text from here to the end of the item and passes it.
func (s *scanner) piece(at int, why string) int {
	end := s.itemEnd(at)
	text := strings.TrimSpace(string(s.text[at:end]))
	s.suspect("yaml-syntax", at, at+len(text), why+"; quote the whole value", quote(text))
	return max(end, at+1)
}

// longest is how far an item is followed: what is quoted in a finding is short.
const longest = 2000

// itemEnd is where an item of a flow collection ends: at a comma or closing bracket
// that is not one of its own, or at the end of the line.
func (s *scanner) itemEnd(at int) int {
	depth := 0
	var quoted byte
	stop := min(s.lineEnd(at), at+longest)
	for i := at; i < stop; i++ {
		switch c := s.text[i]; {
		case quoted != 0:
			if c == quoted {
				quoted = 0
			}
		case (c == '"' || c == '\'') && bytes.IndexByte(s.text[i+1:stop], c) >= 0:
			quoted = c
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ']' || c == '}':
			if depth == 0 {
				return i
			}
			depth--
		case c == ',' && depth == 0:
			return i
		}
	}
	return stop
}

// itemStart goes back from behind a value to where its item began.
func (s *scanner) itemStart(at int, top *bracket) int {
	depth := 0
	for i := at - 1; i > max(top.at, at-longest); i-- {
		switch c := s.text[i]; {
		case c == ']' || c == '}' || c == ')':
			depth++
		case (c == '[' || c == '{' || c == '(') && depth > 0:
			depth--
		case depth == 0 && (c == ',' || c == ':' && isSpace(s.text[i+1]) || isBreak(c)):
			at = i + 1
			for at < len(s.text) && isBlank(s.text[at]) {
				at++
			}
			return at
		}
	}
	return top.at + 1
}
