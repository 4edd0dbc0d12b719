package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/journal"
	"runbook/schema"
)

// liveFlags are the flags of plan that ask the targets, and keep the plan for a run.
type liveFlags struct {
	live    bool
	out     string
	expires string
	box     sandboxFlags
}

func (f *liveFlags) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.live, "live", false, "ask the targets, by reads alone, what is already so")
	cmd.Flags().StringVar(&f.out, "out", "", "keep the plan in this file, for one exec --plan")
	cmd.Flags().StringVar(&f.expires, "expires", "24h", "how long the plan in --out is good")
	f.box.flags(cmd)
}

// life is how long a saved plan is good.
func (f *liveFlags) life(cmd *cobra.Command) (time.Duration, error) {
	if f.out == "" && cmd.Flags().Changed("expires") {
		return 0, usage("--out FILE", "--expires is of a plan that is kept, and there is no --out")
	}
	if f.out == "" && !f.live && f.box.file != "" {
		return 0, usage("--live", "--sandbox is for a plan that asks its targets, or that is kept: without --live and --out none is contacted")
	}
	life, err := schema.ParseDuration(f.expires)
	if err != nil {
		return 0, usage("--expires 24h", "--expires: %w", err)
	}
	return life, nil
}

// planned is a plan, and what is left to do when it has been shown.
type planned struct {
	plan     *runner.Plan
	findings []schema.Finding
	failed   error     // a step is known to fail
	saved    []byte    // of --out
	until    time.Time // when that expires
}

// plan makes the plan of a runbook; with --live it asks the targets, with --out it makes the document of a saved plan.
func (a *app) plan(cmd *cobra.Command, book string, g *given, f *liveFlags) (*planned, error) {
	life, err := f.life(cmd)
	if err != nil {
		return nil, err
	}
	world, err := a.sandbox(cmd, &f.box, book)
	if err != nil {
		return nil, err
	}
	defer world.stop()
	l, err := a.load(book, g, world.overlay(book, nil))
	if err != nil {
		return nil, err
	}
	p := &planned{findings: l.findings}
	var findings []schema.Finding
	if p.plan, findings, err = runner.MakePlan(l.program, l.inputs, g.selection); err == nil && schema.Failed(findings) {
		err = &runner.UsageError{Findings: findings}
	}
	if err != nil || !f.live && f.out == "" {
		return p, err
	}
	ctx, stop := a.interruptible()
	defer stop()
	cfg, err := a.config(ctx, folderOf(book))
	if err != nil {
		return nil, err
	}
	if err := world.start(ctx, &cfg, true); err != nil {
		return nil, err
	}
	req := runner.Request{Program: l.program, Inputs: l.inputs, Selection: g.selection, Sandbox: world.path(), SandboxAddrs: world.addrs()}
	var seen *runner.Observation
	if f.live {
		if seen, err = runner.Look(ctx, cfg, req); err != nil {
			return nil, err
		}
		p.failed = seen.Failed()
		if p.plan, findings, err = runner.MakeLivePlan(l.program, l.inputs, g.selection, seen, cfg.Operator); err != nil {
			return nil, err
		}
		if schema.Failed(findings) {
			return nil, &runner.UsageError{Findings: findings}
		}
	}
	if f.out != "" && p.failed == nil {
		raw, saved, err := runner.SavePlan(cfg, req, seen, life)
		if err != nil {
			return nil, err
		}
		p.saved, p.until = raw, saved.Expires
	}
	return p, nil
}

// keep writes a plan that has been shown to its file, and says whether a step is known to fail.
func (a *app) keep(p *planned, file string) error {
	if p.failed != nil {
		text := "known to fail: " + p.failed.Error()
		if file != "" {
			text += "; " + file + " was not written"
		}
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Bad, "error:"), clean(text))
		return &ended{exitFailed}
	}
	if p.saved == nil {
		return nil
	}
	if err := journal.WriteDurable(file, p.saved); err != nil {
		return usage("", "write the plan to %s: %w", file, reason(err))
	}
	fmt.Fprintf(a.err, "the plan is in %s, good for one run until %s\n%s runner exec --plan %s\n", file, p.until.Local().Format(time.RFC3339), a.paint(a.err, runner.Faint, "help:"), shellWord(file))
	return nil
}

// picked is what exec is to run: a runbook with its inputs, or a saved plan.
type picked struct {
	*loaded
	book      string // path of the runbook
	selection runner.Selection
	dir       string // working directory; empty: the process's
	saved     *runner.SavedPlan
	world     *world
}

// pick loads what exec is to run.
func (a *app) pick(cmd *cobra.Command, file string, paths []string, g *given, box *sandboxFlags) (*picked, error) {
	if cmd.Flags().Changed("plan") {
		p, err := a.pickSaved(cmd, file, paths, box)
		if err == nil {
			p.program, p.findings, err = a.withPolicies(p.program, g.policies)
		}
		return p, err
	}
	if len(paths) == 0 {
		return nil, usage(cmd.UseLine(), "%s needs one runbook, or a plan with --plan FILE", cmd.CommandPath())
	}
	p := &picked{book: paths[0], selection: g.selection}
	var err error
	if p.world, err = a.sandbox(cmd, box, p.book); err != nil {
		return nil, err
	}
	p.loaded, err = a.load(p.book, g, p.world.overlay(p.book, nil))
	return p, err
}

// pickSaved loads a saved plan: sources, inputs and selection are its own.
func (a *app) pickSaved(cmd *cobra.Command, file string, paths []string, box *sandboxFlags) (*picked, error) {
	for _, name := range []string{"input", "inputs", "inventory", "from", "to", "only", "skip"} {
		if cmd.Flags().Changed(name) {
			return nil, usage("plan again with it: runner plan --live --out "+shellWord(file), "--%s does not go with --plan: a saved plan runs as it was planned", name)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("runner plan --live --out "+shellWord(file)+" RUNBOOK makes one", "read the saved plan %s: %w", file, reason(err))
	}
	saved, err := runner.ReadSavedPlan(raw)
	if err != nil {
		return nil, err
	}
	if err := saved.Usable(a.store(), time.Now()); err != nil {
		return nil, err
	}
	frozen := &saved.Plan
	p := &picked{saved: saved, book: frozen.Sources[0].Path, selection: frozen.Selection, dir: frozen.Dir}
	if here, err := os.Getwd(); err != nil || here != p.dir {
		p.book = within(p.dir, p.book)
	}
	if info, err := os.Stat(p.dir); err != nil || !info.IsDir() {
		return nil, usage("plan again, where it is to run", "the saved plan was made in %s, and there is no such directory here", p.dir)
	}
	if p.world, err = a.sandbox(cmd, box, p.book); err != nil {
		return nil, err
	}
	switch world := p.world.path(); {
	case world == "" && frozen.Sandbox != "":
		return nil, usage("--sandbox="+shellWord(frozen.Sandbox), "the plan was made in the sandbox %s: it is not carried out for real", frozen.Sandbox)
	case world != "" && frozen.Sandbox == "":
		return nil, usage("runner plan --sandbox --live --out makes one for a sandbox", "the plan was made for the real targets: it is not for a sandbox")
	case world != "" && absolute(world) != within(frozen.Dir, frozen.Sandbox):
		return nil, usage("--sandbox="+shellWord(frozen.Sandbox), "the plan was made in the sandbox %s, not in %s", frozen.Sandbox, world)
	}
	if p.world != nil {
		p.world.listens = saved.SandboxAddrs
	}
	var inventory func(*schema.Inventory) (*schema.Inventory, error)
	if over := p.world.overlay(p.book, []byte(frozen.Sources[0].Text)); over != nil {
		inventory = over.inventory
	}
	program, inputs, err := saved.Program(a.catalog(), inventory)
	if err != nil {
		return nil, err
	}
	if len(paths) > 0 {
		if err := a.same(paths[0], saved, inputs); err != nil {
			return nil, err
		}
	}
	p.loaded = &loaded{program: program, inputs: inputs}
	fmt.Fprintf(a.err, "saved plan %s, made by %s at %s: %s\n", saved.ID, clean(frozen.Operator.Name), saved.Created.Local().Format(time.RFC3339), lookedAt(saved))
	a.drift(frozen, "the plan was made", "the plan's own text runs")
	return p, nil
}

func lookedAt(p *runner.SavedPlan) string {
	if p.Observed == nil {
		return "its targets were not asked, so nothing is compared"
	}
	return "what was observed is observed again"
}

// same refuses a runbook beside --plan that is not the one that was planned.
func (a *app) same(book string, saved *runner.SavedPlan, inputs *runner.Inputs) error {
	var inv *schema.Inventory
	for _, s := range saved.Plan.Sources {
		if s.Role == "inventory" {
			inv, _ = schema.ParseInventory(s.Path, []byte(s.Text)) // it was taken when it was planned
		}
	}
	p, findings := runner.Load(book, runner.LoadOptions{Catalog: a.catalog(), Inventory: inv})
	if p == nil || schema.Failed(findings) {
		return &runner.UsageError{Findings: findings}
	}
	if p.Digest(inputs) != saved.Plan.Digest {
		return usage("leave it out: --plan runs what was planned; or plan again", "%s is not what the saved plan was made of", book)
	}
	return nil
}

// within is a path as it was written in a directory.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// git is the revision that a run records: of what it was planned from.
func (p *picked) git(cfg *runner.Config) {
	if p.saved != nil {
		cfg.Git = p.saved.Plan.Git
	}
}

// drifted tells what is not as it was when the plan was made, a fact a line.
func (a *app) drifted(e *runner.DriftError) {
	for _, d := range e.Drifts {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Caution, "drift:"), clean(d.String()))
	}
}
