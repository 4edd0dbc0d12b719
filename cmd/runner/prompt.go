package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"runbook/runner"
)

// ask puts a gate before the person at the terminal. An end of input leaves the gate
// unanswered: the run pauses.
func (v *view) ask(ctx context.Context, q runner.Question) (runner.Answer, error) {
	v.screen.Lock()
	v.erase()
	v.asking = true
	v.screen.Unlock()
	v.show()
	defer func() {
		v.screen.Lock()
		v.asking = false
		v.screen.Unlock()
	}()
	v.question(q)
	lines := v.app.lineReader()
	lines.forget()
	for {
		if q.Retype != "" {
			fmt.Fprintf(v.app.err, "Type %s to approve, or no to refuse: ", clean(q.Retype))
		} else {
			fmt.Fprint(v.app.err, "Approve? [yes/no]: ")
		}
		text, err := lines.next(ctx)
		if err != nil {
			fmt.Fprintln(v.app.err)
			return runner.Answer{}, err
		}
		switch word := strings.ToLower(strings.TrimSpace(text)); {
		case q.Retype != "" && strings.TrimSpace(text) == q.Retype:
			return runner.Answer{Approved: true}, nil
		case q.Retype == "" && (word == "yes" || word == "y"):
			return runner.Answer{Approved: true}, nil
		case word == "no" || word == "n":
			fmt.Fprint(v.app.err, "Reason (may be empty): ")
			reason, err := lines.next(ctx)
			if err != nil && err != io.EOF {
				return runner.Answer{}, err
			}
			return runner.Answer{Reason: strings.TrimSpace(reason)}, nil
		case q.Retype != "":
			fmt.Fprintln(v.app.err, "That is not it.")
		}
	}
}

func (v *view) question(q runner.Question) {
	a := v.app
	fmt.Fprintf(a.err, "%s %s: %s\n", a.paint(a.err, runner.Caution, "gate"), clean(q.Step), clean(strings.TrimSpace(q.Message)))
	for _, l := range q.Show {
		fmt.Fprintf(a.err, "  %s = %s\n", clean(l.Command), clean(l.To))
	}
	if len(q.Sends) > 0 {
		fmt.Fprintln(a.err, "  will send:")
	}
	for i, l := range q.Sends {
		if i == 20 {
			fmt.Fprintf(a.err, "    and %d more\n", len(q.Sends)-i)
			break
		}
		fmt.Fprintf(a.err, "    %s\n", clean(l.String()))
	}
}

// lineReader reads lines of standard input in the background, so that a wait for one can end.
type lineReader struct {
	in    *os.File
	lines chan string
}

// lineReader is made once: a second reader would take lines from the first.
func (a *app) lineReader() *lineReader {
	if a.reader == nil {
		r := &lineReader{in: a.in, lines: make(chan string)}
		a.reader = r
		go func() {
			defer close(r.lines)
			b := bufio.NewReader(a.in)
			for {
				line, err := b.ReadString('\n')
				if err != nil {
					return
				}
				r.lines <- strings.TrimRight(line, "\r\n")
			}
		}()
	}
	return a.reader
}

// forget drops what was typed before the question was asked: it was no answer to it.
func (r *lineReader) forget() {
	flushInput(r.in)
	for {
		select {
		case _, ok := <-r.lines:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

func (r *lineReader) next(ctx context.Context) (string, error) {
	select {
	case line, ok := <-r.lines:
		if !ok {
			return "", io.EOF
		}
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
