package pika

import (
	"context"

	"runbook/schema"
	"runbook/steps"
)

// Router tells where clients are sent: what a target can be that deciding whether a slot may be
// deleted asks (the input routed_by of pika.delslots). The client of a codis target is one.
type Router interface {
	// SlotBackends gives, for each slot, every address that any proxy or the routing's own
	// record would send a client of it to, as ip:port: those it migrates from and the read replicas too.
	// A slot that is not routed has none. It fails where a proxy does not answer: what
	// it routes is then not known.
	SlotBackends(ctx context.Context, slots schema.Slots) (map[int][]string, error)
}

// routerView gives the router of the target of this name, whatever else its kind can do.
func routerView(ctx context.Context, v steps.View, name schema.TargetName) (Router, error) {
	return (&steps.TargetKind[struct{}, Router]{}).View(ctx, v, string(name))
}
