package keyspace

import "runbook/internal/simulate/resp"

// Command is one entry of the table of commands on keys and values.
type Command struct {
	Name  string // in lower case
	Arity int    // counts the name; negative means at least
	Write bool
	Grows bool // may make the data larger: what a full memory refuses
	Run   func(x *Exec, a []string) resp.Value
	Subs  map[string]int // arity of the sub-commands, by lower-case name
}

// Commands gives the table. Every caller has its own copy.
func Commands() []Command {
	return []Command{
		// keys
		{"del", -2, true, false, cmdDel, nil},
		{"unlink", -2, true, false, cmdDel, nil},
		{"exists", -2, false, false, cmdExists, nil},
		{"touch", -2, false, false, cmdExists, nil},
		{"type", 2, false, false, cmdType, nil},
		{"ttl", 2, false, false, cmdTTL(1000, false), nil},
		{"pttl", 2, false, false, cmdTTL(1, false), nil},
		{"expiretime", 2, false, false, cmdTTL(1000, true), nil},
		{"pexpiretime", 2, false, false, cmdTTL(1, true), nil},
		{"expire", -3, true, false, cmdExpire(1000, false), nil},
		{"pexpire", -3, true, false, cmdExpire(1, false), nil},
		{"expireat", -3, true, false, cmdExpire(1000, true), nil},
		{"pexpireat", -3, true, false, cmdExpire(1, true), nil},
		{"persist", 2, true, false, cmdPersist, nil},
		{"rename", 3, true, false, cmdRename, nil},
		{"renamenx", 3, true, false, cmdRename, nil},
		{"keys", 2, false, false, cmdKeys, nil},
		{"randomkey", 1, false, false, cmdRandomKey, nil},
		{"dbsize", 1, false, false, cmdDBSize, nil},
		{"scan", -2, false, false, cmdScan, nil},
		{"object", -2, false, false, cmdObject, map[string]int{"encoding": 3, "refcount": 3, "idletime": 3, "freq": 3, "help": 2}},
		{"dump", 2, false, false, cmdDump, nil},
		{"restore", -4, true, true, cmdRestore, nil},
		// strings
		{"get", 2, false, false, cmdGet, nil},
		{"set", -3, true, true, cmdSet, nil},
		{"setex", 4, true, true, cmdSetEx("EX"), nil},
		{"psetex", 4, true, true, cmdSetEx("PX"), nil},
		{"setnx", 3, true, true, cmdSetNX, nil},
		{"getset", 3, true, true, cmdGetSet, nil},
		{"getdel", 2, true, false, cmdGetDel, nil},
		{"getex", -2, true, false, cmdGetEx, nil},
		{"mget", -2, false, false, cmdMGet, nil},
		{"mset", -3, true, true, cmdMSet, nil},
		{"msetnx", -3, true, true, cmdMSet, nil},
		{"incr", 2, true, true, cmdIncr(1), nil},
		{"incrby", 3, true, true, cmdIncr(1), nil},
		{"decr", 2, true, true, cmdIncr(-1), nil},
		{"decrby", 3, true, true, cmdIncr(-1), nil},
		{"incrbyfloat", 3, true, true, cmdIncrByFloat, nil},
		{"append", 3, true, true, cmdAppend, nil},
		{"strlen", 2, false, false, cmdStrlen, nil},
		{"getrange", 4, false, false, cmdGetRange, nil},
		{"setrange", 4, true, true, cmdSetRange, nil},
		// lists
		{"rpush", -3, true, true, cmdPush(false, false), nil},
		{"lpush", -3, true, true, cmdPush(true, false), nil},
		{"rpushx", -3, true, true, cmdPush(false, true), nil},
		{"lpushx", -3, true, true, cmdPush(true, true), nil},
		{"rpop", -2, true, false, cmdPop(false), nil},
		{"lpop", -2, true, false, cmdPop(true), nil},
		{"lrange", 4, false, false, cmdLRange, nil},
		{"llen", 2, false, false, size("list"), nil},
		{"lindex", 3, false, false, cmdLIndex, nil},
		{"lset", 4, true, true, cmdLSet, nil},
		{"lrem", 4, true, false, cmdLRem, nil},
		{"ltrim", 4, true, false, cmdLTrim, nil},
		// hashes
		{"hset", -4, true, true, cmdHSet, nil},
		{"hmset", -4, true, true, cmdHSet, nil},
		{"hsetnx", 4, true, true, cmdHSetNX, nil},
		{"hget", 3, false, false, hashRead(func(h *ordered, a []string) resp.Value { return field(h, a[2]) }), nil},
		{"hmget", -3, false, false, hashRead(func(h *ordered, a []string) resp.Value {
			v := resp.List()
			for _, f := range a[2:] {
				v.Items = append(v.Items, field(h, f))
			}
			return v
		}), nil},
		{"hgetall", 2, false, false, hashRead(func(h *ordered, _ []string) resp.Value {
			v := resp.Value{Kind: resp.Map}
			for i, n := range h.names {
				v.Items = append(v.Items, resp.Text(n), resp.Text(h.vals[i]))
			}
			return v
		}), nil},
		{"hkeys", 2, false, false, hashRead(func(h *ordered, _ []string) resp.Value { return resp.Texts(h.names...) }), nil},
		{"hvals", 2, false, false, hashRead(func(h *ordered, _ []string) resp.Value { return resp.Texts(h.vals...) }), nil},
		{"hlen", 2, false, false, size("hash"), nil},
		{"hexists", 3, false, false, hashRead(func(h *ordered, a []string) resp.Value { _, ok := h.get(a[2]); return boolean(ok) }), nil},
		{"hstrlen", 3, false, false, hashRead(func(h *ordered, a []string) resp.Value { v, _ := h.get(a[2]); return resp.Number(len(v)) }), nil},
		{"hdel", -3, true, false, cmdHDel, nil},
		{"hincrby", 4, true, true, cmdHIncrBy, nil},
		{"hscan", -3, false, false, cmdScanIn("hash"), nil},
		// sets
		{"sadd", -3, true, true, cmdSAdd, nil},
		{"srem", -3, true, false, cmdSRem, nil},
		{"smembers", 2, false, false, cmdSMembers, nil},
		{"sismember", 3, false, false, cmdSIsMember, nil},
		{"scard", 2, false, false, size("set"), nil},
		{"sscan", -3, false, false, cmdScanIn("set"), nil},
		// sorted sets
		{"zadd", -4, true, true, cmdZAdd, nil},
		{"zincrby", 4, true, true, cmdZIncrBy, nil},
		{"zrem", -3, true, false, cmdZRem, nil},
		{"zrange", -4, false, false, cmdZRange, nil},
		{"zrevrange", -4, false, false, cmdZRange, nil},
		{"zrangebyscore", -4, false, false, cmdZRangeByScore, nil},
		{"zcount", 4, false, false, cmdZCount, nil},
		{"zscore", 3, false, false, cmdZScore, nil},
		{"zrank", 3, false, false, cmdZRank, nil},
		{"zcard", 2, false, false, size("zset"), nil},
		{"zscan", -3, false, false, cmdScanIn("zset"), nil},
	}
}
