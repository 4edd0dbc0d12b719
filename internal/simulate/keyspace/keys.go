package keyspace

import (
	"math"
	"path"
	"strconv"
	"strings"

	"runbook/internal/simulate/resp"
)

// ParseInt reads a number as Redis does.
func ParseInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && !strings.HasPrefix(s, "+")
}

func parseFloat(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsNaN(f)
}

func cmdDel(x *Exec, a []string) resp.Value {
	n := 0
	for _, k := range a[1:] {
		if x.del(k) {
			n++
		}
	}
	return resp.Number(n)
}

func cmdExists(x *Exec, a []string) resp.Value {
	n := 0
	for _, k := range a[1:] {
		if x.read(k) != nil {
			n++
		}
	}
	return resp.Number(n)
}

func cmdType(x *Exec, a []string) resp.Value {
	if e := x.Get(a[1]); e != nil {
		return resp.Simple(e.Type)
	}
	return resp.Simple("none")
}

func cmdTTL(unit int64, absolute bool) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		e := x.Get(a[1])
		switch {
		case e == nil:
			return resp.Number(-2)
		case e.Expire == 0:
			return resp.Number(-1)
		}
		ms := e.Expire
		if !absolute {
			ms -= x.Now
		}
		if unit == 1000 {
			return resp.Number((ms + 500) / 1000)
		}
		return resp.Number(ms)
	}
}

func cmdExpire(unit int64, absolute bool) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		n, ok := ParseInt(a[2])
		if !ok {
			return ErrInt
		}
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return resp.Errorf("ERR invalid expire time in '%s' command", strings.ToLower(a[0]))
		}
		at := n * unit
		if !absolute {
			at += x.Now
		}
		opt := map[string]bool{}
		for _, o := range a[3:] {
			switch o = strings.ToUpper(o); o {
			case "NX", "XX", "GT", "LT":
				opt[o] = true
			default:
				return resp.Errorf("ERR Unsupported option %s", o)
			}
		}
		if opt["NX"] && (opt["XX"] || opt["GT"] || opt["LT"]) {
			return resp.Errorf("ERR NX and XX, GT or LT options at the same time are not compatible")
		}
		if opt["GT"] && opt["LT"] {
			return resp.Errorf("ERR GT and LT options at the same time are not compatible")
		}
		e := x.Get(a[1])
		if e == nil {
			return resp.Number(0)
		}
		old := e.Expire
		if opt["NX"] && old != 0 || opt["XX"] && old == 0 || opt["GT"] && (old == 0 || at <= old) || opt["LT"] && old != 0 && at >= old {
			return resp.Number(0)
		}
		if at <= x.Now && x.Expiry != Keep {
			x.del(a[1])
			x.Instead([]string{"DEL", a[1]})
			return resp.Number(1)
		}
		x.DB.SetExpire(a[1], e, at)
		x.Changed(a[1])
		x.Instead([]string{"PEXPIREAT", a[1], strconv.FormatInt(at, 10)})
		return resp.Number(1)
	}
}

func cmdPersist(x *Exec, a []string) resp.Value {
	e := x.Get(a[1])
	if e == nil || e.Expire == 0 {
		return resp.Number(0)
	}
	x.DB.SetExpire(a[1], e, 0)
	x.Changed(a[1])
	return resp.Number(1)
}

func cmdRename(x *Exec, a []string) resp.Value {
	nx := strings.EqualFold(a[0], "RENAMENX")
	e := x.Get(a[1])
	switch {
	case e == nil:
		return ErrNoKey
	case nx && x.Get(a[2]) != nil:
		return resp.Number(0)
	}
	c := e.Clone()
	x.DB.Del(a[1])
	x.set(a[2], c)
	if nx {
		return resp.Number(1)
	}
	return resp.OK()
}

func cmdKeys(x *Exec, a []string) resp.Value {
	v := resp.List()
	for k := range x.DB.Keys {
		if Glob(a[1], k) && x.visible(k) {
			v.Items = append(v.Items, resp.Text(k))
		}
	}
	return v
}

// visible says whether a key is there and not over, and leaves it as it is.
func (x *Exec) visible(k string) bool {
	e := x.DB.Keys[k]
	return e != nil && (e.Expire == 0 || e.Expire > x.Now)
}

// Glob is Redis' pattern: *, ?, [a-c], [^a], and \ before any of them.
func Glob(pattern, s string) bool {
	if pattern == "*" {
		return true
	}
	// path.Match means the same but for "/", which * does not pass there, and a class that is not closed.
	swap := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(swap.Replace(pattern), swap.Replace(s))
	return err == nil && ok
}

func cmdRandomKey(x *Exec, _ []string) resp.Value {
	for k := range x.DB.Keys { // in an order that differs each time, and without reading them all
		if x.visible(k) {
			return resp.Text(k)
		}
	}
	return resp.Nil()
}

func cmdDBSize(x *Exec, _ []string) resp.Value { return resp.Number(len(x.DB.Keys)) }

// scanOptions reads what follows a cursor.
func scanOptions(a []string, types bool) (match, typ string, count int, bad resp.Value) {
	match, count = "*", 10
	for i := 0; i < len(a); i += 2 {
		if i+1 >= len(a) {
			return "", "", 0, ErrSyntax
		}
		switch o := strings.ToUpper(a[i]); {
		case o == "MATCH":
			match = a[i+1]
		case o == "COUNT":
			n, ok := ParseInt(a[i+1])
			if !ok {
				return "", "", 0, ErrInt
			}
			if n < 1 {
				return "", "", 0, ErrSyntax
			}
			count = int(min(n, 1<<30))
		case o == "TYPE" && types:
			typ = strings.ToLower(a[i+1])
		default:
			return "", "", 0, ErrSyntax
		}
	}
	return match, typ, count, errNothing
}

func cmdScan(x *Exec, a []string) resp.Value {
	cursor, err := strconv.ParseUint(a[1], 10, 64)
	if err != nil {
		return resp.Errorf("ERR invalid cursor")
	}
	match, typ, count, bad := scanOptions(a[2:], true)
	if !bad.IsZero() {
		return bad
	}
	keys, next := x.DB.Scan(cursor, count)
	out := resp.List()
	for _, k := range keys {
		if e := x.DB.Keys[k]; Glob(match, k) && x.visible(k) && (typ == "" || e.Type == typ) {
			out.Items = append(out.Items, resp.Text(k))
		}
	}
	return resp.List(resp.Text(strconv.FormatUint(next, 10)), out)
}

// cmdScanIn is HSCAN, SSCAN and ZSCAN: all at once, as the real one does with small values.
func cmdScanIn(typ string) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		if _, err := strconv.ParseUint(a[2], 10, 64); err != nil {
			return resp.Errorf("ERR invalid cursor")
		}
		e, bad := x.typed(a[1], typ)
		if !bad.IsZero() {
			return bad
		}
		match, _, _, bad := scanOptions(a[3:], false)
		if !bad.IsZero() {
			return bad
		}
		out := resp.List()
		add := func(name string, rest ...string) {
			if Glob(match, name) {
				out.Items = append(append(out.Items, resp.Text(name)), resp.Texts(rest...).Items...)
			}
		}
		switch {
		case e == nil:
		case typ == "hash":
			for i, n := range e.hash.names {
				add(n, e.hash.vals[i])
			}
		case typ == "set":
			for _, n := range e.members() {
				add(n)
			}
		default:
			for _, m := range e.ranked() {
				add(m.name, resp.FormatDouble(m.score))
			}
		}
		return resp.List(resp.Text("0"), out)
	}
}

func cmdObject(x *Exec, a []string) resp.Value {
	sub := strings.ToLower(a[1])
	if sub == "help" {
		return resp.List(resp.Simple("OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"))
	}
	e := x.Get(a[2])
	if e == nil {
		return resp.Nil()
	}
	switch sub {
	case "encoding":
		return resp.Text(e.encoding())
	case "refcount":
		if n, ok := ParseInt(e.str); ok && e.Type == "string" && n >= 0 && n < 10000 {
			return resp.Number(math.MaxInt32) // a shared integer
		}
		return resp.Number(1)
	case "freq":
		return resp.Errorf("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
	}
	return resp.Number(0) // idletime
}

func cmdDump(x *Exec, a []string) resp.Value {
	if e := x.Get(a[1]); e != nil {
		return resp.Text(e.dump())
	}
	return resp.Nil()
}

func cmdRestore(x *Exec, a []string) resp.Value {
	replace, absolute := false, false
	for i := 4; i < len(a); i++ {
		switch strings.ToUpper(a[i]) {
		case "REPLACE":
			replace = true
		case "ABSTTL":
			absolute = true
		case "IDLETIME", "FREQ":
			i++
		default:
			return ErrSyntax
		}
	}
	if !replace && x.Get(a[1]) != nil {
		return resp.Errorf("BUSYKEY Target key name already exists.")
	}
	ttl, ok := ParseInt(a[2])
	if !ok {
		return ErrInt
	}
	if ttl < 0 {
		return resp.Errorf("ERR Invalid TTL value, must be >= 0")
	}
	e, ok := restore(a[3])
	if !ok {
		return resp.Errorf("ERR DUMP payload version or checksum are wrong")
	}
	if ttl > 0 {
		if !absolute {
			ttl += x.Now
		}
		e.Expire = ttl
		x.Instead([]string{"RESTORE", a[1], strconv.FormatInt(ttl, 10), a[3], "REPLACE", "ABSTTL"})
	}
	x.set(a[1], e)
	return resp.OK()
}
