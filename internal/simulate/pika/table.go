package pika

import (
	"strings"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// flag says what a command is.
type flag int

const (
	write      flag = 1 << iota // changes data
	admin                       // changes the server, whatever its arguments
	notSharded                  // refused in sharding mode
	eachKey                     // every argument is a key, and each may lie in a slot of its own
	eachPair                    // every other argument is one
)

// command is one entry of the command table. arity counts the name; negative means at least.
type command struct {
	name  string
	arity int
	flags flag
	data  func(x *keyspace.Exec, a []string) resp.Value // on the slot of its keys
	run   func(s *Server, c *client, a []string) (resp.Value, *later)
}

// at makes a command of one that is done at once.
func at(f func(s *Server, c *client, a []string) resp.Value) func(*Server, *client, []string) (resp.Value, *later) {
	return func(s *Server, c *client, a []string) (resp.Value, *later) { return f(s, c, a), nil }
}

func says(v resp.Value) func(*Server, *client, []string) (resp.Value, *later) {
	return at(func(*Server, *client, []string) resp.Value { return v })
}

// table is the command table of the release, by lower-case name.
func (s *Server) table() map[string]*command {
	m := map[string]*command{}
	add := func(list ...command) {
		for _, c := range list {
			m[c.name] = &c
		}
	}
	for _, k := range keyspace.Commands() {
		flags, known := dataFlags[k.Name]
		if !known {
			continue
		}
		c := command{name: k.Name, arity: k.Arity, flags: flags, data: k.Run}
		if k.Write {
			c.flags |= write
		}
		if strings.HasPrefix(strings.TrimPrefix(k.Name, "p"), "expire") {
			c.arity = 3
		}
		add(c)
	}
	add(
		command{name: "ping", arity: 1, run: says(resp.Simple("PONG"))},
		command{name: "echo", arity: 2, run: at(func(_ *Server, _ *client, a []string) resp.Value { return resp.Text(a[1]) })},
		command{name: "quit", arity: -1, run: at(cmdQuit)},
		command{name: "auth", arity: 2, run: at(cmdAuth)},
		command{name: "select", arity: 2, run: at(cmdSelect)},
		command{name: "client", arity: -2, run: at(cmdClient)},
		command{name: "time", arity: 1, run: at(cmdTime)},
		command{name: "info", arity: -1, run: at(cmdInfo)},
		command{name: "config", arity: -2, run: at(cmdConfig)},
		command{name: "bgsave", arity: -1, flags: admin, run: at(cmdBgsave)},
		command{name: "purgelogsto", arity: -2, flags: admin, run: at(cmdPurgeLogsTo)},
		command{name: "compact", arity: -1, flags: admin, run: says(resp.OK())},
		command{name: "slaveof", arity: -3, flags: admin | notSharded, run: cmdSlaveOf},
		command{name: "dbsize", arity: 1, run: at(cmdDBSize)},
		command{name: "keys", arity: -2, flags: notSharded, run: at(cmdKeys)},
		command{name: "scan", arity: -2, flags: notSharded, run: at(cmdScan)},
		command{name: "flushall", arity: 1, flags: write, run: at(cmdFlush(true))},
		command{name: "flushdb", arity: -1, flags: write, run: at(cmdFlush(false))},
	)
	if s.old() {
		add(oldSlotCommands()...)
		return m
	}
	add(
		command{name: "padding", arity: 2, flags: admin, run: says(resp.OK())},
		command{name: "pkclusterinfo", arity: -3, run: at(cmdClusterInfo)},
		command{name: "pkclusteraddslots", arity: -2, flags: admin, run: cmdAddSlots},
		command{name: "pkclusterdelslots", arity: -2, flags: admin, run: cmdDelSlots},
		command{name: "pkclusterslotsslaveof", arity: -5, flags: admin, run: at(cmdSlotsSlaveOf)},
	)
	if s.release == "3.4.0" {
		add(
			command{name: "dbslaveof", arity: -2, flags: admin, run: says(resp.Errorf("ERR DbSlaveof only support on classic mode"))},
			command{name: "pkclusteraddtable", arity: -2, flags: admin, run: at(cmdAddTable)},
			command{name: "pkclusterdeltable", arity: -2, flags: admin, run: at(cmdDelTable)},
		)
	}
	if s.release == "3.2.9" {
		slaveof := *m["slaveof"]
		slaveof.flags &^= notSharded
		add(slaveof)
	}
	add(slotCommands()...)
	return m
}

// dataFlags are the commands on keys that Pika shares with Redis.
var dataFlags = map[string]flag{
	"del": eachKey, "exists": eachKey, "mget": eachKey, "mset": eachPair, "msetnx": notSharded,
	"type": 0, "ttl": 0, "pttl": 0, "expire": 0, "pexpire": 0, "expireat": 0, "pexpireat": 0, "persist": 0,
	"get": 0, "set": 0, "setex": 0, "psetex": 0, "setnx": 0, "getset": 0, "incr": 0, "incrby": 0, "decr": 0, "decrby": 0,
	"incrbyfloat": 0, "append": 0, "strlen": 0, "getrange": 0, "setrange": 0,
	"rpush": 0, "lpush": 0, "rpushx": 0, "lpushx": 0, "rpop": 0, "lpop": 0, "lrange": 0, "llen": 0, "lindex": 0, "lset": 0,
	"lrem": 0, "ltrim": 0,
	"hset": 0, "hmset": 0, "hsetnx": 0, "hget": 0, "hmget": 0, "hgetall": 0, "hkeys": 0, "hvals": 0, "hlen": 0, "hexists": 0,
	"hstrlen": 0, "hdel": 0, "hincrby": 0, "hscan": 0,
	"sadd": 0, "srem": 0, "smembers": 0, "sismember": 0, "scard": 0, "sscan": 0,
	"zadd": 0, "zincrby": 0, "zrem": 0, "zrange": 0, "zrevrange": 0, "zrangebyscore": 0, "zcount": 0, "zscore": 0, "zrank": 0,
	"zcard": 0, "zscan": 0,
}
