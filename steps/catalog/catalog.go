// Package catalog lists every step kind and every kind of target of this binary.
//
// The one list is made here from the lists of the packages, one a system. Everything that
// enumerates kinds (lint, plan, the JSON Schema, reference pages, completion) reads it.
package catalog

import (
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/codis"
	"runbook/steps/core"
	"runbook/steps/host"
	"runbook/steps/pika"
	"runbook/steps/redis"
	"runbook/steps/twemproxy"
	"runbook/steps/zookeeper"
)

// Kinds lists the step kinds, by name.
func Kinds() []*steps.Definition {
	kinds := slices.Concat(codis.Kinds(), core.Kinds(), host.Kinds(), pika.Kinds(), redis.Kinds(), twemproxy.Kinds(), zookeeper.Kinds())
	slices.SortFunc(kinds, func(a, b *steps.Definition) int { return strings.Compare(a.Name, b.Name) })
	return kinds
}

// Targets lists the kinds of targets, by name.
func Targets() []*steps.TargetDefinition {
	targets := []*steps.TargetDefinition{codis.Target().Define(), host.Target().Define(), pika.Target().Define(), redis.Target().Define(),
		twemproxy.Target().Define(), zookeeper.Target().Define()}
	slices.SortFunc(targets, func(a, b *steps.TargetDefinition) int { return strings.Compare(a.Name, b.Name) })
	return targets
}

// Schema is the JSON Schema of a runbook that uses these kinds; the file
// schema/runbook.schema.json holds it for editors.
func Schema() []byte {
	kinds, targets := described()
	return schema.JSONSchema(kinds, targets)
}
