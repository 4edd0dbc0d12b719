package codis

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// backend opens a server of a group, to look at it past the dashboard. The caller closes it.
func (c *Client) backend(addr string) *redis.Client {
	return redis.Open(
		redis.Config{Addr: schema.Addr(addr), Password: c.cfg.ProductAuth, Timeout: c.cfg.Timeout},
		steps.ReadOnly, redis.Dialect{Reads: []string{"SLOTSINFO", "SLOTSSCAN"}}).Via(c.x.dial)
}

// serverInfo is what a server of a group says of itself.
func (c *Client) serverInfo(ctx context.Context, addr string) (redis.Info, error) {
	r := c.backend(addr)
	defer func() { _ = r.Close() }()
	return r.Info(ctx)
}

// pikaOf is the release of Pika among the fields of INFO; empty: it is no Pika.
func pikaOf(i redis.Info) string {
	release, _ := i.Fields["pika_version"].(string)
	return release
}

// pikaBetween tells a Pika release from one minor release of 2 or 3 up to another, both included.
func pikaBetween(release string, from, to [2]int) bool {
	major, rest, _ := strings.Cut(strings.TrimPrefix(release, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, errX := strconv.Atoi(major)
	y, errY := strconv.Atoi(minor)
	if errX != nil || errY != nil {
		return false
	}
	at := x*1000 + y
	return from[0]*1000+from[1] <= at && at <= to[0]*1000+to[1]
}

// movesByReplication tells a Pika whose slots move by replication: 3.2 to 3.4. What Codis asks
// it to migrate it answers "done" to, with nothing moved.
func movesByReplication(pika string) bool { return pikaBetween(pika, [2]int{3, 2}, [2]int{3, 4}) }

// keyCounts asks a server how many keys each slot has (SLOTSINFO); one that is not in
// the answer has none. Exact on codis-server; on Pika 3.2 to 3.4 these are the numbers of the last scan.
func (c *Client) keyCounts(ctx context.Context, addr string) (map[int]int64, error) {
	r := c.backend(addr)
	defer func() { _ = r.Close() }()
	reply, err := r.Do(ctx, "SLOTSINFO")
	if err != nil {
		return nil, slotsRefused(addr, err)
	}
	items, err := reply.Items()
	if err != nil {
		return nil, err
	}
	counts := map[int]int64{}
	for _, it := range items {
		pair, err := it.Items()
		if err != nil {
			return nil, err
		}
		if len(pair) != 2 {
			return nil, steps.Errorf("reply", "slotsinfo on %s: pairs of slot and keys were expected", addr)
		}
		slot, err := pair[0].Int()
		if err != nil {
			return nil, err
		}
		keys, err := pair[1].Int()
		if err != nil {
			return nil, err
		}
		if keys != 0 {
			counts[int(slot)] = keys
		}
	}
	return counts, nil
}

// slotsRefused explains a server that cannot be a server of Codis.
func slotsRefused(addr string, err error) error {
	e := *steps.Classify(err)
	switch text := strings.ToLower(err.Error()); {
	case strings.Contains(text, "unknown command"), strings.Contains(text, "unknown or unsupported"):
		e.Hint = addr + " knows no slots: it is a plain Redis, and Codis needs codis-server, or Pika in sharding mode"
	case strings.Contains(text, "sharding mode"):
		e.Hint = addr + " is a Pika in classic mode: Codis needs instance-mode sharding"
	case e.Kind == "auth":
		e.Hint = "the servers' password must be the target's product_auth, and the dashboard's"
	}
	return &e
}

// occupied are the slots among these that have a key on a server. A slot that the server does not own has none.
func (c *Client) occupied(ctx context.Context, addr string, slots schema.Slots) (schema.Slots, error) {
	i, err := c.serverInfo(ctx, addr)
	if err != nil {
		return nil, err
	}
	if !movesByReplication(pikaOf(i)) {
		counts, err := c.keyCounts(ctx, addr)
		if err != nil {
			return nil, err
		}
		var full schema.Slots
		for _, id := range slots {
			if counts[id] > 0 {
				full = append(full, id)
			}
		}
		return full, nil
	}
	return c.scanned(ctx, addr, slots)
}

// scanned looks for one key in each slot: what Pika's SLOTSINFO tells is as old as its last scan.
func (c *Client) scanned(ctx context.Context, addr string, slots schema.Slots) (schema.Slots, error) {
	r := c.backend(addr)
	defer func() { _ = r.Close() }()
	cmds := make([][]string, len(slots))
	for i, id := range slots {
		cmds[i] = []string{"SLOTSSCAN", number(id), "0", "COUNT", "1"}
	}
	replies, err := r.Read(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	var full schema.Slots
	for i, reply := range replies {
		if err := reply.Err(); err != nil {
			if a, ok := redis.Answered(err); ok && strings.Contains(strings.ToLower(a.Text), "not found") {
				continue // the server does not own the slot
			}
			return nil, slotsRefused(addr, err)
		}
		parts, err := reply.Items()
		if err != nil {
			return nil, err
		}
		if len(parts) != 2 {
			return nil, steps.Errorf("reply", "slotsscan %d on %s: a cursor and keys were expected", slots[i], addr)
		}
		keys, err := parts[1].Items()
		if err != nil {
			return nil, err
		}
		cursor, err := parts[0].Text()
		if err != nil {
			return nil, err
		}
		if len(keys) > 0 || cursor != "0" { // where the scan has not ended, there is something to scan
			full = append(full, slots[i])
		}
	}
	return full, nil
}

// badServerAddr says why an address should not be given to Codis; empty: it may. Codis keeps it as it
// is written, compares it as text, and hands it to proxies and servers on other machines.
func badServerAddr(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Sprintf("%q is not host:port", addr)
	}
	ip := net.ParseIP(host)
	switch {
	case ip == nil:
		return fmt.Sprintf("%q is a host name: Codis compares addresses as text, so one server under two names counts as two, and Pika compares them with IP addresses", host)
	case ip.IsUnspecified():
		return fmt.Sprintf("%s is not the address of a machine", host)
	}
	return ""
}

// loopback tells an address that means another machine to every machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
