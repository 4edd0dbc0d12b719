package redis

import (
	"bufio"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/keyspace"
	"runbook/internal/simulate/resp"
)

type parameterKind int

const (
	kText parameterKind = iota
	kBool
	kInt
	kMemory
	kEnum
	kSave
	kLimits
)

// parameter is one configuration parameter: what it takes, and whether a running server lets it be changed.
type parameter struct {
	kind    parameterKind
	def, of string
	min     int64
	fixed   bool // only in the file
	guarded bool // only where enable-protected-configs says so
}

func canonical(name string) string {
	name = strings.ToLower(name)
	if c, ok := aliases[name]; ok {
		return c
	}
	return name
}

func defaults() map[string]string {
	m := make(map[string]string, len(parameters))
	for k, p := range parameters {
		m[k] = p.def
	}
	return m
}

// parse gives the value as CONFIG GET shows it, or the reason that the server gives for refusing it.
func (p parameter) parse(v string) (value, reason string) {
	switch p.kind {
	case kBool:
		if v = strings.ToLower(v); v != "yes" && v != "no" {
			return "", "argument must be 'yes' or 'no'"
		}
	case kInt:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return "", "argument couldn't be parsed into an integer"
		}
		if n < p.min || n > math.MaxInt32 {
			return "", fmt.Sprintf("argument must be between %d and %d inclusive", p.min, math.MaxInt32)
		}
	case kMemory:
		n, ok := memory(v)
		if !ok {
			return "", "argument must be a memory value"
		}
		v = strconv.FormatInt(n, 10)
	case kEnum:
		v = strings.ToLower(v)
		if !slices.Contains(strings.Split(p.of, ", "), v) {
			return "", "argument(s) must be one of the following: " + p.of
		}
	case kSave:
		words := strings.Fields(v)
		for _, w := range words {
			if n, err := strconv.Atoi(w); err != nil || n < 0 || len(words)%2 != 0 {
				return "", "Invalid save parameters"
			}
		}
		v = strings.Join(words, " ")
	}
	return v, ""
}

// memory reads 100mb and the like.
func memory(s string) (int64, bool) {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	unit := ""
	if i >= 0 {
		s, unit = s[:i], strings.ToLower(s[i:])
	}
	n, err := strconv.ParseInt(s, 10, 64)
	mul, ok := map[string]int64{"": 1, "b": 1, "k": 1000, "kb": 1 << 10, "m": 1000 * 1000, "mb": 1 << 20, "g": 1000 * 1000 * 1000, "gb": 1 << 30}[unit]
	return n * mul, err == nil && ok && n <= math.MaxInt64/mul
}

// limits sets one or more classes of client-output-buffer-limit in the value that stands.
func limits(old, v string) (value, reason string) {
	words, now := strings.Fields(v), strings.Fields(old)
	if len(words)%4 != 0 || len(words) == 0 {
		return "", "Wrong number of arguments in buffer limit configuration."
	}
	for i := 0; i < len(words); i += 4 {
		class := strings.ToLower(words[i])
		if class == "replica" {
			class = "slave"
		}
		at := slices.Index(now, class)
		if at < 0 {
			return "", "Invalid client class specified in buffer limit configuration."
		}
		for j, w := range words[i+1 : i+4] {
			n, ok := memory(w)
			if !ok {
				return "", "Error in hard, soft or soft_seconds setting in buffer limit configuration."
			}
			now[at+1+j] = strconv.FormatInt(n, 10)
		}
	}
	return strings.Join(now, " "), ""
}

func cmdConfig(x *exec, a []string) resp.Value {
	s := x.s
	switch strings.ToLower(a[1]) {
	case "get":
		found := map[string]string{}
		for _, pattern := range a[2:] {
			pattern = strings.ToLower(pattern)
			for name, v := range s.config {
				if name == "replicaof" && s.repl.masterHost != "" {
					v = s.repl.masterHost + " " + s.repl.masterPort
				} else if name == "replicaof" {
					v = ""
				}
				if keyspace.Glob(pattern, name) {
					found[name] = v
				}
				for alias, c := range aliases {
					if c == name && keyspace.Glob(pattern, alias) {
						found[alias] = v
					}
				}
			}
		}
		v := resp.Value{Kind: resp.Map}
		for _, name := range slices.Sorted(maps.Keys(found)) {
			v.Items = append(v.Items, resp.Text(name), resp.Text(found[name]))
		}
		return v
	case "set":
		return s.configSet(a[2:])
	case "rewrite":
		if s.configFile == "" {
			return resp.Errorf("ERR The server is running without a config file")
		}
		s.persisted = map[string]string{}
		for k, v := range s.config {
			if v != parameters[k].def {
				s.persisted[k] = v
			}
		}
		delete(s.persisted, "replicaof")
		if s.repl.masterHost != "" {
			s.persisted["replicaof"] = s.repl.masterHost + " " + s.repl.masterPort
		}
		if s.rewritten != nil {
			s.rewritten(s.configFile, maps.Clone(s.persisted))
		}
		return resp.OK()
	case "resetstat":
		s.stats = stats{errorKinds: map[string]int64{}, calls: map[string]int64{}, lastSave: s.stats.lastSave, dirty: s.stats.dirty}
		return resp.OK()
	}
	return resp.Texts("CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
}

// configSet sets all of the parameters or none.
func (s *Server) configSet(a []string) resp.Value {
	if len(a)%2 != 0 {
		return resp.Errorf("ERR wrong number of arguments for 'config|set' command")
	}
	change := map[string]string{}
	for i := 0; i < len(a); i += 2 {
		name := canonical(a[i])
		p, ok := parameters[name]
		if !ok {
			return resp.Errorf("ERR Unknown option or number of arguments for CONFIG SET - '%s'", a[i])
		}
		fail := func(reason string) resp.Value {
			return resp.Errorf("ERR CONFIG SET failed (possibly related to argument '%s') - %s", a[i], reason)
		}
		if _, twice := change[name]; twice {
			return fail("duplicate parameter")
		}
		switch {
		case p.fixed:
			return fail("can't set immutable config")
		case p.guarded:
			return fail("can't set protected config")
		}
		v, reason := p.parse(a[i+1])
		if p.kind == kLimits {
			v, reason = limits(s.config[name], a[i+1])
		}
		if reason != "" {
			return fail(reason)
		}
		change[name] = v
	}
	maps.Copy(s.config, change)
	return resp.OK()
}

// ParseFile reads a redis.conf: name, then value, quotes and comments as there. A parameter that stands on several lines
// (save) has its values joined.
func ParseFile(text string) (map[string]string, error) {
	m := map[string]string{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words, ok := words(line)
		if !ok || len(words) < 2 {
			return nil, fmt.Errorf("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line %d\n>>> '%s'\nBad directive or wrong number of arguments", n, line)
		}
		name, v := canonical(words[0]), strings.Join(words[1:], " ")
		p, known := parameters[name]
		if !known {
			return nil, fmt.Errorf("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line %d\n>>> '%s'\nBad directive or wrong number of arguments", n, line)
		}
		value, reason := p.parse(v)
		old, again := m[name]
		switch {
		case p.kind == kLimits:
			if !again {
				old = p.def
			}
			value, reason = limits(old, v)
		case p.kind == kSave && again && old != "":
			value = old + " " + value
		}
		if reason != "" {
			return nil, fmt.Errorf("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line %d\n>>> '%s'\n%s", n, line, reason)
		}
		m[name] = value
	}
	return m, sc.Err()
}

// words cuts a line at blanks; a word may stand in single or double quotes.
func words(line string) ([]string, bool) {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if q := line[0]; q == '"' || q == '\'' {
			end := strings.IndexByte(line[1:], q)
			if end < 0 {
				return nil, false
			}
			out, line = append(out, line[1:1+end]), line[2+end:]
			continue
		}
		w, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		out, line = append(out, w), rest
	}
	return out, true
}
