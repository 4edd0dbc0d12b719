package runner

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Masker takes secrets out of what is about to be seen: outputs, errors, commands. Each
// occurrence of a secret becomes [secret NAME], also where it is written as a URL, JSON,
// a quoted string or base64 would write it, and where it stands within a longer base64
// text (a Basic authorisation). Occurrences that overlap are replaced as one, so that no
// rest of the second is left.
//
// A short secret is masked like any other, wherever it stands, although that garbles
// text which only happens to contain it: a garbled text can be read again, a secret in a
// journal cannot be taken back. [Secrets.Warnings] says so. Paths and ids of steps do not
// go through a Masker: the runner's own names never come from a secret.
//
// The nil Masker masks nothing, at the cost of a comparison.
type Masker struct {
	patterns []maskPattern
	numbers  map[string]string // decimal texts that are whole secrets
}

type maskPattern struct{ text, name string }

// minNumber is the length from which a number that is a secret is one: 80 as a count is not a password.
const minNumber = 4

// NewMasker makes the masker of these secrets, by name. Empty values are no secrets.
func NewMasker(secrets map[string]string) *Masker {
	m := &Masker{numbers: map[string]string{}}
	seen := map[string]bool{}
	for _, name := range sortedNames(secrets) {
		for _, form := range secretForms(secrets[name]) {
			if !seen[form] {
				seen[form] = true
				m.patterns = append(m.patterns, maskPattern{form, SecretText(name)})
			}
		}
		if v := secrets[name]; len(v) >= minNumber && strings.Trim(v, "-.0123456789") == "" {
			m.numbers[v] = SecretText(name)
		}
	}
	if len(m.patterns) == 0 {
		return nil
	}
	return m
}

// SecretText is what stands for a secret wherever a person or a file would see it.
func SecretText(name string) string { return "[secret " + name + "]" }

// secretForms are the ways in which a secret may be written.
func secretForms(v string) []string {
	var forms []string
	add := func(min int, texts ...string) {
		for _, f := range texts {
			if len(f) >= min && strings.TrimSpace(f) != "" && !slices.Contains(forms, f) {
				forms = append(forms, f)
			}
		}
	}
	if v == "" {
		return nil
	}
	forms = append(forms, v)
	add(1, strings.TrimSpace(v))
	// A text of many lines, such as a key, comes out line by line. Short lines ("---") are anybody's.
	if strings.ContainsRune(v, '\n') {
		for line := range strings.SplitSeq(v, "\n") {
			add(8, strings.TrimSpace(line))
		}
	}
	add(1, url.QueryEscape(v), url.PathEscape(v), url.UserPassword("", v).String()[1:])
	quoted := strconv.Quote(v)
	add(1, quoted[1:len(quoted)-1])
	quoted = strconv.QuoteToASCII(v)
	add(1, quoted[1:len(quoted)-1])
	if b, err := json.Marshal(v); err == nil {
		add(1, string(b[1:len(b)-1]))
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) == nil {
		s := strings.TrimSpace(b.String())
		add(1, s[1:len(s)-1])
	}
	add(1, strings.ReplaceAll(v, `'`, `'\''`), strings.ReplaceAll(v, `'`, `'"'"'`)) // as a shell writes it
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		add(4, enc.EncodeToString([]byte(v)), enc.WithPadding(base64.NoPadding).EncodeToString([]byte(v)))
		// Within a longer text it starts at one of three places of a group of three bytes;
		// the characters it shares with its neighbours are not known. What is left must be
		// long enough to be nobody else's.
		for lead := range 3 {
			padded := enc.WithPadding(base64.NoPadding).EncodeToString(append(make([]byte, lead), v...))
			from := [...]int{0, 2, 3}[lead]
			to := (lead + len(v)) * 8 / 6
			if to > from {
				add(8, padded[from:to])
			}
		}
	}
	return forms
}

// String masks a text.
func (m *Masker) String(s string) string {
	if m == nil {
		return s
	}
	var found []occurrence
	for i := range m.patterns {
		p := &m.patterns[i]
		for at := 0; ; {
			n := strings.Index(s[at:], p.text)
			if n < 0 {
				break
			}
			found = append(found, occurrence{at + n, at + n + len(p.text), p.name})
			at += n + 1
		}
	}
	if found == nil {
		return s
	}
	slices.SortFunc(found, func(a, b occurrence) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	var b strings.Builder
	end := 0
	for i := 0; i < len(found); {
		first := found[i]
		b.WriteString(s[end:first.from])
		b.WriteString(first.name)
		end = first.to
		last := first.name
		for i++; i < len(found) && found[i].from < end; i++ {
			if found[i].to > end {
				end = found[i].to
				if found[i].name != last { // another secret begins within this one
					last = found[i].name
					b.WriteString(last)
				}
			}
		}
	}
	b.WriteString(s[end:])
	return b.String()
}

type occurrence struct {
	from, to int
	name     string
}

// Bytes masks a text of bytes, such as JSON; the result shares no memory with b where anything was masked.
func (m *Masker) Bytes(b []byte) []byte {
	if m == nil {
		return b
	}
	s := string(b)
	masked := m.String(s)
	if masked == s {
		return b
	}
	return []byte(masked)
}

// Empty tells that there is nothing to mask.
func (m *Masker) Empty() bool { return m == nil }

// JSON masks the strings of a JSON document, keys too, and numbers that are a secret;
// whatever the secrets are, it stays a document of the same shape. A text that is not
// JSON is masked as text.
func (m *Masker) JSON(raw []byte) []byte {
	if m == nil {
		return raw
	}
	if !json.Valid(raw) {
		return m.Bytes(raw)
	}
	out := make([]byte, 0, len(raw)+64)
	for i := 0; i < len(raw); {
		c := raw[i]
		end := i + 1
		switch {
		case c == '"':
			escaped := false
			for ; raw[end] != '"'; end++ {
				if raw[end] == '\\' {
					escaped = true
					end++
				}
			}
			end++
			out = m.appendString(out, raw[i:end], escaped)
		case c == '-' || c >= '0' && c <= '9':
			for end < len(raw) && strings.IndexByte("+-.eE0123456789", raw[end]) >= 0 {
				end++
			}
			if text, ok := m.numbers[string(raw[i:end])]; ok {
				out = strconv.AppendQuote(out, text)
			} else {
				out = append(out, raw[i:end]...)
			}
		default:
			out = append(out, c)
		}
		i = end
	}
	return out
}

// appendString masks one JSON string, with its quotes; one without anything to mask stays byte for byte.
func (m *Masker) appendString(out, quoted []byte, escaped bool) []byte {
	text := string(quoted[1 : len(quoted)-1])
	if escaped && json.Unmarshal(quoted, &text) != nil {
		return append(out, quoted...)
	}
	masked := m.String(text)
	if masked == text {
		return append(out, quoted...)
	}
	b, err := json.Marshal(masked)
	if err != nil {
		return append(out, quoted...)
	}
	return append(out, b...)
}

// Value masks a value of the form that expression.Value gives: texts, keys of maps, and a
// number that as a whole is a secret (it becomes text: an output of the wrong type is
// better than a journaled PIN). What holds nothing to mask is given back as it is.
func (m *Masker) Value(v any) any {
	if m == nil {
		return v
	}
	switch v := v.(type) {
	case string:
		return m.String(v)
	case []byte:
		return m.Bytes(v)
	case json.RawMessage:
		return json.RawMessage(m.JSON(v))
	case int, int64, float64, json.Number:
		if len(m.numbers) == 0 {
			return v
		}
		if text, ok := m.numbers[fmt.Sprint(v)]; ok {
			return text
		}
		if f, ok := v.(float64); ok {
			if text, ok := m.numbers[strconv.FormatFloat(f, 'f', -1, 64)]; ok {
				return text
			}
		}
	case []string:
		list := make([]string, len(v))
		for i := range v {
			list[i] = m.String(v[i])
		}
		return list
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = m.Value(v[i])
		}
		return list
	case map[string]any:
		masked := make(map[string]any, len(v))
		for k := range v {
			masked[m.String(k)] = m.Value(v[k])
		}
		return masked
	case error:
		return m.Error(v)
	}
	return v
}

// Error masks an error's text. Its chain stays, for those who ask with errors.As; they
// must not print what they find there.
func (m *Masker) Error(err error) error {
	if m == nil || err == nil {
		return err
	}
	text := err.Error()
	masked := m.String(text)
	if masked == text {
		return err
	}
	return &maskedError{masked, err}
}

type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
