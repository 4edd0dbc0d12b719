package schema

import (
	"bytes"
	"sort"
	"unicode/utf8"
)

// block is the distance between two counts of runes in a file that is not ASCII:
// short enough that a position costs little, long enough that the index is small.
const block = 512

// source is one file and what is needed to go between offsets (in bytes) and
// positions (line and column, in code points) without walking over it again.
type source struct {
	path   string
	text   []byte // without a byte order mark, which is no character of the file
	lines  []int  // offset of the start of each line
	blocks []int  // runes before each block; nil where every byte is a rune
}

func newSource(path string, src []byte) *source {
	s := &source{path: path, text: bytes.TrimPrefix(src, []byte("\ufeff"))}
	s.lines = append(make([]int, 0, len(s.text)/24+1), 0)
	ascii := true
	for i := 0; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\n' || c == '\r' && (i+1 == len(s.text) || s.text[i+1] != '\n'):
			s.lines = append(s.lines, i+1)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if !ascii {
		runes := 0
		for i, c := range s.text {
			if i%block == 0 {
				s.blocks = append(s.blocks, runes)
			}
			if utf8.RuneStart(c) {
				runes++
			}
		}
		s.blocks = append(s.blocks, runes)
	}
	return s
}

// runes counts the runes before an offset.
func (s *source) runes(offset int) int {
	if s.blocks == nil {
		return offset
	}
	n := s.blocks[offset/block]
	for _, c := range s.text[offset/block*block : offset] {
		if utf8.RuneStart(c) {
			n++
		}
	}
	return n
}

// position of an offset; one behind the file is its end.
func (s *source) position(offset int) Position {
	offset = min(max(offset, 0), len(s.text))
	line := sort.SearchInts(s.lines, offset+1) - 1
	start := s.lines[line]
	return Position{Line: line + 1, Column: s.runes(offset) - s.runes(start) + 1}
}

// offset of a position.
func (s *source) offset(p Position) int {
	line := min(max(p.Line-1, 0), len(s.lines)-1)
	start := s.lines[line]
	if s.blocks == nil {
		return min(start+max(p.Column-1, 0), len(s.text))
	}
	want := s.runes(start) + max(p.Column-1, 0)
	b := sort.SearchInts(s.blocks, want+1) - 1
	at, n := min(b*block, len(s.text)), s.blocks[b]
	for ; at < len(s.text); at++ {
		if utf8.RuneStart(s.text[at]) {
			if n == want {
				break
			}
			n++
		}
	}
	return at
}

// span of a stretch of bytes.
func (s *source) span(start, end int) Span {
	return Span{Start: s.position(start), End: s.position(max(start, end))}
}

// lineEnd is the offset of the line break (or of the end of the file) at or after an offset.
func (s *source) lineEnd(offset int) int {
	for offset < len(s.text) && s.text[offset] != '\n' && s.text[offset] != '\r' {
		offset++
	}
	return offset
}

// lineStart is the offset of the start of the line an offset stands in.
func (s *source) lineStart(offset int) int {
	return s.lines[sort.SearchInts(s.lines, offset+1)-1]
}

// skipBlank passes white space, line breaks and comments.
func (s *source) skipBlank(at int) int {
	for at < len(s.text) {
		switch c := s.text[at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
		case c == '#' && (at == 0 || isSpace(s.text[at-1])):
			at = s.lineEnd(at)
		default:
			return at
		}
	}
	return at
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isBlank(c byte) bool { return c == ' ' || c == '\t' }
func isBreak(c byte) bool { return c == '\n' || c == '\r' }

// finding makes a finding of this file.
func (s *source) finding(severity Severity, rule string, span Span, message, suggestion string) Finding {
	return Finding{
		Path: s.path, Line: span.Start.Line, Column: span.Start.Column,
		EndLine: span.End.Line, EndColumn: span.End.Column,
		Severity: severity, Rule: rule, Message: message, Suggestion: suggestion,
	}
}
