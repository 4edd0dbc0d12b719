package codis

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
func coordinator(ctx context.Context, v steps.View, target string) (Coordinator, error) {
	return coordinatorKind().View(ctx, v, target)
}

// namedCoordinator gives the coordinator that the dashboard of a product names, by kind and addresses.
func namedCoordinator(ctx context.Context, v steps.View, product, kind, addrs string) (Coordinator, error) {
	switch {
	case kind == "zookeeper" && addrs != "":
		var all []any
		for a := range strings.SplitSeq(addrs, ",") {
			all = append(all, strings.TrimSpace(a))
		}
		return coordinatorKind().ViewOf(ctx, v, steps.Target{Name: "the coordinator of " + product, Kind: "zookeeper", Config: map[string]any{"addrs": all}})
	case kind == "":
		return nil, errors.New("the coordinator is not known")
	}
	return nil, fmt.Errorf("a coordinator of kind %s cannot be read from here", kind)
}

func coordinatorKind() *steps.TargetKind[struct{}, Coordinator] {
	return &steps.TargetKind[struct{}, Coordinator]{Name: "zookeeper"}
}
