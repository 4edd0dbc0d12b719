package runbooks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"runbook/runbooks"
	"runbook/runner"
	"runbook/schema"
	"runbook/steps/catalog"
)

// binary is the runner as a user has it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "runner")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "runner")
	build := exec.Command("go", "build", "-o", binary, "../cmd/runner")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func load(t *testing.T, name string) *runner.Program {
	t.Helper()
	p, findings := runner.Load(name+".yaml", runner.LoadOptions{Catalog: runner.NewCatalog(catalog.Kinds(), catalog.Targets())})
	for _, f := range findings {
		t.Error(f)
	}
	if p == nil {
		t.FailNow()
	}
	return p
}

func TestShippedRunbooksLintAndAreFormatted(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob("lib/*.yaml")
	if err != nil || len(parts) == 0 {
		t.Fatal("no parts", err)
	}
	for _, file := range append(files, parts...) {
		name := strings.TrimSuffix(file, ".yaml")
		if strings.HasSuffix(name, ".sandbox") {
			continue
		}
		load(t, name)
		book, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		formatted, err := schema.Format(book)
		if err != nil || !bytes.Equal(book, formatted) {
			t.Errorf("%s is not as `runner fmt` writes it (%v)", file, err)
		}
	}
}

// Every migration has a world, and whatever it uses as steps is embedded with it; no part is there that none uses.
func TestShippedRunbooksAreWhole(t *testing.T) {
	used := map[string]bool{}
	for _, name := range runbooks.Names() {
		if _, _, ok := runbooks.Read(name); !ok {
			t.Errorf("%s has no world to be rehearsed in", name)
		}
		parts := runbooks.Parts(name)
		for _, s := range load(t, name).Sources {
			if s.Role == "sub-runbook" {
				used[filepath.Clean(s.Path)] = true
				if string(parts[filepath.Clean(s.Path)]) != s.Text {
					t.Errorf("%s uses %s, which is not among its parts", name, s.Path)
				}
			}
		}
	}
	files, _ := filepath.Glob("lib/*.yaml")
	for _, file := range files {
		if !used[file] {
			t.Errorf("nothing uses %s", file)
		}
	}
}

// The plans are what reviewers of a change to a shipped runbook see, and programs by their schema.
func TestShippedPlans(t *testing.T) {
	described := planSchema(t)
	for _, name := range runbooks.Names() {
		p := load(t, name)
		inputs, findings, err := p.BindInputs(runner.GivenInputs{})
		if err != nil || len(findings) > 0 {
			t.Fatal(findings, err)
		}
		plan, _, err := runner.MakePlan(p, inputs, runner.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := plan.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		golden := name + ".plan.txt"
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s is stale (UPDATE=1 rewrites it):\n%s", golden, diff)
		}
		raw, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := described.Validate(answer); err != nil {
			t.Errorf("%s: its plan is not what schema/plan.schema.json says: %v", name, err)
		}
	}
}

// planSchema is the published schema, closed: a field that it does not name is a fault.
func planSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../schema/plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`"properties": \{`).ReplaceAll(text, []byte(`"additionalProperties": false, "properties": {`))
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("plan.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// told is what a run says of itself, where it is more than that it has succeeded.
var told = map[string]string{
	"pika-codis-scale-out": `(?m)^slowest_wave = slots \S+: hold \S+, lag \S+, markers \S+, lag again \S+, fence \S+, recheck \S+, detach \S+, assign \S+, verify \S+$`,
	"pika-failover-group":  `steps\.ahead\.bytes = -[1-9]`, // the second replica has more, and it is the one that is followed
}

// Each runs in its world, under load, and no acknowledged write is lost.
func TestShippedRunbooksInTheSandbox(t *testing.T) {
	turns := make(chan struct{}, 3) // more of them at once, and cut-overs wait for the processor
	for _, name := range runbooks.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			args := []string{"exec", "--sandbox", "--approve", "all", "--state", t.TempDir(), name + ".yaml"}
			if strings.HasPrefix(name, "pika-codis-") && name != "pika-codis-init-topology" {
				args = append(args, "-i", "max_pause=20s") // the machine is busy with other tests; what is asserted is that nothing is lost
			}
			cmd := exec.Command(binary, args...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			saw := regexp.MustCompile(`sandbox: ([0-9]+) writes acknowledged, 0 lost, 0 stale reads`).FindSubmatch(out)
			if saw == nil || string(saw[1]) == "0" {
				t.Errorf("the clients' ledger does not say that nothing was lost:\n%s", out)
			}
			if want := told[name]; !regexp.MustCompile(want).Match(out) {
				t.Errorf("nothing says %s:\n%s", want, out)
			}
			t.Log(lastLine(out))
		})
	}
}

// A dry run of each tells of every step, changes nothing and finds nothing wrong with its world.
func TestShippedRunbooksDry(t *testing.T) {
	for _, name := range runbooks.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(binary, "exec", "--dry-run", "--sandbox", "--state", t.TempDir(), name+".yaml").CombinedOutput()
			if err != nil || !regexp.MustCompile(`(?m)^dry run succeeded in .* would-change`).Match(out) {
				t.Errorf("%v\n%s", err, out)
			}
			if changed := regexp.MustCompile(`(?m)^\S+: changed`).Find(out); changed != nil {
				t.Errorf("%s\n%s", changed, out)
			}
		})
	}
}

// A yes to the clean-up is the last: what it destroys is in the question, and nothing asks again.
func TestCleaningUpAsksOnce(t *testing.T) {
	for name, gates := range map[string][]string{
		"pika-codis-scale-out": {"clean_up", "move"}, "pika-codis-scale-in": {"clean_up", "move"}, "twemproxy-move-slots": {"clean_up", "hand_over"},
		"pika-codis-switch-back": {"move"}, "pika-failover-group": {"take_over"}, "pika-codis-init-topology": nil,
	} {
		plan, err := os.ReadFile(name + ".plan.txt")
		if err != nil {
			t.Fatal(err)
		}
		want := "\ngates: none\n"
		if len(gates) > 0 {
			want = fmt.Sprintf("\ngates: %d\n  %s: one person\n", len(gates), strings.Join(gates, ": one person\n  "))
		}
		if !strings.Contains(string(plan), want) {
			t.Errorf("%s: the plan does not say%s", name, want)
		}
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
