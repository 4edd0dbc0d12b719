package twemproxy

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Pool is one pool of a configuration: a listening address and the servers behind it.
type Pool struct {
	Name         string
	Listen       string // host:port, or the path of a socket
	Hash         string
	HashTag      string // two characters, or none
	Distribution string
	Redis        bool
	RedisAuth    string
	AutoEject    bool
	Timeout      time.Duration // 0: for ever
	RetryAfter   time.Duration // how long a server stays ejected
	FailureLimit int           // failures in a row until it is
	Servers      []Backend     // in the order of their names
}

// Backend is one server of a pool.
type Backend struct {
	Addr   string
	Weight int
	Name   string
}

// Parse reads a configuration as nutcracker does. It knows the little of YAML that nutcracker takes: mappings and lists
// in blocks, plain and quoted scalars on one line.
func Parse(text string) ([]Pool, error) {
	lines, err := split(text)
	if err != nil {
		return nil, err
	}
	var pools []Pool
	for i := 0; i < len(lines); {
		head := lines[i]
		if head.indent != lines[0].indent || head.item || head.value != "" {
			return nil, fmt.Errorf("line %d: a pool's name and a colon are expected", head.number)
		}
		end := i + 1
		for end < len(lines) && lines[end].indent > head.indent {
			end++
		}
		pool, err := readPool(head.key, lines[i+1:end])
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", head.key, err)
		}
		for _, other := range pools {
			if other.Name == pool.Name || other.Listen == pool.Listen {
				return nil, fmt.Errorf("pool %s: the name or the address %s is that of another pool", pool.Name, pool.Listen)
			}
		}
		pools = append(pools, pool)
		i = end
	}
	if len(pools) == 0 {
		return nil, errors.New("there is no pool")
	}
	return pools, nil
}

// line is one line that says something.
type line struct {
	number, indent int
	item           bool // an element of a list: value alone
	key, value     string
}

func split(text string) ([]line, error) {
	var lines []line
	for i, raw := range strings.Split(text, "\n") {
		body := strings.TrimLeft(strings.TrimRight(raw, "\r"), " ")
		l := line{number: i + 1, indent: len(strings.TrimRight(raw, "\r")) - len(body)}
		switch {
		case body == "" || strings.HasPrefix(body, "#"):
			continue
		case strings.HasPrefix(body, "\t"), strings.HasPrefix(body, "---"), strings.HasPrefix(body, "..."):
			return nil, fmt.Errorf("line %d: not allowed here: %q", i+1, body)
		}
		written, item := strings.CutPrefix(body, "- ")
		if l.item = item; !item {
			var ok bool
			if l.key, written, ok = strings.Cut(body+" ", ": "); !ok {
				return nil, fmt.Errorf("line %d: %q is no key with a value", i+1, body)
			}
		}
		var err error
		if l.value, err = scalar(written); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// scalar reads a plain or quoted scalar and drops the comment behind it.
func scalar(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '#' {
		return "", nil
	}
	if q := s[0]; q == '"' || q == '\'' {
		end := strings.IndexByte(s[1:], q)
		if end < 0 || strings.ContainsRune(s[1:end+1], '\\') {
			return "", fmt.Errorf("%q: a quoted text with an end, and without escapes, is expected", s)
		}
		if rest := strings.TrimSpace(s[end+2:]); rest != "" && rest[0] != '#' {
			return "", fmt.Errorf("%q: there is more behind the quoted text", s)
		}
		return s[1 : end+1], nil
	}
	if strings.ContainsRune("[]{}&*!|>%@`,", rune(s[0])) {
		return "", fmt.Errorf("%q: lists and maps in brackets, anchors and blocks are not allowed", s)
	}
	if i := strings.Index(s, " #"); i >= 0 {
		s = strings.TrimSpace(s[:i])
	}
	return s, nil
}

func readPool(name string, lines []line) (Pool, error) {
	p := Pool{Name: name, Hash: "fnv1a_64", Distribution: "ketama", RetryAfter: 30 * time.Second, FailureLimit: 2}
	seen := map[string]bool{}
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		switch {
		case l.item || l.indent != lines[0].indent:
			return p, fmt.Errorf("line %d: a key of the pool is expected here", l.number)
		case seen[l.key]:
			return p, fmt.Errorf("line %d: %s is set twice", l.number, l.key)
		}
		seen[l.key] = true
		if l.key == "servers" {
			for ; i+1 < len(lines) && lines[i+1].item; i++ {
				if lines[i+1].indent < l.indent || lines[i+1].indent != lines[i].indent && lines[i].item {
					return p, fmt.Errorf("line %d: the elements of servers stand one below the other", lines[i+1].number)
				}
				b, err := readBackend(lines[i+1].value)
				if err != nil {
					return p, fmt.Errorf("line %d: %w", lines[i+1].number, err)
				}
				p.Servers = append(p.Servers, b)
			}
			continue
		}
		if err := p.set(l.key, l.value); err != nil {
			return p, fmt.Errorf("line %d: %s: %w", l.number, l.key, err)
		}
	}
	if p.Listen == "" || len(p.Servers) == 0 {
		return p, errors.New("listen and servers are needed")
	}
	// It sorts its servers by name to find two of one name, and leaves them so: what a server is answerable for is
	// decided by its name, not by its place in the file.
	slices.SortStableFunc(p.Servers, func(a, b Backend) int {
		if len(a.Name) != len(b.Name) {
			return len(a.Name) - len(b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	for i := 1; i < len(p.Servers); i++ {
		if p.Servers[i].Name == p.Servers[i-1].Name {
			return p, fmt.Errorf("two servers are named %s", p.Servers[i].Name)
		}
	}
	return p, nil
}

var (
	hashes        = []string{"one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh", "murmur", "jenkins"}
	distributions = []string{"ketama", "modula", "random"}
)

func (p *Pool) set(key, value string) error {
	number := func(least int) (int, error) {
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || int(n) < least {
			return 0, fmt.Errorf("%q is no number from %d on", value, least)
		}
		return int(n), nil
	}
	truth := func(into *bool) error {
		*into = value == "true"
		if value != "true" && value != "false" {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		return nil
	}
	var ignored bool
	var n int
	var err error
	switch key {
	case "listen":
		return p.setListen(value)
	case "hash":
		p.Hash = value
		err = among(value, hashes)
	case "distribution":
		p.Distribution = value
		err = among(value, distributions)
	case "hash_tag":
		if p.HashTag = value; len(value) != 2 {
			err = errors.New("two characters are expected")
		}
	case "redis":
		err = truth(&p.Redis)
	case "redis_auth":
		p.RedisAuth = value
	case "auto_eject_hosts":
		err = truth(&p.AutoEject)
	case "preconnect", "tcpkeepalive":
		err = truth(&ignored)
	case "timeout":
		n, err = number(0)
		p.Timeout = time.Duration(n) * time.Millisecond
	case "server_retry_timeout":
		n, err = number(0)
		p.RetryAfter = time.Duration(n) * time.Millisecond
	case "server_failure_limit":
		p.FailureLimit, err = number(0)
	case "server_connections":
		_, err = number(1)
	case "backlog", "client_connections", "redis_db":
		_, err = number(0)
	default:
		err = errors.New("it knows no such key")
	}
	return err
}

func among(value string, all []string) error {
	if !slices.Contains(all, value) {
		return fmt.Errorf("%q is not among %s", value, strings.Join(all, ", "))
	}
	return nil
}

func (p *Pool) setListen(value string) error {
	if strings.HasPrefix(value, "/") {
		p.Listen, _, _ = strings.Cut(value, " ")
		return nil
	}
	p.Listen = value
	i := strings.LastIndexByte(value, ':')
	if i < 0 || !isPort(value[i+1:]) {
		return fmt.Errorf("%q has no port from 1 to 65535", value)
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

var backend = regexp.MustCompile(`^((.+):(\d+)):(\d+)(?: (\S+))?$`)

// readBackend reads host:port:weight and a name; without one, that text is the name.
func readBackend(value string) (Backend, error) {
	if strings.HasPrefix(value, "/") {
		return Backend{}, fmt.Errorf("%q: servers behind sockets are not simulated", value)
	}
	m := backend.FindStringSubmatch(strings.TrimSpace(value))
	if m == nil || !isPort(m[3]) {
		return Backend{}, fmt.Errorf("%q is not host:port:weight and a name", value)
	}
	weight, err := strconv.Atoi(m[4])
	if err != nil || weight < 1 {
		return Backend{}, fmt.Errorf("%q: the weight is a number from 1 on", value)
	}
	b := Backend{Addr: net.JoinHostPort(m[2], m[3]), Weight: weight, Name: m[5]}
	if b.Name == "" {
		b.Name = m[1] + ":" + m[4]
	}
	return b, nil
}
