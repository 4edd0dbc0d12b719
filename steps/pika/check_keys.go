package pika

import (
	"context"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"runbook/steps"
	"runbook/steps/redis"
)

type checkKeysIn struct {
	Most int64 `yaml:"most" doc:"Most keys to look at; 0: all." default:"0" min:"0"`
}

type checkKeysOut struct {
	Keys     int64        `yaml:"keys" doc:"Keys that were looked at." min:"0"`
	Complete bool         `yaml:"complete" doc:"They are all. Otherwise what was not found may be there: Pika gives its keys type by type."`
	Problems []keyProblem `yaml:"problems" doc:"What would happen to some of them, in the order of pika.check-release; empty when all would arrive as they are."`
}

type keyProblem struct {
	Name     string   `yaml:"name" doc:"lists-reversed, empty-strings-stay, tags-ignored, keys-lower-cased or scores-rounded, as pika.check-release has it."`
	Keys     int64    `yaml:"keys" doc:"How many keys it is about." min:"0"`
	Examples []string `yaml:"examples" doc:"Some of them, five at most."`
	Message  string   `yaml:"message" doc:"What happens to them."`
	Fix      string   `yaml:"fix" doc:"What to do about it."`
}

func checkKeys() *steps.Kind[checkKeysIn, checkKeysOut] {
	return &steps.Kind[checkKeysIn, checkKeysOut]{
		Name: "pika.check-keys",
		Doc: "Looks for keys that Codis' migration, key by key, would not bring over as they are: which those are is a matter of the server's release, " +
			"and pika.check-release tells of it; this tells whether there are any. Sends SCAN, TYPE, STRLEN and ZRANGE, in batches.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: movable, uses: pika.check-keys, target: pika1, expect: complete && len(problems) == 0, timeout: 6h}`,
		Pitfalls: []string{
			"It is about the server that has the keys now: Codis sends the migration to it.",
			"Keys that clients write later are not seen: what they write must be known, or the check be repeated.",
			"Of a sorted set the first 100 members are looked at.",
			"A server whose slots move by replication (mode sharding of 3.2 to 3.4) has nothing to look for, and is refused.",
		},
		Read: readCheckKeys,
	}
}

// looked is one key as far as it matters here.
type looked struct {
	key, typ string
	length   int64    // of a string
	scores   []string // of a sorted set
}

// damaged tells which keys a problem of a release is about; nil: about none in particular.
func damaged(problem string) func(looked) bool {
	switch problem {
	case "lists-reversed":
		return func(k looked) bool { return k.typ == "list" }
	case "empty-strings-stay":
		return func(k looked) bool { return k.typ == "string" && k.length == 0 }
	case "tags-ignored":
		return func(k looked) bool {
			return codisSlot(k.key, codisSlots) != int(crc32.ChecksumIEEE([]byte(k.key))%codisSlots)
		}
	case "keys-lower-cased":
		return func(k looked) bool { return strings.ContainsAny(k.key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") }
	case "scores-rounded":
		return func(k looked) bool { return slices.ContainsFunc(k.scores, rounded) }
	}
	return nil
}

// rounded tells a score that six decimals cannot hold.
func rounded(score string) bool {
	f, err := strconv.ParseFloat(score, 64)
	if err != nil {
		return false
	}
	six, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', 6, 64), 64)
	return six != f
}

func readCheckKeys(ctx context.Context, v steps.View, in checkKeysIn) (checkKeysOut, error) {
	out := checkKeysOut{Problems: []keyProblem{}}
	c, err := view(ctx, v, "")
	if err != nil {
		return out, err
	}
	n, err := c.nature(ctx)
	if err != nil {
		return out, err
	}
	found := n.damages()
	if len(found) == 0 {
		return out, steps.Precondition("check the keys of %s: Codis moves none of Pika %s in mode %s, key by key", c.Addr(), n.release, n.mode).
			WithHint("pika.check-release tells what can be done with this release")
	}
	for cursor := "0"; ; {
		cmd := []string{"SCAN", cursor, "COUNT", strconv.Itoa(lookTogether)}
		reply, err := c.Do(ctx, cmd...)
		if err != nil {
			return out, err
		}
		var keys []string
		if cursor, keys, err = c.scanned(reply); err != nil {
			return out, err
		}
		keys = slices.DeleteFunc(keys, func(k string) bool { return strings.HasPrefix(k, slotIndex) })
		cut := in.Most > 0 && int64(len(keys)) > in.Most-out.Keys
		if cut {
			keys = keys[:in.Most-out.Keys]
		}
		if err := c.lookAt(ctx, keys, found); err != nil {
			return out, err
		}
		out.Keys += int64(len(keys))
		out.Complete = cursor == "0" && !cut
		if out.Complete || in.Most > 0 && out.Keys >= in.Most {
			break
		}
		v.Progress(steps.Progress{Done: float64(out.Keys), Unit: "keys"})
	}
	for _, p := range found {
		if p.Keys > 0 {
			out.Problems = append(out.Problems, *p)
		}
	}
	return out, nil
}

// lookTogether is how many keys are asked about in one round trip.
const lookTogether = 200

// damages are the problems of a server's release that some keys have and others have not.
func (n nature) damages() []*keyProblem {
	var all []*keyProblem
	for _, p := range n.known() {
		if damaged(p.Name) != nil && !slices.ContainsFunc(all, func(k *keyProblem) bool { return k.Name == p.Name }) {
			all = append(all, &keyProblem{Name: p.Name, Examples: []string{}, Message: p.Message, Fix: p.Fix})
		}
	}
	return all
}

// lookAt counts the keys that each problem is about.
func (c *Client) lookAt(ctx context.Context, keys []string, found []*keyProblem) error {
	cmds := make([][]string, len(keys))
	for i, key := range keys {
		cmds[i] = []string{"TYPE", key}
	}
	types, err := c.resp.Read(ctx, cmds...)
	if err != nil {
		return judge(err)
	}
	all := make([]looked, len(keys))
	for i, key := range keys {
		all[i] = looked{key: key, length: -1}
		if all[i].typ, err = types[i].Text(); err != nil {
			return judge(err)
		}
		switch all[i].typ {
		case "string":
			cmds[i] = []string{"STRLEN", key}
		case "zset":
			cmds[i] = []string{"ZRANGE", key, "0", "99", "WITHSCORES"}
		}
	}
	replies, err := c.resp.Read(ctx, cmds...)
	if err != nil {
		return judge(err)
	}
	const examples = 5
	for i := range all {
		all[i].read(replies[i])
		for _, p := range found {
			if !damaged(p.Name)(all[i]) {
				continue
			}
			if p.Keys++; len(p.Examples) < examples {
				p.Examples = append(p.Examples, strings.ToValidUTF8(all[i].key, "\ufffd"))
			}
		}
	}
	return nil
}

// read takes what is in the value; a key that has gone or changed its type meanwhile has nothing.
func (k *looked) read(r redis.Reply) {
	switch k.typ {
	case "string":
		if n, err := r.Int(); err == nil {
			k.length = n
		}
	case "zset":
		pairs, err := r.Texts()
		for i := 1; err == nil && i < len(pairs); i += 2 {
			k.scores = append(k.scores, pairs[i])
		}
	}
}
