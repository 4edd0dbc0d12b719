package redis

import (
	"math"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"runbook/internal/simulate/resp"
)

// The commands on keys and values. Each takes the request whole, name included.

func parseInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && !strings.HasPrefix(s, "+")
}

func parseFloat(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsNaN(f)
}

func cmdDel(x *exec, a []string) resp.Value {
	n := 0
	for _, k := range a[1:] {
		if x.del(k) {
			n++
		}
	}
	return resp.Number(n)
}

func cmdExists(x *exec, a []string) resp.Value {
	n := 0
	for _, k := range a[1:] {
		if x.read(k) != nil {
			n++
		}
	}
	return resp.Number(n)
}

func cmdType(x *exec, a []string) resp.Value {
	if e := x.get(a[1]); e != nil {
		return resp.Simple(e.typ)
	}
	return resp.Simple("none")
}

func cmdTTL(unit int64, absolute bool) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		e := x.get(a[1])
		switch {
		case e == nil:
			return resp.Number(-2)
		case e.expire == 0:
			return resp.Number(-1)
		}
		ms := e.expire
		if !absolute {
			ms -= x.now
		}
		if unit == 1000 {
			return resp.Number((ms + 500) / 1000)
		}
		return resp.Number(ms)
	}
}

func cmdExpire(unit int64, absolute bool) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		n, ok := parseInt(a[2])
		if !ok {
			return errInt
		}
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return resp.Errorf("ERR invalid expire time in '%s' command", strings.ToLower(a[0]))
		}
		at := n * unit
		if !absolute {
			at += x.now
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
		e := x.get(a[1])
		if e == nil {
			return resp.Number(0)
		}
		old := e.expire
		if opt["NX"] && old != 0 || opt["XX"] && old == 0 || opt["GT"] && (old == 0 || at <= old) || opt["LT"] && old != 0 && at >= old {
			return resp.Number(0)
		}
		if at <= x.now && !x.c.master {
			x.del(a[1])
			x.instead([]string{"DEL", a[1]})
			return resp.Number(1)
		}
		x.d.setExpire(a[1], e, at)
		x.changed(a[1])
		x.instead([]string{"PEXPIREAT", a[1], strconv.FormatInt(at, 10)})
		return resp.Number(1)
	}
}

func cmdPersist(x *exec, a []string) resp.Value {
	e := x.get(a[1])
	if e == nil || e.expire == 0 {
		return resp.Number(0)
	}
	x.d.setExpire(a[1], e, 0)
	x.changed(a[1])
	return resp.Number(1)
}

func cmdRename(x *exec, a []string) resp.Value {
	nx := strings.EqualFold(a[0], "RENAMENX")
	e := x.get(a[1])
	switch {
	case e == nil:
		return errNoKey
	case nx && x.get(a[2]) != nil:
		return resp.Number(0)
	}
	c := e.clone()
	x.d.del(a[1])
	x.set(a[2], c)
	if nx {
		return resp.Number(1)
	}
	return resp.OK()
}

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
			n, ok := parseInt(a[i])
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
	e := x.get(a[1])
	if e == nil {
		return resp.Number(0)
	}
	y := *x
	y.db, y.d = to, x.s.dbs[to]
	if y.get(a[2]) != nil && !replace {
		return resp.Number(0)
	}
	y.d.put(a[2], e.clone())
	x.changed(a[1])
	return resp.Number(1)
}

func cmdMove(x *exec, a []string) resp.Value {
	n, ok := parseInt(a[2])
	if !ok {
		return errInt
	}
	if n < 0 || n >= int64(len(x.s.dbs)) {
		return resp.Errorf("ERR DB index is out of range")
	}
	if int(n) == x.db {
		return resp.Errorf("ERR source and destination objects are the same")
	}
	e := x.get(a[1])
	if e == nil || x.s.dbs[n].keys[a[2]] != nil {
		return resp.Number(0)
	}
	c := e.clone()
	x.d.del(a[1])
	x.s.dbs[n].put(a[1], c)
	x.dirty++
	return resp.Number(1)
}

func cmdSwapDB(x *exec, a []string) resp.Value {
	i, ok1 := parseInt(a[1])
	j, ok2 := parseInt(a[2])
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
	x.dirty++
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
		x.dirty++ // also where it was empty: the real one replicates it anyway
		return resp.OK()
	}
}

func cmdKeys(x *exec, a []string) resp.Value {
	v := resp.List()
	for k := range x.d.keys {
		if glob(a[1], k) && x.visible(k) {
			v.Items = append(v.Items, resp.Text(k))
		}
	}
	return v
}

// visible says whether a key is there and not over, and leaves it as it is.
func (x *exec) visible(k string) bool {
	e := x.d.keys[k]
	return e != nil && (e.expire == 0 || e.expire > x.now)
}

// glob is Redis' pattern: *, ?, [a-c], [^a], and \ before any of them.
func glob(pattern, s string) bool {
	if pattern == "*" {
		return true
	}
	// path.Match means the same but for "/", which * does not pass there, and a class that is not closed.
	swap := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(swap.Replace(pattern), swap.Replace(s))
	return err == nil && ok
}

func cmdRandomKey(x *exec, _ []string) resp.Value {
	for k := range x.d.keys { // in an order that differs each time, and without reading them all
		if x.visible(k) {
			return resp.Text(k)
		}
	}
	return resp.Nil()
}

func cmdDBSize(x *exec, _ []string) resp.Value { return resp.Number(len(x.d.keys)) }

// scanOptions reads what follows a cursor.
func scanOptions(a []string, types bool) (match, typ string, count int, bad resp.Value) {
	match, count = "*", 10
	for i := 0; i < len(a); i += 2 {
		if i+1 >= len(a) {
			return "", "", 0, errSyntax
		}
		switch o := strings.ToUpper(a[i]); {
		case o == "MATCH":
			match = a[i+1]
		case o == "COUNT":
			n, ok := parseInt(a[i+1])
			if !ok {
				return "", "", 0, errInt
			}
			if n < 1 {
				return "", "", 0, errSyntax
			}
			count = int(min(n, 1<<30))
		case o == "TYPE" && types:
			typ = strings.ToLower(a[i+1])
		default:
			return "", "", 0, errSyntax
		}
	}
	return match, typ, count, errNothing
}

func cmdScan(x *exec, a []string) resp.Value {
	cursor, err := strconv.ParseUint(a[1], 10, 64)
	if err != nil {
		return resp.Errorf("ERR invalid cursor")
	}
	match, typ, count, bad := scanOptions(a[2:], true)
	if !bad.IsZero() {
		return bad
	}
	keys, next := x.d.scan(cursor, count)
	out := resp.List()
	for _, k := range keys {
		if e := x.d.keys[k]; glob(match, k) && x.visible(k) && (typ == "" || e.typ == typ) {
			out.Items = append(out.Items, resp.Text(k))
		}
	}
	return resp.List(resp.Text(strconv.FormatUint(next, 10)), out)
}

// cmdScanIn is HSCAN, SSCAN and ZSCAN: all at once, as the real one does with small values.
func cmdScanIn(typ string) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
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
			if glob(match, name) {
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

func cmdObject(x *exec, a []string) resp.Value {
	sub := strings.ToLower(a[1])
	if sub == "help" {
		return resp.List(resp.Simple("OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"))
	}
	e := x.get(a[2])
	if e == nil {
		return resp.Nil()
	}
	switch sub {
	case "encoding":
		return resp.Text(e.encoding())
	case "refcount":
		if n, ok := parseInt(e.str); ok && e.typ == "string" && n >= 0 && n < 10000 {
			return resp.Number(math.MaxInt32) // a shared integer
		}
		return resp.Number(1)
	case "freq":
		return resp.Errorf("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
	}
	return resp.Number(0) // idletime
}

func cmdDump(x *exec, a []string) resp.Value {
	if e := x.get(a[1]); e != nil {
		return resp.Text(e.dump())
	}
	return resp.Nil()
}

func cmdRestore(x *exec, a []string) resp.Value {
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
			return errSyntax
		}
	}
	if !replace && x.get(a[1]) != nil {
		return resp.Errorf("BUSYKEY Target key name already exists.")
	}
	ttl, ok := parseInt(a[2])
	if !ok {
		return errInt
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
			ttl += x.now
		}
		e.expire = ttl
		x.instead([]string{"RESTORE", a[1], strconv.FormatInt(ttl, 10), a[3], "REPLACE", "ABSTTL"})
	}
	x.set(a[1], e)
	return resp.OK()
}

// Strings.

func cmdGet(x *exec, a []string) resp.Value {
	e := x.read(a[1])
	switch {
	case e == nil:
		return resp.Nil()
	case e.typ != "string":
		return errType
	}
	return resp.Text(e.str)
}

// expireArg reads the time after EX, PX, EXAT and PXAT as Unix milliseconds.
func (x *exec) expireArg(option, value, name string) (int64, resp.Value) {
	n, ok := parseInt(value)
	if !ok {
		return 0, errInt
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
		n += x.now
	}
	return n, errNothing
}

func cmdSet(x *exec, a []string) resp.Value {
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
			return errSyntax
		}
	}
	if timed != "" {
		var bad resp.Value
		if at, bad = x.expireArg(timed, value, "set"); !bad.IsZero() {
			return bad
		}
	}
	old := x.get(a[1])
	was := resp.Nil()
	if get && old != nil {
		if old.typ != "string" {
			return errType
		}
		was = resp.Text(old.str)
	}
	if nx && old != nil || xx && old == nil {
		if get {
			return was
		}
		return resp.Nil()
	}
	e := &entry{typ: "string", str: a[2], expire: at}
	if keep && old != nil {
		e.expire = old.expire
	}
	x.set(a[1], e)
	if timed != "" {
		x.instead([]string{"SET", a[1], a[2], "PXAT", strconv.FormatInt(at, 10)})
	}
	if get {
		return was
	}
	return resp.OK()
}

func cmdSetEx(option string) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		at, bad := x.expireArg(option, a[2], strings.ToLower(a[0]))
		if !bad.IsZero() {
			return bad
		}
		x.set(a[1], &entry{typ: "string", str: a[3], expire: at})
		x.instead([]string{"SET", a[1], a[3], "PXAT", strconv.FormatInt(at, 10)})
		return resp.OK()
	}
}

func cmdSetNX(x *exec, a []string) resp.Value {
	if x.get(a[1]) != nil {
		return resp.Number(0)
	}
	x.set(a[1], &entry{typ: "string", str: a[2]})
	return resp.Number(1)
}

func cmdGetSet(x *exec, a []string) resp.Value {
	v := cmdGet(x, a)
	if v.Kind != resp.Err {
		x.set(a[1], &entry{typ: "string", str: a[2]})
		x.instead([]string{"SET", a[1], a[2]})
	}
	return v
}

func cmdGetDel(x *exec, a []string) resp.Value {
	v := cmdGet(x, a)
	if v.Kind == resp.Bulk {
		x.del(a[1])
		x.instead([]string{"DEL", a[1]})
	}
	return v
}

func cmdGetEx(x *exec, a []string) resp.Value {
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
		if e.expire != 0 {
			x.d.setExpire(a[1], e, 0)
			x.changed(a[1])
			x.instead([]string{"PERSIST", a[1]})
		}
		return resp.Text(e.str)
	case len(a) == 4:
		o := strings.ToUpper(a[2])
		if o != "EX" && o != "PX" && o != "EXAT" && o != "PXAT" {
			return errSyntax
		}
		at, bad := x.expireArg(o, a[3], "getex")
		if !bad.IsZero() {
			return bad
		}
		if e == nil {
			return resp.Nil()
		}
		v := resp.Text(e.str)
		x.d.setExpire(a[1], e, at)
		x.changed(a[1])
		x.instead([]string{"PEXPIREAT", a[1], strconv.FormatInt(at, 10)})
		return v
	}
	return errSyntax
}

func cmdMGet(x *exec, a []string) resp.Value {
	v := resp.List()
	for _, k := range a[1:] {
		if e := x.read(k); e != nil && e.typ == "string" {
			v.Items = append(v.Items, resp.Text(e.str))
		} else {
			v.Items = append(v.Items, resp.Nil())
		}
	}
	return v
}

func cmdMSet(x *exec, a []string) resp.Value {
	nx := strings.EqualFold(a[0], "MSETNX")
	if len(a)%2 == 0 {
		return resp.Errorf("ERR wrong number of arguments for '%s' command", strings.ToLower(a[0]))
	}
	for i := 1; nx && i < len(a); i += 2 {
		if x.get(a[i]) != nil {
			return resp.Number(0)
		}
	}
	for i := 1; i < len(a); i += 2 {
		x.get(a[i])
		x.set(a[i], &entry{typ: "string", str: a[i+1]})
	}
	if nx {
		return resp.Number(1)
	}
	return resp.OK()
}

func (x *exec) add(k string, by int64) resp.Value {
	e, bad := x.typed(k, "string")
	if !bad.IsZero() {
		return bad
	}
	n := int64(0)
	if e != nil {
		var ok bool
		if n, ok = parseInt(e.str); !ok {
			return errInt
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return resp.Errorf("ERR increment or decrement would overflow")
	}
	if e == nil {
		e = newEntry("string")
		x.d.put(k, e)
	}
	e.str = strconv.FormatInt(n+by, 10)
	x.changed(k)
	return resp.Number(n + by)
}

func cmdIncr(sign int64) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		by := int64(1)
		if len(a) == 3 {
			var ok bool
			if by, ok = parseInt(a[2]); !ok {
				return errInt
			}
			if by == math.MinInt64 && sign < 0 {
				return resp.Errorf("ERR decrement would overflow")
			}
		}
		return x.add(a[1], by*sign)
	}
}

func cmdIncrByFloat(x *exec, a []string) resp.Value {
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
		return errFloat
	}
	if math.IsInf(n+by, 0) {
		return resp.Errorf("ERR increment would produce NaN or Infinity")
	}
	s := strconv.FormatFloat(n+by, 'f', -1, 64) // shorter than the real one's long double, and equal to it when rounded
	if e == nil {
		e = newEntry("string")
		x.d.put(a[1], e)
	}
	e.str = s
	x.changed(a[1])
	x.instead([]string{"SET", a[1], s, "KEEPTTL"})
	return resp.Text(s)
}

func cmdAppend(x *exec, a []string) resp.Value {
	e, bad := x.make(a[1], "string")
	if !bad.IsZero() {
		return bad
	}
	e.str += a[2]
	x.changed(a[1])
	return resp.Number(len(e.str))
}

func cmdStrlen(x *exec, a []string) resp.Value {
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
	a, ok1 := parseInt(start)
	b, ok2 := parseInt(stop)
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

func cmdGetRange(x *exec, a []string) resp.Value {
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
		return errInt
	}
	return resp.Text(s[i:j])
}

func cmdSetRange(x *exec, a []string) resp.Value {
	at, ok := parseInt(a[2])
	if !ok {
		return errInt
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
		x.d.put(a[1], e)
	}
	b := []byte(e.str)
	for len(b) < int(at)+len(a[3]) {
		b = append(b, 0)
	}
	copy(b[at:], a[3])
	e.str = string(b)
	x.changed(a[1])
	return resp.Number(len(b))
}

// Lists.

func cmdPush(left, must bool) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
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
		x.changed(a[1])
		return resp.Number(len(e.list))
	}
}

func cmdPop(left bool) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
		if len(a) > 3 {
			return resp.Errorf("ERR wrong number of arguments for '%s' command", strings.ToLower(a[0]))
		}
		n := int64(1)
		if len(a) == 3 {
			var ok bool
			if n, ok = parseInt(a[2]); !ok || n < 0 {
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
			x.changed(a[1])
		}
		if len(a) == 3 {
			return resp.Texts(got...)
		}
		return resp.Text(got[0])
	}
}

func cmdLRange(x *exec, a []string) resp.Value {
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
		return errInt
	}
	return resp.Texts(list[i:j]...)
}

func cmdLIndex(x *exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	n, ok := parseInt(a[2])
	if !ok {
		return errInt
	}
	if e != nil && n < 0 {
		n += int64(len(e.list))
	}
	if e == nil || n < 0 || n >= int64(len(e.list)) {
		return resp.Nil()
	}
	return resp.Text(e.list[n])
}

func cmdLSet(x *exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		return errNoKey
	}
	n, ok := parseInt(a[2])
	if !ok {
		return errInt
	}
	if n < 0 {
		n += int64(len(e.list))
	}
	if n < 0 || n >= int64(len(e.list)) {
		return resp.Errorf("ERR index out of range")
	}
	e.list[n] = a[3]
	x.changed(a[1])
	return resp.OK()
}

func cmdLRem(x *exec, a []string) resp.Value {
	n, ok := parseInt(a[2])
	if !ok {
		return errInt
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
		x.changed(a[1])
	}
	return resp.Number(removed)
}

func cmdLTrim(x *exec, a []string) resp.Value {
	e, bad := x.typed(a[1], "list")
	if !bad.IsZero() {
		return bad
	}
	if e == nil {
		return resp.OK()
	}
	i, j, ok := window(a[2], a[3], len(e.list))
	if !ok {
		return errInt
	}
	e.list = slices.Clone(e.list[i:j])
	x.changed(a[1])
	return resp.OK()
}

// Hashes.

func cmdHSet(x *exec, a []string) resp.Value {
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
	x.changed(a[1])
	if strings.EqualFold(a[0], "HMSET") {
		return resp.OK()
	}
	return resp.Number(n)
}

func cmdHSetNX(x *exec, a []string) resp.Value {
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
	x.changed(a[1])
	return resp.Number(1)
}

// hashRead is what the reading commands have in common; f sees an empty hash where the key is missing.
func hashRead(f func(h *ordered, a []string) resp.Value) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
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

func cmdHDel(x *exec, a []string) resp.Value {
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
		x.changed(a[1])
	}
	return resp.Number(n)
}

func orZero(bad resp.Value) resp.Value {
	if !bad.IsZero() {
		return bad
	}
	return resp.Number(0)
}

func cmdHIncrBy(x *exec, a []string) resp.Value {
	by, ok := parseInt(a[3])
	if !ok {
		return errInt
	}
	e, bad := x.typed(a[1], "hash")
	if !bad.IsZero() {
		return bad
	}
	n := int64(0)
	if e != nil {
		if s, has := e.hash.get(a[2]); has {
			if n, ok = parseInt(s); !ok {
				return resp.Errorf("ERR hash value is not an integer")
			}
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return resp.Errorf("ERR increment or decrement would overflow")
	}
	e, _ = x.make(a[1], "hash")
	e.hash.put(a[2], strconv.FormatInt(n+by, 10))
	x.changed(a[1])
	return resp.Number(n + by)
}

// Sets.

func cmdSAdd(x *exec, a []string) resp.Value {
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
		x.changed(a[1])
	}
	return resp.Number(n)
}

func cmdSRem(x *exec, a []string) resp.Value {
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
		x.changed(a[1])
	}
	return resp.Number(n)
}

func cmdSMembers(x *exec, a []string) resp.Value {
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

func cmdSIsMember(x *exec, a []string) resp.Value {
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

func size(typ string) func(*exec, []string) resp.Value {
	return func(x *exec, a []string) resp.Value {
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

// Sorted sets.

func cmdZAdd(x *exec, a []string) resp.Value {
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
		return errSyntax
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
			return errFloat
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
		x.changed(a[1])
	} else if e.empty() {
		x.d.del(a[1])
	}
	switch {
	case opt["INCR"]:
		return result
	case opt["CH"]:
		return resp.Number(added + altered)
	}
	return resp.Number(added)
}

func cmdZIncrBy(x *exec, a []string) resp.Value {
	return cmdZAdd(x, []string{"ZADD", a[1], "INCR", a[2], a[3]})
}

func cmdZRem(x *exec, a []string) resp.Value {
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
		x.changed(a[1])
	}
	return resp.Number(n)
}

func (x *exec) rank(k string) ([]scored, resp.Value) {
	e, bad := x.typed(k, "zset")
	if e == nil {
		return nil, bad
	}
	return e.ranked(), errNothing
}

func (x *exec) members(ms []scored, scores bool) resp.Value {
	v := resp.List()
	for _, m := range ms {
		score := resp.Value{Kind: resp.Double, Double: m.score}
		switch {
		case !scores:
			v.Items = append(v.Items, resp.Text(m.name))
		case x.c.proto >= 3:
			v.Items = append(v.Items, resp.List(resp.Text(m.name), score))
		default:
			v.Items = append(v.Items, resp.Text(m.name), score)
		}
	}
	return v
}

// cmdZRange knows ranges by rank, REV and WITHSCORES, and by score with BYSCORE.
func cmdZRange(x *exec, a []string) resp.Value {
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
			return errSyntax
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
		return errInt
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

func cmdZRangeByScore(x *exec, a []string) resp.Value {
	scores := false
	for _, o := range a[4:] {
		if !strings.EqualFold(o, "WITHSCORES") {
			return errSyntax
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

func cmdZCount(x *exec, a []string) resp.Value {
	ms, bad := x.rank(a[1])
	if !bad.IsZero() {
		return bad
	}
	if ms, bad = between(ms, a[2], a[3]); !bad.IsZero() {
		return bad
	}
	return resp.Number(len(ms))
}

func cmdZScore(x *exec, a []string) resp.Value {
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

func cmdZRank(x *exec, a []string) resp.Value {
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
