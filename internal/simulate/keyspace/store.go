package keyspace

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"
)

// Database is one keyspace. It is cut into parts for SCAN: a cursor is the number of the next part, so a key that is
// there during the whole iteration is returned, as Redis guarantees.
type Database struct {
	Keys    map[string]*Entry
	Expires map[string]struct{} // the keys that have a time to live
	Size    int64               // bytes of keys and values, roughly
	seed    maphash.Seed
	parts   [][]string
}

// Entry is one key. Exactly one of the values is in use, as typ says.
type Entry struct {
	Type    string // as TYPE answers
	Expire  int64  // Unix milliseconds, 0 for none
	Version uint64 // changes with every change, so that WATCH sees it
	str     string
	list    []string
	hash    *ordered
	set     *ordered
	zset    map[string]float64
	part    int // index in its bucket
}

// ordered is a small map that keeps the order of insertion, as a listpack does.
type ordered struct {
	names []string
	at    map[string]int
	vals  []string
}

func newOrdered() *ordered { return &ordered{at: map[string]int{}} }

func (o *ordered) get(k string) (string, bool) {
	i, ok := o.at[k]
	if !ok {
		return "", false
	}
	return o.vals[i], true
}

func (o *ordered) put(k, v string) (added bool) {
	if i, ok := o.at[k]; ok {
		o.vals[i] = v
		return false
	}
	o.at[k] = len(o.names)
	o.names, o.vals = append(o.names, k), append(o.vals, v)
	return true
}

func (o *ordered) del(k string) bool {
	i, ok := o.at[k]
	if !ok {
		return false
	}
	delete(o.at, k)
	o.names, o.vals = slices.Delete(o.names, i, i+1), slices.Delete(o.vals, i, i+1)
	for j := i; j < len(o.names); j++ {
		o.at[o.names[j]] = j
	}
	return true
}

func (o *ordered) clone() *ordered {
	return &ordered{names: slices.Clone(o.names), at: maps.Clone(o.at), vals: slices.Clone(o.vals)}
}

// NewDatabase gives an empty one of that many parts, a power of two: many for a large keyspace, few where there are many
// small ones.
func NewDatabase(parts int) *Database {
	return &Database{seed: maphash.MakeSeed(), Keys: map[string]*Entry{}, Expires: map[string]struct{}{}, parts: make([][]string, parts)}
}

func (d *Database) bucket(k string) int { return int(maphash.String(d.seed, k) % uint64(len(d.parts))) }

// Put stores e under k in place of what was there, with the time to live that e has.
func (d *Database) Put(k string, e *Entry) {
	if old, ok := d.Keys[k]; ok {
		e.part = old.part
		d.Size -= old.weight()
	} else {
		b := d.bucket(k)
		e.part = len(d.parts[b])
		d.parts[b] = append(d.parts[b], k)
		d.Size += int64(len(k)) + 56
	}
	d.Keys[k] = e
	d.Size += e.weight()
	d.SetExpire(k, e, e.Expire)
}

// SetExpire gives the key a time to live that ends at Unix milliseconds at, or none where at is 0.
func (d *Database) SetExpire(k string, e *Entry, at int64) {
	e.Expire = at
	if at == 0 {
		delete(d.Expires, k)
	} else {
		d.Expires[k] = struct{}{}
	}
}

// Del removes a key, over or not, and says whether it was there.
func (d *Database) Del(k string) bool {
	e, ok := d.Keys[k]
	if !ok {
		return false
	}
	b := d.bucket(k)
	last := len(d.parts[b]) - 1
	moved := d.parts[b][last]
	d.parts[b][e.part] = moved
	d.Keys[moved].part = e.part
	d.parts[b] = d.parts[b][:last]
	delete(d.Keys, k)
	delete(d.Expires, k)
	d.Size -= e.weight() + int64(len(k)) + 56
	return true
}

// Scan gives the keys of the parts from cursor on until there are count, and the next cursor. Cursors are handed out with
// their bits reversed: a client that takes them for progress in per cent is wrong here as it is with the real one.
func (d *Database) Scan(cursor uint64, count int) (keys []string, next uint64) {
	buckets := len(d.parts)
	shift := 64 - bits.Len(uint(buckets-1))
	b := int(bits.Reverse64(cursor) >> shift)
	for ; b < buckets && len(keys) < count; b++ {
		keys = append(keys, d.parts[b]...)
	}
	if b >= buckets {
		return keys, 0
	}
	return keys, bits.Reverse64(uint64(b) << shift)
}

// AverageTTL is in milliseconds, and 0 where no key expires.
func (d *Database) AverageTTL(now int64) int64 {
	if len(d.Expires) == 0 {
		return 0
	}
	sum := int64(0)
	for k := range d.Expires {
		sum += max(d.Keys[k].Expire-now, 0)
	}
	return sum / int64(len(d.Expires))
}

// Clone is a copy that shares nothing with d.
func (d *Database) Clone() *Database {
	c := NewDatabase(len(d.parts))
	c.seed = d.seed
	c.Size = d.Size
	c.Expires = maps.Clone(d.Expires)
	for b := range d.parts {
		c.parts[b] = slices.Clone(d.parts[b])
	}
	for k, e := range d.Keys {
		c.Keys[k] = e.Clone()
	}
	return c
}

// Clone is a copy that shares nothing with e.
func (e *Entry) Clone() *Entry {
	c := *e
	c.list = slices.Clone(e.list)
	c.zset = maps.Clone(e.zset)
	if e.hash != nil {
		c.hash = e.hash.clone()
	}
	if e.set != nil {
		c.set = e.set.clone()
	}
	return &c
}

// weight is a rough size; only used_memory is made of it. Containers count by members, so that it costs nothing.
func (e *Entry) weight() int64 {
	n := int64(len(e.str)) + 32*int64(len(e.list)+len(e.zset))
	if e.hash != nil {
		n += 64 * int64(len(e.hash.names))
	}
	if e.set != nil {
		n += 32 * int64(len(e.set.names))
	}
	return n
}

func (e *Entry) empty() bool {
	switch e.Type {
	case "list":
		return len(e.list) == 0
	case "hash":
		return len(e.hash.names) == 0
	case "set":
		return len(e.set.names) == 0
	case "zset":
		return len(e.zset) == 0
	}
	return false
}

func (e *Entry) encoding() string {
	short := func(ss []string) bool { return !slices.ContainsFunc(ss, func(s string) bool { return len(s) > 64 }) }
	switch e.Type {
	case "string":
		if n, err := strconv.ParseInt(e.str, 10, 64); err == nil && strconv.FormatInt(n, 10) == e.str {
			return "int"
		}
		if len(e.str) <= 44 {
			return "embstr"
		}
		return "raw"
	case "list":
		return "quicklist"
	case "hash":
		if len(e.hash.names) <= 512 && short(e.hash.names) && short(e.hash.vals) {
			return "listpack"
		}
	case "set":
		if e.intset() {
			return "intset"
		}
	case "zset":
		if len(e.zset) <= 128 {
			return "listpack"
		}
		return "skiplist"
	}
	return "hashtable"
}

func (e *Entry) intset() bool {
	return len(e.set.names) <= 512 && !slices.ContainsFunc(e.set.names, func(s string) bool {
		_, err := strconv.ParseInt(s, 10, 64)
		return err != nil
	})
}

// members gives a set's members: in numeric order where the real one would keep an intset.
func (e *Entry) members() []string {
	names := slices.Clone(e.set.names)
	if e.intset() {
		slices.SortFunc(names, func(a, b string) int {
			x, _ := strconv.ParseInt(a, 10, 64)
			y, _ := strconv.ParseInt(b, 10, 64)
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		})
	}
	return names
}

type scored struct {
	name  string
	score float64
}

// ranked gives a sorted set's members by score, then by name.
func (e *Entry) ranked() []scored {
	out := make([]scored, 0, len(e.zset))
	for m, s := range e.zset {
		out = append(out, scored{m, s})
	}
	slices.SortFunc(out, func(a, b scored) int {
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return 0
	})
	return out
}

// payload is what DUMP gives and RESTORE takes: equal for equal values, and of no meaning outside this package.
type payload struct {
	Type string
	Str  []byte            `json:",omitempty"`
	List [][]byte          `json:",omitempty"`
	Zset map[string]string `json:",omitempty"`
}

func (e *Entry) dump() string {
	p := payload{Type: e.Type, Str: []byte(e.str)}
	add := func(ss ...string) {
		for _, s := range ss {
			p.List = append(p.List, []byte(s))
		}
	}
	switch e.Type {
	case "list":
		add(e.list...)
	case "set":
		names := slices.Clone(e.set.names)
		slices.Sort(names)
		add(names...)
	case "hash":
		names := slices.Clone(e.hash.names)
		slices.Sort(names)
		for _, n := range names {
			v, _ := e.hash.get(n)
			add(n, v)
		}
	case "zset":
		for _, m := range e.ranked() {
			add(m.name, strconv.FormatUint(math.Float64bits(m.score), 16))
		}
	}
	b, _ := json.Marshal(p) // plain strings and bytes: it cannot fail
	b = append(b, 10, 0)    // the RDB version that 7.0 writes
	sum := sha256.Sum256(b)
	return string(append(b, sum[:8]...))
}

func restore(s string) (*Entry, bool) {
	if len(s) < 10 {
		return nil, false
	}
	body, sum := []byte(s[:len(s)-8]), s[len(s)-8:]
	if want := sha256.Sum256(body); string(want[:8]) != sum || binary.LittleEndian.Uint16(body[len(body)-2:]) != 10 {
		return nil, false
	}
	var p payload
	if json.Unmarshal(body[:len(body)-2], &p) != nil {
		return nil, false
	}
	e := newEntry(p.Type)
	e.str = string(p.Str)
	for i, b := range p.List {
		switch p.Type {
		case "list":
			e.list = append(e.list, string(b))
		case "set":
			e.set.put(string(b), "")
		case "hash":
			if i%2 == 1 {
				e.hash.put(string(p.List[i-1]), string(b))
			}
		case "zset":
			if i%2 == 1 {
				u, _ := strconv.ParseUint(string(b), 16, 64)
				e.zset[string(p.List[i-1])] = math.Float64frombits(u)
			}
		}
	}
	return e, true
}

func newEntry(typ string) *Entry {
	e := &Entry{Type: typ}
	switch typ {
	case "hash":
		e.hash = newOrdered()
	case "set":
		e.set = newOrdered()
	case "zset":
		e.zset = map[string]float64{}
	}
	return e
}
