package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

// flag says what a command is, as COMMAND DOCS of the real server does; the checks in process go by it.
type flag int

const (
	fWrite   flag = 1 << iota
	fOOM          // refused when the memory is full
	fMay          // may replicate without writing: a pause of writes holds it
	fLoading      // allowed while loading
	fStale        // allowed on a replica that lost its master and must not serve stale data
	fNoAuth       // allowed before AUTH
	fAdmin        // changes the server, whatever its arguments
	fNoQueue      // carried out at once inside MULTI
)

// command is one entry of the command table. arity counts the name; negative means at least.
type command struct {
	name  string
	arity int
	flags flag
	run   func(x *exec, a []string) resp.Value
	subs  map[string]int // arity of the sub-commands, by lower-case name
}

func (c *command) mayWrite() bool { return c.flags&(fWrite|fMay) != 0 }

// changes says whether a request is meant to change data or server: what the log of writes keeps.
func (c *command) changes(args []string) bool {
	if c.flags&(fWrite|fMay|fAdmin) != 0 {
		return true
	}
	if len(args) < 2 {
		return false
	}
	switch c.name + " " + strings.ToLower(args[1]) {
	case "config set", "config rewrite", "config resetstat", "client pause", "client unpause", "client kill", "client no-evict":
		return true
	}
	return false
}

// exec is one command being carried out.
type exec struct {
	keyspace.Exec
	s  *Server
	c  *client
	db int
}

// process is a command's way through the checks, in the order of the real server's processCommand. held means that a
// pause stands in its way: nothing has happened, and it must come again when the pause is over. The caller holds the lock.
func (s *Server) process(c *client, args []string) (v resp.Value, held bool) {
	v, held = s.judge(c, args)
	if v.Kind == resp.Err {
		s.stats.errors++
		s.stats.errorKinds[resp.ReplyError(v.Str).Code()]++
	}
	return v, held
}

func (s *Server) judge(c *client, args []string) (v resp.Value, held bool) {
	refuse := func(format string, a ...any) (resp.Value, bool) {
		if c.multi {
			c.dirtyTx = true
		}
		return resp.Errorf(format, a...), false
	}
	name := strings.ToUpper(args[0])
	cmd := s.commands[name]
	if cmd == nil || name == "HELLO" && s.before(6, 0) {
		return refuse("%s", s.unknown(args))
	}
	if !arityFits(cmd.arity, len(args)) {
		return refuse("ERR wrong number of arguments for '%s' command", cmd.name)
	}
	if len(cmd.subs) > 0 && len(args) > 1 {
		sub := strings.ToLower(args[1])
		n, ok := cmd.subs[sub]
		if !ok {
			return refuse("ERR unknown subcommand '%.128s'. Try %s HELP.", args[1], strings.ToUpper(cmd.name))
		}
		if !arityFits(n, len(args)) {
			return refuse("ERR wrong number of arguments for '%s|%s' command", cmd.name, sub)
		}
		c.last = cmd.name + "|" + sub
	} else {
		c.last = cmd.name
	}
	switch {
	case !c.authed && cmd.flags&fNoAuth == 0:
		return refuse("NOAUTH Authentication required.")
	case cmd.flags&fOOM != 0 && s.full():
		return refuse("OOM command not allowed when used memory > 'maxmemory'.")
	case cmd.flags&fWrite != 0 && s.repl.masterHost == "" && s.lacksReplicas():
		return refuse("NOREPLICAS Not enough good replicas to write.")
	case cmd.flags&fWrite != 0 && s.repl.masterHost != "" && s.config["replica-read-only"] == "yes":
		return refuse("READONLY You can't write against a read only replica.")
	case cmd.flags&fStale == 0 && s.repl.masterHost != "" && s.repl.state != "connected" && s.config["replica-serve-stale-data"] == "no":
		return refuse("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
	case cmd.flags&fLoading == 0 && s.loading() && !c.internal:
		return refuse("LOADING Redis is loading the dataset in memory")
	}
	if !c.internal && s.pause.kind != pauseNone {
		writes := cmd.mayWrite() || name == "EXEC" && slices.ContainsFunc(c.queue, func(q []string) bool { return s.commands[strings.ToUpper(q[0])].mayWrite() })
		if s.pause.kind == pauseAll || writes {
			return resp.Value{}, true
		}
	}
	if c.multi && cmd.flags&fNoQueue == 0 {
		c.queue = append(c.queue, args)
		return resp.Simple("QUEUED"), false
	}
	v = s.call(c, cmd, args)
	if !v.IsZero() { // WAIT asks about what was before it
		c.offset = s.repl.offset
	}
	return v, false
}

func arityFits(arity, n int) bool {
	if arity < 0 {
		return n >= -arity
	}
	return n == arity
}

// unknown is the text of the release: 7.0 put plain quotes around what was backticks before.
func (s *Server) unknown(args []string) string {
	if s.before(7, 0) {
		var b strings.Builder
		for _, a := range args[1:] {
			if b.Len() >= 128 {
				break
			}
			fmt.Fprintf(&b, "`%.*s`, ", 128-b.Len(), a)
		}
		return fmt.Sprintf("ERR unknown command `%s`, with args beginning with: %s", args[0], b.String())
	}
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= 128 {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", 128-b.Len(), a)
	}
	return fmt.Sprintf("ERR unknown command '%.128s', with args beginning with: %s", args[0], b.String())
}

// before says whether the release is older than major.minor.
func (s *Server) before(major, minor int) bool {
	parts := strings.SplitN(s.release+".0.0", ".", 3)
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a < major || a == major && b < minor
}

func (s *Server) full() bool {
	limit, _ := strconv.ParseInt(s.config["maxmemory"], 10, 64)
	return limit > 0 && s.config["maxmemory-policy"] == "noeviction" && s.usedMemory() > limit
}

func (s *Server) lacksReplicas() bool {
	n, _ := strconv.Atoi(s.config["min-replicas-to-write"])
	return n > 0 && s.onlineReplicas() < n
}

// call carries out a command that passed every check, and replicates what it changed.
func (s *Server) call(c *client, cmd *command, args []string) resp.Value {
	s.stats.commands++
	s.stats.calls[cmd.name]++
	x := &exec{s: s, c: c, db: c.db}
	x.Exec = keyspace.Exec{DB: s.dbs[c.db], Now: s.nowMS(), Proto: c.proto, Expiry: s.expiry(c), Versions: &s.version}
	v := cmd.run(x, args)
	s.stats.hits += x.Hits
	s.stats.misses += x.Misses
	s.stats.expired += x.Expired
	if v.Kind == resp.Err && c.inExec {
		s.stats.errors++
	}
	ops := x.Replicated(args)
	s.stats.dirty += int64(x.Dirty)
	if c.master || len(ops) == 0 {
		return v
	}
	if c.inExec {
		for _, op := range ops {
			c.ops = append(c.ops, append([]string{strconv.Itoa(x.db)}, op...))
		}
		return v
	}
	if len(ops) > 1 {
		s.feed(-1, []string{"MULTI"})
	}
	for _, op := range ops {
		s.feed(x.db, op)
	}
	if len(ops) > 1 {
		s.feed(-1, []string{"EXEC"})
	}
	return v
}

// expiry is the rule for keys that are over. A server whose writes are paused deletes none.
func (s *Server) expiry(c *client) keyspace.Expiry {
	switch {
	case c.master:
		return keyspace.Keep
	case s.repl.masterHost == "" && s.pause.kind == pauseNone:
		return keyspace.Delete
	}
	return keyspace.Hide
}

// slow finishes the commands that take time, without the lock.
func (s *Server) slow(ctx context.Context, c *client, args []string) (resp.Value, bool) {
	if strings.EqualFold(args[0], "WAIT") {
		return s.wait(ctx, c, args)
	}
	return resp.Value{}, false // SHUTDOWN: no answer
}

func (s *Server) wait(ctx context.Context, c *client, args []string) (resp.Value, bool) {
	want, _ := strconv.Atoi(args[1])
	ms, _ := strconv.Atoi(args[2])
	s.mu.Lock()
	target, deadline := c.offset, s.clock.Now().Add(time.Duration(ms)*time.Millisecond)
	count := func() (n int) {
		for _, l := range s.liveLinks() {
			if state, ack, _ := l.shown(s.clock.Now()); state == "online" && ack >= target {
				n++
			}
		}
		return n
	}
	n := count()
	if n < want {
		s.feed(-1, []string{"REPLCONF", "GETACK", "*"})
	}
	s.mu.Unlock()
	for n < want && (ms == 0 || s.clock.Now().Before(deadline)) {
		select {
		case <-c.Gone:
			return resp.Value{}, false
		default:
		}
		if s.clock.Sleep(ctx, 5*time.Millisecond) != nil {
			return resp.Value{}, false
		}
		s.mu.Lock()
		n = count()
		s.mu.Unlock()
	}
	return resp.Number(n), true
}

var (
	errSyntax  = keyspace.ErrSyntax
	errInt     = keyspace.ErrInt
	errNothing = resp.Value{}
)
