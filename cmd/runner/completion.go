package main

import (
	"strings"

	"github.com/spf13/cobra"

	"os"
	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps/catalog"
)

func (a *app) completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print completions for a shell",
		Example: `  source <(runner completion bash)
  runner completion zsh > "${fpath[1]}/_runner"
  runner completion fish > ~/.config/fish/completions/runner.fish`,
		Args:      args(1, 1, "one shell: bash, zsh or fish"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, shells []string) error {
			root := cmd.Root()
			switch shells[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			}
			near, _ := schema.Nearest(shells[0], []string{"bash", "zsh", "fish"})
			hint := "bash, zsh or fish"
			if near != "" {
				hint = "did you mean " + near + "?"
			}
			return usage(hint, "there are no completions for %q", shells[0])
		},
	}
	return cmd
}

// completeFiles offers YAML files.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeRuns offers the runs, newest first.
func (a *app) completeRuns(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	store := journal.Store{Dir: a.state}
	entries, err := store.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ids := []string{"last"}
	for _, e := range entries {
		if e.Run != nil {
			ids = append(ids, e.ID)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func completeKinds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, k := range catalog.Kinds() {
			names = append(names, k.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// book is the runbook on the command line being completed; nil where there is none yet.
func book(args []string) *schema.Runbook {
	if len(args) == 0 {
		return nil
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return nil
	}
	b, _ := schema.Parse(args[0], text)
	return b
}

func eachStep(list []schema.Step, visit func(*schema.Step)) {
	for i := range list {
		visit(&list[i])
		eachStep(list[i].Steps, visit)
	}
}

func completeSteps(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if b := book(args); b != nil {
		eachStep(b.Steps, func(s *schema.Step) { ids = append(ids, s.ID.Value) })
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func completeTags(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	seen := map[string]bool{}
	if b := book(args); b != nil {
		eachStep(b.Steps, func(s *schema.Step) {
			for _, t := range s.Tags {
				seen[t.Value] = true
			}
		})
	}
	return sorted(seen), cobra.ShellCompDirectiveNoFileComp
}

func completeInputs(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if b := book(args); b != nil && !strings.Contains(prefix, "=") {
		for _, in := range b.Inputs {
			names = append(names, in.Key.Value+"=")
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
