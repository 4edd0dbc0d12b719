package schema

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sort puts findings in the order of files and places, and drops repeated ones
// (what stands behind an anchor is read once for each alias).
func Sort(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}

// Failed tells whether one of the findings is an error.
func Failed(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Error })
}

// String gives the finding's first line, without the source.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s [%s]", f.place(), f.Severity, f.Message, f.Rule)
}

// place is where a finding stands; what stands in no file, such as a flag, has no line.
func (f Finding) place() string {
	if f.Line == 0 {
		return f.Path
	}
	return fmt.Sprintf("%s:%d:%d", f.Path, f.Line, f.Column)
}

// Render writes findings for people: a line with place, message and rule, the source
// line, a caret under the place, and help where there is a suggestion. sources gives
// a file's bytes, or nil where it cannot be had: then there is no source line.
func Render(w io.Writer, findings []Finding, sources func(path string) []byte, color bool) error {
	paint := func(code, text string) string {
		if !color {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	read := map[string]*source{}
	var b bytes.Buffer
	for _, f := range findings {
		shade := map[Severity]string{Error: "31;1", Warning: "33;1", Note: "36;1"}[f.Severity]
		fmt.Fprintf(&b, "%s %s %s %s\n", paint("1", f.place()+":"),
			paint(shade, string(f.Severity)+":"), f.Message, paint("2", "["+f.Rule+"]"))
		src, ok := read[f.Path]
		if !ok {
			if text := sources(f.Path); text != nil {
				src = newSource(f.Path, text)
			}
			read[f.Path] = src
		}
		if src != nil && f.Line >= 1 && f.Line <= len(src.lines) {
			if line, caret := excerpt(src, f); strings.TrimSpace(line) != "" {
				fmt.Fprintf(&b, "  %s\n  %s\n", line, paint(shade, caret))
			}
		}
		if f.Suggestion != "" {
			fmt.Fprintf(&b, "  %s %s\n", paint("36;1", "help:"), strings.ReplaceAll(printable(f.Suggestion), "\n", "\n        "))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// widest is how much of a line is shown: a file of one line must not fill the screen.
const widest = 160

// excerpt gives a finding's line with its tabs as spaces, and a caret line below it.
func excerpt(src *source, f Finding) (line, caret string) {
	start := src.lines[f.Line-1]
	text := []rune(strings.ToValidUTF8(string(src.text[start:src.lineEnd(start)]), "\ufffd"))
	at := min(max(f.Column-1, 0), len(text))
	end := at + 1
	switch {
	case f.EndLine == f.Line:
		end = min(max(f.EndColumn-1, end), len(text)+1)
	case f.EndLine > f.Line:
		end = max(len(text), end)
	}
	var cut string
	if len(text) > widest && at > widest/2 {
		from := at - widest/2
		text, at, end, cut = text[from:], at-from, end-from, "…"
	}
	tail := ""
	if len(text) > widest {
		text, end, tail = text[:widest], min(end, widest+1), "…"
	}
	var shown, marks strings.Builder
	shown.WriteString(cut)
	marks.WriteString(strings.Repeat(" ", utf8.RuneCountInString(cut)))
	for i := 0; i < max(len(text), end); i++ {
		r, width := ' ', 1
		if i < len(text) {
			r = text[i]
			width = cells(r)
		}
		switch {
		case r == '\t':
			shown.WriteString("  ")
			width = 2
		case !unicode.IsPrint(r) && width > 0:
			shown.WriteRune('\ufffd')
		case i < len(text):
			shown.WriteRune(r)
		}
		mark := " "
		if i == at {
			mark = "^"
		} else if i > at && i < end {
			mark = "~"
		}
		marks.WriteString(strings.Repeat(mark, min(width, 1)))
		if mark == "^" {
			mark = "~"
			if end <= at+1 {
				mark = " "
			}
		}
		marks.WriteString(strings.Repeat(mark, max(width-1, 0)))
	}
	return shown.String() + tail, strings.TrimRight(marks.String(), " ")
}

// printable replaces control characters, so that a file cannot drive the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, text)
}

// cells is how many columns of a terminal a character fills.
func cells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me) || r == '\u200b' || r == '\u200d':
		return 0
	case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf && r != 0x303f || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
		return 2
	}
	return 1
}

// Nearest gives the candidate that a mistyped name most likely meant; ok is false
// where none is near enough to be worth naming.
func Nearest(name string, candidates []string) (string, bool) {
	if n := utf8.RuneCountInString(name); n < 2 || n > 64 {
		return "", false
	}
	fold := strings.NewReplacer("_", "", "-", "")
	plainName := fold.Replace(strings.ToLower(name))
	best, least := "", 1+max(1, utf8.RuneCountInString(name)/3)
	for _, candidate := range candidates {
		distance := edits([]rune(name), []rune(candidate), least+1)
		if distance == least && best != "" && subsequence(name, candidate) && !subsequence(name, best) {
			best = candidate // letters left out are likelier than other letters
			continue
		}
		if distance > 0 && plainName != "" && fold.Replace(strings.ToLower(candidate)) == plainName {
			distance = min(distance, 1)
		}
		if distance < least && candidate != "" && distance < utf8.RuneCountInString(name) {
			best, least = candidate, distance
		}
	}
	return best, best != ""
}

// subsequence tells whether the longer of two names is the shorter with letters added.
func subsequence(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for _, r := range b {
		if first, size := utf8.DecodeRuneInString(a); size > 0 && first == r {
			a = a[size:]
		}
	}
	return a == ""
}

// edits counts the letters to insert, drop, change or swap; it gives up at limit.
func edits(a, b []rune, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
