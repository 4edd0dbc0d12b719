package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"runbook/schema"
)

// FilesNow loads the runbook of a frozen plan from its files as they are now, with the values
// that the run was given; what came from a default or the inventory is taken anew. The paths
// are those of the plan. An error with findings is a *UsageError.
func (f *Frozen) FilesNow(c *Catalog, readFile func(path string) ([]byte, error)) (*Program, *Inputs, error) {
	read := func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(f.Dir, path)
		}
		return readFile(path)
	}
	var inventory *schema.Inventory
	if f.Inventory != "" {
		text, err := read(f.Inventory)
		if err != nil {
			return nil, nil, &UsageError{Err: fmt.Errorf("read the inventory: %w", err)}
		}
		var findings []schema.Finding
		if inventory, findings = schema.ParseInventory(f.Inventory, text); schema.Failed(findings) {
			return nil, nil, &UsageError{Findings: findings}
		}
	}
	p, findings := Load(f.Sources[0].Path, LoadOptions{Catalog: c, Inventory: inventory, ReadFile: read})
	if p == nil || schema.Failed(findings) {
		return nil, nil, &UsageError{Findings: findings}
	}
	in, err := f.inputsOf(p)
	return p, in, err
}

// inputsOf binds the inputs of a program to what the run was given.
func (f *Frozen) inputsOf(p *Program) (*Inputs, error) {
	given := map[string]any{}
	for name, v := range f.Inputs {
		if origin := f.Origins[name]; origin != "default" && origin != "inventory" && p.Root.input(name) != nil {
			given[name] = v
		}
	}
	text, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("read the inputs of the frozen plan: %w", err)
	}
	in, findings, err := p.BindInputs(GivenInputs{File: FileText{Path: "inputs of the run", Text: text}})
	switch {
	case err != nil:
		return nil, err
	case schema.Failed(findings):
		return nil, &UsageError{Findings: findings, Err: errors.New("the inputs that the run was given do not fit the runbook as it is now")}
	}
	for name := range given {
		in.Origins[name] = f.Origins[name]
	}
	return in, nil
}
