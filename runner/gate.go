package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"runbook/steps"
)

// gate asks a person before a node acts, unless it was answered already. part names
// the batch or item it is asked for; empty: once for the whole.
func (x *run) gate(ctx context.Context, s *scope, n *Node, path, part string) *halt {
	g := n.Confirm
	if g == nil || x.dry != nil || g.Builtin && s.frame.asked {
		return nil
	}
	at := path + part
	if x.past.approved(at) {
		return nil
	}
	q := Question{Run: x.id, Step: at, Message: x.words(s, g.Message), Retype: x.words(s, g.Retype), Builtin: g.Builtin}
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
	opened := &GateOpened{Message: q.Message, Builtin: q.Builtin}
	for _, l := range q.Show {
		opened.Show = append(opened.Show, l.Command+" = "+l.To)
	}
	opened.Sends = commands(q.Sends)
	if err := x.durable(ctx, recGateOpened, at, opened); err != nil {
		return broken(at, err)
	}
	answer, how, err := x.ask(ctx, n, g, q)
	if err != nil {
		if h := stopped(ctx, at); h != nil {
			return h
		}
		return x.gateEnded(ctx, at, q.Retype != "" || g.Approvals > 1, err)
	}
	body := &GateDecided{Approved: answer.Approved, By: x.cfg.Operator.Name, UID: x.cfg.Operator.UID, How: how, Reason: answer.Reason}
	if err := x.durable(ctx, recGateDecided, at, body); err != nil {
		return broken(at, err)
	}
	if !answer.Approved {
		why := answer.Reason
		if why == "" {
			why = "no reason given"
		}
		return failed(at, steps.Errorf("rejected", "refused by %s: %s", x.cfg.Operator.Name, why))
	}
	return nil
}

// errNobody says that a gate has nobody to ask.
var errNobody = errors.New("nobody is there to answer")

// errGateTimeout is the cause of a gate's own timeout.
var errGateTimeout = errors.New("the gate's timeout is over")

// ask finds the answer: given on the command line, or from a person.
func (x *run) ask(ctx context.Context, n *Node, g *Gate, q Question) (Answer, string, error) {
	if g.Builtin && x.approvals.Yes {
		return Answer{Approved: true}, "--yes", nil
	}
	if q.Retype == "" && g.Approvals < 2 {
		if slices.Contains(x.approvals.Steps, "all") || slices.Contains(x.approvals.Steps, n.ID) || slices.Contains(x.approvals.Steps, q.Step) {
			return Answer{Approved: true}, "--approve", nil
		}
	}
	if x.cfg.Ask == nil {
		return Answer{}, "", errNobody
	}
	defer x.atGate(ctx)()
	ctx, done := softly(ctx)
	defer done()
	x.gates.Lock()
	defer x.gates.Unlock()
	if ctx.Err() != nil { // while another question was open
		return Answer{}, "", context.Cause(ctx)
	}
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = x.clock.WithTimeout(ctx, g.Timeout, errGateTimeout)
		defer cancel()
	}
	answer, err := bounded(x, ctx, q.Step, func(ctx context.Context) (Answer, error) { return x.cfg.Ask(ctx, q) })
	if err != nil && errors.Is(context.Cause(ctx), errGateTimeout) {
		err = errGateTimeout
	}
	return answer, "prompt", err
}

// gateEnded is a gate that nobody answered. inPerson: no flag can answer it.
func (x *run) gateEnded(ctx context.Context, at string, inPerson bool, err error) *halt {
	if errors.Is(err, errGateTimeout) {
		return failed(at, &steps.Error{Kind: "gate-timeout", Err: err})
	}
	reason := fmt.Sprintf("%s waits for an approval", at)
	if werr := x.durable(ctx, recRunPaused, at, &RunPaused{Reason: reason}); werr != nil {
		return broken(at, werr)
	}
	hint := x.wayOn("", "--approve "+quoted(at))
	if inPerson {
		hint = x.wayOn("it can be answered on a terminal alone", "")
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
			lines = append(lines, steps.Line{Command: what + ", for each of its items"})
			continue
		}
		lines = append(lines, x.preview(ctx, s, n, s.prefix+n.ID)...)
	}
	return lines
}

// approve is the kind approve: its question was asked with the other guards, and answered.
func (x *run) approve(a *act) *halt {
	a.attempt = 1
	return x.finish(a, statusOK)
}
