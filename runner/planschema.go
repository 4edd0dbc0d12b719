package runner

import (
	"reflect"

	"runbook/schema"
)

// PlanSchema is the JSON Schema of a plan's JSON; the file schema/plan.schema.json holds it.
func PlanSchema() []byte { return schema.AnswerSchema("plan", reflect.TypeFor[Plan]()) }
