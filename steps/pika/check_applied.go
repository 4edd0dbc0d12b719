package pika

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type checkAppliedIn struct {
	Slots   schema.Slots      `yaml:"slots,required" doc:"Slots of the target, which is their master. Nobody may write to them meanwhile."`
	Replica schema.TargetName `yaml:"replica,required" doc:"Pika target that follows them."`
}

type checkAppliedOut struct {
	Applied bool `yaml:"applied" doc:"true: the replica has received and applied all that the slots had when the step began. Otherwise the step waits, up to its timeout."`
	Threads int  `yaml:"threads" doc:"How many threads of the replica were looked through." min:"0"`
}

// checkApplied is for a cut-over whose writers are held by something else than Codis: codis.switch-slot does this itself.
func checkApplied() *steps.Kind[checkAppliedIn, checkAppliedOut] {
	return &steps.Kind[checkAppliedIn, checkAppliedOut]{
		Name: "pika.check-applied",
		Doc: "Waits until a replica has not only received but applied what its master has. Waits for lag 0 and equal offsets in every slot, then sends one marker key for each of the " +
			"replica's apply threads through replication (SET on the master, GET on the replica, DEL on the master), and waits for lag 0 again.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: applied, uses: pika.check-applied, target: pika1, with: {slots: "1", replica: pika5}}`,
		Pitfalls: []string{
			"A lag of 0 says that the replica has the binlog. It applies it later, in sync-thread-num threads, and goes on with that after it was detached: a write that is answered by the new master meanwhile is undone by an older one.",
			"It proves nothing while clients write: stop them first.",
			"Nothing is left to be found afterwards, so the probe cannot tell whether it was done; a repetition is harmless.",
		},
		NothingToUndo: true,
		Valid: func(in checkAppliedIn, unknown func(string) bool) []steps.Problem {
			return validSlots(in.Slots, 0, unknown)
		},
		Plan: func(_ context.Context, v *steps.View, in checkAppliedIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{{Target: own(v), Command: fmt.Sprintf("SET {tag}__runner_marker:N, one for each apply thread of %s; DEL", in.Replica)}}}, nil
		},
		Probe: probeCheckApplied,
		Apply: applyCheckApplied,
	}
}

// probeCheckApplied finds markers that were left over; that a check has ended well nobody can see.
func probeCheckApplied(ctx context.Context, v steps.View, in checkAppliedIn) (steps.State, checkAppliedOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, checkAppliedOut{}, err
	}
	replica, err := view(ctx, v, in.Replica)
	if err != nil {
		return steps.Unclear, checkAppliedOut{}, err
	}
	number, err := c.slotNumber(ctx)
	if err != nil {
		return steps.Unclear, checkAppliedOut{}, err
	}
	threads, err := replica.SyncThreads(ctx)
	if err != nil {
		return steps.Unclear, checkAppliedOut{}, err
	}
	for _, key := range MarkerKeys(in.Slots[0], number, threads) {
		value, err := c.text(ctx, "GET", key)
		if err != nil {
			return steps.Unclear, checkAppliedOut{}, err
		}
		if value != "" {
			return steps.Partial, checkAppliedOut{}, nil
		}
	}
	return steps.Unclear, checkAppliedOut{}, nil
}

// appliedPoll lies between two questions while writers are held.
const appliedPoll = 5 * time.Millisecond

func applyCheckApplied(ctx context.Context, s steps.Session, in checkAppliedIn) (out checkAppliedOut, err error) {
	c, err := session(ctx, s)
	if err != nil {
		return out, err
	}
	replica, err := view(ctx, s.View, in.Replica)
	if err != nil {
		return out, err
	}
	if out.Threads, err = replica.SyncThreads(ctx); err != nil {
		return out, err
	}
	number, err := c.slotNumber(ctx)
	if err != nil {
		return out, err
	}
	if err := c.waitLevel(ctx, s.View, replica, in.Slots); err != nil {
		return out, err
	}
	keys := MarkerKeys(in.Slots[0], number, out.Threads)
	value := strconv.FormatInt(s.Now().UnixNano(), 36)
	if err := c.WriteMarkers(ctx, keys, value); err != nil {
		return out, err
	}
	for out.Applied = false; !out.Applied; {
		if out.Applied, err = replica.HasMarkers(ctx, keys, value); err == nil && !out.Applied {
			err = s.Sleep(ctx, appliedPoll)
		}
		if err != nil {
			return out, err
		}
	}
	if err := c.RemoveMarkers(ctx, keys); err != nil {
		return out, err
	}
	return out, c.waitLevel(ctx, s.View, replica, in.Slots)
}

// waitLevel returns when the replica has every byte of the slots.
func (c *Client) waitLevel(ctx context.Context, v steps.View, replica *Client, slots schema.Slots) error {
	for {
		why, err := c.unlike(ctx, replica, slots)
		if err != nil || why == "" {
			return err
		}
		if err := v.Sleep(ctx, appliedPoll); err != nil {
			return fmt.Errorf("%s: %w", why, err)
		}
	}
}

// unlike says which slot the replica does not have in full; empty: it has all.
func (c *Client) unlike(ctx context.Context, replica *Client, slots schema.Slots) (string, error) {
	ours, err := c.Slots(ctx, slots)
	if err != nil {
		return "", err
	}
	theirs, err := replica.Slots(ctx, slots)
	if err != nil {
		return "", err
	}
	for i, s := range ours {
		r, listed := s.Replica(replica.Addr())
		switch {
		case !listed || r.Status != BinlogSync || r.Lag == nil || theirs[i].State != StateConnected:
			return fmt.Sprintf("slot %d: %s is not a replica of %s in step", s.ID, replica.Addr(), c.Addr()), nil
		case *r.Lag != 0 || theirs[i].Offset != s.Offset:
			return fmt.Sprintf("slot %d: %s is at %s, %s at %s", s.ID, replica.Addr(), theirs[i].Offset, c.Addr(), s.Offset), nil
		}
	}
	return "", nil
}
