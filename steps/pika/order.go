package pika

import (
	"context"
	"net"
	"strconv"
	"time"

	"runbook/schema"
)

// SlotsSlaveOf orders slots of table 0 to follow a master, once. nil means that the order was accepted: whether
// they follow, and when they have caught up, Slots tells. Slots that are connected to this master already stay as
// they are; any other starts anew, also one in the middle of a full sync, which it then never finishes: leave
// those out. force replaces the slots' data by a full sync.
func (c *Client) SlotsSlaveOf(ctx context.Context, slots schema.Slots, master string, force bool) error {
	return c.order(ctx, slotsSlaveOf(0, slots, master, force))
}

// SlotsDetach orders slots of table 0 to follow nobody: they become masters that take writes, and keep their data.
func (c *Client) SlotsDetach(ctx context.Context, slots schema.Slots) error {
	return c.order(ctx, slotsSlaveOf(0, slots, "", false))
}

func (c *Client) order(ctx context.Context, cmd []string) error {
	_, err := c.Do(ctx, cmd...)
	return err
}

// slotsSlaveOf is the command; an empty master: no one. In a plan without targets the master may be a name.
func slotsSlaveOf(table int, slots schema.Slots, master string, force bool) []string {
	cmd := []string{"PKCLUSTER", "SLOTSSLAVEOF"}
	if host, port, err := net.SplitHostPort(master); err == nil {
		cmd = append(cmd, host, port)
	} else if master != "" {
		cmd = append(cmd, master)
	} else {
		cmd = append(cmd, "no", "one")
	}
	cmd = append(cmd, SlotGroup(slots))
	if force {
		cmd = append(cmd, "force")
	}
	return ofTable(cmd, table)
}

func addSlotsCommand(table int, slots schema.Slots) []string {
	return ofTable([]string{"PKCLUSTER", "ADDSLOTS", SlotGroup(slots)}, table)
}

func delSlotsCommand(table int, slots schema.Slots) []string {
	return ofTable([]string{"PKCLUSTER", "DELSLOTS", SlotGroup(slots)}, table)
}

// ofTable names the table as the commands that change something do: as a last word, and table 0 by none.
func ofTable(cmd []string, table int) []string {
	if table == 0 {
		return cmd
	}
	return append(cmd, strconv.Itoa(table))
}

// changeLimit is how long adding or deleting a few slots may take. The server goes on when the client has gone, so
// giving up early only makes an outcome unknown: 64 slots took up to 9 s on two busy cores.
const changeLimit = 2 * time.Minute
