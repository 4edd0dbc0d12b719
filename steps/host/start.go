package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"runbook/steps"
)

// scripter runs shell scripts of this package's own. The text may hold secrets: it never becomes an argument
// that another user sees (here it does, so what is secret goes over stdin).
type scripter interface {
	Machine
	script(ctx context.Context, text string, stdin []byte) (Result, error)
}

// startDetached starts a process that outlives runner and connection, the same way here and over SSH.
func startDetached(ctx context.Context, m scripter, s Spawn) (Process, error) {
	if len(s.Argv) == 0 {
		return Process{}, steps.Errorf("start", "a command is empty")
	}
	text := setsidScript(s)
	if s.Detach == DetachSystemd {
		text = systemdScript(s)
	}
	r, err := m.script(ctx, text, envLines(s.Env))
	if err != nil {
		return Process{}, fmt.Errorf("start %s on %s: %w", s.Argv[0], m, err)
	}
	out := strings.TrimSpace(r.Stdout.Text)
	pid, convErr := strconv.Atoi(out)
	if r.Code != 0 || convErr != nil || pid <= 0 {
		e := steps.Errorf("start", "start %s on %s: %s", s.Argv[0], m, strings.TrimSpace(r.Stderr.Text+" "+out))
		if r.Code == codeAbsent {
			e.Kind = "not-found"
		}
		return Process{}, e
	}
	p, err := m.Process(ctx, pid)
	if errors.Is(err, fs.ErrNotExist) {
		e := steps.Errorf("start", "start %s on %s: it ended at once", s.Argv[0], m)
		if s.Output != "" {
			e = e.WithHint("its output is in %s", s.Output)
		}
		return Process{}, e
	}
	return p, err
}

// argv gives what is executed: the command, or a shell that writes its own number and becomes the command.
func (s Spawn) argv() []string {
	if s.PIDFile == "" {
		return s.Argv
	}
	return append([]string{"/bin/sh", "-c", `echo $$ >"$0.new" && mv -f -- "$0.new" "$0" && exec "$@"`, s.PIDFile}, s.Argv...)
}

// startArgs is how many arguments argv puts before the command; the last is the pidfile.
const startArgs = 4

// waitScript goes on when the process $p has written its pidfile and, where it is to have one, got its session; or has ended.
func (s Spawn) waitScript(session bool) string {
	var until []string
	if session {
		until = append(until, `[ "$4" = $p ]`)
	}
	if s.PIDFile != "" {
		until = append(until, `[ "$(cat -- `+quote(s.PIDFile)+` 2>/dev/null)" = $p ]`)
	}
	if len(until) == 0 {
		return ""
	}
	// After the command's name in parentheses: state, parent, group, session.
	return `set -f
while s=$(cat /proc/$p/stat 2>/dev/null); do
	set -- ${s##*\)}
	case $1 in Z|X) break;; esac
	` + strings.Join(until, " && ") + ` && break
	sleep 0.02
done
`
}

// codeAbsent is what this package's scripts exit with where the thing asked for is not there.
const codeAbsent = 44

// readEnv takes the variables over standard input: a base64 line of each NAME=value, until an empty line.
const readEnv = `while IFS= read -r l && [ -n "$l" ]; do v=$(printf %s "$l" | base64 -d; echo x); v=${v%x}; export "$v"; done
`

func envLines(env map[string]string) []byte {
	var b strings.Builder
	for _, n := range sortedKeys(env) {
		b.WriteString(base64Text(n + "=" + env[n]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return []byte(b.String())
}

func setsidScript(s Spawn) string {
	output := s.Output
	if output == "" {
		output = "/dev/null"
	}
	var b strings.Builder
	b.WriteString(readEnv)
	if s.Dir != "" {
		fmt.Fprintf(&b, "cd -- %s || exit 1\n", quote(s.Dir))
	}
	fmt.Fprintf(&b, "command -v -- %s >/dev/null || { echo 'no such command' >&2; exit %d; }\n", quote(s.Argv[0]), codeAbsent)
	// In the background setsid leads no group yet, so it becomes the command itself: $! is its number,
	// that of its group and of its session. The descriptors of the run above 2 are closed.
	fmt.Fprintf(&b, "setsid %s </dev/null >>%s 2>&1 3>&- 4>&- 5>&- &\np=$!\n%secho $p\n", quoteAll(s.argv()), quote(output), s.waitScript(true))
	return b.String()
}

// systemdScript starts a transient unit. Only names of variables are arguments: systemd-run takes their values from its environment.
func systemdScript(s Spawn) string {
	unit := s.Unit
	if unit == "" {
		unit = "runner-" + strings.ToLower(rand.Text()[:12])
	}
	args := []string{"--quiet", "--collect", "--unit=" + unit, "--service-type=exec"}
	if s.Dir != "" {
		args = append(args, "--working-directory="+s.Dir)
	}
	if s.Output != "" {
		args = append(args, "--property=StandardOutput=append:"+s.Output, "--property=StandardError=append:"+s.Output)
	}
	for _, n := range sortedKeys(s.Env) {
		args = append(args, "--setenv="+n)
	}
	return readEnv + fmt.Sprintf(`u=; [ "$(id -u)" = 0 ] || u=--user
systemd-run $u %s -- %s >&2 || exit 1
p=$(systemctl $u show --property=MainPID --value %s) || exit 1
%secho $p
`, quoteAll(args), quoteAll(s.argv()), quote(unit), s.waitScript(false))
}
