package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"runbook/internal/simulate/clock"
)

func TestSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, begun := clock.New(100), time.Now()
		world := c.Now()
		if err := c.Sleep(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if outside, inside := time.Since(begun), c.Now().Sub(world); outside != 36*time.Second || inside != time.Hour {
			t.Errorf("an hour inside took %s outside and %s inside", outside, inside)
		}
		fired := make(chan time.Duration, 1)
		c.AfterFunc(10*time.Second, func() { fired <- c.Now().Sub(world) })
		if got := <-fired; got != time.Hour+10*time.Second {
			t.Errorf("AfterFunc came at %s", got)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := c.Sleep(ctx, time.Hour); !errors.Is(err, cause) {
			t.Errorf("a cancelled sleep: %v", err)
		}
	})
}
