package host

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"runbook/steps"
)

const (
	defaultLimit = 1 << 20
	defaultGrace = 5 * time.Second
	// outputDelay is how long a command that has ended may leave its output open in
	// the hands of a child it started; then what has come is what there is.
	outputDelay = time.Second
	// waitBeside is after how long a command is waited for while its output is still open.
	waitBeside = 20 * time.Millisecond
)

// args gives what is executed.
func (c Command) args() ([]string, error) {
	for _, names := range []map[string]string{c.Env, c.Files} {
		for n := range names {
			if !IsVariable(n) {
				return nil, steps.Errorf("start", "%q is no name of an environment variable", n)
			}
		}
	}
	switch {
	case len(c.Argv) > 0 && c.Shell != "":
		return nil, steps.Errorf("start", "a command is either an argument list or a shell text, not both")
	case len(c.Argv) > 0 && c.Argv[0] != "":
		return c.Argv, nil
	case c.Shell != "":
		return []string{"/bin/sh", "-c", c.Shell}, nil
	}
	return nil, steps.Errorf("start", "a command is empty")
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// IsVariable tells whether a text may name an environment variable everywhere.
func IsVariable(name string) bool { return variable.MatchString(name) }

// name is what errors call the command: never its arguments, which an author may have filled from anywhere.
func (c Command) name() string {
	if len(c.Argv) > 0 {
		return c.Argv[0]
	}
	return "shell command"
}

func (c Command) limit() int {
	if c.Limit > 0 {
		return c.Limit
	}
	return defaultLimit
}

func (c Command) grace(ctx context.Context) time.Duration {
	var g interface{ Grace() time.Duration }
	if errors.As(context.Cause(ctx), &g) {
		return g.Grace()
	}
	if c.Grace > 0 {
		return c.Grace
	}
	return defaultGrace
}

// ended is the error of something whose context ended; unknown tells whether it may have had its effect.
func ended(ctx context.Context, unknown bool, format string, a ...any) *steps.Error {
	cause := context.Cause(ctx)
	e := &steps.Error{Kind: "canceled", Unknown: unknown, Err: fmt.Errorf("%s: %w", fmt.Sprintf(format, a...), cause)}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(cause, context.DeadlineExceeded) {
		e.Kind, e.Temporary = "timeout", true
	}
	return e
}

// capture keeps the first and the last half of limit bytes written to it.
type capture struct {
	limit int
	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where the ring goes on
	total int64
}

func (c *capture) Write(p []byte) (int, error) {
	n := len(p)
	c.total += int64(n)
	if room := c.limit/2 - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head = append(c.head, p[:k]...)
		p = p[k:]
	}
	size := c.limit - c.limit/2
	if len(p) > size {
		p = p[len(p)-size:]
	}
	if room := size - len(c.tail); room > 0 && len(p) > 0 {
		k := min(room, len(p))
		c.tail = append(c.tail, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(c.tail[c.next:], p)
		c.next = (c.next + k) % len(c.tail)
		p = p[k:]
	}
	return n, nil
}

// drain takes what a command prints until its end, or until nobody waits for it any more. Most commands
// print little: io.Copy's buffer of 32 KiB costs more than the reading.
func (c *capture) drain(r io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		_, _ = c.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

func (c *capture) output() Output {
	cut := c.total - int64(len(c.head)) - int64(len(c.tail))
	if cut == 0 {
		return Output{Text: string(c.head) + string(c.tail)} // nothing cut: the ring never turned
	}
	var b strings.Builder
	b.Write(c.head)
	fmt.Fprintf(&b, "\n… %d bytes cut …\n", cut)
	b.Write(c.tail[c.next:])
	b.Write(c.tail[:c.next])
	return Output{Text: b.String(), Cut: cut}
}

// quote makes one word of POSIX shell of any text.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func quoteAll(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quote(a)
	}
	return strings.Join(words, " ")
}

// Line gives the command as a person would type it, without environment and input: for plans.
func (c Command) Line() string {
	if len(c.Argv) > 0 {
		return quoteAll(c.Argv)
	}
	return c.Shell
}

func base64Text(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
