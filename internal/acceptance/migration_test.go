package acceptance

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"runbook/internal/simulate/traffic"
)

// migration is runbooks/redis-replace-instance.yaml on two real servers, under load from clients that follow a file.
type migration struct {
	*desk
	old     *server
	newAddr string
	book    string
	args    []string // of exec, after the runbook
	load    *traffic.Traffic
}

func newMigration(t *testing.T) *migration {
	t.Helper()
	d := newDesk(t)
	m := &migration{desk: d, old: startRedis(t), newAddr: freeAddr(t)}
	book, err := filepath.Abs("../../runbooks/redis-replace-instance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m.book = book
	d.write("clients", m.old.addr+"\n")
	inventory := d.write("inventory.yaml", strings.NewReplacer("OLD", m.old.addr, "NEW", m.newAddr, "DIR", d.dir).Replace(`targets:
  old: {kind: redis, addr: "OLD"}
  new: {kind: redis, addr: "NEW"}
  machine: {kind: host, local: true}
  clients_machine: {kind: host, local: true}
inputs:
  dir: DIR/new
  clients: DIR/clients
  min_free: 1mb
`))
	m.args = []string{"--inventory", inventory}
	t.Cleanup(func() {
		_, _ = ask(context.WithoutCancel(t.Context()), m.newAddr, "SHUTDOWN", "NOSAVE") // its answer is a closed connection
	})
	for i := range 400 { // data that no client touches
		switch k := "still:" + strings.Repeat("x", i%7) + string(rune('a'+i%26)); i % 3 {
		case 0:
			m.old.do("SET", k+"s", "v")
		case 1:
			m.old.do("HSET", k+"h", "f", "v")
		case 2:
			m.old.do("RPUSH", k+"l", "1", "2")
		}
	}
	m.load, err = traffic.Start(t.Context(), traffic.Options{
		Route: m.route, Clients: 8, Keys: 600, WritesPerSecond: 1500, RouteEvery: 20 * time.Millisecond, Retry: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.load.Stop)
	m.served()
	return m
}

// route is where the clients' file points.
func (m *migration) route(context.Context) (string, error) {
	b, err := os.ReadFile(m.path("clients"))
	return strings.TrimSpace(string(b)), err
}

// served waits until clients had writes acknowledged after now.
func (m *migration) served() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	if err := m.load.Ledger().WaitAcknowledged(ctx, 300); err != nil {
		m.t.Fatalf("clients are not served: %v\n%+v\n%s", err, m.load.Ledger().Stats(), journalText(m.desk))
	}
}

// judge ends the load and holds it to its ledger: nothing lost, one writable server, and that is where clients go.
func (m *migration) judge(moved bool) traffic.Report {
	m.t.Helper()
	ctx := m.t.Context()
	m.served()
	m.load.Stop()
	addr, err := m.route(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	other := m.newAddr
	if moved {
		other = m.old.addr
	}
	if addr == other {
		m.t.Fatalf("clients go to %s\n%s", addr, journalText(m.desk))
	}
	read, done, err := traffic.ReadAt(ctx, nil, addr, "", "")
	if err != nil {
		m.t.Fatal(err)
	}
	defer done()
	r, err := m.load.Check(ctx, read)
	if err != nil {
		m.t.Fatal(err)
	}
	for what, example := range r.Broken() {
		m.t.Errorf("%s: %s", what, example)
	}
	if len(r.Extra) > 0 {
		m.t.Errorf("%d keys hold what was never written, such as %v", len(r.Extra), r.Extra[0])
	}
	if _, err := ask(ctx, addr, "SET", "writable", "1"); err != nil {
		m.t.Errorf("%s takes no writes: %v", addr, err)
	}
	if v, err := ask(ctx, other, "SET", "writable", "1"); err == nil && other == m.old.addr {
		m.t.Errorf("the old server takes writes as well: %v", v)
	} else if err != nil && !strings.HasPrefix(err.Error(), "READONLY") && !strings.Contains(err.Error(), "refused") {
		m.t.Errorf("a write to %s: %v; READONLY or a refused connection is wanted", other, err)
	}
	m.t.Logf("%d writes acknowledged, %d of unknown outcome, longest wait of one write %v (p50 %v, p99.9 %v), refusals %v",
		r.Acknowledged, r.Unknown, r.MaxWait.Round(100*time.Microsecond), r.P50, r.P999, r.Errors)
	if m.t.Failed() {
		m.t.Log(journalText(m.desk))
	}
	return r
}

func TestMigration(t *testing.T) {
	m := newMigration(t)
	m.run(append([]string{"exec", m.book, "--approve", "all"}, m.args...)...).want(0).says(m.newAddr)
	m.judge(true)
	if v, err := ask(t.Context(), m.old.addr, "PING"); err == nil {
		t.Errorf("the old server still answers: %v", v)
	}
	for _, step := range []string{"hand_over", "compare_paused"} {
		t.Logf("%s took %s", step, m.duration(step))
	}
	m.desk.run("runs", "verify", "last").want(0)
}

// duration is what the report says of a step.
func (m *migration) duration(step string) string {
	text := m.run("runs", "show", "last", "--output", "json").want(0).out.String()
	_, rest, _ := strings.Cut(text, `"path": "`+step+`"`)
	_, rest, _ = strings.Cut(rest, `"duration": "`)
	d, _, _ := strings.Cut(rest, `"`)
	return d
}

// Killed at every place of the hand-over, and resumed until it is over, at once or when the pause has long run out: it
// may go on or go back, and loses nothing.
func TestMigrationKilledInTheHandOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   string
		late bool
		long bool // in the long lane alone
	}{
		{"pause", false, true}, {"guard", false, true}, {"compare_paused", false, false}, {"promote", false, false}, {"fence", false, true}, {"point_clients", false, true},
		{"pause", true, true}, {"guard", true, false}, {"compare_paused", true, true}, {"promote", true, false}, {"fence", true, true}, {"point_clients", true, true},
	} {
		if c.long && os.Getenv("KILLS") == "" {
			continue
		}
		name := c.at + "/at once"
		if c.late {
			name = c.at + "/after the pause"
		}
		t.Run(name, func(t *testing.T) { t.Parallel(); migrateKilled(t, c.at, c.late) })
	}
}

func migrateKilled(t *testing.T, at string, late bool) {
	m := newMigration(t)
	args := append([]string{"exec", m.book, "--approve", "all"}, m.args...)
	if late {
		args = append(args, "-i", "max_pause=1500ms", "-i", "cut_over=1400ms")
	}
	s := m.start(args...)
	until(t, "it comes to "+at, func() bool { return m.seen("step-started", at) || !s.running() })
	s.signal(syscall.SIGKILL)
	if s.wait() != -1 {
		t.Fatalf("the runner was not killed\n%s", s.said())
	}
	open := false
	if late {
		// What waits for as long as the server holds writes, though it is none: then a write is done, or refused.
		if _, err := ask(t.Context(), m.old.addr, "PUBLISH", "nobody", "there"); err != nil {
			t.Fatal(err)
		}
		_, err := ask(t.Context(), m.old.addr, "SET", "after the pause", "1")
		t.Logf("once the pause was over a write to the old server got: %v", err)
		open = err == nil
	}
	resumed := len(m.journal())
	code := -1
	var last *session
	for tries := 0; code != 0 && tries < 4; tries++ {
		last = m.run("resume", "last", "--approve", "all")
		code = last.wait()
		if code != 0 {
			t.Logf("resume %d: exit code %d: %s", tries, code, last.said())
			m.served()
		}
	}
	done := m.find("step-finished", "point_clients")
	moved := done != nil && done.Status != "failed"
	t.Logf("killed at %s; in the end exit code %d, clients moved: %v", at, code, moved)
	if code != 0 && code != 1 {
		t.Errorf("exit code %d\n%s", code, last.said())
	}
	// Where clients write to the old server again, nobody may promote the new one before they wait anew.
	paused := !open
	for _, r := range m.journal()[resumed:] {
		paused = paused || r.Type == "step-started" && r.Step == "pause"
		if r.Type == "step-started" && r.Step == "promote" && !paused {
			t.Errorf("the new server was promoted while clients wrote to the old one")
		}
	}
	m.judge(moved)
	m.desk.run("runs", "verify", "last").want(0)
}

// The new server has a key too many when writes wait: the hand-over is put back, and clients go on where they were.
func TestMigrationRolledBack(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	m.run(append([]string{"exec", m.book}, m.args...)...).want(4).says("hand_over")
	for _, c := range [][]string{{"CONFIG", "SET", "replica-read-only", "no"}, {"SET", "stray", "1"}, {"CONFIG", "SET", "replica-read-only", "yes"}} {
		if _, err := ask(t.Context(), m.newAddr, c...); err != nil {
			t.Fatal(err)
		}
	}
	m.run("resume", "last", "--approve", "hand_over").want(1).says("compare_paused: failed", "hand_over: rolls back")
	if r := m.find("rollback-finished", "hand_over"); r == nil {
		t.Errorf("no rollback in the journal:\n%s", journalText(m.desk))
	}
	ctx := t.Context()
	if role := field(ctx, m.old.addr, "role"); role != "master" {
		t.Errorf("the old server is a %s", role)
	}
	if v := m.old.do("CONFIG", "GET", "min-replicas-to-write").Strings(); v[1] != "0" {
		t.Errorf("min-replicas-to-write is %s: the guard was left behind", v[1])
	}
	m.served()
	// The cause mended, the same run does the rest.
	for _, c := range [][]string{{"CONFIG", "SET", "replica-read-only", "no"}, {"DEL", "stray"}, {"CONFIG", "SET", "replica-read-only", "yes"}} {
		if _, err := ask(ctx, m.newAddr, c...); err != nil {
			t.Fatal(err)
		}
	}
	m.run("resume", "last", "--approve", "all").want(0)
	m.judge(true)
	m.desk.run("runs", "verify", "last").want(0)
}
