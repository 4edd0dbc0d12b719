package core

import (
	"context"
	"fmt"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type checkIn struct {
	That []schema.Condition `yaml:"that,required" doc:"Expressions that must hold, or {check: expression, message: text}."`
}

type checkOut struct {
	Passed bool `yaml:"passed" doc:"All of them hold; a step with one that does not fails."`
}

func check() *steps.Kind[checkIn, checkOut] {
	return &steps.Kind[checkIn, checkOut]{
		Name:    "check",
		Doc:     "Checks conditions over what is known: outputs of earlier steps, inputs and variables. It reports every one that does not hold, with the values of its parts.",
		Effect:  steps.Read,
		Example: `{id: sane, uses: check, with: {that: ["1 + 1 == 2", {check: "2 < 3", message: "numbers are in order"}]}}`,
		Pitfalls: []string{
			"It looks at what earlier steps saw, not at the system: ask again right before, with recheck, what must still hold.",
			"A condition that cannot be told, such as a comparison with null, is a failure.",
		},
		Valid: func(in checkIn, unknown func(string) bool) []steps.Problem {
			if len(in.That) == 0 && !unknown("that") {
				return []steps.Problem{{Input: "that", Message: "there is nothing to check"}}
			}
			return nil
		},
		Read: func(ctx context.Context, _ steps.View, in checkIn) (checkOut, error) {
			if ctx.Err() != nil {
				return checkOut{}, fmt.Errorf("check: %w", context.Cause(ctx))
			}
			var failed []string
			for _, c := range in.That {
				if !c.Holds {
					failed = append(failed, "\n  "+explain(c))
				}
			}
			switch {
			case len(failed) == 1 && len(in.That) == 1:
				return checkOut{}, steps.Errorf("check", "it does not hold: %s", strings.TrimSpace(failed[0]))
			case len(failed) == 1:
				return checkOut{}, steps.Errorf("check", "1 of %d conditions does not hold:%s", len(in.That), failed[0])
			case len(failed) > 0:
				return checkOut{}, steps.Errorf("check", "%d of %d conditions do not hold:%s", len(failed), len(in.That), strings.Join(failed, ""))
			}
			return checkOut{Passed: true}, nil
		},
	}
}

// explain tells why a condition does not hold.
func explain(c schema.Condition) string {
	var b strings.Builder
	if c.Message != "" {
		b.WriteString(c.Message + ": ")
	}
	b.WriteString(c.Text)
	if c.Unknown != "" {
		b.WriteString(" cannot be told: " + c.Unknown)
	}
	for i, p := range c.Parts {
		if i == 0 {
			b.WriteString(" (")
		} else {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s is %s", p.Text, shown(p.Value))
		if i == len(c.Parts)-1 {
			b.WriteString(")")
		}
	}
	return b.String()
}
