package schema

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Format gives a runbook its canonical layout: two spaces of indentation, the keys
// of the top level and of steps in the order in which the language declares them,
// one blank line around the sections of the top level, none doubled elsewhere.
// What authors choose for readers stays: comments, quotes, the layout within { },
// [ ] and texts. Formatting twice changes nothing more, and the meaning is the same:
// should it ever not be, that is an error and not a file. A file that is not YAML
// is a *SyntaxError.
//
// Keys are not moved in a file with anchors, since one must stand before its aliases.
func Format(src []byte) ([]byte, error) {
	s := newSource("", src)
	s.text = bytes.ReplaceAll(bytes.ReplaceAll(s.text, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	s = newSource("", s.text)
	root, finding := read(s)
	if finding != nil {
		return nil, &SyntaxError{*finding}
	}
	f := formatter{d: newDecoder(s), order: map[reflect.Type]map[string]int{}, sorts: !anchored(root)}
	for _, t := range []reflect.Type{reflect.TypeFor[Runbook](), reflect.TypeFor[Step]()} {
		f.order[t] = map[string]int{}
		for i, name := range planOf(t).names {
			f.order[t][name] = i
		}
	}
	if f.explicit(root); f.finding != nil {
		return nil, &SyntaxError{*f.finding}
	}
	f.document(root)
	out := f.out.Bytes()
	again, finding := read(newSource("", out))
	if finding != nil {
		return nil, fmt.Errorf("format: the result would not be YAML (%d:%d: %s)", finding.Line, finding.Column, finding.Message)
	}
	if !same(root, again) {
		return nil, errors.New("format: the result would mean something else")
	}
	return out, nil
}

// SyntaxError is a file that cannot be formatted because it is not YAML.
type SyntaxError struct{ Finding Finding }

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Finding.Line, e.Finding.Column, e.Finding.Message)
}

func anchored(n *yaml.Node) bool {
	return n.Anchor != "" || n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, anchored)
}

// same compares two trees, the keys of a mapping in any order.
func same(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.Tag != b.Tag || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	if a.Kind != yaml.MappingNode {
		return slices.EqualFunc(a.Content, b.Content, same)
	}
	byKey := func(n *yaml.Node) []*yaml.Node {
		var values []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			values = append(values, &yaml.Node{Kind: yaml.SequenceNode, Value: n.Content[i].Value, Content: n.Content[i : i+2]})
		}
		slices.SortStableFunc(values, func(x, y *yaml.Node) int { return strings.Compare(x.Value, y.Value) })
		return values
	}
	return slices.EqualFunc(byKey(a), byKey(b), same)
}

// formatter copies a file entry by entry of its block collections. What lies
// between two entries is blank lines and comments; a comment belongs to the entry
// below it, or, where it is indented as far as the collection above, to that.
type formatter struct {
	d       *decoder
	out     bytes.Buffer
	order   map[reflect.Type]map[string]int
	sorts   bool
	finding *Finding
	keeps   bool // the text just written keeps blank lines behind it: none may be added
}

// entry is one entry of a block collection: lines first to last (excluded) of the
// file are its own, and lead are the comments above it.
type entry struct {
	key, value *yaml.Node
	lead       []string
	start      int // offset of the key or dash
	limit      int // line behind the entry and what may follow it within
}

func (f *formatter) line(n *yaml.Node) int { return n.Line - 1 }

// text of a line without its break.
func (f *formatter) text(line int) string {
	s := f.d.src
	return string(s.text[s.lines[line]:s.lineEnd(s.lines[line])])
}

func (f *formatter) document(root *yaml.Node) {
	lines := len(f.d.src.lines)
	if f.text(lines-1) == "" {
		lines--
	}
	first := f.line(root)
	marker := -1
	for i := range first {
		if strings.HasPrefix(f.text(i), "---") {
			marker = i
		}
	}
	for i := range marker + 1 {
		f.out.WriteString(strings.TrimRight(f.text(i), " \t") + "\n")
	}
	if root.Style&yaml.FlowStyle != 0 || strings.HasPrefix(f.text(first), "---") || len(root.Content) == 0 || f.d.start(root) != f.d.src.offset(Position{root.Line, root.Column}) {
		f.verbatim(marker+1, lines) // nothing in it that this layout is about
		return
	}
	f.collection(root, reflect.TypeFor[Runbook](), 0, marker+1, lines, true)
	b := f.out.Bytes()
	if !f.keeps {
		b = append(bytes.TrimRight(b, "\n"), '\n')
		f.out.Truncate(len(b))
	}
}

func (f *formatter) verbatim(from, to int) {
	for i := from; i < to; i++ {
		f.out.WriteString(f.text(i) + "\n")
	}
	f.keeps = true
}

// collection writes a block mapping or sequence whose lines are from to limit, in a
// column of the result. t is the type it is decoded into, if that says an order.
func (f *formatter) collection(n *yaml.Node, t reflect.Type, column, from, limit int, top bool) {
	step := 1
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	own := f.column(n)
	var entries []entry
	for i := 0; i < len(n.Content); i += step {
		e := entry{value: n.Content[i]}
		at := n.Content[i]
		if step == 2 {
			e.key, e.value = n.Content[i], n.Content[i+1]
			e.start = f.d.src.offset(Position{at.Line, at.Column})
		} else {
			e.start = f.dash(n, at)
		}
		line := f.d.src.position(e.start).Line - 1
		if len(entries) > 0 {
			// what stands between two entries, split by its indentation
			last := &entries[len(entries)-1]
			split := f.tail(last.value, line, own)
			last.limit = split
			from = split
		}
		for j := from; j < line; j++ {
			e.lead = append(e.lead, strings.TrimSpace(f.text(j)))
		}
		from = line + 1
		entries = append(entries, e)
	}
	entries[len(entries)-1].limit = limit
	var header []string
	if top && len(entries[0].lead) > 0 { // the file's own comment stays at its top
		lead := entries[0].lead
		cut := len(lead)
		for i := len(lead) - 1; i >= 0; i-- {
			if lead[i] == "" {
				cut = i + 1
				break
			}
		}
		header, entries[0].lead = lead[:cut], lead[cut:]
	}
	var trailing []string // comments below the last entry
	last := &entries[len(entries)-1]
	split := f.tail(last.value, limit, own)
	for j := split; j < limit; j++ {
		trailing = append(trailing, strings.TrimSpace(f.text(j)))
	}
	last.limit = split
	if order := f.order[t]; f.sorts && order != nil {
		f.sort(entries, order)
	}
	f.comments(header, column, true)
	for i, e := range entries {
		section := top && (f.block(e.value) || i > 0 && f.block(entries[i-1].value))
		if section && i > 0 && !f.keeps {
			for len(e.lead) > 0 && e.lead[0] == "" {
				e.lead = e.lead[1:]
			}
			f.blank()
		}
		f.comments(e.lead, column, i == 0 && len(header) == 0)
		f.entry(e, t, column)
	}
	f.comments(trailing, column, false)
}

// explicit refuses keys written with a question mark, and empty ones: no runbook
// needs them, and they may stand anywhere.
func (f *formatter) explicit(n *yaml.Node) {
	for i, child := range n.Content {
		if f.block(n) && n.Kind == yaml.MappingNode && i%2 == 0 {
			at := f.d.src.offset(Position{child.Line, child.Column})
			for at > 0 && isSpace(f.d.src.text[at-1]) {
				at--
			}
			indent := strings.Trim(string(f.d.src.text[f.d.src.lineStart(max(at-1, 0)):at]), " -")
			if indent == "?" || child.Kind != yaml.ScalarNode || child.Value == "" {
				finding := f.d.src.finding(Error, "yaml-syntax", f.d.span(child), "a key written with ? cannot be formatted; write key: value", "")
				f.finding = &finding
			}
		}
		f.explicit(child)
	}
}

func (f *formatter) sort(entries []entry, order map[string]int) {
	rank := func(e entry) int {
		if i, ok := order[e.key.Value]; ok {
			return i
		}
		return len(order)
	}
	if !slices.ContainsFunc(entries, func(e entry) bool { return e.key == nil }) {
		slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(rank(a), rank(b)) })
	}
}

// column in the file of a block collection.
func (f *formatter) column(n *yaml.Node) int {
	first := n.Content[0]
	if n.Kind == yaml.MappingNode {
		return first.Column - 1
	}
	at := f.dash(n, first)
	return at - f.d.src.lineStart(at)
}

// dash finds the dash of an element of a block sequence: the last one before it
// that starts a line or follows another dash.
func (f *formatter) dash(n, element *yaml.Node) int {
	s := f.d.src
	column := s.offset(Position{n.Line, n.Column})
	column -= s.lineStart(column)
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		column = -1
	}
	for line := element.Line - 1; line >= 0; line-- {
		start := s.lines[line]
		for at := start; at < s.lineEnd(start) && (isBlank(s.text[at]) || s.text[at] == '-'); at++ {
			if s.text[at] != '-' {
				continue
			}
			if column < 0 && line >= n.Line {
				return at
			}
			if at-start == column {
				return at
			}
		}
	}
	return s.offset(Position{element.Line, element.Column})
}

// tail is the line from which on what follows an entry's value is no longer its own:
// comments belong to it while they are indented beyond the column of the entries.
func (f *formatter) tail(value *yaml.Node, limit, own int) int {
	split := f.lastLine(value) + 1
	if !f.block(value) {
		return split
	}
	for i := split; i < limit; i++ {
		text := f.text(i)
		trimmed := strings.TrimLeft(text, " \t")
		if trimmed == "" {
			continue
		}
		if len(text)-len(trimmed) <= own {
			break
		}
		split = i + 1
	}
	return split
}

// lastLine of a node; a text that keeps its trailing line breaks has the blank lines too.
func (f *formatter) lastLine(n *yaml.Node) int {
	s := f.d.src
	line := s.position(f.d.end(n)).Line - 1
	last := n
	for len(last.Content) > 0 && last.Style&yaml.FlowStyle == 0 {
		last = last.Content[len(last.Content)-1]
	}
	if f.keep(last) {
		line = max(line, s.position(f.d.start(last)).Line-1)
		for line+1 < len(s.lines) && strings.TrimSpace(f.text(line+1)) == "" && (line+2 < len(s.lines) || f.text(line+1) != "") {
			line++
		}
	}
	return line
}

// keep tells a block scalar that keeps its trailing line breaks (|+).
func (f *formatter) keep(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		return false
	}
	at := f.d.start(n)
	header, _, _ := strings.Cut(string(f.d.src.text[at:f.d.src.lineEnd(at)]), " ")
	return strings.Contains(header, "+")
}

// block tells a collection that is laid out in lines.
func (f *formatter) block(n *yaml.Node) bool {
	return (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && n.Style&yaml.FlowStyle == 0
}
