package core

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"runbook/steps"
	"runbook/steps/host"
)

type notifyIn struct {
	URL      string            `yaml:"url" doc:"http or https address that gets a POST of {\"text\": …} in JSON. Either this or command."`
	Headers  map[string]string `yaml:"headers" doc:"With url: headers sent; may hold secrets."`
	Command  []string          `yaml:"command" doc:"Program and arguments that get the text as standard input. Either this or url."`
	Text     string            `yaml:"text,required" doc:"What to say."`
	Required bool              `yaml:"required" default:"false" doc:"Fail when it cannot be said; otherwise the run goes on, and the outputs tell."`
}

type notifyOut struct {
	Sent    bool   `yaml:"sent,act" doc:"It was said."`
	Problem string `yaml:"problem,act" doc:"Why it could not be said; empty where it was."`
}

func notify() *steps.Kind[notifyIn, notifyOut] {
	return &steps.Kind[notifyIn, notifyOut]{
		Name:   "notify",
		Doc:    "Tells people something, by a POST or through a command on the runner's machine. It never fails the run, unless required. A dry run says nothing.",
		Effect: steps.Write, Idempotent: true, NothingToUndo: true,
		Example:  `{id: tell, uses: notify, with: {command: [cat], text: The cut-over begins}}`,
		Pitfalls: []string{"After a crash it may be said twice: nobody can ask a chat what it has seen.", "The text is journaled."},
		Valid: func(in notifyIn, unknown func(string) bool) []steps.Problem {
			switch {
			case unknown("url") || unknown("command"):
				return nil
			case in.URL == "" && len(in.Command) == 0:
				return []steps.Problem{{Input: "url", Message: "a notify needs url or command"}}
			case in.URL != "" && len(in.Command) > 0:
				return []steps.Problem{{Input: "command", Message: "a notify has url or command, not both"}}
			case in.URL != "":
				return validHTTP(httpIn{URL: in.URL}, unknown)
			case len(in.Headers) > 0:
				return []steps.Problem{{Input: "headers", Message: "headers mean something with url alone"}}
			}
			return nil
		},
		Plan: func(_ context.Context, _ *steps.View, in notifyIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{{Command: "tell " + in.whom() + ": " + clip(in.Text, 120)}}}, nil
		},
		// What was said cannot be asked for: a resume says it again.
		Probe: func(ctx context.Context, _ steps.View, in notifyIn) (steps.State, notifyOut, error) {
			if ctx.Err() != nil {
				return steps.Unclear, notifyOut{}, fmt.Errorf("tell %s: %w", in.whom(), context.Cause(ctx))
			}
			return steps.Untouched, notifyOut{}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, in notifyIn) (notifyOut, error) {
			err := tell(ctx, s, in)
			if err == nil {
				return notifyOut{Sent: true}, nil
			}
			if in.Required || ctx.Err() != nil {
				return notifyOut{}, err
			}
			s.Log().Warn("a notification could not be sent", "to", in.whom(), "error", err)
			return notifyOut{Problem: err.Error()}, nil
		},
	}
}

// whom names who is told: of an address only its host, since what follows is often a token.
func (in notifyIn) whom() string {
	if in.URL == "" {
		return host.Command{Argv: in.Command}.Line()
	}
	u, err := url.Parse(in.URL)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Scheme + "://" + u.Host
}

func tell(ctx context.Context, s steps.Session, in notifyIn) error {
	if in.URL != "" {
		req := httpIn{Method: "POST", URL: in.URL, Headers: in.Headers, JSON: map[string]any{"text": in.Text}, MaxBody: 64 << 10}
		_, err := request(ctx, s.View, req)
		if err == nil {
			return nil
		}
		e := *steps.Classify(err)
		e.Err = errors.New("tell " + in.whom() + ": " + strings.ReplaceAll(err.Error(), in.URL, in.whom()))
		if cause := context.Cause(ctx); cause != nil {
			e.Err = fmt.Errorf("tell %s: %w", in.whom(), cause)
		}
		return &e
	}
	_, err := runExec(ctx, s, execIn{Command: in.Command, Stdin: in.Text, Limit: 64 << 10})
	return err
}
