package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"runbook/schema"
)

// formsOf is the annotation of a flag --output that lists what it takes.
const formsOf = "forms"

// forms says which forms of its answer a command has; the first is the one that it gives
// unasked. A command that says nothing has text and json.
func (a *app) forms(cmd *cobra.Command, forms ...string) { takeForms(cmd, cmd.Flags(), forms) }

// takeForms adds --output to flags of a command. A command's own flag hides the one that all of them have.
func takeForms(cmd *cobra.Command, flags *pflag.FlagSet, forms []string) {
	flags.String("output", forms[0], "form of the answer: "+either(forms))
	_ = flags.SetAnnotation("output", formsOf, forms) // these two fail for an unknown flag alone
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
}

// chooseForm reads --output, and refuses what the command does not write.
func (a *app) chooseForm(cmd *cobra.Command) error {
	flag := cmd.Flag("output")
	forms := flag.Annotations[formsOf]
	a.output = flag.Value.String()
	if slices.Contains(forms, a.output) {
		return nil
	}
	hint := "--output " + either(forms)
	if near, ok := schema.Nearest(a.output, forms); ok {
		hint = "did you mean --output " + near + "?"
	}
	return usage(hint, "%s has no output %q", cmd.CommandPath(), a.output)
}

// either lists words, of which one is chosen.
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
