package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"runbook/steps"
)

// unanswered is the error of an act that was cut off. Where the kind has passed on no
// more than the end of its context, nobody knows how far it had come.
func unanswered(ctx context.Context, err error) error {
	var said *steps.Error
	if ctx.Err() == nil || errors.As(err, &said) || !errors.Is(err, ctx.Err()) && !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	if errors.Is(context.Cause(ctx), ErrInterrupted) {
		return &steps.Error{Kind: "canceled", Unknown: true, Err: err}
	}
	return &steps.Error{Kind: "timeout", Temporary: true, Unknown: true, Err: err}
}

// errHung is the end of a kind that does not end when it is told to.
var errHung = fmt.Errorf("it did not end within %s of being cancelled", settleTime)

// bounded calls into a kind. One that does not end with its context is left behind after
// a while, one that panics has given no answer: neither may hold up or end the run.
func bounded[T any](x *run, ctx context.Context, path string, call func(context.Context) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if p := recover(); p != nil {
				x.cfg.Log.Error("a step kind panicked", "step", path, "panic", x.mask.String(fmt.Sprint(p)), "stack", string(debug.Stack()))
				a.err = &steps.Error{Kind: "panic", Unknown: true, Err: fmt.Errorf("the step kind panicked: %v", p)}
			}
			done <- a
		}()
		a.v, a.err = call(ctx)
	}()
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
	}
	grace, cancel := x.clock.WithTimeout(context.WithoutCancel(ctx), settleTime, errHung)
	defer cancel()
	select {
	case a := <-done:
		return a.v, a.err
	case <-grace.Done():
	}
	var none T
	return none, &steps.Error{Kind: "hung", Unknown: true, Err: fmt.Errorf("%w: %w", context.Cause(ctx), errHung)}
}

// probe asks whether the wanted state is there: the author's own read, or the kind's.
func (x *run) probe(ctx context.Context, a *act) (steps.State, any, error) {
	if p := a.n.Probe; p != nil {
		done, err := x.authorsProbe(ctx, a, p)
		switch {
		case err != nil:
			return steps.Unclear, nil, err
		case done:
			return steps.Done, nil, nil
		}
		return steps.Untouched, nil, nil
	}
	if !a.kind.HasProbe {
		return steps.Unclear, nil, nil
	}
	type found struct {
		state steps.State
		out   any
	}
	f, err := bounded(x, ctx, a.path, func(ctx context.Context) (found, error) {
		state, out, err := a.kind.Probe(ctx, steps.NewView(a), a.in)
		return found{state, out}, err
	})
	return f.state, f.out, err
}

func (x *run) authorsProbe(ctx context.Context, a *act, p *Probe) (bool, error) {
	look := &act{x: x, n: a.n, s: a.s, path: a.path, kind: p.Kind, effect: steps.Read, target: a.target, before: a.before}
	var err error
	if p.Target != nil {
		if look.target, err = x.target(a.s, &Node{}, p.Target, a.path); err != nil {
			return false, err
		}
	}
	if look.in, err = x.bind(a.s, p.Kind, p.With, nil); err != nil {
		return false, err
	}
	out, err := look.read(ctx)
	if err != nil {
		return false, err
	}
	look.out = out
	done, err := x.holds(a.s, p.Done, x.seen(look))
	if err != nil {
		return false, fmt.Errorf("%s: %w", p.Done.Expr.Source, err)
	}
	return done, nil
}

// verdict is what settling an unknown outcome gave.
type verdict int

const (
	settledDoubt verdict = iota
	settledDone
	settledAgain
)

// settle finds out what an attempt without an answer did.
func (x *run) settle(ctx context.Context, a *act, cause *steps.Error) (verdict, *steps.Error) {
	if errors.Is(cause.Err, errHung) || cause.Kind == steps.KindDoubt {
		return settledDoubt, cause // something may still be acting, or the kind has looked itself: nothing is learned by a probe
	}
	// The attempt's own context may be over; the answer is needed all the same.
	ctx, cancel := x.clock.WithTimeout(context.WithoutCancel(ctx), settleTime, errAttempt)
	defer cancel()
	var state steps.State
	var out any
	var err error
	for try := 0; ; try++ {
		state, out, err = x.probe(ctx, a)
		if err == nil || !steps.Classify(err).Temporary || x.clock.Sleep(ctx, time.Second<<min(try, 2)) != nil {
			break
		}
	}
	switch v := a.judge(state, err); {
	case v == settledDone:
		a.out, a.result, a.found, a.recovered = out, nil, true, true
		return v, nil
	case v == settledAgain:
		return v, nil
	case err != nil && steps.Classify(err).Kind == steps.KindDoubt:
		return settledDoubt, steps.Classify(err)
	case err != nil:
		return settledDoubt, &steps.Error{Kind: cause.Kind, Err: fmt.Errorf("%w; and the probe could not tell what it did: %w", cause.Err, x.mask.Error(err))}
	case a.probes():
		return settledDoubt, &steps.Error{Kind: cause.Kind, Err: fmt.Errorf("%w; the probe says %s, and it must not simply be repeated", cause.Err, state)}
	}
	return settledDoubt, &steps.Error{Kind: cause.Kind, Err: fmt.Errorf("%w; whether it took effect is not known: %s has no probe and is not idempotent", cause.Err, a.kind.Name)}
}

// probes says that there is somebody to ask whether the step's effect is there.
func (a *act) probes() bool { return a.kind.HasProbe || a.n.Probe != nil }

// judge is what follows from a probe's answer.
func (a *act) judge(state steps.State, err error) verdict {
	switch {
	case err == nil && state == steps.Done:
		return settledDone
	case err == nil && state == steps.Untouched && a.probes():
		return settledAgain
	case err != nil && steps.Classify(err).Kind == steps.KindDoubt:
		return settledDoubt
	case a.n.Idempotent:
		return settledAgain
	}
	return settledDoubt
}

// doubt ends the run: nobody knows what the step did.
func (x *run) doubt(ctx context.Context, a *act, why *steps.Error) *halt {
	if c := context.Cause(ctx); errors.Is(c, ErrInterrupted) {
		h := haltFor(c, a.path)
		h.err = &steps.Error{Kind: "interrupted", Err: fmt.Errorf("interrupted while %s was acting: whether it took effect is not known", a.path)}
		return h
	}
	return &halt{path: a.path, end: InDoubt, err: &steps.Error{Kind: why.Kind, Unknown: true, Err: why.Err, Hint: x.waysOut(a.path)}}
}

func (x *run) waysOut(path string) string {
	if x.sandbox != "" {
		return x.wayOn("", "")
	}
	return x.wayOn("find out what "+path+" did", "--decide "+quoted(path+"=done|redo|fail")+" --reason TEXT")
}
