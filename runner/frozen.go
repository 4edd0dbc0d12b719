package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
)

// frozenFormat is the version of a frozen plan that this binary writes, and the only one it reads.
const frozenFormat = 1

// Frozen is a run's plan.json: everything that a resume needs to carry on with the very
// plan that was started, whatever has become of the files since. It holds no secret.
type Frozen struct {
	Format    int               `json:"format"`
	Digest    string            `json:"digest"` // of the plan
	Sources   []Source          `json:"sources"`
	Inputs    map[string]any    `json:"inputs"` // of the input's type in JSON: durations as text
	Origins   map[string]string `json:"origins,omitempty"`
	Inventory string            `json:"inventory,omitempty"` // path
	Selection Selection         `json:"selection,omitzero"`
	Dir       string            `json:"dir"`
	Sandbox   string            `json:"sandbox,omitempty"`
	Kinds     string            `json:"kinds"` // SHA-256 over the kinds used: name, effect, inputs, outputs
	Operator  Operator          `json:"operator"`
	Version   string            `json:"version"`
	Git       string            `json:"git,omitempty"` // revision of the runbook's folder, "+changes" where it differs from it
	// Sum is the SHA-256 of this document without it.
	Sum string `json:"sum"`
}

// Freeze makes the plan.json of a run that is about to start.
func Freeze(_ context.Context, cfg Config, req Request) ([]byte, error) {
	raw, err := freeze(cfg, req).marshal()
	if err != nil {
		return nil, fmt.Errorf("freeze the plan: %w", err)
	}
	return raw, nil
}

func freeze(cfg Config, req Request) Frozen {
	p := req.Program
	f := Frozen{
		Format: frozenFormat, Digest: p.Digest(req.Inputs), Sources: p.Sources, Inputs: map[string]any{}, Origins: req.Inputs.Origins,
		Selection: req.Selection, Dir: req.Dir, Sandbox: req.Sandbox, Kinds: p.kindsDigest(),
		Operator: cfg.Operator, Version: cfg.Version, Git: cfg.Git,
	}
	for _, in := range p.Root.Inputs {
		if v, ok := req.Inputs.Values[in.Name]; ok && in.Kind != "secret" {
			if t, isTarget := v.(map[string]any); isTarget && in.Kind == "target" {
				v = t["name"] // bound already
			}
			f.Inputs[in.Name] = jsonable(v)
		}
	}
	for _, s := range p.Sources {
		if s.Role == "inventory" {
			f.Inventory = s.Path
		}
	}
	return f
}

// marshal writes the document with its sum.
func (f Frozen) marshal() ([]byte, error) {
	sum, err := f.sum()
	if err != nil {
		return nil, err
	}
	f.Sum = sum
	raw, err := json.MarshalIndent(f, "", "  ")
	return append(raw, '\n'), err
}

func (f Frozen) sum() (string, error) {
	f.Sum = ""
	return sumOf(f)
}

// sumOf is over a document in the form that json.Marshal gives it, so that layout does not count.
func sumOf(document any) (string, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// Thaw reads a plan.json and verifies every SHA-256 in it. One that is damaged, edited or
// written by a newer binary is a *UsageError: a resume must not act on another plan than
// the one that was started.
func Thaw(raw []byte) (*Frozen, error) {
	damaged := func(format string, a ...any) (*Frozen, error) {
		return nil, &UsageError{Err: fmt.Errorf("the frozen plan is damaged: "+format, a...),
			Hint: "the run cannot be resumed; `runner runs show` tells how far it came"}
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return damaged("%w", err)
	}
	if head.Format > frozenFormat {
		return nil, &UsageError{Err: fmt.Errorf("the frozen plan has format %d, this binary knows format %d", head.Format, frozenFormat),
			Hint: "resume with the version of the runner that started the run, or a newer one"}
	}
	if head.Format != frozenFormat {
		return damaged("it has format %d", head.Format)
	}
	var f Frozen
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // large integers keep their digits
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return damaged("%w", err)
	}
	if err := f.verify(); err != nil {
		return damaged("%w", err)
	}
	return &f, nil
}

// verify compares every SHA-256 in the document with what it is of.
func (f *Frozen) verify() error {
	for _, s := range f.Sources {
		sum := sha256.Sum256([]byte(s.Text))
		if hex.EncodeToString(sum[:]) != s.SHA256 {
			return fmt.Errorf("the text of %s is not the one that was frozen", s.Path)
		}
	}
	if sum, err := f.sum(); err != nil || sum != f.Sum {
		return errors.New("it is not what was written")
	}
	if len(f.Sources) == 0 || f.Sources[0].Role != "runbook" {
		return errors.New("it holds no runbook")
	}
	return nil
}

// Program binds the frozen sources again, without reading a file. A *UsageError says that
// this binary does not carry them out as the one that froze them did.
func (f *Frozen) Program(c *Catalog) (*Program, *Inputs, error) {
	return f.bind(c, nil, rebinding{refused: "the frozen runbook, which the one that started the run took",
		kinds: "step kinds that the run uses differ between this binary and the one that started it", hint: "resume with version " + f.Version})
}

// rebinding is what is said where frozen sources cannot be bound again.
type rebinding struct{ refused, kinds, hint string }

func (f *Frozen) bind(c *Catalog, overlay func(*schema.Inventory) (*schema.Inventory, error), words rebinding) (*Program, *Inputs, error) {
	texts := map[string]string{}
	var inventory *schema.Inventory
	for _, s := range f.Sources {
		switch s.Role {
		case "inventory":
			inv, findings := schema.ParseInventory(s.Path, []byte(s.Text))
			if schema.Failed(findings) {
				return nil, nil, &UsageError{Findings: findings}
			}
			inventory = inv
		case "runbook", "sub-runbook":
			texts[filepath.Clean(s.Path)] = s.Text
		}
	}
	if overlay != nil {
		var err error
		if inventory, err = overlay(inventory); err != nil {
			return nil, nil, err
		}
	}
	p, findings := Load(f.Sources[0].Path, LoadOptions{Catalog: c, Inventory: inventory, ReadFile: func(path string) ([]byte, error) {
		text, ok := texts[filepath.Clean(path)]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not among the frozen sources")}
		}
		return []byte(text), nil
	}})
	if p == nil || schema.Failed(findings) {
		return nil, nil, &UsageError{Findings: findings, Err: errors.New("this binary refuses " + words.refused), Hint: words.hint}
	}
	if kinds := p.kindsDigest(); kinds != f.Kinds {
		return nil, nil, &UsageError{Err: errors.New(words.kinds), Hint: words.hint}
	}
	in := &Inputs{Values: map[string]any{}, Origins: f.Origins}
	for _, decl := range p.Root.Inputs {
		v, ok := f.Inputs[decl.Name]
		if !ok {
			continue
		}
		t := decl.Type
		if decl.Kind == "target" {
			t = stringType
		}
		in.Values[decl.Name] = expression.Decode(t, v)
	}
	if got := p.Digest(in); got != f.Digest {
		return nil, nil, &UsageError{Err: fmt.Errorf("the frozen plan gives the digest %.12s here, and %.12s where it was made", got, f.Digest), Hint: words.hint}
	}
	return p, in, nil
}

// kindsDigest is the SHA-256 over the kinds that the program uses.
func (p *Program) kindsDigest() string {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, k := range p.kindsUsed() {
		_ = e.Encode(k) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}

// gitLimit is how long a run's start waits for git: the revision is worth that much and no more.
const gitLimit = time.Second

// GitRevision is the revision that a folder is checked out at, with "+changes" where
// tracked files differ from it. Empty where git cannot tell.
func GitRevision(ctx context.Context, dir string) string {
	ctx, cancel := context.WithTimeout(ctx, gitLimit)
	defer cancel()
	git := func(args ...string) (string, bool) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false"}, args...)...) // a repository must not run commands here
		cmd.Dir = dir
		cmd.WaitDelay = 100 * time.Millisecond
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err == nil
	}
	revision, ok := git("rev-parse", "--verify", "-q", "HEAD")
	if !ok {
		return ""
	}
	if changes, ok := git("status", "--porcelain", "--untracked-files=no", "--", "."); ok && changes != "" {
		revision += "+changes"
	}
	return revision
}
