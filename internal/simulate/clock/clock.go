// Package clock is the time of a simulated world. Every delay of a simulator (a full sync, a replica's lag, the end of a
// pause, a key's expiry) goes through one Clock, so that a rehearsal can run hours of waiting in seconds. In a
// testing/synctest bubble the real clock at speed 1 is the fake one, and nothing else is needed.
package clock

import (
	"context"
	"time"
)

// Clock tells the world's time and waits in it.
type Clock interface {
	// Now is the world's time. It goes on while nothing waits.
	Now() time.Time
	// Sleep waits d of the world's time, or until ctx is done and returns its cause then.
	Sleep(ctx context.Context, d time.Duration) error
	// AfterFunc runs f on its own goroutine after d of the world's time; stop reports whether it came in time.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// New gives a clock that begins now and goes speed times as fast as the real one. A speed of 0 means 1.
func New(speed float64) Clock {
	if speed <= 0 {
		speed = 1
	}
	return &scaled{start: time.Now(), speed: speed}
}

type scaled struct {
	start time.Time
	speed float64
}

func (c *scaled) Now() time.Time {
	if c.speed == 1 {
		return time.Now()
	}
	return c.start.Add(time.Duration(float64(time.Since(c.start)) * c.speed))
}

func (c *scaled) Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(c.real(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *scaled) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(c.real(d), f).Stop
}

func (c *scaled) real(d time.Duration) time.Duration { return time.Duration(float64(d) / c.speed) }
