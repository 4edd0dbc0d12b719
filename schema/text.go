package schema

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Comment is what YAML took for a comment behind a plain scalar.
type Comment struct {
	Text string // with its #
	Span Span
}

// AsText splits a scalar into literal text and ${{ expressions }}. The findings
// are those of the ${{ themselves; expressions are not compiled here.
func (s *Scalar) AsText() (Text, []Finding) {
	t := Text{Set: true, Span: s.Span}
	if !strings.Contains(s.Text, "${{") {
		if s.Text != "" {
			t.Parts = []Part{{Literal: s.Text}}
		}
		return t, nil
	}
	var findings []Finding
	places := s.align()
	span := func(from, to int) Span { // of runes
		return s.origin.src.span(places.at(from), places.at(to-1)+1)
	}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.Parts = append(t.Parts, Part{Literal: literal.String()})
			literal.Reset()
		}
	}
	rest, runes := s.Text, 0 // runes before rest
	for {
		i := strings.Index(rest, "${{")
		if i < 0 {
			literal.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			literal.WriteString(rest[:i-1] + "${{")
			runes += utf8.RuneCountInString(rest[:i]) + 3
			rest = rest[i+3:]
			continue
		}
		literal.WriteString(rest[:i])
		runes += utf8.RuneCountInString(rest[:i])
		body := rest[i+3:]
		end := closing(body)
		opener := span(runes, runes+3)
		if end < 0 {
			findings = append(findings, s.unterminated(opener))
			literal.WriteString(rest[i:])
			break
		}
		if source := strings.TrimSpace(body[:end]); source == "" {
			findings = append(findings, s.origin.src.finding(Error, "interpolation", opener, "${{ }} has no expression in it", ""))
		} else {
			flush()
			lead := strings.Index(body, source)
			from := runes + 3 + utf8.RuneCountInString(body[:lead])
			t.Parts = append(t.Parts, Part{Expr: &Expr{
				Source: source, Span: span(from, from+utf8.RuneCountInString(source)), scalar: s, offset: from,
			}})
		}
		runes += 3 + utf8.RuneCountInString(body[:end]) + 2
		rest = body[end+2:]
	}
	flush()
	return t, findings
}

// unterminated is the finding of a ${{ without its }}; the # of a comment that swallowed it is the better place.
func (s *Scalar) unterminated(opener Span) Finding {
	src := s.origin.src
	if c := s.comment(); c != nil && strings.Contains(c.Text, "}}") {
		return src.finding(Error, "comment-in-expression", c.Span,
			"YAML takes this # for a comment, which cuts the ${{ … }} in two; quote the whole value",
			s.quoteLine())
	}
	return src.finding(Error, "interpolation", opener, "${{ has no matching }}", "")
}

// closing finds the }} of an interpolation, past quotes and braces inside the
// expression. Where those do not match, the first }} is meant: the compiler will say what is wrong.
func closing(body string) int {
	depth := 0
	var quoted byte
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted != 0:
			if c == '\\' && quoted != '`' {
				i++
			} else if c == quoted {
				quoted = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quoted = c
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == '}' && strings.HasPrefix(body[i:], "}}"):
			return i
		}
	}
	return strings.Index(body, "}}")
}

// AsExpr takes a scalar for one bare expression. A ${{ … }} around the whole is dropped:
// ParseExpr is the same with its findings.
func (s *Scalar) AsExpr() Expr {
	e, _ := s.ParseExpr()
	return e
}

// ParseExpr takes a scalar for one bare expression. Where something is wrong with
// it that a compiler could not explain, Source is left empty: nothing is to be compiled.
func (s *Scalar) ParseExpr() (Expr, []Finding) {
	src := s.origin.src
	e := Expr{Source: strings.TrimSpace(s.Text), Span: s.Span, scalar: s, Comment: s.comment()}
	e.offset = utf8.RuneCountInString(s.Text[:strings.Index(s.Text, e.Source)])
	report := func(rule string, span Span, message, suggestion string) (Expr, []Finding) {
		e.Source = ""
		return e, []Finding{src.finding(Error, rule, span, message, suggestion)}
	}
	if e.Source == "" {
		return report("empty", s.Span, "an expression is wanted here, and there is none", "")
	}
	if at := outsideQuotes(e.Source, "${{"); at >= 0 {
		from := e.offset + utf8.RuneCountInString(e.Source[:at])
		span := Span{s.Position(from), s.Position(from + 3)}
		end := closing(e.Source[at+3:])
		if at > 0 || end < 0 || end+5 != len(e.Source) {
			return report("interpolation-in-expression", span, "this field is an expression already: ${{ … }} is for text", "")
		}
		inner := e.Source[3 : 3+end]
		source := strings.TrimSpace(inner)
		findings := []Finding{src.finding(Error, "interpolation-in-expression", span,
			"this field is an expression already: write it without ${{ }}", source)}
		e.offset += 3 + utf8.RuneCountInString(inner[:strings.Index(inner, source)])
		e.Source = source
		return e, findings
	}
	if e.Comment != nil && unfinished(e.Source) {
		return report("comment-in-expression", e.Comment.Span,
			"YAML takes this # for a comment, which cuts the expression in two; quote the whole expression", s.quoteLine())
	}
	return e, nil
}

// CommentFinding is the finding for an expression that does not compile although,
// or rather because, a comment follows it; ok is false where none does.
func (e *Expr) CommentFinding() (f Finding, ok bool) {
	if e.Comment == nil || e.scalar == nil {
		return Finding{}, false
	}
	return e.scalar.origin.src.finding(Error, "comment-in-expression", e.Comment.Span,
		"the expression before this # does not compile: YAML takes the rest for a comment; quote the whole expression if the # belongs to it",
		e.scalar.quoteLine()), true
}

// Finding makes a finding about runes from (included) to to (excluded) of Source.
func (e *Expr) Finding(severity Severity, rule string, from, to int, message, suggestion string) Finding {
	if e.scalar == nil {
		return Finding{Line: 1, Column: 1, EndLine: 1, EndColumn: 1, Severity: severity, Rule: rule, Message: message, Suggestion: suggestion}
	}
	places, src := e.scalar.align(), e.scalar.origin.src
	span := src.span(places.at(e.offset+from), places.at(e.offset+to))
	if to > from {
		last := places.at(e.offset + to - 1)
		_, size := utf8.DecodeRune(src.text[min(last, len(src.text)):])
		span.End = src.position(last + size)
	}
	return src.finding(severity, rule, span, message, suggestion)
}

// comment is what follows a plain scalar on its line as a comment.
func (s *Scalar) comment() *Comment {
	if s.Quoted {
		return nil
	}
	src := s.origin.src
	end := s.end()
	at := end
	for at < len(src.text) && isBlank(src.text[at]) {
		at++
	}
	if at == end || at == len(src.text) || src.text[at] != '#' {
		return nil
	}
	stop := src.lineEnd(at)
	return &Comment{Text: string(src.text[at:stop]), Span: src.span(at, stop)}
}

// quoteLine quotes a plain scalar with the comment that YAML cut off it.
func (s *Scalar) quoteLine() string {
	src := s.origin.src
	whole := strings.TrimRight(string(src.text[s.end():src.lineEnd(s.end())]), " \t")
	return quote(s.Text + whole)
}

// outsideQuotes finds a text in an expression, not within its strings.
func outsideQuotes(source, wanted string) int {
	var quoted byte
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case quoted != 0:
			if c == '\\' && quoted != '`' {
				i++
			} else if c == quoted {
				quoted = 0
			}
		case strings.HasPrefix(source[i:], wanted):
			return i
		case c == '"' || c == '\'' || c == '`':
			quoted = c
		}
	}
	return -1
}

// unfinished tells that an expression cannot end where it does: within a string
// or brackets, or behind an operator.
func unfinished(source string) bool {
	depth, quoted := balance(source)
	if quoted || depth > 0 {
		return true
	}
	last, _ := utf8.DecodeLastRuneInString(source)
	if strings.ContainsRune("+-*/%^=<>!&|?:,.(", last) {
		return true
	}
	word := source[strings.LastIndexFunc(source, func(r rune) bool { return !unicode.IsLetter(r) })+1:]
	switch word {
	case "and", "or", "not", "in", "contains", "matches", "startsWith", "endsWith":
		return len(word) < len(source)
	}
	return false
}

// balance counts the brackets that an expression leaves open, and whether it ends within a string.
func balance(source string) (open int, quoted bool) {
	var q byte
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case q != 0:
			if c == '\\' && q != '`' {
				i++
			} else if c == q {
				q = 0
			}
		case c == '"' || c == '\'' || c == '`':
			q = c
		case c == '(' || c == '[' || c == '{':
			open++
		case c == ')' || c == ']' || c == '}':
			open--
		}
	}
	return open, q != 0
}
