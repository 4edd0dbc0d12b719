// Package runbooks holds the migrations that ship: NAME.yaml, beside it the world it is
// rehearsed in (NAME.sandbox.yaml), and the plan that reviewers see (NAME.plan.txt). What
// several of them have in common are the runbooks of lib, which they use as steps.
package runbooks

import (
	"embed"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

//go:embed *.yaml lib/*.yaml
var files embed.FS

// Names are the migrations that ship, in the order of the alphabet.
func Names() []string {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil // the files are in the binary: nothing can go wrong
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok && !strings.HasSuffix(name, ".sandbox") {
			names = append(names, name)
		}
	}
	return names
}

// Read gives a migration and its world; false where none of that name ships.
func Read(name string) (book, world []byte, ok bool) {
	book, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, nil, false
	}
	world, err = files.ReadFile(name + ".sandbox.yaml")
	return book, world, err == nil
}

// uses finds the runbooks that one uses as steps.
var uses = regexp.MustCompile(`(?m)^\s*(?:- )?uses: (\./\S+\.yaml)$`)

// Parts are the runbooks that a migration uses as steps, and those that they use, by path from
// the migration's folder, such as lib/pika-drop-slots.yaml.
func Parts(name string) map[string][]byte {
	parts := map[string][]byte{}
	var collect func(from string)
	collect = func(from string) {
		text, err := files.ReadFile(from)
		if err != nil {
			return // lint finds what uses a file that is not there
		}
		parts[from] = text
		for _, m := range uses.FindAllSubmatch(text, -1) {
			if part := path.Join(path.Dir(from), string(m[1])); parts[part] == nil {
				collect(part)
			}
		}
	}
	collect(name + ".yaml")
	delete(parts, name+".yaml")
	return parts
}
