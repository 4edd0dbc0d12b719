package codis

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"runbook/internal/simulate/resp"
)

const (
	betweenBatches = 10 * time.Millisecond
	whileDisabled  = time.Second
	asyncTimeout   = 5 * time.Second
	asyncBulks     = 200
	asyncBytes     = 32 << 20
	asyncKeys      = 500
)

// processSlotActions carries out what is queued, batch by batch. In a batch no two slots share a source or a target group.
func (t *topom) processSlotActions() error {
	for t.online() && t.gate.pass(t.ctx) {
		busy, batch := map[int]bool{}, map[int]bool{}
		for len(batch) < t.opts.ParallelSlots {
			picked, err := t.prepare(busy, batch)
			if err != nil {
				return err
			}
			if !picked {
				break
			}
		}
		if len(batch) == 0 {
			return nil
		}
		if err := t.migrateAll(batch); err != nil {
			return err
		}
		if !t.sleep(betweenBatches) {
			return nil
		}
	}
	return nil
}

// prepare picks the next slot that fits into the batch, one under way before one that is pending, and brings it to migrating: locked on
// all proxies first, then open with both groups.
func (t *topom) prepare(busy, batch map[int]bool) (picked bool, err error) {
	err = t.locked(func() error {
		m := t.next(busy, batch, func(m *SlotMapping) bool { return m.Action.State != pending })
		if m == nil && !t.disabled.Load() {
			m = t.next(busy, batch, func(m *SlotMapping) bool { return m.Action.State == pending })
		}
		if m == nil {
			return nil
		}
		picked = true
		if m.GroupID != 0 {
			busy[m.GroupID] = true
		}
		busy[m.Action.TargetID], batch[m.ID] = true, true
		return t.advance(m)
	})
	return picked, err
}

func (t *topom) next(busy, batch map[int]bool, wanted func(*SlotMapping) bool) *SlotMapping {
	var first *SlotMapping
	for _, m := range t.cache.slots {
		if m.Action.State == idle || !wanted(m) || first != nil && first.Action.Index < m.Action.Index {
			continue
		}
		if !busy[m.GroupID] && !busy[m.Action.TargetID] && !batch[m.ID] {
			first = m
		}
	}
	return first
}

func (t *topom) advance(m *SlotMapping) error {
	t.cache.dirtySlot(m.ID)
	if m.Action.State == pending {
		m.Action.State = preparing
		if err := t.saveSlot(m); err != nil {
			return err
		}
	}
	if m.Action.State == preparing {
		m.Action.State = prepared
		if err := t.push(m); err != nil {
			m.Action.State = preparing
			_ = t.push(m)
			return err
		}
		if err := t.saveSlot(m); err != nil {
			return err
		}
	}
	if m.Action.State == prepared {
		m.Action.State = migrating
		if err := t.push(m); err != nil {
			return err
		}
		return t.saveSlot(m)
	}
	return nil
}

// migrateAll waits for every slot of the batch. The last one to end has the word in progress.
func (t *topom) migrateAll(batch map[int]bool) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for sid := range batch {
		wg.Go(func() {
			err := t.migrate(sid)
			status := ""
			if err != nil {
				status = fmt.Sprintf("[ERROR] Slot[%04d]: %s", sid, err)
			}
			t.progress.Store(status)
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	return first
}

// migrate runs rounds until the source says that nothing remains, in any of its databases.
func (t *topom) migrate(sid int) error {
	db := 0
	for t.online() && t.gate.pass(t.ctx) {
		round, err := t.round(sid)
		if err != nil {
			return err
		}
		if round == nil {
			t.sleep(whileDisabled)
			continue
		}
		remain, next, err := round(db)
		if err != nil {
			return err
		}
		if remain == 0 && next == -1 {
			return t.complete(sid)
		}
		t.progress.Store(fmt.Sprintf("[OK] Slot[%04d]@DB[%d]=%d", sid, db, remain))
		if us := t.interval.Load(); us != 0 {
			t.sleep(time.Duration(us) * time.Microsecond)
		}
		db = next
	}
	return nil
}

// round gives what is to be done next for a slot, nil while nothing may be.
func (t *topom) round(sid int) (f func(db int) (remain, next int, err error), err error) {
	err = t.locked(func() error {
		m, err := t.slot(sid)
		if err != nil {
			return err
		}
		switch m.Action.State {
		case migrating:
			if t.disabled.Load() || t.promoting(m.GroupID) || t.promoting(m.Action.TargetID) {
				return nil
			}
			from, to := t.master(m.GroupID), t.master(m.Action.TargetID)
			t.executor.Add(1)
			f = func(db int) (int, int, error) {
				defer t.executor.Add(-1)
				return t.moveSome(sid, from, to, db)
			}
			return nil
		case finished:
			f = func(int) (int, int, error) { return 0, -1, nil }
			return nil
		}
		return tracef("slot-[%d] action state is invalid", sid)
	})
	return f, err
}

// moveSome asks the source's master to move keys. Of its answer only the second number counts: what remains. A source without servers has nothing.
func (t *topom) moveSome(sid int, from, to string, db int) (remain, next int, err error) {
	if from == "" {
		return 0, -1, nil
	}
	ctx, cancel := t.within(t.ctx, t.opts.MigrationTimeout)
	defer cancel()
	c, err := t.pool.get(ctx, from)
	if err != nil {
		return 0, -1, err
	}
	defer func() { t.pool.put(c, err) }()
	if err := c.selectDB(ctx, db); err != nil {
		return 0, -1, err
	}
	host, port, err := splitAddr(to)
	if err != nil {
		return 0, -1, trace(err)
	}
	cmd := []string{"SLOTSMGRTTAGSLOT", host, port, millis(t.opts.MigrationTimeout), strconv.Itoa(sid)}
	if t.opts.MigrationMethod == semiAsync {
		cmd = []string{
			"SLOTSMGRTTAGSLOT-ASYNC", host, port, millis(min(asyncTimeout, t.opts.MigrationTimeout)),
			strconv.Itoa(asyncBulks), strconv.Itoa(asyncBytes), strconv.Itoa(sid), strconv.Itoa(asyncKeys),
		}
	}
	v, err := c.do(ctx, cmd...)
	if err != nil {
		return 0, -1, err
	}
	n, ok := numbers(v)
	if !ok || len(n) != 2 {
		err = tracef("invalid response = %s", v)
		return 0, -1, err
	}
	if n[1] != 0 {
		return n[1], db, nil
	}
	next, err = c.nextDB(ctx, db)
	return 0, next, err
}

func (t *topom) complete(sid int) error {
	return t.locked(func() error {
		m, err := t.slot(sid)
		if err != nil {
			return err
		}
		t.cache.dirtySlot(sid)
		switch m.Action.State {
		case migrating:
			m.Action.State = finished
			if err := t.saveSlot(m); err != nil {
				return err
			}
		case finished:
		default:
			return tracef("slot-[%d] action state is invalid", sid)
		}
		if err := t.push(m); err != nil {
			return err
		}
		return t.saveSlot(&SlotMapping{ID: sid, GroupID: m.Action.TargetID})
	})
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// numbers reads an array of integers; a number may come as text.
func numbers(v resp.Value) ([]int, bool) {
	if v.Kind != resp.Array {
		return nil, false
	}
	out := make([]int, len(v.Items))
	for i, it := range v.Items {
		n, err := strconv.Atoi(it.String())
		if err != nil || it.Kind != resp.Int && it.Kind != resp.Bulk {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}
