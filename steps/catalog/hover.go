package catalog

import (
	"fmt"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

// hover is what an editor shows of a kind, in Markdown: what an author asks while writing a
// step and the conditions that read it.
func hover(k *steps.Definition) string {
	r := Describe(k)
	var b strings.Builder
	effect := r.Effect
	if r.AuthorKnows {
		effect += " unless the step says otherwise"
	}
	fmt.Fprintf(&b, "*Effect: %s", effect)
	if on := actsOn(r); on != "" {
		fmt.Fprintf(&b, "; acts on %s", on)
	}
	fmt.Fprintf(&b, "*\n\n%s\n", r.Doc)
	if len(r.Inputs) > 0 {
		var names []string
		for _, f := range r.Inputs {
			name := "`" + f.Name + "`"
			if f.Required {
				name += " (required)"
			}
			names = append(names, name)
		}
		fmt.Fprintf(&b, "\nInputs: %s.\n", strings.Join(names, ", "))
	}
	listed(&b, "Outputs", r.Outputs)
	if r.Effect != steps.Read.String() || r.AuthorKnows {
		fmt.Fprintf(&b, "\nUndo: %s.\n", r.Undo)
	}
	fmt.Fprintf(&b, "\n```yaml\n%s\n```\n", r.Example)
	return b.String()
}

// hoverTarget is the same of a kind of target.
func hoverTarget(t *steps.TargetDefinition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.Doc)
	listed(&b, "Keys", fields(t.Config))
	fmt.Fprintf(&b, "\n```yaml\n%s\n```\n", strings.TrimSpace(t.Example))
	return b.String()
}

// listed names fields with their types and what they mean.
func listed(b *strings.Builder, title string, list []Field) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n\n", title)
	for _, f := range list {
		words := f.Type
		if f.Act {
			words += ", known to the act alone"
		}
		if f.Required {
			words += ", required"
		}
		fmt.Fprintf(b, "* `%s` (%s): %s\n", f.Name, words, f.Doc)
	}
}

// described are the kinds as the JSON Schema wants them.
func described() (kinds, targets []schema.Kind) {
	for _, k := range Kinds() {
		d := schema.Kind{Name: k.Name, Doc: k.Doc, Effect: k.Effect.String(), In: k.In, Out: k.Out, Example: k.Example, AuthorKnows: k.AuthorKnows, Hover: hover(k)}
		if len(k.On) > 0 {
			d.Target = k.On[0]
		}
		kinds = append(kinds, d)
	}
	for _, t := range Targets() {
		targets = append(targets, schema.Kind{Name: t.Name, Doc: t.Doc, In: t.Config, Example: t.Example, Hover: hoverTarget(t)})
	}
	return kinds, targets
}
