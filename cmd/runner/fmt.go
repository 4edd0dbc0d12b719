package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/schema"
)

func (a *app) fmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt RUNBOOK…",
		Short: "Write runbooks in the canonical layout",
		Long: `fmt rewrites runbooks in the canonical layout: order of keys, indentation, blank lines.
Comments stay. A directory stands for the runbooks below it. A file that cannot be read
as a runbook is left alone.`,
		Example: `  runner fmt runbooks/*.yaml
  runner fmt --check runbooks/*.yaml           for CI: exit 2 where a file would change`,
		Args:              args(1, -1, "at least one runbook"),
		ValidArgsFunction: completeFiles,
		RunE: func(_ *cobra.Command, paths []string) error {
			paths, err := runbooksIn(paths)
			if err != nil {
				return err
			}
			changed, broken := []string{}, false
			for _, path := range paths {
				differs, err := a.format(path, check)
				if u, ok := err.(*runner.UsageError); ok {
					broken = true
					a.fail(u)
					continue
				} else if err != nil {
					return err
				}
				if differs {
					changed = append(changed, path)
				}
			}
			if a.json() {
				if err := a.answer(map[string]any{"changed": changed}); err != nil {
					return err
				}
			} else {
				for _, path := range changed {
					fmt.Fprintln(a.out, path)
				}
			}
			if broken || check && len(changed) > 0 {
				return &ended{exitUsage}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit 2 where a file would change")
	return cmd
}

// format rewrites one file, unless only asked whether it would.
func (a *app) format(path string, check bool) (differs bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, usage("", "read %s: %w", path, reason(err))
	}
	formatted, err := schema.Format(text)
	if err != nil {
		if _, findings := schema.Parse(path, text); schema.Failed(findings) { // says where
			return false, &runner.UsageError{Findings: findings}
		}
		return false, usage("", "%s: %w", path, err)
	}
	if bytes.Equal(text, formatted) {
		return false, nil
	}
	if check {
		return true, nil
	}
	return true, replace(path, formatted)
}

// reason is an error without the path that the message names already.
func reason(err error) error {
	if p, ok := err.(*os.PathError); ok {
		return p.Err
	}
	return err
}

// replace writes a file so that a crash leaves the old or the new one; its mode stays. A new one is for everybody to read.
func replace(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".runner-*")
	if err != nil {
		return usage("", "write %s: %w", path, reason(err))
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already where all went well
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return usage("", "write %s: %w", path, reason(err))
	}
	return nil
}
