package zookeeper

import (
	"bytes"
	"context"
	"fmt"

	"runbook/steps"
)

type setIn struct {
	Path          string `yaml:"path,required" doc:"Path of the node, below the target's chroot."`
	Value         any    `yaml:"value,required" doc:"What it is to hold: a text as it is; a map, list, number or boolean as JSON on one line."`
	ExpectVersion *int   `yaml:"expect_version" doc:"Write only if the value has this version, such as zookeeper.get has read; without it, the version that the step found when it started."`
	Create        bool   `yaml:"create" default:"false" doc:"Create the node where it does not exist; its parent must."`
	ACL           ACL    `yaml:"acl" enum:"anyone,creator" default:"anyone" doc:"Who may use a node that is created: anyone, or creator: who logs in with the target's auth."`
}

type setOut struct {
	Version int     `yaml:"version" doc:"Version of the value that was written."`
	Before  *string `yaml:"before" doc:"What the node held before; null where there was none, or where that was no text."`
}

func set() *steps.Kind[setIn, setOut] {
	return &steps.Kind[setIn, setOut]{
		Name:       "zookeeper.set",
		Doc:        "Makes a node hold a value. Sends setData with the version that was read, so that a change made by somebody else meanwhile is not overwritten, or create.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: point_clients, uses: zookeeper.set, target: zk, with: {path: /pegasus/demo/table, value: {cluster_name: b, meta_addrs: "10.0.0.1:34601,10.0.0.2:34601"}}}`,
		Pitfalls: []string{
			"Somebody else's change is never overwritten: the write carries the version that was read when the step started, and fails where the node has another one by now.",
			"The undo puts the old value back, with the same check, only while the node still holds what this step wrote; the version goes on counting.",
			"A value that readers parse is best given as a map: it is written as JSON, and cannot be malformed. A text is written as it is.",
			"Those who watch the node are told at once, also by the undo.",
		},
		Valid: func(in setIn, unknown func(string) bool) []steps.Problem {
			p := validPath(in.Path, unknown)
			if in.Create && in.ExpectVersion != nil {
				p = append(p, steps.Problem{Input: "create", Message: "a node with an expected version exists: there is nothing to create"})
			}
			return p
		},
		Check:    checkSet,
		Plan:     planSet,
		Probe:    probeSet,
		Apply:    applySet,
		Undo:     undoSet,
		UndoPlan: func(in setIn) string { return "set " + in.Path + " to the value before, if it is still ours" },
	}
}

func checkSet(ctx context.Context, v steps.View, in setIn) error {
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return err
	}
	want, err := bytesOf(in.Value)
	if err != nil {
		return err
	}
	n, err := c.Node(ctx, in.Path)
	switch {
	case err != nil:
		return err
	case n.Exists && bytes.Equal(n.Data, want):
		return nil
	case !n.Exists && !in.Create:
		return steps.Precondition("set %s on %s: there is no such node", in.Path, c.Addr()).WithHint("create: true makes it")
	case in.ExpectVersion != nil && n.Version != *in.ExpectVersion:
		return steps.Precondition("set %s on %s: its version is %d, not %d: somebody has changed it", in.Path, c.Addr(), n.Version, *in.ExpectVersion)
	}
	return nil
}

func planSet(ctx context.Context, v *steps.View, in setIn) (steps.Change, error) {
	want, err := bytesOf(in.Value)
	if err != nil {
		return steps.Change{}, err
	}
	line := steps.Line{Target: own(v), Command: "set " + in.Path, To: short(string(want))}
	if v == nil {
		return steps.Change{Lines: []steps.Line{line}}, nil
	}
	c, err := Target().View(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return steps.Change{}, err
	}
	line.From = shown(n)
	return steps.Change{Lines: []steps.Line{line}, Before: beforeOf(n)}, nil
}

func probeSet(ctx context.Context, v steps.View, in setIn) (steps.State, setOut, error) {
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return steps.Unclear, setOut{}, err
	}
	want, err := bytesOf(in.Value)
	if err != nil {
		return steps.Unclear, setOut{}, err
	}
	n, err := c.Node(ctx, in.Path)
	switch {
	case err != nil:
		return steps.Unclear, setOut{}, err
	case !n.Exists || !bytes.Equal(n.Data, want):
		return steps.Untouched, setOut{}, nil
	}
	out, err := setOutput(v, n)
	return steps.Done, out, err
}

// setOutput finds the value before in what the plan captured: by now the node has the new one.
func setOutput(v steps.View, now Node) (setOut, error) {
	old, err := started(v, now)
	if err != nil {
		return setOut{}, err
	}
	return setOut{Version: now.Version, Before: text(Node{Exists: old.Exists, Data: old.Data})}, nil
}

func applySet(ctx context.Context, s steps.Session, in setIn) (setOut, error) {
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return setOut{}, err
	}
	want, err := bytesOf(in.Value)
	if err != nil {
		return setOut{}, err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return setOut{}, err
	}
	old, err := started(s.View, n)
	if err != nil {
		return setOut{}, err
	}
	version := old.Version
	if in.ExpectVersion != nil {
		version = *in.ExpectVersion
	}
	switch {
	case n.Exists && bytes.Equal(n.Data, want):
	case !n.Exists && in.Create:
		if err := c.Create(ctx, in.Path, want, in.ACL, false); err != nil {
			return setOut{}, err
		}
		n.Version = 0
	case n.Exists && (n.Czxid != old.Czxid || n.Version != version): // another node of that path, or another value
		return setOut{}, steps.Errorf("conflict", "set %s on %s: it was %s when the step started, and is %s now: somebody has changed it",
			in.Path, c.Addr(), stand(old), stand(beforeOf(n))).WithHint("look who did; the step starts from what is there then")
	default:
		if n.Version, err = c.Set(ctx, in.Path, want, version); err != nil {
			return setOut{}, err
		}
	}
	return setOutput(s.View, n)
}

// stand tells where a node stands, for people.
func stand(b before) string {
	if !b.Exists {
		return "absent"
	}
	return fmt.Sprintf("at version %d of node 0x%x", b.Version, b.Czxid)
}

func undoSet(ctx context.Context, s steps.Session, in setIn, _ *setOut) error {
	var old before
	known, err := s.Before(&old)
	if err != nil {
		return err
	}
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return err
	}
	ours, err := bytesOf(in.Value)
	if err != nil {
		return err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return err
	}
	switch {
	case !known:
		return steps.Errorf("precondition", "put %s back on %s: the value before is not known", in.Path, c.Addr())
	case n.Exists == old.Exists && bytes.Equal(n.Data, old.Data):
		return nil
	case !n.Exists || !bytes.Equal(n.Data, ours):
		return steps.Errorf("conflict", "put %s back on %s: it is %s now, which this step did not set", in.Path, c.Addr(), shown(n)).
			WithHint("somebody else has changed it; set it by hand if the old value is wanted")
	case !old.Exists:
		return c.Delete(ctx, in.Path, n.Version)
	}
	_, err = c.Set(ctx, in.Path, old.Data, n.Version)
	return err
}
