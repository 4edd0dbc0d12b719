// Package schema is the language: what a runbook may say.
//
// Start with Runbook: its fields are the keys of the language, and their tags are
// the one declaration from which decoding (Parse), editor help (JSONSchema) and the
// canonical layout (Format) follow. Parse turns the bytes of a file into a Runbook
// and findings; it knows where each character stands and nothing of what it means.
// Kinds of steps, names and expressions are bound by the runner, which asks a
// Scalar for its AsText or AsExpr and an Expr for the Position of an error in it.
//
// In the order of the data: source (offsets and positions), syntax (what the YAML
// parser refuses, said better), tree and decode (YAML nodes into declared types),
// scalar, text and position (leaves), combine (keys that exclude each other), then
// finding, bind (evaluated inputs into the struct of a kind), jsonschema and format.
package schema

import (
	"reflect"

	"gopkg.in/yaml.v3"
)

// LanguageVersion is the newest version of the language that this package knows.
const LanguageVersion = 1

// Parse reads a runbook. All findings of one file come in one run, in order; the
// Runbook is not nil and holds what could be read, for those who can use a part.
func Parse(path string, src []byte) (*Runbook, []Finding) {
	book := &Runbook{Path: path, Source: src}
	d, root := open(path, src)
	if root == nil {
		return book, d.findings
	}
	d.mapping(root, reflect.ValueOf(book).Elem(), &field{name: "a runbook"})
	if book.Version.Set && book.Version.Value > LanguageVersion {
		d.findings = nil
		d.report(Error, "version", book.Version.Span, newerVersion(book.Version.Value), "")
		return book, d.findings
	}
	return book, d.finish()
}

// ParseInventory reads a file of targets and inputs.
func ParseInventory(path string, src []byte) (*Inventory, []Finding) {
	inventory := &Inventory{Path: path, Source: src}
	d, root := open(path, src)
	if root != nil {
		d.mapping(root, reflect.ValueOf(inventory).Elem(), &field{name: "an inventory"})
	}
	return inventory, d.finish()
}

// ParsePolicies reads a file of policies.
func ParsePolicies(path string, src []byte) (*PolicyFile, []Finding) {
	file := &PolicyFile{Path: path, Source: src}
	d, root := open(path, src)
	if root != nil {
		d.mapping(root, reflect.ValueOf(file).Elem(), &field{name: "a policy file"})
	}
	return file, d.finish()
}

// ParseInputs reads a file of inputs: one flat map of names and values.
func ParseInputs(path string, src []byte) (Map[Value], []Finding) {
	var inputs Map[Value]
	d, root := open(path, src)
	if root != nil {
		f := planOf(reflect.TypeFor[Inventory]()).field("inputs")
		d.decode(root, reflect.ValueOf(&inputs).Elem(), f)
	}
	return inputs, d.finish()
}

// Decode reads a file strictly into a plain Go struct with yaml tags: unknown and
// repeated keys, wrong types and missing required keys are findings. Fields may be
// texts, numbers, booleans, durations, Slots, Size, Addr, slices, pointers, maps
// with text keys, structs of these, and any, which takes plain data. The types of
// this package (Leaf, Expr, Value, …) serve as well.
func Decode(path string, src []byte, into any) []Finding {
	d, root := open(path, src)
	if root != nil {
		v := reflect.ValueOf(into).Elem()
		d.decode(root, v, &field{name: noun(v.Type())})
	}
	return d.finish()
}

// open reads the YAML of a file; root is nil where it is not one readable document
// with a mapping in it, of which the decoder then has the finding.
func open(path string, text []byte) (d *decoder, root *yaml.Node) {
	src := newSource(path, text)
	d = newDecoder(src)
	root, finding := read(src)
	if finding != nil {
		d.findings = []Finding{*finding}
		return d, nil
	}
	return d, root
}

func (d *decoder) finish() []Finding {
	d.duplicates("step", d.ids)
	d.duplicates("guard", d.guards)
	return Sort(d.findings)
}
