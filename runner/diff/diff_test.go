package diff

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbook/runner"
	"runbook/schema"
	"runbook/steps/catalog"
)

func kinds() *runner.Catalog { return runner.NewCatalog(catalog.Kinds(), catalog.Targets()) }

// side loads a runbook with the defaults of its inputs.
func side(t testing.TB, c *runner.Catalog, path string, read func(string) ([]byte, error)) Side {
	t.Helper()
	p, findings := runner.Load(path, runner.LoadOptions{Catalog: c, ReadFile: read})
	if schema.Failed(findings) {
		t.Fatalf("%s does not lint: %v", path, findings)
	}
	return Side{Program: p, Inputs: known(t, p)}
}

// known are the inputs that have a default.
func known(t testing.TB, p *runner.Program) map[string]any {
	t.Helper()
	in, _, err := p.BindInputs(runner.GivenInputs{})
	if err != nil {
		t.Fatal(err)
	}
	return in.Values
}

// Each folder of the corpus has two runbooks and what their difference is; UPDATE=1 rewrites that.
func TestCorpus(t *testing.T) {
	root := "../../testdata/diff"
	folders, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	c := kinds()
	for _, f := range folders {
		t.Run(f.Name(), func(t *testing.T) {
			dir := filepath.Join(root, f.Name())
			reads := func(side string) func(string) ([]byte, error) { // what both sides use stands beside them, what differs below old and new
				return func(path string) ([]byte, error) {
					if text, err := os.ReadFile(filepath.Join(dir, side, path)); err == nil {
						return text, nil
					}
					return os.ReadFile(filepath.Join(dir, path))
				}
			}
			var got bytes.Buffer
			if err := WriteText(&got, Compare(side(t, c, "old.yaml", reads("old")), side(t, c, "new.yaml", reads("new"))), nil); err != nil {
				t.Fatal(err)
			}
			if same := strings.HasPrefix(f.Name(), "same-"); same != (got.Len() == 0) {
				t.Errorf("the name says otherwise:\n%s", got.String())
			}
			golden := filepath.Join(dir, "want.txt")
			if os.Getenv("UPDATE") == "1" {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwanted\n%s", got.String(), want)
			}
		})
	}
}

// A secret that stands in a file is compared and never shown.
func TestSecretsAreNotShown(t *testing.T) {
	book := func(password string) string {
		return `version: 1
name: secrets
secrets: {suffix: {env: SUFFIX}}
targets:
  a: {kind: redis, addr: "127.0.0.1:1", password: ` + password + `}
  b: {kind: redis, addr: "127.0.0.1:1", password: "` + password + `${{ secrets.suffix }}"}
steps:
  - {id: inline, uses: redis.info, target: {kind: redis, addr: "127.0.0.1:1", password: ` + password + `}}
`
	}
	c := kinds()
	load := func(password string) Side {
		return side(t, c, "book.yaml", func(string) ([]byte, error) { return []byte(book(password)), nil })
	}
	old, new := load("hunter2"), load("swordfish")
	changes := Compare(old, new)
	if len(changes) != 3 {
		t.Errorf("%d changes, wanted those of three passwords: %+v", len(changes), changes)
	}
	var b bytes.Buffer
	for _, err := range []error{WriteText(&b, changes, nil), WriteMarkdown(&b, changes), WriteMeaning(&b, old.Program), json.NewEncoder(&b).Encode(NewReport("", "", changes))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, secret := range []string{"hunter2", "swordfish"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s is shown:\n%s", secret, b.String())
		}
	}
}
