package pika_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbook/internal/simulate/pika"
	"runbook/internal/simulate/resp"
)

// The recordings are what real servers answered, numbered in the order in which they were asked. They are played to
// simulated servers in scenes: a scene begins with servers in the state of that moment, plays a range of numbers, and does
// between them what the note of a recording says was done besides. A question is asked again until the recorded answer comes,
// so what is held to the recordings are the words and the order of states, and not the pace of a busy machine.

type recording struct {
	Name, Instance, Version, Reply, Note string
	Command                              []string
}

func (r recording) number() string { return r.Name[:3] }

// who is the instance without a remark in brackets.
func (r recording) who() string { name, _, _ := strings.Cut(r.Instance, "("); return name }

func recordings(t *testing.T, set string) []recording {
	f, err := os.Open(filepath.Join("../../../testdata/recordings/pika", set+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []recording
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recording
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		t.Fatalf("no recordings in %s", set)
	}
	return out
}

// TestRecordings plays every scene. A recording that is answered otherwise stands in deviations with the reason, and one
// that is not played in unplayed.
func TestRecordings(t *testing.T) {
	for set, least := range map[string]int{"3.4.0": 435, "3.2.9": 24, "2.3.6": 181, "cross": 6} {
		t.Run(set, func(t *testing.T) {
			all := recordings(t, set)
			played, exact := map[string]bool{}, 0
			for _, sc := range scenes[set] {
				t.Run(sc.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(26 * 365 * 24 * time.Hour) // a bubble begins in 2000
						p := newPlayer(t, set, all, sc)
						sc.play(p)
						for name, same := range p.outcome {
							played[name] = true
							if same {
								exact++
							}
						}
					})
				})
			}
			for _, r := range all {
				if !played[r.Name] && unplayed[set+"/"+r.number()] == "" {
					t.Errorf("%s is not played: %q", r.Name, r.Command)
				}
			}
			t.Logf("%d of %d answered as recorded", exact, len(all))
			if exact < least {
				t.Errorf("%d of %d answered as recorded, %d were before", exact, len(all), least)
			}
		})
	}
}

// scene is one range of recordings.
type scene struct {
	name    string
	servers map[string]pika.Options
	play    func(p *player)
}

type player struct {
	t       *testing.T
	set     string
	all     []recording
	network *pika.Network
	servers map[string]*pika.Server
	conns   map[string]*resp.Conn
	outcome map[string]bool

	patience time.Duration
}

// ports are those of the recorded instances.
var ports = map[string]int{
	"pika1": 21101, "pika2": 21102, "pika3": 21103, "pika4": 21104, "pika5": 21105, "pika6": 21106,
	"d-m": 21121, "d-n": 21122, "d-s": 21123, "d-x": 21124, "d-c": 21125, "d-r1": 21126, "d-r2": 21127, "d-q": 21128,
	"h-a": 21131, "h-b": 21132, "i-a": 21141, "i-b": 21142, "i-c": 21143,
	"g-a": 21201, "g-b": 21202, "g-c": 21203, "g-d": 21204, "g-e": 21205, "g-f": 21206, "g-g": 21207, "g-h": 21208, "g-i": 21209, "g-j": 21210,
}

func newPlayer(t *testing.T, set string, all []recording, sc scene) *player {
	p := &player{t: t, set: set, all: all, network: pika.NewNetwork(), servers: map[string]*pika.Server{}, conns: map[string]*resp.Conn{}, outcome: map[string]bool{}, patience: 30 * time.Second}
	for _, name := range slices.Sorted(maps.Keys(sc.servers)) {
		p.start(name, sc.servers[name])
	}
	t.Cleanup(func() {
		for _, s := range p.servers {
			s.Close()
		}
	})
	return p
}

func (p *player) start(name string, o pika.Options) *pika.Server {
	p.t.Helper()
	if old := p.servers[name]; old != nil {
		old.Close()
		delete(p.conns, name)
	}
	port := ports[name]
	o.Name, o.NoListen, o.Network = name, true, p.network
	o.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	o.Aliases = []string{fmt.Sprintf("localhost:%d", port)}
	if o.Release == "" {
		o.Release = p.set
	}
	s, err := pika.Start(o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.servers[name] = s
	return s
}

// to plays the recordings from number a to number b.
func (p *player) to(a, b string) {
	p.t.Helper()
	for _, r := range p.all {
		if n := r.number(); n < a || n > b {
			continue
		}
		if unplayed[p.set+"/"+r.number()] != "" {
			continue
		}
		got := p.ask(r)
		same := mask(got) == mask(r.Reply)
		p.outcome[r.Name] = same
		switch reason := deviations[p.set+"/"+r.number()]; {
		case !same && reason == "":
			p.patience = 6 * time.Second
			p.t.Errorf("%s: %s %q\nrecorded  %q\nsimulated %q", r.Name, r.Instance, r.Command, mask(r.Reply), mask(got))
		case same && reason != "":
			p.t.Errorf("%s does not deviate any more: %s", r.Name, reason)
		}
	}
}

// ask sends a request once, and a question until it is answered as recorded. After the first that never was, the others are
// not waited for long.
func (p *player) ask(r recording) string {
	p.t.Helper()
	want := mask(r.Reply)
	for waited := time.Millisecond; ; {
		time.Sleep(time.Millisecond)
		got := p.send(p.conn(r.who()), r.Command...)
		if mask(got) == want || !reads(r.Command) || waited > p.patience || deviations[p.set+"/"+r.number()] != "" {
			return got
		}
		pause := time.Millisecond
		if waited > 500*time.Millisecond {
			pause = 50 * time.Millisecond
		}
		time.Sleep(pause)
		waited += pause
	}
}

func reads(cmd []string) bool {
	switch strings.ToLower(cmd[0]) {
	case "info", "get", "exists", "slotsinfo", "dbsize":
		return true
	case "pkcluster":
		return len(cmd) > 1 && cmd[1] == "info"
	}
	return false
}

func (p *player) conn(name string) *resp.Conn {
	p.t.Helper()
	if c := p.conns[name]; c != nil {
		return c
	}
	s := p.servers[name]
	if s == nil {
		p.t.Fatalf("no server %s", name)
	}
	nc, err := s.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.conns[name] = resp.NewConn(nc)
	p.t.Cleanup(func() { _ = nc.Close() })
	return p.conns[name]
}

func (p *player) send(c *resp.Conn, args ...string) string {
	p.t.Helper()
	if err := c.Send(args...); err != nil {
		return "closed: " + err.Error()
	}
	v, err := c.Receive()
	if err != nil {
		return "closed: " + err.Error()
	}
	return string(v.Append(nil, 2))
}

// do is what was done besides, and must succeed.
func (p *player) do(name string, args ...string) {
	p.t.Helper()
	if v := p.servers[name].Do(args...); v.Kind == resp.Err {
		p.t.Fatalf("%s: %q: %s", name, args, v.Str)
	}
}

// wait lets time pass until a question is answered with what is wanted.
func (p *player) wait(name, want string, args ...string) {
	p.t.Helper()
	for range 6000 {
		if strings.Contains(p.servers[name].Do(args...).Str, want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.t.Fatalf("%s: %q never had %q:\n%s", name, args, want, p.servers[name].Do(args...).Str)
}

func (p *player) restart(name string) {
	p.t.Helper()
	if err := p.servers[name].Restart(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *player) stop(name string) {
	p.servers[name].Stop()
	delete(p.conns, name)
}

// mask takes out what differs from run to run: sizes, counts of requests, times, and offsets that depend on the load.
func mask(reply string) string {
	for _, m := range masks {
		reply = m.re.ReplaceAllString(reply, m.to)
	}
	return reply
}

var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\A\$\d+\r\n`), "$$N\r\n"},
	{regexp.MustCompile(`\b(process_id|uptime_in_seconds|uptime_in_days|db_size|log_size|used_memory|db_memtable_usage|db_tablereader_usage|connected_clients|total_connections_received|instantaneous_ops_per_sec|total_commands_processed|total_write_commands_processed|conn_fd|fd)([:=])\d+`), "$1${2}N"},
	{regexp.MustCompile(`\b(db_size_human|log_size_human|used_memory_human):\d+M`), "$1:N"},
	{regexp.MustCompile(`\b(used_cpu_\w+):[\d.]+`), "$1:N"},
	{regexp.MustCompile(`\b(qps|write_qps|read_qps): \d+`), "$1: N"},
	{regexp.MustCompile(`\bbinlog_offset([=:])(\d+) (?:\d{5,}|5[6-9]\d\d|[6-9]\d\d\d)\b`), "binlog_offset$1$2 N"},
	{regexp.MustCompile(`\blag: [1-9]\d*`), "lag: N"},
	{regexp.MustCompile(`\blag=[1-9]\d*`), "lag=N"},
	{regexp.MustCompile(`# Time:20\d\d-\d\d-\d\d \d\d:\d\d:\d\d`), "# Time:T"},
	{regexp.MustCompile(`\bsid=\d+`), "sid=N"},
	{regexp.MustCompile(`\baddr=\S+`), "addr=A"},
	{regexp.MustCompile(`\A\*2\r\n\$10\r\n\d{10}\r\n\$\d\r\n\d+\r\n\z`), "*2 TIME"},
	{regexp.MustCompile(`\A\+\d{14} : 0\r\n`), "+TIME : 0\r\n"},
	{regexp.MustCompile(`filenum (\d+) offset [1-9]\d*`), "filenum $1 offset N"},
}
