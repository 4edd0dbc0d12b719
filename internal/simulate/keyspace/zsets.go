package keyspace

import (
	"slices"
	"sort"
	"strings"

	"runbook/internal/simulate/resp"
)

func cmdZAdd(x *Exec, a []string) resp.Value {
	opt := map[string]bool{}
	i := 2
options:
	for ; i < len(a); i++ {
		switch o := strings.ToUpper(a[i]); o {
		case "NX", "XX", "GT", "LT", "CH", "INCR":
			opt[o] = true
		default:
			break options
		}
	}
	pairs := a[i:]
	switch {
	case len(pairs) == 0 || len(pairs)%2 != 0:
		return ErrSyntax
	case opt["NX"] && opt["XX"]:
		return resp.Errorf("ERR XX and NX options at the same time are not compatible")
	case opt["GT"] && opt["LT"] || opt["NX"] && (opt["GT"] || opt["LT"]):
		return resp.Errorf("ERR GT, LT, and/or NX options at the same time are not compatible")
	case opt["INCR"] && len(pairs) > 2:
		return resp.Errorf("ERR INCR option supports a single increment-element pair")
	}
	scores := make([]float64, 0, len(pairs)/2)
	for j := 0; j < len(pairs); j += 2 {
		f, ok := parseFloat(pairs[j])
		if !ok {
			return ErrFloat
		}
		scores = append(scores, f)
	}
	e, bad := x.typed(a[1], "zset")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		if opt["XX"] {
			if opt["INCR"] {
				return resp.Nil()
			}
			return resp.Number(0)
		}
		e, _ = x.make(a[1], "zset")
	}
	added, altered, result := 0, 0, resp.Nil()
	for j, score := range scores {
		m := pairs[2*j+1]
		old, has := e.zset[m]
		if opt["INCR"] && has {
			score += old
		}
		if has && opt["NX"] || !has && opt["XX"] || has && opt["GT"] && score <= old || has && opt["LT"] && score >= old {
			continue
		}
		result = resp.Value{Kind: resp.Double, Double: score}
		switch {
		case !has:
			added++
		case old != score:
			altered++
		default:
			continue
		}
		e.zset[m] = score
	}
	if added+altered > 0 {
		x.Changed(a[1])
	} else if e.empty() {
		x.DB.Del(a[1])
	}
	switch {
	case opt["INCR"]:
		return result
	case opt["CH"]:
		return resp.Number(added + altered)
	}
	return resp.Number(added)
}

func cmdZIncrBy(x *Exec, a []string) resp.Value {
	return cmdZAdd(x, []string{"ZADD", a[1], "INCR", a[2], a[3]})
}

func cmdZRem(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "zset")
	if !bad.IsZero() || e == nil {
		return orZero(bad)
	}
	n := 0
	for _, m := range a[2:] {
		if _, ok := e.zset[m]; ok {
			delete(e.zset, m)
			n++
		}
	}
	if n > 0 {
		x.Changed(a[1])
	}
	return resp.Number(n)
}

func (x *Exec) rank(k string) ([]scored, resp.Value) {
	e, bad := x.typed(k, "zset")
	if e == nil {
		return nil, bad
	}
	return e.ranked(), errNothing
}

func (x *Exec) members(ms []scored, scores bool) resp.Value {
	v := resp.List()
	for _, m := range ms {
		score := resp.Value{Kind: resp.Double, Double: m.score}
		switch {
		case !scores:
			v.Items = append(v.Items, resp.Text(m.name))
		case x.Proto >= 3:
			v.Items = append(v.Items, resp.List(resp.Text(m.name), score))
		default:
			v.Items = append(v.Items, resp.Text(m.name), score)
		}
	}
	return v
}

// cmdZRange knows ranges by rank, REV and WITHSCORES, and by score with BYSCORE.
func cmdZRange(x *Exec, a []string) resp.Value {
	rev := strings.EqualFold(a[0], "ZREVRANGE")
	scores, by := false, false
	for _, o := range a[4:] {
		switch {
		case strings.EqualFold(o, "WITHSCORES"):
			scores = true
		case strings.EqualFold(o, "REV"):
			rev = true
		case strings.EqualFold(o, "BYSCORE"):
			by = true
		default:
			return ErrSyntax
		}
	}
	ms, bad := x.rank(a[1])
	if !bad.IsZero() {
		return bad
	}
	if by {
		low, high := a[2], a[3]
		if rev {
			low, high = high, low
		}
		if ms, bad = between(ms, low, high); !bad.IsZero() {
			return bad
		}
		if rev {
			slices.Reverse(ms)
		}
		return x.members(ms, scores)
	}
	if rev {
		slices.Reverse(ms)
	}
	i, j, ok := window(a[2], a[3], len(ms))
	if !ok {
		return ErrInt
	}
	return x.members(ms[i:j], scores)
}

// between cuts members, in rank order, to the scores from low to high; "(" before a bound leaves it out.
func between(ms []scored, low, high string) ([]scored, resp.Value) {
	bound := func(s string) (f float64, open, ok bool) {
		s, open = strings.CutPrefix(s, "(")
		f, ok = parseFloat(s)
		return f, open, ok
	}
	lo, openLo, ok1 := bound(low)
	hi, openHi, ok2 := bound(high)
	if !ok1 || !ok2 {
		return nil, resp.Errorf("ERR min or max is not a float")
	}
	i := sort.Search(len(ms), func(i int) bool { return ms[i].score > lo || !openLo && ms[i].score == lo })
	j := sort.Search(len(ms), func(i int) bool { return ms[i].score > hi || openHi && ms[i].score == hi })
	if i > j {
		return nil, errNothing
	}
	return ms[i:j], errNothing
}

func cmdZRangeByScore(x *Exec, a []string) resp.Value {
	scores := false
	for _, o := range a[4:] {
		if !strings.EqualFold(o, "WITHSCORES") {
			return ErrSyntax
		}
		scores = true
	}
	ms, bad := x.rank(a[1])
	if !bad.IsZero() {
		return bad
	}
	if ms, bad = between(ms, a[2], a[3]); !bad.IsZero() {
		return bad
	}
	return x.members(ms, scores)
}

func cmdZCount(x *Exec, a []string) resp.Value {
	ms, bad := x.rank(a[1])
	if !bad.IsZero() {
		return bad
	}
	if ms, bad = between(ms, a[2], a[3]); !bad.IsZero() {
		return bad
	}
	return resp.Number(len(ms))
}

func cmdZScore(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "zset")
	if !bad.IsZero() {
		return bad
	}
	if e != nil {
		if f, ok := e.zset[a[2]]; ok {
			return resp.Value{Kind: resp.Double, Double: f}
		}
	}
	return resp.Nil()
}

func cmdZRank(x *Exec, a []string) resp.Value {
	ms, bad := x.rank(a[1])
	if !bad.IsZero() {
		return bad
	}
	i := slices.IndexFunc(ms, func(m scored) bool { return m.name == a[2] })
	if i < 0 {
		return resp.Nil()
	}
	return resp.Number(i)
}
