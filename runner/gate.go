package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"runbook/runner/journal"
	"runbook/steps"
)

// gate asks before a node acts, unless it was answered already. part names the batch that
// it is asked for; empty: it is asked for all of path. begun tells that what it lets
// through has started in an earlier process.
func (x *run) gate(ctx context.Context, s *scope, n *Node, path, part string, begun bool) *halt {
	g := n.Confirm
	if g == nil || x.dry != nil || g.Builtin && s.frame.asked {
		return nil
	}
	at, digest := path+part, x.prog.StepDigest(n)
	was := x.desk.before(x.past, at)
	switch {
	case was == nil:
	case was.ended != nil:
		return refusal(was)
	case begun && was.approved() && (was.Digest == digest || was.Digest == ""):
		return nil // what it shows may look otherwise by now: that is its own doing
	}
	q := x.question(ctx, s, n, path, at)
	open := g.opening(q, digest)
	if was != nil {
		switch why := was.differs(open); {
		case why == "" && was.approved():
			return nil
		case why != "":
			for _, d := range was.given {
				open.Void = append(open.Void, fmt.Sprintf("the approval by %s does not count any more: %s", d.who(), why))
			}
		}
	}
	q.Void = open.Void
	if err := x.desk.open(ctx, x, at, open); err != nil {
		return broken(at, err)
	}
	if h, over := x.answered(ctx, at); over {
		return h
	}
	if how := x.ahead(n, g, q); how != "" {
		if _, err := x.decideGate(ctx, at, x.mine(true, how, ""), ""); err != nil && !errors.As(err, new(*UsageError)) {
			return broken(at, err)
		}
		if h, over := x.answered(ctx, at); over {
			return h
		}
	}
	if g.Detached || x.cfg.Ask == nil && !g.Attached {
		return x.leave(ctx, at)
	}
	return x.await(ctx, g, at, q)
}

// opening is what the journal says of a gate that asks; digest is that of the step.
func (g *Gate) opening(q Question, digest string) GateOpened {
	open := GateOpened{Message: q.Message, Sends: commands(q.Sends), Builtin: g.Builtin, Digest: digest, Retype: q.Retype, Detached: g.Detached}
	for _, l := range q.Show {
		open.Show = append(open.Show, l.Command+" = "+l.To)
	}
	if g.Approvals > 1 {
		open.Approvals = g.Approvals
	}
	if g.Timeout > 0 {
		open.Timeout = g.Timeout.String()
	}
	return open
}

// question is a gate as whoever answers sees it.
func (x *run) question(ctx context.Context, s *scope, n *Node, path, at string) Question {
	g := n.Confirm
	q := Question{Run: x.id, Step: at, Message: x.words(s, g.Message), Retype: strings.TrimSpace(x.words(s, g.Retype)), Builtin: g.Builtin, Approvals: g.Approvals}
	if g.Builtin && q.Message == "" {
		q.Message = x.mask.String(x.destroys(s, n, path))
	}
	for _, o := range g.Show {
		v, err := o.Expr.Eval(x.env(s, nil, o.Expr.Refs))
		line := steps.Line{Command: o.Name, To: show(v)}
		if err != nil {
			line.To = err.Error()
		}
		line.To = x.mask.String(line.To)
		q.Show = append(q.Show, line)
	}
	q.Sends = x.preview(ctx, s, n, path)
	return q
}

// ahead tells how the command line has answered the gate; empty: it has not.
func (x *run) ahead(n *Node, g *Gate, q Question) string {
	names := x.approvals.Steps
	switch {
	case g.Builtin && x.approvals.Yes:
		return "--yes"
	case q.Retype != "" || g.Approvals > 1:
	case slices.Contains(names, "all") || slices.Contains(names, n.ID) || slices.Contains(names, q.Step):
		return "--approve"
	}
	return ""
}

// errGateTimeout is the cause of a gate's own timeout.
var errGateTimeout = errors.New("the gate's timeout is over")

// errDecided ends a prompt: another terminal has answered.
var errDecided = errors.New("another terminal has answered")

// await stays at a gate until it is decided, at the prompt or from another terminal, or
// its timeout is over. Limits of what stands around it do not run meanwhile.
func (x *run) await(ctx context.Context, g *Gate, at string, q Question) *halt {
	defer x.atGate(ctx)()
	outer := ctx
	ctx, done := softly(ctx)
	defer done()
	prompts := x.cfg.Ask != nil
	for {
		state, changed := x.desk.look(at) // before it is asked whether it was decided: no decision is missed
		if h, over := x.answered(outer, at); over {
			return h
		}
		if ctx.Err() != nil {
			return stopped(outer, at)
		}
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if last := state.expires(); !last.IsZero() {
			waiting, cancel = x.clock.WithTimeout(ctx, last.Sub(x.clock.Now()), errGateTimeout)
		}
		var err error
		if prompts {
			err = x.prompt(waiting, at, &q, state, changed)
		} else {
			select {
			case <-changed:
			case <-waiting.Done():
			}
		}
		cancel()
		var dead *journal.WriteError
		switch {
		case err == nil:
		case errors.As(err, &dead):
			return broken(at, err)
		case g.Attached:
			prompts = false // nobody answers here any more; others can
		default:
			return x.leave(outer, at)
		}
	}
}

// prompt asks the person who is here, one question at a time. It ends without an error
// when another terminal has decided, and when the context ends.
func (x *run) prompt(ctx context.Context, at string, q *Question, state gateState, changed <-chan struct{}) error {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-changed:
		return nil
	case <-ctx.Done():
		return nil
	}
	asking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-changed:
			stop(errDecided)
		case <-asking.Done():
		}
	}()
	q.Given, q.Own = state.by(), ""
	if state.needed() > 1 {
		q.Own = state.discounts(x.mine(true, "prompt", ""), x.starter())
	}
	asked := *q
	answer, err := bounded(x, asking, at, func(ctx context.Context) (Answer, error) { return x.cfg.Ask(ctx, asked) })
	q.Again, q.Notice = true, ""
	if asking.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = x.decideGate(ctx, at, x.mine(answer.Approved, "prompt", answer.Reason), q.Retype)
	if errors.As(err, new(*UsageError)) { // it does not count
		q.Notice = err.Error()
		return nil
	}
	return err
}

// mine is a decision by whoever runs this process.
func (x *run) mine(approved bool, how, reason string) GateDecided {
	op := x.cfg.Operator
	return GateDecided{Approved: approved, Person: op.person(), How: how, Reason: reason, Trusted: op.Trusted}
}

// answered is what a decision about a gate means for the run; over: there is one.
func (x *run) answered(ctx context.Context, at string) (h *halt, over bool) {
	state, err := x.desk.expire(ctx, x, at)
	switch {
	case err != nil:
		return broken(at, err), true
	case state.ended != nil:
		return refusal(&state), true
	}
	return nil, state.approved()
}

// refusal is the failure of a step whose gate was not passed.
func refusal(g *gateState) *halt {
	if g.ended.Person == nil {
		return failed(g.path, &steps.Error{Kind: "gate-timeout", Err: errGateTimeout})
	}
	why := g.ended.Reason
	if why == "" {
		why = "no reason given"
	}
	return failed(g.path, steps.Errorf("rejected", "refused by %s: %s", g.ended.who(), why))
}

// leave ends the process at a gate that nobody here answers: the run waits without it.
func (x *run) leave(ctx context.Context, at string) *halt {
	state, _ := x.desk.look(at)
	reason := at + " " + state.missing()
	if err := x.durable(ctx, recRunPaused, at, &RunPaused{Reason: reason}); err != nil {
		return broken(at, err)
	}
	hint := x.wayOn("", "--approve "+quoted(at))
	if state.Retype != "" || state.needed() > 1 {
		by := "runner approve " + x.id + " " + quoted(at)
		if state.Retype != "" {
			by += " --retype TEXT"
		}
		if state.needed() > 1 {
			by += " (by each of them)"
		}
		if x.sandbox != "" {
			by = "it can be answered on a terminal alone"
		}
		hint = x.wayOn(by, "")
	}
	return &halt{path: at, end: Paused, err: &steps.Error{Kind: "approval", Err: errors.New(reason), Hint: hint}}
}

// destroys is the question of a step that destroys something and whose author wrote none.
func (x *run) destroys(s *scope, n *Node, path string) string {
	what := n.ID
	if n.Kind != nil {
		what = n.Kind.Name
	}
	what += " destroys something"
	var on []string
	switch {
	case n.FanOut:
		for _, t := range n.Targets {
			if b := s.frame.find(t.Name); b != nil {
				on = append(on, b.place())
			}
		}
	case n.Target != nil:
		if t, err := x.target(s, n, n.Target, path); err == nil && t != nil {
			on = append(on, t.place())
		}
	}
	if len(on) > 0 {
		what += " on " + strings.Join(on, ", ")
	}
	if n.Loop != nil {
		what += ", once for each item of its loop"
	}
	return what + ". Go on?"
}

// place is a target's name and where that is.
func (t *boundTarget) place() string {
	if t.addr == "" || t.addr == t.Name {
		return t.Name
	}
	return t.Name + " (" + t.addr + ")"
}

// preview is what a step would send, as far as it can be told before it is asked.
func (x *run) preview(ctx context.Context, s *scope, n *Node, path string) []steps.Line {
	switch {
	case n.Loop != nil || n.FanOut:
		return nil
	case n.Shape == Group:
		return x.previews(ctx, s, n.Children)
	case n.Shape == Call:
		inner, h := x.callScope(s, n, path)
		if h != nil {
			return nil
		}
		return x.previews(ctx, inner, n.Sub.Steps)
	case !n.Kind.HasPlan:
		return nil
	}
	a, err := x.prepare(s, n, path)
	if err != nil {
		return []steps.Line{{Command: n.ID + ": " + n.Kind.Name + ", with what is known only then"}}
	}
	change, err := bounded(x, ctx, path, func(ctx context.Context) (steps.Change, error) { return n.Kind.Plan(ctx, nil, a.in) })
	if err != nil {
		return nil
	}
	for i := range change.Lines {
		l := &change.Lines[i]
		if l.Target == "" && a.target != nil {
			l.Target = a.target.Name
		}
		l.Command, l.From, l.To = x.mask.String(l.Command), x.mask.String(l.From), x.mask.String(l.To)
	}
	return change.Lines
}

func (x *run) previews(ctx context.Context, s *scope, nodes []*Node) []steps.Line {
	var lines []steps.Line
	for _, n := range nodes {
		if n.Effect == steps.Read {
			continue
		}
		if n.Loop != nil || n.FanOut {
			what := n.ID
			if n.Kind != nil {
				what += ": " + n.Kind.Name
			}
			lines = append(lines, steps.Line{Command: x.mask.String(what + ", for each of " + x.itemsAhead(s, n))})
			continue
		}
		lines = append(lines, x.preview(ctx, s, n, s.prefix+n.ID)...)
	}
	return lines
}

// itemsAhead names what a step repeats over, as far as that is known before it runs.
func (x *run) itemsAhead(s *scope, n *Node) string {
	of := "item"
	if n.FanOut {
		of = "target"
	} else if !n.Loop.Known {
		return "its items, which are known only then"
	}
	items, err := x.pastItems(s, n, s.prefix+n.ID)
	if err != nil {
		return "its items, which are known only then"
	}
	keys := make([]string, len(items))
	for i, it := range items {
		keys[i] = it.key
	}
	return strings.TrimSuffix(plural(len(items), of)+": "+some(keys), ": ")
}

// approve is the kind approve: its question was asked with the other guards, and answered.
func (x *run) approve(a *act) *halt {
	a.attempt = 1
	return x.finish(a, statusOK)
}
