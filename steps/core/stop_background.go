package core

import "runbook/steps"

type stopBackgroundIn struct {
	Step string `yaml:"step,required" doc:"Id of the step with background: true."`
}

type stopBackgroundOut struct{}

func stopBackground() *steps.Kind[stopBackgroundIn, stopBackgroundOut] {
	return &steps.Kind[stopBackgroundIn, stopBackgroundOut]{
		Name:          "stop-background",
		Doc:           "Ends a step that runs in the background, and waits until it has ended. One that has ended already is no failure.",
		Effect:        steps.Write,
		Engine:        steps.EngineStopBackground,
		Idempotent:    true,
		NothingToUndo: true,
		Example:       `{id: enough, uses: stop-background, with: {step: traffic}}`,
		Pitfalls:      []string{"Without it a background step ends when the run ends, before finally."},
	}
}
