package acceptance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// blindLine is what a step appends that nobody can ask: not idempotent, and without a probe. Its id begins with blind_.
func blindLine(path string) (string, bool) {
	item := ""
	if _, rest, in := strings.Cut(path, "[item="); in {
		item = "_" + rest[:strings.IndexByte(rest, ']')]
	}
	id := path[strings.LastIndexByte(path, '/')+1:]
	switch id {
	case "blind_item":
		id = "blind"
	case "blind_sub":
		item = map[string]string{"sub_1": "_one", "sub_2": "_two"}[strings.TrimSuffix(path, "/blind_sub")]
	}
	return id + item, strings.HasPrefix(id, "blind")
}

// killBook mixes what makes a resume hard. HOLD makes an append take a moment, so that kills land inside of it.
const killBook = `
targets:
  kv: {kind: redis, addr: "ADDR"}
  machine: {kind: host, local: true}
lock: {name: "killed/${{ targets.kv.addr }}"}
steps:
  - {id: start, uses: redis.command, target: kv, with: {args: [SET, stage, one]}, effect: write, idempotent: true, undo: none}
  - {id: blind_1, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_1 >> DIR/data/order"}}
  - id: probed_1
    uses: exec
    effect: write
    undo: none
    with: {shell: "HOLD; echo probed_1 >> DIR/data/order"}
    probe: {uses: exec, with: {shell: "grep -qx probed_1 DIR/data/order", ok_codes: [1, 2]}, done: exit_code == 0}
  - id: count
    uses: redis.command
    target: kv
    with: {args: [INCR, counter]}
    effect: write
    undo: none
    probe: {uses: redis.command, with: {args: [GET, counter]}, done: reply == "1"}
  - {id: config, uses: host.file, target: machine, with: {path: DIR/data/config, content: "a\nb\n", mode: "0640"}}
  - {id: setting, uses: redis.config-set, target: kv, with: {name: maxmemory-samples, value: 7}}
  - id: items
    for-each: [a, b]
    steps:
      - {id: set_item, uses: redis.command, target: kv, with: {args: [SET, "item:${{ item }}", "${{ item }}"]}, effect: write, idempotent: true, undo: none}
      - {id: blind_item, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_${{ item }} >> DIR/data/order"}}
      - {id: file_item, uses: host.file, target: machine, with: {path: "DIR/data/item-${{ item }}", content: "${{ item }}\n"}}
  - id: side
    for-each: [1, 2, 3]
    max-parallel: 2
    steps:
      - {id: blind_side, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_side_${{ item }} >> DIR/data/any"}}
      - {id: set_side, uses: redis.command, target: kv, with: {args: [SADD, sides, "${{ item }}"]}, effect: write, idempotent: true, undo: none}
      - id: probed_side
        uses: exec
        effect: write
        undo: none
        with: {shell: "HOLD; echo probed_side_${{ item }} >> DIR/data/any"}
        probe: {uses: exec, with: {shell: "grep -qx probed_side_${{ item }} DIR/data/any", ok_codes: [1, 2]}, done: exit_code == 0}
  - id: all_sides
    uses: exec
    effect: read
    with: {shell: "wc -l < DIR/data/any", parse: json}
    wait-until: value == 6
    every: 10ms
    timeout: 10s
  - id: beside
    parallel: true
    steps:
      - {id: blind_left, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_left >> DIR/data/any"}}
      - {id: blind_right, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_right >> DIR/data/any"}}
      - {id: middle, uses: host.file, target: machine, with: {path: DIR/data/middle, content: "m\n"}}
      - id: push
        uses: redis.command
        target: kv
        with: {args: [RPUSH, list, once]}
        effect: write
        undo: none
        probe: {uses: redis.command, with: {args: [LLEN, list]}, done: reply == 1}
  - {id: settle, uses: redis.info, target: kv, wait-until: keys >= 5, every: 10ms, stable: 30ms, timeout: 10s}
  - id: rescued
    uses: exec
    effect: write
    idempotent: true
    undo: none
    with: {shell: "HOLD; exit 1"}
    rescue:
      - {id: blind_help, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_help >> DIR/data/order"}}
      - {id: help_set, uses: redis.command, target: kv, with: {args: [SET, help, "1"]}, effect: write, idempotent: true, undo: none}
  - id: passes
    repeat: {until: steps.pass_lines.value >= 2, max: 3, every: 10ms}
    steps:
      - {id: blind_pass, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_pass >> DIR/data/passes"}}
      - {id: pass_lines, uses: exec, effect: read, with: {shell: "wc -l < DIR/data/passes", parse: json}}
  - {id: sub_1, uses: ./killed-sub.yaml, with: {word: one, kv: kv}}
  - {id: sub_2, uses: ./killed-sub.yaml, with: {word: two, kv: kv}}
  - {id: nap, uses: sleep, with: {duration: 30ms}, why: A wait that nothing can shorten}
  - id: probed_2
    uses: exec
    effect: write
    undo: none
    with: {shell: "HOLD; echo probed_2 >> DIR/data/order"}
    probe: {uses: exec, with: {shell: "grep -qx probed_2 DIR/data/order", ok_codes: [1, 2]}, done: exit_code == 0}
  - {id: blind_2, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_2 >> DIR/data/order"}}
  - {id: sides, uses: redis.command, target: kv, with: {args: [SCARD, sides]}, effect: read, expect: reply == 3}
  - {id: end, uses: redis.command, target: kv, with: {args: [SET, stage, "two"]}, effect: write, idempotent: true, undo: none}
  - {id: sum, uses: set, with: {values: {word: "${{ steps.sub_1.got }}+${{ steps.sub_2.got }}"}}}
  - {id: summary, uses: host.file, target: machine, with: {path: DIR/data/summary, content: "${{ steps.sum.word }}\n"}}
finally:
  - {id: tidy, uses: host.file, target: machine, with: {path: DIR/data/tidy, content: "t\n"}}
`

const killSub = `
inputs:
  word: {type: string, description: Word to append}
  kv: {type: target, kind: redis, description: Server}
steps:
  - {id: blind_sub, uses: exec, effect: write, undo: none, with: {shell: "HOLD; echo blind_sub_${{ inputs.word }} >> DIR/data/order"}}
  - {id: set_sub, uses: redis.command, target: "${{ inputs.kv }}", with: {args: [SET, "sub:${{ inputs.word }}", "1"]}, effect: write, idempotent: true, undo: none}
outputs:
  got: inputs.word
`

// killWorld is one folder with the runbook, on a server that was emptied.
func killWorld(t *testing.T, s *server) (*desk, string) {
	t.Helper()
	d := newDesk(t)
	s.do("FLUSHALL")
	s.do("CONFIG", "SET", "maxmemory-samples", "5")
	if err := os.Mkdir(d.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("HOLD", "sleep 0.015", "ADDR", s.addr)
	d.book("killed-sub.yaml", fill.Replace(killSub))
	return d, d.book("killed.yaml", fill.Replace(killBook))
}

// worldState is all that the runbook changed: every file, lines that were appended side by side in order, and every key.
func worldState(t *testing.T, d *desk, s *server) string {
	t.Helper()
	var b strings.Builder
	files, err := os.ReadDir(d.path("data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		lines := d.lines(filepath.Join("data", f.Name()))
		if f.Name() == "any" {
			slices.Sort(lines)
		}
		fmt.Fprintf(&b, "%s: %s\n", f.Name(), strings.Join(lines, " "))
	}
	keys := s.do("KEYS", "*").Strings()
	slices.Sort(keys)
	for _, k := range keys {
		var v string
		switch s.do("TYPE", k).Str {
		case "string":
			v = s.do("GET", k).Str
		case "list":
			v = strings.Join(s.do("LRANGE", k, "0", "-1").Strings(), " ")
		case "set":
			members := s.do("SMEMBERS", k).Strings()
			slices.Sort(members)
			v = strings.Join(members, " ")
		}
		fmt.Fprintf(&b, "%s = %s\n", k, v)
	}
	fmt.Fprintf(&b, "maxmemory-samples = %s\n", s.do("CONFIG", "GET", "maxmemory-samples").Strings()[1])
	return b.String()
}

func environInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%s is no number", name, text)
	}
	return n
}

func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	d, book := killWorld(t, s)
	d.run("exec", book).want(0)
	d, book = killWorld(t, s) // once more: the first run has warmed the machine up
	began := time.Now()
	d.run("exec", book).want(0)
	took := time.Since(began)
	want := worldState(t, d, s)
	d.sound()
	kills := environInt(t, "KILLS", 12)
	seed := environInt(t, "SEED", int(time.Now().UnixNano()%1e9))
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Logf("reference: %v, %d records; %d kills, SEED=%d", took.Round(time.Millisecond), len(d.journal()), kills, seed)
	total := tally{}
	for i := range kills {
		// One in each equal part of the reference's time: no stretch of it is left out by chance.
		at := took * time.Duration(i*1000+rnd.IntN(1000)) / time.Duration(kills*1000)
		ok := t.Run(fmt.Sprintf("%03d at %v", i, at.Round(time.Millisecond)), func(t *testing.T) { killOnce(t, s, at, took, rnd, want, &total) })
		if !ok {
			t.Fatalf("SEED=%d", seed)
		}
	}
	t.Logf("%+v", total)
}

// tally is what the kills met.
type tally struct{ Killed, Resumed, BeforeStart, InDoubt, Decided, Done, Redo int }

func killOnce(t *testing.T, s *server, at, took time.Duration, rnd *rand.Rand, want string, total *tally) {
	d, book := killWorld(t, s)
	again := rnd.IntN(3) == 0 // the first resume is killed as well
	all := rnd.IntN(2) == 0   // with all of its children, as when a machine dies
	kill := func(p *session, at time.Duration) {
		timer := time.AfterFunc(at, func() {
			p.signal(syscall.SIGKILL)
			if all {
				for _, pid := range d.processes() {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		})
		defer timer.Stop()
		if p.wait() == -1 {
			total.Killed++
		}
	}
	p := d.start("exec", book)
	kill(p, at)
	code := p.wait()
	var path []string
	for tries := 0; code != 0; tries++ {
		if tries > 12 {
			t.Fatalf("it does not come to an end: %v\n%s", path, p.said())
		}
		path = append(path, strconv.Itoa(code))
		args := []string{"resume", "last"}
		switch {
		case !d.seen("run-started", ""): // killed before anything was recorded: there is no run to resume
			total.BeforeStart++
			if worldIsTouched(d) {
				t.Fatal("something was done that no journal tells of")
			}
			args = []string{"exec", book}
		case code == 3:
			total.InDoubt++
			args = append(args, decide(t, d, total)...)
		case code != -1 && code != 0:
			t.Fatalf("exit code %d (after %v)\n%s", code, path, p.said())
		}
		if args[0] == "resume" {
			total.Resumed++
		}
		p = d.start(args...)
		if again {
			again = false
			kill(p, time.Duration(rnd.Int64N(int64(took))))
		}
		code = p.wait()
		if code == 2 && strings.Contains(p.said(), "is over: it succeeded") { // the kill came after the last record
			code = 0
		}
	}
	if got := worldState(t, d, s); got != want {
		t.Errorf("through %v the world became\n%s\nand not\n%s\n%s", path, got, want, journalText(d))
	}
	d.sound()
}

func worldIsTouched(d *desk) bool {
	files, err := os.ReadDir(d.path("data"))
	return err != nil || len(files) > 0
}

func journalText(d *desk) string {
	var b strings.Builder
	for _, r := range d.journal() {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// decide is the operator: it looks at the files for the step that the run stopped at.
func decide(t *testing.T, d *desk, total *tally) []string {
	t.Helper()
	all := d.journal()
	last := all[len(all)-1]
	if last.Type != "run-finished" || last.Status != "in-doubt" {
		t.Fatalf("exit code 3, and the journal ends in %v", last)
	}
	line, ok := blindLine(last.Step)
	if !ok {
		t.Fatalf("%s is in doubt, and it is idempotent or has a probe\n%s", last.Step, journalText(d))
	}
	total.Decided++
	if appended(d, last.Step, line) {
		total.Done++
		return []string{"--decide", last.Step + "=done", "--reason", "its line is in the file"}
	}
	total.Redo++
	return []string{"--decide", last.Step + "=redo", "--reason", "its line is not in the file"}
}

// appended tells whether the step's line is in a file; of the passes, whether as many as this one makes.
func appended(d *desk, path, line string) bool {
	n := 1
	if _, pass, ok := strings.Cut(path, "passes["); ok {
		n, _ = strconv.Atoi(pass[:strings.IndexByte(pass, ']')])
	}
	for _, name := range []string{"order", "any", "passes"} {
		for _, l := range d.lines(filepath.Join("data", name)) {
			if l == line {
				n--
			}
		}
	}
	return n <= 0
}
