package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps"
)

// lookID stands for the run-id where targets are only looked at. What is observed now and
// what is observed again must not differ by the name of a run.
const lookID = "RUN-ID"

// Look asks the targets, by reads alone, what is already so of each step: a dry run whose
// records are kept. A step that is known to fail is no error, see [Observation.Failed];
// an error is one that kept it from looking.
func Look(ctx context.Context, cfg Config, req Request) (*Observation, error) {
	cfg = cfg.withDefaults()
	x, err := newRun(ctx, cfg, req.Program, req.Selection, req.Dir)
	if err != nil {
		return nil, err
	}
	defer x.pool.closeAll()
	x.past, _ = readPast(nil)
	return x.survey(ctx, req.Inputs)
}

// survey is a dry run beside the run itself, with its connections and its secrets.
func (x *run) survey(ctx context.Context, inputs *Inputs) (*Observation, error) {
	o := &Observation{At: x.clock.Now().UTC().Truncate(time.Second), byPath: map[string]*Observed{}}
	cfg := x.cfg
	cfg.Observe, cfg.Progress = o.add, nil
	d := &run{cfg: cfg, prog: x.prog, clock: x.clock, acts: &acts{}, dir: x.dir, pool: x.pool, mask: x.mask, secrets: x.secrets,
		selected: x.selected, partial: x.partial, past: x.past, dry: &dryRun{changed: map[string]string{}}}
	fr, err := d.root(inputs, x.prog, lookID, time.Time{})
	if err != nil {
		return nil, &UsageError{Err: x.mask.Error(err)}
	}
	r := d.dryWalk(ctx, fr)
	if r.Status == Interrupted {
		return nil, fmt.Errorf("look at the targets: %w", ErrInterrupted)
	}
	if r.Status != Succeeded {
		r.Err, r.Hint = x.mask.Error(r.Err), x.mask.String(r.Hint)
		o.failed = r
	}
	return o, nil
}

// add keeps what a record says of a step.
func (o *Observation) add(rec journal.Record) {
	if rec.Type != recStepFinished {
		return
	}
	var body struct {
		Observed *Observed `json:"observed"`
	}
	d := json.NewDecoder(bytes.NewReader(rec.Body))
	d.UseNumber() // as a saved plan is read
	if d.Decode(&body) == nil && body.Observed != nil {
		o.Steps = append(o.Steps, body.Observed)
		o.byPath[rec.Step] = body.Observed
	}
}

// Failed is the first step that is known to fail, and why; nil: none is.
func (o *Observation) Failed() error {
	if o == nil || o.failed == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", o.failed.Step, o.failed.Err)
}

// of finds what was seen of a step of the plan. Of steps after each wave it is the first.
func (o *Observation) of(path string) *Observed {
	if o == nil {
		return nil
	}
	return o.byPath[strings.ReplaceAll(path, "[batch *]", "[batch 0]")]
}

// items are those of a loop that were found; false: they were not.
func (o *Observation) items(n *Node, path string) ([]item, bool) {
	seen := o.of(path)
	if seen == nil || seen.State != ObservedOK || seen.Items == nil {
		return nil, false
	}
	return thawItems(n, path, seen.Items), true
}

// PlanObserved says of what, and by whom, a plan was asked of its targets.
type PlanObserved struct {
	At     time.Time  `json:"at" doc:"When the targets were asked, UTC."`
	By     string     `json:"by" doc:"Who asked."`
	Failed string     `json:"failed,omitempty" doc:"The first step that is known to fail, and why."`
	Keys   []PlanKeys `json:"keys,omitempty" doc:"Keys in what is touched, where a kind counts them."`
}

// PlanKeys are the keys of a server that the plan touches.
type PlanKeys struct {
	Addr string `json:"addr" doc:"Address of the server."`
	Keys int64  `json:"keys" doc:"How many keys it has; they move by themselves."`
	Step string `json:"step" doc:"Path of the step whose kind counted them."`
}

// MakeLivePlan is MakePlan with what was observed: each step of the plan has it, and
// loops go over the items that were found.
func MakeLivePlan(p *Program, in *Inputs, sel Selection, o *Observation, by Operator) (*Plan, []schema.Finding, error) {
	plan, findings, err := makePlan(p, in, sel, o)
	if plan == nil {
		return nil, findings, err
	}
	plan.Observed = &PlanObserved{At: o.At, By: by.Name}
	if err := o.Failed(); err != nil {
		plan.Observed.Failed = err.Error()
	}
	plan.Observed.Keys, plan.Summary.Uncounted = plan.countKeys(p.Catalog, o)
	if len(plan.Observed.Keys) > 0 {
		var sum int64
		for _, k := range plan.Observed.Keys {
			sum += k.Keys
		}
		plan.Summary.Keys = &sum
	}
	annotate(plan.Steps, o)
	annotate(plan.Finally, o)
	return plan, findings, nil
}

// annotate puts what was observed to the steps of a plan.
func annotate(list []*PlanStep, o *Observation) {
	for _, s := range list {
		s.Observed = o.of(s.Path)
		annotate(s.Steps, o)
		annotate(s.AfterBatch, o)
		annotate(s.Finally, o)
	}
}

// observedWords tell what was observed, but not again what the plan says already: a
// command of which no state before was found.
func (s *PlanStep) observedWords() []string {
	if s.Observed == nil {
		return nil
	}
	o := *s.Observed
	o.Lines = slices.DeleteFunc(slices.Clone(o.Lines), func(l steps.Line) bool {
		return l.From == "" && slices.ContainsFunc(s.Commands, func(c steps.Line) bool { return c.Command == l.Command })
	})
	return o.Words()
}

// countKeys are the keys of the servers that the plan touches, each server once, as the
// last step that asked it has counted them; and the addresses where none has, although
// there are kinds that count there.
func (p *Plan) countKeys(c *Catalog, o *Observation) (list []PlanKeys, uncounted []string) {
	for _, i := range p.Summary.Instances {
		counted := PlanKeys{Addr: i.Addr}
		for _, s := range o.Steps {
			if s.Keys != nil && len(s.Servers) > 0 && s.Servers[0].Addr == i.Addr {
				counted.Keys, counted.Step = *s.Keys, s.Step
			}
		}
		switch {
		case counted.Step != "":
			list = append(list, counted)
		case c.holdsKeys(i.Kind):
			uncounted = append(uncounted, i.Addr)
		}
	}
	return list, uncounted
}

// holdsKeys tells whether a kind of its own system counts the keys of such a target.
func (c *Catalog) holdsKeys(target string) bool {
	for _, d := range c.Kinds {
		if strings.HasPrefix(d.Name, target+".") && slices.ContainsFunc(d.Outputs, func(o steps.Output) bool { return o.Keys }) {
			return true
		}
	}
	return false
}

// keysText is how many keys are at stake, as far as that is known.
func (s *PlanSummary) keysText() string {
	rest := ""
	if len(s.Uncounted) > 0 {
		rest = "not counted on " + strings.Join(s.Uncounted, ", ")
	}
	switch {
	case s.Keys == nil && rest == "":
		return "not known offline"
	case s.Keys == nil:
		return rest
	case rest == "":
		return fmt.Sprint(*s.Keys)
	}
	return fmt.Sprint(*s.Keys) + ", and " + rest
}

// headFacts are what the head of the plan counts and, of one made with --live, what was asked.
func (p *Plan) headFacts() []planFact {
	facts := p.Summary.facts()
	o := p.Observed
	if o == nil {
		return facts
	}
	f := planFact{name: "observed", value: o.At.Format(time.RFC3339) + " by " + o.By}
	if o.Failed != "" {
		f.parts = append(f.parts, "known to fail: "+o.Failed)
	}
	for _, k := range o.Keys {
		f.parts = append(f.parts, fmt.Sprintf("keys on %s: %d (step %s)", k.Addr, k.Keys, k.Step))
	}
	return append(facts, f)
}
