package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"runbook/steps"
)

// Digest is the SHA-256, in hex, over what decides a plan: the text of every source with
// its path from the runbook's own folder, the values of the inputs, and of each kind used
// its name, effect and the shape of its inputs and outputs. Where the runbook lies, and
// who plans it, does not count.
func (p *Program) Digest(in *Inputs) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	e.SetEscapeHTML(false)
	dir := filepath.Dir(p.Root.Book.Path)
	for _, s := range p.Sources {
		path := s.Path
		if rel, err := filepath.Rel(dir, path); err == nil && s.Role != "inventory" && s.Role != "inputs" {
			path = filepath.ToSlash(rel)
		} else {
			path = filepath.Base(path)
		}
		sum := sha256.Sum256([]byte(s.Text))
		_ = e.Encode([]string{"source", s.Role, path, hex.EncodeToString(sum[:])}) // a hash never fails
	}
	_ = e.Encode([]any{"inputs", jsonable(in.Values)})
	for _, k := range p.kindsUsed() {
		_ = e.Encode(k)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// usedKind is what a plan relies on of a kind.
type usedKind struct {
	Name   string `json:"name"`
	Effect string `json:"effect"`
	Shape  string `json:"shape"`
}

// kindsUsed are the kinds that the program's steps and guards use, by name.
func (p *Program) kindsUsed() []usedKind {
	seen := map[string]usedKind{}
	add := func(d *steps.Definition) {
		if d != nil {
			seen[d.Name] = usedKind{d.Name, d.Effect.String(), typeShape(d.In) + "→" + typeShape(d.Out)}
		}
	}
	units := map[*Unit]bool{}
	var visit func(u *Unit)
	visit = func(u *Unit) {
		if u == nil || units[u] {
			return
		}
		units[u] = true
		for _, g := range u.Guards {
			add(g.Kind)
		}
		u.each(func(n *Node) {
			add(n.Kind)
			for _, g := range n.Guards {
				add(g.Kind)
			}
			if n.Probe != nil {
				add(n.Probe.Kind)
			}
			visit(n.Sub)
		})
	}
	visit(p.Root)
	list := make([]usedKind, 0, len(seen))
	for _, k := range seen {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b usedKind) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// typeShape is the fields of a struct by their keys, with their types: what a change of would change a plan.
func typeShape(t reflect.Type) string {
	if t == nil || t.Kind() != reflect.Struct {
		return ""
	}
	var fields []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields = append(fields, name+" "+f.Type.String()+" "+f.Tag.Get("default"))
	}
	return "{" + strings.Join(fields, "; ") + "}"
}

// each visits every node of a file, in the order of the text.
func (u *Unit) each(visit func(*Node)) {
	eachNode(u.Steps, visit)
	eachNode(u.Finally, visit)
}

func eachNode(nodes []*Node, visit func(*Node)) {
	for _, n := range nodes {
		visit(n)
		eachNode(n.Children, visit)
		eachNode(n.AfterBatch, visit)
		eachNode(n.UndoSteps, visit)
		eachNode(n.Rescue, visit)
	}
}
