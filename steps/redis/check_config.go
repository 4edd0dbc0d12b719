package redis

import (
	"context"

	"runbook/steps"
)

type checkConfigIn struct {
	Expect map[string]any `yaml:"expect,required" doc:"Setting and value wanted, as many as needed. Sizes may have units (64mb is 67108864), true is yes, the order of the letters of notify-keyspace-events does not matter."`
}

type checkConfigOut struct {
	Values     map[string]string `yaml:"values" doc:"The settings asked about, as the server prints them; *** for a secret. One that the server does not know is missing."`
	Mismatches []mismatch        `yaml:"mismatches" doc:"The settings that differ, ordered by name; empty when all are as wanted."`
}

type mismatch struct {
	Name string  `yaml:"name" doc:"Name of the setting."`
	Want string  `yaml:"want" doc:"Value wanted; *** for a secret."`
	Got  *string `yaml:"got" doc:"Value as the server prints it; *** for a secret; null where the server knows no such setting."`
}

func checkConfig() *steps.Kind[checkConfigIn, checkConfigOut] {
	return &steps.Kind[checkConfigIn, checkConfigOut]{
		Name:    "redis.check-config",
		Doc:     "Compares settings of a running server with what is wanted. Sends CONFIG GET for each. It does not fail by itself: write expect: len(mismatches) == 0.",
		Effect:  steps.Read,
		On:      speaks(),
		Example: `{id: settings, uses: redis.check-config, target: redis1, with: {expect: {maxmemory-policy: noeviction, repl-backlog-size: 512mb}}, expect: "len(mismatches) == 0"}`,
		Pitfalls: []string{
			"The server prints sizes in bytes; values are compared by what they mean, not by how they are written.",
			"A setting that this release does not know is a mismatch, with got null.",
		},
		Valid: func(in checkConfigIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			for _, name := range sortedKeys(in.Expect) {
				if _, ok := scalarText(in.Expect[name]); !ok && !unknown("expect") {
					p = append(p, steps.Problem{Input: "expect", Message: name + ": a text, a number, true or false is expected"})
				}
			}
			return p
		},
		Read: func(ctx context.Context, v steps.View, in checkConfigIn) (checkConfigOut, error) {
			out := checkConfigOut{Values: map[string]string{}, Mismatches: []mismatch{}}
			c, err := view(ctx, v, "")
			if err != nil {
				return out, err
			}
			for _, name := range sortedKeys(in.Expect) {
				want, ok := scalarText(in.Expect[name])
				if !ok {
					return out, steps.Errorf("input", "expect of %s: a text, a number, true or false is expected, not %T", name, in.Expect[name])
				}
				got, known, err := c.setting(ctx, name)
				if err != nil {
					return out, err
				}
				m := mismatch{Name: name, Want: shown(name, want)}
				if known {
					text := shown(name, got)
					out.Values[name], m.Got = text, &text
				}
				if !known || !same(name, want, got) {
					out.Mismatches = append(out.Mismatches, m)
				}
			}
			return out, nil
		},
	}
}
