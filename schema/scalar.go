package schema

import (
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// scalar makes the Scalar of a node: its text as the parser decoded it, its type
// as YAML 1.2 has it (the parser's own idea is YAML 1.1's: 012 is ten, a date a time).
func (d *decoder) scalar(n *yaml.Node) *Scalar {
	s := &Scalar{Text: n.Value, origin: origin{src: d.src, start: d.start(n)}}
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		s.origin.style = double
	case n.Style&yaml.SingleQuotedStyle != 0:
		s.origin.style = single
	case n.Style&yaml.LiteralStyle != 0:
		s.origin.style = literal
	case n.Style&yaml.FoldedStyle != 0:
		s.origin.style = folded
	}
	s.Quoted = s.origin.style != plain
	if !s.Quoted && (n.Style&yaml.TaggedStyle == 0 || n.Tag != "!!str") {
		s.Tag = resolve(s.Text)
	}
	s.Span = d.extent(n, s)
	return s
}

// extent is the span of a scalar; most are plain ASCII on one line, for which the
// parser's position is enough.
func (d *decoder) extent(n *yaml.Node, s *Scalar) Span {
	end := s.origin.start + len(s.Text)
	if s.origin.style == plain && d.src.blocks == nil && end <= len(d.src.text) &&
		string(d.src.text[s.origin.start:end]) == s.Text && s.origin.start == d.src.offset(Position{n.Line, n.Column}) {
		return Span{Position{n.Line, n.Column}, Position{n.Line, n.Column + len(s.Text)}}
	}
	return d.src.span(s.origin.start, s.end())
}

// end is the offset behind a scalar, with its closing quote.
func (s *Scalar) end() int {
	a := s.align()
	if s.origin.style == single || s.origin.style == double {
		return min(a.end+1, len(s.origin.src.text))
	}
	return a.end
}

// start is the offset of a node behind its anchor and tag.
func (d *decoder) start(n *yaml.Node) int {
	empty := n.Kind == yaml.ScalarNode && n.Value == "" && n.Style&^yaml.TaggedStyle == 0
	return d.src.skipProperties(d.src.offset(Position{n.Line, n.Column}), empty)
}

// skipProperties passes anchors and tags, which may stand on lines of their own. An
// empty value has its place right behind them.
func (s *source) skipProperties(at int, empty bool) int {
	for at < len(s.text) && (s.text[at] == '&' || s.text[at] == '!') {
		anchor := s.text[at] == '&'
		for at++; at < len(s.text) && !isSpace(s.text[at]); at++ {
			if c := s.text[at]; anchor && (c == ',' || c == ']' || c == '}') {
				return at
			}
		}
		next := s.skipBlank(at)
		if next == len(s.text) || empty && s.text[next] != '&' && s.text[next] != '!' {
			return at
		}
		at = next
	}
	return at
}

// resolve tells the type of a plain scalar under the YAML 1.2 core schema.
func resolve(text string) Tag {
	switch text {
	case "", "~", "null", "Null", "NULL":
		return Null
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return Bool
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", ".nan", ".NaN", ".NAN":
		return Float
	}
	if c := text[0]; c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') {
		return String
	}
	if isInt(text) {
		return Int
	}
	if isFloat(text) {
		return Float
	}
	return String
}

func isInt(text string) bool {
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		return digits != "" && strings.Trim(digits, "0123456789abcdefABCDEF") == ""
	}
	if digits, ok := strings.CutPrefix(text, "0o"); ok {
		return digits != "" && strings.Trim(digits, "01234567") == ""
	}
	digits := strings.TrimLeft(text, "+-")
	return digits != "" && len(text)-len(digits) <= 1 && strings.Trim(digits, "0123456789") == ""
}

func isFloat(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && c != '.' && c != 'e' && c != 'E' && c != '+' && c != '-' {
			return false
		}
	}
	_, err := strconv.ParseFloat(text, 64)
	return err == nil || strings.HasSuffix(err.Error(), strconv.ErrRange.Error())
}

// Int gives the number of a scalar whose Tag is Int; ok is false where it does
// not fit 64 bits or is written with a leading zero (012: ten or twelve?).
func (s *Scalar) Int() (n int64, ok bool) {
	if s.Tag != Int || leadingZero(s.Text) {
		return 0, false
	}
	text, base := s.Text, 10
	if digits, hex := strings.CutPrefix(text, "0x"); hex {
		text, base = digits, 16
	} else if digits, octal := strings.CutPrefix(text, "0o"); octal {
		text, base = digits, 8
	}
	n, err := strconv.ParseInt(text, base, 64)
	return n, err == nil
}

// Float gives the number of a scalar whose Tag is Int or Float; ok is false for .inf and .nan.
func (s *Scalar) Float() (f float64, ok bool) {
	if s.Tag == Int {
		n, ok := s.Int()
		return float64(n), ok
	}
	f, err := strconv.ParseFloat(s.Text, 64)
	return f, s.Tag == Float && err == nil && !strings.HasSuffix(strings.ToLower(s.Text), "inf") && !strings.HasSuffix(strings.ToLower(s.Text), "nan")
}

// Plain gives the scalar as plain data: nil, bool, int, float64 or string. What is
// not a number that can be meant (.inf, 012, beyond 64 bits) is given as its text.
func (s *Scalar) Plain() any {
	switch s.Tag {
	case Null:
		return nil
	case Bool:
		return strings.EqualFold(s.Text, "true")
	case Int:
		if n, ok := s.Int(); ok {
			return int(n)
		}
	case Float:
		if f, ok := s.Float(); ok {
			return f
		}
	}
	return s.Text
}

// Plain gives the value as plain data: what Scalar.Plain gives, []any and
// map[string]any. Text is not interpolated.
func (v *Value) Plain() any {
	switch v.Kind {
	case ListValue:
		list := make([]any, len(v.List))
		for i := range v.List {
			list[i] = v.List[i].Plain()
		}
		return list
	case MapValue:
		m := make(map[string]any, len(v.Map))
		for i := range v.Map {
			m[v.Map[i].Key.Value] = v.Map[i].Value.Plain()
		}
		return m
	}
	if v.Scalar == nil {
		return nil
	}
	return v.Scalar.Plain()
}

// String names the tag as findings do.
func (t Tag) String() string {
	switch t {
	case Int:
		return "an integer"
	case Float:
		return "a number"
	case Bool:
		return "true or false"
	case Null:
		return "nothing"
	}
	return "text"
}

func leadingZero(text string) bool {
	digits := strings.TrimLeft(text, "+-")
	return len(digits) > 1 && len(text)-len(digits) <= 1 && digits[0] == '0' && strings.Trim(digits, "0123456789_") == ""
}

// withoutZeros is the decimal that 012 looks like.
func withoutZeros(text string) string {
	sign, digits := "", text
	if text[0] == '+' || text[0] == '-' {
		sign, digits = strings.TrimPrefix(text[:1], "+"), text[1:]
	}
	digits = strings.TrimLeft(strings.ReplaceAll(digits, "_", ""), "0")
	if digits == "" {
		return "0"
	}
	return sign + digits
}

// sexagesimal is what YAML 1.1 reads as a number to the base of 60: 12:30 is 750.
var sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// underscored is what YAML 1.1 and the parser read as a number and YAML 1.2 as text.
var underscored = regexp.MustCompile(`^[-+]?(0b[01_]+|0[xo]?[0-9a-fA-F]*_[0-9a-fA-F_]*|[1-9][0-9]*_[0-9_]*)$`)

// trap says what YAML 1.1 would make of a plain text of YAML 1.2, empty for no trap.
func trap(s *Scalar) string {
	if s.Quoted || s.Tag != String {
		return ""
	}
	switch strings.ToLower(s.Text) {
	case "on", "yes", "y", "off", "no", "n":
		if s.Text[1:] == strings.ToLower(s.Text[1:]) || s.Text == strings.ToUpper(s.Text) {
			return "a boolean"
		}
		return ""
	}
	if c := s.Text[0]; c != '+' && c != '-' && (c < '0' || c > '9') {
		return ""
	}
	switch {
	case sexagesimal.MatchString(s.Text):
		return "a number to the base of 60"
	case underscored.MatchString(s.Text):
		return "an integer"
	}
	return ""
}

// quote writes a text so that YAML reads it as it is.
func quote(text string) string {
	if !strings.ContainsAny(text, "\"\\\n") {
		return `"` + text + `"`
	}
	if !strings.ContainsRune(text, '\n') {
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	return strconv.Quote(text)
}
