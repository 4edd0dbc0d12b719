package keyspace

import (
	"slices"
	"strings"

	"runbook/internal/simulate/resp"
)

func cmdPush(left, must bool) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		if must {
			if e, bad := x.typed(a[1], "list"); e == nil {
				if !bad.IsZero() {
					return bad
				}
				return resp.Number(0)
			}
		}
		e, bad := x.make(a[1], "list")
		if !bad.IsZero() {
			return bad
		}
		for _, v := range a[2:] {
			if left {
				e.list = slices.Insert(e.list, 0, v)
			} else {
				e.list = append(e.list, v)
			}
		}
		x.Changed(a[1])
		return resp.Number(len(e.list))
	}
}

func cmdPop(left bool) func(*Exec, []string) resp.Value {
	return func(x *Exec, a []string) resp.Value {
		if len(a) > 3 {
			return resp.Errorf("ERR wrong number of arguments for '%s' command", strings.ToLower(a[0]))
		}
		n := int64(1)
		if len(a) == 3 {
			var ok bool
			if n, ok = ParseInt(a[2]); !ok || n < 0 {
				return resp.Errorf("ERR value is out of range, must be positive")
			}
		}
		e, bad := x.typed(a[1], "list")
		if !bad.IsZero() {
			return bad
		}
		if e == nil {
			if len(a) == 3 {
				return resp.NilArray()
			}
			return resp.Nil()
		}
		var got []string
		for range min(n, int64(len(e.list))) {
			i := len(e.list) - 1
			if left {
				i = 0
			}
			got = append(got, e.list[i])
			e.list = slices.Delete(e.list, i, i+1)
		}
		if len(got) > 0 {
			x.Changed(a[1])
		}
		if len(a) == 3 {
			return resp.Texts(got...)
		}
		return resp.Text(got[0])
	}
}

func cmdLRange(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	var list []string
	if e != nil {
		list = e.list
	}
	i, j, ok := window(a[2], a[3], len(list))
	if !ok {
		return ErrInt
	}
	return resp.Texts(list[i:j]...)
}

func cmdLIndex(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	n, ok := ParseInt(a[2])
	if !ok {
		return ErrInt
	}
	if e != nil && n < 0 {
		n += int64(len(e.list))
	}
	if e == nil || n < 0 || n >= int64(len(e.list)) {
		return resp.Nil()
	}
	return resp.Text(e.list[n])
}

func cmdLSet(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		return ErrNoKey
	}
	n, ok := ParseInt(a[2])
	if !ok {
		return ErrInt
	}
	if n < 0 {
		n += int64(len(e.list))
	}
	if n < 0 || n >= int64(len(e.list)) {
		return resp.Errorf("ERR index out of range")
	}
	e.list[n] = a[3]
	x.Changed(a[1])
	return resp.OK()
}

func cmdLRem(x *Exec, a []string) resp.Value {
	n, ok := ParseInt(a[2])
	if !ok {
		return ErrInt
	}
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		return resp.Number(0)
	}
	if n < 0 {
		slices.Reverse(e.list)
		defer func() { slices.Reverse(e.list) }()
	}
	left, removed := max(n, -n), 0
	e.list = slices.DeleteFunc(e.list, func(v string) bool {
		if v != a[3] || n != 0 && left == 0 {
			return false
		}
		left--
		removed++
		return true
	})
	if removed > 0 {
		x.Changed(a[1])
	}
	return resp.Number(removed)
}

func cmdLTrim(x *Exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		return resp.OK()
	}
	i, j, ok := window(a[2], a[3], len(e.list))
	if !ok {
		return ErrInt
	}
	e.list = slices.Clone(e.list[i:j])
	x.Changed(a[1])
	return resp.OK()
}
