package codis

import (
	"cmp"
	"maps"
	"slices"
)

// rebalance plans which slots go where so that every group with servers has as many as the others, and queues the moves where
// confirm says so. A group that was added a moment ago for another purpose is filled too.
func (t *topom) rebalance(confirm bool) (plan map[int]int, err error) {
	err = t.locked(func() error {
		var groups []int
		for _, g := range t.sortedGroups() {
			if len(g.Servers) > 0 {
				groups = append(groups, g.ID)
			}
		}
		if len(groups) == 0 {
			return tracef("no valid group could be found")
		}
		plan = t.plan(groups)
		if !confirm {
			return nil
		}
		for _, sid := range slices.Sorted(maps.Keys(plan)) {
			if err := t.queue(t.cache.slots[sid], plan[sid]); err != nil {
				return err
			}
		}
		return nil
	})
	return plan, err
}

// balance is what is known of one group while planning.
type balance struct {
	gid   int
	fixed int   // slots that stay: the group's fair share, and those that are on their way to it
	spare []int // slots that may go
	out   int   // how many go; negative where as many come
}

func (b *balance) size() int { return b.fixed + len(b.spare) - b.out }

func (t *topom) plan(groups []int) map[int]int {
	low, high := SlotCount/len(groups), (SlotCount+len(groups)-1)/len(groups)
	of := map[int]*balance{}
	at := func(gid int) *balance {
		if of[gid] == nil {
			of[gid] = &balance{gid: gid}
		}
		return of[gid]
	}
	var homeless []int
	for _, m := range t.cache.slots {
		if m.Action.State != idle {
			at(m.Action.TargetID).fixed++
		}
	}
	for _, m := range t.cache.slots {
		switch b := at(m.GroupID); {
		case m.Action.State != idle:
		case m.GroupID == 0:
			homeless = append(homeless, m.ID)
		case b.size() < low:
			b.fixed++
		default:
			b.spare = append(b.spare, m.ID)
		}
	}
	// The groups that take part, the smallest first; of equal ones the lower number.
	var in []*balance
	for _, gid := range groups {
		in = append(in, at(gid))
	}
	bySize := func(a, b *balance) int {
		return cmp.Or(cmp.Compare(a.size(), b.size()), cmp.Compare(a.gid, b.gid))
	}
	for range homeless {
		slices.MinFunc(in, bySize).out--
	}
	for len(in) >= 2 {
		from, to := slices.MaxFunc(in, bySize), slices.MinFunc(in, bySize)
		if len(from.spare) == from.out {
			in = slices.DeleteFunc(in, func(b *balance) bool { return b == from })
			continue
		}
		if from.size() <= low || to.size() >= high || from.size()-to.size() <= 1 {
			break
		}
		from.out++
		to.out--
	}
	moving := homeless
	for _, b := range of {
		if b.out > 0 {
			moving = append(moving, b.spare[len(b.spare)-b.out:]...) // the highest numbers go
		}
	}
	slices.Sort(moving)
	plan := map[int]int{}
	for _, gid := range groups {
		for range max(0, -of[gid].out) {
			if len(moving) > 0 {
				plan[moving[0]], moving = gid, moving[1:]
			}
		}
	}
	return plan
}
