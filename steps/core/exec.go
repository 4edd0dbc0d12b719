package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

type execIn struct {
	Command     []string                 `yaml:"command" doc:"Program and arguments, run without a shell. Either this or shell."`
	Shell       string                   `yaml:"shell" doc:"Text for sh -c. Either this or command."`
	Dir         string                   `yaml:"dir" doc:"Working directory; a relative one lies below that of the first exec of this run (over SSH: below the home directory), which is also the default."`
	Env         map[string]string        `yaml:"env" doc:"Environment variables added; may hold secrets."`
	Stdin       string                   `yaml:"stdin" doc:"Standard input; without it there is none."`
	SecretFiles map[string]schema.Secret `yaml:"secret_files" doc:"Secrets as private files (0600) that live as long as the command; the environment variable of that name holds the path."`
	Parse       string                   `yaml:"parse" enum:"json,lines" doc:"What stdout is read as into value: json (one document), or lines (a list of text, empty ones left out)."`
	OkCodes     []int                    `yaml:"ok_codes" doc:"Exit codes besides 0 that are no failure."`
	Limit       schema.Size              `yaml:"limit" default:"1mb" doc:"Most that is kept of stdout and of stderr each; of more the middle is cut out."`
}

type execOut struct {
	ExitCode int    `yaml:"exit_code,act" doc:"Exit code."`
	Stdout   string `yaml:"stdout,act" doc:"What it printed, without one newline at the end."`
	Stderr   string `yaml:"stderr,act" doc:"What it printed as errors, without one newline at the end."`
	Value    any    `yaml:"value,act" doc:"Stdout as parse reads it; null without parse."`
}

func exec() *steps.Kind[execIn, execOut] {
	return &steps.Kind[execIn, execOut]{
		Name: "exec",
		Doc: "Runs a command on the runner's machine or, with a target of kind host, over SSH. A code other than 0 is a failure unless ok_codes has it; " +
			"a command that a signal or a time-out ended leaves its outcome unknown.",
		Effect: steps.Write, AuthorKnows: true, On: []string{host.KindName}, TargetOptional: true,
		Example: `{id: version, uses: exec, effect: read, with: {command: [echo, "1.2.3"], parse: lines}}`,
		Pitfalls: []string{
			"Nobody can tell from a command what it does: say effect and idempotent, and give a probe to what changes something.",
			"Secrets go under env or secret_files; in an argument list every user of the machine can read them.",
			"A pipe's exit code is that of its last command: shell: \"set -e; …\" does not see the others fail.",
			"A process that the command leaves behind must not keep its output: redirect it, or use host.process.",
			"When the step is cancelled its whole process group gets SIGTERM, and SIGKILL 5 s later.",
			"Over SSH a code from 129 to 192 counts as ended by a signal, because the remote shell does not tell them apart.",
		},
		Valid: validExec,
		Plan: func(_ context.Context, v *steps.View, in execIn) (steps.Change, error) {
			line := in.line()
			if in.Dir != "" {
				line = "cd " + in.Dir + " && " + line
			}
			if names := in.variables(); len(names) > 0 {
				line += " (with " + strings.Join(names, ", ") + " in its environment)"
			}
			return steps.Change{Lines: []steps.Line{{Target: targetName(v), Command: line}}}, nil
		},
		Apply:  runExec,
		NoUndo: "only its author knows what takes a command back: write undo",
	}
}

func validExec(in execIn, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	switch given := len(in.Command) > 0; {
	case unknown("command") || unknown("shell"):
	case given && in.Shell != "":
		p = append(p, steps.Problem{Input: "shell", Message: "an exec has command or shell, not both"})
	case !given && in.Shell == "":
		p = append(p, steps.Problem{Input: "command", Message: "an exec needs command (a list) or shell (a text)"})
	case given && len(in.Command) == 1 && strings.ContainsAny(in.Command[0], " \t|;&<>"):
		p = append(p, steps.Problem{Input: "command", Message: fmt.Sprintf("%q is one program of that name, not a command line", in.Command[0]), Suggestion: "shell: " + in.Command[0]})
	}
	for name := range in.SecretFiles {
		if _, both := in.Env[name]; both {
			p = append(p, steps.Problem{Input: "secret_files", Message: fmt.Sprintf("%s is under env and secret_files", name)})
		}
	}
	for _, name := range in.variables() {
		if !host.IsVariable(name) {
			p = append(p, steps.Problem{Input: "env", Message: fmt.Sprintf("%q is no name of an environment variable", name)})
		}
	}
	for _, c := range in.OkCodes {
		if c < 0 || c > 255 {
			p = append(p, steps.Problem{Input: "ok_codes", Message: fmt.Sprintf("an exit code is 0 to 255, got %d", c)})
		}
	}
	return p
}

// variables are the names of what is in its environment, never the values.
func (in execIn) variables() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(in.Env)), maps.Keys(in.SecretFiles))
	slices.Sort(names)
	return names
}

func (in execIn) line() string {
	return host.Command{Argv: in.Command, Shell: in.Shell}.Line()
}

func runExec(ctx context.Context, s steps.Session, in execIn) (execOut, error) {
	m, err := host.ForSession(ctx, s, "")
	if err != nil {
		return execOut{}, err
	}
	c := host.Command{Argv: in.Command, Shell: in.Shell, Dir: in.Dir, Env: in.Env, Stdin: []byte(in.Stdin), Limit: int(in.Limit)}
	if host.IsLocal(s.View, "") {
		env := s.Host()
		c.Inherit = env.Inherit
		if !filepath.IsAbs(c.Dir) && env.Dir != "" {
			c.Dir = filepath.Join(env.Dir, c.Dir)
		}
	}
	if len(in.SecretFiles) > 0 {
		c.Files = make(map[string]string, len(in.SecretFiles))
		for name, secret := range in.SecretFiles {
			c.Files[name] = secret.Reveal()
		}
	}
	r, err := m.Run(ctx, c)
	out := execOut{ExitCode: r.Code, Stdout: text(r.Stdout), Stderr: text(r.Stderr)}
	what := clip(in.line(), 120)
	if err != nil {
		if said := lastLines(out.Stderr, 3); said != "" {
			err = fmt.Errorf("%w; it said: %s", err, said)
		}
		return out, err
	}
	if r.Signal != "" {
		return out, &steps.Error{Kind: "signal", Unknown: true, Err: fmt.Errorf("%s on %s: ended by SIG%s%s", what, m, r.Signal, said(out))}
	}
	if r.Code != 0 && !slices.Contains(in.OkCodes, r.Code) {
		return out, steps.Errorf("exit", "%s on %s: exit code %d%s", what, m, r.Code, said(out))
	}
	out.Value, err = in.value(r, out.Stdout)
	if err != nil {
		return out, steps.Errorf("reply", "%s on %s: %w", what, m, err)
	}
	return out, nil
}

// text makes output fit for a journal: valid UTF-8, without one newline at the end.
func text(o host.Output) string {
	return strings.ToValidUTF8(strings.TrimSuffix(o.Text, "\n"), "\uFFFD")
}

func said(out execOut) string {
	if lines := lastLines(out.Stderr, 5); lines != "" {
		return ": " + lines
	}
	if lines := lastLines(out.Stdout, 5); lines != "" {
		return ": " + lines
	}
	return ""
}

// value reads stdout as the author asked.
func (in execIn) value(r host.Result, stdout string) (any, error) {
	switch {
	case in.Parse == "":
		return nil, nil
	case r.Stdout.Cut > 0:
		return nil, fmt.Errorf("stdout is %d bytes longer than limit, and cannot be read as %s", r.Stdout.Cut, in.Parse)
	case in.Parse == "lines":
		lines := []any{}
		for line := range strings.Lines(stdout) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				lines = append(lines, line)
			}
		}
		return lines, nil
	}
	return parseJSON(stdout)
}

// parseJSON reads one document; whole numbers stay whole.
func parseJSON(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("there is none")
		}
		return nil, fmt.Errorf("stdout is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("stdout is no JSON: something follows the first document")
	}
	return v, nil
}
