package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/resp"
)

// A recording is a script and what a real redis-server answered to it, in one text file. Lines that a person writes:
//
//	servers: a b                      what is started; what follows a name in brackets is its configuration
//	a> GET k                          send on connection a, and the answer follows
//	a/2> GET k                        the same on another connection to a
//	a/2>> SET k v                     send, do not wait
//	a/2<                              the answer to what was sent before follows
//	a/2~                              what was sent before must still be unanswered: "blocked"
//	a fields> INFO server             of the answer only the names of the fields
//	a/2!                              the client closes its connection
//	a? replication role:master        wait until that section of INFO matches
//	a sorted> KEYS *                  the items of the answer in alphabetical order
//	sleep 50ms
//	a loading 2s                      a is made to load its data for a while
//	a slow-sync 2s                    a full sync from a takes this long
//	a down / a up                     a is stopped (its data is lost), and started again
//
// Everything else is the answers, rewritten by the recorder (RECORD=1 go test -run TestRecord). What differs from run to run is
// named in order of its appearance: {id1} for a 40-digit id, {a.port} for a port; so two equal ids must be equal in the simulator as well.
type stage interface {
	dial(name string) (net.Conn, error)
	port(name string) string
	loading(name string, d time.Duration)
	slowSync(name string, d time.Duration)
	down(name string)
	up(name string)
}

type player struct {
	stage stage
	names []string
	conns map[string]*resp.Conn
	ids   map[string]string
	out   strings.Builder
}

var (
	isDirective = regexp.MustCompile(`^(servers: .*|sleep \S+|[a-z](/\d+)?( fields| sorted)?(>>|>|<|~|\?|!)( .*)?|[a-z] (loading|slow-sync) \S+|[a-z] (down|up))$`)
	lineParts   = regexp.MustCompile(`^([a-z])(/\d+)?( fields| sorted)?(>>|>|<|~|\?|!)(?: (.*))?$`)
	hex40       = regexp.MustCompile(`\b[0-9a-f]{40}\b`)
	masks       = []struct {
		re *regexp.Regexp
		to string
	}{
		{regexp.MustCompile(`\blag=\d+`), "lag=N"},
		{regexp.MustCompile(`\b(master_last_io_seconds_ago|master_sync_last_io_seconds_ago|master_link_down_since_seconds):-?\d+`), "$1:N"},
		{regexp.MustCompile(`\b(id|fd|qbuf|qbuf-free|argv-mem|multi-mem|rbs|rbp|obl|oll|omem|tot-mem|age|idle|redir)=-?\d+`), "$1=N"},
		{regexp.MustCompile(`avg_ttl=[1-9]\d*`), "avg_ttl=N"},
		{regexp.MustCompile(`^/tmp/\S+`), `/tmp/DIR`},
		{regexp.MustCompile(`laddr=127\.0\.0\.1:`), "laddr="},
		{regexp.MustCompile(`\baddr=127\.0\.0\.1:\d+`), "addr=CLIENT"},
	}
)

// play carries out the script and returns it with the answers filled in.
func (p *player) play(script string) (string, error) {
	defer func() {
		for _, c := range p.conns {
			_ = c.Close()
		}
	}()
	p.conns, p.ids = map[string]*resp.Conn{}, map[string]string{}
	answer := false // inside an answer of several lines
	for i, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		if strings.TrimSpace(line) == `"""` {
			answer = !answer
		}
		switch {
		case answer:
		case strings.HasPrefix(line, "#") || line == "":
			fmt.Fprintln(&p.out, line)
		case isDirective.MatchString(line):
			fmt.Fprintln(&p.out, line)
			if err := p.step(line); err != nil {
				return p.out.String(), fmt.Errorf("line %d: %s: %w", i+1, line, err)
			}
		}
	}
	return p.out.String(), nil
}

func (p *player) step(line string) error {
	if d, ok := strings.CutPrefix(line, "sleep "); ok {
		dur, err := time.ParseDuration(d)
		time.Sleep(dur)
		return err
	}
	if strings.HasPrefix(line, "servers: ") {
		return nil
	}
	name, rest, _ := strings.Cut(line, " ")
	switch {
	case rest == "down":
		p.stage.down(name)
		p.forget(name)
		return nil
	case rest == "up":
		p.stage.up(name)
		return nil
	case strings.HasPrefix(rest, "loading "):
		d, err := time.ParseDuration(strings.TrimPrefix(rest, "loading "))
		p.stage.loading(name, d)
		return err
	case strings.HasPrefix(rest, "slow-sync "):
		d, err := time.ParseDuration(strings.TrimPrefix(rest, "slow-sync "))
		p.stage.slowSync(name, d)
		return err
	}
	m := lineParts.FindStringSubmatch(line)
	if m == nil {
		return errors.New("not a directive")
	}
	server, id, how, op, rest := m[1], m[1]+m[2], strings.TrimSpace(m[3]), m[4], m[5]
	c, err := p.conn(server, id)
	if err != nil {
		return err
	}
	switch op {
	case ">", ">>":
		args, err := split(rest)
		if err != nil {
			return err
		}
		for i := range args {
			for _, n := range p.names {
				args[i] = strings.ReplaceAll(args[i], "{"+n+".port}", p.stage.port(n))
			}
			for id, name := range p.ids {
				args[i] = strings.ReplaceAll(args[i], name, id)
			}
		}
		if err := c.Send(args...); err != nil {
			fmt.Fprintln(&p.out, "closed")
			delete(p.conns, id)
			return nil
		}
		if op == ">" {
			p.receive(id, c, how)
		}
	case "<":
		p.receive(id, c, how)
	case "~":
		_ = c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		v, err := c.Receive()
		_ = c.SetReadDeadline(time.Time{})
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			fmt.Fprintln(&p.out, "blocked")
			return nil
		}
		if err != nil {
			fmt.Fprintln(&p.out, "closed")
			return nil
		}
		p.show(v, "", how)
	case "!":
		_ = c.Close()
		delete(p.conns, id)
	case "?":
		section, want, _ := strings.Cut(rest, " ")
		re, err := regexp.Compile("(?m)^" + want)
		if err != nil {
			return err
		}
		deadline := time.Now().Add(20 * time.Second)
		for {
			v, err := c.Do(context.Background(), "INFO", section)
			if err == nil && re.MatchString(v.Str) {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("never became so: %v\n%s", err, v.Str)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (p *player) forget(server string) {
	for id, c := range p.conns {
		if strings.HasPrefix(id, server) {
			_ = c.Close()
			delete(p.conns, id)
		}
	}
}

func (p *player) conn(server, id string) (*resp.Conn, error) {
	if c, ok := p.conns[id]; ok {
		return c, nil
	}
	nc, err := p.stage.dial(server)
	if err != nil {
		return nil, err
	}
	p.conns[id] = resp.NewConn(nc)
	return p.conns[id], nil
}

func (p *player) receive(id string, c *resp.Conn, how string) {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	v, err := c.Receive()
	_ = c.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe):
		fmt.Fprintln(&p.out, "closed")
		delete(p.conns, id)
	case err != nil && strings.Contains(err.Error(), "reset"):
		fmt.Fprintln(&p.out, "closed")
		delete(p.conns, id)
	case err != nil:
		fmt.Fprintln(&p.out, "failed:", err)
	default:
		p.show(v, "", how)
	}
}

func (p *player) show(v resp.Value, indent string, how string) {
	w := func(format string, args ...any) { fmt.Fprintf(&p.out, indent+format+"\n", args...) }
	switch v.Kind {
	case resp.Status, resp.Err:
		w("%c%s", v.Kind, p.mask(v.Str))
	case resp.Int, resp.Bool:
		w(":%s", p.mask(strconv.FormatInt(v.Int, 10)))
	case resp.Double:
		w(",%s", resp.FormatDouble(v.Double))
	case resp.Null:
		w("nil")
	case resp.Bulk, resp.Verb:
		if !strings.Contains(v.Str, "\n") {
			w("%s", strconv.Quote(p.mask(v.Str)))
			return
		}
		w(`"""`)
		for _, l := range strings.Split(strings.TrimRight(p.mask(v.Str), "\r\n"), "\n") {
			l = strings.TrimRight(l, "\r")
			if how == "fields" {
				l, _, _ = strings.Cut(l, ":")
			}
			w("%s", l)
		}
		w(`"""`)
	default:
		n := len(v.Items)
		if v.Kind == resp.Map {
			n /= 2
		}
		w("%c%d", v.Kind, n)
		if how == "sorted" {
			slices.SortFunc(v.Items, func(a, b resp.Value) int { return strings.Compare(p.mask(a.Str), p.mask(b.Str)) })
		}
		for i, it := range v.Items {
			if i > 0 && v.Items[i-1].Str == "id" && it.Kind == resp.Int {
				fmt.Fprintln(&p.out, indent+"  :ID")
				continue
			}
			p.show(it, indent+"  ", how)
		}
	}
}

func (p *player) mask(s string) string {
	s = hex40.ReplaceAllStringFunc(s, func(id string) string {
		if strings.Trim(id, "0") == "" {
			return "{none}"
		}
		if _, ok := p.ids[id]; !ok {
			p.ids[id] = fmt.Sprintf("{id%d}", len(p.ids)+1)
		}
		return p.ids[id]
	})
	for _, n := range p.names {
		s = regexp.MustCompile(`\b`+p.stage.port(n)+`\b`).ReplaceAllString(s, "{"+n+".port}")
	}
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	return s
}

// split cuts a line into words; a word in double quotes may hold anything Go can quote.
func split(line string) ([]string, error) {
	var args []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			q, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, err
			}
			s, _ := strconv.Unquote(q)
			args, line = append(args, s), line[len(q):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		args, line = append(args, word), rest
	}
	return args, nil
}

// servers reads the header: the names, and each one's options.
func servers(script string) ([]string, map[string][]string) {
	var names []string
	opts := map[string][]string{}
	for _, line := range strings.Split(script, "\n") {
		rest, ok := strings.CutPrefix(line, "servers: ")
		if !ok {
			continue
		}
		words, _ := split(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(rest))
		open := false
		for _, w := range words {
			switch {
			case w == "(":
				open = true
			case w == ")":
				open = false
			case open:
				n := names[len(names)-1]
				opts[n] = append(opts[n], w)
			default:
				names = append(names, w)
			}
		}
	}
	return names, opts
}

func recordings() ([]string, string) {
	const dir = "../../../testdata/recordings/redis"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, dir
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".txt") {
			names = append(names, e.Name())
		}
	}
	return names, dir
}
