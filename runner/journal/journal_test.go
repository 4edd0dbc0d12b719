package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type started struct {
	Format int    `json:"format"`
	Plan   string `json:"plan,omitempty"`
}

type finished struct {
	Status  string         `json:"status"`
	Outputs map[string]any `json:"outputs,omitempty"`
}

// disk is a file that remembers what a power cut would leave of it.
type disk struct {
	mu       sync.Mutex
	data     []byte
	durable  int // bytes that were there at the last sync
	read     int
	syncs    int
	onSync   func() error
	onWrite  func([]byte) (int, error)
	isClosed bool
}

func (d *disk) open(string, int, fs.FileMode) (File, error) {
	d.read, d.isClosed = 0, false
	return d, nil
}

func (d *disk) Read(b []byte) (int, error) {
	if d.read == len(d.data) {
		return 0, io.EOF
	}
	n := copy(b, d.data[d.read:])
	d.read += n
	return n, nil
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := len(b), error(nil)
	if d.onWrite != nil {
		n, err = d.onWrite(b)
	}
	d.data = append(d.data, b[:n]...)
	return n, err
}

func (d *disk) Truncate(size int64) error {
	d.data = d.data[:size]
	d.durable = min(d.durable, len(d.data))
	return nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	d.syncs++
	n, onSync := len(d.data), d.onSync
	d.mu.Unlock()
	if onSync != nil {
		if err := onSync(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.durable = n
	d.mu.Unlock()
	return nil
}

// kept is a copy of what a power cut would leave, and whether that is all.
func (d *disk) kept() ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.data[:d.durable]), d.durable == len(d.data)
}

func (d *disk) Close() error { d.isClosed = true; return nil }

// onDisk is a journal on a disk of memory, with its first record.
func onDisk(t testing.TB, d *disk, o Options) *Journal {
	t.Helper()
	o.Open = d.open
	j, err := Create(filepath.Join(t.TempDir(), "journal.jsonl"), o)
	check(t, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(t, err)
	return j
}

// sample is the bytes of a small journal, and where its lines end.
func sample(t testing.TB) (data []byte, ends []int) {
	t.Helper()
	d := &disk{}
	j := onDisk(t, d, Options{Now: ticks()})
	for _, r := range []struct {
		typ, step string
		body      any
	}{
		{"step-started", "a", nil},
		{"step-finished", "a", finished{"ok", map[string]any{"n": 12, "text": "a<b \"q\"\n"}}},
		{"step-started", `move[slot="7"]/é`, map[string]any{"attempt": 1}},
	} {
		_, err := j.Append(r.typ, r.step, r.body)
		check(t, err)
	}
	check(t, j.Close())
	for i, c := range d.data {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	return d.data, ends
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	var seen []Record
	o := Options{Now: ticks(), Hook: func(r Record) { seen = append(seen, r) }}
	j, err := Create(path, o)
	check(t, err)
	for i, r := range []struct {
		typ, step string
		body      any
		event     string
	}{
		{"run-started", "", started{Format: 1, Plan: "p<&>"}, `"type":"run-started","format":1,"plan":"p<&>"}`},
		{"step-started", "a", nil, `"type":"step-started","step":"a"}`},
		{"step-finished", "b[x=\"é\"]\n", finished{Status: "ok"}, `"type":"step-finished","step":"b[x=\"é\"]\n","status":"ok"}`},
		{"decision", "a", json.RawMessage(`{ "b": [1, {}] }`), `"type":"decision","step":"a","b":[1,{}]}`},
		{"step-observed", "a", raw(`{"v":-1.5e3}`), `"type":"step-observed","step":"a","v":-1.5e3}`},
	} {
		seq, err := j.Commit(r.typ, r.step, r.body)
		check(t, err)
		if seq != int64(i+1) {
			t.Errorf("record %d got seq %d", i+1, seq)
		}
		want := fmt.Sprintf(`{"seq":%d,"time":"2026-11-22T11:14:50.50%dZ",%s`, seq, seq, r.event)
		if got := string(seen[i].Event()); got != want {
			t.Errorf("event\n got %s\nwant %s", got, want)
		}
	}
	check(t, j.Close())

	info, err := os.Stat(path)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	j, h, err := Open(path, o)
	check(t, err)
	if diff := cmp.Diff(seen, h.Records); diff != "" {
		t.Errorf("history is not what the hook saw:\n%s", diff)
	}
	var f finished
	check(t, h.Records[2].Decode(&f))
	if f.Status != "ok" {
		t.Errorf("decoded %+v", f)
	}
	if err := h.Records[2].Decode(&[]int{}); err == nil || !strings.Contains(err.Error(), "record 3 (step-finished)") {
		t.Errorf("decode into the wrong type: %v", err)
	}
	seq, err := j.Commit("run-finished", "", nil)
	check(t, err)
	check(t, j.Close())
	s, err := Verify(path)
	check(t, err)
	if seq != 6 || s.Records != 6 || s.Torn != nil || len(s.Head) != 64 || s.Head == h.Head {
		t.Errorf("after going on: seq %d, %+v", seq, s)
	}
	if _, err := Create(path, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a journal: %v", err)
	}
}

// raw is a body that writes itself.
type raw string

func (r raw) AppendJSON(b []byte) ([]byte, error) { return append(b, r...), nil }

// The format is fixed: a journal of today must be readable for ever.
func TestGolden(t *testing.T) {
	data, _ := sample(t)
	const golden = `{"seq":1,"time":"2026-11-22T11:14:50.501Z","type":"run-started","format":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","crc":"cd77bdeb"}
{"seq":2,"time":"2026-11-22T11:14:50.502Z","type":"step-started","step":"a","prev":"3ca9fbe5bd2aa327ac66c036ef90d8bf1551ab5b1a4088a2a43c2ffa29ae9b1a","crc":"3ffb432f"}
`
	got := strings.SplitAfter(string(data), "\n")
	if got := strings.Join(got[:2], ""); got != golden {
		t.Errorf("the format has changed:\n got %s\nwant %s", got, golden)
	}
}

func TestRecordErrors(t *testing.T) {
	d := &disk{}
	j := onDisk(t, d, Options{Now: ticks()})
	before := string(d.data)
	for _, test := range []struct {
		typ, step string
		body      any
		want      string
	}{
		{"a", "", map[string]any{"seq": 1}, `"seq" belongs to the envelope`},
		{"a", "", map[string]any{"x": 1, "crc": 1}, `"crc" belongs to the envelope`},
		{"a", "", raw(`{"st\u0065p":1}`), `"step" belongs to the envelope`},
		{"a", "", map[string]any{"in": map[string]any{"time": 1}, "type": 2}, `"type" belongs`},
		{"a", "", []int{1}, "not a JSON object"},
		{"a", "", (*started)(nil), "not a JSON object"},
		{"a", "", raw("{\"a\":\n1}"), "not compact JSON"},
		{"a", "", raw(`{"a":1}}`), "not compact JSON"},
		{"a", "", raw(`{"a":01}`), "not compact JSON"},
		{"a", "", raw("{\"a\":\"\xff\"}"), "not UTF-8"},
		{"a", "", math.NaN(), "unsupported value"},
		{"a", "", raw(`{"a":"` + strings.Repeat("x", maxLine) + `"}`), "64 MiB"},
		{"A b", "", nil, "type"},
		{"", "", nil, "type"},
		{"a", "\xff", nil, "UTF-8"},
	} {
		_, err := j.Append(test.typ, test.step, test.body)
		if re, ok := errors.AsType[*RecordError](err); !ok || !strings.Contains(re.Error(), test.want) {
			t.Errorf("%.40v: got %v, want %s", test.body, err, test.want)
		}
	}
	if string(d.data) != before {
		t.Error("a record that was refused left something in the file")
	}
	if seq, err := j.Commit("a", "", map[string]any{"in": map[string]any{"time": 1}}); seq != 2 || err != nil {
		t.Errorf("the journal goes on with %d, %v", seq, err)
	}
	check(t, j.Close())

	for _, first := range []struct {
		typ  string
		body any
	}{{"step-started", started{Format: 1}}, {"run-started", nil}, {"run-started", started{Format: 2}}} {
		d := &disk{}
		j, err := Create(filepath.Join(t.TempDir(), "j"), Options{Open: d.open})
		check(t, err)
		if _, err := j.Append(first.typ, "", first.body); err == nil || len(d.data) > 0 {
			t.Errorf("first record %v: %v", first, err)
		}
		check(t, j.Close())
	}
}

func TestDamage(t *testing.T) {
	good, ends := sample(t)
	lines := bytes.SplitAfter(good, []byte("\n"))[:len(ends)]
	edit := func(n int, old, new string) []byte {
		out := bytes.Join(lines[:n], nil)
		out = append(out, bytes.Replace(lines[n], []byte(old), []byte(new), 1)...)
		return append(out, bytes.Join(lines[n+1:], nil)...)
	}
	// reseal gives a line a crc that fits, as an edit by hand may do.
	reseal := func(line string) []byte {
		head, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), prevKey)
		prev := genesis()
		copy(prev[:], line[len(head)+len(prevKey):])
		return append(appendTail([]byte(head), &prev), '\n')
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, test := range []struct {
		name   string
		data   []byte
		line   int
		reason string
	}{
		{"bad crc", edit(1, "step-started", "step-startex"), 2, "crc"},
		{"damaged last line with its newline", edit(3, "attempt", "attempx"), 4, "crc"},
		{"not JSON", edit(2, `{"seq"`, `["seq"`), 3, "not JSON"},
		{"garbage", join(lines[0], []byte("hello\n")), 2, "not JSON"},
		{"empty line", join(lines[0], []byte("\n"), lines[1]), 2, "an empty line"},
		{"NUL hole", join(lines[0], make([]byte, 4096), lines[1]), 2, "NUL"},
		{"seq gap", join(lines[0], lines[2]), 2, "the seq is 3, expected 2"},
		{"doubled line", join(lines[0], lines[1], lines[1]), 3, "the seq is 2, expected 3"},
		{"first is not seq 1", join(lines[1:]...), 1, "the seq is 2, expected 1"},
		{"edited with a crc that fits", join(lines[0], reseal(strings.Replace(string(lines[1]), `"a"`, `"b"`, 1)), lines[2]), 3, "chain is broken"},
		{"first prev", reseal(strings.Replace(string(lines[0]), `"prev":"0`, `"prev":"1`, 1)), 1, "beginning of a chain"},
		{"first type", reseal(strings.Replace(string(lines[0]), "run-started", "run-resumed", 1)), 1, "first record is run-resumed"},
		{"no format", reseal(strings.Replace(string(lines[0]), "format", "farmat", 1)), 1, "names no format"},
		{"white space", reseal(strings.Replace(string(lines[0]), `"format":1`, `"format": 1`, 1)), 1, "compact"},
		{"time in a zone", reseal(strings.Replace(string(lines[0]), `.501Z`, `.501+00:00`, 1)), 1, "not as a journal writes it"},
		{"time with idle zeros", reseal(strings.Replace(string(lines[0]), `.501Z`, `.5010Z`, 1)), 1, "not as a journal writes it"},
		{"reserved key", reseal(strings.Replace(string(lines[0]), `"format":1`, `"format":1,"seq":2`, 1)), 1, "belongs to the envelope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.jsonl")
			check(t, os.WriteFile(path, test.data, 0o600))
			_, _, err := Open(path, Options{})
			damage, ok := errors.AsType[*DamageError](err)
			if !ok || damage.Line != test.line || damage.Path != path || !strings.Contains(damage.Reason, test.reason) {
				t.Fatalf("got %v, want line %d: %s", err, test.line, test.reason)
			}
			if test.line > 1 && damage.Offset != int64(ends[test.line-2]) {
				t.Errorf("offset %d", damage.Offset)
			}
			if _, rerr := Verify(path); rerr == nil || rerr.Error() != err.Error() {
				t.Errorf("Verify says %v", rerr)
			}
			after, err := os.ReadFile(path)
			check(t, err)
			if !bytes.Equal(after, test.data) {
				t.Error("a damaged journal was written to")
			}
		})
	}

	t.Run("too long", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "journal.jsonl")
		check(t, os.WriteFile(path, lines[0], 0o600))
		check(t, os.Truncate(path, int64(ends[0]+maxLine+1))) // sparse
		_, err := Read(path)
		if damage, ok := errors.AsType[*DamageError](err); !ok || damage.Line != 2 || damage.Reason != "longer than 64 MiB" {
			t.Errorf("without a newline: %v", err)
		}
	})
	t.Run("format", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "journal.jsonl")
		check(t, os.WriteFile(path, reseal(strings.Replace(string(lines[0]), `"format":1`, `"format":2`, 1)), 0o600))
		_, _, err := Open(path, Options{})
		if f, ok := errors.AsType[*FormatError](err); !ok || *f != (FormatError{path, 2, 1}) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		for _, data := range [][]byte{nil, lines[0][:20]} {
			path := filepath.Join(t.TempDir(), "journal.jsonl")
			check(t, os.WriteFile(path, data, 0o600))
			if _, _, err := Open(path, Options{}); !errors.Is(err, ErrEmpty) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("missing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "journal.jsonl")
		_, _, err := Open(path, Options{})
		_, rerr := Read(path)
		if !errors.Is(err, fs.ErrNotExist) || !errors.Is(rerr, fs.ErrNotExist) {
			t.Errorf("got %v, %v", err, rerr)
		}
	})
	t.Run("time going backwards is none", func(t *testing.T) {
		d, now := &disk{}, epoch
		j := onDisk(t, d, Options{Now: func() time.Time { now = now.Add(-time.Hour); return now }})
		_, err := j.Append("a", "", nil)
		check(t, err)
		check(t, j.Close())
		_, err = parse("j", d.data)
		check(t, err)
	})
}

func TestEveryFlip(t *testing.T) {
	good, ends := sample(t)
	want, err := parse("j", bytes.Clone(good))
	check(t, err)
	for i := range good {
		for _, bit := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			data := bytes.Clone(good)
			data[i] ^= bit
			h, err := parse("j", data)
			if err != nil {
				continue
			}
			if i < ends[len(ends)-1]-1 || h.Torn == nil {
				t.Fatalf("byte %d ^ %#x goes unnoticed", i, bit)
			}
			if diff := cmp.Diff(want.Records[:len(ends)-1], h.Records); diff != "" {
				t.Fatalf("byte %d ^ %#x: %s", i, bit, diff)
			}
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	good, ends := sample(t)
	want, err := parse("j", bytes.Clone(good))
	check(t, err)
	for n := range len(good) + 1 {
		whole, size := 0, 0
		for _, end := range ends {
			if end <= n {
				whole, size = whole+1, end
			}
		}
		d := &disk{data: bytes.Clone(good[:n])}
		j, h, err := Open("j", Options{Open: d.open, Now: ticks()})
		if whole == 0 {
			if !errors.Is(err, ErrEmpty) || len(d.data) != n || !d.isClosed {
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		check(t, err)
		if diff := cmp.Diff(want.Records[:whole], h.Records); diff != "" {
			t.Fatalf("%d bytes: %s", n, diff)
		}
		var torn *Torn
		if n > size {
			torn = &Torn{Offset: int64(size), Bytes: int64(n - size)}
		}
		if diff := cmp.Diff(torn, h.Torn); diff != "" || len(d.data) != size || d.durable != size || h.Size != int64(size) {
			t.Fatalf("%d bytes: torn %v, left %d, durable %d", n, h.Torn, len(d.data), d.durable)
		}
		seq, err := j.Commit("run-resumed", "", nil)
		check(t, err)
		check(t, j.Close())
		if h, err := parse("j", bytes.Clone(d.data)); err != nil || seq != int64(whole+1) || len(h.Records) != whole+1 {
			t.Fatalf("%d bytes, gone on: %v", n, err)
		}
	}
}

// A tear that cannot be cut off, or a file that cannot be synced, must not be opened.
func TestOpenFails(t *testing.T) {
	good, _ := sample(t)
	d := &disk{data: good, onSync: func() error { return syscall.EIO }}
	if _, _, err := Open("j", Options{Open: d.open}); !errors.Is(err, syscall.EIO) || !d.isClosed {
		t.Errorf("got %v", err)
	}
}

func TestReadNeverWrites(t *testing.T) {
	good, ends := sample(t)
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	check(t, os.WriteFile(path, good[:len(good)-5], 0o400))
	h, err := Read(path)
	check(t, err)
	if len(h.Records) != len(ends)-1 || h.Torn == nil {
		t.Errorf("%d records, torn %v", len(h.Records), h.Torn)
	}
	left, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(left, good[:len(good)-5]) {
		t.Error("Read has written")
	}
}

// TestCrashes: whatever the disk keeps of what was not synced, every record for which Sync returned is there, in order.
func TestCrashes(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		d := &disk{}
		o := Options{Open: d.open, Now: ticks(), MaxDelay: time.Hour}
		var written []string // steps, in order
		acknowledged := 0    // how many of them Sync has promised
		var j *Journal
		number := 0
		do := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		record := func(commit bool) {
			number++
			typ, step, body := "step-finished", fmt.Sprint(number), any(finished{Status: strings.Repeat("x", number%50)})
			if len(written) == 0 {
				typ, body = "run-started", started{Format: 1}
			}
			write := j.Append
			if commit {
				write = j.Commit
			}
			seq, err := write(typ, step, body)
			do(err)
			written = append(written, step)
			if seq != int64(len(written)) {
				t.Fatalf("seq %d for record %d", seq, len(written))
			}
			if commit {
				acknowledged = len(written)
			}
		}
		start := func() {
			d.data, d.durable = nil, 0
			var err error
			j, err = Create(filepath.Join(dir, "j"), o)
			do(err)
		}
		start()
		for range rapid.IntRange(1, 40).Draw(t, "operations") {
			switch rapid.SampledFrom([]string{"append", "append", "commit", "sync", "crash"}).Draw(t, "operation") {
			case "append":
				record(false)
			case "commit":
				record(true)
			case "sync":
				if n := len(written); n > 0 {
					upTo := rapid.IntRange(1, n).Draw(t, "up to")
					do(j.Sync(t.Context(), int64(upTo)))
					acknowledged = max(acknowledged, upTo)
				}
			case "crash":
				if j.timer != nil {
					j.timer.Stop()
				}
				d.data = d.data[:rapid.IntRange(d.durable, len(d.data)).Draw(t, "bytes left")]
				d.durable = len(d.data) // it was read back from the disk
				var h *History
				var err error
				j, h, err = Open(filepath.Join(dir, "j"), o)
				if errors.Is(err, ErrEmpty) && acknowledged == 0 {
					written = nil
					start()
					continue
				}
				do(err)
				if len(h.Records) < acknowledged || len(h.Records) > len(written) {
					t.Fatalf("%d records are left; %d written, %d acknowledged", len(h.Records), len(written), acknowledged)
				}
				for i, r := range h.Records {
					if r.Step != written[i] {
						t.Fatalf("record %d is %s, not %s", i+1, r.Step, written[i])
					}
				}
				written, acknowledged = written[:len(h.Records)], len(h.Records)
			}
		}
		if j.timer != nil {
			j.timer.Stop()
		}
	})
}

func TestGroupCommit(t *testing.T) {
	const committers = 64
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		j := onDisk(t, d, Options{})
		gate := make(chan struct{})
		d.syncs, d.onSync = 0, func() error { <-gate; return nil }
		var wg sync.WaitGroup
		for i := range committers {
			wg.Go(func() {
				seq, err := j.Commit("step-started", fmt.Sprint(i), nil)
				if err != nil {
					t.Error(err)
				}
				kept, _ := d.kept()
				if h, err := parse("j", kept); err != nil || int64(len(h.Records)) < seq {
					t.Errorf("record %d was acknowledged and is not durable", seq)
				}
			})
		}
		synctest.Wait() // all are written, one sync is under way, everyone waits for it or the next
		close(gate)
		wg.Wait()
		if d.syncs > 3 {
			t.Errorf("%d syncs for %d records", d.syncs, committers)
		}
		check(t, j.Close())
	})
}

func TestSyncEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		j := onDisk(t, d, Options{})
		gate := make(chan struct{})
		d.onSync = func() error { <-gate; return nil }
		seq, err := j.Append("a", "", nil)
		check(t, err)
		cause := errors.New("lock lost")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- j.Sync(ctx, seq) }()
		synctest.Wait()
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
		close(gate)
		check(t, j.Sync(t.Context(), seq))
		if err := j.Sync(t.Context(), seq+1); err == nil {
			t.Error("a record that does not exist is durable")
		}
		check(t, j.Close())
	})
}

func TestMaxDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		j := onDisk(t, d, Options{MaxDelay: 50 * time.Millisecond})
		lazy := func() {
			_, err := j.Append("step-observed", "a", nil)
			check(t, err)
		}
		durable := func(want bool, when string) {
			t.Helper()
			synctest.Wait()
			if _, all := d.kept(); all != want {
				t.Errorf("%s: durable %v, want %v", when, all, want)
			}
		}
		for round := range 3 { // the timer comes again
			lazy()
			time.Sleep(30 * time.Millisecond)
			lazy()
			time.Sleep(19 * time.Millisecond)
			durable(false, fmt.Sprint("before, round ", round))
			time.Sleep(time.Millisecond)
			durable(true, fmt.Sprint("after, round ", round))
		}
		d.onSync = func() error { t.Error("an idle journal syncs"); return nil }
		time.Sleep(time.Hour)

		// A record that is appended while a sync is under way is not covered by it, and has its own delay.
		gate := make(chan struct{})
		d.onSync = func() error { <-gate; return nil }
		lazy()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait() // the sync hangs
		lazy()
		time.Sleep(time.Second)
		d.mu.Lock()
		d.onSync = nil
		d.mu.Unlock()
		close(gate)
		durable(true, "after a sync that took long")

		// A sync that covers an older record alone leaves the delay of the younger one running.
		gate = make(chan struct{})
		d.mu.Lock()
		d.onSync = func() error { <-gate; return nil }
		d.mu.Unlock()
		lazy()
		go j.Sync(t.Context(), j.Last())
		synctest.Wait()
		lazy()
		close(gate)
		durable(false, "after a sync for an older record")
		time.Sleep(50 * time.Millisecond)
		durable(true, "after the delay")

		lazy()
		check(t, j.Close())
		durable(true, "closed")
		if _, err := j.Append("a", "", nil); err == nil {
			t.Error("a closed journal takes a record")
		}
		check(t, j.Close())
	})
}

func TestDeadJournal(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(*disk)
		op   string
		err  error
	}{
		{"write", func(d *disk) { d.onWrite = func([]byte) (int, error) { return 0, syscall.ENOSPC } }, "write", syscall.ENOSPC},
		{"half a write", func(d *disk) { d.onWrite = func(b []byte) (int, error) { return len(b) / 2, syscall.ENOSPC } }, "write", syscall.ENOSPC},
		{"short write", func(d *disk) { d.onWrite = func(b []byte) (int, error) { return len(b) - 1, nil } }, "write", io.ErrShortWrite},
		{"sync", func(d *disk) { d.onSync = func() error { return syscall.EIO } }, "sync", syscall.EIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &disk{}
			hooked := 0
			j := onDisk(t, d, Options{Hook: func(Record) { hooked++ }})
			test.fail(d)
			_, first := j.Commit("step-started", "a", nil)
			if w, ok := errors.AsType[*WriteError](first); !ok || w.Op != test.op || w.Seq != 2 || !errors.Is(first, test.err) {
				t.Fatalf("got %v", first)
			}
			d.onWrite, d.onSync = nil, nil // the disk is fine again: too late
			size := len(d.data)
			_, err := j.Append("step-started", "b", nil)
			_, cerr := j.Commit("step-started", "b", func() {})
			for _, err := range []error{err, cerr, j.Sync(t.Context(), 1), j.Close(), j.Close()} {
				if err != first {
					t.Errorf("later: %v", err)
				}
			}
			if len(d.data) != size || !d.isClosed {
				t.Errorf("written after the failure, or not closed")
			}
			if test.op == "write" && hooked != 1 {
				t.Error("the hook saw a record that was not written")
			}
			_, h, err := Open("j", Options{Open: d.open})
			check(t, err)
			if n := len(h.Records); test.op == "write" && n != 1 || n > 2 {
				t.Errorf("%d records", n)
			}
		})
	}

	t.Run("what came before a failed write", func(t *testing.T) {
		d := &disk{}
		j := onDisk(t, d, Options{})
		_, err := j.Append("step-finished", "a", nil)
		check(t, err)
		size := len(d.data)
		d.onWrite = func([]byte) (int, error) { return 0, syscall.ENOSPC }
		if _, err := j.Append("step-started", "b", nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		if err := j.Close(); !errors.Is(err, syscall.ENOSPC) || d.durable != size {
			t.Errorf("got %v, %d of %d bytes are durable", err, d.durable, size)
		}
	})
	t.Run("the flush that nobody waits for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{}
			j := onDisk(t, d, Options{})
			d.onSync = func() error { return syscall.EIO }
			_, err := j.Append("step-observed", "a", nil)
			check(t, err)
			time.Sleep(time.Second)
			if _, err := j.Append("step-observed", "a", nil); !errors.Is(err, syscall.EIO) {
				t.Errorf("got %v", err)
			}
			if err := j.Close(); !errors.Is(err, syscall.EIO) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// Appends, commits and a close from everywhere at once leave a whole journal; for the race detector as well.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	var order []int64
	j, err := Create(path, Options{MaxDelay: time.Millisecond, Hook: func(r Record) { order = append(order, r.Seq) }})
	check(t, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(t, err)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				write := j.Append
				if i%5 == w%5 {
					write = j.Commit
				}
				if _, err := write("step-finished", fmt.Sprintf("s[%d]", w), finished{Status: "ok"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if j.Last() != 201 {
		t.Errorf("last %d", j.Last())
	}
	wg.Go(func() {
		for range 100 {
			if _, err := j.Append("step-observed", "x", nil); err != nil {
				return
			}
		}
	})
	check(t, j.Close())
	wg.Wait()
	h, err := Read(path)
	check(t, err)
	if h.Torn != nil || len(h.Records) != len(order) {
		t.Errorf("%d records, %d hooked, torn %v", len(h.Records), len(order), h.Torn)
	}
	for i, seq := range order {
		if seq != int64(i+1) {
			t.Fatalf("the hook saw %d as number %d", seq, i+1)
		}
	}
}

// What encoding/json writes is accepted, and what is accepted encoding/json reads.
func TestCheckObject(t *testing.T) {
	value := rapid.OneOf(rapid.Just(any(nil)), rapid.String().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(),
		rapid.SliceOfN(rapid.String(), 0, 3).AsAny(), rapid.MapOfN(rapid.String(), rapid.Int64(), 0, 3).AsAny())
	rapid.Check(t, func(t *rapid.T) {
		object := rapid.MapOfN(rapid.String(), value, 0, 4).Draw(t, "object")
		e := newEncoder()
		b, err := e.object(object)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	})
}

func FuzzCheckObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,-0.5e+7,"\u00e9\n",true,null,{"b":[]}]}`, `{"a":1,}`, `{"seq":1}`, `[]`, `{"a" :1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkObject(b) != nil {
			return
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, b); err != nil {
			t.Fatalf("accepted %q: %v", b, err)
		}
		if !bytes.Equal(compact.Bytes(), b) {
			t.Fatalf("accepted %q with white space", b)
		}
		var own map[string]any
		if err := json.Unmarshal(b, &own); err != nil {
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok { // a number too big for a float64 is fine
				t.Fatalf("accepted %q: %v", b, err)
			}
		}
		for _, key := range []string{"seq", "time", "type", "step", "prev", "crc"} {
			if _, ok := own[key]; ok {
				t.Fatalf("accepted %q with the key %s", b, key)
			}
		}
	})
}

// FuzzOpen: never a panic; what is accepted re-encodes to the same bytes. With seal, the lines of the input get a tail
// that fits, so that the fuzzer comes past hash and crc.
func FuzzOpen(f *testing.F) {
	good, _ := sample(f)
	f.Add(good, false)
	f.Add(good[:len(good)-9], false)
	var heads []byte
	for line := range bytes.Lines(good) {
		heads = append(heads, line[:bytes.Index(line, []byte(prevKey))]...)
		heads = append(heads, '\n')
	}
	f.Add(heads, true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			prev := genesis()
			var sealed []byte
			for line := range bytes.Lines(data) {
				line = appendTail(bytes.Clone(bytes.TrimSuffix(line, []byte("\n"))), &prev)
				prev = hash(line)
				sealed = append(append(sealed, line...), '\n')
			}
			data = sealed
		}
		h, err := parse("j", bytes.Clone(data))
		if err != nil {
			return
		}
		prev := genesis()
		var again []byte
		for _, r := range h.Records {
			line := appendTail(appendFields(appendHead(nil, r.Seq, r.Time, r.Type, r.Step), r.Body), &prev)
			prev = hash(line)
			again = append(append(again, line...), '\n')
			if !json.Valid(r.Event()) {
				t.Fatalf("event %q is not JSON", r.Event())
			}
		}
		if !bytes.Equal(again, data[:h.Size]) || h.Head != string(prev[:]) {
			t.Fatalf("accepted\n%q\nre-encodes to\n%q", data, again)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	j, err := Create(filepath.Join(b.TempDir(), "j"), Options{})
	check(b, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(b, err)
	body := &finished{Status: "ok"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Append("step-finished", "move[slot=7]/caught_up", body); err != nil {
			b.Fatal(err)
		}
	}
	check(b, j.Close())
}

func BenchmarkCommit(b *testing.B) {
	j, err := Create(filepath.Join(b.TempDir(), "j"), Options{})
	check(b, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(b, err)
	body := &finished{Status: "ok"}
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Commit("step-finished", "move[slot=7]/caught_up", body); err != nil {
			b.Fatal(err)
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	check(b, j.Close())
}

func BenchmarkOpen100k(b *testing.B) {
	path := filepath.Join(b.TempDir(), "j")
	j, err := Create(path, Options{MaxDelay: time.Hour})
	check(b, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(b, err)
	for i := range 100_000 - 1 {
		_, err := j.Append("step-finished", fmt.Sprintf("move[slot=%d]/caught_up", i/2), finished{"ok", map[string]any{"remaining": 0, "master": "10.0.0.7:9221"}})
		check(b, err)
	}
	check(b, j.Close())
	b.ReportAllocs()
	for b.Loop() {
		j, h, err := Open(path, Options{})
		check(b, err)
		if len(h.Records) != 100_000 {
			b.Fatal(len(h.Records))
		}
		b.SetBytes(h.Size)
		check(b, j.Close())
	}
}

// counted is a real file that counts its syncs.
type counted struct {
	File
	syncs int
}

func (c *counted) Sync() error { c.syncs++; return c.File.Sync() }

func BenchmarkGroupCommit64(b *testing.B) {
	c := &counted{}
	j, err := Create(filepath.Join(b.TempDir(), "j"), Options{Open: func(path string, flag int, perm fs.FileMode) (File, error) {
		f, err := openFile(path, flag, perm)
		c.File = f
		return c, err
	}})
	check(b, err)
	_, err = j.Commit("run-started", "", started{Format: 1})
	check(b, err)
	c.syncs = 0
	n := 0
	for b.Loop() { // one op is 64 commits
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := j.Commit("step-started", "a", nil); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		n += 64
	}
	b.ReportMetric(float64(c.syncs)/float64(n), "syncs/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
	check(b, j.Close())
}
