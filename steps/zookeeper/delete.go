package zookeeper

import (
	"context"
	"errors"
	"strings"

	"github.com/go-zookeeper/zk"

	"runbook/steps"
)

type deleteIn struct {
	Path          string `yaml:"path,required" doc:"Path of the node, below the target's chroot."`
	ExpectVersion *int   `yaml:"expect_version" doc:"Delete only if the value has this version, such as zookeeper.get has read; without it, the version that the step found when it started."`
}

type deleteOut struct {
	Exists bool `yaml:"exists" doc:"There is such a node: false."`
}

func remove() *steps.Kind[deleteIn, deleteOut] {
	return &steps.Kind[deleteIn, deleteOut]{
		Name:       "zookeeper.delete",
		Doc:        "Deletes a node that has no children. Sends delete with the version that was read.",
		Effect:     steps.Destroy,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: forget, uses: zookeeper.delete, target: zk, with: {path: /migrations/demo}}`,
		Pitfalls: []string{
			"A node with children is refused, and named with them: each is deleted by a step of its own.",
			"A node that was changed, or deleted and created again, since the step started is not deleted.",
			"An ephemeral node belongs to a living client: deleting it does not tell that client, which goes on as if it had it.",
		},
		NoUndo: "a node that is created anew has another owner, version and czxid than the one deleted",
		Valid: func(in deleteIn, unknown func(string) bool) []steps.Problem {
			p := validPath(in.Path, unknown)
			if in.Path == "/" {
				p = append(p, steps.Problem{Input: "path", Message: "the root cannot be deleted"})
			}
			return p
		},
		Check: func(ctx context.Context, v steps.View, in deleteIn) error {
			c, err := Target().View(ctx, v, "")
			if err != nil {
				return err
			}
			n, err := c.Node(ctx, in.Path)
			switch {
			case err != nil:
				return err
			case len(n.Children) > 0:
				return steps.Precondition("delete %s on %s: it has %d children: %s", in.Path, c.Addr(), len(n.Children), first(n.Children))
			case n.Exists && in.ExpectVersion != nil && n.Version != *in.ExpectVersion:
				return steps.Precondition("delete %s on %s: its version is %d, not %d: somebody has changed it", in.Path, c.Addr(), n.Version, *in.ExpectVersion)
			}
			return nil
		},
		Plan: func(ctx context.Context, v *steps.View, in deleteIn) (steps.Change, error) {
			line := steps.Line{Target: own(v), Command: "delete " + in.Path, To: "absent"}
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
		},
		Probe: func(ctx context.Context, v steps.View, in deleteIn) (steps.State, deleteOut, error) {
			c, err := Target().View(ctx, v, "")
			if err != nil {
				return steps.Unclear, deleteOut{}, err
			}
			n, err := c.Node(ctx, in.Path)
			switch {
			case err != nil:
				return steps.Unclear, deleteOut{}, err
			case n.Exists:
				return steps.Untouched, deleteOut{Exists: true}, nil
			}
			return steps.Done, deleteOut{}, nil
		},
		Apply: applyDelete,
	}
}

// applyDelete deletes the node that was there when the step started, and no other.
func applyDelete(ctx context.Context, s steps.Session, in deleteIn) (deleteOut, error) {
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return deleteOut{}, err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return deleteOut{}, err
	}
	if !n.Exists {
		return deleteOut{}, nil
	}
	old, err := started(s.View, n)
	if err != nil {
		return deleteOut{}, err
	}
	version := old.Version
	if in.ExpectVersion != nil {
		version = *in.ExpectVersion
	}
	if n.Czxid != old.Czxid {
		return deleteOut{}, steps.Errorf("conflict", "delete %s on %s: it was deleted and created again since the step started", in.Path, c.Addr())
	}
	if err := c.Delete(ctx, in.Path, version); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return deleteOut{}, err
	}
	return deleteOut{}, nil
}

// first gives some names, and says that there are more.
func first(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
