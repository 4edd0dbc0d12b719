package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
)

// pastGuards are what earlier processes journaled of stop conditions, by their paths.
type pastGuards struct {
	trips     map[string]dated[*GuardTripped]
	held      map[string]int64 // the last guard-observed that held
	overrides map[string]int64 // guard-overridden, by what the operator named: a path or an id
}

func newPastGuards() pastGuards {
	return pastGuards{trips: map[string]dated[*GuardTripped]{}, held: map[string]int64{}, overrides: map[string]int64{}}
}

func (p *pastGuards) add(r journal.Record) error {
	switch r.Type {
	case recGuardObserved:
		var b GuardObserved
		if err := r.Decode(&b); err != nil {
			return err
		}
		if b.Holds {
			p.held[b.Guard] = r.Seq
		}
	case recGuardTripped:
		b := &GuardTripped{}
		if err := r.Decode(b); err != nil {
			return err
		}
		b.element = r.Step
		p.trips[b.Guard] = dated[*GuardTripped]{b, r.Seq}
	case recGuardOverridden:
		var b GuardOverridden
		if err := r.Decode(&b); err != nil {
			return err
		}
		p.overrides[b.Guard] = r.Seq
	}
	return nil
}

// standing is how a stop condition stands by the journal.
type standing struct {
	trip       *GuardTripped // it has tripped, and has neither held nor been overridden since; nil: no
	rolledBack bool          // the rollback that this trip asked for has been carried out
	excused    bool          // overridden, and not seen to hold since
}

func (p *past) standing(name, element string) standing {
	trip, held, overridden := p.guards.trips[name], p.guards.held[name], p.guards.overrides[name]
	overridden = max(overridden, p.guards.overrides[lastID(name)])
	anew := p.since(element)
	st := standing{excused: overridden > held}
	if trip.v != nil && trip.seq > max(held, overridden, anew.retried, anew.gone) {
		st.trip, st.rolledBack = trip.v, p.rollbacks[element].finished > trip.seq
	}
	return st
}

// owesRollback says that a process died between a trip and the rollback that it asks for.
func (s standing) owesRollback() bool {
	return s.trip != nil && s.trip.Then == ThenRollback && !s.rolledBack
}

// again makes a trip one of what had tripped before. It only keeps the run from going on:
// what the first one asked for has been done.
func (s standing) again(t *GuardTripped) *GuardTripped {
	t.Then, t.Since, t.Again = ThenPause, s.trip.Since, true
	return t
}

// firstStarted is when a group first started, by the journal; zero: it has not.
func (p *past) firstStarted(path string) time.Time {
	if s := p.live(path); s != nil {
		return s.first
	}
	return time.Time{}
}

// tripsOpen says that a group is under way in which a stop condition had tripped, and has
// neither held nor been overridden since.
func (p *past) tripsOpen() bool {
	for name, trip := range p.guards.trips {
		if element := trip.v.element; element != "" && p.open(element) && p.standing(name, element).trip != nil {
			return true
		}
	}
	return false
}

// lookFirst looks, before anything starts, at the stop conditions of groups that had tripped
// when the run stopped: in other branches, too, nothing changes before they hold. To know
// what they look at it walks through what earlier processes did, and forgets that again.
func (x *run) lookFirst(ctx context.Context, fr *frame) *halt {
	if !x.past.tripsOpen() {
		return nil
	}
	log := x.acts
	x.acts, x.lookingFirst = &acts{}, true
	defer func() { x.acts, x.lookingFirst = log, false }()
	return x.retraceAll(ctx, newScope(fr, nil, "", nil), x.prog.Root.Steps)
}

// checkTrips looks at what had tripped in a group that is under way.
func (x *run) checkTrips(ctx context.Context, s *scope, n *Node, path string) *halt {
	if !x.lookingFirst || !x.past.open(path) || path != s.prefix+n.ID {
		return nil
	}
	ignore := func(error) {}
	w := &watch{x: x, n: n, s: s, path: path, stop: ignore, cut: ignore, ended: make(chan struct{})}
	for _, g := range n.Guards {
		k := w.sentry(g)
		if k.stands.trip == nil || k.stands.owesRollback() {
			continue
		}
		soft, done := softly(ctx)
		if k.look(soft) {
			x.past.guards.held[k.name] = x.journal.Last()
		}
		done()
		if h := stopped(ctx, path); h != nil {
			return h
		}
	}
	if n.MaxAge != nil {
		if stands := x.past.standing(path, path); stands.trip != nil && !stands.owesRollback() {
			w.trip(stands.again(n.MaxAge.trip(path)))
		}
	}
	return w.verdict(nil)
}

// Override lets a run go on although a stop condition does not hold.
type Override struct {
	Guard  string // id or path of a guard, or of a group with a max-age
	Reason string
}

// override journals what an operator overrides.
func (x *run) override(ctx context.Context, overrides []Override) error {
	for _, o := range overrides {
		body := &GuardOverridden{Guard: o.Guard, Reason: o.Reason, Person: x.cfg.Operator.person()}
		if err := x.durable(ctx, recGuardOverridden, "", body); err != nil {
			return err
		}
		x.past.guards.overrides[o.Guard] = x.journal.Last()
	}
	return nil
}

// overridable refuses what cannot be overridden.
func (p *Program) overridable(overrides []Override) error {
	known := p.StopConditions()
	for _, o := range overrides {
		switch id := lastID(o.Guard); {
		case strings.TrimSpace(o.Reason) == "":
			return &UsageError{Err: fmt.Errorf("guard %s: overriding it needs a reason: it is journaled", o.Guard), Hint: "--reason TEXT"}
		case len(known) == 0:
			return &UsageError{Err: fmt.Errorf("--override %s: this runbook has no stop conditions", o.Guard)}
		case !slices.Contains(known, id):
			hint := "there are " + strings.Join(known, ", ")
			if near, ok := schema.Nearest(id, known); ok {
				hint = "did you mean --override " + near + "?"
			}
			return &UsageError{Err: fmt.Errorf("--override %s: there is no such guard, and no group of that name with a max-age", o.Guard), Hint: hint}
		}
	}
	return nil
}

// StopConditions are the ids of the program's guards, and of its groups that have a max-age.
func (p *Program) StopConditions() []string {
	var ids []string
	seen := map[*Unit]bool{}
	var visit func(u *Unit)
	visit = func(u *Unit) {
		if u == nil || seen[u] {
			return
		}
		seen[u] = true
		for _, g := range u.Guards {
			ids = append(ids, g.ID)
		}
		u.each(func(n *Node) {
			for _, g := range n.Guards {
				ids = append(ids, g.ID)
			}
			if n.MaxAge != nil {
				ids = append(ids, n.ID)
			}
			visit(n.Sub)
		})
	}
	visit(p.Root)
	slices.Sort(ids)
	return slices.Compact(ids)
}
