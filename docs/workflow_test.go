package docs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const workflowFile = "workflows/runbooks.yml"

// workflow is what a test needs of the workflow for a user's repository.
type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		If          string
		Permissions map[string]string
		Steps       []struct {
			Name, Uses, Run, If string
			Env                 map[string]string
		}
	}
}

func readWorkflow(t *testing.T) workflow {
	t.Helper()
	var w workflow
	if err := yaml.Unmarshal([]byte(read(t, workflowFile)), &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// What a pull request brings may only read; actions are of a version; no text of the
// pull request gets into a shell.
func TestWorkflowIsSafe(t *testing.T) {
	w := readWorkflow(t)
	if w.Permissions == nil || len(w.Permissions) > 0 {
		t.Errorf("the workflow as a whole may %v", w.Permissions)
	}
	if p := w.Jobs["review"].Permissions; len(p) != 1 || p["contents"] != "read" {
		t.Errorf("the job that runs the pull request may %v", p)
	}
	if !strings.Contains(w.Jobs["report"].If, "head.repo.full_name == github.repository") {
		t.Error("the job that writes runs for forks")
	}
	text := read(t, workflowFile)
	if strings.Contains(text, "secrets.") || strings.Contains(text, "pull_request_target") {
		t.Error("the workflow uses a secret, or runs with the rights of the base")
	}
	for name, job := range w.Jobs {
		for _, step := range job.Steps {
			if step.Uses != "" && !regexp.MustCompile(`^[\w-]+/[\w/-]+@v\d+$`).MatchString(step.Uses) {
				t.Errorf("%s: %s is not of a major version", name, step.Uses)
			}
			if strings.Contains(step.Run, "${{") {
				t.Errorf("%s: %s puts an expression into a shell", name, step.Name)
			}
			if name == "report" && (strings.Contains(step.Run, "runner ") || strings.Contains(step.Uses, "checkout")) {
				t.Errorf("the job that writes runs the pull request: %s", step.Name)
			}
		}
	}
}

// pullRequest is a repository in which the workflow runs as on GitHub: the merge of a
// change into the main branch is checked out.
type pullRequest struct {
	t       *testing.T
	dir     string
	environ []string
	ghCalls string // what was asked of GitHub
}

const reviewedBook = `version: 1
name: move

targets:
  db: {kind: redis, addr: "127.0.0.1:6379"}

steps:
  - id: caught_up
    uses: redis.info
    target: db
    wait-until: lag == 0
    stable: 5s
    timeout: 10m
  - id: limit
    uses: redis.config-set
    target: db
    with: {name: maxmemory, value: "1"}
`

func newPullRequest(t *testing.T) *pullRequest {
	dir := t.TempDir()
	p := &pullRequest{t: t, dir: filepath.Join(dir, "repo"), ghCalls: filepath.Join(dir, "gh-calls")}
	tools := filepath.Join(dir, "bin")
	p.environ = []string{
		"PATH=" + tools + ":" + os.Getenv("PATH"), "HOME=" + dir, "GITHUB_STEP_SUMMARY=" + filepath.Join(dir, "summary"), "GIT_CONFIG_GLOBAL=" + filepath.Join(dir, "gitconfig"),
		"GH_CALLS=" + p.ghCalls, "GH_COMMENTS=" + filepath.Join(dir, "comments"), "RUNNER_BINARY=" + binary, "TOOLS=" + tools,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	for path, text := range map[string]string{
		// A stand-in for GitHub: it notes what it is asked, and lists the comments of the test.
		filepath.Join(tools, "gh"):                "#!/bin/sh\necho \"$*\" >> \"$GH_CALLS\"\ncase \"$*\" in *paginate*) cat \"$GH_COMMENTS\" ;; esac\n",
		filepath.Join(dir, "comments"):            "",
		p.path("scripts/install-runner"):          "#!/bin/sh\nln -s \"$RUNNER_BINARY\" \"$TOOLS/runner\"\n",
		p.path("runbooks/move.yaml"):              reviewedBook,
		p.path("runbooks/nothing.sandbox.yaml"):   "targets: {}\n",
		p.path("runbooks/with space/other.yaml"):  strings.Replace(reviewedBook, "name: move", "name: other", 1),
		filepath.Join(dir, "not-in-the-repo.txt"): "",
	} {
		write(t, path, text)
	}
	p.plan()
	p.git("init", "-q", "-b", "main")
	p.commit("base")
	p.git("checkout", "-q", "-b", "change")
	return p
}

func (p *pullRequest) path(name string) string { return filepath.Join(p.dir, name) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// plan writes the plan that is committed beside the runbook.
func (p *pullRequest) plan() {
	p.t.Helper()
	out, code := run(p.dir, "plan", "runbooks/move.yaml")
	if code != 0 {
		p.t.Fatal(out)
	}
	write(p.t, p.path("runbooks/move.plan.txt"), out)
}

func (p *pullRequest) git(args ...string) {
	p.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = p.dir, p.environ
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func (p *pullRequest) commit(message string) {
	p.t.Helper()
	p.git("add", "-A")
	p.git("commit", "-q", "--allow-empty", "-m", message)
}

// run merges the change and runs the commands of every step of a job, as far as they
// succeed, without those that are left out. It gives what they say, and the step that failed.
func (p *pullRequest) run(job string, without ...string) (out, failed string) {
	p.t.Helper()
	if job == "review" {
		p.commit("change")
		p.git("checkout", "-q", "main")
		p.git("merge", "-q", "--no-ff", "-m", "merge", "change")
	}
	var said strings.Builder
	for _, step := range readWorkflow(p.t).Jobs[job].Steps {
		if step.Run == "" || len(without) > 0 && strings.Contains(step.Name, without[0]) {
			continue
		}
		cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run)
		cmd.Dir = p.dir
		cmd.Env = append(p.environ, "GH_TOKEN=none", "REPOSITORY=team/books", "PULL=7")
		text, err := cmd.CombinedOutput()
		fmt.Fprintf(&said, "%s", text)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
			return said.String(), step.Name
		} else if err != nil {
			p.t.Fatalf("%s: %v", step.Name, err)
		}
	}
	return said.String(), ""
}

func holds(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("without %q:\n%s", part, text)
		}
	}
}

func TestWorkflowOfAHarmlessChange(t *testing.T) {
	t.Parallel()
	p := newPullRequest(t)
	write(t, p.path("runbooks/move.yaml"), strings.Replace(reviewedBook, "steps:", "# Nothing new.\nsteps:", 1))
	if out, failed := p.run("review"); failed != "" {
		t.Fatalf("%s failed:\n%s", failed, out)
	}
	comment := read(t, p.path("review/comment.md"))
	holds(t, comment, "<!-- runbooks -->", "Every runbook means the same as before.")
	holds(t, read(t, p.path("review/lint.sarif")), `"version": "2.1.0"`)

	// The first run writes the comment, the next one changes it.
	if out, failed := p.run("report"); failed != "" {
		t.Fatalf("%s failed:\n%s", failed, out)
	}
	holds(t, read(t, p.ghCalls), "--method POST repos/team/books/issues/7/comments --field body=@review/comment.md")
	write(t, filepath.Join(filepath.Dir(p.dir), "comments"), "4711\n4712\n")
	if out, failed := p.run("report"); failed != "" {
		t.Fatalf("%s failed:\n%s", failed, out)
	}
	holds(t, read(t, p.ghCalls), "--method PATCH repos/team/books/issues/comments/4711 --field body=@review/comment.md")
}

func TestWorkflowOfADangerousChange(t *testing.T) {
	t.Parallel()
	p := newPullRequest(t)
	write(t, p.path("runbooks/move.yaml"), strings.Replace(reviewedBook, "lag == 0", "lag < 1000", 1))
	write(t, p.path("runbooks/new.yaml"), strings.Replace(reviewedBook, "name: move", "name: new", 1))
	p.plan()
	out, failed := p.run("review")
	if failed != "A dangerous change needs the label that says so" {
		t.Fatalf("%q failed:\n%s", failed, out)
	}
	holds(t, out, "::error file=runbooks/move.yaml,line=11,", "dangerous-change-reviewed")
	holds(t, read(t, p.path("review/comment.md")), "### `runbooks/move.yaml`", "lag < 1000", "### New: `runbooks/new.yaml`", "Plan of runbooks/new.yaml", "```mermaid")
	holds(t, read(t, filepath.Join(filepath.Dir(p.dir), "summary")), "lag < 1000")
}

func TestWorkflowOfALabelledChange(t *testing.T) {
	t.Parallel()
	p := newPullRequest(t)
	write(t, p.path("runbooks/move.yaml"), strings.Replace(reviewedBook, "lag == 0", "lag < 1000", 1))
	p.plan()
	if out, failed := p.run("review", "needs the label"); failed != "" {
		t.Fatalf("%s failed:\n%s", failed, out)
	}
}

func TestWorkflowOfAStalePlan(t *testing.T) {
	t.Parallel()
	p := newPullRequest(t)
	write(t, p.path("runbooks/move.yaml"), strings.Replace(reviewedBook, "5s", "9s", 1))
	out, failed := p.run("review")
	if failed != "Plans are current" {
		t.Fatalf("%q failed:\n%s", failed, out)
	}
	holds(t, read(t, p.path("review/comment.md")), "stable")
}

func TestWorkflowOfAMistake(t *testing.T) {
	t.Parallel()
	p := newPullRequest(t)
	write(t, p.path("runbooks/move.yaml"), strings.Replace(reviewedBook, "timeout:", "tiemout:", 1))
	out, failed := p.run("review")
	if failed != "Lint, beside the lines" {
		t.Fatalf("%q failed:\n%s", failed, out)
	}
	holds(t, out, "::error file=runbooks/move.yaml,line=13,endLine=13,col=5,endColumn=12,title=unknown-key::")
	holds(t, read(t, p.path("review/lint.sarif")), `"ruleId": "unknown-key"`)
	holds(t, read(t, p.path("review/comment.md")), "do not lint")
}
