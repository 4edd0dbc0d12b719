package pika

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

type checkWriteIn struct {
	KeyPrefix string            `yaml:"key_prefix" doc:"What the names of the marker keys begin with; without { and }." default:"runner:check-write:"`
	Slots     schema.Slots      `yaml:"slots" doc:"Mode sharding: slots to try, one key each. Without it the first slot that the instance serves as a master."`
	Through   schema.TargetName `yaml:"through" doc:"Redis target of a proxy: the markers are written through it, and looked for on the server. So it is seen that the proxy sends these slots' clients here, and hashes as the server does."`
}

type checkWriteOut struct {
	Writable bool `yaml:"writable" doc:"true: each marker was written, read back and removed. Otherwise the step fails with the server's words."`
}

func checkWrite() *steps.Kind[checkWriteIn, checkWriteOut] {
	return &steps.Kind[checkWriteIn, checkWriteOut]{
		Name:       "pika.check-write",
		Doc:        "Tries whether a server takes writes: writes a marker key, reads it back and removes it. Sends SET key value EX 300 NX (to a proxy, where one is named), GET and DEL; in mode sharding once for each slot asked for.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: writable, uses: pika.check-write, target: pika5, with: {slots: "1", key_prefix: "check:"}}`,
		Pitfalls: []string{
			"slave-read-only may say one thing and the server do another (2.3): only a write tells.",
			"A proxy that hashes otherwise (another hash, no hash_tag) loses no key: it puts them where nobody else looks. Settings can be compared; a write through it is the proof.",
			"A marker that is left by a crash goes after five minutes, and is taken away by the next try, or by undo. A key of that name which is none of ours is never touched.",
			"The marker goes into the binlog as any write: replicas get it and lose it again. On an instance whose slots are about to follow another it makes the binlog one's own: try before the slots are added, or not at all.",
			"Nothing is left to be found afterwards, so the probe can tell a marker that was left over, and else nothing; a repetition is harmless.",
		},
		Valid: func(in checkWriteIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			if in.KeyPrefix == "" && !unknown("key_prefix") {
				p = append(p, steps.Problem{Input: "key_prefix", Message: "a prefix that no other key has"})
			}
			if strings.ContainsAny(in.KeyPrefix, "{} \t\r\n") {
				p = append(p, steps.Problem{Input: "key_prefix", Message: "without spaces, { and }, which decide the slot"})
			}
			if len(in.Slots) > 0 {
				p = append(p, validSlots(in.Slots, 0, unknown)...)
			}
			return p
		},
		Plan:  planCheckWrite,
		Probe: probeCheckWrite,
		Apply: applyCheckWrite,
		Undo: func(ctx context.Context, s steps.Session, in checkWriteIn, _ *checkWriteOut) error {
			c, err := session(ctx, s)
			if err != nil {
				return err
			}
			keys, err := in.keys(ctx, c)
			if err != nil {
				return err
			}
			for _, key := range keys {
				if err := c.removeMarker(ctx, key); err != nil {
					return err
				}
			}
			return nil
		},
		UndoPlan: func(in checkWriteIn) string { return "DEL the markers, if they are still there" },
	}
}

// markerMark begins the value of every marker, so that one can be told from a user's key of the same name.
const markerMark = "runner check-write "

// keys gives the names of the markers: one, or in mode sharding one for each slot.
func (in checkWriteIn) keys(ctx context.Context, c *Client) ([]string, error) {
	mode, err := c.Mode(ctx)
	if err != nil {
		return nil, err
	}
	if mode != Sharding {
		if len(in.Slots) > 0 {
			return nil, steps.Precondition("check writes on %s: it runs in mode %s, where there are no slots", c.Addr(), mode)
		}
		return []string{in.KeyPrefix + "{0}"}, nil
	}
	slots := in.Slots
	if len(slots) == 0 {
		held, err := c.HeldSlots(ctx, 0)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(held, func(s Slot) bool { return !s.Follows() })
		if i < 0 {
			return nil, steps.Precondition("check writes on %s: it serves no slot as a master", c.Addr())
		}
		slots = schema.Slots{held[i].ID}
	}
	number, err := c.slotNumber(ctx)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(slots))
	for i, slot := range slots {
		if slot >= number {
			return nil, steps.Precondition("check writes on %s: it has %d slots, 0 to %d", c.Addr(), number, number-1)
		}
		keys[i] = in.KeyPrefix + "{" + tagOf(slot, number) + "}"
	}
	return keys, nil
}

// slotNumber is how many slots the keys of table 0 hash to.
func (c *Client) slotNumber(ctx context.Context) (int, error) {
	value, known, err := c.setting(ctx, "default-slot-num")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(value)
	if !known || err != nil || n < 1 {
		return 0, steps.Errorf("reply", "config get default-slot-num on %s: %q is not a number of slots", c.Addr(), value)
	}
	return n, nil
}

// tagOf gives the first number whose text hashes to the slot.
func tagOf(slot, number int) string {
	for i := 0; ; i++ {
		tag := strconv.Itoa(i)
		if int(crc32.ChecksumIEEE([]byte(tag))%uint32(number)) == slot {
			return tag
		}
	}
}

func planCheckWrite(ctx context.Context, v *steps.View, in checkWriteIn) (steps.Change, error) {
	keys := []string{in.KeyPrefix + "{…}"}
	if v != nil {
		c, err := view(ctx, *v, "")
		if err != nil {
			return steps.Change{}, err
		}
		if keys, err = in.keys(ctx, c); err != nil {
			return steps.Change{}, err
		}
	}
	each := ""
	if len(keys) > mostMarkers {
		keys, each = []string{in.KeyPrefix + "{…}"}, ", in each of slots "+SlotGroup(in.Slots)
	}
	var change steps.Change
	for _, key := range keys {
		set := redis.Line([]string{"SET", key, "…", "EX", "300", "NX"})
		if in.Through != "" {
			set += " through " + string(in.Through)
		}
		change.Lines = append(change.Lines, steps.Line{Target: own(v), Command: set + "; GET; DEL" + each})
	}
	return change, nil
}

// mostMarkers is how many markers a plan names one by one.
const mostMarkers = 4

func probeCheckWrite(ctx context.Context, v steps.View, in checkWriteIn) (steps.State, checkWriteOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, checkWriteOut{}, err
	}
	keys, err := in.keys(ctx, c)
	if err != nil {
		return steps.Unclear, checkWriteOut{}, err
	}
	for _, key := range keys {
		value, err := c.text(ctx, "GET", key)
		if err != nil {
			return steps.Unclear, checkWriteOut{}, err
		}
		if strings.HasPrefix(value, markerMark) {
			return steps.Partial, checkWriteOut{}, nil
		}
	}
	return steps.Unclear, checkWriteOut{}, nil
}

func applyCheckWrite(ctx context.Context, s steps.Session, in checkWriteIn) (checkWriteOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return checkWriteOut{}, err
	}
	keys, err := in.keys(ctx, c)
	if err != nil {
		return checkWriteOut{}, err
	}
	var to writer = c
	if in.Through != "" {
		if to, err = redis.Target().Session(ctx, s, string(in.Through)); err != nil {
			return checkWriteOut{}, err
		}
	}
	for _, key := range keys {
		if err := c.tryWrite(ctx, to, key); err != nil {
			return checkWriteOut{}, err
		}
	}
	return checkWriteOut{Writable: true}, nil
}

// writer is whom a marker is given to: the server, or a proxy before it.
type writer interface {
	Addr() string
	Do(ctx context.Context, args ...string) (redis.Reply, error)
}

// tryWrite writes a marker, reads it back from the server and removes it. One that an earlier try has left is removed first.
func (c *Client) tryWrite(ctx context.Context, to writer, key string) error {
	if err := c.removeMarker(ctx, key); err != nil {
		return err
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	value := markerMark + hex.EncodeToString(nonce[:])
	r, err := to.Do(ctx, "SET", key, value, "EX", "300", "NX")
	if err != nil {
		return err
	}
	if r.IsNull() {
		return c.foreignMarker(key)
	}
	got, err := c.text(ctx, "GET", key)
	if err != nil {
		return err
	}
	if got != value && to.Addr() != c.Addr() {
		_, err := to.Do(ctx, "DEL", key) // it goes to where the marker went
		return errors.Join(steps.Errorf("conflict", "check writes on %s: %s was written through %s and is not there", c.Addr(), key, to.Addr()).
			WithHint("the proxy sends this slot elsewhere (codis.slot-info), or hashes otherwise than the server (twemproxy.check-config)"), err)
	}
	if got != value {
		return steps.Errorf("conflict", "check writes on %s: %s was written and answered with OK, and reads otherwise", c.Addr(), key).
			WithHint("does another server answer at this address, or another runner try at the same time?")
	}
	return c.removeMarker(ctx, key)
}

// removeMarker removes a marker, and refuses a key of its name that is none.
func (c *Client) removeMarker(ctx context.Context, key string) error {
	value, err := c.text(ctx, "GET", key)
	switch {
	case err != nil:
		return err
	case value == "":
		return nil
	case !strings.HasPrefix(value, markerMark):
		return c.foreignMarker(key)
	}
	_, err = c.Do(ctx, "DEL", key)
	return err
}

func (c *Client) foreignMarker(key string) error {
	return steps.Errorf("conflict", "check writes on %s: there is a key %s that is no marker", c.Addr(), key).
		WithHint("take another key_prefix")
}
