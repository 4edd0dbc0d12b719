package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

// given are the flags that say what a runbook runs on.
type given struct {
	inputs    []string
	file      string
	inventory string
	policies  []string
	selection runner.Selection
}

func (g *given) flags(cmd *cobra.Command, selecting bool) {
	f := cmd.Flags()
	f.StringArrayVarP(&g.inputs, "input", "i", nil, "value of an input, as name=value; may be given often")
	f.StringVar(&g.file, "inputs", "", "file of inputs: a YAML map of names and values")
	f.StringVar(&g.inventory, "inventory", "", "file of targets and inputs; its targets replace the runbook's")
	if selecting {
		policyFlag(cmd, &g.policies)
		f.StringVar(&g.selection.From, "from", "", "first step that runs")
		f.StringVar(&g.selection.To, "to", "", "last step that runs")
		f.StringSliceVar(&g.selection.Only, "only", nil, "only steps with one of these tags")
		f.StringSliceVar(&g.selection.Skip, "skip", nil, "no steps with one of these tags")
		for _, name := range []string{"from", "to"} {
			_ = cmd.RegisterFlagCompletionFunc(name, completeSteps) // fails for an unknown flag alone
		}
		for _, name := range []string{"only", "skip"} {
			_ = cmd.RegisterFlagCompletionFunc(name, completeTags)
		}
	}
	_ = cmd.RegisterFlagCompletionFunc("input", completeInputs)
}

// loaded is a runbook that lints, with its inputs bound.
type loaded struct {
	program  *runner.Program
	inputs   *runner.Inputs
	findings []schema.Finding // warnings
}

// overlay changes what a runbook is bound to: the sandbox puts its own targets in.
type overlay struct {
	inventory func(*schema.Inventory) (*schema.Inventory, error)
	inputs    map[string]any
	path      string
}

// load reads a runbook and binds its inputs. Errors of the files are a *runner.UsageError with findings.
func (a *app) load(path string, g *given, over *overlay) (*loaded, error) {
	var inv *schema.Inventory
	if g.inventory != "" {
		text, err := os.ReadFile(g.inventory)
		if err != nil {
			return nil, usage("", "read the inventory %s: %w", g.inventory, reason(err))
		}
		var findings []schema.Finding
		if inv, findings = schema.ParseInventory(g.inventory, text); schema.Failed(findings) {
			return nil, &runner.UsageError{Findings: findings}
		}
	}
	inputs := runner.GivenInputs{Flags: g.inputs}
	if g.file != "" {
		text, err := os.ReadFile(g.file)
		if err != nil {
			return nil, usage("", "read the inputs %s: %w", g.file, reason(err))
		}
		inputs.File = runner.FileText{Path: g.file, Text: nonNil(text)}
	}
	if over != nil {
		if inv != nil {
			inputs.Inventory = runner.FileText{Path: inv.Path, Text: nonNil(inv.Source)}
		}
		var err error
		if inv, err = over.inventory(inv); err != nil {
			return nil, err
		}
		inputs.World, inputs.WorldPath = over.inputs, over.path
	}
	p, findings := runner.Load(path, runner.LoadOptions{Catalog: a.catalog(), Inventory: inv})
	if p == nil || schema.Failed(findings) {
		return nil, &runner.UsageError{Findings: findings}
	}
	p, more, err := a.withPolicies(p, g.policies)
	if err != nil {
		return nil, err
	}
	findings = append(findings, more...)
	bound, more, err := p.BindInputs(inputs)
	if err != nil {
		return nil, err
	}
	if schema.Failed(more) {
		return nil, &runner.UsageError{Findings: more}
	}
	return &loaded{program: p, inputs: bound, findings: findings}, nil
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// operator says who is there: a record, not a login.
func (a *app) operator() (runner.Operator, error) {
	op := runner.Operator{UID: os.Getuid()}
	op.Host, _ = os.Hostname() // a host without a name is recorded without one
	for _, name := range []string{a.as, os.Getenv("RUNNER_OPERATOR"), os.Getenv("SUDO_USER")} {
		if name = strings.TrimSpace(name); name != "" {
			op.Name = name
			break
		}
	}
	if op.Name == "" {
		if u, err := user.Current(); err == nil {
			op.Name = u.Username
		} else {
			op.Name = fmt.Sprintf("uid %d", op.UID)
		}
	}
	if strings.ContainsAny(op.Name, "\n\r\t\x00\x1b") {
		return op, usage("", "the operator's name %q is not one line of text", op.Name)
	}
	op.Trusted = os.Getenv("RUNNER_OPERATOR_TRUSTED") == "1"
	return op.Here(), nil
}

// config is what a run needs of this process.
func (a *app) config(ctx context.Context, folder string) (runner.Config, error) {
	op, err := a.operator()
	if err != nil {
		return runner.Config{}, err
	}
	cfg := runner.Config{Store: a.store(), Operator: op, Version: version().Version, Log: a.logger(), Guardian: startGuardian, Listen: true}
	if folder != "" {
		cfg.Git = runner.GitRevision(ctx, folder)
	}
	return cfg, nil
}

// folderOf is the folder of a file, never empty.
func folderOf(path string) string { return filepath.Dir(path) }

// build says what this binary is.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Language int    `json:"language"`
	Go       string `json:"go"`
}

// release is set by the linker (-X main.release=v1.2.3).
var release = ""

func version() build {
	b := build{Version: release, Language: schema.LanguageVersion}
	info, ok := debug.ReadBuildInfo()
	if ok {
		b.Go = info.GoVersion
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
		modified := false
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
		if modified && b.Revision != "" {
			b.Revision += "+changes"
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}
