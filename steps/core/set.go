package core

import "runbook/steps"

type setIn struct {
	Values map[string]any `yaml:"values,required" doc:"Names and their values; each name is an output."`
}

type setOut struct{}

func set() *steps.Kind[setIn, setOut] {
	return &steps.Kind[setIn, setOut]{
		Name:          "set",
		Doc:           "Names values, evaluated when the step runs; each is an output of the step.",
		Effect:        steps.Read,
		Engine:        steps.EngineSet,
		NothingToUndo: true,
		Example:       `{id: names, uses: set, with: {values: {first: 1, both: [1, 2]}}}`,
		Pitfalls:      []string{"What is set is journaled: a secret is refused.", "A value that does not change during the run belongs under vars."},
		Valid: func(in setIn, unknown func(string) bool) []steps.Problem {
			if len(in.Values) == 0 && !unknown("values") {
				return []steps.Problem{{Input: "values", Message: "there is nothing to set"}}
			}
			return nil
		},
	}
}
