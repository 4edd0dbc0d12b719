package redis

import (
	"context"
	"fmt"
	"net"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"runbook/steps"
)

// guard refuses, before anything is sent, what is not known to read. The zero guard
// refuses nothing. As a hook of go-redis it stands on every way that a command takes
// there; [Client.Do] asks it before it connects as well.
type guard struct{ allow map[string]rule }

// rule tells which forms of a command only read.
type rule struct {
	subs  map[string]bool      // nil: whatever follows
	reads func([]string) error // nil: all forms; otherwise why this form does more
}

// reading commands of Redis up to 7.4 and its kin. A command that is missing here is
// refused, so what a new release brings is not read by accident. Left out on purpose:
// those that read and change at once (GETEX, GETDEL, GETSET, HGETEX, SPOP), that
// may hold the server or this connection (KEYS, MONITOR, SUBSCRIBE, WAIT, blocking ones),
// transactions and scripts (only the forms that cannot write), and DEBUG.
var readingCommands = [...]string{
	// connection and server
	"PING", "ECHO", "TIME", "INFO", "ROLE", "DBSIZE", "LASTSAVE", "COMMAND", "LOLWUT",
	"CONFIG GET", "CLIENT LIST", "CLIENT ID", "CLIENT GETNAME", "CLIENT INFO", "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "CLIENT HELP",
	"CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER INFO", "CLUSTER MYID", "CLUSTER MYSHARDID", "CLUSTER KEYSLOT",
	"CLUSTER COUNTKEYSINSLOT", "CLUSTER GETKEYSINSLOT", "CLUSTER REPLICAS", "CLUSTER SLAVES", "CLUSTER LINKS",
	"CLUSTER COUNT-FAILURE-REPORTS", "CLUSTER SLOT-STATS", "CLUSTER HELP",
	"MEMORY USAGE", "MEMORY STATS", "MEMORY DOCTOR", "MEMORY MALLOC-STATS", "MEMORY HELP",
	"OBJECT ENCODING", "OBJECT FREQ", "OBJECT IDLETIME", "OBJECT REFCOUNT", "OBJECT HELP",
	"SLOWLOG GET", "SLOWLOG LEN", "LATENCY LATEST", "LATENCY HISTORY", "LATENCY DOCTOR", "LATENCY GRAPH", "LATENCY HISTOGRAM",
	"ACL LIST", "ACL USERS", "ACL WHOAMI", "ACL CAT", "ACL GETUSER", "ACL DRYRUN",
	"MODULE LIST", "FUNCTION LIST", "FUNCTION STATS", "FUNCTION DUMP", "SCRIPT EXISTS",
	"PUBSUB CHANNELS", "PUBSUB NUMSUB", "PUBSUB NUMPAT", "PUBSUB SHARDCHANNELS", "PUBSUB SHARDNUMSUB",
	"SENTINEL MASTERS", "SENTINEL MASTER", "SENTINEL REPLICAS", "SENTINEL SLAVES", "SENTINEL SENTINELS",
	"SENTINEL GET-MASTER-ADDR-BY-NAME", "SENTINEL CKQUORUM", "SENTINEL MYID", "SENTINEL INFO-CACHE",
	// keys
	"EXISTS", "TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "SCAN", "RANDOMKEY", "DUMP",
	"SORT", "SORT_RO",
	// values
	"GET", "MGET", "STRLEN", "GETRANGE", "SUBSTR", "GETBIT", "BITCOUNT", "BITPOS", "BITFIELD_RO", "LCS",
	"HGET", "HMGET", "HGETALL", "HKEYS", "HVALS", "HLEN", "HEXISTS", "HSTRLEN", "HSCAN", "HRANDFIELD", "HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME",
	"LRANGE", "LLEN", "LINDEX", "LPOS",
	"SMEMBERS", "SISMEMBER", "SMISMEMBER", "SCARD", "SSCAN", "SRANDMEMBER", "SDIFF", "SINTER", "SUNION", "SINTERCARD",
	"ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZRANGEBYLEX", "ZREVRANGEBYLEX", "ZCARD", "ZCOUNT", "ZLEXCOUNT",
	"ZSCORE", "ZMSCORE", "ZRANK", "ZREVRANK", "ZSCAN", "ZRANDMEMBER", "ZDIFF", "ZINTER", "ZUNION", "ZINTERCARD",
	"XRANGE", "XREVRANGE", "XLEN", "XREAD", "XPENDING", "XINFO STREAM", "XINFO GROUPS", "XINFO CONSUMERS", "XINFO HELP",
	"GEOPOS", "GEODIST", "GEOHASH", "GEOSEARCH", "GEORADIUS_RO", "GEORADIUSBYMEMBER_RO",
	"EVAL_RO", "EVALSHA_RO", "FCALL_RO",
	// go-redis' own, which never reaches the server
	"HELLO",
}

func newGuard(more []string) guard {
	g := guard{allow: map[string]rule{}}
	for _, list := range [][]string{readingCommands[:], more} {
		for _, entry := range list {
			name, sub, has := strings.Cut(strings.ToUpper(entry), " ")
			r := g.allow[name]
			if has {
				if r.subs == nil {
					r.subs = map[string]bool{}
				}
				r.subs[sub] = true
			}
			g.allow[name] = r
		}
	}
	g.limit("SORT", without("STORE"))
	g.limit("XREAD", without("BLOCK"))
	return g
}

func (g guard) limit(name string, reads func([]string) error) {
	r := g.allow[name]
	r.reads = reads
	g.allow[name] = r
}

func without(word string) func([]string) error {
	return func(args []string) error {
		for _, a := range args {
			if strings.EqualFold(a, word) {
				return fmt.Errorf("with %s it does more", word)
			}
		}
		return nil
	}
}

// check refuses what is not known to read.
func (g guard) check(req request) error {
	if g.allow == nil {
		return nil
	}
	if len(req.args) == 0 {
		return steps.Errorf("refused-write", "an empty command on %s", req.addr)
	}
	r, ok := g.allow[strings.ToUpper(req.args[0])]
	switch {
	case !ok:
		return refuse(req, "it is not among the commands that are known to read")
	case r.subs != nil && (len(req.args) < 2 || !r.subs[strings.ToUpper(req.args[1])]):
		return refuse(req, "this form is not among those that are known to read")
	case r.reads != nil:
		if err := r.reads(req.args[1:]); err != nil {
			return refuse(req, err.Error())
		}
	}
	return nil
}

func refuse(req request, why string) error {
	return &steps.Error{Kind: "refused-write", Err: &RefusedError{Command: req.mask(Line(req.args)), Addr: req.addr, Why: why}}
}

// RefusedError is the error of a client that only looks, asked to do more. Nothing was sent.
type RefusedError struct{ Command, Addr, Why string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s on %s: refused, only reading is allowed here: %s", e.Command, e.Addr, e.Why)
}

// DialHook lets connections be opened: logging in and choosing a database change nothing.
func (g guard) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook asks about every single command.
func (g guard) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if err := g.check(request{args: words(cmd)}); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook asks about every command of a pipeline or transaction, and sends all or none.
func (g guard) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		for _, cmd := range cmds {
			if err := g.check(request{args: words(cmd)}); err != nil {
				for _, c := range cmds {
					c.SetErr(err)
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}

func words(cmd goredis.Cmder) []string {
	args := cmd.Args()
	w := make([]string, len(args))
	for i, a := range args {
		w[i] = fmt.Sprint(a)
	}
	return w
}
