package pika

import (
	"strconv"
	"strings"
)

// Keyspace is what the server's last count of its keys has found. Counting is started by INFO KEYSPACE 1
// (and by SLOTSINFO) and goes on in the background; until it ends the numbers are those of the count before.
type Keyspace struct {
	Time     string // when the count began, by the server's clock and in its zone; the year 1970: never
	Duration string // "0s", "In Waiting", "In Processing"; empty on 2.x
	Strings  int64
	Hashes   int64
	Lists    int64
	Zsets    int64
	Sets     int64

	Databases int // how many of them were counted: tables, in mode sharding
}

// Total is the number of keys of all types.
func (k Keyspace) Total() int64 { return k.Strings + k.Hashes + k.Lists + k.Zsets + k.Sets }

// Counting tells whether the count that Time belongs to has not ended, as far as this section shows.
func (k Keyspace) Counting() bool { return strings.HasPrefix(k.Duration, "In ") }

// slotIndex is what the names begin with of the sets in which releases 2.2 to 2.3 keep what keys each slot has
// (slotmigrate): _internal:slotkey:4migrate:0 and so on, one a slot that has keys, in the midst of the users' keys.
const slotIndex = "_internal:slotkey:4migrate:"

func (i *Info) readKeyspace(line string) {
	if line == "" {
		return
	}
	if i.Keyspace == nil {
		i.Keyspace = &Keyspace{}
	}
	k := i.Keyspace
	if at, ok := strings.CutPrefix(line, "# Time:"); ok {
		k.Databases++
		if k.Time == "" || at < k.Time { // several tables: the oldest
			k.Time = at
		}
		return
	}
	if d, ok := strings.CutPrefix(line, "# Duration:"); ok {
		if !k.Counting() {
			k.Duration = strings.TrimSpace(d)
		}
		return
	}
	name, n, ok := keyCount(line)
	if !ok {
		return
	}
	switch name {
	case "strings", "kv":
		k.Strings += n
	case "hashes", "hash":
		k.Hashes += n
	case "lists", "list":
		k.Lists += n
	case "zsets", "zset":
		k.Zsets += n
	case "sets", "set":
		k.Sets += n
	}
}

// keyCount reads "db0 Strings_keys=3321, expires=1, invalid_keys=0" and "kv keys:5000".
func keyCount(line string) (name string, n int64, ok bool) {
	if _, rest, is := strings.Cut(line, " "); is && strings.Contains(rest, "_keys=") {
		name, rest, _ = strings.Cut(rest, "_keys=")
		rest, _, _ = strings.Cut(rest, ",")
		n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		return strings.ToLower(name), n, err == nil
	}
	name, rest, is := strings.Cut(line, " keys:")
	n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
	return name, n, is && err == nil
}
