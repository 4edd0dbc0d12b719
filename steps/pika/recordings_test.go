package pika

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbook/internal/simulate/resp"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// recording is what a real server answered.
type recording struct {
	Name, Instance, Version string
	Command                 []string
	Reply, Note             string
}

func recordings(t *testing.T) map[string][]recording {
	t.Helper()
	files, err := filepath.Glob("../../testdata/recordings/pika/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	all := map[string][]recording{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r recording
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			folder := strings.TrimSuffix(filepath.Base(file), ".jsonl")
			all[folder] = append(all[folder], r)
		}
	}
	return all
}

// ofServer is false for what was recorded beside the protocol: logs, starts of a process, measurements.
func (r recording) ofServer() bool {
	return r.Reply != "" && strings.ContainsAny(r.Reply[:1], "+-:$*") && strings.Contains(r.Reply, "\r\n")
}

// TestRecordings has the client ask for every recording again and holds what it understands to a file that people
// have read: values typed, errors with their class and the server's words.
func TestRecordings(t *testing.T) {
	const golden = "testdata/recordings.golden"
	p := newPlayback(t)
	var b strings.Builder
	all := recordings(t)
	for _, folder := range slices.Sorted(maps.Keys(all)) {
		for _, r := range all[folder] {
			fmt.Fprintf(&b, "%s/%s  %s\n", folder, r.Name, strings.Join(r.Command, " "))
			if !r.ofServer() {
				b.WriteString("    no answer of a server\n")
				continue
			}
			p.play(r)
			for line := range strings.Lines(understand(t, p.client(t), r)) {
				b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
			}
		}
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("understood before (-), now (+); UPDATE=1 writes %s anew:\n%s", golden, diff)
	}
}

// understand asks as the client does for such a command, and writes what it makes of the answer.
func understand(t *testing.T, c *Client, r recording) string {
	t.Helper()
	ctx := t.Context()
	value, err := ask(ctx, c, r.Command)
	if strings.HasPrefix(r.Reply, "-") == (err == nil) {
		t.Errorf("%s: answered %q, understood as %s, %v", r.Name, r.Reply, value, err)
	}
	if err != nil {
		e := steps.Classify(err)
		if words := strings.TrimPrefix(strings.TrimSpace(r.Reply), "-"); !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %q has lost the server's words %q", r.Name, err, words)
		}
		if e.Unknown || e.Kind == "server" && strings.Contains(e.Error(), "Corruption") && !strings.Contains(e.Error(), "syntax error") && !strings.Contains(e.Error(), "out of range") {
			t.Errorf("%s: an answered error without a class: %s, unknown %v", r.Name, err, e.Unknown)
		}
		class := e.Kind
		if e.Temporary {
			class += ", may pass"
		}
		_, words, _ := strings.Cut(err.Error(), ": ")
		return "error (" + class + "): " + words
	}
	return value
}

func ask(ctx context.Context, c *Client, cmd []string) (string, error) {
	switch line := strings.ToLower(strings.Join(cmd, " ")) + " "; {
	case strings.HasPrefix(line, "pkcluster info slot "):
		slots, err := c.infoSlot(ctx, cmd[3:]...)
		return describeSlots(slots), err
	case strings.HasPrefix(line, "pkcluster info table "):
		text, err := c.text(ctx, cmd...)
		if err != nil {
			return "", err
		}
		tables, err := parseTables(text)
		return fmt.Sprintf("tables %+v", tables), err
	case strings.HasPrefix(line, "info "):
		text, err := c.text(ctx, cmd...)
		return describeInfo(ParseInfo(text), text), err
	case strings.HasPrefix(line, "slotsinfo "):
		counts, err := c.SlotCounts(ctx)
		var total int64
		for _, n := range counts {
			total += n
		}
		return fmt.Sprintf("%d slots, %d keys, %d in slot 1", len(counts), total, counts[1]), err
	case strings.HasPrefix(line, "slotsscan "):
		r, err := c.Do(ctx, cmd...)
		if err != nil {
			return "", err
		}
		next, keys, err := c.scanned(r)
		return fmt.Sprintf("next %s, keys %q", next, keys), err
	case strings.HasPrefix(line, "slotshashkey "):
		slots, err := c.KeySlots(ctx, cmd[1:]...)
		return fmt.Sprintf("slots %v", slots), err
	case strings.HasPrefix(line, "config get "):
		r, err := c.Do(ctx, cmd...)
		if err != nil {
			return "", err
		}
		pairs, err := r.Pairs()
		return fmt.Sprintf("%d settings %s", len(pairs), short(fmt.Sprint(pairs))), err
	}
	r, err := c.Do(ctx, cmd...)
	return short(fmt.Sprintf("%#v", r.Value())), err
}

func short(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}

func describeSlots(slots []tableSlot) string {
	if len(slots) == 0 {
		return "no slots"
	}
	var b strings.Builder
	for _, s := range slots {
		fmt.Fprintf(&b, "db%d:%d at %s", s.table, s.ID, s.Offset)
		if s.Role() != "master" || len(s.Replicas) > 0 {
			fmt.Fprintf(&b, ", %s", s.Role())
		}
		if s.Master != "" {
			fmt.Fprintf(&b, ", follows %s %s", s.Master, s.State)
		}
		for _, r := range s.Replicas {
			fmt.Fprintf(&b, ", replica %s %s lag %s", r.Addr, r.Status, lagText(r.Lag))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func lagText(lag *int64) string {
	if lag == nil {
		return "unknown"
	}
	return fmt.Sprint(*lag)
}

func describeInfo(i Info, text string) string {
	var b strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	if i.Release.Known() {
		say("release %s, process %d, server id %d, config %s, data %d, log %d\n", i.Release, i.PID, i.ServerID, i.Config, i.DBSize, i.LogSize)
	}
	if strings.Contains(text, "# Stats") {
		say("scanning %v, saving %v\n", i.Scanning, i.Saving)
	}
	if i.Role != "" {
		say("role %s", i.Role)
		if i.Master != "" {
			say(", follows %s %s %q", i.Master, i.Link, i.State)
		}
		if i.StateCode != nil {
			say(" (%d)", *i.StateCode)
		}
		if i.ReadOnly != nil {
			say(", read-only %v", *i.ReadOnly)
		}
		for _, r := range i.Replicas {
			say(", replica %s %q lag %s", r.Addr, r.State, lagText(r.Lag))
		}
		say("\n")
	}
	if i.Offset != nil {
		say("binlog at %s\n", i.Offset)
	}
	if k := i.Keyspace; k != nil {
		say("keys at %s (%s): %d strings, %d hashes, %d lists, %d zsets, %d sets, %d in all\n", k.Time, k.Duration, k.Strings, k.Hashes, k.Lists, k.Zsets, k.Sets, k.Total())
	}
	if d := i.DoubleMaster; d != nil {
		say("double master: %+v\n", *d)
	}
	if b.Len() == 0 {
		say("%d fields\n", len(i.Fields))
	}
	return b.String()
}

// TestSlotsLoseNothing writes what was understood of a recorded answer as the server writes it, and finds the same text.
func TestSlotsLoseNothing(t *testing.T) {
	n := 0
	for _, list := range recordings(t) {
		for _, r := range list {
			_, body, ok := strings.Cut(r.Reply, "\r\n")
			if !ok || !strings.HasPrefix(body, "(db") {
				continue
			}
			n++
			slots, err := parseSlots(body)
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
			if diff := cmp.Diff(withoutPurge(body), written(slots)); diff != "" {
				t.Errorf("%s: answered (-), understood (+):\n%s", r.Name, diff)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d answers about slots were found", n)
	}
}

// withoutPurge is an answer without its blank lines, and what it says of files that may be purged, which is of no concern here.
func withoutPurge(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\r\n"), ",safety_purge=")
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	// 3.2.9 says no role of a slot without replication, later releases say that it is a master without replicas.
	return strings.ReplaceAll(b.String(), "  Role: Master\n  connected_slaves: 0\n", "")
}

func written(slots []tableSlot) string {
	var b strings.Builder
	for _, s := range slots {
		fmt.Fprintf(&b, "(db%d:%d) binlog_offset=%s\n", s.table, s.ID, s.Offset)
		if len(s.Replicas) > 0 {
			fmt.Fprintf(&b, "  Role: Master\n  connected_slaves: %d\n", len(s.Replicas))
		}
		for i, r := range s.Replicas {
			fmt.Fprintf(&b, "  slave[%d]: %s\n  replication_status: %s\n", i, r.Addr, r.Status)
			if r.Lag != nil {
				fmt.Fprintf(&b, "  lag: %d\n", *r.Lag)
			}
		}
		if len(s.Replicas) > 0 && s.Master != "" {
			b.WriteString("  -----------\n")
		}
		if s.Master != "" {
			fmt.Fprintf(&b, "  Role: Slave\n  master: %s\n  slave status: %s\n", s.Master, s.State)
		}
	}
	return b.String()
}

// playback is a server that answers every request with one recording.
type playback struct {
	addr string
	mu   sync.Mutex
	raw  string
}

func newPlayback(t *testing.T) *playback {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &playback{addr: l.Addr().String()}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return p
}

func (p *playback) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for {
		if _, err := resp.ReadCommand(in); err != nil {
			return
		}
		p.mu.Lock()
		raw := p.raw
		p.mu.Unlock()
		if _, err := c.Write([]byte(raw)); err != nil {
			return
		}
	}
}

func (p *playback) play(r recording) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raw = r.Reply
	if _, body, ok := strings.Cut(r.Reply, "\r\n"); ok && strings.HasPrefix(r.Reply, "$") && !strings.HasPrefix(r.Reply, "$-1") {
		// The names of the machine's system and of the build's day were replaced in the recordings, so a length may be off.
		body = strings.TrimSuffix(body, "\r\n")
		p.raw = fmt.Sprintf("$%d\r\n%s\r\n", len(body), body)
	}
}

// client gives a client of its own to each question, as a recorded byte too many would answer the next one.
func (p *playback) client(t *testing.T) *Client {
	c := Open(Config{Addr: schema.Addr(p.addr)}, steps.ReadWrite)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var _ redis.Speaker = (*Client)(nil)
