package keyspace

import (
	"math"
	"strconv"
	"strings"

	"runbook/internal/simulate/resp"
)

func cmdGet(x *Exec, a []string) resp.Value {
	e := x.read(a[1])
	switch {
	case e == nil:
		return resp.Nil()
	case e.Type != "string":
		return ErrType
	}
	return resp.Text(e.str)
}

// expireArg reads the time after EX, PX, EXAT and PXAT as Unix milliseconds.
func (x *Exec) expireArg(option, value, name string) (int64, resp.Value) {
	n, ok := ParseInt(value)
	if !ok {
		return 0, ErrInt
	}
	unit := int64(1)
	if strings.HasPrefix(option, "E") {
		unit = 1000
	}
	if n <= 0 || n > math.MaxInt64/unit/2 {
		return 0, resp.Errorf("ERR invalid expire time in '%s' command", name)
	}
	n *= unit
	if !strings.HasSuffix(option, "AT") {
		n += x.Now
	}
	return n, errNothing
}

func cmdSet(x *Exec, a []string) resp.Value {
	var nx, xx, get, keep bool
	var at int64
	var timed, value string
	for i := 3; i < len(a); i++ {
		switch o := strings.ToUpper(a[i]); {
		case o == "NX" && !xx:
			nx = true
		case o == "XX" && !nx:
			xx = true
		case o == "GET":
			get = true
		case o == "KEEPTTL" && timed == "":
			keep = true
		case (o == "EX" || o == "PX" || o == "EXAT" || o == "PXAT") && timed == "" && !keep && i+1 < len(a):
			timed, value = o, a[i+1]
			i++
		default:
			return ErrSyntax
		}
	}
	if timed != "" {
		var bad resp.Value
		if at, bad = x.expireArg(timed, value, "set"); !bad.IsZero() {
			return bad
		}
	}
	old := x.Get(a[1])
	was := resp.Nil()
	if get && old != nil {
		if old.Type != "string" {
			return ErrType
		}
		was = resp.Text(old.str)
	}
	if nx && old != nil || xx && old == nil {
		if get {
			return was
		}
		return resp.Nil()
	}
	e := &Entry{Type: "string", str: a[2], Expire: at}
	if keep && old != nil {
		e.Expire = old.Expire
	}
	x.set(a[1], e)
	if timed != "" {
		x.Instead([]string{"SET", a[1], a[2], "PXAT", strconv.FormatInt(at, 10)})
	}
	if get {
		return was
	}
	return resp.OK()
}

func cmdSetEx(option string) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		at, bad := x.expireArg(option, a[2], strings.ToLower(a[0]))
		if !bad.IsZero() {
			return bad
		}
		x.set(a[1], &Entry{Type: "string", str: a[3], Expire: at})
		x.Instead([]string{"SET", a[1], a[3], "PXAT", strconv.FormatInt(at, 10)})
		return resp.OK()
	}
}

func cmdSetNX(x *Exec, a []string) resp.Value {
	if x.Get(a[1]) != nil {
		return resp.Number(0)
	}
	x.set(a[1], &Entry{Type: "string", str: a[2]})
	return resp.Number(1)
}

func cmdGetSet(x *Exec, a []string) resp.Value {
	v := cmdGet(x, a)
	if v.Kind != resp.Err {
		x.set(a[1], &Entry{Type: "string", str: a[2]})
		x.Instead([]string{"SET", a[1], a[2]})
	}
	return v
}

func cmdGetDel(x *Exec, a []string) resp.Value {
	v := cmdGet(x, a)
	if v.Kind == resp.Bulk {
		x.del(a[1])
		x.Instead([]string{"DEL", a[1]})
	}
	return v
}

func cmdGetEx(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	switch {
	case len(a) == 2:
		return cmdGet(x, a)
	case len(a) == 3 && strings.EqualFold(a[2], "PERSIST"):
		if e == nil {
			return resp.Nil()
		}
		if e.Expire != 0 {
			x.DB.SetExpire(a[1], e, 0)
			x.Changed(a[1])
			x.Instead([]string{"PERSIST", a[1]})
		}
		return resp.Text(e.str)
	case len(a) == 4:
		o := strings.ToUpper(a[2])
		if o != "EX" && o != "PX" && o != "EXAT" && o != "PXAT" {
			return ErrSyntax
		}
		at, bad := x.expireArg(o, a[3], "getex")
		if !bad.IsZero() {
			return bad
		}
		if e == nil {
			return resp.Nil()
		}
		v := resp.Text(e.str)
		x.DB.SetExpire(a[1], e, at)
		x.Changed(a[1])
		x.Instead([]string{"PEXPIREAT", a[1], strconv.FormatInt(at, 10)})
		return v
	}
	return ErrSyntax
}

func cmdMGet(x *Exec, a []string) resp.Value {
	v := resp.List()
	for _, k := range a[1:] {
		if e := x.read(k); e != nil && e.Type == "string" {
			v.Items = append(v.Items, resp.Text(e.str))
		} else {
			v.Items = append(v.Items, resp.Nil())
		}
	}
	return v
}

func cmdMSet(x *Exec, a []string) resp.Value {
	nx := strings.EqualFold(a[0], "MSETNX")
	if len(a)%2 == 0 {
		return resp.Errorf("ERR wrong number of arguments for '%s' command", strings.ToLower(a[0]))
	}
	for i := 1; nx && i < len(a); i += 2 {
		if x.Get(a[i]) != nil {
			return resp.Number(0)
		}
	}
	for i := 1; i < len(a); i += 2 {
		x.Get(a[i])
		x.set(a[i], &Entry{Type: "string", str: a[i+1]})
	}
	if nx {
		return resp.Number(1)
	}
	return resp.OK()
}

func (x *Exec) add(k string, by int64) resp.Value {
	e, bad := x.typed(k, "string")
	if !bad.IsZero() {
		return bad
	}
	n := int64(0)
	if e != nil {
		var ok bool
		if n, ok = ParseInt(e.str); !ok {
			return ErrInt
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return resp.Errorf("ERR increment or decrement would overflow")
	}
	if e == nil {
		e = newEntry("string")
		x.DB.Put(k, e)
	}
	e.str = strconv.FormatInt(n+by, 10)
	x.Changed(k)
	return resp.Number(n + by)
}

func cmdIncr(sign int64) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		by := int64(1)
		if len(a) == 3 {
			var ok bool
			if by, ok = ParseInt(a[2]); !ok {
				return ErrInt
			}
			if by == math.MinInt64 && sign < 0 {
				return resp.Errorf("ERR decrement would overflow")
			}
		}
		return x.add(a[1], by*sign)
	}
}

func cmdIncrByFloat(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	by, ok := parseFloat(a[2])
	n := 0.0
	if e != nil && ok {
		n, ok = parseFloat(e.str)
	}
	if !ok {
		return ErrFloat
	}
	if math.IsInf(n+by, 0) {
		return resp.Errorf("ERR increment would produce NaN or Infinity")
	}
	s := strconv.FormatFloat(n+by, 'f', -1, 64) // shorter than the real one's long double, and equal to it when rounded
	if e == nil {
		e = newEntry("string")
		x.DB.Put(a[1], e)
	}
	e.str = s
	x.Changed(a[1])
	x.Instead([]string{"SET", a[1], s, "KEEPTTL"})
	return resp.Text(s)
}

func cmdAppend(x *Exec, a []string) resp.Value {
	e, bad := x.make(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	e.str += a[2]
	x.Changed(a[1])
	return resp.Number(len(e.str))
}

func cmdStrlen(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "string")
	if e == nil {
		if !bad.IsZero() {
			return bad
		}
		return resp.Number(0)
	}
	return resp.Number(len(e.str))
}

// window turns Redis' inclusive, maybe negative bounds into a Go slice's.
func window(start, stop string, n int) (i, j int, ok bool) {
	a, ok1 := ParseInt(start)
	b, ok2 := ParseInt(stop)
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	if a < 0 {
		a += int64(n)
	}
	if b < 0 {
		b += int64(n)
	}
	a, b = max(a, 0), min(b, int64(n)-1)
	if a > b {
		return 0, 0, true
	}
	return int(a), int(b) + 1, true
}

func cmdGetRange(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	s := ""
	if e != nil {
		s = e.str
	}
	i, j, ok := window(a[2], a[3], len(s))
	if !ok {
		return ErrInt
	}
	return resp.Text(s[i:j])
}

func cmdSetRange(x *Exec, a []string) resp.Value {
	at, ok := ParseInt(a[2])
	if !ok {
		return ErrInt
	}
	if at < 0 {
		return resp.Errorf("ERR offset is out of range")
	}
	if at+int64(len(a[3])) > 512<<20 {
		return resp.Errorf("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	}
	e, bad := x.typed(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	if a[3] == "" {
		if e == nil {
			return resp.Number(0)
		}
		return resp.Number(len(e.str))
	}
	if e == nil {
		e = newEntry("string")
		x.DB.Put(a[1], e)
	}
	b := []byte(e.str)
	for len(b) < int(at)+len(a[3]) {
		b = append(b, 0)
	}
	copy(b[at:], a[3])
	e.str = string(b)
	x.Changed(a[1])
	return resp.Number(len(b))
}
