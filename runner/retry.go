package runner

import (
	"maps"
	"math"
	"math/rand/v2"
	"time"

	"runbook/steps"
)

type retryPolicy struct {
	written        bool
	attempts       int
	first, most    time.Duration
	factor, jitter float64
	when           *Condition
}

// retryPolicy is what the author wrote, or so many attempts.
func (x *run) retryPolicy(s *scope, n *Node, attempts int) (retryPolicy, error) {
	r := n.Retry
	p := retryPolicy{written: r.Written, attempts: attempts, first: time.Second, most: 30 * time.Second, factor: 2, jitter: 0.2, when: r.If}
	if !r.Written {
		return p, nil
	}
	p.attempts, p.jitter = 3, r.Jitter
	if r.Factor > 0 {
		p.factor = r.Factor
	}
	for _, set := range []struct {
		to   *time.Duration
		from Setting[time.Duration]
		what string
	}{{&p.first, r.Delay, "retry.delay"}, {&p.most, r.MaxDelay, "retry.max-delay"}} {
		if !set.from.Set {
			continue
		}
		d, err := setting(x, s, set.from, set.what)
		if err != nil {
			return p, err
		}
		*set.to = d
	}
	if !r.MaxDelay.Set {
		p.most = max(p.most, p.first)
	}
	if r.Attempts.Set {
		var err error
		if p.attempts, err = setting(x, s, r.Attempts, "retry.attempts"); err != nil {
			return p, err
		}
	}
	return p, nil
}

// attemptsOf is how often a kind is tried whose step says nothing about it.
func attemptsOf(k *steps.Definition, effect steps.Effect, idempotent bool) int {
	switch {
	case k.Retry != nil:
		return k.Retry.Attempts
	case effect == steps.Read || idempotent:
		return 3
	}
	return 1
}

// delay before the attempt after this one: it grows to the most there may be, jitter included.
func (p retryPolicy) delay(try int) time.Duration {
	if p.first <= 0 {
		return 0
	}
	d := min(float64(p.first)*math.Pow(p.factor, float64(try-1)), float64(p.most))
	d *= 1 + p.jitter*(2*rand.Float64()-1)
	return time.Duration(max(0, min(d, float64(p.most))))
}

// again says whether a known failure of the try-th attempt is tried once more. own are
// the outputs as that attempt left them.
func (x *run) again(s *scope, p retryPolicy, try int, failure *steps.Error, own map[string]any) bool {
	if try >= p.attempts {
		return false
	}
	if p.when == nil {
		return p.written || failure.Temporary
	}
	names := maps.Clone(own)
	names["error"] = errorValue(failure)
	ok, err := x.holds(s, p.when, names)
	return err == nil && ok
}
