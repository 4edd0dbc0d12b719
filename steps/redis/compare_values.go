package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// valueKey is a key whose value is to be compared; at is its place in the batch.
type valueKey struct {
	at  int
	key string
	typ string
}

// How values are read. One of few elements is read whole, with those of other keys in one
// round trip; one of many is read piece by piece, so that no request is long for the
// server and nothing large is held here.
const (
	wholeBytes    = 64 << 10  // of a string
	wholeElements = 500       // of anything else
	pieceBytes    = 256 << 10 // of a string
	pieceElements = 500
)

// reading tells how a type is measured and read whole.
type reading struct {
	size  string
	whole func(key string) []string
	// canon orders what a server may give in any order, and evens out what releases write differently.
	canon func(texts []string) []string
	limit int64
}

func readingOf(typ string) (reading, bool) {
	asIs := func(t []string) []string { return t }
	switch typ {
	case "string":
		return reading{"STRLEN", func(k string) []string { return []string{"GET", k} }, asIs, wholeBytes}, true
	case "hash":
		return reading{"HLEN", func(k string) []string { return []string{"HGETALL", k} }, sortPairs, wholeElements}, true
	case "list":
		return reading{"LLEN", func(k string) []string { return []string{"LRANGE", k, "0", "-1"} }, asIs, wholeElements}, true
	case "set":
		return reading{"SCARD", func(k string) []string { return []string{"SMEMBERS", k} }, sorted, wholeElements}, true
	case "zset":
		return reading{"ZCARD", func(k string) []string { return []string{"ZRANGE", k, "0", "-1", "WITHSCORES"} }, func(t []string) []string { return sortPairs(evenScores(t)) }, wholeElements}, true
	case "stream":
		return reading{"XLEN", func(k string) []string { return []string{"XRANGE", k, "-", "+"} }, asIs, wholeElements}, true
	}
	return reading{}, false
}

// compareValues fills in diffs for the keys whose values differ.
func (c *comparison) compareValues(ctx context.Context, keys []valueKey, diffs []difference) error {
	sizes, err := c.both(ctx, keys, func(k valueKey) []string {
		if r, ok := readingOf(k.typ); ok {
			return []string{r.size, k.key}
		}
		return []string{"DUMP", k.key}
	})
	if err != nil {
		return err
	}
	var small, large []valueKey
	for i, k := range keys {
		r, known := readingOf(k.typ)
		if !known {
			if !sameDump(sizes[i][0], sizes[i][1]) {
				diffs[k.at] = difference{"value", "another " + k.typ, "another " + k.typ}
			}
			continue
		}
		a, b, ok, err := ints(sizes[i])
		switch {
		case err != nil:
			return err
		case !ok: // changed meanwhile: look again in the next round
			diffs[k.at] = difference{"value", errGone.Error(), ""}
		case a != b:
			diffs[k.at] = difference{"value", countText(k.typ, a), countText(k.typ, b)}
		case a <= r.limit:
			small = append(small, k)
		default:
			large = append(large, k)
		}
	}
	values, err := c.both(ctx, small, func(k valueKey) []string {
		r, _ := readingOf(k.typ)
		return r.whole(k.key)
	})
	if err != nil {
		return err
	}
	for i, k := range small {
		r, _ := readingOf(k.typ)
		d, err := differ(k.typ, r, values[i])
		if err != nil {
			return err
		}
		if d.problem != "" {
			diffs[k.at] = d
		}
	}
	for _, k := range large {
		d, err := c.pieces(ctx, k)
		if err != nil {
			if gone(err) {
				d = difference{"value", errGone.Error(), ""}
			} else {
				return err
			}
		}
		if d.problem != "" {
			diffs[k.at] = d
		}
	}
	return nil
}

// both asks both sides the same, in one round trip each.
func (c *comparison) both(ctx context.Context, keys []valueKey, ask func(valueKey) []string) ([][2]Reply, error) {
	cmds := make([][]string, len(keys))
	for i, k := range keys {
		cmds[i] = ask(k)
	}
	a, err := c.source.Read(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	b, err := c.other.Read(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	out := make([][2]Reply, len(keys))
	for i := range keys {
		out[i] = [2]Reply{a[i], b[i]}
	}
	return out, nil
}

func ints(r [2]Reply) (a, b int64, ok bool, err error) {
	for _, x := range r {
		if gone(x.Err()) {
			return 0, 0, false, nil
		}
	}
	if a, err = r[0].Int(); err == nil {
		b, err = r[1].Int()
	}
	return a, b, err == nil, err
}

func countText(typ string, n int64) string {
	unit := "elements"
	if typ == "string" {
		unit = "bytes"
	}
	return fmt.Sprintf("%s of %d %s", typ, n, unit)
}

// differ compares two values that were read whole.
func differ(typ string, r reading, v [2]Reply) (difference, error) {
	var canon [2][]string
	for i, x := range v {
		if gone(x.Err()) {
			return difference{"value", errGone.Error(), ""}, nil
		}
		t, err := flat(x)
		if err != nil {
			return difference{}, err
		}
		canon[i] = r.canon(t)
	}
	return firstDifference(typ, canon[0], canon[1], 0), nil
}

// firstDifference shows where two lists of texts part: the place, never the values whole.
func firstDifference(typ string, a, b []string, offset int) difference {
	if slices.Equal(a, b) {
		return difference{}
	}
	for i := range max(len(a), len(b)) {
		x, y := at(a, i), at(b, i)
		if x == y {
			continue
		}
		if typ == "string" {
			n := commonPrefix(x, y)
			return difference{"value", fmt.Sprintf("differs at byte %d", offset+n), fmt.Sprintf("differs at byte %d", offset+n)}
		}
		return difference{"value", fmt.Sprintf("%s element %d of %d bytes", typ, offset+i, len(x)), fmt.Sprintf("%s element %d of %d bytes", typ, offset+i, len(y))}
	}
	return difference{"value", typ, typ}
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return ""
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// flat gives all texts of a reply in order; nesting is kept by marks, so that two different trees differ.
func flat(r Reply) ([]string, error) {
	if err := r.Err(); err != nil {
		return nil, err
	}
	switch r.v.(type) {
	case []any:
		items, err := r.Items()
		if err != nil {
			return nil, err
		}
		var out []string
		for _, it := range items {
			t, err := flat(it)
			if err != nil {
				return nil, err
			}
			if _, nested := it.v.([]any); nested {
				t = append([]string{"(" + strconv.Itoa(len(t))}, t...)
			}
			out = append(out, t...)
		}
		return out, nil
	case nil:
		return []string{"\x00null"}, nil
	}
	t, err := r.Text()
	return []string{t}, err
}

func sorted(t []string) []string { slices.Sort(t); return t }

func sortPairs(t []string) []string {
	pairs := make([][2]string, 0, len(t)/2)
	for i := 0; i+1 < len(t); i += 2 {
		pairs = append(pairs, [2]string{t[i], t[i+1]})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	out := make([]string, 0, len(t))
	for _, p := range pairs {
		out = append(out, p[0], p[1])
	}
	return out
}

// evenScores writes scores in one way: releases print 3 and 3.0000000000000000 for the same number.
func evenScores(t []string) []string {
	for i := 1; i < len(t); i += 2 {
		t[i] = evenScore(t[i])
	}
	return t
}

func evenScore(s string) string {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// sameDump compares serialized values without their last ten bytes, the format's version and a checksum.
func sameDump(a, b Reply) bool {
	x, errX := a.Text()
	y, errY := b.Text()
	const tail = 10
	return errX == nil && errY == nil && len(x) >= tail && len(x) == len(y) && x[:len(x)-tail] == y[:len(y)-tail]
}

// pieces compares two values of one size piece by piece.
func (c *comparison) pieces(ctx context.Context, k valueKey) (difference, error) {
	switch k.typ {
	case "string":
		return c.ranges(ctx, k, "GETRANGE", pieceBytes)
	case "list":
		return c.ranges(ctx, k, "LRANGE", pieceElements)
	case "stream":
		return c.entries(ctx, k)
	case "hash":
		return c.scan(ctx, k, "HSCAN", 2, func(names []string) [][]string {
			return [][]string{append([]string{"HMGET", k.key}, names...)}
		})
	case "set":
		return c.scan(ctx, k, "SSCAN", 1, func(names []string) [][]string {
			return each(names, func(n string) []string { return []string{"SISMEMBER", k.key, n} })
		})
	}
	return c.scan(ctx, k, "ZSCAN", 2, func(names []string) [][]string {
		return each(names, func(n string) []string { return []string{"ZSCORE", k.key, n} })
	})
}

func each(names []string, f func(string) []string) [][]string {
	out := make([][]string, len(names))
	for i, n := range names {
		out[i] = f(n)
	}
	return out
}

// ranges walks through a string or list by position.
func (c *comparison) ranges(ctx context.Context, k valueKey, cmd string, piece int) (difference, error) {
	for from := 0; ; from += piece {
		r, err := c.both(ctx, []valueKey{k}, func(valueKey) []string {
			return []string{cmd, k.key, strconv.Itoa(from), strconv.Itoa(from + piece - 1)}
		})
		if err != nil {
			return difference{}, err
		}
		a, err := flat(r[0][0])
		if err != nil {
			return difference{}, err
		}
		b, err := flat(r[0][1])
		if err != nil {
			return difference{}, err
		}
		if d := firstDifference(k.typ, a, b, from); d.problem != "" {
			return d, nil
		}
		if k.typ == "string" && len(a[0]) < piece || k.typ != "string" && len(a) < piece {
			return difference{}, nil
		}
	}
}

// entries walks through a stream by id.
func (c *comparison) entries(ctx context.Context, k valueKey) (difference, error) {
	for start, n := "-", 0; ; {
		r, err := c.both(ctx, []valueKey{k}, func(valueKey) []string {
			return []string{"XRANGE", k.key, start, "+", "COUNT", strconv.Itoa(pieceElements)}
		})
		if err != nil {
			return difference{}, err
		}
		a, err := flat(r[0][0])
		if err != nil {
			return difference{}, err
		}
		b, err := flat(r[0][1])
		if err != nil {
			return difference{}, err
		}
		if d := firstDifference(k.typ, a, b, n); d.problem != "" {
			return d, nil
		}
		list, err := r[0][0].Items()
		if err != nil || len(list) < pieceElements {
			return difference{}, err
		}
		last, err := list[len(list)-1].Items()
		if err != nil || len(last) == 0 {
			return difference{}, r[0][0].unexpected("entries with ids")
		}
		id, err := last[0].Text()
		if err != nil {
			return difference{}, err
		}
		if start, err = after(id); err != nil {
			return difference{}, err
		}
		n += len(list)
	}
}

// after gives the id that follows one; exclusive ranges came with 6.2 only.
func after(id string) (string, error) {
	ms, seq, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return "", fmt.Errorf("stream id %q: %w", id, err)
	}
	return ms + "-" + strconv.FormatUint(n+1, 10), nil
}

// scan walks through the source's elements and asks the other side for each: with equal
// sizes, all found means the same. width is 2 where an element has a value.
func (c *comparison) scan(ctx context.Context, k valueKey, cmd string, width int, ask func(names []string) [][]string) (difference, error) {
	for cursor := "0"; ; {
		r, err := c.source.Do(ctx, cmd, k.key, cursor, "COUNT", strconv.Itoa(pieceElements))
		if err != nil {
			return difference{}, err
		}
		next, texts, err := scanned(r)
		if err != nil {
			return difference{}, err
		}
		if len(texts)%width != 0 {
			return difference{}, r.unexpected("names with values")
		}
		for piece := range slices.Chunk(texts, width*pieceElements) { // a small encoding is given whole, whatever COUNT says
			d, err := c.has(ctx, k, piece, width, ask)
			if err != nil || d.problem != "" {
				return d, err
			}
		}
		if cursor = next; cursor == "0" {
			return difference{}, nil
		}
	}
}

// has tells whether the other side has these elements.
func (c *comparison) has(ctx context.Context, k valueKey, texts []string, width int, ask func([]string) [][]string) (difference, error) {
	var names, want []string
	for i := 0; i < len(texts); i += width {
		names = append(names, texts[i])
		switch {
		case k.typ == "zset":
			want = append(want, evenScore(texts[i+1]))
		case width == 2:
			want = append(want, texts[i+1])
		default:
			want = append(want, "1")
		}
	}
	replies, err := c.other.Read(ctx, ask(names)...)
	if err != nil {
		return difference{}, err
	}
	var got []string
	for _, r := range replies {
		t, err := flat(r)
		if err != nil {
			return difference{}, err
		}
		got = append(got, t...)
	}
	for i, n := range names {
		g := at(got, i)
		if k.typ == "zset" {
			g = evenScore(g)
		}
		if g != want[i] {
			d := difference{"value", fmt.Sprintf("%s element %s of %d bytes", k.typ, short(n, 40), len(want[i])), fmt.Sprintf("%d bytes", len(g))}
			if k.typ == "set" || g == "\x00null" {
				d = difference{"value", fmt.Sprintf("%s element %s", k.typ, short(n, 40)), "none"}
			}
			return d, nil
		}
	}
	return difference{}, nil
}
