package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"runbook/steps"
)

// Page is the reference of every kind of step and of target as Markdown: docs/kinds.md.
func Page() []byte {
	var b bytes.Buffer
	kinds := Kinds()
	b.WriteString("# Step kinds and kinds of target\n\n" +
		"<!-- Generated from the catalog: UPDATE=1 go test ./steps/catalog -->\n\n" +
		"What a step can do. `runner steps` prints the same in a terminal, `runner steps KIND` one page of it.\n\n" +
		"| effect | means |\n|---|---|\n" +
		"| `read` | changes nothing; may be polled, repeated, and run by a dry run |\n" +
		"| `write` | changes state, service unaffected; journaled before it acts |\n" +
		"| `cutover` | moves live traffic |\n" +
		"| `destroy` | data or an instance is gone afterwards; asks a person |\n\n" +
		"Types: a *duration* is written `500ms`, `30s`, `2h30m`, `7d`; a *size* is bytes, or `64mb`, `1gb` as Redis counts them; *slots* are `7`, `[1, 2]` or\n" +
		"`0-3,8`; an *addr* is `host:port`; a *target* is the name of one. An output marked † is known to the act alone: it is null on a step\n" +
		"whose effect was found by a probe after a crash.\n\n")
	b.WriteString("| kind | effect | acts on | |\n|---|---|---|---|\n")
	for _, k := range kinds {
		r := Describe(k)
		first, _, _ := strings.Cut(r.Doc, ". ")
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s |\n", r.Name, anchor(r.Name), r.Effect, actsOn(r), cell(strings.TrimSuffix(first, ".")))
	}
	b.WriteString("\n## Kinds of target\n")
	for _, t := range Targets() {
		target(&b, t)
	}
	b.WriteString("\n## Kinds of step\n")
	for _, k := range kinds {
		page(&b, Describe(k))
	}
	return b.Bytes()
}

func target(b *bytes.Buffer, t *steps.TargetDefinition) {
	fmt.Fprintf(b, "\n### Target `%s`\n\n%s\n\n", t.Name, t.Doc)
	table(b, "key", fields(t.Config))
	fmt.Fprintf(b, "\nBeside these every target takes `group`, `labels` and `facts`.\n\n```yaml\ntargets:\n  example: %s\n```\n", strings.TrimSpace(t.Example))
}

func page(b *bytes.Buffer, r Reference) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", r.Name, r.Doc)
	effect := "`" + r.Effect + "`"
	if r.AuthorKnows {
		effect += " unless the step says otherwise: the kind cannot know, so write `effect` and, where it holds, `idempotent: true`"
	}
	fmt.Fprintf(b, "* Effect: %s\n", effect)
	if on := actsOn(r); on != "" {
		fmt.Fprintf(b, "* Acts on: %s\n", on)
	}
	if r.Effect != steps.Read.String() || r.AuthorKnows {
		fmt.Fprintf(b, "* Twice is as once: %s\n* Probe: %s\n* Undo: %s\n", map[bool]string{true: "yes", false: "no"}[r.Idempotent], r.Probe, r.Undo)
	}
	if len(r.Inputs) > 0 {
		b.WriteString("\n")
		table(b, "input", r.Inputs)
	}
	if len(r.Outputs) > 0 {
		b.WriteString("\n")
		table(b, "output", r.Outputs)
	}
	if len(r.Pitfalls) > 0 {
		b.WriteString("\nGuards against, and what to know:\n\n")
		for _, p := range r.Pitfalls {
			fmt.Fprintf(b, "* %s\n", p)
		}
	}
	b.WriteString("\n```yaml\n- ")
	b.WriteString(strings.ReplaceAll(r.Example, "\n", "\n  "))
	b.WriteString("\n```\n")
}

// table lists inputs, outputs or keys.
func table(b *bytes.Buffer, what string, list []Field) {
	if what == "output" {
		b.WriteString("| output | type | |\n|---|---|---|\n")
	} else {
		fmt.Fprintf(b, "| %s | type | default | |\n|---|---|---|---|\n", what)
	}
	for _, f := range list {
		name, doc := "`"+f.Name+"`", f.Doc
		if f.Act {
			name += " †"
		}
		if len(f.Enum) > 0 {
			doc += " One of `" + strings.Join(f.Enum, "`, `") + "`."
		}
		if what == "output" {
			fmt.Fprintf(b, "| %s | %s | %s |\n", name, cell(f.Type), cell(doc))
			continue
		}
		fallback := "–"
		switch {
		case f.Required:
			fallback = "required"
		case f.Default != "":
			fallback = "`" + f.Default + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, cell(f.Type), fallback, cell(doc))
	}
}

// actsOn names the kinds of target that this binary has, of those a kind could act on.
func actsOn(r Reference) string {
	var known []string
	for _, t := range Targets() {
		if slices.Contains(r.On, t.Name) {
			known = append(known, t.Name)
		}
	}
	on := strings.Join(known, ", ")
	if on != "" && r.Optional {
		on += ", or without a target"
	}
	return on
}

// cell is text within a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}

// anchor is how readers of Markdown link to a heading: without dots.
func anchor(heading string) string { return strings.ReplaceAll(strings.ToLower(heading), ".", "") }
