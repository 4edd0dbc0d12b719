package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestNewID(t *testing.T) {
	var ids []string
	for _, d := range []time.Duration{0, time.Microsecond, 2 * time.Microsecond, 499 * time.Millisecond, 500 * time.Millisecond, time.Hour, 24 * 400 * time.Hour} {
		id := NewID(epoch.Add(d).In(time.FixedZone("", 3600)))
		if !idPattern.MatchString(id) {
			t.Errorf("%s is not an id", id)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Errorf("not sorted by time: %v", ids)
	}
	if !strings.HasPrefix(ids[0], "20261122-111450-") {
		t.Errorf("got %s", ids[0])
	}
	same := map[string]bool{}
	for range 100 {
		same[NewID(epoch)] = true
	}
	if len(same) < 95 { // 20 random bits
		t.Errorf("%d different ids of 100", len(same))
	}
}

func TestStore(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "deep", "state")}
	entries, err := s.List()
	if err != nil || len(entries) != 0 {
		t.Errorf("a state directory that does not exist: %v, %v", entries, err)
	}
	if _, err := s.Find("last"); err == nil || !strings.HasPrefix(err.Error(), "no run in the state directory ") {
		t.Errorf("last of nothing: %v", err)
	}

	ids := []string{"20261122-111450-aaaa", "20261122-111450-aabb", "20261123-000000-cccc"}
	for _, id := range ids {
		r, err := s.Create(id)
		check(t, err)
		check(t, os.WriteFile(r.JournalPath(), []byte("x\n"), 0o600))
		info, err := os.Stat(r.Dir)
		check(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v", info.Mode())
		}
	}
	if _, err := s.Create(ids[0]); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	for _, id := range []string{"", "last", "..", "../x", "20261122-111450-", "20261122-111450-a/b"} {
		if _, err := s.Create(id); err == nil {
			t.Errorf("created %q", id)
		}
		if err := s.Remove(id); err == nil {
			t.Errorf("removed %q", id)
		}
	}

	// What else lies there is told, and in nobody's way.
	check(t, os.Mkdir(filepath.Join(s.runs(), "lost+found"), 0o700))
	check(t, os.WriteFile(filepath.Join(s.runs(), "20261124-000000-file"), nil, 0o600))
	bare, err := s.Create("20261123-000001-bare")
	check(t, err)
	entries, err = s.List()
	check(t, err)
	var names []string
	for _, e := range entries {
		name := e.ID
		if e.Problem != nil {
			name += " (" + e.Problem.Error() + ")"
		}
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{
		"20261123-000001-bare (has no journal: the run never started)",
		ids[2], ids[1], ids[0],
		"lost+found (not a run: its name is not a run-id)",
		"20261124-000000-file (not a run: not a directory)",
	}, names); diff != "" {
		t.Error(diff)
	}

	for _, test := range []struct{ ref, want string }{
		{"last", bare.ID},
		{ids[0], ids[0]},
		{"20261122-111450-aab", ids[1]},
		{"20261122", "2 runs begin with \"20261122\": 20261122-111450-aabb, 20261122-111450-aaaa"},
		{"20261122-111451-aaaa", `no run "20261122-111451-aaaa" in the state directory ` + s.Dir + "; nearest: 20261122-111450-aaaa, 20261122-111450-aabb"},
		{"xyz", `no run "xyz" in the state directory ` + s.Dir},
		{"", `no run "" in the state directory ` + s.Dir},
		{"../runs/" + ids[0], "no run \"../runs/"},
	} {
		r, err := s.Find(test.ref)
		switch {
		case err != nil && !strings.HasPrefix(err.Error(), test.want):
			t.Errorf("find %q: %v", test.ref, err)
		case err == nil && (r.ID != test.want || r.Dir != filepath.Join(s.Dir, "runs", r.ID)):
			t.Errorf("find %q: %+v", test.ref, r)
		}
	}
	if _, err := s.Find("2026112"); err != nil {
		if a, ok := errors.AsType[*AmbiguousError](err); !ok || len(a.Matches) != 4 {
			t.Errorf("got %v", err)
		}
	}

	// A run is removed when nobody uses it.
	r, err := s.Find(ids[0])
	check(t, err)
	held, err := Lock(r.LockPath(), Holder{Host: "db7"})
	check(t, err)
	if _, ok := errors.AsType[*LockedError](s.Remove(r.ID)); !ok {
		t.Error("removed a run that is locked")
	}
	check(t, held.Release())
	children, err := OpenChildren(r)
	check(t, err)
	if _, ok := errors.AsType[*ChildrenError](s.Remove(r.ID)); !ok {
		t.Error("removed a run whose children are alive")
	}
	check(t, children.Close())
	check(t, os.MkdirAll(filepath.Join(s.runs(), removedPrefix+"20200101-000000-aaaa", "x"), 0o700))
	check(t, s.Remove(r.ID))
	if err := s.Remove(r.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	entries, err = s.List()
	check(t, err)
	if len(entries) != 5 {
		t.Errorf("left: %v", entries)
	}

	// An id that is the beginning of another one means itself.
	short, err := s.Create(strings.TrimSuffix(ids[1], "b"))
	check(t, err)
	if r, err := s.Find(short.ID); err != nil || r.ID != short.ID {
		t.Errorf("find %s: %v, %v", short.ID, r, err)
	}
}

func TestPlan(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	r, err := s.Create(NewID(epoch))
	check(t, err)
	if _, err := r.ReadPlan(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, plan := range []string{"one, long", "two"} {
		check(t, r.WritePlan([]byte(plan)))
		got, err := r.ReadPlan()
		check(t, err)
		if string(got) != plan {
			t.Errorf("got %s", got)
		}
	}
	// A write that fails leaves the old plan and nothing else.
	check(t, os.Mkdir(r.PlanPath()+".tmp", 0o700))
	if err := r.WritePlan([]byte("three")); !errors.Is(err, syscall.EISDIR) || !strings.Contains(err.Error(), "write the plan of run "+r.ID) {
		t.Errorf("got %v", err)
	}
	if got, err := r.ReadPlan(); string(got) != "two" {
		t.Errorf("got %s, %v", got, err)
	}
}

// The state directory may be somewhere that cannot be written; the error says what was tried, where, and why.
func TestStateDirectoryErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	for _, test := range []struct {
		name, dir string
		want      error
	}{
		{"a file", file, syscall.ENOTDIR},
		{"nothing can be made", filepath.Join(dir, strings.Repeat("x", 300)), syscall.ENAMETOOLONG},
	} {
		s := &Store{Dir: test.dir}
		_, err := s.Create(NewID(epoch))
		if err == nil || !strings.Contains(err.Error(), "in the state directory "+test.dir+": ") || !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := s.Lock("a", Holder{}); err == nil || !strings.Contains(err.Error(), "in the state directory "+test.dir+": ") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestLockPath(t *testing.T) {
	s := &Store{Dir: "state"}
	for name, file := range map[string]string{
		"codis/demo": "codis%2Fdemo",
		"..":         "%2E.",
		".":          "%2E",
		"":           "%",
		"%":          "%25",
		"a.b-c_9":    "a.b-c_9",
		"Demo":       "%44emo",
		"é":          "%C3%A9",
		"a\x00b":     "a%00b",
	} {
		if got := s.LockPath(name); got != filepath.Join("state", "locks", file) {
			t.Errorf("%q: %s", name, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		path := s.LockPath(name)
		if filepath.Dir(path) != filepath.Join("state", "locks") || strings.HasPrefix(filepath.Base(path), ".") {
			t.Fatalf("%q leads to %s", name, path)
		}
		if back, ok := unescape(filepath.Base(path)); !ok || back != name {
			t.Fatalf("%q comes back as %q", name, back)
		}
	})
	for _, file := range []string{"", "a%2", "%2f", "%61", "A", "x y", ".a", "%%"} {
		if name, ok := unescape(file); ok && file != "" {
			t.Errorf("%s is the file of %q", file, name)
		}
	}
}

func TestLockBetweenProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, _, said := helper(t, "lock", nil, path)
	if said != "held\n" {
		t.Fatalf("the first says %q", said)
	}
	want := Holder{Operator: "ana", Host: "db7", PID: first.Process.Pid, Run: "r1", Since: epoch}
	_, err := Lock(path, Holder{})
	busy, ok := errors.AsType[*LockedError](err)
	if !ok || busy.Path != path {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(want, busy.Holder); diff != "" {
		t.Error(diff)
	}
	for _, part := range []string{path, "host db7", "operator ana", "run r1", "since 2026-11-22T11:14:50Z"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	if _, _, said := helper(t, "lock", nil, path); !strings.Contains(said, `"host":"db7"`) {
		t.Errorf("a third process says %q", said)
	}
	if h, held, err := Inspect(path); h != want || !held || err != nil {
		t.Errorf("inspect: %v, %v, %v", h, held, err)
	}

	// It dies without a chance to let go: its name stays, its lock does not.
	check(t, first.Process.Kill())
	first.Wait()
	if h, held, err := Inspect(path); h != want || held || err != nil {
		t.Errorf("inspect what a dead one left: %v, %v, %v", h, held, err)
	}
	held, err := Lock(path, Holder{Host: "db8"})
	check(t, err)
	if h, _, _ := Inspect(path); h != (Holder{Host: "db8"}) {
		t.Errorf("the new holder is %v", h)
	}
	if _, err := Lock(path, Holder{}); err == nil {
		t.Error("locked twice in one process")
	}
	check(t, held.Release())
	check(t, held.Release())
	if h, held, err := Inspect(path); h != (Holder{}) || held || err != nil {
		t.Errorf("inspect after the release: %v, %v, %v", h, held, err)
	}
	if h, held, err := Inspect(path + "x"); h != (Holder{}) || held || err != nil {
		t.Errorf("inspect nothing: %v, %v, %v", h, held, err)
	}
}

// A lock of a file that has lost its name must not count.
func TestLockLooksAtTheName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	if !isNamed(f, path) {
		t.Error("the file does not have its name")
	}
	check(t, os.Remove(path))
	check(t, os.WriteFile(path, nil, 0o600))
	if isNamed(f, path) {
		t.Error("the file has a name that leads to another one")
	}
}

func TestNamedLocks(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	if locks, err := s.Locks(); err != nil || len(locks) != 0 {
		t.Errorf("got %v, %v", locks, err)
	}
	held, err := s.Lock("codis/demo", Holder{Host: "db7"})
	check(t, err)
	if _, err := s.Lock("codis/demo", Holder{}); err == nil {
		t.Error("locked twice")
	}
	other, err := s.Lock("codis/other", Holder{})
	check(t, err)
	check(t, other.Release())
	check(t, os.WriteFile(s.LockPath("dead"), []byte(`{"host":"db8"}`), 0o600))
	locks, err := s.Locks()
	check(t, err)
	if diff := cmp.Diff([]NamedLock{
		{Name: "codis/demo", Path: held.Path(), Held: true, Holder: Holder{Host: "db7"}},
		{Name: "dead", Path: s.LockPath("dead"), Holder: Holder{Host: "db8"}},
	}, locks); diff != "" {
		t.Error(diff)
	}
	check(t, held.Release())
}

func TestChildren(t *testing.T) {
	run := &Run{ID: "r1", Dir: t.TempDir()}
	runner, stdin, said := helper(t, "runner", nil, run.Dir)
	if said != "alive\n" {
		t.Fatalf("the child says %q", said)
	}
	check(t, runner.Process.Kill()) // the runner is gone, its child is not

	c, err := OpenChildren(run)
	check(t, err)
	defer c.Close()
	cause := errors.New("waited long enough")
	ctx, cancel := withCause(t)
	polls, waits := 0, 0
	err = c.WaitFree(ctx, func(time.Duration) <-chan time.Time {
		if polls++; polls == 3 {
			cancel(cause)
			return nil
		}
		now := make(chan time.Time, 1)
		now <- epoch
		return now
	}, func() { waits++ })
	if e, ok := errors.AsType[*ChildrenError](err); !ok || !errors.Is(err, cause) || e.Path != run.Path("children") {
		t.Fatalf("got %v", err)
	}
	if polls != 3 || waits != 1 {
		t.Errorf("polled %d times, told %d times", polls, waits)
	}

	// The child ends while the run waits.
	ctx, _ = withCause(t)
	check(t, c.WaitFree(ctx, nil, func() { stdin.Close() }))
	check(t, c.WaitFree(ctx, nil, func() { t.Error("waits for nobody") }))

	// Now it is shared again: a child of this process would be noticed by the next one.
	next, err := OpenChildren(run)
	check(t, err)
	defer next.Close()
	if free, err := next.tryFree(); free || err != nil {
		t.Errorf("free: %v, %v", free, err)
	}

	// The Close of a runner that ends in good order leaves its child the lock, too.
	_, stdin, said = helper(t, "child", c.File())
	if said != "alive\n" {
		t.Fatalf("the child says %q", said)
	}
	check(t, c.Close())
	if free, err := next.tryFree(); free || err != nil {
		t.Errorf("free while a child lives: %v, %v", free, err)
	}
	ctx, _ = withCause(t)
	check(t, next.WaitFree(ctx, nil, func() { stdin.Close() }))
}
