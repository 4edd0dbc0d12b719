package codis

import (
	"context"

	"runbook/steps"
)

type groupIn struct {
	Group int `yaml:"group,required" doc:"Id of the group, 1 to 9999." min:"1" max:"9999"`
}

type createGroupOut struct {
	Group int `yaml:"group" doc:"Id of the group."`
}

// groupBefore is what putting a group back needs.
type groupBefore struct {
	Existed bool `json:"existed"`
}

func createGroup() *steps.Kind[groupIn, createGroupOut] {
	return &steps.Kind[groupIn, createGroupOut]{
		Name:       "codis.create-group",
		Doc:        "Makes a group without servers and slots. Sends PUT group/create.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: group, uses: codis.create-group, target: codis1, with: {group: 3}}`,
		Pitfalls: []string{
			"A group that was there before the step is left as it is, and the undo leaves it too.",
			"The undo removes an empty group alone: servers that were added since are a reason to stop, not to remove them.",
			"Rebalancing from elsewhere gives slots to every group that has a server, a brand-new one too: nobody else may use it while the runbook runs.",
		},
		Plan: func(ctx context.Context, v *steps.View, in groupIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{line(v, "group/create", groupWord(in.Group))}}
			if v == nil {
				return change, nil
			}
			_, stats, err := look(ctx, *v)
			if err != nil {
				return steps.Change{}, err
			}
			_, existed := stats.GroupByID(in.Group)
			change.Before = groupBefore{Existed: existed}
			return change, nil
		},
		Probe: func(ctx context.Context, v steps.View, in groupIn) (steps.State, createGroupOut, error) {
			_, stats, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, createGroupOut{}, err
			}
			if _, there := stats.GroupByID(in.Group); !there {
				return steps.Untouched, createGroupOut{}, nil
			}
			return steps.Done, createGroupOut(in), nil
		},
		Apply: func(ctx context.Context, s steps.Session, in groupIn) (createGroupOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return createGroupOut{}, err
			}
			if err := c.createGroup(ctx, in.Group); err != nil {
				return createGroupOut{}, err
			}
			return createGroupOut(in), nil
		},
		Undo: func(ctx context.Context, s steps.Session, in groupIn, _ *createGroupOut) error {
			var before groupBefore
			if has, err := s.Before(&before); err != nil || !has || before.Existed {
				return err
			}
			c, err := session(ctx, s)
			if err != nil {
				return err
			}
			return c.removeEmptyGroup(ctx, in.Group)
		},
		UndoPlan: func(in groupIn) string {
			return line(nil, "group/remove", groupWord(in.Group)).Command + ", while it is empty"
		},
	}
}

// createGroup makes a group, or finds that it is there.
func (c *Client) createGroup(ctx context.Context, group int) error {
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	if _, there := stats.GroupByID(group); there {
		return nil
	}
	return c.Put(ctx, "group/create", number(group))
}

// removeEmptyGroup removes a group, or finds that it is gone; one with servers or slots is refused.
func (c *Client) removeEmptyGroup(ctx context.Context, group int) error {
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	g, there := stats.GroupByID(group)
	if !there {
		return nil
	}
	if err := stats.unused(g); err != nil {
		return err
	}
	return c.Put(ctx, "group/remove", number(group))
}

// unused refuses a group that has a server or a slot.
func (s Stats) unused(g Group) error {
	if n := len(g.Servers); n > 0 {
		return steps.Precondition("remove group %d: it has %d servers, the first %s", g.ID, n, g.Master()).
			WithHint("codis.remove-server takes them out, replicas first")
	}
	if slots := s.slotsOf(g.ID); len(slots) > 0 {
		return steps.Precondition("remove group %d: slots %s belong to it or go there", g.ID, slots)
	}
	return nil
}
