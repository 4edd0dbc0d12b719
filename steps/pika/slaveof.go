package pika

import (
	"context"
	"fmt"
	"net"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type slaveOfIn struct {
	Master schema.Endpoint `yaml:"master" doc:"Instance to follow: a pika target's name, or IP:port."`
	None   bool            `yaml:"none" doc:"Follow nobody: become a master that takes writes, and keep the data." default:"false"`
	Force  bool            `yaml:"force" doc:"Replace the data by a full sync from the master." default:"false"`
}

type slaveOfOut struct {
	Role       string `yaml:"role" doc:"master, slave, both or double_master."`
	MasterAddr string `yaml:"master_addr" doc:"IP:port of the master followed; empty: nobody."`
}

// following is what undoing needs: whom the server followed; empty: nobody.
type following struct {
	Master string `json:"master"`
}

func slaveOf() *steps.Kind[slaveOfIn, slaveOfOut] {
	return &steps.Kind[slaveOfIn, slaveOfOut]{
		Name:       "pika.slaveof",
		Doc:        "Makes an instance in mode classic the replica of another, or with none: true a master. Sends SLAVEOF once. It does not wait until the replica has caught up: that is what pika.info with wait-until is for.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: follow, uses: pika.slaveof, target: pika2, with: {master: pika1, force: true}}`,
		Pitfalls: []string{
			"OK means that the order was accepted. A server that follows that master already is not told again: in 2.3 the word force then arms a full sync for the next reconnection.",
			"An instance with a binlog of its own is refused without force: it would end in kError, or be taken for a replica that has all.",
			"Releases before 2.3.3 and later ones do not replicate with each other, nor do 2.x and 3.x, though both say OK, and some say up and online: the two releases are compared (pika.check-release says more).",
			"A full sync needs rsync on both machines, the rsync port, and the same password on both sides, and never ends without (kWaitDBSync, repl_state 4): pika.check-rsync-port first, and a time limit on the wait.",
			"On a double master slaveof overwrites the side that it is sent to, and takes the configured peer alone: it is refused without force where that side has data.",
			"An instance in mode sharding follows by slots: pika.slotsslaveof. Release 3.2.9 would answer OK here and order all its slots.",
			"none: true lets the instance take writes at once. Undo brings the old role back, never the old data.",
		},
		Valid: func(in slaveOfIn, unknown func(string) bool) []steps.Problem {
			if unknown("master") || unknown("none") {
				return nil
			}
			if (in.Master != "") == in.None {
				return []steps.Problem{{Message: "exactly one of master and none: true is wanted"}}
			}
			if in.None && in.Force {
				return []steps.Problem{{Input: "force", Message: "force is about following a master"}}
			}
			return nil
		},
		Check:    checkSlaveOf,
		Plan:     planSlaveOf,
		Probe:    probeSlaveOf,
		Apply:    applySlaveOf,
		Undo:     undoSlaveOf,
		UndoPlan: func(slaveOfIn) string { return "SLAVEOF the master before, or no one" },
	}
}

// command is SLAVEOF; an empty master: no one. In a plan without targets the master may be a name.
func (in slaveOfIn) command(master string) []string {
	cmd := []string{"SLAVEOF"}
	if host, port, err := net.SplitHostPort(master); err == nil {
		cmd = append(cmd, host, port)
	} else if master != "" {
		cmd = append(cmd, master)
	} else {
		return append(cmd, "no", "one")
	}
	if in.Force {
		cmd = append(cmd, "force")
	}
	return cmd
}

// addr finds the master's address; empty: nobody.
func (in slaveOfIn) addr(ctx context.Context, v steps.View, c *Client) (string, error) {
	if in.None {
		return "", nil
	}
	m, err := findMaster(ctx, v, c, in.Master)
	if err != nil {
		return "", err
	}
	m.close()
	return m.addr, nil
}

func checkSlaveOf(ctx context.Context, v steps.View, in slaveOfIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	if mode, err := c.Mode(ctx); err != nil || mode != Classic {
		return orMode(err, c, mode)
	}
	me, err := c.Info(ctx)
	if err != nil || in.None {
		return err
	}
	m, err := findMaster(ctx, v, c, in.Master)
	if err != nil {
		return err
	}
	defer m.close()
	if me.Role == "slave" && me.Master == m.addr {
		return nil
	}
	if mode, err := m.c.Mode(ctx); err != nil || mode != Classic {
		return orMode(err, m.c, mode)
	}
	them, err := m.c.Info(ctx)
	if err != nil {
		return err
	}
	refused := func(format string, a ...any) *steps.Error {
		return steps.Precondition("make %s follow %s: %s", c.Addr(), m.addr, fmt.Sprintf(format, a...))
	}
	switch bar := replicates(me.Release, them.Release); {
	case bar != nil:
		return refused("%s", bar.Message).WithHint("%s", bar.Fix)
	case them.Master == c.Addr() && them.Role != "double_master":
		return refused("that follows this one")
	case me.Connected > 0 && me.Role == "master" && me.Release.atLeast(3, 1, 0):
		return refused("it has %d replicas of its own", me.Connected).WithHint("detach them first")
	case me.Role == "double_master" && me.Master != m.addr:
		return refused("it is a double master of %s, and follows that one alone", me.Master)
	case me.Role == "double_master" && me.State == StateConnected:
		return refused("it is connected to it as a double master, which takes no slaveof")
	case me.State == StateWaitDBSync || me.State == StateTryDBSync:
		return refused("a full sync from %s is under way", me.Master).WithHint("wait for its end, or give it up with none: true")
	case in.Force || me.Role == "slave":
	case me.Role == "double_master" && me.Offset != nil && !me.Offset.IsZero():
		return refused("it is a double master with data, which would be overwritten").WithHint("force: true, on the side whose data is not wanted")
	case me.Offset != nil && !me.Offset.IsZero():
		return refused("it has a binlog of its own (at %s)", me.Offset).WithHint("force: true replaces its data")
	}
	return checkSecrets(ctx, c, m.c)
}

func orMode(err error, c *Client, mode string) error {
	if err != nil {
		return err
	}
	return steps.Precondition("slaveof on %s: it runs in mode %s", c.Addr(), mode).WithHint("an instance in mode sharding follows by slots: pika.slotsslaveof")
}

func planSlaveOf(ctx context.Context, v *steps.View, in slaveOfIn) (steps.Change, error) {
	if v == nil {
		return steps.Change{Lines: []steps.Line{{Command: redis.Line(in.command(string(in.Master))), To: in.words()}}}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	i, err := c.Info(ctx, "replication")
	if err != nil {
		return steps.Change{}, err
	}
	addr, err := in.addr(ctx, *v, c)
	if err != nil {
		return steps.Change{}, err
	}
	from := i.Role
	if i.Master != "" {
		from = "follows " + i.Master
	}
	line := steps.Line{Target: own(v), Command: redis.Line(in.command(addr)), From: from, To: in.words()}
	return steps.Change{Lines: []steps.Line{line}, Before: following{Master: i.Master}}, nil
}

func (in slaveOfIn) words() string {
	if in.None {
		return "master"
	}
	return "replica of " + string(in.Master)
}

func probeSlaveOf(ctx context.Context, v steps.View, in slaveOfIn) (steps.State, slaveOfOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, slaveOfOut{}, err
	}
	addr, err := in.addr(ctx, v, c)
	if err != nil {
		return steps.Unclear, slaveOfOut{}, err
	}
	i, err := c.Info(ctx, "replication")
	if err != nil {
		return steps.Unclear, slaveOfOut{}, err
	}
	if i.Master != addr || !in.None && i.Role == "double_master" || in.Force && i.State == StateError {
		return steps.Untouched, slaveOfOut{}, nil
	}
	return steps.Done, slaveOfOut{Role: i.Role, MasterAddr: i.Master}, nil
}

func applySlaveOf(ctx context.Context, s steps.Session, in slaveOfIn) (slaveOfOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return slaveOfOut{}, err
	}
	state, out, err := probeSlaveOf(ctx, s.View, in)
	if err != nil || state == steps.Done {
		return out, err
	}
	addr, err := in.addr(ctx, s.View, c)
	if err != nil {
		return slaveOfOut{}, err
	}
	if err := c.order(ctx, in.command(addr)); err != nil {
		return slaveOfOut{}, err
	}
	i, err := c.Info(ctx, "replication")
	switch {
	case err != nil:
		return slaveOfOut{}, err
	case i.Master != addr:
		return slaveOfOut{}, steps.Errorf("conflict", "%s on %s was answered with OK, and it follows %q", redis.Line(in.command(addr)), c.Addr(), i.Master)
	}
	return slaveOfOut{Role: i.Role, MasterAddr: i.Master}, nil
}

func undoSlaveOf(ctx context.Context, s steps.Session, in slaveOfIn, _ *slaveOfOut) error {
	var before following
	has, err := s.Before(&before)
	if err != nil {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	addr, err := in.addr(ctx, s.View, c)
	if err != nil {
		return err
	}
	i, err := c.Info(ctx, "replication")
	switch {
	case err != nil:
		return err
	case !has:
		return steps.Errorf("precondition", "put the master of %s back: whom it followed before is not known", c.Addr())
	case i.Master == before.Master:
		return nil
	case i.Master != addr:
		return steps.Errorf("conflict", "put the master of %s back: it follows %q now, which this step did not make it do", c.Addr(), i.Master).
			WithHint("somebody else has changed it; decide by hand")
	}
	// What this step has replaced is not there any more: going back to a master then takes a full sync from that one.
	return c.order(ctx, in.command(before.Master))
}
