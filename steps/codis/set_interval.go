package codis

import (
	"context"
	"time"

	"runbook/steps"
)

type setIntervalIn struct {
	Interval time.Duration `yaml:"interval,required" doc:"Pause after each round of a migration, 0 to 1s, in whole microseconds."`
}

type setIntervalOut struct {
	Interval time.Duration `yaml:"interval" doc:"Pause after each round, as the dashboard has it now." min:"0"`
}

// memoryBefore is what putting a setting back needs that lives in the dashboard's memory alone: its value,
// and which process had it.
type memoryBefore struct {
	Value int   `json:"value"`
	Model Model `json:"model"`
}

func setInterval() *steps.Kind[setIntervalIn, setIntervalOut] {
	return &steps.Kind[setIntervalIn, setIntervalOut]{
		Name:       "codis.set-interval",
		Doc:        "Sets how long the dashboard pauses after each round of a migration, which slows migrations down. Sends PUT slots/action/interval.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: gently, uses: codis.set-interval, target: codis1, with: {interval: 200ms}}`,
		Pitfalls: []string{
			"Only the dashboard's memory has it: a restart sets it to 0 without a word. The probe sees that the value is not there, and the undo puts the old one back after a restart too.",
			"More than a second is cut down to one by Codis silently, so it is refused here.",
			"A round moves up to 500 keys (semi-async) or one key with its hash tag (sync), so 200ms is 2500 or some 5 keys a second for each pair of groups.",
			"The undo leaves a value that somebody else has set since.",
		},
		Valid: func(in setIntervalIn, unknown func(string) bool) []steps.Problem {
			if unknown("interval") {
				return nil
			}
			if why := badInterval(in.Interval); why != "" {
				return []steps.Problem{{Input: "interval", Message: why}}
			}
			return nil
		},
		Plan: func(ctx context.Context, v *steps.View, in setIntervalIn) (steps.Change, error) {
			return planMemory(ctx, v, interval, microseconds(in.Interval))
		},
		Probe: func(ctx context.Context, v steps.View, in setIntervalIn) (steps.State, setIntervalOut, error) {
			state, err := probeMemory(ctx, v, interval, microseconds(in.Interval))
			if state != steps.Done {
				return state, setIntervalOut{}, err
			}
			return state, setIntervalOut(in), err
		},
		Apply: func(ctx context.Context, s steps.Session, in setIntervalIn) (setIntervalOut, error) {
			c, err := session(ctx, s)
			if err != nil {
				return setIntervalOut{}, err
			}
			return setIntervalOut(in), c.setMemory(ctx, interval, microseconds(in.Interval))
		},
		Undo: func(ctx context.Context, s steps.Session, in setIntervalIn, _ *setIntervalOut) error {
			return undoMemory(ctx, s, interval, microseconds(in.Interval))
		},
		UndoPlan: func(setIntervalIn) string {
			return "PUT /api/topom/slots/action/interval/" + maskedXAuth + " with the value before, if it is still ours"
		},
	}
}

func microseconds(d time.Duration) int { return int(d / time.Microsecond) }

// badInterval says why a pause cannot be set; empty: it can.
func badInterval(d time.Duration) string {
	switch {
	case d < 0 || d > time.Second:
		return "0 to 1s: Codis cuts it down to that without a word"
	case d%time.Microsecond != 0:
		return "Codis counts in whole microseconds"
	}
	return ""
}

// memorySetting is a setting of migrations that only the dashboard's memory has: the last words of its command.
type memorySetting string

const (
	interval memorySetting = "interval"
	disabled memorySetting = "disabled"
)

func (m memorySetting) command() string { return "slots/action/" + string(m) }

// of gives the setting's value, as a request would set it.
func (m memorySetting) of(a SlotAction) int {
	switch {
	case m == interval:
		return a.Interval
	case a.Disabled:
		return 1
	}
	return 0
}

func planMemory(ctx context.Context, v *steps.View, m memorySetting, wanted int) (steps.Change, error) {
	change := steps.Change{Lines: []steps.Line{line(v, m.command(), number(wanted))}}
	if v == nil {
		return change, nil
	}
	c, stats, err := look(ctx, *v)
	if err != nil {
		return steps.Change{}, err
	}
	model, err := c.Model(ctx)
	if err != nil {
		return steps.Change{}, err
	}
	now := m.of(stats.SlotAction)
	change.Before = memoryBefore{Value: now, Model: model}
	change.Lines[0].From, change.Lines[0].To = number(now), number(wanted)
	return change, nil
}

func probeMemory(ctx context.Context, v steps.View, m memorySetting, wanted int) (steps.State, error) {
	_, stats, err := look(ctx, v)
	switch {
	case err != nil:
		return steps.Unclear, err
	case m.of(stats.SlotAction) != wanted:
		return steps.Untouched, nil
	}
	return steps.Done, nil
}

// setMemory sets it and reads it back.
func (c *Client) setMemory(ctx context.Context, m memorySetting, wanted int) error {
	if err := c.Put(ctx, m.command(), number(wanted)); err != nil {
		return err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return afterwards(err)
	}
	if now := m.of(stats.SlotAction); now != wanted {
		return afterwards(steps.Errorf("conflict", "put %s on %s: %d was sent, and it is %d", m.command(), c.Addr(), wanted, now))
	}
	return nil
}

// undoMemory puts the value before back, unless it is neither ours nor what a restart leaves.
func undoMemory(ctx context.Context, s steps.Session, m memorySetting, ours int) error {
	var before memoryBefore
	has, err := s.Before(&before)
	if err != nil || !has {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	model, err := c.Model(ctx)
	if err != nil {
		return err
	}
	now := m.of(stats.SlotAction)
	reset := now == 0 && !model.SameProcess(before.Model)
	switch {
	case now == before.Value:
		return nil
	case now != ours && !reset:
		return steps.Errorf("conflict", "put %s on %s back to %d: it is %d now, which this step did not set", m.command(), c.Addr(), before.Value, now).
			WithHint("somebody else has changed it; set it by hand if the old value is wanted")
	}
	return c.setMemory(ctx, m, before.Value)
}
