package diff

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"runbook/runner"
	"runbook/schema"
)

func shippedFiles() fs.FS { return os.DirFS("../../runbooks") }

// shipped are the runbooks that ship, those that others use included.
func shipped(t testing.TB) []string {
	t.Helper()
	var paths []string
	err := fs.WalkDir(shippedFiles(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".yaml") && !strings.HasSuffix(path, ".sandbox.yaml") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) < 5 {
		t.Fatalf("there are %d runbooks: %v", len(paths), err)
	}
	return paths
}

// edited loads a shipped runbook with one of its files replaced; nil: it does not lint.
func edited(t testing.TB, c *runner.Catalog, path string, with map[string][]byte) *runner.Program {
	t.Helper()
	p, findings := runner.Load(path, runner.LoadOptions{Catalog: c, ReadFile: func(path string) ([]byte, error) {
		if text, ok := with[filepath.Clean(path)]; ok {
			return text, nil
		}
		return fs.ReadFile(shippedFiles(), filepath.ToSlash(filepath.Clean(path)))
	}})
	if schema.Failed(findings) {
		return nil
	}
	return p
}

func text(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := fs.ReadFile(shippedFiles(), path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A runbook means what it means: with itself, and in its canonical layout.
func TestSelf(t *testing.T) {
	c := kinds()
	for _, path := range shipped(t) {
		p := edited(t, c, path, nil)
		s := Side{p, known(t, p)}
		if changes := Compare(s, s); len(changes) > 0 {
			t.Errorf("%s differs from itself: %+v", path, changes)
		}
		formatted, err := schema.Format(bytes.ReplaceAll(text(t, path), []byte("\n\n"), []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		q := edited(t, c, path, map[string][]byte{path: formatted})
		if changes := Compare(s, Side{q, known(t, q)}); len(changes) > 0 {
			t.Errorf("%s differs from its canonical layout: %+v", path, changes)
		}
	}
}

// Any two runbooks can be compared, and the order of sides changes no more than what is before and after.
func TestStrangers(t *testing.T) {
	c := kinds()
	var all []*Side
	for _, path := range shipped(t) {
		all = append(all, load(c, path, nil))
	}
	for i, a := range all {
		for j, b := range all {
			if changes := Compare(*a, *b); (len(changes) == 0) != (i == j) {
				t.Errorf("%d differences between %s and %s", len(changes), a.Program.Root.Book.Path, b.Program.Root.Book.Path)
			}
		}
	}
}

// Whatever an author does to the text alone is no difference, and the new name of a step is
// one line that hurts nobody.
func TestNoise(t *testing.T) {
	c := kinds()
	paths := shipped(t)
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.SampledFrom(paths).Draw(t, "runbook")
		seed := rapid.Uint64().Draw(t, "seed")
		raw, err := fs.ReadFile(shippedFiles(), path)
		if err != nil {
			t.Fatal(err)
		}
		noisy := disturb(raw, rand.New(rand.NewPCG(seed, 1)))
		old, new := load(c, path, nil), load(c, path, map[string][]byte{path: noisy})
		if new == nil {
			t.Fatalf("noise broke it:\n%s", noisy)
		}
		if changes := Compare(*old, *new); len(changes) > 0 {
			t.Fatalf("%+v\n%s", changes, noisy)
		}
		renamed := rename(noisy, rand.New(rand.NewPCG(seed, 2)))
		if new = load(c, path, map[string][]byte{path: renamed}); new == nil {
			return // the id is a word that means something else too
		}
		for _, ch := range Compare(*old, *new) {
			if ch.Level != Harmless || ch.Rule != "renamed" {
				t.Fatalf("%+v\n%s", ch, renamed)
			}
		}
	})
}

// Whatever makes a runbook do something else is told, and noise does not hide it.
func TestMutations(t *testing.T) {
	c := kinds()
	told := map[string]int{}
	for _, path := range shipped(t) {
		raw := text(t, path)
		old := load(c, path, nil)
		for i, m := range mutations(raw) {
			if i%5 != 0 && told[m.name] > 0 { // all of them take minutes with the race detector
				continue
			}
			new := load(c, path, map[string][]byte{path: m.text})
			if new == nil {
				continue // lint refuses it
			}
			told[m.name]++
			changes := Compare(*old, *new)
			if !slices.ContainsFunc(changes, func(ch Change) bool { return ch.Level >= m.least }) {
				t.Errorf("%s: %s is not told as %s at least: %+v", path, m, m.least, changes)
				continue
			}
			noisy := disturb(m.text, rand.New(rand.NewPCG(uint64(i), 7)))
			if again := load(c, path, map[string][]byte{path: noisy}); again == nil {
				t.Errorf("%s: noise broke %s", path, m)
			} else if hidden := Compare(*old, *again); len(hidden) == 0 || hidden[0].Level < changes[0].Level {
				t.Errorf("%s: %s is told as %+v, and in noise as %+v", path, m, changes, hidden)
			}
		}
	}
	for _, name := range []string{"drop step", "drop condition", "loosen condition", "loosen bound", "drop conjunct", "drop stable", "longer timeout", "drop confirm", "waive confirm", "no undo", "go on after failure", "swap steps", "parallel", "drop recheck", "skip"} {
		if told[name] == 0 {
			t.Errorf("no runbook could be changed by %s", name)
		}
	}
	t.Logf("changes: %v", told)
}

// load is edited with the defaults of its inputs.
func load(c *runner.Catalog, path string, with map[string][]byte) *Side {
	p := edited(discard{}, c, path, with)
	if p == nil {
		return nil
	}
	in, _, err := p.BindInputs(runner.GivenInputs{})
	if err != nil {
		panic(err)
	}
	return &Side{p, in.Values}
}

// discard is for helpers that fail no test here.
type discard struct{ testing.TB }

func (discard) Helper() {}

// disturb changes a text and nothing of what it means: order of keys, quotes, flow and block
// style, comments, anchors, names, wording of conditions, and what is written out of the defaults.
func disturb(raw []byte, r *rand.Rand) []byte {
	doc := parse(raw)
	root := doc.Content[0]
	anchors := 0
	scalars := map[string]*yaml.Node{}
	for _, n := range everything(root) { // in flow style a comment can end up inside a line
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	}
	walk(root, nil, func(n *yaml.Node, path []string) {
		last := ""
		if len(path) > 0 {
			last = path[len(path)-1]
		}
		switch n.Kind {
		case yaml.MappingNode:
			if last != "vars" && last != "targets" && r.IntN(2) == 0 { // in these two what stands above may be named below
				shufflePairs(n, r)
			}
			if r.IntN(4) == 0 {
				n.Style ^= yaml.FlowStyle
			}
			if get(n, "id") != nil && r.IntN(3) == 0 && len(path) > 0 {
				set(n, "name", "Other words")
			}
			for _, key := range []string{"wait-until", "when", "require", "expect"} {
				if v := get(n, key); v != nil && v.Kind == yaml.ScalarNode && v.Tag == "!!str" && !slices.Contains(path, "with") {
					reword(v, r)
				}
			}
		case yaml.ScalarNode:
			if n.Tag == "!!str" && r.IntN(3) == 0 && !strings.Contains(n.Value, "\n") {
				n.Style = []yaml.Style{yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle}[r.IntN(2)]
			}
			if first := scalars[n.Value]; first != nil && n.Tag == "!!str" && first.Tag == n.Tag && r.IntN(5) == 0 && len(n.Value) > 3 {
				if first.Anchor == "" {
					anchors++
					first.Anchor = fmt.Sprintf("a%d", anchors)
				}
				n.Kind, n.Alias, n.Value, n.Style, n.Tag = yaml.AliasNode, first, first.Anchor, 0, ""
			} else if first == nil {
				scalars[n.Value] = n
			}
		}
		if r.IntN(6) == 0 && len(path) == 0 {
			n.Content[0].HeadComment = "# look at the wiki"
		}
	})
	return render(doc)
}

// reword writes a condition in other words.
func reword(v *yaml.Node, r *rand.Rand) {
	e := strings.TrimSpace(v.Value)
	switch r.IntN(4) {
	case 0:
		e = "(" + e + ")"
	case 1:
		if left, right, ok := strings.Cut(e, " == "); ok && !strings.ContainsAny(e, "&|(?'\"[") && !strings.Contains(e, " and ") && !strings.Contains(e, " or ") && !strings.Contains(e, "not ") {
			e = right + " == " + left
		}
	case 2:
		e = strings.ReplaceAll(e, " && ", " and ")
	}
	v.Value = e
	v.Style = yaml.SingleQuotedStyle
}

// rename gives a step another id, and those that read it the new name.
func rename(raw []byte, r *rand.Rand) []byte {
	doc := parse(raw)
	var ids []*yaml.Node
	walk(doc.Content[0], nil, func(n *yaml.Node, path []string) {
		if n.Kind == yaml.MappingNode && get(n, "id") != nil && !slices.Contains(path, "guards") {
			ids = append(ids, get(n, "id"))
		}
	})
	if len(ids) == 0 {
		return raw
	}
	id := ids[r.IntN(len(ids))]
	was := id.Value
	if id.Kind != yaml.ScalarNode {
		return raw
	}
	id.Value = was + "_by_another_name"
	walk(doc.Content[0], nil, func(n *yaml.Node, _ []string) {
		if n.Kind == yaml.ScalarNode {
			n.Value = replaceName(n.Value, "steps."+was, "steps."+id.Value)
		}
	})
	return render(doc)
}

// replaceName replaces a name where it is not the beginning of a longer one.
func replaceName(text, old, new string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, old)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i+len(old):]
		if text != "" && (text[0] == '_' || text[0] >= 'a' && text[0] <= 'z' || text[0] >= '0' && text[0] <= '9') {
			b.WriteString(old)
		} else {
			b.WriteString(new)
		}
	}
}

// mutation is a runbook that means something else.
type mutation struct {
	name, where string
	least       Level
	text        []byte
}

func (m mutation) String() string { return m.name + " at " + m.where }

// mutations are all that this test knows to do to a runbook, each by itself.
func mutations(raw []byte) []mutation {
	var all []mutation
	whole := parse(raw)
	steps := stepsOf(whole)
	for i := range steps {
		try := func(name string, least Level, change func(list *yaml.Node, at int, step *yaml.Node) bool) {
			doc := clone(whole)
			s := stepsOf(doc)[i]
			if change(s.list, s.at, s.list.Content[s.at]) {
				all = append(all, mutation{name, s.id, least, render(doc)})
			}
		}
		try("drop step", Notice, func(list *yaml.Node, at int, _ *yaml.Node) bool {
			list.Content = slices.Delete(list.Content, at, at+1)
			return len(list.Content) > 0
		})
		try("swap steps", Harmless, func(list *yaml.Node, at int, _ *yaml.Node) bool {
			if at == 0 {
				return false
			}
			list.Content[at-1], list.Content[at] = list.Content[at], list.Content[at-1]
			return true
		})
		for _, key := range []string{"wait-until", "expect", "require", "when"} {
			least := Danger
			if key == "when" {
				least = Notice
			}
			try("drop condition", least, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
				gone := drop(s, key)
				if key == "wait-until" {
					for _, with := range []string{"every", "stable", "stall"} {
						drop(s, with)
					}
				}
				return gone
			})
			try("loosen condition", least, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
				v := get(s, key)
				if v == nil || v.Kind != yaml.ScalarNode {
					return false
				}
				v.Value, v.Style = "("+v.Value+") or len('ab') > 1", yaml.DoubleQuotedStyle
				return true
			})
			try("loosen bound", least, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
				v := get(s, key)
				if v == nil || v.Kind != yaml.ScalarNode || !strings.HasSuffix(v.Value, " == 0") {
					return false
				}
				v.Value = strings.TrimSuffix(v.Value, "== 0") + "< 1000"
				return true
			})
			try("drop conjunct", least, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
				v := get(s, key)
				if v == nil || v.Kind != yaml.SequenceNode || len(v.Content) < 2 {
					return false
				}
				v.Content = v.Content[1:]
				return true
			})
		}
		simple := func(name string, least Level, key string, change func(s, v *yaml.Node) bool) {
			try(name, least, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
				v := get(s, key)
				return v != nil && change(s, v)
			})
		}
		gone := func(key string) func(s, _ *yaml.Node) bool {
			return func(s, _ *yaml.Node) bool { return drop(s, key) }
		}
		simple("drop stable", Danger, "stable", gone("stable"))
		simple("drop recheck", Danger, "recheck", gone("recheck"))
		asks := func(v *yaml.Node) bool { return v.Value != "false" }
		simple("drop confirm", Danger, "confirm", func(s, v *yaml.Node) bool { return asks(v) && drop(s, "confirm") })
		simple("drop pause between", Caution, "pause-between", gone("pause-between"))
		simple("longer timeout", Caution, "timeout", func(_, v *yaml.Node) bool {
			v.Value = "1000h"
			return true
		})
		simple("waive confirm", Danger, "confirm", func(s, v *yaml.Node) bool {
			if !asks(v) {
				return false
			}
			set(s, "confirm", "false")
			get(s, "confirm").Tag = "!!bool"
			set(s, "why", "no time")
			return true
		})
		try("no undo", Harmless, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
			if get(s, "undo") == nil {
				return false
			}
			drop(s, "undo")
			return true
		})
		try("go on after failure", Danger, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
			if v := get(s, "on-failure"); v != nil && v.Value == "continue" {
				return false
			}
			set(s, "on-failure", "continue")
			return true
		})
		try("skip", Notice, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
			if get(s, "when") != nil {
				return false
			}
			set(s, "when", "len('a') > 1")
			return true
		})
		try("parallel", Notice, func(_ *yaml.Node, _ int, s *yaml.Node) bool {
			if get(s, "steps") == nil || get(s, "parallel") != nil {
				return false
			}
			set(s, "parallel", "true")
			get(s, "parallel").Tag = "!!bool"
			return true
		})
	}
	return all
}

// placed is a step in its list.
type placed struct {
	id   string
	list *yaml.Node
	at   int
}

func stepsOf(doc *yaml.Node) []placed {
	var all []placed
	var visit func(list *yaml.Node)
	visit = func(list *yaml.Node) {
		if list == nil || list.Kind != yaml.SequenceNode {
			return
		}
		for i, s := range list.Content {
			if id := get(s, "id"); id != nil {
				all = append(all, placed{id.Value, list, i})
				for _, key := range []string{"steps", "after-batch", "rescue"} {
					visit(get(s, key))
				}
			}
		}
	}
	visit(get(doc.Content[0], "steps"))
	visit(get(doc.Content[0], "finally"))
	return all
}

func parse(raw []byte) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		panic(err)
	}
	return &doc
}

func clone(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i := range n.Content {
		c.Content[i] = clone(n.Content[i])
	}
	return &c
}

func render(doc *yaml.Node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(doc); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func walk(n *yaml.Node, path []string, visit func(*yaml.Node, []string)) {
	visit(n, path)
	for i, c := range n.Content {
		inner := path
		if n.Kind == yaml.MappingNode {
			if i%2 == 0 {
				continue // a key
			}
			inner = append(slices.Clip(path), n.Content[i-1].Value)
		}
		walk(c, inner, visit)
	}
}

func everything(n *yaml.Node) []*yaml.Node {
	all := []*yaml.Node{n}
	for _, c := range n.Content {
		all = append(all, everything(c)...)
	}
	return all
}

func shufflePairs(n *yaml.Node, r *rand.Rand) {
	r.Shuffle(len(n.Content)/2, func(i, j int) {
		n.Content[2*i], n.Content[2*j] = n.Content[2*j], n.Content[2*i]
		n.Content[2*i+1], n.Content[2*j+1] = n.Content[2*j+1], n.Content[2*i+1]
	})
}

func get(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func set(m *yaml.Node, key, value string) {
	drop(m, key)
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
}

func drop(m *yaml.Node, key string) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content = slices.Delete(m.Content, i, i+2)
			return true
		}
	}
	return false
}
