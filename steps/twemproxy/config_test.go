package twemproxy

import (
	"slices"
	"strings"
	"testing"

	"runbook/schema"
	"runbook/steps"
)

const layout = `# proxies of the shop
alpha:
  listen: 127.0.0.1:22121   # clients
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  redis: true

  servers:   # one a slot
   # the first shard
   - 10.0.0.1:9221:1 server1   # schlüssel → 0
   - "10.0.0.1:9221:1 server2"

   - '10.0.0.2:9221:1 server3' # 2
beta:
  listen: 127.0.0.1:22122
  servers:
  - 10.0.0.9:9221:1 server1
`

// TestRewrite: what a list becomes, and that all else stays.
func TestRewrite(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(layout) }
	table := []struct {
		name, text, pool string
		owners           []string
		want             string
	}{
		{"one slot", layout, "alpha", []string{"10.0.0.1:9221", "10.0.0.3:9221", "10.0.0.2:9221"}, replace(`"10.0.0.1:9221:1 server2"`, `"10.0.0.3:9221:1 server2"`)},
		{"nothing", layout, "alpha", []string{"10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221"}, layout},
		{"the other pool", layout, "beta", []string{"10.0.0.3:9221"}, replace("10.0.0.9", "10.0.0.3")},
		{"windows line ends", strings.ReplaceAll(layout, "\n", "\r\n"), "beta", []string{"10.0.0.3:9221"}, strings.ReplaceAll(replace("10.0.0.9", "10.0.0.3"), "\n", "\r\n")},
		{"names decide, not places", replace("server1 ", "c ", "server2", "a", "server3", "bb"), "alpha", []string{"10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"},
			replace("10.0.0.1:9221:1 server1 ", "10.0.0.4:1:1 c ", "10.0.0.1:9221:1 server2", "10.0.0.3:1:1 a", "10.0.0.2:9221:1 server3", "10.0.0.5:1:1 bb")},
		{"one slot more", layout, "beta", []string{"10.0.0.9:9221", "10.0.0.9:9221"}, layout + "  - 10.0.0.9:9221:1 server2\n"},
		{"one slot more, quoted", layout, "alpha", []string{"10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221"},
			replace("server3' # 2\n", "server3' # 2\n   - 10.0.0.2:9221:1 server4\n")},
		{"no end of line", strings.TrimSuffix(layout, "\n"), "beta", []string{"10.0.0.9:9221", "10.0.0.9:9221"}, layout + "  - 10.0.0.9:9221:1 server2\n"},
		{"one slot less", layout, "alpha", []string{"10.0.0.1:9221", "10.0.0.2:9221"}, replace(`"10.0.0.1:9221:1 server2"`, `"10.0.0.2:9221:1 server2"`, "   - '10.0.0.2:9221:1 server3' # 2\n", "")},
		{"no names", replace(" server1   # s", "   # s", " server2", "", "10.0.0.1:9221:1 server1", "10.0.0.1:9222:1"), "alpha", []string{"10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221"}, layout},
		{"a weight", replace("9221:1 server3", "9221:7 server3"), "alpha", []string{"10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221"}, layout},
	}
	for _, c := range table {
		t.Run(c.name, func(t *testing.T) {
			f, err := parse("n.yml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			p, err := f.pool(c.pool)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.with(c.pool, p.entriesFor(c.owners))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got\n%s\nwanted\n%s", got, c.want)
			}
			again, err := parse("n.yml", got)
			if err != nil {
				t.Fatal(err)
			}
			if p, _ = again.pool(c.pool); !slices.Equal(p.owners(), c.owners) {
				t.Errorf("owners %v, wanted %v", p.owners(), c.owners)
			}
		})
	}
}

// TestParseSaysWhere: what cannot be read is named with its place.
func TestParseSaysWhere(t *testing.T) {
	for text, says := range map[string]string{
		"alpha:\n  servers:\n   - 10.0.0.1\n":             `n.yml:3:6: "10.0.0.1" is not host:port:weight and a name`,
		"alpha:\n  servers:\n   - 10.0.0.1:0:1 a\n":       "n.yml:3:6: ",
		"alpha:\n  servers:\n   - 10.0.0.1:1:0 a\n":       "a weight is a number from 1 on",
		"alpha:\n  listen: a\n":                           "n.yml:1:1: pool alpha has no servers",
		"alpha:\n  servers: [\"a:1:1 a\", \"b:1:1 b\"]\n": "each server has a line of its own",
		"alpha: 1\n": "pool alpha has no keys",
		"alpha:\n  hash_tag: {}\n  servers:\n   - a:1:1 a\n":      "hash_tag: one value is expected",
		"alpha:\n  servers:\n   - a:1:1 a\nalpha:\n  listen: a\n": "stands here a second time",
	} {
		_, err := parse("n.yml", []byte(text))
		fails(t, err, "config", says)
	}
}

func TestPool(t *testing.T) {
	f, err := parse("n.yml", []byte(layout))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.pool("")
	fails(t, err, "precondition", "several pools, alpha, beta")
	_, err = f.pool("gamma")
	fails(t, err, "precondition", "no pool gamma")
}

func TestTargetConfig(t *testing.T) {
	known := func(string) bool { return false }
	if p := validConfig(Config{Addr: "127.0.0.1:22121"}, known); len(p) != 0 {
		t.Errorf("%v", p)
	}
	for input, cfg := range map[string]Config{
		"addr":       {Addr: "127.0.0.1"},
		"stats_addr": {Addr: "127.0.0.1:1", StatsAddr: "127.0.0.1:0"},
		"config":     {Addr: "127.0.0.1:1", Config: "n.yml"},
		"pidfile":    {Addr: "127.0.0.1:1", Pidfile: "n.pid"},
	} {
		if p := validConfig(cfg, known); len(p) != 1 || p[0].Input != input {
			t.Errorf("%s: %v", input, p)
		}
	}
}

func TestSetServersValid(t *testing.T) {
	d := kind(t, "twemproxy.set-servers")
	for want, in := range map[string]*setServersIn{
		"":        {Slots: schema.Slots{1}, To: "10.0.0.1:1"},
		"servers": {},
		"to":      {Slots: schema.Slots{1}},
		"slots":   {To: "10.0.0.1:1"},
	} {
		got := ""
		for _, p := range d.Valid(in, func(string) bool { return false }) {
			got = p.Input
		}
		if got != want {
			t.Errorf("%+v: %q, wanted %q", in, got, want)
		}
	}
	var problems []steps.Problem = d.Valid(&setServersIn{Servers: []schema.Addr{"a:1"}, Slots: schema.Slots{1}, To: "b:1"}, func(string) bool { return false })
	if len(problems) != 1 {
		t.Errorf("both ways at once: %v", problems)
	}
}
