package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"runbook/runner/journal"
	"runbook/steps"
)

// LockPlace is a target that keeps locks, as a runbook declares it.
type LockPlace struct {
	Program *Program
	Inputs  *Inputs
	Target  string // empty: that of the runbook's own lock
}

// LockInfo is a lock that is held or claimed.
type LockInfo struct {
	Name   string         `json:"name"`
	Target string         `json:"target,omitempty"` // that keeps it; absent: it is a file in the state directory
	Live   bool           `json:"live"`             // a process holds it
	Claim  bool           `json:"claim"`            // it is kept for its run until that is over
	Holder journal.Holder `json:"holder"`
}

// Locks gives the locks of the state directory and, where a place is given, those that
// its target keeps.
func Locks(ctx context.Context, cfg Config, at *LockPlace) ([]LockInfo, error) {
	cfg = cfg.withDefaults()
	files, err := cfg.Store.Locks()
	if err != nil {
		return nil, err
	}
	list := []LockInfo{}
	for _, f := range files {
		if f.Held || f.Holder.Claim { // not what a dead process left
			list = append(list, LockInfo{Name: f.Name, Live: f.Held, Claim: f.Holder.Claim, Holder: f.Holder})
		}
	}
	slices.SortFunc(list, func(a, b LockInfo) int { return cmp.Compare(a.Name, b.Name) })
	if at == nil {
		return list, nil
	}
	err = at.with(ctx, cfg, func(locker steps.Locker, target string) error {
		kept, err := locker.Locks(ctx)
		for _, s := range kept {
			info := LockInfo{Name: s.Name, Target: target, Live: s.Live, Claim: s.Claim}
			_ = json.Unmarshal(s.Holder, &info.Holder) // what is no holder is shown as one without a name
			list = append(list, info)
		}
		return err
	})
	return list, err
}

// with connects to the place.
func (at *LockPlace) with(ctx context.Context, cfg Config, use func(l steps.Locker, target string) error) error {
	target := at.Target
	if decl := at.Program.Root.Book.Lock; target == "" && decl != nil {
		target = decl.Target.Value
	}
	if target == "" {
		return unfit("--target NAME", "%s has no lock on a target: its locks are files in the state directory", at.Program.Root.Book.Path)
	}
	if declared := at.Program.target(target); declared == nil || declared.Kind == nil || !declared.Kind.Locks {
		return unfit("a target of kind zookeeper does", "%s has no target %s that keeps locks", at.Program.Root.Book.Path, target)
	}
	x, err := newRun(ctx, cfg, at.Program, Selection{}, "")
	if err != nil {
		return err
	}
	defer x.pool.closeAll()
	x.past, _ = readPast(nil)
	fr, err := x.root(at.Inputs, at.Program, "", cfg.Clock.Now())
	if err != nil {
		return &UsageError{Err: err}
	}
	locker, err := x.locker(ctx, fr, target)
	if err == nil {
		err = use(locker, target)
	}
	if err == nil || errors.As(err, new(*journal.LockedError)) || errors.As(err, new(*UsageError)) {
		return err
	}
	return unreached(x.mask.Error(err))
}

func (p *Program) target(name string) *Target {
	for _, t := range p.Root.Targets {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// LockReleased is the body of lock-released: a person has taken away the claim of a run that no process works on.
type LockReleased struct {
	Lock   string `json:"lock"`
	Target string `json:"target,omitempty"`
	Reason string `json:"reason"`
	*Person
}

// ReleasedLock tells what ReleaseLock has done.
type ReleasedLock struct {
	Name      string `json:"released"`
	Target    string `json:"target,omitempty"`
	Run       string `json:"run"`       // whose claim it was
	Journaled bool   `json:"journaled"` // in that run; false: its journal is not in this state directory
}

// ReleaseLock takes away the claim of a run that is not over. A *journal.LockedError says
// that a process holds the lock, or works on the run: only a claim is released, never what
// somebody has. It is done by taking the lock in the name of that run, so that the run
// cannot go on with it meanwhile.
func ReleaseLock(ctx context.Context, cfg Config, at *LockPlace, name, reason string) (*ReleasedLock, error) {
	cfg = cfg.withDefaults()
	if strings.TrimSpace(reason) == "" {
		return nil, unfit("--reason TEXT", "to release a claim needs a reason: it is journaled in the run that it is of")
	}
	if at != nil {
		var done *ReleasedLock
		err := at.with(ctx, cfg, func(locker steps.Locker, target string) (err error) {
			done, err = releaseOn(ctx, cfg, locker, target, name, reason)
			return err
		})
		return done, err
	}
	holder, live, err := journal.Inspect(cfg.Store.LockPath(name))
	if err != nil {
		return nil, err
	}
	if err := releasable(&journal.LockedError{Path: cfg.Store.LockPath(name), Name: name, Holder: holder, Claimed: holder.Claim && !live}, live); err != nil {
		return nil, err
	}
	done := &ReleasedLock{Name: name, Run: holder.Run}
	return done, done.journaled(cfg, reason, func(h journal.Holder, note func() error) error {
		held, err := cfg.Store.Lock(name, h)
		if err != nil {
			return err
		}
		if err := note(); err != nil {
			return errors.Join(err, held.Keep())
		}
		return held.Release()
	})
}

func releaseOn(ctx context.Context, cfg Config, locker steps.Locker, target, name, reason string) (*ReleasedLock, error) {
	states, err := locker.Locks(ctx)
	if err != nil {
		return nil, err
	}
	var state steps.LockState
	for _, s := range states {
		if s.Name == name {
			state = s
		}
	}
	locked := &journal.LockedError{Name: name, Target: target, Claimed: state.Claim && !state.Live}
	_ = json.Unmarshal(state.Holder, &locked.Holder) // what is no holder is shown as one without a name
	if err := releasable(locked, state.Live); err != nil {
		return nil, err
	}
	done := &ReleasedLock{Name: name, Target: target, Run: locked.Holder.Run}
	return done, done.journaled(cfg, reason, func(h journal.Holder, note func() error) error {
		raw, err := json.Marshal(h)
		if err != nil {
			return err
		}
		lease, err := locker.Lock(ctx, steps.LockRequest{Name: name, Run: h.Run, Holder: raw, Claim: true})
		if err != nil {
			return onTarget(err, target)
		}
		if err := note(); err != nil {
			return errors.Join(err, lease.Release(ctx, true))
		}
		return lease.Release(ctx, false)
	})
}

func releasable(l *journal.LockedError, live bool) error {
	switch {
	case live:
		return l
	case !l.Claimed:
		return unfit("runner lock list", "lock %s is neither held nor claimed: there is nothing to release", l.Name)
	}
	return nil
}

// journaled releases a claim, and journals that in its run, which must not be under way.
func (r *ReleasedLock) journaled(cfg Config, reason string, release func(h journal.Holder, note func() error) error) error {
	op := cfg.Operator
	h := journal.Holder{Operator: op.Name, Host: op.Host, PID: op.PID, Run: r.Run, Since: cfg.Clock.Now(), Claim: true}
	run, err := cfg.Store.Find(r.Run)
	if err != nil || run.ID != r.Run { // of another state directory, or removed
		return release(h, func() error { return nil })
	}
	held, err := journal.Lock(run.LockPath(), journal.Holder{Operator: op.Name, Host: op.Host, PID: op.PID, Run: r.Run, Since: h.Since})
	if err != nil {
		return err
	}
	defer held.Release()
	options := cfg.Journal
	if options.Now == nil {
		options.Now = cfg.Clock.Now
	}
	return release(h, func() error {
		j, _, err := journal.Open(run.JournalPath(), options)
		if err != nil {
			return fmt.Errorf("journal the release in run %s: %w", r.Run, err)
		}
		_, err = j.Commit(recLockReleased, "", &LockReleased{Lock: r.Name, Target: r.Target, Reason: reason, Person: op.person()})
		r.Journaled = err == nil
		return errors.Join(err, j.Close())
	})
}
