package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// A world may begin with a master that has died: its replicas have what it had sent by then, some of them less than others.

func (w *World) checkDown(s *system) error {
	switch spec := s.spec; {
	case spec.Down && (spec.Absent || spec.ReplicaOf != ""):
		return errors.New("down is of a master that was there")
	case spec.Behind < 0:
		return fmt.Errorf("behind: %d", spec.Behind)
	case spec.Behind > 0 && !w.spec.Systems[spec.ReplicaOf].Down:
		return errors.New("behind is of a replica whose master is down: any other catches up")
	case (spec.Down || spec.Behind > 0) && !sharding(spec):
		return errors.New("down and behind are of mode sharding")
	}
	return nil
}

// takeDown ends the processes of those that begin as dead.
func (w *World) takeDown(ctx context.Context) error {
	for _, name := range w.names("pika") {
		if s := w.systems[name]; s.spec.Down {
			ctx, cancel := context.WithTimeoutCause(ctx, settleLimit, fmt.Errorf("its replicas were not as the world file says within %s", settleLimit))
			err := w.lastWrites(ctx, s)
			cancel()
			if err != nil {
				return fmt.Errorf("system %s: %w", name, err)
			}
		}
	}
	return nil
}

// lastWrites has a master take its last writes and die. A replica gets all but as many of them as it is behind.
func (w *World) lastWrites(ctx context.Context, s *system) error {
	master := w.Pika(s.name)
	var replicas []*system
	for _, name := range w.names("pika") {
		if r := w.systems[name]; r.spec.ReplicaOf == s.name {
			replicas = append(replicas, r)
		}
	}
	slices.SortFunc(replicas, func(a, b *system) int { return cmp.Compare(b.spec.Behind, a.spec.Behind) })
	written := 0
	for i, r := range replicas {
		if err := w.hasAll(ctx, s, r); err != nil {
			return err
		}
		least := 0
		if i+1 < len(replicas) {
			least = replicas[i+1].spec.Behind
		}
		if r.spec.Behind > 0 {
			w.pikas.Cut(master, w.Pika(r.name))
		}
		for range r.spec.Behind - least {
			for {
				key := fmt.Sprintf("late:%06d", written)
				if written++; master.HasSlot(slotOf(key, w.slotNum(s.name))) {
					master.Do("SET", key, "written last")
					break
				}
			}
		}
	}
	master.Stop()
	for _, r := range replicas {
		w.pikas.Mend(master, w.Pika(r.name))
	}
	return nil
}

// hasAll waits until a replica has what its master has.
func (w *World) hasAll(ctx context.Context, s, r *system) error {
	slots, err := parseSlots(r.spec.Slots, w.slotNum(r.name))
	if err != nil {
		return err
	}
	return w.until(ctx, func() bool {
		return inStep(copies(w.Pika(s.name)), copies(w.Pika(r.name)), slots, w.Pika(r.name).Announced())
	})
}
