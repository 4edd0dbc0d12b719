package pika

import (
	"context"
	"errors"
	"time"

	"runbook/internal/simulate/fault"
)

const faultForever = fault.Forever / 2 // so that it can be added to a time

// applier is one of the sync-thread-num threads that carry out what came over replication. Each is first in, first out;
// which one a write goes to is decided by its key alone. They do not ask whether the slot is still a replica: a write that
// was acknowledged is carried out also after `no one`, and takes back what a client wrote meanwhile. Nor do they ask whether
// the slot is still there: the first write for one that was deleted ends the process.
type applier struct {
	queue []task
	wake  chan struct{}
}

// task is one write, and the slot that it is for by name: it is looked up when the write is carried out.
type task struct {
	table string
	id    int
	args  []string
}

func (s *Server) queue(sl *slot, args []string) {
	key := args[min(1, len(args)-1)]
	a := s.appliers[threadOf(key, len(s.appliers))]
	a.queue = append(a.queue, task{sl.table.name, sl.id, args})
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// apply is the life of apply thread i.
func (s *Server) apply(ctx context.Context, i int, a *applier) {
	const batch = 64 // how many writes are carried out before others get the lock
	for ctx.Err() == nil {
		s.mu.Lock()
		wait, frozen := s.applyDelay[i], s.frozen
		for n := 0; n < batch && len(a.queue) > 0 && wait == 0 && frozen == nil && ctx.Err() == nil; n++ {
			s.applyOne(a)
		}
		empty := len(a.queue) == 0
		s.mu.Unlock()
		switch {
		case frozen != nil:
			select {
			case <-frozen:
			case <-ctx.Done():
			}
		case empty:
			select {
			case <-a.wake:
			case <-ctx.Done():
			}
		case wait > 0:
			s.applySlowly(ctx, i, a)
		}
	}
}

// applySlowly carries out one write that takes its time. The delay is read again now and then: a test may change it meanwhile.
func (s *Server) applySlowly(ctx context.Context, i int, a *applier) {
	for begun := s.clock.Now(); ; {
		s.mu.Lock()
		left := s.applyDelay[i] - s.clock.Now().Sub(begun)
		if left <= 0 && s.frozen == nil && len(a.queue) > 0 && ctx.Err() == nil {
			s.applyOne(a)
		}
		s.mu.Unlock()
		if left <= 0 || s.clock.Sleep(ctx, min(left, 50*time.Millisecond)) != nil {
			return
		}
	}
}

func (s *Server) applyOne(a *applier) {
	t := a.queue[0]
	if a.queue = a.queue[1:]; len(a.queue) == 0 {
		a.queue = nil
	}
	sl := s.slot(t.table, t.id)
	if sl == nil {
		s.die(errors.New("segmentation fault: a write for a slot that was deleted"))
		return
	}
	s.carryOutOn(sl, t.args)
}

// Unapplied is how many writes the apply threads have before them: acknowledged, and not to be seen yet.
func (s *Server) Unapplied() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.appliers {
		n += len(a.queue)
	}
	return n
}

// ApplyThread is the number of the apply thread that carries out what is written to key.
func (s *Server) ApplyThread(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return threadOf(key, len(s.appliers))
}
