package codis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type migrateSlotsIn struct {
	Slots    schema.Slots   `yaml:"slots,required" doc:"Slots to move; those that are in to_group already are left alone."`
	ToGroup  int            `yaml:"to_group,required" doc:"Group that they shall belong to." min:"1" max:"9999"`
	Interval *time.Duration `yaml:"interval" doc:"Pause after each round while this step runs, 0 to 1s, set back at its end; as the dashboard has it where none is given."`
	Every    time.Duration  `yaml:"every" doc:"Time between two looks." default:"500ms" min:"200ms" max:"1m"`
	Stall    time.Duration  `yaml:"stall" doc:"Longest time without any slot or key moving; then the step fails, and the migration stays where it is." default:"1m" min:"1s"`
}

type migrateSlotsOut struct {
	Slots     string `yaml:"slots" doc:"The slots, such as 0-511."`
	Group     int    `yaml:"group" doc:"Group that they belong to, by the dashboard and every proxy."`
	Remaining int64  `yaml:"remaining" doc:"Keys of these slots that are left on the masters they came from: 0." min:"0"`
}

// migrationBefore is what moving back needs.
type migrationBefore struct {
	Groups   map[int]schema.Slots `json:"groups"`
	Interval int                  `json:"interval"` // µs
}

func migrateSlots() *steps.Kind[migrateSlotsIn, migrateSlotsOut] {
	return &steps.Kind[migrateSlotsIn, migrateSlotsOut]{
		Name: "codis.migrate-slots",
		Doc: "Moves slots with their keys by Codis' own migration, while clients go on, and waits until all have moved. Sends PUT slots/action/create (create-range for neighbours), polls GET /topom/stats, " +
			"and counts keys on the masters of both sides (SLOTSINFO).",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: move, uses: codis.migrate-slots, target: codis1, with: {slots: "0-15", to_group: 3, interval: 10ms}, timeout: 2h}`,
		Pitfalls: []string{
			"Codis' \"finished\" proves that the source's server has answered 0, not that a key has moved: keys are counted on both sides, and a source that keeps some, or a target that has none of what was there, fails the step.",
			"Pika 3.2 to 3.4 answers 0 to whatever Codis asks it to migrate, with nothing moved: it is refused as source and as target. Its slots move by replication (codis.switch-slot).",
			"A migration has no end of its own: there is no limit of tries, no failed state and no way to cancel but while it is pending. Nothing moving for stall, a state that is over in milliseconds being seen again (preparing, finished: a proxy does not take the change), and an [ERROR] of the dashboard about these slots are told; the dashboard goes on trying after the step has failed.",
			"progress of the dashboard is the last line that anybody wrote and is never cleared: an old [ERROR] in it is no failure.",
			"A target without SLOTSRESTORE (a plain Redis) takes no key: both masters must answer SLOTSINFO.",
			"A slot whose old group has no server has nothing to move and is handed over as it is.",
			"A Pika of 2.2 to 2.3, or from 3.5 on, damages some keys on the way: reversed lists, rounded scores, keys that are missed or stay. pika.check-keys tells whether there are any.",
			"One big key moves at once with migration_method sync: both servers stand still meanwhile.",
			"The interval lives in the dashboard's memory: a crash of the runner leaves it, the resumed step or the undo puts it back.",
			"The undo moves the slots back, key by key.",
		},
		Valid: func(in migrateSlotsIn, unknown func(string) bool) []steps.Problem {
			p := slotsProblem(in.Slots)
			if in.Interval != nil && !unknown("interval") {
				if why := badInterval(*in.Interval); why != "" {
					p = append(p, steps.Problem{Input: "interval", Message: why})
				}
			}
			return p
		},
		Check: func(ctx context.Context, v steps.View, in migrateSlotsIn) error {
			c, stats, err := look(ctx, v)
			if err != nil {
				return err
			}
			return c.migratable(ctx, stats, in.Slots, in.ToGroup)
		},
		Plan:  planMigrateSlots,
		Probe: probeMigrateSlots,
		Apply: applyMigrateSlots,
		Undo:  undoMigrateSlots,
		UndoPlan: func(in migrateSlotsIn) string {
			return fmt.Sprintf("migrate slots %s back to the groups before, by PUT slots/action/create", in.Slots)
		},
	}
}

// migratable refuses what would hang, or would seem to move and not.
func (c *Client) migratable(ctx context.Context, stats Stats, slots schema.Slots, group int) error {
	what := fmt.Sprintf("migrate slots %s to group %d", slots, group)
	g, err := stats.needGroup(group)
	switch {
	case err != nil:
		return err
	case len(g.Servers) == 0:
		return steps.Precondition("%s: the group has no server", what).WithHint("codis.add-server adds one")
	case stats.SlotAction.Disabled:
		return steps.Precondition("%s: migrations are paused, nothing would move", what).WithHint("codis.pause-actions with paused: false")
	}
	masters := map[string]bool{g.Master(): true}
	for _, id := range slots {
		m := stats.Mapping(id)
		if !m.Idle() && m.Action.TargetID != group {
			return steps.Precondition("%s: %s", what, m.words()).WithHint("let it end first")
		}
		from, _ := stats.GroupByID(m.GroupID)
		if from.Promoting.State != "" || g.Promoting.State != "" {
			return steps.Precondition("%s: a group of slot %d is being promoted", what, id)
		}
		if from.Master() != "" {
			masters[from.Master()] = true
		}
	}
	routings, err := c.allRoutings(ctx, stats.Proxy.Models)
	if err != nil {
		return err
	}
	for _, id := range slots { // a slot under an action may be locked for a moment by that
		if stats.Mapping(id).Idle() {
			if err := notHeld(routings, schema.Slots{id}, what); err != nil {
				return err
			}
		}
	}
	for addr := range masters {
		if err := c.moves(ctx, what, addr); err != nil {
			return err
		}
	}
	return nil
}

// moves refuses a master that cannot give or take keys one by one.
func (c *Client) moves(ctx context.Context, what, addr string) error {
	i, err := c.serverInfo(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if pika := pikaOf(i); movesByReplication(pika) {
		return steps.Precondition("%s: %s is a Pika %s, which answers that all has moved and moves nothing", what, addr, pika).
			WithHint("its slots move by replication: pika.slotsslaveof, and then codis.switch-slot")
	}
	if i.Role == "slave" {
		return steps.Precondition("%s: %s is the group's first server, and follows %s", what, addr, i.Master).
			WithHint("promote it, or put the real master first")
	}
	if _, err := c.keyCounts(ctx, addr); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func planMigrateSlots(ctx context.Context, v *steps.View, in migrateSlotsIn) (steps.Change, error) {
	var change steps.Change
	slots, pause := in.Slots, 0
	if v != nil {
		_, stats, err := look(ctx, *v)
		if err != nil {
			return steps.Change{}, err
		}
		pause = stats.SlotAction.Interval
		by := stats.byGroup(in.Slots)
		change.Before = migrationBefore{Groups: by, Interval: pause}
		slots = stats.toCreate(in.Slots, in.ToGroup)
		defer func() {
			if len(change.Lines) > 0 {
				change.Lines[0].From, change.Lines[0].To = groupWords(by), fmt.Sprintf("group %d", in.ToGroup)
			}
		}()
	}
	for _, words := range createRequests(slots, in.ToGroup) {
		change.Lines = append(change.Lines, line(v, words...))
	}
	if in.Interval != nil {
		set := line(v, interval.command(), number(microseconds(*in.Interval)))
		back := line(v, interval.command(), number(pause))
		change.Lines = append(append([]steps.Line{set}, change.Lines...), back)
	}
	if len(change.Lines) == 0 {
		change.Lines = []steps.Line{{Target: own(v), Command: "GET /topom/stats until every slot has moved"}}
	}
	return change, nil
}

// toCreate are the slots that are not in the group and have no action that brings them there.
func (s Stats) toCreate(slots schema.Slots, group int) schema.Slots {
	var create schema.Slots
	for _, id := range slots {
		if m := s.Mapping(id); m.GroupID != group && m.Idle() {
			create = append(create, id)
		}
	}
	return create
}

// createRequests are the requests that queue these slots: one for each run of neighbours.
func createRequests(slots schema.Slots, group int) [][]string {
	var requests [][]string
	for i := 0; i < len(slots); {
		j := i
		for j+1 < len(slots) && slots[j+1] == slots[j]+1 {
			j++
		}
		if i == j {
			requests = append(requests, []string{"slots/action/create", number(slots[i]), groupWord(group)})
		} else {
			requests = append(requests, []string{"slots/action/create-range", number(slots[i]), number(slots[j]), groupWord(group)})
		}
		i = j + 1
	}
	return requests
}

func probeMigrateSlots(ctx context.Context, v steps.View, in migrateSlotsIn) (steps.State, migrateSlotsOut, error) {
	c, stats, err := look(ctx, v)
	if err != nil {
		return steps.Unclear, migrateSlotsOut{}, err
	}
	before, has, err := migrationOf(v)
	if err != nil {
		return steps.Unclear, migrateSlotsOut{}, err
	}
	slowed := has && in.Interval != nil && stats.SlotAction.Interval == microseconds(*in.Interval) && before.Interval != stats.SlotAction.Interval
	moved, begun := 0, false
	for _, id := range in.Slots {
		m := stats.Mapping(id)
		if m.In(in.ToGroup) {
			moved++
		}
		begun = begun || !m.Idle() && m.Action.TargetID == in.ToGroup
	}
	switch {
	case moved == 0 && !begun:
		return steps.Untouched, migrateSlotsOut{}, nil
	case moved < len(in.Slots), slowed:
		return steps.Partial, migrateSlotsOut{}, nil
	}
	out, err := c.migrated(ctx, stats, in, before.Groups, nil)
	if err != nil {
		if ctx.Err() != nil {
			return steps.Unclear, migrateSlotsOut{}, err
		}
		return steps.Partial, migrateSlotsOut{}, nil
	}
	return steps.Done, out, nil
}

func migrationOf(v steps.View) (migrationBefore, bool, error) {
	var before migrationBefore
	has, err := v.Before(&before)
	return before, has, err
}

func applyMigrateSlots(ctx context.Context, s steps.Session, in migrateSlotsIn) (migrateSlotsOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return migrateSlotsOut{}, err
	}
	before, has, err := migrationOf(s.View)
	if err != nil {
		return migrateSlotsOut{}, err
	}
	if in.Interval != nil {
		if err := c.setMemory(ctx, interval, microseconds(*in.Interval)); err != nil {
			return migrateSlotsOut{}, err
		}
	}
	m := migration{c: c, s: s, slots: in.Slots, to: in.ToGroup, every: in.Every, stall: in.Stall}
	if err := m.run(ctx); err != nil {
		return migrateSlotsOut{}, afterwards(err)
	}
	if in.Interval != nil && has {
		if err := c.setMemory(ctx, interval, before.Interval); err != nil {
			return migrateSlotsOut{}, afterwards(err)
		}
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return migrateSlotsOut{}, afterwards(err)
	}
	out, err := c.migrated(ctx, stats, in, before.Groups, m.keysBefore)
	return out, afterwards(err)
}

// migrated makes sure of what Codis' "finished" does not prove: every proxy serves the slots from the new group's
// master, the masters they came from have no key of them left, and the new one has some where some were.
func (c *Client) migrated(ctx context.Context, stats Stats, in migrateSlotsIn, from map[int]schema.Slots, keysBefore map[int]int64) (migrateSlotsOut, error) {
	what := fmt.Sprintf("migrate slots %s to group %d", in.Slots, in.ToGroup)
	g, _ := stats.GroupByID(in.ToGroup)
	served, why, err := c.served(ctx, stats, in.Slots, g.Master())
	switch {
	case err != nil:
		return migrateSlotsOut{}, err
	case !served:
		return migrateSlotsOut{}, steps.Errorf("conflict", "%s: %s", what, why)
	}
	remaining, err := c.remaining(ctx, stats, in.Slots, in.ToGroup, from)
	if err != nil {
		return migrateSlotsOut{}, fmt.Errorf("%s: what is left is not known: %w", what, err)
	}
	if remaining > 0 {
		return migrateSlotsOut{}, steps.Errorf("conflict", "%s: Codis calls it finished, and %d keys of these slots are left on the masters they came from", what, remaining).
			WithHint("clients do not see them: assign the slots back (codis.assign-slots with allow_keys: true) and look why the server did not move them")
	}
	if lost, err := c.vanished(ctx, g.Master(), keysBefore); err != nil {
		return migrateSlotsOut{}, fmt.Errorf("%s: whether the keys have arrived is not known: %w", what, err)
	} else if len(lost) > 0 {
		return migrateSlotsOut{}, steps.Errorf("conflict", "%s: slots %s had keys before and have none on %s", what, lost, g.Master()).
			WithHint("a source that came back empty finishes its migration happily; if clients have not deleted them, bring the keys back from a replica or a backup")
	}
	return migrateSlotsOut{Slots: in.Slots.String(), Group: in.ToGroup}, nil
}

// remaining counts the keys of these slots on the masters of the groups they came from; of all other groups where that
// is not known.
func (c *Client) remaining(ctx context.Context, stats Stats, slots schema.Slots, to int, from map[int]schema.Slots) (int64, error) {
	var left int64
	for _, g := range stats.Group.Models {
		if _, came := from[g.ID]; g.ID == to || g.Master() == "" || from != nil && !came {
			continue
		}
		counts, err := c.keyCounts(ctx, g.Master())
		if err != nil {
			return 0, err
		}
		for _, id := range slots {
			left += counts[id]
		}
	}
	return left, nil
}

// vanished are the slots that had keys before and have none on the new master.
func (c *Client) vanished(ctx context.Context, master string, before map[int]int64) (schema.Slots, error) {
	if len(before) == 0 {
		return nil, nil
	}
	counts, err := c.keyCounts(ctx, master)
	if err != nil {
		return nil, err
	}
	var lost schema.Slots
	for _, id := range allSlots() {
		if before[id] > 0 && counts[id] == 0 {
			lost = append(lost, id)
		}
	}
	return lost, nil
}

func undoMigrateSlots(ctx context.Context, s steps.Session, in migrateSlotsIn, _ *migrateSlotsOut) error {
	before, has, err := migrationOf(s.View)
	if err != nil || !has {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	if err := c.recall(ctx, in.Slots, in.ToGroup); err != nil {
		return err
	}
	for _, group := range sorted(before.Groups) {
		if group == in.ToGroup {
			continue
		}
		stats, err := c.Stats(ctx)
		if err != nil {
			return err
		}
		var back schema.Slots
		for _, id := range before.Groups[group] {
			if m := stats.Mapping(id); m.GroupID != group || !m.Idle() {
				back = append(back, id)
			}
		}
		switch {
		case len(back) == 0:
			continue
		case group == 0:
			return steps.Precondition("migrate slots %s back: they were offline, and Codis has no way back but to leave their keys behind", back)
		}
		m := migration{c: c, s: s, slots: back, to: group, every: in.Every, stall: in.Stall}
		if err := m.run(ctx); err != nil {
			return afterwards(err)
		}
	}
	if in.Interval == nil {
		return nil
	}
	stats, err := c.Stats(ctx)
	if err != nil || stats.SlotAction.Interval != microseconds(*in.Interval) { // a restart, or somebody else, has set it
		return err
	}
	return c.setMemory(ctx, interval, before.Interval)
}

// recall takes back the actions towards a group that have not begun.
func (c *Client) recall(ctx context.Context, slots schema.Slots, to int) error {
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	for _, id := range slots {
		if m := stats.Mapping(id); m.Action.State == "pending" && m.Action.TargetID == to {
			err := c.Put(ctx, "slots/action/remove", number(id))
			if cause, ok := Cause(err); ok && (strings.HasSuffix(cause, "action isn't pending") || strings.HasSuffix(cause, "action doesn't exist")) {
				continue // it has begun since the look, or ended: it is moved back like the others
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
