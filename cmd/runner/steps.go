package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
	"runbook/steps/catalog"
)

func (a *app) stepsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "steps [KIND]",
		Short: "The reference of the step kinds: inputs, outputs, effect, examples",
		Example: `  runner steps
  runner steps redis.info
  runner steps --output json | jq '.[] | select(.effect == "destroy") | .name'`,
		Args:              args(0, 1, "at most one kind"),
		ValidArgsFunction: completeKinds,
		RunE: func(_ *cobra.Command, names []string) error {
			kinds := catalog.Kinds()
			if len(names) == 0 {
				list := make([]catalog.Reference, len(kinds))
				for i, k := range kinds {
					list[i] = catalog.Describe(k)
				}
				if a.json() {
					return a.answer(list)
				}
				for _, r := range list {
					fmt.Fprintf(a.out, "%-24s %-8s %s\n", r.Name, r.Effect, sentence(r.Doc))
				}
				return nil
			}
			var known []string
			for _, k := range kinds {
				if k.Name == names[0] {
					r := catalog.Describe(k)
					if a.json() {
						return a.answer(r)
					}
					a.reference(a.out, r)
					return nil
				}
				known = append(known, k.Name)
			}
			near, ok := schema.Nearest(names[0], known)
			hint := "runner steps lists them"
			if ok {
				hint = "did you mean " + near + "?"
			}
			return usage(hint, "there is no step kind %q", names[0])
		},
	}
}

// sentence is the first one of a text.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if first, _, ok := strings.Cut(text, ". "); ok {
		return first + "."
	}
	return text
}

func (a *app) reference(w io.Writer, r catalog.Reference) {
	title := func(s string) { fmt.Fprintf(w, "\n%s\n", a.paint(a.out, runner.Change, s)) }
	fmt.Fprintf(w, "%s (%s)\n", r.Name, r.Effect)
	for _, line := range wrap(r.Doc, 88) {
		fmt.Fprintln(w, "  "+line)
	}
	if len(r.On) > 0 {
		optional := ""
		if r.Optional {
			optional = ", or without a target"
		}
		fmt.Fprintf(w, "\nacts on: %s%s\n", strings.Join(r.On, ", "), optional)
	}
	if len(r.Inputs) > 0 {
		title("inputs")
	}
	for _, f := range r.Inputs {
		a.field(w, f)
	}
	if len(r.Outputs) > 0 {
		title("outputs")
	}
	for _, f := range r.Outputs {
		a.field(w, f)
	}
	title("after a crash, and back")
	fmt.Fprintf(w, "  probe: %s\n  undo: %s\n  doing it twice is as doing it once: %s\n", r.Probe, r.Undo, map[bool]string{true: "yes", false: "no"}[r.Idempotent])
	if r.AuthorKnows {
		fmt.Fprintln(w, "  the kind cannot know its effect: say it with effect and idempotent")
	}
	if len(r.Pitfalls) > 0 {
		title("guards against")
		for _, p := range r.Pitfalls {
			for i, line := range wrap(p, 86) {
				fmt.Fprintln(w, []string{"  - ", "    "}[min(i, 1)]+line)
			}
		}
	}
	title("example")
	for line := range strings.SplitSeq(r.Example, "\n") {
		fmt.Fprintln(w, "  "+line)
	}
}

func (a *app) field(w io.Writer, f catalog.Field) {
	words := f.Type
	switch {
	case f.Required:
		words += ", required"
	case f.Default != "":
		words += ", " + f.Default + " by default"
	}
	if len(f.Enum) > 0 {
		words += ", one of " + strings.Join(f.Enum, " ")
	}
	if f.Act {
		words += ", known to the act alone"
	}
	fmt.Fprintf(w, "  %s (%s)\n", f.Name, words)
	for _, line := range wrap(f.Doc, 84) {
		fmt.Fprintln(w, "      "+line)
	}
}

// wrap breaks a text into lines of at most so many characters.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
