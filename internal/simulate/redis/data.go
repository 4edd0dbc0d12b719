package redis

import (
	"strings"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// The commands on several databases at once. Each takes the request whole, name included.

func cmdCopy(x *exec, a []string) resp.Value {
	to, replace := x.db, false
	for i := 3; i < len(a); i++ {
		switch strings.ToUpper(a[i]) {
		case "REPLACE":
			replace = true
		case "DB":
			if i++; i >= len(a) {
				return errSyntax
			}
			n, ok := keyspace.ParseInt(a[i])
			if !ok {
				return errInt
			}
			if n < 0 || n >= int64(len(x.s.dbs)) {
				return resp.Errorf("ERR DB index is out of range")
			}
			to = int(n)
		default:
			return errSyntax
		}
	}
	e := x.Get(a[1])
	if e == nil {
		return resp.Number(0)
	}
	y := *x
	y.db, y.DB = to, x.s.dbs[to]
	if y.Get(a[2]) != nil && !replace {
		return resp.Number(0)
	}
	y.DB.Put(a[2], e.Clone())
	x.Changed(a[1])
	return resp.Number(1)
}

func cmdMove(x *exec, a []string) resp.Value {
	n, ok := keyspace.ParseInt(a[2])
	if !ok {
		return errInt
	}
	if n < 0 || n >= int64(len(x.s.dbs)) {
		return resp.Errorf("ERR DB index is out of range")
	}
	if int(n) == x.db {
		return resp.Errorf("ERR source and destination objects are the same")
	}
	e := x.Get(a[1])
	if e == nil || x.s.dbs[n].Keys[a[2]] != nil {
		return resp.Number(0)
	}
	c := e.Clone()
	x.DB.Del(a[1])
	x.s.dbs[n].Put(a[1], c)
	x.Dirty++
	return resp.Number(1)
}

func cmdSwapDB(x *exec, a []string) resp.Value {
	i, ok1 := keyspace.ParseInt(a[1])
	j, ok2 := keyspace.ParseInt(a[2])
	if !ok1 {
		return resp.Errorf("ERR invalid first DB index")
	}
	if !ok2 {
		return resp.Errorf("ERR invalid second DB index")
	}
	if n := int64(len(x.s.dbs)); i < 0 || j < 0 || i >= n || j >= n {
		return resp.Errorf("ERR DB index is out of range")
	}
	x.s.dbs[i], x.s.dbs[j] = x.s.dbs[j], x.s.dbs[i]
	x.Dirty++
	return resp.OK()
}

func cmdFlush(all bool) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		if len(a) > 2 || len(a) == 2 && !strings.EqualFold(a[1], "ASYNC") && !strings.EqualFold(a[1], "SYNC") {
			return errSyntax
		}
		for i := range x.s.dbs {
			if all || i == x.db {
				x.s.dbs[i] = newDatabase()
			}
		}
		x.Dirty++ // also where it was empty: the real one replicates it anyway
		return resp.OK()
	}
}
