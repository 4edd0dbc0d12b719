package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// The sessions of locks: one that outlasts whatever a busy machine does, and one whose end a test waits for.
const (
	lasting = 30 * time.Second
	brief   = 3 * time.Second
)

func (h *house) locker(addr string, session time.Duration) *Client {
	c := Open(Config{Addrs: []schema.Addr{schema.Addr(addr)}, Auth: schema.NewSecret(login), Chroot: h.chroot, Session: session}, steps.ReadWrite)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func wanted(run string) steps.LockRequest {
	return steps.LockRequest{Name: "codis/demo", Run: run, Holder: json.RawMessage(fmt.Sprintf(`{"run":%q}`, run))}
}

func claiming(run string) steps.LockRequest {
	r := wanted(run)
	r.Claim = true
	return r
}

func (h *house) lock(c *Client, req steps.LockRequest) steps.Lease {
	h.t.Helper()
	l, err := c.Lock(h.t.Context(), req)
	if err != nil {
		h.t.Fatalf("lock for %s: %v", req.Run, err)
	}
	h.t.Cleanup(func() { _ = l.Release(context.Background(), false) })
	return l
}

func (h *house) refused(c *Client, req steps.LockRequest, claimed bool, by string) {
	h.t.Helper()
	_, err := c.Lock(h.t.Context(), req)
	var held *steps.HeldError
	if !errors.As(err, &held) || held.Claimed != claimed || runOf(held.Holder) != by {
		h.t.Fatalf("lock for %s: %v (%+v), want it refused for %s, claimed %v", req.Run, err, held, by, claimed)
	}
}

func (h *house) release(l steps.Lease, keep bool) {
	h.t.Helper()
	if err := l.Release(h.t.Context(), keep); err != nil {
		h.t.Fatal(err)
	}
}

// onBoth runs a test on the real server and on the simulated one.
func onBoth(t *testing.T, f func(*testing.T, *house)) {
	t.Run("real", func(t *testing.T) { f(t, newHouse(t)) })
	t.Run("simulated", func(t *testing.T) { f(t, simulatedHouse(t)) })
}

func TestLockExcludes(t *testing.T) {
	onBoth(t, func(t *testing.T, h *house) {
		a, b := h.locker(h.direct, lasting), h.locker(h.direct, lasting)
		first := h.lock(a, wanted("r1"))
		if err := first.Confirm(t.Context(), json.RawMessage(`{"run":"r1","step":"move"}`)); err != nil {
			t.Fatal(err)
		}
		h.refused(b, wanted("r2"), false, "r1")
		h.refused(b, wanted("r1"), false, "r1") // another process of the same run, alive
		states, err := b.Locks(t.Context())
		if err != nil || len(states) != 1 || states[0].Name != "codis/demo" || !states[0].Live || states[0].Claim || !strings.Contains(string(states[0].Holder), "move") {
			t.Fatalf("locks: %+v, %v", states, err)
		}
		h.release(first, false)
		second := h.lock(b, wanted("r2"))
		if second.Fence() <= first.Fence() {
			t.Errorf("the fence of the second is %d, of the first %d", second.Fence(), first.Fence())
		}
		if err := first.Confirm(t.Context(), nil); err == nil {
			t.Error("a lease that was released is confirmed")
		}
	})
}

func TestLockClaim(t *testing.T) {
	onBoth(t, func(t *testing.T, h *house) {
		a, b := h.locker(h.direct, lasting), h.locker(h.direct, lasting)
		h.release(h.lock(a, claiming("r1")), true)
		h.refused(b, wanted("r2"), true, "r1")
		if states, err := b.Locks(t.Context()); err != nil || len(states) != 1 || states[0].Live || !states[0].Claim || runOf(states[0].Holder) != "r1" {
			t.Fatalf("locks: %+v, %v", states, err)
		}
		again := h.lock(a, claiming("r1"))
		h.refused(b, wanted("r2"), false, "r1")
		h.release(again, false)
		h.release(h.lock(b, wanted("r2")), false)
		if states, err := b.Locks(t.Context()); err != nil || len(states) != 0 {
			t.Fatalf("locks: %+v, %v", states, err)
		}
	})
}

func TestLockNames(t *testing.T) {
	for _, name := range []string{"codis/demo", "", ".", "..", "a b", "ä/%2F", `"`, "%", "lock-1", "a.b", "x\x00y"} {
		if got, err := unescape(escape(name)); got != name || err != nil || strings.ContainsAny(escape(name), "/\x00") || strings.Trim(escape(name), ".") == "" {
			t.Errorf("%q becomes %q, and %q again (%v)", name, escape(name), got, err)
		}
	}
}

// Of many who ask at once, one gets the lock at a time, and the fence grows.
func TestLockRace(t *testing.T) {
	h := newHouse(t)
	var mu sync.Mutex
	var holders, got int
	last := int64(0)
	var work sync.WaitGroup
	for i := range 6 {
		c := h.locker(h.direct, lasting)
		work.Go(func() {
			for range 12 {
				l, err := c.Lock(t.Context(), wanted(fmt.Sprintf("r%d", i)))
				if errors.As(err, new(*steps.HeldError)) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				holders++
				got++
				if holders != 1 || l.Fence() <= last {
					t.Errorf("%d hold the lock; fence %d after %d", holders, l.Fence(), last)
				}
				last = l.Fence()
				holders--
				mu.Unlock()
				if err := l.Release(context.Background(), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if got == 0 {
		t.Error("nobody ever got the lock")
	}
}

// A lease whose servers cannot be reached is lost before they give the lock to another one.
func TestLeaseLost(t *testing.T) {
	h := newHouse(t)
	l := h.lock(h.locker(h.relay.Addr(), brief), claiming("r1"))
	heal := h.relay.Partition()
	defer heal()
	if err := l.Confirm(t.Context(), json.RawMessage(`{"run":"r1"}`)); err == nil || l.Err() == nil {
		t.Fatalf("confirmed through a network that is cut: %v, %v", err, l.Err())
	}
	<-l.Lost()
	other := h.locker(h.direct, lasting)
	h.refused(other, wanted("r2"), false, "r1") // the server has not ended the session yet: the holder knows first
	h.await(func() bool {
		_, err := other.Lock(t.Context(), wanted("r2"))
		var held *steps.HeldError
		return errors.As(err, &held) && held.Claimed
	})
	next := h.lock(other, claiming("r1"))
	if next.Fence() <= l.Fence() {
		t.Errorf("fence %d after %d", next.Fence(), l.Fence())
	}
	heal()
	if err := l.Confirm(t.Context(), nil); err == nil {
		t.Error("a lost lease is confirmed when the network is back")
	}
	h.release(l, false) // it must not take away what the next one has claimed
	h.release(next, true)
	h.refused(other, wanted("r2"), true, "r1")
}

func (h *house) await(holds func() bool) {
	h.t.Helper()
	for limit := time.Now().Add(15 * time.Second); !holds(); {
		if time.Now().After(limit) {
			h.t.Fatal("it never happened")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A connection that is lost is not yet a lost lease: who wants to change something waits.
func TestLeaseWaits(t *testing.T) {
	h := newHouse(t)
	l := h.lock(h.locker(h.relay.Addr(), lasting), wanted("r1"))
	heal := h.relay.Partition()
	confirmed := make(chan error, 1)
	go func() { confirmed <- l.Confirm(t.Context(), json.RawMessage(`{"run":"r1","step":"next"}`)) }()
	select {
	case err := <-confirmed:
		t.Fatalf("confirmed with the network cut: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	heal()
	if err := <-confirmed; err != nil || l.Err() != nil {
		t.Fatalf("after a short cut: %v, %v", err, l.Err())
	}
	h.refused(h.locker(h.direct, lasting), wanted("r2"), false, "r1")
}

// A server that stands still for longer than the session has not given the lock away, and nobody can know.
func TestLeaseOfAFrozenServer(t *testing.T) {
	h := newHouse(t)
	l := h.lock(h.locker(h.direct, brief), wanted("r1"))
	thaw, err := shared.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer thaw()
	select {
	case <-l.Lost():
	case <-time.After(15 * time.Second):
		t.Fatal("never lost")
	}
}

// Who takes a run over from a process that has died waits for what is left of that.
func TestLockSuccessor(t *testing.T) {
	h := newHouse(t)
	h.lock(h.locker(h.relay.Addr(), brief), claiming("r1"))
	heal := h.relay.Partition()
	defer heal()
	other := h.locker(h.direct, lasting)
	h.refused(other, claiming("r1"), false, "r1")
	req := claiming("r1")
	req.Successor = true
	h.lock(other, req)
}

// A restart of the server within the session's time leaves the lease as it was.
func TestLeaseRestart(t *testing.T) {
	h := newHouse(t)
	l := h.lock(h.locker(h.direct, lasting), wanted("r1"))
	shared.Kill()
	confirmed := make(chan error, 1)
	go func() { confirmed <- l.Confirm(t.Context(), json.RawMessage(`{"run":"r1"}`)) }()
	shared.Start(t)
	if err := <-confirmed; err != nil || l.Err() != nil {
		t.Fatalf("after the restart: %v, %v", err, l.Err())
	}
	h.refused(h.locker(h.direct, lasting), wanted("r2"), false, "r1")
}
