package redis

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

// buckets is how many parts a database is cut into for SCAN: a cursor is the number of the next part, so a key that is
// there during the whole iteration is returned, as the real one guarantees.
const buckets = 1024

type database struct {
	seed    maphash.Seed
	keys    map[string]*entry
	parts   [buckets][]string
	expires map[string]struct{}
	size    int64 // bytes of keys and values, for used_memory and maxmemory
}

// entry is one key. Exactly one of the values is in use, as typ says.
type entry struct {
	typ    string // as TYPE answers
	str    string
	list   []string
	hash   *ordered
	set    *ordered
	zset   map[string]float64
	expire int64 // Unix milliseconds, 0 for none
	part   int   // index in its bucket
	ver    uint64
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

func newDatabase() *database {
	return &database{seed: maphash.MakeSeed(), keys: map[string]*entry{}, expires: map[string]struct{}{}}
}

func (d *database) bucket(k string) int { return int(maphash.String(d.seed, k) % buckets) }

func (d *database) put(k string, e *entry) {
	if old, ok := d.keys[k]; ok {
		e.part = old.part
		d.size -= old.weight()
	} else {
		b := d.bucket(k)
		e.part = len(d.parts[b])
		d.parts[b] = append(d.parts[b], k)
		d.size += int64(len(k)) + 56
	}
	d.keys[k] = e
	d.size += e.weight()
	d.setExpire(k, e, e.expire)
}

func (d *database) setExpire(k string, e *entry, at int64) {
	e.expire = at
	if at == 0 {
		delete(d.expires, k)
	} else {
		d.expires[k] = struct{}{}
	}
}

func (d *database) del(k string) bool {
	e, ok := d.keys[k]
	if !ok {
		return false
	}
	b := d.bucket(k)
	last := len(d.parts[b]) - 1
	moved := d.parts[b][last]
	d.parts[b][e.part] = moved
	d.keys[moved].part = e.part
	d.parts[b] = d.parts[b][:last]
	delete(d.keys, k)
	delete(d.expires, k)
	d.size -= e.weight() + int64(len(k)) + 56
	return true
}

// scan gives the keys of the parts from cursor on until there are count, and the next cursor. Cursors are handed out with
// their bits reversed: a client that takes them for progress in per cent is wrong here as it is with the real one.
func (d *database) scan(cursor uint64, count int) (keys []string, next uint64) {
	const shift = 64 - 10
	b := int(bits.Reverse64(cursor) >> shift)
	for ; b < buckets && len(keys) < count; b++ {
		keys = append(keys, d.parts[b]...)
	}
	if b >= buckets {
		return keys, 0
	}
	return keys, bits.Reverse64(uint64(b) << shift)
}

// averageTTL is in milliseconds, and 0 where no key expires.
func (d *database) averageTTL(now int64) int64 {
	if len(d.expires) == 0 {
		return 0
	}
	sum := int64(0)
	for k := range d.expires {
		sum += max(d.keys[k].expire-now, 0)
	}
	return sum / int64(len(d.expires))
}

func (d *database) clone() *database {
	c := newDatabase()
	c.seed = d.seed
	c.size = d.size
	c.expires = maps.Clone(d.expires)
	for b := range d.parts {
		c.parts[b] = slices.Clone(d.parts[b])
	}
	for k, e := range d.keys {
		c.keys[k] = e.clone()
	}
	return c
}

func (e *entry) clone() *entry {
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
func (e *entry) weight() int64 {
	n := int64(len(e.str)) + 32*int64(len(e.list)+len(e.zset))
	if e.hash != nil {
		n += 64 * int64(len(e.hash.names))
	}
	if e.set != nil {
		n += 32 * int64(len(e.set.names))
	}
	return n
}

func (e *entry) empty() bool {
	switch e.typ {
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

func (e *entry) encoding() string {
	short := func(ss []string) bool { return !slices.ContainsFunc(ss, func(s string) bool { return len(s) > 64 }) }
	switch e.typ {
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

func (e *entry) intset() bool {
	return len(e.set.names) <= 512 && !slices.ContainsFunc(e.set.names, func(s string) bool {
		_, err := strconv.ParseInt(s, 10, 64)
		return err != nil
	})
}

// members gives a set's members: in numeric order where the real one would keep an intset.
func (e *entry) members() []string {
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
func (e *entry) ranked() []scored {
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

func (e *entry) dump() string {
	p := payload{Type: e.typ, Str: []byte(e.str)}
	add := func(ss ...string) {
		for _, s := range ss {
			p.List = append(p.List, []byte(s))
		}
	}
	switch e.typ {
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

func restore(s string) (*entry, bool) {
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

func newEntry(typ string) *entry {
	e := &entry{typ: typ}
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
