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
	if !q.Again {
		v.question(q)
	}
	v.standing(q)
	lines := v.app.lineReader()
	lines.forget()
	for {
		words := "Approve? [yes/no]: "
		switch {
		case q.Own != "":
			words = "Refuse? [no, or wait]: "
		case q.Retype != "":
			words = fmt.Sprintf("Type %s to approve, or no to refuse: ", clean(q.Retype))
		}
		text, err := v.line(ctx, lines, words)
		if err != nil {
			return runner.Answer{}, err
		}
		switch word := strings.ToLower(strings.TrimSpace(text)); {
		case q.Own != "" && word != "no" && word != "n":
		case q.Retype != "" && strings.TrimSpace(text) == q.Retype:
			return runner.Answer{Approved: true}, nil
		case q.Retype == "" && (word == "yes" || word == "y"):
			return runner.Answer{Approved: true}, nil
		case word == "no" || word == "n":
			reason, err := v.line(ctx, lines, "Reason (may be empty): ")
			if err != nil && err != io.EOF {
				return runner.Answer{}, err
			}
			return runner.Answer{Reason: strings.TrimSpace(reason)}, nil
		case q.Retype != "":
			fmt.Fprintln(v.app.err, "That is not it.")
		}
	}
}

// line asks for a line. What else comes to the screen meanwhile is written above the prompt.
func (v *view) line(ctx context.Context, lines *lineReader, prompt string) (string, error) {
	v.screen.Lock()
	v.prompt, v.moved = prompt, false
	fmt.Fprint(v.app.err, prompt)
	v.screen.Unlock()
	text, err := lines.next(ctx)
	v.screen.Lock()
	defer v.screen.Unlock()
	if err != nil && !v.moved {
		fmt.Fprintln(v.app.err)
	}
	v.prompt = ""
	return text, err
}

// promptAgain writes a prompt again that lines have come behind.
func (v *view) promptAgain() {
	v.screen.Lock()
	defer v.screen.Unlock()
	if v.prompt != "" && v.moved {
		fmt.Fprint(v.app.err, v.prompt)
		v.moved = false
	}
}

// standing says how far a gate is that several people must approve.
func (v *view) standing(q runner.Question) {
	a := v.app
	if q.Approvals > 1 {
		given := "none yet"
		if len(q.Given) > 0 {
			given = fmt.Sprintf("%d, by %s", len(q.Given), strings.Join(q.Given, ", "))
		}
		fmt.Fprintf(a.err, "  %d people must approve; so far: %s\n", q.Approvals, clean(given))
	}
	if q.Own != "" {
		fmt.Fprintf(a.err, "  %s\n  others approve from their own terminals: %s\n", clean(q.Own), a.placed("runner approve "+q.Run+" "+shellWord(q.Step)))
	}
	if q.Notice != "" {
		fmt.Fprintf(a.err, "  %s\n", clean(q.Notice))
	}
}

func (v *view) question(q runner.Question) {
	a := v.app
	fmt.Fprintf(a.err, "%s %s: %s\n", a.paint(a.err, runner.Caution, "gate"), clean(q.Step), clean(strings.TrimSpace(q.Message)))
	for _, void := range q.Void {
		fmt.Fprintf(a.err, "  %s\n", a.paint(a.err, runner.Caution, clean(void)))
	}
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
