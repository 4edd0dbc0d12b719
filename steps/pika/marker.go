package pika

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// A follower acknowledges a write when it has appended it to its binlog and queued it for one of its threads
// (sync-thread-num of them, chosen by the key's hash), which applies it later, also after it was detached. So a lag of
// 0 does not say that it has applied what it has. A marker for each thread, written to the master while nobody else
// writes, is behind everything else in its queue: once it can be read at the follower, all that came before was applied there.

// markerName stands between a marker's tag and its number.
const markerName = "__runner_marker:"

// isMarker tells a key that MarkerKeys may have given.
func isMarker(key string) bool {
	tag, number, ok := strings.Cut(key, "}"+markerName)
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return ok && strings.HasPrefix(tag, "{") && digits(tag[1:]) && digits(number)
}

// MarkerKeys gives one key for each of a follower's threads, all in one slot. The threads are shared
// by all slots, so the markers of one are enough for all slots whose lags are 0.
func MarkerKeys(slot, slotNum, threads int) []string {
	tag := tagOf(slot, slotNum)
	keys := make([]string, threads)
	for found, i := 0, 0; found < threads; i++ {
		key := "{" + tag + "}" + markerName + strconv.Itoa(i)
		if t := int(stdHash(key) % uint64(threads)); keys[t] == "" {
			keys[t] = key
			found++
		}
	}
	return keys
}

// WriteMarkers sets the markers to a value that no earlier ones had.
func (c *Client) WriteMarkers(ctx context.Context, keys []string, value string) error {
	return c.eachMarker(ctx, "write", keys, func(key string) []string { return []string{"SET", key, value} })
}

// RemoveMarkers takes them away, at whoever is the slot's master by then. Each has a request of its own: a follower applies one
// of many keys in the thread of its first, where it overtakes the markers that still wait in the others.
func (c *Client) RemoveMarkers(ctx context.Context, keys []string) error {
	return c.eachMarker(ctx, "remove", keys, func(key string) []string { return []string{"DEL", key} })
}

// eachMarker sends a request for each marker, all at once: writers may be waiting for it.
func (c *Client) eachMarker(ctx context.Context, what string, keys []string, request func(key string) []string) error {
	errs := make([]error, len(keys))
	var wait sync.WaitGroup
	for i, key := range keys {
		wait.Go(func() { _, errs[i] = c.Do(ctx, request(key)...) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s the markers: %w", what, err)
	}
	return nil
}

// HasMarkers tells whether all of them can be read with this value.
func (c *Client) HasMarkers(ctx context.Context, keys []string, value string) (bool, error) {
	cmds := make([][]string, len(keys))
	for i, key := range keys {
		cmds[i] = []string{"GET", key}
	}
	replies, err := c.resp.Read(ctx, cmds...)
	if err != nil {
		return false, judge(err)
	}
	for _, r := range replies {
		if err := r.Err(); err != nil {
			return false, judge(err)
		}
		if text, err := r.Text(); err != nil || text != value {
			return false, err
		}
	}
	return true, nil
}

// stdHash is std::hash<std::string> of libstdc++ on 64-bit machines, by which Pika chooses
// the thread: MurmurHash64A with its seed.
func stdHash(s string) uint64 {
	const m, seed = 0xc6a4a7935bd1e995, 0xc70f6907
	shiftMix := func(v uint64) uint64 { return v ^ v>>47 }
	b := []byte(s)
	h := uint64(seed) ^ uint64(len(b))*m
	for ; len(b) >= 8; b = b[8:] {
		h = (h ^ shiftMix(binary.LittleEndian.Uint64(b)*m)*m) * m
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		h = (h ^ binary.LittleEndian.Uint64(tail[:])) * m
	}
	return shiftMix(shiftMix(h) * m)
}
