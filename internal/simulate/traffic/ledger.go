package traffic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// kinds of keys, by turns: most are strings whose value is a number that grows.
var kinds = []kind{text, text, text, counter, hash, text, expiring, removed, list, set}

type kind string

const (
	text     kind = "string"
	expiring kind = "string with TTL" // an hour: it is there at the end
	removed  kind = "string, now and then deleted"
	counter  kind = "counter"
	hash     kind = "hash"
	list     kind = "list"
	set      kind = "set"
)

// longest is how long a list or set grows before its owner deletes it and begins anew.
const longest = 40

// record is what is known of one key. acked is the number of its last acknowledged write, and what it left there: live
// says whether a value. Writes of unknown outcome since then may or may not be there.
type record struct {
	name   string
	kind   kind
	tagged bool
	seq    int64 // the last number used
	acked  int64
	live   bool
	items  []string // acknowledged members of a list or set, in order
	maybe  []op     // unknown outcomes since the last acknowledged write; of a collection since it was made
	late   []op     // unknown outcomes that nobody waits for any more: they may come at any later time
}

// open are the writes that may be in the key's value or not.
func (r *record) open() []op { return append(r.late[:len(r.late):len(r.late)], r.maybe...) }

// op is one write of a client to its key.
type op struct {
	args   []string
	n      int64
	remove bool
}

// Ledger knows every acknowledged write. It may be read while the load runs.
type Ledger struct {
	mu        sync.Mutex
	clock     clock.Clock
	records   []*record
	acks      int64
	unsettled int64
	reads     int64
	stale     []Finding
	lost      []Finding
	extra     []Finding
	errors    map[string]int64
	waiting   map[int]time.Time // the clients that wait for an answer, and since when
	blocked   map[int]time.Duration
	longest   time.Duration // of keys without a tag
	tagged    time.Duration // of keys with one
	waits     histogram
	changed   chan struct{}
}

func newLedger(c clock.Clock) *Ledger {
	return &Ledger{clock: c, errors: map[string]int64{}, waiting: map[int]time.Time{}, blocked: map[int]time.Duration{}, changed: make(chan struct{})}
}

func (l *Ledger) key(name string, k kind, tagged bool) *record {
	r := &record{name: name, kind: k, tagged: tagged}
	l.records = append(l.records, r)
	return r
}

// next is the key's next write. Only its owner asks.
func (r *record) next(rnd *rand.Rand) op {
	r.seq++
	n := strconv.FormatInt(r.seq, 10)
	o := op{n: r.seq}
	switch {
	case r.kind == text:
		o.args = []string{"SET", r.name, n}
	case r.kind == expiring:
		o.args = []string{"SET", r.name, n, "EX", "3600"}
	case r.kind == counter:
		o.args = []string{"INCR", r.name}
	case r.kind == hash:
		o.args = []string{"HMSET", r.name, "n", n, "f" + strconv.Itoa(rnd.IntN(5)), n}
	case r.kind == removed && r.live && rnd.IntN(3) == 0, (r.kind == list || r.kind == set) && len(r.items)+len(r.open()) >= longest:
		o.args, o.remove = []string{"DEL", r.name}, true
	case r.kind == removed:
		o.args = []string{"SET", r.name, n}
	case r.kind == list:
		o.args = []string{"RPUSH", r.name, n}
	case r.kind == set:
		o.args = []string{"SADD", r.name, n}
	}
	return o
}

// read is how the key's whole value is read.
func (r *record) read() []string {
	switch r.kind {
	case hash:
		return []string{"HGET", r.name, "n"}
	case list:
		return []string{"LRANGE", r.name, "0", "-1"}
	case set:
		return []string{"SMEMBERS", r.name}
	}
	return []string{"GET", r.name}
}

func (l *Ledger) begin(client int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	l.waiting[client] = now
	return now
}

func (l *Ledger) end(client int, r *record, begun time.Time) time.Duration {
	d := l.clock.Now().Sub(begun)
	delete(l.waiting, client)
	if r.tagged {
		l.tagged = max(l.tagged, d)
	} else {
		l.longest = max(l.longest, d)
	}
	l.waits.add(d)
	close(l.changed)
	l.changed = make(chan struct{})
	return d
}

func (l *Ledger) acknowledge(client int, r *record, o op, v resp.Value, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(client, r, begun)
	delete(l.blocked, client)
	l.acks++
	switch r.kind {
	case counter:
		// The answer tells how many of the unknown ones took place.
		low, high := r.acked+1, r.acked+1+int64(len(r.open()))
		if v.Int < low {
			l.lost = append(l.lost, Finding{Key: r.name, Kind: string(r.kind), Want: fmt.Sprintf("INCR to answer at least %d", low), Got: v.String()})
		}
		if v.Int > high {
			l.extra = append(l.extra, Finding{Key: r.name, Kind: string(r.kind), Want: fmt.Sprintf("INCR to answer at most %d", high), Got: v.String()})
		}
		r.acked, r.live, r.maybe = v.Int, true, nil
		return
	case list, set:
		if o.remove {
			r.items, r.maybe, r.live = nil, nil, false
			return
		}
		r.items, r.live = append(r.items, strconv.FormatInt(o.n, 10)), true
		return
	}
	r.acked, r.live, r.maybe = o.n, !o.remove, nil
}

func (l *Ledger) unknown(client int, r *record, o op, begun time.Time, unanswered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.end(client, r, begun)
	l.unsettled++
	if unanswered { // until its next acknowledgement it is a client without service
		l.blocked[client] += d
		r.late = append(r.late, o)
		return
	}
	r.maybe = append(r.maybe, o)
}

func (l *Ledger) abandon(client int, r *record, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked[client] += l.end(client, r, begun)
}

// unserved is a client whose read got no answer: without service until its next acknowledgement.
func (l *Ledger) unserved(client int, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked[client] += l.clock.Now().Sub(begun)
}

func (l *Ledger) failed(code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[code]++
}

// seen judges a read that the key's owner made: an older value than one acknowledged before is stale.
func (l *Ledger) seen(r *record, v resp.Value, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if lost, _ := r.judge(v); lost != "" {
		l.stale = append(l.stale, Finding{Key: r.name, Kind: string(r.kind), Want: lost, Got: v.String(), Addr: addr})
	}
}

// judge compares a value with what the ledger knows. lost says what had to be there and is not, extra what is there and was never written.
func (r *record) judge(v resp.Value) (lost, extra string) {
	switch r.kind {
	case list, set:
		return r.judgeItems(v)
	case counter:
		n := int64(0)
		if v.Kind != resp.Null {
			n, _ = strconv.ParseInt(v.Str, 10, 64)
		}
		high := r.acked + int64(len(r.open()))
		switch {
		case n < r.acked:
			return fmt.Sprintf("at least %d", r.acked), ""
		case n > high:
			return "", fmt.Sprintf("at most %d", high)
		}
		return "", ""
	}
	here := v.Kind != resp.Null
	n, _ := strconv.ParseInt(v.Str, 10, 64)
	if here == r.live && (!here || n == r.acked) {
		return "", ""
	}
	for _, o := range r.open() {
		if here != o.remove && (!here || n == o.n) {
			return "", ""
		}
	}
	want := "no key"
	if r.live {
		want = strconv.FormatInt(r.acked, 10)
	}
	if here && n > r.acked {
		return "", want
	}
	return want, ""
}

// judgeItems: every acknowledged member is there, a list's in their order; what else is there has an unknown outcome.
func (r *record) judgeItems(v resp.Value) (lost, extra string) {
	got := v.Strings()
	for _, o := range r.open() {
		if o.remove && len(got) < len(r.items) {
			return "", "" // a deletion of unknown outcome: it is gone, or part of it is new
		}
	}
	if r.kind == set {
		slices.SortFunc(got, func(a, b string) int { return len(a) - len(b) + strings.Compare(a, b)*boolInt(len(a) == len(b)) })
	}
	i := 0
	for _, g := range got {
		switch {
		case i < len(r.items) && g == r.items[i]:
			i++
		case !slices.ContainsFunc(r.open(), func(o op) bool { return strconv.FormatInt(o.n, 10) == g }):
			if i < len(r.items) && slices.Contains(r.items[i:], g) {
				return fmt.Sprintf("%s before %s", r.items[i], g), ""
			}
			return "", fmt.Sprintf("no %s among %d acknowledged", g, len(r.items))
		}
	}
	if i < len(r.items) {
		return fmt.Sprintf("%d members, %s among them", len(r.items), r.items[i]), ""
	}
	return "", ""
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Finding is one thing that is not as it was acknowledged.
type Finding struct {
	Key, Kind, Want, Got string
	Addr                 string // of a stale read
}

func (f Finding) String() string {
	at := ""
	if f.Addr != "" {
		at = " at " + f.Addr
	}
	return fmt.Sprintf("%s (%s)%s: want %s, got %q", f.Key, f.Kind, at, f.Want, f.Got)
}

// Stats are the numbers of a load, as clients saw it. Times are the world's.
type Stats struct {
	Acknowledged, Unknown, Reads int64
	Errors                       map[string]int64 // refusals and lost answers, by code
	MaxWait                      time.Duration    // the longest time that a client waited for one write, retries included
	MaxWaitTagged                time.Duration    // MaxWait of the keys with a tag (Options.Tags)
	MaxWaitUntagged              time.Duration    // MaxWait of the others
	P50, P99, P999               time.Duration
	Waiting                      map[int]time.Duration // clients without an answer now, and for how long
}

// Stats of the load so far.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Acknowledged: l.acks, Unknown: l.unsettled, Reads: l.reads, Errors: maps.Clone(l.errors),
		MaxWait: max(l.longest, l.tagged), MaxWaitTagged: l.tagged, MaxWaitUntagged: l.longest,
		P50: l.waits.quantile(0.5), P99: l.waits.quantile(0.99), P999: l.waits.quantile(0.999), Waiting: map[int]time.Duration{},
	}
	for c, since := range l.waiting {
		s.Waiting[c] = l.clock.Now().Sub(since)
	}
	return s
}

// WaitAcknowledged blocks until n writes more than now have been acknowledged.
func (l *Ledger) WaitAcknowledged(ctx context.Context, n int64) error {
	l.mu.Lock()
	want := l.acks + n
	for l.acks < want {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.mu.Lock()
	}
	l.mu.Unlock()
	return nil
}

// Report is the verdict over a load.
type Report struct {
	Stats
	Checked int                   // keys compared
	Lost    []Finding             // acknowledged and not readable
	Stale   []Finding             // reads older than an acknowledged write
	Extra   []Finding             // there, though never written, or twice
	Blocked map[int]time.Duration // clients without service when the load was stopped
}

// Check reads every key of the ledger and compares. The load must have been stopped. With an error the report holds what
// is known without the values that were not read.
func (t *Traffic) Check(ctx context.Context, read Reader) (Report, error) {
	l := t.ledger
	l.mu.Lock()
	r := Report{Lost: slices.Clone(l.lost), Stale: slices.Clone(l.stale), Extra: slices.Clone(l.extra), Blocked: maps.Clone(l.blocked)}
	l.mu.Unlock()
	r.Stats = l.Stats()
	for _, rec := range l.records {
		one, cancel := context.WithTimeoutCause(ctx, readLimit, errors.New("no answer within "+readLimit.String()))
		v, err := read(one, rec.read()...)
		cancel()
		if err != nil {
			return r, fmt.Errorf("check: %s %s: %w", rec.read()[0], rec.name, err)
		}
		r.Checked++
		lost, extra := rec.judge(v)
		if lost != "" {
			r.Lost = append(r.Lost, Finding{Key: rec.name, Kind: string(rec.kind), Want: lost, Got: v.String()})
		}
		if extra != "" {
			r.Extra = append(r.Extra, Finding{Key: rec.name, Kind: string(rec.kind), Want: extra, Got: v.String()})
		}
	}
	return r, nil
}

// readLimit is how long the check waits for one value, in real time: a slot that is held is never answered for.
const readLimit = 5 * time.Second

// Broken names the invariants of a world file that do not hold, with an example each: no-lost-write, no-stale-read,
// clients-served. Those it does not know are another checker's.
func (r Report) Broken() map[string]string {
	out := map[string]string{}
	note := func(name string, fs []Finding) {
		if len(fs) > 0 {
			out[name] = fmt.Sprintf("%d, such as %s", len(fs), fs[0])
		}
	}
	note("no-lost-write", r.Lost)
	note("no-stale-read", r.Stale)
	for _, c := range slices.Sorted(maps.Keys(r.Blocked)) {
		out["clients-served"] = fmt.Sprintf("client %d was without an answer for %s when the load ended", c, r.Blocked[c].Round(time.Millisecond))
		break
	}
	return out
}

// histogram counts times in buckets of 2 per cent, from a microsecond on: percentiles of any number of writes in little memory.
type histogram struct {
	counts map[int]int64
	total  int64
}

const bucketWidth = 1.02

func (h *histogram) add(d time.Duration) {
	if h.counts == nil {
		h.counts = map[int]int64{}
	}
	us := max(float64(d)/float64(time.Microsecond), 1)
	h.counts[int(math.Log(us)/math.Log(bucketWidth))]++
	h.total++
}

func (h *histogram) quantile(q float64) time.Duration {
	left := int64(math.Ceil(q * float64(h.total)))
	for _, b := range slices.Sorted(maps.Keys(h.counts)) {
		if left -= h.counts[b]; left <= 0 {
			return time.Duration(math.Pow(bucketWidth, float64(b+1)) * float64(time.Microsecond)).Round(time.Microsecond)
		}
	}
	return 0
}
