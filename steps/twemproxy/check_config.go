package twemproxy

import (
	"context"
	"fmt"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type checkConfigIn struct {
	Pool    string        `yaml:"pool" doc:"Name of the pool; the file's only one where none is given."`
	Servers []schema.Addr `yaml:"servers" doc:"Address that owns each slot, in order: the master of slot 0 first."`
	SlotNum int           `yaml:"slot_num" doc:"Number of slots behind it (Pika's default-slot-num)."`
}

type checkConfigOut struct {
	Problems []problem `yaml:"problems" doc:"What is wrong, each with its cause and what to do; empty when all is as it must be."`
	Servers  []string  `yaml:"servers" doc:"Address that the proxy sends each slot to, in the order of slots, by the file."`
}

type problem struct {
	Name    string `yaml:"name" doc:"What is wrong, in one word: hash, distribution, auto-eject, hash-tag, redis, weight, server-order, server-count, server-owner."`
	Message string `yaml:"message" doc:"The same in a sentence, with what was found."`
	Fix     string `yaml:"fix" doc:"What to write instead."`
}

func checkConfig() *steps.Kind[checkConfigIn, checkConfigOut] {
	return &steps.Kind[checkConfigIn, checkConfigOut]{
		Name:    "twemproxy.check-config",
		Doc:     "Tells whether a pool sends each key to the server that owns its slot in a sharded Pika. Reads the configuration file; the running proxy may still have the one before.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: settings, uses: twemproxy.check-config, target: proxy, with: {pool: alpha, slot_num: 4, servers: ["10.0.0.1:9221", "10.0.0.1:9221", "10.0.0.2:9221", "10.0.0.2:9221"]}, expect: "len(problems) == 0"}`,
		Pitfalls: []string{
			"Only hash crc32a with distribution modula is what Pika counts with; every other puts keys where Pika does not look for them.",
			"nutcracker orders its servers by name, shorter names first, and not by their place in the file: server10 comes after server9, and b before aa.",
			"A server counts as often as its weight: with a weight of 2 all slots behind it move on by one.",
			"With auto_eject_hosts one server's failure sends the keys of every slot to other servers, which take the writes.",
			"A key with an empty tag, such as a{}b, is hashed whole by nutcracker and by its empty tag in Pika: no setting changes that, such keys cannot be served through it.",
		},
		Read: func(ctx context.Context, v steps.View, in checkConfigIn) (checkConfigOut, error) {
			out := checkConfigOut{Problems: []problem{}, Servers: []string{}}
			p, err := look(ctx, v)
			if err != nil {
				return out, err
			}
			f, err := p.file(ctx)
			if err != nil {
				return out, err
			}
			pool, err := f.pool(in.Pool)
			if err != nil {
				return out, err
			}
			out.Servers = pool.owners()
			out.Problems = append(append(out.Problems, pool.settingProblems()...), pool.serverProblems(in)...)
			return out, nil
		},
	}
}

// settingProblems compares the settings with what a sharded Pika needs, nutcracker's defaults where one is not set.
func (p pool) settingProblems() []problem {
	var found []problem
	for _, want := range []struct{ name, key, value, fallback, why string }{
		{"hash", "hash", "crc32a", "fnv1a_64", "a key's slot is its CRC-32 in Pika"},
		{"distribution", "distribution", "modula", "ketama", "slot i is the hash modulo the number of slots"},
		{"auto-eject", "auto_eject_hosts", "false", "false", "when one server fails, the keys of all slots would go, and be written, to others"},
		{"hash-tag", "hash_tag", "{}", "", "Pika takes the part between braces where there is one"},
		{"redis", "redis", "true", "false", "without it the proxy speaks memcached"},
	} {
		got, set := p.settings[want.key]
		if !set {
			got = want.fallback
		}
		if got != want.value {
			value := want.value
			if value == "{}" {
				value = `"{}"`
			}
			found = append(found, problem{
				Name:    want.name,
				Message: fmt.Sprintf("pool %s: %s is %s: %s", p.name, want.key, orUnset(p.settings[want.key], want.fallback), want.why),
				Fix:     fmt.Sprintf("%s: %s", want.key, value),
			})
		}
	}
	return found
}

func orUnset(value, fallback string) string {
	switch {
	case value != "":
		return value
	case fallback != "":
		return "not set, which means " + fallback
	}
	return "not set"
}

func (p pool) serverProblems(in checkConfigIn) []problem {
	var found []problem
	for _, s := range p.servers {
		if s.weight != 1 {
			found = append(found, problem{"weight", fmt.Sprintf("pool %s: server %s has weight %d, and counts as %d slots", p.name, s.name, s.weight, s.weight),
				fmt.Sprintf("%s:1 %s", s.addr, s.name)})
		}
	}
	order := p.order()
	for slot, i := range order {
		if slot != i {
			found = append(found, problem{"server-order",
				fmt.Sprintf("pool %s: line %d of its servers, %s, is slot %d: they are ordered by name, shorter names first", p.name, i+1, p.servers[i].name, slot),
				"name them in the order of slots: server1, server2, …"})
			break
		}
	}
	owners := p.owners()
	wanted := in.SlotNum
	if wanted == 0 {
		wanted = len(in.Servers)
	}
	if wanted != 0 && len(owners) != wanted {
		return append(found, problem{"server-count", fmt.Sprintf("pool %s: there are servers for %d slots, and %d slots", p.name, len(owners), wanted),
			"one line for each slot, the same address as often as it owns slots"})
	}
	if len(in.Servers) > 0 && len(in.Servers) != len(owners) {
		return append(found, problem{"server-count", fmt.Sprintf("pool %s: %d owners are given for %d slots", p.name, len(in.Servers), len(owners)), "give one address for each slot"})
	}
	var wrong []string
	for slot, want := range in.Servers {
		if owners[slot] != string(want) {
			wrong = append(wrong, fmt.Sprintf("slot %d goes to %s and belongs to %s", slot, owners[slot], want))
		}
	}
	if len(wrong) > 0 {
		const most = 5
		text := strings.Join(wrong[:min(most, len(wrong))], ", ")
		if len(wrong) > most {
			text += fmt.Sprintf(", … (%d slots)", len(wrong))
		}
		found = append(found, problem{"server-owner", fmt.Sprintf("pool %s: %s", p.name, text), "twemproxy.set-servers with these owners, then twemproxy.restart"})
	}
	return found
}
