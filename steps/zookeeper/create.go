package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/steps"
)

type createIn struct {
	Path      string `yaml:"path,required" doc:"Path of the node, below the target's chroot; its parent must be there."`
	Value     any    `yaml:"value" doc:"What it holds: a text as it is; a map, list, number or boolean as JSON on one line; nothing where none is given."`
	Ephemeral bool   `yaml:"ephemeral" default:"false" doc:"It lives as long as this process is connected, and no longer."`
	ACL       ACL    `yaml:"acl" enum:"anyone,creator" default:"anyone" doc:"Who may use it: anyone, or creator: who logs in with the target's auth."`
}

type createOut struct {
	Path  string `yaml:"path" doc:"Path of the node."`
	Czxid int64  `yaml:"czxid" doc:"Number of the transaction that created it."`
}

func create() *steps.Kind[createIn, createOut] {
	return &steps.Kind[createIn, createOut]{
		Name:       "zookeeper.create",
		Doc:        "Creates a node. Sends create.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: announce, uses: zookeeper.create, target: zk, with: {path: /migrations/demo, value: {by: runner}, ephemeral: true}}`,
		Pitfalls: []string{
			"A node that is there with another value is somebody else's: it is refused, never replaced.",
			"An ephemeral node is gone as soon as this process lets go of ZooKeeper: when the run ends, pauses, is interrupted, or loses its session. A resumed run is another process: a step that has finished does not run again by itself, so give it recheck, and use it for presence, never for state that the run depends on.",
			"After a crash an ephemeral node outlives its process by session_timeout. Only its own session can tell whose it is: the probe cannot, and the step waits that long for the old one to go before it makes its own.",
			"The undo deletes the node only if this step made it, and only while it has its first value and no children.",
		},
		Valid: func(in createIn, unknown func(string) bool) []steps.Problem {
			p := validPath(in.Path, unknown)
			if in.Path == "/" {
				p = append(p, steps.Problem{Input: "path", Message: "the root is always there"})
			}
			return p
		},
		Check:    checkCreate,
		Plan:     planCreate,
		Probe:    probeCreate,
		Apply:    applyCreate,
		Undo:     undoCreate,
		UndoPlan: func(in createIn) string { return "delete " + in.Path + ", if it is still as created" },
	}
}

// same tells whether a node is as the step wants it, as far as anybody but its session can tell.
func (in createIn) same(n Node) (bool, error) {
	want, err := bytesOf(in.Value)
	return n.Exists && bytes.Equal(n.Data, want) && (n.Owner != 0) == in.Ephemeral, err
}

func checkCreate(ctx context.Context, v steps.View, in createIn) error {
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return err
	}
	same, err := in.same(n)
	if err != nil {
		return err
	}
	if n.Exists && !same {
		return steps.Precondition("create %s on %s: it is there already, %s", in.Path, c.Addr(), kindOf(n))
	}
	return nil
}

func kindOf(n Node) string {
	if n.Owner != 0 {
		return fmt.Sprintf("ephemeral, of session 0x%x, and holds %s", n.Owner, shown(n))
	}
	return "persistent, and holds " + shown(n)
}

func planCreate(ctx context.Context, v *steps.View, in createIn) (steps.Change, error) {
	want, err := bytesOf(in.Value)
	if err != nil {
		return steps.Change{}, err
	}
	command := "create "
	if in.Ephemeral {
		command = "create -e "
	}
	line := steps.Line{Target: own(v), Command: command + in.Path, To: short(string(want))}
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

func probeCreate(ctx context.Context, v steps.View, in createIn) (steps.State, createOut, error) {
	c, err := Target().View(ctx, v, "")
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	same, err := in.same(n)
	switch {
	case err != nil:
		return steps.Unclear, createOut{}, err
	case !same:
		return steps.Untouched, createOut{}, nil
	case in.Ephemeral:
		return steps.Unclear, createOut{}, nil
	}
	return steps.Done, createOut{Path: in.Path, Czxid: n.Czxid}, nil
}

func applyCreate(ctx context.Context, s steps.Session, in createIn) (createOut, error) {
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return createOut{}, err
	}
	want, err := bytesOf(in.Value)
	if err != nil {
		return createOut{}, err
	}
	for patience := s.Now().Add(2 * c.cfg.Session); ; {
		err = c.Create(ctx, in.Path, want, in.ACL, in.Ephemeral)
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return createOut{}, err
		}
		n, lookErr := c.Node(ctx, in.Path)
		if lookErr != nil {
			return createOut{}, lookErr
		}
		same, sameErr := in.same(n)
		switch {
		case sameErr != nil:
			return createOut{}, sameErr
		case same && (!in.Ephemeral || c.owns(n)):
			return createOut{Path: in.Path, Czxid: n.Czxid}, nil
		case err == nil: // gone again: an ephemeral node whose session ended at once
			return createOut{}, steps.Errorf("expired", "create %s on %s: it is gone again, or another's: the session has ended", in.Path, c.Addr())
		case !same && n.Exists, !s.Now().Before(patience):
			return createOut{}, steps.Errorf("conflict", "create %s on %s: it is there already, %s", in.Path, c.Addr(), kindOf(n))
		}
		// The node of a process that has died goes when its session is over.
		if err := s.Sleep(ctx, pollEvery); err != nil {
			return createOut{}, ended(ctx, request{addr: c.Addr(), what: "create", path: in.Path, write: true}, false)
		}
	}
}

const pollEvery = 200 * time.Millisecond

func undoCreate(ctx context.Context, s steps.Session, in createIn, _ *createOut) error {
	var old before
	known, err := s.Before(&old)
	if err != nil {
		return err
	}
	c, err := Target().Session(ctx, s, "")
	if err != nil {
		return err
	}
	n, err := c.Node(ctx, in.Path)
	if err != nil {
		return err
	}
	same, err := in.same(n)
	switch {
	case err != nil:
		return err
	case !known:
		return steps.Errorf("precondition", "delete %s on %s: whether this step has created it is not known", in.Path, c.Addr())
	case !n.Exists || old.Exists:
		return nil
	case !same || n.Version != 0:
		return steps.Errorf("conflict", "delete %s on %s: somebody has changed it since (%s), it is left as it is", in.Path, c.Addr(), kindOf(n))
	case len(n.Children) > 0:
		return steps.Errorf("conflict", "delete %s on %s: it has children by now (%s, …), it is left as it is", in.Path, c.Addr(), n.Children[0])
	case in.Ephemeral && !c.owns(n):
		return nil // of a process that has died: it goes with its session
	}
	return c.Delete(ctx, in.Path, n.Version)
}
