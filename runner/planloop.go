package runner

import (
	"errors"
	"fmt"
	"strings"
)

// fanOut plans a step for each of its targets.
func (pl *planner) fanOut(s *planScope, n *Node, path string) *PlanStep {
	ps := pl.container(s, n, path, ShapeFanOut)
	ps.Loop = &PlanLoop{Items: len(n.Targets)}
	pl.loopSettings(s, n, ps)
	for _, t := range n.Targets {
		at := itemPath(n, path, t.Name)
		inner := s.with(at+"/", map[string]any{"item": s.targets[t.Name].shown}, nil)
		inner.fan = t.Name
		ps.Steps = append(ps.Steps, pl.one(inner, n, at, false))
		ps.Targets = append(ps.Targets, s.targets[t.Name].PlanTarget)
	}
	if n.Loop != nil {
		pl.batches(s, n, ps, len(n.Targets))
	}
	return ps
}

// container is the head of a loop or fan-out: what is asked once.
func (pl *planner) container(s *planScope, n *Node, path, shape string) *PlanStep {
	ps := &PlanStep{Path: path, ID: n.ID, Shape: shape, Effect: n.Effect.String(), Tags: n.Tags, OnFailure: n.OnFailure, node: n}
	if n.Shape == Leaf {
		ps.Kind = n.Kind.Name
	} else if n.Shape == Call {
		ps.Kind = n.Step.Uses.Value
	}
	quiet := s.with(s.prefix, nil, nil)
	quiet.unknown = map[string]string{}
	for k, v := range s.unknown {
		quiet.unknown[k] = v
	}
	if n.Loop != nil {
		quiet.unknown[n.Loop.As], quiet.unknown["index"] = "of each item", "of each item"
	}
	pl.describe(quiet, n, ps)
	pl.conditions(s, n, ps, true)
	pl.limits(quiet, n, ps)
	pl.gate(quiet, n, ps)
	if len(n.Rescue) > 0 {
		ps.Rescue = pl.rescue(s, n)
	}
	return ps
}

// loop plans a node for each item of its list, where that is known, and once for all otherwise.
func (pl *planner) loop(s *planScope, n *Node, path string) *PlanStep {
	l := n.Loop
	ps := pl.container(s, n, path, ShapeLoop)
	ps.Loop = &PlanLoop{As: l.As, Over: templateSource(l.Over), Items: -1}
	pl.loopSettings(s, n, ps)
	v, why, err := pl.eval(s, l.Over)
	var items []item
	if err == nil && why == "" {
		items, err = pl.items(s, n, path, v)
	} else if found, ok := pl.seen.items(n, path); ok && err == nil {
		items, why = found, ""
	}
	if err != nil {
		pl.problem(n.Unit, l.Over.At, "for-each", fmt.Sprintf("step %s: %v", path, err))
		why = "it fails"
	}
	if why != "" {
		ps.Loop.Unknown = why
		pl.head.unknownLoop(s, ps)
		inner := s.with(itemPath(n, path, "*")+"/", nil, map[string]string{l.As: "of each item", "index": "of each item"})
		ps.Steps = []*PlanStep{pl.one(inner, n, strings.TrimSuffix(inner.prefix, "/"), false)}
		pl.batches(s, n, ps, -1)
		return ps
	}
	ps.Loop.Items = len(items)
	ps.Steps = make([]*PlanStep, 0, len(items))
	for i, it := range items {
		inner := s.with(it.path+"/", map[string]any{l.As: it.value, "index": i}, nil)
		ps.Steps = append(ps.Steps, pl.one(inner, n, it.path, false))
	}
	pl.batches(s, n, ps, len(items))
	return ps
}

// loopSettings are those of a loop, or of a fan-out that says how many at a time.
func (pl *planner) loopSettings(s *planScope, n *Node, ps *PlanStep) {
	l := n.Loop
	if l == nil {
		return
	}
	for _, o := range []struct {
		key string
		set Setting[int]
	}{{"max-parallel", l.MaxParallel}, {"max-failures", l.MaxFailures}} {
		if o.set.Set {
			text, _ := settingText(pl, s, o.set)
			ps.Settings = append(ps.Settings, PlanSetting{o.key, text})
		}
	}
	if l.PauseBetween.Set {
		ps.Loop.Pause, _ = settingText(pl, s, l.PauseBetween)
	}
	if l.OnChange != "" {
		ps.Settings = append(ps.Settings, PlanSetting{"on-change", l.OnChange})
	}
}

// batches are the waves of so many items, -1 where that is not known, and what runs after each.
func (pl *planner) batches(s *planScope, n *Node, ps *PlanStep, items int) {
	if n.Loop.Batch != nil {
		v, why, err := pl.eval(s, n.Loop.Batch)
		switch {
		case err != nil:
		case why == "" && items >= 0:
			ps.Loop.Batches, err = waveSizes(v, items)
		default:
			ps.Settings = append(ps.Settings, PlanSetting{"batch", jsonText(pl.partial(s, n.Loop.Batch))})
		}
		if err != nil {
			pl.problem(n.Unit, n.Loop.Batch.At, "batch", fmt.Sprintf("step %s: %v", ps.Path, err))
		}
	}
	if len(n.AfterBatch) > 0 {
		inner := s.with(ps.Path+"[batch *]/", nil, map[string]string{"batch": "of each wave"})
		ps.AfterBatch = pl.list(inner, n.AfterBatch)
	}
}

// items gives the items of a loop over a value, named as the engine names them.
func (pl *planner) items(s *planScope, n *Node, path string, over any) ([]item, error) {
	inner := s.with(s.prefix, map[string]any{n.Loop.As: nil, "index": 0}, nil)
	return loopItems(n, path, over, func(it item) (any, error) {
		inner.env[n.Loop.As], inner.env["index"] = it.value, it.index
		v, why, err := pl.eval(inner, n.Loop.Key)
		if why != "" {
			err = fmt.Errorf("it is only known %s", why)
		}
		return v, err
	})
}

// waveSizes gives the sizes of the waves of n items.
func waveSizes(spec any, n int) ([]int, error) {
	list, ok := spec.([]any)
	if !ok {
		list = []any{spec}
	}
	if len(list) == 0 {
		return nil, errors.New("batch: it is empty")
	}
	var waves []int
	for i, left := 0, n; left > 0; i++ {
		size, err := waveSize(list[min(i, len(list)-1)], n)
		if err != nil {
			return nil, err
		}
		waves = append(waves, min(size, left))
		left -= waves[i]
	}
	return waves, nil
}

// templateSource is what the author wrote, as far as one line tells it.
func templateSource(t *Template) string {
	switch {
	case t == nil:
		return ""
	case t.Expr != nil:
		return t.Expr.Source
	case t.Constant:
		text := ShowValue(t.Literal)
		if len(text) > 60 {
			text = text[:57] + "…"
		}
		return text
	}
	return "a list"
}
