package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runbooks"
	"runbook/schema"
)

//go:embed new.yaml
var newRunbook string

var bookName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

func (a *app) newCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Write a commented runbook to start from",
		Long: `new writes NAME.yaml, a small runbook that lints, with comments on what can be said.
NAME may have folders before it, which are made. A file that exists is never touched.
With --from it is a copy of a migration that ships, with the world it is rehearsed in and
the runbooks that it uses as steps:
` + strings.Join(runbooks.Names(), ", ") + ".",
		Example: "  runner new move-keys\n  runner new runbooks/move-cache --from redis-replace-instance",
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
			files := map[string]string{path + ".yaml": strings.ReplaceAll(newRunbook, "NAME", name)}
			if from != "" {
				book, world, ok := runbooks.Read(from)
				if !ok {
					near, _ := schema.Nearest(from, runbooks.Names())
					return usage(near, "no migration %q ships; there are %s", from, strings.Join(runbooks.Names(), ", "))
				}
				files[path+".yaml"] = strings.Replace(string(book), "\nname: "+from+"\n", "\nname: "+name+"\n", 1)
				files[path+".sandbox.yaml"] = string(world)
				for part, text := range runbooks.Parts(from) {
					if file := filepath.Join(filepath.Dir(path), part); !has(file, text) {
						files[file] = string(text)
					}
				}
			}
			for _, file := range slices.Sorted(maps.Keys(files)) { // all or nothing
				if _, err := os.Lstat(file); err == nil {
					return taken(file)
				}
			}
			for _, file := range slices.Sorted(maps.Keys(files)) {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					return usage("", "make the folder of %s: %w", file, err)
				}
				if err := create(file, files[file]); err != nil {
					return err
				}
			}
			path += ".yaml"
			written := []string{path}
			for _, file := range slices.Sorted(maps.Keys(files)) {
				if file != path {
					written = append(written, file)
				}
			}
			if a.json() {
				return a.answer(map[string]any{"path": path, "files": written})
			}
			for _, file := range written {
				fmt.Fprintln(a.out, file)
			}
			next := fmt.Sprintf("next: runner lint %[1]s; runner plan %[1]s", shellWord(path))
			if len(written) > 1 {
				next += "; runner exec --sandbox " + shellWord(path)
			}
			fmt.Fprintln(a.err, next)
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "a migration that ships, to start from")
	return cmd
}

// has tells whether a file has this text already: two migrations may share what they use.
func has(path string, text []byte) bool {
	there, err := os.ReadFile(path)
	return err == nil && bytes.Equal(there, text)
}

// create writes a new file; one that exists is never touched.
func create(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return taken(path)
	} else if err != nil {
		return usage("", "write %s: %w", path, reason(err))
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return usage("", "write %s: %w", path, err)
	}
	return nil
}

func taken(path string) error {
	return usage("choose another name, or edit the file", "%s exists", path)
}
