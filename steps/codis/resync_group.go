package codis

import (
	"context"
	"slices"

	"runbook/steps"
)

type resyncGroupOut struct {
	Group     int  `yaml:"group" doc:"Id of the group."`
	OutOfSync bool `yaml:"out_of_sync" doc:"The dashboard still holds it for out of sync: false."`
}

func resyncGroup() *steps.Kind[groupIn, resyncGroupOut] {
	return &steps.Kind[groupIn, resyncGroupOut]{
		Name:       "codis.resync-group",
		Doc:        "Has the dashboard push every slot of a group to every proxy again, which clears the mark out_of_sync that assigning slots leaves. Sends PUT group/resync.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: in_sync, uses: codis.resync-group, target: codis1, with: {group: 3}}`,
		Pitfalls: []string{
			"The push opens every slot of the group that is held at a proxy, with the mapping of before the switch: it is refused while one is held.",
			"One registered proxy that does not answer makes it fail for all: it is refused then, and says which.",
			"Nothing resyncs by itself: the mark stays until somebody asks.",
		},
		Check: checkResyncGroup,
		Plan: func(_ context.Context, v *steps.View, in groupIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{line(v, "group/resync", groupWord(in.Group))}}, nil
		},
		Probe: probeResyncGroup,
		Apply: func(ctx context.Context, s steps.Session, in groupIn) (resyncGroupOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return resyncGroupOut{}, err
			}
			if err := checkResyncGroup(ctx, s.View, in); err != nil { // a hold may have begun since the check
				return resyncGroupOut{}, err
			}
			if err := c.Put(ctx, "group/resync", number(in.Group)); err != nil {
				return resyncGroupOut{}, err
			}
			return resyncGroupOut{Group: in.Group}, nil
		},
		NothingToUndo: true,
	}
}

func checkResyncGroup(ctx context.Context, v steps.View, in groupIn) error {
	c, stats, err := look(ctx, v)
	if err != nil {
		return err
	}
	g, err := stats.needGroup(in.Group)
	if err != nil {
		return err
	}
	if g.Promoting.State != "" {
		return steps.Precondition("resync group %d: it is being promoted (%s)", g.ID, g.Promoting.State)
	}
	routings, err := c.allRoutings(ctx, stats.Proxy.Models)
	if err != nil {
		return err
	}
	return notHeld(routings, stats.slotsOf(g.ID), "resync group "+number(g.ID))
}

func probeResyncGroup(ctx context.Context, v steps.View, in groupIn) (steps.State, resyncGroupOut, error) {
	c, stats, err := look(ctx, v)
	if err != nil {
		return steps.Unclear, resyncGroupOut{}, err
	}
	g, there := stats.GroupByID(in.Group)
	if !there || g.OutOfSync {
		return steps.Untouched, resyncGroupOut{}, nil
	}
	wanted, err := c.Slots(ctx)
	if err != nil {
		return steps.Unclear, resyncGroupOut{}, err
	}
	routings := c.Routings(ctx, stats.Proxy.Models)
	if ctx.Err() != nil {
		return steps.Unclear, resyncGroupOut{}, context.Cause(ctx)
	}
	slots := stats.slotsOf(g.ID)
	if slices.ContainsFunc(routings, func(r Routing) bool { return r.Err != nil || len(r.differs(wanted, slots)) > 0 }) {
		return steps.Partial, resyncGroupOut{}, nil
	}
	return steps.Done, resyncGroupOut{Group: g.ID}, nil
}
