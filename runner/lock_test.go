package runner

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"runbook/runner/journal"
	"runbook/steps"
)

// keeper is a target that keeps locks, and takes them away when a test says so.
type keeper struct {
	mu     sync.Mutex
	holder *keptLease
	claim  string // the run that has one
	fence  int64
	// acts are the fences under which something was confirmed
	acts []int64
}

type keptLease struct {
	k      *keeper
	fence  int64
	run    string
	claims bool
	lost   chan struct{}
	err    error
	holder json.RawMessage
}

func (k *keeper) Lock(_ context.Context, req steps.LockRequest) (steps.Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holder != nil {
		return nil, &steps.HeldError{Name: req.Name, Holder: k.holder.holder}
	}
	if k.claim != "" && k.claim != req.Run {
		return nil, &steps.HeldError{Name: req.Name, Holder: json.RawMessage(`{"run":"` + k.claim + `"}`), Claimed: true}
	}
	k.fence++
	k.holder = &keptLease{k: k, fence: k.fence, run: req.Run, claims: req.Claim, lost: make(chan struct{}), holder: req.Holder}
	if req.Claim {
		k.claim = req.Run
	}
	return k.holder, nil
}

func (k *keeper) Locks(context.Context) ([]steps.LockState, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := steps.LockState{Name: "a", Live: k.holder != nil, Claim: k.claim != ""}
	if k.claim != "" {
		s.Holder = json.RawMessage(`{"run":"` + k.claim + `"}`)
	}
	if !s.Live && !s.Claim {
		return nil, nil
	}
	return []steps.LockState{s}, nil
}

// expire ends the session of whoever holds the lock.
func (k *keeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.holder; l != nil {
		k.holder, l.err = nil, errors.New("lock a is lost: its session has ended")
		close(l.lost)
	}
}

func (l *keptLease) Fence() int64          { return l.fence }
func (l *keptLease) Lost() <-chan struct{} { return l.lost }

func (l *keptLease) Err() error {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	return l.err
}

func (l *keptLease) Confirm(_ context.Context, holder json.RawMessage) error {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	if l.err == nil && holder != nil {
		l.holder = holder
		l.k.acts = append(l.k.acts, l.fence)
	}
	return l.err
}

func (l *keptLease) Release(_ context.Context, keep bool) error {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	if l.k.holder == l {
		l.k.holder = nil
		if l.claims && !keep {
			l.k.claim = ""
		}
	}
	return nil
}

// keep gives the lab a target that keeps locks.
func (l *lab) keep() *keeper {
	k := &keeper{}
	l.w.kinds = append(l.w.kinds, (&steps.TargetKind[struct{}, *keeper]{
		Name: "keeper", Open: func(context.Context, struct{}, steps.Access) (*keeper, error) { return k, nil },
	}).Define())
	return k
}

const (
	keptBy = "\ntargets: {zk: {kind: keeper}}\nlock: {name: a, target: zk, hold: run}\n"
	kept   = bookHead + keptBy
)

// TestLockLostAtEveryRecord takes the lock away when a run writes its n-th record. The run
// ends so that it can be resumed, and comes to the end that an undisturbed one has.
func TestLockLostAtEveryRecord(t *testing.T) {
	for _, book := range []struct {
		name, text string
		end        Status
	}{{"forward", crashBook, Succeeded}, {"rollback", rollbackBook, RolledBack}} {
		t.Run(book.name, func(t *testing.T) {
			text := strings.Replace(book.text, bookHead, kept, 1)
			reference := newLab(t)
			reference.keep()
			reference.end(reference.exec(reference.program(text, "sub.yaml", crashSub)), book.end)
			want, total := reference.w.state(), len(reference.records)
			for at := 1; at < total; at++ {
				l := newLab(t)
				k := l.keep()
				seen, acts := 0, 0
				l.observe = func(journal.Record) {
					if seen++; seen == at {
						k.expire()
						l.w.mu.Lock()
						acts = len(l.w.log)
						l.w.mu.Unlock()
					}
				}
				r := l.exec(l.program(text, "sub.yaml", crashSub))
				l.observe = nil
				if r.Status != book.end && r.Status != Paused && r.Status != InDoubt {
					t.Fatalf("record %d: %s (%v)", at, r.Status, r.Err)
				}
				if more := len(l.w.log) - acts; more > 2 { // what was confirmed before, of two branches
					t.Errorf("record %d: %d acts after the lock was lost", at, more)
				}
				if r.Status != book.end {
					if k.claim == "" {
						t.Fatalf("record %d: %s, and the claim is gone", at, r.Status)
					}
					if r = l.resume(); r.Status != book.end {
						t.Fatalf("record %d: after the resume %s (%v)", at, r.Status, r.Err)
					}
				}
				if got := l.w.state(); got != want {
					t.Errorf("record %d: world %s, want %s\n%s", at, got, want, strings.Join(l.w.log, "\n"))
				}
				if k.holder != nil || k.claim != "" && r.Status != book.end {
					t.Errorf("record %d: the lock was not given back", at)
				}
				if !slices.IsSorted(k.acts) {
					t.Errorf("record %d: fences of what was confirmed: %v", at, k.acts)
				}
			}
		})
	}
}

// The lock is taken before anything is journaled, and a run that never began keeps no claim.
func TestLockIsGivenBackByARunThatDoesNotStart(t *testing.T) {
	l := newLab(t)
	k := l.keep()
	k.claim = "20261122-111450-00000000"
	p := l.program(kept + "steps:\n  - {id: a, uses: mem.set, with: {key: a, value: 1}}\n")
	inputs, _, err := p.BindInputs(GivenInputs{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Execute(t.Context(), l.config(), Request{Program: p, Inputs: inputs})
	var locked *journal.LockedError
	if !errors.As(err, &locked) || !locked.Claimed || locked.Target != "zk" || locked.Holder.Run != k.claim {
		t.Fatalf("%v, want it refused", err)
	}
	k.claim = ""
	l.store.Dir = "/dev/null/none"
	if _, err = Execute(t.Context(), l.config(), Request{Program: p, Inputs: inputs}); err == nil {
		t.Fatal("it ran without a state directory")
	}
	if k.holder != nil || k.claim != "" {
		t.Error("the lock was not given back")
	}
}
