package codis

import (
	"context"

	"runbook/steps"
)

type removeGroupOut struct {
	Present bool `yaml:"present" doc:"The group exists: false."`
}

func removeGroup() *steps.Kind[groupIn, removeGroupOut] {
	return &steps.Kind[groupIn, removeGroupOut]{
		Name:       "codis.remove-group",
		Doc:        "Removes a group that has neither servers nor slots. Sends PUT group/remove.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: tidy, uses: codis.remove-group, target: codis1, with: {group: 3}}`,
		Pitfalls: []string{
			"A group with a server or a slot is refused: move the slots and take the servers out first.",
			"The undo makes an empty group of that id again; servers it had were taken out by other steps, which have an undo of their own.",
		},
		Check: func(ctx context.Context, v steps.View, in groupIn) error {
			_, stats, err := look(ctx, v)
			if err != nil {
				return err
			}
			if g, there := stats.GroupByID(in.Group); there {
				return stats.unused(g)
			}
			return nil
		},
		Plan: func(ctx context.Context, v *steps.View, in groupIn) (steps.Change, error) {
			change := steps.Change{Lines: []steps.Line{line(v, "group/remove", groupWord(in.Group))}}
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
		Probe: func(ctx context.Context, v steps.View, in groupIn) (steps.State, removeGroupOut, error) {
			_, stats, err := look(ctx, v)
			if err != nil {
				return steps.Unclear, removeGroupOut{}, err
			}
			if _, there := stats.GroupByID(in.Group); there {
				return steps.Untouched, removeGroupOut{}, nil
			}
			return steps.Done, removeGroupOut{}, nil
		},
		Apply: func(ctx context.Context, s steps.Session, in groupIn) (removeGroupOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return removeGroupOut{}, err
			}
			return removeGroupOut{}, c.removeEmptyGroup(ctx, in.Group)
		},
		Undo: func(ctx context.Context, s steps.Session, in groupIn, _ *removeGroupOut) error {
			var before groupBefore
			if has, err := s.Before(&before); err != nil || !has || !before.Existed {
				return err
			}
			c, err := session(ctx, s)
			if err != nil {
				return err
			}
			return c.createGroup(ctx, in.Group)
		},
		UndoPlan: func(in groupIn) string { return line(nil, "group/create", groupWord(in.Group)).Command },
	}
}
