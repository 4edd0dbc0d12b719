package schema

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// pair is one entry of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping in the file's order, each key once.
type pairs []pair

func (p pairs) find(name string) *pair {
	for i := range p {
		if p[i].key.Value == name {
			return &p[i]
		}
	}
	return nil
}

func (p pairs) get(name string) *yaml.Node {
	if found := p.find(name); found != nil {
		return found.value
	}
	return nil
}

// pairs reads a mapping's entries and reports keys that are repeated or no text,
// merge keys, and expressions that a comma cut in two.
func (d *decoder) pairs(n *yaml.Node) pairs {
	all := make(pairs, 0, len(n.Content)/2)
	var seen map[string]bool
	if len(n.Content) > 16 {
		seen = make(map[string]bool, len(n.Content)/2)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			d.report(Error, "wrong-type", d.span(key), "a key is text, not a list or map", "")
			continue
		case key.Tag == "!!merge" || key.Value == "<<" && key.Style == 0:
			d.report(Error, "yaml-merge", d.span(key), "merge keys (<<) are not supported: write the keys out, or use an alias for a whole value", "")
			continue
		case d.tagged(key, &field{name: "a key"}):
			continue
		case key.Value == "":
			d.report(Error, "wrong-type", d.span(key), "a key has no text", "")
			continue
		}
		repeated := seen[key.Value]
		if seen == nil {
			repeated = all.find(key.Value) != nil
		} else {
			seen[key.Value] = true
		}
		if repeated {
			d.report(Error, "duplicate-key", d.span(key), fmt.Sprintf("%s stands here a second time", quoted(key.Value)), "")
			continue
		}
		if n.Style&yaml.FlowStyle != 0 {
			if last := d.cut(n, i+1, 2); last > i+1 {
				i = last - 1 + last%2
				continue
			}
		}
		all = append(all, pair{key, value})
	}
	return all
}

// items reads a list's elements and reports expressions that a comma cut in two.
func (d *decoder) items(n *yaml.Node) []*yaml.Node {
	if n.Style&yaml.FlowStyle == 0 {
		return n.Content
	}
	var items []*yaml.Node
	for i := 0; i < len(n.Content); i++ {
		if last := d.cut(n, i, 1); last > i {
			i = last
			continue
		}
		items = append(items, n.Content[i])
	}
	return items
}

// cut reports a plain scalar in a flow collection that opens a parenthesis which
// only what follows its comma closes: the comma was the expression's. The result is
// the index in Content of the last piece, or i. step is 2 in a mapping, whose pieces
// are keys without a value.
func (d *decoder) cut(n *yaml.Node, i, step int) int {
	piece := func(n *yaml.Node) bool {
		return n.Kind == yaml.ScalarNode && n.Style == 0 && n.Anchor == ""
	}
	if !piece(n.Content[i]) || !strings.Contains(n.Content[i].Value, "(") {
		return i
	}
	text := n.Content[i].Value
	if open, _ := balance(text); open <= 0 {
		return i
	}
	for j := i + 1; j < len(n.Content); j += step {
		if !piece(n.Content[j]) || step == 2 && (n.Content[j+1].Value != "" || n.Content[j+1].Kind != yaml.ScalarNode) {
			return i
		}
		text += ", " + n.Content[j].Value
		if open, _ := balance(text); open <= 0 {
			start, end := d.start(n.Content[i]), d.end(n.Content[j])
			d.report(Error, "comma-in-flow", d.src.span(start, end),
				"between { } or [ ] a comma ends the value, which cuts this in two; quote it",
				quote(string(d.src.text[start:end])))
			return j + step - 1
		}
	}
	return i
}

// tagged reports a tag that is not one of YAML's own, or does not fit its value.
// A ! in front of an expression is one to the YAML parser.
func (d *decoder) tagged(n *yaml.Node, f *field) bool {
	at := d.src.offset(Position{n.Line, n.Column})
	text := d.src.text
	if n.Style&yaml.TaggedStyle == 0 && (at >= len(text) || text[at] != '!' && text[at] != '&') {
		return false
	}
	switch {
	case n.Style&yaml.TaggedStyle == 0 && !d.bang(n):
		return false
	case n.Kind == yaml.MappingNode && n.Tag == "!!map", n.Kind == yaml.SequenceNode && n.Tag == "!!seq":
		return false
	case n.Kind == yaml.ScalarNode:
		want := map[string]Tag{"!!int": Int, "!!float": Float, "!!bool": Bool, "!!null": Null}
		tag, known := want[n.Tag]
		if n.Tag == "!!str" && n.Style&yaml.TaggedStyle != 0 || known && (resolve(n.Value) == tag || tag == Float && resolve(n.Value) == Int) {
			return false
		}
	}
	for at < len(text) && text[at] == '&' {
		for at < len(text) && !isSpace(text[at]) {
			at++
		}
		at = d.src.skipBlank(at)
	}
	stop := at
	for stop < len(text) && !isSpace(text[stop]) {
		stop++
	}
	end := max(d.end(n), stop)
	raw := string(text[at:stop])
	if n.Kind == yaml.ScalarNode && d.src.position(at).Line == d.src.position(end).Line {
		raw = string(text[at:end])
	}
	message := "! starts a tag in YAML, which drops it from the value; write not instead, or quote the text"
	if strings.HasPrefix(raw, "!!") {
		message = fmt.Sprintf("the tag %s does not fit here; leave it out", quoted(string(text[at:stop])))
	}
	d.report(Error, "yaml-tag", d.src.span(at, stop), message, negated(raw, f))
	return true
}

// bang tells that a node has the tag !, which the parser does not keep.
func (d *decoder) bang(n *yaml.Node) bool {
	text := d.src.text
	for at := d.src.offset(Position{n.Line, n.Column}); at < len(text) && (text[at] == '&' || text[at] == '!'); {
		if text[at] == '!' {
			return true
		}
		for at < len(text) && !isSpace(text[at]) {
			at++
		}
		at = d.src.skipBlank(at)
	}
	return false
}

// negated corrects a text that starts with !: as an expression, if that is wanted or likely, else quoted.
func negated(raw string, f *field) string {
	raw = strings.TrimRight(raw, " \t\r")
	body := strings.TrimLeft(raw, "! ")
	if strings.HasPrefix(raw, "!!") {
		return ""
	}
	if f != nil && f.isExpr() || strings.ContainsAny(body, ".(&|=<>") {
		return "not " + body
	}
	return quote(raw)
}

// span of a node behind its anchor and tag.
func (d *decoder) span(n *yaml.Node) Span {
	if n.Kind == yaml.AliasNode {
		start := d.src.offset(Position{n.Line, n.Column})
		return d.src.span(start, d.end(n))
	}
	if n.Kind == yaml.ScalarNode && n.Anchor == "" && n.Style == 0 {
		return d.extent(n, &Scalar{Text: n.Value, origin: origin{src: d.src, start: d.start(n)}})
	}
	return d.src.span(d.start(n), d.end(n))
}

// end is the offset behind a node. The parser does not keep it: it follows from
// the last leaf, and for a flow collection from the bracket behind that.
func (d *decoder) end(n *yaml.Node) int {
	switch n.Kind {
	case yaml.AliasNode:
		return min(d.src.offset(Position{n.Line, n.Column})+1+len(n.Value), len(d.src.text))
	case yaml.ScalarNode:
		s := Scalar{Text: n.Value, origin: origin{src: d.src, start: d.start(n), style: styleOf(n)}}
		return s.end()
	}
	at := d.start(n)
	pair := at < len(d.src.text) && d.src.text[at] != '{' && d.src.text[at] != '[' // [key: value] has no braces
	if len(n.Content) > 0 {
		at = d.end(n.Content[len(n.Content)-1])
	} else {
		at = min(at+1, len(d.src.text))
	}
	if n.Style&yaml.FlowStyle == 0 || pair {
		return at
	}
	for {
		at = d.src.skipBlank(at)
		if at >= len(d.src.text) {
			return at
		}
		switch d.src.text[at] {
		case ']', '}':
			return at + 1
		case ',', ':', '?':
			at++
		default:
			return at
		}
	}
}

func styleOf(n *yaml.Node) style {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return double
	case n.Style&yaml.SingleQuotedStyle != 0:
		return single
	case n.Style&yaml.LiteralStyle != 0:
		return literal
	case n.Style&yaml.FoldedStyle != 0:
		return folded
	}
	return plain
}
