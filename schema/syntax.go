package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// The limits of a document. They bound time and memory, not what people write.
const (
	maxBytes    = 8 << 20
	maxDepth    = 64
	maxExpanded = 100_000 // nodes that aliases may repeat
)

// read parses the one document of a file. What stops it is one finding: a file
// that is not YAML says nothing else that could be relied upon.
func read(src *source) (*yaml.Node, *Finding) {
	fail := func(rule string, start, end int, format string, args ...any) (*yaml.Node, *Finding) {
		f := src.finding(Error, rule, src.span(start, end), fmt.Sprintf(format, args...), "")
		return nil, &f
	}
	if len(src.text) > maxBytes {
		return fail("yaml-limit", 0, 0, "the file has %d bytes; a document has at most %d (8 MiB)", len(src.text), maxBytes)
	}
	if f := characters(src); f != nil {
		return nil, f
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(src.text))
	err := parseYAML(decoder, &document)
	if errors.Is(err, io.EOF) {
		return fail("empty", 0, 0, "the file is empty")
	}
	if err != nil {
		return nil, diagnose(src, err)
	}
	if err := parseYAML(decoder, &second); !errors.Is(err, io.EOF) {
		at := secondDocument(src)
		if at < 0 {
			return nil, diagnose(src, err)
		}
		return fail("yaml-documents", at, at+3, "a second document starts here; a file holds one")
	}
	root := document.Content[0]
	limits := limiter{src: src, measured: map[*yaml.Node]measure{}}
	if limits.walk(root, 1); limits.finding != nil {
		return nil, limits.finding
	}
	d := newDecoder(src)
	if root.Kind == yaml.AliasNode || root.Kind != yaml.MappingNode {
		start := d.start(root)
		if root.Kind == yaml.ScalarNode && root.Value == "" && root.Style == 0 {
			return fail("empty", 0, 0, "the file is empty")
		}
		return fail("wrong-type", start, min(src.lineEnd(start), d.end(root)), "a file is a map of keys and values, not %s",
			map[yaml.Kind]string{yaml.ScalarNode: "one text", yaml.SequenceNode: "a list"}[root.Kind])
	}
	return root, nil
}

// parseYAML turns the parser's panics, should there be any, into errors.
func parseYAML(decoder *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return decoder.Decode(into)
}

// characters finds what no YAML file may hold, and line separators, which some
// readers take for the end of a comment and others do not.
func characters(src *source) *Finding {
	for at := 0; at < len(src.text); {
		c := src.text[at]
		if c >= 0x20 && c < 0x7f || c == '\n' || c == '\r' || c == '\t' {
			at++
			continue
		}
		r, size := utf8.DecodeRune(src.text[at:])
		var message string
		switch {
		case r == utf8.RuneError && size == 1:
			message = "this byte is not UTF-8; a runbook is UTF-8 text"
		case r < 0xa0 && r != 0x85:
			message = fmt.Sprintf("control character %U", r)
		case r == 0x85 || r == 0x2028 || r == 0x2029:
			message = fmt.Sprintf("%U breaks the line for some readers of YAML and not for others; write it as an escape in double quotes", r)
		case r == 0xfeff:
			message = "a byte order mark in the middle of the file"
		case r == 0xfffe || r == 0xffff:
			message = fmt.Sprintf("%U is no character", r)
		}
		if message != "" {
			f := src.finding(Error, "yaml-character", src.span(at, at+size), message, "")
			return &f
		}
		at += size
	}
	return nil
}

// secondDocument finds the --- that starts a second document: the first after a line of content.
func secondDocument(src *source) int {
	content := false
	for _, start := range src.lines {
		line := src.text[start:src.lineEnd(start)]
		trimmed := bytes.TrimSpace(line)
		switch {
		case bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || isBlank(line[3])):
			if content {
				return start
			}
			content = true
		case len(trimmed) > 0 && trimmed[0] != '#' && trimmed[0] != '%':
			content = true
		}
	}
	return -1
}

// measure is how much a node is with its aliases expanded.
type measure struct {
	nodes, depth int
	open         bool // still being measured: an alias to it is a cycle
}

// limiter holds depth and aliases to their limits before anything recurses further.
type limiter struct {
	src      *source
	measured map[*yaml.Node]measure // of nodes with an anchor
	expanded int
	finding  *Finding
}

func (l *limiter) walk(n *yaml.Node, depth int) measure {
	if l.finding != nil {
		return measure{}
	}
	fail := func(message string) measure {
		at := l.src.offset(Position{n.Line, n.Column})
		f := l.src.finding(Error, "yaml-limit", l.src.span(at, min(at+1, len(l.src.text))), message, "")
		l.finding = &f
		return measure{}
	}
	if depth > maxDepth && n.Kind != yaml.ScalarNode {
		return fail(fmt.Sprintf("nested deeper than %d levels", maxDepth))
	}
	if n.Kind == yaml.AliasNode {
		m := l.measured[n.Alias]
		l.expanded += m.nodes
		switch {
		case m.open:
			return fail(fmt.Sprintf("the alias *%s stands within its own anchor", n.Value))
		case depth+m.depth-1 > maxDepth:
			return fail(fmt.Sprintf("nested deeper than %d levels, with the alias expanded", maxDepth))
		case l.expanded > maxExpanded:
			return fail(fmt.Sprintf("the aliases expand to more than %d values", maxExpanded))
		}
		return m
	}
	if n.Anchor != "" {
		l.measured[n] = measure{open: true}
	}
	m := measure{nodes: 1}
	for _, child := range n.Content {
		c := l.walk(child, depth+1)
		m.nodes = min(m.nodes+c.nodes, maxExpanded+1)
		m.depth = max(m.depth, c.depth)
	}
	if n.Kind != yaml.ScalarNode {
		m.depth++
	}
	if n.Anchor != "" {
		l.measured[n] = m
	}
	return m
}
