package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// leaf runs a step that uses a kind.
func (x *run) leaf(ctx context.Context, s *scope, n *Node, path string, gates bool) *halt {
	if h, restored := x.restore(ctx, s, n, path); restored {
		return h
	}
	if skipped, h := x.admit(ctx, s, n, path, gates); h != nil || skipped {
		return h
	}
	a, err := x.prepare(s, n, path)
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	if x.dry != nil {
		return x.dryLeaf(ctx, a)
	}
	switch n.Kind.Engine {
	case steps.EngineGate:
		return x.approve(a)
	case steps.EngineStopBackground:
		return x.stopBackground(ctx, a)
	}
	return x.perform(ctx, a)
}

// prepare evaluates what a step is given.
func (x *run) prepare(s *scope, n *Node, path string) (*act, error) {
	a := &act{x: x, n: n, s: s, path: path, kind: n.Kind, effect: n.Effect, began: x.clock.Now()}
	var err error
	if a.target, err = x.target(s, n, n.Target, path); err != nil {
		return nil, err
	}
	if a.in, err = x.bind(s, n.Kind, n.With, n.BoundIn); err != nil {
		return nil, err
	}
	a.digest = x.digest(a.in, a.target)
	return a, nil
}

// bind evaluates the inputs of a kind.
func (x *run) bind(s *scope, kind *steps.Definition, with *Template, bound any) (any, error) {
	if bound != nil {
		return bound, nil
	}
	v, err := x.eval(s, with)
	if err != nil {
		return nil, fmt.Errorf("with: %w", err)
	}
	values, _ := v.(map[string]any)
	in := reflect.New(kind.In).Interface()
	if err := schema.Bind(values, in); err != nil {
		return nil, fmt.Errorf("with: %w", err)
	}
	return in, nil
}

// target resolves what a step acts on. An item of a fan-out carries its own.
func (x *run) target(s *scope, n *Node, b *Binding, path string) (*boundTarget, error) {
	if n.FanOut {
		return s.fannedOut(n)
	}
	switch {
	case b == nil:
		return nil, nil
	case b.Each != nil:
		return s.fannedOut(b.Each)
	case b.Target != nil:
		return s.frame.find(b.Target.Name), nil
	case b.Expr != nil:
		if err := x.known(s, nil, b.Expr.Refs); err != nil {
			return nil, err
		}
		v, err := b.Expr.Eval(x.env(s, nil, b.Expr.Refs))
		if err != nil {
			return nil, fmt.Errorf("target: %w", err)
		}
		name, ok := targetName(v)
		t := s.frame.find(name)
		if !ok || t == nil {
			return nil, fmt.Errorf("target: %s gives %s, which is no target here", b.Expr.Source, show(v))
		}
		return t, nil
	}
	return x.bindTarget(s, path, b.Kind, b.Config)
}

// fanTarget, with the id of the fan-out, is the name under which an item finds its target.
const fanTarget = "\x00target:"

// fannedOut is the target that a fan-out around here is at.
func (s *scope) fannedOut(n *Node) (*boundTarget, error) {
	wanted := fanTarget + n.ID
	for at := s; at != nil; at = at.parent {
		for _, given := range at.names {
			if given.name != wanted {
				continue
			}
			name, _ := given.value.(string)
			if t := s.frame.find(name); t != nil {
				return t, nil
			}
			return nil, fmt.Errorf("there is no target %q", name)
		}
	}
	return nil, fmt.Errorf("%s is not inside of the fan-out %s", s.prefix, n.ID)
}

// digest tells whether a step would be given the same as before.
func (x *run) digest(in any, t *boundTarget) string {
	raw, err := json.Marshal(in)
	if err != nil {
		return ""
	}
	h := sha256.New()
	h.Write(x.mask.JSON(raw))
	if t != nil {
		fmt.Fprintf(h, "\x00%s", t.addr)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// defaultTimeout is the time limit of a step that says nothing, in an author's minutes.
const defaultTimeout = 10 * time.Minute

// perform makes attempts until the step is done, has failed, or nobody knows.
func (x *run) perform(ctx context.Context, a *act) *halt {
	limit, err := setting(x, a.s, a.n.Timeout, "timeout")
	if err != nil {
		return x.refused(a.s, a.n, a.path, steps.Classify(err))
	}
	if limit == 0 && !a.n.Timeout.Set && !a.n.Background {
		limit = defaultTimeout
	}
	policy, err := x.retryPolicy(a.s, a.n, attemptsOf(a.kind, a.effect, a.n.Idempotent))
	if err != nil {
		return x.refused(a.s, a.n, a.path, steps.Classify(err))
	}
	defer x.looks.enter(a.path, a.began)()
	a.attempt = 1
	if h, over := x.inherit(ctx, a); over {
		return h
	}
	if _, h := x.awaitWindow(ctx, a.s, a.n, a.path); h != nil { // an attempt after a crash is a start
		return h
	}
	outer := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = x.clock.WithTimeout(ctx, limit, errTimeout)
		defer cancel()
	}
	for a.try = 1; ; a.attempt, a.try = a.attempt+1, a.try+1 {
		status, err := x.attempt(ctx, a)
		if err == nil {
			return x.finish(a, status)
		}
		var dead *deadJournal
		if errors.As(err, &dead) {
			return broken(a.path, dead.err)
		}
		if a.n.Background {
			if h, over := x.backgroundEnded(ctx, a); over {
				return h
			}
		}
		failure := x.masked(steps.Classify(err))
		if a.sent && failure.Unknown {
			verdict, why := x.settle(outer, a, failure)
			switch verdict {
			case settledDone:
				return x.finish(a, statusChanged)
			case settledDoubt:
				return x.doubt(outer, a, why)
			}
			known := *failure
			known.Unknown = false
			failure = &known
		}
		again := x.again(a.s, policy, a.try, failure, a.lastSeen())
		if cause := a.ended(ctx); cause != nil && (again || cutBy(failure, cause)) {
			return x.cutShort(outer, a, cause, failure)
		}
		if !again {
			return x.fail(a, failure)
		}
		if err := x.retrying(ctx, a.path, policy, a.attempt, a.try, failure); err != nil {
			var dead *deadJournal
			if errors.As(err, &dead) {
				return broken(a.path, dead.err)
			}
			return x.cutShort(outer, a, err, failure)
		}
	}
}

// ended is the cause for which an attempt was cut: a read ends too when nothing new may start.
func (a *act) ended(ctx context.Context) error {
	if a.effect == steps.Read {
		return over(ctx)
	}
	return context.Cause(ctx)
}

// cutBy says that an attempt failed because its context ended, not by itself.
func cutBy(failure *steps.Error, cause error) bool {
	switch failure.Kind {
	case "canceled", "timeout", "hung", "closed":
		return true
	}
	return errors.Is(failure.Err, cause) || errors.Is(failure.Err, context.Canceled) || errors.Is(failure.Err, context.DeadlineExceeded)
}

// cutShort is a step whose context ended: its own timeout is a failure, everything else
// leaves it for a resume.
func (x *run) cutShort(outer context.Context, a *act, cause error, failure *steps.Error) *halt {
	if errors.Is(cause, errTimeout) && over(outer) == nil {
		if !errors.Is(failure.Err, cause) {
			failure = &steps.Error{Hint: failure.Hint, Err: fmt.Errorf("%w; last: %w", cause, failure.Err)}
		}
		return x.fail(a, &steps.Error{Kind: "timeout", Hint: failure.Hint, Err: failure.Err})
	}
	if a.acted && !a.n.Background && a.effect != steps.Read {
		// What it did is known. Unless that is written down, a resume would have to doubt it.
		if h := x.failAs(a, failure, decidedResume); h.end != Failed {
			return h
		}
	}
	if c := over(outer); c != nil {
		return haltFor(c, a.path)
	}
	return haltFor(cause, a.path)
}

// deadJournal is the error of a record that could not be made durable: the step did not act.
type deadJournal struct{ err error }

func (e *deadJournal) Error() string { return e.err.Error() }

func (e *deadJournal) Unwrap() error { return e.err }

// attempt tries once. The error says whether the outcome is known.
func (x *run) attempt(ctx context.Context, a *act) (status string, err error) {
	limit, err := setting(x, a.s, a.n.AttemptTimeout, "attempt-timeout")
	if err != nil {
		return "", err
	}
	a.out, a.result, a.found, a.sent = nil, nil, false, false
	if limit > 0 && a.n.Wait == nil {
		var cancel context.CancelFunc
		ctx, cancel = x.clock.WithTimeout(ctx, limit, errAttempt)
		defer cancel()
	}
	if a.effect == steps.Read {
		status, err = x.look(ctx, a, limit)
	} else {
		status, err = x.change(ctx, a)
	}
	if err != nil {
		return "", err
	}
	if a.result == nil {
		a.result = x.seen(a)
	}
	if failure := x.expect(a); failure != nil {
		return "", failure
	}
	return status, nil
}

// look is an attempt of a step that changes nothing.
func (x *run) look(ctx context.Context, a *act, limit time.Duration) (string, error) {
	ctx, done := softly(ctx)
	defer done()
	if a.try == 1 {
		if err := x.started(ctx, a, nil, false); err != nil {
			return "", err
		}
	}
	if a.n.Wait != nil {
		return statusOK, x.wait(ctx, a, limit)
	}
	if a.kind.Engine == steps.EngineSleep {
		if err := x.settleDisk(ctx); err != nil {
			return "", &deadJournal{err}
		}
	}
	out, err := a.read(ctx)
	if err != nil {
		return "", err
	}
	a.out, a.result, a.found = out, nil, false
	return statusOK, nil
}

// read observes once.
func (a *act) read(ctx context.Context) (any, error) {
	switch {
	case a.kind.Engine == steps.EngineSet:
		return a.in, nil
	case a.kind.Engine == steps.EngineSleep:
		d := reflect.ValueOf(a.in).Elem().FieldByName("Duration").Interface().(time.Duration)
		return reflect.Zero(a.kind.Out).Interface(), a.x.clock.Sleep(ctx, d)
	case a.kind.Read != nil && a.kind.HasRead:
		return bounded(a.x, ctx, a.path, func(ctx context.Context) (any, error) { return a.kind.Read(ctx, steps.NewView(a), a.in) })
	}
	return bounded(a.x, ctx, a.path, func(ctx context.Context) (any, error) { // a read by its author's word
		return a.kind.Apply(ctx, steps.NewSession(a), a.in)
	})
}

// change is an attempt of a step that changes something: look whether it is there
// already, check, plan, write down, act.
func (x *run) change(ctx context.Context, a *act) (string, error) {
	if err := x.permitted(ctx, a.path); err != nil {
		return "", err
	}
	state, out, err := x.probe(ctx, a)
	if err != nil {
		return "", fmt.Errorf("probe: %w", err)
	}
	if state == steps.Done {
		a.out, a.result, a.found = out, nil, true
		if a.acted { // an earlier attempt did it after all
			a.recovered = true
			return statusChanged, nil
		}
		return statusOK, nil
	}
	change, err := x.intend(ctx, a)
	if err != nil {
		return "", err
	}
	if a.entry == nil && change.Before != nil {
		if a.before, err = json.Marshal(change.Before); err != nil {
			return "", fmt.Errorf("journal the old state: %w", err)
		}
	}
	if err := x.started(ctx, a, change.Lines, true); err != nil {
		return "", err
	}
	if err := x.stillPermitted(ctx); err != nil {
		return "", err
	}
	out, err = bounded(x, ctx, a.path, func(ctx context.Context) (any, error) { return a.kind.Apply(ctx, steps.NewSession(a), a.in) })
	if err != nil {
		return "", unanswered(ctx, err)
	}
	a.out, a.result, a.found = out, nil, false
	return statusChanged, nil
}

// intend checks the preconditions and tells what will be sent.
func (x *run) intend(ctx context.Context, a *act) (steps.Change, error) {
	return bounded(x, ctx, a.path, func(ctx context.Context) (steps.Change, error) {
		view := steps.NewView(a)
		if err := a.kind.Check(ctx, view, a.in); err != nil {
			return steps.Change{}, err
		}
		return a.kind.Plan(ctx, &view, a.in)
	})
}

// started journals that the step is about to look or to act.
func (x *run) started(ctx context.Context, a *act, lines []steps.Line, acts bool) error {
	body := &StepStarted{Attempt: a.attempt, Kind: a.kind.Name, Effect: a.effect.String(), Digest: a.digest, Commands: commands(lines)}
	if a.target != nil {
		body.Target, body.Addr = a.target.Name, x.mask.String(a.target.addr)
	}
	if a.n.Wait != nil {
		body.Waiting = a.n.Wait.Until.Expr.Source
	}
	if !acts {
		seq, err := x.record(recStepStarted, a.path, body)
		if err != nil {
			return &deadJournal{err}
		}
		if a.n.PointOfNoReturn {
			x.acts.add(ctx, &entry{n: a.n, s: a.s, path: a.path, seq: seq})
		}
		return nil
	}
	if len(a.before) > 0 {
		body.Before = x.mask.JSON(a.before)
		a.withheld = !bytes.Equal(body.Before, a.before)
		body.Withheld = a.withheld
	}
	seq, err := x.record(recStepStarted, a.path, body)
	if err == nil && x.journal != nil {
		err = x.journal.Sync(context.WithoutCancel(ctx), seq)
	}
	if err != nil {
		return &deadJournal{err}
	}
	if a.entry == nil {
		a.entry = x.acts.add(ctx, &entry{n: a.n, s: a.s, path: a.path})
	}
	a.entry.begin(seq, body.Addr, a.before, a.withheld)
	a.acted, a.sent = true, true
	if cause := context.Cause(ctx); cause != nil { // never act when told to stop while the disk was busy
		return &steps.Error{Kind: "canceled", Err: fmt.Errorf("%w, before anything was sent", cause)}
	}
	return nil
}

func commands(lines []steps.Line) []string {
	var all []string
	for _, l := range lines {
		all = append(all, l.String())
	}
	return all
}

// seen is a kind's output as expressions see it; null where it is not known.
func (x *run) seen(a *act) map[string]any {
	if a.kind.Engine == steps.EngineSet {
		v, _ := x.eval(a.s, a.n.With)
		m, _ := v.(map[string]any)
		values, _ := m["values"].(map[string]any)
		out := map[string]any{}
		for name, v := range values {
			out[name] = v
		}
		return out
	}
	var m map[string]any
	if a.out != nil {
		m, _ = expression.Value(a.out).(map[string]any)
	}
	if m == nil {
		m = map[string]any{}
	}
	for _, f := range a.kind.Outputs {
		if a.hidden(f) {
			m[f.Name] = nil
		}
	}
	readable(m)
	if x.mask.Empty() {
		return m
	}
	masked, _ := x.mask.Value(m).(map[string]any)
	return masked
}

// readable makes text of what is none, in place, as the journal would: what a resume
// reads is what was seen before it.
func readable(v any) any {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return strings.ToValidUTF8(v, "\uFFFD")
		}
	case []any:
		for i := range v {
			v[i] = readable(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = readable(v[k])
		}
	}
	return v
}

// hidden says that nobody has learned an output: what was found by a probe lacks what
// only the act knows, and what an author's probe or an operator found lacks all.
func (a *act) hidden(f steps.Output) bool { return a.out == nil || a.found && f.Act }

// lastSeen are the step's own outputs as the last attempt left them; null where it gave none.
func (a *act) lastSeen() map[string]any {
	own := map[string]any{}
	for _, f := range a.kind.Outputs {
		own[f.Name] = nil
	}
	maps.Copy(own, a.result)
	return own
}

// expect checks the postconditions. A comparison with what only the act itself could
// have told passes where its answer is not there, with a warning.
func (x *run) expect(a *act) *steps.Error {
	for _, c := range a.n.Expect {
		if name := a.lost(c); name != "" {
			a.warnings = append(a.warnings, fmt.Sprintf("expect %s could not be checked: %s is known to the act itself alone, and its answer is not there", c.Expr.Source, name))
			continue
		}
		if err := x.must(a.s, "expect", []*Condition{c}, a.result); err != nil {
			return err
		}
	}
	return nil
}

// lost names an output that a condition reads and that nobody has learned.
func (a *act) lost(c *Condition) string {
	if !a.found || a.kind.Engine == steps.EngineSet {
		return ""
	}
	for _, f := range a.kind.Outputs {
		if a.hidden(f) && slices.ContainsFunc(c.Expr.Refs, func(r expression.Ref) bool { return r.Path[0] == f.Name }) {
			return f.Name
		}
	}
	return ""
}

// finish journals a step that is done.
func (x *run) finish(a *act, status string) *halt {
	if a.result == nil {
		a.result = x.seen(a)
		if err := x.expect(a); err != nil {
			return x.fail(a, err)
		}
	}
	if err := x.outputs(a.s, a.n, a.result); err != nil {
		return x.fail(a, steps.Classify(err))
	}
	body := a.finished(status)
	if _, err := x.record(recStepFinished, a.path, body); err != nil {
		return broken(a.path, err)
	}
	a.entry.end(status)
	seal(a.result, body)
	a.s.set(a.n.ID, a.result)
	return nil
}

// finished is the record of the step's end.
func (a *act) finished(status string) *StepFinished {
	f := &StepFinished{Status: status, Duration: seconds(a.x.clock.Now().Sub(a.began)), Attempts: a.attempt, Recovered: a.recovered, Warnings: a.warnings}
	if a.result != nil {
		f.Outputs = a.x.marshal(a.result)
	}
	return f
}

// fail journals a step that has failed: what it did is known.
func (x *run) fail(a *act, failure *steps.Error) *halt { return x.failAs(a, failure, "") }

func (x *run) failAs(a *act, failure *steps.Error, decided string) *halt {
	failure = x.masked(failure)
	body := a.finished(statusFailed)
	body.Error, body.Recovered, body.Decided = errorBody(failure), false, decided
	if _, err := x.record(recStepFinished, a.path, body); err != nil {
		return broken(a.path, err)
	}
	if nothingSent(body) {
		a.entry.end(statusOK)
	} else {
		a.entry.end(statusFailed)
	}
	result := nothing(a.n)
	maps.Copy(result, a.result)
	seal(result, body)
	a.s.set(a.n.ID, result)
	return failed(a.path, failure)
}

// nothingSent says that a failed step cannot have changed anything: its only attempt did
// not get as far as a request.
func nothingSent(f *StepFinished) bool {
	e := f.Error
	return e != nil && !e.Unknown && f.Attempts <= 1 && (e.Kind == "refused" || e.Kind == "auth")
}
