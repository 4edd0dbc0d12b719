package steps

import (
	"context"
	"encoding/json"
	"fmt"
)

// Locker is what the client of a target offers that keeps locks: two runners anywhere, that both reach the
// target, exclude each other. A target kind whose client implements it may stand in lock.target.
type Locker interface {
	// Lock takes a lock, or says by a *HeldError at once who has it. ctx bounds the taking, not the lease.
	Lock(ctx context.Context, req LockRequest) (Lease, error)
	// Locks gives the locks that are held or claimed, by name.
	Locks(ctx context.Context) ([]LockState, error)
}

// LockRequest says which lock is wanted, by whom.
type LockRequest struct {
	Name   string          // of the thing, such as codis/demo
	Run    string          // the run it is for: a claim of the same run is no obstacle
	Holder json.RawMessage // who that is, for people: what a HeldError of others will show
	// Claim leaves a mark beside the lock, which keeps other runs out after the lease has ended, until Release takes it away.
	Claim bool
	// Successor: the processes that have taken this lock for this run before are known to be dead. What is
	// left of them is waited for, as long as the target keeps it.
	Successor bool
}

// Lease is a lock that is held until Release, or until it is lost: the target has not been heard for so long that it
// may have given the lock away.
type Lease interface {
	// Fence is greater than that of every earlier lease of the lock.
	Fence() int64
	// Confirm returns nil when the lease is good, and stays so for half of its term even if nothing is heard of the
	// target from here on. It waits while the target cannot be reached and the lease may still be good. A holder is
	// written into the lock, which asks the target in any case; nil leaves what is there. The error is that of ctx, or Err.
	Confirm(ctx context.Context, holder json.RawMessage) error
	// Lost is closed when the lease is lost, a quarter of its term before the target can give the lock away.
	Lost() <-chan struct{}
	// Err says why it is lost; nil: it is not.
	Err() error
	// Release gives the lock back, at the latest when its term is over. keep leaves the claim.
	Release(ctx context.Context, keep bool) error
}

// LockState is a lock as a target shows it.
type LockState struct {
	Name   string
	Holder json.RawMessage // of the live lease, or else of the claim
	Live   bool            // a lease of it is good
	Claim  bool            // a claim stands
}

// HeldError says that a lock is somebody else's.
type HeldError struct {
	Name    string
	Holder  json.RawMessage
	Claimed bool // nobody holds it now: it is claimed
}

// Error says which lock, and what its holder has written into it.
func (e *HeldError) Error() string { return fmt.Sprintf("lock %s is held by %s", e.Name, e.Holder) }
