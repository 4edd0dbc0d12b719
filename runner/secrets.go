package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Secrets are the values of a runbook's secrets, read at each start and each resume and
// kept in memory alone.
type Secrets struct {
	Values map[string]string
	// Masker takes them out of whatever is about to be seen.
	Masker *Masker
	// Warnings are about values that mask badly.
	Warnings []string
}

// secretCommandLimit is how long a command may take to print a secret: long enough for a
// vault that asks for a touch of a key.
const secretCommandLimit = 30 * time.Second

// secretLimit is the largest secret: more is a mistaken path.
const secretLimit = 1 << 20

// ReadSecrets reads every secret of the runbook from its source. environ is the
// environment (nil: the process's), dir the working directory of the run, to which the
// paths of files are relative and in which commands are run (empty: the process's). All
// that are missing are named in one *UsageError, because whoever sets them wants the
// whole list.
func (p *Program) ReadSecrets(ctx context.Context, dir string, environ func(string) (string, bool)) (*Secrets, error) {
	if environ == nil {
		environ = os.LookupEnv
	}
	s := &Secrets{Values: map[string]string{}}
	declared := p.Root.Secrets
	values, failures := make([]string, len(declared)), make([]error, len(declared))
	var wg sync.WaitGroup // commands may take long each
	for i, secret := range declared {
		wg.Go(func() { values[i], failures[i] = secret.read(ctx, dir, environ) })
	}
	wg.Wait()
	var missing []string
	for i, secret := range declared {
		if failures[i] != nil {
			missing = append(missing, fmt.Sprintf("%s: %v", secret.Name, failures[i]))
			continue
		}
		s.Values[secret.Name] = values[i]
		if n := len(values[i]); n > 0 && n < 4 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("secret %s has fewer than 4 characters: masking it garbles other text that contains them", secret.Name))
		}
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("read secrets: %w", context.Cause(ctx))
	}
	if len(missing) > 0 {
		return nil, &UsageError{Err: fmt.Errorf("%s cannot be read: %s", plural(len(missing), "secret"), strings.Join(missing, "; "))}
	}
	s.Masker = NewMasker(s.Values)
	return s, nil
}

func (s *Secret) read(ctx context.Context, dir string, environ func(string) (string, bool)) (string, error) {
	d := s.Decl
	switch {
	case d.Env.Set:
		v, ok := environ(d.Env.Value)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", d.Env.Value)
		}
		return v, nil
	case d.File.Set:
		return readSecretFile(dir, d.File.Value)
	case len(d.Command) > 0:
		argv := make([]string, len(d.Command))
		for i, a := range d.Command {
			argv[i] = a.Value
		}
		return runSecretCommand(ctx, dir, argv)
	}
	return "", errors.New("no source is declared")
}

func readSecretFile(dir, path string) (string, error) {
	full := path
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("expand %s: %w", path, err)
		}
		full = filepath.Join(home, rest)
	} else if !filepath.IsAbs(path) {
		full = filepath.Join(dir, path)
	}
	info, err := os.Stat(full)
	switch {
	case err != nil:
		return "", fmt.Errorf("read its file: %w", err)
	case info.IsDir():
		return "", fmt.Errorf("read its file: %s is a directory", path)
	case info.Size() > secretLimit:
		return "", fmt.Errorf("read its file: %s has %d bytes, more than a secret has", path, info.Size())
	}
	b, err := os.ReadFile(full)
	if err != nil {
		return "", fmt.Errorf("read its file: %w", err)
	}
	return withoutNewline(b), nil
}

func runSecretCommand(ctx context.Context, dir string, argv []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, secretCommandLimit, fmt.Errorf("it took longer than %v", secretCommandLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{to: &out, left: secretLimit + 1}, &limited{to: &messages, left: 4096}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its helpers end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("run %s: %w", argv[0], context.Cause(ctx))
	case err != nil:
		if line, _, _ := strings.Cut(strings.TrimSpace(messages.String()), "\n"); line != "" {
			return "", fmt.Errorf("run %s: %w: %s", argv[0], err, line)
		}
		return "", fmt.Errorf("run %s: %w", argv[0], err)
	case out.Len() > secretLimit:
		return "", fmt.Errorf("run %s: it printed more than %d bytes", argv[0], secretLimit)
	}
	return withoutNewline(out.Bytes()), nil
}

// limited keeps the first bytes and takes the rest for written, so that the writer is not killed for it.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	keep := min(len(b), l.left)
	l.left -= keep
	l.to.Write(b[:keep])
	return len(b), nil
}

// withoutNewline drops one newline, which editors and echo add.
func withoutNewline(b []byte) string {
	if text, ok := strings.CutSuffix(string(b), "\n"); ok {
		return strings.TrimSuffix(text, "\r")
	}
	return string(b)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
