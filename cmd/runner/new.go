package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed new.yaml
var newRunbook string

var bookName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

func (a *app) newCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new NAME",
		Short: "Write a commented runbook to start from",
		Long: `new writes NAME.yaml, a small runbook that lints, with comments on what can be said.
NAME may have folders before it, which are made. A file that exists is never touched.`,
		Example: "  runner new move-keys\n  runner new runbooks/redis-upgrade",
		Args:    args(1, 1, "a name"),
		RunE: func(_ *cobra.Command, names []string) error {
			path := strings.TrimSuffix(strings.TrimSuffix(names[0], ".yml"), ".yaml")
			name := filepath.Base(path)
			if !bookName.MatchString(name) {
				hint := ""
				if better := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-"); better != "" {
					hint = "runner new " + filepath.Join(filepath.Dir(path), better)
				}
				return usage(hint, "%q is no name of a runbook: small letters, digits and -", name)
			}
			path += ".yaml"
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return usage("", "make the folder of %s: %w", path, err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if os.IsExist(err) {
				return usage("choose another name, or edit the file", "%s exists", path)
			} else if err != nil {
				return usage("", "write %s: %w", path, reason(err))
			}
			_, err = f.WriteString(strings.ReplaceAll(newRunbook, "NAME", name))
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return usage("", "write %s: %w", path, err)
			}
			if a.json() {
				return a.answer(map[string]string{"path": path})
			}
			fmt.Fprintln(a.out, path)
			fmt.Fprintf(a.err, "next: runner lint %s; runner plan %s\n", path, path)
			return nil
		},
	}
}
