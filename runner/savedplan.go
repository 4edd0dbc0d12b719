package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
)

// savedFormat is the version of a saved plan that this binary writes, and the only one it reads.
const savedFormat = 1

// SavedPlan is a plan in a file: what was planned, and with what was seen of the targets.
// It is good for one run, until it expires. It holds no secret.
type SavedPlan struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"` // random; what its one use is known by
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Plan is what runs, by the same rules as the plan of a run that is resumed.
	Plan Frozen `json:"plan"`
	// Observed is what the targets said; nil: they were not asked.
	Observed *Observation `json:"observed,omitempty"`
	// SandboxAddrs are where the systems of its sandbox were, by target.
	SandboxAddrs map[string]string `json:"sandbox_addrs,omitempty"`
	// Sum is the SHA-256 of this document without it. It finds an edit, not a forger.
	Sum string `json:"sum"`
}

// SavePlan makes the document of a plan that is good for one run within life. One of
// which a step is known to fail is refused with a *UsageError.
func SavePlan(cfg Config, req Request, seen *Observation, life time.Duration) ([]byte, *SavedPlan, error) {
	cfg = cfg.withDefaults()
	if err := seen.Failed(); err != nil {
		return nil, nil, &UsageError{Err: fmt.Errorf("the plan is not saved: it is known to fail: %w", err)}
	}
	if life <= 0 {
		return nil, nil, &UsageError{Err: fmt.Errorf("a saved plan that expires after %s is never good", life), Hint: "--expires 24h"}
	}
	if req.Dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, nil, &UsageError{Err: err}
		}
		req.Dir = wd
	}
	now := cfg.Clock.Now().UTC().Truncate(time.Second)
	p := &SavedPlan{Format: savedFormat, ID: journal.NewPlanID(), Created: now, Expires: now.Add(life), Plan: freeze(cfg, req), Observed: seen, SandboxAddrs: req.SandboxAddrs}
	var err error
	if p.Plan.Sum, err = p.Plan.sum(); err == nil {
		p.Sum, err = p.sum()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("save the plan: %w", err)
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, nil, fmt.Errorf("save the plan: %w", err)
	}
	return append(raw, '\n'), p, nil
}

func (p *SavedPlan) sum() (string, error) {
	bare := *p
	bare.Sum = ""
	return sumOf(bare)
}

// ReadSavedPlan reads the document of a saved plan. One that is damaged, edited or of a
// newer binary is a *UsageError.
func ReadSavedPlan(raw []byte) (*SavedPlan, error) {
	damaged := func(format string, a ...any) (*SavedPlan, error) {
		return nil, &UsageError{Err: fmt.Errorf("the saved plan is damaged: "+format, a...), Hint: planAgain}
	}
	var head struct {
		Format int    `json:"format"`
		ID     string `json:"id"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return damaged("%w", err)
	}
	switch {
	case head.Format > savedFormat:
		return nil, &UsageError{Err: fmt.Errorf("the saved plan has format %d, this binary knows format %d", head.Format, savedFormat),
			Hint: "run it with the version of the runner that made it, or a newer one"}
	case head.Format != savedFormat || head.ID == "":
		return nil, &UsageError{Err: errors.New("this is no saved plan"), Hint: planAgain}
	}
	p := &SavedPlan{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // large integers keep their digits
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return damaged("%w", err)
	}
	if sum, err := p.sum(); err != nil || sum != p.Sum {
		return damaged("it is not what was written")
	}
	if err := p.Plan.verify(); err != nil {
		return damaged("%w", err)
	}
	if p.Plan.Format != frozenFormat {
		return damaged("what it runs has format %d", p.Plan.Format)
	}
	if o := p.Observed; o != nil {
		o.byPath = map[string]*Observed{}
		for _, s := range o.Steps {
			if s == nil {
				return damaged("it has observed a step without a name")
			}
			o.byPath[s.Step] = s
		}
	}
	return p, nil
}

const planAgain = "plan again: runner plan --live --out FILE RUNBOOK"

// Program binds the sources of the plan again, without reading a file. overlay, which may
// be nil, changes the inventory they are bound to: a sandbox puts its own targets in.
func (p *SavedPlan) Program(c *Catalog, overlay func(*schema.Inventory) (*schema.Inventory, error)) (*Program, *Inputs, error) {
	return p.Plan.bind(c, overlay, rebinding{refused: "the runbook of the saved plan, which the one that made the plan took",
		kinds: "step kinds that the plan uses differ between this binary and the one that made it", hint: planAgain + "; or run it with version " + p.Plan.Version})
}

// Usable says why a saved plan cannot be used, by a *UsageError: it has expired, or it
// has had its one use in this state directory.
func (p *SavedPlan) Usable(store journal.Store, now time.Time) error {
	if !now.Before(p.Expires) {
		return &UsageError{Err: fmt.Errorf("saved plan %s expired at %s, %s ago", p.ID, p.Expires.Format(time.RFC3339), shortDuration(now.Sub(p.Expires).Truncate(time.Second))), Hint: planAgain}
	}
	return p.unused(store, store.PlanUnused(p.ID))
}

// use is what a run that uses the plan records of it; of no plan nothing.
func (p *SavedPlan) use() *PlanUse {
	if p == nil {
		return nil
	}
	return &PlanUse{ID: p.ID, Operator: p.Plan.Operator.Name, Created: p.Created}
}

// orUsed is the error of a lock that another run holds, unless that run has just used
// this very plan.
func (p *SavedPlan) orUsed(store journal.Store, locked error) error {
	if p == nil {
		return locked
	}
	if used := p.unused(store, store.PlanUnused(p.ID)); used != nil {
		return used
	}
	return locked
}

// unused makes a *UsageError of the error of a use.
func (p *SavedPlan) unused(store journal.Store, err error) error {
	if err == nil {
		return nil
	}
	e := &UsageError{Err: err, Hint: planAgain}
	used := new(journal.UsedError)
	if !errors.As(err, &used) {
		return e
	}
	e.Err = fmt.Errorf("saved plan %s was used already, by run %s of %s, at %s", p.ID, used.By.Run, used.By.Operator, used.By.Since.UTC().Format(time.RFC3339))
	e.Hint = "runner runs show " + used.By.Run + "; to run it once more, " + planAgain
	if run, found := store.Find(used.By.Run); found != nil {
		e.Err = fmt.Errorf("%w, of which there is nothing here: it ended before it began anything, or was removed", e.Err)
		e.Hint = planAgain
	} else if _, missing := os.Stat(run.JournalPath()); missing != nil {
		e.Err = fmt.Errorf("%w, which ended before it began anything", e.Err)
		e.Hint = planAgain
	}
	return e
}

// redeem looks at the targets again, and uses the saved plan up where nothing has
// drifted. The run holds its lock by then, so that no other one changes what is seen.
func (x *run) redeem(ctx context.Context, p *SavedPlan, inputs *Inputs) error {
	if p == nil {
		return nil
	}
	if err := x.lookAgain(ctx, p, inputs); err != nil {
		return err
	}
	return p.unused(x.cfg.Store, x.cfg.Store.UsePlan(p.ID, x.holder()))
}

// lookAgain refuses a saved plan of which a fact has drifted, by a *DriftError.
func (x *run) lookAgain(ctx context.Context, p *SavedPlan, inputs *Inputs) error {
	if p == nil || p.Observed == nil {
		return nil
	}
	now, err := x.survey(ctx, inputs)
	if err != nil {
		return err
	}
	if drifts := p.Observed.Drift(now); len(drifts) > 0 {
		return &DriftError{Plan: p.ID, Drifts: drifts}
	}
	return nil
}
