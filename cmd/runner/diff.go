package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/diff"
	"runbook/schema"
)

func (a *app) diffCommand() *cobra.Command {
	var g given
	var exitCode, textconv, driver bool
	var asIf string
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what a change of a runbook means, and how dangerous each difference is",
		Long: `diff compares what two runbooks do, not how they are written: steps added, removed, moved,
renamed and altered, field by field, runbooks used as steps included. Comments, names,
layout, order of keys, anchors and the wording of expressions do not count. Each
difference has a level (danger, caution, notice, harmless) with its reason; the most
dangerous come first. Nothing is said where the two mean the same.

OLD and NEW are files, or REV:path as git has it (path from the root of the repository):
then every file of that side is read from that revision, the files of --inputs and
--inventory too where it has them. Values given with -i count for both sides.

As a driver of git: --as-if says which file OLD and NEW are versions of, where both are
temporary (difftool); --textconv FILE writes what one file means, a fact a line; --driver
takes the arguments of an external diff.`,
		Example: `  runner diff HEAD:runbooks/move.yaml runbooks/move.yaml
  runner diff --exit-code old.yaml new.yaml                    exit 2 where they differ
  runner diff --output markdown main:move.yaml move.yaml       for a pull request
  runner diff --output github main:move.yaml move.yaml         beside the lines of one`,
		ValidArgsFunction: completeFiles,
		Args: func(cmd *cobra.Command, paths []string) error {
			switch {
			case textconv:
				return args(1, 1, "one file with --textconv")(cmd, paths)
			case driver:
				return args(7, 9, "the seven arguments that git gives an external diff")(cmd, paths)
			}
			return args(2, 2, "two runbooks, OLD and NEW")(cmd, paths)
		},
		RunE: func(_ *cobra.Command, paths []string) error {
			switch {
			case textconv:
				return a.meaning(paths[0])
			case driver:
				return a.driven(paths)
			}
			changes, err := a.compare(paths[0], paths[1], asIf, &g)
			if err != nil {
				return err
			}
			if err := a.changes(paths[0], paths[1], changes); err != nil {
				return err
			}
			if exitCode && len(changes) > 0 {
				return &ended{exitUsage}
			}
			return nil
		},
	}
	g.flags(cmd, false)
	f := cmd.Flags()
	f.BoolVar(&exitCode, "exit-code", false, "exit 2 where the two do not mean the same")
	f.StringVar(&asIf, "as-if", "", "file that OLD and NEW are versions of: what they use is looked for beside it")
	f.BoolVar(&textconv, "textconv", false, "write what one FILE means, a fact a line: for git's textconv")
	f.BoolVar(&driver, "driver", false, "take the arguments that git gives an external diff")
	cmd.MarkFlagsMutuallyExclusive("textconv", "driver", "exit-code")
	cmd.MarkFlagsMutuallyExclusive("textconv", "driver", "as-if")
	a.forms(cmd, "text", "markdown", "json", "sarif", "github")
	return cmd
}

// compare loads both sides, and tells what differs.
func (a *app) compare(older, newer, asIf string, g *given) ([]diff.Change, error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // it is over in a moment: here time is worth more than memory
	}
	catalog := a.catalog()
	var sides [2]*reading
	for i, path := range []string{older, newer} {
		s, err := openSide(path, asIf)
		if err != nil {
			return nil, err
		}
		if sides[i], err = s.read(catalog, g); err != nil {
			return nil, err
		}
	}
	// A value may be of an input that one side alone has.
	var findings []schema.Finding
	for i, r := range sides {
		other := sides[1-i].program
		findings = append(findings, slices.DeleteFunc(r.findings, func(f schema.Finding) bool {
			return f.Rule == "missing-input" || f.Rule == "unknown-input" && slices.ContainsFunc(other.Root.Inputs, func(in *runner.Input) bool {
				return strings.Contains(f.Message, fmt.Sprintf("%q", in.Name))
			})
		})...)
	}
	if schema.Failed(findings) {
		return nil, &runner.UsageError{Findings: findings}
	}
	return diff.Compare(sides[0].side(), sides[1].side()), nil
}

// changes answers with the changes, in the form asked for.
func (a *app) changes(older, newer string, changes []diff.Change) error {
	switch a.output {
	case "json":
		return a.answer(diff.NewReport(older, newer, changes))
	case "markdown":
		return diff.WriteMarkdown(a.out, changes)
	case "sarif":
		tool := schema.Tool{Name: "runner", Version: version().Version, Rules: diff.SchemaRules()}
		return schema.WriteSARIF(a.out, tool, inRepository(reviewed(newer, changes)))
	case "github":
		return schema.WriteGitHub(a.out, inRepository(reviewed(newer, changes)))
	}
	return diff.WriteText(a.out, changes, func(l diff.Level, text string) string { return a.paint(a.out, levelTones[l], text) })
}

var levelTones = [...]runner.Tone{diff.Harmless: runner.Faint, diff.Notice: runner.Change, diff.Caution: runner.Caution, diff.Danger: runner.Bad}

// reviewed are changes as findings for a tool that shows them beside the lines of the new
// version: what is gone has no line there, and stands at its top.
func reviewed(newer string, changes []diff.Change) []schema.Finding {
	var findings []schema.Finding
	for i := range changes {
		f := changes[i].Finding()
		if changes[i].Side == "old" {
			f.Message += fmt.Sprintf(" (it stood in line %d)", f.Line)
			f.Path, f.Line, f.Column, f.EndLine, f.EndColumn = newer, 1, 1, 1, 1
			if _, path, ok := revision(newer); ok {
				f.Path = path
			}
		}
		findings = append(findings, f)
	}
	return findings
}

// meaning writes what one file means. One that is no runbook, or has mistakes, is written as
// it is: git compares what it gets.
func (a *app) meaning(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return usage("", "read %s: %w", path, reason(err))
	}
	p, findings := runner.Load(path, runner.LoadOptions{Catalog: a.catalog(), Alone: true, ReadFile: func(string) ([]byte, error) { return text, nil }})
	if p == nil || schema.Failed(findings) {
		_, err = a.out.Write(text)
		return err
	}
	return diff.WriteMeaning(a.out, p)
}

// driven compares what git hands to an external diff: path old-file old-hex old-mode
// new-file new-hex new-mode. Where one of the two is no runbook that lints it says so: a
// driver that fails ends git's whole diff.
func (a *app) driven(words []string) error {
	path, older, newer := words[0], words[1], words[4]
	fmt.Fprintf(a.out, "runner diff %s\n", clean(path))
	switch os.DevNull {
	case older:
		fmt.Fprintln(a.out, "it is new")
		return nil
	case newer:
		fmt.Fprintln(a.out, "it is gone")
		return nil
	}
	changes, err := a.compare(older, newer, path, &given{})
	if err != nil {
		if u, ok := err.(*runner.UsageError); ok && len(u.Findings) > 0 {
			a.findings(a.out, u.Findings)
			return nil
		}
		fmt.Fprintln(a.out, clean(err.Error()))
		return nil
	}
	return a.changes(path, path, changes)
}

// reading is one side, read.
type reading struct {
	program  *runner.Program
	inputs   *runner.Inputs
	findings []schema.Finding // about the values of inputs
}

func (r *reading) side() diff.Side { return diff.Side{Program: r.program, Inputs: r.inputs.Values} }

// source is where the files of one side come from.
type side struct {
	path string // of the runbook
	rev  *gitTree
	// standsFor: what is read where the path asks for it; empty: the path itself.
	standsFor string
}

// openSide finds out what an argument means: a file, or one in a revision.
func openSide(arg, asIf string) (*side, error) {
	if asIf != "" {
		return &side{path: asIf, standsFor: arg}, nil
	}
	rev, path, ok := revision(arg)
	if !ok {
		return &side{path: arg}, nil
	}
	tree, err := openTree(rev)
	if err != nil {
		return nil, err
	}
	path, err = tree.locate(path)
	if err != nil {
		return nil, err
	}
	return &side{path: path, rev: tree}, nil
}

// revision splits REV:path. A file of that very name is a file.
func revision(arg string) (rev, path string, ok bool) {
	if _, err := os.Lstat(arg); err == nil {
		return "", "", false
	}
	rev, path, ok = strings.Cut(arg, ":")
	return rev, path, ok && rev != "" && path != "" && !filepath.IsAbs(arg)
}

// readFile reads a file of the side.
func (s *side) readFile(path string) ([]byte, error) {
	switch {
	case s.rev != nil:
		return s.rev.readFile(path)
	case s.standsFor != "" && filepath.Clean(path) == filepath.Clean(s.path):
		return os.ReadFile(s.standsFor)
	}
	return os.ReadFile(path)
}

// beside reads a file that a flag names: of the revision where it has it, else as it is.
func (s *side) beside(path string) ([]byte, error) {
	if s.rev != nil {
		if within, err := s.rev.locateHere(path); err == nil {
			if text, err := s.rev.readFile(within); err == nil {
				return text, nil
			}
		}
	}
	return os.ReadFile(path)
}

// read loads the side. Mistakes in its files are a *runner.UsageError with findings.
func (s *side) read(catalog *runner.Catalog, g *given) (*reading, error) {
	failed := func(findings []schema.Finding) error {
		if s.rev != nil {
			for i := range findings {
				findings[i].Path = s.rev.name + ":" + findings[i].Path
			}
		}
		return &runner.UsageError{Findings: findings}
	}
	var inv *schema.Inventory
	if g.inventory != "" {
		text, err := s.beside(g.inventory)
		if err != nil {
			return nil, usage("", "read the inventory %s: %w", g.inventory, reason(err))
		}
		var findings []schema.Finding
		if inv, findings = schema.ParseInventory(g.inventory, text); schema.Failed(findings) {
			return nil, failed(findings)
		}
	}
	inputs := runner.GivenInputs{Flags: g.inputs}
	if g.file != "" {
		text, err := s.beside(g.file)
		if err != nil {
			return nil, usage("", "read the inputs %s: %w", g.file, reason(err))
		}
		inputs.File = runner.FileText{Path: g.file, Text: nonNil(text)}
	}
	p, findings := runner.Load(s.path, runner.LoadOptions{Catalog: catalog, Inventory: inv, ReadFile: s.readFile})
	if p == nil || schema.Failed(findings) {
		return nil, failed(findings)
	}
	bound, findings, err := p.BindInputs(inputs)
	if err != nil {
		return nil, err
	}
	return &reading{p, bound, findings}, nil
}
