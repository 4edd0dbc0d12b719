package redis

import (
	"context"
	"fmt"
	"strconv"

	"runbook/steps"
)

type commandIn struct {
	Args []any `yaml:"args,required" doc:"The command and its arguments; numbers are sent as they are written."`
}

type commandOut struct {
	Reply any `yaml:"reply,act" doc:"What the server answered: a text, a number, a list of these, or null. Known only to the act itself."`
}

func command() *steps.Kind[commandIn, commandOut] {
	return &steps.Kind[commandIn, commandOut]{
		Name:        "redis.command",
		Doc:         "Sends one command as it is written. Its effect and idempotent keys are the author's word; without them it changes something and is not repeated.",
		Effect:      steps.Write,
		AuthorKnows: true,
		On:          speaks(),
		Example:     `{id: mark, uses: redis.command, target: redis1, with: {args: [SET, "migration:marker", "1"]}, effect: write, idempotent: true, undo: none}`,
		Pitfalls: []string{
			"An attempt without an answer is in doubt: give the step a probe, or idempotent: true where repeating it is harmless.",
			"CONFIG SET, REPLICAOF, SHUTDOWN and CLIENT PAUSE have kinds of their own, which probe and undo.",
			"Commands that keep a connection (MULTI, SUBSCRIBE, SELECT, MONITOR) are refused: each request stands by itself.",
		},
		Valid: func(in commandIn, unknown func(string) bool) []steps.Problem {
			if unknown("args") {
				return nil
			}
			if _, err := commandArgs(in.Args); err != nil {
				return []steps.Problem{{Input: "args", Message: err.Error()}}
			}
			return nil
		},
		Plan: func(_ context.Context, v *steps.View, in commandIn) (steps.Change, error) {
			args, err := commandArgs(in.Args)
			if err != nil {
				if v == nil { // not known yet
					return steps.Change{}, nil
				}
				return steps.Change{}, steps.Errorf("input", "%w", err)
			}
			return steps.Change{Lines: []steps.Line{{Target: own(v), Command: Line(args)}}}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, in commandIn) (commandOut, error) {
			args, err := commandArgs(in.Args)
			if err != nil {
				return commandOut{}, steps.Errorf("input", "%w", err)
			}
			c, err := session(ctx, s)
			if err != nil {
				return commandOut{}, err
			}
			r, err := c.Do(ctx, args...)
			if err != nil {
				return commandOut{}, err
			}
			return commandOut{Reply: r.Value()}, nil
		},
		NoUndo: "only the author knows what a command changes: write the way back under undo",
	}
}

// commandArgs gives the words of a command, and refuses those that mean a connection rather than a server.
func commandArgs(args []any) ([]string, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("a command needs at least its name")
	}
	words := make([]string, len(args))
	for i, a := range args {
		w, ok := scalarText(a)
		if !ok {
			return nil, fmt.Errorf("argument %d is not a text or a number", i+1)
		}
		words[i] = w
	}
	switch upper(words[0]) {
	case "":
		return nil, fmt.Errorf("a command needs a name")
	case "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE",
		"MONITOR", "SELECT", "AUTH", "HELLO", "QUIT", "RESET", "SYNC", "PSYNC", "READONLY", "READWRITE", "ASKING":
		return nil, fmt.Errorf("%s is about a connection, and every request has its own", upper(words[0]))
	}
	return words, nil
}

// scalarText writes a scalar as the wire and the configuration want it.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		if v {
			return "yes", true
		}
		return "no", true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case fmt.Stringer: // durations, secrets and the like have no one form here
		return "", false
	}
	return "", false
}
