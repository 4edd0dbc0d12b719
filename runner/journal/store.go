package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Store is a state directory:
//
//	DIR/runs/<run-id>/   journal.jsonl, plan.json, lock, children and what else belongs to one run
//	DIR/locks/<name>     the locks that keep two runs off one thing, where no target holds them
//	DIR/plans/<plan-id>  the saved plans that have had their one use, and which run used them
//
// All of it is for the user alone (0700, 0600). The zero Dir is the working directory.
type Store struct{ Dir string }

// Run is the folder of one run.
type Run struct {
	ID  string
	Dir string
}

// Path is where a file of the run lies.
func (r *Run) Path(name string) string { return filepath.Join(r.Dir, name) }

// JournalPath is where the journal lies, for Create and Open.
func (r *Run) JournalPath() string { return r.Path("journal.jsonl") }

// PlanPath is where the frozen plan lies.
func (r *Run) PlanPath() string { return r.Path("plan.json") }

// LockPath is the run's own lock: who holds it may write the journal.
func (r *Run) LockPath() string { return r.Path("lock") }

// WritePlan replaces the frozen plan. After a crash there is the old one or the new one, whole; when it returns nil the
// new one is durable.
func (r *Run) WritePlan(plan []byte) error {
	if err := WriteDurable(r.PlanPath(), plan); err != nil {
		return fmt.Errorf("write the plan of run %s to %s: %w", r.ID, r.PlanPath(), err)
	}
	return nil
}

// ReadPlan gives the frozen plan.
func (r *Run) ReadPlan() ([]byte, error) {
	plan, err := os.ReadFile(r.PlanPath())
	if err != nil {
		return nil, fmt.Errorf("read the plan of run %s: %w", r.ID, err)
	}
	return plan, nil
}

// idPattern is what NewID makes; List calls everything else foreign. It leaves no room for a path or for "last".
var idPattern = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[0-9a-z]{1,32}$`)

// idDigits sort as their values do. i, l, o and u are left out: an id is read aloud and typed.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// NewID makes a run-id such as 20261122-111450-f4c0x7qp: the second in UTC, four digits for the microsecond within it,
// four random ones. Ids sort by time to the microsecond; Create refuses the one in a million that is taken.
func NewID(now time.Time) string {
	now = now.UTC()
	b := now.AppendFormat(nil, "20060102-150405-")
	micro := now.Nanosecond() / 1000 // below 2^20, so four digits of 5 bits
	for shift := 15; shift >= 0; shift -= 5 {
		b = append(b, idDigits[micro>>shift&31])
	}
	var random [4]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	for _, r := range random {
		b = append(b, idDigits[r&31])
	}
	return string(b)
}

// Create makes the folder of a new run, durable. A run-id that exists is an error (fs.ErrExist).
func (s *Store) Create(runID string) (*Run, error) {
	if !idPattern.MatchString(runID) {
		return nil, fmt.Errorf("create run %q: not a run-id (they look like 20261122-111450-f4c0x7qp)", runID)
	}
	r := s.run(runID)
	err := mkdirDurable(s.runs())
	if err == nil {
		err = os.Mkdir(r.Dir, 0o700)
	}
	if err == nil {
		err = syncDir(s.runs())
	}
	if err != nil {
		return nil, fmt.Errorf("create run %s in the state directory %s: %w", runID, s.dir(), err)
	}
	return r, nil
}

// Entry is one name among the runs. Problem says why it is not a run that can be opened; Run is nil where it is not even
// the folder of a run.
type Entry struct {
	ID      string
	Run     *Run
	Problem error
}

// List gives the runs, newest first, and after them what else lies there. It opens no journal: what it says of an entry
// costs the same for long and short runs. A state directory that does not exist holds no runs.
func (s *Store) List() ([]Entry, error) {
	found, err := os.ReadDir(s.runs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	var runs, foreign []Entry
	for _, f := range slices.Backward(found) { // ReadDir sorts
		e := Entry{ID: f.Name()}
		switch {
		case strings.HasPrefix(e.ID, removedPrefix):
			e.Problem = errors.New("left over from a removal that was interrupted; the next removal takes it along")
		case !idPattern.MatchString(e.ID):
			e.Problem = errors.New("not a run: its name is not a run-id")
		case !f.IsDir():
			e.Problem = errors.New("not a run: not a directory")
		default:
			e.Run = s.run(e.ID)
			info, err := os.Stat(e.Run.JournalPath())
			switch {
			case errors.Is(err, fs.ErrNotExist):
				e.Problem = errors.New("has no journal: the run never started")
			case err != nil:
				e.Problem = err
			case !info.Mode().IsRegular():
				e.Problem = errors.New("its journal is not a file")
			case info.Size() == 0:
				e.Problem = ErrEmpty
			}
			runs = append(runs, e)
			continue
		}
		foreign = append(foreign, e)
	}
	return append(runs, foreign...), nil
}

// Find gives the run that a person means: a run-id, the beginning of exactly one, or "last", the newest. A run whose
// journal is damaged is found as well; "last" must never quietly mean the one before it.
func (s *Store) Find(ref string) (*Run, error) {
	entries, err := s.List()
	if err != nil {
		return nil, fmt.Errorf("find run %q: %w", ref, err)
	}
	var ids, matches []string
	for _, e := range entries {
		if e.Run == nil {
			continue
		}
		if e.ID == ref {
			return e.Run, nil
		}
		ids = append(ids, e.ID)
		if ref != "" && strings.HasPrefix(e.ID, ref) {
			matches = append(matches, e.ID)
		}
	}
	switch {
	case ref == "last" && len(ids) > 0:
		return s.run(ids[0]), nil
	case len(matches) == 1:
		return s.run(matches[0]), nil
	case len(matches) > 1:
		return nil, &AmbiguousError{Ref: ref, Matches: matches}
	}
	return nil, &NotFoundError{Ref: ref, Dir: s.dir(), Nearest: nearest(ref, ids)}
}

// NotFoundError says that no run is meant by Ref.
type NotFoundError struct {
	Ref     string
	Dir     string   // the state directory
	Nearest []string // up to three run-ids that look like it
}

func (e *NotFoundError) Error() string {
	text := fmt.Sprintf("no run %q in the state directory %s", e.Ref, e.Dir)
	if e.Ref == "last" {
		text = fmt.Sprintf("no run in the state directory %s", e.Dir)
	}
	if len(e.Nearest) > 0 {
		text += "; nearest: " + strings.Join(e.Nearest, ", ")
	}
	return text
}

// AmbiguousError says that several runs begin with Ref.
type AmbiguousError struct {
	Ref     string
	Matches []string // newest first
}

func (e *AmbiguousError) Error() string {
	shown, more := e.Matches, ""
	if len(shown) > 5 {
		shown, more = shown[:5], fmt.Sprintf(" and %d more", len(shown)-5)
	}
	return fmt.Sprintf("%d runs begin with %q: %s%s", len(e.Matches), e.Ref, strings.Join(shown, ", "), more)
}

const removedPrefix = ".removed-"

// Remove deletes a run with all its files. It refuses while a runner (*LockedError) or a child that one left behind
// (*ChildrenError) is alive.
func (s *Store) Remove(runID string) error {
	r := s.run(runID)
	if !idPattern.MatchString(runID) {
		return fmt.Errorf("remove run %q: not a run-id", runID)
	}
	if _, err := os.Stat(r.Dir); err != nil {
		return fmt.Errorf("remove run %s: %w", runID, err)
	}
	held, err := Lock(r.LockPath(), Holder{PID: os.Getpid(), Run: runID, Since: time.Now()})
	if err != nil {
		return fmt.Errorf("remove run %s: %w", runID, err)
	}
	defer func() { _ = held.Release() }()
	children, err := OpenChildren(r)
	if err != nil {
		return fmt.Errorf("remove run %s: %w", runID, err)
	}
	defer func() { _ = children.Close() }()
	if free, err := children.tryFree(); err != nil || !free {
		return fmt.Errorf("remove run %s: %w", runID, &ChildrenError{Path: r.childrenPath(), Err: err})
	}
	// A new name first: a removal that is interrupted leaves no half run behind under its id.
	err = os.Rename(r.Dir, filepath.Join(s.runs(), removedPrefix+runID))
	if err == nil {
		err = syncDir(s.runs())
	}
	if err != nil {
		return fmt.Errorf("remove run %s: %w", runID, err)
	}
	entries, err := s.List()
	for _, e := range entries {
		if strings.HasPrefix(e.ID, removedPrefix) && err == nil {
			err = os.RemoveAll(filepath.Join(s.runs(), e.ID))
		}
	}
	if err != nil {
		return fmt.Errorf("remove run %s: %w", runID, err)
	}
	return nil
}

// LockPath is the file of a named lock such as codis/demo. Every name has a file of its own, on file systems that
// ignore case too, and none leads out of the folder: what is not a to z, 0 to 9, "-", "_" or a "." within becomes %XX.
func (s *Store) LockPath(name string) string {
	return filepath.Join(s.locks(), escape(name))
}

// Lock takes a named lock, as the function Lock does, and makes the folder for it where it is missing.
func (s *Store) Lock(name string, h Holder) (*Held, error) {
	if err := mkdirDurable(s.locks()); err != nil {
		return nil, fmt.Errorf("lock %s in the state directory %s: %w", name, s.dir(), err)
	}
	l, err := Lock(s.LockPath(name), h)
	var locked *LockedError
	if errors.As(err, &locked) {
		locked.Name = name
	}
	return l, err
}

// NamedLock is a named lock as Locks finds it.
type NamedLock struct {
	Name   string
	Path   string
	Held   bool   // false: nobody holds it, Holder is what a dead process left, or the claim of a run
	Holder Holder // zero if nothing is written in it
}

// Locks gives the named locks that are held or that a dead process left its name in.
func (s *Store) Locks() ([]NamedLock, error) {
	found, err := os.ReadDir(s.locks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the locks: %w", err)
	}
	var locks []NamedLock
	for _, f := range found {
		name, ok := unescape(f.Name())
		if !ok {
			continue // not made by LockPath
		}
		l := NamedLock{Name: name, Path: filepath.Join(s.locks(), f.Name())}
		if l.Holder, l.Held, err = Inspect(l.Path); err != nil {
			return nil, err
		}
		if l.Held || l.Holder != (Holder{}) {
			locks = append(locks, l)
		}
	}
	return locks, nil
}

func (s *Store) dir() string   { return filepath.Clean(s.Dir) }
func (s *Store) runs() string  { return filepath.Join(s.Dir, "runs") }
func (s *Store) locks() string { return filepath.Join(s.Dir, "locks") }
func (s *Store) plans() string { return filepath.Join(s.Dir, "plans") }

func (s *Store) run(id string) *Run { return &Run{ID: id, Dir: filepath.Join(s.runs(), id)} }

const upperHex = "0123456789ABCDEF"

func escape(name string) string {
	if name == "" {
		return "%" // the empty name needs a file too, and no other name gives this
	}
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; literal(c, i) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// unescape is the way back; ok is false for a file name that escape does not give.
func unescape(file string) (name string, ok bool) {
	if file == "%" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		c := file[i]
		if c == '%' {
			if i+2 >= len(file) {
				return "", false
			}
			hi, lo := strings.IndexByte(upperHex, file[i+1]), strings.IndexByte(upperHex, file[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), escape(b.String()) == file
}

func literal(c byte, at int) bool {
	return 'a' <= c && c <= 'z' || isDigit(c) || c == '-' || c == '_' || c == '.' && at > 0
}

// nearest gives up to three ids that a mistyped ref may have meant: the ones with the fewest edits between, compared
// over the ref's length since a ref is often a prefix. ids come newest first, which also breaks ties.
func nearest(ref string, ids []string) []string {
	if ref == "" || len(ref) > 64 {
		return nil
	}
	type candidate struct {
		id       string
		distance int
	}
	var near []candidate
	for _, id := range ids {
		if d := distance(ref, id[:min(len(ref), len(id))]); d <= 1+len(ref)/4 {
			near = append(near, candidate{id, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.distance - b.distance })
	var names []string
	for _, c := range near[:min(3, len(near))] {
		names = append(names, c.id)
	}
	return names
}

// distance is the number of edits of one byte that lead from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
