package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"runbook/runner"
)

// writePlan writes a plan in the form that was asked for, or compares it with a file.
func (a *app) writePlan(cmd *cobra.Command, plan *runner.Plan, check string) error {
	var text bytes.Buffer
	var err error
	switch {
	case a.output == "markdown":
		err = plan.WriteMarkdown(&text)
	case a.json() && check == "":
		return a.answer(plan)
	default:
		err = plan.WriteText(&text)
	}
	if err != nil {
		return err
	}
	if check != "" {
		return a.checkPlan(cmd, check, text.Bytes())
	}
	_, err = a.out.Write(text.Bytes())
	return err
}

// checkedPlan is the answer of `plan --check` as JSON.
type checkedPlan struct {
	File    string   `json:"file"`
	Stale   bool     `json:"stale"`
	Diff    []string `json:"diff"`
	Command string   `json:"command"` // writes the file anew
}

// checkPlan compares a plan that lies beside its runbook with what it would be now. Ends
// of lines do not count: git may write them as it likes.
func (a *app) checkPlan(cmd *cobra.Command, file string, now []byte) error {
	checked := checkedPlan{File: file, Diff: []string{}, Command: rewriting(cmd, file)}
	committed, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return usage(checked.Command, "there is no plan %s", file)
	} else if err != nil {
		return usage("", "read the plan %s: %w", file, reason(err))
	}
	committed = bytes.ReplaceAll(committed, []byte("\r\n"), []byte("\n"))
	if checked.Stale = !bytes.Equal(committed, now); checked.Stale {
		checked.Diff = unifiedDiff(string(committed), string(now), file, "as it is now")
	}
	if a.json() {
		if err := a.answer(checked); err != nil {
			return err
		}
	} else {
		for _, line := range checked.Diff {
			fmt.Fprintln(a.out, a.paint(a.out, diffTone(line), clean(line)))
		}
	}
	if !checked.Stale {
		return nil
	}
	return usage(checked.Command, "the plan %s is stale: it is not what the runbook says now", file)
}

// diffTone is the tone of a line of a difference.
func diffTone(line string) runner.Tone {
	switch {
	case strings.HasPrefix(line, "-"):
		return runner.Bad
	case strings.HasPrefix(line, "+"):
		return runner.Good
	}
	return runner.Plain
}

// rewriting is the command line that was given, with the plan written to the file instead.
func rewriting(cmd *cobra.Command, file string) string {
	words := []string{cmd.CommandPath()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		switch {
		case f.Name == "check", f.Name == "output" && f.Value.String() == "json":
		case f.Value.Type() == "bool":
			words = append(words, "--"+f.Name)
		default:
			for _, v := range values {
				words = append(words, "--"+f.Name, shellWord(v))
			}
		}
	})
	for _, arg := range cmd.Flags().Args() {
		words = append(words, shellWord(arg))
	}
	return strings.Join(append(words, ">", shellWord(file)), " ")
}
