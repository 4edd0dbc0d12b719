// Package runbooks holds the migrations that ship: NAME.yaml, beside it the world it is
// rehearsed in (NAME.sandbox.yaml), and the plan that reviewers see (NAME.plan.txt).
package runbooks

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.yaml
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
