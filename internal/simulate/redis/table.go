package redis

import (
	"strings"

	"runbook/internal/simulate/resp"
)

const always = fLoading | fStale // what answers whatever state the server is in

// table is the command table, by upper-case name. Every server has its own copy: it is a value that nothing changes, and EXEC,
// which stands in it, looks into it.
func table() map[string]*command {
	m := map[string]*command{}
	for _, c := range []command{
		// connection
		{"ping", -1, 0, cmdPing, nil},
		{"echo", 2, always, func(_ *exec, a []string) resp.Value { return resp.Text(a[1]) }, nil},
		{"select", 2, always, cmdSelect, nil},
		{"auth", -2, always | fNoAuth, cmdAuth, nil},
		{"hello", -1, always | fNoAuth, cmdHello, nil},
		{"quit", -1, always | fNoAuth | fNoQueue, cmdQuit, nil},
		{"client", -2, always, cmdClient, map[string]int{"id": 2, "getname": 2, "setname": 3, "info": 2, "list": -2, "pause": -3, "unpause": 2, "no-evict": 3, "kill": -3, "reply": 3, "help": 2}},
		{"command", -1, always, cmdCommand, nil},
		// transactions
		{"multi", 1, always | fNoQueue, cmdMulti, nil},
		{"exec", 1, always | fNoQueue, cmdExec, nil},
		{"discard", 1, always | fNoQueue, cmdDiscard, nil},
		{"watch", -2, always | fNoQueue, cmdWatch, nil},
		{"unwatch", 1, always, cmdUnwatch, nil},
		// the server
		{"info", -1, always, cmdInfo, nil},
		{"config", -2, always, cmdConfig, map[string]int{"get": -3, "set": -4, "rewrite": 2, "resetstat": 2, "help": 2}},
		{"role", 1, always, cmdRole, nil},
		{"replicaof", 3, fStale | fAdmin, cmdReplicaOf, nil},
		{"slaveof", 3, fStale | fAdmin, cmdReplicaOf, nil},
		{"replconf", -1, always, cmdReplConf, nil},
		{"wait", 3, 0, cmdWait, nil},
		{"shutdown", -1, always | fAdmin, cmdShutdown, nil},
		{"time", 1, always, cmdTime, nil},
		{"lastsave", 1, always, func(x *exec, _ []string) resp.Value { return resp.Number(x.s.stats.lastSave.Unix()) }, nil},
		{"bgsave", -1, fAdmin, cmdSave("Background saving started"), nil},
		{"save", 1, fAdmin, cmdSave(""), nil},
		{"bgrewriteaof", 1, fAdmin, cmdSave("Background append only file rewriting started"), nil},
		{"acl", -2, always, cmdACL, map[string]int{"whoami": 2, "users": 2, "list": 2, "help": 2}},
		{"cluster", -2, fStale, func(*exec, []string) resp.Value {
			return resp.Errorf("ERR This instance has cluster support disabled")
		}, nil},
		{"debug", -2, always, func(_ *exec, a []string) resp.Value {
			return resp.Errorf("ERR unknown subcommand or wrong number of arguments for '%s'. Try DEBUG HELP.", a[1])
		}, nil},
		{"publish", 3, always | fMay, func(*exec, []string) resp.Value { return resp.Number(0) }, nil},
		// keys
		{"del", -2, fWrite, cmdDel, nil},
		{"unlink", -2, fWrite, cmdDel, nil},
		{"exists", -2, 0, cmdExists, nil},
		{"touch", -2, 0, cmdExists, nil},
		{"type", 2, 0, cmdType, nil},
		{"ttl", 2, 0, cmdTTL(1000, false), nil},
		{"pttl", 2, 0, cmdTTL(1, false), nil},
		{"expiretime", 2, 0, cmdTTL(1000, true), nil},
		{"pexpiretime", 2, 0, cmdTTL(1, true), nil},
		{"expire", -3, fWrite, cmdExpire(1000, false), nil},
		{"pexpire", -3, fWrite, cmdExpire(1, false), nil},
		{"expireat", -3, fWrite, cmdExpire(1000, true), nil},
		{"pexpireat", -3, fWrite, cmdExpire(1, true), nil},
		{"persist", 2, fWrite, cmdPersist, nil},
		{"rename", 3, fWrite, cmdRename, nil},
		{"renamenx", 3, fWrite, cmdRename, nil},
		{"copy", -3, fWrite | fOOM, cmdCopy, nil},
		{"move", 3, fWrite, cmdMove, nil},
		{"swapdb", 3, fWrite, cmdSwapDB, nil},
		{"flushdb", -1, fWrite, cmdFlush(false), nil},
		{"flushall", -1, fWrite, cmdFlush(true), nil},
		{"keys", 2, 0, cmdKeys, nil},
		{"randomkey", 1, 0, cmdRandomKey, nil},
		{"dbsize", 1, 0, cmdDBSize, nil},
		{"scan", -2, 0, cmdScan, nil},
		{"object", -2, 0, cmdObject, map[string]int{"encoding": 3, "refcount": 3, "idletime": 3, "freq": 3, "help": 2}},
		{"dump", 2, 0, cmdDump, nil},
		{"restore", -4, fWrite | fOOM, cmdRestore, nil},
		// strings
		{"get", 2, 0, cmdGet, nil},
		{"set", -3, fWrite | fOOM, cmdSet, nil},
		{"setex", 4, fWrite | fOOM, cmdSetEx("EX"), nil},
		{"psetex", 4, fWrite | fOOM, cmdSetEx("PX"), nil},
		{"setnx", 3, fWrite | fOOM, cmdSetNX, nil},
		{"getset", 3, fWrite | fOOM, cmdGetSet, nil},
		{"getdel", 2, fWrite, cmdGetDel, nil},
		{"getex", -2, fWrite, cmdGetEx, nil},
		{"mget", -2, 0, cmdMGet, nil},
		{"mset", -3, fWrite | fOOM, cmdMSet, nil},
		{"msetnx", -3, fWrite | fOOM, cmdMSet, nil},
		{"incr", 2, fWrite | fOOM, cmdIncr(1), nil},
		{"incrby", 3, fWrite | fOOM, cmdIncr(1), nil},
		{"decr", 2, fWrite | fOOM, cmdIncr(-1), nil},
		{"decrby", 3, fWrite | fOOM, cmdIncr(-1), nil},
		{"incrbyfloat", 3, fWrite | fOOM, cmdIncrByFloat, nil},
		{"append", 3, fWrite | fOOM, cmdAppend, nil},
		{"strlen", 2, 0, cmdStrlen, nil},
		{"getrange", 4, 0, cmdGetRange, nil},
		{"setrange", 4, fWrite | fOOM, cmdSetRange, nil},
		// lists
		{"rpush", -3, fWrite | fOOM, cmdPush(false, false), nil},
		{"lpush", -3, fWrite | fOOM, cmdPush(true, false), nil},
		{"rpushx", -3, fWrite | fOOM, cmdPush(false, true), nil},
		{"lpushx", -3, fWrite | fOOM, cmdPush(true, true), nil},
		{"rpop", -2, fWrite, cmdPop(false), nil},
		{"lpop", -2, fWrite, cmdPop(true), nil},
		{"lrange", 4, 0, cmdLRange, nil},
		{"llen", 2, 0, size("list"), nil},
		{"lindex", 3, 0, cmdLIndex, nil},
		{"lset", 4, fWrite | fOOM, cmdLSet, nil},
		{"lrem", 4, fWrite, cmdLRem, nil},
		{"ltrim", 4, fWrite, cmdLTrim, nil},
		// hashes
		{"hset", -4, fWrite | fOOM, cmdHSet, nil},
		{"hmset", -4, fWrite | fOOM, cmdHSet, nil},
		{"hsetnx", 4, fWrite | fOOM, cmdHSetNX, nil},
		{"hget", 3, 0, hashRead(func(h *ordered, a []string) resp.Value { return field(h, a[2]) }), nil},
		{"hmget", -3, 0, hashRead(func(h *ordered, a []string) resp.Value {
			v := resp.List()
			for _, f := range a[2:] {
				v.Items = append(v.Items, field(h, f))
			}
			return v
		}), nil},
		{"hgetall", 2, 0, hashRead(func(h *ordered, _ []string) resp.Value {
			v := resp.Value{Kind: resp.Map}
			for i, n := range h.names {
				v.Items = append(v.Items, resp.Text(n), resp.Text(h.vals[i]))
			}
			return v
		}), nil},
		{"hkeys", 2, 0, hashRead(func(h *ordered, _ []string) resp.Value { return resp.Texts(h.names...) }), nil},
		{"hvals", 2, 0, hashRead(func(h *ordered, _ []string) resp.Value { return resp.Texts(h.vals...) }), nil},
		{"hlen", 2, 0, size("hash"), nil},
		{"hexists", 3, 0, hashRead(func(h *ordered, a []string) resp.Value { _, ok := h.get(a[2]); return boolean(ok) }), nil},
		{"hstrlen", 3, 0, hashRead(func(h *ordered, a []string) resp.Value { v, _ := h.get(a[2]); return resp.Number(len(v)) }), nil},
		{"hdel", -3, fWrite, cmdHDel, nil},
		{"hincrby", 4, fWrite | fOOM, cmdHIncrBy, nil},
		{"hscan", -3, 0, cmdScanIn("hash"), nil},
		// sets
		{"sadd", -3, fWrite | fOOM, cmdSAdd, nil},
		{"srem", -3, fWrite, cmdSRem, nil},
		{"smembers", 2, 0, cmdSMembers, nil},
		{"sismember", 3, 0, cmdSIsMember, nil},
		{"scard", 2, 0, size("set"), nil},
		{"sscan", -3, 0, cmdScanIn("set"), nil},
		// sorted sets
		{"zadd", -4, fWrite | fOOM, cmdZAdd, nil},
		{"zincrby", 4, fWrite | fOOM, cmdZIncrBy, nil},
		{"zrem", -3, fWrite, cmdZRem, nil},
		{"zrange", -4, 0, cmdZRange, nil},
		{"zrevrange", -4, 0, cmdZRange, nil},
		{"zrangebyscore", -4, 0, cmdZRangeByScore, nil},
		{"zcount", 4, 0, cmdZCount, nil},
		{"zscore", 3, 0, cmdZScore, nil},
		{"zrank", 3, 0, cmdZRank, nil},
		{"zcard", 2, 0, size("zset"), nil},
		{"zscan", -3, 0, cmdScanIn("zset"), nil},
	} {
		m[strings.ToUpper(c.name)] = &c
	}
	return m
}
