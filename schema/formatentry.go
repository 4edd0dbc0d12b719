package schema

import (
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// comments writes comment lines in a column, runs of blank lines as one; none where first.
func (f *formatter) comments(lines []string, column int, first bool) {
	for i, line := range lines {
		switch {
		case line != "":
			f.out.WriteString(strings.Repeat(" ", column) + line + "\n")
			first, f.keeps = false, false
		case !first && (!f.keeps || i > 0) && i+1 <= len(lines):
			f.blank()
		}
	}
}

// blank writes a blank line, unless there is one or nothing above it.
func (f *formatter) blank() {
	b := f.out.Bytes()
	if len(b) > 0 && !(len(b) > 1 && b[len(b)-1] == '\n' && b[len(b)-2] == '\n') {
		f.out.WriteByte('\n')
	}
}

// entry writes one entry.
func (f *formatter) entry(e entry, t reflect.Type, column int) {
	s := f.d.src
	f.keeps = false
	pad := strings.Repeat(" ", column)
	if f.inline() {
		pad = ""
	}
	at := e.start + 1 // behind the dash
	head := pad + "-"
	if e.key != nil {
		at = f.d.end(e.key)
		colon := at
		for colon < len(s.text) && isBlank(s.text[colon]) {
			colon++
		}
		if colon >= len(s.text) || s.text[colon] != ':' || e.start >= at || strings.ContainsRune(string(s.text[e.start:at]), '\n') {
			f.shifted(e, column, pad)
			return
		}
		head = pad + string(s.text[e.start:at]) + ":"
		at = colon + 1
	}
	v := e.value
	node := s.offset(Position{v.Line, v.Column})
	start := f.d.start(v)
	if v.Kind == yaml.AliasNode {
		start = node
	}
	if f.block(v) {
		first := v.Content[0]
		contentAt := s.offset(Position{first.Line, first.Column})
		if v.Kind == yaml.SequenceNode {
			contentAt = f.dash(v, first)
		}
		compact := e.key == nil && s.position(contentAt).Line == s.position(at-1).Line
		if compact {
			if between := strings.TrimSpace(string(s.text[at:contentAt])); between != "" {
				f.shifted(e, column, pad)
				return
			}
			f.out.WriteString(head + " ")
			f.collection(v, f.inner(t, e.key), column+2, s.position(contentAt).Line, e.limit, false)
			return
		}
		// properties and a comment behind the key, then the collection in lines of its own
		eol := s.lineEnd(at)
		rest := string(s.text[at:min(eol, contentAt)])
		if node < contentAt && s.position(node).Line != s.position(at-1).Line && node != contentAt && (v.Anchor != "" || v.Style&yaml.TaggedStyle != 0) {
			f.shifted(e, column, pad)
			return
		}
		f.out.WriteString(head + trailer(rest) + "\n")
		f.collection(v, f.inner(t, e.key), column+2, s.position(at-1).Line, e.limit, false)
		return
	}
	between := string(s.text[at:min(max(start, at), len(s.text))])
	if strings.ContainsAny(between, "#\n") && v.Kind != yaml.AliasNode {
		if v.Value == "" && v.Style == 0 && v.Kind == yaml.ScalarNode && v.Anchor == "" {
			f.out.WriteString(head + trailer(string(s.text[at:s.lineEnd(at)])) + "\n")
			return
		}
		if strings.Contains(between, "#") || strings.TrimSpace(between) != "" {
			f.shifted(e, column, pad)
			return
		}
	}
	f.out.WriteString(head)
	if node < start { // anchor and tag
		f.out.WriteString(" " + strings.Join(strings.Fields(string(s.text[node:start])), " "))
	}
	if v.Kind == yaml.ScalarNode && v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		f.blockScalar(v, start, column)
		return
	}
	end := f.d.end(v)
	text := string(s.text[start:end])
	if text != "" {
		shift := column - (e.start - s.lineStart(e.start))
		f.out.WriteString(" " + reindent(text, shift, column+1))
	}
	f.out.WriteString(trailer(string(s.text[end:s.lineEnd(end)])) + "\n")
}

// inline tells that the collection starts on the line of a dash already written.
func (f *formatter) inline() bool {
	b := f.out.Bytes()
	return len(b) > 0 && b[len(b)-1] == ' '
}

// trailer is what stands behind a value on its line: nothing or a comment, whose distance stays.
func trailer(text string) string {
	text = strings.TrimRight(text, " \t")
	if text == "" {
		return ""
	}
	trimmed := strings.TrimLeft(text, " \t")
	gap := strings.ReplaceAll(text[:len(text)-len(trimmed)], "\t", "  ")
	if trimmed[0] != '#' || gap == "" {
		gap = " "
	}
	return gap + trimmed
}

// reindent shifts the lines of a value behind its first, none further left than least.
func reindent(text string, shift, least int) string {
	lines := strings.Split(text, "\n")
	for i := 1; i < len(lines); i++ {
		trimmed := strings.TrimLeft(lines[i], " \t")
		if trimmed == "" {
			lines[i] = ""
			continue
		}
		indent := max(len(lines[i])-len(trimmed)+shift, least)
		lines[i] = strings.Repeat(" ", indent) + trimmed
	}
	return strings.Join(lines, "\n")
}

// blockScalar writes a literal or folded text with its header, indented anew.
func (f *formatter) blockScalar(n *yaml.Node, start, column int) {
	s := f.d.src
	headerEnd := s.lineEnd(start)
	header := strings.TrimRight(string(s.text[start:headerEnd]), " \t")
	indicators, rest, _ := strings.Cut(header, " ")
	if rest != "" {
		rest = header[len(indicators):]
	}
	w := writer{src: s.text, at: min(headerEnd+1, len(s.text))}
	old, indent := w.indentation(n.Value), column+2
	for _, c := range indicators {
		if c >= '1' && c <= '9' {
			indent = column + int(c-'0')
		}
	}
	if !strings.HasSuffix(n.Value, "\n") && n.Value != "" { // its file ended without a line break
		indicators = strings.TrimRight(strings.ReplaceAll(indicators, "+", ""), "-") + "-"
	}
	f.out.WriteString(" " + indicators + rest + "\n")
	last := f.lastLine(n)
	for i := s.position(start).Line; i <= last; i++ {
		text := f.text(i)
		if len(text) > old {
			text = text[old:]
			f.out.WriteString(strings.Repeat(" ", indent) + text + "\n")
		} else {
			f.out.WriteString("\n")
		}
	}
	f.keeps = f.keep(n)
}

// shifted copies an entry whose form this layout does not know, line by line.
func (f *formatter) shifted(e entry, column int, pad string) {
	s := f.d.src
	line := s.position(e.start).Line - 1
	old := e.start - s.lineStart(e.start)
	f.out.WriteString(pad + strings.TrimRight(string(s.text[e.start:s.lineEnd(e.start)]), " \t") + "\n")
	for i := line + 1; i < e.limit; i++ {
		text := f.text(i)
		trimmed := strings.TrimLeft(text, " ")
		if trimmed == "" {
			f.out.WriteString("\n")
			continue
		}
		f.out.WriteString(strings.Repeat(" ", max(len(text)-len(trimmed)+column-old, 0)) + trimmed + "\n")
	}
}

// inner is the type below a key, as far as an order of keys depends on it.
func (f *formatter) inner(t reflect.Type, key *yaml.Node) reflect.Type {
	step := reflect.TypeFor[Step]()
	steps := reflect.TypeFor[[]Step]()
	switch {
	case key == nil && t == steps:
		return step
	case key == nil:
		return nil
	case t == reflect.TypeFor[Runbook]() && (key.Value == "steps" || key.Value == "finally"):
		return steps
	case t == step && (key.Value == "steps" || key.Value == "rescue" || key.Value == "undo" || key.Value == "after-batch"):
		return steps
	}
	return nil
}
