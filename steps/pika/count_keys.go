package pika

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"runbook/steps"
)

type countKeysIn struct {
	Every time.Duration `yaml:"every" doc:"Time between two questions whether the count has ended." default:"200ms"`
}

type countKeysOut struct {
	Strings int64  `yaml:"strings" doc:"Keys that hold a string." min:"0"`
	Hashes  int64  `yaml:"hashes" doc:"Keys that hold a hash." min:"0"`
	Lists   int64  `yaml:"lists" doc:"Keys that hold a list." min:"0"`
	Zsets   int64  `yaml:"zsets" doc:"Keys that hold a sorted set." min:"0"`
	Sets    int64  `yaml:"sets" doc:"Keys that hold a set, without the sets in which releases 2.2 to 2.3 index their slots (slotmigrate)." min:"0"`
	Total   int64  `yaml:"total,keys" doc:"Keys of all types." min:"0"`
	At      string `yaml:"at" doc:"When the count began, by the server's clock and in its zone."`
}

func countKeys() *steps.Kind[countKeysIn, countKeysOut] {
	return &steps.Kind[countKeysIn, countKeysOut]{
		Name:    "pika.count-keys",
		Doc:     "Counts a server's keys by type. Sends INFO keyspace 1, which starts the count in the background, and asks INFO stats and INFO keyspace until a count that began after the question has ended. All slots and tables of the instance count.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: keys, uses: pika.count-keys, target: pika1, timeout: 1h}`,
		Pitfalls: []string{
			"INFO keyspace gives the numbers of the last count, and INFO keyspace 1 does too while it starts the next: both may be days old, and 0 while a count has just begun. Numbers are given only when is_scaning_keyspace is No and the time of the count is newer.",
			"A count that was under way already may have passed what was written since: it is waited for, and another is started.",
			"It reads the whole key space: on a large instance it takes long and costs disk reads.",
			"Keys that have expired count until the server has removed them, and a key that is of several types in one release counts once for each.",
		},
		Read: readCountKeys,
	}
}

// restartCount is how long a count may show no sign of having begun before it is asked for again: counts are told
// apart by the second in which they begin.
const restartCount = 2 * time.Second

func readCountKeys(ctx context.Context, v steps.View, in countKeysIn) (countKeysOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return countKeysOut{}, err
	}
	if _, err := c.counted(ctx, v, in.Every); err != nil {
		return countKeysOut{}, err
	}
	old, err := c.keyspace(ctx, "1")
	if err != nil {
		return countKeysOut{}, err
	}
	for asked := v.Now(); ; {
		k, err := c.counted(ctx, v, in.Every)
		if err != nil {
			return countKeysOut{}, err
		}
		if k.Time != old.Time && !k.Counting() {
			internal, err := c.slotIndexes(ctx)
			if err != nil {
				return countKeysOut{}, err
			}
			k.Sets = max(k.Sets-internal, 0)
			return countKeysOut{Strings: k.Strings, Hashes: k.Hashes, Lists: k.Lists, Zsets: k.Zsets, Sets: k.Sets, Total: k.Total(), At: k.Time}, nil
		}
		if v.Now().Sub(asked) > restartCount && !k.Counting() {
			if _, err := c.keyspace(ctx, "1"); err != nil {
				return countKeysOut{}, err
			}
			asked = v.Now()
		}
		if err := v.Sleep(ctx, in.Every); err != nil {
			return countKeysOut{}, fmt.Errorf("count the keys of %s: %w", c.Addr(), err)
		}
	}
}

// counted waits until no count is under way, and gives the last one's numbers.
func (c *Client) counted(ctx context.Context, v steps.View, every time.Duration) (Keyspace, error) {
	for {
		i, err := c.Info(ctx, "stats")
		if err != nil {
			return Keyspace{}, err
		}
		if !i.Scanning {
			return c.keyspace(ctx)
		}
		v.Progress(steps.Progress{Text: c.Addr() + " counts its keys"})
		if err := v.Sleep(ctx, every); err != nil {
			return Keyspace{}, fmt.Errorf("count the keys of %s: %w", c.Addr(), err)
		}
	}
}

// slotIndexes counts the sets of the server's own among its keys.
func (c *Client) slotIndexes(ctx context.Context) (int64, error) {
	release, err := c.ServerRelease(ctx)
	if err != nil || release.atLeast(3, 0, 0) {
		return 0, err
	}
	cmds := make([][]string, codisSlots)
	for slot := range cmds {
		cmds[slot] = []string{"EXISTS", slotIndex + strconv.Itoa(slot)}
	}
	replies, err := c.resp.Read(ctx, cmds...)
	if err != nil {
		return 0, judge(err)
	}
	var n int64
	for _, r := range replies {
		there, err := r.Int()
		if err != nil {
			return 0, judge(err)
		}
		n += there
	}
	return n, nil
}

func (c *Client) keyspace(ctx context.Context, how ...string) (Keyspace, error) {
	i, err := c.Info(ctx, append([]string{"keyspace"}, how...)...)
	switch {
	case err != nil:
		return Keyspace{}, err
	case i.Keyspace == nil:
		return Keyspace{}, steps.Errorf("reply", "info keyspace %s on %s: the answer has no numbers of keys", strings.Join(how, " "), c.Addr())
	}
	return *i.Keyspace, nil
}
