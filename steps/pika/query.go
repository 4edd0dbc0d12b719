package pika

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// Table is a table of an instance in mode sharding (pkcluster info table). Table 0 is called db0.
type Table struct {
	ID    int
	Slots int // how many slots its keys hash to, on all instances together
}

// Tables lists the instance's tables. 3.2.9 tells none.
func (c *Client) Tables(ctx context.Context) ([]Table, error) {
	args := []string{"PKCLUSTER", "INFO", "table"}
	text, err := c.text(ctx, args...)
	if err != nil {
		return nil, err
	}
	tables, err := parseTables(text)
	if err != nil {
		return nil, steps.Errorf("reply", "%s on %s: %w", redis.Line(args), c.Addr(), err)
	}
	return tables, nil
}

func parseTables(text string) ([]Table, error) {
	var tables []Table
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no line of a table", strings.TrimSpace(line))
		}
		switch {
		case name == "table_id":
			tables = append(tables, Table{ID: n})
		case name == "partition_num" && len(tables) > 0:
			tables[len(tables)-1].Slots = n
		}
	}
	return tables, nil
}

// SlotCounts gives the number of keys by slot, as the last count of the key space found them, and starts the next count.
func (c *Client) SlotCounts(ctx context.Context) (map[int]int64, error) {
	r, err := c.Do(ctx, "SLOTSINFO")
	if err != nil {
		return nil, err
	}
	items, err := r.Items()
	if err != nil {
		return nil, err
	}
	counts := make(map[int]int64, len(items))
	for _, it := range items {
		pair, err := it.Items()
		if err != nil {
			return nil, err
		}
		if len(pair) < 2 {
			return nil, steps.Errorf("reply", "slotsinfo on %s: a slot and its number of keys was expected", c.Addr())
		}
		slot, err := pair[0].Int()
		if err != nil {
			return nil, err
		}
		if counts[int(slot)], err = pair[1].Int(); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// WithKeys gives those of some slots of table 0 that hold a key, markers not counted. It reads: a key that has
// expired counts until the server has noticed.
func (c *Client) WithKeys(ctx context.Context, slots schema.Slots) (schema.Slots, error) {
	cursors := make(map[int]string, len(slots))
	for _, id := range slots {
		cursors[id] = "0"
	}
	found := schema.Slots{}
	for len(cursors) > 0 {
		ask := slices.Sorted(maps.Keys(cursors))
		cmds := make([][]string, len(ask))
		for i, id := range ask {
			cmds[i] = []string{"SLOTSSCAN", strconv.Itoa(id), cursors[id], "COUNT", "10"}
		}
		replies, err := c.resp.Read(ctx, cmds...)
		if err != nil {
			return nil, judge(err)
		}
		for i, r := range replies {
			next, keys, err := c.scanned(r)
			switch {
			case err != nil:
				return nil, judge(err)
			case slices.ContainsFunc(keys, func(key string) bool { return !isMarker(key) }):
				found = append(found, ask[i])
				delete(cursors, ask[i])
			case next == "0":
				delete(cursors, ask[i])
			default:
				cursors[ask[i]] = next
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// scanned reads the answer to SLOTSSCAN: some keys of a slot, and the next cursor; 0: these were the last.
func (c *Client) scanned(r redis.Reply) (next string, keys []string, err error) {
	parts, err := r.Items()
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return "", nil, err
	}
	if len(parts) != 2 {
		return "", nil, steps.Errorf("reply", "slotsscan on %s: a cursor and keys were expected", c.Addr())
	}
	if next, err = parts[0].Text(); err != nil {
		return "", nil, err
	}
	keys, err = parts[1].Texts()
	return next, keys, err
}

// KeySlots gives the slots that the server hashes keys to.
func (c *Client) KeySlots(ctx context.Context, keys ...string) ([]int, error) {
	r, err := c.Do(ctx, append([]string{"SLOTSHASHKEY"}, keys...)...)
	if err != nil {
		return nil, err
	}
	items, err := r.Items()
	if err != nil {
		return nil, err
	}
	slots := make([]int, len(items))
	for i, it := range items {
		n, err := it.Int()
		if err != nil {
			return nil, err
		}
		slots[i] = int(n)
	}
	return slots, nil
}
