package redis

import (
	"context"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
)

type compareIn struct {
	Against schema.TargetName `yaml:"against,required" doc:"Target that the step's own target is compared with."`
	Mode    string            `yaml:"mode" enum:"sample,full" doc:"sample: some keys of each side; full: all keys of both." default:"sample"`
	Sample  int               `yaml:"sample" doc:"In mode sample, how many keys are taken from each side." default:"1000"`
	Rounds  int               `yaml:"rounds" doc:"How often a key is looked at before a difference counts: replication under way makes differences that pass." default:"3"`
	Pause   time.Duration     `yaml:"pause" doc:"Pause between rounds." default:"1s"`
	Match   string            `yaml:"match" doc:"Only keys that match this pattern, as of SCAN MATCH."`
	Slots   schema.Slots      `yaml:"slots" doc:"Only keys of these hash slots: CRC32 (IEEE) of the key, or of what stands between its first { and the next }, modulo slot_num, as Codis and Pika hash."`
	SlotNum int               `yaml:"slot_num" doc:"Number of hash slots that slots counts in." default:"1024"`
	TTL     time.Duration     `yaml:"ttl_tolerance" doc:"Largest difference between the two sides' remaining times to live that does not count. Both sides are not asked at the same instant." default:"2s"`
}

type compareOut struct {
	Compared   int64     `yaml:"compared" doc:"Keys of the step's own target that were compared." min:"0"`
	Missing    int64     `yaml:"missing" doc:"Of these, keys that the other side lacks." min:"0"`
	Extra      int64     `yaml:"extra" doc:"Keys of the other side that the own target lacks: of all in mode full, of the sample taken there in mode sample." min:"0"`
	Values     int64     `yaml:"value_mismatches" doc:"Keys of one type with different values." min:"0"`
	Types      int64     `yaml:"type_mismatches" doc:"Keys of different types." min:"0"`
	TTLs       int64     `yaml:"ttl_mismatches" doc:"Keys whose times to live differ by more than ttl_tolerance, or that expire on one side only." min:"0"`
	KeysSource *int64    `yaml:"keys_source" doc:"Keys in the step's own target: those that were scanned in mode full with match or slots, otherwise all of its database (DBSIZE); null where the server does not say." min:"0"`
	KeysOther  *int64    `yaml:"keys_other" doc:"The same of the other side." min:"0"`
	Ratio      *float64  `yaml:"ratio" doc:"Share of the compared keys that are the same on both sides, 0 to 1; null when none was compared." min:"0"`
	Examples   []example `yaml:"examples" doc:"The first 20 differences."`
}

type example struct {
	Key     string `yaml:"key" doc:"The key, shortened to 100 bytes."`
	Problem string `yaml:"problem" doc:"missing, extra, type, value or ttl."`
	Source  string `yaml:"source" doc:"What the own target has: a type, a size, a time to live, or where values differ the element. No whole values."`
	Other   string `yaml:"other" doc:"What the other side has."`
}

func compare() *steps.Kind[compareIn, compareOut] {
	return &steps.Kind[compareIn, compareOut]{
		Name: "redis.compare",
		Doc: "Compares the keys of two servers: presence, type, value and time to live. Sends SCAN (RANDOMKEY for a sample), TYPE, PTTL, and the reading commands of each type, in batches; " +
			"values of many elements are read in pieces, so no server is held up by one large key. It does not fail by itself: write expect.",
		Effect:  steps.Read,
		On:      speaks(),
		Example: `{id: verify, uses: redis.compare, target: redis1, with: {against: redis2, mode: full}, expect: "missing == 0 && extra == 0 && value_mismatches == 0"}`,
		Pitfalls: []string{
			"A key that differs is looked at again in later rounds: what expired, was written or was still on its way in between does not count. At most 10000 differences of a run are looked at again: more than that is not replication under way.",
			"A sample finds what is wrong everywhere, not one lost key: only mode full with equal numbers of keys says that nothing is missing.",
			"Two sides that are written to independently never agree; compare a replica, or while writes are paused.",
			"Consumer groups of streams are not compared. Module types are compared by DUMP, which differs between releases.",
			"Only the database number of each target is compared.",
		},
		Valid: func(in compareIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			if in.Sample < 1 && !unknown("sample") {
				p = append(p, steps.Problem{Input: "sample", Message: "one key at least"})
			}
			if in.Rounds < 1 && !unknown("rounds") {
				p = append(p, steps.Problem{Input: "rounds", Message: "one round at least"})
			}
			if in.TTL < 0 && !unknown("ttl_tolerance") {
				p = append(p, steps.Problem{Input: "ttl_tolerance", Message: "a tolerance is not negative"})
			}
			if !unknown("slots") && !unknown("slot_num") && len(in.Slots) > 0 && in.SlotNum > 0 && slices.Max(in.Slots) >= in.SlotNum {
				p = append(p, steps.Problem{Input: "slots", Message: "slot " + strconv.Itoa(slices.Max(in.Slots)) + " of " + strconv.Itoa(in.SlotNum) + " (0 to " + strconv.Itoa(in.SlotNum-1) + ")"})
			}
			return p
		},
		Read: readCompare,
	}
}

const (
	batchKeys   = 200   // keys of one round trip: bounds memory and what one request asks of a server
	maxSuspects = 10000 // differences that are looked at again
	maxExamples = 20
)

// comparison is one run of the kind.
type comparison struct {
	in            compareIn
	source, other *Client
	out           compareOut
	suspects      []suspect // looked at again at the end
	wanted        map[int]bool
	scanned       [2]int64
}

// suspect is a key that differed.
type suspect struct {
	key  string
	diff difference
	side int // 0: found on the source; 1: found on the other side
}

// difference is why two keys are not the same; the zero difference: they are.
type difference struct{ problem, source, other string }

func readCompare(ctx context.Context, v steps.View, in compareIn) (compareOut, error) {
	source, err := view(ctx, v, "")
	if err != nil {
		return compareOut{}, err
	}
	other, err := view(ctx, v, string(in.Against))
	if err != nil {
		return compareOut{}, err
	}
	if in.SlotNum <= 0 {
		in.SlotNum = 1024
	}
	c := &comparison{in: in, source: source, other: other, out: compareOut{Examples: []example{}}}
	if len(in.Slots) > 0 {
		c.wanted = map[int]bool{}
		for _, s := range in.Slots {
			c.wanted[s] = true
		}
	}
	if c.out.KeysSource, err = dbSize(ctx, source); err != nil {
		return compareOut{}, err
	}
	if c.out.KeysOther, err = dbSize(ctx, other); err != nil {
		return compareOut{}, err
	}
	if err := c.run(ctx, v); err != nil {
		return compareOut{}, err
	}
	if n := c.out.Compared; n > 0 {
		bad := c.out.Missing + c.out.Values + c.out.Types + c.out.TTLs
		ratio := float64(n-bad) / float64(n)
		c.out.Ratio = &ratio
	}
	if in.Mode == "full" && (in.Match != "" || c.wanted != nil) {
		c.out.KeysSource, c.out.KeysOther = &c.scanned[0], &c.scanned[1]
	}
	return c.out, nil
}

// dbSize is nil where the server does not say.
func dbSize(ctx context.Context, c *Client) (*int64, error) {
	if c.dialect.StaleSize {
		return nil, nil
	}
	r, err := c.Do(ctx, "DBSIZE")
	if err != nil {
		if unsupported(err) {
			return nil, nil
		}
		return nil, err
	}
	n, err := r.Int()
	if err != nil {
		return nil, nil //nolint:nilerr // some releases of Pika print a table here
	}
	return &n, nil
}

func (c *comparison) run(ctx context.Context, v steps.View) error {
	total := float64(0)
	if c.out.KeysSource != nil && c.out.KeysOther != nil {
		total = float64(*c.out.KeysSource + *c.out.KeysOther)
		if c.in.Mode != "full" {
			total = min(total, float64(2*c.in.Sample))
		}
	}
	done := 0
	progress := func(n int) {
		done += n
		v.Progress(steps.Progress{Done: float64(done), Total: max(total, float64(done)), Unit: "keys"})
	}
	err := c.keys(ctx, c.source, c.out.KeysSource, 0, func(keys []string) error {
		diffs, err := c.compareKeys(ctx, keys)
		if err != nil {
			return err
		}
		c.out.Compared += int64(len(keys))
		c.note(keys, diffs, 0)
		progress(len(keys))
		return nil
	})
	if err != nil {
		return err
	}
	err = c.keys(ctx, c.other, c.out.KeysOther, 1, func(keys []string) error {
		diffs, err := c.extras(ctx, keys)
		if err != nil {
			return err
		}
		c.note(keys, diffs, 1)
		progress(len(keys))
		return nil
	})
	if err != nil {
		return err
	}
	return c.again(ctx, v)
}

// note keeps what differs for another look, or counts it where there is no room for more.
func (c *comparison) note(keys []string, diffs []difference, side int) {
	for i, d := range diffs {
		switch {
		case d.problem == "":
		case len(c.suspects) < maxSuspects && c.in.Rounds > 1:
			c.suspects = append(c.suspects, suspect{keys[i], d, side})
		default:
			c.count(suspect{keys[i], d, side})
		}
	}
}

// again looks at the suspects in further rounds and counts what differs in all of them.
func (c *comparison) again(ctx context.Context, v steps.View) error {
	left := c.suspects
	for round := 1; round < c.in.Rounds && len(left) > 0; round++ {
		if err := v.Sleep(ctx, c.in.Pause); err != nil {
			return err
		}
		var still []suspect
		for batch := range slices.Chunk(left, batchKeys) {
			for side, look := range []func(context.Context, []string) ([]difference, error){c.compareKeys, c.extras} {
				var keys []string
				for _, s := range batch {
					if s.side == side {
						keys = append(keys, s.key)
					}
				}
				diffs, err := look(ctx, keys)
				if err != nil {
					return err
				}
				for i, d := range diffs {
					if d.problem != "" {
						still = append(still, suspect{keys[i], d, side})
					}
				}
			}
		}
		left = still
	}
	for _, s := range left {
		c.count(s)
	}
	return nil
}

func (c *comparison) count(s suspect) {
	switch s.diff.problem {
	case "missing":
		c.out.Missing++
	case "extra":
		c.out.Extra++
	case "type":
		c.out.Types++
	case "value":
		c.out.Values++
	case "ttl":
		c.out.TTLs++
	}
	if len(c.out.Examples) < maxExamples {
		c.out.Examples = append(c.out.Examples, example{short(s.key, 100), s.diff.problem, s.diff.source, s.diff.other})
	}
}

// keys calls f with batches of the keys wanted: all, or a sample.
func (c *comparison) keys(ctx context.Context, from *Client, size *int64, side int, f func([]string) error) error {
	sample := c.in.Mode != "full"
	if sample && c.in.Match == "" && c.wanted == nil && size != nil && *size > int64(c.in.Sample) {
		ok, err := c.random(ctx, from, f)
		if ok || err != nil {
			return err
		}
	}
	left := c.in.Sample
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		c.scanned[side] += int64(len(batch))
		err := f(batch)
		batch = batch[:0]
		return err
	}
	take := func(keys []string) (bool, error) {
		for _, k := range keys {
			// SCAN may give a key twice; within a batch that is cheap to see, further apart it is compared again
			if !c.wants(k) || slices.Contains(batch, k) {
				continue
			}
			batch = append(batch, k)
			if left--; sample && left == 0 {
				return true, nil
			}
			if len(batch) == batchKeys {
				if err := flush(); err != nil {
					return false, err
				}
			}
		}
		return false, nil
	}
	err := c.scanKeys(ctx, from, []string{"SCAN"}, take)
	if e, ok := Answered(err); ok && strings.Contains(e.Text, "not supported in current configuration") {
		err = c.scanSlots(ctx, from, take)
	}
	if err != nil {
		return err
	}
	return flush()
}

// scanKeys gives all keys that a scanning command finds to take, until that has enough.
func (c *comparison) scanKeys(ctx context.Context, from *Client, command []string, take func([]string) (bool, error)) error {
	for cursor := "0"; ; {
		args := append(slices.Clone(command), cursor)
		if c.in.Match != "" {
			args = append(args, "MATCH", c.in.Match)
		}
		r, err := from.Do(ctx, append(args, "COUNT", strconv.Itoa(batchKeys))...)
		if err != nil {
			return err
		}
		next, keys, err := scanned(r)
		if err != nil {
			return err
		}
		if enough, err := take(keys); err != nil || enough {
			return err
		}
		if cursor = next; cursor == "0" {
			return nil
		}
	}
}

// scanSlots scans a Pika in mode sharding, which has no SCAN for all of its keys, slot by slot.
func (c *comparison) scanSlots(ctx context.Context, from *Client, take func([]string) (bool, error)) error {
	if len(c.in.Slots) == 0 {
		return steps.Precondition("compare the keys of %s: a Pika in mode sharding gives its keys by slots alone", from.Addr()).
			WithHint("slots: those that both sides hold")
	}
	enough := false
	for _, slot := range c.in.Slots {
		err := c.scanKeys(ctx, from, []string{"SLOTSSCAN", strconv.Itoa(slot)}, func(keys []string) (bool, error) {
			var err error
			enough, err = take(keys)
			return enough, err
		})
		if err != nil || enough {
			return err
		}
	}
	return nil
}

func scanned(r Reply) (string, []string, error) {
	items, err := r.Items()
	if err != nil {
		return "", nil, err
	}
	if len(items) != 2 {
		return "", nil, r.unexpected("a cursor and a list")
	}
	cursor, err := items[0].Text()
	if err != nil {
		return "", nil, err
	}
	keys, err := items[1].Texts()
	return cursor, keys, err
}

// random calls f with a sample taken by RANDOMKEY; false where the server has none.
func (c *comparison) random(ctx context.Context, from *Client, f func([]string) error) (bool, error) {
	seen := map[string]bool{}
	// A small database answers with the same keys again and again.
	for tries := 0; tries < 10*c.in.Sample && len(seen) < c.in.Sample; {
		n := min(batchKeys, c.in.Sample-len(seen))
		tries += n
		cmds := make([][]string, n)
		for i := range cmds {
			cmds[i] = []string{"RANDOMKEY"}
		}
		replies, err := from.Read(ctx, cmds...)
		if err != nil {
			return false, err
		}
		var batch []string
		for _, r := range replies {
			if unsupported(r.Err()) && len(seen) == 0 {
				return false, nil
			}
			k, err := r.Text()
			if err != nil {
				return false, err
			}
			if !r.IsNull() && !seen[k] {
				seen[k] = true
				batch = append(batch, k)
			}
		}
		if len(batch) == 0 {
			continue
		}
		if err := f(batch); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *comparison) wants(key string) bool {
	if c.source.internal(key) || c.other.internal(key) {
		return false
	}
	return c.wanted == nil || c.wanted[slotOf(key, c.in.SlotNum)]
}

// internal tells a key that the server keeps for itself.
func (c *Client) internal(key string) bool {
	return c.dialect.Internal != "" && strings.HasPrefix(key, c.dialect.Internal)
}

// slotOf hashes as Codis and Pika do: an empty tag is a tag.
func slotOf(key string, slots int) int {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j >= 0 {
			key = key[i+1 : i+1+j]
		}
	}
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(slots))
}

// extras tells which keys of the other side the source lacks.
func (c *comparison) extras(ctx context.Context, keys []string) ([]difference, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	here, err := describeKeys(ctx, c.source, keys)
	if err != nil {
		return nil, err
	}
	diffs := make([]difference, len(keys))
	var absent []int
	for i := range keys {
		if here[i].typ == "none" {
			absent = append(absent, i)
		}
	}
	if len(absent) == 0 {
		return diffs, nil
	}
	there, err := describeKeys(ctx, c.other, pick(keys, absent)) // it may have expired there too
	if err != nil {
		return nil, err
	}
	for j, i := range absent {
		if there[j].typ != "none" {
			diffs[i] = difference{"extra", "none", there[j].typ}
		}
	}
	return diffs, nil
}

func pick(keys []string, at []int) []string {
	out := make([]string, len(at))
	for j, i := range at {
		out[j] = keys[i]
	}
	return out
}

// described is what is asked of a key first.
type described struct {
	typ string // none: there is no such key
	ttl int64  // milliseconds; -1: it does not expire, -2: it is gone
}

func describeKeys(ctx context.Context, c *Client, keys []string) ([]described, error) {
	cmds := make([][]string, 0, 2*len(keys))
	for _, k := range keys {
		cmds = append(cmds, []string{"TYPE", k}, []string{"PTTL", k})
	}
	replies, err := c.Read(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	out := make([]described, len(keys))
	for i := range keys {
		if out[i].typ, err = replies[2*i].Text(); err != nil {
			return nil, err
		}
		if out[i].ttl, err = replies[2*i+1].Int(); err != nil {
			return nil, err
		}
		if out[i].ttl == -2 {
			out[i].typ = "none"
		}
	}
	return out, nil
}

// compareKeys tells for each key of the source how the other side's differs.
func (c *comparison) compareKeys(ctx context.Context, keys []string) ([]difference, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	here, err := describeKeys(ctx, c.source, keys)
	if err != nil {
		return nil, err
	}
	there, err := describeKeys(ctx, c.other, keys)
	if err != nil {
		return nil, err
	}
	diffs := make([]difference, len(keys))
	var values []valueKey
	for i, k := range keys {
		a, b := here[i], there[i]
		switch {
		case a.typ == "none": // gone since it was found: no loss on the other side
		case b.typ == "none" && a.ttl >= 0 && time.Duration(a.ttl)*time.Millisecond <= c.in.TTL: // about to expire
		case b.typ == "none":
			diffs[i] = difference{"missing", a.typ, "none"}
		case a.typ != b.typ:
			diffs[i] = difference{"type", a.typ, b.typ}
		case !c.sameTTL(a.ttl, b.ttl):
			diffs[i] = difference{"ttl", ttlText(a.ttl), ttlText(b.ttl)}
			values = append(values, valueKey{i, k, a.typ})
		default:
			values = append(values, valueKey{i, k, a.typ})
		}
	}
	err = c.compareValues(ctx, values, diffs)
	return diffs, err
}

func (c *comparison) sameTTL(a, b int64) bool {
	if a < 0 || b < 0 {
		return a == b
	}
	d := time.Duration(a-b) * time.Millisecond
	return d.Abs() <= c.in.TTL
}

func ttlText(ms int64) string {
	if ms < 0 {
		return "no expiry"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func short(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return strings.ToValidUTF8(s[:n], "\ufffd") + "…"
}

// gone tells an answer that means the key was taken away or became another type since it was looked at.
func gone(err error) bool {
	e, ok := Answered(err)
	return ok && (e.Code() == "WRONGTYPE" || strings.Contains(e.Text, "no such key"))
}

var errGone = errors.New("the key was changed meanwhile")
