package keyspace

import (
	"runbook/internal/simulate/resp"
)

func cmdSAdd(x *Exec, a []string) resp.Value {
	e, bad := x.make(a[1], "set")
	if !bad.IsZero() {
		return bad
	}
	n := 0
	for _, m := range a[2:] {
		if e.set.put(m, "") {
			n++
		}
	}
	if n > 0 {
		x.Changed(a[1])
	}
	return resp.Number(n)
}

func cmdSRem(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "set")
	if !bad.IsZero() || e == nil {
		return orZero(bad)
	}
	n := 0
	for _, m := range a[2:] {
		if e.set.del(m) {
			n++
		}
	}
	if n > 0 {
		x.Changed(a[1])
	}
	return resp.Number(n)
}

func cmdSMembers(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "set")
	if !bad.IsZero() {
		return bad
	}
	v := resp.List()
	if e != nil {
		v = resp.Texts(e.members()...)
	}
	v.Kind = resp.Set
	return v
}

func cmdSIsMember(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "set")
	if !bad.IsZero() || e == nil {
		return orZero(bad)
	}
	_, ok := e.set.get(a[2])
	return boolean(ok)
}

func boolean(ok bool) resp.Value {
	if ok {
		return resp.Number(1)
	}
	return resp.Number(0)
}

func size(typ string) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		e, bad := x.typed(a[1], typ)
		if !bad.IsZero() || e == nil {
			return orZero(bad)
		}
		switch typ {
		case "list":
			return resp.Number(len(e.list))
		case "hash":
			return resp.Number(len(e.hash.names))
		case "set":
			return resp.Number(len(e.set.names))
		}
		return resp.Number(len(e.zset))
	}
}
