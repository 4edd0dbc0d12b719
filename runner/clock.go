package runner

import (
	"context"
	"time"
)

// realClock is the clock of the world outside.
type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, d) }

func (realClock) WithTimeout(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, cause)
}

// FastClock runs Speed times as fast as the world outside: an hour of waiting is
// 3600/Speed seconds. For the sandbox, where nothing outside keeps the other time.
type FastClock struct {
	Start time.Time
	Speed float64
}

// Now is Start plus the time passed since, made longer by Speed.
func (c FastClock) Now() time.Time {
	return c.Start.Add(time.Duration(float64(time.Since(c.Start)) * c.Speed))
}

// Sleep waits d of this clock's time.
func (c FastClock) Sleep(ctx context.Context, d time.Duration) error {
	return sleep(ctx, c.outside(d))
}

// WithTimeout ends the context after d of this clock's time.
func (c FastClock) WithTimeout(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.outside(d), cause)
}

func (c FastClock) outside(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.Speed)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
