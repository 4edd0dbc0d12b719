package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// gitTree reads files of a revision of the repository around the working directory. Nothing
// of the repository is run: no filter, no hook, no pager, no monitor, and nothing is fetched.
type gitTree struct {
	name   string // as given: HEAD~2, main, v1.3
	hash   string // of the commit or tree
	prefix string // of the working directory in the repository: "" or "runbooks/"
}

func openTree(rev string) (*gitTree, error) {
	hash, err := git(nil, "rev-parse", "--verify", "--end-of-options", rev+"^{tree}")
	if err != nil {
		return nil, usage("OLD and NEW are files, or REV:path", "find the revision %s: %w", rev, err)
	}
	prefix, err := git(nil, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, usage("", "find the repository: %w", err)
	}
	return &gitTree{name: rev, hash: strings.TrimSpace(string(hash)), prefix: strings.TrimRight(string(prefix), "\n")}, nil
}

// locate gives a path from the root of the repository. As in git, ./ and ../ begin at the
// working directory.
func (t *gitTree) locate(file string) (string, error) {
	if strings.HasPrefix(file, "./") || strings.HasPrefix(file, "../") {
		file = t.prefix + file
	}
	return t.inside(file)
}

// locateHere is the same for a file that is named from the working directory.
func (t *gitTree) locateHere(file string) (string, error) {
	if filepath.IsAbs(file) {
		return "", errors.New("not in the repository")
	}
	return t.inside(t.prefix + filepath.ToSlash(file))
}

func (t *gitTree) inside(file string) (string, error) {
	clean := path.Clean(file)
	if clean == ".." || strings.HasPrefix(clean, "../") || path.IsAbs(clean) {
		return "", usage("", "%s:%s is outside of the repository", t.name, file)
	}
	return clean, nil
}

// readFile reads a file by its path from the root. Links within the revision are followed.
func (t *gitTree) readFile(file string) ([]byte, error) {
	missing := &fs.PathError{Op: "open", Path: file, Err: fmt.Errorf("not in the revision %s", t.name)}
	clean, err := t.inside(filepath.ToSlash(file))
	if err != nil || strings.ContainsAny(clean, "\n\x00") {
		return nil, missing
	}
	answer, err := git([]byte(t.hash+":"+clean+"\n"), "cat-file", "--batch", "--follow-symlinks")
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	// HASH blob SIZE, the text and a line break; or why there is none
	head, text, _ := bytes.Cut(answer, []byte("\n"))
	words := strings.Fields(string(head))
	if len(words) != 3 || words[1] != "blob" {
		return nil, missing
	}
	size, err := strconv.Atoi(words[2])
	if err != nil || size > len(text) {
		return nil, &fs.PathError{Op: "open", Path: file, Err: errors.New("git did not give all of it")}
	}
	return text[:size], nil
}

// git runs a command of git that reads, without what the repository's configuration could
// make it run.
func git(in []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("git", append([]string{"--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(in)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("git is not installed")
		}
		words, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
		if words = strings.TrimPrefix(words, "fatal: "); words != "" {
			return nil, errors.New(words)
		}
		return nil, err
	}
	return out.Bytes(), nil
}
