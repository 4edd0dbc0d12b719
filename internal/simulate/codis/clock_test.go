package codis_test

import (
	"context"
	"sync"
	"time"
)

// hand is a clock that a test moves by hand: what the simulator does by itself happens when the test says so.
type hand struct {
	mu    sync.Mutex
	now   time.Time
	tasks map[*task]bool
}

type task struct {
	at time.Time
	f  func()
}

func newHand() *hand { return &hand{now: time.Now(), tasks: map[*task]bool{}} }

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	over := make(chan struct{})
	defer h.AfterFunc(d, func() { close(over) })()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *hand) AfterFunc(d time.Duration, f func()) func() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &task{h.now.Add(d), f}
	h.tasks[t] = true
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		was := h.tasks[t]
		delete(h.tasks, t)
		return was
	}
}

// advance lets d pass.
func (h *hand) advance(d time.Duration) {
	h.mu.Lock()
	h.now = h.now.Add(d)
	var due []func()
	for t := range h.tasks {
		if !t.at.After(h.now) {
			due = append(due, t.f)
			delete(h.tasks, t)
		}
	}
	h.mu.Unlock()
	for _, f := range due {
		f()
	}
}
