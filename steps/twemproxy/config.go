package twemproxy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"runbook/schema"
	"runbook/steps"
)

// file is a configuration: its text, and what stands where in it.
type file struct {
	name  string
	text  []byte
	pools []pool
}

// pool is one pool of it.
type pool struct {
	name     string
	settings map[string]string // the scalars, by key
	servers  []server          // in the file's order
}

// server is one element of a pool's list.
type server struct {
	entry  string // as it is written, without quotes: ADDR:WEIGHT NAME
	addr   string // host:port
	weight int
	name   string // what it is ordered by
	named  bool   // the name is written, and not made of address and weight
	span   schema.Span
	quoted bool
}

// parse reads a configuration. It says where a file is no YAML that nutcracker takes, as far as addresses and names go;
// the rest is for `nutcracker -t`.
func parse(name string, text []byte) (file, error) {
	f := file{name: name, text: text}
	bad := func(at schema.Position, format string, a ...any) (file, error) {
		return f, steps.Errorf("config", "%s:%d:%d: %w", name, at.Line, at.Column, fmt.Errorf(format, a...))
	}
	var root schema.Map[schema.Value]
	for _, finding := range schema.Decode(name, text, &root) {
		if finding.Severity == schema.Error {
			return bad(schema.Position{Line: finding.Line, Column: finding.Column}, "%s", finding.Message)
		}
	}
	for _, e := range root {
		if e.Value.Kind != schema.MapValue {
			return bad(e.Key.Span.Start, "pool %s has no keys", e.Key.Value)
		}
		p := pool{name: e.Key.Value, settings: map[string]string{}}
		for _, s := range e.Value.Map {
			if s.Value.Kind == schema.ScalarValue {
				p.settings[s.Key.Value] = s.Value.Scalar.Text
				continue
			}
			if s.Key.Value != "servers" || s.Value.Kind != schema.ListValue {
				return bad(s.Key.Span.Start, "%s: one value is expected", s.Key.Value)
			}
			for _, item := range s.Value.List {
				if item.Kind != schema.ScalarValue {
					return bad(item.Span.Start, "a server is written host:port:weight name")
				}
				b, err := readServer(item.Scalar.Text)
				if err != nil {
					return bad(item.Span.Start, "%w", err)
				}
				if item.Span.Start.Line != item.Span.End.Line || len(p.servers) > 0 && p.servers[len(p.servers)-1].span.Start.Line == item.Span.Start.Line {
					return bad(item.Span.Start, "each server has a line of its own")
				}
				b.span, b.quoted = item.Span, item.Scalar.Quoted
				p.servers = append(p.servers, b)
			}
		}
		if len(p.servers) == 0 {
			return bad(e.Key.Span.Start, "pool %s has no servers", p.name)
		}
		f.pools = append(f.pools, p)
	}
	if len(f.pools) == 0 {
		return f, steps.Errorf("config", "%s: there is no pool in it", name)
	}
	return f, nil
}

var entry = regexp.MustCompile(`^((\S+):(\d+)):(\d+)(?: (\S+))?$`)

func readServer(text string) (server, error) {
	m := entry.FindStringSubmatch(text)
	if m == nil || !isPort(m[3]) {
		return server{}, fmt.Errorf("%q is not host:port:weight and a name", text)
	}
	weight, err := strconv.Atoi(m[4])
	if err != nil || weight < 1 {
		return server{}, fmt.Errorf("%q: a weight is a number from 1 on", text)
	}
	s := server{entry: text, addr: m[1], weight: weight, name: m[5], named: m[5] != ""}
	if !s.named {
		s.name = m[1] + ":" + m[4]
	}
	return s, nil
}

// pool finds a pool; the empty name means the only one.
func (f file) pool(name string) (pool, error) {
	names := make([]string, len(f.pools))
	for i, p := range f.pools {
		if p.name == name || name == "" && len(f.pools) == 1 {
			return p, nil
		}
		names[i] = p.name
	}
	if name == "" {
		return pool{}, steps.Precondition("%s has several pools, %s: say which", f.name, strings.Join(names, ", "))
	}
	return pool{}, steps.Precondition("%s has no pool %s; there are %s", f.name, name, strings.Join(names, ", "))
}

// order gives the indices of the servers as nutcracker orders them: by name, shorter ones first.
func (p pool) order() []int {
	order := make([]int, len(p.servers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareNames(p.servers[a].name, p.servers[b].name) })
	return order
}

func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// owners gives the address that answers for each slot: with modula, slot i is the i-th of the servers by name, each as
// often as its weight says.
func (p pool) owners() []string {
	var owners []string
	for _, i := range p.order() {
		for range min(p.servers[i].weight, maxWeight) {
			owners = append(owners, p.servers[i].addr)
		}
	}
	return owners
}

// maxWeight bounds what a mistyped weight can fill.
const maxWeight = 1 << 16

// entries gives the list as it is written.
func (p pool) entries() []string {
	list := make([]string, len(p.servers))
	for i, s := range p.servers {
		list[i] = s.entry
	}
	return list
}

// entriesFor gives the list that makes these addresses the owners of the slots. Names stay, so that the order stays, unless
// one is missing or their number changes: then all are named anew, server1 and so on.
func (p pool) entriesFor(owners []string) []string {
	list := make([]string, len(owners))
	keep := len(owners) == len(p.servers)
	for _, s := range p.servers {
		keep = keep && s.named && s.weight == 1
	}
	if keep {
		for slot, i := range p.order() {
			list[i] = owners[slot] + ":1 " + p.servers[i].name
		}
		return list
	}
	for slot, addr := range owners {
		list[slot] = fmt.Sprintf("%s:1 server%d", addr, slot+1)
	}
	return list
}

// with gives the file's text with another list in a pool. All else stays as it is: comments, blanks, quotes, the order of the lines.
func (f file) with(name string, entries []string) ([]byte, error) {
	p, err := f.pool(name)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(f.text, []byte("\n"))
	last := p.servers[len(p.servers)-1]
	if len(entries) > len(p.servers) {
		at := last.span.Start.Line - 1
		line := lines[at]
		end := "\n"
		if bytes.HasSuffix(line, []byte("\r\n")) {
			end = "\r\n"
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			line = append(slices.Clone(line), end...)
		}
		more := slices.Clone(line)
		before := line[:offset(line, last.span.Start.Column)]
		for _, e := range entries[len(p.servers):] {
			more = append(append(append(more, before...), e...), end...)
		}
		lines[at] = more
	}
	for i, s := range p.servers {
		at := s.span.Start.Line - 1
		if i >= len(entries) {
			lines[at] = nil
			continue
		}
		line := lines[at]
		from, to := offset(line, s.span.Start.Column), offset(line, s.span.End.Column)
		written := entries[i]
		if s.quoted {
			written = string(line[from]) + written + string(line[from])
		}
		lines[at] = slices.Concat(line[:from], []byte(written), line[to:])
	}
	text := bytes.Join(lines, nil)
	again, err := parse(f.name, text)
	if err != nil {
		return nil, fmt.Errorf("rewritten: %w", err)
	}
	if q, err := again.pool(name); err != nil || !slices.Equal(q.entries(), entries) {
		return nil, steps.Errorf("config", "%s: pool %s cannot be rewritten: its list has an unusual layout", f.name, p.name)
	}
	return text, nil
}

// offset is where the character of a column (1-based, in code points) begins in a line.
func offset(line []byte, column int) int {
	at := 0
	for range column - 1 {
		_, size := utf8.DecodeRune(line[at:])
		at += size
	}
	return at
}
