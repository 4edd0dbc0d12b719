// Package docs_test holds the documentation to the program.
//
//   - A fenced block of the language console is a transcript. Those of its commands (lines that begin with "$ ") that
//     contact nothing are run, in order, in a folder of the page's own that has the shipped runbooks, and what stands
//     below a command must be what it prints; a command with nothing below it must succeed. "…" stands for anything:
//     alone on a line for any lines, within a line for any text. "$ echo $?" shows the exit code of the command before.
//     Other commands are not run.
//   - A fenced block of yaml whose first line is a comment with a file name is put into that folder. One that holds steps,
//     or is a piece of a runbook, must lint without errors. (The examples of kinds.md are held by other tests.)
//   - A fenced block of go whose first line is a comment with a path is a piece of that file, "…" standing for lines left out.
//   - Relative links resolve, headings included.
//   - language.md names every key of the language and every function; its table of functions is generated:
//     UPDATE=1 go test ./docs.
package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"runbook/runner/expression"
	"runbook/schema"
)

// offline are the commands that a console block may run.
var offline = []string{"lint", "plan", "diff", "version", "steps", "new", "fmt", "schema"}

// binary is the runner under test.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "runner-docs")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "runner")
	if out, err := exec.Command("go", "build", "-o", binary, "runbook/cmd/runner").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build runner: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// pages are the Markdown files below this folder, and the README.
func pages(t *testing.T) []string {
	list := []string{"../README.md"}
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func read(t *testing.T, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block is one fenced block.
type block struct {
	language string
	line     int // of its first line
	text     string
}

func blocks(text string) []block {
	var list []block
	var open *block
	for i, line := range strings.Split(text, "\n") {
		switch {
		case open == nil && strings.HasPrefix(line, "```"):
			open = &block{language: strings.TrimPrefix(line, "```"), line: i + 2}
		case open != nil && line == "```":
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return list
}

var fileName = regexp.MustCompile(`^# ([a-z0-9_./-]+\.yaml)\n`)

func TestBlocks(t *testing.T) {
	for _, page := range pages(t) {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "runbooks"), os.DirFS("../runbooks")); err != nil {
				t.Fatal(err)
			}
			for _, b := range blocks(read(t, page)) {
				at := fmt.Sprintf("%s:%d", page, b.line)
				switch b.language {
				case "yaml":
					if page != "kinds.md" && page != "../README.md" {
						save(t, dir, at, b.text)
					}
				case "go":
					piece(t, at, b.text)
				case "console":
					transcript(t, dir, at, b.text)
				}
			}
		})
	}
}

// save puts a file where the commands of its page find it, and lints what holds steps.
func save(t *testing.T, dir, at, text string) {
	name, book := filepath.Join(".pieces", strings.NewReplacer("/", "_", ":", "_").Replace(at)+".yaml"), text
	if m := fileName.FindStringSubmatch(text); m != nil {
		name = m[1]
	} else {
		book = whole(text)
	}
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(book), 0o644); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains("\n"+book, "\nsteps:") {
		return // an inventory, a world
	}
	if out, code := run(dir, "lint", name); code != 0 {
		t.Errorf("%s: this does not lint\n%s", at, out)
	}
}

// piece holds an excerpt to the file that it is taken from.
func piece(t *testing.T, at, text string) {
	first, rest, _ := strings.Cut(text, "\n")
	name, ok := strings.CutPrefix(first, "// ")
	if !ok || !strings.HasSuffix(name, ".go") {
		return
	}
	want := append(append([]string{"…"}, strings.Split(strings.TrimSuffix(rest, "\n"), "\n")...), "…")
	if !like(want, strings.Split(read(t, filepath.Join("..", name)), "\n")) {
		t.Errorf("%s: this is not what %s says", at, name)
	}
}

// whole makes a runbook of a piece of one: a list of steps, or some of a file's keys.
func whole(text string) string {
	if strings.HasPrefix(text, "- ") {
		text = "steps:\n  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
	}
	has := func(key string) bool { return strings.Contains("\n"+text, "\n"+key+":") }
	var head string
	if !has("version") {
		head += "version: 1\nname: example\n"
	}
	if !has("targets") {
		head += `targets:
  source: {kind: redis, addr: "10.0.0.1:6379", group: all}
  replica: {kind: redis, addr: "10.0.0.2:6379", group: all, labels: {role: replica}}
  machine: {kind: host, addr: "10.0.0.2", user: deploy}
  redis1: {kind: redis, addr: "10.0.0.1:6379"}
  redis2: {kind: redis, addr: "10.0.0.2:6379"}
  redis9: {kind: redis, addr: "10.0.0.9:6379"}
`
	}
	if !has("steps") {
		text += "steps:\n  - {id: look, uses: redis.info, target: source}\n"
	}
	return head + text
}

func transcript(t *testing.T, dir, at, text string) {
	var code int
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			t.Errorf("%s: a console block begins with a command: %q", at, lines[i])
			return
		}
		end := i + 1
		for end < len(lines) && !strings.HasPrefix(lines[end], "$ ") {
			end++
		}
		want := lines[i+1 : end]
		i = end
		command, _, _ = strings.Cut(command, "  #")
		args := strings.Fields(command)
		if len(want) == 0 && i < len(lines) && lines[i] == "$ echo $?" {
			want = []string{"…"}
		}
		var got string
		switch {
		case command == "echo $?":
			got = fmt.Sprintf("%d\n", code)
		case len(args) < 2 || args[0] != "runner" || !slices.Contains(offline, args[1]):
			i = skip(lines, i)
			continue
		default:
			got, code = run(dir, args[1:]...)
		}
		if len(want) == 0 && code != 0 || len(want) > 0 && !like(want, strings.Split(strings.TrimSuffix(got, "\n"), "\n")) {
			t.Errorf("%s: $ %s\nprints\n%s\nbut the page says\n%s", at, command, got, strings.Join(want, "\n"))
		}
	}
}

// skip passes over the exit code of a command that is not run.
func skip(lines []string, i int) int {
	if i < len(lines) && lines[i] == "$ echo $?" {
		return i + 2
	}
	return i
}

// run gives what a command prints, answers and errors together, and its exit code.
func run(dir string, args ...string) (string, int) {
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NO_COLOR=1", "RUNNER_OPERATOR=ana"}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	} else if err != nil {
		return err.Error(), -1
	}
	return string(out), 0
}

// like tells whether lines match, "…" standing for any.
func like(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if strings.TrimSpace(want[0]) == "…" {
		for n := range len(got) + 1 {
			if len(want) == 1 && n == len(got) || len(want) > 1 && like(want[1:], got[n:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && likeLine(want[0], got[0]) && like(want[1:], got[1:])
}

func likeLine(want, got string) bool {
	pieces := strings.Split(want, "…")
	for i := range pieces {
		pieces[i] = regexp.QuoteMeta(pieces[i])
	}
	return regexp.MustCompile("^" + strings.Join(pieces, ".*") + "$").MatchString(strings.TrimRight(got, " "))
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	punct   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(read(t, page), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			file := page
			if path != "" {
				file = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
				continue
			}
			if fragment != "" && !slices.Contains(anchors(read(t, file)), fragment) {
				t.Errorf("%s: %s: no such heading", page, m[1])
			}
		}
	}
}

// anchors are the names under which headings can be linked to.
func anchors(text string) []string {
	var list []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		list = append(list, strings.ReplaceAll(punct.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return list
}

const begin, end = "<!-- functions: generated by UPDATE=1 go test ./docs -->\n", "<!-- end of functions -->\n"

func TestFunctionsAreCurrent(t *testing.T) {
	page := read(t, "language.md")
	before, rest, ok := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("language.md has lost the marks around its functions")
	}
	var table bytes.Buffer
	table.WriteString("| function | |\n|---|---|\n")
	for _, f := range expression.Functions() {
		fmt.Fprintf(&table, "| `%s` | %s |\n", strings.ReplaceAll(f.Signature, "|", `\|`), strings.ReplaceAll(f.Doc, "|", `\|`))
	}
	want := before + begin + table.String() + end + after
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile("language.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if page != want {
		t.Error("the functions in language.md are stale: run UPDATE=1 go test ./docs")
	}
}

// Every key of the language is explained.
func TestEveryKeyIsNamed(t *testing.T) {
	page := read(t, "language.md")
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ.PkgPath() != reflect.TypeFor[schema.Step]().PkgPath() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name != "" && name != "-" && !regexp.MustCompile("`"+name+"[`:]|(?m)[ {]"+name+": ").MatchString(page) {
				t.Errorf("language.md does not name %s of %s", name, typ.Name())
			}
			if f.Type.Kind() != reflect.Slice || f.Tag.Get("yaml") != "" {
				walk(f.Type)
			}
		}
		// a map of the language is a list of entries
		if v, ok := typ.FieldByName("Value"); ok {
			walk(v.Type)
		}
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[schema.Runbook](), reflect.TypeFor[schema.Inventory](), reflect.TypeFor[schema.Input](),
		reflect.TypeFor[schema.SecretSource](), reflect.TypeFor[schema.Target](), reflect.TypeFor[schema.Step]()} {
		walk(typ)
	}
}
