package core

import (
	"time"

	"runbook/steps"
)

type sleepIn struct {
	Duration time.Duration `yaml:"duration,required" doc:"How long to wait, such as 30s."`
}

type sleepOut struct{}

func sleep() *steps.Kind[sleepIn, sleepOut] {
	return &steps.Kind[sleepIn, sleepOut]{
		Name:          "sleep",
		Doc:           "Waits on the run's clock. A resume waits anew.",
		Effect:        steps.Read,
		Engine:        steps.EngineSleep,
		NothingToUndo: true,
		Example:       `{id: settle, uses: sleep, with: {duration: 1s}}`,
		Pitfalls:      []string{"A fixed time is a guess: wait-until on a kind that reads waits for the thing itself."},
		Valid: func(in sleepIn, unknown func(string) bool) []steps.Problem {
			if in.Duration <= 0 && !unknown("duration") {
				return []steps.Problem{{Input: "duration", Message: "the duration must be above 0"}}
			}
			return nil
		},
	}
}
