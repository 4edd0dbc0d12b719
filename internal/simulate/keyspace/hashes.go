package keyspace

import (
	"math"
	"strconv"
	"strings"

	"runbook/internal/simulate/resp"
)

func cmdHSet(x *Exec, a []string) resp.Value {
	if len(a)%2 != 0 {
		return resp.Errorf("ERR wrong number of arguments for '%s' command", strings.ToLower(a[0]))
	}
	e, bad := x.make(a[1], "hash")
	if !bad.IsZero() {
		return bad
	}
	n := 0
	for i := 2; i < len(a); i += 2 {
		if e.hash.put(a[i], a[i+1]) {
			n++
		}
	}
	x.Changed(a[1])
	if strings.EqualFold(a[0], "HMSET") {
		return resp.OK()
	}
	return resp.Number(n)
}

func cmdHSetNX(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "hash")
	if !bad.IsZero() {
		return bad
	}
	if e != nil {
		if _, ok := e.hash.get(a[2]); ok {
			return resp.Number(0)
		}
	}
	e, _ = x.make(a[1], "hash")
	e.hash.put(a[2], a[3])
	x.Changed(a[1])
	return resp.Number(1)
}

// hashRead is what the reading commands have in common; f sees an empty hash where the key is missing.
func hashRead(f func(h *ordered, a []string) resp.Value) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		e, bad := x.typed(a[1], "hash")
		if !bad.IsZero() {
			return bad
		}
		if e == nil {
			e = newEntry("hash")
		}
		return f(e.hash, a)
	}
}

func field(h *ordered, name string) resp.Value {
	if v, ok := h.get(name); ok {
		return resp.Text(v)
	}
	return resp.Nil()
}

func cmdHDel(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "hash")
	if !bad.IsZero() || e == nil {
		return orZero(bad)
	}
	n := 0
	for _, f := range a[2:] {
		if e.hash.del(f) {
			n++
		}
	}
	if n > 0 {
		x.Changed(a[1])
	}
	return resp.Number(n)
}

func orZero(bad resp.Value) resp.Value {
	if !bad.IsZero() {
		return bad
	}
	return resp.Number(0)
}

func cmdHIncrBy(x *Exec, a []string) resp.Value {
	by, ok := ParseInt(a[3])
	if !ok {
		return ErrInt
	}
	e, bad := x.typed(a[1], "hash")
	if !bad.IsZero() {
		return bad
	}
	n := int64(0)
	if e != nil {
		if s, has := e.hash.get(a[2]); has {
			if n, ok = ParseInt(s); !ok {
				return resp.Errorf("ERR hash value is not an integer")
			}
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return resp.Errorf("ERR increment or decrement would overflow")
	}
	e, _ = x.make(a[1], "hash")
	e.hash.put(a[2], strconv.FormatInt(n+by, 10))
	x.Changed(a[1])
	return resp.Number(n + by)
}
