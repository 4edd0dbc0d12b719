package codis

import (
	"context"

	"runbook/steps"
)

type pauseActionsIn struct {
	Paused bool `yaml:"paused" doc:"true: no migration goes on; false: they do." default:"true"`
}

type pauseActionsOut struct {
	Paused bool `yaml:"paused" doc:"Migrations are paused."`
}

func (in pauseActionsIn) value() int {
	if in.Paused {
		return 1
	}
	return 0
}

func pauseActions() *steps.Kind[pauseActionsIn, pauseActionsOut] {
	return &steps.Kind[pauseActionsIn, pauseActionsOut]{
		Name:       "codis.pause-actions",
		Doc:        "Pauses the dashboard's migrations, or lets them go on. Sends PUT slots/action/disabled.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: hold_still, uses: codis.pause-actions, target: codis1, with: {paused: true}}`,
		Pitfalls: []string{
			"A slot that is migrating stays so, with keys on both sides: clients go on, and with migration_method sync each touched key still moves.",
			"Only the dashboard's memory has it: a restart lets migrations go on without a word. The probe sees that, and the undo puts back what was before the step.",
			"The undo leaves a value that somebody else has set since.",
		},
		Plan: func(ctx context.Context, v *steps.View, in pauseActionsIn) (steps.Change, error) {
			return planMemory(ctx, v, disabled, in.value())
		},
		Probe: func(ctx context.Context, v steps.View, in pauseActionsIn) (steps.State, pauseActionsOut, error) {
			state, err := probeMemory(ctx, v, disabled, in.value())
			if state != steps.Done {
				return state, pauseActionsOut{}, err
			}
			return state, pauseActionsOut(in), err
		},
		Apply: func(ctx context.Context, s steps.Session, in pauseActionsIn) (pauseActionsOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return pauseActionsOut{}, err
			}
			return pauseActionsOut(in), c.setMemory(ctx, disabled, in.value())
		},
		Undo: func(ctx context.Context, s steps.Session, in pauseActionsIn, _ *pauseActionsOut) error {
			return undoMemory(ctx, s, disabled, in.value())
		},
		UndoPlan: func(pauseActionsIn) string {
			return "PUT /api/topom/slots/action/disabled/" + maskedXAuth + " with the value before, if it is still ours"
		},
	}
}
