package redis

import (
	"strings"

	"runbook/internal/simulate/keyspace"
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
		// several databases
		{"copy", -3, fWrite | fOOM, cmdCopy, nil},
		{"move", 3, fWrite, cmdMove, nil},
		{"swapdb", 3, fWrite, cmdSwapDB, nil},
		{"flushdb", -1, fWrite, cmdFlush(false), nil},
		{"flushall", -1, fWrite, cmdFlush(true), nil},
	} {
		m[strings.ToUpper(c.name)] = &c
	}
	for _, k := range keyspace.Commands() {
		c := &command{name: k.Name, arity: k.Arity, subs: k.Subs, run: func(x *exec, a []string) resp.Value { return k.Run(&x.Exec, a) }}
		if k.Write {
			c.flags |= fWrite
		}
		if k.Grows {
			c.flags |= fOOM
		}
		m[strings.ToUpper(c.name)] = c
	}
	return m
}
