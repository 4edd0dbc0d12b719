package schema

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

func newerVersion(version int) string {
	return fmt.Sprintf("the file is of version %d of the language; this binary knows version %d", version, LanguageVersion)
}

// diagnose says where a file stops being YAML and, if it can, what was meant. The
// parser's own line may be that of the block around the error, and it has no column:
// instead the parser is fed byte by byte, and the place is how far it came. What
// stands there is then read as an author would (suspects), and the last suspicious
// thing before that place is the finding.
func diagnose(src *source, err error) *Finding {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, rest, ok := strings.Cut(message, ": "); ok && strings.HasPrefix(line, "line ") {
		message = rest
	}
	reached := progress(src.text)
	if strings.HasPrefix(message, "exceeded max depth") {
		at := deep(src.text, reached)
		f := src.finding(Error, "yaml-limit", src.span(at, at+1), fmt.Sprintf("nested deeper than %d levels", maxDepth), "")
		return &f
	}
	if name, ok := strings.CutPrefix(message, "unknown anchor '"); ok {
		name = strings.TrimSuffix(name, "' referenced")
		if at := bytes.LastIndex(src.text[:min(reached+1, len(src.text))], []byte("*"+name)); at >= 0 {
			f := src.finding(Error, "yaml-syntax", src.span(at, at+1+len(name)),
				fmt.Sprintf("*%s is an alias to YAML, and there is no anchor &%s before it; quote the text if it is none", name, name), "")
			return &f
		}
	}
	s := scanner{source: src}
	s.scan(reached)
	if n := len(s.suspects); n > 0 {
		return &s.suspects[n-1]
	}
	at := min(reached, len(src.text)-1)
	for at > 0 && isSpace(src.text[at]) {
		at--
	}
	f := src.finding(Error, "yaml-syntax", src.span(at, min(at+1, len(src.text))), humane(message), "")
	return &f
}

// progress is how many bytes the parser has read when it gives up.
func progress(text []byte) int {
	r := &byByte{text: text}
	decoder := yaml.NewDecoder(r)
	for {
		var n yaml.Node
		if err := parseYAML(decoder, &n); err != nil {
			return r.at
		}
	}
}

type byByte struct {
	text []byte
	at   int
}

func (r *byByte) Read(p []byte) (int, error) {
	if r.at == len(r.text) {
		return 0, io.EOF
	}
	p[0] = r.text[r.at]
	r.at++
	return 1, nil
}

// deep finds the first of the brackets (or dashes) that nest too deep.
func deep(text []byte, reached int) int {
	depth := 0
	for at, c := range text[:min(reached, len(text))] {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > maxDepth {
			return at
		}
	}
	return min(reached, len(text)-1)
}

func humane(message string) string {
	for problem, meaning := range map[string]string{
		"mapping values are not allowed":      "a key and its value cannot stand here: quote the text if the “: ” belongs to it, else look at the indentation",
		"did not find expected key":           "a key is wanted here: look at the indentation, and quote text that starts with a quote, a bracket or !",
		"did not find expected '-'":           "an element of the list (- …) is wanted here: look at the indentation",
		"could not find expected ':'":         "a key must be followed by a colon and a space",
		"cannot start any token":              "a value cannot start with this character; quote the text",
		"found unexpected end of stream":      "the file ends within a quoted text",
		"did not find expected ',' or '}'":    "a comma or } is wanted here",
		"did not find expected ',' or ']'":    "a comma or ] is wanted here",
		"block sequence entries are not":      "an element of a list cannot stand here: start it on a line of its own",
		"did not find expected node content":  "a value is wanted here",
		"found unknown escape character":      "unknown escape in double quotes; write \\\\ for a backslash, or use single quotes",
		"did not find expected alphabetic or": "& and * start an anchor or alias in YAML; quote the text",
		"found a tab character":               "a tab indents here; YAML indents with spaces",
	} {
		if strings.Contains(message, problem) {
			return meaning
		}
	}
	return "not YAML: " + message
}

// scanner reads a file line by line as its author would, and notes what the YAML
// parser may have stumbled over. It is used only where the parser did.
type scanner struct {
	*source
	limit    int // nothing behind this offset is of interest
	suspects []Finding
	levels   []level
}

// level is a block collection that is open.
type level struct {
	column int
	list   bool
	empty  bool // the last key has no value on its line: a list may start in the same column
}

func (s *scanner) suspect(rule string, start, end int, message, suggestion string) {
	if start < s.limit {
		s.suspects = append(s.suspects, s.finding(Error, rule, s.span(start, end), message, suggestion))
	}
}

var (
	keyStart    = regexp.MustCompile(`^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#&*!|>'"%@` + "`" + `{}\[\],?:-][^\n\r]*?|[?:-][^\s][^\n\r]*?)[ \t]*:(?:[ \t]|$)`)
	blockHeader = regexp.MustCompile(`^[|>][-+0-9]*[ \t]*(?:[ \t]#.*)?$`)
	nextKey     = regexp.MustCompile(`^(?:- +)*[A-Za-z_][A-Za-z0-9_-]*:(?:[ \t]|$)`)
	properties  = regexp.MustCompile(`^(?:[&][A-Za-z0-9_-]+|!![a-z]+)[ \t]+`)
)

func (s *scanner) scan(limit int) {
	s.limit = limit
	for at := 0; at < min(limit, len(s.text)); {
		at = s.line(at)
	}
}

// next is the offset of the line behind the one at this offset.
func (s *scanner) next(at int) int {
	at = s.lineEnd(at)
	if at < len(s.text) && s.text[at] == '\r' && at+1 < len(s.text) && s.text[at+1] == '\n' {
		at++
	}
	return min(at+1, max(len(s.text), at))
}

// line reads one line in block context and what its value goes on with; the result
// is where the next line starts.
func (s *scanner) line(start int) int {
	at := start
	for at < len(s.text) && s.text[at] == ' ' {
		at++
	}
	end := s.lineEnd(at)
	rest := strings.TrimRight(string(s.text[at:end]), " \t")
	switch {
	case rest == "" || rest[0] == '#' || strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...") || at == start && rest[0] == '%':
		return max(s.next(at), start+1)
	case rest[0] == '\t':
		s.suspect("yaml-syntax", at, at+1, "a tab indents here; YAML indents with spaces", "")
		return max(s.next(at), start+1)
	}
	column, element := at-start, false
	for strings.HasPrefix(rest, "- ") || rest == "-" {
		s.level(column, true, at)
		skip := 1
		for skip < len(rest) && isBlank(rest[skip]) {
			skip++
		}
		column, at, rest, element = column+skip, at+skip, rest[skip:], true
	}
	if rest == "" {
		return s.next(at)
	}
	key := keyStart.FindStringSubmatchIndex(rest)
	if key == nil || strings.Contains(rest[:key[3]], " #") {
		return s.value(at, end, column-1, element)
	}
	s.level(column, false, at)
	value := at + key[1]
	for value < end && isBlank(s.text[value]) {
		value++
	}
	top := &s.levels[len(s.levels)-1]
	top.empty = value >= end || s.text[value] == '#'
	if top.empty {
		return s.next(at)
	}
	return s.value(value, end, column, true)
}

// level enters or leaves block collections so that one in this column is open.
func (s *scanner) level(column int, list bool, at int) {
	n := len(s.levels)
	for n > 0 && (s.levels[n-1].column > column || s.levels[n-1].column == column && s.levels[n-1].list && !list) {
		n--
	}
	left := n < len(s.levels)
	s.levels = s.levels[:n]
	switch {
	case n > 0 && s.levels[n-1].column == column && s.levels[n-1].list == list:
		return
	case n > 0 && s.levels[n-1].column == column && list && !s.levels[n-1].empty:
		s.suspect("yaml-syntax", at, s.lineEnd(at), "an element of a list stands among the keys of a map: look at the indentation", "")
	case left && (n == 0 || s.levels[n-1].column < column):
		s.suspect("yaml-syntax", at, s.lineEnd(at), "the indentation matches no line above", "")
	}
	s.levels = append(s.levels, level{column: column, list: list})
}

// value reads a value that starts on a line; indent is the column of its key.
func (s *scanner) value(at, end, indent int, keyed bool) int {
	rest := strings.TrimRight(string(s.text[at:end]), " \t\r")
	for m := properties.FindString(rest); m != ""; m = properties.FindString(rest) {
		at, rest = at+len(m), rest[len(m):]
	}
	if rest == "" {
		return s.next(at)
	}
	whole := withoutComment(rest)
	quoteIt := func(why string) {
		s.suspect("yaml-syntax", at, at+len(whole), why+"; quote the whole value", quote(whole))
	}
	switch c := rest[0]; {
	case c == '#':
	case c == '|' || c == '>':
		if !blockHeader.MatchString(rest) {
			quoteIt(fmt.Sprintf("%c at the start of a value begins a block of text", c))
			return s.next(at)
		}
		return s.blockScalar(at, indent)
	case c == '"' || c == '\'':
		closed := s.quoted(at, indent)
		if closed < 0 {
			return s.next(at)
		}
		if after := s.after(closed); after != "" && (keyed || !strings.HasPrefix(after, ":")) {
			whole = withoutComment(strings.TrimRight(string(s.text[at:s.lineEnd(closed)]), " \t\r"))
			quoteIt("a value that starts with a quote ends with it")
		}
		return s.next(closed)
	case c == '[' || c == '{':
		closed := s.flow(at, indent)
		if closed < 0 {
			return s.next(at)
		}
		if after := s.after(closed); after != "" {
			whole = withoutComment(strings.TrimRight(string(s.text[at:s.lineEnd(closed)]), " \t\r"))
			quoteIt(fmt.Sprintf("a value that starts with %c ends with its bracket", c))
		}
		return s.next(closed)
	case c == '%' || c == '@' || c == '`' || c == ']' || c == '}' || c == ',':
		quoteIt(fmt.Sprintf("a value cannot start with %c", c))
	case c == '!':
		s.suspect("yaml-tag", at, at+1, "! at the start of a value is a tag to YAML; write not instead, or quote the text", negated(whole, nil))
	case c == '&' || c == '*':
		quoteIt(fmt.Sprintf("%c at the start of a value is an anchor or alias to YAML", c))
	case keyed && (strings.HasPrefix(rest, "- ") || rest == "-"):
		s.suspect("yaml-syntax", at, at+1, "a list starts on the line below its key, or is written [a, b]", "")
	default:
		return s.plain(at, indent, whole, keyed)
	}
	return s.next(at)
}

// plain reads a plain scalar, which may go on in deeper lines.
func (s *scanner) plain(at, indent int, whole string, keyed bool) int {
	if strings.Contains(whole, ": ") || strings.HasSuffix(whole, ":") {
		s.suspect("yaml-syntax", at, at+len(whole), "“: ” within an unquoted value starts another value; quote the whole value", quote(whole))
	}
	if !keyed {
		s.suspect("yaml-syntax", at, at+len(whole), "a key must be followed by a colon and a space", "")
		return s.next(at)
	}
	next := s.next(at)
	for next < len(s.text) {
		start := next
		for next < len(s.text) && s.text[next] == ' ' {
			next++
		}
		line := strings.TrimRight(string(s.text[next:s.lineEnd(next)]), " \t\r")
		if line != "" && (next-start <= indent || line[0] == '#' || len(whole) < len(strings.TrimRight(string(s.text[at:s.lineEnd(at)]), " \t\r"))) {
			return start
		}
		body := withoutComment(line)
		if nextKey.MatchString(body) {
			s.suspect("yaml-syntax", next, next+len(body), "this line is indented deeper than the key it stands beside: it goes on with the value above", "")
		} else if strings.Contains(body, ": ") {
			text := strings.Join(strings.Fields(string(s.text[at:next])+body), " ")
			s.suspect("yaml-syntax", at, next+len(body), "“: ” within an unquoted value starts another value; quote the whole value", quote(text))
		}
		following := s.next(next)
		if following <= start {
			break
		}
		next = following
	}
	return len(s.text)
}

// blockScalar passes the lines of a block scalar.
func (s *scanner) blockScalar(at, indent int) int {
	next := s.next(at)
	for next < len(s.text) {
		column := 0
		for next+column < len(s.text) && s.text[next+column] == ' ' {
			column++
		}
		if next+column < len(s.text) && !isBreak(s.text[next+column]) && column <= indent {
			return next
		}
		following := s.next(next)
		if following <= next {
			break
		}
		next = following
	}
	return len(s.text)
}

// after is what follows on the line, without a comment.
func (s *scanner) after(at int) string {
	rest := string(s.text[at:s.lineEnd(at)])
	trimmed := strings.TrimSpace(rest)
	if trimmed == "" || trimmed[0] == '#' && isBlank(rest[0]) {
		return ""
	}
	return trimmed
}

// quoted passes a quoted scalar and gives the offset behind it. One that is not
// closed before a line that looks like the next key is a suspect, and -1.
func (s *scanner) quoted(at, indent int) int {
	quote := s.text[at]
	for i := at + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\' && quote == '"':
			i++
		case c == quote && quote == '\'' && i+1 < len(s.text) && s.text[i+1] == '\'':
			i++
		case c == quote:
			return i + 1
		case c == '\n' && s.outdented(i+1, indent):
			s.suspect("yaml-syntax", at, s.lineEnd(at), "this quote is never closed", "")
			return -1
		}
	}
	s.suspect("yaml-syntax", at, s.lineEnd(at), "this quote is never closed", "")
	return -1
}

// outdented tells that the line at this offset belongs to the block again.
func (s *scanner) outdented(at, indent int) bool {
	column := 0
	for at < len(s.text) && s.text[at] == ' ' {
		at++
		column++
	}
	return column <= indent && nextKey.Match(s.text[at:s.lineEnd(at)])
}

// withoutComment cuts a comment off a plain value.
func withoutComment(text string) string {
	if at := strings.Index(text, " #"); at >= 0 {
		text = text[:at]
	}
	return strings.TrimRight(text, " \t")
}
