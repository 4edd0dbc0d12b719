package redis

import (
	"context"

	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		info().Define(),
		command().Define(),
		configSet().Define(),
		checkConfig().Define(),
		createInstance().Define(),
		stopInstance().Define(),
		removeInstance().Define(),
		replicaOf().Define(),
		pauseWrites().Define(),
		compare().Define(),
	}
}

// speaks lists the kinds of target whose client is a Speaker.
func speaks() []string { return []string{KindName, "pika"} }

// speaker finds the client of a target that speaks the protocol, whatever else its kind can do.
func speaker() *steps.TargetKind[Config, Speaker] {
	return &steps.TargetKind[Config, Speaker]{Name: KindName}
}

// view gives a client that refuses to write, for the target of this name (empty: the step's own).
func view(ctx context.Context, v steps.View, name string) (*Client, error) {
	s, err := speaker().View(ctx, v, name)
	if err != nil {
		return nil, err
	}
	return s.RESP(), nil
}

// session gives a client that may write, for the step's own target.
func session(ctx context.Context, s steps.Session) (*Client, error) {
	c, err := speaker().Session(ctx, s, "")
	if err != nil {
		return nil, err
	}
	return c.RESP(), nil
}

// own names the step's own target, for the lines of a plan; v is nil offline.
func own(v *steps.View) string {
	if v == nil {
		return ""
	}
	t, err := v.Target("")
	if err != nil {
		return ""
	}
	return t.Name
}
