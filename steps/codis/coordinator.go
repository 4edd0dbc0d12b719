package codis

import (
	"context"

	"runbook/schema"
	"runbook/steps"
)

// Coordinator is what a step reads beside the dashboard: the store in which Codis keeps its
// lock and its mapping. The client of a zookeeper target is one.
type Coordinator interface {
	// Read gives a node's data; exists is false where there is no such node.
	Read(ctx context.Context, path string) (data []byte, exists bool, err error)
}

// LockPath is the node that holds the lock of a product: the model of the dashboard that
// took it. It is no lease: it stays when that dashboard is killed.
func LockPath(product string) string { return "/codis3/" + product + "/topom" }

// coordinator gives the coordinator that a target's client is.
func coordinator(ctx context.Context, v steps.View, name schema.TargetName) (Coordinator, error) {
	return (&steps.TargetKind[struct{}, Coordinator]{Name: "zookeeper"}).View(ctx, v, string(name))
}
