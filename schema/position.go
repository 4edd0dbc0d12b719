package schema

import (
	"strings"
	"unicode/utf8"
)

// origin ties a scalar to its file.
type origin struct {
	src   *source
	start int // offset of the text, its quote, or the | or > of a block
	style style
}

// style is how a scalar is written.
type style byte

const (
	plain style = iota
	single
	double
	literal
	folded
)

// Position of the rune at offset in the decoded Text (0-based, in runes; the
// length of Text is allowed). It holds in all five styles: the text is decoded
// once more, this time noting where each rune comes from, which only errors need.
func (s *Scalar) Position(offset int) Position {
	if s == nil || s.origin.src == nil {
		return Position{Line: 1, Column: 1}
	}
	return s.origin.src.position(s.align().at(offset))
}

// alignment gives the place in the file of each rune of a scalar's text.
type alignment struct {
	text   string
	base   int   // offset of the text where it stands in the file as it is
	places []int // else: offset of each rune
	end    int   // offset behind the last one
}

// at is the offset in the file of the rune with this index.
func (a alignment) at(rune int) int {
	if a.places != nil || a.text == "" {
		if rune >= 0 && rune < len(a.places) {
			return a.places[rune]
		}
		return a.end
	}
	for i := range a.text {
		if rune == 0 {
			return a.base + i
		}
		rune--
	}
	return a.end
}

func (s *Scalar) align() alignment {
	text, o := s.origin.src.text, s.origin
	a := alignment{text: s.Text, base: o.start, end: o.start}
	if o.style == single || o.style == double {
		a.base = min(o.start+1, len(text))
	}
	if o.style <= double && !strings.ContainsAny(s.Text, "\n\"'\\") &&
		a.base+len(s.Text) <= len(text) && string(text[a.base:a.base+len(s.Text)]) == s.Text {
		a.end = a.base + len(s.Text)
		return a
	}
	w := writer{src: text, at: a.base, want: utf8.RuneCountInString(s.Text)}
	w.places = make([]int, 0, w.want)
	if o.style <= double {
		w.flow(o.style)
	} else {
		w.block(s.Text, o.style == literal)
	}
	a.places, a.end = w.places, w.at
	return a
}

// writer decodes a scalar as the YAML parser did, writing down places instead of runes.
type writer struct {
	src    []byte
	at     int
	want   int // runes there must be; a plain scalar ends with the last
	places []int
}

func (w *writer) put(place int) { w.places = append(w.places, place) }

// lineBreak passes one line break and tells where it stood.
func (w *writer) lineBreak() int {
	at := w.at
	if w.src[w.at] == '\r' && w.at+1 < len(w.src) && w.src[w.at+1] == '\n' {
		w.at++
	}
	w.at++
	return at
}

// flow decodes a plain, single or double quoted scalar from behind its quote.
func (w *writer) flow(style style) {
	for w.at < len(w.src) && (style != plain || len(w.places) < w.want) {
		c := w.src[w.at]
		switch {
		case isSpace(c):
			w.fold(false)
		case style == single && c == '\'':
			if w.at+1 >= len(w.src) || w.src[w.at+1] != '\'' {
				return
			}
			w.put(w.at)
			w.at += 2
		case style == double && c == '"':
			return
		case style == double && c == '\\':
			w.escape()
		default:
			w.put(w.at)
			_, size := utf8.DecodeRune(w.src[w.at:])
			w.at += size
		}
	}
}

// fold passes white space: kept within a line, one space for one line break, one
// break fewer for several. After an escaped line break nothing is left of the first.
func (w *writer) fold(escaped bool) {
	var blanks, breaks []int
	for w.at < len(w.src) && isSpace(w.src[w.at]) {
		if isBreak(w.src[w.at]) {
			breaks = append(breaks, w.lineBreak())
			continue
		}
		blanks = append(blanks, w.at)
		w.at++
	}
	switch {
	case escaped:
		w.places = append(w.places, breaks...)
	case len(breaks) == 0:
		w.places = append(w.places, blanks...)
	case len(breaks) == 1:
		w.put(breaks[0])
	default:
		w.places = append(w.places, breaks[1:]...)
	}
}

func (w *writer) escape() {
	at := w.at
	w.at++
	if w.at >= len(w.src) {
		return
	}
	switch w.src[w.at] {
	case '\n', '\r':
		w.lineBreak()
		w.fold(true)
		return
	case 'x':
		w.at += 2
	case 'u':
		w.at += 4
	case 'U':
		w.at += 8
	}
	w.at = min(w.at+1, len(w.src))
	w.put(at)
}

// block decodes a block scalar from its | or >.
func (w *writer) block(text string, literal bool) {
	for w.at < len(w.src) && !isBreak(w.src[w.at]) {
		w.at++
	}
	end := w.at
	if w.at == len(w.src) || w.want == 0 {
		return
	}
	w.lineBreak()
	indent := w.indentation(text)
	var trailing []int
	breaks := func() { // passes indentation and empty lines
		for {
			column := 0
			for column < indent && w.at < len(w.src) && w.src[w.at] == ' ' {
				w.at++
				column++
			}
			if w.at == len(w.src) || !isBreak(w.src[w.at]) {
				return
			}
			trailing = append(trailing, w.lineBreak())
		}
	}
	leading, leadingBlank := -1, false
	breaks()
	for w.at < len(w.src) && len(w.places) < w.want && w.column() == indent {
		trailingBlank := isBlank(w.src[w.at])
		if !literal && !leadingBlank && !trailingBlank && leading >= 0 {
			if len(trailing) == 0 {
				w.put(leading)
			}
		} else if leading >= 0 {
			w.put(leading)
		}
		w.places = append(w.places, trailing...)
		trailing, leading = trailing[:0], -1
		leadingBlank = isBlank(w.src[w.at])
		for w.at < len(w.src) && !isBreak(w.src[w.at]) {
			w.put(w.at)
			_, size := utf8.DecodeRune(w.src[w.at:])
			w.at += size
		}
		end = w.at
		if w.at < len(w.src) {
			leading = w.lineBreak()
		}
		breaks()
	}
	if leading >= 0 && len(w.places) < w.want {
		w.put(leading)
	}
	for _, place := range trailing {
		if len(w.places) < w.want {
			w.put(place)
		}
	}
	w.places = w.places[:min(len(w.places), w.want)]
	w.at = end
}

// column of the current place, which only indentation precedes.
func (w *writer) column() int {
	n := 0
	for at := w.at; at > 0 && w.src[at-1] == ' '; at-- {
		n++
	}
	return n
}

// indentation of a block scalar: what its first line with a character other than
// a blank has before it in the file and not in the text. So neither an indicator
// nor the surrounding block need be known.
func (w *writer) indentation(text string) int {
	i := strings.IndexFunc(text, func(r rune) bool { return r != ' ' && r != '\t' && r != '\n' })
	if i < 0 { // blanks alone: the longest line tells
		inFile, inText, n := 0, 0, 0
		for at := w.at; at < len(w.src) && isSpace(w.src[at]); at++ {
			n++
			if isBreak(w.src[at]) {
				n = 0
			}
			inFile = max(inFile, n)
		}
		for line := range strings.SplitSeq(text, "\n") {
			inText = max(inText, len(line))
		}
		if inText == 0 {
			return max(inFile, 1)
		}
		return max(inFile-inText, 1)
	}
	inText := i - (strings.LastIndexByte(text[:i], '\n') + 1)
	start := w.at
	for at := w.at; at < len(w.src); at++ {
		switch {
		case isBreak(w.src[at]):
			start = at + 1
		case !isBlank(w.src[at]):
			return max(at-start-inText, 0)
		}
	}
	return 1
}
