package core

import (
	"time"

	"runbook/steps"
)

type approveIn struct {
	Message   string        `yaml:"message,required" doc:"What the person is asked."`
	Show      []any         `yaml:"show" doc:"Expressions shown with their values."`
	Approvals int           `yaml:"approvals" default:"1" doc:"How many different people; with 2 or more the starter's own does not count."`
	Retype    string        `yaml:"retype" doc:"Text that the person must type."`
	Timeout   time.Duration `yaml:"timeout" doc:"How long to wait for an answer; no limit without it."`
	Wait      string        `yaml:"wait" enum:"attached,detached" doc:"attached: the process stays and keeps lock and guards, unwritten only where there is a terminal; detached: it leaves with exit 4."`
}

type approveOut struct{}

func approve() *steps.Kind[approveIn, approveOut] {
	return &steps.Kind[approveIn, approveOut]{
		Name:          "approve",
		Doc:           "Asks a person, and goes on when the answer is yes: a gate of its own, where confirm stands before a step.",
		Effect:        steps.Read,
		Engine:        steps.EngineGate,
		NothingToUndo: true,
		Example:       `{id: go, uses: approve, with: {message: "Start moving slots?"}}`,
		Pitfalls: []string{
			"An approval is of this step of this run: another run of the same runbook asks again.",
			"What was looked at before the question may have changed by the time of the answer: look again after it.",
		},
		Valid: func(in approveIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			if in.Approvals < 1 && !unknown("approvals") {
				p = append(p, steps.Problem{Input: "approvals", Message: "at least one approval is needed"})
			}
			if in.Timeout < 0 {
				p = append(p, steps.Problem{Input: "timeout", Message: "the time-out must not be negative"})
			}
			return p
		},
	}
}
